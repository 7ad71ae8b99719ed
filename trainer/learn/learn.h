/*
 * learn.h: how the parameters move. The header of trainer/learn for the other rooms (with backend.h, tables.h, personalize.h, evaluate.h).
 *
 * Training: BPR (Rendle et al., UAI 2009) over (user, positive, negative) triples by a backend. The learner owns the training set: the positives in a
 * randomly ordered log, the exact set of pairs for verifying negatives, the candidates, the recent positives with passes left. One thread, the engine's.
 */
#ifndef TRAINER_LEARN_LEARN_H
#define TRAINER_LEARN_LEARN_H

#include "trainer/learn/backend.h"
#include "trainer/state/state.h"

#ifdef __cplusplus
extern "C" {
#endif

struct learner;

/* Where triples stand; goes into the checkpoint, so that a restarted run draws on and does not begin again. */
struct learner_progress {
	uint64_t seed;
	uint64_t step;         /* batches drawn */
	uint64_t triples;      /* triples trained */
	uint64_t walk;         /* position in the walk over the positives */
	uint64_t passes;       /* whole passes over the positives */
	uint64_t rollbacks;    /* times the parameters were set back after NaN or divergence */
};

/* What a positive weighs: completion^completion_power * 2^(time / half-life). */
struct weight_rule {
	double completion_power; /* 0: completion does not count */
	double half_life_days;   /* 0: age does not count */
};

/* 1: some weight can differ from 1. */
int weight_rule_is_on(const struct weight_rule *rule);
/* log2 of a positive's weight, for learner_add_weighted(). completion: 0..1, taken as 0.01 when lower; time_us: UTC. */
float weight_rule_log2(const struct weight_rule *rule, double completion, int64_t time_us);

void learn_options_default(struct learn_options *options);
/* What is wrong with the options, in words, or NULL; learner_new() refuses such. */
const char *learn_options_fault(const struct learn_options *options);

int learner_new(const struct learn_options *options, const struct backend_ops *ops, struct learner **ret_learner, char *errstr,
                size_t errstr_size);
void learner_free(struct learner *learner);
/* Rows for users and items that joined. ids arrays are the state's (stable). A device's failure in this or the next functions is told by learner_fault(). */
int learner_grow(struct learner *learner, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids);
/* Pairs already there are ignored. recent=1: give them their budget of recent passes. */
int learner_add_positives(struct learner *learner, const struct user_item *pairs, size_t n, int recent);
/*
 * The same with weights, log2_weights[n] to base 2 and relative to each other: the mean over all positives becomes 1, none is above 2^3. NULL, as in
 * learner_add_positives(): the logarithm 0. A pair that is already there keeps the weight it came with.
 */
int learner_add_weighted(struct learner *learner, const struct user_item *pairs, const float *log2_weights, size_t n, int recent);
int learner_add_candidates(struct learner *learner, const uint32_t *items, size_t n);
void learner_clear_positives(struct learner *learner); /* before adding all of them again */
void learner_set_skips(struct learner *learner, const struct skip_source *source); /* NULL: none */
uint64_t learner_n_positives(const struct learner *learner);
int learner_is_positive(const struct learner *learner, uint32_t user, uint32_t item);
uint32_t learner_user_positives(const struct learner *learner, uint32_t user); /* how many of them are this user's */
size_t learner_recent_waiting(const struct learner *learner); /* triples still owed to recent positives */
/* Candidates for negatives; valid until the next add. */
const uint32_t *learner_candidates(const struct learner *learner, size_t *ret_n);

/*
 * Jobs. A backend in host memory has done the job when learner_train() returns, and ret_report tells of it. A device has begun it: ret_report has no triples,
 * learner_running() is 1, and learner_poll() or learner_wait() go on and give the report. While a job runs everything above may be called: the job draws from
 * the set as it was when its part began, and is accounted for by that; what was added is drawn by the next part. Progress moves by whole parts, when they have
 * ended.
 *   learner_train  0; -EBUSY: one is running; a device's fault; -ENOMEM. Nothing to train on: a report of 0 triples.
 *   learner_poll   1: none runs, ret_report is that of the last one, whole; 0: it runs on; -errno: the device's fault. Never waits longer than 100 us. Parts follow
 *                  each other in this call: call it often.
 *   learner_wait   the same, waiting.
 *   learner_part_us  for how long the part under way has been running; 0: none is.
 *   learner_give_up  the part under way is taken for hung: -ETIMEDOUT becomes the learner's fault.
 */
int learner_train(struct learner *learner, const struct train_job *job, struct train_report *ret_report);
int learner_poll(struct learner *learner, struct train_report *ret_report);
int learner_wait(struct learner *learner, struct train_report *ret_report);
int learner_running(const struct learner *learner);
int64_t learner_part_us(const struct learner *learner);
void learner_give_up(struct learner *learner);
/*
 * Copy of the parameters; see backend.h pull. -ERANGE: not finite, call learner_push() with the last good copy. A part under way is waited for and accounted
 * for first, and its job ends with it. A copy whose pull failed is filled whole by the next one.
 */
int learner_pull(struct learner *learner, struct tables *copy);
int learner_push(struct learner *learner, const struct tables *copy);

/*
 * A device that failed (-EIO, -ENOMEM of its memory, or given up) is the learner's fault from then on: no call reaches it, training, pull and push return the
 * fault, and the training set goes on growing in host memory. 0: none; text says what failed and why.
 */
int learner_fault(const struct learner *learner, char *text, size_t text_size);
/*
 * Opens a backend with the learner's options, rows and training set, pushes `copy` (NULL: rows begin anew; rows beyond the copy's do, too) and puts it in the
 * old one's place, which is closed; the fault is gone. The old one may be in perfect order, and then stays on failure; one with a fault is closed first, as a
 * device that failed cannot be opened a second time before, and the fault stays on failure. errstr says why. Takes as long as copying everything. Positives
 * trained on by the old one since `copy` are walked again only in their turn; progress stands.
 */
int learner_replace_backend(struct learner *learner, const struct backend_ops *ops, const struct tables *copy, char *errstr, size_t errstr_size);
/* 1: a backend that was given up and replaced still hangs. Once it has come back it is closed. Until then its device should not be opened again. */
int learner_hung(struct learner *learner);
/* 1: the backend works on a device of its own, beside this thread. 0: in host memory, in this thread's time. */
int learner_on_device(const struct learner *learner);
/* The device's facts; all zero where there is nothing to tell. */
void learner_facts(struct learner *learner, struct device_facts *ret_facts);

/*
 * Batches of users over the published item tables (backend.h). They return when they are done. A device works them beside a training job, of which they see
 * nothing; blocks of the job that already run are ahead of them, so at worst they wait for the part under way, or for wait_us where the batch sets that.
 *   learner_has_batches  1: a device does them. 0: callers with threads of their own do better by personalize_row() and topk_scan().
 *   learner_personalize  without a device: one user after another, on this thread, from `tables`.
 *   learner_topk         without a device: -ENOSYS.
 * tables: the copy of the last learner_pull() (its V, bi and epoch), which the device has, too; -ESTALE: it is another one, nothing was done. -EIO is the
 * learner's fault from then on; -ENOMEM: the device has no room for this batch, nothing was done and everything else goes on; -EAGAIN: not now, nothing was done;
 * -EINVAL: an item that the tables do not have, or k.
 */
int learner_has_batches(const struct learner *learner);
int learner_personalize(struct learner *learner, const struct tables *tables, const struct personalize_batch *batch);
int learner_topk(struct learner *learner, const struct tables *tables, const struct topk_batch *batch);

/* Optimizer settings that may change at a reload: learning rate comes with each job; these are read when the next part of a job begins. */
int learner_set_options(struct learner *learner, const struct learn_options *options); /* emb_dim, seed, threads, precision, order, deterministic must stay: -EINVAL */
struct learner_progress learner_get_progress(const struct learner *learner);
/* Not while a job runs. */
void learner_set_progress(struct learner *learner, const struct learner_progress *progress);
const char *learner_backend_name(const struct learner *learner);
#ifdef __cplusplus
}
#endif

#endif
