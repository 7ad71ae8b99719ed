/*
 * test_source_files.c: the file source in ordinary weather: globs, starting places, batches, refused lines, long lines, status.
 * Rows 1 to 3 of the failure list through files. Its group "File tail" is in test_tail_faults.c and test_tail_trouble.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/resource.h>

#include "tests/unit/ingest/tail_world.h"

#define FULL(w, name) world_position(w, name)

static void test_reads_and_follows(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 100);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 100), 0);
	world_lines(w, "a.jsonl", 100, 20000); /* many batches */
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 20000), 0);
	assert_int_equal(w->now.n_positions, 1);
	assert_int_equal(FULL(w, "a.jsonl")->lines, 20000);
	assert_int_equal(FULL(w, "a.jsonl")->last_time_us, INT64_C(1765371599000000)); /* 12:59:59 */
	world_free(w);
}

/* One line is handed on at once: the poll that finds it does not wait for more. */
static void test_one_line_is_a_batch(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 1);
	world_open(w);
	assert_int_equal(world_poll(w, 60000), 1);
	assert_int_equal(w->batch->n_events, 1);
	assert_true(w->batch->received_us > 0);
	world_lines(w, "a.jsonl", 1, 2);
	assert_int_equal(world_poll(w, 60000), 1);
	assert_int_equal(w->batch->n_events, 1);
	assert_int_equal(w->batch->stream, STREAM_WATCHES);
	world_free(w);
}

static void test_globs_and_new_files(void **unused)
{
	struct world *w = world_new(NULL, "a*.jsonl", "sub/*.jsonl");

	(void)unused;
	world_lines(w, "a1.jsonl", 0, 10);
	world_lines(w, "a2.jsonl", 10, 20);
	world_lines(w, "b.jsonl", 20, 30);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 20), 0);
	assert_int_equal(w->now.delivered, 20);
	world_lines(w, "a3.jsonl", 30, 40);
	assert_int_equal(mkdir(world_path(w, "sub"), 0755), 0);
	assert_int_equal(mkdir(world_path(w, "sub/x.jsonl"), 0755), 0); /* a directory is no log */
	world_lines(w, "sub/c.jsonl", 40, 50);
	world_drain(w);
	world_lines(w, "sub/c.jsonl", 50, 60);
	world_lines(w, "a1.jsonl", 60, 70);
	world_drain(w);
	assert_int_equal(world_wrong(w, 30, 70), 0);
	assert_int_equal(w->now.delivered, 60);
	assert_int_equal(w->now.n_positions, 4);
	world_stop(w);
	world_drain(w);
	assert_int_equal(w->now.delivered, 60); /* nothing twice after a restart */
	world_free(w);
}

static void test_many_files(void **unused)
{
	struct world *w = world_new(NULL, "*.jsonl", NULL);
	struct source_status status;
	char name[40];

	(void)unused;
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%d.jsonl", i);
		world_lines(w, name, i * 100, i * 100 + 100);
	}
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 5000), 0);
	source_status(w->source, &status);
	assert_int_equal(status.partitions, 50);
	assert_int_equal(status.lag_bytes, 0);
	world_free(w);
}

/* A hard link, or a second pattern for the same file, is the same file. */
static void test_aliases(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", "*.jsonl");

	(void)unused;
	world_lines(w, "a.jsonl", 0, 10);
	assert_int_equal(link(world_path(w, "a.jsonl"), world_path(w, "b.jsonl")), 0);
	assert_int_equal(symlink(world_path(w, "a.jsonl"), world_path(w, "c.jsonl")), 0);
	world_drain(w);
	assert_int_equal(w->now.delivered, 10);
	world_free(w);
}

static void test_from_the_end(void **unused)
{
	struct world *w = world_new(NULL, "*.jsonl", NULL);
	char line[300];
	size_t len = world_line(line, sizeof(line), 10);

	(void)unused;
	w->config.from_end = 1;
	world_lines(w, "a.jsonl", 0, 10);
	world_write(w, "a.jsonl", line, len / 2); /* the writer is in the middle of line 10 */
	world_drain(w);
	assert_int_equal(w->now.delivered, 0);
	assert_non_null(FULL(w, "a.jsonl")); /* the place is announced, so that it gets into the cut */
	assert_true(FULL(w, "a.jsonl")->offset > 0);
	world_write(w, "a.jsonl", line + len / 2, len - len / 2);
	world_lines(w, "a.jsonl", 11, 20);
	world_lines(w, "late.jsonl", 20, 30); /* appears later: from its beginning */
	world_drain(w);
	assert_int_equal(world_wrong(w, 10, 30), 0);
	assert_int_equal(w->now.delivered, 20);
	world_stop(w);
	world_lines(w, "a.jsonl", 30, 40);
	world_lines(w, "later.jsonl", 40, 50);
	world_drain(w);
	assert_int_equal(world_wrong(w, 10, 50), 0);
	assert_int_equal(w->now.delivered, 40);
	world_free(w);
}

/* First start: rotated files that a glob names come first, oldest first; then the live one; they are one position. */
static void test_rotations_in_the_glob(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl*", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 10);
	world_rename(w, "a.jsonl", "a.jsonl.2");
	world_lines(w, "a.jsonl", 10, 20);
	world_rename(w, "a.jsonl", "a.jsonl.1");
	world_lines(w, "a.jsonl", 20, 30);
	world_write(w, "a.jsonl.3.gz", "\x1f\x8b", 2);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 30), 0);
	assert_int_equal(w->now.delivered, 30);
	assert_int_equal(w->now.refused, 0);
	assert_int_equal(w->now.n_positions, 1);
	world_rename(w, "a.jsonl.2", "a.jsonl.3");
	world_rename(w, "a.jsonl.1", "a.jsonl.2");
	world_rename(w, "a.jsonl", "a.jsonl.1");
	world_lines(w, "a.jsonl", 30, 40);
	world_drain(w);
	world_stop(w);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 40), 0);
	assert_int_equal(w->now.delivered, 40);
	world_free(w);
}

/* Row 1 through files: bad lines are counted by reason, with their place, and the good ones around them come. */
static void test_refused_lines(void **unused)
{
	static const char bad[] = "{\"user_id\":1,}\n{\"user_id\":-1,\"item_id\":1,\"started_at\":\"2025-12-10T12:00:00Z\",\"completion\":1}\n\n \r\n";
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	const struct source_position *position;
	int64_t offset;

	(void)unused;
	world_lines(w, "a.jsonl", 0, 3);
	world_open(w);
	assert_int_equal(world_poll(w, 60000), 1);
	offset = w->batch->position.offset;
	world_write(w, "a.jsonl", bad, sizeof(bad) - 1);
	assert_int_equal(world_poll(w, 60000), 1);
	assert_int_equal(w->batch->n_refused, 2);
	assert_int_equal(w->batch->refused[0].reason, REFUSED_JSON);
	assert_int_equal(w->batch->refused[0].offset, offset);
	assert_int_equal(w->batch->refused[0].text.len, 14);
	assert_memory_equal(w->batch->text + w->batch->refused[0].text.offset, bad, 14);
	assert_int_equal(w->batch->refused[1].reason, REFUSED_BAD_ID);
	assert_int_equal(w->batch->refused[1].offset, offset + 15);
	for (int i = 3; i < 3000; i++) {
		world_lines(w, "a.jsonl", i, i + 1);
		if (i % 100 == 0)
			world_write(w, "a.jsonl", bad, sizeof(bad) - 1);
	}
	world_drain(w);
	position = FULL(w, "a.jsonl");
	assert_int_equal(world_wrong(w, 0, 3000), 0);
	assert_int_equal(position->refused[REFUSED_JSON], 30);
	assert_int_equal(position->refused[REFUSED_BAD_ID], 30);
	assert_int_equal(position->empty, 60);
	assert_int_equal(position->lines, 3060);
	assert_int_equal(w->now.refused, 60);
	world_free(w);
}

/* More refused lines than a batch holds, with nothing good between: none is lost or counted twice. */
static void test_only_refused_lines(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char *bytes = malloc(5000 * 5000);

	(void)unused;
	assert_non_null(bytes);
	for (int i = 0; i < 5000; i++)
		memcpy(bytes + i * 4, "bad\n", 4);
	world_write(w, "a.jsonl", bytes, 20000);
	world_drain(w);
	assert_int_equal(w->now.refused, 5000);
	memset(bytes, 'x', 5000 * 5000); /* 4 KiB of each are kept: the batch's text is full before its list is */
	for (int i = 0; i < 5000; i++)
		bytes[i * 5000 + 4999] = '\n';
	world_write(w, "a.jsonl", bytes, 5000 * 5000);
	world_drain(w);
	assert_int_equal(w->now.refused, 10000);
	assert_int_equal(FULL(w, "a.jsonl")->lines, 10000);
	free(bytes);
	world_free(w);
}

/* Row 3 through files. */
static void test_mark_and_crlf(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char line[300];
	size_t len;

	(void)unused;
	world_write(w, "a.jsonl", "\xef\xbb\xbf", 3);
	for (int i = 0; i < 10; i++) {
		len = world_line(line, sizeof(line), i);
		memcpy(line + len - 1, "\r\n", 2);
		world_write(w, "a.jsonl", line, len + 1);
	}
	world_write(w, "a.jsonl", "\0\0\0\n", 4);
	world_lines(w, "a.jsonl", 10, 11);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 11), 0);
	assert_int_equal(FULL(w, "a.jsonl")->refused[REFUSED_JSON], 1);
	assert_int_equal(w->now.refused, 1);
	world_free(w);
}

/* Row 2 through files: a line of 64 MiB in the middle; refused once, with its place and its first bytes, in little memory. */
static void test_long_line(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	struct rusage before, after;
	size_t piece = 1u << 20;
	char *bytes = malloc(piece);

	(void)unused;
	assert_non_null(bytes);
	memset(bytes, 'y', piece);
	world_lines(w, "a.jsonl", 0, 10);
	world_drain(w);
	world_cut(w);
	getrusage(RUSAGE_SELF, &before);
	world_write(w, "a.jsonl", "{\"user_id\":", 11);
	for (int i = 0; i < 32; i++)
		world_write(w, "a.jsonl", bytes, piece);
	world_drain(w);
	assert_int_equal(w->now.refused, 0); /* its end is not there yet: the position waits at its start */
	assert_int_equal(FULL(w, "a.jsonl")->offset, w->cut.positions[0].offset);
	for (int i = 0; i < 32; i++)
		world_write(w, "a.jsonl", bytes, piece);
	world_drain(w);
	assert_int_equal(w->now.refused, 0);
	world_crash(w); /* in the middle of it */
	world_drain(w);
	world_write(w, "a.jsonl", "\n", 1);
	world_lines(w, "a.jsonl", 10, 20);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 20), 0);
	assert_int_equal(w->now.refused, 1);
	assert_int_equal(FULL(w, "a.jsonl")->refused[REFUSED_TOO_LONG], 1);
	assert_int_equal(FULL(w, "a.jsonl")->lines, 21);
	getrusage(RUSAGE_SELF, &after);
	assert_true(after.ru_maxrss - before.ru_maxrss < 16 * 1024); /* KiB */
	world_stop(w);
	world_drain(w);
	assert_int_equal(w->now.delivered, 20);
	free(bytes);
	world_free(w);
}

/* At the limit, one below, one above; and a marker that has to be read back because the line's end came in a piece of its own. */
static void test_line_limit(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	size_t limit = w->config.limits.line_bytes_max;
	char *bytes = malloc(limit + 10);

	(void)unused;
	assert_non_null(bytes);
	for (int extra = -1; extra <= 1; extra++) {
		size_t len = limit + (size_t)extra;
		char line[300];
		size_t head = world_line(line, sizeof(line), extra + 1) - 2;

		memset(bytes, ' ', len);
		memcpy(bytes, line, head);
		bytes[len - 1] = '}';
		bytes[len] = '\n';
		world_write(w, "a.jsonl", bytes, len + 1);
	}
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 2), 0);
	assert_int_equal(FULL(w, "a.jsonl")->refused[REFUSED_TOO_LONG], 1);
	memset(bytes, 'z', limit + 10);
	for (int i = 0; i < 30; i++)
		world_write(w, "a.jsonl", bytes, limit + 10);
	world_drain(w);
	world_write(w, "a.jsonl", "\n", 1);
	world_drain(w);
	assert_int_equal(FULL(w, "a.jsonl")->refused[REFUSED_TOO_LONG], 2);
	world_stop(w);
	world_lines(w, "a.jsonl", 3, 5);
	world_drain(w);
	assert_int_equal(world_wrong(w, 3, 5), 0);
	assert_int_equal(FULL(w, "a.jsonl")->resets + FULL(w, "a.jsonl")->gaps, 0);
	free(bytes);
	world_free(w);
}

/* The catalogue's lines are larger than a batch's text together. */
static void test_catalogue(void **unused)
{
	struct world *w = world_new(NULL, "items.jsonl", NULL);
	char *line = malloc(60000);

	(void)unused;
	assert_non_null(line);
	w->config.stream = STREAM_CATALOGUE;
	for (int i = 0; i < 100; i++) {
		int len = snprintf(line, 60000, "{\"item_id\":%d,\"title\":\"t\",\"note\":\"%0*d\"}\n", i, 30000 + i, 7);

		world_write(w, "items.jsonl", line, (size_t)len);
	}
	world_drain(w);
	assert_int_equal(w->now.delivered, 100);
	assert_int_equal(w->now.refused, 0);
	assert_int_equal(w->now.n_positions, 1);
	free(line);
	world_free(w);
}

static void *wake_later(void *source)
{
	usleep(20000);
	source_wake(source);
	return NULL;
}

static void test_wake_and_status(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	struct source_status status;
	pthread_t thread;
	uint64_t heartbeat;

	(void)unused;
	w->config.stat_interval_ms = 3600 * 1000;
	world_open(w);
	source_status(w->source, &status);
	assert_string_equal(status.name, "files:watch_stats");
	assert_int_equal(status.degraded, 0);
	assert_int_equal(status.partitions, 0);
	assert_int_equal(status.last_time_us, INT64_MIN);
	heartbeat = status.heartbeat;
	assert_int_equal(pthread_create(&thread, NULL, wake_later, w->source), 0);
	assert_int_equal(world_poll(w, 3600 * 1000), 0); /* an hour, if it is not woken */
	pthread_join(thread, NULL);
	source_status(w->source, &status);
	assert_int_equal(status.heartbeat, heartbeat + 1);
	world_lines(w, "a.jsonl", 0, 10000); /* inotify: the next periodic look is an hour away */
	assert_int_equal(world_poll(w, 3600 * 1000), 1);
	source_status(w->source, &status);
	assert_int_equal(status.partitions, 1);
	assert_true(status.lag_bytes > 0);
	assert_true(status.last_time_us > 0);
	while (w->now.delivered < 10000)
		world_poll(w, 3600 * 1000);
	source_status(w->source, &status);
	assert_int_equal(status.lag_bytes, 0);
	world_free(w);
}

static void test_bad_configuration(void **unused)
{
	const char *const globs[] = {"", NULL};
	struct source_files_config config = {.stream = STREAM_EVENTS, .globs = globs, .n_globs = 0};
	struct source *source = NULL;
	char errstr[256] = "";

	(void)unused;
	assert_int_equal(source_files_open(&config, NULL, 0, &source, errstr, sizeof(errstr)), -EINVAL);
	assert_true(errstr[0] != '\0');
	config.n_globs = 1;
	errstr[0] = '\0';
	assert_int_equal(source_files_open(&config, NULL, 0, &source, errstr, sizeof(errstr)), -EINVAL);
	assert_true(errstr[0] != '\0');
	assert_null(source);
	source_close(NULL);
}

/* A path of nearly 4 KiB does not fit a position's name, and two such paths must not share one. */
static void test_long_paths(void **unused)
{
	struct world *w = world_new(NULL, "*/*/*.jsonl", NULL);
	char a[240], b[240], name[600];

	(void)unused;
	memset(a, 'd', sizeof(a));
	a[200] = '\0';
	memset(b, 'e', sizeof(b));
	b[200] = '\0';
	assert_int_equal(mkdir(world_path(w, a), 0755), 0);
	snprintf(name, sizeof(name), "%s/%s", a, b);
	assert_int_equal(mkdir(world_path(w, name), 0755), 0);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s/%s/%d.jsonl", a, b, i);
		world_lines(w, name, i * 10, i * 10 + 10);
	}
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 20), 0);
	assert_int_equal(w->now.n_positions, 2);
	world_stop(w);
	world_drain(w);
	assert_int_equal(w->now.delivered, 20);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_and_follows),     cmocka_unit_test(test_one_line_is_a_batch),
		cmocka_unit_test(test_globs_and_new_files),   cmocka_unit_test(test_many_files),
		cmocka_unit_test(test_aliases),               cmocka_unit_test(test_from_the_end),
		cmocka_unit_test(test_rotations_in_the_glob), cmocka_unit_test(test_refused_lines),
		cmocka_unit_test(test_only_refused_lines),    cmocka_unit_test(test_mark_and_crlf),
		cmocka_unit_test(test_long_line),             cmocka_unit_test(test_line_limit),
		cmocka_unit_test(test_catalogue),             cmocka_unit_test(test_wake_and_status),
		cmocka_unit_test(test_bad_configuration),     cmocka_unit_test(test_long_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
