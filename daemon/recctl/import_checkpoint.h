/*
 * import_checkpoint.h: an imported model as the first checkpoint of a data directory, so that recd starts from it.
 */
#ifndef DAEMON_RECCTL_IMPORT_CHECKPOINT_H
#define DAEMON_RECCTL_IMPORT_CHECKPOINT_H

#include "trainer/model/checkpoint.h"

/*
 * Writes generation 1 into `data_dir` (made when missing, mode 0750): the model's rows and ids, no history, no positions. recd loads it at its first start and reads the logs
 * from their beginning. impressions_max must be that of recd.conf. Refuses a directory that holds a checkpoint or was in use (-EEXIST), or that a recd holds (-EBUSY).
 * 0, or -errno with text.
 */
int import_checkpoint(const char *data_dir, const struct model_file *model, uint32_t impressions_max, struct checkpoint_result *ret_result, char *errstr,
                      size_t errstr_size);

#endif
