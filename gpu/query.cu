/*
 * query.cu: see query.cuh. The thread that calls the backend.
 */
#include "gpu/query.cuh"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int query_begin(struct backend *backend, struct query_work **ret_work)
{
	int least = 0, greatest = 0;
	int rc = gpu_check(&backend->fault, cudaSuccess, "a batch");
	if (rc < 0)
		return rc;
	if (!backend->query) {
		struct query_work *work = static_cast<struct query_work *>(calloc(1, sizeof *work));
		if (!work)
			return -ENOMEM;
		rc = gpu_check(&backend->fault, cudaDeviceGetStreamPriorityRange(&least, &greatest), "a stream for batches");
		if (rc == 0)
			rc = gpu_check(&backend->fault, cudaStreamCreateWithPriority(&work->stream, cudaStreamNonBlocking, greatest), "a stream for batches");
		if (rc < 0) {
			free(work);
			return rc;
		}
		backend->query = work;
	}
	*ret_work = backend->query;
	return 0;
}

void query_work_free(struct query_work *work)
{
	if (!work)
		return;
	(void)cudaStreamSynchronize(work->stream);
	struct device_array *arrays[] = {&work->rows, &work->offsets, &work->items, &work->candidates, &work->users, &work->own,
	                                 &work->fitted, &work->rcs, &work->kept, &work->best_items, &work->best_scores};
	for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
		device_array_free(arrays[i]);
	pinned_array_free(&work->host_rows);
	pinned_array_free(&work->host_users);
	pinned_array_free(&work->host_fitted);
	pinned_array_free(&work->host_rcs);
	(void)cudaStreamDestroy(work->stream);
	free(work);
}

int query_room(struct backend *backend, struct device_array *array, size_t bytes, const char *what)
{
	if (bytes <= array->bytes)
		return 0;
	size_t more = array->bytes + array->bytes / 2;
	size_t want = more > bytes ? more : bytes;
	if (array->data) /* first, so that the new one may take its place */
		(void)gpu_check(&backend->fault, cudaFreeAsync(array->data, backend->query->stream), what);
	array->data = NULL;
	array->bytes = 0;
	int rc = gpu_check(&backend->fault, cudaMallocAsync(&array->data, want, backend->query->stream), what);
	if (rc < 0) {
		array->data = NULL;
		return rc;
	}
	array->bytes = want;
	return 0;
}

int query_send(struct backend *backend, struct device_array *array, const void *from, size_t bytes, const char *what)
{
	int rc = query_room(backend, array, bytes, what);
	if (rc < 0 || bytes == 0)
		return rc;
	return gpu_check(&backend->fault, cudaMemcpyAsync(array->data, from, bytes, cudaMemcpyHostToDevice, backend->query->stream), what);
}

int query_send_rows(struct backend *backend, const float *rows, uint32_t n, const char *what)
{
	struct query_work *work = backend->query;
	const size_t dim = backend->dim, stride = backend->stride, bytes = n * stride * sizeof(float);
	int rc = pinned_array_grow(backend, &work->host_rows, bytes);
	if (rc < 0)
		return rc;
	float *padded = static_cast<float *>(work->host_rows.data);
	for (size_t k = 0; k < n; k++) {
		memcpy(padded + k * stride, rows + k * dim, dim * sizeof(float));
		memset(padded + k * stride + dim, 0, (stride - dim) * sizeof(float));
	}
	return query_send(backend, &work->rows, padded, bytes, what);
}

int query_wait(struct backend *backend, const char *what)
{
	return gpu_check(&backend->fault, cudaStreamSynchronize(backend->query->stream), what);
}
