/*
 * synth_oracle.h: what nobody can know from the logs: each user's true chances. For judging a recommender on synthetic logs only.
 *
 * chance(u,i): for one impression shown to u, the chance that it shows i and ends in a watch of at least `threshold`:
 *   exposure(u,i) * mean over positions of bias * (0.03 + 0.6 taste) * 0.7 * P(completion >= threshold)
 *   exposure(u,i) = 1/2 popularity(i) / sum + 1/2 taste^2 popularity(i)^0.5 / the user's sum
 * Ranking by it is the best a ranking of "which title does this user complete next" can be.
 */
#ifndef DAEMON_RECCTL_SYNTH_ORACLE_H
#define DAEMON_RECCTL_SYNTH_ORACLE_H

#include "daemon/recctl/progress.h"
#include "daemon/recctl/synth_model.h"

#include <signal.h>

struct synth_oracle;

/* Reads the model, which must outlive it. threshold in [0, 1]. 0 or -ENOMEM. */
int synth_oracle_new(const struct synth_model *model, double threshold, struct synth_oracle **ret_oracle);
void synth_oracle_free(struct synth_oracle *oracle);

/* chance[n_items] of one user. */
void synth_oracle_row(struct synth_oracle *oracle, uint32_t user, float *chance);

/*
 * Writes a PyTorch file: user_ids int64 [n_users], item_ids int64 [n_items], chance float32 [n_users, n_items], min_pos_completion (string), seed (string).
 * One row in memory at a time. Written under a temporary name and renamed. progress and stop may be NULL; -EINTR when
 * *stop is set (errstr untouched). 0 or -errno; a failure leaves nothing.
 */
int synth_oracle_write(struct synth_oracle *oracle, const char *path, struct progress *progress, const volatile sig_atomic_t *stop, char *errstr,
                       size_t errstr_size);

#endif
