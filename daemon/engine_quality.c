/*
 * engine_quality.c: what live quality (quality.h) gets from the engine. Engine thread.
 *
 * A batch has just been applied: the histories hold its positives, the training set and the personal rows do not. The sampled ones are copied out with what
 * would have been served at this moment. While the stream is behind nothing is offered: the time is better spent on catching up, and a model of last week says
 * little about today.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/engine_internal.h"

#define BULK_BATCH_LINES 512u /* smaller batches come one by one even where turns are short */

/* Sources wait, or are reading faster than anything happens: a full batch, half a queue, the bulk of a log. */
static int is_behind(const struct engine *engine, const struct event_batch *batch)
{
	const uint32_t lines = (uint32_t)(batch->n_events + batch->n_refused);

	if (lines >= EVENT_BATCH_EVENTS || (lines >= BULK_BATCH_LINES && engine_mono_us() < engine->bulk_until_us))
		return 1;
	for (int stream = 0; stream < STREAM_COUNT; stream++)
		if (queue_waiting(engine->queues, (enum event_stream)stream) * 2 > engine->config.queue_batches)
			return 1;
	return 0;
}

/* Positives that the user had before this batch. */
static size_t positives_before(const struct engine *engine, const struct state_changes *changes, const struct user_facts *facts)
{
	size_t n = state_positives(engine->state, facts, NULL, 0);

	for (size_t i = 0; i < changes->n_positives; i++)
		n -= n > 0 && changes->positives[i].user == facts->user;
	return n;
}

/* Everything the user has watched is out of the list, as when it is served; 0 when there is no memory for it. */
static int mask(struct engine *engine, const struct user_facts *facts, struct quality_case *c)
{
	struct engine_fold *fold = &engine->fold;

	if (facts->n_watches > fold->capacity) {
		uint32_t *grown = realloc(fold->items, facts->n_watches * sizeof(*grown));

		if (grown == NULL)
			return 0;
		fold->items = grown;
		fold->capacity = facts->n_watches;
	}
	for (uint32_t i = 0; i < facts->n_watches; i++)
		fold->items[i] = facts->watches[i].item;
	c->masked = fold->items;
	c->n_masked = facts->n_watches;
	return 1;
}

static void offer(struct engine *engine, const struct state_changes *changes, const struct user_item *pair)
{
	struct quality_case c = { .user = pair->user, .item = pair->item };
	struct user_facts facts;

	state_user_facts(engine->state, pair->user, &facts);
	c.n_positives = positives_before(engine, changes, &facts);
	c.personal = facts.row;
	c.options = (struct query_options){ .personalize_min_positives = engine->config.personalize_min_positives,
		                            .personal_max_age_us = (int64_t)engine->config.personal_max_age_sec * 1000000,
		                            .model_clock_us = engine_model_clock_us(engine) };
	if (mask(engine, &facts, &c))
		quality_offer(engine->quality, &c);
	else
		quality_leave_out(engine->quality, QUALITY_QUEUE_FULL);
}

void engine_quality_look(struct engine *engine, const struct event_batch *batch)
{
	const struct quality_options *options = &engine->config.quality;
	const int64_t *user_ids = state_user_ids(engine->state), *item_ids = state_item_ids(engine->state);
	struct state_changes changes;
	int behind = -1;

	if (!options->enabled || options->share <= 0.0f)
		return;
	state_changes_get(engine->state, &changes);
	if (changes.rebuild)
		return; /* all positives are derived anew: which of them are new is not known */
	for (size_t i = 0; i < changes.n_positives; i++) {
		const struct user_item *pair = &changes.positives[i];

		if (!quality_is_sampled(user_ids[pair->user], item_ids[pair->item], engine->config.learn.seed, options->share))
			continue;
		if (behind < 0)
			behind = is_behind(engine, batch);
		if (behind)
			quality_leave_out(engine->quality, QUALITY_LAG);
		else
			offer(engine, &changes, pair);
	}
}

void engine_quality_publish(struct engine *engine, struct generation *g)
{
	const uint32_t n = g->tables.n_items;

	g->n_popularity = 0; /* noted even where nothing is ranked now: a reload may ask for it */
	if (n > g->cap_popularity) {
		uint32_t *fresh = malloc(((size_t)n + n / 2) * sizeof(*fresh));

		if (fresh == NULL)
			return; /* the next publish tries again; until then no item is known to live quality */
		free(g->popularity);
		g->popularity = fresh;
		g->cap_popularity = n + n / 2;
	}
	for (uint32_t item = 0; item < n; item++)
		g->popularity[item] = state_item_popularity(engine->state, item);
	g->n_popularity = n;
}
