/*
 * model_file.c: a model alone, without a state: what recctl trains, evaluates and explains. Any thread; owns nothing between calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/checkpoint.h"
#include "trainer/model/torch_file.h"

int model_file_write(int dir_fd, const char *name, const struct tables *tables, const int64_t *user_ids, const int64_t *item_ids, const char *kind,
                     char *errstr, size_t errstr_size)
{
	const uint64_t u_shape[2] = { tables->n_users, tables->dim }, v_shape[2] = { tables->n_items, tables->dim };
	struct torch_writer *writer = torch_writer_new(0);
	const struct {
		const char *name;
		enum torch_dtype dtype;
		unsigned n_dims;
		const uint64_t *shape;
		const void *data;
	} tensors[] = {
		{ "U", TORCH_F32, 2, u_shape, tables->U },         { "V", TORCH_F32, 2, v_shape, tables->V },
		{ "bu", TORCH_F32, 1, u_shape, tables->bu },       { "bi", TORCH_F32, 1, v_shape, tables->bi },
		{ "user_ids", TORCH_I64, 1, u_shape, user_ids },   { "item_ids", TORCH_I64, 1, v_shape, item_ids },
	};
	const size_t n = sizeof(tensors) / sizeof(tensors[0]);
	int rc;

	if (writer == NULL) {
		snprintf(errstr, errstr_size, "%s: out of memory", name);
		return -ENOMEM;
	}
	/* tensor numbers are 0 .. n-1 in this order; a failed declaration comes back from begin */
	for (size_t i = 0; i < n; i++)
		(void)torch_writer_add_tensor(writer, tensors[i].name, tensors[i].dtype, tensors[i].n_dims, tensors[i].shape);
	torch_writer_add_int(writer, "emb_dim", tables->dim);
	torch_writer_add_string(writer, "kind", kind);
	rc = torch_writer_begin(writer, dir_fd, name, errstr, errstr_size);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const uint64_t rows = tensors[i].shape[0], columns = tensors[i].n_dims == 2 ? tensors[i].shape[1] : 1;

		rc = torch_writer_append(writer, i, tensors[i].data, rows * columns * torch_dtype_bytes(tensors[i].dtype));
	}
	if (rc == 0)
		rc = torch_writer_finish(writer, errstr, errstr_size);
	else if (torch_writer_error(writer)[0] != '\0')
		snprintf(errstr, errstr_size, "%s", torch_writer_error(writer));
	torch_writer_free(writer);
	return rc;
}

static int find_shape(struct torch_reader *reader, const char *name, enum torch_dtype dtype, unsigned n_dims, const struct torch_tensor **ret_tensor,
                      char *errstr, size_t errstr_size)
{
	int rc = torch_reader_find_tensor(reader, name, ret_tensor, errstr, errstr_size);

	if (rc == 0 && ((*ret_tensor)->dtype != dtype || (*ret_tensor)->n_dims != n_dims)) {
		snprintf(errstr, errstr_size, "tensor '%s': wanted %u-dimensional %s, found %u-dimensional %s", name, n_dims, torch_dtype_name(dtype),
		         (*ret_tensor)->n_dims, torch_dtype_name((*ret_tensor)->dtype));
		rc = -EBADMSG;
	}
	return rc;
}

/* Reads what the shapes promised; all sizes were checked against each other. */
static int read_all(struct torch_reader *reader, struct model_file *file, const struct torch_tensor *const t[6], char *errstr, size_t errstr_size)
{
	void *const into[6] = { file->tables.U, file->tables.V, file->tables.bu, file->tables.bi, file->user_ids, file->item_ids };
	int rc = 0;

	for (int i = 0; rc == 0 && i < 6; i++)
		rc = torch_reader_read(reader, t[i], 0, into[i], t[i]->bytes, errstr, errstr_size);
	return rc;
}

int model_file_read(const char *path, struct model_file *ret_file, char *errstr, size_t errstr_size)
{
	static const char *const names[6] = { "U", "V", "bu", "bi", "user_ids", "item_ids" };
	const struct torch_tensor *t[6];
	struct torch_reader *reader = NULL;
	struct model_file file = { 0 };
	const char *kind;
	char text[512];
	int rc = torch_reader_open(AT_FDCWD, path, TORCH_FOLLOW_LINK, &reader, text, sizeof(text));

	for (int i = 0; rc == 0 && i < 6; i++)
		rc = find_shape(reader, names[i], i < 4 ? TORCH_F32 : TORCH_I64, i < 2 ? 2 : 1, &t[i], text, sizeof(text));
	if (rc == 0) {
		const uint64_t n_users = t[0]->shape[0], n_items = t[1]->shape[0], dim = t[0]->shape[1];

		if (t[1]->shape[1] != dim || t[2]->shape[0] != n_users || t[3]->shape[0] != n_items || t[4]->shape[0] != n_users ||
		    t[5]->shape[0] != n_items || dim == 0 || dim > 4096 || n_users > UINT32_MAX / 2 || n_items > UINT32_MAX / 2) {
			snprintf(text, sizeof(text), "the tensors' shapes do not fit each other");
			rc = -EBADMSG;
		} else {
			rc = tables_reserve(&file.tables, (uint32_t)n_users, (uint32_t)n_items, (uint32_t)dim);
			file.tables.n_users = (uint32_t)n_users;
			file.tables.n_items = (uint32_t)n_items;
			file.tables.dim = (uint32_t)dim;
			file.user_ids = malloc(n_users * sizeof(int64_t) + 1);
			file.item_ids = malloc(n_items * sizeof(int64_t) + 1);
			if (rc == 0 && (file.user_ids == NULL || file.item_ids == NULL))
				rc = -ENOMEM;
			if (rc < 0)
				snprintf(text, sizeof(text), "out of memory");
		}
	}
	if (rc == 0)
		rc = read_all(reader, &file, t, text, sizeof(text));
	if (rc == 0 && torch_reader_find_string(reader, "kind", &kind, text, sizeof(text)) == 0)
		snprintf(file.kind, sizeof(file.kind), "%.15s", kind);
	torch_reader_close(reader);
	if (rc < 0) {
		snprintf(errstr, errstr_size, "%s: %s", path, text);
		model_file_free(&file);
		return rc;
	}
	*ret_file = file;
	return 0;
}

void model_file_free(struct model_file *file)
{
	if (file == NULL)
		return;
	tables_free(&file->tables);
	free(file->user_ids);
	free(file->item_ids);
	memset(file, 0, sizeof(*file));
}
