/*
 * state.h: who is who and what happened. The one header of trainer/state for the other rooms.
 *
 * The state holds facts that merge by maximum and by set union: applying the same lines again, late, or in another order gives the same
 * facts and the same digest. Everything that depends on a setting (positives, skips, completion from a duration) is derived when read.
 *
 * Threads. One writer, the engine's thread, calls everything marked [engine]. Any thread may call what is marked [any]. The checkpoint writer
 * walks a cut with what is marked [cut]. Each user has a lock byte, held for less than a few microseconds: the writer takes it to change the user,
 * a reader takes it to copy the user out, so readers see a whole user and the writer never waits for a query to be answered.
 *
 * One cut. state_cut_begin() freezes the facts as they stand. From then on every change to a user that the cut has not passed yet copies that user
 * first (user granularity: a few KB), so the cut walks a consistent state while the engine goes on. Nothing forks.
 */
#ifndef TRAINER_STATE_STATE_H
#define TRAINER_STATE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "ingest/event.h"
#include "trainer/state/pairs.h"

#define STATE_NONE UINT32_MAX      /* no such user or item */
#define STATE_TIME_NONE INT64_MIN  /* has not happened */

struct state;
struct state_cut;

struct state_config {
	uint64_t hash_seed;       /* seeds the id tables against flooding */
	uint32_t users_max;       /* id caps; ids above the cap are dropped and counted. Address space is reserved, memory is not */
	uint32_t items_max;
	uint32_t impressions_max; /* impressions kept per user (the top by total order); 1..1024, fixed per data directory */
	uint32_t row_bytes;       /* bytes of the opaque row kept beside each user (the personal row); 0: none */
};

/* Settings that what is derived depends on; may change at a reload. */
struct state_rules {
	float min_pos_completion;  /* a watch at or above is a positive; default 0.6 */
	int64_t negative_after_us; /* an impression older than this without a reaction is a skip; default 1,800 s */
};

/* Facts of one user about one item he watched. 28 bytes. Item is the item's index. */
struct watch_fact {
	uint32_t item;
	float completion;     /* largest reported completion; -1: none was ever reported */
	float watch_time_sec; /* largest reported watch time; -1: none */
	int64_t best_us;      /* latest start among the watches with that completion; STATE_TIME_NONE when none was reported */
	int64_t last_us;      /* latest start of any watch */
} __attribute__((packed, aligned(4)));

/* Facts of one user about one item he reacted to otherwise. 40 bytes. Times: STATE_TIME_NONE when it never happened. */
struct touch_fact {
	uint32_t item;
	float rating;       /* value of the latest rating (ties: the larger value); meaningless when rated_us is none */
	int64_t click_us;   /* latest click */
	int64_t play_us;    /* latest play_start */
	int64_t opinion_us; /* latest like or dislike */
	int32_t opinion;    /* 1 like, -1 dislike (wins a tie), 0 none */
	int64_t rated_us;
} __attribute__((packed, aligned(4)));

/* An impression as kept. 16 bytes. Total order: shown_us, external item id, position, surface name. */
struct impression_fact {
	int64_t shown_us;
	uint32_t item;
	uint16_t position; /* clamped to 0..65535 */
	uint16_t surface;  /* index of the surface's name, state_surface_name(); 0: unknown, also when the table of names is full */
};

/* One user's facts. Arrays are in no particular order, except impressions: ascending total order. */
struct user_facts {
	uint32_t user; /* index */
	uint32_t n_watches;
	uint32_t n_touches;
	uint32_t n_impressions;
	const struct watch_fact *watches;
	const struct touch_fact *touches;
	const struct impression_fact *impressions;
	const void *row; /* row_bytes bytes */
	int forgotten;   /* 1: the user asked to be forgotten; no facts are kept */
};

/* Memory for copies of users; zero it before first use, user_copy_free() at the end. Grows as needed and is reused. */
struct user_copy {
	struct user_facts facts; /* points into buf */
	void *buf;
	size_t capacity;
};
void user_copy_free(struct user_copy *copy);

/* Exact counters of the state; they live in the cut. */
struct state_counters {
	uint64_t events_applied[STREAM_COUNT];
	uint64_t dropped_user_cap;    /* events of users above users_max */
	uint64_t dropped_item_cap;
	uint64_t dropped_forgotten;   /* events of forgotten users */
	uint64_t surfaces_full;       /* impressions whose surface name did not fit the table */
	uint64_t catalogue_entries;   /* items with a catalogue entry now */
};

/* What changed since the last state_changes_clear(). Arrays belong to the state and are valid until the next call marked [engine]. */
struct state_changes {
	const uint32_t *touched; /* users with a new fact, each once */
	size_t n_touched;
	const struct user_item *positives; /* pairs that became positive */
	size_t n_positives;
	const uint32_t *candidates; /* items that entered the negative sampler (first impression or positive) */
	size_t n_candidates;
	int rebuild; /* 1: positives went away too (rules, forget, durations): read all of them again with state_for_each_positive() */
};

struct state_digest {
	uint64_t lo, hi;
};

/* -- life [engine] -- */
int state_new(const struct state_config *config, const struct state_rules *rules, struct state **ret_state, char *errstr, size_t errstr_size);
void state_free(struct state *state);
/* Applies every event of a batch. 0 or -ENOMEM (then nothing of the rest is applied; the caller must stop: the state is no longer a prefix). */
int state_apply(struct state *state, const struct event_batch *batch);
/* Marks a user as forgotten: drops his facts and row and ignores later facts. Unknown ids are entered so that the mark lasts. lift=1 takes the mark
 * away. 0, -ENOSPC (an unknown id, and users_max is reached) or -ENOMEM. */
int state_forget(struct state *state, int64_t user_id, int lift);
/* -EINVAL for rules out of range (nothing changes), -ENOMEM. Another min_pos_completion counts everything again (about 0.1 s per 10M watches). */
int state_set_rules(struct state *state, const struct state_rules *rules);
const struct state_rules *state_get_rules(const struct state *state);
/* Durations that became known may turn watches into positives. Does the pending work, at most `users_max` users a call; returns 1 while more waits,
 * 0 when nothing does, or -ENOMEM. */
int state_rederive(struct state *state, uint32_t users_max);
void state_changes_get(struct state *state, struct state_changes *ret_changes);
void state_changes_clear(struct state *state);
void state_for_each_positive(const struct state *state, void (*emit)(void *ctx, uint32_t user, const struct watch_fact *watch), void *ctx);
/* The user's row: write between begin and end. Copies the user first when a cut needs him. NULL: out of memory, or row_bytes is 0; then no end. */
void *state_row_begin(struct state *state, uint32_t user);
void state_row_end(struct state *state, uint32_t user);

/* -- reading -- */
/* Facts in place; [engine], and the threads that train for it while nothing is applied; valid until the next change. */
void state_user_facts(const struct state *state, uint32_t user, struct user_facts *ret_facts);
/* Facts copied out under the user's lock; [any]. 0, -EINVAL (no such user) or -ENOMEM. */
int state_user_copy(const struct state *state, uint32_t user, struct user_copy *copy);
uint32_t state_n_users(const struct state *state); /* [any] */
uint32_t state_n_items(const struct state *state); /* [any] */
/* Index of an external id, or STATE_NONE; [any]. */
uint32_t state_find_user(const struct state *state, int64_t user_id);
uint32_t state_find_item(const struct state *state, int64_t item_id);
/* External ids by index; entries below n_users / n_items never change or move; [any]. */
const int64_t *state_user_ids(const struct state *state);
const int64_t *state_item_ids(const struct state *state);
/* Users with this item as a positive; [any], relaxed. */
uint32_t state_item_popularity(const struct state *state, uint32_t item);
const char *state_surface_name(const struct state *state, uint16_t surface); /* [any]; "" for 0 */
int64_t state_time_max_us(const struct state *state);                       /* largest event time seen; [any] */
/* Digest of all histories by external ids; equal for any order and repetition of the same lines; [any]. */
struct state_digest state_digest(const struct state *state);
struct state_counters state_counters(const struct state *state); /* [any] */
size_t state_memory_bytes(const struct state *state);            /* [any], approximate */

/* -- derived; from facts in place or copied; [any] -- */
/* Completion of a watch: the reported one; when none was ever reported, watch time over the item's duration (at most 1); -1 when unknown. */
float state_completion(const struct state *state, const struct watch_fact *watch);
int state_is_positive(const struct state *state, const struct watch_fact *watch);
/* Items of the positives; writes at most max, returns how many there are. */
size_t state_positives(const struct state *state, const struct user_facts *facts, uint32_t *ret_items, size_t max);
/* Decided impressions, one per item (pairs.h). Writes at most max, returns how many there are. */
size_t state_decided(const struct state *state, const struct user_facts *facts, struct decided_impression *ret_decided, size_t max);

/* -- catalogue; [any] -- */
/* Copies the item's catalogue line (JSON) into buf, at most size bytes with the closing NUL; returns its length, 0 when there is none. */
size_t state_catalogue_doc(const struct state *state, uint32_t item, char *buf, size_t size);
float state_item_duration_sec(const struct state *state, uint32_t item); /* -1: unknown */

/* -- the cut -- */
/* Freezes the state; [engine]. One cut at a time: -EBUSY while another lives. Costs less than a millisecond per million users. */
int state_cut_begin(struct state *state, struct state_cut **ret_cut);
uint32_t state_cut_n_users(const struct state_cut *cut);
uint32_t state_cut_n_items(const struct state_cut *cut);
struct state_counters state_cut_counters(const struct state_cut *cut);
struct state_digest state_cut_digest(const struct state_cut *cut);
int64_t state_cut_time_max_us(const struct state_cut *cut);
/* Totals over all users as of the cut, known at once: sizes of the columns to write. */
struct state_totals {
	uint64_t watches, touches, impressions, forgotten;
};
struct state_totals state_cut_totals(const struct state_cut *cut);
/* Next user in index order, as of the cut; [cut]. 1: copied, 0: all users done, -ENOMEM. */
int state_cut_next(struct state_cut *cut, struct user_copy *copy);
/* Catalogue line of an item as of the cut (NULL: none), valid until state_cut_end(); [cut]. */
const char *state_cut_catalogue_doc(const struct state_cut *cut, uint32_t item, size_t *ret_len);
/* Surface names as of the cut: index 1.. n; [cut]. */
uint32_t state_cut_n_surfaces(const struct state_cut *cut);
/* Bytes held by users copied ahead of the walk; [any]. The engine stops applying while it is above its budget. */
size_t state_cut_copied_bytes(const struct state *state);
/* Ends the cut, finished or not; [engine]. */
void state_cut_end(struct state_cut *cut);

/* -- restoring from a checkpoint, into a new state; [engine]. More ids than the caps: -ENOSPC. After an error the state is good for state_free() only -- */
int state_restore_items(struct state *state, const int64_t *item_ids, uint32_t n);
int state_restore_surface(struct state *state, const char *name); /* in index order, from 1 */
int state_restore_catalogue(struct state *state, uint32_t item, const char *doc, size_t len);
/* One call a user, in index order; facts name items and surfaces by index. -EINVAL for facts no state could hold (bad index, doubled item). */
int state_restore_user(struct state *state, int64_t user_id, const struct user_facts *facts);
int state_restore_end(struct state *state, const struct state_counters *counters, int64_t time_max_us);

#endif
