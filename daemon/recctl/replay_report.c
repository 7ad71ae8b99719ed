/*
 * replay_report.c: the words of a replay. Main thread of recctl. Results go to standard output, everything else to standard error.
 */
#include "daemon/recctl/replay_report.h"

#include <inttypes.h>
#include <stdio.h>

#include "ingest/decode.h"

static void clear_progress(const struct replay_report *report)
{
	if (report->progress.terminal && report->progress.drawn)
		fprintf(stderr, "\r\033[K");
}

void replay_report_refused(void *ctx, const char *path, uint64_t line, enum refusal reason)
{
	struct replay_report *report = ctx;

	if (report->bad_lines++ >= REPLAY_BAD_LINES_SHOWN)
		return;
	clear_progress(report);
	fprintf(stderr, "recctl replay: %s:%" PRIu64 ": bad line (%s), skipped%s\n", path, line, refusal_name(reason),
	        report->bad_lines == REPLAY_BAD_LINES_SHOWN ? "; further ones are only counted" : "");
}

void replay_report_note(void *ctx, const char *text)
{
	clear_progress(ctx);
	fprintf(stderr, "recctl replay: %s; trying on\n", text);
}

static uint64_t refused_of(const struct replay_counts *counts)
{
	uint64_t sum = 0;

	for (int reason = 0; reason < REFUSAL_COUNT; reason++)
		sum += counts->refused[reason];
	return sum;
}

static int has_files(const struct replay_plan *plan, enum event_stream stream)
{
	for (uint32_t i = 0; i < plan->n_inputs; i++) {
		if (plan->inputs[i].stream == stream)
			return 1;
	}
	return 0;
}

/* What was sent, or would be. */
static uint64_t sent_of(const struct replay_summary *summary, enum event_stream stream)
{
	const struct replay_counts *counts = replay_merge_counts(summary->merge, stream);

	return summary->dry_run ? counts->lines - refused_of(counts) - counts->out_of_range : summary->sent[stream].sent;
}

static void print_json(const struct replay_summary *summary)
{
	const char *comma = "";

	printf("{\"dry_run\":%s,\"complete\":%s,\"seconds\":%.3f,\"streams\":{", summary->dry_run ? "true" : "false", summary->complete ? "true" : "false",
	       summary->seconds);
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const struct replay_counts *counts = replay_merge_counts(summary->merge, (enum event_stream)stream);
		const struct replay_sent *sent = &summary->sent[stream];

		if (!has_files(summary->plan, (enum event_stream)stream))
			continue;
		printf("%s\"%s\":{\"topic\":\"%s\",\"lines\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"acknowledged\":%" PRIu64 ",\"present\":%" PRIu64 ",\"skipped\":%" PRIu64
		       ",\"out_of_range\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"too_large\":%" PRIu64 "}", comma, event_stream_name((enum event_stream)stream),
		       summary->plan->topics[stream], counts->lines, sent_of(summary, (enum event_stream)stream), sent->acknowledged, sent->present, refused_of(counts),
		       counts->out_of_range, sent->failed, sent->too_large);
		comma = ",";
	}
	printf("}}\n");
}

static void print_dry_run(const struct replay_summary *summary)
{
	for (uint32_t i = 0; i < summary->plan->n_inputs; i++) {
		const struct replay_input *input = &summary->plan->inputs[i];

		printf("%-12s %s -> %s\n", event_stream_name(input->stream), input->path, summary->plan->topics[input->stream]);
	}
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		char first[ISO8601_MAX], last[ISO8601_MAX];

		if (summary->first_us[stream] == INT64_MAX)
			continue;
		iso8601_format(summary->first_us[stream], first);
		iso8601_format(summary->last_us[stream], last);
		printf("%-12s from %s to %s\n", event_stream_name((enum event_stream)stream), first, last);
	}
}

void replay_report_print(const struct replay_summary *summary, int json)
{
	uint64_t total = 0;

	if (json) {
		print_json(summary);
		return;
	}
	if (summary->dry_run)
		print_dry_run(summary);
	printf("%-12s %12s %12s %12s %12s %12s %12s %12s\n", "stream", "lines", summary->dry_run ? "would send" : "sent", "acknowledged", "there before", "bad",
	       "out of range", "failed");
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const struct replay_counts *counts = replay_merge_counts(summary->merge, (enum event_stream)stream);
		const struct replay_sent *sent = &summary->sent[stream];

		if (!has_files(summary->plan, (enum event_stream)stream))
			continue;
		printf("%-12s %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n",
		       event_stream_name((enum event_stream)stream), counts->lines, sent_of(summary, (enum event_stream)stream), sent->acknowledged, sent->present,
		       refused_of(counts), counts->out_of_range, sent->failed + sent->too_large);
		total += sent_of(summary, (enum event_stream)stream);
	}
	if (summary->dry_run)
		printf("nothing was sent (--dry_run)\n");
	else
		printf("%" PRIu64 " records in %.2f s, %.0f a second%s\n", total, summary->seconds, summary->seconds > 0 ? (double)total / summary->seconds : 0.0,
		       summary->complete ? "" : "; not complete");
}
