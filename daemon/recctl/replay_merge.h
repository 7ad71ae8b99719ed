/*
 * replay_merge.h: many history files as one sequence in event time.
 *
 * The order is a function of the files and of [from, to) alone, and a line of a file never overtakes an earlier one of the same file: each file is ordered by
 * the largest time it has shown so far, ties by the place of the file in the list. Catalogue and users have no time and come first, file by file.
 */
#ifndef DAEMON_RECCTL_REPLAY_MERGE_H
#define DAEMON_RECCTL_REPLAY_MERGE_H

#include "daemon/recctl/replay_origin.h"
#include "ingest/event.h"

struct replay_input {
	enum event_stream stream;
	char *path;
	char name[REPLAY_NAME_MAX]; /* base name without .gz, .zst */
	uint64_t content_id;
	uint64_t bytes;             /* of the file itself */
};

struct replay_record {
	uint32_t input;      /* index of the input */
	enum event_stream stream;
	const char *text;    /* the line; valid until the next call */
	size_t len;
	int64_t offset;      /* in the content of its file */
	int64_t key;         /* user_id; catalogue: item_id */
	int64_t time_us;     /* event time; INT64_MIN: none */
	int64_t order_us;    /* its place in the merge: never smaller than that of the record before; INT64_MIN: none */
};

/* What was read of one stream. */
struct replay_counts {
	uint64_t lines;      /* not empty */
	uint64_t empty;
	uint64_t refused[REFUSAL_COUNT];
	uint64_t out_of_range; /* outside [from, to) */
};

struct replay_merge_config {
	const struct replay_input *inputs; /* must outlive the merge */
	uint32_t n_inputs;
	int64_t from_us, to_us;            /* half-open; INT64_MIN and INT64_MAX: all */
	void (*refused)(void *ctx, const char *path, uint64_t line, enum refusal reason); /* for each bad line; NULL: only counted */
	void *ctx;
};

struct replay_merge;

/*
 * Reads each file up to its first line in range, and closes it again: only files that overlap in time are open together. *ret_merge is owned by the caller
 * (replay_merge_close). 0; -EBADMSG (damaged), -ENOMEM, -errno: errstr names the file.
 */
int replay_merge_open(const struct replay_merge_config *config, struct replay_merge **ret_merge, char *errstr, size_t errstr_size);
void replay_merge_close(struct replay_merge *merge);

/* The next record. 1: a record; 0: the end; -EBADMSG, -ENOMEM or -errno: errstr names the file. */
int replay_merge_next(struct replay_merge *merge, struct replay_record *ret_record, char *errstr, size_t errstr_size);

const struct replay_counts *replay_merge_counts(const struct replay_merge *merge, enum event_stream stream);
/* Bytes of all files read so far, of the sum of their `bytes`. */
uint64_t replay_merge_read_bytes(const struct replay_merge *merge);

#endif
