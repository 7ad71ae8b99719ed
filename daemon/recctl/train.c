/*
 * train.c: `recctl train`: logs in, two models out, and how good they are.
 *
 * Main thread of recctl; the learner and the per-user work use threads of their own. The run in order: find the time split, read the logs up to it, train
 * ranking triples with a rate that falls linearly to zero, fit the mean row and the intercepts, save the global model, fit the personal rows with the item
 * tables frozen, save the personalized model, rank the held-out watches. The run owns everything in struct train_run and frees it at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/parallel.h"
#include "daemon/recctl/progress.h"
#include "daemon/recctl/save_model.h"
#include "daemon/recctl/train.h"

#define RATE_STEPS 200u /* the learning rate is lowered this many times; jobs are long enough for many threads */

static const char *const optimizers[] = { [OPTIMIZER_SGD] = "sgd", [OPTIMIZER_ADAGRAD] = "adagrad", NULL };

#define AT(field) .offset = offsetof(struct train_options, field)
static const struct flag flags[] = {
	{ .name = "data_dir", .type = FLAG_STRING, AT(data_dir), .fallback = "data", .placeholder = "DIR",
	  .help = "Folder with watch_stats.jsonl and, when there, items.jsonl, events.jsonl and impressions.jsonl." },
	{ .name = "out_dir", .type = FLAG_STRING, AT(out_dir), .placeholder = "DIR", .help = "Where the models go; made when absent. Default: the data folder." },
	{ .name = "epochs", .type = FLAG_INT, AT(epochs), .fallback = "5", .min = 1, .max = 1000000, .help = "Epochs; each prints its loss." },
	{ .name = "steps_per_epoch", .type = FLAG_INT, AT(steps_per_epoch), .fallback = "3000", .min = 1, .max = 1e9, .help = "Steps of an epoch." },
	{ .name = "batch_size", .type = FLAG_INT, AT(batch_size), .fallback = "2048", .min = 1, .max = 1 << 20, .help = "Triples (user, positive, negative) of a step." },
	{ .name = "emb_dim", .type = FLAG_INT, AT(emb_dim), .fallback = "64", .min = 1, .max = 512, .help = "Length of the vectors." },
	{ .name = "lr", .type = FLAG_FLOAT, AT(lr), .fallback = "0.02", .min = 0, .max = 100, .help = "Learning rate at the start; it falls linearly to 0." },
	{ .name = "optimizer", .type = FLAG_CHOICE, AT(optimizer), .fallback = "adagrad", .choices = optimizers,
	  .help = "Row-wise Adagrad (one accumulator a row), or plain gradient steps." },
	{ .name = "reg", .type = FLAG_FLOAT, AT(reg), .fallback = "0.01", .min = 0, .max = 100, .help = "L2 weight of user and item vectors." },
	{ .name = "reg_bias", .type = FLAG_FLOAT, AT(reg_bias), .fallback = "0", .min = 0, .max = 100, .help = "L2 weight of the items' biases." },
	{ .name = "init_scale", .type = FLAG_FLOAT, AT(init_scale), .fallback = "1", .min = 0, .max = 1000,
	  .help = "Rows start as uniform numbers in -0.5..0.5, times this, divided by emb_dim." },
	{ .name = "skip_share", .type = FLAG_FLOAT, AT(skip_share), .fallback = "0", .min = 0, .max = 1,
	  .help = "Share of negatives drawn from the user's skips (shown, not chosen); the rest is uniform over all titles." },
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, AT(min_pos_completion), .fallback = "0.6", .min = 0, .max = 1,
	  .help = "A watch at least this complete makes its title a positive." },
	{ .name = "negative_after_sec", .type = FLAG_INT, AT(negative_after_sec), .fallback = "1800", .min = 0, .max = 1e9,
	  .help = "An impression this old without a reaction is a skip." },
	{ .name = "holdout", .type = FLAG_FLOAT, AT(holdout), .fallback = "0.1", .min = 0, .max = 0.9,
	  .help = "The last share of watches by started_at is kept out of training and evaluated. 0: everything is trained on and nothing evaluated." },
	{ .name = "k_eval", .type = FLAG_INT, AT(k_eval), .fallback = "50", .min = 1, .max = 100000, .help = "K of Recall@K, NDCG@K and HR@K." },
	{ .name = "personalize_steps", .type = FLAG_INT, AT(personalize_steps), .fallback = "300", .min = 0, .max = 1000000,
	  .help = "Gradient steps of each user's own row. 0: only the global model is made." },
	{ .name = "personalize_lr", .type = FLAG_FLOAT, AT(personalize_lr), .fallback = "0.05", .min = 0, .max = 100,
	  .help = "Learning rate of those steps at their start; it falls linearly to 0." },
	{ .name = "personalize_batch", .type = FLAG_INT, AT(personalize_batch), .fallback = "32", .min = 1, .max = 65536, .help = "The user's triples a step." },
	/* stronger than recd's: here every row starts from a global row that was trained on the same history, and drifts from it more than it gains */
	{ .name = "personalize_reg", .type = FLAG_FLOAT, AT(personalize_reg), .fallback = "0.1", .min = 0, .max = 100,
	  .help = "L2 weight of the distance between the personal and the global row." },
	{ .name = "personalize_min_positives", .type = FLAG_INT, AT(personalize_min_positives), .fallback = "3", .min = 1, .max = 1000000,
	  .help = "Users with fewer positives keep the global row." },
	{ .name = "threads", .type = FLAG_INT, AT(threads), .fallback = "0", .min = 0, .max = 1024, .help = "CPU threads. 0: all processors this process may use." },
	{ .name = "seed", .type = FLAG_UINT64, AT(seed), .fallback = "42", .help = "Of the first rows and of every draw." },
	{ .name = "deterministic", .type = FLAG_BOOL, AT(deterministic),
	  .help = "Synchronous batches: the same files, bit for bit, on every run and with any number of threads. Slower." },
	{ .name = "json", .type = FLAG_BOOL, AT(json), .help = "Print the results as one JSON object; what people read goes to standard error." },
};

static const struct command_spec spec = {
	.name = "train",
	.purpose = "trains both models on logs and judges them on the last watches",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "BPR (Bayesian Personalized Ranking): score = dot(U[user], V[item]) + bu[user] + bi[item], conf = sigmoid(score).\n"
	         "Writes model_bpr.pt (global: the right one for new and rare users) and model_bpr_personalized.pt (the same item tables, a row of\n"
	         "their own for users with a history). torch.load(path, weights_only=True) reads both.\n"
	         "With a holdout the models have not seen the last watches; use --holdout 0 for a model to serve.",
	.examples = "  recctl train\n"
	            "  recctl train --data_dir data --epochs 5 --steps_per_epoch 3000 --batch_size 2048 --emb_dim 64 --lr 0.02 --k_eval 50 \\\n"
	            "               --personalize_steps 300 --personalize_lr 0.05\n"
	            "  recctl train --holdout 0 --out_dir models",
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* ---- reading ---- */

static int read_logs(struct train_run *run)
{
	const struct train_options *options = run->options;
	struct load_options load = { .data_dir = options->data_dir, .rules = run->rules, .before_us = INT64_MAX };
	int rc = 0;

	if (options->holdout > 0) {
		rc = split_find_cut(options->data_dir, options->holdout, &run->split, run->errstr, sizeof(run->errstr));
		load.before_us = run->split.cut_us;
	}
	if (!rc)
		rc = load_logs(&load, &run->state, &run->loaded, run->errstr, sizeof(run->errstr));
	if (!rc)
		load_stats_print(&run->loaded, options->data_dir, "train");
	if (!rc && options->holdout > 0)
		rc = split_find_relevant(options->data_dir, &run->rules, run->state, &run->split, run->errstr, sizeof(run->errstr));
	return rc;
}

/* Pairs on their way to the learner. */
struct pairs {
	struct learner *learner;
	struct user_item buffer[1024];
	size_t n;
	int rc;
};

static void flush_pairs(struct pairs *pairs)
{
	if (!pairs->rc)
		pairs->rc = learner_add_positives(pairs->learner, pairs->buffer, pairs->n, 0);
	pairs->n = 0;
}

static void emit_pair(void *ctx, uint32_t user, uint32_t item)
{
	struct pairs *pairs = ctx;

	pairs->buffer[pairs->n++] = (struct user_item){ user, item };
	if (pairs->n == sizeof(pairs->buffer) / sizeof(pairs->buffer[0]))
		flush_pairs(pairs);
}

/* Skips for the sampler; any training thread. */
static size_t list_skips(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	struct decided_impression decided[LOAD_IMPRESSIONS_MAX];
	struct user_facts facts;
	size_t n_skips = 0;

	state_user_facts(ctx, user, &facts);
	size_t n = state_decided(ctx, &facts, decided, LOAD_IMPRESSIONS_MAX);
	if (n > LOAD_IMPRESSIONS_MAX)
		n = LOAD_IMPRESSIONS_MAX;
	for (size_t i = 0; i < n && n_skips < max; i++) {
		if (!decided[i].label)
			ret_items[n_skips++] = decided[i].item;
	}
	return n_skips;
}

static int make_learner(struct train_run *run)
{
	const struct train_options *options = run->options;
	struct pairs *pairs = calloc(1, sizeof(*pairs));
	struct state_changes changes;
	struct learn_options learn;

	if (!pairs)
		return -ENOMEM;
	learn_options_default(&learn);
	learn.emb_dim = (uint32_t)options->emb_dim;
	learn.seed = options->seed;
	learn.threads = run->threads;
	learn.deterministic = options->deterministic;
	learn.batch_size = (uint32_t)options->batch_size;
	learn.optimizer = options->optimizer;
	learn.learning_rate = (float)options->lr;
	learn.reg_user = learn.reg_pos = learn.reg_neg = (float)options->reg;
	learn.reg_bias = (float)options->reg_bias;
	learn.adagrad_forget = 0; /* a file has an end: the rate falls instead */
	learn.init_scale = (float)options->init_scale;
	learn.skip_share = (float)options->skip_share;
	int rc = learner_new(&learn, &backend_cpu, &run->learner, run->errstr, sizeof(run->errstr));
	if (rc)
		goto out;
	rc = learner_grow(run->learner, state_n_users(run->state), state_n_items(run->state), state_user_ids(run->state), state_item_ids(run->state));
	if (!rc) {
		state_changes_get(run->state, &changes);
		rc = learner_add_candidates(run->learner, changes.candidates, changes.n_candidates);
	}
	if (!rc) {
		pairs->learner = run->learner;
		state_for_each_positive(run->state, emit_pair, pairs);
		flush_pairs(pairs);
		rc = pairs->rc;
	}
	if (rc)
		snprintf(run->errstr, sizeof(run->errstr), "out of memory");
	run->skips = (struct skip_source){ list_skips, run->state };
	if (!rc && options->skip_share > 0)
		learner_set_skips(run->learner, &run->skips);
out:
	free(pairs);
	return rc;
}

/* ---- training ---- */

/* Trains `n_steps` from step `done` of `total` on; the rate falls between jobs. */
static int train_epoch(struct train_run *run, uint64_t done, uint64_t n_steps, uint64_t total, struct train_epoch *ret_epoch, struct progress *progress)
{
	const struct train_options *options = run->options;
	uint64_t per_job = total / RATE_STEPS + 1, batch = (uint64_t)options->batch_size;
	struct train_epoch epoch = { .rate_begin = options->lr * (double)(total - done) / (double)total,
		               .rate_end = options->lr * (double)(total - done - n_steps) / (double)total };
	double loss_sum = 0, loss_weight = 0;

	for (uint64_t step = 0; step < n_steps;) {
		uint64_t n = n_steps - step < per_job ? n_steps - step : per_job;
		struct train_job job = { .triples_max = n * batch, .learning_rate = (float)(options->lr * (double)(total - done - step) / (double)total) };
		struct train_report report;
		double begin = now_s();
		int rc = learner_train(run->learner, &job, &report);

		if (!rc)
			rc = learner_wait(run->learner, &report);
		epoch.seconds += now_s() - begin;
		if (rc || report.nonfinite) {
			snprintf(run->errstr, sizeof(run->errstr), rc ? "training failed: %s" : "training diverged (a parameter is not finite%s); lower --lr",
			         rc ? strerror(-rc) : "");
			return rc ? rc : -ERANGE;
		}
		epoch.triples += report.triples;
		run->rejected += report.rejected;
		if (isfinite(report.loss)) {
			loss_sum += report.loss * (double)report.triples;
			loss_weight += (double)report.triples;
		}
		step += n;
		progress_update(progress, (done + step) * batch);
	}
	epoch.loss = loss_weight > 0 ? loss_sum / loss_weight : NAN;
	*ret_epoch = epoch;
	return 0;
}

static int train_all(struct train_run *run)
{
	const struct train_options *options = run->options;
	uint64_t per_epoch = (uint64_t)options->steps_per_epoch, total = per_epoch * (uint64_t)options->epochs;
	struct progress progress;
	int rc = 0;

	if (!run->n_positives) {
		snprintf(run->errstr, sizeof(run->errstr), "no positives: no watch before the split reaches --min_pos_completion %g", options->min_pos_completion);
		return -ENODATA;
	}
	run->epochs = calloc((size_t)options->epochs, sizeof(*run->epochs));
	if (!run->epochs)
		return -ENOMEM;
	for (int64_t e = 0; e < options->epochs; e++) {
		progress_begin(&progress, "training, triples", total * (uint64_t)options->batch_size);
		rc = train_epoch(run, (uint64_t)e * per_epoch, per_epoch, total, &run->epochs[e], &progress);
		progress_end(&progress);
		if (rc)
			return rc;
		run->triples += run->epochs[e].triples;
		run->train_seconds += run->epochs[e].seconds;
		train_report_epoch(run, e);
	}
	rc = learner_pull(run->learner, &run->tables);
	if (rc)
		snprintf(run->errstr, sizeof(run->errstr), rc == -ERANGE ? "training diverged (a parameter is not finite); lower --lr" : "out of memory");
	return rc;
}

/* ---- the two models ---- */

static int finish_global(struct train_run *run)
{
	struct tables *tables = &run->tables;

	run->fit = (struct fit){ .state = run->state, .threads = run->threads };
	run->mean_user = calloc(tables->dim, sizeof(*run->mean_user));
	if (!run->mean_user)
		return -ENOMEM;
	fit_mean_user(&run->fit, tables, run->mean_user);
	int rc = fit_global_intercept(&run->fit, tables);
	if (!rc)
		rc = fit_intercepts(&run->fit, tables, tables->U, tables->bu, "intercepts, users");
	if (rc)
		return rc;
	run->calibration = fit_calibration(&run->fit, tables, tables->U, tables->bu);
	return save_model(run->dir_fd, TRAIN_FILE_GLOBAL, tables, state_user_ids(run->state), state_item_ids(run->state), "global", run->errstr,
	                  sizeof(run->errstr));
}

static int finish_personalized(struct train_run *run)
{
	const struct train_options *options = run->options;
	const struct tables *tables = &run->tables;
	struct personalize_options personalize;
	size_t n_candidates, n_users = tables->n_users;
	const uint32_t *candidates = learner_candidates(run->learner, &n_candidates);
	double begin = now_s();

	personalize_options_default(&personalize);
	personalize.steps = (uint32_t)options->personalize_steps;
	personalize.batch = (uint32_t)options->personalize_batch;
	personalize.learning_rate = (float)options->personalize_lr;
	personalize.reg = (float)options->personalize_reg;
	personalize.seed = options->seed;
	run->personal_U = malloc((n_users * tables->dim + 1) * sizeof(float));
	run->personal_bu = malloc((n_users + 1) * sizeof(float));
	if (!run->personal_U || !run->personal_bu)
		return -ENOMEM;
	run->hash_before = fit_item_hash(tables);
	int rc = fit_personal_rows(&run->fit, tables, candidates, n_candidates, (uint32_t)options->personalize_min_positives, &personalize, run->personal_U,
	                           &run->fitted);
	if (!rc)
		rc = fit_intercepts(&run->fit, tables, run->personal_U, run->personal_bu, "personal intercepts, users");
	run->hash_after = fit_item_hash(tables);
	run->personalize_seconds = now_s() - begin;
	if (rc)
		return rc;
	if (run->hash_before != run->hash_after) {
		snprintf(run->errstr, sizeof(run->errstr), "personalization changed the item tables; %s was not written", TRAIN_FILE_PERSONALIZED);
		return -EIO;
	}
	run->personal_calibration = fit_calibration(&run->fit, tables, run->personal_U, run->personal_bu);
	struct tables personal = *tables; /* the same V and bi */
	personal.U = run->personal_U;
	personal.bu = run->personal_bu;
	return save_model(run->dir_fd, TRAIN_FILE_PERSONALIZED, &personal, state_user_ids(run->state), state_item_ids(run->state), "personalized", run->errstr,
	                  sizeof(run->errstr));
}

static int evaluate_all(struct train_run *run)
{
	struct popularity_scores popularity;
	uint32_t n_items = state_n_items(run->state), k = (uint32_t)run->options->k_eval;
	struct model_scores model = { .tables = &run->tables, .mean_user = run->mean_user, .n_items = n_items };
	int rc = popularity_scores_make(run->state, &popularity);

	if (rc)
		return rc;
	rc = judge(&run->split, n_items, k, popularity_score, &popularity, run->threads, "judging popularity, users", &run->popularity);
	if (!rc)
		rc = judge(&run->split, n_items, k, model_score, &model, run->threads, "judging the global model, users", &run->global);
	if (!rc && run->personal_U) {
		struct tables personal = run->tables;

		personal.U = run->personal_U;
		model.tables = &personal;
		rc = judge(&run->split, n_items, k, model_score, &model, run->threads, "judging the personalized model, users", &run->personalized);
	}
	popularity_scores_free(&popularity);
	return rc;
}

/* Before training: an hour of work must not end at a folder that cannot take it. */
static int open_out_dir(struct train_run *run)
{
	run->dir_fd = save_open_dir(run->out_dir, run->errstr, sizeof(run->errstr));
	if (run->dir_fd < 0)
		return run->dir_fd;
	int rc = save_check(run->dir_fd, TRAIN_FILE_GLOBAL, run->errstr, sizeof(run->errstr));
	if (!rc)
		rc = save_check(run->dir_fd, TRAIN_FILE_PERSONALIZED, run->errstr, sizeof(run->errstr));
	return rc;
}

static int train_and_save(struct train_run *run)
{
	int rc = read_logs(run);

	if (!rc)
		rc = open_out_dir(run);
	if (!rc)
		rc = make_learner(run);
	if (!rc) {
		run->n_positives = learner_n_positives(run->learner);
		size_t n_candidates;
		(void)learner_candidates(run->learner, &n_candidates);
		run->n_candidates = n_candidates;
		train_report_begin(run);
		rc = train_all(run);
	}
	if (!rc)
		rc = finish_global(run);
	if (!rc && run->options->personalize_steps)
		rc = finish_personalized(run);
	if (!rc && run->options->holdout > 0)
		rc = evaluate_all(run);
	if (rc == -ENOMEM && !run->errstr[0])
		snprintf(run->errstr, sizeof(run->errstr), "out of memory");
	return rc;
}

static void run_free(struct train_run *run)
{
	learner_free(run->learner);
	state_free(run->state);
	split_free(&run->split);
	tables_free(&run->tables);
	free(run->mean_user);
	free(run->personal_U);
	free(run->personal_bu);
	free(run->epochs);
	if (run->dir_fd >= 0)
		close(run->dir_fd);
}

int command_train(int argc, char **argv)
{
	struct train_options options;
	struct flag_words words;
	struct train_run run = { .options = &options, .dir_fd = -1 };
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	run.out = options.json ? stderr : stdout;
	run.threads = options.threads ? (uint32_t)options.threads : parallel_cores();
	run.out_dir = options.out_dir ? options.out_dir : options.data_dir;
	run.rules = (struct state_rules){ .min_pos_completion = (float)options.min_pos_completion, .negative_after_us = options.negative_after_sec * 1000000 };
	rc = train_and_save(&run);
	if (!rc) {
		train_report_end(&run);
		if (options.json)
			rc = train_report_json(&run);
	}
	if (rc)
		fprintf(stderr, "recctl train: %s\n", run.errstr[0] ? run.errstr : strerror(-rc));
	run_free(&run);
	return rc ? EXIT_FAILED : EXIT_OK;
}
