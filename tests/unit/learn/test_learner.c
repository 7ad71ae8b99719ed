/*
 * test_learner.c: the learner over the CPU backend: it learns; rows are initialised by external id; copies hold what changed; poison and divergence are
 * found and undone; rows, positives and candidates join in mid-training; budgets and progress.
 */
#include <errno.h>
#include <math.h>
#include <time.h>

#include "tests/unit/learn/learn_fixture.h"

#define USERS 90u
#define ITEMS 120u

static double score(const struct tables *t, uint32_t u, uint32_t i)
{
	double s = (double)t->bi[i];
	for (uint32_t k = 0; k < t->dim; k++)
		s += (double)t->U[(size_t)u * t->dim + k] * (double)t->V[(size_t)i * t->dim + k];
	return s;
}

/* Share of (own third, other third) item pairs in the right order, over all users, items that are positives left out. */
static double order_share(const struct learner *learner, const struct tables *t)
{
	uint32_t right = 0, all = 0;
	for (uint32_t u = 0; u < USERS; u++)
		for (uint32_t n = 0; n < 50; n++) {
			uint32_t own = (u % 3) * (ITEMS / 3) + world_random(u * 50 + n, 40) % (ITEMS / 3);
			uint32_t other = ((u + 1 + n % 2) % 3) * (ITEMS / 3) + world_random(u * 50 + n, 41) % (ITEMS / 3);
			if (learner_is_positive(learner, u, own))
				continue;
			right += score(t, u, own) > score(t, u, other);
			all++;
		}
	return (double)right / all;
}

static void test_learns_what_generalises(void **state)
{
	(void)state;
	for (int optimizer = OPTIMIZER_SGD; optimizer <= OPTIMIZER_ADAGRAD; optimizer++) {
		for (int mode = 0; mode < 3; mode++) { /* fast on one thread, fast on two, deterministic */
			struct learn_options options = world_options(16);
			options.optimizer = optimizer;
			options.threads = mode == 0 ? 1 : 2;
			options.deterministic = mode == 2;
			struct learner *learner = world_learner(&options, USERS, ITEMS);
			struct tables t = {0};
			world_fill(learner, USERS, ITEMS, 12);
			struct train_report first = world_train(learner, 640, 0.05f);
			struct train_report last = {0};
			for (int i = 0; i < 50; i++)
				last = world_train(learner, 4000, 0.05f);
			assert_int_equal(last.triples, 4000);
			assert_true(last.loss < first.loss * 0.8);
			assert_int_equal(learner_pull(learner, &t), 0);
			assert_true(order_share(learner, &t) > 0.95);
			tables_free(&t);
			learner_free(learner);
		}
	}
}

static void test_nothing_to_train_on(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	struct learner *learner = world_learner(&options, 4, 4);
	struct train_report report = world_train(learner, 1000, 0.05f);
	assert_int_equal(report.triples, 0);
	assert_true(isnan(report.loss));
	uint32_t items[] = {0, 1, 2, 3};
	assert_int_equal(learner_add_candidates(learner, items, 4), 0);
	assert_int_equal(world_train(learner, 1000, 0.05f).triples, 0);
	/* one user, who has every candidate: every draw is given up, and the job ends */
	for (uint32_t i = 0; i < 4; i++) {
		struct user_item pair = {2, i};
		assert_int_equal(learner_add_positives(learner, &pair, 1, 1), 0);
	}
	report = world_train(learner, 1000, 0.05f);
	assert_int_equal(report.triples, 0);
	assert_int_equal(report.rejected, 1000);
	learner_free(learner);
}

/* Rows depend on (seed, external id) alone: two learners that met the ids in opposite order, and in other portions. */
static void test_rows_start_by_external_id(void **state)
{
	(void)state;
	enum { N = 40 };
	static int64_t backwards_users[N], backwards_items[N];
	struct learn_options options = world_options(33);
	struct tables a = {0}, b = {0}, c = {0};
	struct learner *one = world_learner(&options, N, N), *two = world_learner(&options, 0, 0);
	for (uint32_t i = 0; i < N; i++) {
		backwards_users[i] = world_user_ids[N - 1 - i];
		backwards_items[i] = world_item_ids[N - 1 - i];
	}
	for (uint32_t n = 1; n <= N; n += 13)
		assert_int_equal(learner_grow(two, n, n / 2, backwards_users, backwards_items), 0);
	assert_int_equal(learner_grow(two, N, N, backwards_users, backwards_items), 0);
	assert_int_equal(learner_pull(one, &a), 0);
	assert_int_equal(learner_pull(two, &b), 0);
	float limit = 0.5f * options.init_scale / 33, largest = 0;
	double sum = 0;
	for (uint32_t i = 0; i < N; i++) {
		assert_memory_equal(a.U + i * 33, b.U + (N - 1 - i) * 33, 33 * sizeof(float));
		assert_memory_equal(a.V + i * 33, b.V + (N - 1 - i) * 33, 33 * sizeof(float));
		assert_true(memcmp(a.U + i * 33, a.V + i * 33, 33 * sizeof(float)) != 0);
		assert_true(a.bi[i] == 0.0f && a.bu[i] == 0.0f && a.acc_user[i] == 0.0f && a.acc_item[i] == 0.0f);
	}
	for (uint32_t k = 0; k < N * 33; k++) {
		largest = fmaxf(largest, fabsf(a.U[k]));
		sum += (double)a.U[k];
	}
	assert_true(largest <= limit && largest > 0.95f * limit);
	assert_true(fabs(sum / (N * 33)) < 0.1 * (double)limit);
	options.seed++;
	struct learner *three = world_learner(&options, N, 0);
	assert_int_equal(learner_grow(three, N, N, world_user_ids, world_user_ids), 0);
	assert_int_equal(learner_pull(three, &c), 0);
	assert_true(memcmp(a.U, c.U, N * 33 * sizeof(float)) != 0);
	assert_true(memcmp(c.U, c.V, N * 33 * sizeof(float)) != 0); /* a user and an item of the same id */
	learner_free(one);
	learner_free(two);
	learner_free(three);
	tables_free(&a);
	tables_free(&b);
	tables_free(&c);
}

/* Two copies pulled by turns hold the same as a fresh one, though only changed rows are copied. */
static void test_copies_hold_what_changed(void **state)
{
	(void)state;
	struct learn_options options = world_options(24);
	options.threads = 2;
	options.deterministic = 1;
	struct learner *learner = world_learner(&options, USERS, ITEMS);
	struct tables by_turns[2] = {{0}, {0}};
	world_fill(learner, USERS, ITEMS, 6);
	for (uint32_t round = 0; round < 9; round++) {
		struct tables *copy = &by_turns[(round / 2) % 2], fresh = {0};
		world_train(learner, 40, 0.05f); /* few enough that some users have not moved */
		if (round == 5)
			assert_int_equal(learner_grow(learner, USERS + 20, ITEMS + 20, world_user_ids, world_item_ids), 0);
		assert_int_equal(learner_pull(learner, copy), 0);
		assert_int_equal(learner_pull(learner, &fresh), 0);
		assert_true(same_tables(copy, &fresh));
		tables_free(&fresh);
	}
	/* an unchanged row is not copied again: a mark in the copy survives */
	struct tables *copy = &by_turns[0];
	assert_int_equal(learner_pull(learner, copy), 0);
	copy->U[(USERS + 19) * 24] = 123.0f; /* that user has no positives */
	copy->bu[0] = 5.0f;
	world_train(learner, 640, 0.05f);
	assert_int_equal(learner_pull(learner, copy), 0);
	assert_true(copy->U[(USERS + 19) * 24] == 123.0f);
	assert_true(copy->bu[0] == 5.0f);
	tables_free(&by_turns[0]);
	tables_free(&by_turns[1]);
	learner_free(learner);
}

static void test_push_restores(void **state)
{
	(void)state;
	struct learn_options options = world_options(31);
	options.deterministic = 1;
	options.threads = 2;
	struct learner *learner = world_learner(&options, USERS, ITEMS);
	struct tables good = {0}, later = {0}, back = {0};
	world_fill(learner, USERS, ITEMS, 6);
	world_train(learner, 2000, 0.05f);
	assert_int_equal(learner_pull(learner, &good), 0);
	struct learner_progress progress = learner_get_progress(learner);
	world_train(learner, 640, 0.05f);
	assert_int_equal(learner_pull(learner, &later), 0);
	assert_false(same_tables(&good, &later));
	/* back to the copy and forward again over the same draws: the same parameters */
	assert_int_equal(learner_push(learner, &good), 0);
	assert_int_equal(learner_pull(learner, &back), 0);
	assert_true(same_tables(&good, &back));
	learner_set_progress(learner, &progress);
	world_train(learner, 640, 0.05f);
	assert_int_equal(learner_pull(learner, &back), 0);
	assert_true(same_tables(&later, &back));
	assert_int_equal(learner_get_progress(learner).rollbacks, 0);
	/* rows beyond the copy's start anew; another size is refused */
	assert_int_equal(learner_grow(learner, USERS + 1, ITEMS + 1, world_user_ids, world_item_ids), 0);
	struct tables start = {0};
	assert_int_equal(learner_pull(learner, &start), 0);
	struct user_item pair = {USERS, ITEMS};
	assert_int_equal(learner_add_positives(learner, &pair, 1, 1), 0);
	world_train(learner, 2000, 0.05f);
	assert_int_equal(learner_push(learner, &good), 0);
	assert_int_equal(learner_pull(learner, &back), 0);
	assert_memory_equal(back.U + (size_t)USERS * 31, start.U + (size_t)USERS * 31, 31 * sizeof(float));
	assert_memory_equal(back.V + (size_t)ITEMS * 31, start.V + (size_t)ITEMS * 31, 31 * sizeof(float));
	assert_true(back.acc_user[USERS] == 0.0f);
	struct tables other = {0};
	assert_int_equal(tables_reserve(&other, 4, 4, 32), 0);
	assert_int_equal(learner_push(learner, &other), -EINVAL);
	assert_int_equal(learner_pull(learner, &other), -EINVAL);
	tables_free(&other);
	tables_free(&good);
	tables_free(&later);
	tables_free(&back);
	tables_free(&start);
	learner_free(learner);
}

/* One poisoned factor in V, U or a bias: found by training or by the pull, undone by a push, and training goes on. */
static void test_poison_is_found_and_undone(void **state)
{
	(void)state;
	for (int where = 0; where < 5; where++) {
		for (int deterministic = 0; deterministic < 2; deterministic++) {
			struct learn_options options = world_options(16);
			options.deterministic = deterministic;
			struct learner *learner = world_learner(&options, USERS, ITEMS);
			struct tables good = {0}, bad = {0};
			world_fill(learner, USERS, ITEMS, 6);
			world_train(learner, 2000, 0.05f);
			assert_int_equal(learner_pull(learner, &good), 0);
			assert_int_equal(learner_pull(learner, &bad), 0);
			float *target[] = {&bad.V[7 * 16 + 3], &bad.U[5 * 16], &bad.bi[9], &bad.acc_user[3], &bad.acc_item[4]};
			float old = *target[where];
			*target[where] = where % 2 ? INFINITY : NAN;
			assert_int_equal(learner_push(learner, &bad), -ERANGE);
			*target[where] = old;
			struct train_report report = world_train(learner, 5000, 0.05f);
			if (where < 3)
				assert_int_equal(report.nonfinite, 1);
			if (where != 1) { /* once the report alone must do */
				assert_int_equal(learner_pull(learner, &bad), -ERANGE);
				assert_int_equal(learner_pull(learner, &bad), -ERANGE);
			}
			assert_int_equal(learner_push(learner, &good), 0);
			assert_int_equal(learner_get_progress(learner).rollbacks, 1);
			report = world_train(learner, 5000, 0.05f);
			assert_int_equal(report.nonfinite, 0);
			assert_int_equal(report.triples, 5000);
			assert_int_equal(learner_pull(learner, &bad), 0);
			tables_free(&good);
			tables_free(&bad);
			learner_free(learner);
		}
	}
}

static void test_divergence_shows(void **state)
{
	(void)state;
	for (int optimizer = OPTIMIZER_SGD; optimizer <= OPTIMIZER_ADAGRAD; optimizer++) {
		struct learn_options options = world_options(16);
		options.optimizer = optimizer;
		options.threads = 2;
		struct learner *learner = world_learner(&options, USERS, ITEMS);
		world_fill(learner, USERS, ITEMS, 6);
		double healthy = world_train(learner, 20000, 0.05f).loss;
		assert_true(healthy < 0.7);
		struct train_report report = world_train(learner, 20000, 1e6f);
		assert_true(report.nonfinite || report.loss > 2.0); /* a model that knows nothing has ln 2 */
		learner_free(learner);
	}
}

/* A fast job goes in parts, by as many threads or fewer: together they make as many draws as the job has. */
static void test_parts_make_the_job(void **state)
{
	(void)state;
	for (uint32_t threads = 1; threads <= 3; threads++) {
		struct learn_options options = world_options(16);
		options.threads = threads;
		struct learner *learner = world_learner(&options, USERS, ITEMS);
		world_fill(learner, USERS, ITEMS, 6);
		const uint64_t n_positives = learner_n_positives(learner);
		uint64_t drawn = 0;
		for (uint64_t triples = 1; triples < 2000000; triples = triples * 7 + 3) {
			struct train_report report = world_train(learner, triples, 0.01f);
			drawn += triples;
			assert_int_equal(report.triples + report.rejected, triples);
			assert_in_range(report.threads, 1, threads);
			assert_int_equal(learner_get_progress(learner).passes, drawn / n_positives);
		}
		for (int slice = 0; slice < 8; slice++) { /* long enough for a trial */
			struct train_job job = {.triples_max = UINT64_MAX, .budget_us = 20000, .learning_rate = 0.01f};
			struct train_report report;
			assert_int_equal(learner_train(learner, &job, &report), 0);
			assert_true(report.triples > 0);
			drawn += report.triples + report.rejected;
			assert_int_equal(learner_get_progress(learner).passes, drawn / n_positives);
		}
		learner_free(learner);
	}
}

/* The Adagrad sums lose their share at the end of each pass, and only then. */
static void test_adagrad_forgets_by_pass(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	options.batch_size = 10;
	struct tables kept = {0}, forgot = {0};
	for (int forget = 0; forget < 2; forget++) {
		options.adagrad_forget = forget ? 0.5f : 0.0f;
		struct learner *learner = world_learner(&options, USERS, ITEMS);
		for (uint32_t i = 0; i < 100; i++) {
			struct user_item pair = {i % 10, i / 10};
			assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
		}
		for (uint32_t i = 0; i < ITEMS; i++)
			assert_int_equal(learner_add_candidates(learner, &i, 1), 0);
		world_train(learner, 100, 1e-6f); /* rate so small that the gradients stay those of the start */
		assert_int_equal(learner_get_progress(learner).passes, 1);
		world_train(learner, 50, 1e-6f);
		assert_int_equal(learner_pull(learner, forget ? &forgot : &kept), 0);
		learner_free(learner);
	}
	double a = 0, b = 0;
	for (uint32_t u = 0; u < 10; u++) {
		a += (double)kept.acc_user[u];
		b += (double)forgot.acc_user[u];
	}
	assert_true(fabs(b / a - (0.5 + 0.5) / 1.5) < 0.05); /* one pass halved, plus half a pass, of one and a half */
	tables_free(&kept);
	tables_free(&forgot);
}

/* Users, items and positives join between slices while copies are taken. Under the sanitizers this finds stale pointers and races. */
static void test_growth_in_mid_training(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct learn_options options = world_options(33);
		options.threads = 3;
		options.deterministic = deterministic;
		struct learner *learner = world_learner(&options, 2, 3);
		struct tables copy = {0};
		for (uint32_t n = 3; n < 400; n += 7) {
			assert_int_equal(learner_grow(learner, n, n, world_user_ids, world_item_ids), 0);
			for (uint32_t k = 0; k < 20; k++) {
				struct user_item pair = {world_random(n * 20 + k, 50) % n, world_random(n * 20 + k, 51) % (n / 2 + 1)};
				assert_int_equal(learner_add_positives(learner, &pair, 1, 1), 0);
				assert_int_equal(learner_is_positive(learner, pair.user, pair.item), 1);
			}
			uint32_t candidate = n - 1;
			assert_int_equal(learner_add_candidates(learner, &candidate, 1), 0);
			struct train_report report = world_train(learner, 700, 0.05f);
			assert_int_equal(report.nonfinite, 0);
			assert_int_equal(report.triples + report.rejected, 700);
			assert_int_equal(learner_pull(learner, &copy), 0);
			assert_int_equal(copy.n_users, n);
		}
		struct user_item outside = {400, 0};
		assert_int_equal(learner_add_positives(learner, &outside, 1, 0), -EINVAL);
		tables_free(&copy);
		learner_free(learner);
	}
}

static void test_budget_ends_a_slice(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct learn_options options = world_options(64);
		options.threads = 2;
		options.deterministic = deterministic;
		struct learner *learner = world_learner(&options, USERS, ITEMS);
		world_fill(learner, USERS, ITEMS, 6);
		struct train_job job = {.triples_max = UINT64_MAX, .budget_us = 5000, .learning_rate = 0.05f};
		struct train_report report;
		assert_int_equal(learner_train(learner, &job, &report), 0); /* it comes back at all */
		assert_true(report.triples > 0);
		struct learner_progress progress = learner_get_progress(learner);
		assert_int_equal(progress.triples, report.triples);
		assert_true(progress.step >= report.triples / options.batch_size);
		assert_int_equal(progress.walk + progress.passes * learner_n_positives(learner), report.triples);
		learner_free(learner);
	}
}

static void test_recent_positives_come_first(void **state)
{
	(void)state;
	struct learn_options options = world_options(16);
	options.recent_passes = 5;
	options.recent_share = 0.5f;
	struct learner *learner = world_learner(&options, USERS, ITEMS);
	world_fill(learner, USERS - 1, ITEMS, 12); /* the last user has nothing yet */
	assert_int_equal(learner_recent_waiting(learner), 0);
	struct user_item pairs[4] = {{USERS - 1, 1}, {USERS - 1, 2}, {USERS - 1, 3}, {USERS - 1, 1}};
	assert_int_equal(learner_add_positives(learner, pairs, 4, 1), 0);
	assert_int_equal(learner_recent_waiting(learner), 15);
	struct tables before = {0}, after = {0};
	assert_int_equal(learner_pull(learner, &before), 0);
	world_train(learner, 64, 0.05f);
	assert_int_equal(learner_recent_waiting(learner), 0);
	assert_int_equal(learner_pull(learner, &after), 0);
	assert_true(memcmp(before.U + (USERS - 1) * 16, after.U + (USERS - 1) * 16, 16 * sizeof(float)) != 0);
	/* a job that outlasts the budget gives the rest to the walk: one step of 32 + 32, then whole steps */
	assert_int_equal(learner_add_positives(learner, &(struct user_item){USERS - 1, 9}, 1, 1), 0);
	struct learner_progress then = learner_get_progress(learner), now;
	world_train(learner, 640, 0.05f);
	now = learner_get_progress(learner);
	uint64_t n = learner_n_positives(learner);
	assert_int_equal(now.walk + now.passes * n, then.walk + then.passes * n + 32 + 9 * 64);
	options.recent_share = 0.0f; /* no share: no budget is handed out that nobody would take */
	assert_int_equal(learner_set_options(learner, &options), 0);
	struct user_item more = {USERS - 1, 4};
	assert_int_equal(learner_add_positives(learner, &more, 1, 1), 0);
	assert_int_equal(learner_recent_waiting(learner), 0);
	tables_free(&before);
	tables_free(&after);
	learner_free(learner);
}

static void test_options_are_checked(void **state)
{
	(void)state;
	struct learner *learner = NULL;
	char errstr[128];
	for (int fault = 0; fault < 10; fault++) {
		struct learn_options options = world_options(8);
		switch (fault) {
		case 0: options.emb_dim = 0; break;
		case 1: options.emb_dim = 513; break;
		case 2: options.threads = 0; break;
		case 3: options.batch_size = 0; break;
		case 4: options.optimizer = 7; break;
		case 5: options.reg_user = NAN; break;
		case 6: options.skip_share = 1.5f; break;
		case 7: options.step_norm_max = 0.0f; break;
		case 8: options.adagrad_forget = -0.1f; break;
		case 9:
			options.deterministic = 1;
			options.batch_size = 65537;
			break;
		}
		errstr[0] = 0;
		assert_int_equal(learner_new(&options, &backend_cpu, &learner, errstr, sizeof errstr), -EINVAL);
		assert_null(learner);
		assert_true(errstr[0] != 0);
	}
	struct learn_options options = world_options(8), changed;
	learner = world_learner(&options, 4, 4);
	changed = options;
	changed.reg_user = 0.5f;
	assert_int_equal(learner_set_options(learner, &changed), 0);
	changed.emb_dim = 9;
	assert_int_equal(learner_set_options(learner, &changed), -EINVAL);
	assert_string_equal(learner_backend_name(learner), "cpu");
	learner_free(learner);
	learner_free(NULL);
	learn_options_default(&options);
	learner = NULL;
	assert_int_equal(learner_new(&options, &backend_cpu, &learner, errstr, sizeof errstr), 0);
	learner_free(learner);
}

static void test_largest_dim(void **state)
{
	(void)state;
	struct learn_options options = world_options(512);
	options.threads = 2;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		options.deterministic = deterministic;
		struct learner *learner = world_learner(&options, USERS, ITEMS);
		world_fill(learner, USERS, ITEMS, 6);
		struct train_report report = world_train(learner, 3000, 0.05f);
		assert_int_equal(report.triples, 3000);
		assert_int_equal(report.nonfinite, 0);
		learner_free(learner);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learns_what_generalises),    cmocka_unit_test(test_nothing_to_train_on),
		cmocka_unit_test(test_rows_start_by_external_id),  cmocka_unit_test(test_copies_hold_what_changed),
		cmocka_unit_test(test_push_restores),              cmocka_unit_test(test_poison_is_found_and_undone),
		cmocka_unit_test(test_divergence_shows),           cmocka_unit_test(test_adagrad_forgets_by_pass),
		cmocka_unit_test(test_parts_make_the_job),
		cmocka_unit_test(test_growth_in_mid_training),     cmocka_unit_test(test_budget_ends_a_slice),
		cmocka_unit_test(test_recent_positives_come_first), cmocka_unit_test(test_options_are_checked),
		cmocka_unit_test(test_largest_dim),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
