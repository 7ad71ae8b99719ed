/*
 * synth_random.h: random numbers for synth that are the same bits on every machine. Only + - * / and sqrt (exact in IEEE 754) on doubles, our own
 * logarithm and exponential instead of libm's, and no fused multiply-add (-ffp-contract=off).
 */
#ifndef DAEMON_RECCTL_SYNTH_RANDOM_H
#define DAEMON_RECCTL_SYNTH_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). */
struct synth_rng {
	uint64_t state;
};

static inline uint64_t synth_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* An independent stream for each (seed, purpose, index). */
static inline struct synth_rng synth_rng_at(uint64_t seed, uint64_t purpose, uint64_t index)
{
	uint64_t x = synth_mix(seed + UINT64_C(0x9e3779b97f4a7c15));

	x = synth_mix(x ^ (purpose * UINT64_C(0xd1342543de82ef95) + 1));
	return (struct synth_rng){ synth_mix(x ^ (index * UINT64_C(0x2545f4914f6cdd1d) + 1)) };
}

static inline uint64_t synth_u64(struct synth_rng *rng)
{
	return synth_mix(rng->state += UINT64_C(0x9e3779b97f4a7c15));
}

/* Uniform in [0, 1), 53 bits. */
static inline double synth_uniform(struct synth_rng *rng)
{
	return (double)(synth_u64(rng) >> 11) * 0x1p-53;
}

/* Uniform in 0..n-1, n >= 1. */
static inline uint32_t synth_below(struct synth_rng *rng, uint32_t n)
{
	return (uint32_t)(((unsigned __int128)synth_u64(rng) * n) >> 64);
}

/* Uniform in low..high, both included. */
static inline int64_t synth_between(struct synth_rng *rng, int64_t low, int64_t high)
{
	return low + (int64_t)(synth_uniform(rng) * (double)(high - low + 1));
}

/* Natural logarithm of a positive, normal number; relative error under 1e-14. */
double synth_log(double x);
/* Exponential; 0 below -700, x at most 700; relative error under 1e-13. */
double synth_exp(double x);
/* Standard normal (Marsaglia's polar method). */
double synth_normal(struct synth_rng *rng);
/* Gamma with this shape > 0 and scale 1 (Marsaglia and Tsang, 2000). */
double synth_gamma(struct synth_rng *rng, double shape);
/* Beta with this mean in (0, 1) and concentration a + b. */
double synth_beta(struct synth_rng *rng, double mean, double concentration);
/* n numbers that sum to 1, Dirichlet with the same alpha for all. */
void synth_dirichlet(struct synth_rng *rng, double alpha, size_t n, double *out);

/* One column of an alias table (Walker's method as Vose builds it): take the column when 32 random bits are below `threshold`, else `alias`. */
struct synth_alias {
	uint32_t threshold;
	uint32_t alias;
};

/*
 * Fills out[n] for weights[n] (>= 0, sum > 0; n >= 1). `scratch` holds n entries. The weights are overwritten.
 */
void synth_alias_build(double *weights, uint32_t n, struct synth_alias *out, uint32_t *scratch);

static inline uint32_t synth_alias_draw(const struct synth_alias *table, uint32_t n, struct synth_rng *rng)
{
	uint32_t column = synth_below(rng, n);

	return (uint32_t)synth_u64(rng) <= table[column].threshold ? column : table[column].alias;
}

#endif
