/* test_gap_histogram.c: percentiles against a sorted list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/gap_histogram.h"

#define N 20000

static int by_value(const void *left, const void *right)
{
	const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

	return a < b ? -1 : a > b;
}

static void close_to_the_sorted_list(void **state)
{
	static int64_t gaps[N];
	struct gap_histogram histogram = { 0 };
	uint64_t random = 1;

	(void)state;
	for (int i = 0; i < N; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		gaps[i] = (int64_t)(1 + ((random >> 33) % 1000) * ((random >> 20) % 300));
		gap_histogram_add(&histogram, gaps[i]);
	}
	qsort(gaps, N, sizeof(gaps[0]), by_value);
	static const double shares[] = { 0.01, 0.25, 0.5, 0.9, 0.99, 0.999 };

	for (size_t s = 0; s < sizeof(shares) / sizeof(shares[0]); s++) {
		const int64_t exact = gaps[(size_t)(shares[s] * N) - 1], got = gap_histogram_percentile(&histogram, shares[s]);

		assert_true(got >= exact && got <= exact + exact / 8 + 1);
	}
	assert_int_equal(gap_histogram_percentile(&histogram, 1.0), gaps[N - 1]);
	assert_int_equal(histogram.max_us, gaps[N - 1]);
}

static void edges(void **state)
{
	struct gap_histogram histogram = { 0 };

	(void)state;
	assert_int_equal(gap_histogram_percentile(&histogram, 0.5), 0);
	gap_histogram_add(&histogram, 0);
	gap_histogram_add(&histogram, INT64_MAX);
	assert_true(gap_histogram_percentile(&histogram, 0.5) <= 2);
	assert_int_equal(gap_histogram_percentile(&histogram, 0.999), INT64_MAX); /* the last bucket has no end */
	struct gap_histogram sum = { 0 };

	gap_histogram_merge(&sum, &histogram);
	gap_histogram_merge(&sum, &histogram);
	assert_int_equal(sum.n, 4);
	assert_int_equal(histogram.n, 2);
	assert_int_equal(histogram.max_us, INT64_MAX);
	memset(&histogram, 0, sizeof(histogram));
	gap_histogram_add(&histogram, 10 * 1000000);
	gap_histogram_add(&histogram, 100 * 1000000);
	assert_true(gap_histogram_percentile(&histogram, 0.5) >= 10 * 1000000);
	assert_true(gap_histogram_percentile(&histogram, 0.5) <= 11500000);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(close_to_the_sorted_list), cmocka_unit_test(edges) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
