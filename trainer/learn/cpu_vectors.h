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

#if ROWS_WIDTH == 4
#define FOLD(a, b) (SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7))
#else
#define FOLD(a, b) (SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15))
#if ROWS_WIDTH == 16
#define HALF(a) (SHUFFLE(a, a, 0, 1, 2, 3, 4, 5, 6, 7) + SHUFFLE(a, a, 8, 9, 10, 11, 12, 13, 14, 15))
#else
#define HALF(a) ((LANES)(a))
#endif
#endif

/* ret[t] = sum of the elements of v[t], eight of them. */
ROWS_INLINE void ROWS(sum_lanes)(const VEC *v, LANES *ret)
{
#if ROWS_WIDTH == 4
	VEC ab = FOLD(v[0], v[1]), cd = FOLD(v[2], v[3]), ef = FOLD(v[4], v[5]), gh = FOLD(v[6], v[7]);
	VEC abcd = FOLD(ab, cd), efgh = FOLD(ef, gh);
	*ret = SHUFFLE(abcd, efgh, 0, 1, 2, 3, 4, 5, 6, 7);
#else
	LANES ab = FOLD(HALF(v[0]), HALF(v[1])), cd = FOLD(HALF(v[2]), HALF(v[3]));
	LANES ef = FOLD(HALF(v[4]), HALF(v[5])), gh = FOLD(HALF(v[6]), HALF(v[7]));
	LANES abcd = FOLD(ab, cd), efgh = FOLD(ef, gh);
	*ret = SHUFFLE(abcd, efgh, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(abcd, efgh, 4, 5, 6, 7, 12, 13, 14, 15);
#endif
}

/* The same for four. */
ROWS_INLINE void ROWS(sum_four)(const VEC *v, float *ret)
{
	typedef float four __attribute__((vector_size(16)));
#if ROWS_WIDTH == 4
	VEC ab = FOLD(v[0], v[1]), cd = FOLD(v[2], v[3]);
	four sums = (four)FOLD(ab, cd);
#else
	LANES ab = FOLD(HALF(v[0]), HALF(v[1])), cd = FOLD(HALF(v[2]), HALF(v[3]));
	LANES abcd = FOLD(ab, cd);
	four sums = SHUFFLE(abcd, abcd, 0, 1, 2, 3) + SHUFFLE(abcd, abcd, 4, 5, 6, 7);
#endif
	memcpy(ret, &sums, sizeof sums);
}
#undef FOLD
#undef HALF
