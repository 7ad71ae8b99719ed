/*
 * source_kafka_scout.c: the thread of the Kafka source that waits for brokers, so that polling never does: metadata of the topic, watermarks of partitions,
 * commits of durable positions.
 *
 * It sleeps on a librdkafka queue of its own, where the results of commits come; yielding that queue wakes it. Every call to a broker is bounded by
 * BROKER_TIMEOUT_MS. What fails is tried again for ever. Answers go into struct kafka_shared; `news` tells the polling thread to look.
 *
 * A commit tells the group's observers how far recd has come; recd itself never reads it. So only the newest wish of each partition is kept, one commit is
 * under way at a time, and one that fails is logged when the reason changes and left at that: the next checkpoint commits again.
 */
#include <string.h>

#include "ingest/source_kafka.h"

#define TICK_MS 500
#define BROKER_TIMEOUT_MS 2000
#define RETRY_US INT64_C(1000000)
#define META_GAP_US INT64_C(500000)    /* errors may ask for metadata, and metadata may bring errors */
#define ENDS_US INT64_C(1000000)       /* end offsets for the status are refreshed so often */
#define QUERY_GAP_US INT64_C(3000000)  /* and asked of the broker at most so often */
#define COMMIT_LOST_US INT64_C(70000000)
#define CLOSE_WAIT_US INT64_C(2000000) /* for the last commit */

static void tell(struct source_kafka *source)
{
	atomic_fetch_add(&source->news, 1);
	rd_kafka_queue_yield(source->queue);
}

/* ---- metadata ---- */

/* The topic's error, or that of one of the partitions that are ours, or 0. */
static rd_kafka_resp_err_t topic_state(const struct source_kafka *source, const struct rd_kafka_metadata *metadata, int32_t *ret_partitions)
{
	const struct rd_kafka_metadata_topic *topic;

	if (metadata->topic_cnt < 1)
		return RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	topic = &metadata->topics[0];
	if (topic->err)
		return topic->err;
	*ret_partitions = topic->partition_cnt;
	for (int i = 0; i < topic->partition_cnt; i++) {
		const struct rd_kafka_metadata_partition *partition = &topic->partitions[i];
		rd_kafka_resp_err_t error = partition->err || partition->leader >= 0 ? partition->err : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;

		if (error && error != RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE && kafka_is_owned(source, partition->id))
			return error;
	}
	return topic->partition_cnt > 0 ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
}

/* Under the lock: what an answer says of the topic's partitions (n -1: nothing). */
static void note_partitions(struct source_kafka *source, rd_kafka_resp_err_t error, int32_t n)
{
	if (n > 0) {
		source->meta_repeats = n == source->meta_partitions && source->meta_repeats < UINT32_MAX ? source->meta_repeats + 1 : 0;
		source->meta_partitions = n;
	} else if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && source->meta_partitions < 0) {
		source->meta_missing = 1;
	}
}

static void look_at_topic(struct source_kafka *source)
{
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_resp_err_t error = rd_kafka_metadata(source->rk, 0, source->rkt, &metadata, BROKER_TIMEOUT_MS);
	int32_t n_partitions = -1;
	int reached = !error, changed;

	if (metadata) {
		error = topic_state(source, metadata, &n_partitions);
		rd_kafka_metadata_destroy(metadata);
	}
	source->last_meta_us = kafka_now_us();
	source->next_meta_us = source->last_meta_us + (error && source->metadata_interval_us > RETRY_US ? RETRY_US : source->metadata_interval_us);
	pthread_mutex_lock(&source->lock);
	changed = error != source->meta_error || (n_partitions > 0 && n_partitions != source->meta_partitions) || source->outage || reached;
	source->meta_error = error;
	note_partitions(source, error, n_partitions);
	if (reached && !error && source->outage) {
		source->meta_after_outage = 1;
		source->outage = 0;
	}
	/* Brokers that were away, or a topic that was, may come back with another log. */
	if (error && source->meta_partitions > 0)
		source->outage = 1;
	pthread_mutex_unlock(&source->lock);
	if (changed)
		tell(source);
}

/* ---- watermarks ---- */

static size_t shared_count(struct source_kafka *source)
{
	size_t n;

	pthread_mutex_lock(&source->lock);
	n = source->n_shared;
	pthread_mutex_unlock(&source->lock);
	return n;
}

/* The partition whose watermarks are wanted; -1: this one's are not. */
static int32_t wanted_id(struct source_kafka *source, size_t index)
{
	const struct kafka_shared *shared;
	int32_t id;

	pthread_mutex_lock(&source->lock);
	shared = &source->shared[index];
	id = shared->wanted && !shared->answered ? shared->id : -1;
	pthread_mutex_unlock(&source->lock);
	return id;
}

/*
 * One end of a partition: `which` is RD_KAFKA_OFFSET_BEGINNING or RD_KAFKA_OFFSET_END, which stand for the times "oldest" and "newest" in the protocol, too.
 * (rd_kafka_query_watermark_offsets() asks for both, but before librdkafka 2.3 it waits for a leader that is down for ever, whatever its timeout.)
 */
static rd_kafka_resp_err_t ask_end(struct source_kafka *source, int32_t id, int64_t which, int64_t *ret_offset)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *asked = rd_kafka_topic_partition_list_add(list, source->topic, id);
	rd_kafka_resp_err_t error;

	asked->offset = which;
	error = rd_kafka_offsets_for_times(source->rk, list, BROKER_TIMEOUT_MS);
	if (!error)
		error = asked->err;
	if (!error && asked->offset < 0)
		error = RD_KAFKA_RESP_ERR__BAD_MSG;
	if (!error)
		*ret_offset = asked->offset;
	rd_kafka_topic_partition_list_destroy(list);
	return error;
}

/* Asks the broker for the watermarks of one partition, and keeps the answer. */
static rd_kafka_resp_err_t look_at_one(struct source_kafka *source, size_t index, int32_t id)
{
	int64_t low = -1, high = -1;
	rd_kafka_resp_err_t error = ask_end(source, id, RD_KAFKA_OFFSET_BEGINNING, &low);
	struct kafka_shared *shared;

	if (!error)
		error = ask_end(source, id, RD_KAFKA_OFFSET_END, &high);
	if (!error && high < low)
		error = RD_KAFKA_RESP_ERR__BAD_MSG;
	pthread_mutex_lock(&source->lock);
	shared = &source->shared[index];
	shared->error = error;
	shared->answered = 1;
	shared->low = low;
	shared->high = high;
	if (!error) {
		shared->wanted = 0;
		shared->end = high;
	}
	pthread_mutex_unlock(&source->lock);
	return error;
}

/*
 * Answers what is wanted, each partition once at most. After an error the rest waits a tick: its broker may be away. The next tick begins behind it, so that a
 * partition without a leader holds up the others for a tick and no longer.
 */
static void look_at_watermarks(struct source_kafka *source)
{
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
	const size_t n = shared_count(source); /* it only grows */
	int any = 0;

	for (size_t i = 0; i < n && !error && !atomic_load(&source->stop); i++) {
		const size_t index = source->watermark_next;
		const int32_t id = wanted_id(source, index);

		source->watermark_next = (index + 1) % n;
		if (id < 0)
			continue;
		error = look_at_one(source, index, id);
		any = 1;
	}
	if (any)
		tell(source);
}

static int64_t end_of(struct source_kafka *source, int32_t id, int may_query, int *ret_queried)
{
	int64_t low, high;

	if (!rd_kafka_get_watermark_offsets(source->rk, source->topic, id, &low, &high) && high >= 0)
		return high;
	if (!may_query)
		return -1;
	*ret_queried = 1;
	return ask_end(source, id, RD_KAFKA_OFFSET_END, &high) ? -1 : high;
}

/* Refreshes the ends that the status shows; mostly from what librdkafka knows already. */
static void refresh_ends(struct source_kafka *source, int64_t now_us)
{
	int queried = 0, failed = 0;

	for (size_t i = 0;; i++) {
		int64_t end;
		int32_t id;

		pthread_mutex_lock(&source->lock);
		id = i < source->n_shared ? source->shared[i].id : -1;
		failed = failed || source->meta_error;
		pthread_mutex_unlock(&source->lock);
		if (id < 0 || atomic_load(&source->stop))
			break;
		end = end_of(source, id, !failed, &queried);
		failed = failed || end < 0;
		if (end < 0)
			continue;
		pthread_mutex_lock(&source->lock);
		source->shared[i].end = end;
		pthread_mutex_unlock(&source->lock);
	}
	source->next_ends_us = now_us + (queried ? QUERY_GAP_US : ENDS_US);
}

/* ---- commits ---- */

void kafka_commit(struct source *base, const struct source_position *positions, size_t n_positions)
{
	struct source_kafka *source = (struct source_kafka *)base;
	int any = 0;

	pthread_mutex_lock(&source->lock);
	for (size_t i = 0; i < n_positions; i++) {
		int32_t id = kafka_position_partition(positions[i].name, source->stream, source->topic);

		if (id < 0 || id >= source->n_ids || source->by_id[id] < 0)
			continue;
		source->shared[source->by_id[id]].commit_wanted = positions[i].offset;
		any = 1;
	}
	pthread_mutex_unlock(&source->lock);
	if (any)
		rd_kafka_queue_yield(source->scout_queue);
}

/* Sends what is wanted, when nothing is under way. */
static void send_commit(struct source_kafka *source)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t error;

	if (source->commits_out > 0 && kafka_now_us() - source->commit_sent_us < COMMIT_LOST_US)
		return;
	list = rd_kafka_topic_partition_list_new(1);
	pthread_mutex_lock(&source->lock);
	for (size_t i = 0; i < source->n_shared; i++) {
		struct kafka_shared *shared = &source->shared[i];

		if (shared->commit_wanted >= 0 && shared->commit_wanted != shared->committed)
			rd_kafka_topic_partition_list_add(list, source->topic, shared->id)->offset = shared->commit_wanted;
		shared->commit_wanted = -1;
	}
	pthread_mutex_unlock(&source->lock);
	if (list->cnt > 0) {
		error = rd_kafka_commit_queue(source->rk, list, source->scout_queue, NULL, NULL);
		if (error) {
			kafka_log(source, KAFKA_WARNING, "Kafka commit: %s", rd_kafka_err2str(error));
		} else {
			source->commits_out = 1;
			source->commit_sent_us = kafka_now_us();
		}
	}
	rd_kafka_topic_partition_list_destroy(list);
}

static void take_commit(struct source_kafka *source, rd_kafka_event_t *event)
{
	const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
	rd_kafka_resp_err_t error = rd_kafka_event_error(event);
	char words[512];

	source->commits_out = 0;
	pthread_mutex_lock(&source->lock);
	for (int i = 0; list && i < list->cnt; i++) {
		int32_t id = list->elems[i].partition;

		if (list->elems[i].err)
			error = list->elems[i].err;
		else if (!rd_kafka_event_error(event) && id < source->n_ids && source->by_id[id] >= 0)
			source->shared[source->by_id[id]].committed = list->elems[i].offset;
	}
	pthread_mutex_unlock(&source->lock);
	if (error == source->commit_error)
		return;
	source->commit_error = error;
	kafka_client_words(error, source->brokers, source->topic, NULL, words, sizeof(words));
	if (error)
		kafka_log(source, KAFKA_WARNING, "Kafka commit of topic \"%s\" failed, which loses nothing (recd goes by its checkpoint): %s", source->topic, words);
	else
		kafka_log(source, KAFKA_NOTICE, "Kafka commits of topic \"%s\" succeed again", source->topic);
}

static void take_event(struct source_kafka *source, int timeout_ms)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(source->scout_queue, timeout_ms);

	if (event && rd_kafka_event_type(event) == RD_KAFKA_EVENT_OFFSET_COMMIT)
		take_commit(source, event);
	rd_kafka_event_destroy(event);
}

/* ---- the thread ---- */

void *kafka_scout_main(void *arg)
{
	struct source_kafka *source = arg;
	int64_t now_us, until_us;
	int meta_now;

	while (!atomic_load(&source->stop)) {
		now_us = kafka_now_us();
		pthread_mutex_lock(&source->lock);
		meta_now = source->meta_now && now_us >= source->last_meta_us + META_GAP_US;
		if (meta_now)
			source->meta_now = 0;
		pthread_mutex_unlock(&source->lock);
		if (meta_now || now_us >= source->next_meta_us)
			look_at_topic(source);
		look_at_watermarks(source);
		if (now_us >= source->next_ends_us)
			refresh_ends(source, now_us);
		send_commit(source);
		if (!atomic_load(&source->stop))
			take_event(source, TICK_MS);
	}
	until_us = kafka_now_us() + CLOSE_WAIT_US;
	do {
		send_commit(source);
		if (source->commits_out == 0)
			break;
		take_event(source, 100);
	} while (kafka_now_us() < until_us);
	return NULL;
}
