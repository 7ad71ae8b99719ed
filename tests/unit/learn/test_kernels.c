/*
 * test_kernels.c: the row kernels of every instruction level that this machine runs, against naive loops in double, and by finite differences.
 * Regularisation is never zero; dims around the vector widths.
 */
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

static struct row_update make_rows(struct rows *r, uint32_t dim, int adagrad)
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
	                           .adagrad = adagrad, .rate = 0.05f, .reg_user = 0.013f, .reg_pos = 0.2f, .reg_neg = 0.07f, .reg_bias = 0.03f,
	                           .norm_max = 0.06f,
	                           .per_user = 1.0f / (float)dim, .per_item = 1.0f / (float)(dim + 1)};
}

static struct draw make_draw(uint32_t n)
{
	uint32_t pos = world_random(n, 23) % ITEMS;
	return (struct draw){.user = world_random(n, 24) % USERS, .pos = pos, .neg = (pos + 1 + world_random(n, 25) % (ITEMS - 1)) % ITEMS, .weight = 1.0f};
}

static double naive_scale(const struct row_update *c, double norm2, double size, double *acc)
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
static void naive_update(const struct row_update *c, struct rows *r, const struct draw *d)
{
	double *u = r->dU[d->user], *p = r->dV[d->pos], *n = r->dV[d->neg];
	double gu[STRIDE_MAX], gp[STRIDE_MAX], gn[STRIDE_MAX], x = r->db[d->pos] - r->db[d->neg];
	for (uint32_t k = 0; k < c->dim; k++)
		x += u[k] * (p[k] - n[k]);
	double z = 1 / (1 + exp(x)), u2 = 0;
	double gbp = z - (double)c->reg_bias * r->db[d->pos], gbn = -z - (double)c->reg_bias * r->db[d->neg];
	double p2 = gbp * gbp, n2 = gbn * gbn;
	for (uint32_t k = 0; k < c->dim; k++) {
		gu[k] = z * (p[k] - n[k]) - (double)c->reg_user * u[k];
		gp[k] = z * u[k] - (double)c->reg_pos * p[k];
		gn[k] = -z * u[k] - (double)c->reg_neg * n[k];
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

static void assert_near(double a, double b)
{
	if (!(fabs(a - b) <= 2e-5 * (1 + fabs(b))))
		fail_msg("%.9g is not %.9g", a, b);
}

static void compare_rows(const struct row_update *c, const struct rows *r)
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

static void test_update_is_the_naive_one(void **state)
{
	static struct rows rows;
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		if (!kernels) {
			printf("SKIP level %d: this machine cannot run it\n", level);
			continue;
		}
		for (size_t i = 0; i < N_DIMS; i++) {
			for (int adagrad = 0; adagrad < 2; adagrad++) {
				struct row_update c = make_rows(&rows, dims[i], adagrad);
				struct update_sums sums = {0};
				double loss = 0;
				for (uint32_t n = 0; n < 200; n++) {
					struct draw draw = make_draw(n);
					if (n % LOSS_EVERY == 0) {
						double x = rows.db[draw.pos] - rows.db[draw.neg];
						for (uint32_t k = 0; k < c.dim; k++)
							x += rows.dU[draw.user][k] * (rows.dV[draw.pos][k] - rows.dV[draw.neg][k]);
						loss += log1p(exp(-x));
					}
					naive_update(&c, &rows, &draw);
					kernels->update(&c, &draw, 1, NULL, 0, &sums);
				}
				compare_rows(&c, &rows);
				assert_int_equal(sums.triples, 200);
				assert_int_equal(sums.nonfinite, 0);
				assert_near(sums.loss, loss);
				for (uint32_t u = 0; u < USERS; u++)
					assert_int_equal(c.users[u].stamp, 77);
			}
		}
	}
}

/*
 * A list is the same as its triples one after the other, wherever it is cut: windows end where rows meet, triples without a negative are passed
 * over, and what is asked for ahead changes nothing. With 5 users and 9 items nearly every window is cut.
 */
static void test_lists_are_their_triples(void **state)
{
	static struct rows rows;
	static struct draw draws[240];
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		for (size_t i = 0; kernels && i < N_DIMS * 2; i++) {
			struct row_update c = make_rows(&rows, dims[i / 2], i % 2);
			struct update_sums sums = {0};
			uint32_t none = 0;
			for (uint32_t n = 0; n < 240; n++) {
				draws[n] = make_draw(n);
				if (world_random(n, 26) % 7 == 0) {
					draws[n].neg = SAMPLE_NONE;
					none++;
				} else {
					naive_update(&c, &rows, &draws[n]);
				}
			}
			for (uint32_t at = 0, size = 1; at < 240; size = size % 41 + 3) {
				uint32_t n = 240 - at < size ? 240 - at : size;
				kernels->update(&c, draws + at, n, draws + at + n, 240 - at - n, &sums);
				at += n;
			}
			compare_rows(&c, &rows);
			assert_int_equal(sums.triples, 240 - none);
			assert_int_equal(sums.rejected, none);
			assert_int_equal(sums.nonfinite, 0);
		}
	}
}

/* Windows that are full: no row occurs twice in eight triples. */
static void test_full_windows(void **state)
{
	enum { ROWS = 16, DIM = 33, STRIDE = 48 };
	static _Alignas(64) float U[ROWS * STRIDE], V[2 * ROWS * STRIDE], one_U[ROWS * STRIDE], one_V[2 * ROWS * STRIDE];
	struct user_side users[ROWS] = {0}, one_users[ROWS] = {0};
	struct item_side items[2 * ROWS] = {0}, one_items[2 * ROWS] = {0};
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		if (!kernels)
			continue;
		struct draw draws[ROWS];
		for (uint32_t k = 0; k < 2 * ROWS * STRIDE; k++)
			V[k] = one_V[k] = k % STRIDE < DIM ? philox_centred(world_random(k, 27)) : 0.0f;
		for (uint32_t k = 0; k < ROWS * STRIDE; k++)
			U[k] = one_U[k] = k % STRIDE < DIM ? philox_centred(world_random(k, 28)) : 0.0f;
		for (uint32_t t = 0; t < ROWS; t++)
			draws[t] = (struct draw){.user = (t * 5) % ROWS, .pos = (t * 7) % (2 * ROWS), .neg = (t * 7 + 16 * 7) % (2 * ROWS), .weight = 1.0f};
		U[draws[3].user * STRIDE + 5] = one_U[draws[3].user * STRIDE + 5] = INFINITY; /* one lane that must be left out */
		struct row_update c = {.U = U, .V = V, .users = users, .items = items, .dim = DIM, .stride = STRIDE, .epoch = 3, .adagrad = 1,
		                       .rate = 0.05f, .reg_user = 0.01f, .reg_pos = 0.02f, .reg_neg = 0.03f, .norm_max = 0.05f,
		                       .per_user = 1.0f / DIM, .per_item = 1.0f / (DIM + 1)};
		struct row_update one = c;
		one.U = one_U;
		one.V = one_V;
		one.users = one_users;
		one.items = one_items;
		struct update_sums sums = {0}, one_sums = {0};
		kernels->update(&c, draws, ROWS, NULL, 0, &sums);
		for (uint32_t t = 0; t < ROWS; t++)
			kernels->update(&one, &draws[t], 1, NULL, 0, &one_sums);
		assert_memory_equal(U, one_U, sizeof U);
		assert_memory_equal(V, one_V, sizeof V);
		assert_memory_equal(users, one_users, sizeof users);
		assert_memory_equal(items, one_items, sizeof items);
		assert_int_equal(sums.triples, ROWS - 1);
		assert_int_equal(sums.rejected, 1);
		assert_int_equal(sums.nonfinite, 1);
		assert_true(sums.loss == one_sums.loss && sums.loss_n == one_sums.loss_n);
	}
}

static void test_philox_runs(void **state)
{
	(void)state;
	for (int level = 0; level < 3; level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		struct philox_many many;
		for (uint32_t n = 0; kernels && n < 50; n++) {
			uint32_t c[6];
			for (uint32_t k = 0; k < 6; k++)
				c[k] = world_random(n * 6 + k, 29);
			c[0] = n == 0 ? UINT32_MAX - 5 : c[0]; /* counters that wrap */
			kernels->philox_run(c[0], c[1], c[2], c[3], c[4], c[5], &many);
			for (uint32_t l = 0; l < PHILOX_RUN; l++) {
				struct philox_block block = philox4x32(c[0] + l, c[1], c[2], c[3], c[4], c[5]);
				for (int k = 0; k < 4; k++)
					assert_int_equal(many.v[k][l], block.v[k]);
			}
		}
	}
}

/* ln sigmoid(x) minus L2, in double, of one triple on the tables as they are. */
static double objective(const struct row_update *c, const struct rows *r, const struct draw *d)
{
	double x = r->db[d->pos] - r->db[d->neg], l2 = 0;
	for (uint32_t k = 0; k < c->dim; k++) {
		double u = r->dU[d->user][k], p = r->dV[d->pos][k], n = r->dV[d->neg][k];
		x += u * (p - n);
		l2 += (double)c->reg_user * u * u + (double)c->reg_pos * p * p + (double)c->reg_neg * n * n;
	}
	l2 += (double)c->reg_bias * (r->db[d->pos] * r->db[d->pos] + r->db[d->neg] * r->db[d->neg]);
	return -log1p(exp(-x)) - l2 / 2;
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

static void test_sgd_step_is_the_gradient(void **state)
{
	static struct rows rows, before;
	(void)state;
	for (size_t i = 0; i < N_DIMS; i++) {
		struct row_update c = make_rows(&rows, dims[i], 0);
		c.norm_max = 1e6f;
		c.rate = 1.0f;
		before = rows;
		struct draw d = make_draw(3);
		struct update_sums sums = {0};
		row_kernels_best()->update(&c, &d, 1, NULL, 0, &sums);
		for (uint32_t k = 0; k < c.dim; k++) {
			double moved_u = (double)c.U[d.user * c.stride + k] - (double)before.U[d.user * c.stride + k];
			double moved_p = (double)c.V[d.pos * c.stride + k] - (double)before.V[d.pos * c.stride + k];
			double moved_n = (double)c.V[d.neg * c.stride + k] - (double)before.V[d.neg * c.stride + k];
			assert_near(moved_u, difference(&c, &rows, &d, &rows.dU[d.user][k]));
			assert_near(moved_p, difference(&c, &rows, &d, &rows.dV[d.pos][k]));
			assert_near(moved_n, difference(&c, &rows, &d, &rows.dV[d.neg][k]));
		}
		assert_near((double)c.items[d.pos].bias - (double)before.items[d.pos].bias, difference(&c, &rows, &d, &rows.db[d.pos]));
		assert_near((double)c.items[d.neg].bias - (double)before.items[d.neg].bias, difference(&c, &rows, &d, &rows.db[d.neg]));
	}
}

static void test_update_leaves_out_what_it_must(void **state)
{
	static struct rows rows, before;
	(void)state;
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		struct row_update c = make_rows(&rows, 33, 1);
		struct update_sums sums = {0};
		struct draw none = {.user = 1, .pos = 2, .neg = SAMPLE_NONE};
		before = rows;
		row_kernels_at(level)->update(&c, &none, 1, NULL, 0, &sums);
		assert_memory_equal(&before, &rows, sizeof rows);
		assert_int_equal(sums.rejected, 1);
		assert_int_equal(sums.triples, 0);
		/* a poisoned row is reported and does not spread */
		rows.U[1 * c.stride + 32] = NAN;
		before = rows;
		struct draw poisoned = {.user = 1, .pos = 2, .neg = 3};
		row_kernels_at(level)->update(&c, &poisoned, 1, NULL, 0, &sums);
		assert_memory_equal(&before, &rows, sizeof rows);
		assert_int_equal(sums.nonfinite, 1);
	}
}

static void test_score_dot_and_pairs(void **state)
{
	static float V[ITEMS * STRIDE_MAX + 1], row[STRIDE_MAX], bi[ITEMS], scores[ITEMS], gradient[STRIDE_MAX + 1];
	(void)state;
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		for (size_t t = 0; t < N_DIMS; t++) {
			uint32_t dim = dims[t];
			for (uint32_t k = 0; k < ITEMS * dim; k++)
				V[k + 1] = philox_centred(world_random(k, 30)); /* + 1: rows of tables are not aligned */
			for (uint32_t k = 0; k < dim; k++)
				row[k] = philox_centred(world_random(k, 31));
			for (uint32_t i = 0; i < ITEMS; i++)
				bi[i] = philox_centred(world_random(i, 32));
			kernels->score(V + 1, bi, row, 0.25f, dim, ITEMS, scores);
			double dots[ITEMS];
			for (uint32_t i = 0; i < ITEMS; i++) {
				dots[i] = 0;
				for (uint32_t k = 0; k < dim; k++)
					dots[i] += (double)row[k] * (double)V[1 + i * dim + k];
				assert_near((double)scores[i], dots[i] + 0.25 + (double)bi[i]);
				assert_near((double)kernels->dot(row, V + 1 + i * dim, dim), dots[i]);
			}
			const struct item_pair pairs[2] = {{3, 8}, {0, 5}};
			for (uint32_t k = 0; k <= dim; k++)
				gradient[k] = 1.0f;
			kernels->pairs_gradient(V + 1, bi, row, dim, pairs, 2, gradient);
			for (uint32_t k = 0; k < dim; k++) {
				double sum = 1.0;
				for (int p = 0; p < 2; p++) {
					uint32_t a = pairs[p].pos, b = pairs[p].neg;
					double z = 1 / (1 + exp(dots[a] - dots[b] + (double)bi[a] - (double)bi[b]));
					sum += z * ((double)V[1 + a * dim + k] - (double)V[1 + b * dim + k]);
				}
				assert_near((double)gradient[k], sum);
			}
			assert_true(gradient[dim] == 1.0f);
		}
	}
}

static void test_logit_sums(void **state)
{
	enum { N = 200 };
	float x[N], sign[N];
	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		x[i] = 30.0f * philox_centred(world_random(i, 60)); /* far into both tails */
		sign[i] = world_random(i, 61) % 2 ? 1.0f : -1.0f;
	}
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		double value = 0, slope = 5, curve = 7, got_slope = 5, got_curve = 7; /* both are added to */
		for (uint32_t i = 0; i < N; i++) {
			double m = (double)sign[i] * ((double)x[i] - 0.75), p = 1 / (1 + exp(-m));
			value -= m > 0 ? log1p(exp(-m)) : log1p(exp(m)) - m;
			slope += (double)sign[i] * (1 - p);
			curve += p * (1 - p);
		}
		assert_near(row_kernels_at(level)->logit_sums(x, sign, N, -0.75f, &got_slope, &got_curve) / N, value / N);
		assert_near(got_slope / N, slope / N);
		assert_near(got_curve / N, curve / N);
	}
}

static void test_copy_rows(void **state)
{
	static float from[4 * 48], to[4 * 48];
	(void)state;
	for (int level = 0; level < 3 && row_kernels_at(level); level++) {
		const struct row_kernels *kernels = row_kernels_at(level);
		for (int i = 0; i < 4 * 48; i++)
			from[i] = (float)i;
		memset(to, 0, sizeof to);
		assert_int_equal(kernels->copy_rows(to, 33, from, 48, 33, 4), 0);
		for (int r = 0; r < 4; r++)
			for (int k = 0; k < 33; k++)
				assert_true(to[r * 33 + k] == from[r * 48 + k]);
		assert_true(to[4 * 33] == 0.0f);
		for (int where = 0; where < 33; where++) { /* every place is looked at, padding is not */
			for (int kind = 0; kind < 3; kind++) {
				float old = from[2 * 48 + where];
				from[2 * 48 + where] = kind == 0 ? NAN : kind == 1 ? INFINITY : -INFINITY;
				assert_int_equal(kernels->copy_rows(to, 33, from, 48, 33, 4), 1);
				from[2 * 48 + where] = old;
			}
		}
		from[2 * 48 + 33] = NAN;
		assert_int_equal(kernels->copy_rows(to, 33, from, 48, 33, 4), 0);
	}
}

/* The deterministic mode's kernels: the same bits at every level. */
static void test_exact_kernels_agree(void **state)
{
	static struct rows rows, other;
	(void)state;
	for (size_t t = 0; t < N_DIMS; t++) {
		int64_t sums[STRIDE_MAX + 1] = {0}, sums0[STRIDE_MAX + 1] = {0};
		for (int level = 0; level < 3 && row_kernels_at(level); level++) {
			const struct row_kernels *kernels = row_kernels_at(level);
			struct row_update c = make_rows(&rows, dims[t], 1);
			float dot = kernels->exact_dot(c.U, c.V, c.V + c.stride, c.stride);
			float dot0 = row_kernels_at(0)->exact_dot(c.U, c.V, c.V + c.stride, c.stride);
			assert_memory_equal(&dot, &dot0, sizeof dot);
			memset(sums, 0, sizeof sums);
			kernels->exact_add(sums, 0.3f, c.V, c.V + c.stride, 0.01f, c.U, c.stride);
			kernels->exact_add(sums, -0.7f, c.U, NULL, 0.02f, c.V, c.stride);
			sums[c.stride] = 12345678901;
			if (level == 0)
				memcpy(sums0, sums, sizeof sums);
			assert_memory_equal(sums, sums0, sizeof sums);
			kernels->exact_apply(&c, sums, c.V, &c.items[0].bias, &c.items[0].acc);
			if (level == 0)
				other = rows;
			assert_memory_equal(&rows, &other, sizeof rows);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_are_their_triples),        cmocka_unit_test(test_full_windows),
		cmocka_unit_test(test_philox_runs),
		cmocka_unit_test(test_update_is_the_naive_one),        cmocka_unit_test(test_sgd_step_is_the_gradient),
		cmocka_unit_test(test_update_leaves_out_what_it_must), cmocka_unit_test(test_score_dot_and_pairs),
		cmocka_unit_test(test_logit_sums), cmocka_unit_test(test_copy_rows),                      cmocka_unit_test(test_exact_kernels_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
