/*
 * replay_tails.c: reads the ends of a topic's partitions back, to find the last record of this replay in each.
 *
 * Main thread of recctl, before anything is sent. A partition is read in windows from its end backwards, each sixteen times the one before, until a record of
 * this replay is found or the beginning is reached; other writers may have added records behind ours. Reading is done with read_uncommitted: our records have
 * no transaction, and an open one of somebody else must not hide them.
 *
 * What a killed replay had handed to the network may still be on its way into the log. So the ends are looked at again after a second, and again while
 * new records of this replay turn up.
 */
#include "daemon/recctl/replay_topics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/recctl/replay_file.h"

#define ANSWER_MS 15000
#define SETTLE_MS 1000
#define FIRST_WINDOW 64

/* One topic, and the partition of it that is being looked through. */
struct scan {
	rd_kafka_t *consumer;
	rd_kafka_topic_t *rkt;
	const struct replay_cluster *cluster;
	const struct replay_plan *plan;
	const volatile sig_atomic_t *stop;
	struct replay_topic *topic;
	enum event_stream stream;
	int64_t *ends;              /* [n_partitions] everything before has been looked at */
	int32_t partition;
	struct replay_tail tail;    /* of that partition */
	struct replay_origin other; /* another replay of one of these files */
	int other_there;
	char *errstr;
	size_t errstr_size;
};

static int fail(struct scan *scan, rd_kafka_resp_err_t err, const char *detail)
{
	char words[400];

	replay_cluster_words(scan->cluster, err, scan->topic->name, detail, words, sizeof(words));
	snprintf(scan->errstr, scan->errstr_size, "reading the end of topic \"%s\", partition %d: %s", scan->topic->name, scan->partition, words);
	return -EIO;
}

/* Whether a file of this replay's stream is meant. */
static int knows_file(const struct scan *scan, const struct replay_origin *origin)
{
	for (uint32_t i = 0; i < scan->plan->n_inputs; i++) {
		const struct replay_input *input = &scan->plan->inputs[i];

		if (input->stream == scan->stream && input->content_id == origin->content_id && !strcmp(input->name, origin->name))
			return 1;
	}
	return 0;
}

static void look_at(struct scan *scan, const rd_kafka_message_t *message)
{
	struct replay_origin origin;
	rd_kafka_headers_t *headers;
	const void *value;
	size_t len;

	if (rd_kafka_message_headers(message, &headers) || rd_kafka_header_get_last(headers, REPLAY_ORIGIN_HEADER, &value, &len) || !value ||
	    replay_origin_parse(value, len, &origin))
		return;
	if (origin.replay_id == scan->topic->replay_id) {
		scan->tail = (struct replay_tail){ .there = 1, .kafka_offset = message->offset, .origin = origin,
			                           .value_hash = replay_hash(REPLAY_HASH_BEGIN, message->payload, message->len) };
	} else if (knows_file(scan, &origin)) {
		scan->other = origin;
		scan->other_there = 1;
	}
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Looks at all records in [begin, end). 0 or -errno. */
static int look_through(struct scan *scan, int64_t begin, int64_t end)
{
	int64_t last_ms = now_ms();
	int rc = 0, done = begin >= end;

	if (done)
		return 0;
	if (rd_kafka_consume_start(scan->rkt, scan->partition, begin))
		return fail(scan, rd_kafka_last_error(), NULL);
	while (!rc && !done) {
		rd_kafka_message_t *message = rd_kafka_consume(scan->rkt, scan->partition, 100);

		if (*scan->stop) {
			rc = -EINTR;
		} else if (!message) {
			if (now_ms() - last_ms > ANSWER_MS)
				rc = fail(scan, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL);
		} else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
			done = 1;
		} else if (message->err == RD_KAFKA_RESP_ERR__TRANSPORT || message->err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
			; /* it connects again */
		} else if (message->err) {
			rc = fail(scan, message->err, rd_kafka_message_errstr(message));
		} else {
			last_ms = now_ms();
			if (message->offset < end)
				look_at(scan, message);
			done = message->offset >= end - 1;
		}
		if (message)
			rd_kafka_message_destroy(message);
	}
	rd_kafka_consume_stop(scan->rkt, scan->partition);
	return rc;
}

static int read_ends(struct scan *scan, int64_t *ret_low, int64_t *ret_high)
{
	rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(scan->consumer, scan->topic->name, scan->partition, ret_low, ret_high, ANSWER_MS);

	return err ? fail(scan, err, NULL) : 0;
}

/* One partition backwards from its end. */
static int scan_back(struct scan *scan)
{
	int64_t low, high, window = FIRST_WINDOW;
	int rc = read_ends(scan, &low, &high);

	if (rc)
		return rc;
	scan->ends[scan->partition] = high;
	for (int64_t end = high; !rc && !scan->tail.there && end > low; window *= 16) {
		int64_t begin = end - low > window ? end - window : low;

		rc = look_through(scan, begin, end);
		end = begin;
	}
	if (!rc && !scan->tail.there && low > 0) {
		snprintf(scan->errstr, scan->errstr_size,
		         "topic \"%s\", partition %d: its first %" PRId64 " records have been removed (retention or deletion) and none of this replay is among the rest, so "
		         "how far it came cannot be told; replay into a new topic, or again without --resume", scan->topic->name, scan->partition, low);
		rc = -ESTALE;
	}
	return rc;
}

/* What came to one partition since the last look. */
static int scan_on(struct scan *scan)
{
	int64_t low, high, *end = &scan->ends[scan->partition];
	int rc = read_ends(scan, &low, &high);

	if (!rc)
		rc = look_through(scan, *end, high);
	if (!rc && high > *end)
		*end = high;
	return rc;
}

/* All partitions of a topic. *ret_found: 1 when there was something new of this replay. */
static int scan_topic(struct scan *scan, int (*scan_partition)(struct scan *scan), int *ret_found)
{
	int rc = 0;

	for (int32_t p = 0; !rc && p < scan->topic->n_partitions; p++) {
		struct replay_tail *tail = &scan->topic->tails[p];

		scan->partition = p;
		scan->tail = *tail;
		rc = scan_partition(scan);
		if (scan->tail.there && (!tail->there || scan->tail.kafka_offset != tail->kafka_offset))
			*ret_found = 1;
		*tail = scan->tail;
	}
	return rc;
}

/* Whether there is another replay of the same files, and nothing of this one. */
static int check_others(const struct scan *scan)
{
	for (int32_t p = 0; p < scan->topic->n_partitions; p++) {
		if (scan->topic->tails[p].there)
			return 0;
	}
	if (!scan->other_there)
		return 0;
	snprintf(scan->errstr, scan->errstr_size,
	         "topic \"%s\" holds another replay of %s (with other files, another --from or --to, or another number of partitions) and nothing of this one; "
	         "repeat the command as it was, or leave --resume out to add this replay behind the other", scan->topic->name, scan->other.name);
	return -EINVAL;
}

/* All topics, until nothing new of this replay turns up. */
static int scan_all(struct scan *scans, size_t n_scans)
{
	int rc = 0, found = 0;

	for (size_t i = 0; !rc && i < n_scans; i++)
		rc = scan_topic(&scans[i], scan_back, &found);
	do {
		for (int ms = 0; !rc && ms < SETTLE_MS && !*scans[0].stop; ms += 100)
			nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
		found = 0;
		for (size_t i = 0; !rc && i < n_scans; i++)
			rc = scan_topic(&scans[i], scan_on, &found);
	} while (!rc && found);
	for (size_t i = 0; !rc && i < n_scans; i++)
		rc = check_others(&scans[i]);
	return rc;
}

/* The properties without isolation.level: recd.conf may have it for recd, and here it must be another. What they point at stays the cluster's. */
static int reading_properties(const struct replay_cluster *cluster, struct kafka_property **ret_properties, size_t *ret_n)
{
	struct kafka_property *properties = calloc(cluster->n_properties + 1, sizeof(*properties));
	size_t n = 0;

	if (!properties)
		return -ENOMEM;
	for (size_t i = 0; i < cluster->n_properties; i++) {
		if (strcmp(cluster->properties[i].name, "isolation.level") != 0)
			properties[n++] = cluster->properties[i];
	}
	*ret_properties = properties;
	*ret_n = n;
	return 0;
}

static int consumer_new(const struct replay_cluster *cluster, rd_kafka_t **ret_consumer, char *errstr, size_t errstr_size)
{
	static const struct kafka_setting defaults[] = { { "log_level", "0" }, { "fetch.wait.max.ms", "50" }, { "check.crcs", "true" } };
	static const struct kafka_setting fixed[] = { { "isolation.level", "read_uncommitted" }, { "enable.auto.commit", "false" }, { "enable.partition.eof", "true" },
		                                      { "auto.offset.reset", "error" }, { "allow.auto.create.topics", "false" } };
	struct kafka_property *properties;
	rd_kafka_conf_t *conf = NULL;
	size_t n = 0;
	int rc = reading_properties(cluster, &properties, &n);

	if (rc) {
		snprintf(errstr, errstr_size, "out of memory");
		return rc;
	}
	rc = kafka_client_conf(cluster->brokers, defaults, sizeof(defaults) / sizeof(defaults[0]), fixed, sizeof(fixed) / sizeof(fixed[0]), properties, n, &conf,
	                       errstr, errstr_size);
	if (!rc)
		rc = replay_cluster_client(cluster, RD_KAFKA_CONSUMER, conf, ret_consumer, errstr, errstr_size);
	free(properties);
	return rc;
}

int replay_tails_read(const struct replay_cluster *cluster, const struct replay_plan *plan, struct replay_topic topics[STREAM_COUNT],
                      const volatile sig_atomic_t *stop, char *errstr, size_t errstr_size)
{
	struct scan scans[STREAM_COUNT];
	size_t n_scans = 0;
	rd_kafka_t *consumer = NULL;
	int rc = consumer_new(cluster, &consumer, errstr, errstr_size);

	for (int stream = 0; !rc && stream < STREAM_COUNT; stream++) {
		struct scan *scan = &scans[n_scans];

		if (!topics[stream].name)
			continue;
		*scan = (struct scan){ .consumer = consumer, .cluster = cluster, .plan = plan, .stop = stop, .topic = &topics[stream],
			               .stream = (enum event_stream)stream, .errstr = errstr, .errstr_size = errstr_size };
		n_scans++;
		scan->ends = calloc((size_t)topics[stream].n_partitions, sizeof(*scan->ends));
		scan->rkt = rd_kafka_topic_new(consumer, topics[stream].name, NULL);
		if (!scan->ends || !scan->rkt) {
			snprintf(errstr, errstr_size, "out of memory");
			rc = -ENOMEM;
		}
	}
	if (!rc && n_scans)
		rc = scan_all(scans, n_scans);
	for (size_t i = 0; i < n_scans; i++) {
		free(scans[i].ends);
		if (scans[i].rkt)
			rd_kafka_topic_destroy(scans[i].rkt);
	}
	if (consumer)
		rd_kafka_destroy(consumer);
	if (rc == -EINTR)
		snprintf(errstr, errstr_size, "stopped by a signal before anything was sent");
	return rc;
}
