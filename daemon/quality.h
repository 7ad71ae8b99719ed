/*
 * quality.h: live quality. A sampled share of new positives is ranked before it is learnt from (prequential evaluation: test, then train; Gama, Sebastião and
 * Rodrigues, Machine Learning 90, 2013), by what recd would have served, by the global model and by popularity.
 *
 * The engine offers positives and never waits: a thread of its own ranks them, against a generation that was published before they came, within a share of one
 * core. Figures are means over a sliding window of the last ranked positives.
 */
#ifndef DAEMON_QUALITY_H
#define DAEMON_QUALITY_H

#include "daemon/quality_rank.h"

struct quality;

#define QUALITY_SLOTS 256u /* offers that wait at most */

struct quality_options {
	int enabled;
	float share;           /* of the new positives */
	uint32_t k;            /* of hit rate and NDCG */
	uint32_t window;       /* ranked positives that the figures are means over */
	double cpu_share_max;  /* of one core */
};

/* Why a sampled positive was not ranked. */
enum quality_left_out {
	QUALITY_LAG,          /* sources wait: the stream is behind */
	QUALITY_QUEUE_FULL,
	QUALITY_BUDGET,       /* the share of the core is used up */
	QUALITY_LATE,         /* its generation would have been held for too long */
	QUALITY_UNKNOWN_ITEM, /* the published generation does not have the item: no model can rank it */
	QUALITY_LEFT_OUT
};
const char *quality_left_out_name(enum quality_left_out why); /* "lag", "queue_full", "budget", "late", "unknown_item" */

struct quality_figures {
	double hit_rate, ndcg, auc; /* NaN while count is 0 */
};

struct quality_status {
	int enabled;
	uint32_t k, window;
	uint32_t count;           /* ranked positives behind each figure: at most window */
	struct quality_figures models[QUALITY_MODELS];
	uint64_t ranked;          /* since the start */
	uint64_t new_users;       /* of them, users' first positives: popularity served */
	uint64_t left_out[QUALITY_LEFT_OUT];
	int64_t cpu_us;           /* CPU time of the thread */
};

/* 1 when the pair belongs to the share: a pure function of these, so that every run samples the same pairs; a smaller share is a subset of a larger one. */
int quality_is_sampled(int64_t user_id, int64_t item_id, uint64_t seed, float share);

/* Allocates; `publisher` stays the caller's and must outlive it. The window is fixed. 0 or -ENOMEM. */
int quality_new(const struct quality_options *options, struct publisher *publisher, uint32_t row_bytes, struct quality **ret_quality);
/* Starts the thread; 0 or -errno. */
int quality_start(struct quality *quality);
/* Ends the thread and lets go of every generation; what was offered and not ranked is forgotten. Further offers do nothing. */
void quality_stop(struct quality *quality);
void quality_free(struct quality *quality); /* accepts NULL */
/* New values but for the window, which stays; from the engine's thread. */
void quality_set_options(struct quality *quality, const struct quality_options *options);
/*
 * Offers a case, from the engine's thread; never waits for a ranking. Everything is copied; c->generation is not read: the case holds the generation that is
 * published now, which the engine's thread alone changes, until it was ranked.
 */
void quality_offer(struct quality *quality, const struct quality_case *c);
/* Counts one that was not offered. Engine's thread. */
void quality_leave_out(struct quality *quality, enum quality_left_out why);
void quality_get_status(struct quality *quality, struct quality_status *ret_status); /* any thread */

#endif
