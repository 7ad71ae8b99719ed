/*
 * torch_reader.c: opens a PyTorch file: zip structure and CRCs (torch_zip.c), the pickle (torch_pickle.c), then each tensor of the outermost dict against the
 * record that holds its storage. After a successful open nothing about the file can surprise a caller but a disk that fails later.
 *
 * Runs on the caller's thread. The reader owns the descriptor, the copied names and strings, and the mapping (made on first use). The pickle and the
 * zip's directory are not kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/model/torch_file.h"
#include "trainer/model/torch_zip.h"

#define SHOWN_MAX 256 /* bytes of an escaped name, its NUL included */

struct entry {
	enum pickle_kind kind;
	const char *name; /* as in the file, NUL-terminated; in `text` */
	size_t name_len;
	const char *string; /* PICKLE_STRING */
	size_t string_len;
	int64_t integer;
	size_t tensor; /* PICKLE_TENSOR: index in `tensors` */
};

struct torch_reader {
	int fd;
	uint64_t file_bytes;
	char file_name[SHOWN_MAX];
	char *text; /* names, strings, escaped names: one block */
	struct entry *entries; /* sorted by name */
	size_t n_entries;
	struct torch_tensor *tensors;
	size_t n_tensors;
	unsigned char *map;
};

static const _Alignas(16) unsigned char no_elements[16]; /* what an empty tensor points to */

/* ---- opening ---- */

/* "<file>: <what went wrong>"; the parts below write the second half. */
static int with_file(const struct torch_reader *reader, int r, char *errstr, size_t errstr_size)
{
	if (r < 0 && errstr && errstr_size) {
		char reason[512];
		(void)snprintf(reason, sizeof reason, "%s", errstr);
		(void)snprintf(errstr, errstr_size, "%s: %s", reader->file_name, reason);
	}
	return r;
}

static int open_file(struct torch_reader *reader, int dir_fd, const char *path, unsigned flags, char *errstr, size_t errstr_size)
{
	struct stat st;
	torch_escape(reader->file_name, sizeof reader->file_name, path, strlen(path));
	reader->fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (flags & TORCH_FOLLOW_LINK ? 0 : O_NOFOLLOW));
	if (reader->fd < 0)
		return torch_fail(errno, errstr, errstr_size, "open: %s", strerrordesc_np(errno));
	if (fstat(reader->fd, &st) < 0)
		return torch_fail(errno, errstr, errstr_size, "stat: %s", strerrordesc_np(errno));
	if (!S_ISREG(st.st_mode))
		return torch_fail(EBADMSG, errstr, errstr_size, "not a regular file");
	reader->file_bytes = (uint64_t)st.st_size;
	(void)posix_fadvise(reader->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

/* Reads a record of at most `size` bytes; *ret_len is its length. The CRCs have been checked. */
static int read_small(const struct zip_index *index, const char *name, void *buffer, size_t size, size_t *ret_len, char *errstr, size_t errstr_size)
{
	const struct zip_record *record = zip_index_find(index, name, strlen(name));
	if (!record)
		return -ENOENT;
	if (record->size > size)
		return torch_fail(EBADMSG, errstr, errstr_size, "record %s: %llu bytes are too many", name, (unsigned long long)record->size);
	int r = zip_read(index->fd, record->data_offset, buffer, (size_t)record->size);
	if (r < 0)
		return torch_fail(-r, errstr, errstr_size, "read %s: %s", name, strerrordesc_np(-r));
	*ret_len = (size_t)record->size;
	return 0;
}

/* The format's version (torch itself takes 1 to 10) and the byte order, which old files leave out. */
static int check_version(const struct zip_index *index, char *errstr, size_t errstr_size)
{
	char text[17] = "", *end;
	size_t len = 0;
	int r = read_small(index, "version", text, sizeof text - 1, &len, errstr, errstr_size);
	if (r < 0)
		return r == -ENOENT ? torch_fail(EBADMSG, errstr, errstr_size, "no record 'version'") : r;
	long version = strtol(text, &end, 10);
	if (end == text || strspn(end, " \n") != strlen(end) || strlen(text) != len || version < 1 || version > 10)
		return torch_fail(ENOTSUP, errstr, errstr_size, "file format version is not 1 to 10");
	memset(text, 0, sizeof text);
	r = read_small(index, "byteorder", text, sizeof text - 1, &len, errstr, errstr_size);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (len != 6 || memcmp(text, "little", 6) != 0)
		return torch_fail(ENOTSUP, errstr, errstr_size, "byte order is not little-endian");
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = memcmp(x->name, y->name, x->name_len < y->name_len ? x->name_len : y->name_len);
	return c ? c : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

/* Copies len bytes and a NUL to *at, which moves on. */
static const char *copy_text(char **at, const unsigned char *text, size_t len)
{
	char *copy = *at;
	memcpy(copy, text, len);
	copy[len] = 0;
	*at += len + 1;
	return copy;
}

static const char *say(char **at, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *say(char **at, const char *format, ...)
{
	char *text = *at;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, SHOWN_MAX, format, args);
	va_end(args);
	*at += n < SHOWN_MAX ? n + 1 : SHOWN_MAX;
	return text;
}

/* Why a tensor cannot be used, or NULL. */
static const char *unsupported(const struct pickle_tensor *t, const struct pickle_storage *storage, char **text)
{
	if (storage->dtype < 0)
		return say(text, "dtype %s", storage->type_name);
	if (t->n_dims > TORCH_DIMS_MAX)
		return say(text, "%u dimensions", t->n_dims);
	if (t->has_metadata)
		return say(text, "a view with metadata (conjugate or negative bit)");
	int64_t expected = 1;
	bool empty = false, contiguous = true;
	for (unsigned i = t->n_dims; i-- > 0;) {
		empty = empty || t->sizes[i] == 0;
		contiguous = contiguous && (t->sizes[i] == 1 || t->strides[i] == expected);
		if (__builtin_mul_overflow(expected, t->sizes[i], &expected))
			return NULL; /* goes beyond any storage: the caller says so */
	}
	if (empty || contiguous)
		return NULL;
	if (t->n_dims == 1)
		return say(text, "not contiguous (shape %lld, stride %lld)", (long long)t->sizes[0], (long long)t->strides[0]);
	return say(text, "not contiguous (shape %lld x %lld, strides %lld, %lld)", (long long)t->sizes[0], (long long)t->sizes[1], (long long)t->strides[0],
		   (long long)t->strides[1]);
}

/* Ties a tensor to the record of its storage. */
static int resolve_tensor(const struct zip_index *index, const unsigned char *pickle, const struct pickle_dict *dict, const struct pickle_tensor *t,
			  struct torch_tensor *out, char **text, char *errstr, size_t errstr_size)
{
	const struct pickle_storage *storage = &dict->storages[t->storage];
	char record_name[32];
	(void)snprintf(record_name, sizeof record_name, "data/%.*s", (int)storage->key_len, (const char *)pickle + storage->key_offset);
	const struct zip_record *record = zip_index_find(index, record_name, strlen(record_name));
	uint64_t storage_bytes, n = 1, bytes = 0, offset = 0;
	if (!record)
		return torch_fail(EBADMSG, errstr, errstr_size, "tensor %s: record %s is missing", out->name, record_name);
	if (__builtin_mul_overflow((uint64_t)storage->n_elements, (uint64_t)storage->element_bytes, &storage_bytes) || storage_bytes != record->size)
		return torch_fail(EBADMSG, errstr, errstr_size, "tensor %s: record %s has %llu bytes, not %lld x %u", out->name, record_name,
				  (unsigned long long)record->size, (long long)storage->n_elements, storage->element_bytes);
	out->unsupported = unsupported(t, storage, text);
	if (out->unsupported)
		return 0;
	bool bad = false;
	for (unsigned i = 0; i < t->n_dims; i++)
		bad = __builtin_mul_overflow(n, (uint64_t)t->sizes[i], &n) || bad;
	bad = __builtin_mul_overflow(n, (uint64_t)storage->element_bytes, &bytes) || bad;
	if (n) /* an empty slice may begin past the end */
		bad = __builtin_mul_overflow((uint64_t)t->offset, (uint64_t)storage->element_bytes, &offset) || bad;
	if (bad || offset > storage_bytes || bytes > storage_bytes - offset)
		return torch_fail(EBADMSG, errstr, errstr_size, "tensor %s: goes beyond its storage", out->name);
	out->dtype = (enum torch_dtype)storage->dtype;
	out->n_dims = t->n_dims;
	for (unsigned i = 0; i < t->n_dims; i++)
		out->shape[i] = (uint64_t)t->sizes[i];
	out->n_elements = n;
	out->bytes = bytes;
	out->file_offset = record->data_offset + offset;
	return 0;
}

/* Names, strings and tensors out of the pickle into the reader's own tables. */
static int build_tables(struct torch_reader *reader, const struct zip_index *index, const unsigned char *pickle, const struct pickle_dict *dict, char *errstr,
			size_t errstr_size)
{
	size_t text_bytes = 1, n_tensors = 0;
	for (size_t i = 0; i < dict->n_entries; i++) {
		const struct pickle_entry *e = &dict->entries[i];
		text_bytes += (size_t)e->key_len + 1 + (e->kind == PICKLE_STRING ? (size_t)e->string_len + 1 : 0);
		if (e->kind == PICKLE_TENSOR) {
			text_bytes += 2 * (size_t)SHOWN_MAX;
			n_tensors++;
		}
	}
	/* a string may be named often (memo), and a tensor too: bounded here, before memory is asked for */
	if (text_bytes > 4 * (size_t)TORCH_READ_PICKLE_MAX || n_tensors > TORCH_READ_TENSORS_MAX)
		return torch_fail(EFBIG, errstr, errstr_size, "names and strings: above the limit");
	reader->text = malloc(text_bytes);
	reader->entries = calloc(dict->n_entries + 1, sizeof *reader->entries);
	reader->tensors = calloc(n_tensors + 1, sizeof *reader->tensors);
	if (!reader->text || !reader->entries || !reader->tensors)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory for %zu entries", dict->n_entries);
	char *at = reader->text;
	for (size_t i = 0; i < dict->n_entries; i++) {
		const struct pickle_entry *from = &dict->entries[i];
		struct entry *e = &reader->entries[reader->n_entries++];
		*e = (struct entry){.kind = from->kind, .name_len = from->key_len, .integer = from->integer};
		e->name = copy_text(&at, pickle + from->key_offset, from->key_len);
		if (from->kind == PICKLE_STRING) {
			e->string = copy_text(&at, pickle + from->string_offset, from->string_len);
			e->string_len = from->string_len;
		} else if (from->kind == PICKLE_TENSOR) {
			struct torch_tensor *t = &reader->tensors[reader->n_tensors];
			e->tensor = reader->n_tensors++;
			torch_escape(at, SHOWN_MAX, e->name, e->name_len);
			t->name = at;
			at += strlen(at) + 1;
			int r = resolve_tensor(index, pickle, dict, &dict->tensors[from->tensor], t, &at, errstr, errstr_size);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int sort_entries(struct torch_reader *reader, char *errstr, size_t errstr_size)
{
	qsort(reader->entries, reader->n_entries, sizeof *reader->entries, compare_entries);
	for (size_t i = 1; i < reader->n_entries; i++)
		if (compare_entries(&reader->entries[i - 1], &reader->entries[i]) == 0) {
			char shown[64];
			torch_escape(shown, sizeof shown, reader->entries[i].name, reader->entries[i].name_len);
			return torch_fail(EBADMSG, errstr, errstr_size, "the name %s stands twice in the dict", shown);
		}
	return 0;
}

static int read_pickle(struct torch_reader *reader, const struct zip_index *index, char *errstr, size_t errstr_size)
{
	const struct zip_record *record = zip_index_find(index, "data.pkl", 8);
	if (!record || record->size > TORCH_READ_PICKLE_MAX)
		return torch_fail(EFBIG, errstr, errstr_size, "data.pkl: above %u bytes", TORCH_READ_PICKLE_MAX);
	size_t len = 0;
	struct pickle_dict dict = {0};
	unsigned char *pickle = malloc(record->size ? (size_t)record->size : 1); /* to the byte: a sanitizer sees reading past it */
	if (!pickle)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory for data.pkl");
	int r = read_small(index, "data.pkl", pickle, (size_t)record->size, &len, errstr, errstr_size);
	if (!r)
		r = pickle_read(pickle, len, &dict, errstr, errstr_size);
	if (!r)
		r = build_tables(reader, index, pickle, &dict, errstr, errstr_size);
	if (!r)
		r = sort_entries(reader, errstr, errstr_size);
	pickle_dict_free(&dict);
	free(pickle);
	return r;
}

int torch_reader_open(int dir_fd, const char *path, unsigned flags, struct torch_reader **ret_reader, char *errstr, size_t errstr_size)
{
	struct zip_index index = {0};
	struct torch_reader *reader = calloc(1, sizeof *reader);
	if (!reader)
		return torch_fail(ENOMEM, errstr, errstr_size, "no memory");
	reader->fd = -1;
	int r = open_file(reader, dir_fd, path, flags, errstr, errstr_size);
	if (!r)
		r = zip_index_read(reader->fd, reader->file_bytes, &index, errstr, errstr_size);
	if (!r)
		r = zip_index_check_crc(&index, errstr, errstr_size);
	if (!r)
		r = check_version(&index, errstr, errstr_size);
	if (!r)
		r = read_pickle(reader, &index, errstr, errstr_size);
	zip_index_free(&index);
	if (r < 0) {
		(void)with_file(reader, r, errstr, errstr_size);
		torch_reader_close(reader);
		return r;
	}
	*ret_reader = reader;
	return 0;
}

void torch_reader_close(struct torch_reader *reader)
{
	if (!reader)
		return;
	if (reader->map)
		(void)munmap(reader->map, (size_t)reader->file_bytes);
	if (reader->fd >= 0)
		(void)close(reader->fd);
	free(reader->text);
	free(reader->entries);
	free(reader->tensors);
	free(reader);
}

/* ---- asking ---- */

size_t torch_reader_n_tensors(const struct torch_reader *reader) { return reader->n_tensors; }

const struct torch_tensor *torch_reader_tensor(const struct torch_reader *reader, size_t index)
{
	return index < reader->n_tensors ? &reader->tensors[index] : NULL;
}

static int find(const struct torch_reader *reader, const char *name, enum pickle_kind kind, const char *kind_name, const struct entry **ret_entry,
		char *errstr, size_t errstr_size)
{
	char shown[64];
	const struct entry key = {.name = name, .name_len = strlen(name)};
	const struct entry *e = bsearch(&key, reader->entries, reader->n_entries, sizeof *reader->entries, compare_entries);
	torch_escape(shown, sizeof shown, name, key.name_len);
	if (!e)
		return torch_fail(ENOENT, errstr, errstr_size, "%s: has no '%s'", reader->file_name, shown);
	if (e->kind != kind)
		return torch_fail(EPROTOTYPE, errstr, errstr_size, "%s: '%s' is no %s", reader->file_name, shown, kind_name);
	*ret_entry = e;
	return 0;
}

int torch_reader_find_tensor(const struct torch_reader *reader, const char *name, const struct torch_tensor **ret_tensor, char *errstr, size_t errstr_size)
{
	const struct entry *e;
	int r = find(reader, name, PICKLE_TENSOR, "tensor", &e, errstr, errstr_size);
	if (r < 0)
		return r;
	const struct torch_tensor *t = &reader->tensors[e->tensor];
	if (t->unsupported)
		return torch_fail(ENOTSUP, errstr, errstr_size, "%s: tensor %s cannot be used: %s", reader->file_name, t->name, t->unsupported);
	*ret_tensor = t;
	return 0;
}

int torch_reader_find_int(const struct torch_reader *reader, const char *name, int64_t *ret_value, char *errstr, size_t errstr_size)
{
	const struct entry *e;
	int r = find(reader, name, PICKLE_INT, "int", &e, errstr, errstr_size);
	if (!r)
		*ret_value = e->integer;
	return r;
}

int torch_reader_find_string(const struct torch_reader *reader, const char *name, const char **ret_value, char *errstr, size_t errstr_size)
{
	const struct entry *e;
	int r = find(reader, name, PICKLE_STRING, "string", &e, errstr, errstr_size);
	if (r < 0)
		return r;
	for (size_t i = 0, n; i < e->string_len; i += n) {
		n = torch_utf8_length(e->string + i, e->string_len - i);
		if (!n || !e->string[i])
			return torch_fail(EPROTOTYPE, errstr, errstr_size, "%s: the string '%s' is not UTF-8, or has a NUL inside", reader->file_name, name);
	}
	*ret_value = e->string;
	return 0;
}

/* ---- the payload ---- */

int torch_reader_read(const struct torch_reader *reader, const struct torch_tensor *tensor, uint64_t offset, void *buffer, size_t len, char *errstr,
		      size_t errstr_size)
{
	if (tensor->unsupported || offset > tensor->bytes || len > tensor->bytes - offset)
		return torch_fail(EINVAL, errstr, errstr_size, "%s: read %s: outside the tensor", reader->file_name, tensor->name);
	int r = zip_read(reader->fd, tensor->file_offset + offset, buffer, len);
	if (r < 0)
		return torch_fail(-r, errstr, errstr_size, "%s: read %s: %s", reader->file_name, tensor->name, strerrordesc_np(-r));
	return 0;
}

int torch_reader_map(struct torch_reader *reader, const struct torch_tensor *tensor, const void **ret_data, char *errstr, size_t errstr_size)
{
	if (tensor->unsupported)
		return torch_fail(ENOTSUP, errstr, errstr_size, "%s: map %s: %s", reader->file_name, tensor->name, tensor->unsupported);
	if (!tensor->bytes) {
		*ret_data = no_elements;
		return 0;
	}
	if (tensor->file_offset % torch_dtype_bytes(tensor->dtype))
		return torch_fail(ENOTSUP, errstr, errstr_size, "%s: map %s: not aligned to its elements", reader->file_name, tensor->name);
	if (!reader->map) {
		void *map = mmap(NULL, (size_t)reader->file_bytes, PROT_READ, MAP_PRIVATE, reader->fd, 0);
		if (map == MAP_FAILED)
			return torch_fail(errno, errstr, errstr_size, "%s: map: %s", reader->file_name, strerrordesc_np(errno));
		reader->map = map;
	}
	*ret_data = reader->map + tensor->file_offset;
	return 0;
}
