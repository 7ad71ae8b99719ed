/*
 * tables_kernels.cuh: kernels over whole tables: new rows, copies in and out, the check for what is not finite, forgetting. One thread four coordinates of a
 * row, or one element; any grid. E is float, or uint16_t for bf16.
 */
#ifndef GPU_TABLES_KERNELS_CUH
#define GPU_TABLES_KERNELS_CUH

#include "gpu/device.cuh"
#include "gpu/view.cuh"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"

GPU_FN float element_to_float(float element)
{
	return element;
}

GPU_FN float element_to_float(uint16_t element)
{
	return gpu_float_of_bf16(element);
}

GPU_FN void element_set(float *element, float value)
{
	*element = value;
}

GPU_FN void element_set(uint16_t *element, float value)
{
	*element = (uint16_t)gpu_bf16_of_float(value);
}

/* What a pull looks for and finds. */
struct pull_find {
	uint32_t n_users; /* rows listed */
	uint32_t nonfinite;
};

/*
 * Rows [from, end) as backend_cpu.c begins them: uniform(-0.5, 0.5) * scale, from (seed, external id); zero beyond dim. Beside users: sum 0 and this stamp;
 * beside items: bias and sum 0. One of users and items is NULL.
 */
template <typename E>
static __global__ void tables_init_kernel(E *rows, struct gpu_user_side *users, struct gpu_item_side *items, const int64_t *ids, uint32_t from, uint32_t end,
                                          uint32_t dim, uint32_t stride, float scale, uint64_t seed, uint32_t stamp)
{
	uint32_t quads = stride / 4;
	uint64_t n = (uint64_t)(end - from) * quads, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < n; t += step) {
		uint32_t row = from + (uint32_t)(t / quads), quad = (uint32_t)(t % quads);
		uint64_t id = (uint64_t)ids[row];
		struct philox_block random = philox4x32(quad, (uint32_t)id, (uint32_t)(id >> 32), users ? PHILOX_USER_ROW : PHILOX_ITEM_ROW, (uint32_t)seed,
		                                        (uint32_t)(seed >> 32));
		for (uint32_t j = 0; j < 4; j++) {
			uint32_t k = quad * 4 + j;
			element_set(&rows[(uint64_t)row * stride + k], k < dim ? philox_centred(random.v[j]) * scale : 0.0f);
		}
		if (quad)
			continue;
		if (users) {
			users[row].acc = 0.0f;
			users[row].stamp = stamp;
		} else {
			items[row].bias = 0.0f;
			items[row].acc = 0.0f;
		}
	}
}

template <typename E> GPU_FN int quad_is_finite(const E *quad)
{
	int finite = 1;
	for (uint32_t j = 0; j < 4; j++)
		finite &= bpr_is_finite(element_to_float(quad[j]));
	return finite;
}

/* Lists the users whose stamp is `since` or later (list[n_users], in any order) and looks through their rows, and through every sum. */
template <typename E>
static __global__ void tables_find_users_kernel(struct tables_view tables, uint64_t since, uint32_t *list, struct pull_find *find)
{
	const E *U = static_cast<const E *>(tables.U);
	uint32_t quads = tables.stride / 4;
	uint64_t n = (uint64_t)tables.n_users * quads, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < n; t += step) {
		uint32_t row = (uint32_t)(t / quads), quad = (uint32_t)(t % quads);
		struct gpu_user_side side = tables.users[row];
		int finite = bpr_is_finite(side.acc);
		if (side.stamp >= since) {
			finite &= quad_is_finite(U + (uint64_t)row * tables.stride + quad * 4);
			if (quad == 0)
				list[atomicAdd(&find->n_users, 1u)] = row;
		}
		if (!finite)
			gpu_store_u32(&find->nonfinite, 1);
	}
}

template <typename E> static __global__ void tables_find_items_kernel(struct tables_view tables, struct pull_find *find)
{
	const E *V = static_cast<const E *>(tables.V);
	uint32_t quads = tables.stride / 4;
	uint64_t n = (uint64_t)tables.n_items * quads, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < n; t += step) {
		uint32_t row = (uint32_t)(t / quads), quad = (uint32_t)(t % quads);
		int finite = quad_is_finite(V + (uint64_t)row * tables.stride + quad * 4);
		if (quad == 0)
			finite &= bpr_is_finite(tables.items[row].bias) & bpr_is_finite(tables.items[row].acc);
		if (!finite)
			gpu_store_u32(&find->nonfinite, 1);
	}
}

/* The item tables as they are now: V [n_items, stride], bias [n_items]. */
template <typename E> static __global__ void tables_snapshot_kernel(struct tables_view tables, float *V, float *bias)
{
	const E *from = static_cast<const E *>(tables.V);
	uint64_t n = (uint64_t)tables.n_items * tables.stride, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < n; t += step) {
		V[t] = element_to_float(from[t]);
		if (t < tables.n_items)
			bias[t] = tables.items[t].bias;
	}
}

/* out[j] = row list[j], or row j when list is NULL, without padding; j in 0..n - 1. */
template <typename E>
static __global__ void tables_gather_kernel(const E *rows, const uint32_t *list, uint32_t n, uint32_t dim, uint32_t stride, float *out)
{
	uint64_t all = (uint64_t)n * dim, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < all; t += step) {
		uint32_t j = (uint32_t)(t / dim), k = (uint32_t)(t % dim);
		uint32_t row = list ? list[j] : j;
		out[t] = element_to_float(rows[(uint64_t)row * stride + k]);
	}
}

/* rows[j] = in[j], j in 0..n - 1; padding stays. */
template <typename E>
static __global__ void tables_scatter_kernel(E *rows, const float *in, uint32_t n, uint32_t dim, uint32_t stride, struct pull_find *find)
{
	uint64_t all = (uint64_t)n * dim, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < all; t += step) {
		uint32_t j = (uint32_t)(t / dim), k = (uint32_t)(t % dim);
		float value = in[t];
		element_set(&rows[(uint64_t)j * stride + k], value);
		if (!bpr_is_finite(value))
			gpu_store_u32(&find->nonfinite, 1);
	}
}

/* Every Adagrad sum times keep. */
static __global__ void tables_forget_kernel(struct tables_view tables, float keep)
{
	uint64_t n = (uint64_t)tables.n_users + tables.n_items, step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t t = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; t < n; t += step) {
		if (t < tables.n_users)
			tables.users[t].acc *= keep;
		else
			tables.items[t - tables.n_users].acc *= keep;
	}
}

#endif
