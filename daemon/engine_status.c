/*
 * engine_status.c: the picture that other threads see. Built by the engine thread a few times a second and copied under the mutex.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/engine_internal.h"

#define STATUS_INTERVAL_US 100000
#define RATE_INTERVAL_US 1000000

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
	h *= 0xff51afd7ed558ccdu;
	return h ^ (h >> 33);
}

/*
 * Digest of the positions: how far every partition was consumed and what was counted on the way. A sum over partitions, so that their order does not
 * matter. Where a file lies (device, inode, marker) is left out: it says how to find the position again, not what it is.
 */
static struct state_digest positions_digest(const struct source_position *positions, size_t n)
{
	struct state_digest digest = { 0 };

	for (size_t i = 0; i < n; i++) {
		const struct source_position *p = &positions[i];
		uint64_t h = 0x51ed270b;

		for (const char *s = p->name; *s != '\0'; s++)
			h = mix(h, (unsigned char)*s);
		h = mix(mix(mix(h, (uint64_t)p->offset), p->lines), p->empty);
		for (int r = 0; r < REFUSAL_COUNT; r++)
			h = mix(h, p->refused[r]);
		h = mix(mix(mix(h, p->unknown_types), p->gaps), p->gap_bytes);
		h = mix(mix(mix(h, p->holes), p->duplicates), p->resets);
		digest.lo += h;
		digest.hi += mix(h, 0xa0761d6478bd642fu);
	}
	return digest;
}

static void update_rates(struct engine *engine, int64_t now_us)
{
	struct engine_rates *r = &engine->rates;
	const uint64_t triples = learner_get_progress(engine->learner).triples;
	const double seconds = (double)(now_us - r->at_us) / 1e6;

	if (now_us - r->at_us < RATE_INTERVAL_US)
		return;
	if (r->at_us != 0) {
		r->triples_per_sec = (double)(triples - r->triples) / seconds;
		r->lines_per_sec = (double)(engine->lines - r->lines) / seconds;
	}
	r->at_us = now_us;
	r->triples = triples;
	r->lines = engine->lines;
}

static void fill_checkpoint(const struct engine *engine, struct engine_status *s, int64_t now_us)
{
	const struct engine_checkpoint *c = &engine->checkpoint;

	s->checkpoint_number = c->number;
	s->checkpoint_age_ms = c->durable_us == 0 ? -1 : (now_us - c->durable_us) / 1000;
	s->checkpoint_duration_ms = c->last.duration_us / 1000;
	s->checkpoint_bytes = c->last.bytes;
	s->checkpoint_failures = c->failures;
	snprintf(s->checkpoint_error, sizeof(s->checkpoint_error), "%s", c->last_error);
	s->checkpoint_running = c->running;
	s->checkpoint_users_done = __atomic_load_n(&c->progress.users_done, __ATOMIC_RELAXED);
}

static void fill_gaps(const struct engine *engine, struct engine_status *s)
{
	struct gap_histogram minute = engine->gaps;

	gap_histogram_merge(&minute, &engine->gaps_before);
	s->apply_gap_max_us = minute.max_us;
	s->apply_gap_p999_us = gap_histogram_percentile(&minute, 0.999);
	s->checkpoint_gap_p999_us = gap_histogram_percentile(&engine->gaps_checkpoint, 0.999);
}

static void fill(struct engine *engine, struct engine_status *s, const char *phase, int64_t now_us)
{
	struct generation *g = generation_acquire(engine->publisher);

	s->heartbeat = engine->heartbeat;
	if (phase != s->phase)
		snprintf(s->phase, sizeof(s->phase), "%s", phase);
	s->ready = strcmp(phase, "running") == 0;
	snprintf(s->backend, sizeof(s->backend), "%s", learner_backend_name(engine->learner));
	snprintf(s->backend_reason, sizeof(s->backend_reason), "%s", engine->backend_reason);
	s->n_users = state_n_users(engine->state);
	s->n_items = state_n_items(engine->state);
	s->n_positives = learner_n_positives(engine->learner);
	s->counters = state_counters(engine->state);
	s->histories_digest = state_digest(engine->state);
	s->positions_digest = positions_digest(engine->positions, engine->n_positions);
	s->time_max_us = state_time_max_us(engine->state);
	s->generation = g == NULL ? 0 : g->number;
	s->publish_age_ms = g == NULL ? -1 : (now_us - g->published_us) / 1000;
	generation_release(engine->publisher, g);
	s->progress = learner_get_progress(engine->learner);
	s->loss = engine->training.loss;
	s->triples_per_sec = engine->rates.triples_per_sec;
	s->apply_per_sec = engine->rates.lines_per_sec;
	s->training_resting = engine->training.resting;
	snprintf(s->training_trouble, sizeof(s->training_trouble), "%s", engine->training.trouble);
	s->folded_in = engine->fold.folded_in;
	s->fold_in_waiting = engine->fold.waiting.n + engine->fold.late.n;
	s->personal_rows = engine->fold.rows.n;
	s->refreshed = engine->fold.refreshed;
	fill_checkpoint(engine, s, now_us);
	fill_gaps(engine, s);
	s->dead_letter_length = dead_letter_length(engine->dead_letter);
	s->dead_letter_dropped = engine->dead_letter_base + dead_letter_dropped(engine->dead_letter);
	s->dead_letter_failures = engine->dead_letter_failures;
	s->memory_bytes = state_memory_bytes(engine->state);
	s->model_clock_us = engine_model_clock_us(engine);
	s->n_positions = engine->n_positions;
	for (size_t i = 0; i < engine->n_positions && i < ENGINE_POSITIONS_SHOWN; i++)
		s->positions[i] = engine->positions[i];
}

void engine_status_refresh(struct engine *engine, const char *phase)
{
	const int64_t now_us = engine_mono_us();

	update_rates(engine, now_us);
	pthread_mutex_lock(&engine->mutex);
	fill(engine, &engine->status, phase, now_us);
	engine->query.personalize_min_positives = engine->config.personalize_min_positives;
	engine->query.personal_max_age_us = (int64_t)engine->config.personal_max_age_sec * 1000000;
	pthread_mutex_unlock(&engine->mutex);
	engine->status_us = now_us;
}

void engine_status_tick(struct engine *engine)
{
	if (engine_mono_us() - engine->status_us >= STATUS_INTERVAL_US)
		engine_status_refresh(engine, "running");
}

void engine_get_status(struct engine *engine, struct engine_status *ret_status)
{
	pthread_mutex_lock(&engine->mutex);
	*ret_status = engine->status;
	pthread_mutex_unlock(&engine->mutex);
}
