/*
 * quality.c: live quality (quality.h): the queue, the thread that ranks, and how much it may.
 *
 * The engine's thread fills a slot of a ring and holds the generation for it; the thread takes slots in turn, ranks without the lock, and adds the result to
 * the window. Generations are few (generation.h) and the next publish needs a free one, so nothing is held for long: what has waited longer than HOLD_US is let
 * go unranked, and when the share of the core is used up, everything is.
 *
 * The share is kept by a bucket: it fills with cpu_share_max of the time that passes, up to BURST_US, and each ranking takes the thread's own CPU time out.
 * Over any long time the thread has that share of one core and no more.
 */
#include "daemon/quality.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/quality_window.h"

#define HOLD_US 50000
#define BURST_US 20000.0
#define RESUME_US 5000.0 /* once empty, the bucket is used again when it holds so much */

/* A case with copies of its own. Memory grows as needed and is reused. */
struct slot {
	struct quality_case c;
	struct generation *generation;
	uint32_t *masked;
	size_t masked_capacity;
	void *personal; /* [row_bytes] */
	int64_t came_us;
};

struct quality {
	struct publisher *publisher;
	struct slot slots[QUALITY_SLOTS];
	struct slot taken; /* the one being ranked: swapped out of the ring; the thread's alone */
	uint32_t row_bytes;
	struct quality_scratch scratch; /* the thread's alone */
	pthread_t thread;
	int started;

	pthread_mutex_t mutex; /* everything below */
	pthread_cond_t changed;
	struct quality_options options;
	uint32_t head, n;
	int stop;
	double bucket_us;
	int64_t filled_us;  /* when the bucket was last filled */
	int64_t closed_until_us;
	int64_t cpu_us;     /* of the thread, up to its last ranking */
	struct quality_window window;
	uint64_t ranked, new_users, left_out[QUALITY_LEFT_OUT];
};

const char *quality_left_out_name(enum quality_left_out why)
{
	static const char *const names[QUALITY_LEFT_OUT] = { "lag", "queue_full", "budget", "late", "unknown_item" };

	return names[why];
}

static int64_t clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static uint64_t mix(uint64_t h)
{
	h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
	return h ^ h >> 33;
}

int quality_is_sampled(int64_t user_id, int64_t item_id, uint64_t seed, float share)
{
	const uint64_t h = mix(mix(mix(seed + 0x9e3779b97f4a7c15u) ^ (uint64_t)user_id) ^ (uint64_t)item_id);

	return (double)(h >> 11) * 0x1p-53 < (double)share;
}

/* ---- the thread ---- */

/* Lets the generation of a slot go. */
static void slot_release(struct quality *q, struct slot *slot)
{
	generation_release(q->publisher, slot->generation);
	slot->generation = NULL;
}

static void drop_waiting(struct quality *q, enum quality_left_out why)
{
	for (; q->n > 0; q->n--) {
		slot_release(q, &q->slots[q->head]);
		q->head = (q->head + 1) % QUALITY_SLOTS;
		q->left_out[why]++;
	}
}

static void bucket_fill(struct quality *q, int64_t now_us)
{
	q->bucket_us += (double)(now_us - q->filled_us) * q->options.cpu_share_max;
	if (q->bucket_us > BURST_US)
		q->bucket_us = BURST_US;
	q->filled_us = now_us;
}

/* Takes the CPU time since the last call out of the bucket. An empty one closes the queue until enough is in it again. The thread's own clock: it must call. */
static void bucket_take(struct quality *q)
{
	const int64_t now_us = clock_us(CLOCK_MONOTONIC), cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID);

	bucket_fill(q, now_us);
	q->bucket_us -= (double)(cpu_us - q->cpu_us);
	q->cpu_us = cpu_us;
	if (q->bucket_us > 0)
		return;
	q->closed_until_us = now_us + (int64_t)((RESUME_US - q->bucket_us) / q->options.cpu_share_max);
	drop_waiting(q, QUALITY_BUDGET);
}

/* Takes the next slot out of the ring, into q->taken. 0: nothing waits. */
static int take(struct quality *q)
{
	const int64_t now_us = clock_us(CLOCK_MONOTONIC);

	for (; q->n > 0; q->n--) {
		struct slot *slot = &q->slots[q->head];

		q->head = (q->head + 1) % QUALITY_SLOTS;
		if (now_us - slot->came_us <= HOLD_US) {
			const struct slot spare = q->taken;

			q->taken = *slot;
			*slot = spare;
			q->n--;
			return 1;
		}
		slot_release(q, slot);
		q->left_out[QUALITY_LATE]++;
	}
	return 0;
}

static void note(struct quality *q, int rc, const struct quality_place places[QUALITY_MODELS])
{
	struct quality_result result;

	if (rc < 0) {
		q->left_out[rc == -ENOENT ? QUALITY_UNKNOWN_ITEM : QUALITY_BUDGET]++; /* no memory is no budget */
		return;
	}
	for (int m = 0; m < QUALITY_MODELS; m++) {
		result.rank[m] = places[m].rank;
		result.auc[m] = places[m].auc;
	}
	quality_window_add(&q->window, &result);
	q->ranked++;
	q->new_users += q->taken.c.n_positives == 0;
}

static void *quality_thread(void *arg)
{
	struct quality *q = arg;

	pthread_mutex_lock(&q->mutex);
	while (!q->stop) {
		struct quality_place places[QUALITY_MODELS];
		enum served served;
		int rc;

		if (!take(q)) {
			pthread_cond_wait(&q->changed, &q->mutex);
			continue;
		}
		pthread_mutex_unlock(&q->mutex);
		rc = quality_rank(&q->taken.c, &q->scratch, places, &served);
		slot_release(q, &q->taken);
		pthread_mutex_lock(&q->mutex);
		note(q, rc, places);
		bucket_take(q);
	}
	pthread_mutex_unlock(&q->mutex);
	return NULL;
}

/* ---- life ---- */

int quality_new(const struct quality_options *options, struct publisher *publisher, uint32_t row_bytes, struct quality **ret_quality)
{
	struct quality *q = calloc(1, sizeof(*q));
	int rc = q == NULL ? -ENOMEM : quality_window_init(&q->window, options->window, options->k);

	if (rc < 0) {
		free(q);
		return rc;
	}
	q->publisher = publisher;
	q->row_bytes = row_bytes;
	q->options = *options;
	q->filled_us = clock_us(CLOCK_MONOTONIC);
	pthread_mutex_init(&q->mutex, NULL);
	pthread_cond_init(&q->changed, NULL);
	for (uint32_t i = 0; i <= QUALITY_SLOTS && rc == 0; i++) {
		struct slot *slot = i < QUALITY_SLOTS ? &q->slots[i] : &q->taken;

		slot->personal = calloc(1, row_bytes > 0 ? row_bytes : 1);
		rc = slot->personal == NULL ? -ENOMEM : 0;
	}
	if (rc < 0) {
		quality_free(q);
		return rc;
	}
	*ret_quality = q;
	return 0;
}

int quality_start(struct quality *quality)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&quality->thread, NULL, quality_thread, quality);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	quality->started = rc == 0;
	return rc;
}

void quality_stop(struct quality *quality)
{
	pthread_mutex_lock(&quality->mutex);
	quality->stop = 1;
	pthread_cond_signal(&quality->changed);
	pthread_mutex_unlock(&quality->mutex);
	if (quality->started)
		pthread_join(quality->thread, NULL);
	quality->started = 0;
	for (; quality->n > 0; quality->n--) {
		slot_release(quality, &quality->slots[quality->head]);
		quality->head = (quality->head + 1) % QUALITY_SLOTS;
	}
}

void quality_free(struct quality *quality)
{
	if (quality == NULL)
		return;
	quality_stop(quality);
	for (uint32_t i = 0; i <= QUALITY_SLOTS; i++) {
		struct slot *slot = i < QUALITY_SLOTS ? &quality->slots[i] : &quality->taken;

		free(slot->masked);
		free(slot->personal);
	}
	quality_scratch_free(&quality->scratch);
	quality_window_free(&quality->window);
	pthread_cond_destroy(&quality->changed);
	pthread_mutex_destroy(&quality->mutex);
	free(quality);
}

void quality_set_options(struct quality *quality, const struct quality_options *options)
{
	pthread_mutex_lock(&quality->mutex);
	quality->options = *options;
	quality->options.window = quality->window.capacity;
	quality_window_set_k(&quality->window, options->k);
	pthread_mutex_unlock(&quality->mutex);
}

/* ---- the engine's side ---- */

/* Copies the case into the slot. 0 or -ENOMEM. */
static int slot_fill(struct quality *q, struct slot *slot, const struct quality_case *c, int64_t now_us)
{
	if (c->n_masked > slot->masked_capacity) {
		const size_t capacity = c->n_masked + c->n_masked / 2 + 64;
		uint32_t *fresh = malloc(capacity * sizeof(*fresh));

		if (fresh == NULL)
			return -ENOMEM;
		free(slot->masked);
		slot->masked = fresh;
		slot->masked_capacity = capacity;
	}
	slot->c = *c;
	if (c->n_masked > 0)
		memcpy(slot->masked, c->masked, c->n_masked * sizeof(*slot->masked));
	slot->c.masked = slot->masked;
	if (c->personal != NULL) {
		memcpy(slot->personal, c->personal, q->row_bytes);
		slot->c.personal = slot->personal;
	}
	slot->generation = generation_acquire(q->publisher);
	slot->c.generation = slot->generation;
	slot->came_us = now_us;
	return 0;
}

void quality_offer(struct quality *quality, const struct quality_case *c)
{
	const int64_t now_us = clock_us(CLOCK_MONOTONIC);

	pthread_mutex_lock(&quality->mutex);
	if (quality->stop)
		goto out;
	if (now_us < quality->closed_until_us)
		quality->left_out[QUALITY_BUDGET]++;
	else if (quality->n == QUALITY_SLOTS || slot_fill(quality, &quality->slots[(quality->head + quality->n) % QUALITY_SLOTS], c, now_us) < 0)
		quality->left_out[QUALITY_QUEUE_FULL]++;
	else if (quality->n++ == 0)
		pthread_cond_signal(&quality->changed);
out:
	pthread_mutex_unlock(&quality->mutex);
}

void quality_leave_out(struct quality *quality, enum quality_left_out why)
{
	pthread_mutex_lock(&quality->mutex);
	quality->left_out[why]++;
	pthread_mutex_unlock(&quality->mutex);
}

void quality_get_status(struct quality *quality, struct quality_status *ret_status)
{
	pthread_mutex_lock(&quality->mutex);
	*ret_status = (struct quality_status){
		.enabled = quality->options.enabled,
		.k = quality->window.k,
		.window = quality->window.capacity,
		.count = quality->window.n,
		.ranked = quality->ranked,
		.new_users = quality->new_users,
		.cpu_us = quality->cpu_us,
	};
	memcpy(ret_status->left_out, quality->left_out, sizeof(ret_status->left_out));
	quality_window_figures(&quality->window, ret_status->models);
	pthread_mutex_unlock(&quality->mutex);
}
