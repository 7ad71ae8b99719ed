/*
 * api.c: routes, and the answers that need no model: health, status, metrics, snapshot, reload, forget. Queries are in api_query.c.
 *
 * Runs in the server's threads, many at a time. The engine is handed over by the main thread; a request that needs it holds it by a count, so
 * that api_set_engine(NULL) can wait for the last one before the engine is freed. Nothing here waits for the engine thread but snapshot and forget.
 */
#include "daemon/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/api_internal.h"
#include "daemon/log.h"
#include "daemon/render.h"

#define SOURCES_MAX 64
#define SNAPSHOT_TIMEOUT_SEC 60
#define SNAPSHOT_TIMEOUT_SEC_MAX 3600
#define FORGET_TIMEOUT_MS 10000
#define COMMANDS_MAX 8 /* that wait at one time, so that some places are always left for questions */

static const char type_json[] = "application/json";
static const char type_prometheus[] = "text/plain; version=0.0.4; charset=utf-8";

/* ---- answers ---- */

void api_answer_json(struct api_response *response, unsigned code, json_t *body)
{
	char *text = body ? json_dumps(body, RENDER_FLAGS) : NULL;

	json_decref(body);
	free(response->body);
	response->code = text ? code : 500;
	response->content_type = type_json;
	response->body = text;
	response->len = text ? strlen(text) : 0;
}

void api_error(struct api_response *ret_response, unsigned code, const char *text)
{
	json_t *message = json_string(text);

	if (!message) /* not UTF-8 */
		message = json_string("the reason cannot be shown: it is not UTF-8");
	api_answer_json(ret_response, code, json_pack("{s:o}", "error", message));
}

void api_errorf(struct api_response *response, unsigned code, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	api_error(response, code, text);
}

/* Decimal digits alone, at most INT64_MAX. */
static int parse_id(const char *text, size_t len, int64_t *ret_id)
{
	int64_t id = 0;

	if (len == 0)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(id, 10, &id) || __builtin_add_overflow(id, text[i] - '0', &id))
			return -EINVAL;
	}
	*ret_id = id;
	return 0;
}

int api_argument_u32(struct api_call *call, const char *name, uint32_t min, uint32_t max, uint32_t fallback, uint32_t *ret_value)
{
	const char *text = call->request->argument ? call->request->argument(call->request->ctx, name) : NULL;
	int64_t value = fallback;

	if (text && (parse_id(text, strlen(text), &value) < 0 || value < min || value > max)) {
		api_errorf(call->response, 400, "%s=%.40s is not a whole number from %" PRIu32 " to %" PRIu32, name, text, min, max);
		return -EINVAL;
	}
	*ret_value = (uint32_t)value;
	return 0;
}

int api_argument_id(struct api_call *call, const char *name, int64_t fallback, int64_t *ret_value)
{
	const char *text = call->request->argument ? call->request->argument(call->request->ctx, name) : NULL;
	int64_t value = fallback;

	if (text && parse_id(text, strlen(text), &value) < 0) {
		api_errorf(call->response, 400, "%s=%.40s is no id (a whole number, 0 to %" PRId64 ")", name, text, INT64_MAX);
		return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

/* ---- what every request may hold ---- */

/* The engine, counted; NULL when there is none. */
static struct engine *engine_hold(struct api *api)
{
	struct engine *engine;

	pthread_mutex_lock(&api->mutex);
	engine = api->engine;
	if (engine)
		api->engine_users++;
	pthread_mutex_unlock(&api->mutex);
	return engine;
}

static void engine_let_go(struct api *api, const struct engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&api->mutex);
	if (--api->engine_users == 0)
		pthread_cond_broadcast(&api->idle);
	pthread_mutex_unlock(&api->mutex);
}

static struct api_scratch *scratch_take(struct api *api)
{
	struct api_scratch *scratch;

	pthread_mutex_lock(&api->mutex);
	scratch = api->scratches;
	if (scratch)
		api->scratches = scratch->next;
	pthread_mutex_unlock(&api->mutex);
	return scratch ? scratch : calloc(1, sizeof(*scratch));
}

static void scratch_give_back(struct api *api, struct api_scratch *scratch)
{
	if (!scratch)
		return;
	pthread_mutex_lock(&api->mutex);
	scratch->next = api->scratches;
	api->scratches = scratch;
	pthread_mutex_unlock(&api->mutex);
}

static void waiting_for(struct api *api, char *ret_text, size_t size)
{
	pthread_mutex_lock(&api->mutex);
	snprintf(ret_text, size, "%s", api->waiting_for);
	pthread_mutex_unlock(&api->mutex);
}

static size_t sources_get(const struct api *api, struct source_status *ret_sources)
{
	return api->context.sources ? api->context.sources(api->context.ctx, ret_sources, SOURCES_MAX) : 0;
}

/* The Kafka partitions, with what the engine has counted. None when out of memory: the rest of the answer is worth more. */
static size_t partitions_get(const struct api *api, struct engine *engine, int64_t time_max_us, struct partition_view ret_views[PARTITIONS_SHOWN + 1])
{
	const struct api_context *context = &api->context;
	struct partition_status *partitions = NULL;
	struct source_position *positions = NULL;
	size_t n_positions = 0, n = context->partitions ? context->partitions(context->ctx, NULL, 0) : 0, n_now, n_views = 0;
	struct timespec now;

	if (n == 0)
		return 0;
	partitions = malloc(n * sizeof(*partitions));
	if (partitions && engine_copy_positions(engine, &positions, &n_positions) == 0) {
		n_now = context->partitions(context->ctx, partitions, n);
		clock_gettime(CLOCK_MONOTONIC, &now);
		n_views = partitions_view(partitions, n_now < n ? n_now : n, positions, n_positions, time_max_us,
		                          (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, ret_views);
	}
	free(partitions);
	free(positions);
	return n_views;
}

/* ---- health ---- */

static void get_healthz(struct api_call *call)
{
	const struct api_context *context = &call->api->context;
	char reason[256] = "";

	if (context->sound && !context->sound(context->ctx, reason, sizeof(reason)))
		api_error(call->response, 503, reason);
	else
		api_answer_json(call->response, 200, json_pack("{s:s}", "status", "ok"));
}

static void get_readyz(struct api_call *call)
{
	struct engine *engine = engine_hold(call->api);
	struct engine_status status = {0};
	char reason[160] = "";

	if (engine)
		engine_get_status(engine, &status);
	engine_let_go(call->api, engine);
	if (engine && status.ready)
		api_answer_json(call->response, 200, json_pack("{s:s}", "status", "ready"));
	else if (engine)
		api_errorf(call->response, 503, "not ready: %s", status.phase);
	else {
		waiting_for(call->api, reason, sizeof(reason));
		api_errorf(call->response, 503, "not ready: %s", reason);
	}
}

/* ---- status and metrics ---- */

static void get_status(struct api_call *call)
{
	struct source_status sources[SOURCES_MAX];
	struct engine_status status;
	size_t n_sources = sources_get(call->api, sources);
	struct partition_view *views = malloc((PARTITIONS_SHOWN + 1) * sizeof(*views));

	engine_get_status(call->engine, &status);
	if (views)
		api_answer_json(call->response, 200,
		                render_status(&status, sources, n_sources, views, partitions_get(call->api, call->engine, status.time_max_us, views)));
	else
		api_answer_json(call->response, 500, NULL);
	free(views);
}

static void get_metrics(struct api_call *call)
{
	struct source_status sources[SOURCES_MAX];
	struct api *api = call->api;
	struct engine *engine = engine_hold(api);
	struct engine_status status;
	struct metrics_input input = {.sources = sources, .log_lost = log_lost()};
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct partition_view *views = malloc((PARTITIONS_SHOWN + 1) * sizeof(*views));

	if (engine) {
		engine_get_status(engine, &status);
		input.status = &status;
		input.partitions = views;
		input.n_partitions = views ? partitions_get(api, engine, status.time_max_us, views) : 0;
	}
	engine_let_go(api, engine);
	input.n_sources = sources_get(api, sources);
	for (int s = 0; api->context.queues && s < STREAM_COUNT; s++)
		input.queue_waiting[s] = queue_waiting(api->context.queues, (enum event_stream)s);
	for (size_t i = 0; i < METRICS_CODES; i++)
		input.answers[i] = atomic_load_explicit(&api->answers[i], memory_order_relaxed);
	if (call->request->counters)
		input.server = *call->request->counters;
	call->response->code = 500;
	if (out)
		metrics_write(out, &input);
	free(views);
	if (!out)
		return;
	if (fclose(out) != 0) {
		free(text);
		return;
	}
	call->response->code = 200;
	call->response->content_type = type_prometheus;
	call->response->body = text;
	call->response->len = len;
}

/* ---- commands ---- */

/* 1: go on, and call command_ends(); 0 after answering 503. */
static int command_begins(struct api_call *call)
{
	int admitted;

	pthread_mutex_lock(&call->api->mutex);
	admitted = call->api->commands < COMMANDS_MAX;
	call->api->commands += (unsigned)admitted;
	pthread_mutex_unlock(&call->api->mutex);
	if (!admitted)
		api_errorf(call->response, 503, "%d commands are waiting already; try again", COMMANDS_MAX);
	return admitted;
}

static void command_ends(const struct api_call *call)
{
	pthread_mutex_lock(&call->api->mutex);
	call->api->commands--;
	pthread_mutex_unlock(&call->api->mutex);
}

static void post_snapshot(struct api_call *call)
{
	struct checkpoint_result result = {0};
	char errstr[512] = "";
	uint32_t timeout_sec;
	int r;

	if (api_argument_u32(call, "timeout_sec", 1, SNAPSHOT_TIMEOUT_SEC_MAX, SNAPSHOT_TIMEOUT_SEC, &timeout_sec) < 0 || !command_begins(call))
		return;
	r = engine_snapshot(call->engine, (int)timeout_sec * 1000, &result, errstr, sizeof(errstr));
	command_ends(call);
	if (r == -ETIMEDOUT)
		api_errorf(call->response, 503, "no checkpoint was durable after %" PRIu32 " s; it is still being written", timeout_sec);
	else if (r < 0)
		api_error(call->response, 503, errstr[0] ? errstr : strerror(-r));
	else
		api_answer_json(call->response, 200, json_pack("{s:I,s:I,s:I}", "checkpoint", (json_int_t)result.number, "bytes", (json_int_t)result.bytes,
		                                               "duration_ms", (json_int_t)(result.duration_us / 1000)));
}

static void post_reload(struct api_call *call)
{
	struct api *api = call->api;
	char text[1024] = "";
	int r = -ENOTSUP;

	if (api->context.reload) {
		pthread_mutex_lock(&api->reload_mutex);
		r = api->context.reload(api->context.ctx, text, sizeof(text));
		pthread_mutex_unlock(&api->reload_mutex);
	}
	if (r < 0)
		api_error(call->response, r == -EINVAL ? 400 : 503, text[0] ? text : strerror(-r));
	else
		api_answer_json(call->response, 200, json_pack("{s:s}", "result", text));
}

static void forget(struct api_call *call, int lift)
{
	int r;

	if (!command_begins(call))
		return;
	r = engine_forget(call->engine, call->id, lift, FORGET_TIMEOUT_MS);
	command_ends(call);
	if (r == -ETIMEDOUT)
		api_errorf(call->response, 503, "the engine did not answer within %d s; the request stands and may still be applied", FORGET_TIMEOUT_MS / 1000);
	else if (r < 0)
		api_errorf(call->response, 503, "%s", strerror(-r));
	else
		api_answer_json(call->response, 200, json_pack("{s:I,s:b}", "user_id", (json_int_t)call->id, "forgotten", !lift));
}

static void post_forget(struct api_call *call)
{
	forget(call, 0);
}

static void delete_forget(struct api_call *call)
{
	forget(call, 1);
}

/* ---- routes ---- */

/* {id} stands for one whole number. GET also answers HEAD. */
static const struct route {
	const char *method;
	const char *pattern;
	void (*handle)(struct api_call *call);
	int needs_engine;
} routes[] = {
	{"GET", "/healthz", get_healthz, 0},
	{"GET", "/readyz", get_readyz, 0},
	{"GET", "/metrics", get_metrics, 0},
	{"GET", "/v1/status", get_status, 1},
	{"GET", "/v1/users/{id}/top", api_top, 1},
	{"GET", "/v1/top", api_top_page, 1},
	{"GET", "/v1/users/{id}/explain", api_explain, 1},
	{"GET", "/v1/items/{id}/similar", api_similar, 1},
	{"POST", "/v1/snapshot", post_snapshot, 1},
	{"POST", "/v1/reload", post_reload, 1}, /* what is reloaded goes to the engine */
	{"POST", "/v1/users/{id}/forget", post_forget, 1},
	{"DELETE", "/v1/users/{id}/forget", delete_forget, 1},
};
#define N_ROUTES (sizeof(routes) / sizeof(routes[0]))

/* 1: the path has this form; *ret_id and *ret_id_len say where its {id} stands. */
static int matches(const char *pattern, const char *path, const char **ret_id, size_t *ret_id_len)
{
	const char *hole = strstr(pattern, "{id}");
	size_t before = hole ? (size_t)(hole - pattern) : strlen(pattern);

	*ret_id = NULL;
	if (!hole)
		return strcmp(pattern, path) == 0;
	if (strncmp(pattern, path, before) != 0)
		return 0;
	*ret_id = path + before;
	*ret_id_len = strcspn(*ret_id, "/");
	return strcmp(hole + strlen("{id}"), *ret_id + *ret_id_len) == 0;
}

static int method_fits(const struct route *route, const char *method)
{
	return strcmp(route->method, method) == 0 || (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void answer_not_allowed(const struct api_request *request, struct api_response *response)
{
	const char *id;
	size_t id_len;
	size_t n = 0;

	for (size_t i = 0; i < N_ROUTES; i++) {
		if (!matches(routes[i].pattern, request->path, &id, &id_len))
			continue;
		n += (size_t)snprintf(response->allow + n, sizeof(response->allow) - n, "%s%s%s", n ? ", " : "", routes[i].method,
		                      strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
	}
	if (n)
		api_errorf(response, 405, "%.16s is not possible here (%s)", request->method, response->allow);
	else
		api_error(response, 404, "no such path; see recd(8) for what there is");
}

static const struct route *find_route(const struct api_request *request, const char **ret_id, size_t *ret_id_len)
{
	for (size_t i = 0; i < N_ROUTES; i++)
		if (method_fits(&routes[i], request->method) && matches(routes[i].pattern, request->path, ret_id, ret_id_len))
			return &routes[i];
	return NULL;
}

static void call_with_engine(const struct route *route, struct api_call *call)
{
	char reason[160];

	call->engine = engine_hold(call->api);
	call->scratch = call->engine ? scratch_take(call->api) : NULL;
	if (!call->engine) {
		waiting_for(call->api, reason, sizeof(reason));
		api_errorf(call->response, 503, "not ready: %s", reason);
	} else if (call->scratch) {
		route->handle(call);
	}
	scratch_give_back(call->api, call->scratch);
	engine_let_go(call->api, call->engine);
}

void api_handle(struct api *api, const struct api_request *request, struct api_response *ret_response)
{
	struct api_call call = {.api = api, .request = request, .response = ret_response};
	const char *id = NULL;
	size_t id_len = 0;
	const struct route *route = find_route(request, &id, &id_len);
	size_t code = 0;

	*ret_response = (struct api_response){.code = 500, .content_type = type_json};
	if (!route)
		answer_not_allowed(request, ret_response);
	else if (id && parse_id(id, id_len, &call.id) < 0)
		api_errorf(ret_response, 400, "\"%.*s\" is no id (a whole number, 0 to %" PRId64 ")", (int)(id_len < 40 ? id_len : 40), id, INT64_MAX);
	else if (route->needs_engine)
		call_with_engine(route, &call);
	else
		route->handle(&call);
	while (code < METRICS_CODES - 1 && metrics_codes[code] != ret_response->code)
		code++;
	atomic_fetch_add_explicit(&api->answers[code], 1, memory_order_relaxed);
}

/* ---- life ---- */

int api_new(const struct api_context *context, struct api **ret_api)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return -ENOMEM;
	api->context = *context;
	pthread_mutex_init(&api->mutex, NULL);
	pthread_mutex_init(&api->reload_mutex, NULL);
	pthread_cond_init(&api->idle, NULL);
	snprintf(api->waiting_for, sizeof(api->waiting_for), "starting");
	*ret_api = api;
	return 0;
}

void api_free(struct api *api)
{
	if (!api)
		return;
	while (api->scratches) {
		struct api_scratch *scratch = api->scratches;

		api->scratches = scratch->next;
		user_copy_free(&scratch->user);
		query_scratch_free(&scratch->query);
		free(scratch);
	}
	pthread_cond_destroy(&api->idle);
	pthread_mutex_destroy(&api->reload_mutex);
	pthread_mutex_destroy(&api->mutex);
	free(api);
}

void api_set_engine(struct api *api, struct engine *engine)
{
	pthread_mutex_lock(&api->mutex);
	api->engine = engine;
	if (!engine)
		snprintf(api->waiting_for, sizeof(api->waiting_for), "stopping");
	while (!engine && api->engine_users > 0)
		pthread_cond_wait(&api->idle, &api->mutex);
	pthread_mutex_unlock(&api->mutex);
}

void api_set_waiting_for(struct api *api, const char *reason)
{
	pthread_mutex_lock(&api->mutex);
	snprintf(api->waiting_for, sizeof(api->waiting_for), "%s", reason);
	pthread_mutex_unlock(&api->mutex);
}
