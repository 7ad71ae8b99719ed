/*
 * train_fast.cu: launches of the Hogwild kernels: which one, and how many lanes of the device it gets.
 */
#include "gpu/train_fast.cuh"

#include "gpu/train.cuh"

#define FAST_DEPTH 2u /* triples of a group under way: the one it works on and the next */

uint64_t fast_in_flight(uint32_t n_users, uint32_t n_items)
{
	uint32_t most = (n_items / 2 < n_users ? n_items / 2 : n_users) / 8;
	return most > 0 ? most : 1;
}

struct fast_grid fast_grid_of(uint32_t processors, uint32_t stride, uint64_t in_flight, uint32_t draws)
{
	struct fast_grid grid;
	uint64_t groups = stride < 128u ? 128u / stride : 1u; /* of a warp; row_shape */
	uint64_t warps = in_flight / (groups * FAST_DEPTH);
	uint64_t needed = ((uint64_t)draws + GPU_WARP - 1) / GPU_WARP;
	uint64_t most = (uint64_t)processors * fast_blocks(stride) * (FAST_BLOCK / GPU_WARP);
	warps = warps < needed ? warps : needed;
	warps = warps < most ? warps : most;
	warps = warps > 0 ? warps : 1;
	uint64_t warps_here = warps / processors;
	warps_here = warps_here < FAST_BLOCK / GPU_WARP ? warps_here : FAST_BLOCK / GPU_WARP;
	warps_here = warps_here > 0 ? warps_here : 1;
	grid.warps_here = (uint32_t)warps_here;
	grid.blocks = (uint32_t)(warps / warps_here);
	return grid;
}

template <uint32_t STRIDE, int BF16> static void fast_launch(const struct backend *backend, const struct fast_view *view)
{
	uint64_t in_flight = fast_in_flight(view->tables.n_users, view->tables.n_items);
	struct fast_grid grid = fast_grid_of((uint32_t)backend->properties.multiProcessorCount, STRIDE, in_flight, view->span.n);
	static_assert(row_shape<STRIDE>::groups == (STRIDE < 128u ? 128u / STRIDE : 1u), "as fast_grid_of() counts them");
	GPU_LAUNCH((fast_kernel<STRIDE, BF16>), grid.blocks, grid.warps_here * GPU_WARP, 0, backend->stream, *view);
}

template <int BF16> static void fast_launch_stride(const struct backend *backend, const struct fast_view *view)
{
	switch (view->tables.stride) {
	case 16:
		fast_launch<16, BF16>(backend, view);
		break;
	case 32:
		fast_launch<32, BF16>(backend, view);
		break;
	case 64:
		fast_launch<64, BF16>(backend, view);
		break;
	case 128:
		fast_launch<128, BF16>(backend, view);
		break;
	case 256:
		fast_launch<256, BF16>(backend, view);
		break;
	case 384:
		fast_launch<384, BF16>(backend, view);
		break;
	default:
		fast_launch<512, BF16>(backend, view);
	}
}

int fast_run(struct backend *backend, const struct train_run *run)
{
	struct fast_view view = {};
	view.tables = run->tables;
	view.set = run->set;
	view.plan = sample_plan(run->plan);
	view.update = run->update;
	view.sums = static_cast<struct job_sums *>(backend->sums.data);
	uint32_t salt = ((uint32_t)run->plan->step ^ (uint32_t)view.plan.seed) * 0x9E3779B9u;
	for (uint64_t first = 0; first < run->draws; first += view.span.n) {
		uint64_t left = run->draws - first;
		view.span = sample_span(run->plan, run->set.n_positives, first, left < run->launch_draws ? (uint32_t)left : run->launch_draws);
		view.salt = salt + (uint32_t)first; /* of the job, so that a draw's coins do not depend on its launch */
		if (run->bf16)
			fast_launch_stride<1>(backend, &view);
		else
			fast_launch_stride<0>(backend, &view);
		int rc = gpu_launched(&backend->fault, "training");
		if (rc < 0)
			return rc;
	}
	return 0;
}

template <int BF16> static int fast_load_stride(struct backend *backend)
{
	switch (backend->stride) {
	case 16:
		return gpu_load_kernel(&backend->fault, fast_kernel<16, BF16>);
	case 32:
		return gpu_load_kernel(&backend->fault, fast_kernel<32, BF16>);
	case 64:
		return gpu_load_kernel(&backend->fault, fast_kernel<64, BF16>);
	case 128:
		return gpu_load_kernel(&backend->fault, fast_kernel<128, BF16>);
	case 256:
		return gpu_load_kernel(&backend->fault, fast_kernel<256, BF16>);
	case 384:
		return gpu_load_kernel(&backend->fault, fast_kernel<384, BF16>);
	default:
		return gpu_load_kernel(&backend->fault, fast_kernel<512, BF16>);
	}
}

int fast_load(struct backend *backend)
{
	return backend->options->precision == PRECISION_BF16 ? fast_load_stride<1>(backend) : fast_load_stride<0>(backend);
}
