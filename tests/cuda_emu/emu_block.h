/*
 * emu_block.h: the running block, as the scheduler (emu_block.cpp) and the warp operations (emu_warp.cpp) see it.
 *
 * A lane is in the queue, waits in an operation (op says which), or is done. The one that completes an operation puts the others back into the queue.
 */
#ifndef TESTS_CUDA_EMU_EMU_BLOCK_H
#define TESTS_CUDA_EMU_EMU_BLOCK_H

#include "tests/cuda_emu/emu_core.h"

struct emu_lane {
	struct emu_fiber fiber;
	uint3 thread;
	int number, warp, lane; /* in the block; of the block; in the warp */
	int done;
	enum emu_meet op; /* what it waits in */
	int line, arg, width;
	uint32_t mask;
	uint64_t in, out;
};

/* What TSan takes for the places where lanes meet. Allocated anew for each block, so that one block's order is not taken for another's. */
struct emu_meetings {
	char barrier[2];
	char warp[EMU_WARPS_MAX][32][2];
};

enum emu_schedule { EMU_IN_ORDER, EMU_ANY_ORDER, EMU_LAST_FIRST };

struct emu_block {
	const struct emu_launch_request *launch;
	struct emu_lane *lanes; /* [n] */
	int n, live, at_barrier, predicates;
	unsigned barriers; /* completed */
	uint32_t warp_live[EMU_WARPS_MAX], warp_waiting[EMU_WARPS_MAX];
	unsigned char warp_turn[EMU_WARPS_MAX][32]; /* __syncwarps completed, by the mask's first lane */
	enum emu_schedule schedule;
	struct emu_lane *queue[EMU_LANES_MAX]; /* ring: head..tail - 1 */
	unsigned head, tail;
	void *shared;
	struct emu_meetings *meetings;
};
extern struct emu_block emu_block;
extern struct emu_lane *emu_lane_now; /* NULL: no kernel runs */

void emu_block_ready(struct emu_lane *lane); /* into the queue */
void emu_block_wait(const char *what);       /* the running lane gives way until it is ready again */
/* The running lane is done: dies when others wait for it in a warp operation. */
void emu_warp_leave(struct emu_lane *lane);
const char *emu_meet_name(enum emu_meet op);

#endif
