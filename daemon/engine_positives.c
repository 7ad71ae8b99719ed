/*
 * engine_positives.c: positives on their way from the histories to the learner, with their weights when training.weight_completion or training.half_life_days asks
 * for them. Engine thread, while nothing is trained.
 *
 * A weight is worked out once, from the watch as it stands when the pair becomes a positive; a rebuild and a restart work it out anew.
 */
#include "daemon/engine_internal.h"

/* Collected in blocks. */
struct positive_block {
	struct engine *engine;
	int recent;
	struct user_item pairs[1024];
	float weights[1024]; /* log2 */
	size_t n;
	int rc;
};

static void block_flush(struct positive_block *block)
{
	struct learner *learner = block->engine->learner;

	if (block->rc == 0 && block->n > 0 && weight_rule_is_on(&block->engine->config.weights))
		block->rc = learner_add_weighted(learner, block->pairs, block->weights, block->n, block->recent);
	else if (block->rc == 0 && block->n > 0)
		block->rc = learner_add_positives(learner, block->pairs, block->n, block->recent);
	block->n = 0;
}

static void block_put(struct positive_block *block, uint32_t user, const struct watch_fact *watch)
{
	const struct state *state = block->engine->state;
	const int64_t time_us = watch->best_us != STATE_TIME_NONE ? watch->best_us : watch->last_us;

	block->weights[block->n] = weight_rule_log2(&block->engine->config.weights, (double)state_completion(state, watch), time_us);
	block->pairs[block->n++] = (struct user_item){ .user = user, .item = watch->item };
	if (block->n == sizeof(block->pairs) / sizeof(block->pairs[0]))
		block_flush(block);
}

static const struct watch_fact *watch_of(const struct user_facts *facts, uint32_t item)
{
	for (uint32_t i = 0; i < facts->n_watches; i++) {
		if (facts->watches[i].item == item)
			return &facts->watches[i];
	}
	return NULL;
}

int engine_add_positives(struct engine *engine, const struct user_item *pairs, size_t n, int recent)
{
	struct positive_block block = { .engine = engine, .recent = recent };

	if (!weight_rule_is_on(&engine->config.weights))
		return learner_add_positives(engine->learner, pairs, n, recent);
	for (size_t i = 0; i < n; i++) {
		struct user_facts facts;

		state_user_facts(engine->state, pairs[i].user, &facts);
		const struct watch_fact *watch = watch_of(&facts, pairs[i].item);
		if (watch != NULL)
			block_put(&block, pairs[i].user, watch);
	}
	block_flush(&block);
	return block.rc;
}

int engine_rebuild_positives(struct engine *engine)
{
	struct positive_block block = { .engine = engine };
	const uint32_t n_users = state_n_users(engine->state);

	learner_clear_positives(engine->learner);
	for (uint32_t user = 0; user < n_users; user++) {
		struct user_facts facts;

		state_user_facts(engine->state, user, &facts);
		for (uint32_t i = 0; i < facts.n_watches; i++) {
			if (state_is_positive(engine->state, &facts.watches[i]))
				block_put(&block, user, &facts.watches[i]);
		}
	}
	block_flush(&block);
	return block.rc;
}
