/*
 * source_kafka_assign.c: the partitions of the topic: finding them, placing them, proving that the log is still the one the position was taken from, and
 * what to do when it is not. Runs on the source's polling thread; what has to wait for a broker is asked of the scout.
 *
 * A partition begins as KAFKA_WAITING: the scout is asked for its watermarks. With them it is placed: at its position's marker (KAFKA_VERIFYING, until
 * the record there has been compared) or where it begins (KAFKA_RUNNING). Whatever throws doubt on the log (an offset out of range, an unknown topic,
 * brokers that were all gone) sends it back to KAFKA_WAITING, and it is placed and verified again. Lost data is found in place() and
 * kafka_partition_verify(), damaged records in kafka_partition_hole().
 */
#include "ingest/source_kafka.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEK_TIMEOUT_MS 1000
#define RETRY_US 500000
#define SHORT_LOG_ANSWERS 2 /* a leader that has just been elected may not know its whole log yet */
#define FEWER_REPEATS 4     /* nor a broker that has just started all partitions of a topic; answers come half a second apart */

struct kafka_partition *kafka_partition_of(struct source_kafka *source, int32_t id)
{
	return id >= 0 && id < source->n_ids && source->by_id[id] >= 0 ? &source->partitions[source->by_id[id]] : NULL;
}

/* ---- librdkafka's assignment ---- */

static rd_kafka_topic_partition_list_t *list_of(const struct source_kafka *source, int32_t id, int64_t offset)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(list, source->topic, id)->offset = offset;
	return list;
}

static void unassign(struct source_kafka *source, struct kafka_partition *partition)
{
	rd_kafka_topic_partition_list_t *list;

	kafka_pending_drop(source, partition->id);
	if (!partition->assigned)
		return;
	list = list_of(source, partition->id, RD_KAFKA_OFFSET_INVALID);
	rd_kafka_error_destroy(rd_kafka_incremental_unassign(source->rk, list));
	rd_kafka_topic_partition_list_destroy(list);
	partition->assigned = 0;
}

static void assign(struct source_kafka *source, struct kafka_partition *partition, int64_t offset, enum kafka_state state)
{
	rd_kafka_topic_partition_list_t *list = list_of(source, partition->id, offset);
	rd_kafka_error_t *error = rd_kafka_incremental_assign(source->rk, list);

	rd_kafka_topic_partition_list_destroy(list);
	if (error) {
		kafka_log(source, KAFKA_WARNING, "Kafka partition %d: %s", partition->id, rd_kafka_error_string(error));
		rd_kafka_error_destroy(error);
		kafka_partition_restart(source, partition, RETRY_US);
		return;
	}
	partition->assigned = 1;
	partition->state = state;
	kafka_sequence_start(&partition->sequence, partition->position.offset);
}

static void ask_at(struct source_kafka *source, struct kafka_partition *partition, int64_t time_us)
{
	partition->ask_us = time_us;
	if (time_us < source->next_ask_us)
		source->next_ask_us = time_us;
}

void kafka_partition_restart(struct source_kafka *source, struct kafka_partition *partition, int64_t delay_us)
{
	unassign(source, partition);
	partition->state = KAFKA_WAITING;
	partition->answered = 0;
	ask_at(source, partition, kafka_now_us() + delay_us);
}

void kafka_partition_seek_back(struct source_kafka *source, struct kafka_partition *partition)
{
	rd_kafka_topic_partition_list_t *list = list_of(source, partition->id, partition->sequence.expected);
	rd_kafka_error_t *error;

	kafka_pending_drop(source, partition->id);
	error = rd_kafka_seek_partitions(source->rk, list, SEEK_TIMEOUT_MS);
	if (error || list->elems[0].err)
		kafka_partition_restart(source, partition, 0);
	rd_kafka_error_destroy(error);
	rd_kafka_topic_partition_list_destroy(list);
}

/* ---- lost data ---- */

static void position_at(struct source_position *position, int64_t offset)
{
	position->offset = offset;
	position->inode = 0;
	position->marker = 0;
	position->marker_len = 0;
	position->mark_time_ns = 0;
}

static void begin_at(struct source_kafka *source, struct kafka_partition *partition, int64_t offset)
{
	position_at(&partition->position, offset);
	partition->fresh = 0;
	partition->damaged = 0;
	partition->announce = source->announcing = 1;
}

/* Records wanted..low-1 were deleted before they were read. */
static void lost_evicted(struct source_kafka *source, struct kafka_partition *partition, int64_t low, int64_t high)
{
	int64_t wanted = partition->position.offset;

	if (!source->accept_gaps) {
		snprintf(source->lost, sizeof(source->lost),
		         "topic \"%s\" partition %d: recd wants the record at offset %" PRId64 ", but the broker holds %" PRId64 " to %" PRId64
		         " only: %" PRId64 " records were deleted before they were read. To go on without them set kafka.on_gap = \"accept\"; or restore the topic",
		         source->topic, partition->id, wanted, low, high, low - wanted);
		return;
	}
	partition->position.gaps++;
	partition->position.gap_bytes += (uint64_t)(low - wanted);
	kafka_log(source, KAFKA_ERR, "topic \"%s\" partition %d: %" PRId64 " records from offset %" PRId64 " on were deleted unread; going on at %" PRId64,
	          source->topic, partition->id, low - wanted, wanted, low);
	begin_at(source, partition, low);
	assign(source, partition, low, KAFKA_RUNNING);
}

/* The log is another one. How much of the old one had not been read, nobody knows. */
static void lost_recreated(struct source_kafka *source, struct kafka_partition *partition, const char *why)
{
	int64_t wanted = partition->position.offset, low = partition->low;

	unassign(source, partition);
	if (!source->accept_gaps) {
		snprintf(source->lost, sizeof(source->lost),
		         "topic \"%s\" partition %d: recreated or truncated: %s. recd wants the record at offset %" PRId64 ", the broker holds %" PRId64 " to %" PRId64
		         ": an unknown number of the old log's records are lost. To read the new log from its start set kafka.on_gap = \"accept\"; or restore the topic",
		         source->topic, partition->id, why, wanted, low, partition->high);
		return;
	}
	partition->position.gaps++;
	partition->position.resets++;
	kafka_log(source, KAFKA_ERR, "topic \"%s\" partition %d: recreated or truncated: %s (wanted offset %" PRId64 "); reading the new log from %" PRId64,
	          source->topic, partition->id, why, wanted, low);
	begin_at(source, partition, low);
	assign(source, partition, low, KAFKA_RUNNING);
}

void kafka_partition_hole(struct source_kafka *source, struct kafka_partition *partition, int64_t offset, int64_t missing)
{
	if (partition->damaged && !source->accept_gaps) {
		snprintf(source->lost, sizeof(source->lost),
		         "topic \"%s\" partition %d: up to %" PRId64 " records from offset %" PRId64 " on are damaged (bad checksum) and cannot be read. "
		         "To go on without them set kafka.on_gap = \"accept\"; or restore the topic",
		         source->topic, partition->id, missing, partition->sequence.expected);
		unassign(source, partition);
		partition->state = KAFKA_WAITING;
		return;
	}
	if (partition->damaged) {
		partition->position.gaps++;
		partition->position.gap_bytes += (uint64_t)missing;
		kafka_log(source, KAFKA_ERR, "topic \"%s\" partition %d: up to %" PRId64 " records from offset %" PRId64 " on are damaged (bad checksum); going on at %" PRId64,
		          source->topic, partition->id, missing, partition->sequence.expected, offset);
	} else {
		partition->position.holes += (uint64_t)missing;
	}
	partition->sequence.expected = offset;
}

/* ---- placing and verifying ---- */

static void place_fresh(struct source_kafka *source, struct kafka_partition *partition)
{
	int first = source->first_start && !source->appeared;
	int64_t offset = first && source->from_end ? partition->high : partition->low;

	if (offset > 0 && !first)
		kafka_log(source, KAFKA_WARNING,
		          "topic \"%s\" partition %d: recd has no position in it and reads it from the oldest record that the broker holds, at offset %" PRId64
		          ": %" PRId64 " older ones are deleted by now", source->topic, partition->id, offset, offset);
	else if (offset > 0)
		kafka_log(source, KAFKA_NOTICE, "topic \"%s\" partition %d: first start at offset %" PRId64 " (the broker holds %" PRId64 " to %" PRId64 ")", source->topic,
		          partition->id, offset, partition->low, partition->high);
	begin_at(source, partition, offset);
	assign(source, partition, offset, KAFKA_RUNNING);
}

static void place(struct source_kafka *source, struct kafka_partition *partition)
{
	enum kafka_start start;
	int64_t offset;

	if (partition->fresh && !partition->late) {
		place_fresh(source, partition);
		return;
	}
	if (partition->fresh)
		begin_at(source, partition, 0); /* added while we ran: all of it is ours to read */
	start = kafka_start_decide(&partition->position, partition->low, partition->high, &offset);
	if (start == KAFKA_START_TRUNCATED && ++partition->short_log < SHORT_LOG_ANSWERS) {
		kafka_partition_restart(source, partition, RETRY_US);
		return;
	}
	partition->short_log = 0;
	switch (start) {
	case KAFKA_START_UNCHECKED:
		kafka_log(source, KAFKA_NOTICE, "topic \"%s\" partition %d: the record before offset %" PRId64 " is deleted by now, so it could not be compared",
		          source->topic, partition->id, offset);
		assign(source, partition, offset, KAFKA_RUNNING);
		break;
	case KAFKA_START_GO:
		assign(source, partition, offset, KAFKA_RUNNING);
		break;
	case KAFKA_START_VERIFY:
		assign(source, partition, offset, KAFKA_VERIFYING);
		break;
	case KAFKA_START_EVICTED:
		lost_evicted(source, partition, partition->low, partition->high);
		break;
	case KAFKA_START_TRUNCATED:
		lost_recreated(source, partition, "it ends before the position");
		break;
	}
}

/* The end of the log came before any record at or behind the marker. */
static int verify_end(struct source_kafka *source, struct kafka_partition *partition, int64_t end)
{
	if (end < partition->position.offset) { /* it had not, a moment ago */
		kafka_partition_restart(source, partition, RETRY_US);
		return 0;
	}
	partition->state = KAFKA_RUNNING; /* compacted away, with all that came before the position */
	return 1;
}

int kafka_partition_verify(struct source_kafka *source, struct kafka_partition *partition, const rd_kafka_message_t *message)
{
	const struct source_position *position = &partition->position;
	rd_kafka_timestamp_type_t type;
	int64_t time_ms;

	if (message->err)
		return verify_end(source, partition, message->offset);
	time_ms = rd_kafka_message_timestamp(message, &type);
	switch (kafka_marker_match(position, message->offset, kafka_record_hash(message->key, message->key_len, message->payload, message->len),
	                           type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || time_ms < 0 ? 0 : time_ms * 1000000)) {
	case KAFKA_MATCH_BEFORE:
		return 0;
	case KAFKA_MATCH_SAME:
		kafka_set_error(source, partition, RD_KAFKA_RESP_ERR_NO_ERROR);
		partition->state = KAFKA_RUNNING;
		return 0;
	case KAFKA_MATCH_GONE:
		kafka_log(source, KAFKA_NOTICE, "topic \"%s\" partition %d: the record at offset %" PRIu64 " is gone (compacted?), so it could not be compared",
		          source->topic, partition->id, position->inode);
		partition->state = KAFKA_RUNNING;
		return 1;
	case KAFKA_MATCH_OTHER:
		break;
	}
	/* The message belongs to the caller: it must survive unassign(). */
	partition->state = KAFKA_WAITING;
	partition->short_log = 0;
	partition->answered = 2; /* dealt with by kafka_assign_serve(), when no record is in hand */
	source->next_ask_us = 0;
	return 0;
}

/* ---- finding partitions ---- */

int kafka_is_owned(const struct source_kafka *source, int32_t id)
{
	for (size_t i = 0; i < source->n_ranges; i++)
		if (id >= source->ranges[i].first && id <= source->ranges[i].last)
			return 1;
	return source->n_ranges == 0;
}

static void init_partition(struct source_kafka *source, struct kafka_partition *partition, int32_t id, int late)
{
	memset(partition, 0, sizeof(*partition));
	partition->id = id;
	partition->fresh = 1;
	partition->late = late;
	partition->ask_us = INT64_MAX;
	partition->last_record_us = INT64_MIN;
	partition->position.last_time_us = INT64_MIN;
	kafka_position_name(source->stream, source->topic, id, partition->position.name);
	for (size_t i = 0; i < source->n_positions; i++) {
		if (strcmp(source->positions[i].name, partition->position.name) == 0) {
			partition->position = source->positions[i];
			partition->fresh = 0;
		}
	}
	ask_at(source, partition, 0);
}

static void init_shared(struct kafka_shared *shared, const struct kafka_partition *partition)
{
	memset(shared, 0, sizeof(*shared));
	memcpy(shared->name, partition->position.name, sizeof(shared->name));
	shared->id = partition->id;
	shared->offset = partition->fresh ? -1 : partition->position.offset;
	shared->end = -1;
	shared->last_record_us = INT64_MIN;
	shared->last_time_us = partition->position.last_time_us;
	shared->commit_wanted = -1;
	shared->committed = -1;
}

/* The topic has n_ids partitions now. */
static void add_partitions(struct source_kafka *source, int32_t n_ids)
{
	struct kafka_partition *partitions;
	struct kafka_shared *shared;
	int late = source->n_ids > 0;
	int32_t *by_id;

	if ((uint32_t)n_ids > KAFKA_PARTITIONS_MAX)
		n_ids = KAFKA_PARTITIONS_MAX;
	pthread_mutex_lock(&source->lock);
	by_id = realloc(source->by_id, (size_t)n_ids * sizeof(*by_id));
	if (by_id)
		source->by_id = by_id;
	partitions = realloc(source->partitions, (size_t)n_ids * sizeof(*partitions));
	if (partitions)
		source->partitions = partitions;
	shared = realloc(source->shared, (size_t)n_ids * sizeof(*shared));
	if (shared)
		source->shared = shared;
	if (by_id && partitions && shared) {
		for (int32_t id = source->n_ids; id < n_ids; id++) {
			size_t i = source->n_partitions;

			by_id[id] = kafka_is_owned(source, id) ? (int32_t)i : -1;
			if (by_id[id] < 0)
				continue;
			init_partition(source, &partitions[i], id, late);
			init_shared(&shared[i], &partitions[i]);
			source->n_partitions = source->n_shared = i + 1;
		}
		source->n_ids = n_ids;
	}
	pthread_mutex_unlock(&source->lock);
	source->reason_dirty = 1;
	if (late)
		kafka_log(source, KAFKA_NOTICE, "topic \"%s\" has %d partitions now", source->topic, n_ids);
	for (size_t i = 0; source->n_partitions > 0 && i < source->n_ranges; i++) {
		if (source->ranges[i].last < n_ids)
			continue;
		kafka_log(source, KAFKA_WARNING, "topic \"%s\" has %d partitions; those above %d that kafka.partitions names are read once they are there",
		          source->topic, n_ids, n_ids - 1);
		break;
	}
}

/* ---- partitions that are no longer there ---- */

/* A position of ours in a partition that the topic does not have. At offset 0 there is nothing to miss: nothing was read, or the loss is told already. */
static int is_gone(const struct source_kafka *source, const struct source_position *position)
{
	int32_t id = kafka_position_partition(position->name, source->stream, source->topic);

	return id >= source->n_ids && kafka_is_owned(source, id) && position->offset > 0;
}

/*
 * A topic never loses partitions: one that has fewer than there are positions was made anew. But a broker that has just started may not know all of them yet, so
 * the answer must come some times in a row; `repeats` says how often it has.
 */
static void look_for_gone(struct source_kafka *source, uint32_t repeats)
{
	const struct source_position *position = NULL;

	for (size_t i = 0; !position && i < source->n_positions; i++)
		if (is_gone(source, &source->positions[i]))
			position = &source->positions[i];
	if (!position)
		return;
	if (repeats < FEWER_REPEATS) {
		pthread_mutex_lock(&source->lock);
		source->meta_now = 1;
		pthread_mutex_unlock(&source->lock);
		rd_kafka_queue_yield(source->scout_queue);
		return;
	}
	if (source->accept_gaps) {
		source->shrunk = source->announcing = 1;
		return;
	}
	snprintf(source->lost, sizeof(source->lost),
	         "topic \"%s\" partition %d: recreated: the topic has %d partitions now. recd wants the record at offset %" PRId64 " of this one: an unknown number of "
	         "the old log's records are lost. To go on without them set kafka.on_gap = \"accept\"; or restore the topic",
	         source->topic, kafka_position_partition(position->name, source->stream, source->topic), source->n_ids, position->offset);
}

/* Delivers the next position whose partition is gone: a gap, and at 0 from now on, where a new log would begin. 1: the batch is filled, 0: none. */
static int announce_gone(struct source_kafka *source, struct event_batch *batch)
{
	for (size_t i = 0; i < source->n_positions; i++) {
		struct source_position *position = &source->positions[i];

		if (!is_gone(source, position))
			continue;
		kafka_log(source, KAFKA_ERR, "topic \"%s\" partition %d: recreated: the topic has %d partitions now (wanted offset %" PRId64 ")", source->topic,
		          kafka_position_partition(position->name, source->stream, source->topic), source->n_ids, position->offset);
		position_at(position, 0);
		position->gaps++;
		position->resets++;
		batch->stream = (uint32_t)source->stream;
		batch->position = *position;
		batch->received_us = kafka_now_us();
		return 1;
	}
	source->shrunk = 0;
	return 0;
}

/* ---- the scout's news ---- */

static void take_news(struct source_kafka *source)
{
	int32_t n_ids;
	uint32_t repeats;
	int reverify;

	pthread_mutex_lock(&source->lock);
	if (source->topic_error != source->meta_error || source->client_error)
		source->reason_dirty = 1;
	source->topic_error = source->meta_error;
	if (!source->meta_error)
		source->client_error = RD_KAFKA_RESP_ERR_NO_ERROR;
	n_ids = source->meta_partitions;
	repeats = source->meta_repeats;
	source->appeared = source->meta_missing;
	reverify = source->meta_after_outage;
	source->meta_after_outage = 0;
	for (size_t i = 0; i < source->n_partitions; i++) {
		struct kafka_shared *shared = &source->shared[i];
		struct kafka_partition *partition = &source->partitions[i];

		if (!shared->answered || partition->state != KAFKA_WAITING)
			continue;
		shared->answered = 0;
		if (shared->error) { /* the scout tries again; only a record or the end of the log says that all is well */
			kafka_set_error(source, partition, shared->error);
			continue;
		}
		partition->low = shared->low;
		partition->high = shared->high;
		partition->answered = 1;
		source->next_ask_us = 0;
	}
	pthread_mutex_unlock(&source->lock);
	if (n_ids > source->n_ids)
		add_partitions(source, n_ids);
	if (n_ids > 0 && n_ids == source->n_ids)
		look_for_gone(source, repeats);
	for (size_t i = 0; reverify && i < source->n_partitions; i++)
		if (source->partitions[i].state != KAFKA_WAITING)
			kafka_partition_restart(source, &source->partitions[i], 0);
}

static void ask(struct source_kafka *source, size_t index)
{
	source->partitions[index].ask_us = INT64_MAX;
	pthread_mutex_lock(&source->lock);
	source->shared[index].wanted = 1;
	source->shared[index].answered = 0;
	pthread_mutex_unlock(&source->lock);
	rd_kafka_queue_yield(source->scout_queue);
}

void kafka_assign_serve(struct source_kafka *source)
{
	unsigned news = atomic_load(&source->news);
	int64_t now_us;

	if (news != source->news_seen) {
		source->news_seen = news;
		take_news(source);
	}
	if (source->next_ask_us == INT64_MAX)
		return;
	now_us = kafka_now_us();
	if (now_us < source->next_ask_us)
		return;
	source->next_ask_us = INT64_MAX;
	for (size_t i = 0; i < source->n_partitions && !source->lost[0]; i++) {
		struct kafka_partition *partition = &source->partitions[i];
		int answered = partition->answered;

		partition->answered = 0;
		if (answered == 1)
			place(source, partition);
		else if (answered == 2)
			lost_recreated(source, partition, "the record before the position is another one now");
		if (partition->ask_us <= now_us)
			ask(source, i);
		else if (partition->ask_us < source->next_ask_us)
			source->next_ask_us = partition->ask_us;
	}
}

int kafka_announce(struct source_kafka *source, struct event_batch *batch)
{
	if (!source->announcing)
		return 0;
	if (source->shrunk && announce_gone(source, batch))
		return 1;
	for (size_t i = 0; i < source->n_partitions; i++) {
		struct kafka_partition *partition = &source->partitions[i];

		if (!partition->announce)
			continue;
		partition->announce = 0;
		if (partition->state == KAFKA_RUNNING)
			partition->position.offset = partition->sequence.expected;
		batch->stream = (uint32_t)source->stream;
		batch->position = partition->position;
		batch->received_us = kafka_now_us();
		kafka_publish(source, partition);
		return 1;
	}
	source->announcing = 0;
	return 0;
}
