/*
 * partitions.c: puts together what is known of each Kafka partition, for /v1/status and /metrics. Pure: works on copies, in any thread; keeps nothing.
 *
 * A silent topic is no error, but it must be seen: its lag in event time grows with every event that comes from elsewhere, although no record waits.
 */
#include "daemon/partitions.h"

#include <stdio.h>
#include <string.h>

static const struct source_position *find_position(const struct source_position *positions, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(positions[i].name, name) == 0)
			return &positions[i];
	return NULL;
}

static void view_one(const struct partition_status *partition, const struct source_position *position, int64_t time_max_us, int64_t now_us,
                     struct partition_view *ret_view)
{
	*ret_view = (struct partition_view){
		.offset = partition->offset,
		.end = partition->end,
		.lag_records = partition->lag_records,
		.lag_time_us = -1,
		.idle_us = partition->last_record_us == INT64_MIN ? -1 : now_us - partition->last_record_us,
		.committed = partition->committed,
	};
	snprintf(ret_view->name, sizeof(ret_view->name), "%s", partition->name);
	if (partition->last_record_us != INT64_MIN && ret_view->idle_us < 0)
		ret_view->idle_us = 0; /* it came after now_us was read */
	if (position == NULL)
		return;
	ret_view->gaps = position->gaps;
	ret_view->gap_records = position->gap_bytes;
	ret_view->holes = position->holes;
	ret_view->duplicates = position->duplicates;
	if (position->last_time_us != INT64_MIN && time_max_us != INT64_MIN)
		ret_view->lag_time_us = time_max_us > position->last_time_us ? time_max_us - position->last_time_us : 0;
}

/* A sum that is not known once one part is not. */
static int64_t sum_known(int64_t sum, int64_t part)
{
	return sum < 0 || part < 0 ? -1 : sum + part;
}

static void add(struct partition_view *sum, const struct partition_view *view)
{
	sum->offset += view->offset;
	sum->end = sum_known(sum->end, view->end);
	sum->lag_records = sum_known(sum->lag_records, view->lag_records);
	sum->committed = sum_known(sum->committed, view->committed);
	if (view->lag_time_us > sum->lag_time_us)
		sum->lag_time_us = view->lag_time_us;
	if (view->idle_us > sum->idle_us)
		sum->idle_us = view->idle_us;
	sum->gaps += view->gaps;
	sum->gap_records += view->gap_records;
	sum->holes += view->holes;
	sum->duplicates += view->duplicates;
}

size_t partitions_view(const struct partition_status *partitions, size_t n, const struct source_position *positions, size_t n_positions, int64_t time_max_us,
                       int64_t now_us, struct partition_view ret_views[PARTITIONS_SHOWN + 1])
{
	struct partition_view *others = &ret_views[PARTITIONS_SHOWN];

	for (size_t i = 0; i < n; i++) {
		struct partition_view view;

		view_one(&partitions[i], find_position(positions, n_positions, partitions[i].name), time_max_us, now_us, &view);
		if (i < PARTITIONS_SHOWN) {
			ret_views[i] = view;
			continue;
		}
		if (i == PARTITIONS_SHOWN) {
			*others = (struct partition_view){ .lag_time_us = -1, .idle_us = -1 };
			snprintf(others->name, sizeof(others->name), "%s", PARTITIONS_OTHERS);
		}
		add(others, &view);
	}
	return n <= PARTITIONS_SHOWN ? n : PARTITIONS_SHOWN + 1;
}
