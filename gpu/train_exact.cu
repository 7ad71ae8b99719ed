/*
 * train_exact.cu: the deterministic mode's memory and launches (train_exact.cuh).
 *
 * Memory goes with the batch, not with the tables, but for one slot number of 4 bytes a row: at most min(batch, users) + min(2 batch, items) rows are touched.
 */
#include "gpu/train_exact.cuh"

#include <errno.h>
#include <stdlib.h>

#include "gpu/train.cuh"

struct exact_work {
	struct device_array triples, rows, row_sums, user_slots, item_slots, n_rows;
	uint32_t parity;
};

void exact_work_free(struct exact_work *work)
{
	if (!work)
		return;
	device_array_free(&work->triples);
	device_array_free(&work->rows);
	device_array_free(&work->row_sums);
	device_array_free(&work->user_slots);
	device_array_free(&work->item_slots);
	device_array_free(&work->n_rows);
	free(work);
}

/* Grows and clears all of it: between batches these arrays hold zeros. */
static int grow_zeroed(struct backend *backend, struct device_array *array, size_t bytes)
{
	if (bytes <= array->bytes)
		return 0;
	int rc = device_array_grow(backend, array, bytes, 0, "room for batches");
	return rc < 0 ? rc : gpu_check(&backend->fault, cudaMemsetAsync(array->data, 0, array->bytes, backend->stream), "clearing batches");
}

static uint32_t exact_width(const struct backend *backend)
{
	return (backend->dim + EXACT_LANES - 1) / EXACT_LANES * EXACT_LANES;
}

static uint64_t rows_max(const struct backend *backend, uint32_t batch)
{
	uint64_t items = (uint64_t)batch * 2 < backend->n_items ? (uint64_t)batch * 2 : backend->n_items;
	return items + (batch < backend->n_users ? batch : backend->n_users);
}

int exact_reserve(struct backend *backend, uint32_t batch)
{
	if (!backend->exact)
		backend->exact = static_cast<struct exact_work *>(calloc(1, sizeof *backend->exact));
	struct exact_work *work = backend->exact;
	if (!work)
		return -ENOMEM;
	uint64_t rows = rows_max(backend, batch);
	int rc = device_array_grow(backend, &work->triples, batch * sizeof(struct exact_triple), 0, "room for batches");
	if (rc == 0)
		rc = device_array_grow(backend, &work->rows, rows * sizeof(struct exact_row), 0, "room for batches");
	if (rc == 0)
		rc = grow_zeroed(backend, &work->row_sums, rows * (exact_width(backend) + 1) * sizeof(unsigned long long));
	if (rc == 0)
		rc = grow_zeroed(backend, &work->user_slots, backend->n_users * sizeof(uint32_t));
	if (rc == 0)
		rc = grow_zeroed(backend, &work->item_slots, backend->n_items * sizeof(uint32_t));
	if (rc == 0)
		rc = grow_zeroed(backend, &work->n_rows, 2 * sizeof(uint32_t));
	return rc;
}

int exact_load(struct backend *backend)
{
	int rc = gpu_load_kernel(&backend->fault, exact_draw);
	if (rc == 0)
		rc = gpu_load_kernel(&backend->fault, exact_add);
	return rc < 0 ? rc : gpu_load_kernel(&backend->fault, exact_apply);
}

/* Each kernel counts on the one before, so none is launched after one that was refused. */
static int exact_batch(struct backend *backend, const struct exact_view *view, uint32_t rows)
{
	const uint32_t groups_here = EXACT_BLOCK / EXACT_LANES;
	GPU_LAUNCH(exact_draw, (view->span.n + EXACT_BLOCK - 1) / EXACT_BLOCK, EXACT_BLOCK, 0, backend->stream, *view);
	int rc = gpu_launched(&backend->fault, "training");
	if (rc < 0)
		return rc;
	GPU_LAUNCH(exact_add, (view->span.n + groups_here - 1) / groups_here, EXACT_BLOCK, 0, backend->stream, *view);
	rc = gpu_launched(&backend->fault, "training");
	if (rc < 0)
		return rc;
	GPU_LAUNCH(exact_apply, (rows + groups_here - 1) / groups_here + 1, EXACT_BLOCK, 0, backend->stream, *view);
	return gpu_launched(&backend->fault, "training");
}

int exact_run(struct backend *backend, const struct train_run *run)
{
	struct exact_work *work = backend->exact;
	struct exact_view view = {};
	view.tables = run->tables;
	view.set = run->set;
	view.plan = sample_plan(run->plan);
	view.update = run->update;
	view.sums = static_cast<struct job_sums *>(backend->sums.data);
	view.triples = static_cast<struct exact_triple *>(work->triples.data);
	view.user_slots = static_cast<uint32_t *>(work->user_slots.data);
	view.item_slots = static_cast<uint32_t *>(work->item_slots.data);
	view.rows = static_cast<struct exact_row *>(work->rows.data);
	view.row_sums = static_cast<unsigned long long *>(work->row_sums.data);
	view.n_rows = static_cast<uint32_t *>(work->n_rows.data);
	view.width = exact_width(backend);
	uint32_t rows = (uint32_t)rows_max(backend, run->plan->batch);
	for (uint64_t first = 0; first < run->draws; first += view.span.n) {
		uint64_t left = run->draws - first;
		view.span = sample_span(run->plan, run->set.n_positives, first, left < run->plan->batch ? (uint32_t)left : run->plan->batch);
		view.parity = work->parity;
		work->parity ^= 1u;
		int rc = exact_batch(backend, &view, rows);
		if (rc < 0)
			return rc;
	}
	return 0;
}
