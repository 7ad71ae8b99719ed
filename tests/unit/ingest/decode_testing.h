/*
 * decode_testing.h: a decoder and a batch for the tests of the decoder, one line at a time. A test program includes it once and passes start and stop as its
 * group's setup and teardown.
 */
#ifndef TESTS_UNIT_INGEST_DECODE_TESTING_H
#define TESTS_UNIT_INGEST_DECODE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/decode.h"

#define GOOD 0
#define BAD(reason) (1 + REFUSED_##reason)
#define T "2025-12-10T12:00:01+00:00"
#define T_US INT64_C(1765368001000000)

static const struct decode_limits limits = {.line_bytes_max = 1u << 20, .depth_max = 32};
static struct decoder *decoder;
static struct event_batch *batch;

/* Decodes both ways, padded (with hostile padding) and copied, and checks that they agree. */
static int decode(enum event_stream stream, const char *line, size_t len)
{
	static const char *const paddings[] = {"\n", "}", "\"}", "]}", ",\"user_id\":9}", "0"};
	int result = 0;

	for (size_t i = 0; i <= sizeof(paddings) / sizeof(paddings[0]); i++) {
		int r;

		event_batch_clear(batch);
		if (i == 0) {
			r = result = decode_line(decoder, stream, line, len, 0, batch);
		} else {
			char *copy = malloc(len + DECODE_PADDING);

			assert_non_null(copy);
			memcpy(copy, line, len);
			for (size_t k = 0; k < DECODE_PADDING; k++)
				copy[len + k] = paddings[i - 1][k % strlen(paddings[i - 1])];
			r = decode_line(decoder, stream, copy, len, 1, batch);
			free(copy);
		}
		if (r != result)
			fail_msg("with padding %zu: %d, without: %d: %.*s", i, r, result, (int)(len < 200 ? len : 200), line);
		if (r != 0) {
			assert_int_equal(batch->n_events, 0);
			assert_int_equal(batch->text_len, 0);
		}
	}
	return result;
}

static inline const char *result_name(int result)
{
	return result == 0 ? "good" : result > 0 ? refusal_name((enum refusal)(result - 1)) : strerror(-result);
}

static int start(void **unused)
{
	(void)unused;
	decoder = decoder_new(&limits);
	batch = event_batch_new();
	return decoder && batch ? 0 : -1;
}

static int stop(void **unused)
{
	(void)unused;
	decoder_free(decoder);
	event_batch_free(batch);
	decoder_free(NULL);
	event_batch_free(NULL);
	return 0;
}

#endif
