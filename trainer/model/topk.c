/*
 * topk.c: the K best items for one row, by a scan of all of V.
 *
 * V is contiguous, so the scan runs at the memory's speed when the arithmetic keeps up: items are scored in blocks of 256, four rows at a time with
 * 16-lane accumulators, written once with the compilers' vector types and compiled for three instruction sets (AVX-512, AVX2, what the
 * build's baseline has); the first call picks one. Selection is a running threshold: a score enters the heap of the K best only when it is above
 * the worst of them, which after the first few blocks is rare, so that a block costs little more than its comparison with the threshold.
 *
 * Any thread; no state, no allocation. Sums are taken in another order on each instruction set, so that the last bits of a score may
 * differ between machines. A score that is not a number, or minus infinity, is never returned.
 */
#include "trainer/model/topk.h"

#include <math.h>
#include <string.h>

#define BLOCK 256
#define LANES 16

typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_loose __attribute__((vector_size(16), aligned(4), may_alias));

#define HALF_16(v) (__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15))
#define HALF_8(v) (__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7))

/* scores[j] = dot(row, V[j]) for j in 0..3; V [4, dim]. */
static inline __attribute__((always_inline)) void score_four(const float *V, size_t dim, const float *row, float *scores)
{
	const float *r0 = V, *r1 = V + dim, *r2 = V + 2 * dim, *r3 = V + 3 * dim;
	vec16 a0 = { 0 }, a1 = { 0 }, a2 = { 0 }, a3 = { 0 };
	size_t d = 0;

	for (; d + LANES <= dim; d += LANES) {
		vec16 u = *(const vec16 *)(row + d);

		a0 += u * *(const vec16 *)(r0 + d);
		a1 += u * *(const vec16 *)(r1 + d);
		a2 += u * *(const vec16 *)(r2 + d);
		a3 += u * *(const vec16 *)(r3 + d);
	}
	vec8 b0 = HALF_16(a0), b1 = HALF_16(a1), b2 = HALF_16(a2), b3 = HALF_16(a3);
	vec4 c0 = HALF_8(b0), c1 = HALF_8(b1), c2 = HALF_8(b2), c3 = HALF_8(b3);
	for (; d + 4 <= dim; d += 4) {
		vec4 u = *(const vec4_loose *)(row + d);

		c0 += u * *(const vec4_loose *)(r0 + d);
		c1 += u * *(const vec4_loose *)(r1 + d);
		c2 += u * *(const vec4_loose *)(r2 + d);
		c3 += u * *(const vec4_loose *)(r3 + d);
	}
	/* transpose and add: four sums of four lanes become one vector of four sums */
	vec4 t0 = __builtin_shufflevector(c0, c1, 0, 4, 1, 5) + __builtin_shufflevector(c0, c1, 2, 6, 3, 7);
	vec4 t1 = __builtin_shufflevector(c2, c3, 0, 4, 1, 5) + __builtin_shufflevector(c2, c3, 2, 6, 3, 7);
	vec4 sums = __builtin_shufflevector(t0, t1, 0, 1, 4, 5) + __builtin_shufflevector(t0, t1, 2, 3, 6, 7);
	for (; d < dim; d++) {
		vec4 column = { r0[d], r1[d], r2[d], r3[d] };

		sums += row[d] * column;
	}
	memcpy(scores, &sums, sizeof(sums));
}

/* scores[j] = dot(row, V[j]) + bi[j] for j in 0..n-1; V [n, dim], bi [n]. */
static inline __attribute__((always_inline)) void score_block(const float *V, const float *bi, size_t dim, size_t n, const float *row, float *scores)
{
	size_t j = 0;

	for (; j + 4 <= n; j += 4)
		score_four(V + j * dim, dim, row, scores + j);
	for (; j < n; j++) {
		float sum = 0;

		for (size_t d = 0; d < dim; d++)
			sum += row[d] * V[j * dim + d];
		scores[j] = sum;
	}
	for (j = 0; j < n; j++)
		scores[j] += bi[j];
}

typedef void (*score_block_fn)(const float *V, const float *bi, size_t dim, size_t n, const float *row, float *scores);

static void score_block_baseline(const float *V, const float *bi, size_t dim, size_t n, const float *row, float *scores)
{
	score_block(V, bi, dim, n, row, scores);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void score_block_avx2(const float *V, const float *bi, size_t dim, size_t n, const float *row, float *scores)
{
	score_block(V, bi, dim, n, row, scores);
}

__attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma"))) static void score_block_avx512(const float *V, const float *bi, size_t dim, size_t n,
                                                                                      const float *row, float *scores)
{
	score_block(V, bi, dim, n, row, scores);
}
#endif

static score_block_fn choose_score_block(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
	    __builtin_cpu_supports("fma"))
		return score_block_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return score_block_avx2;
#endif
	return score_block_baseline;
}

/* Whether a ranks below b: lower score, or the same and a higher index. */
static inline int ranks_below(const struct ranked_item *a, const struct ranked_item *b)
{
	return a->score < b->score || (a->score == b->score && a->item > b->item);
}

/* heap[0] is the worst. Moves heap[at] down to its place. */
static void sift_down(struct ranked_item *heap, size_t n, size_t at)
{
	struct ranked_item moving = heap[at];

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= n)
			break;
		if (child + 1 < n && ranks_below(&heap[child + 1], &heap[child]))
			child++;
		if (!ranks_below(&heap[child], &moving))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moving;
}

/* Enters an item that is above the threshold. Items come in ascending index, so an equal score never wins against one that is in. */
static void keep_item(struct topk *topk, uint32_t item, float score)
{
	struct ranked_item entry = { item, score, 0 };

	if (topk->n < topk->k) {
		topk->heap[topk->n++] = entry;
		if (topk->n < topk->k)
			return;
		for (size_t at = topk->k / 2; at-- > 0;)
			sift_down(topk->heap, topk->k, at);
	} else {
		topk->heap[0] = entry;
		sift_down(topk->heap, topk->k, 0);
	}
	topk->threshold = topk->heap[0].score;
}

void topk_begin(struct topk *topk, const uint32_t *masked, size_t n_masked, uint32_t k, struct ranked_item *ret_items)
{
	/* with k = 0 nothing is above the threshold */
	*topk = (struct topk){ .heap = ret_items, .k = k, .threshold = k ? -INFINITY : INFINITY, .masked = masked, .n_masked = n_masked };
}

void topk_offer(struct topk *topk, float *scores, size_t n, uint32_t first)
{
	while (topk->n_masked && topk->masked[0] < first + n) {
		if (topk->masked[0] >= first)
			scores[topk->masked[0] - first] = -INFINITY;
		topk->masked++;
		topk->n_masked--;
	}
	for (size_t j = 0; j < n; j += LANES) {
		size_t end = j + LANES < n ? j + LANES : n;
		float threshold = topk->threshold;
		int above = 0;

		for (size_t i = j; i < end; i++)
			above |= scores[i] > threshold;
		if (!above)
			continue;
		for (size_t i = j; i < end; i++) {
			if (scores[i] > topk->threshold)
				keep_item(topk, first + (uint32_t)i, scores[i]);
		}
	}
}

size_t topk_end(struct topk *topk)
{
	struct ranked_item *heap = topk->heap;
	size_t n = topk->n;

	if (n < topk->k) { /* never filled: not a heap yet */
		for (size_t at = n / 2; at-- > 0;)
			sift_down(heap, n, at);
	}
	for (size_t left = n; left > 1; left--) { /* the worst goes to the end */
		struct ranked_item worst = heap[0];

		heap[0] = heap[left - 1];
		heap[left - 1] = worst;
		sift_down(heap, left - 1, 0);
	}
	return n;
}

size_t topk_scan(const struct tables *tables, const float *row, float bu, const uint32_t *masked, size_t n_masked, uint32_t k,
                 struct query_scratch *scratch, struct ranked_item *ret_items)
{
	score_block_fn score = choose_score_block();
	float scores[BLOCK];
	struct topk topk;

	(void)scratch; /* the heap lies in ret_items and a block of scores on the stack */
	topk_begin(&topk, masked, n_masked, k, ret_items);
	for (uint32_t first = 0; first < tables->n_items; first += BLOCK) {
		uint32_t n = tables->n_items - first < BLOCK ? tables->n_items - first : BLOCK;

		score(tables->V + (size_t)first * tables->dim, tables->bi + first, tables->dim, n, row, scores);
		topk_offer(&topk, scores, n, first);
	}
	size_t n = topk_end(&topk);
	for (size_t i = 0; i < n; i++) {
		ret_items[i].score += bu; /* the same for every item: it moves conf, never the order */
		ret_items[i].conf = 1.0f / (1.0f + expf(-ret_items[i].score));
	}
	return n;
}
