/*
 * test_torch_pickle.c: hostile and odd pickles (FAILURES rows 41 and 57), each in an archive with right CRCs. Nothing from a file is run: an opcode, a global or a
 * call outside the tensor subset makes the file refused, and says which. Sizes, offsets and memo numbers are checked before they are used.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/model/torch_testing.h"

static char errstr[512];
static struct memory_file file;

static int make_file(void **state)
{
	(void)state;
	file = memory_file_new();
	return 0;
}

static int close_file(void **state)
{
	(void)state;
	return close(file.fd);
}

/* Opens an archive with this pickle and records data/0 (24 bytes), data/1 (empty) and data/2 (7 bytes). */
static int open_pickle(const void *pickle, size_t len, struct torch_reader **ret_reader)
{
	static const unsigned char zeros[24];
	const struct part parts[] = {{"data.pkl", pickle, len}, {"version", "3\n", 2}, {"data/0", zeros, 24}, {"data/1", zeros, 0}, {"data/2", zeros, 7}};
	struct emit_bytes bytes = make_archive(parts, 5);
	memory_file_set(&file, bytes.data, bytes.len);
	free(bytes.data);
	errstr[0] = 0;
	return memory_file_open(&file, ret_reader, errstr, sizeof errstr);
}

/* A pickle as a string literal, which may hold NULs. */
#define P(literal) literal, sizeof(literal) - 1
#define HEAD "\x80\x02"
#define ODICT "ccollections\nOrderedDict\n)R"
#define STORAGE(type, key, n) "(X\x07\0\0\0storagectorch\n" type "\nX\x01\0\0\0" key "X\x03\0\0\0cpu" n "tQ"
/* {"U": a tensor} with the arguments as they are */
#define TENSOR(arguments) HEAD "}X\x01\0\0\0Uctorch._utils\n_rebuild_tensor_v2\n(" arguments "tRs."
#define FLOATS STORAGE("FloatStorage", "0", "K\x06")
#define REST "\x89" ODICT

struct hostile {
	const char *pickle;
	size_t len;
	int error;
	const char *text;
};

static void check(const struct hostile *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct torch_reader *reader = NULL;
		int r = open_pickle(cases[i].pickle, cases[i].len, &reader);
		if (r != cases[i].error)
			fail_msg("case %zu (%s): %d, not %d: '%s'", i, cases[i].text ? cases[i].text : "", r, cases[i].error, errstr);
		if (r < 0 && !strstr(errstr, cases[i].text))
			fail_msg("case %zu: '%s' does not say '%s'", i, errstr, cases[i].text);
		torch_reader_close(reader);
	}
}
#define CHECK(cases) check(cases, sizeof(cases) / sizeof(cases)[0])

/* ---- code execution ---- */

static void code_is_refused(void **state)
{
	(void)state;
	static const struct hostile cases[] = {
		{P(HEAD "cos\nsystem\nX\x02\0\0\0id\x85R."), -ENOTSUP, "refused global os.system"},
		{P(HEAD "cposix\nsystem\nX\x02\0\0\0id\x85R."), -ENOTSUP, "refused global posix.system"},
		{P(HEAD "c__builtin__\neval\nX\x01\0\0\0" "1\x85R."), -ENOTSUP, "refused global __builtin__.eval"},
		{P(HEAD "cbuiltins\ngetattr\n."), -ENOTSUP, "refused global builtins.getattr"},
		{P(HEAD "ctorch\nload\n."), -ENOTSUP, "refused global torch.load"},
		{P(HEAD "ctorch._utils\n_rebuild_tensor_v2\n."), -ENOTSUP, "something else than a dict"},
		{P(HEAD "ctorch\nFloatStorage\nK\x05\x85R."), -ENOTSUP, "refused call of torch.FloatStorage with 1 arguments"},
		{P(HEAD "ccollections\nOrderedDict\n]\x85R."), -ENOTSUP, "refused call of collections.OrderedDict with 1 arguments"},
		{P(HEAD "ctorch._utils\n_rebuild_parameter\n)R."), -ENOTSUP, "refused call of torch._utils._rebuild_parameter"},
		{P(HEAD "X\x02\0\0\0os)R."), -EBADMSG, "no known global"},
		{P(HEAD "ccollections\nOrderedDict\n]R."), -EBADMSG, "no known global"},
		{P(HEAD "}}b."), -ENOTSUP, "refused attributes"},
		{P(HEAD "]}b."), -ENOTSUP, "refused attributes"},
		{P(HEAD ODICT "K\x01" "b."), -ENOTSUP, "refused attributes"},
		{P(HEAD ODICT "q\0h\0}b."), -ENOTSUP, "refused attributes"},
		{P(HEAD "\x82\x01."), -ENOTSUP, "refused opcode 0x82"},                            /* EXT1 */
		{P(HEAD "\x83\x01\0."), -ENOTSUP, "refused opcode 0x83"},                          /* EXT2 */
		{P(HEAD "\x84\x01\0\0\0."), -ENOTSUP, "refused opcode 0x84"},                      /* EXT4 */
		{P(HEAD "ccollections\nOrderedDict\n)\x81."), -ENOTSUP, "refused opcode 0x81"},    /* NEWOBJ */
		{P(HEAD "(S'id'\nios\nsystem\n."), -ENOTSUP, "refused opcode 0x53"},               /* STRING */
		{P(HEAD "(ios\nsystem\n."), -ENOTSUP, "refused opcode 0x69"},                      /* INST */
		{P(HEAD "(cos\nsystem\no."), -ENOTSUP, "refused global os.system"},                /* OBJ */
		{P(HEAD "(o."), -ENOTSUP, "refused opcode 0x6f"},
		{P(HEAD "X\x02\0\0\0osX\x06\0\0\0system\x93."), -ENOTSUP, "refused opcode 0x93"}, /* STACK_GLOBAL */
		{P(HEAD "Pos.system\n."), -ENOTSUP, "refused opcode 0x50"},                        /* PERSID */
		{P(HEAD "K\x01" "0}."), -ENOTSUP, "refused opcode 0x30"},                           /* POP */
		{P(HEAD "(1}."), -ENOTSUP, "refused opcode 0x31"},                                 /* POP_MARK */
		{P(HEAD "}2."), -ENOTSUP, "refused opcode 0x32"},                                  /* DUP */
		{P(HEAD "I1\n."), -ENOTSUP, "refused opcode 0x49"},
		{P(HEAD "\x8b\x01\0\0\0\x01."), -ENOTSUP, "refused opcode 0x8b"},                  /* LONG4 */
		{P("\x80\x04\x95\x02\0\0\0\0\0\0\0}."), -ENOTSUP, "protocol 4"},
		{P("\x80\x00}."), -ENOTSUP, "protocol 0"},
		{P("}."), -EBADMSG, "no protocol number"},
		{P(HEAD "c\x1b[31mos\n\xffsys\ntem\n."), -ENOTSUP, "refused global \\x1b[31mos.\\xffsys"},
	};
	CHECK(cases);
}

static void persistent_ids(void **state)
{
	(void)state;
	static const struct hostile cases[] = {
		{P(HEAD "X\x09\0\0\0os.systemQ."), -EBADMSG, "no storage"},
		{P(HEAD "}Q."), -EBADMSG, "no storage"},
		{P(HEAD "Q."), -EBADMSG, "stack is too short"},
		{P(HEAD "(Q."), -EBADMSG, "a mark is in the way"},
		{P(HEAD "(X\x07\0\0\0storagetQ."), -EBADMSG, "no storage"},
		{P(TENSOR("(X\x07\0\0\0sturageccollections\nOrderedDict\nX\x01\0\0\0" "0X\x03\0\0\0cpuK\x06tQ")), -EBADMSG, "no storage"},
		{P(TENSOR("(X\x07\0\0\0storageccollections\nOrderedDict\nX\x01\0\0\0" "0X\x03\0\0\0cpuK\x06tQ")), -EBADMSG, "no storage"},
		{P(TENSOR(STORAGE("FloatStorage", "0", "J\xff\xff\xff\xff"))), -EBADMSG, "no storage"},
		{P(TENSOR("(X\x07\0\0\0storagectorch\nFloatStorage\nX\x0c\0\0\0../../x/../0X\x03\0\0\0cpuK\x06tQ")), -EBADMSG, "storage key"},
		{P(TENSOR("(X\x07\0\0\0storagectorch\nFloatStorage\nX\0\0\0\0X\x03\0\0\0cpuK\x06tQ")), -EBADMSG, "storage key"},
		{P(TENSOR("(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0/X\x03\0\0\0cpuK\x06tQ")), -EBADMSG, "storage key"},
	};
	CHECK(cases);
}

/* ---- containers and the memo ---- */

static void containers(void **state)
{
	(void)state;
	static const struct hostile cases[] = {
		{P(HEAD "}."), 0, NULL},
		{P(HEAD ODICT "."), 0, NULL},
		{P(HEAD ODICT "}X\x09\0\0\0_metadata" ODICT "sb."), 0, NULL}, /* a state_dict's attributes */
		{P(HEAD "}(X\x01\0\0\0aK\x01X\x01\0\0\0bNu."), 0, NULL},
		{P(HEAD "}(K\x01K\x02Nu."), -EBADMSG, "items without a dict"},
		{P(HEAD "}(u}."), -EBADMSG, "more than one value left"},
		{P(HEAD "](K\x01K\x02u."), -EBADMSG, "items without a dict"},
		{P(HEAD "(K\x01K\x02u."), -EBADMSG, "items without a dict"},
		{P(HEAD "u."), -EBADMSG, "no mark"},
		{P(HEAD "e."), -EBADMSG, "no mark"},
		{P(HEAD "t."), -EBADMSG, "no mark"},
		{P(HEAD "s."), -EBADMSG, "stack is too short"},
		{P(HEAD "K\x01K\x01s."), -EBADMSG, "items without a dict"},
		{P(HEAD "}(K\x01s."), -EBADMSG, "a mark is in the way"},
		{P(HEAD "}K\x01" "a."), -EBADMSG, "list items without a list"},
		{P(HEAD "K\x01K\x02K\x03\x87."), -ENOTSUP, "something else than a dict"},
		{P(HEAD "K\x01\x86."), -EBADMSG, "stack is too short"},
		{P(HEAD "(\x85."), -EBADMSG, "a mark is in the way"},
		{P(HEAD "}]K\x01s."), -EBADMSG, "dict key of a wrong type"},
		{P(HEAD "}X\x01\0\0\0aK\x01sX\x01\0\0\0aK\x02s."), -EBADMSG, "the name a stands twice"},
		{P(HEAD "}q\0h\0X\x01\0\0\0aK\x01s."), -EBADMSG, "items without a dict"}, /* added to through the memo */
		{P(HEAD "}X\x01\0\0\0a]q\0h\0K\x01" "as."), -EBADMSG, "list items without a list"},
		{P(HEAD "}X\x01\0\0\0a]q\0(K\x01h\0es."), 0, NULL},                        /* a list that holds itself: dropped */
		{P(HEAD "}q\1."), -EBADMSG, "memo number out of order"},
		{P(HEAD "}q\0q\0."), -EBADMSG, "memo number out of order"},
		{P(HEAD "}r\xff\xff\xff\xff."), -EBADMSG, "memo number out of order"},
		{P(HEAD "q\0."), -EBADMSG, "stack is too short"},
		{P(HEAD "(q\0."), -EBADMSG, "a mark is in the way"},
		{P(HEAD "h\0."), -EBADMSG, "memo number without a value"},
		{P(HEAD "j\0\0\1\0."), -EBADMSG, "memo number without a value"},
		{P(HEAD "}(."), -EBADMSG, "a mark is in the way"},
		{P(HEAD "}}."), -EBADMSG, "more than one value left"},
		{P(HEAD "."), -EBADMSG, "stack is too short"},
		{P(HEAD "]."), -ENOTSUP, "something else than a dict"},
		{P(HEAD "}.."), -EBADMSG, "bytes after its end"},
		{P(HEAD "}"), -EBADMSG, "ends in the middle"},
		{P(HEAD), -EBADMSG, "ends in the middle"},
		{P("\x80"), -EBADMSG, "ends in the middle"},
		{P(""), -EBADMSG, "ends in the middle"},
		{P(HEAD "}X\xff\xff\xff\xff" "a."), -EBADMSG, "ends in the middle"},
		{P(HEAD "}X\x05\0\0\0a."), -EBADMSG, "ends in the middle"},
		{P(HEAD "}\x8a\xff."), -EBADMSG, "ends in the middle"},
		{P(HEAD "ctorch"), -EBADMSG, "a global without an end"},
		{P(HEAD "ctorch\nFloat"), -EBADMSG, "a global without an end"},
	};
	CHECK(cases);
}

/* ---- tensors ---- */

static void tensors(void **state)
{
	(void)state;
	static const struct hostile cases[] = {
		{P(TENSOR(FLOATS "K\0K\x06\x85K\x01\x85" REST)), 0, NULL},
		{P(TENSOR(FLOATS "K\0K\x02K\x03\x86K\x03K\x01\x86" REST)), 0, NULL},
		{P(TENSOR(FLOATS "K\x05K\x01\x85K\x01\x85" REST)), 0, NULL},
		{P(TENSOR(STORAGE("FloatStorage", "1", "K\0") "K\0K\0\x85K\x01\x85" REST)), 0, NULL},
		{P(TENSOR(FLOATS "K\0K\x07\x85K\x01\x85" REST)), -EBADMSG, "tensor U: goes beyond its storage"},
		{P(TENSOR(FLOATS "K\x06K\x01\x85K\x01\x85" REST)), -EBADMSG, "goes beyond its storage"},
		{P(TENSOR(FLOATS "K\x07K\0\x85K\x01\x85" REST)), 0, NULL}, /* torch.zeros(3, 0)[1:] is such a one */
		{P(TENSOR(FLOATS "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x85K\x01\x85" REST)), -EBADMSG, "goes beyond its storage"},
		{P(TENSOR(FLOATS "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x85K\x01\x85" REST)), -EBADMSG, "goes beyond its storage"},
		{P(TENSOR(FLOATS "K\0\x8a\x05\0\0\0\0\x01\x8a\x05\0\0\0\0\x01\x86\x8a\x05\0\0\0\0\x01K\x01\x86" REST)), -EBADMSG, "goes beyond"}, /* 2^64 elements */
		{P(TENSOR(FLOATS "K\0J\xff\xff\xff\xff\x85K\x01\x85" REST)), -EBADMSG, "bad size or stride"},
		{P(TENSOR(FLOATS "K\0K\x01\x85J\xff\xff\xff\xff\x85" REST)), -EBADMSG, "bad size or stride"},
		{P(TENSOR(FLOATS "J\xff\xff\xff\xffK\x01\x85K\x01\x85" REST)), -EBADMSG, "not described as torch does"},
		{P(TENSOR(FLOATS "K\0K\x01\x85K\x01K\x01\x86" REST)), -EBADMSG, "not described as torch does"},
		{P(TENSOR(FLOATS "K\0]]" REST)), -EBADMSG, "not described as torch does"},
		{P(TENSOR(FLOATS "K\0X\x01\0\0\0a\x85K\x01\x85" REST)), -EBADMSG, "bad size or stride"},
		{P(TENSOR(FLOATS "K\0K\x06\x85K\x01\x85\x89N")), -EBADMSG, "not described as torch does"},
		{P(TENSOR(FLOATS "K\0K\x06\x85K\x01\x85\x89")), -EBADMSG, "not described as torch does"},
		{P(TENSOR("K\0K\0K\x06\x85K\x01\x85" REST)), -EBADMSG, "not described as torch does"},
		{P(TENSOR("")), -EBADMSG, "not described as torch does"},
		{P(TENSOR(STORAGE("FloatStorage", "0", "K\x05") "K\0K\x05\x85K\x01\x85" REST)), -EBADMSG, "record data/0 has 24 bytes, not 5 x 4"},
		{P(TENSOR(STORAGE("FloatStorage", "0", "K\x07") "K\0K\x05\x85K\x01\x85" REST)), -EBADMSG, "record data/0 has 24 bytes, not 7 x 4"},
		{P(TENSOR(STORAGE("FloatStorage", "2", "K\x01") "K\0K\x01\x85K\x01\x85" REST)), -EBADMSG, "record data/2 has 7 bytes"},
		{P(TENSOR(STORAGE("FloatStorage", "0", "\x8a\x08\x06\0\0\0\0\0\0\x40") "K\0K\x06\x85K\x01\x85" REST)), -EBADMSG, "record data/0 has 24 bytes"},
		{P(TENSOR(STORAGE("FloatStorage", "3", "K\x06") "K\0K\x06\x85K\x01\x85" REST)), -EBADMSG, "record data/3 is missing"},
		{P(HEAD "}X\x01\0\0\0x" FLOATS "s."), 0, NULL}, /* a bare storage is skipped */
	};
	CHECK(cases);
}

static const struct torch_tensor *only_tensor(const struct torch_reader *reader)
{
	assert_int_equal(torch_reader_n_tensors(reader), 1);
	return torch_reader_tensor(reader, 0);
}

/* Tensors that are whole but cannot be used, and one whose bytes are not aligned. */
static void tensors_that_cannot_be_used(void **state)
{
	(void)state;
	static const struct hostile cases[] = {
		{P(TENSOR(FLOATS "K\0K\x02\x85K\x02\x85" REST)), 0, "not contiguous (shape 2, stride 2)"},
		{P(TENSOR(FLOATS "K\0K\x09K\x09\x86K\0K\0\x86" REST)), 0, "not contiguous (shape 9 x 9, strides 0, 0)"},
		{P(TENSOR(FLOATS "K\0K\x01K\x01K\x06\x87K\x06K\x06K\x01\x87" REST)), 0, "3 dimensions"},
		{P(TENSOR(STORAGE("DoubleStorage", "0", "K\x03") "K\0K\x03\x85K\x01\x85" REST)), 0, "dtype float64"},
		{P(TENSOR(FLOATS "K\0K\x06\x85K\x01\x85" REST "}")), 0, "metadata"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct torch_reader *reader = NULL;
		const struct torch_tensor *t = NULL;
		const void *data = NULL;
		char byte;
		assert_int_equal(open_pickle(cases[i].pickle, cases[i].len, &reader), 0);
		assert_non_null(only_tensor(reader)->unsupported);
		assert_int_equal(torch_reader_find_tensor(reader, "U", &t, errstr, sizeof errstr), -ENOTSUP);
		if (!strstr(errstr, cases[i].text))
			fail_msg("'%s' does not say '%s'", errstr, cases[i].text);
		assert_int_equal(torch_reader_read(reader, only_tensor(reader), 0, &byte, 0, errstr, sizeof errstr), -EINVAL);
		assert_int_equal(torch_reader_map(reader, only_tensor(reader), &data, errstr, sizeof errstr), -ENOTSUP);
		assert_null(data);
		torch_reader_close(reader);
	}
}

static void names_are_escaped(void **state)
{
	(void)state;
	static const char pickle[] = HEAD "}(X\x09\0\0\0U\0\x1b[2J\xff\\\nctorch._utils\n_rebuild_tensor_v2\n(" FLOATS "K\0K\x06\x85K\x01\x85" REST
					  "tRX\x02\0\0\0s1X\x03\0\0\0a\0bX\x02\0\0\0s2X\x02\0\0\0a\xffu.";
	struct torch_reader *reader = NULL;
	const struct torch_tensor *t = NULL;
	const char *string = NULL;
	if (open_pickle(pickle, sizeof pickle - 1, &reader) < 0)
		fail_msg("%s", errstr);
	assert_string_equal(only_tensor(reader)->name, "U\\x00\\x1b[2J\\xff\\x5c\\x0a");
	assert_int_equal(torch_reader_find_tensor(reader, "U", &t, errstr, sizeof errstr), -ENOENT);
	assert_int_equal(torch_reader_find_string(reader, "s1", &string, errstr, sizeof errstr), -EPROTOTYPE);
	assert_int_equal(torch_reader_find_string(reader, "s2", &string, errstr, sizeof errstr), -EPROTOTYPE);
	assert_null(string);
	torch_reader_close(reader);
}

static void integers(void **state)
{
	(void)state;
	static const struct {
		const char *opcode;
		size_t len;
		int64_t value;
	} cases[] = {
		{P("K\xff"), 255},        {P("M\xff\xff"), 65535},
		{P("J\xff\xff\xff\xff"), -1}, {P("\x8a\0"), 0},
		{P("\x8a\1\x80"), -128},  {P("\x8a\2\xff\x7f"), 32767},
		{P("\x8a\7\0\0\0\0\0\0\x80"), -(1LL << 55)},
		{P("\x8a\x08\0\0\0\0\0\0\0\x80"), INT64_MIN},
		{P("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), INT64_MAX},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct emit_bytes pickle = {0};
		struct torch_reader *reader = NULL;
		int64_t value = 99;
		emit_put(&pickle, P(HEAD "}X\x01\0\0\0n"));
		emit_put(&pickle, cases[i].opcode, cases[i].len);
		emit_text(&pickle, "s.");
		assert_int_equal(open_pickle(pickle.data, pickle.len, &reader), 0);
		assert_int_equal(torch_reader_find_int(reader, "n", &value, errstr, sizeof errstr), 0);
		assert_true(value == cases[i].value);
		torch_reader_close(reader);
		free(pickle.data);
	}
	struct torch_reader *reader = NULL;
	int64_t value = 99;
	assert_int_equal(open_pickle(P(HEAD "}X\x01\0\0\0n\x8a\x09\1\2\3\4\5\6\7\x08\x09s."), &reader), 0);
	assert_int_equal(torch_reader_find_int(reader, "n", &value, errstr, sizeof errstr), -EPROTOTYPE);
	assert_int_equal(value, 99);
	torch_reader_close(reader);
}

/* ---- bombs ---- */

/* `head`, then `n` times `body`, then `tail`. */
static int open_repeated(const char *head, size_t n, const char *body, const char *tail)
{
	struct emit_bytes pickle = {0};
	struct torch_reader *reader = NULL;
	emit_put(&pickle, P(HEAD));
	emit_text(&pickle, head);
	for (size_t i = 0; i < n; i++)
		emit_text(&pickle, body);
	emit_text(&pickle, tail);
	assert_int_equal(pickle.error, 0);
	int r = open_pickle(pickle.data, pickle.len, &reader);
	free(pickle.data);
	torch_reader_close(reader);
	return r;
}

static void bombs(void **state)
{
	(void)state;
	/* nesting: a million lists in lists; a million tuples around a tuple; a million marks */
	assert_int_equal(open_repeated("}K\x01", 1000000, "]", "s."), -EFBIG);
	assert_non_null(strstr(errstr, "values on the stack"));
	assert_int_equal(open_repeated("}K\x01)", 1000000, "\x85", "s."), 0);
	assert_int_equal(open_repeated("}K\x01)", 1100000, "\x85", "s."), -EFBIG);
	assert_non_null(strstr(errstr, "tuple elements"));
	assert_int_equal(open_repeated("", 1000000, "(", "."), -EFBIG);
	/* a million list items are dropped as they come */
	assert_int_equal(open_repeated("}K\x01]", 1000000, "Na", "s."), 0);

	/* a memo bomb: each tuple holds the one before twice; 2^200 values if anybody walked it */
	struct emit_bytes pickle = {0};
	struct torch_reader *reader = NULL;
	emit_put(&pickle, P(HEAD "}K\x01)q\0"));
	for (unsigned i = 0; i < 200; i++) {
		const unsigned char step[] = {'h', (unsigned char)i, 0x86, 'q', (unsigned char)(i + 1)};
		emit_put(&pickle, step, sizeof step);
	}
	emit_text(&pickle, "s.");
	assert_int_equal(open_pickle(pickle.data, pickle.len, &reader), 0);
	torch_reader_close(reader);
	free(pickle.data);

	/* one long string under very many names (65,536 keys through the memo): bounded, not multiplied */
	pickle = (struct emit_bytes){0};
	emit_put(&pickle, P(HEAD "}(X\0\0\x10\0"));
	for (unsigned i = 0; i < 1u << 20; i++)
		emit_text(&pickle, "x");
	emit_put(&pickle, P("q\0K\1"));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned char key[5] = {'X', 4, 0, 0, 0};
		emit_put(&pickle, key, sizeof key);
		emit_put(&pickle, &i, 4);
		emit_put(&pickle, P("h\0"));
	}
	emit_text(&pickle, "u.");
	assert_int_equal(open_pickle(pickle.data, pickle.len, &reader), -EFBIG);
	free(pickle.data);

	/* entries, remembered values and tensors above their bounds */
	pickle = (struct emit_bytes){0};
	emit_put(&pickle, P(HEAD "}"));
	for (unsigned i = 0; i < TORCH_READ_ENTRIES_MAX + 1; i++) {
		unsigned char key[5] = {'X', 4, 0, 0, 0};
		emit_put(&pickle, key, sizeof key);
		emit_put(&pickle, &i, 4);
		emit_text(&pickle, "Ns");
	}
	emit_text(&pickle, ".");
	assert_int_equal(open_pickle(pickle.data, pickle.len, &reader), -EFBIG);
	assert_non_null(strstr(errstr, "more than 65535 entries"));
	free(pickle.data);
	pickle = (struct emit_bytes){0};
	emit_put(&pickle, P(HEAD "}"));
	for (uint32_t i = 0; i < TORCH_READ_VALUES_MAX + 1; i++) {
		emit_text(&pickle, "r");
		emit_put(&pickle, &i, 4);
	}
	emit_text(&pickle, ".");
	assert_int_equal(open_pickle(pickle.data, pickle.len, &reader), -EFBIG);
	assert_non_null(strstr(errstr, "remembered values"));
	free(pickle.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_is_refused),   cmocka_unit_test(persistent_ids), cmocka_unit_test(containers),
		cmocka_unit_test(tensors),           cmocka_unit_test(tensors_that_cannot_be_used),
		cmocka_unit_test(names_are_escaped), cmocka_unit_test(integers),       cmocka_unit_test(bombs),
	};
	return cmocka_run_group_tests(tests, make_file, close_file);
}
