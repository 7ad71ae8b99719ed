/*
 * cpu_level_v3.c: the row kernels for x86-64-v3: AVX2. See cpu_kernels.c.
 */
#include "trainer/learn/cpu_kernels.h"

#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"

#define ROWS(name) v3_##name
#define ROWS_TARGET __attribute__((target("arch=x86-64-v3")))
#define ROWS_WIDTH 8
#define ROWS_NAME "avx2"
#define ROWS_KERNELS row_kernels_v3
#define WORDS_MUL(a, b) ((v3_words)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define ROWS_FMA(a, b, c) ((VEC)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_FMA(a, b, c) ((LANES)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_SQRT(a) ((LANES)_mm256_sqrt_ps((__m256)(a)))
#include "trainer/learn/cpu_vectors.h"
#include "trainer/learn/cpu_philox.h"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_window.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
#endif
