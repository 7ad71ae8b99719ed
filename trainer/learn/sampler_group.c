/*
 * sampler_group.c: the grouped order of the positives (sampler.h), so that a user's row is used several times while it is in the nearest cache.
 *
 * The positives are sorted by user, mixed within each user and cut into runs of up to GROUP_RUN. Runs come in random order; GROUP_USERS of them are open at a
 * time and give a positive in turn, and where one ends the next one takes its place. So neighbours in the walk mostly differ in their users, as the windows of
 * the row kernels want it (cpu_update.h), and a user comes back after GROUP_USERS triples. One thread, the engine's, between jobs.
 */
#include "trainer/learn/sampler.h"

#include <errno.h>
#include <stdlib.h>

#include "trainer/learn/philox.h"

struct run {
	uint32_t user;
	uint32_t n;
	uint64_t at; /* its first place in struct sorted */
};

/* The positives by user. */
struct sorted {
	uint64_t *begin; /* [n_users + 1] */
	uint32_t *items; /* [n_positives] */
	float *weights;  /* [n_positives], NULL without weights */
	struct run *runs;
	uint64_t n_runs;
};

/* Random numbers by count; a pure function of the set's seed and the order's number. */
struct numbers {
	const struct training_set *set;
	uint64_t taken;
	struct philox_block block;
};

/* Below n. */
static uint64_t next_below(struct numbers *numbers, uint64_t n)
{
	uint64_t k = numbers->taken++;
	if (k % 2 == 0)
		numbers->block = philox4x32((uint32_t)(k / 2), (uint32_t)(k / 2 >> 32), (uint32_t)numbers->set->regrouped, PHILOX_GROUP,
		                            (uint32_t)numbers->set->seed, (uint32_t)(numbers->set->seed >> 32));
	uint64_t bits = (uint64_t)numbers->block.v[k % 2 * 2] << 32 | numbers->block.v[k % 2 * 2 + 1];
	return (uint64_t)(((unsigned __int128)bits * n) >> 64);
}

static int sorted_new(const struct training_set *set, struct sorted *ret)
{
	uint64_t n_runs = 0;
	for (uint32_t u = 0; u < set->n_users; u++)
		n_runs += (set->user_positives[u] + GROUP_RUN - 1) / GROUP_RUN;
	*ret = (struct sorted){
		.begin = calloc((size_t)set->n_users + 1, sizeof *ret->begin),
		.items = malloc((set->n_positives + 1) * sizeof *ret->items),
		.weights = set->weights ? malloc((set->n_positives + 1) * sizeof *ret->weights) : NULL,
		.runs = malloc((n_runs + 1) * sizeof *ret->runs),
	};
	return ret->begin && ret->items && ret->runs && (ret->weights || !set->weights) ? 0 : -ENOMEM;
}

static void sorted_free(struct sorted *sorted)
{
	free(sorted->begin);
	free(sorted->items);
	free(sorted->weights);
	free(sorted->runs);
}

/* begin[u + 1] moves from the begin of user u to its end while his positives come in. */
static void sort_by_user(const struct training_set *set, struct sorted *sorted)
{
	uint64_t sum = 0;
	for (uint32_t u = 0; u < set->n_users; u++) {
		sorted->begin[u + 1] = sum;
		sum += set->user_positives[u];
	}
	for (uint64_t k = 0; k < set->n_positives; k++) {
		uint64_t at = sorted->begin[(uint64_t)set->positives[k].user + 1]++;
		sorted->items[at] = set->positives[k].item;
		if (sorted->weights)
			sorted->weights[at] = set->weights[k];
	}
}

/* Fisher and Yates within one user. */
static void mix_user(struct sorted *sorted, uint64_t begin, uint64_t n, struct numbers *numbers)
{
	for (uint64_t k = n; k > 1; k--) {
		uint64_t a = begin + k - 1, b = begin + next_below(numbers, k);
		uint32_t item = sorted->items[a];
		sorted->items[a] = sorted->items[b];
		sorted->items[b] = item;
		if (sorted->weights) {
			float weight = sorted->weights[a];
			sorted->weights[a] = sorted->weights[b];
			sorted->weights[b] = weight;
		}
	}
}

static void cut_runs(const struct training_set *set, struct sorted *sorted, struct numbers *numbers)
{
	for (uint32_t u = 0; u < set->n_users; u++) {
		uint64_t begin = sorted->begin[u], n = sorted->begin[u + 1] - begin;
		mix_user(sorted, begin, n, numbers);
		for (uint64_t k = 0; k < n; k += GROUP_RUN)
			sorted->runs[sorted->n_runs++] = (struct run){.user = u, .n = n - k < GROUP_RUN ? (uint32_t)(n - k) : GROUP_RUN, .at = begin + k};
	}
	for (uint64_t k = sorted->n_runs; k > 1; k--) {
		uint64_t other = next_below(numbers, k);
		struct run run = sorted->runs[k - 1];
		sorted->runs[k - 1] = sorted->runs[other];
		sorted->runs[other] = run;
	}
}

/* Writes the new order over the old one. */
static void take_turns(struct training_set *set, const struct sorted *sorted)
{
	struct run open[GROUP_USERS] = {0};
	uint64_t next = 0;
	for (uint64_t k = 0, turn = 0; k < set->n_positives; turn++) {
		struct run *run = &open[turn % GROUP_USERS];
		if (run->n == 0) {
			if (next == sorted->n_runs)
				continue; /* the last ones end */
			*run = sorted->runs[next++];
		}
		set->positives[k] = (struct user_item){.user = run->user, .item = sorted->items[run->at]};
		if (sorted->weights)
			set->weights[k] = sorted->weights[run->at];
		run->at++;
		run->n--;
		k++;
	}
}

int training_set_group(struct training_set *set)
{
	struct sorted sorted;
	struct numbers numbers = {.set = set};
	int rc = sorted_new(set, &sorted);
	if (rc == 0) {
		sort_by_user(set, &sorted);
		cut_runs(set, &sorted, &numbers);
		take_turns(set, &sorted);
		set->n_grouped = set->n_positives;
		set->regrouped++;
	}
	sorted_free(&sorted);
	return rc;
}
