/*
 * cuda_runtime.h: takes the place of NVIDIA's header, so that the same .cu files compile with g++ or clang++ and run, lane by lane, on a CPU.
 *
 * A lane (CUDA: thread) is a fiber; a fiber runs until it meets a barrier, a warp operation or the end, and sometimes yields at an atomic. The blocks of a
 * grid run one after another. Streams are queues that run as late as the API allows: at the call that has to wait for them, and not before. With a
 * seed (CUDA_EMU_SEED, emu_seed()) the order of blocks and lanes and the progress of streams are drawn at random, the same for the same seed.
 *
 * What it finds
 *   by itself       barriers that not all lanes of a block reach; warp operations whose mask names exited, absent or diverged lanes; copies that leave an
 *                   allocation or go in the wrong direction; writes just past an allocation or past shared memory; unset shared or device memory (filled with
 *                   NaN, a huge index, a pointer that faults); reading pinned memory before the copy was waited for; streams without an event between them;
 *                   launches that a device of the set compute capability refuses; handles used after they were destroyed; memory never freed (emu_live())
 *   with ASan       any access out of bounds or after cudaFree, from kernels and from the host; the host touching device memory outside a copy
 *   with TSan       two lanes at the same place without a barrier, __syncwarp or atomics between them; host and streams without an event between them
 *   with UBSan      misaligned vector loads, shifts, overflow
 *
 * What it does not find: how fast anything is; weak memory order between atomics (__threadfence orders everything, as far as TSan is concerned); races between
 * blocks other than by TSan; a kernel that follows a pointer to ordinary host memory; more than one device; blocks that wait for each other (they hang).
 *
 * Not offered, on purpose: static __shared__, __constant__, inline PTX, cooperative groups, __activemask, launches from kernels, graphs, managed memory,
 * textures. A .cu file that uses one of them does not compile here.
 *
 * Files: emu_types.h (vector types, errors, properties), emu_lane.h (built-ins, barriers, warp operations, launches), emu_atomics.h, emu_math.h,
 * emu_api.h (the host's calls), emu_control.h (for tests: seeds, memory, failures); behind them emu_core.h and the .cpp files, which are compiled without
 * sanitizers (they tell the sanitizers about fibers themselves) and with -DEMU_ASAN or -DEMU_TSAN when the program has one.
 */
#ifndef TESTS_CUDA_EMU_CUDA_RUNTIME_H
#define TESTS_CUDA_EMU_CUDA_RUNTIME_H

#define GPU_EMULATED 1

/* emu_types.h first: the others use its types. */
#include "tests/cuda_emu/emu_types.h"
#include "tests/cuda_emu/emu_lane.h"
#include "tests/cuda_emu/emu_math.h"
#include "tests/cuda_emu/emu_atomics.h"
#include "tests/cuda_emu/emu_api.h"
#include "tests/cuda_emu/emu_control.h"

/* GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, args...). A template kernel with commas stands in parentheses. */
#define GPU_LAUNCH(kernel, ...) emu_launch(#kernel, kernel, __VA_ARGS__)
/* The block's dynamic shared memory under a name; aligned to 16 bytes. */
#define GPU_SHARED(type, name) type *name = static_cast<type *>(emu_shared())

#endif
