/*
 * checkpoint_columns.c: reads tensors front to back in windows, so that recovery needs memory for the state and not for the file as well. Used by
 * checkpoint_load.c on the thread that recovers; owns its window.
 */
#include "trainer/model/checkpoint_columns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_ELEMENTS 65536u

int column_open(struct column *column, const struct torch_reader *reader, const char *name, enum torch_dtype dtype, uint64_t rows, uint64_t columns,
                char *errstr, size_t errstr_size)
{
	const struct torch_tensor *tensor;
	int rc = torch_reader_find_tensor(reader, name, &tensor, errstr, errstr_size);

	memset(column, 0, sizeof(*column));
	if (rc < 0)
		return -EBADMSG;
	if (tensor->dtype != dtype || tensor->n_dims != (columns == 0 ? 1u : 2u) || tensor->shape[0] != rows ||
	    (columns != 0 && tensor->shape[1] != columns)) {
		snprintf(errstr, errstr_size, "tensor '%s': wanted %s of %llu x %llu, found %s of %llu elements", name, torch_dtype_name(dtype),
		         (unsigned long long)rows, (unsigned long long)(columns == 0 ? 1 : columns), torch_dtype_name(tensor->dtype),
		         (unsigned long long)tensor->n_elements);
		return -EBADMSG;
	}
	column->reader = reader;
	column->tensor = tensor;
	column->width = torch_dtype_bytes(dtype);
	return 0;
}

static int window_load(struct column *column, uint64_t n, char *errstr, size_t errstr_size)
{
	const uint64_t left = column->tensor->n_elements - column->at;
	uint64_t take = n > WINDOW_ELEMENTS ? n : WINDOW_ELEMENTS;
	int rc;

	if (take > left)
		take = left;
	if (take > column->capacity) {
		char *grown = realloc(column->window, take * column->width);

		if (grown == NULL) {
			snprintf(errstr, errstr_size, "tensor '%s': out of memory", column->tensor->name);
			return -ENOMEM;
		}
		column->window = grown;
		column->capacity = take;
	}
	rc = torch_reader_read(column->reader, column->tensor, column->at * column->width, column->window, take * column->width, errstr, errstr_size);
	if (rc < 0)
		return rc;
	column->window_at = column->at;
	column->window_n = take;
	return 0;
}

int column_next(struct column *column, uint64_t n, const void **ret_elements, char *errstr, size_t errstr_size)
{
	if (n > column->tensor->n_elements - column->at) {
		snprintf(errstr, errstr_size, "tensor '%s': ends before its rows do", column->tensor->name);
		return -EBADMSG;
	}
	if (column->window == NULL || column->at + n > column->window_at + column->window_n) {
		const int rc = n == 0 ? 0 : window_load(column, n, errstr, errstr_size);

		if (rc < 0)
			return rc;
	}
	*ret_elements = n == 0 ? "" : column->window + (column->at - column->window_at) * column->width;
	column->at += n;
	return 0;
}

void column_close(struct column *column)
{
	free(column->window);
	column->window = NULL;
}
