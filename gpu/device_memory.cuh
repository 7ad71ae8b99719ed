/*
 * device_memory.cuh: growing arrays in device memory, and pinned host memory for copies.
 *
 * Device memory comes and goes in the order of the backend's stream (cudaMallocAsync), so the host waits neither for growing nor for giving up.
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
 * Makes *array at least `bytes` long (capacity grows by 1.5, or by less where memory is short); the first `keep` bytes are copied over on backend->stream. New
 * memory is not cleared. 0, -ENOMEM (unchanged), -EIO.
 */
int device_array_grow(struct backend *backend, struct device_array *array, size_t bytes, size_t keep, const char *what);
/* Gives the memory back when the stream has passed this point. */
void device_array_release(struct backend *backend, struct device_array *array);
/* At once, for closing: nothing may be using it. */
void device_array_free(struct device_array *array);
/* Capacity grows by 1.5. 0, -ENOMEM, -EIO. The old memory must not be in use by a copy; no job runs, since CUDA may wait for the device. */
int pinned_array_grow(struct backend *backend, struct pinned_array *array, size_t bytes);
void pinned_array_free(struct pinned_array *array);

#endif
