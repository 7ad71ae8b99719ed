/*
 * tail_identity.c: which file is it? Device and inode say so until an inode is reused or a file is copied; the content before the position says so always.
 *
 * Also the names that log rotation gives, and searching a directory for a rotated or copied file. Rotated files are ordered by modification time
 * (a rotated file is written no more); when that ties, by time of renaming, then by number (the larger is the older). Runs on the source's thread; keeps no state.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/tail.h"

uint64_t tail_hash(const char *bytes, size_t len)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a, 64 bits */

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

int tail_refresh(struct tail_file *file)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EMEDIUMTYPE;
	file->device = (uint64_t)st.st_dev;
	file->inode = (uint64_t)st.st_ino;
	file->links = (uint64_t)st.st_nlink;
	file->size = (int64_t)st.st_size;
	file->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return 0;
}

int tail_open_at(int dir_fd, const char *path, struct tail_file *ret_file)
{
	/* O_NONBLOCK: a FIFO by that name must not stop us here. */
	struct tail_file file = {.fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
	int r;

	if (file.fd < 0)
		return -errno;
	r = tail_refresh(&file);
	if (r < 0) {
		tail_close_file(&file);
		return r;
	}
	*ret_file = file;
	return 0;
}

void tail_close_file(struct tail_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

int tail_same_file(const struct tail_file *file, const struct source_position *position)
{
	return file->inode == position->inode && file->device == position->device;
}

int tail_marker_matches(const struct tail_file *file, const struct source_position *position, char marker[TAIL_MARKER_MAX])
{
	char bytes[TAIL_MARKER_MAX];
	size_t len = position->marker_len;
	ssize_t n;

	if (file->size < position->offset || len > TAIL_MARKER_MAX || (int64_t)len > position->offset)
		return 0;
	if (len == 0)
		return position->offset == 0;
	n = pread(file->fd, bytes, len, (off_t)(position->offset - (int64_t)len));
	if (n < 0)
		return -errno;
	if ((size_t)n != len || tail_hash(bytes, len) != position->marker)
		return 0;
	memcpy(marker, bytes, len);
	return 1;
}

/* "1", "17": a number of at most four digits. */
static int is_rotation_number(const char *text, size_t len)
{
	if (len == 0 || len > 4)
		return 0;
	for (size_t i = 0; i < len; i++)
		if (text[i] < '0' || text[i] > '9')
			return 0;
	return 1;
}

/* "20251210", "2025-12-10", "20251210-13", "2025-12-10T13:00:00": at least eight digits, and what dates hold between them. */
static int is_rotation_date(const char *text, size_t len)
{
	size_t digits = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] >= '0' && text[i] <= '9')
			digits++;
		else if (!strchr("-_.:T", text[i]))
			return 0;
	}
	return digits >= 8 && digits <= 20;
}

int tail_is_rotation_name(const char *name, const char *base)
{
	size_t name_len = strlen(name), base_len = strlen(base), stem_len, ext_len;
	const char *dot = strrchr(base, '.');

	if (name_len > base_len + 1 && memcmp(name, base, base_len) == 0) {
		const char *rest = name + base_len + 1;
		size_t len = name_len - base_len - 1;

		if (name[base_len] == '.' && is_rotation_number(rest, len))
			return 1;
		return strchr("-._", name[base_len]) && is_rotation_date(rest, len);
	}
	if (!dot || dot == base)
		return 0;
	stem_len = (size_t)(dot - base);
	ext_len = base_len - stem_len;
	if (name_len > base_len + 1 && memcmp(name, base, stem_len) == 0 && strcmp(name + name_len - ext_len, dot) == 0) {
		const char *rest = name + stem_len + 1;
		size_t len = name_len - ext_len - stem_len - 1;

		if (name[stem_len] == '.' && is_rotation_number(rest, len))
			return 1;
		return strchr("-._", name[stem_len]) && is_rotation_date(rest, len);
	}
	return 0;
}

int tail_is_compressed_name(const char *name)
{
	static const char *const endings[] = {".gz", ".xz", ".zst", ".bz2", ".lz4"};
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		size_t n = strlen(endings[i]);

		if (len > n && strcmp(name + len - n, endings[i]) == 0)
			return 1;
	}
	return 0;
}

static DIR *open_directory(const struct tail *tail)
{
	char *dir = tail->dir_len > 0 ? strndup(tail->path, tail->dir_len) : strdup(".");
	DIR *stream = dir ? opendir(dir) : NULL;

	free(dir);
	return stream;
}

static size_t count_digits(const char *name)
{
	size_t digits = 0;

	for (; *name; name++)
		digits += *name >= '0' && *name <= '9';
	return digits;
}

/* Two names of rotated files that were last written in the same instant: base.2 is older than base.1, but base-20251209 than base-20251210. */
static int older_name_first(const char *x, const char *y)
{
	int date_x = count_digits(x) >= 8, date_y = count_digits(y) >= 8;
	size_t nx = strlen(x), ny = strlen(y);

	if (date_x != date_y)
		return date_x ? -1 : 1;
	if (date_x)
		return strcmp(x, y);
	/* numbers without leading zeros: the longer is the larger */
	return nx != ny ? (nx > ny ? -1 : 1) : strcmp(y, x);
}

static int older_first(const void *a, const void *b)
{
	const struct tail_candidate *x = a, *y = b;

	if (x->mtime_ns != y->mtime_ns)
		return x->mtime_ns < y->mtime_ns ? -1 : 1;
	if (x->ctime_ns != y->ctime_ns)
		return x->ctime_ns < y->ctime_ns ? -1 : 1;
	return older_name_first(x->name, y->name);
}

/* One reading of the directory into source->listing; *ret_sum tells two different sets of files apart. */
static int list_once(struct source_files *source, const struct tail *tail, int *ret_compressed, uint64_t *ret_sum)
{
	const char *base = tail->path + tail->dir_len;
	DIR *dir = open_directory(tail);
	struct dirent *entry;
	uint64_t sum = 0;
	unsigned n = 0;
	int compressed = 0;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir)) != NULL) {
		struct tail_candidate *candidate = &source->listing[n];
		struct stat st;

		if (tail_is_compressed_name(entry->d_name)) {
			compressed = compressed || strncmp(entry->d_name, base, strlen(base)) == 0;
			continue;
		}
		if (n == TAIL_LISTING_MAX || strlen(entry->d_name) >= sizeof(candidate->name) || !tail_is_rotation_name(entry->d_name, base))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, 0) < 0) {
			sum += (uint64_t)n + 1; /* renamed under us: read again */
			continue;
		}
		if (!S_ISREG(st.st_mode))
			continue;
		candidate->device = (uint64_t)st.st_dev;
		candidate->inode = (uint64_t)st.st_ino;
		candidate->size = (int64_t)st.st_size;
		candidate->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
		candidate->ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
		memcpy(candidate->name, entry->d_name, strlen(entry->d_name) + 1);
		sum += tail_hash((const char *)&candidate->inode, sizeof(candidate->inode));
		n++;
	}
	closedir(dir);
	*ret_sum = sum;
	*ret_compressed = compressed;
	return (int)n;
}

int tail_list_rotations(struct source_files *source, const struct tail *tail, int *ret_compressed)
{
	int n = -1, before = -1, compressed = 0;
	uint64_t sum = 0, sum_before = 0;

	/* readdir(3) may miss a file that is renamed meanwhile: believe only two readings that agree */
	for (int i = 0; i < 8 && (i == 0 || n != before || sum != sum_before); i++) {
		before = n;
		sum_before = sum;
		n = list_once(source, tail, &compressed, &sum);
		if (n < 0)
			return n;
		if (i == 0)
			before = -1;
	}
	qsort(source->listing, (size_t)n, sizeof(*source->listing), older_first);
	if (ret_compressed)
		*ret_compressed = compressed;
	return n;
}

static int open_in_directory(const struct tail *tail, const char *name, struct tail_file *ret_file)
{
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%.*s%s", (int)tail->dir_len, tail->path, name) >= sizeof(path))
		return -ENAMETOOLONG;
	return tail_open_at(AT_FDCWD, path, ret_file);
}

int tail_open_candidate(const struct tail *tail, const struct tail_candidate *candidate, struct tail_file *ret_file)
{
	struct tail_file file;
	int r = open_in_directory(tail, candidate->name, &file);

	if (r < 0)
		return r;
	if (file.inode != candidate->inode || file.device != candidate->device) {
		tail_close_file(&file);
		return -ESTALE; /* renamed under us: the next look will find it */
	}
	*ret_file = file;
	return 0;
}

static int find_by_inode_once(const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX])
{
	DIR *dir = open_directory(tail);
	struct dirent *entry;
	int r = -ENOENT;

	if (!dir)
		return -errno;
	while (r == -ENOENT && (entry = readdir(dir)) != NULL) {
		struct tail_file file;
		int match;

		if ((uint64_t)entry->d_ino != tail->position.inode || (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN))
			continue;
		match = open_in_directory(tail, entry->d_name, &file);
		if (match < 0) {
			r = match == -EMEDIUMTYPE ? -ENOENT : match;
			continue;
		}
		match = file.inode == tail->position.inode ? tail_marker_matches(&file, &tail->position, marker) : 0;
		if (match == 1) {
			*ret_file = file;
			r = 0;
			break;
		}
		tail_close_file(&file);
		if (match < 0)
			r = match;
	}
	closedir(dir);
	return r;
}

int tail_find_by_inode(const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX])
{
	int r = -ENOENT;

	for (int i = 0; i < 3 && r == -ENOENT; i++) /* a rename meanwhile may hide it */
		r = find_by_inode_once(tail, ret_file, marker);
	return r;
}

/* -EAGAIN: a candidate was renamed before it could be opened. */
static int find_by_content_once(struct source_files *source, const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX])
{
	int n = tail_list_rotations(source, tail, NULL), r = -ENOENT;

	if (n < 0)
		return n;
	for (int i = n; i-- > 0;) { /* the newest first */
		const struct tail_candidate *candidate = &source->listing[i];
		struct tail_file file;
		int match;

		if (candidate->size < tail->position.offset || (candidate->inode == tail->file.inode && candidate->device == tail->file.device))
			continue;
		match = tail_open_candidate(tail, candidate, &file);
		if (match < 0) {
			r = match == -ESTALE || match == -ENOENT ? -EAGAIN : r;
			continue;
		}
		match = tail_owner(source, &file, tail) ? 0 : tail_marker_matches(&file, &tail->position, marker);
		if (match == 1) {
			*ret_file = file;
			return 0;
		}
		tail_close_file(&file);
	}
	return r;
}

int tail_find_by_content(struct source_files *source, const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX])
{
	int r = -EAGAIN;

	if (tail->position.marker_len < TAIL_MARKER_TRUSTED)
		return -ENOENT;
	for (int i = 0; i < 5 && r == -EAGAIN; i++)
		r = find_by_content_once(source, tail, ret_file, marker);
	return r == -EAGAIN ? -ENOENT : r;
}

struct tail *tail_owner(struct source_files *source, const struct tail_file *file, const struct tail *except)
{
	for (size_t i = 0; i < source->n_tails; i++) {
		struct tail *tail = source->tails[i];

		if (tail == except)
			continue;
		/* only what is held open: the inode of a file that is gone may belong to another by now */
		if (tail->file.fd >= 0 && tail_same_file(file, &tail->position))
			return tail;
		for (uint32_t k = 0; k < tail->n_next; k++)
			if (tail->next[k].inode == file->inode && tail->next[k].device == file->device)
				return tail;
	}
	return NULL;
}
