/*
 * replay_plan.h: what a replay reads and where it goes: input files, their streams, the topics' names.
 */
#ifndef DAEMON_RECCTL_REPLAY_PLAN_H
#define DAEMON_RECCTL_REPLAY_PLAN_H

#include "daemon/recctl/replay_merge.h"

#define REPLAY_INPUTS_MAX 65536u
#define REPLAY_TOPIC_MAX 249

struct replay_plan {
	struct replay_input *inputs; /* catalogue and users first, then by stream and path: the order that breaks ties in the merge */
	uint32_t n_inputs;
	char topics[STREAM_COUNT][REPLAY_TOPIC_MAX + 1];
	int wanted[STREAM_COUNT];    /* whether the stream is to be sent */
};

/*
 * Names: "impressions", "events", "watch_stats", "catalogue" (or "items"), "users". `topics` ("impressions=a,events=b") wins over `prefix` + name; `streams`
 * ("events,watch_stats") limits what is sent. `configured` holds the topics of recd.conf (a stream whose topic is NULL there is not sent unless a flag names it); they
 * win over `prefix` + name. Each may be NULL. 0; -EINVAL: errstr says which flag is wrong how.
 */
int replay_plan_begin(const char *streams, const char *topics, const char *prefix, const char *const configured[STREAM_COUNT], struct replay_plan *ret_plan, char *errstr, size_t errstr_size);

/*
 * Adds the files of wanted streams in a folder: NAME.jsonl, NAME-ANYTHING.jsonl, NAME.jsonl.N, NAME.jsonl-N, each also with .gz or .zst (NAME: impressions,
 * events, watch_stats, items, users). 0, -ENOMEM or -errno.
 */
int replay_plan_add_folder(struct replay_plan *plan, const char *folder, char *errstr, size_t errstr_size);

/* Adds "STREAM=PATH", or "PATH" whose file name tells the stream as above. 0, -EINVAL, -ENOMEM. */
int replay_plan_add_file(struct replay_plan *plan, const char *word, char *errstr, size_t errstr_size);

/* Reads what identifies each file, sorts, and refuses a file that stands twice (x.jsonl beside x.jsonl.gz). 0, -EINVAL, -EBADMSG or -errno. */
int replay_plan_finish(struct replay_plan *plan, char *errstr, size_t errstr_size);
void replay_plan_free(struct replay_plan *plan);

/* Hash of all that decides the order of a stream's records in each partition of its topic: the files, the range of time, the number of partitions. */
uint64_t replay_plan_id(const struct replay_plan *plan, enum event_stream stream, int64_t from_us, int64_t to_us, int32_t n_partitions);

/* The stream that a file name tells, or -1. */
int replay_stream_of(const char *name);

#endif
