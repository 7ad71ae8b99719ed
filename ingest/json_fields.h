/*
 * json_fields.h: the top-level fields of one JSON object, found by simdjson On-Demand. Only decode.c includes this.
 *
 * The whole line is checked, the parts nobody reads too: UTF-8 (simdjson's first stage, over every byte), the grammar of objects, arrays, numbers,
 * literals and of escapes, nesting, and that nothing but blanks follows the object. Two things beyond RFC 8259: an escaped NUL (backslash u0000)
 * is refused, because what is behind us handles text as C strings; and duplicate keys are reported where the key is known. Numbers that nobody
 * reads must be well-formed but may be of any size.
 */
#ifndef INGEST_JSON_FIELDS_H
#define INGEST_JSON_FIELDS_H

#include <stddef.h>
#include <stdint.h>

enum json_key {
	KEY_USER_ID,
	KEY_ITEM_ID,
	KEY_SHOWN_AT,
	KEY_SURFACE,
	KEY_POSITION,
	KEY_REQUEST_ID,
	KEY_IMPRESSION_ID,
	KEY_EVENT_ID,
	KEY_TYPE,
	KEY_VALUE,
	KEY_OCCURRED_AT,
	KEY_WATCH_ID,
	KEY_STARTED_AT,
	KEY_ENDED_AT,
	KEY_WATCH_TIME_SEC,
	KEY_COMPLETION,
	KEY_DEVICE_TYPE,
	KEY_SESSION_ID,
	KEY_TITLE,
	KEY_RELEASE_YEAR,
	KEY_DURATION_SEC,
	KEY_GENRES,
	KEY_TAGS,
	KEY_COUNTRY,
	KEY_UI_LANGUAGE,
	KEY_GENRE_PREF,
	KEY_COUNT,
};

enum json_kind {
	JSON_NULL,
	JSON_BOOL,
	JSON_INTEGER,      /* digits only, with or without a minus; any size: see json_value */
	JSON_REAL,         /* a number with a fraction or an exponent */
	JSON_STRING,
	JSON_STRING_ARRAY, /* an array of strings only (an empty one too) */
	JSON_OTHER_ARRAY,
	JSON_NUMBER_OBJECT, /* an object whose values are all numbers (an empty one too) */
	JSON_OTHER_OBJECT,
};

struct json_value {
	enum json_kind kind;
	int overflow;     /* keys in `numbers`: too large for a double, `number` is not set; other keys: JSON_INTEGER that does not fit `integer` */
	int negative;     /* JSON_INTEGER and JSON_REAL: written with a minus ("-0" too) */
	int64_t integer;  /* JSON_INTEGER; INT64_MIN..INT64_MAX */
	double number;    /* JSON_INTEGER and JSON_REAL, when the key is in `numbers` of json_fields_parse() */
	const char *text; /* JSON_STRING: unescaped; lies in the line or in the parser, valid until the next parse */
	size_t len;
};

struct json_fields {
	uint32_t seen;  /* bit (1 << key) */
	uint32_t twice; /* the same for keys seen twice (the last value stands) */
	struct json_value value[KEY_COUNT];
};

enum json_result { JSON_GOOD, JSON_DAMAGED, JSON_TOO_DEEP, JSON_NO_MEMORY };

#ifdef __cplusplus
extern "C" {
#endif

struct json_parser;

/* For lines of at most line_bytes_max bytes and depth_max levels (the object itself is level 1). NULL when out of memory. */
struct json_parser *json_parser_new(size_t line_bytes_max, uint32_t depth_max);
void json_parser_free(struct json_parser *parser);

/*
 * Parses one line of 1 to line_bytes_max bytes followed by 64 readable bytes of any content. `keys` (bits) are the keys to note; others are checked and
 * passed over; `numbers` are those of them whose `number` is wanted. *ret is overwritten; only values whose bit is in `seen` mean anything.
 */
enum json_result json_fields_parse(struct json_parser *parser, const char *line, size_t len, uint32_t keys, uint32_t numbers,
                                   struct json_fields *ret);

#ifdef __cplusplus
}
#endif
#endif
