/*
 * cpu_kernels.c: the row kernels of cpu_rows.h, built for each instruction level, and the choice among them at run time.
 *
 * Plain vectors of the compiler, no intrinsics: the same text is AVX-512, AVX2 and whatever the baseline offers (other architectures have the
 * baseline only). Called from any thread; owns nothing.
 */
#include "trainer/learn/cpu_kernels.h"

#include <string.h>

#include "trainer/learn/bpr_math.h"

#if defined(__clang__)
#define ROWS_UNROLL /* unrolls constant loops by itself */
#else
#define ROWS_UNROLL _Pragma("GCC unroll 8")
#endif

#define ROWS(name) plain_##name
#define ROWS_TARGET
#define ROWS_WIDTH 4
#define ROWS_NAME "plain"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME

#if defined(__x86_64__)
#define ROWS(name) v3_##name
#define ROWS_TARGET __attribute__((target("arch=x86-64-v3")))
#define ROWS_WIDTH 8
#define ROWS_NAME "avx2"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME

#define ROWS(name) v4_##name
#if defined(__clang__)
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4"), min_vector_width(512)))
#else
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4")))
#endif
#define ROWS_WIDTH 16
#define ROWS_NAME "avx512"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME
#endif

const struct row_kernels *row_kernels_at(int level)
{
	if (level == 0)
		return &plain_kernels;
#if defined(__x86_64__)
	if (level == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
		return &v3_kernels;
#if !(defined(__SANITIZE_ADDRESS__) && defined(__GNUC__) && !defined(__clang__)) /* gcc's ASan does not align 64-byte variables on the stack */
	if (level == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		return &v4_kernels;
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
	return &plain_kernels;
}
