/*
 * config.c: recd.conf to struct config, by the option table (config_table.c), with libconfig.
 *
 * Reading walks the file's tree, not the table: so an unknown key is found, and its neighbour in spelling proposed. Every error is one line:
 * FILE:LINE: key: reason (what would be right). Checks that need more than one option are in config_check.c, fields in config_store.c.
 * Runs in the main thread, at start and at reload; the caller owns every struct config. Nothing here logs.
 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_text.h"

#define DEPTH_MAX 4  /* groups inside groups */

static const char *const kind_names[] = {"a whole number", "a number", "true or false", "a string", "a list", "a group { }"};

int config_fail(struct config_reader *reader, const config_setting_t *setting, const char *key, const char *format, ...)
{
	char reason[512];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	snprintf(reader->errstr, reader->errstr_size, "%s:%u: %s: %s", reader->path, setting ? config_setting_source_line(setting) : 1, key, reason);
	return -EINVAL;
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
	size_t row[CONFIG_KEY_MAX];
	size_t n = strlen(b);

	if (n >= CONFIG_KEY_MAX)
		return CONFIG_KEY_MAX;
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

static int fail_unknown(struct config_reader *reader, const config_setting_t *setting, const char *key)
{
	const char *near = nearest_key(key);

	if (near)
		return config_fail(reader, setting, key, "unknown key (did you mean %s?)", near);
	return config_fail(reader, setting, key, "unknown key (docs/CONFIGURATION.md lists all)");
}

/* ---- reading ---- */

static void value_of(const config_setting_t *setting, struct config_value *ret_value)
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

static int read_option(struct config_reader *reader, const config_setting_t *setting, const struct option *option)
{
	char expects[256];
	char why[256];
	struct config_value value;
	int r;

	value_of(setting, &value);
	r = config_store(option, reader->config, &value, why, sizeof(why));
	if (r == 0)
		return 0;
	if (r == -ENOMEM) {
		snprintf(reader->errstr, reader->errstr_size, "%s: %s", reader->path, strerror(ENOMEM));
		return r;
	}
	if (r == -EDOM && why[0])
		return config_fail(reader, setting, option->key, "%s", why);
	config_option_expects(option, expects, sizeof(expects));
	if (r == -EINVAL)
		return config_fail(reader, setting, option->key, "is %s (should be %s)", kind_names[value.kind], expects);
	if (option->flags & OPTION_SECRET)
		return config_fail(reader, setting, option->key, "not allowed (should be %s)", expects);
	if (value.kind == VALUE_STRING)
		return config_fail(reader, setting, option->key, "\"%.100s\" is not allowed (should be %s)", value.string, expects);
	if (value.kind == VALUE_WHOLE)
		return config_fail(reader, setting, option->key, "%lld is out of range (should be %s)", (long long)value.whole, expects);
	if (value.kind == VALUE_NUMBER)
		return config_fail(reader, setting, option->key, "%g is out of range (should be %s)", value.number, expects);
	return config_fail(reader, setting, option->key, "not allowed (should be %s; at most %d)", expects, CONFIG_LIST_MAX);
}

static int read_group(struct config_reader *reader, const config_setting_t *group, const char *prefix, int depth)
{
	int n = config_setting_length(group);

	for (int i = 0; i < n; i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *name = config_setting_name(setting);
		const struct option *option;
		char key[CONFIG_KEY_MAX];
		int r;

		snprintf(key, sizeof(key), "%s%s%s", prefix, prefix[0] ? "." : "", name);
		option = find_option(key);
		if (option) {
			r = read_option(reader, setting, option);
		} else if (is_group(key) && depth < DEPTH_MAX) {
			if (config_setting_type(setting) != CONFIG_TYPE_GROUP)
				return config_fail(reader, setting, key, "is not a group (should be %s = { ... };)", name);
			r = read_group(reader, setting, key, depth + 1);
		} else {
			r = fail_unknown(reader, setting, key);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int strings_complete(const struct config *config)
{
	return config->path && config->data_dir && config->log_level && config->log_format && config->backend && config->socket_path &&
	       config->kafka.group && config->kafka.partitions.text;
}

int config_load(const char *path, struct config *ret_config, char *errstr, size_t errstr_size)
{
	struct config_reader reader = {.config = ret_config, .path = path, .errstr = errstr, .errstr_size = errstr_size};
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
		r = config_check(&reader);
out:
	free(text);
	config_destroy(&tree);
	return r;
}

/* ---- reload ---- */

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
			config_copy(option, config, fresh);
			continue;
		}
		if (n < ret_ignored_size)
			n += (size_t)snprintf(ret_ignored + n, ret_ignored_size - n, "%s%s", n ? ", " : "", option->key);
	}
}
