/*
 * device_memory.cuh: growing arrays in device memory, and pinned host memory for copies.
 */
#ifndef GPU_DEVICE_MEMORY_CUH
#define GPU_DEVICE_MEMORY_CUH

#include "gpu/device.cuh"

struct backend;

struct device_array {
	void *data;
	size_t bytes; /* allocated */
};

/* Pinned host memory; grows, content is not kept. */
struct pinned_array {
	void *data;
	size_t bytes;
};

/*
 * Makes *array at least `bytes` long (capacity grows by 1.5); the first `keep` bytes are copied over on backend->stream, so neither host nor running jobs wait
 * (memory given up is freed when the stream has passed this point). New memory is not cleared. 0, -ENOMEM (unchanged), -EIO.
 */
int device_array_grow(struct backend *backend, struct device_array *array, size_t bytes, size_t keep, const char *what);
void device_array_free(struct device_array *array);
int pinned_array_grow(struct backend *backend, struct pinned_array *array, size_t bytes);
void pinned_array_free(struct pinned_array *array);

#endif
