/*
 * answer.c: answers about users. From recd: one request a user. From files: the model and the logs are read once, then the daemon's own query code answers.
 *
 * Main thread of recctl. On files the saved rows serve as they are: a personalized file already holds the personal rows of users with enough positives and the
 * global rows of the others, so only the name of what served is decided here.
 */
#include "daemon/recctl/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/client.h"
#include "daemon/recctl/load_logs.h"
#include "daemon/render.h"

#define PERSONALIZE_MIN_POSITIVES 3u /* as train and recd have it */
#define DATA_DIR_DEFAULT "data"
#define MODEL_DEFAULT "model_bpr_personalized.pt"

/* A model and the logs beside it. */
struct files {
	struct model_file model;
	struct generation generation; /* borrows the model's tables */
	struct state *state;
	struct query_scratch scratch;
	struct query_options options;
};

static void files_close(struct files *files)
{
	query_scratch_free(&files->scratch);
	state_free(files->state);
	model_file_free(&files->model);
	free(files->generation.mean_user);
}

static int files_open(const char *what, const struct answer_options *options, struct files *files, char *errstr, size_t errstr_size)
{
	const char *data_dir = options->data_dir ? options->data_dir : DATA_DIR_DEFAULT;
	struct load_options load = { .data_dir = data_dir,
		                     .rules = { .min_pos_completion = (float)options->min_pos_completion, .negative_after_us = 1800 * INT64_C(1000000) },
		                     .before_us = INT64_MAX };
	struct load_stats loaded;
	char *path = NULL;

	if (options->model_path)
		path = strdup(options->model_path);
	else if (asprintf(&path, "%s/%s", data_dir, MODEL_DEFAULT) < 0)
		path = NULL;
	int rc = path ? load_model(path, &files->model, errstr, errstr_size) : -ENOMEM;
	free(path);
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

/* What served, by the kind of file. `facts`: NULL for a user nobody has seen. */
static enum served served_by_file(const struct files *files, const struct user_facts *facts, enum served served)
{
	if (served == SERVED_GLOBAL && !strcmp(files->model.kind, "personalized") &&
	    state_positives(files->state, facts, NULL, 0) >= PERSONALIZE_MIN_POSITIVES)
		return SERVED_PERSONALIZED;
	return served;
}

static int files_top(struct files *files, int64_t user_id, const struct user_facts *facts, json_t **ret_answer)
{
	struct ranked_item *items = malloc((files->options.k + 1u) * sizeof(*items));
	enum served served;
	size_t n;
	int rc = items ? query_top(&files->generation, files->state, facts, &files->options, &files->scratch, items, &n, &served) : -ENOMEM;

	if (!rc) {
		*ret_answer = render_top(files->state, user_id, 0, served_by_file(files, facts, served), 0, items, n);
		rc = *ret_answer ? 0 : -ENOMEM;
	}
	free(items);
	return rc;
}

static int files_explain(struct files *files, int64_t user_id, const struct user_facts *facts, json_t **ret_answer)
{
	struct explanation *explanation;
	int rc = query_explain(&files->generation, files->state, facts, &files->options, &files->scratch, &explanation);

	if (rc)
		return rc;
	explanation->served = served_by_file(files, facts, explanation->served);
	*ret_answer = render_explain(files->state, user_id, 0, explanation);
	explanation_free(explanation);
	return *ret_answer ? 0 : -ENOMEM;
}

static int ask_files(struct files *files, const char *what, int64_t user_id, json_t **ret_answer)
{
	uint32_t user = state_find_user(files->state, user_id);
	const struct user_facts *known = NULL;
	struct user_facts facts;

	if (user != STATE_NONE) {
		state_user_facts(files->state, user, &facts);
		known = &facts;
	}
	return !strcmp(what, "explain") ? files_explain(files, user_id, known, ret_answer) : files_top(files, user_id, known, ret_answer);
}

static int ask_recd(const char *what, const struct answer_options *options, int64_t user_id, json_t **ret_answer, char *errstr, size_t errstr_size)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/users/%" PRId64 "/%s?k=%" PRId64, user_id, what, options->k);
	return client_request(options->socket ? options->socket : CLIENT_SOCKET_DEFAULT, "GET", path, ANSWER_TIMEOUT_SEC, ret_answer, errstr, errstr_size);
}

static int print_answer(const json_t *answer, const struct answer_options *options, answer_print_fn print, int first)
{
	if (!options->json)
		return print(answer, first);
	if (json_dumpf(answer, stdout, RENDER_FLAGS))
		return -ENOMEM;
	putchar('\n');
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The users to answer for, when none is named: the lowest ids of the files. The array is the caller's. */
static int choose_users(const struct files *files, int64_t users_max, int64_t **ret_ids, size_t *ret_n)
{
	uint32_t n = state_n_users(files->state);
	int64_t *ids = malloc((n + 1u) * sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	memcpy(ids, state_user_ids(files->state), n * sizeof(*ids));
	qsort(ids, n, sizeof(*ids), compare_ids);
	*ret_ids = ids;
	*ret_n = users_max && (uint64_t)users_max < n ? (size_t)users_max : n;
	return 0;
}

static int answer_all(const char *what, const struct answer_options *options, struct files *files, answer_print_fn print, char *errstr, size_t errstr_size)
{
	const int64_t *ids = options->users.ids;
	int64_t *chosen = NULL;
	size_t n = (size_t)options->users.count;
	int rc = 0;

	if (!n && files) { /* recd is only asked for users by name */
		rc = choose_users(files, options->users_max, &chosen, &n);
		ids = chosen;
	}
	for (size_t i = 0; !rc && i < n; i++) {
		json_t *answer = NULL;

		if (files)
			rc = ask_files(files, what, ids[i], &answer);
		else
			rc = ask_recd(what, options, ids[i], &answer, errstr, errstr_size);
		if (!rc)
			rc = print_answer(answer, options, print, i == 0);
		json_decref(answer);
	}
	if (!rc && chosen && n < state_n_users(files->state))
		fprintf(stderr, "recctl %s: the first %zu of %u users; more with --users_max, or name them with --user_id\n", what, n,
		        state_n_users(files->state));
	free(chosen);
	return rc;
}

int answer_run(const char *what, const struct answer_options *options, answer_print_fn print)
{
	int on_files = !options->socket && (options->data_dir || options->model_path);
	struct files files = { 0 };
	char errstr[512] = "";
	int rc = 0;

	if (options->socket && (options->data_dir || options->model_path)) {
		fprintf(stderr, "recctl %s: --socket asks a running recd, --data_dir and --model_path read files; give one or the other\n", what);
		return EXIT_USAGE;
	}
	if (!on_files && !options->users.count) {
		fprintf(stderr, "recctl %s: name the users for recd: --user_id N (more than once for several); or read files: --data_dir DIR\n", what);
		return EXIT_USAGE;
	}
	if (on_files)
		rc = files_open(what, options, &files, errstr, sizeof(errstr));
	if (!rc)
		rc = answer_all(what, options, on_files ? &files : NULL, print, errstr, sizeof(errstr));
	if (rc)
		fprintf(stderr, "recctl %s: %s\n", what, errstr[0] ? errstr : strerror(-rc));
	files_close(&files);
	return rc ? EXIT_FAILED : EXIT_OK;
}
