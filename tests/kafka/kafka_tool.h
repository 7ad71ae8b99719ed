/*
 * kafka_tool.h: what the parts of kafka_tool share. A small Kafka client for the tests: makes topics, fills, cuts and reads them, is a foreign member of a
 * group, or is a mock cluster. Each command is one function in its own file; data go to stdout, errors in words to stderr.
 */
#ifndef TESTS_KAFKA_TOOL_H
#define TESTS_KAFKA_TOOL_H

#include <librdkafka/rdkafka.h>
#include <stddef.h>

#define TIMEOUT_MS 30000
#define CONFIGS_MAX 16

/* The command line, taken apart. Strings are those of argv. */
struct arguments {
	const char *brokers;
	const char *words[4]; /* what follows the command and is no flag */
	int n_words;
	const char *configs[CONFIGS_MAX]; /* create: NAME=VALUE */
	int n_configs;
	int partitions;          /* create, mock */
	int partition;           /* produce: all to this one; -1: by key */
	int rate;                /* produce: records a second; 0: as fast as it goes */
	int per_transaction;     /* produce --transaction marks */
	int tombstones;          /* produce: this many records without a value after the file's */
	const char *key;         /* produce: the number of this name in the line is the key */
	const char *transaction; /* produce: NULL, "commit", "abort", "marks" */
};

/* A command: 0 or the exit code, its error said already. */
typedef int (*command_fn)(const struct arguments *args);
int command_create(const struct arguments *args);
int command_delete(const struct arguments *args);
int command_add_partitions(const struct arguments *args);
int command_delete_records(const struct arguments *args);
int command_watermarks(const struct arguments *args);
int command_committed(const struct arguments *args);
int command_consume(const struct arguments *args);
int command_produce(const struct arguments *args);
int command_join(const struct arguments *args);
int command_mock(const struct arguments *args);

/* Says "kafka_tool: ..." on stderr and returns 1. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A client; `settings` are name, value, name, value, NULL. NULL after an error, which is said. Owned by the caller (rd_kafka_destroy). */
rd_kafka_t *client_new(rd_kafka_type_t type, const struct arguments *args, const char *const *settings);

#endif
