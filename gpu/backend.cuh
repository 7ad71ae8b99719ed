/*
 * backend.cuh: the CUDA backend's inside, for the files of gpu/ (backend.h is its outside). One host thread calls, the engine's.
 *
 * Two streams. `stream` runs jobs, growth and everything that touches tables, in order. `copies` brings changes of the training set over while a job runs;
 * the next job waits for them by an event. A backend whose fault is set refuses everything but close.
 */
#ifndef GPU_BACKEND_CUH
#define GPU_BACKEND_CUH

#include "gpu/device.cuh"
#include "gpu/device_memory.cuh"
#include "gpu/view.cuh"
#include "trainer/learn/backend.h"

struct set_mirror;  /* set_mirror.cuh */
struct exact_work;  /* train_exact.cuh: memory of the deterministic mode */
struct query_work;  /* personalize and top-K: memory of batches */

struct backend {
	const struct learn_options *options; /* the learner's; read when a job starts */
	const struct training_set *set;      /* the learner's */
	const int64_t *user_ids, *item_ids;  /* the state's */
	int device;
	struct cudaDeviceProp properties;
	struct gpu_fault fault;
	uint64_t failures;
	cudaStream_t stream, copies;
	cudaEvent_t copied, job_done;

	/* working tables */
	struct device_array U, V, users, items; /* elements of float or uint16_t; struct gpu_user_side; struct gpu_item_side */
	uint32_t dim, stride, n_users, n_items;
	uint32_t epoch;  /* moves at each pull */
	uint64_t passes; /* passes the Adagrad sums have forgotten for */
	/* the item tables as the last pull saw them, for personalize and topk: fp32 [pulled_items, stride], biases */
	struct device_array pulled_V, pulled_bias;
	uint32_t pulled_items;

	struct set_mirror *mirror;
	struct exact_work *exact;
	struct query_work *query;

	/* the job under way, or the last one */
	int running;
	struct device_array sums; /* struct job_sums [1] */
	struct job_sums *host_sums; /* pinned [1] */
	struct train_report last;
	double triples_per_us; /* as measured by the last jobs; sizes a job with a time limit */
};

struct tables_view backend_tables_view(const struct backend *backend);
/* The stride for a dim: 16, 32, 64, 128, 256, 384 or 512. */
uint32_t gpu_stride_of(uint32_t dim);

/* backend_tables.cu */
int cuda_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids);
int cuda_pull(struct backend *backend, struct tables *copy);
int cuda_push(struct backend *backend, const struct tables *copy);
/* The Adagrad sums lose their share for every pass ended since the last job; enqueued. */
int cuda_forget(struct backend *backend);

/* set_mirror.cu */
int set_mirror_open(struct backend *backend);
void set_mirror_close(struct backend *backend);
/* Stages what changed since the last call and enqueues it behind what runs; ret_view is for the next launch on backend->stream. */
int set_mirror_sync(struct backend *backend, struct set_view *ret_view);

/* train.cu: backend.h's train, poll and wait. */
int cuda_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report);
int cuda_poll(struct backend *backend, struct train_report *ret_report);
int cuda_wait(struct backend *backend, struct train_report *ret_report);
void exact_work_free(struct exact_work *work);

/* personalize.cu, topk.cu */
int cuda_personalize(struct backend *backend, const struct personalize_batch *batch);
int cuda_topk(struct backend *backend, const struct topk_batch *batch);
void query_work_free(struct query_work *work);

#endif
