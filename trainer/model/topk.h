/*
 * topk.h: selection of the K best, for what ranks items by scores it already has. topk_scan() is in query.h.
 */
#ifndef TRAINER_MODEL_TOPK_H
#define TRAINER_MODEL_TOPK_H

#include "trainer/model/query.h"

/* A selection under way. The heap lies in the caller's array. */
struct topk {
	struct ranked_item *heap; /* [k]; heap[0] is the worst once n == k */
	size_t n, k;
	float threshold; /* to be beaten */
	const uint32_t *masked; /* what is left of them */
	size_t n_masked;
};

/* `masked` (sorted ascending) and ret_items [k] stay the caller's and must live until topk_end(). */
void topk_begin(struct topk *topk, const uint32_t *masked, size_t n_masked, uint32_t k, struct ranked_item *ret_items);
/*
 * Offers scores[n] of the items first, first + 1, ... Calls come in ascending order of `first`. Scores of masked items are overwritten; a score that is
 * not a number, or minus infinity, is never kept.
 */
void topk_offer(struct topk *topk, float *scores, size_t n, uint32_t first);
/* Sorts what was kept: descending, ties by lower index. Returns how many there are. conf is 0. */
size_t topk_end(struct topk *topk);

#endif
