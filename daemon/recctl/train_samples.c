/*
 * train_samples.c: reads a file of labelled samples (train_samples.h). Main thread of recctl, before training.
 *
 * Lines become records; these are sorted by pair with the positives first, so that doubles and pairs with both labels fall together.
 */
#include "daemon/recctl/train_samples.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/progress.h"
#include "ingest/decode.h"

#define BAD_TOLD 5
#define ID_MAX 9007199254740992 /* 2^53, as everywhere */

struct record {
	struct user_item pair;
	int64_t time_us;
	int label;
};

struct reading {
	const char *path;
	const struct state *state;
	const struct split *split;
	struct samples *samples;
	struct record *records;
	size_t n, capacity;
	uint64_t line; /* number of the current one */
};

static int get_id(const json_t *object, const char *key, int64_t *ret_id)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > ID_MAX)
		return -EINVAL;
	*ret_id = json_integer_value(value);
	return 0;
}

/* What is wrong with the line, or NULL. */
static const char *decode(const json_t *object, int64_t *ret_user, int64_t *ret_item, struct record *ret)
{
	const json_t *label = json_object_get(object, "label"), *ts = json_object_get(object, "ts");

	if (!json_is_object(object))
		return "not a JSON object";
	if (get_id(object, "user_id", ret_user))
		return "user_id must be a whole number, 0 to 2^53";
	if (get_id(object, "item_id", ret_item))
		return "item_id must be a whole number, 0 to 2^53";
	if (!json_is_integer(label) || json_integer_value(label) < 0 || json_integer_value(label) > 1)
		return "label must be 0 or 1";
	ret->label = (int)json_integer_value(label);
	ret->time_us = STATE_TIME_NONE;
	if (ts && !json_is_null(ts) && (!json_is_string(ts) || iso8601_parse(json_string_value(ts), json_string_length(ts), &ret->time_us)))
		return "ts must be a time such as \"2025-12-10T12:00:01+00:00\"";
	return NULL;
}

static int keep(struct reading *reading, const struct record *record)
{
	if (reading->n == reading->capacity) {
		size_t capacity = reading->capacity ? reading->capacity * 2 : 65536;
		struct record *grown = realloc(reading->records, capacity * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		reading->records = grown;
		reading->capacity = capacity;
	}
	reading->records[reading->n++] = *record;
	return 0;
}

static int read_line(struct reading *reading, const char *line, size_t len)
{
	struct samples *samples = reading->samples;
	struct record record;
	int64_t user_id, item_id;
	json_error_t error;

	reading->line++;
	if (decode_is_empty(line, len))
		return 0;
	samples->lines++;
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	const char *fault = object ? decode(object, &user_id, &item_id, &record) : error.text;
	if (fault && samples->bad++ < BAD_TOLD)
		fprintf(stderr, "recctl train: %s:%" PRIu64 ": %s; left out\n", reading->path, reading->line, fault);
	json_decref(object);
	if (fault)
		return 0;
	if (reading->split && record.time_us != STATE_TIME_NONE && record.time_us >= split_cut_of(reading->split, user_id)) {
		samples->late++;
		return 0;
	}
	record.pair.user = state_find_user(reading->state, user_id);
	record.pair.item = state_find_item(reading->state, item_id);
	samples->unknown_users += record.pair.user == STATE_NONE;
	samples->unknown_items += record.pair.user != STATE_NONE && record.pair.item == STATE_NONE;
	return record.pair.user == STATE_NONE || record.pair.item == STATE_NONE ? 0 : keep(reading, &record);
}

static int read_file(struct reading *reading, FILE *file)
{
	struct progress progress;
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	int rc = 0;

	progress_begin(&progress, "reading samples, lines", 0);
	while (!rc && (len = getline(&line, &size, file)) >= 0) {
		rc = read_line(reading, line, (size_t)(len && line[len - 1] == '\n' ? len - 1 : len));
		progress_update(&progress, reading->line);
	}
	progress_end(&progress);
	if (!rc && ferror(file))
		rc = errno ? -errno : -EIO;
	free(line);
	return rc;
}

/* By user and item, positives first, of those the latest. */
static int compare(const void *pa, const void *pb)
{
	const struct record *a = pa, *b = pb;

	if (a->pair.user != b->pair.user)
		return a->pair.user < b->pair.user ? -1 : 1;
	if (a->pair.item != b->pair.item)
		return a->pair.item < b->pair.item ? -1 : 1;
	if (a->label != b->label)
		return b->label - a->label;
	return (a->time_us < b->time_us) - (a->time_us > b->time_us);
}

/* The first record of each pair counts. */
static int sort_out(struct reading *reading)
{
	struct samples *samples = reading->samples;

	samples->n_users = state_n_users(reading->state);
	samples->positives = malloc((reading->n + 1) * sizeof(*samples->positives));
	samples->items = malloc((reading->n + 1) * sizeof(*samples->items));
	samples->offsets = calloc((size_t)samples->n_users + 1, sizeof(*samples->offsets));
	if (!samples->positives || !samples->items || !samples->offsets)
		return -ENOMEM;
	if (reading->n)
		qsort(reading->records, reading->n, sizeof(*reading->records), compare);
	for (size_t i = 0; i < reading->n; i++) {
		const struct record *r = &reading->records[i];

		if (i && r->pair.user == r[-1].pair.user && r->pair.item == r[-1].pair.item)
			continue;
		if (r->label) {
			samples->positives[samples->n_positives++] = (struct sample_positive){ r->pair, r->time_us };
		} else {
			samples->items[samples->n_negatives++] = r->pair.item;
			samples->offsets[r->pair.user + 1]++;
		}
	}
	for (uint32_t u = 0; u < samples->n_users; u++)
		samples->offsets[u + 1] += samples->offsets[u];
	return 0;
}

int samples_read(const char *path, const struct state *state, const struct split *split, struct samples *ret_samples, char *errstr, size_t errstr_size)
{
	struct reading reading = { .path = path, .state = state, .split = split, .samples = ret_samples };
	FILE *file = fopen(path, "re");
	int rc = file ? 0 : -errno;

	memset(ret_samples, 0, sizeof(*ret_samples));
	if (!rc)
		rc = read_file(&reading, file);
	if (!rc)
		rc = sort_out(&reading);
	if (rc)
		snprintf(errstr, errstr_size, "--samples %s: %s", path, strerror(-rc));
	if (file)
		fclose(file);
	free(reading.records);
	return rc;
}

void samples_free(struct samples *samples)
{
	free(samples->positives);
	free(samples->items);
	free(samples->offsets);
	*samples = (struct samples){ 0 };
}

struct skip_source samples_skips(const struct samples *samples)
{
	return (struct skip_source){ .offsets = samples->offsets, .items = samples->items, .n_users = samples->n_users };
}
