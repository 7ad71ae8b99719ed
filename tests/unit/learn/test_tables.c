/*
 * test_tables.c: growth of parameter copies keeps the content, zeroes what is new, and works across the size where memory becomes mapped.
 */
#include <errno.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/array.h"

static void test_growth_keeps_and_zeroes(void **state)
{
	(void)state;
	struct tables t = {0};
	uint32_t have = 0;
	for (uint32_t n = 1; n < 60000; n = n * 2 + 1) { /* up to 15 MB: well into mapped memory */
		assert_int_equal(tables_reserve(&t, n, n / 2, 64), 0);
		assert_true(t.cap_users >= n && t.cap_items >= n / 2);
		for (uint32_t u = 0; u < have; u++)
			assert_true(t.U[(size_t)u * 64 + u % 64] == (float)(u + 1) && t.acc_user[u] == (float)u);
		for (uint32_t u = have; u < t.cap_users; u++) {
			for (uint32_t k = 0; k < 64; k++)
				assert_true(t.U[(size_t)u * 64 + k] == 0.0f);
			assert_true(t.acc_user[u] == 0.0f && t.bu[u] == 0.0f);
		}
		for (uint32_t u = have; u < n; u++) {
			t.U[(size_t)u * 64 + u % 64] = (float)(u + 1);
			t.acc_user[u] = (float)u;
		}
		have = n;
	}
	uint32_t cap = t.cap_users;
	assert_int_equal(tables_reserve(&t, 10, 10, 64), 0);
	assert_int_equal(t.cap_users, cap);
	assert_int_equal(tables_reserve(&t, have, have, 32), -EINVAL);
	assert_int_equal(tables_reserve(&t, cap + 1, 1, 64), 0);
	assert_true(t.cap_users >= cap + cap / 2);
	tables_free(&t);
	assert_null(t.U);
	assert_int_equal(t.cap_users, 0);
	tables_free(&t);
	tables_free(NULL);
}

static void test_arrays(void **state)
{
	(void)state;
	void *array = NULL;
	assert_int_equal(array_bytes(NULL), 0);
	assert_int_equal(array_grow(&array, 1), 0);
	assert_int_equal((uintptr_t)array % 64, 0);
	assert_true(array_bytes(array) >= 1);
	assert_int_equal(array_grow(&array, SIZE_MAX - 10), -ENOMEM);
	assert_non_null(array);
	assert_int_equal(array_grow(&array, (size_t)5 << 20), 0);
	((char *)array)[((size_t)5 << 20) - 1] = 9;
	assert_int_equal((uintptr_t)array % 64, 0);
	assert_int_equal(array_grow(&array, (size_t)64 << 20), 0);
	assert_int_equal(((char *)array)[((size_t)5 << 20) - 1], 9);
	assert_int_equal(((char *)array)[((size_t)64 << 20) - 1], 0);
	array_free(array);
	array_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growth_keeps_and_zeroes),
		cmocka_unit_test(test_arrays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
