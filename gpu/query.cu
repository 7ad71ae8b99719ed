/*
 * query.cu: see query.cuh. The thread that calls the backend.
 */
#include "gpu/query.cuh"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define USERS_AT_OPEN 1024u
#define LOOK_US 20 /* between two looks at a batch */

static int64_t now_us(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int query_open(struct backend *backend)
{
	int least = 0, greatest = 0;
	struct query_work *work = static_cast<struct query_work *>(calloc(1, sizeof *work));
	if (!work)
		return -ENOMEM;
	backend->query = work;
	int rc = gpu_check(&backend->fault, cudaDeviceGetStreamPriorityRange(&least, &greatest), "a stream for batches");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaStreamCreateWithPriority(&work->stream, cudaStreamNonBlocking, greatest), "a stream for batches");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaEventCreateWithFlags(&work->done, cudaEventDisableTiming), "an event");
	return rc < 0 ? rc : query_users_room(backend, USERS_AT_OPEN);
}

int query_begin(struct backend *backend)
{
	struct query_work *work = backend->query;
	int rc = gpu_check(&backend->fault, cudaSuccess, "a batch");
	if (rc < 0 || !work->given_up)
		return rc;
	cudaError_t code = cudaEventQuery(work->done);
	if (code == cudaErrorNotReady)
		return -EAGAIN;
	work->given_up = 0;
	return gpu_check(&backend->fault, code, "a batch of users");
}

int query_passed(struct backend *backend)
{
	const struct query_work *work = backend->query;
	if (!work->given_up)
		return 0;
	return gpu_check(&backend->fault, cudaStreamWaitEvent(backend->stream, work->done, 0), "a batch of users");
}

static int pinned_room(struct backend *backend, size_t n)
{
	struct query_work *work = backend->query;
	const size_t row = backend->stride * sizeof(float);
	int rc = pinned_array_grow(backend, &work->host_rows, n * row);
	if (rc == 0)
		rc = pinned_array_grow(backend, &work->host_fitted, n * row);
	if (rc == 0)
		rc = pinned_array_grow(backend, &work->host_users, n * sizeof(struct personalize_user));
	return rc < 0 ? rc : pinned_array_grow(backend, &work->host_rcs, n * sizeof(int32_t));
}

int query_users_room(struct backend *backend, uint32_t n)
{
	struct query_work *work = backend->query;
	if (n <= work->users_room)
		return 0;
	if (backend->running) {
		work->users_wanted = n > work->users_wanted ? n : work->users_wanted;
		return -EAGAIN;
	}
	int rc = pinned_room(backend, n);
	if (rc == 0)
		work->users_room = n;
	return rc;
}

int query_users_room_noted(struct backend *backend)
{
	struct query_work *work = backend->query;
	const uint32_t n = work->users_wanted;
	if (work->given_up) /* it may be using what is there */
		return 0;
	work->users_wanted = 0;
	int rc = query_users_room(backend, n);
	return rc == -ENOMEM ? 0 : rc;
}

void query_work_free(struct query_work *work)
{
	if (!work)
		return;
	if (work->stream)
		(void)cudaStreamSynchronize(work->stream);
	struct device_array *arrays[] = {&work->rows, &work->offsets, &work->items, &work->candidates, &work->users, &work->own,
	                                 &work->fitted, &work->rcs, &work->kept, &work->best_items, &work->best_scores};
	for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
		device_array_free(arrays[i]);
	pinned_array_free(&work->host_rows);
	pinned_array_free(&work->host_users);
	pinned_array_free(&work->host_fitted);
	pinned_array_free(&work->host_rcs);
	if (work->done)
		(void)cudaEventDestroy(work->done);
	if (work->stream)
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
	float *padded = static_cast<float *>(work->host_rows.data);
	for (size_t k = 0; k < n; k++) {
		memcpy(padded + k * stride, rows + k * dim, dim * sizeof(float));
		memset(padded + k * stride + dim, 0, (stride - dim) * sizeof(float));
	}
	return query_send(backend, &work->rows, padded, bytes, what);
}

int query_wait(struct backend *backend, uint32_t wait_us, const char *what)
{
	struct query_work *work = backend->query;
	const struct timespec pause = {0, LOOK_US * 1000};
	const int64_t began_us = now_us();
	if (!wait_us)
		return gpu_check(&backend->fault, cudaStreamSynchronize(work->stream), what);
	cudaError_t code = cudaEventRecord(work->done, work->stream);
	if (code == cudaSuccess)
		code = cudaEventQuery(work->done);
	else /* nothing tells of its end: nobody may touch its memory before */
		(void)cudaStreamSynchronize(work->stream);
	while (code == cudaErrorNotReady) {
		if (now_us() - began_us >= wait_us) {
			work->given_up = 1;
			return -EAGAIN;
		}
		(void)nanosleep(&pause, NULL);
		code = cudaEventQuery(work->done);
	}
	return gpu_check(&backend->fault, code, what);
}
