/*
 * cpu_hard.c: hardest-of-n negatives on the host: of n candidates the one that the model scores highest now (negatives.h).
 *
 * Any training thread. Fast mode: a block of draws passes two more stages between being settled and being applied: its candidates are drawn and their rows
 * begin to come (fetch); they are scored and each winner's membership slot begins to come (score); winners are verified (choose). Deterministic mode:
 * scores by exact_dot from the parameters at the batch's start, so the choice has the same bits everywhere.
 */
#include "trainer/learn/cpu_hard.h"

#include <string.h>

#include "trainer/learn/negatives.h"

void cpu_hard_fetch(const struct draw_plan *plan, const struct row_update *c, const struct draw *draws, uint32_t n, struct hard_block *block)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t *items = block->items[i];
		if (draws[i].kind != NEGATIVE_HARD)
			continue;
		items[0] = draws[i].neg;
		hard_candidates(plan, &draws[i], plan->hard_of, items + 1);
		for (uint32_t k = 1; k < plan->hard_of; k++) {
			const float *row = c->V + (size_t)items[k] * c->stride;
			for (uint32_t j = 0; j < c->stride; j += 16)
				__builtin_prefetch(row + j, 0, 3);
			__builtin_prefetch(&c->items[items[k]], 0, 3);
		}
	}
}

void cpu_hard_score(const struct draw_plan *plan, const struct row_update *c, const struct row_kernels *kernels, const struct draw *draws, uint32_t n,
                    struct hard_block *block)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *items = block->items[i];
		float *scores = block->scores[i];
		if (draws[i].kind != NEGATIVE_HARD)
			continue;
		kernels->score_items(c, draws[i].user, items, plan->hard_of, scores);
		uint32_t best = 0;
		for (uint32_t k = 1; k < plan->hard_of; k++)
			best = scores[k] > scores[best] ? k : best;
		training_set_prefetch(plan->set, draws[i].user, items[best]);
	}
}

void cpu_hard_choose(const struct draw_plan *plan, struct draw *draws, uint32_t n, struct hard_block *block)
{
	for (uint32_t i = 0; i < n; i++)
		if (draws[i].kind == NEGATIVE_HARD)
			draws[i].neg = hard_choose(plan->set, &draws[i], block->items[i], block->scores[i], plan->hard_of);
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
