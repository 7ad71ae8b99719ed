/*
 * train.c: `recctl train`: logs in, two models out, and how good they are.
 *
 * Main thread of recctl; the learner and the per-user work use threads of their own. The run in order: find the split, read what comes before it
 * (train_feed.c), train triples with a rate that falls linearly to zero (train_learn.c), fit the mean row and the intercepts, save the global model, fit the
 * personal rows with the item tables frozen, save the personalized model, rank what was held out (train_models.c). The run owns everything in struct train_run
 * and frees it at the end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/recctl/commands.h"
#include "daemon/recctl/parallel.h"
#include "daemon/recctl/plot.h"
#include "daemon/recctl/save_model.h"
#include "daemon/recctl/train.h"
#include "daemon/recctl/train_preset.h"

static const char *const optimizers[] = { [OPTIMIZER_SGD] = "sgd", [OPTIMIZER_ADAGRAD] = "adagrad", NULL };
static const char *const losses[] = { [LOSS_BPR] = "bpr", [LOSS_BCE] = "bce", NULL };
static const char *const orders[] = { [ORDER_SHUFFLED] = "shuffled", [ORDER_GROUPED] = "grouped", NULL };
static const char *const precisions[] = { [PRECISION_FP32] = "fp32", [PRECISION_BF16] = "bf16", NULL };

#define AT(field) .offset = offsetof(struct train_options, field)
static const struct flag flags[] = {
	{ .name = "data_dir", .type = FLAG_STRING, AT(data_dir), .fallback = "data", .placeholder = "DIR",
	  .help = "Folder with watch_stats.jsonl and, when there, items.jsonl, events.jsonl and impressions.jsonl." },
	{ .name = "out_dir", .type = FLAG_STRING, AT(out_dir), .placeholder = "DIR", .help = "Where the models go; made when absent. Default: the data folder; with --train_tsv they are only judged unless a folder is named." },
	{ .name = "preset", .type = FLAG_CHOICE, AT(preset), .fallback = "none", .choices = train_preset_names,
	  .help = "Learning settings and number of passes in one word: fast (seconds), default, quality (three times the passes of default). Flags given beside it win. An "
	          "epoch is then one pass over the positives. none: as the flags say." },
	{ .name = "epochs", .type = FLAG_INT, AT(epochs), .fallback = "5", .min = 1, .max = 1000000, .help = "Epochs; each prints its loss." },
	{ .name = "steps_per_epoch", .type = FLAG_INT, AT(steps_per_epoch), .fallback = "3000", .min = 1, .max = 1e9, .help = "Steps of an epoch." },
	{ .name = "batch_size", .type = FLAG_INT, AT(batch_size), .fallback = "2048", .min = 1, .max = 1 << 20, .help = "Triples (user, positive, negative) of a step." },
	{ .name = "emb_dim", .type = FLAG_INT, AT(emb_dim), .fallback = "64", .min = 1, .max = 512, .help = "Length of the vectors." },
	{ .name = "lr", .type = FLAG_FLOAT, AT(lr), .fallback = "0.02", .min = 0, .max = 100, .help = "Learning rate at the start; it falls linearly to 0." },
	{ .name = "optimizer", .type = FLAG_CHOICE, AT(optimizer), .fallback = "adagrad", .choices = optimizers,
	  .help = "Row-wise Adagrad (one accumulator a row), or plain gradient steps." },
	{ .name = "loss", .type = FLAG_CHOICE, AT(loss), .fallback = "bpr", .choices = losses,
	  .help = "bpr: rank each positive above its negative. bce: predict label 1 for the positive and 0 for the negative, each by itself." },
	{ .name = "samples", .type = FLAG_STRING, AT(samples), .placeholder = "FILE",
	  .help = "With --loss bce: train on the labelled pairs of this file (user_id, item_id, label, ts a line, as in train_samples.jsonl) instead of the histories. Label 1: "
	          "the positives. Label 0: the user's negatives; --skip_share is then their share, 1 when not given." },
	{ .name = "weight_completion", .type = FLAG_FLOAT, AT(weight_completion), .fallback = "0", .min = 0, .max = 10,
	  .help = "Positives weigh completion to this power; their mean weight stays 1. 0: all the same." },
	{ .name = "half_life_days", .type = FLAG_FLOAT, AT(half_life_days), .fallback = "0", .min = 0, .max = 100000,
	  .help = "A positive this much older than another one weighs half. 0: age does not count." },
	{ .name = "order", .type = FLAG_CHOICE, AT(order), .fallback = "shuffled", .choices = orders,
	  .help = "shuffled: positives in random order. grouped: in short runs of one user, which is faster where the tables are larger than the processor's caches." },
	{ .name = "reg", .type = FLAG_FLOAT, AT(reg), .fallback = "0.02", .min = 0, .max = 100, .help = "L2 weight of user and item vectors." },
	{ .name = "reg_user", .type = FLAG_FLOAT, AT(reg_user), .min = 0, .max = 100, .help = "L2 weight of the user's vector. When not given, --reg." },
	{ .name = "reg_pos", .type = FLAG_FLOAT, AT(reg_pos), .min = 0, .max = 100, .help = "L2 weight of the positive item's vector. When not given, --reg." },
	{ .name = "reg_neg", .type = FLAG_FLOAT, AT(reg_neg), .min = 0, .max = 100, .help = "L2 weight of the negative item's vector. When not given, --reg." },
	{ .name = "reg_bias", .type = FLAG_FLOAT, AT(reg_bias), .fallback = "0", .min = 0, .max = 100, .help = "L2 weight of the items' biases." },
	{ .name = "init_scale", .type = FLAG_FLOAT, AT(init_scale), .fallback = "1", .min = 0, .max = 1000,
	  .help = "Rows start as uniform numbers in -0.5..0.5, times this, divided by emb_dim." },
	{ .name = "skip_share", .type = FLAG_FLOAT, AT(skip_share), .fallback = "0", .min = 0, .max = 1,
	  .help = "Share of negatives drawn from the user's skips (shown, not chosen). What the shares leave is uniform over all titles." },
	{ .name = "popular_share", .type = FLAG_FLOAT, AT(popular_share), .fallback = "0", .min = 0, .max = 1,
	  .help = "Share of negatives drawn in proportion to popularity^popular_power." },
	{ .name = "popular_power", .type = FLAG_FLOAT, AT(popular_power), .fallback = "0.5", .min = 0, .max = 2, .help = "See --popular_share; 0 is uniform." },
	{ .name = "hard_share", .type = FLAG_FLOAT, AT(hard_share), .fallback = "1", .min = 0, .max = 1,
	  .help = "Share of negatives that are the highest scored of --hard_of random titles. When not given, it leaves room for the other two; the shares are at most 1 together." },
	{ .name = "hard_of", .type = FLAG_INT, AT(hard_of), .fallback = "2", .min = 1, .max = 64, .help = "See --hard_share." },
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, AT(min_pos_completion), .fallback = "0.6", .min = 0, .max = 1,
	  .help = "A watch at least this complete makes its title a positive." },
	{ .name = "negative_after_sec", .type = FLAG_INT, AT(negative_after_sec), .fallback = "1800", .min = 0, .max = 1e9,
	  .help = "An impression this old without a reaction is a skip." },
	JUDGE_FLAGS(train_options, judge, 0,
	            "The last share of watches by started_at is kept out of training and evaluated. 0: everything is trained on and nothing evaluated."),
	{ .name = "k_eval", .type = FLAG_STRING, AT(k_eval), .fallback = "50", .placeholder = "K[,K...]",
	  .help = "K of Recall@K, NDCG@K, HR@K, coverage and popularity: up to 8 numbers with commas between them. The first one is the table's." },
	{ .name = "early_stop", .type = FLAG_INT, AT(early_stop), .fallback = "0", .min = 0, .max = 1000000, .placeholder = "PATIENCE",
	  .help = "Stop after so many epochs without a better NDCG on a validation slice of the training data, and keep the best epoch. Neither the model nor "
	          "personal rows are trained on the slice. "
	          "0: train all epochs on everything." },
	{ .name = "valid_share", .type = FLAG_FLOAT, AT(valid_share), .fallback = "0.1", .min = 0.0001, .max = 0.5,
	  .help = "With --early_stop: share of the positives in that slice, the last ones by time." },
	{ .name = "plot", .type = FLAG_STRING, AT(plot), .placeholder = "FILE",
	  .help = "Draw the loss and the NDCG of each epoch as an SVG: on the validation slice with --early_stop, else on what is held out." },
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
	{ .name = "backend", .type = FLAG_CHOICE, AT(backend), .fallback = "auto", .choices = train_backends,
	  .help = "What trains and personalizes: auto takes the GPU where there is one, else the processor, and says why; cuda makes a missing GPU an error." },
	{ .name = "precision", .type = FLAG_CHOICE, AT(precision), .fallback = "fp32", .choices = precisions,
	  .help = "How the GPU stores the tables while it trains. bf16 halves them; arithmetic and models stay fp32. The processor always uses fp32." },
	{ .name = "amp", .type = FLAG_BOOL, AT(amp), .help = "Mixed precision: the same as --precision bf16." },
	{ .name = "threads", .type = FLAG_INT, AT(threads), .fallback = "0", .min = 0, .max = 1024, .help = "CPU threads, at most: fewer train while fewer get more done. 0: all processors this process may use." },
	{ .name = "seed", .type = FLAG_UINT64, AT(seed), .fallback = "42", .help = "Of the first rows and of every draw." },
	{ .name = "deterministic", .type = FLAG_BOOL, AT(deterministic),
	  .help = "Synchronous batches: the same files, bit for bit, on every run and with any number of threads. Slower." },
	{ .name = "json", .type = FLAG_BOOL, AT(json), .help = "Print the results as one JSON object; what people read goes to standard error." },
};

const struct command_spec train_spec = {
	.name = "train",
	.purpose = "trains both models on logs and judges them on the last watches",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "BPR (Bayesian Personalized Ranking): score = dot(U[user], V[item]) + bu[user] + bi[item], conf = sigmoid(score).\n"
	         "Writes model_bpr.pt (global: the right one for new and rare users) and model_bpr_personalized.pt (the same item tables, a row of\n"
	         "their own for users with a history). torch.load(path, weights_only=True) reads both.\n"
	         "With a holdout the models have not seen the last watches; use --holdout 0 for a model to serve. What is held out is judged as by\n"
	         "recctl evaluate: full ranking, watched titles left out; popularity and item-kNN stand in the same table.",
	.examples = "  recctl train\n"
	            "  recctl train --preset quality\n"
	            "  recctl train --data_dir data --epochs 5 --steps_per_epoch 3000 --batch_size 2048 --emb_dim 64 --lr 0.02 --k_eval 50 \\\n"
	            "               --personalize_steps 300 --personalize_lr 0.05\n"
	            "  recctl train --holdout 0 --out_dir models\n"
	            "  recctl train --epochs 50 --steps_per_epoch 300 --early_stop 5 --plot curve.svg\n"
	            "  recctl train --loss bce --samples data/train_samples.jsonl\n"
	            "  recctl train --train_tsv train.tsv --test_tsv test.tsv --k_eval 20",
};

/* Before training: an hour of work must not end at a folder or a file that cannot take it. */
static int open_outputs(struct train_run *run)
{
	int rc = 0;

	if (run->out_dir) {
		run->dir_fd = save_open_dir(run->out_dir, run->errstr, sizeof(run->errstr));
		if (run->dir_fd < 0)
			return run->dir_fd;
		rc = save_check(run->dir_fd, TRAIN_FILE_GLOBAL, run->errstr, sizeof(run->errstr));
		if (!rc)
			rc = save_check(run->dir_fd, TRAIN_FILE_PERSONALIZED, run->errstr, sizeof(run->errstr));
	}
	if (!rc && run->options->plot)
		rc = plot_check(run->options->plot, run->errstr, sizeof(run->errstr));
	return rc;
}

/* The validation slice, before the learner is made. */
static int cut_slice(struct train_run *run)
{
	const struct train_options *options = run->options;

	if (!options->early_stop)
		return 0;
	int rc = validation_cut(run->state, options->valid_share, options->seed, &run->validation);
	if (rc == -ENODATA)
		snprintf(run->errstr, sizeof(run->errstr), "no positives to spare for a validation slice: nobody has two; leave --early_stop out");
	return rc;
}

static int train_and_save(struct train_run *run)
{
	const struct train_options *options = run->options;
	int rc = judge_load(&options->judge, &run->plan, options->data_dir, &run->rules, NULL, "train", &run->state, &run->loaded, &run->split, run->errstr,
	                    sizeof(run->errstr));

	if (!rc)
		rc = open_outputs(run);
	if (!rc)
		rc = cut_slice(run);
	if (!rc && options->samples)
		rc = samples_read(options->samples, run->state, run->judges && !run->plan.files ? &run->split : NULL, &run->samples, run->errstr,
		                  sizeof(run->errstr));
	if (!rc)
		rc = train_make_learner(run);
	if (!rc) {
		size_t n_candidates;
		(void)learner_candidates(run->learner, &n_candidates);
		run->n_candidates = n_candidates;
		train_report_begin(run);
		rc = train_all(run);
	}
	if (!rc)
		rc = train_finish_global(run);
	if (!rc && options->personalize_steps)
		rc = train_finish_personalized(run);
	if (!rc && run->judges)
		rc = train_evaluate(run);
	if (rc == -ENOMEM && !run->errstr[0])
		snprintf(run->errstr, sizeof(run->errstr), "out of memory");
	return rc;
}

static void run_free(struct train_run *run)
{
	learner_free(run->learner);
	state_free(run->state);
	split_free(&run->split);
	validation_free(&run->validation);
	samples_free(&run->samples);
	baselines_free(&run->baselines);
	tables_free(&run->tables);
	tables_free(&run->best);
	free(run->skip_offsets);
	free(run->skip_items);
	free(run->personal_U);
	free(run->personal_bu);
	free(run->epochs);
	if (run->dir_fd >= 0)
		close(run->dir_fd);
}

/* Settings that pairs without times and impressions leave without effect. */
static const char *pairs_fault(const struct train_options *options, const struct flag_words *words)
{
	if (!options->judge.train_tsv)
		return NULL;
	if (flags_given(&train_spec, words, "data_dir"))
		return "--data_dir does not go with --train_tsv: there are pairs instead of logs; --out_dir says where the models go";
	if (options->weight_completion > 0)
		return "--weight_completion does not go with --train_tsv: a pair has no completion";
	if (options->half_life_days > 0 && !options->samples)
		return "--half_life_days does not go with --train_tsv: a pair has no time";
	if (options->skip_share > 0 && !options->samples)
		return "--skip_share does not go with --train_tsv: pairs come without impressions, so there are no skips";
	return NULL;
}

/* What is wrong with flags that are each right by themselves, or would change nothing; NULL: nothing. */
static const char *flags_fault(const struct train_options *options, const struct flag_words *words)
{
	const char *fault = judge_flags_fault(&options->judge, &train_spec, words);

	if (options->samples && options->loss != LOSS_BCE)
		return "--samples goes with --loss bce: a label is not a ranking";
	if (options->samples && options->weight_completion > 0)
		return "--weight_completion does not go with --samples: a sample has no completion";
	if (flags_given(&train_spec, words, "valid_share") && !options->early_stop)
		return "--valid_share is the share of the slice that --early_stop cuts; without that there is none";
	if (flags_given(&train_spec, words, "popular_power") && !(options->popular_share > 0))
		return "--popular_power is the power of --popular_share; without that it changes nothing";
	return fault ? fault : pairs_fault(options, words);
}

/* Fills in what follows from the flags, and checks all of it before anything is read. -1 to go on, or an exit code. */
static int settle(struct train_run *run, const struct flag_words *words)
{
	struct train_options *options = run->options;
	const char *fault = flags_fault(options, words);

	if (!fault) {
		train_preset_settings(&train_spec, words, options);
		if (options->amp)
			options->precision = PRECISION_BF16;
		run->threads = options->threads ? (uint32_t)options->threads : parallel_cores();
		const struct learn_options learn = train_learn_options(run);
		fault = learn_options_fault(&learn);
	}
	if (!fault && judge_plan_make(&options->judge, "k_eval", options->k_eval, run->threads, &run->plan, run->errstr, sizeof(run->errstr)))
		fault = run->errstr;
	if (fault) {
		fprintf(stderr, "recctl train: %s\n", fault);
		return EXIT_USAGE;
	}
	run->judges = run->plan.files || run->plan.split.share > 0 || run->plan.split.last_n;
	run->out = options->json ? stderr : stdout;
	run->out_dir = options->out_dir || run->plan.files ? options->out_dir : options->data_dir;
	run->rules = (struct state_rules){ .min_pos_completion = (float)options->min_pos_completion, .negative_after_us = options->negative_after_sec * 1000000 };
	return -1;
}

int command_train(int argc, char **argv)
{
	struct train_options options;
	struct flag_words words;
	struct train_run run = { .options = &options, .dir_fd = -1 };
	int rc = flags_main(&train_spec, argc, argv, &options, &words);

	if (rc < 0)
		rc = settle(&run, &words);
	if (rc >= 0)
		return rc;
	rc = train_and_save(&run);
	if (!rc) {
		train_report_end(&run);
		if (options.json)
			rc = train_report_json(&run);
		if (!rc && options.plot)
			rc = train_report_plot(&run);
	}
	if (rc)
		fprintf(stderr, "recctl train: %s\n", run.errstr[0] ? run.errstr : strerror(-rc));
	run_free(&run);
	return rc ? EXIT_FAILED : EXIT_OK;
}
