/*
 * cpu_rows_hard.h: body of the kernel that scores the candidates of a hard negative; cpu_kernels.c includes it once per instruction level, before
 * cpu_rows_exact.h.
 *
 * Reads rows that other threads write (Hogwild, see cpu_update.h): a torn row gives a slightly wrong order, which a random choice among few candidates
 * bears. So these functions are hidden from the thread sanitizer, too.
 */
/* no include guard: included several times on purpose */

typedef float ROWS(hard_vec) __attribute__((vector_size(ROWS_WIDTH * sizeof(float)), aligned(sizeof(float)), may_alias));

static inline ROWS_TARGET __attribute__((no_sanitize("thread"), always_inline)) void ROWS(hard_any)(const struct row_update *c, uint32_t user,
                                                                                                     const uint32_t *items, size_t n, size_t stride,
                                                                                                     float *scores)
{
	const float *u = c->U + (size_t)user * stride;
	for (size_t i = 0; i < n; i++) {
		const float *v = c->V + (size_t)items[i] * stride;
		ROWS(hard_vec) sum = {0};
		ROWS_UNROLL
		for (size_t k = 0; k < stride; k += ROWS_WIDTH)
			sum += *(const ROWS(hard_vec) *)(u + k) * *(const ROWS(hard_vec) *)(v + k);
		float score = c->items[items[i]].bias;
		for (size_t l = 0; l < ROWS_WIDTH; l++)
			score += sum[l];
		scores[i] = score;
	}
}

static ROWS_TARGET __attribute__((no_sanitize("thread"))) void ROWS(score_items)(const struct row_update *c, uint32_t user, const uint32_t *items, size_t n,
                                                                                  float *scores)
{
	if (c->stride == 64)
		ROWS(hard_any)(c, user, items, n, 64, scores);
	else
		ROWS(hard_any)(c, user, items, n, c->stride, scores);
}
