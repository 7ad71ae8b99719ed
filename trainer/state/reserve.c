/*
 * reserve.c: arrays that grow without moving (see reserve.h).
 *
 * Address space is mapped without access rights, which costs nothing and counts against no limit of memory; committing makes the next steps of it
 * writable. Steps are 2 MiB, so that huge pages fit and system calls are rare. The kernel hands out zeroed pages when they are first touched.
 *
 * Runs on the engine's thread. Other threads read committed entries whose number was published to them with release order.
 */
#include "trainer/state/reserve.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#define RESERVE_STEP ((size_t)2 << 20)

int reserve_open(struct reserve *reserve, size_t bytes, int huge)
{
	size_t size = (bytes + RESERVE_STEP - 1) / RESERVE_STEP * RESERVE_STEP;
	size_t mapped = size + RESERVE_STEP;
	struct reserve out = {.size = size, .mapped = mapped, .huge = huge};

	if (bytes == 0) {
		*reserve = (struct reserve){0};
		return 0;
	}
	if (size < bytes || mapped < size)
		return -ENOMEM;
	out.mapping = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (out.mapping == MAP_FAILED)
		return -ENOMEM;
	out.base = (char *)(((uintptr_t)out.mapping + RESERVE_STEP - 1) / RESERVE_STEP * RESERVE_STEP);
	*reserve = out;
	return 0;
}

int reserve_commit(struct reserve *reserve, size_t bytes)
{
	size_t want = (bytes + RESERVE_STEP - 1) / RESERVE_STEP * RESERVE_STEP;
	char *from = reserve->base + reserve->committed;

	if (bytes <= reserve->committed)
		return 0;
	if (bytes > reserve->size || want < bytes)
		return -ENOMEM;
	if (mprotect(from, want - reserve->committed, PROT_READ | PROT_WRITE) != 0)
		return -ENOMEM;
	if (reserve->huge)
		(void)madvise(from, want - reserve->committed, MADV_HUGEPAGE); /* advice only */
	reserve->committed = want;
	return 0;
}

void reserve_close(struct reserve *reserve)
{
	if (reserve->mapping)
		munmap(reserve->mapping, reserve->mapped);
	*reserve = (struct reserve){0};
}
