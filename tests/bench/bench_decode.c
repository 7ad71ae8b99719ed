/*
 * bench_decode.c: lines decoded per second on one core, beside memchr for the newlines over the same bytes.
 *
 * The lines are generated here, about 170 bytes each in the shapes of CONTRACT.md's three log streams, and lie one after another in memory as
 * in a file. Prints, asserts nothing. Usage: bench_decode [lines per stream]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingest/decode.h"

struct corpus {
	char *bytes;
	size_t len;
	size_t lines;
};

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state * 0x2545F4914F6CDD1Du) >> 32) % n;
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int print_line(char *out, size_t size, enum event_stream stream, size_t i)
{
	static const char *const surfaces[] = {"home", "search", "similar", "continue_watching"};
	static const char *const types[] = {"click", "play_start", "like", "rate", "share"};
	static const char *const devices[] = {"tv", "mobile", "web", "tablet"};
	unsigned user = random_below(1000000), item = random_below(100000), day = (unsigned)(i / 40000 % 28) + 1;
	char time[ISO8601_MAX];

	iso8601_format(INT64_C(1764547200000000) + (int64_t)day * 86400000000 + (int64_t)(i % 40000) * 2000000, time);
	switch (stream) {
	case STREAM_IMPRESSIONS:
		return snprintf(out, size,
		                "{\"impression_id\":%zu,\"user_id\":%u,\"item_id\":%u,\"surface\":\"%s\",\"position\":%u,\"shown_at\":\"%s\","
		                "\"request_id\":\"req-%012zu\"}\n",
		                i, user, item, surfaces[random_below(4)], random_below(20), time, i);
	case STREAM_EVENTS:
		return snprintf(out, size,
		                "{\"event_id\":\"ev-%zu-%s\",\"user_id\":%u,\"item_id\":%u,\"type\":\"%s\",\"value\":null,\"occurred_at\":\"%s\","
		                "\"request_id\":\"req-%012zu\"}\n",
		                i, types[i % 5], user, item, types[i % 5], time, i);
	default:
		return snprintf(out, size,
		                "{\"watch_id\":\"w-%zu\",\"user_id\":%u,\"item_id\":%u,\"started_at\":\"%s\",\"ended_at\":\"%s\","
		                "\"watch_time_sec\":%u,\"completion\":%.2f,\"device_type\":\"%s\",\"session_id\":\"sess-%u-%u\"}\n",
		                i, user, item, time, time, random_below(7200), random_below(101) / 100.0, devices[random_below(4)], user,
		                random_below(9));
	}
}

static struct corpus make_corpus(enum event_stream stream, size_t lines)
{
	struct corpus corpus = {.bytes = malloc(lines * 300 + DECODE_PADDING), .len = 0, .lines = lines};

	if (!corpus.bytes) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	for (size_t i = 0; i < lines; i++)
		corpus.len += (size_t)print_line(corpus.bytes + corpus.len, 300, stream, i);
	memset(corpus.bytes + corpus.len, 0, DECODE_PADDING);
	return corpus;
}

/* Seconds for one walk over the corpus; decoder NULL: only memchr. */
static double walk(const struct corpus *corpus, enum event_stream stream, struct decoder *decoder, int padded, struct event_batch *batch,
                   uint64_t *sum)
{
	const char *p = corpus->bytes, *end = p + corpus->len;
	double start = seconds_now();

	while (p < end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));

		if (decoder) {
			int r = decode_line(decoder, stream, p, (size_t)(newline - p), padded, batch);

			if (r > 0) {
				fprintf(stderr, "refused: %s: %.*s\n", refusal_name((enum refusal)(r - 1)), (int)(newline - p), p);
				exit(1);
			}
			if (r < 0 || batch->n_events == 1024) {
				for (uint32_t i = 0; i < batch->n_events; i++)
					*sum += (uint64_t)batch->events[i].user_id;
				event_batch_clear(batch);
				if (r < 0)
					continue;
			}
		} else {
			*sum += (uint64_t)(newline - p);
		}
		p = newline + 1;
	}
	return seconds_now() - start;
}

static double best_of(const struct corpus *corpus, enum event_stream stream, struct decoder *decoder, int padded, struct event_batch *batch)
{
	double best = 1e9;
	uint64_t sum = 0;

	for (int i = 0; i < 7; i++) {
		double seconds = walk(corpus, stream, decoder, padded, batch, &sum);

		if (seconds < best)
			best = seconds;
	}
	if (sum == 0)
		printf("(nothing read)\n");
	return best;
}

int main(int argc, char **argv)
{
	const struct decode_limits limits = {.line_bytes_max = 1u << 20, .depth_max = 32};
	size_t lines = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
	struct event_batch *batch = event_batch_new();
	double total_seconds = 0, total_memchr = 0, total_lines = 0;

	if (!batch || lines == 0)
		return 1;
	printf("decode, one core, best of 7 walks over %zu lines a stream\n", lines);
	printf("%-12s %10s %12s %12s %10s %14s\n", "stream", "bytes/line", "M lines/s", "copied M/s", "MB/s", "x memchr time");
	for (int s = STREAM_IMPRESSIONS; s <= STREAM_WATCHES; s++) {
		enum event_stream stream = (enum event_stream)s;
		struct corpus corpus = make_corpus(stream, lines);
		struct decoder *decoder = decoder_new(&limits);
		double n = (double)lines, decode, copied, scan;

		if (!decoder)
			return 1;
		scan = best_of(&corpus, stream, NULL, 1, batch);
		decode = best_of(&corpus, stream, decoder, 1, batch);
		copied = best_of(&corpus, stream, decoder, 0, batch);
		printf("%-12s %10.0f %12.2f %12.2f %10.0f %14.1f\n", event_stream_name(stream), (double)corpus.len / n, n / decode / 1e6,
		       n / copied / 1e6, (double)corpus.len / decode / 1e6, decode / scan);
		total_seconds += decode;
		total_memchr += scan;
		total_lines += n;
		decoder_free(decoder);
		free(corpus.bytes);
	}
	printf("all          %10s %12.2f %37s %1.1f\n", "", total_lines / total_seconds / 1e6, "", total_seconds / total_memchr);
	event_batch_free(batch);
	return 0;
}
