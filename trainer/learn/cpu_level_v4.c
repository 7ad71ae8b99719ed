/*
 * cpu_level_v4.c: the row kernels for x86-64-v4: AVX-512. See cpu_kernels.c.
 */
#include "trainer/learn/cpu_kernels.h"

#include <stddef.h>
#include <string.h>
#if ROW_KERNELS_HAVE_V4
#include <immintrin.h>

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/philox.h"

#define ROWS(name) v4_##name
#if defined(__clang__)
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4"), min_vector_width(512)))
#else
#define ROWS_TARGET __attribute__((target("arch=x86-64-v4")))
#endif
#define ROWS_WIDTH 16
#define ROWS_NAME "avx512"
#define ROWS_KERNELS row_kernels_v4
#define WORDS_MUL(a, b) ((v4_words)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#define ROWS_FMA(a, b, c) ((VEC)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define LANES_FMA(a, b, c) ((LANES)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define LANES_SQRT(a) ((LANES)_mm256_sqrt_ps((__m256)(a)))
/* Users as lanes 0..7 of one vector, positives and negatives as 16 lanes of another: an equal one before it marks a lane. */
#define ROWS_TWICE(u, p, n)                                                                                                                          \
	(_mm512_test_epi32_mask(_mm512_conflict_epi32(_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)(p)), (__m256i)(n), 1)), _mm512_set1_epi32(-1)) |   \
	 _mm256_test_epi32_mask(_mm256_conflict_epi32((__m256i)(u)), _mm256_set1_epi32(-1)))
#include "trainer/learn/cpu_vectors.h"
#include "trainer/learn/cpu_philox.h"
#include "trainer/learn/cpu_rows_exact.h"
#include "trainer/learn/cpu_rows_hard.h"
#include "trainer/learn/cpu_window.h"
#include "trainer/learn/cpu_update.h"
#include "trainer/learn/cpu_rows.h"
#endif
