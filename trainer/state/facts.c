/*
 * facts.c: the merge rules. A fact merges with an event by maximum; ties are broken by a total order; so any order and repetition of the same
 * events gives the same fact.
 *
 *   watch   completion: largest. best_us: latest start among the watches with that completion. watch_time_sec: largest. last_us: latest start.
 *   touch   click, play: latest. opinion: latest, dislike wins a tie. rating: latest, the larger value wins a tie.
 *
 * Pure functions. Numbers that no decoder lets through (not finite, out of range) count as not reported; -0 becomes 0, because the digest sees bits.
 */
#include <float.h>

#include "trainer/state/internal.h"

void watch_init(struct watch_fact *watch, uint32_t item)
{
	*watch = (struct watch_fact){
		.item = item, .completion = -1.0f, .watch_time_sec = -1.0f, .best_us = STATE_TIME_NONE, .last_us = STATE_TIME_NONE};
}

void touch_init(struct touch_fact *touch, uint32_t item)
{
	*touch = (struct touch_fact){.item = item,
	                             .rating = 0.0f,
	                             .click_us = STATE_TIME_NONE,
	                             .play_us = STATE_TIME_NONE,
	                             .opinion_us = STATE_TIME_NONE,
	                             .opinion = 0,
	                             .rated_us = STATE_TIME_NONE};
}

int watch_merge(struct watch_fact *watch, const struct event *event)
{
	float completion = event->completion + 0.0f;
	float seconds = event->watch_time_sec + 0.0f;
	int changed = 0;

	if ((event->flags & EVENT_HAS_COMPLETION) && completion >= 0.0f && completion <= 1.0f) {
		if (completion > watch->completion) {
			watch->completion = completion;
			watch->best_us = event->time_us;
			changed = 1;
		} else if (completion == watch->completion && event->time_us > watch->best_us) {
			watch->best_us = event->time_us;
			changed = 1;
		}
	}
	if ((event->flags & EVENT_HAS_WATCH_TIME) && seconds > watch->watch_time_sec && seconds >= 0.0f && seconds <= FLT_MAX) {
		watch->watch_time_sec = seconds;
		changed = 1;
	}
	if (event->time_us > watch->last_us) {
		watch->last_us = event->time_us;
		changed = 1;
	}
	return changed;
}

static int opinion_merge(struct touch_fact *touch, int64_t time_us, int32_t opinion)
{
	if (time_us < touch->opinion_us || (time_us == touch->opinion_us && opinion >= touch->opinion))
		return 0;
	touch->opinion_us = time_us;
	touch->opinion = opinion;
	return 1;
}

static int rating_merge(struct touch_fact *touch, const struct event *event)
{
	float rating = (float)event->value + 0.0f;

	if (!(event->flags & EVENT_HAS_VALUE) || !(rating >= -FLT_MAX && rating <= FLT_MAX))
		return 0;
	if (event->time_us < touch->rated_us || (event->time_us == touch->rated_us && rating <= touch->rating))
		return 0;
	touch->rated_us = event->time_us;
	touch->rating = rating;
	return 1;
}

int touch_merge(struct touch_fact *touch, const struct event *event)
{
	switch (event->type) {
	case EVENT_CLICK:
		if (event->time_us <= touch->click_us)
			return 0;
		touch->click_us = event->time_us;
		return 1;
	case EVENT_PLAY_START:
		if (event->time_us <= touch->play_us)
			return 0;
		touch->play_us = event->time_us;
		return 1;
	case EVENT_LIKE:
		return opinion_merge(touch, event->time_us, 1);
	case EVENT_DISLIKE:
		return opinion_merge(touch, event->time_us, -1);
	case EVENT_RATE:
		return rating_merge(touch, event);
	default:
		return 0;
	}
}
