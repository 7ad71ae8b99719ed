/*
 * dead_letter.c: the file of refused lines, one JSON object a line: reason, source, offset, and the line itself.
 *
 *   {"reason":"bad_id","source":"file:events:/var/log/events.jsonl","offset":4711,"line":"{\"user_id\":-1}"}
 *
 * A line that is not UTF-8 is given as "line_base64" instead. Lines cut at REFUSED_TEXT_MAX bytes have "capped":true. Used by the thread that applies
 * batches; one writer, no lock. The file's length belongs to the cut: recovery opens with that length, and what was refused after the cut
 * is refused, and written, again. Above the size limit lines are counted only. A failed fdatasync is never tried again on the same descriptor: every
 * later call fails with the same error until the file is opened anew. dead_letter_sync() alone may run in another thread, beside an append.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/source.h"

/* The longest record: every byte of the line and of the name escaped (6 each), and the keys. */
#define RECORD_MAX (6 * (REFUSED_TEXT_MAX + POSITION_NAME_MAX) + 256)
#define BUFFER_SIZE (8 * RECORD_MAX)

struct dead_letter {
	int fd;
	atomic_int sync_error; /* errno of a failed fdatasync; sticky */
	int64_t length;
	uint64_t size_max;
	uint64_t dropped;
	size_t used;
	char buffer[BUFFER_SIZE];
};

/* Writes all of it at the given offset. 0 or -errno. */
static int write_at(int fd, const char *bytes, size_t len, int64_t offset)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, bytes, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes += n;
		len -= (size_t)n;
		offset += n;
	}
	return 0;
}

/* Cuts the file to the length a cut recorded, and sees to it that it ends with a whole line. 0 or -errno. */
static int set_length(struct dead_letter *dead_letter, int64_t length)
{
	struct stat st;
	char last;
	ssize_t n;

	if (fstat(dead_letter->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EMEDIUMTYPE;
	dead_letter->length = (int64_t)st.st_size;
	if (length >= 0 && length < dead_letter->length) {
		if (ftruncate(dead_letter->fd, (off_t)length) < 0)
			return -errno;
		dead_letter->length = length;
	}
	if (dead_letter->length == 0)
		return 0;
	n = pread(dead_letter->fd, &last, 1, (off_t)(dead_letter->length - 1));
	if (n != 1)
		return n < 0 ? -errno : -EIO;
	if (last != '\n') { /* the end of a write that a power loss cut */
		int r = write_at(dead_letter->fd, "\n", 1, dead_letter->length);

		if (r < 0)
			return r;
		dead_letter->length++;
	}
	return 0;
}

int dead_letter_open(const char *path, int64_t length, uint64_t size_max, struct dead_letter **ret_dead_letter, char *errstr,
                     size_t errstr_size)
{
	struct dead_letter *dead_letter = malloc(sizeof(*dead_letter));
	int r;

	if (!dead_letter) {
		snprintf(errstr, errstr_size, "%s: out of memory", path);
		return -ENOMEM;
	}
	atomic_init(&dead_letter->sync_error, 0);
	dead_letter->dropped = 0;
	dead_letter->used = 0;
	dead_letter->size_max = size_max;
	dead_letter->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	r = dead_letter->fd < 0 ? -errno : set_length(dead_letter, length);
	if (r < 0) {
		snprintf(errstr, errstr_size, "%s: %s", path, r == -EMEDIUMTYPE ? "not a regular file" : strerror(-r));
		dead_letter_close(dead_letter);
		return r;
	}
	*ret_dead_letter = dead_letter;
	return 0;
}

void dead_letter_close(struct dead_letter *dead_letter)
{
	if (!dead_letter)
		return;
	if (dead_letter->fd >= 0)
		close(dead_letter->fd);
	free(dead_letter);
}

/* Length of the UTF-8 sequence at p (RFC 3629), 0: not one. */
static size_t sequence_length(const unsigned char *p, size_t len)
{
	size_t need = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (need == 0 || need > len)
		return 0;
	for (size_t i = 1; i < need; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return need;
}

static int is_utf8(const char *text, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t n = sequence_length((const unsigned char *)text + at, len - at);

		if (n == 0)
			return 0;
		at += n;
	}
	return 1;
}

/* A capped line may end within a character: without it. */
static size_t whole_characters(const char *text, size_t len)
{
	for (size_t cut = 0; cut < 4 && cut < len; cut++) {
		unsigned char c = (unsigned char)text[len - 1 - cut];

		if (c < 0x80)
			return len;
		if (c >= 0xc0)
			return sequence_length((const unsigned char *)text + len - 1 - cut, cut + 1) > 0 ? len : len - 1 - cut;
	}
	return len;
}

static char *put_string(char *out, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";

	*out++ = '"';
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\') {
			*out++ = '\\';
			*out++ = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			memcpy(out, "\\u00", 4);
			out[4] = hex[c >> 4];
			out[5] = hex[c & 15];
			out += 6;
		} else {
			*out++ = (char)c;
		}
	}
	*out++ = '"';
	return out;
}

static char *put_base64(char *out, const char *text, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)text;

	*out++ = '"';
	for (size_t i = 0; i < len; i += 3) {
		unsigned bits = (unsigned)p[i] << 16 | (i + 1 < len ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < len ? p[i + 2] : 0u);

		*out++ = digits[bits >> 18];
		*out++ = digits[bits >> 12 & 63];
		*out++ = i + 1 < len ? digits[bits >> 6 & 63] : '=';
		*out++ = i + 2 < len ? digits[bits & 63] : '=';
	}
	*out++ = '"';
	return out;
}

/* One record at out (RECORD_MAX bytes are free there). Returns its length. */
static size_t put_record(char *out, const char *source, const struct refused_line *refused, const char *text)
{
	size_t len = refused->text.len;
	char *p = out;

	p += sprintf(p, "{\"reason\":\"%s\",\"source\":", refusal_name((enum refusal)refused->reason));
	/* a path is bytes: if these are not text, they are shown as base64 too */
	p = is_utf8(source, strlen(source)) ? put_string(p, source, strlen(source)) : put_base64(p, source, strlen(source));
	p += sprintf(p, ",\"offset\":%lld,", (long long)refused->offset);
	if (len == REFUSED_TEXT_MAX) {
		p += sprintf(p, "\"capped\":true,");
		len = whole_characters(text, len);
	}
	if (is_utf8(text, len)) {
		p += sprintf(p, "\"line\":");
		p = put_string(p, text, len);
	} else {
		p += sprintf(p, "\"line_base64\":");
		p = put_base64(p, text, refused->text.len);
	}
	p += sprintf(p, "}\n");
	return (size_t)(p - out);
}

static int flush_buffer(struct dead_letter *dead_letter)
{
	int r = write_at(dead_letter->fd, dead_letter->buffer, dead_letter->used, dead_letter->length);

	if (r == 0)
		dead_letter->length += (int64_t)dead_letter->used;
	dead_letter->used = 0;
	return r;
}

int dead_letter_append(struct dead_letter *dead_letter, const struct event_batch *batch)
{
	int64_t length_before = dead_letter->length;
	uint64_t dropped_before = dead_letter->dropped;
	int r = -atomic_load(&dead_letter->sync_error);

	for (uint32_t i = 0; r == 0 && i < batch->n_refused; i++) {
		const struct refused_line *refused = &batch->refused[i];
		size_t len;

		if (dead_letter->used + RECORD_MAX > sizeof(dead_letter->buffer))
			r = flush_buffer(dead_letter);
		if (r < 0)
			break;
		len = put_record(dead_letter->buffer + dead_letter->used, batch->position.name, refused, batch->text + refused->text.offset);
		if ((uint64_t)dead_letter->length + dead_letter->used + len > dead_letter->size_max)
			dead_letter->dropped++;
		else
			dead_letter->used += len;
	}
	if (r == 0)
		r = flush_buffer(dead_letter);
	if (r < 0) {
		int ignored = ftruncate(dead_letter->fd, (off_t)length_before);

		(void)ignored; /* all or nothing; if this fails too, the next write at the old length covers what is there */
		dead_letter->used = 0;
		dead_letter->length = length_before;
		dead_letter->dropped = dropped_before;
	}
	return r;
}

int dead_letter_sync(struct dead_letter *dead_letter)
{
	if (!atomic_load(&dead_letter->sync_error) && fdatasync(dead_letter->fd) < 0)
		atomic_store(&dead_letter->sync_error, errno);
	return -atomic_load(&dead_letter->sync_error);
}

int64_t dead_letter_length(const struct dead_letter *dead_letter)
{
	return dead_letter->length;
}

uint64_t dead_letter_dropped(const struct dead_letter *dead_letter)
{
	return dead_letter->dropped;
}
