/*
 * config.c: recd.conf to struct config, by the option table (config_table.c), with libconfig.
 *
 * Reading walks the file's tree, not the table: so an unknown key is found, and its neighbour in spelling proposed. Every error is one line:
 * FILE:LINE: key: reason (what would be right). Checks that need more than one option come at the end of this file.
 * Runs in the main thread, at start and at reload; the caller owns every struct config. Nothing here logs.
 */
#include "daemon/config.h"

#include <errno.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "daemon/config_table.h"
#include "daemon/config_text.h"

#define KEY_MAX 128
#define FILES_MAX 64 /* patterns of one stream */
#define FIT_TRIPLES_MAX 1000000u /* one user is fitted in one go: about a tenth of a second */
#define DETERMINISTIC_BATCH_MAX 65536u
#define DEPTH_MAX 4  /* groups inside groups */

/* A value on its way into a field, whether from the file or from the table. */
struct value {
	enum { VALUE_WHOLE, VALUE_NUMBER, VALUE_BOOL, VALUE_STRING, VALUE_LIST, VALUE_GROUP } kind;
	int64_t whole;
	double number;
	const char *string;
	const config_setting_t *list;
};
static const char *const kind_names[] = {"a whole number", "a number", "true or false", "a string", "a list", "a group { }"};

struct reader {
	struct config *config;
	const char *path;
	config_t *tree;
	char *errstr;
	size_t errstr_size;
};

__attribute__((format(printf, 4, 5))) static int fail(struct reader *reader, const config_setting_t *setting, const char *key, const char *format, ...)
{
	char reason[512];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	snprintf(reader->errstr, reader->errstr_size, "%s:%u: %s: %s", reader->path, setting ? config_setting_source_line(setting) : 1, key, reason);
	return -EINVAL;
}

/* ---- storing one value ---- */

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
static int store_globs(struct config_stream *stream, const struct value *value)
{
	int n = value->kind == VALUE_STRING ? 1 : config_setting_length(value->list);
	char **files;

	if (n < 0 || n > FILES_MAX)
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

static int store_number(const struct option *option, void *at, const struct value *value)
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

/* 0; -EINVAL: the wrong kind of value; -EDOM: the right kind, but not allowed; -ENOMEM. */
static int store(const struct option *option, struct config *config, const struct value *value)
{
	void *at = field(option, config);
	int index;

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
	default:
		return store_number(option, at, value);
	}
}

/* ---- defaults ---- */

void config_default(struct config *config)
{
	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];
		struct value value = {.kind = VALUE_STRING, .string = option->fallback};

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
		(void)store(option, config, &value); /* cannot fail but for memory; a missing string is found by config_load() */
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
		} else if (option->type == OPTION_STRING || option->type == OPTION_PATH || option->type == OPTION_CHOICE) {
			free(*(char **)field(option, config));
			*(char **)field(option, config) = NULL;
		}
	}
	free(config->path);
	config->path = NULL;
}

/* ---- keys, and the nearest one to a misspelt key ---- */

static const struct option *find_option(const char *key)
{
	for (size_t i = 0; i < config_options_count; i++)
		if (strcmp(config_options[i].key, key) == 0)
			return &config_options[i];
	return NULL;
}

static int is_group(const char *key)
{
	for (size_t i = 0; i < config_groups_count; i++)
		if (strcmp(config_groups[i].name, key) == 0)
			return 1;
	return 0;
}

/* Edit distance (insert, delete, replace). */
static size_t distance(const char *a, const char *b)
{
	size_t row[KEY_MAX];
	size_t n = strlen(b);

	if (n >= KEY_MAX)
		return KEY_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i] != b[j - 1]);

			best = row[j] + 1 < best ? row[j] + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

static const char *last_part(const char *key)
{
	const char *dot = strrchr(key, '.');

	return dot ? dot + 1 : key;
}

/* A known key (or group) much like `key`, or with the same last part; NULL when nothing is near. */
static const char *nearest_key(const char *key)
{
	size_t limit = strlen(last_part(key)) / 3 + 1;
	size_t best = limit + 1;
	const char *found = NULL;

	for (size_t i = 0; i < config_options_count + config_groups_count; i++) {
		const char *known = i < config_options_count ? config_options[i].key : config_groups[i - config_options_count].name;
		size_t d = distance(key, known);

		if (d > 1 && strcmp(last_part(key), last_part(known)) == 0)
			d = 1; /* the right name in the wrong group */
		if (d < best) {
			best = d;
			found = known;
		}
	}
	return found;
}

static int fail_unknown(struct reader *reader, const config_setting_t *setting, const char *key)
{
	const char *near = nearest_key(key);

	if (near)
		return fail(reader, setting, key, "unknown key (did you mean %s?)", near);
	return fail(reader, setting, key, "unknown key (docs/CONFIGURATION.md lists all)");
}

/* ---- reading ---- */

static void value_of(const config_setting_t *setting, struct value *ret_value)
{
	memset(ret_value, 0, sizeof(*ret_value));
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		ret_value->kind = VALUE_WHOLE;
		ret_value->whole = config_setting_get_int64(setting);
		break;
	case CONFIG_TYPE_FLOAT:
		ret_value->kind = VALUE_NUMBER;
		ret_value->number = config_setting_get_float(setting);
		break;
	case CONFIG_TYPE_BOOL:
		ret_value->kind = VALUE_BOOL;
		ret_value->whole = config_setting_get_bool(setting);
		break;
	case CONFIG_TYPE_STRING:
		ret_value->kind = VALUE_STRING;
		ret_value->string = config_setting_get_string(setting);
		break;
	case CONFIG_TYPE_GROUP:
		ret_value->kind = VALUE_GROUP;
		break;
	default:
		ret_value->kind = VALUE_LIST;
		ret_value->list = setting;
		break;
	}
}

static int read_option(struct reader *reader, const config_setting_t *setting, const struct option *option)
{
	char expects[256];
	struct value value;
	int r;

	value_of(setting, &value);
	r = store(option, reader->config, &value);
	if (r == 0)
		return 0;
	if (r == -ENOMEM) {
		snprintf(reader->errstr, reader->errstr_size, "%s: %s", reader->path, strerror(ENOMEM));
		return r;
	}
	config_option_expects(option, expects, sizeof(expects));
	if (r == -EINVAL)
		return fail(reader, setting, option->key, "is %s (should be %s)", kind_names[value.kind], expects);
	if (option->flags & OPTION_SECRET)
		return fail(reader, setting, option->key, "not allowed (should be %s)", expects);
	if (value.kind == VALUE_STRING)
		return fail(reader, setting, option->key, "\"%.100s\" is not allowed (should be %s)", value.string, expects);
	if (value.kind == VALUE_WHOLE)
		return fail(reader, setting, option->key, "%lld is out of range (should be %s)", (long long)value.whole, expects);
	if (value.kind == VALUE_NUMBER)
		return fail(reader, setting, option->key, "%g is out of range (should be %s)", value.number, expects);
	return fail(reader, setting, option->key, "not allowed (should be %s; at most %d)", expects, FILES_MAX);
}

static int read_group(struct reader *reader, const config_setting_t *group, const char *prefix, int depth)
{
	int n = config_setting_length(group);

	for (int i = 0; i < n; i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *name = config_setting_name(setting);
		const struct option *option;
		char key[KEY_MAX];
		int r;

		snprintf(key, sizeof(key), "%s%s%s", prefix, prefix[0] ? "." : "", name);
		option = find_option(key);
		if (option) {
			r = read_option(reader, setting, option);
		} else if (is_group(key) && depth < DEPTH_MAX) {
			if (config_setting_type(setting) != CONFIG_TYPE_GROUP)
				return fail(reader, setting, key, "is not a group (should be %s = { ... };)", name);
			r = read_group(reader, setting, key, depth + 1);
		} else {
			r = fail_unknown(reader, setting, key);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- checks over several options ---- */

/* The setting, or the nearest group around it that stands in the file; for the line of an error. */
static const config_setting_t *setting_near(struct reader *reader, const char *key)
{
	char path[KEY_MAX];
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

static int check_streams(struct reader *reader)
{
	const struct config *config = reader->config;
	char key[KEY_MAX];

	if (config->streams[STREAM_WATCHES].n_files == 0)
		return fail(reader, setting_near(reader, "sources.watch_stats.files"), "sources.watch_stats.files",
		            "not configured (without watches there is nothing to learn from: sources = { watch_stats = { files = [\"/path/*.jsonl\"]; }; };)");
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		for (size_t i = 0; i < config->streams[stream].n_files; i++) {
			int other = stream_with(config, config->streams[stream].files[i], stream, i);

			if (other < 0)
				continue;
			snprintf(key, sizeof(key), "sources.%s.files", event_stream_name((enum event_stream)stream));
			return fail(reader, setting_near(reader, key), key, "\"%.200s\" stands in sources.%s.files too (a file belongs to one stream, once)",
			            config->streams[stream].files[i], event_stream_name((enum event_stream)other));
		}
	}
	return 0;
}

static int check_all(struct reader *reader)
{
	const struct config *config = reader->config;
	size_t socket_len = strlen(config->socket_path);

	if (socket_len >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return fail(reader, setting_near(reader, "server.socket"), "server.socket", "%zu bytes long (a socket's path has at most %zu)", socket_len,
		            sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (config->socket_path[socket_len - 1] == '/')
		return fail(reader, setting_near(reader, "server.socket"), "server.socket", "names a directory (should be a file in it, such as recd.sock)");
	if (config->learn.deterministic && config->learn.batch_size > DETERMINISTIC_BATCH_MAX)
		return fail(reader, setting_near(reader, "training.batch_size"), "training.batch_size", "%u is out of range (at most %u when deterministic = true)",
		            config->learn.batch_size, DETERMINISTIC_BATCH_MAX);
	if ((uint64_t)config->personal_max_age_sec * 1000 < config->publish_interval_ms)
		return fail(reader, setting_near(reader, "personalize.max_age_sec"), "personalize.max_age_sec",
		            "shorter than training.publish_interval_ms (personal rows would always be too old)");
	if ((uint64_t)config->personalize.steps * config->personalize.batch > FIT_TRIPLES_MAX)
		return fail(reader, setting_near(reader, "personalize.steps"), "personalize.steps",
		            "%u with personalize.batch = %u is too much work for one user (at most %u triples)", config->personalize.steps,
		            config->personalize.batch, FIT_TRIPLES_MAX);
	return check_streams(reader);
}

static int strings_complete(const struct config *config)
{
	return config->path && config->data_dir && config->log_level && config->log_format && config->backend && config->socket_path;
}

int config_load(const char *path, struct config *ret_config, char *errstr, size_t errstr_size)
{
	struct reader reader = {.config = ret_config, .path = path, .errstr = errstr, .errstr_size = errstr_size};
	config_t tree;
	char *text = NULL;
	int r;

	config_init(&tree);
	reader.tree = &tree;
	config_default(ret_config);
	ret_config->path = strdup(path);
	if (!strings_complete(ret_config)) {
		snprintf(errstr, errstr_size, "%s: %s", path, strerror(ENOMEM));
		r = -ENOMEM;
		goto out;
	}
	r = config_text_read(path, &text, errstr, errstr_size);
	if (r < 0)
		goto out;
	if (config_read_string(&tree, text) != CONFIG_TRUE) {
		snprintf(errstr, errstr_size, "%s:%d: %s (a setting is written `name = value;`)", path, config_error_line(&tree), config_error_text(&tree));
		r = -EINVAL;
		goto out;
	}
	r = read_group(&reader, config_root_setting(&tree), "", 0);
	if (r == 0)
		r = check_all(&reader);
out:
	free(text);
	config_destroy(&tree);
	return r;
}

/* ---- reload ---- */

static void copy_value(const struct option *option, struct config *config, const struct config *fresh)
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
	case OPTION_GLOBS: /* never reloadable */
		break;
	default:
		memcpy(to, from, 4);
		break;
	}
}

void config_reload(struct config *config, const struct config *fresh, char *ret_ignored, size_t ret_ignored_size)
{
	size_t n = 0;

	if (ret_ignored_size)
		ret_ignored[0] = 0;
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];

		if (config_option_equal(option, config, fresh))
			continue;
		if (option->flags & OPTION_RELOADABLE) {
			copy_value(option, config, fresh);
			continue;
		}
		if (n < ret_ignored_size)
			n += (size_t)snprintf(ret_ignored + n, ret_ignored_size - n, "%s%s", n ? ", " : "", option->key);
	}
}
