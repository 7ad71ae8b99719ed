/*
 * train_feed.c: makes the learner of `recctl train` and gives it what it learns from: the positives with their weights, the candidates, the skips; or, with
 * --samples, the positives and labelled negatives of a file. Main thread of recctl.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/backends.h"
#include "daemon/recctl/train.h"
#include "daemon/recctl/train_preset.h"
#include "daemon/skips.h"

const char *const train_backends[] = { "auto", "cpu", "cuda", NULL };

/* Positives on their way to the learner. */
struct feed {
	const struct train_run *run;
	struct weight_rule rule;
	struct user_item pairs[1024];
	float weights[1024]; /* log2 */
	size_t n;
	int rc;
};

static void flush(struct feed *feed)
{
	if (!feed->rc)
		feed->rc = learner_add_weighted(feed->run->learner, feed->pairs, weight_rule_is_on(&feed->rule) ? feed->weights : NULL, feed->n, 0);
	feed->n = 0;
}

static void put(struct feed *feed, struct user_item pair, double completion, int64_t time_us)
{
	const struct train_run *run = feed->run;

	if (run->options->early_stop && validation_has(&run->validation, pair.user, pair.item))
		return;
	feed->pairs[feed->n] = pair;
	feed->weights[feed->n++] = weight_rule_is_on(&feed->rule) ? weight_rule_log2(&feed->rule, completion, time_us) : 0.0f;
	if (feed->n == sizeof(feed->pairs) / sizeof(feed->pairs[0]))
		flush(feed);
}

/* From the histories. */
static void put_watch(void *ctx, uint32_t user, const struct watch_fact *w)
{
	struct feed *feed = ctx;

	put(feed, (struct user_item){ user, w->item }, (double)state_completion(feed->run->state, w), w->best_us != STATE_TIME_NONE ? w->best_us : w->last_us);
}

/* From the file. A line without a time counts as the oldest one that has one. */
static void put_samples(struct feed *feed)
{
	const struct samples *samples = &feed->run->samples;
	int64_t oldest_us = INT64_MAX;

	for (size_t i = 0; i < samples->n_positives; i++) {
		if (samples->positives[i].time_us != STATE_TIME_NONE && samples->positives[i].time_us < oldest_us)
			oldest_us = samples->positives[i].time_us;
	}
	for (size_t i = 0; i < samples->n_positives; i++) {
		int64_t time_us = samples->positives[i].time_us;

		put(feed, samples->positives[i].pair, 1, time_us != STATE_TIME_NONE ? time_us : oldest_us == INT64_MAX ? 0 : oldest_us);
	}
}

/* The skips of the histories, user by user. 0 or -ENOMEM. */
static int list_skips(struct train_run *run)
{
	const uint32_t n_users = state_n_users(run->state);
	uint32_t items[SKIPS_MAX];
	size_t n = 0, capacity = 0;

	run->skip_offsets = calloc((size_t)n_users + 1, sizeof(*run->skip_offsets));
	if (!run->skip_offsets)
		return -ENOMEM;
	for (uint32_t user = 0; user < n_users; user++) {
		size_t of_user = skips_newest(run->state, user, items, SKIPS_MAX);

		if (n + of_user > capacity) {
			size_t wanted = capacity + capacity / 2 + SKIPS_MAX;
			uint32_t *grown = realloc(run->skip_items, wanted * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			run->skip_items = grown;
			capacity = wanted;
		}
		for (size_t i = 0; i < of_user; i++)
			run->skip_items[n + i] = items[i];
		n += of_user;
		run->skip_offsets[user + 1] = n;
	}
	run->skips = (struct skip_source){ .offsets = run->skip_offsets, .items = run->skip_items, .n_users = n_users };
	return 0;
}

static int give_skips(struct train_run *run)
{
	int rc = 0;

	if (!(run->options->skip_share > 0))
		return 0;
	if (run->options->samples)
		run->skips = samples_skips(&run->samples);
	else
		rc = list_skips(run);
	if (!rc)
		learner_set_skips(run->learner, &run->skips);
	return rc;
}

struct learn_options train_learn_options(const struct train_run *run)
{
	const struct train_options *options = run->options;
	struct learn_options learn;

	learn_options_default(&learn);
	learn.emb_dim = (uint32_t)options->emb_dim;
	learn.seed = options->seed;
	learn.threads = run->threads;
	learn.deterministic = options->deterministic;
	learn.batch_size = (uint32_t)options->batch_size;
	learn.optimizer = options->optimizer;
	learn.loss = options->loss;
	learn.order = options->order;
	learn.precision = options->precision;
	learn.learning_rate = (float)options->lr;
	learn.reg_user = (float)options->reg_user;
	learn.reg_pos = (float)options->reg_pos;
	learn.reg_neg = (float)options->reg_neg;
	learn.reg_bias = (float)options->reg_bias;
	learn.adagrad_forget = 0; /* a file has an end: the rate falls instead */
	learn.init_scale = (float)options->init_scale;
	learn.skip_share = (float)options->skip_share;
	learn.popular_share = (float)options->popular_share;
	learn.popular_power = (float)options->popular_power;
	learn.hard_share = (float)options->hard_share;
	learn.hard_of = (uint32_t)options->hard_of;
	return learn;
}

static int feed_positives(struct train_run *run)
{
	struct feed *feed = calloc(1, sizeof(*feed));

	if (!feed)
		return -ENOMEM;
	feed->run = run;
	feed->rule = (struct weight_rule){ run->options->weight_completion, run->options->half_life_days };
	if (run->options->samples)
		put_samples(feed);
	else
		state_for_each_positive(run->state, put_watch, feed);
	flush(feed);
	int rc = feed->rc;
	free(feed);
	return rc;
}

static int open_learner(struct train_run *run)
{
	const struct learn_options learn = train_learn_options(run);
	const char *wanted = train_backends[run->options->backend];
	const struct backend_ops *ops;
	char setting[32];

	snprintf(setting, sizeof(setting), "--backend %s", wanted);
	return backends_open_learner(wanted, setting, &learn, &ops, &run->learner, run->backend_reason, sizeof(run->backend_reason), run->errstr,
	                             sizeof(run->errstr));
}

int train_explain(struct train_run *run, int rc)
{
	if (rc == -ERANGE)
		snprintf(run->errstr, sizeof(run->errstr), "training diverged (a parameter is not finite); lower --lr");
	else if (!learner_fault(run->learner, run->errstr, sizeof(run->errstr)))
		snprintf(run->errstr, sizeof(run->errstr), "%s", rc == -ENOMEM ? "out of memory" : strerror(-rc));
	return rc;
}

int train_make_learner(struct train_run *run)
{
	struct state_changes changes;
	int rc = open_learner(run);

	if (rc)
		return rc;
	rc = learner_grow(run->learner, state_n_users(run->state), state_n_items(run->state), state_user_ids(run->state), state_item_ids(run->state));
	if (!rc) {
		state_changes_get(run->state, &changes);
		rc = learner_add_candidates(run->learner, changes.candidates, changes.n_candidates);
	}
	if (!rc) /* a labelled negative was shown, too */
		rc = learner_add_candidates(run->learner, run->samples.items, run->samples.n_negatives);
	if (!rc)
		rc = feed_positives(run);
	if (!rc)
		rc = give_skips(run);
	if (!rc) {
		run->n_positives = learner_n_positives(run->learner);
		train_preset_epochs(run->options, run->n_positives);
		const struct learn_options learn = train_learn_options(run); /* with the size of its steps */
		rc = learner_set_options(run->learner, &learn);
	}
	if (rc)
		(void)train_explain(run, rc);
	return rc;
}
