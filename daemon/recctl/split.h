/*
 * split.h: what is kept out of training and judged: what did people watch far enough afterwards that they had not watched at all before?
 *
 * Logs are split by started_at, at one time for all (global) or at a time of each user's own (user); two files of pairs come split already (split_tsv.h).
 * docs/EVALUATION.md has the definitions.
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

enum split_kind { SPLIT_GLOBAL, SPLIT_USER, SPLIT_FILES };

struct split_options {
	enum split_kind kind; /* SPLIT_GLOBAL or SPLIT_USER */
	double share;         /* above 0, below 1: last share of the watches, of all or of each user */
	uint32_t last_n;      /* SPLIT_USER: the last so many watches of each user instead; 0: the share */
};

/* A user's own cut. */
struct user_cut {
	int64_t user_id;
	int64_t cut_us;
};

/* An impression after the split whose outcome is known; indexes of the state before. */
struct split_decided {
	uint32_t user, item;
	int32_t label; /* 1: watched far enough, 0: skipped */
};
#define SPLIT_DECIDED_MAX 4000000u

struct split {
	enum split_kind kind;
	int64_t cut_us;        /* SPLIT_GLOBAL: what is at or after this time is held out */
	struct user_cut *cuts; /* SPLIT_USER: [n_cuts] by user_id; users without one are not split: all they did is trained on */
	size_t n_cuts;
	uint64_t n_watches;    /* in the file */
	uint64_t n_held_out;
	uint64_t n_relevant;   /* (user, item) pairs to be found */
	uint64_t seen_before;  /* pairs that became positive but were watched before: masked, not judged */
	uint64_t unknown_items; /* pairs whose item nobody had met before the split. Logs: not judged, no model can rank it. Files: judged, it ranks last */
	uint32_t n_extra_items; /* SPLIT_FILES: items behind the state's last one, so that those pairs can be judged */
	/* users with at least one relevant item, by group; .user is STATE_NONE for one that nobody had seen before */
	struct rank_user *users;
	size_t group_begin[GROUP_COUNT + 1];
	uint32_t *items; /* what users[].relevant and .masked point into */
	struct split_decided *decided; /* [n_decided] of users and items known before; of every n-th user when there would be too many */
	size_t n_decided;
};

/*
 * First pass: finds the cut or cuts; equal times stay together, on the held-out side. Fills kind, cuts, n_watches and n_held_out. A user of whom nothing would be
 * left to train on is not split. -ENODATA: there are no watches, or the split leaves none to train on or none to judge; errstr says so.
 */
int split_find_cut(const char *data_dir, const struct split_options *options, struct split *ret_split, char *errstr, size_t errstr_size);

/* What of this user is held out: from this time on. For load_options.cut_of; ctx: the split. INT64_MAX: nothing. */
int64_t split_cut_of(const void *split, int64_t user_id);

/*
 * Second pass: what is held out under `rules`, compared with `state`, which holds what came before. Fills the rest of the split. Durations for completion come
 * from the same folder.
 */
int split_find_relevant(const char *data_dir, const struct state_rules *rules, const struct state *state, struct split *split, char *errstr,
                        size_t errstr_size);

/*
 * Compares two states: what is positive in `after` and not watched in `before` is to be found. Items that `before` does not know are judged when `extra_items`
 * (they get indexes behind its last one), else counted only. Fills users, items and the counters. 0 or -ENOMEM.
 */
int split_compare(const struct state *before, const struct state *after, int extra_items, struct split *split);

/* Accepts a zeroed one. */
void split_free(struct split *split);

#endif
