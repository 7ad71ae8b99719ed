/*
 * train.cu: jobs of the CUDA backend: enqueued by train(), seen to their end by poll() and wait() (backend.h).
 *
 * A job with a time limit is made as large as fits into it at the rate of the jobs before it, by the device's own clock; the first one is small. The number
 * of draws is fixed when a job is enqueued, so what was drawn is always a whole prefix of the walk, as on the host. Who sets a limit has other work for the
 * device, so the launches of such a job are short: a batch in another stream begins when one ends (LAUNCH_US).
 */
#include "gpu/train.cuh"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "gpu/query.cuh"
#include "trainer/learn/sampler.h"

#define FIRST_DRAWS (1u << 15) /* of a job with a time limit, before any rate is known */
#define LAUNCH_US 2000.0       /* of a launch, in a job with a time limit */
#define GROWTH_MAX 8.0         /* a job is at most so many times as large as the last: small jobs do not fill the device and say little about large ones */

static struct update_view update_of(const struct backend *backend, const struct train_job *job)
{
	const struct learn_options *options = backend->options;
	struct update_view update = {};
	update.loss = options->loss;
	update.adagrad = options->optimizer == OPTIMIZER_ADAGRAD;
	update.rate = job->learning_rate;
	update.reg_user = options->reg_user;
	update.reg_pos = options->reg_pos;
	update.reg_neg = options->reg_neg;
	update.reg_bias = options->reg_bias;
	update.norm_max = options->step_norm_max;
	update.per_user = 1.0f / (float)backend->dim;
	update.per_item = 1.0f / (float)(backend->dim + 1);
	update.epoch = backend->epoch;
	return update;
}

/* Draws of the job; in deterministic mode whole batches, but for the last of triples_max. */
static uint64_t draws_of(const struct backend *backend, const struct train_job *job)
{
	double fit = backend->triples_per_us * (double)job->budget_us, last = (double)backend->job_draws * GROWTH_MAX;
	if (job->budget_us <= 0)
		return job->triples_max;
	uint64_t draws = FIRST_DRAWS;
	if (backend->triples_per_us > 0.0)
		draws = (uint64_t)(fit < last ? fit : last);
	if (backend->options->deterministic) {
		uint64_t batch = backend->options->batch_size;
		draws = draws < batch ? batch : draws / batch * batch;
	}
	draws = draws > GPU_WARP ? draws : GPU_WARP;
	return draws < job->triples_max ? draws : job->triples_max;
}

/* Draws of a launch at most. */
static uint32_t launch_draws_of(const struct backend *backend, const struct train_job *job)
{
	double fit = backend->triples_per_us * LAUNCH_US;
	if (job->budget_us <= 0 || fit <= 0.0 || fit >= (double)SPAN_MAX)
		return SPAN_MAX;
	uint32_t warps = (uint32_t)fit / GPU_WARP;
	return GPU_WARP * (warps > 0 ? warps : 1);
}

/* Between the events job_began and job_done. */
static int enqueue(struct backend *backend, const struct train_run *run)
{
	struct gpu_fault *fault = &backend->fault;
	int rc = gpu_check(fault, cudaMemsetAsync(backend->sums.data, 0, sizeof(struct job_sums), backend->stream), "training");
	if (rc == 0)
		rc = gpu_check(fault, cudaEventRecord(backend->job_began, backend->stream), "training");
	if (rc == 0)
		rc = backend->options->deterministic ? exact_run(backend, run) : fast_run(backend, run);
	if (rc == 0)
		rc = gpu_check(fault, cudaMemcpyAsync(backend->host_sums, backend->sums.data, sizeof(struct job_sums), cudaMemcpyDeviceToHost, backend->stream),
		               "training");
	if (rc == 0)
		rc = gpu_check(fault, cudaEventRecord(backend->job_done, backend->stream), "training");
	return rc;
}

int cuda_train_load(struct backend *backend)
{
	return backend->options->deterministic ? exact_load(backend) : fast_load(backend);
}

int cuda_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	const struct learn_options *options = backend->options;
	struct train_run run = {};
	struct draw_plan plan;
	int has_work = job->triples_max && backend->set->n_positives && backend->set->n_candidates;
	if (backend->running)
		return -EBUSY;
	int rc = cuda_grow_noted(backend);
	if (rc == 0)
		rc = query_users_room_noted(backend);
	if (rc == 0 && has_work)
		rc = set_mirror_sync(backend, job, &run.set);
	if (rc == 0 && has_work && options->deterministic)
		rc = exact_reserve(backend, options->batch_size);
	if (rc == 0)
		rc = cuda_forget(backend);
	if (rc < 0)
		return rc;
	struct train_report report = {};
	report.loss = (double)NAN;
	if (has_work) {
		draw_plan_make(backend->set, options, &plan);
		run.tables = backend_tables_view(backend);
		run.update = update_of(backend, job);
		run.plan = &plan;
		run.draws = draws_of(backend, job);
		run.launch_draws = launch_draws_of(backend, job);
		run.bf16 = options->precision == PRECISION_BF16;
		rc = enqueue(backend, &run);
		if (rc < 0)
			return rc;
		backend->running = 1;
		backend->job_draws = run.draws;
	}
	backend->last = report;
	*ret_report = report;
	return 0;
}

/* The job's events have passed. */
static int finish(struct backend *backend)
{
	const struct job_sums *sums = backend->host_sums;
	float ms = 0.0f;
	backend->running = 0;
	int rc = gpu_check(&backend->fault, cudaEventElapsedTime(&ms, backend->job_began, backend->job_done), "training");
	if (rc < 0)
		return rc;
	if (ms > 0.0f)
		backend->triples_per_us = (double)backend->job_draws / ((double)ms * 1000.0);
	backend->last.triples = sums->triples;
	backend->last.rejected = sums->rejected;
	backend->last.loss = sums->loss_n ? sums->loss / (double)sums->loss_n : (double)NAN;
	backend->last.nonfinite = sums->nonfinite != 0;
	return 0;
}

int cuda_poll(struct backend *backend, struct train_report *ret_report)
{
	if (backend->running) {
		cudaError_t code = cudaEventQuery(backend->job_done);
		if (code == cudaErrorNotReady)
			return 0;
		int rc = gpu_check(&backend->fault, code, "training");
		if (rc == 0)
			rc = finish(backend);
		if (rc < 0) {
			backend->running = 0;
			return rc;
		}
	}
	*ret_report = backend->last;
	return 1;
}

int cuda_wait(struct backend *backend, struct train_report *ret_report)
{
	if (backend->running) {
		int rc = gpu_check(&backend->fault, cudaEventSynchronize(backend->job_done), "training");
		if (rc == 0)
			rc = finish(backend);
		if (rc < 0) {
			backend->running = 0;
			return rc;
		}
	}
	*ret_report = backend->last;
	return 0;
}
