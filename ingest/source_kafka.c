/*
 * source_kafka.c: the source that consumes one Kafka topic: opening, closing, its table of operations. source_kafka.h says which part does what.
 *
 * One librdkafka consumer a source, with assign(): recd takes no part in its group's rebalances and only commits there. Positions come from the cut; offsets
 * out of range are errors, never reset. All partitions share one queue, so that queued.max.messages.kbytes caps the memory of the whole source.
 */
#include "ingest/source_kafka.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CLOSE_TURNS 50 /* for librdkafka to end its client; it takes some milliseconds */
#define CLOSE_TURN_NS 100000000L

static const struct source_ops kafka_ops;

/* The operator's properties win over these. */
static const struct kafka_setting defaults[] = {
	{"client.id", "recd"},
	{"fetch.message.max.bytes", "65536"}, /* of each partition; a larger response would be as long a queue by itself */
	{"queued.max.messages.kbytes", "65536"}, /* see set_pace() */
	{"queued.min.messages", "1000000"}, /* let the bytes decide */
	{"check.crcs", "true"},
	{"isolation.level", "read_committed"},
	{"socket.keepalive.enable", "true"},
	{"topic.metadata.refresh.interval.ms", "30000"},
	/* recd is no member, so no session runs; but a commit waits so long for a coordinator, and closing waits for that commit */
	{"session.timeout.ms", "2000"},
	{"heartbeat.interval.ms", "1000"},
};

static int copy_properties(struct source_kafka *source, const struct source_kafka_config *config)
{
	source->properties = calloc(config->n_properties + 1, sizeof(*source->properties));
	if (!source->properties)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_properties; i++) {
		source->n_properties = i + 1;
		source->properties[i].name = strdup(config->properties[i].name);
		source->properties[i].value = strdup(config->properties[i].value);
		if (!source->properties[i].name || !source->properties[i].value)
			return -ENOMEM;
	}
	return 0;
}

static int copy_config(struct source_kafka *source, const struct source_kafka_config *config)
{
	source->stream = config->stream;
	source->from_end = config->from_end;
	source->accept_gaps = config->accept_gaps;
	source->limits = config->limits;
	source->metadata_interval_us = (int64_t)config->metadata_interval_ms * 1000;
	source->log = config->log;
	source->log_ctx = config->log_ctx;
	source->topic = strdup(config->topic);
	source->brokers = strdup(config->brokers);
	source->ranges = calloc(config->n_ranges + 1, sizeof(*source->ranges));
	if (!source->topic || !source->brokers || !source->ranges)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_ranges; i++)
		source->ranges[source->n_ranges++] = config->ranges[i];
	return copy_properties(source, config);
}

/* This topic's positions, and whether there are any. */
static int copy_positions(struct source_kafka *source, const struct source_position *positions, size_t n_positions)
{
	source->positions = calloc(n_positions + 1, sizeof(*source->positions));
	if (!source->positions)
		return -ENOMEM;
	for (size_t i = 0; i < n_positions; i++)
		if (kafka_position_partition(positions[i].name, source->stream, source->topic) >= 0)
			source->positions[source->n_positions++] = positions[i];
	source->first_start = source->n_positions == 0;
	return 0;
}

static int is_given(const struct source_kafka_config *config, const char *name)
{
	for (size_t i = 0; i < config->n_properties; i++)
		if (strcmp(config->properties[i].name, name) == 0)
			return 1;
	return 0;
}

/*
 * How far ahead librdkafka fetches: a short queue, whose records are still in the processor's caches when they are decoded. Since 2.2 librdkafka can be told to
 * look at a full queue again sooner than after a second; before, source_kafka_pace.c keeps it short. What kafka.properties says goes before.
 */
static int set_pace(struct source_kafka *source, const struct source_kafka_config *config, rd_kafka_conf_t *conf, char *said, size_t said_size)
{
	char value[32];
	size_t size = sizeof(value);
	const int has_backoff = rd_kafka_conf_get(conf, "fetch.queue.backoff.ms", value, &size) == RD_KAFKA_CONF_OK;

	if (has_backoff && !is_given(config, "fetch.queue.backoff.ms"))
		(void)rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "1", said, said_size);
	if (is_given(config, "queued.max.messages.kbytes"))
		return 0;
	if (!has_backoff)
		return kafka_pace_install(source, conf, said, said_size);
	if (!is_given(config, "fetch.queue.backoff.ms"))
		(void)rd_kafka_conf_set(conf, "queued.max.messages.kbytes", "8192", said, said_size);
	return 0;
}

/* The client, made of conf, which is gone afterwards in any case. */
static int make_client(struct source_kafka *source, const struct source_kafka_config *config, rd_kafka_conf_t *conf, char *errstr, size_t errstr_size)
{
	char said[512] = "", clean[512];

	rd_kafka_conf_set_log_cb(conf, kafka_on_log); /* says nothing as long as there is no opaque */
	if (set_pace(source, config, conf, said, sizeof(said)) == 0) {
		rd_kafka_conf_set_opaque(conf, source);
		rd_kafka_conf_set_error_cb(conf, kafka_on_error);
		source->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, said, sizeof(said));
	}
	if (source->rk)
		return 0;
	if (!source->paced) /* else it is half freed already; see source_kafka_pace.c */
		rd_kafka_conf_destroy(conf);
	kafka_client_redact(said, source->properties, source->n_properties, clean, sizeof(clean));
	snprintf(errstr, errstr_size, "librdkafka refuses the Kafka configuration: %s (see kafka.properties)", clean);
	return -EINVAL;
}

static int open_client(struct source_kafka *source, const struct source_kafka_config *config, char *errstr, size_t errstr_size)
{
	struct kafka_setting fixed[KAFKA_SOURCE_FIXED];
	rd_kafka_conf_t *conf;
	int r;

	kafka_source_fixed(config->group, fixed);
	r = kafka_client_conf(config->brokers, defaults, sizeof(defaults) / sizeof(defaults[0]), fixed, KAFKA_SOURCE_FIXED, config->properties,
	                      config->n_properties, &conf, errstr, errstr_size);
	if (r == 0)
		r = make_client(source, config, conf, errstr, errstr_size);
	if (r < 0)
		return r;
	rd_kafka_poll_set_consumer(source->rk);
	source->queue = rd_kafka_queue_get_consumer(source->rk);
	source->scout_queue = rd_kafka_queue_new(source->rk);
	source->rkt = rd_kafka_topic_new(source->rk, config->topic, NULL);
	if (!source->rkt) {
		snprintf(errstr, errstr_size, "\"%s\" is no name of a Kafka topic: %s", config->topic, rd_kafka_err2str(rd_kafka_last_error()));
		return -EINVAL;
	}
	return source->queue && source->scout_queue ? 0 : -ENOMEM;
}

/* Signals are the main thread's. */
static int start_scout(struct source_kafka *source)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&source->scout, NULL, kafka_scout_main, source);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	source->scout_started = r == 0;
	return -r;
}

static void *destroy_client(void *rk)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

/*
 * Ends the client. After partitions or brokers went and came, librdkafka (2.0.2, and later ones) may wait for a thread of its own that never ends, and a stop of recd
 * must not. So it is waited for in short turns, which a machine that stands still does not use up. 0: it has ended; -ETIMEDOUT: it is left to itself and silent, and
 * what it refers to must stay.
 */
static int end_client(struct source_kafka *source)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, destroy_client, source->rk) != 0) {
		rd_kafka_destroy_flags(source->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
		return 0;
	}
	for (int i = 0; i < CLOSE_TURNS; i++) {
		struct timespec end;

		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_nsec += CLOSE_TURN_NS;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
		if (pthread_timedjoin_np(thread, NULL, &end) == 0)
			return 0;
	}
	pthread_detach(thread);
	kafka_log(source, KAFKA_WARNING, "topic \"%s\": librdkafka %s does not end its client, which is left to itself", source->topic, rd_kafka_version_str());
	kafka_log_end(source);
	return -ETIMEDOUT;
}

static void kafka_close(struct source *base)
{
	struct source_kafka *source = (struct source_kafka *)base;

	if (source->scout_started) {
		atomic_store(&source->stop, 1);
		rd_kafka_queue_yield(source->scout_queue);
		pthread_join(source->scout, NULL);
	}
	kafka_pending_drop(source, -1);
	if (source->rkt)
		rd_kafka_topic_destroy(source->rkt);
	if (source->queue)
		rd_kafka_queue_destroy(source->queue);
	if (source->scout_queue)
		rd_kafka_queue_destroy(source->scout_queue);
	if (source->rk && end_client(source) < 0)
		return;
	for (size_t i = 0; i < source->n_properties; i++)
		kafka_property_clear(&source->properties[i]);
	decoder_free(source->decoder);
	pthread_mutex_destroy(&source->lock);
	pthread_mutex_destroy(&source->log_lock);
	free(source->properties);
	free(source->ranges);
	free(source->positions);
	free(source->partitions);
	free(source->shared);
	free(source->by_id);
	free(source->topic);
	free(source->brokers);
	free(source);
}

static void kafka_wake(struct source *base)
{
	struct source_kafka *source = (struct source_kafka *)base;

	atomic_store(&source->woken, 1);
	rd_kafka_queue_yield(source->queue);
}

static struct source_kafka *source_new(void)
{
	struct source_kafka *source = calloc(1, sizeof(*source));

	if (!source)
		return NULL;
	source->source.ops = &kafka_ops;
	source->meta_partitions = -1;
	source->next_ask_us = INT64_MAX;
	pthread_mutex_init(&source->lock, NULL);
	pthread_mutex_init(&source->log_lock, NULL);
	return source;
}

int source_kafka_open(const struct source_kafka_config *config, const struct source_position *positions, size_t n_positions,
                      struct source **ret_source, char *errstr, size_t errstr_size)
{
	struct source_kafka *source;
	int r;

	if (!config->topic || !config->topic[0] || !config->brokers || !config->brokers[0] || !config->group || !config->group[0]) {
		snprintf(errstr, errstr_size, "a Kafka source needs a topic, kafka.brokers and kafka.group");
		return -EINVAL;
	}
	source = source_new();
	if (!source) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	errstr[0] = '\0';
	r = copy_config(source, config);
	if (r == 0)
		r = copy_positions(source, positions, n_positions);
	if (r == 0)
		r = open_client(source, config, errstr, errstr_size);
	if (r == 0 && !(source->decoder = decoder_new(&source->limits)))
		r = -ENOMEM;
	if (r == 0)
		r = start_scout(source);
	if (r < 0) {
		if (!errstr[0])
			snprintf(errstr, errstr_size, "Kafka source: %s", strerror(-r));
		kafka_close(&source->source);
		return r;
	}
	*ret_source = &source->source;
	return 0;
}

static const struct source_ops kafka_ops = {
	.kind = "kafka",
	.poll = kafka_poll,
	.wake = kafka_wake,
	.status = kafka_status,
	.partitions = kafka_partition_statuses,
	.commit = kafka_commit,
	.close = kafka_close,
};
