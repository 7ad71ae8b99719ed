/*
 * evaluate_bootstrap.c: means over users and how far chance may have moved them (evaluate.h). The caller's thread; owns nothing between calls.
 *
 * Users are drawn, not pairs: a user's items are not independent of each other. All columns of a resample share one draw, so a row is read once.
 */
#include "trainer/learn/evaluate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "trainer/learn/philox.h"

#define PHILOX_BOOTSTRAP 0x00000400u /* counter (block of four draws, resample, 0) */

/* Sum and number of the values that are there. */
struct sums {
	double sum[RANK_COLUMNS_MAX];
	uint64_t n[RANK_COLUMNS_MAX];
};

static void add_row(struct sums *sums, const float *row, uint32_t n_columns)
{
	for (uint32_t c = 0; c < n_columns; c++) {
		int there = !isnan(row[c]);
		sums->sum[c] += there ? (double)row[c] : 0.0;
		sums->n[c] += (uint64_t)there;
	}
}

static double mean_of(const struct sums *sums, uint32_t c)
{
	return sums->n[c] ? sums->sum[c] / (double)sums->n[c] : (double)NAN;
}

/* Sums of n rows drawn with replacement. */
static void resample(const float *values, size_t n, uint32_t n_columns, uint32_t number, uint64_t seed, struct sums *ret_sums)
{
	struct sums sums = {0};
	for (size_t drawn = 0; drawn < n;) {
		struct philox_block block = philox4x32((uint32_t)(drawn / 4), number, 0, PHILOX_BOOTSTRAP, (uint32_t)seed, (uint32_t)(seed >> 32));
		for (int i = 0; i < 4 && drawn < n; i++, drawn++)
			add_row(&sums, values + (size_t)philox_below(block.v[i], (uint32_t)n) * n_columns, n_columns);
	}
	*ret_sums = sums;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Quantile of n sorted values, linear between order statistics. */
static double quantile(const double *sorted, size_t n, double share)
{
	double at = share * (double)(n - 1);
	size_t low = (size_t)at;
	size_t high = low + 1 < n ? low + 1 : low;
	return sorted[low] + (at - (double)low) * (sorted[high] - sorted[low]);
}

int rank_bootstrap(const float *values, size_t n, uint32_t n_columns, uint32_t resamples, uint64_t seed, struct rank_estimate *ret_estimates)
{
	struct sums sums = {0};
	double *means = malloc(((size_t)resamples * n_columns + 1) * sizeof *means); /* [n_columns, resamples] */
	if (!means)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		add_row(&sums, values + i * n_columns, n_columns);
	for (uint32_t c = 0; c < n_columns; c++) {
		double mean = mean_of(&sums, c);
		ret_estimates[c] = (struct rank_estimate){mean, mean, mean};
	}
	for (uint32_t r = 0; r < resamples && n; r++) {
		resample(values, n, n_columns, r, seed, &sums);
		for (uint32_t c = 0; c < n_columns; c++)
			means[(size_t)c * resamples + r] = mean_of(&sums, c);
	}
	for (uint32_t c = 0; c < n_columns && n; c++) {
		double *of = means + (size_t)c * resamples;
		size_t there = 0;
		for (uint32_t r = 0; r < resamples; r++) /* a resample without a single value says nothing */
			if (!isnan(of[r]))
				of[there++] = of[r];
		if (!there)
			continue;
		qsort(of, there, sizeof *of, ascending);
		ret_estimates[c].low = quantile(of, there, 0.025);
		ret_estimates[c].high = quantile(of, there, 0.975);
	}
	free(means);
	return 0;
}
