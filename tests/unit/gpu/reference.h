/*
 * reference.h: the deterministic mode as a backend, written as plainly as can be: one triple, one coordinate, one row after the other, and nothing of the CPU
 * backend or its kernels. What the other backends compute has to have these bits. Each test includes it once; for small tables only.
 *
 * Draws come from the host's sampler (what the device draws instead has tests of its own); the hardest of n, sums, steps, losses and rows are worked out here.
 */
#ifndef TESTS_UNIT_GPU_REFERENCE_H
#define TESTS_UNIT_GPU_REFERENCE_H

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/backend.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/philox.h"
#include "trainer/learn/sampler.h"
#include "trainer/learn/tables.h"

#define REFERENCE_DIM_MAX 256u

struct backend {
	const struct learn_options *options;
	const struct training_set *set;
	struct tables t;
	uint64_t passes;
	struct train_report last;
	/* of the batch under way; a row's bias stands behind its coordinates */
	int64_t (*user_sums)[REFERENCE_DIM_MAX + 1], (*item_sums)[REFERENCE_DIM_MAX + 1];
	uint8_t *user_moved, *item_moved;
};

/* One triple's pull at its items, and what it cost. */
struct reference_pull {
	float pos, neg, loss;
};

static int reference_probe(char *reason, size_t reason_size)
{
	(void)reason;
	(void)reason_size;
	return 0;
}

static int reference_open(const struct learn_options *options, const struct training_set *set, struct backend **ret_backend, char *errstr, size_t errstr_size)
{
	struct backend *b = calloc(1, sizeof *b);
	(void)errstr;
	(void)errstr_size;
	if (!b || !options->deterministic || options->emb_dim > REFERENCE_DIM_MAX)
		abort();
	b->options = options;
	b->set = set;
	b->last.loss = (double)NAN;
	*ret_backend = b;
	return 0;
}

static void reference_close(struct backend *b)
{
	if (!b)
		return;
	tables_free(&b->t);
	free(b->user_sums);
	free(b->item_sums);
	free(b->user_moved);
	free(b->item_moved);
	free(b);
}

/* Uniform in -0.5..0.5 by the seed and the external id, times init_scale / dim. */
static void reference_begin_row(const struct backend *b, float *row, int64_t id, uint32_t purpose)
{
	uint64_t seed = b->options->seed, bits = (uint64_t)id;
	for (uint32_t k = 0; k < b->options->emb_dim; k++) {
		struct philox_block random = philox4x32(k / 4, (uint32_t)bits, (uint32_t)(bits >> 32), purpose, (uint32_t)seed, (uint32_t)(seed >> 32));
		row[k] = philox_centred(random.v[k % 4]) * (b->options->init_scale / (float)b->options->emb_dim);
	}
}

static int reference_grow(struct backend *b, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	uint32_t dim = b->options->emb_dim, users = b->t.n_users, items = b->t.n_items;
	if (tables_reserve(&b->t, n_users, n_items, dim) < 0)
		abort();
	for (uint32_t u = users; u < n_users; u++)
		reference_begin_row(b, b->t.U + (size_t)u * dim, user_ids[u], PHILOX_USER_ROW);
	for (uint32_t i = items; i < n_items; i++)
		reference_begin_row(b, b->t.V + (size_t)i * dim, item_ids[i], PHILOX_ITEM_ROW);
	b->t.dim = dim;
	b->t.n_users = n_users > users ? n_users : users;
	b->t.n_items = n_items > items ? n_items : items;
	b->user_sums = realloc(b->user_sums, b->t.n_users * sizeof *b->user_sums);
	b->item_sums = realloc(b->item_sums, b->t.n_items * sizeof *b->item_sums);
	b->user_moved = realloc(b->user_moved, b->t.n_users);
	b->item_moved = realloc(b->item_moved, b->t.n_items);
	return 0;
}

/* Sixteen partial sums, folded in halves: the order that every backend keeps to. */
static float reference_fold(float part[BPR_LANES])
{
	for (uint32_t half = BPR_LANES / 2; half; half /= 2)
		for (uint32_t l = 0; l < half; l++)
			part[l] += part[l + half];
	return part[0];
}

static float reference_dot(const float *a, const float *b, uint32_t dim)
{
	float part[BPR_LANES] = {0};
	for (uint32_t k = 0; k < dim; k++)
		part[k % BPR_LANES] = fmaf(a[k], b[k], part[k % BPR_LANES]);
	return reference_fold(part);
}

/* dot(user, pos - neg). */
static float reference_dot_apart(const float *user, const float *pos, const float *neg, uint32_t dim)
{
	float part[BPR_LANES] = {0};
	for (uint32_t k = 0; k < dim; k++)
		part[k % BPR_LANES] = fmaf(user[k], pos[k] - neg[k], part[k % BPR_LANES]);
	return reference_fold(part);
}

/* The negative of a hard draw: the highest scored of n candidates that is no positive, the first of equals. */
static uint32_t reference_hardest(const struct backend *b, const struct draw_plan *plan, const struct draw *draw)
{
	uint32_t items[HARD_OF_MAX] = {draw->neg}, chosen = SAMPLE_NONE, dim = b->t.dim;
	float best = -INFINITY;
	hard_candidates(plan, draw, plan->hard_of, items + 1);
	for (uint32_t c = 0; c < plan->hard_of; c++) {
		float score = reference_dot(b->t.U + (size_t)draw->user * dim, b->t.V + (size_t)items[c] * dim, dim) + b->t.bi[items[c]];
		if (training_set_has(b->set, draw->user, items[c]) || !(score > best))
			continue;
		best = score;
		chosen = items[c];
	}
	return chosen == SAMPLE_NONE ? sampler_redraw(b->set, draw) : chosen;
}

static struct reference_pull reference_pull_of(const struct backend *b, const struct draw *draw)
{
	uint32_t dim = b->t.dim;
	const float *u = b->t.U + (size_t)draw->user * dim, *p = b->t.V + (size_t)draw->pos * dim, *n = b->t.V + (size_t)draw->neg * dim;
	float bias_pos = b->t.bi[draw->pos], bias_neg = b->t.bi[draw->neg];
	struct reference_pull pull;
	if (b->options->loss == LOSS_BCE) {
		float x_pos = reference_dot(u, p, dim) + bias_pos, x_neg = reference_dot(u, n, dim) + bias_neg;
		pull.pos = draw->weight * bpr_sigmoid(-x_pos);
		pull.neg = draw->weight * bpr_sigmoid(x_neg);
		pull.loss = 0.5f * (bpr_softplus(-x_pos) + bpr_softplus(x_neg));
	} else {
		float x = reference_dot_apart(u, p, n, dim) + (bias_pos - bias_neg);
		pull.pos = pull.neg = draw->weight * bpr_sigmoid(-x);
		pull.loss = bpr_softplus(-x);
	}
	return pull;
}

static void reference_sum_triple(struct backend *b, const struct draw *draw, const struct reference_pull *pull)
{
	const struct learn_options *o = b->options;
	uint32_t dim = b->t.dim;
	const float *user = b->t.U + (size_t)draw->user * dim, *pos = b->t.V + (size_t)draw->pos * dim, *neg = b->t.V + (size_t)draw->neg * dim;
	int64_t *user_sums = b->user_sums[draw->user], *pos_sums = b->item_sums[draw->pos], *neg_sums = b->item_sums[draw->neg];
	for (uint32_t k = 0; k < dim; k++) {
		float u = user[k], p = pos[k], n = neg[k];
		/* the ascent of ln sigmoid (or of both logarithms), less the weight decay; in fixed point, so that the order of triples does not count */
		float of_user = o->loss == LOSS_BCE ? fmaf(pull->pos, p, fmaf(-pull->neg, n, -(o->reg_user * u))) : fmaf(pull->pos, p - n, -(o->reg_user * u));
		user_sums[k] += bpr_to_fixed(of_user);
		pos_sums[k] += bpr_to_fixed(fmaf(pull->pos, u, -(o->reg_pos * p)));
		neg_sums[k] += bpr_to_fixed(fmaf(-pull->neg, u, -(o->reg_neg * n)));
	}
	pos_sums[REFERENCE_DIM_MAX] += bpr_to_fixed(fmaf(-o->reg_bias, b->t.bi[draw->pos], pull->pos));
	neg_sums[REFERENCE_DIM_MAX] += bpr_to_fixed(fmaf(-o->reg_bias, b->t.bi[draw->neg], -pull->neg));
	b->user_moved[draw->user] = b->item_moved[draw->pos] = b->item_moved[draw->neg] = 1;
}

/* bias: NULL for users. */
static void reference_move_row(const struct backend *b, float rate, const int64_t *sums, float *row, float *bias, float *acc)
{
	float gradient[REFERENCE_DIM_MAX], of_bias = bias ? bpr_from_fixed(sums[REFERENCE_DIM_MAX]) : 0.0f;
	uint32_t dim = b->t.dim;
	for (uint32_t k = 0; k < dim; k++)
		gradient[k] = bpr_from_fixed(sums[k]);
	float norm2 = fmaf(of_bias, of_bias, reference_dot(gradient, gradient, dim)), step = rate;
	if (b->options->optimizer == OPTIMIZER_ADAGRAD) {
		*acc = fmaf(norm2, 1.0f / (float)(bias ? dim + 1 : dim), *acc);
		step = rate / sqrtf(*acc + BPR_ADAGRAD_EPS);
	}
	float length2 = step * step * norm2, longest = b->options->step_norm_max;
	if (length2 > longest * longest)
		step *= longest / sqrtf(length2);
	for (uint32_t k = 0; k < dim; k++)
		row[k] = fmaf(step, gradient[k], row[k]);
	if (bias)
		*bias = fmaf(step, of_bias, *bias);
}

static void reference_batch(struct backend *b, const struct draw_plan *plan, float rate, uint64_t first, uint32_t n, double *loss)
{
	struct draw *draws = calloc(n, sizeof *draws);
	memset(b->user_sums, 0, b->t.n_users * sizeof *b->user_sums);
	memset(b->item_sums, 0, b->t.n_items * sizeof *b->item_sums);
	memset(b->user_moved, 0, b->t.n_users);
	memset(b->item_moved, 0, b->t.n_items);
	sampler_propose(plan, first, n, draws);
	sampler_settle(plan, n, draws);
	for (uint32_t d = 0; d < n; d++) {
		if (draws[d].kind == NEGATIVE_HARD)
			draws[d].neg = reference_hardest(b, plan, &draws[d]);
		if (draws[d].neg == SAMPLE_NONE) {
			b->last.rejected++;
			continue;
		}
		struct reference_pull pull = reference_pull_of(b, &draws[d]);
		reference_sum_triple(b, &draws[d], &pull);
		*loss += (double)pull.loss;
		b->last.triples++;
	}
	uint32_t dim = b->t.dim;
	for (uint32_t u = 0; u < b->t.n_users; u++)
		if (b->user_moved[u])
			reference_move_row(b, rate, b->user_sums[u], b->t.U + (size_t)u * dim, NULL, &b->t.acc_user[u]);
	for (uint32_t i = 0; i < b->t.n_items; i++)
		if (b->item_moved[i])
			reference_move_row(b, rate, b->item_sums[i], b->t.V + (size_t)i * dim, &b->t.bi[i], &b->t.acc_item[i]);
	free(draws);
}

/* A share of the Adagrad sums goes with each pass that has ended. */
static void reference_forget(struct backend *b)
{
	float keep = 1.0f;
	for (; b->passes < b->set->passes_here; b->passes++)
		keep *= 1.0f - b->options->adagrad_forget;
	if (b->options->optimizer != OPTIMIZER_ADAGRAD || keep == 1.0f)
		return;
	for (uint32_t u = 0; u < b->t.n_users; u++)
		b->t.acc_user[u] *= keep;
	for (uint32_t i = 0; i < b->t.n_items; i++)
		b->t.acc_item[i] *= keep;
}

static int reference_train(struct backend *b, const struct train_job *job, struct train_report *ret_report)
{
	struct draw_plan plan;
	double loss = 0;
	b->last = (struct train_report){.loss = (double)NAN};
	reference_forget(b);
	draw_plan_make(b->set, b->options, &plan);
	for (uint64_t first = 0; first < job->triples_max; first += plan.batch) {
		uint64_t left = job->triples_max - first;
		reference_batch(b, &plan, job->learning_rate, first, left < plan.batch ? (uint32_t)left : plan.batch, &loss);
	}
	if (b->last.triples)
		b->last.loss = loss / (double)b->last.triples;
	*ret_report = b->last;
	return 0;
}

static int reference_poll(struct backend *b, struct train_report *ret_report)
{
	*ret_report = b->last;
	return 1;
}

static int reference_wait(struct backend *b, struct train_report *ret_report)
{
	*ret_report = b->last;
	return 0;
}

static void reference_copy(const struct tables *from, struct tables *to, uint32_t users, uint32_t items)
{
	memcpy(to->U, from->U, (size_t)users * from->dim * sizeof(float));
	memcpy(to->V, from->V, (size_t)items * from->dim * sizeof(float));
	memcpy(to->bi, from->bi, items * sizeof(float));
	memcpy(to->acc_user, from->acc_user, users * sizeof(float));
	memcpy(to->acc_item, from->acc_item, items * sizeof(float));
}

static int reference_pull(struct backend *b, struct tables *copy)
{
	if (tables_reserve(copy, b->t.n_users, b->t.n_items, b->t.dim) < 0)
		abort();
	reference_copy(&b->t, copy, b->t.n_users, b->t.n_items);
	copy->n_users = b->t.n_users;
	copy->n_items = b->t.n_items;
	copy->dim = b->t.dim;
	copy->epoch = 1;
	return 0;
}

/* Of as many rows as the tables have. */
static int reference_push(struct backend *b, const struct tables *copy)
{
	if (copy->n_users != b->t.n_users || copy->n_items != b->t.n_items)
		abort();
	reference_copy(copy, &b->t, b->t.n_users, b->t.n_items);
	return 0;
}

static const struct backend_ops backend_reference = {
	.name = "reference",
	.probe = reference_probe,
	.open = reference_open,
	.close = reference_close,
	.grow = reference_grow,
	.train = reference_train,
	.poll = reference_poll,
	.wait = reference_wait,
	.pull = reference_pull,
	.push = reference_push,
};

#endif
