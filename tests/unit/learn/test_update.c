/*
 * test_update.c: the Hogwild row kernels of every instruction level that this machine runs, both losses and optimizers, against one triple after the other in
 * double. Weights differ from triple to triple; dims lie around the vector widths. test_gradients.c checks what "by the book" is.
 */
#include "tests/unit/learn/update_fixture.h"

static void test_update_is_the_naive_one(void **state)
{
	static struct rows rows;
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		if (!kernels) {
			printf("SKIP level %d: this machine cannot run it\n", level);
			continue;
		}
		for (size_t i = 0; i < N_DIMS * 8; i++) {
			struct row_update c = make_rows(&rows, dims[i / 8], (int)(i % 2), (int)(i / 2 % 2), (int)(i / 4 % 2));
			struct update_sums sums = {0};
			double loss = 0;
			for (uint32_t n = 0; n < 200; n++) {
				struct draw draw = make_draw(n);
				loss += n % LOSS_EVERY == 0 ? naive_loss(&c, &rows, &draw) : 0;
				naive_update(&c, &rows, &draw);
				kernels->update(&c, &draw, 1, NULL, 0, &sums);
			}
			compare_rows(&c, &rows);
			assert_int_equal(sums.triples, 200);
			assert_int_equal(sums.nonfinite, 0);
			assert_near(sums.loss, loss);
			for (uint32_t u = 0; u < USERS; u++)
				assert_int_equal(c.users[u].stamp, 77);
		}
	}
}

/*
 * A list is the same as its triples one after the other, wherever it is cut: windows end where rows meet, triples without a negative are passed
 * over, and what is asked for ahead changes nothing. With 5 users and 9 items nearly every window is cut.
 */
static void test_lists_are_their_triples(void **state)
{
	static struct rows rows;
	static struct draw draws[240];
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		for (size_t i = 0; kernels && i < N_DIMS * 8; i++) {
			struct row_update c = make_rows(&rows, dims[i / 8], (int)(i % 2), (int)(i / 2 % 2), (int)(i / 4 % 2));
			struct update_sums sums = {0};
			uint32_t none = 0;
			for (uint32_t n = 0; n < 240; n++) {
				draws[n] = make_draw(n);
				if (world_random(n, 26) % 7 == 0) {
					draws[n].neg = SAMPLE_NONE;
					none++;
				} else {
					naive_update(&c, &rows, &draws[n]);
				}
			}
			for (uint32_t at = 0, size = 1; at < 240; size = size % 41 + 3) {
				uint32_t n = 240 - at < size ? 240 - at : size;
				kernels->update(&c, draws + at, n, draws + at + n, 240 - at - n, &sums);
				at += n;
			}
			compare_rows(&c, &rows);
			assert_int_equal(sums.triples, 240 - none);
			assert_int_equal(sums.rejected, none);
			assert_int_equal(sums.nonfinite, 0);
		}
	}
}

/* Windows that are full: no row occurs twice in eight triples. */
static void test_full_windows(void **state)
{
	enum { ROWS = 16, DIM = 33, STRIDE = 48 };
	static _Alignas(64) float U[ROWS * STRIDE], V[2 * ROWS * STRIDE], one_U[ROWS * STRIDE], one_V[2 * ROWS * STRIDE];
	struct user_side users[ROWS] = {0}, one_users[ROWS] = {0};
	struct item_side items[2 * ROWS] = {0}, one_items[2 * ROWS] = {0};
	(void)state;
	for (int n = 0; n < 24; n++) {
		const int loss_level = n / 4, adagrad = n % 2, far = n / 2 % 2;
		const struct row_kernels *kernels = row_kernels_at(loss_level / 2);
		if (!kernels)
			continue;
		struct draw draws[ROWS];
		memset(users, 0, sizeof users);
		memset(items, 0, sizeof items);
		memset(one_users, 0, sizeof users);
		memset(one_items, 0, sizeof items);
		for (uint32_t k = 0; k < 2 * ROWS * STRIDE; k++)
			V[k] = one_V[k] = k % STRIDE < DIM ? philox_centred(world_random(k, 27)) : 0.0f;
		for (uint32_t k = 0; k < ROWS * STRIDE; k++)
			U[k] = one_U[k] = k % STRIDE < DIM ? philox_centred(world_random(k, 28)) : 0.0f;
		for (uint32_t t = 0; t < ROWS; t++)
			draws[t] = (struct draw){.user = (t * 5) % ROWS, .pos = (t * 7) % (2 * ROWS), .neg = (t * 7 + 16 * 7) % (2 * ROWS),
			                         .weight = t % 2 ? 1.0f : 0.5f};
		if (!far) /* one lane that must be left out */
			U[draws[3].user * STRIDE + 5] = one_U[draws[3].user * STRIDE + 5] = INFINITY;
		struct row_update c = {.U = U, .V = V, .users = users, .items = items, .dim = DIM, .stride = STRIDE, .epoch = 3, .adagrad = adagrad,
		                       .loss = loss_level % 2,
		                       .rate = 0.05f, .reg_user = 0.01f, .reg_pos = 0.02f, .reg_neg = 0.03f, .norm_max = far ? 1e3f : 0.05f,
		                       .per_user = 1.0f / (float)DIM, .per_item = 1.0f / (float)(DIM + 1)};
		struct row_update one = c;
		one.U = one_U;
		one.V = one_V;
		one.users = one_users;
		one.items = one_items;
		struct update_sums sums = {0}, one_sums = {0};
		kernels->update(&c, draws, ROWS, NULL, 0, &sums);
		for (uint32_t t = 0; t < ROWS; t++)
			kernels->update(&one, &draws[t], 1, NULL, 0, &one_sums);
		assert_memory_equal(U, one_U, sizeof U);
		assert_memory_equal(V, one_V, sizeof V);
		assert_memory_equal(users, one_users, sizeof users);
		assert_memory_equal(items, one_items, sizeof items);
		assert_int_equal(sums.triples, far ? ROWS : ROWS - 1);
		assert_int_equal(sums.rejected, !far);
		assert_int_equal(sums.nonfinite, !far);
		assert_true(sums.loss == one_sums.loss && sums.loss_n == one_sums.loss_n);
	}
}

static void test_update_leaves_out_what_it_must(void **state)
{
	static struct rows rows, before;
	(void)state;
	for (int n = 0; n < 24 && row_kernels_at(n / 8); n++) {
		int loss_level = n / 4, way = n % 4;
		struct row_update c = make_rows(&rows, 33, (int)(way % 2), loss_level % 2, (int)(way / 2));
		struct update_sums sums = {0};
		struct draw none = {.user = 1, .pos = 2, .neg = SAMPLE_NONE};
		before = rows;
		row_kernels_at(loss_level / 2)->update(&c, &none, 1, NULL, 0, &sums);
		assert_memory_equal(&before, &rows, sizeof rows);
		assert_int_equal(sums.rejected, 1);
		assert_int_equal(sums.triples, 0);
		/* a poisoned row is reported and does not spread */
		rows.U[1 * c.stride + 32] = NAN;
		before = rows;
		struct draw poisoned = {.user = 1, .pos = 2, .neg = 3, .weight = 1.0f};
		row_kernels_at(loss_level / 2)->update(&c, &poisoned, 1, NULL, 0, &sums);
		assert_memory_equal(&before, &rows, sizeof rows);
		assert_int_equal(sums.nonfinite, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_update_is_the_naive_one),
		cmocka_unit_test(test_lists_are_their_triples),
		cmocka_unit_test(test_full_windows),
		cmocka_unit_test(test_update_leaves_out_what_it_must),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
