/*
 * view.cuh: what kernels see: plain structs of device pointers and numbers, passed by value. The host side fills them anew for each launch.
 */
#ifndef GPU_VIEW_CUH
#define GPU_VIEW_CUH

#include <stdint.h>

#include "trainer/learn/sampler.h"

#define GPU_SKIPS_MAX 64u /* skips kept for a user, as many as the host's sampler looks at */

struct gpu_user_side {
	float acc;      /* row-wise Adagrad sum */
	uint32_t stamp; /* the pull epoch of the row's last change */
};

struct gpu_item_side {
	float bias;
	float acc;
};

/* Rows of `stride` elements (float, or bf16 as uint16_t); beyond dim they are zero. Row r begins at r * stride. */
struct tables_view {
	void *U, *V;
	struct gpu_user_side *users;
	struct gpu_item_side *items;
	uint32_t n_users, n_items;
	uint32_t dim, stride;
};

/* The training set's mirror. slots and filter: pair_set.cuh answers from them. */
struct set_view {
	const struct user_item *positives; /* [n_positives], in the host's order */
	const float *weights;              /* [n_positives] log2, or NULL: all the same (sampler.h) */
	uint64_t n_positives;
	const uint64_t *slots;  /* [mask + 1] */
	const uint64_t *filter; /* [(mask + 1) / 8] */
	uint64_t mask;
	const uint32_t *user_positives;  /* [n_users] */
	const uint32_t *candidates;      /* [n_candidates] */
	uint32_t n_candidates;
	uint32_t n_users, n_items;
	const uint32_t *alias_below, *alias_other; /* [n_candidates], or NULL */
	const struct recent_positive *recent;      /* [n_recent], oldest first */
	uint32_t n_recent;
	/* Skips, NULL for none: rows of GPU_SKIPS_MAX, of which n_skips[user] are in use; or, with skip_offsets, lists of any length, of users below skip_users. */
	const uint32_t *skips;        /* [n_users, GPU_SKIPS_MAX] or [skip_offsets[skip_users]] */
	const uint32_t *n_skips;      /* [n_users] */
	const uint64_t *skip_offsets; /* [skip_users + 1], or NULL */
	uint32_t skip_users;
};

/* struct draw_plan without the host's pointers, and without the places that struct span_view has. */
struct plan_view {
	uint64_t seed;
	uint32_t batch, recent_per_step;
	uint64_t skip_below, popular_below, hard_below;
	uint32_t hard_of;
	float weight_log2; /* log2 of the mean weight */
};

#define SPAN_MAX (1u << 30) /* draws of a span: places relative to its first step then fit into 32 bits */

/* Draws of a job that follow each other, and the places of the first one's step, worked out on the host once: no lane divides 64-bit numbers. */
struct span_view {
	uint64_t step;         /* of draw 0 */
	uint64_t walk;         /* of that step's first walked draw; below n_positives */
	uint64_t recent_round; /* rounds of the ring that ended before that step */
	uint32_t recent_place; /* in the ring, of that step's first draw */
	uint32_t index;        /* of draw 0 in its step */
	uint32_t n;            /* draws, at most SPAN_MAX */
};

/* How a job moves rows. */
struct update_view {
	int32_t loss;    /* enum loss */
	int32_t adagrad; /* 0: plain SGD */
	float rate;
	float reg_user, reg_pos, reg_neg, reg_bias;
	float norm_max;
	float per_user, per_item; /* 1 / dim, 1 / (dim + 1) */
	uint32_t epoch;           /* stamp for the user rows that move */
};

/* What a job adds up on the device; zeroed before it. */
struct job_sums {
	unsigned long long triples, rejected;
	unsigned long long loss_n;
	double loss;
	uint32_t nonfinite;
	uint32_t reserved;
};

#endif
