/*
 * test_histories.c: facts do not depend on order, repetition or batching. Random logs are applied shuffled, with lines repeated, cut into batches of
 * random sizes, under other hash seeds and another min_pos_completion; the digest must be the same every time. A model that keeps every line and computes
 * the facts from scratch, by definition and slowly, must agree with the state on every fact, positive and skip.
 *
 * RECD_TEST_SCALE multiplies the rounds; RECD_TEST_SEED sets the first seed. The seed of a round that fails is printed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/state/state.h"

#define LINES_MAX 3000u
#define USERS 12u
#define ITEMS 40u
#define IMPRESSIONS 10u
#define NEGATIVE_AFTER 30

static const char *const surfaces[] = {"", "home", "search", "similar", "zz", "Home"};
#define SURFACES (sizeof(surfaces) / sizeof(surfaces[0]))

struct log {
	struct event events[LINES_MAX];
	uint32_t n;
	double durations[ITEMS]; /* 0: the catalogue has no line of this item, or one without duration */
};

static uint64_t random_state;
static uint64_t round_seed;

static uint32_t below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((((random_state * 0x2545F4914F6CDD1Du) >> 32) * n) >> 32);
}

/* Few users, items, times and values, so that ties are everywhere. */
static void log_make(struct log *log)
{
	uint32_t times = 1 + below(200);

	log->n = 1 + below(LINES_MAX);
	for (uint32_t i = 0; i < log->n; i++) {
		struct event *event = &log->events[i];
		memset(event, 0, sizeof(*event));
		event->user_id = (int64_t)below(USERS) * 1000003;
		event->item_id = (int64_t)(below(ITEMS) * 7919 % 1000);
		event->time_us = (int64_t)below(times) - 20;
		event->stream = (uint8_t)below(3);
		if (event->stream == STREAM_WATCHES) {
			event->flags = (uint16_t)(1 + below(3)); /* completion, watch time or both */
			event->completion = (float)below(6) / 5.0f;
			event->watch_time_sec = (float)below(5) * 30.0f;
		} else if (event->stream == STREAM_EVENTS) {
			event->type = (uint8_t)below(6);
			event->flags = event->type == EVENT_RATE && below(4) ? EVENT_HAS_VALUE : 0;
			event->value = (double)below(5) - 1.0;
		} else {
			event->position = (int32_t)below(3);
			event->name.offset = below(SURFACES); /* resolved when a batch is made */
		}
	}
	for (uint32_t i = 0; i < ITEMS; i++)
		log->durations[i] = below(3) ? 60.0 + 30.0 * below(4) : 0.0;
}

/* -- the state under test -- */

static struct state *state_make(float min_pos_completion)
{
	struct state_config config = {.hash_seed = ((uint64_t)below(UINT32_MAX) << 32) | below(UINT32_MAX),
	                              .users_max = 100,
	                              .items_max = 1000,
	                              .impressions_max = IMPRESSIONS,
	                              .row_bytes = 0};
	struct state_rules rules = {.min_pos_completion = min_pos_completion, .negative_after_us = NEGATIVE_AFTER};
	struct state *state = NULL;
	char errstr[256] = "";

	if (state_new(&config, &rules, &state, errstr, sizeof(errstr)) != 0)
		fail_msg("%s", errstr);
	return state;
}

static void flush(struct state *state, struct event_batch *batch)
{
	if (state_apply(state, batch) != 0)
		fail_msg("state_apply failed, seed %llu", (unsigned long long)round_seed);
	event_batch_clear(batch);
}

static void add(struct event_batch *batch, struct event event)
{
	if (event.stream == STREAM_IMPRESSIONS) {
		const char *name = surfaces[event.name.offset];
		assert_int_equal(event_batch_add_text(batch, name, strlen(name), &event.name), 0);
	}
	batch->stream = event.stream;
	batch->events[batch->n_events++] = event;
}

static void add_catalogue(const struct log *log, struct event_batch *batch, uint32_t item)
{
	struct event event = {.item_id = (int64_t)(item * 7919 % 1000), .stream = STREAM_CATALOGUE};
	char doc[64];

	if (log->durations[item] > 0) {
		event.flags = EVENT_HAS_DURATION;
		event.value = log->durations[item];
	}
	snprintf(doc, sizeof(doc), "{\"duration_sec\":%g}", log->durations[item]);
	assert_int_equal(event_batch_add_text(batch, doc, strlen(doc), &event.doc), 0);
	add(batch, event);
}

/* Applies the log in a random order, some lines several times, in batches of random sizes, with catalogue lines and portions of walks in between. */
static void apply_shuffled(struct state *state, const struct log *log, struct event_batch *batch)
{
	static uint32_t order[LINES_MAX * 2];
	uint32_t n = 0, size = 1 + below(300);

	for (uint32_t i = 0; i < log->n; i++)
		order[n++] = i;
	for (uint32_t i = below(log->n + 1); i > 0; i--)
		order[n++] = below(log->n);
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t k = below(i + 1), t = order[i];
		order[i] = order[k];
		order[k] = t;
	}
	event_batch_clear(batch);
	for (uint32_t i = 0, next_item = 0; i < n || next_item < ITEMS; i++) {
		if (i < n)
			add(batch, log->events[order[i]]);
		if (next_item < ITEMS && (below(n) < ITEMS || i >= n))
			add_catalogue(log, batch, next_item++);
		if (batch->n_events >= size) {
			flush(state, batch);
			size = 1 + below(300);
			if (below(4) == 0)
				(void)state_rederive(state, below(5));
		}
	}
	flush(state, batch);
	while (state_rederive(state, 1 + below(20)) == 1) {
	}
}

/* -- the model: every fact from all lines, by definition -- */

struct model_watch {
	int seen;
	float completion, seconds;
	int64_t best_us, last_us;
};

struct model_touch {
	int64_t click_us, play_us, opinion_us, rated_us;
	int opinion;
	float rating;
};

static struct model_watch model_watch(const struct log *log, int64_t user, int64_t item)
{
	struct model_watch w = {.completion = -1, .seconds = -1, .best_us = STATE_TIME_NONE, .last_us = STATE_TIME_NONE};

	for (uint32_t i = 0; i < log->n; i++) {
		const struct event *e = &log->events[i];
		if (e->stream != STREAM_WATCHES || e->user_id != user || e->item_id != item)
			continue;
		w.seen = 1;
		if ((e->flags & EVENT_HAS_COMPLETION) && e->completion > w.completion)
			w.completion = e->completion;
		if ((e->flags & EVENT_HAS_WATCH_TIME) && e->watch_time_sec > w.seconds)
			w.seconds = e->watch_time_sec;
		if (e->time_us > w.last_us)
			w.last_us = e->time_us;
	}
	for (uint32_t i = 0; i < log->n; i++) {
		const struct event *e = &log->events[i];
		if (e->stream == STREAM_WATCHES && e->user_id == user && e->item_id == item && (e->flags & EVENT_HAS_COMPLETION) &&
		    e->completion == w.completion && e->time_us > w.best_us)
			w.best_us = e->time_us;
	}
	return w;
}

static struct model_touch model_touch(const struct log *log, int64_t user, int64_t item)
{
	struct model_touch t = {.click_us = STATE_TIME_NONE, .play_us = STATE_TIME_NONE, .opinion_us = STATE_TIME_NONE, .rated_us = STATE_TIME_NONE};
	int disliked = 0;

	for (uint32_t i = 0; i < log->n; i++) {
		const struct event *e = &log->events[i];
		if (e->stream != STREAM_EVENTS || e->user_id != user || e->item_id != item)
			continue;
		if (e->type == EVENT_CLICK && e->time_us > t.click_us)
			t.click_us = e->time_us;
		if (e->type == EVENT_PLAY_START && e->time_us > t.play_us)
			t.play_us = e->time_us;
		if ((e->type == EVENT_LIKE || e->type == EVENT_DISLIKE) && e->time_us > t.opinion_us)
			t.opinion_us = e->time_us;
		if (e->type == EVENT_RATE && (e->flags & EVENT_HAS_VALUE) && e->time_us > t.rated_us)
			t.rated_us = e->time_us;
	}
	int rated = 0;
	for (uint32_t i = 0; i < log->n; i++) {
		const struct event *e = &log->events[i];
		if (e->stream != STREAM_EVENTS || e->user_id != user || e->item_id != item)
			continue;
		if (e->type == EVENT_DISLIKE && e->time_us == t.opinion_us)
			disliked = 1;
		if (e->type == EVENT_RATE && (e->flags & EVENT_HAS_VALUE) && e->time_us == t.rated_us && (!rated || (float)e->value > t.rating)) {
			t.rating = (float)e->value;
			rated = 1;
		}
	}
	t.opinion = t.opinion_us == STATE_TIME_NONE ? 0 : disliked ? -1 : 1;
	return t;
}

static const char *name_of(const struct event *event)
{
	return surfaces[event->name.offset];
}

static int impression_order(const void *pa, const void *pb)
{
	const struct event *a = pa, *b = pb;

	if (a->time_us != b->time_us)
		return a->time_us < b->time_us ? -1 : 1;
	if (a->item_id != b->item_id)
		return a->item_id < b->item_id ? -1 : 1;
	if (a->position != b->position)
		return a->position < b->position ? -1 : 1;
	return strcmp(name_of(a), name_of(b));
}

/* The user's kept impressions, ascending; returns how many. */
static uint32_t model_impressions(const struct log *log, int64_t user, struct event *ret_kept)
{
	static struct event all[LINES_MAX];
	uint32_t n = 0, distinct = 0, from;

	for (uint32_t i = 0; i < log->n; i++)
		if (log->events[i].stream == STREAM_IMPRESSIONS && log->events[i].user_id == user)
			all[n++] = log->events[i];
	qsort(all, n, sizeof(all[0]), impression_order);
	for (uint32_t i = 0; i < n; i++)
		if (i == 0 || impression_order(&all[i], &all[i - 1]) != 0)
			all[distinct++] = all[i];
	from = distinct > IMPRESSIONS ? distinct - IMPRESSIONS : 0;
	memcpy(ret_kept, all + from, (distinct - from) * sizeof(all[0]));
	return distinct - from;
}

static int model_positive(const struct model_watch *w, double duration, float min_pos_completion)
{
	float completion = w->completion;

	if (!w->seen)
		return 0;
	if (completion < 0 && w->seconds >= 0 && duration > 0) {
		completion = w->seconds / (float)duration;
		if (completion > 1)
			completion = 1;
	}
	return completion >= 0 && completion >= min_pos_completion;
}

/* -- state against model -- */

#define CHECK(condition)                                                                                                                             \
	do {                                                                                                                                         \
		if (!(condition))                                                                                                                    \
			fail_msg("seed %llu: user %lld item %lld: %s", (unsigned long long)round_seed, (long long)user, (long long)item, #condition); \
	} while (0)

static void check_pair(const struct state *state, const struct log *log, const struct user_facts *facts, int64_t user, uint32_t item_number,
                       uint32_t *popularity, float min_pos)
{
	int64_t item = (int64_t)(item_number * 7919 % 1000);
	uint32_t index = state_find_item(state, item);
	struct model_watch w = model_watch(log, user, item);
	struct model_touch t = model_touch(log, user, item);
	int touched = t.click_us != STATE_TIME_NONE || t.play_us != STATE_TIME_NONE || t.opinion_us != STATE_TIME_NONE || t.rated_us != STATE_TIME_NONE;
	uint32_t watches = 0, touches = 0;

	for (uint32_t i = 0; i < facts->n_watches; i++) {
		const struct watch_fact *f = &facts->watches[i];
		if (f->item != index)
			continue;
		watches++;
		CHECK(f->completion == w.completion && f->watch_time_sec == w.seconds);
		CHECK(f->best_us == w.best_us && f->last_us == w.last_us);
		CHECK(state_is_positive(state, f) == model_positive(&w, log->durations[item_number], min_pos));
	}
	for (uint32_t i = 0; i < facts->n_touches; i++) {
		const struct touch_fact *f = &facts->touches[i];
		if (f->item != index)
			continue;
		touches++;
		CHECK(f->click_us == t.click_us && f->play_us == t.play_us);
		CHECK(f->opinion_us == t.opinion_us && f->opinion == t.opinion);
		CHECK(f->rated_us == t.rated_us && f->rating == t.rating);
	}
	CHECK(watches == (uint32_t)w.seen);
	CHECK(touches == (uint32_t)touched);
	*popularity += (uint32_t)model_positive(&w, log->durations[item_number], min_pos);
}

/* 1 positive, 0 skip, -1 undecided: by definition, impression by impression. */
static int model_label(const struct log *log, const struct event *kept, uint32_t n, int64_t user, uint32_t item_number, int64_t time_max,
                       float min_pos)
{
	int64_t item = (int64_t)(item_number * 7919 % 1000);
	struct model_watch w = model_watch(log, user, item);
	struct model_touch t = model_touch(log, user, item);
	int shown = 0, skipped = 0;

	for (uint32_t i = 0; i < n; i++) {
		int64_t at = kept[i].time_us;
		if (kept[i].item_id != item)
			continue;
		shown = 1;
		if (time_max - at >= NEGATIVE_AFTER && t.click_us < at && t.play_us < at && w.last_us < at && !(t.opinion == 1 && t.opinion_us >= at))
			skipped = 1;
	}
	if (shown && model_positive(&w, log->durations[item_number], min_pos))
		return 1;
	return skipped ? 0 : -1;
}

static void check_user(const struct state *state, const struct log *log, int64_t user, int64_t time_max, uint32_t *popularity, float min_pos)
{
	struct event kept[IMPRESSIONS];
	struct decided_impression decided[IMPRESSIONS];
	uint32_t n = model_impressions(log, user, kept), index = state_find_user(state, user), labels = 0;
	struct user_facts facts = {0};
	int64_t item = -1;

	if (index != STATE_NONE)
		state_user_facts(state, index, &facts);
	CHECK(facts.n_impressions == n);
	for (uint32_t i = 0; i < n; i++) {
		const struct impression_fact *f = &facts.impressions[i];
		CHECK(f->shown_us == kept[i].time_us && state_item_ids(state)[f->item] == kept[i].item_id && f->position == kept[i].position);
		CHECK(strcmp(state_surface_name(state, f->surface), name_of(&kept[i])) == 0);
	}
	size_t n_decided = state_decided(state, &facts, decided, IMPRESSIONS);
	for (uint32_t i = 0; i < ITEMS; i++) {
		int label = model_label(log, kept, n, user, i, time_max, min_pos), found = -1;
		item = (int64_t)(i * 7919 % 1000);
		check_pair(state, log, &facts, user, i, &popularity[i], min_pos);
		for (size_t k = 0; k < n_decided; k++)
			if (decided[k].item == state_find_item(state, item))
				found = decided[k].label;
		CHECK(found == label);
		labels += label >= 0;
	}
	CHECK(n_decided == labels);
}

static void check_against_model(const struct state *state, const struct log *log, float min_pos)
{
	uint32_t popularity[ITEMS] = {0};
	int64_t time_max = STATE_TIME_NONE, user = -1;

	for (uint32_t i = 0; i < log->n; i++)
		if (log->events[i].time_us > time_max)
			time_max = log->events[i].time_us;
	if (state_time_max_us(state) != time_max)
		fail_msg("seed %llu: time_max", (unsigned long long)round_seed);
	for (uint32_t i = 0; i < USERS; i++)
		check_user(state, log, (int64_t)i * 1000003, time_max, popularity, min_pos);
	for (uint32_t i = 0; i < ITEMS; i++) {
		int64_t item = (int64_t)(i * 7919 % 1000);
		CHECK(state_item_popularity(state, state_find_item(state, item)) == popularity[i]);
	}
}

/* Every positive is reported exactly once, or a rebuild is asked for. */
static void check_reports(struct state *state)
{
	struct state_changes changes;
	uint64_t popularity = 0;

	state_changes_get(state, &changes);
	for (uint32_t i = 0; i < state_n_items(state); i++)
		popularity += state_item_popularity(state, i);
	if (!changes.rebuild && changes.n_positives != popularity)
		fail_msg("seed %llu: %zu positives reported, %llu there", (unsigned long long)round_seed, changes.n_positives,
		         (unsigned long long)popularity);
}

static void test_any_order_gives_the_same(void **unused)
{
	const char *scale_text = getenv("RECD_TEST_SCALE"), *seed_text = getenv("RECD_TEST_SEED");
	uint32_t rounds = 150 * (scale_text && atoi(scale_text) > 0 ? (uint32_t)atoi(scale_text) : 1);
	uint64_t first = seed_text ? strtoull(seed_text, NULL, 10) : 20251210;
	struct event_batch *batch = event_batch_new();
	struct log *log = malloc(sizeof(*log));

	(void)unused;
	assert_non_null(batch);
	assert_non_null(log);
	printf("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + rounds - 1));
	for (round_seed = first; round_seed < first + rounds; round_seed++) {
		struct state_digest digest = {0, 0};
		random_state = round_seed * 0x9e3779b97f4a7c15u + 1;
		log_make(log);
		for (int variant = 0; variant < 4; variant++) {
			float min_pos = (float)below(6) / 5.0f;
			struct state *state = state_make(min_pos);
			apply_shuffled(state, log, batch);
			check_reports(state);
			if (variant == 0) {
				digest = state_digest(state);
				check_against_model(state, log, min_pos);
			}
			if (state_digest(state).lo != digest.lo || state_digest(state).hi != digest.hi)
				fail_msg("seed %llu: variant %d has another digest", (unsigned long long)round_seed, variant);
			state_free(state);
		}
	}
	free(log);
	event_batch_free(batch);
}

/* The digest is not blind: leaving out any one line that matters, or changing it, gives another digest. */
static void test_one_line_matters(void **unused)
{
	struct event_batch *batch = event_batch_new();
	struct log *log = malloc(sizeof(*log));
	uint32_t differed = 0, tried = 0;

	(void)unused;
	assert_non_null(batch);
	assert_non_null(log);
	for (round_seed = 1; round_seed <= 60; round_seed++) {
		random_state = round_seed * 0x9e3779b97f4a7c15u + 1;
		log_make(log);
		log->n = log->n < 100 ? log->n : 100;
		struct state *a = state_make(0.6f), *b = state_make(0.6f);
		apply_shuffled(a, log, batch);
		log->events[below(log->n)].time_us += 1000; /* now the latest of all: always a new fact, unless its type is unknown */
		apply_shuffled(b, log, batch);
		tried++;
		differed += state_digest(a).lo != state_digest(b).lo && state_digest(a).hi != state_digest(b).hi;
		state_free(a);
		state_free(b);
	}
	assert_int_equal(tried, 60);
	assert_true(differed >= 48); /* about one line in twelve says nothing (unknown type, a rating without value) */
	free(log);
	event_batch_free(batch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_order_gives_the_same),
		cmocka_unit_test(test_one_line_matters),
	};
	return cmocka_run_group_tests_name("histories", tests, NULL, NULL);
}
