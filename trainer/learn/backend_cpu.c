/*
 * backend_cpu.c: the CPU backend's table of functions: its memory, and copies of the parameters in and out (backend.h).
 *
 * All calls come from the engine's thread; the pool's threads help inside train, pull and push and sleep otherwise. The backend owns the working tables:
 * rows on 64-byte boundaries, padded with zeros to a multiple of 16 floats, and beside each row its Adagrad sum with the user's stamp or the item's bias.
 */
#include "trainer/learn/cpu_backend.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/learn/array.h"
#include "trainer/learn/philox.h"

int64_t cpu_now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

struct row_update cpu_row_update(const struct backend *backend, const struct train_job *job)
{
	const struct learn_options *options = backend->options;
	return (struct row_update){
		.U = backend->U,
		.V = backend->V,
		.users = backend->users,
		.items = backend->items,
		.dim = backend->dim,
		.stride = backend->stride,
		.epoch = backend->epoch,
		.adagrad = options->optimizer == OPTIMIZER_ADAGRAD,
		.loss = options->loss,
		.rate = job->learning_rate,
		.reg_user = options->reg_user,
		.reg_pos = options->reg_pos,
		.reg_neg = options->reg_neg,
		.reg_bias = options->reg_bias,
		.norm_max = options->step_norm_max,
		.per_user = 1.0f / (float)backend->dim,
		.per_item = 1.0f / (float)(backend->dim + 1),
	};
}

static int cpu_probe(char *reason, size_t reason_size)
{
	(void)reason;
	(void)reason_size;
	return 0;
}

static void cpu_close(struct backend *backend)
{
	if (!backend)
		return;
	cpu_pool_free(backend->pool);
	cpu_batch_work_free(backend->work);
	array_free(backend->U);
	array_free(backend->V);
	array_free(backend->users);
	array_free(backend->items);
	free(backend);
}

static int cpu_open(const struct learn_options *options, const struct training_set *set, struct backend **ret_backend, char *errstr,
                    size_t errstr_size)
{
	struct backend *backend = calloc(1, sizeof *backend);
	int rc = backend ? 0 : -ENOMEM;
	if (rc == 0)
		rc = cpu_pool_new(options->threads ? options->threads : 1, &backend->pool);
	if (rc < 0) {
		snprintf(errstr, errstr_size, "cpu backend: %s", strerror(-rc));
		cpu_close(backend);
		return rc;
	}
	cpu_tuner_init(&backend->tuner, cpu_pool_threads(backend->pool));
	backend->options = options;
	backend->set = set;
	backend->kernels = row_kernels_best();
	backend->dim = options->emb_dim;
	backend->stride = (options->emb_dim + 15) / 16 * 16;
	backend->epoch = 1;
	backend->passes = set->passes_here; /* those before are forgotten already */
	backend->last.loss = (double)NAN;
	*ret_backend = backend;
	return 0;
}

/* A new row: uniform(-0.5, 0.5) * scale, from (seed, external id), whatever the order of arrival. */
static void init_row(const struct backend *backend, float *row, int64_t id, uint32_t purpose)
{
	float scale = backend->options->init_scale / (float)backend->dim;
	uint64_t seed = backend->options->seed;
	for (uint32_t k = 0; k < backend->stride; k += 4) {
		struct philox_block random = philox4x32(k / 4, (uint32_t)(uint64_t)id, (uint32_t)((uint64_t)id >> 32), purpose, (uint32_t)seed,
		                                        (uint32_t)(seed >> 32));
		for (uint32_t j = 0; j < 4; j++)
			row[k + j] = k + j < backend->dim ? philox_centred(random.v[j]) * scale : 0.0f;
	}
}

static void init_users(struct backend *backend, uint32_t from)
{
	for (uint32_t u = from; u < backend->n_users; u++) {
		init_row(backend, backend->U + (size_t)u * backend->stride, backend->user_ids[u], PHILOX_USER_ROW);
		backend->users[u] = (struct user_side){.stamp = backend->epoch};
	}
}

static void init_items(struct backend *backend, uint32_t from)
{
	for (uint32_t i = from; i < backend->n_items; i++) {
		init_row(backend, backend->V + (size_t)i * backend->stride, backend->item_ids[i], PHILOX_ITEM_ROW);
		backend->items[i] = (struct item_side){0};
	}
}

static int cpu_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	size_t row = backend->stride * sizeof(float);
	void *U = backend->U, *V = backend->V, *users = backend->users, *items = backend->items;
	int rc = array_reserve(&U, n_users, row);
	if (rc == 0)
		rc = array_reserve(&V, n_items, row);
	if (rc == 0)
		rc = array_reserve(&users, n_users, sizeof *backend->users);
	if (rc == 0)
		rc = array_reserve(&items, n_items, sizeof *backend->items);
	backend->U = U;
	backend->V = V;
	backend->users = users;
	backend->items = items;
	if (rc < 0)
		return rc;
	uint32_t old_users = backend->n_users, old_items = backend->n_items;
	backend->user_ids = user_ids;
	backend->item_ids = item_ids;
	backend->n_users = n_users > old_users ? n_users : old_users;
	backend->n_items = n_items > old_items ? n_items : old_items;
	init_users(backend, old_users);
	init_items(backend, old_items);
	return 0;
}

/* The Adagrad sums lose their share for every pass ended since the last job. */
static void forget(struct backend *backend)
{
	uint64_t ended = backend->set->passes_here - backend->passes;
	backend->passes = backend->set->passes_here;
	float share = backend->options->adagrad_forget;
	if (ended == 0 || share <= 0.0f || backend->options->optimizer != OPTIMIZER_ADAGRAD)
		return;
	float keep = 1.0f;
	for (uint64_t i = 0; i < ended && keep > 1e-6f; i++)
		keep *= 1.0f - share;
	for (uint32_t u = 0; u < backend->n_users; u++)
		backend->users[u].acc *= keep;
	for (uint32_t i = 0; i < backend->n_items; i++)
		backend->items[i].acc *= keep;
}

static int cpu_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	const struct training_set *set = backend->set;
	int rc = 0;
	forget(backend);
	struct train_report report = {.loss = (double)NAN};
	if (job->triples_max && set->n_positives && set->n_candidates) {
		if (backend->options->deterministic)
			rc = cpu_train_deterministic(backend, job, &report);
		else
			rc = cpu_train_fast(backend, job, &report);
	}
	if (rc < 0)
		return rc;
	backend->last = report;
	*ret_report = report;
	return 0;
}

static int cpu_poll(struct backend *backend, struct train_report *ret_report)
{
	*ret_report = backend->last;
	return 1;
}

static int cpu_wait(struct backend *backend, struct train_report *ret_report)
{
	*ret_report = backend->last;
	return 0;
}

/* A copy between the working tables and a struct tables, in ranges of rows. */
struct copy_job {
	struct backend *backend;
	struct tables *copy;
	uint32_t n_users, n_items;
	uint64_t since; /* pull: user rows stamped at or after this */
	int push;
	atomic_int nonfinite;
};

static void range_of(uint32_t n, uint32_t thread, uint32_t n_threads, uint32_t *ret_from, uint32_t *ret_end)
{
	*ret_from = (uint32_t)((uint64_t)n * thread / n_threads);
	*ret_end = (uint32_t)((uint64_t)n * (thread + 1) / n_threads);
}

static int copy_items(const struct copy_job *job, uint32_t from, uint32_t end)
{
	struct backend *b = job->backend;
	float *V = b->V + (size_t)from * b->stride;
	float *copy = job->copy->V + (size_t)from * b->dim;
	int bad = job->push ? b->kernels->copy_rows(V, b->stride, copy, b->dim, b->dim, end - from)
	                    : b->kernels->copy_rows(copy, b->dim, V, b->stride, b->dim, end - from);
	float sum = 0.0f; /* x * 0 is NaN for what is not finite */
	for (uint32_t i = from; i < end; i++) {
		if (job->push) {
			b->items[i] = (struct item_side){.bias = job->copy->bi[i], .acc = job->copy->acc_item[i]};
		} else {
			job->copy->bi[i] = b->items[i].bias;
			job->copy->acc_item[i] = b->items[i].acc;
		}
		sum += b->items[i].bias * 0.0f + b->items[i].acc * 0.0f;
	}
	return bad || sum != 0.0f;
}

static int copy_users(const struct copy_job *job, uint32_t from, uint32_t end)
{
	struct backend *b = job->backend;
	int bad = 0;
	float sum = 0.0f;
	for (uint32_t u = from; u < end; u++) {
		float *row = b->U + (size_t)u * b->stride;
		float *copy = job->copy->U + (size_t)u * b->dim;
		if (job->push) {
			bad |= b->kernels->copy_rows(row, b->stride, copy, b->dim, b->dim, 1);
			b->users[u] = (struct user_side){.acc = job->copy->acc_user[u], .stamp = b->epoch};
		} else {
			if (b->users[u].stamp >= job->since)
				bad |= b->kernels->copy_rows(copy, b->dim, row, b->stride, b->dim, 1);
			job->copy->acc_user[u] = b->users[u].acc;
		}
		sum += b->users[u].acc * 0.0f;
	}
	return bad || sum != 0.0f;
}

static void copy_thread(void *ctx, uint32_t thread, uint32_t n_threads)
{
	struct copy_job *job = ctx;
	uint32_t from, end;
	range_of(job->n_items, thread, n_threads, &from, &end);
	int bad = copy_items(job, from, end);
	range_of(job->n_users, thread, n_threads, &from, &end);
	bad |= copy_users(job, from, end);
	if (bad)
		atomic_store(&job->nonfinite, 1);
}

static int cpu_pull(struct backend *backend, struct tables *copy)
{
	int rc = tables_reserve(copy, backend->n_users, backend->n_items, backend->dim);
	if (rc < 0)
		return rc;
	struct copy_job job = {
		.backend = backend,
		.copy = copy,
		.n_users = backend->n_users,
		.n_items = backend->n_items,
		.since = copy->epoch,
	};
	cpu_pool_run(backend->pool, copy_thread, &job);
	copy->n_users = backend->n_users;
	copy->n_items = backend->n_items;
	if (atomic_load(&job.nonfinite)) {
		copy->epoch = 0;
		return -ERANGE;
	}
	copy->epoch = ++backend->epoch;
	return 0;
}

static int cpu_push(struct backend *backend, const struct tables *copy)
{
	if (copy->dim != backend->dim)
		return -EINVAL;
	struct tables from = *copy;
	struct copy_job job = {
		.backend = backend,
		.copy = &from,
		.n_users = copy->n_users < backend->n_users ? copy->n_users : backend->n_users,
		.n_items = copy->n_items < backend->n_items ? copy->n_items : backend->n_items,
		.push = 1,
	};
	cpu_pool_run(backend->pool, copy_thread, &job);
	init_users(backend, job.n_users);
	init_items(backend, job.n_items);
	return atomic_load(&job.nonfinite) ? -ERANGE : 0;
}

const struct backend_ops backend_cpu = {
	.name = "cpu",
	.probe = cpu_probe,
	.open = cpu_open,
	.close = cpu_close,
	.grow = cpu_grow,
	.changed = NULL,
	.train = cpu_train,
	.poll = cpu_poll,
	.wait = cpu_wait,
	.pull = cpu_pull,
	.push = cpu_push,
};
