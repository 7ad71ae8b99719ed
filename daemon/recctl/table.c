/*
 * table.c: collects the cells of a table, then prints them in columns wide enough for all. Main thread of recctl. Owns copies of the cells until
 * table_end(). Titles come from logs, so text is cleaned of everything that a terminal would obey.
 */
#include "daemon/recctl/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int table_colours(void)
{
	static int known = -1;

	if (known < 0) {
		const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

		known = isatty(STDOUT_FILENO) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
	}
	return known;
}

const char *table_bold(void)
{
	return table_colours() ? "\033[1m" : "";
}

const char *table_dim(void)
{
	return table_colours() ? "\033[2m" : "";
}

const char *table_reset(void)
{
	return table_colours() ? "\033[0m" : "";
}

void text_clean(char *text)
{
	unsigned char *p = (unsigned char *)text;

	for (; *p; p++) {
		if (*p < 0x20 || *p == 0x7f) {
			*p = '?';
		} else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) { /* C1: two bytes each */
			p[0] = p[1] = '?';
			p++;
		}
	}
}

static int is_wide(uint32_t c)
{
	return (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) || (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
	       (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) || (c >= 0x1f300 && c <= 0x1faff) || (c >= 0x20000 && c <= 0x3fffd);
}

static int is_combining(uint32_t c)
{
	return (c >= 0x300 && c <= 0x36f) || (c >= 0x200b && c <= 0x200f) || (c >= 0x20d0 && c <= 0x20ff) || (c >= 0xfe00 && c <= 0xfe0f);
}

size_t text_width(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t width = 0;

	while (*p) {
		uint32_t c = *p++;
		int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

		if (more)
			c &= 0x3fu >> more;
		for (; more && (*p & 0xc0) == 0x80; more--)
			c = c << 6 | (*p++ & 0x3fu);
		if (!is_combining(c))
			width += is_wide(c) ? 2 : 1;
	}
	return width;
}

void text_count(uint64_t value, char out[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, value), used = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			out[used++] = ',';
		out[used++] = digits[i];
	}
	out[used] = '\0';
}

void table_begin(struct table *table, const struct table_column *columns, size_t n_columns)
{
	*table = (struct table){ .columns = columns, .n_columns = n_columns };
}

/* Room for one more cell. 0 or -ENOMEM. */
static int reserve_cell(struct table *table)
{
	if (table->n_cells == table->capacity) {
		size_t capacity = table->capacity ? table->capacity * 2 : 128;
		char **cells = realloc(table->cells, capacity * sizeof(*cells));

		if (!cells)
			return -ENOMEM;
		table->cells = cells;
		table->capacity = capacity;
	}
	return 0;
}

void table_cell(struct table *table, const char *format, ...)
{
	char *text = NULL;
	va_list args;

	if (table->failed || reserve_cell(table)) {
		table->failed = 1;
		return;
	}
	va_start(args, format);
	int len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0) {
		table->failed = 1;
		return;
	}
	text_clean(text);
	table->cells[table->n_cells++] = text;
}

static void print_padding(size_t n)
{
	for (size_t i = 0; i < n; i++)
		putchar(' ');
}

/* One row, texts [n_columns], without spaces at its end and without newline. */
static void print_row(const struct table *table, const char *const *texts, const size_t *widths, int indent)
{
	size_t last = 0;

	for (size_t c = 0; c < table->n_columns; c++) {
		if (texts[c][0])
			last = c;
	}
	print_padding((size_t)indent);
	for (size_t c = 0; c <= last; c++) {
		size_t pad = widths[c] - text_width(texts[c]);

		if (table->columns[c].right)
			print_padding(pad);
		fputs(texts[c], stdout);
		if (c == last)
			break;
		if (!table->columns[c].right)
			print_padding(pad);
		fputs("  ", stdout);
	}
}

static void print_all(const struct table *table, const char **titles, const size_t *widths, int indent)
{
	for (size_t c = 0; c < table->n_columns; c++)
		titles[c] = table->columns[c].title;
	fputs(table_bold(), stdout);
	print_row(table, titles, widths, indent);
	printf("%s\n", table_reset());
	for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns) {
		print_row(table, (const char *const *)table->cells + i, widths, indent);
		putchar('\n');
	}
}

int table_end(struct table *table, int indent)
{
	size_t *widths = calloc(table->n_columns, sizeof(*widths));
	const char **titles = calloc(table->n_columns, sizeof(*titles));
	int rc = table->failed || !widths || !titles ? -ENOMEM : 0;

	for (size_t c = 0; !rc && c < table->n_columns; c++)
		widths[c] = text_width(table->columns[c].title);
	for (size_t i = 0; !rc && i < table->n_cells; i++) {
		size_t width = text_width(table->cells[i]), c = i % table->n_columns;

		if (width > widths[c])
			widths[c] = width;
	}
	if (!rc)
		print_all(table, titles, widths, indent);
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(widths);
	free(titles);
	*table = (struct table){ 0 };
	return rc;
}
