/*
 * train_preset.c: presets of `recctl train` (trainer/learn/preset.h) laid under the flags. Main thread, before training.
 */
#include "daemon/recctl/train_preset.h"

#include "trainer/learn/preset.h"

const char *const train_preset_names[] = { "none", "fast", "default", "quality", NULL };

static const struct learn_preset *chosen(const struct train_options *options)
{
	return options->preset ? learn_preset_find(train_preset_names[options->preset]) : NULL;
}

static void lay_under(const struct learn_preset *preset, const struct command_spec *spec, const struct flag_words *words, struct train_options *options)
{
	if (!flags_given(spec, words, "optimizer"))
		options->optimizer = preset->optimizer;
	const struct {
		const char *flag;
		double *option;
		float value;
	} settings[] = {
		{ "lr", &options->lr, preset->learning_rate },
		{ "reg", &options->reg, preset->reg },
		{ "reg_bias", &options->reg_bias, preset->reg_bias },
		{ "init_scale", &options->init_scale, preset->init_scale },
		{ "hard_share", &options->hard_share, preset->hard_share },
	};
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (!flags_given(spec, words, settings[i].flag))
			*settings[i].option = (double)settings[i].value;
	}
	if (!flags_given(spec, words, "hard_of"))
		options->hard_of = preset->hard_of;
}

void train_preset_settings(const struct command_spec *spec, const struct flag_words *words, struct train_options *options)
{
	const struct learn_preset *preset = chosen(options);

	options->epochs_given = flags_given(spec, words, "epochs");
	options->steps_given = flags_given(spec, words, "steps_per_epoch");
	options->batch_given = flags_given(spec, words, "batch_size");
	if (preset)
		lay_under(preset, spec, words, options);
	options->reg_user = flags_given(spec, words, "reg_user") ? options->reg_user : options->reg;
	options->reg_pos = flags_given(spec, words, "reg_pos") ? options->reg_pos : options->reg;
	options->reg_neg = flags_given(spec, words, "reg_neg") ? options->reg_neg : options->reg;
	if (options->samples && !flags_given(spec, words, "skip_share")) { /* labelled negatives only, but for what was asked for */
		double others = options->popular_share + (flags_given(spec, words, "hard_share") ? options->hard_share : 0);

		options->skip_share = others < 1 ? 1 - others : 0;
	}
	/* shares that were asked for come out of the hard ones */
	double rest = 1 - options->skip_share - options->popular_share;
	if (!flags_given(spec, words, "hard_share") && options->hard_share > rest)
		options->hard_share = rest > 0 ? rest : 0;
}

void train_preset_epochs(struct train_options *options, uint64_t n_positives)
{
	const struct learn_preset *preset = chosen(options);

	if (!preset || !n_positives)
		return;
	if (!options->epochs_given)
		options->epochs = learn_preset_passes(preset, n_positives);
	if (options->steps_given)
		return;
	uint64_t steps = (n_positives + (uint64_t)options->batch_size - 1) / (uint64_t)options->batch_size;
	options->steps_per_epoch = (int64_t)steps;
	if (!options->batch_given)
		options->batch_size = (int64_t)((n_positives + steps - 1) / steps);
}
