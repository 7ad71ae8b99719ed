/*
 * answer_files.c: reads a model and the logs beside it, and answers from them with the daemon's own query code. A checkpoint: answer_checkpoint.c.
 *
 * Opened and closed by recctl's main thread; nothing changes in between, so that any thread may ask. The saved rows serve as they are: a personalized file
 * already holds the personal rows of users with enough positives and the global rows of the others, so only the name of what served is decided here.
 */
#include "daemon/recctl/answer_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/recctl/load_logs.h"

#define PERSONALIZE_MIN_POSITIVES 3u /* as train and recd have it */
#define DATA_DIR_DEFAULT "data"
#define MODEL_DEFAULT "model_bpr_personalized.pt"

void answer_files_close(struct answer_files *files)
{
	state_free(files->state);
	model_file_free(&files->model);
	free(files->generation.mean_user);
	free(files->model_path);
	*files = (struct answer_files){ 0 };
}

/* recd's data directory has links to models and no logs: it is read another way. */
static int refuse_checkpoints(const char *data_dir, char *errstr, size_t errstr_size)
{
	struct stat st;
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/checkpoints", data_dir);

	if (n < 0 || n >= (int)sizeof(path) || stat(path, &st) || !S_ISDIR(st.st_mode))
		return 0;
	n = snprintf(path, sizeof(path), "%s/%s", data_dir, log_file_name(STREAM_WATCHES));
	if (n < 0 || n >= (int)sizeof(path) || !stat(path, &st))
		return 0;
	snprintf(errstr, errstr_size, "%s is recd's data directory and holds no logs; answer from its checkpoint: --checkpoint %s", data_dir, data_dir);
	return -EINVAL;
}

int answer_files_open(const char *what, const struct answer_options *options, struct answer_files *files, char *errstr, size_t errstr_size)
{
	if (options->checkpoint)
		return answer_checkpoint_open(what, options, files, errstr, errstr_size);
	const char *data_dir = options->data_dir ? options->data_dir : DATA_DIR_DEFAULT;
	struct load_options load = { .data_dir = data_dir,
		                     .rules = { .min_pos_completion = (float)options->min_pos_completion, .negative_after_us = 1800 * INT64_C(1000000) },
		                     .before_us = INT64_MAX };
	struct load_stats loaded;

	if (refuse_checkpoints(data_dir, errstr, errstr_size))
		return -EINVAL;
	if (options->model_path)
		files->model_path = strdup(options->model_path);
	else if (asprintf(&files->model_path, "%s/%s", data_dir, MODEL_DEFAULT) < 0)
		files->model_path = NULL;
	int rc = files->model_path ? load_model(files->model_path, &files->model, errstr, errstr_size) : -ENOMEM;
	if (rc)
		return rc;
	load.ids_first = &files->model;
	rc = load_logs(&load, &files->state, &loaded, errstr, errstr_size);
	if (rc)
		return rc;
	load_stats_print(&loaded, data_dir, what);
	files->generation = (struct generation){ .tables = files->model.tables };
	files->generation.mean_user = calloc(files->model.tables.dim, sizeof(float)); /* not used: rows beyond the model's are served by popularity */
	files->options = (struct query_options){ .k = (uint32_t)options->k, .personalize_min_positives = PERSONALIZE_MIN_POSITIVES };
	return files->generation.mean_user ? 0 : -ENOMEM;
}

enum served answer_files_served(const struct answer_files *files, const struct user_facts *facts, enum served served)
{
	if (served == SERVED_GLOBAL && !strcmp(files->model.kind, "personalized") &&
	    state_positives(files->state, facts, NULL, 0) >= PERSONALIZE_MIN_POSITIVES)
		return SERVED_PERSONALIZED;
	return served;
}

int answer_files_top(const struct answer_files *files, int64_t user_id, struct query_scratch *scratch, struct ranked_item *ret_items, size_t *ret_n,
                     enum served *ret_served)
{
	uint32_t user = state_find_user(files->state, user_id);
	const struct user_facts *known = NULL;
	struct user_facts facts;
	enum served served;

	if (user != STATE_NONE) {
		state_user_facts(files->state, user, &facts);
		known = &facts;
	}
	int rc = query_top(&files->generation, files->state, known, &files->options, scratch, ret_items, ret_n, &served);
	if (!rc)
		*ret_served = answer_files_served(files, known, served);
	return rc;
}

static int compare_ids(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int answer_files_users(const struct answer_files *files, int64_t **ret_ids, size_t *ret_n)
{
	uint32_t n = state_n_users(files->state);
	int64_t *ids = malloc((n + 1u) * sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	memcpy(ids, state_user_ids(files->state), n * sizeof(*ids));
	qsort(ids, n, sizeof(*ids), compare_ids);
	*ret_ids = ids;
	*ret_n = n;
	return 0;
}
