/*
 * bench_cut.c: a cut of many users walked by a second thread while the engine applies: time to begin, MB/s of the walk, the gap between apply slices
 * (with and without a walk), copies hung ahead of it, and the resident memory by part.
 *
 * Every user has 64 impressions, 20 watches and 2 items reacted to on average (the numbers vary), and a row of 272 bytes. The engine applies batches of
 * 1,000 events made by hand, newer than all facts. Prints, asserts nothing. Usage: bench_cut [users], default 100,000; the budget is for 1,000,000.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/state/internal.h"

#define ITEMS 100000u
#define WATCHES 20u
#define TOUCHES 2u
#define IMPRESSIONS 64u
#define ROW 272u
#define BATCH 1000u
#define GAPS_MAX 1000000u
#define START_US INT64_C(1764547200000000)

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((((random_state * 0x2545F4914F6CDD1Du) >> 32) * n) >> 32);
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double thread_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double resident_mb(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long pages = 0, skipped;

	if (!file)
		return 0;
	if (fscanf(file, "%ld %ld", &skipped, &pages) != 2)
		pages = 0;
	fclose(file);
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static int fill(struct state *state, uint32_t users)
{
	struct watch_fact watches[2 * WATCHES];
	struct touch_fact touches[2 * TOUCHES];
	struct impression_fact impressions[IMPRESSIONS];
	struct state_counters counters = {0};
	char row[ROW];
	int64_t *ids = malloc(ITEMS * sizeof(*ids));
	int r = ids ? 0 : -1;

	for (uint32_t i = 0; r == 0 && i < ITEMS; i++)
		ids[i] = i;
	if (r == 0)
		r = state_restore_items(state, ids, ITEMS);
	free(ids);
	if (r == 0)
		r = state_restore_surface(state, "home");
	memset(row, 1, sizeof(row));
	for (uint32_t user = 0; user < users && r == 0; user++) {
		struct user_facts facts = {.n_watches = random_below(2 * WATCHES + 1),
		                           .n_touches = random_below(2 * TOUCHES + 1),
		                           .n_impressions = IMPRESSIONS,
		                           .watches = watches,
		                           .touches = touches,
		                           .impressions = impressions,
		                           .row = row};
		uint32_t first = random_below(ITEMS);
		for (uint32_t i = 0; i < facts.n_watches; i++)
			watches[i] = (struct watch_fact){(first + i * 997) % ITEMS, 0.7f, 3600.0f, START_US, START_US};
		for (uint32_t i = 0; i < facts.n_touches; i++)
			touches[i] = (struct touch_fact){.item = (first + i * 997) % ITEMS,
			                                 .click_us = START_US,
			                                 .play_us = START_US,
			                                 .opinion_us = STATE_TIME_NONE,
			                                 .rated_us = STATE_TIME_NONE};
		for (uint32_t i = 0; i < IMPRESSIONS; i++)
			impressions[i] = (struct impression_fact){START_US + i, (first + i * 13) % ITEMS, (uint16_t)(i % 20), 1};
		r = state_restore_user(state, user, &facts);
	}
	if (r == 0)
		r = state_restore_end(state, &counters, START_US);
	state_changes_clear(state);
	return r;
}

static void fill_batch(struct event_batch *batch, uint32_t users, int64_t time_us)
{
	event_batch_clear(batch);
	memcpy(batch->text, "home", 4);
	batch->text_len = 4;
	for (uint32_t i = 0; i < BATCH; i++) {
		uint32_t kind = random_below(10);
		struct event event = {.user_id = random_below(users), .item_id = random_below(ITEMS), .time_us = time_us + i};
		event.stream = kind < 7 ? STREAM_IMPRESSIONS : kind < 9 ? STREAM_EVENTS : STREAM_WATCHES;
		event.name.len = 4;
		event.flags = EVENT_HAS_COMPLETION | EVENT_HAS_WATCH_TIME;
		event.completion = 0.8f;
		event.watch_time_sec = 100.0f;
		batch->stream = event.stream;
		batch->events[batch->n_events++] = event;
	}
}

struct walk {
	struct state_cut *cut;
	double seconds, bytes;
	uint64_t sum; /* of every word copied, as a writer's checksum would read them */
	uint32_t users;
	_Atomic int done;
};

static void *walk_main(void *arg)
{
	struct walk *walk = arg;
	struct user_copy copy = {0};
	double t0 = seconds_now();

	while (state_cut_next(walk->cut, &copy) == 1) {
		const struct user_facts *facts = &copy.facts;
		size_t bytes = facts->n_watches * sizeof(struct watch_fact) + facts->n_touches * sizeof(struct touch_fact) +
		               facts->n_impressions * sizeof(struct impression_fact) + ROW;
		const uint64_t *words = copy.buf;
		for (size_t i = 0; i < bytes / sizeof(*words); i++)
			walk->sum += words[i];
		walk->bytes += (double)bytes;
		walk->users++;
	}
	walk->seconds = seconds_now() - t0;
	user_copy_free(&copy);
	atomic_store(&walk->done, 1);
	return NULL;
}

struct gaps {
	float *ms;         /* [GAPS_MAX] */
	double cpu_ms_max; /* largest CPU time of a gap: what is left when other processes take the cores */
	size_t n;
	size_t copied_max;
	double seconds;
};

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void print_gaps(const char *what, struct gaps *gaps)
{
	if (gaps->n == 0)
		return;
	qsort(gaps->ms, gaps->n, sizeof(*gaps->ms), by_size);
	printf("%-28s %zu batches of %u, %.2f M events/s; gap between slices p50 %.2f ms, p99 %.2f, p99.9 %.2f, max %.2f (max CPU %.2f)\n", what, gaps->n, BATCH,
	       (double)gaps->n * BATCH / gaps->seconds / 1e6, (double)gaps->ms[gaps->n / 2], (double)gaps->ms[gaps->n * 99 / 100],
	       (double)gaps->ms[gaps->n * 999 / 1000], (double)gaps->ms[gaps->n - 1], gaps->cpu_ms_max);
}

/* Applies batches until *done (or n_max of them); a gap is the time from the end of one slice to the end of the next. */
static int apply_until(struct state *state, struct event_batch *batch, uint32_t users, int64_t *time_us, _Atomic int *done, size_t n_max,
                       struct gaps *gaps)
{
	double began = seconds_now(), last = began, cpu_last = thread_seconds();

	gaps->n = 0;
	gaps->cpu_ms_max = 0;
	while (gaps->n < n_max && !(done && atomic_load(done))) {
		fill_batch(batch, users, *time_us += BATCH);
		if (state_apply(state, batch) != 0)
			return -1;
		state_changes_clear(state);
		size_t copied = state_cut_copied_bytes(state);
		gaps->copied_max = copied > gaps->copied_max ? copied : gaps->copied_max;
		double now = seconds_now();
		double cpu = thread_seconds();
		gaps->ms[gaps->n++] = (float)((now - last) * 1e3);
		gaps->cpu_ms_max = (cpu - cpu_last) * 1e3 > gaps->cpu_ms_max ? (cpu - cpu_last) * 1e3 : gaps->cpu_ms_max;
		last = now;
		cpu_last = cpu;
	}
	gaps->seconds = last - began;
	return 0;
}

static void print_memory(const struct state *state, uint32_t users, double resident)
{
	static const char *const kinds[LIST_KINDS] = {"watches", "touches", "impressions"};
	const uint64_t facts[LIST_KINDS] = {state->totals.watches, state->totals.touches, state->totals.impressions};

	printf("memory of %u users: %.0f MB resident, %.0f MB by the state's own account\n", users, resident, (double)state_memory_bytes(state) / 1e6);
	for (uint32_t kind = 0; kind < LIST_KINDS; kind++) {
		double blocks = 0, used = 0, needed = (double)facts[kind] * (double)list_entry_bytes((enum list_kind)kind);
		for (uint32_t i = 0; i < LIST_CLASSES; i++) {
			const struct slab_bin *bin = &state->slab.bins[kind * LIST_CLASSES + i];
			blocks += (double)bin->blocks * (double)bin->block_bytes;
			used += (double)bin->used * (double)bin->block_bytes;
		}
		printf("  %-12s %9.1f MB of facts, %9.1f MB in blocks in use, %9.1f MB with free blocks: %.1f %% slack\n", kinds[kind], needed / 1e6,
		       used / 1e6, blocks / 1e6, 100 * (blocks / needed - 1));
	}
	printf("  records %.1f MB, rows %.1f MB, ids %.1f MB; the slab holds %.1f MB (%.1f MB of it free chunks)\n",
	       (double)users * sizeof(struct user_record) / 1e6, (double)users * (double)state->row_stride / 1e6,
	       (double)(state->user_ids->slots_bytes + state->item_ids->slots_bytes + users * sizeof(int64_t)) / 1e6,
	       (double)state->slab.chunks_total * SLAB_CHUNK_BYTES / 1e6,
	       (double)(state->slab.chunks_total - state->slab.chunks_used) * SLAB_CHUNK_BYTES / 1e6);
}

static int one_cut(struct state *state, struct event_batch *batch, uint32_t users, int64_t *time_us, struct gaps *gaps)
{
	struct walk walk = {0};
	pthread_t thread;
	double t0 = seconds_now();
	int r;

	if (state_cut_begin(state, &walk.cut) != 0)
		return -1;
	printf("  begins in %.1f us\n", (seconds_now() - t0) * 1e6);
	if (pthread_create(&thread, NULL, walk_main, &walk) != 0)
		return -1;
	gaps->copied_max = 0;
	r = apply_until(state, batch, users, time_us, &walk.done, GAPS_MAX, gaps);
	pthread_join(thread, NULL);
	print_gaps("  while it is walked:", gaps);
	printf("  walk: %u users, %.0f MB in %.2f s, %.0f MB/s; at most %.1f MB hung on users ahead of it\n", walk.users, walk.bytes / 1e6,
	       walk.seconds, walk.bytes / walk.seconds / 1e6, (double)gaps->copied_max / 1e6);
	t0 = seconds_now();
	state_cut_end(walk.cut);
	printf("  ends in %.1f us\n", (seconds_now() - t0) * 1e6);
	return r;
}

int main(int argc, char **argv)
{
	uint32_t users = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 100000;
	struct state_config config = {
		.hash_seed = 12345, .users_max = users + 1, .items_max = ITEMS + 1, .impressions_max = IMPRESSIONS, .row_bytes = ROW};
	struct state_rules rules = {.min_pos_completion = 0.6f, .negative_after_us = INT64_C(1800000000)};
	struct event_batch *batch = event_batch_new();
	struct gaps gaps = {.ms = malloc(GAPS_MAX * sizeof(float))};
	struct state *state = NULL;
	int64_t time_us = START_US + 1000;
	char errstr[256] = "";
	double resident = resident_mb();
	int failed = 1;

	if (!batch || !gaps.ms || users == 0 || state_new(&config, &rules, &state, errstr, sizeof(errstr)) != 0 || fill(state, users) != 0)
		goto out;
	print_memory(state, users, resident_mb() - resident);
	if (apply_until(state, batch, users, &time_us, NULL, users / 500 + 200, &gaps) != 0)
		goto out;
	print_gaps("without a cut:", &gaps);
	failed = 0;
	for (int i = 0; i < 2 && !failed; i++) {
		printf("cut %d%s\n", i + 1, i ? ", memory for copies already touched" : "");
		failed = one_cut(state, batch, users, &time_us, &gaps) != 0;
	}
	print_memory(state, users, resident_mb() - resident);
out:
	if (failed)
		fprintf(stderr, "bench_cut: could not run: %s\n", errstr);
	state_free(state);
	event_batch_free(batch);
	free(gaps.ms);
	return failed;
}
