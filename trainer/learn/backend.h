/*
 * backend.h: what moves the parameters. One constant table of functions per backend (cpu, cuda). C and C++ (nvcc) read this header.
 *
 * The learner (learn.h) owns the training set and drives a backend; the engine and recctl never call a backend themselves. All calls come from one
 * thread, the engine's. Host memory is the truth: a backend that loses its device can be rebuilt from the training set and a tables copy.
 */
#ifndef TRAINER_LEARN_BACKEND_H
#define TRAINER_LEARN_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/learn/tables.h"

struct backend;
struct training_set;        /* sampler.h */
struct personalize_options; /* personalize.h */

enum optimizer { OPTIMIZER_SGD, OPTIMIZER_ADAGRAD };
/* BPR: rank a positive above its negative. BCE: predict each of the two by itself (labels 1 and 0), over the same triples. */
enum loss { LOSS_BPR, LOSS_BCE };
/* In which order the positives are walked: at random, or in short runs of one user (sampler.h), whose row then stays in the nearest cache. Offline only. */
enum walk_order { ORDER_SHUFFLED, ORDER_GROUPED };
/* How a backend stores its working tables; arithmetic is fp32 always, and so are copies (struct tables). bf16: CUDA, fast mode only. */
enum precision { PRECISION_FP32, PRECISION_BF16 };

/*
 * Skips of a user for the sampler. `list` writes at most max item indexes and returns how many it wrote; called only from inside learner_train(),
 * from any training thread, while nothing is being applied. Must not allocate.
 */
struct skip_source {
	size_t (*list)(void *ctx, uint32_t user, uint32_t *ret_items, size_t max);
	void *ctx;
	/* Instead of `list`: lists that stay as they are. Those of user u < n_users are items[offsets[u]..offsets[u + 1]), any number; users behind have none. */
	const uint64_t *offsets; /* [n_users + 1], NULL: `list` is called. Not owned */
	const uint32_t *items;
	uint32_t n_users;
};

struct learn_options {
	uint32_t emb_dim;          /* 1..512 */
	uint64_t seed;
	uint32_t threads;          /* CPU threads, the calling one included */
	int deterministic;         /* 1: synchronous batches, bit-identical on every backend and thread count */
	uint32_t batch_size;       /* triples of a step */
	int32_t optimizer;         /* enum optimizer */
	int32_t loss;              /* enum loss */
	int32_t precision;         /* enum precision; must stay, like emb_dim */
	int32_t order;             /* enum walk_order; must stay */
	float learning_rate;
	float reg_user, reg_pos, reg_neg, reg_bias; /* L2 weights */
	float adagrad_forget;      /* share of the Adagrad sums forgotten per pass over the positives; 0: never */
	float init_scale;          /* rows start as uniform(-0.5, 0.5) * init_scale / emb_dim, from (seed, external id) */
	/* Shares of the negatives, together at most 1; the rest is uniform over the candidates. All are verified (negatives.h). */
	float skip_share;          /* from the user's skips */
	float popular_share;       /* in proportion to (positives of the item)^popular_power */
	float popular_power;       /* 0..2 */
	float hard_share;          /* the highest scored of hard_of uniform candidates */
	uint32_t hard_of;          /* 1..64; deterministic mode scores by the parameters at the batch's start */
	uint32_t recent_passes;    /* times each new positive is drawn soon after it came, online; 0: none */
	float recent_share;        /* share of a slice's triples given to recent positives while some wait */
	float step_norm_max;       /* a row's step is clipped to this norm (divergence guard) */
};

/* Work for one call of train(): as many whole chunks as fit. */
struct train_job {
	uint64_t triples_max; /* stop after this many triples */
	int64_t budget_us;    /* stop after this long (CLOCK_MONOTONIC); 0: no limit. Deterministic mode ends at whole batches */
	float learning_rate;  /* for this job */
};

struct train_report {
	uint64_t triples;     /* triples that moved parameters */
	uint64_t rejected;    /* draws without a valid negative (a user with all items positive), skipped */
	double loss;          /* mean loss over a sample of this job's triples (BPR: -ln sigmoid(x_pos - x_neg); BCE: -ln sigmoid(x_pos) and
	                       * -ln sigmoid(-x_neg), halved); weights left out; NaN when none */
	int nonfinite;        /* 1: a non-finite value was met */
	uint32_t threads;     /* of the CPU that train now: at most options.threads, fewer while fewer get more done; 0: a device, or nothing was trained */
};

/* A batch of users to personalize (personalize.h): user k has the positives [offsets[k], offsets[k + 1]). Everything is the caller's. */
struct personalize_batch {
	uint32_t n;
	const float *starts;         /* [n, emb_dim] rows to begin at */
	const uint64_t *offsets;     /* [n + 1] */
	const uint32_t *positives;   /* [offsets[n]] item indexes */
	const uint32_t *candidates;  /* [n_candidates] */
	uint32_t n_candidates;
	const struct personalize_options *options;
	const uint64_t *seeds; /* [n] of each user's draws; NULL: options->seed for all */
	float *ret_rows; /* [n, emb_dim]; row k is written when ret_rcs[k] is 0 */
	int *ret_rcs;    /* [n] as personalize_row() returns */
	uint32_t wait_us; /* the call gives up after about so long; 0: it takes what it takes */
};

/* A batch of top-K queries: the k items with the highest dot(row, V[i]) + bi[i] outside the user's masked ones; ties: the lower index first. */
struct topk_batch {
	uint32_t n, k;             /* k: 1..TOPK_BATCH_MAX */
	const float *rows;         /* [n, emb_dim] */
	const uint64_t *offsets;   /* [n + 1] into masked */
	const uint32_t *masked;    /* item indexes, ascending within a user */
	uint32_t *ret_items;       /* [n, k]; UINT32_MAX after the last */
	float *ret_scores;         /* [n, k] */
};
#define TOPK_BATCH_MAX 1024u

/* The device that a backend works on, for status and logs. */
struct device_facts {
	char name[96];          /* "NVIDIA H100 80GB HBM3" */
	char driver[32];        /* of the kernel, as nvidia-smi shows it: "580.65.06"; empty: not told, or none */
	char cuda[16];          /* the newest CUDA that the driver supports: "13.0"; empty: none */
	uint64_t memory_bytes, memory_used_bytes; /* of the device; 0: host memory */
	uint64_t failures;      /* times the device was lost or refused memory since open */
	char trouble[160];      /* the last failure in words; empty: none */
};

/*
 * required unless marked optional. Errors: 0 or -errno, errstr filled where given.
 *   probe   can this backend run here? 0, or -ENODEV and the reason in words.
 *   open    allocates; keeps `set` and `options` (not owned) for its lifetime; options are read anew when a job starts. *ret_backend owned by the
 *           caller.
 *   grow    rows for n_users, n_items; new rows are initialised from (seed, external id). ids arrays stay valid. May be
 *           called while a job runs, which keeps to the rows it began with; does not wait for it, and the rows may be made only by the next train, pull or push,
 *           which then also tells that there was no room.
 *   changed the training set changed since the last call (incremental upload). NULL: the backend works in host memory and in the caller's time (the CPU's);
 *           one that has it works on a device, and its -EIO and -ENOMEM are the device's.
 *   train   runs a job; CPU: synchronous. Asynchronous backends return at once, poll() says when the report is ready. Called only while none runs. A job
 *           reads set, options and skips before train() returns, never later: it draws from the set, and goes by the options, as they were then.
 *   poll    1: idle (ret_report of the last job filled), 0: still running. CPU: always 1. Never blocks, not even when the device hangs.
 *   wait    until idle.
 *   pull    brings `copy` up to date: V, bi, accumulators, and the U rows trained since copy->epoch; grows copy as needed; checks for NaN and Inf in the
 *           same pass: -ERANGE when one was found (copy is then not usable and must be pulled again after a push). bu is not touched.
 *   push    overwrites the working parameters with `copy` (rollback, restore). Rows beyond copy's are initialised anew.
 *   personalize, topk
 *           optional: batches over the item tables as the last pull saw them, which training since does not touch. Synchronous. -EAGAIN: not now
 *           (wait_us is over, an earlier batch that was given up has not ended, or there is room for so many users only when no job runs); nothing was written.
 *   facts   optional: fills ret_facts; cheap, never waits for a job; also after a failure.
 *   close   must come back even when the device is lost.
 *   -EIO from any of them: the device is lost and this backend is of no more use but to be closed; the host's copy is the truth (learner_replace_backend).
 *   -ENOMEM: nothing changed. A pull that fails may leave the copy half filled; its epoch is then worthless.
 */
struct backend_ops {
	const char *name; /* "cpu", "cuda" */
	int (*probe)(char *reason, size_t reason_size);
	int (*open)(const struct learn_options *options, const struct training_set *set, struct backend **ret_backend, char *errstr,
	            size_t errstr_size);
	void (*close)(struct backend *backend);
	int (*grow)(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids);
	int (*changed)(struct backend *backend);
	int (*train)(struct backend *backend, const struct train_job *job, struct train_report *ret_report);
	int (*poll)(struct backend *backend, struct train_report *ret_report);
	int (*wait)(struct backend *backend, struct train_report *ret_report);
	int (*pull)(struct backend *backend, struct tables *copy);
	int (*push)(struct backend *backend, const struct tables *copy);
	int (*personalize)(struct backend *backend, const struct personalize_batch *batch);
	int (*topk)(struct backend *backend, const struct topk_batch *batch);
	void (*facts)(struct backend *backend, struct device_facts *ret_facts);
};

#ifdef __cplusplus
extern "C" {
#endif
extern const struct backend_ops backend_cpu;
#ifdef __cplusplus
}
#endif
#endif
