/*
 * fuzz_decode.c: hostile lines through the decoder, held against jansson: what one takes for JSON the other must, and ids, times and numbers must agree.
 *
 * LLVMFuzzerTestOneInput() is for libFuzzer (clang -fsanitize=fuzzer -DFUZZ_LIBFUZZER). Without it the program has a main of its own that mutates a built-in
 * corpus: 100,000 rounds, times RECD_TEST_SCALE; RECD_TEST_SEED repeats a run. Run it under AddressSanitizer: the lines lie in blocks of their exact size.
 */
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingest/decode.h"

static const struct decode_limits limits = {.line_bytes_max = 4096, .depth_max = 16};
static struct decoder *decoder;
static struct event_batch *batch;

static void die(const char *what, enum event_stream stream, const char *line, size_t len)
{
	fprintf(stderr, "%s (%s, %zu bytes):\n", what, event_stream_name(stream), len);
	fwrite(line, 1, len, stderr);
	fputc('\n', stderr);
	for (size_t i = 0; i < len; i++)
		fprintf(stderr, "%02x", (unsigned char)line[i]);
	fputc('\n', stderr);
	abort();
}

static int same_id(const json_t *object, const char *key, int64_t id)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) && json_integer_value(value) == id;
}

/* A float keeps seven digits; below 1e-37 it loses them and then becomes 0. */
static int same_number(const json_t *object, const char *key, double number)
{
	const json_t *value = json_object_get(object, key);

	return json_is_number(value) && fabs(json_number_value(value) - number) <= 1e-6 * fabs(number) + 1e-37;
}

/* The event says what the JSON says. */
static void check_event(const struct event *event, const json_t *object, enum event_stream stream, const char *line, size_t len)
{
	static const char *const time_keys[] = {"shown_at", "occurred_at", "started_at"};
	int ok = 1;

	if (stream != STREAM_CATALOGUE)
		ok = ok && same_id(object, "user_id", event->user_id);
	if (stream != STREAM_USERS)
		ok = ok && same_id(object, "item_id", event->item_id);
	if (stream <= STREAM_WATCHES) {
		const json_t *text = json_object_get(object, time_keys[stream]);
		char formatted[ISO8601_MAX];
		int64_t again = -1;

		ok = ok && json_is_string(text) && iso8601_parse(json_string_value(text), json_string_length(text), &again) == 0 &&
		     again == event->time_us;
		ok = ok && iso8601_parse(formatted, iso8601_format(event->time_us, formatted), &again) == 0 && again == event->time_us;
	}
	if ((event->flags & EVENT_HAS_COMPLETION) != 0)
		ok = ok && same_number(object, "completion", (double)event->completion) && event->completion >= 0 && event->completion <= 1;
	if ((event->flags & EVENT_HAS_WATCH_TIME) != 0)
		ok = ok && same_number(object, "watch_time_sec", (double)event->watch_time_sec);
	if ((event->flags & EVENT_HAS_VALUE) != 0)
		ok = ok && same_number(object, "value", event->value);
	if (stream == STREAM_IMPRESSIONS)
		ok = ok && same_id(object, "position", event->position);
	if (stream == STREAM_WATCHES)
		ok = ok && (event->flags & (EVENT_HAS_COMPLETION | EVENT_HAS_WATCH_TIME)) != 0;
	if (stream >= STREAM_CATALOGUE)
		ok = ok && event->doc.len > 0 && batch->text[event->doc.offset] != '\xef';
	if (!ok)
		die("the event and the JSON differ", stream, line, len);
}

static int json_error_is_a_limit(const json_error_t *error)
{
	enum json_error_code code = json_error_code(error);

	return code == json_error_numeric_overflow;
}

/* jansson's word on the line, without the mark that we skip. */
static void check_against_jansson(int result, enum event_stream stream, const char *line, size_t len)
{
	json_error_t error;
	size_t skip = len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	json_t *value = json_loadb(line + skip, len - skip, 0, &error);

	if (!value && json_error_is_a_limit(&error))
		return;
	if (result == 0 && !json_is_object(value))
		die("accepted, but jansson refuses it", stream, line, len);
	/* jansson passes over NUL bytes between tokens */
	if (result == 1 + REFUSED_JSON && json_is_object(value) && !memchr(line, '\0', len))
		die("refused as damaged, but jansson accepts it", stream, line, len);
	if (result == 0)
		check_event(&batch->events[0], value, stream, line, len);
	json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum event_stream stream;
	char *line, *padded;
	size_t len;
	int result;

	if (!decoder) {
		decoder = decoder_new(&limits);
		batch = event_batch_new();
	}
	if (size < 2 || !decoder || !batch)
		return 0;
	stream = (enum event_stream)(data[0] % STREAM_COUNT);
	len = size - 2;
	line = malloc(len ? len : 1);
	padded = malloc(len + DECODE_PADDING);
	if (!line || !padded)
		abort();
	memcpy(line, data + 2, len);
	memcpy(padded, data + 2, len);
	for (size_t i = 0; i < DECODE_PADDING; i++)
		padded[len + i] = (char)(data[1] + (i % 3) * (data[1] >> 4));
	event_batch_clear(batch);
	result = decode_line(decoder, stream, padded, len, 1, batch);
	event_batch_clear(batch);
	if (decode_line(decoder, stream, line, len, 0, batch) != result)
		die("what lies behind the line matters", stream, line, len);
	if (result < 0)
		die("an error that is no refusal", stream, line, len);
	if ((result == 0) != (batch->n_events == 1) || (result > 0 && batch->text_len != 0))
		die("the batch does not fit the result", stream, line, len);
	check_against_jansson(result, stream, line, len);
	free(line);
	free(padded);
	return 0;
}

#ifndef FUZZ_LIBFUZZER

#define LINE_MAX_FUZZ 600

static const struct {
	enum event_stream stream;
	const char *line;
} corpus[] = {
	{STREAM_IMPRESSIONS, "{\"impression_id\":123,\"user_id\":0,\"item_id\":2891,\"surface\":\"home\",\"position\":4,\"shown_at\":"
	                     "\"2025-12-10T12:00:01+00:00\",\"request_id\":\"req-000000000123\"}"},
	{STREAM_EVENTS, "{\"event_id\":\"ev-123-click\",\"user_id\":0,\"item_id\":2891,\"type\":\"click\",\"value\":null,\"occurred_at\":"
	                "\"2025-12-10T12:00:12+00:00\",\"request_id\":\"req-000000000123\"}"},
	{STREAM_EVENTS, "{\"user_id\":9223372036854775807,\"item_id\":1,\"type\":\"r\\u0061te\",\"value\":-1.5e-3,\"occurred_at\":"
	                "\"2025-12-10T12:00:12.25Z\",\"request_id\":\"\"}"},
	{STREAM_WATCHES, "{\"watch_id\":\"w-123\",\"user_id\":0,\"item_id\":2891,\"started_at\":\"2025-12-10T12:01:00+00:00\",\"ended_at\":"
	                 "\"2025-12-10T13:20:00+00:00\",\"watch_time_sec\":3600,\"completion\":0.72,\"device_type\":\"tv\",\"session_id\":\"s\"}"},
	{STREAM_WATCHES, " { \"completion\" : 1e-1 , \"started_at\" : \"2025-12-10t12:01:00-0330\" , \"item_id\" : 7 , \"user_id\" : 8 } \r"},
	{STREAM_CATALOGUE, "{\"item_id\":2891,\"title\":\"Movie \\\"#02891\\\" \xe2\x82\xac \\ud83d\\ude00\",\"release_year\":2012,\"duration_sec\":6780,"
	                   "\"genres\":[\"history\",\"crime\"],\"tags\":[\"tag_12\"]}"},
	{STREAM_USERS, "{\"user_id\":0,\"country\":\"NL\",\"ui_language\":\"ru\",\"genre_pref\":{\"documentary\":0.3139,\"drama\":0.2520}}"},
	{STREAM_USERS, "\xef\xbb\xbf{\"user_id\":1,\"x\":[[[{\"y\":[true,false,null,-0,0.0,1E+2]}]],{},[]],\"\\u00e9\":\"\\n\\t\\\\\\/\"}"},
};

static const char *const tokens[] = {
	"\"user_id\":", "\"item_id\":", "\"completion\":", "\"x\":", "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud800", "\\u00e9", "null", "true",
	"-", "0", "1e999", "1.5", "9223372036854775808", "18446744073709551616", "\xff", "\xc3\xa9", "\xed\xa0\x80", "\xef\xbb\xbf", "\r", "\n", "\t", " ",
	"[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]", "{\"a\":{\"a\":{\"a\":", "}}}", "2025-12-10T12:00:01+00:00", "\"\"", "\\\"", "/", "'", "\x7f", "\x01",
};

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state * 0x2545F4914F6CDD1Du) >> 32) % n;
}

/* Replaces `cut` bytes at `at` by n bytes; returns the new length. */
static size_t replace(char *line, size_t len, size_t at, size_t cut, const char *bytes, size_t n)
{
	if (len - cut + n > LINE_MAX_FUZZ)
		return len;
	memmove(line + at + n, line + at + cut, len - at - cut);
	memcpy(line + at, bytes, n);
	return len - cut + n;
}

static size_t mutate(char *line, size_t len)
{
	size_t at = below((uint32_t)len + 1), run = below(16);
	char byte = (char)below(256), copy[16];
	const char *token;

	if (run > len - at)
		run = len - at;
	switch (below(7)) {
	case 0:
		return len ? replace(line, len, at < len ? at : len - 1, 1, &byte, 1) : 0;
	case 1:
		return replace(line, len, at, 0, &byte, below(8) == 0);
	case 2:
		return replace(line, len, at, run, "", 0);
	case 3:
		memcpy(copy, line + at, run);
		return replace(line, len, below((uint32_t)len + 1), 0, copy, run);
	case 4:
		return below(10) ? len : at;
	case 5:
		token = corpus[below(sizeof(corpus) / sizeof(corpus[0]))].line;
		at = below((uint32_t)strlen(token));
		run = strlen(token) - at < 40 ? strlen(token) - at : 40;
		return replace(line, len, below((uint32_t)len + 1), 0, token + at, run);
	default:
		token = tokens[below(sizeof(tokens) / sizeof(tokens[0]))];
		return replace(line, len, at, below(3) ? 0 : run, token, strlen(token));
	}
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int main(void)
{
	uint64_t rounds = 100000 * number_of("RECD_TEST_SCALE", 1), seed = number_of("RECD_TEST_SEED", (uint64_t)time(NULL)), accepted = 0;
	char input[LINE_MAX_FUZZ + 2];

	random_state = seed * 2654435761u + 88172645463325252u;
	printf("seed %llu, %llu rounds\n", (unsigned long long)seed, (unsigned long long)rounds);
	fflush(stdout);
	for (uint64_t i = 0; i < rounds; i++) {
		size_t which = below(sizeof(corpus) / sizeof(corpus[0])), len = strlen(corpus[which].line);

		memcpy(input + 2, corpus[which].line, len);
		for (uint32_t k = below(4); k > 0; k--)
			len = mutate(input + 2, len);
		input[0] = (char)(below(20) ? corpus[which].stream : below(STREAM_COUNT));
		input[1] = (char)below(256);
		LLVMFuzzerTestOneInput((const uint8_t *)input, len + 2);
		accepted += batch->n_events;
	}
	printf("%llu accepted\n", (unsigned long long)accepted);
	decoder_free(decoder);
	event_batch_free(batch);
	return accepted > rounds / 10 && accepted < rounds ? 0 : 1;
}
#endif
