/* test_user_list.c: the list against a plain array, over a long random run of every operation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/user_list.h"

#define USERS 50

static size_t find(const uint32_t *order, size_t n, uint32_t user)
{
	for (size_t i = 0; i < n; i++)
		if (order[i] == user)
			return i;
	return n;
}

static size_t take_out(uint32_t *order, size_t n, uint32_t user)
{
	const size_t at = find(order, n, user);

	if (at == n)
		return n;
	memmove(order + at, order + at + 1, (n - at - 1) * sizeof(*order));
	return n - 1;
}

static void same_as_an_array(void **state)
{
	struct user_list list = { 0 };
	uint32_t order[USERS + 1], random = 1;
	size_t n = 0;

	(void)state;
	assert_int_equal(user_list_reserve(&list, USERS), 0);
	for (int step = 0; step < 20000; step++) {
		random = random * 1664525u + 1013904223u;
		const uint32_t user = (random >> 8) % USERS, what = (random >> 24) % 4;

		if (what == 0) {
			n = take_out(order, n, user);
			memmove(order + 1, order, n * sizeof(*order));
			order[0] = user;
			n++;
			user_list_put_first(&list, user);
		} else if (what == 1) {
			n = take_out(order, n, user);
			order[n++] = user;
			user_list_put_last(&list, user);
		} else if (what == 2) {
			n = take_out(order, n, user);
			user_list_take_out(&list, user);
		} else if (n > 0) {
			assert_int_equal(user_list_first(&list), order[0]);
			user_list_take_out(&list, order[0]);
			n = take_out(order, n, order[0]);
		}
		assert_int_equal(list.n, n);
		assert_int_equal(user_list_first(&list), n == 0 ? UINT32_MAX : order[0]);
		assert_int_equal(user_list_has(&list, user), find(order, n, user) < n);
	}
	/* the whole order, front to back */
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(user_list_first(&list), order[i]);
		user_list_take_out(&list, order[i]);
	}
	assert_int_equal(list.n, 0);
	user_list_free(&list);
}

static void growing_keeps_the_order(void **state)
{
	struct user_list list = { 0 };

	(void)state;
	assert_int_equal(user_list_reserve(&list, 3), 0);
	user_list_put_last(&list, 2);
	user_list_put_last(&list, 0);
	assert_int_equal(user_list_reserve(&list, 100000), 0);
	user_list_put_first(&list, 99999);
	assert_int_equal(user_list_has(&list, 50000), 0);
	assert_int_equal(user_list_first(&list), 99999);
	user_list_take_out(&list, 99999);
	assert_int_equal(user_list_first(&list), 2);
	user_list_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_an_array), cmocka_unit_test(growing_keeps_the_order) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
