/*
 * checkpoint_schema.c: the tables behind checkpoint_schema.h. Constant data and the few lines that read it; any thread.
 *
 * Adding a field to a fact: add its column here, and raise CHECKPOINT_VERSION when an older recd must not read the file. A column that is missing in an
 * older file is an error for facts (their digest would not fit) and zero for counters and positions.
 */
#include "trainer/model/checkpoint_schema.h"

#include <string.h>

#define FACT(name, kind, dtype, type, field)                                                                                        \
	{ name, kind, dtype, (uint16_t)offsetof(struct type, field), (uint16_t)sizeof(((struct type *)0)->field) }

const struct fact_column fact_columns[] = {
	FACT("watch_item", FACT_WATCH, TORCH_I32, watch_fact, item),
	FACT("watch_completion", FACT_WATCH, TORCH_F32, watch_fact, completion),
	FACT("watch_time_sec", FACT_WATCH, TORCH_F32, watch_fact, watch_time_sec),
	FACT("watch_best_us", FACT_WATCH, TORCH_I64, watch_fact, best_us),
	FACT("watch_last_us", FACT_WATCH, TORCH_I64, watch_fact, last_us),
	FACT("touch_item", FACT_TOUCH, TORCH_I32, touch_fact, item),
	FACT("touch_rating", FACT_TOUCH, TORCH_F32, touch_fact, rating),
	FACT("touch_click_us", FACT_TOUCH, TORCH_I64, touch_fact, click_us),
	FACT("touch_play_us", FACT_TOUCH, TORCH_I64, touch_fact, play_us),
	FACT("touch_opinion_us", FACT_TOUCH, TORCH_I64, touch_fact, opinion_us),
	FACT("touch_opinion", FACT_TOUCH, TORCH_I32, touch_fact, opinion),
	FACT("touch_rated_us", FACT_TOUCH, TORCH_I64, touch_fact, rated_us),
	FACT("impression_shown_us", FACT_IMPRESSION, TORCH_I64, impression_fact, shown_us),
	FACT("impression_item", FACT_IMPRESSION, TORCH_I32, impression_fact, item),
	FACT("impression_position", FACT_IMPRESSION, TORCH_I32, impression_fact, position),
	FACT("impression_surface", FACT_IMPRESSION, TORCH_I32, impression_fact, surface),
};
const size_t n_fact_columns = sizeof(fact_columns) / sizeof(fact_columns[0]);

const struct fact_group fact_groups[FACT_KIND_COUNT] = {
	[FACT_WATCH] = { "watch_start", sizeof(struct watch_fact) },
	[FACT_TOUCH] = { "touch_start", sizeof(struct touch_fact) },
	[FACT_IMPRESSION] = { "impression_start", sizeof(struct impression_fact) },
};

#define INT(type, field)                                                                                                            \
	{ #field, (uint16_t)offsetof(struct type, field), (uint16_t)sizeof(((struct type *)0)->field) }
#define REFUSED(name, reason)                                                                                                       \
	{ "refused_" name, (uint16_t)(offsetof(struct source_position, refused) + sizeof(uint64_t) * (reason)), sizeof(uint64_t) }

const struct int_field position_fields[] = {
	INT(source_position, offset),       INT(source_position, device),      INT(source_position, inode),
	INT(source_position, marker),       INT(source_position, marker_len),  INT(source_position, last_time_us),
	INT(source_position, lines),        INT(source_position, empty),       INT(source_position, unknown_types),
	INT(source_position, gaps),         INT(source_position, gap_bytes),   INT(source_position, holes),
	INT(source_position, duplicates),   INT(source_position, resets),      INT(source_position, mark_time_ns),
	REFUSED("json", REFUSED_JSON),
	REFUSED("too_long", REFUSED_TOO_LONG),          REFUSED("too_deep", REFUSED_TOO_DEEP),
	REFUSED("missing_key", REFUSED_MISSING_KEY),    REFUSED("duplicate_key", REFUSED_DUPLICATE_KEY),
	REFUSED("wrong_type", REFUSED_WRONG_TYPE),      REFUSED("bad_id", REFUSED_BAD_ID),
	REFUSED("bad_time", REFUSED_BAD_TIME),          REFUSED("bad_completion", REFUSED_BAD_COMPLETION),
	REFUSED("bad_number", REFUSED_BAD_NUMBER),
};
const size_t n_position_fields = sizeof(position_fields) / sizeof(position_fields[0]);

#define APPLIED(name, stream)                                                                                                       \
	{ "applied_" name, (uint16_t)(offsetof(struct state_counters, events_applied) + sizeof(uint64_t) * (stream)), sizeof(uint64_t) }
const struct int_field counter_fields[] = {
	APPLIED("impressions", STREAM_IMPRESSIONS), APPLIED("events", STREAM_EVENTS),    APPLIED("watch_stats", STREAM_WATCHES),
	APPLIED("catalogue", STREAM_CATALOGUE),     APPLIED("users", STREAM_USERS),      INT(state_counters, dropped_user_cap),
	INT(state_counters, dropped_item_cap),      INT(state_counters, dropped_forgotten), INT(state_counters, surfaces_full),
};
const size_t n_counter_fields = sizeof(counter_fields) / sizeof(counter_fields[0]);

const struct int_field progress_fields[] = {
	INT(learner_progress, seed), INT(learner_progress, step),   INT(learner_progress, triples),
	INT(learner_progress, walk), INT(learner_progress, passes), INT(learner_progress, rollbacks),
};
const size_t n_progress_fields = sizeof(progress_fields) / sizeof(progress_fields[0]);

int64_t int_field_get(const struct int_field *field, const void *base)
{
	const char *from = (const char *)base + field->offset;
	uint32_t narrow;
	int64_t wide;

	if (field->width == sizeof(narrow)) {
		memcpy(&narrow, from, sizeof(narrow));
		return narrow;
	}
	memcpy(&wide, from, sizeof(wide));
	return wide;
}

void int_field_set(const struct int_field *field, void *base, int64_t value)
{
	char *to = (char *)base + field->offset;
	const uint32_t narrow = (uint32_t)value;

	if (field->width == sizeof(narrow))
		memcpy(to, &narrow, sizeof(narrow));
	else
		memcpy(to, &value, sizeof(value));
}

const void *user_facts_of(const struct user_facts *facts, enum fact_kind kind, uint32_t *ret_n)
{
	switch (kind) {
	case FACT_WATCH:
		*ret_n = facts->n_watches;
		return facts->watches;
	case FACT_TOUCH:
		*ret_n = facts->n_touches;
		return facts->touches;
	default:
		*ret_n = facts->n_impressions;
		return facts->impressions;
	}
}
