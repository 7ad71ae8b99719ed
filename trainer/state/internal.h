/*
 * internal.h: how the state lies in memory. For the files of trainer/state only.
 *
 * Users and items are arrays in reserved address space, indexed by the dense index; they never move. A user's three lists are blocks of the slab.
 * The engine is the only writer. It reads its own data without a lock and holds the user's lock byte while it changes what others may copy:
 * user_write_begin() .. user_write_end(). Readers and the cut's walk hold the lock while they copy.
 */
#ifndef TRAINER_STATE_INTERNAL_H
#define TRAINER_STATE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "trainer/state/ids.h"
#include "trainer/state/reserve.h"
#include "trainer/state/slab.h"
#include "trainer/state/state.h"

#define IMPRESSIONS_MAX 1024u
#define SURFACE_RECENT 32u
#define SURFACES_MAX 4096u    /* names of surfaces */
#define SURFACE_NAME_MAX 255u /* bytes of a name */

enum list_kind { LIST_WATCHES, LIST_TOUCHES, LIST_IMPRESSIONS, LIST_KINDS };

#define LIST_CLASSES 120u /* capacity classes of a list; bin of the slab: kind * LIST_CLASSES + class */

enum {
	USER_FORGOTTEN = 1 << 0,
	USER_WAITING = 1 << 1, /* has had a watch whose completion depends on a duration */
};

/* A user copied for the cut before he changed; the facts lie behind it. */
struct hung_segment;
struct hung_copy {
	struct user_facts facts;
	size_t bytes;
	struct hung_segment *segment; /* where it lies */
};

/* One cache line a user. */
struct user_record {
	void *list[LIST_KINDS];      /* block; NULL while class is 0 */
	uint32_t count[LIST_KINDS];  /* entries */
	uint32_t cut_mark;           /* serial of the last cut that has what it needs of this user */
	struct hung_copy *hung;      /* waits for the cut's walk */
	uint16_t impressions_head;   /* impressions are a ring once full: where the smallest is */
	uint8_t class[LIST_KINDS];   /* capacity class + 1; 0: no block */
	uint8_t flags;               /* USER_* */
	uint8_t touched;             /* is in the list of touched users; engine only */
	_Atomic uint8_t lock;
} __attribute__((aligned(64)));

enum {
	ITEM_CANDIDATE = 1 << 0, /* has had an impression or a positive */
	ITEM_DIRTY = 1 << 1,     /* its duration changed; waits for a walk over the users */
	ITEM_WALKING = 1 << 2,   /* is in the running walk */
};

struct catalogue_entry;

/* Durations: 0 is unknown. Popularity and reported positives follow `applied` (`target` for users that the running walk has passed). */
struct item_record {
	struct catalogue_entry *entry; /* guarded by the catalogue's mutex */
	_Atomic uint32_t popularity;   /* users with this item as a positive */
	_Atomic float duration;        /* as the catalogue says now */
	float applied;
	float target;
	uint32_t waiting;              /* watches of this item without a reported completion */
	uint32_t flags;                /* ITEM_* */
};

struct u32_list {
	uint32_t *values;
	size_t n, capacity;
};

struct surface {
	char *name;
	uint32_t len;
	uint64_t hash; /* of the name, for the digest */
};

/* What other threads read as of the last call of the engine. */
struct published {
	pthread_mutex_t mutex;
	struct state_digest digest;
	struct state_counters counters;
	size_t memory_bytes;
	_Atomic int64_t time_max_us;
	_Atomic size_t copied_bytes;
};

struct catalogue {
	pthread_mutex_t mutex; /* guards every item's entry */
	uint32_t cut_serial;   /* of the running cut; 0: none */
	struct u32_list kept;  /* items with an old entry kept for the cut */
	_Atomic size_t bytes;
};

struct state {
	struct state_config config;
	struct state_rules rules;
	_Atomic float min_pos_completion; /* copies of the rules for readers on other threads */
	_Atomic int64_t negative_after_us;
	struct ids *user_ids;
	struct ids *item_ids;
	struct reserve users_memory, items_memory, rows_memory;
	struct user_record *users;
	struct item_record *items;
	size_t row_stride; /* row_bytes rounded up to 16 */
	struct slab slab;
	uint32_t capacities[LIST_KINDS][LIST_CLASSES];
	uint32_t n_classes[LIST_KINDS];
	uint32_t item_hash_seed;
	struct surface *surfaces; /* [SURFACES_MAX + 1]; entry 0 is the empty name */
	_Atomic uint32_t n_surfaces; /* names, entry 0 not counted */
	uint16_t *surface_slots;     /* open addressing over names: index, 0: empty */
	uint16_t surface_recent[SURFACE_RECENT]; /* by a few of a name's bytes; 0: none yet */
	struct catalogue *catalogue;
	struct state_digest digest;
	struct state_counters counters;
	struct state_totals totals;
	int64_t time_max_us;
	struct published *published;
	struct u32_list touched, candidates, dirty_items, walk_items;
	struct user_item *positives;
	size_t n_positives, positives_capacity;
	int rebuild;
	int walk_lost; /* the running walk took positives away */
	uint32_t walk_cursor;
	struct state_cut *cut;
	uint32_t cut_serial;
	struct hung_segment *hung_segments, *hung_filling;
	size_t hung_bytes; /* of all segments */
	void *numeric_locale; /* locale_t "C" */
};

/* -- history.c: users and their lists -- */
int history_init(struct state *state);
void history_destroy(struct state *state);
/* Finds or enters. 0, -ENOSPC (cap) or -ENOMEM. */
int history_user_enter(struct state *state, int64_t user_id, uint64_t hash, uint32_t *ret_user);
int history_item_enter(struct state *state, int64_t item_id, uint64_t hash, uint32_t *ret_item);
/* Position of the item in the user's list of watches or touches, or UINT32_MAX. */
uint32_t list_find(const struct state *state, const struct user_record *user, enum list_kind kind, uint32_t item);
/* Room for n entries in the list. Takes the lock itself for the exchange of blocks. 0 or -ENOMEM. */
int list_reserve(struct state *state, uint32_t user, enum list_kind kind, uint32_t n);
/* Appends to a list with room; the caller holds the lock. `fact` begins with the item. Not for impressions. */
void list_append(struct state *state, struct user_record *user, enum list_kind kind, const void *fact);
void list_prefetch(const struct state *state, const struct user_record *user, enum list_kind kind);
/* Frees the user's lists; the caller holds the lock. */
void history_drop_lists(struct state *state, struct user_record *user);
void history_compact(struct state *state, uint32_t chunks_max);
size_t list_entry_bytes(enum list_kind kind);
uint32_t list_capacity(const struct state *state, const struct user_record *user, enum list_kind kind);

static inline struct watch_fact *user_watches(const struct user_record *user)
{
	return user->list[LIST_WATCHES];
}

static inline struct touch_fact *user_touches(const struct user_record *user)
{
	return user->list[LIST_TOUCHES];
}

/* The lock is held for a copy of one user: spins, then gives the processor away, in case the holder waits for it. */
void user_lock_wait(struct user_record *user);
static inline void user_lock(struct user_record *user)
{
	uint8_t open = 0;

	if (!atomic_compare_exchange_strong_explicit(&user->lock, &open, 1, memory_order_acquire, memory_order_relaxed))
		user_lock_wait(user);
}

static inline void user_unlock(struct user_record *user)
{
	atomic_store_explicit(&user->lock, 0, memory_order_release);
}

/* Locks the user for a change; copies him first when the cut still needs him. NULL when out of memory (then not locked). */
struct user_record *user_write_begin(struct state *state, uint32_t user);
static inline void user_write_end(struct user_record *user)
{
	user_unlock(user);
}

/* -- copy.c: whole users copied out -- */
/* Facts of a user in place; impressions as they lie (ring). The caller holds the lock or is the engine. */
void user_facts_in_place(const struct state *state, uint32_t user, struct user_facts *ret_facts);
/* Makes the ring of impressions an array from its beginning. Engine, or its training threads while nothing is applied; takes the lock. */
void impressions_straighten(struct user_record *user);
size_t user_copy_bytes(const struct state *state, const struct user_facts *facts);
/* Copies facts (whose ring begins at `head`, 0: an array) into buf, which user_copy_bytes() bytes fit in. */
void user_facts_pack(const struct state *state, const struct user_facts *facts, uint32_t head, void *buf, struct user_facts *ret_facts);
int user_copy_reserve(struct user_copy *copy, size_t bytes);

/* -- hung.c: memory for hung copies -- */
/* Room for a copy of `bytes` with its header; counted in copied_bytes. NULL when out of memory. Engine only. */
struct hung_copy *hung_alloc(struct state *state, size_t bytes);
/* Lets a copy go (NULL: none); the walk's thread, or the engine when the walk has ended. */
void hung_free(struct state *state, struct hung_copy *hung);
/* The cut is over and all copies have gone: every segment is free. Engine only, like the next. */
void hung_cut_end(struct state *state);
/* Outside of a cut: gives back memory above kept_bytes, at most segments_max segments a call (unmapping takes time). */
void hung_trim(struct state *state, size_t kept_bytes, uint32_t segments_max);
#define HUNG_KEPT_BYTES ((size_t)32 << 20)

/* -- facts.c: merge rules -- */
void watch_init(struct watch_fact *watch, uint32_t item);
void touch_init(struct touch_fact *touch, uint32_t item);
/* 1 when the fact changed, 0 when the event says nothing new. */
int watch_merge(struct watch_fact *watch, const struct event *event);
int touch_merge(struct touch_fact *touch, const struct event *event);

/* -- impressions.c -- */
/* Total order: negative, 0 (the same impression) or positive. */
int impression_compare(const struct state *state, const struct impression_fact *a, const struct impression_fact *b);
/* Adds to the user's top N. 1: added, 0: known already or older than all kept, -ENOMEM. *ret_evicted is set, when one had to go. */
int impression_add(struct state *state, uint32_t user, const struct impression_fact *fact, struct impression_fact *ret_evicted, int *ret_has_evicted);
void impression_prefetch(const struct state *state, const struct user_record *user);

/* -- surfaces.c -- */
int surfaces_init(struct state *state);
void surfaces_destroy(struct state *state);
/* Index of a name, entered when new; 0 for the empty name and when it does not fit (then *ret_full = 1). -ENOMEM. */
int surface_enter(struct state *state, const char *name, size_t len, uint16_t *ret_surface, int *ret_full);

/* -- digest.c: sums over strong hashes of facts. Takes out `old` and puts in `new`; either may be NULL -- */
void digest_watch(struct state *state, int64_t user_id, const struct watch_fact *old, const struct watch_fact *new);
void digest_touch(struct state *state, int64_t user_id, const struct touch_fact *old, const struct touch_fact *new);
void digest_impression(struct state *state, int64_t user_id, const struct impression_fact *old, const struct impression_fact *new);
/* Puts in the mark of a forgotten user, or takes it out. */
void digest_forgotten(struct state *state, int64_t user_id, int forgotten);
uint64_t digest_name_hash(const char *name, size_t len);

/* -- derive.c -- */
/* Completion of a watch under a duration (0: unknown); -1 when unknown. */
float completion_with(const struct watch_fact *watch, float duration_sec);

/* -- books.c -- */
/* Is the watch a positive in the books (popularity, reported pairs)? */
int derive_is_booked(const struct state *state, uint32_t user, const struct watch_fact *watch);
/* Books the change of a pair. 0 or -ENOMEM. */
int derive_book(struct state *state, uint32_t user, uint32_t item, int was_positive, int is_positive);
int derive_candidate(struct state *state, uint32_t item);
int derive_touch(struct state *state, uint32_t user);
/* A duration came with the catalogue. 0 or -ENOMEM. */
int derive_duration(struct state *state, uint32_t item, float duration_sec);
/* Computes popularity, waiting marks and candidates of all users again. 0 or -ENOMEM. */
int derive_recount(struct state *state);
int u32_list_add(struct u32_list *list, uint32_t value);

/* -- catalogue.c -- */
int catalogue_init(struct state *state);
void catalogue_destroy(struct state *state);
int catalogue_put(struct state *state, uint32_t item, const char *doc, size_t len);
void catalogue_cut_begin(struct state *state, uint32_t serial);
void catalogue_cut_end(struct state *state);
/* The line as of the cut with this serial; NULL: none. Valid until catalogue_cut_end(). */
const char *catalogue_cut_doc(const struct state *state, uint32_t item, uint32_t serial, size_t *ret_len);

/* -- json_number.c -- */
/* Number under a key of the outermost object; 0 and *ret_value, or -ENOENT. `doc` is JSON that the decoder accepted; anything else is -ENOENT. */
int json_top_number(void *numeric_locale, const char *doc, size_t len, const char *key, double *ret_value);

/* -- state.c -- */
void state_publish(struct state *state);

#endif
