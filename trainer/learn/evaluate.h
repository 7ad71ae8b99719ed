/*
 * evaluate.h: ranking quality, full ranking, never sampled. docs/EVALUATION.md has the same definitions with their sources.
 *
 * For each user with at least one relevant held-out item: all items are scored, the masked ones (watched before the split) left out, the rest ranked
 * by score (ties by lower item index; NaN comes last), and compared with the relevant ones. Binary gains.
 *   Recall@K      |relevant in the first K| / |relevant|.
 *   HR@K          1 if any relevant item is in the first K.
 *   NDCG@K        sum over hits of 1/log2(rank + 1), ranks from 1, over the same sum for the ideal list of min(K, |relevant|).
 *   popularity@K  mean popularity percentile of the first K.
 *   MRR           1 / rank of the first relevant item over the whole list.
 *   AUC           share of (relevant, not relevant) pairs of unmasked items that are in the right order; ties count a half.
 */
#ifndef TRAINER_LEARN_EVALUATE_H
#define TRAINER_LEARN_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

#define RANK_KS_MAX 8u

/* Columns of a user's figures: MRR, AUC, then four for each K. */
enum { RANK_MRR, RANK_AUC, RANK_AT };
enum rank_figure { RANK_RECALL, RANK_NDCG, RANK_HIT_RATE, RANK_POPULARITY, RANK_PER_K };
#define RANK_COLUMNS_MAX (RANK_AT + RANK_PER_K * RANK_KS_MAX)
static inline uint32_t rank_columns(uint32_t n_ks)
{
	return RANK_AT + RANK_PER_K * n_ks;
}
static inline uint32_t rank_column(uint32_t k_index, enum rank_figure figure)
{
	return RANK_AT + RANK_PER_K * k_index + (uint32_t)figure;
}

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

struct rank_request {
	const struct rank_user *users;
	size_t n_users;
	uint32_t n_items;
	const uint32_t *ks; /* [n_ks] each at least 1, in any order */
	uint32_t n_ks;      /* 1..RANK_KS_MAX */
	rank_score_fn score;
	void *ctx; /* of score and progress */
	uint32_t threads;
	const float *percentile; /* [n_items] popularity percentile, 0..1; NULL: popularity@K stays NaN */
	void (*progress)(void *ctx, size_t done, size_t total); /* NULL: none; called now and then with users done, from one thread */
};

/*
 * Figures of every user: ret_figures [n_users, rank_columns(n_ks)]; a row of NaN for a user with nothing relevant, NaN where a figure is not defined (AUC when every
 * unmasked item is relevant). ret_shown [n_ks, n_items]: in how many users' first K an item is; NULL: not wanted. The same for any number of threads.
 * 0 or -ENOMEM.
 */
int rank_users(const struct rank_request *request, float *ret_figures, uint32_t *ret_shown);

struct rank_estimate {
	double mean;
	double low, high; /* 95 % interval; both the mean when there were no resamples */
};

/*
 * Means of each column over the rows where it is not NaN (NaN when there is none), with percentile-bootstrap intervals over rows (Efron, 1979): `resamples` times n rows
 * are drawn with replacement, the same rows for every column; low and high are the 2.5 % and 97.5 % quantiles of the means (linear between order
 * statistics). Draws are a pure function of the seed. values [n, n_columns], n < 2^32. 0 or -ENOMEM.
 */
int rank_bootstrap(const float *values, size_t n, uint32_t n_columns, uint32_t resamples, uint64_t seed, struct rank_estimate *ret_estimates);

/* Means alone, for one K. */
struct rank_metrics {
	uint64_t users; /* users evaluated */
	double recall, ndcg, hit_rate, mrr, auc; /* means over those users */
};

/* Means over `users` (those with n_relevant = 0 are skipped). progress: as above. 0 or -ENOMEM. */
int rank_evaluate(const struct rank_user *users, size_t n_users, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads,
                  void (*progress)(void *ctx, size_t done, size_t total), struct rank_metrics *ret_metrics);

#endif
