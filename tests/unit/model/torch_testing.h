/*
 * torch_testing.h: for the tests of the PyTorch files: a scratch directory, files from bytes in memory, hand-made archives around any pickle, and one
 * number over everything that a reader gives out.
 */
#ifndef TESTS_UNIT_MODEL_TORCH_TESTING_H
#define TESTS_UNIT_MODEL_TORCH_TESTING_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer/model/torch_emit.h"
#include "trainer/model/torch_file.h"
#include "trainer/model/torch_zip.h"

#define GOLDEN "tests/golden/torch/"

static inline void die(const char *what)
{
	perror(what);
	abort();
}

/* A file in memory; given to torch_reader_open() by its path under /proc. */
struct memory_file {
	int fd;
	char path[64];
};

static inline struct memory_file memory_file_new(void)
{
	struct memory_file file = {.fd = memfd_create("recd-test", MFD_CLOEXEC)};
	if (file.fd < 0)
		die("memfd_create");
	(void)snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
	return file;
}

static inline void memory_file_set(const struct memory_file *file, const void *data, size_t len)
{
	if (ftruncate(file->fd, 0) < 0 || (len && pwrite(file->fd, data, len, 0) != (ssize_t)len))
		die("write to a file in memory");
}

static inline int memory_file_open(const struct memory_file *file, struct torch_reader **ret_reader, char *errstr, size_t errstr_size)
{
	return torch_reader_open(AT_FDCWD, file->path, TORCH_FOLLOW_LINK, ret_reader, errstr, errstr_size);
}

/* The bytes of a file, for free(). */
static inline unsigned char *slurp(int dir_fd, const char *path, size_t *ret_len)
{
	struct stat st;
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	unsigned char *data = malloc((size_t)st.st_size + 1);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		die(path);
	(void)close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

struct part {
	const char *name; /* below "archive/" */
	const void *data;
	size_t len;
};

/* A stored zip with right CRCs around `parts`, whatever they are. */
static inline struct emit_bytes make_archive(const struct part *parts, size_t n)
{
	struct emit_bytes out = {0}, central = {0};
	for (size_t i = 0; i < n; i++) {
		struct emit_record record = {.header_offset = out.len, .size = parts[i].len, .crc = torch_crc32(0, parts[i].data, parts[i].len)};
		unsigned char header[EMIT_LOCAL_BYTES_MAX];
		(void)snprintf(record.name, sizeof record.name, "archive/%s", parts[i].name);
		record.payload_offset = (out.len + emit_local_bytes(&record) + 63) / 64 * 64;
		emit_put(&out, header, emit_local(&record, header));
		emit_put(&out, parts[i].data, parts[i].len);
		emit_central(&record, &central);
	}
	size_t central_offset = out.len;
	emit_put(&out, central.data, central.len);
	emit_end(n, central_offset, central.len, &out);
	free(central.data);
	if (out.error)
		die("make an archive");
	return out;
}

static inline uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

/* One number over all tensors (names, dtypes, shapes, reasons, bytes), in file order. */
static inline uint64_t digest(const struct torch_reader *reader)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < torch_reader_n_tensors(reader); i++) {
		const struct torch_tensor *t = torch_reader_tensor(reader, i);
		unsigned char chunk[4096];
		char errstr[256];
		h = mix(h, t->name, strlen(t->name) + 1);
		if (t->unsupported)
			h = mix(h, t->unsupported, strlen(t->unsupported) + 1);
		h = mix(h, &t->dtype, sizeof t->dtype);
		h = mix(h, &t->n_dims, sizeof t->n_dims);
		h = mix(h, t->shape, sizeof t->shape);
		for (uint64_t at = 0; at < t->bytes;) {
			size_t n = t->bytes - at < sizeof chunk ? (size_t)(t->bytes - at) : sizeof chunk;
			if (torch_reader_read(reader, t, at, chunk, n, errstr, sizeof errstr) < 0)
				return 0;
			h = mix(h, chunk, n);
			at += n;
		}
	}
	return h;
}

#endif
