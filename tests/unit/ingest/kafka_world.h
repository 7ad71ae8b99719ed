/*
 * kafka_world.h: a broker in this process (librdkafka's mock cluster), a producer and a Kafka source, for the tests of the source.
 *
 * Records are numbered watches: number N has user_id N. The world takes batches as the engine would: it counts each number and keeps the positions. Waiting
 * is always for a state, with a generous limit, never for a time.
 */
#ifndef TESTS_KAFKA_WORLD_H
#define TESTS_KAFKA_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ingest/source.h"

#define TOPIC "watch"
#define WORLD_NUMBERS 4096
#define WORLD_PARTITIONS 8
#define WAIT_POLLS 2000 /* of 10 ms */

struct world {
	rd_kafka_t *producer;
	rd_kafka_mock_cluster_t *cluster;
	char brokers[256];
	struct source_kafka_config config;
	struct source *source;
	struct event_batch *batch;
	struct source_position positions[WORLD_PARTITIONS];
	size_t n_positions;
	unsigned seen[WORLD_NUMBERS];
	unsigned n_seen;
	unsigned batches, empty_batches;
	unsigned n_refused;
	int64_t refused_offset; /* of the last refused line */
	char errstr[1024];
	pthread_mutex_t log_lock;
	char log[1 << 16];
	size_t log_len;
};

static inline void world_log(void *ctx, int level, const char *text)
{
	struct world *w = ctx;

	(void)level;
	pthread_mutex_lock(&w->log_lock);
	if (w->log_len + strlen(text) + 2 < sizeof(w->log))
		w->log_len += (size_t)snprintf(w->log + w->log_len, sizeof(w->log) - w->log_len, "%s\n", text);
	pthread_mutex_unlock(&w->log_lock);
}

static inline int world_logged(struct world *w, const char *text)
{
	int found;

	pthread_mutex_lock(&w->log_lock);
	found = strstr(w->log, text) != NULL;
	pthread_mutex_unlock(&w->log_lock);
	return found;
}

static inline void world_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char errstr[256];

	assert_int_equal(rd_kafka_conf_set(conf, name, value, errstr, sizeof(errstr)), RD_KAFKA_CONF_OK);
}

/* What a client says of a mock broker that the test takes down is no news. */
static inline void world_silent(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	(void)rk, (void)level, (void)facility, (void)text;
}

static inline struct world *world_on(int n_brokers, int n_partitions)
{
	struct world *w = calloc(1, sizeof(*w));
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[256], brokers[12];

	assert_non_null(w);
	pthread_mutex_init(&w->log_lock, NULL);
	snprintf(brokers, sizeof(brokers), "%d", n_brokers);
	world_set(conf, "test.mock.num.brokers", brokers);
	world_set(conf, "linger.ms", "1");
	world_set(conf, "reconnect.backoff.max.ms", "200"); /* brokers go and come here */
	rd_kafka_conf_set_log_cb(conf, world_silent);
	w->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	assert_non_null(w->producer);
	w->cluster = rd_kafka_handle_mock_cluster(w->producer);
	snprintf(w->brokers, sizeof(w->brokers), "%s", rd_kafka_mock_cluster_bootstraps(w->cluster));
	if (n_partitions > 0)
		assert_int_equal(rd_kafka_mock_topic_create(w->cluster, TOPIC, n_partitions, 1), 0);
	w->batch = event_batch_new();
	w->config = (struct source_kafka_config){
		.stream = STREAM_WATCHES,
		.topic = TOPIC,
		.brokers = w->brokers,
		.group = "recd",
		.limits = {1 << 20, 32},
		.metadata_interval_ms = 200,
		.log = world_log,
		.log_ctx = w,
	};
	return w;
}

static inline struct world *world_new(int n_partitions)
{
	return world_on(1, n_partitions);
}

static inline void world_stop(struct world *w)
{
	source_close(w->source);
	w->source = NULL;
}

static inline void world_free(struct world *w)
{
	world_stop(w);
	rd_kafka_destroy(w->producer);
	event_batch_free(w->batch);
	pthread_mutex_destroy(&w->log_lock);
	free(w);
}

static inline void world_open(struct world *w)
{
	assert_int_equal(source_kafka_open(&w->config, w->positions, w->n_positions, &w->source, w->errstr, sizeof(w->errstr)), 0);
}

static inline void world_send_at(struct world *w, int32_t partition, const char *value, int64_t time_ms)
{
	rd_kafka_resp_err_t err = rd_kafka_producev(w->producer, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY("k", 1),
	                                            RD_KAFKA_V_VALUE((void *)(uintptr_t)value, value ? strlen(value) : 0),
	                                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_TIMESTAMP(time_ms), RD_KAFKA_V_END);

	assert_int_equal(err, 0);
}

static inline void world_flush(struct world *w)
{
	assert_int_equal(rd_kafka_flush(w->producer, 120000), 0);
}

/* Numbers first..last-1 to one partition. */
static inline void world_numbers(struct world *w, int32_t partition, int first, int last)
{
	char line[256];

	for (int i = first; i < last; i++) {
		snprintf(line, sizeof(line), "{\"user_id\":%d,\"item_id\":7,\"started_at\":\"2025-12-10T12:00:%02d+00:00\",\"completion\":0.5}", i, i % 60);
		world_send_at(w, partition, line, 1765371600000 + i);
	}
	world_flush(w);
}

/* Fills a partition until its first records are deleted: the mock broker keeps about 5 MiB of it. 0 when this librdkafka's keeps everything. */
static inline int world_evict(struct world *w, int32_t partition, int64_t *ret_low, int64_t *ret_high)
{
	static char value[100001];

	memset(value, ' ', sizeof(value) - 1);
	for (int i = 0; i < 100; i++) {
		world_send_at(w, partition, value, 1000);
		world_flush(w);
	}
	assert_int_equal(rd_kafka_query_watermark_offsets(w->producer, TOPIC, partition, ret_low, ret_high, 10000), 0);
	return *ret_low > 0;
}

static inline struct source_position *world_position(struct world *w, int32_t partition)
{
	char name[POSITION_NAME_MAX];

	snprintf(name, sizeof(name), "kafka:watch_stats:" TOPIC ":%d", partition);
	for (size_t i = 0; i < w->n_positions; i++)
		if (strcmp(w->positions[i].name, name) == 0)
			return &w->positions[i];
	return NULL;
}

static inline void world_take(struct world *w)
{
	size_t i = 0;

	w->batches++;
	w->empty_batches += w->batch->n_events == 0 && w->batch->n_refused == 0;
	assert_int_equal(w->batch->stream, STREAM_WATCHES);
	assert_true(w->batch->received_us > 0);
	while (i < w->n_positions && strcmp(w->positions[i].name, w->batch->position.name) != 0)
		i++;
	assert_true(i < WORLD_PARTITIONS);
	w->n_positions += i == w->n_positions;
	w->positions[i] = w->batch->position;
	for (uint32_t k = 0; k < w->batch->n_events; k++) {
		int64_t number = w->batch->events[k].user_id;

		assert_true(number >= 0 && number < WORLD_NUMBERS);
		w->seen[number]++;
		w->n_seen++;
	}
	w->n_refused += w->batch->n_refused;
	if (w->batch->n_refused > 0)
		w->refused_offset = w->batch->refused[w->batch->n_refused - 1].offset;
}

/* One poll; what it returned. */
static inline int world_poll(struct world *w)
{
	int r;

	if (!w->source)
		world_open(w);
	event_batch_clear(w->batch);
	r = source_poll(w->source, w->batch, 10, w->errstr, sizeof(w->errstr));
	if (r == 0)
		world_take(w);
	return r;
}

/* What there is to say of a test that waits in vain. */
static inline void world_tell(struct world *w, int r)
{
	struct source_status status = {0};

	if (w->source)
		source_status(w->source, &status);
	printf("poll returned %d (%s), seen %u, lag %lld, %s%s\n", r, w->errstr, w->n_seen, (long long)status.lag_records, status.degraded ? "degraded: " : "well",
	       status.reason);
	for (size_t i = 0; i < w->n_positions; i++)
		printf("%s at %lld\n", w->positions[i].name, (long long)w->positions[i].offset);
	printf("log:\n%s", w->log); /* longer than print_message() takes */
	fflush(stdout);
}

/* Polls until the condition holds or a poll fails for good; fails the test when it never does. */
#define world_until(w, condition)                                                                                                          \
	do {                                                                                                                               \
		int polls_ = 0, r_ = 0;                                                                                                    \
		while (!(condition) && (r_ == 0 || r_ == -EAGAIN) && polls_++ < WAIT_POLLS)                                                \
			r_ = world_poll(w);                                                                                                \
		if (!(condition))                                                                                                          \
			world_tell(w, r_);                                                                                                 \
		assert_true(condition);                                                                                                    \
	} while (0)

/* A position of this world in a partition, as if the records before `offset` had been taken. */
static inline struct source_position *world_add_position(struct world *w, int32_t partition, int64_t offset, uint32_t marker_len)
{
	struct source_position *position = &w->positions[w->n_positions++];

	assert_true(w->n_positions <= WORLD_PARTITIONS);
	memset(position, 0, sizeof(*position));
	snprintf(position->name, sizeof(position->name), "kafka:watch_stats:" TOPIC ":%d", partition);
	position->offset = offset;
	position->lines = (uint64_t)offset;
	position->last_time_us = INT64_MIN;
	position->inode = (uint64_t)(offset - 1);
	position->marker_len = marker_len;
	return position;
}

/* Polls a little longer: nothing more may come. */
static inline void world_settle(struct world *w)
{
	for (int i = 0; i < 30; i++)
		assert_true(world_poll(w) == -EAGAIN);
}

/* Polls until it fails with an error that is not -EAGAIN; returns that. */
static inline int world_until_failure(struct world *w)
{
	for (int i = 0; i < WAIT_POLLS; i++) {
		int r = world_poll(w);

		if (r != 0 && r != -EAGAIN)
			return r;
	}
	return 0;
}

/* How many of first..last-1 were not seen exactly `times`. */
static inline int world_wrong(const struct world *w, int first, int last, unsigned times)
{
	int wrong = 0;

	for (int i = first; i < last; i++)
		wrong += w->seen[i] != times;
	return wrong;
}

static inline struct source_status world_status(struct world *w)
{
	struct source_status status;

	if (!w->source)
		world_open(w);
	source_status(w->source, &status);
	return status;
}

#endif
