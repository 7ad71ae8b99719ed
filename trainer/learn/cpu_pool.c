/*
 * cpu_pool.c: threads that live as long as the backend and sleep between jobs (cpu_pool.h).
 *
 * The caller is thread 0. A job is a generation number: workers wait for it to move, first spinning for some microseconds (the deterministic mode
 * runs several short jobs a batch), then on a condition variable. Everything written before a job is seen in it, everything written in it is seen
 * after it.
 */
#include "trainer/learn/cpu_pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 2000

struct worker {
	struct cpu_pool *pool;
	uint32_t index;
	pthread_t thread;
};

struct cpu_pool {
	uint32_t n_threads;
	uint32_t n_started;
	cpu_pool_fn fn;
	void *ctx;
	atomic_uint generation; /* moved by the caller, under the lock */
	atomic_uint running;    /* workers still in the job */
	atomic_int stop;
	pthread_mutex_t lock;
	pthread_cond_t start, done;
	struct worker workers[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static unsigned wait_for_job(struct cpu_pool *pool, unsigned seen)
{
	for (int i = 0; i < SPINS; i++) {
		unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
		if (now != seen)
			return now;
		pause_cpu();
	}
	pthread_mutex_lock(&pool->lock);
	while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen)
		pthread_cond_wait(&pool->start, &pool->lock);
	unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
	pthread_mutex_unlock(&pool->lock);
	return now;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct cpu_pool *pool = worker->pool;
	unsigned seen = 0;
	for (;;) {
		seen = wait_for_job(pool, seen);
		if (atomic_load(&pool->stop))
			return NULL;
		pool->fn(pool->ctx, worker->index, pool->n_threads);
		if (atomic_fetch_sub_explicit(&pool->running, 1, memory_order_acq_rel) == 1) {
			pthread_mutex_lock(&pool->lock);
			pthread_cond_signal(&pool->done);
			pthread_mutex_unlock(&pool->lock);
		}
	}
}

static void next_generation(struct cpu_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
	pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);
}

int cpu_pool_new(uint32_t n_threads, struct cpu_pool **ret_pool)
{
	struct cpu_pool *pool = calloc(1, sizeof *pool + n_threads * sizeof *pool->workers);
	if (!pool)
		return -ENOMEM;
	pool->n_threads = n_threads;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->start, NULL);
	pthread_cond_init(&pool->done, NULL);
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = 0;
	for (uint32_t i = 1; i < n_threads && rc == 0; i++) {
		struct worker *worker = &pool->workers[i];
		worker->pool = pool;
		worker->index = i;
		rc = pthread_create(&worker->thread, NULL, worker_main, worker);
		if (rc == 0)
			pool->n_started++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		cpu_pool_free(pool);
		return -rc;
	}
	*ret_pool = pool;
	return 0;
}

void cpu_pool_free(struct cpu_pool *pool)
{
	if (!pool)
		return;
	atomic_store(&pool->stop, 1);
	next_generation(pool);
	for (uint32_t i = 1; i <= pool->n_started; i++)
		pthread_join(pool->workers[i].thread, NULL);
	pthread_cond_destroy(&pool->done);
	pthread_cond_destroy(&pool->start);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void cpu_pool_run(struct cpu_pool *pool, cpu_pool_fn fn, void *ctx)
{
	if (pool->n_threads > 1) {
		pool->fn = fn;
		pool->ctx = ctx;
		atomic_store_explicit(&pool->running, pool->n_threads - 1, memory_order_relaxed);
		next_generation(pool);
	}
	fn(ctx, 0, pool->n_threads);
	if (pool->n_threads == 1)
		return;
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load_explicit(&pool->running, memory_order_acquire) == 0)
			return;
		pause_cpu();
	}
	pthread_mutex_lock(&pool->lock);
	while (atomic_load_explicit(&pool->running, memory_order_acquire) != 0)
		pthread_cond_wait(&pool->done, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
}

uint32_t cpu_pool_threads(const struct cpu_pool *pool)
{
	return pool->n_threads;
}
