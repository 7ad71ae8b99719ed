/* test_skips.c: which of a user's skips are listed: the newest, positives and what is too young left out. */
#include "daemon/skips.h"
#include "tests/unit/state/state_testing.h"

#define SHOWN 300
#define USER 5

/* Titles 0..SHOWN-1 are shown one a minute; every third one is watched far enough. Long after that the last title, which is too young to be decided. */
static struct state *state_with_skips(uint32_t impressions_max)
{
	struct state *state = new_state_with(10, 1000, impressions_max, 16, 7);
	struct event_batch *batch = event_batch_new();

	assert_non_null(batch);
	batch->stream = STREAM_IMPRESSIONS;
	for (int i = 0; i < SHOWN; i++)
		batch_add(batch, shown_event(USER, i, i * 60 * SEC, 1), "home", NULL);
	batch_add(batch, shown_event(USER, SHOWN, 100000 * SEC, 1), "home", NULL);
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_clear(batch);
	batch->stream = STREAM_WATCHES;
	for (int i = 0; i < SHOWN; i += 3)
		batch_add(batch, watch_event(USER, i, (i * 60 + 1) * SEC, 0.9f, -1.0f), NULL, NULL);
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_free(batch);
	return state;
}

static void the_newest_come_first(void **unused)
{
	struct state *state = state_with_skips(1024);
	uint32_t user = state_find_user(state, USER), items[SKIPS_MAX];
	int64_t expected = SHOWN - 1;

	(void)unused;
	assert_int_equal(skips_newest(state, user, items, 64), 64); /* positives take no place */
	for (int i = 0; i < 64; i++, expected--) {
		expected -= expected % 3 == 0;
		assert_int_equal(state_item_ids(state)[items[i]], expected);
	}
	assert_int_equal(skips_newest(state, user, items, SKIPS_MAX), SHOWN * 2 / 3);
	assert_int_equal(state_item_ids(state)[items[SHOWN * 2 / 3 - 1]], 1);
	assert_int_equal(skips_newest(state, user, items, 0), 0);
	state_free(state);
}

static void those_that_are_kept(void **unused)
{
	struct state *state = state_with_skips(31); /* title SHOWN and the 30 before it */
	uint32_t items[SKIPS_MAX];

	(void)unused;
	assert_int_equal(skips_newest(state, state_find_user(state, USER), items, SKIPS_MAX), 20);
	assert_int_equal(state_item_ids(state)[items[0]], SHOWN - 1);
	assert_int_equal(state_item_ids(state)[items[19]], SHOWN - 29);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_come_first),
		cmocka_unit_test(those_that_are_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
