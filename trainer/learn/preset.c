/*
 * preset.c: the table of presets (preset.h). Constant; any thread.
 *
 * Plain gradient steps with a falling rate and hardest-of-n negatives won on every data set tried; fewer passes want a higher rate (docs/LEARNING.md). 0.3 is
 * near the end of what holds: at 0.45 dense data fell apart.
 */
#include "trainer/learn/preset.h"

#include <string.h>

static const struct learn_preset presets[] = {
	{
		.name = "fast",
		.passes = 20,
		.passes_min = 10,
		.triples_soft_max = 10000000,
		.optimizer = OPTIMIZER_SGD,
		.learning_rate = 0.3f,
		.reg = 0.025f,
		.reg_bias = 0.03f,
		.init_scale = 1.0f,
		.hard_share = 1.0f,
		.hard_of = 4,
	},
	{
		.name = "default",
		.passes = 50,
		.optimizer = OPTIMIZER_SGD,
		.learning_rate = 0.12f,
		.reg = 0.03f,
		.reg_bias = 0.03f,
		.init_scale = 1.0f,
		.hard_share = 1.0f,
		.hard_of = 4,
	},
	{
		.name = "quality",
		.passes = 150,
		.optimizer = OPTIMIZER_SGD,
		.learning_rate = 0.05f,
		.reg = 0.03f,
		.reg_bias = 0.03f,
		.init_scale = 1.0f,
		.hard_share = 1.0f,
		.hard_of = 4,
	},
};

const struct learn_preset *learn_preset_at(size_t i)
{
	return i < sizeof presets / sizeof *presets ? &presets[i] : NULL;
}

const struct learn_preset *learn_preset_find(const char *name)
{
	for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
		if (strcmp(presets[i].name, name) == 0)
			return &presets[i];
	return NULL;
}

uint32_t learn_preset_passes(const struct learn_preset *preset, uint64_t n_positives)
{
	if (preset->triples_soft_max == 0 || n_positives == 0 || preset->triples_soft_max / n_positives >= preset->passes)
		return preset->passes;
	uint64_t fit = preset->triples_soft_max / n_positives;
	return fit > preset->passes_min ? (uint32_t)fit : preset->passes_min;
}
