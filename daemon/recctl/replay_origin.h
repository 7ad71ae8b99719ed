/*
 * replay_origin.h: the header that each replayed record carries: which bytes of which file it is, of which replay, and what went before it.
 *
 *   recd-origin: watch_stats-2024.jsonl#1f2e3d4c5b6a7988@123456+174/9e8f7a6b5c4d3e2f:0c1d2e3f
 *                base name (without .gz, .zst) # content id @ byte offset in the content + length of the line / id of the replay into this topic
 *                : hash of all lines that this replay gives the partition, up to this one
 */
#ifndef DAEMON_RECCTL_REPLAY_ORIGIN_H
#define DAEMON_RECCTL_REPLAY_ORIGIN_H

#include <stddef.h>
#include <stdint.h>

#define REPLAY_ORIGIN_HEADER "recd-origin"
#define REPLAY_NAME_MAX 256
#define REPLAY_ORIGIN_MAX (REPLAY_NAME_MAX + 80)

struct replay_origin {
	char name[REPLAY_NAME_MAX];
	uint64_t content_id, replay_id;
	int64_t offset;
	uint64_t len;
	uint32_t sequence;
};

/* Writes the header's value, not terminated, into out[REPLAY_ORIGIN_MAX]; returns its length. `name` is shorter than REPLAY_NAME_MAX. */
size_t replay_origin_write(const char *name, uint64_t content_id, int64_t offset, uint64_t len, uint64_t replay_id, uint32_t sequence, char *out);

/*
 * The hash of a partition's lines after one more, from 0 for none; the header has its low half. It is computed for every record, so eight bytes a step: a guard against
 * files that were changed, not against somebody who wants to deceive.
 */
uint64_t replay_sequence_next(uint64_t sequence, uint64_t content_id, int64_t offset, const char *text, size_t len);

/* 0, or -EINVAL when it is not such a value. */
int replay_origin_parse(const char *value, size_t len, struct replay_origin *ret_origin);

#endif
