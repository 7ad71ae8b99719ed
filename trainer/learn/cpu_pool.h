/*
 * cpu_pool.h: the training threads of the CPU backend; internal to trainer/learn.
 */
#ifndef TRAINER_LEARN_CPU_POOL_H
#define TRAINER_LEARN_CPU_POOL_H

#include <stdint.h>

struct cpu_pool;

typedef void (*cpu_pool_fn)(void *ctx, uint32_t thread, uint32_t n_threads);

/* n_threads >= 1, the caller included: n_threads - 1 are started. Signals stay blocked in them. 0 or -errno. */
int cpu_pool_new(uint32_t n_threads, struct cpu_pool **ret_pool);
/* Stops and joins. NULL is fine. */
void cpu_pool_free(struct cpu_pool *pool);
/* Runs fn(ctx, t, n) for each t in 0..n-1, the caller as thread 0, and returns when all are done. One caller at a time. */
void cpu_pool_run(struct cpu_pool *pool, cpu_pool_fn fn, void *ctx);
uint32_t cpu_pool_threads(const struct cpu_pool *pool);

#endif
