/*
 * status.c: `recctl status`: what a running recd is doing, in words or as its own JSON. Main thread of recctl; one request, then printing.
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "daemon/recctl/client.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/table.h"
#include "daemon/render.h"

#define TIMEOUT_SEC 10

struct options {
	const char *socket;
	int json;
};

static const struct flag flags[] = {
	{ .name = "socket", .type = FLAG_STRING, .offset = offsetof(struct options, socket), .fallback = CLIENT_SOCKET_DEFAULT, .placeholder = "PATH",
	  .help = "The recd that listens here." },
	{ .name = "json", .type = FLAG_BOOL, .offset = offsetof(struct options, json), .help = "Print recd's answer as it is: one JSON object, every field." },
};

static const struct command_spec spec = {
	.name = "status",
	.purpose = "shows what a running recd is doing",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "Digests: two recd that have read the same logs have the same histories digest, in whatever order they read them; the positions digest says how\n"
	         "far the sources have been consumed. Neither depends on the model.\n"
	         "Quality: a share of the new positives is ranked before it is learnt from; hit rate, NDCG and AUC of their places by what would have been served, by the\n"
	         "global model and by popularity. --json has what was left out and why.\n"
	         "Kafka partitions: lag is in records; behind is the lag in event time: the largest event time recd has applied from any source minus the largest of\n"
	         "the partition, so that a silent topic shows; idle is the time since its last record; committed is what the broker was told after the last durable\n"
	         "checkpoint; dups are records that came again and were dropped. --json has the end of the log too.",
	.examples = "  recctl status\n"
	            "  recctl status --socket /run/recd/recd.sock --json",
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static json_int_t int_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static double number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* A counter with commas; valid until the eighth next call. */
static const char *count_of(const json_t *object, const char *key)
{
	static char texts[8][32];
	static unsigned next;
	char *text = texts[next++ % 8];

	text_count((uint64_t)int_of(object, key), text);
	return text;
}

/* "H100, driver 580.65.06, CUDA 13.0, 12.1 of 80.0 GB used, fp32", and what became of it; nothing where there is no device and never was. */
static void print_device(const json_t *device)
{
	const char *name = text_of(device, "name"), *driver = text_of(device, "driver");

	if (name[0] != '\0' && number_of(device, "memory_bytes") > 0)
		printf("device       %s, driver %s, CUDA %s, %.1f of %.1f GB used, %s\n", name, driver[0] ? driver : "unknown", text_of(device, "cuda"),
		       number_of(device, "memory_used_bytes") / 1e9, number_of(device, "memory_bytes") / 1e9, text_of(device, "precision"));
	else if (name[0] != '\0')
		printf("device       %s\n", name);
	if (int_of(device, "losses") > 0)
		printf("             lost %s times, rebuilt %s times, last %.0f s ago: %s\n", count_of(device, "losses"), count_of(device, "rebuilds"),
		       number_of(device, "lost_age_ms") / 1000, text_of(device, "trouble"));
}

static void print_facts(const json_t *status)
{
	json_t *applied = json_object_get(json_object_get(status, "counters"), "events_applied");

	printf("phase        %s, %s%s\n", text_of(status, "phase"), json_is_true(json_object_get(status, "ready")) ? "ready" : "not ready",
	       json_is_true(json_object_get(status, "training_resting")) ? ", training rests until there is news" : "");
	printf("backend      %s%s%s\n", text_of(status, "backend"), text_of(status, "backend_reason")[0] ? ": " : "", text_of(status, "backend_reason"));
	print_device(json_object_get(status, "device"));
	printf("histories    %s users, %s items, %s positives, digest %s\n", count_of(status, "n_users"), count_of(status, "n_items"),
	       count_of(status, "n_positives"), text_of(status, "histories_digest"));
	printf("positions    %s, digest %s\n", count_of(status, "n_positions"), text_of(status, "positions_digest"));
	printf("newest       %s\n", text_of(status, "time_max"));
	printf("applied     ");
	for (void *at = json_object_iter(applied); at; at = json_object_iter_next(applied, at))
		printf(" %s %s,", json_object_iter_key(at), count_of(applied, json_object_iter_key(at)));
	printf(" %.0f a second\n", number_of(status, "apply_per_sec"));
}

static void print_model(const json_t *status)
{
	const json_t *progress = json_object_get(status, "progress");

	printf("model        generation %s, published %s ms ago\n", count_of(status, "generation"), count_of(status, "publish_age_ms"));
	printf("training     %s triples, %s passes, loss %.4f, %.2f M triples/s, %s rollbacks\n", count_of(progress, "triples"), count_of(progress, "passes"),
	       number_of(status, "loss"), number_of(status, "triples_per_sec") / 1e6, count_of(progress, "rollbacks"));
	printf("personal     %s rows; %s folded in, %s waiting, %s refreshed for age\n", count_of(status, "personal_rows"), count_of(status, "folded_in"),
	       count_of(status, "fold_in_waiting"), count_of(status, "refreshed"));
}

/* One line a model, when anything was ranked. */
static void print_quality(const json_t *status)
{
	const json_t *quality = json_object_get(status, "quality"), *models = json_object_get(quality, "models");
	json_int_t k = int_of(quality, "k");
	const char *name;
	json_t *model;

	if (!json_is_true(json_object_get(quality, "enabled"))) {
		printf("quality      not measured: quality.enabled is false\n");
		return;
	}
	printf("quality      %s new positives ranked before they were learnt from; %s of them first ones of a user%s\n", count_of(quality, "ranked"),
	       count_of(quality, "new_users"), int_of(quality, "count") ? "" : "; no figures yet");
	if (!int_of(quality, "count"))
		return;
	json_object_foreach((json_t *)(uintptr_t)models, name, model)
	{
		printf("             %-12s  HR@%" JSON_INTEGER_FORMAT " %.4f  NDCG@%" JSON_INTEGER_FORMAT " %.4f  AUC %.4f  over the last %s\n", name, k,
		       number_of(model, "hit_rate"), k, number_of(model, "ndcg"), number_of(model, "auc"), count_of(model, "count"));
	}
}

static void print_keeping(const json_t *status)
{
	if (int_of(status, "checkpoint_number"))
		printf("checkpoint   %" JSON_INTEGER_FORMAT ", durable since %.1f s, %s bytes, written in %s ms%s\n", int_of(status, "checkpoint_number"),
		       number_of(status, "checkpoint_age_ms") / 1000, count_of(status, "checkpoint_bytes"), count_of(status, "checkpoint_duration_ms"),
		       json_is_true(json_object_get(status, "checkpoint_running")) ? "; the next one is being written" : "");
	else
		printf("checkpoint   none yet\n");
	if (int_of(status, "checkpoint_failures"))
		printf("             the last %s failed: %s\n", count_of(status, "checkpoint_failures"), text_of(status, "checkpoint_error"));
	printf("stall        gap between two apply slices in the last minute: at most %.1f ms, 99.9 %% under %.1f ms; while checkpoints were written %.1f ms\n",
	       number_of(status, "apply_gap_max_us") / 1000, number_of(status, "apply_gap_p999_us") / 1000, number_of(status, "checkpoint_gap_p999_us") / 1000);
	printf("dead letter  %" JSON_INTEGER_FORMAT " bytes, %s lines not kept\n", int_of(status, "dead_letter_length"), count_of(status, "dead_letter_dropped"));
	printf("memory       %s bytes of histories\n", count_of(status, "memory_bytes"));
}

static uint64_t sum_refused(const json_t *position)
{
	json_t *refused = json_object_get(position, "refused");
	uint64_t sum = 0;

	for (void *at = json_object_iter(refused); at; at = json_object_iter_next(refused, at))
		sum += (uint64_t)json_integer_value(json_object_iter_value(at));
	return sum;
}

static void print_positions(const json_t *status)
{
	static const struct table_column columns[] = { { "position", 0 }, { "offset", 1 }, { "lines", 1 }, { "refused", 1 }, { "gaps", 1 }, { "resets", 1 } };
	const json_t *positions = json_object_get(status, "positions"), *position;
	struct table table;
	size_t i;

	if (!json_array_size(positions))
		return;
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(positions, i, position)
	{
		table_cell(&table, "%s", text_of(position, "name"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(position, "offset"));
		table_cell(&table, "%s", count_of(position, "lines"));
		table_cell(&table, "%" PRIu64, sum_refused(position));
		table_cell(&table, "%s", count_of(position, "gaps"));
		table_cell(&table, "%s", count_of(position, "resets"));
	}
	position = json_object_get(status, "positions_rest");
	if (json_is_object(position)) {
		table_cell(&table, "(%" JSON_INTEGER_FORMAT " others)", int_of(status, "n_positions") - (json_int_t)json_array_size(positions));
		table_cell(&table, "-");
		table_cell(&table, "%s", count_of(position, "lines"));
		table_cell(&table, "%" PRIu64, sum_refused(position));
		table_cell(&table, "%s", count_of(position, "gaps"));
		table_cell(&table, "%s", count_of(position, "resets"));
	}
	(void)table_end(&table, 0);
}

/* A lag that is not known is a dash. */
static void lag_cell(struct table *table, const json_t *source, const char *key)
{
	if (int_of(source, key) < 0)
		table_cell(table, "-");
	else
		table_cell(table, "%s", count_of(source, key));
}

/* Seconds from microseconds; a dash when not known. */
static void seconds_cell(struct table *table, const json_t *partition, const char *key)
{
	const json_t *value = json_object_get(partition, key);

	if (json_is_integer(value))
		table_cell(table, "%.1f", (double)json_integer_value(value) / 1e6);
	else
		table_cell(table, "-");
}

static void known_cell(struct table *table, const json_t *partition, const char *key)
{
	const json_t *value = json_object_get(partition, key);

	if (json_is_integer(value))
		table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else
		table_cell(table, "-");
}

/* TOPIC:PARTITION of "kafka:STREAM:TOPIC:PARTITION"; other names as they are. */
static const char *partition_name(const char *name)
{
	const char *colon = strncmp(name, "kafka:", 6) == 0 ? strchr(name + 6, ':') : NULL;

	return colon ? colon + 1 : name;
}

/* The end of the log is left out: it is offset + lag. */
static void print_partitions(const json_t *status)
{
	static const struct table_column columns[] = { { "kafka partition", 0 }, { "offset", 1 }, { "lag", 1 }, { "behind s", 1 }, { "idle s", 1 },
		                                       { "committed", 1 }, { "gaps", 1 }, { "holes", 1 }, { "dups", 1 } };
	const json_t *partitions = json_object_get(status, "partitions"), *partition;
	struct table table;
	size_t i;

	if (!json_array_size(partitions))
		return;
	putchar('\n');
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(partitions, i, partition)
	{
		table_cell(&table, "%s", partition_name(text_of(partition, "name")));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(partition, "offset"));
		known_cell(&table, partition, "lag_records");
		seconds_cell(&table, partition, "lag_time_us");
		seconds_cell(&table, partition, "idle_us");
		known_cell(&table, partition, "committed");
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(partition, "gaps"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(partition, "holes"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(partition, "duplicates"));
	}
	(void)table_end(&table, 0);
}

static void print_sources(const json_t *status)
{
	static const struct table_column columns[] = { { "source", 0 }, { "open", 1 }, { "lag bytes", 1 }, { "lag records", 1 }, { "state", 0 } };
	const json_t *sources = json_object_get(status, "sources"), *source;
	struct table table;
	size_t i;

	if (!json_array_size(sources))
		return;
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(sources, i, source)
	{
		int degraded = json_is_true(json_object_get(source, "degraded"));

		table_cell(&table, "%s", text_of(source, "name"));
		table_cell(&table, "%s", count_of(source, "partitions"));
		lag_cell(&table, source, "lag_bytes");
		lag_cell(&table, source, "lag_records");
		table_cell(&table, "%s", degraded ? text_of(source, "reason") : "ok");
	}
	(void)table_end(&table, 0);
}

int command_status(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	char errstr[512];
	json_t *status;
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	if (client_request(options.socket, "GET", "/v1/status", TIMEOUT_SEC, &status, errstr, sizeof(errstr))) {
		fprintf(stderr, "recctl status: %s\n", errstr);
		return EXIT_FAILED;
	}
	if (options.json) {
		rc = json_dumpf(status, stdout, RENDER_FLAGS) ? EXIT_FAILED : EXIT_OK;
		putchar('\n');
	} else {
		print_facts(status);
		print_model(status);
		print_quality(status);
		print_keeping(status);
		putchar('\n');
		print_positions(status);
		putchar('\n');
		print_sources(status);
		print_partitions(status);
		rc = EXIT_OK;
	}
	json_decref(status);
	return rc;
}
