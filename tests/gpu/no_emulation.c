/*
 * no_emulation.c: the emulation's control (tests/cuda_emu/emu_control.h) for tests that run on a real GPU: seeds change nothing, calls are not
 * made to fail, and nothing is known about what is alive.
 */
#include "tests/cuda_emu/emu_control.h"

int emu_present(void)
{
	return 0;
}

void emu_seed(uint64_t seed)
{
	(void)seed;
}

void emu_fail_at(enum emu_failure kind, uint64_t n)
{
	(void)kind;
	(void)n;
}

uint64_t emu_calls(void)
{
	return 0;
}

uint64_t emu_launches(void)
{
	return 0;
}

int emu_failed(void)
{
	return 0;
}

size_t emu_live(void)
{
	return 0;
}

void emu_reset(void)
{
}
