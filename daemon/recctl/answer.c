/*
 * answer.c: answers about users. From recd: one request a user. From files: the model and the logs, or a checkpoint, are read once, then the daemon's own
 * query code answers. Main thread of recctl.
 */
#include "daemon/recctl/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/answer_files.h"
#include "daemon/recctl/client.h"
#include "daemon/render.h"

/* Files, and the working memory of this thread. */
struct files {
	struct answer_files files;
	struct query_scratch scratch;
};

static int files_top(struct files *asked, int64_t user_id, json_t **ret_answer)
{
	const struct answer_files *files = &asked->files;
	uint32_t user = state_find_user(files->state, user_id);
	struct ranked_item *items = malloc((files->options.k + 1u) * sizeof(*items));
	struct user_facts facts;
	enum served served;
	size_t n;
	int rc = items ? answer_files_top(files, user_id, &asked->scratch, items, &n, &served) : -ENOMEM;

	if (!rc) {
		if (user != STATE_NONE)
			state_user_facts(files->state, user, &facts);
		*ret_answer = render_top(files->state, user_id, files->generation.number, served,
		                         query_fitted_positives(user != STATE_NONE ? &facts : NULL, served), items, n);
		rc = *ret_answer ? 0 : -ENOMEM;
	}
	free(items);
	return rc;
}

static int files_explain(struct files *asked, int64_t user_id, json_t **ret_answer)
{
	const struct answer_files *files = &asked->files;
	uint32_t user = state_find_user(files->state, user_id);
	const struct user_facts *known = NULL;
	struct explanation *explanation;
	struct user_facts facts;

	if (user != STATE_NONE) {
		state_user_facts(files->state, user, &facts);
		known = &facts;
	}
	int rc = query_explain(&files->generation, files->state, known, &files->options, &asked->scratch, &explanation);
	if (rc)
		return rc;
	explanation->served = answer_files_served(files, known, explanation->served);
	*ret_answer = render_explain(files->state, user_id, files->generation.number, explanation);
	explanation_free(explanation);
	return *ret_answer ? 0 : -ENOMEM;
}

static int ask_files(struct files *files, const char *what, int64_t user_id, json_t **ret_answer)
{
	return !strcmp(what, "explain") ? files_explain(files, user_id, ret_answer) : files_top(files, user_id, ret_answer);
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

static int answer_all(const char *what, const struct answer_options *options, struct files *files, answer_print_fn print, char *errstr, size_t errstr_size)
{
	const int64_t *ids = options->users.ids;
	int64_t *chosen = NULL;
	size_t n = (size_t)options->users.count;
	int rc = 0;

	if (!n && files) { /* recd is only asked for users by name */
		rc = answer_files_users(&files->files, &chosen, &n);
		ids = chosen;
		if (options->users_max && (uint64_t)options->users_max < n)
			n = (size_t)options->users_max;
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
	if (!rc && chosen && n < state_n_users(files->files.state))
		fprintf(stderr, "recctl %s: the first %zu of %u users; more with --users_max, or name them with --user_id\n", what, n,
		        state_n_users(files->files.state));
	free(chosen);
	return rc;
}

int answer_check(const struct command_spec *spec, const struct flag_words *words, const struct answer_options *options)
{
	const char *wrong = NULL;

	if (options->checkpoint && (options->data_dir || options->model_path))
		wrong = "--checkpoint has the model and the histories in it; leave --data_dir and --model_path out";
	else if (options->socket && answer_on_files(options))
		wrong = "--socket asks a running recd, --checkpoint, --data_dir and --model_path read files; give one or the other";
	else if (options->config && !options->checkpoint)
		wrong = "--config goes with --checkpoint";
	else if (options->config && flags_given(spec, words, "min_pos_completion"))
		wrong = "--config says state.min_pos_completion; leave --min_pos_completion out";
	if (wrong)
		fprintf(stderr, "recctl %s: %s\n", spec->name, wrong);
	return wrong ? EXIT_USAGE : 0;
}

int answer_run(const char *what, const struct answer_options *options, answer_print_fn print)
{
	int on_files = answer_on_files(options);
	struct files files = { 0 };
	char errstr[2048] = "";
	int rc = 0;

	if (!on_files && !options->users.count) {
		fprintf(stderr, "recctl %s: name the users for recd: --user_id N (more than once for several); or read files: --checkpoint DIR, --data_dir DIR\n", what);
		return EXIT_USAGE;
	}
	if (on_files)
		rc = answer_files_open(what, options, &files.files, errstr, sizeof(errstr));
	if (!rc)
		rc = answer_all(what, options, on_files ? &files : NULL, print, errstr, sizeof(errstr));
	if (rc)
		fprintf(stderr, "recctl %s: %s\n", what, errstr[0] ? errstr : strerror(-rc));
	query_scratch_free(&files.scratch);
	answer_files_close(&files.files);
	return rc ? EXIT_FAILED : EXIT_OK;
}
