/*
 * test_deterministic.c: the deterministic mode against a naive scalar loop, bit for bit, and against itself over thread counts and runs.
 */
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/sampler.h"

#define USERS 60u
#define ITEMS 90u
#define SUMS 528u /* coordinates of the largest dim, and more */
#define BIAS 527u

/* log2 of the weight of a pair: 0 without weights, else -2..4 (the highest are cut). */
static float weight_of(uint32_t user, uint32_t item, int weighted)
{
	return weighted ? 1.0f + 6.0f * philox_centred(world_random(user * ITEMS + item, 70)) : 0.0f;
}

static struct tables train_with(const struct learn_options *options, uint64_t steps, int weighted, double *ret_loss)
{
	struct learner *learner = world_learner(options, USERS, ITEMS);
	struct tables copy = {0};
	for (uint32_t k = 0; weighted && k < USERS * 9; k++) { /* world_fill() finds them there */
		struct user_item pair = {k / 9, (k / 9 % 3) * (ITEMS / 3) + world_random(k, 5) % (ITEMS / 3)};
		float weight = weight_of(pair.user, pair.item, 1);
		assert_int_equal(learner_add_weighted(learner, &pair, &weight, 1, 0), 0);
	}
	world_fill(learner, USERS, ITEMS, 9);
	struct train_report report = world_train(learner, steps * options->batch_size - 5, 0.05f); /* the last batch is not full */
	assert_int_equal(report.nonfinite, 0);
	*ret_loss = report.loss;
	assert_int_equal(learner_pull(learner, &copy), 0);
	learner_free(learner);
	return copy;
}

/* A row's coordinate k of a copy; rows are taken as padded with zeros. */
static float at(const float *rows, uint32_t row, uint32_t dim, uint32_t k)
{
	return k < dim ? rows[(size_t)row * dim + k] : 0.0f;
}

static float lane_sum(float lanes[16])
{
	for (int width = 8; width > 0; width /= 2)
		for (int l = 0; l < width; l++)
			lanes[l] += lanes[l + width];
	return lanes[0];
}

struct naive {
	const struct learn_options *options;
	struct tables *t;
	int64_t user_sums[USERS][SUMS], item_sums[ITEMS][SUMS]; /* the bias at [BIAS] */
	uint8_t user_touched[USERS], item_touched[ITEMS];
};

/* Hardest of n by the parameters at the batch's start: all candidates, positives struck out, the first of the best. */
static void naive_hard(const struct naive *w, const struct training_set *set, uint32_t of, struct draw *d)
{
	const struct tables *t = w->t;
	uint32_t items[HARD_OF_MAX] = {d->neg}, dim = t->dim, best = SAMPLE_NONE;
	float best_score = -INFINITY;
	struct draw_plan plan = {.set = set};
	if (d->kind != NEGATIVE_HARD)
		return;
	hard_candidates(&plan, d, of, items + 1);
	for (uint32_t c = 0; c < of; c++) {
		float lanes[16] = {0};
		for (uint32_t k = 0; k < (dim + 15) / 16 * 16; k++)
			lanes[k % 16] = fmaf(at(t->U, d->user, dim, k), at(t->V, items[c], dim, k), lanes[k % 16]);
		float score = lane_sum(lanes) + t->bi[items[c]];
		if (score > best_score && !training_set_has(set, d->user, items[c])) {
			best_score = score;
			best = items[c];
		}
	}
	d->neg = best == SAMPLE_NONE ? sampler_redraw(set, d) : best;
}

static void naive_triple(struct naive *w, const struct draw *d)
{
	const struct learn_options *o = w->options;
	const struct tables *t = w->t;
	uint32_t dim = t->dim;
	float diff[16] = {0}, pos[16] = {0}, neg[16] = {0};
	for (uint32_t k = 0; k < (dim + 15) / 16 * 16; k++) {
		float u = at(t->U, d->user, dim, k), p = at(t->V, d->pos, dim, k), n = at(t->V, d->neg, dim, k);
		diff[k % 16] = fmaf(u, p - n, diff[k % 16]);
		pos[k % 16] = fmaf(u, p, pos[k % 16]);
		neg[k % 16] = fmaf(u, n, neg[k % 16]);
	}
	int bce = o->loss == LOSS_BCE;
	float zp = d->weight * bpr_sigmoid(-(bce ? lane_sum(pos) + t->bi[d->pos] : lane_sum(diff) + (t->bi[d->pos] - t->bi[d->neg])));
	float zn = bce ? d->weight * bpr_sigmoid(lane_sum(neg) + t->bi[d->neg]) : zp;
	for (uint32_t k = 0; k < dim; k++) {
		float u = at(t->U, d->user, dim, k), p = at(t->V, d->pos, dim, k), n = at(t->V, d->neg, dim, k);
		w->user_sums[d->user][k] += bpr_to_fixed(bce ? bpr_gradient_user_two(zp, zn, u, p, n, o->reg_user) : bpr_gradient_user(zp, u, p, n, o->reg_user));
		w->item_sums[d->pos][k] += bpr_to_fixed(bpr_gradient_pos(zp, u, p, o->reg_pos));
		w->item_sums[d->neg][k] += bpr_to_fixed(bpr_gradient_neg(zn, u, n, o->reg_neg));
	}
	w->item_sums[d->pos][BIAS] += bpr_to_fixed(fmaf(-o->reg_bias, t->bi[d->pos], zp));
	w->item_sums[d->neg][BIAS] += bpr_to_fixed(fmaf(-o->reg_bias, t->bi[d->neg], -zn));
	w->user_touched[d->user] = w->item_touched[d->pos] = w->item_touched[d->neg] = 1;
}

static void naive_apply(const struct learn_options *o, const int64_t *sums, uint32_t dim, float *row, float *bias, float *acc)
{
	float lanes[16] = {0};
	for (uint32_t k = 0; k < dim; k++)
		lanes[k % 16] = fmaf(bpr_from_fixed(sums[k]), bpr_from_fixed(sums[k]), lanes[k % 16]);
	float gb = bias ? bpr_from_fixed(sums[BIAS]) : 0.0f;
	float norm2 = fmaf(gb, gb, lane_sum(lanes));
	float step = bpr_step_scale(0.05f, norm2, 1.0f / (float)(dim + (bias ? 1 : 0)), o->step_norm_max,
	                            o->optimizer == OPTIMIZER_ADAGRAD ? acc : NULL);
	for (uint32_t k = 0; k < dim; k++)
		row[k] = fmaf(step, bpr_from_fixed(sums[k]), row[k]);
	if (bias)
		*bias = fmaf(step, gb, *bias);
}

/* The same training, one triple and one row after the other, on a copy of the starting parameters. */
static struct tables train_naive(const struct learn_options *options, uint32_t steps, int weighted)
{
	struct learner *learner = world_learner(options, USERS, ITEMS); /* for the starting rows only */
	struct tables t = {0};
	struct training_set set;
	struct draw_plan plan;
	static struct naive w;
	static struct draw draws[1024];
	assert_int_equal(learner_pull(learner, &t), 0);
	training_set_init(&set, options->seed);
	training_set_grow(&set, USERS, ITEMS);
	for (uint32_t u = 0; u < USERS; u++)
		for (uint32_t k = 0; k < 9; k++) {
			uint32_t item = (u % 3) * (ITEMS / 3) + world_random(u * 9 + k, 5) % (ITEMS / 3);
			training_set_add_weighted(&set, u, item, 0, weight_of(u, item, weighted));
		}
	for (uint32_t i = 0; i < ITEMS; i++)
		training_set_add_candidate(&set, i);
	draw_plan_make(&set, options, &plan);
	for (uint32_t step = 0; step < steps; step++) {
		uint32_t n = options->batch_size - (step == steps - 1 ? 5 : 0);
		memset(&w, 0, sizeof w);
		w.options = options;
		w.t = &t;
		sampler_propose(&plan, (uint64_t)step * options->batch_size, n, draws);
		sampler_settle(&plan, n, draws);
		for (uint32_t i = n; i-- > 0;) { /* backwards: the order must not matter */
			naive_hard(&w, &set, options->hard_of, &draws[i]);
			naive_triple(&w, &draws[i]);
		}
		for (uint32_t u = 0; u < USERS; u++)
			if (w.user_touched[u])
				naive_apply(options, w.user_sums[u], t.dim, t.U + (size_t)u * t.dim, NULL, &t.acc_user[u]);
		for (uint32_t i = 0; i < ITEMS; i++)
			if (w.item_touched[i])
				naive_apply(options, w.item_sums[i], t.dim, t.V + (size_t)i * t.dim, &t.bi[i], &t.acc_item[i]);
	}
	training_set_free(&set);
	learner_free(learner);
	return t;
}

static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 512};

static void test_equal_to_the_naive_loop(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
		for (int bits = 0; bits < 8; bits++) {
			struct learn_options options = world_options(dims[i]);
			int weighted = bits >> 2;
			options.deterministic = 1;
			options.optimizer = bits & 1;
			options.loss = bits >> 1 & 1;
			options.threads = 2;
			options.hard_share = i % 2 ? 0.7f : 0.0f;
			options.hard_of = 5;
			double loss;
			struct tables trained = train_with(&options, 7, weighted, &loss), naive = train_naive(&options, 7, weighted);
			assert_true(same_tables(&trained, &naive));
			assert_true(loss > 0.1 && loss < 2.0);
			tables_free(&trained);
			tables_free(&naive);
		}
	}
}

static void test_equal_over_threads_and_runs(void **state)
{
	(void)state;
	for (int bits = 0; bits < 8; bits++) {
		struct tables first = {0};
		double first_loss = 0;
		for (uint32_t run = 0; run < 5; run++) {
			struct learn_options options = world_options(33);
			options.deterministic = 1;
			options.optimizer = bits & 1;
			options.loss = bits >> 1 & 1;
			options.order = bits >> 2 ? ORDER_GROUPED : ORDER_SHUFFLED;
			options.threads = 1 + run % 3;
			options.batch_size = 200;
			options.hard_share = 0.5f;
			options.popular_share = 0.3f;
			double loss;
			struct tables trained = train_with(&options, 40, bits >> 2, &loss);
			if (run == 0) {
				first = trained;
				first_loss = loss;
				continue;
			}
			assert_true(same_tables(&first, &trained));
			assert_true(loss == first_loss);
			tables_free(&trained);
		}
		tables_free(&first);
	}
}

/* Another seed, and another split into jobs at whole batches. */
static void test_seed_and_jobs(void **state)
{
	(void)state;
	struct learn_options options = world_options(16);
	options.deterministic = 1;
	double loss;
	struct tables a = train_with(&options, 10, 0, &loss), b = {0};
	struct learner *learner = world_learner(&options, USERS, ITEMS);
	world_fill(learner, USERS, ITEMS, 9);
	for (int job = 0; job < 9; job++)
		world_train(learner, options.batch_size, 0.05f);
	world_train(learner, options.batch_size - 5, 0.05f);
	assert_int_equal(learner_pull(learner, &b), 0);
	assert_true(same_tables(&a, &b));
	learner_free(learner);
	tables_free(&b);
	options.seed++;
	b = train_with(&options, 10, 0, &loss);
	assert_false(same_tables(&a, &b));
	tables_free(&a);
	tables_free(&b);
}

/* Fast mode with one thread and steps of one triple is the same algorithm without fixed point: near, not equal. */
static void test_near_the_fast_mode(void **state)
{
	(void)state;
	for (int loss = LOSS_BPR; loss <= LOSS_BCE; loss++) {
		struct learn_options options = world_options(32);
		options.batch_size = 1;
		options.loss = loss;
		struct tables copies[2] = {{0}, {0}};
		for (int deterministic = 0; deterministic < 2; deterministic++) {
			options.deterministic = deterministic;
			double told;
			copies[deterministic] = train_with(&options, 505, 1, &told);
		}
		for (size_t k = 0; k < (size_t)USERS * 32; k++)
			assert_true(fabsf(copies[0].U[k] - copies[1].U[k]) < 1e-4f);
		for (size_t k = 0; k < (size_t)ITEMS * 32; k++)
			assert_true(fabsf(copies[0].V[k] - copies[1].V[k]) < 1e-4f);
		tables_free(&copies[0]);
		tables_free(&copies[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_to_the_naive_loop),
		cmocka_unit_test(test_equal_over_threads_and_runs),
		cmocka_unit_test(test_seed_and_jobs),
		cmocka_unit_test(test_near_the_fast_mode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
