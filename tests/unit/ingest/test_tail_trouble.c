/* test_tail_trouble.c: rows 12, 14 and 15 of the failure list, group "File tail": reused inodes, removed files, links, permissions, I/O errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "tests/unit/ingest/tail_faults.h"

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

/*
 * Row 15: more events than inotify's queue holds, and the rotation is among those that are lost. The queue is filled with writes to two logs (equal events
 * in a row count once), so nothing that is left in it tells of the rotation but the overflow itself.
 */
static void test_inotify_overflow(void **unused)
{
	struct world *w = world_new(NULL, "*.jsonl", NULL);
	FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	int queue = 16384, fds[2];

	(void)unused;
	if (file) {
		if (fscanf(file, "%d", &queue) != 1)
			queue = 16384;
		fclose(file);
	}
	if (queue > 200000) {
		printf("SKIP test_inotify_overflow: the queue holds %d events\n", queue);
		skip();
	}
	w->config.stat_interval_ms = 3600 * 1000; /* only inotify can tell */
	world_lines(w, "a.jsonl", 0, 100);
	world_lines(w, "b.jsonl", 100, 200);
	world_open(w);
	while (w->now.delivered < 200)
		world_poll(w, 1000);
	for (int i = 0; i < WORLD_IDLE_POLLS; i++) /* what the start has left to look at */
		world_poll(w, WORLD_POLL_MS);
	fds[0] = open(world_path(w, "a.jsonl"), O_WRONLY | O_APPEND | O_CLOEXEC);
	fds[1] = open(world_path(w, "b.jsonl"), O_WRONLY | O_APPEND | O_CLOEXEC);
	for (int i = 0; i < queue + 100; i++)
		assert_int_equal(write(fds[i % 2], "\n", 1), 1);
	close(fds[0]);
	close(fds[1]);
	world_lines(w, "a.jsonl", 200, 250);
	rotate(w);
	world_lines(w, "a.jsonl", 250, 300);
	for (int i = 0; i < 100 && w->now.delivered < 300; i++)
		world_poll(w, 20);
	assert_clean(w, 300);
	assert_int_equal(AT(w)->gaps, 0);
	world_free(w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inode_reused),
		cmocka_unit_test(test_removed_while_down),
		cmocka_unit_test(test_removed_while_running),
		cmocka_unit_test(test_successors_are_held_open),
		cmocka_unit_test(test_symlink_swap),
		cmocka_unit_test(test_permission_lost),
		cmocka_unit_test(test_io_errors),
		cmocka_unit_test(test_inotify_overflow),
	};

	if (argc == 3 && strcmp(argv[1], "--tail") == 0)
		return tail_for_strace(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
