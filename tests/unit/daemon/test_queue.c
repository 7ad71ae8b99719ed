/* test_queue.c: order between streams, the bound, waking, and two threads on each side. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/queue.h"

static const int all[STREAM_COUNT] = { 1, 1, 1, 1, 1 };

static void watches_come_before_impressions(void **state)
{
	static const enum event_stream expected[] = { STREAM_CATALOGUE, STREAM_WATCHES, STREAM_EVENTS, STREAM_IMPRESSIONS, STREAM_USERS };
	struct queue_set *queues;

	(void)state;
	assert_int_equal(queue_set_new(2, all, &queues), 0);
	for (int s = 0; s < STREAM_COUNT; s++)
		queue_push(queues, queue_take_free(queues, (enum event_stream)s, 0));
	for (int i = 0; i < STREAM_COUNT; i++) {
		struct event_batch *batch = queue_pop(queues);

		assert_non_null(batch);
		assert_int_equal(batch->stream, expected[i]);
		queue_give_back(queues, batch);
	}
	assert_null(queue_pop(queues));
	queue_set_free(queues);
}

static void a_full_queue_makes_its_source_wait(void **state)
{
	struct queue_set *queues;

	(void)state;
	assert_int_equal(queue_set_new(2, all, &queues), 0);
	queue_push(queues, queue_take_free(queues, STREAM_EVENTS, 0));
	queue_push(queues, queue_take_free(queues, STREAM_EVENTS, 0));
	assert_null(queue_take_free(queues, STREAM_EVENTS, 10));
	assert_int_equal(queue_waiting(queues, STREAM_EVENTS), 2);
	struct event_batch *other = queue_take_free(queues, STREAM_WATCHES, 0); /* the other streams go on */

	assert_non_null(other);
	queue_give_back(queues, other);
	queue_give_back(queues, queue_pop(queues));
	struct event_batch *again = queue_take_free(queues, STREAM_EVENTS, 0);

	assert_non_null(again);
	queue_give_back(queues, again);
	queue_set_close(queues);
	assert_null(queue_take_free(queues, STREAM_EVENTS, 1000));
	queue_set_free(queues);
}

/* Three batches circulate in a queue of eight as long as no more are in use: the others stay untouched memory. */
static void the_last_that_came_back_goes_first(void **state)
{
	struct event_batch *used[3];
	struct queue_set *queues;

	(void)state;
	assert_int_equal(queue_set_new(8, all, &queues), 0);
	for (int i = 0; i < 3; i++) {
		used[i] = queue_take_free(queues, STREAM_EVENTS, 0);
		queue_push(queues, used[i]);
	}
	for (int i = 0; i < 3; i++) { /* waiting batches leave in their order */
		struct event_batch *batch = queue_pop(queues);

		assert_ptr_equal(batch, used[i]);
		queue_give_back(queues, batch);
	}
	for (int round = 0; round < 20; round++) {
		struct event_batch *last = queue_take_free(queues, STREAM_EVENTS, 0), *before = queue_take_free(queues, STREAM_EVENTS, 0);

		assert_ptr_equal(last, used[2]);
		assert_ptr_equal(before, used[1]);
		queue_give_back(queues, before);
		queue_give_back(queues, last);
	}
	queue_set_free(queues);
}

#define ROUNDS 20000

static void *producer(void *arg)
{
	struct queue_set *queues = arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct event_batch *batch;

		while ((batch = queue_take_free(queues, STREAM_EVENTS, 1000)) == NULL)
			;
		batch->n_events = 1;
		batch->events[0].user_id = i;
		queue_push(queues, batch);
	}
	return NULL;
}

static void two_sources_one_engine(void **state)
{
	struct queue_set *queues;
	pthread_t threads[2];
	int64_t sum = 0;

	(void)state;
	assert_int_equal(queue_set_new(4, all, &queues), 0);
	for (int t = 0; t < 2; t++)
		assert_int_equal(pthread_create(&threads[t], NULL, producer, queues), 0);
	for (int taken = 0; taken < 2 * ROUNDS;) {
		struct event_batch *batch = queue_pop(queues);

		if (batch == NULL) {
			queue_wait(queues, 1000);
			continue;
		}
		sum += batch->events[0].user_id;
		assert_int_equal(batch->n_events, 1);
		queue_give_back(queues, batch);
		taken++;
	}
	for (int t = 0; t < 2; t++)
		pthread_join(threads[t], NULL);
	assert_int_equal(sum, (int64_t)ROUNDS * (ROUNDS - 1));
	queue_set_free(queues);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watches_come_before_impressions),
		cmocka_unit_test(a_full_queue_makes_its_source_wait),
		cmocka_unit_test(the_last_that_came_back_goes_first),
		cmocka_unit_test(two_sources_one_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
