/*
 * test_gradients.c: every training kernel moves along the gradient of its loss. The gradient comes from central differences of the loss in double; what the
 * optimizer makes of it is worked out from those numbers. Both losses, weights, L2 of each kind, biases, plain steps, Adagrad on sums that are not zero, steps cut
 * to their longest; Hogwild kernels of each instruction level, and those of the deterministic mode.
 */
#include "tests/unit/learn/update_fixture.h"

#define ACC_BEFORE 0.03

/* What is climbed: minus the weighted loss, minus half of each L2 term, on the tables as they are. */
static double objective(const struct row_update *c, const struct rows *r, const struct draw *d)
{
	double l2 = (double)c->reg_bias * (r->db[d->pos] * r->db[d->pos] + r->db[d->neg] * r->db[d->neg]);
	for (uint32_t k = 0; k < c->dim; k++) {
		double u = r->dU[d->user][k], p = r->dV[d->pos][k], n = r->dV[d->neg][k];
		l2 += (double)c->reg_user * u * u + (double)c->reg_pos * p * p + (double)c->reg_neg * n * n;
	}
	double labels = c->loss == LOSS_BCE ? 2 : 1; /* the loss told is a mean over labels, the gradient a sum */
	return -(double)d->weight * labels * naive_loss(c, r, d) - l2 / 2;
}

static double difference(const struct row_update *c, const struct rows *r, const struct draw *d, double *w)
{
	const double h = 1e-5;
	double old = *w;
	*w = old + h;
	double up = objective(c, r, d);
	*w = old - h;
	double down = objective(c, r, d);
	*w = old;
	return (up - down) / (2 * h);
}

/* A row and, of an item, its bias at the end. */
struct slope {
	double g[STRIDE_MAX + 1];
	uint32_t n;
};

static struct slope slope_of(const struct row_update *c, const struct rows *r, const struct draw *d, double *row, double *bias)
{
	struct slope slope = {.n = c->dim};
	for (uint32_t k = 0; k < c->dim; k++)
		slope.g[k] = difference(c, r, d, &row[k]);
	if (bias)
		slope.g[slope.n++] = difference(c, r, d, bias);
	return slope;
}

/* What the optimizer makes of a slope; its numbers become steps. Returns the row's Adagrad sum after it. */
static double take_step(const struct row_update *c, struct slope *slope)
{
	double norm2 = 0, acc = ACC_BEFORE, scale = (double)c->rate;
	for (uint32_t k = 0; k < slope->n; k++)
		norm2 += slope->g[k] * slope->g[k];
	if (c->adagrad) {
		acc += norm2 / slope->n;
		scale /= sqrt(acc + 1e-8);
	}
	if (scale * sqrt(norm2) > (double)c->norm_max)
		scale = (double)c->norm_max / sqrt(norm2);
	for (uint32_t k = 0; k < slope->n; k++)
		slope->g[k] *= scale;
	return acc;
}

static void compare_step(const struct slope *step, const float *row, const double *before, float bias, double bias_before, uint32_t dim)
{
	for (uint32_t k = 0; k < dim; k++)
		assert_near((double)row[k] - before[k], step->g[k]);
	if (step->n > dim)
		assert_near((double)bias - bias_before, step->g[dim]);
}

typedef void (*update_fn)(const struct row_kernels *kernels, const struct row_update *c, const struct draw *d);

static void update_fast(const struct row_kernels *kernels, const struct row_update *c, const struct draw *d)
{
	struct update_sums sums = {0};
	kernels->update(c, d, 1, NULL, 0, &sums);
	assert_int_equal(sums.triples, 1);
}

/* A batch of one triple by the kernels of the deterministic mode. */
static void update_exact(const struct row_kernels *kernels, const struct row_update *c, const struct draw *d)
{
	static int64_t su[STRIDE_MAX + 1], sp[STRIDE_MAX + 1], sn[STRIDE_MAX + 1];
	float *u = c->U + d->user * c->stride, *p = c->V + d->pos * c->stride, *n = c->V + d->neg * c->stride;
	float bias_p = c->items[d->pos].bias, bias_n = c->items[d->neg].bias, z_pos, z_neg;
	memset(su, 0, sizeof su);
	memset(sp, 0, sizeof sp);
	memset(sn, 0, sizeof sn);
	if (c->loss == LOSS_BCE) {
		z_pos = d->weight * bpr_sigmoid(-(kernels->exact_dot(u, p, NULL, c->stride) + bias_p));
		z_neg = d->weight * bpr_sigmoid(kernels->exact_dot(u, n, NULL, c->stride) + bias_n);
		kernels->exact_add_two(su, z_pos, z_neg, p, n, c->reg_user, u, c->stride);
	} else {
		z_pos = z_neg = d->weight * bpr_sigmoid(-(kernels->exact_dot(u, p, n, c->stride) + (bias_p - bias_n)));
		kernels->exact_add(su, z_pos, p, n, c->reg_user, u, c->stride);
	}
	kernels->exact_add(sp, z_pos, u, NULL, c->reg_pos, p, c->stride);
	kernels->exact_add(sn, -z_neg, u, NULL, c->reg_neg, n, c->stride);
	sp[c->stride] = bpr_to_fixed(z_pos - c->reg_bias * bias_p);
	sn[c->stride] = bpr_to_fixed(-z_neg - c->reg_bias * bias_n);
	kernels->exact_apply(c, su, u, NULL, &c->users[d->user].acc);
	kernels->exact_apply(c, sp, p, &c->items[d->pos].bias, &c->items[d->pos].acc);
	kernels->exact_apply(c, sn, n, &c->items[d->neg].bias, &c->items[d->neg].acc);
}

/* cut: steps are cut to norm_max. */
static void check(update_fn update, int level, uint32_t dim, int optimizer, int loss, int cut)
{
	static struct rows rows;
	struct row_update c = make_rows(&rows, dim, optimizer, loss, !cut);
	struct draw d = make_draw(4); /* its weight is not 1 */
	c.norm_max = cut ? 0.01f : 1e6f;
	assert_true(d.weight < 0.9f || d.weight > 1.1f);
	for (uint32_t u = 0; u < USERS; u++)
		rows.users[u].acc = (float)ACC_BEFORE;
	for (uint32_t i = 0; i < ITEMS; i++)
		rows.items[i].acc = (float)ACC_BEFORE;
	struct slope u = slope_of(&c, &rows, &d, rows.dU[d.user], NULL);
	struct slope p = slope_of(&c, &rows, &d, rows.dV[d.pos], &rows.db[d.pos]);
	struct slope n = slope_of(&c, &rows, &d, rows.dV[d.neg], &rows.db[d.neg]);
	double acc_u = take_step(&c, &u), acc_p = take_step(&c, &p), acc_n = take_step(&c, &n);
	update(row_kernels_at(level), &c, &d);
	compare_step(&u, c.U + d.user * c.stride, rows.dU[d.user], 0, 0, dim);
	compare_step(&p, c.V + d.pos * c.stride, rows.dV[d.pos], c.items[d.pos].bias, rows.db[d.pos], dim);
	compare_step(&n, c.V + d.neg * c.stride, rows.dV[d.neg], c.items[d.neg].bias, rows.db[d.neg], dim);
	assert_near((double)c.users[d.user].acc, acc_u);
	assert_near((double)c.items[d.pos].acc, acc_p);
	assert_near((double)c.items[d.neg].acc, acc_n);
}

static void check_all(update_fn update)
{
	for (int level = 0; level < 3; level++) {
		if (!row_kernels_at(level)) {
			printf("SKIP level %d: this machine cannot run it\n", level);
			continue;
		}
		for (size_t i = 0; i < N_DIMS; i++)
			for (int bits = 0; bits < 8; bits++)
				check(update, level, dims[i], bits & 1, bits >> 1 & 1, bits >> 2);
	}
}

static void test_fast_steps(void **state)
{
	(void)state;
	check_all(update_fast);
}

static void test_exact_steps(void **state)
{
	(void)state;
	check_all(update_exact);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast_steps),
		cmocka_unit_test(test_exact_steps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
