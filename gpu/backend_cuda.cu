/*
 * backend_cuda.cu: the CUDA backend's table of functions, and how a device is found, opened and let go (backend.h, backend.cuh). One thread at a time.
 *
 * The device: the first one that can do the work, in the order in which CUDA shows them, so CUDA_VISIBLE_DEVICES chooses; a context is made on no other.
 * After a failure other than refused memory every call is -EIO, until close. Closing a backend that failed resets the device, as otherwise the process could
 * not use it again. Host memory is the truth: a new backend is filled from there.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.cuh"
#include "gpu/query.cuh"
#include "gpu/transfer.cuh"

#define CAPABILITY_MIN 8                     /* major: Ampere */
#define FREE_MEMORY_MIN ((size_t)256 << 20) /* a small model and its training set */

uint32_t gpu_blocks(const struct backend *backend, uint64_t n)
{
	uint64_t blocks = (n + GPU_BLOCK - 1) / GPU_BLOCK;
	uint64_t most = (uint64_t)backend->properties.multiProcessorCount * 16;
	if (blocks > most)
		blocks = most;
	return blocks ? (uint32_t)blocks : 1;
}

/* Why there is no device at all; 0 when the driver is there and new enough. */
static int check_driver(char *reason, size_t reason_size)
{
	int driver = 0, runtime = 0;
	int told = cudaDriverGetVersion(&driver) == cudaSuccess && cudaRuntimeGetVersion(&runtime) == cudaSuccess;
	(void)cudaGetLastError();
	if (!told) /* a device that fails says so itself */
		return 0;
	if (driver == 0)
		(void)snprintf(reason, reason_size, "no NVIDIA driver is loaded");
	else if (driver / 1000 < runtime / 1000)
		(void)snprintf(reason, reason_size, "the NVIDIA driver supports CUDA %d.%d, this program needs %d.0 or later", driver / 1000, driver % 1000 / 10,
		               runtime / 1000);
	else
		return 0;
	return -ENODEV;
}

/* 0: device number `device` can do the work and is the current one. Else -ENODEV, with the reason. */
static int try_device(int device, struct cudaDeviceProp *ret_properties, char *reason, size_t reason_size)
{
	struct cudaDeviceProp properties = {};
	size_t free_bytes = 0, all_bytes = 0;
	int pools = 0;
	cudaError_t code = cudaGetDeviceProperties(&properties, device);
	if (code == cudaSuccess && properties.major < CAPABILITY_MIN) {
		(void)snprintf(reason, reason_size, "%.96s: compute capability %d.%d, %d.0 or later is needed", properties.name, properties.major, properties.minor,
		               CAPABILITY_MIN);
		return -ENODEV;
	}
	if (code == cudaSuccess)
		code = cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device);
	if (code == cudaSuccess && !pools) {
		(void)snprintf(reason, reason_size, "%.96s: the driver offers no stream-ordered memory (a virtual GPU?)", properties.name);
		return -ENODEV;
	}
	if (code == cudaSuccess)
		code = cudaSetDevice(device);
	if (code == cudaSuccess)
		code = cudaMemGetInfo(&free_bytes, &all_bytes);
	if (code != cudaSuccess) {
		(void)cudaGetLastError();
		(void)snprintf(reason, reason_size, "GPU %d: %s", device, cudaGetErrorString(code));
		return -ENODEV;
	}
	if (free_bytes < FREE_MEMORY_MIN) {
		(void)snprintf(reason, reason_size, "%.96s: only %zu of %zu MiB of memory are free, %zu are needed", properties.name, free_bytes >> 20,
		               all_bytes >> 20, FREE_MEMORY_MIN >> 20);
		return -ENODEV;
	}
	*ret_properties = properties;
	return 0;
}

/* Makes the first usable device the current one. */
static int find_device(int *ret_device, struct cudaDeviceProp *ret_properties, char *reason, size_t reason_size)
{
	int n = 0;
	if (check_driver(reason, reason_size) < 0)
		return -ENODEV;
	cudaError_t code = cudaGetDeviceCount(&n);
	if (code == cudaErrorNoDevice || (code == cudaSuccess && n <= 0)) {
		(void)cudaGetLastError();
		(void)snprintf(reason, reason_size, "no NVIDIA GPU is visible");
		return -ENODEV;
	}
	if (code != cudaSuccess) {
		(void)cudaGetLastError();
		(void)snprintf(reason, reason_size, "looking for NVIDIA GPUs: %s", cudaGetErrorString(code));
		return -ENODEV;
	}
	for (int device = 0; device < n; device++) {
		char why[256];
		if (try_device(device, ret_properties, why, sizeof why) == 0) {
			*ret_device = device;
			return 0;
		}
		if (device == 0) /* the first one is the one that was meant */
			(void)snprintf(reason, reason_size, "%s", why);
	}
	return -ENODEV;
}

static int op_probe(char *reason, size_t reason_size)
{
	int device;
	struct cudaDeviceProp properties;
	return find_device(&device, &properties, reason, reason_size);
}

static void ask_memory(struct backend *backend)
{
	size_t free_bytes = 0, all_bytes = 0;
	if (gpu_check(&backend->fault, cudaMemGetInfo(&free_bytes, &all_bytes), "asking for memory") < 0)
		return;
	backend->memory_bytes = all_bytes;
	backend->memory_used_bytes = all_bytes - free_bytes;
}

/* Frees everything a backend has, whole or half made. */
static void give_back(struct backend *backend)
{
	int lost = backend->fault.code != cudaSuccess;
	if (backend->stream && !lost)
		(void)cudaStreamSynchronize(backend->stream);
	if (backend->copies && !lost)
		(void)cudaStreamSynchronize(backend->copies);
	query_work_free(backend->query);
	exact_work_free(backend->exact);
	set_mirror_close(backend);
	table_work_free(backend->table_work);
	transfer_close(backend->transfer);
	struct device_array *const arrays[] = {&backend->U,        &backend->V,           &backend->users, &backend->items,
	                                       &backend->pulled_V, &backend->pulled_bias, &backend->sums};
	for (struct device_array *array : arrays)
		device_array_free(array);
	if (backend->host_sums)
		(void)cudaFreeHost(backend->host_sums);
	if (backend->job_began)
		(void)cudaEventDestroy(backend->job_began);
	if (backend->job_done)
		(void)cudaEventDestroy(backend->job_done);
	if (backend->copies)
		(void)cudaStreamDestroy(backend->copies);
	if (backend->stream)
		(void)cudaStreamDestroy(backend->stream);
}

static void op_close(struct backend *backend)
{
	if (!backend)
		return;
	(void)cudaSetDevice(backend->device);
	give_back(backend);
	if (backend->fault.code != cudaSuccess)
		(void)cudaDeviceReset();
	(void)cudaGetLastError();
	free(backend);
}

static int open_streams(struct backend *backend)
{
	void *sums = NULL;
	int rc = gpu_check(&backend->fault, cudaStreamCreateWithFlags(&backend->stream, cudaStreamNonBlocking), "a stream");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaStreamCreateWithFlags(&backend->copies, cudaStreamNonBlocking), "a stream");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaEventCreateWithFlags(&backend->job_began, cudaEventDefault), "an event");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaEventCreateWithFlags(&backend->job_done, cudaEventBlockingSync), "an event");
	if (rc == 0)
		rc = device_array_grow(backend, &backend->sums, sizeof(struct job_sums), 0, "memory for sums");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaHostAlloc(&sums, sizeof *backend->host_sums, cudaHostAllocDefault), "pinned memory");
	backend->host_sums = static_cast<struct job_sums *>(sums);
	return rc;
}

/* All that this backend will ever launch, so that no work waits for it later. */
static int load_kernels(struct backend *backend)
{
	int rc = table_work_try(backend);
	if (rc == 0)
		rc = set_mirror_load(backend);
	if (rc == 0)
		rc = cuda_train_load(backend);
	if (rc == 0)
		rc = cuda_personalize_load(backend);
	return rc < 0 ? rc : cuda_topk_load(backend);
}

static int open_on_device(struct backend *backend)
{
	int rc = open_streams(backend);
	if (rc == 0)
		rc = transfer_open(backend);
	if (rc == 0)
		rc = table_work_open(backend);
	if (rc == 0)
		rc = set_mirror_open(backend);
	if (rc == 0)
		rc = query_open(backend);
	if (rc == 0)
		rc = load_kernels(backend);
	if (rc == 0)
		ask_memory(backend);
	return rc == 0 && backend->fault.code != cudaSuccess ? -EIO : rc;
}

/* As the kernel tells it; nothing where it does not, as in some containers. */
static void ask_driver(char *ret_version, size_t size)
{
	char text[256] = "";
	FILE *file = fopen("/proc/driver/nvidia/version", "re");
	if (file) {
		text[fread(text, 1, sizeof text - 1, file)] = '\0';
		(void)fclose(file);
	}
	gpu_driver_version(text, ret_version, size);
}

static int op_open(const struct learn_options *options, const struct training_set *set, struct backend **ret_backend, char *errstr, size_t errstr_size)
{
	char why[256] = "out of memory";
	struct backend *backend = static_cast<struct backend *>(calloc(1, sizeof *backend));
	int rc = backend ? find_device(&backend->device, &backend->properties, why, sizeof why) : -ENOMEM;
	if (rc == 0) {
		backend->options = options;
		backend->set = set;
		backend->dim = options->emb_dim;
		backend->stride = gpu_stride_of(options->emb_dim);
		backend->epoch = 1;
		backend->passes = set->passes_here;
		backend->last.loss = (double)NAN;
		ask_driver(backend->driver, sizeof backend->driver);
		rc = open_on_device(backend);
		if (rc < 0)
			gpu_fault_text(&backend->fault, why, sizeof why);
		if (rc < 0)
			op_close(backend);
	} else {
		free(backend);
	}
	if (rc < 0) {
		(void)snprintf(errstr, errstr_size, "cuda backend: %s", why);
		return rc;
	}
	*ret_backend = backend;
	return 0;
}

/* Before any work: the device is the caller's current one, and has not failed. */
static int enter(struct backend *backend)
{
	return gpu_check(&backend->fault, cudaSetDevice(backend->device), "choosing the device");
}

static int op_grow(struct backend *backend, uint32_t n_users, uint32_t n_items, const int64_t *user_ids, const int64_t *item_ids)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_grow(backend, n_users, n_items, user_ids, item_ids);
}

/* Nothing yet: the next job brings over what changed (set_mirror.cuh). */
static int op_changed(struct backend *backend)
{
	return backend->fault.code != cudaSuccess ? -EIO : 0;
}

static int op_train(struct backend *backend, const struct train_job *job, struct train_report *ret_report)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_train(backend, job, ret_report);
}

static int op_poll(struct backend *backend, struct train_report *ret_report)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_poll(backend, ret_report);
}

static int op_wait(struct backend *backend, struct train_report *ret_report)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_wait(backend, ret_report);
}

static int op_pull(struct backend *backend, struct tables *copy)
{
	int rc = enter(backend);
	if (rc == 0)
		rc = cuda_pull(backend, copy);
	if (rc == 0)
		ask_memory(backend);
	return rc;
}

static int op_push(struct backend *backend, const struct tables *copy)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_push(backend, copy);
}

static int op_personalize(struct backend *backend, const struct personalize_batch *batch)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_personalize(backend, batch);
}

static int op_topk(struct backend *backend, const struct topk_batch *batch)
{
	int rc = enter(backend);
	return rc < 0 ? rc : cuda_topk(backend, batch);
}

static void op_facts(struct backend *backend, struct device_facts *ret_facts)
{
	int cuda = 0;
	struct device_facts facts = {};
	(void)cudaDriverGetVersion(&cuda);
	(void)snprintf(facts.name, sizeof facts.name, "%.90s", backend->properties.name);
	(void)snprintf(facts.driver, sizeof facts.driver, "%s", backend->driver);
	(void)snprintf(facts.cuda, sizeof facts.cuda, "%d.%d", cuda / 1000, cuda % 1000 / 10);
	facts.memory_bytes = backend->memory_bytes;
	facts.memory_used_bytes = backend->memory_used_bytes;
	facts.failures = backend->fault.failures;
	gpu_fault_text(&backend->fault, facts.trouble, sizeof facts.trouble);
	*ret_facts = facts;
}

extern "C" const struct backend_ops backend_cuda = {
	"cuda", op_probe, op_open, op_close, op_grow, op_changed, op_train, op_poll, op_wait, op_pull, op_push, op_personalize, op_topk, op_facts,
};
