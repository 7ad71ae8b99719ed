/*
 * test_evaluate.c: the ranking metrics against a naive implementation that sorts everything, with ties and masks, over thread counts; a case by hand.
 */
#include <math.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/evaluate.h"

#define USERS 150u
#define ITEMS 83u

static uint32_t relevant[USERS][ITEMS], masked[USERS][ITEMS];
static struct rank_user users[USERS];
static float world_scores[USERS][ITEMS];

static void make_world(uint32_t levels)
{
	for (uint32_t u = 0; u < USERS; u++) {
		users[u] = (struct rank_user){.user = u, .relevant = relevant[u], .masked = masked[u]};
		for (uint32_t i = 0; i < ITEMS; i++) {
			uint32_t kind = world_random(u * ITEMS + i, 80) % 20;
			if (kind < u % 5) /* users 0, 5, ...: none relevant */
				relevant[u][users[u].n_relevant++] = i;
			else if (kind >= 16)
				masked[u][users[u].n_masked++] = i;
			world_scores[u][i] = (float)(world_random(u * ITEMS + i, 81) % levels); /* few levels: many ties */
		}
	}
}

static void world_score(void *ctx, uint32_t user, float *scores)
{
	(void)ctx;
	memcpy(scores, world_scores[user], sizeof world_scores[user]);
}

static int contains(const uint32_t *list, size_t n, uint32_t item)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == item)
			return 1;
	return 0;
}

static const float *sort_scores;

static int by_score(const void *pa, const void *pb)
{
	uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;
	if (sort_scores[a] != sort_scores[b])
		return sort_scores[a] > sort_scores[b] ? -1 : 1;
	return a < b ? -1 : 1;
}

static void naive(uint32_t k, struct rank_metrics *m)
{
	memset(m, 0, sizeof *m);
	uint32_t auc_users = 0;
	for (uint32_t u = 0; u < USERS; u++) {
		uint32_t order[ITEMS], n = 0, hits = 0;
		double gain = 0, ideal = 0, right = 0, pairs = 0, first = 0;
		if (users[u].n_relevant == 0)
			continue;
		for (uint32_t i = 0; i < ITEMS; i++)
			if (!contains(masked[u], users[u].n_masked, i))
				order[n++] = i;
		sort_scores = world_scores[u];
		qsort(order, n, sizeof *order, by_score);
		for (uint32_t r = 0; r < n; r++) {
			int hit = contains(relevant[u], users[u].n_relevant, order[r]);
			if (hit && first == 0)
				first = 1.0 / (r + 1);
			if (r < k && hit) {
				hits++;
				gain += 1 / log2(r + 2.0);
			}
			if (r < k && r < users[u].n_relevant)
				ideal += 1 / log2(r + 2.0);
			for (uint32_t q = 0; q < n; q++) {
				if (!hit || contains(relevant[u], users[u].n_relevant, order[q]))
					continue;
				float a = world_scores[u][order[r]], b = world_scores[u][order[q]];
				right += a > b ? 1.0 : a == b ? 0.5 : 0.0;
				pairs++;
			}
		}
		m->users++;
		m->recall += (double)hits / (double)users[u].n_relevant;
		m->ndcg += gain / ideal;
		m->hit_rate += hits > 0;
		m->mrr += first;
		if (pairs > 0) {
			m->auc += right / pairs;
			auc_users++;
		}
	}
	m->recall /= (double)m->users;
	m->ndcg /= (double)m->users;
	m->hit_rate /= (double)m->users;
	m->mrr /= (double)m->users;
	m->auc /= auc_users;
}

static void assert_metrics(const struct rank_metrics *a, const struct rank_metrics *b)
{
	assert_int_equal(a->users, b->users);
	assert_true(fabs(a->recall - b->recall) < 1e-6);
	assert_true(fabs(a->ndcg - b->ndcg) < 1e-6);
	assert_true(fabs(a->hit_rate - b->hit_rate) < 1e-6);
	assert_true(fabs(a->mrr - b->mrr) < 1e-6);
	assert_true(fabs(a->auc - b->auc) < 1e-6);
}

static void test_equal_to_naive(void **state)
{
	static const uint32_t levels[] = {1, 2, 7, 100000}, ks[] = {1, 5, 20, ITEMS, 1000};
	(void)state;
	for (size_t l = 0; l < 4; l++) {
		make_world(levels[l]);
		for (size_t k = 0; k < 5; k++) {
			struct rank_metrics expected, got, one;
			naive(ks[k], &expected);
			assert_int_equal(rank_evaluate(users, USERS, ITEMS, ks[k], world_score, NULL, 1, NULL, &one), 0);
			assert_metrics(&one, &expected);
			assert_int_equal(rank_evaluate(users, USERS, ITEMS, ks[k], world_score, NULL, 3, NULL, &got), 0);
			assert_memory_equal(&one, &got, sizeof got); /* threads do not show */
		}
	}
}

static void by_hand_score(void *ctx, uint32_t user, float *scores)
{
	static const float by_hand[6] = {0.9f, 0.8f, 0.7f, 0.6f, 0.5f, NAN};
	(void)ctx;
	(void)user;
	memcpy(scores, by_hand, sizeof by_hand);
}

static void test_by_hand(void **state)
{
	static const uint32_t wanted[] = {2, 5}, seen[] = {0};
	(void)state;
	struct rank_user user = {.user = 0, .relevant = wanted, .n_relevant = 2, .masked = seen, .n_masked = 1};
	struct rank_metrics m;
	/* the list is 1, 2, 3, 4, 5 (its NaN ranks last); item 2 is second, item 5 fifth */
	assert_int_equal(rank_evaluate(&user, 1, 6, 3, by_hand_score, NULL, 1, NULL, &m), 0);
	assert_int_equal(m.users, 1);
	assert_true(fabs(m.recall - 0.5) < 1e-6);
	assert_true(fabs(m.hit_rate - 1.0) < 1e-6);
	assert_true(fabs(m.mrr - 0.5) < 1e-6);
	assert_true(fabs(m.ndcg - (1 / log2(3)) / (1 + 1 / log2(3))) < 1e-6);
	assert_true(fabs(m.auc - 2.0 / 6.0) < 1e-6);
	/* nobody to evaluate */
	user.n_relevant = 0;
	assert_int_equal(rank_evaluate(&user, 1, 6, 3, by_hand_score, NULL, 1, NULL, &m), 0);
	assert_int_equal(m.users, 0);
	assert_true(m.recall == 0.0);
}

struct heard {
	size_t last, calls;
};

static void hear(void *ctx, size_t done, size_t total)
{
	struct heard *heard = ctx;
	assert_int_equal(total, USERS);
	assert_true(done >= heard->last && done <= total);
	heard->last = done;
	heard->calls++;
}

static void test_progress(void **state)
{
	(void)state;
	struct heard heard = {0};
	struct rank_metrics m;
	make_world(100);
	assert_int_equal(rank_evaluate(users, USERS, ITEMS, 20, world_score, &heard, 1, hear, &m), 0);
	assert_int_equal(heard.last, USERS);
	assert_true(heard.calls >= 3);
}

/* Popularity and use of the lists, recomputed by sorting. */
static void naive_lists(uint32_t k, const float *percentile, float *popularity, uint32_t *shown)
{
	memset(shown, 0, ITEMS * sizeof *shown);
	for (uint32_t u = 0; u < USERS; u++) {
		uint32_t order[ITEMS], n = 0;
		double sum = 0;
		popularity[u] = NAN;
		if (users[u].n_relevant == 0)
			continue;
		for (uint32_t i = 0; i < ITEMS; i++)
			if (!contains(masked[u], users[u].n_masked, i))
				order[n++] = i;
		sort_scores = world_scores[u];
		qsort(order, n, sizeof *order, by_score);
		n = n < k ? n : k;
		for (uint32_t r = 0; r < n; r++) {
			sum += (double)percentile[order[r]];
			shown[order[r]]++;
		}
		popularity[u] = (float)(sum / n);
	}
}

static void test_several_ks_and_lists(void **state)
{
	static const uint32_t levels[] = {1, 3, 3, 100000};
	uint32_t ks[] = {7, 1, 30, 20};
	static float figures[USERS * RANK_COLUMNS_MAX], again[USERS * RANK_COLUMNS_MAX], popularity[USERS], percentile[ITEMS];
	static uint32_t shown[4 * ITEMS], expected[ITEMS];
	const uint32_t n_columns = rank_columns(4);
	(void)state;
	for (uint32_t i = 0; i < ITEMS; i++)
		percentile[i] = (float)world_random(i, 82) / 4294967296.0f;
	for (size_t l = 0; l < 4; l++) {
		make_world(levels[l]);
		ks[2] = l == 1 ? 1000 : 30; /* longer than there are items, or not */
		struct rank_request request = {.users = users, .n_users = USERS, .n_items = ITEMS, .ks = ks, .n_ks = 4, .score = world_score, .threads = 3,
		                               .percentile = percentile};
		struct rank_estimate means[RANK_COLUMNS_MAX];
		assert_int_equal(rank_users(&request, figures, shown), 0);
		assert_int_equal(rank_bootstrap(figures, USERS, n_columns, 0, 0, means), 0);
		for (uint32_t k = 0; k < 4; k++) {
			struct rank_metrics m;
			naive(ks[k], &m);
			assert_true(fabs(means[rank_column(k, RANK_RECALL)].mean - m.recall) < 1e-6);
			assert_true(fabs(means[rank_column(k, RANK_NDCG)].mean - m.ndcg) < 1e-6);
			assert_true(fabs(means[rank_column(k, RANK_HIT_RATE)].mean - m.hit_rate) < 1e-6);
			assert_true(fabs(means[RANK_MRR].mean - m.mrr) < 1e-6 && fabs(means[RANK_AUC].mean - m.auc) < 1e-6);
			naive_lists(ks[k], percentile, popularity, expected);
			assert_memory_equal(shown + k * ITEMS, expected, sizeof expected);
			for (uint32_t u = 0; u < USERS; u++) {
				float got = figures[u * n_columns + rank_column(k, RANK_POPULARITY)];
				assert_true(isnan(popularity[u]) ? isnan(got) : fabsf(got - popularity[u]) < 1e-6f);
			}
		}
		request.percentile = NULL;
		assert_int_equal(rank_users(&request, again, NULL), 0);
		assert_true(isnan(again[1 * n_columns + rank_column(0, RANK_POPULARITY)]));
		assert_true(again[1 * n_columns + RANK_MRR] == figures[1 * n_columns + RANK_MRR]);
	}
}

/* The interval of a mean of many values is close to the one that the normal distribution gives. */
static void test_bootstrap(void **state)
{
	enum { N = 4000 };
	static float values[N * 2], few[6] = {1, NAN, 3, NAN, 5, NAN};
	struct rank_estimate e[2], again[2], other[2];
	double sum = 0, squares = 0;
	size_t n = 0;
	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		values[2 * i] = (float)world_random(i, 83) / 4294967296.0f;
		values[2 * i + 1] = i % 4 ? NAN : values[2 * i] * 10;
		sum += (double)values[2 * i];
		squares += (double)values[2 * i] * (double)values[2 * i];
	}
	assert_int_equal(rank_bootstrap(values, N, 2, 1000, 7, e), 0);
	assert_int_equal(rank_bootstrap(values, N, 2, 1000, 7, again), 0);
	assert_memory_equal(e, again, sizeof e);
	assert_int_equal(rank_bootstrap(values, N, 2, 1000, 8, other), 0);
	assert_true(other[0].low != e[0].low && other[0].mean == e[0].mean);
	const double n_values = N;
	double mean = sum / n_values, half = 1.96 * sqrt((squares / n_values - mean * mean) / n_values);
	assert_true(fabs(e[0].mean - mean) < 1e-9);
	assert_true(fabs((e[0].high - e[0].low) / 2 / half - 1) < 0.1);
	assert_true(fabs(e[0].low - (mean - half)) < 0.2 * half && fabs(e[0].high - (mean + half)) < 0.2 * half);
	for (sum = squares = 0, n = 0; n < N / 4; n++) {
		sum += (double)values[8 * n + 1];
		squares += (double)values[8 * n + 1] * (double)values[8 * n + 1];
	}
	mean = sum / (double)n;
	half = 1.96 * sqrt((squares / (double)n - mean * mean) / (double)n);
	assert_true(fabs(e[1].mean - mean) < 1e-6 && fabs((e[1].high - e[1].low) / 2 / half - 1) < 0.15); /* NaN rows do not count */
	assert_int_equal(rank_bootstrap(few, 3, 2, 0, 1, e), 0);
	assert_true(e[0].mean == 3 && e[0].low == 3 && e[0].high == 3 && isnan(e[1].mean));
	assert_int_equal(rank_bootstrap(few, 0, 2, 10, 1, e), 0);
	assert_true(isnan(e[0].mean) && isnan(e[0].low));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_to_naive),
		cmocka_unit_test(test_by_hand),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_several_ks_and_lists),
		cmocka_unit_test(test_bootstrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
