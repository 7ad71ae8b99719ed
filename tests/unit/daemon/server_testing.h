/*
 * server_testing.h: what the tests of the server share: an engine that is a state, a published model and a few switches, a server in front of it, and a
 * small HTTP client. Include once in a test's only .c file, after cmocka.h. The engine_*() functions here stand in for the engine's at link time.
 */
#ifndef SERVER_TESTING_H
#define SERVER_TESTING_H

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/server.h"

/* ---- the engine's stand-in ---- */

struct engine {
	struct state *state;
	struct publisher *publisher;
	atomic_int ready;
	atomic_int snapshot_result; /* what engine_snapshot() returns */
	atomic_int snapshot_waits;  /* 1: it waits until this is 0 */
	atomic_int snapshot_entered; /* how often it was called */
	atomic_int forget_result;
	_Atomic int64_t forgot_user;
	atomic_int forgot_lift;
};

void engine_get_status(struct engine *engine, struct engine_status *ret_status)
{
	memset(ret_status, 0, sizeof(*ret_status));
	ret_status->ready = atomic_load(&engine->ready);
	snprintf(ret_status->phase, sizeof(ret_status->phase), "%s", ret_status->ready ? "running" : "loading");
	ret_status->n_users = state_n_users(engine->state);
	ret_status->time_max_us = state_time_max_us(engine->state);
	ret_status->histories_digest = state_digest(engine->state);
}

int engine_copy_positions(struct engine *engine, struct source_position **ret_positions, size_t *ret_n)
{
	(void)engine;
	*ret_positions = calloc(1, sizeof(**ret_positions));
	if (*ret_positions == NULL)
		return -ENOMEM;
	snprintf((*ret_positions)->name, sizeof((*ret_positions)->name), "kafka:events:t:0");
	(*ret_positions)->holes = 5;
	(*ret_positions)->last_time_us = INT64_MIN;
	*ret_n = 1;
	return 0;
}

const struct state *engine_state(const struct engine *engine)
{
	return engine->state;
}

struct publisher *engine_publisher(const struct engine *engine)
{
	return engine->publisher;
}

void engine_query_options(const struct engine *engine, struct query_options *ret_options)
{
	(void)engine;
	*ret_options = (struct query_options){.k = 10, .personalize_min_positives = 3};
}

int engine_snapshot(struct engine *engine, int timeout_ms, struct checkpoint_result *ret_result, char *errstr, size_t errstr_size)
{
	int r = atomic_load(&engine->snapshot_result);

	atomic_fetch_add(&engine->snapshot_entered, 1);
	while (atomic_load(&engine->snapshot_waits))
		usleep(1000);
	if (r == -EIO)
		snprintf(errstr, errstr_size, "state.pt: fsync: no space left");
	if (r == 0)
		*ret_result = (struct checkpoint_result){.number = 42, .bytes = (uint64_t)timeout_ms, .duration_us = 7000};
	return r;
}

int engine_forget(struct engine *engine, int64_t user_id, int lift, int timeout_ms)
{
	(void)timeout_ms;
	atomic_store(&engine->forgot_user, user_id);
	atomic_store(&engine->forgot_lift, lift);
	return atomic_load(&engine->forget_result);
}

#define N_ITEMS 6
#define DIM 3

static void apply(struct state *state, uint32_t stream, const struct event *event, const char *doc)
{
	struct event_batch *batch = event_batch_new();

	assert_non_null(batch);
	batch->stream = stream;
	batch->events[0] = *event;
	batch->events[0].stream = (uint8_t)stream;
	batch->n_events = 1;
	if (doc)
		assert_int_equal(event_batch_add_text(batch, doc, strlen(doc), &batch->events[0].doc), 0);
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_free(batch);
}

/* Items 100 .. 105 with titles; user 7 has watched 100 .. 103 to the end, user 8 nothing but a bit of 104. */
static struct state *state_with_history(void)
{
	const struct state_config config = {.hash_seed = 1, .users_max = 1000, .items_max = 1000, .impressions_max = 8, .row_bytes = personal_row_bytes(DIM)};
	const struct state_rules rules = {.min_pos_completion = 0.6f, .negative_after_us = 1800 * 1000000ll};
	struct state *state;
	char errstr[256];
	char doc[256];

	assert_int_equal(state_new(&config, &rules, &state, errstr, sizeof(errstr)), 0);
	for (int i = 0; i < N_ITEMS; i++) {
		snprintf(doc, sizeof(doc), "{\"item_id\":%d,\"title\":\"Movie \\\"%d\\\"\",\"release_year\":%d,\"genres\":[\"drama\"]}", 100 + i, i, 2000 + i);
		apply(state, STREAM_CATALOGUE, &(struct event){.item_id = 100 + i}, doc);
	}
	for (int i = 0; i < 5; i++)
		apply(state, STREAM_WATCHES,
		      &(struct event){.user_id = i < 4 ? 7 : 8, .item_id = 100 + i, .time_us = 1765368001000000 + i, .flags = EVENT_HAS_COMPLETION, .completion = i < 4 ? 1.0f : 0.1f},
		      NULL);
	return state;
}

static void publish(struct publisher *publisher, const struct state *state)
{
	struct generation *generation;
	struct tables *tables;

	assert_int_equal(publisher_begin(publisher, &generation), 0);
	tables = &generation->tables;
	assert_int_equal(tables_reserve(tables, state_n_users(state), state_n_items(state), DIM), 0);
	tables->n_users = state_n_users(state);
	tables->n_items = state_n_items(state);
	for (uint32_t i = 0; i < tables->n_users * DIM; i++)
		tables->U[i] = 0.5f;
	for (uint32_t i = 0; i < tables->n_items; i++) {
		tables->V[i * DIM] = 1;
		tables->V[i * DIM + 1] = (float)i;
		tables->V[i * DIM + 2] = -(float)i / 2;
		tables->bi[i] = 0.25f * (float)i;
	}
	publisher_commit(publisher, generation, 0);
}

static void engine_stand_in(struct engine *ret_engine)
{
	memset(ret_engine, 0, sizeof(*ret_engine));
	ret_engine->state = state_with_history();
	assert_int_equal(publisher_new(DIM, &ret_engine->publisher), 0);
	publish(ret_engine->publisher, ret_engine->state);
	atomic_store(&ret_engine->ready, 1);
}

static void engine_stand_in_free(struct engine *engine)
{
	publisher_free(engine->publisher);
	state_free(engine->state);
}

/* ---- a server of one test ---- */

static char test_dir[] = "/tmp/recd-test-server-XXXXXX";
static char socket_path[64];
static struct engine engine;
static struct server *server;
static atomic_int reload_result;
static atomic_int process_sound = 1;
static char errstr_of_start[512];

static int reload_stand_in(void *ctx, char *ret_text, size_t size)
{
	int r = atomic_load(&reload_result);

	assert_ptr_equal(ctx, &reload_result);
	snprintf(ret_text, size, r < 0 ? "recd.conf:3: training.emb_dmi: unknown key" : "configuration reloaded");
	return r;
}

static size_t partitions_stand_in(void *ctx, struct partition_status *ret_partitions, size_t max)
{
	(void)ctx;
	if (max > 0) {
		ret_partitions[0] = (struct partition_status){.offset = 3, .end = 9, .lag_records = 6, .last_record_us = INT64_MIN, .committed = -1};
		strcpy(ret_partitions[0].name, "kafka:events:t:0");
	}
	return 1;
}

static size_t sources_stand_in(void *ctx, struct source_status *ret_sources, size_t max)
{
	(void)ctx;
	assert_true(max >= 1);
	memset(&ret_sources[0], 0, sizeof(ret_sources[0]));
	strcpy(ret_sources[0].name, "files:watch_stats");
	ret_sources[0].last_time_us = STATE_TIME_NONE;
	return 1;
}

static int sound_stand_in(void *ctx, char *ret_reason, size_t size)
{
	(void)ctx;
	snprintf(ret_reason, size, "the engine hangs");
	return atomic_load(&process_sound);
}

static int start_on(const char *path, uint32_t clients_max, uint32_t timeout_sec, struct server **ret_server)
{
	const struct api_context context = {.ctx = &reload_result, .reload = reload_stand_in, .sources = sources_stand_in, .partitions = partitions_stand_in, .sound = sound_stand_in};
	struct config config;
	int r;

	config_default(&config);
	free(config.socket_path);
	config.socket_path = strdup(path);
	config.clients_max = clients_max;
	config.request_timeout_sec = timeout_sec;
	r = server_start(&config, &context, ret_server, errstr_of_start, sizeof(errstr_of_start));
	config_free(&config);
	return r;
}

static void start(uint32_t clients_max, uint32_t timeout_sec)
{
	if (start_on(socket_path, clients_max, timeout_sec, &server) != 0)
		fail_msg("%s", errstr_of_start);
}

static void start_with_engine(uint32_t clients_max, uint32_t timeout_sec)
{
	start(clients_max, timeout_sec);
	engine_stand_in(&engine);
	server_set_engine(server, &engine);
}

static void stop(void)
{
	if (engine.state)
		server_set_engine(server, NULL);
	server_stop(server);
	server = NULL;
	if (engine.state)
		engine_stand_in_free(&engine);
	memset(&engine, 0, sizeof(engine));
}

/* A test that hangs is a test that failed. */
#define HANG_SEC 120

static int test_setup(void **state)
{
	(void)state;
	strcpy(test_dir + strlen(test_dir) - 6, "XXXXXX");
	if (!mkdtemp(test_dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/recd.sock", test_dir);
	atomic_store(&reload_result, 0);
	atomic_store(&process_sound, 1);
	alarm(HANG_SEC);
	return 0;
}

static int test_teardown(void **state)
{
	(void)state;
	alarm(0);
	return rmdir(test_dir); /* fails when the socket was left behind */
}

/* ---- a client ---- */

struct answer {
	int code; /* 0: the connection ended without one */
	char headers[2048];
	char body[1 << 16];
	size_t body_len;
};

/* -1 when nobody takes the connection. */
static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* As much as the other side takes; it may have closed. */
static int send_bytes(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_text(int fd, const char *text)
{
	return send_bytes(fd, text, strlen(text));
}

/* One answer; the connection may go on. */
static void read_answer(int fd, struct answer *ret_answer)
{
	static __thread char buf[1 << 17];
	size_t n = 0;
	char *end = NULL;
	size_t length = 0;
	ssize_t got;

	memset(ret_answer, 0, offsetof(struct answer, body));
	ret_answer->body_len = 0;
	buf[0] = 0;
	do {
		got = recv(fd, buf + n, sizeof(buf) - 1 - n, 0);
		n += got > 0 ? (size_t)got : 0;
		buf[n] = 0;
		if (!end && (end = strstr(buf, "\r\n\r\n"))) {
			const char *at = strcasestr(buf, "Content-Length:");

			length = at && at < end ? strtoul(at + 15, NULL, 10) : 0;
		}
	} while (got > 0 && (!end || n < (size_t)(end + 4 - buf) + length));
	if (!end || sscanf(buf, "HTTP/1.1 %d", &ret_answer->code) != 1)
		return;
	snprintf(ret_answer->headers, sizeof(ret_answer->headers), "%.*s", (int)(end - buf), buf);
	ret_answer->body_len = n - (size_t)(end + 4 - buf);
	if (ret_answer->body_len >= sizeof(ret_answer->body))
		ret_answer->body_len = sizeof(ret_answer->body) - 1;
	memcpy(ret_answer->body, end + 4, ret_answer->body_len);
	ret_answer->body[ret_answer->body_len] = 0;
}

static void ask(const char *method, const char *path, struct answer *ret_answer)
{
	char request[2048];
	int fd = connect_to(socket_path);

	assert_true(fd >= 0);
	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: recd\r\nConnection: close\r\n\r\n", method, path);
	(void)send_text(fd, request);
	read_answer(fd, ret_answer);
	close(fd);
}

static void assert_answer(const char *method, const char *path, int code, const char *part)
{
	static struct answer answer;

	ask(method, path, &answer);
	if (answer.code != code || !strstr(answer.body, part))
		fail_msg("%s %s: %d %s\n  expected: %d %s", method, path, answer.code, answer.body, code, part);
}

#endif
