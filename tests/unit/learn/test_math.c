/*
 * test_math.c: Philox against Random123's known answers; exp, sigmoid, softplus against libm in double; fixed point; steps.
 */
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/bpr_math.h"

static void test_philox_known_answers(void **state)
{
	/* kat_vectors of Random123: philox4x32 10 */
	static const uint32_t rows[3][10] = {
		{0, 0, 0, 0, 0, 0, 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u},
		{0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u,
	         0x6d5451fdu},
		{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u, 0xd16cfe09u, 0x94fdccebu, 0x5001e420u,
	         0x24126ea1u},
	};
	(void)state;
	for (int r = 0; r < 3; r++) {
		const uint32_t *k = rows[r];
		struct philox_block block = philox4x32(k[0], k[1], k[2], k[3], k[4], k[5]);
		for (int i = 0; i < 4; i++)
			assert_int_equal(block.v[i], k[6 + i]);
	}
}

static void test_philox_ranges(void **state)
{
	(void)state;
	assert_int_equal(philox_below(0, 7), 0);
	assert_int_equal(philox_below(0xffffffffu, 7), 6);
	assert_int_equal(philox_below(0xffffffffu, 0xffffffffu), 0xfffffffeu);
	assert_true(philox_centred(0) == -0.5f);
	assert_true(philox_centred(0xffffffffu) < 0.5f);
	assert_true(philox_centred(0x80000000u) == 0.0f);
}

static void test_exp_sigmoid_softplus(void **state)
{
	(void)state;
	double worst_exp = 0, worst_sigmoid = 0, worst_softplus = 0;
	for (int i = -860000; i <= 860000; i += 7) {
		float x = (float)i * 1e-4f;
		double e = exp((double)x), s = 1 / (1 + exp(-(double)x)), p = log1p(exp(-fabs((double)x))) + (x > 0 ? (double)x : 0);
		worst_exp = fmax(worst_exp, fabs((double)bpr_exp(x) - e) / e);
		worst_sigmoid = fmax(worst_sigmoid, fabs((double)bpr_sigmoid(x) - s) / s);
		worst_softplus = fmax(worst_softplus, fabs((double)bpr_softplus(x) - p) / p);
	}
	assert_true(worst_exp < 3e-7);
	assert_true(worst_sigmoid < 4e-7);
	assert_true(worst_softplus < 1e-6);
	/* the ends: no NaN, no infinity, no trap */
	assert_true(bpr_sigmoid(1e30f) == 1.0f);
	assert_true(bpr_sigmoid(-1e30f) >= 0.0f && bpr_sigmoid(-1e30f) < 1e-37f);
	assert_true(bpr_is_finite(bpr_exp(INFINITY)) && bpr_is_finite(bpr_exp(-INFINITY)));
	assert_true(fabsf(bpr_softplus(1e6f) - 1e6f) < 1.0f);
	assert_true(bpr_exp(0.0f) == 1.0f);
}

static void test_finite(void **state)
{
	(void)state;
	assert_int_equal(bpr_is_finite(0.0f), 1);
	assert_int_equal(bpr_is_finite(-3.4e38f), 1);
	assert_int_equal(bpr_is_finite(INFINITY), 0);
	assert_int_equal(bpr_is_finite(-INFINITY), 0);
	assert_int_equal(bpr_is_finite(NAN), 0);
}

static void test_fixed_point(void **state)
{
	(void)state;
	assert_int_equal(bpr_to_fixed(1.0f), INT64_C(1) << 36);
	assert_int_equal(bpr_to_fixed(-0.5f), -(INT64_C(1) << 35));
	assert_int_equal(bpr_to_fixed(1e30f), INT64_C(1) << 46);
	assert_int_equal(bpr_to_fixed(-INFINITY), -(INT64_C(1) << 46));
	assert_int_equal(bpr_to_fixed(-1500.0f), -(INT64_C(1) << 46));
	assert_int_equal(bpr_to_fixed(INFINITY), INT64_C(1) << 46);
	assert_int_equal(bpr_to_fixed(NAN), -(INT64_C(1) << 46));
	assert_true(bpr_from_fixed(bpr_to_fixed(0.37f)) == 0.37f);
	for (uint32_t i = 0; i < 10000; i++) {
		float f = philox_centred(world_random(i, 1)) * powf(2.0f, (float)(i % 20) - 10.0f);
		assert_true(fabs((double)bpr_from_fixed(bpr_to_fixed(f)) - (double)f) <= ldexp(1, -36) + fabs((double)f) * 6e-8);
	}
	/* the largest batch of the largest values does not overflow */
	int64_t sum = 0;
	for (int i = 0; i < 65536; i++)
		assert_false(__builtin_add_overflow(sum, bpr_to_fixed(INFINITY), &sum));
}

/* The gradients against central differences of ln sigmoid(x) - reg / 2 * w^2, one coordinate of each row. */
static double objective(double u, double p, double n, double rest, double reg_u, double reg_p, double reg_n)
{
	double x = u * (p - n) + rest;
	return -log1p(exp(-x)) - reg_u / 2 * u * u - reg_p / 2 * p * p - reg_n / 2 * n * n;
}

static void test_gradients_by_differences(void **state)
{
	(void)state;
	const double h = 1e-5, ru = 0.013, rp = 0.2, rn = 0.07;
	for (uint32_t i = 0; i < 200; i++) {
		float u = 3 * philox_centred(world_random(i, 10)), p = 3 * philox_centred(world_random(i, 11));
		float n = 3 * philox_centred(world_random(i, 12)), rest = 4 * philox_centred(world_random(i, 13));
		double du = u, dp = p, dn = n, dr = rest;
		float z = bpr_sigmoid(-(u * (p - n) + rest));
		double gu = (objective(du + h, dp, dn, dr, ru, rp, rn) - objective(du - h, dp, dn, dr, ru, rp, rn)) / (2 * h);
		double gp = (objective(du, dp + h, dn, dr, ru, rp, rn) - objective(du, dp - h, dn, dr, ru, rp, rn)) / (2 * h);
		double gn = (objective(du, dp, dn + h, dr, ru, rp, rn) - objective(du, dp, dn - h, dr, ru, rp, rn)) / (2 * h);
		assert_true(fabs((double)bpr_gradient_user(z, u, p, n, (float)ru) - gu) < 1e-5);
		assert_true(fabs((double)bpr_gradient_pos(z, u, p, (float)rp) - gp) < 1e-5);
		assert_true(fabs((double)bpr_gradient_neg(z, u, n, (float)rn) - gn) < 1e-5);
	}
}

static void test_step_scale(void **state)
{
	(void)state;
	/* SGD: the rate, unless the step would be longer than the limit */
	assert_true(bpr_step_scale(0.5f, 1.0f, 0.25f, 1.0f, NULL) == 0.5f);
	assert_true(fabsf(bpr_step_scale(0.5f, 16.0f, 0.25f, 1.0f, NULL) - 0.25f) < 1e-6f);
	/* Adagrad: the sum takes in the mean square first */
	float acc = 3.0f;
	assert_true(fabsf(bpr_step_scale(0.5f, 4.0f, 0.25f, 100.0f, &acc) - 0.25f) < 1e-6f);
	assert_true(acc == 4.0f);
	/* an infinite norm stops the row and leaves no NaN in the step */
	assert_true(bpr_step_scale(0.5f, INFINITY, 0.25f, 1.0f, NULL) == 0.0f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_philox_known_answers), cmocka_unit_test(test_philox_ranges),
		cmocka_unit_test(test_exp_sigmoid_softplus), cmocka_unit_test(test_finite),
		cmocka_unit_test(test_fixed_point),          cmocka_unit_test(test_gradients_by_differences),
		cmocka_unit_test(test_step_scale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
