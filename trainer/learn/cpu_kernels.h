/*
 * cpu_kernels.h: the loops over parameter rows, one set per instruction level; internal to trainer/learn.
 *
 * Two kinds of rows. Working rows of the CPU backend have a stride that is a multiple of 16 floats, padded with zeros, on 64-byte boundaries. Rows of
 * struct tables have a stride of dim and any alignment.
 */
#ifndef TRAINER_LEARN_CPU_KERNELS_H
#define TRAINER_LEARN_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/learn/sampler.h"

/* What stands beside a working row. */
struct user_side {
	float acc;      /* row-wise Adagrad sum */
	uint32_t stamp; /* backend epoch of the last change */
};
struct item_side {
	float bias;
	float acc; /* of the row and its bias together */
};

/* Everything an update needs; read-only while threads run, but for the tables. */
struct row_update {
	float *U, *V;
	struct user_side *users;
	struct item_side *items;
	uint32_t dim, stride;
	uint32_t epoch;
	int adagrad;
	int32_t loss; /* enum loss */
	float rate;
	float reg_user, reg_pos, reg_neg, reg_bias;
	float norm_max;
	float per_user, per_item; /* 1 / dim, 1 / (dim + 1): an item's bias counts as a coordinate */
};

/* One thread's account of what it updated. */
struct update_sums {
	uint64_t triples;
	uint64_t rejected; /* no negative, or not finite */
	double loss;
	uint64_t loss_n;
	int nonfinite;
};
#define UPDATE_AHEAD 8u /* triples whose rows are under way from memory */
#define LOSS_EVERY 16u /* triples per one whose loss is sampled */

/* Begins to fetch a working row and what stands beside it. Always inlined: gcc takes a function that only prefetches for one without effect. */
static inline __attribute__((always_inline)) void cpu_fetch_row(const float *row, const void *side, size_t stride)
{
	for (size_t k = 0; k < stride; k += 16)
		__builtin_prefetch(row + k, 1, 3);
	__builtin_prefetch(side, 1, 3);
}

/* A (positive, negative) pair of one user, for personalization. */
struct item_pair {
	uint32_t pos;
	uint32_t neg;
};

/* Random blocks of PHILOX_RUN counters that follow each other: word k of block l is v[k][l]. */
#define PHILOX_RUN 16u
struct philox_many {
	uint32_t v[4][PHILOX_RUN];
};

struct row_kernels {
	const char *name;
	/* philox4x32(c0 + l, c1, c2, c3, k0, k1) for l in 0..PHILOX_RUN - 1. */
	void (*philox_run)(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, struct philox_many *ret_blocks);
	/*
	 * Hogwild: applies n triples one after the other, while other threads do the same to the same rows, without locks (see cpu_update.h). Asks for
	 * the rows of the triple UPDATE_AHEAD places on while it works; those past n are in ahead[n_ahead] (settled, for the next call; may be NULL
	 * when n_ahead is 0).
	 */
	void (*update)(const struct row_update *update, const struct draw *draws, size_t n, const struct draw *ahead, size_t n_ahead,
	               struct update_sums *sums);
	/* Hogwild: scores[i] = dot(U[user], V[items[i]]) + bias (cpu_rows_hard.h). Working rows. */
	void (*score_items)(const struct row_update *update, uint32_t user, const uint32_t *items, size_t n, float *scores);
	/* Copies rows between strides; the part of a wider target row is left as it is. Returns 1 when a value is not finite, else 0. */
	int (*copy_rows)(float *to, size_t to_stride, const float *from, size_t from_stride, size_t dim, size_t n_rows);
	/* scores[i] = dot(row, V[i]) + bu + bi[i] */
	void (*score)(const float *V, const float *bi, const float *row, float bu, size_t dim, size_t n_items, float *scores);
	/* Adds to gradient[dim] the BPR gradient of a user row over n pairs: sum of sigmoid(-x) (V[pos] - V[neg]). */
	void (*pairs_gradient)(const float *V, const float *bi, const float *row, size_t dim, const struct item_pair *pairs, size_t n,
	                       float *gradient);
	/*
	 * Logistic log likelihood at intercept b, up to rounding: the sum of ln sigmoid(sign[i] (x[i] + b)), sign +1 or -1; its derivative in b is added to
	 * *slope, minus the second derivative to *curve.
	 */
	double (*logit_sums)(const float *x, const float *sign, size_t n, float b, double *slope, double *curve);
	float (*dot)(const float *a, const float *b, size_t dim);
	/*
	 * Deterministic mode (cpu_rows_exact.h): the same bits at every level. Working rows.
	 *   exact_dot     dot(a, b - c), or dot(a, b) when c is NULL, in BPR_LANES partial sums: lane l takes the coordinates k with k % 16 = l in
	 *                 rising order by fused multiply-add; then lanes l and l + 8, l + 4, l + 2, l + 1 are added
	 *   exact_add     sums[k] += fixed(fma(z, a[k] - b[k], -(reg * w[k]))); b may be NULL
	 *   exact_add_two sums[k] += fixed(fma(z_pos, a[k], fma(-z_neg, b[k], -(reg * w[k])))): a user's row with two factors (BCE)
	 *   exact_apply   row += step * sums, *bias (NULL for users) likewise with sums[stride]; takes the step of bpr_step_scale()
	 */
	float (*exact_dot)(const float *a, const float *b, const float *c, size_t stride);
	void (*exact_add)(int64_t *sums, float z, const float *a, const float *b, float reg, const float *w, size_t stride);
	void (*exact_add_two)(int64_t *sums, float z_pos, float z_neg, const float *a, const float *b, float reg, const float *w, size_t stride);
	void (*exact_apply)(const struct row_update *update, const int64_t *sums, float *row, float *bias, float *acc);
};

/* The sets: cpu_level_*.c. */
extern const struct row_kernels row_kernels_plain;
#if defined(__x86_64__)
extern const struct row_kernels row_kernels_v3;
#endif
#if defined(__x86_64__) && !(defined(__SANITIZE_ADDRESS__) && defined(__GNUC__) && !defined(__clang__))
#define ROW_KERNELS_HAVE_V4 1
extern const struct row_kernels row_kernels_v4;
#else
#define ROW_KERNELS_HAVE_V4 0 /* gcc's ASan does not align 64-byte variables on the stack */
#endif
/* The best set this machine can run. */
const struct row_kernels *row_kernels_best(void);
/* Set number `level` (0: plain); NULL when there is none or the machine cannot run it. For tests. */
const struct row_kernels *row_kernels_at(int level);

#endif
