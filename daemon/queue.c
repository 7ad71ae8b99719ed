/*
 * queue.c: batches between source threads and the engine. See queue.h.
 *
 * One mutex for the whole set: it is taken once per batch (up to 4,096 lines), not per line. Each stream has a fixed number of batches, which are either
 * free, with a source, waiting, or with the engine; "free" and "waiting" are the two rings below, each as long as the number of batches, so that
 * neither can overflow. Waiting batches leave in the order they came; of the free ones the last that came goes first: its memory is still in a cache, and
 * as long as the engine keeps up the others are never touched.
 */
#include "daemon/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct ring {
	struct event_batch **slots; /* [capacity] */
	uint32_t capacity, head, n;
};

struct stream_queue {
	struct ring free, waiting;
	pthread_cond_t came_free;
};

struct queue_set {
	pthread_mutex_t mutex;
	pthread_cond_t arrived;
	struct stream_queue streams[STREAM_COUNT];
	int woken, closed;
};

/* Watches before impressions when both wait: a skip is judged with the watches known. */
static const enum event_stream pop_order[STREAM_COUNT] = { STREAM_CATALOGUE, STREAM_WATCHES, STREAM_EVENTS, STREAM_IMPRESSIONS, STREAM_USERS };

static void ring_push(struct ring *ring, struct event_batch *batch)
{
	ring->slots[(ring->head + ring->n++) % ring->capacity] = batch;
}

static struct event_batch *ring_pop(struct ring *ring)
{
	struct event_batch *batch;

	if (ring->n == 0)
		return NULL;
	batch = ring->slots[ring->head];
	ring->head = (ring->head + 1) % ring->capacity;
	ring->n--;
	return batch;
}

static struct event_batch *ring_pop_last(struct ring *ring)
{
	return ring->n == 0 ? NULL : ring->slots[(ring->head + --ring->n) % ring->capacity];
}

static int stream_queue_init(struct stream_queue *queue, enum event_stream stream, uint32_t batches)
{
	queue->free.slots = calloc(batches, sizeof(*queue->free.slots));
	queue->waiting.slots = calloc(batches, sizeof(*queue->waiting.slots));
	if (queue->free.slots == NULL || queue->waiting.slots == NULL)
		return -ENOMEM;
	queue->free.capacity = queue->waiting.capacity = batches;
	for (uint32_t i = 0; i < batches; i++) {
		struct event_batch *batch = event_batch_new();

		if (batch == NULL)
			return -ENOMEM;
		batch->stream = (uint32_t)stream;
		ring_push(&queue->free, batch);
	}
	return 0;
}

int queue_set_new(uint32_t batches, const int enabled[STREAM_COUNT], struct queue_set **ret_queues)
{
	struct queue_set *queues = calloc(1, sizeof(*queues));
	pthread_condattr_t attr;

	if (queues == NULL)
		return -ENOMEM;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&queues->mutex, NULL);
	pthread_cond_init(&queues->arrived, &attr);
	for (int s = 0; s < STREAM_COUNT; s++)
		pthread_cond_init(&queues->streams[s].came_free, &attr);
	pthread_condattr_destroy(&attr);
	for (int s = 0; s < STREAM_COUNT; s++) {
		if (enabled[s] && stream_queue_init(&queues->streams[s], (enum event_stream)s, batches) < 0) {
			queue_set_free(queues);
			return -ENOMEM;
		}
	}
	*ret_queues = queues;
	return 0;
}

void queue_set_free(struct queue_set *queues)
{
	if (queues == NULL)
		return;
	for (int s = 0; s < STREAM_COUNT; s++) {
		struct stream_queue *queue = &queues->streams[s];
		struct event_batch *batch;

		while ((batch = ring_pop(&queue->free)) != NULL || (batch = ring_pop(&queue->waiting)) != NULL)
			event_batch_free(batch);
		free(queue->free.slots);
		free(queue->waiting.slots);
		pthread_cond_destroy(&queue->came_free);
	}
	pthread_cond_destroy(&queues->arrived);
	pthread_mutex_destroy(&queues->mutex);
	free(queues);
}

static struct timespec deadline_after(int timeout_ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += timeout_ms / 1000;
	ts.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

struct event_batch *queue_take_free(struct queue_set *queues, enum event_stream stream, int timeout_ms)
{
	struct stream_queue *queue = &queues->streams[stream];
	const struct timespec deadline = deadline_after(timeout_ms);
	struct event_batch *batch = NULL;

	pthread_mutex_lock(&queues->mutex);
	while (!queues->closed && (batch = ring_pop_last(&queue->free)) == NULL)
		if (pthread_cond_timedwait(&queue->came_free, &queues->mutex, &deadline) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&queues->mutex);
	return batch;
}

void queue_push(struct queue_set *queues, struct event_batch *batch)
{
	pthread_mutex_lock(&queues->mutex);
	ring_push(&queues->streams[batch->stream].waiting, batch);
	pthread_cond_signal(&queues->arrived);
	pthread_mutex_unlock(&queues->mutex);
}

void queue_give_back(struct queue_set *queues, struct event_batch *batch)
{
	event_batch_clear(batch);
	pthread_mutex_lock(&queues->mutex);
	ring_push(&queues->streams[batch->stream].free, batch);
	pthread_cond_signal(&queues->streams[batch->stream].came_free);
	pthread_mutex_unlock(&queues->mutex);
}

struct event_batch *queue_pop(struct queue_set *queues)
{
	struct event_batch *batch = NULL;

	pthread_mutex_lock(&queues->mutex);
	for (int i = 0; i < STREAM_COUNT && batch == NULL; i++)
		batch = ring_pop(&queues->streams[pop_order[i]].waiting);
	pthread_mutex_unlock(&queues->mutex);
	return batch;
}

static int anything_waits(const struct queue_set *queues)
{
	for (int s = 0; s < STREAM_COUNT; s++)
		if (queues->streams[s].waiting.n > 0)
			return 1;
	return 0;
}

void queue_wait(struct queue_set *queues, int timeout_ms)
{
	const struct timespec deadline = deadline_after(timeout_ms);

	pthread_mutex_lock(&queues->mutex);
	while (!queues->woken && !anything_waits(queues))
		if (pthread_cond_timedwait(&queues->arrived, &queues->mutex, &deadline) == ETIMEDOUT)
			break;
	queues->woken = 0;
	pthread_mutex_unlock(&queues->mutex);
}

void queue_wake(struct queue_set *queues)
{
	pthread_mutex_lock(&queues->mutex);
	queues->woken = 1;
	pthread_cond_signal(&queues->arrived);
	pthread_mutex_unlock(&queues->mutex);
}

uint32_t queue_waiting(struct queue_set *queues, enum event_stream stream)
{
	uint32_t n;

	pthread_mutex_lock(&queues->mutex);
	n = queues->streams[stream].waiting.n;
	pthread_mutex_unlock(&queues->mutex);
	return n;
}

void queue_set_close(struct queue_set *queues)
{
	pthread_mutex_lock(&queues->mutex);
	queues->closed = 1;
	for (int s = 0; s < STREAM_COUNT; s++)
		pthread_cond_broadcast(&queues->streams[s].came_free);
	pthread_cond_signal(&queues->arrived);
	pthread_mutex_unlock(&queues->mutex);
}
