/*
 * baseline_report.c: what people and machines see of judged rankings and of the split they were judged on. Main thread of recctl.
 */
#include "daemon/recctl/baseline.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "daemon/recctl/fit.h"
#include "daemon/recctl/table.h"
#include "ingest/decode.h"

static const char *const figure_names[RANK_PER_K] = {
	[RANK_RECALL] = "recall", [RANK_NDCG] = "ndcg", [RANK_HIT_RATE] = "hit_rate", [RANK_POPULARITY] = "popularity"
};

/* ---- JSON ---- */

/* A mean of no users is 0, as "users": 0 says; one that is not defined is null. */
static json_t *number(double value, uint64_t users)
{
	return isnan(value) ? (users ? json_null() : json_real(0)) : json_real(value);
}

static void add_at(json_t *json, const struct judged *judged, int group, uint32_t k)
{
	for (int figure = 0; figure < RANK_PER_K; figure++)
		json_object_set_new(json, figure_names[figure],
		                    number(judged->figures[group][rank_column(k, (enum rank_figure)figure)].mean, judged->users[group]));
}

static json_t *group_json(const struct judged *judged, int group)
{
	json_t *json = json_pack("{s:I}", "users", (json_int_t)judged->users[group]);

	add_at(json, judged, group, 0);
	json_object_set_new(json, "mrr", number(judged->figures[group][RANK_MRR].mean, judged->users[group]));
	json_object_set_new(json, "auc", number(judged->figures[group][RANK_AUC].mean, judged->users[group]));
	return json;
}

static json_t *interval_json(const struct rank_estimate *estimate)
{
	return isnan(estimate->low) ? json_null() : json_pack("[f, f]", estimate->low, estimate->high);
}

/* 95 % intervals over all users: of the figures at one K, and of those over the whole list. */
static json_t *intervals_json(const struct judged *judged, uint32_t k, int whole_list)
{
	const struct rank_estimate *of = judged->figures[GROUP_COUNT];
	json_t *json = json_object();

	for (int figure = 0; figure < RANK_PER_K; figure++)
		json_object_set_new(json, figure_names[figure], interval_json(&of[rank_column(k, (enum rank_figure)figure)]));
	if (whole_list) {
		json_object_set_new(json, "mrr", interval_json(&of[RANK_MRR]));
		json_object_set_new(json, "auc", interval_json(&of[RANK_AUC]));
	}
	return json;
}

json_t *judged_json(const struct judged *judged, const struct judge_options *options)
{
	json_t *json = group_json(judged, GROUP_COUNT), *groups = json_object(), *at = json_object();

	json_object_set_new(json, "coverage", json_real(judged->coverage[0]));
	for (int group = 0; group < GROUP_COUNT; group++)
		json_object_set_new(groups, user_group_name((enum user_group)group), group_json(judged, group));
	json_object_set_new(json, "groups", groups);
	for (uint32_t k = 0; k < judged->n_ks; k++) {
		json_t *of = json_object();
		char name[16];

		snprintf(name, sizeof(name), "%" PRIu32, options->ks[k]);
		add_at(of, judged, GROUP_COUNT, k);
		json_object_set_new(of, "coverage", json_real(judged->coverage[k]));
		if (options->resamples)
			json_object_set_new(of, "interval", intervals_json(judged, k, 0));
		json_object_set_new(at, name, of);
	}
	json_object_set_new(json, "at", at);
	if (options->resamples)
		json_object_set_new(json, "interval", intervals_json(judged, 0, 1));
	return json;
}

json_t *split_json(const struct split *split, const struct split_options *options)
{
	static const char *const kinds[] = { [SPLIT_GLOBAL] = "global", [SPLIT_USER] = "user", [SPLIT_FILES] = "files" };
	json_t *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "kind", kinds[split->kind], "watches", (json_int_t)split->n_watches, "held_out",
	                         (json_int_t)split->n_held_out, "relevant", (json_int_t)split->n_relevant, "seen_before", (json_int_t)split->seen_before,
	                         "unknown_items", (json_int_t)split->unknown_items, "users", (json_int_t)split->group_begin[GROUP_COUNT]);
	char cut[ISO8601_MAX];

	if (split->kind == SPLIT_GLOBAL) {
		iso8601_format(split->cut_us, cut);
		json_object_set_new(json, "cut_us", json_integer((json_int_t)split->cut_us));
		json_object_set_new(json, "cut", json_string(cut));
	}
	if (split->kind == SPLIT_USER && options->last_n)
		json_object_set_new(json, "last", json_integer((json_int_t)options->last_n));
	else if (split->kind != SPLIT_FILES)
		json_object_set_new(json, "holdout", json_real(options->share));
	if (split->kind == SPLIT_USER)
		json_object_set_new(json, "split_users", json_integer((json_int_t)split->n_cuts));
	return json;
}

/* ---- text ---- */

static void add_estimate(struct table *table, const struct rank_estimate *estimate, int interval)
{
	if (isnan(estimate->mean))
		table_cell(table, "-");
	else if (interval)
		table_cell(table, "%.4f \302\261%.4f", estimate->mean, (estimate->high - estimate->low) / 2);
	else
		table_cell(table, "%.4f", estimate->mean);
}

/* A mean that may be over nobody. */
static void add_share(struct table *table, double value)
{
	if (isnan(value))
		table_cell(table, "-");
	else
		table_cell(table, "%.3f", value);
}

static void add_row(struct table *table, const struct judged_row *row, int group, const struct judge_options *options)
{
	const struct rank_estimate *of = row->judged->figures[group];
	int all = group == GROUP_COUNT, interval = all && options->resamples;
	char users[32];

	text_count(row->judged->users[group], users);
	table_cell(table, "%s", all ? row->name : "");
	table_cell(table, "%s", all ? "all" : user_group_name((enum user_group)group));
	table_cell(table, "%s", users);
	add_estimate(table, &of[rank_column(0, RANK_RECALL)], interval);
	add_estimate(table, &of[rank_column(0, RANK_NDCG)], interval);
	add_estimate(table, &of[rank_column(0, RANK_HIT_RATE)], interval);
	add_estimate(table, &of[RANK_MRR], 0);
	add_estimate(table, &of[RANK_AUC], 0);
	if (all)
		table_cell(table, "%.3f", row->judged->coverage[0]);
	else
		table_cell(table, "%s", "");
	add_share(table, of[rank_column(0, RANK_POPULARITY)].mean);
}

static void print_end(struct table *table)
{
	if (table_end(table, 2))
		fprintf(stderr, "recctl: out of memory\n");
}

/* The other K, over all users. */
static void print_other_ks(const struct judged_row *rows, size_t n, const struct judge_options *options)
{
	const struct table_column columns[] = { { "model", 0 }, { "K", 1 }, { "Recall", 1 }, { "NDCG", 1 }, { "HR", 1 }, { "coverage", 1 }, { "popularity", 1 } };
	struct table table;

	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < n; i++) {
		for (uint32_t k = 1; k < options->n_ks; k++) {
			const struct rank_estimate *of = rows[i].judged->figures[GROUP_COUNT];

			table_cell(&table, "%s", k == 1 ? rows[i].name : "");
			table_cell(&table, "%" PRIu32, options->ks[k]);
			for (int figure = RANK_RECALL; figure <= RANK_HIT_RATE; figure++)
				add_estimate(&table, &of[rank_column(k, (enum rank_figure)figure)], options->resamples != 0);
			table_cell(&table, "%.3f", rows[i].judged->coverage[k]);
			add_share(&table, of[rank_column(k, RANK_POPULARITY)].mean);
		}
	}
	print_end(&table);
}

void judged_print(const struct judged_row *rows, size_t n, const struct judge_options *options)
{
	char recall[32], ndcg[32], hit_rate[32];
	const struct table_column columns[] = { { "model", 0 },  { "users", 0 }, { "", 1 },    { recall, 1 },     { ndcg, 1 },
		                                { hit_rate, 1 }, { "MRR", 1 },   { "AUC", 1 }, { "coverage", 1 }, { "popularity", 1 } };
	struct table table;

	snprintf(recall, sizeof(recall), "Recall@%" PRIu32, options->ks[0]);
	snprintf(ndcg, sizeof(ndcg), "NDCG@%" PRIu32, options->ks[0]);
	snprintf(hit_rate, sizeof(hit_rate), "HR@%" PRIu32, options->ks[0]);
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < n; i++) {
		const uint64_t *users = rows[i].judged->users;

		add_row(&table, &rows[i], GROUP_COUNT, options);
		for (int group = 0; group < GROUP_COUNT; group++) {
			if (users[group] && users[group] != users[GROUP_COUNT])
				add_row(&table, &rows[i], group, options);
		}
	}
	print_end(&table);
	if (options->n_ks > 1)
		print_other_ks(rows, n, options);
	if (options->resamples)
		printf("  \302\261: half of the 95 %% interval, %" PRIu32 " bootstrap samples of users\n", options->resamples);
}

void split_print(const struct split *split, const struct split_options *options)
{
	char cut[ISO8601_MAX], watches[32], held_out[32], relevant[32], users[32], cut_users[32];

	text_count(split->n_watches, watches);
	text_count(split->n_held_out, held_out);
	text_count(split->n_relevant, relevant);
	text_count(split->group_begin[GROUP_COUNT], users);
	text_count(split->n_cuts, cut_users);
	if (split->kind == SPLIT_FILES) {
		printf("held out: %s of %s pairs", held_out, watches);
	} else if (split->kind == SPLIT_USER) {
		printf("held out: the last ");
		if (options->last_n)
			printf("%" PRIu32, options->last_n);
		else
			printf("%g", options->share);
		printf(" of each user's watches (%s of %s, of %s users)", held_out, watches, cut_users);
	} else {
		iso8601_format(split->cut_us, cut);
		printf("held out: the last %g of %s watches (%s, from %s on)", options->share, watches, held_out, cut);
	}
	printf("; to be found: %s titles of %s users\n", relevant, users);
}

void calibration_print(FILE *out, const char *name, const struct calibration *c)
{
	fprintf(out, "%s: mean conf %.4f, share watched far enough %.4f over %" PRIu64 " decided impressions (difference %+.4f)", name, c->mean_conf,
	        c->watch_rate, c->decided, c->mean_conf - c->watch_rate);
	if (!isnan(c->error))
		fprintf(out, "; calibration error %.4f", c->error);
	if (!isnan(c->slope))
		fprintf(out, ", slope %.3f", c->slope);
	fputc('\n', out);
}

static json_t *finite_json(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

json_t *calibration_json(const struct calibration *c)
{
	return json_pack("{s:I, s:f, s:f, s:o, s:o, s:o}", "decided", (json_int_t)c->decided, "mean_conf", c->mean_conf, "watch_rate", c->watch_rate, "error",
	                 finite_json(c->error), "slope", finite_json(c->slope), "intercept", finite_json(c->intercept));
}
