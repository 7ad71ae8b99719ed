/*
 * split_tsv.h: two files of (user, item) pairs, as public data sets come: one to train on, one to judge by. Ids only, no times.
 */
#ifndef DAEMON_RECCTL_SPLIT_TSV_H
#define DAEMON_RECCTL_SPLIT_TSV_H

#include "daemon/recctl/split.h"

enum tsv_format {
	TSV_AUTO,  /* lists when the lines of the two files differ in the number of fields, or have fewer than 2 or more than 4; else pairs */
	TSV_PAIRS, /* user item, and anything behind (a count, a rating, a time) which is not read */
	TSV_LISTS, /* user item item item ... */
};

struct tsv_options {
	const char *train, *test;
	enum tsv_format format;
	struct state_rules rules;
	const struct model_file *ids_first; /* as for load_logs() */
};

/*
 * Reads both files: every pair of `train` becomes a positive of a new state, every pair of `test` that is not in `train` is to be found. Fields are separated
 * by tabs, spaces, commas, semicolons, colons or bars; a first line that does not begin with a number is a header. Ids are integers, 0 to 2^63-1. *ret_state
 * and *ret_split are the caller's. 0, -EINVAL (errstr: file, line, what is wrong, what is wanted) or another -errno with text.
 */
int split_tsv_load(const struct tsv_options *options, struct state **ret_state, struct split *ret_split, char *errstr, size_t errstr_size);

#endif
