/*
 * cpu_fast.c: Hogwild training on the host (Niu et al., NIPS 2011). The engine's thread calls, the pool's threads help.
 *
 * Threads take units of UNIT draws off a shared counter until the job's triples or its time are used up, so what was drawn is always a whole
 * prefix of the job. A job goes in parts, each done by as many threads as get most done (cpu_tuner.h).
 *
 * Inside a unit, three chunks of draws are under way: one is proposed (random numbers; the membership filter and the rows begin to come nearer), one is looked
 * up in the filter, one is applied, after the few that the filter did not clear were confirmed; update() asks for the rows of the triples some places
 * on. The triples are those of the deterministic mode (sampler.h), in another order only where threads overtake each other.
 */
#include "trainer/learn/cpu_backend.h"
#include "trainer/learn/cpu_hard.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#define UNIT 2048u
#define CHUNK 16u
#define STAGES 3u
/* With hard negatives, in draws. A candidate's score is as old as what lies between scoring and applying. */
#define HARD_RING 4u    /* blocks on their way */
#define HARD_PART 2u    /* that fetch and score take at a time */
#define HARD_SCORE 8u   /* from fetch to score: what memory needs */
#define HARD_WINDOW 8u  /* that are applied at a time, a window of update() */
#define HARD_APPLY 24u  /* from fetch to apply: the last one scored has had a window's time for its membership to come */

struct fast_job {
	const struct backend *backend;
	struct draw_plan plan;
	struct row_update update;
	uint64_t n_draws;
	uint64_t n_units;
	int64_t deadline_us; /* 0: none */
	uint32_t threads;    /* of this part */
	uint64_t end_unit;   /* of this part */
	atomic_uint_fast64_t next_unit;
	pthread_mutex_t lock; /* over sums */
	struct update_sums sums;
};

/*
 * To the second cache: by the time that the row is asked for once more, it is near. Always inlined, as are all functions that only prefetch: gcc takes them for ones
 * without effect.
 */
static inline __attribute__((always_inline)) void prefetch_early(const float *rows, uint32_t row, size_t stride)
{
	for (size_t k = 0; k < stride; k += 16)
		__builtin_prefetch(rows + (size_t)row * stride + k, 0, 2);
}

/* Rows of draws that were just proposed. */
static inline __attribute__((always_inline)) void prefetch_proposed(const struct row_update *c, const struct draw *draws, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		prefetch_early(c->U, draws[i].user, c->stride);
		prefetch_early(c->V, draws[i].pos, c->stride);
		prefetch_early(c->V, draws[i].neg, c->stride);
	}
}

static inline __attribute__((always_inline)) void prefetch_rows(const struct row_update *c, const struct draw *draws, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (draws[i].neg == SAMPLE_NONE)
			continue;
		cpu_fetch_row(c->U + (size_t)draws[i].user * c->stride, &c->users[draws[i].user], c->stride);
		cpu_fetch_row(c->V + (size_t)draws[i].pos * c->stride, &c->items[draws[i].pos], c->stride);
		cpu_fetch_row(c->V + (size_t)draws[i].neg * c->stride, &c->items[draws[i].neg], c->stride);
	}
}

/* Draws first..end - 1 of the job. */
static void run_unit(const struct fast_job *job, uint64_t first, uint64_t end, struct update_sums *sums)
{
	struct draw chunks[STAGES][CHUNK];
	struct draw_check checks[STAGES][CHUNK];
	uint32_t sizes[STAGES] = {0}, hits[STAGES] = {0};
	uint64_t n_chunks = (end - first + CHUNK - 1) / CHUNK;
	for (uint64_t b = 0; b < n_chunks + STAGES - 1; b++) {
		uint32_t proposed = (uint32_t)(b % STAGES), looked = (uint32_t)((b + STAGES - 1) % STAGES), applied = (uint32_t)((b + STAGES - 2) % STAGES);
		sizes[proposed] = 0;
		if (b < n_chunks) {
			uint64_t from = first + b * CHUNK;
			sizes[proposed] = end - from < CHUNK ? (uint32_t)(end - from) : CHUNK;
			sampler_propose_checked(&job->plan, from, sizes[proposed], chunks[proposed], checks[proposed]);
			prefetch_proposed(&job->update, chunks[proposed], sizes[proposed]);
		}
		if (b >= 1) {
			hits[looked] = sampler_look(&job->plan, sizes[looked], chunks[looked], checks[looked]);
			if (b == 1) /* from here on update() asks */
				prefetch_rows(&job->update, chunks[looked], sizes[looked] < UPDATE_AHEAD ? sizes[looked] : UPDATE_AHEAD);
		}
		if (b >= 2) {
			sampler_confirm(&job->plan, hits[applied], chunks[applied]);
			job->backend->kernels->update(&job->update, chunks[applied], sizes[applied], chunks[looked], sizes[looked], sums);
		}
	}
}

/* The draws of a unit on their way through the stages; draw k lies in block k / HARD_BLOCK, modulo the number of blocks. */
struct hard_ring {
	struct draw draws[HARD_RING][HARD_BLOCK];
	struct draw_check checks[HARD_RING][HARD_BLOCK];
	struct hard_block blocks[HARD_RING];
	uint64_t first, n; /* of the unit */
};

/* Of the draws at, at + 1, .. (want of them, all of one block) those that the unit has. Where they lie goes to *ret_block and *ret_from. */
static uint32_t ring_part(const struct hard_ring *ring, int64_t at, uint32_t want, uint32_t *ret_block, uint32_t *ret_from)
{
	if (at < 0 || (uint64_t)at >= ring->n)
		return 0;
	*ret_block = (uint32_t)((uint64_t)at / HARD_BLOCK % HARD_RING);
	*ret_from = (uint32_t)((uint64_t)at % HARD_BLOCK);
	return ring->n - (uint64_t)at < want ? (uint32_t)(ring->n - (uint64_t)at) : want;
}

static void ring_propose(const struct fast_job *job, struct hard_ring *ring, int64_t at)
{
	uint32_t block, from, n = ring_part(ring, at, HARD_BLOCK, &block, &from);
	if (n == 0)
		return;
	sampler_propose_checked(&job->plan, ring->first + (uint64_t)at, n, ring->draws[block], ring->checks[block]);
	cpu_hard_draw(&job->plan, ring->draws[block], n, &ring->blocks[block]);
	prefetch_proposed(&job->update, ring->draws[block], n);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 1; ring->draws[block][i].kind == NEGATIVE_HARD && k < job->plan.hard_of; k++)
			prefetch_early(job->update.V, ring->blocks[block].items[i * job->plan.hard_of + k], job->update.stride);
}

/*
 * The same with hard negatives: between settled and applied, a draw's candidates are scored. The stages take a few draws each in turn, so that memory has
 * something to do all the time.
 */
static void run_unit_hard(const struct fast_job *job, uint64_t first, uint64_t end, struct update_sums *sums)
{
	struct hard_ring ring;
	const struct row_kernels *kernels = job->backend->kernels;
	uint32_t block, from, n;
	ring.first = first;
	ring.n = end - first;
	ring_propose(job, &ring, 0);
	for (int64_t at = 0; at < (int64_t)(ring.n + HARD_APPLY); at += HARD_PART) {
		if (at % HARD_BLOCK == 0)
			ring_propose(job, &ring, at + HARD_BLOCK);
		n = ring_part(&ring, at, HARD_PART, &block, &from);
		if (n) {
			sampler_confirm(&job->plan, sampler_look(&job->plan, n, &ring.draws[block][from], &ring.checks[block][from]), &ring.draws[block][from]);
			cpu_hard_fetch(&job->plan, &job->update, ring.draws[block], from, n, &ring.blocks[block]);
		}
		n = ring_part(&ring, at - HARD_SCORE, HARD_PART, &block, &from);
		if (n)
			cpu_hard_score(&job->plan, &job->update, kernels, ring.draws[block], from, n, &ring.blocks[block]);
		n = at % HARD_WINDOW == 0 ? ring_part(&ring, at - HARD_APPLY, HARD_WINDOW, &block, &from) : 0;
		if (n) {
			cpu_hard_choose(&job->plan, ring.draws[block], from, n, &ring.blocks[block]);
			kernels->update(&job->update, &ring.draws[block][from], n, NULL, 0, sums);
		}
	}
}

static void run_thread(void *ctx, uint32_t thread, uint32_t n_threads)
{
	struct fast_job *job = ctx;
	struct update_sums sums = {0};
	(void)n_threads;
	if (thread >= job->threads)
		return;
	for (;;) {
		uint64_t unit = atomic_fetch_add_explicit(&job->next_unit, 1, memory_order_relaxed);
		if (unit >= job->end_unit)
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

/* The job's next part, from unit `first` on. Returns the first unit that is not done. */
static uint64_t run_part(struct fast_job *job, struct backend *backend, uint64_t first)
{
	const struct cpu_part part = cpu_tuner_next(&backend->tuner);
	const uint64_t units = part.draws / UNIT, left = job->n_units - first;
	const int64_t began_us = cpu_now_us();
	job->threads = part.threads;
	job->end_unit = first + (units < left ? units : left);
	atomic_store_explicit(&job->next_unit, first, memory_order_relaxed);
	cpu_pool_run(backend->pool, run_thread, job);
	uint64_t next = atomic_load_explicit(&job->next_unit, memory_order_relaxed); /* past the end when all were taken */
	next = next < job->end_unit ? next : job->end_unit;
	if (next - first >= 2 * part.threads) /* less says nothing about how many threads are best */
		cpu_tuner_note(&backend->tuner, (next * UNIT < job->n_draws ? next * UNIT : job->n_draws) - first * UNIT, cpu_now_us() - began_us);
	return next;
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
	for (uint64_t unit = 0; unit < fast.n_units && (unit == 0 || !fast.deadline_us || cpu_now_us() < fast.deadline_us);)
		unit = run_part(&fast, backend, unit);
	*ret_report = (struct train_report){
		.triples = fast.sums.triples,
		.rejected = fast.sums.rejected,
		.loss = fast.sums.loss_n ? fast.sums.loss / (double)fast.sums.loss_n : (double)NAN,
		.nonfinite = fast.sums.nonfinite,
		.threads = backend->tuner.n,
	};
	return 0;
}
