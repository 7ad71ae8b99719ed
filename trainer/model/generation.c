/*
 * generation.c: the pool of published models. Three generations: the published one, a spare to fill next, and one more for a checkpoint or a slow
 * reader that still holds an old one.
 *
 * The engine's thread begins, commits and cancels; any thread acquires and releases. One mutex covers the reference counts and which
 * generation is published, and is held for a few instructions: never while tables are copied, scanned or sent. A generation's own content needs
 * no lock: it is written only between publisher_begin() and publisher_commit(), when nobody else can hold it, and the mutex orders the two sides.
 *
 * The publisher owns the generations and their tables. The published generation carries one reference of the publisher's own.
 */
#include "trainer/model/generation.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define POOL_SIZE 3
#define PAGE_BYTES 4096u

struct publisher {
	pthread_mutex_t mutex;
	struct generation pool[POOL_SIZE];
	struct generation *published; /* NULL until the first commit */
	struct generation *filling;   /* between begin and commit or cancel */
	uint64_t number;              /* of the last commit */
};

int publisher_new(uint32_t dim, struct publisher **ret_publisher)
{
	struct publisher *publisher = calloc(1, sizeof(*publisher));

	if (!publisher)
		return -ENOMEM;
	if (pthread_mutex_init(&publisher->mutex, NULL)) {
		free(publisher);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < POOL_SIZE; i++) {
		struct generation *generation = &publisher->pool[i];

		generation->slot = i;
		generation->tables.dim = dim;
		generation->mean_user = calloc(dim ? dim : 1, sizeof(float));
		if (!generation->mean_user) {
			publisher_free(publisher);
			return -ENOMEM;
		}
	}
	*ret_publisher = publisher;
	return 0;
}

void publisher_free(struct publisher *publisher)
{
	if (!publisher)
		return;
	for (uint32_t i = 0; i < POOL_SIZE; i++) {
		tables_free(&publisher->pool[i].tables);
		free(publisher->pool[i].mean_user);
		free(publisher->pool[i].popularity);
	}
	pthread_mutex_destroy(&publisher->mutex);
	free(publisher);
}

int publisher_begin(struct publisher *publisher, struct generation **ret_generation)
{
	struct generation *spare = NULL;

	pthread_mutex_lock(&publisher->mutex);
	if (!publisher->filling) {
		/* the newest of the free ones: the fewest rows have changed since it was filled, and its pages are the warmest */
		for (uint32_t i = 0; i < POOL_SIZE; i++) {
			struct generation *candidate = &publisher->pool[i];

			if (!candidate->refs && (!spare || candidate->number > spare->number))
				spare = candidate;
		}
		publisher->filling = spare;
	}
	pthread_mutex_unlock(&publisher->mutex);
	if (!spare)
		return -EBUSY;
	*ret_generation = spare;
	return 0;
}

static int64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Writes every page of the array up to `bytes` with what it holds. 1 when done, 0 when the time is up. */
static int touch(float *array, size_t bytes, size_t *warm, int64_t deadline_us)
{
	volatile char *base = (volatile char *)array;

	for (uint32_t n = 1; *warm < bytes; n++) {
		const char kept = base[*warm];

		base[*warm] = kept;
		*warm += PAGE_BYTES;
		if (n % 64 == 0 && deadline_us != 0 && clock_us() >= deadline_us)
			return 0;
	}
	return 1;
}

static int warm_generation(struct generation *generation, uint32_t n_users, uint32_t n_items, int64_t deadline_us)
{
	struct tables *t = &generation->tables;

	if (tables_reserve(t, n_users, n_items, t->dim) < 0)
		return 1;
	float *const arrays[6] = { t->U, t->V, t->bu, t->bi, t->acc_user, t->acc_item };
	const size_t counts[6] = { (size_t)n_users * t->dim, (size_t)n_items * t->dim, n_users, n_items, n_users, n_items };

	for (int i = 0; i < 6; i++)
		if (counts[i] > 0 && !touch(arrays[i], counts[i] * sizeof(float), &generation->warm[i], deadline_us))
			return 0;
	return 1;
}

int publisher_warm(struct publisher *publisher, uint32_t n_users, uint32_t n_items, int64_t budget_us)
{
	const int64_t deadline_us = budget_us > 0 ? clock_us() + budget_us : 0;

	for (uint32_t i = 0; i < POOL_SIZE; i++) {
		struct generation *generation = &publisher->pool[i];
		int spare;

		pthread_mutex_lock(&publisher->mutex);
		spare = !generation->refs && generation != publisher->filling;
		pthread_mutex_unlock(&publisher->mutex);
		/* nobody can get hold of a spare but the engine's thread, which is here */
		if (spare && !warm_generation(generation, n_users, n_items, deadline_us))
			return 0;
	}
	return 1;
}

void publisher_commit(struct publisher *publisher, struct generation *generation, uint64_t number)
{
	generation->published_us = clock_us();
	pthread_mutex_lock(&publisher->mutex);
	publisher->number = number ? number : publisher->number + 1;
	generation->number = publisher->number;
	generation->refs = 1;
	if (publisher->published)
		publisher->published->refs--;
	publisher->published = generation;
	publisher->filling = NULL;
	pthread_mutex_unlock(&publisher->mutex);
}

void publisher_cancel(struct publisher *publisher, struct generation *generation)
{
	pthread_mutex_lock(&publisher->mutex);
	if (publisher->filling == generation)
		publisher->filling = NULL;
	pthread_mutex_unlock(&publisher->mutex);
}

struct generation *generation_acquire(struct publisher *publisher)
{
	pthread_mutex_lock(&publisher->mutex);
	struct generation *generation = publisher->published;
	if (generation)
		generation->refs++;
	pthread_mutex_unlock(&publisher->mutex);
	return generation;
}

void generation_release(struct publisher *publisher, struct generation *generation)
{
	if (!generation)
		return;
	pthread_mutex_lock(&publisher->mutex);
	generation->refs--;
	pthread_mutex_unlock(&publisher->mutex);
}
