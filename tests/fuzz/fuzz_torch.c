/*
 * fuzz_torch.c: the PyTorch reader against anything. LLVMFuzzerTestOneInput() takes a whole file, and the same bytes as a pickle in an archive with right CRCs.
 * As a plain program (no libFuzzer needed) it mutates golden files and pickles:
 *
 *     fuzz_torch [SEED [ITERATIONS]]      default: seed 1, 4,000 x RECD_TEST_SCALE; the long run of FAILURES is 100,000
 *
 * Half of the mutants have their CRCs put right again, so that the reader must stand on its own; nothing may crash, read outside, or ask for memory
 * beyond the reader's bounds. The other half keep the old CRCs: such a mutant must be refused, or give out exactly what the good file does.
 */
#include <inttypes.h>
#include <sys/resource.h>

#include "tests/unit/model/torch_testing.h"

#define INPUT_MAX ((size_t)64 << 10)
#define MEMORY_MAX ((rlim_t)1 << 30)

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

/* Under AddressSanitizer one allocation above this is an error; elsewhere the address space is limited, see main(). */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "max_allocation_size_mb=128"; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file = {.fd = -1};

static void give_up(const char *what, const char *detail)
{
	(void)fprintf(stderr, "%s: %s\n", what, detail);
	abort();
}

/* Opens what `file` holds and uses all of it. 0 and a digest, or the error. */
static int use(uint64_t *ret_digest)
{
	struct torch_reader *reader = NULL;
	char errstr[256] = "";
	int r = memory_file_open(&file, &reader, errstr, sizeof errstr);
	if (r == -ENOMEM)
		give_up("memory beyond the reader's bounds", errstr);
	if (r < 0 && !errstr[0])
		give_up("an error without a text", "");
	if (r < 0)
		return r;
	static const char *const names[] = {"U", "epoch", "name", "lr", "фильм", "min"};
	uint64_t h = digest(reader);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const struct torch_tensor *t = NULL;
		const char *string = NULL;
		const void *bytes = NULL;
		int64_t integer = 0;
		if (torch_reader_find_int(reader, names[i], &integer, errstr, sizeof errstr) == 0)
			h = mix(h, &integer, sizeof integer);
		if (torch_reader_find_string(reader, names[i], &string, errstr, sizeof errstr) == 0)
			h = mix(h, string, strlen(string));
		if (torch_reader_find_tensor(reader, names[i], &t, errstr, sizeof errstr) == 0 && torch_reader_map(reader, t, &bytes, errstr, sizeof errstr) == 0)
			h = mix(h, bytes, (size_t)t->bytes);
	}
	torch_reader_close(reader);
	*ret_digest = h;
	return 0;
}

static int use_as_pickle(const uint8_t *pickle, size_t len, uint64_t *ret_digest)
{
	static const unsigned char zeros[256];
	const struct part parts[] = {{"data.pkl", pickle, len}, {"version", "3\n", 2},     {"data/0", zeros, 24}, {"data/1", zeros, 0},
				     {"data/2", zeros, 7},     {"data/3", zeros, 256}};
	struct emit_bytes bytes = make_archive(parts, 6);
	memory_file_set(&file, bytes.data, bytes.len);
	free(bytes.data);
	return use(ret_digest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t h;
	if (file.fd < 0)
		file = memory_file_new();
	memory_file_set(&file, data, size);
	(void)use(&h);
	(void)use_as_pickle(data, size, &h);
	return 0;
}

#ifndef RECD_LIBFUZZER

static uint64_t random_state;
static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1du >> 16;
}
static size_t below(size_t n) { return n ? (size_t)(random_next() % n) : 0; }

/* Changes `data` (room for INPUT_MAX) a few times: flips, numbers that matter, copies, cuts, pickle opcodes. Returns the new length. */
static size_t mutate(unsigned char *data, size_t len)
{
	static const unsigned char numbers[][8] = {{0}, {1}, {255, 255, 255, 255, 255, 255, 255, 255}, {255, 255, 255, 127}, {0, 0, 0, 128}, {0, 0, 0, 0, 1},
						   {255, 255, 255, 255, 255, 255, 255, 127}, {0, 0, 0, 0, 0, 0, 0, 128}, {22}, {46}};
	static const char opcodes[] = "(}])NXKMJGqrhjtuesacQRb.\x80\x85\x86\x87\x88\x89\x8a\x8b";
	for (size_t n = 1 + below(4); n && len; n--) {
		size_t at = below(len), span = 1 + below(12);
		span = span < len - at ? span : len - at;
		switch (below(7)) {
		case 0: data[at] ^= (unsigned char)(1u << below(8)); break;
		case 1: data[at] = (unsigned char)random_next(); break;
		case 2: memcpy(data + at, numbers[below(10)], span < 8 ? span : 8); break;
		case 3: memmove(data + at, data + below(len - span + 1), span); break;
		case 4: data[at] = (unsigned char)opcodes[below(sizeof opcodes - 1)]; break;
		case 5:
			if (len + span <= INPUT_MAX) { /* put in a copy */
				memmove(data + at + span, data + at, len - at);
				len += span;
			}
			break;
		default:
			memmove(data + at, data + at + span, len - at - span); /* take out */
			len -= span;
		}
	}
	return len;
}

/* Puts the CRC of each record right wherever it stands, as far as the damaged directory still says where. */
static void fix_crcs(unsigned char *data, size_t len)
{
	if (len < 98)
		return;
	uint64_t at = le64_get(data + len - ZIP_END_BYTES - ZIP_LOCATOR_BYTES - 8);
	while (at <= len && len - at >= ZIP_CENTRAL_BYTES && le32_get(data + at) == ZIP_CENTRAL_SIGNATURE) {
		uint64_t size = le32_get(data + at + 24), header = le32_get(data + at + 42);
		if (header > len || len - header < ZIP_LOCAL_BYTES)
			return;
		uint64_t payload = header + ZIP_LOCAL_BYTES + le16_get(data + header + 26) + le16_get(data + header + 28);
		if (payload > len || size > len - payload)
			return;
		uint32_t crc = torch_crc32(0, data + payload, (size_t)size);
		le32_put(data + at + 16, crc);
		if (!(data[header + 6] & ZIP_FLAG_DESCRIPTOR))
			le32_put(data + header + 14, crc);
		else if (len - payload - size >= 8)
			le32_put(data + payload + size + 4, crc);
		at += ZIP_CENTRAL_BYTES + (uint64_t)le16_get(data + at + 28) + le16_get(data + at + 30);
	}
}

struct base {
	unsigned char *data;
	size_t len;
	const unsigned char *pickle;
	size_t pickle_len;
	uint64_t digest;
};

/* What a file mutates from: its bytes, where its pickle is (the first record), and what it gives out. */
static struct base load(const char *path)
{
	struct base base;
	base.data = slurp(AT_FDCWD, path, &base.len);
	memory_file_set(&file, base.data, base.len);
	if (use(&base.digest) != 0)
		give_up("a good file is refused", path);
	base.pickle = base.data + ZIP_LOCAL_BYTES + le16_get(base.data + 26) + le16_get(base.data + 28);
	const unsigned char *central = base.data + le64_get(base.data + base.len - ZIP_END_BYTES - ZIP_LOCATOR_BYTES - 8);
	base.pickle_len = le32_get(central + 24);
	return base;
}

/* One mutant of each kind. Returns how many were accepted. */
static unsigned one_round(const struct base *base, unsigned char *data)
{
	unsigned accepted = 0;
	uint64_t h = 0;
	memcpy(data, base->data, base->len);
	size_t len = mutate(data, base->len);
	memory_file_set(&file, data, len);
	if (use(&h) == 0) {
		accepted++;
		if (h != base->digest)
			give_up("silent acceptance", "a mutant with its old CRCs gives out something else");
	}
	/* in the pickle, the payloads or the headers, with right CRCs */
	memcpy(data, base->data, base->len);
	if (below(2)) {
		unsigned char byte = (unsigned char)random_next();
		data[below(base->len)] = byte;
		len = base->len;
	} else {
		len = mutate(data, base->len);
	}
	fix_crcs(data, len);
	memory_file_set(&file, data, len);
	accepted += use(&h) == 0;
	/* the pickle alone, at any length */
	memcpy(data, base->pickle, base->pickle_len);
	len = mutate(data, base->pickle_len);
	accepted += use_as_pickle(data, len, &h) == 0;
	return accepted;
}

int main(int argc, char **argv)
{
	static const char *const paths[] = {GOLDEN "recd-1.pt", GOLDEN "torch-1.13-dict.pt", GOLDEN "torch-2.6-dict.pt", GOLDEN "torch-2.6-state-dict.pt"};
	const char *scale = getenv("RECD_TEST_SCALE");
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t rounds = (argc > 2 ? strtoull(argv[2], NULL, 10) : 4000 * (scale && atoi(scale) > 0 ? (uint64_t)atoi(scale) : 1)) / 3 + 1;
	struct base bases[sizeof paths / sizeof paths[0]];
	unsigned char *data = malloc(INPUT_MAX);
	uint64_t accepted = 0;
#ifndef SANITIZED
	const struct rlimit limit = {MEMORY_MAX / 4, MEMORY_MAX / 4};
	if (setrlimit(RLIMIT_AS, &limit) < 0)
		die("setrlimit");
#endif
	if (!data)
		die("malloc");
	printf("fuzz_torch: seed %" PRIu64 ", %" PRIu64 " mutants\n", seed, 3 * rounds);
	random_state = seed * 0x9e3779b97f4a7c15u + 1;
	file = memory_file_new();
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		bases[i] = load(paths[i]);
	for (uint64_t i = 0; i < rounds; i++)
		accepted += one_round(&bases[below(sizeof paths / sizeof paths[0])], data);
	printf("fuzz_torch: %" PRIu64 " mutants accepted, no crash\n", accepted);
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		free(bases[i].data);
	free(data);
	(void)close(file.fd);
	return accepted == 0; /* none at all would mean that the reader is never reached */
}

#endif
