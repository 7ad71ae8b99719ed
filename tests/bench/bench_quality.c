/*
 * bench_quality.c: what live quality costs: the engine with a steady stream of watches, without it and with it.
 *
 *   bench_quality [USERS ITEMS SECONDS LINES_PER_SEC]      default 20000 users, 20000 items, 8 s of stream each, 5000 lines a second
 *
 * Training is on, as in service. Prints, for no ranking and for shares of 0.1 and 1 of the new positives: lines applied a second, the gap between two apply slices, triples a
 * second, positives ranked a second, the share of one core that ranking took (the thread's own CPU time; the limit is quality.cpu_share_max = 0.05), and what was left out.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/engine.h"

#define HISTORY_PER_USER 20u
#define BATCH_LINES 100u

struct bench {
	uint32_t users, items, lines_per_sec;
	double seconds;
	struct queue_set *queues;
	struct engine *engine;
	struct config config;
	char path[256];
	int64_t lines;
};

static double now_sec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void sleep_sec(double seconds)
{
	const struct timespec ts = { .tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };

	nanosleep(&ts, NULL);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Watch n: any user, popular items more often; seven of ten are positives. */
static void add_watch(struct bench *b, struct event_batch *batch, uint64_t n)
{
	struct event *e = &batch->events[batch->n_events++];
	const uint64_t r = mix(n + 1);
	const double x = (double)(r >> 40) / (double)(1u << 24);

	memset(e, 0, sizeof(*e));
	e->stream = STREAM_WATCHES;
	e->user_id = (int64_t)(mix(n * 3 + 5) % b->users);
	e->item_id = 1000 + (int64_t)(x * x * (double)b->items);
	e->time_us = 1700000000000000 + (int64_t)n * 1000;
	e->flags = EVENT_HAS_COMPLETION;
	e->completion = r % 10 < 7 ? 0.9f : 0.2f;
}

static void push(struct bench *b, uint32_t lines)
{
	struct event_batch *batch = queue_take_free(b->queues, STREAM_WATCHES, 60000);

	for (uint32_t i = 0; i < lines; i++)
		add_watch(b, batch, (uint64_t)b->lines++);
	snprintf(batch->position.name, sizeof(batch->position.name), "file:watch_stats:/x");
	batch->position.offset = b->lines;
	queue_push(b->queues, batch);
}

static void wait_applied(struct bench *b, struct engine_status *status)
{
	do {
		sleep_sec(0.1);
		engine_get_status(b->engine, status);
	} while (status->counters.events_applied[STREAM_WATCHES] < (uint64_t)b->lines);
}

/* Sets live quality and streams; one line of the table. */
static void measure(struct bench *b, const char *name, int enabled, float share)
{
	static struct engine_status before, after;
	struct config fresh = b->config;
	const int64_t first = b->lines;
	double began, took;

	fresh.quality.enabled = enabled;
	fresh.quality.share = share;
	engine_reconfigure(b->engine, &fresh);
	sleep_sec(1.0);
	engine_get_status(b->engine, &before);
	began = now_sec();
	while (now_sec() - began < b->seconds) {
		const double ahead = (double)(b->lines - first) / b->lines_per_sec - (now_sec() - began);

		if (ahead > 0)
			sleep_sec(ahead);
		push(b, BATCH_LINES);
	}
	wait_applied(b, &after);
	took = now_sec() - began;
	const struct quality_status *q = &after.quality, *p = &before.quality;

	printf("%-10s %9.0f %8.1f %8.1f %9.2f %9.1f %8.2f %%", name, (double)(b->lines - first) / took, (double)after.apply_gap_p999_us / 1e3,
	       (double)after.apply_gap_max_us / 1e3, (double)(after.progress.triples - before.progress.triples) / took / 1e6,
	       (double)(q->ranked - p->ranked) / took, 100.0 * (double)(q->cpu_us - p->cpu_us) / (took * 1e6));
	for (int why = 0; why < QUALITY_LEFT_OUT; why++)
		if (q->left_out[why] > p->left_out[why])
			printf("  %s %llu", quality_left_out_name((enum quality_left_out)why), (unsigned long long)(q->left_out[why] - p->left_out[why]));
	putchar('\n');
}

static int open_engine(struct bench *b)
{
	static const int enabled[STREAM_COUNT] = { [STREAM_WATCHES] = 1 };
	char errstr[512] = "";
	int fd;

	config_default(&b->config);
	free(b->config.data_dir);
	b->config.data_dir = strdup(b->path);
	b->config.checkpoint_interval_sec = 0;
	fd = open(b->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (queue_set_new(b->config.queue_batches, enabled, &b->queues) < 0 ||
	    engine_open(&b->config, fd, b->queues, NULL, NULL, &b->engine, errstr, sizeof(errstr)) < 0 || engine_start(b->engine, errstr, sizeof(errstr)) < 0) {
		fprintf(stderr, "bench_quality: %s\n", errstr);
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct engine_status status;
	struct bench b = { .users = argc > 1 ? (uint32_t)atoi(argv[1]) : 20000, .items = argc > 2 ? (uint32_t)atoi(argv[2]) : 20000,
		           .seconds = argc > 3 ? atof(argv[3]) : 8, .lines_per_sec = argc > 4 ? (uint32_t)atoi(argv[4]) : 5000 };
	char command[300];

	snprintf(b.path, sizeof(b.path), "%s/recd-bench-quality.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (mkdtemp(b.path) == NULL || open_engine(&b) < 0)
		return 1;
	while (b.lines < (int64_t)b.users * HISTORY_PER_USER)
		push(&b, EVENT_BATCH_EVENTS);
	wait_applied(&b, &status);
	printf("%u users, %u items, %llu positives, %u lines a second, gaps in ms over the last minute\n", status.n_users, status.n_items,
	       (unsigned long long)status.n_positives, b.lines_per_sec);
	printf("%-10s %9s %8s %8s %9s %9s %10s  %s\n", "share", "lines/s", "gap 99.9", "gap max", "M trip./s", "ranked/s", "of a core", "left out");
	measure(&b, "off", 0, 0.1f);
	measure(&b, "0.1", 1, 0.1f);
	measure(&b, "1", 1, 1.0f);
	measure(&b, "off again", 0, 0.1f);
	engine_request_stop(b.engine, 1);
	engine_close(b.engine);
	queue_set_free(b.queues);
	snprintf(command, sizeof(command), "rm -rf '%s'", b.path);
	return system(command) != 0;
}
