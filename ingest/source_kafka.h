/*
 * source_kafka.h: what the parts of the Kafka source share. Private to source_kafka*.c and its tests.
 *
 * Two threads. The polling thread (the daemon's) consumes, decodes and decides. The scout, a thread of the source's own, makes every call that waits for a
 * broker: metadata, watermarks, commits. So a silent broker never holds up a poll. They meet in `struct kafka_shared`, under one mutex that the polling thread
 * takes a few times a poll and never for a record.
 *
 *   source_kafka.c          open, close, the table of operations
 *   source_kafka_offsets.c  pure decisions: is this the next record, where does a partition start, is this still the same log
 *   source_kafka_poll.c     consuming: records to batch
 *   source_kafka_pace.c     how far librdkafka fetches ahead, before 2.2
 *   source_kafka_assign.c   partitions: finding, starting, verifying them; lost data
 *   source_kafka_scout.c    the scout
 *   source_kafka_status.c   status, log, librdkafka's errors
 */
#ifndef INGEST_SOURCE_KAFKA_H
#define INGEST_SOURCE_KAFKA_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "ingest/decode.h"
#include "ingest/kafka_client.h"
#include "ingest/source.h"

#define KAFKA_PENDING_MAX 1024u     /* records taken from librdkafka's queue at once */
#define KAFKA_PARTITIONS_MAX 16384u /* of one source */
#define KAFKA_LOG_SLOTS 32u         /* different texts remembered by the log's rate limit */
#define KAFKA_LOG_GAP_US INT64_C(60000000) /* the same text is logged once in so long */

/* Levels of syslog(3), as source_kafka_config.log takes them. */
enum { KAFKA_ERR = 3, KAFKA_WARNING = 4, KAFKA_NOTICE = 5 };

/* ---- source_kafka_offsets.c ---- */

/* Follows one partition's offsets. Whoever takes a record sets expected to its offset + 1. */
struct kafka_sequence {
	int64_t expected;   /* offset of the next record */
	int64_t hole_at;    /* a record came here instead, and we went back to look again; -1: no doubt open */
	uint32_t hole_tries;
	uint32_t confirmed; /* holes in a row that were still there at the second look */
	uint32_t believed;  /* holes taken without a second look since the last one */
};

enum kafka_verdict {
	KAFKA_TAKE, /* it is next; *ret_missing offsets before it do not exist */
	KAFKA_DROP, /* below the expected offset */
	KAFKA_SEEK, /* offsets are missing: go back to the expected one and look again */
};

void kafka_sequence_start(struct kafka_sequence *sequence, int64_t expected);
enum kafka_verdict kafka_sequence_check(struct kafka_sequence *sequence, int64_t offset, int64_t *ret_missing);

enum kafka_start {
	KAFKA_START_GO,        /* at the position: there is no marker to compare */
	KAFKA_START_VERIFY,    /* at the marker: compare its record first */
	KAFKA_START_UNCHECKED, /* at the position: the marker's record is gone, as old records go */
	KAFKA_START_EVICTED,   /* records between the position and the low watermark were deleted unread */
	KAFKA_START_TRUNCATED, /* the log ends before the position: recreated or truncated */
};

/* low: the oldest offset the broker holds; high: the one that comes next. *ret_offset: where to start reading (undefined for the last two). */
enum kafka_start kafka_start_decide(const struct source_position *position, int64_t low, int64_t high, int64_t *ret_offset);

enum kafka_match { KAFKA_MATCH_SAME, KAFKA_MATCH_OTHER, KAFKA_MATCH_BEFORE, KAFKA_MATCH_GONE };

/* The first records after starting at the marker: is this the marker's record, another one in its place, one before it, or is the marker's gone? */
enum kafka_match kafka_marker_match(const struct source_position *position, int64_t offset, uint64_t hash, int64_t time_ns);

/* Hash of a record's key and value (absent and empty ones differ). */
uint64_t kafka_record_hash(const void *key, size_t key_len, const void *value, size_t value_len);

/* "kafka:STREAM:TOPIC:PARTITION"; long topics are cut and end in "~" and a hash. */
void kafka_position_name(enum event_stream stream, const char *topic, int32_t partition, char *ret_name);
/* The partition that a position's name stands for, -1 when it is of another source. */
int32_t kafka_position_partition(const char *name, enum event_stream stream, const char *topic);

/* ---- the source ---- */

enum kafka_state {
	KAFKA_WAITING, /* the scout was asked for its watermarks; not assigned */
	KAFKA_VERIFYING, /* assigned at its marker */
	KAFKA_RUNNING,
};

/* One partition; polling thread only. */
struct kafka_partition {
	struct source_position position; /* as it was last delivered, or will be with the next batch */
	struct kafka_sequence sequence;
	int32_t id;
	enum kafka_state state;
	int assigned;
	int fresh;      /* has no position yet */
	int late;       /* fresh, and added to the topic while we ran: everything in it is new */
	int announce;   /* the position changed without a record: deliver an empty batch */
	int answered;   /* low and high are news */
	int short_log;  /* answers that said "the log ends before the position"; two of them count */
	int damaged;    /* librdkafka passed over records with a bad checksum, and the next record has not come yet */
	int64_t low, high;
	int64_t ask_us; /* ask the scout at this time; INT64_MAX: no */
	int64_t last_record_us;
	rd_kafka_resp_err_t error; /* being retried; 0: none */
};

/* What the scout and other threads see of a partition; index as in source_kafka.partitions. Under source_kafka.lock. */
struct kafka_shared {
	char name[POSITION_NAME_MAX];
	int32_t id;
	int wanted;   /* the polling thread wants its watermarks */
	int answered; /* low, high, error are an answer */
	int64_t low, high;
	rd_kafka_resp_err_t error;
	int64_t offset; /* next record to take; -1: not known yet */
	int64_t end;    /* high watermark; -1: not known yet */
	int64_t last_record_us;
	int64_t last_time_us;
	int64_t commit_wanted; /* -1: none */
	int64_t committed;
};

struct kafka_log_slot {
	uint64_t hash;
	int64_t logged_us;
};

struct source_kafka {
	struct source source; /* first */
	enum event_stream stream;
	char *topic;
	char *brokers;
	struct kafka_property *properties; /* kept to keep their values out of texts */
	size_t n_properties;
	struct partition_range *ranges;
	size_t n_ranges;
	int from_end;
	int accept_gaps;
	struct decode_limits limits;
	int64_t metadata_interval_us;
	void (*log)(void *ctx, int level, const char *text);
	void *log_ctx;

	rd_kafka_t *rk;
	rd_kafka_topic_t *rkt;         /* for metadata */
	rd_kafka_queue_t *queue;       /* records and librdkafka's errors; the polling thread's */
	rd_kafka_queue_t *scout_queue; /* results of commits; the scout sleeps here */
	pthread_t scout;
	int scout_started;
	atomic_int stop;
	atomic_int woken;
	int paced;           /* see source_kafka_pace.c; set before the client exists */
	atomic_size_t depth; /* records in `queue` after the last look; paced only */
	atomic_size_t held;  /* responses that were held back so far; paced only */
	atomic_uint news;    /* grows when the scout has something for the polling thread */

	/* polling thread */
	struct decoder *decoder;
	struct source_position *positions; /* of the last cut, this topic's, until their partitions are found */
	size_t n_positions;
	int first_start; /* no position of this topic: from_end holds */
	int appeared;    /* the topic was made while we ran: it does not */
	int shrunk;      /* positions of partitions that the topic no longer has are to be delivered as lost */
	struct kafka_partition *partitions;
	size_t n_partitions;
	int32_t *by_id; /* [n_ids]: index in partitions, -1: not owned */
	int32_t n_ids;
	int announcing;
	int64_t next_ask_us; /* earliest ask_us of all partitions */
	unsigned news_seen;
	rd_kafka_resp_err_t topic_error, client_error;
	char client_detail[192];
	int reason_dirty;
	char reason[256]; /* as last published */
	char lost[768]; /* data is gone, in words: every poll returns it from now on */
	rd_kafka_message_t *pending[KAFKA_PENDING_MAX];
	size_t pending_at, pending_n;

	pthread_mutex_t lock; /* everything below */
	struct kafka_shared *shared;
	size_t n_shared;
	rd_kafka_resp_err_t meta_error;
	int32_t meta_partitions; /* -1: not known yet */
	uint32_t meta_repeats;   /* answers in a row that said so, after the first */
	int meta_missing;        /* the topic was not there before it was */
	int meta_after_outage;   /* the brokers were gone and are back */
	int meta_now;            /* look at once */
	uint64_t heartbeat;
	int degraded;
	char shared_reason[256];

	/* the scout's */
	int64_t last_meta_us, next_meta_us, next_ends_us;
	size_t watermark_next; /* index of the partition whose watermarks come next */
	int outage;
	int commits_out;
	int64_t commit_sent_us;
	rd_kafka_resp_err_t commit_error;

	pthread_mutex_t log_lock; /* of log and what follows; held while it is called */
	struct kafka_log_slot log_slots[KAFKA_LOG_SLOTS];
};

int64_t kafka_now_us(void);

/* source_kafka_poll.c */
int kafka_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size);
/* Forgets the records of one partition, or of all (id -1), that were consumed and not handed on. */
void kafka_pending_drop(struct source_kafka *source, int32_t id);

/* source_kafka_assign.c; polling thread */
/* Takes the scout's news and starts what can be started; cheap when there are none. */
void kafka_assign_serve(struct source_kafka *source);
int kafka_is_owned(const struct source_kafka *source, int32_t id); /* any thread */
struct kafka_partition *kafka_partition_of(struct source_kafka *source, int32_t id);
/* Stops reading a partition and asks for its watermarks after `delay_us`; it goes on from its position, verified. */
void kafka_partition_restart(struct source_kafka *source, struct kafka_partition *partition, int64_t delay_us);
void kafka_partition_seek_back(struct source_kafka *source, struct kafka_partition *partition);
/* Compares the first record (or, message->err _PARTITION_EOF, the end) with the marker. 1: go on with this message; 0: it is dealt with. */
int kafka_partition_verify(struct source_kafka *source, struct kafka_partition *partition, const rd_kafka_message_t *message);
/* Offsets expected..offset-1 do not exist. Damaged ones are lost data. */
void kafka_partition_hole(struct source_kafka *source, struct kafka_partition *partition, int64_t offset, int64_t missing);
/* Fills the batch with a changed position that has no record. 1: filled, 0: none. */
int kafka_announce(struct source_kafka *source, struct event_batch *batch);

/* source_kafka_pace.c */
/* Before the client is made: 0, or -EINVAL with librdkafka's words in `said` when it refuses the configuration. */
int kafka_pace_install(struct source_kafka *source, rd_kafka_conf_t *conf, char *said, size_t said_size);
/* Polling thread, after it took records from the queue. */
void kafka_pace_note(struct source_kafka *source);

/* source_kafka_scout.c */
void *kafka_scout_main(void *arg);
void kafka_commit(struct source *source, const struct source_position *positions, size_t n_positions);

/* source_kafka_status.c */
void kafka_status(struct source *source, struct source_status *ret_status);
size_t kafka_partition_statuses(struct source *source, struct partition_status *ret_partitions, size_t max);
/* Once a poll: heartbeat, the reason if it changed, and the partition a batch came from (or NULL). */
void kafka_publish(struct source_kafka *source, const struct kafka_partition *partition);
void kafka_set_error(struct source_kafka *source, struct kafka_partition *partition, rd_kafka_resp_err_t error);
/* Rate limited, values of properties taken out. Any thread. */
void kafka_log(struct source_kafka *source, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Nothing is logged after this, and whom the log went to may go. */
void kafka_log_end(struct source_kafka *source);
void kafka_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text);
void kafka_on_error(rd_kafka_t *rk, int error, const char *text, void *opaque);

#endif
