/*
 * device.cuh: what all of gpu/ needs of the CUDA runtime: launching, failures in words, and named access to memory that others write meanwhile.
 *
 * One source, two compilers: nvcc, and g++ with the tests' emulation of the runtime, whose <cuda_runtime.h> brings GPU_LAUNCH and GPU_SHARED of its own.
 * Kernels use no static shared memory and no cooperative groups, and inline PTX only here, beside a form without it, so that both can run them.
 */
#ifndef GPU_DEVICE_CUH
#define GPU_DEVICE_CUH

#include <cuda_runtime.h>

#include <stddef.h>
#include <stdint.h>

#ifndef GPU_LAUNCH
/* A kernel with several template arguments stands in parentheses. */
#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
/* The block's dynamic shared memory as an array of `type`. */
#define GPU_SHARED(type, name)                                                                                                                       \
	extern __shared__ __align__(16) unsigned char gpu_shared_bytes[];                                                                            \
	type *name = reinterpret_cast<type *>(gpu_shared_bytes)
#endif

#define GPU_FN static __device__ __forceinline__
#define GPU_WARP 32u
#define GPU_ALL_LANES 0xffffffffu

/*
 * What went wrong with a backend. `code` is cudaSuccess until a call fails for another reason than memory; the first such failure stays, since nothing on the
 * device can be trusted after it. Refused memory is counted and may be tried again.
 */
struct gpu_fault {
	cudaError_t code;
	cudaError_t last;  /* the last failure of any kind */
	const char *what;  /* where `last` was met; static text: "training", "room for items" */
	uint64_t failures;
};

/* 0; -ENOMEM when memory was refused; -EIO for every other failure, and for every call once fault->code is set. Takes note of the failure. */
int gpu_check(struct gpu_fault *fault, cudaError_t code, const char *what);
/* The same for a launch just made. */
int gpu_launched(struct gpu_fault *fault, const char *what);
/*
 * Loads a kernel, which CUDA otherwise does at its first launch: that takes a while, and seconds where the driver has to compile it for this device. 0, -EIO, and
 * -ENOMEM as gpu_check().
 */
template <class F> static inline int gpu_load_kernel(struct gpu_fault *fault, F *kernel)
{
	struct cudaFuncAttributes attributes = {};
	return gpu_check(fault, cudaFuncGetAttributes(&attributes, kernel), "loading a kernel");
}
/* The driver's version out of the text of /proc/driver/nvidia/version: the first number with a dot of its first line. "" where there is none. */
void gpu_driver_version(const char *text, char *ret_version, size_t size);
/* "training: an illegal memory access was encountered", at most size bytes with the NUL; "" without a failure. */
void gpu_fault_text(const struct gpu_fault *fault, char *text, size_t size);

/*
 * Memory that other threads of the device may write at the same time (Hogwild). Loads bypass L1, which is not coherent between SMs; adds are single atomic
 * operations without a result. The emulation's forms are relaxed atomics, so that its thread sanitizer keeps quiet about these places and no others.
 */
GPU_FN float gpu_load(const float *p)
{
#ifdef GPU_EMULATED
	float v;
	__atomic_load(p, &v, __ATOMIC_RELAXED);
	return v;
#else
	return __ldcg(p);
#endif
}

GPU_FN float4 gpu_load4(const float *p)
{
#ifdef GPU_EMULATED
	return make_float4(gpu_load(p), gpu_load(p + 1), gpu_load(p + 2), gpu_load(p + 3));
#else
	return __ldcg(reinterpret_cast<const float4 *>(p));
#endif
}

GPU_FN void gpu_store(float *p, float v)
{
#ifdef GPU_EMULATED
	__atomic_store(p, &v, __ATOMIC_RELAXED);
#else
	__stcg(p, v);
#endif
}

/* Several threads may write the same value. */
GPU_FN void gpu_store_u32(uint32_t *p, uint32_t v)
{
#ifdef GPU_EMULATED
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
#else
	__stcg(p, v);
#endif
}

GPU_FN void gpu_add(float *p, float v)
{
	(void)atomicAdd(p, v);
}

/* p on a 16-byte boundary. One operation from sm_90 on. */
GPU_FN void gpu_add4(float *p, float4 v)
{
#if defined(GPU_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900)
	gpu_add(p, v.x);
	gpu_add(p + 1, v.y);
	gpu_add(p + 2, v.z);
	gpu_add(p + 3, v.w);
#else
	asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" : : "l"(p), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
#endif
}

/* Four bf16 numbers, the first in the low half of x. p on an 8-byte boundary. */
GPU_FN uint2 gpu_load_bf16x4(const uint16_t *p)
{
	const uint32_t *words = reinterpret_cast<const uint32_t *>(p);
#ifdef GPU_EMULATED
	return make_uint2(__atomic_load_n(words, __ATOMIC_RELAXED), __atomic_load_n(words + 1, __ATOMIC_RELAXED));
#else
	return __ldcg(reinterpret_cast<const uint2 *>(words));
#endif
}

GPU_FN float gpu_float_of_bf16(uint32_t bits)
{
	return __uint_as_float(bits << 16);
}

/* To nearest, ties to even, as the adders below round. A finite number. */
GPU_FN uint32_t gpu_bf16_of_float(float f)
{
	uint32_t bits = __float_as_uint(f);
	return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

/* Adds two bf16 numbers to the two in *word. */
GPU_FN void gpu_add_bf16x2(uint32_t *word, uint32_t v)
{
#ifdef GPU_EMULATED
	uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), next;
#else
	uint32_t seen = __ldcg(word), next;
#endif
	do {
		next = seen;
		uint32_t low = gpu_bf16_of_float(gpu_float_of_bf16(next & 0xffffu) + gpu_float_of_bf16(v & 0xffffu));
		uint32_t high = gpu_bf16_of_float(gpu_float_of_bf16(next >> 16) + gpu_float_of_bf16(v >> 16));
		seen = atomicCAS(word, next, high << 16 | low);
	} while (seen != next);
}

/* The same for four, as gpu_load_bf16x4() gives them. One operation from sm_90 on, before that two loops of compare-and-swap. */
GPU_FN void gpu_add_bf16x4(uint16_t *p, uint2 v)
{
	uint32_t *words = reinterpret_cast<uint32_t *>(p);
#if defined(GPU_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900)
	gpu_add_bf16x2(words, v.x);
	gpu_add_bf16x2(words + 1, v.y);
#else
	asm volatile("red.global.add.noftz.v2.bf16x2 [%0], {%1, %2};" : : "l"(words), "r"(v.x), "r"(v.y) : "memory");
#endif
}

#endif
