/*
 * tail_discover.c: from globs and remembered positions to tails.
 *
 * A path that a glob finds gets a tail, unless its name is what rotation made of another tail's path (that tail reads it in its turn), or its file
 * is already read under another name. After a restart a tail looks for the file its position belongs to: at the path, then by inode, then by
 * content among the rotated files. A file that is nowhere is a gap; a directory or file that cannot be read is tried again. Runs on the source's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/tail.h"

#define NAME_LEN_PLAIN 190 /* longer position names are cut and end in a hash; leaves room for "#rotated:DEV:INO" */
static const char rotated_mark[] = "#rotated:";

void tail_position_name(char name[POSITION_NAME_MAX], enum event_stream stream, const char *path)
{
	int len = snprintf(name, POSITION_NAME_MAX, "file:%s:%s", event_stream_name(stream), path);

	if (len > NAME_LEN_PLAIN)
		snprintf(name + NAME_LEN_PLAIN - 17, 18, "~%016llx", (unsigned long long)tail_hash(path, strlen(path)));
}

/* The path in a position's name; NULL: it was cut. */
static const char *path_of_name(const struct source_files *source, const char *name)
{
	size_t len = 5 + strlen(event_stream_name(source->stream)) + 1;

	return strlen(name) < NAME_LEN_PLAIN ? name + len : NULL;
}

static struct tail **index_slot(struct source_files *source, const char *path)
{
	size_t at = (size_t)tail_hash(path, strlen(path)) % TAIL_INDEX_SIZE;

	while (source->path_index[at] && strcmp(source->path_index[at]->path, path) != 0)
		at = (at + 1) % TAIL_INDEX_SIZE;
	return &source->path_index[at];
}

static struct tail *new_tail(struct source_files *source, const char *path)
{
	struct tail *tail = source->n_tails < TAILS_MAX ? calloc(1, sizeof(*tail)) : NULL;
	const char *slash = strrchr(path, '/');

	if (!tail)
		return NULL;
	tail->path = strdup(path);
	if (!tail->path) {
		free(tail);
		return NULL;
	}
	tail->dir_len = slash ? (size_t)(slash - path) + 1 : 0;
	tail->file.fd = -1;
	tail->watch = -1;
	tail->state = TAIL_ROTATED;
	tail->after_ns = INT64_MAX;
	tail->dirty = 1;
	tail->position.last_time_us = INT64_MIN;
	source->tails[source->n_tails++] = tail;
	return tail;
}

struct tail *tail_add(struct source_files *source, const char *path, const char *position_name)
{
	struct tail *tail = new_tail(source, path);

	if (!tail)
		return NULL;
	if (position_name)
		snprintf(tail->position.name, sizeof(tail->position.name), "%s", position_name);
	else
		tail_position_name(tail->position.name, source->stream, path);
	tail_watch_dir(source, path, tail->dir_len);
	return tail;
}

struct tail *tail_add_late(struct source_files *source, struct tail *tail)
{
	struct tail *late = new_tail(source, tail->path);
	size_t len;

	if (!late)
		return NULL;
	len = (size_t)snprintf(late->position.name, sizeof(late->position.name), "%s", tail->position.name);
	snprintf(late->position.name + len, sizeof(late->position.name) - len, "%s%llu:%llu", rotated_mark,
	         (unsigned long long)tail->position.device, (unsigned long long)tail->position.inode);
	late->state = TAIL_LATE;
	late->file = tail->file;
	late->watch = tail->watch;
	tail->file.fd = -1;
	tail->watch = -1;
	late->position.device = tail->position.device;
	late->position.inode = tail->position.inode;
	late->position.offset = tail->position.offset;
	late->position.marker = tail->position.marker;
	late->position.marker_len = tail->position.marker_len;
	late->position.mark_time_ns = tail->position.mark_time_ns;
	memcpy(late->marker, tail->marker, sizeof(late->marker));
	late->checked_size = tail->checked_size;
	late->changed_us = tail_now_us();
	tail_announce(source, late);
	return late;
}

void tail_free(struct tail *tail)
{
	if (!tail)
		return;
	tail_close_file(&tail->file);
	for (uint32_t i = 0; i < tail->n_next; i++)
		tail_close_file(&tail->next[i]);
	free(tail->skip_head);
	free(tail->path);
	free(tail);
}

void tail_bring_home(struct source_files *source, const struct tail *late)
{
	struct tail *home = *index_slot(source, late->path);
	const struct source_position *from = &late->position;

	if (!home)
		return;
	if (from->lines || from->empty || from->gaps)
		tail_announce(source, home);
	home->position.lines += from->lines;
	home->position.empty += from->empty;
	for (int i = 0; i < REFUSAL_COUNT; i++)
		home->position.refused[i] += from->refused[i];
	home->position.unknown_types += from->unknown_types;
	home->position.gaps += from->gaps;
	home->position.gap_bytes += from->gap_bytes;
	home->position.resets += from->resets;
	if (from->last_time_us > home->position.last_time_us)
		home->position.last_time_us = from->last_time_us;
}

void tail_remove(struct source_files *source, struct tail *tail)
{
	for (size_t i = 0; i < source->n_tails; i++) {
		if (source->tails[i] != tail)
			continue;
		memmove(&source->tails[i], &source->tails[i + 1], (source->n_tails - i - 1) * sizeof(*source->tails));
		source->n_tails--;
		if (source->turn > i)
			source->turn--;
		break;
	}
	tail_drop_buffer(source, tail);
	tail_unwatch_file(source, tail);
	tail_free(tail);
}

static void try_again(struct tail *tail, const char *step, int r)
{
	tail->unplaced = 1;
	tail_set_error(tail, step, -r);
}

static void place_late(struct source_files *source, struct tail *tail)
{
	struct tail_file file;
	int r = tail_find_by_inode(tail, &file, tail->marker);

	if (r == 0) {
		tail_adopt(source, tail, &file, TAIL_LATE);
	} else if (r == -ENOENT) { /* it was read to its end; nothing is known to be missing */
		tail->position.retired = 1;
		tail_announce(source, tail);
	} else {
		try_again(tail, "search", r);
	}
}

/* The position's file is nowhere: what follows starts at 0, and that is said. */
static void place_nowhere(struct source_files *source, struct tail *tail, int truncated)
{
	int compressed = 0;

	tail_list_rotations(source, tail, &compressed);
	tail->position.gaps += !tail->finished;
	tail->position.resets += truncated && !tail->finished;
	if (!tail->finished)
		tail_notice(source, "%s: %s before it was read to the end; bytes may be lost%s", tail->path,
		            truncated ? "truncated or replaced" : "the file read last was removed",
		            compressed ? " (compressed rotations are not read)" : "");
	tail->position.device = 0;
	tail->position.inode = 0;
	tail->position.offset = 0;
	tail->position.marker = 0;
	tail->position.marker_len = 0;
	tail->finished = 0;
	tail_announce(source, tail);
}

/*
 * The position is at 0 of a file that is there, at the path or renamed. Nothing was read of it, so nothing tells whether it was copied and truncated
 * since: rotated files newer than the position, if any, come first, each in its turn, and so does this one.
 */
static void place_at_start(struct tail *tail, const struct tail_file *file, int renamed)
{
	int64_t mark_ns = tail->position.mark_time_ns;

	tail->after_ns = mark_ns > 0 ? mark_ns + 1 : INT64_MAX;
	if (renamed && file->mtime_ns < tail->after_ns)
		tail->after_ns = file->mtime_ns;
	tail->position.device = 0;
	tail->position.inode = 0;
}

/* Not at the path with its inode: by inode in the directory, by content at the path (`live`, which it may take over), by content elsewhere. */
static void place_elsewhere(struct source_files *source, struct tail *tail, struct tail_file *live, int same_inode, int same_content)
{
	struct tail_file found;
	int r = tail_find_by_inode(tail, &found, tail->marker);

	if (r == 0 && tail->position.marker_len == 0) {
		place_at_start(tail, &found, 1);
		tail_close_file(&found);
		return;
	}
	if (r == 0) {
		tail_adopt(source, tail, &found, TAIL_ROTATED);
		return;
	}
	if (r != -ENOENT) {
		try_again(tail, "search", r);
		return;
	}
	if (same_content) { /* another inode with the same content: copied back, or written anew by an editor */
		tail_notice(source, "%s: another file with the same content; reading on at byte %lld", tail->path, (long long)tail->position.offset);
		tail_adopt(source, tail, live, TAIL_LIVE);
		tail_announce(source, tail);
		live->fd = -1;
		return;
	}
	r = tail_find_by_content(source, tail, &found, tail->marker);
	if (r == 0) {
		tail_notice(source, "%s: copied and truncated; its copy is read to the end first", tail->path);
		if (same_inode)
			tail->position.resets++;
		tail_adopt(source, tail, &found, TAIL_ROTATED);
		tail_announce(source, tail);
	} else if (r == -ENOENT) {
		place_nowhere(source, tail, same_inode);
	} else {
		try_again(tail, "search", r);
	}
}

void tail_place(struct source_files *source, struct tail *tail)
{
	struct source_position *position = &tail->position;
	struct tail_file live = {.fd = -1};
	int r, same_inode, match = 0;

	tail->unplaced = 0;
	tail_set_error(tail, NULL, 0);
	if (tail->state == TAIL_LATE) {
		place_late(source, tail);
		return;
	}
	tail->after_ns = position->mark_time_ns > 0 ? position->mark_time_ns : INT64_MAX;
	if (position->device == 0 && position->inode == 0) {
		tail->finished = 0;
		return; /* no file before: whatever is there now starts at 0 */
	}
	r = tail_open_at(AT_FDCWD, tail->path, &live);
	if (r < 0 && r != -ENOENT && r != -EMEDIUMTYPE) {
		try_again(tail, "open", r);
		return;
	}
	same_inode = live.fd >= 0 && live.inode == position->inode;
	if (live.fd >= 0 && (same_inode || position->marker_len >= TAIL_MARKER_TRUSTED))
		match = tail_marker_matches(&live, position, tail->marker);
	if (match < 0) {
		try_again(tail, "read", match);
	} else if (match == 1 && same_inode && position->marker_len == 0) {
		place_at_start(tail, &live, 0);
	} else if (match == 1 && same_inode) {
		tail_adopt(source, tail, &live, TAIL_LIVE);
		live.fd = -1;
	} else {
		place_elsewhere(source, tail, &live, same_inode, match == 1);
	}
	tail_close_file(&live);
}

/* The remembered position of that name; NULL: none. */
static const struct source_position *remembered(const struct source_files *source, const char *name)
{
	for (size_t i = 0; i < source->n_positions; i++)
		if (strcmp(source->positions[i].name, name) == 0)
			return &source->positions[i];
	return NULL;
}

/* Adds the tails of late writes that were being watched for this path. Returns 1 when one of them reads the file of `position`. */
static int restore_late(struct source_files *source, const char *path, const char *name, const struct source_position *position)
{
	size_t len = strlen(name);
	int taken = 0;

	for (size_t i = 0; i < source->n_positions; i++) {
		const struct source_position *late = &source->positions[i];
		struct tail *tail;

		if (strncmp(late->name, name, len) != 0 || strncmp(late->name + len, rotated_mark, sizeof(rotated_mark) - 1) != 0)
			continue;
		tail = tail_add(source, path, late->name);
		if (!tail)
			continue;
		tail->state = TAIL_LATE;
		tail->position = *late;
		tail_place(source, tail);
		/*
		 * The same file, and not only its inode given to another one: either it has just been handed over, or the content at the late
		 * tail's own position was found.
		 */
		if (position && late->inode == position->inode && late->device == position->device)
			taken = taken || (late->offset == position->offset && late->marker == position->marker) ||
			        (late->offset >= position->offset && tail->file.fd >= 0);
	}
	return taken;
}

/* Begins at the end of what is there: behind the last newline. */
static void begin_at_end(struct source_files *source, struct tail *tail)
{
	struct tail_file file;
	char block[4096];
	int64_t at, limit;

	if (tail_open_at(AT_FDCWD, tail->path, &file) < 0)
		return; /* then it appears later, and begins at 0 */
	if (tail_owner(source, &file, tail)) {
		tail_close_file(&file);
		return;
	}
	limit = file.size - (int64_t)source->limits.line_bytes_max - 1;
	tail->position.offset = file.size;
	for (at = file.size; at > 0 && at > limit;) {
		size_t want = at < (int64_t)sizeof(block) ? (size_t)at : sizeof(block);
		ssize_t n = pread(file.fd, block, want, (off_t)(at - (int64_t)want));
		const char *newline = n == (ssize_t)want ? memrchr(block, '\n', want) : NULL;

		at -= (int64_t)want;
		if (newline) {
			tail->position.offset = at + (newline - block) + 1;
			break;
		}
		if (at == 0)
			tail->position.offset = 0;
	}
	tail->position.marker_len = tail->position.offset < source->marker_bytes ? (uint32_t)tail->position.offset : source->marker_bytes;
	if (pread(file.fd, tail->marker, tail->position.marker_len, (off_t)(tail->position.offset - tail->position.marker_len)) !=
	    (ssize_t)tail->position.marker_len)
		tail->position.marker_len = 0;
	tail->position.marker = tail_hash(tail->marker, tail->position.marker_len);
	tail_adopt(source, tail, &file, TAIL_LIVE);
	tail_announce(source, tail);
}

static int matches_a_glob(const struct source_files *source, const char *path)
{
	for (size_t i = 0; i < source->n_globs; i++)
		if (fnmatch(source->globs[i], path, FNM_PATHNAME | FNM_PERIOD) == 0)
			return 1;
	return 0;
}

/* First start: rotated files that a glob names are read before the file at the path. */
static void queue_matching_rotations(struct source_files *source, struct tail *tail)
{
	int n = tail_list_rotations(source, tail, NULL);

	for (int i = 0; i < n && tail->n_next < TAIL_NEXT_MAX - 1; i++) {
		struct tail_file file;
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%.*s%s", (int)tail->dir_len, tail->path, source->listing[i].name);
		if (matches_a_glob(source, path) && tail_open_candidate(tail, &source->listing[i], &file) == 0) {
			if (tail_owner(source, &file, tail))
				tail_close_file(&file);
			else
				tail->next[tail->n_next++] = file;
		}
	}
}

/* A tail for the path, at its remembered position or as a new one. -ENOMEM, or 0. */
static int add_path(struct source_files *source, const char *path)
{
	struct tail **slot = index_slot(source, path);
	const struct source_position *position;
	struct tail *tail;

	if (*slot)
		return 0;
	tail = tail_add(source, path, NULL);
	if (!tail)
		return -ENOMEM;
	*slot = tail;
	position = remembered(source, tail->position.name);
	if (restore_late(source, path, tail->position.name, position)) {
		tail->position = *position;
		tail->finished = 1; /* its file is watched for late writes already */
		tail->unplaced = 1;
	} else if (position) {
		tail->position = *position;
		tail->unplaced = 1;
	} else if (!source->started && source->n_positions == 0) {
		if (source->from_end)
			begin_at_end(source, tail);
		else
			queue_matching_rotations(source, tail);
	}
	return 0;
}

int tail_restore_all(struct source_files *source)
{
	for (size_t i = 0; i < source->n_positions; i++) {
		const char *path = path_of_name(source, source->positions[i].name);

		if (path && !strstr(source->positions[i].name, rotated_mark) && matches_a_glob(source, path) && add_path(source, path) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Is there a tail whose path, rotated, could have this name? Tries every name the rotation could have started from. */
static int is_rotation_of_a_tail(struct source_files *source, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *ext = strrchr(name, '.');
	size_t dir_len = (size_t)(name - path);
	char base[PATH_MAX];

	for (const char *p = name + 1; *p; p++) {
		if (!strchr("-._", *p))
			continue;
		for (int with_ext = 0; with_ext < 2; with_ext++) {
			if (with_ext && (!ext || p >= ext))
				continue;
			snprintf(base, sizeof(base), "%.*s%s", (int)(p - path), path, with_ext ? ext : "");
			if (tail_is_rotation_name(name, base + dir_len) && *index_slot(source, base))
				return 1;
		}
	}
	return 0;
}

static struct source_files *globbing; /* glob(3) gives its error callback no argument */
static pthread_mutex_t glob_lock = PTHREAD_MUTEX_INITIALIZER;

static int note_glob_error(const char *path, int error)
{
	if (error != ENOENT && error != ENOTDIR) {
		globbing->glob_error = error;
		snprintf(globbing->glob_error_path, sizeof(globbing->glob_error_path), "%.190s", path);
	}
	return 0;
}

static int shorter_first(const void *a, const void *b)
{
	size_t x = strlen(*(char *const *)a), y = strlen(*(char *const *)b);

	return x != y ? (x < y ? -1 : 1) : strcmp(*(char *const *)a, *(char *const *)b);
}

void tail_scan_globs(struct source_files *source)
{
	glob_t found = {0};

	pthread_mutex_lock(&glob_lock);
	globbing = source;
	source->glob_error = 0;
	for (size_t i = 0; i < source->n_globs; i++) {
		if (glob(source->globs[i], GLOB_NOSORT | (i > 0 ? GLOB_APPEND : 0), note_glob_error, &found) == GLOB_NOSPACE) {
			source->glob_error = ENOMEM;
			snprintf(source->glob_error_path, sizeof(source->glob_error_path), "%.190s", source->globs[i]);
		}
	}
	globbing = NULL;
	pthread_mutex_unlock(&glob_lock);
	/* A rotated file's name is longer than the one it was rotated from. */
	if (found.gl_pathc > 1)
		qsort(found.gl_pathv, found.gl_pathc, sizeof(*found.gl_pathv), shorter_first);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *path = found.gl_pathv[i];

		struct stat st;

		if (strlen(path) >= PATH_MAX || *index_slot(source, path) || tail_is_compressed_name(path) || is_rotation_of_a_tail(source, path))
			continue;
		if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
			continue;
		if (add_path(source, path) < 0)
			tail_notice(source, "%s: too many files (more than %u), or out of memory", path, TAILS_MAX);
	}
	globfree(&found);
	source->started = 1;
}
