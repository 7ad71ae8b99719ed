/*
 * test_facts.c: the merge rules, as tables. Each table of events is applied in every order, each event also twice, and must give one fact. Each order has a user of its own.
 */
#include "tests/unit/state/state_testing.h"

#define NONE STATE_TIME_NONE
#define EVENTS_MAX 5

struct case_ {
	const char *what;
	struct event events[EVENTS_MAX];
	size_t n;
	struct watch_fact watch;
	struct touch_fact touch;
};

#define W(time, completion, seconds) watch_event(1, 2, (time), (completion), (seconds))
#define T(type, time) touch_event(1, 2, (time), EVENT_##type)
#define R(time, value) rate_event(1, 2, (time), (value))

static void apply_in_order(struct state *state, const struct case_ *c, const size_t *order)
{
	int64_t user = state_n_users(state);
	struct user_facts facts;

	for (size_t i = 0; i < c->n; i++) {
		struct event event = c->events[order[i]], first = c->events[order[0]];
		event.user_id = first.user_id = user;
		apply_one(state, event);
		if (i & 1)
			apply_one(state, first); /* a repetition */
	}
	facts = facts_of(state, user);
	if (c->watch.last_us != 0) {
		assert_int_equal(facts.n_watches, 1);
		assert_int_equal(facts.n_touches, 0);
		struct watch_fact got = facts.watches[0];
		if (got.completion != c->watch.completion || got.watch_time_sec != c->watch.watch_time_sec || got.best_us != c->watch.best_us ||
		    got.last_us != c->watch.last_us)
			fail_msg("%s: completion %g seconds %g best %lld last %lld", c->what, (double)got.completion, (double)got.watch_time_sec,
			         (long long)got.best_us, (long long)got.last_us);
	} else {
		assert_int_equal(facts.n_watches, 0);
		assert_int_equal(facts.n_touches, 1);
		struct touch_fact got = facts.touches[0];
		if (got.click_us != c->touch.click_us || got.play_us != c->touch.play_us || got.opinion_us != c->touch.opinion_us ||
		    got.opinion != c->touch.opinion || got.rated_us != c->touch.rated_us || got.rating != c->touch.rating)
			fail_msg("%s: click %lld play %lld opinion %d at %lld rating %g at %lld", c->what, (long long)got.click_us, (long long)got.play_us,
			         got.opinion, (long long)got.opinion_us, (double)got.rating, (long long)got.rated_us);
	}
}

static void permute(struct state *state, const struct case_ *c, size_t *order, size_t k)
{
	if (k == c->n) {
		apply_in_order(state, c, order);
		return;
	}
	for (size_t i = k; i < c->n; i++) {
		size_t t = order[k];
		order[k] = order[i];
		order[i] = t;
		permute(state, c, order, k + 1);
		t = order[k];
		order[k] = order[i];
		order[i] = t;
	}
}

static void run(const struct case_ *cases, size_t n)
{
	struct state *state = new_state_with(5000, 10, 8, 0, 7);

	for (size_t i = 0; i < n; i++) {
		size_t order[EVENTS_MAX];
		for (size_t k = 0; k < EVENTS_MAX; k++)
			order[k] = k;
		permute(state, &cases[i], order, 0);
	}
	state_free(state);
}

static void test_watch_table(void **unused)
{
	const struct case_ cases[] = {
		{"one", {W(10, 0.5f, 100.f)}, 1, {2, 0.5f, 100.f, 10, 10}, {0}},
		{"larger completion wins, latest start is kept", {W(10, 0.9f, 100.f), W(20, 0.5f, 50.f)}, 2, {2, 0.9f, 100.f, 10, 20}, {0}},
		{"best is the latest of the best", {W(10, 0.9f, 1.f), W(30, 0.9f, 1.f), W(20, 0.9f, 1.f), W(40, 0.1f, 1.f)}, 4, {2, 0.9f, 1.f, 30, 40}, {0}},
		{"parts come from different watches", {W(10, -1.f, 500.f), W(20, 0.3f, -1.f), W(5, 0.4f, 20.f)}, 3, {2, 0.4f, 500.f, 5, 20}, {0}},
		{"no completion reported", {W(10, -1.f, 5.f), W(7, -1.f, 9.f)}, 2, {2, -1.f, 9.f, NONE, 10}, {0}},
		{"zero is a completion", {W(10, 0.f, -1.f), W(12, -1.f, 3.f)}, 2, {2, 0.f, 3.f, 10, 12}, {0}},
		{"minus zero is zero", {W(10, -0.f, -0.f), W(10, 0.f, 0.f)}, 2, {2, 0.f, 0.f, 10, 10}, {0}},
		{"times before 1970", {W(-10, 0.2f, 1.f), W(-20, 0.2f, 1.f)}, 2, {2, 0.2f, 1.f, -10, -10}, {0}},
	};

	(void)unused;
	run(cases, sizeof(cases) / sizeof(cases[0]));
}

static void test_touch_table(void **unused)
{
	const struct case_ cases[] = {
		{"click and play, each the latest", {T(CLICK, 5), T(CLICK, 9), T(PLAY_START, 7), T(PLAY_START, 6)}, 4, {0}, {2, 0.f, 9, 7, NONE, 0, NONE}},
		{"a later like undoes a dislike", {T(LIKE, 8), T(DISLIKE, 7)}, 2, {0}, {2, 0.f, NONE, NONE, 8, 1, NONE}},
		{"a later dislike undoes a like", {T(LIKE, 8), T(DISLIKE, 9)}, 2, {0}, {2, 0.f, NONE, NONE, 9, -1, NONE}},
		{"dislike wins a tie", {T(LIKE, 8), T(DISLIKE, 8), T(LIKE, 8), T(LIKE, 3)}, 4, {0}, {2, 0.f, NONE, NONE, 8, -1, NONE}},
		{"latest rating", {R(5, 9.), R(6, 2.), R(4, 7.)}, 3, {0}, {2, 2.f, NONE, NONE, NONE, 0, 6}},
		{"larger rating wins a tie", {R(5, 3.), R(5, 4.), R(5, 1.)}, 3, {0}, {2, 4.f, NONE, NONE, NONE, 0, 5}},
		{"rating of minus zero is zero", {R(5, -0.), R(5, 0.)}, 2, {0}, {2, 0.f, NONE, NONE, NONE, 0, 5}},
		{"a negative first rating", {R(5, -2.), R(5, -3.)}, 2, {0}, {2, -2.f, NONE, NONE, NONE, 0, 5}},
		{"all of them", {T(CLICK, 1), T(PLAY_START, 2), T(LIKE, 3), R(4, 5.), T(CLICK, 0)}, 5, {0}, {2, 5.f, 1, 2, 3, 1, 4}},
	};

	(void)unused;
	run(cases, sizeof(cases) / sizeof(cases[0]));
}

/* -0 and 0 are one number: the digest must not see a difference. */
static void test_minus_zero_digest(void **unused)
{
	struct state *a = new_state(), *b = new_state();

	(void)unused;
	apply_one(a, watch_event(1, 2, 10, 0.f, 0.f));
	struct event minus = watch_event(1, 2, 10, 0.f, 0.f);
	minus.completion = -0.f;
	minus.watch_time_sec = -0.f;
	apply_one(b, minus);
	assert_same_digest(state_digest(a), state_digest(b));
	apply_one(a, rate_event(1, 2, 10, 0.));
	apply_one(b, rate_event(1, 2, 10, -0.));
	assert_same_digest(state_digest(a), state_digest(b));
	state_free(a);
	state_free(b);
}

/* Every field of every fact is in the digest, by value and not by position. */
static void test_digest_sees_every_field(void **unused)
{
	const struct event events[] = {
		W(10, 0.5f, 100.f),         W(11, 0.5f, 100.f),
		W(10, 0.6f, 100.f),         W(10, 0.5f, 101.f),
		watch_event(2, 2, 10, 0.5f, 100.f), watch_event(1, 3, 10, 0.5f, 100.f),
		T(CLICK, 10),               T(PLAY_START, 10),
		T(LIKE, 10),                T(DISLIKE, 10),
		T(CLICK, 11),               R(10, 1.),
		R(10, 2.),                  R(11, 1.),
		T(PLAY_START, 11),          T(LIKE, 11),
		T(DISLIKE, 11),             shown_event(1, 2, 10, 0),
		shown_event(1, 2, 10, 1),   shown_event(1, 2, 11, 0),
		shown_event(1, 3, 10, 0),   shown_event(2, 2, 10, 0),
	};
	/* best and last differ: each alone must show */
	const struct event pairs[][2] = {
		{W(10, 0.5f, 100.f), W(20, 0.3f, 100.f)},
		{W(10, 0.5f, 100.f), W(21, 0.3f, 100.f)},
		{W(11, 0.5f, 100.f), W(20, 0.3f, 100.f)},
	};
	const size_t n = sizeof(events) / sizeof(events[0]), n_pairs = sizeof(pairs) / sizeof(pairs[0]);
	struct state_digest digests[sizeof(events) / sizeof(events[0]) + sizeof(pairs) / sizeof(pairs[0]) + 1];

	(void)unused;
	for (size_t i = 0; i <= n + n_pairs; i++) {
		struct state *state = new_state();
		if (i < n) {
			apply_one(state, events[i]);
		} else if (i < n + n_pairs) {
			apply_one(state, pairs[i - n][0]);
			apply_one(state, pairs[i - n][1]);
		} else {
			apply_named(state, shown_event(1, 2, 10, 0), "home");
		}
		digests[i] = state_digest(state);
		for (size_t k = 0; k < i; k++)
			if (digests[k].lo == digests[i].lo || digests[k].hi == digests[i].hi)
				fail_msg("events %zu and %zu have one digest", k, i);
		state_free(state);
	}
}

static void test_say_nothing(void **unused)
{
	struct state *state = new_state();
	struct state_digest before = state_digest(state);
	struct event rate = rate_event(1, 2, 10, 3.);
	struct event odd = watch_event(1, 2, 10, 0.5f, 1.f);
	struct state_changes changes;

	(void)unused;
	rate.flags = 0; /* a rating without a value */
	apply_one(state, rate);
	apply_one(state, touch_event(1, 2, 10, EVENT_OTHER));
	apply_one(state, (struct event){.user_id = 1, .stream = STREAM_USERS});
	assert_same_digest(before, state_digest(state));
	state_changes_get(state, &changes);
	assert_int_equal(changes.n_touched, 0);
	assert_int_equal(state_counters(state).events_applied[STREAM_EVENTS], 2);
	assert_int_equal(state_counters(state).events_applied[STREAM_USERS], 1);
	/* out of range: as if not reported */
	odd.completion = 1.5f;
	apply_one(state, odd);
	assert_true(facts_of(state, 1).watches[0].completion == -1.0f);
	assert_true(facts_of(state, 1).watches[0].best_us == STATE_TIME_NONE);
	state_free(state);
}

/* At every length an item is found again, the last one and one from before the list grew. */
static void test_growing_lists(void **unused)
{
	struct state *state = new_state_with(10, 1000, 8, 0, 3);

	(void)unused;
	for (uint32_t i = 0; i < 700; i++) {
		apply_one(state, watch_event(5, i, 10, 0.25f, 1.f));
		apply_one(state, watch_event(5, i, 11, 0.25f, 1.f));
		apply_one(state, watch_event(5, i / 2, 12, 0.25f, 1.f));
		apply_one(state, touch_event(5, i, 10, EVENT_CLICK));
		apply_one(state, touch_event(5, i / 3, 10, EVENT_LIKE));
		assert_int_equal(facts_of(state, 5).n_watches, i + 1);
		assert_int_equal(facts_of(state, 5).n_touches, i + 1);
	}
	state_free(state);
}

/* Lists of every size class and the two kinds of index above: every item is found again and updated in place. */
static void test_long_lists(void **unused)
{
	const uint32_t n = 70000;
	struct state *state = new_state_with(10, n + 1, 8, 0, 3);
	struct event_batch *batch = event_batch_new();
	struct user_facts facts;
	uint8_t *seen = calloc(n, 1);

	(void)unused;
	assert_non_null(seen);
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < n;) {
			event_batch_clear(batch);
			for (; i < n && batch->n_events < 4096; i++)
				batch_add(batch, pass == 0 ? watch_event(5, i, 10 + i, 0.25f, 1.f) : watch_event(5, n - 1 - i, 9, 0.75f, 1.f), NULL, NULL);
			assert_int_equal(state_apply(state, batch), 0);
		}
	for (uint32_t i = 0; i < 1000; i++)
		apply_one(state, touch_event(5, i, 3, EVENT_CLICK));
	for (uint32_t i = 0; i < 1000; i++)
		apply_one(state, touch_event(5, i, 4, EVENT_LIKE));
	facts = facts_of(state, 5);
	assert_int_equal(facts.n_watches, n);
	assert_int_equal(facts.n_touches, 1000);
	for (uint32_t i = 0; i < n; i++) {
		struct watch_fact watch = facts.watches[i];
		int64_t id = state_item_ids(state)[watch.item];
		assert_true(id >= 0 && id < n);
		assert_int_equal(seen[id], 0);
		seen[id] = 1;
		assert_true(watch.completion == 0.75f);
		assert_int_equal(watch.best_us, 9);
		assert_int_equal(watch.last_us, 10 + id);
	}
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(facts.touches[i].click_us, 3);
		assert_int_equal(facts.touches[i].opinion_us, 4);
	}
	free(seen);
	event_batch_free(batch);
	state_free(state);
}

/* A batch's events of all kinds of one stream: few users, so that they come again within a batch, and more ids than there is room for. */
static void fill_batch(struct event_batch *batch, enum event_stream stream, uint32_t n, uint64_t *seed)
{
	event_batch_clear(batch);
	for (uint32_t i = 0; i < n; i++) {
		const int64_t user = random_below(seed, 25), item = random_below(seed, 70), at = 1 + random_below(seed, 1000);

		if (stream == STREAM_WATCHES)
			batch_add(batch, watch_event(user, item, at, (float)random_below(seed, 11) / 10.0f, 5.0f), NULL, NULL);
		else if (stream == STREAM_IMPRESSIONS)
			batch_add(batch, shown_event(user, item, at, 3), item % 2 ? "home" : "search", NULL);
		else if (stream == STREAM_EVENTS)
			batch_add(batch, touch_event(user, item, at, (enum event_type)random_below(seed, EVENT_OTHER + 1)), NULL, NULL);
		else
			batch_add(batch, (struct event){.item_id = item, .stream = STREAM_CATALOGUE}, NULL, "{}");
	}
}

/* Batches of every length about the distances between the stages leave what one event at a time leaves: the same facts, indexes and counts. */
static void test_batch_lengths(void **unused)
{
	const uint32_t lengths[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 200, 500};
	const enum event_stream kinds[] = {STREAM_WATCHES, STREAM_IMPRESSIONS, STREAM_EVENTS, STREAM_CATALOGUE};
	struct state *batched = new_state_with(20, 60, 8, 16, 7), *single = new_state_with(20, 60, 8, 16, 7);
	struct event_batch *batch = event_batch_new();
	struct state_counters a, b;
	uint64_t seed = 11;

	(void)unused;
	assert_non_null(batch);
	assert_int_equal(state_forget(batched, 3, 0), 0);
	assert_int_equal(state_forget(single, 3, 0), 0);
	for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++)
		for (size_t k = 0; k < 4; k++) {
			fill_batch(batch, kinds[k], lengths[l], &seed);
			assert_int_equal(state_apply(batched, batch), 0);
			for (uint32_t i = 0; i < batch->n_events; i++) {
				struct event event = batch->events[i];
				char name[8] = "";

				memcpy(name, batch->text + event.name.offset, event.name.len);
				apply_text(single, event, event.name.len ? name : NULL, event.stream == STREAM_CATALOGUE ? "{}" : NULL);
			}
			assert_same_digest(state_digest(batched), state_digest(single));
			a = state_counters(batched);
			b = state_counters(single);
			assert_memory_equal(&a, &b, sizeof(a));
		}
	assert_true(a.dropped_user_cap > 0 && a.dropped_item_cap > 0 && a.dropped_forgotten > 0);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(state_user_ids(batched)[i], state_user_ids(single)[i]);
	for (uint32_t i = 0; i < 60; i++)
		assert_int_equal(state_item_ids(batched)[i], state_item_ids(single)[i]);
	event_batch_free(batch);
	state_free(batched);
	state_free(single);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_watch_table),
		cmocka_unit_test(test_touch_table),
		cmocka_unit_test(test_minus_zero_digest),
		cmocka_unit_test(test_digest_sees_every_field),
		cmocka_unit_test(test_say_nothing),
		cmocka_unit_test(test_growing_lists),
		cmocka_unit_test(test_long_lists),
		cmocka_unit_test(test_batch_lengths),
	};
	return cmocka_run_group_tests_name("facts", tests, NULL, NULL);
}
