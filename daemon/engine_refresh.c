/*
 * engine_refresh.c: personal rows that were fitted to an older V are fitted again in spare time, oldest first. Engine thread.
 *
 * While V stands still a row stays valid and only its stamp is renewed. Without a device rows are fitted one by one on this thread. A device fits many at once,
 * beside the training job in flight: the batch is as large as fits into the budget, by the time that the one before took, so that lines and touched users wait
 * no longer for it than for rows fitted one by one. It works on the item tables of the published generation; where those are not what it holds (a copy that was
 * thrown away, a device just opened), or where it has no room, rows are fitted one by one.
 *
 * A batch may have to wait for places that the job takes. It is waited for with a limit, and not begun beside a job that is late: a device that hangs must not
 * keep this thread from finding that out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine_internal.h"

#define BATCH_LEAST 8u /* fewer are not worth the way to the device; the first batch has so many */
#define REFUSED_PAUSE_US 1000000
#define SLOW_PAUSE_US 60000000 /* after two of the smallest batches in a row were far too long: this device is no help here */
#define SLOW_TIMES 4
#define WAIT_US 50000u /* for a batch: lines and touched users wait meanwhile */
#define LATE_SLICES 2  /* a part of a job that has been running for so many slices is late, ... */
#define LATE_US 20000  /* ... if it is also older than this */

void engine_refresh_close(struct engine *engine)
{
	if (engine->refresh == NULL)
		return;
	free(engine->refresh->positives);
	free(engine->refresh->starts);
	free(engine->refresh->rows);
	free(engine->refresh);
	engine->refresh = NULL;
}

static int refresh_open(struct engine *engine)
{
	const size_t bytes = (size_t)REFRESH_USERS_MAX * engine->config.learn.emb_dim * sizeof(float);

	if (engine->refresh != NULL)
		return 0;
	engine->refresh = calloc(1, sizeof(*engine->refresh));
	if (engine->refresh == NULL)
		return -ENOMEM;
	engine->refresh->starts = malloc(bytes);
	engine->refresh->rows = malloc(bytes);
	engine->refresh->n_wanted = BATCH_LEAST;
	if (engine->refresh->starts != NULL && engine->refresh->rows != NULL)
		return 0;
	engine_refresh_close(engine);
	return -ENOMEM;
}

static int is_current(const struct engine *engine, const struct user_facts *facts)
{
	return ((const struct personal_row *)facts->row)->generation >= engine->training.model_generation;
}

/* Puts the user's positives behind the others. 0, -ENOMEM, or -EAGAIN: his row is not one to be fitted. */
static int gather_user(struct engine *engine, const struct generation *g, uint32_t user, uint32_t k)
{
	struct engine_refresh *r = engine->refresh;
	const uint32_t dim = g->tables.dim;
	struct user_facts facts;
	size_t n;

	state_user_facts(engine->state, user, &facts);
	if (is_current(engine, &facts))
		return -EAGAIN;
	r->all[k] = 1;
	n = engine_fold_begin(engine, user, g, &facts, &r->all[k]);
	if (n == 0 || n < engine->config.personalize_min_positives)
		return -EAGAIN;
	if (r->offsets[k] + n > r->capacity) {
		const size_t capacity = (r->offsets[k] + n) * 2;
		uint32_t *grown = realloc(r->positives, capacity * sizeof(*grown));

		if (grown == NULL)
			return -ENOMEM;
		r->positives = grown;
		r->capacity = capacity;
	}
	memcpy(r->positives + r->offsets[k], engine->fold.items, n * sizeof(*r->positives));
	memcpy(r->starts + (size_t)k * dim, g->tables.U + (size_t)user * dim, dim * sizeof(float));
	r->users[k] = user;
	r->offsets[k + 1] = r->offsets[k] + n;
	r->seeds[k] = engine_fold_seed(engine, user);
	return 0;
}

/* The oldest rows, as many as are wanted. */
static uint32_t gather(struct engine *engine, const struct generation *g)
{
	struct engine_refresh *r = engine->refresh;
	uint32_t n = 0;

	for (uint32_t user = user_list_first(&engine->fold.rows); user < g->tables.n_users && n < r->n_wanted; user = user_list_after(&engine->fold.rows, user)) {
		if (gather_user(engine, g, user, n) < 0)
			break; /* what is so special about him is seen to one by one */
		n++;
	}
	return n;
}

/* After a batch of n rows. */
static void size_next_batch(struct engine_refresh *r, uint32_t n, int64_t now_us, int64_t began_us, int64_t budget_us)
{
	const int64_t took_us = now_us - began_us;

	if (took_us * 2 < budget_us && n == r->n_wanted)
		r->n_wanted = r->n_wanted * 2 < REFRESH_USERS_MAX ? r->n_wanted * 2 : REFRESH_USERS_MAX;
	else if (took_us > budget_us)
		r->n_wanted = r->n_wanted / 2 > BATCH_LEAST ? r->n_wanted / 2 : BATCH_LEAST;
	r->slow = n <= BATCH_LEAST && took_us > budget_us * SLOW_TIMES ? r->slow + 1 : 0;
	if (r->slow < 2) /* the first one also makes the device ready */
		return;
	r->slow = 0;
	r->pause_until_us = now_us + SLOW_PAUSE_US;
}

static int job_is_late(const struct engine *engine)
{
	const int64_t part_us = learner_part_us(engine->learner);

	return part_us > LATE_US && part_us > (int64_t)engine->config.slice_ms * 1000 * LATE_SLICES;
}

/* The device did not take the batch, and does not get another for a while. */
static void pause_batches(struct engine_refresh *r, int rc, int64_t now_us)
{
	if (rc == -EAGAIN)
		r->n_wanted = BATCH_LEAST;
	r->pause_until_us = now_us + REFUSED_PAUSE_US;
}

/* Fits many rows on the device. Returns how many; 0: there is no device, or it cannot now. */
static int refit_together(struct engine *engine, const struct generation *g, int64_t budget_us)
{
	const int64_t began_us = engine_mono_us();
	struct personalize_options options = engine->config.personalize;
	struct personalize_batch batch = { .options = &options };
	struct engine_refresh *r = engine->refresh;
	int rc;

	if (!learner_has_batches(engine->learner) || job_is_late(engine) || (r != NULL && began_us < r->pause_until_us) || refresh_open(engine) < 0)
		return 0;
	r = engine->refresh;
	batch.n = gather(engine, g);
	if (batch.n < BATCH_LEAST)
		return 0;
	batch.starts = r->starts;
	batch.offsets = r->offsets;
	batch.positives = r->positives;
	batch.seeds = r->seeds;
	batch.n_candidates = engine_fold_candidates(engine, g, &batch.candidates);
	batch.ret_rows = r->rows;
	batch.ret_rcs = r->rcs;
	batch.wait_us = WAIT_US;
	rc = learner_personalize(engine->learner, &g->tables, &batch);
	if (rc < 0) {
		pause_batches(r, rc, began_us);
		return 0;
	}
	for (uint32_t k = 0; k < batch.n; k++) {
		struct user_facts facts;

		state_user_facts(engine->state, r->users[k], &facts);
		engine_fold_end(engine, &facts, g, r->rcs[k] == 0 ? r->rows + (size_t)k * g->tables.dim : NULL, r->offsets[k + 1] - r->offsets[k], r->all[k]);
	}
	engine->fold.refreshed += batch.n;
	size_next_batch(r, batch.n, engine_mono_us(), began_us, budget_us);
	return (int)batch.n;
}

int engine_refresh(struct engine *engine, int64_t budget_us)
{
	const int64_t began_us = engine_mono_us(), now_us = engine_model_clock_us(engine);
	const int64_t max_age_us = (int64_t)engine->config.personal_max_age_sec * 1000000;
	struct engine_fold *fold = &engine->fold;
	struct generation *g = generation_acquire(engine->publisher);
	uint32_t user;
	int done = g != NULL && !engine_cut_is_behind(engine) ? refit_together(engine, g, budget_us) : 0;

	while (g != NULL && engine_mono_us() - began_us < budget_us && !engine_cut_is_behind(engine) && (user = user_list_first(&fold->rows)) != UINT32_MAX &&
	       user < g->tables.n_users) {
		struct user_facts facts;
		const struct personal_row *row;

		state_user_facts(engine->state, user, &facts);
		row = facts.row;
		const int current = is_current(engine, &facts);

		if (current && now_us - row->fitted_us < max_age_us / 4)
			break;
		if (current) {
			struct personal_row *stamped = state_row_begin(engine->state, user);

			if (stamped == NULL)
				break;
			stamped->fitted_us = now_us;
			state_row_end(engine->state, user);
			user_list_put_last(&fold->rows, user);
		} else {
			engine_fold_fit(engine, user, g, 1);
			fold->refreshed++;
		}
		done++;
		engine_train_keep(engine);
	}
	generation_release(engine->publisher, g);
	return done;
}
