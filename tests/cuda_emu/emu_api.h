/*
 * emu_api.h: the host's calls of the CUDA runtime, as far as they are offered. Each does what NVIDIA documents and no more: a call that CUDA allows to
 * return early returns early here.
 *
 * Wrong use that CUDA would report returns its error. Wrong use that CUDA may not notice (a copy past an allocation, cudaFree of a pointer it
 * never gave) ends the program with a sentence that names the place.
 */
#ifndef TESTS_CUDA_EMU_EMU_API_H
#define TESTS_CUDA_EMU_EMU_API_H

#include "tests/cuda_emu/emu_types.h"

/* ---- device, errors ------------------------------------------------------------------------------------------------------------------ */
cudaError_t cudaGetDeviceCount(int *ret_count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *ret_device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret_properties, int device);
cudaError_t cudaDeviceGetAttribute(int *ret_value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int *ret_version);
cudaError_t cudaRuntimeGetVersion(int *ret_version);
cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

/* ---- memory -------------------------------------------------------------------------------------------------------------------------- */
cudaError_t cudaMalloc(void **ret_pointer, size_t bytes);
cudaError_t cudaFree(void *pointer); /* waits for the whole device, as CUDA's does; not for memory of cudaMallocAsync, also as CUDA's */
/* Memory that belongs to a stream's order: it may be used by work put into that stream after this call and before the free. */
cudaError_t cudaMallocAsync(void **ret_pointer, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream);
cudaError_t cudaMallocHost(void **ret_pointer, size_t bytes, unsigned flags = cudaHostAllocDefault);
cudaError_t cudaHostAlloc(void **ret_pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *pointer);
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *pointer);

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
/* Pitches and width in bytes. */
cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr);
/* On the default stream, and not waited for: not ordered with non-blocking streams. */
cudaError_t cudaMemset(void *to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream = nullptr);

/* ---- streams, events ----------------------------------------------------------------------------------------------------------------- */
cudaError_t cudaStreamCreate(cudaStream_t *ret_stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret_stream, unsigned flags, int priority);
cudaError_t cudaDeviceGetStreamPriorityRange(int *ret_least, int *ret_greatest);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
/* Each query lets the stream do one more operation, so that a loop of queries ends. */
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *data);
cudaError_t cudaEventCreate(cudaEvent_t *ret_event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end);

/* ---- kernels ------------------------------------------------------------------------------------------------------------------------- */
cudaError_t emu_function_attribute(const void *function, cudaFuncAttribute attribute, int value);
cudaError_t emu_function_load(cudaFuncAttributes *ret_attributes, const void *function);
cudaError_t emu_occupancy(int *ret_blocks, const void *function, int block, size_t shared_bytes);

template <class F> static inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attribute, int value)
{
	return emu_function_attribute(reinterpret_cast<const void *>(kernel), attribute, value);
}
/* Loads the kernel, as CUDA does at this call or at the first launch (emu_late_loads()). */
template <class F> static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *ret_attributes, F *kernel)
{
	return emu_function_load(ret_attributes, reinterpret_cast<const void *>(kernel));
}
/* By threads and shared memory alone: registers are the compiler's affair. */
template <class F>
static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *ret_blocks, F *kernel, int block, size_t shared_bytes)
{
	return emu_occupancy(ret_blocks, reinterpret_cast<const void *>(kernel), block, shared_bytes);
}

/* Typed forms, as NVIDIA's header has them for C++. */
template <class T> static inline cudaError_t cudaMalloc(T **ret_pointer, size_t bytes)
{
	return cudaMalloc(reinterpret_cast<void **>(ret_pointer), bytes);
}
template <class T> static inline cudaError_t cudaMallocAsync(T **ret_pointer, size_t bytes, cudaStream_t stream)
{
	return cudaMallocAsync(reinterpret_cast<void **>(ret_pointer), bytes, stream);
}
template <class T> static inline cudaError_t cudaMallocHost(T **ret_pointer, size_t bytes, unsigned flags = cudaHostAllocDefault)
{
	return cudaMallocHost(reinterpret_cast<void **>(ret_pointer), bytes, flags);
}
template <class T> static inline cudaError_t cudaHostAlloc(T **ret_pointer, size_t bytes, unsigned flags)
{
	return cudaHostAlloc(reinterpret_cast<void **>(ret_pointer), bytes, flags);
}

#endif
