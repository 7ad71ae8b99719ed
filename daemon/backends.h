/*
 * backends.h: which backend runs here. The one place that knows what was compiled in.
 */
#ifndef DAEMON_BACKENDS_H
#define DAEMON_BACKENDS_H

#include <stddef.h>

#include "trainer/learn/backend.h"

/*
 * `wanted`: "auto", "cpu" or "cuda". auto takes CUDA when it was compiled in and a device answers, else the CPU, and says why in `reason` (in words; "" when
 * there is nothing to say). "cuda" without a usable device is -ENODEV with the reason.
 */
int backends_choose(const char *wanted, const struct backend_ops **ret_ops, char *reason, size_t reason_size);

/* For tests: another device in CUDA's place (NULL: none), before anything is chosen. */
void backends_put_device(const struct backend_ops *ops);

#endif
