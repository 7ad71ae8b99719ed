/*
 * test_split.c: where splits lie and what is behind them: one time for all, a time of each user's own, two files of pairs; equal times, users with too little,
 * repeated watches, unknown titles, outcomes of impressions after the split.
 */
#include "daemon/recctl/split.h"
#include "daemon/recctl/split_tsv.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static const struct state_rules rules = { .min_pos_completion = 0.6f, .negative_after_us = 60 * INT64_C(1000000) };

static const char *path_of(const char *name)
{
	static char paths[8][128];
	char path[128];
	size_t i = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	while (i < 7 && paths[i][0] && strcmp(paths[i], path) != 0)
		i++;
	memcpy(paths[i], path, sizeof(path));
	return paths[i];
}

static const char *write_text(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return path_of(name);
}

struct watch {
	int user, item, minute;
	double completion;
};

static void write_watches(const struct watch *watches, size_t n)
{
	FILE *file = fopen(path_of("watch_stats.jsonl"), "w");

	assert_non_null(file);
	for (size_t i = 0; i < n; i++)
		fprintf(file, "{\"user_id\":%d,\"item_id\":%d,\"started_at\":\"2026-01-01T%02d:%02d:00+00:00\",\"completion\":%.2f}\n", watches[i].user,
		        watches[i].item, watches[i].minute / 60, watches[i].minute % 60, watches[i].completion);
	fclose(file);
}

static int64_t minute_us(int minute)
{
	return (INT64_C(1767225600) + minute * 60) * 1000000;
}

/* Both passes; *ret_state is what comes before. */
static void split_logs(const struct split_options *options, struct state **ret_state, struct split *split)
{
	struct load_options load = { .data_dir = folder, .rules = rules, .before_us = INT64_MAX, .cut_of = split_cut_of, .cut_ctx = split };
	struct load_stats loaded;
	char error[512] = "";

	if (split_find_cut(folder, options, split, error, sizeof(error)))
		fail_msg("%s", error);
	assert_int_equal(load_logs(&load, ret_state, &loaded, error, sizeof(error)), 0);
	assert_int_equal(split_find_relevant(folder, &rules, *ret_state, split, error, sizeof(error)), 0);
}

/* "user:item item|..." of what is to be found, by external ids, in the split's order. */
static const char *to_find(const struct state *state, const struct split *split)
{
	static char text[512];
	size_t used = 0;

	text[0] = '\0';
	for (size_t u = 0; u < split->group_begin[GROUP_COUNT]; u++) {
		const struct rank_user *user = &split->users[u];

		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%" PRId64 ":", u ? "|" : "",
		                         user->user == STATE_NONE ? -1 : state_user_ids(state)[user->user]);
		for (size_t i = 0; i < user->n_relevant; i++) {
			uint32_t item = user->relevant[i];

			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%" PRId64, i ? " " : "",
			                         item < state_n_items(state) ? state_item_ids(state)[item] : -(int64_t)(item - state_n_items(state)) - 1);
		}
	}
	return text;
}

static const struct watch watches[] = {
	/* user 1: five watches, two titles again; user 2: three, the last two at the same time; user 3: one; user 4: all at one time */
	{ 1, 10, 1, 0.9 }, { 1, 11, 2, 0.9 }, { 2, 10, 3, 0.7 }, { 2, 11, 3, 0.1 }, { 3, 12, 4, 0.9 }, { 4, 10, 5, 0.9 }, { 4, 11, 5, 0.9 },
	{ 1, 12, 6, 0.2 }, { 1, 13, 7, 0.9 }, { 2, 12, 8, 0.9 }, { 2, 13, 8, 0.3 }, { 1, 10, 9, 0.8 }, { 1, 14, 10, 0.9 }, { 5, 10, 10, 0.9 },
};
#define N_WATCHES (sizeof(watches) / sizeof(watches[0]))

static void test_global(void **test)
{
	const struct split_options options = { .kind = SPLIT_GLOBAL, .share = 0.35 };
	struct state *state;
	struct split split;

	(void)test;
	write_watches(watches, N_WATCHES);
	split_logs(&options, &state, &split); /* 5 of 14 are minutes 8, 8, 9, 10, 10 */
	assert_int_equal(split.n_watches, N_WATCHES);
	assert_int_equal(split.n_held_out, 5);
	assert_int_equal(split.cut_us, minute_us(8));
	assert_int_equal(split_cut_of(&split, 99), minute_us(8));
	assert_string_equal(to_find(state, &split), "-1:10|2:12"); /* new before rare */
	assert_int_equal(split.seen_before, 1);                    /* user 1 met 10 before */
	assert_int_equal(split.unknown_items, 1);                  /* 14 */
	assert_int_equal(split.n_relevant, 2);
	assert_int_equal(split.group_begin[GROUP_RARE], 1);
	assert_int_equal(split.users[1].n_masked, 2);
	state_free(state);
	split_free(&split);
	assert_null(split.users);
}

static void test_user_last_n(void **test)
{
	struct split_options options = { .kind = SPLIT_USER, .last_n = 1 };
	struct state *state;
	struct split split;

	(void)test;
	write_watches(watches, N_WATCHES);
	split_logs(&options, &state, &split);
	assert_int_equal(split.n_cuts, 2); /* users 1 and 2: the others would have nothing left */
	assert_int_equal(split_cut_of(&split, 1), minute_us(10));
	assert_int_equal(split_cut_of(&split, 2), minute_us(8)); /* equal times stay together */
	assert_true(split_cut_of(&split, 3) == INT64_MAX && split_cut_of(&split, 0) == INT64_MAX && split_cut_of(&split, 6) == INT64_MAX);
	assert_int_equal(split.n_held_out, 3);
	assert_string_equal(to_find(state, &split), "2:12");
	assert_int_equal(split.unknown_items, 1); /* user 1's 14 */
	state_free(state);
	split_free(&split);

	options.last_n = 3;
	split_logs(&options, &state, &split);
	assert_int_equal(split_cut_of(&split, 1), minute_us(7));
	assert_int_equal(split_cut_of(&split, 2), INT64_MAX); /* minute 3 holds two: all four would go */
	assert_int_equal(split.n_held_out, 3);
	assert_string_equal(to_find(state, &split), "1:13"); /* user 2 met it */
	state_free(state);
	split_free(&split);

	options.last_n = 100;
	char error[512];
	assert_int_equal(split_find_cut(folder, &options, &split, error, sizeof(error)), -ENODATA);
	assert_non_null(strstr(error, "--holdout 0"));
	split_free(&split);
}

static void test_user_share(void **test)
{
	const struct split_options options = { .kind = SPLIT_USER, .share = 0.34 };
	struct state *state;
	struct split split;

	(void)test;
	write_watches(watches, N_WATCHES);
	split_logs(&options, &state, &split); /* 3 of user 1's 6, 2 of user 2's 4 */
	assert_int_equal(split_cut_of(&split, 1), minute_us(7));
	assert_int_equal(split_cut_of(&split, 2), minute_us(8));
	assert_int_equal(split.n_held_out, 5);
	assert_int_equal(split.seen_before, 1);
	assert_string_equal(to_find(state, &split), "2:12"); /* nobody else met 13 before his own cut */
	assert_int_equal(split.unknown_items, 2);
	state_free(state);
	split_free(&split);
}

/* Impressions after the split: of what was known, decided by what happened after it. */
static void test_decided(void **test)
{
	const struct split_options options = { .kind = SPLIT_GLOBAL, .share = 0.35 };
	static const struct { int user, item, minute; } shown[] = { { 1, 11, 2 }, { 2, 12, 8 }, { 2, 10, 8 }, { 1, 14, 9 }, { 5, 10, 9 }, { 3, 10, 10 } };
	FILE *file = fopen(path_of("impressions.jsonl"), "w");
	struct state *state;
	struct split split;

	(void)test;
	write_watches(watches, N_WATCHES);
	for (size_t i = 0; i < 6; i++)
		fprintf(file, "{\"user_id\":%d,\"item_id\":%d,\"shown_at\":\"2026-01-01T00:%02d:00+00:00\",\"surface\":\"home\",\"position\":1,\"request_id\":\"r\"}\n",
		        shown[i].user, shown[i].item, shown[i].minute);
	fclose(file);
	split_logs(&options, &state, &split);
	/* before the split; watched far enough; skipped; a new title; a new user; too young to be decided */
	assert_int_equal(split.n_decided, 2);
	for (size_t i = 0; i < 2; i++) {
		int64_t item = state_item_ids(state)[split.decided[i].item];

		assert_int_equal(state_user_ids(state)[split.decided[i].user], 2);
		assert_true((item == 12 && split.decided[i].label == 1) || (item == 10 && split.decided[i].label == 0));
	}
	assert_true(split.decided[0].item != split.decided[1].item);
	state_free(state);
	split_free(&split);
	unlink(path_of("impressions.jsonl"));
}

static int load_tsv(const char *train, const char *test, enum tsv_format format, struct state **state, struct split *split, char error[512])
{
	const struct tsv_options options = { .train = write_text("train", train), .test = write_text("test", test), .format = format, .rules = rules };

	return split_tsv_load(&options, state, split, error, 512);
}

static void assert_tsv(const char *train, const char *test, enum tsv_format format, uint64_t positives, const char *wanted)
{
	struct state *state;
	struct split split;
	char error[512] = "";
	uint64_t n = 0;

	if (load_tsv(train, test, format, &state, &split, error))
		fail_msg("%s", error);
	for (uint32_t i = 0; i < state_n_items(state); i++)
		n += state_item_popularity(state, i);
	assert_int_equal(n, positives);
	assert_string_equal(to_find(state, &split), wanted);
	state_free(state);
	split_free(&split);
}

static void assert_tsv_refused(const char *train, const char *test, enum tsv_format format, const char *says)
{
	struct state *state;
	struct split split;
	char error[512] = "";

	assert_true(load_tsv(train, test, format, &state, &split, error) < 0);
	if (!strstr(error, says))
		fail_msg("\"%s\" does not say \"%s\"", error, says);
}

static void test_files(void **test)
{
	(void)test;
	/* pairs, with a count; a header; other separators; a pair twice; known pairs are not judged, unknown titles are */
	assert_tsv("1\t10\t5\n1\t11\t3.2e+05\n2\t10\t1\n2\t10\t1\n", "2\t11\t1\n2\t10\t1\n", TSV_AUTO, 3, "2:11");
	assert_tsv("user,item\r\n1,10\r\n\r\n2,11\r\n", "user,item\n1,11\n7,10\n2,99\n2,98\n", TSV_AUTO, 2, "-1:10|1:11|2:-1 -2");
	assert_tsv("1::10::5::978300760\n2::11::3::978300761\n", "1::11::1::1", TSV_AUTO, 2, "1:11");
	/* lists, of several lengths or by order; a user without items */
	assert_tsv("1 10 11 12\n2 10\n3 12 13\n", "1 13\n2 11 12\n3\n", TSV_AUTO, 6, "1:13|2:11 12");
	assert_tsv("1 10 11\n2 10 12\n", "1 12 13\n2 11 13\n", TSV_LISTS, 4, "1:12 -1|2:11 -1");
	assert_tsv("1 10 11\n2 10 12\n", "1 12 13\n2 11 13\n", TSV_PAIRS, 2, "1:-1|2:-2");

	assert_tsv_refused("1 10\n1 x\n", "1 11\n", TSV_AUTO, "train: line 2: an id that is no integer");
	assert_tsv_refused("1 10\n-2 11\n", "1 11\n", TSV_AUTO, "line 2");
	assert_tsv_refused("1 10\n", "1 9223372036854775808\n", TSV_AUTO, "test: line 1");
	assert_tsv_refused("1 10\n2\n", "1 11\n", TSV_PAIRS, "line 2: a user without an item");
	assert_tsv_refused("1 10\n", "1 10\n", TSV_AUTO, "nothing to find");
	assert_tsv_refused("a b\n", "1 10\n", TSV_AUTO, "holds no pairs");
	const struct tsv_options absent = { .train = "/nonexistent/x", .test = "/nonexistent/x", .rules = rules };
	struct state *state;
	struct split split;
	char error[512];
	assert_int_equal(split_tsv_load(&absent, &state, &split, error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "/nonexistent/x: No such file"));
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/recd-split.XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_global), cmocka_unit_test(test_user_last_n), cmocka_unit_test(test_user_share),
		cmocka_unit_test(test_decided), cmocka_unit_test(test_files),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
