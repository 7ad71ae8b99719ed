/*
 * training_set.c: the training set (sampler.h): positives, the exact set of pairs, candidates, recent positives.
 *
 * The positives lie in uniformly random order: each insert swaps itself with a random earlier place (inside-out Fisher-Yates; the number comes from
 * Philox by the count of inserts), so a walk from front to back visits random pairs and memory in order. The engine's thread changes the set; training threads
 * only read it.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/array.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/pair_shard.h"
#include "trainer/learn/philox.h"

#define SHARD_MIN 16u
#define FILTER_BLOCK ((uint64_t)(8u << 20) / sizeof(uint64_t)) /* words of the first one; only what is used becomes memory */

static void shard_put(struct pair_shard *shard, uint64_t key, uint64_t hash)
{
	shard->slots[shard_find(shard, key, hash)] = key;
	*filter_word(shard, hash) |= filter_bits(hash);
}

/* n zeroed words; NULL: out of memory. */
static uint64_t *filter_take(struct filter_memory *memory, uint64_t n)
{
	uint64_t *block = memory->n_blocks ? memory->blocks[memory->n_blocks - 1] : NULL;
	if (memory->used + n > array_bytes(block) / sizeof *block) {
		void *fresh = NULL;
		if (memory->n_blocks == sizeof memory->blocks / sizeof *memory->blocks)
			return NULL;
		uint64_t words = FILTER_BLOCK << memory->n_blocks;
		if (array_grow(&fresh, (words > n ? words : n) * sizeof *block) < 0)
			return NULL;
		block = memory->blocks[memory->n_blocks++] = fresh;
		memory->used = 0;
	}
	memory->used += n;
	return block + (memory->used - n);
}

/* Room for one more at a load of at most 0.6. */
static int shard_make_room(struct filter_memory *memory, struct pair_shard *shard)
{
	uint64_t size = shard->slots ? (uint64_t)shard->mask + 1 : 0;
	if (((uint64_t)shard->used + 1) * 5 <= size * 3)
		return 0;
	struct pair_shard bigger = {.used = shard->used};
	uint64_t new_size = size ? size * 2 : SHARD_MIN;
	if (new_size > (uint64_t)UINT32_MAX + 1)
		return -ENOMEM;
	bigger.mask = (uint32_t)(new_size - 1);
	bigger.slots = malloc(new_size * sizeof *bigger.slots);
	bigger.filter = bigger.slots ? filter_take(memory, new_size / 8) : NULL;
	if (!bigger.filter) {
		free(bigger.slots);
		return -ENOMEM;
	}
	memset(bigger.slots, 0xff, new_size * sizeof *bigger.slots);
	for (uint64_t i = 0; i < size; i++) {
		uint64_t key = shard->slots[i];
		if (key != FREE_SLOT)
			shard_put(&bigger, key, pair_hash(key));
	}
	free(shard->slots);
	*shard = bigger;
	return 0;
}

void training_set_init(struct training_set *set, uint64_t seed)
{
	memset(set, 0, sizeof *set);
	set->seed = seed;
}

static void free_shards(struct training_set *set)
{
	for (uint32_t s = 0; s < PAIR_SHARDS; s++) {
		free(set->shards[s].slots);
		set->shards[s] = (struct pair_shard){0};
	}
	for (uint32_t b = 0; b < set->filters.n_blocks; b++)
		array_free(set->filters.blocks[b]);
	set->filters = (struct filter_memory){0};
}

void training_set_free(struct training_set *set)
{
	if (!set)
		return;
	free_shards(set);
	array_free(set->positives);
	array_free(set->weights);
	array_free(set->user_positives);
	array_free(set->candidates);
	array_free(set->is_candidate);
	array_free(set->recent);
	memset(set, 0, sizeof *set);
}

int training_set_grow(struct training_set *set, uint32_t n_users, uint32_t n_items)
{
	void *counts = set->user_positives;
	void *flags = set->is_candidate;
	void *candidates = set->candidates;
	int rc = array_reserve(&counts, n_users, sizeof *set->user_positives);
	if (rc == 0)
		rc = array_reserve(&flags, n_items, sizeof *set->is_candidate);
	if (rc == 0)
		rc = array_reserve(&candidates, n_items, sizeof *set->candidates);
	set->user_positives = counts;
	set->is_candidate = flags;
	set->candidates = candidates;
	if (rc < 0)
		return rc;
	if (n_users > set->n_users)
		set->n_users = n_users;
	if (n_items > set->n_items)
		set->n_items = n_items;
	return 0;
}

int training_set_add_candidate(struct training_set *set, uint32_t item)
{
	if (item >= set->n_items)
		return -EINVAL;
	if (set->is_candidate[item])
		return 0;
	set->is_candidate[item] = 1;
	set->candidates[set->n_candidates++] = item;
	return 1;
}

uint64_t training_set_swapped(const struct training_set *set, uint64_t k)
{
	struct philox_block random = philox4x32((uint32_t)k, (uint32_t)(k >> 32), (uint32_t)set->cleared, PHILOX_SHUFFLE, (uint32_t)set->seed,
	                                        (uint32_t)(set->seed >> 32));
	uint64_t bits = (uint64_t)random.v[0] << 32 | random.v[1];
	return (uint64_t)(((unsigned __int128)bits * (k + 1)) >> 64);
}

static void recent_push(struct training_set *set, struct recent_positive entry)
{
	if (set->n_recent == RECENT_MAX) {
		set->recent_owed -= set->recent[set->recent_head].left;
		set->recent_head = (set->recent_head + 1) % RECENT_MAX;
		set->recent_first++;
		set->n_recent--;
	}
	set->recent[(set->recent_head + set->n_recent) % RECENT_MAX] = entry;
	set->n_recent++;
	set->recent_owed += entry.left;
}

float training_set_weight_mean(const struct training_set *set)
{
	if (!set->weights || set->n_positives == 0)
		return 0.0f;
	return (float)(set->weight_max + log2(set->weight_sum / (double)set->n_positives));
}

/* Room for one more weight, if weights are kept or are to be from now on. */
static int reserve_weight(struct training_set *set, float weight_log2)
{
	if (!set->weights && weight_log2 == 0.0f)
		return 0;
	int first = !set->weights;
	void *weights = set->weights;
	int rc = array_reserve(&weights, set->n_positives + 1, sizeof *set->weights); /* new ones are 0: those that came without */
	set->weights = weights;
	if (rc == 0 && first) {
		set->weight_max = 0;
		set->weight_sum = (double)set->n_positives;
	}
	return rc;
}

/* Takes the weight into the sum: powers of two up to the highest so far, so that nothing overflows. */
static void sum_weight(struct training_set *set, double weight)
{
	if (set->n_positives == 0)
		set->weight_sum = 0;
	if (set->weight_sum <= 0 || weight > set->weight_max) {
		set->weight_sum *= set->weight_sum > 0 ? exp2(set->weight_max - weight) : 0;
		set->weight_max = weight;
	}
	set->weight_sum += exp2(weight - set->weight_max);
}

int training_set_add(struct training_set *set, uint32_t user, uint32_t item, uint32_t passes)
{
	return training_set_add_weighted(set, user, item, passes, 0.0f);
}

int training_set_add_weighted(struct training_set *set, uint32_t user, uint32_t item, uint32_t passes, float weight_log2)
{
	if (user >= set->n_users || item >= set->n_items || !bpr_is_finite(weight_log2))
		return -EINVAL;
	uint64_t key = pair_key(user, item);
	uint64_t hash = pair_hash(key);
	struct pair_shard *shard = &set->shards[hash_shard(hash)];
	if (shard->slots && shard->slots[shard_find(shard, key, hash)] == key)
		return 0;
	int rc = shard_make_room(&set->filters, shard);
	void *log = set->positives;
	if (rc == 0)
		rc = array_reserve(&log, set->n_positives + 1, sizeof *set->positives);
	set->positives = log;
	if (rc == 0)
		rc = reserve_weight(set, weight_log2);
	if (rc == 0 && passes && !set->recent) {
		void *ring = NULL;
		rc = array_grow(&ring, RECENT_MAX * sizeof *set->recent);
		set->recent = ring;
	}
	if (rc < 0)
		return rc;

	shard_put(shard, key, hash);
	shard->used++;
	if (set->weights)
		sum_weight(set, (double)weight_log2);
	uint64_t k = set->n_positives++;
	uint64_t place = training_set_swapped(set, k);
	set->positives[k] = set->positives[place];
	set->positives[place] = (struct user_item){.user = user, .item = item};
	if (set->weights) {
		set->weights[k] = set->weights[place];
		set->weights[place] = weight_log2;
	}
	set->user_positives[user]++;
	(void)training_set_add_candidate(set, item);
	if (passes)
		recent_push(set, (struct recent_positive){.user = user, .item = item, .left = passes, .weight = weight_log2});
	return 1;
}

void training_set_clear(struct training_set *set)
{
	free_shards(set);
	if (set->n_users)
		memset(set->user_positives, 0, set->n_users * sizeof *set->user_positives);
	set->n_positives = 0;
	set->n_grouped = 0;
	set->cleared++;
	set->recent_first += set->n_recent;
	set->recent_head = set->n_recent = 0;
	set->recent_owed = 0;
}

int training_set_has(const struct training_set *set, uint32_t user, uint32_t item)
{
	return set_has(set, user, item);
}

void training_set_prefetch(const struct training_set *set, uint32_t user, uint32_t item)
{
	uint64_t hash = pair_hash(pair_key(user, item));
	const struct pair_shard *shard = &set->shards[hash_shard(hash)];
	if (shard->slots)
		__builtin_prefetch(filter_word(shard, hash), 0, 3);
}

/*
 * Takes the plan's `turns` draws from the ring: whole rounds from every entry, one more from the first; what is left goes back in turn. Entries of the plan
 * that are gone (pushed out by newer ones, or cleared) were the oldest.
 */
static void recent_consume(struct training_set *set, const struct draw_plan *plan, uint64_t turns)
{
	uint64_t gone = set->recent_first - plan->recent_first;
	uint64_t rounds = turns / plan->n_recent;
	uint32_t rest = (uint32_t)(turns % plan->n_recent);
	uint32_t touched = rounds ? plan->n_recent : rest;
	for (uint64_t i = gone; i < touched; i++) {
		struct recent_positive entry = set->recent[set->recent_head];
		uint64_t taken = rounds + (i < rest);
		set->recent_head = (set->recent_head + 1) % RECENT_MAX;
		set->recent_first++;
		set->n_recent--;
		set->recent_owed -= entry.left;
		if (entry.left > taken) {
			entry.left -= (uint32_t)taken;
			recent_push(set, entry);
		}
	}
}

void training_set_advance(struct training_set *set, const struct draw_plan *plan, uint64_t draws)
{
	uint64_t steps = draws / plan->batch;
	uint32_t rest = (uint32_t)(draws % plan->batch);
	uint64_t turns = steps * plan->recent_per_step + (rest < plan->recent_per_step ? rest : plan->recent_per_step);
	set->step += steps + (rest != 0);
	if (plan->n_positives) {
		uint64_t walked = set->walk + (draws - turns);
		set->passes += walked / plan->n_positives;
		set->passes_here += walked / plan->n_positives;
		set->walk = walked % plan->n_positives;
	}
	if (turns && plan->n_recent)
		recent_consume(set, plan, turns);
}
