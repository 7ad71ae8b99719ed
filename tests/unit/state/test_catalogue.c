/*
 * test_catalogue.c: the last line of an item, and the duration read from a line again after a restart.
 */
#include <locale.h>

#include "tests/unit/state/state_testing.h"
#include "trainer/state/internal.h"

static void test_last_line_wins(void **unused)
{
	struct state *state = new_state();
	char buf[8];

	(void)unused;
	apply_one(state, watch_event(1, 4, 1, 0.5f, 1.f));
	assert_int_equal(state_catalogue_doc(state, 0, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	apply_catalogue_line(state, 5, 10, "{\"a\":1}");
	apply_catalogue_line(state, 5, 20, "{\"b\":22}");
	assert_int_equal(state_catalogue_doc(state, 1, buf, sizeof(buf)), 8);
	assert_string_equal(buf, "{\"b\":22"); /* cut to size, closed */
	assert_int_equal(state_catalogue_doc(state, 1, NULL, 0), 8);
	assert_int_equal(state_catalogue_doc(state, 2, buf, sizeof(buf)), 0);
	assert_true(state_item_duration_sec(state, 1) == 20.f);
	assert_int_equal(state_counters(state).catalogue_entries, 1);
	assert_int_equal(state_counters(state).events_applied[STREAM_CATALOGUE], 2);
	state_free(state);
}

/* Lines come and go: memory of replaced ones is given back. */
static void test_replaced_lines_are_freed(void **unused)
{
	struct state *state = new_state();
	size_t before;

	(void)unused;
	apply_catalogue_line(state, 5, 10, "{\"a\":100}");
	before = state_memory_bytes(state);
	for (int i = 101; i < 200; i++) {
		char doc[32];
		snprintf(doc, sizeof(doc), "{\"a\":%d}", i);
		apply_catalogue_line(state, 5, 10, doc);
	}
	assert_int_equal(state_memory_bytes(state), before);
	state_free(state);
}

static void test_numbers_of_a_line(void **unused)
{
	const struct {
		const char *doc;
		double value; /* -1: none */
	} cases[] = {
		{"{\"duration_sec\":6780}", 6780},
		{"  {  \"duration_sec\" :\t 6780.5 , \"a\":1}\r", 6780.5},
		{"{\"item_id\":2891,\"title\":\"M\",\"release_year\":2012,\"duration_sec\":1.5e3,\"genres\":[\"x\"]}", 1500},
		{"{\"title\":\"duration_sec\",\"duration_sec\":7}", 7},
		{"{\"title\":\"\\\"duration_sec\\\":9,\",\"duration_sec\":7}", 7},
		{"{\"x\":{\"duration_sec\":9},\"duration_sec\":7}", 7},
		{"{\"x\":[{\"duration_sec\":9},\"]}\",{}],\"duration_sec\":7}", 7},
		{"{\"x\":null,\"y\":true,\"z\":-1.5,\"duration_sec\":7}", 7},
		{"{\"duration\\u005fsec\":7}", 7},
		{"{\"\\u0064uration_sec\":7}", 7},
		{"{\"duration_sec2\":9,\"duration_se\":8,\"duration_sec\":7}", 7},
		{"{\"\\u1234uration_sec\":9}", -1},
		{"{\"duration_sec\":null}", -1},
		{"{\"duration_sec\":\"7\"}", -1},
		{"{\"x\":{\"duration_sec\":9}}", -1},
		{"{}", -1},
		{"", -1},
		{"[1]", -1},
		{"{\"duration_sec", -1},
		{"{\"duration_sec\"", -1},
		{"{\"duration_sec\":", -1},
		{"{\"duration_sec\":-", -1},
		{"{\"x\":[[[", -1},
		{"{\"x\":\"\\", -1},
		{"{\"x\":\"\\u00", -1},
	};
	locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	(void)unused;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = strlen(cases[i].doc);
		char *tight = malloc(len ? len : 1); /* no byte after the text: a sanitizer sees a read past it */
		double value = -1;
		memcpy(tight, cases[i].doc, len);
		int r = json_top_number(c_locale, tight, len, "duration_sec", &value);
		if (value != cases[i].value || r != (value < 0 ? -ENOENT : 0))
			fail_msg("%s: %g (%d)", cases[i].doc, value, r);
		free(tight);
	}
	freelocale(c_locale);
}

/* No line, whole or cut anywhere, may be read past its end. */
static void test_every_cut_of_a_line(void **unused)
{
	const char doc[] = "{\"a\\u0041\":[{\"b\":\"c\\\\\"},1.5e+3],\"duration_sec\":12.25,\"z\":{}}";
	locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	(void)unused;
	for (size_t len = 0; len < sizeof(doc); len++) {
		char *tight = malloc(len ? len : 1);
		double value = -1;
		memcpy(tight, doc, len);
		if (json_top_number(c_locale, tight, len, "duration_sec", &value) == 0)
			assert_true(value == 1 || value == 12 || value == 12.2 || value == 12.25);
		free(tight);
	}
	freelocale(c_locale);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_line_wins),
		cmocka_unit_test(test_replaced_lines_are_freed),
		cmocka_unit_test(test_numbers_of_a_line),
		cmocka_unit_test(test_every_cut_of_a_line),
	};
	return cmocka_run_group_tests_name("catalogue", tests, NULL, NULL);
}
