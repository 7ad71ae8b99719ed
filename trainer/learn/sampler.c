/*
 * sampler.c: draws from the training set (sampler.h). Negatives are uniform over the candidates, or as the plan's shares say (negatives.h), and verified against the
 * exact set. Training threads; the set does not change meanwhile.
 */
#include "trainer/learn/sampler.h"

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/pair_shard.h"
#include "trainer/learn/philox.h"

#define REDRAWS 15u    /* random tries for a negative before the candidates are scanned */
#define SKIPS_READ 64u /* skips of a user looked at */

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

/* Which positive of the walk the draw `index` of a step has; index: recent_per_step or more. */
static uint64_t walk_place(const struct draw_plan *plan, uint64_t job_step, uint32_t index)
{
	uint64_t n = plan->set->n_positives;
	uint64_t at = plan->walk + job_step * (plan->batch - plan->recent_per_step) + (index - plan->recent_per_step);
	return at < n ? at : at % n;
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
		at = walk_place(plan, job_step, draw->index);
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

static const uint64_t no_filter = 0;

/* Says that no pair is there. */
static inline struct draw_check no_check(void)
{
	return (struct draw_check){.word = &no_filter, .bits = 1};
}

/* Where the filter answers for a draw; begins to fetch it. Always inlined: gcc takes a function that only prefetches for one without effect. */
static inline __attribute__((always_inline)) struct draw_check check_of(const struct training_set *set, const struct draw *draw)
{
	uint64_t hash = pair_hash(pair_key(draw->user, draw->neg));
	const struct pair_shard *shard = &set->shards[hash_shard(hash)];
	const uint64_t *word = shard->slots ? filter_word(shard, hash) : &no_filter;
	__builtin_prefetch(word, 0, 3);
	return (struct draw_check){.word = word, .bits = filter_bits(hash)};
}

/* Any draws of one step, up to PHILOX_RUN. */
static void propose_any(const struct draw_plan *plan, uint64_t job_step, uint32_t index, uint32_t n, struct draw *draws, struct draw_check *checks)
{
	struct philox_many random;
	draw_randoms(plan, plan->step + job_step, index, n, &random);
	for (uint32_t l = 0; l < n; l++) {
		struct draw *draw = &draws[l];
		struct philox_block block = {{random.v[0][l], random.v[1][l], random.v[2][l], random.v[3][l]}};
		draw->index = index + l;
		draw->step = plan->step + job_step;
		choose_positive(plan, job_step, block.v[3], draw);
		choose_negative(plan, &block, draw);
		checks[l] = draw->kind != NEGATIVE_HARD ? check_of(plan->set, draw) : no_check();
	}
}

/* The same for the usual ones: the positives are positives[n], of one weight, and no negative is a skip or popular. */
static void propose_usual(const struct draw_plan *plan, uint64_t step, uint32_t index, uint32_t n, const struct user_item *positives, struct draw *draws,
                          struct draw_check *checks)
{
	const struct training_set *set = plan->set;
	struct philox_many random;
	draw_randoms(plan, step, index, n, &random);
	for (uint32_t l = 0; l < n; l++) {
		draws[l] = (struct draw){
			.user = positives[l].user,
			.pos = positives[l].item,
			.neg = set->candidates[philox_below(random.v[0][l], set->n_candidates)],
			.index = index + l,
			.step = step,
			.kind = random.v[1][l] < plan->hard_below ? NEGATIVE_HARD : NEGATIVE_UNIFORM,
			.weight = 1.0f,
		};
		checks[l] = draws[l].kind != NEGATIVE_HARD ? check_of(set, &draws[l]) : no_check();
	}
}

void sampler_propose_checked(const struct draw_plan *plan, uint64_t first, uint32_t n, struct draw *ret_draws, struct draw_check *ret_checks)
{
	const struct training_set *set = plan->set;
	uint64_t job_step = first / plan->batch;
	uint32_t index = (uint32_t)(first % plan->batch);
	for (uint32_t done = 0; done < n;) {
		uint32_t part = n - done < PHILOX_RUN ? n - done : PHILOX_RUN;
		part = part < plan->batch - index ? part : plan->batch - index;
		uint64_t at = walk_place(plan, job_step, index);
		if (index >= plan->recent_per_step && at + part <= set->n_positives && !set->weights && plan->popular_below == 0)
			propose_usual(plan, plan->step + job_step, index, part, set->positives + at, ret_draws + done, ret_checks + done);
		else
			propose_any(plan, job_step, index, part, ret_draws + done, ret_checks + done);
		done += part;
		index += part;
		if (index == plan->batch) {
			index = 0;
			job_step++;
		}
	}
}

void sampler_propose(const struct draw_plan *plan, uint64_t first, uint32_t n, struct draw *ret_draws)
{
	struct draw_check checks[PHILOX_RUN];
	for (uint32_t done = 0; done < n; done += PHILOX_RUN)
		sampler_propose_checked(plan, first + done, n - done < PHILOX_RUN ? n - done : PHILOX_RUN, ret_draws + done, checks);
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

/* Begins to fetch the slot where the search for a pair begins: far away, on a page whose address is not at hand. */
static inline __attribute__((always_inline)) void slot_prefetch(const struct training_set *set, uint32_t user, uint32_t item)
{
	uint64_t hash = pair_hash(pair_key(user, item));
	const struct pair_shard *shard = &set->shards[hash_shard(hash)];
	__builtin_prefetch(&shard->slots[(uint32_t)hash & shard->mask], 0, 3);
}

uint32_t sampler_look(const struct draw_plan *plan, uint32_t n, const struct draw *draws, const struct draw_check *checks)
{
	uint32_t hits = 0;
	for (uint32_t i = 0; i < n; i++)
		hits |= (uint32_t)((*checks[i].word & checks[i].bits) == checks[i].bits) << i;
	for (uint32_t left = hits; left; left &= left - 1) {
		const struct draw *draw = &draws[__builtin_ctz(left)];
		slot_prefetch(plan->set, draw->user, draw->neg);
	}
	return hits;
}

void sampler_confirm(const struct draw_plan *plan, uint32_t hits, struct draw *draws)
{
	for (; hits; hits &= hits - 1) {
		struct draw *draw = &draws[__builtin_ctz(hits)];
		if (set_has(plan->set, draw->user, draw->neg))
			draw->neg = sampler_redraw(plan->set, draw);
	}
}
