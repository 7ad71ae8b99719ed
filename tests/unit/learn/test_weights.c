/*
 * test_weights.c: weights of positives (they move with their pairs, their mean over a walk is 1, age needs no clock) and the grouped order of the walk.
 */
#include <errno.h>
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/learner_internal.h"
#include "trainer/learn/sampler.h"

#define USERS 40u
#define ITEMS 60u
#define N_PAIRS 900u

/* A pair's logarithm: by its numbers, so that it can be told from the pair alone. */
static float log_of(uint32_t user, uint32_t item)
{
	return 3.0f * philox_centred(world_random(user * ITEMS + item, 80));
}

static struct training_set make_set(float shift, uint32_t passes)
{
	struct training_set set;
	training_set_init(&set, 5);
	assert_int_equal(training_set_grow(&set, USERS, ITEMS), 0);
	for (uint32_t n = 0; n < N_PAIRS; n++) {
		uint32_t r = world_random(n, 81), user = r % 7 == 0 ? 3 : r / 7 % USERS, item = world_random(n, 82) % ITEMS; /* one heavy user */
		assert_true(training_set_add_weighted(&set, user, item, passes, log_of(user, item) + shift) >= 0);
	}
	for (uint32_t i = 0; i < ITEMS; i++)
		(void)training_set_add_candidate(&set, i);
	return set;
}

static void assert_in_step(const struct training_set *set, float shift)
{
	for (uint64_t k = 0; k < set->n_positives; k++)
		assert_true(set->weights[k] == log_of(set->positives[k].user, set->positives[k].item) + shift);
}

/* Draws of one walk. The caller frees. */
static struct draw *draw_walk(const struct training_set *set, const struct learn_options *options)
{
	struct draw_plan plan;
	struct draw *draws = malloc(set->n_positives * sizeof *draws);
	assert_non_null(draws);
	draw_plan_make(set, options, &plan);
	sampler_propose(&plan, 0, (uint32_t)set->n_positives, draws);
	return draws;
}

static void test_weights_move_with_pairs(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	for (float shift = 0; shift < 300; shift += 140) { /* only differences count */
		struct training_set set = make_set(shift, 0);
		assert_in_step(&set, shift);
		struct draw *draws = draw_walk(&set, &options);
		double sum = 0, mean = 0;
		for (uint64_t k = 0; k < set.n_positives; k++)
			mean += exp2((double)log_of(set.positives[k].user, set.positives[k].item)) / (double)set.n_positives;
		for (uint64_t k = 0; k < set.n_positives; k++) {
			double wanted = exp2((double)log_of(draws[k].user, draws[k].pos)) / mean;
			assert_true(fabs((double)draws[k].weight - wanted) < 1e-4 * wanted);
			sum += (double)draws[k].weight;
		}
		assert_true(fabs(sum / (double)set.n_positives - 1) < 1e-4);
		free(draws);
		training_set_free(&set);
	}
}

/* From the hundredth on with weights, and a set without any: 1.0f, bit for bit. */
static void test_weights_may_come_late(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	struct training_set set;
	training_set_init(&set, 5);
	assert_int_equal(training_set_grow(&set, 1, 300), 0);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(training_set_add(&set, 0, i, 0), 1);
	assert_null(set.weights);
	struct draw *draws = draw_walk(&set, &options);
	for (uint32_t k = 0; k < 100; k++)
		assert_true(draws[k].weight == 1.0f);
	free(draws);
	for (uint32_t i = 100; i < 200; i++)
		assert_int_equal(training_set_add_weighted(&set, 0, i, 0, 1.0f), 1);
	draws = draw_walk(&set, &options);
	for (uint32_t k = 0; k < 200; k++) /* half weigh 1, half 2: 2/3 and 4/3 of the mean */
		assert_true(fabsf(draws[k].weight - (draws[k].pos < 100 ? 2.0f : 4.0f) / 3.0f) < 1e-5f);
	free(draws);
	training_set_clear(&set);
	assert_int_equal(training_set_add(&set, 0, 7, 0), 1);
	draws = draw_walk(&set, &options);
	assert_true(draws[0].weight == 1.0f);
	free(draws);
	assert_int_equal(training_set_add_weighted(&set, 0, 8, 0, NAN), -EINVAL);
	assert_int_equal(training_set_add_weighted(&set, 0, 8, 0, INFINITY), -EINVAL);
	assert_int_equal(set.n_positives, 1);
	training_set_free(&set);
}

static void test_recent_positives_keep_theirs(void **state)
{
	(void)state;
	struct learn_options options = world_options(8);
	options.recent_share = 1.0f;
	struct training_set set = make_set(-7.0f, 1);
	struct draw *draws = draw_walk(&set, &options);
	float mean = training_set_weight_mean(&set);
	for (uint64_t k = 0; k < set.n_positives; k++)
		assert_true(draws[k].weight == bpr_weight(log_of(draws[k].user, draws[k].pos) - 7.0f, mean));
	free(draws);
	training_set_free(&set);
}

static void test_weights_are_cut(void **state)
{
	(void)state;
	assert_true(bpr_weight(0.0f, 0.0f) == 1.0f);
	assert_true(bpr_weight(-3.5f, -3.5f) == 1.0f);
	assert_true(fabsf(bpr_weight(2.0f, 1.0f) - 2.0f) < 1e-6f);
	assert_true(fabsf(bpr_weight(50.0f, 1.0f) - 8.0f) < 1e-5f);
	assert_true(bpr_weight(-500.0f, 1.0f) < 1e-30f && bpr_weight(-500.0f, 1.0f) >= 0.0f);
}

static void test_rule(void **state)
{
	(void)state;
	const int64_t day_us = 86400000000, now = 1700000000000000;
	const struct weight_rule none = {0}, half = {.half_life_days = 30}, part = {.completion_power = 2}, both = {2, 30};
	assert_false(weight_rule_is_on(&none));
	assert_true(weight_rule_is_on(&half) && weight_rule_is_on(&part));
	assert_true(weight_rule_log2(&none, 0.3, now) == 0.0f);
	assert_true(fabsf(weight_rule_log2(&half, 0.3, now) - weight_rule_log2(&half, 0.9, now - 60 * day_us) - 2.0f) < 1e-3f);
	assert_true(fabsf(weight_rule_log2(&part, 0.5, now) + 2.0f) < 1e-6f);
	assert_true(weight_rule_log2(&part, 0.0, now) == weight_rule_log2(&part, 0.01, 0));
	assert_true(fabsf(weight_rule_log2(&both, 0.5, now) - weight_rule_log2(&both, 1.0, now - 60 * day_us)) < 1e-3f);
}

/* Each pair once, and the weights with them. */
static void assert_same_pairs(const struct training_set *set)
{
	static uint8_t seen[USERS][ITEMS];
	memset(seen, 0, sizeof seen);
	for (uint64_t k = 0; k < set->n_positives; k++) {
		assert_true(training_set_has(set, set->positives[k].user, set->positives[k].item));
		assert_int_equal(seen[set->positives[k].user][set->positives[k].item]++, 0);
	}
}

static void test_grouped_order(void **state)
{
	(void)state;
	struct training_set set = make_set(0, 0), again = make_set(0, 0);
	uint64_t n = set.n_positives, repeats = 0, returns = 0, moved = 0;
	for (int round = 0; round < 3; round++) {
		struct user_item *old = malloc(n * sizeof *old);
		assert_non_null(old);
		memcpy(old, set.positives, n * sizeof *old);
		assert_int_equal(training_set_group(&set), 0);
		assert_int_equal(set.regrouped, (uint64_t)round + 1);
		assert_int_equal(set.n_positives, n);
		assert_int_equal(set.n_grouped, n);
		assert_same_pairs(&set);
		assert_in_step(&set, 0);
		for (uint64_t k = 0; k < n; k++)
			moved += memcmp(&old[k], &set.positives[k], sizeof *old) != 0;
		free(old);
		assert_int_equal(training_set_group(&again), 0);
		assert_memory_equal(set.positives, again.positives, n * sizeof *set.positives);
	}
	assert_true(moved > 3 * n * 9 / 10);
	for (uint64_t k = 0; k + GROUP_USERS < n; k++) {
		returns += set.positives[k].user == set.positives[k + GROUP_USERS].user;
		for (uint64_t j = 1; j < GROUP_USERS; j++)
			repeats += set.positives[k].user == set.positives[k + j].user;
	}
	assert_true(returns > n * 3 / 4); /* runs of 8 of users with about 19 pairs */
	assert_true(repeats < n);         /* 7 places, one user in 40 at random, and a heavy one */
	training_set_free(&set);
	training_set_free(&again);
}

/* The next n_positives draws visit each positive once. */
static void assert_a_pass(const struct learner *learner)
{
	const struct training_set *set = &learner->set;
	static uint8_t visited[USERS][ITEMS];
	struct draw_plan plan;
	struct draw draws[32];
	uint64_t n_visited = 0;
	memset(visited, 0, sizeof visited);
	draw_plan_make(set, &learner->options, &plan);
	for (uint64_t first = 0; first < set->n_positives; first += 32) {
		uint32_t n = set->n_positives - first < 32 ? (uint32_t)(set->n_positives - first) : 32;
		sampler_propose(&plan, first, n, draws);
		for (uint32_t k = 0; k < n; k++) {
			assert_true(training_set_has(set, draws[k].user, draws[k].pos));
			n_visited += !visited[draws[k].user][draws[k].pos];
			visited[draws[k].user][draws[k].pos] = 1;
		}
	}
	assert_int_equal(n_visited, set->n_positives);
}

/* A learner groups once, and again when positives have come; the walk then visits each positive once. */
static void test_learner_groups(void **state)
{
	(void)state;
	struct learn_options options = world_options(16), other;
	options.order = ORDER_GROUPED;
	options.batch_size = 32;
	struct learner *learner = world_learner(&options, USERS, ITEMS);
	world_fill(learner, USERS, ITEMS, 8);
	struct train_report report = world_train(learner, learner_n_positives(learner) * 40, 0.05f);
	assert_int_equal(report.nonfinite, 0);
	assert_true(report.loss < 0.5);
	assert_int_equal(learner->set.regrouped, 1);
	assert_a_pass(learner);
	world_train(learner, 64, 0.05f);
	assert_int_equal(learner->set.regrouped, 1); /* nothing has come */
	struct user_item pair = {.user = 7, .item = ITEMS - 1}; /* user 7's own third ends before it */
	uint64_t before = learner_n_positives(learner);
	assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
	assert_int_equal(learner_n_positives(learner), before + 1);
	world_train(learner, 64, 0.05f);
	assert_int_equal(learner->set.regrouped, 2);
	assert_a_pass(learner);
	other = options;
	other.order = ORDER_SHUFFLED;
	assert_int_equal(learner_set_options(learner, &other), -EINVAL);
	learner_free(learner);
	options.order = 7;
	char errstr[256] = "";
	assert_int_equal(learner_new(&options, &backend_cpu, &learner, errstr, sizeof errstr), -EINVAL);
	assert_string_equal(errstr, "unknown order");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weights_move_with_pairs), cmocka_unit_test(test_weights_may_come_late),
		cmocka_unit_test(test_recent_positives_keep_theirs), cmocka_unit_test(test_weights_are_cut),
		cmocka_unit_test(test_rule), cmocka_unit_test(test_grouped_order), cmocka_unit_test(test_learner_groups),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
