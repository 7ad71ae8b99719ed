/*
 * test_learner_batch.c: batches of users through the learner: without a device, row by row as personalize_row(); with one, what reaches it and what its failures mean.
 */
#include <errno.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/personalize.h"

#define USERS 40u
#define ITEMS 60u
#define DIM 12u

static int op_rc, op_calls;

static int stub_changed(struct backend *backend)
{
	(void)backend;
	return 0;
}

static int stub_personalize(struct backend *backend, const struct personalize_batch *batch)
{
	(void)backend;
	(void)batch;
	op_calls++;
	return op_rc;
}

static int stub_topk(struct backend *backend, const struct topk_batch *batch)
{
	(void)backend;
	(void)batch;
	op_calls++;
	return op_rc;
}

static struct learner *trained(const struct backend_ops *ops, struct tables *ret_tables)
{
	struct learn_options options = world_options(DIM);
	struct train_job job = {.triples_max = 2000, .learning_rate = 0.05f};
	struct train_report report;
	struct learner *learner = NULL;
	char errstr[256];
	world_ids();
	assert_int_equal(learner_new(&options, ops, &learner, errstr, sizeof errstr), 0);
	assert_int_equal(learner_grow(learner, USERS, ITEMS, world_user_ids, world_item_ids), 0);
	for (uint32_t k = 0; k < USERS * 6; k++) {
		struct user_item pair = {k / 6, world_random(k, 5) % ITEMS};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
	}
	assert_int_equal(learner_train(learner, &job, &report), 0);
	assert_int_equal(learner_wait(learner, &report), 0);
	assert_int_equal(learner_pull(learner, ret_tables), 0);
	return learner;
}

static void test_without_a_device(void **state)
{
	static const uint32_t positives[] = {3, 9, 27, 14, 5, 51};
	static const uint64_t offsets[] = {0, 2, 2, 6}, seeds[] = {11, 12, 13};
	float starts[3 * DIM], rows[3 * DIM], row[DIM];
	int rcs[3];
	uint32_t items[ITEMS];
	struct personalize_options options;
	struct personalize_scratch scratch = {0};
	struct tables tables = {0};
	struct learner *learner = trained(&backend_cpu, &tables);
	(void)state;
	for (uint32_t i = 0; i < ITEMS; i++)
		items[i] = i;
	for (uint32_t k = 0; k < 3 * DIM; k++)
		starts[k] = philox_centred(world_random(k, 90));
	personalize_options_default(&options);
	options.steps = 20;
	struct personalize_batch batch = {.n = 3, .starts = starts, .offsets = offsets, .positives = positives, .candidates = items, .n_candidates = ITEMS,
	                                  .options = &options, .seeds = seeds, .ret_rows = rows, .ret_rcs = rcs};
	assert_int_equal(learner_has_batches(learner), 0);
	for (int given = 0; given < 2; given++) {
		batch.seeds = given ? seeds : NULL;
		options.seed = 5;
		assert_int_equal(learner_personalize(learner, &tables, &batch), 0);
		assert_int_equal(rcs[1], -EINVAL);
		for (uint32_t k = 0; k < 3; k += 2) {
			struct personalize_options own = options;
			own.seed = given ? seeds[k] : 5;
			assert_int_equal(rcs[k], 0);
			assert_int_equal(personalize_row(&tables, starts + (size_t)k * DIM, positives + offsets[k], offsets[k + 1] - offsets[k], items, ITEMS, &own,
			                                 &scratch, row), 0);
			assert_memory_equal(rows + (size_t)k * DIM, row, sizeof row);
		}
	}
	struct topk_batch top = {.n = 1, .k = 3};
	assert_int_equal(learner_topk(learner, &tables, &top), -ENOSYS);
	personalize_scratch_free(&scratch);
	tables_free(&tables);
	learner_free(learner);
}

/* Only the copy of the last pull is the device's. */
static void test_other_copies_are_refused(void **state)
{
	struct backend_ops ops = backend_cpu;
	struct tables first = {0}, second = {0}, empty = {0};
	struct personalize_batch batch = {.n = 0};
	struct topk_batch top = {.n = 0};
	(void)state;
	ops.changed = stub_changed;
	ops.personalize = stub_personalize;
	ops.topk = stub_topk;
	op_calls = op_rc = 0;
	struct learner *learner = trained(&ops, &first);
	assert_int_equal(learner_has_batches(learner), 1);
	assert_int_equal(learner_personalize(learner, &first, &batch), 0);
	assert_int_equal(learner_topk(learner, &first, &top), 0);
	assert_int_equal(op_calls, 2);
	assert_int_equal(learner_pull(learner, &second), 0);
	assert_int_equal(learner_personalize(learner, &first, &batch), -ESTALE);
	assert_int_equal(learner_topk(learner, &first, &top), -ESTALE);
	assert_int_equal(learner_topk(learner, &empty, &top), -ESTALE);
	assert_int_equal(learner_topk(learner, &second, &top), 0);
	assert_int_equal(op_calls, 3);
	char errstr[256];
	assert_int_equal(learner_replace_backend(learner, &ops, &second, errstr, sizeof errstr), 0);
	assert_int_equal(learner_personalize(learner, &second, &batch), -ESTALE); /* the fresh device has not published yet */
	assert_int_equal(learner_pull(learner, &second), 0);
	assert_int_equal(learner_personalize(learner, &second, &batch), 0);
	tables_free(&first);
	tables_free(&second);
	learner_free(learner);
}

/* No room for a batch is no fault; a lost device is. */
static void test_failures(void **state)
{
	struct backend_ops ops = backend_cpu;
	struct tables tables = {0};
	struct personalize_batch batch = {.n = 0};
	struct topk_batch top = {.n = 0};
	(void)state;
	ops.changed = stub_changed;
	ops.personalize = stub_personalize;
	ops.topk = stub_topk;
	op_calls = op_rc = 0;
	struct learner *learner = trained(&ops, &tables);
	op_rc = -ENOMEM;
	assert_int_equal(learner_personalize(learner, &tables, &batch), -ENOMEM);
	assert_int_equal(learner_topk(learner, &tables, &top), -ENOMEM);
	assert_int_equal(learner_fault(learner, NULL, 0), 0);
	op_rc = -EIO;
	assert_int_equal(learner_topk(learner, &tables, &top), -EIO);
	assert_int_equal(learner_fault(learner, NULL, 0), -EIO);
	assert_int_equal(op_calls, 3);
	assert_int_equal(learner_personalize(learner, &tables, &batch), -EIO);
	assert_int_equal(op_calls, 3); /* it is left alone */
	assert_int_equal(learner_has_batches(learner), 0);
	tables_free(&tables);
	learner_free(learner);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_device),
		cmocka_unit_test(test_other_copies_are_refused),
		cmocka_unit_test(test_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
