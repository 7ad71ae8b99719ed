/*
 * kafka_mock.c: librdkafka's mock cluster as a process of its own, for tests that need a broker that fails on command and no Java. Its retention is about 5 MiB a
 * partition, and it knows neither deletion nor transactions markers.
 */
#include "tests/kafka/kafka_tool.h"

#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <string.h>

/* One line from stdin. 0, or 1 with the error said. */
static int obey(rd_kafka_mock_cluster_t *cluster, const char *line)
{
	char name[256];
	int first = 0, second = 0, third = 0;

	if (sscanf(line, "topic %255s %d", name, &first) == 2) {
		rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(cluster, name, first, 1);

		return err ? fail("topic: %s", rd_kafka_err2str(err)) : 0;
	}
	if (!strncmp(line, "down", 4))
		return rd_kafka_mock_broker_set_down(cluster, 1) ? fail("down: refused") : 0;
	if (!strncmp(line, "up", 2))
		return rd_kafka_mock_broker_set_up(cluster, 1) ? fail("up: refused") : 0;
	if (sscanf(line, "errors %d %d %d", &first, &second, &third) == 3) {
		for (int i = 0; i < third; i++)
			rd_kafka_mock_push_request_errors(cluster, (int16_t)first, 1, (rd_kafka_resp_err_t)second);
		return 0;
	}
	return fail("not a command: %s", line);
}

int command_mock(const struct arguments *args)
{
	struct arguments nowhere = *args;
	const char *const settings[] = { NULL };
	rd_kafka_mock_cluster_t *cluster;
	rd_kafka_t *client;
	char line[512];

	nowhere.brokers = "127.0.0.1:1";
	client = client_new(RD_KAFKA_PRODUCER, &nowhere, settings);
	if (!client)
		return 1;
	cluster = rd_kafka_mock_cluster_new(client, 1);
	if (!cluster)
		return fail("no mock cluster");
	printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		printf("%s\n", obey(cluster, line) ? "refused" : "done");
		fflush(stdout);
	}
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(client);
	return 0;
}
