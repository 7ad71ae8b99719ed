/*
 * bare_consume.c: a consumer that throws every record away: what consuming costs before anything is done with a record.
 *
 * Usage: bare_consume BROKERS RECORDS TOPIC...
 * One client with the settings of recd's source reads all partitions of the topics from their start, until RECORDS records came, and prints
 * {"records", "bytes", "wall_s", "cpu_s"} as JSON: from the moment the partitions are known to the last record, CPU time of all threads.
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define TIMEOUT_MS 30000
#define BATCH 1024
#define SILENCE_MAX 60 /* turns of a second without a record */

/* Those of ingest/source_kafka.c, with a queue that is never full. */
static const char *const settings[][2] = {
	{ "fetch.message.max.bytes", "65536" },   { "queued.max.messages.kbytes", "131072" }, { "queued.min.messages", "1000000" },
	{ "check.crcs", "true" },                 { "isolation.level", "read_committed" },   { "socket.keepalive.enable", "true" },
	{ "group.id", "bench-bare" },             { "enable.auto.commit", "false" },         { "enable.auto.offset.store", "false" },
	{ "auto.offset.reset", "error" },         { "enable.partition.eof", "true" },        { "allow.auto.create.topics", "false" },
};

static void die(const char *what)
{
	fprintf(stderr, "bare_consume: %s\n", what);
	exit(1);
}

static double wall_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static rd_kafka_t *consumer_new(const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[256];

	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
		die(errstr);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			die(errstr);
	rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, sizeof(errstr));
	if (!rk)
		die(errstr);
	rd_kafka_poll_set_consumer(rk);
	return rk;
}

/* Adds all partitions of a topic, from their start. */
static void add_topic(rd_kafka_t *rk, const char *name, rd_kafka_topic_partition_list_t *list)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, name, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, rkt, &metadata, TIMEOUT_MS);

	if (err || metadata->topic_cnt != 1 || metadata->topics[0].err)
		die(err ? rd_kafka_err2str(err) : "no such topic");
	for (int p = 0; p < metadata->topics[0].partition_cnt; p++)
		rd_kafka_topic_partition_list_add(list, name, metadata->topics[0].partitions[p].id)->offset = 0;
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(rkt);
}

/* Waits for a first record only, then takes what is there. */
static size_t consume(rd_kafka_queue_t *queue, rd_kafka_message_t **messages)
{
	ssize_t n = rd_kafka_consume_batch_queue(queue, 0, messages, BATCH);

	if (n <= 0)
		n = rd_kafka_consume_batch_queue(queue, 1000, messages, 1);
	return n > 0 ? (size_t)n : 0;
}

int main(int argc, char **argv)
{
	rd_kafka_message_t *messages[BATCH];
	unsigned long wanted, records = 0, bytes = 0;
	int silence = 0;

	if (argc < 4)
		die("usage: bare_consume BROKERS RECORDS TOPIC...");
	wanted = strtoul(argv[2], NULL, 10);
	rd_kafka_t *rk = consumer_new(argv[1]);
	rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(rk);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
	for (int i = 3; i < argc; i++)
		add_topic(rk, argv[i], list);
	double began_s = wall_s(), began_cpu_s = cpu_s();
	if (rd_kafka_assign(rk, list))
		die("the partitions cannot be assigned");
	while (records < wanted && silence < SILENCE_MAX) {
		size_t n = consume(queue, messages);

		silence = n ? 0 : silence + 1;
		for (size_t i = 0; i < n; i++) {
			if (!messages[i]->err) {
				records++;
				bytes += messages[i]->len;
			}
			rd_kafka_message_destroy(messages[i]);
		}
	}
	printf("{\"records\": %lu, \"bytes\": %lu, \"wall_s\": %.6f, \"cpu_s\": %.6f}\n", records, bytes, wall_s() - began_s, cpu_s() - began_cpu_s);
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_queue_destroy(queue);
	rd_kafka_consumer_close(rk);
	rd_kafka_destroy(rk);
	return records == wanted ? 0 : 1;
}
