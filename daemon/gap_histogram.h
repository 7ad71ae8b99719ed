/*
 * gap_histogram.h: lengths of the gaps between apply slices, for percentiles. Engine thread only.
 */
#ifndef DAEMON_GAP_HISTOGRAM_H
#define DAEMON_GAP_HISTOGRAM_H

#include <stdint.h>

#define GAP_BUCKETS 240u /* eight a factor of two: a percentile is at most 9 % too high; up to 17 minutes */

struct gap_histogram {
	uint32_t counts[GAP_BUCKETS];
	uint64_t n;
	int64_t max_us;
};

/* Adds the counts of `from` to `into`. */
void gap_histogram_merge(struct gap_histogram *into, const struct gap_histogram *from);
void gap_histogram_add(struct gap_histogram *histogram, int64_t gap_us);
/* The gap that `share` (0..1) of all gaps do not exceed, in microseconds, rounded up to its bucket's end; 0 when there are none. */
int64_t gap_histogram_percentile(const struct gap_histogram *histogram, double share);

#endif
