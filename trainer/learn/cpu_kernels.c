/*
 * cpu_kernels.c: the row kernels of cpu_rows.h, built for each instruction level, and the choice among them at run time.
 *
 * Plain vectors of the compiler: the same text is AVX-512, AVX2 and whatever the baseline offers (other architectures have the baseline only). The few
 * operations that the compiler's vectors do not have (fused multiply-add, square root) are named here for each level. Called from any thread; owns nothing.
 */
#include "trainer/learn/cpu_kernels.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"

#if defined(__clang__)
#define ROWS_UNROLL /* unrolls constant loops by itself */
#else
#define ROWS_UNROLL _Pragma("GCC unroll 8")
#endif

#define ROWS_LANES 8 /* triples that update() takes at once */
#define ROWS(name) plain_##name
#define ROWS_TARGET
#define ROWS_WIDTH 4
#define ROWS_NAME "plain"
#if defined(__x86_64__)
#define WORDS_MUL(a, b) ((plain_words)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#else
#define WORDS_MUL(a, b) (((a) & 0xffffffff) * ((b) & 0xffffffff))
#endif
#define ROWS_FMA(a, b, c) ((a) * (b) + (c))
#define LANES_FMA(a, b, c) ((a) * (b) + (c))
#define LANES_SQRT(a)                                                                                                                              \
	((LANES){__builtin_sqrtf((a)[0]), __builtin_sqrtf((a)[1]), __builtin_sqrtf((a)[2]), __builtin_sqrtf((a)[3]), __builtin_sqrtf((a)[4]),     \
	         __builtin_sqrtf((a)[5]), __builtin_sqrtf((a)[6]), __builtin_sqrtf((a)[7])})
#include "trainer/learn/cpu_vectors.h"
#include "trainer/learn/cpu_philox.h"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME
#undef ROWS_FMA
#undef LANES_FMA
#undef LANES_SQRT
#undef WORDS_MUL

#if defined(__x86_64__)
#define ROWS(name) v3_##name
#define ROWS_TARGET __attribute__((target("arch=x86-64-v3")))
#define ROWS_WIDTH 8
#define ROWS_NAME "avx2"
#define WORDS_MUL(a, b) ((v3_words)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define ROWS_FMA(a, b, c) ((VEC)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_FMA(a, b, c) ((LANES)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_SQRT(a) ((LANES)_mm256_sqrt_ps((__m256)(a)))
#include "trainer/learn/cpu_vectors.h"
#include "trainer/learn/cpu_philox.h"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME
#undef ROWS_FMA
#undef LANES_FMA
#undef LANES_SQRT
#undef WORDS_MUL

#define ROWS(name) v4_##name
#if defined(__clang__)
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4"), min_vector_width(512)))
#else
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4")))
#endif
#define ROWS_WIDTH 16
#define ROWS_NAME "avx512"
#define WORDS_MUL(a, b) ((v4_words)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#define ROWS_FMA(a, b, c) ((VEC)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define LANES_FMA(a, b, c) ((LANES)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_SQRT(a) ((LANES)_mm256_sqrt_ps((__m256)(a)))
#include "trainer/learn/cpu_vectors.h"
#include "trainer/learn/cpu_philox.h"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
#undef ROWS
#undef ROWS_TARGET
#undef ROWS_WIDTH
#undef ROWS_NAME
#undef ROWS_FMA
#undef LANES_FMA
#undef LANES_SQRT
#undef WORDS_MUL
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
