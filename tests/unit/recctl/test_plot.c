/*
 * test_plot.c: the SVG writer: ticks, a whole file, gaps and marks, texts that XML would choke on, failures.
 */
#include "daemon/recctl/plot.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_ticks(double low, double high, double first, double step, int n)
{
	double got_first, got_step;
	int got_n;

	plot_ticks(low, high, &got_first, &got_step, &got_n);
	assert_true(fabs(got_first - first) < 1e-9 * (fabs(first) + step));
	assert_true(fabs(got_step - step) < 1e-9 * step);
	assert_int_equal(got_n, n);
}

static void test_ticks(void **state)
{
	(void)state;
	assert_ticks(0, 10, 0, 2, 6);
	assert_ticks(0.1243, 0.6931, 0, 0.2, 5);
	assert_ticks(0.48, 0.52, 0.48, 0.01, 5);
	assert_ticks(-3, 4, -4, 2, 5);
	assert_ticks(0, 0, -1, 0.5, 5);
	assert_ticks(0.2, 0.2, 0.18, 0.01, 5);
	assert_ticks(1e-9, 9e-9, 0, 2e-9, 6);
	for (int i = 1; i < 2000; i++) { /* whatever the values: covered, and not too many */
		double low = (i * 37 % 101 - 50) * pow(10, i % 13 - 6), high = low + (i * 53 % 97 + 1) * pow(10, i % 7 - 3), first, step;
		int n;

		plot_ticks(low, high, &first, &step, &n);
		assert_true(first <= low + step * 1e-6 && first + step * (n - 1) >= high - step * 1e-6);
		assert_true(n >= 2 && n <= 9);
	}
}

static char *read_all(const char *path)
{
	static char text[1 << 16];
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return text;
}

static int count(const char *text, const char *part)
{
	int n = 0;

	for (; (text = strstr(text, part)); text++)
		n++;
	return n;
}

static void test_file(void **state)
{
	static const double loss[] = { 0.7, 0.5, 0.4, 0.35 }, ndcg[] = { 0.1, NAN, 0.3, 0.2 }, nothing[] = { NAN };
	const struct plot_panel panels[] = {
		{ .title = "loss", .x_label = "epoch", .values = loss, .n = 4 },
		{ .title = "NDCG <&> \"K\"\x1b", .x_label = "epoch", .values = ndcg, .n = 4, .mark = 3, .mark_label = "kept" },
		{ .title = "none", .x_label = "epoch", .values = nothing, .n = 1 },
	};
	char path[] = "/tmp/recd-plot.XXXXXX", error[256] = "", bad[64];
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	assert_int_equal(plot_write(path, "learning curve", panels, 3, error, sizeof(error)), 0);
	const char *text = read_all(path);
	assert_non_null(strstr(text, "<?xml version=\"1.0\""));
	assert_string_equal(text + strlen(text) - 7, "</svg>\n");
	assert_int_equal(count(text, "<polyline"), 3); /* the gap cuts the second curve in two */
	assert_int_equal(count(text, "<circle"), 7);
	assert_int_equal(count(text, "#c0392b"), 2); /* the mark and its label */
	assert_non_null(strstr(text, "NDCG &lt;&amp;&gt; &quot;K&quot;?<"));
	assert_non_null(strstr(text, "nothing measured"));
	assert_null(strstr(text, "nan"));
	assert_int_equal(count(text, "<text"), count(text, "</text>"));
	assert_int_equal(unlink(path), 0);

	snprintf(bad, sizeof(bad), "%s/none/x.svg", path);
	assert_int_equal(plot_write(bad, "x", panels, 1, error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "x.svg: open"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ticks),
		cmocka_unit_test(test_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
