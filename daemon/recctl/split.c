/*
 * split.c: where the time split lies. Main thread of recctl.
 *
 * The watches are read once for it, and only who and when is kept (16 bytes a watch). What lies behind the split is split_relevant.c's business.
 */
#include "daemon/recctl/split.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who watched when, in file order, then sorted. */
struct times {
	struct user_cut *values; /* a watch as its user and its time */
	size_t n, capacity;
};

static int take_times(void *ctx, struct event_batch *batch)
{
	struct times *times = ctx;

	if (times->n + batch->n_events > times->capacity) {
		size_t capacity = times->capacity ? times->capacity * 2 : 1u << 16;
		struct user_cut *values = realloc(times->values, capacity * sizeof(*values));

		if (!values)
			return -ENOMEM;
		times->values = values;
		times->capacity = capacity;
	}
	for (uint32_t i = 0; i < batch->n_events; i++)
		times->values[times->n++] = (struct user_cut){ batch->events[i].user_id, batch->events[i].time_us };
	return 0;
}

static int by_time(const void *a, const void *b)
{
	int64_t x = ((const struct user_cut *)a)->cut_us, y = ((const struct user_cut *)b)->cut_us;

	return (x > y) - (x < y);
}

static int by_user(const void *a, const void *b)
{
	int64_t x = ((const struct user_cut *)a)->user_id, y = ((const struct user_cut *)b)->user_id;

	return x != y ? (x > y) - (x < y) : by_time(a, b);
}

/* Watches held out of n when a share of them is; at least one. */
static size_t share_of(double share, size_t n)
{
	size_t held_out = (size_t)(share * (double)n + 0.999999);

	return held_out > n ? n : held_out;
}

/* First watch that is held out, so that equal times stay together; values are sorted by time. 0: all would be. */
static size_t first_held_out(const struct user_cut *values, size_t n, size_t held_out)
{
	size_t first = held_out < n ? n - held_out : 0;

	while (first && values[first - 1].cut_us == values[first].cut_us)
		first--;
	return first;
}

/* The cut of each user; values of one user lie together, in time. */
static int cut_users(struct times *times, const struct split_options *options, struct split *split)
{
	size_t n_cuts = 0;

	for (size_t begin = 0, end; begin < times->n; begin = end) {
		const struct user_cut *of = times->values + begin;

		for (end = begin; end < times->n && times->values[end].user_id == of->user_id; end++)
			;
		size_t first = first_held_out(of, end - begin, options->last_n ? options->last_n : share_of(options->share, end - begin));
		if (!first)
			continue;
		split->n_held_out += end - begin - first;
		times->values[n_cuts++] = of[first]; /* behind what was read, never before */
	}
	if (!n_cuts)
		return -ENODATA;
	struct user_cut *fitting = realloc(times->values, n_cuts * sizeof(*fitting));
	split->cuts = fitting ? fitting : times->values;
	split->n_cuts = n_cuts;
	times->values = NULL;
	return 0;
}

static int cut_all(const struct times *times, const struct split_options *options, struct split *split)
{
	size_t first = first_held_out(times->values, times->n, share_of(options->share, times->n));

	if (!first)
		return -ENODATA;
	split->cut_us = times->values[first].cut_us;
	split->n_held_out = times->n - first;
	return 0;
}

int split_find_cut(const char *data_dir, const struct split_options *options, struct split *ret_split, char *errstr, size_t errstr_size)
{
	struct times times = { 0 };
	struct stream_stats stats;
	const char *name = log_file_name(STREAM_WATCHES);
	int rc = log_read(data_dir, STREAM_WATCHES, take_times, &times, &stats, errstr, errstr_size);

	*ret_split = (struct split){ .kind = options->kind, .n_watches = times.n };
	if (rc) {
		if (stats.missing)
			snprintf(errstr, errstr_size, "%s/%s is missing; point --data_dir at a folder with logs, or make some: recctl synth --out_dir %s",
			         data_dir, name, data_dir);
		goto out;
	}
	if (!times.n) {
		snprintf(errstr, errstr_size, "%s/%s holds no watches", data_dir, name);
		rc = -ENODATA;
		goto out;
	}
	qsort(times.values, times.n, sizeof(*times.values), options->kind == SPLIT_USER ? by_user : by_time);
	rc = options->kind == SPLIT_USER ? cut_users(&times, options, ret_split) : cut_all(&times, options, ret_split);
	if (rc)
		snprintf(errstr, errstr_size, "%s/%s: %zu watches cannot be split in time%s; use --holdout 0", data_dir, name, times.n,
		         options->kind == SPLIT_USER ? " user by user (nobody would have any left to train on)" : "");
out:
	free(times.values);
	return rc;
}

int64_t split_cut_of(const void *ctx, int64_t user_id)
{
	const struct split *split = ctx;
	const struct user_cut *cuts = split->cuts;
	size_t low = 0, n = split->n_cuts;

	if (split->kind != SPLIT_USER)
		return split->cut_us;
	while (n) {
		size_t half = n / 2;

		if (cuts[low + half].user_id < user_id) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low < split->n_cuts && cuts[low].user_id == user_id ? cuts[low].cut_us : INT64_MAX;
}

void split_free(struct split *split)
{
	free(split->users);
	free(split->items);
	free(split->cuts);
	free(split->decided);
	*split = (struct split){ 0 };
}
