/*
 * hung.c: memory for copies of users that wait for the cut's walk.
 *
 * The engine makes copies, the walk lets them go; with a general allocator both would meet at its lock, and a walk that is preempted there would stop
 * the engine. So copies lie one after another in segments of 2 MiB. The engine alone takes and reuses segments; the walk only lowers a segment's
 * count of live copies. A segment with none left is used again; after the cut some are kept for the next one, because fresh memory is slow to touch.
 */
#include <sys/mman.h>

#include "trainer/state/internal.h"

#define SEGMENT_BYTES ((size_t)2 << 20)

struct hung_segment {
	struct hung_segment *next;
	_Atomic uint32_t live; /* copies in it, and 1 while the engine fills it */
	size_t bytes;          /* of the mapping */
	size_t used;
};

static struct hung_segment *segment_new(struct state *state, size_t bytes)
{
	struct hung_segment *segment = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (segment == MAP_FAILED)
		return NULL;
	(void)madvise(segment, bytes, MADV_HUGEPAGE); /* advice only */
	segment->bytes = bytes;
	segment->next = state->hung_segments;
	state->hung_segments = segment;
	state->hung_bytes += bytes;
	return segment;
}

/* A segment with room, which the engine fills from now on. */
static struct hung_segment *segment_take(struct state *state, size_t room)
{
	struct hung_segment *segment = state->hung_segments;
	size_t bytes = sizeof(*segment) + 64 + room;

	while (segment && (segment->bytes < bytes || atomic_load_explicit(&segment->live, memory_order_acquire) != 0))
		segment = segment->next;
	if (!segment)
		segment = segment_new(state, bytes < SEGMENT_BYTES ? SEGMENT_BYTES : (bytes + 4095) / 4096 * 4096);
	if (!segment)
		return NULL;
	segment->used = (sizeof(*segment) + 63) / 64 * 64;
	atomic_store_explicit(&segment->live, 1, memory_order_relaxed);
	if (state->hung_filling)
		atomic_fetch_sub_explicit(&state->hung_filling->live, 1, memory_order_release);
	state->hung_filling = segment;
	return segment;
}

struct hung_copy *hung_alloc(struct state *state, size_t bytes)
{
	struct hung_segment *segment = state->hung_filling;
	size_t room = (bytes + 63) / 64 * 64;
	struct hung_copy *hung;

	if (!segment || segment->bytes - segment->used < room)
		segment = segment_take(state, room);
	if (!segment)
		return NULL;
	hung = (struct hung_copy *)(void *)((char *)segment + segment->used);
	segment->used += room;
	atomic_fetch_add_explicit(&segment->live, 1, memory_order_relaxed);
	hung->segment = segment;
	hung->bytes = bytes;
	atomic_fetch_add_explicit(&state->published->copied_bytes, bytes, memory_order_relaxed);
	return hung;
}

void hung_free(struct state *state, struct hung_copy *hung)
{
	if (!hung)
		return;
	atomic_fetch_sub_explicit(&state->published->copied_bytes, hung->bytes, memory_order_relaxed);
	atomic_fetch_sub_explicit(&hung->segment->live, 1, memory_order_release);
}

void hung_cut_end(struct state *state)
{
	for (struct hung_segment *segment = state->hung_segments; segment; segment = segment->next)
		atomic_store_explicit(&segment->live, 0, memory_order_relaxed);
	state->hung_filling = NULL;
}

void hung_trim(struct state *state, size_t kept_bytes, uint32_t segments_max)
{
	while (state->hung_bytes > kept_bytes && segments_max-- > 0) {
		struct hung_segment *segment = state->hung_segments;
		state->hung_segments = segment->next;
		state->hung_bytes -= segment->bytes;
		munmap(segment, segment->bytes);
	}
}
