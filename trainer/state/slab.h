/*
 * slab.h: blocks for the lists of users. Internal to trainer/state; one thread, the engine's.
 *
 * A bin holds blocks of one size. Chunks of 256 KiB belong to one bin at a time; every block knows its owner, so a chunk with few blocks can be
 * emptied by moving them (slab_compact()) and goes back to the pool: lists that grow leave no holes behind. Blocks above SLAB_BLOCK_MAX come from malloc.
 */
#ifndef TRAINER_STATE_SLAB_H
#define TRAINER_STATE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#define SLAB_CHUNK_BYTES ((size_t)256 << 10)
#define SLAB_BLOCK_MAX ((size_t)32 << 10)

struct slab_chunk;

struct slab_region {
	void *memory;
	size_t bytes;
};

struct slab_bin {
	size_t block_bytes;   /* multiple of 8; 0: bin not used */
	uint32_t per_chunk;   /* blocks of a chunk; 0: blocks come from malloc */
	uint64_t blocks;      /* in all its chunks */
	uint64_t used;
	struct slab_chunk *partial; /* chunks with a free block */
};

struct slab {
	struct slab_bin *bins;
	uint32_t n_bins;
	struct slab_chunk *free_chunks;
	struct slab_region *regions;
	size_t n_regions, regions_capacity;
	char *fresh;       /* chunks of the last region never used yet */
	size_t n_fresh;
	size_t chunks_used;  /* chunks that belong to a bin */
	size_t chunks_total;
	size_t big_bytes;    /* blocks from malloc */
	int wants_compact;   /* some bin has more free blocks than it should */
};

/* `block_bytes` [n_bins], copied. 0 or -ENOMEM. */
int slab_init(struct slab *slab, const size_t *block_bytes, uint32_t n_bins);
void slab_destroy(struct slab *slab);
/* A block, 8-byte aligned, content undefined. NULL when out of memory. */
void *slab_alloc(struct slab *slab, uint32_t bin, uint32_t owner);
void slab_free(struct slab *slab, uint32_t bin, void *block);
/* A block will be freed soon. */
static inline void slab_prefetch(const void *block)
{
	__builtin_prefetch((const void *)((uintptr_t)block & ~(uintptr_t)(SLAB_CHUNK_BYTES - 1)), 1);
}

/* Moves owner's block: copy from `from` to `to` and change the reference. */
typedef void (*slab_move_fn)(void *ctx, uint32_t bin, uint32_t owner, const void *from, void *to);
/* Empties at most `chunks_max` chunks of bins in which more than 1/8 (and a chunk's worth) is free. `prefetch` is told owners a little ahead. */
void slab_compact(struct slab *slab, uint32_t chunks_max, slab_move_fn move, void (*prefetch)(void *ctx, uint32_t owner), void *ctx);
/* Bytes of all chunks in use and big blocks. */
size_t slab_bytes(const struct slab *slab);

#endif
