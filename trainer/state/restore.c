/*
 * restore.c: a state from a checkpoint. Nothing that comes in is believed: indexes, doubled entries, order, ranges and caps are checked, and digest,
 * totals, popularity and candidates are computed again. The order of the calls: items, surfaces, catalogue, users, end.
 *
 * Runs on the thread that will be the engine's, before any other thread knows the state.
 */
#include <errno.h>
#include <float.h>
#include <string.h>

#include "trainer/state/internal.h"

int state_restore_items(struct state *state, const int64_t *item_ids, uint32_t n)
{
	if (state_n_items(state) != 0)
		return -EINVAL;
	if (n > state->config.items_max)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t item;
		int r = history_item_enter(state, item_ids[i], ids_hash(state->item_ids, item_ids[i]), &item);
		if (r < 0)
			return r;
		if (item != i)
			return -EINVAL; /* an id twice */
	}
	return 0;
}

int state_restore_surface(struct state *state, const char *name)
{
	uint32_t n = state->n_surfaces;
	uint16_t surface;
	int full;
	int r = surface_enter(state, name, strlen(name), &surface, &full);

	if (r < 0)
		return r;
	return surface == n + 1 ? 0 : -EINVAL;
}

int state_restore_catalogue(struct state *state, uint32_t item, const char *doc, size_t len)
{
	double duration = 0.0;
	int r;

	if (item >= state_n_items(state))
		return -EINVAL;
	r = catalogue_put(state, item, doc, len);
	if (r < 0)
		return r;
	(void)json_top_number(state->numeric_locale, doc, len, "duration_sec", &duration); /* without one it stays unknown */
	return derive_duration(state, item, (float)duration);
}

/* -1, or in 0..max. */
static int none_or_within(float value, float max)
{
	return value == -1.0f || (value >= 0.0f && value <= max);
}

static int watch_is_possible(const struct state *state, const struct watch_fact *watch)
{
	if (watch->item >= state_n_items(state) || !none_or_within(watch->completion, 1.0f) || !none_or_within(watch->watch_time_sec, FLT_MAX))
		return 0;
	if ((watch->completion < 0.0f) != (watch->best_us == STATE_TIME_NONE))
		return 0;
	return watch->last_us != STATE_TIME_NONE && watch->best_us <= watch->last_us;
}

static int touch_is_possible(const struct state *state, const struct touch_fact *touch)
{
	int rated = touch->rated_us != STATE_TIME_NONE;

	if (touch->item >= state_n_items(state) || touch->opinion < -1 || touch->opinion > 1)
		return 0;
	if ((touch->opinion == 0) != (touch->opinion_us == STATE_TIME_NONE))
		return 0;
	if (!(touch->rating >= -FLT_MAX && touch->rating <= FLT_MAX) || (!rated && touch->rating != 0.0f))
		return 0;
	return rated || touch->opinion != 0 || touch->click_us != STATE_TIME_NONE || touch->play_us != STATE_TIME_NONE;
}

static int impressions_are_possible(const struct state *state, const struct user_facts *facts)
{
	if (facts->n_impressions > state->config.impressions_max)
		return 0;
	for (uint32_t i = 0; i < facts->n_impressions; i++) {
		const struct impression_fact *impression = &facts->impressions[i];
		if (impression->item >= state_n_items(state) || impression->surface > state->n_surfaces || impression->shown_us == STATE_TIME_NONE)
			return 0;
		if (i > 0 && impression_compare(state, &facts->impressions[i - 1], impression) >= 0)
			return 0;
	}
	return 1;
}

static int restore_watches(struct state *state, uint32_t user, int64_t user_id, const struct user_facts *facts)
{
	struct user_record *record = &state->users[user];
	int r = list_reserve(state, user, LIST_WATCHES, facts->n_watches);

	for (uint32_t i = 0; i < facts->n_watches && r == 0; i++) {
		struct watch_fact watch = facts->watches[i];
		if (!watch_is_possible(state, &watch) || list_find(state, record, LIST_WATCHES, watch.item) != UINT32_MAX)
			return -EINVAL;
		watch.completion += 0.0f; /* no -0 */
		watch.watch_time_sec += 0.0f;
		list_append(state, record, LIST_WATCHES, &watch);
		digest_watch(state, user_id, NULL, &watch);
	}
	return r;
}

static int restore_touches(struct state *state, uint32_t user, int64_t user_id, const struct user_facts *facts)
{
	struct user_record *record = &state->users[user];
	int r = list_reserve(state, user, LIST_TOUCHES, facts->n_touches);

	for (uint32_t i = 0; i < facts->n_touches && r == 0; i++) {
		struct touch_fact touch = facts->touches[i];
		if (!touch_is_possible(state, &touch) || list_find(state, record, LIST_TOUCHES, touch.item) != UINT32_MAX)
			return -EINVAL;
		touch.rating += 0.0f;
		list_append(state, record, LIST_TOUCHES, &touch);
		digest_touch(state, user_id, NULL, &touch);
	}
	return r;
}

static int restore_impressions(struct state *state, uint32_t user, int64_t user_id, const struct user_facts *facts)
{
	struct user_record *record = &state->users[user];
	int r;

	if (!impressions_are_possible(state, facts))
		return -EINVAL;
	r = list_reserve(state, user, LIST_IMPRESSIONS, facts->n_impressions);
	if (r < 0 || facts->n_impressions == 0)
		return r;
	memcpy(record->list[LIST_IMPRESSIONS], facts->impressions, facts->n_impressions * sizeof(*facts->impressions));
	record->count[LIST_IMPRESSIONS] = facts->n_impressions;
	for (uint32_t i = 0; i < facts->n_impressions; i++)
		digest_impression(state, user_id, NULL, &facts->impressions[i]);
	return 0;
}

int state_restore_user(struct state *state, int64_t user_id, const struct user_facts *facts)
{
	uint32_t n_users = state_n_users(state);
	uint32_t user;
	int r = history_user_enter(state, user_id, ids_hash(state->user_ids, user_id), &user);

	if (r < 0)
		return r;
	if (user != n_users)
		return -EINVAL; /* an id twice */
	if (facts->forgotten && (facts->n_watches || facts->n_touches || facts->n_impressions))
		return -EINVAL;
	r = restore_watches(state, user, user_id, facts);
	if (r == 0)
		r = restore_touches(state, user, user_id, facts);
	if (r == 0)
		r = restore_impressions(state, user, user_id, facts);
	if (r < 0)
		return r;
	if (facts->row && state->config.row_bytes)
		memcpy(state->rows_memory.base + user * state->row_stride, facts->row, state->config.row_bytes);
	if (facts->forgotten) {
		state->users[user].flags |= USER_FORGOTTEN;
		state->totals.forgotten++;
		digest_forgotten(state, user_id, 1);
	}
	state->totals.watches += facts->n_watches;
	state->totals.touches += facts->n_touches;
	state->totals.impressions += facts->n_impressions;
	return 0;
}

int state_restore_end(struct state *state, const struct state_counters *counters, int64_t time_max_us)
{
	uint64_t catalogue_entries = state->counters.catalogue_entries;
	int r = derive_recount(state);

	if (r < 0)
		return r;
	state->counters = *counters;
	state->counters.catalogue_entries = catalogue_entries;
	state->time_max_us = time_max_us;
	state_publish(state);
	return 0;
}
