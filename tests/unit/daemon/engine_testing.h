/*
 * engine_testing.h: an engine with queues, a data directory of its own and no sources, for tests. A test program includes it once.
 */
#ifndef TESTS_UNIT_DAEMON_ENGINE_TESTING_H
#define TESTS_UNIT_DAEMON_ENGINE_TESTING_H

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/engine.h"

#define USERS 60
#define ITEMS 80
#define GROUPS 4
#define PATIENCE_MS 20000

struct bench {
	char path[64];
	int fd;
	struct config config;
	struct queue_set *queues;
	struct engine *engine;
	int64_t offset;
	/* what engine_on_durable() told last */
	atomic_int durable_calls;
	size_t durable_n;
	int64_t durable_offset;
};

static inline void sleep_ms(int ms)
{
	const struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* The engine thread calls; tests read after a snapshot was answered, which comes later. */
static inline void note_durable(void *ctx, const struct source_position *positions, size_t n)
{
	struct bench *b = ctx;

	b->durable_n = n;
	b->durable_offset = n > 0 ? positions[0].offset : -1;
	atomic_fetch_add(&b->durable_calls, 1);
}

static inline void start(struct bench *b)
{
	static const int enabled[STREAM_COUNT] = { 1, 1, 1, 1, 1 };
	char errstr[1024] = "";

	assert_int_equal(queue_set_new(4, enabled, &b->queues), 0);
	if (engine_open(&b->config, b->fd, b->queues, NULL, NULL, &b->engine, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	engine_on_durable(b->engine, note_durable, b);
	assert_int_equal(engine_start(b->engine, errstr, sizeof(errstr)), 0);
}

static inline void stop(struct bench *b, int skip_checkpoint)
{
	char errstr[512];
	int error = -1;

	engine_request_stop(b->engine, skip_checkpoint);
	for (int waited = 0; !engine_ended(b->engine, &error, errstr, sizeof(errstr)) && waited < PATIENCE_MS; waited += 10)
		sleep_ms(10);
	assert_int_equal(error, 0);
	engine_close(b->engine);
	queue_set_free(b->queues);
	b->engine = NULL;
}

/* Everything but the engine itself. */
static inline struct bench *bench_new(void)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	strcpy(b->path, "/tmp/recd-engine-XXXXXX");
	assert_non_null(mkdtemp(b->path));
	b->fd = open(b->path, O_RDONLY | O_DIRECTORY);
	config_default(&b->config);
	free(b->config.data_dir);
	b->config.data_dir = strdup(b->path);
	b->config.state.users_max = b->config.state.items_max = 10000;
	b->config.learn.emb_dim = 8;
	b->config.learn.threads = 2;
	b->config.slice_ms = 5;
	b->config.publish_interval_ms = 20;
	b->config.idle_passes = 200;
	b->config.personalize.steps = 50;
	b->config.checkpoint_interval_sec = 0;
	return b;
}

static inline int setup(void **out)
{
	struct bench *b = bench_new();

	start(b);
	*out = b;
	return 0;
}

static inline int teardown(void **in)
{
	struct bench *b = *in;
	char command[128];

	if (b->engine != NULL)
		stop(b, 1);
	config_free(&b->config);
	close(b->fd);
	snprintf(command, sizeof(command), "rm -rf '%s'", b->path);
	assert_int_equal(system(command), 0);
	free(b);
	return 0;
}

/* One line a user and item: users of a group watch the items of that group. `first`: which items of the group. */
static inline void push_watches(struct bench *b, int first, int n)
{
	struct event_batch *batch = queue_take_free(b->queues, STREAM_WATCHES, PATIENCE_MS);

	assert_non_null(batch);
	for (int u = 0; u < USERS; u++) {
		for (int j = first; j < first + n; j++) {
			struct event *e = &batch->events[batch->n_events++];

			memset(e, 0, sizeof(*e));
			e->stream = STREAM_WATCHES;
			e->user_id = 100 + u;
			e->item_id = 9000 + (u % GROUPS) + GROUPS * ((j + u / GROUPS) % (ITEMS / GROUPS));
			e->time_us = 1700000000000000 + b->offset;
			e->flags = EVENT_HAS_COMPLETION;
			e->completion = 0.9f;
			b->offset++;
		}
	}
	snprintf(batch->position.name, sizeof(batch->position.name), "file:watch_stats:/x");
	batch->position.offset = b->offset;
	batch->position.lines = (uint64_t)b->offset;
	queue_push(b->queues, batch);
}

/* Polls the status until `done` says so. */
static inline struct engine_status wait_for(struct bench *b, int (*done)(const struct engine_status *s, int64_t arg), int64_t arg)
{
	static struct engine_status s;

	for (int waited = 0; waited < PATIENCE_MS; waited += 10) {
		engine_get_status(b->engine, &s);
		if (done(&s, arg))
			return s;
		sleep_ms(10);
	}
	fail_msg("the engine did not get there in %d s", PATIENCE_MS / 1000);
	return s;
}

static inline int consumed(const struct engine_status *s, int64_t offset)
{
	return s->n_positions == 1 && s->positions[0].offset == offset;
}

static inline int trained(const struct engine_status *s, int64_t triples)
{
	return (int64_t)s->progress.triples >= triples && s->fold_in_waiting == 0;
}

/* Share of the top list that is of the user's own group. */
static inline double own_group(struct bench *b, int u, enum served *ret_served)
{
	struct generation *g = generation_acquire(engine_publisher(b->engine));
	const struct state *state = engine_state(b->engine);
	struct query_options options;
	struct query_scratch scratch = { 0 };
	struct user_copy copy = { 0 };
	struct ranked_item items[5];
	size_t n = 0;
	double own = 0;

	engine_query_options(b->engine, &options);
	options.k = 5;
	assert_int_equal(state_user_copy(state, state_find_user(state, 100 + u), &copy), 0);
	assert_int_equal(query_top(g, state, &copy.facts, &options, &scratch, items, &n, ret_served), 0);
	assert_int_equal(n, 5);
	for (size_t i = 0; i < n; i++)
		own += state_item_ids(state)[items[i].item] % GROUPS == (9000 + u) % GROUPS;
	generation_release(engine_publisher(b->engine), g);
	query_scratch_free(&scratch);
	user_copy_free(&copy);
	return own / (double)n;
}

static inline int resting(const struct engine_status *s, int64_t arg)
{
	(void)arg;
	return s->training_resting;
}

/* Trained to the end, and every row fitted to the last V. */
static inline void settle(struct bench *b)
{
	struct engine_status s = wait_for(b, resting, 0), before;

	do {
		before = s;
		sleep_ms(300);
		engine_get_status(b->engine, &s);
	} while (s.refreshed != before.refreshed || s.generation != before.generation);
}

#endif
