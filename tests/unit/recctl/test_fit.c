/*
 * test_fit.c: whose rows are means and whose are fitted: the learner says who was trained on, the validation slice stays out of personal rows.
 */
#include "daemon/recctl/fit.h"
#include "daemon/recctl/train_validate.h"
#include "tests/unit/state/state_testing.h"
#include "trainer/learn/learn.h"

#define DIM 2u

static struct state *state_with(int users, int watched)
{
	struct state *state = new_state();
	struct event_batch *batch = event_batch_new();

	assert_non_null(batch);
	batch->stream = STREAM_WATCHES;
	for (int user = 0; user < users; user++)
		for (int item = 0; item < watched; item++)
			batch_add(batch, watch_event(user, user + item, (user * 10 + item) * SEC, 0.9f, -1.0f), NULL, NULL);
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_free(batch);
	return state;
}

/* A file gave users 0 and 2 their positives, whatever the histories say. */
static void the_mean_is_over_who_was_trained_on(void **unused)
{
	const struct user_item pairs[] = { { 0, 1 }, { 2, 0 }, { 2, 1 } };
	int64_t user_ids[3] = { 5, 6, 7 }, item_ids[2] = { 8, 9 };
	float U[3 * DIM] = { 1, 2, 30, 40, 5, 8 };
	struct tables tables = { .dim = DIM, .n_users = 3, .U = U };
	struct learn_options options;
	struct learner *learner;
	char errstr[256];

	(void)unused;
	learn_options_default(&options);
	options.emb_dim = DIM;
	assert_int_equal(learner_new(&options, &backend_cpu, &learner, errstr, sizeof(errstr)), 0);
	assert_int_equal(learner_grow(learner, 3, 2, user_ids, item_ids), 0);
	fit_mean_user(learner, &tables);
	for (uint32_t i = 0; i < 3 * DIM; i++)
		assert_true(U[i] == 0); /* nobody was */
	memcpy(U, (float[]){ 1, 2, 30, 40, 5, 8 }, sizeof(U));
	assert_int_equal(learner_add_positives(learner, pairs, 3, 0), 0);
	assert_int_equal(learner_user_positives(learner, 2), 2);
	assert_int_equal(learner_user_positives(learner, 3), 0); /* no such row */
	fit_mean_user(learner, &tables);
	assert_memory_equal(U, ((float[]){ 1, 2, 3, 5, 5, 8 }), sizeof(U));
	learner_free(learner);
}

static void fit_rows(const struct state *state, const struct validation *slice, float *ret_U, uint64_t *ret_fitted)
{
	uint32_t n_items = state_n_items(state), candidates[64];
	float U[8 * DIM], V[64 * DIM], bi[64] = { 0 };
	struct tables tables = { .dim = DIM, .n_users = state_n_users(state), .n_items = n_items, .U = U, .V = V, .bi = bi };
	struct personalize_options options;
	struct fit fit = { .state = state, .slice = slice, .threads = 1 };

	for (uint32_t i = 0; i < n_items * DIM; i++)
		V[i] = (float)((int)(i * 7 % 5) - 2);
	for (uint32_t i = 0; i < n_items; i++)
		candidates[i] = i;
	for (uint32_t i = 0; i < tables.n_users * DIM; i++)
		U[i] = 0.5f;
	personalize_options_default(&options);
	assert_int_equal(fit_personal_rows(&fit, &tables, candidates, n_items, 3, &options, ret_U, ret_fitted), 0);
}

static void the_slice_is_not_fitted_to(void **unused)
{
	struct state *state = state_with(3, 3); /* three positives each, which is enough */
	float U[8 * DIM], without[8 * DIM];
	struct validation slice;
	uint64_t fitted;

	(void)unused;
	fit_rows(state, NULL, U, &fitted);
	assert_int_equal(fitted, 3);
	assert_int_equal(validation_cut(state, 0.1, 1, &slice), 0); /* the last one: user 2's title 4 */
	assert_int_equal(slice.n_pairs, 1);
	fit_rows(state, &slice, without, &fitted);
	assert_int_equal(fitted, 2); /* two positives are too few */
	uint32_t user = state_find_user(state, 2);
	assert_true(without[user * DIM] == 0.5f && without[user * DIM + 1] == 0.5f);
	for (int64_t id = 0; id < 2; id++) {
		user = state_find_user(state, id);
		assert_memory_equal(without + user * DIM, U + user * DIM, DIM * sizeof(float));
		assert_true(U[user * DIM] != 0.5f || U[user * DIM + 1] != 0.5f);
	}
	validation_free(&slice);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_mean_is_over_who_was_trained_on),
		cmocka_unit_test(the_slice_is_not_fitted_to),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
