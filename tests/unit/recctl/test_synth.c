/*
 * test_synth.c: the invented world behind synthetic logs against its own definition: the distributions, what is shown, and the oracle, each computed a
 * second time here in the plainest way. Seeds are fixed, so the bounds (five standard deviations) either hold always or never.
 */
#include "daemon/recctl/synth_oracle.h"
#include "daemon/recctl/synth_timeline.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_ITEMS 60
#define N_USERS 4
#define DRAWS 400000

/* Observed mean of n draws against mean and variance. */
static void assert_mean(double observed, double mean, double variance, double n)
{
	double off = fabs(observed - mean), allowed = 5.0 * sqrt(variance / n);

	if (off > allowed)
		fail_msg("mean %.6f, expected %.6f +- %.6f", observed, mean, allowed);
}

static void test_log_and_exp(void **state)
{
	(void)state;
	assert_true(synth_log(1.0) == 0.0);
	assert_true(synth_exp(0.0) == 1.0);
	assert_true(synth_exp(-800.0) == 0.0);
	for (double x = 1e-300; x < 1e300; x *= 1.37) {
		double expected = log(x);
		assert_true(fabs(synth_log(x) - expected) <= 1e-14 * (1.0 + fabs(expected)));
	}
	for (double x = 0.5; x < 2.0; x += 0.0007)
		assert_true(fabs(synth_log(x) - log(x)) <= 4e-16 + 1e-14 * fabs(log(x)));
	for (double x = -690.0; x < 690.0; x += 0.37)
		assert_true(fabs(synth_exp(x) / exp(x) - 1.0) <= 1e-13);
}

static void test_uniform(void **state)
{
	struct synth_rng rng = synth_rng_at(1, 2, 3), same = synth_rng_at(1, 2, 3), other = synth_rng_at(1, 2, 4), seeded = synth_rng_at(2, 2, 3);
	struct synth_rng purposed = synth_rng_at(1, 3, 3);
	double sum = 0.0;
	uint32_t counts[7] = { 0 };
	int differs = 0;

	(void)state;
	for (int i = 0; i < DRAWS; i++) {
		uint64_t bits = synth_u64(&rng);

		assert_true(bits == synth_u64(&same));
		differs += (bits != synth_u64(&other)) + (bits != synth_u64(&seeded)) + (bits != synth_u64(&purposed));
	}
	assert_int_equal(differs, 3 * DRAWS);
	for (int i = 0; i < DRAWS; i++) {
		double u = synth_uniform(&rng);
		uint32_t k = synth_below(&rng, 7);
		int64_t between = synth_between(&rng, -3, 3);

		assert_true(u >= 0.0 && u < 1.0 && k < 7 && between >= -3 && between <= 3);
		sum += u;
		counts[k]++;
	}
	assert_mean(sum / DRAWS, 0.5, 1.0 / 12, DRAWS);
	for (int k = 0; k < 7; k++)
		assert_mean((double)counts[k] / DRAWS, 1.0 / 7, 6.0 / 49, DRAWS);
}

static void test_distributions(void **state)
{
	static const double shapes[] = { 0.3, 0.6, 1.0, 2.4, 4.0 };
	struct synth_rng rng = synth_rng_at(7, 0, 0);
	double sum = 0.0, square = 0.0;

	(void)state;
	for (int i = 0; i < DRAWS; i++) {
		double x = synth_normal(&rng);
		sum += x;
		square += x * x;
	}
	assert_mean(sum / DRAWS, 0.0, 1.0, DRAWS);
	assert_mean(square / DRAWS, 1.0, 2.0, DRAWS);
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		double a = shapes[s];

		sum = square = 0.0;
		for (int i = 0; i < DRAWS; i++) {
			double x = synth_gamma(&rng, a);
			assert_true(x >= 0.0);
			sum += x;
			square += x * x;
		}
		assert_mean(sum / DRAWS, a, a, DRAWS);
		/* E x^4 = a (a+1) (a+2) (a+3), E x^2 = a (a+1) */
		assert_mean(square / DRAWS, a * (a + 1), a * (a + 1) * ((a + 2) * (a + 3) - a * (a + 1)), DRAWS);
	}
	sum = square = 0.0;
	for (int i = 0; i < DRAWS / SYNTH_GENRES; i++) {
		double p[SYNTH_GENRES], total = 0.0;

		synth_dirichlet(&rng, 0.3, SYNTH_GENRES, p);
		for (int g = 0; g < SYNTH_GENRES; g++)
			total += p[g];
		assert_true(fabs(total - 1.0) < 1e-12);
		sum += p[3];
		square += p[3] * p[3];
	}
	double n = DRAWS / SYNTH_GENRES, mean = 1.0 / SYNTH_GENRES, a0 = 0.3 * SYNTH_GENRES;
	assert_mean(sum / n, mean, mean * (1 - mean) / (a0 + 1), n);
	assert_mean(square / n, mean * (1 - mean) / (a0 + 1) + mean * mean, 0.02, n);
}

/* The tail of the completion's Beta: against midpoint integration of its density, and against what synth_beta() draws. */
static void test_completion(void **state)
{
	static const double tastes[] = { 0.0, 0.13, 0.4, 0.7, 1.0 };
	struct synth_rng rng = synth_rng_at(9, 0, 0);

	(void)state;
	for (size_t t = 0; t < sizeof(tastes) / sizeof(tastes[0]); t++) {
		double mean = synth_completion_mean(tastes[t]), a = 4.0 * mean, b = 4.0 - a, sum = 0.0;

		assert_true(fabs(mean - (0.15 + 0.75 * tastes[t])) < 1e-15);
		for (double threshold = 0.1; threshold < 0.95; threshold += 0.25) {
			double area = 0.0, tail = synth_completion_tail(mean, threshold);
			int hits = 0;

			/* x = 1 - y^8 takes the singularity of (1 - x)^(b - 1) away */
			double y_max = pow(1.0 - threshold, 0.125);
			for (int k = 0; k < 20000; k++) {
				double y = y_max * (k + 0.5) / 20000, x = 1.0 - pow(y, 8.0);
				area += pow(x, a - 1) * pow(y, 8.0 * (b - 1)) * 8.0 * pow(y, 7.0) * y_max / 20000;
			}
			area /= tgamma(a) * tgamma(b) / 6.0; /* gamma(4) = 6 */
			assert_true(fabs(area - tail) < 1e-6);
			for (int i = 0; i < DRAWS / 4; i++) {
				double x = synth_beta(&rng, mean, 4.0);
				hits += x >= threshold;
				sum += x;
			}
			assert_mean(hits / (DRAWS / 4.0), tail, tail * (1 - tail), DRAWS / 4.0);
		}
		assert_mean(sum / DRAWS, mean, mean * (1 - mean) / 5.0, DRAWS);
	}
	assert_true(synth_completion_tail(0.5, 0.0) == 1.0 && synth_completion_tail(0.5, 1.0) == 0.0);
	assert_true(fabs(synth_completion_tail(0.5, 0.5) - 0.5) < 1e-12);
}

static void test_position_bias(void **state)
{
	(void)state;
	for (uint32_t p = 1; p <= SYNTH_POSITIONS; p++) {
		assert_true(fabs(synth_position_bias(p) - 1.0 / log2(p + 2.0)) < 1e-15);
		assert_true(fabs(synth_click_chance(0.5, p) - (0.03 + 0.6 * 0.5) / log2(p + 2.0)) < 1e-15);
	}
}

/* The table as a distribution: each column's share and its alias' add up to the weights. */
static void test_alias(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 200; n += 7) {
		double weights[200], expected[200], got[200] = { 0 }, sum = 0.0;
		struct synth_alias table[200];
		uint32_t scratch[200];

		for (uint32_t i = 0; i < n; i++) {
			weights[i] = expected[i] = 1.0 / ((double)((i * 37) % n) + 1.0);
			sum += weights[i];
		}
		synth_alias_build(weights, n, table, scratch);
		for (uint32_t i = 0; i < n; i++) {
			double share = ((double)table[i].threshold + 1.0) / 4294967296.0;
			assert_true(table[i].alias < n);
			got[i] += share / n;
			got[table[i].alias] += (1.0 - share) / n;
		}
		for (uint32_t i = 0; i < n; i++)
			assert_true(fabs(got[i] - expected[i] / sum) < 1e-9);
	}
}

/* taste and exposure as the definition says, straight from genres and preferences. */
static double plain_affinity(const struct synth_model *model, uint32_t user, uint32_t item)
{
	double sum = 0.0;

	for (int k = 0; k < model->items[item].n_genres; k++)
		sum += (double)model->persons[user].pref[model->items[item].genres[k]];
	return sum / model->items[item].n_genres;
}

static void plain_rows(const struct synth_model *model, uint32_t user, double *taste, double *popular, double *tasty)
{
	double largest = 0.0, popular_sum = 0.0, tasty_sum = 0.0;

	for (uint32_t i = 0; i < model->n_items; i++) {
		taste[i] = plain_affinity(model, user, i);
		largest = taste[i] > largest ? taste[i] : largest;
	}
	for (uint32_t i = 0; i < model->n_items; i++) {
		taste[i] /= largest;
		popular[i] = 1.0 / model->items[i].rank;
		tasty[i] = taste[i] * taste[i] * sqrt(1.0 / model->items[i].rank);
		popular_sum += popular[i];
		tasty_sum += tasty[i];
	}
	for (uint32_t i = 0; i < model->n_items; i++) {
		popular[i] /= popular_sum;
		tasty[i] /= tasty_sum;
	}
}

static void test_catalogue(void **state)
{
	struct synth_model *model, *larger;
	uint32_t seen[2001] = { 0 }, counts[4] = { 0 }, genres[SYNTH_GENRES] = { 0 }, n_genres = 0;

	(void)state;
	assert_int_equal(synth_model_new(5, 2000, 3, &model), 0);
	for (uint32_t i = 0; i < model->n_items; i++) {
		const struct synth_item *item = &model->items[i];

		assert_in_range(item->rank, 1, 2000);
		assert_int_equal(seen[item->rank]++, 0);
		assert_in_range(item->n_genres, 1, 3);
		counts[item->n_genres]++;
		for (int k = 0; k < item->n_genres; k++) {
			assert_in_range(item->genres[k], 0, SYNTH_GENRES - 1);
			genres[item->genres[k]]++;
			n_genres++;
			for (int j = 0; j < k; j++)
				assert_int_not_equal(item->genres[j], item->genres[k]);
		}
		/* the signature is the same set, sorted */
		const struct synth_signature *signature = &model->signatures[item->signature];
		assert_int_equal(signature->n_genres, item->n_genres);
		for (int k = 0; k < item->n_genres; k++) {
			assert_non_null(memchr(item->genres, signature->genres[k], item->n_genres));
			assert_true(k == 0 || signature->genres[k - 1] < signature->genres[k]);
		}
	}
	for (int n = 1; n <= 3; n++)
		assert_mean(counts[n] / 2000.0, 1.0 / 3, 2.0 / 9, 2000);
	for (int g = 0; g < SYNTH_GENRES; g++)
		assert_mean((double)genres[g] / n_genres, 1.0 / SYNTH_GENRES, 1.0 / SYNTH_GENRES, n_genres);
	/* a title does not change when the catalogue grows */
	assert_int_equal(synth_model_new(5, 2500, 3, &larger), 0);
	for (uint32_t i = 0; i < model->n_items; i++)
		assert_memory_equal(model->items[i].genres, larger->items[i].genres, 3);
	synth_model_free(model);
	synth_model_free(larger);
	synth_model_free(NULL);
}

static void test_what_is_shown(void **state)
{
	struct synth_model *model;

	(void)state;
	assert_int_equal(synth_model_new(11, N_ITEMS, N_USERS, &model), 0);
	for (uint32_t user = 0; user < N_USERS; user++) {
		double taste[N_ITEMS], expected[2][N_ITEMS];
		double largest = 0.0;

		plain_rows(model, user, taste, expected[0], expected[1]);
		for (uint32_t i = 0; i < N_ITEMS; i++) {
			assert_true(fabs(synth_taste(model, user, model->items[i].signature) - taste[i]) < 1e-6);
			largest = taste[i] > largest ? taste[i] : largest;
		}
		assert_true(largest == 1.0);
		for (int by_taste = 0; by_taste < 2; by_taste++) {
			struct synth_rng rng = synth_rng_at(3, (uint64_t)by_taste, user);
			uint32_t counts[N_ITEMS] = { 0 };

			for (int d = 0; d < DRAWS; d++)
				counts[synth_draw_item(model, user, by_taste, &rng)]++;
			for (uint32_t i = 0; i < N_ITEMS; i++) {
				double p = expected[by_taste][i];
				assert_mean((double)counts[i] / DRAWS, p, p * (1 - p) + 1e-7, DRAWS);
			}
		}
	}
	synth_model_free(model);
}

/* The oracle's row against the definition, and against simulated impressions. */
static void test_oracle(void **state)
{
	struct synth_model *model;
	struct synth_oracle *oracle;
	float chance[N_ITEMS];
	const double threshold = 0.6;

	(void)state;
	assert_int_equal(synth_model_new(11, N_ITEMS, N_USERS, &model), 0);
	assert_int_equal(synth_oracle_new(model, threshold, &oracle), 0);
	for (uint32_t user = 0; user < N_USERS; user++) {
		double taste[N_ITEMS], popular[N_ITEMS], tasty[N_ITEMS], expected_sum = 0.0;
		struct synth_rng rng = synth_rng_at(4, 0, user);
		uint32_t positives = 0;

		synth_oracle_row(oracle, user, chance);
		plain_rows(model, user, taste, popular, tasty);
		for (uint32_t i = 0; i < N_ITEMS; i++) {
			double expected = 0.0;

			for (int p = 1; p <= 20; p++)
				expected += 1.0 / log2(p + 2.0) * (0.03 + 0.6 * taste[i]) / 20.0;
			expected *= (popular[i] + tasty[i]) / 2.0 * 0.7 * synth_completion_tail(0.15 + 0.75 * taste[i], threshold);
			assert_true(fabs((double)chance[i] - expected) <= 1e-5 * expected);
			expected_sum += expected;
		}
		for (int d = 0; d < DRAWS; d++) {
			uint32_t item = synth_draw_item(model, user, d & 1, &rng);
			double t = synth_taste(model, user, model->items[item].signature);

			if (synth_uniform(&rng) < synth_click_chance(t, 1 + synth_below(&rng, SYNTH_POSITIONS)) && synth_uniform(&rng) < SYNTH_PLAY_CHANCE)
				positives += synth_beta(&rng, synth_completion_mean(t), SYNTH_CONCENTRATION) >= threshold;
		}
		assert_mean((double)positives / DRAWS, expected_sum, expected_sum, DRAWS);
	}
	synth_oracle_free(oracle);
	synth_oracle_free(NULL);
	synth_model_free(model);
}

static int files_in(const char *dir)
{
	DIR *entries = opendir(dir);
	int n = 0;

	for (struct dirent *entry; (entry = readdir(entries));)
		n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	closedir(entries);
	return n;
}

/* A stop leaves nothing behind; the smallest worlds work; what is pending stays small in the densest logs that are allowed. */
static void test_timeline(void **state)
{
	static const struct {
		uint32_t items, users;
		uint64_t impressions;
		int64_t days;
	} worlds[] = { { 1, 1, 0, 1 }, { 1, 1, 1, 1 }, { 1, 5, 3, 60 }, { 3, 1, 500000, 1 }, { 2, 1000, 500000, 1 } };
	char dir[] = "/tmp/test_synth.XXXXXX", errstr[256];
	struct synth_output *output;
	struct synth_counts counts;
	volatile sig_atomic_t stop = 1;

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (size_t w = 0; w < sizeof(worlds) / sizeof(worlds[0]); w++) {
		struct synth_plan plan = { .n_impressions = worlds[w].impressions, .days = worlds[w].days, .min_pos_completion = 0.6 };
		struct synth_model *model;

		assert_int_equal(synth_model_new(w, worlds[w].items, worlds[w].users, &model), 0);
		assert_int_equal(synth_output_open(dir, &output, errstr, sizeof(errstr)), 0);
		if (plan.n_impressions > 100000) {
			assert_int_equal(synth_timeline_run(model, &plan, output, NULL, &stop, &counts), -EINTR);
			synth_output_free(output);
			assert_int_equal(files_in(dir), SYNTH_FILE_COUNT); /* those of the world before */
			assert_int_equal(synth_output_open(dir, &output, errstr, sizeof(errstr)), 0);
		}
		assert_int_equal(synth_timeline_run(model, &plan, output, NULL, NULL, &counts), 0);
		assert_int_equal(synth_output_finish(output, errstr, sizeof(errstr)), 0);
		synth_output_free(output);
		assert_int_equal(files_in(dir), SYNTH_FILE_COUNT);
		assert_int_equal(counts.impressions, plan.n_impressions);
		assert_int_equal(counts.play_starts, counts.watches);
		assert_int_equal(counts.samples, counts.impressions - counts.clicks + counts.positives);
		/* 20,000,000 a day are allowed for SYNTH_PENDING_MAX; twice the share of that as a bound here */
		assert_true(counts.pending_max <= 16 + 2.0 * SYNTH_PENDING_MAX * (double)plan.n_impressions / (double)plan.days / SYNTH_IMPRESSIONS_PER_DAY_MAX);
		synth_model_free(model);
	}
	static const char *const names[] = { "items", "users", "impressions", "events", "watch_stats", "train_samples" };
	for (size_t i = 0; i < SYNTH_FILE_COUNT; i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%s.jsonl", dir, names[i]);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_and_exp),   cmocka_unit_test(test_uniform), cmocka_unit_test(test_distributions), cmocka_unit_test(test_completion),
		cmocka_unit_test(test_position_bias), cmocka_unit_test(test_alias),   cmocka_unit_test(test_catalogue),     cmocka_unit_test(test_what_is_shown),
		cmocka_unit_test(test_oracle),        cmocka_unit_test(test_timeline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
