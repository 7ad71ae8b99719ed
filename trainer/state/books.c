/*
 * books.c: what is derived from the facts and kept up to date all the same: popularity of items, pairs that became positive, candidates, touched users.
 *
 * The books follow the facts event by event. A duration that comes later turns watches that waited for it into positives (or, when it replaces
 * another, out of them): the item is marked, and state_rederive() walks over the users in portions. During a walk the books of a user go by `target`
 * when the walk has passed him and by `applied` when it has not, so an event in between is booked once. Items for which no watch waits need no walk.
 *
 * A change of rules counts everything again. Whenever a pair stops being positive, `rebuild` asks the learner to read all of them again.
 * Engine's thread only; popularity and durations are atomics that other threads read.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "trainer/state/internal.h"

int u32_list_add(struct u32_list *list, uint32_t value)
{
	if (list->n == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 256;
		uint32_t *values = realloc(list->values, capacity * sizeof(*values));
		if (!values)
			return -ENOMEM;
		list->values = values;
		list->capacity = capacity;
	}
	list->values[list->n++] = value;
	return 0;
}

static int positives_add(struct state *state, uint32_t user, uint32_t item)
{
	if (state->n_positives == state->positives_capacity) {
		size_t capacity = state->positives_capacity ? state->positives_capacity * 2 : 256;
		struct user_item *pairs = realloc(state->positives, capacity * sizeof(*pairs));
		if (!pairs)
			return -ENOMEM;
		state->positives = pairs;
		state->positives_capacity = capacity;
	}
	state->positives[state->n_positives++] = (struct user_item){user, item};
	return 0;
}

static void popularity_add(struct item_record *item, uint32_t by)
{
	uint32_t n = atomic_load_explicit(&item->popularity, memory_order_relaxed);
	atomic_store_explicit(&item->popularity, n + by, memory_order_relaxed);
}

static int is_positive_with(const struct state *state, const struct watch_fact *watch, float duration_sec)
{
	float completion = completion_with(watch, duration_sec);
	return completion >= 0.0f && completion >= state->rules.min_pos_completion;
}

int derive_is_booked(const struct state *state, uint32_t user, const struct watch_fact *watch)
{
	const struct item_record *item = &state->items[watch->item];

	if (watch->completion >= 0.0f)
		return watch->completion >= state->rules.min_pos_completion;
	return is_positive_with(state, watch, (item->flags & ITEM_WALKING) && user < state->walk_cursor ? item->target : item->applied);
}

int derive_candidate(struct state *state, uint32_t item)
{
	if (state->items[item].flags & ITEM_CANDIDATE)
		return 0;
	state->items[item].flags |= ITEM_CANDIDATE;
	return u32_list_add(&state->candidates, item);
}

int derive_touch(struct state *state, uint32_t user)
{
	if (state->users[user].touched)
		return 0;
	state->users[user].touched = 1;
	return u32_list_add(&state->touched, user);
}

int derive_book(struct state *state, uint32_t user, uint32_t item, int was_positive, int is_positive)
{
	int r;

	if (was_positive == is_positive)
		return 0;
	if (!is_positive) {
		popularity_add(&state->items[item], UINT32_MAX); /* minus one */
		state->rebuild = 1;
		return 0;
	}
	popularity_add(&state->items[item], 1);
	r = derive_candidate(state, item);
	if (r == 0)
		r = positives_add(state, user, item);
	return r;
}

int derive_duration(struct state *state, uint32_t index, float duration_sec)
{
	struct item_record *item = &state->items[index];
	float duration = isfinite(duration_sec) && duration_sec > 0.0f ? duration_sec : 0.0f;

	if (duration == atomic_load_explicit(&item->duration, memory_order_relaxed))
		return 0;
	atomic_store_explicit(&item->duration, duration, memory_order_relaxed);
	if (item->waiting == 0 && !(item->flags & (ITEM_WALKING | ITEM_DIRTY))) {
		item->applied = duration;
		return 0;
	}
	if (item->flags & ITEM_DIRTY)
		return 0;
	item->flags |= ITEM_DIRTY;
	return u32_list_add(&state->dirty_items, index);
}

static void walk_start(struct state *state)
{
	struct u32_list finished = state->walk_items;

	state->walk_items = state->dirty_items;
	state->dirty_items = finished;
	state->dirty_items.n = 0;
	for (size_t i = 0; i < state->walk_items.n; i++) {
		struct item_record *item = &state->items[state->walk_items.values[i]];
		item->flags = (item->flags & ~(uint32_t)ITEM_DIRTY) | ITEM_WALKING;
		item->target = atomic_load_explicit(&item->duration, memory_order_relaxed);
	}
	state->walk_cursor = 0;
	state->walk_lost = 0;
}

static void walk_finish(struct state *state)
{
	for (size_t i = 0; i < state->walk_items.n; i++) {
		struct item_record *item = &state->items[state->walk_items.values[i]];
		item->flags &= ~(uint32_t)ITEM_WALKING;
		item->applied = item->target;
	}
	state->walk_items.n = 0;
	if (state->walk_lost)
		state->rebuild = 1;
}

static int walk_user(struct state *state, uint32_t user)
{
	const struct user_record *record = &state->users[user];
	int rebuild = state->rebuild;
	int r = 0;

	for (uint32_t i = 0; i < record->count[LIST_WATCHES] && r == 0; i++) {
		const struct watch_fact *watch = &user_watches(record)[i];
		const struct item_record *item = &state->items[watch->item];
		if (watch->completion >= 0.0f || !(item->flags & ITEM_WALKING))
			continue;
		int was = is_positive_with(state, watch, item->applied);
		int is = is_positive_with(state, watch, item->target);
		r = derive_book(state, user, watch->item, was, is);
		if (r == 0 && was != is)
			r = derive_touch(state, user);
		state->walk_lost |= was && !is;
	}
	state->rebuild = rebuild; /* once, at the end of the walk */
	return r;
}

int state_rederive(struct state *state, uint32_t users_max)
{
	uint32_t n_users = state_n_users(state);

	if (state->walk_items.n == 0) {
		if (state->dirty_items.n == 0)
			return 0;
		walk_start(state);
	}
	while (state->walk_cursor < n_users) {
		if (users_max-- == 0)
			return 1;
		if (state->users[state->walk_cursor].flags & USER_WAITING) {
			int r = walk_user(state, state->walk_cursor);
			if (r < 0)
				return r;
		}
		state->walk_cursor++;
	}
	walk_finish(state);
	return state->dirty_items.n != 0;
}

static int recount_user(struct state *state, uint32_t user, uint32_t *popularity)
{
	struct user_record *record = &state->users[user];
	const struct impression_fact *impressions = record->list[LIST_IMPRESSIONS];
	int waiting = 0;
	int r = 0;

	for (uint32_t i = 0; i < record->count[LIST_WATCHES] && r == 0; i++) {
		const struct watch_fact *watch = &user_watches(record)[i];
		struct item_record *item = &state->items[watch->item];
		if (watch->completion < 0.0f) {
			item->waiting++;
			waiting = 1;
		}
		if (is_positive_with(state, watch, item->applied)) {
			popularity[watch->item]++;
			r = derive_candidate(state, watch->item);
		}
	}
	for (uint32_t i = 0; i < record->count[LIST_IMPRESSIONS] && r == 0; i++)
		r = derive_candidate(state, impressions[i].item);
	if (waiting && !(record->flags & USER_WAITING)) {
		user_lock(record);
		record->flags |= USER_WAITING;
		user_unlock(record);
	}
	return r;
}

int derive_recount(struct state *state)
{
	uint32_t n_items = state_n_items(state);
	uint32_t n_users = state_n_users(state);
	uint32_t *popularity = calloc(n_items ? n_items : 1, sizeof(*popularity));
	int r = 0;

	if (!popularity)
		return -ENOMEM;
	state->walk_items.n = 0;
	state->dirty_items.n = 0;
	for (uint32_t i = 0; i < n_items; i++) {
		struct item_record *item = &state->items[i];
		item->flags &= (uint32_t)ITEM_CANDIDATE;
		item->applied = atomic_load_explicit(&item->duration, memory_order_relaxed);
		item->waiting = 0;
	}
	for (uint32_t i = 0; i < n_users && r == 0; i++)
		r = recount_user(state, i, popularity);
	for (uint32_t i = 0; i < n_items && r == 0; i++)
		atomic_store_explicit(&state->items[i].popularity, popularity[i], memory_order_relaxed);
	free(popularity);
	state->rebuild = 1;
	return r;
}

int state_set_rules(struct state *state, const struct state_rules *rules)
{
	int recount = rules->min_pos_completion != state->rules.min_pos_completion;

	if (!(rules->min_pos_completion >= 0.0f && rules->min_pos_completion <= 1.0f) || rules->negative_after_us < 0)
		return -EINVAL;
	state->rules = *rules;
	atomic_store_explicit(&state->min_pos_completion, rules->min_pos_completion, memory_order_relaxed);
	atomic_store_explicit(&state->negative_after_us, rules->negative_after_us, memory_order_relaxed);
	return recount ? derive_recount(state) : 0;
}

const struct state_rules *state_get_rules(const struct state *state)
{
	return &state->rules;
}

void state_changes_get(struct state *state, struct state_changes *ret_changes)
{
	*ret_changes = (struct state_changes){
		.touched = state->touched.values,
		.n_touched = state->touched.n,
		.positives = state->positives,
		.n_positives = state->n_positives,
		.candidates = state->candidates.values,
		.n_candidates = state->candidates.n,
		.rebuild = state->rebuild,
	};
}

void state_changes_clear(struct state *state)
{
	for (size_t i = 0; i < state->touched.n; i++)
		state->users[state->touched.values[i]].touched = 0;
	state->touched.n = 0;
	state->n_positives = 0;
	state->candidates.n = 0;
	state->rebuild = 0;
}
