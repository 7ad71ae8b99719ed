/*
 * kafka_admin.c: topics, partitions and offsets: the commands that ask the broker for one thing and wait for its answer.
 */
#include "tests/kafka/kafka_tool.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const plain[] = { NULL };

/* How many partitions a topic has; 0 with the error said. */
static int partitions_of(rd_kafka_t *client, const char *name)
{
	rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_resp_err_t err = rd_kafka_metadata(client, 0, topic, &metadata, TIMEOUT_MS);
	int n = 0;

	if (!err && metadata->topic_cnt == 1)
		err = metadata->topics[0].err;
	if (err)
		fail("%s: %s", name, rd_kafka_err2str(err));
	else
		n = metadata->topics[0].partition_cnt;
	if (metadata)
		rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(topic);
	return n;
}

/* Waits until a topic has n partitions that all answer: the broker says "created" a moment before that. 0, or 1 with the error said. The client is destroyed. */
static int wait_until_served(rd_kafka_t *client, const char *name, int n)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
	int served = 0;

	for (int tries = 0; tries < 300 && served < n; tries++) {
		int64_t low, high;

		err = rd_kafka_query_watermark_offsets(client, name, served, &low, &high, TIMEOUT_MS);
		if (!err)
			served++;
		else
			poll(NULL, 0, 100);
	}
	rd_kafka_destroy(client);
	return served < n ? fail("%s: partition %d is not served: %s", name, served, rd_kafka_err2str(err)) : 0;
}

/* Waits for the one answer of an admin request. 0, or 1 with the error said. The queue is destroyed. */
static int admin_wait(rd_kafka_queue_t *queue, const char *what)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS);
	const rd_kafka_topic_result_t *const *topics = NULL;
	size_t n_topics = 0;
	int ret = 0;

	if (!event) {
		ret = fail("%s: no answer within %d ms", what, TIMEOUT_MS);
	} else if (rd_kafka_event_error(event)) {
		ret = fail("%s: %s", what, rd_kafka_event_error_string(event));
	} else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_CREATETOPICS_RESULT) {
		topics = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n_topics);
	} else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DELETETOPICS_RESULT) {
		topics = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n_topics);
	} else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT) {
		topics = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(event), &n_topics);
	} else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DELETERECORDS_RESULT) {
		const rd_kafka_topic_partition_list_t *offsets = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));

		for (int i = 0; i < offsets->cnt; i++)
			if (offsets->elems[i].err)
				ret = fail("%s: %s", what, rd_kafka_err2str(offsets->elems[i].err));
	}
	for (size_t i = 0; i < n_topics; i++)
		if (rd_kafka_topic_result_error(topics[i]))
			ret = fail("%s %s: %s", what, rd_kafka_topic_result_name(topics[i]), rd_kafka_topic_result_error_string(topics[i]));
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	return ret;
}

int command_create(const struct arguments *args)
{
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, args, plain);
	rd_kafka_NewTopic_t *topic;
	rd_kafka_queue_t *queue;
	char errstr[512];

	if (!client)
		return 1;
	topic = rd_kafka_NewTopic_new(args->words[0], args->partitions, 1, errstr, sizeof(errstr));
	if (!topic)
		return fail("create: %s", errstr);
	for (int i = 0; i < args->n_configs; i++) {
		char name[256];
		const char *equals = strchr(args->configs[i], '=');

		if (!equals || equals - args->configs[i] >= (long)sizeof(name))
			return fail("create: '%s' is not NAME=VALUE", args->configs[i]);
		snprintf(name, sizeof(name), "%.*s", (int)(equals - args->configs[i]), args->configs[i]);
		rd_kafka_NewTopic_set_config(topic, name, equals + 1);
	}
	queue = rd_kafka_queue_new(client);
	rd_kafka_CreateTopics(client, &topic, 1, NULL, queue);
	rd_kafka_NewTopic_destroy(topic);
	return admin_wait(queue, "create") || wait_until_served(client, args->words[0], args->partitions);
}

int command_delete(const struct arguments *args)
{
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, args, plain);
	rd_kafka_DeleteTopic_t *topic;
	rd_kafka_queue_t *queue;
	int ret;

	if (!client)
		return 1;
	topic = rd_kafka_DeleteTopic_new(args->words[0]);
	queue = rd_kafka_queue_new(client);
	rd_kafka_DeleteTopics(client, &topic, 1, NULL, queue);
	rd_kafka_DeleteTopic_destroy(topic);
	ret = admin_wait(queue, "delete");
	rd_kafka_destroy(client);
	return ret;
}

int command_add_partitions(const struct arguments *args)
{
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, args, plain);
	rd_kafka_NewPartitions_t *partitions;
	rd_kafka_queue_t *queue;
	char errstr[512];

	if (!client)
		return 1;
	partitions = rd_kafka_NewPartitions_new(args->words[0], (size_t)strtoul(args->words[1], NULL, 10), errstr, sizeof(errstr));
	if (!partitions)
		return fail("add-partitions: %s", errstr);
	queue = rd_kafka_queue_new(client);
	rd_kafka_CreatePartitions(client, &partitions, 1, NULL, queue);
	rd_kafka_NewPartitions_destroy(partitions);
	return admin_wait(queue, "add-partitions") || wait_until_served(client, args->words[0], atoi(args->words[1]));
}

int command_delete_records(const struct arguments *args)
{
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, args, plain);
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_DeleteRecords_t *records;
	rd_kafka_queue_t *queue;
	int64_t offset = strtoll(args->words[2], NULL, 10);
	int ret;

	if (!client)
		return 1;
	list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(list, args->words[0], atoi(args->words[1]))->offset = offset < 0 ? RD_KAFKA_OFFSET_END : offset;
	records = rd_kafka_DeleteRecords_new(list);
	rd_kafka_topic_partition_list_destroy(list);
	queue = rd_kafka_queue_new(client);
	rd_kafka_DeleteRecords(client, &records, 1, NULL, queue);
	rd_kafka_DeleteRecords_destroy(records);
	ret = admin_wait(queue, "delete-records");
	rd_kafka_destroy(client);
	return ret;
}

/* A broker that has just started may not know yet that it leads the partition: asked again for a while. */
static rd_kafka_resp_err_t query_watermarks(rd_kafka_t *client, const char *topic, int partition, int64_t *ret_low, int64_t *ret_high)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	for (int tries = 0; tries < 50; tries++) {
		err = rd_kafka_query_watermark_offsets(client, topic, partition, ret_low, ret_high, TIMEOUT_MS);
		if (err != RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION && err != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
			break;
		rd_kafka_poll(client, 100);
	}
	return err;
}

int command_watermarks(const struct arguments *args)
{
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, args, plain);
	int n = client ? partitions_of(client, args->words[0]) : 0;
	int ret = n ? 0 : 1;

	for (int i = 0; i < n && !ret; i++) {
		int64_t low = 0, high = 0;
		rd_kafka_resp_err_t err = query_watermarks(client, args->words[0], i, &low, &high);

		if (err)
			ret = fail("watermarks: %s", rd_kafka_err2str(err));
		else
			printf("%d %" PRId64 " %" PRId64 "\n", i, low, high);
	}
	if (client)
		rd_kafka_destroy(client);
	return ret;
}

int command_committed(const struct arguments *args)
{
	const char *const settings[] = { "group.id", args->words[0], NULL };
	rd_kafka_t *client = client_new(RD_KAFKA_CONSUMER, args, settings);
	int n = client ? partitions_of(client, args->words[1]) : 0;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
	int ret = n ? 0 : 1;

	for (int i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, args->words[1], i);
	if (n)
		err = rd_kafka_committed(client, list, TIMEOUT_MS);
	if (err)
		ret = fail("committed: %s", rd_kafka_err2str(err));
	for (int i = 0; i < n && !err; i++)
		printf("%d %" PRId64 "\n", i, list->elems[i].offset < 0 ? (int64_t)-1 : list->elems[i].offset);
	rd_kafka_topic_partition_list_destroy(list);
	if (client)
		rd_kafka_destroy(client);
	return ret;
}
