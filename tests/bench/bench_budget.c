/*
 * bench_budget.c: the whole engine at the size of docs/ARCHITECTURE.md's budget: 1M users x 100k items x 20M positives, 64 impressions a user, d = 64.
 *
 *   bench_budget [USERS] [SECONDS]      default 1000000 users, 10 s of streaming on each side of the checkpoint; the rest scales with the users
 *
 * Fills the state through the queues, then trains and applies a steady stream, takes a snapshot meanwhile, and prints memory, the gap between apply
 * slices (p99.9, limit 50 ms) with and without a checkpoint being written, and the checkpoint's MB/s beside a plain sequential write and fsync of as
 * many bytes to the same file system. Needs about 4 GB of memory and 5 GB of disk for a million users.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/engine.h"

#define POSITIVES_PER_USER 20u
#define IMPRESSIONS_PER_USER 64u
#define STREAM_LINES_PER_SEC 20000u

struct bench {
	uint32_t users, items;
	struct queue_set *queues;
	struct engine *engine;
	struct config config;
	char path[256];
	int64_t lines;
	atomic_int stop;
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

/* A resident figure of /proc/self/status in MB. */
static double memory_mb(const char *key)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	double kb = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, key, strlen(key)) == 0)
			kb = strtod(line + strlen(key) + 1, NULL);
	if (f != NULL)
		fclose(f);
	return kb / 1024;
}

/* Line n of the fill: users in a scattered order, items skewed (the square of a uniform number), times going up. */
static void add_line(struct bench *b, struct event_batch *batch, enum event_stream stream, uint64_t n, uint64_t round)
{
	struct event *e = &batch->events[batch->n_events++];
	const uint64_t r = mix(n * 2 + (uint64_t)stream + 77);
	const double x = (double)(r >> 40) / (double)(1u << 24);

	memset(e, 0, sizeof(*e));
	e->stream = (uint8_t)stream;
	e->user_id = (int64_t)(mix(n % b->users) >> 8);
	e->item_id = 1000 + (int64_t)(x * x * (double)b->items);
	e->time_us = 1700000000000000 + (int64_t)(round * 3600000000u + n % 3600 * 1000000u);
	if (stream == STREAM_WATCHES) {
		e->flags = EVENT_HAS_COMPLETION;
		e->completion = 0.7f + 0.3f * (float)(r & 255) / 255.0f;
	} else {
		e->position = (int32_t)(r & 15);
	}
}

static void push(struct bench *b, struct event_batch *batch)
{
	snprintf(batch->position.name, sizeof(batch->position.name), "file:%s:/x", event_stream_name((enum event_stream)batch->stream));
	b->lines += batch->n_events;
	batch->position.offset = b->lines;
	queue_push(b->queues, batch);
}

static void fill_stream(struct bench *b, enum event_stream stream, uint32_t per_user)
{
	const uint64_t total = (uint64_t)b->users * per_user;

	for (uint64_t n = 0; n < total;) {
		struct event_batch *batch = queue_take_free(b->queues, stream, 60000);

		while (batch->n_events < EVENT_BATCH_EVENTS && n < total) {
			add_line(b, batch, stream, n, n / b->users);
			n++;
		}
		push(b, batch);
	}
}

static void wait_applied(struct bench *b)
{
	struct engine_status *s = malloc(sizeof(*s));

	do {
		sleep_sec(0.2);
		engine_get_status(b->engine, s);
	} while (s != NULL && s->counters.events_applied[STREAM_WATCHES] + s->counters.events_applied[STREAM_IMPRESSIONS] < (uint64_t)b->lines);
	free(s);
}

/* A steady stream of watches and impressions of scattered users, a batch every few milliseconds. */
static void *streamer(void *arg)
{
	struct bench *b = arg;
	const double began = now_sec();

	for (uint64_t n = 0, tick = 0; !atomic_load(&b->stop); tick++) {
		const enum event_stream stream = tick % 4 == 0 ? STREAM_WATCHES : STREAM_IMPRESSIONS;
		struct event_batch *batch = queue_take_free(b->queues, stream, 1000);

		if (batch == NULL)
			continue;
		for (int i = 0; i < 200; i++)
			add_line(b, batch, stream, mix(n++), 100);
		push(b, batch);
		const double ahead = (double)n / STREAM_LINES_PER_SEC - (now_sec() - began);

		if (ahead > 0)
			sleep_sec(ahead);
	}
	return NULL;
}

/* Seconds to write and fsync as many bytes as the checkpoint has, in one plain file beside it. */
static double plain_write_sec(const struct bench *b, uint64_t bytes)
{
	static char block[1 << 20];
	char path[300];
	double began;
	int fd;

	snprintf(path, sizeof(path), "%s/plain", b->path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	began = now_sec();
	for (uint64_t done = 0; fd >= 0 && done < bytes; done += sizeof(block)) {
		const uint64_t left = bytes - done;

		if (write(fd, block, left < sizeof(block) ? (size_t)left : sizeof(block)) < 0)
			break;
	}
	if (fd >= 0 && fsync(fd) < 0)
		perror("fsync");
	const double took = now_sec() - began;

	if (fd >= 0)
		close(fd);
	unlink(path);
	return took;
}

static int open_engine(struct bench *b)
{
	static const int enabled[STREAM_COUNT] = { [STREAM_WATCHES] = 1, [STREAM_IMPRESSIONS] = 1 };
	char errstr[512] = "";
	int fd;

	config_default(&b->config);
	free(b->config.data_dir);
	b->config.data_dir = strdup(b->path);
	b->config.state.users_max = b->users + b->users / 4 + 1000;
	b->config.state.items_max = b->items + 1000;
	b->config.state.impressions_max = IMPRESSIONS_PER_USER;
	b->config.learn.emb_dim = 64;
	b->config.learn.threads = 2;
	b->config.training_enabled = 0;
	b->config.personalize_min_positives = 1000; /* the fill is not what is measured */
	b->config.checkpoint_interval_sec = 0;
	fd = open(b->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (queue_set_new(b->config.queue_batches, enabled, &b->queues) < 0 ||
	    engine_open(&b->config, fd, b->queues, NULL, NULL, &b->engine, errstr, sizeof(errstr)) < 0 ||
	    engine_start(b->engine, errstr, sizeof(errstr)) < 0) {
		fprintf(stderr, "bench_budget: %s\n", errstr);
		return -1;
	}
	return 0;
}

static void measure(struct bench *b, double seconds)
{
	struct engine_status *s = malloc(sizeof(*s));
	struct checkpoint_result result = { 0 };
	char errstr[512] = "";
	pthread_t thread;

	b->config.training_enabled = 1;
	b->config.personalize_min_positives = 3;
	engine_reconfigure(b->engine, &b->config);
	pthread_create(&thread, NULL, streamer, b);
	sleep_sec(35); /* the half-minute window of the fill has to pass */
	sleep_sec(seconds);
	engine_get_status(b->engine, s);
	printf("training while streaming: %.1f M triples/s on two threads, %.0f lines/s applied, %llu users folded in\n", s->triples_per_sec / 1e6,
	       s->apply_per_sec, (unsigned long long)s->folded_in);
	printf("gap between apply slices, no checkpoint: p99.9 %.1f ms, longest %.1f ms\n", (double)s->apply_gap_p999_us / 1e3,
	       (double)s->apply_gap_max_us / 1e3);
	if (engine_snapshot(b->engine, 600000, &result, errstr, sizeof(errstr)) < 0)
		fprintf(stderr, "bench_budget: snapshot: %s\n", errstr);
	sleep_sec(1);
	engine_get_status(b->engine, s);
	printf("gap while a checkpoint is written:       p99.9 %.1f ms = %.2f of the limit (50 ms)\n", (double)s->checkpoint_gap_p999_us / 1e3,
	       (double)s->checkpoint_gap_p999_us / 50e3);
	printf("resident: %.0f MB now, %.0f MB at most = %.2f of the limit (4,096 MB at 1M users)\n", memory_mb("VmRSS:"), memory_mb("VmHWM:"),
	       memory_mb("VmHWM:") / 4096);
	atomic_store(&b->stop, 1);
	pthread_join(thread, NULL);
	const double took = (double)result.duration_us / 1e6, plain = plain_write_sec(b, result.bytes);

	printf("checkpoint: %.0f MB in %.1f s = %.0f MB/s, beside a plain write and fsync of as many bytes: %.0f MB/s, ratio %.2f\n",
	       (double)result.bytes / 1e6, took, (double)result.bytes / 1e6 / took, (double)result.bytes / 1e6 / plain, plain / took);
	free(s);
}

int main(int argc, char **argv)
{
	struct bench b = { .users = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000 };
	const double seconds = argc > 2 ? strtod(argv[2], NULL) : 10;
	char command[300];
	double began;

	b.items = b.users / 10;
	snprintf(b.path, sizeof(b.path), "%s/recd-budget-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (b.users < 1000 || mkdtemp(b.path) == NULL || open_engine(&b) < 0)
		return 1;
	printf("%u users x %u items, %u positives and %u impressions a user, d = 64\n", b.users, b.items, POSITIVES_PER_USER, IMPRESSIONS_PER_USER);
	began = now_sec();
	fill_stream(&b, STREAM_IMPRESSIONS, IMPRESSIONS_PER_USER);
	fill_stream(&b, STREAM_WATCHES, POSITIVES_PER_USER);
	wait_applied(&b);
	printf("filled: %.0f M lines in %.0f s = %.2f M lines/s (apply alone, one thread)\n", (double)b.lines / 1e6, now_sec() - began,
	       (double)b.lines / 1e6 / (now_sec() - began));
	printf("resident after the fill: %.0f MB\n", memory_mb("VmRSS:"));
	fflush(stdout);
	measure(&b, seconds);
	engine_request_stop(b.engine, 1);
	engine_close(b.engine);
	queue_set_free(b.queues);
	config_free(&b.config);
	snprintf(command, sizeof(command), "rm -rf '%s'", b.path);
	return system(command) == 0 ? 0 : 1;
}
