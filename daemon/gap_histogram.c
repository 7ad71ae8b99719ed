/*
 * gap_histogram.c: buckets that grow geometrically, eight to a factor of two from a microsecond on. Engine thread only; plain data.
 */
#include "daemon/gap_histogram.h"

#define PER_OCTAVE 8u

/* First value above the bucket: 2^(b / 8), linear inside an octave. */
static int64_t bucket_end_us(uint32_t bucket)
{
	const uint32_t octave = bucket / PER_OCTAVE, step = bucket % PER_OCTAVE;

	return ((int64_t)(PER_OCTAVE + step + 1) << octave) / PER_OCTAVE;
}

void gap_histogram_add(struct gap_histogram *histogram, int64_t gap_us)
{
	uint32_t bucket = 0;

	if (gap_us >= (int64_t)1 << (GAP_BUCKETS / PER_OCTAVE)) {
		bucket = GAP_BUCKETS - 1;
	} else if (gap_us > 0) {
		const uint32_t octave = 63u - (uint32_t)__builtin_clzll((uint64_t)gap_us);
		const uint64_t step = (((uint64_t)gap_us * PER_OCTAVE) >> octave) - PER_OCTAVE;

		bucket = octave * PER_OCTAVE + (uint32_t)step;
	}
	histogram->counts[bucket]++;
	histogram->n++;
	if (gap_us > histogram->max_us)
		histogram->max_us = gap_us;
}

void gap_histogram_merge(struct gap_histogram *into, const struct gap_histogram *from)
{
	for (uint32_t bucket = 0; bucket < GAP_BUCKETS; bucket++)
		into->counts[bucket] += from->counts[bucket];
	into->n += from->n;
	if (from->max_us > into->max_us)
		into->max_us = from->max_us;
}

int64_t gap_histogram_percentile(const struct gap_histogram *histogram, double share)
{
	const double wanted = share * (double)histogram->n;
	uint64_t seen = 0;

	if (histogram->n == 0)
		return 0;
	for (uint32_t bucket = 0; bucket < GAP_BUCKETS; bucket++) {
		seen += histogram->counts[bucket];
		if ((double)seen >= wanted && seen > 0) {
			const int64_t end_us = bucket_end_us(bucket);

			/* the last bucket has no end */
			return bucket < GAP_BUCKETS - 1 && end_us < histogram->max_us ? end_us : histogram->max_us;
		}
	}
	return histogram->max_us;
}
