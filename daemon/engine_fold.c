/*
 * engine_fold.c: personal rows. Engine thread.
 *
 * Fold-in: a user with new positives gets his row fitted against the published item tables at once (the latest first), stored beside his facts as a
 * difference to the published global row. Other news moves only his intercept: it is dealt with in rounds, so that who has much of it is fitted once a
 * round. Rows that were fitted to an older V: engine_refresh.c.
 *
 * The intercept bu is the maximum a posteriori fit of "watched enough" over decided impressions; it moves conf, never the order. Its prior is the global
 * intercept, fitted the same way over a sample of what was folded in lately.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine_internal.h"
#include "trainer/learn/score.h"

#define DECIDED_MAX 1024u
#define FOLD_LEAST_US 50
#define NEWS_ROUND_US 500000       /* a round takes up whoever has news; the next begins no sooner than this */
#define NEWS_ROUND_BULK_US 5000000 /* while a log is caught up with, whose users have more news at once */

int engine_fold_open(struct engine *engine)
{
	struct engine_fold *fold = &engine->fold;

	fold->capacity = FOLD_ITEMS_MAX;
	fold->items = calloc(fold->capacity, sizeof(*fold->items));
	fold->decided = calloc(DECIDED_MAX, sizeof(*fold->decided));
	return fold->items == NULL || fold->decided == NULL ? -ENOMEM : 0;
}

void engine_fold_close(struct engine *engine)
{
	struct engine_fold *fold = &engine->fold;

	user_list_free(&fold->waiting);
	user_list_free(&fold->news);
	user_list_free(&fold->late);
	user_list_free(&fold->rows);
	personalize_scratch_free(&fold->scratch);
	free(fold->items);
	free(fold->decided);
	free(fold->bu);
}

int engine_fold_grow(struct engine *engine)
{
	struct engine_fold *fold = &engine->fold;
	const uint32_t n = state_n_users(engine->state);
	int rc;

	if (n <= fold->n_bu)
		return 0;
	rc = user_list_reserve(&fold->waiting, n);
	if (rc == 0)
		rc = user_list_reserve(&fold->news, n);
	if (rc == 0)
		rc = user_list_reserve(&fold->late, n);
	if (rc == 0)
		rc = user_list_reserve(&fold->rows, n);
	if (rc < 0)
		return rc;
	if (n > fold->bu_capacity) {
		const uint32_t capacity = n + n / 2 + 1024;
		float *grown = realloc(fold->bu, capacity * sizeof(*grown));

		if (grown == NULL)
			return -ENOMEM;
		fold->bu = grown;
		fold->bu_capacity = capacity;
	}
	for (uint32_t user = fold->n_bu; user < n; user++)
		fold->bu[user] = fold->intercept;
	fold->n_bu = n;
	return 0;
}

/* Keeps scores and labels of a few decided impressions of this user for the global intercept. */
static void sample_scores(struct engine_fold *fold, const struct tables *tables, const float *row, size_t n)
{
	struct intercept_sample *sample = &fold->sample;
	const size_t take = n < INTERCEPT_PER_USER ? n : INTERCEPT_PER_USER;

	for (size_t j = 0; j < take; j++) {
		const struct decided_impression *d = &fold->decided[j * n / take];
		const float *v = tables->V + (size_t)d->item * tables->dim;

		sample->scores[sample->next] = tables->bi[d->item] + score_dot(row, v, tables->dim);
		sample->decided[sample->next] = (struct decided_impression){ .item = sample->next, .label = d->label };
		sample->next = (sample->next + 1) % INTERCEPT_SAMPLE;
		if (sample->n < INTERCEPT_SAMPLE)
			sample->n++;
	}
}

/* The sample as a one-dimensional model: "items" are the kept scores. */
void engine_fit_intercept(struct engine *engine)
{
	struct intercept_sample *sample = &engine->fold.sample;
	const struct tables scores = { .n_items = sample->n, .dim = 1, .V = sample->scores, .bi = sample->zeros };
	const float one = 1.0f;

	if (sample->n >= 64)
		engine->fold.intercept = intercept_fit(&scores, &one, sample->decided, sample->n, engine->fold.intercept, 1.0f);
}

/* Positives that the published tables know. *ret_all: all of them are. */
static size_t known_positives(struct engine *engine, const struct user_facts *facts, uint32_t n_items, int *ret_all)
{
	struct engine_fold *fold = &engine->fold;
	size_t n = state_positives(engine->state, facts, fold->items, fold->capacity), kept = 0;

	if (n > fold->capacity) {
		uint32_t *grown = realloc(fold->items, n * sizeof(*grown));

		if (grown != NULL) {
			fold->items = grown;
			fold->capacity = n;
		}
		n = state_positives(engine->state, facts, fold->items, fold->capacity);
		if (n > fold->capacity)
			n = fold->capacity;
	}
	for (size_t i = 0; i < n; i++)
		if (fold->items[i] < n_items)
			fold->items[kept++] = fold->items[i];
	*ret_all = kept == n;
	return kept;
}

static size_t known_decided(struct engine *engine, const struct user_facts *facts, uint32_t n_items)
{
	struct engine_fold *fold = &engine->fold;
	size_t n = state_decided(engine->state, facts, fold->decided, DECIDED_MAX), kept = 0;

	if (n > DECIDED_MAX)
		n = DECIDED_MAX;
	for (size_t i = 0; i < n; i++)
		if (fold->decided[i].item < n_items)
			fold->decided[kept++] = fold->decided[i];
	return kept;
}

static void store_row(struct engine *engine, uint32_t user, const struct generation *g, const float *fitted, float bu, size_t n_positives)
{
	const uint32_t dim = g->tables.dim;
	const float *global = g->tables.U + (size_t)user * dim;
	struct personal_row *row;

	if (fitted == NULL && !user_list_has(&engine->fold.rows, user))
		return; /* there is none to take away */
	row = state_row_begin(engine->state, user);
	if (row == NULL) { /* no memory to copy him for the cut: as he is, and later again */
		user_list_put_last(&engine->fold.waiting, user);
		return;
	}
	if (fitted != NULL) {
		row->generation = g->number;
		row->fitted_us = engine_model_clock_us(engine);
		row->bu = bu;
		row->n_positives = (uint32_t)n_positives;
		for (uint32_t d = 0; d < dim; d++)
			row->difference[d] = fitted[d] - global[d];
	} else {
		memset(row, 0, personal_row_bytes(dim));
	}
	state_row_end(engine->state, user);
	if (fitted != NULL)
		user_list_put_last(&engine->fold.rows, user);
	else
		user_list_take_out(&engine->fold.rows, user);
}

static float fit_bu(const struct engine *engine, const struct generation *g, const float *row, size_t n_decided)
{
	return intercept_fit(&g->tables, row, engine->fold.decided, n_decided, g->intercept, engine->config.intercept_prior_weight);
}

/* The positives are those the row was fitted on: only its intercept has to follow. */
static void refit_intercept(struct engine *engine, const struct user_facts *facts, const struct generation *g, size_t n_decided)
{
	const struct personal_row *row = facts->row;
	const float *global = g->tables.U + (size_t)facts->user * g->tables.dim;
	float fitted[512];
	struct personal_row *changed;

	for (uint32_t d = 0; d < g->tables.dim; d++)
		fitted[d] = global[d] + row->difference[d];
	const float bu = fit_bu(engine, g, fitted, n_decided);

	changed = state_row_begin(engine->state, facts->user);
	if (changed == NULL) {
		user_list_put_last(&engine->fold.waiting, facts->user);
		return;
	}
	changed->bu = bu;
	state_row_end(engine->state, facts->user);
}

uint32_t engine_fold_candidates(const struct engine *engine, const struct generation *g, const uint32_t **ret_candidates)
{
	size_t n;

	*ret_candidates = learner_candidates(engine->learner, &n);
	return (uint32_t)(n < g->n_candidates ? n : g->n_candidates); /* later ones may be items that this generation does not have */
}

uint64_t engine_fold_seed(const struct engine *engine, uint32_t user)
{
	return engine->config.personalize.seed ^ (uint64_t)state_user_ids(engine->state)[user] * 0x9e3779b97f4a7c15u;
}

size_t engine_fold_begin(struct engine *engine, uint32_t user, const struct generation *g, struct user_facts *ret_facts, int *ret_all)
{
	size_t n_positives, n_candidates;

	state_user_facts(engine->state, user, ret_facts);
	n_positives = known_positives(engine, ret_facts, g->tables.n_items, ret_all);
	(void)learner_candidates(engine->learner, &n_candidates);
	if (n_candidates > g->n_candidates)
		*ret_all &= g->n_candidates > n_positives; /* too few are no negatives */
	return n_positives;
}

/* What is known of the user's intercept under the global row; returns how many decided impressions there are. */
static size_t note_decided(struct engine *engine, const struct user_facts *facts, const struct generation *g, size_t n_positives)
{
	const float *row = n_positives > 0 ? g->tables.U + (size_t)facts->user * g->tables.dim : g->mean_user;
	const size_t n_decided = known_decided(engine, facts, g->tables.n_items);

	sample_scores(&engine->fold, &g->tables, row, n_decided);
	engine->fold.bu[facts->user] = fit_bu(engine, g, row, n_decided);
	return n_decided;
}

void engine_fold_end(struct engine *engine, const struct user_facts *facts, const struct generation *g, const float *fitted, size_t n_positives, int all)
{
	const size_t n_decided = note_decided(engine, facts, g, n_positives);

	if (!all)
		user_list_put_last(&engine->fold.late, facts->user);
	if (fitted != NULL)
		store_row(engine, facts->user, g, fitted, fit_bu(engine, g, fitted, n_decided), n_positives);
	else
		store_row(engine, facts->user, g, NULL, 0, 0);
}

void engine_fold_fit(struct engine *engine, uint32_t user, const struct generation *g, int again)
{
	struct engine_fold *fold = &engine->fold;
	struct personalize_options options = engine->config.personalize;
	struct user_facts facts;
	float fitted[512];
	const uint32_t *candidates;
	int all = 1;
	const size_t n_positives = engine_fold_begin(engine, user, g, &facts, &all);
	const struct personal_row *row = facts.row;
	const uint32_t n_candidates = engine_fold_candidates(engine, g, &candidates);

	if (!again && all && row->generation != 0 && row->n_positives == n_positives) {
		refit_intercept(engine, &facts, g, note_decided(engine, &facts, g, n_positives));
		return;
	}
	options.seed = engine_fold_seed(engine, user);
	const int fits = n_positives >= engine->config.personalize_min_positives && n_positives > 0 &&
	                 personalize_row(&g->tables, g->tables.U + (size_t)user * g->tables.dim, fold->items, n_positives, candidates, n_candidates, &options,
	                                 &fold->scratch, fitted) == 0;

	engine_fold_end(engine, &facts, g, fits ? fitted : NULL, n_positives, all);
}

void engine_fold_news(struct engine *engine, uint32_t user)
{
	struct engine_fold *fold = &engine->fold;

	if (!user_list_has(&fold->waiting, user) && !user_list_has(&fold->news, user))
		user_list_put_last(&fold->news, user);
}

void engine_fold_positive(struct engine *engine, uint32_t user)
{
	struct engine_fold *fold = &engine->fold;

	if (user_list_has(&fold->news, user)) {
		user_list_take_out(&fold->news, user);
		fold->news_round -= fold->news_round > 0; /* he may be of the next round: then one of this round waits for that */
	}
	user_list_put_first(&fold->waiting, user);
}

/* Takes out who is next; UINT32_MAX: nobody. */
static uint32_t take_next(struct engine *engine, int64_t now_us)
{
	struct engine_fold *fold = &engine->fold;
	const int64_t round_us = now_us < engine->bulk_until_us ? NEWS_ROUND_BULK_US : NEWS_ROUND_US;
	uint32_t user = user_list_first(&fold->waiting);

	if (user != UINT32_MAX) {
		user_list_take_out(&fold->waiting, user);
		return user;
	}
	if (fold->news_round == 0 && now_us - fold->news_round_us >= round_us) {
		fold->news_round = fold->news.n;
		fold->news_round_us = now_us;
	}
	if (fold->news_round == 0)
		return UINT32_MAX;
	fold->news_round--;
	user = user_list_first(&fold->news);
	user_list_take_out(&fold->news, user);
	return user;
}

int engine_fold_in(struct engine *engine, int64_t budget_us)
{
	const int64_t began_us = engine_mono_us();
	struct engine_fold *fold = &engine->fold;
	struct generation *g = generation_acquire(engine->publisher);
	uint32_t user;
	int done = 0;

	while (g != NULL && budget_us >= FOLD_LEAST_US && !engine_cut_is_behind(engine) && (user = take_next(engine, began_us)) != UINT32_MAX) {
		if (user >= g->tables.n_users) {
			user_list_put_last(&fold->late, user); /* not published yet; training.dirty asks for it. The others must not wait for him */
		} else {
			engine_fold_fit(engine, user, g, 0);
			fold->folded_in++;
			done++;
			engine_train_keep(engine);
		}
		if (engine_mono_us() - began_us >= budget_us)
			break;
	}
	generation_release(engine->publisher, g);
	if (done > 0)
		engine->training.dirty = 1; /* intercepts moved */
	return done;
}

void engine_fold_published(struct engine *engine)
{
	struct engine_fold *fold = &engine->fold;
	uint32_t user;

	while ((user = user_list_first(&fold->late)) != UINT32_MAX) {
		user_list_take_out(&fold->late, user);
		user_list_put_first(&fold->waiting, user);
	}
}

static int is_stale(const struct engine *engine, const struct user_facts *facts)
{
	return state_positives(engine->state, facts, NULL, 0) != ((const struct personal_row *)facts->row)->n_positives;
}

void engine_fold_settings_changed(struct engine *engine)
{
	const uint32_t n = engine->fold.n_bu;

	for (uint32_t user = 0; user < n; user++) {
		struct user_facts facts;

		state_user_facts(engine->state, user, &facts);
		if (is_stale(engine, &facts) && !user_list_has(&engine->fold.waiting, user))
			user_list_put_last(&engine->fold.waiting, user);
	}
}

/* Sorts the recovered rows by age, so that the oldest is refreshed first. */
struct aged_row {
	int64_t fitted_us;
	uint32_t user;
};

static int by_age(const void *left, const void *right)
{
	const struct aged_row *a = left, *b = right;

	return a->fitted_us < b->fitted_us ? -1 : a->fitted_us > b->fitted_us;
}

int engine_fold_recover(struct engine *engine, const struct tables *tables)
{
	const uint32_t n = state_n_users(engine->state);
	struct aged_row *rows;
	size_t n_rows = 0;
	int rc = engine_fold_grow(engine);

	if (rc < 0 || n == 0)
		return rc;
	rows = malloc(n * sizeof(*rows));
	if (rows == NULL)
		return -ENOMEM;
	for (uint32_t user = 0; user < n; user++) {
		struct user_facts facts;
		const struct personal_row *row;

		engine->fold.bu[user] = tables->bu[user];
		state_user_facts(engine->state, user, &facts);
		row = facts.row;
		if (row->generation != 0)
			rows[n_rows++] = (struct aged_row){ .fitted_us = row->fitted_us, .user = user };
		/* touched before the cut and not folded in by then */
		if (is_stale(engine, &facts))
			user_list_put_last(&engine->fold.waiting, user);
	}
	qsort(rows, n_rows, sizeof(*rows), by_age);
	for (size_t i = 0; i < n_rows; i++)
		user_list_put_last(&engine->fold.rows, rows[i].user);
	free(rows);
	return 0;
}
