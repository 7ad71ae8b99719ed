/*
 * emu_control.cpp: settings, the lock around every call, random numbers, and failures on demand.
 */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/emu_core.h"

struct emu_settings emu_settings = {0, (size_t)8 << 30, 9, 0, 4, 13000, 1, "Emulated GPU"};
int emu_in_host_function;
static uint64_t random_state;
static int have_settings;
static int locked;
static cudaError_t last_error, sticky_error;

static enum emu_failure failure;
static uint64_t failure_at, calls, launches;
static int failed, lost;
static char failed_name[64];

void emu_die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("cuda_emu: ERROR: ", stderr);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	emu_describe_place();
	if (emu_settings.seed)
		fprintf(stderr, "  seed %llu\n", static_cast<unsigned long long>(emu_settings.seed));
	fflush(stderr);
	abort();
}

/* ---- random numbers (splitmix64) ----------------------------------------------------------------------------------------------------- */
uint64_t emu_random(void)
{
	random_state += 0x9e3779b97f4a7c15u;
	uint64_t z = random_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint32_t emu_random_below(uint32_t n)
{
	return static_cast<uint32_t>(((emu_random() >> 32) * n) >> 32);
}

/* ---- settings ------------------------------------------------------------------------------------------------------------------------ */
static void read_failure(const char *text)
{
	static const struct {
		const char *name;
		enum emu_failure kind;
	} kinds[] = {{"nomem@", EMU_FAIL_NOMEM}, {"unknown@", EMU_FAIL_UNKNOWN}, {"lost@", EMU_FAIL_LOST}, {"launch@", EMU_FAIL_LAUNCH}};
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		size_t n = strlen(kinds[i].name);
		if (!strncmp(text, kinds[i].name, n) && text[n]) {
			failure = kinds[i].kind;
			failure_at = strtoull(text + n, nullptr, 0);
			return;
		}
	}
	emu_die("CUDA_EMU_FAIL=%s: give nomem@N, unknown@N, lost@N or launch@N", text);
}

static const char *environment(const char *name)
{
	const char *text = getenv(name);
	return text && *text ? text : nullptr;
}

static void read_settings(void)
{
	if (have_settings)
		return;
	have_settings = 1;
	const char *text;
	if ((text = environment("CUDA_EMU_SEED")))
		emu_settings.seed = random_state = strtoull(text, nullptr, 0);
	if ((text = environment("CUDA_EMU_MEMORY")))
		emu_settings.memory_limit = strtoull(text, nullptr, 0);
	if ((text = environment("CUDA_EMU_CAPABILITY"))) {
		char *end = nullptr;
		emu_settings.major = static_cast<int>(strtol(text, &end, 10));
		emu_settings.minor = *end == '.' ? static_cast<int>(strtol(end + 1, nullptr, 10)) : 0;
	}
	if ((text = environment("CUDA_EMU_NAME")))
		snprintf(emu_settings.name, sizeof emu_settings.name, "%s", text);
	if ((text = environment("CUDA_EMU_SMS")))
		emu_settings.sms = static_cast<int>(strtol(text, nullptr, 10));
	if ((text = environment("CUDA_EMU_DEVICES")))
		emu_settings.devices = static_cast<int>(strtol(text, nullptr, 10));
	if ((text = environment("CUDA_EMU_DRIVER")))
		emu_settings.driver = static_cast<int>(strtol(text, nullptr, 10));
	if ((text = environment("CUDA_EMU_FAIL")))
		read_failure(text);
}

extern "C" int emu_present(void)
{
	return 1;
}

extern "C" void emu_seed(uint64_t seed)
{
	read_settings();
	emu_settings.seed = random_state = seed;
}

extern "C" void emu_memory_limit(size_t bytes)
{
	read_settings();
	emu_settings.memory_limit = bytes;
}

extern "C" void emu_capability(int major, int minor)
{
	read_settings();
	emu_settings.major = major;
	emu_settings.minor = minor;
}

extern "C" void emu_presence(int driver, int devices)
{
	read_settings();
	emu_settings.driver = driver;
	emu_settings.devices = devices;
}

/* ---- failures ------------------------------------------------------------------------------------------------------------------------ */
extern "C" void emu_fail_at(enum emu_failure kind, uint64_t n)
{
	read_settings();
	failure = kind;
	failure_at = n;
	calls = launches = 0;
	failed = 0;
	failed_name[0] = '\0';
}

extern "C" uint64_t emu_calls(void)
{
	return calls;
}

extern "C" uint64_t emu_launches(void)
{
	return launches;
}

extern "C" int emu_failed(void)
{
	return failed;
}

extern "C" const char *emu_failed_call(void)
{
	return failed_name;
}

static void mark_failed(const char *name)
{
	failed = 1;
	snprintf(failed_name, sizeof failed_name, "%s", name);
}

/* What call number `calls` gives instead of running, or cudaSuccess. */
static cudaError_t injected(const char *name)
{
	calls++;
	if (failure == EMU_FAIL_NEVER || failure == EMU_FAIL_LAUNCH || calls != failure_at)
		return cudaSuccess;
	mark_failed(name);
	if (failure == EMU_FAIL_NOMEM)
		return cudaErrorMemoryAllocation;
	if (failure == EMU_FAIL_UNKNOWN)
		return cudaErrorUnknown;
	lost = 1;
	emu_fault(cudaErrorDevicesUnavailable);
	return cudaErrorDevicesUnavailable;
}

int emu_launch_faults(void)
{
	launches++;
	if (failure != EMU_FAIL_LAUNCH || launches != failure_at)
		return 0;
	mark_failed("launch");
	return 1;
}

void emu_fault(cudaError_t error)
{
	sticky_error = error;
	emu_streams_drop();
}

void emu_set_last(cudaError_t error)
{
	if (error != cudaSuccess && error != cudaErrorNotReady)
		last_error = error;
}

/* ---- a call -------------------------------------------------------------------------------------------------------------------------- */
/* A lock that TSan does not see: order between host threads must come from the program, not from here. */
emu_call::emu_call(const char *name, int can_fail) : error(cudaSuccess)
{
	if (emu_in_host_function)
		emu_die("%s is called by a host function in a stream", name);
	while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE))
		sched_yield();
	read_settings();
	if (can_fail && !emu_settings.driver)
		error = cudaErrorInsufficientDriver;
	else if (can_fail && !emu_settings.devices)
		error = cudaErrorNoDevice;
	else if (sticky_error != cudaSuccess)
		error = sticky_error;
	else if (can_fail)
		error = injected(name);
	emu_set_last(error);
	if (error == cudaSuccess)
		emu_streams_progress();
	if (error == cudaSuccess && sticky_error != cudaSuccess) /* a launch faulted just now */
		error = give(sticky_error);
}

emu_call::~emu_call()
{
	emu_memory_close();
	__atomic_store_n(&locked, 0, __ATOMIC_RELEASE);
}

cudaError_t emu_call::give(cudaError_t result)
{
	if (result == cudaSuccess || result == cudaErrorNotReady)
		result = sticky_error != cudaSuccess ? sticky_error : result;
	emu_set_last(result);
	return result;
}

cudaError_t cudaGetLastError(void)
{
	emu_call call(__func__, 0);
	cudaError_t error = sticky_error != cudaSuccess ? sticky_error : last_error;
	last_error = cudaSuccess;
	return error;
}

cudaError_t cudaPeekAtLastError(void)
{
	emu_call call(__func__, 0);
	return sticky_error != cudaSuccess ? sticky_error : last_error;
}

static void start_anew(void)
{
	emu_streams_reset();
	emu_memory_reset();
	emu_functions_reset();
	last_error = sticky_error = cudaSuccess;
}

/* Mends a launch that faulted; a lost device stays lost. */
cudaError_t cudaDeviceReset(void)
{
	emu_call call(__func__, 0);
	if (lost)
		return cudaErrorDevicesUnavailable;
	start_anew();
	return cudaSuccess;
}

extern "C" void emu_reset(void)
{
	read_settings();
	lost = 0;
	emu_fail_at(EMU_FAIL_NEVER, 0);
	start_anew();
	random_state = emu_settings.seed;
}

extern "C" size_t emu_live(void)
{
	return emu_memory_allocations() + emu_streams_alive();
}

extern "C" size_t emu_queued(void)
{
	return emu_streams_queued();
}
