/*
 * evaluate.c: `recctl evaluate`: a saved model against what was held out, beside popularity, item-kNN and, for synthetic logs, the oracle.
 *
 * Main thread of recctl. The model's users and items get the first indexes of the state, so its tables serve as they are. Full ranking; watched titles
 * are masked. The split is the one that `recctl train` makes with the same flags.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/commands.h"
#include "daemon/recctl/evaluate_flags.h"
#include "daemon/recctl/fit.h"
#include "daemon/recctl/parallel.h"
#include "daemon/render.h"

struct options {
	const char *data_dir, *model_path, *oracle;
	const char *k;
	double min_pos_completion;
	int64_t threads, negative_after_sec;
	int json;
	struct judge_flags judge;
};

#define AT(field) .offset = offsetof(struct options, field)
static const struct flag flags[] = {
	{ .name = "data_dir", .type = FLAG_STRING, AT(data_dir), .fallback = "data", .placeholder = "DIR", .help = "Folder with the logs." },
	{ .name = "model_path", .type = FLAG_STRING, AT(model_path), .placeholder = "FILE",
	  .help = "The model, a .pt file. Default: model_bpr_personalized.pt in the data folder." },
	JUDGE_FLAGS(options, judge, 0.0001,
	            "The last share of watches by started_at is to be found. The model must have been trained with the same share, or it has seen them."),
	{ .name = "k", .type = FLAG_STRING, AT(k), .fallback = "50", .placeholder = "K[,K...]",
	  .help = "K of Recall@K, NDCG@K, HR@K, coverage and popularity: up to 8 numbers with commas between them. The first one is the table's." },
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, AT(min_pos_completion), .fallback = "0.6", .min = 0, .max = 1,
	  .help = "A watch at least this complete makes its title a positive." },
	{ .name = "negative_after_sec", .type = FLAG_INT, AT(negative_after_sec), .fallback = "1800", .min = 0, .max = 1e9,
	  .help = "An impression this old without a reaction is a skip: what conf is compared with." },
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
	         "are left out. Recall, NDCG and HR at K, MRR and AUC over the whole list; means over users, with 95 % intervals. Coverage: share of all titles\n"
	         "that anybody gets in the first K; popularity: mean popularity percentile of the first K. Groups: new (no positive before the\n"
	         "split), rare (1 to 9), heavy (10 and more). Titles that nobody had met before the split are not judged, but in two files of pairs,\n"
	         "where they rank last. docs/EVALUATION.md has every definition.\n"
	         "With --oracle, the share covered is (model - popularity) / (oracle - popularity) in NDCG.",
	.examples = "  recctl evaluate\n"
	            "  recctl evaluate --model_path data/model_bpr.pt --k 20,50,100\n"
	            "  recctl evaluate --split user --test_last 2\n"
	            "  recctl evaluate --model_path models/model_bpr.pt --train_tsv train.tsv --test_tsv test.tsv --k 20\n"
	            "  recctl evaluate --oracle oracle.pt --json",
};

struct run {
	const struct options *options;
	const char *model_path;
	char *default_path;
	struct state_rules rules;
	struct model_file model;
	struct split split;
	struct state *state;
	float *mean_user;
	struct judge_plan plan;
	struct baselines baselines;
	struct judged ranked, oracle;
	struct calibration calibration;
	char errstr[512];
};

static int read_all(struct run *run)
{
	const struct options *options = run->options;
	struct load_stats loaded;
	int rc = load_model(run->model_path, &run->model, run->errstr, sizeof(run->errstr));

	if (!rc)
		rc = judge_load(&options->judge, &run->plan, options->data_dir, &run->rules, &run->model, "evaluate", &run->state, &loaded, &run->split,
		                run->errstr, sizeof(run->errstr));
	if (rc)
		return rc;
	run->mean_user = calloc(run->model.tables.dim, sizeof(*run->mean_user));
	if (!run->mean_user)
		return -ENOMEM;
	model_mean_user(run->state, &run->model.tables, run->mean_user);
	return 0;
}

static int judge_oracle(struct run *run)
{
	struct oracle_scores *oracle;
	int rc = oracle_scores_open(run->options->oracle, run->state, &oracle, run->errstr, sizeof(run->errstr));

	if (rc)
		return rc;
	rc = judge(&run->split, &run->plan.judge, oracle_score, oracle, "judging the oracle, users", &run->oracle);
	oracle_scores_close(oracle);
	return rc;
}

static int judge_all(struct run *run)
{
	int rc = judge_baselines(&run->options->judge, run->state, &run->split, &run->plan, &run->baselines);
	struct model_scores model = { .tables = &run->model.tables, .mean_user = run->mean_user, .n_items = run->plan.judge.n_items };

	if (!rc)
		rc = judge(&run->split, &run->plan.judge, model_score, &model, "judging the model, users", &run->ranked);
	if (!rc)
		rc = fit_calibration_held_out(&run->model.tables, &run->split, &run->calibration);
	if (!rc && run->options->oracle)
		rc = judge_oracle(run);
	return rc;
}

static double ndcg_of(const struct judged *judged)
{
	return judged->figures[GROUP_COUNT][rank_column(0, RANK_NDCG)].mean;
}

/* The name of the model's row in the table. */
static const char *model_name(const struct run *run)
{
	return run->model.kind[0] ? run->model.kind : "model";
}

/* Share of the distance from popularity to the oracle; NaN when there is no distance. */
static double share_covered(const struct run *run)
{
	double distance = ndcg_of(&run->oracle) - ndcg_of(&run->baselines.popularity);

	return distance > 0 ? (ndcg_of(&run->ranked) - ndcg_of(&run->baselines.popularity)) / distance : NAN;
}

static void print_text(const struct run *run)
{
	struct judged_row rows[4];
	size_t n = 0;

	rows[n++] = (struct judged_row){ "popularity", &run->baselines.popularity };
	if (run->baselines.has_knn)
		rows[n++] = (struct judged_row){ "item-kNN", &run->baselines.knn };
	rows[n++] = (struct judged_row){ model_name(run), &run->ranked };
	if (run->options->oracle)
		rows[n++] = (struct judged_row){ "oracle", &run->oracle };
	split_print(&run->split, &run->plan.split);
	judged_print(rows, n, &run->plan.judge);
	if (run->calibration.decided)
		calibration_print(stdout, "  conf on held-out impressions", &run->calibration);
	if (run->options->oracle) {
		double share = share_covered(run);
		char text[32] = "-";

		if (isfinite(share))
			snprintf(text, sizeof(text), "%.1f %%", 100 * share);
		printf("share of the distance from popularity to the oracle that the model covers: %s (NDCG@%u)\n", text, (unsigned)run->plan.judge.ks[0]);
	}
}

static int print_json(const struct run *run)
{
	const struct judge_options *judge = &run->plan.judge;
	json_t *metrics = json_pack("{s:I, s:o}", "k", (json_int_t)judge->ks[0], "popularity", judged_json(&run->baselines.popularity, judge));
	json_t *answer = json_pack("{s:s, s:s, s:o, s:o, s:o}", "model_path", run->model_path, "kind", run->model.kind, "split",
	                           split_json(&run->split, &run->plan.split), "calibration", calibration_json(&run->calibration), "metrics", metrics);
	int rc = -ENOMEM;

	if (run->baselines.has_knn)
		json_object_set_new(metrics, "item_knn", judged_json(&run->baselines.knn, judge));
	json_object_set_new(metrics, "model", judged_json(&run->ranked, judge));
	if (run->options->oracle) {
		double share = share_covered(run);

		json_object_set_new(metrics, "oracle", judged_json(&run->oracle, judge));
		json_object_set_new(answer, "share_covered", isfinite(share) ? json_real(share) : json_null());
	}
	if (answer && !json_dumpf(answer, stdout, RENDER_FLAGS)) {
		putchar('\n');
		rc = 0;
	}
	json_decref(answer);
	return rc;
}

/* What is wrong with flags that are each right by themselves; NULL: nothing. */
static const char *flags_fault(const struct options *options, const struct flag_words *words)
{
	if (options->oracle && options->judge.train_tsv)
		return "--oracle does not go with --train_tsv: it knows the titles and users of the synthetic logs that it was made with";
	return judge_flags_fault(&options->judge, &spec, words);
}

int command_evaluate(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	struct run run = { .options = &options };
	int rc = flags_main(&spec, argc, argv, &options, &words);
	const char *fault = rc < 0 ? flags_fault(&options, &words) : NULL;

	if (fault) {
		fprintf(stderr, "recctl evaluate: %s\n", fault);
		return EXIT_USAGE;
	}
	if (rc >= 0)
		return rc;
	if (judge_plan_make(&options.judge, "k", options.k, options.threads ? (uint32_t)options.threads : parallel_cores(), &run.plan, run.errstr,
	                    sizeof(run.errstr))) {
		fprintf(stderr, "recctl evaluate: %s\n", run.errstr);
		return EXIT_USAGE;
	}
	run.rules = (struct state_rules){ .min_pos_completion = (float)options.min_pos_completion, .negative_after_us = options.negative_after_sec * 1000000 };
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
	baselines_free(&run.baselines);
	state_free(run.state);
	split_free(&run.split);
	model_file_free(&run.model);
	free(run.mean_user);
	free(run.default_path);
	return rc ? EXIT_FAILED : EXIT_OK;
}
