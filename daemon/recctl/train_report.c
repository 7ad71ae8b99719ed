/*
 * train_report.c: what `recctl train` tells: lines for people, one object for machines. Main thread of recctl; reads the run, changes nothing.
 */
#include "daemon/recctl/train.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/plot.h"
#include "daemon/recctl/table.h"
#include "daemon/render.h"

static void report_samples(const struct train_run *run)
{
	const struct samples *s = &run->samples;
	char lines[32], positives[32], negatives[32];

	text_count(s->lines, lines);
	text_count(s->n_positives, positives);
	text_count(s->n_negatives, negatives);
	fprintf(run->out, "%s: %s lines, %s positives and %s labelled negatives; left out: %" PRIu64 " bad lines, %" PRIu64 " at or after the split, %" PRIu64
	        " of unknown users, %" PRIu64 " of unknown titles\n", run->options->samples, lines, positives, negatives, s->bad, s->late, s->unknown_users,
	        s->unknown_items);
}

static json_t *samples_json(const struct train_run *run)
{
	const struct samples *s = &run->samples;

	if (!run->options->samples)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "lines", (json_int_t)s->lines, "positives", (json_int_t)s->n_positives, "negatives",
	                 (json_int_t)s->n_negatives, "bad", (json_int_t)s->bad, "late", (json_int_t)s->late, "unknown_users",
	                 (json_int_t)s->unknown_users, "unknown_items", (json_int_t)s->unknown_items);
}

void train_report_begin(const struct train_run *run)
{
	char users[32], items[32], positives[32], candidates[32];

	if (run->judges && !run->options->json)
		split_print(&run->split, &run->plan.split);
	text_count(state_n_users(run->state), users);
	text_count(state_n_items(run->state), items);
	text_count(run->n_positives, positives);
	text_count(run->n_candidates, candidates);
	fprintf(run->out, "training on %s positives of %s users; %s titles, %s of them can be negatives; up to %u threads, %s%s%s\n", positives, users, items, candidates,
	        run->threads, learner_backend_name(run->learner), run->backend_reason[0] ? ": " : "", run->backend_reason);
	if (run->options->precision == PRECISION_BF16 && !learner_on_device(run->learner))
		fprintf(run->out, "bf16 is for tables on a GPU: the processor trains in fp32\n");
	if (run->options->samples)
		report_samples(run);
	if (run->options->early_stop) {
		text_count(run->validation.n_pairs, positives);
		text_count(run->validation.n_users, users);
		fprintf(run->out, "validation slice: %s more positives of %s users, not trained on\n", positives, users);
	}
}

void train_report_epoch(const struct train_run *run, int64_t epoch)
{
	const struct train_epoch *e = &run->epochs[epoch];
	double millions = (double)e->triples / 1e6;
	char loss[32] = "-";

	if (isfinite(e->loss))
		snprintf(loss, sizeof(loss), "%.4f", e->loss);
	fprintf(run->out, "epoch %" PRId64 "/%" PRId64 "  loss %s  rate %.5f to %.5f  %.2f M triples in %.2f s, %.1f M/s", epoch + 1, run->options->epochs,
	        loss, e->rate_begin, e->rate_end, millions, e->seconds, e->seconds > 0 ? millions / e->seconds : 0.0);
	if (!isnan(e->ndcg))
		fprintf(run->out, "  NDCG@%" PRIu32 " %.4f%s", run->plan.judge.ks[0], e->ndcg, run->best_epoch == epoch + 1 ? " (best)" : "");
	fputc('\n', run->out);
	fflush(run->out);
}

static void print_calibrations(const struct train_run *run, const struct calibration *trained, const struct calibration *held_out)
{
	if (trained->decided)
		calibration_print(run->out, "  conf", trained);
	if (held_out->decided)
		calibration_print(run->out, "  conf on held-out impressions", held_out);
}

void train_report_end(const struct train_run *run)
{
	struct judged_row rows[4];
	size_t n = 0;

	rows[n++] = (struct judged_row){ "popularity", &run->baselines.popularity };
	if (run->baselines.has_knn)
		rows[n++] = (struct judged_row){ "item-kNN", &run->baselines.knn };
	rows[n++] = (struct judged_row){ "global", &run->global };
	if (run->personal_U)
		rows[n++] = (struct judged_row){ "personalized", &run->personalized };
	if (run->best_epoch)
		fprintf(run->out, "kept epoch %" PRId64 " of %" PRId64 " trained\n", run->best_epoch, run->n_epochs);
	if (run->out_dir)
		fprintf(run->out, "wrote %s/%s\n", run->out_dir, TRAIN_FILE_GLOBAL);
	print_calibrations(run, &run->calibration, &run->held_out_calibration);
	if (run->personal_U) {
		if (run->out_dir)
			fprintf(run->out, "wrote %s/%s: ", run->out_dir, TRAIN_FILE_PERSONALIZED);
		fprintf(run->out, "%" PRIu64 " personal rows in %.2f s; item tables unchanged (hash %016" PRIx64 ")\n", run->fitted, run->personalize_seconds,
		        run->hash_after);
		print_calibrations(run, &run->personal_calibration, &run->personal_held_out_calibration);
	}
	if (!run->out_dir)
		fprintf(run->out, "nothing was saved: name a folder with --out_dir\n");
	if (run->judges && !run->options->json)
		judged_print(rows, n, &run->plan.judge);
}

int train_report_plot(struct train_run *run)
{
	size_t n = (size_t)run->n_epochs;
	double *loss = malloc((n + 1) * sizeof(*loss)), *ndcg = malloc((n + 1) * sizeof(*ndcg));
	char y_title[64];
	int rc = -ENOMEM;

	snprintf(y_title, sizeof(y_title), "NDCG@%" PRIu32 " on %s", run->plan.judge.ks[0], run->options->early_stop ? "the validation slice" : "what is held out");
	for (size_t e = 0; loss && ndcg && e < n; e++) {
		loss[e] = run->epochs[e].loss;
		ndcg[e] = run->epochs[e].ndcg;
	}
	const struct plot_panel panels[2] = {
		{ .title = "loss", .x_label = "epoch", .values = loss, .n = n },
		{ .title = y_title, .x_label = "epoch", .values = ndcg, .n = n, .mark = (size_t)run->best_epoch, .mark_label = "kept" },
	};
	if (loss && ndcg)
		rc = plot_write(run->options->plot, "recctl train: learning curve", panels, run->judges || run->options->early_stop ? 2 : 1, run->errstr,
		                sizeof(run->errstr));
	if (!rc)
		fprintf(run->out, "wrote %s\n", run->options->plot);
	free(loss);
	free(ndcg);
	return rc;
}

/* A path below the output folder. */
static json_t *path_json(const struct train_run *run, const char *name)
{
	return json_sprintf("%s/%s", run->out_dir, name);
}

static json_t *epochs_json(const struct train_run *run)
{
	json_t *array = json_array();

	for (int64_t e = 0; e < run->n_epochs; e++) {
		const struct train_epoch *epoch = &run->epochs[e];
		json_t *loss = isfinite(epoch->loss) ? json_real(epoch->loss) : json_null();

		json_array_append_new(array, json_pack("{s:I, s:o, s:o, s:f, s:f, s:I, s:f}", "epoch", (json_int_t)e + 1, "loss", loss, "ndcg", isnan(epoch->ndcg) ? json_null() :
		                                       json_real(epoch->ndcg), "rate_begin", epoch->rate_begin, "rate_end", epoch->rate_end, "triples", (json_int_t)epoch->triples, "seconds",
		                                       epoch->seconds));
	}
	return array;
}

static json_t *refused_json(const struct load_stats *loaded)
{
	json_t *refused = json_object();

	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		for (int reason = 0; reason < REFUSAL_COUNT; reason++) {
			uint64_t n = loaded->streams[stream].refused[reason];
			json_t *of_stream = json_object_get(refused, event_stream_name((enum event_stream)stream));

			if (!n)
				continue;
			if (!of_stream) {
				of_stream = json_object();
				json_object_set_new(refused, event_stream_name((enum event_stream)stream), of_stream);
			}
			json_object_set_new(of_stream, refusal_name((enum refusal)reason), json_integer((json_int_t)n));
		}
	}
	return refused;
}

/* The figures on what was trained on, and under "held_out" on what was not. */
static json_t *calibrations_json(const struct calibration *trained, const struct calibration *held_out)
{
	json_t *json = calibration_json(trained);

	json_object_set_new(json, "held_out", held_out->decided ? calibration_json(held_out) : json_null());
	return json;
}

static json_t *early_stop_json(const struct train_run *run)
{
	if (!run->best_epoch)
		return json_null();
	return json_pack("{s:I, s:I, s:b, s:I, s:I}", "patience", (json_int_t)run->options->early_stop, "best_epoch", (json_int_t)run->best_epoch, "stopped",
	                 run->n_epochs < run->options->epochs, "validation_pairs", (json_int_t)run->validation.n_pairs, "validation_users",
	                 (json_int_t)run->validation.n_users);
}

static void add_personalized(const struct train_run *run, json_t *answer, json_t *models)
{
	char hash[17];

	snprintf(hash, sizeof(hash), "%016" PRIx64, run->hash_after);
	if (run->out_dir)
		json_object_set_new(models, "personalized", path_json(run, TRAIN_FILE_PERSONALIZED));
	json_object_set_new(answer, "personalize_seconds", json_real(run->personalize_seconds));
	json_object_set_new(answer, "personal_rows", json_integer((json_int_t)run->fitted));
	json_object_set_new(answer, "item_tables_hash", json_string(hash));
	json_object_set_new(answer, "item_tables_unchanged", json_boolean(run->hash_before == run->hash_after));
	json_object_set_new(json_object_get(answer, "calibration"), "personalized",
	                    calibrations_json(&run->personal_calibration, &run->personal_held_out_calibration));
}

static void add_metrics(const struct train_run *run, json_t *answer)
{
	const struct judge_options *judge = &run->plan.judge;
	json_t *metrics = json_pack("{s:I}", "k", (json_int_t)judge->ks[0]);

	json_object_set_new(metrics, "popularity", judged_json(&run->baselines.popularity, judge));
	if (run->baselines.has_knn)
		json_object_set_new(metrics, "item_knn", judged_json(&run->baselines.knn, judge));
	json_object_set_new(metrics, "global", judged_json(&run->global, judge));
	if (run->personal_U)
		json_object_set_new(metrics, "personalized", judged_json(&run->personalized, judge));
	json_object_set_new(answer, "metrics", metrics);
	json_object_set_new(answer, "split", split_json(&run->split, &run->plan.split));
}

int train_report_json(const struct train_run *run)
{
	json_t *answer = json_object(), *models = json_object(), *calibration = json_object();
	double seconds = run->train_seconds;
	int rc = -ENOMEM;

	json_object_set_new(answer, "users", json_integer(state_n_users(run->state)));
	json_object_set_new(answer, "items", json_integer(state_n_items(run->state)));
	json_object_set_new(answer, "positives", json_integer((json_int_t)run->n_positives));
	json_object_set_new(answer, "candidates", json_integer((json_int_t)run->n_candidates));
	json_object_set_new(answer, "refused", refused_json(&run->loaded));
	json_object_set_new(answer, "samples", samples_json(run));
	json_object_set_new(answer, "threads", json_integer(run->threads));
	json_object_set_new(answer, "backend", json_string(learner_backend_name(run->learner)));
	json_object_set_new(answer, "backend_reason", json_string(run->backend_reason));
	json_object_set_new(answer, "precision", json_string(run->options->precision == PRECISION_BF16 && learner_on_device(run->learner) ? "bf16" : "fp32"));
	json_object_set_new(answer, "train_seconds", json_real(seconds));
	json_object_set_new(answer, "triples", json_integer((json_int_t)run->triples));
	json_object_set_new(answer, "triples_per_sec", json_real(seconds > 0 ? (double)run->triples / seconds : 0));
	json_object_set_new(answer, "rejected", json_integer((json_int_t)run->rejected));
	json_object_set_new(answer, "epochs", epochs_json(run));
	json_object_set_new(answer, "early_stop", early_stop_json(run));
	json_object_set_new(answer, "intercept", json_real((double)run->fit.intercept));
	json_object_set_new(calibration, "global", calibrations_json(&run->calibration, &run->held_out_calibration));
	json_object_set_new(answer, "calibration", calibration);
	if (run->out_dir)
		json_object_set_new(models, "global", path_json(run, TRAIN_FILE_GLOBAL));
	json_object_set_new(answer, "models", models);
	if (run->personal_U)
		add_personalized(run, answer, models);
	if (run->judges)
		add_metrics(run, answer);
	else
		json_object_set_new(answer, "metrics", json_null());
	if (answer && !json_dumpf(answer, stdout, RENDER_FLAGS)) {
		putchar('\n');
		rc = 0;
	}
	json_decref(answer);
	return rc;
}
