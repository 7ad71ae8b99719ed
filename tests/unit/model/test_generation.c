/*
 * test_generation.c: the pool of generations. Single steps first, then one publishing thread against readers: a reader must only ever see a
 * generation that is whole (every cell carries its number) and that does not change while it holds it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "trainer/model/generation.h"

static void publish_and_acquire(void **state)
{
	struct publisher *publisher;
	struct generation *first, *second, *got, *again;

	(void)state;
	assert_int_equal(publisher_new(8, &publisher), 0);
	assert_null(generation_acquire(publisher));
	assert_int_equal(publisher_begin(publisher, &first), 0);
	assert_int_equal(first->tables.dim, 8);
	assert_null(generation_acquire(publisher)); /* not committed yet */
	publisher_commit(publisher, first, 0);
	got = generation_acquire(publisher);
	assert_ptr_equal(got, first);
	assert_int_equal(got->number, 1);
	assert_true(got->published_us > 0);

	assert_int_equal(publisher_begin(publisher, &second), 0);
	assert_ptr_not_equal(second, first);
	publisher_commit(publisher, second, 41); /* a restored number */
	again = generation_acquire(publisher);
	assert_ptr_equal(again, second);
	assert_int_equal(again->number, 41);
	assert_int_equal(got->number, 1); /* the old one stays as it was while held */
	generation_release(publisher, got);
	generation_release(publisher, again);
	generation_release(publisher, NULL);

	assert_int_equal(publisher_begin(publisher, &first), 0);
	publisher_commit(publisher, first, 0);
	assert_int_equal(first->number, 42);
	publisher_free(publisher);
	publisher_free(NULL);
}

static void pinned_spares_are_busy(void **state)
{
	struct publisher *publisher;
	struct generation *g[3], *none = NULL, *held[3];

	(void)state;
	assert_int_equal(publisher_new(1, &publisher), 0);
	for (int i = 0; i < 3; i++) { /* publish three, hold each */
		assert_int_equal(publisher_begin(publisher, &g[i]), 0);
		publisher_commit(publisher, g[i], 0);
		held[i] = generation_acquire(publisher);
		assert_ptr_equal(held[i], g[i]);
	}
	assert_int_equal(publisher_begin(publisher, &none), -EBUSY);
	assert_null(none);
	generation_release(publisher, held[0]);
	assert_int_equal(publisher_begin(publisher, &none), 0); /* the one let go comes back */
	assert_ptr_equal(none, g[0]);
	publisher_cancel(publisher, none);
	none = NULL;
	generation_release(publisher, held[2]); /* the published one is not free, held or not */
	assert_int_equal(publisher_begin(publisher, &none), 0);
	assert_ptr_equal(none, g[0]);
	publisher_cancel(publisher, none);
	generation_release(publisher, held[1]);
	publisher_free(publisher);
}

static void the_freshest_spare_is_filled(void **state)
{
	struct publisher *publisher;
	struct generation *first, *second, *third, *again, *none = NULL;

	(void)state;
	assert_int_equal(publisher_new(1, &publisher), 0);
	assert_int_equal(publisher_begin(publisher, &first), 0);
	publisher_commit(publisher, first, 0);
	assert_int_equal(publisher_begin(publisher, &second), 0);
	publisher_commit(publisher, second, 0);
	struct generation *held = generation_acquire(publisher);
	assert_int_equal(publisher_begin(publisher, &third), 0);
	if (third == first) { /* leave the first one behind as the oldest */
		publisher_commit(publisher, third, 0);
		assert_int_equal(publisher_begin(publisher, &third), 0);
	}
	publisher_commit(publisher, third, 0);
	generation_release(publisher, held);
	/* second and one other are free now: the one with the larger number is taken */
	uint64_t newest = 0;
	struct generation *expected = NULL, *all[3] = { first, second, third };
	for (int i = 0; i < 3; i++) {
		if (all[i] != third && all[i]->number > newest) {
			newest = all[i]->number;
			expected = all[i];
		}
	}
	assert_int_equal(publisher_begin(publisher, &again), 0);
	assert_ptr_equal(again, expected);
	assert_int_equal(publisher_begin(publisher, &none), -EBUSY); /* one filling at a time */
	publisher_cancel(publisher, again);
	publisher_free(publisher);
}

#define CELLS 2000
#define ROUNDS 3000
#define READERS 3

struct race {
	struct publisher *publisher;
	atomic_int stop;
	atomic_int torn;
	atomic_int reads;
};

static void *reader(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		struct generation *generation = generation_acquire(race->publisher);
		float expected = (float)generation->number;

		for (uint32_t i = 0; i < CELLS; i++) {
			if (generation->tables.bi[i] != expected)
				atomic_store(&race->torn, 1);
		}
		atomic_fetch_add(&race->reads, 1);
		generation_release(race->publisher, generation);
	}
	return NULL;
}

static void fill(struct generation *generation, uint64_t number)
{
	for (uint32_t i = 0; i < CELLS; i++)
		generation->tables.bi[i] = (float)number;
}

static void give_cells(struct generation *generation)
{
	assert_int_equal(tables_reserve(&generation->tables, 1, CELLS, 1), 0);
}

static void readers_see_whole_generations(void **state)
{
	struct race race = { 0 };
	struct generation *generation;
	pthread_t threads[READERS];
	uint64_t published = 1;

	(void)state;
	assert_int_equal(publisher_new(1, &race.publisher), 0);
	assert_int_equal(publisher_begin(race.publisher, &generation), 0);
	give_cells(generation);
	fill(generation, published);
	publisher_commit(race.publisher, generation, 0);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, &race), 0);
	while (published < ROUNDS || atomic_load(&race.reads) < READERS) {
		if (publisher_begin(race.publisher, &generation))
			continue; /* all pinned just now */
		give_cells(generation);
		fill(generation, published + 1);
		if (published % 7 == 0) { /* a pull that failed */
			publisher_cancel(race.publisher, generation);
			if (publisher_begin(race.publisher, &generation))
				continue;
			give_cells(generation);
			fill(generation, published + 1);
		}
		publisher_commit(race.publisher, generation, 0);
		published++;
	}
	atomic_store(&race.stop, 1);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	assert_false(atomic_load(&race.torn));
	generation = generation_acquire(race.publisher);
	assert_int_equal(generation->number, published);
	generation_release(race.publisher, generation);
	publisher_free(race.publisher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(publish_and_acquire),
		cmocka_unit_test(pinned_spares_are_busy),
		cmocka_unit_test(the_freshest_spare_is_filled),
		cmocka_unit_test(readers_see_whole_generations),
	};

	return cmocka_run_group_tests_name("generation", tests, NULL, NULL);
}
