/*
 * train_learn.c: the training itself for `recctl train`: positives to the learner, epochs with a falling rate, the look after each epoch that may stop it.
 *
 * Main thread of recctl; the learner has threads of its own. With --early_stop the validation slice never reaches the learner, and the tables of the best epoch
 * are kept beside the current ones.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/recctl/progress.h"
#include "daemon/recctl/train.h"

#define RATE_STEPS 200u /* the learning rate is lowered this many times; jobs are long enough for many threads */

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Pairs on their way to the learner. */
struct pairs {
	struct learner *learner;
	const struct validation *validation; /* its pairs are left out; NULL: none */
	struct user_item buffer[1024];
	size_t n;
	int rc;
};

static void flush_pairs(struct pairs *pairs)
{
	if (!pairs->rc)
		pairs->rc = learner_add_positives(pairs->learner, pairs->buffer, pairs->n, 0);
	pairs->n = 0;
}

static void emit_pair(void *ctx, uint32_t user, uint32_t item)
{
	struct pairs *pairs = ctx;

	if (pairs->validation && validation_has(pairs->validation, user, item))
		return;
	pairs->buffer[pairs->n++] = (struct user_item){ user, item };
	if (pairs->n == sizeof(pairs->buffer) / sizeof(pairs->buffer[0]))
		flush_pairs(pairs);
}

/* Skips for the sampler; any training thread. */
static size_t list_skips(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	struct decided_impression decided[LOAD_IMPRESSIONS_MAX];
	struct user_facts facts;
	size_t n_skips = 0;

	state_user_facts(ctx, user, &facts);
	size_t n = state_decided(ctx, &facts, decided, LOAD_IMPRESSIONS_MAX);
	if (n > LOAD_IMPRESSIONS_MAX)
		n = LOAD_IMPRESSIONS_MAX;
	for (size_t i = 0; i < n && n_skips < max; i++) {
		if (!decided[i].label)
			ret_items[n_skips++] = decided[i].item;
	}
	return n_skips;
}

int train_make_learner(struct train_run *run)
{
	const struct train_options *options = run->options;
	struct pairs *pairs = calloc(1, sizeof(*pairs));
	struct state_changes changes;
	struct learn_options learn;

	if (!pairs)
		return -ENOMEM;
	learn_options_default(&learn);
	learn.emb_dim = (uint32_t)options->emb_dim;
	learn.seed = options->seed;
	learn.threads = run->threads;
	learn.deterministic = options->deterministic;
	learn.batch_size = (uint32_t)options->batch_size;
	learn.optimizer = options->optimizer;
	learn.learning_rate = (float)options->lr;
	learn.reg_user = learn.reg_pos = learn.reg_neg = (float)options->reg;
	learn.reg_bias = (float)options->reg_bias;
	learn.adagrad_forget = 0; /* a file has an end: the rate falls instead */
	learn.init_scale = (float)options->init_scale;
	learn.skip_share = (float)options->skip_share;
	learn.popular_share = (float)options->popular_share;
	learn.popular_power = (float)options->popular_power;
	learn.hard_share = (float)options->hard_share;
	learn.hard_of = (uint32_t)options->hard_of;
	int rc = learner_new(&learn, &backend_cpu, &run->learner, run->errstr, sizeof(run->errstr));
	if (rc)
		goto out;
	rc = learner_grow(run->learner, state_n_users(run->state), state_n_items(run->state), state_user_ids(run->state), state_item_ids(run->state));
	if (!rc) {
		state_changes_get(run->state, &changes);
		rc = learner_add_candidates(run->learner, changes.candidates, changes.n_candidates);
	}
	if (!rc) {
		pairs->learner = run->learner;
		pairs->validation = options->early_stop ? &run->validation : NULL;
		state_for_each_positive(run->state, emit_pair, pairs);
		flush_pairs(pairs);
		rc = pairs->rc;
	}
	if (rc)
		snprintf(run->errstr, sizeof(run->errstr), "out of memory");
	run->skips = (struct skip_source){ list_skips, run->state };
	if (!rc && options->skip_share > 0)
		learner_set_skips(run->learner, &run->skips);
out:
	free(pairs);
	return rc;
}

/* ---- training ---- */

/* Trains `n_steps` from step `done` of `total` on; the rate falls between jobs. */
static int train_epoch(struct train_run *run, uint64_t done, uint64_t n_steps, uint64_t total, struct train_epoch *ret_epoch, struct progress *progress)
{
	const struct train_options *options = run->options;
	uint64_t per_job = total / RATE_STEPS + 1, batch = (uint64_t)options->batch_size;
	struct train_epoch epoch = { .rate_begin = options->lr * (double)(total - done) / (double)total,
		               .rate_end = options->lr * (double)(total - done - n_steps) / (double)total };
	double loss_sum = 0, loss_weight = 0;

	for (uint64_t step = 0; step < n_steps;) {
		uint64_t n = n_steps - step < per_job ? n_steps - step : per_job;
		struct train_job job = { .triples_max = n * batch, .learning_rate = (float)(options->lr * (double)(total - done - step) / (double)total) };
		struct train_report report;
		double begin = now_s();
		int rc = learner_train(run->learner, &job, &report);

		if (!rc)
			rc = learner_wait(run->learner, &report);
		epoch.seconds += now_s() - begin;
		if (rc || report.nonfinite) {
			snprintf(run->errstr, sizeof(run->errstr), rc ? "training failed: %s" : "training diverged (a parameter is not finite%s); lower --lr",
			         rc ? strerror(-rc) : "");
			return rc ? rc : -ERANGE;
		}
		epoch.triples += report.triples;
		run->rejected += report.rejected;
		if (isfinite(report.loss)) {
			loss_sum += report.loss * (double)report.triples;
			loss_weight += (double)report.triples;
		}
		step += n;
		progress_update(progress, (done + step) * batch);
	}
	epoch.loss = loss_weight > 0 ? loss_sum / loss_weight : NAN;
	*ret_epoch = epoch;
	return 0;
}

/*
 * Judges the tables as they are after an epoch: on the validation slice, or for the plot alone on what is held out. Returns 1 when training is to stop, 0, or
 * -errno.
 */
static int look_at_epoch(struct train_run *run, int64_t e)
{
	const struct train_options *options = run->options;
	const struct rank_user *users = run->split.users;
	size_t n_users = run->split.group_begin[GROUP_COUNT];
	uint32_t n_items = state_n_items(run->state) + run->split.n_extra_items;

	run->epochs[e].ndcg = NAN;
	if (options->early_stop) {
		users = run->validation.users;
		n_users = run->validation.n_users;
	} else if (!options->plot || !n_users) {
		return 0;
	}
	int rc = learner_pull(run->learner, &run->tables);
	if (!rc)
		rc = validation_judge(users, n_users, &run->tables, n_items, run->plan.judge.ks[0], run->threads, &run->epochs[e].ndcg);
	if (rc || !options->early_stop)
		return rc;
	if (!run->best_epoch || run->epochs[e].ndcg > run->epochs[run->best_epoch - 1].ndcg) {
		struct tables other = run->best;

		run->best = run->tables;
		run->tables = other; /* the next pull fills it */
		run->best_epoch = e + 1;
		return 0;
	}
	return e + 1 - run->best_epoch >= options->early_stop;
}

int train_all(struct train_run *run)
{
	const struct train_options *options = run->options;
	uint64_t per_epoch = (uint64_t)options->steps_per_epoch, total = per_epoch * (uint64_t)options->epochs;
	struct progress progress;
	int rc = 0;

	if (!run->n_positives) {
		snprintf(run->errstr, sizeof(run->errstr), "no positives: no watch before the split reaches --min_pos_completion %g", options->min_pos_completion);
		return -ENODATA;
	}
	run->epochs = calloc((size_t)options->epochs, sizeof(*run->epochs));
	if (!run->epochs)
		return -ENOMEM;
	for (int64_t e = 0; e < options->epochs && !rc; e++) {
		progress_begin(&progress, "training, triples", total * (uint64_t)options->batch_size);
		rc = train_epoch(run, (uint64_t)e * per_epoch, per_epoch, total, &run->epochs[e], &progress);
		progress_end(&progress);
		if (rc)
			return rc;
		run->triples += run->epochs[e].triples;
		run->train_seconds += run->epochs[e].seconds;
		run->n_epochs = e + 1;
		rc = look_at_epoch(run, e);
		if (rc >= 0)
			train_report_epoch(run, e);
	}
	if (rc >= 0 && run->best_epoch) {
		struct tables last = run->tables;

		run->tables = run->best; /* the best epoch's rows */
		run->best = last;
		return 0;
	}
	if (rc >= 0)
		rc = learner_pull(run->learner, &run->tables);
	if (rc)
		snprintf(run->errstr, sizeof(run->errstr), rc == -ERANGE ? "training diverged (a parameter is not finite); lower --lr" : "out of memory");
	return rc;
}
