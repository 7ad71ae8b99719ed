/*
 * test_preset.c: the presets table: names, order of cost, options that a learner takes, passes for small and large sets.
 */
#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/preset.h"

static void test_the_three_names(void **state)
{
	(void)state;
	const char *const names[] = {"fast", "default", "quality"};
	for (size_t i = 0; i < 3; i++) {
		assert_string_equal(learn_preset_at(i)->name, names[i]);
		assert_ptr_equal(learn_preset_find(names[i]), learn_preset_at(i));
	}
	assert_null(learn_preset_at(3));
	assert_null(learn_preset_find("Fast"));
	assert_null(learn_preset_find(""));
}

static void test_cost_rises(void **state)
{
	(void)state;
	for (uint64_t n = 100; n <= 100000000; n *= 10)
		for (size_t i = 1; learn_preset_at(i); i++)
			assert_true(learn_preset_passes(learn_preset_at(i), n) > learn_preset_passes(learn_preset_at(i - 1), n));
	for (size_t i = 1; learn_preset_at(i); i++) /* more passes at a lower rate */
		assert_true(learn_preset_at(i)->learning_rate < learn_preset_at(i - 1)->learning_rate);
}

static void test_a_learner_takes_each(void **state)
{
	(void)state;
	for (size_t i = 0; learn_preset_at(i); i++) {
		const struct learn_preset *preset = learn_preset_at(i);
		struct learn_options options = world_options(16);
		options.optimizer = preset->optimizer;
		options.reg_user = options.reg_pos = options.reg_neg = preset->reg;
		options.reg_bias = preset->reg_bias;
		options.init_scale = preset->init_scale;
		options.hard_share = preset->hard_share;
		options.hard_of = preset->hard_of;
		struct learner *learner = world_learner(&options, 60, 90);
		world_fill(learner, 60, 90, 9);
		struct train_report report = world_train(learner, 20000, preset->learning_rate);
		assert_int_equal(report.nonfinite, 0);
		assert_int_equal(report.triples, 20000);
		learner_free(learner);
	}
}

static void test_passes_by_size(void **state)
{
	(void)state;
	const struct learn_preset preset = {.passes = 20, .passes_min = 5, .triples_soft_max = 1000}, always = {.passes = 7};
	assert_int_equal(learn_preset_passes(&preset, 0), 20);
	assert_int_equal(learn_preset_passes(&preset, 1), 20);
	assert_int_equal(learn_preset_passes(&preset, 50), 20);
	assert_int_equal(learn_preset_passes(&preset, 51), 19);
	assert_int_equal(learn_preset_passes(&preset, 100), 10);
	assert_int_equal(learn_preset_passes(&preset, 199), 5);
	assert_int_equal(learn_preset_passes(&preset, UINT64_MAX), 5);
	assert_int_equal(learn_preset_passes(&always, UINT64_MAX), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_three_names),
		cmocka_unit_test(test_cost_rises),
		cmocka_unit_test(test_a_learner_takes_each),
		cmocka_unit_test(test_passes_by_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
