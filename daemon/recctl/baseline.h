/*
 * baseline.h: judging rankings on a split: a model's, popularity's and item-kNN's (what any model must beat) and, for synthetic logs, the oracle's (the most
 * that anyone could reach). docs/EVALUATION.md defines every figure.
 */
#ifndef DAEMON_RECCTL_BASELINE_H
#define DAEMON_RECCTL_BASELINE_H

#include <jansson.h>
#include <stdio.h>

#include "daemon/recctl/split.h"

/* How rankings are judged; the same for all of one table. */
struct judge_options {
	uint32_t ks[RANK_KS_MAX]; /* the first one is the table's main one */
	uint32_t n_ks;
	uint32_t n_items;         /* the state's, and the split's extra ones */
	uint32_t threads;
	uint32_t resamples;       /* of the bootstrap; 0: no intervals */
	uint64_t seed;
	const float *percentile;  /* [n_items] popularity percentiles */
};

/* Figures of one ranking: by group, and over all users. Columns as in evaluate.h. */
struct judged {
	uint64_t users[GROUP_COUNT + 1];
	struct rank_estimate figures[GROUP_COUNT + 1][RANK_COLUMNS_MAX]; /* GROUP_COUNT: all */
	double coverage[RANK_KS_MAX]; /* share of the items that are in the first K of any user judged */
	uint32_t n_ks;
};

/*
 * Every item 0..n_items-1 is scored for every user of the split by `score` (called from several threads; user may be STATE_NONE). `label` is shown with the
 * progress. 0 or -ENOMEM.
 */
int judge(const struct split *split, const struct judge_options *options, rank_score_fn score, void *ctx, const char *label, struct judged *ret_judged);

/* Popularity: number of users with the item as a positive before the split. */
struct popularity_scores {
	uint32_t n_items;  /* the state's and the split's extra ones, whose score is 0 */
	float *scores;     /* [n_items] */
	float *percentile; /* [n_items] share of the items that are less popular, and half of those that are as popular; mean 0.5 */
};
int popularity_scores_make(const struct state *state, uint32_t n_extra_items, struct popularity_scores *ret_scores);
void popularity_scores_free(struct popularity_scores *scores);
void popularity_score(void *ctx, uint32_t user, float *scores); /* ctx: struct popularity_scores */

/* A model whose rows are the state's indexes. Users beyond its rows get the mean row of model_mean_user(); items beyond them come last. */
struct model_scores {
	const struct tables *tables;
	const float *mean_user; /* [dim] */
	uint32_t n_items;       /* may be above tables->n_items */
};
void model_score(void *ctx, uint32_t user, float *scores); /* ctx: struct model_scores */
/* ret_mean[dim]: mean of the model's rows of users with a positive before the split; zero when there are none. For users whom the model does not know. */
void model_mean_user(const struct state *state, const struct tables *tables, float *ret_mean);

/*
 * Item-kNN over the positives before the split: each item keeps its `neighbours` most similar items, similarity = common users / (sqrt(users of one x users
 * of the other) + shrink); an item's score for a user is the sum over the user's positives that have it among their neighbours. What has no neighbour there
 * comes behind, by popularity. Memory is bounded: KNN_BYTES_MAX for the neighbours (fewer are kept when there are too many items), and a user with more than
 * KNN_USER_MAX positives counts with that many of them, evenly picked.
 */
#define KNN_BYTES_MAX ((size_t)1 << 30)
#define KNN_USER_MAX 1000u
struct knn_scores;
int knn_scores_make(const struct state *state, const struct popularity_scores *popularity, uint32_t neighbours, double shrink, uint32_t threads,
                    struct knn_scores **ret_knn);
void knn_scores_free(struct knn_scores *knn); /* accepts NULL */
void knn_score(void *ctx, uint32_t user, float *scores); /* ctx: struct knn_scores */

/* The oracle's chances, as `recctl synth --oracle` writes them. */
struct oracle_scores;
int oracle_scores_open(const char *path, const struct state *state, struct oracle_scores **ret_oracle, char *errstr, size_t errstr_size);
void oracle_scores_close(struct oracle_scores *oracle); /* accepts NULL */
void oracle_score(void *ctx, uint32_t user, float *scores); /* ctx: struct oracle_scores */

/*
 * {"users", "recall", "ndcg", "hit_rate", "mrr", "auc", "coverage", "popularity", "groups": {"new": {...}, ...}, "at": {"20": {...}, ...},
 * "interval": {"ndcg": [low, high], ...}}: figures at the first K, all K under "at"; NULL when out of memory.
 */
json_t *judged_json(const struct judged *judged, const struct judge_options *options);
/* {"kind", "holdout", "cut_us", "cut", "watches", "held_out", "relevant", "seen_before", "unknown_items", "users"}; cut only where there is one for all. */
json_t *split_json(const struct split *split, const struct split_options *options);

/* The table of several rankings, to standard output. */
struct judged_row {
	const char *name;
	const struct judged *judged;
};
void judged_print(const struct judged_row *rows, size_t n, const struct judge_options *options);
/* One line, after `name`; and {"decided", "mean_conf", "watch_rate", "error", "slope", "intercept"} (null where not defined). */
struct calibration;
void calibration_print(FILE *out, const char *name, const struct calibration *calibration);
json_t *calibration_json(const struct calibration *calibration);
/* One paragraph: what was held out. */
void split_print(const struct split *split, const struct split_options *options);

#endif
