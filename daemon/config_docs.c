/*
 * config_docs.c: what the option table says, as text: docs/CONFIGURATION.md and conf/recd.conf.
 *
 * Both files are kept in the tree; a unit test compares them with what is written here, so that page, example and code cannot drift apart.
 * Runs in the main thread (`recd --describe-config`) and in the test.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/config_table.h"

#define EXAMPLE_WIDTH 100
#define TEXT_MAX 512

/* "sources.events.from": group "sources.events", name "from". */
static const char *option_name(const char *key)
{
	const char *dot = strrchr(key, '.');

	return dot ? dot + 1 : key;
}

static size_t group_len(const char *key)
{
	const char *dot = strrchr(key, '.');

	return dot ? (size_t)(dot - key) : 0;
}

static const char *group_help(const char *name, size_t len)
{
	for (size_t i = 0; i < config_groups_count; i++)
		if (strlen(config_groups[i].name) == len && strncmp(config_groups[i].name, name, len) == 0)
			return config_groups[i].help;
	return "";
}

static int same_group(const char *key, const char *group, size_t len)
{
	return group_len(key) == len && strncmp(key, group, len) == 0;
}

static void default_text(const struct option *option, const struct config *defaults, char *ret_text, size_t size)
{
	if (option->fallback)
		config_value_text(option, defaults, ret_text, size);
	else
		snprintf(ret_text, size, "none");
}

/* ---- docs/CONFIGURATION.md ---- */

static void write_row(FILE *out, const struct option *option, const struct config *defaults)
{
	char text[TEXT_MAX];
	char expects[TEXT_MAX];

	default_text(option, defaults, text, sizeof(text));
	config_option_expects(option, expects, sizeof(expects));
	fprintf(out, "| `%s` | %s%s%s | `%s` | %s | %s%s |\n", option->key, expects, option->unit ? ", " : "", option->unit ? option->unit : "", text,
	        option->flags & OPTION_RELOADABLE ? "yes" : "no", option->help, option->flags & OPTION_SECRET ? " Secret: never shown." : "");
}

void config_write_docs(FILE *out)
{
	struct config defaults;
	const char *group = NULL;
	size_t len = 0;

	config_default(&defaults);
	fputs("# Configuration\n\n"
	      "Generated from the option table (`recd --describe-config`); do not edit.\n\n"
	      "recd reads one file, `/etc/recd/recd.conf` unless told otherwise, in the notation of libconfig: `name = value;`, groups in `{ }`, lists in\n"
	      "`[ ]`, comments after `#`. A key below such as `training.emb_dim` is `emb_dim` inside the group `training`. `conf/recd.conf` names every option\n"
	      "with its default. Names cannot hold dots.\n\n"
	      "An unknown key or a bad value stops the start with one line: file, line, key, reason and what would be right. At a reload (`systemctl reload\n"
	      "recd`, `SIGHUP`, `POST /v1/reload`) such a file changes nothing: the old values stay. Options whose column *reload* says no keep\n"
	      "their value until a restart; a reload names those that differ.\n",
	      out);
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];

		if (!group || !same_group(option->key, group, len)) {
			group = option->key;
			len = group_len(group);
			if (len)
				fprintf(out, "\n## %.*s\n%s\n\n", (int)len, group, group_help(group, len));
			else
				fprintf(out, "\n## At the top\n\n");
			fprintf(out, "| key | value | default | reload | meaning |\n|---|---|---|---|---|\n");
		}
		write_row(out, option, &defaults);
	}
	config_free(&defaults);
}

void config_describe(void)
{
	config_write_docs(stdout);
}

/* ---- conf/recd.conf ---- */

static void write_indent(FILE *out, int depth)
{
	for (int i = 0; i < depth; i++)
		fputc('\t', out);
}

/* Text as comment lines, broken at blanks. */
static void write_comment(FILE *out, int depth, const char *text)
{
	while (*text) {
		size_t n = strlen(text);

		if (n > EXAMPLE_WIDTH) {
			n = EXAMPLE_WIDTH;
			while (n > 1 && text[n] != ' ')
				n--;
		}
		write_indent(out, depth);
		fprintf(out, "# %.*s\n", (int)n, text);
		text += n;
		text += strspn(text, " ");
	}
}

/* Help, what it expects, and the default as a line that only needs its # taken away. Examples (the streams) stand there live. */
static void write_example_option(FILE *out, int depth, const struct option *option, const struct config *defaults)
{
	char expects[TEXT_MAX];
	char value[TEXT_MAX];
	char text[2 * TEXT_MAX];
	int live = option->type == OPTION_GLOBS && option->offset != offsetof(struct config, streams[STREAM_USERS]);

	config_option_expects(option, expects, sizeof(expects));
	default_text(option, defaults, value, sizeof(value));
	if (option->example)
		snprintf(text, sizeof(text), "%s", option->help);
	else
		snprintf(text, sizeof(text), "%s (%s%s%s%s)", option->help, expects, option->unit ? ", " : "", option->unit ? option->unit : "",
		         option->flags & OPTION_RELOADABLE ? "; reload" : "");
	write_comment(out, depth, text);
	write_indent(out, depth);
	fprintf(out, "%s%s = %s;\n", live ? "" : "#", option_name(option->key), option->example ? option->example : value);
}

/* Closes the groups that `to` is not inside of, opens those that it is in. Both are group names: "sources.events". */
static void change_group(FILE *out, const char *from, size_t from_len, const char *to, size_t to_len, int *depth)
{
	size_t common = 0;

	for (size_t i = 0; i <= from_len && i <= to_len; i++) {
		int end_from = i == from_len || from[i] == '.';
		int end_to = i == to_len || to[i] == '.';

		if (end_from && end_to)
			common = i;
		if (end_from || end_to ? !(end_from && end_to) : from[i] != to[i])
			break;
	}
	for (size_t at = from_len; at > common; at--) {
		if (at == from_len || from[at] == '.') {
			write_indent(out, --*depth);
			fputs("};\n", out);
		}
	}
	for (size_t at = common; at < to_len;) {
		size_t begin = at + (at > 0);
		size_t end = begin + strcspn(to + begin, ".");

		end = end > to_len ? to_len : end;
		if (at == 0 || at == common)
			fputc('\n', out);
		write_comment(out, *depth, group_help(to, end));
		write_indent(out, (*depth)++);
		fprintf(out, "%.*s = {\n", (int)(end - begin), to + begin);
		at = end;
	}
}

void config_write_example(FILE *out)
{
	struct config defaults;
	const char *group = "";
	size_t len = 0;
	int depth = 0;

	config_default(&defaults);
	fputs("# recd.conf: every option with its default. Lines that begin with # hold the default already; take the # away to change one.\n"
	      "# In brackets: what is allowed, the unit, and \"reload\" when `systemctl reload recd` takes a new value over.\n"
	      "# docs/CONFIGURATION.md has the same as tables. Written from the option table; a test compares the two.\n\n",
	      out);
	for (size_t i = 0; i < config_options_count; i++) {
		const struct option *option = &config_options[i];

		if (!same_group(option->key, group, len)) {
			change_group(out, group, len, option->key, group_len(option->key), &depth);
			group = option->key;
			len = group_len(group);
		}
		write_example_option(out, depth, option, &defaults);
	}
	change_group(out, group, len, "", 0, &depth);
	config_free(&defaults);
}
