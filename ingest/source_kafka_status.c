/*
 * source_kafka_status.c: what operators see of the Kafka source: status and partitions (any thread, under the source's lock), librdkafka's errors in words,
 * and the log.
 *
 * librdkafka repeats a connection error for every attempt: the same text (digits apart) is logged once a minute. Values of properties may be
 * secrets: they are taken out of every text.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ingest/source_kafka.h"

/* ---- status ---- */

void kafka_status(struct source *base, struct source_status *ret_status)
{
	struct source_kafka *source = (struct source_kafka *)base;
	int64_t lag = 0, last_time_us = INT64_MIN;

	memset(ret_status, 0, sizeof(*ret_status));
	snprintf(ret_status->name, sizeof(ret_status->name), "kafka:%s", event_stream_name(source->stream));
	pthread_mutex_lock(&source->lock);
	for (size_t i = 0; i < source->n_shared; i++) {
		const struct kafka_shared *shared = &source->shared[i];

		if (shared->last_time_us > last_time_us)
			last_time_us = shared->last_time_us;
		if (shared->offset < 0 || shared->end < 0)
			lag = -1;
		else if (lag >= 0 && shared->end > shared->offset)
			lag += shared->end - shared->offset;
	}
	ret_status->partitions = (uint32_t)source->n_shared;
	ret_status->heartbeat = source->heartbeat;
	ret_status->degraded = source->degraded;
	memcpy(ret_status->reason, source->shared_reason, sizeof(ret_status->reason));
	pthread_mutex_unlock(&source->lock);
	ret_status->lag_bytes = -1;
	ret_status->lag_records = ret_status->partitions > 0 ? lag : -1;
	ret_status->last_time_us = last_time_us;
}

size_t kafka_partition_statuses(struct source *base, struct partition_status *ret_partitions, size_t max)
{
	struct source_kafka *source = (struct source_kafka *)base;
	size_t n;

	pthread_mutex_lock(&source->lock);
	n = source->n_shared;
	for (size_t i = 0; i < n && i < max; i++) {
		const struct kafka_shared *shared = &source->shared[i];
		struct partition_status *status = &ret_partitions[i];

		memset(status, 0, sizeof(*status));
		memcpy(status->name, shared->name, sizeof(status->name));
		status->offset = shared->offset < 0 ? 0 : shared->offset;
		status->end = shared->end;
		status->lag_records = shared->offset < 0 || shared->end < 0 ? -1 : shared->end > shared->offset ? shared->end - shared->offset : 0;
		status->last_record_us = shared->last_record_us;
		status->committed = shared->committed;
	}
	pthread_mutex_unlock(&source->lock);
	return n;
}

/* ---- what is wrong ---- */

static int is_login_error(rd_kafka_resp_err_t error)
{
	return error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL || error == RD_KAFKA_RESP_ERR__RESOLVE;
}

/* The error that explains most: a refused login is why no metadata comes, a missing topic is why a partition fails. */
static rd_kafka_resp_err_t first_error(const struct source_kafka *source, int32_t *ret_partition)
{
	*ret_partition = -1;
	if (is_login_error(source->client_error) || (source->client_error && !source->topic_error))
		return source->client_error;
	if (source->topic_error)
		return source->topic_error;
	for (size_t i = 0; i < source->n_partitions; i++) {
		if (source->partitions[i].error) {
			*ret_partition = source->partitions[i].id;
			return source->partitions[i].error;
		}
	}
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* The reason in words. 1: it changed. */
static int make_reason(struct source_kafka *source)
{
	char words[sizeof(source->reason)] = "";
	int32_t partition;
	rd_kafka_resp_err_t error = first_error(source, &partition);
	int n = 0;

	source->reason_dirty = 0;
	if (source->lost[0]) {
		memcpy(words, source->lost, sizeof(words) - 1);
		words[sizeof(words) - 1] = '\0';
	} else if (error) {
		if (partition >= 0)
			n = snprintf(words, sizeof(words), "partition %d: ", partition);
		kafka_client_words(error, source->brokers, source->topic, is_login_error(error) ? source->client_detail : NULL, words + n,
		                   sizeof(words) - (size_t)n);
	} else if (source->n_ids > 0 && source->n_partitions == 0) {
		snprintf(words, sizeof(words), "nothing is read: topic \"%s\" has %d partitions, and kafka.partitions names none of them (they count from 0)", source->topic,
		         source->n_ids);
	}
	if (strcmp(words, source->reason) == 0)
		return 0;
	memcpy(source->reason, words, sizeof(words));
	return 1;
}

void kafka_set_error(struct source_kafka *source, struct kafka_partition *partition, rd_kafka_resp_err_t error)
{
	if (partition->error == error)
		return;
	partition->error = error;
	source->reason_dirty = 1;
}

void kafka_publish(struct source_kafka *source, const struct kafka_partition *partition)
{
	int changed = (source->reason_dirty || source->lost[0]) && make_reason(source);

	pthread_mutex_lock(&source->lock);
	source->heartbeat++;
	if (changed) {
		source->degraded = source->reason[0] != '\0';
		memcpy(source->shared_reason, source->reason, sizeof(source->shared_reason));
	}
	if (partition) {
		struct kafka_shared *shared = &source->shared[partition - source->partitions];

		shared->offset = partition->position.offset;
		shared->last_record_us = partition->last_record_us;
		shared->last_time_us = partition->position.last_time_us;
		if (shared->end >= 0 && shared->end < shared->offset)
			shared->end = shared->offset;
	}
	pthread_mutex_unlock(&source->lock);
	if (changed && !source->lost[0]) {
		if (source->reason[0])
			kafka_log(source, KAFKA_WARNING, "topic \"%s\": %s; trying again", source->topic, source->reason);
		else
			kafka_log(source, KAFKA_NOTICE, "topic \"%s\": all is well again", source->topic);
	}
}

/* librdkafka's own errors, those of no partition. Runs on the polling thread, inside its consuming. */
void kafka_on_error(rd_kafka_t *rk, int error, const char *text, void *opaque)
{
	struct source_kafka *source = opaque;

	(void)rk;
	/* While a login is refused the broker is "down" too: the login is the reason to show. */
	if (!is_login_error(source->client_error) || is_login_error((rd_kafka_resp_err_t)error)) {
		source->client_error = (rd_kafka_resp_err_t)error;
		kafka_client_redact(text, source->properties, source->n_properties, source->client_detail, sizeof(source->client_detail));
		source->reason_dirty = 1;
	}
	pthread_mutex_lock(&source->lock);
	source->meta_now = 1;
	if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		source->outage = source->meta_partitions > 0;
	pthread_mutex_unlock(&source->lock);
	rd_kafka_queue_yield(source->scout_queue);
}

/* ---- log ---- */

static uint64_t hash_without_digits(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		if (!isdigit((unsigned char)*text))
			hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash;
}

/* Under the log's lock. 1: the text may be logged now. The slot of the text that was logged longest ago is taken over. */
static int may_log(struct source_kafka *source, const char *text)
{
	uint64_t hash = hash_without_digits(text);
	struct kafka_log_slot *slot = &source->log_slots[0];
	int64_t now_us = kafka_now_us();
	int may = 1;

	for (size_t i = 0; i < KAFKA_LOG_SLOTS; i++) {
		struct kafka_log_slot *other = &source->log_slots[i];

		if (other->hash == hash && other->logged_us > 0) {
			slot = other;
			may = now_us - other->logged_us >= KAFKA_LOG_GAP_US;
			break;
		}
		if (other->logged_us < slot->logged_us)
			slot = other;
	}
	if (may) {
		slot->hash = hash;
		slot->logged_us = now_us;
	}
	return may;
}

static void log_text(struct source_kafka *source, int level, const char *text)
{
	char clean[1024];

	pthread_mutex_lock(&source->log_lock);
	if (source->log && may_log(source, text)) {
		kafka_client_redact(text, source->properties, source->n_properties, clean, sizeof(clean));
		source->log(source->log_ctx, level, clean);
	}
	pthread_mutex_unlock(&source->log_lock);
}

void kafka_log_end(struct source_kafka *source)
{
	pthread_mutex_lock(&source->log_lock);
	source->log = NULL;
	pthread_mutex_unlock(&source->log_lock);
}

void kafka_log(struct source_kafka *source, int level, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_text(source, level, text);
}

void kafka_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *said)
{
	struct source_kafka *source = rd_kafka_opaque(rk);
	char text[1024];

	if (!source)
		return;
	snprintf(text, sizeof(text), "librdkafka: %s: %s", facility, said);
	log_text(source, level, text);
}
