/*
 * train_fast.cuh: Hogwild training on the device (Niu et al., NIPS 2011): the draws of a span, many at a time, in no order.
 *
 * A warp takes 32 draws, one a lane. Then its lanes join in groups (rows.cuh), and each group works through its share of the 32 triples, one after the other:
 * the rows of the next triple are asked for before the present one is worked on. Groups take draws whose numbers differ by GROUP_USERS, four in a row, since
 * in the grouped order of the positives these share their user (sampler.h): his row then stays in registers, and what he gained is added to memory once.
 *
 * Race model: rows, biases and Adagrad sums change by single atomic additions, so no update is lost; reads take what stands there, up to the number of
 * triples in flight old. The Adagrad addition gives back the sum, so of many groups that pull at one row at once each takes its own, smaller step. A row may
 * be read while part of it has been added to: noise that SGD bears. The host keeps the number in flight below what the tables bear (train.cu).
 */
#ifndef GPU_TRAIN_FAST_CUH
#define GPU_TRAIN_FAST_CUH

#include "gpu/rows.cuh"
#include "gpu/sample.cuh"
#include "trainer/learn/bpr_math.h"

#define FAST_BLOCK 128u     /* threads of a block at most */
#define FAST_LOSS_EVERY 16u /* draws per one whose loss is sampled */
#define FAST_NOBODY UINT32_MAX

/* Blocks on a multiprocessor at a time: registers for the rows decide (docs/GPU.md). */
constexpr uint32_t fast_blocks(uint32_t stride)
{
	return stride <= 128u ? 5u : stride == 256u ? 4u : 2u;
}

/* What a launch gets. */
struct fast_view {
	struct tables_view tables;
	struct set_view set;
	struct plan_view plan;
	struct span_view span;
	struct update_view update;
	struct job_sums *sums;
	uint32_t salt; /* bf16: of the random numbers that round; goes on from launch to launch */
};

/* Sums of the row products of a triple; d is pos - neg. */
struct fast_dots {
	float ud, uu, up, dd, pp, nn;
};

/* A triple under way in a group. user is FAST_NOBODY when there is nothing to do. */
template <uint32_t STRIDE> struct fast_triple {
	uint32_t user, pos, neg;
	float weight;
	float bias; /* lane 1: of pos, lane 2: of neg */
	row_part<row_shape<STRIDE>::quads> user_row, pos_row, neg_row;
};

/* A user's row in a group's registers. */
template <uint32_t STRIDE> struct fast_user {
	uint32_t user;
	row_part<row_shape<STRIDE>::quads> was, row; /* as read, and now */
};

/* Candidates of a hard draw under way in a group, as many at a time as there are registers for. */
template <uint32_t STRIDE> struct fast_contest {
	static constexpr uint32_t n = STRIDE <= 128u ? 4u : 2u;
	int any;           /* 0: no group of the warp has a hard draw at this step, and nothing below is set */
	uint32_t items[n]; /* SAMPLE_NONE: none */
	float bias;        /* lane k: of item k */
	row_part<row_shape<STRIDE>::quads> user_row, rows[n];
};

/* One lane's account. What is rejected is rare, and counted at once. */
struct fast_account {
	uint32_t triples, loss_n;
	float loss; /* of the few draws that a lane samples in a launch */
};

/* How far a triple pulls at its two items (bpr_math.h). */
struct fast_pull {
	float pos, neg;
	int finite;
};

/* Which of the warp's draws a group takes at its step. */
template <uint32_t STRIDE> GPU_FN uint32_t fast_turn(uint32_t group, uint32_t step)
{
	return (step & 3u) * 8u + group + row_shape<STRIDE>::groups * (step >> 2);
}

/* Begins to read what step `step` of the group needs. `draw` is the lane's own. The user's row is read unless he has been `before`. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_fetch(const struct fast_view *v, const struct draw *draw, uint32_t lane, uint32_t step, uint32_t before,
                       struct fast_triple<STRIDE> *ret)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads;
	uint32_t turn = fast_turn<STRIDE>(lane / lanes, step), sub = lane % lanes;
	ret->user = __shfl_sync(GPU_ALL_LANES, draw->user, (int)turn);
	ret->pos = __shfl_sync(GPU_ALL_LANES, draw->pos, (int)turn);
	ret->neg = __shfl_sync(GPU_ALL_LANES, draw->neg, (int)turn);
	ret->weight = __shfl_sync(GPU_ALL_LANES, draw->weight, (int)turn);
	ret->bias = 0.0f;
	if (ret->neg == SAMPLE_NONE) {
		ret->user = FAST_NOBODY;
		ret->user_row = ret->pos_row = ret->neg_row = row_zero<quads>();
		return;
	}
	ret->pos_row = row_load<STRIDE, BF16>(v->tables.V, ret->pos, sub);
	ret->neg_row = row_load<STRIDE, BF16>(v->tables.V, ret->neg, sub);
	if (ret->user != before)
		ret->user_row = row_load<STRIDE, BF16>(v->tables.U, ret->user, sub);
	if (sub == 1 || sub == 2)
		ret->bias = gpu_load(&v->tables.items[sub == 1 ? ret->pos : ret->neg].bias);
}

template <uint32_t STRIDE> GPU_FN struct fast_dots fast_sum(const struct fast_triple<STRIDE> *t, const row_part<row_shape<STRIDE>::quads> *user)
{
	struct fast_dots s = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
	for (uint32_t q = 0; q < row_shape<STRIDE>::quads; q++) {
		float4 u = user->q[q], p = t->pos_row.q[q], n = t->neg_row.q[q], d = quad_minus(p, n);
		s.ud = quad_dot(u, d, s.ud);
		s.uu = quad_dot(u, u, s.uu);
		s.up = quad_dot(u, p, s.up);
		s.dd = quad_dot(d, d, s.dd);
		s.pp = quad_dot(p, p, s.pp);
		s.nn = quad_dot(n, n, s.nn);
	}
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes;
	s.ud = group_sum<lanes>(s.ud);
	s.uu = group_sum<lanes>(s.uu);
	s.up = group_sum<lanes>(s.up);
	s.dd = group_sum<lanes>(s.dd);
	s.pp = group_sum<lanes>(s.pp);
	s.nn = group_sum<lanes>(s.nn);
	return s;
}

/* sampled: this lane keeps the triple's loss. */
GPU_FN struct fast_pull fast_pull_of(const struct update_view *c, const struct fast_dots *s, float bias_pos, float bias_neg, float weight, int sampled,
                                     struct fast_account *account)
{
	struct fast_pull pull;
	float loss = 0.0f;
	if (c->loss == LOSS_BCE) {
		float x_pos = s->up + bias_pos, x_neg = s->up - s->ud + bias_neg;
		pull.finite = bpr_is_finite(x_pos) && bpr_is_finite(x_neg);
		pull.pos = weight * bpr_sigmoid(-x_pos);
		pull.neg = weight * bpr_sigmoid(x_neg);
		if (sampled)
			loss = 0.5f * (bpr_softplus(-x_pos) + bpr_softplus(x_neg));
	} else {
		float x = s->ud + (bias_pos - bias_neg);
		pull.finite = bpr_is_finite(x);
		pull.pos = pull.neg = weight * bpr_sigmoid(-x);
		if (sampled)
			loss = bpr_softplus(-x);
	}
	if (sampled && pull.finite) {
		account->loss += loss;
		account->loss_n++;
	}
	return pull;
}

/* Squared norms of the three gradients, from the six sums; rounding may take a tiny one below zero. */
GPU_FN float3 fast_norms(const struct update_view *c, const struct fast_dots *s, const struct fast_pull *z, float bias_pos, float bias_neg)
{
	float un = s->up - s->ud, gain_pos = z->pos - c->reg_bias * bias_pos, gain_neg = -z->neg - c->reg_bias * bias_neg;
	float user = z->pos * z->neg * s->dd + (z->pos - z->neg) * (z->pos * s->pp - z->neg * s->nn) -
	             2.0f * c->reg_user * (z->pos * s->up - z->neg * un) + c->reg_user * c->reg_user * s->uu;
	float pos = z->pos * z->pos * s->uu - 2.0f * c->reg_pos * z->pos * s->up + c->reg_pos * c->reg_pos * s->pp;
	float neg = z->neg * z->neg * s->uu + 2.0f * c->reg_neg * z->neg * un + c->reg_neg * c->reg_neg * s->nn;
	return make_float3(fmaxf(user, 0.0f), fmaxf(pos, 0.0f) + gain_pos * gain_pos, fmaxf(neg, 0.0f) + gain_neg * gain_neg);
}

/* Lanes 0, 1 and 2 of a group take the step of the user, the positive and the negative: bpr_step_scale(), with the sum that stands on the device. */
GPU_FN float fast_step(const struct fast_view *v, uint32_t sub, int live, uint32_t user, uint32_t item, float norm2)
{
	const struct update_view *c = &v->update;
	float scale = c->rate;
	if (c->adagrad && live && sub < 3) {
		float *sum = sub == 0 ? &v->tables.users[user].acc : &v->tables.items[item].acc;
		float mean = norm2 * (sub == 0 ? c->per_user : c->per_item);
		scale *= rsqrtf(atomicAdd(sum, mean) + mean + BPR_ADAGRAD_EPS);
	}
	float step2 = scale * scale * norm2;
	if (step2 > c->norm_max * c->norm_max)
		scale *= c->norm_max * rsqrtf(step2);
	return scale;
}

/* Where the random numbers begin that round what a lane adds for draw `number` of the span (row_add()). */
template <uint32_t STRIDE> GPU_FN uint32_t fast_coins(const struct fast_view *v, uint32_t number, uint32_t sub)
{
	return (number + v->salt) * 256u + sub * (2u * row_shape<STRIDE>::quads);
}

/* Moves the rows of a triple, draw `number` of the span; the user's in registers only. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_move(const struct fast_view *v, const struct fast_triple<STRIDE> *t, uint32_t number, uint32_t sub, const struct fast_pull *z, float3 step,
                      struct fast_user<STRIDE> *user)
{
	const struct update_view *c = &v->update;
	constexpr uint32_t quads = row_shape<STRIDE>::quads;
	row_part<quads> pos, neg;
#pragma unroll
	for (uint32_t q = 0; q < quads; q++) {
		float4 u = user->row.q[q], p = t->pos_row.q[q], n = t->neg_row.q[q];
		pos.q[q] = quad_blend(-step.y * c->reg_pos, p, step.y * z->pos, u);
		neg.q[q] = quad_blend(-step.z * c->reg_neg, n, -step.z * z->neg, u);
		u = quad_blend(1.0f - step.x * c->reg_user, u, step.x * z->pos, p);
		user->row.q[q] = quad_blend(1.0f, u, -step.x * z->neg, n);
	}
	row_add<STRIDE, BF16>(v->tables.V, t->pos, sub, &t->pos_row, &pos, fast_coins<STRIDE>(v, number, sub));
	row_add<STRIDE, BF16>(v->tables.V, t->neg, sub, &t->neg_row, &neg, fast_coins<STRIDE>(v, number, sub) ^ 0x55555555u);
}

/* Adds what the user gained since his row was read, and forgets him. number: his last draw. */
template <uint32_t STRIDE, int BF16> GPU_FN void fast_leave(const struct fast_view *v, uint32_t number, uint32_t sub, struct fast_user<STRIDE> *user)
{
	constexpr uint32_t quads = row_shape<STRIDE>::quads;
	if (user->user != FAST_NOBODY) {
		row_part<quads> gain;
#pragma unroll
		for (uint32_t q = 0; q < quads; q++)
			gain.q[q] = quad_minus(user->row.q[q], user->was.q[q]);
		row_add<STRIDE, BF16>(v->tables.U, user->user, sub, &user->was, &gain, fast_coins<STRIDE>(v, number, sub) ^ 0xaaaaaaaau);
		if (sub == 0)
			gpu_store_u32(&v->tables.users[user->user].stamp, v->update.epoch);
	}
	user->user = FAST_NOBODY;
}

/* One triple of a group, draw `number` of the span, whose user's row is in `user`. All lanes of the warp come here together. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_work(const struct fast_view *v, const struct fast_triple<STRIDE> *t, uint32_t number, uint32_t sub, struct fast_user<STRIDE> *user,
                      struct fast_account *account)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes;
	const struct update_view *c = &v->update;
	struct fast_dots s = fast_sum<STRIDE>(t, &user->row);
	float bias_pos = __shfl_sync(GPU_ALL_LANES, t->bias, 1, (int)lanes), bias_neg = __shfl_sync(GPU_ALL_LANES, t->bias, 2, (int)lanes);
	int there = t->user != FAST_NOBODY;
	int sampled = there && sub == 0 && number % FAST_LOSS_EVERY == 0;
	struct fast_pull z = fast_pull_of(c, &s, bias_pos, bias_neg, t->weight, sampled, account);
	int live = there && z.finite;
	float3 norms = fast_norms(c, &s, &z, bias_pos, bias_neg);
	uint32_t item = sub == 1 ? t->pos : t->neg;
	float own = fast_step(v, sub, live, t->user, item, sub == 0 ? norms.x : sub == 1 ? norms.y : norms.z);
	float3 step = make_float3(__shfl_sync(GPU_ALL_LANES, own, 0, (int)lanes), __shfl_sync(GPU_ALL_LANES, own, 1, (int)lanes),
	                          __shfl_sync(GPU_ALL_LANES, own, 2, (int)lanes));
	if (live) {
		fast_move<STRIDE, BF16>(v, t, number, sub, &z, step, user);
		if (sub == 1 || sub == 2)
			gpu_add(&v->tables.items[item].bias, own * ((sub == 1 ? z.pos : -z.neg) - c->reg_bias * t->bias));
	}
	if (sub == 0) {
		account->triples += (uint32_t)live;
		if (there && !live) {
			(void)atomicAdd(&v->sums->rejected, 1ull);
			(void)atomicOr(&v->sums->nonfinite, 1u);
		}
	}
}

/* The 32 triples of a warp. draw: the lane's own; without a negative it is passed over. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_triples(const struct fast_view *v, const struct draw *draw, uint32_t base, uint32_t lane, struct fast_account *account)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes;
	uint32_t sub = lane % lanes;
	struct fast_user<STRIDE> user = {};
	struct fast_triple<STRIDE> now = {}, next = {};
	user.user = FAST_NOBODY;
	fast_fetch<STRIDE, BF16>(v, draw, lane, 0, FAST_NOBODY, &now);
	for (uint32_t step = 0; step < lanes; step++) {
		uint32_t number = base + fast_turn<STRIDE>(lane / lanes, step);
		next.user = FAST_NOBODY; /* after the last step */
		if (step + 1 < lanes)
			fast_fetch<STRIDE, BF16>(v, draw, lane, step + 1, now.user, &next);
		if (now.user != user.user) {
			user.user = now.user;
			user.was = user.row = now.user_row;
		}
		fast_work<STRIDE, BF16>(v, &now, number, sub, &user, account);
		if (next.user != user.user)
			fast_leave<STRIDE, BF16>(v, number, sub, &user);
		now = next;
	}
}

/* Begins to read the candidates that the group takes at step `step`. hards: lanes with a hard draw; candidates: of the lane's own draw. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_ask(const struct fast_view *v, uint32_t hards, uint32_t user, const uint32_t *candidates, uint32_t lane, uint32_t step,
                     struct fast_contest<STRIDE> *ret)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads, groups = row_shape<STRIDE>::groups;
	uint32_t turn = fast_turn<STRIDE>(lane / lanes, step), sub = lane % lanes;
	ret->any = (hards >> fast_turn<STRIDE>(0, step) & ((1u << groups) - 1u)) != 0;
	if (!ret->any)
		return;
	user = __shfl_sync(GPU_ALL_LANES, user, (int)turn);
	ret->user_row = row_zero<quads>();
	ret->bias = 0.0f;
	if (hards >> turn & 1u)
		ret->user_row = row_load<STRIDE, BF16>(v->tables.U, user, sub);
#pragma unroll
	for (uint32_t k = 0; k < fast_contest<STRIDE>::n; k++) {
		ret->items[k] = __shfl_sync(GPU_ALL_LANES, candidates[k], (int)turn);
		ret->rows[k] = row_zero<quads>();
		if (ret->items[k] == SAMPLE_NONE)
			continue;
		ret->rows[k] = row_load<STRIDE, BF16>(v->tables.V, ret->items[k], sub);
		if (sub == k)
			ret->bias = gpu_load(&v->tables.items[ret->items[k]].bias);
	}
}

/* The highest scored of a group's candidates, and its score; SAMPLE_NONE when none is a number. All lanes of the warp come here together. */
template <uint32_t STRIDE> GPU_FN uint32_t fast_hardest(const struct fast_contest<STRIDE> *t, uint32_t sub, float *ret_score)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads;
	float best = -INFINITY;
	uint32_t chosen = SAMPLE_NONE;
#pragma unroll
	for (uint32_t k = 0; k < fast_contest<STRIDE>::n; k++) {
		float score = sub == k ? t->bias : 0.0f;
#pragma unroll
		for (uint32_t q = 0; q < quads; q++)
			score = quad_dot(t->user_row.q[q], t->rows[k].q[q], score);
		score = group_sum<lanes>(score);
		if (t->items[k] != SAMPLE_NONE && score > best) {
			best = score;
			chosen = t->items[k];
		}
	}
	*ret_score = best;
	return chosen;
}

/* Scores one round of candidates, the groups taking turns as in fast_triples(). Of its own draw's a lane keeps the best, if it is above *best. */
template <uint32_t STRIDE, int BF16>
GPU_FN void fast_round(const struct fast_view *v, uint32_t hards, uint32_t user, const uint32_t *candidates, uint32_t lane, float *best, uint32_t *chosen)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, groups = row_shape<STRIDE>::groups;
	uint32_t own_group = (lane & 7u) % groups, own_step = lane >> 3 | (lane & 7u) / groups << 2; /* the turn of this lane's draw */
	struct fast_contest<STRIDE> now = {}, next = {};
	fast_ask<STRIDE, BF16>(v, hards, user, candidates, lane, 0, &now);
	for (uint32_t step = 0; step < lanes; step++) {
		if (step + 1 < lanes) /* redundant: what would be asked for after the last step is not looked at */
			fast_ask<STRIDE, BF16>(v, hards, user, candidates, lane, step + 1, &next);
		if (now.any) {
			float score;
			uint32_t item = fast_hardest<STRIDE>(&now, lane % lanes, &score);
			score = __shfl_sync(GPU_ALL_LANES, score, (int)(own_group * lanes));
			item = __shfl_sync(GPU_ALL_LANES, item, (int)(own_group * lanes));
			if (step == own_step && score > *best) {
				*best = score;
				*chosen = item;
			}
		}
		now = next;
	}
}

/* Chooses the negatives of the warp's hard draws; each lane has its own draw and looks itself which of its candidates are positives. */
template <uint32_t STRIDE, int BF16> GPU_FN void fast_choose(const struct fast_view *v, struct draw *draw, int there, uint32_t lane)
{
	constexpr uint32_t n = fast_contest<STRIDE>::n;
	int hard = there && draw->kind == NEGATIVE_HARD;
	uint32_t hards = __ballot_sync(GPU_ALL_LANES, hard), chosen = SAMPLE_NONE;
	float best = -INFINITY;
	for (uint32_t first = 0; hards && first < v->plan.hard_of; first += n) {
		uint32_t candidates[n];
#pragma unroll
		for (uint32_t k = 0; k < n; k++)
			candidates[k] = SAMPLE_NONE;
		if (hard)
			sample_hard_many<n>(&v->set, &v->plan, draw, first, candidates);
		fast_round<STRIDE, BF16>(v, hards, draw->user, candidates, lane, &best, &chosen);
	}
	if (hard)
		draw->neg = chosen != SAMPLE_NONE ? chosen : sample_redraw(&v->set, &v->plan, draw);
}

GPU_FN void fast_report(struct job_sums *sums, const struct fast_account *account, uint32_t lane)
{
	uint32_t triples = __reduce_add_sync(GPU_ALL_LANES, account->triples), loss_n = __reduce_add_sync(GPU_ALL_LANES, account->loss_n);
	if (account->loss_n)
		(void)atomicAdd(&sums->loss, (double)account->loss);
	if (lane != 0)
		return;
	(void)atomicAdd(&sums->triples, (unsigned long long)triples);
	(void)atomicAdd(&sums->loss_n, (unsigned long long)loss_n);
}

/* One warp a block at least. Needs no shared memory. */
template <uint32_t STRIDE, int BF16> __global__ void __launch_bounds__(FAST_BLOCK, fast_blocks(STRIDE)) fast_kernel(struct fast_view v)
{
	uint32_t lane = threadIdx.x % GPU_WARP, warps_here = blockDim.x / GPU_WARP;
	uint32_t warps = gridDim.x * warps_here, warp = blockIdx.x * warps_here + threadIdx.x / GPU_WARP;
	struct fast_account account = {0, 0, 0.0f};
	for (uint32_t base = warp * GPU_WARP; base < v.span.n; base += warps * GPU_WARP) {
		int there = base + lane < v.span.n;
		struct draw draw = {};
		draw.neg = SAMPLE_NONE;
		if (there)
			draw = sample_draw(&v.set, &v.plan, &v.span, base + lane);
		if (sample_has_hard(&v.plan))
			fast_choose<STRIDE, BF16>(&v, &draw, there, lane);
		if (there && draw.neg == SAMPLE_NONE)
			(void)atomicAdd(&v.sums->rejected, 1ull);
		fast_triples<STRIDE, BF16>(&v, &draw, base, lane, &account);
	}
	fast_report(v.sums, &account, lane);
}

#endif
