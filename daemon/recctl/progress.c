/*
 * progress.c: how far a long command has come, at what rate, and how long it will still take.
 *
 * Runs on the thread that does the work. The line goes to standard error, overwrites itself, and is removed at the end, so that standard output
 * stays clean and a log holds no control characters. Nothing is printed unless standard error is a terminal.
 */
#include "daemon/recctl/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define DRAW_INTERVAL_MS 200
#define CALLS_PER_CLOCK 16

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A count with a comma at each thousand. */
static void put_count(uint64_t count, char out[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, count), used = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			out[used++] = ',';
		out[used++] = digits[i];
	}
	out[used] = '\0';
}

void progress_text(const char *what, uint64_t done, uint64_t total, int64_t elapsed_ms, char *out, size_t size)
{
	char count[32], of[32];
	double rate = (double)done * 1000.0 / (double)elapsed_ms; /* a second */
	const char *unit = rate >= 1e6 ? " M" : rate >= 1e3 ? " k" : " ";
	double shown = rate >= 1e6 ? rate / 1e6 : rate >= 1e3 ? rate / 1e3 : rate;

	if (total && done > total)
		done = total;
	put_count(done, count);
	if (!total) {
		snprintf(out, size, "%s  %s  %.1f%s/s", what, count, shown, unit);
		return;
	}
	put_count(total, of);
	uint64_t left_s = rate > 0 ? (uint64_t)((double)(total - done) / rate + 0.5) : 0;
	int used = snprintf(out, size, "%s  %3.0f %%  %s of %s  %.1f%s/s", what, 100.0 * (double)done / (double)total, count, of, shown, unit);
	if (used > 0 && (size_t)used < size && done > 0)
		snprintf(out + used, size - (size_t)used, "  %" PRIu64 ":%02u left", left_s / 60, (unsigned)(left_s % 60));
}

void progress_begin(struct progress *progress, const char *what, uint64_t total)
{
	*progress = (struct progress){ .what = what, .total = total, .begin_ms = now_ms(), .terminal = isatty(STDERR_FILENO) };
	progress->drawn_ms = progress->begin_ms;
}

void progress_update(struct progress *progress, uint64_t done)
{
	char text[160];

	if (!progress->terminal || progress->skip++ % CALLS_PER_CLOCK)
		return;
	int64_t now = now_ms();
	if (now - progress->drawn_ms < DRAW_INTERVAL_MS)
		return;
	progress->drawn_ms = now;
	progress_text(progress->what, done, progress->total, now - progress->begin_ms, text, sizeof(text));
	fprintf(stderr, "\r\033[K%s", text);
	progress->drawn = 1;
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->terminal && progress->drawn)
		fprintf(stderr, "\r\033[K");
	progress->terminal = 0;
}
