/*
 * torch_emit.h: shared inside the PyTorch file code: the bytes that the writer puts around the tensors. Pure functions into memory; no file is touched.
 */
#ifndef TRAINER_MODEL_TORCH_EMIT_H
#define TRAINER_MODEL_TORCH_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/model/torch_zip.h"

/* Bytes that grow: the pickle, the central directory. `error` is 0 or the first failure: -ENOMEM, -E2BIG above TORCH_READ_PICKLE_MAX. free(data). */
struct emit_bytes {
	unsigned char *data;
	size_t len, size;
	int error;
};

void emit_put(struct emit_bytes *out, const void *data, size_t len);
void emit_text(struct emit_bytes *out, const char *text);

/* Pickle protocol 2 opcodes: BINUNICODE; BININT1, BININT or LONG1. */
void emit_string(struct emit_bytes *out, const char *text);
void emit_int(struct emit_bytes *out, int64_t value);

/* A zip record being written. */
struct emit_record {
	char name[32];
	uint64_t header_offset, payload_offset, size;
	uint32_t crc;
	bool wide; /* the size stands in a zip64 field */
	bool far;  /* the header's offset does */
};

#define EMIT_LOCAL_BYTES_MAX (ZIP_LOCAL_BYTES + 32 + 20 + 4 + ZIP_ALIGNMENT)

/* Bytes of the local header without padding, and of the central directory's entry. */
size_t emit_local_bytes(const struct emit_record *record);
size_t emit_central_bytes(const struct emit_record *record);

/* The local header with its padding up to payload_offset into `header` (EMIT_LOCAL_BYTES_MAX). Returns its length. */
size_t emit_local(const struct emit_record *record, unsigned char *header);

void emit_central(const struct emit_record *record, struct emit_bytes *out);

/* The three end records, as torch.save writes them: zip64's two always, then the old one with what fits. */
void emit_end(uint64_t n_records, uint64_t central_offset, uint64_t central_bytes, struct emit_bytes *out);

#endif
