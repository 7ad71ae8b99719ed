/*
 * cpu_level_plain.c: the row kernels for any processor. See cpu_kernels.c.
 */
#include "trainer/learn/cpu_kernels.h"

#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"

#define ROWS(name) plain_##name
#define ROWS_TARGET
#define ROWS_WIDTH 4
#define ROWS_NAME "plain"
#define ROWS_KERNELS row_kernels_plain
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
#include "trainer/learn/cpu_window.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
