/*
 * preset.h: named sets of learning settings for training on a file from front to back. docs/LEARNING.md tells how they were chosen.
 */
#ifndef TRAINER_LEARN_PRESET_H
#define TRAINER_LEARN_PRESET_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/learn/backend.h"

struct learn_preset {
	const char *name;
	uint32_t passes;       /* walks over the positives; the rate falls linearly to 0 over them */
	uint32_t passes_min;   /* with many positives: fewer, down to this, so that triples stay under triples_soft_max */
	uint64_t triples_soft_max; /* 0: always `passes` */
	int32_t optimizer;     /* enum optimizer */
	float learning_rate;   /* at the start */
	float reg, reg_bias;   /* reg: of user, positive and negative rows alike */
	float init_scale;
	float hard_share;
	uint32_t hard_of;
};

/* Number i of the presets, from the cheapest on; NULL behind the last. */
const struct learn_preset *learn_preset_at(size_t i);
/* By name; NULL: there is none. */
const struct learn_preset *learn_preset_find(const char *name);
/* Passes for a set of so many positives. */
uint32_t learn_preset_passes(const struct learn_preset *preset, uint64_t n_positives);

#endif
