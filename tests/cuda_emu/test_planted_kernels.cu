/*
 * test_planted_kernels.cu: bugs inside kernels, and whether the emulation sees them. Each case is a program with the bug and its correct twin.
 */
#include <cuda_runtime.h>

#include "tests/cuda_emu/planted.h"

#define N 64

struct bench {
	float *d;     /* device [N], zero */
	float h[N];   /* what came back */
	cudaStream_t stream;
};

static struct bench bench_open(void)
{
	struct bench b = {};
	cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking);
	cudaMalloc(&b.d, sizeof b.h);
	cudaMemsetAsync(b.d, 0, sizeof b.h, b.stream);
	return b;
}

static void bench_close(struct bench *b)
{
	cudaMemcpyAsync(b->h, b->d, sizeof b->h, cudaMemcpyDeviceToHost, b->stream);
	cudaStreamSynchronize(b->stream);
	cudaFree(b->d);
	cudaStreamDestroy(b->stream);
}

/* 1 unless every element is `value`. */
static int not_all(const struct bench *b, float value)
{
	int wrong = 0;
	for (int i = 0; i < N; i++)
		wrong |= !(b->h[i] == value);
	return wrong;
}

/* ---- order between lanes ------------------------------------------------------------------------------------------------------------- */
__global__ void sum_of_block(float *out, int planted)
{
	GPU_SHARED(float, parts);
	parts[threadIdx.x] = 1.0f;
	if (!planted)
		__syncthreads();
	float sum = 0.0f;
	for (unsigned i = 0; i < blockDim.x; i++)
		sum += parts[i];
	out[threadIdx.x] = sum;
}

static int missing_barrier(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(sum_of_block, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, N);
}

__global__ void neighbour(float *out, int planted)
{
	GPU_SHARED(float, parts);
	parts[threadIdx.x] = 1.0f;
	if (!planted)
		__syncwarp();
	out[threadIdx.x] = parts[threadIdx.x ^ 1u];
}

static int missing_syncwarp(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(neighbour, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

/* A shuffle moves a register and orders no memory: only TSan, or luck, can tell it from a __syncwarp. */
__global__ void shuffle_as_barrier(float *out, int planted)
{
	GPU_SHARED(float, parts);
	parts[threadIdx.x] = 1.0f;
	float one = __shfl_sync(0xffffffffu, parts[threadIdx.x], 0);
	if (!planted)
		__syncwarp();
	out[threadIdx.x] = one * parts[threadIdx.x ^ 1u];
}

static int shuffle_for_syncwarp(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(shuffle_as_barrier, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

/* Each turn writes parts[0] anew: a lane that is slow to read the last sum must have read it before. */
__global__ void sums_in_turns(float *out, int planted)
{
	GPU_SHARED(float, parts);
	float total = 0.0f;
	for (int turn = 1; turn <= 8; turn++) {
		float value = static_cast<float>(turn);
		for (int distance = 16; distance; distance >>= 1)
			value += __shfl_down_sync(0xffffffffu, value, static_cast<unsigned>(distance));
		if (threadIdx.x % 32 == 0)
			parts[threadIdx.x / 32] = value;
		__syncthreads();
		for (unsigned w = 0; w < blockDim.x / 32; w++)
			total += parts[w];
		if (!planted)
			__syncthreads();
	}
	out[threadIdx.x] = total;
}

static int reused_shared(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(sums_in_turns, 1, N, N / 32 * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 36.0f * N);
}

__global__ void count_plainly(float *out, int planted)
{
	if (planted)
		out[0] += 1.0f;
	else
		atomicAdd(&out[0], 1.0f);
}

static int plain_add(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(count_plainly, 2, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return b.h[0] != 2.0f * N;
}

__global__ void count_in_two_steps(float *out, int planted)
{
	if (planted)
		__stcg(&out[0], __ldcg(&out[0]) + 1.0f);
	else
		atomicAdd(&out[0], 1.0f);
}

static int add_in_two_steps(int planted)
{
	struct bench b = bench_open();
	for (int i = 0; i < 50; i++)
		GPU_LAUNCH(count_in_two_steps, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return b.h[0] != 50.0f * N;
}

__global__ void write_by_blocks(float *out, int planted)
{
	if (threadIdx.x == 0)
		out[planted ? 0 : blockIdx.x] = 1.0f;
}

static int blocks_write_one_place(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(write_by_blocks, 3, 32, 0, b.stream, b.d, planted);
	bench_close(&b);
	return b.h[0] != 1.0f;
}

/* ---- meeting ------------------------------------------------------------------------------------------------------------------------- */
__global__ void two_barriers(float *out, int planted)
{
	if (planted && threadIdx.x % 2) {
		__syncthreads();
		out[threadIdx.x] = 1.0f;
	} else {
		out[threadIdx.x] = 1.0f;
		__syncthreads();
	}
}

static int divergent_barrier(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(two_barriers, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void barrier_for_some(float *out, int planted)
{
	float one = 1.0f;
	if (!planted || threadIdx.x < 16)
		__syncthreads();
	one = __shfl_xor_sync(0xffffffffu, one, 1);
	out[threadIdx.x] = one;
}

static int barrier_not_reached(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(barrier_for_some, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void shuffle_after_return(float *out, int planted)
{
	unsigned alive = planted ? 0xffffffffu : 0x0000ffffu;
	out[threadIdx.x] = 1.0f;
	if (threadIdx.x % 32 >= 16)
		return;
	out[threadIdx.x] = __shfl_xor_sync(alive, 1.0f, 1, 16);
}

static int shuffle_with_returned(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(shuffle_after_return, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void shuffle_in_branches(float *out, int planted)
{
	float one = 1.0f;
	if (!planted)
		one = __shfl_sync(0xffffffffu, one, 0);
	else if (threadIdx.x % 2)
		one = __shfl_sync(0xffffffffu, one, 0);
	else
		one = __shfl_sync(0xffffffffu, one, 1);
	out[threadIdx.x] = one;
}

static int shuffle_diverged(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(shuffle_in_branches, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void shuffle_of_half(float *out, int planted)
{
	unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
	out[threadIdx.x] = __shfl_xor_sync(half, 1.0f, planted ? 16 : 8);
}

static int shuffle_outside_mask(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(shuffle_of_half, 1, N, 0, b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------------------- */
__global__ void fill_past(float *out, int n)
{
	int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
	if (i < n)
		out[i] = 1.0f;
}

static int write_past_allocation(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(fill_past, 2, N, 0, b.stream, b.d, N + planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void shift_by_one(float *out, const float *in, int planted)
{
	unsigned from = planted ? threadIdx.x + 1 : (threadIdx.x + 1) % N;
	out[threadIdx.x] = in[from] * 0.0f + 1.0f;
}

static int read_past_allocation(int planted)
{
	struct bench b = bench_open();
	float *in;
	cudaMalloc(&in, sizeof b.h);
	cudaMemsetAsync(in, 0, sizeof b.h, b.stream);
	GPU_LAUNCH(shift_by_one, 1, N, 0, b.stream, b.d, in, planted);
	cudaStreamSynchronize(b.stream);
	cudaFree(in);
	bench_close(&b);
	return 0;
}

__global__ void shift_in_shared(float *out, int planted)
{
	GPU_SHARED(float, parts);
	parts[threadIdx.x + static_cast<unsigned>(planted)] = 1.0f;
	__syncthreads();
	out[threadIdx.x] = 1.0f;
}

static int write_past_shared(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(shift_in_shared, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void read_in_shared(float *out, int planted)
{
	GPU_SHARED(float, parts);
	parts[threadIdx.x] = 1.0f;
	__syncthreads();
	float next = parts[threadIdx.x + static_cast<unsigned>(planted)];
	out[threadIdx.x] = next > 0.0f ? 1.0f : 1.0f + next * 0.0f;
}

static int read_past_shared(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(read_in_shared, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return 0;
}

__global__ void add_to_shared(float *out, int planted)
{
	GPU_SHARED(float, parts);
	if (!planted)
		parts[threadIdx.x] = 0.0f;
	parts[threadIdx.x] += 1.0f;
	out[threadIdx.x] = parts[threadIdx.x];
}

static int unset_shared(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(add_to_shared, 1, N, N * sizeof(float), b.stream, b.d, planted);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

__global__ void add_one(float *out)
{
	out[threadIdx.x] += 1.0f;
}

static int unset_device_memory(int planted)
{
	struct bench b = {};
	cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking);
	cudaMalloc(&b.d, sizeof b.h);
	if (!planted)
		cudaMemsetAsync(b.d, 0, sizeof b.h, b.stream);
	GPU_LAUNCH(add_one, 1, N, 0, b.stream, b.d);
	bench_close(&b);
	return not_all(&b, 1.0f);
}

static int use_after_free(int planted)
{
	struct bench b = bench_open();
	float *other;
	cudaMalloc(&other, sizeof b.h);
	if (planted)
		cudaFree(other);
	GPU_LAUNCH(fill_past, 1, N, 0, b.stream, other, N);
	if (!planted)
		cudaFree(other);
	bench_close(&b);
	return not_all(&b, 0.0f);
}

__global__ void four_at_once(float *out, int planted)
{
	float4 *row = reinterpret_cast<float4 *>(out + 4 * threadIdx.x + planted);
	if (threadIdx.x < N / 4 - 1)
		*row = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
}

static int misaligned_vector(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(four_at_once, 1, 32, 0, b.stream, b.d, planted);
	bench_close(&b);
	return 0;
}

#ifdef EMU_UBSAN
#define MISALIGNED "misaligned address"
#else
#define MISALIGNED nullptr
#endif

static const struct planted cases[] = {
	{"missing_barrier", missing_barrier, WRONG, WRONG, RACE, 4},
	{"missing_syncwarp", missing_syncwarp, WRONG, WRONG, RACE, 4},
	{"shuffle_for_syncwarp", shuffle_for_syncwarp, nullptr, nullptr, RACE, 4},
	{"reused_shared", reused_shared, WRONG, WRONG, RACE, 12},
	{"plain_add", plain_add, nullptr, nullptr, RACE, 2},
	{"add_in_two_steps", add_in_two_steps, WRONG, WRONG, WRONG, 6},
	{"blocks_write_one_place", blocks_write_one_place, nullptr, nullptr, RACE, 2},
	{"divergent_barrier", divergent_barrier, "divergent barrier", "divergent barrier", "divergent barrier", 3},
	{"barrier_not_reached", barrier_not_reached, "deadlock", "deadlock", "deadlock", 3},
	{"shuffle_with_returned", shuffle_with_returned, "lane", "lane", "lane", 3},
	{"shuffle_diverged", shuffle_diverged, "lanes of one mask do not meet", "lanes of one mask do not meet", "lanes of one mask do not meet", 3},
	{"shuffle_outside_mask", shuffle_outside_mask, "which is not in mask", "which is not in mask", "which is not in mask", 3},
	{"write_past_allocation", write_past_allocation, "wrote past the end", OVERFLOW_FOUND, "wrote past the end", 2},
	{"read_past_allocation", read_past_allocation, nullptr, OVERFLOW_FOUND, nullptr, 2},
	{"write_past_shared", write_past_shared, "wrote past its", OVERFLOW_FOUND, "wrote past its", 2},
	{"read_past_shared", read_past_shared, nullptr, OVERFLOW_FOUND, nullptr, 2},
	{"unset_shared", unset_shared, WRONG, WRONG, WRONG, 2},
	{"unset_device_memory", unset_device_memory, WRONG, WRONG, WRONG, 2},
	{"use_after_free", use_after_free, nullptr, "AddressSanitizer: heap-use-after-free", nullptr, 2},
	{"misaligned_vector", misaligned_vector, nullptr, MISALIGNED, nullptr, 1},
};

int main(int argc, char **argv)
{
	return planted_main(cases, sizeof cases / sizeof cases[0], argc, argv);
}
