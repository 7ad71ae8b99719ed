/*
 * load_logs.c: reads the JSONL files of a folder into a state, line by line through the same decoder as the daemon.
 *
 * Main thread of recctl. A file is read in pieces of 4 MiB; a line is cut at its newline and decoded in place (the buffer has the decoder's padding
 * behind it). Lines are collected in a batch and applied when it is full. Refused lines are counted, not kept: who wants to see them runs the daemon,
 * which writes them to its dead-letter file.
 *
 * Facts merge by maximum and set union, so the order of the streams does not matter to what the state holds; the catalogue comes first because it
 * brings the durations.
 */
#include "daemon/recctl/load_logs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/recctl/progress.h"
#include "ingest/decode.h"

#define READ_BYTES (4u << 20)
#define USERS_MAX 50000000u
#define ITEMS_MAX 10000000u

static const struct decode_limits limits = { .line_bytes_max = 1u << 20, .depth_max = 32 };

const char *log_file_name(enum event_stream stream)
{
	static const char *const names[STREAM_COUNT] = {
		[STREAM_IMPRESSIONS] = "impressions.jsonl", [STREAM_EVENTS] = "events.jsonl", [STREAM_WATCHES] = "watch_stats.jsonl",
		[STREAM_CATALOGUE] = "items.jsonl",         [STREAM_USERS] = "users.jsonl",
	};

	return names[stream];
}

/* One file being read. */
struct reading {
	enum event_stream stream;
	int fd;
	char *buffer;    /* [READ_BYTES + DECODE_PADDING] */
	size_t used;     /* bytes in it */
	int skipping;    /* inside a line that is too long */
	struct decoder *decoder;
	struct event_batch *batch;
	struct stream_stats *stats;
	int (*take)(void *ctx, struct event_batch *batch);
	void *ctx;
};

static int hand_on(struct reading *reading)
{
	int rc = reading->batch->n_events ? reading->take(reading->ctx, reading->batch) : 0;

	event_batch_clear(reading->batch);
	reading->batch->stream = reading->stream;
	return rc;
}

/* One line without its newline. 0 or -errno of take. */
static int read_line(struct reading *reading, const char *line, size_t len)
{
	if (!len || (len == 1 && line[0] == '\r'))
		return 0;
	reading->stats->lines++;
	int rc = decode_line(reading->decoder, reading->stream, line, len, 1, reading->batch);
	if (rc == -ENOSPC) {
		rc = hand_on(reading);
		if (rc)
			return rc;
		rc = decode_line(reading->decoder, reading->stream, line, len, 1, reading->batch);
	}
	if (rc > 0) {
		reading->stats->refused[rc - 1]++;
		rc = 0;
	}
	return rc;
}

/* All whole lines of the buffer; keeps the partial one at its front. At the end of the file the partial one counts, too. */
static int read_lines(struct reading *reading, int at_end)
{
	char *line = reading->buffer, *end = reading->buffer + reading->used, *newline;
	int rc = 0;

	while (!rc && (newline = memchr(line, '\n', (size_t)(end - line)))) {
		if (!reading->skipping)
			rc = read_line(reading, line, (size_t)(newline - line));
		reading->skipping = 0;
		line = newline + 1;
	}
	reading->used = (size_t)(end - line);
	if (!rc && at_end) {
		if (!reading->skipping)
			rc = read_line(reading, line, reading->used);
		reading->used = 0;
	} else if (reading->used == READ_BYTES) { /* the buffer holds four times the longest line allowed */
		if (!reading->skipping) {
			reading->stats->lines++;
			reading->stats->refused[REFUSED_TOO_LONG]++;
		}
		reading->skipping = 1;
		reading->used = 0;
	}
	memmove(reading->buffer, line, reading->used);
	return rc;
}

/* The whole file. */
static int read_file(struct reading *reading, struct progress *progress)
{
	uint64_t total = 0;

	for (;;) {
		ssize_t got = read(reading->fd, reading->buffer + reading->used, READ_BYTES - reading->used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		reading->used += (size_t)got;
		total += (uint64_t)got;
		int rc = read_lines(reading, got == 0);
		if (rc)
			return rc;
		if (!got)
			return hand_on(reading);
		progress_update(progress, total);
	}
}

int log_read(const char *data_dir, enum event_stream stream, int (*take)(void *ctx, struct event_batch *batch), void *ctx,
             struct stream_stats *ret_stats, char *errstr, size_t errstr_size)
{
	struct reading reading = { .stream = stream, .fd = -1, .stats = ret_stats, .take = take, .ctx = ctx };
	struct progress progress;
	struct stat st;
	char path[4096];
	int rc = -ENAMETOOLONG;

	memset(ret_stats, 0, sizeof(*ret_stats));
	if (snprintf(path, sizeof(path), "%s/%s", data_dir, log_file_name(stream)) >= (int)sizeof(path))
		goto out;
	reading.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (reading.fd < 0 || fstat(reading.fd, &st)) {
		rc = -errno;
		ret_stats->missing = rc == -ENOENT;
		goto out;
	}
	rc = -ENOMEM;
	reading.buffer = calloc(1, READ_BYTES + DECODE_PADDING);
	reading.decoder = decoder_new(&limits);
	reading.batch = event_batch_new();
	if (!reading.buffer || !reading.decoder || !reading.batch)
		goto out;
	event_batch_clear(reading.batch);
	reading.batch->stream = stream;
	char label[64];
	snprintf(label, sizeof(label), "reading %s, bytes", log_file_name(stream));
	progress_begin(&progress, label, (uint64_t)st.st_size);
	rc = read_file(&reading, &progress);
	progress_end(&progress);
out:
	if (rc)
		snprintf(errstr, errstr_size, "%s: %s", path, strerror(-rc));
	if (reading.fd >= 0)
		close(reading.fd);
	free(reading.buffer);
	decoder_free(reading.decoder);
	event_batch_free(reading.batch);
	return rc;
}

struct applying {
	struct state *state;
	const struct load_options *options;
	uint64_t late;
};

/* Applies a batch without what is at or after the cut. Catalogue lines have no time. */
static int apply(void *ctx, struct event_batch *batch)
{
	struct applying *applying = ctx;
	const struct load_options *options = applying->options;

	if ((options->cut_of || options->before_us != INT64_MAX) && batch->stream != STREAM_CATALOGUE) {
		uint32_t kept = 0;

		for (uint32_t i = 0; i < batch->n_events; i++) {
			const struct event *event = &batch->events[i];

			if (event->time_us < (options->cut_of ? options->cut_of(options->cut_ctx, event->user_id) : options->before_us))
				batch->events[kept++] = *event;
		}
		applying->late += batch->n_events - kept;
		batch->n_events = kept;
	}
	return state_apply(applying->state, batch);
}

int load_new_state(const struct state_rules *rules, struct state **ret_state, char *errstr, size_t errstr_size)
{
	const struct state_config config = {
		.hash_seed = 0x7265636463746c00u, /* files are read by whoever wrote them: no flooding to guard against, and runs repeat exactly */
		.users_max = USERS_MAX,
		.items_max = ITEMS_MAX,
		.impressions_max = LOAD_IMPRESSIONS_MAX,
	};

	return state_new(&config, rules, ret_state, errstr, errstr_size);
}

int load_enter_ids(struct state *state, const struct model_file *file, char *errstr, size_t errstr_size)
{
	const struct state_counters counters = { 0 };
	int rc = state_restore_items(state, file->item_ids, file->tables.n_items);

	for (uint32_t u = 0; !rc && u < file->tables.n_users; u++) {
		const struct user_facts none = { .user = u };

		rc = state_restore_user(state, file->user_ids[u], &none);
	}
	if (!rc)
		rc = state_restore_end(state, &counters, STATE_TIME_NONE);
	if (rc)
		snprintf(errstr, errstr_size, "the model's ids cannot be used (%s): an id stands twice or is negative, or there are too many",
		         strerror(-rc));
	return rc;
}

int load_logs(const struct load_options *options, struct state **ret_state, struct load_stats *ret_stats, char *errstr, size_t errstr_size)
{
	static const enum event_stream order[] = { STREAM_CATALOGUE, STREAM_WATCHES, STREAM_EVENTS, STREAM_IMPRESSIONS };
	struct applying applying = { .options = options };
	int rc = load_new_state(&options->rules, &applying.state, errstr, errstr_size);

	memset(ret_stats, 0, sizeof(*ret_stats));
	if (!rc && options->ids_first)
		rc = load_enter_ids(applying.state, options->ids_first, errstr, errstr_size);
	for (size_t i = 0; !rc && i < sizeof(order) / sizeof(order[0]); i++) {
		struct stream_stats *stats = &ret_stats->streams[order[i]];

		applying.late = 0;
		rc = log_read(options->data_dir, order[i], apply, &applying, stats, errstr, errstr_size);
		stats->late = applying.late;
		if (stats->missing && order[i] == STREAM_WATCHES)
			snprintf(errstr, errstr_size, "%s/%s is missing; point --data_dir at a folder with logs, or make some: recctl synth --out_dir %s",
			         options->data_dir, log_file_name(STREAM_WATCHES), options->data_dir);
		else if (stats->missing)
			rc = 0;
	}
	while (!rc && (rc = state_rederive(applying.state, UINT32_MAX)) > 0)
		rc = 0;
	if (rc == -ENOMEM)
		snprintf(errstr, errstr_size, "out of memory");
	if (rc) {
		state_free(applying.state);
		return rc;
	}
	*ret_state = applying.state;
	return 0;
}

int load_model(const char *path, struct model_file *ret_file, char *errstr, size_t errstr_size)
{
	int rc = model_file_read(path, ret_file, errstr, errstr_size);

	if (rc == -ENOENT && access(path, F_OK))
		snprintf(errstr, errstr_size, "%s: no such file; recctl train makes models, --model_path names one", path);
	return rc;
}

void load_stats_print(const struct load_stats *stats, const char *data_dir, const char *command)
{
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const struct stream_stats *s = &stats->streams[stream];
		uint64_t refused = 0;

		for (int reason = 0; reason < REFUSAL_COUNT; reason++)
			refused += s->refused[reason];
		if (s->missing)
			fprintf(stderr, "recctl %s: no %s/%s; going on without it\n", command, data_dir, log_file_name((enum event_stream)stream));
		if (!refused)
			continue;
		fprintf(stderr, "recctl %s: %s/%s: %" PRIu64 " of %" PRIu64 " lines refused:", command, data_dir, log_file_name((enum event_stream)stream),
		        refused, s->lines);
		for (int reason = 0; reason < REFUSAL_COUNT; reason++) {
			if (s->refused[reason])
				fprintf(stderr, " %s %" PRIu64, refusal_name((enum refusal)reason), s->refused[reason]);
		}
		fputc('\n', stderr);
	}
}
