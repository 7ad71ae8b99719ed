/*
 * tail_world.h: a directory of log files, a file source on it, and an applier that keeps what a daemon would: positions and which lines came.
 *
 * Line number n is a watch with user_id n, so seen[n] says how often it was delivered. A crash throws away everything since the last cut.
 */
#ifndef TAIL_WORLD_H
#define TAIL_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ingest/decode.h"
#include "ingest/source.h"

#ifndef WORLD_LINES
#define WORLD_LINES 100000
#endif
#define WORLD_POSITIONS 64
#define WORLD_STAT_MS 5

/* What a cut would hold. */
struct world_state {
	struct source_position positions[WORLD_POSITIONS];
	size_t n_positions;
	uint64_t delivered;
	uint64_t refused;
	uint8_t seen[WORLD_LINES]; /* last: a short cut may leave the end of it out */
};

struct world {
	char dir[300];
	char globs[4][400];
	const char *glob_list[4];
	struct source_files_config config;
	struct source *source;
	struct event_batch *batch;
	struct world_state now, cut;
};

static inline void world_die(const char *what)
{
	perror(what);
	abort();
}

static inline const char *world_path(struct world *w, const char *name)
{
	static char paths[8][1200];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	snprintf(path, 1200, "%s/%.800s", w->dir, name);
	return path;
}

static inline void world_open(struct world *w)
{
	char errstr[256] = "";

	if (source_files_open(&w->config, w->now.positions, w->now.n_positions, &w->source, errstr, sizeof(errstr)) < 0) {
		fprintf(stderr, "source_files_open: %s\n", errstr);
		abort();
	}
}

/* A world in a directory of its own, under `parent` (NULL: the temporary directory); the globs are relative to it. */
static inline struct world *world_new(const char *parent, const char *glob, const char *glob2)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *tmp = getenv("TMPDIR");

	if (!w)
		world_die("calloc");
	snprintf(w->dir, sizeof(w->dir), "%s/recd-tail-XXXXXX", parent ? parent : tmp ? tmp : "/tmp");
	if (!mkdtemp(w->dir))
		world_die("mkdtemp");
	w->batch = event_batch_new();
	snprintf(w->globs[0], sizeof(w->globs[0]), "%s/%s", w->dir, glob);
	w->glob_list[0] = w->globs[0];
	w->config.n_globs = 1;
	if (glob2) {
		snprintf(w->globs[1], sizeof(w->globs[1]), "%s/%s", w->dir, glob2);
		w->glob_list[1] = w->globs[1];
		w->config.n_globs = 2;
	}
	w->config.stream = STREAM_WATCHES;
	w->config.globs = w->glob_list;
	w->config.limits.line_bytes_max = 1u << 16;
	w->config.limits.depth_max = 32;
	w->config.stat_interval_ms = WORLD_STAT_MS;
	return w;
}

static inline void world_remove_tree(const char *dir)
{
	DIR *stream = opendir(dir);
	struct dirent *entry;

	while (stream && (entry = readdir(stream)) != NULL) {
		char path[800];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%.400s/%.300s", dir, entry->d_name);
		if (unlink(path) < 0)
			world_remove_tree(path);
	}
	if (stream)
		closedir(stream);
	rmdir(dir);
}

static inline void world_free(struct world *w)
{
	source_close(w->source);
	event_batch_free(w->batch);
	chmod(w->dir, 0700);
	world_remove_tree(w->dir);
	free(w);
}

/* ---- the applier ---- */

static inline void world_add_counters(struct source_position *to, const struct source_position *from)
{
	to->lines += from->lines;
	to->empty += from->empty;
	to->gaps += from->gaps;
	to->gap_bytes += from->gap_bytes;
	to->resets += from->resets;
	for (int i = 0; i < REFUSAL_COUNT; i++)
		to->refused[i] += from->refused[i];
}

static inline struct source_position *world_find(struct world_state *state, const char *name, size_t len)
{
	for (size_t i = 0; i < state->n_positions; i++)
		if (strncmp(state->positions[i].name, name, len) == 0 && state->positions[i].name[len] == '\0')
			return &state->positions[i];
	return NULL;
}

/* As event.h says: a retired position gives its counters to the live name and goes. */
static inline void world_apply_position(struct world_state *state, const struct source_position *position)
{
	struct source_position *known = world_find(state, position->name, strlen(position->name));

	if (position->retired) {
		const char *mark = strstr(position->name, "#rotated:");
		struct source_position *live = mark ? world_find(state, position->name, (size_t)(mark - position->name)) : NULL;

		if (live)
			world_add_counters(live, position);
		if (known)
			*known = state->positions[--state->n_positions];
		return;
	}
	if (!known) {
		if (state->n_positions == WORLD_POSITIONS)
			world_die("too many positions");
		known = &state->positions[state->n_positions++];
	}
	*known = *position;
}

static inline void world_apply(struct world *w)
{
	for (uint32_t i = 0; i < w->batch->n_events; i++) {
		int64_t line = w->batch->events[i].user_id;

		if (line < WORLD_LINES && w->now.seen[line] < 255)
			w->now.seen[line]++;
		w->now.delivered++;
	}
	w->now.refused += w->batch->n_refused;
	world_apply_position(&w->now, &w->batch->position);
}

/* One poll, applied. 1: something came. */
static inline int world_poll(struct world *w, int timeout_ms)
{
	char errstr[256] = "";
	int r;

	event_batch_clear(w->batch);
	r = source_poll(w->source, w->batch, timeout_ms, errstr, sizeof(errstr));
	if (r == -EAGAIN)
		return 0;
	if (r < 0) {
		fprintf(stderr, "source_poll: %s\n", errstr);
		abort();
	}
	world_apply(w);
	return 1;
}

/*
 * Polls until so many polls in a row brought nothing. By count and not by the clock: a test that is scheduled late must not stop early. A poll that brings
 * nothing lasts at least WORLD_POLL_MS, so the looks and the wait for a rotated file fit in.
 */
#define WORLD_POLL_MS 3
#define WORLD_IDLE_POLLS 18
static inline void world_drain(struct world *w)
{
	if (!w->source)
		world_open(w);
	for (int idle = 0; idle < WORLD_IDLE_POLLS; idle++)
		if (world_poll(w, WORLD_POLL_MS))
			idle = -1;
}

static inline void world_stop(struct world *w)
{
	source_close(w->source);
	w->source = NULL;
}

static inline void world_cut(struct world *w)
{
	w->cut = w->now;
}

/* SIGKILL: back to the last cut; the next drain starts anew from there. */
static inline void world_crash(struct world *w)
{
	world_stop(w);
	w->now = w->cut;
}

/* ---- the writer ---- */

static inline size_t world_line(char *out, size_t size, int64_t number)
{
	return (size_t)snprintf(out, size,
	                        "{\"watch_id\":\"w-%lld\",\"user_id\":%lld,\"item_id\":%lld,\"started_at\":\"2025-12-10T12:%02d:%02d+00:00\","
	                        "\"completion\":0.5}\n",
	                        (long long)number, (long long)number, (long long)(number % 97), (int)(number / 60 % 60), (int)(number % 60));
}

static inline void world_write(struct world *w, const char *name, const char *bytes, size_t len)
{
	int fd = open(world_path(w, name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
		world_die(name);
	close(fd);
}

/* Appends lines first..last-1. */
static inline void world_lines(struct world *w, const char *name, int64_t first, int64_t last)
{
	char *bytes = malloc((size_t)(last - first) * 200 + 1);
	size_t len = 0;

	if (!bytes)
		world_die("malloc");
	for (int64_t i = first; i < last; i++)
		len += world_line(bytes + len, 200, i);
	world_write(w, name, bytes, len);
	free(bytes);
}

static inline void world_rename(struct world *w, const char *from, const char *to)
{
	if (rename(world_path(w, from), world_path(w, to)) < 0)
		world_die(from);
}

static inline void world_copy(struct world *w, const char *from, const char *to)
{
	int in = open(world_path(w, from), O_RDONLY | O_CLOEXEC), out = open(world_path(w, to), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	char block[8192];
	ssize_t n;

	if (in < 0 || out < 0)
		world_die(from);
	while ((n = read(in, block, sizeof(block))) > 0)
		if (write(out, block, (size_t)n) != n)
			world_die(to);
	close(in);
	close(out);
}

static inline void world_truncate(struct world *w, const char *name)
{
	if (truncate(world_path(w, name), 0) < 0)
		world_die(name);
}

static inline struct source_position *world_position(struct world *w, const char *name)
{
	char full[POSITION_NAME_MAX];

	snprintf(full, sizeof(full), "file:watch_stats:%.180s", world_path(w, name));
	return world_find(&w->now, full, strlen(full));
}

/* How many of the lines first..last-1 were not seen exactly once. */
static inline int64_t world_wrong(const struct world *w, int64_t first, int64_t last)
{
	int64_t wrong = 0;

	for (int64_t i = first; i < last; i++)
		wrong += w->now.seen[i] != 1;
	return wrong;
}

#endif
