/*
 * quality_rank.c: the place of one item in full rankings (quality_rank.h). The thread of live quality; owns nothing but the scratch it is given.
 *
 * A place needs no sorting: one pass counts who scores higher or the same, then the masked ones, a few dozen, are taken off the count again.
 */
#include "daemon/quality_rank.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/score.h"

const char *quality_model_name(enum quality_model model)
{
	static const char *const names[QUALITY_MODELS] = { "personalized", "global", "popularity" };

	return names[model];
}

void quality_scratch_free(struct quality_scratch *scratch)
{
	free(scratch->scores);
	free(scratch->row);
	*scratch = (struct quality_scratch){ 0 };
}

static int reserve(float **array, uint32_t *n, uint32_t need)
{
	float *fresh;

	if (need <= *n)
		return 0;
	fresh = malloc(((size_t)need + need / 2) * sizeof(*fresh));
	if (fresh == NULL)
		return -ENOMEM;
	free(*array);
	*array = fresh;
	*n = need + need / 2;
	return 0;
}

/* Items before the one in question by score alone, those with the same score, and of these those with a lower index. */
struct counted {
	uint32_t higher, equal, equal_first;
};

/* Puts the item in its place: `all` counts every item of the list and the masked ones, `left_out` the masked ones. */
static struct quality_place place(struct counted all, struct counted left_out, uint32_t n_others)
{
	const uint32_t higher = all.higher - left_out.higher, equal = all.equal - left_out.equal;
	struct quality_place p = { .rank = 1 + higher + all.equal_first - left_out.equal_first, .auc = 0.5f };

	if (n_others > 0)
		p.auc = (float)(((double)(n_others - higher - equal) + 0.5 * (double)equal) / (double)n_others);
	return p;
}

/* Both kinds of scores, float and uint32_t, are counted by the same lines. `equal` holds no item itself. */
#define COUNT(name, type)                                                                                                                                    \
	static struct counted count_##name(const type *scores, uint32_t n, uint32_t item)                                                                     \
	{                                                                                                                                                     \
		const type own = scores[item];                                                                                                                \
		uint32_t higher = 0, first = 0, after = 0;                                                                                                    \
                                                                                                                                                              \
		for (uint32_t i = 0; i < n; i++)                                                                                                              \
			higher += scores[i] > own;                                                                                                            \
		for (uint32_t i = 0; i < item; i++)                                                                                                           \
			first += scores[i] == own;                                                                                                            \
		for (uint32_t i = item + 1; i < n; i++)                                                                                                       \
			after += scores[i] == own;                                                                                                            \
		return (struct counted){ higher, first + after, first };                                                                                      \
	}                                                                                                                                                     \
	static struct counted count_masked_##name(const type *scores, uint32_t n, uint32_t item, const uint32_t *masked, size_t n_masked)                     \
	{                                                                                                                                                     \
		struct counted c = { 0 };                                                                                                                     \
                                                                                                                                                              \
		for (size_t j = 0; j < n_masked; j++) {                                                                                                       \
			const uint32_t i = masked[j];                                                                                                         \
                                                                                                                                                              \
			if (i >= n || i == item)                                                                                                              \
				continue;                                                                                                                     \
			c.higher += scores[i] > scores[item];                                                                                                 \
			c.equal += scores[i] == scores[item];                                                                                                 \
			c.equal_first += scores[i] == scores[item] && i < item;                                                                               \
		}                                                                                                                                             \
		return c;                                                                                                                                     \
	}
COUNT(floats, float)
COUNT(counts, uint32_t)

/* Items of the list besides the one in question. */
static uint32_t count_others(const struct quality_case *c)
{
	uint32_t n = c->generation->tables.n_items - 1;

	for (size_t j = 0; j < c->n_masked; j++)
		n -= c->masked[j] < c->generation->tables.n_items && c->masked[j] != c->item;
	return n;
}

static struct quality_place place_by_row(const struct quality_case *c, const float *row, float *scores, uint32_t n_others)
{
	const struct tables *tables = &c->generation->tables;

	score_row(tables, row, 0.0f, scores);
	return place(count_floats(scores, tables->n_items, c->item), count_masked_floats(scores, tables->n_items, c->item, c->masked, c->n_masked), n_others);
}

static struct quality_place place_by_popularity(const struct quality_case *c, uint32_t n_others)
{
	const uint32_t *counts = c->generation->popularity, n = c->generation->tables.n_items;

	return place(count_counts(counts, n, c->item), count_masked_counts(counts, n, c->item, c->masked, c->n_masked), n_others);
}

int quality_rank(const struct quality_case *c, struct quality_scratch *scratch, struct quality_place ret_places[QUALITY_MODELS], enum served *ret_served)
{
	const struct generation *g = c->generation;
	const struct tables *tables = &g->tables;
	enum served served;
	uint32_t n_others;
	float bu;

	if (c->item >= tables->n_items || g->n_popularity < tables->n_items)
		return -ENOENT;
	if (reserve(&scratch->scores, &scratch->n_scores, tables->n_items) < 0 || reserve(&scratch->row, &scratch->n_row, tables->dim) < 0)
		return -ENOMEM;
	n_others = count_others(c);
	ret_places[QUALITY_POPULARITY] = place_by_popularity(c, n_others);
	ret_places[QUALITY_GLOBAL] = place_by_row(c, c->n_positives > 0 && c->user < tables->n_users ? tables->U + (size_t)c->user * tables->dim : g->mean_user,
	                                          scratch->scores, n_others);
	served = query_row(g, c->user, c->n_positives, c->personal, &c->options, scratch->row, &bu);
	if (served == SERVED_PERSONALIZED)
		ret_places[QUALITY_SERVED] = place_by_row(c, scratch->row, scratch->scores, n_others);
	else
		ret_places[QUALITY_SERVED] = ret_places[served == SERVED_GLOBAL ? QUALITY_GLOBAL : QUALITY_POPULARITY];
	*ret_served = served;
	return 0;
}
