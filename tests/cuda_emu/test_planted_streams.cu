/*
 * test_planted_streams.cu: bugs of the host: copies, streams, events, lifetimes. Each case is a program with the bug and its correct twin.
 */
#include <cuda_runtime.h>

#include "tests/cuda_emu/planted.h"

#define N 64
#define BYTES (N * sizeof(float))

static __global__ void fill(float *out, float value)
{
	out[threadIdx.x] = value;
}

static __global__ void add(float *out, const float *in)
{
	out[threadIdx.x] += in[threadIdx.x];
}

static int not_all(const float *h, float value)
{
	int wrong = 0;
	for (int i = 0; i < N; i++)
		wrong |= !(h[i] == value);
	return wrong;
}

struct bench {
	float *d, *pinned; /* [N] each */
	cudaStream_t stream, other;
	cudaEvent_t event;
};

static struct bench bench_open(void)
{
	struct bench b = {};
	cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking);
	cudaStreamCreateWithFlags(&b.other, cudaStreamNonBlocking);
	cudaEventCreateWithFlags(&b.event, cudaEventDisableTiming);
	cudaMalloc(&b.d, BYTES);
	cudaMallocHost(&b.pinned, BYTES);
	return b;
}

static void bench_close(struct bench *b)
{
	cudaEventDestroy(b->event);
	cudaStreamDestroy(b->stream);
	cudaStreamDestroy(b->other);
	cudaFreeHost(b->pinned);
	cudaFree(b->d);
}

/* Closes; 1 when the device array is not all `value`. */
static int finish(struct bench *b, float value)
{
	float h[N];
	cudaDeviceSynchronize();
	cudaMemcpy(h, b->d, BYTES, cudaMemcpyDeviceToHost);
	bench_close(b);
	return not_all(h, value);
}

/* ---- pinned memory ------------------------------------------------------------------------------------------------------------------- */
static int pinned_read_early(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 3.0f);
	cudaMemcpyAsync(b.pinned, b.d, BYTES, cudaMemcpyDeviceToHost, b.stream);
	if (!planted)
		cudaStreamSynchronize(b.stream);
	int wrong = not_all(b.pinned, 3.0f);
	bench_close(&b);
	return wrong;
}

static int pinned_written_early(int planted)
{
	struct bench b = bench_open();
	for (int i = 0; i < N; i++)
		b.pinned[i] = 3.0f;
	cudaMemcpyAsync(b.d, b.pinned, BYTES, cudaMemcpyHostToDevice, b.stream);
	cudaEventRecord(b.event, b.stream);
	if (!planted)
		cudaEventSynchronize(b.event);
	for (int i = 0; i < N; i++)
		b.pinned[i] = 4.0f;
	cudaStreamSynchronize(b.stream);
	return finish(&b, 3.0f);
}

/* Two halves of a pinned buffer in turn, each with a stream and an event: a half may be filled again when its own copy is done. */
static int double_buffer(int planted)
{
	struct bench b = bench_open();
	cudaStream_t streams[2] = {b.stream, b.other};
	cudaEvent_t copied[2];
	float *part;
	cudaMalloc(&part, BYTES);
	for (int i = 0; i < 2; i++) {
		cudaEventCreateWithFlags(&copied[i], cudaEventDisableTiming);
		cudaMemsetAsync(b.d + i * (N / 2), 0, BYTES / 2, streams[i]);
	}
	for (int turn = 0; turn < 4; turn++) {
		int half = turn % 2, at = half * (N / 2);
		if (turn >= 2)
			cudaEventSynchronize(copied[planted ? !half : half]);
		for (int i = 0; i < N / 2; i++)
			b.pinned[at + i] = turn < 2 ? 1.0f : 2.0f;
		cudaMemcpyAsync(part + at, b.pinned + at, BYTES / 2, cudaMemcpyHostToDevice, streams[half]);
		cudaEventRecord(copied[half], streams[half]);
		GPU_LAUNCH(add, 1, N / 2, 0, streams[half], b.d + at, part + at);
	}
	cudaStreamSynchronize(b.stream);
	cudaStreamSynchronize(b.other);
	cudaFree(part);
	for (int i = 0; i < 2; i++)
		cudaEventDestroy(copied[i]);
	return finish(&b, 3.0f);
}

/* ---- order of streams ---------------------------------------------------------------------------------------------------------------- */
static int no_event(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 3.0f);
	cudaEventRecord(b.event, b.stream);
	if (!planted)
		cudaStreamWaitEvent(b.other, b.event);
	GPU_LAUNCH(fill, 1, N, 0, b.other, b.d, 4.0f);
	cudaStreamSynchronize(b.other);
	cudaStreamSynchronize(b.stream);
	return finish(&b, 4.0f);
}

static int event_before_work(int planted)
{
	struct bench b = bench_open();
	if (planted)
		cudaEventRecord(b.event, b.stream);
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 3.0f);
	if (!planted)
		cudaEventRecord(b.event, b.stream);
	cudaStreamWaitEvent(b.other, b.event);
	GPU_LAUNCH(fill, 1, N, 0, b.other, b.d, 4.0f);
	cudaStreamSynchronize(b.other);
	return finish(&b, 4.0f);
}

static int wait_before_record(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 3.0f);
	if (planted)
		cudaStreamWaitEvent(b.other, b.event);
	cudaEventRecord(b.event, b.stream);
	if (!planted)
		cudaStreamWaitEvent(b.other, b.event);
	GPU_LAUNCH(fill, 1, N, 0, b.other, b.d, 4.0f);
	cudaStreamSynchronize(b.other);
	return finish(&b, 4.0f);
}

static int memset_on_default_stream(int planted)
{
	struct bench b = bench_open();
	float *in;
	cudaMalloc(&in, BYTES);
	cudaMemsetAsync(in, 0, BYTES, b.stream);
	if (planted)
		cudaMemset(b.d, 0, BYTES);
	else
		cudaMemsetAsync(b.d, 0, BYTES, b.stream);
	GPU_LAUNCH(add, 1, N, 0, b.stream, b.d, in);
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 1.0f);
	cudaStreamSynchronize(b.stream);
	cudaFree(in);
	return finish(&b, 1.0f);
}

static int copy_on_default_stream(int planted)
{
	struct bench b = bench_open();
	float ones[N];
	for (int i = 0; i < N; i++)
		ones[i] = 1.0f;
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 0.0f);
	float *in;
	cudaMalloc(&in, BYTES);
	cudaMemcpy(in, ones, BYTES, cudaMemcpyHostToDevice);
	if (!planted)
		cudaDeviceSynchronize();
	GPU_LAUNCH(add, 1, N, 0, b.stream, b.d, in);
	cudaStreamSynchronize(b.stream);
	int wrong = finish(&b, 1.0f);
	cudaFree(in);
	return wrong;
}

/* ---- copies -------------------------------------------------------------------------------------------------------------------------- */
static int copy_past_device(int planted)
{
	struct bench b = bench_open();
	static float h[N + 1];
	cudaMemcpyAsync(b.d, h, BYTES + static_cast<size_t>(planted), cudaMemcpyHostToDevice, b.stream);
	cudaStreamSynchronize(b.stream);
	return finish(&b, 0.0f);
}

static int copy_past_host(int planted)
{
	struct bench b = bench_open();
	size_t floats = planted ? N - 1 : N;
	float *h = static_cast<float *>(malloc(floats * sizeof *h));
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 1.0f);
	cudaMemcpyAsync(h, b.d, BYTES, cudaMemcpyDeviceToHost, b.stream);
	free(h);
	return finish(&b, 1.0f);
}

static int copy_2d_past(int planted)
{
	struct bench b = bench_open();
	static float h[N];
	size_t pitch = 8 * sizeof(float);
	cudaMemcpy2DAsync(b.d, pitch, h, pitch, planted ? pitch : pitch / 2, N / 8 + static_cast<size_t>(planted), cudaMemcpyHostToDevice, b.stream);
	cudaStreamSynchronize(b.stream);
	bench_close(&b);
	return 0;
}

static int wrong_direction(int planted)
{
	struct bench b = bench_open();
	static float h[N];
	cudaMemcpyAsync(b.d, h, BYTES, planted ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, b.stream);
	cudaStreamSynchronize(b.stream);
	return finish(&b, 0.0f);
}

static int host_touches_device(int planted)
{
	struct bench b = bench_open();
	GPU_LAUNCH(fill, 1, N, 0, b.stream, b.d, 1.0f);
	cudaStreamSynchronize(b.stream);
	if (planted)
		*static_cast<volatile float *>(b.d) = 1.0f;
	return finish(&b, 1.0f);
}

/* ---- lifetimes ----------------------------------------------------------------------------------------------------------------------- */
static int free_twice(int planted)
{
	struct bench b = bench_open();
	float *other;
	cudaMalloc(&other, BYTES);
	cudaFree(other);
	if (planted)
		cudaFree(other);
	bench_close(&b);
	return 0;
}

static int free_before_use(int planted)
{
	struct bench b = bench_open();
	float *part;
	cudaMallocAsync(&part, BYTES, b.stream);
	if (planted)
		cudaFreeAsync(part, b.stream);
	GPU_LAUNCH(fill, 1, N, 0, b.stream, part, 1.0f);
	if (!planted)
		cudaFreeAsync(part, b.stream);
	cudaStreamSynchronize(b.stream);
	bench_close(&b);
	return 0;
}

static int free_in_other_stream(int planted)
{
	struct bench b = bench_open();
	float *part;
	cudaMallocAsync(&part, BYTES, b.stream);
	GPU_LAUNCH(fill, 1, N, 0, b.stream, part, 1.0f);
	cudaEventRecord(b.event, b.stream);
	if (!planted)
		cudaStreamWaitEvent(b.other, b.event);
	cudaFreeAsync(part, b.other);
	cudaStreamSynchronize(b.other);
	cudaStreamSynchronize(b.stream);
	bench_close(&b);
	return 0;
}

static int destroyed_stream(int planted)
{
	struct bench b = bench_open();
	cudaStream_t third;
	cudaStreamCreateWithFlags(&third, cudaStreamNonBlocking);
	if (planted)
		cudaStreamDestroy(third);
	int wrong = cudaMemsetAsync(b.d, 0, BYTES, third) != cudaSuccess;
	if (!planted)
		cudaStreamDestroy(third);
	bench_close(&b);
	return wrong;
}

/* Memory that comes in a stream's order and goes at once: cudaFree does not wait for the stream. */
static int free_in_use(int planted)
{
	struct bench b = bench_open();
	float *part;
	cudaMallocAsync(&part, BYTES, b.stream);
	GPU_LAUNCH(fill, 1, N, 0, b.stream, part, 3.0f);
	if (!planted)
		cudaStreamSynchronize(b.stream);
	cudaFree(part);
	bench_close(&b);
	return 0;
}

static int never_freed(int planted)
{
	struct bench b = bench_open();
	float *part;
	cudaMalloc(&part, BYTES);
	if (!planted)
		cudaFree(part);
	bench_close(&b);
	return emu_live() != 0;
}

static void call_cuda(void *data)
{
	int planted = *static_cast<int *>(data);
	if (planted)
		cudaDeviceSynchronize();
}

static int call_in_host_function(int planted)
{
	struct bench b = bench_open();
	cudaLaunchHostFunc(b.stream, call_cuda, &planted);
	cudaStreamSynchronize(b.stream);
	bench_close(&b);
	return 0;
}

#define FREED "AddressSanitizer: heap-use-after-free"

static const struct planted cases[] = {
	{"pinned_read_early", pinned_read_early, WRONG, WRONG, RACE, 1},
	{"pinned_written_early", pinned_written_early, WRONG, WRONG, RACE, 3},
	{"double_buffer", double_buffer, WRONG, WRONG, RACE, 3},
	{"no_event", no_event, WRONG, WRONG, RACE, 3},
	{"event_before_work", event_before_work, WRONG, WRONG, RACE, 3},
	{"wait_before_record", wait_before_record, WRONG, WRONG, RACE, 3},
	{"memset_on_default_stream", memset_on_default_stream, WRONG, WRONG, RACE, 1},
	{"copy_on_default_stream", copy_on_default_stream, WRONG, WRONG, RACE, 1},
	{"copy_past_device", copy_past_device, "leave an allocation", "leave an allocation", "leave an allocation", 1},
	{"copy_past_host", copy_past_host, nullptr, OVERFLOW_FOUND, nullptr, 1},
	{"copy_2d_past", copy_2d_past, "leave an allocation", "leave an allocation", "leave an allocation", 1},
	{"wrong_direction", wrong_direction, "told device to host", "told device to host", "told device to host", 1},
	{"host_touches_device", host_touches_device, nullptr, "AddressSanitizer: use-after-poison", nullptr, 1},
	{"free_twice", free_twice, "not the start of a live", "not the start of a live", "not the start of a live", 1},
	{"free_before_use", free_before_use, nullptr, FREED, nullptr, 2},
	{"free_in_other_stream", free_in_other_stream, nullptr, FREED, nullptr, 2},
	{"free_in_use", free_in_use, "cudaFree does not wait", "cudaFree does not wait", "cudaFree does not wait", 1},
	{"destroyed_stream", destroyed_stream, WRONG, WRONG, WRONG, 1},
	{"never_freed", never_freed, WRONG, WRONG, WRONG, 1},
	{"call_in_host_function", call_in_host_function, "called by a host function", "called by a host function", "called by a host function", 1},
};

int main(int argc, char **argv)
{
	return planted_main(cases, sizeof cases / sizeof cases[0], argc, argv);
}
