/*
 * negatives.h: which item stands against a positive, beyond the uniform draw; internal to trainer/learn. Used by the sampler, the learner and the backends.
 *
 * Shares are of all triples: skips (the user's own), popular (in proportion to popularity^a), hard (the highest scored of n uniform candidates: dynamic
 * negative sampling, Zhang et al., SIGIR 2013), the rest uniform. Every negative is verified: it is none of the user's positives.
 */
#ifndef TRAINER_LEARN_NEGATIVES_H
#define TRAINER_LEARN_NEGATIVES_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/learn/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HARD_OF_MAX 64u

/* Draws place k with a probability in proportion to weight k, in constant time (Walker's alias method). */
struct alias_table {
	uint32_t n;
	uint32_t version; /* another one with each build; 0: never built. For who keeps a copy */
	uint32_t *below; /* [n] place k is itself when the 32-bit coin is at most this, else other[k] */
	uint32_t *other; /* [n] */
};

/* weights[n], n >= 1, finite and not negative; all zero: the same for all. What the table held is replaced. 0 or -ENOMEM (table unchanged). */
int alias_build(struct alias_table *table, const double *weights, uint32_t n);
void alias_free(struct alias_table *table);
/* place: uniform in 0..n - 1; coin: 32 random bits. */
static inline uint32_t alias_pick(const struct alias_table *table, uint32_t place, uint32_t coin)
{
	return coin <= table->below[place] ? place : table->other[place];
}

/* Popularity of the candidates, kept by the learner for training_set.popular. */
struct popularity {
	struct alias_table table; /* over places in training_set.candidates */
	float power;
	uint64_t cleared, n_positives; /* of the set when the table was made */
};

/*
 * Weights max(positives of the item, 1)^power. Made anew when the power changed, candidates joined, the set was cleared, or the positives grew by a tenth;
 * else left as it is. Sets set->popular. 0 or -ENOMEM (the old table stays).
 */
int popularity_refresh(struct popularity *popularity, struct training_set *set, float power);
void popularity_free(struct popularity *popularity);

/*
 * The further candidates of a hard draw: n - 1 uniform ones, a pure function of (seed, step, index); not verified. Its first candidate is draw->neg.
 * ret_items[n - 1].
 */
void hard_candidates(const struct draw_plan *plan, const struct draw *draw, uint32_t n, uint32_t *ret_items);
/*
 * The same of n draws of one step whose indexes follow each other, plan->hard_of of each: ret_items[n * hard_of], where the first of each draw's place is
 * left free for its first candidate.
 */
void hard_candidates_many(const struct draw_plan *plan, const struct draw *draws, uint32_t n, uint32_t *ret_items);
/*
 * The highest scored of items[n] that is not among the user's positives; of equal ones the first. When all are positives: a uniform draw, or SAMPLE_NONE when
 * the user has no valid negative. scores[n] is used up. Scores that are not numbers are passed over.
 */
uint32_t hard_choose(const struct training_set *set, const struct draw *draw, const uint32_t *items, float *scores, uint32_t n);
#ifdef __cplusplus
}
#endif

#endif
