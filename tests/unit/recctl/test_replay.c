/*
 * test_replay.c: the parts of `recctl replay` that need no broker: files of every format whole, cut off and damaged; the order of the merge against a naive
 * one; names, speeds, the header, and due times on a made-up clock.
 */
#include "daemon/recctl/replay_file.h"
#include "daemon/recctl/replay_pace.h"
#include "daemon/recctl/replay_plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#define LINE_MAX_BYTES 1000

static char folder[64];

static const char *path_of(const char *name)
{
	static char paths[8][128];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/recd-replay-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command); /* NOLINT(cert-env33-c): a folder of our own name */
}

static const char *write_bytes(const char *name, const void *bytes, size_t len)
{
	const char *path = path_of(name);
	FILE *out = fopen(path, "wb");

	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, len, out), len);
	assert_int_equal(fclose(out), 0);
	return path;
}

static const char *write_text(const char *name, const char *text)
{
	return write_bytes(name, text, strlen(text));
}

enum format { PLAIN, GZIP, ZSTD, N_FORMATS };

/* `len` bytes in a format into out; a compressed one in two members or frames. Returns the length. */
static size_t pack(enum format format, const char *text, size_t len, unsigned char *out, size_t size)
{
	size_t used = 0, halves[3] = { 0, len / 3, len };

	if (format == PLAIN) {
		memcpy(out, text, len);
		return len;
	}
	for (int i = 0; i < 2; i++) {
		const char *begin = text + halves[i];
		size_t n = halves[i + 1] - halves[i];

		if (format == ZSTD) {
			used += ZSTD_compress(out + used, size - used, begin, n, 3);
			continue;
		}
		z_stream z = { .next_in = (unsigned char *)(uintptr_t)begin, .avail_in = (uInt)n, .next_out = out + used, .avail_out = (uInt)(size - used) };
		assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		used = size - z.avail_out;
		deflateEnd(&z);
	}
	return used;
}

/* Lines of many lengths, with their exact text known again from their number: some empty, some with CR, one too long, the last without newline. */
#define N_LINES 4000
static size_t make_line(int i, char out[4096])
{
	size_t n = i == 1234 ? 3000 : i == 77 ? LINE_MAX_BYTES : i % 50 == 0 ? 0 : (size_t)(i * 7 % 300) + 1;

	for (size_t k = 0; k < n; k++)
		out[k] = (char)('a' + ((size_t)i * 31 + k * k * 7) % 26);
	return n;
}

static char *make_text(size_t *ret_len)
{
	char *text = malloc(N_LINES * 320 + 8192), line[4096];
	size_t used = 0;

	for (int i = 0; i < N_LINES; i++) {
		size_t n = make_line(i, line);

		memcpy(text + used, line, n);
		used += n;
		if (i % 9 == 3)
			text[used++] = '\r';
		if (i < N_LINES - 1)
			text[used++] = '\n';
	}
	*ret_len = used;
	return text;
}

/* Reads a file of make_text() to its end or error; checks each line and its offset. Returns the lines; *ret_rc the last answer. */
static int read_back(const char *path, int *ret_rc, char errstr[256])
{
	struct replay_file *file = NULL;
	struct replay_line line;
	char expected[4096];
	int64_t offset = 0;
	int n = 0;

	*ret_rc = replay_file_open(path, LINE_MAX_BYTES, &file, errstr, 256);
	if (*ret_rc)
		return 0;
	while ((*ret_rc = replay_file_next(file, &line, errstr, 256)) > 0) {
		size_t len = make_line(n, expected);

		assert_int_equal(line.number, n + 1);
		assert_int_equal(line.offset, offset);
		if (n == 1234) {
			assert_null(line.text);
			assert_in_range(line.len, len, len + 1);
		} else {
			assert_int_equal(line.len, len);
			assert_memory_equal(line.text, expected, len);
		}
		offset += (int64_t)len + (n % 9 == 3) + 1;
		n++;
	}
	replay_file_close(file);
	return n;
}

static void test_formats_give_the_same_lines(void **state)
{
	size_t len, packed_len, size;
	char *text = make_text(&len), errstr[256];
	uint64_t ids[N_FORMATS];

	(void)state;
	size = len + 4096;
	unsigned char *packed = malloc(size);
	for (enum format format = PLAIN; format < N_FORMATS; format++) {
		int rc;

		packed_len = pack(format, text, len, packed, size);
		const char *path = write_bytes("whole", packed, packed_len);
		assert_int_equal(read_back(path, &rc, errstr), N_LINES);
		assert_int_equal(rc, 0);
		assert_int_equal(replay_file_content_id(path, &ids[format], errstr, sizeof(errstr)), 0);
	}
	assert_true(ids[PLAIN] == ids[GZIP] && ids[PLAIN] == ids[ZSTD]);
	text[4095] ^= 1;
	const char *path = write_bytes("other", text, len);
	assert_int_equal(replay_file_content_id(path, &ids[GZIP], errstr, sizeof(errstr)), 0);
	assert_true(ids[PLAIN] != ids[GZIP]);
	text[4095] ^= 1;
	text[4096] ^= 1;
	path = write_bytes("longer", text, len - 100); /* what comes after the first bytes does not matter */
	assert_int_equal(replay_file_content_id(path, &ids[GZIP], errstr, sizeof(errstr)), 0);
	assert_true(ids[PLAIN] == ids[GZIP]);
	free(packed);
	free(text);
}

static void test_cut_off_files_are_errors_with_a_place(void **state)
{
	size_t len, size;
	char *text = make_text(&len), errstr[256];

	(void)state;
	size = len + 4096;
	unsigned char *packed = malloc(size);
	for (enum format format = GZIP; format < N_FORMATS; format++) {
		size_t packed_len = pack(format, text, len, packed, size);
		int n_ok = 0, before = 0;

		for (size_t cut = 8; cut < packed_len; cut += packed_len / 97 + 1) { /* at 8 the format is known */
			int rc, n = read_back(write_bytes("cut", packed, cut), &rc, errstr);

			if (!rc) { /* only where the first member ends */
				n_ok++;
				continue;
			}
			assert_int_equal(rc, -EBADMSG);
			assert_non_null(strstr(errstr, "/cut: "));
			assert_non_null(strstr(errstr, "ends too early"));
			assert_true(n >= before); /* what came before the cut was handed out */
			before = n;
		}
		assert_in_range(n_ok, 0, 1);
		assert_true(before > N_LINES / 2);
	}
	free(packed);
	free(text);
}

static void test_damaged_files_are_errors(void **state)
{
	size_t len, size;
	char *text = make_text(&len), errstr[256];

	(void)state;
	size = len + 4096;
	unsigned char *packed = malloc(size);
	for (enum format format = GZIP; format < N_FORMATS; format++) {
		size_t packed_len = pack(format, text, len, packed, size);
		int rc;

		/* bytes that are no member or frame behind the last one */
		memcpy(packed + packed_len, "garbage", 7);
		assert_int_equal(read_back(write_bytes("garbage", packed, packed_len + 7), &rc, errstr), N_LINES - 1); /* the last has no newline */
		assert_int_equal(rc, -EBADMSG);
		assert_non_null(strstr(errstr, "damaged"));
		assert_non_null(strstr(errstr, "after line 3999"));
	}
	/* a flipped bit in gzip shows at the latest at its checksum: never a clean end */
	size_t packed_len = pack(GZIP, text, len, packed, size);
	for (size_t at = 20; at < packed_len; at += 4999) {
		struct replay_file *file = NULL;
		struct replay_line line;
		int rc;

		packed[at] ^= 0x10;
		assert_int_equal(replay_file_open(write_bytes("flipped", packed, packed_len), LINE_MAX_BYTES, &file, errstr, sizeof(errstr)), 0);
		while ((rc = replay_file_next(file, &line, errstr, sizeof(errstr))) > 0)
			;
		assert_int_equal(rc, -EBADMSG);
		replay_file_close(file);
		packed[at] ^= 0x10;
	}
	free(packed);
	free(text);
}

static void test_origin_header(void **state)
{
	struct replay_origin origin;
	char value[REPLAY_ORIGIN_MAX];
	size_t len = replay_origin_write("watch#1.jsonl", UINT64_C(0x0123456789abcdef), 1234567890123, 174, UINT64_MAX, 0x00c0ffee, value);
	static const char expected[] = "watch#1.jsonl#0123456789abcdef@1234567890123+174/ffffffffffffffff:00c0ffee";

	(void)state;
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(value, expected, len);
	assert_int_equal(replay_origin_parse(value, len, &origin), 0);
	assert_string_equal(origin.name, "watch#1.jsonl");
	assert_true(origin.content_id == UINT64_C(0x0123456789abcdef) && origin.replay_id == UINT64_MAX && origin.offset == 1234567890123 && origin.len == 174);
	assert_int_equal(origin.sequence, 0x00c0ffee);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(replay_origin_parse(value, cut, &origin), -EINVAL);
	value[len] = 'f';
	assert_int_equal(replay_origin_parse(value, len + 1, &origin), -EINVAL);
	assert_int_equal(replay_origin_parse("a#0123456789abcdef@99999999999999999999+1/0123456789abcdef:00000000", 67, &origin), -EINVAL);
}

/* Whatever differs in what was given to a partition, its length in steps of eight bytes and the order included, shows in the half that the header has. */
static void test_sequence_of_lines(void **state)
{
	static const char text[] = "{\"user_id\":1,\"item_id\":2}";
	const size_t len = sizeof(text) - 1;
	const uint32_t whole = (uint32_t)replay_sequence_next(0, 5, 100, text, len);
	char other[sizeof(text)];

	(void)state;
	assert_int_equal(whole, (uint32_t)replay_sequence_next(0, 5, 100, text, len));
	for (size_t i = 0; i < len; i++) {
		memcpy(other, text, sizeof(text));
		other[i] ^= 1;
		assert_int_not_equal(whole, (uint32_t)replay_sequence_next(0, 5, 100, other, len));
		assert_int_not_equal(whole, (uint32_t)replay_sequence_next(0, 5, 100, text, i));
	}
	assert_int_not_equal(whole, (uint32_t)replay_sequence_next(0, 6, 100, text, len));
	assert_int_not_equal(whole, (uint32_t)replay_sequence_next(0, 5, 101, text, len));
	assert_int_not_equal(whole, (uint32_t)replay_sequence_next(1, 5, 100, text, len));
	const uint64_t ab = replay_sequence_next(replay_sequence_next(0, 5, 0, "a", 1), 5, 2, "b", 1), ba = replay_sequence_next(replay_sequence_next(0, 5, 2, "b", 1), 5, 0, "a", 1);

	assert_int_not_equal((uint32_t)ab, (uint32_t)ba);
}

static void test_speed_on_a_made_up_clock(void **state)
{
	struct replay_pace pace = { .speed = 60 };
	const int64_t s = 1000000;

	(void)state;
	assert_int_equal(replay_pace_wait_us(&pace, INT64_MIN, 5), 0); /* catalogue: at once, and it starts no clock */
	assert_int_equal(replay_pace_wait_us(&pace, 1000 * s, 100 * s), 0);
	assert_int_equal(replay_pace_wait_us(&pace, 1060 * s, 100 * s), s); /* a minute later in a second */
	assert_int_equal(replay_pace_wait_us(&pace, 1060 * s, 100 * s + 400000), 600000);
	assert_int_equal(replay_pace_wait_us(&pace, 1060 * s, 101 * s), 0);
	assert_int_equal(replay_pace_wait_us(&pace, 1120 * s, 105 * s), 0); /* late: catches up */
	assert_int_equal(replay_pace_wait_us(&pace, 1360 * s, 105 * s), s);
	assert_int_equal(replay_pace_wait_us(&pace, 2000000 * s, 106 * s), 3600 * s); /* far away: an hour at a time */

	struct replay_pace rate = { .rate = 100 };
	int64_t clock = 50 * s;
	for (int i = 0; i < 1000; i++) {
		clock += replay_pace_wait_us(&rate, INT64_MIN, clock);
		assert_int_equal(clock, 50 * s + i * 10000);
		replay_pace_taken(&rate);
	}
	clock += 5 * s; /* a stall of five seconds: 500 at once, then on time */
	int at_once = 0;
	while (!replay_pace_wait_us(&rate, 1, clock)) {
		replay_pace_taken(&rate);
		at_once++;
	}
	assert_in_range(at_once, 499, 501);
	struct replay_pace max = { 0 };
	assert_int_equal(replay_pace_wait_us(&max, 1000 * s, 0), 0);
	assert_int_equal(replay_pace_wait_us(&max, 9000 * s, 0), 0);
}

static void test_speed_texts(void **state)
{
	static const char *const bad[] = { "", "x", "fast", "-1", "0", "1xx", "nan", "inf", "1e99", " 1", "+1" };
	double speed = 7;

	(void)state;
	assert_int_equal(replay_speed_parse("max", &speed), 0);
	assert_true(speed == 0);
	assert_int_equal(replay_speed_parse("60x", &speed), 0);
	assert_true(speed == 60);
	assert_int_equal(replay_speed_parse("0.5", &speed), 0);
	assert_true(speed == 0.5);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(replay_speed_parse(bad[i], &speed), -EINVAL);
}

static void test_stream_of_a_file_name(void **state)
{
	static const struct {
		const char *name;
		int stream;
	} rows[] = {
		{ "watch_stats.jsonl", STREAM_WATCHES },     { "watch_stats-2024-01.jsonl.zst", STREAM_WATCHES }, { "impressions.jsonl.gz", STREAM_IMPRESSIONS },
		{ "impressions.jsonl.1", STREAM_IMPRESSIONS }, { "events.jsonl-20240101.gz", STREAM_EVENTS },      { "items.jsonl", STREAM_CATALOGUE },
		{ "users.jsonl.12.zst", STREAM_USERS },      { "train_samples.jsonl", -1 },                       { "watch_stats.jsonl.tmp", -1 },
		{ "watch_stats.jsonl~", -1 },                { "xevents.jsonl", -1 },                             { "events.json", -1 },
		{ "events2.jsonl", -1 },                     { "eventsjsonl", -1 },                               { "", -1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (replay_stream_of(rows[i].name) != rows[i].stream)
			fail_msg("%s: %d", rows[i].name, replay_stream_of(rows[i].name));
	}
}

static void test_plan_flags(void **state)
{
	struct replay_plan plan;
	char errstr[512];

	(void)state;
	assert_int_equal(replay_plan_begin("events,items", "events=my.events", "x-", NULL, &plan, errstr, sizeof(errstr)), 0);
	assert_true(plan.wanted[STREAM_EVENTS] && plan.wanted[STREAM_CATALOGUE] && !plan.wanted[STREAM_WATCHES] && !plan.wanted[STREAM_USERS]);
	assert_string_equal(plan.topics[STREAM_EVENTS], "my.events");
	assert_string_equal(plan.topics[STREAM_CATALOGUE], "x-catalogue");
	static const char *const configured[STREAM_COUNT] = { [STREAM_EVENTS] = "clicks", [STREAM_WATCHES] = "views" };
	assert_int_equal(replay_plan_begin(NULL, "users=u,watch_stats=w", "x-", configured, &plan, errstr, sizeof(errstr)), 0);
	assert_true(plan.wanted[STREAM_EVENTS] && plan.wanted[STREAM_WATCHES] && plan.wanted[STREAM_USERS] && !plan.wanted[STREAM_IMPRESSIONS]);
	assert_string_equal(plan.topics[STREAM_EVENTS], "clicks");
	assert_string_equal(plan.topics[STREAM_WATCHES], "w");
	assert_int_equal(replay_plan_begin("events,", NULL, NULL, NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_int_equal(replay_plan_begin(NULL, "events", NULL, NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_int_equal(replay_plan_begin(NULL, "events=a b", NULL, NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_int_equal(replay_plan_begin(NULL, "nope=a", NULL, NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_non_null(strstr(errstr, "nope=a"));
	assert_int_equal(replay_plan_begin(NULL, NULL, "a/b", NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_int_equal(replay_plan_begin(NULL, "events=one,users=one", NULL, NULL, &plan, errstr, sizeof(errstr)), -EINVAL);
	assert_non_null(strstr(errstr, "both go to topic \"one\""));
	assert_int_equal(replay_plan_begin("events", "events=one,users=one", NULL, NULL, &plan, errstr, sizeof(errstr)), 0);
}

static void test_plan_identity(void **state)
{
	struct replay_plan plan;
	char errstr[512];

	(void)state;
	write_text("events-b.jsonl", "{\"b\":1}\n");
	write_text("events-a.jsonl", "{\"a\":1}\n");
	write_text("items.jsonl", "{\"item_id\":1}\n");
	assert_int_equal(replay_plan_begin("events,catalogue", NULL, NULL, NULL, &plan, errstr, sizeof(errstr)), 0);
	assert_int_equal(replay_plan_add_folder(&plan, folder, errstr, sizeof(errstr)), 0);
	assert_int_equal(replay_plan_finish(&plan, errstr, sizeof(errstr)), 0);
	assert_int_equal(plan.n_inputs, 3);
	assert_int_equal(plan.inputs[0].stream, STREAM_CATALOGUE);
	assert_string_equal(plan.inputs[1].name, "events-a.jsonl");
	uint64_t id = replay_plan_id(&plan, STREAM_EVENTS, 1, 2, 4);
	assert_true(id != replay_plan_id(&plan, STREAM_EVENTS, 0, 2, 4) && id != replay_plan_id(&plan, STREAM_EVENTS, 1, 3, 4) &&
	            id != replay_plan_id(&plan, STREAM_EVENTS, 1, 2, 5) && id != replay_plan_id(&plan, STREAM_CATALOGUE, 1, 2, 4));
	plan.inputs[2].content_id++;
	assert_true(id != replay_plan_id(&plan, STREAM_EVENTS, 1, 2, 4));
	/* the same content compressed beside it */
	unsigned char packed[256];
	write_bytes("events-b.jsonl.zst", packed, pack(ZSTD, "{\"b\":1}\n", 8, packed, sizeof(packed)));
	assert_int_equal(replay_plan_add_file(&plan, path_of("events-b.jsonl.zst"), errstr, sizeof(errstr)), 0);
	assert_int_equal(replay_plan_finish(&plan, errstr, sizeof(errstr)), -EINVAL);
	assert_non_null(strstr(errstr, "events-b.jsonl.zst"));
	assert_int_equal(replay_plan_add_file(&plan, "what.txt", errstr, sizeof(errstr)), -EINVAL);
	replay_plan_free(&plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_formats_give_the_same_lines, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_cut_off_files_are_errors_with_a_place, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_damaged_files_are_errors, make_folder, remove_folder),
		cmocka_unit_test(test_origin_header),
		cmocka_unit_test(test_sequence_of_lines),
		cmocka_unit_test(test_speed_on_a_made_up_clock),
		cmocka_unit_test(test_speed_texts),
		cmocka_unit_test(test_stream_of_a_file_name),
		cmocka_unit_test(test_plan_flags),
		cmocka_unit_test_setup_teardown(test_plan_identity, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
