/*
 * emu_memory.cpp: device and pinned memory: allocations, their limits, who may touch them when, copies and fills.
 *
 * An allocation is a heap block of exactly its size, filled with EMU_POISON. Under ASan the device's are closed to everybody except while
 * kernels and copies run; without it a canary behind each tells of writes past its end.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/emu_core.h"

#define ALIGNMENT ((size_t)256)
#define CANARY_BYTES ((size_t)64)
#define CANARY 0xc5

struct allocation {
	struct allocation *next;
	unsigned char *base;
	size_t bytes;
	enum emu_place_kind kind;
	int registered;       /* the memory is the caller's */
	cudaStream_t stream;  /* of cudaFreeAsync, when `leaving` */
	int leaving;          /* cudaFreeAsync was called, and has not run */
	int ordered;          /* of cudaMallocAsync: cudaFree does not wait for its users */
};
static struct allocation *allocations;
static size_t used, peak, n_allocations;
static int is_open;

/* ---- helpers ------------------------------------------------------------------------------------------------------------------------- */
void emu_copy_raw(void *to, const void *from, size_t bytes)
{
	volatile unsigned char *t = static_cast<unsigned char *>(to);
	const volatile unsigned char *f = static_cast<const unsigned char *>(from);
	for (size_t i = 0; i < bytes; i++)
		t[i] = f[i];
}

void emu_fill_poison(void *to, size_t bytes)
{
	const uint32_t word = EMU_POISON;
	unsigned char *t = static_cast<unsigned char *>(to);
	size_t filled = bytes < sizeof word ? bytes : sizeof word;
	memcpy(t, &word, filled);
	while (filled < bytes) {
		size_t n = filled < bytes - filled ? filled : bytes - filled;
		memcpy(t + filled, t, n);
		filled += n;
	}
}

void emu_memory_open(void)
{
#ifdef EMU_ASAN
	for (struct allocation *a = allocations; a && !is_open; a = a->next) {
		if (a->kind == EMU_DEVICE)
			__asan_unpoison_memory_region(a->base, a->bytes);
	}
#endif
	is_open = 1;
}

void emu_memory_close(void)
{
#ifdef EMU_ASAN
	for (struct allocation *a = allocations; a && is_open; a = a->next) {
		if (a->kind == EMU_DEVICE)
			__asan_poison_memory_region(a->base, a->bytes);
	}
#endif
	is_open = 0;
}

void emu_memory_check(const char *who)
{
#ifdef EMU_ASAN
	(void)who;
#else
	for (const struct allocation *a = allocations; a; a = a->next) {
		for (size_t i = 0; !a->registered && i < CANARY_BYTES; i++) {
			if (a->base[a->bytes + i] != CANARY)
				emu_die("%s: something wrote past the end of an allocation of %zu bytes (byte %zu behind it)", who, a->bytes, i);
		}
	}
#endif
}

/* The allocation that holds address p, or NULL. */
static struct allocation *find(const void *p)
{
	const unsigned char *address = static_cast<const unsigned char *>(p);
	for (struct allocation *a = allocations; a; a = a->next) {
		if (address >= a->base && address < a->base + (a->bytes ? a->bytes : 1))
			return a;
	}
	return nullptr;
}

/* What kind of memory [p, p + bytes) is; dies when it begins in an allocation and leaves it. */
static enum emu_place_kind kind_of(const void *p, size_t bytes, const char *who)
{
	const struct allocation *a = find(p);
	if (!a)
		return EMU_PAGEABLE;
	size_t offset = static_cast<size_t>(static_cast<const unsigned char *>(p) - a->base);
	if (bytes > a->bytes - offset)
		emu_die("%s: %zu bytes from offset %zu on leave an allocation of %zu bytes", who, bytes, offset, a->bytes);
	return a->kind;
}

/* ---- allocation ---------------------------------------------------------------------------------------------------------------------- */
static size_t charged(size_t bytes)
{
	return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void remember(unsigned char *base, size_t bytes, enum emu_place_kind kind, int registered)
{
	struct allocation *a = static_cast<struct allocation *>(calloc(1, sizeof *a));
	if (!a)
		emu_die("no memory for the list of allocations");
	a->base = base;
	a->bytes = bytes;
	a->kind = kind;
	a->registered = registered;
	a->next = allocations;
	allocations = a;
	n_allocations++;
	if (kind != EMU_DEVICE)
		return;
	used += charged(bytes);
	peak = used > peak ? used : peak;
#ifdef EMU_ASAN
	if (!is_open)
		__asan_poison_memory_region(base, bytes);
#endif
}

static cudaError_t allocate(void **ret_pointer, size_t bytes, enum emu_place_kind kind)
{
	if (!ret_pointer)
		return cudaErrorInvalidValue;
	*ret_pointer = nullptr;
	if (!bytes)
		return cudaSuccess;
	if (kind == EMU_DEVICE && (bytes > emu_settings.memory_limit || charged(bytes) > emu_settings.memory_limit - used))
		return cudaErrorMemoryAllocation;
	void *memory = nullptr;
#ifdef EMU_ASAN
	int failed = posix_memalign(&memory, ALIGNMENT, bytes);
#else
	int failed = posix_memalign(&memory, ALIGNMENT, bytes + CANARY_BYTES);
#endif
	if (failed)
		return cudaErrorMemoryAllocation;
	emu_fill_poison(memory, bytes);
#ifndef EMU_ASAN
	memset(static_cast<unsigned char *>(memory) + bytes, CANARY, CANARY_BYTES);
#endif
	remember(static_cast<unsigned char *>(memory), bytes, kind, 0);
	*ret_pointer = memory;
	return cudaSuccess;
}

static void forget(struct allocation *gone)
{
	struct allocation **link = &allocations;
	while (*link != gone)
		link = &(*link)->next;
	*link = gone->next;
	n_allocations--;
	if (gone->kind == EMU_DEVICE) {
		used -= charged(gone->bytes);
#ifdef EMU_ASAN
		__asan_unpoison_memory_region(gone->base, gone->bytes);
#endif
	}
	if (!gone->registered)
		free(gone->base);
	free(gone);
}

static struct allocation *begins_at(const void *pointer, enum emu_place_kind kind, int registered)
{
	struct allocation *a = find(pointer);
	return a && a->base == pointer && a->kind == kind && a->registered == registered ? a : nullptr;
}

void emu_memory_release(void *pointer, const char *who)
{
	struct allocation *a = begins_at(pointer, EMU_DEVICE, 0);
	if (!a)
		emu_die("%s: this pointer is not the start of a live device allocation", who);
	emu_memory_check(who);
	forget(a);
}

size_t emu_memory_used(void)
{
	return used;
}

size_t emu_memory_allocations(void)
{
	return n_allocations;
}

extern "C" size_t emu_memory_peak(void)
{
	return peak;
}

void emu_memory_reset(void)
{
	while (allocations)
		forget(allocations);
	peak = 0;
}

cudaError_t cudaMalloc(void **ret_pointer, size_t bytes)
{
	EMU_ENTER();
	return call.give(allocate(ret_pointer, bytes, EMU_DEVICE));
}

cudaError_t cudaFree(void *pointer)
{
	EMU_ENTER();
	if (!pointer)
		return cudaSuccess;
	const struct allocation *a = begins_at(pointer, EMU_DEVICE, 0);
	if (!a || !a->ordered)
		emu_device_drain();
	else if (emu_streams_use(a->base, a->bytes))
		emu_die("cudaFree: work that is queued uses this memory of cudaMallocAsync, for which cudaFree does not wait");
	emu_memory_release(pointer, "cudaFree");
	return cudaSuccess;
}

cudaError_t cudaMallocAsync(void **ret_pointer, size_t bytes, cudaStream_t stream)
{
	EMU_ENTER();
	if (!emu_stream_known(stream))
		return call.give(cudaErrorInvalidResourceHandle);
	const cudaError_t result = allocate(ret_pointer, bytes, EMU_DEVICE);
	if (result == cudaSuccess && *ret_pointer)
		begins_at(*ret_pointer, EMU_DEVICE, 0)->ordered = 1;
	return call.give(result);
}

static void run_free(struct emu_op *op)
{
	emu_memory_release(op->to, "cudaFreeAsync");
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream)
{
	EMU_ENTER();
	if (!emu_stream_known(stream))
		return call.give(cudaErrorInvalidResourceHandle);
	if (!pointer)
		return cudaSuccess;
	struct allocation *a = begins_at(pointer, EMU_DEVICE, 0);
	if (!a || a->leaving)
		emu_die("cudaFreeAsync: this pointer is not the start of a live device allocation");
	a->leaving = 1;
	a->stream = stream;
	struct emu_op *op = emu_op_new(run_free);
	op->to = pointer;
	emu_enqueue(stream, op);
	return cudaSuccess;
}

cudaError_t cudaMallocHost(void **ret_pointer, size_t bytes, unsigned flags)
{
	EMU_ENTER();
	(void)flags;
	return call.give(allocate(ret_pointer, bytes, EMU_PINNED));
}

cudaError_t cudaHostAlloc(void **ret_pointer, size_t bytes, unsigned flags)
{
	EMU_ENTER();
	(void)flags;
	return call.give(allocate(ret_pointer, bytes, EMU_PINNED));
}

cudaError_t cudaFreeHost(void *pointer)
{
	EMU_ENTER();
	if (!pointer)
		return cudaSuccess;
	struct allocation *a = begins_at(pointer, EMU_PINNED, 0);
	if (!a)
		return call.give(cudaErrorInvalidValue);
	emu_device_drain();
	emu_memory_check("cudaFreeHost");
	forget(a);
	return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
	EMU_ENTER();
	(void)flags;
	if (!pointer || !bytes || find(pointer))
		return call.give(cudaErrorInvalidValue);
	remember(static_cast<unsigned char *>(pointer), bytes, EMU_PINNED, 1);
	return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *pointer)
{
	EMU_ENTER();
	struct allocation *a = begins_at(pointer, EMU_PINNED, 1);
	if (!a)
		return call.give(cudaErrorInvalidValue);
	emu_device_drain();
	forget(a);
	return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
	EMU_ENTER();
	if (!ret_free || !ret_total)
		return call.give(cudaErrorInvalidValue);
	*ret_free = emu_settings.memory_limit - used;
	*ret_total = emu_settings.memory_limit;
	return cudaSuccess;
}

/* ---- copies and fills ---------------------------------------------------------------------------------------------------------------- */
static void run_copy(struct emu_op *op)
{
	for (size_t row = 0; row < op->height; row++)
		memmove(static_cast<unsigned char *>(op->to) + row * op->to_pitch, static_cast<const unsigned char *>(op->from) + row * op->from_pitch,
		        op->width);
}

static void run_fill(struct emu_op *op)
{
	for (size_t row = 0; row < op->height; row++)
		memset(static_cast<unsigned char *>(op->to) + row * op->to_pitch, op->value, op->width);
}

/* Dies when the two sides are not what `kind` says. */
static void check_direction(enum emu_place_kind to, enum emu_place_kind from, cudaMemcpyKind kind, const char *who)
{
	static const char *const names[] = {"host to host", "host to device", "device to host", "device to device"};
	int to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
	int from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
	if (kind != cudaMemcpyDefault && ((to == EMU_DEVICE) != to_device || (from == EMU_DEVICE) != from_device))
		emu_die("%s: told %s, but the source is %s memory and the target is %s memory", who, names[kind], from == EMU_DEVICE ? "device" : "host",
		        to == EMU_DEVICE ? "device" : "host");
}

/* Pageable sources are read at once (CUDA stages them), pageable targets are waited for; everything else happens in stream order. */
static cudaError_t copy(const char *who, void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                        cudaStream_t stream, int wait)
{
	if (!emu_stream_known(stream))
		return cudaErrorInvalidResourceHandle;
	if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
		return cudaErrorInvalidMemcpyDirection;
	if (!width || !height)
		return cudaSuccess;
	if (!to || !from || (height > 1 && (to_pitch < width || from_pitch < width)))
		return cudaErrorInvalidValue;
	enum emu_place_kind to_kind = kind_of(to, (height - 1) * to_pitch + width, who);
	enum emu_place_kind from_kind = kind_of(from, (height - 1) * from_pitch + width, who);
	check_direction(to_kind, from_kind, kind, who);
	struct emu_op *op = emu_op_new(run_copy);
	op->to = to;
	op->to_pitch = to_pitch;
	op->from = from;
	op->from_pitch = from_pitch;
	op->width = width;
	op->height = height;
	if (from_kind == EMU_PAGEABLE) {
		unsigned char *staged = static_cast<unsigned char *>(malloc(width * height));
		if (!staged)
			emu_die("no memory to stage a copy");
		for (size_t row = 0; row < height; row++)
			memcpy(staged + row * width, static_cast<const unsigned char *>(from) + row * from_pitch, width);
		op->owned = staged;
		op->from = staged;
		op->from_pitch = width;
	}
	emu_enqueue(stream, op);
	if (to_kind == EMU_PAGEABLE || (wait && (to_kind == EMU_PINNED || from_kind == EMU_PINNED)))
		emu_stream_drain(stream);
	return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
	EMU_ENTER();
	return call.give(copy("cudaMemcpy", to, bytes, from, bytes, bytes, 1, kind, nullptr, 1));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
	EMU_ENTER();
	return call.give(copy("cudaMemcpyAsync", to, bytes, from, bytes, bytes, 1, kind, stream, 0));
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind)
{
	EMU_ENTER();
	return call.give(copy("cudaMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind, nullptr, 1));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream)
{
	EMU_ENTER();
	return call.give(copy("cudaMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind, stream, 0));
}

static cudaError_t fill(const char *who, void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
	if (!emu_stream_known(stream))
		return cudaErrorInvalidResourceHandle;
	if (!width || !height)
		return cudaSuccess;
	if (!to || (height > 1 && pitch < width))
		return cudaErrorInvalidValue;
	if (kind_of(to, (height - 1) * pitch + width, who) == EMU_PAGEABLE)
		emu_die("%s: the target is neither device nor pinned memory", who);
	struct emu_op *op = emu_op_new(run_fill);
	op->to = to;
	op->to_pitch = pitch;
	op->value = value;
	op->width = width;
	op->height = height;
	emu_enqueue(stream, op);
	return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
	EMU_ENTER();
	return call.give(fill("cudaMemset", to, bytes, value, bytes, 1, nullptr));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
	EMU_ENTER();
	return call.give(fill("cudaMemsetAsync", to, bytes, value, bytes, 1, stream));
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
	EMU_ENTER();
	return call.give(fill("cudaMemset2DAsync", to, pitch, value, width, height, stream));
}
