/* test_decode.c: the rules of every stream, and rows 1 to 4 and 8 of the failure list (input data). */
#include "tests/unit/ingest/decode_testing.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct line_case {
	int expected;
	const char *line;
};

static void check_table(enum event_stream stream, const struct line_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = decode(stream, cases[i].line, strlen(cases[i].line));

		if (r != cases[i].expected)
			fail_msg("%s, expected %s: %s", result_name(r), result_name(cases[i].expected), cases[i].line);
	}
}
#define CHECK_TABLE(stream, cases) check_table(stream, cases, sizeof(cases) / sizeof((cases)[0]))

static void assert_text(struct event_text text, const char *expected)
{
	assert_int_equal(text.len, strlen(expected));
	assert_memory_equal(batch->text + text.offset, expected, text.len);
}

static void test_fields_of_an_impression(void **unused)
{
	static const char line[] = "{\"impression_id\":123,\"user_id\":0,\"item_id\":2891,\"surface\":\"home\",\"position\":4,\"shown_at\":\"" T
	                           "\",\"request_id\":\"req-000000000123\"}";
	const struct event *event = &batch->events[0];

	(void)unused;
	assert_int_equal(decode(STREAM_IMPRESSIONS, line, sizeof(line) - 1), 0);
	assert_int_equal(batch->n_events, 1);
	assert_int_equal(event->stream, STREAM_IMPRESSIONS);
	assert_int_equal(event->user_id, 0);
	assert_int_equal(event->item_id, 2891);
	assert_int_equal(event->position, 4);
	assert_int_equal(event->time_us, T_US);
	assert_int_equal(event->flags, 0);
	assert_text(event->name, "home");
}

static void test_fields_of_an_event(void **unused)
{
	static const struct {
		const char *type, *value;
		enum event_type expected;
		int has_value;
		double number;
		const char *name;
	} cases[] = {
		{"click", "null", EVENT_CLICK, 0, 0, ""},    {"play_start", "1", EVENT_PLAY_START, 1, 1, ""},
		{"like", "0.5", EVENT_LIKE, 1, 0.5, ""},     {"dislike", "null", EVENT_DISLIKE, 0, 0, ""},
		{"rate", "7.25", EVENT_RATE, 1, 7.25, ""},   {"share", "null", EVENT_OTHER, 0, 0, "share"},
		{"clic\\u006b", "null", EVENT_CLICK, 0, 0, ""}, {"a\\\"b\\u00e9", "1e3", EVENT_OTHER, 1, 1000, "a\"b\xc3\xa9"},
		{"rate", "10000000000000000000", EVENT_RATE, 1, 1e19, ""},
		{"rate", "1e19", EVENT_RATE, 1, 1e19, ""},   {"rate", "100000000000000000000000", EVENT_RATE, 1, 1e23, ""},
		{"rate", "9223372036854775807", EVENT_RATE, 1, 9223372036854775808.0, ""},
		{"rate", "0.72922337203685477580", EVENT_RATE, 1, 0.72922337203685477580, ""}, /* simdjson 3.0.1 reads .17 */
		{"rate", "0.1234567890123456789012345678901234567890", EVENT_RATE, 1, 0.1234567890123456789012345678901234567890, ""},
		{"rate", "-0.0", EVENT_RATE, 1, 0, ""},      {"rate", "-0", EVENT_RATE, 1, 0, ""},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct event *event = &batch->events[0];
		char line[400];
		int len = snprintf(line, sizeof(line),
		                   "{\"event_id\":\"ev\",\"user_id\":3,\"item_id\":4,\"type\":\"%s\",\"value\":%s,\"occurred_at\":\"%s\","
		                   "\"request_id\":\"r\"}",
		                   cases[i].type, cases[i].value, T);

		if (decode(STREAM_EVENTS, line, (size_t)len) != 0)
			fail_msg("refused: %s", line);
		assert_int_equal(event->type, cases[i].expected);
		assert_int_equal(event->flags, cases[i].has_value ? EVENT_HAS_VALUE : 0);
		if (event->value < cases[i].number || event->value > cases[i].number)
			fail_msg("%s is %g", line, event->value);
		assert_text(event->name, cases[i].name);
	}
}

static void test_fields_of_a_watch(void **unused)
{
	static const char line[] = "{\"watch_id\":\"w-123\",\"user_id\":0,\"item_id\":2891,\"started_at\":\"" T
	                           "\",\"ended_at\":\"2025-12-10T13:20:00+00:00\",\"watch_time_sec\":3600,\"completion\":0.72,"
	                           "\"device_type\":\"tv\",\"session_id\":\"sess-0-2\"}";
	const struct event *event = &batch->events[0];

	(void)unused;
	assert_int_equal(decode(STREAM_WATCHES, line, sizeof(line) - 1), 0);
	assert_int_equal(event->flags, EVENT_HAS_COMPLETION | EVENT_HAS_WATCH_TIME);
	assert_true(event->completion >= 0.72f && event->completion <= 0.72f);
	assert_true(event->watch_time_sec >= 3600 && event->watch_time_sec <= 3600);
	assert_int_equal(event->time_us, T_US);
}

static void test_fields_of_the_catalogue(void **unused)
{
	static const char item[] = "{\"item_id\":2891,\"title\":\"Movie #02891\",\"release_year\":2012,\"duration_sec\":6780,"
	                           "\"genres\":[\"history\",\"crime\"],\"tags\":[]}";
	static const char user[] = "{\"user_id\":7,\"country\":\"NL\",\"ui_language\":\"ru\",\"genre_pref\":{\"drama\":0.25,\"crime\":1}}";
	const struct event *event = &batch->events[0];
	char line[400];

	(void)unused;
	assert_int_equal(decode(STREAM_CATALOGUE, item, sizeof(item) - 1), 0);
	assert_int_equal(event->item_id, 2891);
	assert_int_equal(event->position, 2012);
	assert_true(event->value >= 6780 && event->value <= 6780);
	assert_int_equal(event->flags, EVENT_HAS_DURATION | EVENT_HAS_YEAR);
	assert_text(event->name, "Movie #02891");
	assert_text(event->doc, item);

	snprintf(line, sizeof(line), "\xef\xbb\xbf%s \r", item);
	assert_int_equal(decode(STREAM_CATALOGUE, line, strlen(line)), 0);
	assert_text(event->doc, item); /* neither the mark nor the CR */

	assert_int_equal(decode(STREAM_CATALOGUE, "{\"item_id\":1,\"duration_sec\":0,\"title\":null}", 43), 0);
	assert_int_equal(event->flags, 0); /* a title of no length: duration not known */
	assert_int_equal(event->name.len, 0);

	assert_int_equal(decode(STREAM_USERS, user, sizeof(user) - 1), 0);
	assert_int_equal(event->user_id, 7);
	assert_text(event->doc, user);
}

/* Row 1, malformed JSON; also in the parts that nobody reads. */
static void test_malformed(void **unused)
{
	static const struct line_case cases[] = {
		{BAD(JSON), ""}, {BAD(JSON), "   "}, {BAD(JSON), "garbage"}, {BAD(JSON), "[]"}, {BAD(JSON), "null"}, {BAD(JSON), "7"},
		{BAD(JSON), "\"user_id\""}, {BAD(JSON), "{"}, {BAD(JSON), "}"}, {BAD(JSON), "{]"}, {BAD(JSON), "[}"}, {BAD(JSON), "{}}"},
		{BAD(JSON), "{\"user_id\":1"}, {BAD(JSON), "{\"user_id\":1]"}, {BAD(JSON), "{\"user_id\":1,}"}, {BAD(JSON), "{\"user_id\":}"},
		{BAD(JSON), "{\"user_id\"}"}, {BAD(JSON), "{\"user_id\":1,,\"a\":2}"}, {BAD(JSON), "{\"user_id\":1 \"a\":2}"},
		{BAD(JSON), "{\"user_id\" 1}"}, {BAD(JSON), "{user_id:1}"}, {BAD(JSON), "{'user_id':1}"}, {BAD(JSON), "{1:1}"},
		{BAD(JSON), "{\"user_id\":1} x"}, {BAD(JSON), "{\"user_id\":1}{\"user_id\":1}"}, {BAD(JSON), "{\"user_id\":1},"},
		{BAD(JSON), "{\"user_id\":01}"}, {BAD(JSON), "{\"user_id\":+1}"}, {BAD(JSON), "{\"user_id\":1.}"}, {BAD(JSON), "{\"user_id\":.5}"},
		{BAD(JSON), "{\"user_id\":1e}"}, {BAD(JSON), "{\"user_id\":0x1}"}, {BAD(JSON), "{\"user_id\":-}"}, {BAD(JSON), "{\"user_id\":1a}"},
		{BAD(JSON), "{\"user_id\":1\"a\"}"}, {BAD(JSON), "{\"user_id\":NaN}"}, {BAD(JSON), "{\"user_id\":Infinity}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":tru}"}, {BAD(JSON), "{\"user_id\":1,\"x\":nul}"}, {BAD(JSON), "{\"user_id\":1,\"x\":truee}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":[1,2}"}, {BAD(JSON), "{\"user_id\":1,\"x\":[1 2]}"}, {BAD(JSON), "{\"user_id\":1,\"x\":[1,]}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":{\"y\":01}}"}, {BAD(JSON), "{\"user_id\":1,\"x\":{\"y\"}}"}, {BAD(JSON), "{\"user_id\":1,\"x\":{\"y\":1}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":\"\\q\"}"}, {BAD(JSON), "{\"user_id\":1,\"x\":\"\\u12g4\"}"}, {BAD(JSON), "{\"user_id\":1,\"x\":\"\\ud800\"}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":\"abc}"}, {BAD(JSON), "{\"user_id\":1,\"x\":\"a\tb\"}"}, {BAD(JSON), "{\"user_id\":1,\"\\q\":1}"},
		{BAD(JSON), "{\"user_id\":1,\"x\":{\"\\q\":1}}"}, {BAD(JSON), "{\"user_id\":1,\"x\":\"a\"\"b\"}"}, {BAD(JSON), "{\"user_id\":1,\"x\":\"a\"b}"},
		/* damage wins over every other reason, wherever it is */
		{BAD(JSON), "{\"user_id\":\"7\",\"user_id\":-1,\"x\":tru}"},
		{GOOD, "{\"user_id\":1}"}, {GOOD, " { \"user_id\" : 1 , \"x\" : [ 1 , { } , [ ] , \"\\ud83d\\ude00\" ] } "},
		{GOOD, "{\"user_id\":1,\"x\":1e999,\"y\":-12345678901234567890123}"}, {GOOD, "{\"user\\u005fid\":1}"}, {GOOD, "{\"user_id\":1,\"\":null}"},
		{GOOD, "{\"user_id\":1,\"x\":{\"user_id\":2,\"user_id\":3}}"}, {GOOD, "{\"user_id\":1,\"completion\":7,\"a\":1,\"a\":2}"},
	};

	(void)unused;
	CHECK_TABLE(STREAM_USERS, cases);
}

/* Row 3: bytes that are not text. The bad bytes lie in a string nobody reads. */
static void test_bytes(void **unused)
{
	static const struct {
		int expected;
		const char *line;
		size_t len;
	} cases[] = {
#define BYTES(expected, text) {expected, text, sizeof(text) - 1}
		BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\xff\xfe\"}"),     BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\xc0\x80\"}"),
		BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\xed\xa0\x80\"}"), BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\xf4\x90\x80\x80\"}"),
		BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\xe2\x82\"}"),     BYTES(BAD(JSON), "{\"user_id\":1,\"\x80\":1}"),
		BYTES(GOOD, "{\"user_id\":1,\"x\":\"\xe2\x82\xac\xf0\x9f\x98\x80\"}"),
		/* NUL: in a string, between tokens, in a number, at the end, escaped in a value and in a key */
		BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"a\0b\"}"),         BYTES(BAD(JSON), "{\"user_id\":1,\0\"x\":1}"),
		BYTES(BAD(JSON), "{\"user_id\":1\0}"),                      BYTES(BAD(JSON), "{\"user_id\":1}\0"),
		BYTES(BAD(JSON), "\0{\"user_id\":1}"),                      BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"\\u0000\"}"),
		BYTES(BAD(JSON), "{\"user_id\":1,\"a\\u0000\":1}"),         BYTES(BAD(JSON), "\0\0\0\0"),
		/* byte order mark: one before the object */
		BYTES(GOOD, "\xef\xbb\xbf{\"user_id\":1}"),                 BYTES(BAD(JSON), "\xef\xbb\xbf\xef\xbb\xbf{\"user_id\":1}"),
		BYTES(BAD(JSON), "\xef\xbb\xbf"),                           BYTES(BAD(JSON), "{\"user_id\":1}\xef\xbb\xbf"),
		BYTES(BAD(JSON), "\xef\xbb{\"user_id\":1}"),                BYTES(BAD(JSON), "\xff\xfe{\0\"\0"),
		/* CR is a blank: at the end, and between tokens */
		BYTES(GOOD, "{\"user_id\":1}\r"),                           BYTES(GOOD, "{\"user_id\":1\r,\r\"x\":2}\r\r"),
		BYTES(BAD(JSON), "{\"user_id\":1,\"x\":\"a\rb\"}"),         BYTES(BAD(JSON), "\r"),
#undef BYTES
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int r = decode(STREAM_USERS, cases[i].line, cases[i].len);

		if (r != cases[i].expected)
			fail_msg("case %zu: %s, expected %s: %s", i, result_name(r), result_name(cases[i].expected), cases[i].line);
	}
	assert_true(decode_is_empty("", 0) && decode_is_empty("\r", 1) && decode_is_empty(" \t\r", 3));
	assert_false(decode_is_empty("\0", 1) || decode_is_empty(" x ", 3));
}

/* Row 4. */
#define WATCH(rest) "{\"user_id\":1,\"item_id\":2,\"started_at\":\"" T "\"" rest "}"
#define SHOWN(rest) "{\"user_id\":1,\"item_id\":2,\"shown_at\":\"" T "\",\"surface\":\"home\",\"request_id\":\"r\"" rest "}"
#define CLICK(rest) "{\"user_id\":1,\"item_id\":2,\"occurred_at\":\"" T "\",\"request_id\":\"r\"" rest "}"

static void test_watch_rules(void **unused)
{
	static const struct line_case cases[] = {
		{GOOD, WATCH(",\"completion\":0")}, {GOOD, WATCH(",\"completion\":1")}, {GOOD, WATCH(",\"completion\":1.0")},
		{GOOD, WATCH(",\"completion\":-0.0")}, {GOOD, WATCH(",\"completion\":1e-400")}, {GOOD, WATCH(",\"watch_time_sec\":0")},
		{GOOD, WATCH(",\"watch_time_sec\":12.5,\"completion\":null")}, {GOOD, WATCH(",\"completion\":0.5,\"watch_time_sec\":null")},
		{GOOD, WATCH(",\"completion\":0.5,\"watch_id\":7,\"ended_at\":null,\"device_type\":null")},
		{BAD(MISSING_KEY), WATCH("")}, {BAD(MISSING_KEY), WATCH(",\"completion\":null")}, {BAD(MISSING_KEY), "{}"},
		{BAD(MISSING_KEY), "{\"user_id\":1,\"started_at\":\"" T "\",\"completion\":1}"},
		{BAD(MISSING_KEY), "{\"item_id\":1,\"started_at\":\"" T "\",\"completion\":1}"},
		{BAD(MISSING_KEY), "{\"user_id\":1,\"item_id\":1,\"shown_at\":\"" T "\",\"completion\":1}"},
		{BAD(BAD_COMPLETION), WATCH(",\"completion\":1.0000001")}, {BAD(BAD_COMPLETION), WATCH(",\"completion\":-0.1")},
		{BAD(BAD_COMPLETION), WATCH(",\"completion\":2")}, {BAD(BAD_COMPLETION), WATCH(",\"completion\":-1")},
		{BAD(BAD_COMPLETION), WATCH(",\"completion\":1e400")}, {BAD(BAD_COMPLETION), WATCH(",\"completion\":123456789012345678901234567890")},
		{BAD(WRONG_TYPE), WATCH(",\"completion\":\"0.5\"")}, {BAD(WRONG_TYPE), WATCH(",\"completion\":true")},
		{BAD(WRONG_TYPE), WATCH(",\"completion\":[1]")}, {BAD(JSON), WATCH(",\"completion\":NaN")}, {BAD(JSON), WATCH(",\"completion\":.5")},
		{BAD(BAD_NUMBER), WATCH(",\"watch_time_sec\":-1")}, {BAD(BAD_NUMBER), WATCH(",\"watch_time_sec\":1e10")},
		{BAD(BAD_NUMBER), WATCH(",\"watch_time_sec\":1e999,\"completion\":1")}, {BAD(WRONG_TYPE), WATCH(",\"watch_time_sec\":\"9\"")},
		{BAD(DUPLICATE_KEY), WATCH(",\"completion\":0.5,\"completion\":0.5")}, {BAD(DUPLICATE_KEY), WATCH(",\"completion\":1,\"user_id\":1")},
		{BAD(DUPLICATE_KEY), WATCH(",\"completion\":1,\"user\\u005fid\":1")}, {BAD(DUPLICATE_KEY), WATCH(",\"session_id\":\"a\",\"session_id\":\"b\"")},
		{BAD(WRONG_TYPE), WATCH(",\"completion\":1,\"session_id\":7")}, {BAD(WRONG_TYPE), WATCH(",\"completion\":1,\"watch_id\":1.5")},
		{GOOD, WATCH(",\"completion\":1,\"type\":\"a\",\"type\":\"b\"")}, /* keys of another stream are unknown here */
	};

	(void)unused;
	CHECK_TABLE(STREAM_WATCHES, cases);
}

static void test_other_rules(void **unused)
{
	static const struct line_case impressions[] = {
		{GOOD, SHOWN(",\"position\":0")}, {GOOD, SHOWN(",\"position\":2147483647,\"impression_id\":null")},
		{BAD(MISSING_KEY), SHOWN("")}, {BAD(BAD_NUMBER), SHOWN(",\"position\":-1")}, {BAD(BAD_NUMBER), SHOWN(",\"position\":2147483648")},
		{BAD(BAD_NUMBER), SHOWN(",\"position\":1.5")}, {BAD(BAD_NUMBER), SHOWN(",\"position\":99999999999999999999")},
		{BAD(WRONG_TYPE), SHOWN(",\"position\":\"1\"")}, {BAD(WRONG_TYPE), SHOWN(",\"position\":null")},
		{BAD(BAD_ID), SHOWN(",\"position\":1,\"impression_id\":1.5")}, {BAD(DUPLICATE_KEY), SHOWN(",\"position\":1,\"surface\":\"x\"")},
		{BAD(MISSING_KEY), "{\"user_id\":1,\"item_id\":2,\"shown_at\":\"" T "\",\"surface\":\"a\",\"position\":1}"},
		{BAD(WRONG_TYPE), "{\"user_id\":1,\"item_id\":2,\"shown_at\":\"" T "\",\"surface\":5,\"position\":1,\"request_id\":\"r\"}"},
		{BAD(WRONG_TYPE), "{\"user_id\":1,\"item_id\":2,\"shown_at\":\"" T "\",\"surface\":\"a\",\"position\":1,\"request_id\":5}"},
		{BAD(WRONG_TYPE), "{\"user_id\":1,\"item_id\":2,\"shown_at\":1765368001,\"surface\":\"a\",\"position\":1,\"request_id\":\"r\"}"},
		{BAD(BAD_TIME), "{\"user_id\":1,\"item_id\":2,\"shown_at\":\"today\",\"surface\":\"a\",\"position\":1,\"request_id\":\"r\"}"},
	};
	static const struct line_case events[] = {
		{GOOD, CLICK(",\"type\":\"click\"")}, {GOOD, CLICK(",\"type\":\"\"")}, {GOOD, CLICK(",\"type\":\"rate\",\"value\":5")},
		{BAD(MISSING_KEY), CLICK("")}, {BAD(WRONG_TYPE), CLICK(",\"type\":1")}, {BAD(WRONG_TYPE), CLICK(",\"type\":null")},
		{BAD(WRONG_TYPE), CLICK(",\"type\":\"rate\",\"value\":\"5\"")}, {BAD(BAD_NUMBER), CLICK(",\"type\":\"rate\",\"value\":-5")},
		{BAD(BAD_NUMBER), CLICK(",\"type\":\"rate\",\"value\":1e999")}, {BAD(WRONG_TYPE), CLICK(",\"type\":\"click\",\"event_id\":7")},
	};
	static const struct line_case catalogue[] = {
		{GOOD, "{\"item_id\":1}"}, {GOOD, "{\"item_id\":1,\"genres\":null,\"release_year\":null}"}, {BAD(MISSING_KEY), "{\"title\":\"x\"}"},
		{BAD(WRONG_TYPE), "{\"item_id\":1,\"title\":7}"}, {BAD(WRONG_TYPE), "{\"item_id\":1,\"genres\":\"drama\"}"},
		{BAD(WRONG_TYPE), "{\"item_id\":1,\"genres\":[\"drama\",7]}"}, {BAD(WRONG_TYPE), "{\"item_id\":1,\"tags\":[null]}"},
		{BAD(BAD_NUMBER), "{\"item_id\":1,\"release_year\":10000}"}, {BAD(BAD_NUMBER), "{\"item_id\":1,\"release_year\":1999.5}"},
		{BAD(BAD_NUMBER), "{\"item_id\":1,\"duration_sec\":-1}"}, {BAD(WRONG_TYPE), "{\"item_id\":1,\"duration_sec\":\"1\"}"},
	};
	static const struct line_case users[] = {
		{GOOD, "{\"user_id\":1,\"genre_pref\":{}}"}, {BAD(WRONG_TYPE), "{\"user_id\":1,\"genre_pref\":[]}"},
		{BAD(WRONG_TYPE), "{\"user_id\":1,\"genre_pref\":{\"a\":\"b\"}}"}, {BAD(WRONG_TYPE), "{\"user_id\":1,\"country\":1}"},
	};

	(void)unused;
	CHECK_TABLE(STREAM_IMPRESSIONS, impressions);
	CHECK_TABLE(STREAM_EVENTS, events);
	CHECK_TABLE(STREAM_CATALOGUE, catalogue);
	CHECK_TABLE(STREAM_USERS, users);
}

static char *nested(size_t depth, size_t *ret_len)
{
	char *line = malloc(2 * depth + 40);
	size_t at;

	assert_non_null(line);
	at = (size_t)sprintf(line, "{\"user_id\":1,\"x\":");
	memset(line + at, '[', depth);
	memset(line + at + depth, ']', depth);
	line[at + 2 * depth] = '}';
	*ret_len = at + 2 * depth + 1;
	return line;
}

/* Row 2: nesting and size. */
static void test_bombs(void **unused)
{
	struct rusage before, after;
	size_t len;
	char *line = nested(31, &len);

	(void)unused;
	assert_int_equal(decode(STREAM_USERS, line, len), GOOD); /* 32 levels with the object itself */
	free(line);
	line = nested(32, &len);
	assert_int_equal(decode(STREAM_USERS, line, len), BAD(TOO_DEEP));
	free(line);
	line = nested(500000, &len);
	assert_int_equal(decode(STREAM_USERS, line, len), BAD(TOO_DEEP));
	memset(line, '[', 900000);
	assert_int_equal(decode(STREAM_USERS, line, 900000), BAD(JSON));
	free(line);

	len = 64u << 20;
	line = malloc(len);
	assert_non_null(line);
	memset(line, ' ', len);
	memcpy(line, "{\"user_id\":1,\"x\":\"", 18);
	getrusage(RUSAGE_SELF, &before);
	event_batch_clear(batch);
	assert_int_equal(decode_line(decoder, STREAM_USERS, line, len, 0, batch), BAD(TOO_LONG));
	getrusage(RUSAGE_SELF, &after);
	assert_true(after.ru_maxrss - before.ru_maxrss < 4096); /* KiB */
	line[limits.line_bytes_max - 2] = '"';
	line[limits.line_bytes_max - 1] = '}';
	/* exactly the limit: the document alone fills a batch's text */
	assert_int_equal(decode_line(decoder, STREAM_USERS, line, limits.line_bytes_max, 0, batch), GOOD);
	assert_int_equal(decode_line(decoder, STREAM_USERS, line, limits.line_bytes_max, 0, batch), -ENOSPC);
	assert_int_equal(decode_line(decoder, STREAM_USERS, line, (size_t)limits.line_bytes_max + 1, 0, batch), BAD(TOO_LONG));
	/* a title that doubles the line: it would fit no batch, ever */
	memcpy(line, "{\"item_id\":1,\"title\":\"", 22);
	event_batch_clear(batch);
	assert_int_equal(decode_line(decoder, STREAM_CATALOGUE, line, limits.line_bytes_max, 0, batch), BAD(TOO_LONG));
	assert_int_equal(batch->text_len, 0);
	free(line);
}

static void test_full_batch(void **unused)
{
	static const char line[] = SHOWN(",\"position\":1");
	uint32_t text_len;

	(void)unused;
	event_batch_clear(batch);
	for (uint32_t i = 0; i < EVENT_BATCH_EVENTS; i++)
		assert_int_equal(decode_line(decoder, STREAM_IMPRESSIONS, line, sizeof(line) - 1, 0, batch), 0);
	text_len = batch->text_len;
	assert_int_equal(decode_line(decoder, STREAM_IMPRESSIONS, line, sizeof(line) - 1, 0, batch), -ENOSPC);
	assert_int_equal(batch->n_events, EVENT_BATCH_EVENTS);
	assert_int_equal(batch->text_len, text_len);
	for (uint32_t i = 0; i < EVENT_BATCH_REFUSED; i++)
		assert_int_equal(event_batch_add_refused(batch, REFUSED_JSON, i, "x", 1), 0);
	assert_int_equal(event_batch_add_refused(batch, REFUSED_JSON, 0, "x", 1), -ENOSPC);
	event_batch_clear(batch);
	assert_int_equal(decode_line(decoder, STREAM_IMPRESSIONS, line, sizeof(line) - 1, 0, batch), 0);
}

static void test_refused_text_is_capped(void **unused)
{
	char *line = malloc(10000);

	(void)unused;
	assert_non_null(line);
	memset(line, 'x', 10000);
	event_batch_clear(batch);
	assert_int_equal(event_batch_add_refused(batch, REFUSED_JSON, 77, line, 10000), 0);
	assert_int_equal(batch->refused[0].line_len_shown, REFUSED_TEXT_MAX);
	assert_int_equal(batch->refused[0].text.len, REFUSED_TEXT_MAX);
	assert_int_equal(batch->refused[0].offset, 77);
	assert_int_equal(batch->refused[0].reason, REFUSED_JSON);
	free(line);
}

/* Row 8: the line ends where the readable memory ends; every length, so that every alignment is met. */
static void test_protected_page(void **unused)
{
	static const char line[] = WATCH(",\"completion\":0.5,\"session_id\":\"a\\nb\",\"x\":[1,{\"k\\t\":\"v\"}],\"watch_time_sec\":123456789");
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = sizeof(line) - 1;
	char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)unused;
	assert_true(memory != MAP_FAILED);
	assert_int_equal(mprotect(memory + page, page, PROT_NONE), 0);
	for (size_t cut = 0; cut <= len; cut++) {
		char *end = memory + page - cut;

		event_batch_clear(batch);
		memcpy(end, line, cut);
		assert_int_equal(decode_line(decoder, STREAM_WATCHES, end, cut, 0, batch), cut == len ? GOOD : BAD(JSON));
	}
	/* padded: exactly DECODE_PADDING bytes may be read */
	for (size_t cut = 0; cut <= len; cut++) {
		char *end = memory + page - cut - DECODE_PADDING;

		event_batch_clear(batch);
		memset(end + cut, '"', DECODE_PADDING);
		memcpy(end, line, cut);
		assert_int_equal(decode_line(decoder, STREAM_WATCHES, end, cut, 1, batch), cut == len ? GOOD : BAD(JSON));
	}
	munmap(memory, 2 * page);
}

/* The order of keys may change from line to line: the guess from the line before must never be believed wrongly. */
static void test_key_order(void **unused)
{
	static const char *const parts[5] = {"\"user_id\":11", "\"item_id\":22", "\"started_at\":\"" T "\"", "\"completion\":0.25", "\"user_ix\":\"no\""};
	int order[5] = {0, 1, 2, 3, 4}, count[5] = {0}, i = 0;

	(void)unused;
	for (;;) { /* Heap's algorithm, all 120 orders */
		char line[300];
		size_t len = (size_t)snprintf(line, sizeof(line), "{%s,%s,%s,%s,%s}", parts[order[0]], parts[order[1]], parts[order[2]],
		                              parts[order[3]], parts[order[4]]);

		assert_int_equal(decode(STREAM_WATCHES, line, len), 0);
		assert_int_equal(batch->events[0].user_id, 11);
		assert_int_equal(batch->events[0].item_id, 22);
		assert_true(batch->events[0].completion >= 0.25f && batch->events[0].completion <= 0.25f);
		while (i < 5 && count[i] >= i)
			count[i++] = 0;
		if (i == 5)
			break;
		int k = i % 2 ? count[i] : 0, swap = order[k];
		order[k] = order[i];
		order[i] = swap;
		count[i]++;
		i = 0;
	}
}

static void test_names(void **unused)
{
	(void)unused;
	assert_string_equal(event_stream_name(STREAM_WATCHES), "watch_stats");
	for (int s = 0; s < STREAM_COUNT; s++)
		assert_string_not_equal(event_stream_name((enum event_stream)s), "unknown");
	for (int r = 0; r < REFUSAL_COUNT; r++) {
		assert_string_not_equal(refusal_name((enum refusal)r), "unknown");
		for (int q = 0; q < r; q++)
			assert_string_not_equal(refusal_name((enum refusal)r), refusal_name((enum refusal)q));
	}
}

/* Brackets that are not closed: the reason is the same whatever lies behind the line. */
static void test_open_brackets(void **state)
{
	static const char line[] = " { \"completion\" : 1e-1 , \"started_at\" :[[[[[[[[[[[[[[[[ \"2025-12-10t12:01:00-0330\" , \"item_id\" : 7 , \"user_id\" : 8 } \r";
	const struct decode_limits tight = {.line_bytes_max = 4096, .depth_max = 16};
	struct decoder *reader = decoder_new(&tight);
	struct event_batch *events = event_batch_new();
	char padded[sizeof(line) + DECODE_PADDING];
	int first;

	(void)state;
	assert_non_null(reader);
	assert_non_null(events);
	first = decode_line(reader, STREAM_WATCHES, line, sizeof(line) - 1, 0, events);
	assert_true(first > 0);
	memcpy(padded, line, sizeof(line) - 1);
	for (int c = 0; c < 256; c++) {
		memset(padded + sizeof(line) - 1, c, DECODE_PADDING);
		assert_int_equal(decode_line(reader, STREAM_WATCHES, padded, sizeof(line) - 1, 1, events), first);
	}
	event_batch_free(events);
	decoder_free(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields_of_an_impression), cmocka_unit_test(test_fields_of_an_event),
		cmocka_unit_test(test_fields_of_a_watch),       cmocka_unit_test(test_fields_of_the_catalogue),
		cmocka_unit_test(test_malformed),               cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_watch_rules),             cmocka_unit_test(test_other_rules),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_full_batch),              cmocka_unit_test(test_refused_text_is_capped),
		cmocka_unit_test(test_protected_page),          cmocka_unit_test(test_key_order),
		cmocka_unit_test(test_open_brackets),           cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
