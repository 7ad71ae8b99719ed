/*
 * cpu_rows.h: body of the row kernels that do not train; a part of cpu_level_*.c, after cpu_update.h, with ROWS(name),
 * ROWS_TARGET and ROWS_WIDTH (floats of a vector).
 */
/* no include guard: the body of one file */

#undef ROWS_FN /* seen by the thread sanitizer */
#undef ROWS_INLINE
#define ROWS_FN static ROWS_TARGET
#define ROWS_INLINE static inline ROWS_TARGET __attribute__((always_inline))

/* Sum of all elements: fold by halves. */
ROWS_INLINE float ROWS(sum)(const VEC *v)
{
	VEC s = *v;
#if ROWS_WIDTH == 16
	s += __builtin_shufflevector(s, s, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
	s += __builtin_shufflevector(s, s, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
	s += __builtin_shufflevector(s, s, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
	s += __builtin_shufflevector(s, s, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif ROWS_WIDTH == 8
	s += __builtin_shufflevector(s, s, 4, 5, 6, 7, 0, 1, 2, 3);
	s += __builtin_shufflevector(s, s, 2, 3, 0, 1, 6, 7, 4, 5);
	s += __builtin_shufflevector(s, s, 1, 0, 3, 2, 5, 4, 7, 6);
#else
	s += __builtin_shufflevector(s, s, 2, 3, 0, 1);
	s += __builtin_shufflevector(s, s, 1, 0, 3, 2);
#endif
	return s[0];
}

ROWS_FN int ROWS(copy_rows)(float *to, size_t to_stride, const float *from, size_t from_stride, size_t dim, size_t n_rows)
{
	VEC bad = {0}; /* x * 0 is 0 for finite x and NaN for all others */
	float bad_tail = 0.0f;
	if (to_stride == dim && from_stride == dim) {
		dim *= n_rows;
		n_rows = n_rows != 0;
	}
	for (size_t r = 0; r < n_rows; r++) {
		const float *a = from + r * from_stride;
		float *b = to + r * to_stride;
		size_t k = 0;
		for (; k + ROWS_WIDTH <= dim; k += ROWS_WIDTH) {
			VEC v = LOAD(a + k);
			bad += v * 0.0f;
			STORE(b + k, v);
		}
		for (; k < dim; k++) {
			b[k] = a[k];
			bad_tail += a[k] * 0.0f;
		}
	}
	return !bpr_is_finite(ROWS(sum)(&bad) + bad_tail);
}

ROWS_INLINE float ROWS(dot_any)(const float *a, const float *b, size_t dim)
{
	VEC sum0 = {0}, sum1 = {0};
	size_t k = 0;
	for (; k + 2 * ROWS_WIDTH <= dim; k += 2 * ROWS_WIDTH) {
		sum0 += LOAD(a + k) * LOAD(b + k);
		sum1 += LOAD(a + k + ROWS_WIDTH) * LOAD(b + k + ROWS_WIDTH);
	}
	if (k + ROWS_WIDTH <= dim) {
		sum0 += LOAD(a + k) * LOAD(b + k);
		k += ROWS_WIDTH;
	}
	sum0 += sum1;
	float sum = ROWS(sum)(&sum0);
	for (; k < dim; k++)
		sum += a[k] * b[k];
	return sum;
}

ROWS_FN float ROWS(dot)(const float *a, const float *b, size_t dim)
{
	return ROWS(dot_any)(a, b, dim);
}

ROWS_FN void ROWS(score)(const float *V, const float *bi, const float *row, float bu, size_t dim, size_t n_items, float *scores)
{
	size_t i = 0;
	for (; i + 4 <= n_items; i += 4) { /* four items share a load of the row */
		const float *v = V + i * dim;
		VEC s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
		size_t k = 0;
		for (; k + ROWS_WIDTH <= dim; k += ROWS_WIDTH) {
			VEC r = LOAD(row + k);
			s0 += r * LOAD(v + k);
			s1 += r * LOAD(v + dim + k);
			s2 += r * LOAD(v + 2 * dim + k);
			s3 += r * LOAD(v + 3 * dim + k);
		}
		float t[4] = {ROWS(sum)(&s0), ROWS(sum)(&s1), ROWS(sum)(&s2), ROWS(sum)(&s3)};
		for (; k < dim; k++)
			for (size_t j = 0; j < 4; j++)
				t[j] += row[k] * v[j * dim + k];
		for (size_t j = 0; j < 4; j++)
			scores[i + j] = t[j] + bu + bi[i + j];
	}
	for (; i < n_items; i++)
		scores[i] = ROWS(dot_any)(row, V + i * dim, dim) + bu + bi[i];
}

ROWS_FN void ROWS(pairs_gradient)(const float *V, const float *bi, const float *row, size_t dim, const struct item_pair *pairs, size_t n,
                                  float *gradient)
{
	for (size_t i = 0; i < n; i++) {
		const float *p = V + (size_t)pairs[i].pos * dim;
		const float *q = V + (size_t)pairs[i].neg * dim;
		VEC dots = {0};
		float x = bi[pairs[i].pos] - bi[pairs[i].neg];
		size_t k = 0;
		for (; k + ROWS_WIDTH <= dim; k += ROWS_WIDTH)
			dots += LOAD(row + k) * (LOAD(p + k) - LOAD(q + k));
		for (; k < dim; k++)
			x += row[k] * (p[k] - q[k]);
		float z = bpr_sigmoid(-(x + ROWS(sum)(&dots)));
		k = 0;
		for (; k + ROWS_WIDTH <= dim; k += ROWS_WIDTH)
			STORE(gradient + k, LOAD(gradient + k) + z * (LOAD(p + k) - LOAD(q + k)));
		for (; k < dim; k++)
			gradient[k] += z * (p[k] - q[k]);
	}
}

ROWS_FN double ROWS(logit_sums)(const float *x, const float *sign, size_t n, float b, double *slope, double *curve)
{
	double value = 0.0;
	for (size_t i = 0; i < n; i++) {
		float margin = sign[i] * (x[i] + b);
		float t = bpr_exp(margin > 0.0f ? -margin : margin); /* in 0..1, whatever the margin */
		float miss = BPR_DIV(margin > 0.0f ? t : 1.0f, 1.0f + t);
		value -= (double)((margin > 0.0f ? 0.0f : -margin) + bpr_log1p(t));
		*slope += (double)(sign[i] * miss);
		*curve += (double)(miss * (1.0f - miss));
	}
	return value;
}

const struct row_kernels ROWS_KERNELS = {
	.name = ROWS_NAME,
	.philox_run = ROWS(philox_run),
	.update = ROWS(update),
	.score_items = ROWS(score_items),
	.copy_rows = ROWS(copy_rows),
	.score = ROWS(score),
	.pairs_gradient = ROWS(pairs_gradient),
	.logit_sums = ROWS(logit_sums),
	.dot = ROWS(dot),
	.exact_dot = ROWS(exact_dot),
	.exact_add = ROWS(exact_add),
	.exact_add_two = ROWS(exact_add_two),
	.exact_apply = ROWS(exact_apply),
};
