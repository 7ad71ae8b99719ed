/* test_decode_ids.c: how ids are written: row 5 of the failure list (input data). */
#include "tests/unit/ingest/decode_testing.h"

/* Row 5. */
static void test_ids(void **unused)
{
	static const struct {
		int expected;
		const char *id;
		int64_t value;
	} cases[] = {
		{GOOD, "0", 0}, {GOOD, "1", 1}, {GOOD, "9007199254740991", 9007199254740991}, {GOOD, "9007199254740992", 9007199254740992},
		{GOOD, "9007199254740993", 9007199254740993}, {GOOD, "999999999999999999", 999999999999999999},
		{GOOD, "1000000000000000000", 1000000000000000000}, {GOOD, "9223372036854775806", INT64_MAX - 1},
		{GOOD, "9223372036854775807", INT64_MAX}, {BAD(BAD_ID), "9223372036854775808", 0}, {BAD(BAD_ID), "18446744073709551615", 0},
		{BAD(BAD_ID), "18446744073709551616", 0}, {BAD(BAD_ID), "99999999999999999999", 0}, {BAD(BAD_ID), "100000000000000000000000000", 0},
		{BAD(BAD_ID), "-1", 0}, {BAD(BAD_ID), "-0", 0}, {BAD(BAD_ID), "-9223372036854775808", 0}, {BAD(BAD_ID), "-9223372036854775809", 0},
		{BAD(BAD_ID), "1.0", 0}, {BAD(BAD_ID), "1e3", 0}, {BAD(BAD_ID), "1E0", 0}, {BAD(BAD_ID), "0.5", 0}, {BAD(BAD_ID), "1e400", 0},
		{BAD(BAD_ID), "\"7\"", 0}, {BAD(BAD_ID), "\"\"", 0}, {BAD(WRONG_TYPE), "null", 0}, {BAD(WRONG_TYPE), "true", 0},
		{BAD(WRONG_TYPE), "[7]", 0}, {BAD(WRONG_TYPE), "{}", 0}, {BAD(JSON), "007", 0}, {BAD(JSON), "1.", 0}, {BAD(JSON), "0x10", 0},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int blank = 0; blank < 2; blank++) {
			char line[300];
			int len, r;

			len = snprintf(line, sizeof(line), "{\"user_id\":%s%s,\"item_id\":5,\"started_at\":\"" T "\",\"completion\":1}", cases[i].id,
			               blank ? " \t " : "");
			r = decode(STREAM_WATCHES, line, (size_t)len);
			if (r != cases[i].expected || (r == 0 && batch->events[0].user_id != cases[i].value))
				fail_msg("%s (user %lld), expected %s: %s", result_name(r), (long long)batch->events[0].user_id,
				         result_name(cases[i].expected), line);
			len = snprintf(line, sizeof(line), "{\"user_id\":5,\"item_id\":%s%s}", cases[i].id, blank ? " " : "");
			r = decode(STREAM_CATALOGUE, line, (size_t)len);
			if (r != cases[i].expected || (r == 0 && batch->events[0].item_id != cases[i].value))
				fail_msg("%s, expected %s: %s", result_name(r), result_name(cases[i].expected), line);
		}
	}
}

/* Short ids are read eight digits at once: every length, and each place with a byte that is none. */
static void test_digits(void **unused)
{
	static const char others[] = "/:;.eE+-xABp 0\x10\xb0";
	uint64_t random = 88172645463325252u;

	(void)unused;
	for (int i = 0; i < 20000; i++) {
		const size_t n = 1 + (size_t)i % 18;
		char digits[20] = "", line[120];
		int64_t expected = 0;

		for (size_t d = 0; d < n; d++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			digits[d] = (char)('0' + (d == 0 ? 1 + random % 9 : random % 10));
			expected = expected * 10 + (digits[d] - '0');
		}
		int len = snprintf(line, sizeof(line), "{\"user_id\":%s,\"item_id\":2,\"started_at\":\"" T "\",\"completion\":1}", digits);
		if (decode(STREAM_WATCHES, line, (size_t)len) != GOOD || batch->events[0].user_id != expected)
			fail_msg("read as %lld: %s", (long long)batch->events[0].user_id, line);
		const size_t place = 11 + random / 64 % n;
		const char other = others[random / 4096 % (sizeof(others) - 1)];
		line[place] = other;
		int r = decode(STREAM_WATCHES, line, (size_t)len);
		if (other == '0' && (place > 11 || n == 1) ? r != GOOD : r == GOOD && other != ' ')
			fail_msg("%s with '%c' in place %zu: %s", result_name(r), other, place - 11, line);
		if (other == ' ' && n > 2 && place > 11 && place < 10 + n && r == GOOD)
			fail_msg("a blank inside a number was taken: %s", line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ids), cmocka_unit_test(test_digits)};

	return cmocka_run_group_tests(tests, start, stop);
}
