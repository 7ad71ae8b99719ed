/*
 * torch_file.h: reading and writing PyTorch files (.pt) without Python: a stored zip of raw little-endian tensors and one pickle that says what they
 * are. docs/FORMATS.md says what recd puts in; the layout is in torch_writer.c and torch_emit.c.
 *
 * What is written: one dict, in the order it was declared, of tensors (float32, int64, int32, uint8; 0 to 2 dimensions), ints and strings.
 * `torch.load(path, weights_only=True)` gives a plain dict in torch 1.13 and 2.x, `mmap=True` works (payloads begin at multiples of 64 bytes). Floats are
 * stored as strings, because torch 1.13 refuses a float under weights_only.
 *
 * What is read: the same, and what torch.save wrote from a dict or a state_dict. The reader runs no code from the file: a pickle opcode, a
 * global or a call outside the tensor subset makes the file refused. Memory is bounded whatever the file says.
 *
 * Threads: a writer or a reader belongs to one thread at a time. Nothing here logs. Errors: 0 or -errno, with the failing step in errstr.
 */
#ifndef TRAINER_MODEL_TORCH_FILE_H
#define TRAINER_MODEL_TORCH_FILE_H

#include <stddef.h>
#include <stdint.h>

enum torch_dtype { TORCH_F32, TORCH_I64, TORCH_I32, TORCH_U8, TORCH_DTYPE_COUNT };

#define TORCH_DIMS_MAX 2
#define TORCH_NAME_MAX 255           /* bytes of a name in a written dict */
#define TORCH_STRING_MAX (1u << 20)  /* bytes of a written string value */
#define TORCH_ENTRIES_MAX 4096       /* entries of a written dict */

/* Bytes of one element: 4, 8, 4, 1. 0 for a value that is no enum torch_dtype. */
size_t torch_dtype_bytes(enum torch_dtype dtype);

/* "float32", "int64", "int32", "uint8". */
const char *torch_dtype_name(enum torch_dtype dtype);

/* ---- writing: declare everything, begin, append in any interleaving, finish ---- */

struct torch_writer;

/*
 * A new writer; buffer_bytes is the write buffer of one tensor (0: 256 KiB; all buffers together stay under 64 MiB, each at least 4 KiB). Returns
 * NULL when there is no memory. Free with torch_writer_free().
 */
struct torch_writer *torch_writer_new(size_t buffer_bytes);

/*
 * Declare the dict's entries, in order. Names: 1 to TORCH_NAME_MAX bytes of UTF-8 without NUL, each once. Strings: UTF-8 without NUL (raw bytes go into a
 * uint8 tensor). Names and strings are copied. A failure is kept: the next torch_writer_begin() returns it with its text, so
 * that a row of declarations needs no check each.
 * torch_writer_add_tensor() takes n_dims (0 to 2) sizes and returns the tensor's number (0, 1, ...) or -errno; the other two return 0 or -errno.
 */
int torch_writer_add_tensor(struct torch_writer *writer, const char *name, enum torch_dtype dtype, unsigned n_dims, const uint64_t *shape);
int torch_writer_add_int(struct torch_writer *writer, const char *name, int64_t value);
int torch_writer_add_string(struct torch_writer *writer, const char *name, const char *value);

/*
 * Creates `name` inside dir_fd (it must not exist; no link is followed; mode 0640 before the umask), lays the whole file out and
 * reserves its space, so that a full disk is found here. Nothing can be declared afterwards. `dir_fd` stays the caller's and must
 * stay open until the writer is freed. On failure nothing is left in the directory.
 */
int torch_writer_begin(struct torch_writer *writer, int dir_fd, const char *name, char *errstr, size_t errstr_size);

/*
 * Appends `len` bytes to a tensor. Any order between tensors, sequential within one; `len` need not be a multiple of the element. More bytes
 * than the tensor has: -EOVERFLOW. The first failure is kept: later calls return it and do nothing, torch_writer_error() and
 * torch_writer_finish() give its text, so checking only at the end is fine.
 */
int torch_writer_append(struct torch_writer *writer, unsigned tensor, const void *data, size_t len);

/* Text of the first failure, "" when there was none. Valid until the writer is freed. */
const char *torch_writer_error(const struct torch_writer *writer);

/* Bytes of the whole file, known from torch_writer_begin() on (0 before). */
uint64_t torch_writer_file_bytes(const struct torch_writer *writer);

/*
 * Checks that every tensor is full (-ENODATA when one is not), writes what is buffered, headers with their CRCs and the central directory, calls fsync once
 * and closes. On failure the file is closed and unlinked; a failed fsync is never repeated. Does not fsync the directory.
 */
int torch_writer_finish(struct torch_writer *writer, char *errstr, size_t errstr_size);

/* Closes and unlinks the file of a writer that was begun and not finished. Accepts NULL; later calls return -ECANCELED. */
void torch_writer_abort(struct torch_writer *writer);

/* torch_writer_abort() when not finished, then frees. Accepts NULL. */
void torch_writer_free(struct torch_writer *writer);

/* ---- reading ---- */

struct torch_reader;

/* A tensor of the file's dict. All pointers live as long as the reader. */
struct torch_tensor {
	const char *name;         /* for people: NUL, control characters and bytes that are not UTF-8 escaped as \xNN */
	const char *unsupported;  /* NULL; or why the tensor cannot be used ("dtype float64", "not contiguous ..."), then the rest is 0 */
	enum torch_dtype dtype;
	unsigned n_dims;          /* 0 to 2 */
	uint64_t shape[TORCH_DIMS_MAX];
	uint64_t n_elements;      /* product of the sizes; 1 without dimensions */
	uint64_t bytes;           /* n_elements x size of the dtype */
	uint64_t file_offset;     /* of the first element, in bytes */
};

/* Bounds of what is accepted. Together they keep torch_reader_open() under 256 MiB for any file. */
#define TORCH_READ_PICKLE_MAX (16u << 20)    /* bytes of data.pkl, and of the zip's central directory */
#define TORCH_READ_RECORDS_MAX 65535u        /* records of the zip */
#define TORCH_READ_TENSORS_MAX 65535u        /* tensors in the pickle, nested ones included */
#define TORCH_READ_ENTRIES_MAX 65535u        /* entries of the dict */
#define TORCH_READ_VALUES_MAX (1u << 20)     /* values remembered by the unpickler (memo; tuples) */

enum { TORCH_FOLLOW_LINK = 1 }; /* flags of torch_reader_open(): the last component may be a symbolic link */

/*
 * Opens `path` (relative to dir_fd; AT_FDCWD works), checks the whole zip (every header byte, every size against the file, the CRC of every
 * record) and the pickle. Errors: -EBADMSG the file is damaged or no PyTorch file; -ENOTSUP it is whole but holds something outside the tensor subset (which
 * is named), is compressed or big-endian; -EFBIG above a bound; -ENOENT, -ELOOP, -EIO ... as from open and read. Reads with pread, so a bad disk is an error
 * and not a signal.
 */
int torch_reader_open(int dir_fd, const char *path, unsigned flags, struct torch_reader **ret_reader, char *errstr, size_t errstr_size);

/* The tensors of the dict in file order; nested containers are skipped. torch_reader_tensor() returns NULL past the end. */
size_t torch_reader_n_tensors(const struct torch_reader *reader);
const struct torch_tensor *torch_reader_tensor(const struct torch_reader *reader, size_t index);

/*
 * By name. -ENOENT: no such entry; -EPROTOTYPE: the entry is of another type (or an int beyond int64, or a string with NUL or bad UTF-8 inside); -ENOTSUP: a tensor
 * that cannot be used (errstr says why). Strings are NUL-terminated and live as long as the reader.
 */
int torch_reader_find_tensor(const struct torch_reader *reader, const char *name, const struct torch_tensor **ret_tensor, char *errstr, size_t errstr_size);
int torch_reader_find_int(const struct torch_reader *reader, const char *name, int64_t *ret_value, char *errstr, size_t errstr_size);
int torch_reader_find_string(const struct torch_reader *reader, const char *name, const char **ret_value, char *errstr, size_t errstr_size);

/*
 * Reads bytes [offset, offset + len) of a tensor into `buffer`. -EINVAL when that is outside the tensor; -EIO when the file has become shorter since.
 */
int torch_reader_read(const struct torch_reader *reader, const struct torch_tensor *tensor, uint64_t offset, void *buffer, size_t len, char *errstr,
		      size_t errstr_size);

/*
 * The tensor's bytes in memory, read-only, valid until torch_reader_close(). Maps the file on first use; a file truncated or a disk failing after that
 * raises SIGBUS, so recovery uses torch_reader_read(). -ENOTSUP when the payload is not aligned to its element (then read it). A tensor without
 * elements gives a valid pointer.
 */
int torch_reader_map(struct torch_reader *reader, const struct torch_tensor *tensor, const void **ret_data, char *errstr, size_t errstr_size);

/* Accepts NULL. */
void torch_reader_close(struct torch_reader *reader);

#endif
