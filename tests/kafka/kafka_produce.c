/*
 * kafka_produce.c: a file's lines as records, in order, each once: the producer is idempotent and waits for minutes for a broker that is down.
 *
 * A line's key is the decimal number that follows "NAME": in it (none: no key). Transactions: all lines in one that is committed or aborted, or a committed
 * one every N lines, so that the log is full of markers, which are offsets without a record.
 */
#include "tests/kafka/kafka_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DELIVERY_MS 300000

struct production {
	rd_kafka_t *client;
	const struct arguments *args;
	rd_kafka_topic_t *topic;
	long n_sent, n_delivered, n_failed;
	char first_error[256];
	struct timespec began;
};

static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
	struct production *p = opaque;

	(void)client;
	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
		p->n_delivered++;
	} else if (message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) {
		return; /* of a transaction that was aborted */
	} else if (!p->n_failed++) {
		snprintf(p->first_error, sizeof(p->first_error), "%s", rd_kafka_err2str(message->err));
	}
}

/* The digits of the number that follows "name": in the line; NULL when there is none. */
static const char *key_of(const char *line, const char *name, size_t *ret_len)
{
	char quoted[128];
	const char *found;

	snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	found = strstr(line, quoted);
	if (!found)
		return NULL;
	found += strlen(quoted);
	found += strspn(found, " ");
	*ret_len = strspn(found, "0123456789");
	return *ret_len ? found : NULL;
}

/* Sleeps until the next record of an even rate is due. */
static void keep_rate(const struct production *p)
{
	struct timespec now, due = p->began;
	double at = (double)p->n_sent / p->args->rate;

	due.tv_sec += (time_t)at;
	due.tv_nsec += (long)((at - (double)(time_t)at) * 1e9);
	if (due.tv_nsec >= 1000000000L)
		due.tv_sec++, due.tv_nsec -= 1000000000L;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (due.tv_sec > now.tv_sec || (due.tv_sec == now.tv_sec && due.tv_nsec > now.tv_nsec))
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

/* value NULL: a tombstone. 0, or 1 with the error said. */
static int send_record(struct production *p, char *value, size_t len, const char *key, size_t key_len)
{
	int32_t partition = p->args->partition < 0 ? RD_KAFKA_PARTITION_UA : p->args->partition;

	if (p->args->rate > 0)
		keep_rate(p);
	while (rd_kafka_produce(p->topic, partition, RD_KAFKA_MSG_F_COPY, value, len, key, key_len, NULL) != 0) {
		if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			return fail("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
		rd_kafka_poll(p->client, 100);
	}
	p->n_sent++;
	rd_kafka_poll(p->client, 0);
	return p->n_failed ? fail("produce: %s", p->first_error) : 0;
}

static int check(const char *step, rd_kafka_error_t *error)
{
	int ret = error ? fail("%s: %s", step, rd_kafka_error_string(error)) : 0;

	if (error)
		rd_kafka_error_destroy(error);
	return ret;
}

static int transaction_begin(struct production *p)
{
	return p->args->transaction ? check("begin", rd_kafka_begin_transaction(p->client)) : 0;
}

static int transaction_end(struct production *p)
{
	if (!p->args->transaction)
		return 0;
	if (strcmp(p->args->transaction, "abort") != 0)
		return check("commit", rd_kafka_commit_transaction(p->client, DELIVERY_MS));
	rd_kafka_flush(p->client, DELIVERY_MS); /* the records must lie in the log: an abort would purge those that wait */
	return check("abort", rd_kafka_abort_transaction(p->client, DELIVERY_MS));
}

static int send_file(struct production *p, FILE *file)
{
	int marks = p->args->transaction && !strcmp(p->args->transaction, "marks");
	char *line = NULL, tombstone_key[32];
	size_t size = 0, key_len = 0;
	ssize_t len;
	int ret = transaction_begin(p);

	while (!ret && (len = getline(&line, &size, file)) > 0) {
		const char *key;

		if (line[len - 1] == '\n')
			line[--len] = '\0';
		key = key_of(line, p->args->key, &key_len);
		ret = send_record(p, line, (size_t)len, key, key ? key_len : 0);
		if (!ret && marks && p->n_sent % p->args->per_transaction == 0)
			ret = transaction_end(p) || transaction_begin(p);
	}
	for (int i = 0; i < p->args->tombstones && !ret; i++)
		ret = send_record(p, NULL, 0, tombstone_key, (size_t)snprintf(tombstone_key, sizeof(tombstone_key), "%d", i));
	free(line);
	return ret || transaction_end(p);
}

int command_produce(const struct arguments *args)
{
	char id[64];
	const char *const settings[] = { "enable.idempotence", "true", "linger.ms", "5", "message.timeout.ms", "300000", "compression.codec", "lz4",
					 "partitioner", "murmur2_random", args->transaction ? "transactional.id" : NULL, id, "transaction.timeout.ms", "300000", NULL };
	struct production p = { .args = args };
	FILE *file = strcmp(args->words[1], "-") ? fopen(args->words[1], "r") : stdin;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[512];
	int ret;

	if (!file)
		return fail("cannot read %s", args->words[1]);
	clock_gettime(CLOCK_MONOTONIC, &p.began);
	snprintf(id, sizeof(id), "kafka_tool-%ld-%ld", (long)p.began.tv_sec, p.began.tv_nsec);
	rd_kafka_conf_set(conf, "bootstrap.servers", args->brokers, errstr, sizeof(errstr));
	for (const char *const *s = settings; *s; s += 2)
		if (rd_kafka_conf_set(conf, s[0], s[1], errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			return fail("%s", errstr);
	rd_kafka_conf_set_log_cb(conf, NULL);
	rd_kafka_conf_set_opaque(conf, &p);
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	p.client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (!p.client)
		return fail("%s", errstr);
	p.topic = rd_kafka_topic_new(p.client, args->words[0], NULL);
	ret = args->transaction ? check("transactions", rd_kafka_init_transactions(p.client, DELIVERY_MS)) : 0;
	ret = ret || send_file(&p, file);
	if (!ret && rd_kafka_flush(p.client, DELIVERY_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
		ret = fail("produce: %d records were not delivered in time", rd_kafka_outq_len(p.client));
	if (!ret && p.n_failed)
		ret = fail("produce: %ld records failed: %s", p.n_failed, p.first_error);
	if (!ret)
		printf("%ld\n", p.n_sent);
	if (file != stdin)
		fclose(file);
	rd_kafka_topic_destroy(p.topic);
	rd_kafka_destroy(p.client);
	return ret;
}
