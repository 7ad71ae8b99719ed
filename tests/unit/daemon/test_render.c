/*
 * test_render.c: every field of the status has its place in the JSON, with its value; digests, times that never were, numbers that JSON cannot hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/render.h"

static json_int_t int_at(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value))
		fail_msg("%s is no integer", key);
	return json_integer_value(value);
}

/* Every byte of the structs set, so that each field has a value that is not zero. */
static void fill(struct engine_status *status, struct source_status *source)
{
	memset(status, 1, sizeof(*status));
	memset(source, 1, sizeof(*source));
	strcpy(status->phase, "running");
	strcpy(status->backend, "cpu");
	strcpy(status->backend_reason, "no GPU");
	strcpy(status->device_name, "H100");
	strcpy(status->device_driver, "580.65.06");
	strcpy(status->device_cuda, "13.0");
	strcpy(status->precision, "bf16");
	strcpy(status->device_trouble, "it left");
	status->device_memory_bytes = 80000;
	status->device_memory_used_bytes = 123;
	status->device_losses = 3;
	status->device_rebuilds = 2;
	status->device_lost_age_ms = 1500;
	strcpy(status->checkpoint_error, "disk full");
	status->loss = 0.5;
	status->triples_per_sec = 1.5e6;
	status->apply_per_sec = 12;
	status->time_max_us = 1765368001000000;
	status->histories_digest = (struct state_digest){ .lo = 0x1, .hi = 0xabcdef0000000000 };
	status->n_positions = 2;
	for (int i = 0; i < 2; i++)
		snprintf(status->positions[i].name, sizeof(status->positions[i].name), "file:watch_stats:/w%d", i);
	status->positions[1].last_time_us = STATE_TIME_NONE;
	memset(status->positions[1].refused, 0, sizeof(status->positions[1].refused));
	status->positions[1].refused[REFUSED_BAD_ID] = 3;
	strcpy(source->name, "files:watch_stats");
	strcpy(source->reason, "\xff is no UTF-8");
	source->last_time_us = STATE_TIME_NONE;
	source->lag_records = -1;
}

static void the_status_holds_every_field(void **state)
{
	static const char *const ints[] = { "heartbeat", "n_users", "n_items", "n_positives", "time_max_us", "generation", "publish_age_ms", "folded_in",
		                            "fold_in_waiting", "personal_rows", "refreshed", "checkpoint_number", "checkpoint_age_ms",
		                            "training_threads", "checkpoint_duration_ms", "checkpoint_bytes", "checkpoint_failures", "apply_gap_max_us", "apply_gap_p999_us", "checkpoint_gap_p999_us", "dead_letter_length",
		                            "dead_letter_dropped", "memory_bytes", "model_clock_us", "n_positions" };
	static const char *const flags[] = { "ready", "training_resting", "checkpoint_running" };
	struct engine_status *status = calloc(1, sizeof(*status));
	struct source_status source;

	(void)state;
	assert_non_null(status);
	fill(status, &source);
	json_t *json = render_status(status, &source, 1, NULL, 0);
	assert_non_null(json);
	for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++)
		assert_true(int_at(json, ints[i]) != 0);
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		assert_true(json_is_true(json_object_get(json, flags[i])));
	assert_int_equal(int_at(json, "generation"), status->generation);
	assert_int_equal(int_at(json, "checkpoint_number"), status->checkpoint_number);
	assert_string_equal(json_string_value(json_object_get(json, "phase")), "running");
	assert_string_equal(json_string_value(json_object_get(json, "backend_reason")), "no GPU");
	json_t *device = json_object_get(json, "device");
	char *text = json_dumps(device, JSON_COMPACT | JSON_SORT_KEYS);

	assert_string_equal(text, "{\"cuda\":\"13.0\",\"driver\":\"580.65.06\",\"losses\":3,\"lost\":true,\"lost_age_ms\":1500,\"memory_bytes\":80000,\"memory_used_bytes\":123,"
	                          "\"name\":\"H100\",\"precision\":\"bf16\",\"rebuilds\":2,\"trouble\":\"it left\"}");
	free(text);
	assert_string_equal(json_string_value(json_object_get(json, "checkpoint_error")), "disk full");
	assert_string_equal(json_string_value(json_object_get(json, "histories_digest")), "abcdef00000000000000000000000001");
	assert_string_equal(json_string_value(json_object_get(json, "positions_digest")), "01010101010101010101010101010101");
	assert_string_equal(json_string_value(json_object_get(json, "time_max")), "2025-12-10T12:00:01+00:00");
	assert_true(json_real_value(json_object_get(json, "loss")) == 0.5);
	assert_int_equal(int_at(json_object_get(json_object_get(json, "counters"), "events_applied"), "watch_stats"),
	                 status->counters.events_applied[STREAM_WATCHES]);
	assert_int_equal(int_at(json_object_get(json, "counters"), "catalogue_entries"), status->counters.catalogue_entries);
	assert_int_equal(int_at(json_object_get(json, "progress"), "triples"), status->progress.triples);
	json_decref(json);
	free(status);
}

static double figure_at(const json_t *json, const char *model, const char *figure)
{
	return json_real_value(json_object_get(json_object_get(json_object_get(json_object_get(json, "quality"), "models"), model), figure));
}

static void live_quality(void **state)
{
	struct engine_status *status = calloc(1, sizeof(*status));
	struct quality_status *q;

	(void)state;
	assert_non_null(status);
	q = &status->quality;
	*q = (struct quality_status){ .enabled = 1, .k = 20, .window = 500, .count = 3, .ranked = 9, .new_users = 2, .cpu_us = 77 };
	q->models[QUALITY_SERVED] = (struct quality_figures){ 0.5, 0.25, 0.75 };
	q->models[QUALITY_POPULARITY] = (struct quality_figures){ 0.125, 0.0625, (double)NAN };
	q->left_out[QUALITY_LATE] = 4;
	json_t *json = render_status(status, NULL, 0, NULL, 0);
	const json_t *quality = json_object_get(json, "quality");

	assert_true(json_is_true(json_object_get(quality, "enabled")));
	assert_int_equal(int_at(quality, "k"), 20);
	assert_int_equal(int_at(quality, "window"), 500);
	assert_int_equal(int_at(quality, "count"), 3);
	assert_int_equal(int_at(quality, "ranked"), 9);
	assert_int_equal(int_at(quality, "new_users"), 2);
	assert_int_equal(int_at(quality, "cpu_us"), 77);
	assert_int_equal(int_at(json_object_get(quality, "left_out"), "late"), 4);
	assert_int_equal(json_object_size(json_object_get(quality, "left_out")), QUALITY_LEFT_OUT);
	assert_true(figure_at(json, "personalized", "hit_rate") == 0.5 && figure_at(json, "personalized", "ndcg") == 0.25);
	assert_true(figure_at(json, "personalized", "auc") == 0.75 && figure_at(json, "popularity", "ndcg") == 0.0625);
	assert_int_equal(int_at(json_object_get(json_object_get(quality, "models"), "global"), "count"), 3);
	assert_true(json_is_null(json_object_get(json_object_get(json_object_get(quality, "models"), "popularity"), "auc")));
	json_decref(json);
	free(status);
}

static void positions_and_sources(void **state)
{
	struct engine_status *status = calloc(1, sizeof(*status));
	struct source_status source;

	(void)state;
	assert_non_null(status);
	fill(status, &source);
	json_t *json = render_status(status, &source, 1, NULL, 0);
	const json_t *positions = json_object_get(json, "positions"), *second = json_array_get(positions, 1), *first = json_array_get(positions, 0);
	assert_int_equal(json_array_size(positions), 2);
	assert_true(json_is_null(json_object_get(json, "positions_rest")));
	assert_string_equal(json_string_value(json_object_get(second, "name")), "file:watch_stats:/w1");
	assert_int_equal(int_at(second, "offset"), status->positions[1].offset);
	assert_int_equal(int_at(second, "resets"), status->positions[1].resets);
	assert_true(json_is_null(json_object_get(second, "last_time_us")));
	assert_int_equal(json_object_size(json_object_get(first, "refused")), REFUSAL_COUNT);
	assert_int_equal(json_object_size(json_object_get(second, "refused")), 1); /* only those that were */
	assert_int_equal(int_at(json_object_get(second, "refused"), "bad_id"), 3);

	const json_t *told = json_array_get(json_object_get(json, "sources"), 0);
	assert_int_equal(json_array_size(json_object_get(json, "sources")), 1);
	assert_string_equal(json_string_value(json_object_get(told, "reason")), "? is no UTF-8");
	assert_int_equal(int_at(told, "lag_bytes"), source.lag_bytes);
	assert_int_equal(int_at(told, "lag_records"), -1);
	assert_true(json_is_null(json_object_get(told, "last_time_us")));
	assert_true(json_is_true(json_object_get(told, "degraded")));
	json_decref(json);

	for (size_t i = 2; i < ENGINE_POSITIONS_SHOWN; i++)
		snprintf(status->positions[i].name, sizeof(status->positions[i].name), "file:events:/e%zu", i);
	status->n_positions = ENGINE_POSITIONS_SHOWN + 100; /* more than are copied */
	snprintf(status->positions_rest.name, sizeof(status->positions_rest.name), "(others)");
	json = render_status(status, NULL, 0, NULL, 0);
	assert_int_equal(json_array_size(json_object_get(json, "positions")), ENGINE_POSITIONS_SHOWN);
	assert_int_equal(int_at(json, "n_positions"), ENGINE_POSITIONS_SHOWN + 100);
	assert_int_equal(int_at(json_object_get(json, "positions_rest"), "holes"), status->positions_rest.holes); /* not lost: summed */
	assert_int_equal(json_array_size(json_object_get(json, "sources")), 0);
	json_decref(json);
	free(status);
}

static void kafka_partitions(void **state)
{
	struct engine_status *status = calloc(1, sizeof(*status));
	struct partition_view views[2];

	(void)state;
	assert_non_null(status);
	memset(views, 1, sizeof(views));
	strcpy(views[0].name, "kafka:events:t:0");
	views[1] = (struct partition_view){ .name = "kafka:events:t:1", .offset = 0, .end = -1, .lag_records = -1, .lag_time_us = -1, .idle_us = -1, .committed = -1 };
	json_t *json = render_status(status, NULL, 0, views, 2);
	const json_t *partitions = json_object_get(json, "partitions"), *first = json_array_get(partitions, 0), *second = json_array_get(partitions, 1);

	assert_int_equal(json_array_size(partitions), 2);
	assert_string_equal(json_string_value(json_object_get(first, "name")), "kafka:events:t:0");
	for (const char *const *key = (const char *const[]){ "offset", "end", "lag_records", "lag_time_us", "idle_us", "committed", "gaps", "gap_records", "holes", "duplicates", NULL };
	     *key != NULL; key++)
		assert_int_equal(int_at(first, *key), 0x0101010101010101);
	assert_int_equal(int_at(second, "offset"), 0);
	for (const char *const *key = (const char *const[]){ "end", "lag_records", "lag_time_us", "idle_us", "committed", NULL }; *key != NULL; key++)
		assert_true(json_is_null(json_object_get(second, *key)));
	json_decref(json);
	free(status);
}

static void what_json_cannot_hold(void **state)
{
	struct engine_status *status = calloc(1, sizeof(*status));

	(void)state;
	assert_non_null(status);
	status->loss = NAN;
	status->triples_per_sec = INFINITY;
	status->time_max_us = STATE_TIME_NONE;
	status->counters.events_applied[0] = UINT64_MAX;
	status->progress.seed = UINT64_MAX;
	json_t *json = render_status(status, NULL, 0, NULL, 0);
	assert_true(json_is_null(json_object_get(json, "loss")));
	assert_true(json_is_null(json_object_get(json, "triples_per_sec")));
	assert_true(json_is_null(json_object_get(json, "time_max_us")));
	assert_true(json_is_null(json_object_get(json, "time_max")));
	assert_int_equal(int_at(json_object_get(json_object_get(json, "counters"), "events_applied"), "impressions"), INT64_MAX);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "progress"), "seed")), "18446744073709551615");
	char *text = json_dumps(json, RENDER_FLAGS);
	assert_non_null(text);
	assert_null(strchr(text, '\n'));
	free(text);
	json_decref(json);
	free(status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_status_holds_every_field),
		cmocka_unit_test(live_quality),
		cmocka_unit_test(positions_and_sources),
		cmocka_unit_test(kafka_partitions),
		cmocka_unit_test(what_json_cannot_hold),
	};

	return cmocka_run_group_tests_name("render", tests, NULL, NULL);
}
