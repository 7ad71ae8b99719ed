/*
 * generation.h: the published model. What queries read, what checkpoints save.
 *
 * A generation is immutable while anybody holds a reference. The publisher owns a fixed pool: the published one, a spare to fill next, and one more
 * for a checkpoint that pins an old one. Buffers are reused: copying into memory already in use is twenty times faster than into fresh pages.
 *
 * Personal rows are not part of a generation: each lies beside its user's facts (the state's row, written and copied under the user's lock) as a
 * difference to the global row, so that a fold-in is served at once, without publishing, and costs no second copy of the table.
 */
#ifndef TRAINER_MODEL_GENERATION_H
#define TRAINER_MODEL_GENERATION_H

#include "trainer/learn/learn.h"

struct generation {
	struct tables tables;   /* published parameters; U [n_users, dim] ... */
	float *mean_user;       /* [dim] mean of the rows of users with positives; serves and saves users without any */
	float intercept;        /* global intercept: prior of every user's bu */
	size_t n_candidates;    /* the learner's first candidates that this generation knows */
	uint64_t number;        /* 1, 2, ...; grows with every publish and over restarts */
	struct learner_progress progress; /* training as of the publish point */
	int64_t published_us;   /* CLOCK_MONOTONIC */
	uint32_t *popularity;   /* [n_popularity] users with each item as a positive, as of the publish point; n_popularity 0: not kept */
	uint32_t n_popularity, cap_popularity;
	/* private to the publisher */
	uint32_t refs;
	uint32_t slot;
	size_t warm[6]; /* bytes of each array of the tables whose pages are there */
};

/* The state's opaque row. Zero: no personal row. Size in bytes: personal_row_bytes(dim). */
struct personal_row {
	uint64_t generation; /* generation whose V it was fitted to; 0: none */
	int64_t fitted_us;   /* model clock (engine.h) when it was fitted */
	float bu;            /* the user's intercept for the personal row (absolute) */
	uint32_t n_positives; /* positives it was fitted on */
	float difference[];  /* [dim] personal U minus global U */
};
static inline uint32_t personal_row_bytes(uint32_t dim)
{
	return (uint32_t)(sizeof(struct personal_row) + dim * sizeof(float) + 7) & ~7u; /* the next user's row stays aligned */
}

struct publisher;

int publisher_new(uint32_t dim, struct publisher **ret_publisher);
void publisher_free(struct publisher *publisher);
/* The spare to fill; [engine]. It keeps its old content (tables.epoch says how old). -EBUSY: every spare is pinned; try again later. */
int publisher_begin(struct publisher *publisher, struct generation **ret_generation);
/* Makes it the published one and numbers it (previous number + 1, or `number` when not 0); [engine]. Short mutex only. */
void publisher_commit(struct publisher *publisher, struct generation *generation, uint64_t number);
/* Gives an unfinished spare back; [engine]. */
void publisher_cancel(struct publisher *publisher, struct generation *generation);
/*
 * Gives the spares room for so many rows and has their pages made, at most budget_us (0: no limit) a call; [engine]. The kernel takes most of a second for 256
 * MB of fresh pages: without this the first publish into a spare would be that long. Returns 1 when all are warm. A lack of memory is left to the publish to
 * report.
 */
int publisher_warm(struct publisher *publisher, uint32_t n_users, uint32_t n_items, int64_t budget_us);
/* Reference to the published generation, NULL when none was published yet; any thread. Release every one. */
struct generation *generation_acquire(struct publisher *publisher);
void generation_release(struct publisher *publisher, struct generation *generation);

#endif
