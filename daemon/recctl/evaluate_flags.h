/*
 * evaluate_flags.h: how `recctl train` and `recctl evaluate` split and judge: the flags they have in common, and what follows from them.
 */
#ifndef DAEMON_RECCTL_EVALUATE_FLAGS_H
#define DAEMON_RECCTL_EVALUATE_FLAGS_H

#include "daemon/recctl/baseline.h"
#include "daemon/recctl/flags.h"

/* A member of both commands' options. */
struct judge_flags {
	int split, tsv_format;
	double holdout, knn_shrink;
	int64_t test_last, knn, bootstrap;
	const char *train_tsv, *test_tsv;
};

extern const char *const judge_splits[], *const judge_tsv_formats[];

/* clang-format off */
#define JUDGE_AT(TYPE, MEMBER, field) .offset = offsetof(struct TYPE, MEMBER) + offsetof(struct judge_flags, field)
#define JUDGE_FLAGS(TYPE, MEMBER, HOLDOUT_MIN, HOLDOUT_HELP) \
	{ .name = "holdout", .type = FLAG_FLOAT, JUDGE_AT(TYPE, MEMBER, holdout), .fallback = "0.1", .min = (HOLDOUT_MIN), .max = 0.9, .help = (HOLDOUT_HELP) }, \
	{ .name = "test_share", .type = FLAG_FLOAT, JUDGE_AT(TYPE, MEMBER, holdout), .fallback = "0.1", .min = (HOLDOUT_MIN), .max = 0.9, \
	  .help = "Another name of --holdout; the last one given counts." }, \
	{ .name = "split", .type = FLAG_CHOICE, JUDGE_AT(TYPE, MEMBER, split), .fallback = "global", .choices = judge_splits, \
	  .help = "global: one time for all, so that nobody is judged by what others did later. user: the last watches of each user by started_at." }, \
	{ .name = "test_last", .type = FLAG_INT, JUDGE_AT(TYPE, MEMBER, test_last), .fallback = "0", .min = 0, .max = 1000000, .placeholder = "N", \
	  .help = "With --split user: the last N watches of each user instead of a share. 0: the share." }, \
	{ .name = "train_tsv", .type = FLAG_STRING, JUDGE_AT(TYPE, MEMBER, train_tsv), .placeholder = "FILE", \
	  .help = "Pairs instead of logs, as public data sets come: user item (and more, which is not read), or user item item ... on each line; ids only, no times. " \
	          "With --test_tsv." }, \
	{ .name = "test_tsv", .type = FLAG_STRING, JUDGE_AT(TYPE, MEMBER, test_tsv), .placeholder = "FILE", .help = "The pairs to be found, in the same form." }, \
	{ .name = "tsv_format", .type = FLAG_CHOICE, JUDGE_AT(TYPE, MEMBER, tsv_format), .fallback = "auto", .choices = judge_tsv_formats, \
	  .help = "How the lines of those files read. auto: lists when their lengths differ, or are below 2 or above 4." }, \
	{ .name = "knn", .type = FLAG_INT, JUDGE_AT(TYPE, MEMBER, knn), .fallback = "100", .min = 0, .max = 10000, \
	  .help = "Neighbours an item keeps in the item-kNN baseline. 0: without that baseline." }, \
	{ .name = "knn_shrink", .type = FLAG_FLOAT, JUDGE_AT(TYPE, MEMBER, knn_shrink), .fallback = "10", .min = 0, .max = 1e6, \
	  .help = "What is added below the cosine, so that few common users count for little." }, \
	{ .name = "bootstrap", .type = FLAG_INT, JUDGE_AT(TYPE, MEMBER, bootstrap), .fallback = "1000", .min = 0, .max = 100000, \
	  .help = "Samples of users behind the 95 % intervals. 0: no intervals." }
/* clang-format on */

/* What the flags say. `split` is for split_find_cut(); files is 1 when the pairs come from two files. */
struct judge_plan {
	struct split_options split;
	int files;
	struct judge_options judge; /* ks, n_ks, resamples, threads, seed; n_items and percentile are left to judge_baselines() */
};

/* ks_text: "20" or "20,50,100", of the flag `ks_name`. 0, or -EINVAL: errstr says which flag is wrong and what it takes. */
int judge_plan_make(const struct judge_flags *flags, const char *ks_name, const char *ks_text, uint32_t threads, struct judge_plan *ret_plan,
                    char *errstr, size_t errstr_size);

/*
 * What is wrong with flags of both commands that are each right by themselves, or that would change nothing: --train_tsv leaves no share, no completion and no time to
 * speak of. NULL: nothing. `spec` has all of JUDGE_FLAGS, min_pos_completion and negative_after_sec.
 */
const char *judge_flags_fault(const struct judge_flags *flags, const struct command_spec *spec, const struct flag_words *words);

/*
 * The state before the split and what is to be found: from logs, or from the files. ids_first: as for load_logs(). `command` is for messages. holdout 0 (train):
 * everything is trained on, *ret_split is empty.
 */
int judge_load(const struct judge_flags *flags, const struct judge_plan *plan, const char *data_dir, const struct state_rules *rules,
               const struct model_file *ids_first, const char *command, struct state **ret_state, struct load_stats *ret_loaded, struct split *ret_split,
               char *errstr, size_t errstr_size);

/* The baselines of a table; popularity also gives the percentiles, and must live as long as the plan is used. */
struct baselines {
	struct popularity_scores scores;
	struct judged popularity, knn;
	int has_knn;
};
/* Makes and judges them, and completes plan->judge. 0 or -errno. Free with baselines_free() in any case. */
int judge_baselines(const struct judge_flags *flags, const struct state *state, const struct split *split, struct judge_plan *plan,
                    struct baselines *ret_baselines);
void baselines_free(struct baselines *baselines); /* accepts a zeroed one */

#endif
