/*
 * train_validate.c: cuts the validation slice and judges tables on it (train_validate.h). Main thread of recctl; the users of a slice are judged on several threads.
 */
#include "daemon/recctl/train_validate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/baseline.h"

/* A positive on its way into the slice or not. */
struct dated {
	int64_t time_us;
	uint64_t hash;
	uint32_t user, item;
};

/* The finalizer of SplitMix64 over the seed and external ids, so that the slice does not depend on the order of the rows. */
static uint64_t hash_of(uint64_t seed, int64_t user_id, int64_t item_id)
{
	uint64_t x = seed ^ ((uint64_t)user_id * 0x9e3779b97f4a7c15u) ^ ((uint64_t)item_id * 0xc2b2ae3d27d4eb4fu);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static int latest_first(const void *pa, const void *pb)
{
	const struct dated *a = pa, *b = pb;

	if (a->time_us != b->time_us)
		return a->time_us > b->time_us ? -1 : 1;
	return (a->hash < b->hash) - (a->hash > b->hash);
}

static int compare_items(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* All positives with their times. *ret_dated is the caller's. */
static int list_positives(const struct state *state, uint64_t seed, struct dated **ret_dated, size_t *ret_n)
{
	struct user_facts facts;
	uint32_t n_users = state_n_users(state);
	size_t n = 0, max = 0;

	for (uint32_t u = 0; u < n_users; u++) {
		state_user_facts(state, u, &facts);
		max += state_positives(state, &facts, NULL, 0);
	}
	struct dated *dated = malloc((max + 1) * sizeof(*dated));
	if (!dated)
		return -ENOMEM;
	for (uint32_t u = 0; u < n_users; u++) {
		state_user_facts(state, u, &facts);
		for (uint32_t i = 0; i < facts.n_watches && n < max; i++) {
			const struct watch_fact *w = &facts.watches[i];

			if (state_is_positive(state, w))
				dated[n++] = (struct dated){ w->best_us != STATE_TIME_NONE ? w->best_us : w->last_us,
					                     hash_of(seed, state_user_ids(state)[u], state_item_ids(state)[w->item]), u, w->item };
		}
	}
	*ret_dated = dated;
	*ret_n = n;
	return 0;
}

/* Moves to the front what enters the slice: each user keeps one positive. `kept` [users]: positives left to each. Returns how many. */
static size_t choose(struct dated *dated, size_t n, size_t wanted, uint32_t *kept)
{
	size_t chosen = 0;

	for (size_t i = 0; i < n; i++)
		kept[dated[i].user]++;
	for (size_t i = 0; i < n && chosen < wanted; i++) {
		if (kept[dated[i].user] < 2)
			continue;
		kept[dated[i].user]--;
		dated[chosen++] = dated[i];
	}
	return chosen;
}

static int by_user_item(const void *pa, const void *pb)
{
	const struct dated *a = pa, *b = pb;

	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	return (a->item > b->item) - (a->item < b->item);
}

/* Fills the users from the slice, sorted by user and item. */
static int fill_users(const struct state *state, const struct dated *slice, size_t n, struct validation *v)
{
	struct user_facts facts;
	size_t n_items = 0, at = 0;

	for (size_t i = 0; i < n; i++) {
		if (i && slice[i].user == slice[i - 1].user)
			continue;
		state_user_facts(state, slice[i].user, &facts);
		n_items += facts.n_watches;
		v->n_users++;
	}
	v->users = calloc(v->n_users + 1, sizeof(*v->users));
	v->items = malloc((n_items + 1) * sizeof(*v->items));
	if (!v->users || !v->items)
		return -ENOMEM;
	size_t begin = 0;
	for (size_t u = 0; u < v->n_users; u++) {
		struct rank_user *user = &v->users[u];
		uint32_t *relevant = v->items + at;

		user->user = slice[begin].user;
		v->index_of[user->user] = (uint32_t)u;
		user->relevant = relevant;
		for (; begin < n && slice[begin].user == user->user; begin++)
			relevant[user->n_relevant++] = slice[begin].item;
		uint32_t *masked = relevant + user->n_relevant;
		user->masked = masked;
		state_user_facts(state, user->user, &facts);
		for (uint32_t i = 0; i < facts.n_watches; i++) {
			uint32_t item = facts.watches[i].item;

			if (!bsearch(&item, relevant, user->n_relevant, sizeof(item), compare_items))
				masked[user->n_masked++] = item;
		}
		qsort(masked, user->n_masked, sizeof(*masked), compare_items);
		at += user->n_relevant + user->n_masked;
	}
	return 0;
}

int validation_cut(const struct state *state, double share, uint64_t seed, struct validation *ret_validation)
{
	struct validation v = { .n_state_users = state_n_users(state) };
	struct dated *dated = NULL;
	size_t n = 0;
	uint32_t *kept = calloc(v.n_state_users + 1u, sizeof(*kept));

	v.index_of = malloc((v.n_state_users + 1u) * sizeof(*v.index_of));
	int rc = kept && v.index_of ? list_positives(state, seed, &dated, &n) : -ENOMEM;
	for (uint32_t u = 0; !rc && u < v.n_state_users; u++)
		v.index_of[u] = STATE_NONE;
	if (!rc) {
		qsort(dated, n, sizeof(*dated), latest_first);
		v.n_pairs = choose(dated, n, (size_t)(share * (double)n + 0.999999), kept);
		qsort(dated, v.n_pairs, sizeof(*dated), by_user_item);
		rc = v.n_pairs ? fill_users(state, dated, v.n_pairs, &v) : -ENODATA;
	}
	free(dated);
	free(kept);
	*ret_validation = v;
	return rc;
}

void validation_free(struct validation *validation)
{
	free(validation->users);
	free(validation->items);
	free(validation->index_of);
	*validation = (struct validation){ 0 };
}

int validation_has(const struct validation *validation, uint32_t user, uint32_t item)
{
	uint32_t index = user < validation->n_state_users ? validation->index_of[user] : STATE_NONE;

	if (index == STATE_NONE)
		return 0;
	const struct rank_user *of = &validation->users[index];
	return bsearch(&item, of->relevant, of->n_relevant, sizeof(item), compare_items) != NULL;
}

int validation_judge(const struct rank_user *users, size_t n_users, const struct tables *tables, uint32_t n_items, uint32_t k, uint32_t threads,
                     double *ret_ndcg)
{
	size_t n = n_users < VALIDATE_USERS_MAX ? n_users : VALIDATE_USERS_MAX;
	struct rank_user *picked = malloc((n + 1) * sizeof(*picked));
	float *nobody = calloc(tables->dim + 1u, sizeof(*nobody)); /* the row of a user without one */
	struct model_scores model = { .tables = tables, .mean_user = nobody, .n_items = n_items };
	struct rank_metrics metrics;
	int rc = -ENOMEM;

	if (picked && nobody) {
		for (size_t i = 0; i < n; i++)
			picked[i] = users[i * n_users / n];
		rc = rank_evaluate(picked, n, n_items, k, model_score, &model, threads, NULL, &metrics);
	}
	if (!rc)
		*ret_ndcg = metrics.ndcg;
	free(picked);
	free(nobody);
	return rc;
}
