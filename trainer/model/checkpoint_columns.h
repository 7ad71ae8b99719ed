/*
 * checkpoint_columns.h: a tensor read from front to back through a window. Internal to trainer/model.
 */
#ifndef TRAINER_MODEL_CHECKPOINT_COLUMNS_H
#define TRAINER_MODEL_CHECKPOINT_COLUMNS_H

#include "trainer/model/torch_file.h"

struct column {
	const struct torch_reader *reader;
	const struct torch_tensor *tensor;
	size_t width;    /* bytes of an element */
	uint64_t at;     /* next element */
	char *window;    /* [capacity] elements from window_at on */
	uint64_t window_at, window_n, capacity;
};

/*
 * Opens a column: the tensor must exist, have this dtype and exactly `rows` elements (rows x columns for two dimensions; columns 0: one dimension).
 * 0, or -EBADMSG with errstr.
 */
int column_open(struct column *column, const struct torch_reader *reader, const char *name, enum torch_dtype dtype, uint64_t rows, uint64_t columns,
                char *errstr, size_t errstr_size);
/* The next n elements, valid until the next call. 0; -EBADMSG when the column has fewer; -ENOMEM; -EIO. */
int column_next(struct column *column, uint64_t n, const void **ret_elements, char *errstr, size_t errstr_size);
void column_close(struct column *column);

#endif
