/*
 * baseline.c: rankings judged on a time split, and the two that frame a model: popularity below, the oracle of synthetic logs above.
 *
 * Main thread of recctl; the score functions are called from rank_evaluate()'s threads and only read. Each user is judged once: the groups are
 * judged one after the other, and the figures over all users are their means weighted by users.
 */
#include "daemon/recctl/baseline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/progress.h"
#include "daemon/recctl/table.h"
#include "ingest/decode.h"
#include "trainer/learn/score.h"
#include "trainer/model/torch_file.h"

/* ---- judging ---- */

/* What rank_evaluate() hands to its two callbacks. */
struct judging {
	rank_score_fn score;
	void *ctx;
	struct progress progress;
	size_t done_before; /* users of earlier groups */
};

static void score_one(void *ctx, uint32_t user, float *scores)
{
	const struct judging *judging = ctx;

	judging->score(judging->ctx, user, scores);
}

static void show_progress(void *ctx, size_t done, size_t total)
{
	struct judging *judging = ctx;

	(void)total;
	progress_update(&judging->progress, judging->done_before + done);
}

static void add_weighted(struct rank_metrics *all, const struct rank_metrics *group)
{
	double weight = (double)group->users;

	all->users += group->users;
	all->recall += weight * group->recall;
	all->ndcg += weight * group->ndcg;
	all->hit_rate += weight * group->hit_rate;
	all->mrr += weight * group->mrr;
	all->auc += weight * group->auc;
}

int judge(const struct split *split, uint32_t n_items, uint32_t k, rank_score_fn score, void *ctx, uint32_t threads, const char *label,
          struct judged *ret_judged)
{
	struct judged judged = { 0 };
	struct judging judging = { .score = score, .ctx = ctx };
	int rc = 0;

	progress_begin(&judging.progress, label, split->group_begin[GROUP_COUNT]);
	for (int group = 0; !rc && group < GROUP_COUNT; group++) {
		size_t begin = split->group_begin[group], n = split->group_begin[group + 1] - begin;

		if (!n)
			continue;
		judging.done_before = begin;
		rc = rank_evaluate(split->users + begin, n, n_items, k, score_one, &judging, threads, show_progress, &judged.groups[group]);
		if (!rc)
			add_weighted(&judged.all, &judged.groups[group]);
	}
	progress_end(&judging.progress);
	if (rc)
		return rc;
	if (judged.all.users) {
		double users = (double)judged.all.users;

		judged.all.recall /= users;
		judged.all.ndcg /= users;
		judged.all.hit_rate /= users;
		judged.all.mrr /= users;
		judged.all.auc /= users;
	}
	*ret_judged = judged;
	return 0;
}

/* ---- rankings ---- */

int popularity_scores_make(const struct state *state, struct popularity_scores *ret_scores)
{
	uint32_t n = state_n_items(state);
	float *scores = malloc((n + 1u) * sizeof(*scores));

	if (!scores)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		scores[i] = (float)state_item_popularity(state, i);
	*ret_scores = (struct popularity_scores){ n, scores };
	return 0;
}

void popularity_scores_free(struct popularity_scores *scores)
{
	free(scores->scores);
	*scores = (struct popularity_scores){ 0 };
}

void popularity_score(void *ctx, uint32_t user, float *scores)
{
	const struct popularity_scores *popularity = ctx;

	(void)user;
	memcpy(scores, popularity->scores, popularity->n_items * sizeof(*scores));
}

void model_score(void *ctx, uint32_t user, float *scores)
{
	const struct model_scores *model = ctx;
	const struct tables *tables = model->tables;

	score_row(tables, user < tables->n_users ? tables->U + (size_t)user * tables->dim : model->mean_user, 0, scores);
	for (uint32_t i = tables->n_items; i < model->n_items; i++)
		scores[i] = -1e30f;
}

struct oracle_scores {
	struct torch_reader *reader;
	const float *chance; /* [n_users, n_columns], mapped */
	uint32_t n_items, n_columns;
	uint32_t *column_of;   /* [n_items of the state]; STATE_NONE: not in the file */
	uint32_t *row_of;      /* [n_users of the state] */
	uint32_t n_users;
};

/* Row or column numbers of the file by the state's indexes. */
static int map_ids(struct torch_reader *reader, const char *name, uint64_t n, uint32_t (*find)(const struct state *, int64_t), const struct state *state,
                   uint32_t n_wanted, uint32_t **ret_map, char *errstr, size_t errstr_size)
{
	const struct torch_tensor *tensor;
	const void *ids = NULL;
	int rc = torch_reader_find_tensor(reader, name, &tensor, errstr, errstr_size);

	if (!rc && (tensor->dtype != TORCH_I64 || tensor->n_dims != 1 || tensor->shape[0] != n)) {
		snprintf(errstr, errstr_size, "tensor '%s' does not fit 'chance'", name);
		rc = -EBADMSG;
	}
	if (!rc)
		rc = torch_reader_map(reader, tensor, &ids, errstr, errstr_size);
	if (rc)
		return rc;
	uint32_t *map = malloc((n_wanted + 1u) * sizeof(*map));
	if (!map) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_wanted; i++)
		map[i] = STATE_NONE;
	for (uint64_t i = 0; i < n; i++) {
		uint32_t at = find(state, ((const int64_t *)ids)[i]);

		if (at < n_wanted)
			map[at] = (uint32_t)i;
	}
	*ret_map = map;
	return 0;
}

static int open_chance(struct oracle_scores *oracle, const struct state *state, char *errstr, size_t errstr_size)
{
	const struct torch_tensor *chance;
	const void *data = NULL;
	int rc = torch_reader_find_tensor(oracle->reader, "chance", &chance, errstr, errstr_size);

	if (!rc && (chance->dtype != TORCH_F32 || chance->n_dims != 2 || chance->shape[0] >= STATE_NONE || chance->shape[1] >= STATE_NONE)) {
		snprintf(errstr, errstr_size, "tensor 'chance' is not float32 [users, items]");
		rc = -EBADMSG;
	}
	if (!rc)
		rc = torch_reader_map(oracle->reader, chance, &data, errstr, errstr_size);
	if (rc)
		return rc;
	oracle->chance = data;
	oracle->n_columns = (uint32_t)chance->shape[1];
	oracle->n_users = state_n_users(state);
	oracle->n_items = state_n_items(state);
	rc = map_ids(oracle->reader, "user_ids", chance->shape[0], state_find_user, state, oracle->n_users, &oracle->row_of, errstr, errstr_size);
	if (!rc)
		rc = map_ids(oracle->reader, "item_ids", chance->shape[1], state_find_item, state, oracle->n_items, &oracle->column_of, errstr, errstr_size);
	return rc;
}

int oracle_scores_open(const char *path, const struct state *state, struct oracle_scores **ret_oracle, char *errstr, size_t errstr_size)
{
	struct oracle_scores *oracle = calloc(1, sizeof(*oracle));
	char text[512] = "out of memory";
	int rc = oracle ? torch_reader_open(AT_FDCWD, path, TORCH_FOLLOW_LINK, &oracle->reader, text, sizeof(text)) : -ENOMEM;

	if (!rc)
		rc = open_chance(oracle, state, text, sizeof(text));
	if (rc) {
		snprintf(errstr, errstr_size, "%s: %s", path, text);
		oracle_scores_close(oracle);
		return rc;
	}
	*ret_oracle = oracle;
	return 0;
}

void oracle_scores_close(struct oracle_scores *oracle)
{
	if (!oracle)
		return;
	torch_reader_close(oracle->reader);
	free(oracle->column_of);
	free(oracle->row_of);
	free(oracle);
}

void oracle_score(void *ctx, uint32_t user, float *scores)
{
	const struct oracle_scores *oracle = ctx;
	uint32_t row = user < oracle->n_users ? oracle->row_of[user] : STATE_NONE;

	for (uint32_t i = 0; i < oracle->n_items; i++) {
		uint32_t column = oracle->column_of[i];

		scores[i] = row != STATE_NONE && column != STATE_NONE ? oracle->chance[(size_t)row * oracle->n_columns + column] : 0;
	}
}

/* ---- what people and machines see ---- */

static json_t *metrics_json(const struct rank_metrics *metrics)
{
	return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "users", (json_int_t)metrics->users, "recall", metrics->recall, "ndcg", metrics->ndcg,
	                 "hit_rate", metrics->hit_rate, "mrr", metrics->mrr, "auc", metrics->auc);
}

json_t *judged_json(const struct judged *judged)
{
	json_t *json = metrics_json(&judged->all), *groups = json_object();

	for (int group = 0; group < GROUP_COUNT; group++)
		json_object_set_new(groups, user_group_name((enum user_group)group), metrics_json(&judged->groups[group]));
	json_object_set_new(json, "groups", groups);
	return json;
}

json_t *split_json(const struct split *split, double holdout)
{
	char cut[ISO8601_MAX];

	iso8601_format(split->cut_us, cut);
	return json_pack("{s:f, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "holdout", holdout, "cut_us", (json_int_t)split->cut_us, "cut", cut, "watches",
	                 (json_int_t)split->n_watches, "held_out", (json_int_t)split->n_held_out, "relevant", (json_int_t)split->n_relevant, "seen_before",
	                 (json_int_t)split->seen_before, "unknown_items", (json_int_t)split->unknown_items, "users",
	                 (json_int_t)split->group_begin[GROUP_COUNT]);
}

static void add_row(struct table *table, const char *name, const char *group, const struct rank_metrics *metrics)
{
	char users[32];

	text_count(metrics->users, users);
	table_cell(table, "%s", name);
	table_cell(table, "%s", group);
	table_cell(table, "%s", users);
	table_cell(table, "%.4f", metrics->recall);
	table_cell(table, "%.4f", metrics->ndcg);
	table_cell(table, "%.4f", metrics->hit_rate);
	table_cell(table, "%.4f", metrics->mrr);
	table_cell(table, "%.4f", metrics->auc);
}

void judged_print(const struct judged_row *rows, size_t n, uint32_t k)
{
	char recall[32], ndcg[32], hit_rate[32];
	const struct table_column columns[] = { { "model", 0 },  { "users", 0 },    { "", 1 },    { recall, 1 },
		                                { ndcg, 1 },     { hit_rate, 1 },   { "MRR", 1 }, { "AUC", 1 } };
	struct table table;

	snprintf(recall, sizeof(recall), "Recall@%u", k);
	snprintf(ndcg, sizeof(ndcg), "NDCG@%u", k);
	snprintf(hit_rate, sizeof(hit_rate), "HR@%u", k);
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < n; i++) {
		add_row(&table, rows[i].name, "all", &rows[i].judged->all);
		for (int group = 0; group < GROUP_COUNT; group++) {
			const struct rank_metrics *metrics = &rows[i].judged->groups[group];

			if (metrics->users && metrics->users != rows[i].judged->all.users)
				add_row(&table, "", user_group_name((enum user_group)group), metrics);
		}
	}
	if (table_end(&table, 2))
		fprintf(stderr, "recctl: out of memory\n");
}

void split_print(const struct split *split, double holdout)
{
	char cut[ISO8601_MAX], watches[32], held_out[32], relevant[32], users[32];

	iso8601_format(split->cut_us, cut);
	text_count(split->n_watches, watches);
	text_count(split->n_held_out, held_out);
	text_count(split->n_relevant, relevant);
	text_count(split->group_begin[GROUP_COUNT], users);
	printf("held out: the last %g of %s watches (%s, from %s on); to be found: %s titles of %s users\n", holdout, watches, held_out, cut, relevant, users);
}
