/*
 * replay_merge.c: merges the lines of many history files by event time with a binary heap.
 *
 * Main thread of recctl. Each file is `parked` at first: its place in the merge is known from a look at its first line in range, but it is not open. When
 * it comes to the top of the heap it is opened and read from its beginning, now counting. A year of daily files thus needs a few descriptors and buffers.
 * The record handed out lies in its file's buffer, so the file moves on only when the next record is asked for.
 */
#include "daemon/recctl/replay_merge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/recctl/replay_file.h"
#include "ingest/decode.h"

static const struct decode_limits limits = { .line_bytes_max = 1u << 20, .depth_max = 32 };

struct lane {
	struct replay_file *file; /* NULL: parked */
	struct replay_record record;
	int64_t order_us;         /* of its record, or where it is parked */
	uint64_t read_bytes;      /* as added to the sum */
};

struct replay_merge {
	struct replay_merge_config config;
	struct decoder *decoder;
	struct event_batch *batch;
	struct lane *lanes;   /* [n_inputs] */
	uint32_t *heap;       /* [n_heap] indexes of lanes, the first to come at 0 */
	uint32_t n_heap;
	int taken;            /* the record of heap[0] has been handed out */
	uint64_t read_bytes;
	struct replay_counts counts[STREAM_COUNT];
};

static int has_time(enum event_stream stream)
{
	return stream != STREAM_CATALOGUE && stream != STREAM_USERS;
}

static int comes_before(const struct replay_merge *merge, uint32_t a, uint32_t b)
{
	int64_t time_a = merge->lanes[a].order_us, time_b = merge->lanes[b].order_us;

	return time_a != time_b ? time_a < time_b : a < b;
}

static void sift_down(struct replay_merge *merge, uint32_t at)
{
	uint32_t moving = merge->heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= merge->n_heap)
			break;
		if (child + 1 < merge->n_heap && comes_before(merge, merge->heap[child + 1], merge->heap[child]))
			child++;
		if (!comes_before(merge, merge->heap[child], moving))
			break;
		merge->heap[at] = merge->heap[child];
		at = child;
	}
	merge->heap[at] = moving;
}

/* Decodes a line into the record. 1: in range; 0: out of range; -1 - enum refusal: refused. */
static int take_line(struct replay_merge *merge, uint32_t index, const struct replay_line *line, struct replay_record *ret_record)
{
	enum event_stream stream = merge->config.inputs[index].stream;
	const struct event *event = merge->batch->events;

	if (!line->text)
		return -1 - REFUSED_TOO_LONG;
	event_batch_clear(merge->batch);
	merge->batch->stream = stream;
	int rc = decode_line(merge->decoder, stream, line->text, line->len, 1, merge->batch);
	if (rc)
		return rc > 0 ? -rc : -1 - REFUSED_TOO_LONG; /* -ENOSPC cannot be: an empty batch takes the longest line */
	*ret_record = (struct replay_record){ .input = index, .stream = stream, .text = line->text, .len = line->len, .offset = line->offset,
		                              .key = stream == STREAM_CATALOGUE ? event->item_id : event->user_id,
		                              .time_us = has_time(stream) ? event->time_us : INT64_MIN };
	return !has_time(stream) || (event->time_us >= merge->config.from_us && event->time_us < merge->config.to_us);
}

/* The next line in range of a file. `counts` NULL: only a look. 1, 0 at the end, -errno. */
static int next_in_range(struct replay_merge *merge, uint32_t index, struct replay_file *file, struct replay_counts *counts, struct replay_record *ret_record,
                         char *errstr, size_t errstr_size)
{
	struct replay_counts ignored = { 0 };
	struct replay_line line;
	int rc;

	if (!counts)
		counts = &ignored;
	while ((rc = replay_file_next(file, &line, errstr, errstr_size)) > 0) {
		if (line.text && decode_is_empty(line.text, line.len)) {
			counts->empty++;
			continue;
		}
		counts->lines++;
		int taken = take_line(merge, index, &line, ret_record);
		if (taken > 0)
			return 1;
		if (!taken) {
			counts->out_of_range++;
			continue;
		}
		counts->refused[-taken - 1]++;
		if (counts != &ignored && merge->config.refused)
			merge->config.refused(merge->config.ctx, merge->config.inputs[index].path, line.number, (enum refusal)(-taken - 1));
	}
	return rc;
}

/* Where a file stands in the merge before it is read. */
static int park(struct replay_merge *merge, uint32_t index, char *errstr, size_t errstr_size)
{
	const struct replay_input *input = &merge->config.inputs[index];
	struct replay_record record;
	struct replay_file *file = NULL;

	merge->lanes[index].order_us = INT64_MIN;
	if (!has_time(input->stream))
		return 0;
	int rc = replay_file_open(input->path, limits.line_bytes_max, &file, errstr, errstr_size);
	if (rc)
		return rc;
	rc = next_in_range(merge, index, file, NULL, &record, errstr, errstr_size);
	replay_file_close(file);
	if (rc < 0)
		return rc;
	merge->lanes[index].order_us = rc ? record.time_us : INT64_MAX; /* nothing in range: read last, to count it */
	return 0;
}

/* Moves the lane at the top of the heap to its next record, opening it when it was parked. 0 or -errno. */
static int advance_top(struct replay_merge *merge, char *errstr, size_t errstr_size)
{
	uint32_t index = merge->heap[0];
	const struct replay_input *input = &merge->config.inputs[index];
	struct lane *lane = &merge->lanes[index];
	int rc = lane->file ? 0 : replay_file_open(input->path, limits.line_bytes_max, &lane->file, errstr, errstr_size);

	if (!rc)
		rc = next_in_range(merge, index, lane->file, &merge->counts[input->stream], &lane->record, errstr, errstr_size);
	if (rc < 0)
		return rc;
	uint64_t read_bytes = replay_file_read_bytes(lane->file);
	merge->read_bytes += read_bytes - lane->read_bytes;
	lane->read_bytes = read_bytes;
	if (rc) {
		if (lane->record.time_us > lane->order_us)
			lane->order_us = lane->record.time_us;
		lane->record.order_us = lane->order_us;
	} else {
		replay_file_close(lane->file);
		lane->file = NULL;
		merge->heap[0] = merge->heap[--merge->n_heap];
	}
	if (merge->n_heap)
		sift_down(merge, 0);
	return 0;
}

int replay_merge_next(struct replay_merge *merge, struct replay_record *ret_record, char *errstr, size_t errstr_size)
{
	int rc = 0;

	if (merge->taken)
		rc = advance_top(merge, errstr, errstr_size);
	merge->taken = 0;
	while (!rc && merge->n_heap && !merge->lanes[merge->heap[0]].file)
		rc = advance_top(merge, errstr, errstr_size);
	if (rc)
		return rc;
	if (!merge->n_heap)
		return 0;
	*ret_record = merge->lanes[merge->heap[0]].record;
	merge->taken = 1;
	return 1;
}

int replay_merge_open(const struct replay_merge_config *config, struct replay_merge **ret_merge, char *errstr, size_t errstr_size)
{
	struct replay_merge *merge = calloc(1, sizeof(*merge));
	int rc = -ENOMEM;

	if (!merge)
		goto fail;
	merge->config = *config;
	merge->decoder = decoder_new(&limits);
	merge->batch = event_batch_new();
	merge->lanes = calloc(config->n_inputs + 1, sizeof(*merge->lanes));
	merge->heap = calloc(config->n_inputs + 1, sizeof(*merge->heap));
	if (!merge->decoder || !merge->batch || !merge->lanes || !merge->heap)
		goto fail;
	rc = 0;
	for (uint32_t i = 0; !rc && i < config->n_inputs; i++) {
		rc = park(merge, i, errstr, errstr_size);
		merge->heap[i] = i;
	}
	if (rc)
		goto fail;
	merge->n_heap = config->n_inputs;
	for (uint32_t i = merge->n_heap / 2; i-- > 0;)
		sift_down(merge, i);
	*ret_merge = merge;
	return 0;
fail:
	if (rc == -ENOMEM)
		snprintf(errstr, errstr_size, "out of memory");
	replay_merge_close(merge);
	return rc;
}

void replay_merge_close(struct replay_merge *merge)
{
	if (!merge)
		return;
	for (uint32_t i = 0; merge->lanes && i < merge->config.n_inputs; i++)
		replay_file_close(merge->lanes[i].file);
	free(merge->heap);
	free(merge->lanes);
	event_batch_free(merge->batch);
	decoder_free(merge->decoder);
	free(merge);
}

const struct replay_counts *replay_merge_counts(const struct replay_merge *merge, enum event_stream stream)
{
	return &merge->counts[stream];
}

uint64_t replay_merge_read_bytes(const struct replay_merge *merge)
{
	return merge->read_bytes;
}
