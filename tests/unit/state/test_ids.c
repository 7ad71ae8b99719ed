/*
 * test_ids.c: dense ids: growth, caps, floods, readers on other threads.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/unit/state/state_testing.h"
#include "trainer/state/ids.h"

static uint32_t enter(struct ids *ids, int64_t id)
{
	uint64_t hash = ids_hash(ids, id);
	uint32_t index = ids_find(ids, id, hash);

	if (index == UINT32_MAX)
		assert_int_equal(ids_insert(ids, id, hash, &index), 0);
	return index;
}

static void test_order_of_arrival(void **unused)
{
	struct ids ids;
	const int64_t extremes[] = {0, -1, 1, INT64_MIN, INT64_MAX, INT64_C(1) << 53, (INT64_C(1) << 53) + 1};
	const uint32_t n_extremes = sizeof(extremes) / sizeof(extremes[0]);

	(void)unused;
	assert_int_equal(ids_init(&ids, 200000, 42), 0);
	for (uint32_t i = 0; i < n_extremes; i++)
		assert_int_equal(enter(&ids, extremes[i]), i);
	for (uint32_t i = 0; i < 100000; i++)
		assert_int_equal(enter(&ids, (int64_t)i * 1000003 + 7777), n_extremes + i);
	for (uint32_t i = 0; i < n_extremes; i++)
		assert_int_equal(enter(&ids, extremes[i]), i);
	for (uint32_t i = 0; i < 100000; i++) {
		assert_int_equal(ids_find_shared(&ids, (int64_t)i * 1000003 + 7777), n_extremes + i);
		assert_int_equal(ids_external(&ids)[n_extremes + i], (int64_t)i * 1000003 + 7777);
		assert_int_equal(ids_find_shared(&ids, -(int64_t)i - 5), UINT32_MAX);
	}
	ids_destroy(&ids);
}

/* FAILURES row 29: many ids. The cap holds, memory stays bounded, and a lookup stays short whatever the ids look like. */
static void flood(int64_t step, int shift, uint64_t seed)
{
	const uint32_t n = 1000000, cap = 700000;
	struct ids ids;
	uint64_t longest = 0, refused = 0;

	assert_int_equal(ids_init(&ids, cap, seed), 0);
	for (uint32_t i = 0; i < n; i++) {
		int64_t id = (int64_t)((uint64_t)i * (uint64_t)step << shift);
		uint64_t hash = ids_hash(&ids, id);
		uint32_t index;
		int r = ids_insert(&ids, id, hash, &index);
		if (r == -ENOSPC)
			refused++;
		else
			assert_int_equal(r, 0);
	}
	assert_int_equal(refused, n - cap);
	assert_int_equal(ids_count(&ids), cap);
	assert_true((uint64_t)cap * 3 <= (ids.mask + 1) * 2 + 3); /* load at most 2/3 */
	assert_true(ids.slots_bytes <= (size_t)4 * cap * sizeof(struct id_slot));
	for (uint64_t i = 0, run = 0; i <= ids.mask; i++) {
		run = ids.slots[i].index_plus_1 ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	if (longest > 500) /* linear probing at load 2/3: about a hundred */
		fail_msg("a run of %llu slots for step %lld << %d", (unsigned long long)longest, (long long)step, shift);
	ids_destroy(&ids);
}

static void test_flood(void **unused)
{
	(void)unused;
	flood(1, 0, 1);
	flood(1, 40, 2);
	flood(1 << 20, 0, 3);
	flood(INT64_C(0x9E3779B97F4A7C15) & INT64_MAX, 0, 4);
}

/* The seed decides the slots: ids that share one under one seed are spread under another. */
static void test_seed(void **unused)
{
	struct ids a, b;
	uint64_t first = 0;
	uint32_t together = 0, also = 0;

	(void)unused;
	assert_int_equal(ids_init(&a, 10, 1), 0);
	assert_int_equal(ids_init(&b, 10, 2), 0);
	for (int64_t id = 0; id < 1000000; id++) {
		if (ids_hash(&a, id) >> 54 != 77)
			continue;
		if (together++ == 0)
			first = ids_hash(&b, id) >> 54;
		else
			also += ids_hash(&b, id) >> 54 == first;
	}
	assert_true(together > 500); /* of 1,024 slots */
	assert_true(also < 20);
	ids_destroy(&a);
	ids_destroy(&b);
}

struct reader {
	struct state *state;
	_Atomic int stop;
	uint64_t found, wrong;
};

static void *read_ids(void *arg)
{
	struct reader *reader = arg;
	uint64_t seed = 5;

	while (!atomic_load(&reader->stop)) {
		int64_t id = random_below(&seed, 60000);
		uint32_t user = state_find_user(reader->state, id);
		if (user == STATE_NONE)
			continue;
		reader->found++;
		if (user >= state_n_users(reader->state) || state_user_ids(reader->state)[user] != id)
			reader->wrong++;
		uint32_t n_items = state_n_items(reader->state);
		if (n_items && state_item_ids(reader->state)[n_items - 1] != 1000000 + (int64_t)n_items - 1)
			reader->wrong++;
	}
	return NULL;
}

/* FAILURES row 33: tables grow while others read. */
static void test_readers_while_growing(void **unused)
{
	struct reader reader = {.state = new_state_with(100000, 100000, 4, 0, 1)};
	struct event_batch *batch = event_batch_new();
	pthread_t thread;

	(void)unused;
	assert_int_equal(pthread_create(&thread, NULL, read_ids, &reader), 0);
	for (int64_t i = 0; i < 60000;) {
		event_batch_clear(batch);
		for (int k = 0; k < 500; k++, i++)
			batch_add(batch, watch_event(i, 1000000 + i, i, 0.5f, 1.f), NULL, NULL);
		assert_int_equal(state_apply(reader.state, batch), 0);
	}
	for (int i = 0; i < 1000 && state_find_user(reader.state, i) != STATE_NONE; i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
	atomic_store(&reader.stop, 1);
	pthread_join(thread, NULL);
	assert_int_equal(reader.wrong, 0);
	assert_true(reader.found > 0);
	assert_int_equal(state_n_users(reader.state), 60000);
	event_batch_free(batch);
	state_free(reader.state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_of_arrival),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_seed),
		cmocka_unit_test(test_readers_while_growing),
	};
	return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
