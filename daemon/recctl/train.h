/*
 * train.h: one run of `recctl train`, shared by train.c (which does the work) and train_report.c (which tells it).
 */
#ifndef DAEMON_RECCTL_TRAIN_H
#define DAEMON_RECCTL_TRAIN_H

#include <stdio.h>

#include "daemon/recctl/baseline.h"
#include "daemon/recctl/fit.h"
#include "trainer/learn/learn.h"

#define TRAIN_FILE_GLOBAL "model_bpr.pt"
#define TRAIN_FILE_PERSONALIZED "model_bpr_personalized.pt"

/* The flags; help texts in train.c. */
struct train_options {
	const char *data_dir, *out_dir;
	int64_t epochs, steps_per_epoch, batch_size, emb_dim, k_eval;
	int64_t personalize_steps, personalize_batch, personalize_min_positives;
	int64_t threads, negative_after_sec;
	double lr, personalize_lr, personalize_reg, min_pos_completion, holdout, reg, reg_bias, init_scale, skip_share;
	uint64_t seed;
	int optimizer, deterministic, json;
};

struct train_epoch {
	double loss, rate_begin, rate_end, seconds;
	uint64_t triples;
};

struct train_run {
	const struct train_options *options;
	FILE *out; /* what people read */
	uint32_t threads;
	struct state_rules rules;
	struct split split;
	struct load_stats loaded;
	struct state *state;
	struct skip_source skips;
	struct learner *learner;
	struct tables tables; /* global model, rows by the state's indexes */
	float *mean_user;
	float *personal_U, *personal_bu;
	struct fit fit;
	const char *out_dir;
	int dir_fd;
	struct train_epoch *epochs;
	uint64_t triples, rejected, n_positives, n_candidates, fitted;
	double train_seconds, personalize_seconds;
	uint64_t hash_before, hash_after;
	struct calibration calibration, personal_calibration;
	struct judged popularity, global, personalized;
	char errstr[512];
};

/* What was read and what is trained on, before training; to run->out. */
void train_report_begin(const struct train_run *run);
/* One epoch; to run->out. */
void train_report_epoch(const struct train_run *run, int64_t epoch);
/* The end: models, calibration, metrics; to run->out. */
void train_report_end(const struct train_run *run);
/* All of it as one JSON object on standard output. 0 or -ENOMEM. */
int train_report_json(const struct train_run *run);

#endif
