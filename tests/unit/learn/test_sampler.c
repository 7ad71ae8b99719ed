/*
 * test_sampler.c: the training set. Order of the positives and negatives are uniform (chi-square at a fixed seed, so the outcome never varies);
 * negatives are never positives; the walk, the recent positives and the skips keep their promises.
 */
#include <errno.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/sampler.h"

static struct learn_options options_of(uint32_t batch)
{
	struct learn_options options = world_options(8);
	options.batch_size = batch;
	return options;
}

static struct training_set make_set(uint32_t n_users, uint32_t n_items)
{
	struct training_set set;
	training_set_init(&set, 99);
	assert_int_equal(training_set_grow(&set, n_users, n_items), 0);
	return set;
}

/* Draws n from the front of the next job. */
static void draw_all(const struct training_set *set, const struct learn_options *options, uint32_t n, struct draw *ret_draws)
{
	struct draw_plan plan;
	draw_plan_make(set, options, &plan);
	sampler_propose(&plan, 0, n, ret_draws);
	sampler_settle(&plan, n, ret_draws);
}

static void test_set_holds_exactly_what_was_added(void **state)
{
	(void)state;
	struct training_set set = make_set(300, 200);
	static uint8_t there[300][200];
	static uint32_t counts[300];
	memset(there, 0, sizeof there);
	memset(counts, 0, sizeof counts);
	uint64_t n = 0;
	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t u = world_random(i, 1) % 300, v = world_random(i, 2) % 200;
		assert_int_equal(training_set_add(&set, u, v, 0), there[u][v] ? 0 : 1);
		n += !there[u][v];
		counts[u] += !there[u][v];
		there[u][v] = 1;
	}
	assert_int_equal(set.n_positives, n);
	for (uint32_t u = 0; u < 300; u++) {
		assert_int_equal(set.user_positives[u], counts[u]);
		for (uint32_t v = 0; v < 200; v++)
			assert_int_equal(training_set_has(&set, u, v), there[u][v]);
	}
	for (uint64_t k = 0; k < n; k++) { /* the log holds each pair once */
		uint8_t *cell = &there[set.positives[k].user][set.positives[k].item];
		assert_int_equal(*cell, 1);
		*cell = 2;
	}
	assert_int_equal(training_set_add(&set, 300, 0, 0), -EINVAL);
	assert_int_equal(training_set_add(&set, 0, 200, 0), -EINVAL);
	training_set_clear(&set);
	assert_int_equal(set.n_positives, 0);
	assert_int_equal(set.cleared, 1);
	assert_int_equal(training_set_has(&set, set.positives[0].user, set.positives[0].item), 0);
	assert_int_equal(training_set_add(&set, 5, 5, 0), 1);
	training_set_free(&set);
}

static void test_order_is_uniform(void **state)
{
	(void)state;
	enum { N = 12, TRIALS = 24000 };
	static uint32_t where[N][N]; /* how often pair k ended at place p */
	memset(where, 0, sizeof where);
	for (uint32_t trial = 0; trial < TRIALS; trial++) {
		struct training_set set;
		training_set_init(&set, 1000 + trial);
		assert_int_equal(training_set_grow(&set, 1, N), 0);
		for (uint32_t k = 0; k < N; k++)
			assert_int_equal(training_set_add(&set, 0, k, 0), 1);
		for (uint32_t p = 0; p < N; p++)
			where[set.positives[p].item][p]++;
		training_set_free(&set);
	}
	double chi2 = 0, expected = (double)TRIALS / (double)N;
	for (int k = 0; k < N; k++)
		for (int p = 0; p < N; p++)
			chi2 += ((double)where[k][p] - expected) * ((double)where[k][p] - expected) / expected;
	assert_true(chi2 < 176); /* 121 degrees of freedom: 0.1 % lies above 176 */
	assert_true(chi2 > 80);  /* and 0.2 % below 80: too even is wrong, too */
}

/* A mirror that only knows where inserts went ends with the same log. */
static void test_swaps_can_be_replayed(void **state)
{
	(void)state;
	struct training_set set = make_set(50, 50);
	struct user_item mirror[400];
	uint64_t n = 0;
	for (uint32_t i = 0; i < 400; i++) {
		struct user_item pair = {world_random(i, 3) % 50, world_random(i, 4) % 50};
		if (training_set_add(&set, pair.user, pair.item, 0) != 1)
			continue;
		uint64_t place = training_set_swapped(&set, n);
		mirror[n] = mirror[place];
		mirror[place] = pair;
		n++;
	}
	assert_int_equal(set.n_positives, n);
	assert_memory_equal(set.positives, mirror, n * sizeof *mirror);
	training_set_free(&set);
}

static void test_negatives_uniform_and_never_positive(void **state)
{
	(void)state;
	enum { ITEMS = 60, DRAWS = 60000 };
	struct training_set set = make_set(4, ITEMS);
	struct learn_options options = options_of(1000);
	static struct draw draws[DRAWS];
	static uint32_t counts[4][ITEMS];
	memset(counts, 0, sizeof counts);
	for (uint32_t i = 0; i < ITEMS; i++)
		if (i % 10 != 9) /* every tenth is no candidate */
			training_set_add_candidate(&set, i);
	for (uint32_t u = 0; u < 4; u++)
		for (uint32_t i = 0; i < ITEMS; i++)
			if (i % 10 != 9 && world_random(u * ITEMS + i, 6) % 4 < u) /* user 0: none but one; user 3: three quarters */
				assert_int_equal(training_set_add(&set, u, i, 0), 1);
	assert_int_equal(training_set_add(&set, 0, 5, 0), 1);
	draw_all(&set, &options, DRAWS, draws);
	for (uint32_t n = 0; n < DRAWS; n++) {
		assert_int_equal(training_set_has(&set, draws[n].user, draws[n].pos), 1);
		assert_int_equal(training_set_has(&set, draws[n].user, draws[n].neg), 0);
		assert_true(draws[n].neg % 10 != 9);
		counts[draws[n].user][draws[n].neg]++;
	}
	for (uint32_t u = 1; u < 4; u++) {
		double total = 0, chi2 = 0;
		uint32_t valid = 0;
		for (uint32_t i = 0; i < ITEMS; i++) {
			total += counts[u][i];
			valid += i % 10 != 9 && !training_set_has(&set, u, i);
		}
		for (uint32_t i = 0; i < ITEMS; i++)
			if (i % 10 != 9 && !training_set_has(&set, u, i))
				chi2 += (counts[u][i] - total / valid) * (counts[u][i] - total / valid) / (total / valid);
		assert_true(valid > 8);
		assert_true(chi2 < valid + 3.5 * __builtin_sqrt(2.0 * valid)); /* mean and deviation of chi-square */
	}
	training_set_free(&set);
}

static void test_users_with_all_or_all_but_one(void **state)
{
	(void)state;
	enum { ITEMS = 5000, DRAWS = 2000 };
	struct training_set set = make_set(2, ITEMS);
	struct learn_options options = options_of(64);
	static struct draw draws[DRAWS];
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_int_equal(training_set_add(&set, 0, i, 0), 1);
	for (uint32_t i = 0; i < ITEMS; i++)
		if (i != 1234)
			assert_int_equal(training_set_add(&set, 1, i, 0), 1);
	draw_all(&set, &options, DRAWS, draws);
	uint32_t seen[2] = {0};
	for (uint32_t n = 0; n < DRAWS; n++) {
		assert_int_equal(draws[n].neg, draws[n].user == 0 ? SAMPLE_NONE : 1234);
		seen[draws[n].user]++;
	}
	assert_true(seen[0] > 500 && seen[1] > 500);
	training_set_free(&set);
}

/* The same draws in one piece, in odd pieces, and in a later job at the same step. */
static void test_draws_are_a_function_of_step_and_index(void **state)
{
	(void)state;
	struct training_set set = make_set(50, 80);
	struct learn_options options = options_of(48);
	struct draw whole[480], pieces[480], later[240];
	struct draw_plan plan;
	for (uint32_t i = 0; i < 600; i++)
		training_set_add(&set, world_random(i, 7) % 50, world_random(i, 8) % 80, 0);
	draw_all(&set, &options, 480, whole);
	draw_plan_make(&set, &options, &plan);
	for (uint32_t at = 0, size = 1; at < 480; at += size, size = size % 37 + 1) {
		uint32_t n = 480 - at < size ? 480 - at : size;
		sampler_propose(&plan, at, n, pieces + at);
		sampler_settle(&plan, n, pieces + at);
	}
	assert_memory_equal(whole, pieces, sizeof whole);
	training_set_advance(&set, &plan, 240);
	assert_int_equal(set.step, 5);
	draw_all(&set, &options, 240, later);
	assert_memory_equal(whole + 240, later, sizeof later);
	training_set_free(&set);
}

/*
 * Proposing, looking and confirming gives what proposing and settling gives; and the short way for usual draws what the long one gives, which any share of
 * popular negatives asks for. Over the walk's end, with recent positives in front of each step, and with hard draws among the others.
 */
static void test_draws_in_stages_are_the_same(void **state)
{
	(void)state;
	enum { N = 2400 };
	static struct draw whole[N], staged[N];
	for (int variant = 0; variant < 4; variant++) {
		struct training_set set = make_set(50, 80);
		struct learn_options options = options_of(48);
		struct draw_check checks[32];
		struct draw_plan plan;
		uint32_t hits = 0;
		for (uint32_t i = 0; i < 1500; i++)
			training_set_add(&set, world_random(i, 7) % 50, world_random(i, 8) % 80, variant & 1 && i > 1400 ? 3 : 0);
		options.hard_share = variant & 2 ? 0.5f : 0.0f;
		options.hard_of = 4;
		options.recent_share = 0.3f;
		draw_plan_make(&set, &options, &plan);
		assert_true(plan.n_positives < N);
		sampler_propose(&plan, 0, N, whole);
		sampler_settle(&plan, N, whole);
		for (int way = 0; way < 2; way++) {
			plan.popular_below = (uint64_t)way; /* a chance of 2^-32 */
			for (uint32_t at = 0, size = 1; at < N; at += size, size = size % 32 + 1) {
				size = N - at < size ? N - at : size;
				sampler_propose_checked(&plan, at, size, staged + at, checks);
				uint32_t found = sampler_look(&plan, size, staged + at, checks);
				hits += (uint32_t)__builtin_popcount(found);
				sampler_confirm(&plan, found, staged + at);
			}
			assert_memory_equal(whole, staged, sizeof whole);
		}
		assert_in_range(hits, N / 4, N * 2);
		training_set_free(&set);
	}
}

static void test_walk_visits_each_positive_once_a_pass(void **state)
{
	(void)state;
	struct training_set set = make_set(40, 60);
	struct learn_options options = options_of(10);
	static struct draw draws[8000];
	static uint32_t seen[40][60];
	memset(seen, 0, sizeof seen);
	for (uint32_t i = 0; i < 500; i++)
		training_set_add(&set, world_random(i, 9) % 40, world_random(i, 10) % 60, 0);
	uint32_t n = (uint32_t)set.n_positives;
	struct draw_plan plan;
	for (uint64_t left = 3 * n; left > 0;) { /* jobs of odd sizes */
		uint32_t part = left < 73 ? (uint32_t)left : 73;
		uint64_t step = set.step;
		draw_all(&set, &options, part, draws);
		draw_plan_make(&set, &options, &plan);
		training_set_advance(&set, &plan, part);
		assert_int_equal(set.step, step + (part + 9) / 10); /* a step begun is not begun again */
		for (uint32_t i = 0; i < part; i++)
			seen[draws[i].user][draws[i].pos]++;
		left -= part;
	}
	assert_int_equal(set.passes, 3);
	assert_int_equal(set.walk, 0);
	for (uint32_t k = 0; k < n; k++)
		assert_int_equal(seen[set.positives[k].user][set.positives[k].item], 3);
	training_set_free(&set);
}

static void test_recent_positives_get_their_passes(void **state)
{
	(void)state;
	enum { PASSES = 6 };
	struct training_set set = make_set(40, 60);
	struct learn_options options = options_of(32);
	options.recent_share = 0.25f;
	struct draw draws[64];
	static uint32_t seen[40][60];
	memset(seen, 0, sizeof seen);
	for (uint32_t i = 0; i < 300; i++)
		training_set_add(&set, world_random(i, 9) % 39, world_random(i, 10) % 60, 0);
	for (uint32_t i = 0; i < 21; i++)
		assert_int_equal(training_set_add(&set, 39, i, PASSES), 1);
	assert_int_equal(set.recent_owed, 21 * PASSES);
	struct draw_plan plan;
	uint32_t jobs = 0;
	while (set.recent_owed) {
		draw_plan_make(&set, &options, &plan);
		assert_int_equal(plan.recent_per_step, 8);
		uint32_t part = 20 + jobs % 40; /* jobs that end inside a step, too */
		sampler_propose(&plan, 0, part, draws);
		for (uint32_t i = 0; i < part; i++)
			if (draws[i].index < plan.recent_per_step && draws[i].user == 39)
				seen[draws[i].user][draws[i].pos]++;
		training_set_advance(&set, &plan, part);
		assert_true(++jobs < 100);
	}
	for (uint32_t i = 0; i < 21; i++)
		assert_true(seen[39][i] >= PASSES && seen[39][i] <= PASSES + 1); /* + 1: a last turn that fell back to the whole log */
	draw_plan_make(&set, &options, &plan);
	assert_int_equal(plan.recent_per_step, 0);
	training_set_free(&set);
}

/* More turns than entries: whole rounds, and one more for the first. */
static void test_recent_rounds_are_counted(void **state)
{
	(void)state;
	struct training_set set = make_set(4, 60);
	struct learn_options options = options_of(32);
	struct draw_plan plan;
	options.recent_share = 0.25f;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(training_set_add(&set, 0, i, 6), 1);
	draw_plan_make(&set, &options, &plan);
	training_set_advance(&set, &plan, 32); /* 8 turns over 3 */
	assert_int_equal(set.recent_owed, 18 - 8);
	assert_int_equal(set.n_recent, 3);
	draw_plan_make(&set, &options, &plan);
	training_set_advance(&set, &plan, 320);
	assert_int_equal(set.recent_owed, 0);
	assert_int_equal(set.n_recent, 0);
	training_set_free(&set);
}

static uint64_t owed(const struct training_set *set)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < set->n_recent; i++)
		sum += set->recent[(set->recent_head + i) % RECENT_MAX].left;
	return sum;
}

/* A job on a device is accounted for later: positives came meanwhile. The walk goes by the old length, recent draws are taken from the entries it saw. */
static void test_positives_come_while_a_job_runs(void **state)
{
	(void)state;
	struct training_set set = make_set(40, 60);
	struct learn_options options = options_of(32);
	struct draw_plan plan;
	options.recent_share = 0.25f;
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(training_set_add(&set, i % 40, i, i < 3 ? 6 : 0), 1);
	set.walk = 45;
	draw_plan_make(&set, &options, &plan);
	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(training_set_add(&set, i, 59, 6), 1);
	training_set_advance(&set, &plan, 48); /* 8 + 8 recent turns over 3 entries; 32 walked */
	assert_int_equal(set.step, 2);
	assert_int_equal(set.walk, (45 + 32) % 50);
	assert_int_equal(set.passes, 1);
	assert_int_equal(set.passes_here, 1);
	assert_int_equal(set.recent_owed, 33 * 6 - 16);
	assert_int_equal(set.recent_owed, owed(&set));
	for (uint32_t i = 0; i < set.n_recent; i++) { /* the newcomers have all of theirs */
		const struct recent_positive *entry = &set.recent[(set.recent_head + i) % RECENT_MAX];
		assert_true(entry->item == 59 ? entry->left == 6 : entry->left < 6);
	}
	training_set_free(&set);
}

/* The same when newer entries have pushed the job's oldest out of the ring, and when the set was cleared and filled anew. */
static void test_ring_changes_while_a_job_runs(void **state)
{
	(void)state;
	struct training_set set = make_set(RECENT_MAX / 1000 + 2, 1000);
	struct learn_options options = options_of(32);
	struct draw_plan plan;
	uint32_t n = 0;
	options.recent_share = 0.25f;
	for (; n < 4; n++)
		assert_int_equal(training_set_add(&set, n / 1000, n % 1000, 5), 1);
	draw_plan_make(&set, &options, &plan);
	for (; n < RECENT_MAX + 2; n++) /* the two oldest go */
		assert_int_equal(training_set_add(&set, n / 1000, n % 1000, 1), 1);
	assert_int_equal(set.recent_owed, 2 * 5 + RECENT_MAX - 2);
	training_set_advance(&set, &plan, 32); /* 8 turns over 4 entries: 2 each, of which two entries are there */
	assert_int_equal(set.recent_owed, 2 * 5 - 4 + RECENT_MAX - 2);
	assert_int_equal(set.recent_owed, owed(&set));
	assert_int_equal(set.n_recent, RECENT_MAX);
	draw_plan_make(&set, &options, &plan);
	training_set_clear(&set);
	for (n = 0; n < 20; n++)
		assert_int_equal(training_set_add(&set, 0, n, 5), 1);
	training_set_advance(&set, &plan, 32);
	assert_int_equal(set.recent_owed, 100); /* none of these were the job's */
	assert_int_equal(set.recent_owed, owed(&set));
	draw_plan_make(&set, &options, &plan);
	training_set_clear(&set); /* and left empty */
	training_set_advance(&set, &plan, 32);
	assert_int_equal(set.recent_owed, 0);
	training_set_free(&set);
}

static void test_recent_ring_is_bounded(void **state)
{
	(void)state;
	struct training_set set = make_set(RECENT_MAX / 1000 + 2, 1000);
	for (uint32_t i = 0; i < RECENT_MAX + 500; i++)
		assert_int_equal(training_set_add(&set, i / 1000, i % 1000, 2), 1);
	assert_int_equal(set.n_recent, RECENT_MAX);
	assert_int_equal(set.recent_owed, 2 * (uint64_t)RECENT_MAX);
	assert_int_equal(set.n_positives, RECENT_MAX + 500);
	training_set_free(&set);
}

/* Users with an even index have skips; one of them is a positive and must not come out. */
static size_t list_skips(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	*(uint32_t *)ctx += 1;
	assert_true(max >= 4);
	if (user % 2)
		return 0;
	ret_items[0] = 50;
	ret_items[1] = 51;
	ret_items[2] = 3;          /* a positive of every user */
	ret_items[3] = 60;         /* no such item */
	return 4;
}

static void test_skips_in_their_share(void **state)
{
	(void)state;
	struct training_set set = make_set(40, 60);
	struct learn_options options = options_of(1000);
	options.skip_share = 0.4f;
	static struct draw draws[20000];
	uint32_t calls = 0;
	const struct skip_source source = {.list = list_skips, .ctx = &calls};
	set.skips = &source;
	for (uint32_t u = 0; u < 40; u++)
		for (uint32_t i = 0; i < 10; i++)
			training_set_add(&set, u, i, 0);
	for (uint32_t i = 0; i < 50; i++)
		training_set_add_candidate(&set, i); /* 50 and 51 come from skips only */
	draw_all(&set, &options, 20000, draws);
	uint32_t skips = 0, even = 0;
	for (uint32_t n = 0; n < 20000; n++) {
		assert_false(training_set_has(&set, draws[n].user, draws[n].neg));
		assert_true(draws[n].neg < 60);
		even += draws[n].user % 2 == 0;
		if (draws[n].neg >= 50) {
			assert_true(draws[n].user % 2 == 0);
			skips++;
		}
	}
	double share = (double)skips / even; /* 0.4, of which half is a valid skip */
	assert_true(share > 0.18 && share < 0.22);
	assert_true(calls > 7500 && calls < 8500);
	training_set_free(&set);
}

/* Fixed lists: any length, each place equally often, users behind the last one have none. */
static void test_fixed_skip_lists(void **state)
{
	(void)state;
	enum { N = 200, DRAWS = 40000 };
	static struct draw draws[DRAWS];
	static uint32_t items[N + 1], counts[400];
	const uint64_t offsets[] = {0, N, N + 1};
	const struct skip_source source = {.offsets = offsets, .items = items, .n_users = 2};
	struct training_set set = make_set(3, 400);
	for (uint32_t i = 0; i < N; i++)
		items[i] = 100 + i;
	items[N] = 399;
	for (uint32_t u = 0; u < 3; u++)
		assert_int_equal(training_set_add(&set, u, u, 0), 1);
	for (uint32_t i = 3; i < 10; i++)
		(void)training_set_add_candidate(&set, i);
	set.skips = &source;
	struct learn_options options = options_of(64);
	options.skip_share = 1.0f;
	draw_all(&set, &options, DRAWS, draws);
	memset(counts, 0, sizeof counts);
	for (uint32_t d = 0; d < DRAWS; d++) {
		if (draws[d].user == 0)
			counts[draws[d].neg]++;
		else
			assert_true(draws[d].user == 1 ? draws[d].neg == 399 : draws[d].neg < 10);
	}
	double chi2 = 0, expected = (double)DRAWS / 3 / (double)N;
	for (uint32_t i = 0; i < N; i++)
		chi2 += ((double)counts[100 + i] - expected) * ((double)counts[100 + i] - expected) / expected;
	assert_true(chi2 < 268 && chi2 > 140); /* 199 degrees of freedom: 0.1 % above and below */
	training_set_free(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_holds_exactly_what_was_added),
		cmocka_unit_test(test_order_is_uniform),
		cmocka_unit_test(test_swaps_can_be_replayed),
		cmocka_unit_test(test_negatives_uniform_and_never_positive),
		cmocka_unit_test(test_users_with_all_or_all_but_one),
		cmocka_unit_test(test_draws_are_a_function_of_step_and_index),
		cmocka_unit_test(test_draws_in_stages_are_the_same),
		cmocka_unit_test(test_walk_visits_each_positive_once_a_pass),
		cmocka_unit_test(test_recent_positives_get_their_passes),
		cmocka_unit_test(test_recent_rounds_are_counted),
		cmocka_unit_test(test_positives_come_while_a_job_runs),
		cmocka_unit_test(test_ring_changes_while_a_job_runs),
		cmocka_unit_test(test_recent_ring_is_bounded),
		cmocka_unit_test(test_fixed_skip_lists),
		cmocka_unit_test(test_skips_in_their_share),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
