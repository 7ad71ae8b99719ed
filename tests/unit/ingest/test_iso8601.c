/* test_iso8601.c: the time parser against timegm(3), its limits, and what it must refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ingest/decode.h"

static int64_t parse(const char *text)
{
	int64_t time_us = -77;
	int r = iso8601_parse(text, strlen(text), &time_us);

	if (r < 0)
		assert_int_equal(time_us, -77);
	return r < 0 ? r : time_us;
}

static void test_good(void **unused)
{
	static const struct {
		const char *text;
		int64_t time_us;
	} cases[] = {
		{"1970-01-01T00:00:00Z", 0}, {"1970-01-01T00:00:00+00:00", 0}, {"1970-01-01T03:30:00+03:30", 0}, {"1970-01-01T03:30:00+0330", 0},
		{"1970-01-01T03:00:00+03", 0}, {"1970-01-01 00:00:00z", 0}, {"1970-01-01t00:00:00-00:00", 0}, {"1969-12-31T23:00:00-01:00", 0},
		{"1970-01-01T00:00:00.5Z", 500000}, {"1970-01-01T00:00:00,25Z", 250000}, {"1970-01-01T00:00:00.1234569Z", 123456},
		{"1970-01-01T00:00:00.000001234567890123456789+00:00", 1}, {"2025-12-10T12:00:01.5+03:00", INT64_C(1765357201500000)},
		{"2016-12-31T23:59:60Z", INT64_C(1483228800000000)}, {"2000-02-29T00:00:00Z", INT64_C(951782400000000)},
		{"9999-12-31T23:59:59.999999Z", INT64_C(253402300799999999)}, {"2024-02-29T23:59:59-23:59", INT64_C(1709337539000000)},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (parse(cases[i].text) != cases[i].time_us)
			fail_msg("%s: %lld", cases[i].text, (long long)parse(cases[i].text));
}

static void test_bad(void **unused)
{
	static const char *const cases[] = {
		"", "2025-12-10", "2025-12-10T12:00:01", "2025-12-10T12:00:01.5", "2025-12-10T12:00Z", "2025-13-10T12:00:01Z", "2025-00-10T12:00:01Z",
		"2025-12-00T12:00:01Z", "2025-12-32T12:00:01Z", "2025-02-29T12:00:01Z", "1900-02-29T12:00:01Z", "2100-02-29T12:00:01Z",
		"2025-04-31T12:00:01Z", "2025-12-10T24:00:00Z", "2025-12-10T12:60:00Z", "2025-12-10T12:00:61Z", "2025/12/10T12:00:01Z",
		"2025-12-10X12:00:01Z", "2025-12-10T12-00-01Z", "2025-12-10T12:00:01.Z", "2025-12-10T12:00:01Zx", "2025-12-10T12:00:01+",
		"2025-12-10T12:00:01+1", "2025-12-10T12:00:01+01:", "2025-12-10T12:00:01+01:0", "2025-12-10T12:00:01+24:00",
		"2025-12-10T12:00:01+00:60", "2025-12-10T12:00:01+00:00:00", "2025-12-10T12:00:01 +00:00", "20251210T120001Z", " 2025-12-10T12:00:01Z",
		"202x-12-10T12:00:01Z", "2025-12-10T1x:00:01Z", "2025-12-10T12:00:0:Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+00:01",
		"9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z", "-2025-1-10T12:00:01Z", "2025-12-10T12:00:01\0Z",
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* twice: the second time with the date in the cache, if it got there */
		if (parse(cases[i]) != -EINVAL || parse(cases[i]) != -EINVAL)
			fail_msg("accepted: %s", cases[i]);
	}
	assert_int_equal(iso8601_parse("2025-12-10T12:00:01Z", 19, &(int64_t){0}), -EINVAL);
}

/* Every day from 1970 to 2600 and some of each later year, against the C library. Days alternate, so the cache is both hit and missed. */
static void test_calendar(void **unused)
{
	(void)unused;
	for (int64_t day = 0; day < 2932896; day += day < 230000 ? 1 : 97) {
		time_t t = (time_t)(day * 86400 + day * 7919 % 86400);
		struct tm tm;
		char text[64], back[ISO8601_MAX];

		gmtime_r(&t, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S+00:00", &tm);
		if (parse(text) != (int64_t)t * 1000000)
			fail_msg("%s: %lld, not %lld", text, (long long)parse(text), (long long)t * 1000000);
		assert_int_equal(iso8601_format((int64_t)t * 1000000, back), strlen(text));
		assert_string_equal(back, text);
	}
}

static void test_format(void **unused)
{
	static const struct {
		int64_t time_us;
		const char *text;
	} cases[] = {
		{0, "1970-01-01T00:00:00+00:00"}, {1, "1970-01-01T00:00:00.000001+00:00"}, {-1, "1969-12-31T23:59:59.999999+00:00"},
		{INT64_C(1765368001000000), "2025-12-10T12:00:01+00:00"}, {INT64_MAX, "294247-01-10T04:00:54.775807+00:00"},
		{INT64_MIN, "-290308-12-21T19:59:05.224192+00:00"},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[ISO8601_MAX];

		assert_int_equal(iso8601_format(cases[i].time_us, out), strlen(cases[i].text));
		assert_string_equal(out, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_calendar),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
