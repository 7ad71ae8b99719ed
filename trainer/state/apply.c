/*
 * apply.c: a batch of events into the facts. The hot path of the engine's thread.
 *
 * Everything an event needs lies at random places of a large memory, so an event goes through in stages, with STAGE other events between two of
 * them: hash its ids and ask for their slots; resolve them and ask for the user and the item; ask for the places in the user's lists; apply. What a
 * stage asks for has come when the next one needs it, and memory never rests. Each stage takes the events in their order.
 *
 * An event that says nothing new costs a look and takes no lock. Nothing is allocated per event; blocks of lists come from the slab.
 */
#include <errno.h>

#include "trainer/state/internal.h"

#define STAGE 16u         /* events between two stages */
#define IN_FLIGHT 64u     /* places for events between the first stage and the last */
#define COMPACT_CHUNKS 4u /* at most this much moving a batch */

_Static_assert(IN_FLIGHT > 3 * STAGE && (IN_FLIGHT & (IN_FLIGHT - 1)) == 0, "an event keeps its place until it is applied; indexes wrap at 2^32");

struct resolved {
	const struct event *event;
	uint64_t user_hash, item_hash;
	uint32_t user, item; /* STATE_NONE: not to be applied */
};

static int is_history(const struct event *event)
{
	if (event->time_us == STATE_TIME_NONE)
		return 0;
	return event->stream == STREAM_WATCHES || event->stream == STREAM_IMPRESSIONS ||
	       (event->stream == STREAM_EVENTS && event->type < EVENT_OTHER);
}

static int apply_watch(struct state *state, uint32_t user, uint32_t item, const struct event *event)
{
	struct user_record *record = &state->users[user];
	uint32_t at = list_find(state, record, LIST_WATCHES, item);
	int known = at != UINT32_MAX;
	struct watch_fact old, new;
	int was, r;

	watch_init(&old, item);
	if (known)
		old = user_watches(record)[at];
	new = old;
	if (!watch_merge(&new, event))
		return 0;
	was = known && derive_is_booked(state, user, &old);
	if (!known) {
		r = list_reserve(state, user, LIST_WATCHES, record->count[LIST_WATCHES] + 1);
		if (r < 0)
			return r;
	}
	if (!user_write_begin(state, user))
		return -ENOMEM;
	if (known)
		user_watches(record)[at] = new;
	else
		list_append(state, record, LIST_WATCHES, &new);
	if (new.completion < 0.0f)
		record->flags |= USER_WAITING;
	user_write_end(record);
	digest_watch(state, event->user_id, known ? &old : NULL, &new);
	state->totals.watches += !known;
	if (!known && new.completion < 0.0f)
		state->items[item].waiting++;
	if (known && old.completion < 0.0f && new.completion >= 0.0f)
		state->items[item].waiting--;
	r = derive_book(state, user, item, was, derive_is_booked(state, user, &new));
	return r < 0 ? r : derive_touch(state, user);
}

static int apply_touch(struct state *state, uint32_t user, uint32_t item, const struct event *event)
{
	struct user_record *record = &state->users[user];
	uint32_t at = list_find(state, record, LIST_TOUCHES, item);
	int known = at != UINT32_MAX;
	struct touch_fact old, new;

	touch_init(&old, item);
	if (known)
		old = user_touches(record)[at];
	new = old;
	if (!touch_merge(&new, event))
		return 0;
	if (!known) {
		int r = list_reserve(state, user, LIST_TOUCHES, record->count[LIST_TOUCHES] + 1);
		if (r < 0)
			return r;
	}
	if (!user_write_begin(state, user))
		return -ENOMEM;
	if (known)
		user_touches(record)[at] = new;
	else
		list_append(state, record, LIST_TOUCHES, &new);
	user_write_end(record);
	digest_touch(state, event->user_id, known ? &old : NULL, &new);
	state->totals.touches += !known;
	return derive_touch(state, user);
}

static int apply_impression(struct state *state, uint32_t user, uint32_t item, const struct event *event, const char *text)
{
	struct impression_fact fact = {.shown_us = event->time_us, .item = item}, evicted;
	int full, has_evicted = 0;
	int r;

	fact.position = (uint16_t)(event->position < 0 ? 0 : event->position > UINT16_MAX ? UINT16_MAX : event->position);
	r = surface_enter(state, text + event->name.offset, event->name.len, &fact.surface, &full);
	if (r < 0)
		return r;
	state->counters.surfaces_full += (uint64_t)full;
	r = derive_candidate(state, item);
	if (r < 0)
		return r;
	r = impression_add(state, user, &fact, &evicted, &has_evicted);
	if (r <= 0)
		return r;
	digest_impression(state, event->user_id, has_evicted ? &evicted : NULL, &fact);
	state->totals.impressions += !has_evicted;
	return derive_touch(state, user);
}

static int apply_catalogue(struct state *state, const struct event *event, const char *text)
{
	uint64_t hash = ids_hash(state->item_ids, event->item_id);
	uint32_t item;
	int r = history_item_enter(state, event->item_id, hash, &item);

	if (r == -ENOSPC) {
		state->counters.dropped_item_cap++;
		return 0;
	}
	if (r < 0)
		return r;
	r = catalogue_put(state, item, text + event->doc.offset, event->doc.len);
	if (r == 0)
		r = derive_duration(state, item, event->flags & EVENT_HAS_DURATION ? (float)event->value : 0.0f);
	if (r == 0)
		state->counters.events_applied[STREAM_CATALOGUE]++;
	return r;
}

/* Indexes of the event's ids, entered when new; STATE_NONE when the event is to be dropped. */
static int resolve(struct state *state, struct resolved *event)
{
	int r = history_user_enter(state, event->event->user_id, event->user_hash, &event->user);

	if (r == -ENOSPC) {
		state->counters.dropped_user_cap++;
		event->user = STATE_NONE;
		return 0;
	}
	if (r < 0)
		return r;
	__builtin_prefetch(&state->users[event->user], 1);
	r = history_item_enter(state, event->event->item_id, event->item_hash, &event->item);
	if (r == -ENOSPC) {
		state->counters.dropped_item_cap++;
		event->user = STATE_NONE;
		return 0;
	}
	if (r < 0)
		return r;
	__builtin_prefetch(&state->items[event->item], 1);
	__builtin_prefetch(&ids_external(state->item_ids)[event->item]); /* for the digest */
	return 0;
}

static void prefetch_lists(const struct state *state, const struct resolved *event)
{
	const struct user_record *user = &state->users[event->user];

	if (event->event->stream == STREAM_IMPRESSIONS)
		impression_prefetch(state, user);
	else
		list_prefetch(state, user, event->event->stream == STREAM_WATCHES ? LIST_WATCHES : LIST_TOUCHES);
}

static int apply_resolved(struct state *state, const struct resolved *event, const char *text)
{
	if (state->users[event->user].flags & USER_FORGOTTEN) {
		state->counters.dropped_forgotten++;
		return 0;
	}
	state->counters.events_applied[event->event->stream]++;
	switch (event->event->stream) {
	case STREAM_WATCHES:
		return apply_watch(state, event->user, event->item, event->event);
	case STREAM_EVENTS:
		return apply_touch(state, event->user, event->item, event->event);
	default:
		return apply_impression(state, event->user, event->item, event->event, text);
	}
}

/* Events of other kinds: catalogue lines, users (read by nobody), types not known yet. */
static int apply_other(struct state *state, const struct event *event, const char *text)
{
	if (event->stream == STREAM_CATALOGUE)
		return apply_catalogue(state, event, text);
	if (event->stream < STREAM_COUNT)
		state->counters.events_applied[event->stream]++;
	return 0;
}

/* The first stage: an event's ids are hashed and their slots asked for. Events that are no history are dealt with here and now. */
static int enter(struct state *state, const struct event *event, const char *text, struct resolved *ret_entry)
{
	if (event->stream != STREAM_CATALOGUE && event->stream != STREAM_USERS && event->time_us > state->time_max_us)
		state->time_max_us = event->time_us;
	ret_entry->event = NULL;
	ret_entry->user = STATE_NONE;
	if (!is_history(event))
		return apply_other(state, event, text);
	ret_entry->event = event;
	ret_entry->user_hash = ids_hash(state->user_ids, event->user_id);
	ret_entry->item_hash = ids_hash(state->item_ids, event->item_id);
	ids_prefetch(state->user_ids, ret_entry->user_hash);
	ids_prefetch(state->item_ids, ret_entry->item_hash);
	return 0;
}

/* Event `at` enters; those STAGE, 2 * STAGE and 3 * STAGE before it take their next step. An index below 0 wraps, and is no event's. */
static int apply_events(struct state *state, const struct event *events, uint32_t n, const char *text)
{
	struct resolved in_flight[IN_FLIGHT];
	int r = 0;

	for (uint32_t at = 0; at < n + 3 * STAGE && r == 0; at++) {
		struct resolved *entry = &in_flight[at % IN_FLIGHT];

		if (at < n)
			r = enter(state, &events[at], text, entry);
		entry = &in_flight[(at - STAGE) % IN_FLIGHT];
		if (r == 0 && at - STAGE < n && entry->event)
			r = resolve(state, entry);
		entry = &in_flight[(at - 2 * STAGE) % IN_FLIGHT];
		if (at - 2 * STAGE < n && entry->user != STATE_NONE)
			prefetch_lists(state, entry);
		entry = &in_flight[(at - 3 * STAGE) % IN_FLIGHT];
		if (r == 0 && at - 3 * STAGE < n && entry->user != STATE_NONE)
			r = apply_resolved(state, entry, text);
	}
	return r;
}

int state_apply(struct state *state, const struct event_batch *batch)
{
	int r = apply_events(state, batch->events, batch->n_events, batch->text);

	history_compact(state, COMPACT_CHUNKS);
	if (!state->cut)
		hung_trim(state, HUNG_KEPT_BYTES, 1);
	state_publish(state);
	return r;
}
