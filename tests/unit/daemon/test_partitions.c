/*
 * test_partitions.c: what a partition's view says: lag in event time against all sources, what is not known, and the sum of those not shown.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/partitions.h"

static struct partition_view views[PARTITIONS_SHOWN + 1];

static void joined_by_name(void **state)
{
	const struct partition_status partitions[] = {
		{ .name = "kafka:events:t:1", .offset = 90, .end = 100, .lag_records = 10, .last_record_us = 4000000, .committed = 80 },
		{ .name = "kafka:events:t:0", .offset = 7, .end = -1, .lag_records = -1, .last_record_us = INT64_MIN, .committed = -1 },
	};
	const struct source_position positions[] = {
		{ .name = "kafka:events:t:10", .gaps = 99, .last_time_us = 99 },
		{ .name = "kafka:events:t:0", .last_time_us = INT64_MIN },
		{ .name = "kafka:events:t:1", .gaps = 1, .gap_bytes = 2, .holes = 3, .duplicates = 4, .last_time_us = 20000000 },
	};

	(void)state;
	assert_int_equal(partitions_view(partitions, 2, positions, 3, 21500000, 4500000, views), 2);
	assert_string_equal(views[0].name, "kafka:events:t:1");
	assert_int_equal(views[0].offset, 90);
	assert_int_equal(views[0].end, 100);
	assert_int_equal(views[0].lag_records, 10);
	assert_int_equal(views[0].committed, 80);
	assert_int_equal(views[0].idle_us, 500000);
	assert_int_equal(views[0].lag_time_us, 1500000);
	assert_int_equal(views[0].gaps, 1);
	assert_int_equal(views[0].gap_records, 2);
	assert_int_equal(views[0].holes, 3);
	assert_int_equal(views[0].duplicates, 4);
	assert_int_equal(views[1].end, -1);
	assert_int_equal(views[1].lag_records, -1);
	assert_int_equal(views[1].lag_time_us, -1); /* nothing was applied from it */
	assert_int_equal(views[1].idle_us, -1);
	assert_int_equal(views[1].committed, -1);
}

/* FAILURES 23b: everything of the topic is read, and still its silence shows. */
static void a_silent_partition_falls_behind(void **state)
{
	const struct partition_status partition = { .name = "p", .offset = 5, .end = 5, .lag_records = 0, .last_record_us = 0, .committed = 5 };
	const struct source_position position = { .name = "p", .last_time_us = 1000000 };

	(void)state;
	assert_int_equal(partitions_view(&partition, 1, &position, 1, 1000000, 9, views), 1);
	assert_int_equal(views[0].lag_time_us, 0);
	assert_int_equal(partitions_view(&partition, 1, &position, 1, 3601000000, 9, views), 1);
	assert_int_equal(views[0].lag_records, 0);
	assert_int_equal(views[0].lag_time_us, 3600000000);
	/* no event at all yet; the status is older than the position; no position yet; a record later than the clock's reading */
	partitions_view(&partition, 1, &position, 1, INT64_MIN, 9, views);
	assert_int_equal(views[0].lag_time_us, -1);
	partitions_view(&partition, 1, &position, 1, 999999, 9, views);
	assert_int_equal(views[0].lag_time_us, 0);
	partitions_view(&partition, 1, NULL, 0, 999999, -1, views);
	assert_int_equal(views[0].lag_time_us, -1);
	assert_int_equal(views[0].idle_us, 0);
}

static void many_are_summed(void **state)
{
	const size_t n = PARTITIONS_SHOWN + 2;
	struct partition_status *partitions = calloc(n, sizeof(*partitions));
	struct source_position *positions = calloc(n, sizeof(*positions));

	(void)state;
	assert_non_null(partitions);
	assert_non_null(positions);
	for (size_t i = 0; i < n; i++) {
		snprintf(partitions[i].name, sizeof(partitions[i].name), "p%zu", i);
		snprintf(positions[i].name, sizeof(positions[i].name), "p%zu", i);
		partitions[i] = (struct partition_status){ .offset = 10, .end = 12, .lag_records = 2, .last_record_us = (int64_t)i, .committed = 9 };
		snprintf(partitions[i].name, sizeof(partitions[i].name), "p%zu", i);
		positions[i].holes = 1;
		positions[i].last_time_us = (int64_t)i;
	}
	assert_int_equal(partitions_view(partitions, n, positions, n, 1000, 2000, views), PARTITIONS_SHOWN + 1);
	assert_string_equal(views[PARTITIONS_SHOWN].name, PARTITIONS_OTHERS);
	assert_int_equal(views[PARTITIONS_SHOWN].offset, 20);
	assert_int_equal(views[PARTITIONS_SHOWN].end, 24);
	assert_int_equal(views[PARTITIONS_SHOWN].lag_records, 4);
	assert_int_equal(views[PARTITIONS_SHOWN].committed, 18);
	assert_int_equal(views[PARTITIONS_SHOWN].holes, 2);
	assert_int_equal(views[PARTITIONS_SHOWN].lag_time_us, 1000 - PARTITIONS_SHOWN);
	assert_int_equal(views[PARTITIONS_SHOWN].idle_us, 2000 - PARTITIONS_SHOWN);
	partitions[n - 2].lag_records = -1;
	partitions_view(partitions, n, positions, n, 1000, 2000, views);
	assert_int_equal(views[PARTITIONS_SHOWN].lag_records, -1); /* one unknown: the sum is */
	assert_int_equal(views[PARTITIONS_SHOWN].end, 24);
	assert_int_equal(partitions_view(partitions, PARTITIONS_SHOWN, positions, n, 1000, 2000, views), PARTITIONS_SHOWN);
	free(partitions);
	free(positions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joined_by_name),
		cmocka_unit_test(a_silent_partition_falls_behind),
		cmocka_unit_test(many_are_summed),
	};

	return cmocka_run_group_tests_name("partitions", tests, NULL, NULL);
}
