/*
 * set_mirror.cuh: the training set on the device, kept up to date by what changed (sampler.h says what can).
 *
 * set_mirror_sync() brings, for each job:
 *   positives, weights   the places that inserts have touched, or all when that is less, or when everything was cleared or put into another order
 *   pairs, counts        by kernels, from the positives that came; both grow by being made anew from the positives that are there already
 *   candidates           those that joined
 *   popularity           the alias table when it was made anew
 *   recent positives     all of them, oldest first: every job takes from them
 *   skips                only while some negatives come from them. The host derives a user's skips when asked, which takes time, so they are kept by user and
 *                        brought up to date in turn: SKIP_USERS users a job. All users before each job of the deterministic mode, and before the first
 *                        job that has no time limit (offline, skips do not change meanwhile). A user whose turn has not come has none and gets uniform
 *                        negatives.
 *                        Lists that stay as they are (skip_source.offsets) are sent once.
 *
 * All of it is enqueued on backend->stream, so a job sees the set as it was when the job was enqueued.
 */
#ifndef GPU_SET_MIRROR_CUH
#define GPU_SET_MIRROR_CUH

#include "gpu/backend.cuh"
#include "gpu/pair_set.cuh"

#define SKIP_USERS 1024u

struct set_mirror {
	struct device_array positives, weights, slots, filter, user_positives;
	struct device_array candidates, alias_below, alias_other, recent, skips, n_skips, skip_offsets;
	/* what is there */
	uint64_t n_positives;
	uint64_t cleared, regrouped; /* of the set, then */
	int weighted;
	uint64_t mask;     /* of slots */
	int pairs_stale;   /* slots, filter and counts must be made anew */
	uint32_t n_users;  /* counts */
	uint32_t n_candidates;
	uint32_t alias_version;
	uint32_t skips_users; /* users whose skips have room */
	uint32_t skips_turn;  /* the user whose turn is next */
	int skips_all;        /* all users had their turn at once */
	const uint64_t *skip_lists; /* skip_source.offsets that were sent; NULL: none, skips are rows */
	uint64_t sent_pairs;  /* pairs sent since open, for tests */
};

#endif
