/*
 * cpu_rows_hard.h: body of the kernel that scores the candidates of a hard negative; a part of cpu_level_*.c, after cpu_vectors.h.
 *
 * Reads rows that other threads write (Hogwild, see cpu_update.h): a torn row gives a slightly wrong order, which a random choice among few candidates
 * bears. So these functions are hidden from the thread sanitizer, too.
 */
/* no include guard: the body of one file */

/* stride: a constant where the caller is specialised. Four candidates share a load of the user's row; past the last one it is taken again. */
ROWS_INLINE void ROWS(score_many)(const struct row_update *c, uint32_t user, const uint32_t *items, size_t n, size_t stride, float *scores)
{
	const float *u = c->U + (size_t)user * stride;
	for (size_t i = 0; i < n; i += 4) {
		const uint32_t item[4] = {items[i], items[i + 1 < n ? i + 1 : n - 1], items[i + 2 < n ? i + 2 : n - 1], items[i + 3 < n ? i + 3 : n - 1]};
		const float *v0 = c->V + (size_t)item[0] * stride, *v1 = c->V + (size_t)item[1] * stride;
		const float *v2 = c->V + (size_t)item[2] * stride, *v3 = c->V + (size_t)item[3] * stride;
		VEC s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
		ROWS_UNROLL
		for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
			VEC uk = LOAD(u + k);
			s0 = ROWS_FMA(uk, LOAD(v0 + k), s0);
			s1 = ROWS_FMA(uk, LOAD(v1 + k), s1);
			s2 = ROWS_FMA(uk, LOAD(v2 + k), s2);
			s3 = ROWS_FMA(uk, LOAD(v3 + k), s3);
		}
		VEC pairs[2] = {PAIR(s0, s1), PAIR(s2, s3)};
		float four[4];
		ROWS(sum_four)(pairs, four);
		for (size_t j = 0; j < 4 && i + j < n; j++)
			scores[i + j] = four[j] + c->items[item[j]].bias;
	}
}

ROWS_FN void ROWS(score_items)(const struct row_update *c, uint32_t user, const uint32_t *items, size_t n, float *scores)
{
	if (c->stride == 64)
		ROWS(score_many)(c, user, items, n, 64, scores);
	else
		ROWS(score_many)(c, user, items, n, c->stride, scores);
}
