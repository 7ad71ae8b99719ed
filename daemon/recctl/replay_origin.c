/*
 * replay_origin.c: writes and reads the header recd-origin, and hashes what goes into it. Any thread. Done for every record, so by hand and not by printf.
 */
#include "daemon/recctl/replay_origin.h"

#include <errno.h>
#include <string.h>

static char *put_hex(char *out, uint64_t value, int digits)
{
	for (int shift = 4 * digits - 4; shift >= 0; shift -= 4)
		*out++ = "0123456789abcdef"[value >> shift & 15];
	return out;
}

static char *put_decimal(char *out, uint64_t value)
{
	char digits[20];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (n)
		*out++ = digits[--n];
	return out;
}

size_t replay_origin_write(const char *name, uint64_t content_id, int64_t offset, uint64_t len, uint64_t replay_id, uint32_t sequence, char *out)
{
	size_t name_len = strlen(name);
	char *at = out + name_len;

	memcpy(out, name, name_len);
	*at++ = '#';
	at = put_hex(at, content_id, 16);
	*at++ = '@';
	at = put_decimal(at, (uint64_t)offset);
	*at++ = '+';
	at = put_decimal(at, len);
	*at++ = '/';
	at = put_hex(at, replay_id, 16);
	*at++ = ':';
	return (size_t)(put_hex(at, sequence, 8) - out);
}

/* Exactly so many hexadecimal digits. */
static int take_hex(const char **at, const char *end, int digits, uint64_t *ret)
{
	uint64_t value = 0;

	if (end - *at < digits)
		return -EINVAL;
	for (int i = 0; i < digits; i++, (*at)++) {
		const char *digit = **at ? strchr("0123456789abcdef", **at) : NULL;

		if (!digit)
			return -EINVAL;
		value = value << 4 | (uint64_t)(digit - "0123456789abcdef");
	}
	*ret = value;
	return 0;
}

static int take_decimal(const char **at, const char *end, uint64_t *ret)
{
	const char *begin = *at;
	uint64_t value = 0;

	while (*at < end && **at >= '0' && **at <= '9') {
		if (value > (uint64_t)INT64_MAX / 10)
			return -EINVAL;
		value = value * 10 + (uint64_t)(*(*at)++ - '0');
	}
	if (*at == begin || value > (uint64_t)INT64_MAX)
		return -EINVAL;
	*ret = value;
	return 0;
}

static int take_char(const char **at, const char *end, char wanted)
{
	if (*at == end || **at != wanted)
		return -EINVAL;
	(*at)++;
	return 0;
}

int replay_origin_parse(const char *value, size_t len, struct replay_origin *ret_origin)
{
	const char *end = value + len, *at = memrchr(value, '#', len);
	struct replay_origin origin = { 0 };
	uint64_t offset, sequence;

	if (!at || at == value || (size_t)(at - value) >= sizeof(origin.name) || memchr(value, '\0', len))
		return -EINVAL;
	memcpy(origin.name, value, (size_t)(at - value));
	if (take_char(&at, end, '#') || take_hex(&at, end, 16, &origin.content_id) || take_char(&at, end, '@') || take_decimal(&at, end, &offset) ||
	    take_char(&at, end, '+') || take_decimal(&at, end, &origin.len) || take_char(&at, end, '/') || take_hex(&at, end, 16, &origin.replay_id) ||
	    take_char(&at, end, ':') || take_hex(&at, end, 8, &sequence) || at != end)
		return -EINVAL;
	origin.offset = (int64_t)offset;
	origin.sequence = (uint32_t)sequence;
	*ret_origin = origin;
	return 0;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

uint64_t replay_sequence_next(uint64_t sequence, uint64_t content_id, int64_t offset, const char *text, size_t len)
{
	uint64_t hash = mix(mix(mix(sequence, content_id), (uint64_t)offset), len), word;

	for (; len >= sizeof(word); text += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, text, sizeof(word));
		hash = mix(hash, word);
	}
	word = 0;
	memcpy(&word, text, len);
	return mix(hash, word);
}
