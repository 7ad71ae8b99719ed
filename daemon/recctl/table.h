/*
 * table.h: aligned columns on standard output, on a terminal and in a pipe alike; bold and dim only on a terminal.
 */
#ifndef DAEMON_RECCTL_TABLE_H
#define DAEMON_RECCTL_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_column {
	const char *title;
	int right; /* 1: numbers, aligned to the right */
};

struct table {
	const struct table_column *columns;
	size_t n_columns;
	char **cells; /* [n_cells], row by row */
	size_t n_cells, capacity;
	int failed; /* out of memory: nothing is printed */
};

/* `columns` must outlive the table. */
void table_begin(struct table *table, const struct table_column *columns, size_t n_columns);
/* The next cell, left to right, row after row. Characters that would move a terminal's cursor or colour it are replaced by '?'. */
__attribute__((format(printf, 2, 3))) void table_cell(struct table *table, const char *format, ...);
/* Prints header and rows, indented by `indent` columns, and frees the table. 0 or -ENOMEM. */
int table_end(struct table *table, int indent);

/* Whether standard output is a terminal that may be coloured (NO_COLOR is respected). */
int table_colours(void);
/* Escape sequences, or "" when there are no colours. */
const char *table_bold(void);
const char *table_dim(void);
const char *table_reset(void);

/* Replaces control characters (C0, DEL, C1) by '?', in place. Text comes from logs that anybody may write into. */
void text_clean(char *text);
/* Columns that a UTF-8 text takes on a terminal: 0 for combining marks, 2 for wide characters. */
size_t text_width(const char *text);
/* 1234567 as "1,234,567". */
void text_count(uint64_t value, char out[32]);

#endif
