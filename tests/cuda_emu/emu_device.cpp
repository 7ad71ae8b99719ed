/*
 * emu_device.cpp: what the device says about itself, the names of errors, and which launches it takes.
 */
#include <stdio.h>
#include <string.h>

#include "tests/cuda_emu/emu_core.h"

#define SHARED_DEFAULT ((size_t)48 << 10) /* without cudaFuncAttributeMaxDynamicSharedMemorySize */
#define GRID_X_MAX 0x7fffffffu
#define GRID_YZ_MAX 65535u
#define FUNCTIONS_MAX 512
#define LANES_PER_SM 2048
#define BLOCKS_PER_SM 32

struct function_limit {
	const void *function;
	size_t shared_max;
};
static struct function_limit limits[FUNCTIONS_MAX];
static int n_limits;
static const void *loaded[FUNCTIONS_MAX];
static int n_loaded;
static unsigned late_loads;
static const char *late_load = "";

/* Most shared memory of a block, after it was asked for; of a multiprocessor it is 1 KiB more. From the CUDA programming guide's table. */
static size_t shared_optin(void)
{
	int capability = emu_settings.major * 10 + emu_settings.minor;
	if (capability >= 90)
		return (size_t)227 << 10;
	if (capability == 80 || capability == 87)
		return (size_t)163 << 10;
	return capability >= 86 ? (size_t)99 << 10 : (size_t)64 << 10;
}

/* ---- presence ------------------------------------------------------------------------------------------------------------------------ */
cudaError_t cudaGetDeviceCount(int *ret_count)
{
	if (ret_count)
		*ret_count = 0;
	EMU_ENTER();
	if (!ret_count)
		return call.give(cudaErrorInvalidValue);
	*ret_count = emu_settings.devices;
	return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
	EMU_ENTER();
	return call.give(device < 0 || device >= emu_settings.devices ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaGetDevice(int *ret_device)
{
	EMU_ENTER();
	*ret_device = 0;
	return cudaSuccess;
}

/* Works without a driver: says 0. */
cudaError_t cudaDriverGetVersion(int *ret_version)
{
	emu_call call(__func__, 0);
	if (call.error != cudaSuccess)
		return call.error;
	*ret_version = emu_settings.driver;
	return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *ret_version)
{
	emu_call call(__func__, 0);
	*ret_version = 13000;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret_properties, int device)
{
	EMU_ENTER();
	if (!ret_properties)
		return call.give(cudaErrorInvalidValue);
	if (device < 0 || device >= emu_settings.devices)
		return call.give(cudaErrorInvalidDevice);
	cudaDeviceProp p = {};
	snprintf(p.name, sizeof p.name, "%s", emu_settings.name);
	p.totalGlobalMem = emu_settings.memory_limit;
	p.sharedMemPerBlock = SHARED_DEFAULT;
	p.sharedMemPerBlockOptin = shared_optin();
	p.sharedMemPerMultiprocessor = shared_optin() + 1024;
	p.regsPerBlock = 65536;
	p.warpSize = 32;
	p.maxThreadsPerBlock = EMU_LANES_MAX;
	p.maxThreadsPerMultiProcessor = LANES_PER_SM;
	p.multiProcessorCount = emu_settings.sms;
	p.l2CacheSize = 50 << 20;
	p.major = emu_settings.major;
	p.minor = emu_settings.minor;
	p.memoryPoolsSupported = 1;
	*ret_properties = p;
	return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *ret_value, cudaDeviceAttr attribute, int device)
{
	EMU_ENTER();
	if (!ret_value)
		return call.give(cudaErrorInvalidValue);
	if (device < 0 || device >= emu_settings.devices)
		return call.give(cudaErrorInvalidDevice);
	switch (attribute) {
	case cudaDevAttrMaxThreadsPerBlock:
		*ret_value = EMU_LANES_MAX;
		break;
	case cudaDevAttrMaxSharedMemoryPerBlock:
		*ret_value = static_cast<int>(SHARED_DEFAULT);
		break;
	case cudaDevAttrWarpSize:
		*ret_value = 32;
		break;
	case cudaDevAttrMultiProcessorCount:
		*ret_value = emu_settings.sms;
		break;
	case cudaDevAttrL2CacheSize:
		*ret_value = 50 << 20;
		break;
	case cudaDevAttrMaxThreadsPerMultiProcessor:
		*ret_value = LANES_PER_SM;
		break;
	case cudaDevAttrComputeCapabilityMajor:
		*ret_value = emu_settings.major;
		break;
	case cudaDevAttrComputeCapabilityMinor:
		*ret_value = emu_settings.minor;
		break;
	case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
		*ret_value = static_cast<int>(shared_optin() + 1024);
		break;
	case cudaDevAttrMaxSharedMemoryPerBlockOptin:
		*ret_value = static_cast<int>(shared_optin());
		break;
	case cudaDevAttrMemoryPoolsSupported:
		*ret_value = 1;
		break;
	default:
		return call.give(cudaErrorInvalidValue);
	}
	return cudaSuccess;
}

/* ---- errors -------------------------------------------------------------------------------------------------------------------------- */
static const struct {
	cudaError_t error;
	const char *name, *text;
} error_texts[] = {
	{cudaSuccess, "cudaSuccess", "no error"},
	{cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
	{cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
	{cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
	{cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
	{cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
	{cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
	{cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
	{cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
	{cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
	{cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
	{cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
	{cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
	{cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
	{cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
	{cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
	{cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
	{cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
	{cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
	{cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
	{cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t error)
{
	for (size_t i = 0; i < sizeof error_texts / sizeof error_texts[0]; i++) {
		if (error_texts[i].error == error)
			return error_texts[i].name;
	}
	return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
	for (size_t i = 0; i < sizeof error_texts / sizeof error_texts[0]; i++) {
		if (error_texts[i].error == error)
			return error_texts[i].text;
	}
	return "unrecognized error code";
}

/* ---- launches ------------------------------------------------------------------------------------------------------------------------ */
static struct function_limit *limit_of(const void *function)
{
	for (int i = 0; i < n_limits; i++) {
		if (limits[i].function == function)
			return &limits[i];
	}
	return nullptr;
}

cudaError_t emu_function_attribute(const void *function, cudaFuncAttribute attribute, int value)
{
	emu_call call("cudaFuncSetAttribute");
	if (call.error != cudaSuccess)
		return call.error;
	if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
		return cudaSuccess;
	if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || static_cast<size_t>(value) > shared_optin())
		return call.give(cudaErrorInvalidValue);
	struct function_limit *limit = limit_of(function);
	if (!limit) {
		if (n_limits == FUNCTIONS_MAX)
			emu_die("more than %d kernels with a limit of their own", FUNCTIONS_MAX);
		limit = &limits[n_limits++];
	}
	limit->function = function;
	limit->shared_max = static_cast<size_t>(value);
	return cudaSuccess;
}

/* 1: it was not loaded before. */
static int load(const void *function)
{
	for (int i = 0; i < n_loaded; i++) {
		if (loaded[i] == function)
			return 0;
	}
	if (n_loaded == FUNCTIONS_MAX)
		emu_die("more than %d kernels", FUNCTIONS_MAX);
	loaded[n_loaded++] = function;
	return 1;
}

cudaError_t emu_function_load(cudaFuncAttributes *ret_attributes, const void *function)
{
	emu_call call("cudaFuncGetAttributes");
	if (call.error != cudaSuccess)
		return call.error;
	if (!ret_attributes || !function)
		return call.give(cudaErrorInvalidDeviceFunction);
	(void)load(function);
	*ret_attributes = {0, EMU_LANES_MAX};
	return cudaSuccess;
}

void emu_functions_reset(void)
{
	n_loaded = 0;
	late_loads = 0;
	late_load = "";
}

extern "C" unsigned emu_late_loads(void)
{
	return late_loads;
}

extern "C" const char *emu_late_load(void)
{
	return late_load;
}

cudaError_t emu_occupancy(int *ret_blocks, const void *function, int block, size_t shared_bytes)
{
	emu_call call("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
	if (call.error != cudaSuccess)
		return call.error;
	if (!ret_blocks || !function || block < 1 || block > EMU_LANES_MAX)
		return call.give(cudaErrorInvalidValue);
	size_t blocks = static_cast<size_t>(LANES_PER_SM / ((block + 31) / 32 * 32));
	size_t by_shared = (shared_optin() + 1024) / (shared_bytes + 1024);
	blocks = blocks < by_shared ? blocks : by_shared;
	*ret_blocks = static_cast<int>(blocks < BLOCKS_PER_SM ? blocks : BLOCKS_PER_SM);
	return cudaSuccess;
}

/* A launch that is to fault stops in the middle: some blocks have run, the rest never does. */
static void run_launch(struct emu_op *op)
{
	uint64_t blocks = static_cast<uint64_t>(op->launch.grid.x) * op->launch.grid.y * op->launch.grid.z;
	emu_run_grid(&op->launch, op->faults ? blocks / 2 : blocks);
	if (op->faults)
		emu_fault(cudaErrorLaunchFailure);
}

static cudaError_t check_launch(const struct emu_launch_request *request)
{
	const dim3 *grid = &request->grid, *block = &request->block;
	uint64_t lanes = static_cast<uint64_t>(block->x) * block->y * block->z;
	if (!emu_stream_known(request->stream))
		return cudaErrorInvalidResourceHandle;
	if (!lanes || lanes > EMU_LANES_MAX || block->z > 64 || !grid->x || !grid->y || !grid->z)
		return cudaErrorInvalidConfiguration;
	if (grid->x > GRID_X_MAX || grid->y > GRID_YZ_MAX || grid->z > GRID_YZ_MAX)
		return cudaErrorInvalidConfiguration;
	const struct function_limit *limit = limit_of(request->function);
	size_t shared_max = limit && limit->shared_max > SHARED_DEFAULT ? limit->shared_max : SHARED_DEFAULT;
	return request->shared_bytes > shared_max ? cudaErrorInvalidValue : cudaSuccess;
}

void emu_enqueue_launch(const struct emu_launch_request *request)
{
	emu_call call("launch");
	if (call.error != cudaSuccess)
		return;
	if (call.give(check_launch(request)) != cudaSuccess)
		return;
	if (load(request->function)) {
		late_loads++;
		late_load = request->name;
	}
	struct emu_op *op = emu_op_new(run_launch);
	op->launch = *request;
	op->launch.args = op->args;
	emu_copy_raw(op->args, request->args, request->args_size);
	op->faults = emu_launch_faults();
	emu_enqueue(request->stream, op);
}
