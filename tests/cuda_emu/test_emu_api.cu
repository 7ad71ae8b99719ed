/*
 * test_emu_api.cu: the host's side of the emulation: what is refused, how late streams are, what failures do.
 */
#include <cuda_runtime.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

__global__ static void set(int *out, int value)
{
	out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

__global__ static void move(int *to, const int *from)
{
	to[threadIdx.x] = from[threadIdx.x];
}

static int fresh(void **state)
{
	(void)state;
	emu_reset();
	emu_seed(0);
	emu_memory_limit(static_cast<size_t>(8) << 30);
	emu_capability(9, 0);
	emu_presence(13000, 1);
	return 0;
}

static void a_machine_without_a_driver_or_a_device_says_so(void **state)
{
	(void)state;
	int n = 7;
	emu_presence(0, 0);
	assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
	assert_int_equal(n, 0);
	assert_int_equal(cudaDriverGetVersion(&n), cudaSuccess);
	assert_int_equal(n, 0);
	emu_presence(12040, 0);
	assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
	void *p = nullptr;
	assert_int_equal(cudaMalloc(&p, 16), cudaErrorNoDevice);
	emu_presence(12040, 1);
	assert_int_equal(cudaGetDeviceCount(&n), cudaSuccess);
	assert_int_equal(n, 1);
	assert_int_equal(cudaSetDevice(1), cudaErrorInvalidDevice);
	assert_int_equal(cudaGetLastError(), cudaErrorInvalidDevice);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void the_device_is_as_it_was_set(void **state)
{
	(void)state;
	cudaDeviceProp p;
	int value = 0;
	emu_capability(8, 6);
	emu_memory_limit(1 << 20);
	assert_int_equal(cudaGetDeviceProperties(&p, 0), cudaSuccess);
	assert_int_equal(p.major, 8);
	assert_int_equal(p.minor, 6);
	assert_int_equal(p.totalGlobalMem, 1 << 20);
	assert_int_equal(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
	assert_int_equal(value, 99 << 10);
}

static void memory_ends(void **state)
{
	(void)state;
	void *a = nullptr, *b = nullptr;
	size_t left, total;
	emu_memory_limit(1 << 20);
	assert_int_equal(cudaMalloc(&a, 700 << 10), cudaSuccess);
	assert_int_equal(cudaMalloc(&b, 400 << 10), cudaErrorMemoryAllocation);
	assert_null(b);
	assert_int_equal(cudaMemGetInfo(&left, &total), cudaSuccess);
	assert_int_equal(left, 324 << 10);
	assert_int_equal(cudaFree(a), cudaSuccess);
	assert_int_equal(cudaMalloc(&b, 400 << 10), cudaSuccess);
	assert_int_equal(emu_live(), 1);
	assert_int_equal(cudaFree(b), cudaSuccess);
	assert_int_equal(emu_live(), 0);
	assert_int_equal(emu_memory_peak(), 700 << 10);
}

static void impossible_launches_are_refused(void **state)
{
	(void)state;
	int *d;
	assert_int_equal(cudaMalloc(&d, 4096), cudaSuccess);
	GPU_LAUNCH(set, 1, 1025, 0, nullptr, d, 1);
	assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
	GPU_LAUNCH(set, 0, 32, 0, nullptr, d, 1);
	assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
	GPU_LAUNCH(set, dim3(1, 65536), 32, 0, nullptr, d, 1);
	assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
	GPU_LAUNCH(set, 1, 32, 48 * 1024 + 4, nullptr, d, 1);
	assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
	assert_int_equal(cudaFuncSetAttribute(set, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024), cudaErrorInvalidValue);
	(void)cudaGetLastError();
	assert_int_equal(cudaFuncSetAttribute(set, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024), cudaSuccess);
	GPU_LAUNCH(set, 1, 32, 48 * 1024 + 4, nullptr, d, 1);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	assert_int_equal(cudaFree(d), cudaSuccess);
}

/* Reads what a copy is about to write: on purpose, so unseen by TSan. */
__attribute__((noinline, no_sanitize("thread"))) static int peek(const int *p)
{
	return *static_cast<const volatile int *>(p);
}

static void streams_are_as_late_as_they_may_be(void **state)
{
	(void)state;
	int *d, *pinned, h = 0;
	cudaStream_t s;
	cudaEvent_t e;
	assert_int_equal(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), cudaSuccess);
	assert_int_equal(cudaEventCreate(&e), cudaSuccess);
	cudaMalloc(&d, 4 * 32);
	cudaMallocHost(&pinned, 4);
	*pinned = 0;
	GPU_LAUNCH(set, 1, 32, 0, s, d, 5);
	cudaEventRecord(e, s);
	cudaMemcpyAsync(pinned, d, 4, cudaMemcpyDeviceToHost, s);
	assert_int_equal(emu_queued(), 3);
	assert_int_equal(peek(pinned), 0);
	assert_int_equal(cudaStreamQuery(s), cudaErrorNotReady); /* one step */
	assert_int_equal(emu_queued(), 2);
	assert_int_equal(cudaEventSynchronize(e), cudaSuccess); /* up to the event, not further */
	assert_int_equal(emu_queued(), 1);
	assert_int_equal(cudaStreamSynchronize(s), cudaSuccess);
	assert_int_equal(*pinned, 5);
	GPU_LAUNCH(set, 1, 32, 0, s, d, 6);
	cudaMemcpyAsync(&h, d, 4, cudaMemcpyDeviceToHost, s); /* pageable: waits */
	assert_int_equal(h, 6);
	cudaFreeHost(pinned);
	cudaFree(d);
	cudaEventDestroy(e);
	cudaStreamDestroy(s);
	assert_int_equal(emu_live(), 0);
}

static void with_a_seed_streams_move_by_themselves(void **state)
{
	(void)state;
	int *d, early = 0;
	cudaStream_t s;
	cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
	cudaMalloc(&d, 4 * 32);
	for (uint64_t seed = 1; seed <= 20; seed++) {
		emu_seed(seed);
		for (int i = 0; i < 10; i++)
			GPU_LAUNCH(set, 1, 32, 0, s, d, i);
		early += emu_queued() < 10;
		cudaStreamSynchronize(s);
	}
	assert_in_range(early, 10, 20);
	cudaFree(d);
}

static void blocking_streams_wait_for_the_default_stream(void **state)
{
	(void)state;
	int *d, h[32];
	cudaStream_t s;
	cudaStreamCreate(&s);
	cudaMalloc(&d, 2 * sizeof h);
	GPU_LAUNCH(set, 1, 32, 0, nullptr, d, 3);
	GPU_LAUNCH(move, 1, 32, 0, s, d + 32, d);
	cudaMemcpy(h, d + 32, sizeof h, cudaMemcpyDeviceToHost); /* in the default stream, behind s */
	assert_int_equal(h[31], 3);
	cudaFree(d);
}

static void copies_of_two_dimensions_keep_to_their_rows(void **state)
{
	(void)state;
	int *d, h[4][3], back[4][3];
	size_t pitch = 5 * sizeof(int);
	for (int i = 0; i < 12; i++)
		h[i / 3][i % 3] = i;
	cudaMalloc(&d, 4 * pitch);
	cudaMemset(d, 0xff, 4 * pitch);
	cudaMemset2DAsync(d, pitch, 0, sizeof(int), 4);
	cudaMemcpy2D(d + 1, pitch, h, sizeof h[0], sizeof h[0], 4, cudaMemcpyHostToDevice);
	cudaMemcpy2D(back, sizeof back[0], d + 1, pitch, sizeof back[0], 4, cudaMemcpyDeviceToHost);
	assert_memory_equal(h, back, sizeof h);
	int flat[20];
	cudaMemcpy(flat, d, sizeof flat, cudaMemcpyDeviceToHost);
	for (int r = 0; r < 4; r++) {
		assert_int_equal(flat[5 * r], 0);
		assert_int_equal(flat[5 * r + 4], -1);
	}
	cudaFree(d);
}

/* ---- failures ------------------------------------------------------------------------------------------------------------------------ */
/* A small cycle; returns the first error that a call gave. */
static cudaError_t cycle(int *ret_value)
{
	int *d = nullptr, h[32];
	cudaStream_t s = nullptr;
	cudaError_t error, first = cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
	if (first == cudaSuccess)
		first = cudaMalloc(&d, sizeof h);
	if (first == cudaSuccess) {
		GPU_LAUNCH(set, 2, 16, 0, s, d, 7);
		first = cudaGetLastError();
	}
	if (first == cudaSuccess)
		first = cudaMemcpyAsync(h, d, sizeof h, cudaMemcpyDeviceToHost, s);
	if (first == cudaSuccess)
		first = cudaStreamSynchronize(s);
	*ret_value = first == cudaSuccess ? h[31] : -1;
	if ((error = cudaFree(d)) != cudaSuccess && first == cudaSuccess)
		first = error;
	if (s && (error = cudaStreamDestroy(s)) != cudaSuccess && first == cudaSuccess)
		first = error;
	return first;
}

static void each_call_can_be_made_to_fail_once(void **state)
{
	(void)state;
	int value;
	emu_fail_at(EMU_FAIL_NEVER, 0);
	assert_int_equal(cycle(&value), cudaSuccess);
	assert_int_equal(value, 7);
	uint64_t n = emu_calls();
	assert_int_equal(n, 7);
	for (uint64_t k = 1; k <= n; k++) {
		emu_reset();
		emu_fail_at(EMU_FAIL_NOMEM, k);
		assert_int_equal(cycle(&value), cudaErrorMemoryAllocation);
		assert_true(emu_failed());
		(void)cudaGetLastError(); /* CUDA, too, keeps an error until somebody asks */
		emu_fail_at(EMU_FAIL_NEVER, 0);
		assert_int_equal(cycle(&value), cudaSuccess); /* and the device works on */
	}
	emu_reset();
	emu_fail_at(EMU_FAIL_UNKNOWN, 3);
	assert_int_equal(cycle(&value), cudaErrorUnknown);
	assert_string_equal(emu_failed_call(), "launch");
}

static void a_lost_device_stays_lost(void **state)
{
	(void)state;
	int value, n;
	for (uint64_t k = 1; k <= 7; k++) {
		emu_reset();
		emu_fail_at(EMU_FAIL_LOST, k);
		assert_int_equal(cycle(&value), cudaErrorDevicesUnavailable);
		emu_fail_at(EMU_FAIL_NEVER, 0);
		assert_int_equal(cycle(&value), cudaErrorDevicesUnavailable);
		assert_int_equal(cudaDeviceReset(), cudaErrorDevicesUnavailable);
		assert_int_equal(cudaGetDeviceCount(&n), cudaErrorDevicesUnavailable);
		assert_int_equal(emu_queued(), 0);
	}
	emu_reset();
	assert_int_equal(cycle(&value), cudaSuccess);
}

static void a_launch_that_faults_does_half_and_spoils_the_rest(void **state)
{
	(void)state;
	int *pinned, *d, value;
	cudaStream_t s;
	emu_fail_at(EMU_FAIL_LAUNCH, 2);
	cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
	cudaHostAlloc(&pinned, 64 * sizeof *pinned, cudaHostAllocDefault); /* a kernel may write there, too */
	cudaMalloc(&d, 64);
	GPU_LAUNCH(set, 2, 32, 0, s, pinned, 1);
	GPU_LAUNCH(set, 2, 32, 0, s, pinned, 2);
	GPU_LAUNCH(set, 2, 32, 0, s, pinned, 3);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(s), cudaErrorLaunchFailure);
	assert_int_equal(pinned[0], 2);
	assert_int_equal(pinned[63], 1);
	assert_int_equal(cudaFree(d), cudaErrorLaunchFailure);
	assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
	assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
	assert_string_equal(cudaGetErrorString(cudaErrorLaunchFailure), "unspecified launch failure");
	assert_int_equal(cudaDeviceReset(), cudaSuccess);
	assert_int_equal(emu_live(), 0);
	emu_fail_at(EMU_FAIL_NEVER, 0);
	assert_int_equal(cycle(&value), cudaSuccess);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_machine_without_a_driver_or_a_device_says_so, fresh),
		cmocka_unit_test_setup(the_device_is_as_it_was_set, fresh),
		cmocka_unit_test_setup(memory_ends, fresh),
		cmocka_unit_test_setup(impossible_launches_are_refused, fresh),
		cmocka_unit_test_setup(streams_are_as_late_as_they_may_be, fresh),
		cmocka_unit_test_setup(with_a_seed_streams_move_by_themselves, fresh),
		cmocka_unit_test_setup(blocking_streams_wait_for_the_default_stream, fresh),
		cmocka_unit_test_setup(copies_of_two_dimensions_keep_to_their_rows, fresh),
		cmocka_unit_test_setup(each_call_can_be_made_to_fail_once, fresh),
		cmocka_unit_test_setup(a_lost_device_stays_lost, fresh),
		cmocka_unit_test_setup(a_launch_that_faults_does_half_and_spoils_the_rest, fresh),
	};
	int failed = cmocka_run_group_tests(tests, nullptr, nullptr);
	emu_reset();
	return failed;
}
