/*
 * cpu_update.h: body of update(), the Hogwild step over a list of triples; a part of cpu_level_*.c, after cpu_window.h.
 *
 * A window's triples are worked on together, one a lane: sums over the rows first, then the scalar maths of all lanes at once as vectors, then the rows move. The
 * rows of triples some places further on are asked for meanwhile.
 *
 * How far a step goes depends on norms of the gradients, which follow from six sums over the rows. Plain SGD needs them only to cut a step that is too long. So
 * it makes two sums (BCE: three), one of them the squares of all three rows, from which an upper bound of the norms follows; a window in which some lane's bound is
 * above the limit is done the careful way, with all sums. The result is the same.
 *
 * Race model: Hogwild (Niu et al., NIPS 2011). Threads read and write rows, biases and sums without any order; a lost or torn update of a row is noise
 * that SGD bears, since two threads rarely meet in a row. Relaxed atomics would keep the compiler from vectorising, so the functions of this file, of
 * cpu_window.h, cpu_rows_hard.h and cpu_vectors.h, and no others, are hidden from the thread sanitizer.
 */
/* no include guard: the body of one file */

/* Which dot products of the rows are summed, of lane t at [t]. D is pos - neg; BCE sums un at UD and pn at DD instead. */
enum { ROWS(UD), ROWS(UU), ROWS(UP), ROWS(DD), ROWS(PP), ROWS(NN), ROWS(N_SUMS) };

/* What stands beside the rows of a window's lanes. Read lane by lane, so that it is written long before all lanes are read as one vector. */
struct ROWS(sides) {
	_Alignas(32) float bias_p[ROWS_LANES], bias_n[ROWS_LANES], acc_u[ROWS_LANES], acc_p[ROWS_LANES], acc_n[ROWS_LANES];
};

/* Which triples' rows are asked for next: number i of draws[n], then of ahead[]. */
struct ROWS(asks) {
	const struct draw *draws, *ahead;
	size_t n, end;
	size_t user, items;
};

ROWS_INLINE const struct draw *ROWS(asked)(const struct ROWS(asks) *a, size_t i)
{
	return i < a->n ? &a->draws[i] : &a->ahead[i - a->n];
}

ROWS_INLINE void ROWS(ask_for_user)(const struct row_update *c, struct ROWS(asks) *a, size_t stride)
{
	if (a->user == a->end)
		return;
	const struct draw *draw = ROWS(asked)(a, a->user++);
	cpu_fetch_row(c->U + (size_t)draw->user * stride, &c->users[draw->user], stride);
}

ROWS_INLINE void ROWS(ask_for_items)(const struct row_update *c, struct ROWS(asks) *a, size_t stride)
{
	if (a->items == a->end)
		return;
	const struct draw *draw = ROWS(asked)(a, a->items++);
	if (draw->neg == SAMPLE_NONE)
		return;
	cpu_fetch_row(c->V + (size_t)draw->pos * stride, &c->items[draw->pos], stride);
	cpu_fetch_row(c->V + (size_t)draw->neg * stride, &c->items[draw->neg], stride);
}

/* 1 / (1 + exp(x)): bpr_sigmoid(-x) with the same constants. */
ROWS_INLINE void ROWS(sigmoid_of_minus)(const LANES *x_in, LANES *ret)
{
	const LANES zero = {0}, round_to_int = zero + 12582912.0f;
	LANES x = PICK(*x_in > 88.0f, zero + 88.0f, *x_in);
	x = PICK(x < -87.0f, zero - 87.0f, x);
	LANES shifted = LANES_FMA(x, zero + 1.44269504f, round_to_int);
	LANES n = shifted - round_to_int;
	LANES r = LANES_FMA(n, zero - 0.693359375f, x);
	r = LANES_FMA(n, zero + 2.12194440e-4f, r);
	LANES p = LANES_FMA(zero + 1.0f / 720.0f, r, zero + 1.0f / 120.0f);
	p = LANES_FMA(p, r, zero + 1.0f / 24.0f);
	p = LANES_FMA(p, r, zero + 1.0f / 6.0f);
	p = LANES_FMA(p, r, zero + 0.5f);
	p = LANES_FMA(p, r, zero + 1.0f);
	p = LANES_FMA(p, r, zero + 1.0f);
	FLAGS exponent = ((FLAGS)shifted - (FLAGS)round_to_int + 127) << 23;
	*ret = 1.0f / (1.0f + p * (LANES)exponent);
}

/* bpr_step_scale() of all lanes; acc is NULL for plain SGD. */
ROWS_INLINE void ROWS(step_scales)(const struct row_update *c, const LANES *norm2, float inverse_size, LANES *acc, LANES *ret)
{
	const LANES zero = {0};
	LANES scale = zero + c->rate;
	if (acc) {
		*acc = LANES_FMA(*norm2, zero + inverse_size, *acc);
		scale = c->rate / LANES_SQRT(*acc + BPR_ADAGRAD_EPS);
	}
	LANES step2 = scale * scale * *norm2;
	FLAGS long_ones = step2 > zero + c->norm_max * c->norm_max;
	if (ROWS(any)(&long_ones))
		scale = PICK(long_ones, scale * (c->norm_max / LANES_SQRT(step2)), scale);
	*ret = scale;
}

/* The factors that move the rows of each lane: row = keep * row + gain * other. */
struct ROWS(factors) { /* u_gain_neg: BCE alone; with BPR the user moves by u_gain times pos - neg */
	LANES u_gain, u_gain_neg, p_gain, n_gain, u_keep, p_keep, n_keep, p_bias, n_bias;
	LANES acc_u, acc_p, acc_n;
	FLAGS finite;
};

/* The loss of every LOSS_EVERY-th triple. */
ROWS_INLINE void ROWS(sample_loss)(const struct ROWS(window) *w, const LANES *x_pos, const LANES *x_neg, int bce, const FLAGS *finite,
                                   struct update_sums *sums)
{
	uint32_t t = (uint32_t)(-sums->triples % LOSS_EVERY);
	if (t >= w->n || !(*finite)[t])
		return;
	sums->loss += (double)(bce ? 0.5f * (bpr_softplus(-(*x_pos)[t]) + bpr_softplus((*x_neg)[t])) : bpr_softplus(-(*x_pos)[t]));
	sums->loss_n++;
}

/* adagrad and bce are constants of the caller. */
ROWS_INLINE void ROWS(take_factors)(const struct row_update *c, const struct ROWS(window) *w, const struct ROWS(sides) *sides, const LANES *s,
                                    int adagrad, int bce, struct update_sums *sums, struct ROWS(factors) *f)
{
	const LANES zero = {0};
	LANES bias_p, bias_n, weight;
	ROWS(load_weights)(w->draws, &weight);
	memcpy(&bias_p, sides->bias_p, sizeof bias_p);
	memcpy(&bias_n, sides->bias_n, sizeof bias_n);
	if (adagrad) {
		memcpy(&f->acc_u, sides->acc_u, sizeof f->acc_u);
		memcpy(&f->acc_p, sides->acc_p, sizeof f->acc_p);
		memcpy(&f->acc_n, sides->acc_n, sizeof f->acc_n);
	}
	LANES x, x_neg, z, z_neg, un;
	if (bce) {
		un = s[ROWS(UD)];
		x = s[ROWS(UP)] + bias_p;
		x_neg = un + bias_n;
		LANES minus = -x_neg;
		f->finite = (((FLAGS)x & 0x7f800000) != 0x7f800000) & (((FLAGS)x_neg & 0x7f800000) != 0x7f800000);
		ROWS(sigmoid_of_minus)(&x, &z);
		ROWS(sigmoid_of_minus)(&minus, &z_neg);
		z_neg *= weight;
		z *= weight;
	} else {
		un = s[ROWS(UP)] - s[ROWS(UD)];
		x = s[ROWS(UD)] + (bias_p - bias_n);
		x_neg = x;
		f->finite = ((FLAGS)x & 0x7f800000) != 0x7f800000;
		ROWS(sigmoid_of_minus)(&x, &z);
		z *= weight;
		z_neg = z;
	}
	ROWS(sample_loss)(w, &x, &x_neg, bce, &f->finite, sums);
	LANES gbp = z - c->reg_bias * bias_p, gbn = -z_neg - c->reg_bias * bias_n;
	/* |z d - r u|^2 and so on; rounding may take a tiny one below zero */
	LANES norm_u = z * z * s[ROWS(DD)] - 2.0f * c->reg_user * z * s[ROWS(UD)] + c->reg_user * c->reg_user * s[ROWS(UU)];
	if (bce)
		norm_u = z * z * s[ROWS(PP)] - 2.0f * z * z_neg * s[ROWS(DD)] + z_neg * z_neg * s[ROWS(NN)] -
		         2.0f * c->reg_user * (z * s[ROWS(UP)] - z_neg * un) + c->reg_user * c->reg_user * s[ROWS(UU)];
	LANES norm_p = z * z * s[ROWS(UU)] - 2.0f * c->reg_pos * z * s[ROWS(UP)] + c->reg_pos * c->reg_pos * s[ROWS(PP)];
	LANES norm_n = z_neg * z_neg * s[ROWS(UU)] + 2.0f * c->reg_neg * z_neg * un + c->reg_neg * c->reg_neg * s[ROWS(NN)];
	norm_u = PICK(norm_u < zero, zero, norm_u);
	norm_p = PICK(norm_p < zero, zero, norm_p) + gbp * gbp;
	norm_n = PICK(norm_n < zero, zero, norm_n) + gbn * gbn;
	LANES su, sp, sn;
	ROWS(step_scales)(c, &norm_u, c->per_user, adagrad ? &f->acc_u : NULL, &su);
	ROWS(step_scales)(c, &norm_p, c->per_item, adagrad ? &f->acc_p : NULL, &sp);
	ROWS(step_scales)(c, &norm_n, c->per_item, adagrad ? &f->acc_n : NULL, &sn);
	f->u_gain = su * z;
	f->u_gain_neg = -su * z_neg;
	f->p_gain = sp * z;
	f->n_gain = -sn * z_neg;
	f->u_keep = 1.0f - su * c->reg_user;
	f->p_keep = 1.0f - sp * c->reg_pos;
	f->n_keep = 1.0f - sn * c->reg_neg;
	f->p_bias = bias_p + sp * gbp;
	f->n_bias = bias_n + sn * gbn;
}

/* stride: a constant where the caller is specialised, so that the loops unroll and the rows stay in registers. */
ROWS_INLINE void ROWS(sum_rows)(const struct row_update *c, const struct draw *draw, size_t stride, int bce, VEC *ret)
{
	const float *u = c->U + (size_t)draw->user * stride;
	const float *p = c->V + (size_t)draw->pos * stride;
	const float *n = c->V + (size_t)draw->neg * stride;
	VEC ud = {0}, dd = {0}, uu = {0}, up = {0}, pp = {0}, nn = {0};
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		VEC dk = pk - nk, ek = dk;
		if (bce) {
			dk = nk;
			ek = pk;
		}
		ud = ROWS_FMA(uk, dk, ud);
		dd = ROWS_FMA(ek, dk, dd);
		uu = ROWS_FMA(uk, uk, uu);
		up = ROWS_FMA(uk, pk, up);
		pp = ROWS_FMA(pk, pk, pp);
		nn = ROWS_FMA(nk, nk, nn);
	}
	ret[ROWS(UD)] = ud;
	ret[ROWS(DD)] = dd;
	ret[ROWS(UU)] = uu;
	ret[ROWS(UP)] = up;
	ret[ROWS(PP)] = pp;
	ret[ROWS(NN)] = nn;
}

ROWS_INLINE void ROWS(move_rows)(const struct row_update *c, const struct draw *draw, uint32_t t, size_t stride, int adagrad, int bce,
                                 const struct ROWS(factors) *f)
{
	float *u = c->U + (size_t)draw->user * stride;
	float *p = c->V + (size_t)draw->pos * stride;
	float *n = c->V + (size_t)draw->neg * stride;
	struct user_side *side_u = &c->users[draw->user];
	struct item_side *side_p = &c->items[draw->pos], *side_n = &c->items[draw->neg];
	VEC u_gain = FILL(f->u_gain[t]), u_gain_neg = FILL(f->u_gain_neg[t]), p_gain = FILL(f->p_gain[t]), n_gain = FILL(f->n_gain[t]);
	VEC u_keep = FILL(f->u_keep[t]), p_keep = FILL(f->p_keep[t]), n_keep = FILL(f->n_keep[t]);
	ROWS_UNROLL
	for (size_t k = 0; k < stride; k += ROWS_WIDTH) {
		VEC uk = LOAD(u + k), pk = LOAD(p + k), nk = LOAD(n + k);
		VEC step = u_gain * (pk - nk);
		if (bce)
			step = ROWS_FMA(u_gain, pk, u_gain_neg * nk);
		STORE(u + k, ROWS_FMA(u_keep, uk, step));
		STORE(p + k, ROWS_FMA(p_keep, pk, p_gain * uk));
		STORE(n + k, ROWS_FMA(n_keep, nk, n_gain * uk));
	}
	side_u->stamp = c->epoch;
	side_p->bias = f->p_bias[t];
	side_n->bias = f->n_bias[t];
	if (adagrad) {
		side_u->acc = f->acc_u[t];
		side_p->acc = f->acc_p[t];
		side_n->acc = f->acc_n[t];
	}
}

/* A window with all six sums. */
ROWS_INLINE void ROWS(work_carefully)(const struct row_update *c, const struct ROWS(window) *w, size_t stride, int adagrad, int bce, struct ROWS(asks) *asks,
                                      struct update_sums *sums)
{
	struct ROWS(sides) sides = {0};
	struct ROWS(factors) f;
	VEC pairs[ROWS(N_SUMS)][ROWS_LANES / 2] = {0}, first[ROWS(N_SUMS)], second[ROWS(N_SUMS)];
	LANES s[ROWS(N_SUMS)];
	for (uint32_t t = 0; t < w->n; t += 2) {
		ROWS(ask_for_user)(c, asks, stride); /* users' rows here, items' rows below: memory has something to do all the time */
		ROWS(ask_for_user)(c, asks, stride);
		ROWS(sum_rows)(c, &w->draws[t], stride, bce, first);
		ROWS(sum_rows)(c, &w->draws[t + 1], stride, bce, second);
		ROWS_UNROLL
		for (int k = 0; k < ROWS(N_SUMS); k++)
			pairs[k][t / 2] = PAIR(first[k], second[k]);
	}
	for (uint32_t t = 0; t < w->n; t++) {
		const struct draw *draw = &w->draws[t];
		sides.bias_p[t] = c->items[draw->pos].bias;
		sides.bias_n[t] = c->items[draw->neg].bias;
		if (adagrad) {
			sides.acc_u[t] = c->users[draw->user].acc;
			sides.acc_p[t] = c->items[draw->pos].acc;
			sides.acc_n[t] = c->items[draw->neg].acc;
		}
	}
	ROWS_UNROLL
	for (int k = 0; k < ROWS(N_SUMS); k++)
		ROWS(sum_lanes)(pairs[k], &s[k]);
	ROWS(take_factors)(c, w, &sides, s, adagrad, bce, sums, &f);
	for (uint32_t t = 0; t < w->n; t++) {
		ROWS(ask_for_items)(c, asks, stride);
		if (f.finite[t]) {
			sums->triples++;
			ROWS(move_rows)(c, &w->draws[t], t, stride, adagrad, bce, &f);
		} else {
			sums->nonfinite = 1;
			sums->rejected++;
		}
	}
}

#include "trainer/learn/cpu_update_plain.h"

ROWS_INLINE void ROWS(update_many)(const struct row_update *c, const struct draw *draws, size_t n, const struct draw *ahead, size_t n_ahead,
                                   size_t stride, int adagrad, int bce, struct update_sums *sums)
{
	size_t at = 0;
	struct ROWS(window) w;
	struct ROWS(asks) asks = {draws, ahead, n, n + (n_ahead < UPDATE_AHEAD ? n_ahead : UPDATE_AHEAD), UPDATE_AHEAD, UPDATE_AHEAD};
	if (asks.end < UPDATE_AHEAD)
		asks.user = asks.items = asks.end;
	while (at < n) {
		ROWS(fill_window)(draws, n, &at, &w, sums);
		if (w.n == 0)
			break;
		if (adagrad)
			ROWS(work_carefully)(c, &w, stride, 1, bce, &asks, sums);
		else
			ROWS(work_plainly)(c, &w, stride, bce, &asks, sums);
	}
	while (asks.user < asks.end)
		ROWS(ask_for_user)(c, &asks, stride);
	while (asks.items < asks.end)
		ROWS(ask_for_items)(c, &asks, stride);
}

#define ROWS_SPECIAL(name, width)                                                                                                                    \
	ROWS_FN void ROWS(update_##name)(const struct row_update *c, const struct draw *d, size_t n, const struct draw *a, size_t n_a,           \
	                                  struct update_sums *s)                                                                                  \
	{                                                                                                                                         \
		if (c->loss == LOSS_BCE && c->adagrad)                                                                                            \
			ROWS(update_many)(c, d, n, a, n_a, width, 1, 1, s);                                                                       \
		else if (c->loss == LOSS_BCE)                                                                                                     \
			ROWS(update_many)(c, d, n, a, n_a, width, 0, 1, s);                                                                       \
		else if (c->adagrad)                                                                                                              \
			ROWS(update_many)(c, d, n, a, n_a, width, 1, 0, s);                                                                       \
		else                                                                                                                              \
			ROWS(update_many)(c, d, n, a, n_a, width, 0, 0, s);                                                                       \
	}
ROWS_SPECIAL(16, 16)
ROWS_SPECIAL(32, 32)
ROWS_SPECIAL(64, 64)
ROWS_SPECIAL(128, 128)
ROWS_SPECIAL(any, c->stride)

ROWS_FN void ROWS(update)(const struct row_update *c, const struct draw *draws, size_t n, const struct draw *ahead, size_t n_ahead,
                          struct update_sums *sums)
{
	switch (c->stride) {
	case 16:
		ROWS(update_16)(c, draws, n, ahead, n_ahead, sums);
		break;
	case 32:
		ROWS(update_32)(c, draws, n, ahead, n_ahead, sums);
		break;
	case 64:
		ROWS(update_64)(c, draws, n, ahead, n_ahead, sums);
		break;
	case 128:
		ROWS(update_128)(c, draws, n, ahead, n_ahead, sums);
		break;
	default:
		ROWS(update_any)(c, draws, n, ahead, n_ahead, sums);
	}
}

#undef ROWS_SPECIAL
