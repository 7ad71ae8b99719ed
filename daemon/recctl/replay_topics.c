/*
 * replay_topics.c: finds or creates the topics of a replay. Main thread of recctl, before anything is sent. And what all clients of a replay share: how they are
 * made, and librdkafka's words without the values of properties, which may be passwords or paths.
 *
 * All topics are asked for at once, because asking a broker for one by name may create it, with whatever number of partitions the broker likes.
 */
#include "daemon/recctl/replay_topics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 15000
#define CREATE_TRIES 50

void replay_cluster_words(const struct replay_cluster *cluster, rd_kafka_resp_err_t err, const char *topic, const char *detail, char *ret_text, size_t size)
{
	char clean[400];

	kafka_client_redact(detail ? detail : "", cluster->properties, cluster->n_properties, clean, sizeof(clean));
	kafka_client_words(err, cluster->brokers, topic, clean, ret_text, size);
}

int replay_cluster_client(const struct replay_cluster *cluster, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **ret_client, char *errstr,
                          size_t errstr_size)
{
	char said[512];

	*ret_client = rd_kafka_new(type, conf, said, sizeof(said));
	if (*ret_client)
		return 0;
	rd_kafka_conf_destroy(conf);
	kafka_client_redact(said, cluster->properties, cluster->n_properties, errstr, errstr_size);
	return -EINVAL;
}

static int said(rd_kafka_resp_err_t err, const struct replay_cluster *cluster, const char *topic, const char *detail, char *errstr, size_t errstr_size)
{
	replay_cluster_words(cluster, err, topic, detail, errstr, errstr_size);
	return -EIO;
}

/* Partition counts of the named topics; 0: missing. 0 or -EIO. */
static int look_up(rd_kafka_t *producer, const struct replay_cluster *cluster, struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size)
{
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_resp_err_t err = rd_kafka_metadata(producer, 1, NULL, &metadata, ANSWER_MS);

	if (err)
		return said(err, cluster, "", NULL, errstr, errstr_size);
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		topics[stream].n_partitions = 0;
		for (int i = 0; topics[stream].name && i < metadata->topic_cnt; i++) {
			const struct rd_kafka_metadata_topic *topic = &metadata->topics[i];

			if (!strcmp(topic->topic, topics[stream].name) && !topic->err)
				topics[stream].n_partitions = topic->partition_cnt;
		}
	}
	rd_kafka_metadata_destroy(metadata);
	return 0;
}

static const struct replay_topic *first_missing(const struct replay_topic topics[STREAM_COUNT])
{
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		if (topics[stream].name && !topics[stream].n_partitions)
			return &topics[stream];
	}
	return NULL;
}

/* What the broker says of each topic that was to be created. "Exists" is fine: somebody was faster. */
static int judge_created(rd_kafka_event_t *event, const struct replay_cluster *cluster, char *errstr, size_t errstr_size)
{
	size_t n = 0;

	if (rd_kafka_event_error(event))
		return said(rd_kafka_event_error(event), cluster, "", rd_kafka_event_error_string(event), errstr, errstr_size);
	const rd_kafka_topic_result_t **results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	for (size_t i = 0; i < n; i++) {
		rd_kafka_resp_err_t err = rd_kafka_topic_result_error(results[i]);
		const char *detail = rd_kafka_topic_result_error_string(results[i]);
		char clean[512];

		if (!err || err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
			continue;
		kafka_client_redact(detail ? detail : rd_kafka_err2str(err), cluster->properties, cluster->n_properties, clean, sizeof(clean));
		snprintf(errstr, errstr_size, "topic \"%s\" cannot be created: %s", rd_kafka_topic_result_name(results[i]), clean);
		return -EIO;
	}
	return 0;
}

static int create_missing(rd_kafka_t *producer, const struct replay_cluster *cluster, const struct replay_create *create,
                          const struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size)
{
	rd_kafka_NewTopic_t *wanted[STREAM_COUNT];
	rd_kafka_queue_t *queue = rd_kafka_queue_new(producer);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(producer, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_event_t *event = NULL;
	char text[512] = "";
	size_t n = 0;
	int rc = 0;

	for (int stream = 0; !rc && stream < STREAM_COUNT; stream++) {
		if (!topics[stream].name || topics[stream].n_partitions)
			continue;
		wanted[n] = rd_kafka_NewTopic_new(topics[stream].name, create->n_partitions, create->replication, text, sizeof(text));
		if (wanted[n])
			n++;
		else
			rc = -EIO;
	}
	if (!rc && rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, text, sizeof(text)))
		rc = -EIO;
	if (rc)
		kafka_client_redact(text, cluster->properties, cluster->n_properties, errstr, errstr_size);
	if (!rc) {
		rd_kafka_CreateTopics(producer, wanted, n, options, queue);
		event = rd_kafka_queue_poll(queue, 2 * ANSWER_MS);
		rc = event ? judge_created(event, cluster, errstr, errstr_size) : said(RD_KAFKA_RESP_ERR__TIMED_OUT, cluster, "", NULL, errstr, errstr_size);
	}
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_NewTopic_destroy_array(wanted, n);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	return rc;
}

int replay_topics_find(rd_kafka_t *producer, const struct replay_cluster *cluster, const struct replay_create *create,
                       struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size)
{
	const struct replay_topic *missing;
	int rc = look_up(producer, cluster, topics, errstr, errstr_size);

	if (!rc && create->wanted && first_missing(topics)) {
		rc = create_missing(producer, cluster, create, topics, errstr, errstr_size);
		for (int i = 0; !rc && i < CREATE_TRIES && (i == 0 || first_missing(topics)); i++) { /* the brokers tell each other in a moment */
			rd_kafka_poll(producer, i ? 100 : 0);
			rc = look_up(producer, cluster, topics, errstr, errstr_size);
		}
	}
	if (rc)
		return rc;
	missing = first_missing(topics);
	if (missing) {
		snprintf(errstr, errstr_size, "topic \"%s\" does not exist at %s, or may not be seen; create it, or let replay do so: --create --partitions N",
		         missing->name, cluster->brokers);
		return -ENOENT;
	}
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		if (!topics[stream].name)
			continue;
		topics[stream].tails = calloc((size_t)topics[stream].n_partitions, sizeof(*topics[stream].tails));
		if (!topics[stream].tails) {
			snprintf(errstr, errstr_size, "out of memory");
			return -ENOMEM;
		}
	}
	return 0;
}

void replay_topics_free(struct replay_topic topics[STREAM_COUNT])
{
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		free(topics[stream].tails);
		topics[stream].tails = NULL;
	}
}
