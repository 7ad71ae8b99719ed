/*
 * engine_positives.c: positives on their way from the histories to the learner, with their weights when training.weight_completion or training.half_life_days
 * asks for them. Engine thread.
 *
 * A weight is worked out once, from the watch as it stands when the pair becomes a positive; a rebuild and a restart work it out anew.
 */
#include "daemon/engine_internal.h"

/* Collected in blocks. */
struct positive_block {
	struct engine *engine;
	int recent, weighted;
	struct user_item pairs[1024];
	float weights[1024]; /* log2; of use when weighted */
	size_t n;
	int rc;
};

static struct positive_block block_of(struct engine *engine, int recent)
{
	return (struct positive_block){ .engine = engine, .recent = recent, .weighted = weight_rule_is_on(&engine->config.weights) };
}

static void block_flush(struct positive_block *block)
{
	if (block->rc == 0 && block->n > 0)
		block->rc = learner_add_weighted(block->engine->learner, block->pairs, block->weighted ? block->weights : NULL, block->n, block->recent);
	block->n = 0;
}

static void block_put(void *ctx, uint32_t user, const struct watch_fact *watch)
{
	struct positive_block *block = ctx;
	const int64_t time_us = watch->best_us != STATE_TIME_NONE ? watch->best_us : watch->last_us;

	if (block->weighted)
		block->weights[block->n] =
			weight_rule_log2(&block->engine->config.weights, (double)state_completion(block->engine->state, watch), time_us);
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
	struct positive_block block = block_of(engine, recent);

	if (!block.weighted)
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
	struct positive_block block = block_of(engine, 0);

	learner_clear_positives(engine->learner);
	state_for_each_positive(engine->state, block_put, &block);
	block_flush(&block);
	return block.rc;
}
