/*
 * source.h: where lines come from. A source is polled by one thread of its own (the daemon's) and fills batches; it never applies anything.
 *
 * A position enters the cut only through a batch, so a source that restarts from the positions of a cut delivers every line after that cut
 * again and none before it. Sources that learn something without reading a line (a file vanished, a truncation) deliver an empty batch whose
 * position says so.
 */
#ifndef INGEST_SOURCE_H
#define INGEST_SOURCE_H

#include "ingest/event.h"

struct source;

/* What an operator wants to know of a source; filled under the source's own mutex, from any thread. */
struct source_status {
	char name[POSITION_NAME_MAX]; /* e.g. "files:watch_stats" */
	uint32_t partitions;          /* open files / assigned partitions */
	int64_t lag_bytes;            /* files: bytes not read yet, over all files; -1: unknown */
	int64_t lag_records;          /* Kafka; -1: unknown */
	int64_t last_time_us;         /* largest event time delivered; INT64_MIN: none */
	uint64_t heartbeat;           /* grows with every poll; a watchdog compares */
	int degraded;                 /* 1: something is wrong and is being retried */
	char reason[256];             /* in words, when degraded; else "" */
};

/*
 * One constant table per kind of source.
 *   poll    fills an empty batch with lines of ONE partition, waiting at most timeout_ms. 0: the batch holds events, refused lines or a changed
 *           position. -EAGAIN: nothing came. Other -errno: fatal, errstr says what and where; the daemon stops the source and reports.
 *   wake    makes a waiting poll return soon; any thread.
 *   status  any thread.
 *   close   by the polling thread's owner, after the thread ended. Accepts NULL.
 */
struct source_ops {
	const char *kind; /* "files", "kafka" */
	int (*poll)(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size);
	void (*wake)(struct source *source);
	void (*status)(struct source *source, struct source_status *ret_status);
	void (*close)(struct source *source);
};

/* Every source object begins with this. */
struct source {
	const struct source_ops *ops;
};

int source_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size);
void source_wake(struct source *source);
void source_status(struct source *source, struct source_status *ret_status);
void source_close(struct source *source);

/* Limits of one line; shared by all sources. */
struct decode_limits {
	uint32_t line_bytes_max; /* default 1 MiB; longer lines are refused, read past in pieces, never held whole */
	uint32_t depth_max;      /* default 32 */
};

struct source_files_config {
	enum event_stream stream;
	const char *const *globs; /* n_globs patterns; new matches are picked up while running */
	size_t n_globs;
	int from_end;             /* 1: a file seen at the first start (no position) begins at its end; files that appear later always at 0 */
	struct decode_limits limits;
	uint32_t marker_bytes;    /* content marker before the position; default 64 */
	uint32_t stat_interval_ms; /* periodic check beside inotify; default 1000 */
};

/*
 * Tails files. `positions` are those of the last cut (all kinds; the source picks its own by name); the array is copied.
 * On success *ret_source is owned by the caller (source_close). Errors: -EINVAL (bad glob), -ENOMEM.
 * A position that fits no file any more is not an error here: the first polls deliver it as a gap (loudly, counted).
 */
int source_files_open(const struct source_files_config *config, const struct source_position *positions, size_t n_positions,
                      struct source **ret_source, char *errstr, size_t errstr_size);

/* Opens a dead-letter file for appending; truncates it to `length` first (the length a cut recorded; -1: keep as it is). */
struct dead_letter;
int dead_letter_open(const char *path, int64_t length, uint64_t size_max, struct dead_letter **ret_dead_letter, char *errstr,
                     size_t errstr_size);
/* Appends one JSON line per refused line of the batch: reason, source, position, the line (capped). Above size_max lines are counted, not kept.
 * 0 or -errno (a short write is taken back). Buffered in the kernel only; dead_letter_sync() makes it durable. */
int dead_letter_append(struct dead_letter *dead_letter, const struct event_batch *batch);
int dead_letter_sync(struct dead_letter *dead_letter);
int64_t dead_letter_length(const struct dead_letter *dead_letter);
/* Refused lines that were not kept because the file is full. */
uint64_t dead_letter_dropped(const struct dead_letter *dead_letter);
void dead_letter_close(struct dead_letter *dead_letter);

#endif
