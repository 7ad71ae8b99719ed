/*
 * kafka_group.c: a foreign member of a consumer group: subscribes, reads and commits like any other program would, until stdin ends.
 */
#include "tests/kafka/kafka_tool.h"

#include <poll.h>
#include <stdio.h>

static void rebalanced(rd_kafka_t *client, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *partitions, void *opaque)
{
	(void)opaque;
	rd_kafka_assign(client, err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? partitions : NULL);
	if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		printf("assigned %d\n", partitions->cnt);
		fflush(stdout);
	}
}

int command_join(const struct arguments *args)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	const char *const settings[] = { "bootstrap.servers", args->brokers, "group.id", args->words[0], "auto.offset.reset", "earliest",
					 "session.timeout.ms", "6000", NULL };
	rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
	struct pollfd input = { .fd = 0, .events = POLLIN };
	rd_kafka_resp_err_t err;
	rd_kafka_t *client;
	char errstr[512], ignored[64];

	for (const char *const *s = settings; *s; s += 2)
		if (rd_kafka_conf_set(conf, s[0], s[1], errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			return fail("%s", errstr);
	rd_kafka_conf_set_rebalance_cb(conf, rebalanced);
	rd_kafka_conf_set_log_cb(conf, NULL);
	client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, errstr, sizeof(errstr));
	if (!client)
		return fail("%s", errstr);
	rd_kafka_topic_partition_list_add(topics, args->words[1], RD_KAFKA_PARTITION_UA);
	err = rd_kafka_subscribe(client, topics);
	rd_kafka_topic_partition_list_destroy(topics);
	while (!err && (poll(&input, 1, 0) == 0 || fgets(ignored, sizeof(ignored), stdin))) {
		rd_kafka_message_t *message = rd_kafka_consumer_poll(client, 50);

		if (message)
			rd_kafka_message_destroy(message);
	}
	rd_kafka_consumer_close(client);
	rd_kafka_destroy(client);
	return err ? fail("join: %s", rd_kafka_err2str(err)) : 0;
}
