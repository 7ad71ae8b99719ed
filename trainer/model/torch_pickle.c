/*
 * torch_pickle.c: the restricted unpickler. It knows the opcodes that Python's pickler (protocol 2) writes for dicts of tensors, numbers and strings,
 * and calls nothing: a global is an entry of the table below or the file is refused, and a call makes one of three plain records (tensor, parameter, empty
 * OrderedDict). Contents of nested lists and dicts are dropped as they come, so nesting costs nothing and there is no recursion anywhere.
 *
 * Values are 16 bytes; the stack, the memo and the contents of tuples have fixed bounds, and each opcode adds at most what it reads, so that
 * memory is bounded by the pickle's length whatever it says. Containers that come back from the memo cannot be added to: Python's pickler never does
 * that, and refusing it keeps every container's contents where it stands.
 *
 * Runs on the caller's thread. The pickle's bytes stay the caller's; results refer to them by offset.
 */
#include <errno.h>
#include <stdlib.h>

#include "trainer/model/torch_zip.h"

#define STACK_MAX ((size_t)65536)

enum value_kind { V_MARK, V_OTHER, V_INT, V_STRING, V_TUPLE, V_LIST, V_DICT, V_GLOBAL, V_STORAGE, V_TENSOR };

struct value {
	uint8_t kind;
	uint8_t from_memo; /* a container that is not in its first place */
	uint8_t ordered;   /* V_DICT: an OrderedDict */
	uint32_t count;    /* V_TUPLE, V_DICT: elements; V_STRING: bytes */
	union {
		int64_t integer;
		uint64_t start; /* V_TUPLE: in `tuples`; V_STRING: in the pickle; V_GLOBAL, V_STORAGE, V_TENSOR: index in their table */
	};
};

enum { GLOBAL_REBUILD_TENSOR, GLOBAL_REBUILD_PARAMETER, GLOBAL_ORDERED_DICT, GLOBAL_FIRST_STORAGE };

static const struct {
	const char *module, *name;
	const char *type_name;
	int dtype;
	uint32_t element_bytes;
} globals[] = {
	{"torch._utils", "_rebuild_tensor_v2", NULL, -1, 0},
	{"torch._utils", "_rebuild_parameter", NULL, -1, 0},
	{"collections", "OrderedDict", NULL, -1, 0},
	{"torch", "FloatStorage", "float32", TORCH_F32, 4},
	{"torch", "LongStorage", "int64", TORCH_I64, 8},
	{"torch", "IntStorage", "int32", TORCH_I32, 4},
	{"torch", "ByteStorage", "uint8", TORCH_U8, 1},
	{"torch", "DoubleStorage", "float64", -1, 8},
	{"torch", "HalfStorage", "float16", -1, 2},
	{"torch", "BFloat16Storage", "bfloat16", -1, 2},
	{"torch", "ShortStorage", "int16", -1, 2},
	{"torch", "CharStorage", "int8", -1, 1},
	{"torch", "BoolStorage", "bool", -1, 1},
	{"torch", "ComplexFloatStorage", "complex64", -1, 8},
	{"torch", "ComplexDoubleStorage", "complex128", -1, 16},
};
#define N_GLOBALS (sizeof globals / sizeof globals[0])

struct machine {
	const unsigned char *pickle;
	size_t len, at;
	struct value *stack;
	size_t depth, stack_size;
	struct value *memo;
	size_t n_memo, memo_size;
	struct value *tuples; /* contents of all tuples, one after the other */
	size_t n_tuples, tuples_size;
	struct pickle_dict *dict;
	int error; /* kept with its text below */
	char *errstr;
	size_t errstr_size;
};

/* ---- small things ---- */

#define REFUSE(m, err, ...) ((m)->error = torch_fail((err), (m)->errstr, (m)->errstr_size, __VA_ARGS__))

static int damaged(struct machine *m, const char *what) { return REFUSE(m, EBADMSG, "pickle: %s at byte %zu", what, m->at); }

/* Makes room for one more element; refuses above max. */
static int grow(struct machine *m, void **array, size_t n, size_t *capacity, size_t size, size_t max, const char *what)
{
	if (n >= max)
		return REFUSE(m, EFBIG, "pickle: more than %zu %s", max, what);
	if (n < *capacity)
		return 0;
	size_t wanted = *capacity ? *capacity * 2 : 64;
	void *grown = reallocarray(*array, wanted, size);
	if (!grown)
		return REFUSE(m, ENOMEM, "pickle: no memory");
	*array = grown;
	*capacity = wanted;
	return 0;
}

/* The next n bytes, or NULL (and the machine has failed). */
static const unsigned char *take(struct machine *m, size_t n)
{
	if (n > m->len - m->at) {
		(void)damaged(m, "ends in the middle of an opcode");
		return NULL;
	}
	const unsigned char *p = m->pickle + m->at;
	m->at += n;
	return p;
}

static int push(struct machine *m, struct value v)
{
	void *stack = m->stack;
	if (grow(m, &stack, m->depth, &m->stack_size, sizeof *m->stack, STACK_MAX, "values on the stack") < 0)
		return m->error;
	m->stack = stack;
	m->stack[m->depth++] = v;
	return 0;
}

static int push_int(struct machine *m, int64_t integer) { return push(m, (struct value){.kind = V_INT, .integer = integer}); }

/* The value `below` the top, unless the stack is too short or a mark lies there or above. */
static struct value *peek(struct machine *m, size_t below)
{
	if (m->depth <= below) {
		(void)damaged(m, "stack is too short");
		return NULL;
	}
	for (size_t i = 0; i <= below; i++)
		if (m->stack[m->depth - 1 - i].kind == V_MARK) {
			(void)damaged(m, "a mark is in the way");
			return NULL;
		}
	return &m->stack[m->depth - 1 - below];
}

/* Position above the topmost mark; 0 when there is none (and the machine has failed). */
static size_t above_mark(struct machine *m)
{
	for (size_t i = m->depth; i-- > 0;)
		if (m->stack[i].kind == V_MARK)
			return i + 1;
	(void)damaged(m, "no mark");
	return 0;
}

static bool string_is(const struct machine *m, const struct value *v, const char *text)
{
	return v->kind == V_STRING && v->count == strlen(text) && memcmp(m->pickle + v->start, text, v->count) == 0;
}

/* ---- containers ---- */

/* Replaces the top n values by a tuple of them. */
static int make_tuple(struct machine *m, size_t n)
{
	struct value v = {.kind = V_TUPLE, .count = (uint32_t)n, .start = m->n_tuples};
	for (size_t i = 0; i < n; i++) {
		void *tuples = m->tuples;
		if (grow(m, &tuples, m->n_tuples, &m->tuples_size, sizeof *m->tuples, TORCH_READ_VALUES_MAX, "tuple elements") < 0)
			return m->error;
		m->tuples = tuples;
		m->tuples[m->n_tuples++] = m->stack[m->depth - n + i];
	}
	m->depth -= n;
	return push(m, v);
}

/* One key and value into the outermost dict. Keys that are no strings are skipped. */
static int keep_entry(struct machine *m, const struct value *key, const struct value *v)
{
	struct pickle_dict *dict = m->dict;
	if (key->kind != V_STRING)
		return 0;
	void *entries = dict->entries;
	if (grow(m, &entries, dict->n_entries, &dict->entries_size, sizeof *dict->entries, TORCH_READ_ENTRIES_MAX, "entries") < 0)
		return m->error;
	dict->entries = entries;
	struct pickle_entry entry = {.kind = PICKLE_OTHER, .key_offset = (uint32_t)key->start, .key_len = key->count};
	if (v->kind == V_INT) {
		entry.kind = PICKLE_INT;
		entry.integer = v->integer;
	} else if (v->kind == V_STRING) {
		entry.kind = PICKLE_STRING;
		entry.string_offset = (uint32_t)v->start;
		entry.string_len = v->count;
	} else if (v->kind == V_TENSOR) {
		entry.kind = PICKLE_TENSOR;
		entry.tensor = (uint32_t)v->start;
	}
	dict->entries[dict->n_entries++] = entry;
	return 0;
}

/* SETITEM, SETITEMS: the values from `first` on go in pairs into the dict below them (below the mark, when there is one). */
static int set_items(struct machine *m, size_t first, bool mark)
{
	size_t n = m->depth - first, below = mark ? 2 : 1;
	if (first < below || n % 2 || m->stack[first - below].kind != V_DICT || m->stack[first - below].from_memo)
		return damaged(m, "items without a dict");
	struct value *dict = &m->stack[first - below];
	for (size_t i = first; i < m->depth; i += 2) {
		const struct value *key = &m->stack[i];
		if (key->kind == V_LIST || key->kind == V_DICT || key->kind == V_GLOBAL || key->kind == V_STORAGE)
			return damaged(m, "a dict key of a wrong type");
		dict->count++;
		if (first == below && keep_entry(m, key, &m->stack[i + 1]) < 0)
			return m->error;
	}
	m->depth = first - (mark ? 1 : 0);
	return 0;
}

/* APPEND, APPENDS: like set_items(), into a list. What a list holds is dropped. */
static int append_items(struct machine *m, size_t first, bool mark)
{
	size_t below = mark ? 2 : 1;
	if (first < below || m->stack[first - below].kind != V_LIST || m->stack[first - below].from_memo)
		return damaged(m, "list items without a list");
	m->depth = first - (mark ? 1 : 0);
	return 0;
}

/* ---- globals, storages, tensors ---- */

/* The bytes up to the next newline, which is skipped. */
static const char *take_line(struct machine *m, size_t *ret_len)
{
	const unsigned char *start = m->pickle + m->at, *end = memchr(start, '\n', m->len - m->at);
	if (!end) {
		(void)damaged(m, "a global without an end");
		return NULL;
	}
	*ret_len = (size_t)(end - start);
	m->at += *ret_len + 1;
	return (const char *)start;
}

static int op_global(struct machine *m)
{
	size_t module_len, name_len = 0;
	const char *module = take_line(m, &module_len);
	const char *name = module ? take_line(m, &name_len) : NULL;
	if (!module || !name)
		return m->error;
	for (size_t i = 0; i < N_GLOBALS; i++)
		if (strlen(globals[i].module) == module_len && strlen(globals[i].name) == name_len && memcmp(globals[i].module, module, module_len) == 0 &&
		    memcmp(globals[i].name, name, name_len) == 0)
			return push(m, (struct value){.kind = V_GLOBAL, .start = i});
	char shown[2][64];
	torch_escape(shown[0], sizeof shown[0], module, module_len);
	torch_escape(shown[1], sizeof shown[1], name, name_len);
	return REFUSE(m, ENOTSUP, "pickle: refused global %s.%s", shown[0], shown[1]);
}

/* ('storage', type, key, location, n_elements) */
static int op_persistent_id(struct machine *m)
{
	const struct value *id = peek(m, 0);
	if (!id)
		return m->error;
	const struct value *part = id->kind == V_TUPLE && id->count == 5 ? m->tuples + id->start : NULL;
	if (!part || !string_is(m, &part[0], "storage") || part[1].kind != V_GLOBAL || part[1].start < GLOBAL_FIRST_STORAGE || part[2].kind != V_STRING ||
	    part[3].kind != V_STRING || part[4].kind != V_INT || part[4].integer < 0)
		return damaged(m, "a persistent id that is no storage");
	if (!part[2].count || part[2].count > 10)
		return damaged(m, "a storage key that is no number");
	for (size_t i = 0; i < part[2].count; i++)
		if (m->pickle[part[2].start + i] < '0' || m->pickle[part[2].start + i] > '9')
			return damaged(m, "a storage key that is no number");
	struct pickle_dict *dict = m->dict;
	void *storages = dict->storages;
	if (grow(m, &storages, dict->n_storages, &dict->storages_size, sizeof *dict->storages, TORCH_READ_TENSORS_MAX, "storages") < 0)
		return m->error;
	dict->storages = storages;
	size_t type = (size_t)part[1].start;
	dict->storages[dict->n_storages] = (struct pickle_storage){globals[type].type_name, globals[type].dtype, globals[type].element_bytes,
								   (uint32_t)part[2].start, part[2].count, part[4].integer};
	m->depth--;
	return push(m, (struct value){.kind = V_STORAGE, .start = dict->n_storages++});
}

/* (storage, offset, sizes, strides, requires_grad, hooks[, metadata]) */
static int rebuild_tensor(struct machine *m, const struct value *args, size_t n)
{
	if (n < 6 || n > 7 || args[0].kind != V_STORAGE || args[1].kind != V_INT || args[1].integer < 0 || args[2].kind != V_TUPLE || args[3].kind != V_TUPLE ||
	    args[2].count != args[3].count || args[5].kind != V_DICT)
		return damaged(m, "a tensor that is not described as torch does");
	struct pickle_tensor tensor = {.storage = (uint32_t)args[0].start, .n_dims = args[2].count, .offset = args[1].integer, .has_metadata = n == 7};
	const struct value *sizes = m->tuples + args[2].start, *strides = m->tuples + args[3].start;
	for (size_t i = 0; i < args[2].count; i++) {
		if (sizes[i].kind != V_INT || strides[i].kind != V_INT || sizes[i].integer < 0 || strides[i].integer < 0)
			return damaged(m, "a tensor with a bad size or stride");
		if (i < TORCH_DIMS_MAX) {
			tensor.sizes[i] = sizes[i].integer;
			tensor.strides[i] = strides[i].integer;
		}
	}
	struct pickle_dict *dict = m->dict;
	void *tensors = dict->tensors;
	if (grow(m, &tensors, dict->n_tensors, &dict->tensors_size, sizeof *dict->tensors, TORCH_READ_TENSORS_MAX, "tensors") < 0)
		return m->error;
	dict->tensors = tensors;
	dict->tensors[dict->n_tensors] = tensor;
	return push(m, (struct value){.kind = V_TENSOR, .start = dict->n_tensors++});
}

static int op_reduce(struct machine *m)
{
	const struct value *args = peek(m, 0), *function = args ? peek(m, 1) : NULL;
	if (!args || !function)
		return m->error;
	if (function->kind != V_GLOBAL || args->kind != V_TUPLE)
		return damaged(m, "a call of something that is no known global");
	const struct value *part = args->count ? m->tuples + args->start : NULL;
	uint64_t called = function->start;
	uint32_t n = args->count;
	m->depth -= 2;
	if (called == GLOBAL_REBUILD_TENSOR)
		return rebuild_tensor(m, part, n);
	if (called == GLOBAL_REBUILD_PARAMETER && n == 3 && part[0].kind == V_TENSOR)
		return push(m, part[0]);
	if (called == GLOBAL_ORDERED_DICT && n == 0)
		return push(m, (struct value){.kind = V_DICT, .ordered = 1});
	return REFUSE(m, ENOTSUP, "pickle: refused call of %s.%s with %u arguments", globals[called].module, globals[called].name, n);
}

/* BUILD gives an object its attributes. An OrderedDict may carry some (state_dict's _metadata): they are dropped. */
static int op_build(struct machine *m)
{
	const struct value *state = peek(m, 0), *object = state ? peek(m, 1) : NULL;
	if (!state || !object)
		return m->error;
	if (object->kind != V_DICT || !object->ordered || object->from_memo || state->kind != V_DICT)
		return REFUSE(m, ENOTSUP, "pickle: refused attributes of something that is no OrderedDict");
	m->depth--;
	return 0;
}

/* ---- the memo ---- */

/* The pickler numbers what it remembers 0, 1, 2 ...: anything else is refused, so the memo has no holes and no second meaning. */
static int memo_put(struct machine *m, uint32_t number)
{
	const struct value *top = peek(m, 0);
	if (!top)
		return m->error;
	if (number != m->n_memo)
		return damaged(m, "memo number out of order");
	void *memo = m->memo;
	if (grow(m, &memo, m->n_memo, &m->memo_size, sizeof *m->memo, TORCH_READ_VALUES_MAX, "remembered values") < 0)
		return m->error;
	m->memo = memo;
	m->memo[m->n_memo] = *top;
	m->memo[m->n_memo++].from_memo = 1;
	return 0;
}

static int memo_get(struct machine *m, uint32_t number)
{
	return number < m->n_memo ? push(m, m->memo[number]) : damaged(m, "memo number without a value");
}

/* ---- opcodes ---- */

static int op_string(struct machine *m)
{
	const unsigned char *p = take(m, 4);
	uint32_t len = p ? le32_get(p) : 0;
	p = p ? take(m, len) : NULL;
	return p ? push(m, (struct value){.kind = V_STRING, .count = len, .start = (uint64_t)(p - m->pickle)}) : m->error;
}

/* LONG1: little-endian two's complement. More than 64 bits become a value that nobody can use. */
static int op_long(struct machine *m)
{
	const unsigned char *p = take(m, 1);
	size_t n = p ? *p : 0;
	p = p ? take(m, n) : NULL;
	if (!p)
		return m->error;
	if (n > 8)
		return push(m, (struct value){.kind = V_OTHER});
	uint64_t bits = 0;
	for (size_t i = 0; i < n; i++)
		bits |= (uint64_t)p[i] << (8 * i);
	if (n && n < 8 && p[n - 1] & 0x80)
		bits |= ~(uint64_t)0 << (8 * n);
	return push_int(m, (int64_t)bits);
}

/* Opcodes with a fixed-size argument. */
static int run_argument(struct machine *m, unsigned char op)
{
	static const unsigned char bytes[256] = {['K'] = 1, ['M'] = 2, ['J'] = 4, ['G'] = 8, ['q'] = 1, ['r'] = 4, ['h'] = 1, ['j'] = 4};
	const unsigned char *p = take(m, bytes[op]);
	if (!p)
		return m->error;
	switch (op) {
	case 'K': return push_int(m, *p);
	case 'M': return push_int(m, le16_get(p));
	case 'J': return push_int(m, (int32_t)le32_get(p));
	case 'G': return push(m, (struct value){.kind = V_OTHER});
	case 'q': return memo_put(m, *p);
	case 'r': return memo_put(m, le32_get(p));
	case 'h': return memo_get(m, *p);
	default: return memo_get(m, le32_get(p)); /* 'j' */
	}
}

static int run_container(struct machine *m, unsigned char op)
{
	size_t first = 0;
	if (op == 't' || op == 'u' || op == 'e')
		first = above_mark(m);
	else if (!peek(m, op == 's' ? 1 : op == 'a' ? 0 : op - 0x85u))
		return m->error;
	if (m->error)
		return m->error;
	switch (op) {
	case 't': {
		int r = make_tuple(m, m->depth - first);
		if (!r) { /* the mark below it goes */
			m->stack[m->depth - 2] = m->stack[m->depth - 1];
			m->depth--;
		}
		return r;
	}
	case 'u': return set_items(m, first, true);
	case 'e': return append_items(m, first, true);
	case 's': return set_items(m, m->depth - 2, false);
	case 'a': return append_items(m, m->depth - 1, false);
	default: return make_tuple(m, op - 0x84u); /* TUPLE1 to TUPLE3 */
	}
}

static int run(struct machine *m, unsigned char op)
{
	switch (op) {
	case '(': return push(m, (struct value){.kind = V_MARK});
	case '}': return push(m, (struct value){.kind = V_DICT});
	case ']': return push(m, (struct value){.kind = V_LIST});
	case ')': return push(m, (struct value){.kind = V_TUPLE, .start = m->n_tuples});
	case 'N':
	case 0x88: /* True */
	case 0x89: return push(m, (struct value){.kind = V_OTHER});
	case 'X': return op_string(m);
	case 0x8a: return op_long(m);
	case 'K':
	case 'M':
	case 'J':
	case 'G':
	case 'q':
	case 'r':
	case 'h':
	case 'j': return run_argument(m, op);
	case 't':
	case 'u':
	case 'e':
	case 's':
	case 'a':
	case 0x85:
	case 0x86:
	case 0x87: return run_container(m, op);
	case 'c': return op_global(m);
	case 'Q': return op_persistent_id(m);
	case 'R': return op_reduce(m);
	case 'b': return op_build(m);
	default: return REFUSE(m, ENOTSUP, "pickle: refused opcode 0x%02x at byte %zu", op, m->at - 1);
	}
}

/* All opcodes up to STOP, which must be the last byte with the outermost dict alone on the stack. */
static int run_all(struct machine *m)
{
	const unsigned char *p = take(m, 2);
	if (!p)
		return m->error;
	if (p[0] != 0x80)
		return damaged(m, "no protocol number");
	if (p[1] != 2)
		return REFUSE(m, ENOTSUP, "pickle: protocol %u; only 2 (torch.save's default) is read", p[1]);
	while ((p = take(m, 1)) != NULL && *p != '.')
		if (run(m, *p) < 0)
			return m->error;
	if (!p)
		return m->error;
	if (m->at != m->len)
		return damaged(m, "bytes after its end");
	const struct value *root = peek(m, 0);
	if (!root)
		return m->error;
	if (m->depth != 1)
		return damaged(m, "more than one value left");
	if (root->kind != V_DICT || root->from_memo)
		return REFUSE(m, ENOTSUP, "pickle: holds something else than a dict");
	if (root->count < m->dict->n_entries)
		return damaged(m, "entries of another dict");
	return 0;
}

int pickle_read(const unsigned char *pickle, size_t len, struct pickle_dict *ret_dict, char *errstr, size_t errstr_size)
{
	struct pickle_dict dict = {0};
	if (len > TORCH_READ_PICKLE_MAX)
		return torch_fail(EFBIG, errstr, errstr_size, "pickle of %zu bytes: above the limit", len);
	struct machine m = {.pickle = pickle, .len = len, .dict = &dict, .errstr = errstr, .errstr_size = errstr_size};
	int r = run_all(&m);
	free(m.stack);
	free(m.memo);
	free(m.tuples);
	if (r < 0) {
		pickle_dict_free(&dict);
		return r;
	}
	*ret_dict = dict;
	return 0;
}

void pickle_dict_free(struct pickle_dict *dict)
{
	free(dict->entries);
	free(dict->tensors);
	free(dict->storages);
	*dict = (struct pickle_dict){0};
}
