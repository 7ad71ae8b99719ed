/*
 * replay_topics.h: the topics a replay writes to, and how far each of their partitions has got.
 */
#ifndef DAEMON_RECCTL_REPLAY_TOPICS_H
#define DAEMON_RECCTL_REPLAY_TOPICS_H

#include <librdkafka/rdkafka.h>
#include <signal.h>

#include "daemon/recctl/replay_plan.h"
#include "ingest/kafka_client.h"

/* A partition: the last record of this replay that it held at the start, and how far the merge has come. */
struct replay_tail {
	int there;           /* 1: it held one, and replay_resume_check() has not met that one in the files yet */
	int64_t kafka_offset;
	struct replay_origin origin;
	uint64_t value_hash; /* of the record's value */
	uint64_t n_held;     /* records of this replay that it held: the first so many of the merge are not sent */
	uint64_t n_merged;   /* the merge has given so many to the partition */
	uint64_t sequence;   /* replay_sequence_next() of these */
	int opened;          /* the broker has acknowledged a record of this producer in the partition */
};

struct replay_topic {
	const char *name;          /* NULL: nothing is sent to it */
	int32_t n_partitions;
	uint64_t replay_id;
	struct replay_tail *tails; /* [n_partitions] */
};

struct replay_cluster {
	const char *brokers;
	const struct kafka_property *properties;
	size_t n_properties;
};

/* kafka_client_words() of the cluster's brokers, with the values of its properties taken out of `detail` (librdkafka's text, or NULL). */
void replay_cluster_words(const struct replay_cluster *cluster, rd_kafka_resp_err_t err, const char *topic, const char *detail, char *ret_text, size_t size);

/* rd_kafka_new(): takes `conf` over, also when it fails. 0; -EINVAL: errstr has librdkafka's words without the values of properties. */
int replay_cluster_client(const struct replay_cluster *cluster, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **ret_client, char *errstr,
                          size_t errstr_size);

struct replay_create {
	int wanted;
	int32_t n_partitions, replication;
};

/*
 * Looks each named topic up (never making one by asking), creates the missing ones when that is wanted, and fills n_partitions and tails (empty). The caller
 * frees with replay_topics_free(). 0; -ENOENT (a topic is missing), -EIO (the brokers refuse or do not answer), -ENOMEM: errstr says what and the mend.
 */
int replay_topics_find(rd_kafka_t *producer, const struct replay_cluster *cluster, const struct replay_create *create,
                       struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size);
void replay_topics_free(struct replay_topic topics[STREAM_COUNT]);

/*
 * Reads the ends of all partitions back and fills the tails. Repeats until a pass a second later finds nothing new, because the broker may still be taking
 * what a killed replay had sent. 0; -EINVAL: the topic holds another replay of these files and nothing of this one; -ESTALE: the broker has removed records, so
 * that nothing can be said; -EINTR: *stop; -EIO, -ENOMEM. errstr says which topic and partition.
 */
int replay_tails_read(const struct replay_cluster *cluster, const struct replay_plan *plan, struct replay_topic topics[STREAM_COUNT],
                      const volatile sig_atomic_t *stop, char *errstr, size_t errstr_size);

#endif
