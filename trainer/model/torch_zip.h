/*
 * torch_zip.h: shared inside the PyTorch file code, not for others: the zip's numbers, its index as the reader sees it, the restricted unpickler, and
 * error texts.
 */
#ifndef TRAINER_MODEL_TORCH_ZIP_H
#define TRAINER_MODEL_TORCH_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "trainer/model/torch_file.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file's little-endian fields are copied as they are"
#endif

#define ZIP_LOCAL_SIGNATURE 0x04034b50u
#define ZIP_CENTRAL_SIGNATURE 0x02014b50u
#define ZIP_END_SIGNATURE 0x06054b50u
#define ZIP_END64_SIGNATURE 0x06064b50u
#define ZIP_LOCATOR_SIGNATURE 0x07064b50u
#define ZIP_DESCRIPTOR_SIGNATURE 0x08074b50u
enum {
	ZIP_LOCAL_BYTES = 30,
	ZIP_CENTRAL_BYTES = 46,
	ZIP_END_BYTES = 22,
	ZIP_END64_BYTES = 56,
	ZIP_LOCATOR_BYTES = 20,
	ZIP_EXTRA_ZIP64 = 1,
	ZIP_EXTRA_PADDING = 0x4246, /* "FB" */
	ZIP_FLAG_DESCRIPTOR = 8,
	ZIP_FLAG_UTF8 = 0x800,
	ZIP_ALIGNMENT = 64,
};
#define ZIP_LIMIT32 0xffffffffu
#define ZIP_LIMIT16 0xffffu

static inline uint16_t le16_get(const unsigned char *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline uint32_t le32_get(const unsigned char *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline uint64_t le64_get(const unsigned char *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return v;
}
static inline void le16_put(unsigned char *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static inline void le32_put(unsigned char *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static inline void le64_put(unsigned char *p, uint64_t v) { memcpy(p, &v, sizeof v); }

/* The zip's CRC-32, continued from `crc` (0 at first). ISA-L's when built with it (HAVE_ISAL), else zlib's. */
uint32_t torch_crc32(uint32_t crc, const void *data, size_t len);

/* Writes the text when there is room for one, and returns -err: `return torch_fail(EBADMSG, errstr, errstr_size, "...")`. */
__attribute__((format(printf, 4, 5))) int torch_fail(int err, char *errstr, size_t errstr_size, const char *format, ...);

/* Copies up to `len` bytes to out (out_size > 0, always NUL-terminated), with NUL, control characters and bytes that are not UTF-8 as \xNN. */
void torch_escape(char *out, size_t out_size, const char *text, size_t len);

/* Length of the UTF-8 sequence at `text` (1 to 4), 0 when it is not one. Surrogates and overlong forms are not. */
size_t torch_utf8_length(const char *text, size_t len);

/* ---- the zip's index (torch_zip.c) ---- */

struct zip_record {
	const char *name; /* in zip_index.central, not NUL-terminated */
	uint16_t name_len;
	uint16_t flags;
	uint16_t time;
	uint16_t date;
	uint32_t crc;
	uint64_t header_offset;
	uint64_t data_offset;
	uint64_t size;
};

struct zip_index {
	int fd;                     /* the caller's */
	uint64_t file_bytes;
	unsigned char *central;     /* the central directory as read */
	struct zip_record *records; /* in file order */
	uint32_t *by_name;          /* record numbers sorted by name */
	size_t n_records;
	const char *prefix;         /* "archive/": what stands before "data.pkl" in the first record's name */
	size_t prefix_len;
};

/*
 * Reads and checks the whole structure: every byte outside the payloads must be what torch.save or torch_writer would have put there, and records,
 * central directory and end must tile the file. Payloads are not read: see zip_index_check_crc(). On failure nothing is held.
 */
int zip_index_read(int fd, uint64_t file_bytes, struct zip_index *ret_index, char *errstr, size_t errstr_size);
void zip_index_free(struct zip_index *index);

/* Streams every payload and compares its CRC. */
int zip_index_check_crc(const struct zip_index *index, char *errstr, size_t errstr_size);

/* The record "<prefix><name>", or NULL. */
const struct zip_record *zip_index_find(const struct zip_index *index, const char *name, size_t name_len);

/* pread of exactly len bytes; -EIO when the file ends before. */
int zip_read(int fd, uint64_t offset, void *buffer, size_t len);

/* ---- the restricted unpickler (torch_pickle.c) ---- */

enum pickle_kind { PICKLE_INT, PICKLE_STRING, PICKLE_TENSOR, PICKLE_OTHER };

struct pickle_entry {
	enum pickle_kind kind;
	uint32_t key_offset; /* of the name, in the pickle's bytes */
	uint32_t key_len;
	uint32_t string_offset;
	uint32_t string_len;
	int64_t integer;
	uint32_t tensor; /* index in pickle_dict.tensors */
};

struct pickle_tensor {
	uint32_t storage; /* index in pickle_dict.storages */
	uint32_t n_dims;  /* sizes and strides hold the first TORCH_DIMS_MAX */
	int64_t offset;   /* elements */
	int64_t sizes[TORCH_DIMS_MAX];
	int64_t strides[TORCH_DIMS_MAX];
	bool has_metadata; /* a seventh argument: flags that change what the bytes mean */
};

struct pickle_storage {
	const char *type_name; /* "float32", "float64" ... */
	int dtype;             /* enum torch_dtype, or -1: one that recd does not use */
	uint32_t element_bytes;
	uint32_t key_offset; /* the record's name is "data/<key>"; digits only */
	uint32_t key_len;
	int64_t n_elements;
};

struct pickle_dict {
	struct pickle_entry *entries;
	size_t n_entries, entries_size;
	struct pickle_tensor *tensors;
	size_t n_tensors, tensors_size;
	struct pickle_storage *storages;
	size_t n_storages, storages_size;
};

/* Runs the pickle's few allowed opcodes and keeps what the outermost dict holds under string keys. On failure nothing is held. */
int pickle_read(const unsigned char *pickle, size_t len, struct pickle_dict *ret_dict, char *errstr, size_t errstr_size);
void pickle_dict_free(struct pickle_dict *dict);

/* ---- the writer, for tests ---- */

/*
 * Writes zip64 fields for sizes and header offsets from these on instead of 0xffffffff, so that a test needs no 4 GiB file. Before torch_writer_begin().
 * (torch 1.13 takes such sizes in a small file, but not such offsets.)
 */
void torch_writer_zip64_from(struct torch_writer *writer, uint64_t size, uint64_t offset);

#endif
