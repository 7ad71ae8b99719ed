/*
 * array.h: growing arrays of zeroed memory, internal to trainer/learn. Data begins on a 64-byte boundary. Large ones are mappings of their own: they
 * grow without copying (mremap) and ask for huge pages; small ones are heap blocks, so that the sanitizers see past their ends.
 */
#ifndef TRAINER_LEARN_ARRAY_H
#define TRAINER_LEARN_ARRAY_H

#include <stddef.h>
#include <stdint.h>

/* Makes *array (NULL or from here) at least `bytes` long; keeps the content, new bytes are zero. 0, or -ENOMEM (*array unchanged). */
int array_grow(void **array, size_t bytes);
/* The same for n elements of `size` bytes; an array that is full grows by half. */
int array_reserve(void **array, uint64_t n, size_t size);
void array_free(void *array);
/* Bytes usable; 0 for NULL. */
size_t array_bytes(const void *array);

#endif
