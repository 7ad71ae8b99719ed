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

#define AT(field) .offset = offsetof(struct train_options, field)
static const char *const optimizers[] = { "sgd", "adagrad", NULL };
static const struct flag flags[] = {
	{ .name = "preset", .type = FLAG_CHOICE, AT(preset), .fallback = "none", .choices = train_preset_names, .help = "." },
	{ .name = "epochs", .type = FLAG_INT, AT(epochs), .fallback = "5", .min = 1, .max = 1e6, .help = "." },
	{ .name = "steps_per_epoch", .type = FLAG_INT, AT(steps_per_epoch), .fallback = "3000", .min = 1, .max = 1e9, .help = "." },
	{ .name = "batch_size", .type = FLAG_INT, AT(batch_size), .fallback = "2048", .min = 1, .max = 1e6, .help = "." },
	{ .name = "lr", .type = FLAG_FLOAT, AT(lr), .fallback = "0.02", .min = 0, .max = 100, .help = "." },
	{ .name = "optimizer", .type = FLAG_CHOICE, AT(optimizer), .fallback = "adagrad", .choices = optimizers, .help = "." },
	{ .name = "reg", .type = FLAG_FLOAT, AT(reg), .fallback = "0.5", .min = 0, .max = 100, .help = "." },
	{ .name = "reg_bias", .type = FLAG_FLOAT, AT(reg_bias), .fallback = "0.5", .min = 0, .max = 100, .help = "." },
	{ .name = "init_scale", .type = FLAG_FLOAT, AT(init_scale), .fallback = "7", .min = 0, .max = 100, .help = "." },
	{ .name = "skip_share", .type = FLAG_FLOAT, AT(skip_share), .fallback = "0", .min = 0, .max = 1, .help = "." },
	{ .name = "popular_share", .type = FLAG_FLOAT, AT(popular_share), .fallback = "0", .min = 0, .max = 1, .help = "." },
	{ .name = "hard_share", .type = FLAG_FLOAT, AT(hard_share), .fallback = "0", .min = 0, .max = 1, .help = "." },
	{ .name = "hard_of", .type = FLAG_INT, AT(hard_of), .fallback = "9", .min = 1, .max = 64, .help = "." },
};
static const struct command_spec spec = { .name = "t", .purpose = ".", .flags = flags, .n_flags = sizeof(flags) / sizeof(flags[0]), .examples = "  recctl t" };

/* The options for a command line of up to 7 words. */
static struct train_options parse(const char *a, const char *b, const char *c, const char *d)
{
	char *argv[5] = { "t", (char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)c, (char *)(uintptr_t)d };
	int argc = 1 + !!a + !!b + !!c + !!d;
	struct train_options options;
	struct flag_words words;
	char errstr[256];

	memset(&options, 0, sizeof(options));
	assert_int_equal(flags_parse(&spec, argc, argv, &options, &words, errstr, sizeof(errstr)), 0);
	train_preset_settings(&spec, &words, &options);
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
	assert_true(o.lr == 0.02 && o.reg == 0.5 && o.reg_bias == 0.5 && o.init_scale == 7 && o.hard_share == 0);
}

static void test_each_preset_fills_all(void **state)
{
	(void)state;
	for (size_t i = 0; learn_preset_at(i); i++) {
		const struct learn_preset *p = learn_preset_at(i);
		struct train_options o = parse("--preset", p->name, NULL, NULL);
		train_preset_epochs(&o, 20481);
		assert_int_equal(o.epochs, learn_preset_passes(p, 20481));
		assert_int_equal(o.steps_per_epoch, 11); /* the pass is whole */
		assert_int_equal(o.optimizer, p->optimizer);
		assert_int_equal(o.hard_of, p->hard_of);
		assert_true(o.lr == (double)p->learning_rate && o.reg == (double)p->reg && o.reg_bias == (double)p->reg_bias);
		assert_true(o.init_scale == (double)p->init_scale && o.hard_share == (double)p->hard_share);
	}
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
		cmocka_unit_test(test_flags_win),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
