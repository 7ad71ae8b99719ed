/*
 * kafka_consume.c: prints what a topic holds, a line a record, partition by partition, each to its end: PARTITION, OFFSET, TIMESTAMP, KEY, recd-origin, VALUE,
 * separated by tabs. Without transactions in mind: everything is read.
 */
#include "tests/kafka/kafka_tool.h"

#include <inttypes.h>
#include <stdio.h>

static void print_record(const rd_kafka_message_t *message)
{
	rd_kafka_headers_t *headers;
	const void *origin = "";
	size_t origin_len = 0;

	if (rd_kafka_message_headers(message, &headers) || rd_kafka_header_get_last(headers, "recd-origin", &origin, &origin_len))
		origin_len = 0;
	printf("%d\t%" PRId64 "\t%" PRId64 "\t%.*s\t%.*s\t%.*s\n", message->partition, message->offset, rd_kafka_message_timestamp(message, NULL),
	       (int)message->key_len, message->key ? (const char *)message->key : "", (int)origin_len, (const char *)origin, (int)message->len,
	       message->payload ? (const char *)message->payload : "");
}

static int consume_partition(rd_kafka_topic_t *topic, int partition)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (rd_kafka_consume_start(topic, partition, RD_KAFKA_OFFSET_BEGINNING))
		return fail("partition %d: %s", partition, rd_kafka_err2str(rd_kafka_last_error()));
	while (!err) {
		rd_kafka_message_t *message = rd_kafka_consume(topic, partition, TIMEOUT_MS);

		err = message ? message->err : RD_KAFKA_RESP_ERR__TIMED_OUT;
		if (!err)
			print_record(message);
		if (message)
			rd_kafka_message_destroy(message);
	}
	rd_kafka_consume_stop(topic, partition);
	return err == RD_KAFKA_RESP_ERR__PARTITION_EOF ? 0 : fail("partition %d: %s", partition, rd_kafka_err2str(err));
}

int command_consume(const struct arguments *args)
{
	static const char *const settings[] = { "enable.partition.eof", "true", "auto.offset.reset", "error", "isolation.level", "read_uncommitted",
		                                "fetch.wait.max.ms", "20", NULL };
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_t *client = client_new(RD_KAFKA_CONSUMER, args, settings);
	int rc = client == NULL;

	if (rc)
		return rc;
	rd_kafka_topic_t *topic = rd_kafka_topic_new(client, args->words[0], NULL);
	rd_kafka_resp_err_t err = rd_kafka_metadata(client, 0, topic, &metadata, TIMEOUT_MS);
	if (err)
		rc = fail("%s", rd_kafka_err2str(err));
	for (int p = 0; !rc && p < metadata->topics[0].partition_cnt; p++)
		rc = consume_partition(topic, p);
	if (metadata)
		rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(client);
	return rc;
}
