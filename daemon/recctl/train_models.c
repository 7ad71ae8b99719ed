/*
 * train_models.c: what `recctl train` makes of the trained rows: the global and the personalized model, saved and judged. Main thread of recctl; work over
 * users is spread over threads (fit.h, baseline.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/recctl/save_model.h"
#include "daemon/recctl/train.h"

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int train_finish_global(struct train_run *run)
{
	struct tables *tables = &run->tables;

	run->fit = (struct fit){ .state = run->state, .slice = run->options->early_stop ? &run->validation : NULL, .learner = run->learner,
	                          .threads = run->threads };
	fit_mean_user(run->learner, tables);
	int rc = fit_global_intercept(&run->fit, tables);
	if (!rc)
		rc = fit_intercepts(&run->fit, tables, tables->U, tables->bu, "intercepts, users");
	if (rc)
		return rc;
	rc = fit_calibration(&run->fit, tables, tables->U, tables->bu, &run->calibration);
	if (!rc)
		rc = fit_calibration_held_out(tables, &run->split, &run->held_out_calibration);
	if (rc || !run->out_dir)
		return rc;
	return save_model(run->dir_fd, TRAIN_FILE_GLOBAL, tables, state_user_ids(run->state), state_item_ids(run->state), "global", run->errstr,
	                  sizeof(run->errstr));
}

int train_finish_personalized(struct train_run *run)
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
	struct tables personal = *tables; /* the same V and bi */
	personal.U = run->personal_U;
	personal.bu = run->personal_bu;
	rc = fit_calibration(&run->fit, tables, run->personal_U, run->personal_bu, &run->personal_calibration);
	if (!rc)
		rc = fit_calibration_held_out(&personal, &run->split, &run->personal_held_out_calibration);
	if (rc || !run->out_dir)
		return rc;
	return save_model(run->dir_fd, TRAIN_FILE_PERSONALIZED, &personal, state_user_ids(run->state), state_item_ids(run->state), "personalized", run->errstr,
	                  sizeof(run->errstr));
}

int train_evaluate(struct train_run *run)
{
	int rc = judge_baselines(&run->options->judge, run->state, &run->split, &run->plan, &run->baselines);
	float *mean_user = calloc(run->tables.dim, sizeof(*mean_user)); /* for users whom training never met */
	struct model_scores model = { .tables = &run->tables, .mean_user = mean_user, .n_items = run->plan.judge.n_items };

	if (!mean_user)
		rc = -ENOMEM;
	if (!rc) {
		model_mean_user(run->state, &run->tables, mean_user);
		rc = judge(&run->split, &run->plan.judge, model_score, &model, "judging the global model, users", &run->global);
	}
	if (!rc && run->personal_U) {
		struct tables personal = run->tables;

		personal.U = run->personal_U;
		model.tables = &personal;
		model_mean_user(run->state, &personal, mean_user);
		rc = judge(&run->split, &run->plan.judge, model_score, &model, "judging the personalized model, users", &run->personalized);
	}
	free(mean_user);
	return rc;
}
