/*
 * test_emu_lanes.cu: what lanes compute together: shuffles, votes, reductions, atomics and schedules, against their definitions.
 */
#include <cuda_runtime.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

extern "C" {
#include <cmocka.h>
}

#define LANES 64u

/* Runs a kernel on one block of LANES lanes; each lane writes `width` words. */
template <class T, class K> static void run(K kernel, T *ret_out, size_t width)
{
	T *out;
	size_t bytes = LANES * width * sizeof(T);
	assert_int_equal(cudaMalloc(&out, bytes), cudaSuccess);
	GPU_LAUNCH(kernel, 1, LANES, 0, nullptr, out);
	assert_int_equal(cudaMemcpy(ret_out, out, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
	assert_int_equal(cudaFree(out), cudaSuccess);
}

__global__ static void shuffles(int *out)
{
	int lane = static_cast<int>(threadIdx.x % 32);
	int *row = out + 6 * threadIdx.x;
	row[0] = __shfl_sync(0xffffffffu, lane, 5);
	row[1] = __shfl_sync(0xffffffffu, lane, 3, 8);
	row[2] = __shfl_xor_sync(0xffffffffu, lane, 9, 16);
	row[3] = __shfl_up_sync(0xffffffffu, lane, 3, 16);
	row[4] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
	row[5] = __shfl_sync(0xffffffffu, lane, lane + 1); /* takes the source modulo the width */
}

static void shuffles_follow_their_definition(void **state)
{
	(void)state;
	static int out[LANES * 6];
	for (uint64_t seed = 0; seed < 10; seed++) {
		emu_seed(seed);
		run(shuffles, out, 6);
		for (int t = 0; t < static_cast<int>(LANES); t++) {
			int lane = t % 32, segment = lane / 16 * 16;
			const int *row = out + 6 * t;
			assert_int_equal(row[0], 5);
			assert_int_equal(row[1], lane / 8 * 8 + 3);
			assert_int_equal(row[2], lane ^ 9);
			assert_int_equal(row[3], lane - 3 < segment ? lane : lane - 3);
			assert_int_equal(row[4], lane + 3 >= segment + 16 ? lane : lane + 3);
			assert_int_equal(row[5], (lane + 1) % 32);
		}
	}
	emu_seed(0);
}

__global__ static void votes(unsigned *out)
{
	unsigned lane = threadIdx.x % 32, half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
	unsigned *row = out + 10 * threadIdx.x;
	row[0] = __ballot_sync(0xffffffffu, lane % 3 == 0);
	row[1] = __ballot_sync(half, lane % 3 == 0);
	row[2] = static_cast<unsigned>(__any_sync(half, lane == 20));
	row[3] = static_cast<unsigned>(__all_sync(half, lane < 16));
	row[4] = __reduce_add_sync(half, lane);
	row[5] = static_cast<unsigned>(__reduce_min_sync(half, static_cast<int>(lane) - 20));
	row[6] = __reduce_max_sync(half, lane);
	row[7] = __reduce_or_sync(half, 1u << lane);
	row[8] = __match_any_sync(0xffffffffu, lane / 4);
	row[9] = static_cast<unsigned>(__syncthreads_count(lane == 7));
}

static void votes_and_reductions_follow_their_definition(void **state)
{
	(void)state;
	static unsigned out[LANES * 10];
	for (uint64_t seed = 0; seed < 10; seed++) {
		emu_seed(seed);
		run(votes, out, 10);
		for (unsigned t = 0; t < LANES; t++) {
			unsigned lane = t % 32, low = lane < 16, thirds = 0x49249249u;
			const unsigned *row = out + 10 * t;
			assert_int_equal(row[0], thirds);
			assert_int_equal(row[1], low ? thirds & 0xffffu : thirds & 0xffff0000u);
			assert_int_equal(row[2], !low);
			assert_int_equal(row[3], low);
			assert_int_equal(row[4], low ? 120 : 376);
			assert_int_equal(row[5], static_cast<unsigned>(low ? -20 : -4));
			assert_int_equal(row[6], low ? 15 : 31);
			assert_int_equal(row[7], low ? 0xffffu : 0xffff0000u);
			assert_int_equal(row[8], 0xfu << (lane / 4 * 4));
			assert_int_equal(row[9], 2);
		}
	}
	emu_seed(0);
}

struct counters {
	int i, i_max, i_min;
	unsigned u, bits, slot;
	emu_u64 wide;
	float f;
	float4 f4;
};

__global__ static void count(struct counters *out)
{
	int lane = static_cast<int>(threadIdx.x);
	atomicAdd(&out->i, -1);
	atomicMax(&out->i_max, lane);
	atomicMin(&out->i_min, -lane);
	atomicAdd(&out->u, 2u);
	atomicOr(&out->bits, 1u << (lane % 32));
	atomicAdd(&out->wide, 1ull << 33);
	atomicAdd(&out->f, 0.5f);
	atomicAdd(&out->f4, make_float4(1.0f, 2.0f, 3.0f, 4.0f));
	if (atomicCAS(&out->slot, 0u, static_cast<unsigned>(lane) + 1u) != 0u)
		atomicExch(&out->slot, 99u);
}

static void atomics_lose_nothing(void **state)
{
	(void)state;
	struct counters *d, h;
	assert_int_equal(cudaMalloc(&d, sizeof *d), cudaSuccess);
	for (uint64_t seed = 0; seed < 10; seed++) {
		emu_seed(seed);
		cudaMemset(d, 0, sizeof *d);
		GPU_LAUNCH(count, 3, LANES, 0, nullptr, d);
		cudaMemcpy(&h, d, sizeof h, cudaMemcpyDeviceToHost);
		assert_int_equal(h.i, -3 * static_cast<int>(LANES));
		assert_int_equal(h.i_max, LANES - 1);
		assert_int_equal(h.i_min, -static_cast<int>(LANES) + 1);
		assert_int_equal(h.u, 6 * LANES);
		assert_int_equal(h.bits, 0xffffffffu);
		assert_true(h.wide == static_cast<emu_u64>(3 * LANES) << 33);
		assert_true(h.f == 1.5f * LANES);
		assert_true(h.f4.x == 3.0f * LANES && h.f4.y == 6.0f * LANES && h.f4.z == 9.0f * LANES && h.f4.w == 12.0f * LANES);
		assert_int_equal(h.slot, 99);
	}
	emu_seed(0);
	cudaFree(d);
}

__global__ static void places(uint3 *out)
{
	unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
	unsigned lane = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
	out[block * blockDim.x * blockDim.y * blockDim.z + lane] = {threadIdx.x + 10 * blockIdx.x, threadIdx.y + 10 * blockIdx.y,
		threadIdx.z + 10 * blockIdx.z};
}

static void every_lane_of_a_grid_in_three_dimensions_runs_once(void **state)
{
	(void)state;
	enum { BLOCKS = 2 * 3 * 4, PER_BLOCK = 5 * 3 * 2 };
	static uint3 h[BLOCKS * PER_BLOCK];
	uint3 *d;
	for (uint64_t seed = 0; seed < 5; seed++) {
		emu_seed(seed);
		assert_int_equal(cudaMalloc(&d, sizeof h), cudaSuccess);
		GPU_LAUNCH(places, dim3(2, 3, 4), dim3(5, 3, 2), 0, nullptr, d);
		cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
		cudaFree(d);
		for (unsigned b = 0; b < BLOCKS; b++) {
			for (unsigned t = 0; t < PER_BLOCK; t++) {
				uint3 at = h[b * PER_BLOCK + t];
				assert_int_equal(at.x, t % 5 + 10 * (b % 2));
				assert_int_equal(at.y, t / 5 % 3 + 10 * (b / 2 % 3));
				assert_int_equal(at.z, t / 15 + 10 * (b / 6));
			}
		}
	}
	emu_seed(0);
}

/* In which order lanes took a ticket. */
__global__ static void take_ticket(unsigned *out)
{
	__syncthreads();
	out[1 + atomicAdd(&out[0], 1u)] = blockIdx.x * blockDim.x + threadIdx.x;
}

static uint64_t order_of(uint64_t seed)
{
	static unsigned h[1 + 4 * LANES];
	unsigned *d;
	emu_seed(seed);
	cudaMalloc(&d, sizeof h);
	cudaMemset(d, 0, sizeof h);
	GPU_LAUNCH(take_ticket, 4, LANES, 0, nullptr, d);
	cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
	cudaFree(d);
	emu_seed(0);
	uint64_t hash = 0;
	for (unsigned i = 1; i <= 4 * LANES; i++)
		hash = hash * 1000003u + h[i];
	return hash;
}

static void a_seed_is_a_schedule(void **state)
{
	(void)state;
	uint64_t orders[8];
	for (uint64_t seed = 0; seed < 8; seed++) {
		orders[seed] = order_of(seed);
		assert_true(orders[seed] == order_of(seed));
		for (uint64_t other = 0; other < seed; other++)
			assert_true(orders[seed] != orders[other]);
	}
}

/* A lock that lanes spin for: the holder must get its turn. */
__global__ static void spin(int *out)
{
	while (atomicCAS(&out[0], 0, 1) != 0)
		;
	__stcg(&out[1], __ldcg(&out[1]) + 1);
	atomicExch(&out[0], 0);
}

static void spinning_lanes_end(void **state)
{
	(void)state;
	int *d, h[2];
	for (uint64_t seed = 0; seed < 4; seed++) {
		emu_seed(seed);
		cudaMalloc(&d, sizeof h);
		cudaMemset(d, 0, sizeof h);
		GPU_LAUNCH(spin, 2, LANES, 0, nullptr, d);
		cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
		cudaFree(d);
		assert_int_equal(h[1], 2 * LANES);
	}
	emu_seed(0);
}

/* Lanes that have returned do not count at a barrier. */
__global__ static void some_return(int *out, int n)
{
	if (static_cast<int>(threadIdx.x) >= n)
		return;
	__syncthreads();
	out[threadIdx.x] = __syncthreads_count(1);
}

static void returned_lanes_are_not_waited_for(void **state)
{
	(void)state;
	int *d, h[LANES];
	for (uint64_t seed = 0; seed < 6; seed++) {
		emu_seed(seed);
		cudaMalloc(&d, sizeof h);
		GPU_LAUNCH(some_return, 1, LANES, 0, nullptr, d, 41);
		cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
		cudaFree(d);
		for (int i = 0; i < 41; i++)
			assert_int_equal(h[i], 41);
	}
	emu_seed(0);
}

__global__ static void largest_block(unsigned *out)
{
	GPU_SHARED(unsigned, parts);
	parts[threadIdx.x] = threadIdx.x;
	__syncthreads();
	atomicAdd(out, parts[1023 - threadIdx.x]);
}

static void a_block_may_have_1024_lanes(void **state)
{
	(void)state;
	unsigned *d, h = 0;
	cudaMalloc(&d, sizeof h);
	cudaMemset(d, 0, sizeof h);
	GPU_LAUNCH(largest_block, 2, 1024, 1024 * sizeof(unsigned), nullptr, d);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	cudaMemcpy(&h, d, sizeof h, cudaMemcpyDeviceToHost);
	cudaFree(d);
	assert_int_equal(h, 1023 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shuffles_follow_their_definition),
		cmocka_unit_test(votes_and_reductions_follow_their_definition),
		cmocka_unit_test(atomics_lose_nothing),
		cmocka_unit_test(every_lane_of_a_grid_in_three_dimensions_runs_once),
		cmocka_unit_test(a_seed_is_a_schedule),
		cmocka_unit_test(spinning_lanes_end),
		cmocka_unit_test(returned_lanes_are_not_waited_for),
		cmocka_unit_test(a_block_may_have_1024_lanes),
	};
	return cmocka_run_group_tests(tests, nullptr, nullptr);
}
