/*
 * copy.c: whole users copied out, for readers on other threads and for the cut, and users read in place by the engine.
 *
 * A copy is one buffer: impressions, row, watches, touches, in that order, so that each part is aligned. Readers hold the user's lock for the copy
 * only; room is made before, and again when the user grew meanwhile.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/state/internal.h"

void user_lock_wait(struct user_record *user)
{
	for (unsigned spins = 0;; spins++) {
		uint8_t open = 0;
		if (atomic_load_explicit(&user->lock, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_weak_explicit(&user->lock, &open, 1, memory_order_acquire, memory_order_relaxed))
			return;
		if (spins > 1000)
			nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL); /* the holder was preempted */
		else if (spins > 500)
			sched_yield();
	}
}

void user_copy_free(struct user_copy *copy)
{
	if (!copy)
		return;
	free(copy->buf);
	*copy = (struct user_copy){0};
}

int user_copy_reserve(struct user_copy *copy, size_t bytes)
{
	size_t capacity = bytes + bytes / 2 + 64;
	void *buf;

	if (bytes <= copy->capacity)
		return 0;
	buf = realloc(copy->buf, capacity);
	if (!buf)
		return -ENOMEM;
	copy->buf = buf;
	copy->capacity = capacity;
	return 0;
}

void user_facts_in_place(const struct state *state, uint32_t user, struct user_facts *ret_facts)
{
	const struct user_record *record = &state->users[user];
	size_t row_stride = state->row_stride;

	*ret_facts = (struct user_facts){
		.user = user,
		.n_watches = record->count[LIST_WATCHES],
		.n_touches = record->count[LIST_TOUCHES],
		.n_impressions = record->count[LIST_IMPRESSIONS],
		.watches = record->list[LIST_WATCHES],
		.touches = record->list[LIST_TOUCHES],
		.impressions = record->list[LIST_IMPRESSIONS],
		.row = row_stride ? state->rows_memory.base + user * row_stride : NULL,
		.forgotten = (record->flags & USER_FORGOTTEN) != 0,
	};
}

void impressions_straighten(struct user_record *user)
{
	struct impression_fact *ring = user->list[LIST_IMPRESSIONS];
	struct impression_fact old[IMPRESSIONS_MAX];
	uint32_t head;
	uint32_t n = user->count[LIST_IMPRESSIONS];

	user_lock(user); /* two training threads may ask for the same user's skips: the second finds it done */
	head = user->impressions_head;
	if (head != 0) {
		memcpy(old, ring, n * sizeof(*ring));
		memcpy(ring, old + head, (n - head) * sizeof(*ring));
		memcpy(ring + (n - head), old, head * sizeof(*ring));
		user->impressions_head = 0;
	}
	user_unlock(user);
}

size_t user_copy_bytes(const struct state *state, const struct user_facts *facts)
{
	return facts->n_impressions * sizeof(struct impression_fact) + state->row_stride + facts->n_watches * sizeof(struct watch_fact) +
	       facts->n_touches * sizeof(struct touch_fact);
}

void user_facts_pack(const struct state *state, const struct user_facts *facts, uint32_t head, void *buf, struct user_facts *ret_facts)
{
	struct impression_fact *impressions = buf;
	char *row = (char *)(impressions + facts->n_impressions);
	char *watches = row + state->row_stride;
	char *touches = watches + facts->n_watches * sizeof(struct watch_fact);
	uint32_t from_head = facts->n_impressions - head;

	if (facts->n_impressions) {
		memcpy(impressions, facts->impressions + head, from_head * sizeof(*impressions));
		memcpy(impressions + from_head, facts->impressions, head * sizeof(*impressions));
	}
	if (state->row_stride)
		memcpy(row, facts->row, state->row_stride);
	if (facts->n_watches)
		memcpy(watches, facts->watches, facts->n_watches * sizeof(struct watch_fact));
	if (facts->n_touches)
		memcpy(touches, facts->touches, facts->n_touches * sizeof(struct touch_fact));
	*ret_facts = *facts;
	ret_facts->impressions = impressions;
	ret_facts->row = state->row_stride ? row : NULL;
	ret_facts->watches = (const struct watch_fact *)(const void *)watches;
	ret_facts->touches = (const struct touch_fact *)(const void *)touches;
}

void state_user_facts(const struct state *state, uint32_t user, struct user_facts *ret_facts)
{
	struct user_record *record = &state->users[user];

	if (record->count[LIST_IMPRESSIONS] == state->config.impressions_max)
		impressions_straighten(record); /* a full ring: another shape of the same facts */
	user_facts_in_place(state, user, ret_facts);
}

int state_user_copy(const struct state *state, uint32_t user, struct user_copy *copy)
{
	struct user_record *record;

	if (user >= state_n_users(state))
		return -EINVAL;
	record = &state->users[user];
	for (;;) {
		struct user_facts facts;
		user_lock(record);
		user_facts_in_place(state, user, &facts);
		size_t bytes = user_copy_bytes(state, &facts);
		if (bytes <= copy->capacity) {
			user_facts_pack(state, &facts, record->impressions_head, copy->buf, &copy->facts);
			user_unlock(record);
			return 0;
		}
		user_unlock(record);
		int r = user_copy_reserve(copy, bytes);
		if (r < 0)
			return r;
	}
}
