/*
 * server.h: HTTP/1.1 on the unix socket. Listens before recovery is done, and never gets in the way of ingest: own threads, own limits.
 */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include <stddef.h>

#include "daemon/api.h"
#include "daemon/config.h"

struct server;

/*
 * Binds config->socket_path (mode 0660) and starts to answer: /healthz and /readyz at once, the rest with 503 until server_set_engine(). The caller
 * holds the lock on the data directory. A socket file that nobody listens on is replaced; anything else at that path is refused (-EADDRINUSE, -EEXIST).
 * `context` is copied, its callbacks are called from the server's threads. Signals stay blocked in those threads. 0 or -errno with errstr.
 */
int server_start(const struct config *config, const struct api_context *context, struct server **ret_server, char *errstr, size_t errstr_size);
/* From now on requests reach the engine. NULL: no longer; returns once no request uses it (a waiting snapshot ends when the engine does). */
void server_set_engine(struct server *server, struct engine *engine);
/* What /readyz says while there is no engine: "loading checkpoint 42". Cut at 127 bytes. */
void server_set_waiting_for(struct server *server, const char *reason);
/* Closes the socket and its file, ends all connections, frees. Accepts NULL. */
void server_stop(struct server *server);

#endif
