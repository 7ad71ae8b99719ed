/*
 * query.cuh: what the batches over the published item tables share (personalize.cu, topk.cu): a stream and memory of their own.
 *
 * They read pulled_V and pulled_bias, which only pull() writes, and what it enqueued has ended when it returns. So batches need not wait for a job: their
 * stream has the highest priority, and their blocks take the places that the job's blocks leave. Their memory comes and goes in the order of that stream, not
 * of the job's.
 *
 * The blocks of a job may leave no place for long, or for ever when it hangs. So a batch may be waited for with a limit; one that is given up stays enqueued, and
 * until it has ended no other begins, nor is anything that it uses touched. Pinned memory is taken and given back only while no job runs, since CUDA may wait
 * for the device in both.
 */
#ifndef GPU_QUERY_CUH
#define GPU_QUERY_CUH

#include "gpu/backend.cuh"

/* What a kernel of personalize.cu is told of each user. */
struct personalize_user {
	uint64_t seed;
	uint64_t own; /* where his table begins in global memory; UINT64_MAX: it is in shared memory */
};

struct query_work {
	cudaStream_t stream;
	cudaEvent_t done;       /* behind the batch */
	int given_up;           /* the last batch was, and may be under way */
	uint32_t users_room;    /* users that the pinned memory holds */
	uint32_t users_wanted;  /* users of a batch that found no pinned room while a job ran; 0: none */
	/* of a batch, as the caller gave it; rows have the tables' stride */
	struct device_array rows, offsets, items;
	struct pinned_array host_rows;
	/* personalize: candidates; a record a user; tables of own items that are too long for shared memory; what comes of it */
	struct device_array candidates, users, own, fitted, rcs;
	uint32_t n_candidates; /* of the training set's own, which only grow: the first so many are there; 0: others may be */
	struct pinned_array host_users, host_fitted, host_rcs;
	/* top-K: keys kept by each block; the answer */
	struct device_array kept, best_items, best_scores;
	size_t kept_bytes_max; /* of all blocks together; 0: topk.cu's own limit. Tests set it lower */
};

/* At open. */
int query_open(struct backend *backend);
/* 0; -EAGAIN: a batch that was given up has not ended; -EIO. */
int query_begin(struct backend *backend);
/* What is enqueued on backend->stream from here on comes after a batch that was given up: the tables that it reads may be written. */
int query_passed(struct backend *backend);
/* Pinned room for n users. 0; -EAGAIN: a job runs, it will be made before the next one; -ENOMEM; -EIO. */
int query_users_room(struct backend *backend, uint32_t n);
/* Makes the room that was asked for while a job ran. 0, also where there is none to be had; -EIO. */
int query_users_room_noted(struct backend *backend);
/* Room for at least `bytes`; content is not kept. */
int query_room(struct backend *backend, struct device_array *array, size_t bytes, const char *what);
/* Copies `bytes` of host memory, pinned or not, behind what the work's stream holds. */
int query_send(struct backend *backend, struct device_array *array, const void *from, size_t bytes, const char *what);
/* rows [n, dim] to work->rows [n, stride], zero beyond dim; after query_users_room(). */
int query_send_rows(struct backend *backend, const float *rows, uint32_t n, const char *what);
/* Waits for everything enqueued on the work's stream, about wait_us at most when that is not 0. -EAGAIN: it was given up. */
int query_wait(struct backend *backend, uint32_t wait_us, const char *what);

#endif
