/*
 * import_ids.h: whose row is which, for an imported model.
 */
#ifndef DAEMON_RECCTL_IMPORT_IDS_H
#define DAEMON_RECCTL_IMPORT_IDS_H

#include "trainer/model/torch_file.h"

/* One side of the model. */
struct import_id_source {
	const char *what;   /* "user" or "item"; the flags are --user_ids, --item_ids */
	const char *tensor; /* of the .pt file: int64 or int32 [n] */
	const char *file;   /* one id a line; before the tensor; NULL: none */
	const char *rows;   /* name of the tensor whose rows they are, for messages */
};

/*
 * n ids, from 0 to 2^63-1, none twice. Without file and tensor: the row numbers when row_ids is 1, else an error. *ret_ids is the caller's. 0, or -errno with text that
 * names the file, the line and the mend.
 */
int import_ids(const struct import_id_source *source, const char *path, const struct torch_reader *reader, int row_ids, uint32_t n, int64_t **ret_ids,
               char *errstr, size_t errstr_size);

#endif
