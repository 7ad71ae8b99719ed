/*
 * cpu_rows_exact.h: body of the deterministic mode's row kernels; a part of cpu_level_*.c.
 *
 * Plain C over fixed lanes, with every fused multiply-add written out: the result has the same bits whether the compiler vectorises or not. Races are
 * excluded by the caller (each row has one owner), so these functions are visible to the thread sanitizer.
 */
/* no include guard: the body of one file */

static ROWS_TARGET float ROWS(exact_dot)(const float *a, const float *b, const float *c, size_t stride)
{
	float lanes[BPR_LANES] = {0};
	for (size_t k = 0; k < stride; k += BPR_LANES) {
		if (c) {
			for (size_t l = 0; l < BPR_LANES; l++)
				lanes[l] = BPR_FMA(a[k + l], b[k + l] - c[k + l], lanes[l]);
		} else {
			for (size_t l = 0; l < BPR_LANES; l++)
				lanes[l] = BPR_FMA(a[k + l], b[k + l], lanes[l]);
		}
	}
	for (size_t width = BPR_LANES / 2; width > 0; width /= 2)
		for (size_t l = 0; l < width; l++)
			lanes[l] += lanes[l + width];
	return lanes[0];
}

static ROWS_TARGET void ROWS(exact_add)(int64_t *sums, float z, const float *a, const float *b, float reg, const float *w, size_t stride)
{
	for (size_t k = 0; k < stride; k += BPR_LANES) { /* fixed inner loops: vectorised at -O2 */
		float direction[BPR_LANES];
		for (size_t l = 0; l < BPR_LANES; l++)
			direction[l] = a[k + l];
		if (b)
			for (size_t l = 0; l < BPR_LANES; l++)
				direction[l] -= b[k + l];
		for (size_t l = 0; l < BPR_LANES; l++)
			sums[k + l] += bpr_to_fixed(BPR_FMA(z, direction[l], -(reg * w[k + l])));
	}
}

static ROWS_TARGET void ROWS(exact_add_two)(int64_t *sums, float z_pos, float z_neg, const float *a, const float *b, float reg, const float *w, size_t stride)
{
	for (size_t k = 0; k < stride; k += BPR_LANES)
		for (size_t l = 0; l < BPR_LANES; l++)
			sums[k + l] += bpr_to_fixed(bpr_gradient_user_two(z_pos, z_neg, w[k + l], a[k + l], b[k + l], reg));
}

static ROWS_TARGET void ROWS(exact_apply)(const struct row_update *c, const int64_t *sums, float *row, float *bias, float *acc)
{
	float gradient[512];
	for (size_t k = 0; k < c->stride; k++)
		gradient[k] = bpr_from_fixed(sums[k]);
	float gradient_bias = bias ? bpr_from_fixed(sums[c->stride]) : 0.0f;
	float norm2 = BPR_FMA(gradient_bias, gradient_bias, ROWS(exact_dot)(gradient, gradient, NULL, c->stride));
	float step = bpr_step_scale(c->rate, norm2, bias ? c->per_item : c->per_user, c->norm_max, c->adagrad ? acc : NULL);
	for (size_t k = 0; k < c->stride; k++)
		row[k] = BPR_FMA(step, gradient[k], row[k]);
	if (bias)
		*bias = BPR_FMA(step, gradient_bias, *bias);
}
