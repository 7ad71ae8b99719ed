/*
 * test_progress.c: the progress line: its text, that a pipe sees nothing, that a terminal sees it and that it is removed.
 */
#include "daemon/recctl/progress.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_text(void **state)
{
	char text[160];

	(void)state;
	progress_text("impressions", 84000, 200000, 2000, text, sizeof(text));
	assert_string_equal(text, "impressions   42 %  84,000 of 200,000  42.0 k/s  0:03 left");
	progress_text("triples", 5000000, 1000000000, 1000, text, sizeof(text));
	assert_string_equal(text, "triples    0 %  5,000,000 of 1,000,000,000  5.0 M/s  3:19 left");
	progress_text("lines", 999, 0, 3000, text, sizeof(text));
	assert_string_equal(text, "lines  999  333.0 /s");
	progress_text("rows", 0, 10, 1, text, sizeof(text));
	assert_string_equal(text, "rows    0 %  0 of 10  0.0 /s");
	progress_text("rows", 12, 10, 1000, text, sizeof(text)); /* more than announced */
	assert_non_null(strstr(text, "100 %  10 of 10"));
	progress_text("impressions", 84000, 200000, 2000, text, 8);
	assert_string_equal(text, "impress");
}

/* Begins, updates once after the interval, ends, with standard error at write_end; out: what the other end got. */
static void run_with_stderr(int write_end, int read_end, char *out, size_t size)
{
	int saved = dup(STDERR_FILENO);
	struct progress progress;
	size_t used = 0;

	dup2(write_end, STDERR_FILENO);
	progress_begin(&progress, "rows", 10);
	progress.begin_ms -= 5000;
	progress.drawn_ms -= 5000;
	progress_update(&progress, 5);
	progress.skip = 0;
	progress_update(&progress, 6); /* too soon: not drawn */
	progress_end(&progress);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(write(write_end, "END", 3), 3);
	out[0] = '\0';
	while (!strstr(out, "END")) {
		ssize_t n = read(read_end, out + used, size - 1 - used);

		assert_true(n > 0);
		used += (size_t)n;
		out[used] = '\0';
	}
	*strstr(out, "END") = '\0';
}

static void test_pipe_is_silent(void **state)
{
	char out[512];
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	run_with_stderr(ends[1], ends[0], out, sizeof(out));
	assert_string_equal(out, "");
	close(ends[0]);
	close(ends[1]);
}

static void test_terminal(void **state)
{
	char out[512];
	int controller = posix_openpt(O_RDWR | O_NOCTTY);

	(void)state;
	if (controller < 0 || grantpt(controller) || unlockpt(controller)) {
		print_message("SKIP test_terminal: no pseudo-terminal here\n");
		skip();
	}
	int terminal = open(ptsname(controller), O_RDWR | O_NOCTTY);
	assert_true(terminal >= 0);
	run_with_stderr(terminal, controller, out, sizeof(out));
	assert_non_null(strstr(out, "\r\033[Krows   50 %  5 of 10"));
	assert_null(strstr(out, "6 of 10"));
	assert_string_equal(out + strlen(out) - 4, "\r\033[K");
	close(terminal);
	close(controller);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_pipe_is_silent), cmocka_unit_test(test_terminal) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
