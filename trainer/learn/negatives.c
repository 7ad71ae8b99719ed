/*
 * negatives.c: popularity by an alias table, and the candidates of hardest-of-n (negatives.h).
 *
 * The learner's thread makes the table between jobs; training threads only read it. Hard candidates come from Philox under a purpose of their own, so a
 * backend on any device draws the same ones. Only the winner is verified: a positive that wins is struck out and the next takes its place, which is the
 * same as striking all positives first and costs one look instead of n.
 */
#include "trainer/learn/negatives.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/philox.h"

void alias_free(struct alias_table *table)
{
	free(table->below);
	free(table->other);
	*table = (struct alias_table){.version = table->version};
}

/* Vose's order: a place with too little is filled up from one with too much, until only whole ones are left. share[n]: weight times n over the sum. */
static void alias_fill(struct alias_table *table, double *share, uint32_t *stack)
{
	uint32_t n = table->n, n_small = 0, n_large = 0; /* small ones grow from the front of the stack, large ones from its end */
	for (uint32_t k = 0; k < n; k++) {
		if (share[k] < 1.0)
			stack[n_small++] = k;
		else
			stack[n - ++n_large] = k;
	}
	while (n_small && n_large) {
		uint32_t small = stack[--n_small], large = stack[n - n_large];
		table->below[small] = (uint32_t)(share[small] * 4294967295.0);
		table->other[small] = large;
		share[large] -= 1.0 - share[small];
		if (share[large] < 1.0) {
			n_large--;
			stack[n_small++] = large;
		}
	}
	while (n_small) { /* rounding leaves some at almost 1 */
		uint32_t k = stack[--n_small];
		table->below[k] = UINT32_MAX;
		table->other[k] = k;
	}
	while (n_large) {
		uint32_t k = stack[n - n_large--];
		table->below[k] = UINT32_MAX;
		table->other[k] = k;
	}
}

int alias_build(struct alias_table *table, const double *weights, uint32_t n)
{
	struct alias_table made = {
		.n = n,
		.version = table->version + 1,
		.below = malloc(n * sizeof *made.below),
		.other = malloc(n * sizeof *made.other),
	};
	double *share = malloc(n * sizeof *share);
	uint32_t *stack = malloc(n * sizeof *stack);
	int rc = made.below && made.other && share && stack ? 0 : -ENOMEM;
	if (rc == 0) {
		double sum = 0;
		for (uint32_t k = 0; k < n; k++)
			sum += weights[k];
		for (uint32_t k = 0; k < n; k++)
			share[k] = sum > 0 ? weights[k] / sum * (double)n : 1.0;
		alias_fill(&made, share, stack);
		alias_free(table);
		*table = made;
	} else {
		alias_free(&made);
	}
	free(share);
	free(stack);
	return rc;
}

static int is_fresh(const struct popularity *p, const struct training_set *set, float power)
{
	return p->table.n == set->n_candidates && p->power == power && p->cleared == set->cleared &&
	       set->n_positives - p->n_positives <= p->n_positives / 10;
}

int popularity_refresh(struct popularity *popularity, struct training_set *set, float power)
{
	if (set->n_candidates == 0 || is_fresh(popularity, set, power))
		return 0;
	uint32_t *counts = calloc(set->n_items, sizeof *counts);
	double *weights = malloc(set->n_candidates * sizeof *weights);
	int rc = counts && weights ? 0 : -ENOMEM;
	if (rc == 0) {
		for (uint64_t k = 0; k < set->n_positives; k++)
			counts[set->positives[k].item]++;
		for (uint32_t c = 0; c < set->n_candidates; c++) {
			uint32_t count = counts[set->candidates[c]];
			weights[c] = pow(count ? (double)count : 1.0, (double)power);
		}
		rc = alias_build(&popularity->table, weights, set->n_candidates);
	}
	if (rc == 0) {
		popularity->power = power;
		popularity->cleared = set->cleared;
		popularity->n_positives = set->n_positives;
		set->popular = &popularity->table;
	}
	free(counts);
	free(weights);
	return rc;
}

void popularity_free(struct popularity *popularity)
{
	alias_free(&popularity->table);
	*popularity = (struct popularity){0};
}

void hard_candidates(const struct draw_plan *plan, const struct draw *draw, uint32_t n, uint32_t *ret_items)
{
	const struct training_set *set = plan->set;
	for (uint32_t k = 0; k + 1 < n; k += 4) {
		struct philox_block random = philox4x32(draw->index, (uint32_t)draw->step, (uint32_t)(draw->step >> 32), PHILOX_HARD + k / 4,
		                                        (uint32_t)set->seed, (uint32_t)(set->seed >> 32));
		for (uint32_t j = 0; j < 4 && k + j + 1 < n; j++)
			ret_items[k + j] = set->candidates[philox_below(random.v[j], set->n_candidates)];
	}
}

void hard_candidates_many(const struct draw_plan *plan, const struct draw *draws, uint32_t n, uint32_t *ret_items)
{
	const struct training_set *set = plan->set;
	uint32_t of = plan->hard_of;
	struct philox_many random;
	for (uint32_t i = 0; i < n; i += PHILOX_RUN) {
		for (uint32_t k = 1; k < of; k++) {
			if (k % 4 == 1)
				plan->kernels->philox_run(draws[i].index, (uint32_t)draws[i].step, (uint32_t)(draws[i].step >> 32), PHILOX_HARD + k / 4,
				                          (uint32_t)set->seed, (uint32_t)(set->seed >> 32), &random);
			for (uint32_t l = 0; l < PHILOX_RUN && i + l < n; l++)
				ret_items[(size_t)(i + l) * of + k] = set->candidates[philox_below(random.v[(k - 1) % 4][l], set->n_candidates)];
		}
	}
}

uint32_t hard_choose(const struct training_set *set, const struct draw *draw, const uint32_t *items, float *scores, uint32_t n)
{
	for (uint32_t tries = 0; tries < n; tries++) {
		uint32_t best = n;
		float best_score = -INFINITY;
		for (uint32_t k = 0; k < n; k++) {
			if (scores[k] > best_score) {
				best_score = scores[k];
				best = k;
			}
		}
		if (best == n)
			break;
		if (!training_set_has(set, draw->user, items[best]))
			return items[best];
		scores[best] = -INFINITY;
	}
	return sampler_redraw(set, draw);
}
