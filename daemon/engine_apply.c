/*
 * engine_apply.c: batches into the state. Engine thread.
 *
 * Facts, the position and the counters of a batch go in together, between two turns of the loop, so that every cut holds either all of a batch or none.
 * Refused lines are appended to the dead-letter file in the same step; the cut records that file's length.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/engine_internal.h"

/* The stored position of that name; a new one when there is none. NULL when out of memory. */
static struct source_position *position_slot(struct engine *engine, const char *name)
{
	for (size_t i = 0; i < engine->n_positions; i++)
		if (strcmp(engine->positions[i].name, name) == 0)
			return &engine->positions[i];
	if (engine->n_positions == engine->positions_capacity) {
		const size_t capacity = engine->positions_capacity * 2 + 16;
		struct source_position *grown = realloc(engine->positions, capacity * sizeof(*grown));

		if (grown == NULL)
			return NULL;
		engine->positions = grown;
		engine->positions_capacity = capacity;
	}
	return &engine->positions[engine->n_positions++];
}

/* A retired position leaves its counters to the position of its path (event.h); counted once, so they must not go with it. */
static void bring_home(struct engine *engine, const struct source_position *from)
{
	const char *mark = NULL;

	for (const char *at = from->name; (at = strstr(at, "#rotated:")) != NULL; at++)
		mark = at;
	for (size_t i = 0; mark != NULL && i < engine->n_positions; i++) {
		struct source_position *home = &engine->positions[i];
		const size_t len = (size_t)(mark - from->name);

		if (strncmp(home->name, from->name, len) != 0 || home->name[len] != '\0')
			continue;
		home->lines += from->lines;
		home->empty += from->empty;
		for (int r = 0; r < REFUSAL_COUNT; r++)
			home->refused[r] += from->refused[r];
		home->unknown_types += from->unknown_types;
		home->gaps += from->gaps;
		home->gap_bytes += from->gap_bytes;
		home->resets += from->resets;
		if (from->last_time_us > home->last_time_us)
			home->last_time_us = from->last_time_us;
		return;
	}
}

static int take_position(struct engine *engine, const struct source_position *position)
{
	struct source_position *slot;

	if (position->name[0] == '\0')
		return 0;
	slot = position_slot(engine, position->name);
	if (slot == NULL)
		return -ENOMEM;
	*slot = *position;
	if (position->retired) {
		bring_home(engine, position);
		*slot = engine->positions[--engine->n_positions];
	}
	return 0;
}

int engine_take_changes(struct engine *engine, int recent)
{
	struct state_changes changes;
	int rc;

	state_changes_get(engine->state, &changes);
	rc = learner_grow(engine->learner, state_n_users(engine->state), state_n_items(engine->state), state_user_ids(engine->state),
	                  state_item_ids(engine->state));
	if (rc == 0)
		rc = engine_fold_grow(engine);
	if (rc == 0)
		rc = learner_add_candidates(engine->learner, changes.candidates, changes.n_candidates);
	if (rc == 0 && changes.rebuild)
		rc = engine_rebuild_positives(engine);
	else if (rc == 0)
		rc = engine_add_positives(engine, changes.positives, changes.n_positives, recent);
	if (rc < 0)
		return rc;
	if (recent)
		engine_rate_news(engine, changes.n_positives);
	if (changes.rebuild || changes.n_positives > 0) {
		engine->training.news_passes = learner_get_progress(engine->learner).passes;
		engine->training.resting = 0;
	}
	for (size_t i = 0; i < changes.n_touched; i++)
		engine_fold_news(engine, changes.touched[i]);
	for (size_t i = 0; i < changes.n_positives; i++)
		engine_fold_positive(engine, changes.positives[i].user);
	if (changes.n_touched > 0 || changes.n_candidates > 0)
		engine->training.dirty = 1;
	state_changes_clear(engine->state);
	return 0;
}

static int apply_batch(struct engine *engine, const struct event_batch *batch)
{
	int rc = state_apply(engine->state, batch);

	if (rc < 0) {
		snprintf(engine->fatal_text, sizeof(engine->fatal_text), "applying %s: out of memory", batch->position.name);
		return rc;
	}
	/* A refused line that cannot be kept is counted in the position all the same; a full disk must not stop the stream. */
	if (batch->n_refused > 0 && dead_letter_append(engine->dead_letter, batch) < 0)
		engine->dead_letter_failures++;
	rc = take_position(engine, &batch->position);
	if (rc < 0)
		snprintf(engine->fatal_text, sizeof(engine->fatal_text), "positions: out of memory");
	engine->lines += batch->n_events + batch->n_refused;
	return rc;
}

/*
 * The gap between two apply slices, whether lines waited or not: what training, a publish or a checkpoint may cost the stream. Time spent in
 * queue_wait() is none.
 */
static void note_gap(struct engine *engine, int64_t now_us)
{
	const int64_t gap = now_us - engine->last_apply_us;

	if (engine->last_apply_us != 0) {
		gap_histogram_add(&engine->gaps, gap);
		if (engine->checkpoint.running)
			gap_histogram_add(&engine->gaps_checkpoint, gap);
	}
	if (now_us - engine->gap_window_us > 30 * 1000000LL) {
		engine->gaps_before = engine->gaps;
		memset(&engine->gaps, 0, sizeof(engine->gaps));
		engine->gap_window_us = now_us;
	}
}

int engine_cut_is_behind(const struct engine *engine)
{
	return state_cut_copied_bytes(engine->state) > engine->config.cut_copy_bytes_max;
}

int engine_apply(struct engine *engine, int64_t budget_us)
{
	const int64_t began_us = engine_mono_us();
	struct event_batch *batch;
	int applied = 0, rc = 0;

	if (engine_cut_is_behind(engine)) { /* the checkpoint has to catch up first; counts into the gap */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL); /* what waits in the queues would keep queue_wait() from waiting */
		return 0;
	}
	note_gap(engine, began_us);
	while (rc == 0 && (batch = queue_pop(engine->queues)) != NULL) {
		rc = apply_batch(engine, batch);
		if (rc == 0)
			engine_quality_look(engine, batch);
		queue_give_back(engine->queues, batch);
		applied++;
		if (rc == 0)
			rc = engine_take_changes(engine, 1);
		engine_train_keep(engine);
		if (engine_mono_us() - began_us >= budget_us)
			break;
	}
	if (rc == 0) {
		const int more = state_rederive(engine->state, 20000);

		rc = more < 0 ? more : engine_take_changes(engine, 1);
		applied += more > 0; /* the walk goes on at once */
	}
	engine->last_apply_us = engine_mono_us();
	if (rc < 0 && engine->fatal_text[0] == '\0')
		snprintf(engine->fatal_text, sizeof(engine->fatal_text), "taking new users and positives over: %s", strerror(-rc));
	return rc < 0 ? rc : applied;
}
