/*
 * test_gpu_mirror.cu: the training set on the device against the one on the host, after every kind of change: positives that came in small and large
 * numbers, a set that was cleared or put into another order, weights, candidates, popularity, recent positives, skips, tables that grow.
 */
#include "tests/unit/gpu/gpu_testing.h"

#include "gpu/set_mirror.cuh"
#include "trainer/learn/negatives.h"

#define USERS 300u
#define ITEMS 200u

static const struct train_job job_with_limit = {1000, 1000, 0.05f}, job_without_limit = {1000, 0, 0.05f};

static __global__ void ask_kernel(struct set_view set, const struct user_item *pairs, uint32_t n, uint32_t *answers)
{
	for (uint32_t k = blockIdx.x * blockDim.x + threadIdx.x; k < n; k += gridDim.x * blockDim.x)
		answers[k] = (uint32_t)pair_set_has(&set, pairs[k].user, pairs[k].item);
}

/* Asks the device about every pair of the world. */
static void check_pairs(const struct gpu_world *world, const struct set_view *view)
{
	uint32_t n = view->n_users * view->n_items;
	struct user_item *pairs = static_cast<struct user_item *>(malloc(n * sizeof *pairs));
	void *device_pairs = NULL, *device_answers = NULL;
	for (uint32_t k = 0; k < n; k++)
		pairs[k] = {k / view->n_items, k % view->n_items};
	assert_int_equal(cudaMalloc(&device_pairs, n * sizeof *pairs), cudaSuccess);
	assert_int_equal(cudaMalloc(&device_answers, n * sizeof(uint32_t)), cudaSuccess);
	assert_int_equal(cudaMemcpy(device_pairs, pairs, n * sizeof *pairs, cudaMemcpyHostToDevice), cudaSuccess);
	assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
	GPU_LAUNCH(ask_kernel, 8, 128, 0, world->backend->stream, *view, static_cast<const struct user_item *>(device_pairs), n,
	           static_cast<uint32_t *>(device_answers));
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	uint32_t *answers = static_cast<uint32_t *>(gpu_copy_of(world, device_answers, n * sizeof *answers));
	for (uint32_t k = 0; k < n; k++)
		assert_int_equal(answers[k], training_set_has(&world->set, pairs[k].user, pairs[k].item));
	free(answers);
	free(pairs);
	assert_int_equal(cudaFree(device_pairs), cudaSuccess);
	assert_int_equal(cudaFree(device_answers), cudaSuccess);
}

static void check_array(const struct gpu_world *world, const void *device, const void *host, size_t bytes)
{
	void *copy = gpu_copy_of(world, device, bytes);
	if (bytes)
		assert_memory_equal(copy, host, bytes);
	free(copy);
}

static void check_recent(const struct gpu_world *world, const struct set_view *view)
{
	struct recent_positive *copy = static_cast<struct recent_positive *>(gpu_copy_of(world, view->recent, view->n_recent * sizeof *copy));
	for (uint32_t k = 0; k < view->n_recent; k++)
		assert_memory_equal(&copy[k], &world->set.recent[(world->set.recent_head + k) % RECENT_MAX], sizeof *copy);
	free(copy);
}

/* Syncs, and compares everything. */
static struct set_view sync_and_check(struct gpu_world *world, const struct train_job *job)
{
	const struct training_set *set = &world->set;
	struct set_view view = {};
	assert_int_equal(set_mirror_sync(world->backend, job, &view), 0);
	assert_int_equal(view.n_positives, set->n_positives);
	assert_int_equal(view.n_candidates, set->n_candidates);
	assert_int_equal(view.n_recent, set->n_recent);
	assert_int_equal(view.n_users, set->n_users);
	assert_int_equal(view.n_items, set->n_items);
	check_array(world, view.positives, set->positives, set->n_positives * sizeof *set->positives);
	check_array(world, view.user_positives, set->user_positives, set->n_users * sizeof *set->user_positives);
	check_array(world, view.candidates, set->candidates, set->n_candidates * sizeof *set->candidates);
	assert_int_equal(view.weights != NULL, set->weights != NULL);
	if (set->weights)
		check_array(world, view.weights, set->weights, set->n_positives * sizeof *set->weights);
	assert_int_equal(view.alias_below != NULL, set->popular != NULL);
	if (set->popular) {
		check_array(world, view.alias_below, set->popular->below, set->popular->n * sizeof(uint32_t));
		check_array(world, view.alias_other, set->popular->other, set->popular->n * sizeof(uint32_t));
	}
	check_recent(world, &view);
	check_pairs(world, &view);
	return view;
}

/* Adds about n new positives; stream: which. */
static void add_pairs(struct gpu_world *world, uint32_t n, uint32_t stream, uint32_t passes)
{
	for (uint32_t k = 0; k < n; k++)
		assert_true(training_set_add(&world->set, world_random(2 * k, stream) % world->set.n_users,
		                             world_random(2 * k + 1, stream) % world->set.n_items, passes) >= 0);
}

static void open_world(struct gpu_world *world)
{
	gpu_world_init(world, 16, USERS, ITEMS);
	gpu_world_open(world);
	gpu_world_grow(world, USERS, ITEMS);
}

static void test_empty(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	gpu_world_init(&world, 16, USERS, ITEMS);
	gpu_world_open(&world);
	sync_and_check(&world, &job_with_limit); /* no rows at all */
	gpu_world_grow(&world, USERS, ITEMS);
	sync_and_check(&world, &job_with_limit); /* rows, no positive */
	gpu_world_close(&world);
}

static void test_many_small_changes(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	for (uint32_t round = 0; round < 40; round++) {
		add_pairs(&world, 1 + world_random(round, 77) % 60, 100 + round, round % 3);
		sync_and_check(&world, &job_with_limit);
	}
	sync_and_check(&world, &job_with_limit); /* nothing new */
	gpu_world_close(&world);
}

/* Only what changed goes over. */
static void test_sends_what_changed(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 9000, 1, 0);
	sync_and_check(&world, &job_with_limit);
	uint64_t sent = world.backend->mirror->sent_pairs, before = world.set.n_positives;
	assert_int_equal(sent, before);
	sync_and_check(&world, &job_with_limit);
	assert_int_equal(world.backend->mirror->sent_pairs, sent);
	add_pairs(&world, 50, 2, 0);
	uint64_t added = world.set.n_positives - before;
	assert_true(added > 0);
	sync_and_check(&world, &job_with_limit);
	assert_in_range(world.backend->mirror->sent_pairs - sent, added, 2 * added);
	gpu_world_close(&world);
}

/* Pieces of a few elements, so that everything goes over in many of them. */
static void test_small_pieces(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	transfer_limit_piece(world.backend, 260 * 3);
	for (uint32_t round = 0; round < 4; round++) {
		add_pairs(&world, 1000, 200 + round, 1);
		sync_and_check(&world, &job_with_limit);
		add_pairs(&world, 200, 300 + round, 0);
		sync_and_check(&world, &job_with_limit);
	}
	gpu_world_close(&world);
}

static void test_cleared(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 3000, 1, 0);
	sync_and_check(&world, &job_with_limit);
	training_set_clear(&world.set);
	sync_and_check(&world, &job_with_limit);
	add_pairs(&world, 4000, 2, 2); /* more than before, some of them the same */
	sync_and_check(&world, &job_with_limit);
	training_set_clear(&world.set);
	add_pairs(&world, 100, 3, 2);
	sync_and_check(&world, &job_with_limit);
	gpu_world_close(&world);
}

static void test_regrouped(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 3000, 1, 0);
	sync_and_check(&world, &job_with_limit);
	assert_int_equal(training_set_group(&world.set), 0);
	sync_and_check(&world, &job_with_limit);
	add_pairs(&world, 30, 2, 0);
	sync_and_check(&world, &job_with_limit);
	add_pairs(&world, 30, 3, 0);
	assert_int_equal(training_set_group(&world.set), 0);
	sync_and_check(&world, &job_with_limit);
	gpu_world_close(&world);
}

/* Weights that begin when there are positives already, and move with them. */
static void test_weights(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 2000, 1, 0);
	sync_and_check(&world, &job_with_limit);
	for (uint32_t round = 0; round < 5; round++) {
		for (uint32_t k = 0; k < 40; k++)
			assert_true(training_set_add_weighted(&world.set, world_random(2 * k, 50 + round) % USERS, world_random(2 * k + 1, 50 + round) % ITEMS, 1,
			                                      (float)k * 0.25f - 3.0f) >= 0);
		sync_and_check(&world, &job_with_limit);
	}
	assert_non_null(world.set.weights);
	gpu_world_close(&world);
}

static void test_rows_join(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	gpu_world_init(&world, 16, USERS, ITEMS);
	gpu_world_open(&world);
	for (uint32_t n = 10; n <= 200; n += 38) {
		gpu_world_grow(&world, n + 100, n);
		add_pairs(&world, n * 8, n, 1);
		sync_and_check(&world, &job_with_limit);
	}
	gpu_world_close(&world);
}

static void test_popularity(void **state)
{
	struct gpu_world world;
	struct popularity popularity = {};
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 1000, 1, 0);
	assert_int_equal(popularity_refresh(&popularity, &world.set, 0.5f), 0);
	sync_and_check(&world, &job_with_limit);
	assert_int_equal(popularity_refresh(&popularity, &world.set, 1.0f), 0); /* as long as before, other content */
	sync_and_check(&world, &job_with_limit);
	add_pairs(&world, 3000, 2, 0);
	assert_int_equal(popularity_refresh(&popularity, &world.set, 1.0f), 0);
	sync_and_check(&world, &job_with_limit);
	popularity_free(&popularity);
	gpu_world_close(&world);
}

/* The ring goes over its end: what is first on the device is the oldest. */
static void test_ring_wraps(void **state)
{
	struct gpu_world world;
	(void)state;
	NEED_DEVICE();
	open_world(&world);
	add_pairs(&world, 50, 1, 3);
	world.set.recent_head = RECENT_MAX - 5;
	memcpy(world.set.recent + RECENT_MAX - 5, world.set.recent, 5 * sizeof *world.set.recent);
	memmove(world.set.recent, world.set.recent + 5, (world.set.n_recent - 5) * sizeof *world.set.recent);
	sync_and_check(&world, &job_with_limit);
	gpu_world_close(&world);
}

/* ---- skips --------------------------------------------------------------------------------------------------------------------------- */

static uint32_t skips_shift; /* changes what everybody skipped */

static uint32_t skip_count(uint32_t user)
{
	return user % 5 == 0 ? 0 : user % 67 + 1;
}

static size_t list_skips(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	size_t n = skip_count(user) < max ? skip_count(user) : max;
	(void)ctx;
	for (size_t k = 0; k < n; k++)
		ret_items[k] = (uint32_t)(user + k * 3 + skips_shift) % ITEMS;
	return n;
}

/* 1: the device holds the user's skips as they are with this shift. */
static int skips_match(const struct gpu_world *world, const struct set_view *view, uint32_t user, uint32_t shift)
{
	uint32_t want[GPU_SKIPS_MAX], was = skips_shift;
	skips_shift = shift;
	size_t n = list_skips(NULL, user, want, GPU_SKIPS_MAX);
	skips_shift = was;
	uint32_t *count = static_cast<uint32_t *>(gpu_copy_of(world, view->n_skips + user, sizeof *count));
	uint32_t *items = static_cast<uint32_t *>(gpu_copy_of(world, view->skips + (size_t)user * GPU_SKIPS_MAX, GPU_SKIPS_MAX * sizeof *items));
	int same = *count == n && memcmp(items, want, n * sizeof *want) == 0;
	free(count);
	free(items);
	return same;
}

static void open_skips(struct gpu_world *world, struct skip_source *source, uint32_t n_users)
{
	gpu_world_init(world, 16, n_users, ITEMS);
	world->options.skip_share = 0.5f;
	gpu_world_open(world);
	gpu_world_grow(world, n_users, ITEMS);
	*source = {};
	source->list = list_skips;
	world->set.skips = source;
	skips_shift = 0;
	assert_int_equal(training_set_add(&world->set, 3, 3, 0), 1);
}

/* With a time limit: in turn; all came round after n / SKIP_USERS jobs, and one that waits has none. */
static void test_skips_in_turn(void **state)
{
	struct gpu_world world;
	struct skip_source source;
	struct set_view view = {};
	uint32_t n = 2 * SKIP_USERS + 100;
	(void)state;
	NEED_DEVICE();
	open_skips(&world, &source, n);
	assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
	assert_true(skips_match(&world, &view, SKIP_USERS - 1, 0));
	uint32_t *count = static_cast<uint32_t *>(gpu_copy_of(&world, view.n_skips + SKIP_USERS, (n - SKIP_USERS) * sizeof *count));
	for (uint32_t k = 0; k < n - SKIP_USERS; k++)
		assert_int_equal(count[k], 0);
	free(count);
	skips_shift = 1;
	for (int job = 0; job < 2; job++)
		assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
	assert_true(skips_match(&world, &view, SKIP_USERS - 1, 0));
	assert_true(skips_match(&world, &view, SKIP_USERS, 1));
	assert_true(skips_match(&world, &view, n - 1, 1));
	assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
	assert_true(skips_match(&world, &view, SKIP_USERS - 1, 1));
	gpu_world_close(&world);
}

/* Without a limit: all at the first job. Deterministic: all at each. */
static void test_skips_at_once(void **state)
{
	struct gpu_world world;
	struct skip_source source;
	struct set_view view = {};
	uint32_t n = SKIP_USERS + 300;
	(void)state;
	NEED_DEVICE();
	open_skips(&world, &source, n);
	assert_int_equal(set_mirror_sync(world.backend, &job_without_limit, &view), 0);
	for (uint32_t user = 0; user < n; user += 97)
		assert_true(skips_match(&world, &view, user, 0));
	world.options.deterministic = 1;
	for (uint32_t shift = 1; shift < 3; shift++) {
		skips_shift = shift;
		assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
		for (uint32_t user = 0; user < n; user += 97)
			assert_true(skips_match(&world, &view, user, shift));
	}
	gpu_world_close(&world);
}

/* Lists that stay: sent once, at any length; then rows again. */
static void test_skip_lists(void **state)
{
	struct gpu_world world;
	struct skip_source source;
	struct set_view view = {};
	uint64_t offsets[4] = {0, 100, 100, 103};
	uint32_t items[103];
	(void)state;
	NEED_DEVICE();
	open_skips(&world, &source, USERS);
	for (uint32_t k = 0; k < 103; k++)
		items[k] = k * 7 % ITEMS;
	source.offsets = offsets;
	source.items = items;
	source.n_users = 3;
	for (int job = 0; job < 2; job++) {
		assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
		assert_int_equal(view.skip_users, 3);
		check_array(&world, view.skip_offsets, offsets, sizeof offsets);
		check_array(&world, view.skips, items, sizeof items);
	}
	source.offsets = NULL;
	assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
	assert_null(view.skip_offsets);
	assert_true(skips_match(&world, &view, 1, 0));
	gpu_world_close(&world);
}

/* Skips cost nothing while no negative comes from them. */
static void test_skips_off(void **state)
{
	struct gpu_world world;
	struct skip_source source;
	struct set_view view = {};
	(void)state;
	NEED_DEVICE();
	open_skips(&world, &source, USERS);
	world.options.skip_share = 0.0f;
	assert_int_equal(set_mirror_sync(world.backend, &job_with_limit, &view), 0);
	assert_null(view.skips);
	assert_null(world.backend->mirror->skips.data);
	gpu_world_close(&world);
}

#ifdef GPU_EMULATED
/*
 * Each call of a sync fails once for want of memory (a refused growth by half is tried again with less): the mirror then either took the change or can take it
 * again, and no pair is counted twice.
 */
static void check_refused_memory(uint32_t added)
{
	int refused = 0, failed = 1;
	for (uint64_t n = 1; failed; n++) {
		struct gpu_world world;
		struct set_view view = {};
		struct popularity popularity = {};
		gpu_world_init(&world, 16, USERS, ITEMS);
		gpu_world_open(&world);
		gpu_world_grow(&world, USERS / 2, ITEMS / 2);
		add_pairs(&world, 500, 1, 1);
		assert_int_equal(popularity_refresh(&popularity, &world.set, 0.5f), 0);
		sync_and_check(&world, &job_with_limit);
		gpu_world_grow(&world, USERS, ITEMS);
		add_pairs(&world, added, 2, 1);
		assert_int_equal(popularity_refresh(&popularity, &world.set, 0.5f), 0);
		emu_fail_at(EMU_FAIL_NOMEM, n);
		int rc = set_mirror_sync(world.backend, &job_with_limit, &view);
		failed = emu_failed();
		emu_fail_at(EMU_FAIL_NEVER, 0);
		assert_true(rc == 0 || (failed && rc == -ENOMEM));
		refused += rc < 0;
		if (n % 2)
			add_pairs(&world, 20, 3, 1);
		assert_int_equal(popularity_refresh(&popularity, &world.set, 0.5f), 0);
		sync_and_check(&world, &job_with_limit);
		popularity_free(&popularity);
		gpu_world_close(&world);
	}
	assert_true(refused > 10);
}

/* With a table of pairs that has to grow, and with one that has room. */
static void test_refused_memory(void **state)
{
	(void)state;
	check_refused_memory(2000);
	check_refused_memory(40);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_many_small_changes),
		cmocka_unit_test(test_sends_what_changed),
		cmocka_unit_test(test_small_pieces),
		cmocka_unit_test(test_cleared),
		cmocka_unit_test(test_regrouped),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_rows_join),
		cmocka_unit_test(test_popularity),
		cmocka_unit_test(test_ring_wraps),
		cmocka_unit_test(test_skips_in_turn),
		cmocka_unit_test(test_skips_at_once),
		cmocka_unit_test(test_skip_lists),
		cmocka_unit_test(test_skips_off),
#ifdef GPU_EMULATED
		cmocka_unit_test(test_refused_memory),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
