/*
 * kafka_tool.c: the command line of kafka_tool and what its commands share. One thread of ours; librdkafka has its own.
 */
#include "tests/kafka/kafka_tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"kafka_tool --brokers HOST:PORT COMMAND ...: a small Kafka client for the tests\n"
	"  create TOPIC [--partitions N] [--config NAME=VALUE]...\n"
	"  delete TOPIC\n"
	"  add-partitions TOPIC N            N in all\n"
	"  delete-records TOPIC PARTITION OFFSET     evicts what is before OFFSET (-1: all)\n"
	"  watermarks TOPIC                  a line a partition: PARTITION FIRST NEXT\n"
	"  committed GROUP TOPIC             a line a partition: PARTITION OFFSET (-1: none)\n"
	"  produce TOPIC FILE [--key NAME] [--partition N] [--rate N] [--tombstones N] [--transaction commit|abort|marks] [--per-transaction N]\n"
	"                                    a record a line (FILE -: stdin); the key is the number of that name (user_id), the partitioner murmur2_random;\n"
	"                                    marks: a committed transaction every N lines\n"
	"  consume TOPIC                     a line a record: PARTITION OFFSET TIMESTAMP KEY ORIGIN VALUE, by tabs\n"
	"  join GROUP TOPIC                  a member of a group until stdin ends; says `assigned N` whenever it was given partitions\n"
	"  mock [--partitions N]             a mock cluster until stdin ends: prints its address, then takes lines: topic NAME N, down, up,\n"
	"                                    errors API CODE COUNT (numbers of the protocol)\n";

int fail(const char *format, ...)
{
	va_list args;

	fputs("kafka_tool: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return 1;
}

static void quiet(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
	(void)client, (void)level, (void)facility, (void)text;
}

rd_kafka_t *client_new(rd_kafka_type_t type, const struct arguments *args, const char *const *settings)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char errstr[512];
	rd_kafka_t *client;

	rd_kafka_conf_set_log_cb(conf, quiet);
	if (rd_kafka_conf_set(conf, "bootstrap.servers", args->brokers, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
		goto fail;
	for (; *settings; settings += 2)
		if (rd_kafka_conf_set(conf, settings[0], settings[1], errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
			goto fail;
	client = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	if (client)
		return client;
fail:
	fail("%s", errstr);
	rd_kafka_conf_destroy(conf);
	return NULL;
}

/* The place of a numeric flag, or NULL. */
static int *number_flag(struct arguments *args, const char *name)
{
	if (!strcmp(name, "--partitions"))
		return &args->partitions;
	if (!strcmp(name, "--partition"))
		return &args->partition;
	if (!strcmp(name, "--rate"))
		return &args->rate;
	if (!strcmp(name, "--per-transaction"))
		return &args->per_transaction;
	return strcmp(name, "--tombstones") ? NULL : &args->tombstones;
}

static int parse(int argc, char **argv, struct arguments *args, const char **ret_command)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strncmp(word, "--", 2) != 0) {
			if (!*ret_command)
				*ret_command = word;
			else if (args->n_words < 4)
				args->words[args->n_words++] = word;
			else
				return fail("too many words at '%s'", word);
			continue;
		}
		if (!value)
			return fail("%s needs a value", word);
		i++;
		if (number_flag(args, word))
			*number_flag(args, word) = atoi(value);
		else if (!strcmp(word, "--brokers"))
			args->brokers = value;
		else if (!strcmp(word, "--key"))
			args->key = value;
		else if (!strcmp(word, "--transaction"))
			args->transaction = value;
		else if (!strcmp(word, "--config") && args->n_configs < CONFIGS_MAX)
			args->configs[args->n_configs++] = value;
		else
			return fail("unknown flag %s", word);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int n_words;
		command_fn run;
	} commands[] = {
		{ "create", 1, command_create },
		{ "delete", 1, command_delete },
		{ "add-partitions", 2, command_add_partitions },
		{ "delete-records", 3, command_delete_records },
		{ "watermarks", 1, command_watermarks },
		{ "committed", 2, command_committed },
		{ "produce", 2, command_produce },
		{ "consume", 1, command_consume },
		{ "join", 2, command_join },
		{ "mock", 0, command_mock },
	};
	struct arguments args = { .partitions = 1, .partition = -1, .per_transaction = 10, .key = "user_id" };
	const char *command = NULL;

	if (parse(argc, argv, &args, &command))
		return 2;
	for (size_t i = 0; command && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(command, commands[i].name) != 0)
			continue;
		if (args.n_words != commands[i].n_words)
			return fail("%s takes %d words", command, commands[i].n_words), 2;
		if (!args.brokers && commands[i].run != command_mock)
			return fail("--brokers HOST:PORT is missing"), 2;
		return commands[i].run(&args);
	}
	fputs(usage, stderr);
	return 2;
}
