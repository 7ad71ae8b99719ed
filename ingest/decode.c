/*
 * decode.c: one line to one event, by the rules of its stream; json_fields.cpp finds the fields, this file says what they must be.
 *
 * A decoder belongs to one thread. It holds the JSON parser and a scratch line for callers that cannot promise padding; nothing is allocated per line.
 *
 * When a line breaks several rules, the first of this order is reported: too long, damaged JSON, too deep, duplicate key, missing key, then
 * the fields one by one in the order of the stream's function. An optional key that is null counts as absent. A key of another stream
 * is an unknown key: checked as JSON and passed over. A UTF-8 byte order mark before the object is skipped; a CR after it is a blank; a NUL
 * anywhere, also an escaped one, is damaged JSON.
 */
#include "ingest/decode.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/json_fields.h"

#define BIT(key) (UINT32_C(1) << (key))
#define REFUSE(reason) (1 + (int)(reason))

#define SECONDS_MAX 1e9 /* of a watch or a title: 31 years */
#define YEAR_MAX 9999

#define IMPRESSION_REQUIRED                                                                                                                \
	(BIT(KEY_USER_ID) | BIT(KEY_ITEM_ID) | BIT(KEY_SHOWN_AT) | BIT(KEY_SURFACE) | BIT(KEY_POSITION) | BIT(KEY_REQUEST_ID))
#define EVENT_REQUIRED (BIT(KEY_USER_ID) | BIT(KEY_ITEM_ID) | BIT(KEY_TYPE) | BIT(KEY_OCCURRED_AT) | BIT(KEY_REQUEST_ID))
#define WATCH_REQUIRED (BIT(KEY_USER_ID) | BIT(KEY_ITEM_ID) | BIT(KEY_STARTED_AT))
#define WATCH_STRINGS (BIT(KEY_ENDED_AT) | BIT(KEY_DEVICE_TYPE) | BIT(KEY_SESSION_ID))

/* What a stream's lines may and must hold. */
static const struct stream_keys {
	uint32_t required;
	uint32_t known; /* the required ones too */
	uint32_t numbers;
} stream_keys[STREAM_COUNT] = {
	[STREAM_IMPRESSIONS] = {IMPRESSION_REQUIRED, IMPRESSION_REQUIRED | BIT(KEY_IMPRESSION_ID), 0},
	[STREAM_EVENTS] = {EVENT_REQUIRED, EVENT_REQUIRED | BIT(KEY_EVENT_ID) | BIT(KEY_VALUE), BIT(KEY_VALUE)},
	[STREAM_WATCHES] = {WATCH_REQUIRED,
	                    WATCH_REQUIRED | WATCH_STRINGS | BIT(KEY_WATCH_ID) | BIT(KEY_COMPLETION) | BIT(KEY_WATCH_TIME_SEC),
	                    BIT(KEY_COMPLETION) | BIT(KEY_WATCH_TIME_SEC)},
	[STREAM_CATALOGUE] = {BIT(KEY_ITEM_ID),
	                      BIT(KEY_ITEM_ID) | BIT(KEY_TITLE) | BIT(KEY_RELEASE_YEAR) | BIT(KEY_DURATION_SEC) | BIT(KEY_GENRES) | BIT(KEY_TAGS),
	                      BIT(KEY_DURATION_SEC)},
	[STREAM_USERS] = {BIT(KEY_USER_ID), BIT(KEY_USER_ID) | BIT(KEY_COUNTRY) | BIT(KEY_UI_LANGUAGE) | BIT(KEY_GENRE_PREF), 0},
};

struct decoder {
	struct json_parser *parser;
	struct decode_limits limits;
	struct json_fields fields;
	char *scratch; /* [line_bytes_max + DECODE_PADDING] */
};

struct decoder *decoder_new(const struct decode_limits *limits)
{
	struct decoder *decoder = calloc(1, sizeof(*decoder));

	if (!decoder)
		return NULL;
	decoder->limits = *limits;
	decoder->parser = json_parser_new(limits->line_bytes_max, limits->depth_max);
	decoder->scratch = calloc(1, (size_t)limits->line_bytes_max + DECODE_PADDING);
	if (!decoder->parser || !decoder->scratch) {
		decoder_free(decoder);
		return NULL;
	}
	return decoder;
}

void decoder_free(struct decoder *decoder)
{
	if (!decoder)
		return;
	json_parser_free(decoder->parser);
	free(decoder->scratch);
	free(decoder);
}

static inline int is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

int decode_is_empty(const char *line, size_t len)
{
	while (len > 0 && is_blank(line[len - 1]))
		len--;
	return len == 0;
}

static inline int present(const struct json_fields *fields, enum json_key key)
{
	return (fields->seen & BIT(key)) != 0 && fields->value[key].kind != JSON_NULL;
}

/* Ids are exact: 0..INT64_MAX, written as digits. */
static inline int take_id(const struct json_fields *fields, enum json_key key, int64_t *ret_id)
{
	const struct json_value *value = &fields->value[key];

	if (value->kind == JSON_INTEGER) {
		/* "-0" reads as 0 but is not how an id is written */
		if (value->overflow || value->integer < 0 || value->negative)
			return REFUSE(REFUSED_BAD_ID);
		*ret_id = value->integer;
		return 0;
	}
	return REFUSE(value->kind == JSON_REAL || value->kind == JSON_STRING ? REFUSED_BAD_ID : REFUSED_WRONG_TYPE);
}

static inline int take_user_and_item(const struct json_fields *fields, struct event *event)
{
	int r = take_id(fields, KEY_USER_ID, &event->user_id);

	return r ? r : take_id(fields, KEY_ITEM_ID, &event->item_id);
}

static inline int take_time(const struct json_fields *fields, enum json_key key, int64_t *ret_time_us)
{
	const struct json_value *value = &fields->value[key];

	if (value->kind != JSON_STRING)
		return REFUSE(REFUSED_WRONG_TYPE);
	return iso8601_parse(value->text, value->len, ret_time_us) < 0 ? REFUSE(REFUSED_BAD_TIME) : 0;
}

/* A number in 0..max. */
static inline int take_number(const struct json_value *value, double max, enum refusal bad, double *ret_number)
{
	if (value->kind != JSON_INTEGER && value->kind != JSON_REAL)
		return REFUSE(REFUSED_WRONG_TYPE);
	if (value->overflow || !(value->number >= 0 && value->number <= max))
		return REFUSE(bad);
	*ret_number = value->number + 0.0; /* -0.0 becomes 0.0 */
	return 0;
}

/* A whole number in 0..max. */
static inline int take_int32(const struct json_value *value, int32_t max, int32_t *ret_number)
{
	if (value->kind != JSON_INTEGER)
		return REFUSE(value->kind == JSON_REAL ? REFUSED_BAD_NUMBER : REFUSED_WRONG_TYPE);
	if (value->overflow || value->integer < 0 || value->integer > max)
		return REFUSE(REFUSED_BAD_NUMBER);
	*ret_number = (int32_t)value->integer;
	return 0;
}

/* Those of `keys` that are present must be of this kind. */
static inline int check_kind(const struct json_fields *fields, uint32_t keys, enum json_kind kind)
{
	for (uint32_t left = keys & fields->seen; left != 0; left &= left - 1) {
		enum json_kind got = fields->value[__builtin_ctz(left)].kind;

		if (got != kind && got != JSON_NULL)
			return REFUSE(REFUSED_WRONG_TYPE);
	}
	return 0;
}

static inline int take_text(const struct json_value *value, struct event_batch *batch, struct event_text *ret_text)
{
	if (value->kind != JSON_STRING)
		return REFUSE(REFUSED_WRONG_TYPE);
	if (value->len > EVENT_BATCH_TEXT)
		return REFUSE(REFUSED_TOO_LONG);
	return event_batch_add_text(batch, value->text, value->len, ret_text);
}

static int take_impression(const struct json_fields *fields, struct event_batch *batch, struct event *event)
{
	int64_t impression_id;
	int r;

	if ((r = take_user_and_item(fields, event)) || (r = take_time(fields, KEY_SHOWN_AT, &event->time_us)) ||
	    (r = take_int32(&fields->value[KEY_POSITION], INT32_MAX, &event->position)))
		return r;
	if (fields->value[KEY_REQUEST_ID].kind != JSON_STRING)
		return REFUSE(REFUSED_WRONG_TYPE);
	if (present(fields, KEY_IMPRESSION_ID) && (r = take_id(fields, KEY_IMPRESSION_ID, &impression_id)))
		return r;
	return take_text(&fields->value[KEY_SURFACE], batch, &event->name);
}

static enum event_type event_type_of(const char *name, size_t len)
{
	static const struct {
		const char *name;
		size_t len;
		enum event_type type;
	} types[] = {
		{"click", 5, EVENT_CLICK},     {"play_start", 10, EVENT_PLAY_START}, {"like", 4, EVENT_LIKE},
		{"dislike", 7, EVENT_DISLIKE}, {"rate", 4, EVENT_RATE},
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (len == types[i].len && memcmp(name, types[i].name, len) == 0)
			return types[i].type;
	return EVENT_OTHER;
}

static int take_event(const struct json_fields *fields, struct event_batch *batch, struct event *event)
{
	const struct json_value *type = &fields->value[KEY_TYPE];
	int r;

	if ((r = take_user_and_item(fields, event)) || (r = take_time(fields, KEY_OCCURRED_AT, &event->time_us)))
		return r;
	if (type->kind != JSON_STRING || fields->value[KEY_REQUEST_ID].kind != JSON_STRING)
		return REFUSE(REFUSED_WRONG_TYPE);
	if ((r = check_kind(fields, BIT(KEY_EVENT_ID), JSON_STRING)))
		return r;
	if (present(fields, KEY_VALUE)) {
		if ((r = take_number(&fields->value[KEY_VALUE], DBL_MAX, REFUSED_BAD_NUMBER, &event->value)))
			return r;
		event->flags |= EVENT_HAS_VALUE;
	}
	event->type = (uint8_t)event_type_of(type->text, type->len);
	return event->type == EVENT_OTHER ? take_text(type, batch, &event->name) : 0;
}

static int take_watch(const struct json_fields *fields, struct event *event)
{
	const struct json_value *watch_id = &fields->value[KEY_WATCH_ID];
	double number;
	int r;

	if ((r = take_user_and_item(fields, event)) || (r = take_time(fields, KEY_STARTED_AT, &event->time_us)))
		return r;
	if (present(fields, KEY_COMPLETION)) {
		if ((r = take_number(&fields->value[KEY_COMPLETION], 1, REFUSED_BAD_COMPLETION, &number)))
			return r;
		event->completion = (float)number;
		event->flags |= EVENT_HAS_COMPLETION;
	}
	if (present(fields, KEY_WATCH_TIME_SEC)) {
		if ((r = take_number(&fields->value[KEY_WATCH_TIME_SEC], SECONDS_MAX, REFUSED_BAD_NUMBER, &number)))
			return r;
		event->watch_time_sec = (float)number;
		event->flags |= EVENT_HAS_WATCH_TIME;
	}
	if (!(event->flags & (EVENT_HAS_COMPLETION | EVENT_HAS_WATCH_TIME)))
		return REFUSE(REFUSED_MISSING_KEY);
	if (present(fields, KEY_WATCH_ID) && watch_id->kind != JSON_STRING && watch_id->kind != JSON_INTEGER)
		return REFUSE(REFUSED_WRONG_TYPE);
	return check_kind(fields, WATCH_STRINGS, JSON_STRING);
}

static int take_doc(const char *line, size_t len, struct event_batch *batch, struct event *event)
{
	while (len > 0 && is_blank(line[len - 1]))
		len--;
	/* Together they must fit an empty batch, or the line would wait for one for ever. */
	if (len + event->name.len > EVENT_BATCH_TEXT)
		return REFUSE(REFUSED_TOO_LONG);
	return event_batch_add_text(batch, line, len, &event->doc);
}

static int take_catalogue(const struct json_fields *fields, const char *line, size_t len, struct event_batch *batch, struct event *event)
{
	int r;

	if ((r = take_id(fields, KEY_ITEM_ID, &event->item_id)))
		return r;
	if (present(fields, KEY_RELEASE_YEAR)) {
		if ((r = take_int32(&fields->value[KEY_RELEASE_YEAR], YEAR_MAX, &event->position)))
			return r;
		event->flags |= EVENT_HAS_YEAR;
	}
	if (present(fields, KEY_DURATION_SEC)) {
		if ((r = take_number(&fields->value[KEY_DURATION_SEC], SECONDS_MAX, REFUSED_BAD_NUMBER, &event->value)))
			return r;
		if (event->value > 0) /* a title of no length: not known yet */
			event->flags |= EVENT_HAS_DURATION;
	}
	if ((r = check_kind(fields, BIT(KEY_GENRES) | BIT(KEY_TAGS), JSON_STRING_ARRAY)))
		return r;
	if (present(fields, KEY_TITLE) && (r = take_text(&fields->value[KEY_TITLE], batch, &event->name)))
		return r;
	return take_doc(line, len, batch, event);
}

static int take_user(const struct json_fields *fields, const char *line, size_t len, struct event_batch *batch, struct event *event)
{
	int r;

	if ((r = take_id(fields, KEY_USER_ID, &event->user_id)) ||
	    (r = check_kind(fields, BIT(KEY_COUNTRY) | BIT(KEY_UI_LANGUAGE), JSON_STRING)) ||
	    (r = check_kind(fields, BIT(KEY_GENRE_PREF), JSON_NUMBER_OBJECT)))
		return r;
	return take_doc(line, len, batch, event);
}

static int take_stream(enum event_stream stream, const struct json_fields *fields, const char *line, size_t len, struct event_batch *batch,
                       struct event *event)
{
	switch (stream) {
	case STREAM_IMPRESSIONS:
		return take_impression(fields, batch, event);
	case STREAM_EVENTS:
		return take_event(fields, batch, event);
	case STREAM_WATCHES:
		return take_watch(fields, event);
	case STREAM_CATALOGUE:
		return take_catalogue(fields, line, len, batch, event);
	case STREAM_USERS:
		return take_user(fields, line, len, batch, event);
	case STREAM_COUNT:
		break;
	}
	return -EINVAL;
}

/* Skips a byte order mark; a second one is damage, whatever the JSON library thinks of it. */
static int skip_mark(const char **line, size_t *len)
{
	static const char mark[3] = "\xef\xbb\xbf";

	if (*len >= 3 && memcmp(*line, mark, 3) == 0) {
		*line += 3;
		*len -= 3;
		if (*len >= 3 && memcmp(*line, mark, 3) == 0)
			return REFUSE(REFUSED_JSON);
	}
	return *len == 0 ? REFUSE(REFUSED_JSON) : 0;
}

/* A copy of the line with blanks behind it. */
static const char *to_scratch(struct decoder *decoder, const char *line, size_t len)
{
	memcpy(decoder->scratch, line, len);
	memset(decoder->scratch + len, ' ', DECODE_PADDING);
	return decoder->scratch;
}

int decode_line(struct decoder *decoder, enum event_stream stream, const char *line, size_t len, int padded, struct event_batch *batch)
{
	const struct stream_keys *keys = &stream_keys[stream];
	struct json_fields *fields = &decoder->fields;
	uint32_t text_len = batch->text_len;
	enum json_result result;
	struct event *event;
	int r;

	if (len > decoder->limits.line_bytes_max)
		return REFUSE(REFUSED_TOO_LONG);
	if (batch->n_events == EVENT_BATCH_EVENTS)
		return -ENOSPC;
	if ((r = skip_mark(&line, &len)))
		return r;
	if (!padded)
		line = to_scratch(decoder, line, len);
	result = json_fields_parse(decoder->parser, line, len, keys->known, keys->numbers, fields);
	/* Where brackets are not closed, what simdjson finds wrong first can depend on the bytes behind the line. Counters must not. */
	if (padded && (result == JSON_DAMAGED || result == JSON_TOO_DEEP))
		result = json_fields_parse(decoder->parser, to_scratch(decoder, line, len), len, keys->known, keys->numbers, fields);
	switch (result) {
	case JSON_GOOD:
		break;
	case JSON_DAMAGED:
		return REFUSE(REFUSED_JSON);
	case JSON_TOO_DEEP:
		return REFUSE(REFUSED_TOO_DEEP);
	case JSON_NO_MEMORY:
		return -ENOMEM;
	}
	if (fields->twice)
		return REFUSE(REFUSED_DUPLICATE_KEY);
	if ((fields->seen & keys->required) != keys->required)
		return REFUSE(REFUSED_MISSING_KEY);
	event = &batch->events[batch->n_events];
	memset(event, 0, sizeof(*event));
	event->stream = (uint8_t)stream;
	r = take_stream(stream, fields, line, len, batch, event);
	if (r) {
		batch->text_len = text_len;
		return r;
	}
	batch->n_events++;
	return 0;
}
