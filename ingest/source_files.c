/*
 * source_files.c: the source that tails JSON Lines files, one per stream; see tail.h for its parts.
 *
 * poll() runs on the source's own thread and owns everything here but the status, which has its own mutex, and the wake-up eventfd. It looks at
 * all files when inotify says that something happened and at least every stat_interval_ms (inotify misses network file systems, and its queue may
 * overflow). Nothing is waited for while there is something to hand on: a batch holds what one read found, be it a single line.
 * Incidents are in the status for a minute, errors for as long as they last; every failed step is tried again at the next look.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "ingest/tail.h"

#define RESCAN_GAP_US 5000 /* at least so long between two looks, and ten times as long as the last one took */

static const struct source_ops files_ops;

int64_t tail_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- inotify ---- */

void tail_watch_file(struct source_files *source, struct tail *tail)
{
	char path[64];

	if (source->inotify_fd < 0 || tail->file.fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", tail->file.fd); /* the open file, whatever its name is by now */
	tail->watch = inotify_add_watch(source->inotify_fd, path, IN_MODIFY);
}

void tail_unwatch_file(struct source_files *source, struct tail *tail)
{
	if (tail->watch >= 0)
		inotify_rm_watch(source->inotify_fd, tail->watch);
	tail->watch = -1;
}

void tail_watch_dir(struct source_files *source, const char *path, size_t len)
{
	struct watched_dir *dirs;
	char *dir;

	if (source->inotify_fd < 0)
		return;
	for (size_t i = 0; i < source->n_dirs; i++)
		if (strncmp(source->dirs[i].path, path, len) == 0 && source->dirs[i].path[len] == '\0')
			return;
	dir = strndup(path, len);
	dirs = dir ? realloc(source->dirs, (source->n_dirs + 1) * sizeof(*dirs)) : NULL;
	if (!dirs) {
		free(dir);
		return;
	}
	source->dirs = dirs;
	dirs[source->n_dirs].path = dir;
	dirs[source->n_dirs].watch = -1;
	source->n_dirs++;
	source->rescan = 1;
}

/* (Re)arms the watches of directories: one that did not exist may have appeared. Adding a watch again is harmless. */
static void watch_dirs(struct source_files *source)
{
	for (size_t i = 0; i < source->n_dirs; i++)
		source->dirs[i].watch = inotify_add_watch(source->inotify_fd, source->dirs[i].path[0] ? source->dirs[i].path : ".",
		                                          IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR);
}

static void note_event(struct source_files *source, const struct inotify_event *event)
{
	if ((event->mask & IN_Q_OVERFLOW) != 0) {
		source->rescan = 1;
		for (size_t i = 0; i < source->n_tails; i++)
			source->tails[i]->dirty = 1;
		return;
	}
	for (size_t i = 0; i < source->n_tails; i++) {
		if (source->tails[i]->watch == event->wd) {
			source->tails[i]->dirty = 1;
			return;
		}
	}
	if ((event->mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)) != 0)
		source->rescan = 1;
}

static void take_inotify(struct source_files *source)
{
	_Alignas(struct inotify_event) char events[16384];

	if (source->inotify_fd < 0)
		return;
	for (int i = 0; i < 16; i++) { /* bounded: the rest next time */
		ssize_t n = read(source->inotify_fd, events, sizeof(events));

		if (n <= 0)
			return;
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (const struct inotify_event *)(const void *)(events + at);

			note_event(source, event);
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
}

/* ---- polling ---- */

static int look_is_due(const struct source_files *source, int64_t now_us)
{
	return now_us >= source->next_check_us || (source->rescan && now_us >= source->rescan_at_us);
}

static void look_at_all(struct source_files *source)
{
	int64_t start_us = tail_now_us(), took_us;

	source->rescan = 0;
	if (source->inotify_fd >= 0)
		watch_dirs(source);
	tail_scan_globs(source);
	for (size_t i = 0; i < source->n_tails; i++)
		tail_check(source, source->tails[i], start_us);
	took_us = tail_now_us() - start_us;
	source->next_check_us = start_us + source->stat_interval_us;
	source->rescan_at_us = start_us + took_us + (10 * took_us > RESCAN_GAP_US ? 10 * took_us : RESCAN_GAP_US);
}

/* A position that changed without a line. 1: it is in the batch. */
static int deliver_announcement(struct source_files *source, struct event_batch *batch)
{
	if (!source->announcing)
		return 0;
	for (size_t i = 0; i < source->n_tails; i++) {
		struct tail *tail = source->tails[i];

		if (!tail->announce)
			continue;
		tail_finish_batch(source, tail, batch);
		if (tail->position.retired) {
			tail_bring_home(source, tail);
			tail_remove(source, tail);
		}
		return 1;
	}
	source->announcing = 0;
	return 0;
}

/* The next news of any file. 1: it is in the batch; 0: none; -errno. */
static int deliver(struct source_files *source, struct event_batch *batch, int64_t now_us)
{
	int r = deliver_announcement(source, batch);

	for (size_t i = 0; r == 0 && i < source->n_tails; i++) {
		struct tail *tail = source->tails[source->turn % source->n_tails];

		if (tail->dirty)
			r = tail_read(source, tail, batch, now_us);
		if (r == 0 && source->announcing) /* it moved on: that goes out first */
			r = deliver_announcement(source, batch);
		/* the same file goes on while the buffer holds lines of it */
		if (r == 0 || !tail_buffer_has_lines(source, tail))
			source->turn = source->n_tails ? (source->turn + 1) % source->n_tails : 0;
	}
	return r;
}

static int anything_dirty(const struct source_files *source)
{
	for (size_t i = 0; i < source->n_tails; i++)
		if (source->tails[i]->dirty)
			return 1;
	return source->announcing;
}

/* Waits for inotify, a wake-up or `until_us`. Returns 1 when woken. */
static int wait_for_news(struct source_files *source, int64_t until_us, int64_t now_us)
{
	struct pollfd fds[2] = {{.fd = source->wake_fd, .events = POLLIN}, {.fd = source->inotify_fd, .events = POLLIN}};
	int64_t wait_ms = until_us > now_us ? (until_us - now_us + 999) / 1000 : 0;
	uint64_t count;

	if (poll(fds, source->inotify_fd >= 0 ? 2 : 1, wait_ms > INT_MAX ? INT_MAX : (int)wait_ms) <= 0)
		return 0;
	return (fds[0].revents & POLLIN) != 0 && read(source->wake_fd, &count, sizeof(count)) == sizeof(count);
}

static void describe_trouble(struct source_files *source, struct source_status *status, int64_t now_us)
{
	status->degraded = 1;
	for (size_t i = 0; i < source->n_tails; i++) {
		const struct tail *tail = source->tails[i];

		if (tail->error == 0)
			continue;
		snprintf(status->reason, sizeof(status->reason), "%s %.180s: %s; trying again", tail->error_step, tail->path,
		         tail->error == EMEDIUMTYPE ? "not a regular file" : strerror(tail->error));
		return;
	}
	if (source->glob_error)
		snprintf(status->reason, sizeof(status->reason), "search %s: %s; trying again", source->glob_error_path,
		         strerror(source->glob_error));
	else if (now_us < source->notice_until_us)
		memcpy(status->reason, source->notice, sizeof(status->reason));
	else
		status->degraded = 0;
}

static void update_status(struct source_files *source)
{
	struct source_status status = {.lag_records = -1, .last_time_us = INT64_MIN};

	for (size_t i = 0; i < source->n_tails; i++) {
		const struct tail *tail = source->tails[i];

		if (tail->position.last_time_us > status.last_time_us)
			status.last_time_us = tail->position.last_time_us;
		status.lag_bytes += tail->next_bytes;
		if (tail->file.fd < 0)
			continue;
		status.partitions++;
		if (tail->file.size > tail->position.offset)
			status.lag_bytes += tail->file.size - tail->position.offset;
	}
	describe_trouble(source, &status, tail_now_us());
	snprintf(status.name, sizeof(status.name), "files:%s", event_stream_name(source->stream));
	pthread_mutex_lock(&source->lock);
	status.heartbeat = source->status.heartbeat + 1;
	source->status = status;
	pthread_mutex_unlock(&source->lock);
}

static int files_poll(struct source *base, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size)
{
	struct source_files *source = (struct source_files *)base;
	int64_t now_us = tail_now_us(), deadline_us = now_us + (timeout_ms > 0 ? timeout_ms : 0) * INT64_C(1000);
	int r, woken = 0;

	for (;;) {
		take_inotify(source);
		now_us = tail_now_us();
		if (look_is_due(source, now_us))
			look_at_all(source);
		r = deliver(source, batch, now_us);
		if (r != 0 || woken || now_us >= deadline_us)
			break;
		if (!anything_dirty(source)) {
			int64_t until_us = deadline_us < source->next_check_us ? deadline_us : source->next_check_us;

			if (source->rescan && source->rescan_at_us < until_us)
				until_us = source->rescan_at_us;
			woken = wait_for_news(source, until_us, now_us);
		}
	}
	update_status(source);
	if (r < 0) {
		snprintf(errstr, errstr_size, "files:%s: decoding: %s", event_stream_name(source->stream), strerror(-r));
		return r;
	}
	return r > 0 ? 0 : -EAGAIN;
}

static void files_wake(struct source *base)
{
	struct source_files *source = (struct source_files *)base;
	uint64_t one = 1;

	/* Fails only when 2^64 - 2 wakes wait: then it is awake. */
	if (write(source->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void files_status(struct source *base, struct source_status *ret_status)
{
	struct source_files *source = (struct source_files *)base;

	pthread_mutex_lock(&source->lock);
	*ret_status = source->status;
	pthread_mutex_unlock(&source->lock);
}

static void files_close(struct source *base)
{
	struct source_files *source = (struct source_files *)base;

	if (!source)
		return;
	for (size_t i = 0; i < source->n_tails; i++)
		tail_free(source->tails[i]);
	for (size_t i = 0; i < source->n_dirs; i++)
		free(source->dirs[i].path);
	for (size_t i = 0; i < source->n_globs; i++)
		free(source->globs[i]);
	if (source->inotify_fd >= 0)
		close(source->inotify_fd);
	if (source->wake_fd >= 0)
		close(source->wake_fd);
	decoder_free(source->decoder);
	pthread_mutex_destroy(&source->lock);
	free(source->dirs);
	free(source->globs);
	free(source->positions);
	free(source->tails);
	free(source->path_index);
	free(source->buffer);
	free(source->listing);
	free(source);
}

static const struct source_ops files_ops = {
	.kind = "files",
	.poll = files_poll,
	.wake = files_wake,
	.status = files_status,
	.close = files_close,
};

/* Copies what is the caller's. 0 or -ENOMEM. */
static int copy_inputs(struct source_files *source, const struct source_files_config *config, const struct source_position *positions,
                       size_t n_positions)
{
	char prefix[64];
	size_t len = (size_t)snprintf(prefix, sizeof(prefix), "file:%s:", event_stream_name(config->stream));

	source->globs = calloc(config->n_globs, sizeof(*source->globs));
	source->positions = calloc(n_positions + 1, sizeof(*source->positions));
	if (!source->globs || !source->positions)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_globs; i++) {
		source->globs[i] = strdup(config->globs[i]);
		if (!source->globs[i])
			return -ENOMEM;
		source->n_globs++;
	}
	for (size_t i = 0; i < n_positions; i++)
		if (strncmp(positions[i].name, prefix, len) == 0)
			source->positions[source->n_positions++] = positions[i];
	return 0;
}

static int allocate(struct source_files *source)
{
	source->buffer_size = source->limits.line_bytes_max + 1 > TAIL_READ_BYTES ? source->limits.line_bytes_max + (size_t)1 : TAIL_READ_BYTES;
	source->buffer = calloc(1, source->buffer_size + DECODE_PADDING);
	source->tails = calloc(TAILS_MAX, sizeof(struct tail *));
	source->path_index = calloc(TAIL_INDEX_SIZE, sizeof(struct tail *));
	source->listing = calloc(TAIL_LISTING_MAX + 1, sizeof(*source->listing));
	source->decoder = decoder_new(&source->limits);
	source->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (source->wake_fd < 0)
		return -errno;
	return source->buffer && source->tails && source->path_index && source->listing && source->decoder ? 0 : -ENOMEM;
}

static void watch_glob_dirs(struct source_files *source)
{
	for (size_t i = 0; i < source->n_globs; i++) {
		const char *slash = strrchr(source->globs[i], '/');
		size_t len = slash ? (size_t)(slash - source->globs[i]) + 1 : 0;

		if (strcspn(source->globs[i], "*?[") >= len)
			tail_watch_dir(source, source->globs[i], len);
	}
}

static int check_config(const struct source_files_config *config, char *errstr, size_t errstr_size)
{
	if ((unsigned)config->stream >= STREAM_COUNT || config->n_globs == 0) {
		snprintf(errstr, errstr_size, "a file source needs a stream and at least one path");
		return -EINVAL;
	}
	for (size_t i = 0; i < config->n_globs; i++) {
		if (config->globs[i] && config->globs[i][0] != '\0' && strlen(config->globs[i]) < PATH_MAX)
			continue;
		snprintf(errstr, errstr_size, "files:%s: path %zu is empty or longer than %d bytes", event_stream_name(config->stream), i + 1,
		         PATH_MAX - 1);
		return -EINVAL;
	}
	if (config->marker_bytes > TAIL_MARKER_MAX) {
		snprintf(errstr, errstr_size, "files:%s: marker_bytes is above %u", event_stream_name(config->stream), TAIL_MARKER_MAX);
		return -EINVAL;
	}
	return 0;
}

int source_files_open(const struct source_files_config *config, const struct source_position *positions, size_t n_positions,
                      struct source **ret_source, char *errstr, size_t errstr_size)
{
	struct source_files *source;
	int r = check_config(config, errstr, errstr_size);

	if (r < 0)
		return r;
	source = calloc(1, sizeof(*source));
	if (!source) {
		snprintf(errstr, errstr_size, "files:%s: out of memory", event_stream_name(config->stream));
		return -ENOMEM;
	}
	source->source.ops = &files_ops;
	source->stream = config->stream;
	source->from_end = config->from_end;
	source->limits.line_bytes_max = config->limits.line_bytes_max ? config->limits.line_bytes_max : 1u << 20;
	source->limits.depth_max = config->limits.depth_max ? config->limits.depth_max : 32;
	source->marker_bytes = config->marker_bytes ? config->marker_bytes : 64;
	source->stat_interval_us = (int64_t)(config->stat_interval_ms ? config->stat_interval_ms : 1000) * 1000;
	source->rotate_wait_us = 2 * source->stat_interval_us;
	source->late_wait_us = 6 * source->stat_interval_us;
	source->wake_fd = -1;
	pthread_mutex_init(&source->lock, NULL);
	source->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK); /* without it: periodic looks only */
	r = copy_inputs(source, config, positions, n_positions);
	if (r == 0)
		r = allocate(source);
	if (r == 0) {
		watch_glob_dirs(source);
		r = tail_restore_all(source);
	}
	if (r < 0) {
		snprintf(errstr, errstr_size, "files:%s: %s", event_stream_name(config->stream), strerror(-r));
		files_close(&source->source);
		return r;
	}
	tail_scan_globs(source); /* with from_end, what is there now is what is skipped */
	update_status(source);
	source->status.heartbeat = 0;
	*ret_source = &source->source;
	return 0;
}
