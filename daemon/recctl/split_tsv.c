/*
 * split_tsv.c: reads two files of pairs into a state and a split. Main thread of recctl.
 *
 * A pair is applied as a watch from end to end at the same instant as all others, so that everything behind (positives, masks, groups) is what it is for
 * logs. Each file is read twice: once to see how it is built, once for its pairs.
 */
#include "daemon/recctl/split_tsv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATORS " \t,;:|\r\n"

/* How the lines of the files look. */
struct shape {
	size_t fields_min, fields_max;
};

struct reading {
	const char *path;
	FILE *file;
	char *line;
	size_t capacity;
	uint64_t number; /* of the line, from 1 */
	int lists;
	struct state *state;
	struct event_batch *batch;
	uint64_t pairs;
	char *errstr;
	size_t errstr_size;
};

/* An id at *text, which moves behind it. 1: read, 0: no more fields, -EINVAL: no id. */
static int next_id(const char **text, int64_t *ret_id)
{
	const char *at = *text + strspn(*text, SEPARATORS);
	size_t len = strcspn(at, SEPARATORS);
	int64_t id = 0;

	if (!len)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (at[i] < '0' || at[i] > '9' || __builtin_mul_overflow(id, 10, &id) || __builtin_add_overflow(id, at[i] - '0', &id))
			return -EINVAL;
	}
	*text = at + len;
	*ret_id = id;
	return 1;
}

static size_t count_fields(const char *text)
{
	size_t n = 0;

	for (text += strspn(text, SEPARATORS); *text; text += strspn(text, SEPARATORS)) {
		n++;
		text += strcspn(text, SEPARATORS);
	}
	return n;
}

/* The next line that holds anything, but for a header. 1: there is one, 0: the end, -errno. */
static int next_line(struct reading *r)
{
	for (;;) {
		const char *text;
		int64_t id;

		errno = 0;
		if (getline(&r->line, &r->capacity, r->file) < 0)
			return feof(r->file) ? 0 : errno ? -errno : -EIO;
		r->number++;
		text = r->line;
		int rc = next_id(&text, &id);
		if (rc == 1 || (rc < 0 && r->number > 1))
			return 1; /* a wrong id is told when the line is read */
	}
}

static int fail_line(const struct reading *r, const char *what)
{
	snprintf(r->errstr, r->errstr_size, "%s: line %" PRIu64 ": %s", r->path, r->number, what);
	return -EINVAL;
}

static int open_file(struct reading *r)
{
	r->file = fopen(r->path, "re");
	if (r->file)
		return 0;
	int rc = -errno;
	snprintf(r->errstr, r->errstr_size, "%s: %s", r->path, strerror(-rc));
	return rc;
}

static int look_at(struct reading *r, struct shape *shape)
{
	int rc = open_file(r);

	if (rc)
		return rc;
	while ((rc = next_line(r)) > 0) {
		size_t n = count_fields(r->line);

		shape->fields_min = n < shape->fields_min ? n : shape->fields_min;
		shape->fields_max = n > shape->fields_max ? n : shape->fields_max;
	}
	if (rc < 0)
		snprintf(r->errstr, r->errstr_size, "%s: %s", r->path, strerror(-rc));
	fclose(r->file);
	r->file = NULL;
	r->number = 0;
	return rc;
}

static int hand_on(struct reading *r)
{
	r->batch->stream = STREAM_WATCHES;
	int rc = r->batch->n_events ? state_apply(r->state, r->batch) : 0;
	if (rc)
		snprintf(r->errstr, r->errstr_size, "out of memory");
	r->pairs += r->batch->n_events;
	event_batch_clear(r->batch);
	return rc;
}

static int add_pair(struct reading *r, int64_t user, int64_t item)
{
	r->batch->events[r->batch->n_events++] = (struct event){ .user_id = user, .item_id = item, .stream = STREAM_WATCHES, .flags = EVENT_HAS_COMPLETION,
		                                                 .completion = 1 };
	return r->batch->n_events == EVENT_BATCH_EVENTS ? hand_on(r) : 0;
}

static int read_one_line(struct reading *r)
{
	const char *text = r->line;
	int64_t user, item;
	int n = 0, rc = next_id(&text, &user);

	while (rc == 1 && (r->lists || !n) && (rc = next_id(&text, &item)) == 1) {
		n++;
		int added = add_pair(r, user, item);
		if (added)
			return added;
	}
	if (rc < 0)
		return fail_line(r, "an id that is no integer from 0 to 9223372036854775807; number the users and items first");
	if (!n && !r->lists)
		return fail_line(r, "a user without an item; wanted: user item, or with --tsv_format lists: user item item ...");
	return 0;
}

static int read_pairs(struct reading *r)
{
	int rc = open_file(r);

	if (rc)
		return rc;
	while ((rc = next_line(r)) > 0) {
		rc = read_one_line(r);
		if (rc)
			return rc;
	}
	if (rc < 0) {
		snprintf(r->errstr, r->errstr_size, "%s: %s", r->path, strerror(-rc));
		return rc;
	}
	rc = hand_on(r);
	if (!rc && !r->pairs) {
		snprintf(r->errstr, r->errstr_size, "%s holds no pairs", r->path);
		rc = -ENODATA;
	}
	return rc;
}

static void close_reading(struct reading *r)
{
	if (r->file)
		fclose(r->file);
	free(r->line);
	event_batch_free(r->batch);
}

static int read_both(const struct tsv_options *options, struct reading *train, struct reading *test, char *errstr, size_t errstr_size)
{
	struct shape shape = { SIZE_MAX, 0 };
	int rc = look_at(train, &shape);

	if (!rc)
		rc = look_at(test, &shape);
	if (rc)
		return rc;
	train->lists = test->lists = options->format == TSV_LISTS || (options->format == TSV_AUTO && (shape.fields_min != shape.fields_max ||
	                                                                                             shape.fields_min < 2 || shape.fields_max > 4));
	train->batch = event_batch_new();
	test->batch = event_batch_new();
	if (!train->batch || !test->batch) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	rc = load_new_state(&options->rules, &train->state, errstr, errstr_size);
	if (!rc)
		rc = load_new_state(&options->rules, &test->state, errstr, errstr_size);
	if (!rc && options->ids_first)
		rc = load_enter_ids(train->state, options->ids_first, errstr, errstr_size);
	if (!rc)
		rc = read_pairs(train);
	return rc ? rc : read_pairs(test);
}

int split_tsv_load(const struct tsv_options *options, struct state **ret_state, struct split *ret_split, char *errstr, size_t errstr_size)
{
	struct reading train = { .path = options->train, .errstr = errstr, .errstr_size = errstr_size };
	struct reading test = { .path = options->test, .errstr = errstr, .errstr_size = errstr_size };
	struct split split = { .kind = SPLIT_FILES };
	int rc = read_both(options, &train, &test, errstr, errstr_size);

	if (!rc) {
		split.n_watches = train.pairs + test.pairs;
		split.n_held_out = test.pairs;
		rc = split_compare(train.state, test.state, 1, &split);
		if (rc)
			snprintf(errstr, errstr_size, "out of memory");
	}
	if (!rc && !split.group_begin[GROUP_COUNT]) {
		snprintf(errstr, errstr_size, "%s holds no pair that %s does not hold too: there is nothing to find", options->test, options->train);
		rc = -ENODATA;
	}
	state_free(test.state);
	close_reading(&train);
	close_reading(&test);
	if (rc) {
		state_free(train.state);
		split_free(&split);
		return rc;
	}
	*ret_state = train.state;
	*ret_split = split;
	return 0;
}
