/*
 * sampler.c: the training set (sampler.h) and the draws from it.
 *
 * The positives lie in uniformly random order: each insert swaps itself with a random earlier place (inside-out Fisher-Yates; the number comes from
 * Philox by the count of inserts), so a walk from front to back visits random pairs and memory in order. Negatives are uniform over the
 * candidates and verified against the exact set. The engine's thread changes the set; training threads only read it.
 */
#include "trainer/learn/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/array.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/philox.h"

#define FREE_SLOT UINT64_MAX
#define SHARD_MIN 16u
#define FILTER_BLOCK ((uint64_t)(8u << 20) / sizeof(uint64_t)) /* words of the first one; only what is used becomes memory */
#define REDRAWS 15u    /* random tries for a negative before the candidates are scanned */
#define SKIPS_READ 64u /* skips of a user looked at */

static uint64_t pair_key(uint32_t user, uint32_t item)
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
	return (uint64_t)1 << (hash >> 32 & 63) | (uint64_t)1 << (hash >> 40 & 63);
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

/* Room for `need` elements; a full array grows by half. */
static int reserve(void **array, uint64_t need, size_t size)
{
	uint64_t have = array_bytes(*array) / size;
	if (need <= have)
		return 0;
	uint64_t want = have + have / 2;
	return array_grow(array, (want > need ? want : need) * size);
}

int training_set_grow(struct training_set *set, uint32_t n_users, uint32_t n_items)
{
	void *counts = set->user_positives;
	void *flags = set->is_candidate;
	void *candidates = set->candidates;
	int rc = reserve(&counts, n_users, sizeof *set->user_positives);
	if (rc == 0)
		rc = reserve(&flags, n_items, sizeof *set->is_candidate);
	if (rc == 0)
		rc = reserve(&candidates, n_items, sizeof *set->candidates);
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
	int rc = reserve(&weights, set->n_positives + 1, sizeof *set->weights); /* new ones are 0: those that came without */
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
		rc = reserve(&log, set->n_positives + 1, sizeof *set->positives);
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

/* Always inlined: gcc takes a function that only prefetches for one without effect, and leaves its calls out. */
static inline __attribute__((always_inline)) void set_prefetch(const struct training_set *set, uint32_t user, uint32_t item)
{
	uint64_t hash = pair_hash(pair_key(user, item));
	const struct pair_shard *shard = &set->shards[hash_shard(hash)];
	if (shard->slots)
		__builtin_prefetch(filter_word(shard, hash), 0, 3);
}

void training_set_prefetch(const struct training_set *set, uint32_t user, uint32_t item)
{
	set_prefetch(set, user, item);
}

/* A share of all 32-bit random numbers. Shares of floats that make 1 together may miss it by a rounding. */
static uint64_t share_below(double share)
{
	return share > 1.0 - 1e-6 ? (uint64_t)1 << 32 : (uint64_t)(share * 4294967296.0);
}

void draw_plan_make(const struct training_set *set, const struct learn_options *options, struct draw_plan *ret_plan)
{
	struct draw_plan plan = {
		.set = set,
		.kernels = row_kernels_best(),
		.step = set->step,
		.walk = set->walk,
		.batch = options->batch_size,
		.recent_head = set->recent_head,
		.n_recent = set->n_recent,
		.recent_first = set->recent_first,
		.n_positives = set->n_positives,
		.weight_log2 = training_set_weight_mean(set),
	};
	if (set->n_recent) {
		float share = (float)plan.batch * options->recent_share + 0.5f;
		plan.recent_per_step = share >= (float)plan.batch ? plan.batch : (uint32_t)share;
		if (plan.recent_per_step == 0 && options->recent_share > 0.0f)
			plan.recent_per_step = 1;
	}
	double below = set->skips ? (double)options->skip_share : 0.0;
	plan.skip_below = share_below(below);
	below += set->popular ? (double)options->popular_share : 0.0;
	plan.popular_below = share_below(below);
	below += options->hard_of > 1 ? (double)options->hard_share : 0.0;
	plan.hard_below = share_below(below);
	plan.hard_of = options->hard_of;
	*ret_plan = plan;
}

static struct philox_block draw_random(const struct training_set *set, const struct draw *draw, uint32_t attempt)
{
	return philox4x32(draw->index, (uint32_t)draw->step, (uint32_t)(draw->step >> 32), PHILOX_NEGATIVE + attempt, (uint32_t)set->seed,
	                  (uint32_t)(set->seed >> 32));
}

/* The positive of a draw: a recent one that is still owed at this point of the job, or the next of the walk. */
static void choose_positive(const struct draw_plan *plan, uint64_t job_step, uint32_t random, struct draw *draw)
{
	const struct training_set *set = plan->set;
	uint64_t at;
	if (draw->index < plan->recent_per_step) {
		uint64_t turn = job_step * plan->recent_per_step + draw->index;
		uint32_t place = (uint32_t)(turn % plan->n_recent);
		const struct recent_positive *recent = &set->recent[(plan->recent_head + place) % RECENT_MAX];
		if (turn / plan->n_recent < recent->left) {
			draw->user = recent->user;
			draw->pos = recent->item;
			draw->weight = set->weights ? bpr_weight(recent->weight, plan->weight_log2) : 1.0f;
			return;
		}
		at = (uint64_t)(((unsigned __int128)((uint64_t)random << 32) * set->n_positives) >> 64); /* its draws are used up: any positive */
	} else {
		at = plan->walk + job_step * (plan->batch - plan->recent_per_step) + (draw->index - plan->recent_per_step);
		at = at < set->n_positives ? at : at % set->n_positives;
	}
	draw->user = set->positives[at].user;
	draw->pos = set->positives[at].item;
	draw->weight = set->weights ? bpr_weight(set->weights[at], plan->weight_log2) : 1.0f;
}

/* One of the user's skips, or SAMPLE_NONE. */
static uint32_t choose_skip(const struct training_set *set, uint32_t user, uint32_t random)
{
	const struct skip_source *skips = set->skips;
	uint32_t read[SKIPS_READ];
	const uint32_t *items = read;
	uint64_t n = 0;
	if (!skips->offsets) {
		n = skips->list(skips->ctx, user, read, SKIPS_READ);
	} else if (user < skips->n_users) {
		items = skips->items + skips->offsets[user];
		n = skips->offsets[user + 1] - skips->offsets[user];
	}
	if (n == 0)
		return SAMPLE_NONE;
	uint32_t item = items[philox_below(random, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX)];
	return item < set->n_items ? item : SAMPLE_NONE;
}

/* The first candidate. A user without skips gets a uniform one. */
static void choose_negative(const struct draw_plan *plan, const struct philox_block *random, struct draw *draw)
{
	const struct training_set *set = plan->set;
	uint32_t place = philox_below(random->v[0], set->n_candidates), kind = random->v[1];
	draw->kind = NEGATIVE_UNIFORM;
	draw->neg = set->candidates[place];
	if (kind < plan->skip_below) {
		uint32_t skip = choose_skip(set, draw->user, random->v[2]);
		if (skip != SAMPLE_NONE) {
			draw->kind = NEGATIVE_SKIP;
			draw->neg = skip;
		}
	} else if (kind < plan->popular_below) {
		draw->kind = NEGATIVE_POPULAR;
		draw->neg = set->candidates[alias_pick(set->popular, place, random->v[2])];
	} else if (kind < plan->hard_below) {
		draw->kind = NEGATIVE_HARD;
	}
}

/* The random numbers of the draws index..index + n - 1 of a step. */
static void draw_randoms(const struct draw_plan *plan, uint64_t step, uint32_t index, uint32_t n, struct philox_many *ret)
{
	const struct training_set *set = plan->set;
	if (n > 1) {
		plan->kernels->philox_run(index, (uint32_t)step, (uint32_t)(step >> 32), PHILOX_NEGATIVE, (uint32_t)set->seed,
		                          (uint32_t)(set->seed >> 32), ret);
		return;
	}
	struct philox_block one = philox4x32(index, (uint32_t)step, (uint32_t)(step >> 32), PHILOX_NEGATIVE, (uint32_t)set->seed,
	                                     (uint32_t)(set->seed >> 32));
	for (int k = 0; k < 4; k++)
		ret->v[k][0] = one.v[k];
}

void sampler_propose(const struct draw_plan *plan, uint64_t first, uint32_t n, struct draw *ret_draws)
{
	const struct training_set *set = plan->set;
	uint64_t job_step = first / plan->batch;
	uint32_t index = (uint32_t)(first % plan->batch);
	struct philox_many random;
	for (uint32_t done = 0; done < n;) {
		uint32_t part = n - done < PHILOX_RUN ? n - done : PHILOX_RUN;
		part = part < plan->batch - index ? part : plan->batch - index;
		draw_randoms(plan, plan->step + job_step, index, part, &random);
		for (uint32_t l = 0; l < part; l++) {
			struct draw *draw = &ret_draws[done + l];
			struct philox_block block = {{random.v[0][l], random.v[1][l], random.v[2][l], random.v[3][l]}};
			draw->index = index + l;
			draw->step = plan->step + job_step;
			choose_positive(plan, job_step, block.v[3], draw);
			choose_negative(plan, &block, draw);
			if (draw->kind != NEGATIVE_HARD)
				set_prefetch(set, draw->user, draw->neg);
		}
		done += part;
		index += part;
		if (index == plan->batch) {
			index = 0;
			job_step++;
		}
	}
}

uint32_t sampler_redraw(const struct training_set *set, const struct draw *draw)
{
	if (set->user_positives[draw->user] >= set->n_candidates)
		return SAMPLE_NONE;
	for (uint32_t attempt = 1; attempt <= REDRAWS; attempt++) {
		struct philox_block random = draw_random(set, draw, attempt);
		for (int i = 0; i < 4; i++) {
			uint32_t place = philox_below(random.v[i], set->n_candidates);
			if (draw->kind == NEGATIVE_POPULAR)
				place = alias_pick(set->popular, place, random.v[++i]);
			uint32_t item = set->candidates[place];
			if (!set_has(set, draw->user, item))
				return item;
		}
	}
	uint32_t at = philox_below(draw_random(set, draw, REDRAWS + 1).v[0], set->n_candidates);
	for (uint32_t i = 0; i < set->n_candidates; i++) {
		uint32_t item = set->candidates[at];
		if (!set_has(set, draw->user, item))
			return item;
		at = at + 1 < set->n_candidates ? at + 1 : 0;
	}
	return SAMPLE_NONE;
}

void sampler_settle(const struct draw_plan *plan, uint32_t n, struct draw *draws)
{
	for (uint32_t i = 0; i < n; i++)
		if (draws[i].kind != NEGATIVE_HARD && set_has(plan->set, draws[i].user, draws[i].neg))
			draws[i].neg = sampler_redraw(plan->set, &draws[i]);
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
