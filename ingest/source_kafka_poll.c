/*
 * source_kafka_poll.c: consuming: records of librdkafka's queue to a batch. Runs on the source's polling thread.
 *
 * Records are taken from the one consumer queue up to KAFKA_PENDING_MAX at a time and wait in `pending`. A batch takes a run of one partition's records; it
 * is handed on when another partition's record comes, when it is full, or when the queue is empty: nothing is waited for while there is something to hand
 * on. A record costs an offset comparison and its decoding: no lock, no allocation, and only the last one of a batch is hashed for the marker.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ingest/source_kafka.h"

#define WAIT_MS_MAX 500 /* things that are due by time are looked at so often */

int64_t kafka_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- pending records ---- */

void kafka_pending_drop(struct source_kafka *source, int32_t id)
{
	size_t kept = source->pending_at;

	for (size_t i = source->pending_at; i < source->pending_n; i++) {
		if (id < 0 || source->pending[i]->partition == id)
			rd_kafka_message_destroy(source->pending[i]);
		else
			source->pending[kept++] = source->pending[i];
	}
	source->pending_n = kept;
}

/* Waits for the first record only; librdkafka would wait until all places are taken. */
static int consume(struct source_kafka *source, int timeout_ms)
{
	ssize_t n = rd_kafka_consume_batch_queue(source->queue, timeout_ms, source->pending, timeout_ms > 0 ? 1 : KAFKA_PENDING_MAX), more;

	if (timeout_ms > 0 && n == 1) {
		more = rd_kafka_consume_batch_queue(source->queue, 0, source->pending + 1, KAFKA_PENDING_MAX - 1);
		n += more > 0 ? more : 0;
	}
	source->pending_at = 0;
	source->pending_n = n > 0 ? (size_t)n : 0;
	kafka_pace_note(source);
	return source->pending_n > 0;
}

static void done_with(struct source_kafka *source, rd_kafka_message_t *message)
{
	source->pending_at++;
	rd_kafka_message_destroy(message);
}

/* ---- what is not a record ---- */

static void take_end(struct source_kafka *source, struct kafka_partition *partition, const rd_kafka_message_t *message)
{
	int64_t missing;

	if (partition->state == KAFKA_VERIFYING && !kafka_partition_verify(source, partition, message))
		return;
	if (partition->state != KAFKA_RUNNING)
		return;
	kafka_set_error(source, partition, RD_KAFKA_RESP_ERR_NO_ERROR);
	switch (kafka_sequence_check(&partition->sequence, message->offset, &missing)) {
	case KAFKA_SEEK:
		kafka_partition_seek_back(source, partition);
		break;
	case KAFKA_TAKE: /* transaction markers and the like at the end of the log */
		if (missing > 0) {
			kafka_partition_hole(source, partition, message->offset, missing);
			partition->announce = source->announcing = 1;
		}
		partition->damaged = 0;
		break;
	case KAFKA_DROP:
		break;
	}
}

static void take_error(struct source_kafka *source, const rd_kafka_message_t *message)
{
	struct kafka_partition *partition = message->rkt ? kafka_partition_of(source, message->partition) : NULL;
	rd_kafka_resp_err_t error = message->err;

	if (partition && error == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		take_end(source, partition, message);
		return;
	}
	if (!partition) { /* the group's, mostly: we take no part in it, and commits report for themselves */
		kafka_log(source, KAFKA_WARNING, "Kafka: %s", rd_kafka_message_errstr(message));
		return;
	}
	if (partition->state == KAFKA_WAITING)
		return;
	switch ((int)error) {
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
	case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		kafka_partition_restart(source, partition, 0);
		break;
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		kafka_set_error(source, partition, error);
		kafka_partition_restart(source, partition, 500000);
		break;
	case RD_KAFKA_RESP_ERR__BAD_MSG: /* librdkafka goes on behind it. (A broker that says INVALID_MSG hands nothing over.) */
		partition->damaged = 1; /* until the records that are next have come */
		partition->sequence.confirmed = 0; /* what is missing now is looked at twice, however many holes there were */
		kafka_set_error(source, partition, error);
		break;
	default: /* librdkafka tries again, but would not say when it succeeds: the marker or the end of the log will */
		kafka_set_error(source, partition, error);
		kafka_partition_restart(source, partition, 1000000);
		break;
	}
	kafka_log(source, KAFKA_WARNING, "Kafka partition %d: %s", partition->id, rd_kafka_message_errstr(message));
}

/* ---- records ---- */

static void count_event(struct source_position *position, const struct event *event)
{
	if (event->stream <= STREAM_WATCHES && event->time_us > position->last_time_us)
		position->last_time_us = event->time_us;
	if (event->stream == STREAM_EVENTS && event->type == EVENT_OTHER)
		position->unknown_types++;
}

/* One record to the batch. 0; -ENOSPC: the batch is full, nothing happened; -errno. */
static int take_record(struct source_kafka *source, struct kafka_partition *partition, const rd_kafka_message_t *message, struct event_batch *batch)
{
	struct source_position *position = &partition->position;
	const char *line = message->payload;
	size_t len = line ? message->len : 0;
	int r;

	while (len > 0 && line[len - 1] == '\n')
		len--;
	if (len == 0 || decode_is_empty(line, len)) {
		position->empty++;
	} else {
		r = decode_line(source->decoder, source->stream, line, len, 0, batch);
		if (r < 0)
			return r;
		if (r > 0) {
			enum refusal reason = (enum refusal)(r - 1);

			r = event_batch_add_refused(batch, reason, message->offset, line, len);
			if (r < 0)
				return r;
			position->refused[reason]++;
		} else {
			count_event(position, &batch->events[batch->n_events - 1]);
		}
		position->lines++;
	}
	partition->sequence.expected = message->offset + 1;
	return 0;
}

static int64_t record_time_ns(const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t type;
	int64_t time_ms = rd_kafka_message_timestamp(message, &type);

	return type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || time_ms < 0 ? 0 : time_ms * 1000000;
}

static void fill_position(struct source_kafka *source, struct kafka_partition *partition, struct event_batch *batch, const rd_kafka_message_t *last)
{
	struct source_position *position = &partition->position;

	position->offset = partition->sequence.expected;
	position->inode = (uint64_t)last->offset;
	position->marker = kafka_record_hash(last->key, last->key_len, last->payload, last->len);
	position->marker_len = 1;
	position->mark_time_ns = record_time_ns(last);
	batch->stream = (uint32_t)source->stream;
	batch->position = *position;
	partition->announce = 0;
	partition->last_record_us = batch->received_us;
	kafka_set_error(source, partition, RD_KAFKA_RESP_ERR_NO_ERROR);
}

/* Is the record that is next in `pending` to be taken? 0: it was dealt with. */
static int is_next(struct source_kafka *source, struct kafka_partition *partition, rd_kafka_message_t *message)
{
	int64_t missing;

	if (!partition || partition->state == KAFKA_WAITING ||
	    (partition->state == KAFKA_VERIFYING && !kafka_partition_verify(source, partition, message))) {
		done_with(source, message);
		return 0;
	}
	switch (kafka_sequence_check(&partition->sequence, message->offset, &missing)) {
	case KAFKA_DROP:
		partition->position.duplicates++;
		done_with(source, message);
		return 0;
	case KAFKA_SEEK:
		kafka_partition_seek_back(source, partition);
		return 0;
	case KAFKA_TAKE:
		break;
	}
	if (missing > 0)
		kafka_partition_hole(source, partition, message->offset, missing);
	partition->damaged = 0;
	return partition->state == KAFKA_RUNNING;
}

/* One partition's run to the batch. 1: the batch holds something; 0: nothing there; -errno. */
static int fill(struct source_kafka *source, struct event_batch *batch, struct kafka_partition **ret_partition)
{
	struct kafka_partition *partition = NULL;
	rd_kafka_message_t *last = NULL;
	int r = 0;

	while (r == 0 && !source->lost[0] && (source->pending_at < source->pending_n || consume(source, 0))) {
		rd_kafka_message_t *message = source->pending[source->pending_at];

		if (message->err) {
			if (partition)
				break;
			source->pending_at++; /* before its partition's records may be dropped */
			take_error(source, message);
			rd_kafka_message_destroy(message);
			continue;
		}
		if (partition && message->partition != partition->id)
			break;
		if (!is_next(source, partition ? partition : kafka_partition_of(source, message->partition), message))
			continue;
		if (!partition) {
			partition = kafka_partition_of(source, message->partition);
			batch->received_us = kafka_now_us();
		}
		r = take_record(source, partition, message, batch);
		if (r == 0) {
			source->pending_at++;
			if (last)
				rd_kafka_message_destroy(last);
			last = message;
		}
	}
	if (!last)
		return r;
	fill_position(source, partition, batch, last);
	rd_kafka_message_destroy(last);
	*ret_partition = partition;
	return 1;
}

static int fail(struct source_kafka *source, int r, char *errstr, size_t errstr_size)
{
	if (r == -EUCLEAN)
		snprintf(errstr, errstr_size, "%s", source->lost);
	else
		snprintf(errstr, errstr_size, "topic \"%s\": %s", source->topic, strerror(-r));
	return r;
}

int kafka_poll(struct source *base, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size)
{
	struct source_kafka *source = (struct source_kafka *)base;
	int64_t deadline_us = kafka_now_us() + (int64_t)timeout_ms * 1000;
	struct kafka_partition *partition = NULL;
	int r;

	for (;;) {
		int64_t left_us;

		kafka_assign_serve(source);
		r = source->lost[0] ? -EUCLEAN : kafka_announce(source, batch);
		if (r == 0)
			r = fill(source, batch, &partition);
		if (r == 0 && source->lost[0])
			r = -EUCLEAN;
		if (r != 0)
			break;
		left_us = deadline_us - kafka_now_us();
		if (source->announcing)
			continue;
		if (left_us <= 0 || atomic_exchange(&source->woken, 0))
			break;
		kafka_publish(source, NULL);
		consume(source, left_us > WAIT_MS_MAX * 1000 ? WAIT_MS_MAX : (int)((left_us + 999) / 1000));
	}
	kafka_publish(source, partition);
	if (r < 0)
		return fail(source, r, errstr, errstr_size);
	return r > 0 ? 0 : -EAGAIN;
}
