/*
 * replay_send.c: an idempotent producer, and how --resume neither repeats nor leaves out a line.
 *
 * Main thread of recctl; librdkafka's threads compress and send; delivery reports are served on the main thread.
 *
 * How resuming works. The merge puts the lines of a topic's files into one order that depends only on the files and the range of time, and a line's
 * partition depends only on its key and the number of partitions. So each partition has one fixed sequence of records. An idempotent producer with gapless
 * guarantee writes them in that order without repeats, and stops for good rather than leave one out. Therefore a partition always holds a beginning of its
 * sequence, wherever the replay was killed, although the partitions are not equally far. To go on, the last record in each partition is read back
 * (replay_tails.c) and looked for in the merge (replay_resume.c); then the merge runs again from the first line, and of each partition's records as many as it holds
 * are passed over. Comparing places in the merge, not bytes in files, makes this right with several files in a topic. The replay's id in the header is a hash of
 * what the files begin with, the range of time and the number of partitions; the hash of the sequence in the header catches files that were changed further on.
 *
 * Brokers check that a producer's sequence numbers have no gap, but of a producer they have not met in a partition yet they take any. Were the first
 * batch refused and the second, already under way, taken, there would be a hole. So the first record to each partition is sent alone and waited for.
 */
#include "daemon/recctl/replay_send.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 15000
#define REFUSED_MS 3000
#define POLL_EVERY 512 /* records between two looks at delivery reports */

struct replay_sender {
	struct replay_sender_config config;
	rd_kafka_t *rk;
	rd_kafka_topic_t *rkts[STREAM_COUNT];
	struct replay_topic *topics; /* [STREAM_COUNT] */
	struct replay_sent counts[STREAM_COUNT];
	uint32_t since_poll;
	int failed;
	int failure_is_vague;        /* it only says that librdkafka gave up; the record that made it do so will say why */
	char failure[512];           /* of the first delivery that failed */
	rd_kafka_resp_err_t noted;   /* the trouble with the brokers that was told last, and is not over */
	char trouble[400];           /* its words */
	int connected;
};

static void note_failure(struct replay_sender *sender, rd_kafka_resp_err_t err, const char *topic, int32_t partition, const char *detail)
{
	char words[400];

	if (sender->failed && !sender->failure_is_vague)
		return;
	sender->failed = 1;
	sender->failure_is_vague = partition < 0;
	replay_cluster_words(sender->config.cluster, err, topic, detail, words, sizeof(words));
	if (partition >= 0)
		snprintf(sender->failure, sizeof(sender->failure), "topic \"%s\", partition %d: %s", topic, partition, words);
	else
		snprintf(sender->failure, sizeof(sender->failure), "%s", words);
}

/* A record was acknowledged or has failed. Its opaque is the counts of its stream. */
static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	struct replay_sent *counts = message->_private;
	struct replay_sender *sender = opaque;

	(void)rk;
	if (!message->err) {
		counts->acknowledged++;
		sender->noted = RD_KAFKA_RESP_ERR_NO_ERROR; /* the trouble is over: the next one is told again */
		return;
	}
	counts->failed++;
	if (message->err != RD_KAFKA_RESP_ERR__PURGE_QUEUE && message->err != RD_KAFKA_RESP_ERR__PURGE_INFLIGHT && message->err != RD_KAFKA_RESP_ERR__FATAL)
		note_failure(sender, message->err, rd_kafka_topic_name(message->rkt), message->partition, NULL);
}

/* Trouble with the brokers. librdkafka goes on by itself, unless it is fatal. */
static void trouble(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	struct replay_sender *sender = opaque;
	rd_kafka_resp_err_t code = err;
	char detail[256];

	if (code == RD_KAFKA_RESP_ERR__FATAL) {
		code = rd_kafka_fatal_error(rk, detail, sizeof(detail));
		note_failure(sender, code, "", -1, detail);
		return;
	}
	if (code == sender->noted || (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && sender->noted && !sender->connected))
		return; /* before the first answer, the reason of a refusal says more than that all refuse */
	sender->noted = code;
	replay_cluster_words(sender->config.cluster, code, "", reason, sender->trouble, sizeof(sender->trouble));
	if (sender->connected && sender->config.note)
		sender->config.note(sender->config.ctx, sender->trouble);
}

static void no_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	(void)rk;
	(void)level;
	(void)facility;
	(void)text; /* what matters comes through trouble() and delivered() */
}

int replay_sender_open(const struct replay_sender_config *config, struct replay_sender **ret_sender, char *errstr, size_t errstr_size)
{
	const struct kafka_setting defaults[] = {
		{ "compression.type", config->compression }, { "linger.ms", "20" }, { "batch.num.messages", "50000" }, { "queue.buffering.max.messages", "50000" },
		{ "queue.buffering.max.kbytes", "262144" },  { "message.send.max.retries", "2147483647" }, { "message.timeout.ms", "300000" },
	};
	static const struct kafka_setting fixed[] = { { "enable.idempotence", "true" }, { "enable.gapless.guarantee", "true" }, { "acks", "all" },
		                                      { "partitioner", "murmur2_random" } };
	struct replay_sender *sender = calloc(1, sizeof(*sender));
	rd_kafka_conf_t *conf = NULL;

	if (!sender) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	sender->config = *config;
	int rc = kafka_client_conf(config->cluster->brokers, defaults, sizeof(defaults) / sizeof(defaults[0]), fixed, sizeof(fixed) / sizeof(fixed[0]),
	                           config->cluster->properties, config->cluster->n_properties, &conf, errstr, errstr_size);
	if (!rc) {
		rd_kafka_conf_set_opaque(conf, sender);
		rd_kafka_conf_set_dr_msg_cb(conf, delivered);
		rd_kafka_conf_set_error_cb(conf, trouble);
		rd_kafka_conf_set_log_cb(conf, no_log);
		rc = replay_cluster_client(config->cluster, RD_KAFKA_PRODUCER, conf, &sender->rk, errstr, errstr_size);
	}
	if (rc) {
		free(sender);
		return rc;
	}
	*ret_sender = sender;
	return 0;
}

void replay_sender_close(struct replay_sender *sender)
{
	if (!sender)
		return;
	if (rd_kafka_outq_len(sender->rk) > 0) {
		rd_kafka_purge(sender->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		rd_kafka_flush(sender->rk, 1000);
	}
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		if (sender->rkts[stream])
			rd_kafka_topic_destroy(sender->rkts[stream]);
	}
	rd_kafka_destroy(sender->rk);
	free(sender);
}

rd_kafka_t *replay_sender_handle(struct replay_sender *sender)
{
	return sender->rk;
}

int replay_sender_connect(struct replay_sender *sender, char *errstr, size_t errstr_size)
{
	const struct rd_kafka_metadata *metadata = NULL;
	int waited_ms = 0;

	while (waited_ms < (sender->noted ? REFUSED_MS : CONNECT_MS)) {
		if (*sender->config.stop) {
			snprintf(errstr, errstr_size, "stopped by a signal before anything was sent");
			return -EINTR;
		}
		if (!rd_kafka_metadata(sender->rk, 0, NULL, &metadata, 500)) {
			rd_kafka_metadata_destroy(metadata);
			sender->connected = 1;
			sender->noted = RD_KAFKA_RESP_ERR_NO_ERROR;
			return 0;
		}
		rd_kafka_poll(sender->rk, 0);
		waited_ms += 500;
	}
	if (!sender->noted)
		replay_cluster_words(sender->config.cluster, RD_KAFKA_RESP_ERR__TIMED_OUT, "", NULL, sender->trouble, sizeof(sender->trouble));
	snprintf(errstr, errstr_size, "%s", sender->trouble);
	return -EIO;
}

int replay_sender_set_topics(struct replay_sender *sender, struct replay_topic topics[STREAM_COUNT], char *errstr, size_t errstr_size)
{
	sender->topics = topics;
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		if (!topics[stream].name)
			continue;
		sender->rkts[stream] = rd_kafka_topic_new(sender->rk, topics[stream].name, NULL);
		if (!sender->rkts[stream]) {
			snprintf(errstr, errstr_size, "topic \"%s\": %s", topics[stream].name, rd_kafka_err2str(rd_kafka_last_error()));
			return -ENOMEM;
		}
	}
	return 0;
}

/* The key's decimal digits into out[24]; returns how many. */
static size_t put_key(int64_t key, char out[24])
{
	char digits[24];
	size_t n = 0, at = 0;

	do {
		digits[n++] = (char)('0' + key % 10);
		key /= 10;
	} while (key);
	while (n)
		out[at++] = digits[--n];
	return at;
}

int32_t replay_sender_partition(const struct replay_sender *sender, const struct replay_record *record)
{
	char key[24];

	return rd_kafka_msg_partitioner_murmur2(sender->rkts[record->stream], key, put_key(record->key, key), sender->topics[record->stream].n_partitions, NULL, NULL);
}

int replay_sender_present(struct replay_sender *sender, const struct replay_record *record, int32_t *ret_partition)
{
	*ret_partition = replay_sender_partition(sender, record);
	struct replay_tail *tail = &sender->topics[record->stream].tails[*ret_partition];

	tail->sequence = replay_sequence_next(tail->sequence, sender->config.inputs[record->input].content_id, record->offset, record->text, record->len);
	if (tail->n_merged++ >= tail->n_held)
		return 0;
	sender->counts[record->stream].present++;
	return 1;
}

/* One try. 0 or an error of librdkafka. */
static rd_kafka_resp_err_t produce(struct replay_sender *sender, const struct replay_record *record, int32_t partition, const char *key, size_t key_len)
{
	const struct replay_input *input = &sender->config.inputs[record->input];
	char origin[REPLAY_ORIGIN_MAX];
	const struct replay_topic *topic = &sender->topics[record->stream];
	size_t origin_len = replay_origin_write(input->name, input->content_id, record->offset, record->len, topic->replay_id,
	                                        (uint32_t)topic->tails[partition].sequence, origin);
	int64_t timestamp_ms = sender->config.event_timestamps && record->time_us != INT64_MIN ? record->time_us / 1000 : 0;
	rd_kafka_vu_t vus[] = {
		{ .vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = sender->rkts[record->stream] },
		{ .vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition },
		{ .vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY },
		{ .vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = { .ptr = (void *)(uintptr_t)record->text, .size = record->len } },
		{ .vtype = RD_KAFKA_VTYPE_KEY, .u.mem = { .ptr = (void *)(uintptr_t)key, .size = key_len } },
		{ .vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = timestamp_ms },
		{ .vtype = RD_KAFKA_VTYPE_HEADER, .u.header = { .name = REPLAY_ORIGIN_HEADER, .val = origin, .size = (ssize_t)origin_len } },
		{ .vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = &sender->counts[record->stream] },
	};
	rd_kafka_error_t *error = rd_kafka_produceva(sender->rk, vus, sizeof(vus) / sizeof(vus[0]));

	if (!error)
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	rd_kafka_resp_err_t code = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
	return code;
}

/* Waits until the first record to a partition is acknowledged, with everything else that is queued. */
static void open_partition(struct replay_sender *sender)
{
	while (rd_kafka_outq_len(sender->rk) > 0 && !sender->failed && !*sender->config.stop)
		rd_kafka_flush(sender->rk, 50);
}

static int failed(struct replay_sender *sender, char *errstr, size_t errstr_size)
{
	snprintf(errstr, errstr_size, "%s", sender->failure);
	return -EIO;
}

int replay_sender_send(struct replay_sender *sender, const struct replay_record *record, int32_t partition, char *errstr, size_t errstr_size)
{
	struct replay_sent *counts = &sender->counts[record->stream];
	struct replay_tail *tail = &sender->topics[record->stream].tails[partition];
	rd_kafka_resp_err_t err;
	char key[24];
	size_t key_len = put_key(record->key, key);

	if (++sender->since_poll >= POLL_EVERY) {
		sender->since_poll = 0;
		rd_kafka_poll(sender->rk, 0);
	}
	while (!sender->failed && !*sender->config.stop) {
		err = produce(sender, record, partition, key, key_len);
		if (!err) {
			counts->sent++;
			if (!tail->opened)
				open_partition(sender);
			tail->opened = 1;
			return sender->failed ? failed(sender, errstr, errstr_size) : 0;
		}
		if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) {
			counts->too_large++;
			return 0;
		}
		if (err == RD_KAFKA_RESP_ERR__FATAL)
			rd_kafka_poll(sender->rk, 100); /* trouble() is told */
		else if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			note_failure(sender, err, sender->topics[record->stream].name, partition, NULL);
		else
			rd_kafka_poll(sender->rk, 20);
	}
	return sender->failed ? failed(sender, errstr, errstr_size) : -EINTR;
}

void replay_sender_wait(struct replay_sender *sender, int ms)
{
	sig_atomic_t before = *sender->config.stop;

	while (ms > 0 && !sender->failed && *sender->config.stop == before) {
		int slice = ms < 50 ? ms : 50;

		rd_kafka_poll(sender->rk, slice);
		ms -= slice;
	}
}

int replay_sender_flush(struct replay_sender *sender, char *errstr, size_t errstr_size)
{
	sig_atomic_t before = *sender->config.stop;
	int given_up = 0;

	while (rd_kafka_outq_len(sender->rk) > 0) {
		if ((sender->failed || *sender->config.stop != before) && !given_up++)
			rd_kafka_purge(sender->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		rd_kafka_flush(sender->rk, 100);
	}
	if (sender->failed)
		return failed(sender, errstr, errstr_size);
	if (given_up) {
		snprintf(errstr, errstr_size, "stopped by a second signal before everything queued was delivered");
		return -EIO;
	}
	return 0;
}

const struct replay_sent *replay_sender_counts(const struct replay_sender *sender, enum event_stream stream)
{
	return &sender->counts[stream];
}
