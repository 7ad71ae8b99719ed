/*
 * decode.h: one line of a log to one struct event. simdjson On-Demand stays behind this C interface.
 */
#ifndef INGEST_DECODE_H
#define INGEST_DECODE_H

#include "ingest/event.h"
#include "ingest/source.h"

struct decoder;

/* One decoder per thread. NULL when out of memory. */
struct decoder *decoder_new(const struct decode_limits *limits);
void decoder_free(struct decoder *decoder);

/*
 * Decodes one line (no newline; a trailing CR is allowed) and appends the event to the batch.
 * `padded` != 0 promises DECODE_PADDING readable bytes after the line (their content does not matter); else the line is copied first and nothing
 * past its end is touched. Returns 0; a value > 0 is 1 + enum refusal, and the batch is untouched; -ENOSPC: the batch is full, hand it on and
 * call again. (-ENOMEM is possible in principle; the parser reserves all it needs when it is made.)
 */
#define DECODE_PADDING 64
int decode_line(struct decoder *decoder, enum event_stream stream, const char *line, size_t len, int padded, struct event_batch *batch);

/* 1 when the line holds nothing but blanks (space, tab, CR): a source counts it as empty and does not decode it. */
int decode_is_empty(const char *line, size_t len);

/* ISO-8601 date and time with offset ("2025-12-10T12:00:01.5+03:00", "...Z") to UTC microseconds. 0, or -EINVAL. Years 1970 to 9999. */
int iso8601_parse(const char *text, size_t len, int64_t *ret_time_us);
/* UTC microseconds to "2025-12-10T12:00:01+00:00" (microseconds only when not zero). `out` holds ISO8601_MAX bytes. Returns the length. */
#define ISO8601_MAX 40
size_t iso8601_format(int64_t time_us, char *out);

#endif
