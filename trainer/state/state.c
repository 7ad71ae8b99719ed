/*
 * state.c: life of a state, what other threads read of the whole, forgetting a user, and the opaque rows.
 *
 * After each of its calls the engine publishes digest, counters and memory under a short mutex; a query reads them as of the last batch and never
 * stops the engine. Everything else in struct state belongs to the engine's thread (see internal.h for what users and items share).
 */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/state/internal.h"

static int config_check(const struct state_config *config, const struct state_rules *rules, char *errstr, size_t errstr_size)
{
	const char *reason = NULL;

	if (config->users_max == 0 || config->users_max == UINT32_MAX)
		reason = "users_max is out of range";
	else if (config->items_max == 0 || config->items_max == UINT32_MAX)
		reason = "items_max is out of range";
	else if (config->impressions_max == 0 || config->impressions_max > IMPRESSIONS_MAX)
		reason = "impressions_max is not in 1..1024";
	else if (!(rules->min_pos_completion >= 0.0f && rules->min_pos_completion <= 1.0f))
		reason = "min_pos_completion is not in 0..1";
	else if (rules->negative_after_us < 0)
		reason = "negative_after is negative";
	if (!reason)
		return 0;
	snprintf(errstr, errstr_size, "state: %s", reason);
	return -EINVAL;
}

static int parts_open(struct state *state)
{
	uint64_t seed = state->config.hash_seed;
	int r;

	state->user_ids = calloc(1, sizeof(*state->user_ids));
	state->item_ids = calloc(1, sizeof(*state->item_ids));
	state->published = calloc(1, sizeof(*state->published));
	state->numeric_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!state->user_ids || !state->item_ids || !state->published || !state->numeric_locale)
		return -ENOMEM;
	r = -pthread_mutex_init(&state->published->mutex, NULL);
	if (r == 0)
		r = ids_init(state->user_ids, state->config.users_max, seed);
	if (r == 0)
		r = ids_init(state->item_ids, state->config.items_max, ~seed);
	if (r == 0)
		r = history_init(state);
	if (r == 0)
		r = surfaces_init(state);
	if (r == 0)
		r = catalogue_init(state);
	return r;
}

int state_new(const struct state_config *config, const struct state_rules *rules, struct state **ret_state, char *errstr, size_t errstr_size)
{
	struct state *state;
	int r = config_check(config, rules, errstr, errstr_size);

	if (r < 0)
		return r;
	state = calloc(1, sizeof(*state));
	if (!state) {
		snprintf(errstr, errstr_size, "state: out of memory");
		return -ENOMEM;
	}
	state->config = *config;
	state->rules = *rules;
	state->min_pos_completion = rules->min_pos_completion;
	state->negative_after_us = rules->negative_after_us;
	state->row_stride = ((size_t)config->row_bytes + 15) / 16 * 16;
	state->item_hash_seed = (uint32_t)((config->hash_seed * 0x9e3779b97f4a7c15u) >> 32);
	state->time_max_us = STATE_TIME_NONE;
	r = parts_open(state);
	if (r < 0) {
		snprintf(errstr, errstr_size, "state: %s (room for %u users and %u items)", strerror(-r), config->users_max, config->items_max);
		state_free(state);
		return r;
	}
	state_publish(state);
	*ret_state = state;
	return 0;
}

void state_free(struct state *state)
{
	if (!state)
		return;
	state_cut_end(state->cut);
	hung_trim(state, 0, UINT32_MAX);
	catalogue_destroy(state);
	history_destroy(state);
	surfaces_destroy(state);
	if (state->user_ids)
		ids_destroy(state->user_ids);
	if (state->item_ids)
		ids_destroy(state->item_ids);
	free(state->user_ids);
	free(state->item_ids);
	if (state->published)
		pthread_mutex_destroy(&state->published->mutex);
	free(state->published);
	if (state->numeric_locale)
		freelocale(state->numeric_locale);
	free(state->touched.values);
	free(state->candidates.values);
	free(state->dirty_items.values);
	free(state->walk_items.values);
	free(state->positives);
	free(state);
}

void state_publish(struct state *state)
{
	struct published *published = state->published;
	size_t per_user = sizeof(struct user_record) + state->row_stride + sizeof(int64_t);
	size_t per_item = sizeof(struct item_record) + sizeof(int64_t);
	size_t bytes = slab_bytes(&state->slab) + state_n_users(state) * per_user + state_n_items(state) * per_item +
	               state->user_ids->slots_bytes + state->item_ids->slots_bytes +
	               (state->touched.capacity + state->candidates.capacity) * sizeof(uint32_t) +
	               state->positives_capacity * sizeof(struct user_item) + state->hung_bytes;

	pthread_mutex_lock(&published->mutex);
	published->digest = state->digest;
	published->counters = state->counters;
	published->memory_bytes = bytes;
	pthread_mutex_unlock(&published->mutex);
	atomic_store_explicit(&published->time_max_us, state->time_max_us, memory_order_relaxed);
}

/* Takes the user's facts out of digest, totals and books. */
static int facts_unbook(struct state *state, uint32_t user, int64_t user_id)
{
	const struct user_record *record = &state->users[user];
	const struct impression_fact *impressions = record->list[LIST_IMPRESSIONS];
	int r = 0;

	for (uint32_t i = 0; i < record->count[LIST_WATCHES] && r == 0; i++) {
		const struct watch_fact *watch = &user_watches(record)[i];
		digest_watch(state, user_id, watch, NULL);
		state->items[watch->item].waiting -= watch->completion < 0.0f;
		r = derive_book(state, user, watch->item, derive_is_booked(state, user, watch), 0);
	}
	for (uint32_t i = 0; i < record->count[LIST_TOUCHES]; i++)
		digest_touch(state, user_id, &user_touches(record)[i], NULL);
	for (uint32_t i = 0; i < record->count[LIST_IMPRESSIONS]; i++) /* a ring begins anywhere: all of it is in use */
		digest_impression(state, user_id, &impressions[i], NULL);
	state->totals.watches -= record->count[LIST_WATCHES];
	state->totals.touches -= record->count[LIST_TOUCHES];
	state->totals.impressions -= record->count[LIST_IMPRESSIONS];
	return r;
}

static int user_forget(struct state *state, uint32_t user, int64_t user_id)
{
	struct user_record *record = user_write_begin(state, user);
	int r;

	if (!record)
		return -ENOMEM;
	user_write_end(record); /* the cut has its copy */
	r = facts_unbook(state, user, user_id);
	if (r < 0)
		return r;
	digest_forgotten(state, user_id, 1);
	state->totals.forgotten++;
	user_lock(record);
	history_drop_lists(state, record);
	if (state->row_stride)
		memset(state->rows_memory.base + user * state->row_stride, 0, state->row_stride);
	record->flags = USER_FORGOTTEN;
	user_unlock(record);
	return derive_touch(state, user);
}

static int user_lift(struct state *state, uint32_t user, int64_t user_id)
{
	struct user_record *record = user_write_begin(state, user);

	if (!record)
		return -ENOMEM;
	record->flags = 0;
	user_write_end(record);
	digest_forgotten(state, user_id, 0);
	state->totals.forgotten--;
	return derive_touch(state, user);
}

int state_forget(struct state *state, int64_t user_id, int lift)
{
	uint64_t hash = ids_hash(state->user_ids, user_id);
	uint32_t user = ids_find(state->user_ids, user_id, hash);
	int forgotten;
	int r = 0;

	if (user == STATE_NONE && lift)
		return 0;
	if (user == STATE_NONE)
		r = history_user_enter(state, user_id, hash, &user);
	if (r < 0)
		return r;
	forgotten = (state->users[user].flags & USER_FORGOTTEN) != 0;
	if (lift && forgotten)
		r = user_lift(state, user, user_id);
	else if (!lift && !forgotten)
		r = user_forget(state, user, user_id);
	state_publish(state);
	return r;
}

void *state_row_begin(struct state *state, uint32_t user)
{
	if (state->row_stride == 0 || !user_write_begin(state, user))
		return NULL;
	return state->rows_memory.base + user * state->row_stride;
}

void state_row_end(struct state *state, uint32_t user)
{
	user_write_end(&state->users[user]);
}

uint32_t state_n_users(const struct state *state)
{
	return ids_count(state->user_ids);
}

uint32_t state_n_items(const struct state *state)
{
	return ids_count(state->item_ids);
}

uint32_t state_find_user(const struct state *state, int64_t user_id)
{
	return ids_find_shared(state->user_ids, user_id);
}

uint32_t state_find_item(const struct state *state, int64_t item_id)
{
	return ids_find_shared(state->item_ids, item_id);
}

const int64_t *state_user_ids(const struct state *state)
{
	return ids_external(state->user_ids);
}

const int64_t *state_item_ids(const struct state *state)
{
	return ids_external(state->item_ids);
}

int64_t state_time_max_us(const struct state *state)
{
	return atomic_load_explicit(&state->published->time_max_us, memory_order_relaxed);
}

struct state_digest state_digest(const struct state *state)
{
	struct state_digest digest;

	pthread_mutex_lock(&state->published->mutex);
	digest = state->published->digest;
	pthread_mutex_unlock(&state->published->mutex);
	return digest;
}

struct state_counters state_counters(const struct state *state)
{
	struct state_counters counters;

	pthread_mutex_lock(&state->published->mutex);
	counters = state->published->counters;
	pthread_mutex_unlock(&state->published->mutex);
	return counters;
}

size_t state_memory_bytes(const struct state *state)
{
	size_t bytes;

	pthread_mutex_lock(&state->published->mutex);
	bytes = state->published->memory_bytes;
	pthread_mutex_unlock(&state->published->mutex);
	return bytes + atomic_load_explicit(&state->catalogue->bytes, memory_order_relaxed);
}
