/*
 * test_learner_async.c: the learner over a device that works beside it (fake_device.h): what may happen while a job runs, parts that follow each other, and a device
 * that fails, hangs, or is replaced. Deterministic mode throughout, so that "right" means the same bits as the CPU's.
 */
#include "tests/unit/learn/fake_device.h"
#include "tests/unit/learn/learn_fixture.h"

#define USERS 40u
#define ITEMS 60u

static struct learner *learner_on(const struct backend_ops *ops, const struct learn_options *options)
{
	struct learner *learner = NULL;
	char errstr[256] = "";
	world_ids();
	assert_int_equal(learner_new(options, ops, &learner, errstr, sizeof errstr), 0);
	assert_int_equal(learner_grow(learner, USERS, ITEMS, world_user_ids, world_item_ids), 0);
	return learner;
}

static struct learn_options exact_options(void)
{
	struct learn_options options = world_options(8);
	options.deterministic = 1;
	options.recent_share = 0.0f;
	fake_reset();
	return options;
}

static void begin(struct learner *learner, uint64_t triples)
{
	const struct train_job job = {.triples_max = triples, .learning_rate = 0.05f};
	struct train_report report;
	assert_int_equal(learner_train(learner, &job, &report), 0);
}

/* By polling alone, as the engine does. */
static struct train_report finish(struct learner *learner)
{
	struct train_report report = {0};
	int rc;
	fake_let_go();
	while ((rc = learner_poll(learner, &report)) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	assert_int_equal(rc, 1);
	return report;
}

static void assert_same(struct learner *a, struct learner *b)
{
	struct tables ta = {0}, tb = {0};
	const struct learner_progress pa = learner_get_progress(a), pb = learner_get_progress(b);
	assert_memory_equal(&pa, &pb, sizeof pa);
	assert_int_equal(learner_pull(a, &ta), 0);
	assert_int_equal(learner_pull(b, &tb), 0);
	assert_true(same_tables(&ta, &tb));
	tables_free(&ta);
	tables_free(&tb);
}

static void test_begins_and_is_polled(void **state)
{
	(void)state;
	const struct learn_options options = exact_options();
	struct learner *cpu = learner_on(&backend_cpu, &options), *device = learner_on(&fake_ops, &options);
	const struct train_job job = {.triples_max = 640, .learning_rate = 0.05f};
	struct train_report report = {.triples = 9};
	world_fill(cpu, USERS, ITEMS, 6);
	world_fill(device, USERS, ITEMS, 6);
	assert_true(learner_on_device(device) && !learner_on_device(cpu));
	const struct train_report direct = world_train(cpu, 640, 0.05f);
	assert_false(learner_running(cpu));

	fake_hold(1, 0);
	const struct learner_progress before = learner_get_progress(device);
	assert_int_equal(learner_train(device, &job, &report), 0);
	assert_int_equal(report.triples, 0);
	assert_true(learner_running(device));
	assert_true(learner_part_us(device) > 0);
	assert_int_equal(learner_train(device, &job, &report), -EBUSY);
	assert_int_equal(learner_poll(device, &report), 0);
	const struct learner_progress during = learner_get_progress(device);
	assert_memory_equal(&before, &during, sizeof before); /* a job that has not been accounted for is in no cut */
	report = finish(device);
	assert_int_equal(report.triples, direct.triples);
	assert_true(report.loss == direct.loss);
	assert_false(learner_running(device));
	assert_int_equal(learner_part_us(device), 0);
	assert_int_equal(learner_poll(device, &report), 1); /* as often as one likes */
	assert_int_equal(report.triples, direct.triples);
	assert_same(cpu, device);
	assert_int_equal(fake.misused, 0);
	learner_free(cpu);
	learner_free(device);
	assert_int_equal(fake.closed, 1);
}

/* What a test adds while a job runs. */
static void add_more(struct learner *learner)
{
	const struct user_item pairs[] = {{1, 59}, {2, 58}, {USERS + 3, ITEMS + 1}, {USERS, 4}};
	const uint32_t candidate = ITEMS + 4;
	assert_int_equal(learner_grow(learner, USERS + 9, ITEMS + 9, world_user_ids, world_item_ids), 0);
	assert_int_equal(learner_add_positives(learner, pairs, 4, 0), 0);
	assert_int_equal(learner_add_candidates(learner, &candidate, 1), 0);
}

static void set_anew(struct learner *learner)
{
	learner_clear_positives(learner);
	for (uint32_t u = 0; u < 20; u++) {
		const struct user_item pair = {u, (u * 7) % ITEMS};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
	}
}

/* Whatever changes while a job runs: the same bits as when the job had ended first. */
static void test_set_changes_while_a_job_runs(void **state)
{
	(void)state;
	for (int change = 0; change < 3; change++) {
		struct learn_options options = exact_options();
		struct learner *cpu = learner_on(&backend_cpu, &options), *device = learner_on(&fake_ops, &options);
		world_fill(cpu, USERS, ITEMS, 6);
		world_fill(device, USERS, ITEMS, 6);
		options.reg_user = 0.2f;
		options.batch_size = 32;
		for (int round = 0; round < 3; round++) {
			fake_hold(1, 0);
			begin(device, 64 * 6 + 10); /* crosses the end of the walk at times */
			begin(cpu, 64 * 6 + 10);
			for (int side = 0; side < 2; side++) {
				struct learner *learner = side ? cpu : device;
				if (change == 0)
					add_more(learner);
				else if (change == 1)
					set_anew(learner);
				else
					assert_int_equal(learner_set_options(learner, &options), 0);
			}
			finish(device);
			begin(cpu, 320);
			begin(device, 320);
			finish(device);
			assert_same(cpu, device);
		}
		assert_int_equal(fake.misused, 0);
		learner_free(cpu);
		learner_free(device);
	}
}

/* Draws owed to recent positives: each gets its own, whether it came before a job or while it ran. */
static void test_recent_come_while_a_job_runs(void **state)
{
	(void)state;
	struct learn_options options = exact_options();
	options.recent_share = 0.5f;
	options.recent_passes = 4;
	struct learner *device = learner_on(&fake_ops, &options);
	world_fill(device, USERS, ITEMS, 6);
	for (uint32_t round = 0; round < 10; round++) {
		const struct user_item early = {round * 3, 50}, late = {round * 3, 51}; /* of another third: new to him */
		assert_int_equal(learner_add_positives(device, &early, 1, 1), 0);
		const size_t owed = learner_recent_waiting(device);
		fake_hold(1, 0);
		begin(device, 64);
		assert_int_equal(learner_add_positives(device, &late, 1, 1), 0);
		finish(device);
		assert_int_equal(learner_recent_waiting(device), owed > 32 ? owed - 32 + 4 : 4);
	}
	learner_free(device);
}

/* Parts end with a pass while Adagrad forgets; the next begins in the poll that sees the end, and the job's report is whole. */
static void test_parts_follow_each_other(void **state)
{
	(void)state;
	struct learn_options options = exact_options();
	options.adagrad_forget = 0.1f;
	struct learner *cpu = learner_on(&backend_cpu, &options), *device = learner_on(&fake_ops, &options);
	world_fill(cpu, USERS, ITEMS, 6);
	world_fill(device, USERS, ITEMS, 6);
	const struct train_report direct = world_train(cpu, 64 * 30, 0.05f);
	begin(device, 64 * 30);
	const struct train_report report = finish(device);
	assert_int_equal(report.triples, direct.triples);
	assert_true(fake.calls[FAKE_TRAIN] > 5);
	assert_true(fabs(report.loss - direct.loss) < 1e-12);
	assert_same(cpu, device);
	/* the same by waiting */
	world_train(cpu, 64 * 30, 0.05f);
	struct train_report waited;
	begin(device, 64 * 30);
	assert_int_equal(learner_wait(device, &waited), 0);
	assert_int_equal(waited.triples, direct.triples);
	assert_false(learner_running(device));
	assert_same(cpu, device);
	learner_free(cpu);
	learner_free(device);
}

/* A copy waits for the part under way, holds what it did, and its job is over. */
static void test_copies_while_a_job_runs(void **state)
{
	(void)state;
	struct learn_options options = exact_options();
	options.adagrad_forget = 0.1f; /* several parts */
	struct learner *device = learner_on(&fake_ops, &options);
	struct tables copy = {0}, later = {0};
	struct train_report report;
	world_fill(device, USERS, ITEMS, 6);
	assert_int_equal(learner_pull(device, &copy), 0);
	begin(device, 64 * 1000);
	const unsigned parts = fake_count(&fake.calls[FAKE_TRAIN]);
	assert_int_equal(learner_pull(device, &later), 0);
	assert_int_equal(fake_count(&fake.calls[FAKE_TRAIN]), parts);
	assert_false(learner_running(device));
	assert_int_equal(learner_poll(device, &report), 1);
	assert_true(report.triples > 0 && report.triples < 64 * 1000);
	assert_int_equal(learner_get_progress(device).triples, report.triples);
	assert_false(same_tables(&copy, &later));
	begin(device, 64);
	assert_int_equal(learner_push(device, &copy), 0);
	assert_false(learner_running(device));
	assert_int_equal(learner_pull(device, &later), 0);
	assert_true(same_tables(&copy, &later));
	assert_int_equal(fake.misused, 0);
	tables_free(&copy);
	tables_free(&later);
	learner_free(device);
}

/* One cycle of everything. *ret_rc: the first error that was told. */
static void cycle(struct learner *learner, struct tables *copy, int *ret_rc)
{
	const struct train_job job = {.triples_max = 640, .learning_rate = 0.05f};
	struct train_report report;
	int rc = 0, told = 0;
	add_more(learner);
	for (int round = 0; round < 2; round++) {
		rc = learner_train(learner, &job, &report);
		while (rc == 0 && learner_running(learner))
			rc = learner_poll(learner, &report) < 0 ? learner_fault(learner, NULL, 0) : 0;
		told = told ? told : rc;
		rc = learner_pull(learner, copy);
		told = told ? told : rc;
	}
	if (rc == 0)
		rc = learner_push(learner, copy);
	*ret_rc = told ? told : rc;
}

/* Every function failing once: it is told, nothing reaches the device any more, the set is whole, and another backend goes on from the last good copy. */
static void test_every_failure_is_told_and_mended(void **state)
{
	(void)state;
	for (int op = FAKE_GROW; op <= FAKE_PUSH; op++) {
		for (int code = 0; code < 2; code++) {
			struct learn_options options = exact_options();
			options.adagrad_forget = 0.2f;
			struct learner *device = learner_on(&fake_ops, &options), *cpu = learner_on(&backend_cpu, &options);
			struct tables good = {0}, copy = {0};
			const int rc = code ? -ENOMEM : -EIO;
			char text[256] = "", errstr[256] = "";
			int told;
			world_fill(device, USERS, ITEMS, 6);
			world_fill(cpu, USERS, ITEMS, 6);
			begin(device, 640);
			finish(device);
			assert_int_equal(learner_pull(device, &good), 0);
			fake_fail((enum fake_op)op, 1, 1, rc);
			cycle(device, &copy, &told);
			assert_int_equal(fake.failed, 1);
			assert_int_equal(told, rc);
			assert_int_equal(learner_fault(device, text, sizeof text), rc);
			assert_non_null(strstr(text, rc == -EIO ? "the fake has left the bus" : "out of device memory"));
			cycle(device, &copy, &told); /* nothing more reaches it; what is added is kept */
			assert_int_equal(told, rc);
			if (op == FAKE_PULL)
				assert_int_equal(copy.epoch, 0);
			assert_int_equal(fake.misused, 0);

			assert_int_equal(learner_replace_backend(device, op % 2 ? &backend_cpu : &fake_ops, &good, errstr, sizeof errstr), 0);
			assert_int_equal(fake.closed, 1);
			assert_int_equal(learner_fault(device, text, sizeof text), 0);
			assert_string_equal(text, "");
			/* the same rows, set and walk as on a learner that never had a device */
			add_more(cpu);
			assert_int_equal(learner_push(cpu, &good), 0);
			const struct learner_progress progress = learner_get_progress(device);
			learner_set_progress(cpu, &progress);
			assert_int_equal(learner_n_positives(cpu), learner_n_positives(device));
			assert_int_equal(learner_pull(device, &copy), 0); /* a half-filled copy is filled whole */
			world_train(cpu, 640, 0.05f);
			begin(device, 640);
			finish(device);
			assert_same(cpu, device);
			assert_int_equal(fake.misused, 0);
			tables_free(&good);
			tables_free(&copy);
			learner_free(device);
			learner_free(cpu);
			assert_int_equal(fake.closed, fake.opened);
		}
	}
}

/* Copies carry the mark of the backend that filled them: another one fills them whole, though their marks look fresh. */
static void test_copies_of_the_one_before(void **state)
{
	(void)state;
	const struct learn_options options = exact_options();
	struct learner *device = learner_on(&fake_ops, &options);
	struct tables old = {0}, fresh = {0}, start = {0};
	char errstr[256];
	world_fill(device, USERS, ITEMS, 6);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(learner_pull(device, i ? &old : &start), 0);
		begin(device, 640);
		finish(device);
	}
	assert_int_equal(learner_replace_backend(device, &backend_cpu, &start, errstr, sizeof errstr), 0);
	assert_int_equal(learner_pull(device, &old), 0);
	assert_int_equal(learner_pull(device, &fresh), 0);
	assert_true(same_tables(&old, &fresh));
	assert_true(same_tables(&old, &start));
	tables_free(&old);
	tables_free(&fresh);
	tables_free(&start);
	learner_free(device);
}

/* A replacement that does not open leaves the old one in its place; each step of opening may be what fails. */
static void test_replacement_fails(void **state)
{
	(void)state;
	const enum fake_op steps[] = {FAKE_OPEN, FAKE_GROW, FAKE_CHANGED, FAKE_PUSH};
	for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
		const struct learn_options options = exact_options();
		struct learner *learner = learner_on(&backend_cpu, &options);
		struct tables copy = {0};
		char errstr[256] = "";
		world_fill(learner, USERS, ITEMS, 6);
		assert_int_equal(learner_pull(learner, &copy), 0);
		fake_fail(steps[k], 1, 1, k % 2 ? -ENOMEM : -EIO);
		assert_int_equal(learner_replace_backend(learner, &fake_ops, &copy, errstr, sizeof errstr), k % 2 ? -ENOMEM : -EIO);
		assert_true(errstr[0] != '\0');
		assert_string_equal(learner_backend_name(learner), "cpu");
		assert_int_equal(fake.opened, fake.closed);
		assert_int_equal(world_train(learner, 640, 0.05f).triples, 640);
		assert_int_equal(learner_replace_backend(learner, &fake_ops, &copy, errstr, sizeof errstr), 0);
		assert_string_equal(learner_backend_name(learner), "fake");
		begin(learner, 640);
		assert_int_equal(finish(learner).triples, 640);
		tables_free(&copy);
		learner_free(learner);
	}
}

/* A job that does not come back: given up, never closed while it hangs, closed when it has come back after all. */
static void test_a_job_hangs(void **state)
{
	(void)state;
	for (int comes_back = 0; comes_back < 2; comes_back++) {
		const struct learn_options options = exact_options();
		struct learner *device = learner_on(&fake_ops, &options);
		struct tables copy = {0};
		struct train_report report;
		char text[256], errstr[256];
		world_fill(device, USERS, ITEMS, 6);
		assert_int_equal(learner_pull(device, &copy), 0);
		learner_give_up(device); /* nothing runs: nothing to give up */
		assert_int_equal(learner_fault(device, text, sizeof text), 0);
		fake_hold(0, 1);
		begin(device, 640);
		assert_int_equal(learner_poll(device, &report), 0);
		learner_give_up(device);
		assert_int_equal(learner_fault(device, text, sizeof text), -ETIMEDOUT);
		assert_non_null(strstr(text, "has not come back"));
		assert_int_equal(learner_poll(device, &report), -ETIMEDOUT);
		add_more(device);
		if (comes_back) {
			assert_int_equal(learner_replace_backend(device, &backend_cpu, &copy, errstr, sizeof errstr), 0);
			assert_int_equal(learner_hung(device), 1);
			assert_int_equal(world_train(device, 640, 0.05f).triples, 640);
			fake_let_go();
			while (learner_hung(device))
				nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
			assert_int_equal(fake.closed, 1);
			assert_int_equal(learner_hung(device), 0);
		}
		assert_int_equal(learner_get_progress(device).triples, comes_back ? 640 : 0); /* the lost job counts for nothing */
		learner_free(device);
		assert_int_equal(fake.misused, 0);
		assert_int_equal(fake.closed, comes_back);
		tables_free(&copy);
		assert_int_equal(fake_close_all(), !comes_back);
	}
}

static void test_facts(void **state)
{
	(void)state;
	const struct learn_options options = exact_options();
	struct learner *device = learner_on(&fake_ops, &options);
	struct device_facts facts;
	learner_facts(device, &facts);
	assert_string_equal(facts.name, "Fake 9000");
	learner_free(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begins_and_is_polled),
		cmocka_unit_test(test_set_changes_while_a_job_runs),
		cmocka_unit_test(test_recent_come_while_a_job_runs),
		cmocka_unit_test(test_parts_follow_each_other),
		cmocka_unit_test(test_copies_while_a_job_runs),
		cmocka_unit_test(test_every_failure_is_told_and_mended),
		cmocka_unit_test(test_copies_of_the_one_before),
		cmocka_unit_test(test_replacement_fails),
		cmocka_unit_test(test_a_job_hangs),
		cmocka_unit_test(test_facts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
