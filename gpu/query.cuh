/*
 * query.cuh: what the batches over the published item tables share (personalize.cu, topk.cu): a stream and memory of their own.
 *
 * They read pulled_V and pulled_bias, which only pull() writes, and what it enqueued has ended when it returns. So batches need not wait for a job: their
 * stream has the highest priority, and their blocks take the places that the job's blocks leave. Their memory comes and goes in the order of that stream, not
 * of the job's.
 */
#ifndef GPU_QUERY_CUH
#define GPU_QUERY_CUH

#include "gpu/backend.cuh"

struct query_work {
	cudaStream_t stream;
	/* of a batch, as the caller gave it; rows have the tables' stride */
	struct device_array rows, offsets, items;
	struct pinned_array host_rows;
	/* personalize: candidates; a record a user; tables of own items that are too long for shared memory; what comes of it */
	struct device_array candidates, users, own, fitted, rcs;
	struct pinned_array host_users, host_fitted, host_rcs;
	/* top-K: keys kept by each block; the answer */
	struct device_array kept, best_items, best_scores;
	size_t kept_bytes_max; /* of all blocks together; 0: topk.cu's own limit. Tests set it lower */
};

/* The memory of batches, made at the first call. 0, -ENOMEM, -EIO (the device is lost). */
int query_begin(struct backend *backend, struct query_work **ret_work);
/* Room for at least `bytes`; content is not kept. */
int query_room(struct backend *backend, struct device_array *array, size_t bytes, const char *what);
/* Copies `bytes` of host memory, pinned or not, behind what the work's stream holds. */
int query_send(struct backend *backend, struct device_array *array, const void *from, size_t bytes, const char *what);
/* rows [n, dim] to work->rows [n, stride], zero beyond dim. */
int query_send_rows(struct backend *backend, const float *rows, uint32_t n, const char *what);
/* Waits for everything enqueued on the work's stream. */
int query_wait(struct backend *backend, const char *what);

#endif
