/*
 * replay_resume.c: compares the last record of each partition with the files before a resumed replay sends anything.
 *
 * Main thread of recctl. The merge runs once without sending until each of these records has turned up. Its place tells how many records the partition holds
 * (how that works: replay_send.c), and the hash in its header must be that of all lines that the files give to the partition up to there: were it not compared, lines that
 * came into a file since, at an earlier time, would count as sent. All partitions are compared first, for a replay that refuses half-way would leave records of
 * the changed files in the others.
 */
#include "daemon/recctl/replay_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/recctl/replay_file.h"

#define MEND "put the old files back, or replay into a new topic"

static const struct replay_input *input_of(const struct replay_resume *resume, const struct replay_record *record)
{
	return &resume->merge.inputs[record->input];
}

/* The record stands where the partition's last one came from. */
static int compare(const struct replay_resume *resume, const struct replay_record *record, int32_t partition, const struct replay_tail *tail, char *errstr,
                   size_t errstr_size)
{
	const char *topic = resume->topics[record->stream].name;

	if (tail->origin.len != record->len || tail->value_hash != replay_hash(REPLAY_HASH_BEGIN, record->text, record->len)) {
		snprintf(errstr, errstr_size,
		         "%s: the line at byte %" PRId64 " is not the one in topic \"%s\", partition %d, offset %" PRId64 ": the file was changed since; nothing was "
		         "sent; " MEND, input_of(resume, record)->path, record->offset, topic, partition, tail->kafka_offset);
		return -EBADMSG;
	}
	if (tail->origin.sequence != (uint32_t)tail->sequence) {
		snprintf(errstr, errstr_size,
		         "topic \"%s\", partition %d: the lines before its last one (%s, byte %" PRId64 ") are not those that it was given: a file was changed since, or "
		         "has got lines of an earlier time; nothing was sent; " MEND, topic, partition, tail->origin.name, tail->origin.offset);
		return -EBADMSG;
	}
	return 0;
}

/* One record of the merge. 0 or -EBADMSG; *left: partitions whose last record has not turned up yet. */
static int take(const struct replay_resume *resume, const struct replay_record *record, uint64_t *left, char *errstr, size_t errstr_size)
{
	int32_t partition = replay_sender_partition(resume->sender, record);
	struct replay_tail *tail = &resume->topics[record->stream].tails[partition];
	const struct replay_input *input = input_of(resume, record);

	if (!tail->there)
		return 0;
	tail->n_held++;
	tail->sequence = replay_sequence_next(tail->sequence, input->content_id, record->offset, record->text, record->len);
	if (tail->origin.offset != record->offset || tail->origin.content_id != input->content_id || strcmp(tail->origin.name, input->name) != 0)
		return 0;
	int rc = compare(resume, record, partition, tail, errstr, errstr_size);
	tail->there = 0;
	tail->sequence = 0; /* the merge begins anew */
	(*left)--;
	return rc;
}

static uint64_t count_left(const struct replay_resume *resume)
{
	uint64_t left = 0;

	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		for (int32_t p = 0; resume->topics[stream].name && p < resume->topics[stream].n_partitions; p++)
			left += resume->topics[stream].tails[p].there != 0;
	}
	return left;
}

/* The files have ended, and the last record of a partition was not among their lines. */
static int say_missing(const struct replay_resume *resume, char *errstr, size_t errstr_size)
{
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const struct replay_topic *topic = &resume->topics[stream];

		for (int32_t p = 0; topic->name && p < topic->n_partitions; p++) {
			if (topic->tails[p].there)
				snprintf(errstr, errstr_size, "topic \"%s\", partition %d: its last record is %s, byte %" PRId64 ", and there is no such line now: the file was "
				         "changed since; nothing was sent; " MEND, topic->name, p, topic->tails[p].origin.name, topic->tails[p].origin.offset);
		}
	}
	return -EBADMSG;
}

int replay_resume_check(const struct replay_resume *resume, char *errstr, size_t errstr_size)
{
	uint64_t left = count_left(resume), n = 0;
	struct replay_merge *merge = NULL;
	struct replay_record record;
	int rc = left ? replay_merge_open(&resume->merge, &merge, errstr, errstr_size) : 0;

	while (!rc && left) {
		rc = replay_merge_next(merge, &record, errstr, errstr_size);
		if (rc < 0)
			break;
		rc = rc ? take(resume, &record, &left, errstr, errstr_size) : say_missing(resume, errstr, errstr_size);
		if ((++n & 255) == 0)
			progress_update(resume->progress, replay_merge_read_bytes(merge));
		if (!rc && *resume->stop) {
			snprintf(errstr, errstr_size, "stopped by a signal before anything was sent");
			rc = -EINTR;
		}
	}
	replay_merge_close(merge);
	return rc;
}
