/*
 * fit_internal.h: what fit.c and fit_batches.c share: the job of fitting personal rows.
 */
#ifndef DAEMON_RECCTL_FIT_INTERNAL_H
#define DAEMON_RECCTL_FIT_INTERNAL_H

#include <stdatomic.h>

#include "daemon/recctl/fit.h"
#include "trainer/state/state.h"

struct personal {
	const struct fit *fit;
	const struct tables *tables;
	const uint32_t *candidates;
	size_t n_candidates;
	uint32_t min_positives;
	const struct personalize_options *options;
	float *U; /* [n_users, dim] */
	atomic_uint_fast64_t fitted;
};

/* Positives of a user whose facts these are, but for the slice's; at most max. Returns how many were written. */
size_t fit_positives(const struct fit *fit, const struct user_facts *facts, uint32_t user, uint32_t *ret_items, size_t max);

/* A seed of the user's own. */
uint64_t fit_user_seed(uint64_t seed, int64_t user_id);

/* All users by the learner's device, in batches. On failure (-EIO, -ENOMEM, -ESTALE ...) whatever was fitted may be fitted again. */
int fit_personal_batches(struct personal *job);

#endif
