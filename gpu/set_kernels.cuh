/*
 * set_kernels.cuh: kernels of the set's mirror. One thread an element; any grid.
 */
#ifndef GPU_SET_KERNELS_CUH
#define GPU_SET_KERNELS_CUH

#include "gpu/pair_set.cuh"

/* A positive that was moved or brought by an insert. */
struct moved_positive {
	uint32_t place;
	uint32_t user, item;
	float weight;
};

/* Where pairs go that are new. */
struct set_target {
	struct user_item *positives;
	float *weights; /* NULL: none are kept */
	struct pair_table table;
	uint32_t *user_positives;
};

GPU_FN void set_insert(const struct set_target *set, uint32_t user, uint32_t item)
{
	if (pair_table_insert(&set->table, user, item))
		(void)atomicAdd(&set->user_positives[user], 1u);
}

/* Positives [from, end) into the set of pairs; those that are there already change nothing. */
static __global__ void set_insert_kernel(struct set_target set, uint64_t from, uint64_t end)
{
	uint64_t step = (uint64_t)gridDim.x * blockDim.x;
	for (uint64_t k = from + (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; k < end; k += step)
		set_insert(&set, set.positives[k].user, set.positives[k].item);
}

/* moved[n] to their places and into the set of pairs. A place may come twice, with the same content. */
static __global__ void set_move_kernel(struct set_target set, const struct moved_positive *moved, uint32_t n)
{
	uint32_t step = gridDim.x * blockDim.x;
	for (uint32_t k = blockIdx.x * blockDim.x + threadIdx.x; k < n; k += step) {
		struct moved_positive one = moved[k];
		gpu_store_u32(&set.positives[one.place].user, one.user);
		gpu_store_u32(&set.positives[one.place].item, one.item);
		if (set.weights)
			gpu_store(&set.weights[one.place], one.weight);
		set_insert(&set, one.user, one.item);
	}
}

#endif
