/*
 * tail_rotate.c: looking again at the file a tail reads, and moving on to the next one.
 *
 * Every check (periodic, or when inotify saw something) asks: is it still the file at the path, is the content before the position still the same,
 * which files follow. All conclusions change the tail's position only, which leaves with the next batch; so a crash before that repeats the same
 * conclusions from the same files. Runs on the source's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ingest/tail.h"

void tail_notice(struct source_files *source, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(source->notice, sizeof(source->notice), format, args);
	va_end(args);
	source->notice_until_us = tail_now_us() + TAIL_NOTICE_US;
}

void tail_announce(struct source_files *source, struct tail *tail)
{
	tail->announce = 1;
	source->announcing = 1;
}

void tail_set_error(struct tail *tail, const char *step, int error)
{
	tail->error = error;
	tail->error_step = step;
}

/* When the file was last changed, on our clock. */
static int64_t changed_on_our_clock(const struct tail_file *file)
{
	struct timespec now;
	int64_t age_us;

	clock_gettime(CLOCK_REALTIME, &now);
	age_us = ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - file->mtime_ns) / 1000;
	if (age_us < 0)
		age_us = 0;
	if (age_us > TAIL_DELETED_HOLD_US)
		age_us = TAIL_DELETED_HOLD_US;
	return tail_now_us() - age_us;
}

void tail_adopt(struct source_files *source, struct tail *tail, const struct tail_file *file, enum tail_state state)
{
	tail_drop_buffer(source, tail);
	tail_unwatch_file(source, tail);
	tail_close_file(&tail->file);
	tail->file = *file;
	tail->state = state;
	tail->position.device = file->device;
	tail->position.inode = file->inode;
	tail->position.mark_time_ns = file->mtime_ns;
	tail->checked_size = file->size;
	tail->changed_us = changed_on_our_clock(file);
	tail->skip_at = 0;
	tail->dirty = 1;
	tail_watch_file(source, tail);
}

void tail_start_over(struct source_files *source, struct tail *tail)
{
	tail_drop_buffer(source, tail);
	tail->position.offset = 0;
	tail->position.marker = 0;
	tail->position.marker_len = 0;
	tail->skip_at = 0;
	tail->dirty = 1;
}

void tail_truncated(struct source_files *source, struct tail *tail)
{
	struct tail_file copy;
	int64_t lost;

	if (tail->state == TAIL_LATE) { /* what it was watched for is gone with its content */
		tail->position.retired = 1;
		tail_announce(source, tail);
		return;
	}
	tail->position.resets++;
	if (tail_find_by_content(source, tail, &copy, tail->marker) == 0) {
		tail_notice(source, "%s: copied and truncated; its copy is read to the end first", tail->path);
		tail_adopt(source, tail, &copy, TAIL_ROTATED);
		tail_announce(source, tail);
		tail_collect_next(source, tail);
		return;
	}
	lost = tail->checked_size - tail->position.offset;
	tail->position.gaps++;
	tail->position.gap_bytes += lost > 0 ? (uint64_t)lost : 0;
	tail_notice(source, "%s: truncated, and no copy of it was found; reading from 0, bytes may be lost (%lld known)", tail->path,
	            (long long)(lost > 0 ? lost : 0));
	tail_start_over(source, tail);
	tail->position.mark_time_ns = tail->file.mtime_ns;
	tail->checked_size = tail->file.size;
	tail_announce(source, tail);
}

static int is_in_next(const struct tail *tail, uint64_t device, uint64_t inode)
{
	for (uint32_t i = 0; i < tail->n_next; i++)
		if (tail->next[i].inode == inode && tail->next[i].device == device)
			return 1;
	return 0;
}

/* Appends the rotated files that are newer than the tail's own. 0, or -errno: something is in the way, or changed meanwhile; look again. */
static int collect_rotations(struct source_files *source, struct tail *tail)
{
	int64_t after_ns = tail->file.fd >= 0 ? tail->file.mtime_ns : tail->after_ns;
	int n = tail_list_rotations(source, tail, NULL), first = 0;

	if (n < 0) {
		tail_set_error(tail, "search", -n);
		return n;
	}
	/* If its own name is in the list, those behind it are newer. Else time alone decides, and of equal times all are taken. */
	for (int i = 0; i < n; i++)
		if (source->listing[i].inode == tail->position.inode && source->listing[i].device == tail->position.device)
			first = i + 1;
	for (int i = first; i < n; i++) {
		const struct tail_candidate *candidate = &source->listing[i];
		struct tail_file file;
		int r;

		if (candidate->mtime_ns < after_ns || is_in_next(tail, candidate->device, candidate->inode) ||
		    (candidate->inode == tail->position.inode && candidate->device == tail->position.device))
			continue;
		if (tail->n_next == TAIL_NEXT_MAX)
			return -ENOSPC; /* the rest when these are read */
		r = tail_open_candidate(tail, candidate, &file);
		if (r < 0) {
			if (r != -ENOENT && r != -ESTALE)
				tail_set_error(tail, "open", -r);
			return r;
		}
		if (tail_owner(source, &file, tail))
			tail_close_file(&file);
		else
			tail->next[tail->n_next++] = file;
	}
	return 0;
}

/* The file at the path, unless somebody reads it already. fd -1: none. -errno: it is there and cannot be opened. */
static int open_live(struct source_files *source, struct tail *tail, struct tail_file *ret_file)
{
	int r = tail_open_at(AT_FDCWD, tail->path, ret_file);

	if (r < 0) {
		ret_file->fd = -1;
		if (r == -ENOENT)
			return 0;
		tail_set_error(tail, "open", -r);
		return r;
	}
	if (tail_same_file(ret_file, &tail->position) || tail_owner(source, ret_file, tail))
		tail_close_file(ret_file);
	return 0;
}

static void count_next(struct tail *tail)
{
	tail->next_bytes = 0;
	for (uint32_t i = 0; i < tail->n_next; i++)
		tail->next_bytes += tail->next[i].size;
}

/* Takes the file at the path out of `next`: rotated files found meanwhile come before it. Returns 1 when it was there. */
static int take_live_out(struct tail *tail, const struct tail_file *live)
{
	for (uint32_t i = 0; i < tail->n_next; i++) {
		if (live->fd < 0 || tail->next[i].inode != live->inode || tail->next[i].device != live->device)
			continue;
		tail_close_file(&tail->next[i]); /* `live` holds it open */
		memmove(&tail->next[i], &tail->next[i + 1], (tail->n_next - i - 1) * sizeof(tail->next[0]));
		tail->n_next--;
		return 1;
	}
	return 0;
}

void tail_collect_next(struct source_files *source, struct tail *tail)
{
	struct stat st;

	for (int i = 0; i < 5; i++) {
		struct tail_file live;
		int r, known, still;

		if (open_live(source, tail, &live) < 0)
			return;
		known = take_live_out(tail, &live);
		r = collect_rotations(source, tail);
		still = live.fd < 0 || (stat(tail->path, &st) == 0 && (uint64_t)st.st_ino == live.inode && (uint64_t)st.st_dev == live.device);
		/* Rotated meanwhile, it is newer than all that were listed; the next round finds what is at the path now. */
		if (live.fd >= 0 && (r == 0 || known) && !is_in_next(tail, live.device, live.inode) && tail->n_next < TAIL_NEXT_MAX)
			tail->next[tail->n_next++] = live;
		else
			tail_close_file(&live);
		count_next(tail);
		if ((r == 0 && still) || (r < 0 && r != -ESTALE && r != -ENOENT))
			return;
	}
}

static void shift_next(struct tail *tail)
{
	tail->n_next--;
	memmove(&tail->next[0], &tail->next[1], tail->n_next * sizeof(tail->next[0]));
	count_next(tail);
}

/* The file just read may be a copy of the next one, which is about to be truncated: then the next one goes on where the copy ends. */
static int next_goes_on(const struct tail *tail)
{
	char marker[TAIL_MARKER_MAX];

	return tail->n_next > 0 && tail->position.inode != 0 && tail->position.marker_len >= TAIL_MARKER_TRUSTED &&
	       tail_marker_matches(&tail->next[0], &tail->position, marker) == 1;
}

/* From the finished file to the first of those that follow. */
static void move_on(struct source_files *source, struct tail *tail)
{
	struct tail_file next = tail->next[0];
	struct stat st;
	int64_t before_ns = tail->position.mark_time_ns;
	int goes_on = next_goes_on(tail);

	shift_next(tail);
	if (tail->file.fd >= 0 && !goes_on && !tail->finished)
		tail_add_late(source, tail);
	tail->finished = 0;
	tail_adopt(source, tail, &next, TAIL_ROTATED);
	if (!goes_on)
		tail_start_over(source, tail);
	/* What is no newer than the file just read is known. (While ext4 truncates, the size is 0 already and the time still the old one.) */
	if (tail->position.mark_time_ns < before_ns)
		tail->position.mark_time_ns = before_ns;
	if (tail->n_next == 0 && stat(tail->path, &st) == 0 && (uint64_t)st.st_ino == next.inode && (uint64_t)st.st_dev == next.device)
		tail->state = TAIL_LIVE;
}

/* A deleted file that nobody wrote to for long: let it go. */
static void let_go(struct source_files *source, struct tail *tail)
{
	tail_start_over(source, tail);
	tail_unwatch_file(source, tail);
	tail_close_file(&tail->file);
	tail->after_ns = tail->position.mark_time_ns;
	tail->position.device = 0;
	tail->position.inode = 0;
	tail->dirty = 0;
	tail_announce(source, tail);
}

static int late_at_end(struct source_files *source, struct tail *tail, int64_t silent_us, int partial)
{
	if (silent_us < source->late_wait_us)
		return 0;
	if (partial)
		return 1;
	tail->position.retired = 1;
	tail_announce(source, tail);
	return 0;
}

int tail_at_end(struct source_files *source, struct tail *tail, int64_t now_us)
{
	int open = tail->file.fd >= 0 && !tail->finished;
	int64_t silent_us = now_us - tail->changed_us;
	int silent = !open || silent_us >= source->rotate_wait_us;
	int partial = open && tail->file.size > tail->position.offset;
	int let = open && tail->file.links == 0 && silent_us >= TAIL_DELETED_HOLD_US;
	struct tail_file next;

	if (tail->state == TAIL_LIVE || tail->unplaced)
		return 0;
	if (tail->state == TAIL_LATE)
		return late_at_end(source, tail, silent_us, partial);
	if (partial && (!silent || (tail->n_next == 0 && !let)))
		return 0;
	if (partial && next_goes_on(tail)) {
		move_on(source, tail); /* a copy that stopped within a line: the line is whole there */
		return 0;
	}
	if (partial)
		return 1;
	if (tail->error)
		return 0; /* something that belongs before the next file may not be readable */
	while (tail->n_next > 1 && tail->next[0].size == 0 && silent) {
		if (tail_refresh(&tail->next[0]) == 0 && tail->next[0].size > 0)
			break;
		tail_close_file(&tail->next[0]);
		shift_next(tail);
	}
	if (tail->n_next == 0) {
		if (let)
			let_go(source, tail);
		return 0;
	}
	next = tail->next[0];
	if (tail_refresh(&next) < 0)
		return 0;
	if (open && tail->n_next == 1 && next.size == 0 && !silent)
		return 0; /* the writer has not moved to it yet */
	tail_collect_next(source, tail); /* what was rotated or copied since the last look may come before it */
	if (tail->error || tail->n_next == 0)
		return 0;
	if (open && (tail_refresh(&tail->file) < 0 || tail->file.size != tail->position.offset)) {
		tail->changed_us = now_us;
		tail->dirty = 1;
		return 0;
	}
	move_on(source, tail);
	return 0;
}

int tail_copied_unread(struct source_files *source, struct tail *tail)
{
	int n, newer = 0;

	if (tail->state != TAIL_LIVE || tail->position.marker_len > 0)
		return 0;
	n = tail_list_rotations(source, tail, NULL);
	for (int i = 0; i < n; i++) {
		const struct tail_candidate *candidate = &source->listing[i];
		struct tail_file file = {.fd = -1, .device = candidate->device, .inode = candidate->inode};

		newer = newer || (candidate->mtime_ns > tail->position.mark_time_ns && !tail_same_file(&file, &tail->position) &&
		                  !tail_owner(source, &file, tail));
	}
	if (!newer)
		return 0;
	tail_notice(source, "%s: copied before anything was read of it; its copy is read first", tail->path);
	tail_start_over(source, tail);
	tail_unwatch_file(source, tail);
	tail_close_file(&tail->file);
	tail->after_ns = tail->position.mark_time_ns + 1;
	tail->position.device = 0;
	tail->position.inode = 0;
	tail->state = TAIL_ROTATED;
	tail_collect_next(source, tail);
	return 1;
}

void tail_shortened(struct source_files *source, struct tail *tail, int64_t bytes)
{
	tail->position.gaps++;
	tail->position.gap_bytes += (uint64_t)bytes;
	tail_notice(source, "%s: %lld bytes were cut off before they were read", tail->path, (long long)bytes);
	tail_drop_buffer(source, tail);
	tail_announce(source, tail);
}

/* The file itself: size, time, content. Returns 0 when there is nothing more to ask in this check. */
static int check_file(struct source_files *source, struct tail *tail, int64_t now_us)
{
	int64_t size = tail->file.size, mtime_ns = tail->file.mtime_ns;
	char marker[TAIL_MARKER_MAX];
	int r = tail_refresh(&tail->file);

	if (r < 0) {
		tail_set_error(tail, "stat", -r);
		return 0;
	}
	if (tail->file.size != size || tail->file.mtime_ns != mtime_ns) {
		tail->changed_us = now_us;
		tail->dirty = 1;
		r = tail->file.size < tail->skip_at ? 0 : tail_marker_matches(&tail->file, &tail->position, marker);
		if (r < 0) {
			tail_set_error(tail, "read", -r);
			return 0;
		}
		if (r == 0) {
			tail_truncated(source, tail);
			return 0;
		}
		if (tail->file.size < size && tail_copied_unread(source, tail))
			return 0;
		if (tail->file.size < size)
			tail_shortened(source, tail, size - tail->file.size);
		tail->checked_size = tail->file.size;
	}
	return 1;
}

void tail_check(struct source_files *source, struct tail *tail, int64_t now_us)
{
	struct stat st;
	int here;

	if (tail->unplaced) {
		tail_place(source, tail);
		if (tail->unplaced)
			return;
	}
	if (tail->error) { /* try what failed again */
		tail_set_error(tail, NULL, 0);
		tail->dirty = 1;
	}
	if (tail->file.fd >= 0 && !tail->finished && !check_file(source, tail, now_us))
		return;
	if (tail->state == TAIL_LATE) {
		tail->dirty = 1;
		return;
	}
	here = stat(tail->path, &st) == 0;
	if (!here && errno != ENOENT) {
		tail_set_error(tail, "stat", errno);
		return;
	}
	here = here && tail->file.fd >= 0 && (uint64_t)st.st_ino == tail->file.inode && (uint64_t)st.st_dev == tail->file.device;
	if (here && tail->n_next == 0) {
		tail->state = TAIL_LIVE;
	} else if (tail->state == TAIL_LIVE) {
		tail->state = TAIL_ROTATED;
		tail->changed_us = now_us;
	}
	if (tail->state == TAIL_ROTATED) {
		tail_collect_next(source, tail);
		tail->dirty = 1;
	}
}
