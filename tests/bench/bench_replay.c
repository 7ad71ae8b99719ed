/*
 * bench_replay.c: `recctl replay` at full speed beside a bare idempotent producer that sends the same bytes from memory to the same broker.
 *
 * Usage: RECD_BENCH_KAFKA=HOST:PORT bench_replay DATA_DIR [rounds]. Each round sends everything in turn by the bare producer with the headers of replay (the
 * same bytes on the wire), by the bare producer without headers, and by `recctl replay` (RECCTL), each to new topics of 4 partitions. Wall-clock time is from
 * the first record to the last acknowledgement; for replay it is that of the whole process, start and reading included. CPU time counts all threads.
 * Prints, asserts nothing.
 */
#include "daemon/recctl/replay_send.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 20
#define N_PARTITIONS 4

enum kind { BARE_HEADERS, BARE, REPLAY, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = { "bare, same bytes", "bare, no headers", "recctl replay" };

struct memory {
	struct replay_plan plan;
	struct replay_record *records;
	char *text;
	size_t n, bytes;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_replay: %s\n", what);
	exit(1);
}

static double wall_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu_s(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Runs the merge; NULL text: only counts. */
static void run_merge(struct memory *memory)
{
	const struct replay_merge_config config = { .inputs = memory->plan.inputs, .n_inputs = memory->plan.n_inputs, .from_us = INT64_MIN, .to_us = INT64_MAX };
	struct replay_merge *merge = NULL;
	struct replay_record record;
	char errstr[512];

	memory->n = memory->bytes = 0;
	if (replay_merge_open(&config, &merge, errstr, sizeof(errstr)))
		die(errstr);
	while (replay_merge_next(merge, &record, errstr, sizeof(errstr)) > 0) {
		if (memory->text) {
			memcpy(memory->text + memory->bytes, record.text, record.len);
			record.text = memory->text + memory->bytes;
			memory->records[memory->n] = record;
		}
		memory->bytes += record.len;
		memory->n++;
	}
	replay_merge_close(merge);
}

/* All records in the order of the merge. */
static void load(const char *data_dir, struct memory *memory)
{
	char errstr[512];

	if (replay_plan_begin(NULL, NULL, NULL, NULL, &memory->plan, errstr, sizeof(errstr)) ||
	    replay_plan_add_folder(&memory->plan, data_dir, errstr, sizeof(errstr)) || replay_plan_finish(&memory->plan, errstr, sizeof(errstr)))
		die(errstr);
	run_merge(memory);
	memory->text = malloc(memory->bytes + 1);
	memory->records = malloc((memory->n + 1) * sizeof(*memory->records));
	if (!memory->text || !memory->records)
		die("out of memory");
	run_merge(memory);
}

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	(void)rk;
	*(size_t *)opaque += !message->err;
}

static rd_kafka_t *producer_new(const char *brokers, size_t *n_delivered)
{
	static const char *const settings[][2] = { { "enable.idempotence", "true" }, { "compression.type", "lz4" }, { "linger.ms", "20" },
		                                   { "batch.num.messages", "50000" }, { "queue.buffering.max.messages", "200000" },
		                                   { "queue.buffering.max.kbytes", "262144" } };
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[256];

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, errstr, sizeof(errstr));
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		rd_kafka_conf_set(conf, settings[i][0], settings[i][1], errstr, sizeof(errstr));
	rd_kafka_conf_set_opaque(conf, n_delivered);
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr));
	if (!rk)
		die(errstr);
	return rk;
}

static rd_kafka_resp_err_t produce(rd_kafka_t *rk, rd_kafka_topic_t *rkt, const struct replay_record *record, const char *key, const char *origin, size_t origin_len)
{
	if (!origin) {
		return rd_kafka_produce(rkt, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)record->text, record->len, key, strlen(key), NULL)
		               ? rd_kafka_last_error()
		               : RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	return rd_kafka_producev(rk, RD_KAFKA_V_RKT(rkt), RD_KAFKA_V_PARTITION(RD_KAFKA_PARTITION_UA), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
	                         RD_KAFKA_V_VALUE((void *)(uintptr_t)record->text, record->len), RD_KAFKA_V_KEY(key, strlen(key)),
	                         RD_KAFKA_V_HEADER(REPLAY_ORIGIN_HEADER, origin, (ssize_t)origin_len), RD_KAFKA_V_END);
}

static void run_bare(const char *brokers, const struct memory *memory, const char *prefix, int headers, double *ret_wall_s, double *ret_cpu_s)
{
	const struct replay_cluster cluster = { .brokers = brokers };
	const struct replay_create create = { .wanted = 1, .n_partitions = N_PARTITIONS, .replication = 1 };
	struct replay_topic topics[STREAM_COUNT] = { 0 };
	rd_kafka_topic_t *rkts[STREAM_COUNT] = { 0 };
	struct replay_plan names;
	size_t n_delivered = 0;
	char errstr[512], key[24], origin[REPLAY_ORIGIN_MAX];
	rd_kafka_t *rk = producer_new(brokers, &n_delivered);

	replay_plan_begin(NULL, NULL, prefix, NULL, &names, errstr, sizeof(errstr));
	for (int stream = 0; stream < STREAM_COUNT; stream++)
		topics[stream].name = names.topics[stream];
	if (replay_topics_find(rk, &cluster, &create, topics, errstr, sizeof(errstr)))
		die(errstr);
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		rd_kafka_topic_conf_t *conf = rd_kafka_topic_conf_new();

		rd_kafka_topic_conf_set(conf, "partitioner", "murmur2_random", errstr, sizeof(errstr));
		rkts[stream] = rd_kafka_topic_new(rk, topics[stream].name, conf);
	}
	double begin_s = wall_s(), begin_cpu_s = cpu_s(RUSAGE_SELF);
	for (size_t i = 0; i < memory->n; i++) {
		const struct replay_record *record = &memory->records[i];
		const struct replay_input *input = &memory->plan.inputs[record->input];
		size_t origin_len = headers ? replay_origin_write(input->name, input->content_id, record->offset, record->len, 1, (uint32_t)(i * 2654435761u), origin) : 0;

		snprintf(key, sizeof(key), "%lld", (long long)record->key);
		while (produce(rk, rkts[record->stream], record, key, headers ? origin : NULL, origin_len) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
			rd_kafka_poll(rk, 20);
		if (i % 512 == 0)
			rd_kafka_poll(rk, 0);
	}
	rd_kafka_flush(rk, 60000);
	*ret_wall_s = wall_s() - begin_s;
	*ret_cpu_s = cpu_s(RUSAGE_SELF) - begin_cpu_s;
	if (n_delivered != memory->n)
		die("not everything was delivered");
	for (int stream = 0; stream < STREAM_COUNT; stream++)
		rd_kafka_topic_destroy(rkts[stream]);
	rd_kafka_destroy(rk);
	replay_topics_free(topics);
}

static void run_replay(const char *brokers, const char *recctl, const char *data_dir, const char *prefix, double *ret_wall_s, double *ret_cpu_s)
{
	double begin_s = wall_s(), begin_cpu_s = cpu_s(RUSAGE_CHILDREN);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(126);
		execl(recctl, recctl, "replay", "--brokers", brokers, "--data_dir", data_dir, "--topic_prefix", prefix, "--create", "--partitions", "4", (char *)NULL);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		die("recctl replay failed");
	*ret_wall_s = wall_s() - begin_s;
	*ret_cpu_s = cpu_s(RUSAGE_CHILDREN) - begin_cpu_s;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	const char *brokers = getenv("RECD_BENCH_KAFKA"), *recctl = getenv("RECCTL") ? getenv("RECCTL") : "build/recctl";
	int rounds = argc > 2 ? atoi(argv[2]) : 3;
	double wall[KIND_COUNT][ROUNDS_MAX], cpu[KIND_COUNT][ROUNDS_MAX];
	struct memory memory = { 0 };

	if (!brokers || argc < 2) {
		printf("SKIP: needs a broker and logs: RECD_BENCH_KAFKA=$(scripts/kafka-dev start) bench_replay DATA_DIR [rounds]\n");
		return 0;
	}
	if (rounds < 1 || rounds > ROUNDS_MAX)
		die("rounds: 1 to 20");
	load(argv[1], &memory);
	printf("%zu records, %.1f MB of values\n", memory.n, (double)memory.bytes * 1e-6);
	for (int round = 0; round < rounds; round++) {
		for (int kind = 0; kind < KIND_COUNT; kind++) {
			char prefix[64];

			snprintf(prefix, sizeof(prefix), "bench-%ld-%d-%d.", (long)getpid(), round, kind);
			if (kind == REPLAY)
				run_replay(brokers, recctl, argv[1], prefix, &wall[kind][round], &cpu[kind][round]);
			else
				run_bare(brokers, &memory, prefix, kind == BARE_HEADERS, &wall[kind][round], &cpu[kind][round]);
			printf("  round %d  %-16s  %6.2f s wall  %6.2f s CPU\n", round + 1, kind_names[kind], wall[kind][round], cpu[kind][round]);
			fflush(stdout);
		}
	}
	for (int kind = 0; kind < KIND_COUNT; kind++) {
		qsort(wall[kind], (size_t)rounds, sizeof(double), by_value);
		qsort(cpu[kind], (size_t)rounds, sizeof(double), by_value);
	}
	for (int kind = 0; kind < KIND_COUNT; kind++) {
		double w = wall[kind][rounds / 2], c = cpu[kind][rounds / 2];

		printf("%-16s  median %8.0f records/s  %8.0f a CPU-second", kind_names[kind], (double)memory.n / w, (double)memory.n / c);
		if (kind == REPLAY)
			printf("   %.0f %% of bare with the same bytes (CPU %.0f %%), %.0f %% of bare without headers", 100 * wall[BARE_HEADERS][rounds / 2] / w,
			       100 * cpu[BARE_HEADERS][rounds / 2] / c, 100 * wall[BARE][rounds / 2] / w);
		printf("\n");
	}
	free(memory.records);
	free(memory.text);
	replay_plan_free(&memory.plan);
	return 0;
}
