/*
 * test_source_kafka_records.c: records that are not the next one (rows 19 and 27 of the failure list): damaged, missing, coming again. librdkafka's mock cluster
 * has none of these, so what librdkafka hands over is changed on its way: this program's rd_kafka_consume_batch_queue() stands before the library's.
 */
#include <dlfcn.h>

#include "ingest/source_kafka.h"
#include "tests/unit/ingest/kafka_world.h"

/* Changes a record of partition 0, or the end of it. 0: the record is left out. */
static int (*tamper)(rd_kafka_message_t *message);
static int changed; /* by tamper */

ssize_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *queue, int timeout_ms, rd_kafka_message_t **messages, size_t size)
{
	static ssize_t (*real)(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t);
	ssize_t n, kept = 0;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "rd_kafka_consume_batch_queue");
	n = real(queue, timeout_ms, messages, size);
	for (ssize_t i = 0; i < n; i++) {
		if (messages[i]->rkt && messages[i]->partition == 0 && !tamper(messages[i]))
			rd_kafka_message_destroy(messages[i]);
		else
			messages[kept++] = messages[i];
	}
	return n < 0 ? n : kept;
}

static int is_record(const rd_kafka_message_t *message, int64_t offset)
{
	return !message->err && message->offset == offset;
}

static int make_damaged(rd_kafka_message_t *message)
{
	message->err = RD_KAFKA_RESP_ERR__BAD_MSG;
	message->payload = NULL; /* else it is taken for the error's text */
	message->len = 0;
	changed++;
	return 1;
}

static struct world *world_of_records(int n, int (*change)(rd_kafka_message_t *message))
{
	struct world *w = world_new(1);

	tamper = change;
	changed = 0;
	world_numbers(w, 0, 0, n);
	return w;
}

static void assert_position(struct world *w, int64_t offset, uint64_t lines, uint64_t holes, uint64_t gaps, uint64_t duplicates)
{
	const struct source_position *position = world_position(w, 0);

	assert_int_equal(position->offset, offset);
	assert_int_equal(position->lines, lines);
	assert_int_equal(position->holes, holes);
	assert_int_equal(position->gaps, gaps);
	assert_int_equal(position->duplicates, duplicates);
}

static int damaged_at_4(rd_kafka_message_t *message)
{
	return is_record(message, 4) ? make_damaged(message) : 1;
}

static void test_damaged(void **unused)
{
	struct world *w = world_of_records(10, damaged_at_4);

	(void)unused;
	assert_int_equal(world_until_failure(w), -EUCLEAN);
	assert_non_null(strstr(w->errstr, "up to 1 records from offset 4 on are damaged"));
	assert_non_null(strstr(w->errstr, "on_gap"));
	assert_true(changed >= 2); /* it was looked at twice */
	assert_int_equal(w->n_seen, 4);
	assert_position(w, 4, 4, 0, 0, 0);
	world_stop(w);
	w->config.accept_gaps = 1;
	world_until(w, w->n_seen == 9);
	assert_position(w, 10, 9, 0, 1, 0);
	assert_int_equal(world_position(w, 0)->gap_bytes, 1);
	assert_true(world_logged(w, "damaged (bad checksum); going on at 5"));
	world_free(w);
}

/* Damaged on its way once: 4, and 10, behind which the end of the log comes. Offset 14 has no record. */
static int damaged_once(rd_kafka_message_t *message)
{
	if ((changed == 0 && is_record(message, 4)) || (changed == 1 && is_record(message, 10)))
		return make_damaged(message);
	return !is_record(message, 14);
}

/* The second look finds the record; what is missing later is no damage then. */
static void test_damaged_once(void **unused)
{
	struct world *w = world_of_records(10, damaged_once);

	(void)unused;
	world_until(w, w->n_seen == 10);
	assert_int_equal(changed, 1);
	world_numbers(w, 0, 10, 11);
	world_until(w, w->n_seen == 11);
	assert_int_equal(changed, 2);
	assert_position(w, 11, 11, 0, 0, 0);
	world_until(w, !world_status(w).degraded);
	world_numbers(w, 0, 11, 20);
	world_until(w, w->n_seen == 19);
	assert_position(w, 20, 19, 1, 0, 0);
	assert_int_equal(world_wrong(w, 0, 14, 1) + world_wrong(w, 15, 20, 1), 0);
	world_free(w);
}

/* 5 is damaged, then the log seems to end before it, then 5 does not exist. */
static int damaged_before_the_end(rd_kafka_message_t *message)
{
	if (changed == 0 && is_record(message, 5))
		return make_damaged(message);
	if (changed == 1 && message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		message->offset = 5;
		changed++;
	}
	return !is_record(message, 5);
}

/* The end of the log, too, says that nothing is missing: the damage is over. */
static void test_damaged_before_the_end(void **unused)
{
	struct world *w = world_of_records(5, damaged_before_the_end);

	(void)unused;
	world_until(w, w->n_seen == 5);
	world_numbers(w, 0, 5, 6);
	world_until(w, changed == 2 && !world_status(w).degraded);
	world_numbers(w, 0, 6, 10);
	world_until(w, w->n_seen == 9);
	assert_position(w, 10, 9, 1, 0, 0);
	world_free(w);
}

/* Every second one of 60 offsets has no record; 70 is damaged on its way once. */
static int damaged_among_holes(rd_kafka_message_t *message)
{
	if (changed == 0 && is_record(message, 70))
		return make_damaged(message);
	return message->err || message->offset > 60 || message->offset % 2 == 0;
}

/* Where holes are no longer looked at twice, damage is. */
static void test_damaged_among_holes(void **unused)
{
	struct world *w = world_of_records(61, damaged_among_holes);

	(void)unused;
	world_until(w, w->n_seen == 31);
	world_numbers(w, 0, 61, 80);
	world_until(w, w->n_positions == 1 && world_position(w, 0)->offset == 80);
	assert_int_equal(changed, 1);
	assert_int_equal(world_wrong(w, 61, 80, 1), 0);
	assert_position(w, 80, 50, 30, 0, 0);
	world_free(w);
}

/* librdkafka 2.0 may skip records, and hand some over again. */
static int again_and_skipped(rd_kafka_message_t *message)
{
	if (changed == 0 && is_record(message, 6)) {
		message->offset = 3;
		changed++;
	} else if (changed == 1 && (is_record(message, 12) || is_record(message, 13))) {
		changed += message->offset == 13;
		return 0;
	}
	return 1;
}

static void test_again_and_skipped(void **unused)
{
	struct world *w = world_of_records(20, again_and_skipped);

	(void)unused;
	world_until(w, w->n_seen == 20);
	world_settle(w);
	assert_int_equal(changed, 2);
	assert_int_equal(world_wrong(w, 0, 20, 1), 0);
	assert_position(w, 20, 20, 0, 0, 1);
	world_free(w);
}

/* An offset without a record in the middle, and at the end of the log, where no record follows that would tell. */
static int two_holes(rd_kafka_message_t *message)
{
	return !is_record(message, 5) && !is_record(message, 19);
}

static void test_holes(void **unused)
{
	struct world *w = world_of_records(20, two_holes);

	(void)unused;
	world_until(w, w->n_positions == 1 && world_position(w, 0)->offset == 20);
	assert_position(w, 20, 18, 2, 0, 0);
	assert_int_equal(world_wrong(w, 0, 5, 1) + world_wrong(w, 6, 19, 1), 0);
	world_stop(w); /* and the record before the last hole is compared at the next start */
	world_numbers(w, 0, 20, 25);
	world_until(w, w->n_seen == 23);
	assert_position(w, 25, 23, 2, 0, 0);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged),       cmocka_unit_test(test_damaged_once),       cmocka_unit_test(test_damaged_before_the_end),
		cmocka_unit_test(test_damaged_among_holes), cmocka_unit_test(test_again_and_skipped), cmocka_unit_test(test_holes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
