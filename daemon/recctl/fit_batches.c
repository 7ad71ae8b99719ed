/*
 * fit_batches.c: personal rows by a device (learn.h, learner_personalize()). Main thread.
 *
 * A batch is as many users as an H100 holds at a time (gpu/personalize.cu: a warp each), or fewer when they have very many positives. The next batch is made
 * when the one before is done: making one takes the time of copying its positives.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/fit_internal.h"
#include "daemon/recctl/progress.h"
#include "trainer/learn/learn.h"

#define BATCH_USERS 4096u
#define BATCH_POSITIVES (4u << 20)

struct batch {
	uint32_t n;
	uint32_t users[BATCH_USERS];
	uint64_t seeds[BATCH_USERS];
	uint64_t offsets[BATCH_USERS + 1];
	int rcs[BATCH_USERS];
	uint32_t *positives;
	size_t capacity;
	float *starts, *rows; /* [BATCH_USERS, dim] */
};

static void batch_free(struct batch *batch)
{
	if (!batch)
		return;
	free(batch->positives);
	free(batch->starts);
	free(batch->rows);
	free(batch);
}

static struct batch *batch_new(uint32_t dim)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->starts = malloc((size_t)BATCH_USERS * dim * sizeof(*batch->starts));
	batch->rows = malloc((size_t)BATCH_USERS * dim * sizeof(*batch->rows));
	if (!batch->starts || !batch->rows) {
		batch_free(batch);
		return NULL;
	}
	return batch;
}

/* Adds a user, if he has positives enough. 0 or -ENOMEM. */
static int batch_add(struct batch *batch, const struct personal *job, uint32_t user)
{
	const struct state *state = job->fit->state;
	const uint32_t dim = job->tables->dim;
	struct user_facts facts;
	uint64_t at = batch->offsets[batch->n];

	state_user_facts(state, user, &facts);
	if (at + facts.n_watches > batch->capacity) {
		size_t capacity = at + facts.n_watches + batch->capacity / 2;
		uint32_t *grown = realloc(batch->positives, capacity * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		batch->positives = grown;
		batch->capacity = capacity;
	}
	size_t n = batch->positives ? fit_positives(job->fit, &facts, user, batch->positives + at, facts.n_watches) : 0;
	if (n == 0 || n < job->min_positives)
		return 0;
	memcpy(batch->starts + (size_t)batch->n * dim, job->tables->U + (size_t)user * dim, dim * sizeof(float));
	batch->users[batch->n] = user;
	batch->seeds[batch->n] = fit_user_seed(job->options->seed, state_user_ids(state)[user]);
	batch->offsets[++batch->n] = at + n;
	return 0;
}

/* Fits the users of the batch and empties it. Who has no negative to learn from, or a row that is not finite, keeps the global row. */
static int batch_run(struct batch *batch, struct personal *job)
{
	const uint32_t dim = job->tables->dim;
	const struct personalize_batch call = {
		.n = batch->n, .starts = batch->starts, .offsets = batch->offsets, .positives = batch->positives, .candidates = job->candidates,
		.n_candidates = (uint32_t)job->n_candidates, .options = job->options, .seeds = batch->seeds, .ret_rows = batch->rows, .ret_rcs = batch->rcs,
	};
	int rc = batch->n ? learner_personalize(job->fit->learner, job->tables, &call) : 0;

	for (uint32_t k = 0; k < batch->n && !rc; k++) {
		if (batch->rcs[k] == -ENOMEM)
			rc = -ENOMEM;
		if (batch->rcs[k])
			continue;
		memcpy(job->U + (size_t)batch->users[k] * dim, batch->rows + (size_t)k * dim, dim * sizeof(float));
		atomic_fetch_add(&job->fitted, 1);
	}
	batch->n = 0;
	return rc;
}

int fit_personal_batches(struct personal *job)
{
	const uint32_t n_users = job->tables->n_users;
	struct batch *batch = batch_new(job->tables->dim);
	struct progress progress;
	int rc = batch ? 0 : -ENOMEM;

	progress_begin(&progress, "personalizing, users", n_users);
	memcpy(job->U, job->tables->U, (size_t)n_users * job->tables->dim * sizeof(float));
	for (uint32_t user = 0; user < n_users && !rc; user++) {
		rc = batch_add(batch, job, user);
		if (!rc && (batch->n == BATCH_USERS || batch->offsets[batch->n] >= BATCH_POSITIVES)) {
			rc = batch_run(batch, job);
			progress_update(&progress, user + 1);
		}
	}
	if (!rc)
		rc = batch_run(batch, job);
	progress_end(&progress);
	batch_free(batch);
	return rc;
}
