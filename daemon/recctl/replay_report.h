/*
 * replay_report.h: what a replay tells: bad lines while it runs, exact counts at the end.
 */
#ifndef DAEMON_RECCTL_REPLAY_REPORT_H
#define DAEMON_RECCTL_REPLAY_REPORT_H

#include "daemon/recctl/progress.h"
#include "daemon/recctl/replay_merge.h"
#include "daemon/recctl/replay_send.h"

#define REPLAY_BAD_LINES_SHOWN 10

struct replay_report {
	struct progress progress;
	uint64_t bad_lines;
};

/* For replay_merge_config.refused: names the first bad lines on standard error, counts the rest. ctx: a struct replay_report. */
void replay_report_refused(void *ctx, const char *path, uint64_t line, enum refusal reason);
/* For replay_sender_config.note. ctx: a struct replay_report. */
void replay_report_note(void *ctx, const char *text);

struct replay_summary {
	const struct replay_plan *plan;
	const struct replay_merge *merge;
	struct replay_sent sent[STREAM_COUNT];
	int64_t first_us[STREAM_COUNT], last_us[STREAM_COUNT]; /* event times of what was or would be sent; first INT64_MAX: none */
	double seconds;
	int dry_run, complete;
};

/* To standard output, one line a stream that has files, or as one JSON object. */
void replay_report_print(const struct replay_summary *summary, int json);

#endif
