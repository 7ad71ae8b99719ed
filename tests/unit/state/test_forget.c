/*
 * test_forget.c: forgetting a user is an absorbing mark until it is lifted; and the caps on ids.
 */
#include "tests/unit/state/state_testing.h"

static void fill(struct state *state, int64_t user)
{
	for (int64_t i = 0; i < 20; i++) {
		apply_one(state, watch_event(user, i, 10 + i, 0.05f * (float)i, 5.f));
		apply_one(state, touch_event(user, i, 10 + i, EVENT_LIKE));
		apply_named(state, shown_event(user, i, 10 + i, 1), "home");
	}
	apply_one(state, watch_event(user, 50, 10, -1.f, 5.f));
}

static void test_forget_drops_everything(void **unused)
{
	struct state *state = new_state(), *other = new_state();
	struct state_digest digest;
	struct state_changes changes;
	struct user_facts facts;

	(void)unused;
	fill(state, 2);
	fill(other, 2);
	fill(state, 1);
	memset(state_row_begin(state, state_find_user(state, 1)), 0xAB, 16);
	state_row_end(state, state_find_user(state, 1));
	state_changes_clear(state);
	assert_int_equal(state_item_popularity(state, state_find_item(state, 19)), 2);

	assert_int_equal(state_forget(state, 1, 0), 0);
	facts = facts_of(state, 1);
	assert_int_equal(facts.forgotten, 1);
	assert_int_equal(facts.n_watches + facts.n_touches + facts.n_impressions, 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(((const uint8_t *)facts.row)[i], 0);
	assert_int_equal(state_item_popularity(state, state_find_item(state, 19)), 1);
	state_changes_get(state, &changes);
	assert_int_equal(changes.rebuild, 1);
	assert_int_equal(changes.n_touched, 1);

	/* the mark is in the digest, the facts are not: the same as a user marked before his first event */
	assert_int_equal(state_forget(other, 1, 0), 0);
	assert_same_digest(state_digest(state), state_digest(other));
	digest = state_digest(state);
	fill(state, 1);
	assert_same_digest(digest, state_digest(state));
	assert_int_equal(state_counters(state).dropped_forgotten, 61);
	assert_int_equal(state_forget(state, 1, 0), 0); /* again */
	assert_same_digest(digest, state_digest(state));

	/* lifted: as a user who was never there, then as any other */
	assert_int_equal(state_forget(state, 1, 1), 0);
	assert_int_equal(state_forget(state, 1, 1), 0);
	assert_int_equal(facts_of(state, 1).forgotten, 0);
	fill(state, 1);
	assert_int_equal(state_forget(other, 1, 1), 0);
	fill(other, 1);
	assert_same_digest(state_digest(state), state_digest(other));
	assert_int_equal(facts_of(state, 1).n_watches, 21);
	assert_int_equal(state_item_popularity(state, state_find_item(state, 19)), 2);
	state_free(state);
	state_free(other);
}

static void test_forget_unknown(void **unused)
{
	struct state *state = new_state_with(2, 10, 4, 0, 1);
	struct state_digest empty = state_digest(state);

	(void)unused;
	assert_int_equal(state_forget(state, 5, 1), 0); /* nothing to lift: not entered */
	assert_int_equal(state_n_users(state), 0);
	assert_int_equal(state_forget(state, 5, 0), 0);
	assert_int_equal(state_n_users(state), 1);
	apply_one(state, watch_event(5, 1, 1, 0.9f, 1.f));
	assert_int_equal(state_counters(state).dropped_forgotten, 1);
	assert_int_equal(facts_of(state, 5).n_watches, 0);
	assert_int_equal(state_forget(state, 6, 0), 0);
	assert_int_equal(state_forget(state, 7, 0), -ENOSPC);
	assert_int_equal(state_forget(state, 5, 1), 0);
	assert_int_equal(state_forget(state, 6, 1), 0);
	assert_same_digest(empty, state_digest(state));
	state_free(state);
}

/* A user whose watch waits for a duration is forgotten: the walk for that duration must not find him. */
static void test_forget_waiting(void **unused)
{
	struct state *state = new_state();
	struct state_changes changes;

	(void)unused;
	apply_one(state, watch_event(1, 10, 1, -1.f, 90.f));
	apply_one(state, watch_event(2, 10, 1, -1.f, 90.f));
	apply_catalogue_line(state, 10, 100, "{}");
	assert_int_equal(state_forget(state, 1, 0), 0);
	while (state_rederive(state, 1) == 1) {
	}
	state_changes_get(state, &changes);
	assert_int_equal(changes.n_positives, 1);
	assert_int_equal(state_item_popularity(state, 0), 1);
	assert_int_equal(state_forget(state, 2, 0), 0);
	assert_int_equal(state_item_popularity(state, 0), 0);
	state_free(state);
}

static void test_caps(void **unused)
{
	struct state *state = new_state_with(3, 2, 4, 0, 1);
	struct state_counters counters;

	(void)unused;
	for (int64_t i = 0; i < 10; i++)
		apply_one(state, watch_event(i, 1, 1, 0.9f, 1.f));
	for (int64_t i = 0; i < 10; i++)
		apply_one(state, watch_event(0, i + 1, 1, 0.9f, 1.f));
	apply_catalogue_line(state, 77, 100, "{}");
	counters = state_counters(state);
	assert_int_equal(state_n_users(state), 3);
	assert_int_equal(state_n_items(state), 2);
	assert_int_equal(counters.dropped_user_cap, 7);
	assert_int_equal(counters.dropped_item_cap, 9);
	assert_int_equal(counters.events_applied[STREAM_WATCHES], 5);
	assert_int_equal(counters.events_applied[STREAM_CATALOGUE], 0);
	assert_int_equal(state_find_user(state, 3), STATE_NONE);
	assert_int_equal(state_find_item(state, 77), STATE_NONE);
	state_free(state);
}

/* Caps that end exactly where reserved memory does: the cap is what is met, not the end of memory. */
static void test_caps_at_the_end_of_memory(void **unused)
{
	struct state *state = new_state_with(1024, 8192, 4, 0, 1);
	struct event_batch *batch = event_batch_new();

	(void)unused;
	for (int64_t i = 0; i < 8200;) {
		event_batch_clear(batch);
		for (int k = 0; k < 100; k++, i++)
			batch_add(batch, watch_event(i % 1030, i, 1, 0.9f, 1.f), NULL, NULL);
		assert_int_equal(state_apply(state, batch), 0);
	}
	for (int64_t i = 0; i < 10000; i++)
		apply_one(state, watch_event(0, i, 1, 0.9f, 1.f));
	assert_int_equal(state_n_users(state), 1024);
	assert_int_equal(state_n_items(state), 8192);
	event_batch_free(batch);
	state_free(state);
}

static void test_config_is_checked(void **unused)
{
	struct state_config good = {.users_max = 1, .items_max = 1, .impressions_max = 1}, bad;
	struct state_rules rules = {.min_pos_completion = 0.6f};
	struct state *state = NULL;
	char errstr[200];

	(void)unused;
	for (int i = 0; i < 6; i++) {
		struct state_rules r = rules;
		bad = good;
		errstr[0] = '\0';
		switch (i) {
		case 0: bad.users_max = 0; break;
		case 1: bad.items_max = UINT32_MAX; break;
		case 2: bad.impressions_max = 0; break;
		case 3: bad.impressions_max = 1025; break;
		case 4: r.min_pos_completion = -0.1f; break;
		default: r.negative_after_us = -1; break;
		}
		assert_int_equal(state_new(&bad, &r, &state, errstr, sizeof(errstr)), -EINVAL);
		assert_null(state);
		assert_true(strlen(errstr) > 10);
	}
	state_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forget_drops_everything),
		cmocka_unit_test(test_forget_unknown),
		cmocka_unit_test(test_forget_waiting),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_caps_at_the_end_of_memory),
		cmocka_unit_test(test_config_is_checked),
	};
	return cmocka_run_group_tests_name("forget", tests, NULL, NULL);
}
