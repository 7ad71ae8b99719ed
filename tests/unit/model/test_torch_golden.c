/*
 * test_torch_golden.c: what torch.save of torch 1.13 and 2.6 wrote (tests/golden/torch/make_golden.py) is read, or refused with the reason: dicts, a
 * state_dict, views, parameters, nested containers, dtypes and layouts that recd does not use, other kinds of file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/model/torch_testing.h"

static char errstr[512];

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

static struct torch_reader *open_ok(const char *path)
{
	struct torch_reader *reader = NULL;
	if (torch_reader_open(AT_FDCWD, path, 0, &reader, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	return reader;
}

static float float_at(const struct torch_reader *reader, const char *name, uint64_t i)
{
	const struct torch_tensor *t;
	float value;
	if (torch_reader_find_tensor(reader, name, &t, errstr, sizeof errstr) < 0)
		fail_msg("%s", errstr);
	assert_int_equal(t->dtype, TORCH_F32);
	assert_int_equal(torch_reader_read(reader, t, 4 * i, &value, sizeof value, errstr, sizeof errstr), 0);
	return value;
}

static void check_shape(const struct torch_reader *reader, const char *name, enum torch_dtype dtype, unsigned n_dims, uint64_t a, uint64_t b)
{
	const struct torch_tensor *t;
	assert_int_equal(torch_reader_find_tensor(reader, name, &t, errstr, sizeof errstr), 0);
	assert_int_equal(t->dtype, dtype);
	assert_int_equal(t->n_dims, n_dims);
	assert_int_equal(t->shape[0], a);
	assert_int_equal(t->shape[1], b);
}

static void check_golden_dict(struct torch_reader *reader)
{
	const struct torch_tensor *t;
	int64_t ids[5];
	int32_t small[3];
	unsigned char bytes[3];
	check_shape(reader, "U", TORCH_F32, 2, 5, 3);
	assert_true(float_at(reader, "U", 14) == 3.5f && float_at(reader, "V", 11) == -11.0f && float_at(reader, "bu", 4) == 4.0f);
	check_shape(reader, "user_ids", TORCH_I64, 1, 5, 0);
	(void)torch_reader_find_tensor(reader, "user_ids", &t, errstr, sizeof errstr);
	assert_int_equal(torch_reader_read(reader, t, 0, ids, sizeof ids, errstr, sizeof errstr), 0);
	assert_true(ids[4] == 4 * 1000000007LL + 9000000000LL);
	(void)torch_reader_find_tensor(reader, "i32", &t, errstr, sizeof errstr);
	assert_int_equal(torch_reader_read(reader, t, 0, small, sizeof small, errstr, sizeof errstr), 0);
	assert_true(small[0] == -1 && small[1] == INT32_MAX && small[2] == INT32_MIN);
	(void)torch_reader_find_tensor(reader, "u8", &t, errstr, sizeof errstr);
	assert_int_equal(torch_reader_read(reader, t, 0, bytes, sizeof bytes, errstr, sizeof errstr), 0);
	assert_true(bytes[0] == 0 && bytes[1] == 127 && bytes[2] == 255);
	check_shape(reader, "empty", TORCH_F32, 1, 0, 0);
	check_shape(reader, "empty_rows", TORCH_F32, 2, 0, 3);
	check_shape(reader, "empty_columns", TORCH_I64, 2, 3, 0);
	check_shape(reader, "scalar", TORCH_F32, 0, 0, 0);
	assert_true(float_at(reader, "scalar", 0) == 2.5f);
	check_shape(reader, "slice", TORCH_F32, 1, 10, 0); /* views with an offset into a shared storage */
	assert_true(float_at(reader, "slice", 0) == 3.0f && float_at(reader, "slice", 9) == 12.0f && float_at(reader, "again", 19) == 19.0f);
	check_shape(reader, "one_row", TORCH_F32, 2, 1, 3);
	assert_true(float_at(reader, "one_row", 2) == 5.0f);
	assert_true(float_at(reader, "parameter", 3) == 3.0f);
	check_int(reader, "epoch", 3);
	check_int(reader, "big", 1LL << 40);
	check_int(reader, "negative", -5);
	check_int(reader, "smallest", INT64_MIN);
	check_string(reader, "name", "gowalla");
	check_string(reader, "unicode", "фильм");
	int64_t integer = 0;
	static const char *const skipped[] = {"huge", "yes", "rate", "nothing", "nested", "tuple"};
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(torch_reader_find_int(reader, skipped[i], &integer, errstr, sizeof errstr), -EPROTOTYPE);
	assert_int_equal(torch_reader_find_int(reader, "lr", &integer, errstr, sizeof errstr), -ENOENT); /* inside "nested" */
	assert_int_equal(torch_reader_n_tensors(reader), 16);
}

static void check_golden_odd(struct torch_reader *reader)
{
	static const char *const reasons[][2] = {{"half", "dtype float16"}, {"double", "dtype float64"}, {"bf16", "dtype bfloat16"}, {"bool", "dtype bool"},
						  {"i16", "dtype int16"}, {"i8", "dtype int8"}, {"c64", "dtype complex64"}, {"three", "3 dimensions"},
						  {"transposed", "not contiguous (shape 3 x 2, strides 1, 3)"}, {"strided", "not contiguous (shape 10, stride 2)"},
						  {"expanded", "not contiguous (shape 4, stride 0)"}};
	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
		const struct torch_tensor *t = NULL;
		assert_int_equal(torch_reader_find_tensor(reader, reasons[i][0], &t, errstr, sizeof errstr), -ENOTSUP);
		if (!strstr(errstr, reasons[i][1]))
			fail_msg("'%s' does not say '%s'", errstr, reasons[i][1]);
		assert_null(t);
	}
	assert_true(float_at(reader, "good", 2) == 2.0f);
	assert_int_equal(torch_reader_n_tensors(reader), 12);
}

static void torch_golden(void **state)
{
	(void)state;
	static const char *const versions[] = {"1.13", "2.6"};
	static const struct {
		const char *kind;
		int error;
		const char *text;
	} refused[] = {{"tensor", -ENOTSUP, "something else than a dict"}, {"module", -ENOTSUP, "refused global __main__.Model"},
		       {"protocol-4", -ENOTSUP, "protocol 4"}, {"old-format", -EBADMSG, "not a PyTorch file"}};
	char path[128];
	for (size_t v = 0; v < 2; v++) {
		(void)snprintf(path, sizeof path, GOLDEN "torch-%s-dict.pt", versions[v]);
		struct torch_reader *reader = open_ok(path);
		check_golden_dict(reader);
		torch_reader_close(reader);
		(void)snprintf(path, sizeof path, GOLDEN "torch-%s-odd.pt", versions[v]);
		reader = open_ok(path);
		check_golden_odd(reader);
		torch_reader_close(reader);
		(void)snprintf(path, sizeof path, GOLDEN "torch-%s-state-dict.pt", versions[v]);
		reader = open_ok(path);
		assert_int_equal(torch_reader_n_tensors(reader), 3);
		assert_true(float_at(reader, "user.weight", 23) == 23.0f && float_at(reader, "item.weight", 11) == -11.0f && float_at(reader, "bias", 2) == 2.0f);
		torch_reader_close(reader);
		for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
			(void)snprintf(path, sizeof path, GOLDEN "torch-%s-%s.pt", versions[v], refused[i].kind);
			assert_int_equal(torch_reader_open(AT_FDCWD, path, 0, &reader, errstr, sizeof errstr), refused[i].error);
			if (!strstr(errstr, refused[i].text))
				fail_msg("'%s' does not say '%s'", errstr, refused[i].text);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(torch_golden)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
