/*
 * test_negatives.c: negatives beyond the uniform draw. The alias table exactly and by chi-square (fixed seed: the outcome never varies), popularity by chi-square,
 * shares of the kinds, hardest-of-n against a naive choice at every instruction level.
 */
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/cpu_hard.h"
#include "trainer/learn/negatives.h"
#include "trainer/learn/sampler.h"

/* The probability of place k, read off the table. */
static double table_share(const struct alias_table *table, uint32_t k)
{
	double share = 0;
	for (uint32_t place = 0; place < table->n; place++) {
		double own = ((double)table->below[place] + 1) / 4294967296.0;
		share += place == k ? own : 0;
		share += table->other[place] == k ? 1 - own : 0;
	}
	return share / table->n;
}

static void test_alias_table_is_exact(void **state)
{
	(void)state;
	enum { N = 200 };
	double weights[N];
	for (uint32_t shape = 0; shape < 4; shape++) {
		struct alias_table table = {0};
		double sum = 0;
		for (uint32_t k = 0; k < N; k++) {
			const double shapes[] = {1.0, 1.0 / (k + 1), k % 3 ? 0.0 : 2.0, exp(0.1 * (double)(world_random(k, 8) % 100))};
			weights[k] = shapes[shape];
			sum += weights[k];
		}
		assert_int_equal(alias_build(&table, weights, N), 0);
		for (uint32_t k = 0; k < N; k++)
			assert_true(fabs(table_share(&table, k) - weights[k] / sum) < 1e-8);
		alias_free(&table);
	}
	struct alias_table table = {0};
	const double none[3] = {0, 0, 0};
	assert_int_equal(alias_build(&table, none, 3), 0); /* nothing known: the same for all */
	for (uint32_t k = 0; k < 3; k++)
		assert_true(fabs(table_share(&table, k) - 1.0 / 3) < 1e-8);
	const double one[1] = {5};
	assert_int_equal(alias_build(&table, one, 1), 0);
	assert_int_equal(alias_pick(&table, 0, UINT32_MAX), 0);
	alias_free(&table);
}

static void test_alias_draws_chi_square(void **state)
{
	(void)state;
	enum { N = 20, DRAWS = 200000 };
	double weights[N], sum = 0, chi2 = 0;
	uint32_t counts[N] = {0};
	struct alias_table table = {0};
	for (uint32_t k = 0; k < N; k++)
		sum += weights[k] = 1.0 / (k + 1);
	assert_int_equal(alias_build(&table, weights, N), 0);
	for (uint32_t n = 0; n < DRAWS; n++)
		counts[alias_pick(&table, philox_below(world_random(n, 20), N), world_random(n, 21))]++;
	for (uint32_t k = 0; k < N; k++) {
		double expected = (double)DRAWS * weights[k] / sum;
		chi2 += (counts[k] - expected) * (counts[k] - expected) / expected;
	}
	assert_true(chi2 < 43.8 && chi2 > 4.9); /* 19 degrees of freedom: 0.1 % above, 0.05 % below */
	alias_free(&table);
}

#define USERS 30u
#define ITEMS 60u

/* Item i has about i / 2 positives; 50 and above have none. */
static struct training_set popular_set(void)
{
	struct training_set set;
	training_set_init(&set, 99);
	assert_int_equal(training_set_grow(&set, USERS, ITEMS), 0);
	for (uint32_t i = 0; i < 50; i++)
		for (uint32_t k = 0; k < i / 2; k++)
			assert_int_equal(training_set_add(&set, (k * 7 + i) % USERS, i, 0), 1);
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_true(training_set_add_candidate(&set, i) >= 0);
	return set;
}

static void draw_all(const struct training_set *set, const struct learn_options *options, uint32_t n, struct draw *ret_draws)
{
	struct draw_plan plan;
	draw_plan_make(set, options, &plan);
	sampler_propose(&plan, 0, n, ret_draws);
	sampler_settle(&plan, n, ret_draws);
}

static void test_popular_negatives_chi_square(void **state)
{
	(void)state;
	enum { DRAWS = 120000 };
	static struct draw draws[DRAWS];
	const float powers[] = {0.0f, 0.5f, 1.0f};
	struct learn_options options = world_options(8);
	options.popular_share = 1.0f;
	options.batch_size = DRAWS;
	for (size_t p = 0; p < sizeof powers / sizeof *powers; p++) {
		struct training_set set = popular_set();
		struct popularity popularity = {0};
		double expected[ITEMS] = {0}, chi2 = 0;
		uint32_t counts[ITEMS] = {0};
		assert_int_equal(popularity_refresh(&popularity, &set, powers[p]), 0);
		draw_all(&set, &options, DRAWS, draws);
		for (uint32_t n = 0; n < DRAWS; n++) {
			assert_int_equal(draws[n].kind, NEGATIVE_POPULAR);
			assert_false(training_set_has(&set, draws[n].user, draws[n].neg));
			counts[draws[n].neg]++;
			double sum = 0; /* of the weights this user's negatives come from */
			for (uint32_t i = 0; i < ITEMS; i++)
				sum += training_set_has(&set, draws[n].user, i) ? 0 : pow(i < 50 && i / 2 ? i / 2 : 1, (double)powers[p]);
			for (uint32_t i = 0; i < ITEMS; i++)
				if (!training_set_has(&set, draws[n].user, i))
					expected[i] += pow(i < 50 && i / 2 ? i / 2 : 1, (double)powers[p]) / sum;
		}
		for (uint32_t i = 0; i < ITEMS; i++) {
			assert_true(expected[i] > 5);
			chi2 += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
		}
		assert_true(chi2 < 99 && chi2 > 30); /* 59 degrees of freedom: 0.1 % on either side */
		popularity_free(&popularity);
		training_set_free(&set);
	}
}

static void test_popularity_is_made_anew_when_it_must(void **state)
{
	(void)state;
	struct training_set set = popular_set();
	struct popularity popularity = {0};
	assert_int_equal(popularity_refresh(&popularity, &set, 1.0f), 0);
	const uint32_t *before = popularity.table.below;
	uint64_t had = set.n_positives;
	assert_int_equal(training_set_add(&set, 29, 59, 0), 1);
	assert_int_equal(popularity_refresh(&popularity, &set, 1.0f), 0);
	assert_ptr_equal(popularity.table.below, before); /* one more of hundreds: stays */
	assert_int_equal(popularity.n_positives, had);
	for (uint32_t u = 0; set.n_positives < had + had / 10 + 1; u++)
		(void)training_set_add(&set, u % USERS, 40 + u / USERS, 0);
	assert_int_equal(popularity_refresh(&popularity, &set, 1.0f), 0);
	assert_int_equal(popularity.n_positives, set.n_positives); /* a tenth more */
	assert_int_equal(training_set_grow(&set, USERS, ITEMS + 1), 0);
	assert_int_equal(training_set_add_candidate(&set, ITEMS), 1);
	assert_int_equal(popularity_refresh(&popularity, &set, 1.0f), 0);
	assert_int_equal(popularity.table.n, ITEMS + 1); /* a candidate joined */
	training_set_clear(&set);
	for (uint32_t u = 0; set.n_positives < popularity.n_positives; u++)
		(void)training_set_add(&set, u % USERS, u / USERS, 0);
	assert_int_equal(popularity_refresh(&popularity, &set, 1.0f), 0);
	assert_int_equal(popularity.cleared, 1); /* as many positives, but others */
	uint32_t first = 0, last = 0; /* the table's places are those of the candidates */
	for (uint32_t c = 0; c < set.n_candidates; c++) {
		first = set.candidates[c] == 1 ? c : first;
		last = set.candidates[c] == 49 ? c : last;
	}
	assert_true(table_share(&popularity.table, first) > 5 * table_share(&popularity.table, last));
	popularity_free(&popularity);
	training_set_free(&set);
}

static size_t list_one_skip(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	(void)ctx;
	(void)user;
	assert_true(max >= 1);
	ret_items[0] = 55;
	return 1;
}

static void test_kinds_in_their_shares(void **state)
{
	(void)state;
	enum { DRAWS = 50000 };
	static struct draw draws[DRAWS];
	const struct skip_source skips = {.list = list_one_skip};
	struct training_set set = popular_set();
	struct popularity popularity = {0};
	struct learn_options options = world_options(8);
	uint32_t kinds[4] = {0};
	options.skip_share = 0.1f;
	options.popular_share = 0.2f;
	options.hard_share = 0.4f;
	options.batch_size = DRAWS;
	set.skips = &skips;
	assert_int_equal(popularity_refresh(&popularity, &set, 0.5f), 0);
	draw_all(&set, &options, DRAWS, draws);
	for (uint32_t n = 0; n < DRAWS; n++)
		kinds[draws[n].kind]++;
	assert_true(abs((int)kinds[NEGATIVE_SKIP] - 5000) < 300);
	assert_true(abs((int)kinds[NEGATIVE_POPULAR] - 10000) < 400);
	assert_true(abs((int)kinds[NEGATIVE_HARD] - 20000) < 500);
	assert_true(abs((int)kinds[NEGATIVE_UNIFORM] - 15000) < 500);
	options.skip_share = 0.2f;
	options.popular_share = 0.3f;
	options.hard_share = 0.5f; /* as floats, they make not quite 1 */
	draw_all(&set, &options, DRAWS, draws);
	for (uint32_t n = 0; n < DRAWS; n++)
		assert_int_not_equal(draws[n].kind, NEGATIVE_UNIFORM);
	options.hard_of = 1; /* the hardest of one is a uniform one */
	draw_all(&set, &options, DRAWS, draws);
	for (uint32_t n = 0; n < DRAWS; n++)
		assert_int_not_equal(draws[n].kind, NEGATIVE_HARD);
	popularity_free(&popularity);
	training_set_free(&set);
}

/* ---- hardest of n ---- */

static double naive_score(const struct row_update *c, uint32_t user, uint32_t item)
{
	double score = (double)c->items[item].bias;
	for (uint32_t k = 0; k < c->dim; k++)
		score += (double)c->U[(size_t)user * c->stride + k] * (double)c->V[(size_t)item * c->stride + k];
	return score;
}

/* All candidates of a draw, positives struck out, the best by a plain loop. Near ties: any of them (ret_second within the tolerance). */
static uint32_t naive_hardest(const struct row_update *c, const struct training_set *set, const struct draw *draw, uint32_t first, uint32_t n, double *ret_best)
{
	uint32_t best = SAMPLE_NONE;
	*ret_best = -1e30;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t item = first;
		if (k) {
			struct philox_block random = philox4x32(draw->index, (uint32_t)draw->step, (uint32_t)(draw->step >> 32), PHILOX_HARD + (k - 1) / 4,
			                                        (uint32_t)set->seed, (uint32_t)(set->seed >> 32));
			item = set->candidates[philox_below(random.v[(k - 1) % 4], set->n_candidates)];
		}
		double score = naive_score(c, draw->user, item);
		if (!training_set_has(set, draw->user, item) && score > *ret_best) {
			*ret_best = score;
			best = item;
		}
	}
	return best;
}

struct rows {
	float *U, *V;
	struct item_side items[ITEMS];
	struct row_update update;
};

static void rows_make(struct rows *rows, uint32_t dim)
{
	uint32_t stride = (dim + 15) / 16 * 16;
	rows->U = aligned_alloc(64, (size_t)USERS * stride * sizeof(float));
	rows->V = aligned_alloc(64, (size_t)ITEMS * stride * sizeof(float));
	assert_true(rows->U && rows->V);
	for (uint32_t k = 0; k < USERS * stride; k++)
		rows->U[k] = k % stride < dim ? philox_centred(world_random(k, 31)) : 0.0f;
	for (uint32_t k = 0; k < ITEMS * stride; k++)
		rows->V[k] = k % stride < dim ? philox_centred(world_random(k, 32)) : 0.0f;
	for (uint32_t i = 0; i < ITEMS; i++)
		rows->items[i] = (struct item_side){.bias = philox_centred(world_random(i, 33))};
	rows->update = (struct row_update){.U = rows->U, .V = rows->V, .items = rows->items, .dim = dim, .stride = stride};
}

static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 512};

static void check_hardest(const struct rows *rows, const struct training_set *set, const struct row_kernels *kernels, uint32_t of)
{
	static struct hard_block block;
	struct learn_options options = world_options(rows->update.dim);
	struct draw draws[HARD_BLOCK], exact[HARD_BLOCK];
	struct draw_plan plan;
	options.hard_share = 0.8f;
	options.hard_of = of;
	draw_plan_make(set, &options, &plan);
	for (uint32_t round = 0; round < 20; round++) {
		uint32_t n = round % 2 ? HARD_BLOCK : 5;
		sampler_propose(&plan, (uint64_t)round * 100, n, draws);
		cpu_hard_draw(&plan, draws, n, &block);
		uint32_t firsts[HARD_BLOCK];
		for (uint32_t i = 0; i < n; i++)
			firsts[i] = draws[i].neg;
		sampler_settle(&plan, n, draws);
		memcpy(exact, draws, n * sizeof *draws);
		cpu_hard_fetch(&plan, &rows->update, draws, 0, n, &block);
		cpu_hard_score(&plan, &rows->update, kernels, draws, 0, n / 2, &block);
		cpu_hard_score(&plan, &rows->update, kernels, draws, n / 2, n - n / 2, &block);
		cpu_hard_choose(&plan, draws, 0, n, &block);
		cpu_hard_choose_exact(&plan, &rows->update, kernels, exact, n);
		for (uint32_t i = 0; i < n; i++) {
			double best;
			assert_false(training_set_has(set, draws[i].user, draws[i].neg));
			if (draws[i].kind != NEGATIVE_HARD) {
				assert_int_equal(draws[i].neg, exact[i].neg);
				continue;
			}
			uint32_t naive = naive_hardest(&rows->update, set, &draws[i], firsts[i], of, &best);
			if (naive == SAMPLE_NONE)
				continue; /* all were positives: any valid negative */
			assert_true(draws[i].neg == naive || fabs(naive_score(&rows->update, draws[i].user, draws[i].neg) - best) < 1e-4);
			assert_true(exact[i].neg == naive || fabs(naive_score(&rows->update, exact[i].user, exact[i].neg) - best) < 1e-4);
		}
	}
}

static void test_hardest_equals_the_naive_choice(void **state)
{
	(void)state;
	const uint32_t ofs[] = {2, 3, 4, 8, 33, 64};
	for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
		struct training_set set = popular_set();
		struct rows rows;
		rows_make(&rows, dims[d]);
		for (int level = 0; level < 3; level++)
			for (size_t k = 0; row_kernels_at(level) && k < sizeof ofs / sizeof *ofs; k++)
				check_hardest(&rows, &set, row_kernels_at(level), ofs[k]);
		free(rows.U);
		free(rows.V);
		training_set_free(&set);
	}
}

/* A user with one valid negative gets it however the scores stand; one with none gets none. */
static void test_hardest_of_users_with_few_negatives(void **state)
{
	(void)state;
	struct training_set set;
	training_set_init(&set, 99);
	assert_int_equal(training_set_grow(&set, 2, ITEMS), 0);
	for (uint32_t i = 0; i < ITEMS; i++) {
		assert_int_equal(training_set_add(&set, 0, i, 0), 1);
		if (i != 17)
			assert_int_equal(training_set_add(&set, 1, i, 0), 1);
	}
	for (uint32_t n = 0; n < 200; n++) {
		struct draw draw = {.index = n, .kind = NEGATIVE_HARD};
		uint32_t items[4];
		float scores[4];
		for (uint32_t k = 0; k < 4; k++) {
			items[k] = world_random(n * 4 + k, 40) % ITEMS;
			scores[k] = n % 3 ? philox_centred(world_random(n * 4 + k, 41)) : NAN;
		}
		draw.user = 0;
		assert_int_equal(hard_choose(&set, &draw, items, scores, 4), SAMPLE_NONE);
		draw.user = 1;
		scores[2] = -INFINITY;
		assert_int_equal(hard_choose(&set, &draw, items, scores, 4), 17);
	}
	training_set_free(&set);
}

static void test_first_of_equal_scores(void **state)
{
	(void)state;
	struct training_set set;
	training_set_init(&set, 99);
	assert_int_equal(training_set_grow(&set, 1, ITEMS), 0);
	assert_int_equal(training_set_add(&set, 0, 9, 0), 1);
	struct draw draw = {.kind = NEGATIVE_HARD};
	const uint32_t items[] = {4, 9, 7, 8};
	float scores[] = {1, 3, 2, 2};
	assert_int_equal(hard_choose(&set, &draw, items, scores, 4), 7); /* 9 is a positive, 8 comes after 7 */
	training_set_free(&set);
}

/* Training with hard negatives only: the mean score of what came out is above that of a uniform draw, by the model itself. */
static void test_learner_takes_the_options(void **state)
{
	(void)state;
	double losses[2];
	for (int hard = 0; hard < 2; hard++) {
		struct learn_options options = world_options(16);
		options.threads = 3;
		options.hard_share = hard ? 1.0f : 0.0f;
		options.hard_of = 16;
		struct learner *learner = world_learner(&options, 60, 90);
		world_fill(learner, 60, 90, 9);
		(void)world_train(learner, 40000, 0.05f);
		losses[hard] = world_train(learner, 20000, 0.0f).loss; /* a rate of 0: only looked at */
		learner_free(learner);
	}
	assert_true(losses[1] > losses[0] * 1.3); /* the hardest of sixteen are ranked worse */
}

static void test_bad_options_are_told(void **state)
{
	(void)state;
	for (int fault = 0; fault < 7; fault++) {
		struct learn_options options = world_options(8);
		struct learner *learner = NULL;
		char errstr[256] = "";
		switch (fault) {
		case 0: options.hard_of = 0; break;
		case 1: options.hard_of = HARD_OF_MAX + 1; break;
		case 2: options.hard_share = 1.1f; break;
		case 3: options.popular_share = -0.1f; break;
		case 4: options.popular_power = 2.5f; break;
		case 5: options.popular_power = NAN; break;
		default: options.hard_share = 0.6f; options.popular_share = 0.3f; options.skip_share = 0.2f;
		}
		assert_int_equal(learner_new(&options, &backend_cpu, &learner, errstr, sizeof errstr), -22);
		assert_null(learner);
		assert_true(strlen(errstr) > 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alias_table_is_exact),
		cmocka_unit_test(test_alias_draws_chi_square),
		cmocka_unit_test(test_popular_negatives_chi_square),
		cmocka_unit_test(test_popularity_is_made_anew_when_it_must),
		cmocka_unit_test(test_kinds_in_their_shares),
		cmocka_unit_test(test_hardest_equals_the_naive_choice),
		cmocka_unit_test(test_hardest_of_users_with_few_negatives),
		cmocka_unit_test(test_first_of_equal_scores),
		cmocka_unit_test(test_learner_takes_the_options),
		cmocka_unit_test(test_bad_options_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
