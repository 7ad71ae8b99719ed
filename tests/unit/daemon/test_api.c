/*
 * test_api.c: every route through the socket: codes, bodies, and answers from the model held against the model itself. The engine is a stand-in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "tests/unit/daemon/server_testing.h"

/* GET, 200, and the body as JSON. */
static json_t *get_json(const char *path)
{
	static struct answer answer;
	json_t *json;

	ask("GET", path, &answer);
	if (answer.code != 200)
		fail_msg("%s: %d %s", path, answer.code, answer.body);
	json = json_loads(answer.body, 0, NULL);
	assert_non_null(json);
	return json;
}

static void test_before_the_engine(void **state)
{
	(void)state;
	start(8, 10);
	assert_answer("GET", "/healthz", 200, "{\"status\":\"ok\"}");
	assert_answer("GET", "/readyz", 503, "{\"error\":\"not ready: starting\"}");
	server_set_waiting_for(server, "loading checkpoint 42");
	assert_answer("GET", "/readyz", 503, "{\"error\":\"not ready: loading checkpoint 42\"}");
	assert_answer("GET", "/v1/status", 503, "not ready: loading checkpoint 42");
	assert_answer("GET", "/v1/users/7/top", 503, "not ready");
	assert_answer("POST", "/v1/snapshot", 503, "not ready");
	assert_answer("POST", "/v1/reload", 503, "not ready");
	assert_answer("GET", "/metrics", 200, "\nrecd_ready 0\n");
	atomic_store(&process_sound, 0);
	assert_answer("GET", "/healthz", 503, "{\"error\":\"the engine hangs\"}");
	atomic_store(&process_sound, 1);

	engine_stand_in(&engine);
	atomic_store(&engine.ready, 0);
	server_set_engine(server, &engine);
	assert_answer("GET", "/readyz", 503, "{\"error\":\"not ready: loading\"}");
	atomic_store(&engine.ready, 1);
	assert_answer("GET", "/readyz", 200, "{\"status\":\"ready\"}");
	server_set_engine(server, NULL);
	assert_answer("GET", "/readyz", 503, "not ready: stopping");
	assert_answer("GET", "/v1/status", 503, "not ready: stopping");
	stop();
}

static void test_routes(void **state)
{
	static const struct {
		const char *method, *path;
		int code;
		const char *part;
	} cases[] = {
		{"GET", "/", 404, "no such path"},
		{"GET", "/v1/users/7", 404, "no such path"},
		{"GET", "/v1/users/7/top/", 404, "no such path"},
		{"GET", "/v1/users/7/top/x", 404, "no such path"},
		{"GET", "//v1/users/7/top", 404, "no such path"},
		{"GET", "/v1/users//top", 400, "\\\"\\\" is no id"},
		{"GET", "/v1/users/x/top", 400, "\\\"x\\\" is no id (a whole number, 0 to 9223372036854775807)"},
		{"GET", "/v1/users/-1/top", 400, "is no id"},
		{"GET", "/v1/users/1e3/top", 400, "is no id"},
		{"GET", "/v1/users/9223372036854775808/top", 400, "is no id"},
		{"GET", "/v1/users/99999999999999999999/top", 400, "is no id"}, /* 2^64 and more */
		{"GET", "/v1/users/9223372036854775807/top", 200, "\"user_id\":9223372036854775807"},
		{"GET", "/v1/users/7/top?k=0", 400, "k=0 is not a whole number from 1 to 1000"},
		{"GET", "/v1/users/7/top?k=1001", 400, "k=1001 is not"},
		{"GET", "/v1/users/7/top?k=", 400, "k= is not"},
		{"GET", "/v1/users/7/top?k=99999999999999999999", 400, "is not a whole number"},
		{"GET", "/v1/users/7/top?k=1&other=2", 200, "\"rank\":1"},
		{"GET", "/v1/items/999/similar", 404, "item 999 has not been seen"},
		{"GET", "/v1/items/%FF/similar", 400, "cannot be shown"},
		{"POST", "/v1/status", 405, "POST is not possible here (GET, HEAD)"},
		{"GET", "/v1/snapshot", 405, "(POST)"},
		{"PUT", "/v1/users/7/forget", 405, "(POST, DELETE)"},
		{"DELETE", "/v1/users/7/top", 405, "(GET, HEAD)"},
		{"POST", "/v1/snapshot?timeout_sec=0", 400, "timeout_sec=0 is not a whole number from 1 to 3600"},
	};
	struct answer answer;

	(void)state;
	start_with_engine(8, 10);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_answer(cases[i].method, cases[i].path, cases[i].code, cases[i].part);
	ask("PUT", "/v1/users/7/forget", &answer);
	assert_non_null(strstr(answer.headers, "\r\nAllow: POST, DELETE"));
	assert_non_null(strstr(answer.headers, "\r\nContent-Type: application/json"));
	ask("HEAD", "/readyz", &answer);
	assert_int_equal(answer.code, 200);
	assert_int_equal(answer.body_len, 0);
	stop();
}

/* The answer of the route must be the answer of query_top() on the same model. */
static void test_top(void **state)
{
	struct query_options options = {.k = 2, .personalize_min_positives = 3};
	struct query_scratch scratch = {0};
	struct user_copy copy = {0};
	struct ranked_item expected[2];
	struct generation *generation;
	enum served served;
	size_t n;
	json_t *json;

	(void)state;
	start_with_engine(8, 10);
	generation = generation_acquire(engine.publisher);
	assert_int_equal(state_user_copy(engine.state, state_find_user(engine.state, 7), &copy), 0);
	assert_int_equal(query_top(generation, engine.state, &copy.facts, &options, &scratch, expected, &n, &served), 0);
	assert_int_equal(n, 2); /* 104 and 105: the rest is watched */
	json = get_json("/v1/users/7/top?k=2");
	assert_int_equal(json_integer_value(json_object_get(json, "user_id")), 7);
	assert_int_equal(json_integer_value(json_object_get(json, "generation")), generation->number);
	assert_string_equal(json_string_value(json_object_get(json, "served")), served_name(served));
	assert_int_equal(json_array_size(json_object_get(json, "items")), 2);
	for (size_t i = 0; i < 2; i++) {
		json_t *item = json_array_get(json_object_get(json, "items"), i);

		assert_int_equal(json_integer_value(json_object_get(item, "rank")), i + 1);
		assert_int_equal(json_integer_value(json_object_get(item, "item_id")), state_item_ids(engine.state)[expected[i].item]);
		assert_true((float)json_real_value(json_object_get(item, "score")) == expected[i].score);
		assert_true((float)json_real_value(json_object_get(item, "conf")) == expected[i].conf);
	}
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(json, "items"), 0), "title")), "Movie \"5\"");
	json_decref(json);
	generation_release(engine.publisher, generation);
	user_copy_free(&copy);
	query_scratch_free(&scratch);

	json = get_json("/v1/users/12345/top"); /* nobody has seen this user */
	assert_string_equal(json_string_value(json_object_get(json, "served")), "popularity");
	assert_int_equal(json_array_size(json_object_get(json, "items")), N_ITEMS); /* k=10, six there */
	json_decref(json);
	stop();
}

static void test_explain(void **state)
{
	json_t *json;

	(void)state;
	start_with_engine(8, 10);
	json = get_json("/v1/users/7/explain");
	assert_int_equal(json_integer_value(json_object_get(json, "watched_count")), 4);
	assert_int_equal(json_integer_value(json_object_get(json, "positive_count")), 4);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 2);
	assert_int_equal(json_array_size(json_object_get(json_array_get(json_object_get(json, "items"), 0), "nearest")), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(json, "genres"), 0), "genre")), "drama");
	json_decref(json);
	json = get_json("/v1/users/12345/explain?k=1");
	assert_int_equal(json_integer_value(json_object_get(json, "watched_count")), 0);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 1);
	json_decref(json);
	stop();
}

static double cosine(const float *a, const float *b)
{
	double ab = 0;
	double aa = 0;
	double bb = 0;

	for (int d = 0; d < DIM; d++) {
		ab += (double)a[d] * (double)b[d];
		aa += (double)a[d] * (double)a[d];
		bb += (double)b[d] * (double)b[d];
	}
	return ab / sqrt(aa * bb);
}

static void test_similar(void **state)
{
	struct generation *generation;
	double last = 2;
	json_t *json;
	json_t *items;

	(void)state;
	start_with_engine(8, 10);
	generation = generation_acquire(engine.publisher);
	json = get_json("/v1/items/101/similar");
	assert_int_equal(json_integer_value(json_object_get(json, "item_id")), 101);
	assert_string_equal(json_string_value(json_object_get(json, "title")), "Movie \"1\"");
	items = json_object_get(json, "items");
	assert_int_equal(json_array_size(items), 3); /* 100, 102, 103; nobody has 104 or 105 as a positive, and not itself */
	for (size_t i = 0; i < 3; i++) {
		json_t *item = json_array_get(items, i);
		int64_t id = json_integer_value(json_object_get(item, "item_id"));
		double similarity = json_real_value(json_object_get(item, "similarity"));

		assert_in_range(id, 100, 103);
		assert_int_not_equal(id, 101);
		assert_true(fabs(similarity - cosine(generation->tables.V + DIM, generation->tables.V + (id - 100) * DIM)) < 1e-5);
		assert_true(similarity <= last);
		last = similarity;
	}
	json_decref(json);
	json = get_json("/v1/items/101/similar?k=1");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(json, "items"), 0), "item_id")), 102);
	json_decref(json);
	generation_release(engine.publisher, generation);
	apply(engine.state, STREAM_CATALOGUE, &(struct event){.item_id = 555}, "{\"item_id\":555}");
	assert_answer("GET", "/v1/items/555/similar", 503, "item 555 is not in the published model yet");
	stop();
}

static void test_no_model_yet(void **state)
{
	(void)state;
	start(8, 10);
	memset(&engine, 0, sizeof(engine));
	engine.state = state_with_history();
	assert_int_equal(publisher_new(DIM, &engine.publisher), 0);
	server_set_engine(server, &engine);
	assert_answer("GET", "/v1/users/7/top", 503, "no model has been published yet");
	assert_answer("GET", "/v1/users/7/explain", 503, "no model has been published yet");
	assert_answer("GET", "/v1/top", 503, "no model has been published yet");
	assert_answer("GET", "/v1/items/100/similar", 503, "no model has been published yet");
	stop();
}

/* A line of a page says what the single answer says: model, items, scores. Titles only when asked for. */
static void assert_line_is_top(json_t *line, int titles)
{
	char path[64];
	json_t *top, *item;
	size_t i;

	snprintf(path, sizeof(path), "/v1/users/%lld/top?k=4", (long long)json_integer_value(json_object_get(line, "user_id")));
	top = get_json(path);
	json_array_foreach(json_object_get(top, "items"), i, item)
	{
		assert_int_equal(json_object_del(item, "rank") | json_object_del(item, "release_year") | json_object_del(item, "genres"), 0);
		if (!titles)
			assert_int_equal(json_object_del(item, "title"), 0);
	}
	if (!json_equal(top, line))
		fail_msg("%s", json_dumps(line, 0));
	json_decref(top);
}

/* GET of a page; returns how many lines, the last user in *ret_last. */
static size_t get_page(const char *path, int titles, int64_t *ret_last)
{
	static struct answer answer;
	char *line, *rest = answer.body;
	size_t n = 0;

	ask("GET", path, &answer);
	assert_int_equal(answer.code, 200);
	assert_non_null(strcasestr(answer.headers, "Content-Type: application/x-ndjson"));
	static char body[sizeof(answer.body)];
	memcpy(body, answer.body, answer.body_len + 1);
	for (rest = body; (line = strsep(&rest, "\n")) && line[0]; n++) {
		json_t *json = json_loads(line, 0, NULL);

		assert_non_null(json);
		*ret_last = json_integer_value(json_object_get(json, "user_id"));
		assert_line_is_top(json, titles);
		json_decref(json);
	}
	return n;
}

static void test_top_pages(void **state)
{
	int64_t last = -1;

	(void)state;
	start_with_engine(8, 10);
	assert_int_equal(get_page("/v1/top?k=4", 0, &last), 2);
	assert_int_equal(last, 8);
	assert_int_equal(get_page("/v1/top?k=4&titles=1&limit=10000", 1, &last), 2);
	assert_int_equal(get_page("/v1/top?k=4&limit=1", 0, &last), 1);
	assert_int_equal(last, 7);
	assert_int_equal(get_page("/v1/top?k=4&limit=1&after_user=7", 0, &last), 1);
	assert_int_equal(last, 8);
	assert_int_equal(get_page("/v1/top?k=4&after_user=8", 0, &last), 0);
	assert_int_equal(get_page("/v1/top?k=4&after_user=9223372036854775807", 0, &last), 0);
	assert_int_equal(get_page("/v1/top?k=4&after_user=0", 0, &last), 2);
	assert_answer("GET", "/v1/top?after_user=-1", 400, "after_user=-1 is no id (a whole number, 0 to 9223372036854775807)");
	assert_answer("GET", "/v1/top?after_user=", 400, "after_user= is no id");
	assert_answer("GET", "/v1/top?limit=0", 400, "limit=0 is not a whole number from 1 to 10000");
	assert_answer("GET", "/v1/top?limit=10001", 400, "limit=10001 is not");
	assert_answer("GET", "/v1/top?titles=2", 400, "titles=2 is not");
	assert_answer("GET", "/v1/top?k=1001", 400, "k=1001 is not");
	assert_answer("POST", "/v1/top", 405, "");
	assert_answer("GET", "/v1/top/", 404, "");
	stop();
}

static void test_status_and_metrics(void **state)
{
	json_t *json;

	(void)state;
	start_with_engine(8, 10);
	json = get_json("/v1/status");
	assert_int_equal(json_integer_value(json_object_get(json, "n_users")), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(json, "sources"), 0), "name")), "files:watch_stats");
	json_t *partition = json_array_get(json_object_get(json, "partitions"), 0); /* the source's figures and the engine's, put together */
	assert_int_equal(json_integer_value(json_object_get(partition, "lag_records")), 6);
	assert_int_equal(json_integer_value(json_object_get(partition, "holes")), 5);
	json_decref(json);
	assert_answer("GET", "/nothing", 404, "");
	assert_answer("GET", "/metrics", 200, "\nrecd_users 2\n");
	assert_answer("GET", "/metrics", 200, "\nrecd_http_answers_total{code=\"404\"} 1\n");
	assert_answer("GET", "/metrics", 200, "\nrecd_http_answers_total{code=\"200\"} 3\n"); /* status and two metrics */
	assert_answer("GET", "/metrics", 200, "\nrecd_http_clients_accepted_total 6\n");
	stop();
}

static void test_commands(void **state)
{
	(void)state;
	start_with_engine(8, 10);
	assert_answer("POST", "/v1/snapshot", 200, "{\"checkpoint\":42,\"bytes\":60000,\"duration_ms\":7}"); /* bytes: the timeout it got */
	assert_answer("POST", "/v1/snapshot?timeout_sec=3", 200, "\"bytes\":3000");
	atomic_store(&engine.snapshot_result, -ETIMEDOUT);
	assert_answer("POST", "/v1/snapshot?timeout_sec=1", 503, "no checkpoint was durable after 1 s; it is still being written");
	atomic_store(&engine.snapshot_result, -EIO);
	assert_answer("POST", "/v1/snapshot", 503, "{\"error\":\"state.pt: fsync: no space left\"}");

	assert_answer("POST", "/v1/reload", 200, "{\"result\":\"configuration reloaded\"}");
	atomic_store(&reload_result, -EINVAL);
	assert_answer("POST", "/v1/reload", 400, "{\"error\":\"recd.conf:3: training.emb_dmi: unknown key\"}");

	assert_answer("POST", "/v1/users/77/forget", 200, "{\"user_id\":77,\"forgotten\":true}");
	assert_int_equal(atomic_load(&engine.forgot_user), 77);
	assert_int_equal(atomic_load(&engine.forgot_lift), 0);
	assert_answer("DELETE", "/v1/users/78/forget", 200, "{\"user_id\":78,\"forgotten\":false}");
	assert_int_equal(atomic_load(&engine.forgot_user), 78);
	assert_int_equal(atomic_load(&engine.forgot_lift), 1);
	atomic_store(&engine.forget_result, -ETIMEDOUT);
	assert_answer("POST", "/v1/users/77/forget", 503, "the engine did not answer within 10 s");
	stop();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_before_the_engine), TEST(test_routes),      TEST(test_top),      TEST(test_explain), TEST(test_similar),
		TEST(test_no_model_yet),      TEST(test_top_pages),   TEST(test_status_and_metrics), TEST(test_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
