/*
 * engine_device_testing.h: an engine that trains on the fake device (fake_device.h), and looks at what it shows. A test includes it once.
 */
#ifndef TESTS_UNIT_DAEMON_ENGINE_DEVICE_TESTING_H
#define TESTS_UNIT_DAEMON_ENGINE_DEVICE_TESTING_H

#include "tests/unit/daemon/engine_testing.h"
#include "daemon/backends.h"
#include "tests/unit/learn/fake_device.h"

static struct bench *on_device(void **in)
{
	struct bench *b = *in;

	fake_reset();
	backends_put_device(&fake_ops);
	b->config.device_pause_ms = 1;
	b->config.idle_passes = 1000000; /* training never rests */
	return b;
}

static int setup_device(void **out)
{
	*out = bench_new();
	on_device(out);
	return 0;
}

/* Whatever was left open on purpose was counted by the test. */
static int teardown_device(void **in)
{
	struct bench *b = *in;
	const unsigned misused = fake.misused;

	fake_let_go();
	if (b->engine != NULL)
		stop(b, 1);
	const unsigned left = fake_close_all();

	backends_put_device(NULL);
	return teardown(in) != 0 || misused != 0 || left != 0;
}

/* No generation that can be seen holds what a failed copy left behind. */
static void look_for_poison(struct bench *b)
{
	struct generation *g = generation_acquire(engine_publisher(b->engine));

	for (size_t i = 0; i < (size_t)g->tables.n_users * g->tables.dim; i++)
		if (!(fabsf(g->tables.U[i]) < 100.0f))
			fail_msg("user row %zu of generation %llu: %g", i / g->tables.dim, (unsigned long long)g->number, (double)g->tables.U[i]);
	for (size_t i = 0; i < (size_t)g->tables.n_items * g->tables.dim; i++)
		if (!(fabsf(g->tables.V[i]) < 100.0f))
			fail_msg("item row %zu of generation %llu: %g", i / g->tables.dim, (unsigned long long)g->number, (double)g->tables.V[i]);
	generation_release(engine_publisher(b->engine), g);
}

static struct engine_status status_of(struct bench *b)
{
	static struct engine_status s;

	engine_get_status(b->engine, &s);
	return s;
}

#endif
