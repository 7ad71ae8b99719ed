/*
 * cpu_kernels.c: the choice among the row kernels at run time.
 *
 * The kernels are one text in plain vectors of the compiler (cpu_vectors.h, cpu_philox.h, cpu_window.h, cpu_update*.h, cpu_rows*.h); cpu_level_*.c are that text for each
 * instruction level: AVX-512, AVX2 and whatever the baseline offers (other architectures have the baseline only). The few operations that the compiler's
 * vectors do not have (fused multiply-add, square root) are named there for each level. Called from any thread; owns nothing.
 */
#include "trainer/learn/cpu_kernels.h"

const struct row_kernels *row_kernels_at(int level)
{
	if (level == 0)
		return &row_kernels_plain;
#if defined(__x86_64__)
	if (level == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
		return &row_kernels_v3;
#if ROW_KERNELS_HAVE_V4
	if (level == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		return &row_kernels_v4;
#endif
#endif
	return NULL;
}

const struct row_kernels *row_kernels_best(void)
{
	for (int level = 2; level > 0; level--) {
		const struct row_kernels *kernels = row_kernels_at(level);
		if (kernels)
			return kernels;
	}
	return &row_kernels_plain;
}
