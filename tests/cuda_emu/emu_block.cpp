/*
 * emu_block.cpp: runs a grid: block after block, the lanes of a block in turn.
 *
 * Without a seed, lanes run in order and each until it has to wait. With one, each block draws a schedule (in order, any order, last come first served) and
 * atomics let other lanes in. A lane is a fiber that serves the same place in every block.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/emu_block.h"

/* TSan orders all that one actor does, so neighbouring blocks and streams use different actors: else a race between them would look like order. */
#ifdef EMU_TSAN
#define CREWS 4
#else
#define CREWS 1
#endif
#define YIELD_ONE_IN 16    /* with a seed: share of the atomics at which another lane goes on */
#define YIELD_AT_LEAST 256 /* always: so many atomics of one block and another lane goes on, so that a spinning lane ends */
#define CANARY_BYTES 64

struct emu_place emu_here;
struct emu_block emu_block;
struct emu_lane *emu_lane_now;
static struct emu_lane *crews[CREWS];
static char *launch_edges; /* TSan: [0] is what all blocks of a launch follow, [1] what follows them */
static unsigned points;

int emu_in_kernel(void)
{
	return emu_lane_now != nullptr;
}

void *emu_shared(void)
{
	return emu_block.shared;
}

const char *emu_meet_name(enum emu_meet op)
{
	static const char *const names[] = {"nothing", "__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync", "__ballot_sync", "__any_sync",
		"__all_sync", "__syncwarp", "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
		"__reduce_xor_sync", "__reduce_min_sync", "__reduce_max_sync", "__match_any_sync", "__syncthreads"};
	return names[op];
}

void emu_describe_place(void)
{
	const struct emu_lane *me = emu_lane_now;
	if (!me)
		return;
	fprintf(stderr, "  in kernel %s, block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u), at %s of line %d\n", emu_block.launch->name, emu_here.block.x,
	        emu_here.block.y, emu_here.block.z, emu_here.grid_dim.x, emu_here.grid_dim.y, emu_here.grid_dim.z, me->thread.x, me->thread.y, me->thread.z,
	        emu_meet_name(me->op), me->line);
	int shown = 0;
	for (int i = 0; i < emu_block.n && shown < 40; i++) {
		const struct emu_lane *lane = &emu_block.lanes[i];
		if (lane->done || lane->op == EMU_NONE || lane == me)
			continue;
		fprintf(stderr, "  thread %d waits in %s, line %d, mask %08x\n", i, emu_meet_name(lane->op), lane->line, lane->mask);
		shown++;
	}
}

/* ---- the queue ----------------------------------------------------------------------------------------------------------------------- */
void emu_block_ready(struct emu_lane *lane)
{
	emu_block.queue[emu_block.tail++ % EMU_LANES_MAX] = lane;
}

static struct emu_lane *next_lane(void)
{
	struct emu_block *b = &emu_block;
	if (b->schedule == EMU_LAST_FIRST)
		return b->queue[--b->tail % EMU_LANES_MAX];
	if (b->schedule == EMU_ANY_ORDER) {
		struct emu_lane **drawn = &b->queue[(b->head + emu_random_below(b->tail - b->head)) % EMU_LANES_MAX];
		struct emu_lane **first = &b->queue[b->head % EMU_LANES_MAX];
		struct emu_lane *lane = *drawn;
		*drawn = *first;
		*first = lane;
	}
	return b->queue[b->head++ % EMU_LANES_MAX];
}

/* From the running lane (or the OS thread: NULL) to another. */
static void go_on_with(struct emu_lane *from, struct emu_lane *to)
{
	if (from == to)
		return;
	emu_lane_now = to;
	if (to)
		emu_here.thread = to->thread;
	emu_fiber_switch(from ? &from->fiber : nullptr, to ? &to->fiber : nullptr);
}

void emu_block_wait(const char *what)
{
	struct emu_lane *me = emu_lane_now;
	if (emu_block.head == emu_block.tail)
		emu_die("deadlock: every thread of the block waits, the last one in %s; a barrier or a warp operation that not all reach", what);
	go_on_with(me, next_lane());
}

void emu_point(void)
{
	struct emu_lane *me = emu_lane_now;
	points++;
	if (!me || emu_block.head == emu_block.tail)
		return;
	if (points % YIELD_AT_LEAST && !(emu_settings.seed && emu_random_below(YIELD_ONE_IN) == 0))
		return;
	struct emu_lane *next = next_lane();
	emu_block_ready(me);
	go_on_with(me, next);
}

void emu_fence(void)
{
	static char fences;
	emu_release(&fences);
	emu_acquire(&fences);
	emu_point();
}

/* ---- the barrier --------------------------------------------------------------------------------------------------------------------- */
/* All live lanes have come: they must have come to the same line. `me` runs on, the others get ready. */
static void open_barrier(const struct emu_lane *me)
{
	struct emu_block *b = &emu_block;
	int line = -1;
	for (int i = 0; i < b->n; i++) {
		struct emu_lane *lane = &b->lanes[i];
		if (lane->done || lane->op != EMU_BARRIER)
			continue;
		if (line >= 0 && lane->line != line)
			emu_die("divergent barrier: threads of one block are at __syncthreads of lines %d and %d", line, lane->line);
		line = lane->line;
		lane->out = static_cast<uint64_t>(b->predicates);
		if (lane != me)
			emu_block_ready(lane);
	}
	for (int i = 0; i < b->n; i++)
		b->lanes[i].op = b->lanes[i].op == EMU_BARRIER ? EMU_NONE : b->lanes[i].op;
	b->at_barrier = 0;
	b->predicates = 0;
	b->barriers++;
}

int emu_barrier(int predicate, int line)
{
	struct emu_block *b = &emu_block;
	struct emu_lane *me = emu_lane_now;
	if (!me)
		emu_die("__syncthreads outside a kernel");
	/* Two objects in turn: a lane that is slow to leave must not be ordered after what a fast one did on its way to the next barrier. */
	char *object = &b->meetings->barrier[b->barriers & 1];
	me->op = EMU_BARRIER;
	me->line = line;
	b->predicates += predicate != 0;
	emu_release(object);
	if (++b->at_barrier == b->live)
		open_barrier(me);
	else
		emu_block_wait("__syncthreads");
	emu_acquire(object);
	return static_cast<int>(me->out);
}

/* ---- lanes, blocks, grids ------------------------------------------------------------------------------------------------------------ */
static void lane_done(struct emu_lane *me)
{
	struct emu_block *b = &emu_block;
	me->done = 1;
	b->live--;
	emu_warp_leave(me);
	if (b->live && b->at_barrier == b->live)
		open_barrier(me);
	if (b->live && b->head == b->tail)
		emu_die("deadlock: this thread has returned, and every other thread of the block waits");
	go_on_with(me, b->live ? next_lane() : nullptr);
}

static void lane_main(void)
{
	for (;;) {
		emu_acquire(&launch_edges[0]);
		emu_block.launch->run(emu_block.launch->args);
		emu_release(&launch_edges[1]);
		lane_done(emu_lane_now);
	}
}

static void begin_block(uint64_t index)
{
	struct emu_block *b = &emu_block;
	dim3 grid = b->launch->grid, block = b->launch->block;
	emu_here.block = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
		static_cast<unsigned>(index / grid.x / grid.y)};
	b->live = b->n;
	b->at_barrier = b->predicates = 0;
	b->barriers = 0;
	b->head = b->tail = 0;
	b->schedule = emu_settings.seed ? static_cast<enum emu_schedule>(emu_random_below(3)) : EMU_IN_ORDER;
	memset(b->warp_waiting, 0, sizeof b->warp_waiting);
	memset(b->warp_live, 0, sizeof b->warp_live);
	memset(b->warp_turn, 0, sizeof b->warp_turn);
	struct emu_lane *&crew = crews[(2 * emu_stream_number(b->launch->stream) + index % 2) % CREWS];
	if (!crew)
		crew = static_cast<struct emu_lane *>(calloc(EMU_LANES_MAX, sizeof *crew));
	if (!crew)
		emu_die("no memory for lanes");
	b->lanes = crew;
	for (int i = 0; i < b->n; i++) {
		struct emu_lane *lane = &crew[i];
		unsigned n = static_cast<unsigned>(i);
		if (!lane->fiber.stack)
			emu_fiber_create(&lane->fiber, lane_main);
		lane->thread = {n % block.x, n / block.x % block.y, n / block.x / block.y};
		lane->number = i;
		lane->warp = i / 32;
		lane->lane = i % 32;
		lane->done = 0;
		lane->op = EMU_NONE;
		lane->line = 0;
		b->warp_live[lane->warp] |= 1u << lane->lane;
		emu_block_ready(lane);
	}
}

static void check_canary(void)
{
#ifndef EMU_ASAN
	const unsigned char *p = static_cast<const unsigned char *>(emu_block.shared);
	for (size_t i = 0; p && i < CANARY_BYTES; i++) {
		if (p[emu_block.launch->shared_bytes + i] != 0xc5)
			emu_die("kernel %s wrote past its %zu bytes of shared memory", emu_block.launch->name, emu_block.launch->shared_bytes);
	}
#endif
}

/* Shared memory is a heap block of exactly the size asked for, so that ASan guards its ends; without ASan a canary stands behind it. */
static void *shared_new(size_t bytes)
{
	if (!bytes)
		return nullptr;
	void *memory = nullptr;
#ifdef EMU_ASAN
	int failed = posix_memalign(&memory, 16, bytes);
#else
	int failed = posix_memalign(&memory, 16, bytes + CANARY_BYTES);
#endif
	if (failed)
		emu_die("no memory for shared memory");
	emu_fill_poison(memory, bytes);
#ifndef EMU_ASAN
	memset(static_cast<unsigned char *>(memory) + bytes, 0xc5, CANARY_BYTES);
#endif
	return memory;
}

/* Shared memory and meetings are new for each block: for TSan, too, nothing of an earlier block is left in them. */
static void run_block(uint64_t index)
{
	struct emu_block *b = &emu_block;
	emu_unseen_begin();
	b->shared = shared_new(b->launch->shared_bytes);
	b->meetings = static_cast<struct emu_meetings *>(malloc(sizeof *b->meetings));
	if (!b->meetings)
		emu_die("no memory for a block");
	begin_block(index);
	emu_unseen_end();
	go_on_with(nullptr, next_lane());
	emu_lane_now = nullptr;
	check_canary();
	emu_unseen_begin();
	free(b->meetings);
	free(b->shared);
	emu_unseen_end();
	b->shared = nullptr;
}

void emu_run_grid(const struct emu_launch_request *launch, uint64_t n_blocks)
{
	struct emu_block *b = &emu_block;
	uint64_t all = static_cast<uint64_t>(launch->grid.x) * launch->grid.y * launch->grid.z;
	b->launch = launch;
	b->n = static_cast<int>(launch->block.x * launch->block.y * launch->block.z);
	emu_here.block_dim = launch->block;
	emu_here.grid_dim = launch->grid;
	emu_unseen_begin();
	launch_edges = static_cast<char *>(malloc(2));
	if (!launch_edges)
		emu_die("no memory for a launch");
	emu_unseen_end();
	emu_release(&launch_edges[0]);
	uint64_t first = emu_settings.seed && all > 1 ? emu_random() % all : 0;
	int backwards = emu_settings.seed && emu_random_below(2);
	for (uint64_t k = 0; k < all && k < n_blocks; k++)
		run_block((backwards ? first + all - k : first + k) % all);
	emu_acquire(&launch_edges[1]);
	emu_unseen_begin();
	free(launch_edges);
	emu_unseen_end();
	emu_memory_check(launch->name);
}
