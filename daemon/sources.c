/*
 * sources.c: a thread per source. It owns the source while it runs: nothing else polls it. A full queue makes it wait for a free batch, which
 * pauses the source; a source that fails for good ends its thread, is shown as failed, and leaves the others alone.
 */
#include "daemon/sources.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"

#define POLL_TIMEOUT_MS 200
#define FREE_TIMEOUT_MS 200

struct source_thread {
	struct source_set *set;
	struct source *source;
	enum event_stream stream;
	pthread_t thread;
	int started;
	atomic_int failed;
	atomic_ullong waits; /* turns spent waiting for a free batch */
	char error[512];     /* written once, before failed is set */
	int was_degraded;
};

struct source_set {
	struct source_thread threads[STREAM_COUNT];
	size_t n;
	struct queue_set *queues;
	atomic_int stop;
};

/* Says once when a source falls into trouble and once when it is well again. */
static void log_changes(struct source_thread *t)
{
	struct source_status status;

	source_status(t->source, &status);
	if (status.degraded == t->was_degraded)
		return;
	t->was_degraded = status.degraded;
	if (status.degraded)
		log_warn("source %s: %s", status.name, status.reason);
	else
		log_info("source %s: well again", status.name);
}

static void *source_thread(void *arg)
{
	struct source_thread *t = arg;
	struct source_set *set = t->set;

	while (!atomic_load(&set->stop)) {
		struct event_batch *batch = queue_take_free(set->queues, t->stream, FREE_TIMEOUT_MS);
		int rc;

		if (batch == NULL) {
			atomic_fetch_add(&t->waits, 1);
			continue;
		}
		rc = source_poll(t->source, batch, POLL_TIMEOUT_MS, t->error, sizeof(t->error));
		if (rc == 0)
			queue_push(set->queues, batch);
		else
			queue_give_back(set->queues, batch);
		log_changes(t);
		if (rc < 0 && rc != -EAGAIN) {
			log_error("source %s stopped: %s", event_stream_name(t->stream), t->error);
			atomic_store(&t->failed, 1);
			break;
		}
	}
	return NULL;
}

int source_set_open(const struct config *config, const struct source_position *positions, size_t n_positions, struct queue_set *queues,
                    struct source_set **ret_sources, char *errstr, size_t errstr_size)
{
	struct source_set *set = calloc(1, sizeof(*set));
	int rc = 0;

	if (set == NULL)
		return -ENOMEM;
	set->queues = queues;
	for (int s = 0; rc == 0 && s < STREAM_COUNT; s++) {
		const struct config_stream *stream = &config->streams[s];
		struct source_files_config files = {
			.stream = (enum event_stream)s,
			.globs = (const char *const *)stream->files,
			.n_globs = stream->n_files,
			.from_end = stream->from_end,
			.limits = config->limits,
			.marker_bytes = 64,
			.stat_interval_ms = config->stat_interval_ms,
		};
		struct source_thread *t = &set->threads[set->n];

		if (stream->n_files == 0)
			continue;
		t->set = set;
		t->stream = (enum event_stream)s;
		rc = source_files_open(&files, positions, n_positions, &t->source, errstr, errstr_size);
		if (rc == 0)
			set->n++;
	}
	if (rc < 0) {
		source_set_close(set);
		return rc;
	}
	*ret_sources = set;
	return 0;
}

int source_set_start(struct source_set *sources, char *errstr, size_t errstr_size)
{
	for (size_t i = 0; i < sources->n; i++) {
		struct source_thread *t = &sources->threads[i];
		const int rc = -pthread_create(&t->thread, NULL, source_thread, t);

		if (rc < 0) {
			snprintf(errstr, errstr_size, "starting a source's thread: %s", strerror(-rc));
			return rc;
		}
		t->started = 1;
	}
	return 0;
}

size_t source_set_count(const struct source_set *sources)
{
	return sources->n;
}

void source_set_status(struct source_set *sources, size_t i, struct source_status *ret_status)
{
	struct source_thread *t = &sources->threads[i];

	source_status(t->source, ret_status);
	ret_status->heartbeat += atomic_load(&t->waits);
	if (atomic_load(&t->failed)) {
		ret_status->degraded = 1;
		snprintf(ret_status->reason, sizeof(ret_status->reason), "stopped: %s", t->error);
	}
}

void source_set_close(struct source_set *sources)
{
	if (sources == NULL)
		return;
	atomic_store(&sources->stop, 1);
	for (size_t i = 0; i < sources->n; i++)
		source_wake(sources->threads[i].source);
	for (size_t i = 0; i < sources->n; i++)
		if (sources->threads[i].started)
			pthread_join(sources->threads[i].thread, NULL);
	for (size_t i = 0; i < sources->n; i++)
		source_close(sources->threads[i].source);
	free(sources);
}
