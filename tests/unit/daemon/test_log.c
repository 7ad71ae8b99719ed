/*
 * test_log.c: log lines through a pipe put in stderr's place: format, what is escaped, the limit of each call site, and a reader that does not read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"

static int saved_stderr;
static int reader;
static char output[1 << 20];

/* Puts a pipe in stderr's place; read_output() has the text and puts stderr back. */
static void capture(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
	close(ends[1]);
	reader = ends[0];
}

static size_t drain(char *to, size_t size)
{
	size_t n = 0;
	ssize_t got;

	fcntl(reader, F_SETFL, O_NONBLOCK);
	while ((got = read(reader, to + n, size - 1 - n)) > 0)
		n += (size_t)got;
	to[n] = 0;
	return n;
}

static const char *read_output(void)
{
	drain(output, sizeof(output));
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(reader);
	return output;
}

static size_t count(const char *text, const char *part)
{
	size_t n = 0;

	for (; (text = strstr(text, part)); text++)
		n++;
	return n;
}

static void test_plain(void **state)
{
	char when[32];
	char rest[256];

	(void)state;
	log_setup("info", "plain");
	capture();
	log_warn("one %d", 1);
	log_debug("not wanted");
	assert_int_equal(sscanf(read_output(), "%31s %255[^\n]", when, rest), 2);
	assert_string_equal(rest, "warn  one 1");
	assert_int_equal(strlen(when), strlen("2025-12-10T12:00:01.123Z"));
	assert_int_equal(count(output, "\n"), 1);
}

static void test_levels(void **state)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		log_setup(names[i], NULL);
		capture();
		log_error("line");
		log_warn("line");
		log_info("line");
		log_debug("line");
		assert_int_equal(count(read_output(), "line"), i + 1);
	}
	log_setup("nonsense", "nonsense"); /* leaves things as they are */
	assert_true(log_wants(LOG_LEVEL_DEBUG));
	log_setup("info", NULL);
}

/* In the journal: the level as a prefix, no time; only when stderr really is that stream. */
static void test_journal(void **state)
{
	struct stat st;
	char stream[64];

	(void)state;
	capture();
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_error("e");
	log_info("i");
	assert_string_equal(read_output(), "<3>e\n<6>i\n");

	setenv("JOURNAL_STREAM", "1:1", 1);
	capture();
	log_error("e");
	assert_null(strstr(read_output(), "<3>"));
	unsetenv("JOURNAL_STREAM");
}

static void test_json(void **state)
{
	char message[3000];
	json_t *line;

	(void)state;
	log_setup("info", "json");
	capture();
	log_error("quote \" backslash \\ newline \n tab \t \x01 end");
	line = json_loads(read_output(), 0, NULL);
	assert_non_null(line);
	assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
	assert_string_equal(json_string_value(json_object_get(line, "message")), "quote \" backslash \\ newline \n tab \t \x01 end");
	assert_int_equal(strlen(json_string_value(json_object_get(line, "time"))), strlen("2025-12-10T12:00:01.123Z"));
	json_decref(line);

	/* Too long, not UTF-8, and worst to escape: still one line of JSON. */
	memset(message, 1, sizeof(message));
	memcpy(message, "\xff\xc0\x80 \xc3\xa9 \xed\xa0\x80 \xe2\x82", 14);
	message[sizeof(message) - 1] = 0;
	capture();
	log_error("%s", message);
	line = json_loads(read_output(), 0, NULL);
	assert_non_null(line);
	assert_memory_equal(json_string_value(json_object_get(line, "message")), "??? \xc3\xa9 ??? ??", 13);
	json_decref(line);
	log_setup("info", "plain");
}

static void test_control_characters(void **state)
{
	(void)state;
	capture();
	log_info("a\n2025 error forged\r\x1b[31m\x7f");
	assert_non_null(strstr(read_output(), "info  a\\x0a2025 error forged\\x0d\\x1b[31m\\x7f\n"));
	assert_int_equal(count(output, "\n"), 1);
}

static void test_limit(void **state)
{
	struct log_site site = {0};
	struct log_site other = {0};

	(void)state;
	capture();
	for (int i = 0; i < 20; i++)
		log_write(&site, LOG_LEVEL_INFO, "again");
	log_write(&other, LOG_LEVEL_INFO, "elsewhere"); /* its own limit */
	site.window_start_ms -= LOG_WINDOW_SEC * 1000;   /* the window has passed */
	log_write(&site, LOG_LEVEL_INFO, "again");
	log_write(&site, LOG_LEVEL_INFO, "again");
	read_output();
	assert_int_equal(count(output, "again"), LOG_BURST + 2);
	assert_int_equal(count(output, "elsewhere"), 1);
	assert_int_equal(count(output, "(and 15 like this)"), 1);
}

/* Nobody reads: lines are lost and counted, the writer goes on (a hang would end this test by alarm). Then somebody reads again. */
static void test_reader_stuck(void **state)
{
	uint64_t before = log_lost();
	struct log_site site;
	char text[1024];
	uint64_t lost;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	alarm(60);
	capture();
	for (int i = 0; i < 2000; i++) { /* 2 MB into 64 KiB */
		site = (struct log_site){0};
		log_write(&site, LOG_LEVEL_INFO, "%s", text);
	}
	lost = log_lost() - before;
	assert_in_range(lost, 1800, 1999);
	drain(output, sizeof(output));
	assert_int_equal(count(output, "\n"), 2000 - lost);
	site = (struct log_site){0};
	log_write(&site, LOG_LEVEL_INFO, "after");
	read_output();
	alarm(0);
	snprintf(text, sizeof(text), "%llu log lines were lost", (unsigned long long)lost);
	assert_non_null(strstr(output, text));
	assert_non_null(strstr(output, "after"));
}

/* A pipe without a reader: no SIGPIPE, which would end the test. */
static void test_reader_gone(void **state)
{
	uint64_t before = log_lost();

	(void)state;
	capture();
	close(reader);
	log_error("nobody");
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	assert_int_equal(log_lost(), before + 1);
}

static void *write_many(void *ctx)
{
	char text[200];

	memset(text, *(char *)ctx, sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	for (int i = 0; i < 50; i++) {
		struct log_site site = {0};

		errno = 7;
		log_write(&site, LOG_LEVEL_INFO, "[%s]", text);
		if (errno != 7)
			return "errno changed";
	}
	return NULL;
}

static void test_threads(void **state)
{
	static char letters[] = "abcd";
	pthread_t threads[4];
	void *fault;
	int lines = 0;

	(void)state;
	capture();
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &letters[i]), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &fault), 0);
		assert_null(fault);
	}
	read_output();
	for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n")) {
		const char *open = strchr(line, '[');

		if (strstr(line, "log lines were lost")) /* of the test before */
			continue;
		assert_non_null(open);
		lines++;
		assert_int_equal(strspn(open + 1, (char[]){open[1], 0}), 199); /* one letter: lines never mix */
		assert_string_equal(open + 200, "]");
	}
	assert_int_equal(lines, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),         cmocka_unit_test(test_levels),       cmocka_unit_test(test_journal),
		cmocka_unit_test(test_json),          cmocka_unit_test(test_control_characters), cmocka_unit_test(test_limit),
		cmocka_unit_test(test_reader_stuck),  cmocka_unit_test(test_reader_gone),  cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
