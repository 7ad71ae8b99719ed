/*
 * torch_emit.c: the bytes around the tensors of a written PyTorch file: pickle opcodes, zip headers, the zip's directory. What each byte may be is checked
 * again by torch_zip.c when the file is read; the two pages must agree.
 *
 * Runs on the writer's thread; touches memory only. emit_bytes belongs to the caller.
 */
#include "trainer/model/torch_emit.h"

#include <errno.h>
#include <stdlib.h>

#define DATE_1980_01_01 0x21 /* the same input gives the same file */

void emit_put(struct emit_bytes *out, const void *data, size_t len)
{
	if (out->error)
		return;
	if (len > TORCH_READ_PICKLE_MAX - out->len) {
		out->error = -E2BIG;
		return;
	}
	if (len > out->size - out->len) {
		size_t wanted = (out->len + len) * 2;
		unsigned char *grown = realloc(out->data, wanted);
		if (!grown) {
			out->error = -ENOMEM;
			return;
		}
		out->data = grown;
		out->size = wanted;
	}
	if (len)
		memcpy(out->data + out->len, data, len);
	out->len += len;
}

void emit_text(struct emit_bytes *out, const char *text) { emit_put(out, text, strlen(text)); }

void emit_string(struct emit_bytes *out, const char *text)
{
	unsigned char op[5] = {'X'};
	size_t len = strlen(text);
	le32_put(op + 1, (uint32_t)len);
	emit_put(out, op, sizeof op);
	emit_put(out, text, len);
}

void emit_int(struct emit_bytes *out, int64_t value)
{
	unsigned char op[10];
	size_t len;
	if (value >= 0 && value < 256) {
		op[0] = 'K';
		op[1] = (unsigned char)value;
		len = 2;
	} else if (value >= INT32_MIN && value <= INT32_MAX) {
		op[0] = 'J';
		le32_put(op + 1, (uint32_t)value);
		len = 5;
	} else {
		op[0] = 0x8a; /* LONG1: eight bytes, two's complement */
		op[1] = 8;
		le64_put(op + 2, (uint64_t)value);
		len = 10;
	}
	emit_put(out, op, len);
}

/* ---- zip ---- */

size_t emit_local_bytes(const struct emit_record *record) { return ZIP_LOCAL_BYTES + strlen(record->name) + (record->wide ? 20 : 0) + 4; }

size_t emit_central_bytes(const struct emit_record *record)
{
	size_t extra = (record->wide ? 16u : 0u) + (record->far ? 8u : 0u);
	return ZIP_CENTRAL_BYTES + strlen(record->name) + (extra ? extra + 4 : 0);
}

size_t emit_local(const struct emit_record *record, unsigned char *header)
{
	size_t name_len = strlen(record->name), len = (size_t)(record->payload_offset - record->header_offset);
	uint32_t size = record->wide ? ZIP_LIMIT32 : (uint32_t)record->size;
	memset(header, 0, len);
	le32_put(header, ZIP_LOCAL_SIGNATURE);
	le16_put(header + 4, record->wide ? 45 : 20);
	le16_put(header + 6, ZIP_FLAG_UTF8);
	le16_put(header + 12, DATE_1980_01_01);
	le32_put(header + 14, record->crc);
	le32_put(header + 18, size);
	le32_put(header + 22, size);
	le16_put(header + 26, (uint16_t)name_len);
	le16_put(header + 28, (uint16_t)(len - ZIP_LOCAL_BYTES - name_len));
	memcpy(header + ZIP_LOCAL_BYTES, record->name, name_len);
	unsigned char *p = header + ZIP_LOCAL_BYTES + name_len;
	if (record->wide) {
		le16_put(p, ZIP_EXTRA_ZIP64);
		le16_put(p + 2, 16);
		le64_put(p + 4, record->size);
		le64_put(p + 12, record->size);
		p += 20;
	}
	size_t padding = len - (size_t)(p - header) - 4;
	le16_put(p, ZIP_EXTRA_PADDING);
	le16_put(p + 2, (uint16_t)padding);
	memset(p + 4, 'Z', padding);
	return len;
}

void emit_central(const struct emit_record *record, struct emit_bytes *out)
{
	unsigned char header[ZIP_CENTRAL_BYTES] = {0}, extra[4 + 24];
	uint32_t size = record->wide ? ZIP_LIMIT32 : (uint32_t)record->size;
	size_t n = 4;
	if (record->wide) {
		le64_put(extra + n, record->size);
		le64_put(extra + n + 8, record->size);
		n += 16;
	}
	if (record->far) {
		le64_put(extra + n, record->header_offset);
		n += 8;
	}
	le16_put(extra, ZIP_EXTRA_ZIP64);
	le16_put(extra + 2, (uint16_t)(n - 4));
	le32_put(header, ZIP_CENTRAL_SIGNATURE);
	le16_put(header + 4, 45);
	le16_put(header + 6, record->wide || record->far ? 45 : 20);
	le16_put(header + 8, ZIP_FLAG_UTF8);
	le16_put(header + 14, DATE_1980_01_01);
	le32_put(header + 16, record->crc);
	le32_put(header + 20, size);
	le32_put(header + 24, size);
	le16_put(header + 28, (uint16_t)strlen(record->name));
	le16_put(header + 30, (uint16_t)(n > 4 ? n : 0));
	le32_put(header + 42, record->far ? ZIP_LIMIT32 : (uint32_t)record->header_offset);
	emit_put(out, header, sizeof header);
	emit_text(out, record->name);
	emit_put(out, extra, n > 4 ? n : 0);
}

void emit_end(uint64_t n_records, uint64_t central_offset, uint64_t central_bytes, struct emit_bytes *out)
{
	unsigned char end[ZIP_END64_BYTES + ZIP_LOCATOR_BYTES + ZIP_END_BYTES] = {0};
	le32_put(end, ZIP_END64_SIGNATURE);
	le64_put(end + 4, ZIP_END64_BYTES - 12);
	le16_put(end + 12, 45);
	le16_put(end + 14, 45);
	le64_put(end + 24, n_records);
	le64_put(end + 32, n_records);
	le64_put(end + 40, central_bytes);
	le64_put(end + 48, central_offset);
	unsigned char *locator = end + ZIP_END64_BYTES, *old = locator + ZIP_LOCATOR_BYTES;
	le32_put(locator, ZIP_LOCATOR_SIGNATURE);
	le64_put(locator + 8, central_offset + central_bytes);
	le32_put(locator + 16, 1);
	le32_put(old, ZIP_END_SIGNATURE);
	le16_put(old + 8, (uint16_t)n_records); /* the writer has at most TORCH_ENTRIES_MAX + 3 */
	le16_put(old + 10, (uint16_t)n_records);
	le32_put(old + 12, (uint32_t)central_bytes);
	le32_put(old + 16, central_offset < ZIP_LIMIT32 ? (uint32_t)central_offset : ZIP_LIMIT32);
	emit_put(out, end, sizeof end);
}
