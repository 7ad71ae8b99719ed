/*
 * ids.h: external ids (any int64) to dense indexes 0, 1, 2, ... in order of arrival, and back. Internal to trainer/state.
 *
 * One writer (the engine) inserts and looks up without a lock; any other thread looks up with ids_find_shared().
 */
#ifndef TRAINER_STATE_IDS_H
#define TRAINER_STATE_IDS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/state/reserve.h"

struct id_slot {
	int64_t id;
	uint32_t index_plus_1; /* 0: empty */
	uint32_t unused;
};

struct ids {
	pthread_mutex_t mutex; /* guards slots, shift and mask against readers; the engine takes it to change them */
	struct id_slot *slots;
	size_t slots_bytes;
	unsigned shift;         /* a slot is the hash's high bits: hash >> shift */
	uint64_t mask;          /* slots - 1 */
	uint64_t seed[2];
	_Atomic uint32_t n;
	uint32_t max;
	struct reserve external; /* int64_t[max] */
};

/* 0 or -ENOMEM. */
int ids_init(struct ids *ids, uint32_t max, uint64_t seed);
void ids_destroy(struct ids *ids);

/* Seeded hash of an id; pass it to the calls below. [engine] */
static inline uint64_t ids_hash(const struct ids *ids, int64_t id)
{
	unsigned __int128 a = (unsigned __int128)((uint64_t)id ^ ids->seed[0]) * (ids->seed[1] | 1u);
	uint64_t x = (uint64_t)a ^ (uint64_t)(a >> 64);
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	return x ^ (x >> 32);
}

static inline void ids_prefetch(const struct ids *ids, uint64_t hash)
{
	__builtin_prefetch(&ids->slots[hash >> ids->shift]);
}

/* Index, or UINT32_MAX. [engine] */
static inline uint32_t ids_find(const struct ids *ids, int64_t id, uint64_t hash)
{
	for (uint64_t i = hash >> ids->shift;; i = (i + 1) & ids->mask) {
		const struct id_slot *slot = &ids->slots[i];
		if (slot->index_plus_1 == 0)
			return UINT32_MAX;
		if (slot->id == id)
			return slot->index_plus_1 - 1;
	}
}

/* Enters an id that ids_find() did not find. 0, -ENOSPC (cap), -ENOMEM. [engine] */
int ids_insert(struct ids *ids, int64_t id, uint64_t hash, uint32_t *ret_index);
/* Index, or UINT32_MAX; any thread. */
uint32_t ids_find_shared(struct ids *ids, int64_t id);

static inline const int64_t *ids_external(const struct ids *ids)
{
	return (const int64_t *)(const void *)ids->external.base;
}

static inline uint32_t ids_count(const struct ids *ids)
{
	return atomic_load_explicit(&ids->n, memory_order_acquire);
}

#endif
