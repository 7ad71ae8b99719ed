/* test_dead_letter.c: what is written can be read back; size limit, truncation to a cut, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/source.h"

static char dir[] = "/tmp/recd-dead-XXXXXX";
static char path[64];
static struct event_batch *batch;

static int start(void **unused)
{
	(void)unused;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/dead-letter.jsonl", dir);
	batch = event_batch_new();
	return batch ? 0 : -1;
}

static int stop(void **unused)
{
	(void)unused;
	event_batch_free(batch);
	unlink(path);
	return rmdir(dir);
}

static struct dead_letter *open_it(int64_t length, uint64_t size_max)
{
	struct dead_letter *dead_letter = NULL;
	char errstr[256] = "";

	if (dead_letter_open(path, length, size_max, &dead_letter, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	return dead_letter;
}

static void refuse(enum refusal reason, int64_t offset, const char *text, size_t len)
{
	assert_int_equal(event_batch_add_refused(batch, reason, offset, text, len), 0);
}

/* Reads the file's records; each must be JSON. */
static json_t *read_back(void)
{
	json_t *list = json_array();
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	assert_non_null(file);
	while ((len = getline(&line, &size, file)) > 0) {
		json_error_t error;
		json_t *record = json_loadb(line, (size_t)len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);

		if (!record)
			fail_msg("%s: %s", error.text, line);
		json_array_append_new(list, record);
	}
	free(line);
	fclose(file);
	return list;
}

static const char *text_of(const json_t *list, size_t i, const char *key)
{
	return json_string_value(json_object_get(json_array_get(list, i), key));
}

static void test_records(void **unused)
{
	static const char odd[] = "a\"b\\c\x01\x7f\t\0 \xe2\x82\xac";
	struct dead_letter *dead_letter;
	char longest[5000];
	json_t *list;

	(void)unused;
	unlink(path);
	dead_letter = open_it(-1, 1u << 20);
	event_batch_clear(batch);
	snprintf(batch->position.name, sizeof(batch->position.name), "file:events:/a \"b\".jsonl");
	refuse(REFUSED_JSON, 17, odd, sizeof(odd) - 1);
	refuse(REFUSED_BAD_ID, INT64_MAX, "\xff\xfe\x01", 3);
	memset(longest, 'x', sizeof(longest));
	memcpy(longest + REFUSED_TEXT_MAX - 2, "\xe2\x82\xac", 3); /* cut within a character */
	refuse(REFUSED_TOO_LONG, 0, longest, sizeof(longest));
	memset(longest, 1, sizeof(longest)); /* the longest record there can be */
	refuse(REFUSED_DUPLICATE_KEY, 0, longest, sizeof(longest));
	refuse(REFUSED_JSON, 1, "", 0);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	assert_int_equal(dead_letter_sync(dead_letter), 0);
	list = read_back();
	assert_int_equal(json_array_size(list), 5);
	assert_string_equal(text_of(list, 0, "reason"), "json");
	assert_string_equal(text_of(list, 0, "source"), "file:events:/a \"b\".jsonl");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "offset")), 17);
	assert_int_equal(json_string_length(json_object_get(json_array_get(list, 0), "line")), sizeof(odd) - 1);
	assert_memory_equal(text_of(list, 0, "line"), odd, sizeof(odd) - 1);
	assert_string_equal(text_of(list, 1, "line_base64"), "//4B");
	assert_int_equal(strlen(text_of(list, 2, "line")), REFUSED_TEXT_MAX - 2);
	assert_true(json_is_true(json_object_get(json_array_get(list, 2), "capped")));
	assert_int_equal(strlen(text_of(list, 3, "line")), REFUSED_TEXT_MAX);
	assert_string_equal(text_of(list, 4, "line"), "");
	json_decref(list);
	dead_letter_close(dead_letter);
}

static void test_full_batches_and_size_limit(void **unused)
{
	struct dead_letter *dead_letter;
	struct stat st;
	json_t *list;

	(void)unused;
	unlink(path);
	dead_letter = open_it(-1, 50000);
	for (int k = 0; k < 4; k++) {
		event_batch_clear(batch);
		for (unsigned i = 0; i < EVENT_BATCH_REFUSED; i++)
			refuse(REFUSED_JSON, i, "bad line", 8);
		assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size <= 50000);
	assert_int_equal(dead_letter_length(dead_letter), st.st_size);
	list = read_back();
	assert_true(json_array_size(list) > 100);
	assert_int_equal(json_array_size(list) + dead_letter_dropped(dead_letter), 4 * EVENT_BATCH_REFUSED);
	json_decref(list);
	dead_letter_close(dead_letter);
}

static void test_length_of_a_cut(void **unused)
{
	struct dead_letter *dead_letter;
	int64_t length;
	FILE *file;
	json_t *list;

	(void)unused;
	unlink(path);
	dead_letter = open_it(-1, 1u << 20);
	event_batch_clear(batch);
	refuse(REFUSED_JSON, 1, "one", 3);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	length = dead_letter_length(dead_letter);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	assert_int_equal(dead_letter_length(dead_letter), 2 * length);
	dead_letter_close(dead_letter);

	dead_letter = open_it(length, 1u << 20); /* back to the cut */
	assert_int_equal(dead_letter_length(dead_letter), length);
	dead_letter_close(dead_letter);
	file = fopen(path, "ae");
	assert_non_null(file);
	fputs("{\"reason\":\"torn", file);
	fclose(file);
	dead_letter = open_it(100000, 1u << 20); /* shorter than the cut says: what is there is kept, and is closed with a newline */
	event_batch_clear(batch);
	refuse(REFUSED_JSON, 2, "two", 3);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	dead_letter_close(dead_letter);
	dead_letter = open_it(length, 1u << 20);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	dead_letter_close(dead_letter);
	list = read_back();
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(text_of(list, 0, "line"), "one");
	assert_string_equal(text_of(list, 1, "line"), "two");
	json_decref(list);
	dead_letter_close(NULL);
}

/* The file may grow no further (RLIMIT_FSIZE): the batch is taken back whole, and can be given again. */
static void test_short_write(void **unused)
{
	struct rlimit before, small;
	struct dead_letter *dead_letter;
	struct stat st;
	int64_t length;
	int r;

	(void)unused;
	unlink(path);
	signal(SIGXFSZ, SIG_IGN);
	dead_letter = open_it(-1, 1u << 20);
	event_batch_clear(batch);
	for (unsigned i = 0; i < EVENT_BATCH_REFUSED; i++)
		refuse(REFUSED_JSON, i, "bad line", 8);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	length = dead_letter_length(dead_letter);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = (rlim_t)length + 100;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	r = dead_letter_append(dead_letter, batch);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, length);
	assert_int_equal(dead_letter_length(dead_letter), length);
	assert_int_equal(dead_letter_append(dead_letter, batch), 0);
	assert_int_equal(dead_letter_length(dead_letter), 2 * length);
	dead_letter_close(dead_letter);
}

static void test_refuses_links_and_directories(void **unused)
{
	struct dead_letter *dead_letter = NULL;
	char errstr[256] = "";

	(void)unused;
	unlink(path);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(dead_letter_open(path, -1, 1000, &dead_letter, errstr, sizeof(errstr)), -ELOOP);
	assert_non_null(strstr(errstr, path));
	unlink(path);
	assert_int_equal(dead_letter_open(dir, -1, 1000, &dead_letter, errstr, sizeof(errstr)), -EISDIR);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(dead_letter_open(path, -1, 1000, &dead_letter, errstr, sizeof(errstr)), -EMEDIUMTYPE);
	assert_null(dead_letter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),
		cmocka_unit_test(test_full_batches_and_size_limit),
		cmocka_unit_test(test_length_of_a_cut),
		cmocka_unit_test(test_short_write),
		cmocka_unit_test(test_refuses_links_and_directories),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
