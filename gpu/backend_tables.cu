/*
 * backend_tables.cu: the working tables on the device: growth, copies to and from a struct tables, forgetting. The engine's thread.
 *
 * Rows live on the device only; the host keeps copies (struct tables) by pull and push. A pull first looks through the tables on the device, so that
 * parameters which are not finite change neither the copy nor the snapshot that personalize and topk work on; then it brings the item tables and the user rows
 * stamped since the copy was last filled, listed by the same kernel, or all of them when those are most. Everything is enqueued on backend->stream.
 *
 * Rows that are asked for while a job runs are made when the next job, pull or push begins: ids travel in pieces (transfer.cuh), and a piece behind a job is
 * free again only when that job has ended.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.cuh"
#include "gpu/query.cuh"
#include "gpu/tables_kernels.cuh"
#include "gpu/transfer.cuh"
#include "trainer/learn/sampler.h"

#define PULL_FAULT "reading parameters back"
#define PUSH_FAULT "setting parameters"

struct table_work {
	struct device_array user_ids, item_ids; /* [n_users], [n_items] external ids: rows can be begun anew */
	struct device_array list;               /* [n_users] rows to pull */
	struct device_array find;               /* struct pull_find [1] */
};

void table_work_free(struct table_work *work)
{
	if (!work)
		return;
	device_array_free(&work->user_ids);
	device_array_free(&work->item_ids);
	device_array_free(&work->list);
	device_array_free(&work->find);
	free(work);
}

uint32_t gpu_stride_of(uint32_t dim)
{
	static const uint32_t strides[] = {16, 32, 64, 128, 256, 384};
	for (uint32_t stride : strides)
		if (dim <= stride)
			return stride;
	return 512;
}

static int is_bf16(const struct backend *backend)
{
	return backend->options->precision == PRECISION_BF16;
}

static size_t row_bytes(const struct backend *backend)
{
	return backend->stride * (is_bf16(backend) ? sizeof(uint16_t) : sizeof(float));
}

struct tables_view backend_tables_view(const struct backend *backend)
{
	struct tables_view view = {};
	view.U = backend->U.data;
	view.V = backend->V.data;
	view.users = static_cast<struct gpu_user_side *>(backend->users.data);
	view.items = static_cast<struct gpu_item_side *>(backend->items.data);
	view.n_users = backend->n_users;
	view.n_items = backend->n_items;
	view.dim = backend->dim;
	view.stride = backend->stride;
	return view;
}

static struct pull_find *find_of(const struct backend *backend)
{
	return static_cast<struct pull_find *>(backend->table_work->find.data);
}

template <typename E> static void launch_init(struct backend *backend, int items, uint32_t from, uint32_t end)
{
	const struct learn_options *options = backend->options;
	const struct tables_view view = backend_tables_view(backend);
	const struct table_work *work = backend->table_work;
	GPU_LAUNCH(tables_init_kernel<E>, gpu_blocks(backend, (uint64_t)(end - from) * backend->stride / 4), GPU_BLOCK, 0, backend->stream,
	           static_cast<E *>(items ? view.V : view.U), items ? NULL : view.users, items ? view.items : NULL,
	           static_cast<const int64_t *>((items ? work->item_ids : work->user_ids).data), from, end, backend->dim, backend->stride,
	           options->init_scale / (float)backend->dim, options->seed, backend->epoch);
}

/* Begins rows [from, end). */
static int init_rows(struct backend *backend, int items, uint32_t from, uint32_t end)
{
	if (from >= end)
		return 0;
	if (is_bf16(backend))
		launch_init<uint16_t>(backend, items, from, end);
	else
		launch_init<float>(backend, items, from, end);
	return gpu_launched(&backend->fault, "beginning rows");
}

static int make_room(struct backend *backend, uint32_t n_users, uint32_t n_items)
{
	struct table_work *work = backend->table_work;
	size_t row = row_bytes(backend);
	size_t old_users = backend->n_users, old_items = backend->n_items;
	int rc = device_array_grow(backend, &backend->U, n_users * row, old_users * row, "room for users");
	if (rc == 0)
		rc = device_array_grow(backend, &backend->users, n_users * sizeof(struct gpu_user_side), old_users * sizeof(struct gpu_user_side),
		                       "room for users");
	if (rc == 0)
		rc = device_array_grow(backend, &work->user_ids, n_users * sizeof(int64_t), old_users * sizeof(int64_t), "room for users");
	if (rc == 0)
		rc = device_array_grow(backend, &work->list, n_users * sizeof(uint32_t), 0, "room for users");
	if (rc == 0)
		rc = device_array_grow(backend, &backend->V, n_items * row, old_items * row, "room for items");
	if (rc == 0)
		rc = device_array_grow(backend, &backend->items, n_items * sizeof(struct gpu_item_side), old_items * sizeof(struct gpu_item_side),
		                       "room for items");
	if (rc == 0)
		rc = device_array_grow(backend, &work->item_ids, n_items * sizeof(int64_t), old_items * sizeof(int64_t), "room for items");
	return rc;
}

static int make_rows(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	struct table_work *work = backend->table_work;
	uint32_t old_users = backend->n_users, old_items = backend->n_items;
	if (n_users == old_users && n_items == old_items)
		return 0;
	int rc = make_room(backend, n_users, n_items);
	if (rc == 0)
		rc = transfer_send(backend, static_cast<int64_t *>(work->user_ids.data) + old_users, user_ids + old_users,
		                   (n_users - old_users) * sizeof *user_ids);
	if (rc == 0)
		rc = transfer_send(backend, static_cast<int64_t *>(work->item_ids.data) + old_items, item_ids + old_items,
		                   (n_items - old_items) * sizeof *item_ids);
	if (rc == 0)
		rc = init_rows(backend, 0, old_users, n_users);
	if (rc == 0)
		rc = init_rows(backend, 1, old_items, n_items);
	if (rc < 0)
		return rc;
	backend->n_users = n_users;
	backend->n_items = n_items;
	return 0;
}

int cuda_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	n_users = n_users > backend->wanted_users ? n_users : backend->wanted_users;
	n_items = n_items > backend->wanted_items ? n_items : backend->wanted_items;
	int rc = backend->running ? 0 : make_rows(backend, n_users, n_items, user_ids, item_ids);
	if (rc < 0)
		return rc;
	backend->wanted_users = n_users;
	backend->wanted_items = n_items;
	backend->user_ids = user_ids;
	backend->item_ids = item_ids;
	return 0;
}

int cuda_grow_noted(struct backend *backend)
{
	return make_rows(backend, backend->wanted_users, backend->wanted_items, backend->user_ids, backend->item_ids);
}

int cuda_forget(struct backend *backend)
{
	const struct learn_options *options = backend->options;
	uint64_t ended = backend->set->passes_here - backend->passes;
	float keep = 1.0f;
	int rc = 0;
	if (ended && options->adagrad_forget > 0.0f && options->optimizer == OPTIMIZER_ADAGRAD) {
		for (uint64_t i = 0; i < ended && keep > 1e-6f; i++)
			keep *= 1.0f - options->adagrad_forget;
		GPU_LAUNCH(tables_forget_kernel, gpu_blocks(backend, (uint64_t)backend->n_users + backend->n_items), GPU_BLOCK, 0, backend->stream,
		           backend_tables_view(backend), keep);
		rc = gpu_launched(&backend->fault, "forgetting");
	}
	if (rc == 0)
		backend->passes = backend->set->passes_here;
	return rc;
}

static int clear_find(struct backend *backend)
{
	return gpu_check(&backend->fault, cudaMemsetAsync(backend->table_work->find.data, 0, sizeof(struct pull_find), backend->stream), PULL_FAULT);
}

/* Waits for everything enqueued. */
static int read_find(struct backend *backend, struct pull_find *ret_find)
{
	struct piece piece;
	int rc = piece_take(backend, &piece);
	if (rc == 0)
		rc = piece_fetch(backend, &piece, backend->table_work->find.data, sizeof *ret_find);
	if (rc == 0)
		rc = piece_wait(backend, &piece);
	if (rc == 0)
		memcpy(ret_find, piece.host, sizeof *ret_find);
	return rc;
}

template <typename E> static int launch_find(struct backend *backend, uint64_t since)
{
	const struct tables_view view = backend_tables_view(backend);
	GPU_LAUNCH(tables_find_users_kernel<E>, gpu_blocks(backend, (uint64_t)view.n_users * view.stride / 4), GPU_BLOCK, 0, backend->stream, view, since,
	           static_cast<uint32_t *>(backend->table_work->list.data), find_of(backend));
	int rc = gpu_launched(&backend->fault, PULL_FAULT);
	if (rc < 0)
		return rc;
	GPU_LAUNCH(tables_find_items_kernel<E>, gpu_blocks(backend, (uint64_t)view.n_items * view.stride / 4), GPU_BLOCK, 0, backend->stream, view,
	           find_of(backend));
	return gpu_launched(&backend->fault, PULL_FAULT);
}

template <typename E> static void launch_snapshot(struct backend *backend)
{
	const struct tables_view view = backend_tables_view(backend);
	GPU_LAUNCH(tables_snapshot_kernel<E>, gpu_blocks(backend, (uint64_t)view.n_items * view.stride), GPU_BLOCK, 0, backend->stream, view,
	           static_cast<float *>(backend->pulled_V.data), static_cast<float *>(backend->pulled_bias.data));
}

/* The item tables for personalize and topk; room was made. */
static int take_snapshot(struct backend *backend)
{
	if (backend->n_items == 0)
		return 0;
	if (is_bf16(backend))
		launch_snapshot<uint16_t>(backend);
	else
		launch_snapshot<float>(backend);
	int rc = gpu_launched(&backend->fault, PULL_FAULT);
	if (rc == 0)
		backend->pulled_items = backend->n_items;
	return rc;
}

/* Rows on their way to a copy. `list` is NULL for all rows in order. */
struct row_fetch {
	const void *rows;
	int bf16;
	const uint32_t *list;
	float *to; /* [_, dim] */
};

/* A piece under way: rows first..first + n - 1 of the list; with a list, the row numbers stand behind the rows. */
struct fetch_step {
	struct piece piece;
	uint32_t first, n;
};

static int begin_fetch(struct backend *backend, const struct row_fetch *fetch, struct fetch_step *step)
{
	const uint32_t *list = fetch->list ? fetch->list + step->first : NULL;
	size_t values = (size_t)step->n * backend->dim * sizeof(float), numbers = list ? step->n * sizeof *list : 0;
	size_t skipped = list ? 0 : (size_t)step->first * backend->stride;
	int rc = piece_take(backend, &step->piece);
	if (rc < 0)
		return rc;
	uint32_t blocks = gpu_blocks(backend, (uint64_t)step->n * backend->dim);
	float *out = static_cast<float *>(step->piece.device);
	if (fetch->bf16)
		GPU_LAUNCH(tables_gather_kernel<uint16_t>, blocks, GPU_BLOCK, 0, backend->stream, static_cast<const uint16_t *>(fetch->rows) + skipped, list,
		           step->n, backend->dim, backend->stride, out);
	else
		GPU_LAUNCH(tables_gather_kernel<float>, blocks, GPU_BLOCK, 0, backend->stream, static_cast<const float *>(fetch->rows) + skipped, list, step->n,
		           backend->dim, backend->stride, out);
	rc = gpu_launched(&backend->fault, PULL_FAULT);
	if (rc == 0 && list)
		rc = gpu_check(&backend->fault, cudaMemcpyAsync(reinterpret_cast<char *>(out) + values, list, numbers, cudaMemcpyDeviceToDevice, backend->stream),
		               PULL_FAULT);
	return rc < 0 ? rc : piece_fetch(backend, &step->piece, out, values + numbers);
}

static int end_fetch(struct backend *backend, const struct row_fetch *fetch, const struct fetch_step *step)
{
	int rc = piece_wait(backend, &step->piece);
	if (rc < 0)
		return rc;
	const float *values = static_cast<const float *>(step->piece.host);
	const uint32_t *numbers = reinterpret_cast<const uint32_t *>(values + (size_t)step->n * backend->dim);
	if (!fetch->list) {
		memcpy(fetch->to + (size_t)step->first * backend->dim, values, (size_t)step->n * backend->dim * sizeof *values);
		return 0;
	}
	for (uint32_t j = 0; j < step->n; j++)
		memcpy(fetch->to + (size_t)numbers[j] * backend->dim, values + (size_t)j * backend->dim, backend->dim * sizeof *values);
	return 0;
}

/* n rows; one piece is copied out while the next travels. */
static int fetch_rows(struct backend *backend, const struct row_fetch *fetch, uint32_t n)
{
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / (backend->dim * sizeof(float) + sizeof(uint32_t)));
	struct fetch_step steps[2] = {};
	int rc = 0, under_way = 0;
	for (uint32_t first = 0; first < n && rc == 0; first += limit) {
		steps[1].first = first;
		steps[1].n = n - first < limit ? n - first : limit;
		rc = begin_fetch(backend, fetch, &steps[1]);
		if (rc == 0 && under_way)
			rc = end_fetch(backend, fetch, &steps[0]);
		steps[0] = steps[1];
		under_way = 1;
	}
	return rc == 0 && under_way ? end_fetch(backend, fetch, &steps[0]) : rc;
}

/* What stands beside the rows. */
static int fetch_sides(struct backend *backend, int items, struct tables *copy)
{
	const char *from = static_cast<const char *>((items ? backend->items : backend->users).data);
	uint32_t n = items ? backend->n_items : backend->n_users;
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / sizeof(struct gpu_item_side));
	for (uint32_t first = 0; first < n; first += limit) {
		uint32_t part = n - first < limit ? n - first : limit;
		struct piece piece;
		int rc = piece_take(backend, &piece);
		if (rc == 0)
			rc = piece_fetch(backend, &piece, from + first * sizeof(struct gpu_item_side), part * sizeof(struct gpu_item_side));
		if (rc == 0)
			rc = piece_wait(backend, &piece);
		if (rc < 0)
			return rc;
		const struct gpu_item_side *item_sides = static_cast<const struct gpu_item_side *>(piece.host);
		const struct gpu_user_side *user_sides = static_cast<const struct gpu_user_side *>(piece.host);
		for (uint32_t j = 0; j < part && items; j++) {
			copy->bi[first + j] = item_sides[j].bias;
			copy->acc_item[first + j] = item_sides[j].acc;
		}
		for (uint32_t j = 0; j < part && !items; j++)
			copy->acc_user[first + j] = user_sides[j].acc;
	}
	return 0;
}

/* Lists the user rows to bring; -ERANGE when a parameter is not finite. */
static int look_through(struct backend *backend, uint64_t since, uint32_t *ret_n_users)
{
	struct pull_find find = {};
	int rc = clear_find(backend);
	if (rc < 0)
		return rc;
	rc = is_bf16(backend) ? launch_find<uint16_t>(backend, since) : launch_find<float>(backend, since);
	if (rc == 0)
		rc = read_find(backend, &find);
	if (rc < 0)
		return rc;
	*ret_n_users = find.n_users;
	return find.nonfinite ? -ERANGE : 0;
}

static int bring(struct backend *backend, uint32_t n_listed, struct tables *copy)
{
	struct row_fetch items = {backend->pulled_V.data, 0, NULL, copy->V};
	/* when most rows go over, all of them do, in order: the list has them in any order, which is dear on both sides. The others hold what the copy has */
	const int in_order = n_listed > backend->n_users / 2;
	struct row_fetch users = {backend->U.data, is_bf16(backend), in_order ? NULL : static_cast<const uint32_t *>(backend->table_work->list.data), copy->U};
	int rc = take_snapshot(backend);
	if (rc == 0)
		rc = fetch_rows(backend, &items, backend->n_items);
	if (rc == 0)
		rc = fetch_rows(backend, &users, in_order ? backend->n_users : n_listed);
	if (rc == 0)
		rc = fetch_sides(backend, 1, copy);
	if (rc == 0)
		rc = fetch_sides(backend, 0, copy);
	return rc;
}

int cuda_pull(struct backend *backend, struct tables *copy)
{
	uint32_t n_listed = 0;
	int rc = cuda_grow_noted(backend);
	if (rc == 0)
		rc = query_passed(backend);
	if (rc == 0)
		rc = tables_reserve(copy, backend->n_users, backend->n_items, backend->dim);
	if (rc == 0)
		rc = device_array_grow(backend, &backend->pulled_V, (size_t)backend->n_items * backend->stride * sizeof(float),
		                       (size_t)backend->pulled_items * backend->stride * sizeof(float), "room for a snapshot");
	if (rc == 0)
		rc = device_array_grow(backend, &backend->pulled_bias, backend->n_items * sizeof(float), backend->pulled_items * sizeof(float),
		                       "room for a snapshot");
	if (rc == 0)
		rc = look_through(backend, copy->epoch, &n_listed);
	if (rc == 0)
		rc = bring(backend, n_listed, copy);
	if (rc < 0) {
		copy->epoch = 0; /* half of it may be new */
		return rc;
	}
	copy->n_users = backend->n_users;
	copy->n_items = backend->n_items;
	copy->epoch = ++backend->epoch;
	return 0;
}

/* Rows [first, first + n) out of a piece that was sent. */
static int place_rows(struct backend *backend, int items, uint32_t first, uint32_t n, const struct piece *piece)
{
	void *rows = (items ? backend->V : backend->U).data;
	const float *in = static_cast<const float *>(piece->device);
	size_t skipped = (size_t)first * backend->stride;
	uint32_t blocks = gpu_blocks(backend, (uint64_t)n * backend->dim);
	if (is_bf16(backend))
		GPU_LAUNCH(tables_scatter_kernel<uint16_t>, blocks, GPU_BLOCK, 0, backend->stream, static_cast<uint16_t *>(rows) + skipped, in, n, backend->dim,
		           backend->stride, find_of(backend));
	else
		GPU_LAUNCH(tables_scatter_kernel<float>, blocks, GPU_BLOCK, 0, backend->stream, static_cast<float *>(rows) + skipped, in, n, backend->dim,
		           backend->stride, find_of(backend));
	return gpu_launched(&backend->fault, PUSH_FAULT);
}

static int send_rows(struct backend *backend, int items, const float *from, uint32_t n)
{
	size_t row = backend->dim * sizeof(float);
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / row);
	int rc = 0;
	for (uint32_t first = 0; first < n && rc == 0; first += limit) {
		uint32_t part = n - first < limit ? n - first : limit;
		struct piece piece;
		rc = piece_take(backend, &piece);
		if (rc < 0)
			break;
		memcpy(piece.host, from + (size_t)first * backend->dim, part * row);
		rc = piece_send(backend, &piece, part * row);
		if (rc == 0)
			rc = place_rows(backend, items, first, part, &piece);
		if (rc == 0)
			rc = piece_used(backend, &piece);
	}
	return rc;
}

/* What stands beside the rows; *bad is set when a value is not finite. */
static int send_sides(struct backend *backend, int items, const struct tables *copy, uint32_t n, int *bad)
{
	char *to = static_cast<char *>((items ? backend->items : backend->users).data);
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / sizeof(struct gpu_item_side));
	int rc = 0;
	for (uint32_t first = 0; first < n && rc == 0; first += limit) {
		uint32_t part = n - first < limit ? n - first : limit;
		struct piece piece;
		rc = piece_take(backend, &piece);
		if (rc < 0)
			break;
		struct gpu_item_side *item_sides = static_cast<struct gpu_item_side *>(piece.host);
		struct gpu_user_side *user_sides = static_cast<struct gpu_user_side *>(piece.host);
		for (uint32_t j = 0; j < part; j++) {
			float acc = (items ? copy->acc_item : copy->acc_user)[first + j];
			float bias = items ? copy->bi[first + j] : 0.0f;
			if (items)
				item_sides[j] = {bias, acc};
			else
				user_sides[j] = {acc, backend->epoch};
			*bad |= !bpr_is_finite(acc) || !bpr_is_finite(bias);
		}
		rc = piece_send(backend, &piece, part * sizeof(struct gpu_item_side));
		if (rc == 0)
			rc = gpu_check(&backend->fault,
			               cudaMemcpyAsync(to + first * sizeof(struct gpu_item_side), piece.device, part * sizeof(struct gpu_item_side),
			                               cudaMemcpyDeviceToDevice, backend->stream),
			               PUSH_FAULT);
		if (rc == 0)
			rc = piece_used(backend, &piece);
	}
	return rc;
}

int cuda_push(struct backend *backend, const struct tables *copy)
{
	if (copy->dim != backend->dim)
		return -EINVAL;
	int rc = cuda_grow_noted(backend), bad = 0;
	if (rc < 0)
		return rc;
	uint32_t n_users = copy->n_users < backend->n_users ? copy->n_users : backend->n_users;
	uint32_t n_items = copy->n_items < backend->n_items ? copy->n_items : backend->n_items;
	struct pull_find find = {};
	rc = clear_find(backend);
	if (rc == 0)
		rc = send_rows(backend, 1, copy->V, n_items);
	if (rc == 0)
		rc = send_rows(backend, 0, copy->U, n_users);
	if (rc == 0)
		rc = send_sides(backend, 1, copy, n_items, &bad);
	if (rc == 0)
		rc = send_sides(backend, 0, copy, n_users, &bad);
	if (rc == 0)
		rc = init_rows(backend, 0, n_users, backend->n_users);
	if (rc == 0)
		rc = init_rows(backend, 1, n_items, backend->n_items);
	if (rc == 0)
		rc = read_find(backend, &find);
	if (rc < 0)
		return rc;
	return bad || find.nonfinite ? -ERANGE : 0;
}

/* What tables need besides themselves; at open. */
int table_work_open(struct backend *backend)
{
	backend->table_work = static_cast<struct table_work *>(calloc(1, sizeof *backend->table_work));
	if (!backend->table_work)
		return -ENOMEM;
	return device_array_grow(backend, &backend->table_work->find, sizeof(struct pull_find), 0, "memory for pulls");
}

template <typename E> static int load_kernels(struct gpu_fault *fault)
{
	int rc = gpu_load_kernel(fault, tables_init_kernel<E>);
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_find_users_kernel<E>);
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_find_items_kernel<E>);
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_snapshot_kernel<E>);
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_gather_kernel<E>);
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_gather_kernel<float>); /* of the snapshot */
	if (rc == 0)
		rc = gpu_load_kernel(fault, tables_scatter_kernel<E>);
	return rc < 0 ? rc : gpu_load_kernel(fault, tables_forget_kernel);
}

int table_work_try(struct backend *backend)
{
	int rc = is_bf16(backend) ? load_kernels<uint16_t>(&backend->fault) : load_kernels<float>(&backend->fault);
	if (rc < 0)
		return rc;
	GPU_LAUNCH(tables_forget_kernel, 1, GPU_BLOCK, 0, backend->stream, backend_tables_view(backend), 1.0f); /* over no rows */
	rc = gpu_launched(&backend->fault, "trying a kernel");
	return rc < 0 ? rc : gpu_check(&backend->fault, cudaStreamSynchronize(backend->stream), "trying a kernel");
}
