/*
 * sample.cuh: the host sampler's draws on the device, bit for bit (sampler.h, negatives.h): the same positive, kind, candidates and second tries from the same
 * counters. One lane makes one draw. Reads the mirror, which nobody changes while a job runs, and writes nothing.
 */
#ifndef GPU_SAMPLE_CUH
#define GPU_SAMPLE_CUH

#include "gpu/pair_set.cuh"
#include "gpu/view.cuh"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"
#include "trainer/learn/sampler.h"

#define SAMPLE_REDRAWS 15u /* random tries before the candidates are scanned, as on the host */

/* The host's side: draws first..first + n - 1 of the job that `plan` was made for. n: at most SPAN_MAX. */
static inline struct span_view sample_span(const struct draw_plan *plan, uint64_t n_positives, uint64_t first, uint32_t n)
{
	uint64_t job_step = first / plan->batch;
	uint64_t turn = job_step * plan->recent_per_step;
	struct span_view span = {};
	span.step = plan->step + job_step;
	span.walk = (plan->walk + job_step * (plan->batch - plan->recent_per_step)) % n_positives;
	if (plan->recent_per_step) {
		span.recent_round = turn / plan->n_recent;
		span.recent_place = (uint32_t)(turn % plan->n_recent);
	}
	span.index = (uint32_t)(first % plan->batch);
	span.n = n;
	return span;
}

static inline struct plan_view sample_plan(const struct draw_plan *plan)
{
	struct plan_view view = {};
	view.seed = plan->set->seed;
	view.batch = plan->batch;
	view.recent_per_step = plan->recent_per_step;
	view.skip_below = plan->skip_below;
	view.popular_below = plan->popular_below;
	view.hard_below = plan->hard_below;
	view.hard_of = plan->hard_of;
	view.weight_log2 = plan->weight_log2;
	return view;
}

/* A job without hard draws needs no scores. */
GPU_FN int sample_has_hard(const struct plan_view *plan)
{
	return plan->hard_below > plan->popular_below;
}

GPU_FN struct philox_block sample_random(const struct plan_view *plan, const struct draw *draw, uint32_t purpose)
{
	return philox4x32(draw->index, (uint32_t)draw->step, (uint32_t)(draw->step >> 32), purpose, (uint32_t)plan->seed, (uint32_t)(plan->seed >> 32));
}

/* at is below n plus SPAN_MAX: a remainder of 32-bit numbers, or none at all. */
GPU_FN uint64_t sample_wrap(uint64_t at, uint64_t n)
{
	if (at < n)
		return at;
	return n > SPAN_MAX ? at - n : (uint32_t)at % (uint32_t)n;
}

/* The positive: a recent one that is still owed at this point of the job, or the next of the walk. step: of the draw, in the span. */
GPU_FN void sample_positive(const struct set_view *set, const struct plan_view *plan, const struct span_view *span, uint32_t step, uint32_t random,
                            struct draw *draw)
{
	uint64_t at;
	if (draw->index < plan->recent_per_step) {
		uint32_t turn = span->recent_place + step * plan->recent_per_step + draw->index;
		const struct recent_positive *recent = &set->recent[turn % set->n_recent];
		if (span->recent_round + turn / set->n_recent < recent->left) {
			draw->user = recent->user;
			draw->pos = recent->item;
			draw->weight = set->weights ? bpr_weight(recent->weight, plan->weight_log2) : 1.0f;
			return;
		}
		at = __umul64hi((uint64_t)random << 32, set->n_positives); /* its draws are used up: any positive */
	} else {
		uint32_t walked = step * (plan->batch - plan->recent_per_step) + (draw->index - plan->recent_per_step);
		at = sample_wrap(span->walk + walked, set->n_positives);
	}
	draw->user = set->positives[at].user;
	draw->pos = set->positives[at].item;
	draw->weight = set->weights ? bpr_weight(set->weights[at], plan->weight_log2) : 1.0f;
}

/* One of the user's skips, or SAMPLE_NONE. */
GPU_FN uint32_t sample_skip(const struct set_view *set, uint32_t user, uint32_t random)
{
	uint64_t first = (uint64_t)user * GPU_SKIPS_MAX;
	uint32_t n = 0;
	if (set->skip_offsets) {
		first = user < set->skip_users ? set->skip_offsets[user] : 0;
		n = user < set->skip_users ? (uint32_t)(set->skip_offsets[user + 1] - first) : 0;
	} else if (set->skips) {
		n = set->n_skips[user];
	}
	if (n == 0)
		return SAMPLE_NONE;
	uint32_t item = set->skips[first + philox_below(random, n)];
	return item < set->n_items ? item : SAMPLE_NONE;
}

GPU_FN uint32_t sample_alias(const struct set_view *set, uint32_t place, uint32_t coin)
{
	return coin <= set->alias_below[place] ? place : set->alias_other[place];
}

/* The first candidate. A user without skips gets a uniform one. */
GPU_FN void sample_negative(const struct set_view *set, const struct plan_view *plan, const struct philox_block *random, struct draw *draw)
{
	uint32_t place = philox_below(random->v[0], set->n_candidates), kind = random->v[1];
	draw->kind = NEGATIVE_UNIFORM;
	if (kind < plan->skip_below) {
		uint32_t skip = sample_skip(set, draw->user, random->v[2]);
		if (skip != SAMPLE_NONE) {
			draw->kind = NEGATIVE_SKIP;
			draw->neg = skip;
			return;
		}
	} else if (kind < plan->popular_below) {
		draw->kind = NEGATIVE_POPULAR;
		place = sample_alias(set, place, random->v[2]);
	} else if (kind < plan->hard_below) {
		draw->kind = NEGATIVE_HARD;
	}
	draw->neg = set->candidates[place];
}

/* Draw `at` of the span, not verified. */
GPU_FN struct draw sample_propose(const struct set_view *set, const struct plan_view *plan, const struct span_view *span, uint32_t at)
{
	struct draw draw;
	uint32_t step = (span->index + at) / plan->batch;
	draw.index = span->index + at - step * plan->batch;
	draw.step = span->step + step;
	struct philox_block random = sample_random(plan, &draw, PHILOX_NEGATIVE);
	sample_positive(set, plan, span, step, random.v[3], &draw);
	sample_negative(set, plan, &random, &draw);
	return draw;
}

/* A valid negative in place of one that is a positive: a bounded number of random tries, then the first valid candidate after a random one. */
GPU_FN uint32_t sample_redraw(const struct set_view *set, const struct plan_view *plan, const struct draw *draw)
{
	if (set->user_positives[draw->user] >= set->n_candidates) /* redundant: the scan below finds nothing either, after all its tries */
		return SAMPLE_NONE;
	for (uint32_t attempt = 1; attempt <= SAMPLE_REDRAWS; attempt++) {
		struct philox_block random = sample_random(plan, draw, PHILOX_NEGATIVE + attempt);
		uint32_t tries = draw->kind == NEGATIVE_POPULAR ? 2 : 4;
		for (uint32_t i = 0; i < tries; i++) { /* the numbers move up, so that no index is computed and they stay in registers */
			uint32_t place = philox_below(random.v[0], set->n_candidates);
			if (draw->kind == NEGATIVE_POPULAR) {
				place = sample_alias(set, place, random.v[1]);
				random.v[0] = random.v[2];
				random.v[1] = random.v[3];
			} else {
				random.v[0] = random.v[1];
				random.v[1] = random.v[2];
				random.v[2] = random.v[3];
			}
			uint32_t item = set->candidates[place];
			if (!pair_set_has(set, draw->user, item))
				return item;
		}
	}
	uint32_t at = philox_below(sample_random(plan, draw, PHILOX_NEGATIVE + SAMPLE_REDRAWS + 1).v[0], set->n_candidates);
	for (uint32_t i = 0; i < set->n_candidates; i++) {
		uint32_t item = set->candidates[at];
		if (!pair_set_has(set, draw->user, item))
			return item;
		at = at + 1 < set->n_candidates ? at + 1 : 0;
	}
	return SAMPLE_NONE;
}

/* Draw `at` of the span with its negative verified; that of a hard draw waits for the scores. */
GPU_FN struct draw sample_draw(const struct set_view *set, const struct plan_view *plan, const struct span_view *span, uint32_t at)
{
	struct draw draw = sample_propose(set, plan, span, at);
	if (draw.kind != NEGATIVE_HARD && pair_set_has(set, draw.user, draw.neg))
		draw.neg = sample_redraw(set, plan, &draw);
	return draw;
}

/*
 * Candidate k of a hard draw, or SAMPLE_NONE when it is a positive of the user. The host scores all and strikes out positives that win; to leave them out at
 * once gives the same winner, and a look at the filter is cheaper than the row that it may save.
 */
GPU_FN uint32_t sample_hard(const struct set_view *set, const struct plan_view *plan, const struct draw *draw, uint32_t k)
{
	uint32_t item = draw->neg;
	if (k > 0) {
		struct philox_block random = sample_random(plan, draw, PHILOX_HARD + (k - 1) / 4);
		uint32_t low = (k - 1) & 1 ? random.v[1] : random.v[0], high = (k - 1) & 1 ? random.v[3] : random.v[2];
		item = set->candidates[philox_below((k - 1) & 2 ? high : low, set->n_candidates)];
	}
	return pair_set_has(set, draw->user, item) ? SAMPLE_NONE : item;
}

/*
 * The same for candidates first..first + N - 1 at once; behind the last there are none. N: 2 or 4, first: a multiple. draw->neg has to be candidate `first`,
 * and is candidate first + N then. No look at the filter needs the answer of another.
 */
template <uint32_t N>
GPU_FN void sample_hard_many(const struct set_view *set, const struct plan_view *plan, struct draw *draw, uint32_t first, uint32_t *ret_items)
{
	struct philox_block random = sample_random(plan, draw, PHILOX_HARD + first / 4);
	uint32_t maybe = 0;
	if (N == 2 && first % 4) {
		random.v[0] = random.v[2];
		random.v[1] = random.v[3];
	}
#pragma unroll
	for (uint32_t j = 0; j < N; j++) {
		ret_items[j] = draw->neg;
		draw->neg = first + j + 1 < plan->hard_of ? set->candidates[philox_below(random.v[j], set->n_candidates)] : SAMPLE_NONE;
	}
#pragma unroll
	for (uint32_t j = 0; j < N; j++)
		if (ret_items[j] != SAMPLE_NONE)
			maybe |= (uint32_t)pair_set_maybe(set, pair_hash(pair_key(draw->user, ret_items[j]))) << j;
#pragma unroll
	for (uint32_t j = 0; j < N; j++)
		if ((maybe >> j & 1u) && pair_set_has(set, draw->user, ret_items[j]))
			ret_items[j] = SAMPLE_NONE;
}

#endif
