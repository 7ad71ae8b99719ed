/*
 * test_cut.c: a cut walked by another thread while the engine goes on is the state as it was at the cut's beginning, user by user.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/unit/state/state_testing.h"
#include "trainer/state/internal.h"

#define USERS 2000u
#define ITEMS 200u
#define ROW 24u

struct frozen {
	struct user_copy *users;
	uint32_t n;
};

static struct frozen freeze(const struct state *state)
{
	struct frozen frozen = {.n = state_n_users(state)};

	frozen.users = calloc(frozen.n ? frozen.n : 1, sizeof(*frozen.users));
	assert_non_null(frozen.users);
	for (uint32_t i = 0; i < frozen.n; i++)
		assert_int_equal(state_user_copy(state, i, &frozen.users[i]), 0);
	return frozen;
}

static void thaw(struct frozen *frozen)
{
	for (uint32_t i = 0; i < frozen->n; i++)
		user_copy_free(&frozen->users[i]);
	free(frozen->users);
}

static int same_user(const struct user_facts *a, const struct user_facts *b)
{
	return a->user == b->user && a->forgotten == b->forgotten && a->n_watches == b->n_watches && a->n_touches == b->n_touches &&
	       a->n_impressions == b->n_impressions && memcmp(a->watches, b->watches, a->n_watches * sizeof(*a->watches)) == 0 &&
	       memcmp(a->touches, b->touches, a->n_touches * sizeof(*a->touches)) == 0 &&
	       memcmp(a->impressions, b->impressions, a->n_impressions * sizeof(*a->impressions)) == 0 && memcmp(a->row, b->row, ROW) == 0;
}

static struct event random_event(uint64_t *seed, uint32_t users)
{
	int64_t user = random_below(seed, users), item = random_below(seed, ITEMS), time_us = random_below(seed, 100000);

	switch (random_below(seed, 4)) {
	case 0:
		return watch_event(user, item, time_us, (float)random_below(seed, 101) / 100.f, 5.f);
	case 1:
		return touch_event(user, item, time_us, (enum event_type)random_below(seed, 4));
	default:
		return shown_event(user, item, time_us, (int32_t)random_below(seed, 20));
	}
}

static void apply_random(struct state *state, struct event_batch *batch, uint64_t *seed, uint32_t n, uint32_t users)
{
	event_batch_clear(batch);
	for (uint32_t i = 0; i < n; i++)
		batch_add(batch, random_event(seed, users), "home", NULL);
	assert_int_equal(state_apply(state, batch), 0);
}

static void write_row(struct state *state, uint32_t user, int value)
{
	void *row = state_row_begin(state, user);

	assert_non_null(row);
	memset(row, value, ROW);
	state_row_end(state, user);
}

/* Everything that may change a user. */
static void disturb(struct state *state, struct event_batch *batch, uint64_t *seed)
{
	apply_random(state, batch, seed, 200, USERS + 500);
	for (int i = 0; i < 5; i++)
		write_row(state, random_below(seed, state_n_users(state)), (int)random_below(seed, 256));
	assert_int_equal(state_forget(state, random_below(seed, USERS + 500), (int)random_below(seed, 2)), 0);
	if (random_below(seed, 4) == 0) {
		struct user_facts facts; /* straightens a ring */
		state_user_facts(state, random_below(seed, state_n_users(state)), &facts);
	}
}

struct walk {
	struct state_cut *cut;
	const struct frozen *frozen;
	uint32_t stop_after;
	uint32_t users, wrong;
	struct state_totals totals;
	_Atomic int done;
};

static void *walk_main(void *arg)
{
	struct walk *walk = arg;
	struct user_copy copy = {0};

	while (walk->users < walk->stop_after && state_cut_next(walk->cut, &copy) == 1) {
		walk->wrong += !same_user(&copy.facts, &walk->frozen->users[walk->users].facts);
		walk->totals.watches += copy.facts.n_watches;
		walk->totals.touches += copy.facts.n_touches;
		walk->totals.impressions += copy.facts.n_impressions;
		walk->totals.forgotten += (uint64_t)copy.facts.forgotten;
		walk->users++;
		if (walk->users % 16 == 0)
			sched_yield();
	}
	user_copy_free(&copy);
	atomic_store(&walk->done, 1);
	return NULL;
}

static void one_cut(struct state *state, uint64_t *seed, uint32_t stop_after)
{
	struct event_batch *batch = event_batch_new();
	struct frozen frozen = freeze(state);
	struct state_digest digest = state_digest(state);
	struct walk walk = {.frozen = &frozen, .stop_after = stop_after};
	struct state_cut *second = NULL;
	pthread_t thread;

	assert_int_equal(state_cut_begin(state, &walk.cut), 0);
	assert_int_equal(state_cut_begin(state, &second), -EBUSY);
	assert_int_equal(state_cut_n_users(walk.cut), frozen.n);
	disturb(state, batch, seed); /* before the walk begins: these users hang copies */
	assert_true(state_cut_copied_bytes(state) > 0);
	assert_int_equal(pthread_create(&thread, NULL, walk_main, &walk), 0);
	while (!atomic_load(&walk.done))
		disturb(state, batch, seed);
	pthread_join(thread, NULL);
	assert_int_equal(walk.wrong, 0);
	assert_int_equal(walk.users, stop_after < frozen.n ? stop_after : frozen.n);
	assert_same_digest(state_cut_digest(walk.cut), digest);
	if (walk.users == frozen.n) {
		struct state_totals totals = state_cut_totals(walk.cut);
		assert_int_equal(totals.watches, walk.totals.watches);
		assert_int_equal(totals.touches, walk.totals.touches);
		assert_int_equal(totals.impressions, walk.totals.impressions);
		assert_int_equal(totals.forgotten, walk.totals.forgotten);
		assert_int_equal(state_cut_copied_bytes(state), 0);
	}
	state_cut_end(walk.cut);
	assert_int_equal(state_cut_copied_bytes(state), 0);
	thaw(&frozen);
	event_batch_free(batch);
}

static void test_walk_while_the_engine_goes_on(void **unused)
{
	struct state *state = new_state_with(USERS + 500, ITEMS, 8, ROW, 3);
	struct event_batch *batch = event_batch_new();
	uint64_t seed = 0x5eed;

	(void)unused;
	printf("seed %llx\n", (unsigned long long)seed);
	for (int i = 0; i < 20; i++)
		apply_random(state, batch, &seed, 4000, USERS);
	for (int cut = 0; cut < 6; cut++)
		one_cut(state, &seed, cut == 2 ? 100 : UINT32_MAX); /* one is given up early */
	event_batch_free(batch);
	state_free(state);
}

/* Without threads: every step of the walk has a change right before and right after it, to users on both sides. */
static void test_interleaved(void **unused)
{
	struct state *state = new_state_with(100, ITEMS, 8, ROW, 3);
	struct event_batch *batch = event_batch_new();
	struct user_copy copy = {0};
	struct state_cut *cut;
	uint64_t seed = 17;

	(void)unused;
	apply_random(state, batch, &seed, 2000, 50);
	struct frozen frozen = freeze(state);
	assert_int_equal(state_cut_begin(state, &cut), 0);
	for (uint32_t user = 0; user < frozen.n; user++) {
		write_row(state, user, 1);
		if (user > 0)
			write_row(state, user - 1, 2);
		apply_random(state, batch, &seed, 20, 60);
		assert_int_equal(state_cut_next(cut, &copy), 1);
		assert_true(same_user(&copy.facts, &frozen.users[user].facts));
	}
	assert_int_equal(state_cut_next(cut, &copy), 0);
	assert_int_equal(state_cut_next(cut, &copy), 0);
	assert_int_equal(state_cut_copied_bytes(state), 0);
	state_cut_end(cut);
	assert_int_equal(((const uint8_t *)state_row_begin(state, 0))[0], 2);
	state_row_end(state, 0);
	user_copy_free(&copy);
	thaw(&frozen);
	event_batch_free(batch);
	state_free(state);
}

/* Memory of copies: filled beyond one segment, a user larger than a segment, and used again by the next cuts. */
static void test_copies_of_many_and_of_large_users(void **unused)
{
	const uint32_t users = 3000, items = 90000;
	struct state *state = new_state_with(users, items, 64, ROW, 3);
	struct event_batch *batch = event_batch_new();
	struct user_copy copy = {0};
	size_t after_first = 0;

	(void)unused;
	for (uint32_t i = 0; i < items;) { /* user 7: a copy of 2.5 MB */
		event_batch_clear(batch);
		for (; i < items && batch->n_events < 4096; i++)
			batch_add(batch, watch_event(7, i, 1, 0.5f, 1.f), NULL, NULL);
		assert_int_equal(state_apply(state, batch), 0);
	}
	for (uint32_t i = 0; i < users * 64;) {
		event_batch_clear(batch);
		for (; i < users * 64 && batch->n_events < 4096; i++)
			batch_add(batch, shown_event(i % users, i % items, i, 0), NULL, NULL);
		assert_int_equal(state_apply(state, batch), 0);
	}
	for (int round = 0; round < 3; round++) {
		struct frozen frozen = freeze(state);
		struct state_cut *cut;
		size_t expected = 0;
		assert_int_equal(state_cut_begin(state, &cut), 0);
		for (uint32_t user = 0; user < users; user += 2) {
			write_row(state, user, 7 * round + 1); /* half of them before */
			write_row(state, users - 1 - user, 7 * round + 3);
		}
		for (uint32_t user = 0; user < users; user++)
			expected += frozen.users[user].facts.n_watches * sizeof(struct watch_fact) + 64 * sizeof(struct impression_fact);
		assert_true(state_cut_copied_bytes(state) > expected);
		for (uint32_t user = 0; user < users; user++) {
			assert_int_equal(state_cut_next(cut, &copy), 1);
			assert_true(same_user(&copy.facts, &frozen.users[user].facts));
		}
		state_cut_end(cut);
		assert_int_equal(state_cut_copied_bytes(state), 0);
		if (round == 0)
			after_first = state->hung_bytes;
		assert_true(state->hung_bytes > 0 && state->hung_bytes <= after_first); /* the same memory again */
		thaw(&frozen);
	}
	user_copy_free(&copy);
	event_batch_free(batch);
	state_free(state);
}

/* Copies that lie one after another never reach past their segment's 2 MiB, unless one alone is larger. */
static void test_copies_stay_in_their_segment(void **unused)
{
	struct state *state = new_state();
	const char *first = NULL, *end = NULL;
	uint64_t seed = 5;
	size_t sum = 0;

	(void)unused;
	for (int i = 0; i < 20000; i++) {
		size_t bytes = sizeof(struct hung_copy) + random_below(&seed, i % 100 == 0 ? 1500000 : 5000);
		char *copy = (char *)hung_alloc(state, bytes);
		assert_non_null(copy);
		sum += bytes;
		if (copy != end)
			first = copy;
		end = copy + (bytes + 63) / 64 * 64;
		assert_true((size_t)(end - first) < (size_t)2 << 20);
	}
	assert_int_equal(state_cut_copied_bytes(state), sum);
	assert_true(state->hung_bytes >= sum);
	state_free(state);
}

static void test_counters_and_names_are_frozen(void **unused)
{
	struct state *state = new_state_with(100, ITEMS, 8, ROW, 3);
	struct state_cut *cut;

	(void)unused;
	apply_named(state, shown_event(1, 1, 500, 0), "a");
	assert_int_equal(state_cut_begin(state, &cut), 0);
	apply_named(state, shown_event(1, 2, 900, 0), "b");
	apply_one(state, watch_event(2, 3, 900, 0.9f, 1.f));
	assert_int_equal(state_cut_n_users(cut), 1);
	assert_int_equal(state_cut_n_items(cut), 1);
	assert_int_equal(state_cut_n_surfaces(cut), 1);
	assert_int_equal(state_cut_time_max_us(cut), 500);
	assert_int_equal(state_cut_counters(cut).events_applied[STREAM_IMPRESSIONS], 1);
	assert_int_equal(state_cut_counters(cut).events_applied[STREAM_WATCHES], 0);
	assert_int_equal(state_cut_totals(cut).impressions, 1);
	assert_int_equal(state_cut_totals(cut).watches, 0);
	assert_int_equal(state_counters(state).events_applied[STREAM_IMPRESSIONS], 2);
	state_cut_end(cut);
	state_cut_end(NULL);
	state_free(state);
}

static void assert_cut_doc(const struct state_cut *cut, uint32_t item, const char *want)
{
	size_t len = 0;
	const char *doc = state_cut_catalogue_doc(cut, item, &len);

	if (!want) {
		assert_null(doc);
		return;
	}
	assert_non_null(doc);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(doc, want, len);
}

static void test_catalogue_is_frozen(void **unused)
{
	struct state *state = new_state_with(100, ITEMS, 8, ROW, 3);
	struct state_cut *cut;
	size_t len = 0;
	char buf[100];

	(void)unused;
	apply_one(state, watch_event(1, 0, 1, 0.1f, 1.f)); /* item 0: no line */
	apply_catalogue_line(state, 1, 10, "{\"one\":1}");
	apply_catalogue_line(state, 2, 10, "{\"two\":1}");
	assert_int_equal(state_cut_begin(state, &cut), 0);
	const char *held = state_cut_catalogue_doc(cut, 1, &len);
	for (int i = 0; i < 3; i++) { /* replaced again and again */
		char doc[40];
		snprintf(doc, sizeof(doc), "{\"newer\":%d}", i);
		apply_catalogue_line(state, 1, 10, doc);
		apply_catalogue_line(state, 0, 10, doc);
		apply_catalogue_line(state, 3, 10, doc);
	}
	assert_memory_equal(held, "{\"one\":1}", len);
	assert_cut_doc(cut, 0, NULL);
	assert_cut_doc(cut, 1, "{\"one\":1}");
	assert_cut_doc(cut, 2, "{\"two\":1}");
	assert_cut_doc(cut, 3, NULL); /* joined later */
	assert_int_equal(state_catalogue_doc(state, 1, buf, sizeof(buf)), 11);
	assert_string_equal(buf, "{\"newer\":2}");
	state_cut_end(cut);
	assert_int_equal(state_cut_begin(state, &cut), 0);
	assert_cut_doc(cut, 0, "{\"newer\":2}");
	assert_cut_doc(cut, 1, "{\"newer\":2}");
	apply_catalogue_line(state, 1, 10, "{}");
	state_free(state); /* with a cut and a kept entry */
}

/* Readers on other threads copy whole users: every watch of a user is changed by one batch to the same time. */
struct reader {
	const struct state *state;
	_Atomic int stop;
	_Atomic uint64_t copies;
	uint64_t torn;
};

static void *reader_main(void *arg)
{
	struct reader *reader = arg;
	struct user_copy copy = {0};
	uint64_t seed = 3;
	char buf[64];

	while (!atomic_load(&reader->stop)) {
		uint32_t user = random_below(&seed, 50), items[64];
		if (state_user_copy(reader->state, user, &copy) != 0)
			continue;
		reader->copies++;
		for (uint32_t i = 0; i < copy.facts.n_watches; i++)
			reader->torn += copy.facts.watches[i].last_us != copy.facts.watches[i].best_us;
		for (uint32_t i = 1; i < copy.facts.n_impressions; i++)
			reader->torn += copy.facts.impressions[i - 1].shown_us > copy.facts.impressions[i].shown_us;
		for (uint32_t i = 1; i < ROW; i++)
			reader->torn += ((const uint8_t *)copy.facts.row)[0] != ((const uint8_t *)copy.facts.row)[i];
		(void)state_positives(reader->state, &copy.facts, items, 64);
		(void)state_catalogue_doc(reader->state, 0, buf, sizeof(buf));
		(void)state_digest(reader->state);
		(void)state_memory_bytes(reader->state);
		(void)state_item_popularity(reader->state, 0);
		(void)state_surface_name(reader->state, 1);
		(void)state_time_max_us(reader->state);
	}
	user_copy_free(&copy);
	return NULL;
}

static void test_readers_see_whole_users(void **unused)
{
	struct state *state = new_state_with(100, ITEMS, 8, ROW, 3);
	struct event_batch *batch = event_batch_new();
	struct reader reader = {.state = state};
	uint64_t seed = 4;
	pthread_t thread;

	(void)unused;
	assert_int_equal(pthread_create(&thread, NULL, reader_main, &reader), 0);
	for (int round = 0; round < 300 || (reader.copies < 1000 && round < 30000); round++) {
		event_batch_clear(batch);
		for (int i = 0; i < 300; i++) {
			int64_t user = random_below(&seed, 50);
			batch_add(batch, watch_event(user, random_below(&seed, ITEMS), round, 0.8f, 5.f), NULL, NULL);
			batch_add(batch, shown_event(user, random_below(&seed, ITEMS), random_below(&seed, 1000), 0), "home", NULL);
		}
		assert_int_equal(state_apply(state, batch), 0);
		write_row(state, random_below(&seed, state_n_users(state)), round & 255);
		apply_catalogue_line(state, 0, 10 + round, round & 1 ? "{}" : "{ }");
		if (round % 50 == 0) {
			assert_int_equal(state_forget(state, random_below(&seed, 50), 0), 0);
			assert_int_equal(state_forget(state, random_below(&seed, 50), 1), 0);
		}
	}
	atomic_store(&reader.stop, 1);
	pthread_join(thread, NULL);
	assert_int_equal(reader.torn, 0);
	assert_true(reader.copies > 0);
	event_batch_free(batch);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_while_the_engine_goes_on),
		cmocka_unit_test(test_interleaved),
		cmocka_unit_test(test_copies_of_many_and_of_large_users),
		cmocka_unit_test(test_copies_stay_in_their_segment),
		cmocka_unit_test(test_counters_and_names_are_frozen),
		cmocka_unit_test(test_catalogue_is_frozen),
		cmocka_unit_test(test_readers_see_whole_users),
	};
	return cmocka_run_group_tests_name("cut", tests, NULL, NULL);
}
