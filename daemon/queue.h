/*
 * queue.h: bounded queues between source threads and the engine, one per stream. A full queue pauses its sources.
 *
 * Batches circulate: a source thread takes a free batch, fills it, pushes it; the engine pops it, applies it, gives it back. All memory is allocated
 * when the set is made.
 */
#ifndef DAEMON_QUEUE_H
#define DAEMON_QUEUE_H

#include "ingest/event.h"

struct queue_set;

/* `batches` per stream, for the streams with enabled[stream] != 0. 0 or -ENOMEM. */
int queue_set_new(uint32_t batches, const int enabled[STREAM_COUNT], struct queue_set **ret_queues);
void queue_set_free(struct queue_set *queues);
/* An empty batch of the stream, waiting for one to come free; NULL after queue_set_close() or timeout_ms. Source thread. */
struct event_batch *queue_take_free(struct queue_set *queues, enum event_stream stream, int timeout_ms);
/* Hands a filled batch to the engine, or an unused one back. Source thread. */
void queue_push(struct queue_set *queues, struct event_batch *batch);
void queue_give_back(struct queue_set *queues, struct event_batch *batch);
/* Next batch in the order catalogue, watches, events, impressions, users; NULL when nothing waits. Engine. */
struct event_batch *queue_pop(struct queue_set *queues);
/* Waits until a batch waits, queue_wake() is called or timeout_ms passed. Engine. */
void queue_wait(struct queue_set *queues, int timeout_ms);
void queue_wake(struct queue_set *queues);
/* Batches waiting per stream; any thread. */
uint32_t queue_waiting(struct queue_set *queues, enum event_stream stream);
/* Wakes every waiter; from then on queue_take_free() returns NULL. */
void queue_set_close(struct queue_set *queues);

#endif
