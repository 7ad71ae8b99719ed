/*
 * ids.c: who is who. External int64 ids to dense indexes by open addressing, and back by an array that never moves.
 *
 * The hash is seeded, so that nobody outside can choose ids that collide; the number of ids is capped. A slot's place is the high bits of its hash:
 * when the table doubles, entries keep their order, and rehashing reads and writes memory in sequence.
 *
 * The engine's thread is the only writer. It looks up without a lock, and takes the mutex for the few writes of an insertion or a doubling; other
 * threads look up under the mutex. Entries of the external array below `n` are constant.
 */
#include "trainer/state/ids.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define IDS_SLOTS_FIRST 1024u

static struct id_slot *slots_map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	if (bytes >= ((size_t)2 << 20))
		(void)madvise(memory, bytes, MADV_HUGEPAGE); /* advice only */
	return memory;
}

int ids_init(struct ids *ids, uint32_t max, uint64_t seed)
{
	int r;

	memset(ids, 0, sizeof(*ids));
	ids->max = max;
	ids->seed[0] = (seed + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
	ids->seed[1] = (seed ^ (seed >> 29)) * 0x94d049bb133111ebu + 0x2545f4914f6cdd1du;
	ids->mask = IDS_SLOTS_FIRST - 1;
	ids->shift = 64 - 10;
	r = -pthread_mutex_init(&ids->mutex, NULL);
	if (r < 0)
		return r;
	ids->slots_bytes = IDS_SLOTS_FIRST * sizeof(struct id_slot);
	ids->slots = slots_map(ids->slots_bytes);
	if (!ids->slots)
		r = -ENOMEM;
	else
		r = reserve_open(&ids->external, (size_t)max * sizeof(int64_t), 0);
	if (r < 0)
		ids_destroy(ids);
	return r;
}

void ids_destroy(struct ids *ids)
{
	if (!ids->slots_bytes)
		return; /* never initialised */
	if (ids->slots)
		munmap(ids->slots, ids->slots_bytes);
	reserve_close(&ids->external);
	pthread_mutex_destroy(&ids->mutex);
	memset(ids, 0, sizeof(*ids));
}

static void slots_put(struct id_slot *slots, uint64_t mask, unsigned shift, uint64_t hash, int64_t id, uint32_t index_plus_1)
{
	uint64_t i = hash >> shift;

	while (slots[i].index_plus_1 != 0)
		i = (i + 1) & mask;
	slots[i].id = id;
	slots[i].index_plus_1 = index_plus_1;
}

static int ids_grow(struct ids *ids)
{
	size_t bytes = ids->slots_bytes * 2;
	uint64_t mask = ids->mask * 2 + 1;
	unsigned shift = ids->shift - 1;
	struct id_slot *old = ids->slots;
	struct id_slot *slots = slots_map(bytes);

	if (!slots)
		return -ENOMEM;
	for (uint64_t i = 0; i <= ids->mask; i++)
		if (old[i].index_plus_1 != 0)
			slots_put(slots, mask, shift, ids_hash(ids, old[i].id), old[i].id, old[i].index_plus_1);
	pthread_mutex_lock(&ids->mutex);
	ids->slots = slots;
	ids->mask = mask;
	ids->shift = shift;
	pthread_mutex_unlock(&ids->mutex);
	munmap(old, ids->slots_bytes);
	ids->slots_bytes = bytes;
	return 0;
}

int ids_insert(struct ids *ids, int64_t id, uint64_t hash, uint32_t *ret_index)
{
	uint32_t n = atomic_load_explicit(&ids->n, memory_order_relaxed);
	int r;

	if (n >= ids->max)
		return -ENOSPC;
	if ((uint64_t)n * 3 >= (ids->mask + 1) * 2) { /* load at most 2/3 */
		r = ids_grow(ids);
		if (r < 0)
			return r;
	}
	r = reserve_commit(&ids->external, ((size_t)n + 1) * sizeof(int64_t));
	if (r < 0)
		return r;
	((int64_t *)(void *)ids->external.base)[n] = id;
	pthread_mutex_lock(&ids->mutex);
	slots_put(ids->slots, ids->mask, ids->shift, hash, id, n + 1);
	atomic_store_explicit(&ids->n, n + 1, memory_order_release);
	pthread_mutex_unlock(&ids->mutex);
	*ret_index = n;
	return 0;
}

uint32_t ids_find_shared(struct ids *ids, int64_t id)
{
	uint64_t hash = ids_hash(ids, id);
	uint32_t index;

	pthread_mutex_lock(&ids->mutex);
	index = ids_find(ids, id, hash);
	pthread_mutex_unlock(&ids->mutex);
	return index;
}
