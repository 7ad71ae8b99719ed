/*
 * bench_topk: microseconds to find the 50 best of 100,000 items at 64 dimensions, beside the time one core needs to read the same table once, measured in
 * the same run and in turn with it. Also the plain loop that a compiler makes of the formula, and other sizes. Prints figures, asserts nothing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "trainer/model/topk.h"

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static uint64_t rng = 1234567;

static float uniform(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (float)(rng >> 40) / 16777216.0f - 0.5f;
}

typedef uint64_t lanes __attribute__((vector_size(64), aligned(4), may_alias));

/* Reads every byte once; what the memory gives to one core. */
static inline __attribute__((always_inline)) uint64_t read_all(const float *V, size_t n)
{
	lanes a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
	uint64_t sum = 0;

	for (size_t i = 0; i + 64 <= n; i += 64) {
		a ^= *(const lanes *)(V + i);
		b ^= *(const lanes *)(V + i + 16);
		c ^= *(const lanes *)(V + i + 32);
		d ^= *(const lanes *)(V + i + 48);
	}
	a ^= b ^ c ^ d;
	for (int i = 0; i < 8; i++)
		sum ^= a[i];
	return sum;
}

typedef uint64_t (*read_fn)(const float *V, size_t n);

static uint64_t read_baseline(const float *V, size_t n)
{
	return read_all(V, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const float *V, size_t n)
{
	return read_all(V, n);
}

__attribute__((target("avx512f,avx2"))) static uint64_t read_avx512(const float *V, size_t n)
{
	return read_all(V, n);
}
#endif

static read_fn choose_read(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		return read_avx512;
	if (__builtin_cpu_supports("avx2"))
		return read_avx2;
#endif
	return read_baseline;
}

static void score_plain(const struct tables *tables, const float *row, float *scores)
{
	for (uint32_t i = 0; i < tables->n_items; i++) {
		float sum = tables->bi[i];

		for (uint32_t d = 0; d < tables->dim; d++)
			sum += row[d] * tables->V[(size_t)i * tables->dim + d];
		scores[i] = sum;
	}
}

static void keep_best(double *best, double value)
{
	if (value < *best)
		*best = value;
}

static int run(uint32_t n_items, uint32_t dim, uint32_t k, int rounds)
{
	size_t cells = (size_t)n_items * dim, bytes = cells * sizeof(float);
	struct tables tables = { .n_items = n_items, .dim = dim };
	float *V = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	float *bi = malloc(n_items * sizeof(*bi)), *scores = malloc(n_items * sizeof(*scores)), *row = malloc(dim * sizeof(*row));
	struct ranked_item *top = malloc(k * sizeof(*top));
	struct query_scratch scratch = { 0 };
	double read_us = 1e12, scan_us = 1e12, plain_us = 1e12;
	volatile uint64_t sink = 0;
	read_fn read = choose_read();
	int rc = -1;

	if (V == MAP_FAILED || !bi || !scores || !row || !top)
		goto out;
	madvise(V, bytes, MADV_HUGEPAGE);
	tables.V = V;
	tables.bi = bi;
	for (size_t i = 0; i < cells; i++)
		V[i] = uniform();
	for (uint32_t i = 0; i < n_items; i++)
		bi[i] = uniform();
	for (int round = 0; round < rounds; round++) {
		for (uint32_t d = 0; d < dim; d++)
			row[d] = uniform();
		double t0 = now_us();
		sink ^= read(V, cells);
		double t1 = now_us();
		sink ^= topk_scan(&tables, row, 0, NULL, 0, k, &scratch, top);
		double t2 = now_us();
		if (round % 8 == 0)
			score_plain(&tables, row, scores);
		double t3 = now_us();
		keep_best(&read_us, t1 - t0);
		keep_best(&scan_us, t2 - t1);
		if (round % 8 == 0)
			keep_best(&plain_us, t3 - t2);
		sink ^= (uint64_t)(scores[0] > 0);
	}
	printf("%8u x %3u, k %4u: top-K %8.0f us (%5.1f GB/s), reading the table %8.0f us (%5.1f GB/s), ratio %.2f; plain loop %.0f us\n", n_items, dim, k,
	       scan_us, (double)bytes / scan_us / 1e3, read_us, (double)bytes / read_us / 1e3, scan_us / read_us, plain_us);
	rc = 0;
out:
	query_scratch_free(&scratch);
	if (V != MAP_FAILED)
		munmap(V, bytes);
	free(bi);
	free(scores);
	free(row);
	free(top);
	return rc;
}

int main(void)
{
	printf("best of the rounds, one core\n");
	if (run(100000, 64, 50, 200) || run(100000, 64, 1000, 100) || run(10000, 64, 50, 500) || run(100000, 32, 50, 200) || run(100000, 100, 50, 100) ||
	    run(1000000, 64, 50, 20)) {
		fprintf(stderr, "bench_topk: out of memory\n");
		return 1;
	}
	return 0;
}
