/*
 * gpu_testing.h: a CUDA backend over a training set of the test's own, for tests of gpu/'s parts. Each test includes it once; C++ only.
 *
 * The same tests run on the emulation and on a GPU (make check-gpu); what needs the emulation's control stands under GPU_EMULATED.
 */
#ifndef TESTS_UNIT_GPU_TESTING_H
#define TESTS_UNIT_GPU_TESTING_H

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" { /* its header does not say so itself */
#include <cmocka.h>
}

#include "gpu/backend.cuh"
#include "gpu/transfer.cuh"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a C header: functions with the names of structs */
#include "trainer/learn/learn.h"
#pragma GCC diagnostic pop
#include "trainer/learn/philox.h"
#include "trainer/learn/sampler.h"

extern "C" const struct backend_ops backend_cuda;

struct gpu_world {
	struct learn_options options;
	struct training_set set;
	struct backend *backend;
	int64_t *user_ids, *item_ids;
};

/* Random bits of a test's own, by number. */
static inline uint32_t world_random(uint32_t n, uint32_t stream)
{
	return philox4x32(n, stream, 0, 0xffffffffu, 1, 2).v[0];
}

/* On a machine without a GPU (make check-gpu) the tests are skipped. */
static inline void need_device(const char *test)
{
	char reason[256] = "";
	if (backend_cuda.probe(reason, sizeof reason) == 0)
		return;
	print_message("SKIP %s: %s\n", test, reason);
	skip();
}
#define NEED_DEVICE() need_device(__func__)

/* No rows yet; ids for n_users, n_items. The options may be changed before gpu_world_open(). */
static inline void gpu_world_init(struct gpu_world *world, uint32_t dim, uint32_t n_users, uint32_t n_items)
{
	memset(world, 0, sizeof *world);
	learn_options_default(&world->options);
	world->options.emb_dim = dim;
	world->options.seed = 0x1234567890abcdefu;
	world->options.init_scale = 4.0f;
	training_set_init(&world->set, world->options.seed);
	world->user_ids = static_cast<int64_t *>(calloc(n_users, sizeof *world->user_ids));
	world->item_ids = static_cast<int64_t *>(calloc(n_items, sizeof *world->item_ids));
	for (uint32_t u = 0; u < n_users; u++)
		world->user_ids[u] = (int64_t)u * 1000003 + 7;
	for (uint32_t i = 0; i < n_items; i++)
		world->item_ids[i] = ((int64_t)i << 33) + 11;
}

static inline void gpu_world_open(struct gpu_world *world)
{
	char errstr[256] = "";
	int rc = backend_cuda.open(&world->options, &world->set, &world->backend, errstr, sizeof errstr);
	if (rc < 0)
		print_message("%s\n", errstr);
	assert_int_equal(rc, 0);
}

static inline void gpu_world_grow(struct gpu_world *world, uint32_t n_users, uint32_t n_items)
{
	assert_int_equal(backend_cuda.grow(world->backend, n_users, n_items, world->user_ids, world->item_ids), 0);
	assert_int_equal(training_set_grow(&world->set, n_users, n_items), 0);
}

static inline void gpu_world_close(struct gpu_world *world)
{
	backend_cuda.close(world->backend);
	training_set_free(&world->set);
	free(world->user_ids);
	free(world->item_ids);
#ifdef GPU_EMULATED
	assert_int_equal(emu_live(), 0);
#endif
}

/* Copies bytes of the device into new host memory, after all that was enqueued. free() it. */
static inline void *gpu_copy_of(const struct gpu_world *world, const void *device, size_t bytes)
{
	void *host = malloc(bytes ? bytes : 1);
	assert_int_equal(cudaStreamSynchronize(world->backend->stream), cudaSuccess);
	if (bytes)
		assert_int_equal(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
	return host;
}

#endif
