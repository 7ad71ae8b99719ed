/*
 * import_model.h: a model that somebody else trained, out of a .pt file: which tensor is what, the ids of its rows, and that the numbers are numbers.
 */
#ifndef DAEMON_RECCTL_IMPORT_MODEL_H
#define DAEMON_RECCTL_IMPORT_MODEL_H

#include "trainer/model/checkpoint.h"

enum import_part { IMPORT_USER, IMPORT_ITEM, IMPORT_USER_BIAS, IMPORT_ITEM_BIAS, IMPORT_PART_COUNT };

struct import_options {
	const char *path;
	const char *names[IMPORT_PART_COUNT]; /* NULL: found by usual names, then by shape */
	const char *user_ids, *item_ids;      /* files with one id a line; NULL: tensors user_ids, item_ids of the file */
	int row_ids;                          /* 1: without either, ids are the row numbers 0, 1, 2, ... */
};

struct imported {
	struct model_file model;
	char names[IMPORT_PART_COUNT][256]; /* the tensor taken for each part; "": none, its biases are 0 */
};

/*
 * Reads the file through the restricted reader. User and item tensors are float32 [rows, dim] of the same dim, 1 to 512; biases float32 [rows] or [rows, 1]. 0, or -errno
 * with text that says what is wrong, what was found and how to mend it. Free with model_file_free(&ret->model).
 */
int import_read(const struct import_options *options, struct imported *ret_imported, char *errstr, size_t errstr_size);

#endif
