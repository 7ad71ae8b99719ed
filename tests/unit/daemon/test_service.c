/*
 * test_service.c: the whole daemon in this process, with a Kafka source that does as the test says (source_kafka_open() here stands in for ingest's at link
 * time). Brokers that are down from the start hurt nothing (FAILURES 23): recd is ready, answers and pings the watchdog. Positions are committed when a
 * checkpoint is durable, the last ones before the source is closed. Lost data (17, 18) stops recd with a last checkpoint and the code of refused data.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/service.h"

#define EXIT_DATA_REFUSED_CODE 3 /* as recd --help and RestartPreventExitStatus= in recd.service have it */
#define PATIENCE_MS 30000

/* ---- the source ---- */

static struct fake {
	struct source base;
	int degraded;
	atomic_int batches; /* to deliver */
	atomic_int ends;    /* -errno to end with once they are */
	int64_t opened_at;  /* offset of its position in the cut; -1: none */
	int64_t offset;     /* delivered */
	_Atomic int64_t committed;
	atomic_int commits, closed;
} fake;

static void sleep_ms(int ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

static int fake_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size)
{
	(void)source;
	(void)timeout_ms;
	if (atomic_load(&fake.batches) > 0) {
		atomic_fetch_sub(&fake.batches, 1);
		batch->events[0] = (struct event){ .stream = STREAM_WATCHES, .user_id = 1, .item_id = 2, .time_us = 1700000000000000, .flags = EVENT_HAS_COMPLETION,
			                           .completion = 1 };
		batch->n_events = 1;
		snprintf(batch->position.name, sizeof(batch->position.name), "kafka:watch_stats:t:0");
		batch->position.offset = ++fake.offset;
		batch->position.lines = (uint64_t)fake.offset;
		batch->position.last_time_us = 1700000000000000;
		return 0;
	}
	sleep_ms(1);
	if (atomic_load(&fake.ends) == 0)
		return -EAGAIN;
	snprintf(errstr, errstr_size, "topic t, partition 0: offset 5 is wanted, the broker begins at 12: 7 records are lost\nset kafka.on_gap to accept");
	return atomic_load(&fake.ends);
}

static void fake_wake(struct source *source)
{
	(void)source;
}

/* Its heartbeat never moves: what a client that waits for its brokers inside one poll looks like. */
static void fake_status(struct source *source, struct source_status *ret_status)
{
	(void)source;
	memset(ret_status, 0, sizeof(*ret_status));
	snprintf(ret_status->name, sizeof(ret_status->name), "kafka:watch_stats");
	ret_status->lag_bytes = ret_status->lag_records = -1;
	ret_status->last_time_us = INT64_MIN;
	ret_status->degraded = fake.degraded;
	snprintf(ret_status->reason, sizeof(ret_status->reason), "no broker answers");
}

static void fake_commit(struct source *source, const struct source_position *positions, size_t n_positions)
{
	(void)source;
	if (atomic_load(&fake.closed))
		return; /* too late: not counted, and seen */
	for (size_t i = 0; i < n_positions; i++)
		if (strcmp(positions[i].name, "kafka:watch_stats:t:0") == 0)
			atomic_store(&fake.committed, positions[i].offset);
	atomic_fetch_add(&fake.commits, 1);
}

static void fake_close(struct source *source)
{
	(void)source;
	atomic_store(&fake.closed, 1);
}

static const struct source_ops fake_ops = {
	.kind = "kafka", .poll = fake_poll, .wake = fake_wake, .status = fake_status, .commit = fake_commit, .close = fake_close,
};

int source_kafka_open(const struct source_kafka_config *config, const struct source_position *positions, size_t n_positions, struct source **ret_source,
                      char *errstr, size_t errstr_size)
{
	(void)config;
	(void)errstr;
	(void)errstr_size;
	fake.base.ops = &fake_ops;
	fake.opened_at = -1;
	for (size_t i = 0; i < n_positions; i++)
		if (strcmp(positions[i].name, "kafka:watch_stats:t:0") == 0)
			fake.opened_at = positions[i].offset;
	*ret_source = &fake.base;
	return 0;
}

/* ---- a daemon ---- */

static char dir[64];
static pthread_t daemon_thread;
static struct config config;
static int notify_fd = -1;

static void *daemon_main(void *arg)
{
	int *code = arg;

	*code = service_run(&config);
	return NULL;
}

static int exit_of_daemon;

static void start_daemon(int checkpoint_interval_sec)
{
	char path[128];
	char errstr[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/recd.conf", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "data_dir = \"%s/data\";\nserver = { socket = \"%s/sock\"; };\ncheckpoint = { interval_sec = %d; };\n", dir, dir, checkpoint_interval_sec);
	fprintf(file, "sources = { watch_stats = { topic = \"t\"; }; };\nkafka = { brokers = \"localhost:1\"; };\n");
	fprintf(file, "training = { emb_dim = 4; threads = 1; };\nstate = { users_max = 100; items_max = 100; };\n");
	assert_int_equal(fclose(file), 0);
	if (config_load(path, &config, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	assert_int_equal(pthread_create(&daemon_thread, NULL, daemon_main, &exit_of_daemon), 0);
}

/* Reads what it sends meanwhile: a full socket would hold it up. */
static int end_of_daemon(void)
{
	char text[512];

	for (int waited = 0; pthread_tryjoin_np(daemon_thread, NULL) != 0; waited += 5) {
		while (recv(notify_fd, text, sizeof(text), MSG_DONTWAIT) > 0)
			continue;
		if (waited > PATIENCE_MS)
			fail_msg("recd has not ended in %d s", PATIENCE_MS / 1000);
		sleep_ms(5);
	}
	return exit_of_daemon;
}

/* The next datagram for the service manager that begins with `wanted`. */
static void wait_for_notice(const char *wanted)
{
	char text[512];

	for (;;) {
		const ssize_t n = recv(notify_fd, text, sizeof(text) - 1, 0);

		if (n < 0)
			fail_msg("no %s in %d s", wanted, PATIENCE_MS / 1000);
		text[n] = '\0';
		if (strstr(text, wanted) != NULL)
			return;
	}
}

/* Status line and body of a GET. */
static void get(const char *path, char *ret_text, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char request[128];
	size_t len = 0;
	ssize_t n;

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: recd\r\nConnection: close\r\n\r\n", path);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	while (len + 1 < size && (n = recv(fd, ret_text + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	ret_text[len] = '\0';
	close(fd);
}

/* Asks until the status holds that text. */
static void wait_for_status(const char *text)
{
	char answer[65536] = "";

	for (int waited = 0; strstr(answer, text) == NULL; waited += 10) {
		if (waited > PATIENCE_MS)
			fail_msg("no %s in %s", text, answer);
		sleep_ms(10);
		get("/v1/status", answer, sizeof(answer));
	}
}

static int setup(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };

	(void)state;
	memset(&fake, 0, sizeof(fake));
	strcpy(dir, "/tmp/recd-service-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", dir);
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(notify_fd >= 0);
	assert_int_equal(bind(notify_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(setsockopt(notify_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("WATCHDOG_USEC", "200000", 1);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	close(notify_fd);
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
	return 0;
}

/* ---- the tests ---- */

static void brokers_down_hurt_nothing(void **state)
{
	char answer[65536];

	(void)state;
	fake.degraded = 1;
	start_daemon(300);
	wait_for_notice("READY=1");
	for (int i = 0; i < 3; i++)
		wait_for_notice("WATCHDOG=1");
	get("/readyz", answer, sizeof(answer));
	assert_int_equal(strncmp(answer, "HTTP/1.1 200", 12), 0);
	get("/v1/users/7/top", answer, sizeof(answer));
	assert_int_equal(strncmp(answer, "HTTP/1.1 200", 12), 0);
	get("/v1/status", answer, sizeof(answer));
	assert_non_null(strstr(answer, "no broker answers"));
	kill(getpid(), SIGTERM);
	assert_int_equal(end_of_daemon(), 0);
	assert_int_equal(atomic_load(&fake.closed), 1);
}

static void committed_when_durable(void **state)
{
	(void)state;
	start_daemon(0); /* checkpoints at the stop only */
	wait_for_notice("READY=1");
	assert_int_equal(fake.opened_at, -1);
	atomic_store(&fake.batches, 9);
	wait_for_status("\"offset\":9,");
	assert_int_equal(atomic_load(&fake.commits), 0);
	kill(getpid(), SIGTERM);
	assert_int_equal(end_of_daemon(), 0);
	assert_int_equal(atomic_load(&fake.commits), 1); /* after the threads had ended, before the close */
	assert_int_equal(atomic_load(&fake.committed), 9);
	assert_int_equal(atomic_load(&fake.closed), 1);
}

static void lost_data_stops_with_a_checkpoint(void **state)
{
	(void)state;
	start_daemon(0);
	wait_for_notice("READY=1");
	atomic_store(&fake.batches, 5);
	wait_for_status("\"offset\":5,");
	atomic_store(&fake.ends, -EUCLEAN);
	assert_int_equal(end_of_daemon(), EXIT_DATA_REFUSED_CODE);
	assert_int_equal(atomic_load(&fake.committed), 5);

	/* what was taken before is there again, and so is the refusal */
	memset(&fake, 0, sizeof(fake));
	atomic_store(&fake.ends, -EUCLEAN);
	start_daemon(0);
	assert_int_equal(end_of_daemon(), EXIT_DATA_REFUSED_CODE);
	assert_int_equal(fake.opened_at, 5);
}

/* Any other end of a source leaves recd running. */
static void another_error_ends_the_source_alone(void **state)
{
	(void)state;
	atomic_store(&fake.ends, -EIO);
	start_daemon(300);
	wait_for_notice("READY=1");
	wait_for_status("stopped: topic t");
	wait_for_notice("WATCHDOG=1");
	wait_for_notice("WATCHDOG=1");
	kill(getpid(), SIGTERM);
	assert_int_equal(end_of_daemon(), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(brokers_down_hurt_nothing), TEST(committed_when_durable), TEST(lost_data_stops_with_a_checkpoint), TEST(another_error_ends_the_source_alone),
	};
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL); /* in every thread: the daemon reads it from its own descriptor */
	return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
