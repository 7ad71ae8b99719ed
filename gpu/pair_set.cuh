/*
 * pair_set.cuh: the exact set of (user, item) pairs on the device: one table with linear probing, and before it a Bloom filter, a word of 64 bits for 8
 * slots, two bits a pair in one word (sampler.h has the same on the host, in shards). At the load of the slots (at most 0.6) the filter clears more than
 * 97 % of the pairs that are not there, by one 32-byte sector of memory.
 *
 * Insertion and questions never overlap: both run on the backend's stream. Insertions run beside each other.
 */
#ifndef GPU_PAIR_SET_CUH
#define GPU_PAIR_SET_CUH

#include "gpu/device.cuh"
#include "gpu/view.cuh"

#define PAIR_FREE UINT64_MAX

struct pair_table {
	unsigned long long *slots;  /* [mask + 1] user << 32 | item; PAIR_FREE: free */
	unsigned long long *filter; /* [(mask + 1) / 8] */
	uint64_t mask;
};

GPU_FN uint64_t pair_key(uint32_t user, uint32_t item)
{
	return (uint64_t)user << 32 | item;
}

GPU_FN uint64_t pair_hash(uint64_t key)
{
	key ^= key >> 32;
	key *= 0x9E3779B97F4A7C15u;
	key ^= key >> 29;
	key *= 0xBF58476D1CE4E5B9u;
	return key ^ key >> 32;
}

/* Slots go by the low bits of the hash, the filter's bits by its highest twelve. */
GPU_FN uint64_t pair_filter_bits(uint64_t hash)
{
	return (uint64_t)1 << (hash >> 52 & 63) | (uint64_t)1 << (hash >> 58);
}

/* 0: certainly not in the set. */
GPU_FN int pair_set_maybe(const struct set_view *set, uint64_t hash)
{
	uint64_t bits = pair_filter_bits(hash);
	return (set->filter[(hash & set->mask) >> 3] & bits) == bits;
}

/* Exact. The table has a free slot always. */
GPU_FN int pair_set_has(const struct set_view *set, uint32_t user, uint32_t item)
{
	uint64_t key = pair_key(user, item);
	uint64_t hash = pair_hash(key);
	if (!pair_set_maybe(set, hash))
		return 0;
	uint64_t at = hash & set->mask;
	for (;;) {
		uint64_t slot = set->slots[at];
		if (slot == key)
			return 1;
		if (slot == PAIR_FREE)
			return 0;
		at = (at + 1) & set->mask;
	}
}

/* 1: inserted, 0: was there. Other threads may insert at the same time, the same pair too: one of them gets the 1. */
GPU_FN int pair_table_insert(const struct pair_table *table, uint32_t user, uint32_t item)
{
	uint64_t key = pair_key(user, item);
	uint64_t hash = pair_hash(key);
	uint64_t at = hash & table->mask;
	for (;;) {
		uint64_t slot = atomicCAS(&table->slots[at], (unsigned long long)PAIR_FREE, (unsigned long long)key);
		if (slot == PAIR_FREE)
			break;
		if (slot == key)
			return 0;
		at = (at + 1) & table->mask;
	}
	(void)atomicOr(&table->filter[(hash & table->mask) >> 3], (unsigned long long)pair_filter_bits(hash));
	return 1;
}

#endif
