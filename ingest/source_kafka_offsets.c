/*
 * source_kafka_offsets.c: the decisions of the Kafka source that need no broker: is this the next record, where does a partition start, is this still the
 * log that the position was taken from. Pure functions; any thread.
 *
 * Offsets that are missing are mostly real: transaction markers, aborted transactions and compaction leave holes. But librdkafka may also have skipped
 * records, so a hole is looked at twice: back to the expected offset, and only what is missing again is a hole. A topic full of them would be read at a crawl:
 * after KAFKA_TRUST holes confirmed in a row only one in KAFKA_SAMPLE is looked at twice, until one turns out to be false.
 */
#include "ingest/source_kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KAFKA_TRUST 16u
#define KAFKA_SAMPLE 64u
#define KAFKA_HOLE_TRIES 3u
#define TOPIC_LEN_PLAIN 180

void kafka_sequence_start(struct kafka_sequence *sequence, int64_t expected)
{
	memset(sequence, 0, sizeof(*sequence));
	sequence->expected = expected;
	sequence->hole_at = -1;
}

static enum kafka_verdict check_hole(struct kafka_sequence *sequence, int64_t offset, int64_t *ret_missing)
{
	if (sequence->hole_at < 0) {
		if (sequence->confirmed >= KAFKA_TRUST && ++sequence->believed % KAFKA_SAMPLE != 0) {
			*ret_missing = offset - sequence->expected;
			return KAFKA_TAKE;
		}
		sequence->hole_at = offset;
		sequence->hole_tries = 1;
		return KAFKA_SEEK;
	}
	/* Behind what came last time: left over from before the seek. */
	if (offset > sequence->hole_at && sequence->hole_tries < KAFKA_HOLE_TRIES) {
		sequence->hole_tries++;
		return KAFKA_SEEK;
	}
	if (offset < sequence->hole_at)
		sequence->confirmed = 0;
	else if (sequence->confirmed < KAFKA_TRUST)
		sequence->confirmed++;
	sequence->hole_at = -1;
	*ret_missing = offset - sequence->expected;
	return KAFKA_TAKE;
}

enum kafka_verdict kafka_sequence_check(struct kafka_sequence *sequence, int64_t offset, int64_t *ret_missing)
{
	*ret_missing = 0;
	if (offset < sequence->expected)
		return KAFKA_DROP;
	if (offset > sequence->expected)
		return check_hole(sequence, offset, ret_missing);
	if (sequence->hole_at >= 0) { /* there was none */
		sequence->hole_at = -1;
		sequence->confirmed = 0;
	}
	return KAFKA_TAKE;
}

enum kafka_start kafka_start_decide(const struct source_position *position, int64_t low, int64_t high, int64_t *ret_offset)
{
	int64_t marker = (int64_t)position->inode;

	*ret_offset = position->offset;
	if (position->offset > high)
		return KAFKA_START_TRUNCATED;
	if (position->marker_len > 0 && marker >= low && marker < position->offset) {
		*ret_offset = marker;
		return KAFKA_START_VERIFY;
	}
	if (position->offset < low)
		return KAFKA_START_EVICTED;
	return position->marker_len > 0 ? KAFKA_START_UNCHECKED : KAFKA_START_GO;
}

enum kafka_match kafka_marker_match(const struct source_position *position, int64_t offset, uint64_t hash, int64_t time_ns)
{
	int64_t marker = (int64_t)position->inode;

	if (offset != marker)
		return offset < marker ? KAFKA_MATCH_BEFORE : KAFKA_MATCH_GONE;
	return hash == position->marker && time_ns == position->mark_time_ns ? KAFKA_MATCH_SAME : KAFKA_MATCH_OTHER;
}

/* FNV-1a, 64 bits. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t hash_part(uint64_t hash, const void *bytes, size_t len)
{
	uint64_t shown = bytes ? (uint64_t)len : UINT64_MAX;
	unsigned char length[8];

	for (size_t i = 0; i < sizeof(length); i++)
		length[i] = (unsigned char)(shown >> (8 * i));
	hash = hash_bytes(hash, length, sizeof(length));
	return bytes ? hash_bytes(hash, bytes, len) : hash;
}

uint64_t kafka_record_hash(const void *key, size_t key_len, const void *value, size_t value_len)
{
	return hash_part(hash_part(UINT64_C(0xcbf29ce484222325), key, key_len), value, value_len);
}

static int name_prefix(enum event_stream stream, const char *topic, char *ret_prefix, size_t size)
{
	size_t len = strlen(topic);

	if (len <= TOPIC_LEN_PLAIN)
		return snprintf(ret_prefix, size, "kafka:%s:%s:", event_stream_name(stream), topic);
	return snprintf(ret_prefix, size, "kafka:%s:%.*s~%016llx:", event_stream_name(stream), TOPIC_LEN_PLAIN - 17, topic,
	                (unsigned long long)hash_bytes(UINT64_C(0xcbf29ce484222325), topic, len));
}

void kafka_position_name(enum event_stream stream, const char *topic, int32_t partition, char *ret_name)
{
	int len = name_prefix(stream, topic, ret_name, POSITION_NAME_MAX);

	snprintf(ret_name + len, POSITION_NAME_MAX - (size_t)len, "%d", partition);
}

int32_t kafka_position_partition(const char *name, enum event_stream stream, const char *topic)
{
	char prefix[POSITION_NAME_MAX];
	size_t len = (size_t)name_prefix(stream, topic, prefix, sizeof(prefix));
	long partition;
	char *end;

	if (strncmp(name, prefix, len) != 0 || name[len] < '0' || name[len] > '9')
		return -1;
	partition = strtol(name + len, &end, 10);
	return *end == '\0' && partition < INT32_MAX ? (int32_t)partition : -1;
}
