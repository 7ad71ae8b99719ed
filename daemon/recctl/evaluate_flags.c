/*
 * evaluate_flags.c: from flags to a split and judged baselines; `recctl train` and `recctl evaluate` share it, so that they judge alike. Main thread of recctl.
 */
#include "daemon/recctl/evaluate_flags.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/recctl/split_tsv.h"

#define K_MAX 100000u
#define BOOTSTRAP_SEED 42u

const char *const judge_splits[] = { [SPLIT_GLOBAL] = "global", [SPLIT_USER] = "user", NULL };
const char *const judge_tsv_formats[] = { [TSV_AUTO] = "auto", [TSV_PAIRS] = "pairs", [TSV_LISTS] = "lists", NULL };

/* "20,50" into the plan. */
static int parse_ks(const char *name, const char *text, struct judge_options *judge, char *errstr, size_t errstr_size)
{
	const char *at = text;

	for (;;) {
		char *end;

		errno = 0;
		unsigned long k = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
		if (!k || errno || k > K_MAX || judge->n_ks == RANK_KS_MAX || (*end && *end != ',')) {
			snprintf(errstr, errstr_size, "--%s %s: wanted one to %u numbers from 1 to %u with commas between them", name, text, RANK_KS_MAX, K_MAX);
			return -EINVAL;
		}
		judge->ks[judge->n_ks++] = (uint32_t)k;
		if (!*end)
			return 0;
		at = end + 1;
	}
}

int judge_plan_make(const struct judge_flags *flags, const char *ks_name, const char *ks_text, uint32_t threads, struct judge_plan *ret_plan,
                    char *errstr, size_t errstr_size)
{
	struct judge_plan plan = {
		.split = { .kind = (enum split_kind)flags->split, .share = flags->holdout, .last_n = (uint32_t)flags->test_last },
		.files = flags->train_tsv || flags->test_tsv,
		.judge = { .threads = threads, .resamples = (uint32_t)flags->bootstrap, .seed = BOOTSTRAP_SEED },
	};
	const char *wrong = NULL;

	if (plan.files && !(flags->train_tsv && flags->test_tsv))
		wrong = "--train_tsv and --test_tsv go together: one file to train on, one to judge by";
	else if (plan.files && (plan.split.kind == SPLIT_USER || plan.split.last_n))
		wrong = "--train_tsv and --test_tsv come split already; leave --split and --test_last out";
	else if (plan.split.last_n && plan.split.kind != SPLIT_USER)
		wrong = "--test_last is a number of each user's watches; it needs --split user";
	else if (plan.split.kind == SPLIT_USER && !(plan.split.share > 0) && !plan.split.last_n)
		wrong = "--split user needs --test_last or --holdout above 0";
	if (wrong) {
		snprintf(errstr, errstr_size, "%s", wrong);
		return -EINVAL;
	}
	int rc = parse_ks(ks_name, ks_text, &plan.judge, errstr, errstr_size);
	if (!rc)
		*ret_plan = plan;
	return rc;
}

const char *judge_flags_fault(const struct judge_flags *flags, const struct command_spec *spec, const struct flag_words *words)
{
	if (!flags->train_tsv && !flags->test_tsv)
		return flags_given(spec, words, "tsv_format") ? "--tsv_format says how --train_tsv and --test_tsv read; neither is there" : NULL;
	if (flags_given(spec, words, "holdout") || flags_given(spec, words, "test_share"))
		return "--train_tsv and --test_tsv come split already; leave --holdout and --test_share out";
	if (flags_given(spec, words, "min_pos_completion"))
		return "--min_pos_completion does not go with --train_tsv: every pair is a positive";
	if (flags_given(spec, words, "negative_after_sec"))
		return "--negative_after_sec does not go with --train_tsv: pairs come without impressions";
	return NULL;
}

int judge_load(const struct judge_flags *flags, const struct judge_plan *plan, const char *data_dir, const struct state_rules *rules,
               const struct model_file *ids_first, const char *command, struct state **ret_state, struct load_stats *ret_loaded, struct split *ret_split,
               char *errstr, size_t errstr_size)
{
	const struct tsv_options tsv = { .train = flags->train_tsv, .test = flags->test_tsv, .format = (enum tsv_format)flags->tsv_format, .rules = *rules,
		                         .ids_first = ids_first };
	struct load_options load = { .data_dir = data_dir, .rules = *rules, .before_us = INT64_MAX, .ids_first = ids_first };
	int splits = plan->split.share > 0 || plan->split.last_n, rc = 0;

	*ret_loaded = (struct load_stats){ 0 };
	if (plan->files)
		return split_tsv_load(&tsv, ret_state, ret_split, errstr, errstr_size);
	if (splits) {
		rc = split_find_cut(data_dir, &plan->split, ret_split, errstr, errstr_size);
		load.cut_of = split_cut_of;
		load.cut_ctx = ret_split;
	}
	if (!rc)
		rc = load_logs(&load, ret_state, ret_loaded, errstr, errstr_size);
	if (!rc)
		load_stats_print(ret_loaded, data_dir, command);
	if (!rc && splits)
		rc = split_find_relevant(data_dir, rules, *ret_state, ret_split, errstr, errstr_size);
	return rc;
}

int judge_baselines(const struct judge_flags *flags, const struct state *state, const struct split *split, struct judge_plan *plan,
                    struct baselines *ret_baselines)
{
	struct knn_scores *knn = NULL;
	int rc = popularity_scores_make(state, split->n_extra_items, &ret_baselines->scores);

	if (rc)
		return rc;
	plan->judge.n_items = ret_baselines->scores.n_items;
	plan->judge.percentile = ret_baselines->scores.percentile;
	rc = judge(split, &plan->judge, popularity_score, &ret_baselines->scores, "judging popularity, users", &ret_baselines->popularity);
	if (rc || !flags->knn)
		return rc;
	rc = knn_scores_make(state, &ret_baselines->scores, (uint32_t)flags->knn, flags->knn_shrink, plan->judge.threads, &knn);
	if (!rc)
		rc = judge(split, &plan->judge, knn_score, knn, "judging item-kNN, users", &ret_baselines->knn);
	ret_baselines->has_knn = !rc;
	knn_scores_free(knn);
	return rc;
}

void baselines_free(struct baselines *baselines)
{
	popularity_scores_free(&baselines->scores);
}
