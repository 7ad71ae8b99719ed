/*
 * personalize.c: one user's own row and intercept, with the item tables frozen (personalize.h). Pure functions over tables that nobody changes meanwhile;
 * any thread, each with its own scratch.
 *
 * personalize_row: in each step `batch` triples of the user, their mean gradient, one step of row-wise Adagrad, which fits the rate to the size of the
 * item vectors; the next step's items are drawn and fetched while this step's are used. The L2 term pulls back to the row it started from, so a user
 * with few positives stays near it.
 */
#include "trainer/learn/personalize.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/philox.h"

#define NO_ITEM UINT32_MAX
#define NEWTON_STEPS 8
#define NEWTON_STEP_MAX 4.0
#define SCORES_KEPT 2048u
#define SCORES_CHUNK 64u

void personalize_scratch_free(struct personalize_scratch *scratch)
{
	if (!scratch)
		return;
	free(scratch->buf);
	*scratch = (struct personalize_scratch){0};
}

void personalize_options_default(struct personalize_options *options)
{
	*options = (struct personalize_options){
		.steps = 300,
		.batch = 32,
		.learning_rate = 0.05f,
		.reg = 0.1f,
		.seed = 42,
	};
}

/* The scratch memory of one call, laid out. */
struct work {
	uint32_t *own; /* open addressing over the positives [mask + 1]; NO_ITEM: free */
	uint32_t mask;
	struct item_pair *pairs[2]; /* [batch] each: this step's and the next one's */
	float *row, *gradient;      /* [dim] */
};

static int work_reserve(struct personalize_scratch *scratch, size_t n_positives, uint32_t batch, uint32_t dim, struct work *ret_work)
{
	size_t slots = 16;
	while (slots < n_positives * 2)
		slots *= 2;
	if (slots > (size_t)1 << 31)
		return -ENOMEM;
	size_t row = ((size_t)dim + 15) / 16 * 16;
	size_t bytes = row * 2 * sizeof(float) + slots * sizeof(uint32_t) + (size_t)batch * 2 * sizeof(struct item_pair);
	if (bytes > scratch->capacity) {
		size_t capacity = (bytes + bytes / 2 + 63) / 64 * 64;
		void *buf = aligned_alloc(64, capacity);
		if (!buf)
			return -ENOMEM;
		free(scratch->buf);
		scratch->buf = buf;
		scratch->capacity = capacity;
	}
	char *at = scratch->buf;
	ret_work->row = (float *)(void *)at;
	ret_work->gradient = ret_work->row + row;
	at += row * 2 * sizeof(float);
	ret_work->own = (uint32_t *)(void *)at;
	ret_work->mask = (uint32_t)(slots - 1);
	at += slots * sizeof(uint32_t);
	ret_work->pairs[0] = (struct item_pair *)(void *)at;
	ret_work->pairs[1] = ret_work->pairs[0] + batch;
	return 0;
}

static uint32_t own_find(const struct work *work, uint32_t item)
{
	uint32_t i = (item * 0x9E3779B1u) & work->mask;
	while (work->own[i] != NO_ITEM && work->own[i] != item)
		i = (i + 1) & work->mask;
	return i;
}

static int is_own(const struct work *work, uint32_t item)
{
	return work->own[own_find(work, item)] == item;
}

static struct philox_block draw_random(const struct personalize_options *options, uint32_t step, uint32_t index, uint32_t attempt)
{
	return philox4x32(index, step, attempt, PHILOX_PERSONALIZE, (uint32_t)options->seed, (uint32_t)(options->seed >> 32));
}

/* A candidate that is none of the user's positives; NO_ITEM when there is none. The first block has been drawn: v[1..3] are tries. */
static uint32_t draw_negative(const struct work *work, const uint32_t *candidates, uint32_t n, const struct personalize_options *options,
                              uint32_t step, uint32_t index, struct philox_block random)
{
	for (uint32_t attempt = 1; attempt <= PERSONALIZE_REDRAWS; attempt++) {
		for (int i = 1; i < 4; i++) {
			uint32_t item = candidates[philox_below(random.v[i], n)];
			if (!is_own(work, item))
				return item;
		}
		random = draw_random(options, step, index, attempt);
	}
	uint32_t at = philox_below(random.v[0], n);
	for (uint32_t i = 0; i < n; i++) {
		if (!is_own(work, candidates[at]))
			return candidates[at];
		at = at + 1 < n ? at + 1 : 0;
	}
	return NO_ITEM;
}

struct own_set {
	const uint32_t *positives;
	size_t n_positives;
	const uint32_t *candidates;
	uint32_t n_candidates;
};

/* The triples of a step, their rows on the way from memory. 0 or -EINVAL. */
static int draw_step(const struct tables *tables, const struct own_set *set, const struct personalize_options *options, uint32_t step,
                     const struct work *work, struct item_pair *ret_pairs)
{
	for (uint32_t i = 0; i < options->batch; i++) {
		struct philox_block random = draw_random(options, step, i, 0);
		ret_pairs[i].pos = set->positives[philox_below(random.v[0], (uint32_t)set->n_positives)];
		ret_pairs[i].neg = draw_negative(work, set->candidates, set->n_candidates, options, step, i, random);
		if (ret_pairs[i].neg == NO_ITEM)
			return -EINVAL;
		const float *pos = tables->V + (size_t)ret_pairs[i].pos * tables->dim;
		const float *neg = tables->V + (size_t)ret_pairs[i].neg * tables->dim;
		for (uint32_t k = 0; k < tables->dim; k += 16) {
			__builtin_prefetch(pos + k, 0, 3);
			__builtin_prefetch(neg + k, 0, 3);
		}
		__builtin_prefetch(&tables->bi[ret_pairs[i].neg], 0, 3);
	}
	return 0;
}

/* One step of row-wise Adagrad along the mean gradient and back towards the start. */
static void take_step(const struct work *work, const float *start, uint32_t dim, float rate, const struct personalize_options *options, float *acc)
{
	float inverse_batch = 1.0f / (float)options->batch, norm2 = 0.0f;
	for (uint32_t k = 0; k < dim; k++) {
		work->gradient[k] = work->gradient[k] * inverse_batch - options->reg * (work->row[k] - start[k]);
		norm2 += work->gradient[k] * work->gradient[k];
	}
	float scale = bpr_step_scale(rate, norm2, 1.0f / (float)dim, PERSONALIZE_STEP_NORM_MAX, acc);
	for (uint32_t k = 0; k < dim; k++)
		work->row[k] += scale * work->gradient[k];
}

int personalize_row(const struct tables *tables, const float *start, const uint32_t *positives, size_t n_positives,
                    const uint32_t *candidates, size_t n_candidates, const struct personalize_options *options,
                    struct personalize_scratch *scratch, float *ret_row)
{
	const uint32_t dim = tables->dim;
	const struct row_kernels *kernels = row_kernels_best();
	const struct own_set set = {positives, n_positives, candidates, (uint32_t)n_candidates};
	struct work work;
	if (n_positives == 0 || n_candidates == 0 || n_candidates > UINT32_MAX || n_positives > UINT32_MAX || options->batch == 0)
		return -EINVAL;
	int rc = work_reserve(scratch, n_positives, options->batch, dim, &work);
	if (rc < 0)
		return rc;
	memset(work.own, 0xff, ((size_t)work.mask + 1) * sizeof *work.own);
	for (size_t i = 0; i < n_positives; i++)
		work.own[own_find(&work, positives[i])] = positives[i];
	memcpy(work.row, start, dim * sizeof *work.row);

	rc = draw_step(tables, &set, options, 0, &work, work.pairs[0]);
	if (rc < 0)
		return rc;
	float acc = 0.0f;
	for (uint32_t step = 0; step < options->steps; step++) {
		if (step + 1 < options->steps) {
			rc = draw_step(tables, &set, options, step + 1, &work, work.pairs[(step + 1) % 2]);
			if (rc < 0)
				return rc;
		}
		memset(work.gradient, 0, dim * sizeof *work.gradient);
		kernels->pairs_gradient(tables->V, tables->bi, work.row, dim, work.pairs[step % 2], options->batch, work.gradient);
		float rate = options->learning_rate * (float)(options->steps - step) / (float)options->steps;
		take_step(&work, start, dim, rate, options, &acc);
	}
	for (uint32_t k = 0; k < dim; k++)
		if (!bpr_is_finite(work.row[k]))
			return -ERANGE;
	memcpy(ret_row, work.row, dim * sizeof *ret_row);
	return 0;
}

/* Scores without the intercept and labels as signs; the first SCORES_KEPT are kept, the others computed each time. */
struct offsets {
	const struct tables *tables;
	const float *row;
	const struct decided_impression *decided;
	size_t n;
	const struct row_kernels *kernels;
	float kept[SCORES_KEPT], kept_sign[SCORES_KEPT];
};

/* Of decided impressions first..first + n - 1. */
static void offsets_compute(const struct offsets *o, size_t first, size_t n, float *scores, float *signs)
{
	for (size_t i = 0; i < n; i++) {
		const struct decided_impression *d = &o->decided[first + i];
		scores[i] = o->kernels->dot(o->row, o->tables->V + (size_t)d->item * o->tables->dim, o->tables->dim) + o->tables->bi[d->item];
		signs[i] = d->label ? 1.0f : -1.0f;
	}
}

/* Log posterior at b up to a constant, with its first derivative and minus its second. */
static double posterior(const struct offsets *o, double b, double prior, double precision, double *ret_slope, double *ret_curve)
{
	double value = -0.5 * precision * (b - prior) * (b - prior);
	size_t kept = o->n < SCORES_KEPT ? o->n : SCORES_KEPT;
	*ret_slope = -precision * (b - prior);
	*ret_curve = precision;
	value += o->kernels->logit_sums(o->kept, o->kept_sign, kept, (float)b, ret_slope, ret_curve);
	for (size_t i = kept; i < o->n; i += SCORES_CHUNK) {
		float scores[SCORES_CHUNK], signs[SCORES_CHUNK];
		size_t n = o->n - i < SCORES_CHUNK ? o->n - i : SCORES_CHUNK;
		offsets_compute(o, i, n, scores, signs);
		value += o->kernels->logit_sums(scores, signs, n, (float)b, ret_slope, ret_curve);
	}
	return value;
}

float intercept_fit(const struct tables *tables, const float *row, const struct decided_impression *decided, size_t n, float prior,
                    float prior_weight)
{
	struct offsets o; /* its arrays are filled as far as they are used */
	if (n == 0)
		return prior;
	o.tables = tables;
	o.row = row;
	o.decided = decided;
	o.n = n;
	o.kernels = row_kernels_best();
	offsets_compute(&o, 0, n < SCORES_KEPT ? n : SCORES_KEPT, o.kept, o.kept_sign);
	double b = (double)prior, slope, curve;
	double value = posterior(&o, b, (double)prior, (double)prior_weight, &slope, &curve);
	for (int i = 0; i < NEWTON_STEPS; i++) {
		double step = slope / (curve > 1e-9 ? curve : 1e-9);
		step = step > NEWTON_STEP_MAX ? NEWTON_STEP_MAX : step < -NEWTON_STEP_MAX ? -NEWTON_STEP_MAX : step;
		double next_slope, next_curve;
		double next = posterior(&o, b + step, (double)prior, (double)prior_weight, &next_slope, &next_curve);
		for (int half = 0; half < 4 && !(next >= value - 1e-6); half++) { /* damping: go only uphill */
			step /= 2;
			next = posterior(&o, b + step, (double)prior, (double)prior_weight, &next_slope, &next_curve);
		}
		if (!(next >= value - 1e-6))
			break;
		b += step;
		value = next;
		slope = next_slope;
		curve = next_curve;
		if (step < 1e-5 && step > -1e-5)
			break;
	}
	return bpr_is_finite((float)b) ? (float)b : prior;
}
