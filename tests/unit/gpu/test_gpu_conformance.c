/*
 * test_gpu_conformance.c: whole lives of a model, on the emulated device, on the CPU and by the plain reference, which must come to the same bits in
 * deterministic mode, and to the same quality in fast mode.
 *
 * A life: a user with half of all items, one with all, some with none; items nobody knows; negatives of all kinds; tables that grow and a training set that is
 * thrown away and filled anew between jobs.
 */
#include <math.h>
#include <stdio.h>

#include "tests/cuda_emu/emu_control.h"
#include "tests/unit/gpu/reference.h"
#include "tests/unit/learn/learn_fixture.h"

extern const struct backend_ops backend_cuda;

/* Sanitizers slow lanes down by ten: fewer schedules, the same code. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SCHEDULES 20u
#define SLOWER 8u
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SCHEDULES 20u
#define SLOWER 8u
#endif
#endif
#ifndef SCHEDULES
#define SCHEDULES 100u
#define SLOWER 1u
#endif

#define USERS 60u
#define ITEMS 90u
#define HOT 0u   /* has every second item */
#define FULL 2u  /* has all items */
#define UNKNOWN_ITEMS 5u /* the last ones: neither positive nor candidate until the end */

static int is_empty(uint32_t user)
{
	return user % 7 == 3;
}

/* ---- a life ---------------------------------------------------------------------------------------------------------------------------- */
static size_t skips_of(void *ctx, uint32_t user, uint32_t *ret_items, size_t max)
{
	size_t n = user % 5 < max ? user % 5 : max;
	(void)ctx;
	for (size_t k = 0; k < n; k++)
		ret_items[k] = (user * 11 + (uint32_t)k * 17) % (ITEMS - 20);
	return n;
}

struct life {
	struct learner *learner;
	struct train_report reports[4];
	struct tables copy;
};

static void add(struct learner *learner, uint32_t user, uint32_t item, int weighted, int recent)
{
	struct user_item pair = {user, item};
	float weight = 5.0f * philox_centred(world_random(user * ITEMS + item, 70));
	int rc = weighted ? learner_add_weighted(learner, &pair, &weight, 1, recent) : learner_add_positives(learner, &pair, 1, recent);
	assert_int_equal(rc, 0);
}

/* Positives of users below n_users among items below n_items. */
static void fill(struct learner *learner, uint32_t n_users, uint32_t n_items, uint32_t stream, int weighted, int recent)
{
	uint32_t known = n_items - UNKNOWN_ITEMS;
	for (uint32_t u = 0; u < n_users; u++) {
		if (is_empty(u))
			continue;
		uint32_t each = u == HOT ? known / 2 : u == FULL ? known : 4 + u % 6;
		for (uint32_t k = 0; k < each; k++)
			add(learner, u, u == HOT ? 2 * k : u == FULL ? k : world_random(u * 64 + k, stream) % known, weighted, recent);
	}
	for (uint32_t i = 0; i < known; i++)
		assert_int_equal(learner_add_candidates(learner, &i, 1), 0);
}

static struct train_report train(struct learner *learner, uint64_t triples)
{
	struct train_job job = {.triples_max = triples, .learning_rate = 0.05f};
	struct train_report report;
	int rc = learner_train(learner, &job, &report);
	if (rc == 0)
		rc = learner_wait(learner, &report);
	assert_int_equal(rc, 0);
	return report;
}

static struct learner *begin(const struct learn_options *options, const struct backend_ops *ops, uint32_t n_users, uint32_t n_items)
{
	static const struct skip_source skips = {.list = skips_of};
	struct learner *learner = NULL;
	char errstr[256];
	world_ids();
	if (learner_new(options, ops, &learner, errstr, sizeof errstr) != 0)
		fail_msg("%s", errstr);
	assert_int_equal(learner_grow(learner, n_users, n_items, world_user_ids, world_item_ids), 0);
	learner_set_skips(learner, &skips);
	return learner;
}

/* Four jobs, whose last batches are not full: at first, after growth, after a restart of the set, and on a pushed copy. */
static struct life live(const struct learn_options *options, const struct backend_ops *ops, int weighted)
{
	struct life life = {.learner = begin(options, ops, USERS - 21, ITEMS - 30)};
	uint64_t some = 4 * options->batch_size - 5;
	fill(life.learner, USERS - 21, ITEMS - 30, 5, weighted, 0);
	life.reports[0] = train(life.learner, some);
	assert_int_equal(learner_grow(life.learner, USERS, ITEMS, world_user_ids, world_item_ids), 0);
	fill(life.learner, USERS, ITEMS, 6, weighted, 1);
	life.reports[1] = train(life.learner, some + options->batch_size);
	assert_int_equal(learner_pull(life.learner, &life.copy), 0);
	learner_clear_positives(life.learner);
	fill(life.learner, USERS, ITEMS, 7, weighted, 0);
	life.reports[2] = train(life.learner, some);
	assert_int_equal(learner_push(life.learner, &life.copy), 0); /* what the third job did is undone */
	life.reports[3] = train(life.learner, some);
	assert_int_equal(learner_pull(life.learner, &life.copy), 0);
	return life;
}

static void end(struct life *life)
{
	tables_free(&life->copy);
	learner_free(life->learner);
}

static void assert_same_life(const struct life *a, const struct life *b, const char *what)
{
	if (!same_tables(&a->copy, &b->copy))
		fail_msg("%s: other bits in the tables", what);
	for (int j = 0; j < 4; j++) {
		const struct train_report *x = &a->reports[j], *y = &b->reports[j];
		if (x->triples != y->triples || x->rejected != y->rejected || memcmp(&x->loss, &y->loss, sizeof x->loss) != 0)
			fail_msg("%s: job %d: %llu triples, %llu rejected, loss %.17g; and %llu, %llu, %.17g", what, j, (unsigned long long)x->triples,
			         (unsigned long long)x->rejected, x->loss, (unsigned long long)y->triples, (unsigned long long)y->rejected, y->loss);
	}
}

/* ---- deterministic mode ---------------------------------------------------------------------------------------------------------------- */
static struct learn_options exact_options(uint32_t dim, uint32_t bits)
{
	struct learn_options options = world_options(dim);
	options.deterministic = 1;
	options.optimizer = bits & 1;
	options.loss = bits >> 1 & 1;
	options.skip_share = bits & 4 ? 0.3f : 0.0f;
	options.popular_share = bits & 8 ? 0.3f : 0.0f;
	options.popular_power = 0.6f;
	options.hard_share = bits & 16 ? 0.3f : 0.0f;
	options.hard_of = 1 + dim % 37;
	options.recent_passes = 2;
	options.recent_share = 0.25f;
	options.adagrad_forget = bits & 32 ? 0.1f : 0.0f;
	options.batch_size = bits & 64 ? 150 : 64;
	options.step_norm_max = bits & 128 ? 0.03f : 10.0f;
	return options;
}

static void compare(uint32_t dim, uint32_t bits, int weighted)
{
	struct learn_options options = exact_options(dim, bits);
	char what[64];
	struct life reference = live(&options, &backend_reference, weighted), cpu = live(&options, &backend_cpu, weighted);
	struct life cuda = live(&options, &backend_cuda, weighted);
	snprintf(what, sizeof what, "dim %u, variant %u: the CPU's", dim, bits);
	assert_same_life(&reference, &cpu, what);
	snprintf(what, sizeof what, "dim %u, variant %u: the device's", dim, bits);
	assert_same_life(&reference, &cuda, what);
	assert_true(reference.reports[1].rejected > 0 && reference.reports[1].triples > reference.reports[1].rejected);
	assert_true(reference.reports[3].loss > 0.1 && reference.reports[3].loss < 2.0);
	end(&reference);
	end(&cpu);
	end(&cuda);
}

static void test_same_bits_as_the_reference(void **state)
{
	static const uint32_t dims[] = {1, 8, 31, 32, 33, 64, 128, 256};
	(void)state;
	for (uint32_t d = 0; d < sizeof dims / sizeof *dims; d++) {
		for (uint32_t v = 0; v < 8 / SLOWER + (SLOWER > 1); v++) {
			emu_seed(d * 10 + v);
			compare(dims[d], world_random(d * 10 + v, 80) % 64 * 4 + (v + d) % 4, v % 3 == 1);
		}
	}
	emu_seed(0);
}

static void test_same_bits_under_many_schedules(void **state)
{
	struct learn_options options = exact_options(20, 1 + 4 + 8 + 16 + 32);
	struct life cpu = live(&options, &backend_cpu, 1);
	(void)state;
	for (uint32_t seed = 1; seed <= SCHEDULES; seed++) {
		emu_seed(seed);
		struct life cuda = live(&options, &backend_cuda, 1);
		char what[64];
		snprintf(what, sizeof what, "schedule %u", seed);
		assert_same_life(&cpu, &cuda, what);
		end(&cuda);
	}
	emu_seed(0);
	end(&cpu);
}

/* ---- fast mode ------------------------------------------------------------------------------------------------------------------------- */
/* Rows of users and items that no triple can name keep their bits, whatever else happens. */
static void assert_untouched(const struct tables *before, const struct tables *after)
{
	size_t row = before->dim * sizeof(float);
	for (uint32_t u = 0; u < USERS; u++)
		if (is_empty(u))
			assert_memory_equal(before->U + (size_t)u * before->dim, after->U + (size_t)u * before->dim, row);
	for (uint32_t i = ITEMS - UNKNOWN_ITEMS; i < ITEMS; i++) {
		assert_memory_equal(before->V + (size_t)i * before->dim, after->V + (size_t)i * before->dim, row);
		assert_true(before->bi[i] == after->bi[i] && before->acc_item[i] == after->acc_item[i]);
	}
}

static void test_every_draw_is_accounted_for(void **state)
{
	static const uint32_t dims[] = {8, 33, 64, 128, 256};
	(void)state;
	for (uint32_t seed = 1; seed <= SCHEDULES / 2; seed++) {
		struct learn_options options = exact_options(dims[seed % 5], seed * 4 + seed % 4);
		struct tables before = {0}, after = {0};
		options.deterministic = 0;
		emu_seed(seed);
		struct learner *learner = begin(&options, &backend_cuda, USERS, ITEMS);
		fill(learner, USERS, ITEMS, 5, seed % 2 == 0, seed % 3 == 0);
		assert_int_equal(learner_pull(learner, &before), 0);
		for (uint64_t triples = 1; triples < 1500; triples = triples * 5 + 2) {
			struct train_report report = train(learner, triples);
			assert_int_equal(report.triples + report.rejected, triples);
			assert_int_equal(report.nonfinite, 0);
		}
		assert_int_equal(learner_pull(learner, &after), 0);
		assert_untouched(&before, &after);
		tables_free(&before);
		tables_free(&after);
		learner_free(learner);
	}
	emu_seed(0);
	assert_int_equal(emu_live(), 0);
}

/* Users of three tastes: how often does a user's row put an item of his own taste that he has not had above one of another taste? */
static double taste_known(const struct tables *t, const struct learner *learner, uint32_t n_users, uint32_t n_items)
{
	uint64_t right = 0, all = 0;
	for (uint32_t u = 0; u < n_users; u++) {
		for (uint32_t i = 0; i < n_items; i++) {
			uint32_t j = (i + n_items / 3) % n_items;
			if (i / (n_items / 3) != u % 3 || learner_is_positive(learner, u, i))
				continue;
			float apart = t->bi[i] - t->bi[j];
			for (uint32_t k = 0; k < t->dim; k++)
				apart += t->U[(size_t)u * t->dim + k] * (t->V[(size_t)i * t->dim + k] - t->V[(size_t)j * t->dim + k]);
			right += apart > 0.0f;
			all++;
		}
	}
	return (double)right / (double)all;
}

static double learn_tastes(const struct learn_options *options, const struct backend_ops *ops)
{
	enum { N_USERS = 150, N_ITEMS = 120, EACH = 8 };
	struct learner *learner = begin(options, ops, N_USERS, N_ITEMS);
	struct tables copy = {0};
	world_fill(learner, N_USERS, N_ITEMS, EACH);
	struct train_report first = train(learner, 500);
	struct train_report last = train(learner, SLOWER > 1 ? 8000 : 24000);
	assert_true(last.loss < first.loss);
	assert_int_equal(learner_pull(learner, &copy), 0);
	double known = taste_known(&copy, learner, N_USERS, N_ITEMS);
	tables_free(&copy);
	learner_free(learner);
	return known;
}

static void test_same_quality_in_fast_mode(void **state)
{
	(void)state;
	for (uint32_t v = SLOWER > 1; v < 5; v += SLOWER > 1 ? 2 : 1) { /* Adagrad learns in fewer triples */
		struct learn_options options = world_options(v == 3 ? 64 : 32);
		options.optimizer = v & 1;
		options.loss = v >> 1 & 1;
		options.learning_rate = 0.05f;
		options.hard_share = v == 2 ? 0.5f : 0.0f;
		options.hard_of = 4;
		double cpu = learn_tastes(&options, &backend_cpu);
		options.precision = v == 4 ? PRECISION_BF16 : PRECISION_FP32;
		emu_seed(v + 1);
		double cuda = learn_tastes(&options, &backend_cuda);
		emu_seed(0);
		print_message("tastes, variant %u: CPU %.4f, device %.4f\n", v, cpu, cuda);
		if (!(cpu > 0.9 && fabs(cpu - cuda) < 0.02))
			fail_msg("variant %u: the CPU learns %.4f of the tastes, the device %.4f", v, cpu, cuda);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_bits_as_the_reference),
		cmocka_unit_test(test_same_bits_under_many_schedules),
		cmocka_unit_test(test_every_draw_is_accounted_for),
		cmocka_unit_test(test_same_quality_in_fast_mode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
