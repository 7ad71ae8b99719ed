/*
 * test_slab.c: blocks keep their content, free memory is found again, and lists that grow leave no holes behind.
 */
#include "tests/unit/state/state_testing.h"
#include "trainer/state/slab.h"

#define OWNERS 20000u
#define BINS 4u

struct world {
	struct slab slab;
	void *block[OWNERS];
	uint32_t bin[OWNERS];
	uint64_t stamp[OWNERS];
	uint64_t moves;
};

static const size_t sizes[BINS] = {24, 200, 5000, SLAB_BLOCK_MAX + 1};

static void fill(struct world *world, uint32_t owner, uint64_t stamp)
{
	size_t bytes = world->slab.bins[world->bin[owner]].block_bytes;
	uint64_t *words = world->block[owner];

	world->stamp[owner] = stamp;
	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = stamp + i;
}

static void check(const struct world *world, uint32_t owner)
{
	size_t bytes = world->slab.bins[world->bin[owner]].block_bytes;
	const uint64_t *words = world->block[owner];

	for (size_t i = 0; i < bytes / 8; i++)
		if (words[i] != world->stamp[owner] + i)
			fail_msg("owner %u: word %zu of its block was overwritten", owner, i);
}

static void move(void *ctx, uint32_t bin, uint32_t owner, const void *from, void *to)
{
	struct world *world = ctx;

	assert_int_equal(world->bin[owner], bin);
	assert_ptr_equal(world->block[owner], from);
	memcpy(to, from, world->slab.bins[bin].block_bytes);
	world->block[owner] = to;
	world->moves++;
}

static void no_prefetch(void *ctx, uint32_t owner)
{
	(void)ctx;
	assert_true(owner < OWNERS);
}

static void test_random_life(void **unused)
{
	struct world *world = calloc(1, sizeof(*world));
	uint64_t seed = 11;

	(void)unused;
	assert_int_equal(slab_init(&world->slab, sizes, BINS), 0);
	for (int step = 0; step < 400000; step++) {
		uint32_t owner = random_below(&seed, OWNERS);
		if (world->block[owner]) {
			check(world, owner);
			slab_free(&world->slab, world->bin[owner], world->block[owner]);
			world->block[owner] = NULL;
		} else if (random_below(&seed, 400000) > (uint32_t)step) { /* fewer and fewer */
			uint32_t pick = random_below(&seed, 1000);
			world->bin[owner] = pick < 600 ? 0 : pick < 990 ? 1 : pick < 998 ? 2 : 3;
			world->block[owner] = slab_alloc(&world->slab, world->bin[owner], owner);
			assert_non_null(world->block[owner]);
			assert_int_equal((uintptr_t)world->block[owner] % 8, 0);
			fill(world, owner, random_next(&seed));
		}
		if (step % 1000 == 0)
			slab_compact(&world->slab, 2, move, no_prefetch, world);
	}
	assert_true(world->moves > 0);
	for (uint32_t owner = 0; owner < OWNERS; owner++)
		if (world->block[owner]) {
			check(world, owner);
			slab_free(&world->slab, world->bin[owner], world->block[owner]);
		}
	assert_int_equal(slab_bytes(&world->slab), 0);
	slab_destroy(&world->slab);
	free(world);
}

/* All owners grow at the same pace, a few stay behind: the bin they leave must give its chunks back. */
static void test_growing_leaves_no_holes(void **unused)
{
	struct world *world = calloc(1, sizeof(*world));
	const size_t needed = OWNERS * 200u;
	size_t left;

	(void)unused;
	assert_int_equal(slab_init(&world->slab, sizes, BINS), 0);
	for (uint32_t owner = 0; owner < OWNERS; owner++) {
		world->block[owner] = slab_alloc(&world->slab, 0, owner);
		fill(world, owner, owner);
	}
	assert_true(world->slab.bins[0].blocks >= OWNERS);
	for (uint32_t owner = 0; owner < OWNERS; owner++) {
		if (owner % 50 == 0)
			continue;
		slab_free(&world->slab, 0, world->block[owner]);
		world->bin[owner] = 1;
		world->block[owner] = slab_alloc(&world->slab, 1, owner);
		fill(world, owner, owner);
	}
	while (world->slab.wants_compact)
		slab_compact(&world->slab, 1, move, no_prefetch, world);
	left = (world->slab.bins[0].blocks - world->slab.bins[0].used) * world->slab.bins[0].block_bytes;
	assert_true(left <= SLAB_CHUNK_BYTES + SLAB_CHUNK_BYTES / 4);
	assert_true(slab_bytes(&world->slab) < needed + needed / 10 + 3 * SLAB_CHUNK_BYTES);
	for (uint32_t owner = 0; owner < OWNERS; owner++)
		check(world, owner);
	slab_destroy(&world->slab);
	free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_life),
		cmocka_unit_test(test_growing_leaves_no_holes),
	};
	return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
