/*
 * cpu_vectors.h: vectors of one instruction level and what the row kernels share. Included by cpu_level_*.c before the kernels' bodies, with ROWS(name),
 * ROWS_TARGET, ROWS_WIDTH (floats of a vector) and the operations that the compiler's own vectors lack.
 */
/* no include guard: the body of one file */

#define ROWS_LANES 8 /* triples that update() takes at once */
#if defined(__clang__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROWS_UNROLL /* clang unrolls constant loops by itself; sanitized builds would take minutes */
#else
#define ROWS_UNROLL _Pragma("GCC unroll 8")
#endif

typedef float ROWS(vec) __attribute__((vector_size(ROWS_WIDTH * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef float ROWS(lanes) __attribute__((vector_size(ROWS_LANES * sizeof(float))));
typedef int32_t ROWS(flags) __attribute__((vector_size(ROWS_LANES * sizeof(int32_t))));
#define VEC ROWS(vec)
#define LANES ROWS(lanes)
#define FLAGS ROWS(flags)
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, v) (*(VEC *)(p) = (v))
#define ROWS_FN static ROWS_TARGET __attribute__((no_sanitize("thread")))
#define ROWS_INLINE static inline ROWS_TARGET __attribute__((no_sanitize("thread"), always_inline))
#define SHUFFLE __builtin_shufflevector
#define PICK(flags, a, b) ((LANES)(((FLAGS)(a) & (flags)) | ((FLAGS)(b) & ~(flags))))
#define FILL(x) ((x) - (VEC){0}) /* not (VEC){0} + x: that turns -0 into 0, so it would cost an addition */

/*
 * Sums over vectors, many at once. PAIR(a, b) halves two vectors into one; sum_lanes() takes the pairs of eight vectors, sum_four() those of four.
 */
#if ROWS_WIDTH == 4
#define PAIR(a, b) (SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7)) /* a a b b */
#elif ROWS_WIDTH == 8
#define PAIR(a, b) (SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)) /* a a b b, twice */
#else
#define PAIR(a, b)                                                                                                                                   \
	(SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +                                                               \
	 SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)) /* eight of a, eight of b */
#define LOW_TWO(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_TWO(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define SWAPPED(a) SHUFFLE(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#endif

/* ret[t] = sum of the elements of v[t], of eight vectors; pairs[k] is PAIR(v[2 k], v[2 k + 1]). */
ROWS_INLINE void ROWS(sum_lanes)(const VEC *pairs, LANES *ret)
{
#if ROWS_WIDTH == 4
	VEC abcd = PAIR(pairs[0], pairs[1]), efgh = PAIR(pairs[2], pairs[3]);
	*ret = SHUFFLE(abcd, efgh, 0, 1, 2, 3, 4, 5, 6, 7);
#elif ROWS_WIDTH == 8
	VEC abcd = PAIR(pairs[0], pairs[1]), efgh = PAIR(pairs[2], pairs[3]);
	*ret = SHUFFLE(abcd, efgh, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(abcd, efgh, 4, 5, 6, 7, 12, 13, 14, 15);
#else
	VEC abcd = PAIR(pairs[0], pairs[1]), efgh = PAIR(pairs[2], pairs[3]);
	VEC all = LOW_TWO(abcd, efgh) + HIGH_TWO(abcd, efgh); /* a a e e b b f f .. */
	all += SWAPPED(all);
	*ret = SHUFFLE(all, all, 0, 4, 8, 12, 2, 6, 10, 14);
#endif
}

ROWS_INLINE void ROWS(sum_four)(const VEC *pairs, float *ret)
{
	typedef float four __attribute__((vector_size(16)));
	VEC abcd = PAIR(pairs[0], pairs[1]);
#if ROWS_WIDTH == 4
	four sums = (four)abcd;
#elif ROWS_WIDTH == 8
	four sums = SHUFFLE(abcd, abcd, 0, 1, 2, 3) + SHUFFLE(abcd, abcd, 4, 5, 6, 7);
#else
	VEC all = LOW_TWO(abcd, abcd) + HIGH_TWO(abcd, abcd);
	all += SWAPPED(all);
	four sums = SHUFFLE(all, all, 0, 4, 8, 12);
#endif
	memcpy(ret, &sums, sizeof sums);
}
