/*
 * test_gpu_outlived.c: a learner outlives its device. In a life of jobs, growth, pulls, a push and queries each CUDA call, and each launch, fails once; the
 * learner says what failed, goes on by another backend from the last whole copy, and comes to the bits that it would have come to undisturbed. On a real GPU,
 * which cannot be told to fail, the tests are skipped.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "tests/cuda_emu/emu_control.h"
#include "tests/unit/learn/learn_fixture.h"
#include "trainer/learn/personalize.h"

extern const struct backend_ops backend_cuda;

/* Every call fails in one of three ways (test_gpu_memory.cu has all ways for all calls); under a sanitizer, some calls do. */
#if defined(__SANITIZE_THREAD__)
#define STRIDE 63u
#elif defined(__SANITIZE_ADDRESS__)
#define STRIDE 21u
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define STRIDE 21u
#endif
#endif
#ifndef STRIDE
#define STRIDE 3u
#endif

#define USERS 40u
#define ITEMS 60u
#define DIM 20u
#define TOP 5u

struct life {
	struct learner *learner;
	enum emu_failure kind;
	uint32_t faults;             /* met so far */
	int failed;                  /* the failure asked for has come */
	int on_cpu;                  /* the device is gone for good */
	struct tables good, spare;   /* the last whole copy; the one that pulls go into */
	struct learner_progress progress; /* as of `good` */
	struct personalize_options personalize;
	float rows[3 * DIM];
	int rcs[3];
	uint32_t tops[3 * TOP];
	float scores[3 * TOP];
	int have_queries;
};

static struct learn_options life_options(void)
{
	struct learn_options options = world_options(DIM);
	options.deterministic = 1;
	options.optimizer = OPTIMIZER_ADAGRAD;
	options.popular_share = 0.3f;
	options.popular_power = 0.5f;
	options.hard_share = 0.3f;
	options.hard_of = 5;
	return options;
}

/* The fault has a reason in words; another backend takes over from the last whole copy, and nothing after that copy has happened. */
static void take_over(struct life *life)
{
	char text[256] = "", errstr[256] = "";
	int fault = learner_fault(life->learner, text, sizeof text);
	assert_true(fault == -EIO || fault == -ENOMEM);
	if (strncmp(text, "cuda: ", 6) != 0 || !strchr(text + 6, ':'))
		fail_msg("\"%s\" does not say what failed, and why", text);
	assert_int_equal(learner_running(life->learner), 0);
	life->on_cpu |= life->kind == EMU_FAIL_LOST;
	life->faults++;
	const struct backend_ops *ops = life->on_cpu || life->faults % 2 == 0 ? &backend_cpu : &backend_cuda;
	int rc = learner_replace_backend(life->learner, ops, life->good.n_users ? &life->good : NULL, errstr, sizeof errstr);
	if (rc != 0)
		fail_msg("replacing the backend: %s", errstr);
	assert_int_equal(learner_fault(life->learner, text, sizeof text), 0);
	assert_string_equal(text, "");
	learner_set_progress(life->learner, &life->progress);
}

/* 1: fine; 0: a fault, another backend stands by. Anything else is a failure of the test. */
static int fine(struct life *life, int rc)
{
	if (rc == 0 && !learner_fault(life->learner, NULL, 0))
		return 1;
	if (!emu_failed() || life->faults)
		fail_msg("%d without a failure of the device", rc);
	take_over(life);
	return 0;
}

static void keep(struct life *life)
{
	const struct tables *from = &life->spare;
	struct tables *to = &life->good;
	assert_int_equal(tables_reserve(to, from->n_users, from->n_items, from->dim), 0);
	memcpy(to->U, from->U, (size_t)from->n_users * from->dim * sizeof(float));
	memcpy(to->V, from->V, (size_t)from->n_items * from->dim * sizeof(float));
	memcpy(to->bi, from->bi, from->n_items * sizeof(float));
	memcpy(to->acc_user, from->acc_user, from->n_users * sizeof(float));
	memcpy(to->acc_item, from->acc_item, from->n_items * sizeof(float));
	to->n_users = from->n_users;
	to->n_items = from->n_items;
	to->dim = from->dim;
	life->progress = learner_get_progress(life->learner);
}

/* A job and a pull, as often as it takes. */
static void train_and_pull(struct life *life)
{
	struct train_job job = {.triples_max = 3 * 64 - 5, .learning_rate = 0.05f};
	struct train_report report;
	for (;;) {
		int rc = learner_train(life->learner, &job, &report);
		if (rc == 0)
			rc = learner_wait(life->learner, &report);
		if (!fine(life, rc))
			continue;
		assert_int_equal(report.triples + report.rejected, job.triples_max);
		if (fine(life, learner_pull(life->learner, &life->spare)))
			break;
	}
	keep(life);
}

/* Personal rows and rankings by the copy, or nothing at all. */
static void query(struct life *life)
{
	static const uint64_t offsets[] = {0, 2, 4, 6};
	static const uint32_t items[] = {1, 7, 30, 42, 2, 3};
	struct personalize_batch people = {.n = 3, .starts = life->good.U, .offsets = offsets, .positives = items, .options = &life->personalize,
		.ret_rows = life->rows, .ret_rcs = life->rcs};
	struct topk_batch rankings = {.n = 3, .k = TOP, .rows = life->rows, .offsets = offsets, .masked = items, .ret_items = life->tops,
		.ret_scores = life->scores};
	size_t n;
	people.candidates = learner_candidates(life->learner, &n);
	people.n_candidates = (uint32_t)n;
	if (!learner_has_batches(life->learner))
		return;
	int rc = learner_personalize(life->learner, &life->spare, &people);
	if (rc == 0)
		rc = learner_topk(life->learner, &life->spare, &rankings);
	if (rc == -ESTALE || (rc == -ENOMEM && life->kind == EMU_FAIL_NOMEM && emu_failed()))
		return; /* another backend than the one that pulled; or no room, which is nobody's fault */
	if (fine(life, rc))
		life->have_queries = 1;
}

static void live(struct life *life, enum emu_failure kind, uint64_t n)
{
	struct learn_options options = life_options();
	char errstr[256] = "";
	*life = (struct life){.kind = kind};
	personalize_options_default(&life->personalize);
	life->personalize.steps = 3;
	world_ids();
	emu_fail_at(kind, n);
	int rc = learner_new(&options, &backend_cuda, &life->learner, errstr, sizeof errstr);
	if (rc != 0) { /* the device fails before the life begins */
		assert_true(emu_failed() && strncmp(errstr, "cuda backend: ", 14) == 0 && errstr[14]);
		life->faults = 1;
		assert_int_equal(learner_new(&options, &backend_cpu, &life->learner, errstr, sizeof errstr), 0);
	}
	life->progress = learner_get_progress(life->learner);
	(void)fine(life, learner_grow(life->learner, USERS - 10, ITEMS - 15, world_user_ids, world_item_ids));
	world_fill(life->learner, USERS - 10, ITEMS - 15, 6);
	train_and_pull(life);
	(void)fine(life, learner_grow(life->learner, USERS, ITEMS, world_user_ids, world_item_ids));
	world_fill(life->learner, USERS, ITEMS, 7);
	train_and_pull(life);
	(void)fine(life, learner_push(life->learner, &life->good)); /* changes nothing */
	train_and_pull(life);
	query(life);
	life->failed = emu_failed();
	emu_fail_at(EMU_FAIL_NEVER, 0);
	learner_free(life->learner);
	if (kind == EMU_FAIL_LOST)
		emu_reset();
	assert_int_equal(emu_live(), 0);
}

static void end(struct life *life)
{
	tables_free(&life->good);
	tables_free(&life->spare);
}

static void assert_same(const struct life *want, const struct life *got, uint64_t n)
{
	if (!same_tables(&want->good, &got->good))
		fail_msg("failure %llu: other bits than without it", (unsigned long long)n);
	assert_true(memcmp(&want->progress, &got->progress, sizeof want->progress) == 0);
	if (!got->have_queries)
		return;
	assert_memory_equal(want->rows, got->rows, sizeof want->rows);
	assert_memory_equal(want->tops, got->tops, sizeof want->tops);
	assert_memory_equal(want->scores, got->scores, sizeof want->scores);
}

/* Failure first, first + stride, ... until one would come after the life's end. Most of them must be faults, not all: some growth is content with less. */
static void fail_in_turn(enum emu_failure kind, uint64_t first, uint64_t stride)
{
	struct life want, life;
	uint64_t tried = 0, faults = 0;
	live(&want, EMU_FAIL_NEVER, 0);
	assert_true(want.faults == 0 && want.have_queries);
	do {
		uint64_t n = first + tried * stride;
		live(&life, kind, n);
		tried++;
		faults += life.faults;
		assert_same(&want, &life, n);
		end(&life);
	} while (life.failed);
	print_message("%llu of %llu failures were faults\n", (unsigned long long)faults, (unsigned long long)tried - 1);
	assert_true(tried > 40 / stride && faults > tried / 2);
	end(&want);
}

/* A real GPU cannot be made to fail. */
static void need_emulation(const char *test)
{
	if (emu_present())
		return;
	print_message("SKIP %s: a real GPU cannot be told to fail\n", test);
	skip();
}

static void test_memory_is_refused(void **state)
{
	(void)state;
	need_emulation(__func__);
	fail_in_turn(EMU_FAIL_NOMEM, 1, STRIDE);
}

static void test_calls_fail(void **state)
{
	(void)state;
	need_emulation(__func__);
	fail_in_turn(EMU_FAIL_UNKNOWN, 1 + STRIDE / 3, STRIDE);
}

static void test_the_device_is_lost(void **state)
{
	(void)state;
	need_emulation(__func__);
	fail_in_turn(EMU_FAIL_LOST, 1 + 2 * STRIDE / 3, STRIDE);
}

static void test_launches_fault(void **state)
{
	(void)state;
	need_emulation(__func__);
	fail_in_turn(EMU_FAIL_LAUNCH, 1, STRIDE / 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_is_refused),
		cmocka_unit_test(test_calls_fail),
		cmocka_unit_test(test_the_device_is_lost),
		cmocka_unit_test(test_launches_fault),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
