/*
 * train.cuh: what the files of training share (train.cu, train_fast.cu, train_exact.cu).
 */
#ifndef GPU_TRAIN_CUH
#define GPU_TRAIN_CUH

#include "gpu/backend.cuh"

struct draw_plan; /* sampler.h */

/* A job ready to be enqueued on backend->stream. */
struct train_run {
	struct tables_view tables;
	struct set_view set;
	struct update_view update;
	const struct draw_plan *plan;
	uint64_t draws;
	uint32_t launch_draws; /* of a Hogwild launch at most: whole warps, so that draws meet in the same warps whatever the number */
	int bf16;
};

/*
 * Triples under way at one time at most, so that few of them meet in a row: an eighth of the users, and a sixteenth of the items, of which a triple has two.
 * At least 1; a warp has a few more at the least. docs/GPU.md says what more would cost.
 */
uint64_t fast_in_flight(uint32_t n_users, uint32_t n_items);
/* Loads the kernel that the stride and the precision need. 0, -EIO. */
int fast_load(struct backend *backend);
/* Blocks of a Hogwild launch, and warps of each block. */
struct fast_grid {
	uint32_t blocks, warps_here;
};
/*
 * No more warps than keep `in_flight`, than `draws` need and than the device holds; at least one. Few are spread over the multiprocessors, a block each, so
 * that none is idle while another has two; many come in full blocks.
 */
struct fast_grid fast_grid_of(uint32_t processors, uint32_t stride, uint64_t in_flight, uint32_t draws);
/* Enqueues the draws of a Hogwild job. 0, -EIO. */
int fast_run(struct backend *backend, const struct train_run *run);

/* Loads the kernels of the deterministic mode. 0, -EIO. */
int exact_load(struct backend *backend);
/* Memory for batches of the deterministic mode; what grew is cleared on backend->stream. 0, -ENOMEM, -EIO. */
int exact_reserve(struct backend *backend, uint32_t batch);
/* Enqueues the batches of a deterministic job, after exact_reserve(). 0, -EIO. */
int exact_run(struct backend *backend, const struct train_run *run);

#endif
