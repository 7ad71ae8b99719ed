/*
 * test_topk.c: topk_scan() and the selection against a naive reference: score everything in double, sort, cut.
 *
 * The kernel sums in another order than the reference, so random tables have values that are small multiples of 1/8: every product and sum is exact
 * in float, whatever the order, and ties are frequent. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/topk.h"

static uint64_t rng = 88172645463325252u;

static uint32_t below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng >> 32) % n);
}

static float eighths(void)
{
	return (float)((int)below(17) - 8) / 8.0f;
}

static struct tables random_tables(uint32_t n_items, uint32_t dim)
{
	struct tables tables = { .n_items = n_items, .dim = dim, .cap_items = n_items };

	tables.V = malloc(((size_t)n_items * dim + 1) * sizeof(float));
	tables.bi = malloc((n_items + 1u) * sizeof(float));
	assert_non_null(tables.V);
	assert_non_null(tables.bi);
	for (size_t i = 0; i < (size_t)n_items * dim; i++)
		tables.V[i] = eighths();
	for (uint32_t i = 0; i < n_items; i++)
		tables.bi[i] = eighths();
	return tables;
}

static void free_tables(struct tables *tables)
{
	free(tables->V);
	free(tables->bi);
}

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked_item *x = a, *y = b;

	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return (x->item > y->item) - (x->item < y->item);
}

/* All unmasked items, best first; returns how many. */
static size_t naive(const struct tables *tables, const float *row, const uint32_t *masked, size_t n_masked, struct ranked_item *out)
{
	size_t n = 0;

	for (uint32_t i = 0; i < tables->n_items; i++) {
		double score = tables->bi[i];
		int skip = 0;

		for (size_t m = 0; m < n_masked; m++)
			skip |= masked[m] == i;
		for (uint32_t d = 0; d < tables->dim; d++)
			score += (double)row[d] * (double)tables->V[(size_t)i * tables->dim + d];
		if (!skip)
			out[n++] = (struct ranked_item){ i, (float)score, 0 };
	}
	qsort(out, n, sizeof(*out), compare_ranked);
	return n;
}

/* One random case: `mask_chance` of 16 items are masked. */
static void check_case(uint32_t n_items, uint32_t dim, uint32_t k, uint32_t mask_chance)
{
	struct tables tables = random_tables(n_items, dim);
	struct ranked_item *expected = malloc((n_items + 1u) * sizeof(*expected)), *got = malloc((k + 1u) * sizeof(*got));
	uint32_t *masked = malloc((n_items + 3u) * sizeof(*masked));
	float *row = malloc(dim * sizeof(*row));
	struct query_scratch scratch = { 0 };
	size_t n_masked = 0;

	assert_true(expected && got && masked && row);
	for (uint32_t i = 0; i < n_items; i++) {
		if (below(16) < mask_chance)
			masked[n_masked++] = i;
	}
	masked[n_masked++] = n_items + 5; /* an item newer than the tables */
	for (uint32_t d = 0; d < dim; d++)
		row[d] = eighths();
	memset(got, 0xee, (k + 1u) * sizeof(*got));

	size_t n_expected = naive(&tables, row, masked, n_masked, expected);
	size_t n = topk_scan(&tables, row, 0.5f, masked, n_masked, k, &scratch, got);
	assert_int_equal(n, n_expected < k ? n_expected : k);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(got[i].item, expected[i].item);
		assert_true(got[i].score == expected[i].score + 0.5f);
		assert_true(fabsf(got[i].conf - 1.0f / (1.0f + expf(-got[i].score))) < 1e-6f);
	}
	assert_int_equal(got[n].item, 0xeeeeeeee); /* nothing is written past what is returned */
	query_scratch_free(&scratch);
	free_tables(&tables);
	free(expected);
	free(got);
	free(masked);
	free(row);
}

static void random_sizes(void **state)
{
	(void)state;
	for (int round = 0; round < 400; round++)
		check_case(1 + below(1200), 1 + below(140), 1 + below(60), below(17));
}

static void every_dimension(void **state)
{
	(void)state;
	for (uint32_t dim = 1; dim <= 130; dim++)
		check_case(70 + below(4), dim, 10, 2);
}

static void corners(void **state)
{
	(void)state;
	check_case(0, 8, 5, 0);     /* no items */
	check_case(1, 1, 1, 0);
	check_case(300, 16, 1000, 0); /* k above the number of items */
	check_case(300, 16, 300, 0);  /* k equal to it */
	check_case(300, 16, 10, 16);  /* everything masked */
	check_case(1000, 3, 1000, 3);
	check_case(256, 64, 255, 0); /* whole blocks */
	check_case(512, 64, 1, 0);
	check_case(257, 64, 257, 1);
}

/* All scores equal: the lowest indexes win, in order. */
static void ties_go_to_the_lower_index(void **state)
{
	struct ranked_item got[7];
	struct topk topk;
	float scores[50] = { 0 };

	(void)state;
	topk_begin(&topk, NULL, 0, 7, got);
	for (uint32_t first = 0; first < 1000; first += 50)
		topk_offer(&topk, scores, 50, first);
	assert_int_equal(topk_end(&topk), 7);
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(got[i].item, i);
}

static void what_is_no_number_is_left_out(void **state)
{
	float scores[5] = { 1, NAN, INFINITY, -INFINITY, 2 };
	struct ranked_item got[5];
	struct topk topk;

	(void)state;
	topk_begin(&topk, NULL, 0, 5, got);
	topk_offer(&topk, scores, 5, 0);
	assert_int_equal(topk_end(&topk), 3);
	assert_int_equal(got[0].item, 2);
	assert_int_equal(got[1].item, 4);
	assert_int_equal(got[2].item, 0);

	topk_begin(&topk, NULL, 0, 0, got); /* k = 0 */
	topk_offer(&topk, scores, 5, 0);
	assert_int_equal(topk_end(&topk), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sizes),
		cmocka_unit_test(every_dimension),
		cmocka_unit_test(corners),
		cmocka_unit_test(ties_go_to_the_lower_index),
		cmocka_unit_test(what_is_no_number_is_left_out),
	};

	return cmocka_run_group_tests_name("topk", tests, NULL, NULL);
}
