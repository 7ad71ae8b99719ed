/*
 * cpu_fast.c: Hogwild training on the host (Niu et al., NIPS 2011). The engine's thread calls, the pool's threads help.
 *
 * Threads take units of UNIT draws off a shared counter until the job's triples or its time are used up, so what was drawn is always a whole
 * prefix of the job. Inside a unit, three chunks of draws are under way: one is proposed (random numbers, and the membership filter begins to come
 * from memory), one is settled (negatives verified), one is applied; update() asks for the rows of the triples some places on. The triples are those of
 * the deterministic mode (sampler.h), in another order only where threads overtake each other.
 */
#include "trainer/learn/cpu_backend.h"
#include "trainer/learn/cpu_hard.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#define UNIT 2048u
#define CHUNK 16u
#define BLOCK 16u /* with hard negatives */
#define STAGES 3u
#define STAGES_HARD 4u

struct fast_job {
	const struct backend *backend;
	struct draw_plan plan;
	struct row_update update;
	uint64_t n_draws;
	uint64_t n_units;
	int64_t deadline_us; /* 0: none */
	atomic_uint_fast64_t next_unit;
	pthread_mutex_t lock; /* over sums */
	struct update_sums sums;
};

static void prefetch_row(const float *row, uint32_t stride)
{
	for (uint32_t k = 0; k < stride; k += 16)
		__builtin_prefetch(row + k, 1, 3);
}

static void prefetch_rows(const struct row_update *c, const struct draw *draws, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (draws[i].neg == SAMPLE_NONE)
			continue;
		prefetch_row(c->U + (size_t)draws[i].user * c->stride, c->stride);
		prefetch_row(c->V + (size_t)draws[i].pos * c->stride, c->stride);
		prefetch_row(c->V + (size_t)draws[i].neg * c->stride, c->stride);
		__builtin_prefetch(&c->users[draws[i].user], 1, 3);
		__builtin_prefetch(&c->items[draws[i].pos], 1, 3);
		__builtin_prefetch(&c->items[draws[i].neg], 1, 3);
	}
}

/* Draws first..end - 1 of the job. */
static void run_unit(const struct fast_job *job, uint64_t first, uint64_t end, struct update_sums *sums)
{
	struct draw chunks[STAGES][CHUNK];
	uint32_t sizes[STAGES] = {0};
	uint64_t n_chunks = (end - first + CHUNK - 1) / CHUNK;
	for (uint64_t b = 0; b < n_chunks + STAGES - 1; b++) {
		uint32_t proposed = (uint32_t)(b % STAGES), settled = (uint32_t)((b + STAGES - 1) % STAGES), applied = (uint32_t)((b + STAGES - 2) % STAGES);
		sizes[proposed] = 0;
		if (b < n_chunks) {
			uint64_t from = first + b * CHUNK;
			sizes[proposed] = end - from < CHUNK ? (uint32_t)(end - from) : CHUNK;
			sampler_propose(&job->plan, from, sizes[proposed], chunks[proposed]);
		}
		if (b >= 1) {
			sampler_settle(&job->plan, sizes[settled], chunks[settled]);
			if (b == 1) /* from here on update() asks */
				prefetch_rows(&job->update, chunks[settled], sizes[settled] < UPDATE_AHEAD ? sizes[settled] : UPDATE_AHEAD);
		}
		if (b >= 2)
			job->backend->kernels->update(&job->update, chunks[applied], sizes[applied], chunks[settled], sizes[settled], sums);
	}
}

/* The same with hard negatives: between settled and applied, a block's candidates are scored. */
static void run_unit_hard(const struct fast_job *job, uint64_t first, uint64_t end, struct update_sums *sums)
{
	struct draw blocks[STAGES_HARD][BLOCK];
	struct hard_block hard[STAGES_HARD];
	uint32_t sizes[STAGES_HARD] = {0};
	uint64_t n_blocks = (end - first + BLOCK - 1) / BLOCK;
	for (uint64_t b = 0; b < n_blocks + STAGES_HARD - 1; b++) {
		if (b < n_blocks) {
			uint64_t from = first + b * BLOCK;
			uint32_t n = end - from < BLOCK ? (uint32_t)(end - from) : BLOCK;
			sizes[b % STAGES_HARD] = n;
			sampler_propose(&job->plan, from, n, blocks[b % STAGES_HARD]);
		}
		if (b >= 1 && b - 1 < n_blocks) {
			uint32_t at = (b - 1) % STAGES_HARD;
			sampler_settle(&job->plan, sizes[at], blocks[at]);
			prefetch_rows(&job->update, blocks[at], sizes[at]);
			cpu_hard_fetch(&job->plan, &job->update, blocks[at], sizes[at], &hard[at]);
		}
		if (b >= 2 && b - 2 < n_blocks) {
			uint32_t at = (b - 2) % STAGES_HARD;
			cpu_hard_score(&job->plan, &job->update, job->backend->kernels, blocks[at], sizes[at], &hard[at]);
		}
		if (b >= 3) {
			uint32_t at = (b - 3) % STAGES_HARD;
			cpu_hard_choose(&job->plan, blocks[at], sizes[at], &hard[at]);
			job->backend->kernels->update(&job->update, blocks[at], sizes[at], NULL, 0, sums);
		}
	}
}

static void run_thread(void *ctx, uint32_t thread, uint32_t n_threads)
{
	struct fast_job *job = ctx;
	struct update_sums sums = {0};
	(void)thread;
	(void)n_threads;
	for (;;) {
		uint64_t unit = atomic_fetch_add_explicit(&job->next_unit, 1, memory_order_relaxed);
		if (unit >= job->n_units)
			break;
		uint64_t first = unit * UNIT;
		uint64_t end = first + UNIT < job->n_draws ? first + UNIT : job->n_draws;
		(job->plan.hard_below > job->plan.popular_below ? run_unit_hard : run_unit)(job, first, end, &sums);
		if (job->deadline_us && cpu_now_us() >= job->deadline_us)
			break;
	}
	pthread_mutex_lock(&job->lock);
	job->sums.triples += sums.triples;
	job->sums.rejected += sums.rejected;
	job->sums.loss += sums.loss;
	job->sums.loss_n += sums.loss_n;
	job->sums.nonfinite |= sums.nonfinite;
	pthread_mutex_unlock(&job->lock);
}

int cpu_train_fast(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	struct fast_job fast = {
		.backend = backend,
		.update = cpu_row_update(backend, job),
		.n_draws = job->triples_max,
		.n_units = job->triples_max / UNIT + (job->triples_max % UNIT != 0),
		.deadline_us = job->budget_us > 0 ? cpu_now_us() + job->budget_us : 0,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	draw_plan_make(backend->set, backend->options, &fast.plan);
	atomic_init(&fast.next_unit, 0);
	cpu_pool_run(backend->pool, run_thread, &fast);
	*ret_report = (struct train_report){
		.triples = fast.sums.triples,
		.rejected = fast.sums.rejected,
		.loss = fast.sums.loss_n ? fast.sums.loss / (double)fast.sums.loss_n : (double)NAN,
		.nonfinite = fast.sums.nonfinite,
	};
	return 0;
}
