/*
 * sources.c: a thread per source, at most two sources a stream (its files and its Kafka topic), which share the stream's queue. A thread owns its source
 * while it runs: nothing else polls it. A full queue makes it wait for a free batch, which pauses the source; a source that fails for good ends its thread,
 * is shown as failed, and leaves the others alone. One that found data lost that must not be (-EUCLEAN) ends the daemon: see source_set_refused().
 */
#include "daemon/sources.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "daemon/log.h"

#define POLL_TIMEOUT_MS 200
#define FREE_TIMEOUT_MS 200

struct source_thread {
	struct source_set *set;
	struct source *source;
	enum event_stream stream;
	pthread_t thread;
	int started;
	atomic_int failed;   /* the -errno that ended it; 0: it runs */
	atomic_ullong waits; /* turns spent waiting for a free batch */
	char error[2048];    /* written by the thread, before failed is set */
	int was_degraded;
};

struct source_set {
	struct source_thread threads[SOURCE_SET_MAX];
	size_t n;
	struct queue_set *queues;
	atomic_int stop;
};

/* Says once when a source falls into trouble and once when it is well again. */
static void log_changes(struct source_thread *t)
{
	struct source_status status;

	source_status(t->source, &status);
	if (status.degraded == t->was_degraded)
		return;
	t->was_degraded = status.degraded;
	if (status.degraded)
		log_warn("source %s: %s", status.name, status.reason);
	else
		log_info("source %s: well again", status.name);
}

static void *source_thread(void *arg)
{
	struct source_thread *t = arg;
	struct source_set *set = t->set;

	while (!atomic_load(&set->stop)) {
		struct event_batch *batch = queue_take_free(set->queues, t->stream, FREE_TIMEOUT_MS);
		int rc;

		if (batch == NULL) {
			atomic_fetch_add(&t->waits, 1);
			continue;
		}
		rc = source_poll(t->source, batch, POLL_TIMEOUT_MS, t->error, sizeof(t->error));
		if (rc == 0)
			queue_push(set->queues, batch);
		else
			queue_give_back(set->queues, batch);
		log_changes(t);
		if (rc < 0 && rc != -EAGAIN) {
			if (rc != -EUCLEAN) /* that one the service tells */
				log_error("source %s:%s stopped: %s", t->source->ops->kind, event_stream_name(t->stream), t->error);
			atomic_store(&t->failed, rc);
			break;
		}
	}
	return NULL;
}

/* What a source says by itself, at syslog's levels; any thread. */
static void log_source(void *ctx, int level, const char *text)
{
	const struct source_thread *t = ctx;
	const char *stream = event_stream_name(t->stream);

	if (level <= LOG_ERR)
		log_error("kafka, %s: %s", stream, text);
	else if (level == LOG_WARNING)
		log_warn("kafka, %s: %s", stream, text);
	else if (level <= LOG_INFO)
		log_info("kafka, %s: %s", stream, text);
	else
		log_debug("kafka, %s: %s", stream, text);
}

static int open_files(const struct config *config, const struct source_position *positions, size_t n_positions, struct source_thread *t, char *errstr,
                      size_t errstr_size)
{
	const struct config_stream *stream = &config->streams[t->stream];
	const struct source_files_config files = {
		.stream = t->stream,
		.globs = (const char *const *)stream->files,
		.n_globs = stream->n_files,
		.from_end = stream->from_end,
		.limits = config->limits,
		.marker_bytes = 64,
		.stat_interval_ms = config->stat_interval_ms,
	};

	return source_files_open(&files, positions, n_positions, &t->source, errstr, errstr_size);
}

static int open_kafka(const struct config *config, const struct source_position *positions, size_t n_positions, struct source_thread *t, char *errstr,
                      size_t errstr_size)
{
	const struct config_stream *stream = &config->streams[t->stream];
	const struct source_kafka_config kafka = {
		.stream = t->stream,
		.topic = stream->topic,
		.brokers = config->kafka.brokers,
		.group = config->kafka.group,
		.properties = config->kafka.properties.properties,
		.n_properties = config->kafka.properties.n,
		.ranges = config->kafka.partitions.ranges,
		.n_ranges = config->kafka.partitions.n_ranges,
		.from_end = stream->from_end,
		.accept_gaps = config->kafka.accept_gaps,
		.limits = config->limits,
		.metadata_interval_ms = config->kafka.metadata_interval_ms,
		.log = log_source,
		.log_ctx = t,
	};

	return source_kafka_open(&kafka, positions, n_positions, &t->source, errstr, errstr_size);
}

int source_set_open(const struct config *config, const struct source_position *positions, size_t n_positions, struct queue_set *queues,
                    struct source_set **ret_sources, char *errstr, size_t errstr_size)
{
	struct source_set *set = calloc(1, sizeof(*set));
	int rc = 0;

	if (set == NULL) {
		snprintf(errstr, errstr_size, "sources: out of memory");
		return -ENOMEM;
	}
	set->queues = queues;
	for (int i = 0; rc == 0 && i < SOURCE_SET_MAX; i++) {
		const struct config_stream *stream = &config->streams[i / 2];
		struct source_thread *t = &set->threads[set->n];
		const int kafka = i % 2;

		if (kafka ? stream->topic == NULL : stream->n_files == 0)
			continue;
		t->set = set;
		t->stream = (enum event_stream)(i / 2);
		rc = (kafka ? open_kafka : open_files)(config, positions, n_positions, t, errstr, errstr_size);
		if (rc == 0)
			set->n++;
	}
	if (rc < 0) {
		source_set_close(set);
		return rc;
	}
	*ret_sources = set;
	return 0;
}

int source_set_start(struct source_set *sources, char *errstr, size_t errstr_size)
{
	for (size_t i = 0; i < sources->n; i++) {
		struct source_thread *t = &sources->threads[i];
		const int rc = -pthread_create(&t->thread, NULL, source_thread, t);

		if (rc < 0) {
			snprintf(errstr, errstr_size, "starting a source's thread: %s", strerror(-rc));
			return rc;
		}
		t->started = 1;
	}
	return 0;
}

size_t source_set_count(const struct source_set *sources)
{
	return sources->n;
}

void source_set_status(struct source_set *sources, size_t i, struct source_status *ret_status)
{
	struct source_thread *t = &sources->threads[i];

	source_status(t->source, ret_status);
	ret_status->heartbeat += atomic_load(&t->waits);
	if (atomic_load(&t->failed)) {
		ret_status->degraded = 1;
		snprintf(ret_status->reason, sizeof(ret_status->reason), "stopped: %s", t->error);
	}
}

size_t source_set_partitions(struct source_set *sources, struct partition_status *ret_partitions, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < sources->n; i++) {
		const size_t taken = n < max ? n : max;

		n += source_partitions(sources->threads[i].source, taken < max ? ret_partitions + taken : NULL, max - taken);
	}
	return n;
}

void source_set_commit(struct source_set *sources, const struct source_position *positions, size_t n_positions)
{
	for (size_t i = 0; i < sources->n; i++)
		source_commit(sources->threads[i].source, positions, n_positions);
}

int source_set_refused(struct source_set *sources, char *ret_text, size_t ret_text_size)
{
	for (size_t i = 0; i < sources->n; i++) {
		if (atomic_load(&sources->threads[i].failed) != -EUCLEAN)
			continue;
		snprintf(ret_text, ret_text_size, "%s", sources->threads[i].error);
		return 1;
	}
	return 0;
}

void source_set_stop(struct source_set *sources)
{
	if (sources == NULL)
		return;
	atomic_store(&sources->stop, 1);
	for (size_t i = 0; i < sources->n; i++)
		source_wake(sources->threads[i].source);
	for (size_t i = 0; i < sources->n; i++) {
		if (sources->threads[i].started)
			pthread_join(sources->threads[i].thread, NULL);
		sources->threads[i].started = 0;
	}
}

void source_set_close(struct source_set *sources)
{
	if (sources == NULL)
		return;
	source_set_stop(sources);
	for (size_t i = 0; i < sources->n; i++)
		source_close(sources->threads[i].source);
	free(sources);
}
