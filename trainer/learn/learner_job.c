/*
 * learner_job.c: jobs, copies of the parameters, and the backend's life (learn.h). One thread, the engine's.
 *
 * A job is handed on in parts that end with a pass when Adagrad is to forget, and with the draws owed to recent positives, since both change what is drawn or
 * how. A backend in host memory has done a part when train() returns. On a device the part runs on: the plan it was drawn by is kept, the training set may
 * change meanwhile, and when the part has ended it is accounted for as of that plan. The next part begins in the same call that sees the end, and the end of a
 * short part is waited for a moment, so that small parts do not leave a device idle.
 *
 * Where triples stand (step, walk, passes) moves when a part is accounted for and never before, so progress and pulled parameters belong together.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/learn/learner_internal.h"

#define SHORT_PART (1u << 16)    /* triples: a device does as many in less than the time below */
#define SHORT_PART_WAIT_US 100
#define SERIAL_SHIFT 48 /* tables.epoch: the backend's serial above, the backend's own mark below */
#define EPOCH_MASK (((uint64_t)1 << SERIAL_SHIFT) - 1)

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- faults ---- */

int learner_on_device(const struct learner *learner)
{
	return learner->ops->changed != NULL;
}

int learner_note(struct learner *learner, int rc, const char *what)
{
	struct device_facts facts = {0};
	if (rc >= 0 || learner->fault || !learner_on_device(learner) || (rc != -EIO && rc != -ENOMEM))
		return rc;
	if (learner->ops->facts && learner->backend)
		learner->ops->facts(learner->backend, &facts);
	learner->fault = rc;
	learner->job.running = 0; /* what it did is lost with the device and never counted */
	snprintf(learner->fault_text, sizeof learner->fault_text, "%s: %s: %s", learner->ops->name, what,
	         facts.trouble[0] ? facts.trouble : rc == -ENOMEM ? "out of device memory" : "the device is lost");
	return rc;
}

int learner_fault(const struct learner *learner, char *text, size_t text_size)
{
	if (text_size)
		snprintf(text, text_size, "%s", learner->fault ? learner->fault_text : "");
	return learner->fault;
}

int learner_tell_changed(struct learner *learner)
{
	if (!learner->ops->changed || learner->fault)
		return 0;
	int rc = learner_note(learner, learner->ops->changed(learner->backend), "taking changes of the training set over");
	return learner->fault ? 0 : rc;
}

/* ---- parts of a job ---- */

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

/* Adds a part's report to the job's; loss stands for a mean weighted by triples. */
static void merge(struct train_report *sum, const struct train_report *part)
{
	double all = (double)(sum->triples + part->triples);
	if (!isnan(part->loss))
		sum->loss = isnan(sum->loss) ? part->loss : (sum->loss * (double)sum->triples + part->loss * (double)part->triples) / all;
	sum->triples += part->triples;
	sum->rejected += part->rejected;
	sum->nonfinite |= part->nonfinite;
	sum->threads = part->threads;
}

/* The grouped order is made when positives have come since the last time. */
static int regroup(struct learner *learner)
{
	if (learner->options.order != ORDER_GROUPED || learner->set.n_grouped == learner->set.n_positives)
		return 0;
	int rc = training_set_group(&learner->set);
	return rc < 0 ? rc : learner_tell_changed(learner);
}

/* 1: a part is under way; 0: the job has come to its end; -errno. */
static int begin_part(struct learner *learner)
{
	struct learner_job *job = &learner->job;
	struct train_job next = job->left;
	struct train_report part = {.loss = (double)NAN};
	if (!next.triples_max || !learner->set.n_positives || !learner->set.n_candidates)
		return 0;
	int rc = learner->options.popular_share > 0.0f ? popularity_refresh(&learner->popularity, &learner->set, learner->options.popular_power) : 0;
	if (rc == 0)
		rc = regroup(learner);
	if (rc == 0)
		rc = learner->fault;
	if (rc < 0)
		return rc;
	draw_plan_make(&learner->set, &learner->options, &job->plan);
	next.triples_max = part_size(learner, &job->plan, next.triples_max);
	rc = learner_note(learner, learner->ops->train(learner->backend, &next, &part), "training");
	if (rc < 0)
		return rc;
	job->part_triples = next.triples_max;
	job->part_began_us = learner_on_device(learner) ? now_us() : 0;
	job->running = 1;
	return 1;
}

/* Takes a part that has ended into the books. */
static void end_part(struct learner *learner, const struct train_report *part)
{
	struct learner_job *job = &learner->job;
	training_set_advance(&learner->set, &job->plan, part->triples + part->rejected);
	learner->triples += part->triples;
	learner->broken |= part->nonfinite;
	job->running = 0;
	merge(&job->sum, part);
	job->left.triples_max -= job->part_triples;
	if (part->nonfinite)
		job->left.triples_max = 0;
	if (job->deadline_us) {
		job->left.budget_us = job->deadline_us - now_us();
		if (job->left.budget_us <= 0)
			job->left.triples_max = 0;
	}
}

/* 1: the part under way has ended, 0: not yet, -errno. */
static int poll_part(struct learner *learner, struct train_report *ret_part)
{
	const struct learner_job *job = &learner->job;
	for (;;) {
		int rc = learner_note(learner, learner->ops->poll(learner->backend, ret_part), "training");
		if (rc != 0 || job->part_triples > SHORT_PART || now_us() - job->part_began_us > SHORT_PART_WAIT_US)
			return rc;
	}
}

/* Goes on with the job as far as it goes without waiting. 1: it has come to its end, 0: a part is under way, -errno. */
static int go_on(struct learner *learner)
{
	for (;;) {
		struct train_report part = {.loss = (double)NAN};
		int rc = learner->job.running ? 1 : begin_part(learner);
		if (rc <= 0)
			return rc < 0 ? rc : 1;
		rc = poll_part(learner, &part);
		if (rc <= 0)
			return rc;
		end_part(learner, &part);
	}
}

int learner_train(struct learner *learner, const struct train_job *job, struct train_report *ret_report)
{
	if (learner->fault)
		return learner->fault;
	if (learner->job.running)
		return -EBUSY;
	learner->job.left = *job;
	learner->job.deadline_us = job->budget_us > 0 ? now_us() + job->budget_us : 0;
	learner->job.sum = (struct train_report){.loss = (double)NAN};
	int rc = go_on(learner);
	if (rc < 0)
		return rc;
	*ret_report = rc ? learner->job.sum : (struct train_report){.loss = (double)NAN};
	return 0;
}

int learner_running(const struct learner *learner)
{
	return learner->job.running;
}

int64_t learner_part_us(const struct learner *learner)
{
	return learner->job.running ? now_us() - learner->job.part_began_us : 0;
}

int learner_poll(struct learner *learner, struct train_report *ret_report)
{
	int rc = learner->fault ? learner->fault : learner->job.running ? go_on(learner) : 1;
	if (rc > 0)
		*ret_report = learner->job.sum;
	return rc;
}

/* Waits for the part under way; the rest of the job stays. */
static int wait_part(struct learner *learner)
{
	struct train_report part = {.loss = (double)NAN};
	if (!learner->job.running)
		return 0;
	int rc = learner_note(learner, learner->ops->wait(learner->backend, &part), "training");
	if (rc < 0)
		return rc;
	end_part(learner, &part);
	return 0;
}

int learner_wait(struct learner *learner, struct train_report *ret_report)
{
	int rc = learner->fault;
	while (rc == 0 && learner->job.running) {
		rc = wait_part(learner);
		if (rc == 0)
			rc = begin_part(learner);
		rc = rc < 0 ? rc : 0;
	}
	if (rc < 0)
		return rc;
	*ret_report = learner->job.sum;
	return 0;
}

void learner_give_up(struct learner *learner)
{
	if (!learner->job.running || learner->fault)
		return;
	learner->fault = -ETIMEDOUT;
	snprintf(learner->fault_text, sizeof learner->fault_text, "%s: a training job has not come back for %lld ms", learner->ops->name,
	         (long long)(learner_part_us(learner) / 1000));
	learner->job.running = 0;
	learner->hung = 1;
}

/* ---- copies of the parameters ---- */

int learner_pull(struct learner *learner, struct tables *copy)
{
	if (learner->fault)
		return learner->fault;
	int rc = wait_part(learner);
	if (rc < 0)
		return rc;
	learner->job.left.triples_max = 0; /* a job that was under way ends here */
	uint64_t mark = learner->serial << SERIAL_SHIFT;
	copy->epoch = (copy->epoch & ~EPOCH_MASK) == mark ? copy->epoch & EPOCH_MASK : 0; /* another backend's mark says nothing */
	rc = learner_note(learner, learner->ops->pull(learner->backend, copy), "reading parameters back");
	if (rc == -ERANGE)
		learner->broken = 1;
	copy->epoch = rc < 0 ? 0 : copy->epoch | mark; /* a copy that failed may be half of one state and half of another */
	learner->pulled = copy->epoch;
	return rc;
}

int learner_push(struct learner *learner, const struct tables *copy)
{
	if (learner->fault)
		return learner->fault;
	int rc = wait_part(learner);
	if (rc < 0)
		return rc;
	learner->job.left.triples_max = 0;
	rc = learner_note(learner, learner->ops->push(learner->backend, copy), "writing parameters");
	if (rc == 0 && learner->broken) {
		learner->broken = 0;
		learner->rollbacks++;
	}
	return rc;
}

/* ---- the backend's life ---- */

/* A backend with the options, rows and set as they are now, and the parameters of `copy`. */
static int open_backend(const struct learner *learner, const struct backend_ops *ops, const struct tables *copy, struct backend **ret_backend,
                        char *errstr, size_t errstr_size)
{
	struct backend *backend = NULL;
	const char *what = "opening";
	errstr[0] = '\0';
	int rc = ops->open(&learner->options, &learner->set, &backend, errstr, errstr_size);
	if (rc == 0 && (learner->n_users || learner->n_items)) {
		what = "making room for rows";
		rc = ops->grow(backend, learner->n_users, learner->n_items, learner->user_ids, learner->item_ids);
	}
	if (rc == 0 && ops->changed) {
		what = "copying the training set";
		rc = ops->changed(backend);
	}
	if (rc == 0 && copy) {
		what = "writing parameters";
		rc = ops->push(backend, copy);
	}
	if (rc == 0) {
		*ret_backend = backend;
		return 0;
	}
	if (!errstr[0])
		snprintf(errstr, errstr_size, "%s: %s: %s", ops->name, what, strerror(-rc));
	if (backend)
		ops->close(backend);
	return rc;
}

int learner_replace_backend(struct learner *learner, const struct backend_ops *ops, const struct tables *copy, char *errstr, size_t errstr_size)
{
	struct backend *fresh = NULL;
	if (!learner->fault) {
		int rc = wait_part(learner);
		if (rc < 0)
			return rc;
	}
	if (learner->fault && !learner->hung && learner->backend) { /* of no more use, and in the way of another one on its device */
		learner->ops->close(learner->backend);
		learner->backend = NULL;
	}
	int rc = open_backend(learner, ops, copy, &fresh, errstr, errstr_size);
	if (rc < 0)
		return rc;
	if (learner->hung) {
		learner->parked_ops = learner->ops;
		learner->parked = learner->backend;
	} else if (learner->backend) {
		learner->ops->close(learner->backend);
	}
	learner->ops = ops;
	learner->backend = fresh;
	learner->serial++;
	learner->pulled = 0; /* the fresh one has no copy yet */
	learner->fault = learner->hung = learner->broken = learner->job.running = 0;
	learner->job.left.triples_max = 0;
	return 0;
}

int learner_hung(struct learner *learner)
{
	struct train_report report;
	if (!learner->parked)
		return 0;
	if (learner->parked_ops->poll(learner->parked, &report) == 0)
		return 1;
	learner->parked_ops->close(learner->parked);
	learner->parked = NULL;
	return 0;
}

void learner_facts(struct learner *learner, struct device_facts *ret_facts)
{
	*ret_facts = (struct device_facts){0};
	if (learner->ops->facts && !learner->fault)
		learner->ops->facts(learner->backend, ret_facts);
}
