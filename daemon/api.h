/*
 * api.h: what a request means. Knows nothing of sockets: a method, a path and arguments in, a status code and a body out.
 *
 * GET    /healthz                       200 while the process is sound
 * GET    /readyz                        200 once recovery is done; 503 and the reason until then
 * GET    /metrics                       Prometheus text (docs/METRICS.md)
 * GET    /v1/status                     everything an operator may ask (render.h)
 * GET    /v1/users/{id}/top?k=10        the k best items; popularity for a user nobody has seen
 * GET    /v1/top?after_user=ID&limit=1000&k=10&titles=1   one page of everybody's, as JSON Lines (top_page.h): users above that id in ascending
 *                                       order (from the start without it), at most `limit`, fewer when 100 ms or 4 MiB are reached; one
 *                                       generation a page. Ask again after the last user; an empty page: nobody is left. A user who appears
 *                                       meanwhile is met when his id is still to come
 * GET    /v1/users/{id}/explain?k=5     the same with reasons
 * GET    /v1/items/{id}/similar?k=10    items with the nearest vectors (cosine over V); items nobody has as a positive are left out
 * POST   /v1/snapshot?timeout_sec=60    a checkpoint; answers when it is durable
 * POST   /v1/reload                     reads the configuration again
 * POST   /v1/users/{id}/forget          drops the user's facts and ignores later ones; DELETE takes the mark away
 * Errors: {"error": "in words"} with 400, 404, 405 (Allow), 411, 413, 500, 503.
 */
#ifndef DAEMON_API_H
#define DAEMON_API_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/engine.h"
#include "ingest/source.h"

#define API_BODY_BYTES_MAX (64u << 10)
#define API_K_MAX 1000u
#define API_PAGE_MAX 10000u /* users of a page */

/* What the rest of the daemon does for a request. Any callback may be NULL. */
struct api_context {
	void *ctx;
	/* Reads the configuration again. 0: ret_text says what was taken over; -errno: why the old values stay. One call at a time. */
	int (*reload)(void *ctx, char *ret_text, size_t ret_text_size);
	/* Copies the status of at most max sources; returns how many. */
	size_t (*sources)(void *ctx, struct source_status *ret_sources, size_t max);
	/* Copies the status of at most max Kafka partitions; returns how many there are. */
	size_t (*partitions)(void *ctx, struct partition_status *ret_partitions, size_t max);
	/* 1 while the process is sound; 0 and the reason when not (a source or the engine hangs). */
	int (*sound)(void *ctx, char *ret_reason, size_t ret_reason_size);
	struct queue_set *queues; /* for the metrics; NULL: none. Lives longer than the server */
};

/* What the server counts; read by the metrics. */
struct api_server_counters {
	uint64_t clients;          /* connections now */
	uint64_t clients_accepted;
	uint64_t clients_dropped;  /* closed because they did not finish in time, or to make room */
	uint64_t accept_failures;  /* no descriptor or memory for a new connection */
};

struct api_request {
	const char *method;
	const char *path; /* without arguments, %-escapes undone */
	/* Value of an argument, NULL when it is not there. */
	const char *(*argument)(void *ctx, const char *name);
	void *ctx;
	const struct api_server_counters *counters; /* NULL: zeros */
};

struct api_response {
	unsigned code;
	const char *content_type; /* constant */
	char allow[32];           /* for 405: "GET, HEAD"; else "" */
	char *body;               /* malloc'd; NULL: out of memory, send an empty 500 */
	size_t len;
};

struct api;

int api_new(const struct api_context *context, struct api **ret_api);
void api_free(struct api *api);
/* See server_set_engine() and server_set_waiting_for(). */
void api_set_engine(struct api *api, struct engine *engine);
void api_set_waiting_for(struct api *api, const char *reason);
/* Answers a request; any thread. Blocks only for snapshot, forget and reload. */
void api_handle(struct api *api, const struct api_request *request, struct api_response *ret_response);
/* An error answer, for what the server refuses itself. */
void api_error(struct api_response *ret_response, unsigned code, const char *text);

#endif
