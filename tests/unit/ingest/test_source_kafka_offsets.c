/*
 * test_source_kafka_offsets.c: the decisions of the Kafka source that need no broker (rows 17 to 19 of the failure list): next record, hole or stale message;
 * where a partition starts; whether the log is still the same; names of positions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "ingest/source_kafka.h"

static enum kafka_verdict check(struct kafka_sequence *sequence, int64_t offset, int64_t *ret_missing)
{
	enum kafka_verdict verdict = kafka_sequence_check(sequence, offset, ret_missing);

	if (verdict == KAFKA_TAKE)
		sequence->expected = offset + 1;
	return verdict;
}

static void test_sequence(void **unused)
{
	/* each row: offset that comes, what is to be done, offsets missing */
	static const struct {
		int64_t offset;
		enum kafka_verdict verdict;
		int64_t missing;
	} rows[] = {
		{10, KAFKA_TAKE, 0}, {11, KAFKA_TAKE, 0},
		{11, KAFKA_DROP, 0}, {3, KAFKA_DROP, 0}, {12, KAFKA_TAKE, 0},
		{14, KAFKA_SEEK, 0}, {14, KAFKA_TAKE, 1}, {15, KAFKA_TAKE, 0},                      /* a real hole */
		{18, KAFKA_SEEK, 0}, {16, KAFKA_TAKE, 0}, {17, KAFKA_TAKE, 0}, {18, KAFKA_TAKE, 0}, /* none */
		{25, KAFKA_SEEK, 0}, {26, KAFKA_SEEK, 0}, {18, KAFKA_DROP, 0}, {25, KAFKA_TAKE, 6}, /* 26 was left over from before the seek */
		{30, KAFKA_SEEK, 0}, {28, KAFKA_TAKE, 2}, {30, KAFKA_SEEK, 0}, {30, KAFKA_TAKE, 1}, /* a smaller one */
		{40, KAFKA_SEEK, 0}, {41, KAFKA_SEEK, 0}, {42, KAFKA_SEEK, 0}, {43, KAFKA_TAKE, 12}, /* never the same: not for ever */
	};
	struct kafka_sequence sequence;

	(void)unused;
	kafka_sequence_start(&sequence, 10);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t missing = -1;

		assert_int_equal(check(&sequence, rows[i].offset, &missing), rows[i].verdict);
		assert_int_equal(missing, rows[i].missing);
	}
}

/* Hole after hole: soon only some are looked at twice; a false one brings the doubt back. */
static void test_sequence_of_holes(void **unused)
{
	struct kafka_sequence sequence;
	int64_t missing, offset = 0, holes = 0;
	int seeks = 0;

	(void)unused;
	kafka_sequence_start(&sequence, 0);
	for (int i = 0; i < 1000; i++) {
		offset += 2;
		if (check(&sequence, offset, &missing) == KAFKA_SEEK) {
			seeks++;
			assert_int_equal(check(&sequence, offset, &missing), KAFKA_TAKE);
		}
		holes += missing;
	}
	assert_int_equal(holes, 1001); /* each one before its record, and offset 0 */
	assert_in_range(seeks, 16 + 10, 16 + 20);
	while (check(&sequence, offset += 2, &missing) != KAFKA_SEEK)
		;
	assert_int_equal(check(&sequence, offset - 1, &missing), KAFKA_TAKE); /* there after all */
	assert_int_equal(check(&sequence, offset, &missing), KAFKA_TAKE);
	assert_int_equal(check(&sequence, offset + 2, &missing), KAFKA_SEEK);
}

static void test_start(void **unused)
{
	static const struct {
		int64_t offset, marker; /* marker -1: none */
		int64_t low, high;
		enum kafka_start start;
		int64_t at;
	} rows[] = {
		{0, -1, 0, 0, KAFKA_START_GO, 0},
		{5, -1, 0, 5, KAFKA_START_GO, 5},
		{5, -1, 5, 9, KAFKA_START_GO, 5},
		{5, -1, 6, 9, KAFKA_START_EVICTED, 0},
		{5, -1, 0, 4, KAFKA_START_TRUNCATED, 0},
		{100, 99, 0, 100, KAFKA_START_VERIFY, 99},
		{100, 97, 97, 200, KAFKA_START_VERIFY, 97},
		{100, 97, 98, 200, KAFKA_START_UNCHECKED, 100},
		{100, 99, 100, 100, KAFKA_START_UNCHECKED, 100},
		{100, 99, 101, 200, KAFKA_START_EVICTED, 0},
		{100, 99, 0, 99, KAFKA_START_TRUNCATED, 0},
		{100, 99, 0, 0, KAFKA_START_TRUNCATED, 0},
		{100, 120, 0, 200, KAFKA_START_UNCHECKED, 100}, /* no position of ours, but harmless */
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct source_position position = {.offset = rows[i].offset, .inode = (uint64_t)rows[i].marker, .marker_len = rows[i].marker >= 0};
		int64_t at = -1;

		assert_int_equal(kafka_start_decide(&position, rows[i].low, rows[i].high, &at), rows[i].start);
		if (rows[i].start != KAFKA_START_EVICTED && rows[i].start != KAFKA_START_TRUNCATED)
			assert_int_equal(at, rows[i].at);
	}
}

static void test_marker(void **unused)
{
	const struct source_position position = {.offset = 100, .inode = 99, .marker = 7, .marker_len = 1, .mark_time_ns = 5000};

	(void)unused;
	assert_int_equal(kafka_marker_match(&position, 99, 7, 5000), KAFKA_MATCH_SAME);
	assert_int_equal(kafka_marker_match(&position, 99, 8, 5000), KAFKA_MATCH_OTHER);
	assert_int_equal(kafka_marker_match(&position, 99, 7, 5001), KAFKA_MATCH_OTHER);
	assert_int_equal(kafka_marker_match(&position, 98, 7, 5000), KAFKA_MATCH_BEFORE);
	assert_int_equal(kafka_marker_match(&position, 100, 7, 5000), KAFKA_MATCH_GONE);
}

static void test_hash(void **unused)
{
	uint64_t hashes[] = {
		kafka_record_hash("a", 1, "bc", 2), kafka_record_hash("ab", 2, "c", 1),  kafka_record_hash(NULL, 0, "abc", 3),
		kafka_record_hash("abc", 3, NULL, 0), kafka_record_hash("", 0, "abc", 3), kafka_record_hash("abc", 3, "", 0),
		kafka_record_hash(NULL, 0, NULL, 0), kafka_record_hash("a", 1, "bd", 2),
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		for (size_t k = 0; k < i; k++)
			assert_true(hashes[i] != hashes[k]);
	assert_true(hashes[0] == kafka_record_hash("a", 1, "bc", 2));
}

static void test_names(void **unused)
{
	char name[POSITION_NAME_MAX], other[POSITION_NAME_MAX], topic[250];

	(void)unused;
	kafka_position_name(STREAM_EVENTS, "a.b_c-d", 12, name);
	assert_string_equal(name, "kafka:events:a.b_c-d:12");
	assert_int_equal(kafka_position_partition(name, STREAM_EVENTS, "a.b_c-d"), 12);
	assert_int_equal(kafka_position_partition(name, STREAM_EVENTS, "a.b_c"), -1);
	assert_int_equal(kafka_position_partition(name, STREAM_WATCHES, "a.b_c-d"), -1);
	assert_int_equal(kafka_position_partition("kafka:events:a:", STREAM_EVENTS, "a"), -1);
	assert_int_equal(kafka_position_partition("kafka:events:a:-1", STREAM_EVENTS, "a"), -1);
	assert_int_equal(kafka_position_partition("kafka:events:a:1x", STREAM_EVENTS, "a"), -1);
	assert_int_equal(kafka_position_partition("kafka:events:a:99999999999", STREAM_EVENTS, "a"), -1);
	assert_int_equal(kafka_position_partition("file:events:/a:1", STREAM_EVENTS, "a"), -1);
	/* the longest names: whole, and told apart */
	memset(topic, 't', 249);
	topic[249] = '\0';
	kafka_position_name(STREAM_IMPRESSIONS, topic, INT32_MAX - 1, name);
	assert_int_equal(kafka_position_partition(name, STREAM_IMPRESSIONS, topic), INT32_MAX - 1);
	topic[248] = 'u';
	kafka_position_name(STREAM_IMPRESSIONS, topic, INT32_MAX - 1, other);
	assert_string_not_equal(name, other);
	assert_int_equal(kafka_position_partition(name, STREAM_IMPRESSIONS, topic), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequence), cmocka_unit_test(test_sequence_of_holes), cmocka_unit_test(test_start),
		cmocka_unit_test(test_marker),   cmocka_unit_test(test_hash),              cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
