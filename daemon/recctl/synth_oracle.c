/*
 * synth_oracle.c: the true chance of a new positive for every user and title of synthetic logs, from the tables the generator draws from.
 *
 * Runs on recctl's main thread, one row at a time, so memory grows with titles only. A user's chance depends on a title through its set of genres
 * (at most 987) and its popularity, so everything costly is computed per set. The chance of completing is a table over taste, because the incomplete
 * beta function is slow and smooth. Nothing here feeds back into the logs, so libm may be used.
 */
#include "daemon/recctl/synth_oracle.h"

#include "trainer/model/torch_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAIL_STEPS 4096

struct synth_oracle {
	const struct synth_model *model;
	double threshold;
	double mean_bias;
	double tail[TAIL_STEPS + 1];   /* P(completion >= threshold) at taste k / TAIL_STEPS */
	double popular[SYNTH_SIGNATURES_MAX]; /* per signature, for the row at hand: factor of popularity */
	double tasty[SYNTH_SIGNATURES_MAX];   /* ... and of popularity^0.5 */
	double signature_sum[SYNTH_SIGNATURES_MAX]; /* sum of popularity^0.5 over its titles */
	double *root;                         /* [n_items] popularity^0.5 */
};

int synth_oracle_new(const struct synth_model *model, double threshold, struct synth_oracle **ret_oracle)
{
	struct synth_oracle *oracle = calloc(1, sizeof(*oracle));

	if (!oracle || !(oracle->root = malloc(model->n_items * sizeof(*oracle->root)))) {
		free(oracle);
		return -ENOMEM;
	}
	oracle->model = model;
	oracle->threshold = threshold;
	for (uint32_t p = 1; p <= SYNTH_POSITIONS; p++)
		oracle->mean_bias += synth_position_bias(p) / SYNTH_POSITIONS;
	for (uint32_t k = 0; k <= TAIL_STEPS; k++)
		oracle->tail[k] = synth_completion_tail(synth_completion_mean((double)k / TAIL_STEPS), threshold);
	for (uint32_t i = 0; i < model->n_items; i++) {
		oracle->root[i] = sqrt(1.0 / (double)model->items[i].rank);
		oracle->signature_sum[model->items[i].signature] += oracle->root[i];
	}
	*ret_oracle = oracle;
	return 0;
}

void synth_oracle_free(struct synth_oracle *oracle)
{
	if (!oracle)
		return;
	free(oracle->root);
	free(oracle);
}

static double tail_at(const struct synth_oracle *oracle, double taste)
{
	double at = taste * TAIL_STEPS;
	uint32_t k = (uint32_t)at;

	if (k >= TAIL_STEPS)
		return oracle->tail[TAIL_STEPS];
	return oracle->tail[k] + (at - k) * (oracle->tail[k + 1] - oracle->tail[k]);
}

void synth_oracle_row(struct synth_oracle *oracle, uint32_t user, float *chance)
{
	const struct synth_model *model = oracle->model;
	double taste_sum = 0.0;

	for (uint32_t s = 0; s < model->n_signatures; s++) {
		double taste = synth_taste(model, user, s);
		/* chance that an impression becomes a positive, once shown */
		double positive = oracle->mean_bias * (0.03 + 0.6 * taste) * SYNTH_PLAY_CHANCE * tail_at(oracle, taste);

		taste_sum += taste * taste * oracle->signature_sum[s];
		oracle->popular[s] = 0.5 * positive / model->popularity_sum;
		oracle->tasty[s] = 0.5 * positive * taste * taste;
	}
	for (uint32_t s = 0; s < model->n_signatures; s++)
		oracle->tasty[s] /= taste_sum;
	for (uint32_t i = 0; i < model->n_items; i++) {
		uint32_t s = model->items[i].signature;
		double root = oracle->root[i];

		chance[i] = (float)(root * (root * oracle->popular[s] + oracle->tasty[s]));
	}
}

/* Appends n numbers from 0 to a tensor of int64. */
static void append_ids(struct torch_writer *writer, unsigned tensor, uint32_t n)
{
	int64_t ids[512];

	for (uint32_t begin = 0; begin < n;) {
		uint32_t count = n - begin < 512 ? n - begin : 512;

		for (uint32_t k = 0; k < count; k++)
			ids[k] = begin + k;
		torch_writer_append(writer, tensor, ids, count * sizeof(ids[0]));
		begin += count;
	}
}

static int write_tensors(struct synth_oracle *oracle, struct torch_writer *writer, float *row, struct progress *progress,
                         const volatile sig_atomic_t *stop)
{
	const struct synth_model *model = oracle->model;

	append_ids(writer, 0, model->n_users);
	append_ids(writer, 1, model->n_items);
	for (uint32_t u = 0; u < model->n_users; u++) {
		synth_oracle_row(oracle, u, row);
		int rc = torch_writer_append(writer, 2, row, model->n_items * sizeof(*row));
		if (rc || (stop && *stop))
			return rc ? rc : -EINTR;
		if (progress)
			progress_update(progress, u);
	}
	return 0;
}

/* Opens the directory of a path. *ret_name: the last component. The descriptor, or -errno. */
static int open_parent(const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char dir[4096] = ".";

	*ret_name = slash ? slash + 1 : path;
	if (slash) {
		size_t len = slash == path ? 1 : (size_t)(slash - path);

		if (len >= sizeof(dir))
			return -ENAMETOOLONG;
		memcpy(dir, path, len);
		dir[len] = '\0';
	}
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int synth_oracle_write(struct synth_oracle *oracle, const char *path, struct progress *progress, const volatile sig_atomic_t *stop,
                       char *errstr, size_t errstr_size)
{
	const struct synth_model *model = oracle->model;
	const uint64_t users = model->n_users, items = model->n_items, shape[2] = { users, items };
	struct torch_writer *writer = torch_writer_new(1u << 20);
	float *row = malloc(model->n_items * sizeof(*row));
	char temporary[64], number[64];
	const char *name;
	int rc = -ENOMEM, dir_fd = open_parent(path, &name);

	if (dir_fd < 0) {
		rc = dir_fd;
		snprintf(errstr, errstr_size, "%s: cannot open its directory: %s", path, strerror(-rc));
		goto out;
	}
	snprintf(errstr, errstr_size, "out of memory");
	if (!writer || !row)
		goto out;
	snprintf(temporary, sizeof(temporary), ".oracle.%ld.tmp", (long)getpid());
	unlinkat(dir_fd, temporary, 0); /* left by a killed run that had this number */
	torch_writer_add_tensor(writer, "user_ids", TORCH_I64, 1, &users);
	torch_writer_add_tensor(writer, "item_ids", TORCH_I64, 1, &items);
	torch_writer_add_tensor(writer, "chance", TORCH_F32, 2, shape);
	snprintf(number, sizeof(number), "%g", oracle->threshold);
	torch_writer_add_string(writer, "min_pos_completion", number);
	snprintf(number, sizeof(number), "%" PRIu64, model->seed);
	torch_writer_add_string(writer, "seed", number);
	rc = torch_writer_begin(writer, dir_fd, temporary, errstr, errstr_size);
	if (rc)
		goto out;
	rc = write_tensors(oracle, writer, row, progress, stop);
	if (rc == -EINTR)
		goto out;
	rc = torch_writer_finish(writer, errstr, errstr_size); /* tells the first failure of write_tensors too */
	if (!rc && renameat(dir_fd, temporary, dir_fd, name)) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: cannot rename to it: %s", path, strerror(-rc));
		unlinkat(dir_fd, temporary, 0);
	}
out:
	torch_writer_free(writer);
	free(row);
	if (dir_fd >= 0)
		close(dir_fd);
	return rc;
}
