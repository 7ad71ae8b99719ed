/*
 * test_top_page.c: lines of answers and which users come next, against a plain sort and a JSON parser.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/top_page.h"

static struct state *state_new_or_fail(void)
{
	const struct state_config config = {.hash_seed = 1, .users_max = 100000, .items_max = 100, .impressions_max = 1};
	const struct state_rules rules = {.min_pos_completion = 0.6f, .negative_after_us = 1800 * 1000000ll};
	struct state *state;
	char errstr[256];

	assert_int_equal(state_new(&config, &rules, &state, errstr, sizeof(errstr)), 0);
	return state;
}

static void apply(struct state *state, enum event_stream stream, const struct event *event, const char *doc)
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

static void watch(struct state *state, int64_t user_id)
{
	apply(state, STREAM_WATCHES, &(struct event){.user_id = user_id, .item_id = 5, .time_us = 1765368001000000, .flags = EVENT_HAS_COMPLETION, .completion = 1.0f}, NULL);
}

static int compare_ids(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Pages of any size, put together, are everybody once in ascending order, whatever order the users came in. */
static void test_users(void **unused)
{
	enum { N = 2000 };
	static const size_t sizes[] = {1, 2, 3, 7, 64, 999, 1999, 2000, 2001, 10000};
	static int64_t ids[N], page[10000];
	struct state *state = state_new_or_fail();
	uint64_t random = 12345;

	(void)unused;
	assert_int_equal(top_page_users(state, -1, 10, page), 0);
	for (int i = 0; i < N; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		ids[i] = i == 0 ? 0 : i == 1 ? INT64_MAX : (int64_t)(random >> 1) >> (i % 40);
		watch(state, ids[i]);
	}
	qsort(ids, N, sizeof(ids[0]), compare_ids);
	size_t n_ids = 0; /* without repeated ones */
	for (size_t i = 0; i < N; i++)
		if (i == 0 || ids[i] != ids[i - 1])
			ids[n_ids++] = ids[i];
	assert_int_equal(n_ids, state_n_users(state));
	assert_int_equal(top_page_users(state, -1, 0, page), 0);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		int64_t after = -1;
		size_t n, seen = 0;

		while ((n = top_page_users(state, after, sizes[s], page)) > 0) {
			assert_true(n == sizes[s] || seen + n == n_ids);
			assert_memory_equal(page, ids + seen, n * sizeof(page[0]));
			seen += n;
			after = page[n - 1];
		}
		assert_int_equal(seen, n_ids);
	}
	state_free(state);
}

static json_t *line_at(const struct top_page *page, size_t begin, size_t *ret_end)
{
	const char *end = memchr(page->text + begin, '\n', page->len - begin);
	json_t *json;

	assert_non_null(end);
	*ret_end = (size_t)(end - page->text) + 1;
	json = json_loadb(page->text + begin, (size_t)(end - page->text) - begin, 0, NULL);
	assert_non_null(json);
	return json;
}

static void test_lines(void **unused)
{
	struct state *state = state_new_or_fail();
	struct ranked_item items[] = {{0, 1.5f, 0.25f}, {1, NAN, 0.1f}};
	struct top_page page = {0};
	size_t at = 0;

	(void)unused;
	apply(state, STREAM_CATALOGUE, &(struct event){.item_id = 70}, "{\"item_id\":70,\"title\":\"a \\\"b\\\"\\nc\"}");
	apply(state, STREAM_CATALOGUE, &(struct event){.item_id = 71}, "{\"item_id\":71}");
	const struct top_line lines[] = {
		{.user_id = INT64_MAX, .served = SERVED_POPULARITY, .generation = 9, .items = items, .n_items = 2},
		{.user_id = 0, .served = SERVED_GLOBAL, .model = "m.pt", .items = items, .n_items = 1, .titles = 1},
		{.user_id = 1, .served = SERVED_PERSONALIZED, .model = "m.pt"},
	};
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(top_page_add(&page, state, &lines[i]), 0);
	static const char expected[] = "{\"user_id\":9223372036854775807,\"served\":\"popularity\",\"generation\":9,\"items\":["
	                               "{\"item_id\":70,\"score\":1.5,\"conf\":0.25},{\"item_id\":71,\"score\":null,\"conf\":0.100000001}]}\n";
	assert_true(page.len > strlen(expected));
	assert_memory_equal(page.text, expected, strlen(expected));
	json_decref(line_at(&page, 0, &at));
	json_t *json = line_at(&page, at, &at);
	assert_string_equal(json_string_value(json_object_get(json, "model")), "m.pt");
	assert_null(json_object_get(json, "generation"));
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(json, "items"), 0), "title")), "a \"b\"\nc");
	json_decref(json);
	json = line_at(&page, at, &at);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 0);
	json_decref(json);
	assert_int_equal(at, page.len);
	top_page_free(&page);
	state_free(state);
}

/* A line that is longer than the room left, in every relation of the two. */
static void test_long_lines(void **unused)
{
	struct state *state = state_new_or_fail();
	struct ranked_item items[1000] = {{0}};
	struct top_page page = {0};
	size_t at = 0, n_lines = 0;

	(void)unused;
	watch(state, 1);
	for (size_t i = 0; i < 1000; i++)
		items[i].score = 1.0f / (float)(i + 3);
	for (size_t n = 0; n < 1000; n += 3, n_lines++)
		assert_int_equal(top_page_add(&page, state, &(struct top_line){.user_id = (int64_t)n, .items = items, .n_items = n}), 0);
	for (size_t i = 0; i < n_lines; i++) {
		json_t *json = line_at(&page, at, &at);

		assert_int_equal(json_integer_value(json_object_get(json, "user_id")), 3 * i);
		assert_int_equal(json_array_size(json_object_get(json, "items")), 3 * i);
		json_decref(json);
	}
	assert_int_equal(at, page.len);
	top_page_free(&page);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_long_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
