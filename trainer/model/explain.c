/*
 * explain.c: why these titles. The user's genres beside the genres of what is recommended, and for each recommended title the watched ones nearest to it.
 *
 * Any thread, on the same inputs as query_top(). Genres never enter the ranking; they come from the catalogue and explain. Nearness is the cosine of
 * the V rows: titles that the same people like. It is measured to the titles the user watched far enough; while there are none, to all
 * he watched. Only titles that the generation has a row for can be near.
 *
 * One title weighs 1 in a profile, split over its genres; a title without any counts as "unknown", so that a profile sums to 1.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/query.h"

#define GENRES_SEEN_MAX 512 /* names told apart; what comes after goes to "other" */

struct genre_table {
	size_t n;
	struct genre_share shares[GENRES_SEEN_MAX + 1]; /* the last is "other" */
};

/* The share of this genre, entered when new. */
static struct genre_share *find_genre(struct genre_table *table, const char *name)
{
	for (size_t i = 0; i < table->n; i++) {
		if (!strcmp(table->shares[i].genre, name))
			return &table->shares[i];
	}
	if (table->n == GENRES_SEEN_MAX)
		return &table->shares[GENRES_SEEN_MAX];
	memcpy(table->shares[table->n].genre, name, strlen(name) + 1);
	return &table->shares[table->n++];
}

/* Splits `weight` over the title's genres, in one column. */
static void add_title(struct genre_table *table, const struct state *state, uint32_t item, float weight, int recommended)
{
	struct item_title title;

	item_title_get(state, item, &title);
	if (!title.n_genres) {
		memcpy(title.genres[0], "unknown", sizeof("unknown"));
		title.n_genres = 1;
	}
	for (uint32_t i = 0; i < title.n_genres; i++) {
		struct genre_share *share = find_genre(table, title.genres[i]);

		if (recommended)
			share->recommended += weight / (float)title.n_genres;
		else
			share->watched += weight / (float)title.n_genres;
	}
}

static int compare_shares(const void *a, const void *b)
{
	const struct genre_share *x = a, *y = b;
	float largest_x = fmaxf(x->watched, x->recommended), largest_y = fmaxf(y->watched, y->recommended);

	if (largest_x != largest_y)
		return largest_x < largest_y ? 1 : -1;
	return strcmp(x->genre, y->genre);
}

/* Fills the explanation's profile from `liked` and its own items. */
static int fill_genres(const struct state *state, const uint32_t *liked, size_t n_liked, struct explanation *explanation)
{
	struct genre_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < n_liked; i++)
		add_title(table, state, liked[i], 1.0f / (float)n_liked, 0);
	for (size_t i = 0; i < explanation->n_items; i++)
		add_title(table, state, explanation->items[i].ranked.item, 1.0f / (float)explanation->n_items, 1);
	qsort(table->shares, table->n, sizeof(table->shares[0]), compare_shares);

	struct genre_share *other = &table->shares[GENRES_SEEN_MAX];
	for (size_t i = EXPLAIN_GENRES; i < table->n; i++) {
		other->watched += table->shares[i].watched;
		other->recommended += table->shares[i].recommended;
	}
	explanation->n_genres = table->n < EXPLAIN_GENRES ? table->n : EXPLAIN_GENRES;
	memcpy(explanation->genres, table->shares, explanation->n_genres * sizeof(table->shares[0]));
	if (table->n > EXPLAIN_GENRES) {
		memcpy(other->genre, "other", sizeof("other"));
		explanation->genres[explanation->n_genres++] = *other;
	}
	free(table);
	return 0;
}

static float dot(const float *a, const float *b, size_t n)
{
	float sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* Keeps the EXPLAIN_NEAREST best, best first; ties by lower item. */
static void offer_nearest(struct explained_item *explained, uint32_t item, float similarity)
{
	uint32_t at = explained->n_nearest;

	while (at && (similarity > explained->nearest[at - 1].similarity ||
	              (similarity == explained->nearest[at - 1].similarity && item < explained->nearest[at - 1].item)))
		at--;
	if (at == EXPLAIN_NEAREST)
		return;
	if (explained->n_nearest < EXPLAIN_NEAREST)
		explained->n_nearest++;
	for (uint32_t i = explained->n_nearest - 1; i > at; i--)
		explained->nearest[i] = explained->nearest[i - 1];
	explained->nearest[at].item = item;
	explained->nearest[at].similarity = similarity;
}

static void fill_nearest(const struct tables *tables, const uint32_t *liked, size_t n_liked, struct explanation *explanation)
{
	for (size_t w = 0; w < n_liked; w++) {
		if (liked[w] >= tables->n_items)
			continue;
		const float *watched = tables->V + (size_t)liked[w] * tables->dim;
		float watched_norm = sqrtf(dot(watched, watched, tables->dim));

		for (size_t i = 0; i < explanation->n_items; i++) {
			uint32_t item = explanation->items[i].ranked.item;

			if (item >= tables->n_items)
				continue;
			const float *row = tables->V + (size_t)item * tables->dim;
			float norm = watched_norm * sqrtf(dot(row, row, tables->dim));
			if (norm > 0)
				offer_nearest(&explanation->items[i], liked[w], dot(watched, row, tables->dim) / norm);
		}
	}
}

/* The titles to explain by: the positives, or everything watched when there are none. liked [n_watches]. */
static size_t liked_items(const struct state *state, const struct user_facts *facts, uint32_t *liked, uint32_t *ret_n_positives)
{
	size_t n = state_positives(state, facts, liked, facts->n_watches);

	*ret_n_positives = (uint32_t)n;
	if (n)
		return n;
	for (uint32_t i = 0; i < facts->n_watches; i++)
		liked[i] = facts->watches[i].item;
	return facts->n_watches;
}

int query_explain(const struct generation *generation, const struct state *state, const struct user_facts *facts,
                  const struct query_options *options, struct query_scratch *scratch, struct explanation **ret_explanation)
{
	size_t n_watches = facts ? facts->n_watches : 0, n_liked = 0;
	struct explanation *explanation = calloc(1, sizeof(*explanation) + options->k * sizeof(explanation->items[0]));
	struct ranked_item *ranked = malloc((options->k + 1u) * sizeof(*ranked));
	uint32_t *liked = calloc(n_watches + 1, sizeof(*liked));
	int rc = -ENOMEM;

	if (!explanation || !ranked || !liked)
		goto out;
	explanation->items = (struct explained_item *)(explanation + 1);
	rc = query_top(generation, state, facts, options, scratch, ranked, &explanation->n_items, &explanation->served);
	if (rc)
		goto out;
	for (size_t i = 0; i < explanation->n_items; i++)
		explanation->items[i].ranked = ranked[i];
	if (facts) {
		explanation->watched_count = facts->n_watches;
		n_liked = liked_items(state, facts, liked, &explanation->positive_count);
	}
	rc = fill_genres(state, liked, explanation->positive_count, explanation);
	if (rc)
		goto out;
	fill_nearest(&generation->tables, liked, n_liked, explanation);
	*ret_explanation = explanation;
	explanation = NULL;
out:
	explanation_free(explanation);
	free(ranked);
	free(liked);
	return rc;
}

void explanation_free(struct explanation *explanation)
{
	free(explanation);
}
