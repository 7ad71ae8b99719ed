/*
 * skips.h: the skips that a model may learn from as negatives. recd and `recctl train` list them alike.
 */
#ifndef DAEMON_SKIPS_H
#define DAEMON_SKIPS_H

#include <stddef.h>
#include <stdint.h>

/* Skips listed for a user: at most of so many decided impressions (state.impressions_max). */
#define SKIPS_MAX 1024u

/*
 * Items that were shown to the user and not chosen, those that came last first; at most max are written, at most SKIPS_MAX exist. Returns how many were written.
 * state: a struct state. Any thread, while nothing is applied (struct skip_source, list).
 */
size_t skips_newest(void *state, uint32_t user, uint32_t *ret_items, size_t max);

#endif
