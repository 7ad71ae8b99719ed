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

int learner_new(const struct learn_options *options, const struct backend_ops *ops, struct learner **ret_learner, char *errstr,
                size_t errstr_size);
void learner_free(struct learner *learner);
/* Rows for users and items that joined. ids arrays are the state's (stable). */
int learner_grow(struct learner *learner, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids);
/* Pairs already there are ignored. recent=1: give them their budget of recent passes. */
int learner_add_positives(struct learner *learner, const struct user_item *pairs, size_t n, int recent);
/*
 * The same with weights, log2_weights[n] to base 2 and relative to each other: the mean over all positives becomes 1, none is above 2^3. learner_add_positives()
 * gives them the logarithm 0. A pair that is already there keeps the weight it came with.
 */
int learner_add_weighted(struct learner *learner, const struct user_item *pairs, const float *log2_weights, size_t n, int recent);
int learner_add_candidates(struct learner *learner, const uint32_t *items, size_t n);
void learner_clear_positives(struct learner *learner); /* before adding all of them again */
void learner_set_skips(struct learner *learner, const struct skip_source *source); /* NULL: none */
uint64_t learner_n_positives(const struct learner *learner);
int learner_is_positive(const struct learner *learner, uint32_t user, uint32_t item);
size_t learner_recent_waiting(const struct learner *learner); /* triples still owed to recent positives */
/* Candidates for negatives; valid until the next add. */
const uint32_t *learner_candidates(const struct learner *learner, size_t *ret_n);

/* Trains synchronously (asynchronous backends: starts, see backend.h). Nothing to train on: a report of 0 triples. */
int learner_train(struct learner *learner, const struct train_job *job, struct train_report *ret_report);
int learner_poll(struct learner *learner, struct train_report *ret_report);
int learner_wait(struct learner *learner, struct train_report *ret_report);
/* Copy of the parameters; see backend.h pull. -ERANGE: not finite, call learner_push() with the last good copy. */
int learner_pull(struct learner *learner, struct tables *copy);
int learner_push(struct learner *learner, const struct tables *copy);

/* Optimizer settings that may change at a reload: learning rate comes with each job; these are read at the next job. */
int learner_set_options(struct learner *learner, const struct learn_options *options); /* emb_dim, seed, threads, precision, order, deterministic must stay: -EINVAL */
struct learner_progress learner_get_progress(const struct learner *learner);
void learner_set_progress(struct learner *learner, const struct learner_progress *progress);
const char *learner_backend_name(const struct learner *learner);
#ifdef __cplusplus
}
#endif

#endif
