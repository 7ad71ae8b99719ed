/*
 * test_cpu_tuner.c: how many threads train, on machines that are made up: what so many threads get done a microsecond is a table, time is what the test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "trainer/learn/cpu_tuner.h"

/* Draws a microsecond by number of threads. */
static const double shared[] = {0, 18, 31, 45, 58, 0, 0, 0, 100}, apart[] = {0, 18, 10, 9, 9, 0, 0, 0, 8}, pairs[] = {0, 18, 31, 25, 20, 0, 0, 0, 15};
static const double alike[] = {0, 18.5, 18}, two_and_one[] = {0, 18, 31, 20};

struct machine {
	struct cpu_tuner tuner;
	const double *speeds;
	uint64_t noise;       /* 0: none; else the state of a random number: each part takes up to a tenth more or less */
	int64_t part_us_max;  /* jobs are so short; 0: as long as they are asked to be */
	int64_t fill_us;      /* after a change of threads, caches fill for so long, at a third of the speed */
	int64_t filled_us;    /* when they are full */
	uint32_t threads;     /* of the last part */
	int64_t trial_us_max; /* longest part with fewer threads than are in use */
	int64_t now_us;
	double draws;
};

static struct machine machine_new(uint32_t threads_max, const double *speeds)
{
	struct machine m = {.speeds = speeds};

	cpu_tuner_init(&m.tuner, threads_max);
	return m;
}

static double noise_next(struct machine *m)
{
	if (m->noise == 0)
		return 1.0;
	m->noise ^= m->noise << 13;
	m->noise ^= m->noise >> 7;
	m->noise ^= m->noise << 17;
	return 0.9 + 0.2 * (double)(m->noise >> 40) / (double)(1 << 24);
}

static void train_until(struct machine *m, int64_t end_us)
{
	while (m->now_us < end_us) {
		const struct cpu_part part = cpu_tuner_next(&m->tuner);
		double speed = m->speeds[part.threads] * noise_next(m), draws = (double)part.draws;

		if (part.threads != m->threads)
			m->filled_us = m->now_us + m->fill_us;
		m->threads = part.threads;
		if (m->now_us < m->filled_us)
			speed /= 3;

		assert_true(part.threads >= 1 && part.threads <= m->tuner.max && speed > 0);
		assert_true(part.draws >= 4096);
		if (m->part_us_max && draws > speed * (double)m->part_us_max)
			draws = speed * (double)m->part_us_max;
		if (part.threads < m->tuner.n && (int64_t)(draws / speed) > m->trial_us_max)
			m->trial_us_max = (int64_t)(draws / speed);
		cpu_tuner_note(&m->tuner, (uint64_t)draws, (int64_t)(draws / speed));
		m->now_us += (int64_t)(draws / speed);
		m->draws += draws;
	}
}

/* What was done from now to end_us, as a share of what `speed` would have done. */
static double share_of(struct machine *m, int64_t end_us, double speed)
{
	const int64_t began_us = m->now_us;
	const double before = m->draws;

	train_until(m, end_us);
	return (m->draws - before) / (speed * (double)(m->now_us - began_us));
}

static void trials_cost_little(void **state)
{
	struct machine m = machine_new(2, shared);

	(void)state;
	assert_true(share_of(&m, 700000, shared[2]) > 0.985); /* a short training */
	assert_int_equal(m.tuner.n, 2);
	assert_true(m.trial_us_max > 2000 && m.trial_us_max < 5000);
	assert_true(share_of(&m, 60000000, shared[2]) > 0.998);
	m = machine_new(8, shared);
	assert_true(share_of(&m, 60000000, shared[8]) > 0.995);
	assert_int_equal(m.tuner.n, 8);
}

static void fewer_where_fewer_are_faster(void **state)
{
	struct machine m = machine_new(2, apart);

	(void)state;
	train_until(&m, 75000);
	assert_int_equal(m.tuner.n, 1);
	assert_true(share_of(&m, 1000000, apart[1]) > 0.97);
	m = machine_new(8, apart);
	train_until(&m, 400000);
	assert_int_equal(m.tuner.n, 1);
	m = machine_new(4, pairs);
	train_until(&m, 400000);
	assert_int_equal(m.tuner.n, 2);
	train_until(&m, 60000000);
	assert_int_equal(m.tuner.n, 2);
	m = machine_new(3, two_and_one);
	train_until(&m, 400000);
	assert_int_equal(m.tuner.n, 2);
	m = machine_new(1, apart);
	assert_true(cpu_tuner_next(&m.tuner).draws == UINT64_MAX); /* nothing to find out */
}

/* The hypervisor moves the processors together, and apart again. */
static void a_machine_that_changes(void **state)
{
	struct machine m = machine_new(2, apart);

	(void)state;
	train_until(&m, 20000000);
	assert_int_equal(m.tuner.n, 1);
	m.speeds = shared; /* one thread is as fast as before: seen at the next trial */
	train_until(&m, m.now_us + 4200000);
	assert_int_equal(m.tuner.n, 2);
	train_until(&m, m.now_us + 20000000);
	m.speeds = apart; /* seen as a fall at once */
	train_until(&m, m.now_us + 1200000);
	assert_int_equal(m.tuner.n, 1);
}

/* What a trial's threads get done before their caches are full says nothing. */
static void caches_fill_first(void **state)
{
	struct machine m = machine_new(2, apart);

	(void)state;
	m.fill_us = 1500;
	train_until(&m, 100000);
	assert_int_equal(m.tuner.n, 1);
}

static void a_little_faster_is_not_enough(void **state)
{
	struct machine m = machine_new(2, alike);

	(void)state;
	train_until(&m, 60000000);
	assert_int_equal(m.tuner.n, 2);
}

static void both_ways_are_tried(void **state)
{
	struct machine m = machine_new(4, pairs);

	(void)state;
	train_until(&m, 20000000);
	assert_int_equal(m.tuner.n, 2);
	m.speeds = shared;
	train_until(&m, m.now_us + 10000000);
	assert_int_equal(m.tuner.n, 4);
	m.speeds = apart;
	train_until(&m, m.now_us + 10000000);
	assert_int_equal(m.tuner.n, 1);
}

/* Slices of some milliseconds, as the daemon trains, that take up to a tenth more or less. */
static void short_noisy_jobs(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct machine m = machine_new(2, shared);

		m.noise = seed * 0x9e3779b97f4a7c15u;
		m.part_us_max = seed % 2 ? 3000 : 25000;
		assert_true(share_of(&m, 20000000, shared[2]) > 0.98);
		assert_int_equal(m.tuner.n, 2);
		m.speeds = apart;
		assert_true(share_of(&m, 60000000, apart[1]) > 0.95);
		assert_int_equal(m.tuner.n, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trials_cost_little),
		cmocka_unit_test(fewer_where_fewer_are_faster),
		cmocka_unit_test(a_machine_that_changes),
		cmocka_unit_test(caches_fill_first),
		cmocka_unit_test(a_little_faster_is_not_enough),
		cmocka_unit_test(both_ways_are_tried),
		cmocka_unit_test(short_noisy_jobs),
	};
	return cmocka_run_group_tests_name("cpu_tuner", tests, NULL, NULL);
}
