/*
 * emu_lane.h: what a kernel sees: its place in the grid, barriers, warp operations, shared memory; and how the host launches it.
 *
 * Every barrier and warp operation carries its source line: lanes that meet at different lines did not meet, and that is reported.
 */
#ifndef TESTS_CUDA_EMU_EMU_LANE_H
#define TESTS_CUDA_EMU_EMU_LANE_H

#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/cuda_emu/emu_types.h"

/* Where the running lane is. Written by the scheduler at each switch. */
struct emu_place {
	uint3 thread, block;
	dim3 block_dim, grid_dim;
};
extern struct emu_place emu_here;
#define threadIdx (emu_here.thread)
#define blockIdx (emu_here.block)
#define blockDim (emu_here.block_dim)
#define gridDim (emu_here.grid_dim)
static constexpr int warpSize = 32;

enum emu_meet {
	EMU_NONE,
	EMU_SHUFFLE,
	EMU_SHUFFLE_XOR,
	EMU_SHUFFLE_UP,
	EMU_SHUFFLE_DOWN,
	EMU_BALLOT,
	EMU_ANY,
	EMU_ALL,
	EMU_SYNCWARP,
	EMU_REDUCE_ADD,
	EMU_REDUCE_MIN,
	EMU_REDUCE_MAX,
	EMU_REDUCE_AND,
	EMU_REDUCE_OR,
	EMU_REDUCE_XOR,
	EMU_REDUCE_MIN_SIGNED,
	EMU_REDUCE_MAX_SIGNED,
	EMU_MATCH_ANY,
	EMU_BARRIER
};

/* One warp operation of the calling lane; returns when all lanes of `mask` have come. Dies when they cannot meet. arg: lane, distance or xor mask. */
uint64_t emu_warp(enum emu_meet op, uint32_t mask, uint64_t value, int arg, int width, int line);
/* The block's barrier; returns how many lanes came with a predicate that is not zero. */
int emu_barrier(int predicate, int line);
/* A place where another lane may go on: called by atomics and by loads that expect other lanes to write. */
void emu_point(void);
/* TSan: everything before is seen by every lane that fences later. */
void emu_fence(void);
/* Dynamic shared memory of the running block, 16-byte aligned; NULL when the launch asked for none. */
void *emu_shared(void);

#define EMU_LINE int line = __builtin_LINE()

static inline void __syncthreads(EMU_LINE)
{
	emu_barrier(0, line);
}
static inline int __syncthreads_count(int predicate, EMU_LINE)
{
	return emu_barrier(predicate, line);
}
static inline int __syncthreads_or(int predicate, EMU_LINE)
{
	return emu_barrier(predicate, line) != 0;
}
static inline int __syncthreads_and(int predicate, EMU_LINE)
{
	return emu_barrier(!predicate, line) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_LINE)
{
	emu_warp(EMU_SYNCWARP, mask, 0, 0, warpSize, line);
}
static inline void __threadfence(void)
{
	emu_fence();
}
static inline void __threadfence_block(void)
{
	emu_fence();
}

template <class T> static inline T emu_shuffle(enum emu_meet op, unsigned mask, T value, int arg, int width, int line)
{
	static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4 && sizeof(T) <= 8, "shuffles move 32 or 64 bits");
	uint64_t bits = 0;
	memcpy(&bits, &value, sizeof value);
	bits = emu_warp(op, mask, bits, arg, width, line);
	memcpy(&value, &bits, sizeof value);
	return value;
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize, EMU_LINE)
{
	return emu_shuffle(EMU_SHUFFLE, mask, value, lane, width, line);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize, EMU_LINE)
{
	return emu_shuffle(EMU_SHUFFLE_XOR, mask, value, lane_mask, width, line);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, EMU_LINE)
{
	return emu_shuffle(EMU_SHUFFLE_UP, mask, value, static_cast<int>(delta), width, line);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, EMU_LINE)
{
	return emu_shuffle(EMU_SHUFFLE_DOWN, mask, value, static_cast<int>(delta), width, line);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_LINE)
{
	return static_cast<unsigned>(emu_warp(EMU_BALLOT, mask, predicate != 0, 0, warpSize, line));
}
static inline int __any_sync(unsigned mask, int predicate, EMU_LINE)
{
	return static_cast<int>(emu_warp(EMU_ANY, mask, predicate != 0, 0, warpSize, line));
}
static inline int __all_sync(unsigned mask, int predicate, EMU_LINE)
{
	return static_cast<int>(emu_warp(EMU_ALL, mask, predicate != 0, 0, warpSize, line));
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T value, EMU_LINE)
{
	return static_cast<unsigned>(emu_warp(EMU_MATCH_ANY, mask, static_cast<uint64_t>(value), 0, warpSize, line));
}

/* From compute capability 8.0 on. */
#define EMU_REDUCE(name, type, op) \
	static inline type __reduce_##name##_sync(unsigned mask, type value, EMU_LINE) \
	{ \
		return static_cast<type>(emu_warp(op, mask, static_cast<uint32_t>(value), 0, warpSize, line)); \
	}
EMU_REDUCE(add, unsigned, EMU_REDUCE_ADD)
EMU_REDUCE(add, int, EMU_REDUCE_ADD)
EMU_REDUCE(min, unsigned, EMU_REDUCE_MIN)
EMU_REDUCE(min, int, EMU_REDUCE_MIN_SIGNED)
EMU_REDUCE(max, unsigned, EMU_REDUCE_MAX)
EMU_REDUCE(max, int, EMU_REDUCE_MAX_SIGNED)
EMU_REDUCE(and, unsigned, EMU_REDUCE_AND)
EMU_REDUCE(or, unsigned, EMU_REDUCE_OR)
EMU_REDUCE(xor, unsigned, EMU_REDUCE_XOR)

/* ---- launches ------------------------------------------------------------------------------------------------------------------------ */
#define EMU_ARGS_MAX 4096u /* bytes of arguments: CUDA's own limit */

struct emu_launch_request {
	const char *name;            /* of the kernel, for reports */
	const void *function;        /* identifies it (cudaFuncSetAttribute) */
	void (*run)(const void *args); /* one lane */
	const void *args;            /* copied */
	size_t args_size;
	dim3 grid, block;
	size_t shared_bytes;
	cudaStream_t stream;
};
/* Puts a kernel into its stream; errors are left for cudaGetLastError(). */
void emu_enqueue_launch(const struct emu_launch_request *request);

template <class... P> struct emu_closure {
	void (*kernel)(P...);
	std::tuple<std::decay_t<P>...> args;

	template <size_t... I> void call(std::index_sequence<I...>) const
	{
		kernel(std::get<I>(args)...);
	}
	static void run(const void *closure)
	{
		static_cast<const emu_closure *>(closure)->call(std::index_sequence_for<P...>());
	}
};

template <class... P, class... A>
static inline void emu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, A &&...args)
{
	static_assert(sizeof...(P) == sizeof...(A), "a kernel takes as many arguments as it has parameters");
	static_assert((std::is_trivially_copyable<std::decay_t<P>>::value && ...), "kernel arguments are copied byte by byte");
	static_assert((!std::is_reference<P>::value && ...), "a kernel cannot take a reference to the host's memory");
	emu_closure<P...> closure = {kernel, std::tuple<std::decay_t<P>...>(std::forward<A>(args)...)};
	static_assert(sizeof closure <= EMU_ARGS_MAX, "too many bytes of arguments");
	struct emu_launch_request request = {};
	request.name = name;
	request.function = reinterpret_cast<const void *>(kernel);
	request.run = emu_closure<P...>::run;
	request.args = &closure;
	request.args_size = sizeof closure;
	request.grid = grid;
	request.block = block;
	request.shared_bytes = shared_bytes;
	request.stream = stream;
	emu_enqueue_launch(&request);
}

#endif
