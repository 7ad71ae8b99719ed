/*
 * test_sources.c: the source threads with sources that do as the test says: which are opened with what, one queue for a stream's files and topic, stopping
 * apart from closing (a commit in between), data lost that must not be, and heartbeats of twice as many sources as streams. source_files_open() and
 * source_kafka_open() here stand in for ingest's at link time.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/sources.h"

#define PATIENCE_MS 20000

/* ---- sources of the test's own ---- */

struct fake {
	struct source base;
	int kafka;
	enum event_stream stream;
	atomic_int batches; /* to deliver; then -EAGAIN */
	atomic_int ends;    /* -errno to end with */
	atomic_int polls, woken, commits, closed;
	int64_t committed;
	struct source_kafka_config config; /* as it was opened */
};
static struct fake fakes[SOURCE_SET_MAX];
static size_t n_fakes;
static int open_error;

static int fake_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size)
{
	struct fake *fake = (struct fake *)source;
	const int end = atomic_load(&fake->ends);

	(void)timeout_ms;
	atomic_fetch_add(&fake->polls, 1);
	if (end != 0) {
		snprintf(errstr, errstr_size, "topic t, partition 3: 7 records are lost\nset kafka.on_gap = \"accept\" to go on");
		return end;
	}
	if (atomic_load(&fake->batches) == 0) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		return -EAGAIN;
	}
	atomic_fetch_sub(&fake->batches, 1);
	assert_int_equal(batch->stream, fake->stream);
	snprintf(batch->position.name, sizeof(batch->position.name), "%s", fake->kafka ? "kafka" : "files");
	return 0;
}

static void fake_wake(struct source *source)
{
	atomic_fetch_add(&((struct fake *)source)->woken, 1);
}

static void fake_status(struct source *source, struct source_status *ret_status)
{
	struct fake *fake = (struct fake *)source;

	memset(ret_status, 0, sizeof(*ret_status));
	snprintf(ret_status->name, sizeof(ret_status->name), "%s:%s", fake->kafka ? "kafka" : "files", event_stream_name(fake->stream));
	ret_status->heartbeat = (uint64_t)atomic_load(&fake->polls);
}

static size_t fake_partitions(struct source *source, struct partition_status *ret_partitions, size_t max)
{
	struct fake *fake = (struct fake *)source;

	for (int i = 0; i < 3 && (size_t)i < max; i++) {
		memset(&ret_partitions[i], 0, sizeof(ret_partitions[i]));
		snprintf(ret_partitions[i].name, sizeof(ret_partitions[i].name), "%s:%d", event_stream_name(fake->stream), i);
	}
	return 3;
}

static void fake_commit(struct source *source, const struct source_position *positions, size_t n_positions)
{
	struct fake *fake = (struct fake *)source;

	assert_int_equal(n_positions, 1);
	assert_int_equal(atomic_load(&fake->closed), 0);
	fake->committed = positions[0].offset;
	atomic_fetch_add(&fake->commits, 1);
}

static void fake_close(struct source *source)
{
	atomic_fetch_add(&((struct fake *)source)->closed, 1);
}

static const struct source_ops files_ops = { .kind = "files", .poll = fake_poll, .wake = fake_wake, .status = fake_status, .close = fake_close };
static const struct source_ops kafka_ops = {
	.kind = "kafka", .poll = fake_poll, .wake = fake_wake, .status = fake_status, .partitions = fake_partitions, .commit = fake_commit, .close = fake_close,
};

int source_files_open(const struct source_files_config *config, const struct source_position *positions, size_t n_positions, struct source **ret_source,
                      char *errstr, size_t errstr_size)
{
	struct fake *fake = &fakes[n_fakes++];

	(void)positions;
	(void)n_positions;
	(void)errstr;
	(void)errstr_size;
	assert_true(config->n_globs > 0);
	fake->base.ops = &files_ops;
	fake->stream = config->stream;
	*ret_source = &fake->base;
	return 0;
}

int source_kafka_open(const struct source_kafka_config *config, const struct source_position *positions, size_t n_positions, struct source **ret_source,
                      char *errstr, size_t errstr_size)
{
	struct fake *fake = &fakes[n_fakes];

	assert_int_equal(n_positions, 1);
	assert_string_equal(positions[0].name, "of the cut");
	if (open_error != 0) {
		snprintf(errstr, errstr_size, "no such property");
		return open_error;
	}
	n_fakes++;
	fake->base.ops = &kafka_ops;
	fake->kafka = 1;
	fake->stream = config->stream;
	fake->config = *config;
	*ret_source = &fake->base;
	return 0;
}

/* ---- the tests ---- */

static struct config config;
static struct queue_set *queues;
static struct source_set *sources;
static char errstr[512];

static int open_set(void)
{
	static const struct source_position cut = { .name = "of the cut" };
	static const int enabled[STREAM_COUNT] = { 1, 1, 1, 1, 1 };

	assert_int_equal(queue_set_new(4, enabled, &queues), 0);
	return source_set_open(&config, &cut, 1, queues, &sources, errstr, sizeof(errstr));
}

static int setup(void **state)
{
	(void)state;
	memset(fakes, 0, sizeof(fakes));
	n_fakes = 0;
	open_error = 0;
	config_default(&config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (queues != NULL)
		queue_set_close(queues);
	source_set_close(sources);
	queue_set_free(queues);
	sources = NULL;
	queues = NULL;
	config_free(&config);
	return 0;
}

static void with_files(enum event_stream stream)
{
	config.streams[stream].files = calloc(1, sizeof(char *));
	assert_non_null(config.streams[stream].files);
	config.streams[stream].files[0] = strdup("/x");
	config.streams[stream].n_files = 1;
}

static void with_topic(enum event_stream stream)
{
	config.streams[stream].topic = strdup("t");
}

/* Waits until `value` is at least `wanted`. */
static void wait_for(atomic_int *value, int wanted)
{
	for (int waited = 0; atomic_load(value) < wanted; waited++) {
		if (waited > PATIENCE_MS)
			fail_msg("not there in %d s", PATIENCE_MS / 1000);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void each_gets_its_configuration(void **state)
{
	struct partition_range range = { 2, 5 };
	struct kafka_property property = { (char *)(uintptr_t)"client.id", (char *)(uintptr_t)"x" };

	(void)state;
	with_files(STREAM_WATCHES);
	with_topic(STREAM_WATCHES);
	with_topic(STREAM_USERS);
	config.streams[STREAM_USERS].from_end = 1;
	config.kafka.brokers = strdup("b:1");
	config.kafka.accept_gaps = 1;
	config.kafka.metadata_interval_ms = 77;
	config.limits.depth_max = 9;
	config.kafka.partitions.ranges = &range;
	config.kafka.partitions.n_ranges = 1;
	config.kafka.properties.properties = &property;
	config.kafka.properties.n = 1;
	assert_int_equal(open_set(), 0);
	config.kafka.partitions.ranges = NULL;
	config.kafka.properties.properties = NULL;
	config.kafka.properties.n = 0;
	assert_int_equal(source_set_count(sources), 3);
	assert_int_equal(fakes[0].kafka, 0);
	assert_int_equal(fakes[0].stream, STREAM_WATCHES);
	assert_int_equal(fakes[1].kafka, 1);
	assert_int_equal(fakes[1].stream, STREAM_WATCHES);
	assert_int_equal(fakes[1].config.from_end, 0);
	assert_int_equal(fakes[2].stream, STREAM_USERS);
	const struct source_kafka_config *told = &fakes[2].config;

	assert_string_equal(told->topic, "t");
	assert_string_equal(told->brokers, "b:1");
	assert_string_equal(told->group, "recd");
	assert_int_equal(told->from_end, 1);
	assert_int_equal(told->accept_gaps, 1);
	assert_int_equal(told->metadata_interval_ms, 77);
	assert_int_equal(told->limits.depth_max, 9);
	assert_ptr_equal(told->ranges, &range);
	assert_int_equal(told->n_ranges, 1);
	assert_ptr_equal(told->properties, &property);
	assert_int_equal(told->n_properties, 1);
	for (int level = LOG_ERR; level <= LOG_DEBUG; level++)
		told->log(told->log_ctx, level, "a test of the log");
}

static void a_refused_one_closes_the_others(void **state)
{
	(void)state;
	with_files(STREAM_WATCHES);
	with_topic(STREAM_WATCHES);
	open_error = -EINVAL;
	assert_int_equal(open_set(), -EINVAL);
	assert_string_equal(errstr, "no such property");
	assert_int_equal(atomic_load(&fakes[0].closed), 1);
}

/* The files' batches and the topic's come through one queue. */
static void files_and_topic_share_a_queue(void **state)
{
	int seen[2] = { 0, 0 };

	(void)state;
	with_files(STREAM_EVENTS);
	with_topic(STREAM_EVENTS);
	assert_int_equal(open_set(), 0);
	atomic_store(&fakes[0].batches, 20);
	atomic_store(&fakes[1].batches, 20);
	assert_int_equal(source_set_start(sources, errstr, sizeof(errstr)), 0);
	for (int waited = 0; seen[0] + seen[1] < 40 && waited < PATIENCE_MS; waited += 10) {
		struct event_batch *batch;

		queue_wait(queues, 10);
		while ((batch = queue_pop(queues)) != NULL) {
			assert_int_equal(batch->stream, STREAM_EVENTS);
			seen[strcmp(batch->position.name, "kafka") == 0]++;
			queue_give_back(queues, batch);
		}
	}
	assert_int_equal(seen[0], 20);
	assert_int_equal(seen[1], 20);
}

/* The last checkpoint's positions reach the broker: after the threads have ended, before the sources are closed. */
static void stopped_is_not_closed(void **state)
{
	const struct source_position position = { .name = "kafka:events:t:0", .offset = 12 };
	int polls;

	(void)state;
	with_files(STREAM_EVENTS);
	with_topic(STREAM_EVENTS);
	assert_int_equal(open_set(), 0);
	assert_int_equal(source_set_start(sources, errstr, sizeof(errstr)), 0);
	wait_for(&fakes[1].polls, 1);
	queue_set_close(queues);
	source_set_stop(sources);
	polls = atomic_load(&fakes[1].polls);
	assert_true(atomic_load(&fakes[1].woken) > 0);
	source_set_commit(sources, &position, 1);
	assert_int_equal(fakes[1].committed, 12);
	source_set_stop(sources);
	assert_int_equal(atomic_load(&fakes[1].closed), 0);
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	assert_int_equal(atomic_load(&fakes[1].polls), polls); /* nobody polls any more */
	source_set_close(sources);
	sources = NULL;
	assert_int_equal(atomic_load(&fakes[0].closed), 1);
	assert_int_equal(atomic_load(&fakes[1].closed), 1);
}

/* Only lost data ends the daemon; any other error ends its source. */
static void lost_data_is_told_whole(void **state)
{
	struct source_status status;
	char text[1024] = "";

	(void)state;
	with_files(STREAM_EVENTS);
	with_topic(STREAM_EVENTS);
	assert_int_equal(open_set(), 0);
	assert_int_equal(source_set_start(sources, errstr, sizeof(errstr)), 0);
	atomic_store(&fakes[0].ends, -EIO);
	do {
		source_set_status(sources, 0, &status);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	} while (!status.degraded);
	assert_int_equal(strncmp(status.reason, "stopped: topic t", 16), 0);
	assert_int_equal(source_set_refused(sources, text, sizeof(text)), 0);
	atomic_store(&fakes[1].ends, -EUCLEAN);
	for (int waited = 0; !source_set_refused(sources, text, sizeof(text)) && waited < PATIENCE_MS; waited++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	assert_string_equal(text, "topic t, partition 3: 7 records are lost\nset kafka.on_gap = \"accept\" to go on");
	source_set_status(sources, 1, &status);
	assert_int_equal(status.degraded, 1);
}

/* Twice as many sources as streams, all with a heartbeat; partitions of all, and as many as there is room for. */
static void as_many_as_there_can_be(void **state)
{
	struct partition_status partitions[3 * STREAM_COUNT];
	struct source_status status;

	(void)state;
	for (int s = 0; s < STREAM_COUNT; s++) {
		with_files((enum event_stream)s);
		with_topic((enum event_stream)s);
	}
	assert_int_equal(open_set(), 0);
	assert_int_equal(source_set_count(sources), SOURCE_SET_MAX);
	assert_int_equal(source_set_start(sources, errstr, sizeof(errstr)), 0);
	for (size_t i = 0; i < SOURCE_SET_MAX; i++) {
		wait_for(&fakes[i].polls, 2);
		source_set_status(sources, i, &status);
		assert_true(status.heartbeat >= 2);
	}
	assert_int_equal(source_set_partitions(sources, NULL, 0), 3 * STREAM_COUNT);
	memset(partitions, 0, sizeof(partitions));
	assert_int_equal(source_set_partitions(sources, partitions, 4), 3 * STREAM_COUNT);
	assert_string_equal(partitions[3].name, "events:0");
	assert_string_equal(partitions[4].name, "");
	assert_int_equal(source_set_partitions(sources, partitions, 3 * STREAM_COUNT), 3 * STREAM_COUNT);
	assert_string_equal(partitions[3 * STREAM_COUNT - 1].name, "users:2");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(each_gets_its_configuration), TEST(a_refused_one_closes_the_others), TEST(files_and_topic_share_a_queue), TEST(stopped_is_not_closed),
		TEST(lost_data_is_told_whole),     TEST(as_many_as_there_can_be),
	};

	return cmocka_run_group_tests_name("sources", tests, NULL, NULL);
}
