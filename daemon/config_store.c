/*
 * config_store.c: one value into its field of struct config, by its type in the option table: from the file, from the table's defaults, at a reload.
 * Main thread; the caller owns every struct config. Nothing here knows lines or files.
 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/kafka_client.h"

#define TOPIC_LEN_MAX 220

static void *field(const struct option *option, struct config *config)
{
	return (char *)config + option->offset;
}

static int store_string(char **at, const char *string)
{
	char *fresh = strdup(string);

	if (!fresh)
		return -ENOMEM;
	free(*at);
	*at = fresh;
	return 0;
}

static int choice_index(const char *choices, const char *word)
{
	size_t len = strlen(word);
	int index = 0;

	for (const char *at = choices;; index++) {
		size_t n = strcspn(at, " ");

		if (n == len && strncmp(at, word, n) == 0)
			return index;
		if (!at[n])
			return -1;
		at += n + 1;
	}
}

static void stream_clear(struct config_stream *stream)
{
	for (size_t i = 0; i < stream->n_files; i++)
		free(stream->files[i]);
	free(stream->files);
	stream->files = NULL;
	stream->n_files = 0;
}

/* -EDOM: not such a value. Replaces what was there. */
static int store_globs(struct config_stream *stream, const struct config_value *value)
{
	int n = value->kind == VALUE_STRING ? 1 : config_setting_length(value->list);
	char **files;

	if (n < 0 || n > CONFIG_LIST_MAX)
		return -EDOM;
	files = calloc((size_t)n + 1, sizeof(*files));
	if (!files)
		return -ENOMEM;
	stream_clear(stream);
	stream->files = files;
	for (int i = 0; i < n; i++) {
		const char *pattern = value->kind == VALUE_STRING ? value->string : config_setting_get_string_elem(value->list, i);

		if (!pattern || pattern[0] != '/')
			return -EDOM;
		files[i] = strdup(pattern);
		if (!files[i])
			return -ENOMEM;
		stream->n_files++;
	}
	return 0;
}

static void partitions_clear(struct config_partitions *partitions)
{
	free(partitions->text);
	free(partitions->ranges);
	*partitions = (struct config_partitions){0};
}

static int store_partitions(struct config_partitions *partitions, const char *text, char *ret_why, size_t ret_why_size)
{
	struct config_partitions fresh = {0};
	int r = partition_ranges_parse(text, &fresh.ranges, &fresh.n_ranges, ret_why, ret_why_size);

	if (r < 0)
		return r == -EINVAL ? -EDOM : r;
	fresh.text = strdup(text);
	if (!fresh.text) {
		partitions_clear(&fresh);
		return -ENOMEM;
	}
	partitions_clear(partitions);
	*partitions = fresh;
	return 0;
}

static void properties_clear(struct config_properties *properties)
{
	for (size_t i = 0; i < properties->n; i++)
		kafka_property_clear(&properties->properties[i]);
	free(properties->properties);
	*properties = (struct config_properties){0};
}

/* The texts hold secrets: an error names their place in the list. */
static int store_properties(struct config_properties *properties, const config_setting_t *list, char *ret_why, size_t ret_why_size)
{
	int n = config_setting_length(list);
	struct config_properties fresh = {0};
	int r = 0;

	if (n < 0 || n > CONFIG_LIST_MAX) {
		snprintf(ret_why, ret_why_size, "%d properties (at most %d)", n, CONFIG_LIST_MAX);
		return -EDOM;
	}
	fresh.properties = calloc((size_t)n + 1, sizeof(*fresh.properties));
	if (!fresh.properties)
		return -ENOMEM;
	for (int i = 0; r == 0 && i < n; i++) {
		const char *text = config_setting_get_string_elem(list, i);

		r = text ? kafka_property_parse(text, &fresh.properties[i]) : -EINVAL;
		if (r == -EINVAL) {
			snprintf(ret_why, ret_why_size, "entry %d is not a string \"NAME=VALUE\", such as \"security.protocol=SASL_SSL\"", i + 1);
			r = -EDOM;
		}
		if (r == 0)
			fresh.n++;
	}
	if (r < 0) {
		properties_clear(&fresh);
		return r;
	}
	properties_clear(properties);
	*properties = fresh;
	return 0;
}

/* Kafka's own rule, and short enough that a position's name holds it whole. */
static int store_topic(char **at, const char *topic, char *ret_why, size_t ret_why_size)
{
	size_t len = strlen(topic);

	if (len == 0 || len > TOPIC_LEN_MAX || strcmp(topic, ".") == 0 || strcmp(topic, "..") == 0 ||
	    strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len) {
		snprintf(ret_why, ret_why_size, "\"%.100s\" is no topic's name (should be 1 to %d letters, digits, dots, underscores and hyphens)", topic, TOPIC_LEN_MAX);
		return -EDOM;
	}
	return store_string(at, topic);
}

static int store_number(const struct option *option, void *at, const struct config_value *value)
{
	double number = value->kind == VALUE_WHOLE ? (double)value->whole : value->number;
	int whole = option->type == OPTION_U32 || option->type == OPTION_U64 || option->type == OPTION_SECONDS;

	if (value->kind != VALUE_WHOLE && (whole || value->kind != VALUE_NUMBER))
		return -EINVAL;
	if (!(number >= option->min && number <= option->max))
		return -EDOM;
	if (option->type == OPTION_U32)
		*(uint32_t *)at = (uint32_t)value->whole;
	else if (option->type == OPTION_U64)
		*(uint64_t *)at = (uint64_t)value->whole;
	else if (option->type == OPTION_SECONDS)
		*(int64_t *)at = value->whole * 1000000;
	else if (option->type == OPTION_FLOAT)
		*(float *)at = (float)number;
	else
		*(double *)at = number;
	return 0;
}

int config_store(const struct option *option, struct config *config, const struct config_value *value, char *ret_why, size_t ret_why_size)
{
	void *at = field(option, config);
	int index;

	ret_why[0] = 0;
	switch (option->type) {
	case OPTION_STRING:
	case OPTION_PATH:
		if (value->kind != VALUE_STRING)
			return -EINVAL;
		if (!value->string[0] || (option->type == OPTION_PATH && value->string[0] != '/'))
			return -EDOM;
		return store_string(at, value->string);
	case OPTION_CHOICE:
	case OPTION_CHOICE_INDEX:
		if (value->kind != VALUE_STRING)
			return -EINVAL;
		index = choice_index(option->choices, value->string);
		if (index < 0)
			return -EDOM;
		if (option->type == OPTION_CHOICE)
			return store_string(at, value->string);
		*(int32_t *)at = index;
		return 0;
	case OPTION_BOOL:
		if (value->kind != VALUE_BOOL)
			return -EINVAL;
		*(int *)at = value->whole != 0;
		return 0;
	case OPTION_GLOBS:
		if (value->kind != VALUE_STRING && value->kind != VALUE_LIST)
			return -EINVAL;
		return store_globs(at, value);
	case OPTION_TOPIC:
		return value->kind == VALUE_STRING ? store_topic(at, value->string, ret_why, ret_why_size) : -EINVAL;
	case OPTION_PARTITIONS:
		return value->kind == VALUE_STRING ? store_partitions(at, value->string, ret_why, ret_why_size) : -EINVAL;
	case OPTION_PROPERTIES:
		return value->kind == VALUE_LIST ? store_properties(at, value->list, ret_why, ret_why_size) : -EINVAL;
	default:
		return store_number(option, at, value);
	}
}

/* ---- defaults ---- */

void config_default(struct config *config)
{
	memset(config, 0, sizeof(*config));
	learn_options_default(&config->learn); /* for options that the table does not have */
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];
		struct config_value value = {.kind = VALUE_STRING, .string = option->fallback};
		char why[128];

		if (!option->fallback)
			continue;
		if (option->type == OPTION_BOOL) {
			value.kind = VALUE_BOOL;
			value.whole = strcmp(option->fallback, "true") == 0;
		} else if (option->type == OPTION_U32 || option->type == OPTION_U64 || option->type == OPTION_SECONDS) {
			value.kind = VALUE_WHOLE;
			value.whole = strtoll(option->fallback, NULL, 10);
		} else if (option->type == OPTION_FLOAT || option->type == OPTION_DOUBLE) {
			value.kind = VALUE_NUMBER;
			value.number = strtod(option->fallback, NULL);
		}
		(void)config_store(option, config, &value, why, sizeof(why)); /* cannot fail but for memory; a missing string is found by config_load() */
	}
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];

		if (option->type == OPTION_GLOBS) {
			stream_clear(field(option, config));
		} else if (option->type == OPTION_PARTITIONS) {
			partitions_clear(field(option, config));
		} else if (option->type == OPTION_PROPERTIES) {
			properties_clear(field(option, config));
		} else if (option->type == OPTION_STRING || option->type == OPTION_PATH || option->type == OPTION_CHOICE || option->type == OPTION_TOPIC) {
			free(*(char **)field(option, config));
			*(char **)field(option, config) = NULL;
		}
	}
	free(config->path);
	config->path = NULL;
}

/* ---- reload ---- */

void config_copy(const struct option *option, struct config *config, const struct config *fresh)
{
	void *to = field(option, config);
	const void *from = (const char *)fresh + option->offset;

	switch (option->type) {
	case OPTION_STRING:
	case OPTION_PATH:
	case OPTION_CHOICE:
		(void)store_string(to, *(char *const *)from); /* out of memory: the old value stays */
		break;
	case OPTION_U64:
	case OPTION_DOUBLE:
	case OPTION_SECONDS:
		memcpy(to, from, 8);
		break;
	case OPTION_TOPIC: /* never reloadable */
	case OPTION_GLOBS:
	case OPTION_PARTITIONS:
	case OPTION_PROPERTIES:
		break;
	default:
		memcpy(to, from, 4);
		break;
	}
}
