/*
 * update_fixture.h: small tables for the tests of the row kernels that train, the same in double, and one triple by the book. Each test includes it once.
 */
#ifndef TESTS_UNIT_LEARN_UPDATE_FIXTURE_H
#define TESTS_UNIT_LEARN_UPDATE_FIXTURE_H

#include <math.h>
#include <stdio.h>

#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/bpr_math.h"
#include "trainer/learn/cpu_kernels.h"

static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 100, 128, 512};
#define N_DIMS (sizeof dims / sizeof *dims)
#define USERS 5u
#define ITEMS 9u
#define STRIDE_MAX 512u

/* Working tables with rows of `stride`, and the same in double. */
struct rows {
	_Alignas(64) float U[USERS * STRIDE_MAX], V[ITEMS * STRIDE_MAX];
	struct user_side users[USERS];
	struct item_side items[ITEMS];
	double dU[USERS][STRIDE_MAX], dV[ITEMS][STRIDE_MAX], db[ITEMS], acc_user[USERS], acc_item[ITEMS];
};

/* Regularisation is never zero, each another one. far: no step is cut short; else many are. */
static inline struct row_update make_rows(struct rows *r, uint32_t dim, int optimizer, int loss, int far)
{
	memset(r, 0, sizeof *r);
	uint32_t stride = (dim + 15) / 16 * 16;
	for (uint32_t u = 0; u < USERS; u++)
		for (uint32_t k = 0; k < dim; k++)
			r->dU[u][k] = (double)(r->U[u * stride + k] = philox_centred(world_random(u * 1000 + k, 20)));
	for (uint32_t i = 0; i < ITEMS; i++) {
		for (uint32_t k = 0; k < dim; k++)
			r->dV[i][k] = (double)(r->V[i * stride + k] = philox_centred(world_random(i * 1000 + k, 21)));
		r->db[i] = (double)(r->items[i].bias = philox_centred(world_random(i, 22)));
	}
	return (struct row_update){.U = r->U, .V = r->V, .users = r->users, .items = r->items, .dim = dim, .stride = stride, .epoch = 77,
	                           .adagrad = optimizer == OPTIMIZER_ADAGRAD, .loss = loss, .rate = 0.05f, .reg_user = 0.013f, .reg_pos = 0.2f,
	                           .reg_neg = 0.07f, .reg_bias = 0.03f, .norm_max = far ? 1e3f : 0.06f,
	                           .per_user = 1.0f / (float)dim, .per_item = 1.0f / (float)(dim + 1)};
}

/* Triple number n; every third weighs 1, the others 0.25 to 2.25. */
static inline struct draw make_draw(uint32_t n)
{
	uint32_t pos = world_random(n, 23) % ITEMS;
	return (struct draw){.user = world_random(n, 24) % USERS, .pos = pos, .neg = (pos + 1 + world_random(n, 25) % (ITEMS - 1)) % ITEMS,
	                     .weight = n % 3 == 0 ? 1.0f : 1.25f + 2.0f * philox_centred(world_random(n, 33))};
}

/* The two scores of a triple without what cancels or is not trained. */
static inline void naive_scores(const struct row_update *c, const struct rows *r, const struct draw *d, double *ret_pos, double *ret_neg)
{
	*ret_pos = r->db[d->pos];
	*ret_neg = r->db[d->neg];
	for (uint32_t k = 0; k < c->dim; k++) {
		*ret_pos += r->dU[d->user][k] * r->dV[d->pos][k];
		*ret_neg += r->dU[d->user][k] * r->dV[d->neg][k];
	}
}

/* Loss of a triple, its weight and L2 left out. */
static inline double naive_loss(const struct row_update *c, const struct rows *r, const struct draw *d)
{
	double x_pos, x_neg;
	naive_scores(c, r, d, &x_pos, &x_neg);
	return c->loss == LOSS_BCE ? (log1p(exp(-x_pos)) + log1p(exp(x_neg))) / 2 : log1p(exp(x_neg - x_pos));
}

static inline double naive_scale(const struct row_update *c, double norm2, double size, double *acc)
{
	double scale = (double)c->rate;
	if (c->adagrad) {
		*acc += norm2 / size;
		scale /= sqrt(*acc + 1e-8);
	}
	double length = scale * sqrt(norm2);
	return length > (double)c->norm_max ? scale * (double)c->norm_max / length : scale;
}

/* One triple by the book, in double. */
static inline void naive_update(const struct row_update *c, struct rows *r, const struct draw *d)
{
	double *u = r->dU[d->user], *p = r->dV[d->pos], *n = r->dV[d->neg];
	double gu[STRIDE_MAX], gp[STRIDE_MAX], gn[STRIDE_MAX], x_pos, x_neg, u2 = 0;
	naive_scores(c, r, d, &x_pos, &x_neg);
	double z_pos = (double)d->weight / (1 + exp(x_pos - (c->loss == LOSS_BCE ? 0 : x_neg)));
	double z_neg = c->loss == LOSS_BCE ? (double)d->weight / (1 + exp(-x_neg)) : z_pos;
	double gbp = z_pos - (double)c->reg_bias * r->db[d->pos], gbn = -z_neg - (double)c->reg_bias * r->db[d->neg];
	double p2 = gbp * gbp, n2 = gbn * gbn;
	for (uint32_t k = 0; k < c->dim; k++) {
		gu[k] = z_pos * p[k] - z_neg * n[k] - (double)c->reg_user * u[k];
		gp[k] = z_pos * u[k] - (double)c->reg_pos * p[k];
		gn[k] = -z_neg * u[k] - (double)c->reg_neg * n[k];
		u2 += gu[k] * gu[k];
		p2 += gp[k] * gp[k];
		n2 += gn[k] * gn[k];
	}
	double su = naive_scale(c, u2, c->dim, &r->acc_user[d->user]);
	double sp = naive_scale(c, p2, c->dim + 1.0, &r->acc_item[d->pos]);
	double sn = naive_scale(c, n2, c->dim + 1.0, &r->acc_item[d->neg]);
	for (uint32_t k = 0; k < c->dim; k++) {
		u[k] += su * gu[k];
		p[k] += sp * gp[k];
		n[k] += sn * gn[k];
	}
	r->db[d->pos] += sp * gbp;
	r->db[d->neg] += sn * gbn;
}

static inline void assert_near(double a, double b)
{
	if (!(fabs(a - b) <= 2e-5 * (1 + fabs(b))))
		fail_msg("%.9g is not %.9g", a, b);
}

static inline void compare_rows(const struct row_update *c, const struct rows *r)
{
	for (uint32_t u = 0; u < USERS; u++) {
		for (uint32_t k = 0; k < c->stride; k++)
			assert_near((double)c->U[u * c->stride + k], k < c->dim ? r->dU[u][k] : 0.0);
		assert_near((double)c->users[u].acc, r->acc_user[u]);
	}
	for (uint32_t i = 0; i < ITEMS; i++) {
		for (uint32_t k = 0; k < c->stride; k++)
			assert_near((double)c->V[i * c->stride + k], k < c->dim ? r->dV[i][k] : 0.0);
		assert_near((double)c->items[i].bias, r->db[i]);
		assert_near((double)c->items[i].acc, r->acc_item[i]);
	}
}

#endif
