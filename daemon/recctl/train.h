/*
 * train.h: one run of `recctl train`, shared by train.c (the run), train_feed.c (what is learnt from), train_learn.c (training), train_models.c (what comes of
 * it) and train_report.c (which tells it).
 */
#ifndef DAEMON_RECCTL_TRAIN_H
#define DAEMON_RECCTL_TRAIN_H

#include <stdio.h>

#include "daemon/recctl/evaluate_flags.h"
#include "daemon/recctl/fit.h"
#include "daemon/recctl/train_samples.h"
#include "daemon/recctl/train_validate.h"
#include "trainer/learn/learn.h"

#define TRAIN_FILE_GLOBAL "model_bpr.pt"
#define TRAIN_FILE_PERSONALIZED "model_bpr_personalized.pt"

extern const char *const train_backends[]; /* auto, cpu, cuda, NULL */
extern const struct command_spec train_spec;

/* The flags; help texts in train.c. */
struct train_options {
	const char *data_dir, *out_dir, *k_eval, *plot, *samples;
	int64_t epochs, steps_per_epoch, batch_size, emb_dim, early_stop;
	int64_t personalize_steps, personalize_batch, personalize_min_positives;
	int64_t threads, negative_after_sec;
	double lr, personalize_lr, personalize_reg, min_pos_completion, valid_share, reg, reg_user, reg_pos, reg_neg, reg_bias, init_scale;
	double skip_share, popular_share, popular_power, hard_share;
	double weight_completion, half_life_days;
	int64_t hard_of;
	uint64_t seed;
	int optimizer, loss, order, deterministic, json;
	int backend, precision, amp; /* backend: index into train_backends */
	int preset, epochs_given, steps_given, batch_given; /* train_preset.h */
	struct judge_flags judge;
};

struct train_epoch {
	double loss, rate_begin, rate_end, seconds;
	double ndcg; /* on the validation slice, or for the plot on what is held out; NaN: not measured */
	uint64_t triples;
};

struct train_run {
	struct train_options *options;
	FILE *out; /* what people read */
	uint32_t threads;
	struct state_rules rules;
	struct judge_plan plan;
	int judges; /* something is held out */
	struct split split;
	struct validation validation;
	struct load_stats loaded;
	struct state *state;
	struct samples samples; /* --samples */
	uint64_t *skip_offsets; /* [n_users + 1] and what they point into: skips of the histories, with --skip_share */
	uint32_t *skip_items;
	struct skip_source skips;
	struct learner *learner;
	char backend_reason[256]; /* why the CPU, where a device was looked for; "" */
	struct tables tables; /* global model, rows by the state's indexes */
	struct tables best;   /* --early_stop: of the best epoch so far */
	int64_t best_epoch;   /* from 1; 0: no early stopping */
	int64_t n_epochs;     /* trained */
	float *personal_U, *personal_bu;
	struct fit fit;
	const char *out_dir; /* NULL: nothing is saved */
	int dir_fd;
	struct train_epoch *epochs;
	uint64_t triples, rejected, n_positives, n_candidates, fitted;
	double train_seconds, personalize_seconds;
	uint64_t hash_before, hash_after;
	struct calibration calibration, personal_calibration;                   /* on what was trained on */
	struct calibration held_out_calibration, personal_held_out_calibration; /* on the split's decided impressions */
	struct baselines baselines;
	struct judged global, personalized;
	char errstr[512];
};

/* The parts of a run, in order; each returns 0 or -errno, with text in run->errstr where a number would not say it. */
int train_make_learner(struct train_run *run);
/* What the learner will be asked for; run->threads is known. */
struct learn_options train_learn_options(const struct train_run *run);
/* What a failed call of the learner means, into run->errstr. Returns rc. */
int train_explain(struct train_run *run, int rc);
int train_all(struct train_run *run);
int train_finish_global(struct train_run *run);
int train_finish_personalized(struct train_run *run);
int train_evaluate(struct train_run *run);

/* What was read and what is trained on, before training; to run->out. */
void train_report_begin(const struct train_run *run);
/* One epoch; to run->out. */
void train_report_epoch(const struct train_run *run, int64_t epoch);
/* The end: models, calibration, metrics; to run->out. */
void train_report_end(const struct train_run *run);
/* The learning curve to --plot. 0 or -errno with text in run->errstr. */
int train_report_plot(struct train_run *run);
/* All of it as one JSON object on standard output. 0 or -ENOMEM. */
int train_report_json(const struct train_run *run);

#endif
