/*
 * test_server.c: the socket as a file, and clients that are slow, huge, gone, many, or speak something else (FAILURES rows 50, 51, 52). What must hold in
 * each case: an honest client is answered, and every connection is gone at the end. A hang ends the test by alarm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/daemon/server_testing.h"

/* A number from /metrics; see assert_answered(). */
static long metric(const char *name)
{
	static struct answer answer;
	char needle[128];
	const char *at;

	do
		ask("GET", "/metrics", &answer);
	while (answer.code == 0);
	assert_int_equal(answer.code, 200);
	snprintf(needle, sizeof(needle), "\n%s ", name);
	at = strstr(answer.body, needle);
	assert_non_null(at);
	return strtol(at + strlen(needle), NULL, 10);
}

/* Until only the asking client is left. */
static void wait_until_alone(void)
{
	while (metric("recd_http_clients") > 1)
		usleep(20000);
}

/* Asks until there is an answer: on a busy machine an honest client, too, may stand still for a second and have to make room. */
static void assert_answered(const char *path, const char *part)
{
	static struct answer answer;

	do
		ask("GET", path, &answer);
	while (answer.code == 0);
	assert_int_equal(answer.code, 200);
	assert_non_null(strstr(answer.body, part));
}

/* ---- the socket as a file ---- */

static void test_mode(void **state)
{
	static const mode_t masks[] = {0, 0077, 0777};
	struct stat st;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		mode_t before = umask(masks[i]);
		mode_t after;

		start(8, 10);
		after = umask(before);
		assert_int_equal(after, masks[i]); /* left as it was */
		assert_int_equal(lstat(socket_path, &st), 0);
		assert_true(S_ISSOCK(st.st_mode));
		assert_int_equal(st.st_mode & 07777, 0660);
		stop();
		assert_int_equal(access(socket_path, F_OK), -1);
	}
}

static void leave_stale_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, socket_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(access(socket_path, F_OK), 0);
}

static void test_path_is_taken(void **state)
{
	struct server *second = NULL;
	char other[80];
	struct stat st;

	(void)state;
	leave_stale_socket();
	start(8, 10); /* a stale socket is replaced */
	assert_answer("GET", "/healthz", 200, "ok");
	assert_int_equal(start_on(socket_path, 8, 10, &second), -EADDRINUSE); /* a living one is not */
	assert_null(second);
	assert_non_null(strstr(errstr_of_start, "another program answers there"));
	assert_answer("GET", "/healthz", 200, "ok");
	stop();

	close(open(socket_path, O_CREAT | O_WRONLY, 0600)); /* nor is a file */
	assert_int_equal(start_on(socket_path, 8, 10, &second), -EEXIST);
	assert_non_null(strstr(errstr_of_start, "exists and is not a socket"));
	assert_int_equal(lstat(socket_path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	unlink(socket_path);

	snprintf(other, sizeof(other), "%s/other", test_dir); /* nor a link, even to a stale socket */
	leave_stale_socket();
	assert_int_equal(rename(socket_path, other), 0);
	assert_int_equal(symlink(other, socket_path), 0);
	assert_int_equal(start_on(socket_path, 8, 10, &second), -EEXIST);
	assert_int_equal(access(other, F_OK), 0);
	unlink(socket_path);
	unlink(other);

	snprintf(other, sizeof(other), "%s/missing/recd.sock", test_dir);
	assert_int_equal(start_on(other, 8, 10, &second), -ENOENT);
	assert_non_null(strstr(errstr_of_start, "its directory must exist"));
}

/* At the end only the file that was bound is deleted. */
static void test_replaced_file_stays(void **state)
{
	struct stat st;

	(void)state;
	start(8, 10);
	unlink(socket_path);
	close(open(socket_path, O_CREAT | O_WRONLY, 0600));
	stop();
	assert_int_equal(lstat(socket_path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	unlink(socket_path);
}

static void test_other_uid(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		print_message("SKIP test_other_uid: not root\n");
		skip();
	}
	assert_int_equal(chmod(test_dir, 0755), 0);
	start(8, 10);
	pid = fork();
	if (pid == 0) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		strcpy(address.sun_path, socket_path);
		if (setgid(65534) || setuid(65534))
			_exit(2);
		_exit(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 1 : errno == EACCES ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	stop();
}

/* ---- strange clients ---- */

static void test_garbage(void **state)
{
	static char huge[1 << 20];
	static const struct {
		const char *text;
		int code; /* 0: the connection just ends; -1: either that or an error */
	} cases[] = {
		{"\r\n\r\n", 0},
		{"GARBAGE\r\n\r\n", -1},
		{"GET /healthz\r\n\r\n", -1},
		{"GET /healthz HTTP/9.9\r\nHost: r\r\n\r\n", -1},
		{"GET /healthz HTTP/1.1\r\nHost: r\r\nbroken\r\n\r\n", -1},
		{"\x16\x03\x01\x02\x01\x01\xfc\x03\x03", 0}, /* TLS */
		{"POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nContent-Length: 65537\r\n\r\n", 413},
		{"POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nContent-Length: 18446744073709551617\r\n\r\n", 413},
		{"POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nContent-Length: -1\r\n\r\n", -1},
		{"POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 411},
		{"GET /healthz HTTP/1.1\r\nHost: r\r\nContent-Length: 70000\r\nExpect: 100-continue\r\n\r\n", 413},
	};
	struct answer answer;

	(void)state;
	start_with_engine(4, 2);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = connect_to(socket_path);

		(void)send_text(fd, cases[i].text);
		shutdown(fd, SHUT_WR);
		read_answer(fd, &answer);
		close(fd);
		if (cases[i].code < 0 ? answer.code != 0 && (answer.code < 400 || answer.code > 505) : answer.code != cases[i].code)
			fail_msg("%s: %d", cases[i].text, answer.code);
		assert_answer("GET", "/healthz", 200, "ok");
	}
	memset(huge, 'a', sizeof(huge)); /* a request line, then a header, that never ends */
	for (int i = 0; i < 2; i++) {
		int fd = connect_to(socket_path);

		(void)send_text(fd, i ? "GET /healthz HTTP/1.1\r\nX: " : "GET /");
		(void)send_bytes(fd, huge, sizeof(huge));
		read_answer(fd, &answer);
		close(fd);
		assert_true(answer.code == 0 || answer.code == 414 || answer.code == 431 || answer.code == 413);
		assert_answer("GET", "/healthz", 200, "ok");
	}
	wait_until_alone();
	stop();
}

/* Exactly the allowed size is read and answered; a byte more is not. */
static void test_body_limit(void **state)
{
	static char body[API_BODY_BYTES_MAX + 1];
	struct answer answer;

	(void)state;
	start_with_engine(4, 10);
	memset(body, 'b', sizeof(body));
	for (size_t len = API_BODY_BYTES_MAX; len <= API_BODY_BYTES_MAX + 1; len++) {
		int fd = connect_to(socket_path);
		char head[128];

		snprintf(head, sizeof(head), "POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nContent-Length: %zu\r\n\r\n", len);
		(void)send_text(fd, head);
		(void)send_bytes(fd, body, len);
		read_answer(fd, &answer);
		close(fd);
		assert_int_equal(answer.code, len == API_BODY_BYTES_MAX ? 200 : 413);
	}
	stop();
}

/*
 * 200 clients that send their request a byte at a time, four times as many as there are places. An honest client is answered all the while, and the slow
 * ones are thrown out though each of them sends something every now and then.
 */
static void test_slow_clients(void **state)
{
	enum { N = 200, PLACES = 50 };
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: recd\r\n\r\n";
	int fds[N];
	size_t sent = 0;

	(void)state;
	start_with_engine(PLACES, 2);
	for (int i = 0; i < N; i++) {
		fds[i] = connect_to(socket_path);
		assert_true(fds[i] >= 0);
	}
	for (; sent < 10; sent++) {
		for (int i = 0; i < N; i++)
			(void)send(fds[i], request + sent, 1, MSG_NOSIGNAL);
		assert_answered("/healthz", "ok");
		assert_answered("/v1/users/7/top", "items");
		assert_true(metric("recd_http_clients") <= PLACES);
		usleep(100000);
	}
	assert_true(metric("recd_http_clients_dropped_total") > 0);
	for (int i = 0; i < N; i++) /* the slow ones go on until they are thrown out; none gets an answer this way */
		for (int turn = 0; turn < 2; turn++)
			(void)send(fds[i], "x", 1, MSG_NOSIGNAL);
	wait_until_alone();
	for (int i = 0; i < N; i++) {
		char byte;

		assert_true(recv(fds[i], &byte, 1, 0) <= 0);
		close(fds[i]);
	}
	assert_true(metric("recd_http_clients_dropped_total") >= N);
	stop();
}

/* A deadline in total, not per byte: one client, room for all, a byte every 100 ms. */
static void test_dripping_client(void **state)
{
	struct answer answer;
	int fd;

	(void)state;
	start_with_engine(4, 1);
	fd = connect_to(socket_path);
	(void)send_text(fd, "GET /healthz HTTP/1.1\r\nX: ");
	while (send_text(fd, "x") == 0) /* ends when the server has closed; else by alarm */
		usleep(100000);
	read_answer(fd, &answer);
	assert_int_equal(answer.code, 0);
	close(fd);
	stop();
}

/* Readers that go away in the middle of an answer, or never read at all. SIGPIPE keeps its default: it would end this test. */
static void test_reader_gone(void **state)
{
	int silent[3];

	(void)state;
	start_with_engine(4, 1);
	for (int i = 0; i < 50; i++) {
		int fd = connect_to(socket_path);
		struct linger now = {.l_onoff = 1};

		for (int n = 0; n < 20; n++)
			(void)send_text(fd, "GET /metrics HTTP/1.1\r\nHost: recd\r\n\r\n");
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(fd);
	}
	for (int i = 0; i < 3; i++) { /* three of four places: never read */
		silent[i] = connect_to(socket_path);
		fcntl(silent[i], F_SETFL, O_NONBLOCK);
		while (send_text(silent[i], "GET /metrics HTTP/1.1\r\nHost: recd\r\n\r\n") == 0)
			;
	}
	assert_answer("GET", "/healthz", 200, "ok");
	wait_until_alone(); /* their descriptors are still open here */
	assert_true(metric("recd_http_clients_dropped_total") >= 3);
	stop();
	for (int i = 0; i < 3; i++)
		close(silent[i]);
}

static void test_keep_alive(void **state)
{
	struct answer answer;
	int fd;

	(void)state;
	start_with_engine(4, 1);
	fd = connect_to(socket_path);
	for (int i = 0; i < 20; i++) {
		(void)send_text(fd, "GET /v1/users/7/top HTTP/1.1\r\nHost: recd\r\n\r\n");
		read_answer(fd, &answer);
		assert_int_equal(answer.code, 200);
	}
	assert_true(recv(fd, answer.body, 1, 0) == 0); /* idle: closed after the time-out, and not counted as dropped */
	close(fd);
	assert_int_equal(metric("recd_http_clients_dropped_total"), 0);
	stop();
}

/* ---- many at once ---- */

static void *ask_many(void *ctx)
{
	static const char *const paths[] = {"/healthz", "/v1/users/7/top?k=3", "/metrics", "/v1/users/8/explain", "/v1/items/101/similar", "/v1/status", "/none"};
	struct answer *answer = malloc(sizeof(*answer));
	char request[256];

	for (int i = 0; i < 60; i++) {
		const char *path = paths[(size_t)i % 7];
		int fd = connect_to(socket_path);

		snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: recd\r\nConnection: close\r\n\r\n", path);
		if (fd < 0 || send_text(fd, request) < 0)
			*(int *)ctx += 1;
		read_answer(fd, answer);
		close(fd);
		if (answer->code != (strcmp(path, "/none") == 0 ? 404 : 200))
			*(int *)ctx += 1;
	}
	free(answer);
	return NULL;
}

/* Queries, new models, applied lines and commands at the same time; for ThreadSanitizer above all. */
static void test_concurrent_clients(void **state)
{
	enum { N = 8 };
	pthread_t threads[N];
	int failures[N] = {0};

	(void)state;
	start_with_engine(6, 10);
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_many, &failures[i]), 0);
	for (int i = 0; i < 40; i++) {
		struct generation *generation;

		apply(engine.state, STREAM_WATCHES,
		      &(struct event){.user_id = 7 + i % 3, .item_id = 100 + i % 6, .time_us = 1765368002000000 + i, .flags = EVENT_HAS_COMPLETION, .completion = 0.7f},
		      NULL);
		if (publisher_begin(engine.publisher, &generation) == 0) {
			publisher_cancel(engine.publisher, generation);
			publish(engine.publisher, engine.state);
		}
		assert_answer("POST", "/v1/snapshot", 200, "42");
	}
	for (int i = 0; i < N; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(failures[i], 0);
	}
	stop();
}

/* ---- stopping, and no descriptors ---- */

static void *post_snapshot(void *ctx)
{
	ask("POST", "/v1/snapshot", ctx);
	return NULL;
}

/* Commands that wait must not take every place: questions are answered meanwhile. */
static void test_waiting_commands(void **state)
{
	static struct answer answers[8];
	pthread_t asking[8];

	(void)state;
	start_with_engine(10, 10);
	atomic_store(&engine.snapshot_waits, 1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&asking[i], NULL, post_snapshot, &answers[i]), 0);
	while (metric("recd_http_clients") < 9)
		usleep(10000);
	while (atomic_load(&engine.snapshot_entered) < 8)
		usleep(1000);
	assert_answer("POST", "/v1/snapshot", 503, "8 commands are waiting already");
	assert_answer("DELETE", "/v1/users/7/forget", 503, "8 commands are waiting already");
	assert_answer("GET", "/v1/status", 200, "n_users");
	atomic_store(&engine.snapshot_waits, 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(asking[i], NULL);
		assert_int_equal(answers[i].code, 200);
	}
	assert_answer("POST", "/v1/snapshot", 200, "42");
	stop();
}

static void *take_engine_away(void *ctx)
{
	server_set_engine(server, NULL);
	atomic_store((atomic_int *)ctx, 1);
	return NULL;
}

/* The engine may only be freed when no request uses it: server_set_engine(NULL) waits for the snapshot under way. */
static void test_stop_waits_for_requests(void **state)
{
	static struct answer answer;
	atomic_int away = 0;
	pthread_t asking;
	pthread_t stopping;

	(void)state;
	start_with_engine(4, 10);
	atomic_store(&engine.snapshot_waits, 1);
	assert_int_equal(pthread_create(&asking, NULL, post_snapshot, &answer), 0);
	while (!atomic_load(&engine.snapshot_entered))
		usleep(1000);
	assert_int_equal(pthread_create(&stopping, NULL, take_engine_away, &away), 0);
	usleep(50000);
	assert_answer("GET", "/healthz", 200, "ok"); /* meanwhile others are answered */
	assert_int_equal(atomic_load(&away), 0);
	atomic_store(&engine.snapshot_waits, 0);
	pthread_join(stopping, NULL);
	pthread_join(asking, NULL);
	assert_int_equal(atomic_load(&away), 1);
	assert_int_equal(answer.code, 200);
	stop();
}

/* Clients in every phase do not hold up the end. */
static void test_stop_with_clients(void **state)
{
	int fds[6];

	(void)state;
	start_with_engine(4, 60);
	for (int i = 0; i < 6; i++) /* two of them in the backlog */
		fds[i] = connect_to(socket_path);
	(void)send_text(fds[0], "GET /hea");
	(void)send_text(fds[1], "POST /v1/snapshot HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\nabc");
	(void)send_text(fds[2], "GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n");
	usleep(50000);
	stop();
	for (int i = 0; i < 6; i++)
		close(fds[i]);
}

/* Without a free descriptor the accept loop pauses: a handful of tries, not a spin. With one again, it serves. */
static void test_no_descriptors(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit before;
	struct rlimit tight;
	struct answer answer;
	int fd;

	(void)state;
	start_with_engine(8, 10);
	assert_answer("GET", "/healthz", 200, "ok");
	wait_until_alone();
	usleep(50000); /* the last connection's descriptor is closed */
	strcpy(address.sun_path, socket_path);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* the lowest free number: none is left below the limit */
	tight = (struct rlimit){.rlim_cur = (rlim_t)fd + 1, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	(void)send_text(fd, "GET /healthz HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n");
	usleep(1200000);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	read_answer(fd, &answer); /* answered once there is a descriptor */
	assert_int_equal(answer.code, 200);
	close(fd);
	assert_in_range(metric("recd_http_accept_failures_total"), 1, 20);
	stop();
}

/* Who changed something stands in the log. */
static void test_commands_are_logged(void **state)
{
	int saved = dup(STDERR_FILENO);
	char path[80];
	char text[4096] = "";
	char expected[128];
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/log", test_dir);
	start_with_engine(4, 10);
	fflush(stderr);
	file = fopen(path, "w+");
	assert_non_null(file);
	dup2(fileno(file), STDERR_FILENO);
	assert_answer("GET", "/healthz", 200, "ok");
	assert_answer("POST", "/v1/users/5/forget", 200, "true");
	dup2(saved, STDERR_FILENO);
	close(saved);
	stop();
	rewind(file);
	(void)!fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	unlink(path);
	snprintf(expected, sizeof(expected), "POST /v1/users/5/forget by uid %ld pid %ld: 200\n", (long)getuid(), (long)getpid());
	assert_non_null(strstr(text, expected));
	assert_null(strstr(text, "healthz"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_mode),
		TEST(test_path_is_taken),
		TEST(test_replaced_file_stays),
		TEST(test_other_uid),
		TEST(test_garbage),
		TEST(test_body_limit),
		TEST(test_slow_clients),
		TEST(test_dripping_client),
		TEST(test_reader_gone),
		TEST(test_keep_alive),
		TEST(test_concurrent_clients),
		TEST(test_waiting_commands),
		TEST(test_stop_waits_for_requests),
		TEST(test_stop_with_clients),
		TEST(test_no_descriptors),
		TEST(test_commands_are_logged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
