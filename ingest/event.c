/*
 * event.c: the batch that sources fill and the engine applies, and the names of streams and refusals.
 *
 * A batch's arrays are allocated once, with the batch; filling and clearing it never allocates. A batch is owned by one thread at a time:
 * the source's thread while it fills it, then whoever takes it from the queue. No lock here.
 */
#include "ingest/event.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct event_batch *event_batch_new(void)
{
	struct event_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->events = malloc(EVENT_BATCH_EVENTS * sizeof(*batch->events));
	batch->refused = malloc(EVENT_BATCH_REFUSED * sizeof(*batch->refused));
	batch->text = malloc(EVENT_BATCH_TEXT);
	if (!batch->events || !batch->refused || !batch->text) {
		event_batch_free(batch);
		return NULL;
	}
	return batch;
}

void event_batch_free(struct event_batch *batch)
{
	if (!batch)
		return;
	free(batch->events);
	free(batch->refused);
	free(batch->text);
	free(batch);
}

void event_batch_clear(struct event_batch *batch)
{
	batch->n_events = 0;
	batch->n_refused = 0;
	batch->text_len = 0;
	batch->received_us = 0;
	memset(&batch->position, 0, sizeof(batch->position));
}

int event_batch_add_text(struct event_batch *batch, const char *bytes, size_t len, struct event_text *ret_text)
{
	if (len > EVENT_BATCH_TEXT - batch->text_len)
		return -ENOSPC;
	if (len > 0)
		memcpy(batch->text + batch->text_len, bytes, len);
	ret_text->offset = batch->text_len;
	ret_text->len = (uint32_t)len;
	batch->text_len += (uint32_t)len;
	return 0;
}

int event_batch_add_refused(struct event_batch *batch, enum refusal reason, int64_t offset, const char *line, size_t len)
{
	size_t shown = len < REFUSED_TEXT_MAX ? len : REFUSED_TEXT_MAX;
	struct refused_line *refused;
	struct event_text text;

	if (batch->n_refused == EVENT_BATCH_REFUSED || event_batch_add_text(batch, line, shown, &text) < 0)
		return -ENOSPC;
	refused = &batch->refused[batch->n_refused++];
	refused->reason = (uint32_t)reason;
	refused->line_len_shown = (uint32_t)shown;
	refused->offset = offset;
	refused->text = text;
	return 0;
}

const char *event_stream_name(enum event_stream stream)
{
	static const char *const names[STREAM_COUNT] = {
		[STREAM_IMPRESSIONS] = "impressions", [STREAM_EVENTS] = "events", [STREAM_WATCHES] = "watch_stats",
		[STREAM_CATALOGUE] = "catalogue",     [STREAM_USERS] = "users",
	};

	return (unsigned)stream < STREAM_COUNT ? names[stream] : "unknown";
}

const char *refusal_name(enum refusal reason)
{
	static const char *const names[REFUSAL_COUNT] = {
		[REFUSED_JSON] = "json",
		[REFUSED_TOO_LONG] = "too_long",
		[REFUSED_TOO_DEEP] = "too_deep",
		[REFUSED_MISSING_KEY] = "missing_key",
		[REFUSED_DUPLICATE_KEY] = "duplicate_key",
		[REFUSED_WRONG_TYPE] = "wrong_type",
		[REFUSED_BAD_ID] = "bad_id",
		[REFUSED_BAD_TIME] = "bad_time",
		[REFUSED_BAD_COMPLETION] = "bad_completion",
		[REFUSED_BAD_NUMBER] = "bad_number",
	};

	return (unsigned)reason < REFUSAL_COUNT ? names[reason] : "unknown";
}
