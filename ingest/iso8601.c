/*
 * iso8601.c: "2025-12-10T12:00:01.5+03:00" to UTC microseconds and back.
 *
 * The parser reads fixed positions and keeps the last date it saw (per thread): logs come in time order, so the calendar is worked out once
 * a day of log and not once a line. Accepted: a `T`, `t` or blank between date and time; a fraction after `.` or `,` of any length (digits past the
 * microsecond are cut off); `Z`, `z`, +hh, +hhmm or +hh:mm. An offset is required. A second of 60 (leap second) counts as the next second.
 * Calendar arithmetic: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil and civil_from_days.
 */
#include "ingest/decode.h"

#include <errno.h>
#include <string.h>

#define US_PER_SECOND INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_SECOND)
#define TIME_US_MAX (INT64_C(253402300800) * US_PER_SECOND - 1) /* 9999-12-31T23:59:59.999999Z */

static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
	int64_t y = year - (month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	unsigned year_of_era = (unsigned)(y - era * 400);
	unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + (int64_t)day_of_era - 719468;
}

/* Two digits to *ret; returns 0 when both are digits. */
static inline unsigned two_digits(const char *text, unsigned *ret)
{
	unsigned tens = (unsigned)(unsigned char)text[0] - '0';
	unsigned ones = (unsigned)(unsigned char)text[1] - '0';

	*ret = tens * 10 + ones;
	return (unsigned)(tens > 9) | (unsigned)(ones > 9);
}

/* "YYYY-MM-DD" to microseconds of its midnight, UTC. */
static int date_parse(const char *text, int64_t *ret_midnight_us)
{
	static const unsigned char month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	unsigned century, year, month, day, days;

	if (two_digits(text, &century) | two_digits(text + 2, &year) | two_digits(text + 5, &month) | two_digits(text + 8, &day))
		return -EINVAL;
	year += century * 100;
	if (text[4] != '-' || text[7] != '-' || month < 1 || month > 12 || day < 1)
		return -EINVAL;
	days = month_days[month - 1];
	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		days = 29;
	if (day > days)
		return -EINVAL;
	*ret_midnight_us = days_from_civil((int64_t)year, month, day) * US_PER_DAY;
	return 0;
}

/* The offset part ("Z", "+03", "+0300", "-03:30") of `len` characters to microseconds. */
static int offset_parse(const char *text, size_t len, int64_t *ret_offset_us)
{
	unsigned hours, minutes = 0;
	int64_t offset;

	if (len == 1 && (text[0] | 0x20) == 'z') {
		*ret_offset_us = 0;
		return 0;
	}
	if (len < 3 || (text[0] != '+' && text[0] != '-') || two_digits(text + 1, &hours))
		return -EINVAL;
	if (len == 6) {
		if (text[3] != ':' || two_digits(text + 4, &minutes))
			return -EINVAL;
	} else if (len == 5) {
		if (two_digits(text + 3, &minutes))
			return -EINVAL;
	} else if (len != 3) {
		return -EINVAL;
	}
	if (hours > 23 || minutes > 59)
		return -EINVAL;
	offset = (int64_t)(hours * 3600 + minutes * 60) * US_PER_SECOND;
	*ret_offset_us = text[0] == '-' ? -offset : offset;
	return 0;
}

/* A fraction at text[0] ('.' or ',') to microseconds; returns its length in characters, 0 when it has no digits. */
static size_t fraction_parse(const char *text, size_t len, int64_t *ret_us)
{
	int64_t us = 0, unit = US_PER_SECOND / 10;
	size_t i = 1;

	for (; i < len && (unsigned char)(text[i] - '0') <= 9; i++) {
		us += (text[i] - '0') * unit;
		unit /= 10;
	}
	*ret_us = us;
	return i > 1 ? i : 0;
}

int iso8601_parse(const char *text, size_t len, int64_t *ret_time_us)
{
	static _Thread_local struct {
		char date[10];
		int64_t midnight_us;
	} last = {"1970-01-01", 0};
	unsigned hour, minute, second;
	int64_t fraction_us = 0, offset_us = 0, time_us;
	size_t at = 19;

	if (len < 20)
		return -EINVAL;
	if (memcmp(text, last.date, sizeof(last.date)) != 0) {
		int64_t midnight_us;

		if (date_parse(text, &midnight_us) < 0)
			return -EINVAL;
		memcpy(last.date, text, sizeof(last.date));
		last.midnight_us = midnight_us;
	}
	if (two_digits(text + 11, &hour) | two_digits(text + 14, &minute) | two_digits(text + 17, &second))
		return -EINVAL;
	if ((text[10] != 'T' && text[10] != 't' && text[10] != ' ') || text[13] != ':' || text[16] != ':')
		return -EINVAL;
	if (hour > 23 || minute > 59 || second > 60)
		return -EINVAL;
	if (text[at] == '.' || text[at] == ',') {
		size_t used = fraction_parse(text + at, len - at, &fraction_us);

		if (used == 0)
			return -EINVAL;
		at += used;
	}
	if (offset_parse(text + at, len - at, &offset_us) < 0)
		return -EINVAL;
	time_us = last.midnight_us + (int64_t)(hour * 3600 + minute * 60 + second) * US_PER_SECOND + fraction_us - offset_us;
	if (time_us < 0 || time_us > TIME_US_MAX)
		return -EINVAL;
	*ret_time_us = time_us;
	return 0;
}

/* Writes `value` in decimal, at least `width` digits, at out; returns the end. */
static char *put_digits(char *out, uint64_t value, int width)
{
	char digits[20];
	int n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	for (int i = n; i < width; i++)
		*out++ = '0';
	while (n > 0)
		*out++ = digits[--n];
	return out;
}

size_t iso8601_format(int64_t time_us, char *out)
{
	int64_t days = time_us / US_PER_DAY, rest = time_us % US_PER_DAY, era, year;
	unsigned day_of_era, year_of_era, day_of_year, shifted_month, month, day;
	char *p = out;

	if (rest < 0) {
		rest += US_PER_DAY;
		days--;
	}
	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	day_of_era = (unsigned)(days - era * 146097);
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	shifted_month = (5 * day_of_year + 2) / 153;
	day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
	month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
	year = (int64_t)year_of_era + era * 400 + (month <= 2);

	if (year < 0)
		*p++ = '-';
	p = put_digits(p, (uint64_t)(year < 0 ? -year : year), 4);
	*p++ = '-';
	p = put_digits(p, month, 2);
	*p++ = '-';
	p = put_digits(p, day, 2);
	*p++ = 'T';
	p = put_digits(p, (uint64_t)(rest / (3600 * US_PER_SECOND)), 2);
	*p++ = ':';
	p = put_digits(p, (uint64_t)(rest / (60 * US_PER_SECOND) % 60), 2);
	*p++ = ':';
	p = put_digits(p, (uint64_t)(rest / US_PER_SECOND % 60), 2);
	if (rest % US_PER_SECOND != 0) {
		*p++ = '.';
		p = put_digits(p, (uint64_t)(rest % US_PER_SECOND), 6);
	}
	memcpy(p, "+00:00", 7);
	return (size_t)(p - out) + 6;
}
