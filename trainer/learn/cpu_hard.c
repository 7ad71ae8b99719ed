/*
 * cpu_hard.c: hardest-of-n negatives on the host: of n candidates the one that the model scores highest now (negatives.h).
 *
 * Any training thread. Fast mode: between being proposed and being applied, a draw passes four more stages: its candidates are drawn (draw); its rows and
 * theirs begin to come (fetch); they are scored, and what tells whether the best is a positive begins to come (score); the best one that is none is taken
 * (choose). Deterministic mode: scores by exact_dot from the parameters at the batch's start, so the choice has the same bits everywhere.
 */
#include "trainer/learn/cpu_hard.h"

#include <math.h>

#include "trainer/learn/negatives.h"

void cpu_hard_draw(const struct draw_plan *plan, const struct draw *draws, uint32_t n, struct hard_block *block)
{
	uint32_t of = plan->hard_of, run;
	for (uint32_t i = 0; i < n; i += run) {
		for (run = 1; i + run < n && draws[i + run].step == draws[i].step; run++)
			;
		hard_candidates_many(plan, &draws[i], run, &block->items[(size_t)i * of]);
	}
	for (uint32_t i = 0; i < n; i++)
		block->items[(size_t)i * of] = draws[i].neg;
}

void cpu_hard_fetch(const struct draw_plan *plan, const struct row_update *c, const struct draw *draws, uint32_t from, uint32_t n,
                    const struct hard_block *block)
{
	for (uint32_t i = from; i < from + n; i++) {
		const struct draw *draw = &draws[i];
		const uint32_t *items = &block->items[(size_t)i * plan->hard_of];
		if (draw->neg == SAMPLE_NONE)
			continue;
		cpu_fetch_row(c->U + (size_t)draw->user * c->stride, &c->users[draw->user], c->stride);
		cpu_fetch_row(c->V + (size_t)draw->pos * c->stride, &c->items[draw->pos], c->stride);
		cpu_fetch_row(c->V + (size_t)draw->neg * c->stride, &c->items[draw->neg], c->stride);
		for (uint32_t k = 1; draw->kind == NEGATIVE_HARD && k < plan->hard_of; k++)
			cpu_fetch_row(c->V + (size_t)items[k] * c->stride, &c->items[items[k]], c->stride);
	}
}

/* The first of the highest scores[n], UINT32_MAX when none is above minus infinity. Without branches: which one wins is up to chance. */
static inline __attribute__((always_inline)) uint32_t highest(const float *scores, uint32_t n)
{
	uint32_t best = UINT32_MAX;
	float top = -INFINITY;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t higher = 0u - (uint32_t)(scores[k] > top);
		best ^= (best ^ k) & higher;
		top = scores[k] > top ? scores[k] : top;
	}
	return best;
}

void cpu_hard_score(const struct draw_plan *plan, const struct row_update *c, const struct row_kernels *kernels, const struct draw *draws, uint32_t from,
                    uint32_t n, struct hard_block *block)
{
	for (uint32_t i = from; i < from + n; i++) {
		const uint32_t *items = &block->items[(size_t)i * plan->hard_of];
		float *scores = &block->scores[(size_t)i * plan->hard_of];
		if (draws[i].kind != NEGATIVE_HARD)
			continue;
		kernels->score_items(c, draws[i].user, items, plan->hard_of, scores);
		block->best[i] = plan->hard_of == 4 ? highest(scores, 4) : highest(scores, plan->hard_of); /* 4: of the presets, unrolled */
		if (block->best[i] < plan->hard_of)
			training_set_prefetch(plan->set, draws[i].user, items[block->best[i]]);
	}
}

void cpu_hard_choose(const struct draw_plan *plan, struct draw *draws, uint32_t from, uint32_t n, struct hard_block *block)
{
	for (uint32_t i = from; i < from + n; i++) {
		size_t at = (size_t)i * plan->hard_of;
		if (draws[i].kind != NEGATIVE_HARD)
			continue;
		uint32_t best = block->best[i];
		if (best < plan->hard_of && !training_set_has(plan->set, draws[i].user, block->items[at + best]))
			draws[i].neg = block->items[at + best];
		else
			draws[i].neg = hard_choose(plan->set, &draws[i], &block->items[at], &block->scores[at], plan->hard_of);
	}
}

void cpu_hard_choose_exact(const struct draw_plan *plan, const struct row_update *c, const struct row_kernels *kernels, struct draw *draws, uint32_t n)
{
	uint32_t items[HARD_OF_MAX];
	float scores[HARD_OF_MAX];
	if (plan->hard_below == plan->popular_below)
		return;
	for (uint32_t i = 0; i < n; i++) {
		if (draws[i].kind != NEGATIVE_HARD)
			continue;
		items[0] = draws[i].neg;
		hard_candidates(plan, &draws[i], plan->hard_of, items + 1);
		for (uint32_t k = 0; k < plan->hard_of; k++)
			scores[k] = kernels->exact_dot(c->U + (size_t)draws[i].user * c->stride, c->V + (size_t)items[k] * c->stride, NULL, c->stride) +
			            c->items[items[k]].bias;
		draws[i].neg = hard_choose(plan->set, &draws[i], items, scores, plan->hard_of);
	}
}
