/*
 * baseline_knn.c: item-kNN, the neighbourhood baseline (Sarwar et al., WWW 2001; top-N form: Deshpande and Karypis, TOIS 2004), with cosine similarity and
 * shrinkage.
 *
 * Main thread of recctl makes the lists of users and items; neighbours are found item by item on several threads (parallel.h), each with a counter for every
 * item. Then it only reads. Positives are kept in two directions (4 bytes each), neighbours in rows of fixed length.
 */
#include "daemon/recctl/baseline.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/parallel.h"

#define GRAIN 256u

struct neighbour {
	float similarity;
	uint32_t item;
};

struct knn_scores {
	const struct popularity_scores *popularity;
	float *behind; /* [popularity->n_items] below 0: what an item without neighbours in a history gets, by popularity */
	uint32_t n_users, n_items, width;
	double shrink;
	uint64_t *user_start; /* [n_users + 1] */
	uint32_t *of_user;    /* items, user by user */
	uint64_t *item_start; /* [n_items + 1] */
	uint32_t *of_item;    /* users, item by item */
	struct neighbour *neighbours; /* [n_items, width], best first */
	uint32_t *n_neighbours;       /* [n_items] */
};

void knn_scores_free(struct knn_scores *knn)
{
	if (!knn)
		return;
	free(knn->behind);
	free(knn->user_start);
	free(knn->of_user);
	free(knn->item_start);
	free(knn->of_item);
	free(knn->neighbours);
	free(knn->n_neighbours);
	free(knn);
}

/* Positives by user, at most KNN_USER_MAX of each. */
static int list_users(struct knn_scores *knn, const struct state *state)
{
	uint32_t *positives = NULL;
	size_t capacity = 0;
	uint64_t n = 0;
	struct user_facts facts;

	for (uint32_t u = 0; u < knn->n_users; u++) {
		state_user_facts(state, u, &facts);
		size_t of = state_positives(state, &facts, NULL, 0);

		knn->user_start[u] = n;
		n += of < KNN_USER_MAX ? of : KNN_USER_MAX;
		capacity = of > capacity ? of : capacity;
	}
	knn->user_start[knn->n_users] = n;
	knn->of_user = malloc((n + 1) * sizeof(*knn->of_user));
	positives = malloc((capacity + 1) * sizeof(*positives));
	if (!knn->of_user || !positives) {
		free(positives);
		return -ENOMEM;
	}
	for (uint32_t u = 0; u < knn->n_users; u++) {
		uint64_t kept = knn->user_start[u + 1] - knn->user_start[u];

		state_user_facts(state, u, &facts);
		size_t of = state_positives(state, &facts, positives, capacity);
		for (uint64_t i = 0; i < kept; i++)
			knn->of_user[knn->user_start[u] + i] = positives[i * of / kept];
	}
	free(positives);
	return 0;
}

/* The same pairs by item. */
static int list_items(struct knn_scores *knn)
{
	uint64_t n = knn->user_start[knn->n_users];
	uint64_t *at = calloc(knn->n_items + 1u, sizeof(*at));

	knn->of_item = malloc((n + 1) * sizeof(*knn->of_item));
	if (!knn->of_item || !at) {
		free(at);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < n; i++)
		knn->item_start[knn->of_user[i] + 1]++;
	for (uint32_t i = 0; i < knn->n_items; i++)
		knn->item_start[i + 1] += knn->item_start[i];
	memcpy(at, knn->item_start, knn->n_items * sizeof(*at));
	for (uint32_t u = 0; u < knn->n_users; u++)
		for (uint64_t i = knn->user_start[u]; i < knn->user_start[u + 1]; i++)
			knn->of_item[at[knn->of_user[i]]++] = u;
	free(at);
	return 0;
}

/* ---- neighbours ---- */

static int best_first(const void *pa, const void *pb)
{
	const struct neighbour *a = pa, *b = pb;

	if (a->similarity != b->similarity)
		return a->similarity > b->similarity ? -1 : 1;
	return a->item < b->item ? -1 : a->item > b->item;
}

static void sift_down(struct neighbour *heap, uint32_t n, uint32_t at)
{
	for (;;) {
		uint32_t worst = at, left = 2 * at + 1;

		if (left < n && best_first(&heap[left], &heap[worst]) > 0)
			worst = left;
		if (left + 1 < n && best_first(&heap[left + 1], &heap[worst]) > 0)
			worst = left + 1;
		if (worst == at)
			return;
		struct neighbour moved = heap[at];
		heap[at] = heap[worst];
		heap[worst] = moved;
		at = worst;
	}
}

/* The best `width` of n candidates to the front, best first; a popular item has met nearly all others. Returns how many there are. */
static uint32_t keep_best(struct neighbour *met, uint32_t n, uint32_t width)
{
	uint32_t kept = n < width ? n : width;

	for (uint32_t at = kept / 2; at-- > 0;) /* a heap with the worst one on top */
		sift_down(met, kept, at);
	for (uint32_t i = kept; i < n; i++) {
		if (best_first(&met[i], &met[0]) < 0) {
			met[0] = met[i];
			sift_down(met, kept, 0);
		}
	}
	qsort(met, kept, sizeof(*met), best_first);
	return kept;
}

/* One thread's memory. */
struct counting {
	uint32_t *common;  /* [n_items] zero between items */
	struct neighbour *met; /* [n_items] */
};

static void find_neighbours(struct knn_scores *knn, struct counting *c, uint32_t item)
{
	uint32_t n_met = 0;
	double users = (double)(knn->item_start[item + 1] - knn->item_start[item]);

	for (uint64_t i = knn->item_start[item]; i < knn->item_start[item + 1]; i++) {
		uint32_t user = knn->of_item[i];

		for (uint64_t j = knn->user_start[user]; j < knn->user_start[user + 1]; j++) {
			uint32_t other = knn->of_user[j];

			if (other != item && !c->common[other]++)
				c->met[n_met++].item = other;
		}
	}
	for (uint32_t i = 0; i < n_met; i++) {
		uint32_t other = c->met[i].item;
		double of_other = (double)(knn->item_start[other + 1] - knn->item_start[other]);

		c->met[i].similarity = (float)(c->common[other] / (sqrt(users * of_other) + knn->shrink));
		c->common[other] = 0;
	}
	knn->n_neighbours[item] = keep_best(c->met, n_met, knn->width);
	memcpy(knn->neighbours + (size_t)item * knn->width, c->met, knn->n_neighbours[item] * sizeof(*c->met));
}

static int find_range(void *ctx, uint32_t begin, uint32_t end)
{
	struct knn_scores *knn = ctx;
	struct counting c = { calloc(knn->n_items + 1u, sizeof(*c.common)), malloc((knn->n_items + 1u) * sizeof(*c.met)) };
	int rc = c.common && c.met ? 0 : -ENOMEM;

	for (uint32_t item = begin; !rc && item < end; item++)
		find_neighbours(knn, &c, item);
	free(c.common);
	free(c.met);
	return rc;
}

/* -1 for an item that nobody chose, up to just below 0 for the most popular one. */
static int make_behind(struct knn_scores *knn)
{
	uint32_t n = knn->popularity->n_items;
	float most = 0;

	knn->behind = malloc((n + 1u) * sizeof(*knn->behind));
	if (!knn->behind)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		most = knn->popularity->scores[i] > most ? knn->popularity->scores[i] : most;
	for (uint32_t i = 0; i < n; i++)
		knn->behind[i] = knn->popularity->scores[i] / (most + 1) - 1;
	return 0;
}

int knn_scores_make(const struct state *state, const struct popularity_scores *popularity, uint32_t neighbours, double shrink, uint32_t threads,
                    struct knn_scores **ret_knn)
{
	struct knn_scores *knn = calloc(1, sizeof(*knn));
	int rc = -ENOMEM;

	if (!knn)
		return rc;
	knn->popularity = popularity;
	knn->n_users = state_n_users(state);
	knn->n_items = state_n_items(state);
	knn->shrink = shrink;
	knn->width = neighbours;
	if (knn->width * sizeof(struct neighbour) * (size_t)knn->n_items > KNN_BYTES_MAX)
		knn->width = (uint32_t)(KNN_BYTES_MAX / sizeof(struct neighbour) / knn->n_items);
	knn->user_start = calloc(knn->n_users + 1u, sizeof(*knn->user_start));
	knn->item_start = calloc(knn->n_items + 2u, sizeof(*knn->item_start));
	knn->n_neighbours = calloc(knn->n_items + 1u, sizeof(*knn->n_neighbours));
	knn->neighbours = malloc(((size_t)knn->n_items * knn->width + 1) * sizeof(*knn->neighbours));
	if (knn->user_start && knn->item_start && knn->n_neighbours && knn->neighbours)
		rc = make_behind(knn);
	if (!rc)
		rc = list_users(knn, state);
	if (!rc)
		rc = list_items(knn);
	if (!rc)
		rc = parallel_run(threads, knn->n_items, GRAIN, find_range, knn, "item neighbours, titles");
	if (rc) {
		knn_scores_free(knn);
		return rc;
	}
	*ret_knn = knn;
	return 0;
}

void knn_score(void *ctx, uint32_t user, float *scores)
{
	const struct knn_scores *knn = ctx;
	uint32_t n = knn->popularity->n_items;

	memset(scores, 0, n * sizeof(*scores));
	for (uint64_t i = user < knn->n_users ? knn->user_start[user] : 0; user < knn->n_users && i < knn->user_start[user + 1]; i++) {
		const struct neighbour *of = knn->neighbours + (size_t)knn->of_user[i] * knn->width;

		for (uint32_t j = 0; j < knn->n_neighbours[knn->of_user[i]]; j++)
			scores[of[j].item] += of[j].similarity;
	}
	for (uint32_t i = 0; i < n; i++)
		scores[i] = scores[i] > 0 ? scores[i] : knn->behind[i];
}
