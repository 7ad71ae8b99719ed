/*
 * test_impressions.c: the top N impressions by the total order: shown_us, external item id, position, surface name.
 */
#include "tests/unit/state/state_testing.h"

#define N 8u

struct shown {
	int64_t time_us, item;
	int32_t position;
	const char *surface;
};

static void assert_kept(const struct state *state, int64_t user, const struct shown *want, uint32_t n)
{
	struct user_facts facts = facts_of(state, user);
	struct user_copy copy = {0};

	assert_int_equal(facts.n_impressions, n);
	assert_int_equal(state_user_copy(state, state_find_user(state, user), &copy), 0);
	assert_int_equal(copy.facts.n_impressions, n);
	assert_memory_equal(copy.facts.impressions, facts.impressions, n * sizeof(*facts.impressions));
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(facts.impressions[i].shown_us, want[i].time_us);
		assert_int_equal(state_item_ids(state)[facts.impressions[i].item], want[i].item);
		assert_int_equal(facts.impressions[i].position, want[i].position);
		assert_string_equal(state_surface_name(state, facts.impressions[i].surface), want[i].surface);
	}
	user_copy_free(&copy);
}

static void add(struct state *state, int64_t user, struct shown shown)
{
	apply_named(state, shown_event(user, shown.item, shown.time_us, shown.position), shown.surface);
}

static void test_in_order_keeps_the_newest(void **unused)
{
	struct state *state = new_state();
	struct shown want[N];
	struct user_copy copy = {0};

	(void)unused;
	for (int64_t i = 0; i < 21; i++) {
		add(state, 1, (struct shown){100 + i, i % 3, 1, "home"});
		/* a copy sees the ring in order without straightening it */
		assert_int_equal(state_user_copy(state, 0, &copy), 0);
		uint32_t n = copy.facts.n_impressions;
		assert_int_equal(copy.facts.impressions[n - 1].shown_us, 100 + i);
		for (uint32_t k = 1; k < n; k++)
			assert_int_equal(copy.facts.impressions[k].shown_us, copy.facts.impressions[k - 1].shown_us + 1);
	}
	for (uint32_t i = 0; i < N; i++)
		want[i] = (struct shown){113 + i, (13 + i) % 3, 1, "home"};
	assert_kept(state, 1, want, N);
	add(state, 1, (struct shown){121, 0, 1, "home"}); /* goes on after the ring was straightened */
	for (uint32_t i = 0; i < N; i++)
		want[i] = (struct shown){114 + i, (14 + i) % 3, 1, "home"};
	assert_kept(state, 1, want, N);
	user_copy_free(&copy);
	state_free(state);
}

static void test_late_arrivals(void **unused)
{
	struct state *state = new_state();
	struct state_digest digest;
	struct shown want[N];

	(void)unused;
	for (int64_t i = 0; i < 13; i++)
		add(state, 1, (struct shown){100 + 10 * i, 1, 0, "a"});
	digest = state_digest(state);
	add(state, 1, (struct shown){100, 1, 0, "a"});     /* evicted before: older than all kept */
	add(state, 1, (struct shown){149, 1, 0, "a"});     /* never seen, but older than all kept */
	add(state, 1, (struct shown){180, 1, 0, "a"});     /* known */
	assert_same_digest(digest, state_digest(state));
	add(state, 1, (struct shown){151, 1, 0, "a"});     /* just newer than the oldest: the oldest goes */
	add(state, 1, (struct shown){215, 1, 0, "a"});     /* in between */
	const int64_t times[N] = {160, 170, 180, 190, 200, 210, 215, 220};
	for (uint32_t i = 0; i < N; i++)
		want[i] = (struct shown){times[i], 1, 0, "a"};
	assert_kept(state, 1, want, N);
	assert_int_equal(facts_of(state, 1).n_impressions, N);
	state_free(state);
}

/* Equal times: external item id (not the index), position, surface name (not the order of arrival of the name). */
static void test_total_order_of_ties(void **unused)
{
	const struct shown all[] = {
		{50, 3, 0, "a"}, {50, 3, 0, "b"}, {50, 3, 1, "a"}, {50, 9, 0, ""},  {50, 9, 0, "a"}, {50, 9, 0, "zz"},
		{50, 9, 7, "a"}, {50, 20, 0, "a"}, {50, 20, 0, "b"}, {50, 20, 1, "a"}, {50, 21, 0, "a"}, {51, 1, 0, "a"},
	};
	const uint32_t n = sizeof(all) / sizeof(all[0]);
	struct state *state = new_state();
	uint64_t seed = 99;

	(void)unused;
	for (int64_t user = 0; user < 200; user++) { /* each with another order */
		uint32_t order[sizeof(all) / sizeof(all[0])];
		for (uint32_t i = 0; i < n; i++)
			order[i] = i;
		for (uint32_t i = n - 1; i > 0; i--) {
			uint32_t k = random_below(&seed, i + 1), t = order[i];
			order[i] = order[k];
			order[k] = t;
		}
		for (uint32_t i = 0; i < n; i++) {
			add(state, user, all[order[i]]);
			add(state, user, all[order[random_below(&seed, i + 1)]]);
		}
		assert_kept(state, user, all + (n - N), N);
	}
	state_free(state);
}

static void test_one_is_kept(void **unused)
{
	struct state *state = new_state_with(10, 10, 1, 0, 1);

	(void)unused;
	add(state, 1, (struct shown){5, 1, 0, "a"});
	add(state, 1, (struct shown){4, 1, 0, "a"});
	add(state, 1, (struct shown){6, 2, 3, "b"});
	assert_kept(state, 1, &(struct shown){6, 2, 3, "b"}, 1);
	state_free(state);
}

static void test_many_are_kept(void **unused)
{
	struct state *state = new_state_with(10, 10, 1024, 0, 1);
	struct user_facts facts;

	(void)unused;
	for (int64_t i = 0; i < 3000; i++) /* 37 has an inverse modulo 3000 */
		add(state, 1, (struct shown){i * 37 % 3000, 1, 0, "a"});
	facts = facts_of(state, 1);
	assert_int_equal(facts.n_impressions, 1024);
	for (uint32_t i = 0; i < 1024; i++)
		assert_int_equal(facts.impressions[i].shown_us, 3000 - 1024 + i);
	state_free(state);
}

static void test_position_is_clamped(void **unused)
{
	struct state *state = new_state();

	(void)unused;
	add(state, 1, (struct shown){1, 1, -5, ""});
	add(state, 1, (struct shown){2, 1, 65535, ""});
	add(state, 1, (struct shown){3, 1, 65536, ""});
	add(state, 1, (struct shown){4, 1, INT32_MAX, ""});
	struct user_facts facts = facts_of(state, 1);
	assert_int_equal(facts.impressions[0].position, 0);
	for (int i = 1; i < 4; i++)
		assert_int_equal(facts.impressions[i].position, 65535);
	state_free(state);
}

static void test_surface_names(void **unused)
{
	struct state *state = new_state_with(10, 10, 8, 0, 1);
	struct event_batch *batch = event_batch_new();
	char name[300];

	(void)unused;
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "surface-%d", i);
		add(state, 1, (struct shown){i, 1, 0, name});
	}
	assert_int_equal(state_counters(state).surfaces_full, 5000 - 4096);
	assert_string_equal(state_surface_name(state, 1), "surface-0");
	assert_string_equal(state_surface_name(state, 4096), "surface-4095");
	assert_string_equal(state_surface_name(state, 4097), "");
	assert_int_equal(facts_of(state, 1).impressions[N - 1].surface, 0);
	add(state, 1, (struct shown){6000, 1, 0, "surface-77"}); /* known names still work */
	assert_int_equal(facts_of(state, 1).impressions[N - 1].surface, 78);
	state_free(state);

	state = new_state_with(10, 10, 8, 0, 1);
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	add(state, 1, (struct shown){1, 1, 0, name}); /* 256 bytes: too long */
	name[255] = '\0';
	add(state, 1, (struct shown){2, 1, 0, name});
	event_batch_clear(batch);
	batch_add(batch, shown_event(1, 1, 3, 0), "a", NULL);
	batch->text[batch->text_len++] = '\0'; /* a NUL inside */
	batch->text[batch->text_len++] = 'b';
	batch->events[0].name.len = 3;
	assert_int_equal(state_apply(state, batch), 0);
	assert_int_equal(state_counters(state).surfaces_full, 2);
	struct user_facts facts = facts_of(state, 1);
	assert_int_equal(facts.impressions[0].surface, 0);
	assert_int_equal(facts.impressions[1].surface, 1);
	assert_int_equal(facts.impressions[2].surface, 0);
	event_batch_free(batch);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order_keeps_the_newest),
		cmocka_unit_test(test_late_arrivals),
		cmocka_unit_test(test_total_order_of_ties),
		cmocka_unit_test(test_one_is_kept),
		cmocka_unit_test(test_many_are_kept),
		cmocka_unit_test(test_position_is_clamped),
		cmocka_unit_test(test_surface_names),
	};
	return cmocka_run_group_tests_name("impressions", tests, NULL, NULL);
}
