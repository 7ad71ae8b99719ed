/*
 * evaluate.c: full-ranking quality (evaluate.h). The caller and threads - 1 helpers take users off a shared counter; each writes its users' figures to
 * their own places, and means are taken in the order of users, so the result does not depend on the number of threads.
 *
 * Ranks without sorting all items: the relevant items are sorted (best first), and each other item is placed among them by binary search. A relevant
 * item's rank is 1 + the relevant before it + the others placed before it; the same places give AUC.
 */
#include "trainer/learn/evaluate.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 256u
#define PROGRESS_EVERY 64u

struct evaluation {
	const struct rank_request *request;
	uint32_t n_columns;
	uint32_t list_max; /* length of the lists kept: the largest K, at most n_items; 0: no list is wanted */
	float *figures;    /* [n_users, n_columns] */
	uint32_t *shown;   /* [n_ks, n_items] or NULL */
	atomic_size_t next;
};

/* An item with its score. */
struct scored {
	float score;
	uint32_t item;
};

/* What an item is to the user being measured. */
enum { OTHER, MASKED, RELEVANT };

/* One thread's memory. */
struct lane {
	struct evaluation *evaluation;
	uint32_t thread;
	float *scores;           /* [n_items] */
	uint8_t *kind;           /* [n_items] OTHER between users */
	struct scored *relevant; /* [n_relevant of any user] */
	uint64_t *before;        /* [n_relevant + 1] other items that come right before relevant item j */
	struct scored *list;     /* [list_max] the user's list; while scanning a heap, its worst entry on top */
	uint32_t n_list;
};

static int by_rank(const void *pa, const void *pb)
{
	const struct scored *a = pa, *b = pb;
	if (a->score != b->score)
		return a->score > b->score ? -1 : 1;
	return a->item < b->item ? -1 : a->item > b->item;
}

/* How many relevant items come before (score, item): a higher score, or the same and a lower index. */
static size_t place(const struct scored *relevant, size_t n, float score, uint32_t item)
{
	size_t low = 0;
	while (n > 0) {
		size_t half = n / 2;
		const struct scored *r = &relevant[low + half];
		if (r->score > score || (r->score == score && r->item < item)) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low;
}

/* ---- the list that the user would see ---- */

static int is_worse(const struct scored *a, const struct scored *b)
{
	return a->score != b->score ? a->score < b->score : a->item > b->item;
}

static void sift_down(struct scored *heap, uint32_t n, uint32_t at)
{
	for (;;) {
		uint32_t worst = at, left = 2 * at + 1;
		if (left < n && is_worse(&heap[left], &heap[worst]))
			worst = left;
		if (left + 1 < n && is_worse(&heap[left + 1], &heap[worst]))
			worst = left + 1;
		if (worst == at)
			return;
		struct scored moved = heap[at];
		heap[at] = heap[worst];
		heap[worst] = moved;
		at = worst;
	}
}

static void list_offer(struct lane *lane, float score, uint32_t item)
{
	struct scored entry = {.score = score, .item = item};
	struct scored *heap = lane->list;
	if (lane->n_list < lane->evaluation->list_max) {
		uint32_t at = lane->n_list++;
		for (; at > 0 && is_worse(&entry, &heap[(at - 1) / 2]); at = (at - 1) / 2)
			heap[at] = heap[(at - 1) / 2];
		heap[at] = entry;
	} else if (is_worse(&heap[0], &entry)) {
		heap[0] = entry;
		sift_down(heap, lane->n_list, 0);
	}
}

/* Popularity and use of the first K of the list, for every K. */
static void measure_list(struct lane *lane, float *figures)
{
	const struct evaluation *e = lane->evaluation;
	const struct rank_request *r = e->request;
	qsort(lane->list, lane->n_list, sizeof *lane->list, by_rank);
	for (uint32_t k = 0; k < r->n_ks; k++) {
		uint32_t n = r->ks[k] < lane->n_list ? r->ks[k] : lane->n_list;
		double sum = 0.0;
		for (uint32_t j = 0; j < n; j++) {
			uint32_t item = lane->list[j].item;
			if (r->percentile)
				sum += (double)r->percentile[item];
			if (e->shown)
				__atomic_fetch_add(&e->shown[(size_t)k * r->n_items + item], 1, __ATOMIC_RELAXED);
		}
		if (r->percentile && n)
			figures[rank_column(k, RANK_POPULARITY)] = (float)(sum / (double)n);
	}
}

/* ---- one user ---- */

/* Places every other item; returns the number of pairs in the right order, ties as a half, in halves. */
static uint64_t place_others(struct lane *lane, size_t n_relevant, uint64_t *ret_others)
{
	uint64_t halves = 0, others = 0;
	const struct scored *relevant = lane->relevant;
	const float *scores = lane->scores;
	for (uint32_t i = 0; i < lane->evaluation->request->n_items; i++) {
		if (lane->kind[i] == MASKED)
			continue;
		if (lane->evaluation->list_max)
			list_offer(lane, scores[i], i);
		if (lane->kind[i] == RELEVANT)
			continue;
		size_t at = place(relevant, n_relevant, scores[i], i);
		lane->before[at]++;
		others++;
		int tie = (at > 0 && relevant[at - 1].score == scores[i]) || (at < n_relevant && relevant[at].score == scores[i]);
		size_t higher = tie ? place(relevant, n_relevant, scores[i], 0) : at;
		size_t not_lower = tie ? place(relevant, n_relevant, scores[i], UINT32_MAX) : at;
		halves += higher + not_lower; /* 2 for each relevant item with a higher score, 1 for an equal one */
	}
	*ret_others = others;
	return halves;
}

/* Recall, NDCG and HR at one K from the ranks' gaps in lane->before. */
static void measure_at(const struct lane *lane, size_t n, uint32_t k, float *at)
{
	double gain = 0.0, ideal = 0.0;
	uint64_t rank = 0, hits = 0;
	for (size_t j = 0; j < n; j++) {
		rank += lane->before[j] + 1;
		if (rank <= k) {
			hits++;
			gain += 1.0 / log2((double)rank + 1.0);
		}
		if (j < k)
			ideal += 1.0 / log2((double)j + 2.0);
		else if (rank > k)
			break;
	}
	at[RANK_RECALL] = (float)((double)hits / (double)n);
	at[RANK_NDCG] = ideal > 0.0 ? (float)(gain / ideal) : 0.0f;
	at[RANK_HIT_RATE] = hits ? 1.0f : 0.0f;
}

static void measure(struct lane *lane, const struct rank_user *user, float *figures)
{
	const struct rank_request *r = lane->evaluation->request;
	float *scores = lane->scores;
	size_t n = user->n_relevant;
	r->score(r->ctx, user->user, scores);
	for (uint32_t i = 0; i < r->n_items; i++)
		if (isnan(scores[i]))
			scores[i] = -INFINITY; /* ranks last */
	memset(lane->before, 0, (n + 1) * sizeof *lane->before);
	lane->n_list = 0;
	for (size_t j = 0; j < user->n_masked; j++)
		lane->kind[user->masked[j]] = MASKED;
	for (size_t j = 0; j < n; j++) {
		lane->kind[user->relevant[j]] = RELEVANT;
		lane->relevant[j] = (struct scored){.score = scores[user->relevant[j]], .item = user->relevant[j]};
	}
	qsort(lane->relevant, n, sizeof *lane->relevant, by_rank);
	uint64_t others, halves = place_others(lane, n, &others);
	for (size_t j = 0; j < user->n_masked; j++)
		lane->kind[user->masked[j]] = OTHER;
	for (size_t j = 0; j < n; j++)
		lane->kind[user->relevant[j]] = OTHER;

	figures[RANK_MRR] = (float)(1.0 / (double)(lane->before[0] + 1));
	if (others)
		figures[RANK_AUC] = (float)((double)halves / (2.0 * (double)n * (double)others));
	for (uint32_t k = 0; k < r->n_ks; k++)
		measure_at(lane, n, r->ks[k], figures + rank_column(k, RANK_RECALL));
	if (lane->evaluation->list_max)
		measure_list(lane, figures);
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	struct evaluation *e = lane->evaluation;
	const struct rank_request *r = e->request;
	size_t told = 0;
	for (;;) {
		size_t u = atomic_fetch_add_explicit(&e->next, 1, memory_order_relaxed);
		if (u >= r->n_users)
			return NULL;
		if (r->users[u].n_relevant)
			measure(lane, &r->users[u], e->figures + u * e->n_columns);
		if (lane->thread == 0 && r->progress && u - told >= PROGRESS_EVERY) {
			told = u;
			r->progress(r->ctx, u, r->n_users);
		}
	}
}

static void lane_free(struct lane *lane)
{
	free(lane->scores);
	free(lane->kind);
	free(lane->relevant);
	free(lane->before);
	free(lane->list);
}

static int lane_make(struct lane *lane, struct evaluation *e, uint32_t thread, size_t relevant_max)
{
	size_t n_items = e->request->n_items;
	*lane = (struct lane){
		.evaluation = e,
		.thread = thread,
		.scores = malloc((n_items + 1) * sizeof *lane->scores),
		.kind = calloc(n_items + 1, 1),
		.relevant = malloc((relevant_max + 1) * sizeof *lane->relevant),
		.before = malloc((relevant_max + 1) * sizeof *lane->before),
		.list = malloc(((size_t)e->list_max + 1) * sizeof *lane->list),
	};
	return lane->scores && lane->kind && lane->relevant && lane->before && lane->list ? 0 : -ENOMEM;
}

/* Runs all lanes; a helper that cannot be started is done without. */
static void run_lanes(struct lane *lanes, uint32_t n)
{
	pthread_t helpers[THREADS_MAX];
	uint32_t started = 0;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (started + 1 < n && pthread_create(&helpers[started], NULL, lane_main, &lanes[started + 1]) == 0)
		started++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)lane_main(&lanes[0]);
	for (uint32_t t = 0; t < started; t++)
		pthread_join(helpers[t], NULL);
}

int rank_users(const struct rank_request *request, float *ret_figures, uint32_t *ret_shown)
{
	struct evaluation e = {.request = request, .n_columns = rank_columns(request->n_ks), .figures = ret_figures, .shown = ret_shown};
	uint32_t n_lanes = request->threads < 1 ? 1 : request->threads > THREADS_MAX ? THREADS_MAX : request->threads;
	size_t relevant_max = 0;
	for (size_t u = 0; u < request->n_users; u++)
		if (request->users[u].n_relevant > relevant_max)
			relevant_max = request->users[u].n_relevant;
	for (uint32_t k = 0; k < request->n_ks && (request->percentile || ret_shown); k++)
		e.list_max = request->ks[k] > e.list_max ? request->ks[k] : e.list_max;
	if (e.list_max > request->n_items)
		e.list_max = request->n_items;
	for (size_t i = 0; i < request->n_users * e.n_columns; i++)
		ret_figures[i] = NAN;
	if (ret_shown)
		memset(ret_shown, 0, (size_t)request->n_ks * request->n_items * sizeof *ret_shown);
	struct lane *lanes = calloc(n_lanes, sizeof *lanes);
	int rc = lanes ? 0 : -ENOMEM;
	for (uint32_t t = 0; t < n_lanes && rc == 0; t++)
		rc = lane_make(&lanes[t], &e, t, relevant_max);
	if (rc == 0) {
		atomic_init(&e.next, 0);
		run_lanes(lanes, n_lanes);
		if (request->progress)
			request->progress(request->ctx, request->n_users, request->n_users);
	}
	for (uint32_t t = 0; lanes && t < n_lanes; t++)
		lane_free(&lanes[t]);
	free(lanes);
	return rc;
}

int rank_evaluate(const struct rank_user *users, size_t n_users, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads,
                  void (*progress)(void *ctx, size_t done, size_t total), struct rank_metrics *ret_metrics)
{
	const struct rank_request request = {.users = users, .n_users = n_users, .n_items = n_items, .ks = &k, .n_ks = 1, .score = score, .ctx = ctx,
	                                     .threads = threads, .progress = progress};
	const uint32_t n_columns = rank_columns(1);
	struct rank_estimate e[RANK_COLUMNS_MAX];
	struct rank_metrics metrics = {0};
	float *figures = malloc((n_users + 1) * n_columns * sizeof *figures);
	int rc = figures ? rank_users(&request, figures, NULL) : -ENOMEM;
	if (rc == 0)
		rc = rank_bootstrap(figures, n_users, n_columns, 0, 0, e);
	for (size_t u = 0; rc == 0 && u < n_users; u++)
		metrics.users += users[u].n_relevant != 0;
	if (rc == 0 && metrics.users) {
		metrics.recall = e[rank_column(0, RANK_RECALL)].mean;
		metrics.ndcg = e[rank_column(0, RANK_NDCG)].mean;
		metrics.hit_rate = e[rank_column(0, RANK_HIT_RATE)].mean;
		metrics.mrr = e[RANK_MRR].mean;
		metrics.auc = isnan(e[RANK_AUC].mean) ? 0.0 : e[RANK_AUC].mean;
	}
	if (rc == 0)
		*ret_metrics = metrics;
	free(figures);
	return rc;
}
