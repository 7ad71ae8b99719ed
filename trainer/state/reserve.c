/*
 * reserve.c: arrays that grow without moving (see reserve.h).
 *
 * Address space is mapped without access rights, which costs nothing and counts against no limit of memory; committing makes the next steps of it
 * writable. Steps are 2 MiB (64 KiB in a small array), so that huge pages fit and system calls are rare. The kernel hands out zeroed pages when they are first touched.
 *
 * Runs on the engine's thread. Other threads read committed entries whose number was published to them with release order.
 */
#include "trainer/state/reserve.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#define STEP_LARGE ((size_t)2 << 20)
#define STEP_SMALL ((size_t)64 << 10)

int reserve_open(struct reserve *reserve, size_t bytes, int huge)
{
	size_t step = bytes < STEP_LARGE ? STEP_SMALL : STEP_LARGE;
	size_t size = (bytes + step - 1) / step * step;
	size_t mapped = size + step;
	struct reserve out = {.size = size, .step = step, .mapped = mapped, .huge = huge && step == STEP_LARGE};

	if (bytes == 0) {
		*reserve = (struct reserve){0};
		return 0;
	}
	if (size < bytes || mapped < size)
		return -ENOMEM;
	out.mapping = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (out.mapping == MAP_FAILED)
		return -ENOMEM;
	out.base = (char *)(((uintptr_t)out.mapping + step - 1) / step * step);
	*reserve = out;
	return 0;
}

int reserve_commit(struct reserve *reserve, size_t bytes)
{
	char *from = reserve->base + reserve->committed;
	size_t want;

	if (bytes <= reserve->committed)
		return 0;
	if (bytes > reserve->size)
		return -ENOMEM;
	want = (bytes + reserve->step - 1) / reserve->step * reserve->step;
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
