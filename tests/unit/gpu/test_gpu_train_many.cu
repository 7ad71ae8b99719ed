/*
 * test_gpu_train_many.cu: the fast mode with many warps: what a launch gets (fast_grid_of()), and blocks of several warps over tables that are large enough
 * for them, against the CPU's sum of the same steps. On the emulation a few thousand rows; on a GPU, where blocks run at the same time, a hundred thousand.
 * And many launches: a job with a time limit does what one launch would have done.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "gpu/train.cuh"
#include "tests/cuda_emu/emu_control.h"
#include "trainer/learn/tables.h"

#define EACH 8u /* positives of a user */

#ifdef GPU_EMULATED
#define USERS 4000u
#define ITEMS 8000u
#define TRIPLES 50000u
#else
#define USERS 100000u
#define ITEMS 200000u
#define TRIPLES 4000000u
#endif

/* ---- grids ----------------------------------------------------------------------------------------------------------------------------- */
static void check_grid(uint32_t processors, uint32_t stride, uint64_t in_flight, uint32_t draws)
{
	const struct fast_grid grid = fast_grid_of(processors, stride, in_flight, draws);
	const uint64_t a_warp = 2 * (stride < 128 ? 128 / stride : 1), warps = static_cast<uint64_t>(grid.blocks) * grid.warps_here;
	assert_in_range(grid.warps_here, 1, 4);
	assert_true(grid.blocks >= 1);
	if (warps > 1)
		assert_true(warps * a_warp <= in_flight && (warps - 1) * 32 < draws);
	if (grid.blocks < processors) /* no multiprocessor is idle while another has two warps */
		assert_int_equal(grid.warps_here, 1);
	const uint64_t more = warps + 4; /* and no more warps than that would have been allowed */
	if (more * a_warp <= in_flight && more * 32 <= draws)
		assert_true(grid.warps_here == 4 && grid.blocks % processors == 0);
}

static void test_grids(void **state)
{
	static const uint32_t processors[] = {1, 4, 108, 132}, strides[] = {16, 32, 64, 128, 256, 384, 512};
	(void)state;
	for (uint32_t p : processors)
		for (uint32_t stride : strides)
			for (uint64_t in_flight = 1; in_flight < 100000; in_flight += 1 + in_flight / 7)
				for (uint32_t draws = 1; draws < 1000000; draws += 1 + draws / 3)
					check_grid(p, stride, in_flight, draws);
	/* one warp more than there are multiprocessors: still a block to each, and no block of two */
	const struct fast_grid grid = fast_grid_of(132, 64, 133 * 4, UINT32_MAX), full = fast_grid_of(132, 64, 1000000, UINT32_MAX);
	assert_int_equal(grid.blocks, 133);
	assert_int_equal(grid.warps_here, 1);
	assert_int_equal(full.blocks, 132 * 5);
	assert_int_equal(full.warps_here, 4);
}

/* ---- many warps ------------------------------------------------------------------------------------------------------------------------ */
static void open_world(struct gpu_world *world, uint32_t dim, uint32_t bits)
{
	gpu_world_init(world, dim, USERS, ITEMS);
	world->options.optimizer = OPTIMIZER_SGD;
	world->options.loss = bits & 1 ? LOSS_BCE : LOSS_BPR;
	world->options.order = bits & 2 ? ORDER_GROUPED : ORDER_SHUFFLED;
	world->options.precision = bits & 4 ? PRECISION_BF16 : PRECISION_FP32;
	world->options.threads = 1;
	world->options.skip_share = 0.0f;
	world->options.hard_share = 0.0f;
	world->options.reg_user = 0.013f;
	world->options.reg_pos = 0.017f;
	world->options.reg_neg = 0.011f;
	world->options.reg_bias = 0.005f;
	gpu_world_open(world);
	gpu_world_grow(world, USERS, ITEMS);
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_true(training_set_add_candidate(&world->set, i) >= 0);
	for (uint32_t k = 0; k < USERS * EACH; k++)
		assert_true(training_set_add(&world->set, k / EACH, world_random(k, 80) % ITEMS, 0) >= 0);
	if (world->options.order == ORDER_GROUPED)
		assert_int_equal(training_set_group(&world->set), 0);
}

/* One job of plain SGD on the device, from rows as they begin. */
static void train_on_device(const struct gpu_world *world, float rate, struct tables *ret_before, struct tables *ret_after)
{
	const struct train_job job = {TRIPLES, 0, rate};
	struct train_report report;
	assert_int_equal(backend_cuda.pull(world->backend, ret_before), 0);
	assert_int_equal(backend_cuda.train(world->backend, &job, &report), 0);
	assert_int_equal(backend_cuda.wait(world->backend, &report), 0);
	assert_int_equal(report.triples, TRIPLES);
	assert_int_equal(report.rejected, 0);
	assert_int_equal(report.nonfinite, 0);
	assert_true(report.loss > 0.2 && report.loss < 3.0);
	assert_int_equal(backend_cuda.pull(world->backend, ret_after), 0);
}

/* The same on the CPU, one triple after the other. */
static void train_on_cpu(const struct gpu_world *world, float rate, struct tables *ret_before, struct tables *ret_after)
{
	const struct train_job job = {TRIPLES, 0, rate};
	struct backend *backend = NULL;
	struct train_report report;
	char errstr[256];
	assert_int_equal(backend_cpu.open(&world->options, &world->set, &backend, errstr, sizeof errstr), 0);
	assert_int_equal(backend_cpu.grow(backend, USERS, ITEMS, world->user_ids, world->item_ids), 0);
	assert_int_equal(backend_cpu.pull(backend, ret_before), 0);
	assert_int_equal(backend_cpu.train(backend, &job, &report), 0);
	assert_int_equal(report.triples, TRIPLES);
	assert_int_equal(backend_cpu.pull(backend, ret_after), 0);
	backend_cpu.close(backend);
}

/* Largest difference of two arrays. */
static double farthest(const float *a, const float *b, size_t n)
{
	double most = 0;
	for (size_t k = 0; k < n; k++) {
		const double d = fabs(static_cast<double>(a[k]) - static_cast<double>(b[k]));
		most = d <= most ? most : d; /* NaN, too */
	}
	return most;
}

/* The device went the CPU's way: none of its steps is farther off than a hundredth of the longest. */
static void check_way(const char *what, uint32_t dim, const float *before, const float *cpu, const float *cuda, size_t n)
{
	const double moved = farthest(cpu, before, n), wrong = farthest(cuda, cpu, n);
	if (!(moved > 0 && wrong < 0.01 * moved))
		fail_msg("dim %u: %s %.3g away from the CPU's, which moved %.3g", dim, what, wrong, moved);
}

/* A block has several warps, and each of them several rounds of 32 draws. */
static void check_warps(const struct gpu_world *world)
{
	const struct fast_grid grid = fast_grid_of(static_cast<uint32_t>(world->backend->properties.multiProcessorCount), world->backend->stride,
	                                           fast_in_flight(USERS, ITEMS), TRIPLES);
	assert_true(grid.warps_here > 1 && grid.blocks > 1);
	assert_true(static_cast<uint64_t>(grid.warps_here) * grid.blocks * 32 * 3 < TRIPLES);
}

/* Smallest steps: what the triples do then adds up, in whatever order, and none may be missing or come twice. */
static void test_many_sum_of_steps(void **state)
{
	static const uint32_t dims[] = {16, 64}, variants[] = {0, 3};
	(void)state;
	NEED_DEVICE();
	for (uint32_t i = 0; i < 4; i++) {
		struct gpu_world world;
		struct tables before = {}, cuda = {}, cpu_before = {}, cpu = {};
		const uint32_t dim = dims[i / 2];
		emu_seed(i);
		open_world(&world, dim, variants[i % 2]);
		check_warps(&world);
		train_on_device(&world, 1e-4f, &before, &cuda);
		train_on_cpu(&world, 1e-4f, &cpu_before, &cpu);
		check_way("users", dim, before.U, cpu.U, cuda.U, static_cast<size_t>(USERS) * dim);
		check_way("items", dim, before.V, cpu.V, cuda.V, static_cast<size_t>(ITEMS) * dim);
		check_way("biases", dim, before.bi, cpu.bi, cuda.bi, ITEMS);
		tables_free(&before);
		tables_free(&cpu_before);
		tables_free(&cuda);
		tables_free(&cpu);
		gpu_world_close(&world);
	}
	emu_seed(0);
}

/* Share of the CPU's way that the device went; in bf16 it begins a little beside it. */
static double share_of_way(const float *cpu_before, const float *cpu, const float *before, const float *cuda, size_t n)
{
	double dot = 0, moved = 0;
	for (size_t k = 0; k < n; k++) {
		const double a = static_cast<double>(cpu[k]) - static_cast<double>(cpu_before[k]);
		const double b = static_cast<double>(cuda[k]) - static_cast<double>(before[k]);
		dot += a * b;
		moved += a * a;
	}
	return dot / moved;
}

/* bf16: single steps are far below what it tells apart, and many warps round them at random; the mean is that of fp32. */
static void test_many_bf16(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (uint32_t dim = 16; dim <= 64; dim *= 4) {
		struct gpu_world world;
		struct tables before = {}, cuda = {}, cpu_before = {}, cpu = {};
		open_world(&world, dim, 4);
		check_warps(&world);
		train_on_device(&world, 3e-4f, &before, &cuda);
		world.options.precision = PRECISION_FP32;
		train_on_cpu(&world, 3e-4f, &cpu_before, &cpu);
		const double users = share_of_way(cpu_before.U, cpu.U, before.U, cuda.U, static_cast<size_t>(USERS) * dim);
		const double items = share_of_way(cpu_before.V, cpu.V, before.V, cuda.V, static_cast<size_t>(ITEMS) * dim);
		if (!(fabs(users - 1) < 0.05 && fabs(items - 1) < 0.05))
			fail_msg("dim %u: users went %.4f of the way, items %.4f", dim, users, items);
		tables_free(&before);
		tables_free(&cpu_before);
		tables_free(&cuda);
		tables_free(&cpu);
		gpu_world_close(&world);
	}
}

/* ---- many launches --------------------------------------------------------------------------------------------------------------------- */
#define FEW_USERS 60u
#define FEW_ITEMS 90u

/* Elements of two arrays that are further apart than fp32's rounding of sums in another order. */
static size_t apart(const float *a, const float *b, size_t n)
{
	size_t found = 0;
	for (size_t k = 0; k < n; k++)
		found += !(fabs(static_cast<double>(a[k]) - static_cast<double>(b[k])) < 1e-6);
	return found;
}

/*
 * Two jobs over tables so small that a launch is one warp, the second one with a time limit and as if so many triples a microsecond had been measured, or (0)
 * without a limit. Returns the launches of the second.
 */
static uint64_t train_few(double triples_per_us, int bf16, struct train_report *ret_report, struct tables *ret_after)
{
	struct gpu_world world;
	struct train_job job = {500, 0, bf16 ? 0.001f : 0.05f}; /* bf16: a coordinate's step is a tenth of what it tells apart */
	gpu_world_init(&world, 16, FEW_USERS, FEW_ITEMS);
	world.options.optimizer = OPTIMIZER_SGD; /* its steps do not depend on the order of a warp's additions */
	world.options.precision = bf16 ? PRECISION_BF16 : PRECISION_FP32;
	world.options.batch_size = 100;
	world.options.skip_share = 0.0f;
	world.options.hard_share = 0.5f;
	world.options.hard_of = 3;
	world.options.recent_share = 0.3f;
	gpu_world_open(&world);
	gpu_world_grow(&world, FEW_USERS, FEW_ITEMS);
	for (uint32_t i = 0; i < FEW_ITEMS; i++)
		assert_true(training_set_add_candidate(&world.set, i) >= 0);
	for (uint32_t k = 0; k < FEW_USERS * EACH; k++) /* user 7 has all items, the last ones came lately */
		assert_true(training_set_add(&world.set, k / EACH, world_random(k, 81) % FEW_ITEMS, k > FEW_USERS * EACH - 20 ? 30 : 0) >= 0);
	for (uint32_t i = 0; i < FEW_ITEMS; i++)
		assert_true(training_set_add(&world.set, 7, i, 0) >= 0);
	assert_int_equal(backend_cuda.train(world.backend, &job, ret_report), 0);
	assert_int_equal(backend_cuda.wait(world.backend, ret_report), 0);
	const uint64_t launches = emu_launches();
	world.backend->triples_per_us = triples_per_us;
	job.triples_max = 1000;
	job.budget_us = triples_per_us > 0 ? 1000000 : 0;
	assert_int_equal(backend_cuda.train(world.backend, &job, ret_report), 0);
	assert_int_equal(backend_cuda.wait(world.backend, ret_report), 0);
	const uint64_t here = emu_launches() - launches;
	assert_int_equal(backend_cuda.pull(world.backend, ret_after), 0);
	gpu_world_close(&world);
	return here;
}

static void test_launches_of_a_limited_job(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (int i = 0; i < 4; i++) {
		const int bf16 = i % 2, slow = i / 2; /* 200 draws in the time of a launch, which are six warps; two, and a launch has a warp at least */
		struct train_report reports[2];
		struct tables one = {}, many = {};
		const uint64_t of_one = train_few(0, bf16, &reports[0], &one), of_many = train_few(slow ? 0.001 : 0.1, bf16, &reports[1], &many);
		assert_true(reports[0].rejected > 0 && reports[0].triples + reports[0].rejected == 1000);
		assert_int_equal(reports[1].triples, reports[0].triples);
		assert_int_equal(reports[1].rejected, reports[0].rejected);
		assert_true(fabs(reports[1].loss - reports[0].loss) < 1e-5 * reports[0].loss); /* lanes add theirs up by launches */
		const size_t users = apart(one.U, many.U, FEW_USERS * 16), items = apart(one.V, many.V, FEW_ITEMS * 16);
		/* in bf16 the order of two additions to one element may show, and no other coin may */
		if (users > (bf16 ? FEW_USERS / 2 : 0) || items > (bf16 ? FEW_ITEMS / 2 : 0))
			fail_msg("bf16 %d: %zu elements of users differ, %zu of items", bf16, users, items);
#ifdef GPU_EMULATED
		assert_int_equal(of_many - of_one, slow ? 31 : 5); /* 1,000 draws by 32, or by 192 */
#else
		(void)of_one, (void)of_many;
#endif
		tables_free(&one);
		tables_free(&many);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grids),
		cmocka_unit_test(test_many_sum_of_steps),
		cmocka_unit_test(test_many_bf16),
		cmocka_unit_test(test_launches_of_a_limited_job),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
