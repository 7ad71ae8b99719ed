/*
 * flags.c: parses a command line by the command's flag table and renders the table as a help page.
 *
 * Runs on the main thread of recctl before the command does anything. Owns nothing: strings point into argv or into the table. The table is
 * the only place where a name, a default, a range or a help text stands. Mistakes come back as text; only flags_main() and flags_help() print.
 */
#include "daemon/recctl/flags.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HELP_WIDTH 100
#define NAME_MAX_LEN 64

static const char *placeholder_of(const struct flag *flag)
{
	if (flag->placeholder)
		return flag->placeholder;
	switch (flag->type) {
	case FLAG_INT:
	case FLAG_UINT64:
		return "N";
	case FLAG_IDS:
		return "ID";
	case FLAG_FLOAT:
		return "X";
	case FLAG_STRING:
	case FLAG_TEXTS:
		return "TEXT";
	case FLAG_BOOL:
	case FLAG_CHOICE:
		break;
	}
	return NULL;
}

/* "a|b|c" into out. */
static void join_choices(const struct flag *flag, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; flag->choices[i] && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? "|" : "", flag->choices[i]);
}

/* What a value of this flag may be, in words. */
static void allowed_of(const struct flag *flag, char *out, size_t size)
{
	char list[256];

	switch (flag->type) {
	case FLAG_INT:
		snprintf(out, size, "a whole number from %.0f to %.0f", flag->min, flag->max);
		break;
	case FLAG_UINT64:
		snprintf(out, size, "a whole number from 0 to 18446744073709551615");
		break;
	case FLAG_FLOAT:
		snprintf(out, size, "a number from %g to %g", flag->min, flag->max);
		break;
	case FLAG_STRING:
		snprintf(out, size, "text that is not empty");
		break;
	case FLAG_BOOL:
		snprintf(out, size, "yes or no");
		break;
	case FLAG_CHOICE:
		join_choices(flag, list, sizeof(list));
		snprintf(out, size, "one of %s", list);
		break;
	case FLAG_IDS:
		snprintf(out, size, "an id, a whole number from 0 to 9223372036854775807; at most %d of them", FLAG_IDS_MAX);
		break;
	case FLAG_TEXTS:
		snprintf(out, size, "text that is not empty; at most %d of them", FLAG_TEXTS_MAX);
		break;
	}
}

static int parse_int(const struct flag *flag, const char *text, int64_t *ret)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || strchr(" \t\n+", text[0]) || (double)value < flag->min || (double)value > flag->max)
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_uint64(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9')
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_float(const struct flag *flag, const char *text, double *ret)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || strchr(" \t\n", text[0]) || !isfinite(value) || value < flag->min || value > flag->max)
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_bool(const char *text, int *ret)
{
	static const char *const yes[] = { "yes", "true", "1", "on" }, *const no[] = { "no", "false", "0", "off" };

	for (size_t i = 0; i < 4; i++) {
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*ret = !strcmp(text, yes[i]);
			return 0;
		}
	}
	return -EINVAL;
}

static int add_id(const char *text, struct flag_ids *ids)
{
	uint64_t id;

	if (ids->count == FLAG_IDS_MAX || parse_uint64(text, &id) || id > INT64_MAX)
		return -EINVAL;
	ids->ids[ids->count++] = (int64_t)id;
	return 0;
}

static int add_text(const char *text, struct flag_texts *texts)
{
	if (texts->count == FLAG_TEXTS_MAX || !text[0])
		return -EINVAL;
	texts->texts[texts->count++] = text;
	return 0;
}

/* Parses `text` into the flag's field. 0 or -EINVAL; the field is untouched then. */
static int set_value(const struct flag *flag, const char *text, void *options)
{
	void *field = (char *)options + flag->offset;

	switch (flag->type) {
	case FLAG_INT:
		return parse_int(flag, text, field);
	case FLAG_UINT64:
		return parse_uint64(text, field);
	case FLAG_FLOAT:
		return parse_float(flag, text, field);
	case FLAG_STRING:
		if (!text[0])
			return -EINVAL;
		*(const char **)field = text;
		return 0;
	case FLAG_BOOL:
		return parse_bool(text, field);
	case FLAG_CHOICE:
		for (int i = 0; flag->choices[i]; i++) {
			if (!strcmp(text, flag->choices[i])) {
				*(int *)field = i;
				return 0;
			}
		}
		return -EINVAL;
	case FLAG_IDS:
		return add_id(text, field);
	case FLAG_TEXTS:
		return add_text(text, field);
	}
	return -EINVAL;
}

static void set_defaults(const struct command_spec *spec, void *options)
{
	static const size_t sizes[] = { [FLAG_INT] = sizeof(int64_t), [FLAG_UINT64] = sizeof(uint64_t), [FLAG_FLOAT] = sizeof(double),
		                        [FLAG_STRING] = sizeof(char *), [FLAG_BOOL] = sizeof(int), [FLAG_CHOICE] = sizeof(int),
		                        [FLAG_IDS] = sizeof(struct flag_ids), [FLAG_TEXTS] = sizeof(struct flag_texts) };

	for (size_t i = 0; i < spec->n_flags; i++) {
		const struct flag *flag = &spec->flags[i];

		memset((char *)options + flag->offset, 0, sizes[flag->type]);
		if (flag->fallback)
			(void)set_value(flag, flag->fallback, options);
	}
}

/* Copies a name with '-' as '_'; cut at the buffer. */
static void normalise(const char *text, size_t len, char *out)
{
	if (len >= NAME_MAX_LEN)
		len = NAME_MAX_LEN - 1;
	for (size_t i = 0; i < len; i++)
		out[i] = text[i] == '-' ? '_' : text[i];
	out[len] = '\0';
}

/* Levenshtein distance; both words are shorter than NAME_MAX_LEN. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_LEN + 1], len_b = strlen(b);

	for (size_t j = 0; j <= len_b; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= len_b; j++) {
			size_t change = diagonal + (a[i - 1] != b[j - 1]);
			size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;

			diagonal = row[j];
			row[j] = change < best ? change : best;
		}
	}
	return row[len_b];
}

const char *flags_nearest(const char *word, const char *const *names, size_t n_names)
{
	char wanted[NAME_MAX_LEN], name[NAME_MAX_LEN];
	const char *best = NULL;
	size_t best_distance = SIZE_MAX;

	normalise(word, strlen(word), wanted);
	size_t len = strlen(wanted);
	for (size_t i = 0; i < n_names; i++) {
		normalise(names[i], strlen(names[i]), name);
		size_t distance = edit_distance(wanted, name);
		size_t name_len = strlen(name);

		/* a word that begins the name ("--num_imp") is near whatever is missing */
		if (len >= 3 && len < name_len && !strncmp(wanted, name, len))
			distance = 1;
		if (distance < best_distance && distance <= (len < 6 ? 2 : len / 3)) {
			best_distance = distance;
			best = names[i];
		}
	}
	return best;
}

static const struct flag *find_flag(const struct command_spec *spec, const char *name)
{
	for (size_t i = 0; i < spec->n_flags; i++) {
		if (!strcmp(spec->flags[i].name, name))
			return &spec->flags[i];
	}
	return NULL;
}

static void describe_unknown(const struct command_spec *spec, const char *name, char *errstr, size_t errstr_size)
{
	const char *names[64];
	size_t n = spec->n_flags < 64 ? spec->n_flags : 64;

	for (size_t i = 0; i < n; i++)
		names[i] = spec->flags[i].name;
	const char *nearest = flags_nearest(name, names, n);
	if (nearest)
		snprintf(errstr, errstr_size, "unknown flag --%s; did you mean --%s?", name, nearest);
	else
		snprintf(errstr, errstr_size, "unknown flag --%s; `recctl %s --help` lists the flags", name, spec->name);
}

/* One "--..." argument; *index moves past its value. */
static int parse_one(const struct command_spec *spec, int argc, char **argv, int *index, void *options, struct flag_words *words, char *errstr,
                     size_t errstr_size)
{
	const char *text = argv[*index] + 2, *equals = strchr(text, '='), *value = equals ? equals + 1 : NULL;
	char name[NAME_MAX_LEN], allowed[320];

	normalise(text, equals ? (size_t)(equals - text) : strlen(text), name);
	const struct flag *flag = find_flag(spec, name);
	if (!flag) {
		describe_unknown(spec, name, errstr, errstr_size);
		return -EINVAL;
	}
	allowed_of(flag, allowed, sizeof(allowed));
	if (!value && flag->type == FLAG_BOOL)
		value = "yes";
	if (!value) {
		if (*index + 1 >= argc || !strncmp(argv[*index + 1], "--", 2)) {
			snprintf(errstr, errstr_size, "--%s needs a value: %s", flag->name, allowed);
			return -EINVAL;
		}
		value = argv[++*index];
	}
	if (set_value(flag, value, options)) {
		snprintf(errstr, errstr_size, "--%s: \"%.64s\" is not valid; allowed: %s", flag->name, value, allowed);
		return -EINVAL;
	}
	words->given |= UINT64_C(1) << (flag - spec->flags);
	return 0;
}

int flags_parse(const struct command_spec *spec, int argc, char **argv, void *options, struct flag_words *ret_words, char *errstr, size_t errstr_size)
{
	int flags_ended = 0, words_max = spec->positionals_max < FLAG_WORDS_MAX ? spec->positionals_max : FLAG_WORDS_MAX;

	memset(ret_words, 0, sizeof(*ret_words));
	set_defaults(spec, options);
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return 1;
	}
	for (int i = 1; i < argc; i++) {
		if (!flags_ended && !strcmp(argv[i], "--")) {
			flags_ended = 1;
		} else if (!flags_ended && !strncmp(argv[i], "--", 2)) {
			if (parse_one(spec, argc, argv, &i, options, ret_words, errstr, errstr_size))
				return -EINVAL;
		} else if (!flags_ended && argv[i][0] == '-' && argv[i][1]) {
			snprintf(errstr, errstr_size, "unknown flag %.64s; flags begin with two dashes", argv[i]);
			return -EINVAL;
		} else if (ret_words->count >= words_max) {
			snprintf(errstr, errstr_size, "\"%.64s\" is one word too many; usage: recctl %s [flags]%s%s", argv[i], spec->name,
			         spec->positionals ? " " : "", spec->positionals ? spec->positionals : "");
			return -EINVAL;
		} else {
			ret_words->words[ret_words->count++] = argv[i];
		}
	}
	if (ret_words->count < spec->positionals_min) {
		snprintf(errstr, errstr_size, "%s is missing; usage: recctl %s [flags] %s", spec->positionals, spec->name, spec->positionals);
		return -EINVAL;
	}
	return 0;
}

int flags_main(const struct command_spec *spec, int argc, char **argv, void *options, struct flag_words *ret_words)
{
	char errstr[512];
	int rc = flags_parse(spec, argc, argv, options, ret_words, errstr, sizeof(errstr));

	if (rc == 1) {
		flags_help(spec, stdout);
		return EXIT_OK;
	}
	if (rc) {
		fprintf(stderr, "recctl %s: %s\n", spec->name, errstr);
		return EXIT_USAGE;
	}
	return -1;
}

int flags_given(const struct command_spec *spec, const struct flag_words *words, const char *name)
{
	const struct flag *flag = find_flag(spec, name);

	assert(flag); /* a name that no flag has would be taken for not given */
	return (words->given >> (flag - spec->flags)) & 1;
}

/* Prints text word by word, broken at HELP_WIDTH, every line indented. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
	int column = 0;

	while (*text) {
		int len = (int)strcspn(text, " ");

		if (column && column + 1 + len > HELP_WIDTH) {
			fputc('\n', out);
			column = 0;
		}
		if (column)
			fputc(' ', out);
		else
			fprintf(out, "%*s", indent, "");
		column += column ? 1 + len : indent + len;
		fwrite(text, 1, (size_t)len, out);
		text += len + (text[len] == ' ');
	}
	fputc('\n', out);
}

static void help_one(const struct flag *flag, FILE *out)
{
	const char *placeholder = placeholder_of(flag);
	char list[256], text[1024];

	if (flag->type == FLAG_CHOICE) {
		join_choices(flag, list, sizeof(list));
		placeholder = list;
	}
	fprintf(out, "  --%s%s%s", flag->name, placeholder ? " " : "", placeholder ? placeholder : "");
	if (flag->fallback && flag->type != FLAG_BOOL)
		fprintf(out, "  (default %s)", flag->fallback);
	fputc('\n', out);
	if (flag->type == FLAG_INT || flag->type == FLAG_FLOAT) {
		char allowed[128];

		allowed_of(flag, allowed, sizeof(allowed));
		snprintf(text, sizeof(text), "%s Allowed: %s.", flag->help, allowed);
		print_wrapped(out, text, 6);
	} else {
		print_wrapped(out, flag->help, 6);
	}
}

void flags_help(const struct command_spec *spec, FILE *out)
{
	fprintf(out, "recctl %s: %s\n\nUsage: recctl %s [flags]%s%s\n\nFlags (--a_b and --a-b are the same; --a VALUE or --a=VALUE):\n", spec->name,
	        spec->purpose, spec->name, spec->positionals ? " " : "", spec->positionals ? spec->positionals : "");
	for (size_t i = 0; i < spec->n_flags; i++)
		help_one(&spec->flags[i], out);
	fprintf(out, "  --help\n      This page.\n");
	if (spec->notes)
		fprintf(out, "\n%s\n", spec->notes);
	if (spec->examples)
		fprintf(out, "\nExamples:\n%s\n", spec->examples);
	fprintf(out, "\nExit codes:\n  0  done\n  1  failed; standard error says why\n  2  wrong use: unknown flag or bad value\n");
	if (spec->exit_codes)
		fprintf(out, "%s\n", spec->exit_codes);
}
