/*
 * test_replay_merge.c: the order of `recctl replay` against a naive merge over many small files, plain and zstd, with late lines, bad lines and a range.
 */
#include "daemon/recctl/replay_merge.h"
#include "daemon/recctl/replay_plan.h"
#include "ingest/decode.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

#define N_FILES 40 /* of each timed stream */
#define BEGIN_US INT64_C(1765368000000000)
#define S INT64_C(1000000)

static char folder[64];
static uint64_t random_state;

static uint32_t draw(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((random_state >> 33) % n);
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/recd-merge-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command); /* NOLINT(cert-env33-c): a folder of our own name */
}

/* What a good line of the corpus is, to compare with what the merge hands out. */
struct expected {
	char text[256];
	char name[64];
	enum event_stream stream;
	int64_t offset, key, time_us, order_us;
	uint32_t rank; /* of its file among all, in the plan's order */
	uint32_t place; /* in its file */
};

struct corpus {
	struct expected *lines;
	size_t n, out_of_range, bad;
};

static void write_file(const char *name, const char *text, size_t len, int zstd)
{
	char path[160], *packed = malloc(ZSTD_compressBound(len));

	snprintf(path, sizeof(path), "%s/%s%s", folder, name, zstd ? ".zst" : "");
	unlink(path); /* writing over a file waits for the disk */
	FILE *out = fopen(path, "wb");
	assert_non_null(out);
	size_t n = zstd ? ZSTD_compress(packed, ZSTD_compressBound(len), text, len, 1) : len;
	assert_int_equal(fwrite(zstd ? packed : text, 1, n, out), n);
	assert_int_equal(fclose(out), 0);
	free(packed);
}

static int print_line(char *out, size_t size, enum event_stream stream, int64_t key, int64_t time_us)
{
	char when[ISO8601_MAX];

	iso8601_format(time_us, when);
	switch (stream) {
	case STREAM_IMPRESSIONS:
		return snprintf(out, size, "{\"user_id\":%lld,\"item_id\":5,\"surface\":\"home\",\"position\":1,\"shown_at\":\"%s\",\"request_id\":\"r\"}", (long long)key, when);
	case STREAM_EVENTS:
		return snprintf(out, size, "{\"user_id\":%lld,\"item_id\":5,\"type\":\"click\",\"occurred_at\":\"%s\",\"request_id\":\"r\"}", (long long)key, when);
	case STREAM_WATCHES:
		return snprintf(out, size, "{\"user_id\":%lld,\"item_id\":5,\"started_at\":\"%s\",\"completion\":0.5}", (long long)key, when);
	case STREAM_CATALOGUE:
		return snprintf(out, size, "{\"item_id\":%lld}", (long long)key);
	default:
		return snprintf(out, size, "{\"user_id\":%lld}", (long long)key);
	}
}

/* One file of a stream around begin_us, its lines mostly in order. */
static void make_file(struct corpus *corpus, enum event_stream stream, const char *name, uint32_t rank, int64_t begin_us, int64_t from_us, int64_t to_us)
{
	int timed = stream != STREAM_CATALOGUE && stream != STREAM_USERS;
	char *text = malloc(65536);
	size_t used = 0;
	uint32_t n = draw(60);
	int64_t running = INT64_MIN;

	for (uint32_t i = 0; i < n; i++) {
		if (draw(10) == 0) {
			used += (size_t)sprintf(text + used, draw(2) ? "{\"user_id\":7,\n" : "[]\n");
			corpus->bad++;
			continue;
		}
		struct expected *line = &corpus->lines[corpus->n];
		int64_t time_us = begin_us + (int64_t)i * 10 * S - (int64_t)draw(100) * S; /* also far enough back to be late, and equal times */
		int64_t key = draw(1000);
		int len = print_line(line->text, sizeof(line->text), stream, key, time_us);

		line->offset = (int64_t)used;
		used += (size_t)sprintf(text + used, "%s\n", line->text);
		if (timed && (time_us < from_us || time_us >= to_us)) {
			corpus->out_of_range++;
			continue;
		}
		if (timed && time_us > running)
			running = time_us;
		assert_true(len > 0);
		snprintf(line->name, sizeof(line->name), "%s", name);
		line->stream = stream;
		line->key = key;
		line->time_us = timed ? time_us : INT64_MIN;
		line->order_us = running;
		line->rank = rank;
		line->place = i;
		corpus->n++;
	}
	write_file(name, text, used, (int)(rank % 3 == 1));
	free(text);
}

static int compare_expected(const void *left, const void *right)
{
	const struct expected *a = left, *b = right;

	if (a->order_us != b->order_us)
		return a->order_us < b->order_us ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return a->place < b->place ? -1 : a->place > b->place;
}

/* Files of all streams; the plan's order is catalogue, users, impressions, events, watch_stats, each by name. */
static void make_corpus(struct corpus *corpus, uint64_t seed, int64_t from_us, int64_t to_us)
{
	static const struct {
		enum event_stream stream;
		const char *stem;
		int n_files;
	} kinds[] = { { STREAM_CATALOGUE, "items", 2 },
		      { STREAM_USERS, "users", 2 },
		      { STREAM_IMPRESSIONS, "impressions", N_FILES },
		      { STREAM_EVENTS, "events", N_FILES },
		      { STREAM_WATCHES, "watch_stats", N_FILES } };
	uint32_t rank = 0;

	random_state = seed;
	*corpus = (struct corpus){ .lines = calloc((size_t)(3 * N_FILES + 4) * 60, sizeof(struct expected)) };
	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		for (int i = 0; i < kinds[kind].n_files; i++) {
			char name[64];

			snprintf(name, sizeof(name), "%s-%03d.jsonl", kinds[kind].stem, i);
			make_file(corpus, kinds[kind].stream, name, rank++, BEGIN_US + i * 300 * S, from_us, to_us);
		}
	}
	qsort(corpus->lines, corpus->n, sizeof(*corpus->lines), compare_expected);
}

struct bad_lines {
	uint64_t n, last_line;
	char last_path[256];
};

static void note_bad(void *ctx, const char *path, uint64_t line, enum refusal reason)
{
	struct bad_lines *bad = ctx;

	assert_true(reason == REFUSED_JSON || reason == REFUSED_MISSING_KEY || reason == REFUSED_WRONG_TYPE);
	bad->n++;
	bad->last_line = line;
	snprintf(bad->last_path, sizeof(bad->last_path), "%s", path);
}

static void check_corpus(uint64_t seed, int64_t from_us, int64_t to_us)
{
	struct corpus corpus;
	struct replay_plan plan;
	struct replay_merge *merge = NULL;
	struct replay_record record;
	struct bad_lines bad = { 0 };
	uint64_t lines = 0, out_of_range = 0, bytes = 0;
	char errstr[512] = "";
	int rc;

	make_corpus(&corpus, seed, from_us, to_us);
	assert_int_equal(replay_plan_begin(NULL, NULL, NULL, NULL, &plan, errstr, sizeof(errstr)), 0);
	assert_int_equal(replay_plan_add_folder(&plan, folder, errstr, sizeof(errstr)), 0);
	if (replay_plan_finish(&plan, errstr, sizeof(errstr)))
		fail_msg("%s", errstr);
	struct replay_merge_config config = { .inputs = plan.inputs, .n_inputs = plan.n_inputs, .from_us = from_us, .to_us = to_us, .refused = note_bad, .ctx = &bad };
	assert_int_equal(replay_merge_open(&config, &merge, errstr, sizeof(errstr)), 0);
	assert_int_equal(bad.n, 0); /* the first look tells nobody */
	for (size_t i = 0; i < corpus.n; i++) {
		const struct expected *e = &corpus.lines[i];

		assert_int_equal(replay_merge_next(merge, &record, errstr, sizeof(errstr)), 1);
		if (strcmp(plan.inputs[record.input].name, e->name) != 0 || record.offset != e->offset)
			fail_msg("seed %llu, record %zu: %s at %lld, expected %s at %lld", (unsigned long long)seed, i, plan.inputs[record.input].name,
			         (long long)record.offset, e->name, (long long)e->offset);
		assert_int_equal(record.len, strlen(e->text));
		assert_memory_equal(record.text, e->text, record.len);
		assert_true(record.stream == e->stream && record.key == e->key && record.time_us == e->time_us && record.order_us == e->order_us);
	}
	rc = replay_merge_next(merge, &record, errstr, sizeof(errstr));
	assert_int_equal(rc, 0);
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		lines += replay_merge_counts(merge, (enum event_stream)stream)->lines;
		out_of_range += replay_merge_counts(merge, (enum event_stream)stream)->out_of_range;
	}
	for (uint32_t i = 0; i < plan.n_inputs; i++)
		bytes += plan.inputs[i].bytes;
	assert_int_equal(bad.n, corpus.bad);
	assert_int_equal(out_of_range, corpus.out_of_range);
	assert_int_equal(lines, corpus.n + corpus.bad + corpus.out_of_range);
	assert_int_equal(replay_merge_read_bytes(merge), bytes); /* every file to its end, also those with nothing in range */
	replay_merge_close(merge);
	replay_plan_free(&plan);
	free(corpus.lines);
}

static void test_order_is_that_of_a_naive_merge(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 6; seed++)
		check_corpus(seed, INT64_MIN, INT64_MAX);
}

static void test_range_is_half_open_and_late_lines_do_not_move_it(void **state)
{
	(void)state;
	for (uint64_t seed = 20; seed < 26; seed++)
		check_corpus(seed, BEGIN_US + 1000 * S, BEGIN_US + 4000 * S);
	check_corpus(40, BEGIN_US - 1000000 * S, BEGIN_US - 999999 * S); /* nothing in range */
}

/* 124 files, 20 descriptors: files that do not overlap in time are not open together. */
static void test_few_files_are_open_together(void **state)
{
	struct rlimit old, few;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 20;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	check_corpus(50, INT64_MIN, INT64_MAX);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order_is_that_of_a_naive_merge, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_range_is_half_open_and_late_lines_do_not_move_it, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_few_files_are_open_together, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
