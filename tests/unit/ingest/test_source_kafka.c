/*
 * test_source_kafka.c: the Kafka source in ordinary weather, against librdkafka's mock cluster: counters, positions, resuming, refused records, tombstones,
 * partition ranges, commits, status. Its troubles are in test_source_kafka_trouble.c.
 */
#include "ingest/source_kafka.h"
#include "tests/unit/ingest/kafka_world.h"

static void test_three_partitions(void **unused)
{
	struct world *w = world_new(3);
	struct partition_status partitions[4];

	(void)unused;
	world_numbers(w, 0, 0, 100);
	world_numbers(w, 1, 100, 150);
	world_numbers(w, 2, 150, 151);
	world_until(w, w->n_seen == 151);
	assert_int_equal(world_wrong(w, 0, 151, 1), 0);
	assert_int_equal(w->n_positions, 3);
	assert_int_equal(world_position(w, 0)->offset, 100);
	assert_int_equal(world_position(w, 0)->lines, 100);
	assert_int_equal(world_position(w, 0)->inode, 99);
	assert_int_equal(world_position(w, 0)->marker_len, 1);
	assert_int_equal(world_position(w, 0)->mark_time_ns, (1765371600000 + 99) * INT64_C(1000000));
	assert_int_equal(world_position(w, 1)->offset, 50);
	assert_int_equal(world_position(w, 2)->offset, 1);
	assert_int_equal(world_position(w, 0)->holes + world_position(w, 0)->duplicates + world_position(w, 0)->gaps, 0);
	assert_int_equal(world_position(w, 1)->last_time_us, INT64_C(1765368000000000) + 59000000);
	world_numbers(w, 1, 151, 200); /* and it follows */
	world_until(w, w->n_seen == 200);
	world_until(w, world_status(w).lag_records == 0);
	assert_int_equal(world_status(w).partitions, 3);
	assert_int_equal(world_status(w).degraded, 0);
	assert_int_equal(world_status(w).last_time_us, world_position(w, 0)->last_time_us);
	assert_string_equal(world_status(w).name, "kafka:watch_stats");
	assert_int_equal(source_partitions(w->source, partitions, 4), 3);
	assert_string_equal(partitions[1].name, "kafka:watch_stats:watch:1");
	assert_int_equal(partitions[1].offset, 99);
	assert_int_equal(partitions[1].end, 99);
	assert_int_equal(partitions[1].lag_records, 0);
	assert_true(partitions[1].last_record_us > 0);
	assert_int_equal(partitions[1].committed, -1);
	world_free(w);
}

static void test_resume(void **unused)
{
	struct world *w = world_new(2);

	(void)unused;
	world_numbers(w, 0, 0, 50);
	world_until(w, w->n_seen == 50 && w->n_positions == 2);
	world_stop(w);
	world_numbers(w, 0, 50, 80);
	world_numbers(w, 1, 80, 90);
	world_until(w, w->n_seen == 90);
	world_settle(w);
	assert_int_equal(world_wrong(w, 0, 90, 1), 0);
	assert_int_equal(world_position(w, 0)->lines, 80);
	assert_int_equal(world_position(w, 0)->duplicates, 0); /* the marker's record is read again, not counted again */
	assert_int_equal(world_position(w, 0)->holes, 0);
	world_free(w);
}

static void test_bad_records(void **unused)
{
	struct world *w = world_new(1);
	struct source_position *position;

	(void)unused;
	world_send_at(w, 0, NULL, 1000);
	world_send_at(w, 0, "  \r\n", 1000);
	world_send_at(w, 0, "{broken", 1000);
	world_send_at(w, 0, "{\"user_id\":1}", 1000);
	world_flush(w);
	world_numbers(w, 0, 0, 3);
	world_send_at(w, 0, "{broken too", 1000);
	world_send_at(w, 0, NULL, 1000);
	world_flush(w);
	world_until(w, w->n_positions == 1 && world_position(w, 0)->offset == 9);
	position = world_position(w, 0);
	assert_int_equal(position->lines, 6);
	assert_int_equal(position->empty, 3);
	assert_int_equal(position->refused[REFUSED_JSON], 2);
	assert_int_equal(position->refused[REFUSED_MISSING_KEY], 1);
	assert_int_equal(w->n_refused, 3);
	assert_int_equal(w->refused_offset, 7);
	assert_int_equal(position->inode, 8);
	world_stop(w); /* the marker is a tombstone now */
	world_numbers(w, 0, 3, 5);
	world_until(w, w->n_seen == 5);
	assert_int_equal(position->empty, 3);
	assert_int_equal(position->lines, 8);
	world_free(w);
}

/* More refused lines than a batch holds: nothing is lost between two batches. */
static void test_full_batches(void **unused)
{
	struct world *w = world_new(1);

	(void)unused;
	for (int i = 0; i < 1000; i++)
		world_send_at(w, 0, "[]", 1000);
	world_flush(w);
	world_numbers(w, 0, 0, 1000);
	world_until(w, w->n_seen == 1000);
	assert_int_equal(w->n_refused, 1000);
	assert_int_equal(world_wrong(w, 0, 1000, 1), 0);
	assert_int_equal(world_position(w, 0)->lines, 2000);
	assert_int_equal(world_position(w, 0)->holes, 0);
	world_free(w);
}

static void test_ranges(void **unused)
{
	static const struct partition_range ranges[] = {{3, 7}, {0, 0}};
	struct world *w = world_new(5);

	(void)unused;
	w->config.ranges = ranges;
	w->config.n_ranges = 2;
	for (int i = 0; i < 5; i++)
		world_numbers(w, i, 10 * i, 10 * i + 10);
	world_until(w, w->n_seen == 30);
	world_settle(w);
	assert_int_equal(world_wrong(w, 0, 10, 1) + world_wrong(w, 10, 30, 0) + world_wrong(w, 30, 50, 1), 0);
	assert_int_equal(world_status(w).partitions, 3);
	world_free(w);
}

static void test_from_end(void **unused)
{
	struct world *w = world_new(2);

	(void)unused;
	w->config.from_end = 1;
	world_numbers(w, 0, 0, 10);
	world_until(w, w->n_positions == 2); /* the start is told before any record */
	assert_int_equal(w->empty_batches, 2);
	assert_int_equal(world_position(w, 0)->offset, 10);
	assert_int_equal(world_position(w, 0)->marker_len, 0);
	assert_int_equal(world_position(w, 1)->offset, 0);
	world_numbers(w, 0, 10, 20);
	world_until(w, w->n_seen == 10);
	assert_int_equal(world_wrong(w, 10, 20, 1), 0);
	world_stop(w);
	world_numbers(w, 1, 20, 30); /* no first start any more: from_end does not hold */
	w->n_positions = 1;
	world_until(w, w->n_seen == 20);
	assert_int_equal(world_wrong(w, 20, 30, 1), 0);
	world_free(w);
}

static int64_t committed_by_group(struct world *w)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	int64_t offset;

	world_set(conf, "bootstrap.servers", w->brokers);
	world_set(conf, "group.id", "recd");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, w->errstr, sizeof(w->errstr));
	rd_kafka_topic_partition_list_add(list, TOPIC, 0);
	assert_int_equal(rd_kafka_committed(rk, list, 10000), 0);
	offset = list->elems[0].offset;
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_destroy(rk);
	return offset;
}

static void test_commit(void **unused)
{
	struct world *w = world_new(2);
	struct partition_status partitions[2];

	(void)unused;
	world_numbers(w, 0, 0, 10);
	world_until(w, w->n_seen == 10 && w->n_positions == 2);
	world_position(w, 0)->offset = 7; /* what is durable, not what was read */
	source_commit(w->source, w->positions, w->n_positions);
	world_until(w, source_partitions(w->source, partitions, 2) == 2 && partitions[0].committed == 7);
	assert_int_equal(partitions[1].committed, 0);
	assert_int_equal(committed_by_group(w), 7);
	world_position(w, 0)->offset = 9;
	source_commit(w->source, w->positions, w->n_positions);
	world_stop(w); /* waits for the commit */
	assert_int_equal(committed_by_group(w), 9);
	world_free(w);
}

static void *wake_soon(void *source)
{
	usleep(50000);
	source_wake(source);
	return NULL;
}

static void test_wake(void **unused)
{
	struct world *w = world_new(1);
	pthread_t thread;

	(void)unused;
	world_until(w, w->n_positions == 1);
	world_settle(w);
	assert_int_equal(pthread_create(&thread, NULL, wake_soon, w->source), 0);
	event_batch_clear(w->batch);
	alarm(60); /* without a wake this would wait for ever */
	assert_int_equal(source_poll(w->source, w->batch, 3600000, w->errstr, sizeof(w->errstr)), -EAGAIN);
	alarm(0);
	pthread_join(thread, NULL);
	world_free(w);
}

/* Whoever does not poll has a short queue all the same: librdkafka does not fetch the whole topic ahead. */
static void test_short_queue(void **unused)
{
	enum { LINES = 25000, PARTITIONS = 4, RESPONSE_BYTES = PARTITIONS * 262144 }; /* more than fetch.message.max.bytes: the mock broker sends larger ones */
	struct world *w = world_new(PARTITIONS);
	char line[256];

	(void)unused;
	for (int i = 0; i < PARTITIONS * LINES; i++) {
		const int len = snprintf(line, sizeof(line),
		                         "{\"user_id\":%d,\"item_id\":7,\"started_at\":\"2025-12-10T12:00:00+00:00\",\"completion\":0.5,\"pad\":\"%090d\"}",
		                         i % WORLD_NUMBERS, i);

		assert_true(len > 160 && len < 200);
		world_send_at(w, i % PARTITIONS, line, 1765371600000);
	}
	world_flush(w);
	world_until(w, w->n_seen > 0);
	usleep(150000);
	const struct source_kafka *source = (struct source_kafka *)(void *)w->source;
	const size_t waiting = rd_kafka_queue_length(source->queue), held = atomic_load(&source->held);
	/* the queue that is aimed at, each response that came late, and those on their way when somebody looked */
	const size_t most = 50000 + (held + 3) * (RESPONSE_BYTES / 180);

	if (waiting > most)
		fail_msg("%zu records wait after %zu responses were held back, %zu at most", waiting, held, most);
	world_until(w, w->n_seen == PARTITIONS * LINES);
	world_settle(w);
	assert_int_equal(w->n_seen, PARTITIONS * LINES);
	world_free(w);
}

static void test_refused_configuration(void **unused)
{
	static char names[][24] = {"sasl.mechanism", "auto.offset.reset", "group.id", "ssl.ca.location"};
	static char values[][24] = {"hunter2hunter2", "earliest", "others", "/no/hunter2.pem"};
	char protocol[] = "security.protocol", sasl[] = "sasl_plaintext", ssl[] = "ssl";
	struct world *w = world_new(1);

	(void)unused;
	for (int i = 0; i < 4; i++) {
		struct kafka_property properties[2] = {{names[i], values[i]}, {protocol, i == 0 ? sasl : ssl}};

		w->config.properties = properties;
		w->config.n_properties = 2;
		w->errstr[0] = '\0';
		assert_int_equal(source_kafka_open(&w->config, NULL, 0, &w->source, w->errstr, sizeof(w->errstr)), -EINVAL);
		assert_null(w->source);
		assert_non_null(strstr(w->errstr, i == 0 ? "SASL" : names[i]));
		assert_null(strstr(w->errstr, values[i]));
	}
	w->config.n_properties = 0;
	w->config.topic = "";
	assert_int_equal(source_kafka_open(&w->config, NULL, 0, &w->source, w->errstr, sizeof(w->errstr)), -EINVAL);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_three_partitions), cmocka_unit_test(test_resume), cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_full_batches),     cmocka_unit_test(test_ranges), cmocka_unit_test(test_from_end),
		cmocka_unit_test(test_commit),           cmocka_unit_test(test_wake),   cmocka_unit_test(test_short_queue),
		cmocka_unit_test(test_refused_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
