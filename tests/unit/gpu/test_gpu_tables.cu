/*
 * test_gpu_tables.cu: the working tables on the device: rows begin as the CPU backend's do, copies go in and out whole, only what changed is read back,
 * what is not finite is found and changes nothing.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "trainer/learn/tables.h"

#define USERS 150u
#define ITEMS 90u

static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 200, 256, 300, 512};

/* What the CPU backend has after the same growth. */
static void cpu_tables(const struct gpu_world *world, uint32_t n_users, uint32_t n_items, struct tables *ret)
{
	struct backend *backend = NULL;
	char errstr[256];
	struct learn_options options = world->options;
	options.precision = PRECISION_FP32;
	assert_int_equal(backend_cpu.open(&options, &world->set, &backend, errstr, sizeof errstr), 0);
	assert_int_equal(backend_cpu.grow(backend, n_users / 2, n_items / 3, world->user_ids, world->item_ids), 0);
	assert_int_equal(backend_cpu.grow(backend, n_users, n_items, world->user_ids, world->item_ids), 0);
	assert_int_equal(backend_cpu.pull(backend, ret), 0);
	backend_cpu.close(backend);
}

static float nearest_bf16(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* `got` is `want`, through bf16 when the world's rows are. */
static void check_tables(const struct gpu_world *world, const struct tables *got, const struct tables *want)
{
	int bf16 = world->options.precision == PRECISION_BF16;
	size_t u = (size_t)want->n_users * want->dim, v = (size_t)want->n_items * want->dim;
	assert_int_equal(got->n_users, want->n_users);
	assert_int_equal(got->n_items, want->n_items);
	for (size_t k = 0; k < u + v; k++) {
		float expected = k < u ? want->U[k] : want->V[k - u];
		float seen = k < u ? got->U[k] : got->V[k - u];
		assert_true(seen == (bf16 ? nearest_bf16(expected) : expected));
	}
	assert_memory_equal(got->bi, want->bi, want->n_items * sizeof(float));
	assert_memory_equal(got->acc_item, want->acc_item, want->n_items * sizeof(float));
	assert_memory_equal(got->acc_user, want->acc_user, want->n_users * sizeof(float));
}

/* Numbers of the test's own in every place. */
static void fill(struct tables *tables, uint32_t stream)
{
	for (size_t k = 0; k < (size_t)tables->n_users * tables->dim; k++)
		tables->U[k] = philox_centred(world_random((uint32_t)k, stream));
	for (size_t k = 0; k < (size_t)tables->n_items * tables->dim; k++)
		tables->V[k] = philox_centred(world_random((uint32_t)k, stream + 1));
	for (uint32_t i = 0; i < tables->n_items; i++) {
		tables->bi[i] = philox_centred(world_random(i, stream + 2));
		tables->acc_item[i] = 1.0f + philox_centred(world_random(i, stream + 3));
	}
	for (uint32_t u = 0; u < tables->n_users; u++)
		tables->acc_user[u] = 1.0f + philox_centred(world_random(u, stream + 4));
}

static void open_world(struct gpu_world *world, uint32_t dim, int32_t precision)
{
	gpu_world_init(world, dim, USERS, ITEMS);
	world->options.precision = precision;
	gpu_world_open(world);
}

/* Every dim and both precisions: growth in three steps, in small pieces. */
static void check_growth(uint32_t dim, int32_t precision)
{
	struct gpu_world world;
	struct tables got = {}, want = {};
	open_world(&world, dim, precision);
	if (dim % 2)
		transfer_limit_piece(world.backend, 5 * 520);
	gpu_world_grow(&world, 1, 1);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	gpu_world_grow(&world, 77, 90);
	gpu_world_grow(&world, USERS, 20); /* tables never shrink */
	cpu_tables(&world, USERS, ITEMS, &want);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	check_tables(&world, &got, &want);
	tables_free(&got);
	tables_free(&want);
	gpu_world_close(&world);
}

static void test_growth(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (uint32_t dim : dims) {
		check_growth(dim, PRECISION_FP32);
		check_growth(dim, PRECISION_BF16);
	}
}

static void add_positives(struct gpu_world *world, uint32_t n_users, uint32_t n_items)
{
	for (uint32_t k = 0; k < 3 * n_users; k++)
		assert_true(training_set_add(&world->set, world_random(k, 30) % n_users, world_random(k, 31) % n_items, 0) >= 0);
}

static void wait_for_job(const struct backend_ops *ops, struct backend *backend)
{
	struct train_report report;
	assert_int_equal(ops->wait(backend, &report), 0);
	assert_true(report.triples > 0);
}

/* A job; many small growths while it runs; what comes next (0: a pull, 1: another job, 2: a push), and a pull. */
static void grow_beside_a_job(const struct backend_ops *ops, struct gpu_world *world, int next, struct tables *ret)
{
	const struct train_job job = {200, 0, 0.1f};
	struct train_report report;
	struct tables before = {};
	uint32_t n_users = USERS / 3, n_items = ITEMS / 3;
	world->options.deterministic = 1;
	world->options.batch_size = 16;
	char errstr[256];
	assert_int_equal(ops->open(&world->options, &world->set, &world->backend, errstr, sizeof errstr), 0);
	assert_int_equal(ops->grow(world->backend, n_users, n_items, world->user_ids, world->item_ids), 0);
	assert_int_equal(training_set_grow(&world->set, n_users, n_items), 0);
	add_positives(world, n_users, n_items);
	assert_int_equal(ops->pull(world->backend, &before), 0);
	assert_int_equal(ops->train(world->backend, &job, &report), 0);
#ifdef GPU_EMULATED
	const size_t queued = emu_queued();
	assert_true(ops == &backend_cpu || queued > 0);
#endif
	for (; n_users < USERS || n_items < ITEMS; n_users += n_users < USERS, n_items += n_items < ITEMS) {
		assert_int_equal(ops->grow(world->backend, n_users + (n_users < USERS), n_items, world->user_ids, world->item_ids), 0);
		assert_int_equal(ops->grow(world->backend, n_users + (n_users < USERS), n_items + (n_items < ITEMS), world->user_ids, world->item_ids), 0);
		if (ops->changed)
			assert_int_equal(ops->changed(world->backend), 0);
	}
#ifdef GPU_EMULATED
	assert_int_equal(emu_queued(), queued); /* the job is as it was: nobody has waited for it, or behind it */
#endif
	assert_int_equal(training_set_grow(&world->set, USERS, ITEMS), 0);
	add_positives(world, USERS, ITEMS);
	wait_for_job(ops, world->backend);
	if (next == 1) {
		assert_int_equal(ops->train(world->backend, &job, &report), 0);
		wait_for_job(ops, world->backend);
	} else if (next == 2) { /* with rows that were asked for and are not there yet */
		assert_int_equal(tables_reserve(&before, USERS, ITEMS, 16), 0);
		before.n_users = USERS;
		before.n_items = ITEMS;
		fill(&before, 25);
		assert_int_equal(ops->push(world->backend, &before), 0);
	}
	assert_int_equal(ops->pull(world->backend, ret), 0);
	tables_free(&before);
}

/* Growth does not wait for a job, nor behind it, and what comes after the job finds the rows. */
static void test_growth_beside_a_job(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (int next = 0; next < 3; next++) {
		struct gpu_world world, host;
		struct tables got = {}, want = {};
		gpu_world_init(&world, 16, USERS, ITEMS);
		gpu_world_init(&host, 16, USERS, ITEMS);
		grow_beside_a_job(&backend_cuda, &world, next, &got);
		grow_beside_a_job(&backend_cpu, &host, next, &want);
		check_tables(&world, &got, &want);
		tables_free(&got);
		tables_free(&want);
		backend_cpu.close(host.backend);
		training_set_free(&host.set);
		free(host.user_ids);
		free(host.item_ids);
		gpu_world_close(&world);
	}
}

/* What is pushed comes back; rows that the copy does not have begin anew; what lies beyond dim is still zero. */
static void check_push(uint32_t dim, int32_t precision)
{
	struct gpu_world world;
	struct tables copy = {}, got = {}, fresh = {};
	open_world(&world, dim, precision);
	gpu_world_grow(&world, USERS, ITEMS);
	cpu_tables(&world, USERS, ITEMS, &fresh);
	assert_int_equal(tables_reserve(&copy, USERS, ITEMS, dim), 0);
	copy.n_users = USERS;
	copy.n_items = ITEMS;
	fill(&copy, 5);
	assert_int_equal(backend_cuda.push(world.backend, &copy), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	check_tables(&world, &got, &copy);
	copy.n_users = USERS - 40;
	copy.n_items = ITEMS - 30;
	fill(&copy, 15);
	assert_int_equal(backend_cuda.push(world.backend, &copy), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	memcpy(fresh.U, copy.U, (size_t)copy.n_users * dim * sizeof(float));
	memcpy(fresh.V, copy.V, (size_t)copy.n_items * dim * sizeof(float));
	memcpy(fresh.acc_user, copy.acc_user, copy.n_users * sizeof(float));
	memcpy(fresh.acc_item, copy.acc_item, copy.n_items * sizeof(float));
	memcpy(fresh.bi, copy.bi, copy.n_items * sizeof(float));
	check_tables(&world, &got, &fresh);
	uint32_t stride = gpu_stride_of(dim);
	size_t element = precision == PRECISION_BF16 ? 2 : 4;
	char *rows = static_cast<char *>(gpu_copy_of(&world, world.backend->U.data, USERS * stride * element));
	for (uint32_t u = 0; u < USERS; u++)
		for (size_t k = dim * element; k < stride * element; k++)
			assert_int_equal(rows[u * stride * element + k], 0);
	free(rows);
	tables_free(&copy);
	tables_free(&got);
	tables_free(&fresh);
	gpu_world_close(&world);
}

static void test_push(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (uint32_t dim : dims) {
		check_push(dim, PRECISION_FP32);
		check_push(dim, PRECISION_BF16);
	}
}

/* On the device, as a job would: changes user rows and stamps them. */
static __global__ void touch_kernel(struct tables_view tables, uint32_t first, uint32_t end, uint32_t stamp, float value)
{
	for (uint32_t u = first + threadIdx.x; u < end; u += blockDim.x) {
		static_cast<float *>(tables.U)[(size_t)u * tables.stride] = value;
		tables.users[u].acc = value;
		tables.users[u].stamp = stamp;
	}
}

static void touch(const struct gpu_world *world, uint32_t first, uint32_t end, float value)
{
	GPU_LAUNCH(touch_kernel, 1, 64, 0, world->backend->stream, backend_tables_view(world->backend), first, end, world->backend->epoch, value);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
}

/* Two copies that take turns each get what changed since they were filled, and no other row is written. */
static void test_pull_brings_what_changed(void **state)
{
	struct gpu_world world;
	struct tables a = {}, b = {};
	(void)state;
	NEED_DEVICE();
	open_world(&world, 8, PRECISION_FP32);
	transfer_limit_piece(world.backend, 36 * 7); /* 7 rows with their numbers */
	gpu_world_grow(&world, USERS, ITEMS);
	assert_int_equal(backend_cuda.pull(world.backend, &a), 0);
	touch(&world, 10, 40, 3.0f);
	assert_int_equal(backend_cuda.pull(world.backend, &b), 0);
	touch(&world, 30, 50, 4.0f);
	for (uint32_t u = 0; u < USERS; u++)
		a.U[(size_t)u * 8 + 1] = b.U[(size_t)u * 8 + 1] = 77.0f; /* marks rows that are not written */
	assert_int_equal(backend_cuda.pull(world.backend, &a), 0);
	for (uint32_t u = 0; u < USERS; u++) {
		assert_int_equal(a.U[(size_t)u * 8 + 1] != 77.0f, u >= 10 && u < 50);
		if (u >= 10 && u < 50)
			assert_true(a.U[(size_t)u * 8] == (u < 30 ? 3.0f : 4.0f));
		assert_true(a.acc_user[u] == (u >= 30 && u < 50 ? 4.0f : u >= 10 && u < 30 ? 3.0f : 0.0f));
	}
	assert_int_equal(backend_cuda.pull(world.backend, &b), 0);
	for (uint32_t u = 0; u < USERS; u++)
		assert_int_equal(b.U[(size_t)u * 8 + 1] != 77.0f, u >= 30 && u < 50);
	/* half of the rows are listed; with one more, all go over in order */
	touch(&world, 0, USERS / 2, 5.0f);
	for (uint32_t u = 0; u < USERS; u++)
		a.U[(size_t)u * 8 + 1] = b.U[(size_t)u * 8 + 1] = 77.0f;
	assert_int_equal(backend_cuda.pull(world.backend, &a), 0);
	for (uint32_t u = 0; u < USERS; u++)
		assert_int_equal(a.U[(size_t)u * 8 + 1] != 77.0f, u < USERS / 2);
	touch(&world, USERS / 2, USERS / 2 + 1, 6.0f);
	assert_int_equal(backend_cuda.pull(world.backend, &b), 0);
	for (uint32_t u = 0; u < USERS; u++) {
		assert_true(b.U[(size_t)u * 8 + 1] != 77.0f);
		assert_true(b.U[(size_t)u * 8] == (u < USERS / 2 ? 5.0f : u == USERS / 2 ? 6.0f : a.U[(size_t)u * 8]));
	}
	tables_free(&a);
	tables_free(&b);
	gpu_world_close(&world);
}

/* A value that is not finite, anywhere: -ERANGE; neither the snapshot nor a row of the copy has changed, and a push mends it. */
static void check_not_finite(int32_t precision, int where)
{
	struct gpu_world world;
	struct tables good = {}, bad = {}, got = {};
	uint32_t dim = 33;
	open_world(&world, dim, precision);
	gpu_world_grow(&world, USERS, ITEMS);
	assert_int_equal(backend_cuda.pull(world.backend, &good), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &bad), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	float *const places[] = {bad.U + (USERS - 1) * dim + 32, bad.V + (ITEMS - 1) * dim + 32, bad.bi + ITEMS - 1, bad.acc_item + 3, bad.acc_user + USERS - 1};
	*places[where] = where % 2 ? INFINITY : NAN;
	assert_int_equal(backend_cuda.push(world.backend, &bad), -ERANGE);
	assert_int_equal(backend_cuda.pull(world.backend, &got), -ERANGE);
	assert_int_equal(got.epoch, 0);
	check_tables(&world, &got, &good);
	float *snapshot = static_cast<float *>(gpu_copy_of(&world, world.backend->pulled_V.data, ITEMS * 64 * sizeof(float)));
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_memory_equal(snapshot + i * 64, good.V + i * dim, dim * sizeof(float));
	free(snapshot);
	assert_int_equal(backend_cuda.push(world.backend, &good), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	check_tables(&world, &got, &good);
	tables_free(&good);
	tables_free(&bad);
	tables_free(&got);
	gpu_world_close(&world);
}

static void test_not_finite(void **state)
{
	(void)state;
	NEED_DEVICE();
	for (int where = 0; where < 5; where++) {
		check_not_finite(PRECISION_FP32, where);
		check_not_finite(PRECISION_BF16, where);
	}
}

/* The snapshot is that of the last pull, whatever happens to the tables. */
static void test_snapshot(void **state)
{
	struct gpu_world world;
	struct tables copy = {}, other = {};
	(void)state;
	NEED_DEVICE();
	open_world(&world, 32, PRECISION_FP32);
	gpu_world_grow(&world, USERS, 50);
	assert_int_equal(backend_cuda.pull(world.backend, &copy), 0);
	assert_int_equal(tables_reserve(&other, USERS, 50, 32), 0);
	other.n_users = USERS;
	other.n_items = 50;
	fill(&other, 40);
	assert_int_equal(backend_cuda.push(world.backend, &other), 0);
	gpu_world_grow(&world, USERS, ITEMS);
	assert_int_equal(world.backend->pulled_items, 50);
	float *V = static_cast<float *>(gpu_copy_of(&world, world.backend->pulled_V.data, 50 * 32 * sizeof(float)));
	assert_memory_equal(V, copy.V, 50 * 32 * sizeof(float));
	free(V);
	assert_int_equal(backend_cuda.pull(world.backend, &copy), 0);
	assert_int_equal(world.backend->pulled_items, ITEMS);
	float *bias = static_cast<float *>(gpu_copy_of(&world, world.backend->pulled_bias.data, ITEMS * sizeof(float)));
	assert_memory_equal(bias, copy.bi, ITEMS * sizeof(float));
	assert_memory_equal(bias, other.bi, 50 * sizeof(float));
	free(bias);
	tables_free(&copy);
	tables_free(&other);
	gpu_world_close(&world);
}

/* The sums after three passes are the CPU's to the bit; without a pass, or with plain SGD, they stay. */
static void test_forgetting(void **state)
{
	struct gpu_world world;
	struct tables copy = {}, got = {};
	(void)state;
	NEED_DEVICE();
	open_world(&world, 16, PRECISION_FP32);
	world.options.adagrad_forget = 0.03f;
	gpu_world_grow(&world, USERS, ITEMS);
	assert_int_equal(tables_reserve(&copy, USERS, ITEMS, 16), 0);
	copy.n_users = USERS;
	copy.n_items = ITEMS;
	fill(&copy, 9);
	assert_int_equal(backend_cuda.push(world.backend, &copy), 0);
	world.set.passes_here = 3;
	assert_int_equal(cuda_forget(world.backend), 0);
	assert_int_equal(cuda_forget(world.backend), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	float keep = (1.0f - 0.03f) * (1.0f - 0.03f);
	keep *= 1.0f - 0.03f;
	for (uint32_t u = 0; u < USERS; u++)
		copy.acc_user[u] *= keep;
	for (uint32_t i = 0; i < ITEMS; i++)
		copy.acc_item[i] *= keep;
	check_tables(&world, &got, &copy);
	world.options.optimizer = OPTIMIZER_SGD;
	world.set.passes_here = 5;
	assert_int_equal(cuda_forget(world.backend), 0);
	assert_int_equal(backend_cuda.pull(world.backend, &got), 0);
	check_tables(&world, &got, &copy);
	tables_free(&copy);
	tables_free(&got);
	gpu_world_close(&world);
}

static void test_wrong_dim(void **state)
{
	struct gpu_world world;
	struct tables copy = {};
	(void)state;
	NEED_DEVICE();
	open_world(&world, 16, PRECISION_FP32);
	gpu_world_grow(&world, 3, 3);
	assert_int_equal(tables_reserve(&copy, 3, 3, 17), 0);
	assert_int_equal(backend_cuda.push(world.backend, &copy), -EINVAL);
	assert_int_equal(backend_cuda.pull(world.backend, &copy), -EINVAL);
	tables_free(&copy);
	gpu_world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_growth_beside_a_job),
		cmocka_unit_test(test_push),
		cmocka_unit_test(test_pull_brings_what_changed),
		cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_forgetting),
		cmocka_unit_test(test_wrong_dim),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
