/*
 * state_testing.h: batches made by hand, small states and random numbers for the tests of trainer/state.
 */
#ifndef TESTS_UNIT_STATE_STATE_TESTING_H
#define TESTS_UNIT_STATE_STATE_TESTING_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/state/state.h"

#define SEC INT64_C(1000000)

static inline struct state *new_state_with(uint32_t users_max, uint32_t items_max, uint32_t impressions_max, uint32_t row_bytes, uint64_t seed)
{
	struct state_config config = {.hash_seed = seed,
	                              .users_max = users_max,
	                              .items_max = items_max,
	                              .impressions_max = impressions_max,
	                              .row_bytes = row_bytes};
	struct state_rules rules = {.min_pos_completion = 0.6f, .negative_after_us = 1800 * SEC};
	struct state *state = NULL;
	char errstr[256] = "";

	assert_int_equal(state_new(&config, &rules, &state, errstr, sizeof(errstr)), 0);
	assert_non_null(state);
	return state;
}

static inline struct state *new_state(void)
{
	return new_state_with(1000, 1000, 8, 16, 7);
}

static inline struct event watch_event(int64_t user, int64_t item, int64_t time_us, float completion, float seconds)
{
	struct event event = {.user_id = user, .item_id = item, .time_us = time_us, .stream = STREAM_WATCHES};

	if (completion >= 0.0f) {
		event.flags |= EVENT_HAS_COMPLETION;
		event.completion = completion;
	}
	if (seconds >= 0.0f) {
		event.flags |= EVENT_HAS_WATCH_TIME;
		event.watch_time_sec = seconds;
	}
	return event;
}

static inline struct event touch_event(int64_t user, int64_t item, int64_t time_us, enum event_type type)
{
	return (struct event){.user_id = user, .item_id = item, .time_us = time_us, .stream = STREAM_EVENTS, .type = (uint8_t)type};
}

static inline struct event rate_event(int64_t user, int64_t item, int64_t time_us, double value)
{
	struct event event = touch_event(user, item, time_us, EVENT_RATE);

	event.flags = EVENT_HAS_VALUE;
	event.value = value;
	return event;
}

static inline struct event shown_event(int64_t user, int64_t item, int64_t time_us, int32_t position)
{
	return (struct event){.user_id = user, .item_id = item, .time_us = time_us, .stream = STREAM_IMPRESSIONS, .position = position};
}

/* Appends an event; `name` and `doc` may be NULL. */
static inline void batch_add(struct event_batch *batch, struct event event, const char *name, const char *doc)
{
	assert_true(batch->n_events < EVENT_BATCH_EVENTS);
	if (name)
		assert_int_equal(event_batch_add_text(batch, name, strlen(name), &event.name), 0);
	if (doc)
		assert_int_equal(event_batch_add_text(batch, doc, strlen(doc), &event.doc), 0);
	batch->stream = event.stream;
	batch->events[batch->n_events++] = event;
}

/* Applies one event as a batch of its own. */
static inline void apply_text(struct state *state, struct event event, const char *name, const char *doc)
{
	static struct event_batch *batch; /* kept for all of a program's tests */

	if (!batch)
		batch = event_batch_new();
	assert_non_null(batch);
	event_batch_clear(batch);
	batch_add(batch, event, name, doc);
	assert_int_equal(state_apply(state, batch), 0);
}

static inline void apply_named(struct state *state, struct event event, const char *name)
{
	apply_text(state, event, name, NULL);
}

static inline void apply_one(struct state *state, struct event event)
{
	apply_named(state, event, NULL);
}

/* A catalogue line; duration_sec < 0: it names none. */
static inline void apply_catalogue_line(struct state *state, int64_t item, double duration_sec, const char *doc)
{
	struct event event = {.item_id = item, .stream = STREAM_CATALOGUE};

	if (duration_sec >= 0) {
		event.flags = EVENT_HAS_DURATION;
		event.value = duration_sec;
	}
	apply_text(state, event, NULL, doc);
}

static inline struct user_facts facts_of(const struct state *state, int64_t user_id)
{
	struct user_facts facts;
	uint32_t user = state_find_user(state, user_id);

	assert_int_not_equal(user, STATE_NONE);
	state_user_facts(state, user, &facts);
	return facts;
}

static inline void assert_same_digest(struct state_digest a, struct state_digest b)
{
	if (a.lo != b.lo || a.hi != b.hi)
		fail_msg("digests differ: %016llx%016llx and %016llx%016llx", (unsigned long long)a.hi, (unsigned long long)a.lo,
		         (unsigned long long)b.hi, (unsigned long long)b.lo);
}

static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545F4914F6CDD1Du;
}

static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(((random_next(state) >> 32) * n) >> 32);
}

#endif
