/*
 * fit_calibration.c: does conf mean what it says (fit.h)? Main thread of recctl; owns nothing between calls.
 */
#include "daemon/recctl/fit.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "daemon/recctl/split.h"
#include "trainer/learn/score.h"

#define NEWTON_STEPS 100

static double conf_of(double score)
{
	return 1.0 / (1.0 + exp(-score));
}

/* Maximum likelihood of a and b in P(1) = sigmoid(a + b * score), by Newton's method with steps cut to 1. */
static void fit_slope(const struct observation *observations, size_t n, double *ret_slope, double *ret_intercept)
{
	double a = 0, b = 1;

	for (int step = 0; step < NEWTON_STEPS; step++) {
		double ga = 0, gb = 0, haa = 1e-9, hab = 0, hbb = 1e-9;

		for (size_t i = 0; i < n; i++) {
			double x = (double)observations[i].score, p = conf_of(a + b * x), error = (double)observations[i].label - p, weight = p * (1 - p);

			ga += error;
			gb += error * x;
			haa += weight;
			hab += weight * x;
			hbb += weight * x * x;
		}
		double determinant = haa * hbb - hab * hab;
		if (!(determinant > 0))
			break;
		double da = (hbb * ga - hab * gb) / determinant, db = (haa * gb - hab * ga) / determinant;
		double longest = fmax(fabs(da), fabs(db)), shorten = longest > 1 ? 1 / longest : 1;
		a += da * shorten;
		b += db * shorten;
		if (longest < 1e-9)
			break;
	}
	*ret_slope = b;
	*ret_intercept = a;
}

struct calibration calibration_of(const struct observation *observations, size_t n)
{
	struct calibration calibration = { .decided = n, .error = NAN, .slope = NAN, .intercept = NAN };
	double conf[CALIBRATION_BINS] = { 0 }, hits[CALIBRATION_BINS] = { 0 }, sum_conf = 0, sum_hits = 0, error = 0;

	for (size_t i = 0; i < n; i++) {
		double p = conf_of((double)observations[i].score);
		size_t bin = (size_t)(p * CALIBRATION_BINS);

		bin = bin < CALIBRATION_BINS ? bin : CALIBRATION_BINS - 1;
		conf[bin] += p;
		hits[bin] += (double)observations[i].label;
		sum_conf += p;
		sum_hits += (double)observations[i].label;
	}
	if (!n)
		return calibration;
	for (size_t bin = 0; bin < CALIBRATION_BINS; bin++)
		error += fabs(conf[bin] - hits[bin]); /* a bin's share of all, times the distance of its means */
	calibration.mean_conf = sum_conf / (double)n;
	calibration.watch_rate = sum_hits / (double)n;
	calibration.error = error / (double)n;
	if (sum_hits > 0 && sum_hits < (double)n)
		fit_slope(observations, n, &calibration.slope, &calibration.intercept);
	return calibration;
}

int fit_calibration_held_out(const struct tables *tables, const struct split *split, struct calibration *ret_calibration)
{
	struct observation *observations = malloc((split->n_decided + 1) * sizeof(*observations));
	size_t n = 0;

	if (!observations)
		return -ENOMEM;
	for (size_t i = 0; i < split->n_decided; i++) {
		const struct split_decided *d = &split->decided[i];

		if (d->user >= tables->n_users || d->item >= tables->n_items)
			continue;
		observations[n++] = (struct observation){ score_dot(tables->U + (size_t)d->user * tables->dim, tables->V + (size_t)d->item * tables->dim,
			                                            tables->dim) + tables->bi[d->item] + tables->bu[d->user], (float)d->label };
	}
	*ret_calibration = calibration_of(observations, n);
	free(observations);
	return 0;
}
