/*
 * cpu_update_plain.h: body of the window of plain SGD; a part of cpu_update.h, which says how it saves sums.
 */
/* no include guard: the body of one file */

/* The sums that it makes. SQUARES: |u|^2 + |p|^2 + |n|^2. BCE sums un at UD and up at UP; BPR leaves UP alone. */
enum { ROWS(PLAIN_UD), ROWS(PLAIN_SQUARES), ROWS(PLAIN_UP), ROWS(PLAIN_N_SUMS) };

ROWS_INLINE void ROWS(sum_plain)(const struct row_update *c, const struct draw *draw, size_t stride, int bce, VEC *ret)
{
	const float *u = c->U + (size_t)draw->user * stride;
	const float *p = c->V + (size_t)draw->pos * stride;
	const float *n = c->V + (size_t)draw->neg * stride;
	VEC ud = {0}, up = {0}, squares = {0}, squares_n = {0};
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		squares = ROWS_FMA(uk, uk, squares);
		squares_n = ROWS_FMA(nk, nk, squares_n);
		squares = ROWS_FMA(pk, pk, squares);
		if (bce) {
			ud = ROWS_FMA(uk, nk, ud);
			up = ROWS_FMA(uk, pk, up);
		} else {
			ud = ROWS_FMA(uk, pk - nk, ud);
		}
	}
	ret[ROWS(PLAIN_UD)] = ud;
	ret[ROWS(PLAIN_SQUARES)] = squares + squares_n;
	ret[ROWS(PLAIN_UP)] = up;
}

/* What moves the rows of each lane: u = keep_u u + pos p - neg n, p = keep_p p + pos u, n = keep_n n - neg u. BPR: neg is pos. */
struct ROWS(gains) {
	LANES pos, neg, p_bias, n_bias;
};

/* 0: some step may be too long or a score is not finite, and nothing was done. */
ROWS_INLINE int ROWS(plain_gains)(const struct row_update *c, const struct ROWS(window) *w, const struct ROWS(sides) *sides, const LANES *s, int bce,
                                  struct update_sums *sums, struct ROWS(gains) *ret)
{
	const LANES zero = {0};
	LANES bias_p, bias_n, weight, x, x_neg, z, z_neg;
	ROWS(load_weights)(w->draws, &weight);
	memcpy(&bias_p, sides->bias_p, sizeof bias_p);
	memcpy(&bias_n, sides->bias_n, sizeof bias_n);
	if (bce) {
		x = s[ROWS(PLAIN_UP)] + bias_p;
		x_neg = s[ROWS(PLAIN_UD)] + bias_n;
		LANES minus = -x_neg;
		ROWS(sigmoid_of_minus)(&x, &z);
		ROWS(sigmoid_of_minus)(&minus, &z_neg);
		z *= weight;
		z_neg *= weight;
	} else {
		x = x_neg = s[ROWS(PLAIN_UD)] + (bias_p - bias_n);
		ROWS(sigmoid_of_minus)(&x, &z);
		z *= weight;
		z_neg = z;
	}
	LANES gbp = z - c->reg_bias * bias_p, gbn = -z_neg - c->reg_bias * bias_n;
	/* |z p - z_neg n - r u| <= sqrt(2) max(z, z_neg) |(p, n)| + r |u|, and so on; a little more for rounding */
	float reg = c->reg_user > c->reg_pos ? c->reg_user : c->reg_pos;
	reg = reg > c->reg_neg ? reg : c->reg_neg;
	LANES pull = PICK(z > z_neg, z, z_neg) * 1.4143f + reg;
	LANES bound = pull * pull * s[ROWS(PLAIN_SQUARES)] * 1.001f + gbp * gbp + gbn * gbn;
	FLAGS fits = (bound * (c->rate * c->rate) < zero + c->norm_max * c->norm_max); /* not when it is not a number */
	FLAGS finite = (((FLAGS)x & 0x7f800000) != 0x7f800000) & (((FLAGS)x_neg & 0x7f800000) != 0x7f800000);
	FLAGS bad = ~(fits & finite);
	if (ROWS(any)(&bad))
		return 0;
	ROWS(sample_loss)(w, &x, &x_neg, bce, &finite, sums);
	ret->pos = c->rate * z;
	ret->neg = c->rate * z_neg;
	ret->p_bias = bias_p + c->rate * gbp;
	ret->n_bias = bias_n + c->rate * gbn;
	return 1;
}

ROWS_INLINE void ROWS(move_plain)(const struct row_update *c, const struct draw *draw, uint32_t t, size_t stride, int bce, const struct ROWS(gains) *g)
{
	float *u = c->U + (size_t)draw->user * stride;
	float *p = c->V + (size_t)draw->pos * stride;
	float *n = c->V + (size_t)draw->neg * stride;
	const VEC pos = FILL(g->pos[t]), neg = FILL(g->neg[t]);
	const VEC u_keep = FILL(1.0f - c->rate * c->reg_user), p_keep = FILL(1.0f - c->rate * c->reg_pos), n_keep = FILL(1.0f - c->rate * c->reg_neg);
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		VEC p_step = pos * uk, n_step = p_step, u_step = pos * (pk - nk);
		if (bce) {
			n_step = neg * uk;
			u_step = pos * pk - neg * nk;
		}
		STORE(u + k, ROWS_FMA(u_keep, uk, u_step));
		STORE(p + k, ROWS_FMA(p_keep, pk, p_step));
		STORE(n + k, ROWS_FMA(n_keep, nk, -n_step));
	}
	c->users[draw->user].stamp = c->epoch;
	c->items[draw->pos].bias = g->p_bias[t];
	c->items[draw->neg].bias = g->n_bias[t];
}

ROWS_FN __attribute__((noinline)) void ROWS(work_again)(const struct row_update *c, const struct ROWS(window) *w, struct ROWS(asks) *asks,
                                                        struct update_sums *sums)
{
	if (c->loss == LOSS_BCE)
		ROWS(work_carefully)(c, w, c->stride, 0, 1, asks, sums);
	else
		ROWS(work_carefully)(c, w, c->stride, 0, 0, asks, sums);
}

ROWS_INLINE void ROWS(work_plainly)(const struct row_update *c, const struct ROWS(window) *w, size_t stride, int bce, struct ROWS(asks) *asks,
                                    struct update_sums *sums)
{
	struct ROWS(sides) sides;
	struct ROWS(gains) gains;
	VEC pairs[ROWS(PLAIN_N_SUMS)][ROWS_LANES / 2], first[ROWS(PLAIN_N_SUMS)], second[ROWS(PLAIN_N_SUMS)];
	LANES s[ROWS(PLAIN_N_SUMS)];
	const int n_sums = bce ? ROWS(PLAIN_N_SUMS) : ROWS(PLAIN_UP);
	ROWS_UNROLL
	for (uint32_t t = 0; t < ROWS_LANES; t += 2) {
		const struct draw *a = &w->draws[t], *b = &w->draws[t + 1];
		ROWS(ask_for_user)(c, asks, stride);
		ROWS(ask_for_user)(c, asks, stride);
		sides.bias_p[t] = c->items[a->pos].bias;
		sides.bias_n[t] = c->items[a->neg].bias;
		sides.bias_p[t + 1] = c->items[b->pos].bias;
		sides.bias_n[t + 1] = c->items[b->neg].bias;
		ROWS(sum_plain)(c, a, stride, bce, first);
		ROWS(sum_plain)(c, b, stride, bce, second);
		ROWS_UNROLL
		for (int k = 0; k < n_sums; k++)
			pairs[k][t / 2] = PAIR(first[k], second[k]);
	}
	ROWS_UNROLL
	for (int k = 0; k < n_sums; k++)
		ROWS(sum_lanes)(pairs[k], &s[k]);
	if (!ROWS(plain_gains)(c, w, &sides, s, bce, sums, &gains)) {
		ROWS(work_again)(c, w, asks, sums);
		return;
	}
	for (uint32_t t = 0; t < w->n; t++) {
		ROWS(ask_for_items)(c, asks, stride);
		ROWS(move_plain)(c, &w->draws[t], t, stride, bce, &gains);
	}
	sums->triples += w->n;
}
