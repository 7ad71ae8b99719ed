/*
 * lock.h: one daemon a data directory.
 */
#ifndef DAEMON_LOCK_H
#define DAEMON_LOCK_H

#include <stddef.h>

/*
 * Locks data_dir/LOCK for as long as *ret_lock_fd is open (an open-file-description lock: it goes when the process ends, however it ends) and writes the
 * pid into it. The file itself stays. 0; -EBUSY: another process holds it, its pid is in errstr; else -errno with errstr. `data_dir` is for messages.
 */
int lock_take(int data_dir_fd, const char *data_dir, int *ret_lock_fd, char *errstr, size_t errstr_size);
/* Accepts -1. */
void lock_release(int lock_fd);

#endif
