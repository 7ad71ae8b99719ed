/*
 * cpu_backend.h: what the files of the CPU backend share (backend_cpu.c, cpu_fast.c, cpu_deterministic.c).
 */
#ifndef TRAINER_LEARN_CPU_BACKEND_H
#define TRAINER_LEARN_CPU_BACKEND_H

#include "trainer/learn/backend.h"
#include "trainer/learn/cpu_kernels.h"
#include "trainer/learn/cpu_pool.h"
#include "trainer/learn/cpu_tuner.h"
#include "trainer/learn/sampler.h"

struct batch_work; /* cpu_deterministic.c */

struct backend {
	const struct learn_options *options; /* the learner's; read when a job starts */
	const struct training_set *set;      /* the learner's */
	const struct row_kernels *kernels;
	struct cpu_pool *pool;
	struct cpu_tuner tuner; /* how many of the pool's threads train in fast mode */
	uint32_t dim, stride; /* stride: dim rounded up to 16 */
	uint32_t n_users, n_items;
	const int64_t *user_ids, *item_ids; /* the state's */
	float *U, *V; /* [n_users, stride], [n_items, stride]; padding is zero and stays zero */
	struct user_side *users;
	struct item_side *items;
	uint32_t epoch;  /* moves at each pull; user rows carry the epoch of their last change */
	uint64_t passes; /* passes the Adagrad sums have forgotten for */
	struct train_report last;
	struct batch_work *work; /* deterministic mode only */
};

/* CLOCK_MONOTONIC in microseconds. */
int64_t cpu_now_us(void);
/* The settings of a job, as the kernels take them. */
struct row_update cpu_row_update(const struct backend *backend, const struct train_job *job);
/* Both train in place and fill the report. -ENOMEM: nothing was trained. */
int cpu_train_fast(struct backend *backend, const struct train_job *job, struct train_report *ret_report);
int cpu_train_deterministic(struct backend *backend, const struct train_job *job, struct train_report *ret_report);
void cpu_batch_work_free(struct batch_work *work);

#endif
