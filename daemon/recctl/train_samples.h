/*
 * train_samples.h: `recctl train --loss bce --samples FILE`: positives and labelled negatives from a file instead of the histories.
 *
 * A line is {"user_id": 7, "item_id": 12, "label": 1, "ts": "2025-12-10T12:00:01+00:00"}; label 1 is a positive, 0 a negative of that user. A pair with both
 * labels is a positive. ts may be missing; with one, a line at or after the user's cut is left out, since that is what is judged.
 */
#ifndef DAEMON_RECCTL_TRAIN_SAMPLES_H
#define DAEMON_RECCTL_TRAIN_SAMPLES_H

#include "daemon/recctl/split.h"
#include "trainer/learn/backend.h"

struct sample_positive {
	struct user_item pair;
	int64_t time_us; /* of its latest line with label 1; STATE_TIME_NONE: no such line had a ts */
};

struct samples {
	uint64_t lines; /* not empty */
	uint64_t bad, late, unknown_users, unknown_items;
	struct sample_positive *positives; /* [n_positives] by user and item, each once */
	size_t n_positives;
	size_t n_negatives;
	uint64_t *offsets; /* [n_users + 1] into items */
	uint32_t *items;   /* [n_negatives] */
	uint32_t n_users;
};

/*
 * Reads the file. Users and items that `state` does not know are counted and left out. `split`: where each user's cut is; NULL: nothing is cut. The first bad
 * lines are told on standard error with their numbers. 0; -errno with text (no file, out of memory). *ret_samples is the caller's, on failure too.
 */
int samples_read(const char *path, const struct state *state, const struct split *split, struct samples *ret_samples, char *errstr, size_t errstr_size);
/* Accepts a zeroed one. */
void samples_free(struct samples *samples);
/* The labelled negatives as the sampler takes them; points into samples. */
struct skip_source samples_skips(const struct samples *samples);

#endif
