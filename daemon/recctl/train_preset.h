/*
 * train_preset.h: `recctl train --preset NAME`: what a preset puts in place of flags that were not given.
 */
#ifndef DAEMON_RECCTL_TRAIN_PRESET_H
#define DAEMON_RECCTL_TRAIN_PRESET_H

#include "daemon/recctl/flags.h"
#include "daemon/recctl/train.h"

/* Choices of --preset: "none", then learn_preset_at(0), (1) and so on. */
extern const char *const train_preset_names[];

/*
 * Fills in the learning settings of options->preset, but for flags on the command line. With or without a preset, a hard_share that was not given makes room for the
 * other shares.
 */
void train_preset_settings(const struct command_spec *spec, const struct flag_words *words, struct train_options *options);
/*
 * With a preset, once the positives are known: an epoch is one pass, as many as the preset has, but for what the command line says. Steps get shorter, so that they
 * make one pass and no more.
 */
void train_preset_epochs(struct train_options *options, uint64_t n_positives);

#endif
