/*
 * learner_internal.h: the learner's own structure, shared by learner.c (options, training set), learner_job.c (jobs, copies, the backend) and
 * learner_batch.c (batches of users).
 */
#ifndef TRAINER_LEARN_LEARNER_INTERNAL_H
#define TRAINER_LEARN_LEARNER_INTERNAL_H

#include "trainer/learn/learn.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/sampler.h"

/* What learner_train() was asked for and has not come to its end. A job is handed on in parts; `running` says that one is under way. */
struct learner_job {
	struct train_job left;  /* what the next parts may still do */
	int64_t deadline_us;    /* 0: none */
	struct train_report sum; /* of the parts that have ended; of the last job when none runs */
	struct draw_plan plan;  /* of the part under way or the last one */
	uint64_t part_triples;
	int64_t part_began_us;
	int running;
};

struct learner {
	struct learn_options options;
	const struct backend_ops *ops;
	struct backend *backend;
	struct training_set set;
	struct skip_source skips;
	struct popularity popularity; /* while popular_share is above 0 */
	struct learner_job job;
	int broken; /* non-finite parameters were seen; the next push is a rollback */
	uint64_t triples, rollbacks;

	/* what a backend that is opened later has to be told */
	uint32_t n_users, n_items;
	const int64_t *user_ids, *item_ids;

	int fault;            /* 0, or why the device is of no more use: -EIO, -ENOMEM, -ETIMEDOUT */
	char fault_text[256];
	int hung;             /* the part under way was given up: no call into the backend but poll() is safe */
	const struct backend_ops *parked_ops; /* a backend that was replaced while it hung; closed when it comes back */
	struct backend *parked;
	uint64_t pulled;      /* epoch of the last copy pulled; 0: none, or its pull failed */
	uint64_t serial;      /* backends replaced so far: marks copies as this backend's own */
};

/*
 * Takes note of a failed call into the backend. Failures of a device (backends that work elsewhere: -EIO, and -ENOMEM of its memory) become the learner's fault
 * and all further calls into the backend are left out; others are the caller's. Returns rc.
 */
int learner_note(struct learner *learner, int rc, const char *what);
/* Tells the backend that the training set has changed. 0, or an error that is no device's. */
int learner_tell_changed(struct learner *learner);

#endif
