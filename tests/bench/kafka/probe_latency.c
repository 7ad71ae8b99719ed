/*
 * probe_latency.c: produces single records at once and watches them come back: the broker's own latency, for the same records that recd is asked about.
 *
 * Usage: probe_latency BROKERS TOPIC
 * Standard input: a line a record, "SERIAL KEY JSON". Each is produced as it is read, without waiting for more. Output, with CLOCK_MONOTONIC in nanoseconds:
 * "ready" once both clients work, "sent SERIAL NS" before it is handed to the producer, "seen SERIAL NS" when a consumer of the topic got it. Two threads: the
 * main one produces, the other consumes from the end of the topic; a record is known by its header. Ends with its input.
 */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMEOUT_MS 30000
#define HEADER "bench-serial"

static const char *const producer_settings[] = { "linger.ms", "0", "acks", "all", "enable.idempotence", "true", "compression.type", "lz4", NULL };
static const char *const consumer_settings[] = { "group.id", "bench-probe", "enable.auto.commit", "false", "fetch.wait.max.ms", "500", NULL };

struct watcher {
	rd_kafka_t *rk;
	atomic_int stop;
};

static void die(const char *what)
{
	fprintf(stderr, "probe_latency: %s\n", what);
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void say(const char *what, unsigned long serial, int64_t ns)
{
	printf("%s %lu %" PRId64 "\n", what, serial, ns); /* one call, one line: stdio locks */
	fflush(stdout);
}

static rd_kafka_t *client_new(rd_kafka_type_t type, const char *brokers, const char *const *settings)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[256];

	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die(errstr);
	for (; *settings; settings += 2)
		if (rd_kafka_conf_set(conf, settings[0], settings[1], errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			die(errstr);
	rd_kafka_t *rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	if (!rk)
		die(errstr);
	return rk;
}

/* Reads the topic from its end. */
static void watch_topic(struct watcher *watcher, const char *topic)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(watcher->rk, topic, NULL);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err = rd_kafka_metadata(watcher->rk, 0, rkt, &metadata, TIMEOUT_MS);

	if (err || metadata->topic_cnt != 1 || metadata->topics[0].err)
		die(err ? rd_kafka_err2str(err) : "no such topic");
	for (int p = 0; p < metadata->topics[0].partition_cnt; p++) {
		int64_t low, high;

		err = rd_kafka_query_watermark_offsets(watcher->rk, topic, p, &low, &high, TIMEOUT_MS);
		if (err)
			die(rd_kafka_err2str(err));
		rd_kafka_topic_partition_list_add(list, topic, p)->offset = high;
	}
	if (rd_kafka_assign(watcher->rk, list))
		die("the partitions cannot be assigned");
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(rkt);
}

static void *watch(void *arg)
{
	struct watcher *watcher = arg;

	while (!atomic_load(&watcher->stop)) {
		rd_kafka_message_t *message = rd_kafka_consumer_poll(watcher->rk, 100);
		int64_t ns = now_ns();
		rd_kafka_headers_t *headers;
		const void *value;
		size_t size;

		if (message && !message->err && !rd_kafka_message_headers(message, &headers) &&
		    !rd_kafka_header_get_last(headers, HEADER, &value, &size) && size == sizeof(unsigned long)) {
			unsigned long serial;

			memcpy(&serial, value, sizeof(serial));
			say("seen", serial, ns);
		}
		if (message)
			rd_kafka_message_destroy(message);
	}
	return NULL;
}

static void produce(rd_kafka_t *rk, const char *topic, char *line)
{
	char *end;
	unsigned long serial = strtoul(line, &end, 10);
	char *key = end + strspn(end, " "), *json = strchr(key, ' ');

	if (!json)
		die("a line of input is SERIAL KEY JSON");
	*json++ = '\0';
	json[strcspn(json, "\n")] = '\0';
	int64_t ns = now_ns();
	rd_kafka_resp_err_t err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, strlen(key)),
	                                            RD_KAFKA_V_VALUE(json, strlen(json)), RD_KAFKA_V_HEADER(HEADER, &serial, (ssize_t)sizeof(serial)), RD_KAFKA_V_END);
	if (err)
		die(rd_kafka_err2str(err));
	say("sent", serial, ns);
	rd_kafka_poll(rk, 0);
}

int main(int argc, char **argv)
{
	struct watcher watcher = { 0 };
	char line[4096];
	pthread_t thread;

	if (argc != 3)
		die("usage: probe_latency BROKERS TOPIC");
	rd_kafka_t *producer = client_new(RD_KAFKA_PRODUCER, argv[1], producer_settings);
	watcher.rk = client_new(RD_KAFKA_CONSUMER, argv[1], consumer_settings);
	rd_kafka_poll_set_consumer(watcher.rk);
	watch_topic(&watcher, argv[2]);
	if (pthread_create(&thread, NULL, watch, &watcher))
		die("no thread");
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		produce(producer, argv[2], line);
	rd_kafka_flush(producer, TIMEOUT_MS);
	atomic_store(&watcher.stop, 1);
	pthread_join(thread, NULL);
	rd_kafka_consumer_close(watcher.rk);
	rd_kafka_destroy(watcher.rk);
	rd_kafka_destroy(producer);
	return 0;
}
