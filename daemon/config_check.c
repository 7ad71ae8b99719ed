/*
 * config_check.c: what needs more than one option to be judged, after a file was read whole: streams, topics, Kafka's properties, sizes that depend on
 * each other. Main thread, at start and at reload. Each failure is one line that names the file, the line and what would be right.
 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "ingest/kafka_client.h"

#define FIT_TRIPLES_MAX 1000000u /* one user is fitted in one go: about a tenth of a second */
#define DETERMINISTIC_BATCH_MAX 65536u

/* The setting, or the nearest group around it that stands in the file; for the line of an error. */
static const config_setting_t *setting_near(struct config_reader *reader, const char *key)
{
	char path[CONFIG_KEY_MAX];
	const config_setting_t *setting;

	snprintf(path, sizeof(path), "%s", key);
	for (;;) {
		char *dot;

		setting = config_lookup(reader->tree, path);
		dot = strrchr(path, '.');
		if (setting || !dot)
			return setting;
		*dot = 0;
	}
}

/* First stream that names this pattern: -1 when none of those before (stream, index) does. */
static int stream_with(const struct config *config, const char *pattern, int stream, size_t index)
{
	for (int a = 0; a <= stream; a++) {
		size_t end = a == stream ? index : config->streams[a].n_files;

		for (size_t i = 0; i < end; i++)
			if (strcmp(config->streams[a].files[i], pattern) == 0)
				return a;
	}
	return -1;
}

static int check_streams(struct config_reader *reader)
{
	const struct config *config = reader->config;
	char key[CONFIG_KEY_MAX];

	if (config->streams[STREAM_WATCHES].n_files == 0 && !config->streams[STREAM_WATCHES].topic)
		return config_fail(reader, setting_near(reader, "sources.watch_stats.files"), "sources.watch_stats.files",
		            "not configured (without watches there is nothing to learn from: sources = { watch_stats = { files = [\"/path/*.jsonl\"]; }; }; or a topic)");
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		for (size_t i = 0; i < config->streams[stream].n_files; i++) {
			int other = stream_with(config, config->streams[stream].files[i], stream, i);

			if (other < 0)
				continue;
			snprintf(key, sizeof(key), "sources.%s.files", event_stream_name((enum event_stream)stream));
			return config_fail(reader, setting_near(reader, key), key, "\"%.200s\" stands in sources.%s.files too (a file belongs to one stream, once)",
			            config->streams[stream].files[i], event_stream_name((enum event_stream)other));
		}
	}
	return 0;
}

/* First stream before `stream` that has its topic; -1: none. */
static int stream_with_topic(const struct config *config, int stream)
{
	for (int other = 0; other < stream; other++)
		if (config->streams[other].topic && strcmp(config->streams[other].topic, config->streams[stream].topic) == 0)
			return other;
	return -1;
}

static int check_topics(struct config_reader *reader)
{
	const struct config *config = reader->config;

	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const char *topic = config->streams[stream].topic;
		char key[CONFIG_KEY_MAX];
		int other;

		if (!topic)
			continue;
		snprintf(key, sizeof(key), "sources.%s.topic", event_stream_name((enum event_stream)stream));
		if (!config->kafka.brokers)
			return config_fail(reader, setting_near(reader, key), key, "needs kafka.brokers (kafka = { brokers = \"host:9092\"; };)");
		other = stream_with_topic(config, stream);
		if (other >= 0)
			return config_fail(reader, setting_near(reader, key), key, "\"%s\" stands in sources.%s.topic too (a topic belongs to one stream)", topic,
			                   event_stream_name((enum event_stream)other));
	}
	return 0;
}

/* What librdkafka says of each property, so that the error has the property's own line. */
static int check_properties(struct config_reader *reader)
{
	const struct config_kafka *kafka = &reader->config->kafka;
	const config_setting_t *list = config_lookup(reader->tree, "kafka.properties");
	struct kafka_setting fixed[KAFKA_SOURCE_FIXED];

	kafka_source_fixed(kafka->group, fixed);
	for (size_t i = 0; i < kafka->properties.n; i++) {
		const struct kafka_property *property = &kafka->properties.properties[i];
		const config_setting_t *setting = config_setting_get_elem(list, (unsigned)i);
		rd_kafka_conf_t *conf;
		char why[512];
		int r;

		for (size_t before = 0; before < i; before++)
			if (strcmp(kafka->properties.properties[before].name, property->name) == 0)
				return config_fail(reader, setting, "kafka.properties", "\"%.100s\" stands there twice", property->name);
		r = kafka_client_conf(kafka->brokers ? kafka->brokers : "none", NULL, 0, fixed, KAFKA_SOURCE_FIXED, property, 1, &conf, why, sizeof(why));
		if (r == -EINVAL)
			return config_fail(reader, setting, "kafka.properties", "%s", why);
		if (r < 0) {
			snprintf(reader->errstr, reader->errstr_size, "%s: %s", reader->path, strerror(-r));
			return r;
		}
		rd_kafka_conf_destroy(conf);
	}
	return 0;
}

/* Hard negatives that the file does not ask for leave room for the other two kinds. */
static void leave_room(struct config_reader *reader)
{
	struct learn_options *learn = &reader->config->learn;
	const float others = learn->skip_share + learn->popular_share;

	if (!config_lookup(reader->tree, "training.hard_share") && learn->hard_share + others > 1.0f)
		learn->hard_share = others < 1.0f ? 1.0f - others : 0.0f;
}

int config_check(struct config_reader *reader)
{
	const struct config *config = reader->config;
	size_t socket_len = strlen(config->socket_path);
	int r;

	if (socket_len >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return config_fail(reader, setting_near(reader, "server.socket"), "server.socket", "%zu bytes long (a socket's path has at most %zu)", socket_len,
		            sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (config->socket_path[socket_len - 1] == '/')
		return config_fail(reader, setting_near(reader, "server.socket"), "server.socket", "names a directory (should be a file in it, such as recd.sock)");
	leave_room(reader);
	if (config->learn.skip_share + config->learn.popular_share + config->learn.hard_share > 1.0001f)
		return config_fail(reader, setting_near(reader, "training.hard_share"), "training.hard_share",
		                   "with training.skip_share and training.popular_share it makes %.4g (together at most 1: they are shares of the negatives)",
		                   (double)(config->learn.skip_share + config->learn.popular_share + config->learn.hard_share));
	if (config->learn.deterministic && config->learn.batch_size > DETERMINISTIC_BATCH_MAX)
		return config_fail(reader, setting_near(reader, "training.batch_size"), "training.batch_size", "%u is out of range (at most %u when deterministic = true)",
		            config->learn.batch_size, DETERMINISTIC_BATCH_MAX);
	if ((uint64_t)config->personal_max_age_sec * 1000 < config->publish_interval_ms)
		return config_fail(reader, setting_near(reader, "personalize.max_age_sec"), "personalize.max_age_sec",
		            "shorter than training.publish_interval_ms (personal rows would always be too old)");
	if ((uint64_t)config->personalize.steps * config->personalize.batch > FIT_TRIPLES_MAX)
		return config_fail(reader, setting_near(reader, "personalize.steps"), "personalize.steps",
		            "%u with personalize.batch = %u is too much work for one user (at most %u triples)", config->personalize.steps,
		            config->personalize.batch, FIT_TRIPLES_MAX);
	r = check_streams(reader);
	if (r == 0)
		r = check_topics(reader);
	if (r == 0)
		r = check_properties(reader);
	return r;
}
