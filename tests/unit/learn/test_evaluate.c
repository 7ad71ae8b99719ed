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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_to_naive),
		cmocka_unit_test(test_by_hand),
		cmocka_unit_test(test_progress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
