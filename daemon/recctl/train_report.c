/*
 * train_report.c: what `recctl train` tells: lines for people, one object for machines. Main thread of recctl; reads the run, changes nothing.
 */
#include "daemon/recctl/train.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "daemon/recctl/table.h"
#include "daemon/render.h"

void train_report_begin(const struct train_run *run)
{
	char users[32], items[32], positives[32], candidates[32];

	if (run->options->holdout > 0 && !run->options->json)
		split_print(&run->split, run->options->holdout);
	text_count(state_n_users(run->state), users);
	text_count(state_n_items(run->state), items);
	text_count(run->n_positives, positives);
	text_count(run->n_candidates, candidates);
	fprintf(run->out, "training on %s positives of %s users; %s titles, %s of them can be negatives; %u threads, %s\n", positives, users, items, candidates,
	        run->threads, learner_backend_name(run->learner));
}

void train_report_epoch(const struct train_run *run, int64_t epoch)
{
	const struct train_epoch *e = &run->epochs[epoch];
	double millions = (double)e->triples / 1e6;

	fprintf(run->out, "epoch %" PRId64 "/%" PRId64 "  loss %.4f  rate %.5f to %.5f  %.2f M triples in %.2f s, %.1f M/s\n", epoch + 1, run->options->epochs,
	        e->loss, e->rate_begin, e->rate_end, millions, e->seconds, e->seconds > 0 ? millions / e->seconds : 0.0);
	fflush(run->out);
}

static void print_calibration(const struct train_run *run, const char *name, const struct calibration *c)
{
	fprintf(run->out, "%s: mean conf %.4f, share watched far enough %.4f over %" PRIu64 " decided impressions (error %+.4f)\n", name, c->mean_conf,
	        c->watch_rate, c->decided, c->mean_conf - c->watch_rate);
}

void train_report_end(const struct train_run *run)
{
	struct judged_row rows[3] = { { "popularity", &run->popularity }, { "global", &run->global }, { "personalized", &run->personalized } };

	fprintf(run->out, "wrote %s/%s\n", run->out_dir, TRAIN_FILE_GLOBAL);
	print_calibration(run, "  conf", &run->calibration);
	if (run->personal_U) {
		fprintf(run->out, "wrote %s/%s: %" PRIu64 " personal rows in %.2f s; item tables unchanged (hash %016" PRIx64 ")\n", run->out_dir,
		        TRAIN_FILE_PERSONALIZED, run->fitted, run->personalize_seconds, run->hash_after);
		print_calibration(run, "  conf", &run->personal_calibration);
	}
	if (run->options->holdout > 0 && !run->options->json)
		judged_print(rows, run->personal_U ? 3 : 2, (uint32_t)run->options->k_eval);
}

static json_t *calibration_json(const struct calibration *c)
{
	return json_pack("{s:I, s:f, s:f}", "decided", (json_int_t)c->decided, "mean_conf", c->mean_conf, "watch_rate", c->watch_rate);
}

/* A path below the output folder. */
static json_t *path_json(const struct train_run *run, const char *name)
{
	return json_sprintf("%s/%s", run->out_dir, name);
}

static json_t *epochs_json(const struct train_run *run)
{
	json_t *array = json_array();

	for (int64_t e = 0; e < run->options->epochs; e++) {
		const struct train_epoch *epoch = &run->epochs[e];
		json_t *loss = isfinite(epoch->loss) ? json_real(epoch->loss) : json_null();

		json_array_append_new(array, json_pack("{s:I, s:o, s:f, s:f, s:I, s:f}", "epoch", (json_int_t)e + 1, "loss", loss, "rate_begin",
		                                       epoch->rate_begin, "rate_end", epoch->rate_end, "triples", (json_int_t)epoch->triples, "seconds",
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

static void add_personalized(const struct train_run *run, json_t *answer, json_t *models)
{
	char hash[17];

	snprintf(hash, sizeof(hash), "%016" PRIx64, run->hash_after);
	json_object_set_new(models, "personalized", path_json(run, TRAIN_FILE_PERSONALIZED));
	json_object_set_new(answer, "personalize_seconds", json_real(run->personalize_seconds));
	json_object_set_new(answer, "personal_rows", json_integer((json_int_t)run->fitted));
	json_object_set_new(answer, "item_tables_hash", json_string(hash));
	json_object_set_new(answer, "item_tables_unchanged", json_boolean(run->hash_before == run->hash_after));
	json_object_set_new(json_object_get(answer, "calibration"), "personalized", calibration_json(&run->personal_calibration));
}

static void add_metrics(const struct train_run *run, json_t *answer)
{
	json_t *metrics = json_pack("{s:I}", "k", (json_int_t)run->options->k_eval);

	json_object_set_new(metrics, "popularity", judged_json(&run->popularity));
	json_object_set_new(metrics, "global", judged_json(&run->global));
	if (run->personal_U)
		json_object_set_new(metrics, "personalized", judged_json(&run->personalized));
	json_object_set_new(answer, "metrics", metrics);
	json_object_set_new(answer, "split", split_json(&run->split, run->options->holdout));
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
	json_object_set_new(answer, "threads", json_integer(run->threads));
	json_object_set_new(answer, "backend", json_string(learner_backend_name(run->learner)));
	json_object_set_new(answer, "train_seconds", json_real(seconds));
	json_object_set_new(answer, "triples", json_integer((json_int_t)run->triples));
	json_object_set_new(answer, "triples_per_sec", json_real(seconds > 0 ? (double)run->triples / seconds : 0));
	json_object_set_new(answer, "rejected", json_integer((json_int_t)run->rejected));
	json_object_set_new(answer, "epochs", epochs_json(run));
	json_object_set_new(answer, "intercept", json_real((double)run->fit.intercept));
	json_object_set_new(calibration, "global", calibration_json(&run->calibration));
	json_object_set_new(answer, "calibration", calibration);
	json_object_set_new(models, "global", path_json(run, TRAIN_FILE_GLOBAL));
	json_object_set_new(answer, "models", models);
	if (run->personal_U)
		add_personalized(run, answer, models);
	if (run->options->holdout > 0)
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
