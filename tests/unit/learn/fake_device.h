/*
 * fake_device.h: a backend that works beside the caller, for tests: the CPU backend in a thread per job, over a copy of the training set made when the job began, as a
 * device's mirror is. Jobs end by themselves, when they are let go, or never; any function fails when told to. A test program includes it once.
 *
 * What it holds the learner to: no train() while a job runs; close() never while a job hangs; after -EIO nothing but close() (and facts). A pull that fails leaves a
 * copy half filled with FAKE_POISON.
 */
#ifndef TESTS_UNIT_LEARN_FAKE_DEVICE_H
#define TESTS_UNIT_LEARN_FAKE_DEVICE_H

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/learn/backend.h"
#include "trainer/learn/personalize.h"
#include "trainer/learn/sampler.h"

enum fake_op { FAKE_OPEN, FAKE_GROW, FAKE_CHANGED, FAKE_TRAIN, FAKE_POLL, FAKE_PULL, FAKE_PUSH, FAKE_PERSONALIZE, FAKE_OPS };
static const char *const fake_op_names[FAKE_OPS] = { "open", "grow", "changed", "train", "poll", "pull", "push", "personalize" };
#define FAKE_POISON 12345.0f
#define FAKE_KEPT 32

/* What the device is told to do, and what happened. */
static struct {
	pthread_mutex_t mutex;
	pthread_cond_t moved;
	int hold;     /* jobs wait until fake_let_go() */
	int hang;     /* so do they; poll() says 0, close() would never come back */
	unsigned held; /* jobs that wait at this moment */
	int fail_op;  /* -1: none */
	unsigned fail_at; /* the call that fails, from 1 */
	unsigned fail_for; /* how many fail from there on; 0 counts as 1 */
	int fail_rc;
	unsigned calls[FAKE_OPS]; /* since fake_reset() */
	unsigned failed;
	unsigned opened, closed;
	unsigned misused; /* calls that the table forbids */
	unsigned fitted;  /* rows */
	int crowded;      /* no batch ever gets a place beside a job */
	unsigned crowded_out; /* batches that were given up for that */
	int probe_rc;
	int refuse;   /* open() fails, whatever else is to */
	struct backend *kept[FAKE_KEPT]; /* open ones */
} fake = { .mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .fail_op = -1 };

struct fake_device {
	struct backend *cpu;
	struct training_set set;      /* the mirror */
	struct learn_options options; /* as of the job's start */
	const struct training_set *host_set;
	const struct learn_options *host_options;
	struct train_job job;
	struct train_report report;
	int rc;
	int running; /* a thread exists */
	atomic_int done;
	pthread_t thread;
	int lost;
	struct tables pulled; /* the item tables as the last pull saw them; rows and accumulators of users are not used */
	int has_grown; /* rows that wait for the end of the job */
	uint32_t n_users, n_items;
	const int64_t *user_ids, *item_ids;
};

static inline struct fake_device *fake_of(struct backend *backend)
{
	return (struct fake_device *)(void *)backend;
}

/* 0, or what this call is to fail with. */
static inline int fake_enter(struct fake_device *device, enum fake_op op)
{
	int rc = 0;
	pthread_mutex_lock(&fake.mutex);
	const unsigned n = ++fake.calls[op], from = fake.fail_at, end = from + (fake.fail_for ? fake.fail_for : 1);
	if (device && device->lost) {
		fake.misused++;
		rc = -EIO;
	} else if (fake.fail_op == (int)op && n >= from && n < end) {
		fake.failed++;
		rc = fake.fail_rc;
	}
	if (device && rc == -EIO)
		device->lost = 1;
	pthread_mutex_unlock(&fake.mutex);
	return rc;
}

static inline void *fake_copy(const void *from, size_t bytes)
{
	void *to = malloc(bytes ? bytes : 1);
	if (to && bytes)
		memcpy(to, from, bytes);
	return to;
}

static inline void fake_mirror_free(struct training_set *set)
{
	for (uint32_t s = 0; s < PAIR_SHARDS; s++) {
		free(set->shards[s].slots);
		free(set->shards[s].filter);
	}
	free(set->positives);
	free(set->weights);
	free(set->user_positives);
	free(set->candidates);
	free(set->is_candidate);
	free(set->recent);
	memset(set, 0, sizeof *set);
}

static inline void fake_mirror(struct training_set *to, const struct training_set *from)
{
	fake_mirror_free(to);
	*to = *from;
	to->positives = fake_copy(from->positives, from->n_positives * sizeof *from->positives);
	to->weights = from->weights ? fake_copy(from->weights, from->n_positives * sizeof *from->weights) : NULL;
	to->user_positives = fake_copy(from->user_positives, from->n_users * sizeof *from->user_positives);
	to->candidates = fake_copy(from->candidates, from->n_candidates * sizeof *from->candidates);
	to->is_candidate = fake_copy(from->is_candidate, from->n_items);
	to->recent = from->recent ? fake_copy(from->recent, RECENT_MAX * sizeof *from->recent) : NULL;
	to->skips = NULL; /* a real device asks for them in train() */
	for (uint32_t s = 0; s < PAIR_SHARDS; s++) {
		const struct pair_shard *shard = &from->shards[s];
		const size_t size = shard->slots ? (size_t)shard->mask + 1 : 0;
		if (!size)
			continue;
		to->shards[s].slots = fake_copy(shard->slots, size * sizeof *shard->slots);
		to->shards[s].filter = fake_copy(shard->filter, size / 8 * sizeof *shard->filter);
	}
}

static inline void *fake_work(void *arg)
{
	struct fake_device *device = arg;
	pthread_mutex_lock(&fake.mutex);
	fake.held++;
	pthread_cond_broadcast(&fake.moved);
	while (fake.hold || fake.hang)
		pthread_cond_wait(&fake.moved, &fake.mutex);
	fake.held--;
	pthread_mutex_unlock(&fake.mutex);
	device->rc = backend_cpu.train(device->cpu, &device->job, &device->report);
	atomic_store_explicit(&device->done, 1, memory_order_release);
	return NULL;
}

/* After the job's end: the thread is joined, rows that waited are made. */
static inline int fake_settle(struct fake_device *device)
{
	if (device->running) {
		pthread_join(device->thread, NULL);
		device->running = 0;
	}
	if (!device->has_grown)
		return 0;
	device->has_grown = 0;
	return backend_cpu.grow(device->cpu, device->n_users, device->n_items, device->user_ids, device->item_ids);
}

static inline int fake_probe(char *reason, size_t reason_size)
{
	if (fake.probe_rc < 0)
		snprintf(reason, reason_size, "no such device");
	return fake.probe_rc;
}

static inline int fake_open(const struct learn_options *options, const struct training_set *set, struct backend **ret_backend, char *errstr,
                            size_t errstr_size)
{
	int rc = fake_enter(NULL, FAKE_OPEN);
	pthread_mutex_lock(&fake.mutex);
	rc = fake.refuse ? -EIO : rc;
	pthread_mutex_unlock(&fake.mutex);
	struct fake_device *device = rc == 0 ? calloc(1, sizeof *device) : NULL;
	if (rc < 0 || !device) {
		snprintf(errstr, errstr_size, "the fake device does not open");
		return rc < 0 ? rc : -ENOMEM;
	}
	device->host_set = set;
	device->host_options = options;
	device->options = *options;
	device->set.seed = set->seed;
	device->set.passes_here = set->passes_here;
	rc = backend_cpu.open(&device->options, &device->set, &device->cpu, errstr, errstr_size);
	if (rc < 0) {
		free(device);
		return rc;
	}
	pthread_mutex_lock(&fake.mutex);
	fake.opened++;
	for (int k = 0; k < FAKE_KEPT; k++) {
		if (!fake.kept[k]) {
			fake.kept[k] = (struct backend *)(void *)device;
			break;
		}
	}
	pthread_mutex_unlock(&fake.mutex);
	*ret_backend = (struct backend *)(void *)device;
	return 0;
}

static inline void fake_close(struct backend *backend)
{
	struct fake_device *device = fake_of(backend);
	if (!backend)
		return;
	pthread_mutex_lock(&fake.mutex);
	if (device->running && fake.hang) { /* would never come back; the test goes on and fails */
		fake.misused++;
		fake.hang = 0;
		pthread_cond_broadcast(&fake.moved);
	}
	fake.closed++;
	for (int k = 0; k < FAKE_KEPT; k++)
		if (fake.kept[k] == backend)
			fake.kept[k] = NULL;
	pthread_mutex_unlock(&fake.mutex);
	device->has_grown = 0;
	(void)fake_settle(device);
	backend_cpu.close(device->cpu);
	tables_free(&device->pulled);
	fake_mirror_free(&device->set);
	free(device);
}

static inline int fake_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_GROW);
	if (rc < 0)
		return rc;
	device->has_grown = 1;
	device->n_users = n_users;
	device->n_items = n_items;
	device->user_ids = user_ids;
	device->item_ids = item_ids;
	return device->running ? 0 : fake_settle(device);
}

static inline int fake_changed(struct backend *backend)
{
	return fake_enter(fake_of(backend), FAKE_CHANGED);
}

static inline int fake_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_TRAIN);
	(void)ret_report;
	if (rc < 0)
		return rc;
	if (device->running)
		fake.misused++;
	fake_settle(device);
	fake_mirror(&device->set, device->host_set);
	device->options = *device->host_options;
	device->job = *job;
	atomic_store(&device->done, 0);
	device->running = pthread_create(&device->thread, NULL, fake_work, device) == 0;
	return device->running ? 0 : -EAGAIN;
}

static inline int fake_poll(struct backend *backend, struct train_report *ret_report)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_POLL);
	if (rc < 0)
		return rc;
	if (device->running && !atomic_load_explicit(&device->done, memory_order_acquire))
		return 0;
	rc = fake_settle(device);
	*ret_report = device->report;
	return rc < 0 ? rc : device->rc < 0 ? device->rc : 1;
}

static inline int fake_wait(struct backend *backend, struct train_report *ret_report)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_POLL);
	if (rc == 0)
		rc = fake_settle(device);
	*ret_report = device->report;
	return rc < 0 ? rc : device->rc;
}

static inline int fake_pull(struct backend *backend, struct tables *copy)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_PULL);
	(void)fake_settle(device);
	int pulled = backend_cpu.pull(device->cpu, copy);
	if (rc < 0) {
		for (size_t k = 0; k < (size_t)copy->n_users * copy->dim; k += 2)
			copy->U[k] = FAKE_POISON;
		for (size_t k = 0; k < (size_t)copy->n_items * copy->dim; k += 2)
			copy->V[k] = FAKE_POISON;
	}
	if (rc == 0 && pulled == 0 && copy->n_items && tables_reserve(&device->pulled, 0, copy->n_items, copy->dim) == 0) {
		memcpy(device->pulled.V, copy->V, (size_t)copy->n_items * copy->dim * sizeof *copy->V);
		memcpy(device->pulled.bi, copy->bi, copy->n_items * sizeof *copy->bi);
		device->pulled.n_items = copy->n_items;
	}
	return rc < 0 ? rc : pulled;
}

/* A batch that gets no place: it waits as long as it may, which is for ever when it has no limit. */
static inline int fake_wait_for_a_place(const struct personalize_batch *batch)
{
	struct timespec until;
	int rc = 0, timed_out = 0;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)batch->wait_us % 1000000 * 1000;
	until.tv_sec += batch->wait_us / 1000000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&fake.mutex);
	while (fake.crowded && !timed_out) {
		if (batch->wait_us)
			timed_out = pthread_cond_timedwait(&fake.moved, &fake.mutex, &until) == ETIMEDOUT;
		else
			pthread_cond_wait(&fake.moved, &fake.mutex);
	}
	if (timed_out) {
		fake.crowded_out++;
		rc = -EAGAIN;
	}
	pthread_mutex_unlock(&fake.mutex);
	return rc;
}

/* Beside a job; one user after another. */
static inline int fake_personalize(struct backend *backend, const struct personalize_batch *batch)
{
	struct fake_device *device = fake_of(backend);
	struct personalize_scratch scratch = { 0 };
	int rc = fake_enter(device, FAKE_PERSONALIZE);
	if (rc == 0)
		rc = fake_wait_for_a_place(batch);
	for (uint32_t k = 0; rc == 0 && k < batch->n; k++) {
		struct personalize_options options = *batch->options;
		options.seed = batch->seeds ? batch->seeds[k] : options.seed;
		batch->ret_rcs[k] = personalize_row(&device->pulled, batch->starts + (size_t)k * device->pulled.dim, batch->positives + batch->offsets[k],
		                                    batch->offsets[k + 1] - batch->offsets[k], batch->candidates, batch->n_candidates, &options, &scratch,
		                                    batch->ret_rows + (size_t)k * device->pulled.dim);
	}
	personalize_scratch_free(&scratch);
	pthread_mutex_lock(&fake.mutex);
	fake.fitted += rc == 0 ? batch->n : 0;
	pthread_mutex_unlock(&fake.mutex);
	return rc;
}

static inline int fake_topk(struct backend *backend, const struct topk_batch *batch)
{
	(void)backend;
	(void)batch;
	return -ENOSYS;
}

static inline int fake_push(struct backend *backend, const struct tables *copy)
{
	struct fake_device *device = fake_of(backend);
	int rc = fake_enter(device, FAKE_PUSH);
	if (rc == 0)
		rc = fake_settle(device);
	return rc < 0 ? rc : backend_cpu.push(device->cpu, copy);
}

static inline void fake_facts(struct backend *backend, struct device_facts *ret_facts)
{
	const struct fake_device *device = fake_of(backend);
	*ret_facts = (struct device_facts){ .name = "Fake 9000", .driver = "1.2.3", .cuda = "1.0", .memory_bytes = 1000, .memory_used_bytes = 100 };
	ret_facts->failures = (uint64_t)device->lost;
	snprintf(ret_facts->trouble, sizeof ret_facts->trouble, "%s", device->lost ? "the fake has left the bus" : "");
}

static const struct backend_ops fake_ops = {
	.name = "fake",
	.probe = fake_probe,
	.open = fake_open,
	.close = fake_close,
	.grow = fake_grow,
	.changed = fake_changed,
	.train = fake_train,
	.poll = fake_poll,
	.wait = fake_wait,
	.pull = fake_pull,
	.push = fake_push,
	.personalize = fake_personalize,
	.topk = fake_topk,
	.facts = fake_facts,
};

/* Before each test. */
static inline void fake_reset(void)
{
	pthread_mutex_lock(&fake.mutex);
	fake.hold = fake.hang = fake.crowded = fake.probe_rc = fake.refuse = 0;
	fake.fail_op = -1;
	fake.fail_at = fake.fail_for = fake.failed = fake.opened = fake.closed = fake.misused = fake.fitted = fake.crowded_out = 0;
	memset(fake.calls, 0, sizeof fake.calls);
	pthread_mutex_unlock(&fake.mutex);
}

/* Call number `at` of `op`, counted from now on, fails. */
static inline void fake_fail(enum fake_op op, unsigned at, unsigned times, int rc)
{
	pthread_mutex_lock(&fake.mutex);
	fake.fail_op = (int)op;
	fake.fail_at = fake.calls[op] + at;
	fake.fail_for = times;
	fake.fail_rc = rc;
	pthread_mutex_unlock(&fake.mutex);
}

static inline void fake_hold(int hold, int hang)
{
	pthread_mutex_lock(&fake.mutex);
	fake.hold = hold;
	fake.hang = hang;
	pthread_cond_broadcast(&fake.moved);
	pthread_mutex_unlock(&fake.mutex);
}

/* Until one is held: a job that was past that point before is not taken for it. Waits for ever when none comes: scripts/run-tests has a limit. */
static inline void fake_wait_held(void)
{
	pthread_mutex_lock(&fake.mutex);
	while (fake.held == 0)
		pthread_cond_wait(&fake.moved, &fake.mutex);
	pthread_mutex_unlock(&fake.mutex);
}

static inline void fake_crowd(int crowded)
{
	pthread_mutex_lock(&fake.mutex);
	fake.crowded = crowded;
	pthread_cond_broadcast(&fake.moved);
	pthread_mutex_unlock(&fake.mutex);
}

static inline void fake_let_go(void)
{
	fake_crowd(0);
	fake_hold(0, 0);
}

static inline unsigned fake_count(const unsigned *counter)
{
	pthread_mutex_lock(&fake.mutex);
	const unsigned n = *counter;
	pthread_mutex_unlock(&fake.mutex);
	return n;
}

/* Ends what was left open on purpose (hung ones); returns how many there were. */
static inline unsigned fake_close_all(void)
{
	unsigned n = 0;
	fake_let_go();
	for (int k = 0; k < FAKE_KEPT; k++) {
		if (fake.kept[k]) {
			fake_close(fake.kept[k]);
			n++;
		}
	}
	return n;
}

#endif
