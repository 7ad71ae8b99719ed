/*
 * cpu_rows.h: body of the row kernels; cpu_kernels.c includes it once per instruction level, with ROWS(name), ROWS_TARGET and ROWS_WIDTH (floats of a vector).
 *
 * Race model of update(): Hogwild (Niu et al., NIPS 2011). Threads read and write rows, biases and sums without any order; a lost or torn update of a
 * row is noise that SGD bears, since two threads rarely meet in a row. Relaxed atomics would keep the compiler from vectorising, so these functions, and
 * no others, are hidden from the thread sanitizer.
 */
/* no include guard: included several times on purpose */

typedef float ROWS(vec) __attribute__((vector_size(ROWS_WIDTH * sizeof(float)), aligned(sizeof(float)), may_alias));
#define VEC ROWS(vec)
#define ROWS_FN static ROWS_TARGET __attribute__((no_sanitize("thread")))
#define ROWS_INLINE static inline ROWS_TARGET __attribute__((no_sanitize("thread"), always_inline))
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, v) (*(VEC *)(p) = (v))

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

/* stride: a constant where the caller is specialised, so that the loops unroll and the rows stay in registers. */
ROWS_INLINE void ROWS(update_one)(const struct row_update *c, const struct draw *draw, size_t stride, int adagrad, struct update_sums *sums)
{
	float *u = c->U + (size_t)draw->user * stride;
	float *p = c->V + (size_t)draw->pos * stride;
	float *n = c->V + (size_t)draw->neg * stride;
	struct user_side *side_u = &c->users[draw->user];
	struct item_side *side_p = &c->items[draw->pos];
	struct item_side *side_n = &c->items[draw->neg];
	/* All sums over the rows in one pass: x, and what the gradients' norms are made of, so that nothing waits for z but the last pass. */
	VEC ud = {0}, dd = {0}, uu = {0}, up = {0}, pp = {0}, nn = {0};
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		VEC dk = pk - nk;
		ud += uk * dk;
		dd += dk * dk;
		uu += uk * uk;
		up += uk * pk;
		pp += pk * pk;
		nn += nk * nk;
	}
	float bias_p = side_p->bias, bias_n = side_n->bias;
	float sum_ud = ROWS(sum)(&ud), sum_uu = ROWS(sum)(&uu), sum_up = ROWS(sum)(&up);
	float x = sum_ud + (bias_p - bias_n);
	if (!bpr_is_finite(x)) {
		sums->nonfinite = 1;
		sums->rejected++;
		return;
	}
	float z = bpr_sigmoid(-x);
	if (sums->triples++ % LOSS_EVERY == 0) {
		sums->loss += (double)bpr_softplus(-x);
		sums->loss_n++;
	}
	float gbp = z - c->reg_bias * bias_p, gbn = -z - c->reg_bias * bias_n;
	/* |z d - r u|^2 and so on; rounding may take a tiny one below zero */
	float norm_u = z * z * ROWS(sum)(&dd) - 2.0f * z * c->reg_user * sum_ud + c->reg_user * c->reg_user * sum_uu;
	float norm_p = z * z * sum_uu - 2.0f * z * c->reg_pos * sum_up + c->reg_pos * c->reg_pos * ROWS(sum)(&pp);
	float norm_n = z * z * sum_uu + 2.0f * z * c->reg_neg * (sum_up - sum_ud) + c->reg_neg * c->reg_neg * ROWS(sum)(&nn);
	norm_u = norm_u < 0.0f ? 0.0f : norm_u;
	norm_p = (norm_p < 0.0f ? 0.0f : norm_p) + gbp * gbp;
	norm_n = (norm_n < 0.0f ? 0.0f : norm_n) + gbn * gbn;
	float su = bpr_step_scale(c->rate, norm_u, c->per_user, c->norm_max, adagrad ? &side_u->acc : NULL);
	float sp = bpr_step_scale(c->rate, norm_p, c->per_item, c->norm_max, adagrad ? &side_p->acc : NULL);
	float sn = bpr_step_scale(c->rate, norm_n, c->per_item, c->norm_max, adagrad ? &side_n->acc : NULL);
	side_u->stamp = c->epoch;
	side_p->bias = bias_p + sp * gbp;
	side_n->bias = bias_n + sn * gbn;

	/* row += scale * (gradient), with scale * z and 1 - scale * reg taken together */
	float uz = su * z, uk_keep = 1.0f - su * c->reg_user;
	float pz = sp * z, pk_keep = 1.0f - sp * c->reg_pos;
	float nz = sn * z, nk_keep = 1.0f - sn * c->reg_neg;
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		STORE(u + k, uk_keep * uk + uz * (pk - nk));
		STORE(p + k, pk_keep * pk + pz * uk);
		STORE(n + k, nk_keep * nk - nz * uk);
	}
}

ROWS_INLINE void ROWS(update_many)(const struct row_update *c, const struct draw *draws, size_t n, size_t stride, int adagrad,
                                   struct update_sums *sums)
{
	for (size_t i = 0; i < n; i++) {
		if (draws[i].neg == SAMPLE_NONE)
			sums->rejected++;
		else
			ROWS(update_one)(c, &draws[i], stride, adagrad, sums);
	}
}

#define ROWS_SPECIAL(width)                                                                                                                        \
	ROWS_FN void ROWS(sgd_##width)(const struct row_update *c, const struct draw *d, size_t n, struct update_sums *s)                         \
	{                                                                                                                                         \
		ROWS(update_many)(c, d, n, width, 0, s);                                                                                          \
	}                                                                                                                                         \
	ROWS_FN void ROWS(adagrad_##width)(const struct row_update *c, const struct draw *d, size_t n, struct update_sums *s)                     \
	{                                                                                                                                         \
		ROWS(update_many)(c, d, n, width, 1, s);                                                                                          \
	}
ROWS_SPECIAL(16)
ROWS_SPECIAL(32)
ROWS_SPECIAL(64)
ROWS_SPECIAL(128)

ROWS_FN void ROWS(sgd_any)(const struct row_update *c, const struct draw *d, size_t n, struct update_sums *s)
{
	ROWS(update_many)(c, d, n, c->stride, 0, s);
}

ROWS_FN void ROWS(adagrad_any)(const struct row_update *c, const struct draw *d, size_t n, struct update_sums *s)
{
	ROWS(update_many)(c, d, n, c->stride, 1, s);
}

ROWS_FN void ROWS(update)(const struct row_update *c, const struct draw *draws, size_t n, struct update_sums *sums)
{
	switch (c->stride) {
	case 16:
		(c->adagrad ? ROWS(adagrad_16) : ROWS(sgd_16))(c, draws, n, sums);
		break;
	case 32:
		(c->adagrad ? ROWS(adagrad_32) : ROWS(sgd_32))(c, draws, n, sums);
		break;
	case 64:
		(c->adagrad ? ROWS(adagrad_64) : ROWS(sgd_64))(c, draws, n, sums);
		break;
	case 128:
		(c->adagrad ? ROWS(adagrad_128) : ROWS(sgd_128))(c, draws, n, sums);
		break;
	default:
		(c->adagrad ? ROWS(adagrad_any) : ROWS(sgd_any))(c, draws, n, sums);
	}
}

#undef ROWS_FN
#undef ROWS_INLINE
#define ROWS_FN static ROWS_TARGET
#define ROWS_INLINE static inline ROWS_TARGET __attribute__((always_inline))

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

static const struct row_kernels ROWS(kernels) = {
	.name = ROWS_NAME,
	.update = ROWS(update),
	.score_items = ROWS(score_items),
	.copy_rows = ROWS(copy_rows),
	.score = ROWS(score),
	.pairs_gradient = ROWS(pairs_gradient),
	.dot = ROWS(dot),
	.exact_dot = ROWS(exact_dot),
	.exact_add = ROWS(exact_add),
	.exact_apply = ROWS(exact_apply),
};

#undef VEC
#undef LOAD
#undef STORE
#undef ROWS_FN
#undef ROWS_INLINE
#undef ROWS_SPECIAL
