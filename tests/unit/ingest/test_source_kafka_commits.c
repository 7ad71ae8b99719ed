/*
 * test_source_kafka_commits.c: commits whose answer never comes (row 24 of the failure list), against librdkafka's mock cluster: because the connection ends first, or
 * because librdkafka itself forgets the commit. For that one this program's rd_kafka_commit_queue() and rd_kafka_queue_poll() stand before the library's.
 */
#include <dlfcn.h>
#include <stdatomic.h>

#include "ingest/source_kafka.h"
#include "tests/unit/ingest/kafka_world.h"

static atomic_int forget;                  /* the next commit */
static _Atomic(struct source_kafka *) age; /* the commit that this source waits for was sent long ago */

rd_kafka_resp_err_t rd_kafka_commit_queue(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets, rd_kafka_queue_t *queue,
                                          void (*cb)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *, void *), void *opaque)
{
	static rd_kafka_resp_err_t (*real)(rd_kafka_t *, const rd_kafka_topic_partition_list_t *, rd_kafka_queue_t *,
	                                   void (*)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *, void *), void *);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "rd_kafka_commit_queue");
	return atomic_exchange(&forget, 0) ? RD_KAFKA_RESP_ERR_NO_ERROR : real(rk, offsets, queue, cb, opaque);
}

/* The scout's thread comes here between two looks, so it may write what is the scout's. */
rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *queue, int timeout_ms)
{
	static rd_kafka_event_t *(*real)(rd_kafka_queue_t *, int);
	struct source_kafka *source = atomic_exchange(&age, NULL);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "rd_kafka_queue_poll");
	if (source)
		source->commit_sent_us -= INT64_C(3600000000);
	return real(queue, timeout_ms);
}

static int64_t committed(struct world *w)
{
	struct partition_status partition;

	return source_partitions(w->source, &partition, 1) == 1 ? partition.committed : -1;
}

static struct world *world_of_ten(void)
{
	struct world *w = world_new(1);

	world_numbers(w, 0, 0, 10);
	world_until(w, w->n_seen == 10);
	return w;
}

static void test_answer_forgotten(void **unused)
{
	struct world *w = world_of_ten();

	(void)unused;
	atomic_store(&forget, 1);
	source_commit(w->source, w->positions, w->n_positions);
	world_until(w, !atomic_load(&forget));
	source_commit(w->source, w->positions, w->n_positions); /* one is under way: this one waits */
	world_settle(w);
	assert_int_equal(committed(w), -1);
	atomic_store(&age, (struct source_kafka *)(void *)w->source);
	world_until(w, committed(w) == 10);
	assert_false(world_status(w).degraded);
	world_free(w);
}

/* The broker takes the commit, and goes before it has answered. */
static void test_answer_lost(void **unused)
{
	struct world *w = world_of_ten();

	(void)unused;
	rd_kafka_mock_broker_set_rtt(w->cluster, 1, 5000);
	source_commit(w->source, w->positions, w->n_positions);
	world_settle(w);
	rd_kafka_mock_broker_set_down(w->cluster, 1);
	world_until(w, world_status(w).degraded);
	assert_int_equal(committed(w), -1);
	rd_kafka_mock_broker_set_rtt(w->cluster, 1, 0);
	rd_kafka_mock_broker_set_up(w->cluster, 1);
	world_numbers(w, 0, 10, 20);
	world_until(w, w->n_seen == 20);
	source_commit(w->source, w->positions, w->n_positions);
	world_until(w, committed(w) == 20);
	assert_int_equal(world_wrong(w, 0, 20, 1), 0);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_answer_forgotten), cmocka_unit_test(test_answer_lost)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
