/*
 * test_personalize.c: personal rows against a naive loop; item tables keep every bit; it moves towards the user's own items; faults; the intercept
 * against its own conditions.
 */
#include <errno.h>
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/personalize.h"
#include "trainer/learn/score.h"

#define ITEMS 120u

static struct tables make_tables(uint32_t dim)
{
	struct tables t = {0};
	assert_int_equal(tables_reserve(&t, 2, ITEMS, dim), 0);
	t.n_users = 2;
	t.n_items = ITEMS;
	for (size_t k = 0; k < (size_t)2 * dim; k++)
		t.U[k] = philox_centred(world_random((uint32_t)k, 60));
	for (size_t k = 0; k < (size_t)ITEMS * dim; k++)
		t.V[k] = philox_centred(world_random((uint32_t)k, 61)) * 2.0f;
	for (uint32_t i = 0; i < ITEMS; i++)
		t.bi[i] = philox_centred(world_random(i, 62));
	return t;
}

static uint32_t all_items[ITEMS];

static void fill_items(void)
{
	for (uint32_t i = 0; i < ITEMS; i++)
		all_items[i] = i;
}

/* The same in double over the same random numbers, by the description in personalize.h. Own items are few, so one of a block's tries is good. */
static void naive_personalize(const struct tables *t, const float *start, const uint32_t *own, uint32_t n_own,
                              const struct personalize_options *o, double *row)
{
	double gradient[128], acc = 0;
	for (uint32_t k = 0; k < t->dim; k++)
		row[k] = (double)start[k];
	for (uint32_t step = 0; step < o->steps; step++) {
		memset(gradient, 0, sizeof gradient);
		for (uint32_t b = 0; b < o->batch; b++) {
			struct philox_block random = philox4x32(b, step, 0, PHILOX_PERSONALIZE, (uint32_t)o->seed, (uint32_t)(o->seed >> 32));
			uint32_t pos = own[philox_below(random.v[0], n_own)], neg = 0;
			int found = 0;
			for (uint32_t attempt = 1; !found; attempt++) {
				for (int i = 1; i < 4 && !found; i++) {
					neg = all_items[philox_below(random.v[i], ITEMS)];
					found = 1;
					for (uint32_t j = 0; j < n_own; j++)
						found = found && own[j] != neg;
				}
				random = philox4x32(b, step, attempt, PHILOX_PERSONALIZE, (uint32_t)o->seed, (uint32_t)(o->seed >> 32));
			}
			const float *p = t->V + (size_t)pos * t->dim, *n = t->V + (size_t)neg * t->dim;
			double x = (double)t->bi[pos] - (double)t->bi[neg];
			for (uint32_t k = 0; k < t->dim; k++)
				x += row[k] * ((double)p[k] - (double)n[k]);
			for (uint32_t k = 0; k < t->dim; k++)
				gradient[k] += ((double)p[k] - (double)n[k]) / (1 + exp(x)) / o->batch;
		}
		double rate = (double)o->learning_rate * (o->steps - step) / o->steps;
		for (uint32_t k = 0; k < t->dim; k++) {
			gradient[k] -= (double)o->reg * (row[k] - (double)start[k]);
			acc += gradient[k] * gradient[k] / t->dim;
		}
		for (uint32_t k = 0; k < t->dim; k++)
			row[k] += rate * gradient[k] / sqrt(acc + 1e-8);
	}
}

static void test_row_is_the_naive_one(void **state)
{
	static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128};
	static const uint32_t own[] = {3, 77, 18, 90, 41};
	(void)state;
	fill_items();
	for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
		struct tables t = make_tables(dims[d]);
		struct personalize_scratch scratch = {0};
		struct personalize_options options;
		personalize_options_default(&options);
		options.steps = 40;
		options.reg = 0.3f;
		float row[128];
		double naive[128];
		assert_int_equal(personalize_row(&t, t.U, own, 5, all_items, ITEMS, &options, &scratch, row), 0);
		naive_personalize(&t, t.U, own, 5, &options, naive);
		double moved = 0;
		for (uint32_t k = 0; k < dims[d]; k++) {
			assert_true(fabs((double)row[k] - naive[k]) < 2e-5);
			moved += fabs((double)(row[k] - t.U[k]));
		}
		assert_true(moved > 1e-3);
		personalize_scratch_free(&scratch);
		tables_free(&t);
	}
}

static double own_share(const struct tables *t, const float *row, const uint32_t *own, uint32_t n_own)
{
	float scores[ITEMS];
	uint32_t right = 0;
	score_row(t, row, 0.0f, scores);
	for (uint32_t j = 0; j < n_own; j++)
		for (uint32_t i = 0; i < ITEMS; i++)
			right += scores[own[j]] > scores[i];
	return (double)right / (n_own * ITEMS);
}

static void test_items_keep_every_bit_and_the_user_moves(void **state)
{
	static const uint32_t own[] = {10, 11, 12, 13, 14, 15, 16, 17};
	(void)state;
	fill_items();
	struct tables t = make_tables(16), before = make_tables(16);
	struct personalize_scratch scratch = {0};
	struct personalize_options options;
	personalize_options_default(&options);
	options.reg = 0.01f; /* let it go far */
	float row[16], again[16], inplace[16];
	assert_int_equal(personalize_row(&t, t.U, own, 8, all_items, ITEMS, &options, &scratch, row), 0);
	assert_true(same_tables(&t, &before));
	assert_true(own_share(&t, row, own, 8) > own_share(&t, t.U, own, 8) + 0.12);
	/* a pure function, with used scratch and into its own start */
	assert_int_equal(personalize_row(&t, t.U, own, 8, all_items, ITEMS, &options, &scratch, again), 0);
	assert_memory_equal(row, again, sizeof row);
	memcpy(inplace, t.U, sizeof inplace);
	assert_int_equal(personalize_row(&t, inplace, own, 8, all_items, ITEMS, &options, &scratch, inplace), 0);
	assert_memory_equal(row, inplace, sizeof row);
	options.seed++;
	assert_int_equal(personalize_row(&t, t.U, own, 8, all_items, ITEMS, &options, &scratch, again), 0);
	assert_memory_not_equal(row, again, sizeof row);
	/* a strong pull to the start keeps it there */
	options.reg = 10.0f;
	assert_int_equal(personalize_row(&t, t.U, own, 8, all_items, ITEMS, &options, &scratch, again), 0);
	double near = 0, far = 0;
	for (int k = 0; k < 16; k++) {
		near += fabs((double)(again[k] - t.U[k]));
		far += fabs((double)(row[k] - t.U[k]));
	}
	assert_true(near < far / 5);
	personalize_scratch_free(&scratch);
	personalize_scratch_free(NULL);
	tables_free(&t);
	tables_free(&before);
}

static void test_row_faults(void **state)
{
	(void)state;
	fill_items();
	struct tables t = make_tables(8);
	struct personalize_scratch scratch = {0};
	struct personalize_options options;
	personalize_options_default(&options);
	float row[8], untouched[8];
	memset(row, 0x5a, sizeof row);
	memcpy(untouched, row, sizeof row);
	uint32_t one = 4;
	assert_int_equal(personalize_row(&t, t.U, all_items, ITEMS, all_items, ITEMS, &options, &scratch, row), -EINVAL); /* owns all */
	assert_int_equal(personalize_row(&t, t.U, &one, 1, all_items, 0, &options, &scratch, row), -EINVAL);
	assert_int_equal(personalize_row(&t, t.U, &one, 0, all_items, ITEMS, &options, &scratch, row), -EINVAL);
	float start[8] = {[3] = NAN};
	assert_int_equal(personalize_row(&t, start, &one, 1, all_items, ITEMS, &options, &scratch, row), -ERANGE);
	assert_memory_equal(row, untouched, sizeof row);
	/* all but one owned: that one is found */
	assert_int_equal(personalize_row(&t, t.U, all_items, ITEMS - 1, all_items, ITEMS, &options, &scratch, row), 0);
	options.steps = 0;
	assert_int_equal(personalize_row(&t, t.U, &one, 1, all_items, ITEMS, &options, &scratch, row), 0);
	assert_memory_equal(row, t.U, sizeof row);
	personalize_scratch_free(&scratch);
	tables_free(&t);
}

/* At the optimum: sum of (label - p) = weight * (b - prior). */
static void test_intercept_is_the_optimum(void **state)
{
	(void)state;
	enum { N_MAX = 3000 };
	static struct decided_impression decided[N_MAX];
	static const size_t sizes[] = {1, 2, 7, 40, 600, N_MAX};
	struct tables t = make_tables(16);
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		for (uint32_t rate = 0; rate <= 10; rate += 5) { /* none, half, all watched */
			for (uint32_t i = 0; i < sizes[s]; i++) {
				decided[i].item = world_random(i, 70) % ITEMS;
				decided[i].label = world_random(i, 71) % 10 < rate;
			}
			for (int far = 0; far < 2; far++) {
				float prior = far ? 6.0f : -0.5f, weight = 2.0f;
				double b = (double)intercept_fit(&t, t.U, decided, sizes[s], prior, weight), slope = 0, curve = (double)weight;
				for (size_t i = 0; i < sizes[s]; i++) {
					double x = b + (double)t.bi[decided[i].item];
					for (uint32_t k = 0; k < 16; k++)
						x += (double)t.U[k] * (double)t.V[(size_t)decided[i].item * 16 + k];
					double p = 1 / (1 + exp(-x));
					slope += decided[i].label - p;
					curve += p * (1 - p);
				}
				slope -= (double)weight * (b - (double)prior);
				assert_true(fabs(slope / curve) < 1e-3); /* what is left to go */
			}
		}
	}
	assert_true(intercept_fit(&t, t.U, decided, 0, -1.25f, 2.0f) == -1.25f);
	tables_free(&t);
}

/* Rare positives and a prior far below: a whole Newton step would go past the optimum to a worse place. */
static void test_intercept_is_damped(void **state)
{
	(void)state;
	enum { N = 2000 };
	static struct decided_impression decided[N];
	struct tables t = {0};
	assert_int_equal(tables_reserve(&t, 1, 1, 4), 0);
	t.n_users = t.n_items = 1;
	for (uint32_t i = 0; i < N; i++)
		decided[i].label = i % 20 == 0;
	double b = (double)intercept_fit(&t, t.U, decided, N, -5.0f, 0.01f);
	assert_true(fabs(1 / (1 + exp(-b)) - 0.05) < 1e-3);
	tables_free(&t);
}

static void test_score_row(void **state)
{
	(void)state;
	struct tables t = make_tables(33);
	float scores[ITEMS];
	score_row(&t, t.U + 33, 0.5f, scores);
	for (uint32_t i = 0; i < ITEMS; i++) {
		double s = 0.5 + (double)t.bi[i];
		for (uint32_t k = 0; k < 33; k++)
			s += (double)t.U[33 + k] * (double)t.V[(size_t)i * 33 + k];
		assert_true(fabs((double)scores[i] - s) < 1e-5);
		assert_true(fabs((double)score_dot(t.U + 33, t.V + (size_t)i * 33, 33) - (s - 0.5 - (double)t.bi[i])) < 1e-5);
	}
	tables_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_is_the_naive_one),    cmocka_unit_test(test_items_keep_every_bit_and_the_user_moves),
		cmocka_unit_test(test_row_faults),              cmocka_unit_test(test_intercept_is_the_optimum),
		cmocka_unit_test(test_intercept_is_damped),     cmocka_unit_test(test_score_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
