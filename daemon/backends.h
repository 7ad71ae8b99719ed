/*
 * backends.h: which backend runs here. The one place that knows what was compiled in.
 */
#ifndef DAEMON_BACKENDS_H
#define DAEMON_BACKENDS_H

#include <stddef.h>

#include "trainer/learn/learn.h"

/*
 * A learner on the backend that is `wanted`: "auto", "cpu" or "cuda". auto takes CUDA when it was compiled in and a device answers and can be opened, else the
 * CPU, and says why in `reason` (in words; "" when there is nothing to say). "cuda" without a usable device is an error. 0, with *ret_ops the one taken and
 * *ret_learner the caller's; -errno with errstr, which names `setting`, the words that asked for the backend, where they are at fault.
 */
int backends_open_learner(const char *wanted, const char *setting, const struct learn_options *options, const struct backend_ops **ret_ops,
                          struct learner **ret_learner, char *reason, size_t reason_size, char *errstr, size_t errstr_size);

/* For tests: another device in CUDA's place (NULL: none), before anything is chosen. */
void backends_put_device(const struct backend_ops *ops);

#endif
