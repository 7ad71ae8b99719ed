/*
 * surfaces.c: names of surfaces ("home", "search") to small numbers, so that an impression stays at 16 bytes.
 *
 * A bounded table: 4,096 names of at most 255 bytes without NUL. A name that does not fit becomes surface 0 and is counted; beyond the bound the facts
 * of those impressions may depend on the order of arrival, as with the id caps. Names are never removed; other threads read those below n_surfaces.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/state/internal.h"

#define SURFACE_SLOTS (SURFACES_MAX * 2)

int surfaces_init(struct state *state)
{
	state->surfaces = calloc(SURFACES_MAX + 1, sizeof(*state->surfaces));
	state->surface_slots = calloc(SURFACE_SLOTS, sizeof(*state->surface_slots));
	if (!state->surfaces || !state->surface_slots)
		return -ENOMEM;
	state->surfaces[0].hash = digest_name_hash("", 0);
	return 0;
}

void surfaces_destroy(struct state *state)
{
	for (uint32_t i = 1; state->surfaces && i <= SURFACES_MAX; i++)
		free(state->surfaces[i].name);
	free(state->surfaces);
	free(state->surface_slots);
}

static int surface_is(const struct surface *surface, const char *name, size_t len)
{
	return surface->len == len && memcmp(surface->name, name, len) == 0;
}

static int surface_add(struct state *state, const char *name, size_t len, uint64_t hash, uint32_t slot, uint16_t *ret_surface)
{
	uint32_t index = atomic_load_explicit(&state->n_surfaces, memory_order_relaxed) + 1;
	struct surface *surface = &state->surfaces[index];

	surface->name = malloc(len + 1);
	if (!surface->name)
		return -ENOMEM;
	memcpy(surface->name, name, len);
	surface->name[len] = '\0';
	surface->len = (uint32_t)len;
	surface->hash = hash;
	state->surface_slots[slot] = (uint16_t)index;
	atomic_store_explicit(&state->n_surfaces, index, memory_order_release);
	*ret_surface = (uint16_t)index;
	return 0;
}

int surface_enter(struct state *state, const char *name, size_t len, uint16_t *ret_surface, int *ret_full)
{
	uint16_t *recent;
	uint64_t hash;

	*ret_full = 0;
	if (len == 0) {
		*ret_surface = 0;
		return 0;
	}
	/* nearly every name is one of a few: looked up by length and ends before it is hashed whole */
	recent = &state->surface_recent[(len + (unsigned char)name[0] * 3u + (unsigned char)name[len - 1] * 7u) % SURFACE_RECENT];
	if (*recent != 0 && surface_is(&state->surfaces[*recent], name, len)) {
		*ret_surface = *recent;
		return 0;
	}
	if (len > SURFACE_NAME_MAX || memchr(name, 0, len)) {
		*ret_surface = 0;
		*ret_full = 1;
		return 0;
	}
	hash = digest_name_hash(name, len);
	for (uint32_t slot = (uint32_t)((hash ^ state->config.hash_seed) * 0x9e3779b97f4a7c15u >> 32) % SURFACE_SLOTS;;
	     slot = (slot + 1) % SURFACE_SLOTS) {
		uint16_t index = state->surface_slots[slot];
		if (index == 0 && state->n_surfaces == SURFACES_MAX) {
			*ret_surface = 0;
			*ret_full = 1;
			return 0;
		}
		if (index == 0)
			return surface_add(state, name, len, hash, slot, ret_surface);
		if (surface_is(&state->surfaces[index], name, len)) {
			*recent = index;
			*ret_surface = index;
			return 0;
		}
	}
}

const char *state_surface_name(const struct state *state, uint16_t surface)
{
	if (surface == 0 || surface > atomic_load_explicit(&state->n_surfaces, memory_order_acquire))
		return "";
	return state->surfaces[surface].name;
}
