/*
 * test_atomic_dir.c: generation directories: published whole or not at all, numbers never reused, old ones pruned, links swapped, leftovers of an interrupted
 * run removed, a full disk (FAILURES rows 35, 37, 39, 43, 56). Failing fsync and rename need another program to make them fail: the
 * Python test runs this one under strace as a small tool:
 *
 *     test_atomic_dir --commit DATA_DIR BYTES     writes a generation with one tensor of BYTES bytes; "committed N" or "failed: reason"
 *     test_atomic_dir --prune DATA_DIR KEEP       "pruned N" or "failed: reason"
 *     test_atomic_dir --link DATA_DIR NAME        "linked" or "failed: reason"
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/model/atomic_dir.h"
#include "trainer/model/torch_file.h"

static char errstr[512];

/* ---- a data directory for each test ---- */

struct data_dir {
	char path[64];
	int fd;
};

static void clear(int parent, const char *name)
{
	if (unlinkat(parent, name, 0) == 0)
		return;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	for (const struct dirent *e; stream && (e = readdir(stream)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			clear(fd, e->d_name);
	if (stream)
		(void)closedir(stream);
	(void)unlinkat(parent, name, AT_REMOVEDIR);
}

static int setup(void **state)
{
	struct data_dir *data = calloc(1, sizeof *data);
	if (!data)
		return -1;
	(void)snprintf(data->path, sizeof data->path, "/tmp/recd-dir-XXXXXX");
	if (!mkdtemp(data->path) || (data->fd = open(data->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return -1;
	*state = data;
	return 0;
}

static int teardown(void **state)
{
	struct data_dir *data = *state;
	(void)close(data->fd);
	clear(AT_FDCWD, data->path);
	free(data);
	return 0;
}

/* ---- short hands ---- */

static struct atomic_dir *open_dir(const struct data_dir *data)
{
	struct atomic_dir *dir = NULL;
	if (atomic_dir_open(data->fd, ATOMIC_DIR_WRITE, &dir, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	return dir;
}

static void put_file(int dir_fd, const char *name, const char *text)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
}

/* Publishes a generation with one file; returns its number. */
static uint64_t commit_one(struct atomic_dir *dir, const char *text)
{
	int fd = -1;
	uint64_t number = 0;
	if (atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	put_file(fd, "model_bpr.pt", text);
	if (atomic_dir_commit(dir, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	return number;
}

static bool exists(const struct data_dir *data, const char *path)
{
	struct stat st;
	return fstatat(data->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void check_link(const struct data_dir *data, const char *path, const char *target)
{
	char found[512];
	ssize_t n = readlinkat(data->fd, path, found, sizeof found - 1);
	if (n < 0)
		fail_msg("%s: %s", path, strerror(errno));
	found[n] = 0;
	assert_string_equal(found, target);
}

static void check_text(const struct data_dir *data, const char *path, const char *text)
{
	char found[64] = "";
	int fd = openat(data->fd, path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, found, sizeof found - 1) >= 0);
	(void)close(fd);
	assert_string_equal(found, text);
}

/* The generations, newest first, as text: "3 2 1". */
static void check_list(struct atomic_dir *dir, const char *expected)
{
	uint64_t *numbers = NULL;
	size_t n = 0, at = 0;
	char text[512] = "";
	assert_int_equal(atomic_dir_list(dir, &numbers, &n, errstr, sizeof errstr), 0);
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu", i ? " " : "", (unsigned long long)numbers[i]);
	free(numbers);
	assert_string_equal(text, expected);
}

static unsigned count_entries(const struct data_dir *data, const char *path)
{
	int fd = openat(data->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fdopendir(fd);
	unsigned n = 0;
	assert_non_null(stream);
	while (readdir(stream))
		n++;
	(void)closedir(stream);
	return n - 2;
}

/* ---- tests ---- */

static void publish(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = open_dir(data);
	int fd = -1, again = -1;
	uint64_t number = 0;
	check_list(dir, "");
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	assert_int_equal(number, 1);
	assert_int_equal(atomic_dir_begin(dir, &again, &number, errstr, sizeof errstr), -EALREADY);
	put_file(fd, "model_bpr.pt", "one");
	assert_true(exists(data, "checkpoints/.tmp-1/model_bpr.pt"));
	check_list(dir, "");
	assert_int_equal(atomic_dir_commit(dir, errstr, sizeof errstr), 0);
	check_list(dir, "1");
	check_link(data, "checkpoints/latest", "000001");
	check_text(data, "checkpoints/latest/model_bpr.pt", "one");
	assert_int_equal(commit_one(dir, "two"), 2);
	check_list(dir, "2 1");
	check_link(data, "checkpoints/latest", "000002");
	assert_int_equal(count_entries(data, "checkpoints"), 3); /* two generations, one link, nothing temporary */
	assert_int_equal(atomic_dir_open_generation(dir, 1, &fd, errstr, sizeof errstr), 0);
	assert_int_equal(faccessat(fd, "model_bpr.pt", F_OK, 0), 0);
	(void)close(fd);
	assert_int_equal(atomic_dir_open_generation(dir, 3, &fd, errstr, sizeof errstr), -ENOENT);
	assert_string_equal(errstr, "open checkpoints/000003: No such file or directory");
	assert_int_equal(atomic_dir_commit(dir, errstr, sizeof errstr), -EINVAL);
	atomic_dir_close(dir);
	atomic_dir_close(NULL);
	atomic_dir_abort(NULL);
}

static void abort_removes(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = open_dir(data);
	int fd;
	uint64_t number;
	assert_int_equal(commit_one(dir, "one"), 1);
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	put_file(fd, "state.pt", "half");
	assert_int_equal(mkdirat(fd, "folder", 0700), 0);
	atomic_dir_abort(dir);
	assert_int_equal(count_entries(data, "checkpoints"), 2);
	assert_int_equal(commit_one(dir, "three"), 3); /* 2 is used up */
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	atomic_dir_close(dir); /* aborts */
	assert_int_equal(count_entries(data, "checkpoints"), 3);
	check_link(data, "checkpoints/latest", "000003");
}

/* What a killed run leaves: removed by the next writer, untouched by a reader; its numbers are not used again. */
static void leftovers(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = open_dir(data);
	assert_int_equal(commit_one(dir, "one"), 1);
	atomic_dir_close(dir);
	assert_int_equal(mkdirat(data->fd, "checkpoints/.tmp-17", 0700), 0);
	put_file(data->fd, "checkpoints/.tmp-17/state.pt", "half");
	assert_int_equal(mkdirat(data->fd, "checkpoints/.del-4", 0700), 0);
	assert_int_equal(symlinkat("000001", data->fd, "checkpoints/.latest-5"), 0);
	assert_int_equal(mkdirat(data->fd, "checkpoints/000003", 0700), 0); /* bad: empty */
	put_file(data->fd, "checkpoints/notes.txt", "of the operator");
	put_file(data->fd, "checkpoints/000009", "a file, no generation");
	assert_int_equal(mkdirat(data->fd, "checkpoints/00002", 0700), 0);   /* five digits: not ours */
	assert_int_equal(mkdirat(data->fd, "checkpoints/0000022", 0700), 0); /* a leading zero too many */
	assert_int_equal(symlinkat("000001", data->fd, "checkpoints/000008"), 0);
	assert_int_equal(symlinkat("/tmp", data->fd, "checkpoints/.tmp-6"), 0); /* a link: removed itself, not followed */

	struct atomic_dir *reader = NULL;
	const unsigned before = count_entries(data, "checkpoints");
	assert_int_equal(atomic_dir_open(data->fd, 0, &reader, errstr, sizeof errstr), 0);
	check_list(reader, "3 1");
	int fd;
	uint64_t number;
	unsigned removed;
	assert_int_equal(atomic_dir_begin(reader, &fd, &number, errstr, sizeof errstr), -EROFS);
	assert_int_equal(atomic_dir_prune(reader, 3, NULL, 0, &removed, errstr, sizeof errstr), -EROFS);
	assert_int_equal(atomic_dir_link(reader, "model_bpr.pt", errstr, sizeof errstr), -EROFS);
	assert_int_equal(atomic_dir_open_generation(reader, 8, &fd, errstr, sizeof errstr), -ENOTDIR);
	atomic_dir_close(reader);
	assert_int_equal(count_entries(data, "checkpoints"), before);

	dir = open_dir(data);
	check_list(dir, "3 1");
	assert_int_equal(count_entries(data, "checkpoints"), before - 4);
	assert_true(exists(data, "checkpoints/notes.txt") && exists(data, "checkpoints/00002") && exists(data, "checkpoints/0000022"));
	assert_int_equal(commit_one(dir, "eighteen"), 18); /* above the leftover */
	atomic_dir_close(dir);
	assert_int_equal(access("/tmp", F_OK), 0);

	/* the link alone remembers a number */
	clear(data->fd, "checkpoints/000018");
	clear(data->fd, "checkpoints/000009");
	dir = open_dir(data);
	assert_int_equal(commit_one(dir, "nineteen"), 19);
	atomic_dir_close(dir);
}

static void pruning(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = open_dir(data);
	unsigned removed = 99;
	for (int i = 1; i <= 6; i++)
		assert_int_equal(commit_one(dir, "x"), i);
	assert_int_equal(atomic_dir_prune(dir, 5, NULL, 0, &removed, errstr, sizeof errstr), 0);
	assert_int_equal(removed, 1);
	check_list(dir, "6 5 4 3 2");
	/* 5 and 6 are bad: three good ones stay below them */
	const uint64_t bad[] = {6, 5};
	assert_int_equal(atomic_dir_prune(dir, 3, bad, 2, &removed, errstr, sizeof errstr), 0);
	assert_int_equal(removed, 0);
	check_list(dir, "6 5 4 3 2");
	assert_int_equal(commit_one(dir, "x"), 7);
	assert_int_equal(atomic_dir_prune(dir, 3, bad, 2, &removed, errstr, sizeof errstr), 0);
	check_list(dir, "7 6 5 4 3");
	/* never fewer than three, whatever is asked */
	assert_int_equal(atomic_dir_prune(dir, 0, NULL, 0, NULL, errstr, sizeof errstr), 0);
	check_list(dir, "7 6 5");
	/* the one that `latest` names stays */
	clear(data->fd, "checkpoints/latest");
	assert_int_equal(symlinkat("000005", data->fd, "checkpoints/latest"), 0);
	assert_int_equal(commit_one(dir, "x"), 8);
	clear(data->fd, "checkpoints/latest");
	assert_int_equal(symlinkat("000005", data->fd, "checkpoints/latest"), 0);
	assert_int_equal(atomic_dir_prune(dir, 3, NULL, 0, &removed, errstr, sizeof errstr), 0);
	assert_int_equal(removed, 0);
	check_list(dir, "8 7 6 5");
	/* what an earlier prune could not remove goes with the next, also while a generation is being written */
	int fd;
	uint64_t number;
	assert_int_equal(mkdirat(data->fd, "checkpoints/.del-2", 0700), 0);
	put_file(data->fd, "checkpoints/.del-2/state.pt", "x");
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	assert_int_equal(atomic_dir_prune(dir, 3, NULL, 0, &removed, errstr, sizeof errstr), 0);
	assert_false(exists(data, "checkpoints/.del-2"));
	assert_true(exists(data, "checkpoints/.tmp-9"));
	assert_int_equal(atomic_dir_commit(dir, errstr, sizeof errstr), 0);
	atomic_dir_close(dir);
}

static void stable_links(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = open_dir(data);
	struct stat before, after;
	assert_int_equal(commit_one(dir, "one"), 1);
	assert_int_equal(atomic_dir_link(dir, "model_bpr.pt", errstr, sizeof errstr), 0);
	check_link(data, "model_bpr.pt", "checkpoints/latest/model_bpr.pt");
	check_text(data, "model_bpr.pt", "one");
	assert_int_equal(fstatat(data->fd, "model_bpr.pt", &before, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(atomic_dir_link(dir, "model_bpr.pt", errstr, sizeof errstr), 0);
	assert_int_equal(fstatat(data->fd, "model_bpr.pt", &after, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(before.st_ino, after.st_ino); /* nothing to do */
	assert_int_equal(commit_one(dir, "two"), 2);
	check_text(data, "model_bpr.pt", "two");
	assert_int_equal(symlinkat("/etc/passwd", data->fd, "other.pt"), 0); /* another link is replaced */
	assert_int_equal(symlinkat("x", data->fd, ".link-other.pt"), 0);
	assert_int_equal(atomic_dir_link(dir, "other.pt", errstr, sizeof errstr), 0);
	check_link(data, "other.pt", "checkpoints/latest/other.pt");
	put_file(data->fd, "mine.pt", "a user's file");
	assert_int_equal(atomic_dir_link(dir, "mine.pt", errstr, sizeof errstr), -EEXIST);
	check_text(data, "mine.pt", "a user's file");
	static const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "../x", "a b", "a\n"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(atomic_dir_link(dir, bad[i], errstr, sizeof errstr), -EINVAL);
	atomic_dir_close(dir);
}

static void names(void **state)
{
	(void)state;
	char name[300];
	memset(name, 'a', sizeof name);
	name[255] = 0;
	assert_true(atomic_dir_name_ok(name));
	name[255] = 'a';
	name[256] = 0;
	assert_false(atomic_dir_name_ok(name));
	assert_true(atomic_dir_name_ok("model_bpr.pt") && atomic_dir_name_ok("A-1"));
	assert_false(atomic_dir_name_ok("") || atomic_dir_name_ok(".x") || atomic_dir_name_ok("a/b") || atomic_dir_name_ok("\xd1\x84"));
}

/* `checkpoints` as a link out of the data directory, as a file, missing for a reader; a generation's number taken by something else. */
static void hostile_directory(void **state)
{
	const struct data_dir *data = *state;
	struct atomic_dir *dir = NULL;
	assert_int_equal(atomic_dir_open(data->fd, 0, &dir, errstr, sizeof errstr), -ENOENT);
	assert_int_equal(atomic_dir_open(-1, 0, &dir, errstr, sizeof errstr), -EBADF);
	assert_int_equal(symlinkat("/tmp", data->fd, "checkpoints"), 0);
	assert_int_equal(atomic_dir_open(data->fd, ATOMIC_DIR_WRITE, &dir, errstr, sizeof errstr), -ENOTDIR);
	clear(data->fd, "checkpoints");
	put_file(data->fd, "checkpoints", "x");
	assert_int_equal(atomic_dir_open(data->fd, ATOMIC_DIR_WRITE, &dir, errstr, sizeof errstr), -ENOTDIR);
	assert_string_equal(errstr, "open checkpoints: Not a directory");
	assert_null(dir);
	clear(data->fd, "checkpoints");

	dir = open_dir(data);
	assert_int_equal(commit_one(dir, "one"), 1);
	int fd;
	uint64_t number;
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	assert_int_equal(mkdirat(data->fd, "checkpoints/000002", 0700), 0); /* empty: a plain rename would replace it */
	assert_int_equal(atomic_dir_commit(dir, errstr, sizeof errstr), -EEXIST);
	assert_string_equal(errstr, "rename checkpoints/.tmp-2 to 000002: File exists");
	assert_false(exists(data, "checkpoints/.tmp-2"));
	check_link(data, "checkpoints/latest", "000001");
	clear(data->fd, "checkpoints/latest");
	assert_int_equal(mkdirat(data->fd, "checkpoints/latest", 0700), 0); /* no link: it cannot be swapped */
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), 0);
	assert_int_equal(atomic_dir_commit(dir, errstr, sizeof errstr), -EISDIR);
	assert_string_equal(errstr, "rename the link checkpoints/latest to 000003: Is a directory");
	check_list(dir, "2 1"); /* 3 was withdrawn */
	assert_int_equal(count_entries(data, "checkpoints"), 3);
	atomic_dir_close(dir);

	assert_int_equal(mkdirat(data->fd, "checkpoints/999999999999", 0700), 0);
	dir = open_dir(data);
	assert_int_equal(atomic_dir_begin(dir, &fd, &number, errstr, sizeof errstr), -EOVERFLOW);
	atomic_dir_close(dir);
}

/* ---- a full disk ---- */

static int write_generation(struct atomic_dir *dir, uint64_t bytes, uint64_t *ret_number)
{
	static const unsigned char block[4096] = {1, 2, 3};
	int fd = -1;
	int r = atomic_dir_begin(dir, &fd, ret_number, errstr, sizeof errstr);
	if (r < 0)
		return r;
	struct torch_writer *writer = torch_writer_new(0);
	if (!writer)
		return -ENOMEM;
	(void)torch_writer_add_tensor(writer, "bytes", TORCH_U8, 1, &bytes);
	r = torch_writer_begin(writer, fd, "model_bpr.pt", errstr, sizeof errstr);
	for (uint64_t at = 0; r == 0 && at < bytes; at += sizeof block)
		(void)torch_writer_append(writer, 0, block, bytes - at < sizeof block ? (size_t)(bytes - at) : sizeof block);
	if (r == 0)
		r = torch_writer_finish(writer, errstr, sizeof errstr);
	torch_writer_free(writer);
	if (r == 0)
		return atomic_dir_commit(dir, errstr, sizeof errstr);
	atomic_dir_abort(dir);
	return r;
}

static void full_disk(void **state)
{
	const struct data_dir *data = *state;
	if (mount("tmpfs", data->path, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") < 0) {
		printf("SKIP full_disk: cannot mount a tmpfs: %s\n", strerror(errno));
		skip();
	}
	const struct data_dir disk = {.fd = open(data->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	struct atomic_dir *dir = NULL;
	uint64_t number = 0;
	int opened = atomic_dir_open(disk.fd, ATOMIC_DIR_WRITE, &dir, errstr, sizeof errstr);
	int first = opened ? -1 : write_generation(dir, 400000, &number);
	int second = opened ? -1 : write_generation(dir, 800000, &number);
	char reason[sizeof errstr];
	memcpy(reason, errstr, sizeof reason);
	const bool old_there = exists(&disk, "checkpoints/000001/model_bpr.pt");
	const unsigned left = opened ? 0 : count_entries(&disk, "checkpoints");
	int third = opened ? -1 : write_generation(dir, 400000, &number); /* small enough again */
	struct torch_reader *reader = NULL;
	int loaded = torch_reader_open(disk.fd, "checkpoints/000001/model_bpr.pt", 0, &reader, errstr, sizeof errstr);
	torch_reader_close(reader);
	atomic_dir_close(dir);
	(void)close(disk.fd);
	assert_int_equal(umount(data->path), 0); /* before any assertion can leave it mounted */
	assert_int_equal(opened, 0);
	assert_int_equal(first, 0);
	assert_int_equal(second, -ENOSPC);
	assert_string_equal(reason, "model_bpr.pt: reserve space: No space left on device");
	assert_true(old_there);
	assert_int_equal(left, 2); /* the old generation and the link */
	assert_int_equal(loaded, 0);
	assert_int_equal(third, 0);
	assert_int_equal(number, 3);
}

/* ---- the tool ---- */

static int tool(const char *mode, const char *path, const char *argument)
{
	struct atomic_dir *dir = NULL;
	uint64_t number = 0;
	unsigned removed = 0;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = atomic_dir_open(fd, ATOMIC_DIR_WRITE, &dir, errstr, sizeof errstr);
	if (r == 0 && strcmp(mode, "--commit") == 0) {
		r = write_generation(dir, strtoull(argument, NULL, 10), &number);
		if (r == 0)
			printf("committed %llu\n", (unsigned long long)number);
	} else if (r == 0 && strcmp(mode, "--prune") == 0) {
		r = atomic_dir_prune(dir, (unsigned)atoi(argument), NULL, 0, &removed, errstr, sizeof errstr);
		if (r == 0)
			printf("pruned %u\n", removed);
	} else if (r == 0) {
		r = atomic_dir_link(dir, argument, errstr, sizeof errstr);
		if (r == 0)
			printf("linked\n");
	}
	if (r < 0)
		printf("failed: %s\n", errstr);
	atomic_dir_close(dir);
	(void)close(fd);
	return r < 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(publish), TEST(abort_removes), TEST(leftovers), TEST(pruning), TEST(stable_links), TEST(names), TEST(hostile_directory), TEST(full_disk),
	};
	if (argc == 4)
		return tool(argv[1], argv[2], argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
