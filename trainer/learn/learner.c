/*
 * learner.c: the training set, a backend and the place in the walk, under one roof (learn.h). One thread, the engine's.
 *
 * The learner owns its options and its training set; the backend keeps pointers to both. Where triples stand (step, walk, passes) lives in the set and
 * moves after each job by what the job drew. A job is handed on in parts that end with a pass when Adagrad is to forget, and with the draws owed to
 * recent positives, since both change what is drawn or how.
 */
#include "trainer/learn/learn.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/learn/negatives.h"
#include "trainer/learn/sampler.h"

#define BATCH_MAX (1u << 20)
#define WEIGHT_COMPLETION_MIN 0.01
#define WEIGHT_ORIGIN_US 1577836800e6 /* 2020-01-01: near enough that a float holds the logarithm of an age */
#define BATCH_MAX_DETERMINISTIC (1u << 16) /* fixed-point sums hold so many (bpr_math.h) */

struct learner {
	struct learn_options options;
	const struct backend_ops *ops;
	struct backend *backend;
	struct training_set set;
	struct skip_source skips;
	struct popularity popularity; /* while popular_share is above 0 */
	struct draw_plan plan; /* of the job that runs or ran last */
	int running;           /* an asynchronous job has not been accounted for */
	int broken;            /* non-finite parameters were seen; the next push is a rollback */
	uint64_t triples, rollbacks;
};

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

/* What is wrong with the options, or NULL. */
static const char *options_fault(const struct learn_options *o)
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
	const char *fault = options_fault(options);
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
	if (!learner)
		return;
	if (learner->backend)
		learner->ops->close(learner->backend);
	training_set_free(&learner->set);
	popularity_free(&learner->popularity);
	free(learner);
}

static int tell_changed(struct learner *learner)
{
	return learner->ops->changed ? learner->ops->changed(learner->backend) : 0;
}

int learner_grow(struct learner *learner, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	int rc = learner->ops->grow(learner->backend, n_users, n_items, user_ids, item_ids);
	if (rc == 0)
		rc = training_set_grow(&learner->set, n_users, n_items);
	return rc;
}

int learner_add_positives(struct learner *learner, const struct user_item *pairs, size_t n, int recent)
{
	uint32_t passes = recent && learner->options.recent_share > 0.0f ? learner->options.recent_passes : 0;
	int rc = 0;
	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = training_set_add(&learner->set, pairs[i].user, pairs[i].item, passes);
	return rc < 0 ? rc : tell_changed(learner);
}

int learner_add_weighted(struct learner *learner, const struct user_item *pairs, const float *log2_weights, size_t n, int recent)
{
	uint32_t passes = recent && learner->options.recent_share > 0.0f ? learner->options.recent_passes : 0;
	int rc = 0;
	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = training_set_add_weighted(&learner->set, pairs[i].user, pairs[i].item, passes, log2_weights[i]);
	return rc < 0 ? rc : tell_changed(learner);
}

int learner_add_candidates(struct learner *learner, const uint32_t *items, size_t n)
{
	int rc = 0;
	for (size_t i = 0; i < n && rc >= 0; i++)
		rc = training_set_add_candidate(&learner->set, items[i]);
	return rc < 0 ? rc : tell_changed(learner);
}

void learner_clear_positives(struct learner *learner)
{
	training_set_clear(&learner->set);
	(void)tell_changed(learner);
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

size_t learner_recent_waiting(const struct learner *learner)
{
	return learner->set.recent_owed;
}

const uint32_t *learner_candidates(const struct learner *learner, size_t *ret_n)
{
	*ret_n = learner->set.n_candidates;
	return learner->set.candidates;
}

/* Takes a finished job into the books. */
static void account(struct learner *learner, const struct train_report *report)
{
	training_set_advance(&learner->set, &learner->plan, report->triples + report->rejected);
	learner->triples += report->triples;
	learner->broken |= report->nonfinite;
	learner->running = 0;
}

/* Triples of the next part of a job. */
static uint64_t part_size(const struct learner *learner, const struct draw_plan *plan, uint64_t left)
{
	const struct training_set *set = &learner->set;
	uint64_t steps = UINT64_MAX;
	uint32_t walked = plan->batch - plan->recent_per_step;
	if (learner->options.adagrad_forget > 0.0f && learner->options.optimizer == OPTIMIZER_ADAGRAD && walked)
		steps = (set->n_positives - set->walk % set->n_positives + walked - 1) / walked;
	if (plan->recent_per_step) {
		uint64_t owed = (set->recent_owed + plan->recent_per_step - 1) / plan->recent_per_step;
		steps = owed < steps ? owed : steps;
	}
	if (steps == 0)
		steps = 1;
	/* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a plan is never without triples */
	return steps < left / plan->batch ? steps * plan->batch : left;
}

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Adds a part's report to the job's; loss stands for a mean weighted by triples. */
static void merge(struct train_report *sum, const struct train_report *part)
{
	double all = (double)(sum->triples + part->triples);
	if (!isnan(part->loss))
		sum->loss = isnan(sum->loss) ? part->loss : (sum->loss * (double)sum->triples + part->loss * (double)part->triples) / all;
	sum->triples += part->triples;
	sum->rejected += part->rejected;
	sum->nonfinite |= part->nonfinite;
}

/* The grouped order is made when positives have come since the last time. */
static int regroup(struct learner *learner)
{
	if (learner->options.order != ORDER_GROUPED || learner->set.n_grouped == learner->set.n_positives)
		return 0;
	int rc = training_set_group(&learner->set);
	return rc < 0 ? rc : tell_changed(learner);
}

int learner_train(struct learner *learner, const struct train_job *job, struct train_report *ret_report)
{
	struct train_report sum = {.loss = (double)NAN}, part = {.loss = (double)NAN};
	struct train_job rest = *job;
	int64_t deadline_us = job->budget_us > 0 ? now_us() + job->budget_us : 0;
	if (learner->running)
		return -EBUSY;
	while (rest.triples_max && learner->set.n_positives && learner->set.n_candidates) {
		struct train_job next = rest;
		int rc = learner->options.popular_share > 0.0f ? popularity_refresh(&learner->popularity, &learner->set, learner->options.popular_power) : 0;
		if (rc < 0)
			return rc;
		rc = regroup(learner);
		if (rc < 0)
			return rc;
		draw_plan_make(&learner->set, &learner->options, &learner->plan);
		next.triples_max = part_size(learner, &learner->plan, rest.triples_max);
		rc = learner->ops->train(learner->backend, &next, &part);
		if (rc < 0)
			return rc;
		learner->running = 1;
		if (!learner->ops->poll(learner->backend, &part))
			break; /* asynchronous: accounted for by poll and wait */
		account(learner, &part);
		merge(&sum, &part);
		rest.triples_max -= next.triples_max;
		if (part.nonfinite)
			break;
		if (deadline_us) {
			rest.budget_us = deadline_us - now_us();
			if (rest.budget_us <= 0)
				break;
		}
	}
	*ret_report = sum;
	return 0;
}

int learner_poll(struct learner *learner, struct train_report *ret_report)
{
	struct train_report report;
	if (!learner->ops->poll(learner->backend, &report))
		return 0;
	if (learner->running)
		account(learner, &report);
	*ret_report = report;
	return 1;
}

int learner_wait(struct learner *learner, struct train_report *ret_report)
{
	struct train_report report;
	int rc = learner->ops->wait(learner->backend, &report);
	if (rc < 0)
		return rc;
	if (learner->running)
		account(learner, &report);
	*ret_report = report;
	return 0;
}

int learner_pull(struct learner *learner, struct tables *copy)
{
	int rc = learner->ops->pull(learner->backend, copy);
	if (rc == -ERANGE)
		learner->broken = 1;
	return rc;
}

int learner_push(struct learner *learner, const struct tables *copy)
{
	int rc = learner->ops->push(learner->backend, copy);
	if (rc == 0 && learner->broken) {
		learner->broken = 0;
		learner->rollbacks++;
	}
	return rc;
}

int learner_set_options(struct learner *learner, const struct learn_options *options)
{
	const struct learn_options *old = &learner->options;
	if (options_fault(options) || options->emb_dim != old->emb_dim || options->seed != old->seed || options->threads != old->threads ||
	    options->precision != old->precision || options->order != old->order || options->deterministic != old->deterministic || learner->running)
		return -EINVAL;
	learner->options = *options;
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
