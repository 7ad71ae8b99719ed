/*
 * bench_train.c: how fast the CPU backend trains, and how well a setting ranks.
 *
 *   bench_train                             speed beside the memory's row limit: both are measured in turns, medians over the rounds; copies; personal rows
 *   bench_train speed USERS ITEMS POSITIVES the same at one size
 *   bench_train quality TRAIN TEST [KEY=VALUE ...]
 *                                           ranking of a setting: two files of lines "user item ..." with small integers, TEST held out. Keys: every
 *                                           field of struct learn_options, and triples (millions), decay (1: linear to 0), k, mask (file of pairs left
 *                                           out of the ranking beside TRAIN), and p_steps, p_rate, p_reg, p_batch for personal rows (p_steps=0: none).
 *
 * Figures are printed and never asserted. Data is synthetic; nothing is written.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "trainer/learn/evaluate.h"
#include "trainer/learn/learn.h"
#include "trainer/learn/personalize.h"
#include "trainer/learn/score.h"

static double now_sec(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	fprintf(stderr, "bench_train: %s\n", what);
	exit(1);
}

static uint64_t next_random(uint64_t *state) /* xorshift64 */
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(((next_random(state) >> 32) * n) >> 32);
}

static double uniform(uint64_t *state)
{
	return (double)(next_random(state) >> 11) * 0x1p-53;
}

static int64_t *make_ids(uint32_t n)
{
	int64_t *ids = malloc(((size_t)n + 1) * sizeof *ids);
	if (!ids)
		die("out of memory");
	for (uint32_t i = 0; i < n; i++)
		ids[i] = (int64_t)i;
	return ids;
}

/* ---- speed ---- */

#define LIMIT_ROWS 2000000u
#define LIMIT_AHEAD 12u
#define THREADS_MAX 2u

/* Wall time and processor time of all threads. Other work on the machine stretches the first, hardly the second. */
struct span {
	double wall, cpu;
};

static struct span now_span(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (struct span){now_sec(), (double)t.tv_sec + (double)t.tv_nsec * 1e-9};
}

/* Things a second since `start`: by wall, and by processor time as if each thread had had a processor of its own. */
static struct span rate_since(const struct span *start, double things, uint32_t threads)
{
	struct span now = now_span();
	return (struct span){things / (now.wall - start->wall), things * (double)threads / (now.cpu - start->cpu)};
}

struct limit_job {
	float *rows; /* [n, 64] */
	uint32_t n;
	uint64_t seed;
};

/* Random 256-byte rows, fetched ahead, read and written: what a trainer cannot pass without reusing rows. */
static void *limit_main(void *arg)
{
	const struct limit_job *job = arg;
	uint64_t seed = job->seed; /* of its own: two threads' jobs share a cache line */
	uint32_t queue[16];
	for (uint32_t i = 0; i < LIMIT_ROWS + LIMIT_AHEAD; i++) {
		if (i >= LIMIT_AHEAD) {
			typedef float vec __attribute__((vector_size(64)));
			vec *row = (vec *)(void *)(job->rows + (size_t)queue[(i - LIMIT_AHEAD) & 15] * 64);
			for (int k = 0; k < 4; k++)
				row[k] += 1.0f;
		}
		if (i < LIMIT_ROWS) {
			queue[i & 15] = below(&seed, job->n);
			const float *row = job->rows + (size_t)queue[i & 15] * 64;
			for (int k = 0; k < 64; k += 16)
				__builtin_prefetch(row + k, 1, 3);
		}
	}
	return NULL;
}

/* Rows as the backend has its own: on huge pages where the kernel gives them. */
static float *limit_rows(uint32_t n_rows)
{
	size_t huge = 2u << 20, bytes = ((size_t)n_rows * 256 + huge - 1) / huge * huge;
	float *rows = aligned_alloc(huge, bytes);
	if (!rows)
		die("out of memory");
	(void)madvise(rows, bytes, MADV_HUGEPAGE);
	memset(rows, 0, bytes);
	return rows;
}

/* Rows a second. */
static struct span limit_round(float *rows, uint32_t n_rows, uint32_t threads)
{
	pthread_t helpers[THREADS_MAX];
	struct limit_job jobs[THREADS_MAX];
	struct span start = now_span();
	for (uint32_t t = 0; t < threads; t++) {
		jobs[t] = (struct limit_job){rows, n_rows, 88172645463325252u + t * 7919};
		if (pthread_create(&helpers[t], NULL, limit_main, &jobs[t]))
			die("no thread");
	}
	for (uint32_t t = 0; t < threads; t++)
		pthread_join(helpers[t], NULL);
	return rate_since(&start, (double)threads * LIMIT_ROWS, threads);
}

struct world {
	uint32_t n_users, n_items;
	size_t n_pairs;
	struct user_item *pairs;
	int64_t *user_ids, *item_ids;
};

/* Pairs with a skewed popularity (density falling as a power), so that rows repeat as they do in logs. */
static struct world make_world(uint32_t n_users, uint32_t n_items, size_t n_pairs)
{
	struct world world = {n_users, n_items, n_pairs, malloc(n_pairs * sizeof *world.pairs), make_ids(n_users), make_ids(n_items)};
	uint64_t seed = 42;
	if (!world.pairs)
		die("out of memory");
	for (size_t i = 0; i < n_pairs; i++) {
		double r = uniform(&seed);
		world.pairs[i].user = below(&seed, n_users);
		world.pairs[i].item = (uint32_t)(r * r * r * (double)n_items);
	}
	return world;
}

static void free_world(struct world *world)
{
	free(world->pairs);
	free(world->user_ids);
	free(world->item_ids);
}

static struct learner *make_learner(const struct learn_options *options, const struct world *world)
{
	struct learner *learner = NULL;
	char errstr[256] = "";
	if (learner_new(options, &backend_cpu, &learner, errstr, sizeof errstr) < 0)
		die(errstr);
	if (learner_grow(learner, world->n_users, world->n_items, world->user_ids, world->item_ids) < 0 ||
	    learner_add_positives(learner, world->pairs, world->n_pairs, 0) < 0)
		die("out of memory");
	for (uint32_t i = 0; i < world->n_items; i++)
		if (learner_add_candidates(learner, &i, 1) < 0)
			die("out of memory");
	return learner;
}

/* What is measured, turn and turn about with the row limit. */
#define SPEEDS_MAX 8
#define SPEED_ROUNDS 9
struct speed {
	const char *name;
	struct learn_options options;
	uint64_t triples; /* a round */
	struct learner *learner;
	struct span rates[SPEED_ROUNDS], ratios[SPEED_ROUNDS];
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct span median(const struct span *spans)
{
	double wall[SPEED_ROUNDS], cpu[SPEED_ROUNDS];
	for (int r = 0; r < SPEED_ROUNDS; r++) {
		wall[r] = spans[r].wall;
		cpu[r] = spans[r].cpu;
	}
	qsort(wall, SPEED_ROUNDS, sizeof *wall, by_value);
	qsort(cpu, SPEED_ROUNDS, sizeof *cpu, by_value);
	return (struct span){wall[SPEED_ROUNDS / 2], cpu[SPEED_ROUNDS / 2]};
}

static struct span train_round(const struct speed *speed)
{
	struct train_job job = {.triples_max = speed->triples, .learning_rate = speed->options.learning_rate};
	struct train_report report;
	struct span start = now_span();
	if (learner_train(speed->learner, &job, &report) < 0)
		die("training failed");
	return rate_since(&start, (double)report.triples, speed->options.threads);
}

static void measure_speeds(const struct world *world, struct speed *speeds, size_t n)
{
	uint32_t n_rows = world->n_users + world->n_items;
	float *rows = limit_rows(n_rows);
	struct span limits[SPEED_ROUNDS];
	for (size_t i = 0; i < n; i++) {
		speeds[i].learner = make_learner(&speeds[i].options, world);
		(void)train_round(&speeds[i]); /* the first touches fresh memory */
	}
	for (int r = 0; r < SPEED_ROUNDS; r++) {
		limits[r] = limit_round(rows, n_rows, THREADS_MAX);
		limits[r] = (struct span){limits[r].wall / 3, limits[r].cpu / 3};
		for (size_t i = 0; i < n; i++) {
			speeds[i].rates[r] = train_round(&speeds[i]);
			speeds[i].ratios[r] = (struct span){speeds[i].rates[r].wall / limits[r].wall, speeds[i].rates[r].cpu / limits[r].cpu};
		}
	}
	struct span limit = median(limits);
	printf("    %-34s %5.1f M triples/s, by processor time %5.1f\n", "row limit, 2 threads", limit.wall / 1e6, limit.cpu / 1e6);
	for (size_t i = 0; i < n; i++) {
		struct span rate = median(speeds[i].rates), ratio = median(speeds[i].ratios);
		printf("    %-25s %u thread%s %5.1f M triples/s, by processor time %5.1f; of the limit %.2f, by processor time %.2f\n", speeds[i].name,
		       speeds[i].options.threads, speeds[i].options.threads > 1 ? "s" : " ", rate.wall / 1e6, rate.cpu / 1e6, ratio.wall,
		       ratio.cpu);
		learner_free(speeds[i].learner);
	}
	free(rows);
}

static void bench_copies(const struct world *world, const struct learn_options *options)
{
	struct learner *learner = make_learner(options, world);
	struct tables copy = {0};
	struct train_job job = {.triples_max = 1000000, .learning_rate = options->learning_rate};
	struct train_report report;
	double ms[3];
	for (int round = 0; round < 3; round++) { /* into fresh memory, with nothing changed, after training */
		if (round == 2 && learner_train(learner, &job, &report) < 0)
			die("training failed");
		double start = now_sec();
		if (learner_pull(learner, &copy) < 0)
			die("pull failed");
		ms[round] = (now_sec() - start) * 1e3;
	}
	printf("    pull: %.1f ms the first time (fresh memory), %.1f ms with no row changed, %.1f ms after 1 M triples\n", ms[0], ms[1], ms[2]);
	tables_free(&copy);
	learner_free(learner);
}

static struct speed speed_of(const char *name, int optimizer, uint32_t threads, uint64_t triples)
{
	struct speed speed = {.name = name, .triples = triples};
	learn_options_default(&speed.options);
	speed.options.optimizer = optimizer;
	speed.options.threads = threads;
	return speed;
}

static void bench_speed_at(uint32_t n_users, uint32_t n_items, size_t n_pairs, int small)
{
	static struct speed speeds[SPEEDS_MAX];
	struct world world = make_world(n_users, n_items, n_pairs);
	size_t n = 0;
	printf("tables of %u users x %u items, %zu positives, d = 64\n", n_users, n_items, n_pairs);
	speeds[n++] = speed_of("SGD", OPTIMIZER_SGD, 2, 4000000);
	speeds[n++] = speed_of("Adagrad", OPTIMIZER_ADAGRAD, 2, 4000000);
	if (small) {
		speeds[n++] = speed_of("SGD", OPTIMIZER_SGD, 1, 2000000);
		speeds[n++] = speed_of("Adagrad", OPTIMIZER_ADAGRAD, 1, 2000000);
		speeds[n++] = speed_of("Adagrad, deterministic", OPTIMIZER_ADAGRAD, 2, 500000);
		speeds[n - 1].options.deterministic = 1;
	}
	measure_speeds(&world, speeds, n);
	if (small)
		bench_copies(&world, &speeds[0].options);
	free_world(&world);
}

static void bench_personalize(void)
{
	struct world world = make_world(1000, 10000, 40000);
	struct learn_options options;
	learn_options_default(&options);
	struct learner *learner = make_learner(&options, &world);
	struct tables tables = {0};
	if (learner_pull(learner, &tables) < 0)
		die("pull failed");
	size_t n_candidates;
	const uint32_t *candidates = learner_candidates(learner, &n_candidates);
	struct personalize_options personal;
	personalize_options_default(&personal);
	struct personalize_scratch scratch = {0};
	uint32_t positives[40];
	float row[64];
	double start = now_sec();
	const uint32_t n_users = 200;
	for (uint32_t u = 0; u < n_users; u++) {
		for (size_t i = 0; i < 40; i++)
			positives[i] = world.pairs[(u * 40 + i) % world.n_pairs].item;
		personal.seed = u;
		if (personalize_row(&tables, tables.U + (size_t)u * 64, positives, 40, candidates, n_candidates, &personal, &scratch, row) < 0)
			die("personalize failed");
	}
	double sec = now_sec() - start;
	printf("personal rows, %u steps x %u triples, d = 64, 10,000 items: %.0f users/s on one thread (%.2f ms a user)\n", personal.steps,
	       personal.batch, n_users / sec, sec * 1e3 / n_users);
	personalize_scratch_free(&scratch);
	tables_free(&tables);
	learner_free(learner);
	free_world(&world);
}

/* ---- quality ---- */

struct setting {
	struct learn_options learn;
	double triples; /* millions */
	int decay;
	uint32_t k;
	const char *mask;
	struct personalize_options personal;
	int verbose;
};

static int set_key(struct setting *s, const char *key, const char *value)
{
	struct {
		const char *key;
		float *f;
		uint32_t *u;
	} keys[] = {
		{"learning_rate", &s->learn.learning_rate, NULL},
		{"reg_user", &s->learn.reg_user, NULL},
		{"reg_pos", &s->learn.reg_pos, NULL},
		{"reg_neg", &s->learn.reg_neg, NULL},
		{"reg_bias", &s->learn.reg_bias, NULL},
		{"adagrad_forget", &s->learn.adagrad_forget, NULL},
		{"init_scale", &s->learn.init_scale, NULL},
		{"step_norm_max", &s->learn.step_norm_max, NULL},
		{"emb_dim", NULL, &s->learn.emb_dim},
		{"threads", NULL, &s->learn.threads},
		{"batch_size", NULL, &s->learn.batch_size},
		{"optimizer", NULL, (uint32_t *)&s->learn.optimizer},
		{"deterministic", NULL, (uint32_t *)&s->learn.deterministic},
		{"decay", NULL, (uint32_t *)&s->decay},
		{"k", NULL, &s->k},
		{"verbose", NULL, (uint32_t *)&s->verbose},
		{"p_steps", NULL, &s->personal.steps},
		{"p_batch", NULL, &s->personal.batch},
		{"p_rate", &s->personal.learning_rate, NULL},
		{"p_reg", &s->personal.reg, NULL},
	};
	if (strcmp(key, "triples") == 0) {
		s->triples = atof(value);
		return 0;
	}
	if (strcmp(key, "seed") == 0) {
		s->learn.seed = s->personal.seed = strtoull(value, NULL, 10);
		return 0;
	}
	if (strcmp(key, "mask") == 0) {
		s->mask = value;
		return 0;
	}
	if (strcmp(key, "reg") == 0) {
		s->learn.reg_user = s->learn.reg_pos = s->learn.reg_neg = strtof(value, NULL);
		return 0;
	}
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		if (strcmp(key, keys[i].key) != 0)
			continue;
		if (keys[i].f)
			*keys[i].f = strtof(value, NULL);
		else
			*keys[i].u = (uint32_t)strtoul(value, NULL, 10);
		return 0;
	}
	return -EINVAL;
}

static int by_pair(const void *pa, const void *pb)
{
	const struct user_item *a = pa, *b = pb;
	if (a->user != b->user)
		return a->user < b->user ? -1 : 1;
	return a->item < b->item ? -1 : a->item > b->item;
}

struct pair_list {
	struct user_item *pairs;
	size_t n, capacity;
	uint32_t n_users, n_items;
};

static void read_pairs(const char *path, struct pair_list *list)
{
	FILE *file = fopen(path, "r");
	char line[512];
	if (!file)
		die(path);
	while (fgets(line, sizeof line, file)) {
		unsigned user, item;
		if (sscanf(line, "%u %u", &user, &item) != 2)
			continue;
		if (list->n == list->capacity) {
			list->capacity = list->capacity ? list->capacity * 2 : 4096;
			list->pairs = realloc(list->pairs, list->capacity * sizeof *list->pairs);
			if (!list->pairs)
				die("out of memory");
		}
		list->pairs[list->n++] = (struct user_item){.user = user, .item = item};
		list->n_users = user >= list->n_users ? user + 1 : list->n_users;
		list->n_items = item >= list->n_items ? item + 1 : list->n_items;
	}
	fclose(file);
}

/* Sorts, drops doubles. */
static void tidy(struct pair_list *list)
{
	size_t n = 0;
	if (list->n)
		qsort(list->pairs, list->n, sizeof *list->pairs, by_pair);
	for (size_t i = 0; i < list->n; i++)
		if (n == 0 || by_pair(&list->pairs[n - 1], &list->pairs[i]) != 0)
			list->pairs[n++] = list->pairs[i];
	list->n = n;
}

/* The items of one user in a tidy list; `at` moves on. */
static const uint32_t *items_of(const struct pair_list *list, uint32_t user, size_t *at, uint32_t *buf, size_t *ret_n)
{
	uint32_t *start = buf + *at;
	size_t n = 0;
	while (*at < list->n && list->pairs[*at].user < user)
		++*at;
	start = buf + *at;
	for (; *at < list->n && list->pairs[*at].user == user; ++*at)
		start[n++] = list->pairs[*at].item;
	*ret_n = n;
	return start;
}

struct score_ctx {
	const struct tables *tables;
	const float *rows; /* NULL: the tables' U */
	const float *popularity;
};

static void score_user(void *arg, uint32_t user, float *scores)
{
	const struct score_ctx *ctx = arg;
	if (ctx->popularity) {
		memcpy(scores, ctx->popularity, ctx->tables->n_items * sizeof *scores);
		return;
	}
	score_row(ctx->tables, (ctx->rows ? ctx->rows : ctx->tables->U) + (size_t)user * ctx->tables->dim, 0.0f, scores);
}

static void evaluate(const char *name, const struct rank_user *users, uint32_t n_users, uint32_t n_items, const struct setting *s,
                     struct score_ctx *ctx)
{
	struct rank_metrics m = {0};
	if (rank_evaluate(users, n_users, n_items, s->k, score_user, ctx, 2, NULL, &m) < 0)
		die("out of memory");
	printf("%-12s recall@%u %.4f  ndcg@%u %.4f  hr %.4f  mrr %.4f  auc %.4f  (%llu users)\n", name, s->k, m.recall, s->k, m.ndcg, m.hit_rate,
	       m.mrr, m.auc, (unsigned long long)m.users);
}

static double train_setting(struct learner *learner, const struct setting *s, double *ret_loss)
{
	uint64_t total = (uint64_t)(s->triples * 1e6), done = 0;
	uint64_t slice = total / 200 > s->learn.batch_size ? total / 200 / s->learn.batch_size * s->learn.batch_size : s->learn.batch_size;
	double start = now_sec();
	while (done < total) {
		float left = 1.0f - (float)((double)done / (double)total);
		struct train_job job = {.triples_max = slice, .learning_rate = s->learn.learning_rate * (s->decay ? left : 1.0f)};
		struct train_report report;
		if (learner_train(learner, &job, &report) < 0 || report.nonfinite)
			die("training failed");
		*ret_loss = report.loss;
		done += slice;
	}
	return now_sec() - start;
}

static void personalize_all(struct learner *learner, const struct tables *tables, const struct pair_list *train, const struct setting *s,
                            const float *start_row, float *rows)
{
	size_t n_candidates, at = 0, n;
	const uint32_t *candidates = learner_candidates(learner, &n_candidates);
	struct personalize_scratch scratch = {0};
	uint32_t *buf = malloc((train->n + 1) * sizeof *buf);
	for (uint32_t u = 0; u < tables->n_users && buf; u++) {
		const uint32_t *items = items_of(train, u, &at, buf, &n);
		float *row = rows + (size_t)u * tables->dim;
		const float *start = start_row ? start_row : tables->U + (size_t)u * tables->dim;
		memcpy(row, start, tables->dim * sizeof *row);
		if (n && personalize_row(tables, start, items, n, candidates, n_candidates, &s->personal, &scratch, row) == -ENOMEM)
			die("out of memory");
	}
	free(buf);
	personalize_scratch_free(&scratch);
}

static void evaluate_personal(struct learner *learner, struct score_ctx *ctx, const struct pair_list *train, const struct setting *s,
                              const struct rank_user *users, uint32_t n_users, uint32_t n_items)
{
	uint32_t dim = ctx->tables->dim;
	float *rows = malloc((size_t)n_users * dim * sizeof *rows);
	float *mean = calloc(dim, sizeof *mean);
	if (!rows || !mean)
		die("out of memory");
	for (uint32_t u = 0; u < n_users; u++)
		for (uint32_t d = 0; d < dim; d++)
			mean[d] += ctx->tables->U[(size_t)u * dim + d] / (float)n_users;
	personalize_all(learner, ctx->tables, train, s, NULL, rows);
	ctx->rows = rows;
	evaluate("personal", users, n_users, n_items, s, ctx);
	personalize_all(learner, ctx->tables, train, s, mean, rows);
	evaluate("from mean", users, n_users, n_items, s, ctx);
	ctx->rows = NULL;
	free(rows);
	free(mean);
}

static void bench_quality(const char *train_path, const char *test_path, const struct setting *s)
{
	struct pair_list train = {0}, test = {0}, mask = {0};
	read_pairs(train_path, &train);
	read_pairs(test_path, &test);
	read_pairs(train_path, &mask);
	if (s->mask)
		read_pairs(s->mask, &mask);
	tidy(&train);
	tidy(&test);
	tidy(&mask);
	uint32_t n_users = train.n_users > mask.n_users ? train.n_users : mask.n_users;
	uint32_t n_items = train.n_items > mask.n_items ? train.n_items : mask.n_items;
	n_users = test.n_users > n_users ? test.n_users : n_users;
	n_items = test.n_items > n_items ? test.n_items : n_items;
	struct world world = {n_users, n_items, train.n, train.pairs, make_ids(n_users), make_ids(n_items)};
	struct learner *learner = make_learner(&s->learn, &world);
	struct rank_user *users = calloc(n_users, sizeof *users);
	uint32_t *test_items = malloc((test.n + 1) * sizeof *test_items), *mask_items = malloc((mask.n + 1) * sizeof *mask_items);
	float *popularity = calloc(n_items, sizeof *popularity);
	if (!users || !test_items || !mask_items || !popularity)
		die("out of memory");
	size_t test_at = 0, mask_at = 0;
	for (uint32_t u = 0; u < n_users; u++) {
		users[u].user = u;
		users[u].relevant = items_of(&test, u, &test_at, test_items, &users[u].n_relevant);
		users[u].masked = items_of(&mask, u, &mask_at, mask_items, &users[u].n_masked);
	}
	for (size_t i = 0; i < train.n; i++)
		popularity[train.pairs[i].item] += 1.0f;

	double loss = 0.0, sec = train_setting(learner, s, &loss);
	struct tables tables = {0};
	if (learner_pull(learner, &tables) < 0)
		die("pull failed");
	struct score_ctx ctx = {.tables = &tables};
	if (s->verbose) {
		ctx.popularity = popularity;
		evaluate("popularity", users, n_users, n_items, s, &ctx);
		ctx.popularity = NULL;
		printf("%u users x %u items, %zu positives; %.1f M triples in %.2f s, loss %.4f\n", n_users, n_items, train.n, s->triples, sec, loss);
	}
	evaluate("model", users, n_users, n_items, s, &ctx);
	if (s->personal.steps)
		evaluate_personal(learner, &ctx, &train, s, users, n_users, n_items);
	learner_free(learner);
	tables_free(&tables);
	free(users);
	free(test_items);
	free(mask_items);
	free(popularity);
	free_world(&world);
	free(test.pairs);
	free(mask.pairs);
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strcmp(argv[1], "quality") == 0) {
		struct setting s = {.triples = 30.72, .decay = 1, .k = 20};
		learn_options_default(&s.learn);
		personalize_options_default(&s.personal);
		s.personal.steps = 0;
		for (int i = 4; i < argc; i++) {
			char *equals = strchr(argv[i], '=');
			if (!equals)
				die("arguments are KEY=VALUE");
			*equals = 0;
			if (set_key(&s, argv[i], equals + 1) < 0)
				die(argv[i]);
		}
		bench_quality(argv[2], argv[3], &s);
		return 0;
	}
	if (argc == 5 && strcmp(argv[1], "speed") == 0) {
		bench_speed_at((uint32_t)atol(argv[2]), (uint32_t)atol(argv[3]), (size_t)atol(argv[4]), 0);
		return 0;
	}
	if (argc != 1)
		die("usage: bench_train | bench_train speed USERS ITEMS POSITIVES | bench_train quality TRAIN TEST [KEY=VALUE ...]");
	bench_speed_at(30000, 41000, 810000, 1);
	bench_speed_at(1000000, 100000, 20000000, 0);
	bench_personalize();
	return 0;
}
