/*
 * sources.h: the source threads. One thread a source: poll, push into the stream's queue, again. Sources and their threads live and end together.
 */
#ifndef DAEMON_SOURCES_H
#define DAEMON_SOURCES_H

#include "daemon/config.h"
#include "daemon/queue.h"
#include "ingest/source.h"

struct source_set;

/* Opens the sources that the configuration names, from the positions of the cut. Threads do not run yet. 0 or -errno. */
int source_set_open(const struct config *config, const struct source_position *positions, size_t n_positions, struct queue_set *queues,
                    struct source_set **ret_sources, char *errstr, size_t errstr_size);
int source_set_start(struct source_set *sources, char *errstr, size_t errstr_size);
size_t source_set_count(const struct source_set *sources);
/* Status of source i; any thread. Its heartbeat also grows while the thread waits for a free batch: a full queue is not a hang. */
void source_set_status(struct source_set *sources, size_t i, struct source_status *ret_status);
/* Stops and joins the threads, closes the sources. The queues must still exist; they are closed first. Accepts NULL. */
void source_set_close(struct source_set *sources);

#endif
