/*
 * bench_device.cu: how fast the CUDA backend is: training, personal rows, rankings, each beside what the device's memory gives in the same run.
 *
 *   bench_device        on a GPU (make bench-gpu): tables of 30k x 41k and 1M x 100k, training at d = 16, 64 and 128; some minutes
 *   bench_device tiny   everything once on tables of a few hundred rows, to see that it works; the figures mean nothing
 *
 * The row limits: random rows are read and changed, a group of lanes to a row as in training, by as many warps as the device holds, nothing else. Once they are
 * written back, which is what memory gives; once added to, as training does, which is what the L2's atomic units give: where the second is lower, those bind.
 * A triple changes three rows, so a third of the lower one is the limit of training in fp32. Medians of several rounds. Figures are printed and never asserted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/device.cuh"
#include "trainer/learn/bpr_math.h"
#include "gpu/rows.cuh"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a C header: functions with the names of structs */
#include "trainer/learn/learn.h"
#pragma GCC diagnostic pop
#include "trainer/learn/personalize.h"
#include "trainer/learn/philox.h"

extern "C" const struct backend_ops backend_cuda;

#define DIM 64u /* of the batches */
#define BLOCK 128u
#define ROUNDS 5
#define POSITIVES_A_USER 20u

static int tiny;

static double now_sec(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

[[noreturn]] static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_device: %s: %s\n", what, why);
	exit(1);
}

static void check_cuda(cudaError_t code, const char *what)
{
	if (code != cudaSuccess)
		die(what, cudaGetErrorString(code));
}

static void check(int rc, const char *what)
{
	if (rc < 0)
		die(what, strerror(-rc));
}

static void *take(size_t n, size_t size)
{
	void *memory = calloc(n + 1, size);
	if (!memory)
		die("memory", "none");
	return memory;
}

static uint32_t random_below(uint32_t number, uint32_t stream, uint32_t n)
{
	return philox_below(philox4x32(number, stream, 0, 0xffffffffu, 7, 8).v[0], n);
}

static int by_size(const void *a, const void *b)
{
	const double x = *static_cast<const double *>(a), y = *static_cast<const double *>(b);
	return x < y ? -1 : x > y;
}

static double median(double *values, int n)
{
	qsort(values, static_cast<size_t>(n), sizeof *values, by_size);
	return values[n / 2];
}

/* ---- what memory gives ---- */

/* A group of lanes changes `each` random rows, one after another; the next row is asked for while this one is written or added to. */
template <uint32_t STRIDE, int ADD> static __global__ void touch_rows(float *table, uint32_t n_rows, uint32_t each, uint32_t seed)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes;
	const uint32_t group = (blockIdx.x * blockDim.x + threadIdx.x) / lanes, sub = threadIdx.x % lanes;
	float4 *next = NULL, row = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
	for (uint32_t i = 0; i <= each; i++) {
		float4 *here = next;
		const float4 old = row, more = make_float4(old.x + 1.0f, old.y + 1.0f, old.z + 1.0f, old.w + 1.0f);
		if (i < each) {
			next = reinterpret_cast<float4 *>(table + static_cast<size_t>(philox_below(round_bits(group * each + i + seed), n_rows)) * STRIDE) + sub;
			row = gpu_load4(reinterpret_cast<const float *>(next));
		}
		if (here && ADD)
			gpu_add4(reinterpret_cast<float *>(here), more);
		else if (here)
			__stcg(here, more);
	}
}

/* Rows a second, changed at random places of a table of n_rows. */
template <uint32_t STRIDE, int ADD> static double row_limit(uint32_t n_rows)
{
	const uint32_t blocks = tiny ? 2 : 132 * 16, each = tiny ? 4 : 500, groups = BLOCK / row_shape<STRIDE>::lanes;
	const size_t bytes = static_cast<size_t>(n_rows) * STRIDE * sizeof(float);
	double rates[ROUNDS];
	void *table = NULL;
	check_cuda(cudaMalloc(&table, bytes), "a table");
	check_cuda(cudaMemset(table, 0, bytes), "a table");
	check_cuda(cudaDeviceSynchronize(), "a table");
	for (int round = -1; round < ROUNDS; round++) {
		const double begin = now_sec();
		GPU_LAUNCH((touch_rows<STRIDE, ADD>), blocks, BLOCK, 0, NULL, static_cast<float *>(table), n_rows, each, static_cast<uint32_t>(round + 1) * 977);
		check_cuda(cudaGetLastError(), "touching rows");
		check_cuda(cudaDeviceSynchronize(), "touching rows");
		if (round >= 0) /* the first one warms up */
			rates[round] = static_cast<double>(blocks) * groups * each / (now_sec() - begin);
	}
	check_cuda(cudaFree(table), "a table");
	return median(rates, ROUNDS);
}

/* Rows a second at one d. */
struct limits {
	double written, added;
};

static struct limits limits_of(uint32_t dim, uint32_t n_rows)
{
	if (dim == 16)
		return {row_limit<16, 0>(n_rows), row_limit<16, 1>(n_rows)};
	if (dim == 64)
		return {row_limit<64, 0>(n_rows), row_limit<64, 1>(n_rows)};
	return {row_limit<128, 0>(n_rows), row_limit<128, 1>(n_rows)};
}

/* ---- a model ---- */

struct model {
	struct learner *learner;
	struct tables tables;
	uint32_t n_users, n_items;
	int64_t *user_ids, *item_ids;
};

static struct model model_new(uint32_t n_users, uint32_t n_items, const struct learn_options *options)
{
	struct model m = {};
	char errstr[256] = "";
	m.n_users = n_users;
	m.n_items = n_items;
	m.user_ids = static_cast<int64_t *>(take(n_users, sizeof *m.user_ids));
	m.item_ids = static_cast<int64_t *>(take(n_items, sizeof *m.item_ids));
	for (uint32_t u = 0; u < n_users; u++)
		m.user_ids[u] = u;
	for (uint32_t i = 0; i < n_items; i++)
		m.item_ids[i] = i;
	if (learner_new(options, &backend_cuda, &m.learner, errstr, sizeof errstr) < 0)
		die("opening the device", errstr);
	check(learner_grow(m.learner, n_users, n_items, m.user_ids, m.item_ids), "rows");
	for (uint32_t u = 0; u < n_users; u++) {
		struct user_item pairs[POSITIVES_A_USER];
		for (uint32_t k = 0; k < POSITIVES_A_USER; k++) { /* the product of two: some items are much more popular than others */
			const uint32_t place = random_below(u * POSITIVES_A_USER + k, 1, n_items);
			pairs[k] = {u, random_below(u * POSITIVES_A_USER + k, 2, place + 1)};
		}
		check(learner_add_positives(m.learner, pairs, POSITIVES_A_USER, 0), "positives");
	}
	return m;
}

static void model_free(struct model *m)
{
	learner_free(m->learner);
	tables_free(&m->tables);
	free(m->user_ids);
	free(m->item_ids);
}

/* Triples a second, over whole jobs. */
static double train_rate(struct model *m, uint64_t triples)
{
	double rates[ROUNDS];
	for (int round = -1; round < ROUNDS; round++) {
		const struct train_job job = {.triples_max = triples, .budget_us = 0, .learning_rate = 0.02f};
		struct train_report report;
		const double begin = now_sec();
		check(learner_train(m->learner, &job, &report), "training");
		check(learner_wait(m->learner, &report), "training");
		if (round >= 0)
			rates[round] = static_cast<double>(report.triples + report.rejected) / (now_sec() - begin);
	}
	return median(rates, ROUNDS);
}

static void bench_train(uint32_t n_users, uint32_t n_items, uint32_t dim)
{
	static const struct {
		const char *name;
		int32_t precision, order;
		uint32_t hard_of; /* 0: none */
	} kinds[] = {
		{"fp32", PRECISION_FP32, ORDER_SHUFFLED, 0},
		{"fp32, grouped", PRECISION_FP32, ORDER_GROUPED, 0},
		{"fp32, hardest of 2", PRECISION_FP32, ORDER_SHUFFLED, 2},
		{"fp32, hardest of 4", PRECISION_FP32, ORDER_SHUFFLED, 4},
		{"bf16", PRECISION_BF16, ORDER_SHUFFLED, 0},
	};
	const struct limits limits = limits_of(dim, n_users + n_items);
	const double lower = limits.added < limits.written ? limits.added : limits.written;
	printf("  d = %u: rows are written at %.2f G/s (%.2f TB/s), added to at %.2f G/s (%.2f TB/s); the lower one is %.2f G triples/s\n", dim,
	       limits.written * 1e-9, limits.written * 2 * dim * sizeof(float) * 1e-12, limits.added * 1e-9, limits.added * 2 * dim * sizeof(float) * 1e-12,
	       lower / 3 * 1e-9);
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		struct learn_options options;
		learn_options_default(&options);
		options.emb_dim = dim;
		options.precision = kinds[k].precision;
		options.order = kinds[k].order;
		options.hard_share = kinds[k].hard_of ? 1.0f : 0.0f;
		options.hard_of = kinds[k].hard_of ? kinds[k].hard_of : options.hard_of;
		struct model m = model_new(n_users, n_items, &options);
		const double rate = train_rate(&m, tiny ? 500 : 200000000);
		printf("  train %-20s %9.1f M triples/s   %.2f of the limit by writing, %.2f by adding\n", kinds[k].name, rate * 1e-6,
		       rate * 3 / limits.written, rate * 3 / limits.added);
		model_free(&m);
	}
}

/* ---- batches ---- */

static void bench_personalize(struct model *m, uint32_t n)
{
	struct personalize_options options;
	size_t n_candidates;
	const uint32_t *candidates = learner_candidates(m->learner, &n_candidates);
	uint64_t *offsets = static_cast<uint64_t *>(take(n + 1, sizeof *offsets));
	uint32_t *positives = static_cast<uint32_t *>(take(static_cast<size_t>(n) * POSITIVES_A_USER, sizeof *positives));
	float *starts = static_cast<float *>(take(static_cast<size_t>(n) * DIM, sizeof *starts));
	float *rows = static_cast<float *>(take(static_cast<size_t>(n) * DIM, sizeof *rows));
	int *rcs = static_cast<int *>(take(n, sizeof *rcs));
	double rates[ROUNDS];
	personalize_options_default(&options);
	options.steps = tiny ? 3 : options.steps;
	for (uint32_t k = 0; k < n; k++) {
		offsets[k + 1] = offsets[k] + POSITIVES_A_USER;
		memcpy(starts + static_cast<size_t>(k) * DIM, m->tables.U + static_cast<size_t>(k % m->n_users) * DIM, DIM * sizeof *starts);
		for (uint32_t j = 0; j < POSITIVES_A_USER; j++)
			positives[offsets[k] + j] = random_below(k * POSITIVES_A_USER + j, 3, m->n_items);
	}
	const struct personalize_batch batch = {n, starts, offsets, positives, candidates, static_cast<uint32_t>(n_candidates), &options, NULL, rows, rcs, 0};
	for (int round = -1; round < ROUNDS; round++) {
		const double begin = now_sec();
		check(learner_personalize(m->learner, &m->tables, &batch), "personalizing");
		if (round >= 0)
			rates[round] = n / (now_sec() - begin);
	}
	printf("  personalize, %5u users a batch, %u steps of %u: %9.1f k users/s\n", n, options.steps, options.batch, median(rates, ROUNDS) * 1e-3);
	free(offsets);
	free(positives);
	free(starts);
	free(rows);
	free(rcs);
}

static void bench_topk(struct model *m, uint32_t n, uint32_t k)
{
	uint64_t *offsets = static_cast<uint64_t *>(take(n + 1, sizeof *offsets));
	float *rows = static_cast<float *>(take(static_cast<size_t>(n) * DIM, sizeof *rows));
	float *scores = static_cast<float *>(take(static_cast<size_t>(n) * k, sizeof *scores));
	uint32_t *items = static_cast<uint32_t *>(take(static_cast<size_t>(n) * k, sizeof *items)), nothing = 0;
	double rates[ROUNDS];
	for (uint32_t u = 0; u < n; u++)
		memcpy(rows + static_cast<size_t>(u) * DIM, m->tables.U + static_cast<size_t>(u % m->n_users) * DIM, DIM * sizeof *rows);
	const struct topk_batch batch = {n, k, rows, offsets, &nothing, items, scores};
	for (int round = -1; round < ROUNDS; round++) {
		const double begin = now_sec();
		check(learner_topk(m->learner, &m->tables, &batch), "ranking");
		if (round >= 0)
			rates[round] = n / (now_sec() - begin);
	}
	const double rate = median(rates, ROUNDS);
	printf("  top %4u of %u items, %5u users a batch: %9.1f k users/s, %.1f TFLOP/s\n", k, m->n_items, n, rate * 1e-3, rate * 2.0 * DIM * m->n_items * 1e-12);
	free(offsets);
	free(rows);
	free(scores);
	free(items);
}

static void bench_batches(uint32_t n_users, uint32_t n_items)
{
	struct learn_options options;
	struct train_report report;
	const struct train_job job = {.triples_max = tiny ? 500u : 20000000u, .budget_us = 0, .learning_rate = 0.02f};
	learn_options_default(&options);
	options.emb_dim = DIM;
	struct model m = model_new(n_users, n_items, &options);
	check(learner_train(m.learner, &job, &report), "training");
	check(learner_wait(m.learner, &report), "training");
	check(learner_pull(m.learner, &m.tables), "reading the tables back");
	for (uint32_t n = tiny ? 3 : 512; n <= (tiny ? 6u : 32768u); n *= tiny ? 2 : 8)
		bench_personalize(&m, n);
	for (uint32_t k : {10u, 50u, 1000u})
		bench_topk(&m, tiny ? 5 : 4096, k);
	model_free(&m);
}

int main(int argc, char **argv)
{
	char reason[256] = "";
	struct cudaDeviceProp properties;
	tiny = argc == 2 && strcmp(argv[1], "tiny") == 0;
	if (argc > 2 || (argc == 2 && !tiny)) {
		fprintf(stderr, "usage: bench_device [tiny]\n");
		return 2;
	}
	if (backend_cuda.probe(reason, sizeof reason) < 0) {
		printf("SKIP bench_device: %s\n", reason);
		return 0;
	}
	check_cuda(cudaGetDeviceProperties(&properties, 0), "the device's properties");
	printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
	for (int large = 0; large < 2; large++) {
		const uint32_t n_users = tiny ? (large ? 200 : 50) : large ? 1000000 : 30000, n_items = tiny ? (large ? 150 : 60) : large ? 100000 : 41000;
		printf("%u users x %u items, %u positives each\n", n_users, n_items, POSITIVES_A_USER);
		for (uint32_t dim : {16u, 64u, 128u})
			bench_train(n_users, n_items, dim);
		printf("  d = %u\n", DIM);
		bench_batches(n_users, n_items);
	}
	return 0;
}
