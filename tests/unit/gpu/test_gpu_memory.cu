/*
 * test_gpu_memory.cu: a backend's life: which device is taken and why none is, memory that grows in stream order, opening that fails half-way, and a whole
 * cycle in which each CUDA call fails once: no crash, nothing left behind, the fault in words, and a new backend that does the work from host memory.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "trainer/learn/personalize.h"
#include "trainer/learn/tables.h"

#define USERS 40u
#define ITEMS 50u
#define DIM 8u
/* Every call fails; under ThreadSanitizer, some do. */
#ifdef __SANITIZE_THREAD__
#define STRIDE 19u
#else
#define STRIDE 1u
#endif

static void test_facts(void **state)
{
	struct gpu_world world;
	struct device_facts facts;
	(void)state;
	NEED_DEVICE();
	gpu_world_init(&world, DIM, USERS, ITEMS);
	gpu_world_open(&world);
	gpu_world_grow(&world, USERS, ITEMS);
	backend_cuda.facts(world.backend, &facts);
	assert_true(facts.name[0] != '\0');
	assert_true(facts.cuda[0] >= '1' && facts.cuda[0] <= '9');
	assert_true(facts.driver[0] == '\0' || (facts.driver[0] >= '1' && facts.driver[0] <= '9'));
	assert_true(facts.memory_bytes > facts.memory_used_bytes);
	assert_int_equal(facts.failures, 0);
	assert_string_equal(facts.trouble, "");
	gpu_world_close(&world);
}

static void check_driver_version(const char *text, const char *version)
{
	char got[16];
	gpu_driver_version(text, got, sizeof got);
	assert_string_equal(got, version);
}

static void test_driver_version(void **state)
{
	(void)state;
	check_driver_version("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:20:20 UTC 2025\nGCC version:  gcc version 12.2.0\n", "580.65.06");
	check_driver_version("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n", "575.57.08");
	check_driver_version("NVRM version: something else 64 x.1 1.x\nGCC version: 12.2.0\n", "");
	check_driver_version("", "");
}

/* Growth keeps what it is told to, and takes half as much again. */
static void test_arrays_grow(void **state)
{
	struct gpu_world world;
	struct device_array array = {};
	struct pinned_array pinned = {};
	uint32_t numbers[300];
	(void)state;
	NEED_DEVICE();
	for (uint32_t k = 0; k < 300; k++)
		numbers[k] = k * 77 + 1;
	gpu_world_init(&world, DIM, USERS, ITEMS);
	gpu_world_open(&world);
	assert_int_equal(device_array_grow(world.backend, &array, 400, 0, "a test"), 0);
	assert_int_equal(array.bytes, 400);
	assert_int_equal(transfer_send(world.backend, array.data, numbers, 400), 0);
	assert_int_equal(device_array_grow(world.backend, &array, 500, 400, "a test"), 0);
	assert_int_equal(array.bytes, 600);
	void *same = array.data;
	assert_int_equal(device_array_grow(world.backend, &array, 600, 400, "a test"), 0);
	assert_ptr_equal(array.data, same);
	assert_int_equal(device_array_grow(world.backend, &array, 5000, 400, "a test"), 0);
	uint32_t *copy = static_cast<uint32_t *>(gpu_copy_of(&world, array.data, 400));
	assert_memory_equal(copy, numbers, 400);
	free(copy);
	assert_int_equal(pinned_array_grow(world.backend, &pinned, 100), 0);
	assert_int_equal(pinned_array_grow(world.backend, &pinned, 1000), 0);
	memset(pinned.data, 1, 1000);
	pinned_array_free(&pinned);
	device_array_free(&array);
	gpu_world_close(&world);
}

#ifdef GPU_EMULATED
/* Whatever a test set. */
static int usual_device(void **state)
{
	(void)state;
	emu_reset();
	emu_presence(13000, 1);
	emu_capability(9, 0);
	emu_memory_limit((size_t)8 << 30);
	emu_fail_at(EMU_FAIL_NEVER, 0);
	return 0;
}

static void assert_refused(const char *words)
{
	char reason[256] = "", errstr[256] = "";
	struct gpu_world world;
	assert_int_equal(backend_cuda.probe(reason, sizeof reason), -ENODEV);
	if (!strstr(reason, words))
		fail_msg("\"%s\" says nothing of \"%s\"", reason, words);
	gpu_world_init(&world, DIM, USERS, ITEMS);
	assert_int_equal(backend_cuda.open(&world.options, &world.set, &world.backend, errstr, sizeof errstr), -ENODEV);
	if (strncmp(errstr, "cuda backend: ", 14) != 0 || !strstr(errstr, words))
		fail_msg("\"%s\" says nothing of \"%s\"", errstr, words);
	free(world.user_ids);
	free(world.item_ids);
	assert_int_equal(emu_live(), 0);
}

static void test_reasons(void **state)
{
	char reason[256] = "";
	(void)state;
	emu_presence(0, 0);
	assert_refused("no NVIDIA driver is loaded");
	emu_presence(12040, 1);
	assert_refused("supports CUDA 12.4, this program needs 13.0");
	emu_presence(13000, 0);
	assert_refused("no NVIDIA GPU is visible");
	emu_presence(13000, 1);
	emu_capability(7, 5);
	assert_refused("compute capability 7.5, 8.0 or later");
	emu_capability(8, 0);
	emu_memory_limit((size_t)100 << 20);
	assert_refused("only 100 of 100 MiB");
	emu_memory_limit((size_t)2 << 30);
	assert_int_equal(backend_cuda.probe(reason, sizeof reason), 0);
	emu_fail_at(EMU_FAIL_LOST, 1);
	assert_refused("unavailable");
}

/* Open fails at each of its calls in turn, in every way. */
static void test_open_fails(void **state)
{
	const enum emu_failure kinds[] = {EMU_FAIL_NOMEM, EMU_FAIL_UNKNOWN, EMU_FAIL_LOST};
	(void)state;
	for (enum emu_failure kind : kinds) {
		int failed = 1;
		for (uint64_t n = 1; failed; n++) {
			struct gpu_world world;
			char errstr[256] = "";
			gpu_world_init(&world, DIM, USERS, ITEMS);
			emu_fail_at(kind, n);
			int rc = backend_cuda.open(&world.options, &world.set, &world.backend, errstr, sizeof errstr);
			failed = emu_failed();
			if (rc < 0)
				assert_true(failed && strncmp(errstr, "cuda backend: ", 14) == 0 && errstr[14]);
			else
				backend_cuda.close(world.backend);
			emu_fail_at(EMU_FAIL_NEVER, 0);
			free(world.user_ids);
			free(world.item_ids);
			if (kind == EMU_FAIL_LOST)
				emu_reset();
			assert_int_equal(emu_live(), 0);
			assert_true(n < 200);
		}
	}
}

/* What a cycle comes to, in host memory. */
struct outcome {
	struct tables copy;
	uint64_t draws; /* of both jobs */
	float rows[2 * DIM];
	int rcs[2];
	uint32_t tops[2 * 5];
	float scores[2 * 5];
};

/* rows: [2, dim] for the personal rows. */
static int query(struct backend *backend, const struct gpu_world *world, struct outcome *ret, float *rows)
{
	struct personalize_options options;
	const uint64_t offsets[3] = {0, 3, 5};
	const uint32_t positives[5] = {1, 7, 30, 2, 3};
	personalize_options_default(&options);
	options.steps = 2;
	options.batch = 4;
	struct personalize_batch personalize = {};
	personalize.n = 2;
	personalize.starts = ret->copy.U;
	personalize.offsets = offsets;
	personalize.positives = positives;
	personalize.candidates = world->set.candidates;
	personalize.n_candidates = world->set.n_candidates;
	personalize.options = &options;
	personalize.ret_rows = rows;
	personalize.ret_rcs = ret->rcs;
	int rc = backend_cuda.personalize(backend, &personalize);
	if (rc < 0)
		return rc;
	struct topk_batch topk = {};
	topk.n = 2;
	topk.k = 5;
	topk.rows = rows;
	topk.offsets = offsets;
	topk.masked = positives;
	topk.ret_items = ret->tops;
	topk.ret_scores = ret->scores;
	return backend_cuda.topk(backend, &topk);
}

/* Growth, two jobs with a pull between them, a push, queries. Whatever fails ends it. */
static int cycle(struct gpu_world *world, struct outcome *ret, float *rows)
{
	const struct train_job job = {30, 0, 0.05f};
	struct train_report report;
	struct backend *backend = world->backend;
	int rc = backend_cuda.grow(backend, USERS / 2, ITEMS / 2, world->user_ids, world->item_ids);
	for (int round = 0; round < 2 && rc == 0; round++) {
		rc = backend_cuda.grow(backend, USERS, ITEMS, world->user_ids, world->item_ids);
		if (rc == 0)
			rc = backend_cuda.changed(backend);
		if (rc == 0)
			rc = backend_cuda.train(backend, &job, &report);
		if (rc == 0)
			rc = backend_cuda.poll(backend, &report);
		if (rc >= 0)
			rc = backend_cuda.wait(backend, &report);
		ret->draws += rc == 0 ? report.triples + report.rejected : 0;
		if (rc == 0)
			rc = backend_cuda.pull(backend, &ret->copy);
		if (rc == 0 && round == 0)
			rc = backend_cuda.push(backend, &ret->copy);
	}
	return rc < 0 ? rc : query(backend, world, ret, rows);
}

static size_t skips_of(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	size_t n = user % 4 < max ? user % 4 : max;
	(void)ctx;
	for (size_t k = 0; k < n; k++)
		ret_items[k] = (user * 5 + static_cast<uint32_t>(k) * 11) % ITEMS;
	return n;
}

/* FAST: fp32, and nothing that a backend need not have. RICH: fast, bf16, weights, recent positives, negatives from skips. */
enum variant { FAST, EXACT, RICH };

static void fill_world(struct gpu_world *world, int variant)
{
	static const struct skip_source skips = {skips_of, NULL, NULL, NULL, 0};
	gpu_world_init(world, DIM, USERS, ITEMS);
	world->options.deterministic = variant == EXACT;
	world->options.precision = variant == RICH ? PRECISION_BF16 : PRECISION_FP32;
	world->options.skip_share = variant == RICH ? 0.4f : 0.0f;
	world->options.batch_size = 16;
	world->set.skips = variant == RICH ? &skips : NULL;
	assert_int_equal(training_set_grow(&world->set, USERS, ITEMS), 0);
	for (uint32_t k = 0; k < 300; k++)
		assert_true(training_set_add_weighted(&world->set, world_random(k, 1) % USERS, world_random(k, 2) % ITEMS, variant == RICH ? 2 : 0,
		                                      variant == RICH ? philox_centred(world_random(k, 3)) : 0.0f) >= 0);
}

static void assert_near(const float *a, const float *b, size_t n)
{
	for (size_t k = 0; k < n; k++)
		assert_true(fabsf(a[k] - b[k]) < 0.25f); /* a few steps of 0.05 */
}

/* In fast mode rows depend on the order of triples, by a few steps; what it cannot move is held to be the same. */
static void assert_same_outcome(const struct outcome *a, const struct outcome *b, int variant)
{
	assert_int_equal(a->draws, b->draws);
	assert_int_equal(a->copy.n_users, b->copy.n_users);
	assert_int_equal(a->copy.n_items, b->copy.n_items);
	if (variant != EXACT) {
		assert_near(a->copy.U, b->copy.U, USERS * DIM);
		assert_near(a->copy.V, b->copy.V, ITEMS * DIM);
		assert_near(a->copy.bi, b->copy.bi, ITEMS);
		return;
	}
	assert_memory_equal(a->copy.U, b->copy.U, USERS * DIM * sizeof(float));
	assert_memory_equal(a->copy.V, b->copy.V, ITEMS * DIM * sizeof(float));
	assert_memory_equal(a->copy.bi, b->copy.bi, ITEMS * sizeof(float));
	assert_memory_equal(a->rows, b->rows, sizeof a->rows);
	assert_memory_equal(a->tops, b->tops, sizeof a->tops);
	assert_memory_equal(a->scores, b->scores, sizeof a->scores);
}

/* All that a backend may ever launch, on a device on which nothing is loaded yet. */
static void launch_everything(uint32_t dim, int deterministic, int32_t precision)
{
	struct gpu_world world;
	struct outcome outcome = {};
	struct train_report report;
	const struct train_job job = {30, 0, 0.05f};
	emu_reset();
	fill_world(&world, deterministic);
	world.options.emb_dim = dim;
	world.options.precision = precision;
	world.options.optimizer = OPTIMIZER_ADAGRAD;
	world.options.adagrad_forget = 0.1f;
	gpu_world_open(&world);
	float *rows = static_cast<float *>(calloc(2 * dim, sizeof(float)));
	assert_int_equal(cycle(&world, &outcome, rows), 0);
	world.set.passes_here++;
	for (uint32_t k = 300; k < 310; k++)
		assert_true(training_set_add(&world.set, world_random(k, 1) % USERS, world_random(k, 2) % ITEMS, 0) >= 0);
	assert_int_equal(backend_cuda.train(world.backend, &job, &report), 0);
	assert_int_equal(backend_cuda.wait(world.backend, &report), 0);
	if (emu_late_loads() != 0)
		fail_msg("dim %u, deterministic %d, precision %d: %u kernels were loaded at their first launch, the last one %s", dim, deterministic, precision,
		         emu_late_loads(), emu_late_load());
	free(rows);
	tables_free(&outcome.copy);
	gpu_world_close(&world);
}

static void test_kernels_are_loaded_at_open(void **state)
{
	(void)state;
	for (uint32_t dim : {8u, 20u, 64u, 128u, 200u, 300u, 512u}) {
		launch_everything(dim, 0, PRECISION_FP32);
		launch_everything(dim, 0, PRECISION_BF16);
	}
	launch_everything(8, 1, PRECISION_FP32);
}

/* After a lost device every call is refused; what a call does after refused memory is its own affair. */
static void assert_refuses(struct gpu_world *world)
{
	const struct train_job job = {30, 0, 0.05f};
	struct train_report report;
	struct outcome outcome = {};
	struct device_facts facts;
	assert_int_equal(backend_cuda.grow(world->backend, USERS, ITEMS, world->user_ids, world->item_ids), -EIO);
	assert_int_equal(backend_cuda.changed(world->backend), -EIO);
	assert_int_equal(backend_cuda.train(world->backend, &job, &report), -EIO);
	assert_int_equal(backend_cuda.poll(world->backend, &report), -EIO);
	assert_int_equal(backend_cuda.wait(world->backend, &report), -EIO);
	assert_int_equal(backend_cuda.pull(world->backend, &outcome.copy), -EIO);
	assert_int_equal(backend_cuda.push(world->backend, &outcome.copy), -EIO);
	backend_cuda.facts(world->backend, &facts);
	assert_true(facts.trouble[0] != '\0');
	assert_true(facts.failures > 0);
	tables_free(&outcome.copy);
}

/* A cycle whose call or launch number n fails. 1: the failure was met. */
static int check_failure(enum emu_failure kind, uint64_t n, int variant, const struct outcome *want)
{
	struct gpu_world world;
	struct outcome outcome = {}, again = {};
	char errstr[256] = "";
	fill_world(&world, variant);
	gpu_world_open(&world);
	emu_fail_at(kind, n);
	int rc = cycle(&world, &outcome, outcome.rows);
	int failed = emu_failed();
	if (rc == 0) /* a growth that was content with less, or no failure at all */
		assert_same_outcome(&outcome, want, variant);
	else
		assert_true(failed && (rc == -ENOMEM || rc == -EIO));
	if (kind != EMU_FAIL_NOMEM)
		assert_int_equal(rc < 0, failed);
	if (rc == -EIO)
		assert_refuses(&world);
	emu_fail_at(EMU_FAIL_NEVER, 0); /* close() is not to meet what the cycle did not */
	backend_cuda.close(world.backend);
	if (kind == EMU_FAIL_LOST)
		emu_reset(); /* the machine's affair */
	assert_int_equal(emu_live(), 0);
	assert_int_equal(backend_cuda.open(&world.options, &world.set, &world.backend, errstr, sizeof errstr), 0);
	if (n % 4 == 1) { /* takes its time */
		assert_int_equal(cycle(&world, &again, again.rows), 0);
		assert_same_outcome(&again, want, variant);
	}
	tables_free(&outcome.copy);
	tables_free(&again.copy);
	gpu_world_close(&world);
	return failed;
}

static void fail_everywhere(enum emu_failure kind)
{
	for (int variant : {EXACT, FAST, RICH}) {
		struct gpu_world world;
		struct outcome want = {};
		fill_world(&world, variant);
		gpu_world_open(&world);
		assert_int_equal(cycle(&world, &want, want.rows), 0);
		gpu_world_close(&world);
		uint64_t n = 1;
		while (check_failure(kind, n, variant, &want))
			n += variant == EXACT ? STRIDE : STRIDE * 2;
		assert_true(n > 20);
		tables_free(&want.copy);
	}
}

static void test_memory_is_refused(void **state)
{
	(void)state;
	fail_everywhere(EMU_FAIL_NOMEM);
}

static void test_calls_fail(void **state)
{
	(void)state;
	fail_everywhere(EMU_FAIL_UNKNOWN);
}

static void test_device_is_lost(void **state)
{
	(void)state;
	fail_everywhere(EMU_FAIL_LOST);
}

static void test_launches_fail(void **state)
{
	(void)state;
	fail_everywhere(EMU_FAIL_LAUNCH);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_driver_version),
		cmocka_unit_test(test_arrays_grow),
#ifdef GPU_EMULATED
		cmocka_unit_test_setup_teardown(test_reasons, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_open_fails, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_kernels_are_loaded_at_open, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_memory_is_refused, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_calls_fail, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_device_is_lost, usual_device, usual_device),
		cmocka_unit_test_setup_teardown(test_launches_fail, usual_device, usual_device),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
