/*
 * test_kernels.c: the row kernels that do not train, at every instruction level that this machine runs, against naive loops in double. Those that train are in
 * test_update.c and test_gradients.c.
 */
#include <math.h>
#include <stdio.h>

#include "tests/unit/learn/update_fixture.h"

static void test_philox_runs(void **state)
{
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		struct philox_many many;
		for (uint32_t n = 0; kernels && n < 50; n++) {
			uint32_t c[6];
			for (uint32_t k = 0; k < 6; k++)
				c[k] = world_random(n * 6 + k, 29);
			c[0] = n == 0 ? UINT32_MAX - 5 : c[0]; /* counters that wrap */
			kernels->philox_run(c[0], c[1], c[2], c[3], c[4], c[5], &many);
			for (uint32_t l = 0; l < PHILOX_RUN; l++) {
				struct philox_block block = philox4x32(c[0] + l, c[1], c[2], c[3], c[4], c[5]);
				for (int k = 0; k < 4; k++)
					assert_int_equal(many.v[k][l], block.v[k]);
			}
		}
	}
}

static void test_score_dot_and_pairs(void **state)
{
	static float V[ITEMS * STRIDE_MAX + 1], row[STRIDE_MAX], bi[ITEMS], scores[ITEMS], gradient[STRIDE_MAX + 1];
	(void)state;
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		for (size_t t = 0; t < N_DIMS; t++) {
			uint32_t dim = dims[t];
			for (uint32_t k = 0; k < ITEMS * dim; k++)
				V[k + 1] = philox_centred(world_random(k, 30)); /* + 1: rows of tables are not aligned */
			for (uint32_t k = 0; k < dim; k++)
				row[k] = philox_centred(world_random(k, 31));
			for (uint32_t i = 0; i < ITEMS; i++)
				bi[i] = philox_centred(world_random(i, 32));
			kernels->score(V + 1, bi, row, 0.25f, dim, ITEMS, scores);
			double dots[ITEMS];
			for (uint32_t i = 0; i < ITEMS; i++) {
				dots[i] = 0;
				for (uint32_t k = 0; k < dim; k++)
					dots[i] += (double)row[k] * (double)V[1 + i * dim + k];
				assert_near((double)scores[i], dots[i] + 0.25 + (double)bi[i]);
				assert_near((double)kernels->dot(row, V + 1 + i * dim, dim), dots[i]);
			}
			const struct item_pair pairs[2] = {{3, 8}, {0, 5}};
			for (uint32_t k = 0; k <= dim; k++)
				gradient[k] = 1.0f;
			kernels->pairs_gradient(V + 1, bi, row, dim, pairs, 2, gradient);
			for (uint32_t k = 0; k < dim; k++) {
				double sum = 1.0;
				for (int p = 0; p < 2; p++) {
					uint32_t a = pairs[p].pos, b = pairs[p].neg;
					double z = 1 / (1 + exp(dots[a] - dots[b] + (double)bi[a] - (double)bi[b]));
					sum += z * ((double)V[1 + a * dim + k] - (double)V[1 + b * dim + k]);
				}
				assert_near((double)gradient[k], sum);
			}
			assert_true(gradient[dim] == 1.0f);
		}
	}
}

static void test_logit_sums(void **state)
{
	enum { N = 200 };
	const double n_values = N;
	float x[N], sign[N];
	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		x[i] = 30.0f * philox_centred(world_random(i, 60)); /* far into both tails */
		sign[i] = world_random(i, 61) % 2 ? 1.0f : -1.0f;
	}
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		double value = 0, slope = 5, curve = 7, got_slope = 5, got_curve = 7; /* both are added to */
		for (uint32_t i = 0; i < N; i++) {
			double m = (double)sign[i] * ((double)x[i] - 0.75), p = 1 / (1 + exp(-m));
			value -= m > 0 ? log1p(exp(-m)) : log1p(exp(m)) - m;
			slope += (double)sign[i] * (1 - p);
			curve += p * (1 - p);
		}
		assert_near(row_kernels_at(level)->logit_sums(x, sign, N, -0.75f, &got_slope, &got_curve) / n_values, value / n_values);
		assert_near(got_slope / n_values, slope / n_values);
		assert_near(got_curve / n_values, curve / n_values);
	}
}

/* Four rows out of wider ones, back into those, and between two tables without gaps. */
static void copy_rows_of(const struct row_kernels *kernels, uint32_t dim)
{
	static float from[4 * 528], to[4 * 528];
	const uint32_t wide = (dim + 15) / 16 * 16 + 16;
	for (uint32_t i = 0; i < 4 * wide; i++)
		from[i] = (float)i + 1.0f;
	memset(to, 0, sizeof to);
	assert_int_equal(kernels->copy_rows(to, dim, from, wide, dim, 4), 0);
	for (uint32_t r = 0; r < 4; r++)
		for (uint32_t k = 0; k < dim; k++)
			assert_true(to[r * dim + k] == from[r * wide + k]);
	assert_true(to[4 * dim] == 0.0f);
	for (uint32_t where = 0; where < dim; where++) { /* every place is looked at, padding is not */
		for (int kind = 0; kind < 3; kind++) {
			float old = from[2 * wide + where];
			from[2 * wide + where] = kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY;
			assert_int_equal(kernels->copy_rows(to, dim, from, wide, dim, 4), 1);
			from[2 * wide + where] = old;
		}
	}
	from[2 * wide + dim] = NAN;
	assert_int_equal(kernels->copy_rows(to, dim, from, wide, dim, 4), 0);
	for (uint32_t i = 0; i < 4 * dim; i++)
		to[i] = -1.0f - (float)i;
	assert_int_equal(kernels->copy_rows(from, wide, to, dim, dim, 4), 0);
	for (uint32_t r = 0; r < 4; r++)
		for (uint32_t k = 0; k < wide; k++)
			assert_true(k < dim ? from[r * wide + k] == to[r * dim + k] : r == 2 && k == dim ? isnan(from[r * wide + k]) : from[r * wide + k] == (float)(r * wide + k) + 1.0f);
	assert_int_equal(kernels->copy_rows(from, dim, to, dim, dim, 4), 0);
	assert_memory_equal(from, to, 4 * dim * sizeof *to);
	to[4 * dim - 1] = NAN;
	assert_int_equal(kernels->copy_rows(from, dim, to, dim, dim, 4), 1);
	assert_int_equal(kernels->copy_rows(from, dim, to, dim, dim, 3), 0);
}

static void test_copy_rows(void **state)
{
	(void)state;
	for (int level = 0; level < 3 && row_kernels_at(level); level++)
		for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
			copy_rows_of(row_kernels_at(level), dims[i]);
}

/* The deterministic mode's kernels: the same bits at every level. */
static void test_exact_kernels_agree(void **state)
{
	static struct rows rows, other;
	(void)state;
	for (size_t t = 0; t < N_DIMS; t++) {
		int64_t sums[STRIDE_MAX + 1] = {0}, sums0[STRIDE_MAX + 1] = {0};
		for (int level = 0; level < 3 && row_kernels_at(level); level++) {
			const struct row_kernels *kernels = row_kernels_at(level);
			struct row_update c = make_rows(&rows, dims[t], OPTIMIZER_ADAGRAD, LOSS_BPR, 0);
			float dot = kernels->exact_dot(c.U, c.V, c.V + c.stride, c.stride);
			float dot0 = row_kernels_at(0)->exact_dot(c.U, c.V, c.V + c.stride, c.stride);
			assert_memory_equal(&dot, &dot0, sizeof dot);
			memset(sums, 0, sizeof sums);
			kernels->exact_add(sums, 0.3f, c.V, c.V + c.stride, 0.01f, c.U, c.stride);
			kernels->exact_add(sums, -0.7f, c.U, NULL, 0.02f, c.V, c.stride);
			kernels->exact_add_two(sums, 0.4f, 0.9f, c.V, c.V + c.stride, 0.03f, c.U, c.stride);
			sums[c.stride] = 12345678901;
			if (level == 0)
				memcpy(sums0, sums, sizeof sums);
			assert_memory_equal(sums, sums0, sizeof sums);
			kernels->exact_apply(&c, sums, c.V, &c.items[0].bias, &c.items[0].acc);
			if (level == 0)
				other = rows;
			assert_memory_equal(&rows, &other, sizeof rows);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_philox_runs), cmocka_unit_test(test_score_dot_and_pairs), cmocka_unit_test(test_logit_sums),
		cmocka_unit_test(test_copy_rows),   cmocka_unit_test(test_exact_kernels_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
