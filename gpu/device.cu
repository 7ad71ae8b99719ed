/*
 * device.cu: failures of CUDA calls as return codes and words (device.cuh). Any thread; a fault belongs to one backend.
 */
#include "gpu/device.cuh"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

int gpu_check(struct gpu_fault *fault, cudaError_t code, const char *what)
{
	if (fault->code != cudaSuccess)
		return -EIO;
	if (code == cudaSuccess)
		return 0;
	(void)cudaGetLastError(); /* or the next launch would seem to have failed */
	fault->last = code;
	fault->what = what;
	fault->failures++;
	if (code == cudaErrorMemoryAllocation)
		return -ENOMEM;
	fault->code = code;
	return -EIO;
}

int gpu_launched(struct gpu_fault *fault, const char *what)
{
	return gpu_check(fault, cudaGetLastError(), what);
}

void gpu_fault_text(const struct gpu_fault *fault, char *text, size_t size)
{
	text[0] = '\0';
	if (fault->last != cudaSuccess)
		(void)snprintf(text, size, "%s: %s", fault->what, cudaGetErrorString(fault->last));
}

void gpu_driver_version(const char *text, char *ret_version, size_t size)
{
	ret_version[0] = '\0';
	while (*text && *text != '\n') {
		size_t n = strcspn(text, " \t\n");
		if (isdigit((unsigned char)text[0]) && memchr(text, '.', n) && strspn(text, "0123456789.") == n) {
			(void)snprintf(ret_version, size, "%.*s", (int)n, text);
			return;
		}
		text += n + (text[n] == ' ' || text[n] == '\t');
	}
}
