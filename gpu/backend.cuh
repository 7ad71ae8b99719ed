/*
 * backend.cuh: the CUDA backend's inside, for the files of gpu/ (backend.h is its outside). One host thread calls, the engine's.
 *
 * Streams. `stream` runs jobs, growth and everything else that touches memory which kernels of jobs read, in order. `copies` does nothing but carry bytes
 * between pinned host memory and staging memory of the device; events keep the two in step (transfer.cuh). So a running job never sees half a change. Queries
 * have a stream of their own (query.cuh). A backend whose fault is set refuses everything but close.
 */
#ifndef GPU_BACKEND_CUH
#define GPU_BACKEND_CUH

#include "gpu/device.cuh"
#include "gpu/device_memory.cuh"
#include "gpu/view.cuh"
#include "trainer/learn/backend.h"

struct set_mirror;  /* set_mirror.cuh */
struct transfer;    /* transfer.cuh: the way to the device and back */
struct table_work;  /* backend_tables.cu: memory of pull and push */
struct exact_work;  /* train_exact.cuh: memory of the deterministic mode */
struct query_work;  /* personalize and top-K: memory of batches */

struct backend {
	const struct learn_options *options; /* the learner's; read when a job starts */
	const struct training_set *set;      /* the learner's */
	const int64_t *user_ids, *item_ids;  /* the state's, of wanted_users and wanted_items */
	int device;
	struct cudaDeviceProp properties;
	char driver[32]; /* its version; "" unknown */
	struct gpu_fault fault;
	cudaStream_t stream, copies;
	cudaEvent_t job_began, job_done;
	uint64_t memory_bytes, memory_used_bytes; /* of the device, as last asked */

	/* working tables */
	struct device_array U, V, users, items; /* elements of float or uint16_t; struct gpu_user_side; struct gpu_item_side */
	uint32_t dim, stride, n_users, n_items;
	uint32_t wanted_users, wanted_items; /* as last asked for; more than there are after growth while a job ran */
	uint32_t epoch;  /* moves at each pull */
	uint64_t passes; /* passes the Adagrad sums have forgotten for */
	/* the item tables as the last pull saw them, for personalize and topk: fp32 [pulled_items, stride], biases */
	struct device_array pulled_V, pulled_bias;
	uint32_t pulled_items;

	struct transfer *transfer;
	struct table_work *table_work;
	struct set_mirror *mirror;
	struct exact_work *exact;
	struct query_work *query;

	/* the job under way, or the last one */
	int running;
	uint64_t job_draws;
	struct device_array sums; /* struct job_sums [1] */
	struct job_sums *host_sums; /* pinned [1] */
	struct train_report last;
	double triples_per_us; /* as measured by the last jobs; sizes a job with a time limit */
};

#define GPU_BLOCK 256u
/* Blocks of GPU_BLOCK threads for n elements; at least 1, and no more than fill the device a few times: kernels stride over the rest. */
uint32_t gpu_blocks(const struct backend *backend, uint64_t n);
struct tables_view backend_tables_view(const struct backend *backend);
/* The stride for a dim: 16, 32, 64, 128, 256, 384 or 512. */
uint32_t gpu_stride_of(uint32_t dim);

/* backend_tables.cu */
int table_work_open(struct backend *backend);
/* Loads the kernels and runs one that does nothing: a program that was not compiled for this device fails here and not in its first job. */
int table_work_try(struct backend *backend);
void table_work_free(struct table_work *work);
/* While a job runs it only takes note of what is wanted. */
int cuda_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids);
/* Makes the rows that growth took note of; before anything that reads rows. No job runs. */
int cuda_grow_noted(struct backend *backend);
int cuda_pull(struct backend *backend, struct tables *copy);
int cuda_push(struct backend *backend, const struct tables *copy);
/* The Adagrad sums lose their share for every pass ended since the last job; enqueued. */
int cuda_forget(struct backend *backend);

/* set_mirror.cu */
int set_mirror_open(struct backend *backend);
void set_mirror_close(struct backend *backend);
int set_mirror_load(struct backend *backend);
/*
 * For a job about to start: brings over what changed since the last call, enqueued behind what runs; ret_view is for launches on backend->stream until the next
 * call. The job says how far skips are brought up to date (set_mirror.cuh).
 */
int set_mirror_sync(struct backend *backend, const struct train_job *job, struct set_view *ret_view);

/* train.cu: backend.h's train, poll and wait. cuda_train_load: the kernels of the mode, stride and precision that jobs will have. */
int cuda_train_load(struct backend *backend);
int cuda_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report);
int cuda_poll(struct backend *backend, struct train_report *ret_report);
int cuda_wait(struct backend *backend, struct train_report *ret_report);
void exact_work_free(struct exact_work *work);

/* personalize.cu, topk.cu */
int cuda_personalize(struct backend *backend, const struct personalize_batch *batch);
int cuda_topk(struct backend *backend, const struct topk_batch *batch);
int cuda_personalize_load(struct backend *backend);
int cuda_topk_load(struct backend *backend);
void query_work_free(struct query_work *work);

#endif
