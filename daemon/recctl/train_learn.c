/*
 * train_learn.c: the training itself for `recctl train`: epochs with a falling rate, the look after each epoch that may stop it.
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
		if (rc || report.nonfinite)
			return train_explain(run, rc ? rc : -ERANGE);
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
		if (options->samples)
			snprintf(run->errstr, sizeof(run->errstr), "no positives: no line of %s with label 1 can be used", options->samples);
		else
			snprintf(run->errstr, sizeof(run->errstr), "no positives: no watch before the split reaches --min_pos_completion %g",
			         options->min_pos_completion);
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
		if (!learner_has_batches(run->learner))
			return 0;
		rc = learner_push(run->learner, &run->tables); /* the device personalizes by them, too */
	}
	if (rc >= 0)
		rc = learner_pull(run->learner, &run->tables);
	return rc ? train_explain(run, rc) : 0;
}
