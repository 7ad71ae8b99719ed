/* test_tail_faults.c: rows 9 to 11, 13 and 16 of the failure list, group "File tail": partial lines, rotation, truncation, crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/ingest/tail_faults.h"

/* Row 9. */
static void test_partial_line(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char line[300];
	int64_t start;

	(void)unused;
	world_lines(w, "a.jsonl", 0, 1);
	world_drain(w);
	start = AT(w)->offset;
	for (size_t cut = 1; cut < world_line(line, sizeof(line), 1); cut++) {
		world_write(w, "a.jsonl", &line[cut - 1], 1);
		world_poll(w, 0);
		assert_int_equal(AT(w)->offset, start);
		world_stop(w); /* and a restart at every byte */
		world_open(w);
		assert_int_equal(world_poll(w, 0), 0);
	}
	world_drain(w);
	assert_int_equal(w->now.delivered, 1);
	world_write(w, "a.jsonl", "\n", 1);
	world_drain(w);
	assert_no_loss(w, 2);
	world_free(w);
}

/* Row 10: rotated 1 to 5 times while down, whether or not the glob names rotated files. */
static void test_rotation_while_down(void **unused)
{
	(void)unused;
	for (int times = 1; times <= 5; times++) {
		for (int wide = 0; wide < 2; wide++) {
			struct world *w = world_new(NULL, wide ? "a.jsonl*" : "a.jsonl", NULL);
			int64_t n = 100;

			world_lines(w, "a.jsonl", 0, 50);
			world_drain(w);
			world_stop(w);
			world_lines(w, "a.jsonl", 50, 100); /* unread when it is rotated */
			for (int i = 0; i < times; i++, n += 100) {
				rotate(w);
				world_lines(w, "a.jsonl", n, n + 100);
			}
			world_drain(w);
			assert_no_loss(w, n);
			assert_int_equal(w->now.n_positions, 1); /* late watchers have retired */
			world_stop(w);
			world_drain(w);
			assert_no_loss(w, n);
			world_free(w);
		}
	}
}

/* The same with a crash after every batch: each state on the way must be a good place to start from. */
static void test_rotation_crash_everywhere(void **unused)
{
	(void)unused;
	for (int wide = 0; wide < 2; wide++) {
		for (int crash_after = 1; crash_after < 10; crash_after++) {
			struct world *w = world_new(NULL, wide ? "a.jsonl*" : "a.jsonl", NULL);

			world_lines(w, "a.jsonl", 0, 50);
			world_drain(w);
			world_stop(w);
			world_lines(w, "a.jsonl", 50, 100);
			rotate(w);
			world_lines(w, "a.jsonl", 100, 150);
			rotate(w);
			world_lines(w, "a.jsonl", 150, 200);
			world_open(w);
			for (int i = 0, idle = 0; i < crash_after && idle < WORLD_IDLE_POLLS; idle++)
				if (world_poll(w, WORLD_POLL_MS))
					i++, idle = 0;
			world_cut(w);
			world_poll(w, 5);
			world_crash(w);
			rotate(w); /* and once more while down */
			world_lines(w, "a.jsonl", 200, 250);
			world_drain(w);
			assert_no_loss(w, 250);
			assert_int_equal(w->now.n_positions, 1);
			world_free(w);
		}
	}
}

/* Names with a date, before or behind the extension. */
static void test_rotation_with_dates(void **unused)
{
	static const char *const names[] = {"a.jsonl-20251210", "a.jsonl.2025-12-10T13", "a-20251210.jsonl", "a.1.jsonl"};

	(void)unused;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct world *w = world_new(NULL, "*.jsonl", NULL);

		world_lines(w, "a.jsonl", 0, 50);
		world_drain(w);
		world_stop(w);
		world_lines(w, "a.jsonl", 50, 100);
		world_rename(w, "a.jsonl", names[i]);
		world_lines(w, "a.jsonl", 100, 150);
		world_drain(w);
		assert_no_loss(w, 150);
		world_free(w);
	}
}

/* Rotation while running; the writer keeps the old file for a while, and ends with a line that comes in two halves. */
static void test_late_writes(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char line[300];
	size_t len = world_line(line, sizeof(line), 250);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 100);
	world_drain(w);
	rotate(w);
	world_lines(w, "a.jsonl.1", 100, 150); /* before there is a new file */
	world_drain(w);
	assert_no_loss(w, 150);
	world_lines(w, "a.jsonl", 150, 200);
	while (w->now.delivered < 200)
		world_poll(w, WORLD_POLL_MS);
	world_lines(w, "a.jsonl.1", 200, 250); /* another process still has the old one */
	world_write(w, "a.jsonl.1", line, len / 2);
	world_poll(w, 5);
	world_write(w, "a.jsonl.1", line + len / 2, len - len / 2);
	world_drain(w);
	assert_no_loss(w, 251); /* counters of the late part came home */
	assert_int_equal(w->now.n_positions, 1);
	world_free(w);
}

/* The last line of a rotated file never gets its newline: it is taken as it is when the file has been silent. */
static void test_rotated_file_ends_without_newline(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char line[300];
	size_t len = world_line(line, sizeof(line), 10);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 10);
	world_write(w, "a.jsonl", line, len - 1);
	world_drain(w);
	assert_int_equal(w->now.delivered, 10);
	rotate(w);
	world_lines(w, "a.jsonl", 11, 20);
	world_drain(w);
	assert_no_loss(w, 20);
	world_free(w);
}

/* Row 11: copied and truncated; what was unread is in the copy. Running, down, and regrown past the old position. */
static void test_copytruncate(void **unused)
{
	(void)unused;
	for (int kind = 0; kind < 6; kind++) {
		struct world *w = world_new(NULL, kind % 2 ? "a.jsonl*" : "a.jsonl", NULL);
		int64_t n = kind < 4 ? 120 : 400; /* lines after the truncation; 400: past the old position */

		world_lines(w, "a.jsonl", 0, 90);
		world_drain(w);
		if (kind >= 2)
			world_stop(w);
		world_lines(w, "a.jsonl", 90, 110);
		copytruncate(w);
		world_lines(w, "a.jsonl", 110, n);
		world_drain(w);
		assert_no_loss(w, n);
		assert_int_equal(AT(w)->resets, 1);
		assert_true(is_degraded(w, "truncated"));
		world_stop(w);
		world_drain(w);
		assert_no_loss(w, n);
		world_free(w);
	}
}

static void test_copytruncate_twice_while_down(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 90);
	world_drain(w);
	world_stop(w);
	world_lines(w, "a.jsonl", 90, 100);
	copytruncate(w);
	world_lines(w, "a.jsonl", 100, 300);
	copytruncate(w);
	world_lines(w, "a.jsonl", 300, 310);
	world_drain(w);
	assert_no_loss(w, 310);
	world_free(w);
}

/* Stopped between the copy and the truncation: the copy must not be read as well. */
static void test_copy_before_truncation(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl*", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 90);
	world_drain(w);
	copytruncate(w);
	world_lines(w, "a.jsonl", 90, 200);
	world_stop(w); /* the truncation has not been seen */
	shift_rotated(w);
	world_copy(w, "a.jsonl", "a.jsonl.1"); /* the second one is half done */
	world_drain(w);
	assert_clean(w, 200);
	world_lines(w, "a.jsonl", 200, 210);
	world_drain(w);
	world_copy(w, "a.jsonl", "a.jsonl.1");
	world_truncate(w, "a.jsonl");
	world_lines(w, "a.jsonl", 210, 220);
	world_drain(w);
	assert_no_loss(w, 220);
	world_free(w);
}

/* Copied and truncated after it was opened and before the first byte of it was read; 120 lines of 100 are past the old size. */
static void test_copytruncate_before_the_first_read(void **unused)
{
	(void)unused;
	for (int regrown = 0; regrown < 2; regrown++) {
		struct world *w = world_new(NULL, "a.jsonl", NULL);
		int64_t n = 150 + (regrown ? 120 : 20);

		world_lines(w, "a.jsonl", 0, 50);
		world_drain(w);
		usleep(20000); /* a tick of the file system's clock and more */
		rotate(w);
		world_lines(w, "a.jsonl", 50, 150);
		while (w->now.n_positions == 1) /* until it has moved on, and said so */
			world_poll(w, WORLD_POLL_MS);
		assert_int_equal(w->now.delivered, 50);
		usleep(20000);
		copytruncate(w);
		world_lines(w, "a.jsonl", 150, n);
		world_drain(w);
		assert_no_loss(w, n);
		world_free(w);
	}
}

/* The same while down; then it is renamed as well. The position is at 0 of it: all that was rotated since comes, in order, and nothing older. */
static void test_position_at_the_start(void **unused)
{
	(void)unused;
	for (int times = 0; times < 4; times++) {
		struct world *w = world_new(NULL, "a.jsonl", NULL);
		int64_t n = 50;

		world_lines(w, "a.jsonl", 0, 50);
		world_drain(w);
		usleep(20000);
		rotate(w);
		world_write(w, "a.jsonl", "{", 1);
		world_drain(w);
		world_truncate(w, "a.jsonl"); /* what was cut off is said: so the position at 0 gets into the cut */
		world_drain(w);
		assert_int_equal(AT(w)->offset, 0);
		assert_true(AT(w)->inode != 0);
		world_stop(w);
		for (int i = 0; i < times; i++, n += 50) {
			usleep(20000);
			world_lines(w, "a.jsonl", n, n + 50);
			usleep(20000);
			if (i < 2)
				copytruncate(w);
			else
				rotate(w);
		}
		world_lines(w, "a.jsonl", n, n + 50);
		world_drain(w);
		assert_clean(w, n + 50);
		world_free(w);
	}
}

/* The copy is only begun, and stops within a line: the rest of that line is in the file that is about to be truncated. */
static void test_copy_stops_within_a_line(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char line[300];

	(void)unused;
	world_lines(w, "a.jsonl", 0, 90);
	world_drain(w);
	world_stop(w);
	world_lines(w, "a.jsonl", 90, 100);
	copytruncate(w);
	world_lines(w, "a.jsonl", 100, 200);
	shift_rotated(w);
	world_lines(w, "a.jsonl.1", 100, 150);
	world_write(w, "a.jsonl.1", line, world_line(line, sizeof(line), 150) / 2);
	world_drain(w);
	assert_no_loss(w, 200);
	world_free(w);
}

/* A late tail remembers an inode that belongs to the file of the position by now: that file is read on all the same. */
static void test_stale_late_position(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	struct source_position *late;

	(void)unused;
	world_lines(w, "a.jsonl", 0, 90);
	world_drain(w);
	world_stop(w);
	world_lines(w, "a.jsonl", 90, 200);
	late = &w->now.positions[w->now.n_positions++];
	*late = *AT(w);
	memset(late->refused, 0, sizeof(late->refused));
	late->lines = 0;
	late->offset += 1000;
	late->marker ^= 1;
	snprintf(late->name + strlen(late->name), sizeof(late->name) - strlen(late->name), "#rotated:%llu:%llu", (unsigned long long)late->device,
	         (unsigned long long)late->inode);
	world_drain(w);
	assert_no_loss(w, 200);
	assert_int_equal(w->now.n_positions, 1);
	world_free(w);
}

/* Rows 11 and 13: truncated without a copy. Never silent, never stuck: from 0, loudly. */
static void test_truncated_without_a_copy(void **unused)
{
	(void)unused;
	for (int kind = 0; kind < 4; kind++) {
		int down = kind & 1, regrown = kind & 2;
		struct world *w = world_new(NULL, "a.jsonl", NULL);
		int64_t n = regrown ? 300 : 120;

		world_lines(w, "a.jsonl", 0, 100);
		world_drain(w);
		if (down)
			world_stop(w);
		world_truncate(w, "a.jsonl");
		world_lines(w, "a.jsonl", 100, n);
		world_drain(w);
		assert_clean(w, n);
		assert_int_equal(AT(w)->resets, 1);
		assert_int_equal(AT(w)->gaps, 1);
		assert_true(is_degraded(w, "truncated"));
		world_free(w);
	}
}

/* Bytes that were seen but not read yet when the file was truncated are counted. */
static void test_truncation_counts_known_bytes(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	struct stat st;

	(void)unused;
	world_lines(w, "a.jsonl", 0, 30000);
	assert_int_equal(stat(world_path(w, "a.jsonl"), &st), 0);
	world_open(w);
	assert_int_equal(world_poll(w, 1000), 1); /* one batch of several */
	world_truncate(w, "a.jsonl");
	world_drain(w);
	assert_int_equal(AT(w)->resets, 1);
	assert_int_equal(AT(w)->gaps, 1);
	assert_true(AT(w)->gap_bytes > 0);
	assert_true(w->now.delivered < 30000);
	/* what was delivered and what was lost is the whole file, to the byte */
	char line[300];
	int64_t bytes = 0;
	for (int64_t i = 0; i < 30000; i++)
		bytes += w->now.seen[i] ? (int64_t)world_line(line, sizeof(line), i) : 0;
	assert_int_equal(bytes + (int64_t)AT(w)->gap_bytes, st.st_size);
	world_free(w);
}

/* Row 16: the reset and the position that goes with it travel in one batch; a crash right before or right after it changes nothing. */
static void test_crash_around_a_reset(void **unused)
{
	(void)unused;
	for (int polls = 0; polls < 6; polls++) {
		struct world *w = world_new(NULL, "a.jsonl", NULL);

		world_lines(w, "a.jsonl", 0, 100);
		world_drain(w);
		world_cut(w);
		world_truncate(w, "a.jsonl");
		world_lines(w, "a.jsonl", 100, 300);
		for (int i = 0; i < polls; i++)
			world_poll(w, 2 * WORLD_STAT_MS);
		if (polls % 2)
			world_cut(w); /* what was delivered so far is durable */
		world_crash(w);
		world_drain(w);
		assert_clean(w, 300);
		assert_int_equal(AT(w)->resets, 1);
		assert_int_equal(AT(w)->gaps, 1);
		world_free(w);
	}
}

/* The file goes and comes back under the same name, with nothing in between to read. */
static void test_file_is_recreated(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 10);
	world_drain(w);
	unlink(world_path(w, "a.jsonl"));
	world_drain(w);
	world_lines(w, "a.jsonl", 10, 20);
	world_drain(w);
	world_rename(w, "a.jsonl", "elsewhere");
	world_drain(w);
	world_lines(w, "a.jsonl", 20, 30);
	world_drain(w);
	assert_no_loss(w, 30);
	world_free(w);
}

/* Another inode with the same content (restored from a backup, written anew by an editor): read on, not again. */
static void test_same_content_other_inode(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 100);
	world_drain(w);
	world_stop(w);
	world_copy(w, "a.jsonl", "copy");
	world_rename(w, "copy", "a.jsonl");
	world_lines(w, "a.jsonl", 100, 110);
	world_drain(w);
	assert_no_loss(w, 110);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_partial_line),
		cmocka_unit_test(test_rotation_while_down),
		cmocka_unit_test(test_rotation_crash_everywhere),
		cmocka_unit_test(test_rotation_with_dates),
		cmocka_unit_test(test_late_writes),
		cmocka_unit_test(test_rotated_file_ends_without_newline),
		cmocka_unit_test(test_copytruncate),
		cmocka_unit_test(test_copytruncate_twice_while_down),
		cmocka_unit_test(test_copy_before_truncation),
		cmocka_unit_test(test_copytruncate_before_the_first_read),
		cmocka_unit_test(test_position_at_the_start),
		cmocka_unit_test(test_copy_stops_within_a_line),
		cmocka_unit_test(test_stale_late_position),
		cmocka_unit_test(test_truncated_without_a_copy),
		cmocka_unit_test(test_truncation_counts_known_bytes),
		cmocka_unit_test(test_crash_around_a_reset),
		cmocka_unit_test(test_file_is_recreated),
		cmocka_unit_test(test_same_content_other_inode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
