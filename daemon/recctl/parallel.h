/*
 * parallel.h: one function over many users, on several threads.
 */
#ifndef DAEMON_RECCTL_PARALLEL_H
#define DAEMON_RECCTL_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/*
 * Calls work(ctx, begin, end) until every index of 0..n-1 was in one range; ranges hold `grain` indexes (the last one maybe fewer) and are handed out in
 * ascending order to `threads` threads, the calling one included. work returns 0 or -errno; after a failure no new range begins and one of the
 * failures is returned. What an index computes must not depend on the thread. `what` labels the progress line (NULL: none).
 */
int parallel_run(uint32_t threads, uint32_t n, uint32_t grain, int (*work)(void *ctx, uint32_t begin, uint32_t end), void *ctx, const char *what);

/* Processors this process may use; at least 1. */
uint32_t parallel_cores(void);

#endif
