/*
 * query.c: top-K for a user: picks the model that serves him, masks what he has watched, ranks.
 *
 * Any thread, with a scratch of its own. Reads a pinned generation, a copy of the user's facts, and the state's counters of popularity; changes
 * nothing. The personal row lies in the facts as a difference: what is served is the generation's row plus that difference, so
 * that training and fold-in both show at once. A user who joined after the generation was published has no row in it and starts from the mean row.
 */
#include "trainer/model/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/topk.h"

#define POPULARITY_BLOCK 256

const char *served_name(enum served served)
{
	switch (served) {
	case SERVED_PERSONALIZED:
		return "personalized";
	case SERVED_GLOBAL:
		return "global";
	case SERVED_POPULARITY:
		break;
	}
	return "popularity";
}

void query_scratch_free(struct query_scratch *scratch)
{
	free(scratch->buf);
	*scratch = (struct query_scratch){ 0 };
}

/* At least `size` bytes, content not kept. NULL when out of memory. */
static void *scratch_reserve(struct query_scratch *scratch, size_t size)
{
	if (size > scratch->capacity) {
		size_t capacity = size + size / 2;
		void *buf = malloc(capacity);

		if (!buf)
			return NULL;
		free(scratch->buf);
		scratch->buf = buf;
		scratch->capacity = capacity;
	}
	return scratch->buf;
}

static int compare_items(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The items of every watch, whatever its completion, ascending. */
static size_t masked_items(const struct user_facts *facts, uint32_t *ret_items)
{
	if (!facts)
		return 0;
	for (uint32_t i = 0; i < facts->n_watches; i++)
		ret_items[i] = facts->watches[i].item;
	qsort(ret_items, facts->n_watches, sizeof(*ret_items), compare_items);
	return facts->n_watches;
}

/* Header of the user's personal row; 0 when there is none or it must not serve. The row has no promised alignment. */
static int personal_serves(const void *personal, size_t n_positives, const struct query_options *options, struct personal_row *ret_row)
{
	if (!personal || n_positives < options->personalize_min_positives)
		return 0;
	memcpy(ret_row, personal, sizeof(*ret_row));
	if (!ret_row->generation)
		return 0;
	return !options->personal_max_age_us || options->model_clock_us - ret_row->fitted_us <= options->personal_max_age_us;
}

enum served query_row(const struct generation *generation, uint32_t user, size_t n_positives, const void *personal, const struct query_options *options,
                      float *ret_row, float *ret_bu)
{
	const struct tables *tables = &generation->tables;
	struct personal_row header;

	if (!n_positives || !tables->n_items)
		return SERVED_POPULARITY;
	int has_row = user < tables->n_users;
	memcpy(ret_row, has_row ? tables->U + (size_t)user * tables->dim : generation->mean_user, tables->dim * sizeof(*ret_row));
	if (personal_serves(personal, n_positives, options, &header)) {
		const char *difference = (const char *)personal + offsetof(struct personal_row, difference);

		for (uint32_t d = 0; d < tables->dim; d++) {
			float value;

			memcpy(&value, difference + d * sizeof(value), sizeof(value));
			ret_row[d] += value;
		}
		*ret_bu = header.bu;
		return SERVED_PERSONALIZED;
	}
	if (!has_row)
		return SERVED_POPULARITY;
	*ret_bu = tables->bu[user];
	return SERVED_GLOBAL;
}

/* Items by the number of users who watched them far enough. Counts up to 2^24 are exact as float. */
static size_t rank_by_popularity(const struct state *state, const uint32_t *masked, size_t n_masked, uint32_t k, struct ranked_item *ret_items)
{
	uint32_t n_items = state_n_items(state), n_users = state_n_users(state);
	float scores[POPULARITY_BLOCK];
	struct topk topk;

	topk_begin(&topk, masked, n_masked, k, ret_items);
	for (uint32_t first = 0; first < n_items; first += POPULARITY_BLOCK) {
		uint32_t n = n_items - first < POPULARITY_BLOCK ? n_items - first : POPULARITY_BLOCK;

		for (uint32_t j = 0; j < n; j++)
			scores[j] = (float)state_item_popularity(state, first + j);
		topk_offer(&topk, scores, n, first);
	}
	size_t n = topk_end(&topk);
	for (size_t i = 0; i < n; i++)
		ret_items[i].conf = n_users ? ret_items[i].score / (float)n_users : 0;
	return n;
}

int query_top(const struct generation *generation, const struct state *state, const struct user_facts *facts, const struct query_options *options,
              struct query_scratch *scratch, struct ranked_item *ret_items, size_t *ret_n, enum served *ret_served)
{
	size_t n_watches = facts ? facts->n_watches : 0, dim = generation->tables.dim;
	float *row = scratch_reserve(scratch, dim * sizeof(*row) + n_watches * sizeof(uint32_t) + 1);

	if (!row)
		return -ENOMEM;
	uint32_t *masked = (void *)(row + dim);
	size_t n_masked = masked_items(facts, masked), n;
	float bu = 0;
	enum served served = SERVED_POPULARITY;

	if (facts)
		served = query_row(generation, facts->user, state_positives(state, facts, NULL, 0), facts->row, options, row, &bu);

	if (served == SERVED_POPULARITY)
		n = rank_by_popularity(state, masked, n_masked, options->k, ret_items);
	else
		n = topk_scan(&generation->tables, row, bu, masked, n_masked, options->k, scratch, ret_items);
	*ret_n = n;
	*ret_served = served;
	return 0;
}

uint32_t query_fitted_positives(const struct user_facts *facts, enum served served)
{
	struct personal_row row;

	if (served != SERVED_PERSONALIZED || !facts || !facts->row)
		return 0;
	memcpy(&row, facts->row, sizeof(row)); /* it has no promised alignment */
	return row.n_positives;
}
