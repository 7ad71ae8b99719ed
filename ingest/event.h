/*
 * event.h: what a log line becomes. The one header of ingest/ that trainer/ may include.
 *
 * A source decodes lines into a batch; a batch comes from one partition of one source and carries that partition's position and counters as they
 * stand after its last line. Whoever applies a batch takes over its position in the same step: facts and positions never disagree.
 *
 * Ownership: a batch owns its events, its text and its refused lines. Strings of an event lie in the batch's text (offset and length) and
 * are valid until event_batch_clear() or event_batch_free().
 */
#ifndef INGEST_EVENT_H
#define INGEST_EVENT_H

#include <stddef.h>
#include <stdint.h>

enum event_stream {
	STREAM_IMPRESSIONS,
	STREAM_EVENTS,
	STREAM_WATCHES,
	STREAM_CATALOGUE,
	STREAM_USERS,
	STREAM_COUNT,
};

/* Type of a line of the events stream. EVENT_OTHER is a name not known yet: counted, never an error. */
enum event_type { EVENT_CLICK, EVENT_PLAY_START, EVENT_LIKE, EVENT_DISLIKE, EVENT_RATE, EVENT_OTHER };

/* Why a line was refused. The names (refusal_name()) are part of the product: metrics, dead-letter file. */
enum refusal {
	REFUSED_JSON,           /* not a JSON object, or damaged; includes bad UTF-8 and bytes after the object */
	REFUSED_TOO_LONG,       /* line above the size limit */
	REFUSED_TOO_DEEP,       /* nesting above the limit */
	REFUSED_MISSING_KEY,    /* a required key is absent */
	REFUSED_DUPLICATE_KEY,  /* a known key twice */
	REFUSED_WRONG_TYPE,     /* a known key with a value of another type */
	REFUSED_BAD_ID,         /* id negative, not an integer (1e3, 1.0, "7"), or above INT64_MAX */
	REFUSED_BAD_TIME,       /* not ISO-8601 with offset, or out of range */
	REFUSED_BAD_COMPLETION, /* completion outside 0..1 */
	REFUSED_BAD_NUMBER,     /* watch_time_sec, duration_sec, position, value: negative, not finite or out of range */
	REFUSAL_COUNT,
};

enum {
	EVENT_HAS_COMPLETION = 1 << 0,
	EVENT_HAS_WATCH_TIME = 1 << 1,
	EVENT_HAS_VALUE = 1 << 2,
	EVENT_HAS_DURATION = 1 << 3,
	EVENT_HAS_YEAR = 1 << 4,
};

/* A string inside the batch's text. len 0: absent or empty. */
struct event_text {
	uint32_t offset;
	uint32_t len;
};

/*
 * One decoded line, 64 bytes. Which fields hold something depends on the stream:
 *   impressions  user_id item_id time_us(shown_at) position name(surface)
 *   events       user_id item_id time_us(occurred_at) type value name(type as written, only for EVENT_OTHER)
 *   watches      user_id item_id time_us(started_at) completion watch_time_sec
 *   catalogue    item_id duration_sec(in value) release_year(in position) name(title) doc(the whole line, as UTF-8 JSON)
 *   users        user_id doc(the whole line)
 */
struct event {
	int64_t user_id;
	int64_t item_id;
	int64_t time_us;      /* microseconds since 1970-01-01T00:00:00Z */
	uint8_t stream;       /* enum event_stream */
	uint8_t type;         /* enum event_type */
	uint16_t flags;       /* EVENT_HAS_* */
	int32_t position;     /* impressions: position on the surface; catalogue: release year */
	float completion;     /* 0..1 */
	float watch_time_sec; /* seconds, >= 0 */
	double value;         /* events: value; catalogue: duration in seconds */
	struct event_text name;
	struct event_text doc;
};

/* A refused line: reason, where it began, and its first bytes (in the batch's text; at most REFUSED_TEXT_MAX). */
struct refused_line {
	uint32_t reason; /* enum refusal */
	uint32_t line_len_shown;
	int64_t offset; /* byte offset (files) or record offset (Kafka) of the line's start */
	struct event_text text;
};
#define REFUSED_TEXT_MAX 4096u

#define POSITION_NAME_MAX 256

/*
 * How far one partition (a file identity, a Kafka partition) has been consumed, with its exact counters. Plain data: stored in the cut as it
 * is. `name` is unique among all positions of a daemon and stable over restarts.
 *
 * For files the name is "file:STREAM:PATH", and stays so over rotations: the position first follows the rotated file to its end (device and inode
 * say which file that is), then moves on to the next one with offset 0; its counters run on. Paths too long for the name end in "~" and a hash.
 * A file the position has just left is watched a little longer for late writes, under the same name with "#rotated:DEV:INO" appended. When that is
 * over, one last batch carries retired = 1. Whoever applies a batch with retired = 1 adds its counters to the position named by the part before
 * "#rotated:" (they are almost always zero) and drops it, in the same step.
 *
 * For Kafka the name is "kafka:STREAM:TOPIC:PARTITION". The marker is the last record taken: `inode` is its offset (offset - 1, unless markers or compaction
 * left holes), mark_time_ns its timestamp, marker the hash of its key and value, marker_len 1 (0: no record taken yet, nothing to compare).
 *
 * device = inode = 0, for files: the file is gone and was read to its end; should the path come back, it is read from 0.
 */
struct source_position {
	char name[POSITION_NAME_MAX];
	int64_t offset;           /* next byte or record to read; everything before it has been taken or refused */
	uint64_t device;          /* files: st_dev */
	uint64_t inode;           /* files: st_ino; Kafka: offset of the record that the marker hashes */
	uint64_t marker;          /* files: hash of the marker_len bytes before offset; Kafka: hash of the record before offset */
	uint32_t marker_len;      /* files: bytes hashed; Kafka: 1 (0: nothing read yet) */
	uint32_t retired;         /* 1: this position is finished; drop it from the cut */
	int64_t last_time_us;     /* largest event time taken from here; INT64_MIN: none yet */
	uint64_t lines;           /* non-empty lines taken or refused */
	uint64_t empty;           /* empty lines / tombstones skipped */
	uint64_t refused[REFUSAL_COUNT];
	uint64_t unknown_types;   /* events whose type name is not known */
	uint64_t gaps;            /* times data is known to have been lost before it was read */
	uint64_t gap_bytes;       /* bytes (files) or records (Kafka) lost, as far as known */
	uint64_t holes;           /* Kafka: offsets that do not exist (markers, compaction) */
	uint64_t duplicates;      /* Kafka: records dropped because their offset was below the expected one */
	uint64_t resets;          /* files: truncations seen (copytruncate, regrown) */
	int64_t mark_time_ns;     /* files: st_mtime when last read (tells newer rotations from older ones); Kafka: the marker record's time; ns since 1970, 0: unknown */
};

/* Most events, bytes of text and refused lines of one batch. */
#define EVENT_BATCH_EVENTS 4096u
#define EVENT_BATCH_TEXT (1u << 20)
#define EVENT_BATCH_REFUSED 256u

struct event_batch {
	uint32_t stream; /* enum event_stream; a batch holds one stream */
	uint32_t n_events;
	uint32_t n_refused;
	uint32_t text_len;
	struct event *events;         /* [EVENT_BATCH_EVENTS] */
	struct refused_line *refused; /* [EVENT_BATCH_REFUSED] */
	char *text;                   /* [EVENT_BATCH_TEXT] */
	struct source_position position; /* as it stands after this batch */
	int64_t received_us;          /* CLOCK_MONOTONIC microseconds when the source read its first line */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Allocates an empty batch with all its arrays. NULL when out of memory. */
struct event_batch *event_batch_new(void);
void event_batch_free(struct event_batch *batch);
/* Empties the batch; keeps its memory. */
void event_batch_clear(struct event_batch *batch);
/* Copies len bytes into the batch's text. Returns 0, or -ENOSPC when the text is full (ret_text untouched). */
int event_batch_add_text(struct event_batch *batch, const char *bytes, size_t len, struct event_text *ret_text);

/* Notes a refused line (at most REFUSED_TEXT_MAX bytes of it are copied). Returns 0, or -ENOSPC when the batch is full (nothing changed). */
int event_batch_add_refused(struct event_batch *batch, enum refusal reason, int64_t offset, const char *line, size_t len);

/* Stable lower-case names: "impressions", "events", "watch_stats", "catalogue", "users"; "json", "missing_key", ... */
const char *event_stream_name(enum event_stream stream);
const char *refusal_name(enum refusal reason);

#ifdef __cplusplus
}
#endif
#endif
