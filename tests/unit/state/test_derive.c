/*
 * test_derive.c: positives, skips, completion from a duration, and the books kept of them (popularity, reported pairs, candidates).
 */
#include "tests/unit/state/state_testing.h"

/* What the books say must be what counting by hand says. */
struct tally {
	uint32_t by_item[1000];
	size_t n;
};

static void tally_one(void *ctx, uint32_t user, const struct watch_fact *watch)
{
	struct tally *tally = ctx;

	(void)user;
	tally->by_item[watch->item]++;
	tally->n++;
}

static size_t assert_books(const struct state *state)
{
	struct tally tally = {{0}, 0};
	size_t n = 0;

	state_for_each_positive(state, tally_one, &tally);
	for (uint32_t item = 0; item < state_n_items(state); item++)
		assert_int_equal(state_item_popularity(state, item), tally.by_item[item]);
	for (uint32_t user = 0; user < state_n_users(state); user++) {
		struct user_facts facts;
		uint32_t items[1000];
		state_user_facts(state, user, &facts);
		n += state_positives(state, &facts, items, 1000);
	}
	assert_int_equal(n, tally.n);
	return n;
}

static struct state_changes changes_of(struct state *state)
{
	struct state_changes changes;
	state_changes_get(state, &changes);
	return changes;
}

static void test_positive_once(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, watch_event(1, 10, 5, 0.59f, -1.f));
	assert_int_equal(changes_of(state).n_positives, 0);
	assert_int_equal(changes_of(state).n_candidates, 0);
	assert_int_equal(changes_of(state).n_touched, 1);
	apply_one(state, watch_event(1, 10, 6, 0.6f, -1.f));
	assert_int_equal(changes_of(state).n_positives, 1);
	assert_int_equal(changes_of(state).positives[0].user, state_find_user(state, 1));
	assert_int_equal(changes_of(state).positives[0].item, state_find_item(state, 10));
	assert_int_equal(changes_of(state).n_candidates, 1);
	assert_int_equal(changes_of(state).n_touched, 1);
	state_changes_clear(state);
	apply_one(state, watch_event(1, 10, 7, 0.9f, -1.f));
	assert_int_equal(changes_of(state).n_positives, 0);
	assert_int_equal(changes_of(state).n_candidates, 0);
	assert_int_equal(changes_of(state).n_touched, 1); /* a new fact, though no new positive */
	state_changes_clear(state);
	apply_one(state, watch_event(1, 10, 7, 0.9f, -1.f));
	assert_int_equal(changes_of(state).n_touched, 0); /* a repetition */
	assert_int_equal(changes_of(state).rebuild, 0);
	apply_one(state, watch_event(2, 10, 7, 1.0f, -1.f));
	assert_int_equal(state_item_popularity(state, 0), 2);
	assert_int_equal(assert_books(state), 2);
	state_free(state);
}

static void test_candidates(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, touch_event(1, 10, 5, EVENT_CLICK));
	apply_one(state, watch_event(1, 11, 5, 0.1f, 1.f));
	apply_catalogue_line(state, 12, 100, "{}");
	assert_int_equal(changes_of(state).n_candidates, 0);
	apply_one(state, shown_event(1, 11, 5, 0));
	apply_one(state, shown_event(2, 11, 5, 0));
	apply_one(state, watch_event(2, 12, 5, 0.9f, 1.f));
	assert_int_equal(changes_of(state).n_candidates, 2);
	assert_int_equal(changes_of(state).candidates[0], state_find_item(state, 11));
	assert_int_equal(changes_of(state).candidates[1], state_find_item(state, 12));
	state_free(state);
}

static void test_completion_from_duration(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, watch_event(1, 10, 5, -1.f, 60.f));
	assert_true(state_completion(state, &facts_of(state, 1).watches[0]) == -1.f);
	assert_true(state_item_duration_sec(state, 0) == -1.f);
	apply_catalogue_line(state, 10, 100, "{}");
	assert_true(state_item_duration_sec(state, 0) == 100.f);
	assert_true(state_completion(state, &facts_of(state, 1).watches[0]) == 0.6f);
	assert_int_equal(state_is_positive(state, &facts_of(state, 1).watches[0]), 1);
	apply_one(state, watch_event(1, 10, 5, -1.f, 900.f));
	assert_true(state_completion(state, &facts_of(state, 1).watches[0]) == 1.f); /* at most 1 */
	apply_one(state, watch_event(1, 10, 5, 0.2f, -1.f)); /* reported: it counts */
	assert_true(state_completion(state, &facts_of(state, 1).watches[0]) == 0.2f);
	assert_int_equal(state_is_positive(state, &facts_of(state, 1).watches[0]), 0);
	apply_catalogue_line(state, 10, 0, "{ }"); /* a duration of 0 is none */
	assert_true(state_item_duration_sec(state, 0) == -1.f);
	assert_true(state_item_duration_sec(state, 77) == -1.f);
	state_free(state);
}

static void rederive_all(struct state *state, uint32_t portion)
{
	while (state_rederive(state, portion) == 1) {
	}
}

static void test_duration_comes_late(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	for (int64_t user = 0; user < 10; user++) {
		apply_one(state, watch_event(user, 10, 5, -1.f, (float)user * 10.f));
		apply_one(state, watch_event(user, 11, 5, 0.9f, -1.f));
	}
	state_changes_clear(state);
	assert_int_equal(state_rederive(state, 100), 0); /* nothing waits */
	apply_catalogue_line(state, 10, 100, "{}");
	assert_int_equal(changes_of(state).n_positives, 0);
	assert_int_equal(state_rederive(state, 4), 1);
	assert_int_equal(changes_of(state).n_positives, 0);
	assert_int_equal(state_rederive(state, 4), 1);
	assert_int_equal(changes_of(state).n_positives, 2); /* users 6 and 7 */
	assert_int_equal(state_rederive(state, 4), 0);
	assert_int_equal(changes_of(state).n_positives, 4);
	assert_int_equal(changes_of(state).n_candidates, 1);
	assert_int_equal(changes_of(state).rebuild, 0);
	assert_int_equal(assert_books(state), 14);
	state_free(state);
}

/* Events between two portions of a walk: each pair is reported once, whichever side of the walk its user is on. */
static void test_events_during_a_walk(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	for (int64_t user = 0; user < 10; user++)
		apply_one(state, watch_event(user, 10, 5, -1.f, 50.f));
	apply_catalogue_line(state, 10, 100, "{}"); /* 0.5: nobody yet */
	assert_int_equal(state_rederive(state, 5), 1);
	apply_one(state, watch_event(2, 10, 6, -1.f, 70.f));  /* the walk has passed him: positive at once */
	assert_int_equal(changes_of(state).n_positives, 1);
	apply_one(state, watch_event(7, 10, 6, -1.f, 70.f));  /* the walk will find him */
	assert_int_equal(changes_of(state).n_positives, 1);
	apply_one(state, watch_event(8, 10, 6, 0.8f, 70.f));  /* by his own report */
	assert_int_equal(changes_of(state).n_positives, 2);
	apply_one(state, watch_event(99, 10, 6, -1.f, 70.f)); /* a new user, behind the walk's end */
	apply_catalogue_line(state, 10, 60, "{ }");            /* shorter: waits for the next walk */
	assert_int_equal(state_forget(state, 9, 0), 0);
	rederive_all(state, 3);
	/* 70/60 and 50/60 are both positives */
	assert_int_equal(changes_of(state).n_positives, 10);
	assert_int_equal(changes_of(state).rebuild, 0);
	assert_int_equal(assert_books(state), 10);
	for (size_t i = 0; i < changes_of(state).n_positives; i++)
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(changes_of(state).positives[i].user, changes_of(state).positives[k].user);
	state_free(state);
}

/* A walk is only needed while a watch of the item waits. */
static void test_no_walk_for_nobody(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, watch_event(1, 10, 5, -1.f, 50.f));
	apply_catalogue_line(state, 10, 100, "{}");
	assert_int_equal(state_rederive(state, 0), 1);
	rederive_all(state, 10);
	apply_one(state, watch_event(1, 10, 5, 0.3f, -1.f)); /* reported now */
	apply_catalogue_line(state, 10, 110, "{ }");
	assert_int_equal(state_rederive(state, 0), 0);
	apply_one(state, watch_event(2, 10, 5, -1.f, 50.f));
	assert_int_equal(state_forget(state, 2, 0), 0);
	apply_catalogue_line(state, 10, 120, "{  }");
	assert_int_equal(state_rederive(state, 0), 0);
	apply_one(state, watch_event(3, 10, 5, -1.f, 72.f)); /* the new duration holds at once */
	assert_int_equal(changes_of(state).n_positives, 1);
	state_free(state);
}

static void test_duration_takes_positives_away(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_catalogue_line(state, 10, 100, "{}");
	for (int64_t user = 0; user < 10; user++)
		apply_one(state, watch_event(user, 10, 5, -1.f, 10.f * (float)user));
	assert_int_equal(changes_of(state).n_positives, 4);
	apply_catalogue_line(state, 10, 130, "{ }");
	rederive_all(state, 3);
	assert_int_equal(changes_of(state).rebuild, 1);
	assert_int_equal(assert_books(state), 2);
	state_changes_clear(state);
	apply_catalogue_line(state, 10, -1, "{  }"); /* unknown again */
	rederive_all(state, 3);
	assert_int_equal(changes_of(state).rebuild, 1);
	assert_int_equal(assert_books(state), 0);
	state_free(state);
}

static void test_rules_change(void **unused)
{
	struct state *state = new_state();
	struct state_rules rules = *state_get_rules(state);

	(void)unused;
	for (int64_t user = 0; user < 10; user++)
		for (int64_t item = 0; item < 10; item++)
			apply_one(state, watch_event(user, item, 5, (float)item / 10.f, -1.f));
	apply_one(state, watch_event(3, 77, 5, -1.f, 10.f)); /* unknown: never a positive */
	assert_int_equal(assert_books(state), 40);
	state_changes_clear(state);
	rules.negative_after_us = 5;
	assert_int_equal(state_set_rules(state, &rules), 0);
	assert_int_equal(changes_of(state).rebuild, 0);
	rules.min_pos_completion = 0.8f;
	assert_int_equal(state_set_rules(state, &rules), 0);
	assert_int_equal(changes_of(state).rebuild, 1);
	assert_int_equal(assert_books(state), 20);
	rules.min_pos_completion = 0.f;
	assert_int_equal(state_set_rules(state, &rules), 0);
	assert_int_equal(assert_books(state), 100);
	rules.min_pos_completion = 1.1f;
	assert_int_equal(state_set_rules(state, &rules), -EINVAL);
	assert_true(state_get_rules(state)->min_pos_completion == 0.f);
	state_free(state);
}

/* -1: undecided */
static int label_of(const struct state *state, int64_t user, int64_t item)
{
	struct user_facts facts = facts_of(state, user);
	struct decided_impression decided[8];
	size_t n = state_decided(state, &facts, decided, 8);
	int label = -1;

	for (size_t i = 0; i < n; i++)
		if (decided[i].item == state_find_item(state, item)) {
			assert_int_equal(label, -1); /* once */
			label = decided[i].label;
		}
	return label;
}

static void test_skip_boundary(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, shown_event(1, 10, 1000 * SEC, 0));
	assert_int_equal(label_of(state, 1, 10), -1);
	apply_one(state, touch_event(2, 99, 2800 * SEC - 1, EVENT_CLICK)); /* time goes on by anybody's event */
	assert_int_equal(label_of(state, 1, 10), -1);
	apply_one(state, touch_event(2, 99, 2800 * SEC, EVENT_CLICK)); /* exactly negative_after */
	assert_int_equal(label_of(state, 1, 10), 0);
	state_free(state);
}

static void test_reactions(void **unused)
{
	const struct {
		struct event event;
		int label;
	} cases[] = {
		{touch_event(1, 10, 1000 * SEC, EVENT_CLICK), -1},      /* at it */
		{touch_event(1, 10, 1000 * SEC - 1, EVENT_CLICK), 0},   /* before it */
		{touch_event(1, 10, 1001 * SEC, EVENT_PLAY_START), -1},
		{touch_event(1, 10, 1001 * SEC, EVENT_LIKE), -1},
		{touch_event(1, 10, 1001 * SEC, EVENT_DISLIKE), 0},     /* a dislike is no choice */
		{rate_event(1, 10, 1001 * SEC, 5.0), 0},
		{touch_event(1, 11, 1001 * SEC, EVENT_CLICK), 0},       /* another item */
		{watch_event(1, 10, 1000 * SEC, 0.1f, -1.f), -1},
		{watch_event(1, 10, 999 * SEC, 0.1f, -1.f), 0},
		{watch_event(1, 10, 1001 * SEC, 0.7f, -1.f), 1},
		{watch_event(1, 10, 999 * SEC, 0.7f, -1.f), 1},         /* watched enough at any time */
		{watch_event(1, 10, 1001 * SEC, -1.f, 100.f), -1},      /* its completion is unknown */
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct state *state = new_state();
		apply_one(state, shown_event(1, 10, 1000 * SEC, 0));
		apply_one(state, cases[i].event);
		apply_one(state, touch_event(2, 99, 5000 * SEC, EVENT_CLICK));
		if (label_of(state, 1, 10) != cases[i].label)
			fail_msg("case %zu: label %d, not %d", i, label_of(state, 1, 10), cases[i].label);
		state_free(state);
	}
}

/* One impression that was skipped is enough; one that is too young does not hide it. */
static void test_several_impressions(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	apply_one(state, shown_event(1, 10, 1000 * SEC, 0));
	apply_one(state, shown_event(1, 10, 2000 * SEC, 0));
	apply_one(state, shown_event(1, 10, 4000 * SEC, 0));
	apply_one(state, shown_event(1, 11, 4000 * SEC, 0));
	assert_int_equal(label_of(state, 1, 10), 0);
	assert_int_equal(label_of(state, 1, 11), -1);
	apply_one(state, touch_event(1, 10, 1500 * SEC, EVENT_CLICK)); /* after the first, before the second */
	assert_int_equal(label_of(state, 1, 10), 0);
	apply_one(state, touch_event(1, 10, 2500 * SEC, EVENT_CLICK)); /* after both old ones */
	assert_int_equal(label_of(state, 1, 10), -1);
	apply_one(state, touch_event(2, 99, 9000 * SEC, EVENT_CLICK)); /* now the third is old too */
	assert_int_equal(label_of(state, 1, 10), 0);
	assert_int_equal(label_of(state, 1, 11), 0);
	state_free(state);
}

static void test_decided_is_bounded(void **unused)
{
	struct state *state = new_state();
	struct decided_impression decided[3] = {{0}, {0}, {77, 77}};
	uint32_t items[2] = {0, 77};

	(void)unused;
	for (int64_t item = 0; item < 6; item++) {
		apply_one(state, shown_event(1, item, item * SEC, 0));
		apply_one(state, watch_event(1, item, 9 * SEC, 0.9f, 1.f));
	}
	struct user_facts facts = facts_of(state, 1);
	assert_int_equal(state_decided(state, &facts, decided, 2), 6);
	assert_int_equal(decided[2].item, 77);
	assert_int_equal(state_positives(state, &facts, items, 1), 6);
	assert_int_equal(items[1], 77);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_positive_once),
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_completion_from_duration),
		cmocka_unit_test(test_duration_comes_late),
		cmocka_unit_test(test_events_during_a_walk),
		cmocka_unit_test(test_no_walk_for_nobody),
		cmocka_unit_test(test_duration_takes_positives_away),
		cmocka_unit_test(test_rules_change),
		cmocka_unit_test(test_skip_boundary),
		cmocka_unit_test(test_reactions),
		cmocka_unit_test(test_several_impressions),
		cmocka_unit_test(test_decided_is_bounded),
	};
	return cmocka_run_group_tests_name("derive", tests, NULL, NULL);
}
