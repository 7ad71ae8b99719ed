/*
 * personalize.h: a user's own row, item tables frozen. Pure functions over tables: they never write to them.
 */
#ifndef TRAINER_LEARN_PERSONALIZE_H
#define TRAINER_LEARN_PERSONALIZE_H

#include "trainer/learn/tables.h"
#include "trainer/state/pairs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A negative that is the user's own is drawn again so many times, three tries each; then the first valid candidate after a random one is taken. */
#define PERSONALIZE_REDRAWS 8u
#define PERSONALIZE_STEP_NORM_MAX 10.0f

struct personalize_options {
	uint32_t steps;        /* default 300 */
	uint32_t batch;        /* triples of that user a step; default 32 */
	float learning_rate;   /* default 0.05; decays linearly to 0 over the steps */
	float reg;             /* L2 towards the starting row, not towards zero */
	uint64_t seed;
};

/* Working memory of one thread; zero before first use, personalize_scratch_free() at the end. */
struct personalize_scratch {
	void *buf;
	size_t capacity;
};
void personalize_scratch_free(struct personalize_scratch *scratch);

void personalize_options_default(struct personalize_options *options);

/*
 * Moves one user's vector by BPR gradient on his own positives against uniform negatives out of `candidates` that are not among his positives.
 * A step is the mean gradient of `batch` triples, taken by row-wise Adagrad whose sum starts at zero.
 *   start      [dim]; where to begin (the global row, or the mean row for a new user)
 *   positives  item indexes, n >= 1; order does not matter to the distribution
 *   ret_row    [dim]; written only on success
 * A pure function of its arguments. 0, -EINVAL (no valid negative exists), -ERANGE (not finite), -ENOMEM.
 */
int personalize_row(const struct tables *tables, const float *start, const uint32_t *positives, size_t n_positives,
                    const uint32_t *candidates, size_t n_candidates, const struct personalize_options *options,
                    struct personalize_scratch *scratch, float *ret_row);

/*
 * The user's intercept: maximum a posteriori of b in P(label = 1) = sigmoid(dot(row, V[i]) + bi[i] + b) over decided impressions, with a normal prior
 * (mean `prior`, precision `prior_weight`, in pseudo-observations scale). At most 8 damped Newton steps. n = 0 gives the prior.
 */
float intercept_fit(const struct tables *tables, const float *row, const struct decided_impression *decided, size_t n, float prior,
                    float prior_weight);
#ifdef __cplusplus
}
#endif

#endif
