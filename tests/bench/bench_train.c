/*
 * bench_train.c: how fast the CPU backend trains.
 *
 *   bench_train                             speed beside the memory's row limit: both are measured in turns, medians over the rounds; copies; personal rows
 *   bench_train speed USERS ITEMS POSITIVES the same at one size
 *
 * Figures are printed and never asserted. Data is synthetic; nothing is written.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "trainer/learn/learn.h"
#include "trainer/learn/personalize.h"

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
#define SPEEDS_MAX 10
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
	speeds[n++] = speed_of("SGD, grouped", OPTIMIZER_SGD, 2, 4000000);
	speeds[n - 1].options.order = ORDER_GROUPED;
	speeds[n++] = speed_of("Adagrad, grouped", OPTIMIZER_ADAGRAD, 2, 4000000);
	speeds[n - 1].options.order = ORDER_GROUPED;
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

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "speed") == 0) {
		bench_speed_at((uint32_t)atol(argv[2]), (uint32_t)atol(argv[3]), (size_t)atol(argv[4]), 0);
		return 0;
	}
	if (argc != 1)
		die("usage: bench_train | bench_train speed USERS ITEMS POSITIVES");
	bench_speed_at(30000, 41000, 810000, 1);
	bench_speed_at(1000000, 100000, 20000000, 0);
	bench_personalize();
	return 0;
}
