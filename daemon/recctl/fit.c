/*
 * fit.c: mean row, intercepts and personal rows for `recctl train`.
 *
 * The main thread calls; the work over users is spread by parallel_run(). Users are independent of each other, the item tables and the state are only
 * read, and every sum over users is taken in index order, so results do not depend on the number of threads. Formulas: learn/personalize.h.
 */
#include "daemon/recctl/fit.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/fit_internal.h"
#include "daemon/recctl/load_logs.h"
#include "daemon/recctl/parallel.h"
#include "daemon/recctl/train_validate.h"
#include "trainer/learn/learn.h"
#include "trainer/learn/score.h"

#define GRAIN 16u            /* users a range */
#define SAMPLE_MAX 4000000u  /* decided impressions the global intercept is fitted on */
#define NEWTON_STEPS 50

void fit_mean_user(const struct learner *learner, struct tables *tables)
{
	double sums[512]; /* emb_dim is at most that */
	float mean[512];
	uint32_t dim = tables->dim;
	uint64_t n = 0;

	memset(sums, 0, dim * sizeof(*sums));
	for (uint32_t user = 0; user < tables->n_users; user++) {
		if (!learner_user_positives(learner, user))
			continue;
		n++;
		for (uint32_t d = 0; d < dim; d++)
			sums[d] += (double)tables->U[(size_t)user * dim + d];
	}
	for (uint32_t d = 0; d < dim; d++)
		mean[d] = n ? (float)(sums[d] / (double)n) : 0;
	for (uint32_t user = 0; user < tables->n_users; user++) {
		if (!learner_user_positives(learner, user))
			memcpy(tables->U + (size_t)user * dim, mean, dim * sizeof(*mean));
	}
}

/* ---- intercepts ---- */

/* Decided impressions of a user; at most LOAD_IMPRESSIONS_MAX, one an impression kept. */
static size_t decided_of(const struct state *state, uint32_t user, struct decided_impression *ret_decided)
{
	struct user_facts facts;

	state_user_facts(state, user, &facts);
	size_t n = state_decided(state, &facts, ret_decided, LOAD_IMPRESSIONS_MAX);
	return n < LOAD_IMPRESSIONS_MAX ? n : LOAD_IMPRESSIONS_MAX;
}

/* Decided impressions of every n-th user, so that they fit; scores from U, with bu when it is not NULL. *ret_out is the caller's. 0 or -ENOMEM. */
static int collect_observations(const struct fit *fit, const struct tables *tables, const float *U, const float *bu, struct observation **ret_out,
                                size_t *ret_n)
{
	struct decided_impression decided[LOAD_IMPRESSIONS_MAX];
	uint64_t most = (uint64_t)tables->n_users * LOAD_IMPRESSIONS_MAX;
	uint32_t stride = (uint32_t)(most / SAMPLE_MAX + 1);
	size_t max = most < SAMPLE_MAX ? (size_t)most : SAMPLE_MAX, n = 0;
	struct observation *out = malloc((max + 1) * sizeof(*out));

	if (!out)
		return -ENOMEM;
	for (uint32_t user = 0; user < tables->n_users; user += stride) {
		size_t n_decided = decided_of(fit->state, user, decided);

		for (size_t i = 0; i < n_decided && n < max; i++) {
			const float *row = U + (size_t)user * tables->dim;
			float score = score_dot(row, tables->V + (size_t)decided[i].item * tables->dim, tables->dim) + tables->bi[decided[i].item];

			out[n++] = (struct observation){ bu ? score + bu[user] : score, (float)decided[i].label };
		}
	}
	*ret_out = out;
	*ret_n = n;
	return 0;
}

int fit_global_intercept(struct fit *fit, const struct tables *tables)
{
	struct observation *observations;
	size_t n;
	double b = 0;
	int rc = collect_observations(fit, tables, tables->U, NULL, &observations, &n);

	if (rc)
		return rc;
	for (int step = 0; step < NEWTON_STEPS; step++) {
		double slope = -b, curve = 1; /* the prior */

		for (size_t i = 0; i < n; i++) {
			double p = 1.0 / (1.0 + exp(-((double)observations[i].score + b)));

			slope += (double)observations[i].label - p;
			curve += p * (1.0 - p);
		}
		double move = slope / curve;
		move = move > 1 ? 1 : move < -1 ? -1 : move;
		b += move;
		if (fabs(move) < 1e-7)
			break;
	}
	free(observations);
	fit->intercept = n ? (float)b : 0;
	return 0;
}

struct intercepts {
	const struct fit *fit;
	const struct tables *tables;
	const float *U;
	float *bu;
};

static int fit_intercept_range(void *ctx, uint32_t begin, uint32_t end)
{
	const struct intercepts *job = ctx;
	struct decided_impression decided[LOAD_IMPRESSIONS_MAX];

	for (uint32_t user = begin; user < end; user++) {
		size_t n = decided_of(job->fit->state, user, decided);

		job->bu[user] = intercept_fit(job->tables, job->U + (size_t)user * job->tables->dim, decided, n, job->fit->intercept,
		                              FIT_INTERCEPT_PRIOR_WEIGHT);
	}
	return 0;
}

int fit_intercepts(const struct fit *fit, const struct tables *tables, const float *U, float *ret_bu, const char *what)
{
	struct intercepts job = { fit, tables, U, ret_bu };

	return parallel_run(fit->threads, tables->n_users, GRAIN, fit_intercept_range, &job, what);
}

int fit_calibration(const struct fit *fit, const struct tables *tables, const float *U, const float *bu, struct calibration *ret_calibration)
{
	struct observation *observations;
	size_t n;
	int rc = collect_observations(fit, tables, U, bu, &observations, &n);

	if (rc)
		return rc;
	*ret_calibration = calibration_of(observations, n);
	free(observations);
	return 0;
}

/* ---- personal rows ---- */

/* The finalizer of SplitMix64. */
uint64_t fit_user_seed(uint64_t seed, int64_t user_id)
{
	uint64_t x = seed + 0x9e3779b97f4a7c15u * ((uint64_t)user_id + 1);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

size_t fit_positives(const struct fit *fit, const struct user_facts *facts, uint32_t user, uint32_t *ret_items, size_t max)
{
	size_t n = state_positives(fit->state, facts, ret_items, max), kept = 0;

	n = n < max ? n : max;
	if (!fit->slice)
		return n;
	for (size_t i = 0; i < n; i++)
		if (!validation_has(fit->slice, user, ret_items[i]))
			ret_items[kept++] = ret_items[i];
	return kept;
}

/* Positives of a user in *items, which grows. Returns how many, or SIZE_MAX when out of memory. */
static size_t positives_of(const struct fit *fit, uint32_t user, uint32_t **items, size_t *capacity)
{
	struct user_facts facts;

	state_user_facts(fit->state, user, &facts);
	if (facts.n_watches > *capacity) {
		free(*items);
		*capacity = facts.n_watches + facts.n_watches / 2u;
		*items = malloc(*capacity * sizeof(**items));
		if (!*items) {
			*capacity = 0;
			return SIZE_MAX;
		}
	}
	return fit_positives(fit, &facts, user, *items, *capacity);
}

static int fit_personal_range(void *ctx, uint32_t begin, uint32_t end)
{
	struct personal *job = ctx;
	const struct tables *tables = job->tables;
	struct personalize_scratch scratch = { 0 };
	uint32_t *positives = NULL;
	size_t capacity = 0;
	int rc = 0;

	for (uint32_t user = begin; !rc && user < end; user++) {
		const float *start = tables->U + (size_t)user * tables->dim;
		float *row = job->U + (size_t)user * tables->dim;
		struct personalize_options options = *job->options;
		size_t n = positives_of(job->fit, user, &positives, &capacity);

		options.seed = fit_user_seed(options.seed, state_user_ids(job->fit->state)[user]);
		memcpy(row, start, tables->dim * sizeof(*row));
		if (n == SIZE_MAX)
			rc = -ENOMEM;
		else if (n && n >= job->min_positives)
			rc = personalize_row(tables, start, positives, n, job->candidates, job->n_candidates, &options, &scratch, row);
		else
			continue;
		if (!rc)
			atomic_fetch_add(&job->fitted, 1);
		else if (rc == -EINVAL || rc == -ERANGE) /* no negative to learn from, or not finite: the global row stays */
			rc = 0;
	}
	personalize_scratch_free(&scratch);
	free(positives);
	return rc;
}

int fit_personal_rows(const struct fit *fit, const struct tables *tables, const uint32_t *candidates, size_t n_candidates, uint32_t min_positives,
                      const struct personalize_options *options, float *ret_U, uint64_t *ret_fitted)
{
	struct personal job = { .fit = fit, .tables = tables, .candidates = candidates, .n_candidates = n_candidates, .min_positives = min_positives,
		                .options = options, .U = ret_U };
	int rc = -ENOSYS;

	if (fit->learner && learner_has_batches(fit->learner)) {
		rc = fit_personal_batches(&job);
		if (rc)
			fprintf(stderr, "recctl: personalizing on the device failed (%s); the processor does it\n", strerror(-rc));
	}
	if (rc) {
		atomic_store(&job.fitted, 0);
		rc = parallel_run(fit->threads, tables->n_users, GRAIN, fit_personal_range, &job, "personalizing, users");
	}
	if (!rc)
		*ret_fitted = atomic_load(&job.fitted);
	return rc;
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
	const unsigned char *bytes = data;
	uint32_t word;

	for (size_t i = 0; i + sizeof(word) <= size; i += sizeof(word)) {
		memcpy(&word, bytes + i, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
		hash ^= hash >> 29;
	}
	return hash;
}

uint64_t fit_item_hash(const struct tables *tables)
{
	uint64_t hash = hash_bytes(0x243f6a8885a308d3u, tables->V, (size_t)tables->n_items * tables->dim * sizeof(float));

	return hash_bytes(hash, tables->bi, tables->n_items * sizeof(float));
}
