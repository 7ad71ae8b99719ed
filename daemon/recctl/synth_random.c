/*
 * synth_random.c: distributions for synth, reproducible to the bit.
 *
 * A log that a seed names must be the same bytes on every machine, so nothing here calls libm beyond sqrt, which IEEE 754 rounds exactly. The
 * logarithm and the exponential are short series, good to about 1e-14, which is far more than a synthetic log needs; what matters is that they
 * are made of operations with one possible result. Runs on recctl's main thread; keeps no state but the caller's generator.
 */
#include "daemon/recctl/synth_random.h"

#include <math.h>
#include <string.h>

#define LN2_HIGH 6.93147180369123816490e-01 /* the upper bits of ln 2, and what is left: k * LN2_HIGH is exact for small k */
#define LN2_LOW 1.90821492927058770002e-10

double synth_log(double x)
{
	uint64_t bits;

	memcpy(&bits, &x, sizeof(bits));
	int exponent = (int)(bits >> 52) - 1023;
	bits = (bits & UINT64_C(0x000fffffffffffff)) | UINT64_C(0x3ff0000000000000);
	double m; /* x = m * 2^exponent, m in [sqrt(1/2), sqrt(2)) */
	memcpy(&m, &bits, sizeof(m));
	if (m > 1.4142135623730951) {
		m *= 0.5;
		exponent++;
	}
	/* log m = 2 atanh f = 2 f (1 + s/3 + s^2/5 + ...), s = f^2 < 0.0295 */
	double f = (m - 1.0) / (m + 1.0), s = f * f, sum = 0.0;
	for (int k = 21; k >= 1; k -= 2)
		sum = sum * s + 1.0 / (double)k;
	return (double)exponent * LN2_HIGH + ((double)exponent * LN2_LOW + 2.0 * f * sum);
}

double synth_exp(double x)
{
	if (x < -700.0)
		return 0.0;
	double scaled = x * 1.4426950408889634;
	int k = (int)(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
	double r = (x - (double)k * LN2_HIGH) - (double)k * LN2_LOW; /* at most about 0.347 either side of 0 */
	double sum = 1.0;
	for (int n = 14; n >= 1; n--)
		sum = 1.0 + sum * r / (double)n;
	uint64_t bits = (uint64_t)(k + 1023) << 52;
	double power;
	memcpy(&power, &bits, sizeof(power));
	return sum * power;
}

double synth_normal(struct synth_rng *rng)
{
	double x, y, s;

	do {
		x = 2.0 * synth_uniform(rng) - 1.0;
		y = 2.0 * synth_uniform(rng) - 1.0;
		s = x * x + y * y;
	} while (s >= 1.0 || s == 0.0);
	return x * sqrt(-2.0 * synth_log(s) / s);
}

/* Uniform in (0, 1]. */
static double uniform_above_0(struct synth_rng *rng)
{
	return 1.0 - synth_uniform(rng);
}

double synth_gamma(struct synth_rng *rng, double shape)
{
	if (shape < 1.0) /* Gamma(a) = Gamma(a + 1) * U^(1/a) */
		return synth_gamma(rng, shape + 1.0) * synth_exp(synth_log(uniform_above_0(rng)) / shape);
	double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
	for (;;) {
		double x = synth_normal(rng), v = 1.0 + c * x;

		if (v <= 0.0)
			continue;
		v = v * v * v;
		double u = uniform_above_0(rng), x2 = x * x;
		if (u < 1.0 - 0.0331 * x2 * x2 || synth_log(u) < 0.5 * x2 + d * (1.0 - v + synth_log(v)))
			return d * v;
	}
}

double synth_beta(struct synth_rng *rng, double mean, double concentration)
{
	double a = synth_gamma(rng, mean * concentration), b = synth_gamma(rng, (1.0 - mean) * concentration);

	return a + b > 0.0 ? a / (a + b) : mean;
}

void synth_dirichlet(struct synth_rng *rng, double alpha, size_t n, double *out)
{
	double sum = 0.0;

	for (size_t i = 0; i < n; i++) {
		out[i] = synth_gamma(rng, alpha);
		sum += out[i];
	}
	for (size_t i = 0; i < n; i++)
		out[i] = sum > 0.0 ? out[i] / sum : 1.0 / (double)n;
}

/* The first 32 bits after the point, of a share in [0, 1]. */
static uint32_t to_threshold(double share)
{
	return share >= 1.0 ? UINT32_MAX : (uint32_t)(share * 4294967295.0);
}

void synth_alias_build(double *weights, uint32_t n, struct synth_alias *out, uint32_t *scratch)
{
	double sum = 0.0;
	uint32_t n_small = 0, large_at = n; /* small columns from the left of scratch, large ones from its right */

	for (uint32_t i = 0; i < n; i++)
		sum += weights[i];
	for (uint32_t i = 0; i < n; i++) {
		weights[i] = weights[i] * (double)n / sum;
		if (weights[i] < 1.0)
			scratch[n_small++] = i;
		else
			scratch[--large_at] = i;
	}
	while (n_small && large_at < n) {
		uint32_t small = scratch[--n_small], large = scratch[large_at];

		out[small] = (struct synth_alias){ to_threshold(weights[small]), large };
		weights[large] = weights[large] + weights[small] - 1.0;
		if (weights[large] < 1.0) {
			large_at++;
			scratch[n_small++] = large;
		}
	}
	/* what is left is 1 up to rounding */
	while (n_small) {
		uint32_t column = scratch[--n_small];
		out[column] = (struct synth_alias){ UINT32_MAX, column };
	}
	while (large_at < n) {
		uint32_t column = scratch[large_at++];
		out[column] = (struct synth_alias){ UINT32_MAX, column };
	}
}
