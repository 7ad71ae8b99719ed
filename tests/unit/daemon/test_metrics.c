/*
 * test_metrics.c: Prometheus text, checked line by line against the format's rules, the values, and docs/METRICS.md. RECD_UPDATE=1 writes that page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "daemon/metrics.h"

static struct engine_status status;
static struct source_status sources[2];
static struct partition_view partitions[2];
static char *text;

static void write_text(const struct metrics_input *input)
{
	size_t len = 0;
	FILE *out;

	free(text);
	text = NULL;
	out = open_memstream(&text, &len);
	assert_non_null(out);
	metrics_write(out, input);
	assert_int_equal(fclose(out), 0);
}

static struct metrics_input full_input(void)
{
	struct metrics_input input = {.status = &status, .sources = sources, .n_sources = 2, .partitions = partitions, .n_partitions = 2, .log_lost = 4};

	memset(&status, 0, sizeof(status));
	memset(sources, 0, sizeof(sources));
	strcpy(status.backend, "cpu");
	strcpy(status.device_name, "H \"1\"");
	strcpy(status.precision, "bf16");
	status.device_memory_bytes = 80000;
	status.device_memory_used_bytes = 123;
	status.device_lost = 1;
	status.device_losses = 3;
	status.device_rebuilds = 2;
	status.ready = 1;
	status.n_users = 4000000000u;
	status.n_positives = 18446744073709551615ull;
	status.counters.events_applied[STREAM_WATCHES] = 11;
	status.counters.dropped_item_cap = 12;
	status.counters.dropped_user_cap = 13;
	status.time_max_us = 1765368001500000;
	status.publish_age_ms = 1500;
	status.checkpoint_age_ms = -1;
	status.loss = 0.25;
	status.triples_per_sec = 0.1;
	status.training_threads = 3;
	status.apply_gap_max_us = 2500;
	status.dead_letter_length = 77;
	status.n_positions = 2;
	strcpy(status.positions[0].name, "file:events:/a \"b\"\\c\n.jsonl");
	status.positions[0].lines = 100;
	status.positions[0].refused[REFUSED_BAD_TIME] = 3;
	strcpy(status.positions[1].name, "file:watch_stats:/w");
	status.positions[1].offset = 9007199254740991;
	strcpy(sources[0].name, "files:events");
	sources[0].lag_bytes = 5;
	sources[0].lag_records = -1;
	sources[0].last_time_us = STATE_TIME_NONE;
	sources[0].degraded = 1;
	strcpy(sources[1].name, "files:watch_stats");
	sources[1].lag_bytes = -1;
	sources[1].lag_records = 6;
	sources[1].last_time_us = 1500000;
	status.positions[1].holes = 41;
	status.positions[1].duplicates = 42;
	partitions[0] = (struct partition_view){.name = "kafka:events:t:0", .end = 51, .lag_records = 52, .lag_time_us = 5300000, .idle_us = 5400000, .committed = 55};
	partitions[1] = (struct partition_view){.name = "kafka:events:t:1", .end = -1, .lag_records = -1, .lag_time_us = -1, .idle_us = -1, .committed = -1};
	status.quality = (struct quality_status){.count = 61, .ranked = 62, .new_users = 63, .cpu_us = 6400000};
	status.quality.models[QUALITY_SERVED] = (struct quality_figures){0.5, 0.25, (double)NAN};
	status.quality.models[QUALITY_POPULARITY] = (struct quality_figures){0.125, 0.0625, 0.75};
	status.quality.left_out[QUALITY_LAG] = 65;
	input.queue_waiting[STREAM_EVENTS] = 3;
	input.answers[0] = 21;
	input.answers[METRICS_CODES - 1] = 22;
	input.server = (struct api_server_counters){.clients = 31, .clients_accepted = 32, .clients_dropped = 33, .accept_failures = 34};
	return input;
}

static void assert_line(const char *line)
{
	char with_ends[512];

	snprintf(with_ends, sizeof(with_ends), "\n%s\n", line);
	if (!strstr(text, with_ends))
		fail_msg("no line %s in:\n%s", line, text);
}

static void test_values(void **state)
{
	struct metrics_input input = full_input();

	(void)state;
	write_text(&input);
	assert_line("recd_up 1");
	assert_line("recd_ready 1");
	assert_line("recd_info{version=\"" RECD_VERSION "\",backend=\"cpu\",device=\"H \\\"1\\\"\",precision=\"bf16\"} 1");
	assert_line("recd_device_memory_bytes 80000");
	assert_line("recd_device_memory_used_bytes 123");
	assert_line("recd_device_lost 1");
	assert_line("recd_device_losses_total 3");
	assert_line("recd_device_rebuilds_total 2");
	assert_line("recd_users 4000000000");
	assert_line("recd_positives 18446744073709551615");
	assert_line("recd_events_applied_total{stream=\"watch_stats\"} 11");
	assert_line("recd_dropped_item_cap_total 12");
	assert_line("recd_dropped_user_cap_total 13");
	assert_line("recd_event_time_max_seconds 1765368001.5");
	assert_line("recd_publish_age_seconds 1.5");
	assert_line("recd_training_loss 0.25");
	assert_line("recd_training_triples_per_second 0.1");
	assert_line("recd_training_threads 3");
	assert_line("recd_apply_gap_max_seconds 0.0025");
	assert_line("recd_dead_letter_bytes 77");
	assert_line("recd_lines_total{position=\"file:events:/a \\\"b\\\"\\\\c\\n.jsonl\"} 100");
	assert_line("recd_refused_lines_total{position=\"file:events:/a \\\"b\\\"\\\\c\\n.jsonl\",reason=\"bad_time\"} 3");
	assert_line("recd_position_offset{position=\"file:watch_stats:/w\"} 9007199254740991");
	assert_line("recd_source_lag_bytes{source=\"files:events\"} 5");
	assert_line("recd_source_lag_records{source=\"files:watch_stats\"} 6");
	assert_line("recd_source_degraded{source=\"files:events\"} 1");
	assert_line("recd_source_degraded{source=\"files:watch_stats\"} 0");
	assert_line("recd_source_last_event_timestamp_seconds{source=\"files:watch_stats\"} 1.5");
	assert_line("recd_queue_batches{stream=\"events\"} 3");
	assert_line("recd_http_answers_total{code=\"200\"} 21");
	assert_line("recd_http_answers_total{code=\"other\"} 22");
	assert_line("recd_http_clients 31");
	assert_line("recd_http_clients_accepted_total 32");
	assert_line("recd_http_clients_dropped_total 33");
	assert_line("recd_http_accept_failures_total 34");
	assert_line("recd_log_lines_lost_total 4");
	assert_line("recd_holes_total{position=\"file:watch_stats:/w\"} 41");
	assert_line("recd_duplicates_total{position=\"file:watch_stats:/w\"} 42");
	assert_line("recd_partition_end_offset{position=\"kafka:events:t:0\"} 51");
	assert_line("recd_partition_lag_records{position=\"kafka:events:t:0\"} 52");
	assert_line("recd_partition_lag_seconds{position=\"kafka:events:t:0\"} 5.3");
	assert_line("recd_partition_idle_seconds{position=\"kafka:events:t:0\"} 5.4");
	assert_line("recd_partition_committed_offset{position=\"kafka:events:t:0\"} 55");
	assert_line("recd_quality_hit_rate{model=\"personalized\"} 0.5");
	assert_line("recd_quality_ndcg{model=\"popularity\"} 0.0625");
	assert_line("recd_quality_auc{model=\"popularity\"} 0.75");
	assert_null(strstr(text, "recd_quality_auc{model=\"personalized\"}"));
	assert_line("recd_quality_count 61");
	assert_line("recd_quality_ranked_total 62");
	assert_line("recd_quality_new_users_total 63");
	assert_line("recd_quality_cpu_seconds_total 6.4");
	assert_line("recd_quality_left_out_total{reason=\"lag\"} 65");
	assert_null(strstr(text, "(others)"));
	/* what is not known is left out, not written as -1 or NaN */
	assert_null(strstr(text, "kafka:events:t:1"));
	assert_null(strstr(text, "\nrecd_checkpoint_age_seconds "));
	assert_null(strstr(text, "recd_source_lag_bytes{source=\"files:watch_stats\""));
	assert_null(strstr(text, "recd_source_last_event_timestamp_seconds{source=\"files:events\""));
	status.loss = NAN;
	write_text(&input);
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "\nrecd_training_loss "));
}

/* Positions above the 64th are told together. */
static void test_many_positions(void **state)
{
	struct metrics_input input = full_input();

	(void)state;
	for (int i = 2; i < ENGINE_POSITIONS_SHOWN; i++)
		snprintf(status.positions[i].name, sizeof(status.positions[i].name), "kafka:events:t:%d", i);
	status.n_positions = ENGINE_POSITIONS_SHOWN + 2;
	status.positions_rest.lines = 61;
	status.positions_rest.gaps = 62;
	status.positions_rest.refused[REFUSED_JSON] = 63;
	write_text(&input);
	assert_line("recd_lines_total{position=\"(others)\"} 61");
	assert_line("recd_gaps_total{position=\"(others)\"} 62");
	assert_line("recd_refused_lines_total{position=\"(others)\",reason=\"json\"} 63");
	assert_null(strstr(text, "recd_position_offset{position=\"(others)\"}"));
}

static void test_before_start(void **state)
{
	struct metrics_input input = {0};

	(void)state;
	write_text(&input);
	assert_line("recd_up 1");
	assert_line("recd_ready 0");
	assert_null(strstr(text, "\nrecd_users "));
	assert_null(strstr(text, "\nrecd_lines_total"));
}

/* Every sample follows the HELP and TYPE of its own name; names and types are as Prometheus wants them; no name twice. */
static void test_format(void **state)
{
	struct metrics_input input = full_input();
	char name[128] = "";
	char seen[16384] = "";
	size_t metrics = 0;

	(void)state;
	write_text(&input);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char word[128];
		char type[32];
		char needle[140];
		size_t len;

		if (sscanf(line, "# HELP %127s", word) == 1) {
			strcpy(name, word);
			snprintf(needle, sizeof(needle), " %s ", name);
			assert_null(strstr(seen, needle));
			assert_true(strlen(seen) + strlen(needle) < sizeof(seen));
			strcat(seen, needle);
			metrics++;
		} else if (sscanf(line, "# TYPE %127s %31s", word, type) == 2) {
			assert_string_equal(word, name);
			len = strlen(name);
			if (strcmp(type, "counter") == 0)
				assert_string_equal(name + len - 6, "_total");
			else
				assert_string_equal(type, "gauge");
			assert_int_equal(strncmp(name, "recd_", 5), 0);
			assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), len);
		} else {
			char *end;
			const char *value = strrchr(line, ' ');

			len = strcspn(line, "{ ");
			assert_int_equal(len, strlen(name));
			assert_int_equal(strncmp(line, name, len), 0);
			assert_non_null(value);
			strtod(value, &end);
			assert_true(*end == 0 && end > value + 1);
		}
	}
	assert_true(metrics > 50);
}

static void test_page(void **state)
{
	char *expected = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&expected, &len);
	char *found;
	FILE *page;

	(void)state;
	assert_non_null(out);
	metrics_write_docs(out);
	assert_int_equal(fclose(out), 0);
	if (getenv("RECD_UPDATE")) {
		page = fopen("docs/METRICS.md", "w");
		assert_non_null(page);
		fputs(expected, page);
		assert_int_equal(fclose(page), 0);
	}
	page = fopen("docs/METRICS.md", "r");
	if (!page)
		fail_msg("docs/METRICS.md cannot be opened (run this test with RECD_UPDATE=1)");
	found = calloc(1, len + 2);
	assert_non_null(found);
	(void)!fread(found, 1, len + 1, page);
	fclose(page);
	if (strcmp(found, expected) != 0)
		fail_msg("docs/METRICS.md differs from the table in daemon/metrics.c (run this test with RECD_UPDATE=1)");
	free(found);
	free(expected);
}

static int teardown(void **state)
{
	(void)state;
	free(text);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_many_positions),
		cmocka_unit_test(test_before_start),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_page),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
