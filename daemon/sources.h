/*
 * sources.h: the source threads. One thread a source: poll, push into the stream's queue, again. A stream has up to two sources: its files and its topic.
 * Threads end before their sources do, so that the last checkpoint's positions can still be committed to the broker.
 */
#ifndef DAEMON_SOURCES_H
#define DAEMON_SOURCES_H

#include "daemon/config.h"
#include "daemon/queue.h"
#include "ingest/source.h"

struct source_set;

#define SOURCE_SET_MAX (2 * STREAM_COUNT) /* files and Kafka, for each stream */

/* Opens the sources that the configuration names, from the positions of the cut. Threads do not run yet. 0 or -errno. */
int source_set_open(const struct config *config, const struct source_position *positions, size_t n_positions, struct queue_set *queues,
                    struct source_set **ret_sources, char *errstr, size_t errstr_size);
int source_set_start(struct source_set *sources, char *errstr, size_t errstr_size);
size_t source_set_count(const struct source_set *sources);
/* Status of source i; any thread. Its heartbeat also grows while the thread waits for a free batch: a full queue is not a hang. */
void source_set_status(struct source_set *sources, size_t i, struct source_status *ret_status);
/* Kafka partitions of all sources; any thread. Fills at most max, returns how many there are. */
size_t source_set_partitions(struct source_set *sources, struct partition_status *ret_partitions, size_t max);
/* Hands the positions of a durable checkpoint to the sources that tell a broker; any thread, returns at once. Allowed until source_set_close(). */
void source_set_commit(struct source_set *sources, const struct source_position *positions, size_t n_positions);
/* 1 and the whole text (maybe several lines) when a source found data lost that the operator has not accepted; any thread. The daemon then stops. */
int source_set_refused(struct source_set *sources, char *ret_text, size_t ret_text_size);
/* Stops and joins the threads; the sources stay open. The queues must still exist; they are closed first. A second call does nothing. Accepts NULL. */
void source_set_stop(struct source_set *sources);
/* source_set_stop(), then closes the sources and frees everything. Accepts NULL. */
void source_set_close(struct source_set *sources);

#endif
