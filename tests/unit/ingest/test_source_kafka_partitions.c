/*
 * test_source_kafka_partitions.c: which partitions the Kafka source reads, and what it says of those that it cannot (rows 18, 23, 25 and 26 of the failure list),
 * against librdkafka's mock cluster: partitions without a leader, those of another recd, those that are not there or no longer there, topics that come later.
 */
#include "ingest/source_kafka.h"
#include "tests/unit/ingest/kafka_world.h"

/* The partition that has no leader for good comes first; those behind it are read all the same. */
static void test_no_leader_holds_up_nobody(void **unused)
{
	struct world *w = world_new(4);

	(void)unused;
	for (int i = 0; i < 4; i++)
		world_numbers(w, i, 10 * i, 10 * i + 10);
	assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, 0, -1), 0);
	world_until(w, w->n_seen == 30);
	assert_int_equal(world_wrong(w, 0, 10, 0) + world_wrong(w, 10, 40, 1), 0);
	world_until(w, world_status(w).degraded);
	assert_non_null(strstr(world_status(w).reason, "no leader"));
	assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, 0, 1), 0);
	world_until(w, w->n_seen == 40);
	world_until(w, !world_status(w).degraded);
	assert_int_equal(world_wrong(w, 0, 40, 1), 0);
	world_free(w);
}

/* What is wrong with the partitions of another recd is not this one's trouble. */
static void test_trouble_of_others(void **unused)
{
	static const struct partition_range ranges[] = {{1, 1}};
	struct world *w = world_new(2);

	(void)unused;
	w->config.ranges = ranges;
	w->config.n_ranges = 1;
	world_numbers(w, 1, 0, 10);
	assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, 0, -1), 0);
	world_until(w, w->n_seen == 10);
	world_until(w, world_status(w).lag_records == 0);
	for (int i = 0; i < 3; i++) { /* metadata comes again meanwhile */
		world_numbers(w, 1, 10 + i, 11 + i);
		world_until(w, w->n_seen == 11 + (unsigned)i);
		world_settle(w);
		assert_false(world_status(w).degraded);
	}
	assert_false(world_logged(w, "no leader"));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_leader_holds_up_nobody),
		cmocka_unit_test(test_trouble_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
