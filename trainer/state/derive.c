/*
 * derive.c: what follows from facts and settings when somebody asks: completion from a duration, positives, skips. Nothing here is stored, so a
 * changed setting or a duration that came late is right at once.
 *
 * Any thread, on facts in place (engine) or copied out. No allocation: the sampler asks for skips from inside training.
 */
#include <string.h>

#include "trainer/state/internal.h"

float completion_with(const struct watch_fact *watch, float duration_sec)
{
	float share;

	if (watch->completion >= 0.0f)
		return watch->completion;
	if (watch->watch_time_sec < 0.0f || duration_sec <= 0.0f)
		return -1.0f;
	share = watch->watch_time_sec / duration_sec;
	return share < 1.0f ? share : 1.0f;
}

float state_completion(const struct state *state, const struct watch_fact *watch)
{
	if (watch->completion >= 0.0f)
		return watch->completion;
	return completion_with(watch, atomic_load_explicit(&state->items[watch->item].duration, memory_order_relaxed));
}

int state_is_positive(const struct state *state, const struct watch_fact *watch)
{
	float completion = state_completion(state, watch);
	return completion >= 0.0f && completion >= atomic_load_explicit(&state->min_pos_completion, memory_order_relaxed);
}

size_t state_positives(const struct state *state, const struct user_facts *facts, uint32_t *ret_items, size_t max)
{
	size_t n = 0;

	for (uint32_t i = 0; i < facts->n_watches; i++) {
		if (!state_is_positive(state, &facts->watches[i]))
			continue;
		if (n < max)
			ret_items[n] = facts->watches[i].item;
		n++;
	}
	return n;
}

void state_for_each_positive(const struct state *state, void (*emit)(void *ctx, uint32_t user, const struct watch_fact *watch),
                             void *ctx)
{
	uint32_t n_users = state_n_users(state);

	for (uint32_t user = 0; user < n_users; user++) {
		const struct user_record *record = &state->users[user];
		if (user + 4 < n_users && state->users[user + 4].list[LIST_WATCHES])
			__builtin_prefetch(state->users[user + 4].list[LIST_WATCHES]);
		for (uint32_t i = 0; i < record->count[LIST_WATCHES]; i++)
			if (state_is_positive(state, &user_watches(record)[i]))
				emit(ctx, user, &user_watches(record)[i]);
	}
}

/* The items of a user's impressions, found by hash. */
struct shown_item {
	int64_t shown_us;   /* latest impression that is old enough; STATE_TIME_NONE: none */
	int64_t reacted_us; /* latest click, play, like or watch */
	uint32_t item;
	int positive;
};

struct shown_table {
	struct shown_item items[IMPRESSIONS_MAX];
	uint16_t slots[IMPRESSIONS_MAX * 2]; /* number in items + 1; 0: empty */
	uint32_t n;
	uint32_t shift; /* 32 - log2 of the slots used */
};

/* The item's entry; NULL when it is not there and add is 0. */
static struct shown_item *shown_find(struct shown_table *table, uint32_t item, int add)
{
	uint32_t mask = (1u << (32 - table->shift)) - 1;

	for (uint32_t slot = (item * 0x9e3779b1u) >> table->shift;; slot = (slot + 1) & mask) {
		uint32_t at = table->slots[slot];
		if (at != 0 && table->items[at - 1].item == item)
			return &table->items[at - 1];
		if (at != 0)
			continue;
		if (!add)
			return NULL;
		table->slots[slot] = (uint16_t)(table->n + 1);
		table->items[table->n] = (struct shown_item){.shown_us = STATE_TIME_NONE, .reacted_us = STATE_TIME_NONE, .item = item};
		return &table->items[table->n++];
	}
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static void shown_fill(const struct state *state, const struct user_facts *facts, int64_t old_enough_us, struct shown_table *table)
{
	uint32_t n = facts->n_impressions < IMPRESSIONS_MAX ? facts->n_impressions : IMPRESSIONS_MAX;

	table->n = 0;
	table->shift = 32 - 4;
	while ((1u << (32 - table->shift)) < 2 * n)
		table->shift--;
	memset(table->slots, 0, ((size_t)1 << (32 - table->shift)) * sizeof(table->slots[0]));
	for (uint32_t i = 0; i < n; i++) {
		struct shown_item *shown = shown_find(table, facts->impressions[i].item, 1);
		if (facts->impressions[i].shown_us <= old_enough_us)
			shown->shown_us = later(shown->shown_us, facts->impressions[i].shown_us);
	}
	for (uint32_t i = 0; i < facts->n_watches; i++) {
		const struct watch_fact *watch = &facts->watches[i];
		struct shown_item *shown = shown_find(table, watch->item, 0);
		if (!shown)
			continue;
		shown->reacted_us = later(shown->reacted_us, watch->last_us);
		shown->positive = state_is_positive(state, watch);
	}
	for (uint32_t i = 0; i < facts->n_touches; i++) {
		const struct touch_fact *touch = &facts->touches[i];
		struct shown_item *shown = shown_find(table, touch->item, 0);
		if (!shown)
			continue;
		shown->reacted_us = later(shown->reacted_us, later(touch->click_us, touch->play_us));
		if (touch->opinion > 0)
			shown->reacted_us = later(shown->reacted_us, touch->opinion_us);
	}
}

size_t state_decided(const struct state *state, const struct user_facts *facts, struct decided_impression *ret_decided, size_t max)
{
	struct shown_table table;
	int64_t time_max_us = state_time_max_us(state);
	int64_t old_enough_us;
	size_t n = 0;

	if (facts->n_impressions == 0 ||
	    __builtin_sub_overflow(time_max_us, atomic_load_explicit(&state->negative_after_us, memory_order_relaxed), &old_enough_us))
		return 0;
	shown_fill(state, facts, old_enough_us, &table);
	for (uint32_t i = 0; i < table.n; i++) {
		const struct shown_item *shown = &table.items[i];
		int skip = shown->shown_us != STATE_TIME_NONE && shown->reacted_us < shown->shown_us;
		if (!shown->positive && !skip)
			continue;
		if (n < max)
			ret_decided[n] = (struct decided_impression){.item = shown->item, .label = shown->positive};
		n++;
	}
	return n;
}

float state_item_duration_sec(const struct state *state, uint32_t item)
{
	float duration;

	if (item >= state_n_items(state))
		return -1.0f;
	duration = atomic_load_explicit(&state->items[item].duration, memory_order_relaxed);
	return duration > 0.0f ? duration : -1.0f;
}

uint32_t state_item_popularity(const struct state *state, uint32_t item)
{
	if (item >= state_n_items(state))
		return 0;
	return atomic_load_explicit(&state->items[item].popularity, memory_order_relaxed);
}
