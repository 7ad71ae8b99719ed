/*
 * test_flags.c: the flag table: every type, both spellings, defaults, and what a mistake is told.
 */
#include "daemon/recctl/flags.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct options {
	int64_t top_k;
	uint64_t seed;
	double rate;
	const char *data_dir;
	const char *socket;
	int json;
	int negatives;
};

static const char *const negative_names[] = { "uniform", "skips", NULL };

static const struct flag flags[] = {
	{ .name = "top_k", .type = FLAG_INT, .offset = offsetof(struct options, top_k), .fallback = "5", .min = 1, .max = 1000, .help = "How many titles." },
	{ .name = "seed", .type = FLAG_UINT64, .offset = offsetof(struct options, seed), .fallback = "42", .help = "Seed." },
	{ .name = "rate", .type = FLAG_FLOAT, .offset = offsetof(struct options, rate), .fallback = "0.02", .min = 0, .max = 10, .help = "Learning rate." },
	{ .name = "data_dir", .type = FLAG_STRING, .offset = offsetof(struct options, data_dir), .fallback = "data", .placeholder = "DIR", .help = "Logs." },
	{ .name = "socket", .type = FLAG_STRING, .offset = offsetof(struct options, socket), .placeholder = "PATH", .help = "Daemon's socket." },
	{ .name = "json", .type = FLAG_BOOL, .offset = offsetof(struct options, json), .help = "For machines." },
	{ .name = "negatives", .type = FLAG_CHOICE, .offset = offsetof(struct options, negatives), .fallback = "skips", .choices = negative_names, .help = "Kind." },
};

static const struct command_spec spec = { .name = "probe",
	                                  .purpose = "shows flags",
	                                  .flags = flags,
	                                  .n_flags = sizeof(flags) / sizeof(flags[0]),
	                                  .positionals = "USER_ID...",
	                                  .positionals_max = 2,
	                                  .notes = "A note.",
	                                  .examples = "  recctl probe --top_k 3" };

static struct options options;
static struct flag_words words;
static char errstr[512];

/* Parses up to 7 words after the command's name. */
static int parse(const struct command_spec *with, ...)
{
	static char copies[8][128];
	char *argv[9] = { copies[0] };
	int argc = 1;
	va_list list;

	strcpy(copies[0], with->name);
	va_start(list, with);
	for (const char *word; argc < 8 && (word = va_arg(list, const char *)); argc++) {
		snprintf(copies[argc], sizeof(copies[argc]), "%s", word);
		argv[argc] = copies[argc];
	}
	va_end(list);
	memset(&options, 0xa5, sizeof(options));
	errstr[0] = '\0';
	return flags_parse(with, argc, argv, &options, &words, errstr, sizeof(errstr));
}

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(parse(&spec, NULL), 0);
	assert_int_equal(options.top_k, 5);
	assert_int_equal(options.seed, 42);
	assert_true(options.rate == 0.02);
	assert_string_equal(options.data_dir, "data");
	assert_null(options.socket);
	assert_int_equal(options.json, 0);
	assert_int_equal(options.negatives, 1);
	assert_int_equal(words.count, 0);
	assert_int_equal(words.given, 0);
}

static void test_both_spellings(void **state)
{
	(void)state;
	assert_int_equal(parse(&spec, "--top_k", "7", "--data-dir=x=y", "--rate=1e-3", "--json", "--negatives", "uniform", NULL), 0);
	assert_int_equal(options.top_k, 7);
	assert_string_equal(options.data_dir, "x=y");
	assert_true(options.rate == 1e-3);
	assert_int_equal(options.json, 1);
	assert_int_equal(options.negatives, 0);
	assert_true(flags_given(&spec, &words, "data_dir"));
	assert_true(flags_given(&spec, &words, "json"));
	assert_false(flags_given(&spec, &words, "seed"));
	assert_int_equal(parse(&spec, "--top-k=8", "--top_k", "9", "--json=no", "--seed=18446744073709551615", NULL), 0);
	assert_int_equal(options.top_k, 9); /* the last counts */
	assert_int_equal(options.json, 0);
	assert_true(options.seed == UINT64_MAX);
}

static void test_words(void **state)
{
	(void)state;
	assert_int_equal(parse(&spec, "12", "--json", "--", "--13", NULL), 0);
	assert_int_equal(words.count, 2);
	assert_string_equal(words.words[0], "12");
	assert_string_equal(words.words[1], "--13");
	assert_int_equal(parse(&spec, "1", "2", "3", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "\"3\" is one word too many"));
	struct command_spec needs = spec;
	needs.positionals_min = 1;
	assert_int_equal(parse(&needs, "--json", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "USER_ID... is missing"));
}

/* A bad value: the message names the flag, the value, and what is allowed. */
static void test_bad_values(void **state)
{
	static const struct {
		const char *flag, *value, *allowed;
	} cases[] = {
		{ "--top_k", "0", "a whole number from 1 to 1000" },
		{ "--top_k", "1001", "a whole number from 1 to 1000" },
		{ "--top_k", "-1", "a whole number from 1 to 1000" },
		{ "--top_k", "1.5", "a whole number from 1 to 1000" },
		{ "--top_k", "5x", "a whole number from 1 to 1000" },
		{ "--top_k", " 5", "a whole number from 1 to 1000" },
		{ "--top_k", "99999999999999999999", "a whole number from 1 to 1000" },
		{ "--seed", "-1", "a whole number from 0 to 18446744073709551615" },
		{ "--seed", "18446744073709551616", "a whole number from 0 to 18446744073709551615" },
		{ "--rate", "nan", "a number from 0 to 10" },
		{ "--rate", "inf", "a number from 0 to 10" },
		{ "--rate", "10.01", "a number from 0 to 10" },
		{ "--rate", "1e", "a number from 0 to 10" },
		{ "--data_dir", "", "text that is not empty" },
		{ "--negatives", "skip", "one of uniform|skips" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char quoted[64];

		assert_int_equal(parse(&spec, cases[i].flag, cases[i].value, NULL), -EINVAL);
		snprintf(quoted, sizeof(quoted), "%s: \"%s\" is not valid", cases[i].flag, cases[i].value);
		assert_non_null(strstr(errstr, quoted));
		assert_non_null(strstr(errstr, cases[i].allowed));
	}
	assert_int_equal(parse(&spec, "--json=maybe", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "--json: \"maybe\" is not valid; allowed: yes or no"));
	assert_int_equal(parse(&spec, "--top_k", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "--top_k needs a value: a whole number"));
	assert_int_equal(parse(&spec, "--data_dir", "--json", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "--data_dir needs a value"));
}

static void test_unknown_flag(void **state)
{
	(void)state;
	assert_int_equal(parse(&spec, "--topk", "3", NULL), -EINVAL);
	assert_string_equal(errstr, "unknown flag --topk; did you mean --top_k?");
	assert_int_equal(parse(&spec, "--date-dir=x", NULL), -EINVAL);
	assert_string_equal(errstr, "unknown flag --date_dir; did you mean --data_dir?");
	assert_int_equal(parse(&spec, "--neg", "skips", NULL), -EINVAL);
	assert_string_equal(errstr, "unknown flag --neg; did you mean --negatives?");
	assert_int_equal(parse(&spec, "--frobnicate", NULL), -EINVAL);
	assert_string_equal(errstr, "unknown flag --frobnicate; `recctl probe --help` lists the flags");
	assert_int_equal(parse(&spec, "-k", "3", NULL), -EINVAL);
	assert_non_null(strstr(errstr, "two dashes"));
	/* a name longer than any buffer */
	assert_int_equal(parse(&spec, "--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL), -EINVAL);
}

static void test_nearest(void **state)
{
	static const char *const names[] = { "train", "explain", "status", "synth" };

	(void)state;
	assert_string_equal(flags_nearest("trian", names, 4), "train");
	assert_string_equal(flags_nearest("syn", names, 4), "synth");
	assert_string_equal(flags_nearest("statsu", names, 4), "status");
	assert_null(flags_nearest("zzzzz", names, 4));
	assert_null(flags_nearest("x", names, 0));
}

static void test_help(void **state)
{
	char *page = NULL;
	size_t size;

	(void)state;
	assert_int_equal(parse(&spec, "--frobnicate", "--help", NULL), 1);
	assert_int_equal(parse(&spec, "-h", NULL), 1);
	assert_int_equal(parse(&spec, "--", "--help", NULL), 0);
	FILE *out = open_memstream(&page, &size);
	flags_help(&spec, out);
	fclose(out);
	static const char *const parts[] = { "recctl probe: shows flags", "Usage: recctl probe [flags] USER_ID...", "--top_k N  (default 5)",
		                             "How many titles. Allowed: a whole number from 1 to 1000.", "--data_dir DIR  (default data)", "--socket PATH\n",
		                             "--json\n", "--negatives uniform|skips  (default skips)", "A note.", "Examples:\n  recctl probe --top_k 3",
		                             "Exit codes:\n  0  done\n  1  failed", "  2  wrong use" };
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		assert_non_null(strstr(page, parts[i]));
	free(page);
}

/* A flag that may stand more than once keeps all its texts in order. */
static void test_repeated_texts(void **state)
{
	static const struct flag texts_flags[] = { { .name = "property", .type = FLAG_TEXTS, .placeholder = "NAME=VALUE", .help = "More than once." } };
	static const struct command_spec texts_spec = { .name = "probe", .purpose = "shows texts", .flags = texts_flags, .n_flags = 1 };
	static char name[] = "probe", flag[] = "--property", first[] = "a=1", second[] = "--property=b=2", empty[] = "--property=";
	char *argv[FLAG_TEXTS_MAX + 8] = { name, flag, first, second, empty };
	struct flag_texts texts;

	(void)state;
	assert_int_equal(flags_parse(&texts_spec, 1, argv, &texts, &words, errstr, sizeof(errstr)), 0);
	assert_int_equal(texts.count, 0);
	assert_int_equal(flags_parse(&texts_spec, 4, argv, &texts, &words, errstr, sizeof(errstr)), 0);
	assert_int_equal(texts.count, 2);
	assert_string_equal(texts.texts[0], "a=1");
	assert_string_equal(texts.texts[1], "b=2");
	assert_int_equal(flags_parse(&texts_spec, 5, argv, &texts, &words, errstr, sizeof(errstr)), -EINVAL);
	for (int i = 1; i <= FLAG_TEXTS_MAX + 1; i++)
		argv[i] = second;
	assert_int_equal(flags_parse(&texts_spec, FLAG_TEXTS_MAX + 1, argv, &texts, &words, errstr, sizeof(errstr)), 0);
	assert_int_equal(texts.count, FLAG_TEXTS_MAX);
	assert_int_equal(flags_parse(&texts_spec, FLAG_TEXTS_MAX + 2, argv, &texts, &words, errstr, sizeof(errstr)), -EINVAL);
	assert_non_null(strstr(errstr, "at most 64"));
}

/* A name that no flag has must not pass for a flag that was not given. */
static void test_given_wants_a_flag(void **state)
{
	static char name[] = "probe", flag[] = "--top-k=5";
	char *argv[] = { name, flag };
	int status = 0;

	(void)state;
	assert_int_equal(flags_parse(&spec, 2, argv, &options, &words, errstr, sizeof(errstr)), 0);
	assert_int_equal(flags_given(&spec, &words, "top_k"), 1);
	assert_int_equal(flags_given(&spec, &words, "seed"), 0);
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		const struct rlimit no_core = { 0, 0 };

		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGABRT, SIG_DFL); /* cmocka catches it */
		fclose(stderr);
		(void)flags_given(&spec, &words, "topk");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),   cmocka_unit_test(test_both_spellings), cmocka_unit_test(test_words), cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_unknown_flag), cmocka_unit_test(test_nearest),      cmocka_unit_test(test_help),
		cmocka_unit_test(test_repeated_texts), cmocka_unit_test(test_given_wants_a_flag),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
