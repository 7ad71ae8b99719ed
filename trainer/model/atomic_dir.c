/*
 * atomic_dir.c: generations of files in `checkpoints` that appear whole or not at all; atomic_dir.h has the picture.
 *
 * The order is everything: files durable (by whoever wrote them), directory durable, rename, parent durable, only then the link. Each fsync is on a descriptor
 * opened for it, so none is ever repeated on one that has failed. What cannot be finished is undone: renamed to .del-<n> and removed; what a crash
 * leaves behind has a name that the next start removes.
 *
 * Runs on the thread that writes checkpoints. The handle owns its descriptors of the data directory, of `checkpoints` and of the generation being written.
 * Only the *at() calls are used, with one path component each, and links are never followed.
 */
#include "trainer/model/atomic_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKPOINTS "checkpoints"
#define LATEST "latest"
#define TREE_DEPTH_MAX 4
#define NAME_SIZE 32 /* of the names made here */

struct atomic_dir {
	int data_fd, fd; /* fd: checkpoints */
	bool writable;
	int tmp_fd; /* the generation being written, or -1 */
	uint64_t number; /* its number */
	uint64_t next;   /* above every number seen */
};

__attribute__((format(printf, 4, 5))) static int fail(int err, char *errstr, size_t errstr_size, const char *format, ...)
{
	if (errstr && errstr_size) {
		va_list args;
		va_start(args, format);
		int n = vsnprintf(errstr, errstr_size, format, args);
		va_end(args);
		if (n >= 0 && (size_t)n < errstr_size)
			(void)snprintf(errstr + n, errstr_size - (size_t)n, ": %s", strerrordesc_np(err));
	}
	return -err;
}

/* ---- names ---- */

bool atomic_dir_name_ok(const char *name)
{
	size_t len = strnlen(name, 256);
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	return len > 0 && len < 256 && name[0] != '.' && strspn(name, allowed) == len;
}

/* "<prefix><digits>" to the number. At least six digits with no prefix, as generations are named. */
static bool parse_number(const char *name, const char *prefix, uint64_t *ret_number)
{
	size_t len = strlen(prefix);
	if (strncmp(name, prefix, len) != 0)
		return false;
	const char *digits = name + len;
	size_t n = strspn(digits, "0123456789");
	if (!n || n > 12 || digits[n] || (!len && (n < 6 || (n > 6 && digits[0] == '0'))))
		return false;
	*ret_number = strtoull(digits, NULL, 10);
	return true;
}

static void generation_name(char *name, uint64_t number) { (void)snprintf(name, NAME_SIZE, "%06" PRIu64, number); }

static void hidden_name(char *name, const char *prefix, uint64_t number) { (void)snprintf(name, NAME_SIZE, "%s%" PRIu64, prefix, number); }

/* ---- directories ---- */

static int open_dir(int parent, const char *name) { return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }

/* fsync of a directory on a descriptor of its own. 0 or -errno. */
static int sync_dir(int dir)
{
	int fd = open_dir(dir, ".");
	if (fd < 0)
		return -errno;
	int r = fsync(fd) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

/* A directory stream that leaves `dir` usable. NULL with errno. */
static DIR *list_dir(int dir)
{
	int fd = open_dir(dir, ".");
	if (fd < 0)
		return NULL;
	DIR *stream = fdopendir(fd);
	if (!stream)
		(void)close(fd);
	return stream;
}

static bool is_dot(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

/* Removes a file, a link or a directory with what it holds. The recursion is bounded: generations hold files only. */
static int remove_tree(int parent, const char *name, int depth)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	int cause = errno;
	if (cause != EISDIR && cause != EPERM)
		return -cause;
	if (depth == TREE_DEPTH_MAX)
		return -ELOOP;
	int fd = open_dir(parent, name);
	if (fd < 0)
		return errno == ENOTDIR ? -cause : -errno;
	DIR *stream = fdopendir(fd);
	if (!stream) {
		int r = -errno;
		(void)close(fd);
		return r;
	}
	int r = 0;
	const struct dirent *e;
	while (!r && (errno = 0, e = readdir(stream)) != NULL)
		if (!is_dot(e->d_name))
			r = remove_tree(fd, e->d_name, depth + 1);
	if (!r && errno)
		r = -errno;
	(void)closedir(stream);
	if (!r && unlinkat(parent, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

/* The number that `latest` names, or false. */
static bool latest_number(int fd, uint64_t *ret_number)
{
	char target[64];
	ssize_t n = readlinkat(fd, LATEST, target, sizeof target - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return parse_number(target, "", ret_number);
}

static int compare_down(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x < y) - (x > y);
}

/* ---- opening ---- */

/*
 * One pass over `checkpoints`: the highest number seen, and what has a name of `prefixes` (NULL at the end) is removed. A leftover that cannot be removed is an
 * error: it would hold disk space for ever.
 */
static int scan(struct atomic_dir *dir, const char *const *prefixes, bool remove, uint64_t *ret_highest, char *errstr, size_t errstr_size)
{
	uint64_t number, highest = 0;
	DIR *stream = list_dir(dir->fd);
	if (!stream)
		return fail(errno, errstr, errstr_size, "list " CHECKPOINTS);
	int r = 0;
	const struct dirent *e;
	while (!r && (errno = 0, e = readdir(stream)) != NULL) {
		bool leftover = false;
		for (size_t i = 0; !leftover && prefixes[i]; i++)
			leftover = parse_number(e->d_name, prefixes[i], &number);
		if (!leftover && !parse_number(e->d_name, "", &number))
			continue;
		highest = number > highest ? number : highest;
		if (leftover && remove) {
			r = remove_tree(dir->fd, e->d_name, 0);
			if (r < 0)
				(void)fail(-r, errstr, errstr_size, "remove the leftover " CHECKPOINTS "/%s", e->d_name);
		}
	}
	if (!r && errno)
		r = fail(errno, errstr, errstr_size, "list " CHECKPOINTS);
	(void)closedir(stream);
	if (!r)
		*ret_highest = highest;
	return r;
}

/* What an interrupted run left behind is removed (by the writer), and the next number is above all that was seen. */
static int start(struct atomic_dir *dir, char *errstr, size_t errstr_size)
{
	static const char *const leftovers[] = {".tmp-", ".del-", ".latest-", NULL};
	uint64_t highest = 0, latest;
	int r = scan(dir, leftovers, dir->writable, &highest, errstr, errstr_size);
	if (!r && latest_number(dir->fd, &latest) && latest > highest)
		highest = latest;
	dir->next = highest + 1;
	return r;
}

int atomic_dir_open(int data_fd, unsigned flags, struct atomic_dir **ret_dir, char *errstr, size_t errstr_size)
{
	struct atomic_dir *dir = malloc(sizeof *dir);
	if (!dir)
		return fail(ENOMEM, errstr, errstr_size, "open " CHECKPOINTS);
	*dir = (struct atomic_dir){.data_fd = -1, .fd = -1, .tmp_fd = -1, .writable = (flags & ATOMIC_DIR_WRITE) != 0};
	int r = 0;
	dir->data_fd = fcntl(data_fd, F_DUPFD_CLOEXEC, 3);
	if (dir->data_fd < 0)
		r = fail(errno, errstr, errstr_size, "duplicate the data directory's descriptor");
	if (!r && dir->writable) {
		if (mkdirat(dir->data_fd, CHECKPOINTS, 0750) < 0 && errno != EEXIST)
			r = fail(errno, errstr, errstr_size, "make " CHECKPOINTS);
		int synced = r ? 0 : sync_dir(dir->data_fd);
		if (synced < 0)
			r = fail(-synced, errstr, errstr_size, "fsync the data directory");
	}
	if (!r && (dir->fd = open_dir(dir->data_fd, CHECKPOINTS)) < 0)
		r = fail(errno, errstr, errstr_size, "open " CHECKPOINTS);
	if (!r)
		r = start(dir, errstr, errstr_size);
	if (r < 0) {
		atomic_dir_close(dir);
		return r;
	}
	*ret_dir = dir;
	return 0;
}

void atomic_dir_close(struct atomic_dir *dir)
{
	if (!dir)
		return;
	atomic_dir_abort(dir);
	if (dir->fd >= 0)
		(void)close(dir->fd);
	if (dir->data_fd >= 0)
		(void)close(dir->data_fd);
	free(dir);
}

int atomic_dir_list(struct atomic_dir *dir, uint64_t **ret_numbers, size_t *ret_n, char *errstr, size_t errstr_size)
{
	uint64_t *numbers = NULL, number;
	size_t n = 0, size = 0;
	DIR *stream = list_dir(dir->fd);
	if (!stream)
		return fail(errno, errstr, errstr_size, "list " CHECKPOINTS);
	int r = 0;
	const struct dirent *e;
	while (!r && (errno = 0, e = readdir(stream)) != NULL) {
		struct stat st;
		if (!parse_number(e->d_name, "", &number))
			continue;
		if (fstatat(dir->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
			errno = 0;
			continue;
		}
		if (n == size) {
			size = size ? size * 2 : 16;
			uint64_t *grown = n < ATOMIC_DIR_GENERATIONS_MAX ? reallocarray(numbers, size, sizeof *numbers) : NULL;
			if (!grown) {
				r = fail(n < ATOMIC_DIR_GENERATIONS_MAX ? ENOMEM : E2BIG, errstr, errstr_size, "list " CHECKPOINTS);
				break;
			}
			numbers = grown;
		}
		numbers[n++] = number;
	}
	if (!r && errno)
		r = fail(errno, errstr, errstr_size, "list " CHECKPOINTS);
	(void)closedir(stream);
	if (r < 0) {
		free(numbers);
		return r;
	}
	if (n)
		qsort(numbers, n, sizeof *numbers, compare_down);
	*ret_numbers = numbers;
	*ret_n = n;
	return 0;
}

int atomic_dir_open_generation(struct atomic_dir *dir, uint64_t number, int *ret_fd, char *errstr, size_t errstr_size)
{
	char name[NAME_SIZE];
	generation_name(name, number);
	int fd = open_dir(dir->fd, name);
	if (fd < 0)
		return fail(errno, errstr, errstr_size, "open " CHECKPOINTS "/%s", name);
	*ret_fd = fd;
	return 0;
}

/* ---- writing a generation ---- */

int atomic_dir_begin(struct atomic_dir *dir, int *ret_fd, uint64_t *ret_number, char *errstr, size_t errstr_size)
{
	char name[NAME_SIZE];
	if (!dir->writable)
		return fail(EROFS, errstr, errstr_size, "begin a generation");
	if (dir->tmp_fd >= 0)
		return fail(EALREADY, errstr, errstr_size, "begin a generation");
	if (dir->next > ATOMIC_DIR_NUMBER_MAX)
		return fail(EOVERFLOW, errstr, errstr_size, "begin a generation: no number above %" PRIu64, dir->next - 1);
	hidden_name(name, ".tmp-", dir->next);
	if (mkdirat(dir->fd, name, 0750) < 0)
		return fail(errno, errstr, errstr_size, "make " CHECKPOINTS "/%s", name);
	dir->tmp_fd = open_dir(dir->fd, name);
	if (dir->tmp_fd < 0) {
		int r = fail(errno, errstr, errstr_size, "open " CHECKPOINTS "/%s", name);
		(void)unlinkat(dir->fd, name, AT_REMOVEDIR);
		return r;
	}
	dir->number = dir->next++;
	*ret_fd = dir->tmp_fd;
	*ret_number = dir->number;
	return 0;
}

void atomic_dir_abort(struct atomic_dir *dir)
{
	char name[NAME_SIZE];
	if (!dir || dir->tmp_fd < 0)
		return;
	(void)close(dir->tmp_fd);
	dir->tmp_fd = -1;
	hidden_name(name, ".tmp-", dir->number);
	(void)remove_tree(dir->fd, name, 0);
}

/* rename that never replaces; file systems without the flag get the check first (the data directory is locked by its one writer). */
static int rename_new(int fd, const char *from, const char *to)
{
	struct stat st;
	if (renameat2(fd, from, fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (fstatat(fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(fd, from, fd, to) < 0 ? -errno : 0;
}

/* Points `link` in directory fd at `target`, through a link of another name. Not durable yet. `ret_step` names what failed. */
static int swap_link(int fd, const char *target, const char *link, const char *temporary, const char **ret_step)
{
	*ret_step = "make the link";
	if (symlinkat(target, fd, temporary) < 0) {
		if (errno != EEXIST || unlinkat(fd, temporary, 0) < 0 || symlinkat(target, fd, temporary) < 0)
			return -errno;
	}
	*ret_step = "rename the link";
	if (renameat(fd, temporary, fd, link) < 0) {
		int r = -errno;
		(void)unlinkat(fd, temporary, 0);
		return r;
	}
	return 0;
}

/* Undoes a rename into place: the generation was not reported, so it must not be found. */
static void withdraw(struct atomic_dir *dir, const char *name)
{
	char hidden[NAME_SIZE];
	hidden_name(hidden, ".del-", dir->number);
	if (renameat(dir->fd, name, dir->fd, hidden) == 0)
		(void)remove_tree(dir->fd, hidden, 0);
}

int atomic_dir_commit(struct atomic_dir *dir, char *errstr, size_t errstr_size)
{
	char hidden[NAME_SIZE], name[NAME_SIZE], link[NAME_SIZE];
	const char *step;
	if (dir->tmp_fd < 0)
		return fail(EINVAL, errstr, errstr_size, "commit: no generation was begun");
	hidden_name(hidden, ".tmp-", dir->number);
	hidden_name(link, ".latest-", dir->number);
	generation_name(name, dir->number);
	if (fsync(dir->tmp_fd) < 0) {
		int r = fail(errno, errstr, errstr_size, "fsync " CHECKPOINTS "/%s", hidden);
		atomic_dir_abort(dir);
		return r;
	}
	int r = rename_new(dir->fd, hidden, name);
	if (r < 0) {
		(void)fail(-r, errstr, errstr_size, "rename " CHECKPOINTS "/%s to %s", hidden, name);
		atomic_dir_abort(dir);
		return r;
	}
	(void)close(dir->tmp_fd);
	dir->tmp_fd = -1;
	r = sync_dir(dir->fd);
	if (r < 0) {
		(void)fail(-r, errstr, errstr_size, "fsync " CHECKPOINTS " after the rename to %s", name);
		withdraw(dir, name);
		return r;
	}
	r = swap_link(dir->fd, name, LATEST, link, &step);
	if (r < 0) {
		(void)fail(-r, errstr, errstr_size, "%s " CHECKPOINTS "/" LATEST " to %s", step, name);
		withdraw(dir, name);
		return r;
	}
	r = sync_dir(dir->fd);
	if (r < 0)
		(void)fail(-r, errstr, errstr_size, "fsync " CHECKPOINTS " after the link to %s", name);
	return r;
}

/* ---- pruning ---- */

static bool contains(const uint64_t *numbers, size_t n, uint64_t number)
{
	for (size_t i = 0; i < n; i++)
		if (numbers[i] == number)
			return true;
	return false;
}

/* How many of the newest stay: up to and with the `keep`-th good one. */
static size_t count_kept(const uint64_t *numbers, size_t n, unsigned keep, const uint64_t *bad, size_t n_bad)
{
	size_t i = 0;
	for (unsigned good = 0; i < n && good < keep; i++)
		good += !contains(bad, n_bad, numbers[i]);
	return i;
}

int atomic_dir_prune(struct atomic_dir *dir, unsigned keep, const uint64_t *bad, size_t n_bad, unsigned *ret_removed, char *errstr, size_t errstr_size)
{
	uint64_t *numbers, latest = 0;
	size_t n, renamed;
	char name[NAME_SIZE], hidden[NAME_SIZE];
	if (!dir->writable)
		return fail(EROFS, errstr, errstr_size, "prune " CHECKPOINTS);
	int r = atomic_dir_list(dir, &numbers, &n, errstr, errstr_size);
	if (r < 0)
		return r;
	bool has_latest = latest_number(dir->fd, &latest);
	size_t kept = count_kept(numbers, n, keep < ATOMIC_DIR_KEEP_MIN ? ATOMIC_DIR_KEEP_MIN : keep, bad, n_bad), out = 0;
	for (size_t i = kept; i < n; i++)
		if (!has_latest || numbers[i] != latest)
			numbers[out++] = numbers[i];
	for (renamed = 0; !r && renamed < out; renamed++) {
		generation_name(name, numbers[renamed]);
		hidden_name(hidden, ".del-", numbers[renamed]);
		r = rename_new(dir->fd, name, hidden);
		if (r < 0)
			(void)fail(-r, errstr, errstr_size, "rename " CHECKPOINTS "/%s to %s", name, hidden);
	}
	if (!r && out && (r = sync_dir(dir->fd)) < 0)
		(void)fail(-r, errstr, errstr_size, "fsync " CHECKPOINTS " before removing old generations");
	free(numbers);
	/* these, and any that an earlier call could not remove */
	static const char *const deleted[] = {".del-", NULL};
	uint64_t highest;
	if (!r)
		r = scan(dir, deleted, true, &highest, errstr, errstr_size);
	if (!r && ret_removed)
		*ret_removed = (unsigned)out;
	return r;
}

/* ---- stable names ---- */

int atomic_dir_link(struct atomic_dir *dir, const char *name, char *errstr, size_t errstr_size)
{
	char target[sizeof CHECKPOINTS "/" LATEST "/" + 256], found[sizeof target + 1], temporary[256 + 16];
	const char *step;
	struct stat st;
	if (!dir->writable || !atomic_dir_name_ok(name))
		return fail(dir->writable ? EINVAL : EROFS, errstr, errstr_size, "link a stable name");
	(void)snprintf(target, sizeof target, CHECKPOINTS "/" LATEST "/%s", name);
	(void)snprintf(temporary, sizeof temporary, ".link-%s", name);
	if (fstatat(dir->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISLNK(st.st_mode))
			return fail(EEXIST, errstr, errstr_size, "link %s: something else has that name", name);
		ssize_t n = readlinkat(dir->data_fd, name, found, sizeof found);
		if (n >= 0 && (size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0)
			return 0;
	} else if (errno != ENOENT) {
		return fail(errno, errstr, errstr_size, "look at %s", name);
	}
	int r = swap_link(dir->data_fd, target, name, temporary, &step);
	if (r < 0)
		return fail(-r, errstr, errstr_size, "%s %s", step, name);
	r = sync_dir(dir->data_fd);
	if (r < 0)
		return fail(-r, errstr, errstr_size, "fsync the data directory after the link %s", name);
	return 0;
}
