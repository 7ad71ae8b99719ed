/*
 * save_model.h: puts a trained model under its name, whole or not at all.
 */
#ifndef DAEMON_RECCTL_SAVE_MODEL_H
#define DAEMON_RECCTL_SAVE_MODEL_H

#include "trainer/model/checkpoint.h"

/* Opens the folder; makes it when it is missing (one level). The descriptor, or -errno with text (also when nothing could be written there). */
int save_open_dir(const char *dir, char *errstr, size_t errstr_size);
/* Whether save_model() may put a file under this name: -EEXIST for a symbolic link, which is recd's and leads into its checkpoints; 0 otherwise. */
int save_check(int dir_fd, const char *name, char *errstr, size_t errstr_size);
/*
 * Writes `name` in the folder under a temporary name, makes it durable and renames it. An older file of that name is replaced, a link refused as above. On
 * failure the older file stays.
 */
int save_model(int dir_fd, const char *name, const struct tables *tables, const int64_t *user_ids, const int64_t *item_ids, const char *kind,
               char *errstr, size_t errstr_size);

#endif
