/*
 * baseline.h: judging rankings on a split: a model's, popularity's (the baseline that any model must beat) and, for synthetic logs, the oracle's (the most that
 * anyone could reach).
 */
#ifndef DAEMON_RECCTL_BASELINE_H
#define DAEMON_RECCTL_BASELINE_H

#include <jansson.h>

#include "daemon/recctl/split.h"

/* Figures of one ranking: over all users, and by group. */
struct judged {
	struct rank_metrics all;
	struct rank_metrics groups[GROUP_COUNT];
};

/*
 * Every item 0..n_items-1 is scored for every user of the split by `score` (called from several threads; user may be STATE_NONE). `label` is shown with the
 * progress. 0 or -ENOMEM.
 */
int judge(const struct split *split, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads, const char *label,
          struct judged *ret_judged);

/* Popularity: number of users with the item as a positive before the split. */
struct popularity_scores {
	uint32_t n_items;
	float *scores; /* [n_items] */
};
int popularity_scores_make(const struct state *state, struct popularity_scores *ret_scores);
void popularity_scores_free(struct popularity_scores *scores);
void popularity_score(void *ctx, uint32_t user, float *scores); /* ctx: struct popularity_scores */

/* A model whose rows are the state's indexes. Users beyond its rows get the mean row; items beyond them come last. */
struct model_scores {
	const struct tables *tables;
	const float *mean_user; /* [dim] */
	uint32_t n_items;       /* of the state; may be above tables->n_items */
};
void model_score(void *ctx, uint32_t user, float *scores); /* ctx: struct model_scores */

/* The oracle's chances, as `recctl synth --oracle` writes them. */
struct oracle_scores;
int oracle_scores_open(const char *path, const struct state *state, struct oracle_scores **ret_oracle, char *errstr, size_t errstr_size);
void oracle_scores_close(struct oracle_scores *oracle); /* accepts NULL */
void oracle_score(void *ctx, uint32_t user, float *scores); /* ctx: struct oracle_scores */

/* {"users", "recall", "ndcg", "hit_rate", "mrr", "auc", "groups": {"new": {...}, ...}}; NULL when out of memory. */
json_t *judged_json(const struct judged *judged);
/* {"holdout", "cut_us", "cut", "watches", "held_out", "relevant", "seen_before", "unknown_items", "users"}. */
json_t *split_json(const struct split *split, double holdout);

/* The table of several rankings, to standard output. */
struct judged_row {
	const char *name;
	const struct judged *judged;
};
void judged_print(const struct judged_row *rows, size_t n, uint32_t k);
/* One paragraph: what was held out. */
void split_print(const struct split *split, double holdout);

#endif
