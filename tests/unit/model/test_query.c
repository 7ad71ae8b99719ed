/*
 * test_query.c: which model serves a user, what it scores and what is masked. One thread.
 */
#include "tests/unit/model/query_testing.h"

#include <math.h>

#define EPSILON 1e-5f

static float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* Asks for user_id (facts NULL when nobody has seen him). */
static enum served ask(struct world *w, int64_t user_id, struct ranked_item *items, size_t *n)
{
	uint32_t user = state_find_user(w->state, user_id);
	struct user_facts facts;
	enum served served;

	if (user != STATE_NONE)
		state_user_facts(w->state, user, &facts);
	assert_int_equal(query_top(&w->generation, w->state, user == STATE_NONE ? NULL : &facts, &w->options, &w->scratch, items, n, &served), 0);
	return served;
}

/*
 * Six items. User 1 (index 0) watched 0, 1, 2 far enough and 3 not; user 2 (index 1) watched 0 far enough; user 3 (index 2) began 5 only. The
 * generation has two users and five items.
 */
static void world_small(struct world *w)
{
	world_open(w);
	world_items(w, 6);
	world_watch(w, 1, 100, 0.9f);
	world_watch(w, 1, 101, 0.6f);
	world_watch(w, 1, 102, 0.7f);
	world_watch(w, 1, 103, 0.2f);
	world_watch(w, 2, 100, 1.0f);
	world_watch(w, 3, 105, 0.1f);
	w->generation.tables.n_users = 2;
	w->generation.tables.n_items = 5;
	for (int i = 0; i < 6; i++) {
		w->V[i * 2] = (float)i;
		w->V[i * 2 + 1] = 1;
		w->bi[i] = 0.125f * (float)i;
	}
	w->U[0] = 1, w->U[1] = 0;   /* user 1 */
	w->U[2] = -1, w->U[3] = 2;  /* user 2 */
	w->bu[0] = -0.5f, w->bu[1] = 0.25f;
	w->mean[0] = 0.5f, w->mean[1] = 0;
}

static void give_row(struct world *w, int64_t user_id, uint64_t generation, int64_t fitted_us, float bu, float d0, float d1)
{
	uint32_t user = state_find_user(w->state, user_id);
	struct personal_row *row = state_row_begin(w->state, user);

	assert_non_null(row);
	row->generation = generation;
	row->fitted_us = fitted_us;
	row->bu = bu;
	row->difference[0] = d0;
	row->difference[1] = d1;
	state_row_end(w->state, user);
}

static void a_stranger_gets_what_is_popular(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	assert_int_equal(ask(&w, 77, items, &n), SERVED_POPULARITY);
	assert_int_equal(n, 6); /* every item the state knows, also those without a row */
	assert_int_equal(items[0].item, 0);
	assert_true(items[0].score == 2.0f);
	assert_true(fabsf(items[0].conf - 2.0f / 3.0f) < EPSILON);
	assert_int_equal(items[1].item, 1); /* one user each: the lower index first */
	assert_int_equal(items[2].item, 2);
	assert_int_equal(items[3].item, 3);
	assert_true(items[3].score == 0.0f);
	world_close(&w);
}

static void a_user_without_positives_gets_it_without_what_he_began(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	assert_int_equal(ask(&w, 3, items, &n), SERVED_POPULARITY);
	assert_int_equal(n, 5);
	for (size_t i = 0; i < n; i++)
		assert_int_not_equal(items[i].item, 5);
	world_close(&w);
}

static void the_global_row_scores(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	assert_int_equal(ask(&w, 2, items, &n), SERVED_GLOBAL);
	assert_int_equal(n, 4); /* five rows, one watched */
	for (size_t i = 0; i < n; i++) { /* -i + 2 + i/8 + 1/4 falls with i */
		float score = 2.25f - 0.875f * (float)(i + 1);

		assert_int_equal(items[i].item, i + 1);
		assert_true(fabsf(items[i].score - score) < EPSILON);
		assert_true(fabsf(items[i].conf - sigmoid(score)) < EPSILON);
	}
	w.options.k = 2;
	assert_int_equal(ask(&w, 2, items, &n), SERVED_GLOBAL);
	assert_int_equal(n, 2);
	world_close(&w);
}

static void everything_watched_is_masked(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	assert_int_equal(ask(&w, 1, items, &n), SERVED_GLOBAL); /* three positives, but no row of his own */
	assert_int_equal(n, 1); /* 3 was watched, too, if not far */
	assert_int_equal(items[0].item, 4);
	world_close(&w);
}

static void the_personal_row_is_global_now_plus_difference(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	give_row(&w, 1, 4, 1000, 0.75f, 0.5f, 3.0f);
	assert_int_equal(ask(&w, 1, items, &n), SERVED_PERSONALIZED);
	assert_int_equal(n, 1);
	assert_true(fabsf(items[0].score - (1.5f * 4 + 3.0f + 0.5f + 0.75f)) < EPSILON);
	w.U[0] = 2; /* training moved on: the answer moves with it */
	assert_int_equal(ask(&w, 1, items, &n), SERVED_PERSONALIZED);
	assert_true(fabsf(items[0].score - (2.5f * 4 + 3.0f + 0.5f + 0.75f)) < EPSILON);
	world_close(&w);
}

static void when_the_personal_row_does_not_serve(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	give_row(&w, 2, 4, 1000, 0, 1, 1);
	assert_int_equal(ask(&w, 2, items, &n), SERVED_GLOBAL); /* one positive is not enough */
	w.options.personalize_min_positives = 1;
	assert_int_equal(ask(&w, 2, items, &n), SERVED_PERSONALIZED);

	give_row(&w, 1, 4, 1000, 0, 1, 1);
	w.options.personalize_min_positives = 3;
	w.options.personal_max_age_us = 50;
	w.options.model_clock_us = 1050;
	assert_int_equal(ask(&w, 1, items, &n), SERVED_PERSONALIZED); /* at the limit */
	w.options.model_clock_us = 1051;
	assert_int_equal(ask(&w, 1, items, &n), SERVED_GLOBAL); /* past it */
	w.options.personal_max_age_us = 0;
	assert_int_equal(ask(&w, 1, items, &n), SERVED_PERSONALIZED); /* no limit */
	w.options.personalize_min_positives = 4;
	assert_int_equal(ask(&w, 1, items, &n), SERVED_GLOBAL);
	w.options.personalize_min_positives = 3;
	give_row(&w, 1, 0, 1000, 0, 1, 1); /* no row */
	assert_int_equal(ask(&w, 1, items, &n), SERVED_GLOBAL);
	world_close(&w);
}

static void a_user_newer_than_the_generation(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	for (int item = 100; item < 103; item++)
		world_watch(&w, 4, item, 0.8f);
	assert_int_equal(ask(&w, 4, items, &n), SERVED_POPULARITY); /* no row to serve with */
	give_row(&w, 4, 5, 0, 0.5f, 0.25f, 1.0f);
	assert_int_equal(ask(&w, 4, items, &n), SERVED_PERSONALIZED); /* the mean row plus the difference */
	assert_int_equal(n, 2);
	assert_int_equal(items[0].item, 4);
	assert_true(fabsf(items[0].score - (0.75f * 4 + 1.0f + 0.5f + 0.5f)) < EPSILON);
	assert_int_equal(items[1].item, 3);
	world_close(&w);
}

static void an_empty_generation_serves_popularity(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	w.generation.tables.n_users = w.generation.tables.n_items = 0;
	assert_int_equal(ask(&w, 1, items, &n), SERVED_POPULARITY);
	assert_int_equal(n, 2); /* 4 and 5 */
	world_close(&w);
}

static void a_forgotten_user_is_a_stranger(void **state)
{
	struct ranked_item items[10];
	struct world w;
	size_t n;

	(void)state;
	world_small(&w);
	give_row(&w, 1, 4, 1000, 0, 1, 1);
	assert_int_equal(state_forget(w.state, 1, 0), 0);
	assert_int_equal(ask(&w, 1, items, &n), SERVED_POPULARITY);
	assert_int_equal(n, 6); /* nothing is known to be watched */
	assert_true(items[0].score == 1.0f); /* and he does not count any more */
	world_close(&w);
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(served_name(SERVED_PERSONALIZED), "personalized");
	assert_string_equal(served_name(SERVED_GLOBAL), "global");
	assert_string_equal(served_name(SERVED_POPULARITY), "popularity");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stranger_gets_what_is_popular),
		cmocka_unit_test(a_user_without_positives_gets_it_without_what_he_began),
		cmocka_unit_test(the_global_row_scores),
		cmocka_unit_test(everything_watched_is_masked),
		cmocka_unit_test(the_personal_row_is_global_now_plus_difference),
		cmocka_unit_test(when_the_personal_row_does_not_serve),
		cmocka_unit_test(a_user_newer_than_the_generation),
		cmocka_unit_test(an_empty_generation_serves_popularity),
		cmocka_unit_test(a_forgotten_user_is_a_stranger),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests_name("query", tests, NULL, NULL);
}
