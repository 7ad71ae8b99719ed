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

void source_close(struct source *source)
{
	if (source)
		source->ops->close(source);
}
