/*
 * array.c: see array.h. A 64-byte head before the data holds the size, so that an array that grew although its owner's other arrays could not is
 * still freed whole. Any thread; an array belongs to one owner.
 */
#include "trainer/learn/array.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HEAD 64u
#define MAPPED_FROM (4u << 20)
#define HUGE_PAGE (2u << 20)

struct head {
	size_t bytes; /* head included */
	int mapped;
};

static struct head *head_of(const void *array)
{
	return (struct head *)(uintptr_t)((const char *)array - HEAD);
}

static void *map_new(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return NULL;
	(void)madvise(map, bytes, MADV_HUGEPAGE);
	return map;
}

/* A fresh zeroed block of `bytes`, head included and filled. */
static struct head *block_new(size_t bytes)
{
	int mapped = bytes >= MAPPED_FROM;
	struct head *head = mapped ? map_new(bytes) : aligned_alloc(HEAD, bytes);
	if (!head)
		return NULL;
	if (!mapped)
		memset(head, 0, bytes);
	head->bytes = bytes;
	head->mapped = mapped;
	return head;
}

int array_grow(void **array, size_t bytes)
{
	size_t have = array_bytes(*array);
	if (*array && have >= bytes)
		return 0;
	if (bytes > SIZE_MAX / 2)
		return -ENOMEM;
	size_t whole = (bytes + HEAD + HEAD - 1) / HEAD * HEAD;
	if (whole >= MAPPED_FROM)
		whole = (whole + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	struct head *old = *array ? head_of(*array) : NULL;
	struct head *head;
	if (old && old->mapped) {
		void *map = mremap(old, old->bytes, whole, MREMAP_MAYMOVE);
		if (map == MAP_FAILED)
			return -ENOMEM;
		(void)madvise(map, whole, MADV_HUGEPAGE);
		head = map;
		head->bytes = whole;
	} else {
		head = block_new(whole);
		if (!head)
			return -ENOMEM;
		if (old && have)
			memcpy((char *)head + HEAD, *array, have);
		array_free(*array);
	}
	*array = (char *)head + HEAD;
	return 0;
}

int array_reserve(void **array, uint64_t n, size_t size)
{
	uint64_t have = array_bytes(*array) / size;
	if (n <= have)
		return 0;
	uint64_t want = have + have / 2;
	return array_grow(array, (want > n ? want : n) * size);
}

void array_free(void *array)
{
	if (!array)
		return;
	struct head *head = head_of(array);
	if (head->mapped)
		munmap(head, head->bytes);
	else
		free(head);
}

size_t array_bytes(const void *array)
{
	return array ? head_of(array)->bytes - HEAD : 0;
}
