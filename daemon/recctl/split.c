/*
 * split.c: where the time split lies and what lies behind it. Main thread of recctl.
 *
 * The watches are read twice. The first pass keeps only their times (8 bytes a watch), to find the cut. The second one applies the held-out watches
 * to a state of their own, so that completion, repeated watches and unknown durations follow exactly the rules that training follows;
 * its positives are the candidates for "relevant". External ids tie the two states together.
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

/* ---- first pass ---- */

struct times {
	int64_t *values;
	size_t n, capacity;
};

static int take_times(void *ctx, struct event_batch *batch)
{
	struct times *times = ctx;

	if (times->n + batch->n_events > times->capacity) {
		size_t capacity = times->capacity ? times->capacity * 2 : 1u << 16;
		int64_t *values = realloc(times->values, capacity * sizeof(*values));

		if (!values)
			return -ENOMEM;
		times->values = values;
		times->capacity = capacity;
	}
	for (uint32_t i = 0; i < batch->n_events; i++)
		times->values[times->n++] = batch->events[i].time_us;
	return 0;
}

static int compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int split_find_cut(const char *data_dir, double share, struct split *ret_split, char *errstr, size_t errstr_size)
{
	struct times times = { 0 };
	struct stream_stats stats;
	int rc = log_read(data_dir, STREAM_WATCHES, take_times, &times, &stats, errstr, errstr_size);

	*ret_split = (struct split){ .n_watches = times.n };
	if (rc) {
		if (stats.missing)
			snprintf(errstr, errstr_size, "%s/%s is missing; point --data_dir at a folder with logs, or make some: recctl synth --out_dir %s",
			         data_dir, log_file_name(STREAM_WATCHES), data_dir);
		goto out;
	}
	size_t held_out = (size_t)(share * (double)times.n + 0.999999);
	if (held_out > times.n)
		held_out = times.n;
	if (!held_out) {
		snprintf(errstr, errstr_size, "%s/%s holds no watches", data_dir, log_file_name(STREAM_WATCHES));
		rc = -ENODATA;
		goto out;
	}
	qsort(times.values, times.n, sizeof(*times.values), compare_times);
	size_t first = times.n - held_out;
	while (first && times.values[first - 1] == times.values[first])
		first--;
	if (!first) {
		snprintf(errstr, errstr_size, "%s/%s: %zu watches cannot be split in time; use --holdout 0", data_dir, log_file_name(STREAM_WATCHES),
		         times.n);
		rc = -ENODATA;
		goto out;
	}
	ret_split->cut_us = times.values[first];
	ret_split->n_held_out = times.n - first;
out:
	free(times.values);
	return rc;
}

/* ---- second pass ---- */

struct after {
	struct state *state;
	int64_t cut_us;
};

static int take_after(void *ctx, struct event_batch *batch)
{
	struct after *after = ctx;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < batch->n_events; i++) {
		if (batch->stream == STREAM_CATALOGUE || batch->events[i].time_us >= after->cut_us)
			batch->events[kept++] = batch->events[i];
	}
	batch->n_events = kept;
	int rc = state_apply(after->state, batch);
	state_changes_clear(after->state);
	return rc;
}

/* Catalogue (for durations) and held-out watches. */
static int load_after(const char *data_dir, const struct state_rules *rules, int64_t cut_us, struct state **ret_state, char *errstr, size_t errstr_size)
{
	struct after after = { .cut_us = cut_us };
	struct stream_stats stats;
	int rc = load_new_state(rules, &after.state, errstr, errstr_size);

	if (rc)
		return rc;
	rc = log_read(data_dir, STREAM_CATALOGUE, take_after, &after, &stats, errstr, errstr_size);
	if (!rc || stats.missing)
		rc = log_read(data_dir, STREAM_WATCHES, take_after, &after, &stats, errstr, errstr_size);
	while (!rc && (rc = state_rederive(after.state, UINT32_MAX)) > 0)
		rc = 0;
	if (rc) {
		state_free(after.state);
		return rc;
	}
	*ret_state = after.state;
	return 0;
}

/* Room for one user's answer. */
struct collecting {
	const struct state *before, *after;
	struct split *split;
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

		if (item == STATE_NONE)
			c->split->unknown_items++;
		else if (bsearch(&item, masked, before.n_watches, sizeof(*masked), compare_items))
			c->split->seen_before++;
		else
			relevant[n_relevant++] = item;
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

int split_find_relevant(const char *data_dir, const struct state_rules *rules, const struct state *state, struct split *split, char *errstr,
                        size_t errstr_size)
{
	struct collecting c = { .before = state, .split = split };
	struct state *after = NULL;
	int rc = load_after(data_dir, rules, split->cut_us, &after, errstr, errstr_size);

	if (rc)
		return rc;
	c.after = after;
	uint32_t n = state_n_users(after);
	split->users = malloc((n + 1u) * sizeof(*split->users));
	c.groups = malloc(n + 1u);
	rc = split->users && c.groups ? 0 : -ENOMEM;
	for (uint32_t user = 0; !rc && user < n; user++)
		rc = collect_user(&c, user);
	if (!rc)
		rc = order_users(&c);
	if (rc) {
		snprintf(errstr, errstr_size, "out of memory");
		free(c.items);
	} else {
		split->items = c.items;
	}
	free(c.groups);
	free(c.positives);
	state_free(after);
	return rc;
}

void split_free(struct split *split)
{
	free(split->users);
	free(split->items);
	split->users = NULL;
	split->items = NULL;
}
