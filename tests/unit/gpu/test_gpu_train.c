/*
 * test_gpu_train.c: training by the CUDA backend on the emulated device: the deterministic mode against the CPU backend, bit for bit; the fast mode triple by
 * triple against the CPU's, and many triples at once against the sum of their gradients; jobs and their limits.
 */
#include <errno.h>
#include <math.h>

#include "tests/cuda_emu/emu_control.h"
#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/sampler.h"

extern const struct backend_ops backend_cuda;

#define USERS 60u
#define ITEMS 90u

static struct learner *new_learner(const struct learn_options *options, const struct backend_ops *ops, uint32_t n_users, uint32_t n_items)
{
	struct learner *learner = NULL;
	char errstr[256];
	world_ids();
	if (learner_new(options, ops, &learner, errstr, sizeof errstr) != 0)
		fail_msg("%s", errstr);
	assert_int_equal(learner_grow(learner, n_users, n_items, world_user_ids, world_item_ids), 0);
	return learner;
}

/* One job to its end. */
static struct train_report train(struct learner *learner, const struct train_job *job)
{
	struct train_report report;
	int rc = learner_train(learner, job, &report);
	if (rc == 0)
		rc = learner_wait(learner, &report);
	assert_int_equal(rc, 0);
	return report;
}

/* Weighted positives, before world_fill() adds them without. */
static void add_weights(struct learner *learner)
{
	for (uint32_t k = 0; k < USERS * 9; k += 2) {
		struct user_item pair = {k / 9, (k / 9 % 3) * (ITEMS / 3) + world_random(k, 5) % (ITEMS / 3)};
		float weight = 5.0f * philox_centred(world_random(k, 70));
		assert_int_equal(learner_add_weighted(learner, &pair, &weight, 1, 0), 0);
	}
}

/* Positives that are to be learnt soon, and user 2 has all items. */
static void add_recent(struct learner *learner)
{
	for (uint32_t k = 0; k < 25; k++) {
		struct user_item pair = {.user = world_random(k, 71) % USERS, .item = world_random(k, 72) % ITEMS};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 1), 0);
	}
	for (uint32_t i = 0; i < ITEMS; i++) {
		struct user_item pair = {.user = 2, .item = i};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
	}
}

static void assert_same_report(const struct train_report *a, const struct train_report *b)
{
	assert_int_equal(a->triples, b->triples);
	assert_int_equal(a->rejected, b->rejected);
	assert_int_equal(a->nonfinite, b->nonfinite);
	assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
}

/* Two jobs, the second after the tables grew and positives came, with the last batch of each cut short. Reports of both. */
static struct tables train_exact(const struct learn_options *options, const struct backend_ops *ops, int weighted, struct train_report *reports)
{
	struct learner *learner = new_learner(options, ops, USERS - 9, ITEMS);
	struct train_job job = {.triples_max = 5 * options->batch_size - 5, .learning_rate = 0.05f};
	struct tables copy = {0};
	if (weighted)
		for (uint32_t k = 0; k < 60; k++) {
			struct user_item pair = {k % (USERS - 9), k};
			float weight = 5.0f * philox_centred(world_random(k, 70));
			assert_int_equal(learner_add_weighted(learner, &pair, &weight, 1, 0), 0);
		}
	world_fill(learner, USERS - 9, ITEMS, 9);
	reports[0] = train(learner, &job);
	assert_int_equal(learner_grow(learner, USERS, ITEMS, world_user_ids, world_item_ids), 0);
	if (weighted)
		add_weights(learner);
	world_fill(learner, USERS, ITEMS, 9);
	add_recent(learner);
	job.triples_max += options->batch_size;
	reports[1] = train(learner, &job);
	assert_int_equal(learner_pull(learner, &copy), 0);
	learner_free(learner);
	return copy;
}

static struct learn_options exact_options(uint32_t dim, uint32_t bits)
{
	struct learn_options options = world_options(dim);
	options.deterministic = 1;
	options.optimizer = bits & 1;
	options.loss = bits >> 1 & 1;
	options.recent_passes = 3;
	options.recent_share = 0.25f;
	options.popular_share = bits & 4 ? 0.3f : 0.0f;
	options.popular_power = 0.7f;
	options.hard_share = bits & 8 ? 0.5f : 0.0f;
	options.hard_of = 21; /* more than one round of the lanes */
	options.step_norm_max = bits & 16 ? 0.02f : 10.0f;
	return options;
}

static void compare_exact(uint32_t dim, uint32_t bits, int weighted)
{
	struct learn_options options = exact_options(dim, bits);
	struct train_report of_cpu[2], of_cuda[2];
	struct tables cpu = train_exact(&options, &backend_cpu, weighted, of_cpu), cuda = train_exact(&options, &backend_cuda, weighted, of_cuda);
	if (!same_tables(&cpu, &cuda))
		fail_msg("dim %u, variant %u: other bits than the CPU's", dim, bits);
	assert_same_report(&of_cpu[0], &of_cuda[0]);
	assert_same_report(&of_cpu[1], &of_cuda[1]);
	assert_true(of_cuda[1].triples > 300 && of_cuda[1].rejected > 0); /* user 2 has every item */
	tables_free(&cpu);
	tables_free(&cuda);
}

static void test_exact_bits_at_every_dim(void **state)
{
	static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 256};
	(void)state;
	for (uint32_t i = 0; i < sizeof dims / sizeof *dims; i++) {
		emu_seed(i);
		compare_exact(dims[i], 1 + 8 * (i % 2), 0);
		compare_exact(dims[i], 2 + 4 + 16 * (i % 2), 1);
	}
	emu_seed(0);
}

static void test_exact_bits_of_every_variant(void **state)
{
	(void)state;
	for (uint32_t bits = 0; bits < 32; bits++) {
		emu_seed(100 + bits);
		compare_exact(20, bits, bits % 3 == 0);
	}
	emu_seed(0);
}

/* ---- fast mode ------------------------------------------------------------------------------------------------------------------------- */
static struct learn_options fast_options(uint32_t dim, uint32_t bits)
{
	struct learn_options options = world_options(dim);
	options.optimizer = bits & 1;
	options.loss = bits >> 1 & 1;
	options.hard_share = bits & 4 ? 1.0f : bits & 16 ? 0.3f : 0.0f;
	options.hard_of = bits & 4 ? 7 : 2; /* several rounds, the last one not full; or part of one */
	options.step_norm_max = bits & 8 ? 0.02f : 10.0f;
	return options;
}

/* Jobs of one triple each, so that nothing happens at the same time. */
static struct tables train_singly(const struct learn_options *options, const struct backend_ops *ops, uint32_t n)
{
	struct learner *learner = new_learner(options, ops, USERS, ITEMS);
	struct train_job job = {.triples_max = 1, .learning_rate = 0.05f};
	struct tables copy = {0};
	add_weights(learner);
	world_fill(learner, USERS, ITEMS, 9);
	for (uint32_t k = 0; k < n; k++) {
		struct train_report report = train(learner, &job);
		assert_int_equal(report.triples, 1);
	}
	assert_int_equal(learner_pull(learner, &copy), 0);
	learner_free(learner);
	return copy;
}

/* Largest difference of two arrays, over 1 plus the magnitude. */
static double farthest(const float *a, const float *b, size_t n)
{
	double most = 0;
	for (size_t k = 0; k < n; k++) {
		double d = fabs((double)a[k] - (double)b[k]) / (1 + fabs((double)b[k]));
		most = d <= most ? most : d; /* NaN, too */
	}
	return most;
}

static double tables_distance(const struct tables *a, const struct tables *b)
{
	double most = farthest(a->U, b->U, (size_t)a->n_users * a->dim);
	most = fmax(most, farthest(a->V, b->V, (size_t)a->n_items * a->dim));
	most = fmax(most, farthest(a->bi, b->bi, a->n_items));
	most = fmax(most, farthest(a->acc_user, b->acc_user, a->n_users));
	return fmax(most, farthest(a->acc_item, b->acc_item, a->n_items));
}

static void test_fast_triple_by_triple(void **state)
{
	static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 256, 300, 512};
	(void)state;
	for (uint32_t i = 0; i < sizeof dims / sizeof *dims; i++) {
		for (uint32_t v = 0; v < 4; v++) {
			struct learn_options options = fast_options(dims[i], v + 4 * ((i + v) % 4));
			struct tables cpu = train_singly(&options, &backend_cpu, 70), cuda = train_singly(&options, &backend_cuda, 70);
			double distance = tables_distance(&cuda, &cpu);
			if (!(distance < 3e-5))
				fail_msg("dim %u, variant %u: %.3g away from the CPU's", dims[i], v, distance);
			tables_free(&cpu);
			tables_free(&cuda);
		}
	}
}

static struct tables train_at_once(const struct learn_options *options, const struct backend_ops *ops, const struct train_job *job, struct tables *start)
{
	struct learner *learner = new_learner(options, ops, USERS, ITEMS);
	struct tables copy = {0};
	add_weights(learner);
	world_fill(learner, USERS, ITEMS, 9);
	assert_int_equal(learner_pull(learner, start), 0);
	struct train_report report = train(learner, job);
	assert_int_equal(report.triples, job->triples_max);
	assert_int_equal(report.rejected, 0);
	assert_true(report.loss > 0.2 && report.loss < 3.0);
	assert_int_equal(learner_pull(learner, &copy), 0);
	learner_free(learner);
	return copy;
}

/* Smallest steps of plain SGD: what the triples do then adds up, in whatever order, and none may be missing or come twice. */
static void test_fast_sum_of_steps(void **state)
{
	static const uint32_t dims[] = {8, 32, 64, 128, 256, 384, 512};
	(void)state;
	for (uint32_t i = 0; i < 3 * sizeof dims / sizeof *dims; i++) {
		static const uint32_t hards[] = {0, 4, 16};
		uint32_t hard = hards[i % 3]; /* rows are then long and steps small, so that they do not change who is the hardest */
		struct learn_options options = fast_options(dims[i / 3], (i % 2 ? 2u : 0u) + hard);
		struct train_job job = {.triples_max = 333, .learning_rate = hard ? 1e-5f : 1e-4f};
		options.init_scale = hard ? (float)dims[i / 3] : 4.0f;
		struct tables before = {0}, same = {0};
		emu_seed(i);
		struct tables cpu = train_at_once(&options, &backend_cpu, &job, &before), cuda = train_at_once(&options, &backend_cuda, &job, &same);
		assert_true(same_tables(&before, &same));
		double wrong = farthest(cuda.U, cpu.U, (size_t)USERS * cpu.dim), moved = farthest(cpu.U, before.U, (size_t)USERS * cpu.dim);
		double wrong_items = farthest(cuda.V, cpu.V, (size_t)ITEMS * cpu.dim), moved_items = farthest(cpu.V, before.V, (size_t)ITEMS * cpu.dim);
		double wrong_bias = farthest(cuda.bi, cpu.bi, ITEMS), moved_bias = farthest(cpu.bi, before.bi, ITEMS);
		if (!(wrong < 0.01 * moved && wrong_items < 0.01 * moved_items && wrong_bias < 0.01 * moved_bias))
			fail_msg("dim %u: users %.3g of %.3g, items %.3g of %.3g, biases %.3g of %.3g", cpu.dim, wrong, moved, wrong_items, moved_items,
			         wrong_bias, moved_bias);
		tables_free(&before);
		tables_free(&same);
		tables_free(&cpu);
		tables_free(&cuda);
	}
	emu_seed(0);
}

/* bf16 rows: single steps are far below what bf16 tells apart, their mean must come through. */
static void test_bf16_keeps_the_mean(void **state)
{
	(void)state;
	for (uint32_t dim = 16; dim <= 64; dim *= 4) {
		struct learn_options options = fast_options(dim, 0), narrow = options;
		struct train_job job = {.triples_max = 12000, .learning_rate = 3e-4f};
		struct tables before = {0}, before_narrow = {0};
		options.reg_user = options.reg_pos = options.reg_neg = 0.0f;
		narrow = options;
		narrow.precision = PRECISION_BF16;
		struct tables wide = train_at_once(&options, &backend_cuda, &job, &before), bf16 = train_at_once(&narrow, &backend_cuda, &job, &before_narrow);
		double dot = 0, moved = 0, moved_bf16 = 0;
		for (size_t k = 0; k < (size_t)ITEMS * dim; k++) {
			double a = (double)wide.V[k] - (double)before.V[k], b = (double)bf16.V[k] - (double)before_narrow.V[k];
			dot += a * b;
			moved += a * a;
			moved_bf16 += b * b;
		}
		/* the projection on fp32's way is all of it, give or take the noise of rounding */
		if (!(fabs(dot / moved - 1) < 0.1 && moved_bf16 > moved))
			fail_msg("dim %u: %.4f of the way, lengths %.4g and %.4g", dim, dot / moved, sqrt(moved), sqrt(moved_bf16));
		tables_free(&before);
		tables_free(&before_narrow);
		tables_free(&wide);
		tables_free(&bf16);
	}
}

/* ---- jobs ------------------------------------------------------------------------------------------------------------------------------ */
static void test_nonfinite_is_told(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct learn_options options = world_options(20);
		struct train_job job = {.triples_max = 64, .learning_rate = 0.05f};
		struct tables copy = {0};
		options.deterministic = deterministic;
		struct learner *learner = new_learner(&options, &backend_cuda, 1, 3);
		struct user_item pair = {0, 0};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
		world_fill(learner, 1, 3, 1);
		assert_int_equal(learner_pull(learner, &copy), 0);
		copy.U[3] = INFINITY;
		assert_int_equal(learner_push(learner, &copy), -ERANGE);
		struct train_report report = train(learner, &job);
		assert_int_equal(report.nonfinite, 1);
		assert_int_equal(report.triples, 0);
		assert_int_equal(report.rejected, 64);
		assert_true(isnan(report.loss));
		assert_int_equal(learner_pull(learner, &copy), -ERANGE);
		tables_free(&copy);
		learner_free(learner);
	}
}

static void test_job_without_work(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	struct train_job job = {.triples_max = 1000, .learning_rate = 0.05f};
	struct learner *learner = new_learner(&options, &backend_cuda, USERS, ITEMS);
	struct train_report report = train(learner, &job);
	assert_int_equal(report.triples + report.rejected, 0);
	assert_true(isnan(report.loss));
	world_fill(learner, USERS, ITEMS, 3);
	job.triples_max = 0;
	report = train(learner, &job);
	assert_int_equal(report.triples + report.rejected, 0);
	learner_free(learner);
}

/* A job takes the triples it was given, or fewer when time is short: whole batches in deterministic mode. */
static void test_job_sizes(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct learn_options options = world_options(8);
		options.deterministic = deterministic;
		options.batch_size = 500;
		struct learner *learner = new_learner(&options, &backend_cuda, USERS, ITEMS);
		struct train_job job = {.triples_max = 1234, .learning_rate = 0.05f};
		world_fill(learner, USERS, ITEMS, 9);
		struct train_report report = train(learner, &job);
		assert_int_equal(report.triples, 1234);
		job.budget_us = 60000000;
		report = train(learner, &job);
		assert_int_equal(report.triples, 1234);
		job.budget_us = 1;
		job.triples_max = UINT64_C(1) << 40;
		report = train(learner, &job);
		assert_true(report.triples > 0 && report.triples < 1u << 20);
		if (deterministic)
			assert_int_equal(report.triples % 500, 0);
		assert_int_equal(learner_get_progress(learner).triples, 2 * 1234 + report.triples);
		learner_free(learner);
	}
}

/* A batch that does not fill its last warp: a pull brings the rows of the users that were drawn, and no others. */
static void test_rows_of_nobody_are_not_touched(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct learn_options options = world_options(8);
		options.deterministic = deterministic;
		struct learner *learner = new_learner(&options, &backend_cuda, USERS, ITEMS);
		const struct train_job job = {.triples_max = 5, .learning_rate = 0.05f};
		struct tables copy = {0};
		uint32_t brought = 0;
		world_fill(learner, USERS, ITEMS, 9);
		assert_int_equal(learner_pull(learner, &copy), 0);
		for (uint32_t u = 0; u < USERS; u++)
			copy.U[u * 8] = 1e9f;
		assert_int_equal(train(learner, &job).triples, 5);
		assert_int_equal(learner_pull(learner, &copy), 0);
		for (uint32_t u = 0; u < USERS; u++)
			brought += copy.U[u * 8] != 1e9f;
		assert_in_range(brought, 1, 5);
		tables_free(&copy);
		learner_free(learner);
	}
}

/* Groups of lanes that have only one user's triples leave his row once, at their last one. */
static void test_the_only_user_learns(void **state)
{
	(void)state;
	for (uint32_t dim = 8; dim <= 128; dim *= 4) {
		struct learn_options options = fast_options(dim, 0);
		const struct train_job job = {.triples_max = 64, .learning_rate = 1e-4f};
		struct tables before = {0}, after[2] = {{0}, {0}};
		for (int cuda = 0; cuda < 2; cuda++) {
			struct learner *learner = new_learner(&options, cuda ? &backend_cuda : &backend_cpu, 1, ITEMS);
			world_fill(learner, 1, ITEMS, 9);
			assert_int_equal(learner_pull(learner, &before), 0);
			assert_int_equal(train(learner, &job).triples, job.triples_max);
			assert_int_equal(learner_pull(learner, &after[cuda]), 0);
			learner_free(learner);
		}
		double moved = farthest(after[0].U, before.U, dim), wrong = farthest(after[1].U, after[0].U, dim);
		if (!(moved > 0 && wrong < 0.01 * moved))
			fail_msg("dim %u: %.3g away from the CPU's, which moved %.3g", dim, wrong, moved);
		tables_free(&before);
		tables_free(&after[0]);
		tables_free(&after[1]);
	}
}

/* Triples without a negative, many of them in one warp: each is counted, also where the hardest of several was looked for. */
static void test_rejected_triples_are_counted(void **state)
{
	(void)state;
	for (uint32_t hard = 0; hard <= 4; hard += 4) {
		struct train_report reports[2];
		for (int cuda = 0; cuda < 2; cuda++) {
			struct learn_options options = fast_options(16, hard);
			struct learner *learner = new_learner(&options, cuda ? &backend_cuda : &backend_cpu, 2, 40);
			const struct train_job job = {.triples_max = 300, .learning_rate = 1e-4f};
			for (uint32_t i = 0; i < 40; i++) { /* user 0 has all items */
				struct user_item pairs[2] = {{.user = 0, .item = i}, {.user = 1, .item = i % 4}};
				assert_true(learner_add_positives(learner, pairs, 2, 0) >= 0);
			}
			reports[cuda] = train(learner, &job);
			learner_free(learner);
		}
		assert_in_range(reports[0].rejected, 100, 299);
		assert_int_equal(reports[1].rejected, reports[0].rejected);
		assert_int_equal(reports[1].triples, reports[0].triples);
	}
}

static void test_nothing_is_left(void **state)
{
	(void)state;
	assert_int_equal(emu_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_bits_at_every_dim), cmocka_unit_test(test_exact_bits_of_every_variant), cmocka_unit_test(test_fast_triple_by_triple),
		cmocka_unit_test(test_fast_sum_of_steps),       cmocka_unit_test(test_bf16_keeps_the_mean),         cmocka_unit_test(test_nonfinite_is_told),
		cmocka_unit_test(test_job_without_work),        cmocka_unit_test(test_job_sizes),                   cmocka_unit_test(test_rows_of_nobody_are_not_touched),
		cmocka_unit_test(test_the_only_user_learns),    cmocka_unit_test(test_rejected_triples_are_counted), cmocka_unit_test(test_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
