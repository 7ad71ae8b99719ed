/*
 * test_config.c: the option table from all sides: defaults, every kind of bad value (FAILURES row 49), reload, and that the two files written from the
 * table stand in the tree as it would write them now. RECD_UPDATE=1 writes those files instead of comparing. Runs in the repository's root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/config_table.h"

static char dir[] = "/tmp/recd-test-config-XXXXXX";
static char path[64];
static char errstr[1024];

#define KAFKA "kafka = { brokers = \"localhost:9092\"; };\n"
#define TEN "xxxxxxxxxx"
#define LONG_TOPIC TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "x" /* 221 */
#define WATCHES "sources = { watch_stats = { files = \"/logs/w.jsonl\"; }; };\n"

static void write_file(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static int load(const char *text, struct config *config)
{
	write_file(text, strlen(text));
	errstr[0] = 0;
	return config_load(path, config, errstr, sizeof(errstr));
}

static void assert_loads(const char *text, struct config *config)
{
	if (load(text, config) != 0)
		fail_msg("refused: %s", errstr);
}

static void test_defaults(void **state)
{
	struct config config;
	char text[512];

	(void)state;
	config_default(&config);
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];
		char quoted[128];

		config_value_text(option, &config, text, sizeof(text));
		if (!option->fallback) {
			assert_string_equal(text, "");
			continue;
		}
		snprintf(quoted, sizeof(quoted), "\"%s\"", option->fallback);
		if (strcmp(text, option->fallback) != 0 && strcmp(text, quoted) != 0)
			fail_msg("%s: the default %s is not within its own range (holds %s)", option->key, option->fallback, text);
	}
	assert_int_equal(config.learn.emb_dim, 64);
	assert_int_equal(config.learn.hard_of, 2);
	assert_true(config.learn.hard_share == 1.0f && config.cool_passes > 0.0f && config.rate_floor < 1.0f);
	assert_int_equal(config.rules.negative_after_us, 1800 * 1000000ll);
	assert_int_equal(config.learn.optimizer, OPTIMIZER_SGD);
	assert_string_equal(config.socket_path, "/run/recd/recd.sock");
	config_free(&config);
}

static void test_reads_every_kind(void **state)
{
	struct config config;

	(void)state;
	assert_loads("data_dir = \"/srv/recd\";\n"
	             "log = { level = \"debug\"; format = \"json\"; };\n"
	             "sources = {\n"
	             "  watch_stats = { files = [\"/a/*.jsonl\", \"/b.jsonl\"]; from = \"end\"; };\n"
	             "  impressions = { files = \"/c.jsonl\"; };\n"
	             "  events = { files = (\"/d.jsonl\"); };\n"
	             "  dead_letter_bytes_max = 6000000000; # above 32 bits, without the L\n"
	             "};\n"
	             "state = { min_pos_completion = 1; negative_after_sec = 60; users_max = 0x10; };\n"
	             "training = { enabled = false; seed = 9007199254740991L; optimizer = \"adagrad\"; learning_rate = .2000000000; skip_share = 0.25; popular_share = 0.125; publish_share_max = 2.5e-1; };\n",
	             &config);
	assert_string_equal(config.path, path);
	assert_string_equal(config.data_dir, "/srv/recd");
	assert_string_equal(config.log_level, "debug");
	assert_string_equal(config.log_format, "json");
	assert_int_equal(config.streams[STREAM_WATCHES].n_files, 2);
	assert_string_equal(config.streams[STREAM_WATCHES].files[1], "/b.jsonl");
	assert_int_equal(config.streams[STREAM_WATCHES].from_end, 1);
	assert_int_equal(config.streams[STREAM_IMPRESSIONS].n_files, 1);
	assert_string_equal(config.streams[STREAM_EVENTS].files[0], "/d.jsonl");
	assert_int_equal(config.streams[STREAM_EVENTS].from_end, 0);
	assert_int_equal(config.streams[STREAM_USERS].n_files, 0);
	assert_int_equal(config.dead_letter_bytes_max, 6000000000ull);
	assert_true(config.rules.min_pos_completion == 1.0f);
	assert_int_equal(config.rules.negative_after_us, 60 * 1000000ll);
	assert_int_equal(config.state.users_max, 16);
	assert_int_equal(config.training_enabled, 0);
	assert_int_equal(config.learn.seed, 9007199254740991ull);
	assert_int_equal(config.learn.optimizer, OPTIMIZER_ADAGRAD);
	assert_true(config.learn.learning_rate == 0.2f);
	assert_true(config.learn.hard_share == 0.625f); /* not given: what the other two leave */
	assert_true(config.publish_share_max == 0.25);
	assert_int_equal(config.checkpoint_keep, 3); /* untouched: the default */
	config_free(&config);
}

static void test_reads_kafka(void **state)
{
	struct config config;
	char text[512];

	(void)state;
	config_default(&config);
	assert_null(config.kafka.brokers);
	assert_string_equal(config.kafka.group, "recd");
	assert_int_equal(config.kafka.partitions.n_ranges, 0);
	assert_int_equal(config.kafka.accept_gaps, 0);
	assert_int_equal(config.kafka.metadata_interval_ms, 30000);
	config_free(&config);
	assert_loads("sources = { watch_stats = { topic = \"w\"; from = \"end\"; }; events = { files = \"/e\"; topic = \"cinema.events_2-x\"; }; };\n"
	             "kafka = { brokers = \"a:1,b:2\"; group = \"g\"; partitions = \"0-3,8\"; on_gap = \"accept\"; metadata_interval_ms = 500;\n"
	             "  properties = [\"sasl.password=x=y \", \"client.id=\", \"enable.auto.commit=false\"]; };\n",
	             &config);
	assert_string_equal(config.streams[STREAM_WATCHES].topic, "w");
	assert_int_equal(config.streams[STREAM_WATCHES].n_files, 0);
	assert_int_equal(config.streams[STREAM_WATCHES].from_end, 1);
	assert_string_equal(config.streams[STREAM_EVENTS].topic, "cinema.events_2-x");
	assert_int_equal(config.streams[STREAM_EVENTS].n_files, 1);
	assert_null(config.streams[STREAM_USERS].topic);
	assert_string_equal(config.kafka.brokers, "a:1,b:2");
	assert_string_equal(config.kafka.group, "g");
	assert_int_equal(config.kafka.partitions.n_ranges, 2);
	assert_int_equal(config.kafka.partitions.ranges[0].last, 3);
	assert_int_equal(config.kafka.partitions.ranges[1].first, 8);
	assert_int_equal(config.kafka.accept_gaps, 1);
	assert_int_equal(config.kafka.metadata_interval_ms, 500);
	assert_int_equal(config.kafka.properties.n, 3);
	assert_string_equal(config.kafka.properties.properties[0].name, "sasl.password");
	assert_string_equal(config.kafka.properties.properties[0].value, "x=y ");
	assert_string_equal(config.kafka.properties.properties[1].value, "");
	for (size_t i = 0; i < config_options_count; i++) /* what is shown of it, anywhere */
		if (strcmp(config_options[i].key, "kafka.properties") == 0) {
			config_value_text(&config_options[i], &config, text, sizeof(text));
			assert_string_equal(text, "[\"sasl.password=***\", \"client.id=***\", \"enable.auto.commit=***\"]");
		}
	config_free(&config);
}

/* What is written, and what the one line says of it: the line's number, the key, the reason, and what would be right. */
struct bad {
	const char *text;
	const char *expected; /* after the path */
};

static const struct bad bad_files[] = {
	{"", ":1: sources.watch_stats.files: not configured (without watches there is nothing to learn from: "},
	{"\nsources = {\n impressions = { files = \"/i\"; };\n};", ":2: sources.watch_stats.files: not configured"},
	{WATCHES "trainig = { };", ":2: trainig: unknown key (did you mean training?)"},
	{WATCHES "training = {\n\n emb_dmi = 64; };", ":4: training.emb_dmi: unknown key (did you mean training.emb_dim?)"},
	{WATCHES "training = { min_positives = 4; };", ":2: training.min_positives: unknown key (did you mean personalize.min_positives?)"},
	{WATCHES "emb_dim = 64;", ":2: emb_dim: unknown key (did you mean training.emb_dim?)"},
	{"sources = { watch_stat = { files = \"/w\"; }; };", ":1: sources.watch_stat: unknown key (did you mean sources.watch_stats?)"},
	{WATCHES "zebra = 1;", ":2: zebra: unknown key (docs/CONFIGURATION.md lists all)"},
	{WATCHES "training = 3;", ":2: training: is not a group (should be training = { ... };)"},
	{WATCHES "training = { emb_dim = { }; };", ":2: training.emb_dim: is a group { } (should be a whole number, 1 to 512)"},
	{WATCHES "training = { emb_dim = \"64\"; };", ":2: training.emb_dim: is a string (should be a whole number, 1 to 512)"},
	{WATCHES "training = { emb_dim = 64.0; };", ":2: training.emb_dim: is a number (should be a whole number, 1 to 512)"},
	{WATCHES "training = { emb_dim = 0; };", ":2: training.emb_dim: 0 is out of range (should be a whole number, 1 to 512)"},
	{WATCHES "training = { emb_dim = 513; };", ":2: training.emb_dim: 513 is out of range"},
	{WATCHES "training = { emb_dim = -64; };", ":2: training.emb_dim: -64 is out of range"},
	{WATCHES "training = { emb_dim = 4294967360; };", ":2: training.emb_dim: 4294967360 is out of range"},
	{WATCHES "training = { seed = 99999999999999999999; };", ":2: 99999999999999999999: number too large"},
	{WATCHES "training = { learning_rate = 1e999; };", ":2: training.learning_rate: inf is out of range (should be a number, 1e-06 to 10)"},
	{WATCHES "training = { learning_rate = true; };", ":2: training.learning_rate: is true or false (should be a number, "},
	{WATCHES "training = { enabled = 1; };", ":2: training.enabled: is a whole number (should be true or false)"},
	{WATCHES "training = { backend = \"gpu\"; };", ":2: training.backend: \"gpu\" is not allowed (should be one of auto, cpu, cuda)"},
	{WATCHES "training = { backend = \"cp\"; };", ":2: training.backend: \"cp\" is not allowed"},
	{WATCHES "training = { optimizer = \"adam\"; };", ":2: training.optimizer: \"adam\" is not allowed (should be one of sgd, adagrad)"},
	{WATCHES "data_dir = \"data\";", ":2: data_dir: \"data\" is not allowed (should be a path that begins with /)"},
	{WATCHES "data_dir = \"\";", ":2: data_dir: \"\" is not allowed"},
	{"sources = { watch_stats = { files = [\"logs/w.jsonl\"]; }; };", ":1: sources.watch_stats.files: not allowed (should be a list of paths or patterns"},
	{"sources = { watch_stats = { files = [1, 2]; }; };", ":1: sources.watch_stats.files: not allowed"},
	{"sources = { watch_stats = { files = 7; }; };", ":1: sources.watch_stats.files: is a whole number (should be a list of paths"},
	{WATCHES "sources = { };", ":2: duplicate setting name"},
	{"sources = { watch_stats = { files = \"/w\"; };\n events = { files = \"/w\"; }; };",
         ":1: sources.watch_stats.files: \"/w\" stands in sources.events.files too"},
	{"sources = { watch_stats = { files = [\"/w\", \"/w\"]; }; };", ":1: sources.watch_stats.files: \"/w\" stands in sources.watch_stats.files too"},
	{WATCHES "server = { socket = \"/run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345\"; };",
         ":2: server.socket: 111 bytes long (a socket's path has at most 107)"},
	{WATCHES "server = { socket = \"/run/recd/\"; };", ":2: server.socket: names a directory"},
	{WATCHES "checkpoint = { keep = 2; };", ":2: checkpoint.keep: 2 is out of range (should be a whole number, 3 to 1000)"},
	{WATCHES "personalize = { max_age_sec = 1; };\ntraining = { publish_interval_ms = 2000; };", ":2: personalize.max_age_sec: shorter than"},
	{WATCHES "training = { skip_share = 0.2;\nhard_share = 0.9; };", ":3: training.hard_share: with training.skip_share and training.popular_share it makes 1.1"},
	{WATCHES "training = { deterministic = true; batch_size = 65537; };", ":2: training.batch_size: 65537 is out of range (at most 65536 when"},
	{"sources = { watch_stats = { topic = \"w\"; }; };", ":1: sources.watch_stats.topic: needs kafka.brokers"},
	{KAFKA "sources = { events = { topic = \"w\"; }; };", ":2: sources.watch_stats.files: not configured"},
	{KAFKA "sources = { watch_stats = { topic = \"w\"; };\n events = {\n topic = \"w\"; }; };",
         ":2: sources.watch_stats.topic: \"w\" stands in sources.events.topic too (a topic belongs to one stream)"},
	{KAFKA "sources = { watch_stats = { topic = \"a b\"; }; };", ":2: sources.watch_stats.topic: \"a b\" is no topic's name"},
	{KAFKA "sources = { watch_stats = { topic = \"\"; }; };", ":2: sources.watch_stats.topic: \"\" is no topic's name"},
	{KAFKA "sources = { watch_stats = { topic = \"..\"; }; };", ":2: sources.watch_stats.topic: \"..\" is no topic's name"},
	{KAFKA "sources = { watch_stats = { topic = \"" LONG_TOPIC "\"; }; };", ":2: sources.watch_stats.topic: \"xxxx"},
	{KAFKA "sources = { watch_stats = { topic = [\"w\"]; }; };", ":2: sources.watch_stats.topic: is a list (should be a topic's name"},
	{WATCHES "kafka = { brokers = \"\"; };", ":2: kafka.brokers: \"\" is not allowed"},
	{WATCHES "kafka = { group = \"\"; };", ":2: kafka.group: \"\" is not allowed"},
	{WATCHES "kafka = {\n partitions = \"0-3,x\"; };", ":3: kafka.partitions: \"x\": a partition (8) or a range"},
	{WATCHES "kafka = {\n partitions = \"3-0\"; };", ":3: kafka.partitions: 3-0: the first partition is above the last"},
	{WATCHES "kafka = {\n partitions = \"0-3,2\"; };", ":3: kafka.partitions: partition 2 is named twice"},
	{WATCHES "kafka = { partitions = 3; };", ":2: kafka.partitions: is a whole number (should be \"all\", or partitions"},
	{WATCHES "kafka = { on_gap = \"ignore\"; };", ":2: kafka.on_gap: \"ignore\" is not allowed (should be one of refuse, accept)"},
	{WATCHES "kafka = { properties = [\n\"client.id=SECRET\", \"SECRET\"]; };", ":2: kafka.properties: entry 2 is not a string \"NAME=VALUE\""},
	{WATCHES "kafka = { properties = [\"=SECRET\"]; };", ":2: kafka.properties: entry 1 is not a string \"NAME=VALUE\""},
	{WATCHES "kafka = { properties = [7]; };", ":2: kafka.properties: entry 1 is not a string \"NAME=VALUE\""},
	{WATCHES "kafka = { properties = \"sasl.password=SECRET\"; };", ":2: kafka.properties: is a string (should be a list of strings NAME=VALUE)"},
	{WATCHES "kafka = { properties = [\n\"client.id=x\",\n \"sasl.pasword=SECRET\"]; };", ":4: kafka.properties: Kafka property \"sasl.pasword\": librdkafka "},
	{WATCHES "kafka = { properties = [\"fetch.wait.max.ms=SECRET\"]; };", ":2: kafka.properties: Kafka property \"fetch.wait.max.ms\": librdkafka refuses"},
	{WATCHES "kafka = { properties = [\"client.id=a\",\n\"client.id=SECRET\"]; };", ":3: kafka.properties: \"client.id\" stands there twice"},
	{WATCHES "kafka = { properties = [\"enable.auto.commit=true\"]; };", ":2: kafka.properties: Kafka property \"enable.auto.commit\": it must be \"false\""},
	{WATCHES "kafka = { properties = [\"enable.auto.offset.store=true\"]; };", ":2: kafka.properties: Kafka property \"enable.auto.offset.store\""},
	{WATCHES "kafka = { properties = [\"auto.offset.reset=latest\"]; };", ":2: kafka.properties: Kafka property \"auto.offset.reset\""},
	{WATCHES "kafka = { properties = [\"enable.partition.eof=false\"]; };", ":2: kafka.properties: Kafka property \"enable.partition.eof\": it must be \"true\""},
	{WATCHES "kafka = { properties = [\"allow.auto.create.topics=true\"]; };", ":2: kafka.properties: Kafka property \"allow.auto.create.topics\""},
	{WATCHES "kafka = { properties = [\"log.queue=true\"]; };", ":2: kafka.properties: Kafka property \"log.queue\": it must be \"false\""},
	{WATCHES "kafka = { properties = [\"group.id=other\"]; };", ":2: kafka.properties: Kafka property \"group.id\": it must be \"recd\""},
	{WATCHES "kafka = { properties = [\"bootstrap.servers=b:1\"]; };", ":2: kafka.properties: Kafka property \"bootstrap.servers\": the brokers are set by"},
	{WATCHES "kafka = { properties = [\"metadata.broker.list=b:1\"]; };", ":2: kafka.properties: Kafka property \"metadata.broker.list\""},
	{WATCHES "\n@include \"/tmp\"\n", ":3: @include is not supported"},
	{WATCHES "training = { emb_dim 64; };", ":2: syntax error (a setting is written `name = value;`)"},
	{"\xff\xfe", ":1: syntax error"},
};

static void test_bad_files(void **state)
{
	struct config config;

	(void)state;
	for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
		char expected[512];

		snprintf(expected, sizeof(expected), "%s%s", path, bad_files[i].expected);
		assert_int_equal(load(bad_files[i].text, &config), -22);
		if (strncmp(errstr, expected, strlen(expected)) != 0)
			fail_msg("%s\n  says:     %s\n  expected: %s", bad_files[i].text, errstr, expected);
		if (strstr(errstr, "SECRET"))
			fail_msg("a secret is told: %s", errstr);
		config_free(&config);
	}
}

/* One below the least and one above the greatest value of every number, and both ends themselves. */
static void test_every_range(void **state)
{
	struct config config;
	char text[512];

	(void)state;
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];
		const char *dot = strchr(option->key, '.');
		int whole = option->type == OPTION_U32 || option->type == OPTION_U64 || option->type == OPTION_SECONDS;
		double step = whole ? 1 : (option->max - option->min) * 1e-3;
		double values[] = {option->min, option->max, option->min - step, option->max + step};

		if (option->min == option->max) /* no number */
			continue;
		assert_non_null(dot);
		for (int v = 0; v < 4; v++) {
			int r;

			if (strncmp(option->key, "sources.", 8) == 0)
				snprintf(text, sizeof(text), "sources = { watch_stats = { files = \"/w\"; }; %s = %.*f; };", dot + 1, whole ? 0 : 9, values[v]);
			else
				snprintf(text, sizeof(text), WATCHES "%.*s = { %s = %.*f; };", (int)(dot - option->key), option->key, dot + 1, whole ? 0 : 9,
				         values[v]);
			r = load(text, &config);
			if (v >= 2 ? r != -22 || !strstr(errstr, "out of range") : r == -22 && strstr(errstr, "out of range"))
				fail_msg("%s = %f: %d %s", option->key, values[v], r, errstr);
			config_free(&config);
		}
	}
}

static void test_no_file(void **state)
{
	struct config config;

	(void)state;
	assert_int_equal(config_load("/tmp/recd-no-such-file", &config, errstr, sizeof(errstr)), -2);
	assert_string_equal(errstr, "/tmp/recd-no-such-file: No such file or directory");
	config_free(&config);
	assert_int_equal(config_load("/tmp", &config, errstr, sizeof(errstr)), -22);
	assert_string_equal(errstr, "/tmp: not a regular file");
	config_free(&config);
	write_file(WATCHES "log = { \0 };", sizeof(WATCHES "log = { \0 };"));
	assert_int_equal(config_load(path, &config, errstr, sizeof(errstr)), -22);
	assert_non_null(strstr(errstr, ":2: the file holds a NUL byte"));
	config_free(&config);
}

/* The scan that completes numbers must leave names, strings and comments as they are. */
static void test_text_is_kept(void **state)
{
	struct config config;

	(void)state;
	assert_loads("\xef\xbb\xbf# 6000000000 @include\n/* @include \" 6000000000 */ // \"6000000000\n"
	             "sources = { watch_stats = { files = [\"/w6000000000 @include #\\\" /* x\"]; }; };\n"
	             "state = { users_max = 100000000; }; # 1\n",
	             &config);
	assert_string_equal(config.streams[STREAM_WATCHES].files[0], "/w6000000000 @include #\" /* x");
	assert_int_equal(config.state.users_max, 100000000);
	config_free(&config);
}

static void test_reload(void **state)
{
	struct config config;
	struct config fresh;
	char ignored[256];

	(void)state;
	assert_loads(WATCHES, &config);
	assert_loads("sources = { watch_stats = { files = \"/other\"; from = \"end\"; }; };\n"
	             "log = { level = \"debug\"; format = \"json\"; };\n"
	             "state = { min_pos_completion = 0.7; negative_after_sec = 5; users_max = 7; };\n"
	             "training = { emb_dim = 32; learning_rate = 0.0500001; enabled = false; publish_share_max = 0.2; };\n"
	             "checkpoint = { copy_bytes_max = 6000000000; };\n",
	             &fresh);
	config_reload(&config, &fresh, ignored, sizeof(ignored));
	config_free(&fresh); /* what was taken over is a copy */
	assert_string_equal(ignored, "log.format, sources.watch_stats.files, sources.watch_stats.from, state.users_max, training.emb_dim");
	assert_string_equal(config.log_level, "debug");
	assert_string_equal(config.log_format, "plain");
	assert_string_equal(config.streams[STREAM_WATCHES].files[0], "/logs/w.jsonl");
	assert_true(config.rules.min_pos_completion == 0.7f);
	assert_int_equal(config.rules.negative_after_us, 5000000);
	assert_int_equal(config.state.users_max, 2000000);
	assert_int_equal(config.learn.emb_dim, 64);
	assert_true(config.learn.learning_rate == 0.0500001f);
	assert_int_equal(config.training_enabled, 0);
	assert_true(config.publish_share_max == 0.2);
	assert_int_equal(config.cut_copy_bytes_max, 6000000000ull);
	config_free(&config);

	/* a changed password is noticed, and not told */
	assert_loads(WATCHES "kafka = { properties = [\"sasl.password=SECRET\"]; };", &config);
	assert_loads(WATCHES "kafka = { properties = [\"sasl.password=secret\"]; partitions = \"1\"; };", &fresh);
	config_reload(&config, &fresh, ignored, sizeof(ignored));
	assert_string_equal(ignored, "kafka.partitions, kafka.properties");
	assert_string_equal(config.kafka.properties.properties[0].value, "SECRET");
	assert_string_equal(config.kafka.partitions.text, "all");
	config_free(&fresh);
	config_free(&config);

	assert_loads(WATCHES, &config);
	assert_loads(WATCHES "log = { level = \"warn\"; };", &fresh);
	config_reload(&config, &fresh, ignored, sizeof(ignored));
	assert_string_equal(ignored, "");
	config_free(&fresh);
	config_free(&config);
}

/* ---- the files written from the table ---- */

static char *written_by(void (*write_it)(FILE *out))
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	write_it(out);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void assert_file_is(const char *name, void (*write_it)(FILE *out))
{
	char *expected = written_by(write_it);
	size_t size = strlen(expected) + 2;
	char *found = calloc(1, size);
	FILE *file;

	assert_non_null(found);
	if (getenv("RECD_UPDATE")) {
		file = fopen(name, "w");
		assert_non_null(file);
		fputs(expected, file);
		assert_int_equal(fclose(file), 0);
	}
	file = fopen(name, "r");
	if (!file)
		fail_msg("%s cannot be opened", name);
	(void)!fread(found, 1, size - 1, file);
	fclose(file);
	if (strcmp(found, expected) != 0) {
		size_t at = 0;
		unsigned line = 1;

		for (; found[at] == expected[at]; at++)
			line += found[at] == '\n';
		fail_msg("%s differs from the option table in line %u (run this test with RECD_UPDATE=1)", name, line);
	}
	free(found);
	free(expected);
}

static void test_docs(void **state)
{
	(void)state;
	assert_file_is("docs/CONFIGURATION.md", config_write_docs);
}

/* conf/recd.conf is as the table writes it; it loads; and with every option's # taken away it still says nothing but the defaults. */
static void test_example(void **state)
{
	struct config defaults;
	struct config config;
	char *text;
	char *all;
	size_t n = 0;
	size_t options = 0;

	(void)state;
	assert_file_is("conf/recd.conf", config_write_example);
	if (config_load("conf/recd.conf", &config, errstr, sizeof(errstr)) != 0)
		fail_msg("%s", errstr);
	assert_int_equal(config.streams[STREAM_CATALOGUE].n_files, 1);
	assert_int_equal(config.streams[STREAM_USERS].n_files, 0);
	config_free(&config);

	text = written_by(config_write_example);
	all = calloc(1, strlen(text) + 1);
	assert_non_null(all);
	for (const char *at = text; *at; at++) {
		int option = *at == '#' && at[1] != ' ';

		options += (size_t)option;
		if (!option)
			all[n++] = *at;
	}
	assert_int_equal(options, config_options_count - 4); /* four streams stand there live */
	assert_loads(all, &config);
	config_default(&defaults);
	for (size_t i = 0; i < config_options_count; i++) {
		if (config_options[i].type == OPTION_PROPERTIES) {
			assert_int_equal(config.kafka.properties.n, 4);
		} else if (config_options[i].example) {
			char value[256];

			config_value_text(&config_options[i], &config, value, sizeof(value));
			assert_string_equal(value, config_options[i].example);
		} else if (!config_option_equal(&config_options[i], &config, &defaults)) {
			fail_msg("%s in conf/recd.conf is not the default", config_options[i].key);
		}
	}
	config_free(&defaults);
	config_free(&config);
	free(all);
	free(text);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/recd.conf", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_reads_every_kind), cmocka_unit_test(test_reads_kafka), cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_every_range), cmocka_unit_test(test_no_file), cmocka_unit_test(test_text_is_kept),
		cmocka_unit_test(test_reload), cmocka_unit_test(test_docs), cmocka_unit_test(test_example),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
