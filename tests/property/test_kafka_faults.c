/*
 * test_kafka_faults.c: test F of the failure list. Short runs of the Kafka source, each with a schedule of faults drawn from its seed: brokers down, errors of every
 * request that the source makes, slow answers, leaders that move or are gone, a topic that is away, crashes and restarts. When the faults are over, each record
 * has been taken exactly once, nothing counts as lost, and nothing hangs. librdkafka's mock cluster plays the brokers.
 *
 * 50 runs times RECD_TEST_SCALE (20: a thousand), a few side by side, each in a process of its own. The seed of a run that fails is printed;
 * RECD_TEST_SEED=N RECD_TEST_RUNS=1 repeats its schedule, which fixes what happens, not when: the client has threads and a network.
 */
#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/ingest/kafka_world.h"

#define RUNS 50
#define SIDE_BY_SIDE 25
#define BROKERS 3
#define HANG_SEC 120 /* a poll that never returns */

enum { API_FETCH = 1, API_LIST_OFFSETS = 2, API_METADATA = 3, API_OFFSET_COMMIT = 8, API_FIND_COORDINATOR = 10 };
static const int16_t apis[] = {API_FETCH, API_FETCH, API_FETCH, API_LIST_OFFSETS, API_LIST_OFFSETS, API_METADATA, API_OFFSET_COMMIT, API_FIND_COORDINATOR};
static const rd_kafka_resp_err_t errors[] = {
	RD_KAFKA_RESP_ERR__TRANSPORT,           RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,    RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_UNKNOWN,
	RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,  RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,      RD_KAFKA_RESP_ERR_INVALID_MSG,
	RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What a checkpoint would hold, and what had been applied by then. */
struct cut {
	struct source_position positions[WORLD_PARTITIONS];
	size_t n_positions;
	unsigned seen[WORLD_NUMBERS];
	unsigned n_seen;
};

static struct world *w;
static struct cut cut;
static uint64_t random_state;
static int n_partitions, n_sent, sent[WORLD_PARTITIONS];

static unsigned below(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)((random_state * 0x2545F4914F6CDD1Du) >> 32) % n;
}

static void poll_some(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int r = world_poll(w);

		if (r != 0 && r != -EAGAIN)
			fail_msg("poll returned %d: %s\nlog:\n%s", r, w->errstr, w->log);
	}
}

static void save_cut(void)
{
	memcpy(cut.positions, w->positions, sizeof(cut.positions));
	memcpy(cut.seen, w->seen, sizeof(cut.seen));
	cut.n_positions = w->n_positions;
	cut.n_seen = w->n_seen;
}

static void crash(void)
{
	world_stop(w);
	memcpy(w->positions, cut.positions, sizeof(cut.positions));
	memcpy(w->seen, cut.seen, sizeof(cut.seen));
	w->n_positions = cut.n_positions;
	w->n_seen = cut.n_seen;
}

/* Everything as it should be; errors that were not met yet are forgotten. */
static void make_well(void)
{
	for (int i = 1; i <= BROKERS; i++) {
		rd_kafka_mock_broker_set_up(w->cluster, i);
		rd_kafka_mock_broker_set_rtt(w->cluster, i, 0);
	}
	for (size_t i = 0; i < COUNT(apis); i++)
		rd_kafka_mock_clear_request_errors(w->cluster, apis[i]);
	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR);
	for (int i = 0; i < n_partitions; i++)
		assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, i, 1 + (int)below(BROKERS)), 0);
}

/* Does the producer know the topic? It forgets one that was away. */
static int is_known(void)
{
	const struct rd_kafka_metadata *metadata;
	int known = 0;

	if (rd_kafka_metadata(w->producer, 1, NULL, &metadata, 5000))
		return 0;
	for (int i = 0; i < metadata->topic_cnt; i++)
		known |= strcmp(metadata->topics[i].topic, TOPIC) == 0 && metadata->topics[i].err == 0 && metadata->topics[i].partition_cnt == n_partitions;
	rd_kafka_metadata_destroy(metadata);
	return known;
}

/*
 * Records to one partition, whose leader is there and answers meanwhile: a producer that does not know what became of its records sends them twice, and it is not
 * the producer that is judged.
 */
static void send_some(void)
{
	int partition = (int)below((unsigned)n_partitions), leader = 1 + (int)below(BROKERS), n = 1 + (int)below(30);

	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR);
	rd_kafka_mock_broker_set_up(w->cluster, leader);
	assert_int_equal(rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, partition, leader), 0);
	for (int tries = 0; !is_known(); tries++)
		assert_true(tries < 100);
	world_numbers(w, partition, n_sent, n_sent + n);
	n_sent += n;
	sent[partition] += n;
}

static void inject_errors(void)
{
	rd_kafka_resp_err_t some[5];
	size_t n = 1 + below(COUNT(some));

	for (size_t i = 0; i < n; i++)
		some[i] = errors[below(COUNT(errors))];
	rd_kafka_mock_push_request_errors_array(w->cluster, apis[below(COUNT(apis))], n, some);
}

static void fault(void)
{
	switch (below(10)) {
	case 0:
		rd_kafka_mock_broker_set_down(w->cluster, below(3) ? 1 + (int)below(BROKERS) : -1);
		break;
	case 1:
		rd_kafka_mock_broker_set_rtt(w->cluster, 1 + (int)below(BROKERS), 1 + (int)below(100));
		break;
	case 2:
		rd_kafka_mock_partition_set_leader(w->cluster, TOPIC, (int)below((unsigned)n_partitions), below(3) ? 1 + (int)below(BROKERS) : -1);
		break;
	case 3:
		if (rd_kafka_version() < 0x02010000) /* later ones may end on the mock broker's answer; see test_source_kafka_trouble.c */
			rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
		break;
	case 4:
		crash();
		break;
	case 5:
		world_stop(w); /* it was asked to: nothing is forgotten */
		break;
	case 6:
		save_cut();
		if (w->source)
			source_commit(w->source, cut.positions, cut.n_positions);
		break;
	default:
		inject_errors();
		break;
	}
}

static void check_end(void)
{
	for (int i = 0; i < n_partitions; i++) {
		const struct source_position *position = world_position(w, i);

		assert_non_null(position);
		assert_int_equal(position->offset, sent[i]);
		assert_int_equal(position->lines, sent[i]);
		assert_int_equal(position->gaps + position->gap_bytes + position->holes + position->resets, 0);
	}
	assert_int_equal(world_wrong(w, 0, n_sent, 1), 0);
}

static void run(uint64_t seed)
{
	static char reconnect[] = "reconnect.backoff.max.ms", refetch[] = "fetch.error.backoff.ms", reconnect_ms[] = "200", refetch_ms[] = "20";
	static struct kafka_property quick[] = {{reconnect, reconnect_ms}, {refetch, refetch_ms}};
	unsigned steps;

	random_state = (seed + 1) * 0x9E3779B97F4A7C15u;
	n_partitions = 1 + (int)below(4);
	steps = 5 + below(20);
	alarm(HANG_SEC);
	w = world_on(BROKERS, n_partitions);
	w->config.properties = quick;
	w->config.n_properties = COUNT(quick);
	send_some();
	for (unsigned i = 0; i < steps; i++) {
		if (below(3) == 0)
			send_some();
		else
			fault();
		poll_some(below(20));
	}
	make_well();
	send_some();
	world_until(w, w->n_seen == (unsigned)n_sent && w->n_positions == (size_t)n_partitions);
	world_settle(w);
	check_end();
	world_until(w, !world_status(w).degraded);
	world_free(w);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- the processes ---- */

/* A client that librdkafka does not end is left to itself, with its threads and memory (see source_kafka.c): these are no leaks. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "report_thread_leaks=0";
}

int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

struct process {
	pid_t pid;
	uint64_t seed;
	FILE *output;
};

static void test_run(void **state)
{
	run(*(const uint64_t *)*state);
}

static void start(struct process *process, uint64_t seed)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(test_run, &seed)};

	process->seed = seed;
	process->output = tmpfile();
	fflush(stdout);
	process->pid = process->output ? fork() : -1;
	if (process->pid < 0) {
		perror("starting a run");
		exit(1);
	}
	if (process->pid > 0)
		return;
	dup2(fileno(process->output), 1);
	dup2(fileno(process->output), 2);
	exit(cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0);
}

/* Waits for one of them and frees its place. How many failed: 0 or 1. */
static int wait_for_one(struct process *processes)
{
	struct process *process = processes;
	int status, c;
	pid_t pid = wait(&status);

	while (process->pid != pid)
		process++;
	if (status != 0) {
		rewind(process->output);
		while ((c = getc(process->output)) != EOF)
			putchar(c);
		printf("FAILED: RECD_TEST_SEED=%" PRIu64 " RECD_TEST_RUNS=1 (%s %d)\n", process->seed, WIFSIGNALED(status) ? "signal" : "exit code",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	fclose(process->output);
	process->pid = 0;
	return status != 0;
}

int main(void)
{
	uint64_t scale = number_of("RECD_TEST_SCALE", 1), seed = number_of("RECD_TEST_SEED", (uint64_t)time(NULL));
	uint64_t runs = number_of("RECD_TEST_RUNS", RUNS * (scale < 1 ? 1 : scale));
	struct process processes[SIDE_BY_SIDE] = {{0}};
	int failed = 0, running = 0;

	printf("%" PRIu64 " runs, seeds from %" PRIu64 " on\n", runs, seed);
	for (uint64_t i = 0; i < runs; i++) {
		struct process *place = processes;

		if (running == SIDE_BY_SIDE) {
			failed += wait_for_one(processes);
			running--;
		}
		while (place->pid)
			place++;
		start(place, seed + i);
		running++;
	}
	for (; running > 0; running--)
		failed += wait_for_one(processes);
	printf("%s\n", failed ? "FAILED" : "passed");
	return failed ? 1 : 0;
}
