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

/* The same when there is a leader, but it does not answer; and the source ends all the same. */
static void test_leader_down_holds_up_nobody(void **unused)
{
	struct world *w = world_on(2, 2);

	(void)unused;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, i, 2 - i), 0);
		world_numbers(w, i, 10 * i, 10 * i + 10);
	}
	rd_kafka_mock_broker_set_down(w->cluster, 2);
	world_until(w, w->n_seen == 10);
	assert_int_equal(world_wrong(w, 0, 10, 0) + world_wrong(w, 10, 20, 1), 0);
	world_until(w, world_status(w).degraded);
	alarm(300); /* closing waits for the scout */
	world_stop(w);
	alarm(0);
	rd_kafka_mock_broker_set_up(w->cluster, 2);
	world_until(w, w->n_seen == 20);
	world_until(w, !world_status(w).degraded);
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

/* kafka.partitions names partitions that the topic does not have: some, or none that it has. */
static void test_named_and_not_there(void **unused)
{
	static const struct partition_range some[] = {{3, 9}}, none[] = {{4, 7}};
	struct world *w = world_new(4);

	(void)unused;
	w->config.ranges = some;
	w->config.n_ranges = 1;
	world_numbers(w, 3, 0, 10);
	world_until(w, w->n_seen == 10);
	assert_true(world_logged(w, "has 4 partitions; those above 3 that kafka.partitions names"));
	assert_false(world_status(w).degraded);
	world_stop(w);
	w->config.ranges = none;
	world_until(w, world_status(w).degraded);
	assert_non_null(strstr(world_status(w).reason, "topic \"watch\" has 4 partitions, and kafka.partitions names none of them"));
	assert_true(world_logged(w, "nothing is read"));
	world_settle(w);
	assert_int_equal(w->n_seen, 10);
	world_free(w);
}

/* The topic was made anew with fewer partitions: what it no longer has is told like any other new log. */
static void test_fewer_partitions(void **unused)
{
	static const struct partition_range ours[] = {{0, 1}, {5, 5}};
	struct world *w = world_new(2);

	(void)unused;
	w->config.ranges = ours;
	w->config.n_ranges = 2;
	world_numbers(w, 0, 0, 10);
	world_add_position(w, 0, 0, 0);
	world_add_position(w, 4, 70, 1); /* another recd's now */
	world_add_position(w, 5, 80, 1);
	assert_int_equal(world_until_failure(w), -EUCLEAN);
	assert_non_null(strstr(w->errstr, "topic \"watch\" partition 5: recreated: the topic has 2 partitions now"));
	assert_non_null(strstr(w->errstr, "offset 80"));
	assert_non_null(strstr(w->errstr, "kafka.on_gap = \"accept\""));
	world_stop(w);
	w->config.accept_gaps = 1;
	world_until(w, world_position(w, 5)->gaps == 1);
	assert_int_equal(world_position(w, 5)->offset, 0);
	assert_int_equal(world_position(w, 5)->marker_len, 0);
	assert_int_equal(world_position(w, 5)->resets, 1);
	assert_int_equal(world_position(w, 5)->lines, 80);
	assert_int_equal(world_position(w, 4)->gaps, 0);
	world_settle(w);
	world_stop(w); /* it is told once, and then nobody refuses it */
	w->config.accept_gaps = 0;
	world_numbers(w, 0, 10, 20);
	world_until(w, w->n_seen == 20);
	for (int i = 0; i < 8; i++) /* answers of metadata, each with a record behind it */
		world_settle(w);
	assert_int_equal(world_position(w, 5)->gaps, 1);
	assert_int_equal(world_position(w, 4)->offset, 70);
	world_free(w);
}

/* from = "end" is about what was there before: all of a topic that is made while recd runs is new. */
static void test_topic_made_later(void **unused)
{
	struct world *w;

	(void)unused;
	if (rd_kafka_version() >= 0x02010000) { /* as in test_missing_topic of test_source_kafka_trouble.c */
		print_message("SKIP test_topic_made_later: librdkafka %s may end on the mock broker's answer\n", rd_kafka_version_str());
		skip();
	}
	w = world_new(0);
	w->config.from_end = 1;
	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	world_until(w, world_logged(w, "does not exist"));
	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR);
	world_numbers(w, 0, 0, 10); /* before the next poll can place anything */
	world_until(w, w->n_seen == 10);
	assert_int_equal(world_wrong(w, 0, 10, 1), 0);
	world_free(w);
}

/* A partition that recd has no position in, though it is not its first start: what can no longer be had of it is said. */
static void test_added_and_evicted(void **unused)
{
	struct world *w = world_new(2);
	int64_t low, high;
	char wanted[64];

	(void)unused;
	world_add_position(w, 1, 0, 0);
	if (!world_evict(w, 0, &low, &high)) {
		print_message("SKIP test_added_and_evicted: this librdkafka's mock broker kept everything\n");
		world_free(w);
		skip();
	}
	world_until(w, world_position(w, 0) && world_position(w, 0)->offset == high);
	assert_int_equal(world_position(w, 0)->empty, high - low);
	assert_int_equal(world_position(w, 0)->gaps, 0);
	snprintf(wanted, sizeof(wanted), "at offset %lld: %lld older ones are deleted", (long long)low, (long long)low);
	assert_true(world_logged(w, wanted));
	assert_false(world_logged(w, "first start"));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_leader_holds_up_nobody), cmocka_unit_test(test_leader_down_holds_up_nobody),
		cmocka_unit_test(test_trouble_of_others), cmocka_unit_test(test_named_and_not_there),
		cmocka_unit_test(test_fewer_partitions),          cmocka_unit_test(test_topic_made_later),  cmocka_unit_test(test_added_and_evicted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
