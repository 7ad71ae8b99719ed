/*
 * impressions.c: the latest N impressions of a user by a total order: shown_us, external item id, position, surface name. Keeping the top N of a set
 * gives the same set in any order of arrival.
 *
 * The list is sorted. Until it holds N entries it is an array; then a ring, so that the usual arrival, newer than all kept, replaces the oldest
 * without moving the rest. A late arrival moves the entries newer than it by one.
 *
 * Engine's thread only; changes are made under the user's lock.
 */
#include <errno.h>
#include <string.h>

#include "trainer/state/internal.h"

int impression_compare(const struct state *state, const struct impression_fact *a, const struct impression_fact *b)
{
	if (a->shown_us != b->shown_us)
		return a->shown_us < b->shown_us ? -1 : 1;
	if (a->item != b->item) {
		const int64_t *ids = ids_external(state->item_ids);
		return ids[a->item] < ids[b->item] ? -1 : 1;
	}
	if (a->position != b->position)
		return a->position < b->position ? -1 : 1;
	if (a->surface != b->surface)
		return strcmp(state_surface_name(state, a->surface), state_surface_name(state, b->surface));
	return 0;
}

static uint32_t ring_at(const struct user_record *user, uint32_t capacity, uint32_t i)
{
	uint32_t at = user->impressions_head + i;
	return at >= capacity ? at - capacity : at;
}

/* Number of kept impressions below `fact`, or UINT32_MAX when it is among them. */
static uint32_t rank_of(const struct state *state, const struct user_record *user, uint32_t capacity, const struct impression_fact *fact)
{
	const struct impression_fact *ring = user->list[LIST_IMPRESSIONS];
	uint32_t low = 0, high = user->count[LIST_IMPRESSIONS];

	if (high != 0 && fact->shown_us > ring[ring_at(user, capacity, high - 1)].shown_us)
		return high; /* the usual case */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = impression_compare(state, &ring[ring_at(user, capacity, middle)], fact);
		if (order == 0)
			return UINT32_MAX;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int impression_add(struct state *state, uint32_t user_index, const struct impression_fact *fact, struct impression_fact *ret_evicted,
                   int *ret_has_evicted)
{
	struct user_record *user = &state->users[user_index];
	uint32_t capacity = list_capacity(state, user, LIST_IMPRESSIONS);
	uint32_t n = user->count[LIST_IMPRESSIONS];
	uint32_t rank = rank_of(state, user, capacity, fact);
	int full = n == state->config.impressions_max;
	struct impression_fact *ring;

	if (rank == UINT32_MAX || (full && rank == 0))
		return 0;
	if (!full && n == capacity) {
		int r = list_reserve(state, user_index, LIST_IMPRESSIONS, n + 1);
		if (r < 0)
			return r;
		capacity = list_capacity(state, user, LIST_IMPRESSIONS);
	}
	if (!user_write_begin(state, user_index))
		return -ENOMEM;
	ring = user->list[LIST_IMPRESSIONS];
	if (full) { /* the oldest goes */
		*ret_evicted = ring[user->impressions_head];
		user->impressions_head = (uint16_t)ring_at(user, capacity, 1);
		n--;
		rank--;
	}
	*ret_has_evicted = full;
	for (uint32_t i = n; i > rank; i--)
		ring[ring_at(user, capacity, i)] = ring[ring_at(user, capacity, i - 1)];
	ring[ring_at(user, capacity, rank)] = *fact;
	user->count[LIST_IMPRESSIONS] = n + 1;
	user_write_end(user);
	return 1;
}

void impression_prefetch(const struct state *state, const struct user_record *user)
{
	uint32_t capacity = list_capacity(state, user, LIST_IMPRESSIONS);
	uint32_t n = user->count[LIST_IMPRESSIONS];
	const struct impression_fact *ring = user->list[LIST_IMPRESSIONS];

	if (n == 0)
		return;
	/* the newest, and the place of the next (when full: the oldest) */
	__builtin_prefetch(&ring[ring_at(user, capacity, n - 1)], 1);
	__builtin_prefetch(&ring[n == capacity ? user->impressions_head : n], 1);
}
