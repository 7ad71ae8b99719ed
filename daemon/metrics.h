/*
 * metrics.h: the numbers of /metrics, in Prometheus' text format, from one table (docs/METRICS.md is written from it too).
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include <stdio.h>

#include "daemon/api.h"
#include "daemon/engine.h"
#include "daemon/partitions.h"

/* Status codes that answers are counted by; METRICS_CODES - 1 stands for all others. */
#define METRICS_CODES 9
extern const unsigned metrics_codes[METRICS_CODES];

struct metrics_input {
	const struct engine_status *status; /* NULL: not started; its metrics are then left out */
	const struct source_status *sources;
	size_t n_sources;
	const struct partition_view *partitions; /* as partitions_view() gave them */
	size_t n_partitions;
	uint32_t queue_waiting[STREAM_COUNT]; /* batches */
	uint64_t answers[METRICS_CODES];      /* answered requests by code */
	struct api_server_counters server;
	uint64_t log_lost;
};

/* Writes every metric that has a value. Pure but for the stream. */
void metrics_write(FILE *out, const struct metrics_input *input);
/* docs/METRICS.md. */
void metrics_write_docs(FILE *out);

#endif
