/*
 * api_internal.h: what the files of the API share: the api itself, one request under way, and how an answer is made. Only api*.c include it.
 */
#ifndef DAEMON_API_INTERNAL_H
#define DAEMON_API_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "daemon/api.h"
#include "daemon/metrics.h"

/* Working memory of one request; taken from the api's list and given back, so that it is warm and bounded by the number of clients. */
struct api_scratch {
	struct api_scratch *next;
	struct user_copy user;
	struct query_scratch query;
	struct ranked_item items[API_K_MAX];
};

struct api {
	struct api_context context;
	pthread_mutex_t mutex;   /* engine, engine_users, commands, waiting_for, scratches */
	pthread_cond_t idle;     /* engine_users became 0 */
	struct engine *engine;   /* NULL: not yet, or no longer */
	unsigned engine_users;   /* requests that use it now */
	unsigned commands;       /* of these, the ones that wait for the engine */
	char waiting_for[128];   /* what /readyz says without an engine */
	struct api_scratch *scratches;
	pthread_mutex_t reload_mutex; /* one reload at a time */
	atomic_ullong answers[METRICS_CODES];
};

/* One request under way. */
struct api_call {
	struct api *api;
	const struct api_request *request;
	struct engine *engine;       /* held for this call; NULL for routes that need none */
	struct api_scratch *scratch; /* same */
	int64_t id;                  /* the {id} of the path */
	struct api_response *response;
};

/* Takes over `body` and dumps it; NULL: out of memory. */
void api_answer_json(struct api_response *response, unsigned code, json_t *body);
__attribute__((format(printf, 3, 4))) void api_errorf(struct api_response *response, unsigned code, const char *format, ...);
/* A whole number among the arguments; `fallback` when it is not there. 0, or -EINVAL after answering 400. */
int api_argument_u32(struct api_call *call, const char *name, uint32_t min, uint32_t max, uint32_t fallback, uint32_t *ret_value);
/* The same for an id, 0 to INT64_MAX. */
int api_argument_id(struct api_call *call, const char *name, int64_t fallback, int64_t *ret_value);

/* api_query.c */
void api_top(struct api_call *call);
void api_top_page(struct api_call *call);
void api_explain(struct api_call *call);
void api_similar(struct api_call *call);

#endif
