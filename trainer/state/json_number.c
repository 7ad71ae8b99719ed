/*
 * json_number.c: one number out of a catalogue line. A checkpoint keeps the lines as they were written, and the duration is read from there again.
 *
 * Lines were accepted by the decoder before, so this need not judge JSON; still it stays inside the text whatever it holds. Pure function.
 */
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/state/internal.h"

struct cursor {
	const char *at, *end;
};

static void skip_blank(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static int take(struct cursor *c, char what)
{
	skip_blank(c);
	if (c->at == c->end || *c->at != what)
		return 0;
	c->at++;
	return 1;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One character of a string, after its opening quote: 0..255 (ASCII, or a byte of UTF-8), -1 at the closing quote, -2 for any other character. */
static int next_char(struct cursor *c)
{
	char escape;
	int value = 0;

	if (c->at == c->end || *c->at == '"')
		return -1;
	if (*c->at != '\\')
		return (unsigned char)*c->at++;
	c->at++;
	if (c->at == c->end)
		return -1;
	escape = *c->at++;
	if (escape != 'u')
		return strchr("\"\\/", escape) && escape ? escape : -2;
	for (int i = 0; i < 4; i++) {
		if (c->at == c->end || hex_digit(*c->at) < 0)
			return -2;
		value = value * 16 + hex_digit(*c->at++);
	}
	return value < 128 ? value : -2;
}

/* Reads a string; 1 when it equals `key`. */
static int string_is(struct cursor *c, const char *key)
{
	int same = 1;
	int ch;

	while ((ch = next_char(c)) != -1) {
		if (same && *key != '\0' && ch == (unsigned char)*key)
			key++;
		else
			same = 0;
	}
	if (c->at < c->end)
		c->at++;
	return same && *key == '\0';
}

/* Skips one value, up to the comma or brace after it. */
static void skip_value(struct cursor *c)
{
	size_t depth = 0;

	while (c->at < c->end) {
		char ch = *c->at;
		if (depth == 0 && (ch == ',' || ch == '}'))
			return;
		c->at++;
		if (ch == '"')
			(void)string_is(c, "");
		else if (ch == '{' || ch == '[')
			depth++;
		else if ((ch == '}' || ch == ']') && depth > 0)
			depth--;
	}
}

static int read_number(void *numeric_locale, const struct cursor *c, double *ret_value)
{
	char text[512];
	size_t len = 0;
	char *end;
	double value;

	while (c->at + len < c->end && len < sizeof(text) - 1 && c->at[len] != '\0' && strchr("+-.0123456789eE", c->at[len])) {
		text[len] = c->at[len];
		len++;
	}
	text[len] = '\0';
	if (len == 0)
		return -ENOENT;
	value = strtod_l(text, &end, numeric_locale);
	if (*end != '\0')
		return -ENOENT;
	*ret_value = value;
	return 0;
}

int json_top_number(void *numeric_locale, const char *doc, size_t len, const char *key, double *ret_value)
{
	struct cursor c = {doc, doc + len};

	if (!take(&c, '{'))
		return -ENOENT;
	while (take(&c, '"')) {
		int wanted = string_is(&c, key);
		if (!take(&c, ':'))
			return -ENOENT;
		skip_blank(&c);
		if (wanted)
			return read_number(numeric_locale, &c, ret_value);
		skip_value(&c);
		if (!take(&c, ','))
			return -ENOENT;
	}
	return -ENOENT;
}
