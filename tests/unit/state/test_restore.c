/*
 * test_restore.c: cut, then restore, gives the same state; and facts that no state could hold are refused (FAILURES row 41: nothing is believed).
 */
#include <math.h>

#include "tests/unit/state/state_testing.h"

#define NONE STATE_TIME_NONE

/* A new state with everything of the cut. */
static struct state *restored(struct state *from, struct state *into)
{
	struct state_cut *cut;
	struct user_copy copy = {0};

	assert_int_equal(state_cut_begin(from, &cut), 0);
	assert_int_equal(state_restore_items(into, state_item_ids(from), state_cut_n_items(cut)), 0);
	for (uint32_t i = 1; i <= state_cut_n_surfaces(cut); i++)
		assert_int_equal(state_restore_surface(into, state_surface_name(from, (uint16_t)i)), 0);
	for (uint32_t i = 0; i < state_cut_n_items(cut); i++) {
		size_t len;
		const char *doc = state_cut_catalogue_doc(cut, i, &len);
		if (doc)
			assert_int_equal(state_restore_catalogue(into, i, doc, len), 0);
	}
	while (state_cut_next(cut, &copy) == 1)
		assert_int_equal(state_restore_user(into, state_user_ids(from)[copy.facts.user], &copy.facts), 0);
	struct state_counters counters = state_cut_counters(cut);
	assert_int_equal(state_restore_end(into, &counters, state_cut_time_max_us(cut)), 0);
	user_copy_free(&copy);
	state_cut_end(cut);
	return into;
}

static void grow(struct state *state, uint64_t seed, int n)
{
	struct event_batch *batch = event_batch_new();

	event_batch_clear(batch);
	for (int i = 0; i < n; i++) {
		int64_t user = random_below(&seed, 90), item = random_below(&seed, 300), time_us = random_below(&seed, 5000);
		float completion = (float)random_below(&seed, 101) / 100.f;
		switch (random_below(&seed, 5)) {
		case 0: batch_add(batch, watch_event(user, item, time_us, completion, 60.f * completion), NULL, NULL); break;
		case 1: batch_add(batch, watch_event(user, item, time_us, -1.f, 100.f * completion), NULL, NULL); break;
		case 2: batch_add(batch, touch_event(user, item, time_us, (enum event_type)random_below(&seed, 4)), NULL, NULL); break;
		case 3: batch_add(batch, rate_event(user, item, time_us, completion), NULL, NULL); break;
		default: batch_add(batch, shown_event(user, item, time_us, 3), random_below(&seed, 2) ? "home" : "search", NULL); break;
		}
		if (batch->n_events == 1000 || i == n - 1) {
			assert_int_equal(state_apply(state, batch), 0);
			event_batch_clear(batch);
		}
	}
	event_batch_free(batch);
}

static void test_round_trip(void **unused)
{
	struct state *a = new_state(), *b = new_state_with(1000, 1000, 8, 16, 99); /* another hash seed */
	struct state_counters ca, cb;
	struct state_changes changes;
	struct user_copy copy = {0};
	size_t candidates = 0;

	(void)unused;
	for (int64_t item = 0; item < 100; item++) {
		char doc[100];
		snprintf(doc, sizeof(doc), "{\"item_id\":%lld,\"title\":\"T\",\"duration_sec\":%g}", (long long)item, 50.25 + (double)item);
		apply_catalogue_line(a, item, 50.25 + (double)item, doc);
	}
	grow(a, 5, 20000);
	assert_int_equal(state_forget(a, 7, 0), 0);
	assert_int_equal(state_forget(a, 5000, 0), 0);
	memset(state_row_begin(a, 3), 0x5A, 16);
	state_row_end(a, 3);
	restored(a, b);

	assert_same_digest(state_digest(a), state_digest(b));
	ca = state_counters(a);
	cb = state_counters(b);
	assert_memory_equal(&ca, &cb, sizeof(ca));
	assert_int_equal(state_time_max_us(a), state_time_max_us(b));
	assert_int_equal(state_n_users(a), state_n_users(b));
	for (uint32_t i = 0; i < state_n_items(a); i++) {
		assert_int_equal(state_item_popularity(a, i), state_item_popularity(b, i));
		assert_true(state_item_duration_sec(a, i) == state_item_duration_sec(b, i));
	}
	assert_int_equal(state_user_copy(b, 3, &copy), 0);
	assert_int_equal(((const uint8_t *)copy.facts.row)[15], 0x5A);
	assert_int_equal(facts_of(b, 7).forgotten, 1);
	state_changes_get(b, &changes);
	assert_int_equal(changes.rebuild, 1);
	for (uint32_t i = 0; i < changes.n_candidates; i++)
		candidates += state_item_popularity(b, changes.candidates[i]) > 0;
	for (uint32_t i = 0; i < state_n_items(b); i++)
		candidates -= state_item_popularity(b, i) > 0;
	assert_int_equal(candidates, 0); /* every popular item is a candidate */

	/* both go on alike */
	grow(a, 6, 20000);
	grow(b, 6, 20000);
	assert_same_digest(state_digest(a), state_digest(b));
	for (uint32_t i = 0; i < state_n_items(a); i++)
		assert_int_equal(state_item_popularity(a, i), state_item_popularity(b, state_find_item(b, state_item_ids(a)[i])));
	user_copy_free(&copy);
	state_free(a);
	state_free(b);
}

static void test_empty_round_trip(void **unused)
{
	struct state *a = new_state(), *b = new_state();

	(void)unused;
	restored(a, b);
	assert_same_digest(state_digest(a), state_digest(b));
	assert_int_equal(state_time_max_us(b), STATE_TIME_NONE);
	state_free(a);
	state_free(b);
}

/* A state with three items and two surfaces ("b" before "a"), ready for users. */
static struct state *waiting_for_users(void)
{
	struct state *state = new_state_with(3, 4, 2, 16, 1);
	const int64_t items[3] = {30, 20, 10};

	assert_int_equal(state_restore_items(state, items, 3), 0);
	assert_int_equal(state_restore_surface(state, "b"), 0);
	assert_int_equal(state_restore_surface(state, "a"), 0);
	return state;
}

static void test_bad_watches(void **unused)
{
	const struct watch_fact good = {0, 0.5f, 10.f, 5, 9};
	const struct {
		struct watch_fact watch;
		int r;
	} cases[] = {
		{{0, 0.5f, 10.f, 5, 9}, 0},
		{{2, -1.f, -1.f, NONE, 9}, 0},
		{{1, 1.f, 0.f, 9, 9}, 0},
		{{3, 0.5f, 10.f, 5, 9}, -EINVAL},          /* no such item */
		{{UINT32_MAX, 0.5f, 10.f, 5, 9}, -EINVAL},
		{{0, 1.01f, 10.f, 5, 9}, -EINVAL},
		{{0, -0.5f, 10.f, 5, 9}, -EINVAL},
		{{0, NAN, 10.f, 5, 9}, -EINVAL},
		{{0, 0.5f, -2.f, 5, 9}, -EINVAL},
		{{0, 0.5f, INFINITY, 5, 9}, -EINVAL},
		{{0, 0.5f, NAN, 5, 9}, -EINVAL},
		{{0, 0.5f, 10.f, 10, 9}, -EINVAL},         /* best after last */
		{{0, 0.5f, 10.f, NONE, 9}, -EINVAL},
		{{0, -1.f, 10.f, 5, 9}, -EINVAL},
		{{0, -1.f, 10.f, NONE, NONE}, -EINVAL},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct state *state = waiting_for_users();
		struct user_facts facts = {.n_watches = 1, .watches = &cases[i].watch};
		if (state_restore_user(state, 1, &facts) != cases[i].r)
			fail_msg("watch %zu", i);
		state_free(state);
	}
	struct state *state = waiting_for_users();
	const struct watch_fact twice[] = {good, {1, 0.5f, 10.f, 5, 9}, good};
	assert_int_equal(state_restore_user(state, 1, &(struct user_facts){.n_watches = 3, .watches = twice}), -EINVAL);
	state_free(state);
}

static void test_bad_touches(void **unused)
{
	const struct {
		struct touch_fact touch;
		int r;
	} cases[] = {
		{{0, 0.f, 5, NONE, NONE, 0, NONE}, 0},
		{{2, 3.f, NONE, NONE, 5, -1, 6}, 0},
		{{3, 0.f, 5, NONE, NONE, 0, NONE}, -EINVAL},
		{{0, 0.f, NONE, NONE, NONE, 0, NONE}, -EINVAL}, /* nothing happened */
		{{0, 0.f, NONE, NONE, 5, 0, NONE}, -EINVAL},
		{{0, 0.f, NONE, NONE, NONE, 1, NONE}, -EINVAL},
		{{0, 0.f, NONE, NONE, 5, 2, NONE}, -EINVAL},
		{{0, 2.f, 5, NONE, NONE, 0, NONE}, -EINVAL},    /* a rating without its time */
		{{0, NAN, 5, NONE, NONE, 0, 5}, -EINVAL},
		{{0, INFINITY, 5, NONE, NONE, 0, 5}, -EINVAL},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct state *state = waiting_for_users();
		struct user_facts facts = {.n_touches = 1, .touches = &cases[i].touch};
		if (state_restore_user(state, 1, &facts) != cases[i].r)
			fail_msg("touch %zu", i);
		state_free(state);
	}
	struct state *state = waiting_for_users();
	const struct touch_fact twice[] = {cases[0].touch, cases[0].touch};
	assert_int_equal(state_restore_user(state, 1, &(struct user_facts){.n_touches = 2, .touches = twice}), -EINVAL);
	state_free(state);
}

static void test_bad_impressions(void **unused)
{
	const struct {
		struct impression_fact impressions[3];
		uint32_t n;
		int r;
	} cases[] = {
		{{{5, 0, 0, 0}, {5, 0, 0, 2}}, 2, 0},          /* "" before "a" */
		{{{5, 0, 0, 2}, {5, 0, 0, 1}}, 2, 0},          /* "a" before "b" */
		{{{5, 2, 0, 0}, {5, 1, 0, 0}}, 2, 0},          /* external 10 before 20 */
		{{{5, 1, 0, 0}, {5, 2, 0, 0}}, 2, -EINVAL},
		{{{5, 0, 0, 1}, {5, 0, 0, 2}}, 2, -EINVAL},
		{{{5, 0, 1, 0}, {5, 0, 0, 0}}, 2, -EINVAL},
		{{{6, 0, 0, 0}, {5, 0, 0, 0}}, 2, -EINVAL},
		{{{5, 0, 0, 0}, {5, 0, 0, 0}}, 2, -EINVAL},    /* twice */
		{{{5, 3, 0, 0}}, 1, -EINVAL},
		{{{5, 0, 0, 3}}, 1, -EINVAL},
		{{{NONE, 0, 0, 0}}, 1, -EINVAL},
		{{{5, 0, 0, 0}, {6, 0, 0, 0}, {7, 0, 0, 0}}, 3, -EINVAL}, /* more than impressions_max */
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct state *state = waiting_for_users();
		struct user_facts facts = {.n_impressions = cases[i].n, .impressions = cases[i].impressions};
		if (state_restore_user(state, 1, &facts) != cases[i].r)
			fail_msg("impressions %zu", i);
		state_free(state);
	}
}

static void test_bad_tables(void **unused)
{
	struct state *state = new_state_with(2, 4, 2, 16, 1);
	const int64_t twice[] = {5, 6, 5}, many[] = {1, 2, 3, 4, 5}, one[] = {1};
	const struct watch_fact watch = {0, 0.5f, 10.f, 5, 9};
	char long_name[300];

	(void)unused;
	assert_int_equal(state_restore_items(state, many, 5), -ENOSPC);
	assert_int_equal(state_n_items(state), 0);
	assert_int_equal(state_restore_items(state, twice, 3), -EINVAL);
	state_free(state);

	state = new_state_with(2, 4, 2, 16, 1);
	assert_int_equal(state_restore_items(state, one, 1), 0);
	assert_int_equal(state_restore_items(state, one, 1), -EINVAL);
	assert_int_equal(state_restore_surface(state, "a"), 0);
	assert_int_equal(state_restore_surface(state, "a"), -EINVAL);
	assert_int_equal(state_restore_surface(state, ""), -EINVAL);
	memset(long_name, 'x', sizeof(long_name));
	long_name[299] = '\0';
	assert_int_equal(state_restore_surface(state, long_name), -EINVAL);
	assert_int_equal(state_restore_catalogue(state, 1, "{}", 2), -EINVAL);
	assert_int_equal(state_restore_user(state, 1, &(struct user_facts){.forgotten = 1, .n_watches = 1, .watches = &watch}), -EINVAL);
	state_free(state);

	state = new_state_with(2, 4, 2, 16, 1);
	assert_int_equal(state_restore_user(state, 1, &(struct user_facts){0}), 0);
	assert_int_equal(state_restore_user(state, 1, &(struct user_facts){0}), -EINVAL);
	assert_int_equal(state_restore_user(state, 2, &(struct user_facts){0}), 0);
	assert_int_equal(state_restore_user(state, 3, &(struct user_facts){0}), -ENOSPC);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_empty_round_trip), cmocka_unit_test(test_bad_watches),
		cmocka_unit_test(test_bad_touches), cmocka_unit_test(test_bad_impressions),  cmocka_unit_test(test_bad_tables),
	};
	return cmocka_run_group_tests_name("restore", tests, NULL, NULL);
}
