/*
 * test_torch_damage.c: damaged PyTorch files (FAILURES rows 38 and 41). Every truncation and every single-bit flip of a small file is refused: recd's own, and
 * those of torch 1.13 and 2.6. There is no harmless place: bytes that no CRC covers (headers, padding, the zip's directory) are compared with the one
 * value they can have. Then files that lie about sizes with right CRCs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/model/torch_testing.h"

static const char *const whole[] = {GOLDEN "recd-1.pt", GOLDEN "torch-1.13-state-dict.pt", GOLDEN "torch-2.6-state-dict.pt"};
#define N_WHOLE (sizeof whole / sizeof whole[0])

static char errstr[512];

/* 0 when the file is accepted. */
static int try_open(const struct memory_file *file)
{
	struct torch_reader *reader = NULL;
	errstr[0] = 0;
	int r = memory_file_open(file, &reader, errstr, sizeof errstr);
	if (r < 0) {
		assert_null(reader);
		assert_true(errstr[0] != 0);
	}
	torch_reader_close(reader);
	return r;
}

static void every_truncation(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	for (size_t f = 0; f < N_WHOLE; f++) {
		size_t len;
		unsigned char *data = slurp(AT_FDCWD, whole[f], &len);
		memory_file_set(&file, data, len);
		assert_int_equal(try_open(&file), 0);
		for (size_t n = 0; n < len; n++) {
			memory_file_set(&file, data, n);
			if (try_open(&file) != -EBADMSG)
				fail_msg("%s cut to %zu bytes: %s", whole[f], n, errstr);
		}
		free(data);
	}
	(void)close(file.fd);
}

static void every_bit_flip(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	for (size_t f = 0; f < N_WHOLE; f++) {
		size_t len;
		unsigned char *data = slurp(AT_FDCWD, whole[f], &len);
		memory_file_set(&file, data, len);
		assert_int_equal(try_open(&file), 0);
		for (size_t i = 0; i < len; i++) {
			for (int bit = 0; bit < 8; bit++) {
				unsigned char flipped = data[i] ^ (unsigned char)(1 << bit);
				if (pwrite(file.fd, &flipped, 1, (off_t)i) != 1)
					die("pwrite");
				if (try_open(&file) == 0)
					fail_msg("%s with bit %d of byte %zu flipped is accepted", whole[f], bit, i);
			}
			if (pwrite(file.fd, &data[i], 1, (off_t)i) != 1)
				die("pwrite");
		}
		free(data);
	}
	(void)close(file.fd);
}

/* Bytes before, after and twice; one byte put in or taken out anywhere. */
static void shifted_bytes(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	size_t len;
	unsigned char *data = slurp(AT_FDCWD, whole[0], &len), *copy = malloc(2 * len + 1);
	assert_non_null(copy);
	memcpy(copy, data, len);
	memcpy(copy + len, data, len);
	memory_file_set(&file, copy, 2 * len);
	assert_int_equal(try_open(&file), -EBADMSG);
	for (size_t i = 0; i <= len; i++) {
		memcpy(copy, data, i);
		copy[i] = 0;
		memcpy(copy + i + 1, data + i, len - i);
		memory_file_set(&file, copy, len + 1);
		if (try_open(&file) == 0)
			fail_msg("a byte put in at %zu is accepted", i);
		if (i == len)
			break;
		memcpy(copy + i, data + i + 1, len - i - 1);
		memory_file_set(&file, copy, len - 1);
		if (try_open(&file) == 0)
			fail_msg("byte %zu taken out is accepted", i);
	}
	free(data);
	free(copy);
	(void)close(file.fd);
}

/* ---- lies about sizes ---- */

/* A small good archive; returns where its end records begin. */
static struct emit_bytes small_archive(size_t *ret_end64)
{
	static const unsigned char zeros[12] = {0};
	static const char pickle[] = "\x80\x02}(X\x01\0\0\0Uctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
				     "0X\x03\0\0\0cpuK\x03tQK\0(K\x03t(K\x01t\x89" "ccollections\nOrderedDict\n)RtRu.";
	const struct part parts[] = {{"data.pkl", pickle, sizeof pickle - 1}, {"version", "3\n", 2}, {"data/0", zeros, sizeof zeros}};
	struct emit_bytes file = make_archive(parts, 3);
	*ret_end64 = file.len - ZIP_END_BYTES - ZIP_LOCATOR_BYTES - ZIP_END64_BYTES;
	return file;
}

static void expect(const struct memory_file *file, const struct emit_bytes *bytes, int error, const char *text)
{
	memory_file_set(file, bytes->data, bytes->len);
	assert_int_equal(try_open(file), error);
	if (text && !strstr(errstr, text))
		fail_msg("'%s' does not say '%s'", errstr, text);
}

/* Each claim would need memory or reads far beyond the file; none may be -ENOMEM, which would mean that it was believed. */
static void huge_claims(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	size_t end64;
	struct emit_bytes bytes = small_archive(&end64);
	unsigned char *end = bytes.data + bytes.len - ZIP_END_BYTES;
	const uint64_t central = le64_get(bytes.data + end64 + 48);
	expect(&file, &bytes, 0, NULL);
	static const uint64_t claims[] = {4, 0xffff, 0x10000, 0xffffffff, 1ull << 40, 1ull << 63, UINT64_MAX};
	for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
		const uint64_t n = claims[i];
		le64_put(bytes.data + end64 + 24, n);
		le64_put(bytes.data + end64 + 32, n);
		le16_put(end + 8, (uint16_t)(n < ZIP_LIMIT16 ? n : ZIP_LIMIT16));
		le16_put(end + 10, (uint16_t)(n < ZIP_LIMIT16 ? n : ZIP_LIMIT16));
		expect(&file, &bytes, -EBADMSG, "central directory");
	}
	free(bytes.data);
	for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
		bytes = small_archive(&end64);
		end = bytes.data + bytes.len - ZIP_END_BYTES;
		le64_put(bytes.data + end64 + 40, claims[i]);
		le32_put(end + 12, (uint32_t)(claims[i] < ZIP_LIMIT32 ? claims[i] : ZIP_LIMIT32));
		expect(&file, &bytes, -EBADMSG, "central directory does not end");
		free(bytes.data);
		bytes = small_archive(&end64);
		end = bytes.data + bytes.len - ZIP_END_BYTES;
		le64_put(bytes.data + end64 + 48, claims[i]);
		le32_put(end + 16, (uint32_t)(claims[i] < ZIP_LIMIT32 ? claims[i] : ZIP_LIMIT32));
		expect(&file, &bytes, -EBADMSG, "central directory does not end");
		free(bytes.data);
		/* the pickle's own size, in both headers */
		bytes = small_archive(&end64);
		const uint32_t size = (uint32_t)(claims[i] < ZIP_LIMIT32 ? claims[i] : ZIP_LIMIT32 - 1);
		le32_put(bytes.data + 18, size);
		le32_put(bytes.data + 22, size);
		le32_put(bytes.data + central + 20, size);
		le32_put(bytes.data + central + 24, size);
		expect(&file, &bytes, -EBADMSG, size > bytes.len ? "goes beyond the file" : NULL);
		/* where its header is */
		le32_put(bytes.data + central + 42, size);
		expect(&file, &bytes, -EBADMSG, NULL);
		free(bytes.data);
	}
	(void)close(file.fd);
}

static void wrong_structure(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	static const char empty[] = "\x80\x02}.";
	const struct part pickle = {"data.pkl", empty, 4}, version = {"version", "3\n", 2};
	const struct {
		struct part parts[4];
		size_t n;
		int error;
		const char *text;
	} cases[] = {
		{{pickle, version}, 2, 0, NULL},
		{{version, pickle}, 2, -EBADMSG, "first record is not data.pkl"},
		{{pickle}, 1, -EBADMSG, "no record 'version'"},
		{{pickle, {"version", "", 0}}, 2, -ENOTSUP, "version"},
		{{pickle, {"version", "0\n", 2}}, 2, -ENOTSUP, "version"},
		{{pickle, {"version", "11\n", 3}}, 2, -ENOTSUP, "version"},
		{{pickle, {"version", "3\0\n", 3}}, 2, -ENOTSUP, "version"},
		{{pickle, {"version", "3 and much more text", 20}}, 2, -EBADMSG, "too many"},
		{{pickle, version, version}, 3, -EBADMSG, "two zip records have one name"},
		{{pickle, version, pickle}, 3, -EBADMSG, "two zip records have one name"},
		{{pickle, version, {"byteorder", "little", 6}}, 3, 0, NULL},
		{{pickle, version, {"byteorder", "big", 3}}, 3, -ENOTSUP, "not little-endian"},
		{{pickle, version, {"byteorder", "little\n", 7}}, 3, -ENOTSUP, "not little-endian"},
		{{pickle, version, {"", "x", 1}}, 3, -EBADMSG, "outside the archive's folder"},
		{{pickle, version, {"code/x.py", "import os", 9}}, 3, 0, NULL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct emit_bytes bytes = make_archive(cases[i].parts, cases[i].n);
		expect(&file, &bytes, cases[i].error, cases[i].text);
		free(bytes.data);
	}
	/* compressed and encrypted records, an archive comment */
	struct emit_bytes bytes = make_archive(cases[0].parts, 2);
	const uint64_t central = le64_get(bytes.data + bytes.len - ZIP_END_BYTES - ZIP_LOCATOR_BYTES - 8);
	bytes.data[central + 10] = 8;
	expect(&file, &bytes, -ENOTSUP, "compressed");
	bytes.data[central + 10] = 0;
	bytes.data[central + 8] |= 1;
	expect(&file, &bytes, -EBADMSG, NULL);
	bytes.data[central + 8] &= 0xfe;
	expect(&file, &bytes, 0, NULL);
	bytes.data[bytes.len - 2] = 1;
	emit_put(&bytes, "x", 1);
	expect(&file, &bytes, -EBADMSG, NULL);
	free(bytes.data);
	(void)close(file.fd);
}

/* Bytes that belong to no record, and an old end record that disagrees with the new one. */
static void gaps_and_contradictions(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	size_t end64;
	struct emit_bytes bytes = small_archive(&end64), wider = {0};
	const size_t central = (size_t)le64_get(bytes.data + end64 + 48), gap = 64;
	static const unsigned char zeros[64];
	emit_put(&wider, bytes.data, central);
	emit_put(&wider, zeros, gap);
	emit_put(&wider, bytes.data + central, bytes.len - central);
	unsigned char *end = wider.data + wider.len - ZIP_END_BYTES;
	le64_put(wider.data + end64 + gap + 48, central + gap);
	le64_put(end - ZIP_LOCATOR_BYTES + 8, end64 + gap);
	le32_put(end + 16, (uint32_t)(central + gap));
	expect(&file, &wider, -EBADMSG, "between its last record and its directory");
	free(wider.data);
	end = bytes.data + bytes.len - ZIP_END_BYTES;
	le16_put(end + 8, 2);
	le16_put(end + 10, 2);
	expect(&file, &bytes, -EBADMSG, "zip end record is damaged");
	free(bytes.data);
	(void)close(file.fd);
}

/* Without the zip64 end records (as other zip tools write small archives). */
static void old_end_record(void **state)
{
	(void)state;
	const struct memory_file file = memory_file_new();
	size_t end64;
	struct emit_bytes bytes = small_archive(&end64);
	memmove(bytes.data + end64, bytes.data + bytes.len - ZIP_END_BYTES, ZIP_END_BYTES);
	bytes.len = end64 + ZIP_END_BYTES;
	expect(&file, &bytes, 0, NULL);
	for (size_t n = 0; n < bytes.len; n++) {
		memory_file_set(&file, bytes.data, n);
		assert_int_equal(try_open(&file), -EBADMSG);
	}
	for (size_t bit = 0; bit < 8 * bytes.len; bit++) {
		bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
		memory_file_set(&file, bytes.data, bytes.len);
		if (try_open(&file) == 0)
			fail_msg("bit %zu of byte %zu flipped is accepted", bit % 8, bit / 8);
		bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	free(bytes.data);
	(void)close(file.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_truncation), cmocka_unit_test(every_bit_flip),  cmocka_unit_test(shifted_bytes),
		cmocka_unit_test(huge_claims),      cmocka_unit_test(wrong_structure), cmocka_unit_test(old_end_record),
		cmocka_unit_test(gaps_and_contradictions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
