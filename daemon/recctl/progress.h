/*
 * progress.h: one progress line on standard error for long work, only when that is a terminal. In a pipe or a log it prints nothing.
 */
#ifndef DAEMON_RECCTL_PROGRESS_H
#define DAEMON_RECCTL_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

struct progress {
	const char *what; /* e.g. "impressions"; not copied */
	uint64_t total;   /* 0: unknown, no share and no time left are shown */
	uint64_t skip;    /* calls of progress_update() until the clock is read again */
	int64_t begin_ms, drawn_ms;
	int terminal;     /* 0: silent */
	int drawn;        /* the line is on the screen */
};

void progress_begin(struct progress *progress, const char *what, uint64_t total);
/* Cheap enough for every few thousand records: reads the clock on one call in 16 and draws at most five times a second. */
void progress_update(struct progress *progress, uint64_t done);
/* Removes the line. */
void progress_end(struct progress *progress);

/* The text of the line: "impressions  42 %  84,000 of 200,000  2.1 M/s  0:03 left". elapsed_ms > 0. */
void progress_text(const char *what, uint64_t done, uint64_t total, int64_t elapsed_ms, char *out, size_t size);

#endif
