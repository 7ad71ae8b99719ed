/*
 * test_engine.c: the engine with queues and no sources: facts and positions go in together, models come out, a checkpoint brings all of it back, a bad
 * learning rate never reaches what is served.
 */
#include "tests/unit/daemon/engine_testing.h"

static void learns_and_serves(void **in)
{
	struct bench *b = *in;
	enum served served = SERVED_POPULARITY;
	double own = 0;

	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 30000);
	settle(b);
	for (int u = 0; u < USERS; u++)
		own += own_group(b, u, &served) / USERS;
	assert_int_equal(served, SERVED_PERSONALIZED);
	assert_true(own > 0.8); /* a random list has 0.25 */
}

static void checkpoint_brings_it_back(void **in)
{
	struct bench *b = *in;
	struct checkpoint_result result;
	struct engine_status before, after;
	enum served served;
	char errstr[512] = "";

	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 30000);
	if (engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	engine_get_status(b->engine, &before);
	/* what comes after the checkpoint is lost with the process, and read again by a source */
	push_watches(b, 10, 2);
	wait_for(b, consumed, b->offset);
	stop(b, 1);
	start(b);
	engine_get_status(b->engine, &after);
	assert_int_equal(after.histories_digest.lo, before.histories_digest.lo);
	assert_int_equal(after.histories_digest.hi, before.histories_digest.hi);
	assert_int_equal(after.positions_digest.lo, before.positions_digest.lo);
	assert_int_equal(after.checkpoint_number, result.number);
	assert_true(after.generation > 1);
	assert_true(after.progress.triples >= 30000);
	assert_int_equal(after.personal_rows, USERS);
	assert_true(own_group(b, 7, &served) > 0.5);
	assert_int_equal(served, SERVED_PERSONALIZED);
}

static void stopping_saves(void **in)
{
	struct bench *b = *in;
	struct engine_status after;

	push_watches(b, 0, 5);
	wait_for(b, consumed, b->offset);
	stop(b, 0);
	start(b);
	engine_get_status(b->engine, &after);
	assert_int_equal(after.positions[0].offset, b->offset);
	assert_int_equal(after.n_positives, USERS * 5);
}

static int lines_at(const struct engine_status *s, int64_t lines)
{
	return s->n_positions == 1 && s->positions[0].lines == (uint64_t)lines;
}

/* event.h: a position that retires leaves its counters to the one of its path, in the same step. */
static void retired_counters_come_home(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	push_watches(b, 0, 1);
	wait_for(b, consumed, b->offset);
	for (int i = 0; i < 2; i++) {
		struct event_batch *batch = queue_take_free(b->queues, STREAM_WATCHES, PATIENCE_MS);

		assert_non_null(batch);
		snprintf(batch->position.name, sizeof(batch->position.name), "file:watch_stats:/x#rotated:1:2");
		batch->position.lines = 7;
		batch->position.refused[REFUSED_JSON] = 2;
		batch->position.retired = i == 1;
		queue_push(b->queues, batch);
	}
	s = wait_for(b, lines_at, b->offset + 7);
	assert_int_equal(s.positions[0].refused[REFUSED_JSON], 2);
	assert_int_equal(s.positions[0].offset, b->offset);
	assert_string_equal(s.positions[0].name, "file:watch_stats:/x");
}

/* What a broker may be told: the positions of the cut, once it is durable, and nothing when it failed. */
static void durable_positions_are_told(void **in)
{
	struct bench *b = *in;
	struct checkpoint_result result;
	char errstr[512];
	char checkpoints[128];

	push_watches(b, 0, 2);
	wait_for(b, consumed, b->offset);
	assert_int_equal(atomic_load(&b->durable_calls), 0);
	assert_int_equal(engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)), 0);
	assert_int_equal(atomic_load(&b->durable_calls), 1);
	assert_int_equal(b->durable_n, 1);
	assert_int_equal(b->durable_offset, b->offset);

	/* no place to write to: a file where the folder was */
	const int64_t told = b->offset;
	char command[512];

	snprintf(checkpoints, sizeof(checkpoints), "%s/checkpoints", b->path);
	snprintf(command, sizeof(command), "mv %s %s.away && touch %s", checkpoints, checkpoints, checkpoints);
	assert_int_equal(system(command), 0);
	push_watches(b, 2, 1);
	wait_for(b, consumed, b->offset);
	assert_true(engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)) < 0);
	assert_int_equal(atomic_load(&b->durable_calls), 1);
	assert_int_equal(b->durable_offset, told);
	snprintf(command, sizeof(command), "rm %s && mv %s.away %s", checkpoints, checkpoints, checkpoints);
	assert_int_equal(system(command), 0);
	stop(b, 0); /* the last one */
	assert_int_equal(atomic_load(&b->durable_calls), 2);
	assert_int_equal(b->durable_offset, b->offset);
}

static int has_positions(const struct engine_status *s, int64_t n)
{
	return (int64_t)s->n_positions == n;
}

/* Positions above those shown are summed, all are copied; the digest says what the log decides, not how often a record came again. */
static void many_positions_and_their_digest(void **in)
{
	struct bench *b = *in;
	struct source_position *positions = NULL;
	struct engine_status s;
	struct state_digest before;
	size_t n = 0;

	for (int i = 0; i < ENGINE_POSITIONS_SHOWN + 3; i++) {
		struct event_batch *batch = queue_take_free(b->queues, STREAM_WATCHES, PATIENCE_MS);

		assert_non_null(batch);
		snprintf(batch->position.name, sizeof(batch->position.name), "kafka:watch_stats:t:%d", i);
		batch->position.offset = 10;
		batch->position.lines = 10;
		batch->position.holes = 2;
		batch->position.last_time_us = 5 + i;
		queue_push(b->queues, batch);
	}
	s = wait_for(b, has_positions, ENGINE_POSITIONS_SHOWN + 3);
	assert_int_equal(s.positions_rest.lines, 30);
	assert_int_equal(s.positions_rest.holes, 6);
	assert_int_equal(s.positions_rest.last_time_us, 5 + ENGINE_POSITIONS_SHOWN + 2);
	assert_int_equal(engine_copy_positions(b->engine, &positions, &n), 0);
	assert_int_equal(n, ENGINE_POSITIONS_SHOWN + 3);
	assert_string_equal(positions[n - 1].name, "kafka:watch_stats:t:66");
	before = s.positions_digest;
	for (int changed = 0; changed < 2; changed++) { /* first duplicates alone, then a hole as well */
		struct event_batch *batch = queue_take_free(b->queues, STREAM_WATCHES, PATIENCE_MS);

		assert_non_null(batch);
		batch->position = positions[n - 1];
		batch->position.duplicates = 7;
		batch->position.holes += (uint64_t)changed;
		queue_push(b->queues, batch);
		for (int waited = 0; waited < PATIENCE_MS && (s.positions_rest.duplicates != 7 || s.positions_rest.holes != 6 + (uint64_t)changed); waited += 10) {
			sleep_ms(10);
			engine_get_status(b->engine, &s);
		}
		assert_int_equal(s.positions_rest.holes, 6 + changed);
		assert_int_equal(s.positions_digest.lo == before.lo && s.positions_digest.hi == before.hi, !changed);
	}
	free(positions);
}

static int in_trouble(const struct engine_status *s, int64_t arg)
{
	(void)arg;
	return s->training_trouble[0] != '\0';
}

/* Row 31, 32: whatever the rate does to the working tables, what is served stays finite. */
static void divergence_is_rolled_back(void **in)
{
	struct bench *b = *in;
	struct config wild = b->config;
	enum served served;

	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 30000);
	wild.learn.optimizer = OPTIMIZER_SGD;
	wild.learn.learning_rate = 1e6f;
	wild.learn.step_norm_max = 1e6f;
	engine_reconfigure(b->engine, &wild);
	push_watches(b, 10, 1);
	wait_for(b, in_trouble, 0);
	struct generation *g = generation_acquire(engine_publisher(b->engine));

	for (size_t i = 0; i < (size_t)g->tables.n_items * g->tables.dim; i++)
		assert_true(isfinite(g->tables.V[i]) && fabsf(g->tables.V[i]) < 100.0f);
	generation_release(engine_publisher(b->engine), g);
	assert_true(own_group(b, 3, &served) > 0.5);
	engine_reconfigure(b->engine, &b->config);
}

/* All is new: the full rate. Nothing new for long: the floor. Some news, some of the way up; and a constant rate where that is asked for. */
static void the_rate_follows_the_news(void **in)
{
	struct bench *b = *in;
	struct config fresh = b->config;
	struct engine_status s;

	fresh.learn.learning_rate = 0.2f;
	fresh.rate_floor = 0.1f;
	fresh.cool_passes = 10;
	fresh.training_enabled = 0;
	engine_reconfigure(b->engine, &fresh);
	push_watches(b, 0, 10);
	s = wait_for(b, consumed, b->offset);
	assert_float_equal((float)s.learning_rate, 0.2f, 1e-6f); /* all of it is new, and nothing was trained */
	fresh.training_enabled = 1;
	fresh.idle_passes = 200;
	engine_reconfigure(b->engine, &fresh);
	wait_for(b, trained, 200 * USERS * 10);
	s = wait_for(b, resting, 0);
	assert_float_equal((float)s.learning_rate, 0.02f, 1e-4f);
	fresh.training_enabled = 0;
	engine_reconfigure(b->engine, &fresh);
	push_watches(b, 10, 1); /* a user's eleventh: three elevenths of the way up */
	s = wait_for(b, consumed, b->offset);
	assert_float_equal((float)s.learning_rate, 0.2f * (0.1f + 0.9f * 3 / 11), 1e-4f);
	fresh.cool_passes = 0;
	engine_reconfigure(b->engine, &fresh);
	push_watches(b, 11, 1);
	s = wait_for(b, consumed, b->offset);
	assert_float_equal((float)s.learning_rate, 0.2f, 1e-6f);
	engine_reconfigure(b->engine, &b->config);
}

/* Stopped before anything was learnt: as fast as before. Stopped after it was: at the floor. */
static void the_rate_survives_a_restart(void **in)
{
	struct bench *b = *in;

	stop(b, 1);
	b->config.learn.learning_rate = 0.2f;
	b->config.rate_floor = 0.1f;
	b->config.cool_passes = 10;
	b->config.training_enabled = 0;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	stop(b, 0);
	start(b);
	assert_float_equal((float)wait_for(b, consumed, b->offset).learning_rate, 0.2f, 1e-6f);
	b->config.training_enabled = 1;
	engine_reconfigure(b->engine, &b->config);
	wait_for(b, trained, 200 * USERS * 10);
	wait_for(b, resting, 0);
	stop(b, 0);
	start(b);
	assert_float_equal((float)wait_for(b, consumed, b->offset).learning_rate, 0.02f, 1e-4f);
}

static int forgotten(const struct engine_status *s, int64_t positives)
{
	return (int64_t)s->n_positives == positives;
}

static void forgetting_is_remembered(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	push_watches(b, 0, 5);
	wait_for(b, consumed, b->offset);
	assert_int_equal(engine_forget(b->engine, 101, 0, PATIENCE_MS), 0);
	wait_for(b, forgotten, (USERS - 1) * 5);
	stop(b, 0);
	start(b);
	push_watches(b, 5, 2);
	s = wait_for(b, consumed, b->offset);
	assert_int_equal(s.counters.dropped_forgotten, 2);
	assert_int_equal(s.n_positives, (USERS - 1) * 7);
	assert_int_equal(engine_forget(b->engine, 101, 1, PATIENCE_MS), 0);
	push_watches(b, 5, 2);
	wait_for(b, consumed, b->offset);
	wait_for(b, forgotten, (USERS - 1) * 7 + 2);
}

/* An id that there is no room for is the asker's trouble, not the engine's. */
static void no_room_to_forget(void **in)
{
	struct bench *b = *in;

	stop(b, 1);
	b->config.state.users_max = USERS;
	start(b);
	push_watches(b, 0, 1);
	wait_for(b, consumed, b->offset);
	assert_int_equal(engine_forget(b->engine, 5, 0, PATIENCE_MS), -ENOSPC);
	push_watches(b, 1, 1);
	wait_for(b, consumed, b->offset);
}

/* Fewer positives asked for at a reload: who has enough now gets a row, without news of him. */
static int all_rows(const struct engine_status *s, int64_t rows)
{
	return (int64_t)s->personal_rows == rows;
}

static void a_lower_limit_reaches_everybody(void **in)
{
	struct bench *b = *in;
	struct config config = b->config;

	config.personalize_min_positives = 3;
	engine_reconfigure(b->engine, &config);
	push_watches(b, 0, 2);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 10000);
	wait_for(b, all_rows, 0);
	config.personalize_min_positives = 2;
	engine_reconfigure(b->engine, &config);
	wait_for(b, all_rows, USERS);
}

static void rests_when_there_is_nothing_new(void **in)
{
	struct bench *b = *in;
	struct config config = b->config;
	struct engine_status before, after;

	config.idle_passes = 3;
	engine_reconfigure(b->engine, &config);
	push_watches(b, 0, 5);
	wait_for(b, consumed, b->offset);
	before = wait_for(b, resting, 0);
	assert_true(before.progress.passes >= 3);
	push_watches(b, 5, 2);
	wait_for(b, consumed, b->offset);
	after = wait_for(b, resting, 0);
	for (int waited = 0; after.progress.passes <= before.progress.passes && waited < PATIENCE_MS; waited += 10) {
		sleep_ms(10);
		engine_get_status(b->engine, &after);
	}
	assert_true(after.progress.passes > before.progress.passes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(learns_and_serves, setup, teardown),
		cmocka_unit_test_setup_teardown(checkpoint_brings_it_back, setup, teardown),
		cmocka_unit_test_setup_teardown(stopping_saves, setup, teardown),
		cmocka_unit_test_setup_teardown(retired_counters_come_home, setup, teardown),
		cmocka_unit_test_setup_teardown(durable_positions_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(many_positions_and_their_digest, setup, teardown),
		cmocka_unit_test_setup_teardown(divergence_is_rolled_back, setup, teardown),
		cmocka_unit_test_setup_teardown(forgetting_is_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room_to_forget, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lower_limit_reaches_everybody, setup, teardown),
		cmocka_unit_test_setup_teardown(rests_when_there_is_nothing_new, setup, teardown),
		cmocka_unit_test_setup_teardown(the_rate_follows_the_news, setup, teardown),
		cmocka_unit_test_setup_teardown(the_rate_survives_a_restart, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
