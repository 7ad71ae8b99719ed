/*
 * train_validate.h: the slice of the training data that says when to stop. It is cut from what comes before the split, so the test users stay unseen.
 */
#ifndef DAEMON_RECCTL_TRAIN_VALIDATE_H
#define DAEMON_RECCTL_TRAIN_VALIDATE_H

#include "trainer/learn/evaluate.h"
#include "trainer/learn/tables.h"
#include "trainer/state/state.h"

#define VALIDATE_USERS_MAX 5000u /* users judged after each epoch, evenly picked */

/*
 * The last positives by time (a hash decides among equal times, as in data without times) of users who keep at least one other positive. The other watches of
 * those users are masked.
 */
struct validation {
	struct rank_user *users; /* [n_users] who lost positives to the slice */
	size_t n_users;
	size_t n_pairs;
	uint32_t *index_of; /* [state's users] place in users, STATE_NONE: none */
	uint32_t n_state_users;
	uint32_t *items; /* what users[].relevant and .masked point into */
};

/* share: above 0, below 1. 0, -ENOMEM, or -ENODATA when there is nothing to cut. Free with validation_free() in any case. */
int validation_cut(const struct state *state, double share, uint64_t seed, struct validation *ret_validation);
void validation_free(struct validation *validation); /* accepts a zeroed one */
/* Whether the pair is in the slice: then it must not be trained on. */
int validation_has(const struct validation *validation, uint32_t user, uint32_t item);

/* Mean NDCG@k of the tables over at most VALIDATE_USERS_MAX of the users. 0 or -ENOMEM. */
int validation_judge(const struct rank_user *users, size_t n_users, const struct tables *tables, uint32_t n_items, uint32_t k, uint32_t threads,
                     double *ret_ndcg);

#endif
