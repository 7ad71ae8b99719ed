/*
 * synth_timeline.c: the clock of synthetic logs.
 *
 * Users get impressions in proportion to a weight drawn from Gamma(4) (equal in expectation, standard deviation half the mean). A user's
 * impressions come in sessions of 8 to 32; the time span is divided among a user's sessions by their length, and a session begins anywhere in
 * its part where it still fits. After a play the user goes on when the watch has ended, if the part is long enough; in very dense logs watches overlap.
 *
 * Two heaps by time: each user's next impression, and each clicked impression's next line (click, play_start, watch, like or dislike, rate). The
 * earlier of the two tops is written next. So every file is in time order and memory does not grow with the number of impressions. Runs on
 * recctl's main thread and owns its heaps. A user's draws come from the user's own stream, so merging order changes nothing.
 */
#include "daemon/recctl/synth_timeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_OF_WEIGHT = 21, STREAM_OF_TIMELINE = 22 };

#define SECOND_US INT64_C(1000000)
#define GAP_MAX_US (40 * SECOND_US)
#define SESSION_MIN 8
#define SESSION_SPREAD 25 /* 8 to 32 */
#define CALLS_PER_CHECK 4096

struct heap_entry {
	int64_t time_us;
	uint64_t order; /* among equal times; unique in a heap, so that the order is total */
	uint32_t index;
};

struct heap {
	struct heap_entry *entries;
	uint32_t n;
};

struct viewer {
	struct synth_rng rng;
	uint64_t total, done; /* impressions */
	uint64_t session_end; /* value of done at which the session is over */
	int64_t part_end_us;  /* of this session's part of the time span */
	int64_t gap_max_us;
	uint32_t session;
	uint8_t device;
};

enum stage { STAGE_CLICK, STAGE_PLAY, STAGE_WATCH, STAGE_OPINION, STAGE_RATE, STAGE_COUNT };

/* A clicked impression that still has lines to come. */
struct pending {
	struct synth_visit visit;
	int64_t when_us[STAGE_COUNT]; /* ascending; 0: that stage does not happen */
	uint32_t next_free;
	uint8_t stage;   /* enum stage: what is written next */
	uint8_t likes;   /* the opinion is a like, else a dislike */
};

struct timeline {
	const struct synth_model *model;
	const struct synth_plan *plan;
	struct synth_output *output;
	struct viewer *viewers;
	struct heap users, events;
	struct pending *pending;
	uint32_t free_head; /* of the list of returned slots; UINT32_MAX: empty */
	uint32_t n_used;    /* slots ever used: the rest has never been touched */
	uint32_t n_pending;
	int64_t span_us;
	struct synth_counts counts;
};

static int before(const struct heap_entry *a, const struct heap_entry *b)
{
	return a->time_us != b->time_us ? a->time_us < b->time_us : a->order < b->order;
}

static void heap_sink(struct heap *heap, struct heap_entry entry)
{
	uint32_t at = 0, child;

	while ((child = 2 * at + 1) < heap->n) {
		if (child + 1 < heap->n && before(&heap->entries[child + 1], &heap->entries[child]))
			child++;
		if (before(&entry, &heap->entries[child]))
			break;
		heap->entries[at] = heap->entries[child];
		at = child;
	}
	heap->entries[at] = entry;
}

static void heap_push(struct heap *heap, struct heap_entry entry)
{
	uint32_t at = heap->n++;

	while (at && before(&entry, &heap->entries[(at - 1) / 2])) {
		heap->entries[at] = heap->entries[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap->entries[at] = entry;
}

static void heap_drop_top(struct heap *heap)
{
	if (--heap->n)
		heap_sink(heap, heap->entries[heap->n]);
}

/* Where impression number `done` of the user lies in the time span. */
static int64_t time_of_share(const struct timeline *timeline, const struct viewer *viewer, uint64_t done)
{
	return timeline->plan->start_us + (int64_t)((double)timeline->span_us * ((double)done / (double)viewer->total));
}

/* Opens the user's next session and returns when its first impression is shown. */
static int64_t begin_session(const struct timeline *timeline, struct viewer *viewer)
{
	static const uint8_t devices[10] = { 0, 0, 0, 0, 1, 1, 1, 2, 2, 3 }; /* tv 40 %, mobile 30 %, web 20 %, tablet 10 % */
	uint64_t length = SESSION_MIN + synth_below(&viewer->rng, SESSION_SPREAD);

	if (length > viewer->total - viewer->done)
		length = viewer->total - viewer->done;
	int64_t begin_us = time_of_share(timeline, viewer, viewer->done);
	viewer->session_end = viewer->done + length;
	viewer->part_end_us = time_of_share(timeline, viewer, viewer->session_end);
	int64_t part_us = viewer->part_end_us - begin_us;
	viewer->gap_max_us = part_us / (2 * (int64_t)length);
	if (viewer->gap_max_us > GAP_MAX_US)
		viewer->gap_max_us = GAP_MAX_US;
	viewer->device = devices[synth_below(&viewer->rng, 10)];
	return begin_us + (int64_t)(synth_uniform(&viewer->rng) * (double)(part_us - (int64_t)length * viewer->gap_max_us));
}

/* When the user's next impression is shown, after one at time_us that kept the user busy until busy_us. viewer->done is already counted up. */
static int64_t next_impression(const struct timeline *timeline, struct viewer *viewer, int64_t time_us, int64_t busy_us)
{
	if (viewer->done == viewer->session_end) {
		viewer->session++;
		return begin_session(timeline, viewer);
	}
	int64_t gap_us = viewer->gap_max_us / 8 + (int64_t)(synth_uniform(&viewer->rng) * 0.875 * (double)viewer->gap_max_us);
	int64_t latest_us = viewer->part_end_us - (int64_t)(viewer->session_end - viewer->done) * viewer->gap_max_us;
	int64_t next_us = busy_us + gap_us < latest_us ? busy_us + gap_us : latest_us;
	return next_us > time_us + gap_us ? next_us : time_us + gap_us;
}

/* Draws what follows a click: times, completion, opinion. */
static void draw_consequences(const struct timeline *timeline, struct synth_rng *rng, double taste, struct pending *pending)
{
	struct synth_visit *visit = &pending->visit;
	int64_t *when_us = pending->when_us;

	memset(when_us, 0, sizeof(pending->when_us));
	when_us[STAGE_CLICK] = visit->shown_us + synth_between(rng, 2 * SECOND_US, 30 * SECOND_US);
	visit->ended_us = when_us[STAGE_CLICK];
	if (synth_uniform(rng) >= SYNTH_PLAY_CHANCE)
		return;
	double completion = synth_beta(rng, synth_completion_mean(taste), SYNTH_CONCENTRATION);
	visit->completion_e4 = (uint16_t)(completion * 10000.0);
	visit->watch_time_sec = (uint16_t)(visit->completion_e4 * (uint32_t)timeline->model->items[visit->item].duration_sec / 10000u);
	when_us[STAGE_PLAY] = when_us[STAGE_CLICK] + synth_between(rng, 3 * SECOND_US, 20 * SECOND_US);
	when_us[STAGE_WATCH] = when_us[STAGE_PLAY] + synth_between(rng, 1 * SECOND_US, 5 * SECOND_US);
	visit->started_us = when_us[STAGE_WATCH];
	visit->ended_us = visit->started_us + visit->watch_time_sec * SECOND_US;
	if (synth_uniform(rng) < 0.3) /* a pause */
		visit->ended_us += synth_between(rng, 60 * SECOND_US, 1200 * SECOND_US);
	/* a like after some good watches, a dislike after some bad ones, a rating now and then: one to ten with a little noise */
	double opinion = synth_uniform(rng), rating = synth_uniform(rng);
	pending->likes = completion >= 0.6;
	if (opinion < (completion >= 0.6 ? 0.3 * completion : completion < 0.3 ? 0.3 * (0.5 - completion) : 0.0))
		when_us[STAGE_OPINION] = visit->ended_us + synth_between(rng, 2 * SECOND_US, 30 * SECOND_US);
	if (rating < 0.08)
		when_us[STAGE_RATE] = visit->ended_us + synth_between(rng, 31 * SECOND_US, 90 * SECOND_US);
	double value = 1.0 + 9.0 * completion + 2.0 * (synth_uniform(rng) - 0.5);
	visit->rating = (uint8_t)(value < 1.0 ? 1.0 : value > 10.0 ? 10.0 : value + 0.5);
}

/* A free slot for a pending impression, or UINT32_MAX when all are taken. */
static uint32_t take_slot(struct timeline *timeline)
{
	uint32_t slot = timeline->free_head;

	if (slot != UINT32_MAX)
		timeline->free_head = timeline->pending[slot].next_free;
	else if (timeline->n_used < SYNTH_PENDING_MAX)
		slot = timeline->n_used++;
	else
		return UINT32_MAX;
	if (++timeline->n_pending > timeline->counts.pending_max)
		timeline->counts.pending_max = timeline->n_pending;
	return slot;
}

static void return_slot(struct timeline *timeline, uint32_t slot)
{
	timeline->pending[slot].next_free = timeline->free_head;
	timeline->free_head = slot;
	timeline->n_pending--;
}

/* Writes the user's next impression; *ret_busy_us: until when what follows from it keeps the user. */
static int show_one(struct timeline *timeline, uint32_t user, int64_t time_us, int64_t *ret_busy_us)
{
	static const uint8_t surfaces[8] = { 0, 0, 0, 0, 1, 1, 2, 3 }; /* home 50 %, catalogue 25 %, search and similar 12.5 % each */
	struct viewer *viewer = &timeline->viewers[user];
	struct synth_rng *rng = &viewer->rng;
	uint64_t bits = synth_u64(rng);
	uint32_t item = synth_draw_item(timeline->model, user, (int)(bits & 1), rng);
	struct synth_visit visit = { .impression_id = (int64_t)timeline->counts.impressions++, .shown_us = time_us, .user = user, .item = item,
		                     .session = viewer->session, .surface = surfaces[(bits >> 1) & 7], .device = viewer->device,
		                     .position = (uint8_t)(1 + synth_below(rng, SYNTH_POSITIONS)) };
	double taste = synth_taste(timeline->model, user, timeline->model->items[item].signature);

	viewer->done++;
	synth_write_impression(timeline->output, &visit);
	*ret_busy_us = time_us;
	if (synth_uniform(rng) >= synth_click_chance(taste, visit.position)) {
		synth_write_sample(timeline->output, &visit, 0, time_us);
		timeline->counts.samples++;
		return 0;
	}
	uint32_t slot = take_slot(timeline);
	if (slot == UINT32_MAX)
		return -ENOBUFS;
	struct pending *pending = &timeline->pending[slot];
	pending->visit = visit;
	pending->stage = STAGE_CLICK;
	draw_consequences(timeline, rng, taste, pending);
	*ret_busy_us = pending->visit.ended_us;
	heap_push(&timeline->events, (struct heap_entry){ pending->when_us[STAGE_CLICK], (uint64_t)visit.impression_id, slot });
	return 0;
}

/* Writes the lines of one stage of a clicked impression. */
static void write_stage(struct timeline *timeline, const struct pending *pending)
{
	const struct synth_visit *visit = &pending->visit;
	int64_t now_us = pending->when_us[pending->stage];
	struct synth_counts *counts = &timeline->counts;

	switch ((enum stage)pending->stage) {
	case STAGE_CLICK:
		counts->clicks++;
		synth_write_event(timeline->output, visit, SYNTH_CLICK, now_us);
		break;
	case STAGE_PLAY:
		counts->play_starts++;
		synth_write_event(timeline->output, visit, SYNTH_PLAY_START, now_us);
		break;
	case STAGE_WATCH:
		counts->watches++;
		synth_write_watch(timeline->output, visit);
		if ((double)visit->completion_e4 / 10000.0 >= timeline->plan->min_pos_completion) {
			counts->positives++;
			counts->samples++;
			synth_write_sample(timeline->output, visit, 1, now_us);
		}
		break;
	case STAGE_OPINION:
		*(pending->likes ? &counts->likes : &counts->dislikes) += 1;
		synth_write_event(timeline->output, visit, pending->likes ? SYNTH_LIKE : SYNTH_DISLIKE, now_us);
		break;
	case STAGE_RATE:
		counts->rates++;
		synth_write_event(timeline->output, visit, SYNTH_RATE, now_us);
		break;
	case STAGE_COUNT:
		break;
	}
}

/* Writes the earliest pending stage and queues the one after it, or gives the slot back. */
static void follow_up(struct timeline *timeline)
{
	struct heap_entry top = timeline->events.entries[0];
	struct pending *pending = &timeline->pending[top.index];

	write_stage(timeline, pending);
	do {
		pending->stage++;
	} while (pending->stage < STAGE_COUNT && !pending->when_us[pending->stage]);
	if (pending->stage == STAGE_COUNT) {
		heap_drop_top(&timeline->events);
		return_slot(timeline, top.index);
		return;
	}
	top.time_us = pending->when_us[pending->stage];
	heap_sink(&timeline->events, top);
}

/* Shares the impressions out, exactly n_impressions in all, and queues everyone's first. */
static void share_out(struct timeline *timeline)
{
	uint32_t n_users = timeline->model->n_users;
	double sum = 0.0, running = 0.0;
	uint64_t given = 0;

	for (uint32_t u = 0; u < n_users; u++) {
		struct synth_rng rng = synth_rng_at(timeline->model->seed, STREAM_OF_WEIGHT, u);
		sum += synth_gamma(&rng, 4.0);
	}
	for (uint32_t u = 0; u < n_users; u++) {
		struct synth_rng rng = synth_rng_at(timeline->model->seed, STREAM_OF_WEIGHT, u);
		struct viewer *viewer = &timeline->viewers[u];

		running += synth_gamma(&rng, 4.0);
		uint64_t until = u + 1 == n_users ? timeline->plan->n_impressions : (uint64_t)((double)timeline->plan->n_impressions * (running / sum));
		viewer->total = until - given;
		viewer->rng = synth_rng_at(timeline->model->seed, STREAM_OF_TIMELINE, u);
		given = until;
		if (viewer->total)
			heap_push(&timeline->users, (struct heap_entry){ begin_session(timeline, viewer), u, u });
	}
}

static int run(struct timeline *timeline, struct progress *progress, const volatile sig_atomic_t *stop)
{
	uint64_t steps = 0;

	while (timeline->users.n || timeline->events.n) {
		if (++steps % CALLS_PER_CHECK == 0) {
			int rc = synth_output_error(timeline->output);

			if (rc || (stop && *stop))
				return rc ? rc : -EINTR;
			if (progress)
				progress_update(progress, timeline->counts.impressions);
		}
		if (!timeline->users.n || (timeline->events.n && timeline->events.entries[0].time_us < timeline->users.entries[0].time_us)) {
			follow_up(timeline);
			continue;
		}
		struct heap_entry top = timeline->users.entries[0];
		int64_t busy_us;
		int rc = show_one(timeline, top.index, top.time_us, &busy_us);
		if (rc)
			return rc;
		struct viewer *viewer = &timeline->viewers[top.index];
		if (viewer->done == viewer->total) {
			heap_drop_top(&timeline->users);
		} else {
			top.time_us = next_impression(timeline, viewer, top.time_us, busy_us);
			heap_sink(&timeline->users, top);
		}
	}
	return synth_output_error(timeline->output);
}

int synth_timeline_run(const struct synth_model *model, const struct synth_plan *plan, struct synth_output *output, struct progress *progress,
                       const volatile sig_atomic_t *stop, struct synth_counts *ret_counts)
{
	struct timeline timeline = { .model = model, .plan = plan, .output = output, .free_head = UINT32_MAX, .span_us = plan->days * 86400 * SECOND_US };
	int rc = -ENOMEM;

	timeline.viewers = calloc(model->n_users, sizeof(*timeline.viewers));
	timeline.users.entries = malloc(model->n_users * sizeof(*timeline.users.entries));
	timeline.events.entries = malloc(SYNTH_PENDING_MAX * sizeof(*timeline.events.entries));
	timeline.pending = malloc(SYNTH_PENDING_MAX * sizeof(*timeline.pending));
	if (timeline.viewers && timeline.users.entries && timeline.events.entries && timeline.pending) {
		share_out(&timeline);
		rc = run(&timeline, progress, stop);
	}
	free(timeline.viewers);
	free(timeline.users.entries);
	free(timeline.events.entries);
	free(timeline.pending);
	if (!rc)
		*ret_counts = timeline.counts;
	return rc;
}
