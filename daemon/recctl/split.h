/*
 * split.h: the time split. The last share of all watches by started_at is kept out of training and judged: what did people watch far enough
 * afterwards that they had not watched at all before?
 */
#ifndef DAEMON_RECCTL_SPLIT_H
#define DAEMON_RECCTL_SPLIT_H

#include "daemon/recctl/load_logs.h"
#include "trainer/learn/evaluate.h"

/* Users by their positives before the split. */
enum user_group { GROUP_NEW, GROUP_RARE, GROUP_HEAVY, GROUP_COUNT };
#define GROUP_HEAVY_FROM 10u /* rare: 1..9 */

/* "new", "rare", "heavy". */
const char *user_group_name(enum user_group group);

struct split {
	int64_t cut_us;        /* watches from this time on are held out; everything before counts */
	uint64_t n_watches;    /* in the file */
	uint64_t n_held_out;
	uint64_t n_relevant;   /* (user, item) pairs to be found */
	uint64_t seen_before;  /* pairs that became positive but were watched before: masked, not judged */
	uint64_t unknown_items; /* pairs whose item had no catalogue entry, impression or watch before the split: no model can rank it */
	/* users with at least one relevant item, by group; .user is STATE_NONE for one that nobody had seen before */
	struct rank_user *users;
	size_t group_begin[GROUP_COUNT + 1];
	uint32_t *items; /* what users[].relevant and .masked point into */
};

/*
 * First pass: finds the cut for `share` (above 0, below 1) of the watches; equal times stay together, on the held-out side. Fills cut_us, n_watches and n_held_out.
 * -ENODATA: there are no watches, or the split leaves none to train on; errstr says so.
 */
int split_find_cut(const char *data_dir, double share, struct split *ret_split, char *errstr, size_t errstr_size);

/*
 * Second pass: the held-out watches under `rules`, compared with `state`, which holds what came before the cut. Fills the rest of the split. Durations
 * for completion come from the same folder.
 */
int split_find_relevant(const char *data_dir, const struct state_rules *rules, const struct state *state, struct split *split, char *errstr,
                        size_t errstr_size);

/* Accepts a zeroed one. */
void split_free(struct split *split);

#endif
