/*
 * engine.c: the one writer's life and loop, and what other threads ask of it.
 *
 * The loop takes turns: apply what the queues hold, step the checkpoint or publish if due, fold touched users in, train for a slice. Every step has a budget,
 * and a turn that publishes does not train on this thread, so that applying is never further away than about 50 ms. Nothing else changes state, parameters or
 * positions.
 *
 * Owns state, learner, publisher, dead letter and positions. The queues and the data directory's descriptor belong to the caller.
 */
#include "daemon/engine.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "daemon/engine_internal.h"
#include "daemon/skips.h"

#define APPLY_BUDGET_US 20000
#define FOLD_BUDGET_US 6000
/* Above this rate a log is caught up with: users come again soon and are then fitted once for all of it; fitting takes an eighth of what applying takes. */
#define BULK_LINES_PER_SEC 200000
#define BULK_FOLD_SHARE 8
#define BULK_HOLD_US 20000 /* a log does not end with the first turn that finds no batch */
#define REFRESH_BUDGET_US 3000
#define WARM_BUDGET_US 3000
#define IDLE_WAIT_MS 100
#define DEVICE_WAIT_MS 1

int64_t engine_mono_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

struct timespec engine_deadline(int timeout_ms)
{
	const int64_t at_us = engine_mono_us() + (int64_t)timeout_ms * 1000;

	return (struct timespec){ .tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000) * 1000 };
}

int64_t engine_model_clock_us(const struct engine *engine)
{
	return engine->clock_base_us + engine_mono_us() - engine->clock_start_us;
}

static int open_learner(struct engine *engine, const struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size)
{
	const struct skip_source skips = { .list = skips_newest, .ctx = engine->state };
	int rc = engine_device_open(engine, errstr, errstr_size);

	if (rc == 0)
		rc = publisher_new(engine->config.learn.emb_dim, &engine->publisher);
	if (rc == 0)
		rc = quality_new(&engine->config.quality, engine->publisher, engine->config.state.row_bytes, &engine->quality);
	if (rc == 0)
		rc = engine_take_changes(engine, 0);
	if (rc == 0)
		learner_set_skips(engine->learner, &skips);
	if (rc == 0 && loaded->number != 0) {
		rc = learner_push(engine->learner, &loaded->tables);
		if (learner_fault(engine->learner, NULL, 0) < 0)
			rc = 0; /* seen to when the first generation is published */
		learner_set_progress(engine->learner, &loaded->progress);
		engine->training.news_passes = loaded->progress.passes;
		engine_rate_recover(engine);
	}
	if (rc == 0 && loaded->number != 0)
		rc = engine_fold_recover(engine, &loaded->tables);
	if (rc < 0 && errstr[0] == '\0')
		snprintf(errstr, errstr_size, "building the model: %s", strerror(-rc));
	return rc;
}

/* A device may fail now already: then the CPU does it. */
static int publish_first(struct engine *engine, const struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size)
{
	const struct tables *copy = loaded->number != 0 ? &loaded->tables : NULL;
	int rc = engine_device_start(engine, copy, errstr, errstr_size);

	for (int tries = 0; rc == 0 && tries < 2; tries++) {
		if (engine_publish(engine, 1) == 1)
			return 0;
		rc = engine_device_start(engine, copy, errstr, errstr_size);
	}
	if (errstr[0] == '\0')
		snprintf(errstr, errstr_size, "publishing the first generation: %s", engine->training.trouble[0] ? engine->training.trouble : "out of memory");
	return rc < 0 ? rc : -EIO;
}

static void take_loaded(struct engine *engine, struct checkpoint_loaded *loaded)
{
	engine->state = loaded->state;
	loaded->state = NULL;
	engine->positions = loaded->positions;
	engine->n_positions = engine->positions_capacity = loaded->n_positions;
	loaded->positions = NULL;
	engine->clock_base_us = loaded->model_clock_us;
	engine->dead_letter_base = loaded->dead_letter_dropped;
	engine->config.state.hash_seed = loaded->hash_seed;
	engine->fold.intercept = loaded->intercept;
	engine->training.next_number = loaded->generation_number; /* personal rows still refer to it */
	engine->checkpoint.number = loaded->number;
	memcpy(engine->checkpoint.bad, loaded->bad, sizeof(loaded->bad));
	engine->checkpoint.n_bad = loaded->n_bad;
}

static int new_state(struct engine *engine, char *errstr, size_t errstr_size)
{
	if (getrandom(&engine->config.state.hash_seed, sizeof(engine->config.state.hash_seed), 0) < 0)
		engine->config.state.hash_seed = (uint64_t)engine_mono_us();
	return state_new(&engine->config.state, &engine->config.rules, &engine->state, errstr, errstr_size);
}

int engine_open_dead_letter(struct engine *engine, int64_t length, char *errstr, size_t errstr_size)
{
	struct dead_letter *fresh;
	char path[4200];
	int rc;

	snprintf(path, sizeof(path), "%s/dead-letter.jsonl", engine->config.data_dir);
	rc = dead_letter_open(path, length, engine->config.dead_letter_bytes_max, &fresh, errstr, errstr_size);
	if (rc < 0)
		return rc;
	if (engine->dead_letter != NULL)
		engine->dead_letter_base += dead_letter_dropped(engine->dead_letter);
	dead_letter_close(engine->dead_letter);
	engine->dead_letter = fresh;
	return 0;
}

int engine_open(const struct config *config, int data_dir_fd, struct queue_set *queues, void (*beat)(void *ctx, const char *what), void *ctx,
                struct engine **ret_engine, char *errstr, size_t errstr_size)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	struct checkpoint_loaded loaded = { 0 };
	pthread_condattr_t attr;
	int rc;

	if (engine == NULL)
		return -ENOMEM;
	errstr[0] = '\0';
	engine->config = *config;
	engine->config.state.row_bytes = personal_row_bytes(config->learn.emb_dim);
	engine->data_dir_fd = data_dir_fd;
	engine->queues = queues;
	engine->clock_start_us = engine->checkpoint.started_us = engine->gap_window_us = engine_mono_us();
	engine->training.loss = NAN;
	engine->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&engine->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&engine->mutex, NULL);
	rc = engine->end_fd < 0 ? -errno : engine_fold_open(engine);
	if (rc == 0) {
		rc = checkpoint_load(data_dir_fd, &engine->config.state, config->learn.emb_dim, &config->rules, beat, ctx, &loaded, errstr, errstr_size);
		if (rc == 0) {
			take_loaded(engine, &loaded);
		} else if (rc == -ENOENT) {
			errstr[0] = '\0'; /* a first start: nothing is wrong */
			rc = new_state(engine, errstr, errstr_size);
		}
	}
	if (rc == 0)
		rc = checkpoint_tidy(data_dir_fd, errstr, errstr_size);
	if (rc == 0)
		rc = engine_open_dead_letter(engine, loaded.number != 0 ? loaded.dead_letter_length : 0, errstr, errstr_size);
	if (rc == 0)
		rc = open_learner(engine, &loaded, errstr, errstr_size);
	if (rc == 0)
		rc = publish_first(engine, &loaded, errstr, errstr_size);
	if (rc == 0)
		publisher_warm(engine->publisher, state_n_users(engine->state), state_n_items(engine->state), 0);
	if (rc == 0) {
		snprintf(engine->skipped, sizeof(engine->skipped), "%s", loaded.skipped);
		engine_status_refresh(engine, "loading");
	}
	checkpoint_loaded_free(&loaded);
	if (rc < 0) {
		engine_close(engine);
		return rc;
	}
	*ret_engine = engine;
	return 0;
}

void engine_on_durable(struct engine *engine, void (*durable)(void *ctx, const struct source_position *positions, size_t n_positions), void *ctx)
{
	engine->durable = durable;
	engine->durable_ctx = ctx;
}

const char *engine_skipped_checkpoints(const struct engine *engine)
{
	return engine->skipped;
}

const struct source_position *engine_positions(const struct engine *engine, size_t *ret_n)
{
	*ret_n = engine->n_positions;
	return engine->positions;
}

/* Reloaded settings and forget requests. */
static int take_requests(struct engine *engine)
{
	struct state_rules rules = engine->config.rules;
	const float completion_before = rules.min_pos_completion;
	const uint32_t positives_before = engine->config.personalize_min_positives;
	int reloaded, rc = 0;

	pthread_mutex_lock(&engine->mutex);
	reloaded = engine->has_fresh;
	if (reloaded) {
		const struct state_config fixed = engine->config.state; /* with the hash seed, which no file knows */

		engine->config = engine->fresh;
		engine->config.state = fixed;
		engine->has_fresh = 0;
		rules = engine->config.rules;
	}
	if (engine->forget_done < engine->forget_ticket) {
		engine->forget_rc = state_forget(engine->state, engine->forget_user, engine->forget_lift);
		rc = engine->forget_rc == -ENOSPC ? 0 : engine->forget_rc; /* no room for another id is the asker's trouble alone */
		engine->snapshot_wanted++; /* no log repeats this: a checkpoint is to hold it soon */
		engine->forget_done = engine->forget_ticket;
		pthread_cond_broadcast(&engine->changed);
	}
	pthread_mutex_unlock(&engine->mutex);
	if (rc == 0 && reloaded) {
		rc = state_set_rules(engine->state, &rules);
		learner_set_options(engine->learner, &engine->config.learn);
		quality_set_options(engine->quality, &engine->config.quality);
	}
	if (rc == 0)
		rc = engine_take_changes(engine, 0);
	if (rc < 0)
		snprintf(engine->fatal_text, sizeof(engine->fatal_text), "taking a request over: %s", strerror(-rc));
	else if (rules.min_pos_completion != completion_before || engine->config.personalize_min_positives != positives_before)
		engine_fold_settings_changed(engine);
	return rc;
}

/* How long this turn, which applied `lines` in apply_us, may fold in; 0: not at all. */
static int64_t fold_budget_us(struct engine *engine, uint64_t lines, int64_t apply_us)
{
	const int64_t now_us = engine_mono_us();

	if (lines * 1000000 > (uint64_t)(BULK_LINES_PER_SEC * (now_us - engine->turn_us)))
		engine->bulk_until_us = now_us + BULK_HOLD_US;
	engine->turn_us = now_us;
	return now_us < engine->bulk_until_us ? apply_us / BULK_FOLD_SHARE : FOLD_BUDGET_US;
}

/* One turn. Returns 1 when there was anything to do, 0 when not, -errno when the engine cannot go on. */
static int turn(struct engine *engine)
{
	int rc = take_requests(engine), busy, heavy, folded, refreshed = 0;
	uint64_t trained = 0;
	int64_t began_us;

	if (rc < 0)
		return rc;
	const uint64_t lines_before = engine->lines;

	began_us = engine_mono_us();
	rc = engine_apply(engine, APPLY_BUDGET_US);
	if (rc < 0)
		return rc;
	busy = rc > 0;
	const int64_t apply_us = engine_mono_us() - began_us;
	const int saturated = apply_us >= APPLY_BUDGET_US;
	const int64_t fold_us = fold_budget_us(engine, engine->lines - lines_before, apply_us);

	rc = engine_device_step(engine);
	if (rc < 0)
		return rc;

	/* A publish of large tables takes about as long as a slice and the fold-in together: a turn has one or the other. */
	began_us = engine_mono_us();
	heavy = engine_checkpoint_step(engine) || engine_publish(engine, 0);
	folded = heavy && engine_mono_us() - began_us >= ENGINE_LARGE_PUBLISH_US ? 0 : engine_fold_in(engine, fold_us);
	if (!heavy && began_us >= engine->bulk_until_us) /* while a log is caught up with, room made ahead would soon be too small */
		publisher_warm(engine->publisher, state_n_users(engine->state), state_n_items(engine->state), WARM_BUDGET_US);
	if (!heavy || learner_on_device(engine->learner)) /* to begin a job on a device takes no time of this thread */
		trained = engine_train_slice(engine);
	if (!heavy && !saturated && !engine->checkpoint.running) /* a stream that brings a little in every turn leaves time to spare all the same */
		refreshed = engine_refresh(engine, REFRESH_BUDGET_US);
	engine->heartbeat++;
	engine_status_tick(engine);
	return busy || heavy || folded > 0 || trained > 0 || (engine->training.in_flight && refreshed > 0);
}

/* How long a turn that found nothing to do may wait for lines. A device's job is looked after every millisecond, so that the next one follows it closely. */
static int idle_wait_ms(const struct engine *engine)
{
	if (engine->training.in_flight || engine->training.draining || learner_fault(engine->learner, NULL, 0) < 0)
		return DEVICE_WAIT_MS;
	return engine_mono_us() < engine->bulk_until_us ? BULK_HOLD_US / 1000 : IDLE_WAIT_MS;
}

static void end(struct engine *engine, int rc)
{
	const uint64_t one = 1;

	engine->fatal = rc;
	engine_status_refresh(engine, "stopping");
	pthread_mutex_lock(&engine->mutex);
	atomic_store(&engine->ended, 1);
	pthread_cond_broadcast(&engine->changed);
	pthread_mutex_unlock(&engine->mutex);
	if (write(engine->end_fd, &one, sizeof(one)) < 0)
		engine->fatal = rc; /* the counter is full: the descriptor is readable anyway */
}

static void *engine_thread(void *arg)
{
	struct engine *engine = arg;
	int rc = 0;

	engine_status_refresh(engine, "running");
	while (atomic_load(&engine->stop) == 0 && rc >= 0) {
		rc = turn(engine);
		if (rc == 0) {
			queue_wait(engine->queues, idle_wait_ms(engine));
			if (!engine_cut_is_behind(engine))
				engine->last_apply_us = 0; /* waiting for work is no gap */
		}
	}
	quality_stop(engine->quality); /* no generation is held any more: the last one can be published */
	if (rc >= 0)
		engine_checkpoint_last(engine);
	engine_device_quiesce(engine);
	end(engine, rc < 0 ? rc : 0);
	return NULL;
}

int engine_start(struct engine *engine, char *errstr, size_t errstr_size)
{
	int rc = quality_start(engine->quality);

	if (rc == 0)
		rc = -pthread_create(&engine->thread, NULL, engine_thread, engine);

	if (rc < 0)
		snprintf(errstr, errstr_size, "starting the engine's thread: %s", strerror(-rc));
	else
		engine->started = 1;
	return rc;
}

void engine_request_stop(struct engine *engine, int skip_checkpoint)
{
	atomic_store(&engine->stop, skip_checkpoint ? 2 : 1);
	queue_wake(engine->queues);
}

int engine_ended(const struct engine *engine, int *ret_error, char *errstr, size_t errstr_size)
{
	if (!atomic_load(&engine->ended))
		return 0;
	*ret_error = engine->fatal;
	snprintf(errstr, errstr_size, "%s", engine->fatal_text);
	return 1;
}

int engine_end_fd(const struct engine *engine)
{
	return engine->end_fd;
}

void engine_close(struct engine *engine)
{
	if (engine == NULL)
		return;
	if (engine->started)
		pthread_join(engine->thread, NULL);
	engine_checkpoint_close(engine);
	quality_free(engine->quality);
	publisher_free(engine->publisher);
	learner_free(engine->learner);
	state_free(engine->state);
	dead_letter_close(engine->dead_letter);
	engine_fold_close(engine);
	engine_refresh_close(engine);
	free(engine->positions);
	free(engine->told);
	if (engine->end_fd >= 0)
		close(engine->end_fd);
	pthread_cond_destroy(&engine->changed);
	pthread_mutex_destroy(&engine->mutex);
	free(engine);
}

const struct state *engine_state(const struct engine *engine)
{
	return engine->state;
}

struct publisher *engine_publisher(const struct engine *engine)
{
	return engine->publisher;
}

void engine_query_options(const struct engine *engine, struct query_options *ret_options)
{
	struct engine *locked = (struct engine *)(uintptr_t)engine;

	pthread_mutex_lock(&locked->mutex);
	*ret_options = engine->query;
	pthread_mutex_unlock(&locked->mutex);
	ret_options->k = 10;
	ret_options->model_clock_us = engine_model_clock_us(engine);
}

void engine_reconfigure(struct engine *engine, const struct config *config)
{
	pthread_mutex_lock(&engine->mutex);
	engine->fresh = *config;
	engine->has_fresh = 1;
	pthread_mutex_unlock(&engine->mutex);
	queue_wake(engine->queues);
}

int engine_forget(struct engine *engine, int64_t user_id, int lift, int timeout_ms)
{
	const struct timespec deadline = engine_deadline(timeout_ms);
	uint64_t ticket;
	int rc = 0;

	pthread_mutex_lock(&engine->mutex);
	while (rc == 0 && engine->forget_done < engine->forget_ticket && !atomic_load(&engine->ended)) /* another request is on its way */
		rc = -pthread_cond_timedwait(&engine->changed, &engine->mutex, &deadline);
	if (rc == 0 && atomic_load(&engine->ended))
		rc = -ECANCELED;
	if (rc == 0) {
		engine->forget_user = user_id;
		engine->forget_lift = lift;
		ticket = ++engine->forget_ticket;
		queue_wake(engine->queues);
		while (rc == 0 && engine->forget_done < ticket && !atomic_load(&engine->ended))
			rc = -pthread_cond_timedwait(&engine->changed, &engine->mutex, &deadline);
		if (rc == 0)
			rc = engine->forget_done < ticket ? -ECANCELED : engine->forget_rc;
	}
	pthread_mutex_unlock(&engine->mutex);
	return rc;
}
