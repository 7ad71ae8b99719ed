/*
 * sampler.h: the training set and how triples are drawn from it. Internal to learning: learner and backends.
 *
 * A candidate triple is a pure function of (seed, step, index), given the set and its walk: whoever draws it, on whatever device, gets the same one.
 * The set is changed by the learner alone. A backend reads it inside its functions only, with any number of threads; one whose job runs on after train() has
 * returned reads a mirror of its own, as the set was when the job began, and the set may change meanwhile.
 *
 * What a backend that keeps a mirror has to know: `cleared` counts the times everything was thrown away; since then the log grew from the length it last
 * saw to n_positives, and insert number k also moved the pair at training_set_swapped(set, k) (to k). Candidates only grow. `regrouped` counts the times
 * all pairs were put into another order (at most once a pass, and only between jobs): then every place is new, while the set of pairs is the same.
 *
 * Weights: none (NULL) until a positive with a weight of its own comes; from then on weights[k] belongs to positives[k] and moves with it. A draw's weight is
 * bpr_weight(weights[place], plan.weight_log2), or that of the recent positive's own entry; without weights it is 1.0f. plan.weight_log2 is a number of the
 * job: the mean weight of all positives, so that the mean over a walk is 1 and rates keep their meaning. Only differences of weights count, so an age's
 * half-life needs no clock: all grow older alike.
 *
 * Order: shuffled, or grouped: blocks of GROUP_USERS users take turns, up to GROUP_RUN positives each. Positions p and p + GROUP_USERS of the walk then mostly
 * hold the same user, and GROUP_USERS positions in a row mostly hold different ones.
 */
#ifndef TRAINER_LEARN_SAMPLER_H
#define TRAINER_LEARN_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/learn/backend.h"
#include "trainer/state/pairs.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PAIR_SHARDS 256u
#define SAMPLE_NONE UINT32_MAX /* no valid negative exists */
#define GROUP_RUN 8u   /* positives of one user in a row at most, grouped */
#define GROUP_USERS 8u /* users that take turns */
#define RECENT_MAX (1u << 18)  /* recent positives waiting at most; the oldest then rest with the uniform walk */

/*
 * Exact set of (user << 32 | item): open addressing with linear probing, in shards that grow one by one, so that no insert is slow. Before the slots stands
 * a Bloom filter of one 64-bit word for 8 slots, three bits a pair in one word (Putze, Sanders and Singler, WEA 2007): at the load of the slots it clears
 * some 99 % of the pairs that are not there, from an eighth of the memory.
 */
struct pair_shard {
	uint64_t *slots; /* [mask + 1]; UINT64_MAX: free */
	uint64_t *filter; /* [(mask + 1) / 8], in a block of the set's */
	uint32_t mask;
	uint32_t used;
};

/*
 * Memory of the filters, all of them close together on huge pages: a random look into one then seldom waits for an address. Blocks are never given back before
 * the set is cleared; what a shard outgrew stays unused, at most as much as is in use.
 */
struct filter_memory {
	uint64_t *blocks[48]; /* arrays (array.h), each as long as all before it */
	uint32_t n_blocks;
	uint64_t used; /* words of the last block */
};

struct recent_positive {
	uint32_t user;
	uint32_t item;
	uint32_t left; /* draws still owed */
	float weight;  /* log2, as in training_set.weights */
};

struct alias_table; /* negatives.h */
struct row_kernels; /* cpu_kernels.h */

struct training_set {
	uint64_t seed;
	uint32_t n_users, n_items;

	struct user_item *positives; /* [n_positives] in uniformly random order, or grouped */
	float *weights;              /* [n_positives] log2 of each one's weight, all up to one addend; NULL: all the same */
	double weight_max, weight_sum; /* sum of 2^(weight - weight_max) over all; of use with weights only */
	uint64_t n_positives;
	uint64_t cleared;
	uint64_t regrouped; /* times training_set_group() made a new order */
	uint64_t n_grouped; /* n_positives at the last time */
	struct pair_shard shards[PAIR_SHARDS];
	struct filter_memory filters;
	uint32_t *user_positives; /* [n_users] positives of each user */

	uint32_t *candidates; /* [n_candidates] items that negatives are drawn from; order of arrival */
	uint32_t n_candidates;
	uint8_t *is_candidate; /* [n_items] */

	struct recent_positive *recent; /* ring [RECENT_MAX], NULL until the first */
	uint32_t recent_head, n_recent;
	uint64_t recent_first; /* number of the entry at the head: entries that have left the ring so far, in whatever way */
	uint64_t recent_owed; /* sum of `left` */

	uint64_t step;   /* steps begun; the next job's first step */
	uint64_t walk;   /* next position in the walk, below n_positives */
	uint64_t passes; /* whole walks done */
	uint64_t passes_here; /* those of this process: restoring progress does not move it */
	const struct skip_source *skips; /* NULL: none */
	const struct alias_table *popular; /* over places in candidates (negatives.h); NULL: none */
};

/* Where a negative comes from. */
enum negative_kind { NEGATIVE_UNIFORM, NEGATIVE_SKIP, NEGATIVE_POPULAR, NEGATIVE_HARD };

/* One triple. neg is SAMPLE_NONE when the user has no valid negative; of a hard draw, it is the first candidate, not verified, until the backend chose. */
struct draw {
	uint32_t user;
	uint32_t pos;
	uint32_t neg;
	uint32_t index; /* in its step */
	uint64_t step;
	uint32_t kind; /* enum negative_kind */
	float weight;  /* of the triple in the gradient, 1 in the mean; 1.0f without weights */
};

/* How the draws of one job map to positives and random numbers. Draw d of a job is index d % batch of step `step + d / batch`. */
struct draw_plan {
	const struct training_set *set;
	const struct row_kernels *kernels; /* for the random numbers, which are the same with each */
	uint64_t step;
	uint64_t walk;
	uint32_t batch;
	uint32_t recent_per_step; /* the first so many indexes of a step go to recent positives */
	uint32_t recent_head, n_recent;
	uint64_t n_positives, recent_first; /* the set's when the plan was made: it may change before training_set_advance() */
	float weight_log2; /* log2 of the mean weight; see above */
	/* The 32-bit random number that chooses the kind: skip below skip_below, else popular below popular_below, else hard below hard_below. */
	uint64_t skip_below, popular_below, hard_below;
	uint32_t hard_of;
};

void training_set_init(struct training_set *set, uint64_t seed);
void training_set_free(struct training_set *set);
/* 0 or -ENOMEM. Counts never shrink. */
int training_set_grow(struct training_set *set, uint32_t n_users, uint32_t n_items);
/* 1: added (its item became a candidate, too), 0: was there, -EINVAL: no such row, -ENOMEM (set unchanged). passes: recent draws to give it. */
int training_set_add(struct training_set *set, uint32_t user, uint32_t item, uint32_t passes);
/* The same with a weight, as its logarithm to base 2; any finite number. training_set_add(): 0. A pair that was there keeps the weight it came with. */
int training_set_add_weighted(struct training_set *set, uint32_t user, uint32_t item, uint32_t passes, float weight_log2);
int training_set_add_candidate(struct training_set *set, uint32_t item);
void training_set_clear(struct training_set *set);
int training_set_has(const struct training_set *set, uint32_t user, uint32_t item);
/* Begins to fetch what training_set_has() will read. */
void training_set_prefetch(const struct training_set *set, uint32_t user, uint32_t item);
/* log2 of the mean weight of all positives; 0 without weights. */
float training_set_weight_mean(const struct training_set *set);
/*
 * Puts the positives into a new grouped order, a pure function of (seed, regrouped, the order before). Called between jobs. Needs about 12 bytes a positive
 * while it runs. 0 or -ENOMEM (nothing changed).
 */
int training_set_group(struct training_set *set);
/* Where insert number k put the pair that it brought (k itself, or an earlier place whose pair moved to k). */
uint64_t training_set_swapped(const struct training_set *set, uint64_t k);

void draw_plan_make(const struct training_set *set, const struct learn_options *options, struct draw_plan *ret_plan);
/* Draws first..first + n - 1 of the job: positives and a first candidate each, not verified. */
void sampler_propose(const struct draw_plan *plan, uint64_t first, uint32_t n, struct draw *ret_draws);
/* A valid negative in place of one that is a positive: draws again, a bounded number of times; then the first valid candidate after a random one. */
uint32_t sampler_redraw(const struct training_set *set, const struct draw *draw);
/* Replaces candidates that are positives of their users; leaves hard draws to the backend. */
void sampler_settle(const struct draw_plan *plan, uint32_t n, struct draw *draws);
/*
 * The same for who has other things to do in between, of up to 32 draws: propose begins to fetch what look() will read, look() what confirm() will read. The draws
 * are settled after confirm(). checks[n]: where the filter answers for a draw. The set does not change meanwhile.
 */
struct draw_check {
	const uint64_t *word;
	uint64_t bits; /* all set: the pair may be there */
};
void sampler_propose_checked(const struct draw_plan *plan, uint64_t first, uint32_t n, struct draw *ret_draws, struct draw_check *ret_checks);
/* Bit i of the result: the candidate of draws[i] may be a positive. */
uint32_t sampler_look(const struct draw_plan *plan, uint32_t n, const struct draw *draws, const struct draw_check *checks);
/* Replaces those of hits that are. */
void sampler_confirm(const struct draw_plan *plan, uint32_t hits, struct draw *draws);
/*
 * Moves the set past `draws` draws made by this plan, the last one made. Right also when positives came or the set was cleared since: the walk goes by the
 * length it was planned with, and recent entries that left the ring meanwhile are passed over.
 */
void training_set_advance(struct training_set *set, const struct draw_plan *plan, uint64_t draws);
#ifdef __cplusplus
}
#endif

#endif
