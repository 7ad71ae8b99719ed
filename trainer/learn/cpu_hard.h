/*
 * cpu_hard.h: choosing hardest-of-n negatives on the host, for cpu_fast.c and cpu_deterministic.c. A plan without hard draws passes through unchanged.
 */
#ifndef TRAINER_LEARN_CPU_HARD_H
#define TRAINER_LEARN_CPU_HARD_H

#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/negatives.h"

#define HARD_BLOCK 16u

/* Candidates of up to HARD_BLOCK draws, and their scores. */
struct hard_block {
	uint32_t items[HARD_BLOCK][HARD_OF_MAX];
	float scores[HARD_BLOCK][HARD_OF_MAX];
};

/* The three stages of a block of n <= HARD_BLOCK settled draws; draws that are not hard are left alone. After the last, neg of each stands. */
void cpu_hard_fetch(const struct draw_plan *plan, const struct row_update *update, const struct draw *draws, uint32_t n, struct hard_block *block);
void cpu_hard_score(const struct draw_plan *plan, const struct row_update *update, const struct row_kernels *kernels, const struct draw *draws,
                    uint32_t n, struct hard_block *block);
void cpu_hard_choose(const struct draw_plan *plan, struct draw *draws, uint32_t n, struct hard_block *block);

/* Deterministic mode: chooses for settled draws by the parameters as they stand, with the same bits at every instruction level. Any n. */
void cpu_hard_choose_exact(const struct draw_plan *plan, const struct row_update *update, const struct row_kernels *kernels, struct draw *draws, uint32_t n);

#endif
