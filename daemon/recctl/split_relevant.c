/*
 * split_relevant.c: what lies behind the time split. Main thread of recctl.
 *
 * What is held out is applied to a state of its own, so that completion, repeated watches, unknown durations and the outcome of impressions follow exactly
 * the rules that training follows. Its positives are the candidates for "relevant". External ids tie the two states together.
 */
#include "daemon/recctl/split.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *user_group_name(enum user_group group)
{
	static const char *const names[GROUP_COUNT] = { "new", "rare", "heavy" };

	return names[group];
}

/* ---- reading ---- */

struct after {
	struct state *state;
	const struct split *split;
};

static int take_after(void *ctx, struct event_batch *batch)
{
	struct after *after = ctx;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < batch->n_events; i++) {
		if (batch->stream == STREAM_CATALOGUE || batch->events[i].time_us >= split_cut_of(after->split, batch->events[i].user_id))
			batch->events[kept++] = batch->events[i];
	}
	batch->n_events = kept;
	int rc = state_apply(after->state, batch);
	state_changes_clear(after->state);
	return rc;
}

/* The catalogue (for durations) and everything that is held out. */
static int load_after(const char *data_dir, const struct state_rules *rules, const struct split *split, struct state **ret_state, char *errstr,
                      size_t errstr_size)
{
	static const enum event_stream order[] = { STREAM_CATALOGUE, STREAM_WATCHES, STREAM_EVENTS, STREAM_IMPRESSIONS };
	struct after after = { .split = split };
	int rc = load_new_state(rules, &after.state, errstr, errstr_size);

	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < sizeof(order) / sizeof(order[0]); i++) {
		struct stream_stats stats;

		rc = log_read(data_dir, order[i], take_after, &after, &stats, errstr, errstr_size);
		if (stats.missing && order[i] != STREAM_WATCHES)
			rc = 0;
	}
	while (!rc && (rc = state_rederive(after.state, UINT32_MAX)) > 0)
		rc = 0;
	if (rc) {
		state_free(after.state);
		return rc;
	}
	*ret_state = after.state;
	return 0;
}

/* ---- comparing ---- */

/* Room for one user's answer. */
struct collecting {
	const struct state *before, *after;
	struct split *split;
	uint32_t *extra;      /* [n_items of after] index for an item that before does not know, STATE_NONE: none yet; NULL: such items are not judged */
	uint8_t *groups;      /* [n_users of the split] */
	size_t n_users;
	uint32_t *items;      /* all relevant and masked items, user by user */
	size_t n_items, items_capacity;
	uint32_t *positives;  /* scratch */
	size_t positives_capacity;
};

static int compare_items(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int reserve_u32(uint32_t **values, size_t *capacity, size_t wanted)
{
	if (wanted <= *capacity)
		return 0;
	size_t grown = wanted + wanted / 2 + 64;
	uint32_t *moved = realloc(*values, grown * sizeof(*moved));
	if (!moved)
		return -ENOMEM;
	*values = moved;
	*capacity = grown;
	return 0;
}

/* Index of an item that is not in the state before, by its index in the state after. */
static uint32_t extra_item(struct collecting *c, uint32_t item_after)
{
	if (c->extra[item_after] == STATE_NONE)
		c->extra[item_after] = state_n_items(c->before) + c->split->n_extra_items++;
	return c->extra[item_after];
}

/* One user of the held-out state. */
static int collect_user(struct collecting *c, uint32_t user_after)
{
	struct user_facts after, before = { 0 };
	uint32_t user = state_find_user(c->before, state_user_ids(c->after)[user_after]);

	state_user_facts(c->after, user_after, &after);
	if (user != STATE_NONE)
		state_user_facts(c->before, user, &before);
	if (reserve_u32(&c->positives, &c->positives_capacity, after.n_watches) ||
	    reserve_u32(&c->items, &c->items_capacity, c->n_items + after.n_watches + before.n_watches))
		return -ENOMEM;
	size_t n_positives = state_positives(c->after, &after, c->positives, after.n_watches), begin = c->n_items;

	/* first the masked ones, so that they can be searched */
	uint32_t *masked = c->items + begin;
	for (uint32_t i = 0; i < before.n_watches; i++)
		masked[i] = before.watches[i].item;
	qsort(masked, before.n_watches, sizeof(*masked), compare_items);
	uint32_t *relevant = masked + before.n_watches;
	size_t n_relevant = 0;
	for (size_t i = 0; i < n_positives; i++) {
		uint32_t item = state_find_item(c->before, state_item_ids(c->after)[c->positives[i]]);

		if (item == STATE_NONE) {
			c->split->unknown_items++;
			if (c->extra)
				relevant[n_relevant++] = extra_item(c, c->positives[i]);
		} else if (bsearch(&item, masked, before.n_watches, sizeof(*masked), compare_items)) {
			c->split->seen_before++;
		} else {
			relevant[n_relevant++] = item;
		}
	}
	if (!n_relevant)
		return 0;
	qsort(relevant, n_relevant, sizeof(*relevant), compare_items);
	size_t n_before = user == STATE_NONE ? 0 : state_positives(c->before, &before, NULL, 0);
	c->groups[c->n_users] = n_before >= GROUP_HEAVY_FROM ? GROUP_HEAVY : n_before ? GROUP_RARE : GROUP_NEW;
	c->split->users[c->n_users++] = (struct rank_user){ .user = user, .n_relevant = n_relevant, .n_masked = before.n_watches };
	c->split->n_relevant += n_relevant;
	c->n_items = begin + before.n_watches + n_relevant;
	return 0;
}

/* Points the users at their items and sorts them by group; the order within a group stays. */
static int order_users(struct collecting *c)
{
	struct rank_user *ordered = malloc((c->n_users + 1) * sizeof(*ordered));
	const uint32_t *at = c->items;
	size_t n = 0;

	if (!ordered)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_users; i++) {
		struct rank_user *user = &c->split->users[i];

		user->masked = at;
		user->relevant = at + user->n_masked;
		at += user->n_masked + user->n_relevant;
	}
	for (int group = 0; group < GROUP_COUNT; group++) {
		c->split->group_begin[group] = n;
		for (size_t i = 0; i < c->n_users; i++) {
			if (c->groups[i] == group)
				ordered[n++] = c->split->users[i];
		}
	}
	c->split->group_begin[GROUP_COUNT] = n;
	free(c->split->users);
	c->split->users = ordered;
	return 0;
}

int split_compare(const struct state *before, const struct state *after, int extra_items, struct split *split)
{
	struct collecting c = { .before = before, .after = after, .split = split };
	uint32_t n = state_n_users(after), n_items = state_n_items(after);

	split->users = malloc((n + 1u) * sizeof(*split->users));
	c.groups = malloc(n + 1u);
	int rc = split->users && c.groups ? 0 : -ENOMEM;
	if (extra_items) {
		c.extra = malloc((n_items + 1u) * sizeof(*c.extra));
		rc = c.extra ? rc : -ENOMEM;
		for (uint32_t i = 0; !rc && i < n_items; i++)
			c.extra[i] = STATE_NONE;
	}
	for (uint32_t user = 0; !rc && user < n; user++)
		rc = collect_user(&c, user);
	if (!rc)
		rc = order_users(&c);
	if (rc)
		free(c.items);
	else
		split->items = c.items;
	free(c.extra);
	free(c.groups);
	free(c.positives);
	return rc;
}

/* Decided impressions of users and titles that were known before, for the calibration of conf. */
static int collect_decided(const struct state *before, const struct state *after, struct split *split)
{
	struct decided_impression decided[LOAD_IMPRESSIONS_MAX];
	uint32_t n_users = state_n_users(after), stride = (uint32_t)((uint64_t)n_users * LOAD_IMPRESSIONS_MAX / SPLIT_DECIDED_MAX + 1);
	size_t capacity = 0;

	for (uint32_t u = 0; u < n_users; u += stride) {
		uint32_t user = state_find_user(before, state_user_ids(after)[u]);
		struct user_facts facts;

		if (user == STATE_NONE)
			continue;
		state_user_facts(after, u, &facts);
		size_t n = state_decided(after, &facts, decided, LOAD_IMPRESSIONS_MAX);
		n = n < LOAD_IMPRESSIONS_MAX ? n : LOAD_IMPRESSIONS_MAX;
		if (split->n_decided + n > capacity) {
			size_t grown = capacity + capacity / 2 + 4096;
			struct split_decided *moved = realloc(split->decided, grown * sizeof(*moved));

			if (!moved)
				return -ENOMEM;
			split->decided = moved;
			capacity = grown;
		}
		for (size_t i = 0; i < n; i++) {
			uint32_t item = state_find_item(before, state_item_ids(after)[decided[i].item]);

			if (item != STATE_NONE)
				split->decided[split->n_decided++] = (struct split_decided){ user, item, decided[i].label };
		}
	}
	return 0;
}

int split_find_relevant(const char *data_dir, const struct state_rules *rules, const struct state *state, struct split *split, char *errstr,
                        size_t errstr_size)
{
	struct state *after = NULL;
	int rc = load_after(data_dir, rules, split, &after, errstr, errstr_size);

	if (rc)
		return rc;
	rc = split_compare(state, after, 0, split);
	if (!rc)
		rc = collect_decided(state, after, split);
	if (rc)
		snprintf(errstr, errstr_size, "out of memory");
	state_free(after);
	return rc;
}
