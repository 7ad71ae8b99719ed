/*
 * test_lock.c: one daemon a data directory (FAILURES row 22). Other daemons are child processes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/lock.h"

static char dir[] = "/tmp/recd-test-lock-XXXXXX";
static int dir_fd;
static char errstr[512];

/* A child that holds the lock until it is killed. */
static pid_t holder(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd;
		int r = prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test must not leave it behind */

		r = r ? r : lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr));

		if (r == 0 && write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void test_second_is_refused(void **state)
{
	char expected[256];
	int status;
	int fd = -1;
	pid_t pid = holder();

	(void)state;
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), -EBUSY);
	assert_int_equal(fd, -1);
	snprintf(expected, sizeof(expected), "%s is in use by another recd (pid %ld): stop it first, or use another data_dir", dir, (long)pid);
	assert_string_equal(errstr, expected);

	kill(pid, SIGKILL); /* the lock goes with the process, however it ends */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), 0);
	lock_release(fd);
}

/* A child of the holder does not keep the lock beyond exec, and another descriptor of the file that is closed does not lose it. */
static void test_close_elsewhere(void **state)
{
	int fd;
	int other;

	(void)state;
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	other = openat(dir_fd, "LOCK", O_RDONLY);
	assert_true(other >= 0);
	close(other);
	other = -1;
	assert_int_equal(lock_take(dir_fd, dir, &other, errstr, sizeof(errstr)), -EBUSY);
	lock_release(fd);
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), 0);
	lock_release(fd);
	lock_release(-1);
}

static void test_pid_is_written(void **state)
{
	char text[32] = "";
	int fd;

	(void)state;
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), 0);
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_int_equal(strtol(text, NULL, 10), getpid());
	lock_release(fd);
}

static void test_not_a_file(void **state)
{
	int fd = -1;

	(void)state;
	unlinkat(dir_fd, "LOCK", 0);
	assert_int_equal(symlinkat("elsewhere", dir_fd, "LOCK"), 0);
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), -ELOOP);
	assert_non_null(strstr(errstr, "/LOCK is not a regular file: remove it"));
	assert_int_equal(faccessat(dir_fd, "elsewhere", F_OK, 0), -1); /* not created through the link */
	assert_int_equal(unlinkat(dir_fd, "LOCK", 0), 0);

	assert_int_equal(mkfifoat(dir_fd, "LOCK", 0600), 0); /* must not wait for its other end */
	alarm(20);
	assert_int_equal(lock_take(dir_fd, dir, &fd, errstr, sizeof(errstr)), -EINVAL);
	alarm(0);
	assert_int_equal(unlinkat(dir_fd, "LOCK", 0), 0);
	assert_int_equal(fd, -1);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	unlinkat(dir_fd, "LOCK", 0);
	close(dir_fd);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_second_is_refused),
		cmocka_unit_test(test_close_elsewhere),
		cmocka_unit_test(test_pid_is_written),
		cmocka_unit_test(test_not_a_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
