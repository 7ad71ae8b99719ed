/*
 * learn_fixture.h: a small world for the tests of trainer/learn. Each test includes it once.
 */
#ifndef TESTS_UNIT_LEARN_FIXTURE_H
#define TESTS_UNIT_LEARN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/learn/learn.h"
#include "trainer/learn/philox.h"

#define WORLD_USERS_MAX 512u
#define WORLD_ITEMS_MAX 512u

/* Stable external ids, far from the indexes. */
static int64_t world_user_ids[WORLD_USERS_MAX], world_item_ids[WORLD_ITEMS_MAX];

static inline void world_ids(void)
{
	for (uint32_t i = 0; i < WORLD_USERS_MAX; i++)
		world_user_ids[i] = (int64_t)i * 1000003 + 7;
	for (uint32_t i = 0; i < WORLD_ITEMS_MAX; i++)
		world_item_ids[i] = ((int64_t)i << 33) + 11;
}

/* Random bits of a test's own, by number. */
static inline uint32_t world_random(uint32_t n, uint32_t stream)
{
	return philox4x32(n, stream, 0, 0xffffffffu, 1, 2).v[0];
}

static inline struct learn_options world_options(uint32_t dim)
{
	struct learn_options options;
	learn_options_default(&options);
	options.emb_dim = dim;
	options.seed = 0x1234567890abcdefu;
	options.threads = 1;
	options.batch_size = 64;
	options.learning_rate = 0.05f;
	options.reg_user = 0.013f;
	options.reg_pos = 0.017f;
	options.reg_neg = 0.011f;
	options.reg_bias = 0.005f;
	options.adagrad_forget = 0.0f;
	options.init_scale = 4.0f;
	options.skip_share = 0.0f;
	options.step_norm_max = 10.0f;
	return options;
}

/* A learner with n_users x n_items rows, no positives. */
static inline struct learner *world_learner(const struct learn_options *options, uint32_t n_users, uint32_t n_items)
{
	struct learner *learner = NULL;
	char errstr[256];
	world_ids();
	assert_int_equal(learner_new(options, &backend_cpu, &learner, errstr, sizeof errstr), 0);
	assert_int_equal(learner_grow(learner, n_users, n_items, world_user_ids, world_item_ids), 0);
	return learner;
}

/* Gives every user `each` positives out of his own third of the items, and makes all items candidates. */
static inline void world_fill(struct learner *learner, uint32_t n_users, uint32_t n_items, uint32_t each)
{
	for (uint32_t u = 0; u < n_users; u++) {
		for (uint32_t k = 0; k < each; k++) {
			struct user_item pair = {.user = u, .item = (u % 3) * (n_items / 3) + world_random(u * each + k, 5) % (n_items / 3)};
			assert_int_equal(learner_add_positives(learner, &pair, 1, 0), 0);
		}
	}
	for (uint32_t i = 0; i < n_items; i++)
		assert_int_equal(learner_add_candidates(learner, &i, 1), 0);
}

static inline struct train_report world_train(struct learner *learner, uint64_t triples, float rate)
{
	struct train_job job = {.triples_max = triples, .learning_rate = rate};
	struct train_report report;
	assert_int_equal(learner_train(learner, &job, &report), 0);
	return report;
}

/* 1: the same rows with the same bits. */
static inline int same_tables(const struct tables *a, const struct tables *b)
{
	return a->n_users == b->n_users && a->n_items == b->n_items && a->dim == b->dim &&
	       memcmp(a->U, b->U, (size_t)a->n_users * a->dim * sizeof(float)) == 0 &&
	       memcmp(a->V, b->V, (size_t)a->n_items * a->dim * sizeof(float)) == 0 &&
	       memcmp(a->bi, b->bi, a->n_items * sizeof(float)) == 0 && memcmp(a->acc_user, b->acc_user, a->n_users * sizeof(float)) == 0 &&
	       memcmp(a->acc_item, b->acc_item, a->n_items * sizeof(float)) == 0;
}

#endif
