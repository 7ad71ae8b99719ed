/*
 * snapshot.c: `recctl snapshot`: asks a running recd to write a checkpoint now and waits until it is durable. Main thread of recctl.
 */
#include <inttypes.h>
#include <stddef.h>

#include "daemon/recctl/client.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/table.h"
#include "daemon/render.h"

struct options {
	const char *socket;
	int64_t timeout_sec;
	int json;
};

static const struct flag flags[] = {
	{ .name = "socket", .type = FLAG_STRING, .offset = offsetof(struct options, socket), .fallback = CLIENT_SOCKET_DEFAULT, .placeholder = "PATH",
	  .help = "The recd that listens here." },
	{ .name = "timeout_sec", .type = FLAG_INT, .offset = offsetof(struct options, timeout_sec), .fallback = "60", .min = 1, .max = 3600,
	  .help = "How long to wait until it is durable." },
	{ .name = "json", .type = FLAG_BOOL, .offset = offsetof(struct options, json), .help = "Print the answer as one JSON object." },
};

static const struct command_spec spec = {
	.name = "snapshot",
	.purpose = "makes a running recd write a checkpoint now",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "The checkpoint holds everything that recd had applied when it was asked. Done means durable: written, synced and renamed into place.",
	.examples = "  recctl snapshot\n"
	            "  recctl snapshot --socket /run/recd/recd.sock --json",
};

int command_snapshot(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	char path[64], errstr[512], bytes[32];
	json_t *answer;
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	snprintf(path, sizeof(path), "/v1/snapshot?timeout_sec=%" PRId64, options.timeout_sec);
	if (client_request(options.socket, "POST", path, (int)options.timeout_sec + 5, &answer, errstr, sizeof(errstr))) {
		fprintf(stderr, "recctl snapshot: %s\n", errstr);
		return EXIT_FAILED;
	}
	if (options.json) {
		rc = json_dumpf(answer, stdout, RENDER_FLAGS) ? EXIT_FAILED : EXIT_OK;
		putchar('\n');
	} else {
		text_count((uint64_t)json_integer_value(json_object_get(answer, "bytes")), bytes);
		printf("checkpoint %" JSON_INTEGER_FORMAT " is durable: %s bytes in %" JSON_INTEGER_FORMAT " ms\n",
		       json_integer_value(json_object_get(answer, "checkpoint")), bytes, json_integer_value(json_object_get(answer, "duration_ms")));
		rc = EXIT_OK;
	}
	json_decref(answer);
	return rc;
}
