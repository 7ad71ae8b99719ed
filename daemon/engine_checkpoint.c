/*
 * engine_checkpoint.c: checkpoints and snapshots.
 *
 * The engine thread makes the cut (publish, pin the generation, freeze the state, copy positions) and goes on; a thread that lives as long as one checkpoint
 * writes it. When it is done the engine thread takes the result, unpins, and answers those who wait. Everything the writer reads is either
 * immutable (generation, ids), frozen (state cut) or a copy (positions); it owns nothing but its own buffers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/engine_internal.h"

#define WRITER_NICE 5

static void *writer_thread(void *arg)
{
	struct engine *engine = arg;
	struct engine_checkpoint *c = &engine->checkpoint;

	/* behind the engine, training and answers; Linux keeps a nice value per thread, and a refusal does no harm */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), WRITER_NICE);
	c->rc = dead_letter_sync(engine->dead_letter);
	c->dead_letter_bad = c->rc < 0;
	if (c->dead_letter_bad)
		snprintf(c->errstr, sizeof(c->errstr), "dead-letter.jsonl: fsync: %s; the last refused lines may be lost there, they are counted", strerror(-c->rc));
	else
		c->rc = checkpoint_write(engine->data_dir_fd, &c->cut, c->keep, &c->progress, &c->result, c->errstr,
		                         sizeof(c->errstr));
	atomic_store_explicit(&c->done, 1, memory_order_release);
	queue_wake(engine->queues);
	return NULL;
}

static int copy_for_cut(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;
	const uint32_t n_surfaces = state_cut_n_surfaces(c->cut.cut);

	c->positions = malloc((engine->n_positions + 1) * sizeof(*c->positions));
	c->surfaces = malloc((n_surfaces + 1) * sizeof(*c->surfaces));
	if (c->positions == NULL || c->surfaces == NULL)
		return -ENOMEM;
	if (engine->n_positions > 0)
		memcpy(c->positions, engine->positions, engine->n_positions * sizeof(*c->positions));
	for (uint32_t i = 0; i < n_surfaces; i++)
		c->surfaces[i] = state_surface_name(engine->state, (uint16_t)(i + 1));
	c->cut.positions = c->positions;
	c->cut.n_positions = engine->n_positions;
	c->cut.surfaces = c->surfaces;
	c->cut.n_surfaces = n_surfaces;
	return 0;
}

static void release_cut(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	if (c->cut.cut != NULL)
		state_cut_end(c->cut.cut);
	generation_release(engine->publisher, (struct generation *)(uintptr_t)c->cut.generation);
	free(c->positions);
	free(c->surfaces);
	c->positions = NULL;
	c->surfaces = NULL;
	memset(&c->cut, 0, sizeof(c->cut));
}

/* Nothing was trained and nobody joined since the last publish: the cut can pin that generation. */
static int published_is_current(struct engine *engine)
{
	struct generation *g = generation_acquire(engine->publisher);
	const int current = g != NULL && engine->training.trained_since == 0 && g->tables.n_users == state_n_users(engine->state) &&
	                    g->tables.n_items == state_n_items(engine->state);

	generation_release(engine->publisher, g);
	return current;
}

/* Freezes everything at this instant. 0, -EAGAIN (no spare generation now, or parameters had to be set back first), or -errno. */
static int make_cut(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;
	int rc;

	if (!published_is_current(engine)) {
		const int apart = !c->apart && engine->training.publish_cost_us > ENGINE_LARGE_PUBLISH_US;

		if (engine_publish(engine, 1) == 0)
			return -EAGAIN;
		c->apart = apart;
		if (apart)
			return -EAGAIN; /* large tables: the cut comes at the next turn, so that each gap stays short */
	}
	c->apart = 0;
	c->cut.generation = generation_acquire(engine->publisher);
	c->cut.state = engine->state;
	rc = state_cut_begin(engine->state, &c->cut.cut);
	if (rc < 0)
		return rc;
	c->cut.user_ids = state_user_ids(engine->state);
	c->cut.item_ids = state_item_ids(engine->state);
	c->cut.state_config = engine->config.state;
	c->cut.rules = *state_get_rules(engine->state);
	c->cut.dead_letter_length = dead_letter_length(engine->dead_letter);
	c->cut.dead_letter_dropped = engine->dead_letter_base + dead_letter_dropped(engine->dead_letter);
	c->cut.model_clock_us = engine_model_clock_us(engine);
	c->cut.personalize_min_positives = engine->config.personalize_min_positives;
	c->cut.bad = c->bad;
	c->cut.n_bad = c->n_bad;
	return copy_for_cut(engine);
}

static void answer_waiters(struct engine *engine, int rc)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	engine_status_refresh(engine, engine->status.phase); /* who was answered finds it in the status */
	pthread_mutex_lock(&engine->mutex);
	engine->snapshot_done = c->covers;
	engine->snapshot_rc = rc;
	engine->snapshot_result = c->result;
	snprintf(engine->snapshot_error, sizeof(engine->snapshot_error), "%s", rc < 0 ? c->errstr : "");
	pthread_cond_broadcast(&engine->changed);
	pthread_mutex_unlock(&engine->mutex);
}

static void note_failure(struct engine *engine, int rc)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	c->failures++;
	snprintf(c->last_error, sizeof(c->last_error), "%s", c->errstr[0] != '\0' ? c->errstr : strerror(-rc));
	answer_waiters(engine, rc);
}

static void start(struct engine *engine, uint64_t covers)
{
	struct engine_checkpoint *c = &engine->checkpoint;
	int rc;

	memset(&c->progress, 0, sizeof(c->progress));
	memset(&c->result, 0, sizeof(c->result));
	c->errstr[0] = '\0';
	rc = make_cut(engine);
	if (rc == 0) {
		atomic_store(&c->done, 0);
		c->keep = engine->config.checkpoint_keep;
		rc = -pthread_create(&c->thread, NULL, writer_thread, engine);
	}
	if (rc == 0) {
		c->running = 1;
		c->covers = covers;
		c->started_us = engine_mono_us();
		return;
	}
	release_cut(engine);
	if (rc == -EAGAIN)
		return; /* tried again at the next turn */
	c->started_us = engine_mono_us();
	c->covers = covers;
	snprintf(c->errstr, sizeof(c->errstr), "starting a checkpoint: %s", strerror(-rc));
	note_failure(engine, rc);
}

static void finish(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	pthread_join(c->thread, NULL);
	c->running = 0;
	if (c->rc == 0 && engine->durable != NULL)
		engine->durable(engine->durable_ctx, c->cut.positions, c->cut.n_positions);
	release_cut(engine);
	if (c->dead_letter_bad) {
		/* never synced again on that descriptor; on a new one the disk gets another chance */
		char text[256];

		if (engine_open_dead_letter(engine, -1, text, sizeof(text)) < 0)
			snprintf(c->errstr, sizeof(c->errstr), "%s", text);
	}
	if (c->rc < 0) {
		note_failure(engine, c->rc);
		return;
	}
	c->failures = 0;
	c->last_error[0] = '\0';
	c->durable_us = engine_mono_us();
	c->number = c->result.number;
	c->last = c->result;
	answer_waiters(engine, 0);
}

static uint64_t wanted(struct engine *engine)
{
	uint64_t ticket;

	pthread_mutex_lock(&engine->mutex);
	ticket = engine->snapshot_wanted;
	pthread_mutex_unlock(&engine->mutex);
	return ticket;
}

int engine_checkpoint_step(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;
	const uint64_t ticket = wanted(engine);
	const int64_t interval_us = (int64_t)engine->config.checkpoint_interval_sec * 1000000;
	int due;

	if (c->running && atomic_load_explicit(&c->done, memory_order_acquire))
		finish(engine);
	if (c->running)
		return 0;
	due = interval_us > 0 && engine_mono_us() - c->started_us >= interval_us;
	/* The first positions are saved at once: before that a kill would forget where files that are read from their end began. */
	due |= interval_us > 0 && c->number == 0 && engine->n_positions > 0 && c->failures == 0;
	if (!due && ticket <= c->covers)
		return 0;
	start(engine, ticket);
	return c->running || c->apart; /* 0: no spare generation now, or it failed; training goes on meanwhile */
}

/* Waits for the writer, shows that the engine lives, and heeds a second request to stop. */
static void wait_for_writer(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	while (c->running) {
		engine->heartbeat++;
		engine_status_refresh(engine, "stopping");
		if (atomic_load(&engine->stop) == 2)
			__atomic_store_n(&c->progress.cancel, 1, __ATOMIC_RELAXED);
		if (atomic_load_explicit(&c->done, memory_order_acquire))
			finish(engine);
		else
			queue_wait(engine->queues, 50);
	}
}

/* At stop: gives up or waits for the one being written, then writes the last one. */
void engine_checkpoint_last(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;
	struct event_batch *batch;

	/* what was not applied is read again by the next run; here it would keep queue_wait() from waiting */
	while ((batch = queue_pop(engine->queues)) != NULL)
		queue_give_back(engine->queues, batch);
	wait_for_writer(engine);
	for (int tries = 0; tries < 100 && atomic_load(&engine->stop) != 2 && !c->running; tries += !engine->training.in_flight) {
		const uint64_t failures = c->failures;

		if (engine_device_step(engine) == 0) /* one that hangs or fails now is replaced, so that there is something to publish */
			start(engine, wanted(engine));
		if (c->failures != failures)
			return;
		if (!c->running)
			queue_wait(engine->queues, engine->training.in_flight ? 1 : 20); /* a reader holds the spare generation for a moment */
		engine->heartbeat++;
	}
	if (!c->running && atomic_load(&engine->stop) != 2) {
		snprintf(c->errstr, sizeof(c->errstr), "no last checkpoint: nothing could be published%s%s", engine->training.trouble[0] ? "; " : "",
		         engine->training.trouble);
		note_failure(engine, -EBUSY);
	}
	wait_for_writer(engine);
}

void engine_checkpoint_close(struct engine *engine)
{
	struct engine_checkpoint *c = &engine->checkpoint;

	if (c->running) {
		__atomic_store_n(&c->progress.cancel, 1, __ATOMIC_RELAXED);
		finish(engine);
	}
	free(c->positions);
	free(c->surfaces);
}

int engine_snapshot(struct engine *engine, int timeout_ms, struct checkpoint_result *ret_result, char *errstr, size_t errstr_size)
{
	const struct timespec deadline = engine_deadline(timeout_ms);
	uint64_t ticket;
	int rc = 0;

	pthread_mutex_lock(&engine->mutex);
	ticket = ++engine->snapshot_wanted;
	queue_wake(engine->queues);
	while (rc == 0 && engine->snapshot_done < ticket && !atomic_load(&engine->ended))
		rc = -pthread_cond_timedwait(&engine->changed, &engine->mutex, &deadline);
	if (engine->snapshot_done >= ticket) {
		rc = engine->snapshot_rc;
		*ret_result = engine->snapshot_result;
		if (rc < 0)
			snprintf(errstr, errstr_size, "%s", engine->snapshot_error);
	} else if (rc == 0) {
		rc = -ECANCELED;
		snprintf(errstr, errstr_size, "the daemon is stopping");
	} else {
		snprintf(errstr, errstr_size, "no checkpoint was durable after %d ms; it goes on", timeout_ms);
	}
	pthread_mutex_unlock(&engine->mutex);
	return rc;
}
