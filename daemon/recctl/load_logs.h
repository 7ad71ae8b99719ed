/*
 * load_logs.h: the JSONL files of a folder, read once from end to end into a state. What recctl trains on, evaluates on and explains with.
 *
 * DIR/items.jsonl (catalogue), watch_stats.jsonl, events.jsonl, impressions.jsonl. watch_stats must be there; the others may be missing. A bad line
 * is counted by reason and never fatal. One thread.
 */
#ifndef DAEMON_RECCTL_LOAD_LOGS_H
#define DAEMON_RECCTL_LOAD_LOGS_H

#include "trainer/model/checkpoint.h"

/* Impressions kept per user: more than recd's default, because a file is read once and memory is not shared with a running service. */
#define LOAD_IMPRESSIONS_MAX 256

struct stream_stats {
	uint64_t lines; /* not empty; refused ones included */
	uint64_t refused[REFUSAL_COUNT];
	uint64_t late; /* dropped because they are at or after the cut time */
	int missing;   /* 1: there is no such file */
};

struct load_stats {
	struct stream_stats streams[STREAM_COUNT];
};

/*
 * Hands all events of one stream's file to `take` in batches, in file order. take returns 0 or -errno, which ends the reading. `quiet`: no progress line.
 * A last line without newline counts. -ENOENT: no file; -errno with text for a file that cannot be read.
 */
int log_read(const char *data_dir, enum event_stream stream, int (*take)(void *ctx, struct event_batch *batch), void *ctx,
             struct stream_stats *ret_stats, char *errstr, size_t errstr_size);

struct load_options {
	const char *data_dir;
	struct state_rules rules;
	int64_t before_us;                  /* facts at or after this time are left out; INT64_MAX: everything counts */
	int64_t (*cut_of)(const void *ctx, int64_t user_id); /* not NULL: the same, with a time of each user's own, instead of before_us */
	const void *cut_ctx;
	const struct model_file *ids_first; /* its users and items get the first indexes, in its order, so that its rows fit; NULL: none */
};

/*
 * Reads the four files into a new state; nothing is left to derive, and state_changes_get() tells all that came. *ret_state is the caller's. ret_stats is
 * filled on failure too.
 */
int load_logs(const struct load_options *options, struct state **ret_state, struct load_stats *ret_stats, char *errstr, size_t errstr_size);

/* An empty state with the limits of load_logs(). */
int load_new_state(const struct state_rules *rules, struct state **ret_state, char *errstr, size_t errstr_size);

/* Gives a model's users and items the first indexes of an empty state, in its order. 0 or -errno with text. */
int load_enter_ids(struct state *state, const struct model_file *file, char *errstr, size_t errstr_size);

/* model_file_read(), with a hint when there is no such file. */
int load_model(const char *path, struct model_file *ret_file, char *errstr, size_t errstr_size);

/* One line a stream that had refused lines or no file, to standard error, after the command's name. */
void load_stats_print(const struct load_stats *stats, const char *data_dir, const char *command);

/* Name of a stream's file below the folder: "watch_stats.jsonl" ... */
const char *log_file_name(enum event_stream stream);

#endif
