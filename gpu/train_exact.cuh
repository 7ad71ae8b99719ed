/*
 * train_exact.cuh: the deterministic mode's kernels: synchronous batches with the bits of cpu_deterministic.c, whatever the order in which lanes come.
 *
 * A batch is three launches. exact_draw: a lane draws a triple; 16 lanes then take its pulls and loss from the parameters as they stand, and list the rows it
 * touches, each once. exact_add: 16 lanes add a triple's gradients to the rows' sums, in fixed point. exact_apply: 16 lanes apply the sums of a row and clear
 * them. Sums of integers do not depend on their order; dot products go by BPR_LANES partial sums, one a lane, added up in the order of the host's. Which slot
 * a row gets is chance, and nothing depends on it.
 */
#ifndef GPU_TRAIN_EXACT_CUH
#define GPU_TRAIN_EXACT_CUH

#include "gpu/sample.cuh"

#define EXACT_LANES ((uint32_t)BPR_LANES)
#define EXACT_GROUPS (GPU_WARP / EXACT_LANES)
#define EXACT_BLOCK 256u
/* As a triple's loss: it moves nothing. */
#define EXACT_NO_NEGATIVE (-1.0f)
#define EXACT_NOT_FINITE (-2.0f)

struct exact_triple {
	uint32_t user, pos, neg;
	float pull_pos, pull_neg; /* bpr_math.h */
	float loss;
};

/* A row that the batch touches; its place in the list, plus 1, is its slot. */
struct exact_row {
	uint32_t row;
	uint32_t is_item;
};

/* What the launches of a batch get. */
struct exact_view {
	struct tables_view tables;
	struct set_view set;
	struct plan_view plan;
	struct span_view span; /* the batch */
	struct update_view update;
	struct job_sums *sums;
	struct exact_triple *triples;        /* [span.n] */
	uint32_t *user_slots, *item_slots;   /* [n_users], [n_items]; 0: not touched; between batches all are 0 */
	struct exact_row *rows;              /* room for all that a batch can touch */
	unsigned long long *row_sums;        /* [rows, width + 1]: a row's gradient and its bias'; between batches all are 0 */
	uint32_t *n_rows;                    /* [2], used in turn: exact_apply clears the next batch's */
	uint32_t parity;
	uint32_t width; /* dim rounded up to BPR_LANES: beyond it rows are zero */
};

GPU_FN const float *exact_user(const struct exact_view *v, uint32_t user)
{
	return static_cast<const float *>(v->tables.U) + (size_t)user * v->tables.stride;
}

GPU_FN const float *exact_item(const struct exact_view *v, uint32_t item)
{
	return static_cast<const float *>(v->tables.V) + (size_t)item * v->tables.stride;
}

/* The partial sums of a group in the host's order: lanes l and l + 8, l + 4, l + 2, l + 1. Each lane gets the same bits, since a + b is b + a. */
GPU_FN float exact_fold(float v)
{
#pragma unroll
	for (uint32_t width = EXACT_LANES / 2; width > 0; width /= 2)
		v += __shfl_xor_sync(GPU_ALL_LANES, v, (int)width, (int)EXACT_LANES);
	return v;
}

/* This lane's part of dot(a, b - c), or of dot(a, b) when c is NULL. */
GPU_FN float exact_part(const struct exact_view *v, const float *a, const float *b, const float *c, uint32_t sub)
{
	float sum = 0.0f;
	for (uint32_t k = sub; k < v->width; k += EXACT_LANES)
		sum = BPR_FMA(a[k], c ? b[k] - c[k] : b[k], sum);
	return sum;
}

/* The highest scored candidate of a group's draw that is no positive, or SAMPLE_NONE. All lanes of the warp come here together; hard: is there one? */
GPU_FN uint32_t exact_hardest(const struct exact_view *v, const struct draw *draw, int hard, uint32_t sub)
{
	float best = -INFINITY;
	uint32_t chosen = SAMPLE_NONE;
	for (uint32_t first = 0; first < v->plan.hard_of; first += EXACT_LANES) {
		/* redundant: nobody asks the lanes behind the last candidate */
		uint32_t mine = hard && first + sub < v->plan.hard_of ? sample_hard(&v->set, &v->plan, draw, first + sub) : SAMPLE_NONE;
		/* redundant: past either bound stands a candidate that was scored, or none, and neither wins */
		for (uint32_t j = 0; j < EXACT_LANES && first + j < v->plan.hard_of; j++) {
			uint32_t item = __shfl_sync(GPU_ALL_LANES, mine, (int)j, (int)EXACT_LANES);
			int is_one = item != SAMPLE_NONE;
			float part = is_one ? exact_part(v, exact_user(v, draw->user), exact_item(v, item), NULL, sub) : 0.0f;
			float score = exact_fold(part) + (is_one ? v->tables.items[item].bias : 0.0f);
			if (is_one && score > best) {
				best = score;
				chosen = item;
			}
		}
	}
	return chosen;
}

/* Chooses the negatives of the warp's hard draws; each lane has its own draw, and group g takes those of its own lanes in turn. */
GPU_FN void exact_choose(const struct exact_view *v, struct draw *draw, int there, uint32_t lane)
{
	int hard = there && draw->kind == NEGATIVE_HARD;
	uint32_t sub = lane % EXACT_LANES, found = SAMPLE_NONE;
	for (uint32_t step = 0; step < EXACT_LANES; step++) {
		struct draw one = {};
		int group_hard = __shfl_sync(GPU_ALL_LANES, hard, (int)step, (int)EXACT_LANES);
		one.user = __shfl_sync(GPU_ALL_LANES, draw->user, (int)step, (int)EXACT_LANES);
		one.neg = __shfl_sync(GPU_ALL_LANES, draw->neg, (int)step, (int)EXACT_LANES);
		one.index = __shfl_sync(GPU_ALL_LANES, draw->index, (int)step, (int)EXACT_LANES);
		one.step = __shfl_sync(GPU_ALL_LANES, draw->step, (int)step, (int)EXACT_LANES);
		uint32_t chosen = exact_hardest(v, &one, group_hard, sub);
		if (step == sub)
			found = chosen;
	}
	if (hard)
		draw->neg = found != SAMPLE_NONE ? found : sample_redraw(&v->set, &v->plan, draw);
}

/* Pulls and loss of a triple by the lanes of a group; t->neg is not SAMPLE_NONE where `there`. */
GPU_FN void exact_weigh(const struct exact_view *v, int there, float weight, uint32_t sub, struct exact_triple *t)
{
	float pos = 0.0f, neg = 0.0f, bias_pos = 0.0f, bias_neg = 0.0f;
	int bce = v->update.loss == LOSS_BCE;
	if (there) {
		const float *u = exact_user(v, t->user), *p = exact_item(v, t->pos), *n = exact_item(v, t->neg);
		pos = exact_part(v, u, p, bce ? NULL : n, sub);
		neg = bce ? exact_part(v, u, n, NULL, sub) : 0.0f;
		bias_pos = v->tables.items[t->pos].bias;
		bias_neg = v->tables.items[t->neg].bias;
	}
	pos = exact_fold(pos);
	neg = exact_fold(neg);
	if (bce) {
		float x_pos = pos + bias_pos, x_neg = neg + bias_neg;
		int finite = bpr_is_finite(x_pos) && bpr_is_finite(x_neg);
		t->loss = finite ? 0.5f * (bpr_softplus(-x_pos) + bpr_softplus(x_neg)) : EXACT_NOT_FINITE;
		t->pull_pos = weight * bpr_sigmoid(-x_pos);
		t->pull_neg = weight * bpr_sigmoid(x_neg);
	} else {
		float x = pos + (bias_pos - bias_neg);
		t->loss = bpr_is_finite(x) ? bpr_softplus(-x) : EXACT_NOT_FINITE;
		t->pull_pos = t->pull_neg = weight * bpr_sigmoid(-x);
	}
	if (!there)
		t->loss = EXACT_NO_NEGATIVE;
}

/* Lists the row unless the batch has it already. Its slot is read by later launches only. */
GPU_FN void exact_touch(const struct exact_view *v, uint32_t *slot, uint32_t row, uint32_t is_item)
{
	if (atomicCAS(slot, 0u, 1u) != 0)
		return;
	uint32_t place = atomicAdd(&v->n_rows[v->parity], 1u);
	v->rows[place].row = row;
	v->rows[place].is_item = is_item;
	gpu_store_u32(slot, place + 1);
}

/* A warp for 32 draws. */
static __global__ void __launch_bounds__(EXACT_BLOCK) exact_draw(struct exact_view v)
{
	uint32_t lane = threadIdx.x % GPU_WARP, sub = lane % EXACT_LANES;
	uint32_t base = (blockIdx.x * (blockDim.x / GPU_WARP) + threadIdx.x / GPU_WARP) * GPU_WARP;
	if (base >= v.span.n) /* redundant: a warp behind the span has no draw and stores nothing */
		return;
	int there = base + lane < v.span.n;
	struct draw draw = {};
	draw.neg = SAMPLE_NONE;
	if (there)
		draw = sample_draw(&v.set, &v.plan, &v.span, base + lane);
	if (sample_has_hard(&v.plan))
		exact_choose(&v, &draw, there, lane);
	for (uint32_t step = 0; step < EXACT_LANES; step++) {
		uint32_t at = base + lane / EXACT_LANES * EXACT_LANES + step;
		struct exact_triple t = {};
		t.user = __shfl_sync(GPU_ALL_LANES, draw.user, (int)step, (int)EXACT_LANES);
		t.pos = __shfl_sync(GPU_ALL_LANES, draw.pos, (int)step, (int)EXACT_LANES);
		t.neg = __shfl_sync(GPU_ALL_LANES, draw.neg, (int)step, (int)EXACT_LANES);
		float weight = __shfl_sync(GPU_ALL_LANES, draw.weight, (int)step, (int)EXACT_LANES);
		exact_weigh(&v, t.neg != SAMPLE_NONE, weight, sub, &t);
		if (at < v.span.n && sub == 0)
			v.triples[at] = t;
		if (t.loss >= 0.0f && sub < 3) { /* redundant: other lanes would find the negative listed */
			uint32_t row = sub == 0 ? t.user : sub == 1 ? t.pos : t.neg;
			exact_touch(&v, sub == 0 ? &v.user_slots[row] : &v.item_slots[row], row, sub != 0);
		}
	}
}

GPU_FN void exact_sum(unsigned long long *sum, float gradient)
{
	(void)atomicAdd(sum, (unsigned long long)bpr_to_fixed(gradient));
}

/* 16 lanes for a triple. */
static __global__ void __launch_bounds__(EXACT_BLOCK) exact_add(struct exact_view v)
{
	uint32_t sub = threadIdx.x % EXACT_LANES, at = (blockIdx.x * blockDim.x + threadIdx.x) / EXACT_LANES;
	if (at >= v.span.n || v.triples[at].loss < 0.0f)
		return;
	const struct exact_triple t = v.triples[at];
	const struct update_view *c = &v.update;
	const float *u = exact_user(&v, t.user), *p = exact_item(&v, t.pos), *n = exact_item(&v, t.neg);
	size_t row_size = v.width + 1u;
	unsigned long long *user = v.row_sums + (v.user_slots[t.user] - 1) * row_size;
	unsigned long long *pos = v.row_sums + (v.item_slots[t.pos] - 1) * row_size, *neg = v.row_sums + (v.item_slots[t.neg] - 1) * row_size;
	for (uint32_t k = sub; k < v.width; k += EXACT_LANES) {
		float gradient = bpr_gradient_user(t.pull_pos, u[k], p[k], n[k], c->reg_user);
		if (c->loss == LOSS_BCE)
			gradient = bpr_gradient_user_two(t.pull_pos, t.pull_neg, u[k], p[k], n[k], c->reg_user);
		exact_sum(&user[k], gradient);
		exact_sum(&pos[k], bpr_gradient_pos(t.pull_pos, u[k], p[k], c->reg_pos));
		exact_sum(&neg[k], bpr_gradient_neg(t.pull_neg, u[k], n[k], c->reg_neg));
	}
	if (sub == 0)
		exact_sum(&pos[v.width], BPR_FMA(-c->reg_bias, v.tables.items[t.pos].bias, t.pull_pos));
	if (sub == 1)
		exact_sum(&neg[v.width], BPR_FMA(-c->reg_bias, v.tables.items[t.neg].bias, -t.pull_neg));
}

/* Moves a row by its sums, and clears them. All lanes of the warp come here together; there: the group has a row. */
GPU_FN void exact_move(const struct exact_view *v, int there, const struct exact_row *touched, unsigned long long *sums, uint32_t sub)
{
	const struct update_view *c = &v->update;
	float *row = NULL, *acc_at = NULL, acc = 0.0f, part = 0.0f, gradient_bias = 0.0f;
	if (there) {
		row = const_cast<float *>(touched->is_item ? exact_item(v, touched->row) : exact_user(v, touched->row));
		acc_at = touched->is_item ? &v->tables.items[touched->row].acc : &v->tables.users[touched->row].acc;
		acc = *acc_at;
		gradient_bias = touched->is_item ? bpr_from_fixed((int64_t)sums[v->width]) : 0.0f;
		for (uint32_t k = sub; k < v->width; k += EXACT_LANES) {
			float gradient = bpr_from_fixed((int64_t)sums[k]);
			part = BPR_FMA(gradient, gradient, part);
		}
	}
	float norm2 = BPR_FMA(gradient_bias, gradient_bias, exact_fold(part));
	__syncwarp(); /* all have read what the first lane of the group writes */
	if (!there)
		return;
	float step = bpr_step_scale(c->rate, norm2, touched->is_item ? c->per_item : c->per_user, c->norm_max, c->adagrad ? &acc : NULL);
	for (uint32_t k = sub; k < v->width; k += EXACT_LANES) {
		row[k] = BPR_FMA(step, bpr_from_fixed((int64_t)sums[k]), row[k]);
		sums[k] = 0;
	}
	if (sub != 0)
		return;
	*acc_at = acc;
	sums[v->width] = 0;
	if (touched->is_item) {
		float *bias = &v->tables.items[touched->row].bias;
		*bias = BPR_FMA(step, gradient_bias, *bias);
		v->item_slots[touched->row] = 0;
	} else {
		v->tables.users[touched->row].stamp = c->epoch;
		v->user_slots[touched->row] = 0;
	}
}

/* The report, by one warp. The host adds the losses one by one in the order of the draws, and so does this: other blocks have rows to move meanwhile. */
GPU_FN void exact_count(const struct exact_view *v, uint32_t lane)
{
	struct job_sums *sums = v->sums;
	double loss = lane == 0 ? sums->loss : 0.0; /* his alone counts */
	uint32_t triples = 0, nonfinite = 0;
	for (uint32_t base = 0; base < v->span.n; base += GPU_WARP) {
		float mine = base + lane < v->span.n ? v->triples[base + lane].loss : EXACT_NO_NEGATIVE;
		triples += (uint32_t)__popc(__ballot_sync(GPU_ALL_LANES, mine >= 0.0f));
		nonfinite |= (uint32_t)__any_sync(GPU_ALL_LANES, mine == EXACT_NOT_FINITE);
#pragma unroll
		for (int j = 0; j < (int)GPU_WARP; j++)
			loss += (double)fmaxf(__shfl_sync(GPU_ALL_LANES, mine, j), 0.0f);
	}
	if (lane != 0)
		return;
	sums->loss = loss;
	sums->loss_n += triples;
	sums->triples += triples;
	sums->rejected += v->span.n - triples;
	sums->nonfinite |= nonfinite;
	v->n_rows[v->parity ^ 1u] = 0;
}

/* 16 lanes for a row, striding over the list; the last block counts instead. */
static __global__ void __launch_bounds__(EXACT_BLOCK) exact_apply(struct exact_view v)
{
	uint32_t sub = threadIdx.x % EXACT_LANES, groups_here = blockDim.x / EXACT_LANES, n = v.n_rows[v.parity];
	if (blockIdx.x + 1 == gridDim.x) {
		if (threadIdx.x < GPU_WARP) /* redundant: of the block's threads the first alone writes */
			exact_count(&v, threadIdx.x);
		return;
	}
	uint32_t stride = (gridDim.x - 1) * groups_here;
	for (uint32_t first = blockIdx.x * groups_here; first < n; first += stride) {
		uint32_t at = first + threadIdx.x / EXACT_LANES;
		struct exact_row touched = {};
		if (at < n)
			touched = v.rows[at];
		exact_move(&v, at < n, &touched, v.row_sums + (size_t)at * (v.width + 1u), sub);
	}
}

#endif
