/*
 * test_torch_file.c: PyTorch files written and read again: every dtype and shape, appends in any interleaving, what is refused, the bytes of the format (golden
 * file). Also a small tool for the Python tests:
 *
 *     test_torch_file --golden FILE    writes the golden file of recd's own format
 *     test_torch_file --write DIR      writes files that torch then loads
 *     test_torch_file --dump FILE      prints a line for each tensor: name, dtype, shape, CRC-32 of its bytes (or why it cannot be used)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/model/torch_testing.h"

static char scratch[] = "/tmp/recd-torch-XXXXXX";
static int scratch_fd = -1;
static char errstr[512];

static int make_scratch(void **state)
{
	(void)state;
	if (!mkdtemp(scratch) || (scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return -1;
	return 0;
}

static int remove_scratch(void **state)
{
	(void)state;
	(void)close(scratch_fd);
	return rmdir(scratch); /* fails when a test left a file behind */
}

static uint64_t random_state = 88172645463325252u;
static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* ---- a file with everything, from a table ---- */

struct spec {
	const char *name;
	enum torch_dtype dtype;
	unsigned n_dims;
	uint64_t shape[2];
};

static const struct spec specs[] = {
	{"U", TORCH_F32, 2, {37, 5}},      {"V", TORCH_F32, 2, {1, 64}},        {"bu", TORCH_F32, 1, {37, 0}},         {"user_ids", TORCH_I64, 1, {37, 0}},
	{"counts", TORCH_I32, 2, {7, 3}},  {"names", TORCH_U8, 1, {1001, 0}},   {"scalar", TORCH_I64, 0, {0, 0}},      {"none", TORCH_F32, 1, {0, 0}},
	{"no_rows", TORCH_F32, 2, {0, 8}}, {"no_columns", TORCH_I32, 2, {8, 0}}, {"one", TORCH_U8, 2, {1, 1}},          {"no_bytes", TORCH_U8, 1, {0, 0}},
};
#define N_SPECS (sizeof specs / sizeof specs[0])

static uint64_t spec_bytes(const struct spec *s)
{
	uint64_t n = torch_dtype_bytes(s->dtype);
	for (unsigned i = 0; i < s->n_dims; i++)
		n *= s->shape[i];
	return n;
}

/* Bytes that differ between tensors and are no NaN. */
static unsigned char payload_byte(size_t tensor, uint64_t i) { return (unsigned char)((i * 7 + tensor * 31 + (i >> 8)) % 97); }

static void declare_all(struct torch_writer *writer)
{
	for (size_t i = 0; i < N_SPECS; i++)
		assert_int_equal(torch_writer_add_tensor(writer, specs[i].name, specs[i].dtype, specs[i].n_dims, specs[i].shape), (int)i);
	assert_int_equal(torch_writer_add_int(writer, "small", 7), 0);
	assert_int_equal(torch_writer_add_int(writer, "byte", 255), 0);
	assert_int_equal(torch_writer_add_int(writer, "word", 256), 0);
	assert_int_equal(torch_writer_add_int(writer, "minus", -1), 0);
	assert_int_equal(torch_writer_add_int(writer, "int32_min", INT32_MIN), 0);
	assert_int_equal(torch_writer_add_int(writer, "above_int32", (int64_t)INT32_MAX + 1), 0);
	assert_int_equal(torch_writer_add_int(writer, "max", INT64_MAX), 0);
	assert_int_equal(torch_writer_add_int(writer, "min", INT64_MIN), 0);
	assert_int_equal(torch_writer_add_string(writer, "lr", "0.02"), 0);
	assert_int_equal(torch_writer_add_string(writer, "empty_string", ""), 0);
	assert_int_equal(torch_writer_add_string(writer, "фильм", "line\nwith \"quotes\" и юникод \xf0\x9f\x8e\xac"), 0);
}

/* Appends all tensors in pieces of random size in random order. */
static void append_all(struct torch_writer *writer, size_t piece_max)
{
	uint64_t done[N_SPECS] = {0}, left = 0;
	unsigned char piece[4096];
	for (size_t i = 0; i < N_SPECS; i++)
		left += spec_bytes(&specs[i]);
	while (left) {
		size_t i = random_next() % N_SPECS, n = random_next() % piece_max + 1;
		if (n > spec_bytes(&specs[i]) - done[i])
			n = (size_t)(spec_bytes(&specs[i]) - done[i]);
		for (size_t j = 0; j < n; j++)
			piece[j] = payload_byte(i, done[i] + j);
		assert_int_equal(torch_writer_append(writer, (unsigned)i, piece, n), 0);
		done[i] += n;
		left -= n;
	}
}

static void write_all(int dir_fd, const char *name, size_t buffer_bytes, uint64_t wide_from, uint64_t far_from, size_t piece_max)
{
	struct torch_writer *writer = torch_writer_new(buffer_bytes);
	assert_non_null(writer);
	if (wide_from)
		torch_writer_zip64_from(writer, wide_from, far_from);
	declare_all(writer);
	if (torch_writer_begin(writer, dir_fd, name, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	append_all(writer, piece_max);
	if (torch_writer_finish(writer, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	struct stat st;
	assert_int_equal(fstatat(dir_fd, name, &st, 0), 0);
	assert_int_equal(st.st_size, torch_writer_file_bytes(writer));
	torch_writer_free(writer);
}

static void check_int(const struct torch_reader *reader, const char *name, int64_t expected)
{
	int64_t value = 0;
	assert_int_equal(torch_reader_find_int(reader, name, &value, errstr, sizeof errstr), 0);
	assert_true(value == expected);
}

static void check_string(const struct torch_reader *reader, const char *name, const char *expected)
{
	const char *value = NULL;
	assert_int_equal(torch_reader_find_string(reader, name, &value, errstr, sizeof errstr), 0);
	assert_string_equal(value, expected);
}

static void check_all(struct torch_reader *reader)
{
	assert_int_equal(torch_reader_n_tensors(reader), N_SPECS);
	assert_null(torch_reader_tensor(reader, N_SPECS));
	for (size_t i = 0; i < N_SPECS; i++) {
		const struct torch_tensor *t = torch_reader_tensor(reader, i), *found = NULL;
		const void *mapped = NULL;
		assert_string_equal(t->name, specs[i].name); /* the order of declaration */
		assert_int_equal(torch_reader_find_tensor(reader, specs[i].name, &found, errstr, sizeof errstr), 0);
		assert_ptr_equal(t, found);
		assert_null(t->unsupported);
		assert_int_equal(t->dtype, specs[i].dtype);
		assert_int_equal(t->n_dims, specs[i].n_dims);
		for (unsigned d = 0; d < t->n_dims; d++)
			assert_int_equal(t->shape[d], specs[i].shape[d]);
		assert_int_equal(t->bytes, spec_bytes(&specs[i]));
		assert_int_equal(t->n_elements * torch_dtype_bytes(t->dtype), t->bytes);
		assert_int_equal(t->file_offset % 64, 0);
		unsigned char *copy = malloc((size_t)t->bytes + 1);
		assert_non_null(copy);
		assert_int_equal(torch_reader_read(reader, t, 0, copy, (size_t)t->bytes, errstr, sizeof errstr), 0);
		assert_int_equal(torch_reader_map(reader, t, &mapped, errstr, sizeof errstr), 0);
		assert_non_null(mapped);
		assert_memory_equal(copy, mapped, (size_t)t->bytes);
		for (uint64_t j = 0; j < t->bytes; j++)
			if (copy[j] != payload_byte(i, j))
				fail_msg("%s: byte %llu differs", t->name, (unsigned long long)j);
		free(copy);
	}
	check_int(reader, "small", 7);
	check_int(reader, "byte", 255);
	check_int(reader, "word", 256);
	check_int(reader, "minus", -1);
	check_int(reader, "int32_min", INT32_MIN);
	check_int(reader, "above_int32", (int64_t)INT32_MAX + 1);
	check_int(reader, "max", INT64_MAX);
	check_int(reader, "min", INT64_MIN);
	check_string(reader, "lr", "0.02");
	check_string(reader, "empty_string", "");
	check_string(reader, "фильм", "line\nwith \"quotes\" и юникод \xf0\x9f\x8e\xac");
}

static struct torch_reader *open_ok(int dir_fd, const char *path)
{
	struct torch_reader *reader = NULL;
	if (torch_reader_open(dir_fd, path, 0, &reader, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	return reader;
}

static void round_trip(void **state)
{
	(void)state;
	const struct {
		size_t buffer_bytes, piece_max;
		uint64_t wide_from, far_from;
	} ways[] = {{0, 100, 0, 0}, {1, 7, 0, 0}, {4096, 4096, 0, 0}, {0, 4096, 1, 1}, {0, 64, 300, 3000}, {0, 64, 1, ZIP_LIMIT32}};
	for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
		write_all(scratch_fd, "a.pt", ways[i].buffer_bytes, ways[i].wide_from, ways[i].far_from, ways[i].piece_max);
		struct torch_reader *reader = open_ok(scratch_fd, "a.pt");
		check_all(reader);
		torch_reader_close(reader);
		assert_int_equal(unlinkat(scratch_fd, "a.pt", 0), 0);
	}
}

/* Buffers smaller than the tensor, appends larger than the buffer, and both mixed. */
static void large_tensors(void **state)
{
	(void)state;
	const uint64_t shape[2][2] = {{700001, 0}, {1 << 10, 300}};
	const size_t bytes[2] = {700001, (4 << 10) * 300};
	unsigned char *data[2];
	for (int k = 0; k < 2; k++) {
		data[k] = malloc(bytes[k]);
		assert_non_null(data[k]);
		for (size_t i = 0; i < bytes[k]; i++)
			data[k][i] = payload_byte((size_t)k, i);
	}
	struct torch_writer *writer = torch_writer_new(5000);
	assert_int_equal(torch_writer_add_tensor(writer, "bytes", TORCH_U8, 1, shape[0]), 0);
	assert_int_equal(torch_writer_add_tensor(writer, "floats", TORCH_F32, 2, shape[1]), 1);
	assert_int_equal(torch_writer_begin(writer, scratch_fd, "big.pt", errstr, sizeof errstr), 0);
	for (size_t at[2] = {0}; at[0] < bytes[0] || at[1] < bytes[1];) {
		size_t k = random_next() & 1, n = random_next() % (random_next() % 8 ? 700 : 300000);
		n = n < bytes[k] - at[k] ? n : bytes[k] - at[k];
		assert_int_equal(torch_writer_append(writer, (unsigned)k, data[k] + at[k], n), 0);
		at[k] += n;
	}
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), 0);
	torch_writer_free(writer);
	struct torch_reader *reader = open_ok(scratch_fd, "big.pt");
	for (int k = 0; k < 2; k++) {
		const void *mapped;
		assert_int_equal(torch_reader_map(reader, torch_reader_tensor(reader, (size_t)k), &mapped, errstr, sizeof errstr), 0);
		assert_memory_equal(mapped, data[k], bytes[k]);
		free(data[k]);
	}
	torch_reader_close(reader);
	assert_int_equal(unlinkat(scratch_fd, "big.pt", 0), 0);
}

static void write_many(int dir_fd, const char *name, unsigned n)
{
	struct torch_writer *writer = torch_writer_new(0);
	char tensor[32];
	const uint64_t shape = 3;
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(tensor, sizeof tensor, "t%u", i);
		assert_int_equal(torch_writer_add_tensor(writer, tensor, TORCH_I32, 1, &shape), (int)i);
	}
	assert_int_equal(torch_writer_begin(writer, dir_fd, name, errstr, sizeof errstr), 0);
	for (unsigned i = n; i-- > 0;) {
		const int32_t values[3] = {(int32_t)i, -(int32_t)i, 5};
		assert_int_equal(torch_writer_append(writer, i, values, sizeof values), 0);
	}
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), 0);
	torch_writer_free(writer);
}

static void many_tensors(void **state)
{
	(void)state;
	write_many(scratch_fd, "many.pt", TORCH_ENTRIES_MAX);
	struct torch_reader *reader = open_ok(scratch_fd, "many.pt");
	assert_int_equal(torch_reader_n_tensors(reader), TORCH_ENTRIES_MAX);
	for (unsigned i = 0; i < TORCH_ENTRIES_MAX; i++) {
		int32_t values[3];
		const struct torch_tensor *t = torch_reader_tensor(reader, i);
		assert_int_equal(torch_reader_read(reader, t, 0, values, sizeof values, errstr, sizeof errstr), 0);
		assert_int_equal(values[0], i);
		assert_int_equal(values[1], -(int)i);
	}
	torch_reader_close(reader);
	assert_int_equal(unlinkat(scratch_fd, "many.pt", 0), 0);
}

static void empty_dict(void **state)
{
	(void)state;
	struct torch_writer *writer = torch_writer_new(0);
	assert_int_equal(torch_writer_begin(writer, scratch_fd, "empty.pt", errstr, sizeof errstr), 0);
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), 0);
	torch_writer_free(writer);
	struct torch_reader *reader = open_ok(scratch_fd, "empty.pt");
	const struct torch_tensor *t;
	assert_int_equal(torch_reader_n_tensors(reader), 0);
	assert_int_equal(torch_reader_find_tensor(reader, "U", &t, errstr, sizeof errstr), -ENOENT);
	torch_reader_close(reader);
	assert_int_equal(unlinkat(scratch_fd, "empty.pt", 0), 0);
}

/* ---- what the writer refuses ---- */

/* Declares with `declare`, and expects its error both there and from begin, and no file. */
static void refuse_declaration(int (*declare)(struct torch_writer *), int error, const char *text)
{
	struct torch_writer *writer = torch_writer_new(0);
	assert_int_equal(declare(writer), error);
	assert_int_equal(torch_writer_add_int(writer, "later", 1), error);
	assert_int_equal(torch_writer_begin(writer, scratch_fd, "x.pt", errstr, sizeof errstr), error);
	if (!strstr(errstr, text))
		fail_msg("'%s' does not say '%s'", errstr, text);
	torch_writer_free(writer);
	assert_int_equal(faccessat(scratch_fd, "x.pt", F_OK, 0), -1);
}

static const uint64_t huge[2] = {(uint64_t)1 << 40, (uint64_t)1 << 40};
static int declare_twice(struct torch_writer *w) { return torch_writer_add_int(w, "a", 1) ? 1 : torch_writer_add_string(w, "a", "x"); }
static int declare_empty_name(struct torch_writer *w) { return torch_writer_add_int(w, "", 1); }
static int declare_bad_name(struct torch_writer *w) { return torch_writer_add_int(w, "a\xff", 1); }
static int declare_bad_string(struct torch_writer *w) { return torch_writer_add_string(w, "a", "\xed\xa0\x80"); }
static int declare_three_dims(struct torch_writer *w) { return torch_writer_add_tensor(w, "a", TORCH_F32, 3, huge); }
static int declare_bad_dtype(struct torch_writer *w) { return torch_writer_add_tensor(w, "a", TORCH_DTYPE_COUNT, 1, huge); }
static int declare_huge(struct torch_writer *w) { return torch_writer_add_tensor(w, "a", TORCH_F32, 2, huge); }
static int declare_long_name(struct torch_writer *w)
{
	char name[TORCH_NAME_MAX + 2];
	memset(name, 'a', sizeof name - 1);
	name[sizeof name - 1] = 0;
	return torch_writer_add_int(w, name, 1);
}
static int declare_too_many(struct torch_writer *w)
{
	char name[32];
	for (unsigned i = 0; i < TORCH_ENTRIES_MAX; i++) {
		(void)snprintf(name, sizeof name, "e%u", i);
		if (torch_writer_add_int(w, name, 1))
			return 1;
	}
	return torch_writer_add_int(w, "one more", 1);
}

static void bad_declarations(void **state)
{
	(void)state;
	refuse_declaration(declare_twice, -EEXIST, "declare a: the name was declared before");
	refuse_declaration(declare_empty_name, -EINVAL, "a name is 1 to 255 bytes");
	refuse_declaration(declare_bad_name, -EINVAL, "declare 'a\\xff'");
	refuse_declaration(declare_long_name, -EINVAL, "a name is 1 to 255 bytes");
	refuse_declaration(declare_bad_string, -EINVAL, "not UTF-8");
	refuse_declaration(declare_three_dims, -EINVAL, "dimensions");
	refuse_declaration(declare_bad_dtype, -EINVAL, "dtype");
	refuse_declaration(declare_huge, -EOVERFLOW, "too large");
	refuse_declaration(declare_too_many, -E2BIG, "more than 4096 entries");
}

/* A writer with one tensor of ten bytes, begun. */
static struct torch_writer *begin_ten(void)
{
	const uint64_t ten = 10;
	struct torch_writer *writer = torch_writer_new(0);
	assert_int_equal(torch_writer_add_tensor(writer, "t", TORCH_U8, 1, &ten), 0);
	assert_int_equal(torch_writer_begin(writer, scratch_fd, "ten.pt", errstr, sizeof errstr), 0);
	assert_int_equal(faccessat(scratch_fd, "ten.pt", F_OK, 0), 0);
	return writer;
}

static void assert_gone(void) { assert_int_equal(faccessat(scratch_fd, "ten.pt", F_OK, 0), -1); }

static void unfinished_files_go(void **state)
{
	(void)state;
	struct torch_writer *writer = begin_ten();
	assert_int_equal(torch_writer_append(writer, 0, "123456789", 9), 0);
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), -ENODATA);
	assert_non_null(strstr(errstr, "ten.pt: tensor t has 9 of its 10 bytes"));
	assert_gone();
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), -ENODATA);
	torch_writer_free(writer);

	writer = begin_ten();
	assert_int_equal(torch_writer_append(writer, 0, "12345678901", 11), -EOVERFLOW);
	assert_int_equal(torch_writer_append(writer, 0, "1", 1), -EOVERFLOW);
	assert_non_null(strstr(torch_writer_error(writer), "append to t"));
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), -EOVERFLOW);
	assert_string_equal(errstr, torch_writer_error(writer));
	assert_gone();
	torch_writer_free(writer);

	writer = begin_ten();
	assert_int_equal(torch_writer_append(writer, 1, "1", 1), -EINVAL);
	torch_writer_free(writer);
	assert_gone();

	writer = begin_ten();
	torch_writer_abort(writer);
	assert_gone();
	assert_int_equal(torch_writer_append(writer, 0, "1", 1), -ECANCELED);
	assert_int_equal(torch_writer_finish(writer, errstr, sizeof errstr), -ECANCELED);
	torch_writer_free(writer);
	torch_writer_abort(NULL);
	torch_writer_free(NULL);
}

/* Files and links that are there already are neither followed, nor overwritten, nor removed. */
static void existing_files_stay(void **state)
{
	(void)state;
	assert_int_equal(symlinkat("elsewhere.pt", scratch_fd, "link.pt"), 0);
	int fd = openat(scratch_fd, "mine.pt", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	static const char *const names[] = {"link.pt", "mine.pt", "a/b.pt", "", "missing/c.pt"};
	const int errors[] = {-EEXIST, -EEXIST, -EINVAL, -EINVAL, -EINVAL};
	for (size_t i = 0; i < 5; i++) {
		struct torch_writer *writer = torch_writer_new(0);
		assert_int_equal(torch_writer_begin(writer, scratch_fd, names[i], errstr, sizeof errstr), errors[i]);
		torch_writer_free(writer);
	}
	assert_int_equal(faccessat(scratch_fd, "elsewhere.pt", F_OK, 0), -1);
	assert_int_equal(unlinkat(scratch_fd, "link.pt", 0), 0);
	assert_int_equal(unlinkat(scratch_fd, "mine.pt", 0), 0);
	struct torch_writer *writer = torch_writer_new(0);
	assert_int_equal(torch_writer_begin(writer, -1, "x.pt", errstr, sizeof errstr), -EBADF);
	assert_non_null(strstr(errstr, "x.pt: create: "));
	torch_writer_free(writer);
}

/* ---- what the reader says ---- */

static void reader_errors(void **state)
{
	(void)state;
	struct torch_reader *reader = NULL;
	const struct torch_tensor *t = NULL;
	const char *string;
	int64_t integer;
	unsigned char byte;
	write_all(scratch_fd, "a.pt", 0, 0, 0, 4096);
	assert_int_equal(torch_reader_open(scratch_fd, "missing.pt", 0, &reader, errstr, sizeof errstr), -ENOENT);
	assert_string_equal(errstr, "missing.pt: open: No such file or directory");
	assert_int_equal(symlinkat("a.pt", scratch_fd, "link.pt"), 0);
	assert_int_equal(torch_reader_open(scratch_fd, "link.pt", 0, &reader, errstr, sizeof errstr), -ELOOP);
	assert_int_equal(torch_reader_open(scratch_fd, "link.pt", TORCH_FOLLOW_LINK, &reader, errstr, sizeof errstr), 0);
	torch_reader_close(reader);
	reader = NULL;
	assert_int_equal(unlinkat(scratch_fd, "link.pt", 0), 0);
	assert_int_equal(mkfifoat(scratch_fd, "fifo.pt", 0600), 0);
	assert_int_equal(torch_reader_open(scratch_fd, "fifo.pt", 0, &reader, errstr, sizeof errstr), -EBADMSG);
	assert_non_null(strstr(errstr, "not a regular file"));
	assert_int_equal(unlinkat(scratch_fd, "fifo.pt", 0), 0);
	assert_int_equal(torch_reader_open(AT_FDCWD, scratch, 0, &reader, errstr, sizeof errstr), -EBADMSG);
	assert_null(reader);
	torch_reader_close(NULL);

	reader = open_ok(scratch_fd, "a.pt");
	assert_int_equal(torch_reader_find_tensor(reader, "u", &t, errstr, sizeof errstr), -ENOENT);
	assert_string_equal(errstr, "a.pt: has no 'u'");
	assert_int_equal(torch_reader_find_tensor(reader, "lr", &t, errstr, sizeof errstr), -EPROTOTYPE);
	assert_int_equal(torch_reader_find_int(reader, "lr", &integer, errstr, sizeof errstr), -EPROTOTYPE);
	assert_string_equal(errstr, "a.pt: 'lr' is no int");
	assert_int_equal(torch_reader_find_string(reader, "U", &string, errstr, sizeof errstr), -EPROTOTYPE);
	assert_null(t);
	assert_int_equal(torch_reader_find_tensor(reader, "one", &t, errstr, sizeof errstr), 0);
	assert_int_equal(torch_reader_read(reader, t, 0, &byte, 1, errstr, sizeof errstr), 0);
	assert_int_equal(torch_reader_read(reader, t, 1, &byte, 0, errstr, sizeof errstr), 0);
	assert_int_equal(torch_reader_read(reader, t, 1, &byte, 1, errstr, sizeof errstr), -EINVAL);
	assert_int_equal(torch_reader_read(reader, t, 2, &byte, 0, errstr, sizeof errstr), -EINVAL);
	assert_int_equal(torch_reader_read(reader, t, UINT64_MAX, &byte, 1, errstr, sizeof errstr), -EINVAL);
	int fd = openat(scratch_fd, "a.pt", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 100), 0);
	(void)close(fd);
	assert_int_equal(torch_reader_read(reader, t, 0, &byte, 1, errstr, sizeof errstr), -EIO);
	torch_reader_close(reader);
	assert_int_equal(unlinkat(scratch_fd, "a.pt", 0), 0);
}

/* ---- recd's own golden file ---- */

/* The same input gives the same bytes, today and in the file kept from the format's first day. */
static void own_golden(void **state)
{
	(void)state;
	size_t golden_len, len;
	unsigned char *golden = slurp(AT_FDCWD, GOLDEN "recd-1.pt", &golden_len);
	struct torch_reader *reader = open_ok(AT_FDCWD, GOLDEN "recd-1.pt");
	check_all(reader);
	torch_reader_close(reader);
	write_all(scratch_fd, "new.pt", 4096, 0, 0, 33);
	unsigned char *new = slurp(scratch_fd, "new.pt", &len);
	assert_int_equal(len, golden_len);
	assert_memory_equal(new, golden, len);
	free(golden);
	free(new);
	assert_int_equal(unlinkat(scratch_fd, "new.pt", 0), 0);
}

/* ---- the tool ---- */

static int tool_dump(const char *path)
{
	struct torch_reader *reader;
	if (torch_reader_open(AT_FDCWD, path, TORCH_FOLLOW_LINK, &reader, errstr, sizeof errstr) < 0) {
		(void)fprintf(stderr, "%s\n", errstr);
		return 1;
	}
	for (size_t i = 0; i < torch_reader_n_tensors(reader); i++) {
		const struct torch_tensor *t = torch_reader_tensor(reader, i);
		const void *data;
		if (t->unsupported) {
			printf("%s unsupported %s\n", t->name, t->unsupported);
			continue;
		}
		if (torch_reader_map(reader, t, &data, errstr, sizeof errstr) < 0)
			return 1;
		printf("%s %s (", t->name, torch_dtype_name(t->dtype));
		for (unsigned d = 0; d < t->n_dims; d++)
			printf("%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
		printf(") %08x\n", torch_crc32(0, data, (size_t)t->bytes));
	}
	torch_reader_close(reader);
	return 0;
}

static int tool(const char *mode, const char *path)
{
	if (strcmp(mode, "--dump") == 0)
		return tool_dump(path);
	if (strcmp(mode, "--golden") == 0) {
		write_all(AT_FDCWD, "recd-1.pt.new", 0, 0, 0, 33);
		return rename("recd-1.pt.new", path) < 0;
	}
	if (strcmp(mode, "--write") != 0)
		return 2;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 1;
	write_all(fd, "all.pt", 0, 0, 0, 50);
	write_all(fd, "zip64.pt", 0, 1, ZIP_LIMIT32, 50);
	write_many(fd, "many.pt", 300);
	(void)close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),          cmocka_unit_test(large_tensors),       cmocka_unit_test(many_tensors),
		cmocka_unit_test(empty_dict),          cmocka_unit_test(bad_declarations),    cmocka_unit_test(unfinished_files_go),
		cmocka_unit_test(existing_files_stay), cmocka_unit_test(reader_errors),       cmocka_unit_test(own_golden),
	};
	if (argc == 3)
		return tool(argv[1], argv[2]);
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
