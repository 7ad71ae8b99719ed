/*
 * emu_core.h: what the emulation's own .cpp files share. Nobody else includes it.
 *
 * One lock around every call; kernels run inside the call that had to wait for them, on that call's OS thread. For TSan each stream and each lane is an
 * actor of its own ("fiber" in its words), and nothing but launches, barriers, __syncwarp, events and waits orders them.
 */
#ifndef TESTS_CUDA_EMU_EMU_CORE_H
#define TESTS_CUDA_EMU_EMU_CORE_H

#include "tests/cuda_emu/emu_api.h"
#include "tests/cuda_emu/emu_control.h"
#include "tests/cuda_emu/emu_lane.h"
#include "tests/cuda_emu/emu_types.h"

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
#endif

/* Floats: NaN. 16-bit floats: NaN. Indexes: beyond any table. Pointers: fault. */
#define EMU_POISON 0x7fd57fd5u
#define EMU_LANES_MAX 1024
#define EMU_WARPS_MAX (EMU_LANES_MAX / 32)

/* ---- settings and faults (emu_control.cpp) ---- */
struct emu_settings {
	uint64_t seed;
	size_t memory_limit;
	int major, minor, sms, driver, devices;
	char name[96];
};
extern struct emu_settings emu_settings;
/* One API call: takes the lock and counts; `error` is what the call must return at once, or cudaSuccess. Gives the lock back when it goes. */
struct emu_call {
	cudaError_t error;
	explicit emu_call(const char *name, int can_fail = 1);
	~emu_call();
	emu_call(const emu_call &) = delete;
	emu_call &operator=(const emu_call &) = delete;
	cudaError_t give(cudaError_t result); /* remembers an error for cudaGetLastError(), returns it */
};
#define EMU_ENTER() \
	emu_call call(__func__); \
	if (call.error != cudaSuccess) \
	return call.error
[[noreturn]] void emu_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t emu_random(void);           /* the next number of the seed's sequence */
uint32_t emu_random_below(uint32_t n);
int emu_launch_faults(void);         /* counts a launch; 1: this one is to fault */
void emu_fault(cudaError_t error);   /* from now on every call returns it */
void emu_set_last(cudaError_t error);
/* While 1, a call ends the program: a host function runs. */
extern int emu_in_host_function;

/* ---- memory (emu_memory.cpp) ---- */
enum emu_place_kind { EMU_PAGEABLE, EMU_PINNED, EMU_DEVICE };
void emu_memory_open(void);  /* kernels and copies may touch device memory */
void emu_memory_close(void); /* at the end of a call */
void emu_memory_release(void *pointer, const char *who);
void emu_memory_check(const char *who); /* dies when something wrote past an allocation */
size_t emu_memory_used(void);
size_t emu_memory_allocations(void);
void emu_memory_reset(void);
void emu_fill_poison(void *to, size_t bytes);
void emu_copy_raw(void *to, const void *from, size_t bytes); /* unseen by sanitizers */

/* ---- streams (emu_stream.cpp) ---- */
struct emu_op {
	struct emu_op *next;
	uint64_t seq;
	void (*run)(struct emu_op *op);
	void *to;
	const void *from;
	void *owned; /* freed after it ran */
	size_t to_pitch, from_pitch, width, height;
	int value, faults;
	struct emu_stream *wait_stream;
	uint64_t wait_seq;
	struct emu_event *event;
	cudaHostFn_t host_fn;
	void *host_data;
	struct emu_launch_request launch;
	alignas(16) unsigned char args[EMU_ARGS_MAX];
};
/* A cleared operation, and the way to put it into a stream (nullptr: the default stream). 0: no such stream. */
struct emu_op *emu_op_new(void (*run)(struct emu_op *op));
int emu_enqueue(cudaStream_t stream, struct emu_op *op);
int emu_stream_known(cudaStream_t stream);
unsigned emu_stream_number(cudaStream_t stream); /* 0: the default one; then in order of creation */
void emu_stream_drain(cudaStream_t stream); /* until all that was put into it ran; the caller's thread has then seen it */
void emu_device_drain(void);
void emu_streams_progress(void); /* with a seed: some streams do some work */
void emu_streams_drop(void);     /* forgets all queued work */
void emu_streams_reset(void);
int emu_streams_use(const void *base, size_t bytes); /* 1: queued work names a place in this memory, or frees it */
size_t emu_streams_alive(void);
size_t emu_streams_queued(void);

/* ---- kernels (emu_device.cpp) ---- */
void emu_functions_reset(void); /* none is loaded */

/* ---- grids (emu_block.cpp) ---- */
/* Runs `n_blocks` blocks of the grid at most (a fault comes after them); the caller is the stream's actor. */
void emu_run_grid(const struct emu_launch_request *launch, uint64_t n_blocks);
int emu_in_kernel(void);
void emu_describe_place(void); /* for emu_die(): prints where the running lane is and who waits */

/* ---- fibers (emu_fiber.cpp) ---- */
struct emu_fiber {
	void *context; /* saved stack pointer, or ucontext */
	void *stack;
	void *tsan;
};
/* Makes a fiber that begins in `body`, which must not return. */
void emu_fiber_create(struct emu_fiber *fiber, void (*body)(void));
/* From one fiber to another; NULL is the OS thread that runs the grid. */
void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to);

/* ---- what TSan is told ---- */
static inline void *emu_actor_new(void)
{
#ifdef EMU_TSAN
	return __tsan_create_fiber(0);
#else
	return nullptr;
#endif
}
static inline void *emu_actor_now(void)
{
#ifdef EMU_TSAN
	return __tsan_get_current_fiber();
#else
	return nullptr;
#endif
}
static inline void emu_actor_become(void *actor)
{
#ifdef EMU_TSAN
	__tsan_switch_to_fiber(actor, 1 /* without making the two ordered */);
#else
	(void)actor;
#endif
}
/* Between the two, what the caller does to memory (allocating and freeing, too) is no event for TSan. */
static inline void emu_unseen_begin(void)
{
#ifdef EMU_TSAN
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}
static inline void emu_unseen_end(void)
{
#ifdef EMU_TSAN
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
}
static inline void emu_release(void *object)
{
#ifdef EMU_TSAN
	__tsan_release(object);
#else
	(void)object;
#endif
}
static inline void emu_acquire(void *object)
{
#ifdef EMU_TSAN
	__tsan_acquire(object);
#else
	(void)object;
#endif
}

#endif
