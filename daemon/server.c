/*
 * server.c: takes connections on the unix socket and watches over them. A thread of its own accepts; libmicrohttpd answers (server_http.c).
 *
 * The accept loop is ours because its limits are: it takes no connection above clients_max (they wait in the kernel's backlog), it pauses when there is
 * no descriptor left instead of spinning, and it ends clients that do not get on: each has request_timeout_sec to send a request, and again to
 * take the answer, in total and not per byte. While others wait for a place, a client that stands still for a second makes room.
 *
 * Every 200 ms at most the loop walks the table of clients. Descriptors are microhttpd's: the loop only shuts them down, under the mutex, and an entry
 * leaves the table before its descriptor is closed, so a number is never shut down after it was reused.
 */
#include "daemon/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/server_internal.h"

#define TICK_MS 200
#define ROOM_AFTER_MS 1000    /* while others wait: a client may stand still for this long */
#define ACCEPT_PAUSE_MS 500   /* after accept() found no descriptor or memory */
#define JOIN_TIMEOUT_SEC 1    /* microhttpd takes a connection over within microseconds */

int64_t server_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void server_wake(struct server *server)
{
	uint64_t one = 1;

	if (write(server->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("server: wake: %s", strerror(errno));
}

/* ---- clients that do not get on ---- */

static void drop(struct server *server, struct client *client)
{
	shutdown(client->fd, SHUT_RDWR);
	if (client->phase == CLIENT_SENDING || client->requests == 0)
		server->counters.clients_dropped++; /* the others only sat idle after an answer */
	client->phase = CLIENT_ENDING;
}

/* 1 when somebody waits in the backlog. */
static int others_wait(const struct server *server)
{
	struct pollfd waiting = {.fd = server->listener.fd, .events = POLLIN};

	return poll(&waiting, 1, 0) == 1;
}

static void drop_late_clients(struct server *server)
{
	int64_t now = server_now_ms();
	int crowded = others_wait(server);

	pthread_mutex_lock(&server->mutex);
	crowded = crowded && (server->counters.clients == server->clients_max || now < server->accept_again_ms);
	for (uint32_t i = 0; i < server->clients_max; i++) {
		struct client *client = &server->clients[i];

		if (client->phase != CLIENT_READING && client->phase != CLIENT_SENDING)
			continue;
		if (now - client->since_ms > (crowded && server->timeout_ms > ROOM_AFTER_MS ? ROOM_AFTER_MS : server->timeout_ms))
			drop(server, client);
	}
	pthread_mutex_unlock(&server->mutex);
}

/* ---- new clients ---- */

/* Gives the connection to microhttpd and waits until it is in the table, so that clients_max holds. */
static void hand_over(struct server *server, int fd)
{
	struct timespec deadline;
	uint64_t before;
	int r = 0;

	pthread_mutex_lock(&server->mutex);
	before = server->counters.clients_accepted;
	pthread_mutex_unlock(&server->mutex);
	if (MHD_add_connection(server->http, fd, NULL, 0) != MHD_YES) { /* closes fd in any case */
		r = -1;
	} else {
		clock_gettime(CLOCK_MONOTONIC, &deadline);
		deadline.tv_sec += JOIN_TIMEOUT_SEC;
		pthread_mutex_lock(&server->mutex);
		while (r == 0 && server->counters.clients_accepted == before)
			r = pthread_cond_timedwait(&server->joined, &server->mutex, &deadline);
		pthread_mutex_unlock(&server->mutex);
	}
	if (r != 0) {
		pthread_mutex_lock(&server->mutex);
		server->counters.accept_failures++;
		pthread_mutex_unlock(&server->mutex);
		log_warn("a client could not be served: no memory or thread for its connection");
	}
}

static void accept_one(struct server *server)
{
	int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		hand_over(server, fd);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	log_warn("accept: %s; new clients wait", strerror(errno));
	server->accept_again_ms = server_now_ms() + ACCEPT_PAUSE_MS;
	pthread_mutex_lock(&server->mutex);
	server->counters.accept_failures++;
	pthread_mutex_unlock(&server->mutex);
}

static void *accept_loop(void *ctx)
{
	struct server *server = ctx;
	uint64_t count;

	pthread_setname_np(pthread_self(), "recd-accept");
	for (;;) {
		struct pollfd fds[2] = {{.fd = server->wake_fd, .events = POLLIN}, {.fd = server->listener.fd, .events = POLLIN}};
		int64_t pause_ms = server->accept_again_ms - server_now_ms();
		uint32_t clients;
		int stopping;

		pthread_mutex_lock(&server->mutex);
		clients = (uint32_t)server->counters.clients;
		stopping = server->stopping;
		pthread_mutex_unlock(&server->mutex);
		if (stopping)
			return NULL;
		if (pause_ms > 0 || clients >= server->clients_max)
			fds[1].fd = -1;
		if (poll(fds, 2, clients || pause_ms > 0 ? TICK_MS : -1) < 0 && errno != EINTR) {
			log_error("server: poll: %s", strerror(errno));
			usleep(TICK_MS * 1000);
		}
		if (fds[0].revents && read(server->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			log_error("server: wake: %s", strerror(errno));
		if (fds[1].revents)
			accept_one(server);
		drop_late_clients(server);
	}
}

/* ---- life ---- */

/* Threads started here, and those they start, leave signals to the main thread. */
static int start_threads(struct server *server, char *errstr, size_t errstr_size)
{
	sigset_t all;
	sigset_t before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = server_http_start(server, errstr, errstr_size);
	if (r == 0) {
		r = -pthread_create(&server->thread, NULL, accept_loop, server);
		server->thread_runs = r == 0;
		if (r < 0)
			snprintf(errstr, errstr_size, "the server's thread: %s", strerror(-r));
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static void init_sync(struct server *server)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&server->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&server->joined, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int server_start(const struct config *config, const struct api_context *context, struct server **ret_server, char *errstr, size_t errstr_size)
{
	struct server *server = calloc(1, sizeof(*server));
	int r = -ENOMEM;

	snprintf(errstr, errstr_size, "the server: %s", strerror(ENOMEM));
	if (!server)
		return -ENOMEM;
	init_sync(server);
	server->listener.fd = -1;
	server->wake_fd = -1;
	server->timeout_ms = (int64_t)config->request_timeout_sec * 1000;
	server->clients_max = config->clients_max;
	server->clients = calloc(config->clients_max, sizeof(*server->clients));
	if (!server->clients || api_new(context, &server->api) < 0)
		goto out;
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->wake_fd < 0) {
		r = -errno;
		snprintf(errstr, errstr_size, "the server: eventfd: %s", strerror(errno));
		goto out;
	}
	r = server_socket_open(config->socket_path, &server->listener, errstr, errstr_size);
	if (r == 0)
		r = start_threads(server, errstr, errstr_size);
out:
	if (r < 0) {
		server_stop(server);
		return r;
	}
	*ret_server = server;
	return 0;
}

void server_set_engine(struct server *server, struct engine *engine)
{
	api_set_engine(server->api, engine);
}

void server_set_waiting_for(struct server *server, const char *reason)
{
	api_set_waiting_for(server->api, reason);
}

void server_stop(struct server *server)
{
	if (!server)
		return;
	pthread_mutex_lock(&server->mutex);
	server->stopping = 1;
	pthread_mutex_unlock(&server->mutex);
	if (server->thread_runs) {
		server_wake(server);
		pthread_join(server->thread, NULL);
	}
	server_socket_close(&server->listener);
	if (server->http)
		MHD_stop_daemon(server->http); /* ends every connection; the table is empty afterwards */
	if (server->wake_fd >= 0)
		close(server->wake_fd);
	api_free(server->api);
	free(server->clients);
	pthread_cond_destroy(&server->joined);
	pthread_mutex_destroy(&server->mutex);
	free(server);
}
