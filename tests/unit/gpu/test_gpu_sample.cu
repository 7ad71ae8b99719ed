/*
 * test_gpu_sample.cu: the device's draws are the host sampler's, field by field: every kind of negative, recent positives, weights, both orders of the walk,
 * users with nearly all or all items, spans that begin anywhere; on the emulated device, through the mirror of the training set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "gpu/backend.cuh"
#include "gpu/sample.cuh"
#include "tests/cuda_emu/emu_control.h"
#include "trainer/learn/negatives.h"

extern "C" const struct backend_ops backend_cuda;

#define USERS 40u
#define ITEMS 150u
#define SPAN 700u
#define HARD 11u

static uint32_t random_of(uint32_t n, uint32_t stream)
{
	return philox4x32(n, stream, 0, 0xffffffffu, 3, 4).v[0];
}

/* What a lane found: its draw, and the candidates of a hard one. */
struct found {
	struct draw draw;
	uint32_t candidates[HARD];
};

static __global__ void draw_kernel(struct set_view set, struct plan_view plan, struct span_view span, struct found *found)
{
	uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
	if (at >= span.n)
		return;
	struct found f = {};
	f.draw = sample_draw(&set, &plan, &span, at);
	if (f.draw.kind == NEGATIVE_HARD) {
		for (uint32_t k = 0; k < plan.hard_of; k++)
			f.candidates[k] = sample_hard(&set, &plan, &f.draw, k);
		f.draw.neg = f.candidates[0];
	}
	found[at] = f;
}

static __global__ void redraw_kernel(struct set_view set, struct plan_view plan, struct draw *draws, uint32_t n)
{
	for (uint32_t k = threadIdx.x; k < n; k += blockDim.x)
		draws[k].neg = sample_redraw(&set, &plan, &draws[k]);
}

static __global__ void wrap_kernel(const uint64_t *at, const uint64_t *n, uint64_t *wrapped)
{
	wrapped[threadIdx.x] = sample_wrap(at[threadIdx.x], n[threadIdx.x]);
}

/* ---- a world ---------------------------------------------------------------------------------------------------------------------------- */
struct world {
	struct training_set set;
	struct learn_options options;
	struct popularity popularity;
	struct backend *backend;
	int64_t ids[ITEMS];
	struct found *on_device;
	struct found found[SPAN];
	struct draw draws[SPAN];
};

static size_t list_skips(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	(void)ctx;
	size_t n = user % 5 == 4 ? 0 : random_of(user, 7) % 9;
	for (size_t k = 0; k < n && k < max; k++)
		ret_items[k] = random_of(user * 64 + (uint32_t)k, 8) % (ITEMS + 20); /* some are not known yet */
	return n < max ? n : max;
}

static const struct skip_source listed = {list_skips, NULL, NULL, NULL, 0};

static struct learn_options options_of(void)
{
	struct learn_options options = {};
	options.emb_dim = 8;
	options.seed = UINT64_C(0xfedcba9876543210);
	options.threads = 1;
	options.batch_size = 100;
	options.init_scale = 1.0f;
	options.hard_of = HARD;
	options.popular_power = 0.8f;
	options.recent_share = 0.3f;
	options.deterministic = 1; /* all skips before each job */
	return options;
}

static float weight_of(uint32_t n, int weighted)
{
	return weighted ? 6.0f * philox_centred(random_of(n, 9)) : 0.0f;
}

static void add_positives(struct world *w, uint32_t from, uint32_t n, uint32_t passes, int weighted)
{
	for (uint32_t k = from; k < from + n; k++) {
		uint32_t user = random_of(k, 1) % USERS;
		user += user == 1 || user == 4 ? 4 : 0; /* these two are told what they have */
		assert_true(training_set_add_weighted(&w->set, user, random_of(k, 2) % ITEMS, passes, weight_of(k, weighted)) >= 0);
	}
}

/* User 1 has all items but one, user 2 all of them, user 3 half of them, user 4 all but two. */
static struct world *open_world(const struct learn_options *options, int weighted, const struct skip_source *skips)
{
	struct world *w = static_cast<struct world *>(calloc(1, sizeof *w));
	char errstr[256];
	assert_non_null(w);
	w->options = *options;
	training_set_init(&w->set, options->seed);
	assert_int_equal(training_set_grow(&w->set, USERS, ITEMS), 0);
	w->set.skips = skips;
	add_positives(w, 0, 500, 0, weighted);
	for (uint32_t i = 0; i < ITEMS; i++) {
		assert_true(training_set_add_weighted(&w->set, 2, i, 0, weight_of(1000 + i, weighted)) >= 0);
		if (i != 77)
			assert_true(training_set_add_weighted(&w->set, 1, i, 0, weight_of(2000 + i, weighted)) >= 0);
		if (i % 2)
			assert_true(training_set_add_weighted(&w->set, 3, i, 0, weight_of(3000 + i, weighted)) >= 0);
		if (i != 20 && i != 110)
			assert_true(training_set_add_weighted(&w->set, 4, i, 0, weight_of(4000 + i, weighted)) >= 0);
		w->ids[i] = i;
	}
	if (backend_cuda.open(&w->options, &w->set, &w->backend, errstr, sizeof errstr) != 0)
		fail_msg("%s", errstr);
	assert_int_equal(backend_cuda.grow(w->backend, USERS, ITEMS, w->ids, w->ids), 0);
	assert_int_equal(cudaMalloc(&w->on_device, sizeof w->found), cudaSuccess);
	return w;
}

static void close_world(struct world *w)
{
	assert_int_equal(cudaFree(w->on_device), cudaSuccess);
	backend_cuda.close(w->backend);
	popularity_free(&w->popularity);
	training_set_free(&w->set);
	free(w);
	assert_int_equal(emu_live(), 0);
}

static void assert_same_draw(const struct found *found, const struct draw *draw, const struct draw_plan *plan)
{
	uint32_t items[HARD];
	assert_int_equal(found->draw.user, draw->user);
	assert_int_equal(found->draw.pos, draw->pos);
	assert_int_equal(found->draw.index, draw->index);
	assert_int_equal(found->draw.step, draw->step);
	assert_int_equal(found->draw.kind, draw->kind);
	assert_memory_equal(&found->draw.weight, &draw->weight, sizeof draw->weight);
	if (draw->kind != NEGATIVE_HARD) {
		assert_int_equal(found->draw.neg, draw->neg);
		return;
	}
	items[0] = draw->neg;
	hard_candidates(plan, draw, plan->hard_of, items + 1);
	for (uint32_t k = 0; k < plan->hard_of; k++)
		assert_int_equal(found->candidates[k], training_set_has(plan->set, draw->user, items[k]) ? SAMPLE_NONE : items[k]);
}

/* Draws first..first + n - 1 of a job that begins now, by both. counts: draws of each kind, and without a negative. */
static void compare_span(struct world *w, const struct draw_plan *plan, const struct set_view *view, uint64_t first, uint32_t n, uint32_t *counts)
{
	struct span_view span = sample_span(plan, w->set.n_positives, first, n);
	cudaStream_t stream = w->backend->stream;
	GPU_LAUNCH(draw_kernel, (n + 63) / 64, 64, 0, stream, *view, sample_plan(plan), span, w->on_device);
	assert_int_equal(cudaMemcpyAsync(w->found, w->on_device, n * sizeof *w->found, cudaMemcpyDeviceToHost, stream), cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
	sampler_propose(plan, first, n, w->draws);
	sampler_settle(plan, n, w->draws);
	for (uint32_t i = 0; i < n; i++) {
		assert_same_draw(&w->found[i], &w->draws[i], plan);
		counts[w->draws[i].kind]++;
		counts[4] += w->draws[i].neg == SAMPLE_NONE;
	}
}

/* Spans of one job, the last of them far away in it; then the set moves on. */
static void compare_job(struct world *w, uint32_t *counts)
{
	struct train_job job = {};
	struct set_view view;
	struct draw_plan plan;
	job.triples_max = 1000;
	if (w->options.popular_share > 0.0f)
		assert_int_equal(popularity_refresh(&w->popularity, &w->set, w->options.popular_power), 0);
	draw_plan_make(&w->set, &w->options, &plan);
	assert_int_equal(set_mirror_sync(w->backend, &job, &view), 0);
	compare_span(w, &plan, &view, 0, SPAN, counts);
	compare_span(w, &plan, &view, SPAN, 333, counts);
	compare_span(w, &plan, &view, 37, 1, counts);
	compare_span(w, &plan, &view, UINT64_C(123456789012) + 55, SPAN, counts);
	training_set_advance(&w->set, &plan, 1033);
}

static void test_uniform(void **state)
{
	(void)state;
	struct learn_options options = options_of();
	struct world *w = open_world(&options, 0, NULL);
	uint32_t counts[5] = {};
	w->set.step = UINT64_C(0x1fffffffe); /* the step's upper half is a counter, too */
	for (int job = 0; job < 3; job++)
		compare_job(w, counts);
	assert_true(counts[NEGATIVE_UNIFORM] > 3000 && counts[4] > 100);
	close_world(w);
}

static void test_every_kind(void **state)
{
	(void)state;
	for (int weighted = 0; weighted < 2; weighted++) {
		struct learn_options options = options_of();
		uint32_t counts[5] = {};
		options.skip_share = 0.3f;
		options.popular_share = 0.25f;
		options.hard_share = 0.25f;
		struct world *w = open_world(&options, weighted, &listed);
		for (uint32_t job = 0; job < 3; job++) {
			compare_job(w, counts);
			add_positives(w, 500 + job * 30, 30, 0, weighted);
		}
		for (int kind = 0; kind < 4; kind++)
			assert_true(counts[kind] > 500);
		assert_true(counts[4] > 100);
		close_world(w);
	}
}

/* Recent positives of which few draws are left: some are used up within the job. */
static void test_recent(void **state)
{
	(void)state;
	for (int weighted = 0; weighted < 2; weighted++) {
		struct learn_options options = options_of();
		uint32_t counts[5] = {};
		options.hard_share = 0.2f;
		struct world *w = open_world(&options, weighted, NULL);
		for (uint32_t job = 0; job < 4; job++) {
			uint32_t before = w->set.n_recent;
			add_positives(w, 700 + job * 40, 20, 9 + 3 * job, weighted);
			assert_true(w->set.n_recent > before);
			compare_job(w, counts);
		}
		close_world(w);
	}
}

static void test_grouped(void **state)
{
	(void)state;
	struct learn_options options = options_of();
	uint32_t counts[5] = {};
	options.order = ORDER_GROUPED;
	struct world *w = open_world(&options, 1, NULL);
	for (int job = 0; job < 2; job++) {
		assert_int_equal(training_set_group(&w->set), 0);
		compare_job(w, counts);
	}
	close_world(w);
}

static void test_skip_lists(void **state)
{
	(void)state;
	uint64_t offsets[USERS - 4];
	static uint32_t items[USERS * 100];
	uint64_t n = 0;
	for (uint32_t u = 0; u < USERS - 5; u++) { /* the last users have none; some have more than GPU_SKIPS_MAX */
		offsets[u] = n;
		for (uint32_t k = random_of(u, 11) % 100; k > 0; k--, n++)
			items[n] = random_of((uint32_t)n, 12) % ITEMS;
	}
	offsets[USERS - 5] = n;
	const struct skip_source source = {NULL, NULL, offsets, items, USERS - 5};
	struct learn_options options = options_of();
	uint32_t counts[5] = {};
	options.skip_share = 0.9f;
	struct world *w = open_world(&options, 0, &source);
	compare_job(w, counts);
	assert_true(counts[NEGATIVE_SKIP] > 800);
	close_world(w);
}

/* Second tries from every kind, of the users whose items are all or nearly all positives too. */
static void test_redraw(void **state)
{
	(void)state;
	struct learn_options options = options_of();
	options.popular_share = 0.5f;
	struct world *w = open_world(&options, 0, NULL);
	struct train_job job = {};
	struct set_view view;
	struct draw_plan plan;
	assert_int_equal(popularity_refresh(&w->popularity, &w->set, options.popular_power), 0);
	draw_plan_make(&w->set, &options, &plan);
	assert_int_equal(set_mirror_sync(w->backend, &job, &view), 0);
	struct draw *on_device, *draws = w->draws;
	const uint32_t n = SPAN;
	for (uint32_t k = 0; k < n; k++) {
		draws[k].user = k % 2 ? 4 : k / 2 % USERS; /* of user 4, some find nothing before the last random try, and some not even then */
		draws[k].index = k;
		draws[k].step = 5 + ((uint64_t)k << 32);
		draws[k].kind = k % 3 == 0 ? NEGATIVE_POPULAR : k % 3 == 1 ? NEGATIVE_UNIFORM : NEGATIVE_HARD;
	}
	assert_int_equal(cudaMalloc(&on_device, n * sizeof *draws), cudaSuccess);
	assert_int_equal(cudaMemcpyAsync(on_device, draws, n * sizeof *draws, cudaMemcpyHostToDevice, w->backend->stream), cudaSuccess);
	GPU_LAUNCH(redraw_kernel, 1, 64, 0, w->backend->stream, view, sample_plan(&plan), on_device, n);
	assert_int_equal(cudaMemcpyAsync(draws, on_device, n * sizeof *draws, cudaMemcpyDeviceToHost, w->backend->stream), cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(w->backend->stream), cudaSuccess);
	for (uint32_t k = 0; k < n; k++) {
		assert_int_equal(draws[k].neg, sampler_redraw(&w->set, &draws[k]));
		if (draws[k].user == 1)
			assert_int_equal(draws[k].neg, 77);
		if (draws[k].user == 2)
			assert_int_equal(draws[k].neg, SAMPLE_NONE);
		if (draws[k].user == 4)
			assert_true(draws[k].neg == 20 || draws[k].neg == 110);
	}
	assert_int_equal(cudaFree(on_device), cudaSuccess);
	close_world(w);
}

/* Remainders as the lanes take them, also of numbers that no test could fill with positives. */
static void test_wrap(void **state)
{
	(void)state;
	enum { N = 64 };
	uint64_t at[N], n[N], got[N], *on_device;
	for (uint32_t k = 0; k < N; k++) {
		uint64_t big = (uint64_t)random_of(k, 20) << 32 | random_of(k, 21);
		n[k] = k < 8 ? SPAN_MAX - 3 + k : 1 + (big >> random_of(k, 22) % 64);
		at[k] = big % n[k] + random_of(k, 23) % (SPAN_MAX + 1);
	}
	at[0] = n[0] - 1;
	at[1] = n[1];
	at[2] = n[2] - 1 + SPAN_MAX;
	at[7] = n[7] - 1 + SPAN_MAX;
	assert_int_equal(cudaMalloc(&on_device, 3 * sizeof at), cudaSuccess);
	assert_int_equal(cudaMemcpy(on_device, at, sizeof at, cudaMemcpyHostToDevice), cudaSuccess);
	assert_int_equal(cudaMemcpy(on_device + N, n, sizeof n, cudaMemcpyHostToDevice), cudaSuccess);
	GPU_LAUNCH(wrap_kernel, 1, N, 0, cudaStream_t(0), on_device, on_device + N, on_device + 2 * N);
	assert_int_equal(cudaMemcpy(got, on_device + 2 * N, sizeof got, cudaMemcpyDeviceToHost), cudaSuccess);
	for (uint32_t k = 0; k < N; k++)
		if (got[k] != at[k] % n[k])
			fail_msg("%llu mod %llu", (unsigned long long)at[k], (unsigned long long)n[k]);
	assert_int_equal(cudaFree(on_device), cudaSuccess);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uniform), cmocka_unit_test(test_every_kind), cmocka_unit_test(test_recent), cmocka_unit_test(test_grouped),
		cmocka_unit_test(test_skip_lists), cmocka_unit_test(test_redraw), cmocka_unit_test(test_wrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
