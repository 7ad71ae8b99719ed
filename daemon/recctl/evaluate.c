/*
 * evaluate.c: `recctl evaluate`: a saved model against the last watches of the logs, beside popularity and, for synthetic logs, the oracle.
 *
 * Main thread of recctl. The model's users and items get the first indexes of the state, so its tables serve as they are. Full ranking; watched titles
 * are masked. The split is the one that `recctl train` makes with the same --holdout.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/baseline.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/parallel.h"
#include "daemon/render.h"

struct options {
	const char *data_dir, *model_path, *oracle;
	double holdout, min_pos_completion;
	int64_t k, threads;
	int json;
};

#define AT(field) .offset = offsetof(struct options, field)
static const struct flag flags[] = {
	{ .name = "data_dir", .type = FLAG_STRING, AT(data_dir), .fallback = "data", .placeholder = "DIR", .help = "Folder with the logs." },
	{ .name = "model_path", .type = FLAG_STRING, AT(model_path), .placeholder = "FILE",
	  .help = "The model, a .pt file. Default: model_bpr_personalized.pt in the data folder." },
	{ .name = "holdout", .type = FLAG_FLOAT, AT(holdout), .fallback = "0.1", .min = 0.0001, .max = 0.9,
	  .help = "The last share of watches by started_at is to be found. The model must have been trained with the same share, or it has seen them." },
	{ .name = "k", .type = FLAG_INT, AT(k), .fallback = "50", .min = 1, .max = 100000, .help = "K of Recall@K, NDCG@K and HR@K." },
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, AT(min_pos_completion), .fallback = "0.6", .min = 0, .max = 1,
	  .help = "A watch at least this complete makes its title a positive." },
	{ .name = "oracle", .type = FLAG_STRING, AT(oracle), .placeholder = "FILE",
	  .help = "True chances of synthetic logs, from `recctl synth --oracle`: its ranking is the best possible one." },
	{ .name = "threads", .type = FLAG_INT, AT(threads), .fallback = "0", .min = 0, .max = 1024, .help = "CPU threads. 0: all processors this process may use." },
	{ .name = "json", .type = FLAG_BOOL, AT(json), .help = "Print the results as one JSON object." },
};

static const struct command_spec spec = {
	.name = "evaluate",
	.purpose = "judges a saved model on the last watches of the logs",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "For each user with a title that he watched far enough after the split, and not at all before: all titles are ranked, those watched before\n"
	         "are left out. Recall, NDCG and HR at K, MRR and AUC over the whole list; means over users. Groups: new (no positive before the\n"
	         "split), rare (1 to 9), heavy (10 and more). Titles that nobody had met before the split are not judged.\n"
	         "With --oracle, the share covered is (model - popularity) / (oracle - popularity) in NDCG.",
	.examples = "  recctl evaluate\n"
	            "  recctl evaluate --model_path data/model_bpr.pt --k 20\n"
	            "  recctl evaluate --oracle oracle.pt --json",
};

struct run {
	const struct options *options;
	uint32_t threads;
	const char *model_path;
	char *default_path;
	struct state_rules rules;
	struct model_file model;
	struct split split;
	struct state *state;
	float *mean_user;
	struct judged popularity, ranked, oracle;
	char errstr[512];
};

/* Mean row of the model's users who had positives before the split; for users the model does not know. */
static int find_mean_user(struct run *run)
{
	const struct tables *tables = &run->model.tables;
	uint64_t n = 0;

	run->mean_user = calloc(tables->dim, sizeof(*run->mean_user));
	if (!run->mean_user)
		return -ENOMEM;
	for (uint32_t user = 0; user < tables->n_users; user++) {
		struct user_facts facts;

		state_user_facts(run->state, user, &facts);
		if (!state_positives(run->state, &facts, NULL, 0))
			continue;
		n++;
		for (uint32_t d = 0; d < tables->dim; d++) /* running mean */
			run->mean_user[d] += (tables->U[(size_t)user * tables->dim + d] - run->mean_user[d]) / (float)n;
	}
	return 0;
}

static int read_all(struct run *run)
{
	const struct options *options = run->options;
	struct load_options load = { .data_dir = options->data_dir, .rules = run->rules, .ids_first = &run->model };
	struct load_stats loaded;
	int rc = load_model(run->model_path, &run->model, run->errstr, sizeof(run->errstr));

	if (rc)
		return rc;
	rc = split_find_cut(options->data_dir, options->holdout, &run->split, run->errstr, sizeof(run->errstr));
	if (rc)
		return rc;
	load.before_us = run->split.cut_us;
	rc = load_logs(&load, &run->state, &loaded, run->errstr, sizeof(run->errstr));
	if (!rc)
		load_stats_print(&loaded, options->data_dir, "evaluate");
	if (!rc)
		rc = split_find_relevant(options->data_dir, &run->rules, run->state, &run->split, run->errstr, sizeof(run->errstr));
	if (!rc)
		rc = find_mean_user(run);
	return rc;
}

static int judge_oracle(struct run *run)
{
	struct oracle_scores *oracle;
	int rc = oracle_scores_open(run->options->oracle, run->state, &oracle, run->errstr, sizeof(run->errstr));

	if (rc)
		return rc;
	rc = judge(&run->split, state_n_items(run->state), (uint32_t)run->options->k, oracle_score, oracle, run->threads, "judging the oracle, users",
	           &run->oracle);
	oracle_scores_close(oracle);
	return rc;
}

static int judge_all(struct run *run)
{
	uint32_t n_items = state_n_items(run->state), k = (uint32_t)run->options->k;
	struct model_scores model = { .tables = &run->model.tables, .mean_user = run->mean_user, .n_items = n_items };
	struct popularity_scores popularity;
	int rc = popularity_scores_make(run->state, &popularity);

	if (rc)
		return rc;
	rc = judge(&run->split, n_items, k, popularity_score, &popularity, run->threads, "judging popularity, users", &run->popularity);
	popularity_scores_free(&popularity);
	if (!rc)
		rc = judge(&run->split, n_items, k, model_score, &model, run->threads, "judging the model, users", &run->ranked);
	if (!rc && run->options->oracle)
		rc = judge_oracle(run);
	return rc;
}

/* The name of the model's row in the table. */
static const char *model_name(const struct run *run)
{
	return run->model.kind[0] ? run->model.kind : "model";
}

/* Share of the distance from popularity to the oracle; NaN when there is no distance. */
static double share_covered(const struct run *run)
{
	double distance = run->oracle.all.ndcg - run->popularity.all.ndcg;

	return distance > 0 ? (run->ranked.all.ndcg - run->popularity.all.ndcg) / distance : NAN;
}

static void print_text(const struct run *run)
{
	const struct judged_row rows[3] = { { "popularity", &run->popularity }, { model_name(run), &run->ranked }, { "oracle", &run->oracle } };

	split_print(&run->split, run->options->holdout);
	judged_print(rows, run->options->oracle ? 3 : 2, (uint32_t)run->options->k);
	if (run->options->oracle)
		printf("share of the distance from popularity to the oracle that the model covers: %.1f %% (NDCG@%u)\n", 100 * share_covered(run),
		       (unsigned)run->options->k);
}

static int print_json(const struct run *run)
{
	json_t *metrics = json_pack("{s:I, s:o, s:o}", "k", (json_int_t)run->options->k, "popularity", judged_json(&run->popularity), "model",
	                            judged_json(&run->ranked));
	json_t *answer = json_pack("{s:s, s:s, s:o, s:o}", "model_path", run->model_path, "kind", run->model.kind, "split",
	                           split_json(&run->split, run->options->holdout), "metrics", metrics);
	int rc = -ENOMEM;

	if (run->options->oracle) {
		double share = share_covered(run);

		json_object_set_new(metrics, "oracle", judged_json(&run->oracle));
		json_object_set_new(answer, "share_covered", isfinite(share) ? json_real(share) : json_null());
	}
	if (answer && !json_dumpf(answer, stdout, RENDER_FLAGS)) {
		putchar('\n');
		rc = 0;
	}
	json_decref(answer);
	return rc;
}

int command_evaluate(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	struct run run = { .options = &options };
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	run.threads = options.threads ? (uint32_t)options.threads : parallel_cores();
	run.rules = (struct state_rules){ .min_pos_completion = (float)options.min_pos_completion, .negative_after_us = 1800 * INT64_C(1000000) };
	rc = -ENOMEM;
	if (!options.model_path && asprintf(&run.default_path, "%s/model_bpr_personalized.pt", options.data_dir) < 0)
		run.default_path = NULL;
	run.model_path = options.model_path ? options.model_path : run.default_path;
	if (run.model_path)
		rc = read_all(&run);
	if (!rc)
		rc = judge_all(&run);
	if (!rc && options.json)
		rc = print_json(&run);
	else if (!rc)
		print_text(&run);
	if (rc)
		fprintf(stderr, "recctl evaluate: %s\n", run.errstr[0] ? run.errstr : strerror(-rc));
	state_free(run.state);
	split_free(&run.split);
	model_file_free(&run.model);
	free(run.mean_user);
	free(run.default_path);
	return rc ? EXIT_FAILED : EXIT_OK;
}
