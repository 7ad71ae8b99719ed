/*
 * catalogue.c: the last catalogue line of each item, as it was written. Lines are immutable entries; putting a new one exchanges the pointer.
 *
 * The engine puts; any thread copies a line out under the catalogue's mutex. While a cut lives, the entry that was there when the cut began is kept
 * behind the newer one (`prev`) until the cut ends, so the cut's walk may hold on to its text.
 *
 * Which line is the last depends on the order of arrival: catalogue lines are outside of the histories' digest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/state/internal.h"

struct catalogue_entry {
	struct catalogue_entry *prev; /* as of the running cut; only when this entry came during that cut */
	uint32_t cut_serial;          /* cut during which this entry came; 0: none */
	size_t len;
	char doc[]; /* len bytes and a NUL */
};

int catalogue_init(struct state *state)
{
	int r;

	state->catalogue = calloc(1, sizeof(*state->catalogue));
	if (!state->catalogue)
		return -ENOMEM;
	r = -pthread_mutex_init(&state->catalogue->mutex, NULL);
	if (r < 0) {
		free(state->catalogue);
		state->catalogue = NULL;
	}
	return r;
}

void catalogue_destroy(struct state *state)
{
	uint32_t n_items = state->item_ids ? ids_count(state->item_ids) : 0;

	if (!state->catalogue)
		return;
	for (uint32_t i = 0; i < n_items; i++) {
		struct catalogue_entry *entry = state->items[i].entry;
		if (entry)
			free(entry->prev);
		free(entry);
	}
	free(state->catalogue->kept.values);
	pthread_mutex_destroy(&state->catalogue->mutex);
	free(state->catalogue);
	state->catalogue = NULL;
}

static size_t entry_bytes(const struct catalogue_entry *entry)
{
	return sizeof(*entry) + entry->len + 1;
}

/* Frees an entry that no thread can see any more. */
static void entry_drop(struct catalogue *catalogue, struct catalogue_entry *entry)
{
	if (!entry)
		return;
	atomic_fetch_sub_explicit(&catalogue->bytes, entry_bytes(entry), memory_order_relaxed);
	free(entry);
}

int catalogue_put(struct state *state, uint32_t item, const char *doc, size_t len)
{
	struct catalogue *catalogue = state->catalogue;
	struct catalogue_entry *old = state->items[item].entry; /* only this thread writes it */
	struct catalogue_entry *entry, *unused = old;

	if (old && old->len == len && memcmp(old->doc, doc, len) == 0)
		return 0;
	entry = malloc(sizeof(*entry) + len + 1);
	if (!entry)
		return -ENOMEM;
	*entry = (struct catalogue_entry){.len = len, .cut_serial = catalogue->cut_serial};
	if (len)
		memcpy(entry->doc, doc, len);
	entry->doc[len] = '\0';
	if (catalogue->cut_serial != 0 && old) {
		if (old->cut_serial == catalogue->cut_serial) {
			entry->prev = old->prev;
		} else {
			if (u32_list_add(&catalogue->kept, item) < 0) {
				free(entry);
				return -ENOMEM;
			}
			entry->prev = old;
			unused = NULL;
		}
	}
	atomic_fetch_add_explicit(&catalogue->bytes, entry_bytes(entry), memory_order_relaxed);
	pthread_mutex_lock(&catalogue->mutex);
	state->items[item].entry = entry;
	pthread_mutex_unlock(&catalogue->mutex);
	entry_drop(catalogue, unused);
	state->counters.catalogue_entries += !old;
	return 0;
}

size_t state_catalogue_doc(const struct state *state, uint32_t item, char *buf, size_t size)
{
	const struct catalogue_entry *entry;
	size_t len = 0;

	if (size)
		buf[0] = '\0';
	if (item >= state_n_items(state))
		return 0;
	pthread_mutex_lock(&state->catalogue->mutex);
	entry = state->items[item].entry;
	if (entry) {
		len = entry->len;
		if (size) {
			size_t copied = len < size - 1 ? len : size - 1;
			memcpy(buf, entry->doc, copied);
			buf[copied] = '\0';
		}
	}
	pthread_mutex_unlock(&state->catalogue->mutex);
	return len;
}

void catalogue_cut_begin(struct state *state, uint32_t serial)
{
	state->catalogue->cut_serial = serial;
}

const char *catalogue_cut_doc(const struct state *state, uint32_t item, uint32_t serial, size_t *ret_len)
{
	const struct catalogue_entry *entry;

	pthread_mutex_lock(&state->catalogue->mutex);
	entry = state->items[item].entry;
	if (entry && entry->cut_serial == serial)
		entry = entry->prev;
	pthread_mutex_unlock(&state->catalogue->mutex);
	if (!entry)
		return NULL;
	*ret_len = entry->len;
	return entry->doc;
}

void catalogue_cut_end(struct state *state)
{
	struct catalogue *catalogue = state->catalogue;

	catalogue->cut_serial = 0;
	for (size_t i = 0; i < catalogue->kept.n; i++) {
		struct catalogue_entry *entry = state->items[catalogue->kept.values[i]].entry;
		entry_drop(catalogue, entry->prev);
		entry->prev = NULL;
	}
	catalogue->kept.n = 0;
}
