/*
 * parallel.c: hands out ranges of users to threads through one atomic counter. Threads live for one call. The calling thread works too and draws the
 * progress line between its ranges.
 */
#include "daemon/recctl/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "daemon/recctl/progress.h"

#define THREADS_MAX 1024u

struct job {
	int (*work)(void *ctx, uint32_t begin, uint32_t end);
	void *ctx;
	uint32_t n, grain;
	atomic_uint_fast64_t next; /* may run past n */
	atomic_int failure;        /* 0 or -errno */
};

/* One range; 0 when none is left. */
static int do_range(struct job *job)
{
	uint64_t begin = atomic_fetch_add(&job->next, job->grain);

	if (begin >= job->n || atomic_load(&job->failure))
		return 0;
	uint64_t end = begin + job->grain < job->n ? begin + job->grain : job->n;
	int rc = job->work(job->ctx, (uint32_t)begin, (uint32_t)end);
	if (rc)
		atomic_store(&job->failure, rc);
	return 1;
}

static void *worker(void *arg)
{
	while (do_range(arg))
		;
	return NULL;
}

uint32_t parallel_cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	int n = CPU_COUNT(&set);
	return n > 0 ? (uint32_t)n : 1;
}

int parallel_run(uint32_t threads, uint32_t n, uint32_t grain, int (*work)(void *ctx, uint32_t begin, uint32_t end), void *ctx, const char *what)
{
	struct job job = { .work = work, .ctx = ctx, .n = n, .grain = grain ? grain : 1 };
	struct progress progress = { 0 };
	pthread_t ids[THREADS_MAX];
	uint32_t started = 0;

	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	while (started + 1 < threads && !pthread_create(&ids[started], NULL, worker, &job))
		started++; /* with fewer threads than asked for it only takes longer */
	if (what)
		progress_begin(&progress, what, n);
	while (do_range(&job)) {
		uint64_t done = atomic_load(&job.next);

		if (what)
			progress_update(&progress, done < n ? done : n);
	}
	if (what)
		progress_end(&progress);
	for (uint32_t i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	return atomic_load(&job.failure);
}
