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

/* One Kafka partition, for operators; filled like struct source_status. Files have none. */
struct partition_status {
	char name[POSITION_NAME_MAX]; /* the position's name: "kafka:STREAM:TOPIC:PARTITION" */
	int64_t offset;               /* next record to take */
	int64_t end;                  /* high watermark: offset of the record that comes next in the log; -1: not known yet */
	int64_t lag_records;          /* end - offset; -1: not known yet */
	int64_t last_record_us;       /* CLOCK_MONOTONIC when the last record came; INT64_MIN: none in this run */
	int64_t committed;            /* last offset the broker has taken as committed; -1: none in this run */
};

/*
 * One constant table per kind of source.
 *   poll    fills an empty batch with lines of ONE partition, waiting at most timeout_ms. 0: the batch holds events, refused lines or a changed
 *           position. -EAGAIN: nothing came. -EUCLEAN: data is gone and the operator has not accepted that; errstr names it and the mend, and the daemon
 *           stops (nothing was taken past the gap). Other -errno: fatal, errstr says what and where; the daemon stops the source and reports.
 *   wake    makes a waiting poll return soon; any thread.
 *   status  any thread.
 *   partitions  any thread; fills at most max, returns how many there are. NULL in kinds that have none.
 *   commit  tells the broker how far a durable checkpoint has come: n_positions of all kinds, of which the source picks its own. Any thread; returns at
 *           once; a failure is logged, never fatal: the checkpoint is the truth. NULL in kinds that have nothing to tell.
 *   close   by the polling thread's owner, after the thread ended. Accepts NULL.
 */
struct source_ops {
	const char *kind; /* "files", "kafka" */
	int (*poll)(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size);
	void (*wake)(struct source *source);
	void (*status)(struct source *source, struct source_status *ret_status);
	size_t (*partitions)(struct source *source, struct partition_status *ret_partitions, size_t max);
	void (*commit)(struct source *source, const struct source_position *positions, size_t n_positions);
	void (*close)(struct source *source);
};

/* Every source object begins with this. */
struct source {
	const struct source_ops *ops;
};

int source_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size);
void source_wake(struct source *source);
void source_status(struct source *source, struct source_status *ret_status);
/* 0 for kinds without partitions. */
size_t source_partitions(struct source *source, struct partition_status *ret_partitions, size_t max);
/* Does nothing for kinds that have nothing to tell. */
void source_commit(struct source *source, const struct source_position *positions, size_t n_positions);
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

/* One librdkafka setting, e.g. "security.protocol", "SASL_SSL". Values may be secrets: never logged, never in an error. */
struct kafka_property {
	char *name;
	char *value;
};

/* Partitions first..last, both included. */
struct partition_range {
	int32_t first, last;
};

struct source_kafka_config {
	enum event_stream stream;
	const char *topic;
	const char *brokers;                      /* bootstrap.servers */
	const char *group;                        /* group.id, only for committing positions; recd takes no part in rebalances */
	const struct kafka_property *properties;  /* set last: they win over recd's own settings, but for those recd's promise stands on */
	size_t n_properties;
	const struct partition_range *ranges;     /* the partitions this daemon owns; n_ranges 0: all, and those that are added later */
	size_t n_ranges;
	int from_end;                             /* 1: a partition seen at the first start (no position of this topic) begins at its end; later ones at 0 */
	int accept_gaps;                          /* 0: lost data is -EUCLEAN; 1: it is counted as a gap and reading goes on */
	struct decode_limits limits;
	uint32_t metadata_interval_ms;            /* how often new partitions are looked for; default 30000 */
	void (*log)(void *ctx, int level, const char *text); /* syslog levels; from any thread; NULL: silent */
	void *log_ctx;
};

/*
 * Consumes the owned partitions of one topic with assign() from the positions of the last cut (all kinds; the source picks its own by name, the array is
 * copied). The broker need not be there: the source is then degraded, says why, and goes on when it comes. On success *ret_source is owned by the caller.
 * Errors: -EINVAL (a property librdkafka refuses: errstr names it, not its value), -ENOMEM.
 */
int source_kafka_open(const struct source_kafka_config *config, const struct source_position *positions, size_t n_positions,
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
