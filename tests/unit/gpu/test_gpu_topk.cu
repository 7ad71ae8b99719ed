/*
 * test_gpu_topk.cu: batches of rankings against a naive one: all scores in double, sorted, cut. Rows and items are small multiples of 1/8, so that every sum is exact
 * in float whatever its order, and ties are frequent: items and scores have to be equal, place by place.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "gpu/query.cuh"

struct ranked {
	double score;
	uint32_t item;
};

struct rankings {
	struct gpu_world world;
	struct tables tables;
	uint32_t n, k;
	float *rows, *scores;
	uint64_t *offsets;
	uint32_t *masked, *items;
	struct topk_batch batch;
};

static uint32_t next_random;

static uint32_t below(uint32_t n)
{
	return philox_below(world_random(next_random++, 80), n);
}

static float eighths(void)
{
	return static_cast<float>(static_cast<int>(below(17)) - 8) / 8.0f;
}

static void *take(size_t n, size_t size)
{
	void *memory = calloc(n + 1, size);
	assert_non_null(memory);
	return memory;
}

/* Pushes and pulls the tables, so that they are what batches work on. */
static void publish(struct rankings *r)
{
	struct tables pulled = {};
	assert_int_equal(backend_cuda.push(r->world.backend, &r->tables), 0);
	assert_int_equal(backend_cuda.pull(r->world.backend, &pulled), 0);
	tables_free(&pulled);
}

/* n rows over n_items items; one item of `masked_one_in` is masked (0: none). */
static struct rankings *rankings_new(uint32_t dim, uint32_t n_items, uint32_t n, uint32_t k, uint32_t masked_one_in)
{
	struct rankings *r = static_cast<struct rankings *>(take(1, sizeof *r));
	gpu_world_init(&r->world, dim, 1, n_items);
	gpu_world_open(&r->world);
	gpu_world_grow(&r->world, 1, n_items);
	assert_int_equal(tables_reserve(&r->tables, 1, n_items, dim), 0);
	r->tables.n_users = 1;
	r->tables.n_items = n_items;
	next_random = dim * 1000 + n_items * 10 + n;
	for (size_t i = 0; i < static_cast<size_t>(n_items) * dim; i++)
		r->tables.V[i] = eighths();
	for (uint32_t i = 0; i < n_items; i++)
		r->tables.bi[i] = eighths();
	publish(r);
	r->n = n;
	r->k = k;
	r->rows = static_cast<float *>(take(static_cast<size_t>(n) * dim, sizeof(float)));
	r->offsets = static_cast<uint64_t *>(take(n + 1, sizeof(uint64_t)));
	r->masked = static_cast<uint32_t *>(take(static_cast<size_t>(n) * n_items, sizeof(uint32_t)));
	r->items = static_cast<uint32_t *>(take(static_cast<size_t>(n) * TOPK_BATCH_MAX, sizeof(uint32_t)));
	r->scores = static_cast<float *>(take(static_cast<size_t>(n) * TOPK_BATCH_MAX, sizeof(float)));
	for (size_t i = 0; i < static_cast<size_t>(n) * dim; i++)
		r->rows[i] = eighths();
	for (uint32_t u = 0; u < n; u++) {
		r->offsets[u + 1] = r->offsets[u];
		for (uint32_t i = 0; i < n_items && masked_one_in; i++)
			if (below(masked_one_in) == 0)
				r->masked[r->offsets[u + 1]++] = i;
	}
	r->batch = {n, k, r->rows, r->offsets, r->masked, r->items, r->scores};
	return r;
}

static void rankings_free(struct rankings *r)
{
	gpu_world_close(&r->world);
	tables_free(&r->tables);
	free(r->rows);
	free(r->offsets);
	free(r->masked);
	free(r->items);
	free(r->scores);
	free(r);
}

static int by_rank(const void *left, const void *right)
{
	const struct ranked *a = static_cast<const struct ranked *>(left), *b = static_cast<const struct ranked *>(right);
	if (a->score != b->score)
		return a->score < b->score ? 1 : -1;
	return a->item > b->item ? 1 : -1;
}

/* The unmasked items of user u with finite scores, best first. Returns how many. */
static uint32_t naive(const struct rankings *r, uint32_t u, struct ranked *ret)
{
	uint64_t at = r->offsets[u];
	uint32_t n = 0;
	for (uint32_t i = 0; i < r->tables.n_items; i++) {
		double score = static_cast<double>(r->tables.bi[i]);
		for (uint32_t d = 0; d < r->tables.dim; d++)
			score += static_cast<double>(r->rows[static_cast<size_t>(u) * r->tables.dim + d]) *
			         static_cast<double>(r->tables.V[static_cast<size_t>(i) * r->tables.dim + d]);
		if (at < r->offsets[u + 1] && r->masked[at] == i)
			at++;
		else if (isfinite(static_cast<float>(score)))
			ret[n++] = {score, i};
	}
	qsort(ret, n, sizeof *ret, by_rank);
	return n;
}

static void run(struct rankings *r)
{
	memset(r->items, 0x5a, static_cast<size_t>(r->n) * r->batch.k * sizeof *r->items);
	assert_int_equal(backend_cuda.topk(r->world.backend, &r->batch), 0);
}

static void check(struct rankings *r)
{
	struct ranked *all = static_cast<struct ranked *>(take(r->tables.n_items, sizeof *all));
	const uint32_t k = r->batch.k;
	run(r);
	for (uint32_t u = 0; u < r->n; u++) {
		const uint32_t n = naive(r, u, all);
		for (uint32_t j = 0; j < k; j++) {
			const uint32_t item = r->items[static_cast<size_t>(u) * k + j];
			if (j >= n) {
				assert_int_equal(item, UINT32_MAX);
				continue;
			}
			if (item != all[j].item || r->scores[static_cast<size_t>(u) * k + j] != static_cast<float>(all[j].score))
				fail_msg("%u rows, %u items, dim %u, k %u: place %u of row %u is item %u (%g) and not %u (%g)", r->n, r->tables.n_items, r->tables.dim, k, j, u,
				         item, static_cast<double>(r->scores[static_cast<size_t>(u) * k + j]), all[j].item, all[j].score);
		}
	}
	free(all);
}

static void test_shapes(void **state)
{
	static const struct {
		uint32_t dim, n_items, n, k, masked_one_in;
	} shapes[] = {
		{1, 1, 1, 1, 0},      {1, 1, 1, 1, 1},       {8, 63, 3, 10, 4},   {16, 64, 64, 5, 3},   {17, 65, 65, 64, 2},   {31, 130, 63, 65, 7}, {32, 127, 2, 200, 2},
		{33, 300, 130, 3, 9}, {64, 500, 70, 50, 10}, {100, 90, 5, 90, 0}, {128, 257, 4, 20, 5}, {256, 129, 3, 128, 8}, {500, 70, 2, 70, 1},
	};
	(void)state;
	NEED_DEVICE();
	for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
		struct rankings *r = rankings_new(shapes[s].dim, shapes[s].n_items, shapes[s].n, shapes[s].k, shapes[s].masked_one_in);
		check(r);
		rankings_free(r);
	}
}

/* Every width of a list, over items enough that lists are cut back many times, in one range and in several. */
static void test_every_k(void **state)
{
	static const uint32_t ks[] = {1, 2, 63, 64, 65, 128, 129, 256, 257, 512, 513, 1000, 1024};
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(4, 2200, 2, 1, 20);
	for (uint32_t k : ks) {
		r->batch.k = k;
		check(r);
	}
	rankings_free(r);
	r = rankings_new(3, 17000, 1, 1, 0); /* ranges for lists of 2,048 keys, too */
	for (uint32_t k : {30u, 1024u}) {
		r->batch.k = k;
		check(r);
	}
	rankings_free(r);
}

/* Scores that only rise, so that each passes the threshold; that only fall; that are all the same. */
static void test_orders_of_items(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(2, 1500, 2, 1, 0);
	for (int order = 0; order < 3; order++) {
		for (uint32_t i = 0; i < 1500; i++) {
			r->tables.V[i * 2] = r->tables.V[i * 2 + 1] = 0.0f;
			r->tables.bi[i] = order == 0 ? static_cast<float>(i) : order == 1 ? -static_cast<float>(i) : (i % 2 ? 0.0f : -0.0f);
		}
		publish(r);
		for (uint32_t k : {1u, 40u, 1024u}) {
			r->batch.k = k;
			check(r);
		}
	}
	rankings_free(r);
}

/* Of the users of a block one alone, in each half of its lists, has scores that rise: his list is cut back, and the others' are never full. */
static void test_one_list_of_many(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(1, 1500, 64, 10, 0);
	for (uint32_t i = 0; i < 1500; i++) {
		r->tables.V[i] = static_cast<float>(i);
		r->tables.bi[i] = 0.0f;
	}
	publish(r);
	for (uint32_t rising : {9u, 41u}) {
		for (uint32_t u = 0; u < 64; u++)
			r->rows[u] = u == rising ? 1.0f : -1.0f;
		check(r);
	}
	rankings_free(r);
}

/* A product too small for a float leaves -0, which is no lower than 0. It stands at the last coordinate: a zero after it would make it 0. */
static void test_zeros_are_equal(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(16, 70, 1, 70, 0);
	memset(r->tables.V, 0, 70 * 16 * sizeof(float));
	memset(r->rows, 0, 16 * sizeof(float));
	for (uint32_t i = 0; i < 70; i++) {
		r->tables.V[i * 16 + 15] = i % 2 ? 0.0f : 1e-30f;
		r->tables.bi[i] = i % 2 ? 0.0f : -0.0f;
	}
	r->rows[15] = -1e-30f;
	publish(r);
	run(r);
	for (uint32_t j = 0; j < 70; j++)
		assert_int_equal(r->items[j], j);
	rankings_free(r);
}

/* The best of a range come early and one to a step, so that a list's places behind the k-th still hold one of them when the ranges are joined. */
static void test_nothing_is_ranked_twice(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(1, 4200, 1, 3, 0);
	for (uint32_t first : {0u, 2000u}) { /* the last range holds the best of all; then the first one */
		for (uint32_t i = 0; i < 4200; i++) {
			r->tables.V[i] = 0.0f;
			r->tables.bi[i] = i % 64 == 3 && i / 64 % 22 < 5 ? static_cast<float>(i % 1408 + (first ? first * (3 - i / 1408) : i)) : 0.0f;
		}
		publish(r);
		for (uint32_t k : {3u, 2u, 5u, 6u}) {
			r->batch.k = k;
			check(r);
		}
	}
	rankings_free(r);
}

/* Whole blocks masked, everything masked, masked items that nobody has, the same one twice. */
static void test_masks(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(8, 400, 5, 12, 0);
	uint64_t at = 0;
	for (uint32_t i = 60; i < 330; i++)
		r->masked[at++] = i;
	r->offsets[1] = at;
	for (uint32_t i = 0; i < 400; i++)
		r->masked[at++] = i;
	r->offsets[2] = at;
	for (uint32_t i = 5; i < 400; i++)
		r->masked[at++] = i;
	r->offsets[3] = at;
	r->masked[at++] = 399;
	r->masked[at++] = 5000;
	r->masked[at++] = UINT32_MAX;
	r->offsets[4] = at;
	r->offsets[5] = at;
	check(r);
	r->masked[r->offsets[3] + 1] = 399;
	run(r);
	for (uint32_t j = 0; j < 12; j++)
		assert_int_not_equal(r->items[3 * 12 + j], 399);
	rankings_free(r);
}

static void test_scores_that_are_not_finite(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(6, 300, 4, 20, 5);
	r->rows[6 + 2] = NAN;       /* row 1: every score */
	r->rows[2 * 6 + 1] = 3e38f; /* row 2: some overflow, up or down */
	for (uint32_t i = 0; i < 300; i++)
		r->tables.V[i * 6 + 1] = i % 3 ? 2.0f : i % 2 ? -4.0f : 0.0f;
	publish(r);
	check(r);
	assert_int_equal(r->items[1 * 20], UINT32_MAX);
	assert_true(r->items[2 * 20] != UINT32_MAX);
	rankings_free(r);
}

/* More users than there is room for lists at a time. */
static void test_several_passes(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(5, 150, 200, 7, 6);
	run(r);
	for (size_t bytes : {static_cast<size_t>(1), static_cast<size_t>(200) << 10, static_cast<size_t>(300) << 10}) {
		r->world.backend->query->kept_bytes_max = bytes;
		check(r);
	}
	rankings_free(r);
}

static void test_what_is_refused(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(8, 50, 2, 5, 0);
	r->batch.k = 0;
	assert_int_equal(backend_cuda.topk(r->world.backend, &r->batch), -EINVAL);
	r->batch.k = TOPK_BATCH_MAX + 1;
	assert_int_equal(backend_cuda.topk(r->world.backend, &r->batch), -EINVAL);
	r->batch.k = 5;
	check(r);
	r->batch.n = 0;
	assert_int_equal(backend_cuda.topk(r->world.backend, &r->batch), 0);
	rankings_free(r);
}

/* Before the first pull there are no items to rank. */
static void test_nothing_pulled(void **state)
{
	struct gpu_world world;
	float row[4] = {1, 2, 3, 4}, scores[3];
	uint64_t offsets[2] = {0, 0};
	uint32_t items[3] = {0, 0, 0};
	const struct topk_batch batch = {1, 3, row, offsets, items, items, scores};
	(void)state;
	NEED_DEVICE();
	gpu_world_init(&world, 4, 2, 10);
	gpu_world_open(&world);
	assert_int_equal(backend_cuda.topk(world.backend, &batch), 0);
	for (int j = 0; j < 3; j++)
		assert_int_equal(items[j], UINT32_MAX);
	gpu_world_close(&world);
}

/* Whatever the order in which the device works, the answer is the same. */
static void test_schedules(void **state)
{
	(void)state;
	NEED_DEVICE();
	struct rankings *r = rankings_new(9, 900, 70, 10, 4);
	for (uint32_t seed = 1; seed <= 6; seed++) {
#ifdef GPU_EMULATED
		emu_seed(seed);
#endif
		r->batch.k = seed % 2 ? 10 : 300;
		r->batch.n = r->n = seed % 2 ? 70 : 5;
		check(r);
	}
#ifdef GPU_EMULATED
	emu_seed(0);
#endif
	rankings_free(r);
}

#ifdef GPU_EMULATED
/* Each call in turn is refused memory, or fails for good. */
static void test_failures(void **state)
{
	(void)state;
	int failed = 1, refused = 0, lost = 0;
	for (uint64_t n = 1; failed; n++) {
		for (enum emu_failure kind : {EMU_FAIL_NOMEM, EMU_FAIL_UNKNOWN}) {
			struct rankings *r = rankings_new(5, 150, 3, 7, 6);
			emu_fail_at(kind, n);
			int rc = backend_cuda.topk(r->world.backend, &r->batch);
			failed = emu_failed();
			emu_fail_at(EMU_FAIL_NEVER, 0);
			refused += rc == -ENOMEM;
			lost += rc == -EIO;
			assert_true(rc == 0 || rc == (kind == EMU_FAIL_NOMEM ? -ENOMEM : -EIO));
			if (rc == -EIO)
				assert_int_equal(backend_cuda.topk(r->world.backend, &r->batch), -EIO);
			else
				check(r);
			rankings_free(r);
		}
	}
	assert_true(refused > 5 && lost > 8);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_every_k),
		cmocka_unit_test(test_orders_of_items),
		cmocka_unit_test(test_one_list_of_many),
		cmocka_unit_test(test_zeros_are_equal),
		cmocka_unit_test(test_nothing_is_ranked_twice),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_scores_that_are_not_finite),
		cmocka_unit_test(test_several_passes),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_nothing_pulled),
		cmocka_unit_test(test_schedules),
#ifdef GPU_EMULATED
		cmocka_unit_test(test_failures),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
