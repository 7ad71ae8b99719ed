/*
 * tail_read.c: bytes of a tail's file to lines, lines to the batch.
 *
 * One buffer per source, with DECODE_PADDING bytes behind it, so that lines are decoded where they lie. What a full batch leaves in it is taken by the
 * next poll. After each read the content before the position is compared with what it was: only then is the read believed, so a file that was
 * truncated and has grown past the position again is noticed. A batch is handed on as soon as the buffer holds no more whole lines. Runs on the
 * source's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingest/tail.h"

#define SKIP_PIECES 16 /* of TAIL_READ_BYTES, of a line above the limit, in one poll */

void tail_drop_buffer(struct source_files *source, const struct tail *tail)
{
	if (source->buffer_tail == tail)
		source->buffer_tail = NULL;
}

void tail_finish_batch(struct source_files *source, struct tail *tail, struct event_batch *batch)
{
	tail->position.marker = tail_hash(tail->marker, tail->position.marker_len);
	if (tail->file.fd >= 0 && tail->position.offset > 0) /* at 0 it says when the file was opened */
		tail->position.mark_time_ns = tail->file.mtime_ns;
	batch->stream = (uint32_t)source->stream;
	batch->position = tail->position;
	tail->announce = 0;
	if (batch->received_us == 0)
		batch->received_us = tail_now_us();
}

/* The position moves over `len` bytes that lie at `bytes`; the marker keeps the last of them. */
static void advance(struct source_files *source, struct tail *tail, const char *bytes, size_t len)
{
	size_t max = source->marker_bytes, have = tail->position.marker_len, keep;

	tail->position.offset += (int64_t)len;
	if (len >= max) {
		memcpy(tail->marker, bytes + len - max, max);
		tail->position.marker_len = (uint32_t)max;
		return;
	}
	keep = have + len <= max ? have : max - len;
	memmove(tail->marker, tail->marker + have - keep, keep);
	memcpy(tail->marker + keep, bytes, len);
	tail->position.marker_len = (uint32_t)(keep + len);
}

static void count_event(struct source_position *position, const struct event *event)
{
	if (event->stream <= STREAM_WATCHES && event->time_us > position->last_time_us)
		position->last_time_us = event->time_us;
	if (event->stream == STREAM_EVENTS && event->type == EVENT_OTHER)
		position->unknown_types++;
}

/* One line to the batch. 0; -ENOSPC: the batch is full, nothing happened; -errno. `offset` is the line's start in the file. */
static int take_line(struct source_files *source, struct tail *tail, struct event_batch *batch, const char *line, size_t len, int64_t offset)
{
	int r;

	if (decode_is_empty(line, len)) {
		tail->position.empty++;
		return 0;
	}
	r = decode_line(source->decoder, source->stream, line, len, 1, batch);
	if (r < 0)
		return r;
	if (r > 0) {
		enum refusal reason = (enum refusal)(r - 1);

		r = event_batch_add_refused(batch, reason, offset, line, len);
		if (r < 0)
			return r;
		tail->position.refused[reason]++;
	} else {
		count_event(&tail->position, &batch->events[batch->n_events - 1]);
	}
	tail->position.lines++;
	return 0;
}

/* Takes the buffer's whole lines (with `final`, also what follows the last newline). 0, -ENOSPC: the batch is full, or -errno. */
static int take_lines(struct source_files *source, struct tail *tail, struct event_batch *batch, int final)
{
	size_t start = source->buffer_used, at = start;
	int r = 0;

	while (at < source->buffer_len) {
		const char *line = source->buffer + at;
		const char *newline = memchr(line, '\n', source->buffer_len - at);
		size_t len;

		if (!newline && !final)
			break;
		len = newline ? (size_t)(newline - line) : source->buffer_len - at;
		r = take_line(source, tail, batch, line, len, source->buffer_offset + (int64_t)at);
		if (r < 0)
			break;
		at += len + (newline != NULL);
	}
	source->buffer_used = at;
	advance(source, tail, source->buffer + start, at - start);
	return r;
}

/* Nothing but a position may come of a line of blanks: is there anything to hand on? */
static int has_news(const struct tail *tail, const struct event_batch *batch, int64_t offset_before)
{
	return batch->n_events > 0 || batch->n_refused > 0 || tail->position.offset != offset_before || tail->announce;
}

/* Is the content before the position still what it was? Returns 1, 0, or -errno; also refreshes size and time. */
static int still_the_same(struct tail *tail)
{
	char bytes[TAIL_MARKER_MAX];
	size_t len = tail->position.marker_len;
	ssize_t n;
	int r = tail_refresh(&tail->file);

	if (r < 0)
		return r;
	if (tail->file.size < tail->position.offset || tail->file.size < tail->skip_at)
		return 0;
	if (len == 0)
		return 1;
	n = pread(tail->file.fd, bytes, len, (off_t)(tail->position.offset - (int64_t)len));
	if (n < 0)
		return -errno;
	return (size_t)n == len && memcmp(bytes, tail->marker, len) == 0;
}

/* Reads into the buffer at `offset`, behind what is in it. The number of bytes, 0 at the end, -errno; -ESTALE: truncated (dealt with). */
static ssize_t fill(struct source_files *source, struct tail *tail, int64_t offset)
{
	size_t room = source->buffer_size - source->buffer_len;
	int64_t size = tail->file.size;
	ssize_t n = pread(tail->file.fd, source->buffer + source->buffer_len, room, (off_t)offset);
	int r;

	if (n < 0) {
		r = -errno;
		tail_set_error(tail, "read", errno);
		return r;
	}
	r = still_the_same(tail);
	if (r < 0) {
		tail_set_error(tail, "read", -r);
		return r;
	}
	if (r == 0) {
		tail_truncated(source, tail);
		return -ESTALE;
	}
	if ((n > 0 || tail->file.size < size) && tail_copied_unread(source, tail))
		return -ESTALE;
	if (tail->file.size < size) { /* what this read brought may be of before or after */
		tail_shortened(source, tail, size - tail->file.size);
		return -ESTALE;
	}
	if (tail->file.size != size)
		tail->changed_us = tail_now_us();
	tail->checked_size = tail->file.size;
	source->buffer_read_us = tail_now_us();
	return n;
}

/* The line at the position is above the limit: keep its first bytes and read past the rest in pieces. */
static void begin_skip(struct source_files *source, struct tail *tail)
{
	const char *line = source->buffer + source->buffer_used;
	size_t len = source->buffer_len - source->buffer_used;

	if (!tail->skip_head)
		tail->skip_head = malloc(REFUSED_TEXT_MAX);
	tail->skip_head_len = !tail->skip_head ? 0 : len < REFUSED_TEXT_MAX ? (uint32_t)len : REFUSED_TEXT_MAX;
	if (tail->skip_head_len > 0)
		memcpy(tail->skip_head, line, tail->skip_head_len);
	tail->skip_at = source->buffer_offset + (int64_t)source->buffer_len;
	source->buffer_tail = NULL;
}

/* The end of the long line is at `end` (behind its newline): refuse it, once. */
static int end_skip(struct source_files *source, struct tail *tail, struct event_batch *batch, int64_t end)
{
	size_t len = end < source->marker_bytes ? (size_t)end : source->marker_bytes;
	ssize_t n = pread(tail->file.fd, tail->marker, len, (off_t)(end - (int64_t)len));

	if (n != (ssize_t)len) {
		tail_set_error(tail, "read", n < 0 ? errno : EIO);
		return 0;
	}
	event_batch_add_refused(batch, REFUSED_TOO_LONG, tail->position.offset, tail->skip_head, tail->skip_head_len);
	tail->position.refused[REFUSED_TOO_LONG]++;
	tail->position.lines++;
	tail->position.offset = end;
	tail->position.marker_len = (uint32_t)len;
	tail->skip_at = 0;
	tail_finish_batch(source, tail, batch);
	return 1;
}

/* Goes on reading past a long line. The batch is empty. 1: its end was found and it is in the batch; 0: not yet. */
static int skip_on(struct source_files *source, struct tail *tail, struct event_batch *batch, int64_t now_us)
{
	tail_drop_buffer(source, tail);
	source->buffer_tail = NULL;
	for (int i = 0; i < SKIP_PIECES; i++) {
		const char *newline;
		ssize_t n;

		source->buffer_len = 0;
		n = fill(source, tail, tail->skip_at);
		if (n < 0) {
			tail->dirty = n == -ESTALE;
			return 0;
		}
		if (n == 0) {
			tail->dirty = 0;
			return tail_at_end(source, tail, now_us) ? end_skip(source, tail, batch, tail->skip_at) : 0;
		}
		newline = memchr(source->buffer, '\n', (size_t)n);
		if (newline)
			return end_skip(source, tail, batch, tail->skip_at + (newline - source->buffer) + 1);
		tail->skip_at += n;
	}
	return 0; /* dirty stays: goes on in the next poll */
}

/* Makes the buffer this tail's, with the bytes at its position in front. */
static void own_buffer(struct source_files *source, struct tail *tail)
{
	if (source->buffer_tail == tail && source->buffer_offset + (int64_t)source->buffer_used == tail->position.offset) {
		source->buffer_len -= source->buffer_used;
		memmove(source->buffer, source->buffer + source->buffer_used, source->buffer_len);
	} else {
		source->buffer_len = 0;
	}
	source->buffer_tail = tail;
	source->buffer_offset = tail->position.offset;
	source->buffer_used = 0;
}

int tail_buffer_has_lines(const struct source_files *source, const struct tail *tail)
{
	return source->buffer_tail == tail && source->buffer_offset + (int64_t)source->buffer_used == tail->position.offset &&
	       memchr(source->buffer + source->buffer_used, '\n', source->buffer_len - source->buffer_used) != NULL;
}

/* The end of the file was reached. Returns 1 when an unfinished last line went to the batch. */
static int read_end(struct source_files *source, struct tail *tail, struct event_batch *batch, int64_t now_us)
{
	int r = 0;

	tail->dirty = 0;
	if (!tail_at_end(source, tail, now_us) || source->buffer_tail != tail)
		return 0;
	r = take_lines(source, tail, batch, 1);
	tail->dirty = 1;
	return r < 0 ? r : 1;
}

int tail_read(struct source_files *source, struct tail *tail, struct event_batch *batch, int64_t now_us)
{
	int64_t offset = tail->position.offset;
	int r;

	if (tail->unplaced || tail->position.retired) {
		tail->dirty = 0;
		return 0;
	}
	if (tail->file.fd < 0 || tail->finished) {
		tail->dirty = 0;
		tail_at_end(source, tail, now_us);
		return 0;
	}
	if (tail->skip_at > 0)
		return skip_on(source, tail, batch, now_us);
	if (!tail_buffer_has_lines(source, tail)) {
		ssize_t n;

		own_buffer(source, tail);
		n = fill(source, tail, tail->position.offset + (int64_t)source->buffer_len);
		if (n < 0) {
			tail_drop_buffer(source, tail);
			tail->dirty = n == -ESTALE;
			return 0;
		}
		source->buffer_len += (size_t)n;
		if (n == 0) {
			r = read_end(source, tail, batch, now_us);
			if (r == 1)
				tail_finish_batch(source, tail, batch);
			return r;
		}
	}
	batch->received_us = source->buffer_read_us;
	r = take_lines(source, tail, batch, 0);
	if (r < 0 && r != -ENOSPC)
		return r;
	if (r == 0 && source->buffer_len - source->buffer_used > source->limits.line_bytes_max)
		begin_skip(source, tail);
	if (!has_news(tail, batch, offset))
		return 0;
	tail_finish_batch(source, tail, batch);
	return 1;
}
