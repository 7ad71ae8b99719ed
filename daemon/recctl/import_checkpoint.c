/*
 * import_checkpoint.c: writes an imported model as a checkpoint with an empty state (import_checkpoint.h). Main thread of recctl, under the data directory's lock.
 *
 * The checkpoint is written by the same code as recd's own. Adagrad sums begin at ACC_BEGIN instead of 0, with which the first step of a row would be as long as
 * the learning rate allows and undo much of what was learnt elsewhere. Plain gradient steps have no such memory: there the rows move at the full rate while the
 * logs are news, and settle again (docs/FORMATS.md).
 */
#include "daemon/recctl/import_checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/lock.h"
#include "daemon/recctl/load_logs.h"

#define ACC_BEGIN 1.0f
#define KEEP 3u

static int open_data_dir(const char *data_dir, char *errstr, size_t errstr_size)
{
	int rc = mkdir(data_dir, 0750) && errno != EEXIST ? -errno : 0;
	int fd = rc ? -1 : open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		rc = rc ? rc : -errno;
		snprintf(errstr, errstr_size, "%s: %s", data_dir, strerror(-rc));
		return rc;
	}
	return fd;
}

static int refuse_used(int fd, const char *data_dir, char *errstr, size_t errstr_size)
{
	static const char *const signs[] = { "checkpoints", "INITIALISED", "model_bpr.pt", "model_bpr_personalized.pt" };
	struct stat st;

	for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
		if (fstatat(fd, signs[i], &st, AT_SYMLINK_NOFOLLOW))
			continue;
		snprintf(errstr, errstr_size, "%s is in use already (%s is there): recd starts from its own checkpoints; name an empty directory", data_dir,
		         signs[i]);
		return -EEXIST;
	}
	return 0;
}

/* A state with the model's ids and nothing else. */
static int make_state(const struct model_file *model, const struct state_config *config, const struct state_rules *rules, struct state **ret_state,
                      char *errstr, size_t errstr_size)
{
	struct state *state = NULL;
	int rc = state_new(config, rules, &state, errstr, errstr_size);

	if (!rc)
		rc = load_enter_ids(state, model, errstr, errstr_size);
	if (rc)
		state_free(state);
	else
		*ret_state = state;
	return rc;
}

static void fill_generation(const struct model_file *model, struct generation *generation)
{
	const struct tables *tables = &model->tables;
	double intercept = 0;

	generation->tables = *tables;
	generation->number = 1;
	generation->progress.seed = 42;
	for (uint32_t u = 0; u < tables->n_users; u++) {
		tables->acc_user[u] = ACC_BEGIN;
		intercept += ((double)tables->bu[u] - intercept) / (u + 1.0);
		for (uint32_t d = 0; d < tables->dim; d++)
			generation->mean_user[d] += (tables->U[(size_t)u * tables->dim + d] - generation->mean_user[d]) / (float)(u + 1);
	}
	for (uint32_t i = 0; i < tables->n_items; i++)
		tables->acc_item[i] = ACC_BEGIN;
	generation->intercept = (float)intercept;
}

static int write_cut(int fd, const struct model_file *model, uint32_t impressions_max, struct checkpoint_result *ret_result, char *errstr,
                     size_t errstr_size)
{
	struct generation generation = { 0 };
	struct checkpoint_progress progress = { 0 };
	struct state_config config = { .users_max = model->tables.n_users + 1, .items_max = model->tables.n_items + 1, .impressions_max = impressions_max,
		                       .row_bytes = personal_row_bytes(model->tables.dim) };
	struct checkpoint_cut cut = { .generation = &generation, .user_ids = model->user_ids, .item_ids = model->item_ids,
		                      .rules = { .min_pos_completion = 0.6f, .negative_after_us = 1800 * INT64_C(1000000) }, .dead_letter_length = -1,
		                      .personalize_min_positives = UINT32_MAX, .rows_of_all = 1 };
	struct state *state = NULL;
	int rc = 0;

	if (getrandom(&config.hash_seed, sizeof(config.hash_seed), 0) < 0)
		config.hash_seed = (uint64_t)getpid();
	generation.mean_user = calloc(model->tables.dim, sizeof(*generation.mean_user));
	if (!generation.mean_user) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	fill_generation(model, &generation);
	rc = make_state(model, &config, &cut.rules, &state, errstr, errstr_size);
	if (!rc) {
		rc = state_cut_begin(state, &cut.cut);
		if (rc)
			snprintf(errstr, errstr_size, "out of memory");
	}
	if (!rc) {
		cut.state = state;
		cut.state_config = config;
		rc = checkpoint_write(fd, &cut, KEEP, &progress, ret_result, errstr, errstr_size);
		state_cut_end(cut.cut);
	}
	state_free(state);
	free(generation.mean_user);
	return rc;
}

int import_checkpoint(const char *data_dir, const struct model_file *model, uint32_t impressions_max, struct checkpoint_result *ret_result, char *errstr,
                      size_t errstr_size)
{
	int lock_fd = -1, fd = open_data_dir(data_dir, errstr, errstr_size);

	if (fd < 0)
		return fd;
	int rc = lock_take(fd, data_dir, &lock_fd, errstr, errstr_size);
	if (!rc)
		rc = refuse_used(fd, data_dir, errstr, errstr_size);
	if (!rc)
		rc = write_cut(fd, model, impressions_max, ret_result, errstr, errstr_size);
	lock_release(lock_fd);
	close(fd);
	return rc;
}
