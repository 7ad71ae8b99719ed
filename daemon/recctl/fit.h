/*
 * fit.h: what `recctl train` fits after the ranking triples: the mean row, the intercepts, the personal rows. Works on tables whose rows are the state's
 * indexes; item tables are read only.
 */
#ifndef DAEMON_RECCTL_FIT_H
#define DAEMON_RECCTL_FIT_H

#include "trainer/learn/personalize.h"

struct learner;
struct validation;

/* Precision of the prior of a user's intercept, in decided impressions; recd's default, too. */
#define FIT_INTERCEPT_PRIOR_WEIGHT 8.0f

struct fit {
	const struct state *state;
	const struct validation *slice; /* positives that personal rows are not fitted to; NULL: none */
	struct learner *learner; /* fits personal rows in batches where it has a device, if its last pull gave the tables; NULL: threads alone */
	uint32_t threads;
	float intercept; /* the prior of every user's bu; set by fit_global_intercept() */
};

/*
 * Sets the rows of users without a positive that the learner was given, from the histories or from a file, to the mean of the others (zero when there are none): an
 * untrained row is noise, and says nothing about a user.
 */
void fit_mean_user(const struct learner *learner, struct tables *tables);

/*
 * The global intercept: maximum likelihood of b in P(watched far enough) = sigmoid(dot(U[u], V[i]) + bi[i] + b) over all decided impressions (a sample of users
 * when there are more than a few million of them), with a prior of one observation at 0. 0 or -ENOMEM.
 */
int fit_global_intercept(struct fit *fit, const struct tables *tables);

/* bu of every user for the rows in U [n_users, dim]; ret_bu [n_users]. 0 or -ENOMEM. `what` labels the progress. */
int fit_intercepts(const struct fit *fit, const struct tables *tables, const float *U, float *ret_bu, const char *what);

/*
 * Personal rows of users with at least `min_positives`; everybody else keeps the global row. ret_U [n_users, dim]. Each user's draws come from options->seed
 * and his id, so that the result does not depend on threads or on other users. ret_fitted: users with a row of their own. A device that fails is told on
 * standard error, and the threads do its work. 0 or -errno.
 */
int fit_personal_rows(const struct fit *fit, const struct tables *tables, const uint32_t *candidates, size_t n_candidates, uint32_t min_positives,
                      const struct personalize_options *options, float *ret_U, uint64_t *ret_fitted);

/*
 * How well conf keeps its promise over decided impressions: mean conf against the share that was watched far enough; the expected calibration error over
 * CALIBRATION_BINS bins of equal width (Guo et al., ICML 2017); slope and intercept of the logistic regression of the outcome on the score (Cox, 1958): 1 and 0
 * are right, a slope below 1 says that conf is too sure of itself. NaN when there is nothing, or only one outcome, to tell them from.
 */
#define CALIBRATION_BINS 15u
struct calibration {
	uint64_t decided;
	double mean_conf, watch_rate, error, slope, intercept;
};
/* On what was trained on; of every n-th user when there are more than a few million impressions. 0 or -ENOMEM. */
int fit_calibration(const struct fit *fit, const struct tables *tables, const float *U, const float *bu, struct calibration *ret_calibration);

struct observation {
	float score;
	float label; /* 0 or 1 */
};
/* The figures of n observations. */
struct calibration calibration_of(const struct observation *observations, size_t n);

struct split;
/* On the split's decided impressions, which no training has seen. Users beyond the tables are left out. 0 or -ENOMEM. */
int fit_calibration_held_out(const struct tables *tables, const struct split *split, struct calibration *ret_calibration);

/* 64-bit hash of V and bi, to show that they did not change. */
uint64_t fit_item_hash(const struct tables *tables);

#endif
