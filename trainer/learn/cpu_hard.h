/*
 * cpu_hard.h: choosing hardest-of-n negatives on the host, for cpu_fast.c and cpu_deterministic.c. A plan without hard draws passes through unchanged.
 */
#ifndef TRAINER_LEARN_CPU_HARD_H
#define TRAINER_LEARN_CPU_HARD_H

#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/negatives.h"

#define HARD_BLOCK 16u

/* Candidates of up to HARD_BLOCK draws, and their scores: hard_of of each draw, one draw after the other. */
struct hard_block {
	uint32_t items[HARD_BLOCK * HARD_OF_MAX];
	float scores[HARD_BLOCK * HARD_OF_MAX];
	uint32_t best[HARD_BLOCK]; /* place of each draw's highest score; UINT32_MAX: none is a number */
};

/*
 * The stages of a block. Draws that are not hard are left alone, but for their rows, which are asked for.
 *   draw    the candidates of the n <= HARD_BLOCK proposed draws
 *   fetch   begins to fetch the rows of draws[from .. from + n - 1], settled, and of their candidates
 *   score   scores the candidates of draws[from .. from + n - 1], and begins to fetch what tells whether the best is a positive
 *   choose  sets neg of draws[from .. from + n - 1]
 */
void cpu_hard_draw(const struct draw_plan *plan, const struct draw *draws, uint32_t n, struct hard_block *block);
void cpu_hard_fetch(const struct draw_plan *plan, const struct row_update *update, const struct draw *draws, uint32_t from, uint32_t n,
                    const struct hard_block *block);
void cpu_hard_score(const struct draw_plan *plan, const struct row_update *update, const struct row_kernels *kernels, const struct draw *draws,
                    uint32_t from, uint32_t n, struct hard_block *block);
void cpu_hard_choose(const struct draw_plan *plan, struct draw *draws, uint32_t from, uint32_t n, struct hard_block *block);

/* Deterministic mode: chooses for settled draws by the parameters as they stand, with the same bits at every instruction level. Any n. */
void cpu_hard_choose_exact(const struct draw_plan *plan, const struct row_update *update, const struct row_kernels *kernels, struct draw *draws, uint32_t n);

#endif
