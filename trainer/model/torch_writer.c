/*
 * torch_writer.c: writes a PyTorch file in one streaming pass, all tensors at the same time.
 *
 * Everything is declared first, so that torch_writer_begin() can lay the file out to the byte: pickle, then each tensor's record at a multiple of 64
 * bytes. Appends go into a small buffer a tensor and from there with pwrite to the tensor's place, its CRC growing on the way; the local headers
 * (which hold the CRCs) and the central directory are written at the end. Pickle protocol 2, no memo: what weights_only accepts from torch 1.13 on.
 *
 * Runs on the thread that writes the checkpoint. The writer owns its descriptor and buffers; the directory's descriptor stays the caller's. The first
 * failure is kept with its text, and everything after it does nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/model/torch_emit.h"
#include "trainer/model/torch_file.h"
#include "trainer/model/torch_zip.h"

#define BUFFER_BYTES_DEFAULT ((size_t)256 << 10)
#define BUFFER_BYTES_MIN ((size_t)4 << 10)
#define BUFFERS_BYTES_MAX ((size_t)64 << 20)
#define FILE_BYTES_MAX ((uint64_t)1 << 56)

enum writer_stage { STAGE_DECLARE, STAGE_WRITE, STAGE_DONE };
enum entry_kind { ENTRY_TENSOR, ENTRY_INT, ENTRY_STRING };

struct entry {
	enum entry_kind kind;
	char *name;
	char *string;   /* ENTRY_STRING */
	int64_t integer; /* ENTRY_INT: the value; ENTRY_TENSOR: its number */
};

struct tensor {
	enum torch_dtype dtype;
	unsigned n_dims;
	uint64_t shape[TORCH_DIMS_MAX];
	uint64_t n_elements;
	const char *name;      /* the entry's */
	unsigned char *buffer; /* in torch_writer.buffers */
	size_t buffer_bytes, buffered;
	uint64_t written; /* bytes on their way to the file, without those in the buffer */
	struct emit_record record;
};

enum { SMALL_PICKLE, SMALL_VERSION, SMALL_BYTEORDER, SMALL_COUNT };

struct torch_writer {
	enum writer_stage stage;
	int error; /* 0, or -errno of the first failure; its text is in errstr */
	char errstr[512];
	int dir_fd, fd;
	bool created; /* the file exists and is ours to unlink */
	char file_name[256];
	size_t buffer_bytes;
	uint64_t wide_from, far_from; /* sizes and offsets that need zip64 fields */
	struct entry *entries;
	size_t n_entries, entries_size;
	struct tensor *tensors;
	size_t n_tensors, tensors_size;
	unsigned char *buffers;
	struct emit_record small[SMALL_COUNT];
	struct emit_bytes pickle;
	uint64_t central_offset;
	size_t central_bytes;
	uint64_t file_bytes;
};

static const size_t dtype_bytes[TORCH_DTYPE_COUNT] = {4, 8, 4, 1};
static const char *const dtype_names[TORCH_DTYPE_COUNT] = {"float32", "int64", "int32", "uint8"};
static const char *const storage_names[TORCH_DTYPE_COUNT] = {"FloatStorage", "LongStorage", "IntStorage", "ByteStorage"};

size_t torch_dtype_bytes(enum torch_dtype dtype) { return (unsigned)dtype < TORCH_DTYPE_COUNT ? dtype_bytes[dtype] : 0; }

const char *torch_dtype_name(enum torch_dtype dtype) { return (unsigned)dtype < TORCH_DTYPE_COUNT ? dtype_names[dtype] : "unknown"; }

/* Keeps the first failure. Returns it. */
#define FAIL(writer, err, ...)                                                                                   \
	((writer)->error ? (writer)->error                                                                       \
			 : ((writer)->error = torch_fail((err), (writer)->errstr, sizeof(writer)->errstr, __VA_ARGS__)))

static int fail_step(struct torch_writer *writer, int err, const char *step)
{
	return FAIL(writer, err, "%s: %s: %s", writer->file_name, step, strerrordesc_np(err));
}

static int report(const struct torch_writer *writer, char *errstr, size_t errstr_size)
{
	return writer->error ? torch_fail(-writer->error, errstr, errstr_size, "%s", writer->errstr) : 0;
}

struct torch_writer *torch_writer_new(size_t buffer_bytes)
{
	struct torch_writer *writer = calloc(1, sizeof *writer);
	if (!writer)
		return NULL;
	writer->fd = -1;
	writer->dir_fd = -1;
	writer->buffer_bytes = buffer_bytes ? buffer_bytes : BUFFER_BYTES_DEFAULT;
	writer->wide_from = ZIP_LIMIT32;
	writer->far_from = ZIP_LIMIT32;
	return writer;
}

void torch_writer_zip64_from(struct torch_writer *writer, uint64_t size, uint64_t offset)
{
	writer->wide_from = size;
	writer->far_from = offset;
}

/* ---- declaring ---- */

static bool text_ok(const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);
	if (len > max)
		return false;
	for (size_t i = 0; i < len;) {
		size_t n = torch_utf8_length(text + i, len - i);
		if (!n)
			return false;
		i += n;
	}
	return true;
}

/* Makes room for one more element of `size` bytes; capacities double. */
static bool grow(void **array, size_t n, size_t *capacity, size_t size)
{
	if (n < *capacity)
		return true;
	size_t wanted = *capacity ? *capacity * 2 : 16;
	void *grown = reallocarray(*array, wanted, size);
	if (!grown)
		return false;
	*array = grown;
	*capacity = wanted;
	return true;
}

static int add_entry(struct torch_writer *writer, const char *name, struct entry **ret_entry)
{
	if (writer->error)
		return writer->error;
	char shown[64];
	torch_escape(shown, sizeof shown, name, strnlen(name, TORCH_NAME_MAX));
	if (writer->stage != STAGE_DECLARE)
		return FAIL(writer, EINVAL, "declare %s: writing has begun", shown);
	if (!*name || !text_ok(name, TORCH_NAME_MAX))
		return FAIL(writer, EINVAL, "declare '%s': a name is 1 to %d bytes of UTF-8", shown, TORCH_NAME_MAX);
	for (size_t i = 0; i < writer->n_entries; i++)
		if (strcmp(writer->entries[i].name, name) == 0)
			return FAIL(writer, EEXIST, "declare %s: the name was declared before", shown);
	if (writer->n_entries == TORCH_ENTRIES_MAX)
		return FAIL(writer, E2BIG, "declare %s: more than %d entries", shown, TORCH_ENTRIES_MAX);
	void *entries = writer->entries;
	if (!grow(&entries, writer->n_entries, &writer->entries_size, sizeof *writer->entries))
		return FAIL(writer, ENOMEM, "declare %s: no memory", shown);
	writer->entries = entries;
	struct entry *entry = &writer->entries[writer->n_entries];
	*entry = (struct entry){.name = strdup(name)};
	if (!entry->name)
		return FAIL(writer, ENOMEM, "declare %s: no memory", shown);
	writer->n_entries++;
	*ret_entry = entry;
	return 0;
}

int torch_writer_add_tensor(struct torch_writer *writer, const char *name, enum torch_dtype dtype, unsigned n_dims, const uint64_t *shape)
{
	struct entry *entry;
	int r = add_entry(writer, name, &entry);
	if (r < 0)
		return r;
	if (!torch_dtype_bytes(dtype) || n_dims > TORCH_DIMS_MAX)
		return FAIL(writer, EINVAL, "declare %s: unknown dtype, or more than %d dimensions", entry->name, TORCH_DIMS_MAX);
	struct tensor tensor = {.dtype = dtype, .n_dims = n_dims, .n_elements = 1, .name = entry->name};
	for (unsigned i = 0; i < n_dims; i++) {
		tensor.shape[i] = shape[i];
		if (shape[i] > FILE_BYTES_MAX || __builtin_mul_overflow(tensor.n_elements, shape[i], &tensor.n_elements))
			return FAIL(writer, EOVERFLOW, "declare %s: too large", entry->name);
	}
	if (__builtin_mul_overflow(tensor.n_elements, torch_dtype_bytes(dtype), &tensor.record.size) || tensor.record.size > FILE_BYTES_MAX)
		return FAIL(writer, EOVERFLOW, "declare %s: too large", entry->name);
	void *tensors = writer->tensors;
	if (!grow(&tensors, writer->n_tensors, &writer->tensors_size, sizeof *writer->tensors))
		return FAIL(writer, ENOMEM, "declare %s: no memory", entry->name);
	writer->tensors = tensors;
	entry->kind = ENTRY_TENSOR;
	entry->integer = (int64_t)writer->n_tensors;
	writer->tensors[writer->n_tensors] = tensor;
	return (int)writer->n_tensors++;
}

int torch_writer_add_int(struct torch_writer *writer, const char *name, int64_t value)
{
	struct entry *entry;
	int r = add_entry(writer, name, &entry);
	if (r < 0)
		return r;
	entry->kind = ENTRY_INT;
	entry->integer = value;
	return 0;
}

int torch_writer_add_string(struct torch_writer *writer, const char *name, const char *value)
{
	struct entry *entry;
	int r = add_entry(writer, name, &entry);
	if (r < 0)
		return r;
	if (!text_ok(value, TORCH_STRING_MAX))
		return FAIL(writer, EINVAL, "declare %s: the string is not UTF-8, or above %u bytes", entry->name, TORCH_STRING_MAX);
	entry->kind = ENTRY_STRING;
	entry->string = strdup(value);
	if (!entry->string)
		return FAIL(writer, ENOMEM, "declare %s: no memory", entry->name);
	return 0;
}

/* ---- the pickle ---- */

/* torch._utils._rebuild_tensor_v2(storage, 0, sizes, strides, False, OrderedDict()) */
static void pickle_tensor(struct emit_bytes *out, const struct tensor *tensor, uint64_t number)
{
	char text[64];
	emit_text(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
	emit_string(out, "storage");
	(void)snprintf(text, sizeof text, "ctorch\n%s\n", storage_names[tensor->dtype]);
	emit_text(out, text);
	(void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
	emit_string(out, text);
	emit_string(out, "cpu");
	emit_int(out, (int64_t)tensor->n_elements);
	emit_text(out, "tQ");
	emit_int(out, 0);
	emit_text(out, "(");
	for (unsigned i = 0; i < tensor->n_dims; i++)
		emit_int(out, (int64_t)tensor->shape[i]);
	emit_text(out, "t(");
	for (unsigned i = 0; i < tensor->n_dims; i++) {
		uint64_t stride = 1;
		for (unsigned j = i + 1; j < tensor->n_dims; j++)
			stride *= tensor->shape[j] ? tensor->shape[j] : 1; /* as torch does for empty tensors */
		emit_int(out, (int64_t)stride);
	}
	emit_text(out, "t\x89" "ccollections\nOrderedDict\n)RtR");
}

static int build_pickle(struct torch_writer *writer)
{
	struct emit_bytes *out = &writer->pickle;
	emit_text(out, "\x80\x02}(");
	for (size_t i = 0; i < writer->n_entries; i++) {
		const struct entry *entry = &writer->entries[i];
		emit_string(out, entry->name);
		if (entry->kind == ENTRY_TENSOR)
			pickle_tensor(out, &writer->tensors[entry->integer], (uint64_t)entry->integer);
		else if (entry->kind == ENTRY_INT)
			emit_int(out, entry->integer);
		else
			emit_string(out, entry->string);
	}
	emit_text(out, "u.");
	if (out->error)
		return fail_step(writer, -out->error, "describe the tensors");
	return 0;
}

/* ---- the layout ---- */

static void place(struct torch_writer *writer, struct emit_record *record, uint64_t *at)
{
	record->header_offset = *at;
	record->wide = record->size >= writer->wide_from;
	record->far = record->header_offset >= writer->far_from;
	uint64_t payload = *at + emit_local_bytes(record);
	record->payload_offset = (payload + ZIP_ALIGNMENT - 1) / ZIP_ALIGNMENT * ZIP_ALIGNMENT;
	*at = record->payload_offset + record->size;
	writer->central_bytes += emit_central_bytes(record);
}

static size_t n_records(const struct torch_writer *writer) { return SMALL_COUNT + writer->n_tensors; }

static struct emit_record *nth_record(struct torch_writer *writer, size_t i)
{
	return i < SMALL_COUNT ? &writer->small[i] : &writer->tensors[i - SMALL_COUNT].record;
}

static const char *small_payload(const struct torch_writer *writer, size_t i)
{
	return i == SMALL_PICKLE ? (const char *)writer->pickle.data : i == SMALL_VERSION ? "3\n" : "little";
}

static int lay_out(struct torch_writer *writer)
{
	static const char *const names[SMALL_COUNT] = {"archive/data.pkl", "archive/version", "archive/byteorder"};
	const size_t sizes[SMALL_COUNT] = {writer->pickle.len, 2, 6};
	uint64_t at = 0, total = 0;
	for (size_t i = 0; i < writer->n_tensors; i++) {
		total += writer->tensors[i].record.size; /* no overflow: at most 2^12 of at most 2^56 bytes */
		if (total > FILE_BYTES_MAX)
			return FAIL(writer, EFBIG, "%s: too large", writer->file_name);
	}
	for (size_t i = 0; i < SMALL_COUNT; i++) {
		struct emit_record *record = &writer->small[i];
		(void)snprintf(record->name, sizeof record->name, "%s", names[i]);
		record->size = sizes[i];
		record->crc = torch_crc32(0, small_payload(writer, i), sizes[i]);
		place(writer, record, &at);
	}
	for (size_t i = 0; i < writer->n_tensors; i++) {
		struct emit_record *record = &writer->tensors[i].record;
		(void)snprintf(record->name, sizeof record->name, "archive/data/%u", (unsigned)i);
		place(writer, record, &at);
	}
	writer->central_offset = at;
	writer->file_bytes = at + writer->central_bytes + ZIP_END64_BYTES + ZIP_LOCATOR_BYTES + ZIP_END_BYTES;
	return 0;
}

/* One block for all buffers; a tensor gets no more than its own size, in lines of 64 bytes. */
static int make_buffers(struct torch_writer *writer)
{
	size_t limit = writer->buffer_bytes, total = 0;
	if (writer->n_tensors && limit > BUFFERS_BYTES_MAX / writer->n_tensors)
		limit = BUFFERS_BYTES_MAX / writer->n_tensors;
	if (limit < BUFFER_BYTES_MIN)
		limit = BUFFER_BYTES_MIN;
	limit -= limit % ZIP_ALIGNMENT;
	for (int pass = 0; pass < 2; pass++) {
		total = 0;
		for (size_t i = 0; i < writer->n_tensors; i++) {
			struct tensor *tensor = &writer->tensors[i];
			uint64_t size = (tensor->record.size + ZIP_ALIGNMENT - 1) / ZIP_ALIGNMENT * ZIP_ALIGNMENT;
			tensor->buffer_bytes = size < limit ? (size_t)size : limit;
			if (pass)
				tensor->buffer = writer->buffers + total;
			total += tensor->buffer_bytes;
		}
		if (!pass && total && !(writer->buffers = aligned_alloc(ZIP_ALIGNMENT, total)))
			return FAIL(writer, ENOMEM, "%s: no memory for %zu bytes of buffers", writer->file_name, total);
	}
	return 0;
}

/* ---- writing ---- */

static int write_at(struct torch_writer *writer, const void *data, size_t len, uint64_t offset, const char *what)
{
	const unsigned char *p = data;
	while (len) {
		size_t chunk = len > (1u << 30) ? (1u << 30) : len;
		ssize_t n = pwrite(writer->fd, p, chunk, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return FAIL(writer, n < 0 ? errno : EIO, "%s: write %s: %s", writer->file_name, what, strerrordesc_np(n < 0 ? errno : EIO));
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int create(struct torch_writer *writer)
{
	writer->fd = openat(writer->dir_fd, writer->file_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (writer->fd < 0)
		return fail_step(writer, errno, "create");
	writer->created = true;
	int r;
	do
		r = fallocate(writer->fd, 0, 0, (off_t)writer->file_bytes);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
		return fail_step(writer, errno, "reserve space");
	for (size_t i = 0; i < SMALL_COUNT; i++) {
		const struct emit_record *record = &writer->small[i];
		r = write_at(writer, small_payload(writer, i), (size_t)record->size, record->payload_offset, record->name);
		if (r < 0)
			return r;
	}
	return 0;
}

int torch_writer_begin(struct torch_writer *writer, int dir_fd, const char *name, char *errstr, size_t errstr_size)
{
	if (!writer->error && writer->stage != STAGE_DECLARE)
		(void)FAIL(writer, EINVAL, "begin %s: the writer was used before", name);
	size_t len = strnlen(name, sizeof writer->file_name);
	if (!writer->error && (!len || len == sizeof writer->file_name || strchr(name, '/')))
		(void)FAIL(writer, EINVAL, "begin: a file name is one path component");
	if (writer->error)
		return report(writer, errstr, errstr_size);
	memcpy(writer->file_name, name, len + 1);
	writer->dir_fd = dir_fd;
	writer->stage = STAGE_WRITE;
	if (build_pickle(writer) < 0 || lay_out(writer) < 0 || make_buffers(writer) < 0 || create(writer) < 0) {
		int r = report(writer, errstr, errstr_size);
		torch_writer_abort(writer);
		return r;
	}
	return 0;
}

static int write_payload(struct torch_writer *writer, struct tensor *tensor, const void *data, size_t len)
{
	tensor->record.crc = torch_crc32(tensor->record.crc, data, len);
	int r = write_at(writer, data, len, tensor->record.payload_offset + tensor->written, tensor->name);
	if (!r)
		tensor->written += len;
	return r;
}

static int flush(struct torch_writer *writer, struct tensor *tensor)
{
	int r = write_payload(writer, tensor, tensor->buffer, tensor->buffered);
	tensor->buffered = 0;
	return r;
}

int torch_writer_append(struct torch_writer *writer, unsigned number, const void *data, size_t len)
{
	if (writer->error)
		return writer->error;
	if (writer->stage != STAGE_WRITE || number >= writer->n_tensors)
		return FAIL(writer, EINVAL, "%s: append to tensor %u: not being written, or no such tensor", writer->file_name, number);
	struct tensor *tensor = &writer->tensors[number];
	const unsigned char *p = data;
	if (len > tensor->record.size - tensor->written - tensor->buffered)
		return FAIL(writer, EOVERFLOW, "%s: append to %s: more bytes than its shape has", writer->file_name, tensor->name);
	while (len) {
		if (!tensor->buffered && len >= tensor->buffer_bytes) {
			/* past the buffer, in pieces that stay in the cache between the CRC and the write */
			size_t n = len < BUFFER_BYTES_DEFAULT ? len : BUFFER_BYTES_DEFAULT;
			if (write_payload(writer, tensor, p, n) < 0)
				return writer->error;
			p += n;
			len -= n;
			continue;
		}
		size_t room = tensor->buffer_bytes - tensor->buffered, n = len < room ? len : room;
		memcpy(tensor->buffer + tensor->buffered, p, n);
		tensor->buffered += n;
		p += n;
		len -= n;
		if (tensor->buffered == tensor->buffer_bytes && flush(writer, tensor) < 0)
			return writer->error;
	}
	return 0;
}

const char *torch_writer_error(const struct torch_writer *writer) { return writer->errstr; }

uint64_t torch_writer_file_bytes(const struct torch_writer *writer) { return writer->file_bytes; }

/* ---- finishing ---- */

static int write_rest(struct torch_writer *writer)
{
	for (size_t i = 0; i < writer->n_tensors; i++) {
		struct tensor *tensor = &writer->tensors[i];
		if (flush(writer, tensor) < 0)
			return writer->error;
		if (tensor->written != tensor->record.size)
			return FAIL(writer, ENODATA, "%s: tensor %s has %llu of its %llu bytes", writer->file_name, tensor->name,
				    (unsigned long long)tensor->written, (unsigned long long)tensor->record.size);
	}
	struct emit_bytes central = {0};
	int r = 0;
	for (size_t i = 0; !r && i < n_records(writer); i++) {
		const struct emit_record *record = nth_record(writer, i);
		unsigned char header[EMIT_LOCAL_BYTES_MAX];
		emit_central(record, &central);
		r = write_at(writer, header, emit_local(record, header), record->header_offset, record->name);
	}
	emit_end(n_records(writer), writer->central_offset, writer->central_bytes, &central);
	if (!r && (central.error || central.len != writer->file_bytes - writer->central_offset))
		r = fail_step(writer, central.error ? -central.error : EINVAL, "build the zip's directory");
	if (!r)
		r = write_at(writer, central.data, central.len, writer->central_offset, "the zip's directory");
	free(central.data);
	return r;
}

int torch_writer_finish(struct torch_writer *writer, char *errstr, size_t errstr_size)
{
	if (!writer->error && writer->stage != STAGE_WRITE)
		(void)FAIL(writer, EINVAL, "finish: the writer was not begun, or is finished");
	if (!writer->error && write_rest(writer) == 0 && fsync(writer->fd) < 0)
		(void)fail_step(writer, errno, "fsync");
	if (!writer->error) {
		int r = close(writer->fd);
		writer->fd = -1; /* closed whatever close() says; EINTR after an fsync loses nothing */
		if (r < 0 && errno != EINTR)
			(void)fail_step(writer, errno, "close");
	}
	if (writer->error) {
		int r = report(writer, errstr, errstr_size);
		torch_writer_abort(writer);
		return r;
	}
	writer->stage = STAGE_DONE;
	return 0;
}

void torch_writer_abort(struct torch_writer *writer)
{
	if (!writer || writer->stage == STAGE_DONE)
		return;
	if (writer->fd >= 0)
		(void)close(writer->fd);
	writer->fd = -1;
	if (writer->created)
		(void)unlinkat(writer->dir_fd, writer->file_name, 0);
	writer->created = false;
	writer->stage = STAGE_DONE;
	(void)FAIL(writer, ECANCELED, "%s: aborted", writer->file_name);
}

void torch_writer_free(struct torch_writer *writer)
{
	if (!writer)
		return;
	torch_writer_abort(writer);
	for (size_t i = 0; i < writer->n_entries; i++) {
		free(writer->entries[i].name);
		free(writer->entries[i].string);
	}
	free(writer->entries);
	free(writer->tensors);
	free(writer->buffers);
	free(writer->pickle.data);
	free(writer);
}
