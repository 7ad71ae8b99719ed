/*
 * test_baseline.c: item-kNN and popularity against naive ones, judging by groups, calibration by hand and on draws from a known truth.
 */
#include "daemon/recctl/baseline.h"
#include "daemon/recctl/fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define USERS 60u
#define ITEMS 40u

static const struct state_rules rules = { .min_pos_completion = 0.6f, .negative_after_us = 60 * INT64_C(1000000) };
static uint8_t likes[USERS][ITEMS];

static uint32_t draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* A state whose indexes are the ids; user 0 has nothing but a watch given up, item ITEMS - 1 nobody. */
static struct state *make_state(void)
{
	struct event_batch *batch = event_batch_new();
	struct state *state;
	char text[256];
	uint32_t seed = 5;

	assert_non_null(batch);
	assert_int_equal(load_new_state(&rules, &state, text, sizeof(text)), 0);
	event_batch_clear(batch);
	batch->stream = STREAM_WATCHES;
	for (uint32_t u = 0; u < USERS; u++) {
		for (uint32_t i = 0; i < ITEMS; i++) {
			likes[u][i] = u > 0 && i < ITEMS - 1 && draw(&seed) % (2 + i / 2 + (u % 3 == i % 3 ? 0 : 9)) < 2;
			batch->events[batch->n_events++] = (struct event){ .user_id = u, .item_id = i, .stream = STREAM_WATCHES, .flags = EVENT_HAS_COMPLETION,
				                                           .completion = likes[u][i] ? 0.9f : 0.1f };
		}
	}
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_free(batch);
	return state;
}

/* Straight from the definition. */
static void naive_knn(uint32_t user, uint32_t neighbours, double shrink, double *scores)
{
	for (uint32_t i = 0; i < ITEMS; i++)
		scores[i] = 0;
	for (uint32_t j = 0; j < ITEMS; j++) {
		double similarity[ITEMS];

		if (!likes[user][j])
			continue;
		for (uint32_t i = 0; i < ITEMS; i++) {
			uint32_t common = 0, of_i = 0, of_j = 0;

			for (uint32_t u = 0; u < USERS; u++) {
				common += likes[u][i] && likes[u][j];
				of_i += likes[u][i];
				of_j += likes[u][j];
			}
			similarity[i] = i == j || !common ? 0 : common / (sqrt((double)of_i * of_j) + shrink);
		}
		for (uint32_t i = 0; i < ITEMS; i++) {
			uint32_t better = 0;

			for (uint32_t other = 0; other < ITEMS; other++)
				better += (float)similarity[other] > (float)similarity[i] || ((float)similarity[other] == (float)similarity[i] && other < i);
			if (better < neighbours)
				scores[i] += similarity[i];
		}
	}
}

static void test_knn(void **test)
{
	static const struct { uint32_t neighbours; double shrink; } cases[] = { { 1, 0 }, { 3, 10 }, { 100, 0 }, { 100, 25 } };
	struct state *state = make_state();
	struct popularity_scores popularity;
	float scores[ITEMS + 1];
	double expected[ITEMS];

	(void)test;
	assert_int_equal(popularity_scores_make(state, 1, &popularity), 0);
	for (size_t c = 0; c < 4; c++) {
		struct knn_scores *knn;

		assert_int_equal(knn_scores_make(state, &popularity, cases[c].neighbours, cases[c].shrink, 2, &knn), 0);
		for (uint32_t u = 0; u < USERS; u++) {
			naive_knn(u, cases[c].neighbours, cases[c].shrink, expected);
			knn_score(knn, u, scores);
			for (uint32_t i = 0; i < ITEMS; i++) {
				if (expected[i] > 0)
					assert_true(fabs((double)scores[i] - expected[i]) < 1e-5);
				else
					assert_true(scores[i] < 0 && scores[i] == popularity.scores[i] / (popularity.scores[0] + 1) - 1);
			}
			assert_true(scores[ITEMS] == -1.0f); /* an item that is not in the state */
		}
		knn_score(knn, STATE_NONE, scores);
		assert_true(scores[0] < 0 && scores[0] > scores[ITEMS - 1]);
		knn_scores_free(knn);
	}
	popularity_scores_free(&popularity);
	state_free(state);
}

static void test_popularity(void **test)
{
	struct state *state = make_state();
	struct popularity_scores popularity;
	double sum = 0;

	(void)test;
	assert_int_equal(popularity_scores_make(state, 2, &popularity), 0);
	assert_int_equal(popularity.n_items, ITEMS + 2);
	for (uint32_t i = 0; i < ITEMS + 2; i++) {
		uint32_t below = 0, equal = 0;

		for (uint32_t j = 0; j < ITEMS + 2; j++) {
			below += popularity.scores[j] < popularity.scores[i];
			equal += popularity.scores[j] == popularity.scores[i];
		}
		assert_true(fabsf(popularity.percentile[i] - ((float)below + (float)equal / 2) / (ITEMS + 2)) < 1e-6f);
		sum += (double)popularity.percentile[i];
	}
	assert_true(fabs(sum / (ITEMS + 2) - 0.5) < 1e-6);
	for (uint32_t i = 0; i < ITEMS; i++) {
		uint32_t users = 0;

		for (uint32_t u = 0; u < USERS; u++)
			users += likes[u][i];
		assert_true(popularity.scores[i] == (float)users);
	}
	popularity_scores_free(&popularity);
	state_free(state);
}

/* Item 0 first, always. */
static void one_list(void *ctx, uint32_t user, float *scores)
{
	(void)ctx;
	(void)user;
	for (uint32_t i = 0; i < 4; i++)
		scores[i] = 1 - (float)i / 4;
}

static void test_judging_by_groups(void **test)
{
	static uint32_t items[] = { 0, 1, 3, 0 };
	/* a new user who wants item 0; a rare one who wants 1 and has 0 masked; a heavy one who wants 3 */
	struct rank_user users[] = { { .user = 9, .relevant = items, .n_relevant = 1 },
		                     { .user = 1, .relevant = items + 1, .n_relevant = 1, .masked = items + 3, .n_masked = 1 },
		                     { .user = 2, .relevant = items + 2, .n_relevant = 1 } };
	static const float percentile[] = { 1, 0.5f, 0.25f, 0 };
	const struct split split = { .users = users, .group_begin = { 0, 1, 2, 3 } };
	const struct judge_options options = { .ks = { 1, 4 }, .n_ks = 2, .n_items = 4, .threads = 1, .resamples = 200, .seed = 1, .percentile = percentile };
	struct judged judged;

	(void)test;
	assert_int_equal(judge(&split, &options, one_list, NULL, "judging", &judged), 0);
	const struct rank_estimate *all = judged.figures[GROUP_COUNT];
	assert_int_equal(judged.users[GROUP_COUNT], 3);
	assert_int_equal(judged.users[GROUP_RARE], 1);
	assert_true(fabs(all[rank_column(0, RANK_RECALL)].mean - 2.0 / 3) < 1e-6);
	assert_true(judged.figures[GROUP_HEAVY][rank_column(0, RANK_RECALL)].mean == 0);
	assert_true(all[rank_column(1, RANK_RECALL)].mean == 1);
	assert_true(fabs(all[rank_column(1, RANK_NDCG)].mean - (1 + 1 + 1 / log2(5)) / 3) < 1e-6);
	assert_true(fabs(all[RANK_MRR].mean - (1 + 1 + 0.25) / 3) < 1e-6);
	assert_true(fabs(all[rank_column(0, RANK_POPULARITY)].mean - 2.5 / 3) < 1e-6); /* items 0, 1, 0 */
	assert_true(judged.coverage[0] == 0.5 && judged.coverage[1] == 1);
	assert_true(all[rank_column(0, RANK_RECALL)].low == 0 && all[rank_column(0, RANK_RECALL)].high == 1);
	json_t *json = judged_json(&judged, &options);
	assert_non_null(json);
	assert_true(json_real_value(json_object_get(json_object_get(json_object_get(json, "at"), "4"), "recall")) == 1);
	assert_int_equal(json_array_size(json_object_get(json_object_get(json, "interval"), "ndcg")), 2);
	json_decref(json);
}

static void test_calibration(void **test)
{
	/* conf 0.5, 0.5, 0.5, 0.5 and outcomes 1, 0, 0, 0; conf 0.9 twice, both 1 */
	const float score = logf(9);
	const struct observation few[] = { { 0, 1 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { score, 1 }, { score, 1 } };
	const struct observation one_sided[] = { { 0, 1 }, { 1, 1 } };
	struct calibration c = calibration_of(few, 6);
	static struct observation many[200000];
	uint32_t seed = 3;

	(void)test;
	assert_int_equal(c.decided, 6);
	assert_true(fabs(c.mean_conf - (4 * 0.5 + 2 * 0.9) / 6) < 1e-6);
	assert_true(fabs(c.watch_rate - 0.5) < 1e-9);
	assert_true(fabs(c.error - (4.0 / 6 * 0.25 + 2.0 / 6 * 0.1)) < 1e-6);
	assert_true(isnan(calibration_of(NULL, 0).error) && isnan(calibration_of(one_sided, 2).slope));
	/* outcomes drawn with P = sigmoid(0.5 * score - 1): that is the slope and the intercept to find */
	for (size_t i = 0; i < 200000; i++) {
		float x = (float)draw(&seed) / 16777216.0f * 6 - 3;
		double p = 1 / (1 + exp(-(0.5 * (double)x - 1)));

		many[i] = (struct observation){ x, (double)draw(&seed) / 16777216.0 < p ? 1.0f : 0.0f };
	}
	c = calibration_of(many, 200000);
	assert_true(fabs(c.slope - 0.5) < 0.02 && fabs(c.intercept + 1) < 0.02);
	assert_true(c.error > 0.1);
	for (size_t i = 0; i < 200000; i++)
		many[i].score = 0.5f * many[i].score - 1;
	c = calibration_of(many, 200000);
	assert_true(fabs(c.slope - 1) < 0.03 && fabs(c.intercept) < 0.03 && c.error < 0.01);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_knn), cmocka_unit_test(test_popularity), cmocka_unit_test(test_judging_by_groups), cmocka_unit_test(test_calibration),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
