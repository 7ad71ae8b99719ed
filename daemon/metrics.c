/*
 * metrics.c: one table of metrics: name, type, unit, help, and where the value comes from. A new metric is one entry here.
 *
 * Most values are fields of struct engine_status and are read by offset; the rest have a function each, which writes its samples with labels.
 * Runs in the server's threads on copies; nothing is kept. After a change run the unit test with RECD_UPDATE=1: it writes docs/METRICS.md anew.
 */
#include "daemon/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

const unsigned metrics_codes[METRICS_CODES] = {200, 400, 404, 405, 411, 413, 500, 503, 0};

struct metric {
	const char *name;
	const char *type; /* "counter", "gauge" */
	const char *unit; /* "" when it counts things */
	const char *labels; /* for the page; "" */
	const char *help;
	enum { FROM_STATUS_U64, FROM_STATUS_I64, FROM_STATUS_U32, FROM_STATUS_INT, FROM_STATUS_DOUBLE, FROM_STATUS_MS, FROM_STATUS_US, FROM_FUNCTION } from;
	size_t offset;                                                                                     /* in struct engine_status */
	void (*write)(FILE *out, const struct metric *metric, const struct metrics_input *input); /* FROM_FUNCTION */
};

/* ---- samples ---- */

/* A label's value with ", \ and newline escaped, as the format asks. */
static void write_label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
}

/* Whole numbers exactly as far as a double goes, others to 15 digits. */
static void write_value(FILE *out, double value)
{
	fprintf(out, value == trunc(value) && fabs(value) < 1e17 ? "%.0f\n" : "%.15g\n", value);
}

static void sample(FILE *out, const struct metric *metric, double value)
{
	fprintf(out, "%s ", metric->name);
	write_value(out, value);
}

static void sample_u64(FILE *out, const struct metric *metric, uint64_t value)
{
	fprintf(out, "%s %" PRIu64 "\n", metric->name, value);
}

/* One label. */
static void sample_with(FILE *out, const struct metric *metric, const char *label, const char *label_value, double value)
{
	fprintf(out, "%s{%s=\"", metric->name, label);
	write_label(out, label_value);
	fputs("\"} ", out);
	write_value(out, value);
}

/* ---- values with a function of their own ---- */

static void write_up(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	(void)input;
	sample(out, metric, 1);
}

static void write_ready(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	sample(out, metric, input->status && input->status->ready);
}

static void write_info(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	fprintf(out, "%s{version=\"" RECD_VERSION "\",backend=\"", metric->name);
	write_label(out, input->status ? input->status->backend : "");
	fputs("\",device=\"", out);
	write_label(out, input->status ? input->status->device_name : "");
	fputs("\",precision=\"", out);
	write_label(out, input->status ? input->status->precision : "");
	fputs("\"} 1\n", out);
}

#define POSITION_COUNTER(field)                                                                                                                              \
	static void write_##field(FILE *out, const struct metric *metric, const struct metrics_input *input)                                                  \
	{                                                                                                                                                     \
		const struct engine_status *status = input->status;                                                                                           \
		for (size_t i = 0; status && i < status->n_positions && i < ENGINE_POSITIONS_SHOWN; i++)                                                      \
			sample_with(out, metric, "position", status->positions[i].name, (double)status->positions[i].field);                                  \
		if (status && status->n_positions > ENGINE_POSITIONS_SHOWN)                                                                                   \
			sample_with(out, metric, "position", PARTITIONS_OTHERS, (double)status->positions_rest.field);                                        \
	}
POSITION_COUNTER(lines)
POSITION_COUNTER(empty)
POSITION_COUNTER(unknown_types)
POSITION_COUNTER(gaps)
POSITION_COUNTER(gap_bytes)
POSITION_COUNTER(holes)
POSITION_COUNTER(duplicates)
POSITION_COUNTER(resets)

/* Offsets of many positions make no sum. */
static void write_offset(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	const struct engine_status *status = input->status;

	for (size_t i = 0; status && i < status->n_positions && i < ENGINE_POSITIONS_SHOWN; i++)
		sample_with(out, metric, "position", status->positions[i].name, (double)status->positions[i].offset);
}

static void write_refused_of(FILE *out, const struct metric *metric, const char *name, const uint64_t refused[REFUSAL_COUNT])
{
	for (int r = 0; r < REFUSAL_COUNT; r++) {
		if (!refused[r])
			continue;
		fprintf(out, "%s{position=\"", metric->name);
		write_label(out, name);
		fprintf(out, "\",reason=\"%s\"} %" PRIu64 "\n", refusal_name((enum refusal)r), refused[r]);
	}
}

static void write_refused(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	const struct engine_status *status = input->status;

	for (size_t i = 0; status && i < status->n_positions && i < ENGINE_POSITIONS_SHOWN; i++)
		write_refused_of(out, metric, status->positions[i].name, status->positions[i].refused);
	if (status && status->n_positions > ENGINE_POSITIONS_SHOWN)
		write_refused_of(out, metric, PARTITIONS_OTHERS, status->positions_rest.refused);
}

static void write_applied(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	for (int s = 0; input->status && s < STREAM_COUNT; s++)
		sample_with(out, metric, "stream", event_stream_name((enum event_stream)s), (double)input->status->counters.events_applied[s]);
}

static void write_time_max(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	if (input->status && input->status->time_max_us != STATE_TIME_NONE)
		sample(out, metric, (double)input->status->time_max_us / 1e6);
}

static void write_queue(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	for (int s = 0; s < STREAM_COUNT; s++)
		sample_with(out, metric, "stream", event_stream_name((enum event_stream)s), input->queue_waiting[s]);
}

#define SOURCE_VALUE(suffix, condition, value)                                                                                                               \
	static void write_source_##suffix(FILE *out, const struct metric *metric, const struct metrics_input *input)                                          \
	{                                                                                                                                                     \
		for (size_t i = 0; i < input->n_sources; i++) {                                                                                               \
			const struct source_status *source = &input->sources[i];                                                                              \
			if (condition)                                                                                                                        \
				sample_with(out, metric, "source", source->name, (double)(value));                                                            \
		}                                                                                                                                             \
	}
SOURCE_VALUE(partitions, 1, source->partitions)
SOURCE_VALUE(lag_bytes, source->lag_bytes >= 0, source->lag_bytes)
SOURCE_VALUE(lag_records, source->lag_records >= 0, source->lag_records)
SOURCE_VALUE(last_time, source->last_time_us != STATE_TIME_NONE, (double)source->last_time_us / 1e6)
SOURCE_VALUE(degraded, 1, source->degraded != 0)

/* What is not known is left out. */
#define PARTITION_VALUE(suffix, known, value)                                                                                                                \
	static void write_partition_##suffix(FILE *out, const struct metric *metric, const struct metrics_input *input)                                       \
	{                                                                                                                                                     \
		for (size_t i = 0; i < input->n_partitions; i++) {                                                                                            \
			const struct partition_view *partition = &input->partitions[i];                                                                       \
			if ((known) >= 0)                                                                                                                     \
				sample_with(out, metric, "position", partition->name, (double)(value));                                                       \
		}                                                                                                                                             \
	}
PARTITION_VALUE(end, partition->end, partition->end)
PARTITION_VALUE(lag_records, partition->lag_records, partition->lag_records)
PARTITION_VALUE(lag_seconds, partition->lag_time_us, (double)partition->lag_time_us / 1e6)
PARTITION_VALUE(idle_seconds, partition->idle_us, (double)partition->idle_us / 1e6)
PARTITION_VALUE(committed, partition->committed, partition->committed)

static void write_answers(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	char code[16];

	for (size_t i = 0; i < METRICS_CODES; i++) {
		snprintf(code, sizeof(code), "%u", metrics_codes[i]);
		sample_with(out, metric, "code", metrics_codes[i] ? code : "other", (double)input->answers[i]);
	}
}

#define INPUT_COUNTER(suffix, field)                                                                                                                         \
	static void write_##suffix(FILE *out, const struct metric *metric, const struct metrics_input *input)                                                 \
	{                                                                                                                                                     \
		sample_u64(out, metric, input->field);                                                                                                        \
	}
INPUT_COUNTER(clients, server.clients)
INPUT_COUNTER(clients_accepted, server.clients_accepted)
INPUT_COUNTER(clients_dropped, server.clients_dropped)
INPUT_COUNTER(accept_failures, server.accept_failures)
INPUT_COUNTER(log_lost, log_lost)

/* A figure of live quality is no number while nothing was ranked: then it is left out. */
#define QUALITY_FIGURE(field)                                                                                                                                \
	static void write_quality_##field(FILE *out, const struct metric *metric, const struct metrics_input *input)                                          \
	{                                                                                                                                                     \
		for (int m = 0; input->status && m < QUALITY_MODELS; m++)                                                                                     \
			if (isfinite(input->status->quality.models[m].field))                                                                                 \
				sample_with(out, metric, "model", quality_model_name((enum quality_model)m), input->status->quality.models[m].field);         \
	}
QUALITY_FIGURE(hit_rate)
QUALITY_FIGURE(ndcg)
QUALITY_FIGURE(auc)

static void write_quality_left_out(FILE *out, const struct metric *metric, const struct metrics_input *input)
{
	for (int why = 0; input->status && why < QUALITY_LEFT_OUT; why++)
		sample_with(out, metric, "reason", quality_left_out_name((enum quality_left_out)why), (double)input->status->quality.left_out[why]);
}

/* ---- the table ---- */

#define STATUS(kind, field) FROM_STATUS_##kind, offsetof(struct engine_status, field), NULL
#define FUNCTION(function) FROM_FUNCTION, 0, function

static const struct metric metrics[] = {
	{"recd_up", "gauge", "", "", "1 while recd answers.", FUNCTION(write_up)},
	{"recd_ready", "gauge", "", "", "1 once recovery is done; what /readyz says.", FUNCTION(write_ready)},
	{"recd_info", "gauge", "", "version, backend, device, precision", "Always 1; what runs.", FUNCTION(write_info)},

	{"recd_source_partitions", "gauge", "", "source", "Files that are open; Kafka partitions that are read.", FUNCTION(write_source_partitions)},
	{"recd_source_lag_bytes", "gauge", "bytes", "source", "Not read yet, over all files of the source.", FUNCTION(write_source_lag_bytes)},
	{"recd_source_lag_records", "gauge", "", "source", "Not read yet, where positions count records.", FUNCTION(write_source_lag_records)},
	{"recd_source_last_event_timestamp_seconds", "gauge", "seconds", "source",
	 "Largest event time delivered. Compare with the clock: a source that is silent for long shows here, not as an error.",
	 FUNCTION(write_source_last_time)},
	{"recd_source_degraded", "gauge", "", "source", "1 while something is wrong and is retried; /v1/status has the reason.",
	 FUNCTION(write_source_degraded)},
	{"recd_position_offset", "gauge", "", "position", "Next byte (or record) to read.", FUNCTION(write_offset)},
	{"recd_lines_total", "counter", "", "position", "Lines taken or refused, empty ones not counted. In the checkpoint, exact.", FUNCTION(write_lines)},
	{"recd_empty_lines_total", "counter", "", "position", "Empty lines.", FUNCTION(write_empty)},
	{"recd_refused_lines_total", "counter", "", "position, reason", "Lines refused; the lines are in dead-letter.jsonl.", FUNCTION(write_refused)},
	{"recd_unknown_event_types_total", "counter", "", "position", "Events of a type that recd does not know; not an error.",
	 FUNCTION(write_unknown_types)},
	{"recd_gaps_total", "counter", "", "position", "Times that data is known to have been lost before it was read. Alarm on any growth.",
	 FUNCTION(write_gaps)},
	{"recd_gap_bytes_total", "counter", "bytes", "position", "How much that was, as far as it is known (records, where positions count records).",
	 FUNCTION(write_gap_bytes)},
	{"recd_file_resets_total", "counter", "", "position", "Files that were truncated and are read from their start again.", FUNCTION(write_resets)},
	{"recd_holes_total", "counter", "", "position", "Kafka offsets that hold no record: transaction markers, compaction. Not an error.", FUNCTION(write_holes)},
	{"recd_duplicates_total", "counter", "", "position", "Kafka records that came again and were dropped, as happens when a broker goes away. Not an error.",
	 FUNCTION(write_duplicates)},
	{"recd_partition_end_offset", "gauge", "", "position", "Kafka: offset of the record that the partition takes next (high watermark).",
	 FUNCTION(write_partition_end)},
	{"recd_partition_lag_records", "gauge", "", "position", "Kafka: records not read yet.", FUNCTION(write_partition_lag_records)},
	{"recd_partition_lag_seconds", "gauge", "seconds", "position",
	 "Kafka: lag in event time: the largest event time applied from any source minus the largest of this partition. A partition or topic that is silent while others "
	 "go on grows here even when no record waits; it is not an error.",
	 FUNCTION(write_partition_lag_seconds)},
	{"recd_partition_idle_seconds", "gauge", "seconds", "position", "Kafka: since the last record came; absent: none in this run.",
	 FUNCTION(write_partition_idle_seconds)},
	{"recd_partition_committed_offset", "gauge", "", "position",
	 "Kafka: last offset that the broker has taken as committed, always one of a durable checkpoint; absent: none in this run.",
	 FUNCTION(write_partition_committed)},
	{"recd_dead_letter_bytes", "gauge", "bytes", "", "Length of dead-letter.jsonl.", STATUS(I64, dead_letter_length)},
	{"recd_dead_letter_dropped_total", "counter", "", "", "Refused lines not kept because the file is full.", STATUS(U64, dead_letter_dropped)},
	{"recd_dead_letter_failures_total", "counter", "", "", "Batches whose refused lines could not be written.", STATUS(U64, dead_letter_failures)},
	{"recd_queue_batches", "gauge", "", "stream", "Batches that wait for the engine; full means that its source pauses.", FUNCTION(write_queue)},

	{"recd_events_applied_total", "counter", "", "stream", "Lines applied to the histories.", FUNCTION(write_applied)},
	{"recd_apply_lines_per_second", "gauge", "", "", "Lines applied a second, over the last seconds.", STATUS(DOUBLE, apply_per_sec)},
	{"recd_apply_gap_max_seconds", "gauge", "seconds", "", "Longest gap between two apply slices in the last minute (stall).", STATUS(US, apply_gap_max_us)},
	{"recd_apply_gap_p999_seconds", "gauge", "seconds", "", "99.9 % of those gaps are no longer.", STATUS(US, apply_gap_p999_us)},
	{"recd_checkpoint_gap_p999_seconds", "gauge", "seconds", "", "The same while a checkpoint was written, since the start; 0: none was.",
	 STATUS(US, checkpoint_gap_p999_us)},
	{"recd_event_time_max_seconds", "gauge", "seconds", "", "Largest event time seen, as a Unix time.", FUNCTION(write_time_max)},
	{"recd_users", "gauge", "", "", "Users known.", STATUS(U32, n_users)},
	{"recd_items", "gauge", "", "", "Items known.", STATUS(U32, n_items)},
	{"recd_catalogue_entries", "gauge", "", "", "Items with a catalogue entry.", STATUS(U64, counters.catalogue_entries)},
	{"recd_positives", "gauge", "", "", "Pairs of user and item watched far enough.", STATUS(U64, n_positives)},
	{"recd_dropped_user_cap_total", "counter", "", "", "Events dropped because state.users_max is reached. Alarm: no longer exact.",
	 STATUS(U64, counters.dropped_user_cap)},
	{"recd_dropped_item_cap_total", "counter", "", "", "Events dropped because state.items_max is reached. Alarm: no longer exact.",
	 STATUS(U64, counters.dropped_item_cap)},
	{"recd_dropped_forgotten_total", "counter", "", "", "Events of forgotten users.", STATUS(U64, counters.dropped_forgotten)},
	{"recd_surfaces_full_total", "counter", "", "", "Impressions whose surface did not fit the table of names.", STATUS(U64, counters.surfaces_full)},
	{"recd_state_bytes", "gauge", "bytes", "", "Memory of the histories, estimated.", STATUS(U64, memory_bytes)},

	{"recd_training_triples_total", "counter", "", "", "Triples trained, restarts included.", STATUS(U64, progress.triples)},
	{"recd_training_triples_per_second", "gauge", "", "", "Over the last seconds.", STATUS(DOUBLE, triples_per_sec)},
	{"recd_training_threads", "gauge", "", "", "CPU threads that train: fewer than training.threads while fewer get more done. 0: a GPU trains, or nothing was trained.", STATUS(U32, training_threads)},
	{"recd_training_passes_total", "counter", "", "", "Passes over all positives.", STATUS(U64, progress.passes)},
	{"recd_training_rollbacks_total", "counter", "", "", "Times the parameters were set back after NaN or divergence. Alarm on any growth.",
	 STATUS(U64, progress.rollbacks)},
	{"recd_training_loss", "gauge", "", "", "Running mean of -ln sigmoid(x) over the triples.", STATUS(DOUBLE, loss)},
	{"recd_training_learning_rate", "gauge", "", "", "Of the next slice: it follows the news (training.cool_passes).", STATUS(DOUBLE, learning_rate)},
	{"recd_training_resting", "gauge", "", "", "1 while training waits for a new positive (training.idle_passes).", STATUS(INT, training_resting)},
	{"recd_device_memory_bytes", "gauge", "bytes", "", "Memory of the device that trains; 0: none of its own.", STATUS(U64, device_memory_bytes)},
	{"recd_device_memory_used_bytes", "gauge", "bytes", "", "Of that in use, by everybody.", STATUS(U64, device_memory_used_bytes)},
	{"recd_device_lost", "gauge", "", "", "1 while the CPU stands in for a device that was lost. Alarm above 0 for longer than a few minutes.",
	 STATUS(INT, device_lost)},
	{"recd_device_losses_total", "counter", "", "", "Times the device failed, filled up or hung, since the start. Alarm on any growth; /v1/status has the reason.",
	 STATUS(U64, device_losses)},
	{"recd_device_rebuilds_total", "counter", "", "", "Times it was opened and filled again.", STATUS(U64, device_rebuilds)},
	{"recd_personal_rows", "gauge", "", "", "Users with a personal row.", STATUS(U64, personal_rows)},
	{"recd_folded_in_total", "counter", "", "", "Personal rows fitted since the start.", STATUS(U64, folded_in)},
	{"recd_fold_in_waiting", "gauge", "", "", "Users with news whose row is not fitted yet.", STATUS(U64, fold_in_waiting)},
	{"recd_personal_rows_refreshed_total", "counter", "", "", "Rows fitted again because of their age.", STATUS(U64, refreshed)},

	{"recd_quality_hit_rate", "gauge", "", "model",
	 "Live quality: share of the last quality.window ranked positives that were among the first quality.k of the list before they were learnt from.",
	 FUNCTION(write_quality_hit_rate)},
	{"recd_quality_ndcg", "gauge", "", "model", "The same with 1 / log2(rank + 1) for each hit. Alarm where personalized falls below popularity.",
	 FUNCTION(write_quality_ndcg)},
	{"recd_quality_auc", "gauge", "", "model", "Mean share of the other items of the list that scored lower; 0.5: no better than chance.",
	 FUNCTION(write_quality_auc)},
	{"recd_quality_count", "gauge", "", "", "Ranked positives behind each of these figures.", STATUS(U32, quality.count)},
	{"recd_quality_ranked_total", "counter", "", "", "Positives ranked since the start.", STATUS(U64, quality.ranked)},
	{"recd_quality_new_users_total", "counter", "", "", "Of them, first positives of a user.", STATUS(U64, quality.new_users)},
	{"recd_quality_left_out_total", "counter", "", "reason",
	 "Sampled positives that were not ranked. lag: the stream was behind; budget: quality.cpu_share_max was used up; queue_full, late: they came faster than they "
	 "could be ranked; unknown_item: the published model did not have the item.",
	 FUNCTION(write_quality_left_out)},
	{"recd_quality_cpu_seconds_total", "counter", "seconds", "", "CPU time of the thread that ranks.", STATUS(US, quality.cpu_us)},

	{"recd_generation", "gauge", "", "", "Number of the published model.", STATUS(U64, generation)},
	{"recd_publish_age_seconds", "gauge", "seconds", "", "Age of the published model.", STATUS(MS, publish_age_ms)},
	{"recd_checkpoint_number", "gauge", "", "", "Last durable checkpoint; 0: none.", STATUS(U32, checkpoint_number)},
	{"recd_checkpoint_age_seconds", "gauge", "seconds", "",
	 "Since the last one became durable; absent: none in this run. Alarm at a few times checkpoint.interval_sec.", STATUS(MS, checkpoint_age_ms)},
	{"recd_checkpoint_duration_seconds", "gauge", "seconds", "", "How long the last one took.", STATUS(MS, checkpoint_duration_ms)},
	{"recd_checkpoint_bytes", "gauge", "bytes", "", "Size of the last one.", STATUS(U64, checkpoint_bytes)},
	{"recd_checkpoint_failures", "gauge", "", "", "Failures in a row. Alarm above 0; /v1/status has the reason.", STATUS(U64, checkpoint_failures)},
	{"recd_checkpoint_running", "gauge", "", "", "1 while one is written.", STATUS(INT, checkpoint_running)},
	{"recd_engine_turns_total", "counter", "", "", "Turns of the engine's loop; standing still means it hangs.", STATUS(U64, heartbeat)},

	{"recd_http_answers_total", "counter", "", "code", "Requests answered.", FUNCTION(write_answers)},
	{"recd_http_clients", "gauge", "", "", "Connections now.", FUNCTION(write_clients)},
	{"recd_http_clients_accepted_total", "counter", "", "", "Connections taken.", FUNCTION(write_clients_accepted)},
	{"recd_http_clients_dropped_total", "counter", "", "", "Connections closed because the client did not finish in time, or to make room.",
	 FUNCTION(write_clients_dropped)},
	{"recd_http_accept_failures_total", "counter", "", "", "Connections that could not be taken: no descriptor or memory left.",
	 FUNCTION(write_accept_failures)},
	{"recd_log_lines_lost_total", "counter", "", "", "Log lines lost because stderr was not read.", FUNCTION(write_log_lost)},
};
#define N_METRICS (sizeof(metrics) / sizeof(metrics[0]))

/* ---- output ---- */

static void write_status_value(FILE *out, const struct metric *metric, const struct engine_status *status)
{
	const void *at = (const char *)status + metric->offset;
	double value = 0;

	switch (metric->from) {
	case FROM_STATUS_U64:
		sample_u64(out, metric, *(const uint64_t *)at);
		return;
	case FROM_STATUS_I64:
		value = (double)*(const int64_t *)at;
		break;
	case FROM_STATUS_U32:
		value = *(const uint32_t *)at;
		break;
	case FROM_STATUS_INT:
		value = *(const int *)at;
		break;
	case FROM_STATUS_DOUBLE:
		value = *(const double *)at;
		break;
	case FROM_STATUS_MS:
		value = (double)*(const int64_t *)at / 1e3;
		break;
	case FROM_STATUS_US:
		value = (double)*(const int64_t *)at / 1e6;
		break;
	case FROM_FUNCTION:
		return;
	}
	if (isfinite(value) && !(metric->from == FROM_STATUS_MS && value < 0)) /* -1: never */
		sample(out, metric, value);
}

void metrics_write(FILE *out, const struct metrics_input *input)
{
	for (size_t i = 0; i < N_METRICS; i++) {
		const struct metric *metric = &metrics[i];

		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name, metric->type);
		if (metric->from == FROM_FUNCTION)
			metric->write(out, metric, input);
		else if (input->status)
			write_status_value(out, metric, input->status);
	}
}

void metrics_write_docs(FILE *out)
{
	fputs("# Metrics\n\n"
	      "Written from the table in daemon/metrics.c; do not edit. `GET /metrics` on the socket answers with these in Prometheus' text format:\n"
	      "`curl --unix-socket /run/recd/recd.sock http://recd/metrics`. A metric without a value yet is left out. Counters named with a `position` lie in the\n"
	      "checkpoint and go on after a restart; the others begin at 0. The label `position` is the source position's name (file:STREAM:PATH or\n"
	      "kafka:STREAM:TOPIC:PARTITION). The first 64 positions (256 for `recd_partition_*`) have samples of their own, the others one together, named\n"
	      "`(others)`: counters, offsets and lags in records are summed there, of lags in time and idle times it is the largest. `source` is the name of a source,\n"
	      "`stream` that of a stream.\n\n"
	      "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n",
	      out);
	for (size_t i = 0; i < N_METRICS; i++)
		fprintf(out, "| `%s` | %s | %s | %s | %s |\n", metrics[i].name, metrics[i].type, metrics[i].unit, metrics[i].labels, metrics[i].help);
}
