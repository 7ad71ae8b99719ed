/*
 * history.c: what happened to whom. A record of one cache line per user, and his lists of watches, touches and impressions in blocks of the slab.
 *
 * A list's block holds `capacity` entries and, for watches and touches, a way to find an item: up to 256 entries one hash byte each (searched with
 * memchr), above that an open-addressing table of entry numbers, one and a half slots an entry. Entries are only appended or changed in place.
 * Capacities are few enough that blocks are shared by size, and close enough together that slack stays near a tenth; impressions end at exactly
 * impressions_max.
 *
 * The engine's thread is the only caller. It finds entries without the lock (nobody else writes) and takes the user's lock to change them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/state/internal.h"

#define HASH_BYTES_MAX 256u /* capacities up to here are searched by hash byte */
#define CAPACITY_MAX (1u << 30)
#define PREFETCH_BYTES 640u /* of a block that is about to be copied; longer ones are read in sequence anyway */

size_t list_entry_bytes(enum list_kind kind)
{
	static const size_t bytes[LIST_KINDS] = {sizeof(struct watch_fact), sizeof(struct touch_fact), sizeof(struct impression_fact)};
	return bytes[kind];
}

static uint32_t fact_hash(const struct state *state, uint32_t item)
{
	uint32_t h = (item ^ state->item_hash_seed) * 0x9e3779b1u;
	h ^= h >> 15;
	return h * 0x85ebca77u;
}

static size_t slot_bytes(uint32_t capacity)
{
	return capacity < UINT16_MAX ? sizeof(uint16_t) : sizeof(uint32_t);
}

static uint32_t slots_of(uint32_t capacity)
{
	return capacity + capacity / 2;
}

static size_t index_bytes(enum list_kind kind, uint32_t capacity)
{
	if (kind == LIST_IMPRESSIONS)
		return 0;
	if (capacity <= HASH_BYTES_MAX)
		return capacity;
	return slots_of(capacity) * slot_bytes(capacity);
}

static uint32_t capacities_fill(uint32_t *capacities, const uint32_t *first, uint32_t n_first, uint32_t max)
{
	uint32_t n = 0;

	while (n < n_first && first[n] < max) {
		capacities[n] = first[n];
		n++;
	}
	/* from 32 on: four sizes an octave */
	for (uint32_t base = 32; n >= n_first; base *= 2)
		for (uint32_t quarter = 1; quarter <= 4; quarter++) {
			uint32_t capacity = base + base / 4 * quarter;
			if (capacity >= max) {
				capacities[n] = max;
				return n + 1;
			}
			capacities[n++] = capacity;
		}
	capacities[n] = max;
	return n + 1;
}

int history_init(struct state *state)
{
	static const uint32_t watches[] = {2, 4, 6, 8, 12, 16, 20, 24, 28, 32};
	static const uint32_t touches[] = {1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32};
	static const uint32_t impressions[] = {2, 4, 8, 12, 16, 24, 32};
	size_t bytes[LIST_KINDS * LIST_CLASSES] = {0};
	int r;

	state->n_classes[LIST_WATCHES] = capacities_fill(state->capacities[LIST_WATCHES], watches, 10, CAPACITY_MAX);
	state->n_classes[LIST_TOUCHES] = capacities_fill(state->capacities[LIST_TOUCHES], touches, 11, CAPACITY_MAX);
	state->n_classes[LIST_IMPRESSIONS] =
		capacities_fill(state->capacities[LIST_IMPRESSIONS], impressions, 7, state->config.impressions_max);
	for (uint32_t kind = 0; kind < LIST_KINDS; kind++)
		for (uint32_t i = 0; i < state->n_classes[kind]; i++) {
			uint32_t capacity = state->capacities[kind][i];
			bytes[kind * LIST_CLASSES + i] =
				capacity * list_entry_bytes((enum list_kind)kind) + index_bytes((enum list_kind)kind, capacity);
		}
	r = slab_init(&state->slab, bytes, LIST_KINDS * LIST_CLASSES);
	if (r == 0)
		r = reserve_open(&state->users_memory, (size_t)state->config.users_max * sizeof(struct user_record), 1);
	if (r == 0)
		r = reserve_open(&state->items_memory, (size_t)state->config.items_max * sizeof(struct item_record), 0);
	if (r == 0)
		r = reserve_open(&state->rows_memory, (size_t)state->config.users_max * state->row_stride, 0);
	state->users = (struct user_record *)(void *)state->users_memory.base;
	state->items = (struct item_record *)(void *)state->items_memory.base;
	return r;
}

void history_destroy(struct state *state)
{
	uint32_t n = state->user_ids ? ids_count(state->user_ids) : 0;

	for (uint32_t i = 0; i < n; i++) {
		struct user_record *user = &state->users[i];
		for (uint32_t kind = 0; kind < LIST_KINDS; kind++) /* blocks of the slab's regions need no freeing one by one */
			if (user->class[kind] != 0 && state->slab.bins[kind * LIST_CLASSES + user->class[kind] - 1u].per_chunk == 0)
				free(user->list[kind]);
	}
	slab_destroy(&state->slab);
	reserve_close(&state->users_memory);
	reserve_close(&state->items_memory);
	reserve_close(&state->rows_memory);
}

int history_user_enter(struct state *state, int64_t user_id, uint64_t hash, uint32_t *ret_user)
{
	uint32_t user = ids_find(state->user_ids, user_id, hash);
	size_t n;
	int r;

	if (user != STATE_NONE) {
		*ret_user = user;
		return 0;
	}
	n = (size_t)ids_count(state->user_ids) + 1;
	if (n > state->config.users_max)
		return -ENOSPC;
	r = reserve_commit(&state->users_memory, n * sizeof(struct user_record));
	if (r == 0)
		r = reserve_commit(&state->rows_memory, n * state->row_stride);
	if (r == 0)
		r = ids_insert(state->user_ids, user_id, hash, ret_user);
	return r;
}

int history_item_enter(struct state *state, int64_t item_id, uint64_t hash, uint32_t *ret_item)
{
	uint32_t item = ids_find(state->item_ids, item_id, hash);
	size_t n;
	int r;

	if (item != STATE_NONE) {
		*ret_item = item;
		return 0;
	}
	n = (size_t)ids_count(state->item_ids) + 1;
	if (n > state->config.items_max)
		return -ENOSPC;
	r = reserve_commit(&state->items_memory, n * sizeof(struct item_record));
	if (r == 0)
		r = ids_insert(state->item_ids, item_id, hash, ret_item);
	return r;
}

uint32_t list_capacity(const struct state *state, const struct user_record *user, enum list_kind kind)
{
	return user->class[kind] == 0 ? 0 : state->capacities[kind][user->class[kind] - 1];
}

static uint32_t entry_item(const char *block, size_t entry_bytes, uint32_t i)
{
	uint32_t item;
	memcpy(&item, block + i * entry_bytes, sizeof(item));
	return item;
}

static uint32_t slot_get(const char *slots, size_t width, uint32_t i)
{
	uint16_t small;
	uint32_t large;

	if (width == sizeof(small)) {
		memcpy(&small, slots + i * width, sizeof(small));
		return small;
	}
	memcpy(&large, slots + i * width, sizeof(large));
	return large;
}

static void slot_put(char *slots, size_t width, uint32_t i, uint32_t value)
{
	if (width == sizeof(uint16_t)) {
		uint16_t small = (uint16_t)value;
		memcpy(slots + i * width, &small, sizeof(small));
	} else {
		memcpy(slots + i * width, &value, sizeof(value));
	}
}

static uint32_t first_slot(uint32_t hash, uint32_t n_slots)
{
	return (uint32_t)(((uint64_t)hash * n_slots) >> 32);
}

uint32_t list_find(const struct state *state, const struct user_record *user, enum list_kind kind, uint32_t item)
{
	uint32_t capacity = list_capacity(state, user, kind);
	uint32_t n = user->count[kind];
	uint32_t hash = fact_hash(state, item);
	size_t entry_bytes = list_entry_bytes(kind);
	const char *block = user->list[kind];
	const char *index = block + capacity * entry_bytes;

	if (n == 0)
		return UINT32_MAX;
	if (capacity <= HASH_BYTES_MAX) {
		for (uint32_t i = 0; i < n; i++) {
			const char *hit = memchr(index + i, (int)(hash >> 24), n - i);
			if (!hit)
				return UINT32_MAX;
			i = (uint32_t)(hit - index);
			if (entry_item(block, entry_bytes, i) == item)
				return i;
		}
		return UINT32_MAX;
	}
	size_t width = slot_bytes(capacity);
	uint32_t n_slots = slots_of(capacity);
	for (uint32_t i = first_slot(hash, n_slots);; i = i + 1 == n_slots ? 0 : i + 1) {
		uint32_t entry = slot_get(index, width, i);
		if (entry == 0)
			return UINT32_MAX;
		if (entry_item(block, entry_bytes, entry - 1) == item)
			return entry - 1;
	}
}

/* Enters entry number i of `item` into the block's index. */
static void index_add(const struct state *state, char *block, size_t entry_bytes, uint32_t capacity, uint32_t i, uint32_t item)
{
	char *index = block + capacity * entry_bytes;
	uint32_t hash = fact_hash(state, item);

	if (capacity <= HASH_BYTES_MAX) {
		index[i] = (char)(hash >> 24);
		return;
	}
	size_t width = slot_bytes(capacity);
	uint32_t n_slots = slots_of(capacity);
	uint32_t slot = first_slot(hash, n_slots);
	while (slot_get(index, width, slot) != 0)
		slot = slot + 1 == n_slots ? 0 : slot + 1;
	slot_put(index, width, slot, i + 1);
}

static void block_fill(const struct state *state, const struct user_record *user, enum list_kind kind, uint32_t capacity, char *block)
{
	size_t entry_bytes = list_entry_bytes(kind);
	uint32_t n = user->count[kind];
	uint32_t old_capacity = list_capacity(state, user, kind);
	const char *old = user->list[kind];

	if (kind == LIST_IMPRESSIONS) { /* a list that grows is not a full ring */
		if (n)
			memcpy(block, old, n * entry_bytes);
		return;
	}
	if (n)
		memcpy(block, old, n * entry_bytes);
	if (capacity <= HASH_BYTES_MAX) {
		if (n)
			memcpy(block + capacity * entry_bytes, old + old_capacity * entry_bytes, n);
		return;
	}
	memset(block + capacity * entry_bytes, 0, index_bytes(kind, capacity));
	for (uint32_t i = 0; i < n; i++)
		index_add(state, block, entry_bytes, capacity, i, entry_item(block, entry_bytes, i));
}

int list_reserve(struct state *state, uint32_t user_index, enum list_kind kind, uint32_t n)
{
	struct user_record *user = &state->users[user_index];
	uint32_t class = user->class[kind];
	uint32_t old_class = class;
	void *old = user->list[kind];
	char *block;

	if (n <= list_capacity(state, user, kind))
		return 0;
	while (class < state->n_classes[kind] && state->capacities[kind][class] < n)
		class++;
	if (class == state->n_classes[kind])
		return -ENOMEM;
	block = slab_alloc(&state->slab, (uint32_t)kind * LIST_CLASSES + class, user_index);
	if (!block)
		return -ENOMEM;
	block_fill(state, user, kind, state->capacities[kind][class], block);
	user_lock(user);
	user->list[kind] = block;
	user->class[kind] = (uint8_t)(class + 1);
	user_unlock(user);
	if (old_class != 0)
		slab_free(&state->slab, (uint32_t)kind * LIST_CLASSES + old_class - 1, old);
	return 0;
}

void list_append(struct state *state, struct user_record *user, enum list_kind kind, const void *fact)
{
	size_t entry_bytes = list_entry_bytes(kind);
	uint32_t n = user->count[kind];
	char *block = user->list[kind];

	memcpy(block + n * entry_bytes, fact, entry_bytes);
	index_add(state, block, entry_bytes, list_capacity(state, user, kind), n, entry_item(fact, entry_bytes, 0));
	user->count[kind] = n + 1;
}

void list_prefetch(const struct state *state, const struct user_record *user, enum list_kind kind)
{
	uint32_t capacity = list_capacity(state, user, kind);
	const char *block = user->list[kind];
	size_t bytes = capacity * list_entry_bytes(kind);

	if (capacity == 0)
		return;
	__builtin_prefetch(block + bytes);
	if (user->count[kind] < capacity) {
		__builtin_prefetch(block + user->count[kind] * list_entry_bytes(kind), 1);
		return;
	}
	/* full: a new item moves all of it to a larger block */
	slab_prefetch(block);
	for (size_t at = 0; at < bytes && at < PREFETCH_BYTES; at += 64)
		__builtin_prefetch(block + at);
}

void history_drop_lists(struct state *state, struct user_record *user)
{
	for (uint32_t kind = 0; kind < LIST_KINDS; kind++) {
		if (user->class[kind] != 0)
			slab_free(&state->slab, kind * LIST_CLASSES + user->class[kind] - 1u, user->list[kind]);
		user->list[kind] = NULL;
		user->class[kind] = 0;
		user->count[kind] = 0;
	}
	user->impressions_head = 0;
}

static void block_move(void *ctx, uint32_t bin, uint32_t owner, const void *from, void *to)
{
	struct state *state = ctx;
	struct user_record *user = &state->users[owner];

	memcpy(to, from, state->slab.bins[bin].block_bytes);
	user_lock(user);
	user->list[bin / LIST_CLASSES] = to;
	user_unlock(user);
}

static void owner_prefetch(void *ctx, uint32_t owner)
{
	struct state *state = ctx;
	__builtin_prefetch(&state->users[owner], 1);
}

void history_compact(struct state *state, uint32_t chunks_max)
{
	slab_compact(&state->slab, chunks_max, block_move, owner_prefetch, state);
}
