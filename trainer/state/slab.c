/*
 * slab.c: blocks for the lists of users (see slab.h).
 *
 * Regions of up to 32 MiB on huge pages are cut into chunks of 256 KiB, aligned to their size, so that a block finds its chunk by its address. A chunk
 * begins with its header and the owners of its blocks. A bin allocates from its chunks with free blocks, and takes a chunk from the pool when none is left.
 *
 * Lists grow through the sizes, and users do so at about the same pace: without more, the sizes that everybody has left would stay behind
 * as free blocks. So when more than an eighth of a bin is free, a sparse chunk's blocks are moved into other chunks of the bin and the chunk returns
 * to the pool. Moving costs less than one block per block freed.
 *
 * Runs on the engine's thread only. Memory of a region is returned at the end.
 */
#include "trainer/state/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NO_BLOCK UINT32_MAX
#define NO_OWNER UINT32_MAX
#define VICTIMS_LOOKED_AT 16u
#define PREFETCH_AHEAD 8u
#define REGION_CHUNKS_FIRST 8u /* doubles with every region */
#define REGION_CHUNKS_MAX 128u

struct slab_chunk {
	struct slab_chunk *prev, *next; /* in the bin's partial list; next also in the pool */
	uint32_t bin;
	uint32_t used;
	uint32_t fresh;     /* blocks from here on were never used */
	uint32_t free_head; /* free blocks below fresh: linked through their first bytes */
	uint32_t owners[];  /* [per_chunk]; NO_OWNER: free */
};

static size_t blocks_offset(uint32_t per_chunk)
{
	return (sizeof(struct slab_chunk) + per_chunk * sizeof(uint32_t) + 63) / 64 * 64;
}

static uint32_t blocks_per_chunk(size_t block_bytes)
{
	uint32_t n;

	if (block_bytes == 0 || block_bytes > SLAB_BLOCK_MAX)
		return 0;
	n = (uint32_t)((SLAB_CHUNK_BYTES - sizeof(struct slab_chunk)) / (block_bytes + sizeof(uint32_t)));
	while (blocks_offset(n) + n * block_bytes > SLAB_CHUNK_BYTES)
		n--;
	return n;
}

int slab_init(struct slab *slab, const size_t *block_bytes, uint32_t n_bins)
{
	memset(slab, 0, sizeof(*slab));
	slab->bins = calloc(n_bins ? n_bins : 1, sizeof(*slab->bins));
	if (!slab->bins)
		return -ENOMEM;
	slab->n_bins = n_bins;
	for (uint32_t i = 0; i < n_bins; i++) {
		slab->bins[i].block_bytes = (block_bytes[i] + 7) / 8 * 8;
		slab->bins[i].per_chunk = blocks_per_chunk(slab->bins[i].block_bytes);
	}
	return 0;
}

void slab_destroy(struct slab *slab)
{
	for (size_t i = 0; i < slab->n_regions; i++)
		munmap(slab->regions[i].memory, slab->regions[i].bytes);
	free(slab->regions);
	free(slab->bins);
	memset(slab, 0, sizeof(*slab));
}

static int region_add(struct slab *slab)
{
	size_t n_chunks = slab->chunks_total < REGION_CHUNKS_FIRST ? REGION_CHUNKS_FIRST : slab->chunks_total;
	size_t bytes;
	void *region;

	if (slab->n_regions == slab->regions_capacity) {
		size_t capacity = slab->regions_capacity ? slab->regions_capacity * 2 : 16;
		struct slab_region *regions = realloc(slab->regions, capacity * sizeof(*regions));
		if (!regions)
			return -ENOMEM;
		slab->regions = regions;
		slab->regions_capacity = capacity;
	}
	n_chunks = n_chunks < REGION_CHUNKS_MAX ? n_chunks : REGION_CHUNKS_MAX;
	bytes = (n_chunks + 1) * SLAB_CHUNK_BYTES; /* one more, to align */
	region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (region == MAP_FAILED)
		return -ENOMEM;
	(void)madvise(region, bytes, MADV_HUGEPAGE); /* advice only */
	slab->regions[slab->n_regions++] = (struct slab_region){region, bytes};
	slab->fresh = (char *)(((uintptr_t)region + SLAB_CHUNK_BYTES - 1) & ~(uintptr_t)(SLAB_CHUNK_BYTES - 1));
	slab->n_fresh = n_chunks;
	slab->chunks_total += slab->n_fresh;
	return 0;
}

static void partial_push(struct slab_bin *bin, struct slab_chunk *chunk)
{
	chunk->prev = NULL;
	chunk->next = bin->partial;
	if (bin->partial)
		bin->partial->prev = chunk;
	bin->partial = chunk;
}

static void partial_remove(struct slab_bin *bin, struct slab_chunk *chunk)
{
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		bin->partial = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
}

static int chunk_take(struct slab *slab, uint32_t bin_index)
{
	struct slab_bin *bin = &slab->bins[bin_index];
	struct slab_chunk *chunk = slab->free_chunks;

	if (chunk) {
		slab->free_chunks = chunk->next;
	} else {
		if (slab->n_fresh == 0) {
			int r = region_add(slab);
			if (r < 0)
				return r;
		}
		chunk = (struct slab_chunk *)(void *)slab->fresh;
		slab->fresh += SLAB_CHUNK_BYTES;
		slab->n_fresh--;
	}
	chunk->bin = bin_index;
	chunk->used = 0;
	chunk->fresh = 0;
	chunk->free_head = NO_BLOCK;
	partial_push(bin, chunk);
	bin->blocks += bin->per_chunk;
	slab->chunks_used++;
	return 0;
}

/* The chunk is empty and in no list. */
static void chunk_release(struct slab *slab, struct slab_bin *bin, struct slab_chunk *chunk)
{
	bin->blocks -= bin->per_chunk;
	chunk->next = slab->free_chunks;
	slab->free_chunks = chunk;
	slab->chunks_used--;
}

static char *block_at(const struct slab_bin *bin, struct slab_chunk *chunk, uint32_t index)
{
	return (char *)chunk + blocks_offset(bin->per_chunk) + index * bin->block_bytes;
}

void *slab_alloc(struct slab *slab, uint32_t bin_index, uint32_t owner)
{
	struct slab_bin *bin = &slab->bins[bin_index];
	struct slab_chunk *chunk;
	uint32_t index;
	char *block;

	if (bin->per_chunk == 0) {
		block = malloc(bin->block_bytes);
		if (block)
			slab->big_bytes += bin->block_bytes;
		return block;
	}
	if (!bin->partial && chunk_take(slab, bin_index) < 0)
		return NULL;
	chunk = bin->partial;
	index = chunk->free_head; // NOLINT(clang-analyzer-core.NullDereference): chunk_take() set it, which the analyzer does not follow
	if (index != NO_BLOCK) {
		block = block_at(bin, chunk, index);
		memcpy(&chunk->free_head, block, sizeof(chunk->free_head));
	} else {
		index = chunk->fresh++;
		block = block_at(bin, chunk, index);
	}
	chunk->owners[index] = owner;
	chunk->used++;
	bin->used++;
	if (chunk->used == bin->per_chunk)
		partial_remove(bin, chunk);
	return block;
}

static int bin_is_sparse(const struct slab_bin *bin)
{
	return bin->blocks - bin->used > bin->per_chunk + bin->blocks / 8;
}

void slab_free(struct slab *slab, uint32_t bin_index, void *memory)
{
	struct slab_bin *bin = &slab->bins[bin_index];
	struct slab_chunk *chunk;
	uint32_t index;

	if (bin->per_chunk == 0) {
		slab->big_bytes -= bin->block_bytes;
		free(memory);
		return;
	}
	chunk = (struct slab_chunk *)(void *)((uintptr_t)memory & ~(uintptr_t)(SLAB_CHUNK_BYTES - 1));
	index = (uint32_t)((size_t)((char *)memory - block_at(bin, chunk, 0)) / bin->block_bytes);
	if (chunk->used == bin->per_chunk)
		partial_push(bin, chunk);
	memcpy(memory, &chunk->free_head, sizeof(chunk->free_head));
	chunk->free_head = index;
	chunk->owners[index] = NO_OWNER;
	chunk->used--;
	bin->used--;
	if (chunk->used == 0) {
		partial_remove(bin, chunk);
		chunk_release(slab, bin, chunk);
	} else if (bin_is_sparse(bin)) {
		slab->wants_compact = 1;
	}
}

/* The emptiest of the first few partial chunks. */
static struct slab_chunk *victim_of(const struct slab_bin *bin)
{
	struct slab_chunk *victim = bin->partial;
	struct slab_chunk *chunk = bin->partial;

	for (uint32_t looked = 0; chunk && looked < VICTIMS_LOOKED_AT; looked++, chunk = chunk->next)
		if (chunk->used < victim->used)
			victim = chunk;
	return victim;
}

/* More than a chunk's worth is free in the bin, so the other chunks have room for all of the victim's blocks. */
static void chunk_empty(struct slab *slab, uint32_t bin_index, slab_move_fn move, void (*prefetch)(void *ctx, uint32_t owner), void *ctx)
{
	struct slab_bin *bin = &slab->bins[bin_index];
	struct slab_chunk *victim = victim_of(bin);

	partial_remove(bin, victim);
	for (uint32_t i = 0; i < victim->fresh; i++) {
		uint32_t owner = victim->owners[i];
		if (i + PREFETCH_AHEAD < victim->fresh && victim->owners[i + PREFETCH_AHEAD] != NO_OWNER)
			prefetch(ctx, victim->owners[i + PREFETCH_AHEAD]);
		if (owner == NO_OWNER)
			continue;
		void *to = slab_alloc(slab, bin_index, owner); /* never takes a new chunk */
		move(ctx, bin_index, owner, block_at(bin, victim, i), to);
		bin->used--;
	}
	victim->used = 0;
	chunk_release(slab, bin, victim);
}

void slab_compact(struct slab *slab, uint32_t chunks_max, slab_move_fn move, void (*prefetch)(void *ctx, uint32_t owner), void *ctx)
{
	if (!slab->wants_compact)
		return;
	for (uint32_t i = 0; i < slab->n_bins; i++)
		while (slab->bins[i].per_chunk != 0 && bin_is_sparse(&slab->bins[i])) {
			if (chunks_max-- == 0)
				return;
			chunk_empty(slab, i, move, prefetch, ctx);
		}
	slab->wants_compact = 0;
}

size_t slab_bytes(const struct slab *slab)
{
	return slab->chunks_used * SLAB_CHUNK_BYTES + slab->big_bytes;
}
