/*
 * test_train_preset.c: what --preset puts in place of flags that were not given, and what it leaves alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/recctl/train_preset.h"
#include "trainer/learn/preset.h"

/* The options for a command line of up to 4 words. What a preset fills holds numbers that no preset has, where the line does not name it. */
static struct train_options parse(const char *a, const char *b, const char *c, const char *d)
{
	char *argv[5] = { "train", (char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)c, (char *)(uintptr_t)d };
	int argc = 1 + !!a + !!b + !!c + !!d;
	struct train_options options;
	struct flag_words words;
	char errstr[256];

	memset(&options, 0, sizeof(options));
	assert_int_equal(flags_parse(&train_spec, argc, argv, &options, &words, errstr, sizeof(errstr)), 0);
	options.init_scale = flags_given(&train_spec, &words, "init_scale") ? options.init_scale : 7;
	options.reg_bias = flags_given(&train_spec, &words, "reg_bias") ? options.reg_bias : 0.5;
	options.hard_of = flags_given(&train_spec, &words, "hard_of") ? options.hard_of : 9;
	options.hard_share = flags_given(&train_spec, &words, "hard_share") ? options.hard_share : 0;
	train_preset_settings(&train_spec, &words, &options);
	return options;
}

static void test_names_are_those_of_the_table(void **state)
{
	(void)state;
	assert_string_equal(train_preset_names[0], "none");
	size_t i = 0;
	for (; learn_preset_at(i); i++)
		assert_string_equal(train_preset_names[i + 1], learn_preset_at(i)->name);
	assert_null(train_preset_names[i + 1]);
}

static void test_none_changes_nothing(void **state)
{
	(void)state;
	struct train_options o = parse(NULL, NULL, NULL, NULL);
	train_preset_epochs(&o, 1000000);
	assert_int_equal(o.epochs, 5);
	assert_int_equal(o.steps_per_epoch, 3000);
	assert_int_equal(o.hard_of, 9);
	assert_int_equal(o.optimizer, OPTIMIZER_ADAGRAD);
	assert_int_equal(o.batch_size, 2048);
	assert_true(o.lr == 0.02 && o.reg == 0.02 && o.reg_bias == 0.5 && o.init_scale == 7 && o.hard_share == 0);
	assert_true(o.reg_user == 0.02 && o.reg_pos == 0.02 && o.reg_neg == 0.02);
}

static void test_each_preset_fills_all(void **state)
{
	(void)state;
	for (size_t i = 0; learn_preset_at(i); i++) {
		const struct learn_preset *p = learn_preset_at(i);
		struct train_options o = parse("--preset", p->name, NULL, NULL);
		train_preset_epochs(&o, 20481);
		assert_int_equal(o.epochs, learn_preset_passes(p, 20481));
		assert_int_equal(o.steps_per_epoch, 11); /* the pass is whole, and hardly more */
		assert_int_equal(o.batch_size, 1862);
		assert_int_equal(o.optimizer, p->optimizer);
		assert_int_equal(o.hard_of, p->hard_of);
		assert_true(o.lr == (double)p->learning_rate && o.reg == (double)p->reg && o.reg_bias == (double)p->reg_bias);
		assert_true(o.reg_user == (double)p->reg && o.reg_pos == (double)p->reg && o.reg_neg == (double)p->reg);
		assert_true(o.init_scale == (double)p->init_scale && o.hard_share == (double)p->hard_share);
	}
}

/* An epoch is one pass over a small set, too. */
static void test_an_epoch_is_one_pass(void **state)
{
	(void)state;
	for (uint64_t n = 1; n < 20000; n += n / 7 + 1) {
		struct train_options o = parse("--preset", "default", NULL, NULL);
		train_preset_epochs(&o, n);
		uint64_t draws = (uint64_t)o.steps_per_epoch * (uint64_t)o.batch_size;
		assert_true(draws >= n && draws < n + (uint64_t)o.steps_per_epoch && o.batch_size <= 2048);
		o = parse("--preset", "default", "--batch_size", "512"); /* as asked: whole steps of that size */
		train_preset_epochs(&o, n);
		assert_int_equal(o.batch_size, 512);
		assert_int_equal(o.steps_per_epoch, (n + 511) / 512);
		o = parse("--preset=default", "--steps_per_epoch=9", NULL, NULL);
		train_preset_epochs(&o, n);
		assert_true(o.batch_size == 2048 && o.steps_per_epoch == 9);
	}
}

static void test_regularisation_of_each_row(void **state)
{
	(void)state;
	struct train_options o = parse("--reg=0.5", "--reg_pos=0.25", NULL, NULL);
	assert_true(o.reg_user == 0.5 && o.reg_pos == 0.25 && o.reg_neg == 0.5);
	o = parse("--preset=fast", "--reg_user=0", "--reg_neg=0.75", NULL);
	assert_true(o.reg_user == 0 && o.reg_pos == (double)learn_preset_find("fast")->reg && o.reg_neg == 0.75);
	o = parse("--preset=fast", "--reg=0.125", "--reg_neg=0.75", NULL);
	assert_true(o.reg_user == 0.125 && o.reg_pos == 0.125 && o.reg_neg == 0.75);
}

static void test_flags_win(void **state)
{
	(void)state;
	const struct learn_preset *p = learn_preset_find("quality");
	struct train_options o = parse("--preset=quality", "--lr=0.02", "--epochs=5", "--optimizer=adagrad"); /* the fallbacks' own values, given */
	train_preset_epochs(&o, 100000);
	assert_true(o.lr == 0.02);
	assert_int_equal(o.epochs, 5);
	assert_int_equal(o.steps_per_epoch, 49);
	assert_int_equal(o.optimizer, OPTIMIZER_ADAGRAD);
	assert_true(o.reg == (double)p->reg);
	o = parse("--preset=quality", "--steps-per-epoch=7", "--hard-of=3", "--reg=0.001");
	train_preset_epochs(&o, 100000);
	assert_int_equal(o.steps_per_epoch, 7);
	assert_int_equal(o.epochs, p->passes);
	assert_int_equal(o.hard_of, 3);
	assert_true(o.reg == 0.001);
	o = parse("--preset=fast", "--init-scale=2", "--reg-bias=0.25", "--hard-share=0.125");
	assert_true(o.init_scale == 2 && o.reg_bias == 0.25 && o.hard_share == 0.125);
	o = parse("--preset=fast", "--skip-share=0.25", "--popular-share=0.25", NULL); /* makes room */
	assert_true(o.hard_share == 0.5);
	o = parse("--preset=fast", "--skip-share=0.75", "--popular-share=0.75", NULL); /* the learner will refuse these two */
	assert_true(o.hard_share == 0);
	o = parse("--preset=fast", "--skip-share=0.5", "--hard-share=1", NULL);
	assert_true(o.hard_share == 1); /* as asked; the learner will refuse it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_those_of_the_table),
		cmocka_unit_test(test_none_changes_nothing),
		cmocka_unit_test(test_each_preset_fills_all),
		cmocka_unit_test(test_an_epoch_is_one_pass),
		cmocka_unit_test(test_regularisation_of_each_row),
		cmocka_unit_test(test_flags_win),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
