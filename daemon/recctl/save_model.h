/*
 * save_model.h: puts a trained model under its name, whole or not at all.
 */
#ifndef DAEMON_RECCTL_SAVE_MODEL_H
#define DAEMON_RECCTL_SAVE_MODEL_H

#include "trainer/model/checkpoint.h"

/* Opens the folder; makes it when it is missing (one level). The descriptor, or -errno with text. */
int save_open_dir(const char *dir, char *errstr, size_t errstr_size);
/*
 * Writes `name` in the folder under a temporary name, makes it durable and renames it. An older file of that name is replaced; a symbolic link is
 * refused (-EEXIST): it is recd's, and leads into its checkpoints. On failure the older file stays.
 */
int save_model(int dir_fd, const char *name, const struct tables *tables, const int64_t *user_ids, const int64_t *item_ids, const char *kind,
               char *errstr, size_t errstr_size);

#endif
