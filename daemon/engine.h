/*
 * engine.h: the one writer. Takes batches from the queues, applies them, folds in the touched users, trains in slices, publishes, starts checkpoints.
 */
#ifndef DAEMON_ENGINE_H
#define DAEMON_ENGINE_H

#include "daemon/config.h"
#include "daemon/quality.h"
#include "daemon/queue.h"
#include "trainer/model/checkpoint.h"
#include "trainer/model/query.h"

struct engine;

#define ENGINE_POSITIONS_SHOWN 64

/* A consistent picture, refreshed by the engine a few times a second; see docs/METRICS.md for units. */
struct engine_status {
	uint64_t heartbeat;              /* grows with every turn of the engine's loop */
	int ready;                       /* recovery done, answering */
	char phase[32];                  /* "loading", "running", "stopping" */
	char backend[16];
	char backend_reason[256];        /* why the CPU, when auto fell back or a device was lost; "" */
	char precision[8];               /* of the working tables: "fp32", "bf16" */
	char device_name[96];            /* "" where the backend says nothing */
	char device_driver[32];          /* the kernel's driver, "580.65.06"; "" not told */
	char device_cuda[16];            /* the newest CUDA that it supports, "13.0" */
	uint64_t device_memory_bytes, device_memory_used_bytes; /* 0: host memory */
	int device_lost;                 /* 1: the CPU stands in for a device that was lost */
	uint64_t device_losses;          /* since the start */
	uint64_t device_rebuilds;        /* times it was opened again */
	int64_t device_lost_age_ms;      /* since the last loss; -1: none */
	char device_trouble[256];        /* what was lost last, and why; "" */
	char leave[256];                 /* not "": recd is to stop as by SIGTERM and exit with 1, for this reason */
	uint32_t n_users, n_items;
	uint64_t n_positives;
	struct state_counters counters;
	struct state_digest histories_digest;
	struct state_digest positions_digest;
	int64_t time_max_us;             /* largest event time seen */
	uint64_t generation;             /* published generation */
	int64_t publish_age_ms;
	struct learner_progress progress;
	double loss;                     /* running mean */
	double learning_rate;            /* of the next job */
	double triples_per_sec;          /* over the last seconds */
	uint32_t training_threads;       /* of the CPU that train, lately; 0: a GPU trains, or nothing was trained */
	double apply_per_sec;            /* lines, over the last seconds */
	int training_resting;            /* 1: idle_passes reached, waiting for news */
	char training_trouble[160];      /* why the parameters were last set back; "" when they never were in this run */
	uint64_t folded_in;              /* personal rows fitted since the start */
	uint64_t fold_in_waiting;        /* users touched and not folded in yet */
	uint64_t personal_rows;          /* users with a personal row */
	uint64_t refreshed;              /* rows fitted again because of age */
	uint32_t checkpoint_number;      /* last durable one; 0: none */
	int64_t checkpoint_age_ms;       /* since it became durable; -1: none */
	int64_t checkpoint_duration_ms;
	uint64_t checkpoint_bytes;
	uint64_t checkpoint_failures;    /* in a row, since the last success */
	char checkpoint_error[256];      /* of the last failure; "" after a success */
	int checkpoint_running;
	uint64_t checkpoint_users_done;  /* of the one being written */
	int64_t apply_gap_max_us;        /* longest gap between apply slices in the last minute ("stall") */
	int64_t apply_gap_p999_us;       /* 99.9 % of the gaps in the last minute are no longer */
	int64_t checkpoint_gap_p999_us;  /* the same while a checkpoint was written, since the start; 0: none was */
	int64_t dead_letter_length;
	uint64_t dead_letter_dropped;
	uint64_t dead_letter_failures;   /* batches whose refused lines could not be written; they are counted all the same */
	uint64_t memory_bytes;           /* state's own estimate */
	int64_t model_clock_us;
	struct quality_status quality;   /* live quality */
	size_t n_positions;              /* all; the first ENGINE_POSITIONS_SHOWN are copied */
	struct source_position positions[ENGINE_POSITIONS_SHOWN];
	struct source_position positions_rest; /* the counters of all others, summed; name, offset and file stay empty */
};

/*
 * Opens the data directory's newest good generation (or starts empty on a first start) and builds state, learner, publisher. Does not start the thread.
 * The caller holds the lock on the data directory. Errors: -EUCLEAN / -EMEDIUMTYPE: data directory refused; else -errno. `beat` as in checkpoint_load().
 */
int engine_open(const struct config *config, int data_dir_fd, struct queue_set *queues, void (*beat)(void *ctx, const char *what), void *ctx,
                struct engine **ret_engine, char *errstr, size_t errstr_size);
/*
 * Called once for each checkpoint that has become durable, with the positions of its cut (valid during the call) and before anybody who waits for the
 * checkpoint is answered; never for a failed one. On the engine's thread (in engine_close(), the caller's): it must not block or call the engine. Set
 * before engine_start().
 */
void engine_on_durable(struct engine *engine, void (*durable)(void *ctx, const struct source_position *positions, size_t n_positions), void *ctx);
/* Positions of the loaded cut, for opening the sources; valid until engine_start(). */
const struct source_position *engine_positions(const struct engine *engine, size_t *ret_n);
/* Damaged checkpoints that recovery passed over, a line each; "" when there were none. */
const char *engine_skipped_checkpoints(const struct engine *engine);
int engine_start(struct engine *engine, char *errstr, size_t errstr_size);
/* Asks the thread to finish: takes a last checkpoint (unless skip_checkpoint) and ends. Returns at once. */
void engine_request_stop(struct engine *engine, int skip_checkpoint);
/* 1 once the thread has ended; ret_error (0 or -errno of a fatal error) and its text. */
int engine_ended(const struct engine *engine, int *ret_error, char *errstr, size_t errstr_size);
/* Waits for the thread and frees everything. Accepts NULL. */
void engine_close(struct engine *engine);
/* Readable (an eventfd) whenever the thread ends; for the main loop's poll. */
int engine_end_fd(const struct engine *engine);

/* -- any thread -- */
void engine_get_status(struct engine *engine, struct engine_status *ret_status);
/* All positions as they stood at the last refresh of the status; *ret_positions is malloc'd, the caller's. 0 or -ENOMEM. */
int engine_copy_positions(struct engine *engine, struct source_position **ret_positions, size_t *ret_n);
const struct state *engine_state(const struct engine *engine);
struct publisher *engine_publisher(const struct engine *engine);
void engine_query_options(const struct engine *engine, struct query_options *ret_options); /* k left at 10 */
/*
 * Asks for a checkpoint and waits until it is durable, at most timeout_ms. Callers that come while one is being written wait for the next one (which
 * holds everything applied before the call). 0 and the result; -ETIMEDOUT; or the write's error with errstr.
 */
int engine_snapshot(struct engine *engine, int timeout_ms, struct checkpoint_result *ret_result, char *errstr, size_t errstr_size);
/* Hands over a reloaded configuration (reloadable values only); copied. Takes effect at the engine's next turn. */
void engine_reconfigure(struct engine *engine, const struct config *config);
/* Forgets a user (lift=1: takes the mark away); waits until applied. 0; -ENOSPC: a new id and no room for it; -ETIMEDOUT; -ECANCELED: stopping. */
int engine_forget(struct engine *engine, int64_t user_id, int lift, int timeout_ms);

#endif
