/*
 * test_gpu_personalize.cu: batches of personal rows against personalize_row(), user by user: the same items picked, the same rows to rounding, the same faults; item
 * tables that keep every bit; the same bits on every run; a job that trains meanwhile; refused memory.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "gpu/query.cuh"
#include "trainer/learn/personalize.h"

#define UNTOUCHED 12345.0f

/* A world with tables that were pushed and pulled, and users to personalize. */
struct people {
	struct gpu_world world;
	struct tables tables;
	uint32_t n_users, dim;
	float *starts, *rows;
	uint64_t *offsets, *seeds;
	uint32_t *positives, *candidates;
	size_t capacity;
	int *rcs;
	struct personalize_options options;
	struct personalize_batch batch;
};

static void *take(size_t n, size_t size)
{
	void *memory = calloc(n + 1, size);
	assert_non_null(memory);
	return memory;
}

static void fill_tables(struct tables *t)
{
	for (size_t k = 0; k < static_cast<size_t>(t->n_users) * t->dim; k++)
		t->U[k] = philox_centred(world_random(static_cast<uint32_t>(k), 60));
	for (size_t k = 0; k < static_cast<size_t>(t->n_items) * t->dim; k++)
		t->V[k] = philox_centred(world_random(static_cast<uint32_t>(k), 61)) * 2.0f;
	for (uint32_t i = 0; i < t->n_items; i++)
		t->bi[i] = philox_centred(world_random(i, 62));
}

/* Items 0..n_candidates - 1 are candidates, in an order of their own. */
static struct people *people_new(uint32_t dim, uint32_t n_users, uint32_t n_items, uint32_t n_candidates, size_t positives_max)
{
	struct people *p = static_cast<struct people *>(take(1, sizeof *p));
	gpu_world_init(&p->world, dim, 3, n_items);
	gpu_world_open(&p->world);
	gpu_world_grow(&p->world, 3, n_items);
	assert_int_equal(tables_reserve(&p->tables, 3, n_items, dim), 0);
	p->tables.n_users = 3;
	p->tables.n_items = n_items;
	fill_tables(&p->tables);
	assert_int_equal(backend_cuda.push(p->world.backend, &p->tables), 0);
	assert_int_equal(backend_cuda.pull(p->world.backend, &p->tables), 0);
	p->n_users = n_users;
	p->dim = dim;
	p->capacity = positives_max;
	p->starts = static_cast<float *>(take(static_cast<size_t>(n_users) * dim, sizeof(float)));
	p->rows = static_cast<float *>(take(static_cast<size_t>(n_users) * dim, sizeof(float)));
	p->offsets = static_cast<uint64_t *>(take(n_users + 1, sizeof(uint64_t)));
	p->seeds = static_cast<uint64_t *>(take(n_users, sizeof(uint64_t)));
	p->positives = static_cast<uint32_t *>(take(positives_max, sizeof(uint32_t)));
	p->candidates = static_cast<uint32_t *>(take(n_candidates, sizeof(uint32_t)));
	p->rcs = static_cast<int *>(take(n_users, sizeof(int)));
	for (uint32_t k = 0; k < n_users * dim; k++)
		p->starts[k] = philox_centred(world_random(k, 63));
	for (uint32_t k = 0; k < n_users; k++)
		p->seeds[k] = static_cast<uint64_t>(world_random(k, 64)) << 32 | world_random(k, 65);
	for (uint32_t k = 0; k < n_candidates; k++)
		p->candidates[k] = (k * 7 + 3) % n_candidates; /* n_candidates: no multiple of 7 */
	personalize_options_default(&p->options);
	p->options.steps = 10;
	p->options.reg = 0.3f;
	p->batch = {n_users, p->starts, p->offsets, p->positives, p->candidates, n_candidates, &p->options, p->seeds, p->rows, p->rcs, 0};
	return p;
}

static void people_free(struct people *p)
{
	gpu_world_close(&p->world);
	tables_free(&p->tables);
	free(p->starts);
	free(p->rows);
	free(p->offsets);
	free(p->seeds);
	free(p->positives);
	free(p->candidates);
	free(p->rcs);
	free(p);
}

/* User k, the next one, gets n positives: random items below `below`, or n in a row from `from` on when below is 0. */
static void give(struct people *p, uint32_t k, uint32_t n, uint32_t below, uint32_t from)
{
	uint64_t at = p->offsets[k];
	assert_true(at + n <= p->capacity);
	for (uint32_t i = 0; i < n; i++)
		p->positives[at + i] = below ? world_random(k * 1000 + i, 66) % below : from + i;
	p->offsets[k + 1] = at + n;
}

static void run(struct people *p)
{
	for (size_t k = 0; k < static_cast<size_t>(p->n_users) * p->dim; k++)
		p->rows[k] = UNTOUCHED;
	assert_int_equal(backend_cuda.personalize(p->world.backend, &p->batch), 0);
}

/* Runs the batch and holds every user against the CPU's. Returns how far the rows moved. */
static double check(struct people *p, double tolerance)
{
	struct personalize_scratch scratch = {};
	float *row = static_cast<float *>(take(p->dim, sizeof *row));
	double moved = 0;
	run(p);
	for (uint32_t k = 0; k < p->n_users; k++) {
		struct personalize_options options = p->options;
		const float *start = p->starts + static_cast<size_t>(k) * p->dim, *got = p->rows + static_cast<size_t>(k) * p->dim;
		options.seed = p->batch.seeds ? p->seeds[k] : options.seed;
		int rc = personalize_row(&p->tables, start, p->positives + p->offsets[k], p->offsets[k + 1] - p->offsets[k], p->candidates, p->batch.n_candidates,
		                         &options, &scratch, row);
		assert_int_equal(p->rcs[k], rc);
		for (uint32_t d = 0; d < p->dim; d++) {
			if (rc != 0) {
				assert_true(got[d] == UNTOUCHED);
				continue;
			}
			if (!(fabs(static_cast<double>(got[d] - row[d])) <= tolerance))
				fail_msg("dim %u, user %u, coordinate %u: %g, the CPU has %g", p->dim, k, d, static_cast<double>(got[d]), static_cast<double>(row[d]));
			moved += fabs(static_cast<double>(row[d] - start[d]));
		}
	}
	free(row);
	personalize_scratch_free(&scratch);
	return moved;
}

static void test_rows_are_the_cpus(void **state)
{
	static const uint32_t dims[] = {1, 8, 16, 31, 32, 33, 64, 100, 128, 200, 256, 300, 500};
	(void)state;
	NEED_DEVICE();
	for (uint32_t dim : dims) {
		struct people *p = people_new(dim, 9, 120, 120, 400);
		for (uint32_t k = 0; k < 9; k++)
			give(p, k, 1 + k * k / 2, 120, 0);
		assert_true(check(p, 3e-5) > 0.01 * dim);
		people_free(p);
	}
}

static void test_any_number_of_triples_a_step(void **state)
{
	static const uint32_t batches[] = {1, 2, 3, 7, 31, 33, 64, 75};
	(void)state;
	NEED_DEVICE();
	for (uint32_t dim : {10u, 64u, 128u}) {
		struct people *p = people_new(dim, 6, 50, 50, 200);
		for (uint32_t k = 0; k < 6; k++)
			give(p, k, 3 + k, 50, 0);
		p->options.steps = 3;
		for (uint32_t batch : batches) {
			p->options.batch = batch;
			(void)check(p, 3e-5);
		}
		people_free(p);
	}
}

/* A single triple: the row moves along V[pos] - V[neg], so another pick would show at once. The users' own seeds, and one seed for all. */
static void test_the_same_items_are_picked(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(20, 150, 60, 60, 6000);
	for (uint32_t k = 0; k < 150; k++)
		give(p, k, 1 + k % 40, 60, 0);
	p->options.steps = 1;
	p->options.batch = 1;
	p->options.reg = 0.0f;
	assert_true(check(p, 2e-6) > 1.0);
	p->batch.seeds = NULL;
	p->options.seed = 77;
	(void)check(p, 2e-6);
	people_free(p);
}

/* Redraws, the search after them, and users for whom nothing is left; positives that are no candidates. */
static void test_few_or_no_negatives(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(12, 10, 120, 100, 1200);
	give(p, 0, 99, 0, 0);   /* one candidate is left */
	give(p, 1, 99, 0, 1);
	give(p, 2, 100, 0, 0);  /* none */
	give(p, 3, 0, 0, 0);    /* no positives */
	give(p, 4, 96, 0, 2);
	give(p, 5, 120, 0, 0);  /* all there is */
	give(p, 6, 1, 0, 119);
	give(p, 7, 20, 0, 100); /* no candidate among them */
	give(p, 8, 110, 0, 10);
	give(p, 9, 60, 100, 0);
	assert_true(check(p, 3e-5) > 0.1);
	assert_int_equal(p->rcs[2], -EINVAL);
	assert_int_equal(p->rcs[3], -EINVAL);
	assert_int_equal(p->rcs[5], -EINVAL);
	p->options.steps = 0; /* the start, or the fault */
	assert_true(check(p, 0.0) == 0.0);
	people_free(p);
}

/* Own items in shared memory and in global memory, and the sizes between them. */
static void test_long_histories(void **state)
{
	static const uint32_t n[] = {1, 255, 256, 257, 300, 15, 16, 17, 2000, 10000};
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(8, 10, 12000, 11999, 14000);
	for (uint32_t k = 0; k < 10; k++)
		give(p, k, n[k], k < 5 ? 300 : 0, k * 100); /* the first ones with repetitions */
	p->options.steps = 4;
	assert_true(check(p, 3e-5) > 0.1);
	people_free(p);
}

static void test_not_finite(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(40, 5, 60, 60, 100);
	for (uint32_t k = 0; k < 5; k++)
		give(p, k, 5, 60, 0);
	p->starts[2 * 40 + 17] = NAN;
	p->starts[4 * 40 + 39] = INFINITY;
	(void)check(p, 3e-5);
	assert_int_equal(p->rcs[1], 0);
	assert_int_equal(p->rcs[2], -ERANGE);
	assert_int_equal(p->rcs[4], -ERANGE);
	people_free(p);
}

static void test_what_is_refused(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(16, 3, 50, 50, 100);
	struct backend *backend = p->world.backend;
	for (uint32_t k = 0; k < 3; k++)
		give(p, k, 5, 50, 0);
	run(p);
	p->positives[7] = 50; /* the pulled tables have 0..49 */
	assert_int_equal(backend_cuda.personalize(backend, &p->batch), -EINVAL);
	p->positives[7] = 49;
	p->candidates[49] = UINT32_MAX;
	assert_int_equal(backend_cuda.personalize(backend, &p->batch), -EINVAL);
	p->batch.n_candidates = 49;
	(void)check(p, 3e-5);
	p->batch.n_candidates = 0;
	run(p);
	for (uint32_t k = 0; k < 3; k++)
		assert_int_equal(p->rcs[k], -EINVAL);
	p->batch.n_candidates = 49;
	p->options.batch = 0;
	(void)check(p, 0.0);
	p->options.batch = 32;
	p->batch.n = 0;
	run(p);
	people_free(p);
}

/* The item tables keep every bit, and the rows have the same bits on every run, in whatever order the device works. */
static void test_items_keep_their_bits_and_runs_agree(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(33, 13, 700, 700, 1500);
	const size_t bytes = static_cast<size_t>(700) * p->world.backend->stride * sizeof(float), row_bytes = static_cast<size_t>(13) * 33 * sizeof(float);
	for (uint32_t k = 0; k < 13; k++)
		give(p, k, k == 5 ? 600 : 30 + k, k == 5 ? 0 : 700, 0);
	void *before = gpu_copy_of(&p->world, p->world.backend->pulled_V.data, bytes), *bias = gpu_copy_of(&p->world, p->world.backend->pulled_bias.data, 2800);
	run(p);
	float *first = static_cast<float *>(take(1, row_bytes));
	memcpy(first, p->rows, row_bytes);
	for (uint32_t seed = 1; seed <= 20; seed++) {
#ifdef GPU_EMULATED
		emu_seed(seed);
#endif
		run(p);
		assert_memory_equal(p->rows, first, row_bytes);
	}
#ifdef GPU_EMULATED
	emu_seed(0);
#endif
	void *after = gpu_copy_of(&p->world, p->world.backend->pulled_V.data, bytes), *bias_after = gpu_copy_of(&p->world, p->world.backend->pulled_bias.data, 2800);
	assert_memory_equal(before, after, bytes);
	assert_memory_equal(bias, bias_after, 2800);
	free(before);
	free(bias);
	free(after);
	free(bias_after);
	free(first);
	people_free(p);
}

/* A job that runs, and what it did, change nothing: rows are fitted to the tables of the last pull. */
static void test_training_meanwhile(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(32, 8, 60, 60, 200);
	struct train_report report;
	const struct train_job job = {.triples_max = 2000, .budget_us = 0, .learning_rate = 0.1f};
	for (uint32_t k = 0; k < 8; k++)
		give(p, k, 9, 60, 0);
	for (uint32_t k = 0; k < 12; k++)
		assert_int_equal(training_set_add(&p->world.set, k % 3, k * 5, 0), 1);
	assert_int_equal(backend_cuda.train(p->world.backend, &job, &report), 0);
	(void)check(p, 3e-5); /* the job may still be running */
	assert_int_equal(backend_cuda.wait(p->world.backend, &report), 0);
	assert_true(report.triples > 0);
	(void)check(p, 3e-5);
	struct tables old = {};
	assert_int_equal(tables_reserve(&old, 3, 60, 32), 0);
	memcpy(old.V, p->tables.V, 60 * 32 * sizeof(float));
	assert_int_equal(backend_cuda.pull(p->world.backend, &p->tables), 0);
	assert_memory_not_equal(old.V, p->tables.V, 60 * 32 * sizeof(float)); /* it did move them */
	(void)check(p, 3e-5);
	tables_free(&old);
	people_free(p);
}

/* The training set's candidates are sent once; those that join, and those of a batch of its own, are found all the same. */
static void test_candidates_stay(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct people *p = people_new(12, 4, 300, 299, 100);
	struct training_set *set = &p->world.set;
	for (uint32_t k = 0; k < 4; k++)
		give(p, k, 5, 60, 0);
	for (uint32_t n = 50; n < 300; n += 83) { /* 50, then one that fits in the room there is, then more */
		while (set->n_candidates < n)
			assert_true(training_set_add_candidate(set, p->candidates[set->n_candidates]) >= 0);
		p->batch.candidates = set->candidates;
		p->batch.n_candidates = n;
		(void)check(p, 3e-5);
		memset(set->candidates, 0xff, n * sizeof *set->candidates); /* a second look would refuse them */
		(void)check(p, 3e-5);
		p->batch.n_candidates = n / 2;
		(void)check(p, 3e-5);
		memcpy(set->candidates, p->candidates, n * sizeof *set->candidates);
		if (n < 200)
			continue;
		uint32_t few[] = {7, 61, 62};
		uint32_t *const all = p->candidates;
		p->batch.candidates = p->candidates = few;
		p->batch.n_candidates = 3;
		(void)check(p, 3e-5);
		p->candidates = all;
	}
	p->batch.candidates = set->candidates;
	p->batch.n_candidates = set->n_candidates;
	(void)check(p, 3e-5);
	people_free(p);
}

static void begin_job(struct people *p)
{
	struct train_report report;
	const struct train_job job = {.triples_max = 2000, .budget_us = 0, .learning_rate = 0.1f};
	for (uint32_t k = 0; k < 12; k++)
		assert_true(training_set_add(&p->world.set, k % 3, k * 4, 0) >= 0);
	assert_int_equal(backend_cuda.train(p->world.backend, &job, &report), 0);
}

static void end_job(struct people *p)
{
	struct train_report report;
	assert_int_equal(backend_cuda.wait(p->world.backend, &report), 0);
}

/* Pinned memory for more users than ever before is made between two jobs: until then the answer is not now. */
static void test_more_users_beside_a_job(void **state)
{
	(void)state;
	NEED_DEVICE();
	const uint32_t n = 1500;
	struct people *p = people_new(4, n, 50, 50, n);
	for (uint32_t k = 0; k < n; k++)
		give(p, k, 1, 50, 0);
	p->options.steps = p->options.batch = 1;
	begin_job(p);
#ifdef GPU_EMULATED
	const size_t queued = emu_queued();
#endif
	for (int again = 0; again < 2; again++)
		assert_int_equal(backend_cuda.personalize(p->world.backend, &p->batch), -EAGAIN);
#ifdef GPU_EMULATED
	assert_int_equal(emu_queued(), queued);
#endif
	end_job(p);
	begin_job(p);
	(void)check(p, 3e-5);
	end_job(p);
	people_free(p);
}

#ifdef GPU_EMULATED
/* A batch that is given up writes nothing, and until it has ended no other begins; a pull comes after it, a job does not wait for it. */
static void test_given_up(void **state)
{
	(void)state;
	struct people *p = people_new(20, 6, 60, 60, 100);
	for (uint32_t k = 0; k < 6; k++)
		give(p, k, 5, 60, 0);
	for (int then_pull = 0; then_pull < 2; then_pull++) {
		int looks = 0, rc;
		for (uint32_t k = 0; k < 6 * 20; k++)
			p->rows[k] = UNTOUCHED;
		begin_job(p);
		p->batch.wait_us = 1;
		assert_int_equal(backend_cuda.personalize(p->world.backend, &p->batch), -EAGAIN);
		for (uint32_t k = 0; k < 6 * 20; k++)
			assert_true(p->rows[k] == UNTOUCHED);
		assert_true(p->world.backend->query->given_up);
		end_job(p);
		assert_true(p->world.backend->query->given_up);
		begin_job(p);
		end_job(p);
		gpu_world_grow(&p->world, 3, 60);
		if (then_pull) {
			assert_int_equal(backend_cuda.pull(p->world.backend, &p->tables), 0);
			assert_int_equal(cudaEventQuery(p->world.backend->query->done), cudaSuccess);
		}
		p->batch.wait_us = 0;
		while ((rc = backend_cuda.personalize(p->world.backend, &p->batch)) == -EAGAIN)
			looks++;
		assert_int_equal(rc, 0);
		assert_true(then_pull ? looks == 0 : looks > 0);
		(void)check(p, 3e-5);
		p->batch.wait_us = UINT32_MAX; /* long enough */
		(void)check(p, 3e-5);
	}
	people_free(p);
}

/* Each call in turn is refused memory: -ENOMEM or, where nothing was asked for, success; nothing is written, and it works the next time. */
static void test_refused_memory(void **state)
{
	(void)state;
	int refused = 0, failed = 1;
	for (uint64_t n = 1; failed; n++) {
		struct people *p = people_new(20, 6, 700, 700, 1000);
		for (uint32_t k = 0; k < 6; k++)
			give(p, k, k == 3 ? 400 : 5, 700, 0);
		for (uint32_t k = 0; k < 6 * 20; k++)
			p->rows[k] = UNTOUCHED;
		emu_fail_at(EMU_FAIL_NOMEM, n);
		int rc = backend_cuda.personalize(p->world.backend, &p->batch);
		failed = emu_failed();
		emu_fail_at(EMU_FAIL_NEVER, 0);
		if (rc != 0) {
			assert_int_equal(rc, -ENOMEM);
			for (uint32_t k = 0; k < 6 * 20; k++)
				assert_true(p->rows[k] == UNTOUCHED);
			refused++;
		}
		(void)check(p, 3e-5);
		people_free(p);
	}
	assert_true(refused > 8);
}

/* A device that is lost: -EIO, now and later. */
static void test_lost_device(void **state)
{
	(void)state;
	for (uint64_t n = 1; n <= 40; n++) {
		struct people *p = people_new(20, 6, 50, 50, 100);
		for (uint32_t k = 0; k < 6; k++)
			give(p, k, 5, 50, 0);
		emu_fail_at(EMU_FAIL_LOST, n);
		int rc = backend_cuda.personalize(p->world.backend, &p->batch);
		int failed = emu_failed();
		if (failed) {
			assert_int_equal(rc, -EIO);
			assert_int_equal(backend_cuda.personalize(p->world.backend, &p->batch), -EIO);
		}
		backend_cuda.close(p->world.backend);
		emu_reset();
		emu_fail_at(EMU_FAIL_NEVER, 0);
		char errstr[256];
		assert_int_equal(backend_cuda.open(&p->world.options, &p->world.set, &p->world.backend, errstr, sizeof errstr), 0);
		people_free(p);
		if (!failed)
			break;
		assert_true(n < 40);
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_are_the_cpus),
		cmocka_unit_test(test_any_number_of_triples_a_step),
		cmocka_unit_test(test_the_same_items_are_picked),
		cmocka_unit_test(test_few_or_no_negatives),
		cmocka_unit_test(test_long_histories),
		cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_items_keep_their_bits_and_runs_agree),
		cmocka_unit_test(test_training_meanwhile),
		cmocka_unit_test(test_candidates_stay),
		cmocka_unit_test(test_more_users_beside_a_job),
#ifdef GPU_EMULATED
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_refused_memory),
		cmocka_unit_test(test_lost_device),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
