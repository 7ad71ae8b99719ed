/*
 * learner.c: the training set, a backend and the place in the walk, under one roof (learn.h). One thread, the engine's.
 *
 * The learner owns its options and its training set; the backend keeps pointers to both. The set is the host's truth: it takes everything that is added,
 * whatever becomes of a device that mirrors it, and a backend opened later begins from it. Jobs, copies and the backend's life: learner_job.c.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/learner_internal.h"

#define BATCH_MAX (1u << 20)
#define WEIGHT_COMPLETION_MIN 0.01
#define WEIGHT_ORIGIN_US 1577836800e6 /* 2020-01-01: near enough that a float holds the logarithm of an age */
#define BATCH_MAX_DETERMINISTIC (1u << 16) /* fixed-point sums hold so many (bpr_math.h) */

void learn_options_default(struct learn_options *options)
{
	*options = (struct learn_options){
		.emb_dim = 64,
		.seed = 42,
		.threads = 2,
		.batch_size = 2048,
		.optimizer = OPTIMIZER_ADAGRAD,
		.learning_rate = 0.02f,
		.reg_user = 0.01f,
		.reg_pos = 0.01f,
		.reg_neg = 0.01f,
		.reg_bias = 0.0f,
		.adagrad_forget = 0.0f,
		.init_scale = 1.0f,
		.skip_share = 0.0f,
		.popular_share = 0.0f,
		.popular_power = 0.5f,
		.hard_share = 0.0f,
		.hard_of = 4,
		.recent_passes = 10,
		.recent_share = 0.25f,
		.step_norm_max = 10.0f,
	};
}

int weight_rule_is_on(const struct weight_rule *rule)
{
	return rule->completion_power > 0 || rule->half_life_days > 0;
}

float weight_rule_log2(const struct weight_rule *rule, double completion, int64_t time_us)
{
	double log = 0;
	if (rule->completion_power > 0)
		log += rule->completion_power * log2(completion > WEIGHT_COMPLETION_MIN ? completion : WEIGHT_COMPLETION_MIN);
	if (rule->half_life_days > 0)
		log += ((double)time_us - WEIGHT_ORIGIN_US) / 86400e6 / rule->half_life_days;
	return (float)log;
}

static int in_range(float value, float min, float max)
{
	return value >= min && value <= max; /* false for NaN */
}

const char *learn_options_fault(const struct learn_options *o)
{
	if (o->emb_dim < 1 || o->emb_dim > 512)
		return "emb_dim must be 1..512";
	if (o->threads < 1 || o->threads > 1024)
		return "threads must be 1..1024";
	if (o->batch_size < 1 || o->batch_size > (o->deterministic ? BATCH_MAX_DETERMINISTIC : BATCH_MAX))
		return o->deterministic ? "batch_size must be 1..65536 in deterministic mode" : "batch_size must be 1..1048576";
	if (o->optimizer != OPTIMIZER_SGD && o->optimizer != OPTIMIZER_ADAGRAD)
		return "unknown optimizer";
	if (o->loss != LOSS_BPR && o->loss != LOSS_BCE)
		return "unknown loss";
	if (o->precision != PRECISION_FP32 && o->precision != PRECISION_BF16)
		return "unknown precision";
	if (o->order != ORDER_SHUFFLED && o->order != ORDER_GROUPED)
		return "unknown order";
	if (o->precision != PRECISION_FP32 && o->deterministic)
		return "deterministic mode keeps its tables in fp32";
	if (!in_range(o->reg_user, 0.0f, 1e6f) || !in_range(o->reg_pos, 0.0f, 1e6f) || !in_range(o->reg_neg, 0.0f, 1e6f) ||
	    !in_range(o->reg_bias, 0.0f, 1e6f))
		return "regularisation must not be negative";
	if (!in_range(o->adagrad_forget, 0.0f, 1.0f))
		return "adagrad_forget must be 0..1";
	if (!in_range(o->init_scale, 0.0f, 1e6f))
		return "init_scale must not be negative";
	if (!in_range(o->skip_share, 0.0f, 1.0f) || !in_range(o->recent_share, 0.0f, 1.0f))
		return "skip_share and recent_share must be 0..1";
	if (!in_range(o->popular_share, 0.0f, 1.0f) || !in_range(o->hard_share, 0.0f, 1.0f))
		return "popular_share and hard_share must be 0..1";
	if (o->skip_share + o->popular_share + o->hard_share > 1.0001f)
		return "skip_share, popular_share and hard_share must be at most 1 together";
	if (!in_range(o->popular_power, 0.0f, 2.0f))
		return "popular_power must be 0..2";
	if (o->hard_of < 1 || o->hard_of > HARD_OF_MAX)
		return "hard_of must be 1..64";
	if (!in_range(o->step_norm_max, 1e-6f, 1e6f))
		return "step_norm_max must be positive";
	return NULL;
}

int learner_new(const struct learn_options *options, const struct backend_ops *ops, struct learner **ret_learner, char *errstr,
                size_t errstr_size)
{
	const char *fault = learn_options_fault(options);
	if (fault) {
		snprintf(errstr, errstr_size, "%s", fault);
		return -EINVAL;
	}
	struct learner *learner = calloc(1, sizeof *learner);
	if (!learner) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	learner->options = *options;
	learner->ops = ops;
	training_set_init(&learner->set, options->seed);
	int rc = ops->open(&learner->options, &learner->set, &learner->backend, errstr, errstr_size);
	if (rc < 0) {
		learner_free(learner);
		return rc;
	}
	*ret_learner = learner;
	return 0;
}

void learner_free(struct learner *learner)
{
	struct train_report report;
	if (!learner)
		return;
	if (learner->backend && !(learner->hung && learner->ops->poll(learner->backend, &report) == 0))
		learner->ops->close(learner->backend); /* one that hangs would not come back from it: its memory stays until the process ends */
	(void)learner_hung(learner);
	training_set_free(&learner->set);
	popularity_free(&learner->popularity);
	free(learner);
}

int learner_grow(struct learner *learner, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	int rc = learner->fault ? 0 : learner_note(learner, learner->ops->grow(learner->backend, n_users, n_items, user_ids, item_ids), "making room for rows");
	if (rc == 0 || learner->fault)
		rc = training_set_grow(&learner->set, n_users, n_items);
	if (rc < 0)
		return rc;
	learner->n_users = n_users > learner->n_users ? n_users : learner->n_users;
	learner->n_items = n_items > learner->n_items ? n_items : learner->n_items;
	learner->user_ids = user_ids;
	learner->item_ids = item_ids;
	return 0;
}

int learner_add_positives(struct learner *learner, const struct user_item *pairs, size_t n, int recent)
{
	return learner_add_weighted(learner, pairs, NULL, n, recent);
}

int learner_add_weighted(struct learner *learner, const struct user_item *pairs, const float *log2_weights, size_t n, int recent)
{
	uint32_t passes = recent && learner->options.recent_share > 0.0f ? learner->options.recent_passes : 0;
	int rc = 0;
	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = training_set_add_weighted(&learner->set, pairs[i].user, pairs[i].item, passes, log2_weights ? log2_weights[i] : 0.0f);
	return rc < 0 ? rc : learner_tell_changed(learner);
}

int learner_add_candidates(struct learner *learner, const uint32_t *items, size_t n)
{
	int rc = 0;
	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = training_set_add_candidate(&learner->set, items[i]);
	return rc < 0 ? rc : learner_tell_changed(learner);
}

void learner_clear_positives(struct learner *learner)
{
	training_set_clear(&learner->set);
	(void)learner_tell_changed(learner);
}

void learner_set_skips(struct learner *learner, const struct skip_source *source)
{
	learner->skips = source ? *source : (struct skip_source){0};
	learner->set.skips = source ? &learner->skips : NULL;
}

uint64_t learner_n_positives(const struct learner *learner)
{
	return learner->set.n_positives;
}

int learner_is_positive(const struct learner *learner, uint32_t user, uint32_t item)
{
	return training_set_has(&learner->set, user, item);
}

uint32_t learner_user_positives(const struct learner *learner, uint32_t user)
{
	return user < learner->set.n_users ? learner->set.user_positives[user] : 0;
}

size_t learner_recent_waiting(const struct learner *learner)
{
	return learner->set.recent_owed;
}

const uint32_t *learner_candidates(const struct learner *learner, size_t *ret_n)
{
	*ret_n = learner->set.n_candidates;
	return learner->set.candidates;
}

int learner_set_options(struct learner *learner, const struct learn_options *options)
{
	const struct learn_options *old = &learner->options;
	if (learn_options_fault(options) || options->emb_dim != old->emb_dim || options->seed != old->seed || options->threads != old->threads ||
	    options->precision != old->precision || options->order != old->order || options->deterministic != old->deterministic)
		return -EINVAL;
	learner->options = *options; /* a part under way goes by those it began with (backend.h) */
	return 0;
}

struct learner_progress learner_get_progress(const struct learner *learner)
{
	return (struct learner_progress){
		.seed = learner->options.seed,
		.step = learner->set.step,
		.triples = learner->triples,
		.walk = learner->set.walk,
		.passes = learner->set.passes,
		.rollbacks = learner->rollbacks,
	};
}

void learner_set_progress(struct learner *learner, const struct learner_progress *progress)
{
	learner->set.step = progress->step;
	learner->set.walk = progress->walk;
	learner->set.passes = progress->passes;
	learner->triples = progress->triples;
	learner->rollbacks = progress->rollbacks;
}

const char *learner_backend_name(const struct learner *learner)
{
	return learner->ops->name;
}
