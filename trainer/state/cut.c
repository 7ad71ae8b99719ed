/*
 * cut.c: the state frozen at one instant, walked by another thread while the engine goes on.
 *
 * Beginning a cut stores counters and sizes and takes a new serial number: no user is touched. A user whose mark is not that number still stands as
 * the cut wants him. The engine, before it changes such a user, copies him, hangs the copy on him and sets the mark; the walk takes the copy when there
 * is one and the live user otherwise, and sets the mark. Both hold the user's lock, so each user is seen once and whole. Users and items that joined
 * later have higher indexes and are left out.
 */
#include <errno.h>
#include <stdlib.h>

#include "trainer/state/internal.h"

#define PREFETCH_BYTES_MAX 4096u /* of one list */

struct state_cut {
	struct state *state;
	uint32_t serial;
	uint32_t n_users, n_items, n_surfaces;
	uint32_t next; /* user */
	struct state_counters counters;
	struct state_digest digest;
	struct state_totals totals;
	int64_t time_max_us;
};

int state_cut_begin(struct state *state, struct state_cut **ret_cut)
{
	struct state_cut *cut;

	if (state->cut)
		return -EBUSY;
	cut = calloc(1, sizeof(*cut));
	if (!cut)
		return -ENOMEM;
	if (++state->cut_serial == 0)
		state->cut_serial = 1; /* 0 marks users that no cut has passed; after 2^32 cuts */
	cut->state = state;
	cut->serial = state->cut_serial;
	cut->n_users = state_n_users(state);
	cut->n_items = state_n_items(state);
	cut->n_surfaces = atomic_load_explicit(&state->n_surfaces, memory_order_relaxed);
	cut->counters = state->counters;
	cut->digest = state->digest;
	cut->totals = state->totals;
	cut->time_max_us = state->time_max_us;
	catalogue_cut_begin(state, cut->serial);
	state->cut = cut;
	*ret_cut = cut;
	return 0;
}

uint32_t state_cut_n_users(const struct state_cut *cut)
{
	return cut->n_users;
}

uint32_t state_cut_n_items(const struct state_cut *cut)
{
	return cut->n_items;
}

struct state_counters state_cut_counters(const struct state_cut *cut)
{
	return cut->counters;
}

struct state_digest state_cut_digest(const struct state_cut *cut)
{
	return cut->digest;
}

int64_t state_cut_time_max_us(const struct state_cut *cut)
{
	return cut->time_max_us;
}

struct state_totals state_cut_totals(const struct state_cut *cut)
{
	return cut->totals;
}

uint32_t state_cut_n_surfaces(const struct state_cut *cut)
{
	return cut->n_surfaces;
}

const char *state_cut_catalogue_doc(const struct state_cut *cut, uint32_t item, size_t *ret_len)
{
	return item < cut->n_items ? catalogue_cut_doc(cut->state, item, cut->serial, ret_len) : NULL;
}

size_t state_cut_copied_bytes(const struct state *state)
{
	return atomic_load_explicit(&state->published->copied_bytes, memory_order_relaxed);
}

/* Hangs a copy on the user; the lock is held. */
static int user_hang(struct state *state, uint32_t user)
{
	struct user_record *record = &state->users[user];
	struct user_facts facts;
	struct hung_copy *hung;

	user_facts_in_place(state, user, &facts);
	hung = hung_alloc(state, sizeof(*hung) + user_copy_bytes(state, &facts));
	if (!hung)
		return -ENOMEM;
	user_facts_pack(state, &facts, record->impressions_head, hung + 1, &hung->facts);
	record->hung = hung;
	record->cut_mark = state->cut->serial;
	return 0;
}

struct user_record *user_write_begin(struct state *state, uint32_t user)
{
	struct user_record *record = &state->users[user];

	user_lock(record);
	if (state->cut && user < state->cut->n_users && record->cut_mark != state->cut->serial && user_hang(state, user) < 0) {
		user_unlock(record);
		return NULL;
	}
	return record;
}

/* Copies the user as of the cut; -EAGAIN: the copy has no room for *ret_bytes. */
static int walk_try(struct state_cut *cut, uint32_t user, struct user_copy *copy, size_t *ret_bytes)
{
	struct state *state = cut->state;
	struct user_record *record = &state->users[user];
	struct hung_copy *hung = NULL;
	struct user_facts facts;
	int r = -EAGAIN;

	user_lock(record);
	if (record->cut_mark == cut->serial) {
		hung = record->hung;
		facts = hung->facts;
	} else {
		user_facts_in_place(state, user, &facts);
	}
	*ret_bytes = user_copy_bytes(state, &facts);
	if (*ret_bytes <= copy->capacity) {
		if (!hung)
			user_facts_pack(state, &facts, record->impressions_head, copy->buf, &copy->facts);
		record->hung = NULL;
		record->cut_mark = cut->serial;
		r = 0;
	}
	user_unlock(record);
	if (r == 0 && hung) { /* nobody else knows it now */
		user_facts_pack(state, &facts, 0, copy->buf, &copy->facts);
		hung_free(state, hung);
	}
	return r;
}

static void prefetch_bytes(const void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes && at < PREFETCH_BYTES_MAX; at += 64)
		__builtin_prefetch((const char *)from + at);
}

/* Asks for the memory of users the walk comes to soon. A copy out of cache is short, so the walk holds a user's lock for about a tenth of its time. */
static void walk_prefetch(const struct state_cut *cut, uint32_t user)
{
	struct state *state = cut->state;
	struct user_record *record;
	struct user_facts facts;

	if (user + 4 < cut->n_users)
		__builtin_prefetch(&state->users[user + 4]);
	if (user >= cut->n_users)
		return;
	record = &state->users[user];
	user_lock(record); /* for where his lists are; they may move before the walk is there, which costs no more than time */
	user_facts_in_place(state, user, &facts);
	user_unlock(record);
	prefetch_bytes(facts.impressions, facts.n_impressions * sizeof(*facts.impressions));
	prefetch_bytes(facts.watches, facts.n_watches * sizeof(*facts.watches));
	prefetch_bytes(facts.touches, facts.n_touches * sizeof(*facts.touches));
	prefetch_bytes(facts.row, state->row_stride);
}

int state_cut_next(struct state_cut *cut, struct user_copy *copy)
{
	uint32_t user = cut->next;
	size_t bytes;

	if (user >= cut->n_users)
		return 0;
	walk_prefetch(cut, user + 2);
	while (walk_try(cut, user, copy, &bytes) == -EAGAIN) {
		int r = user_copy_reserve(copy, bytes);
		if (r < 0)
			return r;
	}
	cut->next++;
	return 1;
}

void state_cut_end(struct state_cut *cut)
{
	struct state *state;

	if (!cut)
		return;
	state = cut->state;
	for (uint32_t user = cut->next; user < cut->n_users && state_cut_copied_bytes(state) != 0; user++) {
		hung_free(state, state->users[user].hung);
		state->users[user].hung = NULL;
	}
	hung_cut_end(state);
	catalogue_cut_end(state);
	state->cut = NULL;
	free(cut);
	state_publish(state);
}
