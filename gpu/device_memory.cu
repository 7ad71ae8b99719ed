/*
 * device_memory.cu: see device_memory.cuh. The thread that calls the backend.
 */
#include "gpu/device_memory.cuh"

#include <errno.h>

#include "gpu/backend.cuh"

/* Takes `want` bytes, or `need` when so much is not there. */
static int take(struct backend *backend, size_t want, size_t need, const char *what, struct device_array *ret)
{
	void *data = NULL;
	cudaError_t code = cudaMallocAsync(&data, want, backend->stream);
	if (code == cudaErrorMemoryAllocation && want > need) {
		(void)cudaGetLastError();
		want = need;
		code = cudaMallocAsync(&data, want, backend->stream);
	}
	int rc = gpu_check(&backend->fault, code, what);
	if (rc == 0) {
		ret->data = data;
		ret->bytes = want;
	}
	return rc;
}

int device_array_grow(struct backend *backend, struct device_array *array, size_t bytes, size_t keep, const char *what)
{
	if (bytes <= array->bytes)
		return 0;
	struct device_array grown = {NULL, 0};
	size_t more = array->bytes + array->bytes / 2;
	int rc = take(backend, more > bytes ? more : bytes, bytes, what, &grown);
	if (rc < 0)
		return rc;
	if (keep)
		rc = gpu_check(&backend->fault, cudaMemcpyAsync(grown.data, array->data, keep, cudaMemcpyDeviceToDevice, backend->stream), what);
	if (rc < 0) { /* the device is lost */
		device_array_release(backend, &grown);
		return rc;
	}
	device_array_release(backend, array);
	*array = grown;
	return 0;
}

void device_array_release(struct backend *backend, struct device_array *array)
{
	cudaError_t code = array->data ? cudaFreeAsync(array->data, backend->stream) : cudaSuccess;
	(void)gpu_check(&backend->fault, code, "giving memory back");
	if (code != cudaSuccess) { /* cudaFree takes it for granted that nobody uses such memory any more */
		(void)cudaStreamSynchronize(backend->stream);
		(void)cudaFree(array->data);
	}
	array->data = NULL;
	array->bytes = 0;
}

void device_array_free(struct device_array *array)
{
	if (array->data)
		(void)cudaFree(array->data);
	array->data = NULL;
	array->bytes = 0;
}

int pinned_array_grow(struct backend *backend, struct pinned_array *array, size_t bytes)
{
	if (bytes <= array->bytes)
		return 0;
	void *data = NULL;
	size_t more = array->bytes + array->bytes / 2;
	bytes = more > bytes ? more : bytes;
	int rc = gpu_check(&backend->fault, cudaHostAlloc(&data, bytes, cudaHostAllocDefault), "pinned memory");
	if (rc < 0)
		return rc;
	pinned_array_free(array);
	array->data = data;
	array->bytes = bytes;
	return 0;
}

void pinned_array_free(struct pinned_array *array)
{
	if (array->data)
		(void)cudaFreeHost(array->data);
	array->data = NULL;
	array->bytes = 0;
}
