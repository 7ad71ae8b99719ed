/*
 * engine_status.c: the picture that other threads see. Built by the engine thread a few times a second and copied under the mutex.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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
 * matter. In it is what the log alone decides, whenever and however often recd was stopped on the way: offset, lines, empty lines (tombstones), refusals,
 * unknown types, gaps, holes, resets. Left out is:
 * - where a file lies and what lay before the position (device, inode, marker, mark time): it says how to find the position again, not what it is;
 * - duplicates: records that Kafka's client delivered again and recd dropped. Their number depends on when a broker went away.
 * Holes count offsets that hold no record (transaction markers, compaction), and they are counted when a later record shows them: those behind the last
 * record of a partition are in no run's count, so that two runs that have read to the end agree. Two things make two honest runs differ all the same: a
 * topic compacted between them (one counts lines where the other counts holes), and data lost before one of them read it (gaps).
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
		h = mix(mix(h, p->holes), p->resets);
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

static void add_counters(struct source_position *sum, const struct source_position *p)
{
	sum->lines += p->lines;
	sum->empty += p->empty;
	for (int r = 0; r < REFUSAL_COUNT; r++)
		sum->refused[r] += p->refused[r];
	sum->unknown_types += p->unknown_types;
	sum->gaps += p->gaps;
	sum->gap_bytes += p->gap_bytes;
	sum->holes += p->holes;
	sum->duplicates += p->duplicates;
	sum->resets += p->resets;
	if (p->last_time_us > sum->last_time_us)
		sum->last_time_us = p->last_time_us;
}

/* The first positions one by one, the others summed; and a copy of all for engine_copy_positions(). Under the mutex. */
static void fill_positions(struct engine *engine, struct engine_status *s)
{
	s->n_positions = engine->n_positions;
	s->positions_rest = (struct source_position){ .last_time_us = INT64_MIN };
	for (size_t i = 0; i < engine->n_positions; i++) {
		if (i < ENGINE_POSITIONS_SHOWN)
			s->positions[i] = engine->positions[i];
		else
			add_counters(&s->positions_rest, &engine->positions[i]);
	}
	if (engine->told_capacity < engine->n_positions) {
		const size_t capacity = engine->n_positions + 16;
		struct source_position *grown = realloc(engine->told, capacity * sizeof(*grown));

		if (grown == NULL)
			return; /* the older copy stays */
		engine->told = grown;
		engine->told_capacity = capacity;
	}
	if (engine->n_positions > 0)
		memcpy(engine->told, engine->positions, engine->n_positions * sizeof(*engine->told));
	engine->n_told = engine->n_positions;
}

static void fill(struct engine *engine, struct engine_status *s, const char *phase, int64_t now_us)
{
	struct generation *g = generation_acquire(engine->publisher);

	s->heartbeat = engine->heartbeat;
	if (phase != s->phase)
		snprintf(s->phase, sizeof(s->phase), "%s", phase);
	s->ready = strcmp(phase, "running") == 0;
	engine_device_status(engine, s);
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
	s->learning_rate = (double)engine_rate(engine);
	s->triples_per_sec = engine->rates.triples_per_sec;
	s->training_threads = engine->training.threads;
	s->apply_per_sec = engine->rates.lines_per_sec;
	s->training_resting = engine->training.resting;
	snprintf(s->training_trouble, sizeof(s->training_trouble), "%s", engine->training.trouble);
	s->folded_in = engine->fold.folded_in;
	s->fold_in_waiting = engine->fold.waiting.n + engine->fold.news.n + engine->fold.late.n;
	s->personal_rows = engine->fold.rows.n;
	s->refreshed = engine->fold.refreshed;
	fill_checkpoint(engine, s, now_us);
	fill_gaps(engine, s);
	s->dead_letter_length = dead_letter_length(engine->dead_letter);
	s->dead_letter_dropped = engine->dead_letter_base + dead_letter_dropped(engine->dead_letter);
	s->dead_letter_failures = engine->dead_letter_failures;
	s->memory_bytes = state_memory_bytes(engine->state);
	s->model_clock_us = engine_model_clock_us(engine);
	quality_get_status(engine->quality, &s->quality);
	fill_positions(engine, s);
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

int engine_copy_positions(struct engine *engine, struct source_position **ret_positions, size_t *ret_n)
{
	struct source_position *copy;
	int rc = -ENOMEM;

	pthread_mutex_lock(&engine->mutex);
	copy = malloc((engine->n_told + 1) * sizeof(*copy));
	if (copy != NULL) {
		if (engine->n_told > 0)
			memcpy(copy, engine->told, engine->n_told * sizeof(*copy));
		*ret_positions = copy;
		*ret_n = engine->n_told;
		rc = 0;
	}
	pthread_mutex_unlock(&engine->mutex);
	return rc;
}
