/*
 * test_checkpoint.c: a cut to disk and back. A small state made of random lines goes through checkpoint_write() and checkpoint_load(); what comes back must
 * be the same facts (by digest), positions, tables and personal rows. Then damage: every way a generation can be bad, and what recovery does about it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "trainer/model/checkpoint.h"

#define USERS 40
#define ITEMS 30
#define DIM 8

struct world {
	char path[64];
	int fd;
	struct state_config config;
	struct state_rules rules;
	struct state *state;
	struct publisher *publisher;
	struct generation *generation;
	struct source_position positions[2];
	uint64_t bad[4];
	size_t n_bad;
};

static uint64_t rng_state;
static uint32_t rng(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((rng_state >> 33) % below);
}

static void add_event(struct event_batch *batch, enum event_stream stream)
{
	struct event *e = &batch->events[batch->n_events++];

	memset(e, 0, sizeof(*e));
	e->stream = (uint8_t)stream;
	e->user_id = 1000 + rng(USERS);
	e->item_id = 500000 + rng(ITEMS);
	e->time_us = 1700000000000000 + (int64_t)rng(1000000) * 1000000;
	e->type = (uint8_t)rng(5);
	e->position = (int32_t)rng(20);
	if (stream == STREAM_WATCHES) {
		e->flags = EVENT_HAS_COMPLETION | EVENT_HAS_WATCH_TIME;
		e->completion = (float)rng(100) / 100.0f;
		e->watch_time_sec = (float)rng(7000);
	} else if (stream == STREAM_EVENTS && e->type == EVENT_RATE) {
		e->flags = EVENT_HAS_VALUE;
		e->value = rng(5);
	} else if (stream == STREAM_IMPRESSIONS) {
		assert_int_equal(event_batch_add_text(batch, rng(2) ? "home" : "search", 4, &e->name), 0);
	} else if (stream == STREAM_CATALOGUE) {
		char doc[128];
		const int len = snprintf(doc, sizeof(doc), "{\"item_id\":%lld,\"title\":\"T\",\"duration_sec\":6000}", (long long)e->item_id);

		e->flags = EVENT_HAS_DURATION;
		e->value = 6000;
		assert_int_equal(event_batch_add_text(batch, doc, (size_t)len, &e->doc), 0);
	}
}

static void fill_state(struct world *w)
{
	static const enum event_stream streams[] = { STREAM_CATALOGUE, STREAM_WATCHES, STREAM_EVENTS, STREAM_IMPRESSIONS };
	struct event_batch *batch = event_batch_new();

	assert_non_null(batch);
	for (size_t s = 0; s < 4; s++) {
		batch->stream = streams[s];
		for (int i = 0; i < (s == 0 ? 20 : 900); i++)
			add_event(batch, streams[s]);
		assert_int_equal(state_apply(w->state, batch), 0);
		event_batch_clear(batch);
	}
	event_batch_free(batch);
	assert_int_equal(state_forget(w->state, 1003, 0), 0);
}

/* Personal rows for every third user, values that are easy to recognise. */
static void fill_rows(struct world *w)
{
	for (uint32_t user = 0; user < state_n_users(w->state); user += 3) {
		struct user_facts facts;

		state_user_facts(w->state, user, &facts);
		const size_t n = state_positives(w->state, &facts, NULL, 0);
		struct personal_row *row = state_row_begin(w->state, user);

		if (n >= 3) {
			row->generation = 7;
			row->fitted_us = 1000 + user;
			row->bu = 0.25f;
			row->n_positives = (uint32_t)n;
			for (int d = 0; d < DIM; d++)
				row->difference[d] = (float)user + (float)d * 0.5f;
		}
		state_row_end(w->state, user);
	}
}

static void fill_generation(struct world *w)
{
	struct generation *g;
	const uint32_t n_users = state_n_users(w->state), n_items = state_n_items(w->state);

	assert_int_equal(publisher_new(DIM, &w->publisher), 0);
	assert_int_equal(publisher_begin(w->publisher, &g), 0);
	assert_int_equal(tables_reserve(&g->tables, n_users, n_items, DIM), 0);
	g->tables.n_users = n_users;
	g->tables.n_items = n_items;
	g->tables.dim = DIM;
	for (uint32_t i = 0; i < n_users * DIM; i++)
		g->tables.U[i] = (float)i * 0.125f;
	for (uint32_t i = 0; i < n_items * DIM; i++)
		g->tables.V[i] = -(float)i * 0.25f;
	for (uint32_t i = 0; i < n_users; i++) {
		g->tables.bu[i] = (float)i;
		g->tables.acc_user[i] = (float)i * 2;
	}
	for (uint32_t i = 0; i < n_items; i++)
		g->tables.bi[i] = g->tables.acc_item[i] = (float)i * 3;
	g->intercept = -1.5f;
	g->progress = (struct learner_progress){ .seed = 9, .step = 11, .triples = 12, .walk = 13, .passes = 14, .rollbacks = 15 };
	publisher_commit(w->publisher, g, 77);
	w->generation = generation_acquire(w->publisher);
	assert_non_null(w->generation);
}

static int setup(void **out)
{
	struct world *w = calloc(1, sizeof(*w));
	char errstr[256];

	assert_non_null(w);
	rng_state = 42;
	strcpy(w->path, "/tmp/recd-checkpoint-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	w->fd = open(w->path, O_RDONLY | O_DIRECTORY);
	w->config = (struct state_config){ .hash_seed = 5, .users_max = 1000, .items_max = 1000, .impressions_max = 8, .row_bytes = personal_row_bytes(DIM) };
	w->rules = (struct state_rules){ .min_pos_completion = 0.6f, .negative_after_us = 1800000000 };
	assert_int_equal(state_new(&w->config, &w->rules, &w->state, errstr, sizeof(errstr)), 0);
	fill_state(w);
	fill_rows(w);
	fill_generation(w);
	for (int i = 0; i < 2; i++) {
		snprintf(w->positions[i].name, sizeof(w->positions[i].name), "file:stream%d:/var/log/x", i);
		w->positions[i].offset = 1000 + i;
		w->positions[i].inode = 0xfedcba9876543210u;
		w->positions[i].marker_len = 64;
		w->positions[i].lines = 5;
		w->positions[i].refused[REFUSED_BAD_NUMBER] = (uint64_t)(3 + i);
		w->positions[i].last_time_us = INT64_MIN;
		w->positions[i].mark_time_ns = 1700000000123456789 + i;
	}
	*out = w;
	return 0;
}

static int teardown(void **in)
{
	struct world *w = *in;
	char command[128];

	generation_release(w->publisher, w->generation);
	publisher_free(w->publisher);
	state_free(w->state);
	close(w->fd);
	snprintf(command, sizeof(command), "rm -rf '%s'", w->path);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static int write_cut(struct world *w, struct checkpoint_result *result, char *errstr, size_t errstr_size)
{
	const char *surfaces[16];
	struct checkpoint_progress progress = { 0 };
	struct checkpoint_cut cut = { .generation = w->generation, .state = w->state, .positions = w->positions, .n_positions = 2,
		                      .state_config = w->config, .rules = w->rules, .dead_letter_length = 321, .dead_letter_dropped = 4,
		                      .model_clock_us = 987654321, .personalize_min_positives = 3,
		                      .bad = w->bad, .n_bad = w->n_bad };
	int rc;

	assert_int_equal(state_cut_begin(w->state, &cut.cut), 0);
	cut.user_ids = state_user_ids(w->state);
	cut.item_ids = state_item_ids(w->state);
	cut.n_surfaces = state_cut_n_surfaces(cut.cut);
	assert_in_range(cut.n_surfaces, 2, 16);
	for (uint32_t i = 0; i < cut.n_surfaces; i++)
		surfaces[i] = state_surface_name(w->state, (uint16_t)(i + 1));
	cut.surfaces = surfaces;
	rc = checkpoint_write(w->fd, &cut, 3, &progress, result, errstr, errstr_size);
	state_cut_end(cut.cut);
	return rc;
}

static void write_good(struct world *w, uint32_t number)
{
	struct checkpoint_result result;
	char errstr[512] = "";

	if (write_cut(w, &result, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	assert_int_equal(result.number, number);
}

static int load(struct world *w, struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size)
{
	return checkpoint_load(w->fd, &w->config, DIM, &w->rules, NULL, NULL, loaded, errstr, errstr_size);
}

static void round_trip(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "";
	const struct state_digest before = state_digest(w->state);

	write_good(w, 1);
	if (load(w, &loaded, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	const struct state_digest after = state_digest(loaded.state);

	assert_int_equal(before.lo, after.lo);
	assert_int_equal(before.hi, after.hi);
	assert_int_equal(loaded.number, 1);
	assert_int_equal(loaded.generation_number, 77);
	assert_int_equal(loaded.hash_seed, 5);
	assert_int_equal(loaded.dead_letter_length, 321);
	assert_int_equal(loaded.dead_letter_dropped, 4);
	assert_int_equal(loaded.model_clock_us, 987654321);
	assert_memory_equal(&loaded.progress, &w->generation->progress, sizeof(loaded.progress));
	assert_true(loaded.intercept == -1.5f);
	assert_int_equal(loaded.n_positions, 2);
	assert_memory_equal(loaded.positions, w->positions, sizeof(w->positions));
	assert_memory_equal(loaded.tables.V, w->generation->tables.V, state_n_items(w->state) * DIM * sizeof(float));
	assert_memory_equal(loaded.tables.acc_user, w->generation->tables.acc_user, state_n_users(w->state) * sizeof(float));
	assert_int_equal(state_time_max_us(loaded.state), state_time_max_us(w->state));
	const struct state_counters counted = state_counters(loaded.state), counts = state_counters(w->state);

	assert_memory_equal(&counted, &counts, sizeof(counts));
	checkpoint_loaded_free(&loaded);
}

static void personal_rows_come_back(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "";
	uint32_t seen = 0;

	write_good(w, 1);
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), 0);
	for (uint32_t user = 0; user < state_n_users(w->state); user++) {
		struct user_facts was, is;

		state_user_facts(w->state, user, &was);
		state_user_facts(loaded.state, user, &is);
		const struct personal_row *a = was.row, *b = is.row;

		assert_int_equal(a->generation, b->generation);
		assert_int_equal(a->n_positives, b->n_positives);
		assert_int_equal(a->fitted_us, b->fitted_us);
		for (int d = 0; d < DIM; d++)
			assert_float_equal(a->difference[d], b->difference[d], 1e-3);
		seen += a->generation != 0;
	}
	assert_in_range(seen, 3, USERS);
	checkpoint_loaded_free(&loaded);
}

/* Users without positives are saved with the mean row; the item tables of both models are the same bytes. */
static void models_are_kept_apart(void **in)
{
	struct world *w = *in;
	struct model_file global = { 0 }, personal = { 0 };
	char path[128], errstr[512] = "";

	write_good(w, 1);
	snprintf(path, sizeof(path), "%s/model_bpr.pt", w->path);
	if (model_file_read(path, &global, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	snprintf(path, sizeof(path), "%s/model_bpr_personalized.pt", w->path);
	if (model_file_read(path, &personal, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	assert_string_equal(global.kind, "global");
	assert_string_equal(personal.kind, "personalized");
	assert_memory_equal(global.tables.V, personal.tables.V, global.tables.n_items * DIM * sizeof(float));
	assert_memory_equal(global.tables.bi, personal.tables.bi, global.tables.n_items * sizeof(float));
	for (uint32_t user = 0; user < state_n_users(w->state); user++) {
		struct user_facts facts;

		state_user_facts(w->state, user, &facts);
		const size_t n = state_positives(w->state, &facts, NULL, 0);
		const float *row = n > 0 ? w->generation->tables.U + user * DIM : w->generation->mean_user;
		const struct personal_row *own = facts.row;

		assert_memory_equal(global.tables.U + user * DIM, row, DIM * sizeof(float));
		for (int d = 0; d < DIM; d++)
			assert_float_equal(personal.tables.U[user * DIM + (uint32_t)d], row[d] + (own->generation != 0 ? own->difference[d] : 0), 1e-3);
	}
	model_file_free(&global);
	model_file_free(&personal);
}

static void first_start_and_loss(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "", command[256];

	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), -ENOENT);
	write_good(w, 1);
	snprintf(command, sizeof(command), "rm -rf '%s/checkpoints'", w->path);
	assert_int_equal(system(command), 0);
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), -EUCLEAN);
	assert_non_null(strstr(errstr, "INITIALISED"));
}

static void flip(struct world *w, uint32_t number, const char *file, long from_end)
{
	char path[160];
	FILE *f;
	int c;

	snprintf(path, sizeof(path), "%s/checkpoints/%06u/%s", w->path, number, file);
	f = fopen(path, "r+");
	assert_non_null(f);
	fseek(f, from_end, from_end < 0 ? SEEK_END : SEEK_SET);
	c = fgetc(f);
	fseek(f, -1, SEEK_CUR);
	fputc(c ^ 0x10, f);
	fclose(f);
}

static void damaged_one_is_passed_over(void **in)
{
	static const char *const files[] = { "model_bpr.pt", "model_bpr_personalized.pt", "state.pt" };
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[1024] = "";

	write_good(w, 1);
	for (uint32_t i = 0; i < 3; i++) {
		write_good(w, i + 2);
		flip(w, i + 2, files[i], 3000);
		assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), 0);
		assert_int_equal(loaded.number, 1);
		assert_int_equal(loaded.n_bad, i + 1);
		assert_non_null(strstr(loaded.skipped, files[i]));
		w->bad[w->n_bad++] = i + 2; /* as the daemon does: bad ones do not push good ones out */
		checkpoint_loaded_free(&loaded);
	}
	flip(w, 1, "state.pt", 3000);
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), -EUCLEAN);
	assert_non_null(strstr(errstr, "none of"));
}

/* Three good files of two different cuts are no generation. */
static void files_of_two_cuts_are_refused(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "", command[512];

	write_good(w, 1);
	w->generation->progress.step++;
	write_good(w, 2);
	snprintf(command, sizeof(command), "cp '%s/checkpoints/000001/model_bpr.pt' '%s/checkpoints/000002/model_bpr.pt'", w->path, w->path);
	assert_int_equal(system(command), 0);
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), 0);
	assert_int_equal(loaded.number, 1);
	assert_non_null(strstr(loaded.skipped, "different cuts"));
	checkpoint_loaded_free(&loaded);
}

static void other_shape_is_refused_not_skipped(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "";

	write_good(w, 1);
	assert_int_equal(checkpoint_load(w->fd, &w->config, DIM * 2, &w->rules, NULL, NULL, &loaded, errstr, sizeof(errstr)), -EMEDIUMTYPE);
	assert_non_null(strstr(errstr, "emb_dim"));
	w->config.impressions_max = 9;
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), -EMEDIUMTYPE);
	w->config.impressions_max = 8;
	w->config.users_max = 10;
	assert_int_equal(load(w, &loaded, errstr, sizeof(errstr)), -EMEDIUMTYPE);
	assert_non_null(strstr(errstr, "users_max"));
	w->config.users_max = 1000;
}

/* Who only asks need not know the shape. */
static void any_shape_when_nobody_wants_one(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded = { 0 }, one = { 0 };
	char errstr[512] = "";

	write_good(w, 1);
	if (checkpoint_load(w->fd, NULL, 0, &w->rules, NULL, NULL, &loaded, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	assert_int_equal(loaded.tables.dim, DIM);
	assert_memory_equal(loaded.tables.V, w->generation->tables.V, state_n_items(w->state) * DIM * sizeof(float));
	assert_int_equal(state_n_users(loaded.state), state_n_users(w->state));

	const int fd = openat(w->fd, "checkpoints/000001", O_RDONLY | O_DIRECTORY);

	if (checkpoint_load_generation(fd, NULL, 0, &w->rules, NULL, NULL, &one, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	close(fd);
	const struct state_digest before = state_digest(w->state), after = state_digest(one.state);

	assert_int_equal(before.lo, after.lo);
	assert_int_equal(before.hi, after.hi);
	checkpoint_loaded_free(&loaded);
	checkpoint_loaded_free(&one);
}

/* The newest generation is pruned, and a newer one written, after its first file was read. */
static void prune(void *ctx, const char *what)
{
	struct world *w = ctx;
	char command[256];

	(void)what;
	if (faccessat(w->fd, "checkpoints/000002", F_OK, 0) < 0)
		return;
	snprintf(command, sizeof(command), "rm -r '%s/checkpoints/000002'", w->path);
	assert_int_equal(system(command), 0);
	write_good(w, 3);
}

static void one_that_goes_meanwhile_is_not_bad(void **in)
{
	struct world *w = *in;
	struct checkpoint_loaded loaded;
	char errstr[512] = "";

	write_good(w, 1);
	write_good(w, 2);
	if (checkpoint_load(w->fd, NULL, 0, &w->rules, prune, w, &loaded, errstr, sizeof(errstr)) < 0)
		fail_msg("%s", errstr);
	assert_int_equal(loaded.number, 3);
	assert_string_equal(loaded.skipped, "");
	assert_int_equal(loaded.n_bad, 0);
	checkpoint_loaded_free(&loaded);
}

static void old_generations_go_numbers_stay(void **in)
{
	struct world *w = *in;
	struct stat st;

	for (uint32_t i = 1; i <= 5; i++)
		write_good(w, i);
	assert_int_equal(fstatat(w->fd, "checkpoints/000002", &st, 0), -1);
	assert_int_equal(fstatat(w->fd, "checkpoints/000003", &st, 0), 0);
	char target[64] = "";

	assert_int_equal(readlinkat(w->fd, "checkpoints/latest", target, sizeof(target) - 1), 6);
	assert_string_equal(target, "000005");
}

/* Tables and cut of different instants never get as far as a file. */
static void two_instants_are_refused(void **in)
{
	struct world *w = *in;
	struct checkpoint_result result;
	char errstr[512] = "";
	struct stat st;

	write_good(w, 1);
	w->generation->tables.n_users--;
	assert_int_equal(write_cut(w, &result, errstr, sizeof(errstr)), -EINVAL);
	w->generation->tables.n_users++;
	assert_non_null(strstr(errstr, "different instants"));
	assert_int_equal(fstatat(w->fd, "checkpoints/.tmp-2", &st, 0), -1);
	assert_int_equal(fstatat(w->fd, "checkpoints/000001/state.pt", &st, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(personal_rows_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(models_are_kept_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(first_start_and_loss, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_one_is_passed_over, setup, teardown),
		cmocka_unit_test_setup_teardown(files_of_two_cuts_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(other_shape_is_refused_not_skipped, setup, teardown),
		cmocka_unit_test_setup_teardown(any_shape_when_nobody_wants_one, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_goes_meanwhile_is_not_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(old_generations_go_numbers_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(two_instants_are_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
