/*
 * cpu_deterministic.c: synchronous batches whose result has the same bits for any number of threads, on any machine and backend.
 *
 * A batch has three parts, with all threads meeting in between: (1) draw the triples and take their pulls (bpr_math.h) from the parameters as they stand at the
 * batch's start, a range of the batch a thread; (2) add up each touched row's gradient in int64 fixed point, a row belonging to one thread;
 * (3) apply the sums, the same ownership. Integer sums do not depend on their order, so neither does the result.
 */
#include "trainer/learn/cpu_backend.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/array.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/cpu_hard.h"

#define NO_SLOT UINT32_MAX

/* A row that the batch touches. Its number in `rows` is its slot. */
struct touched_row {
	uint32_t row;
	uint32_t is_item;
};

/* How far a triple pulls at its items; the same number twice with BPR. */
struct pull {
	float pos, neg;
};

struct batch_work {
	uint32_t batch; /* triples there is room for */
	struct draw *draws;
	struct pull *pulls; /* of each triple */
	float *loss; /* negative: the triple is left out */
	struct touched_row *rows; /* [3 * batch] */
	uint32_t n_rows;
	uint32_t *user_slots, *item_slots; /* [n_users], [n_items]; slot + 1, 0: none */
	int64_t *sums;                     /* [n_rows, stride + 1] */
};

struct batch_job {
	struct backend *backend;
	struct batch_work *work;
	struct draw_plan plan;
	struct row_update update;
	uint64_t first; /* of the batch, in the job */
	uint32_t n;     /* triples of the batch */
};

void cpu_batch_work_free(struct batch_work *work)
{
	if (!work)
		return;
	array_free(work->draws);
	array_free(work->pulls);
	array_free(work->loss);
	array_free(work->rows);
	array_free(work->user_slots);
	array_free(work->item_slots);
	array_free(work->sums);
	free(work);
}

static int grow(void *array, size_t bytes)
{
	void *p;
	memcpy(&p, array, sizeof p);
	int rc = array_grow(&p, bytes);
	memcpy(array, &p, sizeof p);
	return rc;
}

static int work_reserve(struct backend *backend, uint32_t batch)
{
	if (!backend->work)
		backend->work = calloc(1, sizeof *backend->work);
	struct batch_work *work = backend->work;
	if (!work)
		return -ENOMEM;
	uint64_t rows_max = (uint64_t)batch * 2 < backend->n_items ? (uint64_t)batch * 2 : backend->n_items;
	rows_max += batch < backend->n_users ? batch : backend->n_users;
	if (grow(&work->draws, batch * sizeof *work->draws) < 0 || grow(&work->pulls, batch * sizeof *work->pulls) < 0 ||
	    grow(&work->loss, batch * sizeof *work->loss) < 0 || grow(&work->rows, rows_max * sizeof *work->rows) < 0 ||
	    grow(&work->user_slots, backend->n_users * sizeof *work->user_slots) < 0 ||
	    grow(&work->item_slots, backend->n_items * sizeof *work->item_slots) < 0 ||
	    grow(&work->sums, rows_max * (backend->stride + 1) * sizeof *work->sums) < 0)
		return -ENOMEM;
	work->batch = batch;
	return 0;
}

/* Pulls and loss of one triple. */
static void weigh(const struct batch_job *job, const struct draw *draw, struct pull *ret_pull, float *ret_loss)
{
	const struct row_update *c = &job->update;
	const struct row_kernels *kernels = job->backend->kernels;
	const float *u = c->U + (size_t)draw->user * c->stride;
	const float *p = c->V + (size_t)draw->pos * c->stride;
	const float *n = c->V + (size_t)draw->neg * c->stride;
	float bias_p = c->items[draw->pos].bias, bias_n = c->items[draw->neg].bias;
	if (c->loss == LOSS_BCE) {
		float x_pos = kernels->exact_dot(u, p, NULL, c->stride) + bias_p;
		float x_neg = kernels->exact_dot(u, n, NULL, c->stride) + bias_n;
		int finite = bpr_is_finite(x_pos) && bpr_is_finite(x_neg);
		*ret_loss = finite ? 0.5f * (bpr_softplus(-x_pos) + bpr_softplus(x_neg)) : -2.0f;
		*ret_pull = (struct pull){draw->weight * bpr_sigmoid(-x_pos), draw->weight * bpr_sigmoid(x_neg)};
	} else {
		float x = kernels->exact_dot(u, p, n, c->stride) + (bias_p - bias_n);
		float z = draw->weight * bpr_sigmoid(-x);
		*ret_loss = bpr_is_finite(x) ? bpr_softplus(-x) : -2.0f;
		*ret_pull = (struct pull){z, z};
	}
}

/* Part 1: a range of the batch. */
static void draw_part(void *ctx, uint32_t thread, uint32_t n_threads)
{
	struct batch_job *job = ctx;
	struct batch_work *work = job->work;
	const struct row_update *c = &job->update;
	uint32_t from = (uint32_t)((uint64_t)job->n * thread / n_threads);
	uint32_t end = (uint32_t)((uint64_t)job->n * (thread + 1) / n_threads);
	sampler_propose(&job->plan, job->first + from, end - from, work->draws + from);
	sampler_settle(&job->plan, end - from, work->draws + from);
	cpu_hard_choose_exact(&job->plan, c, job->backend->kernels, work->draws + from, end - from);
	for (uint32_t t = from; t < end; t++) {
		const struct draw *draw = &work->draws[t];
		work->loss[t] = -1.0f;
		if (draw->neg != SAMPLE_NONE)
			weigh(job, draw, &work->pulls[t], &work->loss[t]);
	}
}

static void touch(struct batch_work *work, uint32_t *slots, uint32_t row, uint32_t is_item)
{
	if (slots[row])
		return;
	work->rows[work->n_rows] = (struct touched_row){.row = row, .is_item = is_item};
	slots[row] = ++work->n_rows;
}

/* Gives every touched row its slot, in the order of the batch. Returns 1 when a value that is not finite was met. */
static int assign_slots(struct batch_job *job, struct train_report *report, uint64_t *loss_n)
{
	struct batch_work *work = job->work;
	int nonfinite = 0;
	work->n_rows = 0;
	for (uint32_t t = 0; t < job->n; t++) {
		const struct draw *draw = &work->draws[t];
		if (draw->neg == SAMPLE_NONE) {
			report->rejected++;
			continue;
		}
		if (work->loss[t] < 0.0f) {
			nonfinite = 1;
			report->rejected++;
			continue;
		}
		report->triples++;
		report->loss += (double)work->loss[t];
		++*loss_n;
		touch(work, work->user_slots, draw->user, 0);
		touch(work, work->item_slots, draw->pos, 1);
		touch(work, work->item_slots, draw->neg, 1);
	}
	return nonfinite;
}

/* The sums of a slot when this thread owns it, else NULL. */
static int64_t *owned(const struct batch_job *job, uint32_t slot, uint32_t thread, uint32_t n_threads)
{
	return (slot - 1) % n_threads == thread ? job->work->sums + (size_t)(slot - 1) * (job->update.stride + 1) : NULL;
}

/* Part 2: the rows of this thread. */
static void sum_part(void *ctx, uint32_t thread, uint32_t n_threads)
{
	const struct batch_job *job = ctx;
	const struct batch_work *work = job->work;
	const struct row_update *c = &job->update;
	const struct row_kernels *kernels = job->backend->kernels;
	for (uint32_t slot = thread; slot < work->n_rows; slot += n_threads)
		memset(work->sums + (size_t)slot * (c->stride + 1), 0, (c->stride + 1) * sizeof *work->sums);
	for (uint32_t t = 0; t < job->n; t++) {
		const struct draw *draw = &work->draws[t];
		if (work->loss[t] < 0.0f)
			continue;
		const float *u = c->U + (size_t)draw->user * c->stride;
		const float *p = c->V + (size_t)draw->pos * c->stride;
		const float *n = c->V + (size_t)draw->neg * c->stride;
		struct pull z = work->pulls[t];
		int64_t *sums = owned(job, work->user_slots[draw->user], thread, n_threads);
		if (sums && c->loss == LOSS_BCE)
			kernels->exact_add_two(sums, z.pos, z.neg, p, n, c->reg_user, u, c->stride);
		else if (sums)
			kernels->exact_add(sums, z.pos, p, n, c->reg_user, u, c->stride);
		sums = owned(job, work->item_slots[draw->pos], thread, n_threads);
		if (sums) {
			kernels->exact_add(sums, z.pos, u, NULL, c->reg_pos, p, c->stride);
			sums[c->stride] += bpr_to_fixed(BPR_FMA(-c->reg_bias, c->items[draw->pos].bias, z.pos));
		}
		sums = owned(job, work->item_slots[draw->neg], thread, n_threads);
		if (sums) {
			kernels->exact_add(sums, -z.neg, u, NULL, c->reg_neg, n, c->stride);
			sums[c->stride] += bpr_to_fixed(BPR_FMA(-c->reg_bias, c->items[draw->neg].bias, -z.neg));
		}
	}
}

/* Part 3: applies the sums of this thread's rows and takes their slots back. */
static void apply_part(void *ctx, uint32_t thread, uint32_t n_threads)
{
	const struct batch_job *job = ctx;
	struct batch_work *work = job->work;
	const struct row_update *c = &job->update;
	for (uint32_t slot = thread; slot < work->n_rows; slot += n_threads) {
		const struct touched_row *touched = &work->rows[slot];
		const int64_t *sums = work->sums + (size_t)slot * (c->stride + 1);
		if (touched->is_item) {
			struct item_side *side = &c->items[touched->row];
			job->backend->kernels->exact_apply(c, sums, c->V + (size_t)touched->row * c->stride, &side->bias, &side->acc);
			work->item_slots[touched->row] = 0;
		} else {
			struct user_side *side = &c->users[touched->row];
			job->backend->kernels->exact_apply(c, sums, c->U + (size_t)touched->row * c->stride, NULL, &side->acc);
			side->stamp = c->epoch;
			work->user_slots[touched->row] = 0;
		}
	}
}

int cpu_train_deterministic(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	int64_t deadline_us = job->budget_us > 0 ? cpu_now_us() + job->budget_us : 0;
	int rc = work_reserve(backend, backend->options->batch_size);
	if (rc < 0)
		return rc;
	struct batch_job batch = {
		.backend = backend,
		.work = backend->work,
		.update = cpu_row_update(backend, job),
	};
	draw_plan_make(backend->set, backend->options, &batch.plan);
	struct train_report report = {0};
	uint64_t loss_n = 0;
	for (uint64_t done = 0; done < job->triples_max; done += batch.n) {
		uint64_t left = job->triples_max - done;
		batch.first = done;
		batch.n = left < batch.plan.batch ? (uint32_t)left : batch.plan.batch;
		cpu_pool_run(backend->pool, draw_part, &batch);
		report.nonfinite |= assign_slots(&batch, &report, &loss_n);
		cpu_pool_run(backend->pool, sum_part, &batch);
		cpu_pool_run(backend->pool, apply_part, &batch);
		if (deadline_us && cpu_now_us() >= deadline_us)
			break;
	}
	report.threads = cpu_pool_threads(backend->pool);
	report.loss = loss_n ? report.loss / (double)loss_n : (double)NAN;
	*ret_report = report;
	return 0;
}
