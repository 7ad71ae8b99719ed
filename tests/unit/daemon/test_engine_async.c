/*
 * test_engine_async.c: the engine with a device that trains beside it (fake_device.h): lines are applied while a job runs, a job in flight is in no cut, and a device that
 * fails, fills up or hangs at any point is replaced without a line lost, a torn model served, or a word left out.
 */
#include "tests/unit/daemon/engine_device_testing.h"

static void learns_and_serves_on_a_device(void **in)
{
	struct bench *b = *in;
	struct engine_status s;
	enum served served = SERVED_POPULARITY;
	double own = 0;

	b->config.idle_passes = 200;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 30000);
	settle(b);
	for (int u = 0; u < USERS; u++)
		own += own_group(b, u, &served) / USERS;
	assert_int_equal(served, SERVED_PERSONALIZED);
	assert_true(own > 0.8); /* a random list has 0.25 */
	s = status_of(b);
	assert_string_equal(s.backend, "fake");
	assert_string_equal(s.backend_reason, "");
	assert_string_equal(s.device_name, "Fake 9000");
	assert_int_equal(s.device_memory_bytes, 1000);
	assert_string_equal(s.precision, "fp32");
	assert_int_equal(s.device_losses, 0);
	assert_true(s.device_lost_age_ms == -1);
}

/* A job that takes as long as it likes holds up nothing but itself. */
static void applies_while_a_job_runs(void **in)
{
	struct bench *b = *in;
	struct engine_status s;
	uint64_t heartbeat;

	b->config.device_timeout_ms = 3600000;
	fake_hold(1, 0);
	start(b);
	push_watches(b, 0, 5);
	wait_for(b, consumed, b->offset);
	push_watches(b, 5, 5);
	s = wait_for(b, consumed, b->offset);
	assert_int_equal(s.n_positives, USERS * 10);
	assert_int_equal(fake_count(&fake.calls[FAKE_TRAIN]), 1);
	heartbeat = s.heartbeat;
	sleep_ms(300);
	s = status_of(b);
	assert_int_equal(s.progress.triples, 0);
	assert_true(s.heartbeat > heartbeat);
	assert_int_equal(engine_forget(b->engine, 101, 0, PATIENCE_MS), 0); /* takes positives away: the set is made anew */
	s = status_of(b);
	fake_let_go();
	s = wait_for(b, trained, 10000);
	assert_int_equal(s.n_positives, (USERS - 1) * 10);
	assert_string_equal(s.backend, "fake");
}

static int took_snapshot(const struct engine_status *s, int64_t number)
{
	return s->checkpoint_number >= (uint32_t)number && !s->checkpoint_running;
}

/* Progress and parameters of a cut are those of the published generation; a job in flight is in neither. */
static void a_job_in_flight_is_in_no_cut(void **in)
{
	struct bench *b = *in;
	struct checkpoint_result result;
	struct engine_status before, after;
	struct config resting_config;
	char errstr[512] = "";
	float row[8];

	b->config.publish_interval_ms = 3600000; /* only for a cut */
	b->config.device_timeout_ms = 3600000;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	resting_config = b->config;
	resting_config.training_enabled = 0;
	sleep_ms(50);
	engine_reconfigure(b->engine, &resting_config);
	assert_int_equal(engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)), 0); /* publishes what was trained */
	before = wait_for(b, took_snapshot, result.number);
	const unsigned jobs = fake_count(&fake.calls[FAKE_TRAIN]);

	fake_hold(1, 0);
	engine_reconfigure(b->engine, &b->config);
	for (int waited = 0; fake_count(&fake.calls[FAKE_TRAIN]) == jobs && waited < PATIENCE_MS; waited += 1)
		sleep_ms(1);
	assert_int_equal(fake_count(&fake.calls[FAKE_TRAIN]), jobs + 1);
	assert_int_equal(engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)), 0); /* while it runs */
	after = wait_for(b, took_snapshot, result.number);
	assert_memory_equal(&after.progress, &before.progress, sizeof(before.progress));
	fake_let_go();
	for (int waited = 0; status_of(b).progress.step == before.progress.step && waited < PATIENCE_MS; waited += 1)
		sleep_ms(1);
	assert_true(status_of(b).progress.step > before.progress.step);
	struct generation *g = generation_acquire(engine_publisher(b->engine));

	memcpy(row, g->tables.V, sizeof(row));
	generation_release(engine_publisher(b->engine), g);
	stop(b, 1);
	b->config.training_enabled = 0;
	start(b);
	after = status_of(b);
	assert_memory_equal(&after.progress, &before.progress, sizeof(before.progress));
	g = generation_acquire(engine_publisher(b->engine));
	assert_memory_equal(row, g->tables.V, sizeof(row));
	generation_release(engine_publisher(b->engine), g);
}

static int in_trouble(const struct engine_status *s, int64_t arg)
{
	(void)arg;
	return s->training_trouble[0] != '\0';
}

static void divergence_on_a_device(void **in)
{
	struct bench *b = *in;
	struct config wild = b->config;

	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 30000);
	wild.learn.optimizer = OPTIMIZER_SGD;
	wild.learn.learning_rate = wild.learn.step_norm_max = 1e6f;
	engine_reconfigure(b->engine, &wild);
	push_watches(b, 10, 1);
	wait_for(b, in_trouble, 0);
	look_for_poison(b);
	engine_reconfigure(b->engine, &b->config);
	assert_int_equal(status_of(b).device_losses, 0);
}

/* ---- losses ---- */

static int rebuilt(const struct engine_status *s, int64_t times)
{
	return (int64_t)s->device_rebuilds >= times && !s->device_lost;
}

static int lost(const struct engine_status *s, int64_t times)
{
	return (int64_t)s->device_losses >= times;
}

static int given_up(const struct engine_status *s, int64_t arg)
{
	(void)arg;
	return strstr(s->backend_reason, "until a restart") != NULL;
}

/* The rest of a test: lines still come in, a checkpoint is written, a restart finds it whole. */
static void goes_on(struct bench *b)
{
	struct checkpoint_result result;
	struct engine_status before, after;
	char errstr[512] = "";

	push_watches(b, 10, 2);
	wait_for(b, consumed, b->offset);
	if (engine_snapshot(b->engine, PATIENCE_MS, &result, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	look_for_poison(b);
	before = status_of(b);
	stop(b, 0);
	fake_let_go();
	start(b);
	after = status_of(b);
	assert_int_equal(after.positions[0].offset, b->offset);
	assert_int_equal(after.n_positives, before.n_positives);
	assert_int_equal(after.histories_digest.lo, before.histories_digest.lo);
	look_for_poison(b);
}

static void a_lost_device_is_rebuilt(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 20000);
	fake_fail(FAKE_POLL, 1, 1, -EIO);
	push_watches(b, 3, 8);
	s = wait_for(b, rebuilt, 1);
	assert_string_equal(s.backend, "fake");
	assert_string_equal(s.backend_reason, "");
	assert_int_equal(s.device_losses, 1);
	assert_non_null(strstr(s.device_trouble, "training: the fake has left the bus"));
	assert_true(s.device_lost_age_ms >= 0);
	const int64_t triples = (int64_t)s.progress.triples;

	wait_for(b, trained, triples + 5000); /* the new one trains */
	assert_int_equal(fake_count(&fake.opened), 2);
	goes_on(b);
}

static void the_cpu_keeps_it(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	b->config.on_device_loss = ON_DEVICE_LOSS_CPU;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	fake_fail(FAKE_TRAIN, 1, 1, -ENOMEM);
	push_watches(b, 3, 8);
	s = wait_for(b, lost, 1);
	wait_for(b, trained, (int64_t)s.progress.triples + 20000);
	s = status_of(b);
	assert_string_equal(s.backend, "cpu");
	assert_non_null(strstr(s.backend_reason, "out of device memory"));
	assert_non_null(strstr(s.backend_reason, "until a restart"));
	assert_int_equal(s.device_lost, 1);
	assert_int_equal(fake_count(&fake.opened), 1);
	assert_int_equal(fake_count(&fake.closed), 1);
	goes_on(b);
}

static void recd_is_asked_to_stop(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	b->config.on_device_loss = ON_DEVICE_LOSS_EXIT;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	fake_fail(FAKE_PULL, 1, 1, -EIO);
	push_watches(b, 3, 8);
	s = wait_for(b, lost, 1);
	assert_non_null(strstr(s.leave, "reading parameters back: the fake has left the bus"));
	assert_string_equal(s.backend, "cpu"); /* so that a last checkpoint can be written */
	goes_on(b);
}

/* A device that does not open again is tried so often, and no more. */
static void tries_are_bounded(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	pthread_mutex_lock(&fake.mutex);
	fake.refuse = 1;
	pthread_mutex_unlock(&fake.mutex);
	fake_fail(FAKE_TRAIN, 1, 1, -EIO);
	push_watches(b, 3, 8);
	s = wait_for(b, given_up, 0);
	assert_string_equal(s.backend, "cpu");
	const unsigned opens = fake_count(&fake.calls[FAKE_OPEN]);

	assert_int_equal(opens, 1 + 8);
	sleep_ms(300);
	assert_int_equal(fake_count(&fake.calls[FAKE_OPEN]), opens);
	fake_reset();
	goes_on(b);
}

/* A device that comes back and fails again and again is not trusted for ever either. */
static void a_flapping_device(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	fake_fail(FAKE_TRAIN, 2, 100000, -EIO);
	push_watches(b, 3, 8);
	s = wait_for(b, given_up, 0);
	assert_string_equal(s.backend, "cpu");
	assert_int_equal(s.device_losses, 9);
	assert_int_equal(s.device_rebuilds, 8);
	fake_reset();
	goes_on(b);
}

/* Only a job that hangs may be taken for one that hangs, however slow the machine: the limit is short for as long as one does. */
static void be_impatient(struct bench *b, uint32_t timeout_ms)
{
	struct config config = b->config;

	config.device_timeout_ms = timeout_ms;
	engine_reconfigure(b->engine, &config);
}

static void hang(struct bench *b)
{
	fake_hold(0, 1);
	fake_wait_held();
	be_impatient(b, 100);
}

/* A job that hangs: the CPU takes over; the device is left alone until the job has come back. */
static void a_hung_job(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	b->config.device_timeout_ms = 3600000;
	b->config.device_pause_ms = 20;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 20000);
	hang(b);
	push_watches(b, 3, 8);
	s = wait_for(b, lost, 1);
	be_impatient(b, 3600000);
	assert_string_equal(s.backend, "cpu");
	assert_non_null(strstr(s.device_trouble, "has not come back for"));
	wait_for(b, trained, (int64_t)s.progress.triples + 20000);
	assert_int_equal(fake_count(&fake.opened), 1);
	assert_int_equal(fake_count(&fake.closed), 0);
	fake_let_go();
	s = wait_for(b, rebuilt, 1);
	assert_int_equal(fake_count(&fake.opened), 2);
	assert_int_equal(fake_count(&fake.closed), 1);
	goes_on(b);
}

/* One that never comes back, and a stop while it hangs: the last checkpoint is written all the same. */
static void a_job_that_never_comes_back(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	b->config.device_timeout_ms = 3600000;
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, trained, 20000);
	hang(b);
	push_watches(b, 3, 8);
	wait_for(b, consumed, b->offset);
	stop(b, 0);
	assert_int_equal(fake_count(&fake.closed), 0);
	assert_int_equal(fake_close_all(), 1);
	start(b);
	s = status_of(b);
	assert_int_equal(s.positions[0].offset, b->offset);
	assert_int_equal(s.n_positives, USERS * 11);

	/* the same without a last checkpoint: it ends, too */
	wait_for(b, trained, (int64_t)s.progress.triples + 1);
	hang(b);
	push_watches(b, 11, 2);
	wait_for(b, consumed, b->offset);
	stop(b, 1);
	fake_close_all();
}

/* ---- personal rows ---- */

static int refitted(const struct engine_status *s, int64_t rows)
{
	return (int64_t)s->refreshed >= rows;
}

/* Old rows are fitted many at once on the device, and rank as those fitted one by one do. */
static void old_rows_are_fitted_together(void **in)
{
	struct bench *b = *in;
	enum served served = SERVED_POPULARITY;
	struct config resting_config;
	double own = 0;

	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	wait_for(b, refitted, USERS * 3);
	wait_for(b, trained, 30000);
	resting_config = b->config;
	resting_config.idle_passes = 1;
	engine_reconfigure(b->engine, &resting_config);
	settle(b);
	assert_true(fake_count(&fake.calls[FAKE_PERSONALIZE]) > 0);
	assert_true(fake_count(&fake.fitted) >= 8 * fake_count(&fake.calls[FAKE_PERSONALIZE]));
	for (int u = 0; u < USERS; u++)
		own += own_group(b, u, &served) / USERS;
	assert_int_equal(served, SERVED_PERSONALIZED);
	assert_true(own > 0.8);
	assert_int_equal(status_of(b).personal_rows, USERS);
	assert_int_equal(status_of(b).device_losses, 0);
}

/* No room for a batch: one by one then, and nothing is lost. */
static void a_batch_is_refused(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	fake_fail(FAKE_PERSONALIZE, 1, 1000000, -ENOMEM);
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	s = wait_for(b, refitted, USERS);
	assert_true(fake_count(&fake.failed) > 0);
	assert_int_equal(fake_count(&fake.fitted), 0);
	assert_int_equal(s.device_losses, 0);
	assert_string_equal(s.backend, "fake");
	fake_reset();
	goes_on(b);
}

/* The job leaves no place: a batch is given up, rows are fitted one by one, and a job that hangs is found out all the same. */
static void a_batch_gets_no_place(void **in)
{
	struct bench *b = *in;
	struct engine_status s;

	b->config.device_timeout_ms = 3600000;
	fake_crowd(1);
	start(b);
	push_watches(b, 0, 10);
	wait_for(b, consumed, b->offset);
	s = wait_for(b, refitted, USERS * 3);
	assert_true(fake_count(&fake.crowded_out) > 0);
	assert_int_equal(fake_count(&fake.fitted), 0);
	assert_int_equal(s.device_losses, 0);
	hang(b);
	s = wait_for(b, lost, 1);
	assert_string_equal(s.backend, "cpu");
	be_impatient(b, 3600000);
	fake_let_go();
	wait_for(b, rebuilt, 1);
	for (int waited = 0; fake_count(&fake.fitted) == 0 && waited < PATIENCE_MS; waited++)
		sleep_ms(1);
	assert_true(fake_count(&fake.fitted) > 0); /* later ones are taken */
	goes_on(b);
}

/* ---- at the start ---- */

static void a_start_without_a_good_device(void **in)
{
	static const int enabled[STREAM_COUNT] = { 1, 1, 1, 1, 1 };
	struct bench *b = *in;
	struct engine *engine = NULL;
	struct engine_status s;
	char errstr[1024] = "";

	fake.probe_rc = -ENODEV;
	start(b);
	s = status_of(b);
	assert_string_equal(s.backend, "cpu");
	assert_string_equal(s.backend_reason, "no such device");
	stop(b, 1);
	fake.probe_rc = 0;
	fake_fail(FAKE_OPEN, 1, 1, -ENOMEM);
	start(b);
	s = status_of(b);
	assert_string_equal(s.backend, "cpu");
	assert_string_equal(s.backend_reason, "the fake device does not open");
	stop(b, 1);

	free(b->config.backend);
	b->config.backend = strdup("cuda");
	assert_int_equal(queue_set_new(4, enabled, &b->queues), 0);
	const enum fake_op steps[] = { FAKE_OPEN, FAKE_GROW, FAKE_CHANGED, FAKE_PULL };

	for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
		fake_fail(steps[k], 1, 1, -EIO);
		assert_int_equal(engine_open(&b->config, b->fd, b->queues, NULL, NULL, &engine, errstr, sizeof(errstr)), -EIO);
		assert_non_null(strstr(errstr, steps[k] == FAKE_OPEN ? "does not open" : "training.backend = \"cuda\": fake: "));
	}
	fake.probe_rc = -ENODEV;
	assert_int_equal(engine_open(&b->config, b->fd, b->queues, NULL, NULL, &engine, errstr, sizeof(errstr)), -ENODEV);
	assert_string_equal(errstr, "training.backend = \"cuda\": no such device");
	queue_set_free(b->queues);
	assert_int_equal(fake.opened, fake.closed);
}

/* ---- every function failing once ---- */

/* A whole cycle, from an existing checkpoint on, with one failure somewhere in it. Returns 1 when the failure came. */
static int cycle(struct bench *b, enum fake_op op, unsigned at, int rc)
{
	struct engine_status s;
	int fired;

	fake_reset();
	fake_fail(op, at, 1, rc);
	start(b);
	look_for_poison(b);
	for (int round = 0; round < 2; round++) {
		push_watches(b, 4 + 2 * round, 2);
		wait_for(b, consumed, b->offset);
		look_for_poison(b);
		s = status_of(b);
		wait_for(b, trained, (int64_t)s.progress.triples + 2000);
		look_for_poison(b);
	}
	fired = fake_count(&fake.failed) != 0;
	s = status_of(b);
	if (fired && op != FAKE_OPEN) {
		s = wait_for(b, rebuilt, 1);
		assert_int_equal(s.device_losses, 1);
		assert_true(s.device_trouble[0] != '\0');
	} else if (fired) {
		assert_string_equal(s.backend, "cpu");
		assert_true(s.backend_reason[0] != '\0');
	}
	goes_on(b);
	stop(b, 0);
	assert_int_equal(fake.misused, 0);
	assert_int_equal(fake.opened, fake.closed);
	return fired;
}

static void every_failure_in_turn(void **in)
{
	struct bench *b = *in;
	unsigned fired[FAKE_OPS] = { 0 };

	b->config.publish_interval_ms = 10;
	start(b); /* something to recover */
	push_watches(b, 0, 4);
	wait_for(b, consumed, b->offset);
	stop(b, 0);
	for (int op = 0; op < FAKE_OPS; op++)
		for (unsigned at = 1; at <= 3; at++)
			fired[op] += (unsigned)cycle(b, (enum fake_op)op, at, at % 2 ? -EIO : op == FAKE_POLL || op == FAKE_PULL || op == FAKE_PERSONALIZE ? -EIO : -ENOMEM);
	for (int op = 0; op < FAKE_OPS; op++)
		if (fired[op] == 0)
			fail_msg("%s never failed", fake_op_names[op]);
	assert_true(fired[FAKE_GROW] >= 2 && fired[FAKE_CHANGED] == 3 && fired[FAKE_TRAIN] == 3 && fired[FAKE_POLL] == 3 && fired[FAKE_PULL] == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(learns_and_serves_on_a_device, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(applies_while_a_job_runs, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_job_in_flight_is_in_no_cut, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(divergence_on_a_device, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_lost_device_is_rebuilt, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(the_cpu_keeps_it, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(recd_is_asked_to_stop, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(tries_are_bounded, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_flapping_device, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_hung_job, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_job_that_never_comes_back, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(old_rows_are_fitted_together, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_batch_is_refused, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_batch_gets_no_place, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(a_start_without_a_good_device, setup_device, teardown_device),
		cmocka_unit_test_setup_teardown(every_failure_in_turn, setup_device, teardown_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
