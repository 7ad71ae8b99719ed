/*
 * evaluate.h: ranking quality, full ranking, never sampled.
 *
 * For each user with at least one relevant held-out item: all items are scored, the masked ones (watched before the split) left out, the rest ranked
 * by score (ties by lower item index), and compared with the relevant ones. Binary gains.
 *   Recall@K  |relevant in the first K| / |relevant|.
 *   HR@K      1 if any relevant item is in the first K.
 *   NDCG@K    sum over hits of 1/log2(rank + 1), ranks from 1, over the same sum for the ideal list of min(K, |relevant|).
 *   MRR       1 / rank of the first relevant item over the whole list.
 *   AUC       share of (relevant, not relevant) pairs of unmasked items that are in the right order; ties count a half.
 */
#ifndef TRAINER_LEARN_EVALUATE_H
#define TRAINER_LEARN_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

struct rank_metrics {
	uint64_t users; /* users evaluated */
	double recall, ndcg, hit_rate, mrr, auc; /* means over those users */
};

/* Items of one user: sorted ascending, no item twice; relevant and masked are disjoint. */
struct rank_user {
	uint32_t user;
	const uint32_t *relevant;
	size_t n_relevant;
	const uint32_t *masked;
	size_t n_masked;
};

/* Fills scores[n_items] for a user; called from several threads at once. */
typedef void (*rank_score_fn)(void *ctx, uint32_t user, float *scores);

/* Means over `users` (those with n_relevant = 0 are skipped). progress may be NULL: called now and then with users done, from one thread.
 * 0 or -ENOMEM. */
int rank_evaluate(const struct rank_user *users, size_t n_users, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads,
                  void (*progress)(void *ctx, size_t done, size_t total), struct rank_metrics *ret_metrics);

#endif
