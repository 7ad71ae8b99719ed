/*
 * server_http.c: libmicrohttpd's side of the server. One thread a connection, so a client that reads or writes slowly, or waits for a snapshot,
 * holds nothing but its own thread. Connections come from server.c's accept loop; here they enter and leave the table of clients, and each request goes
 * to the api. Request bodies mean nothing to the api: they are read, counted against API_BODY_BYTES_MAX and dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/log.h"
#include "daemon/server_internal.h"

#define THREAD_STACK_BYTES ((size_t)1 << 20)
#define CONNECTION_BYTES ((size_t)32 << 10) /* request line and headers; more is refused by microhttpd (414, 431) */

static struct client *client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void enter_phase(struct server *server, struct client *client, enum client_phase phase)
{
	pthread_mutex_lock(&server->mutex);
	if (client->phase != CLIENT_ENDING)
		client->phase = phase;
	client->since_ms = server_now_ms();
	pthread_mutex_unlock(&server->mutex);
}

/* ---- connections come and go ---- */

static void client_enters(struct server *server, struct MHD_Connection *connection, void **socket_context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	pthread_mutex_lock(&server->mutex);
	for (uint32_t i = 0; info && i < server->clients_max; i++) {
		if (server->clients[i].phase != CLIENT_FREE)
			continue;
		server->clients[i] = (struct client){.phase = CLIENT_READING, .fd = info->connect_fd, .since_ms = server_now_ms()};
		*socket_context = &server->clients[i];
		server->counters.clients++;
		break;
	}
	server->counters.clients_accepted++;
	pthread_cond_signal(&server->joined);
	pthread_mutex_unlock(&server->mutex);
}

static void client_leaves(struct server *server, struct client *client)
{
	int was_full;

	if (!client)
		return;
	pthread_mutex_lock(&server->mutex);
	was_full = server->counters.clients == server->clients_max;
	client->phase = CLIENT_FREE;
	server->counters.clients--;
	pthread_mutex_unlock(&server->mutex);
	if (was_full)
		server_wake(server);
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_context, enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		client_enters(ctx, connection, socket_context);
	else
		client_leaves(ctx, *socket_context);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request_context, enum MHD_RequestTerminationCode code)
{
	struct client *client = client_of(connection);

	(void)code;
	*request_context = NULL;
	if (client) {
		client->body = 0;
		enter_phase(ctx, client, CLIENT_READING);
	}
}

/* ---- requests ---- */

static const char *argument(void *ctx, const char *name)
{
	return MHD_lookup_connection_value(ctx, MHD_GET_ARGUMENT_KIND, name);
}

static enum MHD_Result send_response(struct MHD_Connection *connection, struct api_response *response)
{
	static char empty[1];
	enum MHD_Result r;
	struct MHD_Response *http = response->body ? MHD_create_response_from_buffer(response->len, response->body, MHD_RESPMEM_MUST_FREE)
	                                           : MHD_create_response_from_buffer(0, empty, MHD_RESPMEM_PERSISTENT);

	if (!http) {
		free(response->body);
		return MHD_NO;
	}
	if (response->content_type)
		MHD_add_response_header(http, MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type);
	if (response->allow[0])
		MHD_add_response_header(http, MHD_HTTP_HEADER_ALLOW, response->allow);
	r = MHD_queue_response(connection, response->code, http);
	MHD_destroy_response(http);
	return r;
}

/* Who changed something is worth a line, however often; what was refused is limited like other lines. */
static void log_command(const struct client *client, const char *method, const char *path, unsigned code)
{
	static struct log_site refused;
	struct log_site done = {0};
	struct ucred peer = {.pid = 0, .uid = (uid_t)-1};
	socklen_t len = sizeof(peer);

	(void)getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	log_write(code < 400 ? &done : &refused, LOG_LEVEL_INFO, "%s %s by uid %ld pid %ld: %u", method, path, (long)peer.uid, (long)peer.pid, code);
}

static enum MHD_Result answer(struct server *server, struct client *client, struct MHD_Connection *connection, const char *method, const char *path)
{
	struct api_server_counters counters;
	struct api_request request = {.method = method, .path = path, .argument = argument, .ctx = connection, .counters = &counters};
	struct api_response response;

	pthread_mutex_lock(&server->mutex);
	counters = server->counters;
	client->requests++;
	pthread_mutex_unlock(&server->mutex);
	enter_phase(server, client, CLIENT_HANDLING);
	api_handle(server->api, &request, &response);
	if (log_wants(LOG_LEVEL_INFO) && strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		log_command(client, method, path, response.code);
	enter_phase(server, client, CLIENT_SENDING);
	return send_response(connection, &response);
}

/* What the headers alone say about the body: 0, or the code to refuse it with. */
static unsigned refuse_body(struct MHD_Connection *connection)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING))
		return MHD_HTTP_LENGTH_REQUIRED;
	errno = 0;
	if (length && (strtoull(length, NULL, 10) > API_BODY_BYTES_MAX || errno == ERANGE))
		return 413;
	return 0;
}

static enum MHD_Result refuse(struct server *server, struct client *client, struct MHD_Connection *connection, unsigned code)
{
	struct api_response response = {0};

	api_error(&response, code, code == 413 ? "the request's body is too large (at most 65536 bytes)" : "say how long the body is (Content-Length)");
	enter_phase(server, client, CLIENT_SENDING);
	return send_response(connection, &response);
}

/* Called once when the headers are there, again for each piece of the body, and once at the end. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path, const char *method, const char *version,
                                  const char *body, size_t *body_size, void **request_context)
{
	struct client *client = client_of(connection);
	unsigned code;

	(void)version;
	(void)body;
	if (!client)
		return MHD_NO;
	if (!*request_context) {
		*request_context = client;
		code = refuse_body(connection);
		return code ? refuse(ctx, client, connection, code) : MHD_YES;
	}
	if (*body_size) {
		client->body += *body_size;
		*body_size = 0;
		return client->body > API_BODY_BYTES_MAX ? MHD_NO : MHD_YES;
	}
	return answer(ctx, client, connection, method, path);
}

int server_http_start(struct server *server, char *errstr, size_t errstr_size)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC;

	/* The accept loop keeps to clients_max; microhttpd counts a connection a moment longer, hence the slack. */
	server->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
	                                MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_CONNECTION_LIMIT, server->clients_max + 16,
	                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, MHD_OPTION_THREAD_STACK_SIZE, THREAD_STACK_BYTES,
	                                MHD_OPTION_END);
	if (!server->http) {
		snprintf(errstr, errstr_size, "the HTTP server cannot be started: %s", errno ? strerror(errno) : "libmicrohttpd refused");
		return errno ? -errno : -EIO;
	}
	return 0;
}
