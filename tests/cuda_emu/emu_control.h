/*
 * emu_control.h: what tests set and ask. C and C++.
 *
 * Everything can also be set by the environment, which is read at the first call:
 *   CUDA_EMU_SEED=N          as emu_seed()
 *   CUDA_EMU_MEMORY=BYTES    as emu_memory_limit()
 *   CUDA_EMU_CAPABILITY=9.0  as emu_capability()
 *   CUDA_EMU_NAME=TEXT       the device's name
 *   CUDA_EMU_SMS=N           its multiprocessors (4)
 *   CUDA_EMU_DEVICES=N       devices: 0 or 1
 *   CUDA_EMU_DRIVER=13000    the driver's version; 0: no driver
 *   CUDA_EMU_FAIL=KIND@N     as emu_fail_at(); KIND: nomem, unknown, lost, launch
 */
#ifndef TESTS_CUDA_EMU_EMU_CONTROL_H
#define TESTS_CUDA_EMU_EMU_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emu_failure {
	EMU_FAIL_NEVER,
	EMU_FAIL_NOMEM,   /* call N returns cudaErrorMemoryAllocation and does nothing (but wait, if it is a call that waits); later calls work */
	EMU_FAIL_UNKNOWN, /* the same with cudaErrorUnknown */
	EMU_FAIL_LOST,    /* call N and all after it return cudaErrorDevicesUnavailable; work that has not run is dropped. Only emu_reset() mends it */
	EMU_FAIL_LAUNCH   /* launch N faults when it runs, after some of its blocks; then calls return cudaErrorLaunchFailure until cudaDeviceReset() */
};

/* 1; 0 where tests run on a real GPU (tests/gpu/no_emulation.c) and nothing of what follows has an effect. */
int emu_present(void);
/* 0: blocks and lanes in order, streams as late as possible. Else: drawn at random from this seed. */
void emu_seed(uint64_t seed);
/* Calls and launches are counted from here on, beginning at 1; the failure happens at number `n`. */
void emu_fail_at(enum emu_failure kind, uint64_t n);
/* Calls that can fail, and launches, since emu_fail_at() or the start. */
uint64_t emu_calls(void);
uint64_t emu_launches(void);
/* 1: the failure asked for has happened. */
int emu_failed(void);
/* The name of the last call that was made to fail; "" before. */
const char *emu_failed_call(void);
/* Kernels that were loaded by a launch, and not by cudaFuncGetAttributes() before, since emu_reset(); the name of the last one, "" for none. */
unsigned emu_late_loads(void);
const char *emu_late_load(void);
/* Size of the device's memory in bytes (8 GiB). */
void emu_memory_limit(size_t bytes);
void emu_capability(int major, int minor);
/* driver: 0 for none, else as CUDA counts (12040). devices: 0 or 1. */
void emu_presence(int driver, int devices);
/* Allocations (device and pinned), streams and events that are alive: 0 after a clean close. */
size_t emu_live(void);
/* Most device bytes that were in use at one time since emu_reset(). */
size_t emu_memory_peak(void);
/* A fresh device: frees what is left, drops queued work, forgets failures, keeps the settings above. No handle from before may be used. */
void emu_reset(void);
/* Operations waiting in all streams. */
size_t emu_queued(void);

#ifdef __cplusplus
}
#endif
#endif
