/*
 * query_testing.h: a small world for the tests of queries: a state filled by hand and a generation with rows set by hand. One thread.
 */
#ifndef TESTS_UNIT_MODEL_QUERY_TESTING_H
#define TESTS_UNIT_MODEL_QUERY_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/query.h"

#define WORLD_DIM 2
#define WORLD_ROWS 64

struct world {
	struct state *state;
	struct event_batch *batch;
	struct generation generation;
	float U[WORLD_ROWS * WORLD_DIM], V[WORLD_ROWS * WORLD_DIM], bu[WORLD_ROWS], bi[WORLD_ROWS], mean[WORLD_DIM];
	struct query_options options;
	struct query_scratch scratch;
};

static inline void world_open(struct world *w)
{
	const struct state_config config = { .hash_seed = 7, .users_max = 1000, .items_max = 1000, .impressions_max = 8,
		                             .row_bytes = personal_row_bytes(WORLD_DIM) };
	const struct state_rules rules = { 0.6f, 1800000000 };
	char errstr[256];

	memset(w, 0, sizeof(*w));
	assert_int_equal(state_new(&config, &rules, &w->state, errstr, sizeof(errstr)), 0);
	w->batch = event_batch_new();
	assert_non_null(w->batch);
	w->generation.tables = (struct tables){ .dim = WORLD_DIM, .cap_users = WORLD_ROWS, .cap_items = WORLD_ROWS, .U = w->U, .V = w->V, .bu = w->bu, .bi = w->bi };
	w->generation.mean_user = w->mean;
	w->generation.number = 5;
	w->options = (struct query_options){ .k = 10, .personalize_min_positives = 3 };
}

static inline void world_close(struct world *w)
{
	query_scratch_free(&w->scratch);
	event_batch_free(w->batch);
	state_free(w->state);
}

static inline void world_apply(struct world *w, const struct event *event, const char *doc)
{
	struct event *added;

	event_batch_clear(w->batch);
	w->batch->stream = event->stream;
	added = &w->batch->events[w->batch->n_events++];
	*added = *event;
	if (doc)
		assert_int_equal(event_batch_add_text(w->batch, doc, strlen(doc), &added->doc), 0);
	assert_int_equal(state_apply(w->state, w->batch), 0);
}

static inline void world_watch(struct world *w, int64_t user_id, int64_t item_id, float completion)
{
	const struct event event = { .user_id = user_id, .item_id = item_id, .time_us = 1700000000000000, .stream = STREAM_WATCHES,
		                     .flags = EVENT_HAS_COMPLETION, .completion = completion };

	world_apply(w, &event, NULL);
}

/* A catalogue line, as it stands in the log. */
static inline void world_item(struct world *w, int64_t item_id, const char *doc)
{
	const struct event event = { .item_id = item_id, .stream = STREAM_CATALOGUE };

	world_apply(w, &event, doc);
}

/* Items with the ids 100, 101, ... get the indexes 0, 1, ...; titles "T0" ... */
static inline void world_items(struct world *w, int n)
{
	for (int i = 0; i < n; i++) {
		char doc[128];

		snprintf(doc, sizeof(doc), "{\"item_id\":%d,\"title\":\"T%d\"}", 100 + i, i);
		world_item(w, 100 + i, doc);
		assert_int_equal(state_find_item(w->state, 100 + i), i);
	}
}

static inline void world_facts(struct world *w, int64_t user_id, struct user_facts *facts)
{
	uint32_t user = state_find_user(w->state, user_id);

	assert_int_not_equal(user, STATE_NONE);
	state_user_facts(w->state, user, facts);
}

#endif
