/*
 * checkpoint_recover.c: which generation to start from. Runs on the thread that starts the daemon, or recctl's main thread.
 *
 * Generations are tried from the newest down; the link `latest` is not trusted. A damaged one is named in `skipped` and the one before is tried. A
 * generation of another emb_dim, impressions_max or format is refused, not skipped: an older one would silently lose data. When nothing good is
 * left but something was there before (a generation, or the mark INITIALISED), the data directory is refused: recd never starts empty over a loss.
 *
 * recctl reads the same way, beside a recd that writes and prunes: a generation that is gone when its reading has failed is not bad, and the list is made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/model/atomic_dir.h"
#include "trainer/model/checkpoint_schema.h"

#define LIST_TRIES 8

static void note_skipped(struct checkpoint_loaded *loaded, uint64_t number, const char *reason)
{
	const size_t used = strlen(loaded->skipped);

	snprintf(loaded->skipped + used, sizeof(loaded->skipped) - used, "%scheckpoints/%06" PRIu64 ": %s", used == 0 ? "" : "\n", number, reason);
	if (loaded->n_bad < CHECKPOINT_BAD_MAX)
		loaded->bad[loaded->n_bad++] = number;
}

/* What survives a failed try: the list of bad generations. */
static void loaded_reset(struct checkpoint_loaded *loaded)
{
	struct checkpoint_loaded kept = { 0 };

	memcpy(kept.skipped, loaded->skipped, sizeof(kept.skipped));
	memcpy(kept.bad, loaded->bad, sizeof(kept.bad));
	kept.n_bad = loaded->n_bad;
	checkpoint_loaded_free(loaded);
	*loaded = kept;
}

static int nothing_good(int data_dir_fd, size_t n_generations, const struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size)
{
	struct stat st;
	const int marked = fstatat(data_dir_fd, FILE_INITIALISED, &st, AT_SYMLINK_NOFOLLOW) == 0;

	if (n_generations == 0 && !marked)
		return -ENOENT;
	if (n_generations == 0)
		snprintf(errstr, errstr_size, "the data directory was in use before (" FILE_INITIALISED " is there) but has no checkpoint: restore "
		         "checkpoints/ from a backup, or remove " FILE_INITIALISED " to start from the logs");
	else
		snprintf(errstr, errstr_size, "none of %zu checkpoints is good: restore one from a backup, or move checkpoints/ and "
		         FILE_INITIALISED " away to start from the logs\n%s", n_generations, loaded->skipped);
	return -EUCLEAN;
}

/* A recd that saves meanwhile prunes: then what was listed is no longer there, and newer ones are. */
static int is_gone(struct atomic_dir *dir, uint64_t number)
{
	char ignored[256];
	int fd = -1;
	const int rc = atomic_dir_open_generation(dir, number, &fd, ignored, sizeof(ignored));

	if (fd >= 0)
		close(fd);
	return rc == -ENOENT;
}

struct recovery {
	struct atomic_dir *dir;
	const struct state_config *wanted;
	const struct state_rules *rules;
	uint32_t emb_dim;
	void (*beat)(void *ctx, const char *what);
	void *ctx;
	struct checkpoint_loaded loaded;
	char *err;
	size_t err_size;
};

/* From the newest down. 0; -ENOENT: none is good; -EAGAIN: one went away while it was read; other errors are no generation's fault. */
static int try_generations(struct recovery *r, const uint64_t *numbers, size_t n)
{
	char text[512];

	for (size_t i = 0; i < n; i++) {
		int fd = -1, tried = atomic_dir_open_generation(r->dir, numbers[i], &fd, text, sizeof(text));

		if (tried == 0)
			tried = checkpoint_load_generation(fd, r->wanted, r->emb_dim, r->rules, r->beat, r->ctx, &r->loaded, text, sizeof(text));
		if (fd >= 0)
			close(fd);
		if (tried == 0) {
			r->loaded.number = (uint32_t)numbers[i];
			return 0;
		}
		if (tried == -EMEDIUMTYPE || tried == -ENOMEM || tried == -EMFILE || tried == -ENFILE || tried == -EACCES) {
			/* not the generation's fault: an older one would not be better */
			snprintf(r->err, r->err_size, "checkpoints/%06" PRIu64 ": %s", numbers[i], text);
			return tried;
		}
		loaded_reset(&r->loaded);
		if (is_gone(r->dir, numbers[i]))
			return -EAGAIN;
		note_skipped(&r->loaded, numbers[i], text);
	}
	return -ENOENT;
}

int checkpoint_load(int data_dir_fd, const struct state_config *wanted, uint32_t emb_dim, const struct state_rules *rules,
                    void (*beat)(void *ctx, const char *what), void *ctx, struct checkpoint_loaded *ret_loaded, char *errstr, size_t errstr_size)
{
	struct recovery r = { .wanted = wanted, .rules = rules, .emb_dim = emb_dim, .beat = beat, .ctx = ctx, .err = errstr, .err_size = errstr_size };
	uint64_t *numbers = NULL;
	size_t n = 0;
	int rc = atomic_dir_open(data_dir_fd, 0, &r.dir, errstr, errstr_size);

	if (rc == -ENOENT)
		return nothing_good(data_dir_fd, 0, &r.loaded, errstr, errstr_size);
	if (rc < 0)
		return rc;
	for (int tries = 0; tries < LIST_TRIES; tries++) {
		free(numbers);
		numbers = NULL;
		checkpoint_loaded_free(&r.loaded);
		rc = atomic_dir_list(r.dir, &numbers, &n, errstr, errstr_size);
		if (rc == 0)
			rc = try_generations(&r, numbers, n);
		if (rc != -EAGAIN)
			break;
	}
	if (rc == -ENOENT)
		rc = nothing_good(data_dir_fd, n, &r.loaded, errstr, errstr_size);
	else if (rc == -EAGAIN)
		snprintf(errstr, errstr_size, "checkpoints are removed faster than they can be read; copy one, and read the copy");
	free(numbers);
	atomic_dir_close(r.dir);
	if (rc == 0)
		*ret_loaded = r.loaded;
	else
		checkpoint_loaded_free(&r.loaded);
	return rc;
}

int checkpoint_tidy(int data_dir_fd, char *errstr, size_t errstr_size)
{
	struct atomic_dir *dir = NULL;
	const int rc = atomic_dir_open(data_dir_fd, ATOMIC_DIR_WRITE, &dir, errstr, errstr_size);

	atomic_dir_close(dir);
	return rc;
}

void checkpoint_loaded_free(struct checkpoint_loaded *loaded)
{
	if (loaded == NULL)
		return;
	state_free(loaded->state);
	tables_free(&loaded->tables);
	free(loaded->positions);
	memset(loaded, 0, sizeof(*loaded));
}
