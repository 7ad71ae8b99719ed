/*
 * skips.c: lists a user's skips for the sampler (skips.h). Training threads call it, while nothing is applied; it owns nothing.
 *
 * Decided impressions come in the order in which their titles were first shown, so the newest skips stand at the end. Whoever takes only some gets those.
 */
#include "daemon/skips.h"

#include "trainer/state/state.h"

size_t skips_newest(void *state, uint32_t user, uint32_t *ret_items, size_t max)
{
	struct decided_impression decided[SKIPS_MAX];
	struct user_facts facts;
	size_t kept = 0;

	state_user_facts(state, user, &facts);
	size_t n = state_decided(state, &facts, decided, SKIPS_MAX);
	for (size_t i = n < SKIPS_MAX ? n : SKIPS_MAX; i-- > 0 && kept < max;)
		if (decided[i].label == 0)
			ret_items[kept++] = decided[i].item;
	return kept;
}
