/*
 * top_all.c: `recctl top --all_users`: everybody's best titles, from a running recd, a checkpoint or files, in bounded memory.
 *
 * From recd: GET /v1/top, page after page, each after the last user of the one before; a page comes from one generation, the next may come from a newer one.
 * From files: chunks of users; every range of a chunk belongs to one thread, which writes its lines into the range's own page; then the main thread, which
 * worked along, writes the pages in order. So lines never depend on the number of threads.
 */
#include "daemon/recctl/top_all.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/answer_files.h"
#include "daemon/recctl/client.h"
#include "daemon/recctl/parallel.h"
#include "daemon/recctl/progress.h"
#include "daemon/recctl/top_output.h"
#include "daemon/top_page.h"

#define RANGE_USERS 16u         /* a thread's piece */
#define RANGES_PER_THREAD 32u   /* of a chunk: what waits at its end is a small part of it */
#define PAGE_USERS 1000

struct counts {
	uint64_t users, items;
	uint64_t served[3]; /* by enum served */
	uint64_t generation_first, generation_last;
};

struct run {
	const struct top_all_options *options;
	struct top_output output;
	struct counts counts;
	struct progress progress;
	char errstr[2048];
};

/* ---- from recd ---- */

static int served_of(const char *name, enum served *ret_served)
{
	for (int served = SERVED_PERSONALIZED; served <= SERVED_POPULARITY; served++) {
		if (!strcmp(name, served_name((enum served)served))) {
			*ret_served = (enum served)served;
			return 0;
		}
	}
	return -EPROTO;
}

/* Counts one line of recd, which must be of a user above *after; *after becomes that user. */
static int take_line(struct counts *counts, const char *line, size_t len, int64_t *after)
{
	json_t *json = json_loadb(line, len, 0, NULL);
	const json_t *user = json_object_get(json, "user_id"), *items = json_object_get(json, "items"), *generation = json_object_get(json, "generation");
	const char *name = json_string_value(json_object_get(json, "served"));
	enum served served = SERVED_POPULARITY;
	int rc = -EPROTO;

	if (json_is_integer(user) && json_integer_value(user) > *after && json_is_array(items) && json_is_integer(generation) && name)
		rc = served_of(name, &served);
	if (!rc) {
		uint64_t number = (uint64_t)json_integer_value(generation);

		*after = json_integer_value(user);
		if (!counts->users++)
			counts->generation_first = number;
		counts->generation_last = number;
		counts->items += json_array_size(items);
		counts->served[served]++;
	}
	json_decref(json);
	return rc;
}

/* A whole page: every line ends, and the users ascend. */
static int take_page(struct counts *counts, const char *text, size_t len, int64_t *after)
{
	int rc = 0;

	for (size_t at = 0; at < len && !rc;) {
		const char *end = memchr(text + at, '\n', len - at);

		if (!end)
			return -EPROTO;
		rc = take_line(counts, text + at, (size_t)(end - text) - at, after);
		at = (size_t)(end - text) + 1;
	}
	return rc;
}

/* How many users recd knows, for the progress line; 0 when it does not say. */
static uint64_t recd_users(const char *socket)
{
	json_t *status = NULL;
	char errstr[512];

	if (client_request(socket, "GET", "/v1/status", ANSWER_TIMEOUT_SEC, &status, errstr, sizeof(errstr)))
		return 0;
	json_int_t n = json_integer_value(json_object_get(status, "n_users"));
	json_decref(status);
	return n > 0 ? (uint64_t)n : 0;
}

static int ask_page(const struct top_all_options *options, const char *socket, int64_t after, char **ret_text, size_t *ret_len, char *errstr, size_t errstr_size)
{
	char path[192];
	int n = snprintf(path, sizeof(path), "/v1/top?k=%" PRId64 "&limit=%d&titles=%d", options->answer->k, PAGE_USERS, options->titles);

	if (after >= 0)
		snprintf(path + n, sizeof(path) - (size_t)n, "&after_user=%" PRId64, after);
	return client_text(socket, path, ANSWER_TIMEOUT_SEC, ret_text, ret_len, errstr, errstr_size);
}

static int from_recd(struct run *run)
{
	const char *socket = run->options->answer->socket ? run->options->answer->socket : CLIENT_SOCKET_DEFAULT;
	int64_t after = -1;
	size_t len = 1;
	int rc = 0;

	progress_begin(&run->progress, "users", recd_users(socket));
	while (!rc && len) {
		char *text = NULL, errstr[400] = "";

		rc = ask_page(run->options, socket, after, &text, &len, errstr, sizeof(errstr));
		if (!rc && take_page(&run->counts, text, len, &after)) {
			rc = -EPROTO;
			snprintf(errstr, sizeof(errstr), "what listens on %s does not answer like recd", socket);
		}
		if (!rc)
			rc = top_output_write(&run->output, text, len, run->errstr, sizeof(run->errstr));
		else if (run->counts.users)
			snprintf(run->errstr, sizeof(run->errstr), "after %" PRIu64 " users: %s", run->counts.users, errstr);
		else
			snprintf(run->errstr, sizeof(run->errstr), "%s", errstr);
		free(text);
		progress_update(&run->progress, run->counts.users);
	}
	progress_end(&run->progress);
	return rc;
}

/* ---- from files ---- */

/* The lines of one range, and what its thread works with. */
struct range {
	struct top_page page;
	struct query_scratch scratch;
	struct ranked_item *items; /* [k] */
	struct counts counts;
};

struct chunk {
	const struct answer_files *files;
	const char *model; /* its name in the lines; NULL: a checkpoint, whose generation is told */
	const int64_t *ids; /* the chunk's users */
	struct range *ranges;
	int titles;
};

static int work_range(void *ctx, uint32_t begin, uint32_t end)
{
	const struct chunk *chunk = ctx;
	struct range *range = &chunk->ranges[begin / RANGE_USERS];
	int rc = 0;

	range->page.len = 0;
	range->counts = (struct counts){ 0 };
	for (uint32_t i = begin; i < end && !rc; i++) {
		struct top_line line = { .user_id = chunk->ids[i], .model = chunk->model, .generation = chunk->files->generation.number,
			                         .items = range->items, .titles = chunk->titles };

		rc = answer_files_top(chunk->files, line.user_id, &range->scratch, range->items, &line.n_items, &line.served);
		if (!rc)
			rc = top_page_add(&range->page, chunk->files->state, &line);
		range->counts.users++;
		range->counts.items += line.n_items;
		range->counts.served[line.served]++;
	}
	return rc;
}

static void ranges_free(struct range *ranges, uint32_t n)
{
	for (uint32_t i = 0; ranges && i < n; i++) {
		top_page_free(&ranges[i].page);
		query_scratch_free(&ranges[i].scratch);
		free(ranges[i].items);
	}
	free(ranges);
}

static struct range *ranges_new(uint32_t n, uint32_t k)
{
	struct range *ranges = calloc(n, sizeof(*ranges));

	for (uint32_t i = 0; ranges && i < n; i++) {
		ranges[i].items = malloc(k * sizeof(*ranges[i].items));
		if (!ranges[i].items) {
			ranges_free(ranges, n);
			return NULL;
		}
	}
	return ranges;
}

/* Writes the ranges of a chunk of n users, in order. */
static int write_ranges(struct run *run, const struct range *ranges, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = 0; i * RANGE_USERS < n && !rc; i++) {
		rc = top_output_write(&run->output, ranges[i].page.text, ranges[i].page.len, run->errstr, sizeof(run->errstr));
		run->counts.users += ranges[i].counts.users;
		run->counts.items += ranges[i].counts.items;
		for (int s = 0; s <= SERVED_POPULARITY; s++)
			run->counts.served[s] += ranges[i].counts.served[s];
	}
	return rc;
}

static int write_users(struct run *run, struct chunk *chunk, const int64_t *ids, size_t n_ids)
{
	uint32_t threads = run->options->threads ? (uint32_t)run->options->threads : parallel_cores();
	uint32_t n_ranges = threads * RANGES_PER_THREAD, chunk_users = n_ranges * RANGE_USERS;
	int rc = 0;

	chunk->ranges = ranges_new(n_ranges, chunk->files->options.k);
	if (!chunk->ranges)
		return -ENOMEM;
	progress_begin(&run->progress, "users", n_ids);
	for (size_t first = 0; first < n_ids && !rc; first += chunk_users) {
		uint32_t n = n_ids - first < chunk_users ? (uint32_t)(n_ids - first) : chunk_users;

		chunk->ids = ids + first;
		rc = parallel_run(threads, n, RANGE_USERS, work_range, chunk, NULL);
		if (!rc)
			rc = write_ranges(run, chunk->ranges, n);
		progress_update(&run->progress, run->counts.users);
	}
	progress_end(&run->progress);
	ranges_free(chunk->ranges, n_ranges);
	return rc;
}

static int from_files(struct run *run)
{
	struct answer_files files = { 0 };
	int64_t *ids = NULL;
	size_t n = 0;
	int rc = answer_files_open("top", run->options->answer, &files, run->errstr, sizeof(run->errstr));

	if (!rc)
		rc = answer_files_users(&files, &ids, &n);
	if (!rc) {
		struct chunk chunk = { .files = &files, .model = files.model_path ? basename(files.model_path) : NULL, .titles = run->options->titles };

		run->counts.generation_first = run->counts.generation_last = files.generation.number;
		rc = write_users(run, &chunk, ids, n);
	}
	free(ids);
	answer_files_close(&files);
	return rc;
}

/* ---- both ---- */

static void print_counts(const struct run *run)
{
	const struct counts *counts = &run->counts;

	fprintf(stderr, "recctl top: %" PRIu64 " users, %" PRIu64 " titles, %" PRIu64 " bytes in %s; served: %" PRIu64 " personalized, %" PRIu64
	                " global, %" PRIu64 " popularity",
	        counts->users, counts->items, run->output.bytes, strcmp(run->options->output, "-") ? run->options->output : "standard output",
	        counts->served[SERVED_PERSONALIZED], counts->served[SERVED_GLOBAL], counts->served[SERVED_POPULARITY]);
	if (counts->generation_last)
		fprintf(stderr, "; generations %" PRIu64 " to %" PRIu64, counts->generation_first, counts->generation_last);
	fputc('\n', stderr);
}

int top_all_run(const struct top_all_options *options)
{
	struct run run = { .options = options };
	int rc = top_output_open(options->output, &run.output, run.errstr, sizeof(run.errstr));

	if (!rc) {
		rc = answer_on_files(options->answer) ? from_files(&run) : from_recd(&run);
		if (!rc)
			rc = top_output_commit(&run.output, run.errstr, sizeof(run.errstr));
		top_output_abandon(&run.output);
	}
	if (rc)
		fprintf(stderr, "recctl top: %s\n", run.errstr[0] ? run.errstr : strerror(-rc));
	else
		print_counts(&run);
	return rc ? EXIT_FAILED : EXIT_OK;
}
