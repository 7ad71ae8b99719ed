/*
 * baseline.c: rankings judged on a split, with popularity's, the baseline that any model must beat.
 *
 * Main thread of recctl; the score functions are called from rank_users()'s threads and only read. Each user is judged once: figures are kept user by user, and
 * means and intervals of a group are taken over its users.
 */
#include "daemon/recctl/baseline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/progress.h"
#include "trainer/learn/score.h"

/* ---- judging ---- */

/* What rank_users() hands to its two callbacks. */
struct judging {
	rank_score_fn score;
	void *ctx;
	struct progress progress;
};

static void score_one(void *ctx, uint32_t user, float *scores)
{
	const struct judging *judging = ctx;

	judging->score(judging->ctx, user, scores);
}

static void show_progress(void *ctx, size_t done, size_t total)
{
	struct judging *judging = ctx;

	(void)total;
	progress_update(&judging->progress, done);
}

static int sum_up(const struct split *split, const struct judge_options *options, const float *figures, const uint32_t *shown, struct judged *judged)
{
	uint32_t n_columns = rank_columns(options->n_ks);
	int rc = 0;

	judged->n_ks = options->n_ks;
	for (int group = 0; !rc && group <= GROUP_COUNT; group++) {
		size_t begin = group < GROUP_COUNT ? split->group_begin[group] : 0;
		size_t end = group < GROUP_COUNT ? split->group_begin[group + 1] : split->group_begin[GROUP_COUNT];

		judged->users[group] = end - begin;
		rc = rank_bootstrap(figures + begin * n_columns, end - begin, n_columns, options->resamples, options->seed, judged->figures[group]);
	}
	for (uint32_t k = 0; k < options->n_ks; k++) {
		uint32_t covered = 0;

		for (uint32_t i = 0; i < options->n_items; i++)
			covered += shown[(size_t)k * options->n_items + i] != 0;
		judged->coverage[k] = options->n_items ? (double)covered / options->n_items : 0;
	}
	return rc;
}

int judge(const struct split *split, const struct judge_options *options, rank_score_fn score, void *ctx, const char *label, struct judged *ret_judged)
{
	struct judging judging = { .score = score, .ctx = ctx };
	size_t n_users = split->group_begin[GROUP_COUNT];
	const struct rank_request request = { .users = split->users, .n_users = n_users, .n_items = options->n_items, .ks = options->ks,
		                              .n_ks = options->n_ks, .score = score_one, .ctx = &judging, .threads = options->threads,
		                              .percentile = options->percentile, .progress = show_progress };
	float *figures = malloc((n_users + 1) * rank_columns(options->n_ks) * sizeof(*figures));
	uint32_t *shown = malloc(((size_t)options->n_items * options->n_ks + 1) * sizeof(*shown));
	int rc = -ENOMEM;

	if (figures && shown) {
		progress_begin(&judging.progress, label, n_users);
		rc = rank_users(&request, figures, shown);
		progress_end(&judging.progress);
	}
	if (!rc) {
		memset(ret_judged, 0, sizeof(*ret_judged));
		rc = sum_up(split, options, figures, shown, ret_judged);
	}
	free(figures);
	free(shown);
	return rc;
}

/* ---- popularity ---- */

static int ascending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* Entries of n sorted scores that are below `score`, or below or equal. */
static uint32_t count_below(const float *sorted, uint32_t n, float score, int or_equal)
{
	uint32_t low = 0;

	while (n) {
		uint32_t half = n / 2;

		if (sorted[low + half] < score || (or_equal && sorted[low + half] == score)) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low;
}

int popularity_scores_make(const struct state *state, uint32_t n_extra_items, struct popularity_scores *ret_scores)
{
	uint32_t known = state_n_items(state), n = known + n_extra_items;
	float *scores = malloc((n + 1u) * sizeof(*scores)), *sorted = malloc((n + 1u) * sizeof(*sorted)), *percentile = malloc((n + 1u) * sizeof(*percentile));

	if (!scores || !sorted || !percentile) {
		free(scores);
		free(sorted);
		free(percentile);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++)
		sorted[i] = scores[i] = i < known ? (float)state_item_popularity(state, i) : 0.0f;
	qsort(sorted, n, sizeof(*sorted), ascending);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t below = count_below(sorted, n, scores[i], 0), up_to = count_below(sorted, n, scores[i], 1);

		percentile[i] = ((float)below + (float)(up_to - below) / 2) / (float)n;
	}
	free(sorted);
	*ret_scores = (struct popularity_scores){ n, scores, percentile };
	return 0;
}

void popularity_scores_free(struct popularity_scores *scores)
{
	free(scores->scores);
	free(scores->percentile);
	*scores = (struct popularity_scores){ 0 };
}

void popularity_score(void *ctx, uint32_t user, float *scores)
{
	const struct popularity_scores *popularity = ctx;

	(void)user;
	memcpy(scores, popularity->scores, popularity->n_items * sizeof(*scores));
}

/* ---- models ---- */

void model_mean_user(const struct state *state, const struct tables *tables, float *ret_mean)
{
	uint64_t n = 0;

	memset(ret_mean, 0, tables->dim * sizeof(*ret_mean));
	for (uint32_t user = 0; user < tables->n_users; user++) {
		struct user_facts facts;

		state_user_facts(state, user, &facts);
		if (!state_positives(state, &facts, NULL, 0))
			continue;
		n++;
		for (uint32_t d = 0; d < tables->dim; d++) /* running mean */
			ret_mean[d] += (tables->U[(size_t)user * tables->dim + d] - ret_mean[d]) / (float)n;
	}
}

void model_score(void *ctx, uint32_t user, float *scores)
{
	const struct model_scores *model = ctx;
	const struct tables *tables = model->tables;

	score_row(tables, user < tables->n_users ? tables->U + (size_t)user * tables->dim : model->mean_user, 0, scores);
	for (uint32_t i = tables->n_items; i < model->n_items; i++)
		scores[i] = -1e30f;
}
