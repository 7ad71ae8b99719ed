/*
 * partitions.h: one Kafka partition as an operator sees it: what its source knows of the broker, and what the engine has counted, side by side.
 */
#ifndef DAEMON_PARTITIONS_H
#define DAEMON_PARTITIONS_H

#include "ingest/source.h"

#define PARTITIONS_SHOWN 256
#define PARTITIONS_OTHERS "(others)"

struct partition_view {
	char name[POSITION_NAME_MAX]; /* the position's name: "kafka:STREAM:TOPIC:PARTITION" */
	int64_t offset;               /* next record to take */
	int64_t end;                  /* offset of the record that comes next in the log; -1: not known yet */
	int64_t lag_records;          /* -1: not known yet */
	int64_t lag_time_us;          /* event time: the largest that recd has applied from any source, minus the largest of this partition; -1: none applied yet */
	int64_t idle_us;              /* since the last record came; -1: none in this run */
	int64_t committed;            /* last offset the broker has taken as committed; -1: none in this run */
	uint64_t gaps;                /* the position's counters; see ingest/event.h */
	uint64_t gap_records;
	uint64_t holes;
	uint64_t duplicates;
};

/*
 * Fills ret_views from the sources' partitions [n] and the engine's positions (matched by name). At most PARTITIONS_SHOWN are told one by one; the others
 * are one view more, named PARTITIONS_OTHERS: offsets, lags in records and counters are sums (-1 when one of them is not known), lag in time and idle
 * time are the largest (-1 when none is known). time_max_us: INT64_MIN when no event was applied; now_us: CLOCK_MONOTONIC. Returns how many views.
 */
size_t partitions_view(const struct partition_status *partitions, size_t n, const struct source_position *positions, size_t n_positions, int64_t time_max_us,
                       int64_t now_us, struct partition_view ret_views[PARTITIONS_SHOWN + 1]);

#endif
