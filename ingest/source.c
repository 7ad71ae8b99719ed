/*
 * source.c: calls through a source's table. Every kind of source (files, Kafka) is a struct that begins with struct source; nothing
 * outside ingest/ knows which kind it holds. source_poll() runs on the source's own thread, the others as source.h says.
 */
#include "ingest/source.h"

#include <stddef.h>

int source_poll(struct source *source, struct event_batch *batch, int timeout_ms, char *errstr, size_t errstr_size)
{
	return source->ops->poll(source, batch, timeout_ms, errstr, errstr_size);
}

void source_wake(struct source *source)
{
	source->ops->wake(source);
}

void source_status(struct source *source, struct source_status *ret_status)
{
	source->ops->status(source, ret_status);
}

size_t source_partitions(struct source *source, struct partition_status *ret_partitions, size_t max)
{
	return source->ops->partitions ? source->ops->partitions(source, ret_partitions, max) : 0;
}

void source_commit(struct source *source, const struct source_position *positions, size_t n_positions)
{
	if (source->ops->commit)
		source->ops->commit(source, positions, n_positions);
}

void source_close(struct source *source)
{
	if (source)
		source->ops->close(source);
}
