/*
 * quality_window.h: means over the last positives ranked.
 */
#ifndef DAEMON_QUALITY_WINDOW_H
#define DAEMON_QUALITY_WINDOW_H

#include "daemon/quality.h"

/* One ranked positive. */
struct quality_result {
	uint32_t rank[QUALITY_MODELS];
	float auc[QUALITY_MODELS];
};

struct quality_window {
	struct quality_result *ring; /* [capacity] */
	uint32_t capacity, n, next;
	uint32_t k;
	struct quality_figures sums[QUALITY_MODELS]; /* over the ring, at k */
};

/* 0 or -ENOMEM. */
int quality_window_init(struct quality_window *window, uint32_t capacity, uint32_t k);
void quality_window_free(struct quality_window *window);
/* The oldest makes room. */
void quality_window_add(struct quality_window *window, const struct quality_result *result);
/* Another K, also for what was ranked before. */
void quality_window_set_k(struct quality_window *window, uint32_t k);
/*
 * Means over what the window holds; NaN when it is empty. Of one positive with its rank: hit rate 1 if rank <= k, NDCG 1 / log2(rank + 1) if rank <= k (the
 * ideal list has it in front, which is 1), else 0; AUC as it was measured.
 */
void quality_window_figures(const struct quality_window *window, struct quality_figures ret_figures[QUALITY_MODELS]);

#endif
