/*
 * checkpoint.h: the cut on disk, and back. Three PyTorch files in one numbered directory, written by a background thread.
 *
 * checkpoints/000042/model_bpr.pt              global model
 * checkpoints/000042/model_bpr_personalized.pt the same item tables, personal rows where there are any
 * checkpoints/000042/state.pt                  histories, catalogue, positions, counters, accumulators, training progress
 * All three carry the same `cut` string (generation number, step, digest), so that files of different cuts are never mixed. docs/FORMATS.md lists the keys.
 */
#ifndef TRAINER_MODEL_CHECKPOINT_H
#define TRAINER_MODEL_CHECKPOINT_H

#include "trainer/model/generation.h"

/* Everything of one publish point. Not owned, but must stay as it is until the write has ended. */
struct checkpoint_cut {
	const struct generation *generation; /* pinned */
	const struct state *state;           /* for what is derived (positives) */
	struct state_cut *cut;               /* walked by the writer */
	const int64_t *user_ids, *item_ids;  /* the state's; stable */
	const char *const *surfaces;         /* [n_surfaces], index from 1 on */
	uint32_t n_surfaces;
	const struct source_position *positions;
	size_t n_positions;
	struct state_config state_config;    /* hash_seed, impressions_max ... */
	struct state_rules rules;
	int64_t dead_letter_length;          /* bytes of the dead-letter file; -1: none */
	uint64_t dead_letter_dropped;
	int64_t model_clock_us;
	uint32_t personalize_min_positives;  /* rows of users with fewer are saved as the global row */
	int rows_of_all;                     /* 1: users without positives keep their rows, too (an imported model); 0: they get the mean row */
	const uint64_t *bad;                 /* [n_bad] generations found damaged at start: they do not count as kept */
	size_t n_bad;
};

struct checkpoint_progress {
	uint64_t bytes_written; /* relaxed atomics; read by the status page */
	uint64_t users_done;
	uint32_t cancel;        /* set to 1 to stop early: -ECANCELED, temporary gone */
};

struct checkpoint_result {
	uint32_t number; /* checkpoints/<number> */
	uint64_t bytes;
	int64_t duration_us;
};

/*
 * Writes a generation durably: files, fsync, rename, directory fsync, link, stable links, prune to `keep`. data_dir_fd is the data directory.
 * 0 only when everything is durable. On error the old generations are intact, the temporary directory is gone, errstr names the step.
 */
int checkpoint_write(int data_dir_fd, const struct checkpoint_cut *cut, uint32_t keep, struct checkpoint_progress *progress,
                     struct checkpoint_result *ret_result, char *errstr, size_t errstr_size);

#define CHECKPOINT_BAD_MAX 64

/* Removes what an interrupted write left behind. For a daemon that has recovered and holds the lock. 0 or -errno with errstr. */
int checkpoint_tidy(int data_dir_fd, char *errstr, size_t errstr_size);

/* What a checkpoint gives back. */
struct checkpoint_loaded {
	uint32_t number;
	uint64_t generation_number;
	struct state *state;            /* owned by the caller; NULL when asked without */
	struct tables tables;           /* U V bu bi acc; owned by the caller */
	float intercept;
	struct learner_progress progress;
	struct source_position *positions; /* malloc'd */
	size_t n_positions;
	int64_t dead_letter_length;
	uint64_t dead_letter_dropped;
	int64_t model_clock_us;
	uint64_t hash_seed;
	struct state_digest digest;     /* as recorded; the loaded state was checked against it */
	char skipped[1024];             /* generations that were found bad, one line each, with the reason; "" */
	uint64_t bad[CHECKPOINT_BAD_MAX]; /* their numbers */
	size_t n_bad;
};
void checkpoint_loaded_free(struct checkpoint_loaded *loaded);

/*
 * Loads the newest good generation. `wanted`: emb_dim and impressions_max of the configuration; a checkpoint that differs is refused with a clear error
 * (-EMEDIUMTYPE), not skipped. NULL: whatever shape and size it has, for who only asks; emb_dim is not looked at then. -ENOENT: a first start (no generation, no
 * INITIALISED). -EUCLEAN: generations or INITIALISED exist but none is good: refuse. Nothing is changed, and a recd that prunes meanwhile does no harm: a
 * generation that goes while it is read is not a bad one, and the newest are looked for again.
 * `beat`, when not NULL, is called now and then while loading (sd_notify EXTEND_TIMEOUT).
 */
int checkpoint_load(int data_dir_fd, const struct state_config *wanted, uint32_t emb_dim, const struct state_rules *rules,
                    void (*beat)(void *ctx, const char *what), void *ctx, struct checkpoint_loaded *ret_loaded, char *errstr, size_t errstr_size);

/*
 * Loads one generation out of its directory; `wanted` as above. -EBADMSG: damaged, try an older one. -EMEDIUMTYPE: whole, but of another shape or format than
 * wanted. `loaded` (zero before) may be filled in part on failure: checkpoint_loaded_free() it in either case.
 */
int checkpoint_load_generation(int dir_fd, const struct state_config *wanted, uint32_t emb_dim, const struct state_rules *rules,
                               void (*beat)(void *ctx, const char *what), void *ctx, struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size);

/* Model files alone, for recctl: writes / reads one .pt with the four tensors and the ids. */
struct model_file {
	struct tables tables;
	int64_t *user_ids, *item_ids;
	char kind[16];  /* "global" or "personalized"; "" when the file does not say */
};
int model_file_write(int dir_fd, const char *name, const struct tables *tables, const int64_t *user_ids, const int64_t *item_ids, const char *kind,
                     char *errstr, size_t errstr_size);
int model_file_read(const char *path, struct model_file *ret_file, char *errstr, size_t errstr_size);
void model_file_free(struct model_file *file);

#endif
