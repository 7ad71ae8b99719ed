/* test_tail_faults.c: rows 9 to 16 of the failure list, group "File tail"; each line still on disk counts once, each loss is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "tests/unit/ingest/tail_world.h"

#define AT(w) world_position(w, "a.jsonl")

static void shift_rotated(struct world *w)
{
	char from[32], to[32];

	for (int i = 8; i >= 1; i--) {
		snprintf(from, sizeof(from), "a.jsonl.%d", i);
		snprintf(to, sizeof(to), "a.jsonl.%d", i + 1);
		if (access(world_path(w, from), F_OK) == 0)
			world_rename(w, from, to);
	}
}

static void rotate(struct world *w)
{
	shift_rotated(w);
	world_rename(w, "a.jsonl", "a.jsonl.1");
}

static void copytruncate(struct world *w)
{
	shift_rotated(w);
	world_copy(w, "a.jsonl", "a.jsonl.1");
	world_truncate(w, "a.jsonl");
}

static int is_degraded(struct world *w, const char *words)
{
	struct source_status status;

	source_status(w->source, &status);
	if (words && status.degraded && !strstr(status.reason, words))
		fprintf(stderr, "reason: %s\n", status.reason);
	return status.degraded && (!words || strstr(status.reason, words));
}

static void assert_clean(struct world *w, int64_t lines)
{
	if (world_wrong(w, 0, lines) != 0 || w->now.delivered != (uint64_t)lines) {
		for (int64_t i = 0, shown = 0; i < lines && shown < 5; i++)
			if (w->now.seen[i] != 1)
				shown += fprintf(stderr, "line %lld: %d times\n", (long long)i, w->now.seen[i]) > 0;
		fail_msg("%lld lines wrong, %llu delivered of %lld", (long long)world_wrong(w, 0, lines), (unsigned long long)w->now.delivered,
		         (long long)lines);
	}
	assert_int_equal(w->now.refused, 0);
}

static void assert_no_loss(struct world *w, int64_t lines)
{
	assert_clean(w, lines);
	assert_int_equal(AT(w)->gaps, 0);
	assert_int_equal(AT(w)->lines, lines);
}

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

/* Row 12: another file gets the inode of the one read last. ext4 does that at once. */
static void test_inode_reused(void **unused)
{
	char image[] = "/tmp/recd-ext4-XXXXXX", command[400], mount_dir[64];
	int fd, reused = 0, rounds = 20;

	(void)unused;
	if (geteuid() != 0) {
		printf("SKIP test_inode_reused: needs root to mount a file system\n");
		skip();
	}
	fd = mkstemp(image);
	assert_true(fd >= 0);
	close(fd);
	snprintf(mount_dir, sizeof(mount_dir), "%s.d", image);
	assert_int_equal(mkdir(mount_dir, 0755), 0);
	snprintf(command, sizeof(command), "truncate -s 8M %s && mkfs.ext4 -q -F %s >/dev/null 2>&1 && mount -o loop %s %s 2>/dev/null", image, image,
	         image, mount_dir);
	if (system(command) != 0) {
		unlink(image);
		rmdir(mount_dir);
		printf("SKIP test_inode_reused: no loop device or no mkfs.ext4 here\n");
		skip();
	}
	for (int i = 0; i < rounds; i++) {
		struct world *w = world_new(mount_dir, "a.jsonl", NULL);
		uint64_t inode, n = i % 2 ? 300 : 120;

		world_lines(w, "a.jsonl", 0, 100);
		world_drain(w);
		inode = AT(w)->inode;
		world_stop(w);
		unlink(world_path(w, "a.jsonl"));
		world_lines(w, "a.jsonl", 100, (int64_t)n);
		world_drain(w);
		reused += AT(w)->inode == inode;
		assert_clean(w, (int64_t)n);
		assert_int_equal(AT(w)->gaps, 1); /* nobody can know what the old one still held */
		assert_true(is_degraded(w, "lost"));
		world_free(w);
	}
	umount(mount_dir);
	unlink(image);
	rmdir(mount_dir);
	printf("inode reused in %d of %d rounds\n", reused, rounds);
	assert_true(reused > 0);
}

/* Row 14: removed before it was read. Down: a gap, and what is left is read. Running: the open descriptor is read to the end first. */
static void test_removed_while_down(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 100);
	world_drain(w);
	world_stop(w);
	world_lines(w, "a.jsonl", 100, 150); /* lost */
	usleep(20000);
	rotate(w);
	world_lines(w, "a.jsonl", 150, 200);
	usleep(20000);
	rotate(w);
	world_lines(w, "a.jsonl", 200, 250);
	unlink(world_path(w, "a.jsonl.2"));
	world_write(w, "a.jsonl.2.gz", "\x1f\x8b", 2);
	world_drain(w);
	assert_int_equal(world_wrong(w, 0, 100), 0);
	assert_int_equal(world_wrong(w, 150, 250), 0);
	assert_int_equal(w->now.delivered, 200);
	assert_int_equal(AT(w)->gaps, 1);
	assert_true(is_degraded(w, "compressed rotations are not read"));
	world_stop(w);
	world_drain(w);
	assert_int_equal(AT(w)->gaps, 1); /* said once */
	assert_int_equal(w->now.delivered, 200);
	world_free(w);
}

static void test_removed_while_running(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "a.jsonl", 0, 20000);
	world_open(w);
	assert_int_equal(world_poll(w, 1000), 1);
	unlink(world_path(w, "a.jsonl"));
	world_drain(w);
	assert_no_loss(w, 20000);
	world_lines(w, "a.jsonl", 20000, 20100);
	world_drain(w);
	assert_no_loss(w, 20100);
	world_free(w);
}

/* Rotated three times, and all removed, while the first file is still being read: they were opened as soon as they were seen. */
static void test_successors_are_held_open(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	char name[32];

	(void)unused;
	world_lines(w, "a.jsonl", 0, 90000);
	world_open(w);
	assert_int_equal(world_poll(w, 1000), 1);
	for (int64_t n = 90000; n < 90300; n += 100) {
		rotate(w);
		world_lines(w, "a.jsonl", n, n + 100);
		usleep(3 * 1000 * WORLD_STAT_MS); /* a look is due: the next poll takes it, and one batch of the first file */
		assert_int_equal(world_poll(w, 1000), 1);
	}
	assert_true(w->now.delivered < 50000);
	for (int i = 1; i <= 3; i++) {
		snprintf(name, sizeof(name), "a.jsonl.%d", i);
		assert_int_equal(unlink(world_path(w, name)), 0);
	}
	world_drain(w);
	assert_no_loss(w, 90300);
	world_free(w);
}

/* Row 15: the path is a symlink that is swapped to the next file. */
static void test_symlink_swap(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);

	(void)unused;
	world_lines(w, "one", 0, 100);
	assert_int_equal(symlink("one", world_path(w, "a.jsonl")), 0);
	world_drain(w);
	assert_int_equal(w->now.delivered, 100);
	world_lines(w, "one", 100, 150);
	world_lines(w, "two", 150, 200);
	assert_int_equal(symlink("two", world_path(w, "link")), 0);
	world_rename(w, "link", "a.jsonl");
	world_drain(w);
	assert_no_loss(w, 200);
	world_stop(w); /* and while down: the old target is in the same folder */
	world_lines(w, "two", 200, 250);
	world_lines(w, "three", 250, 300);
	assert_int_equal(symlink("three", world_path(w, "link")), 0);
	world_rename(w, "link", "a.jsonl");
	world_drain(w);
	assert_no_loss(w, 300);
	world_free(w);
}

static int no_permission(void)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	int ok;

	world_lines(w, "a.jsonl", 0, 50);
	world_drain(w);
	world_stop(w);
	world_lines(w, "a.jsonl", 50, 100);
	chmod(world_path(w, "a.jsonl"), 0);
	world_drain(w);
	ok = w->now.delivered == 50 && AT(w)->gaps == 0 && is_degraded(w, "Permission denied");
	chmod(world_path(w, "a.jsonl"), 0644);
	world_drain(w);
	ok = ok && w->now.delivered == 100 && !is_degraded(w, NULL);
	/* the folder goes: what is open is read on; after a restart it waits */
	world_lines(w, "a.jsonl", 100, 110);
	chmod(w->dir, 0);
	world_drain(w);
	ok = ok && w->now.delivered == 110 && is_degraded(w, "Permission denied");
	world_stop(w);
	world_drain(w);
	ok = ok && w->now.delivered == 110 && is_degraded(w, "Permission denied");
	chmod(w->dir, 0700);
	/* the new file after a rotation cannot be opened: it is not passed over */
	rotate(w);
	world_lines(w, "a.jsonl", 110, 120);
	chmod(world_path(w, "a.jsonl"), 0);
	world_drain(w);
	ok = ok && w->now.delivered == 110 && is_degraded(w, "Permission denied");
	rotate(w);
	world_lines(w, "a.jsonl", 120, 130);
	world_drain(w);
	ok = ok && w->now.delivered == 110;
	chmod(world_path(w, "a.jsonl.1"), 0644);
	world_drain(w);
	ok = ok && w->now.delivered == 130 && world_wrong(w, 0, 130) == 0 && AT(w)->gaps == 0 && !is_degraded(w, NULL);
	world_free(w);
	return ok;
}

/* Root may read everything, so this runs as another user, in a child. */
static void test_permission_lost(void **unused)
{
	int status;
	pid_t child = fork();

	(void)unused;
	assert_true(child >= 0);
	if (child == 0) {
		if (geteuid() == 0 && setuid(65534) < 0)
			_exit(2);
		_exit(no_permission() ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/*
 * The program that strace runs: tails the folder until all 200 lines came. Says whether it was degraded with an I/O error meanwhile (exit code 10) and
 * ended well, whether it never noticed (11), or whether lines are wrong or counted twice (12).
 */
static int tail_for_strace(const char *dir)
{
	struct world *w = world_new(NULL, "unused", NULL);
	int noticed = 0;

	snprintf(w->globs[0], sizeof(w->globs[0]), "%.300s/a.jsonl", dir);
	world_open(w);
	for (int i = 0; i < 2000 && (w->now.delivered < 200 || (!noticed && i < 200)); i++) {
		struct source_status status;

		world_poll(w, WORLD_POLL_MS);
		source_status(w->source, &status);
		noticed = noticed || (status.degraded && strstr(status.reason, "Input/output error"));
	}
	world_drain(w);
	noticed = noticed ? 10 : 11;
	if (w->now.delivered != 200 || world_wrong(w, 0, 200) != 0 || w->now.positions[0].gaps + w->now.positions[0].resets > 0)
		noticed = 12;
	world_free(w);
	return noticed;
}

/* Row 15: reading, looking and opening fail with EIO for a while; all of it is tried again, nothing is lost or read twice. */
static void test_io_errors(void **unused)
{
	static const char *const faults[] = {"pread64:error=EIO:when=1..3", "pread64:error=EIO:when=2+2", "fstat,newfstatat:error=EIO:when=12..15"};
	char self[400], command[1200];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	struct world *w;

	(void)unused;
	assert_true(len > 0);
	self[len] = '\0';
	if (system("strace -f -e trace=pread64 -o /dev/null true >/dev/null 2>&1") != 0) {
		printf("SKIP test_io_errors: strace cannot trace here\n");
		skip();
	}
	w = world_new(NULL, "a.jsonl", NULL);
	world_lines(w, "a.jsonl", 0, 200);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		int status;

		/* only the log's own calls fail: -P filters by path */
		snprintf(command, sizeof(command), "ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -P %s -e inject=%s %s --tail %s", world_path(w, "a.jsonl"),
		         faults[i], self, w->dir);
		status = system(command);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 10)
			fail_msg("%s: exit %d", faults[i], WIFEXITED(status) ? WEXITSTATUS(status) : -status);
	}
	world_free(w);
}

/* Row 15: more events than inotify's queue holds, with a rotation among those that are lost. */
static void test_inotify_overflow(void **unused)
{
	struct world *w = world_new(NULL, "a.jsonl", NULL);
	FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	int queue = 16384, fd;

	(void)unused;
	if (file) {
		if (fscanf(file, "%d", &queue) != 1)
			queue = 16384;
		fclose(file);
	}
	if (queue > 100000) {
		printf("SKIP test_inotify_overflow: the queue holds %d events\n", queue);
		skip();
	}
	w->config.stat_interval_ms = 3600 * 1000; /* only inotify can tell */
	world_lines(w, "a.jsonl", 0, 100);
	world_open(w);
	while (w->now.delivered < 100)
		world_poll(w, 1000);
	for (int i = 0; i < queue / 2 + 100; i++) { /* creation and removal are an event each */
		fd = open(world_path(w, "noise"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		close(fd);
		unlink(world_path(w, "noise"));
	}
	world_lines(w, "a.jsonl", 100, 150);
	rotate(w);
	world_lines(w, "a.jsonl", 150, 200);
	for (int i = 0; i < 100 && w->now.delivered < 200; i++)
		world_poll(w, 100);
	assert_no_loss(w, 200);
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

int main(int argc, char **argv)
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
		cmocka_unit_test(test_truncated_without_a_copy),
		cmocka_unit_test(test_truncation_counts_known_bytes),
		cmocka_unit_test(test_inode_reused),
		cmocka_unit_test(test_removed_while_down),
		cmocka_unit_test(test_removed_while_running),
		cmocka_unit_test(test_successors_are_held_open),
		cmocka_unit_test(test_symlink_swap),
		cmocka_unit_test(test_permission_lost),
		cmocka_unit_test(test_io_errors),
		cmocka_unit_test(test_inotify_overflow),
		cmocka_unit_test(test_crash_around_a_reset),
		cmocka_unit_test(test_file_is_recreated),
		cmocka_unit_test(test_same_content_other_inode),
	};

	if (argc == 3 && strcmp(argv[1], "--tail") == 0)
		return tail_for_strace(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
