/*
 * evaluate.c: full-ranking quality (evaluate.h). The caller and threads - 1 helpers take users off a shared counter; each writes its users' figures to
 * their own places, and the sum goes in the order of users, so the result does not depend on the number of threads.
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

struct user_metrics {
	float recall, ndcg, hit_rate, mrr, auc;
	int counted;  /* has a relevant item */
	int has_pair; /* has a relevant and a not relevant item: AUC is defined */
};

struct evaluation {
	const struct rank_user *users;
	size_t n_users;
	uint32_t n_items;
	uint32_t k;
	rank_score_fn score;
	void *ctx;
	void (*progress)(void *ctx, size_t done, size_t total);
	struct user_metrics *metrics; /* [n_users] */
	atomic_size_t next;
};

/* A relevant item with its score. */
struct scored {
	float score;
	uint32_t item;
};

/* One thread's memory. */
struct lane {
	struct evaluation *evaluation;
	uint32_t thread;
	float *scores;           /* [n_items] */
	uint8_t *out;            /* [n_items] 1: masked or relevant, taken out of the scan */
	struct scored *relevant; /* [n_relevant of any user] */
	uint64_t *before;        /* [n_relevant + 1] other items that come right before relevant item j */
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

/* Places every other item; returns the number of pairs in the right order, ties as a half, in halves. */
static uint64_t place_others(const struct lane *lane, const float *scores, size_t n_relevant, uint64_t *ret_others)
{
	uint64_t halves = 0, others = 0;
	const struct scored *relevant = lane->relevant;
	for (uint32_t i = 0; i < lane->evaluation->n_items; i++) {
		if (lane->out[i])
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

static void measure(const struct lane *lane, const struct rank_user *user, struct user_metrics *ret_metrics)
{
	const struct evaluation *e = lane->evaluation;
	float *scores = lane->scores;
	size_t n = user->n_relevant;
	e->score(e->ctx, user->user, scores);
	for (uint32_t i = 0; i < e->n_items; i++)
		if (isnan(scores[i]))
			scores[i] = -INFINITY; /* ranks last */
	memset(lane->before, 0, (n + 1) * sizeof *lane->before);
	for (size_t j = 0; j < user->n_masked; j++)
		lane->out[user->masked[j]] = 1;
	for (size_t j = 0; j < n; j++) {
		lane->out[user->relevant[j]] = 1;
		lane->relevant[j] = (struct scored){.score = scores[user->relevant[j]], .item = user->relevant[j]};
	}
	qsort(lane->relevant, n, sizeof *lane->relevant, by_rank);
	uint64_t others, halves = place_others(lane, scores, n, &others);
	for (size_t j = 0; j < user->n_masked; j++)
		lane->out[user->masked[j]] = 0;
	for (size_t j = 0; j < n; j++)
		lane->out[user->relevant[j]] = 0;

	double gain = 0.0, ideal = 0.0;
	uint64_t rank = 0, hits = 0, first = 0;
	for (size_t j = 0; j < n; j++) {
		rank += lane->before[j] + 1;
		if (j == 0)
			first = rank;
		if (rank <= e->k) {
			hits++;
			gain += 1.0 / log2((double)rank + 1.0);
		}
		if (j < e->k)
			ideal += 1.0 / log2((double)j + 2.0);
	}
	ret_metrics->recall = (float)((double)hits / (double)n);
	ret_metrics->ndcg = ideal > 0.0 ? (float)(gain / ideal) : 0.0f;
	ret_metrics->hit_rate = hits ? 1.0f : 0.0f;
	ret_metrics->mrr = (float)(1.0 / (double)first);
	ret_metrics->has_pair = others != 0;
	ret_metrics->auc = others ? (float)((double)halves / (2.0 * (double)n * (double)others)) : 0.0f;
	ret_metrics->counted = 1;
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	struct evaluation *e = lane->evaluation;
	size_t told = 0;
	for (;;) {
		size_t u = atomic_fetch_add_explicit(&e->next, 1, memory_order_relaxed);
		if (u >= e->n_users)
			return NULL;
		if (e->users[u].n_relevant)
			measure(lane, &e->users[u], &e->metrics[u]);
		if (lane->thread == 0 && e->progress && u - told >= PROGRESS_EVERY) {
			told = u;
			e->progress(e->ctx, u, e->n_users);
		}
	}
}

static void lane_free(struct lane *lane)
{
	free(lane->scores);
	free(lane->out);
	free(lane->relevant);
	free(lane->before);
}

static int lane_make(struct lane *lane, struct evaluation *e, uint32_t thread, size_t relevant_max)
{
	*lane = (struct lane){
		.evaluation = e,
		.thread = thread,
		.scores = malloc(((size_t)e->n_items + 1) * sizeof *lane->scores),
		.out = calloc((size_t)e->n_items + 1, 1),
		.relevant = malloc((relevant_max + 1) * sizeof *lane->relevant),
		.before = malloc((relevant_max + 1) * sizeof *lane->before),
	};
	return lane->scores && lane->out && lane->relevant && lane->before ? 0 : -ENOMEM;
}

static void sum_up(const struct evaluation *e, struct rank_metrics *ret_metrics)
{
	struct rank_metrics sum = {0};
	uint64_t pairs = 0;
	for (size_t u = 0; u < e->n_users; u++) {
		const struct user_metrics *m = &e->metrics[u];
		if (!m->counted)
			continue;
		sum.users++;
		sum.recall += (double)m->recall;
		sum.ndcg += (double)m->ndcg;
		sum.hit_rate += (double)m->hit_rate;
		sum.mrr += (double)m->mrr;
		if (m->has_pair) {
			sum.auc += (double)m->auc;
			pairs++;
		}
	}
	if (sum.users) {
		sum.recall /= (double)sum.users;
		sum.ndcg /= (double)sum.users;
		sum.hit_rate /= (double)sum.users;
		sum.mrr /= (double)sum.users;
	}
	if (pairs)
		sum.auc /= (double)pairs;
	*ret_metrics = sum;
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

int rank_evaluate(const struct rank_user *users, size_t n_users, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads,
                  void (*progress)(void *ctx, size_t done, size_t total), struct rank_metrics *ret_metrics)
{
	struct evaluation e = {
		.users = users, .n_users = n_users, .n_items = n_items, .k = k, .score = score, .ctx = ctx, .progress = progress};
	uint32_t n_lanes = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
	size_t relevant_max = 0;
	for (size_t u = 0; u < n_users; u++)
		if (users[u].n_relevant > relevant_max)
			relevant_max = users[u].n_relevant;
	struct lane *lanes = calloc(n_lanes, sizeof *lanes);
	e.metrics = calloc(n_users + 1, sizeof *e.metrics);
	int rc = lanes && e.metrics ? 0 : -ENOMEM;
	for (uint32_t t = 0; t < n_lanes && rc == 0; t++)
		rc = lane_make(&lanes[t], &e, t, relevant_max);
	if (rc == 0) {
		atomic_init(&e.next, 0);
		run_lanes(lanes, n_lanes);
		if (progress)
			progress(ctx, n_users, n_users);
		sum_up(&e, ret_metrics);
	}
	for (uint32_t t = 0; lanes && t < n_lanes; t++)
		lane_free(&lanes[t]);
	free(lanes);
	free(e.metrics);
	return rc;
}
