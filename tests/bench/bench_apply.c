/*
 * bench_apply.c: lines decoded and applied per second on one core, beside decoding alone and memchr over the same bytes.
 *
 * The lines are generated here: about 170 bytes each in the shapes of the three log streams (70 % impressions, 20 % events, 10 % watches), users drawn
 * uniformly (the worst case for caches), items by Zipf's law. Applied twice: into an empty state, and into one in which every user has a full
 * history (64 impressions; 20 watches and 4 items reacted to on average, their numbers random). Prints, asserts nothing.
 * Usage: bench_apply [users] [lines]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ingest/decode.h"
#include "trainer/state/state.h"

#define ITEMS 100000u
#define WATCHES 20u
#define TOUCHES 4u
#define IMPRESSIONS 64u
#define START_US INT64_C(1764547200000000) /* 2025-12-01 */

struct corpus {
	char *bytes;
	size_t len;
};

static uint64_t random_state = 88172645463325252u;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545F4914F6CDD1Du;
}

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)(((random_next() >> 32) * n) >> 32);
}

/* Zipf(1.0) over the items, by the inverse of the continuous law. */
static uint32_t random_item(void)
{
	double u = (double)(random_next() >> 11) * 0x1p-53;
	uint32_t item = (uint32_t)(exp(u * log(ITEMS + 1.0)) - 1.0);
	return item < ITEMS ? item : ITEMS - 1;
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int print_line(char *out, size_t size, enum event_stream stream, size_t i, uint32_t users)
{
	static const char *const surfaces[] = {"home", "search", "similar", "continue_watching"};
	static const char *const types[] = {"click", "play_start", "click", "like", "rate"};
	static const char *const devices[] = {"tv", "mobile", "web", "tablet"};
	uint32_t user = random_below(users), item = random_item(), type = random_below(5);
	char time[ISO8601_MAX];

	iso8601_format(START_US + (int64_t)(i / 200) * 1000000, time);
	switch (stream) {
	case STREAM_IMPRESSIONS:
		return snprintf(out, size,
		                "{\"impression_id\":%zu,\"user_id\":%u,\"item_id\":%u,\"surface\":\"%s\",\"position\":%u,\"shown_at\":\"%s\","
		                "\"request_id\":\"req-%012zu\"}\n",
		                i, user, item, surfaces[random_below(4)], random_below(20), time, i);
	case STREAM_EVENTS:
		return snprintf(out, size,
		                "{\"event_id\":\"ev-%zu-%s\",\"user_id\":%u,\"item_id\":%u,\"type\":\"%s\",\"value\":%s,\"occurred_at\":\"%s\","
		                "\"request_id\":\"req-%012zu\"}\n",
		                i, types[type], user, item, types[type], type == 4 ? "4" : "null", time, i);
	default:
		return snprintf(out, size,
		                "{\"watch_id\":\"w-%zu\",\"user_id\":%u,\"item_id\":%u,\"started_at\":\"%s\",\"ended_at\":\"%s\","
		                "\"watch_time_sec\":%u,\"completion\":0.%02u,\"device_type\":\"%s\",\"session_id\":\"sess-%u-%u\"}\n",
		                i, user, item, time, time, random_below(7200), random_below(100), devices[random_below(4)], user, random_below(9));
	}
}

/* Lines i of [0, lines) whose stream this is: of every ten blocks of 1,000 lines seven are impressions, two events, one watches. */
static enum event_stream stream_of(size_t block)
{
	static const uint8_t order[10] = {STREAM_IMPRESSIONS, STREAM_IMPRESSIONS, STREAM_EVENTS,      STREAM_IMPRESSIONS, STREAM_IMPRESSIONS,
	                                  STREAM_WATCHES,     STREAM_IMPRESSIONS, STREAM_IMPRESSIONS, STREAM_EVENTS,      STREAM_IMPRESSIONS};
	return (enum event_stream)order[block % 10];
}

#define BLOCK 1000u

static int corpus_make(struct corpus *corpus, size_t lines, uint32_t users)
{
	size_t size = lines * 260 + DECODE_PADDING;

	corpus->bytes = malloc(size);
	corpus->len = 0;
	if (!corpus->bytes)
		return -1;
	for (size_t i = 0; i < lines; i++)
		corpus->len += (size_t)print_line(corpus->bytes + corpus->len, size - corpus->len, stream_of(i / BLOCK), i, users);
	return 0;
}

static double run_memchr(const struct corpus *corpus, size_t *ret_lines)
{
	const char *at = corpus->bytes, *end = corpus->bytes + corpus->len;
	double t0 = seconds_now();

	*ret_lines = 0;
	while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		at++;
		++*ret_lines;
	}
	return seconds_now() - t0;
}

/* Decodes everything; applies it when there is a state. Returns seconds, negative when something failed. */
static double run_decode(const struct corpus *corpus, struct decoder *decoder, struct event_batch *batch, struct state *state)
{
	const char *at = corpus->bytes, *end = corpus->bytes + corpus->len;
	size_t n = 0;
	double t0 = seconds_now();

	event_batch_clear(batch);
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		enum event_stream stream = stream_of(n / BLOCK);
		batch->stream = stream;
		if (decode_line(decoder, stream, at, (size_t)(newline - at), 1, batch) != 0)
			return -1.0;
		at = newline + 1;
		if (++n % BLOCK != 0 && at < end)
			continue;
		if (state && state_apply(state, batch) != 0)
			return -1.0;
		event_batch_clear(batch);
		if (state)
			state_changes_clear(state);
	}
	return seconds_now() - t0;
}

static struct state *state_make(uint32_t users)
{
	struct state_config config = {
		.hash_seed = 12345, .users_max = users + 1, .items_max = ITEMS + 1, .impressions_max = IMPRESSIONS, .row_bytes = 272};
	struct state_rules rules = {.min_pos_completion = 0.6f, .negative_after_us = INT64_C(1800000000)};
	char errstr[256] = "";
	struct state *state = NULL;

	if (state_new(&config, &rules, &state, errstr, sizeof(errstr)) != 0)
		fprintf(stderr, "%s\n", errstr);
	return state;
}

/* A random item for place i of n: no item twice. */
static uint32_t spread_item(uint32_t i, uint32_t n)
{
	uint32_t share = ITEMS / n;
	return i * share + random_below(share);
}

/* Every user with a full history, older than the lines. */
static int state_fill(struct state *state, uint32_t users)
{
	struct watch_fact watches[2 * WATCHES];
	struct touch_fact touches[2 * TOUCHES];
	struct impression_fact impressions[IMPRESSIONS];
	struct state_counters counters = {0};
	int64_t *ids = malloc(ITEMS * sizeof(*ids));
	int r = ids ? 0 : -1;

	for (uint32_t i = 0; r == 0 && i < ITEMS; i++)
		ids[i] = i;
	if (r == 0)
		r = state_restore_items(state, ids, ITEMS);
	free(ids);
	if (r == 0)
		r = state_restore_surface(state, "home");
	for (uint32_t user = 0; user < users && r == 0; user++) {
		struct user_facts facts = {.n_watches = random_below(2 * WATCHES + 1),
		                           .n_touches = random_below(2 * TOUCHES + 1),
		                           .n_impressions = IMPRESSIONS,
		                           .watches = watches,
		                           .touches = touches,
		                           .impressions = impressions};
		for (uint32_t i = 0; i < facts.n_watches; i++)
			watches[i] = (struct watch_fact){spread_item(i, 2 * WATCHES), 0.7f, 3600.0f, START_US - 5000000, START_US - 5000000};
		for (uint32_t i = 0; i < facts.n_touches; i++)
			touches[i] = (struct touch_fact){.item = spread_item(i, 2 * TOUCHES),
			                                 .click_us = START_US - 6000000,
			                                 .play_us = START_US - 6000000,
			                                 .opinion_us = STATE_TIME_NONE,
			                                 .rated_us = STATE_TIME_NONE};
		for (uint32_t i = 0; i < IMPRESSIONS; i++)
			impressions[i] = (struct impression_fact){START_US - 7000000 + i, random_item(), (uint16_t)(i % 20), 1};
		r = state_restore_user(state, user, &facts);
	}
	if (r == 0)
		r = state_restore_end(state, &counters, START_US);
	state_changes_clear(state);
	return r;
}

int main(int argc, char **argv)
{
	uint32_t users = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
	size_t lines = argc > 2 ? strtoul(argv[2], NULL, 10) : 2000000, found;
	struct decode_limits limits = {.line_bytes_max = 1u << 20, .depth_max = 32};
	struct corpus corpus = {0};
	struct decoder *decoder = decoder_new(&limits);
	struct event_batch *batch = event_batch_new();
	struct state *empty = state_make(users), *full = state_make(users);
	double t_memchr, t_decode, t_empty = -1.0, t_full = -1.0;
	int failed = 1;

	if (!decoder || !batch || !empty || !full || users == 0 || corpus_make(&corpus, lines, users) != 0)
		goto out;
	t_memchr = run_memchr(&corpus, &found);
	t_decode = run_decode(&corpus, decoder, batch, NULL); /* warm up */
	if (t_decode > 0)
		t_decode = run_decode(&corpus, decoder, batch, NULL);
	t_empty = run_decode(&corpus, decoder, batch, empty);
	if (state_fill(full, users) == 0)
		t_full = run_decode(&corpus, decoder, batch, full);
	if (t_decode < 0 || t_empty < 0 || t_full < 0)
		goto out;
	printf("%zu lines, %.0f bytes each; %u users, %u items; one core\n", found, (double)corpus.len / (double)found, users, ITEMS);
	printf("memchr                        %7.2f M lines/s  %5.2f GB/s\n", (double)found / t_memchr / 1e6, (double)corpus.len / t_memchr / 1e9);
	printf("decode                        %7.2f M lines/s  %.3f of memchr\n", (double)found / t_decode / 1e6, t_memchr / t_decode);
	printf("decode + apply, empty state   %7.2f M lines/s  %.3f of memchr  %.2f of decode  (apply alone %.2f M lines/s)\n",
	       (double)found / t_empty / 1e6, t_memchr / t_empty, t_decode / t_empty, (double)found / (t_empty - t_decode) / 1e6);
	printf("decode + apply, full state    %7.2f M lines/s  %.3f of memchr  %.2f of decode  (apply alone %.2f M lines/s)  goal 2.00\n",
	       (double)found / t_full / 1e6, t_memchr / t_full, t_decode / t_full, (double)found / (t_full - t_decode) / 1e6);
	printf("state, full: %.0f MB\n", (double)state_memory_bytes(full) / 1e6);
	failed = 0;
out:
	if (failed)
		fprintf(stderr, "bench_apply: could not run\n");
	state_free(empty);
	state_free(full);
	decoder_free(decoder);
	event_batch_free(batch);
	free(corpus.bytes);
	return failed;
}
