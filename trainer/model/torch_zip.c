/*
 * torch_zip.c: the zip around a PyTorch file, as the reader needs it: which records there are, where their bytes lie, and whether all of it is whole.
 *
 * Nothing is trusted. The file must be tiled without a gap by [local header, payload, descriptor] of each record, the central directory and the end
 * records, and each byte of those must have the one value that torch.save or torch_writer would have written: so a flipped bit is found anywhere, also where
 * no CRC covers it. Sizes are compared with the file before anything is allocated. All reads are pread, so a failing disk is an error code.
 *
 * Runs on the caller's thread. zip_index owns the copy of the central directory and its tables; the descriptor stays the caller's.
 */
#include "trainer/model/torch_zip.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef HAVE_ISAL
#include <isa-l/crc.h>
#else
#include <zlib.h>
#endif

uint32_t torch_crc32(uint32_t crc, const void *data, size_t len)
{
#ifdef HAVE_ISAL
	return crc32_gzip_refl(crc, data, len);
#else
	return (uint32_t)crc32_z(crc, data, len);
#endif
}

int torch_fail(int err, char *errstr, size_t errstr_size, const char *format, ...)
{
	if (errstr && errstr_size) {
		va_list args;
		va_start(args, format);
		(void)vsnprintf(errstr, errstr_size, format, args);
		va_end(args);
	}
	return -err;
}

size_t torch_utf8_length(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	if (!len)
		return 0;
	if (p[0] < 0x80)
		return 1;
	size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (p[0] < 0xc2 || p[0] > 0xf4 || len < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

void torch_escape(char *out, size_t out_size, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	size_t o = 0;
	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)text[i];
		size_t n = torch_utf8_length(text + i, len - i);
		bool c1_control = n == 2 && c == 0xc2 && (unsigned char)text[i + 1] < 0xa0;
		bool plain = n && c >= 0x20 && c != 0x7f && c != '\\' && !c1_control;
		size_t need = plain ? n : 4;
		if (o + need >= out_size)
			break;
		if (plain) {
			memcpy(out + o, text + i, n);
			i += n;
		} else {
			out[o] = '\\';
			out[o + 1] = 'x';
			out[o + 2] = hex[c >> 4];
			out[o + 3] = hex[c & 15];
			i++;
		}
		o += need;
	}
	out[o] = 0;
}

int zip_read(int fd, uint64_t offset, void *buffer, size_t len)
{
	unsigned char *p = buffer;
	while (len) {
		size_t chunk = len > (1u << 30) ? (1u << 30) : len;
		ssize_t n = pread(fd, p, chunk, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

#define CHUNK_BYTES_MAX ((size_t)1 << 20)
#define DAMAGED(...) torch_fail(EBADMSG, errstr, errstr_size, __VA_ARGS__)

static int read_failed(int r, const char *what, char *errstr, size_t errstr_size)
{
	return torch_fail(-r, errstr, errstr_size, "read %s: %s", what, strerrordesc_np(-r));
}

static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- the end of the file: how many records, where the central directory is ---- */

struct zip_end {
	uint64_t n_records;
	uint64_t central_bytes;
	uint64_t central_offset;
};

/* Takes the zip64 end record and its locator, which stand right before the end record when they exist. `tail` holds all three. */
static int read_end64(const unsigned char *end64, uint64_t end64_offset, const unsigned char *locator, struct zip_end *end, char *errstr,
		      size_t errstr_size)
{
	uint16_t made_by = le16_get(end64 + 12);
	if (le32_get(end64) != ZIP_END64_SIGNATURE || le64_get(end64 + 4) != ZIP_END64_BYTES - 12 || (made_by != 45 && made_by != 0x031e) ||
	    le16_get(end64 + 14) != 45 || le32_get(end64 + 16) || le32_get(end64 + 20) || le64_get(end64 + 24) != le64_get(end64 + 32))
		return DAMAGED("zip64 end record is damaged");
	if (le32_get(locator + 4) || le64_get(locator + 8) != end64_offset || le32_get(locator + 16) != 1)
		return DAMAGED("zip64 locator is damaged");
	end->n_records = le64_get(end64 + 32);
	end->central_bytes = le64_get(end64 + 40);
	end->central_offset = le64_get(end64 + 48);
	return 0;
}

static int read_end(int fd, uint64_t file_bytes, struct zip_end *ret_end, char *errstr, size_t errstr_size)
{
	unsigned char tail[ZIP_END64_BYTES + ZIP_LOCATOR_BYTES + ZIP_END_BYTES] = {0};
	size_t n = (size_t)min64(file_bytes, sizeof tail);
	if (file_bytes < ZIP_END_BYTES || file_bytes > INT64_MAX)
		return DAMAGED("not a PyTorch file: %llu bytes", (unsigned long long)file_bytes);
	int r = zip_read(fd, file_bytes - n, tail + sizeof tail - n, n);
	if (r < 0)
		return read_failed(r, "the end of the file", errstr, errstr_size);
	const unsigned char *end = tail + sizeof tail - ZIP_END_BYTES;
	if (le32_get(end) != ZIP_END_SIGNATURE)
		return DAMAGED("not a PyTorch file, or cut short: no zip end record at its end");
	if (le32_get(end + 4) || le16_get(end + 8) != le16_get(end + 10) || le16_get(end + 20))
		return DAMAGED("zip end record is damaged");
	struct zip_end e = {le16_get(end + 10), le32_get(end + 12), le32_get(end + 16)};
	uint64_t end_offset = file_bytes - ZIP_END_BYTES;
	const unsigned char *locator = end - ZIP_LOCATOR_BYTES;
	if (le32_get(locator) == ZIP_LOCATOR_SIGNATURE) {
		if (n < sizeof tail)
			return DAMAGED("zip64 end record is damaged");
		end_offset -= ZIP_LOCATOR_BYTES + ZIP_END64_BYTES;
		r = read_end64(tail, end_offset, locator, &e, errstr, errstr_size);
		if (r < 0)
			return r;
		if (le16_get(end + 10) != min64(e.n_records, ZIP_LIMIT16) || le32_get(end + 12) != min64(e.central_bytes, ZIP_LIMIT32) ||
		    le32_get(end + 16) != min64(e.central_offset, ZIP_LIMIT32))
			return DAMAGED("zip end record is damaged");
	}
	if (e.central_offset > end_offset || e.central_bytes != end_offset - e.central_offset)
		return DAMAGED("zip central directory does not end at the end record");
	if (!e.n_records || e.n_records > e.central_bytes / ZIP_CENTRAL_BYTES)
		return DAMAGED("zip central directory cannot hold %llu records", (unsigned long long)e.n_records);
	if (e.n_records > TORCH_READ_RECORDS_MAX || e.central_bytes > TORCH_READ_PICKLE_MAX)
		return torch_fail(EFBIG, errstr, errstr_size, "zip with %llu records and a central directory of %llu bytes: above the limit",
				  (unsigned long long)e.n_records, (unsigned long long)e.central_bytes);
	*ret_end = e;
	return 0;
}

/* ---- the central directory ---- */

/* One entry at p, of at most `left` bytes. Returns its length or -errno. */
static int parse_central(const unsigned char *p, size_t left, struct zip_record *record, char *errstr, size_t errstr_size)
{
	if (left < ZIP_CENTRAL_BYTES || le32_get(p) != ZIP_CENTRAL_SIGNATURE)
		return DAMAGED("zip central directory is damaged");
	uint16_t made_by = le16_get(p + 4), needed = le16_get(p + 6), extra_len = le16_get(p + 30);
	struct zip_record e = {.flags = le16_get(p + 8), .time = le16_get(p + 12), .date = le16_get(p + 14), .crc = le32_get(p + 16),
			       .name_len = le16_get(p + 28), .name = (const char *)p + ZIP_CENTRAL_BYTES};
	uint64_t packed = le32_get(p + 20), size = le32_get(p + 24), offset = le32_get(p + 42);
	size_t len = (size_t)ZIP_CENTRAL_BYTES + e.name_len + extra_len;
	if (le16_get(p + 10))
		return torch_fail(ENOTSUP, errstr, errstr_size, "zip record is compressed: only stored ones are read");
	if ((made_by != 0 && made_by != 20 && made_by != 45) || (needed != 0 && needed != 20 && needed != 45) ||
	    (e.flags & ~(ZIP_FLAG_DESCRIPTOR | ZIP_FLAG_UTF8)) || le32_get(p + 32) || le16_get(p + 36) || le32_get(p + 38) || len > left || !e.name_len)
		return DAMAGED("zip central directory is damaged");
	const unsigned char *extra = p + ZIP_CENTRAL_BYTES + e.name_len;
	unsigned wide = (unsigned)(size == ZIP_LIMIT32) + (unsigned)(packed == ZIP_LIMIT32) + (unsigned)(offset == ZIP_LIMIT32);
	if (extra_len != (wide ? 4 + 8 * wide : 0) || (wide && (le16_get(extra) != ZIP_EXTRA_ZIP64 || le16_get(extra + 2) != 8 * wide)))
		return DAMAGED("zip central directory: bad extra field");
	extra += 4;
	if (size == ZIP_LIMIT32) {
		size = le64_get(extra);
		extra += 8;
	}
	if (packed == ZIP_LIMIT32) {
		packed = le64_get(extra);
		extra += 8;
	}
	if (offset == ZIP_LIMIT32)
		offset = le64_get(extra);
	if (packed != size)
		return DAMAGED("zip record: stored size differs from its size");
	e.size = size;
	e.header_offset = offset;
	*record = e;
	return (int)len;
}

static int compare_offset(const void *a, const void *b)
{
	const struct zip_record *x = a, *y = b;
	return (x->header_offset > y->header_offset) - (x->header_offset < y->header_offset);
}

static int compare_name(const void *a, const void *b, void *context)
{
	const struct zip_record *records = context, *x = &records[*(const uint32_t *)a], *y = &records[*(const uint32_t *)b];
	int c = memcmp(x->name, y->name, x->name_len < y->name_len ? x->name_len : y->name_len);
	return c ? c : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

static int read_central(struct zip_index *index, const struct zip_end *end, char *errstr, size_t errstr_size)
{
	index->central = malloc((size_t)end->central_bytes);
	index->records = calloc((size_t)end->n_records, sizeof *index->records);
	index->by_name = calloc((size_t)end->n_records, sizeof *index->by_name);
	if (!index->central || !index->records || !index->by_name)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory for the zip's directory");
	int r = zip_read(index->fd, end->central_offset, index->central, (size_t)end->central_bytes);
	if (r < 0)
		return read_failed(r, "the zip's directory", errstr, errstr_size);
	size_t at = 0, bytes = (size_t)end->central_bytes;
	for (; index->n_records < end->n_records; index->n_records++) {
		r = parse_central(index->central + at, bytes - at, &index->records[index->n_records], errstr, errstr_size);
		if (r < 0)
			return r;
		index->by_name[index->n_records] = (uint32_t)index->n_records;
		at += (size_t)r;
	}
	if (at != bytes)
		return DAMAGED("zip central directory has bytes after its last record");
	return 0;
}

/* The first record must be "<prefix>data.pkl", as torch itself expects; the others stand under the same prefix, each name once. */
static int check_names(struct zip_index *index, char *errstr, size_t errstr_size)
{
	static const char pickle[] = "/data.pkl";
	const size_t len = sizeof pickle - 1;
	const struct zip_record *first = &index->records[0];
	if (first->name_len <= len || memcmp(first->name + first->name_len - len, pickle, len) != 0 ||
	    memchr(first->name, '/', first->name_len - len) != NULL)
		return DAMAGED("not a PyTorch file: its first record is not data.pkl");
	index->prefix = first->name;
	index->prefix_len = first->name_len - len + 1;
	for (size_t i = 0; i < index->n_records; i++) {
		const struct zip_record *e = &index->records[i];
		if (e->name_len <= index->prefix_len || memcmp(e->name, index->prefix, index->prefix_len) != 0)
			return DAMAGED("zip record outside the archive's folder");
	}
	return 0;
}

static int sort_names(struct zip_index *index, char *errstr, size_t errstr_size)
{
	qsort_r(index->by_name, index->n_records, sizeof *index->by_name, compare_name, index->records);
	for (size_t i = 1; i < index->n_records; i++)
		if (compare_name(&index->by_name[i - 1], &index->by_name[i], index->records) == 0)
			return DAMAGED("two zip records have one name");
	return 0;
}

/* ---- local headers ---- */

/*
 * A zip64 extra field: the two sizes, or the header's offset, or all three, as torch.save writes them. With a descriptor the sizes may not have been
 * known yet: 0.
 */
static bool zip64_extra_ok(const unsigned char *p, size_t len, const struct zip_record *e)
{
	bool late = e->flags & ZIP_FLAG_DESCRIPTOR;
	if (len == 8)
		return (late || !e->size) && le64_get(p) == e->header_offset;
	if (len != 16 && (len != 24 || le64_get(p + 16) != e->header_offset))
		return false;
	uint64_t size = le64_get(p), packed = le64_get(p + 8);
	return (size == e->size || (late && !size)) && (packed == e->size || (late && !packed));
}

/* Extra fields of a local header: at most one zip64 field (*ret_zip64: its length), then the padding that aligns the payload. */
static bool extra_ok(const unsigned char *p, size_t len, const struct zip_record *e, size_t *ret_zip64)
{
	*ret_zip64 = 0;
	if (len >= 4 && le16_get(p) == ZIP_EXTRA_ZIP64) {
		size_t n = le16_get(p + 2);
		if (n > len - 4 || !zip64_extra_ok(p + 4, n, e))
			return false;
		*ret_zip64 = n;
		p += 4 + n;
		len -= 4 + n;
	}
	if (!len)
		return true;
	if (len < 4 || le16_get(p) != ZIP_EXTRA_PADDING || le16_get(p + 2) != len - 4)
		return false;
	for (size_t i = 4; i < len; i++)
		if (p[i] != 'Z')
			return false;
	return true;
}

/* CRC and sizes of a local header. With a descriptor they are 0 there. */
static bool local_sizes_ok(const unsigned char *header, const struct zip_record *e, size_t zip64)
{
	uint32_t crc = le32_get(header + 14), packed = le32_get(header + 18), size = le32_get(header + 22);
	if (e->flags & ZIP_FLAG_DESCRIPTOR)
		return !crc && packed == size && (size == 0 || (zip64 >= 16 && size == ZIP_LIMIT32));
	uint64_t expected = zip64 >= 16 ? ZIP_LIMIT32 : e->size;
	return crc == e->crc && size == expected && packed == expected;
}

/* The descriptor behind a payload, where there is one. Returns its length or -errno. */
static int check_descriptor(const struct zip_index *index, const struct zip_record *e, size_t zip64, uint64_t offset, uint64_t limit, const char *name,
			    char *errstr, size_t errstr_size)
{
	if (!(e->flags & ZIP_FLAG_DESCRIPTOR))
		return 0;
	unsigned char d[24];
	size_t n = zip64 ? 24 : 16;
	if (limit - offset < n)
		return DAMAGED("zip record %s: no room for its descriptor", name);
	int r = zip_read(index->fd, offset, d, n);
	if (r < 0)
		return read_failed(r, name, errstr, errstr_size);
	uint64_t packed = zip64 ? le64_get(d + 8) : le32_get(d + 8), size = zip64 ? le64_get(d + 16) : le32_get(d + 12);
	if (le32_get(d) != ZIP_DESCRIPTOR_SIGNATURE || le32_get(d + 4) != e->crc || packed != e->size || size != e->size)
		return DAMAGED("zip record %s: descriptor differs from the directory", name);
	return (int)n;
}

/* Name and extra fields of a local header, `len` bytes at `offset`. */
static int check_local_name(const struct zip_index *index, const struct zip_record *e, uint64_t offset, size_t len, const char *name, size_t *ret_zip64,
			    char *errstr, size_t errstr_size)
{
	unsigned char few[512], *bytes = len <= sizeof few ? few : malloc(len); /* at most 128 KiB */
	if (!bytes)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory for the zip's headers");
	int r = zip_read(index->fd, offset, bytes, len);
	if (r < 0)
		(void)read_failed(r, name, errstr, errstr_size);
	else if (memcmp(bytes, e->name, e->name_len) != 0 || !extra_ok(bytes + e->name_len, len - e->name_len, e, ret_zip64))
		r = DAMAGED("zip record %s: name or extra field is damaged", name);
	if (bytes != few)
		free(bytes);
	return r;
}

/* Checks the local header that must stand at `offset` and what follows the payload; *ret_next is where the record ends. */
static int check_local(const struct zip_index *index, struct zip_record *e, uint64_t offset, uint64_t limit, uint64_t *ret_next, char *errstr,
		       size_t errstr_size)
{
	char name[96];
	unsigned char header[ZIP_LOCAL_BYTES];
	torch_escape(name, sizeof name, e->name, e->name_len);
	if (e->header_offset != offset || limit - offset < ZIP_LOCAL_BYTES)
		return DAMAGED("zip record %s does not follow the one before", name);
	int r = zip_read(index->fd, offset, header, ZIP_LOCAL_BYTES);
	if (r < 0)
		return read_failed(r, name, errstr, errstr_size);
	uint16_t needed = le16_get(header + 4), extra_len = le16_get(header + 28);
	if (le32_get(header) != ZIP_LOCAL_SIGNATURE || (needed != 0 && needed != 20 && needed != 45) || le16_get(header + 6) != e->flags ||
	    le16_get(header + 8) || le16_get(header + 10) != e->time || le16_get(header + 12) != e->date || le16_get(header + 26) != e->name_len)
		return DAMAGED("zip record %s: local header differs from the directory", name);
	size_t names_len = (size_t)e->name_len + extra_len, zip64 = 0;
	uint64_t payload = offset + ZIP_LOCAL_BYTES + names_len; /* no overflow: offset < 2^63, names_len < 2^17 */
	if (payload > limit || e->size > limit - payload)
		return DAMAGED("zip record %s goes beyond the file", name);
	r = check_local_name(index, e, offset + ZIP_LOCAL_BYTES, names_len, name, &zip64, errstr, errstr_size);
	if (r < 0)
		return r;
	if (!local_sizes_ok(header, e, zip64))
		return DAMAGED("zip record %s: local header differs from the directory", name);
	r = check_descriptor(index, e, zip64, payload + e->size, limit, name, errstr, errstr_size);
	if (r < 0)
		return r;
	e->data_offset = payload;
	*ret_next = payload + e->size + (uint64_t)r;
	return 0;
}

static int check_locals(struct zip_index *index, uint64_t central_offset, char *errstr, size_t errstr_size)
{
	uint64_t at = 0;
	for (size_t i = 0; i < index->n_records; i++) {
		int r = check_local(index, &index->records[i], at, central_offset, &at, errstr, errstr_size);
		if (r < 0)
			return r;
	}
	if (at != central_offset)
		return DAMAGED("zip has bytes between its last record and its directory");
	return 0;
}

int zip_index_read(int fd, uint64_t file_bytes, struct zip_index *ret_index, char *errstr, size_t errstr_size)
{
	struct zip_index index = {.fd = fd, .file_bytes = file_bytes};
	struct zip_end end = {0};
	int r = read_end(fd, file_bytes, &end, errstr, errstr_size);
	if (!r)
		r = read_central(&index, &end, errstr, errstr_size);
	if (!r)
		r = check_names(&index, errstr, errstr_size);
	if (!r) {
		qsort(index.records, index.n_records, sizeof *index.records, compare_offset);
		r = sort_names(&index, errstr, errstr_size);
	}
	if (!r)
		r = check_locals(&index, end.central_offset, errstr, errstr_size);
	if (r < 0) {
		zip_index_free(&index);
		return r;
	}
	*ret_index = index;
	return 0;
}

void zip_index_free(struct zip_index *index)
{
	free(index->central);
	free(index->records);
	free(index->by_name);
	index->central = NULL;
	index->records = NULL;
	index->by_name = NULL;
	index->n_records = 0;
}

int zip_index_check_crc(const struct zip_index *index, char *errstr, size_t errstr_size)
{
	uint64_t largest = 1;
	for (size_t i = 0; i < index->n_records; i++)
		largest = index->records[i].size > largest ? index->records[i].size : largest;
	const size_t chunk_bytes = (size_t)min64(CHUNK_BYTES_MAX, largest);
	unsigned char *chunk = malloc(chunk_bytes);
	if (!chunk)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory to read the file");
	int r = 0;
	for (size_t i = 0; !r && i < index->n_records; i++) {
		const struct zip_record *e = &index->records[i];
		char name[96];
		torch_escape(name, sizeof name, e->name, e->name_len);
		uint32_t crc = 0;
		for (uint64_t done = 0; !r && done < e->size;) {
			size_t n = (size_t)min64(chunk_bytes, e->size - done);
			r = zip_read(index->fd, e->data_offset + done, chunk, n);
			if (r < 0) {
				read_failed(r, name, errstr, errstr_size);
				break;
			}
			crc = torch_crc32(crc, chunk, n);
			done += n;
		}
		if (!r && crc != e->crc)
			r = DAMAGED("zip record %s: its CRC is wrong", name);
	}
	free(chunk);
	return r;
}

const struct zip_record *zip_index_find(const struct zip_index *index, const char *name, size_t name_len)
{
	size_t low = 0, high = index->n_records;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct zip_record *e = &index->records[index->by_name[middle]];
		const char *rest = e->name + index->prefix_len;
		size_t rest_len = e->name_len - index->prefix_len;
		int c = memcmp(rest, name, rest_len < name_len ? rest_len : name_len);
		if (!c)
			c = (rest_len > name_len) - (rest_len < name_len);
		if (!c)
			return e;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
