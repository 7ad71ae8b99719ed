/*
 * bench_quality.c: what the CUDA backend's liberties cost in ranking: NDCG@20 on held-out positives of a synthetic world, several seeds. On a device, or on
 * the emulated one.
 *
 *   bench_quality [SEEDS [EPOCHS]]
 *
 * Two tables. Backends: the CPU's, CUDA with fp32 rows, CUDA with bf16 rows, the same draws each. Triples in flight: the emulation runs a block after
 * another, so staleness is played by a plain loop: windows of M draws all read the parameters as they stood at the window's start, and their steps are added
 * at its end. That is the worst case: on a device most rows are read later. The Adagrad sums are taken from the additions' answers, as the kernels do; and,
 * to see what that is worth, as they stood at the window's start.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/learn/bpr_math.h"
#include "trainer/learn/learn.h"
#include "trainer/learn/philox.h"
#include "trainer/learn/sampler.h"

extern const struct backend_ops backend_cuda;

#define USERS 500u
#define ITEMS 1000u
#define DIM 32u
#define EACH 24u /* positives of a user; every fourth is held out */
#define TASTES 5u
#define K 20u

struct world {
	uint64_t seed;
	struct user_item train[USERS * EACH], held[USERS * EACH];
	size_t n_train, n_held;
	int64_t user_ids[USERS], item_ids[ITEMS];
};

static float random_unit(uint64_t seed, uint32_t n, uint32_t stream)
{
	return (float)(philox4x32(n, stream, 0, 0xffffffffu, (uint32_t)seed, 9).v[0] >> 8) / 16777216.0f;
}

/* Near to normal: the sum of four. */
static float random_normal(uint64_t seed, uint32_t n, uint32_t stream)
{
	float sum = -2.0f;
	for (uint32_t k = 0; k < 4; k++)
		sum += random_unit(seed, n * 4 + k, stream);
	return sum * 1.7320508f;
}

/* How much user u likes item i: a few tastes, and the item's popularity. */
static float liking(uint64_t seed, uint32_t u, uint32_t i)
{
	float sum = -0.6f * logf(1.0f + (float)i * 0.1f);
	for (uint32_t k = 0; k < TASTES; k++)
		sum += 0.9f * random_normal(seed, u * TASTES + k, 1) * random_normal(seed, i * TASTES + k, 2);
	return sum;
}

/* Each user takes the EACH items of highest liking plus noise (Gumbel: a draw by softmax). */
static void make_world(struct world *w, uint64_t seed)
{
	static float score[ITEMS];
	memset(w, 0, sizeof *w);
	w->seed = seed;
	for (uint32_t u = 0; u < USERS; u++) {
		w->user_ids[u] = u;
		for (uint32_t i = 0; i < ITEMS; i++)
			score[i] = liking(seed, u, i) - logf(-logf(random_unit(seed, u * ITEMS + i, 3) + 1e-7f));
		for (uint32_t k = 0; k < EACH; k++) {
			uint32_t best = 0;
			for (uint32_t i = 1; i < ITEMS; i++)
				best = score[i] > score[best] ? i : best;
			score[best] = -INFINITY;
			struct user_item pair = {u, best};
			if (random_unit(seed, u * EACH + k, 4) < 0.25f)
				w->held[w->n_held++] = pair;
			else
				w->train[w->n_train++] = pair;
		}
	}
	for (uint32_t i = 0; i < ITEMS; i++)
		w->item_ids[i] = i;
}

/* Mean over users with something held out; training positives are out of the ranking. */
static double ndcg(const struct world *w, const struct tables *t)
{
	static float score[ITEMS];
	static uint8_t held[ITEMS];
	double sum = 0;
	uint32_t n = 0;
	for (uint32_t u = 0, a = 0, b = 0; u < USERS; u++) {
		uint32_t wanted = 0;
		double gain = 0, ideal = 0;
		memset(held, 0, sizeof held);
		for (uint32_t i = 0; i < ITEMS; i++) {
			score[i] = t->bi[i];
			for (uint32_t k = 0; k < DIM; k++)
				score[i] += t->U[u * DIM + k] * t->V[i * DIM + k];
		}
		for (; a < w->n_train && w->train[a].user == u; a++)
			score[w->train[a].item] = -INFINITY;
		for (; b < w->n_held && w->held[b].user == u; b++, wanted++)
			held[w->held[b].item] = 1;
		for (uint32_t r = 0; r < K; r++) {
			uint32_t best = 0;
			for (uint32_t i = 1; i < ITEMS; i++)
				best = score[i] > score[best] ? i : best;
			score[best] = -INFINITY;
			gain += held[best] ? 1 / log2(r + 2.0) : 0;
			ideal += r < wanted ? 1 / log2(r + 2.0) : 0;
		}
		if (wanted) {
			sum += gain / ideal;
			n++;
		}
	}
	return n ? sum / n : 0;
}

static struct learn_options options_of(const struct world *w, int32_t precision)
{
	struct learn_options options;
	learn_options_default(&options);
	options.emb_dim = DIM;
	options.seed = w->seed;
	options.threads = 1;
	options.precision = precision;
	options.recent_passes = 0;
	options.skip_share = 0.0f;
	options.adagrad_forget = 0.0f;
	return options;
}

static struct learner *new_learner(const struct world *w, const struct learn_options *options, const struct backend_ops *ops)
{
	struct learner *learner;
	char errstr[256];
	int rc = learner_new(options, ops, &learner, errstr, sizeof errstr);
	if (rc == 0)
		rc = learner_grow(learner, USERS, ITEMS, w->user_ids, w->item_ids);
	if (rc == 0)
		rc = learner_add_positives(learner, w->train, w->n_train, 0);
	for (uint32_t i = 0; rc == 0 && i < ITEMS; i++)
		rc = learner_add_candidates(learner, &i, 1);
	if (rc < 0) {
		fprintf(stderr, "bench_quality: %s\n", strerror(-rc));
		exit(1);
	}
	return learner;
}

static float rate_of(const struct learn_options *options, uint32_t epoch, uint32_t epochs)
{
	return options->learning_rate * (1.0f - 0.9f * (float)epoch / (float)epochs);
}

static double train_backend(const struct world *w, const struct backend_ops *ops, int32_t precision, uint32_t epochs)
{
	struct learn_options options = options_of(w, precision);
	struct learner *learner = new_learner(w, &options, ops);
	struct tables t = {0};
	for (uint32_t e = 0; e < epochs; e++) {
		struct train_job job = {.triples_max = w->n_train, .learning_rate = rate_of(&options, e, epochs)};
		struct train_report report;
		if (learner_train(learner, &job, &report) < 0 || learner_wait(learner, &report) < 0)
			exit(1);
	}
	if (learner_pull(learner, &t) < 0)
		exit(1);
	double result = ndcg(w, &t);
	tables_free(&t);
	learner_free(learner);
	return result;
}

/* ---- staleness ------------------------------------------------------------------------------------------------------------------------- */
struct change {
	float user[DIM], pos[DIM], neg[DIM], bias_pos, bias_neg;
};

/* One triple's steps from the parameters as they stand; the sums move at once, or (late) are read from `old` and moved by the caller's copy. */
static void step_of(const struct learn_options *o, struct tables *t, const float *old_user, const float *old_item, const struct draw *d, float rate,
                    struct change *ret)
{
	const float *u = t->U + (size_t)d->user * DIM, *p = t->V + (size_t)d->pos * DIM, *n = t->V + (size_t)d->neg * DIM;
	float x = t->bi[d->pos] - t->bi[d->neg], norms[3] = {0};
	for (uint32_t k = 0; k < DIM; k++)
		x += u[k] * (p[k] - n[k]);
	float z = bpr_sigmoid(-x);
	ret->bias_pos = z - o->reg_bias * t->bi[d->pos];
	ret->bias_neg = -z - o->reg_bias * t->bi[d->neg];
	norms[1] = ret->bias_pos * ret->bias_pos;
	norms[2] = ret->bias_neg * ret->bias_neg;
	for (uint32_t k = 0; k < DIM; k++) {
		ret->user[k] = bpr_gradient_user(z, u[k], p[k], n[k], o->reg_user);
		ret->pos[k] = bpr_gradient_pos(z, u[k], p[k], o->reg_pos);
		ret->neg[k] = bpr_gradient_neg(z, u[k], n[k], o->reg_neg);
		norms[0] += ret->user[k] * ret->user[k];
		norms[1] += ret->pos[k] * ret->pos[k];
		norms[2] += ret->neg[k] * ret->neg[k];
	}
	float *sums[3] = {&t->acc_user[d->user], &t->acc_item[d->pos], &t->acc_item[d->neg]}, steps[3];
	const float *olds[3] = {old_user ? &old_user[d->user] : sums[0], old_item ? &old_item[d->pos] : sums[1], old_item ? &old_item[d->neg] : sums[2]};
	for (int r = 0; r < 3; r++) {
		float sum = *olds[r], inverse = 1.0f / (float)(DIM + (r > 0));
		steps[r] = bpr_step_scale(rate, norms[r], inverse, o->step_norm_max, &sum);
		*sums[r] += norms[r] * inverse;
	}
	for (uint32_t k = 0; k < DIM; k++) {
		ret->user[k] *= steps[0];
		ret->pos[k] *= steps[1];
		ret->neg[k] *= steps[2];
	}
	ret->bias_pos *= steps[1];
	ret->bias_neg *= steps[2];
}

static void add(struct tables *t, const struct draw *d, const struct change *c)
{
	for (uint32_t k = 0; k < DIM; k++) {
		t->U[(size_t)d->user * DIM + k] += c->user[k];
		t->V[(size_t)d->pos * DIM + k] += c->pos[k];
		t->V[(size_t)d->neg * DIM + k] += c->neg[k];
	}
	t->bi[d->pos] += c->bias_pos;
	t->bi[d->neg] += c->bias_neg;
}

static void stale_window(const struct learn_options *o, struct tables *t, const struct draw *draws, struct change *changes, uint32_t n, float rate, int late)
{
	float old_user[USERS], old_item[ITEMS];
	memcpy(old_user, t->acc_user, sizeof old_user);
	memcpy(old_item, t->acc_item, sizeof old_item);
	for (uint32_t i = 0; i < n; i++)
		if (draws[i].neg != SAMPLE_NONE)
			step_of(o, t, late ? old_user : NULL, late ? old_item : NULL, &draws[i], rate, &changes[i]);
	for (uint32_t i = 0; i < n; i++)
		if (draws[i].neg != SAMPLE_NONE)
			add(t, &draws[i], &changes[i]);
}

/* late: the Adagrad sums are those of the window's start. */
static double train_stale(const struct world *w, uint32_t window, int late, uint32_t epochs)
{
	struct learn_options options = options_of(w, PRECISION_FP32);
	struct learner *learner = new_learner(w, &options, &backend_cpu); /* for the starting rows */
	struct training_set set;
	struct draw_plan plan;
	struct tables t = {0};
	struct draw *draws = malloc(window * sizeof *draws);
	struct change *changes = malloc(window * sizeof *changes);
	training_set_init(&set, w->seed);
	if (!draws || !changes || training_set_grow(&set, USERS, ITEMS) < 0 || learner_pull(learner, &t) < 0)
		exit(1);
	for (size_t k = 0; k < w->n_train; k++)
		training_set_add(&set, w->train[k].user, w->train[k].item, 0);
	for (uint32_t i = 0; i < ITEMS; i++)
		training_set_add_candidate(&set, i);
	for (uint32_t e = 0; e < epochs; e++) {
		draw_plan_make(&set, &options, &plan);
		for (uint64_t first = 0; first < w->n_train; first += window) {
			uint32_t n = w->n_train - first < window ? (uint32_t)(w->n_train - first) : window;
			sampler_propose(&plan, first, n, draws);
			sampler_settle(&plan, n, draws);
			stale_window(&options, &t, draws, changes, n, rate_of(&options, e, epochs), late);
		}
		training_set_advance(&set, &plan, w->n_train);
	}
	double result = ndcg(w, &t);
	free(draws);
	free(changes);
	training_set_free(&set);
	tables_free(&t);
	learner_free(learner);
	return result;
}

int main(int argc, char **argv)
{
	static struct world w;
	static const uint32_t windows[] = {1, ITEMS / 16, ITEMS / 4, ITEMS / 2, ITEMS, 4 * ITEMS};
	uint32_t seeds = argc > 1 ? (uint32_t)atoi(argv[1]) : 5, epochs = argc > 2 ? (uint32_t)atoi(argv[2]) : 30;
	double sums[3] = {0}, stale[2][sizeof windows / sizeof *windows] = {{0}};
	printf("%u users, %u items, d = %u, %u epochs; NDCG@%u\n\nseed  cpu    cuda fp32  cuda bf16\n", USERS, ITEMS, DIM, epochs, K);
	for (uint32_t seed = 1; seed <= seeds; seed++) {
		make_world(&w, seed);
		double of[3] = {train_backend(&w, &backend_cpu, PRECISION_FP32, epochs), train_backend(&w, &backend_cuda, PRECISION_FP32, epochs),
		                train_backend(&w, &backend_cuda, PRECISION_BF16, epochs)};
		printf("%4u  %.4f %.4f     %.4f\n", seed, of[0], of[1], of[2]);
		fflush(stdout);
		for (int b = 0; b < 3; b++)
			sums[b] += of[b] / seeds;
		for (int late = 0; late < 2; late++)
			for (size_t k = 0; k < sizeof windows / sizeof *windows; k++)
				stale[late][k] += train_stale(&w, windows[k], late, epochs) / seeds;
	}
	printf("mean  %.4f %.4f     %.4f   bf16 against fp32: %+.2f %%\n\n", sums[0], sums[1], sums[2], 100 * (sums[2] / sums[1] - 1));
	printf("in flight   of the items   sums as added   sums as read\n");
	for (size_t k = 0; k < sizeof windows / sizeof *windows; k++)
		printf("%9u   %12.2f   %.4f          %.4f\n", windows[k], (double)windows[k] / ITEMS, stale[0][k], stale[1][k]);
	return 0;
}
