/*
 * replay_send.h: the producer of a replay. Sends what the partitions do not hold yet, counts what becomes of it.
 */
#ifndef DAEMON_RECCTL_REPLAY_SEND_H
#define DAEMON_RECCTL_REPLAY_SEND_H

#include "daemon/recctl/replay_topics.h"

/* Exact once replay_sender_flush() has returned: sent = acknowledged + failed. */
struct replay_sent {
	uint64_t present;      /* already in the topic (--resume) */
	uint64_t sent;         /* handed to librdkafka */
	uint64_t acknowledged; /* the broker has them, on all in-sync replicas */
	uint64_t failed;       /* the broker refused them, or they were given up */
	uint64_t too_large;    /* not sent: above message.max.bytes */
};

struct replay_sender_config {
	const struct replay_cluster *cluster;
	const char *compression;
	int event_timestamps;  /* 1: a record's Kafka timestamp is its event time; 0: the time of sending */
	const struct replay_input *inputs;
	const volatile sig_atomic_t *stop; /* number of signals so far */
	void (*note)(void *ctx, const char *text); /* something the operator should see; from the thread that calls replay_sender_*() */
	void *ctx;
};

struct replay_sender;

/* *ret_sender is owned by the caller (replay_sender_close). 0; -EINVAL (a property), -ENOMEM. `config` is copied, what it points at is not. */
int replay_sender_open(const struct replay_sender_config *config, struct replay_sender **ret_sender, char *errstr, size_t errstr_size);
/* Gives up what is still queued. */
void replay_sender_close(struct replay_sender *sender);
rd_kafka_t *replay_sender_handle(struct replay_sender *sender);

/*
 * Waits until a broker answers: up to 15 s, or 3 s once all of them have refused. 0; -EINTR: *stop; -EIO: errstr says why (not there, no TLS, wrong password).
 */
int replay_sender_connect(struct replay_sender *sender, char *errstr, size_t errstr_size);

/* Must be called once before the first record. The topics must outlive the sender. 0 or -ENOMEM. */
int replay_sender_set_topics(struct replay_sender *sender, struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size);

/* Where a record goes. */
int32_t replay_sender_partition(const struct replay_sender *sender, const struct replay_record *record);

/*
 * Whether the record is already in its partition; must be asked once for each record, in the order of the merge, before it is sent. *ret_partition is where it
 * goes. 1: it is there, do not send it; 0: send it.
 */
int replay_sender_present(struct replay_sender *sender, const struct replay_record *record, int32_t *ret_partition);

/* Queues a record, waiting while the queue is full. 0 (also when it is too large and only counted); -EINTR: *stop; -EIO: a delivery failed; errstr says which. */
int replay_sender_send(struct replay_sender *sender, const struct replay_record *record, int32_t partition, char *errstr, size_t errstr_size);

/* Serves delivery reports for up to ms; returns early on *stop. */
void replay_sender_wait(struct replay_sender *sender, int ms);

/* Waits until everything queued is delivered or has failed; a second signal (counted from now) gives the rest up. 0; -EIO: something failed; errstr. */
int replay_sender_flush(struct replay_sender *sender, char *errstr, size_t errstr_size);

const struct replay_sent *replay_sender_counts(const struct replay_sender *sender, enum event_stream stream);

#endif
