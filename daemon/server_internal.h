/*
 * server_internal.h: what server.c (connections) and server_http.c (requests) share.
 */
#ifndef DAEMON_SERVER_INTERNAL_H
#define DAEMON_SERVER_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdint.h>

#include "daemon/api.h"
#include "daemon/server_socket.h"

enum client_phase {
	CLIENT_FREE,
	CLIENT_READING,  /* waiting for a request, or inside one */
	CLIENT_HANDLING, /* the api works; no deadline here, the api has its own */
	CLIENT_SENDING,
	CLIENT_ENDING,   /* shut down; microhttpd will close it */
};

/* One connection. */
struct client {
	enum client_phase phase;
	int fd;           /* microhttpd's; valid while not CLIENT_FREE */
	int64_t since_ms; /* monotonic: when the phase began */
	uint32_t requests; /* answered so far */
	uint64_t body;     /* bytes of the current request's body; its own thread only */
};

struct server {
	struct api *api;
	struct MHD_Daemon *http;
	struct server_socket listener;
	int wake_fd; /* eventfd: stop, or a place came free */
	int64_t timeout_ms;
	pthread_t thread;
	int thread_runs;
	int64_t accept_again_ms; /* acceptor's own: no accept() before this time */

	pthread_mutex_t mutex; /* everything below */
	pthread_cond_t joined; /* a connection entered the table */
	int stopping;
	struct client *clients; /* [clients_max] */
	uint32_t clients_max;
	struct api_server_counters counters; /* counters.clients: entries in use */
};

int64_t server_now_ms(void);
void server_wake(struct server *server);

/* server_http.c: the threads that answer. */
int server_http_start(struct server *server, char *errstr, size_t errstr_size);

#endif
