/*
 * engine_train.c: training slices, publishing, rolling back. Engine thread.
 *
 * A slice is a bounded piece of a mini-epoch. After idle_passes passes without a new positive there is nothing left to learn and training rests
 * until there is news. Publishing copies what changed into the spare generation and checks it in the same pass; parameters that are not finite, or a loss
 * that ran away, never get that far: the working tables are set back to the published ones.
 *
 * On a device a slice is a job in flight: it is begun, looked after every turn and taken into the books when it has ended, while this thread applies and folds
 * in. What it does is nowhere to be seen before. A publish that is due lets the job in flight end and no other begin, so that reading parameters back never
 * waits for one.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/engine_internal.h"

#define PUBLISH_HELD_UP_US 10000000
#define MEAN_ROWS_MAX 1024u
#define LOSS_DIVERGED 8.0 /* an untrained model has ln 2 = 0.69 */

static void roll_back(struct engine *engine, const char *why)
{
	struct generation *good = generation_acquire(engine->publisher);
	struct learner_progress progress = learner_get_progress(engine->learner);

	if (good != NULL && learner_push(engine->learner, &good->tables) == 0) {
		progress.rollbacks++;
		learner_set_progress(engine->learner, &progress);
	}
	generation_release(engine->publisher, good);
	engine->training.rollbacks++;
	engine->training.trained_since = 0;
	engine->training.loss = NAN;
	engine->training.heat = 0; /* and more carefully */
	snprintf(engine->training.trouble, sizeof(engine->training.trouble), "%s; set back to the published generation", why);
}

static int should_rest(struct engine *engine)
{
	const struct learner_progress progress = learner_get_progress(engine->learner);

	return learner_recent_waiting(engine->learner) == 0 && progress.passes - engine->training.news_passes >= engine->config.idle_passes;
}

/* Takes a job into the books, or sets the parameters back when it went wrong. Returns triples that count. */
static uint64_t take_report(struct engine *engine, const struct train_report *report)
{
	engine->training.trained_since += report->triples;
	engine->training.threads = report->threads;
	engine_rate_cool(engine, report->triples);
	if (report->nonfinite) {
		roll_back(engine, "training met a value that is not finite");
		return 0;
	}
	if (report->loss > LOSS_DIVERGED) {
		roll_back(engine, "training diverged (lower training.learning_rate)");
		return 0;
	}
	if (isfinite(report->loss))
		engine->training.loss = isfinite(engine->training.loss) && engine->training.loss > 0
		                                ? 0.95 * engine->training.loss + 0.05 * report->loss
		                                : report->loss;
	return report->triples;
}

uint64_t engine_train_poll(struct engine *engine)
{
	struct train_report report;
	int rc;

	if (!engine->training.in_flight)
		return 0;
	rc = learner_poll(engine->learner, &report);
	if (rc == 0 && learner_part_us(engine->learner) > (int64_t)engine->config.device_timeout_ms * 1000)
		learner_give_up(engine->learner); /* its fault is seen to in the next turn */
	if (rc == 0 && learner_running(engine->learner))
		return 0;
	engine->training.in_flight = 0;
	return rc > 0 ? take_report(engine, &report) : 0;
}

uint64_t engine_train_slice(struct engine *engine)
{
	/* while a checkpoint is written, its thread takes a share of the cores, and a slice takes longer than it should */
	const int64_t slice_us = (int64_t)engine->config.slice_ms * (engine->checkpoint.running ? 500 : 1000);
	const struct train_job job = { .triples_max = UINT64_MAX, .budget_us = slice_us, .learning_rate = engine_rate(engine) };
	struct train_report report = { 0 };
	const uint64_t trained = engine_train_poll(engine);

	if (engine->training.in_flight || engine->training.draining)
		return trained;
	if (!engine->config.training_enabled || learner_n_positives(engine->learner) == 0)
		return trained;
	engine->training.resting = should_rest(engine);
	if (engine->training.resting || learner_train(engine->learner, &job, &report) < 0)
		return trained;
	engine->training.in_flight = learner_running(engine->learner);
	return engine->training.in_flight ? trained : trained + take_report(engine, &report);
}

void engine_train_keep(struct engine *engine)
{
	if (engine->training.in_flight)
		(void)engine_train_slice(engine);
}

/* Mean of the rows of users with positives, over at most MEAN_ROWS_MAX users spread over all. */
static void fill_mean_user(struct engine *engine, struct generation *g)
{
	const uint32_t n = g->tables.n_users, dim = g->tables.dim, step = n / MEAN_ROWS_MAX + 1;
	uint32_t used = 0;

	memset(g->mean_user, 0, dim * sizeof(float));
	for (uint32_t user = 0; user < n; user += step) {
		struct user_facts facts;
		uint32_t one;

		state_user_facts(engine->state, user, &facts);
		if (state_positives(engine->state, &facts, &one, 1) == 0)
			continue;
		for (uint32_t d = 0; d < dim; d++)
			g->mean_user[d] += g->tables.U[(size_t)user * dim + d];
		used++;
	}
	for (uint32_t d = 0; used > 0 && d < dim; d++)
		g->mean_user[d] /= (float)used;
}

static int publish_due(const struct engine *engine, int64_t now_us)
{
	const struct engine_training *t = &engine->training;
	int64_t wait_us = (int64_t)engine->config.publish_interval_ms * 1000;

	if (t->trained_since == 0 && !t->dirty)
		return 0;
	/* a large one would be the longest gap while a checkpoint is written; a slow disk does not hold it up for ever */
	if (engine->checkpoint.running && t->publish_cost_us > ENGINE_LARGE_PUBLISH_US && wait_us < PUBLISH_HELD_UP_US)
		wait_us = PUBLISH_HELD_UP_US;
	/* a large publish is done less often, so that it takes no more than its share of the time */
	if ((double)wait_us * engine->config.publish_share_max < (double)t->publish_cost_us)
		wait_us = (int64_t)((double)t->publish_cost_us / engine->config.publish_share_max);
	return now_us - t->published_us >= wait_us;
}

int engine_publish(struct engine *engine, int force)
{
	struct engine_training *t = &engine->training;
	const int64_t began_us = engine_mono_us();
	struct generation *g, *before;
	int rc;

	if (!force && !publish_due(engine, began_us))
		return 0;
	engine_train_poll(engine);
	t->draining = t->in_flight;
	if (t->in_flight || publisher_begin(engine->publisher, &g) < 0)
		return 0;
	rc = learner_pull(engine->learner, &g->tables);
	if (rc < 0) {
		publisher_cancel(engine->publisher, g);
		if (rc == -ERANGE)
			roll_back(engine, "a parameter is not finite");
		else if (learner_fault(engine->learner, NULL, 0) == 0)
			snprintf(t->trouble, sizeof(t->trouble), "publishing failed: %s; tried again", strerror(-rc));
		return 0;
	}
	before = generation_acquire(engine->publisher);
	if (g->tables.n_users > 0)
		memcpy(g->tables.bu, engine->fold.bu, g->tables.n_users * sizeof(float));
	fill_mean_user(engine, g);
	engine_quality_publish(engine, g);
	engine_fit_intercept(engine);
	g->intercept = engine->fold.intercept;
	g->progress = learner_get_progress(engine->learner);
	learner_candidates(engine->learner, &g->n_candidates);
	g->published_us = engine_mono_us();
	publisher_commit(engine->publisher, g, t->next_number);
	t->next_number = 0;
	if (t->trained_since > 0 || before == NULL || before->tables.n_items != g->tables.n_items)
		t->model_generation = g->number;
	generation_release(engine->publisher, before);
	t->trained_since = 0;
	t->dirty = 0;
	engine_fold_published(engine);
	t->published_us = engine_mono_us();
	t->publish_cost_us = t->published_us - began_us;
	return 1;
}
