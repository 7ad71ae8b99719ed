/*
 * test_explain.c: genre profiles, nearest watched titles, and what is read of a catalogue line. One thread.
 */
#include "tests/unit/model/query_testing.h"

#include <math.h>

#define EPSILON 1e-5f

static const struct genre_share *find_genre(const struct explanation *explanation, const char *name)
{
	for (size_t i = 0; i < explanation->n_genres; i++) {
		if (!strcmp(explanation->genres[i].genre, name))
			return &explanation->genres[i];
	}
	return NULL;
}

static struct explanation *explain(struct world *w, int64_t user_id)
{
	uint32_t user = state_find_user(w->state, user_id);
	struct explanation *explanation = NULL;
	struct user_facts facts;

	if (user != STATE_NONE)
		state_user_facts(w->state, user, &facts);
	assert_int_equal(query_explain(&w->generation, w->state, user == STATE_NONE ? NULL : &facts, &w->options, &w->scratch, &explanation), 0);
	return explanation;
}

static void check_sums(const struct explanation *explanation, float watched, float recommended)
{
	float sum_watched = 0, sum_recommended = 0;

	for (size_t i = 0; i < explanation->n_genres; i++) {
		sum_watched += explanation->genres[i].watched;
		sum_recommended += explanation->genres[i].recommended;
	}
	assert_true(fabsf(sum_watched - watched) < 1e-4f);
	assert_true(fabsf(sum_recommended - recommended) < 1e-4f);
}

/* Items 0..5; user 1 watched 0 and 1 far enough, 2 not. */
static void world_genres(struct world *w)
{
	static const char *const docs[] = {
		"{\"item_id\":100,\"title\":\"A\",\"genres\":[\"drama\",\"crime\"],\"release_year\":2012}",
		"{\"item_id\":101,\"title\":\"B\",\"genres\":[\"drama\"]}",
		"{\"item_id\":102,\"title\":\"C\",\"genres\":[\"war\"]}",
		"{\"item_id\":103,\"title\":\"D\",\"genres\":[\"drama\",\"crime\",\"war\",\"music\"]}",
		"{\"item_id\":104,\"title\":\"E\"}",
		"{\"item_id\":105,\"title\":\"F\",\"genres\":[\"crime\"]}",
	};

	world_open(w);
	for (int i = 0; i < 6; i++)
		world_item(w, 100 + i, docs[i]);
	world_watch(w, 1, 100, 0.9f);
	world_watch(w, 1, 101, 0.8f);
	world_watch(w, 1, 102, 0.1f);
	w->generation.tables.n_users = 1;
	w->generation.tables.n_items = 6;
	w->U[0] = 1;
	/* directions: 0 along x, 1 along y, 2 between; 3 near x, 4 near y, 5 has no direction */
	const float V[12] = { 2, 0, 0, 1, 1, 1, 3, 0.3f, 0.2f, 2, 0, 0 };
	memcpy(w->V, V, sizeof(V));
}

static void genres_of_both_sides(void **state)
{
	struct world w;

	(void)state;
	world_genres(&w);
	struct explanation *e = explain(&w, 1);
	assert_int_equal(e->served, SERVED_GLOBAL);
	assert_int_equal(e->watched_count, 3);
	assert_int_equal(e->positive_count, 2);
	assert_int_equal(e->n_items, 3); /* 3, 4, 5 */
	assert_int_equal(e->items[0].ranked.item, 3);
	/* watched: (drama + crime)/2 and drama, each title a half; recommended: a third each */
	assert_true(fabsf(find_genre(e, "drama")->watched - 0.75f) < EPSILON);
	assert_true(fabsf(find_genre(e, "crime")->watched - 0.25f) < EPSILON);
	assert_true(fabsf(find_genre(e, "war")->watched) < EPSILON); /* watched, but not far enough */
	assert_true(fabsf(find_genre(e, "drama")->recommended - 1.0f / 12) < EPSILON);
	assert_true(fabsf(find_genre(e, "crime")->recommended - 5.0f / 12) < EPSILON);
	assert_true(fabsf(find_genre(e, "unknown")->recommended - 1.0f / 3) < EPSILON);
	check_sums(e, 1, 1);
	for (size_t i = 1; i < e->n_genres; i++) { /* by the larger share */
		assert_true(fmaxf(e->genres[i - 1].watched, e->genres[i - 1].recommended) >= fmaxf(e->genres[i].watched, e->genres[i].recommended));
	}
	explanation_free(e);
	world_close(&w);
}

static void nearest_watched_titles(void **state)
{
	struct world w;

	(void)state;
	world_genres(&w);
	struct explanation *e = explain(&w, 1);
	const struct explained_item *d = &e->items[0]; /* item 3, nearly along x */
	assert_int_equal(d->n_nearest, 2); /* the two that were watched far enough */
	assert_int_equal(d->nearest[0].item, 0);
	assert_true(fabsf(d->nearest[0].similarity - 3 / sqrtf(9.09f)) < EPSILON);
	assert_int_equal(d->nearest[1].item, 1);
	assert_true(fabsf(d->nearest[1].similarity - 0.3f / sqrtf(9.09f)) < EPSILON);
	for (size_t i = 0; i < e->n_items; i++) {
		if (e->items[i].ranked.item == 4)
			assert_int_equal(e->items[i].nearest[0].item, 1);
		if (e->items[i].ranked.item == 5)
			assert_int_equal(e->items[i].n_nearest, 0); /* no direction, nothing near */
	}
	explanation_free(e);
	world_close(&w);
}

static void the_three_nearest_of_many(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	world_items(&w, 12);
	w.generation.tables.n_users = 1;
	w.generation.tables.n_items = 12;
	w.U[1] = 1;
	for (int i = 0; i < 11; i++) { /* angles 0, 5, ... 50 degrees; watched in a mixed order */
		float angle = (float)i * 5.0f / 57.29578f;

		w.V[i * 2] = cosf(angle);
		w.V[i * 2 + 1] = sinf(angle);
		world_watch(&w, 1, 100 + (i * 7) % 11, 0.9f);
	}
	w.V[22] = cosf(22.0f / 57.29578f); /* item 11 at 22 degrees: nearest are 20, 25, 15 */
	w.V[23] = sinf(22.0f / 57.29578f);
	struct explanation *e = explain(&w, 1);
	assert_int_equal(e->n_items, 1);
	assert_int_equal(e->items[0].n_nearest, EXPLAIN_NEAREST);
	assert_int_equal(e->items[0].nearest[0].item, 4);
	assert_int_equal(e->items[0].nearest[1].item, 5);
	assert_int_equal(e->items[0].nearest[2].item, 3);
	explanation_free(e);
	world_close(&w);
}

static void without_positives_all_watched_titles_count(void **state)
{
	struct world w;

	(void)state;
	world_genres(&w);
	world_watch(&w, 2, 102, 0.3f);
	struct explanation *e = explain(&w, 2);
	assert_int_equal(e->served, SERVED_POPULARITY);
	assert_int_equal(e->watched_count, 1);
	assert_int_equal(e->positive_count, 0);
	assert_int_equal(e->items[0].n_nearest, 1);
	assert_int_equal(e->items[0].nearest[0].item, 2);
	check_sums(e, 0, 1); /* a profile is made of what was watched far enough */
	explanation_free(e);

	e = explain(&w, 999); /* nobody */
	assert_int_equal(e->watched_count, 0);
	assert_int_equal(e->items[0].n_nearest, 0);
	check_sums(e, 0, 1);
	explanation_free(e);
	explanation_free(NULL);
	world_close(&w);
}

static void rare_genres_are_folded(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	for (int i = 0; i < 30; i++) { /* 30 genres; the first one on every title */
		char doc[128];

		snprintf(doc, sizeof(doc), "{\"item_id\":%d,\"genres\":[\"g00\",\"g%02d\"]}", 100 + i, i);
		world_item(&w, 100 + i, doc);
		world_watch(&w, 1, 100 + i, 0.9f);
	}
	struct explanation *e = explain(&w, 1);
	assert_int_equal(e->n_items, 0);
	assert_int_equal(e->n_genres, EXPLAIN_GENRES + 1);
	assert_string_equal(e->genres[0].genre, "g00");
	assert_string_equal(e->genres[EXPLAIN_GENRES].genre, "other");
	assert_true(fabsf(e->genres[EXPLAIN_GENRES].watched - 12.0f / 60) < EPSILON); /* 30 genres, 18 shown */
	check_sums(e, 1, 0);
	explanation_free(e);
	world_close(&w);
}

static void what_a_line_says(void **state)
{
	struct item_title title;
	struct world w;
	char *doc = malloc(20000), *at;

	(void)state;
	assert_non_null(doc);
	world_open(&w);
	world_item(&w, 100, "{\"item_id\":100,\"title\":\"Das Boot\",\"release_year\":1981,\"genres\":[\"war\",\"drama\"],\"tags\":[\"x\"]}");
	world_item(&w, 101, "{\"item_id\":101,\"title\":5,\"release_year\":\"1981\",\"genres\":\"war\"}");
	world_item(&w, 102, "{\"item_id\":102,\"genres\":[7,\"\",\"a\",null,\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\"],\"release_year\":-3}");
	item_title_get(w.state, 0, &title);
	assert_string_equal(title.title, "Das Boot");
	assert_int_equal(title.release_year, 1981);
	assert_int_equal(title.n_genres, 2);
	assert_string_equal(title.genres[1], "drama");
	item_title_get(w.state, 1, &title); /* other types count as absent */
	assert_string_equal(title.title, "");
	assert_int_equal(title.release_year, 0);
	assert_int_equal(title.n_genres, 0);
	item_title_get(w.state, 2, &title);
	assert_int_equal(title.n_genres, 8);
	assert_string_equal(title.genres[0], "a");
	assert_string_equal(title.genres[7], "h");
	assert_int_equal(title.release_year, 0);

	/* a line longer than the first buffer; names cut at a whole character */
	at = doc + sprintf(doc, "{\"item_id\":103,\"title\":\"x");
	for (int i = 0; i < 200; i++)
		at += sprintf(at, "\xc3\xa9");
	at += sprintf(at, "\",\"genres\":[\"");
	for (int i = 0; i < 20; i++)
		at += sprintf(at, "\xe2\x82\xac");
	at += sprintf(at, "\"],\"tags\":[\"");
	memset(at, 't', 9000);
	strcpy(at + 9000, "\"]}");
	world_item(&w, 103, doc);
	item_title_get(w.state, 3, &title);
	assert_int_equal(strlen(title.title), 255); /* x and 127 characters of two bytes */
	assert_int_equal((unsigned char)title.title[254], 0xa9);
	assert_int_equal(strlen(title.genres[0]), 30); /* ten of three bytes: the eleventh does not fit in 31 */

	world_watch(&w, 1, 900, 0.9f); /* an item without a line */
	item_title_get(w.state, 4, &title);
	assert_string_equal(title.title, "");
	assert_int_equal(title.n_genres, 0);
	free(doc);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(genres_of_both_sides),
		cmocka_unit_test(nearest_watched_titles),
		cmocka_unit_test(the_three_nearest_of_many),
		cmocka_unit_test(without_positives_all_watched_titles_count),
		cmocka_unit_test(rare_genres_are_folded),
		cmocka_unit_test(what_a_line_says),
	};

	return cmocka_run_group_tests_name("explain", tests, NULL, NULL);
}
