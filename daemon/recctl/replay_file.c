/*
 * replay_file.c: reads a history file, plain or compressed, and cuts it into lines.
 *
 * Main thread of recctl. Two buffers: `raw` holds bytes of the file, `text` holds content. fill() moves from one to the other through the format's own
 * function; the cutting of lines knows nothing of formats. A gzip file may hold several members and a zstd file several frames, one behind the other, as
 * `cat a.gz b.gz` makes them. A file that ends inside a member or frame is an error after its last whole piece has been handed out: half a history must
 * not look like a whole one.
 */
#include "daemon/recctl/replay_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "ingest/decode.h"

#define RAW_BYTES (64u << 10)
#define TEXT_BYTES (64u << 10)

struct replay_file {
	char *path;
	int fd;
	int (*pull)(struct replay_file *file, char *out, size_t size, size_t *ret_got, char *errstr, size_t errstr_size);
	unsigned char *raw; /* [RAW_BYTES] */
	size_t raw_at, raw_used;
	int raw_end;
	uint64_t raw_total; /* bytes read from fd */
	z_stream z;
	int z_made;
	ZSTD_DStream *zstd;
	int inside;         /* inside a gzip member or a zstd frame */
	char *text;         /* [text_size + DECODE_PADDING] */
	size_t text_size, text_at, text_used;
	int text_end;
	int64_t offset;     /* content offset of text[text_at] */
	uint64_t lines;
	size_t line_bytes_max;
};

uint64_t replay_hash(uint64_t hash, const void *bytes, size_t len)
{
	const unsigned char *byte = bytes;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* More raw bytes when there are none. 0 or -errno. */
static int read_raw(struct replay_file *file, char *errstr, size_t errstr_size)
{
	while (file->raw_at == file->raw_used && !file->raw_end) {
		ssize_t got = read(file->fd, file->raw, RAW_BYTES);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			int rc = -errno;

			snprintf(errstr, errstr_size, "%s: byte %" PRIu64 ": %s", file->path, file->raw_total, strerror(-rc));
			return rc;
		}
		file->raw_at = 0;
		file->raw_used = (size_t)got;
		file->raw_total += (size_t)got;
		file->raw_end = got == 0;
	}
	return 0;
}

/* Damaged or cut-off compressed data. */
static int damaged(const struct replay_file *file, const char *what, char *errstr, size_t errstr_size)
{
	snprintf(errstr, errstr_size, "%s: %s at byte %" PRIu64 " of the file, after line %" PRIu64 "; get a whole copy of it", file->path, what,
	         file->raw_total - (file->raw_used - file->raw_at), file->lines);
	return -EBADMSG;
}

static int pull_plain(struct replay_file *file, char *out, size_t size, size_t *ret_got, char *errstr, size_t errstr_size)
{
	size_t n = file->raw_used - file->raw_at;

	(void)errstr;
	(void)errstr_size;
	if (n > size)
		n = size;
	memcpy(out, file->raw + file->raw_at, n);
	file->raw_at += n;
	*ret_got = n;
	return 0;
}

static int pull_gzip(struct replay_file *file, char *out, size_t size, size_t *ret_got, char *errstr, size_t errstr_size)
{
	if (!file->inside) {
		if (file->raw_at == file->raw_used)
			return 0; /* the end, between two members */
		if (inflateReset(&file->z) != Z_OK)
			return -ENOMEM;
		file->inside = 1;
	}
	file->z.next_in = file->raw + file->raw_at;
	file->z.avail_in = (uInt)(file->raw_used - file->raw_at);
	file->z.next_out = (unsigned char *)out;
	file->z.avail_out = (uInt)size;
	int rc = inflate(&file->z, Z_NO_FLUSH);
	file->raw_at = file->raw_used - file->z.avail_in;
	*ret_got = size - file->z.avail_out;
	if (rc == Z_MEM_ERROR)
		return -ENOMEM;
	if (rc == Z_STREAM_END)
		file->inside = 0;
	else if (rc != Z_OK && rc != Z_BUF_ERROR)
		return damaged(file, "damaged gzip data", errstr, errstr_size);
	return 0;
}

static int pull_zstd(struct replay_file *file, char *out, size_t size, size_t *ret_got, char *errstr, size_t errstr_size)
{
	if (!file->inside && file->raw_at == file->raw_used)
		return 0;
	ZSTD_inBuffer in = { .src = file->raw, .size = file->raw_used, .pos = file->raw_at };
	ZSTD_outBuffer text = { .dst = out, .size = size };
	size_t rc = ZSTD_decompressStream(file->zstd, &text, &in);
	char what[128];

	file->raw_at = in.pos;
	*ret_got = text.pos;
	if (ZSTD_isError(rc)) {
		snprintf(what, sizeof(what), "damaged zstd data (%s)", ZSTD_getErrorName(rc));
		return damaged(file, what, errstr, errstr_size);
	}
	file->inside = rc != 0;
	return 0;
}

/* More content behind text_used, or text_end. 0 or -errno. */
static int fill(struct replay_file *file, char *errstr, size_t errstr_size)
{
	for (;;) {
		size_t got = 0;
		int rc = read_raw(file, errstr, errstr_size);

		if (!rc)
			rc = file->pull(file, file->text + file->text_used, file->text_size - file->text_used, &got, errstr, errstr_size);
		file->text_used += got;
		if (rc == -ENOMEM)
			snprintf(errstr, errstr_size, "%s: out of memory", file->path);
		if (rc || got)
			return rc;
		if (file->raw_at < file->raw_used || !file->raw_end)
			continue;
		if (file->inside)
			return damaged(file, "the compressed data ends too early,", errstr, errstr_size);
		file->text_end = 1;
		return 0;
	}
}

/* Makes room behind text_used: the partial line to the front, a larger buffer when it is full. */
static int make_room(struct replay_file *file, char *errstr, size_t errstr_size)
{
	memmove(file->text, file->text + file->text_at, file->text_used - file->text_at);
	file->text_used -= file->text_at;
	file->text_at = 0;
	if (file->text_used < file->text_size)
		return 0;
	char *larger = realloc(file->text, 2 * file->text_size + DECODE_PADDING);
	if (!larger) {
		snprintf(errstr, errstr_size, "%s: out of memory", file->path);
		return -ENOMEM;
	}
	file->text = larger;
	file->text_size *= 2;
	memset(file->text + file->text_size, 0, DECODE_PADDING);
	return 0;
}

/* Reads past a line that is too long. 0 or -errno. */
static int skip_line(struct replay_file *file, size_t *ret_len, char *errstr, size_t errstr_size)
{
	size_t len = 0;

	for (;;) {
		char *begin = file->text + file->text_at, *newline = memchr(begin, '\n', file->text_used - file->text_at);
		size_t n = newline ? (size_t)(newline - begin) : file->text_used - file->text_at;

		len += n;
		file->text_at += n + (newline != NULL);
		file->offset += (int64_t)n + (newline != NULL);
		if (newline || file->text_end)
			break;
		file->text_at = file->text_used = 0;
		int rc = fill(file, errstr, errstr_size);
		if (rc)
			return rc;
	}
	*ret_len = len;
	return 0;
}

int replay_file_next(struct replay_file *file, struct replay_line *ret_line, char *errstr, size_t errstr_size)
{
	size_t seen = 0; /* bytes of the line known to hold no newline */
	char *newline;
	int rc;

	while (!(newline = memchr(file->text + file->text_at + seen, '\n', file->text_used - file->text_at - seen)) && !file->text_end) {
		seen = file->text_used - file->text_at;
		if (seen > file->line_bytes_max)
			break;
		rc = make_room(file, errstr, errstr_size);
		if (!rc)
			rc = fill(file, errstr, errstr_size);
		if (rc)
			return rc;
	}
	size_t len = newline ? (size_t)(newline - (file->text + file->text_at)) : file->text_used - file->text_at;
	if (!newline && file->text_end && !len)
		return 0;
	struct replay_line line = { .offset = file->offset, .number = file->lines + 1 };
	if (len > file->line_bytes_max) {
		rc = skip_line(file, &line.len, errstr, errstr_size);
		if (rc)
			return rc;
	} else {
		line.text = file->text + file->text_at;
		line.len = len && line.text[len - 1] == '\r' ? len - 1 : len;
		file->text_at += len + (newline != NULL);
		file->offset += (int64_t)len + (newline != NULL);
	}
	file->lines++;
	*ret_line = line;
	return 1;
}

/* Format by the first bytes. */
static int begin(struct replay_file *file, char *errstr, size_t errstr_size)
{
	static const unsigned char gzip_magic[2] = { 0x1f, 0x8b }, zstd_magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };
	int rc = read_raw(file, errstr, errstr_size);

	file->pull = pull_plain;
	if (rc)
		return rc;
	if (file->raw_used >= sizeof(gzip_magic) && !memcmp(file->raw, gzip_magic, sizeof(gzip_magic))) {
		if (inflateInit2(&file->z, 15 + 16) != Z_OK)
			return -ENOMEM;
		file->z_made = 1;
		file->pull = pull_gzip;
	} else if (file->raw_used >= sizeof(zstd_magic) && !memcmp(file->raw, zstd_magic, sizeof(zstd_magic))) {
		file->zstd = ZSTD_createDStream();
		if (!file->zstd)
			return -ENOMEM;
		file->pull = pull_zstd;
	}
	return 0;
}

int replay_file_open(const char *path, size_t line_bytes_max, struct replay_file **ret_file, char *errstr, size_t errstr_size)
{
	struct replay_file *file = calloc(1, sizeof(*file));
	int rc = -ENOMEM;

	if (!file)
		goto fail;
	file->fd = -1;
	file->line_bytes_max = line_bytes_max;
	file->text_size = TEXT_BYTES;
	file->path = strdup(path);
	file->raw = malloc(RAW_BYTES);
	file->text = calloc(1, TEXT_BYTES + DECODE_PADDING);
	if (!file->path || !file->raw || !file->text)
		goto fail;
	file->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (file->fd < 0) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: %s", path, strerror(-rc));
		goto fail;
	}
	(void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	rc = begin(file, errstr, errstr_size);
	if (rc)
		goto fail;
	*ret_file = file;
	return 0;
fail:
	if (rc == -ENOMEM)
		snprintf(errstr, errstr_size, "%s: out of memory", path);
	replay_file_close(file);
	return rc;
}

void replay_file_close(struct replay_file *file)
{
	if (!file)
		return;
	if (file->z_made)
		inflateEnd(&file->z);
	ZSTD_freeDStream(file->zstd);
	if (file->fd >= 0)
		close(file->fd);
	free(file->text);
	free(file->raw);
	free(file->path);
	free(file);
}

uint64_t replay_file_read_bytes(const struct replay_file *file)
{
	return file->raw_total;
}

int replay_file_content_id(const char *path, uint64_t *ret_id, char *errstr, size_t errstr_size)
{
	struct replay_file *file = NULL;
	int rc = replay_file_open(path, 1, &file, errstr, errstr_size);

	if (rc)
		return rc;
	while (!rc && !file->text_end && file->text_used < REPLAY_CONTENT_ID_BYTES)
		rc = fill(file, errstr, errstr_size);
	if (!rc) {
		size_t n = file->text_used < REPLAY_CONTENT_ID_BYTES ? file->text_used : REPLAY_CONTENT_ID_BYTES;

		*ret_id = replay_hash(REPLAY_HASH_BEGIN, file->text, n);
	}
	replay_file_close(file);
	return rc;
}
