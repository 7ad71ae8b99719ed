/*
 * pair_shard.h: where a pair of user and item lies in the training set's exact set, and in the filter before it (sampler.h). Internal to trainer/learn: the set
 * (training_set.c) puts pairs there, the sampler looks them up.
 */
#ifndef TRAINER_LEARN_PAIR_SHARD_H
#define TRAINER_LEARN_PAIR_SHARD_H

#include "trainer/learn/sampler.h"

#define FREE_SLOT UINT64_MAX

static inline uint64_t pair_key(uint32_t user, uint32_t item)
{
	return (uint64_t)user << 32 | item;
}

static inline uint64_t pair_hash(uint64_t key)
{
	key ^= key >> 32;
	key *= 0x9E3779B97F4A7C15u;
	key ^= key >> 29;
	key *= 0xBF58476D1CE4E5B9u;
	return key ^ key >> 32;
}

static inline uint32_t hash_shard(uint64_t hash)
{
	return (uint32_t)(hash >> 56);
}

/* The place of the key in its shard, or the free slot where it would go. The shard has at least one free slot. */
static inline uint32_t shard_find(const struct pair_shard *shard, uint64_t key, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & shard->mask;
	while (shard->slots[i] != FREE_SLOT && shard->slots[i] != key)
		i = (i + 1) & shard->mask;
	return i;
}

static inline uint64_t *filter_word(const struct pair_shard *shard, uint64_t hash)
{
	return &shard->filter[((uint32_t)hash & shard->mask) >> 3];
}

static inline uint64_t filter_bits(uint64_t hash)
{
	return (uint64_t)1 << (hash >> 32 & 63) | (uint64_t)1 << (hash >> 40 & 63) | (uint64_t)1 << (hash >> 48 & 63);
}

/* Exact; the filter answers for most pairs that are not there. */
static inline int set_has(const struct training_set *set, uint32_t user, uint32_t item)
{
	uint64_t key = pair_key(user, item);
	uint64_t hash = pair_hash(key);
	const struct pair_shard *shard = &set->shards[hash_shard(hash)];
	if (!shard->slots || (*filter_word(shard, hash) & filter_bits(hash)) != filter_bits(hash))
		return 0;
	return shard->slots[shard_find(shard, key, hash)] == key;
}

#endif
