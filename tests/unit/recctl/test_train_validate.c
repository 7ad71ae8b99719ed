/*
 * test_train_validate.c: what the validation slice holds: the latest positives, a hash among equal times, nobody's only positive; the other watches masked.
 */
#include "daemon/recctl/train_validate.h"
#include "tests/unit/state/state_testing.h"

#include <inttypes.h>
#include <math.h>

struct watch {
	int user, item, minute;
	float completion;
};

static struct state *state_of(const struct watch *watches, size_t n)
{
	struct state *state = new_state();
	struct event_batch *batch = event_batch_new();

	assert_non_null(batch);
	batch->stream = STREAM_WATCHES;
	for (size_t i = 0; i < n; i++)
		batch_add(batch, watch_event(watches[i].user, watches[i].item, watches[i].minute * 60 * SEC, watches[i].completion, -1.0f), NULL, NULL);
	assert_int_equal(state_apply(state, batch), 0);
	event_batch_free(batch);
	return state;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void put_items(char *text, size_t size, const struct state *state, const uint32_t *items, size_t n)
{
	int64_t ids[64];
	size_t used = 0;

	assert_in_range(n, 0, 64);
	for (size_t i = 0; i < n; i++)
		ids[i] = state_item_ids(state)[items[i]];
	qsort(ids, n, sizeof(*ids), ascending);
	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? " " : "", ids[i]);
}

/* "user:in the slice/masked|...", by ascending external ids. */
static const char *told(const struct state *state, const struct validation *v)
{
	static char text[4096];
	char relevant[512], masked[512];
	size_t used = 0;

	text[0] = '\0';
	for (int64_t id = 0; id < 100; id++) {
		for (size_t u = 0; u < v->n_users; u++) {
			const struct rank_user *user = &v->users[u];

			if (state_user_ids(state)[user->user] != id)
				continue;
			put_items(relevant, sizeof(relevant), state, user->relevant, user->n_relevant);
			put_items(masked, sizeof(masked), state, user->masked, user->n_masked);
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%" PRId64 ":%s/%s", used ? "|" : "", id, relevant, masked);
		}
	}
	return text;
}

static int has(const struct validation *v, const struct state *state, int user, int item)
{
	return validation_has(v, state_find_user(state, user), state_find_item(state, item));
}

/* 10 positives: the latest are 3:30 (his only one), 1:13, 2:22, 1:12 (watched again later, but less far), 2:21, ... */
static const struct watch watches[] = {
	{ 1, 10, 1, 0.9f },  { 1, 11, 2, 0.9f },  { 1, 12, 7, 0.9f },  { 1, 13, 9, 0.9f },  { 1, 14, 12, 0.3f }, { 1, 12, 13, 0.7f },
	{ 2, 20, 3, 0.9f },  { 2, 21, 6, 0.9f },  { 2, 22, 8, 0.6f },  { 2, 23, 14, 0.5f }, { 3, 30, 11, 0.9f }, { 3, 31, 11, 0.1f },
	{ 4, 10, 4, 0.9f },  { 4, 11, 5, 0.9f },
};
#define N_WATCHES (sizeof(watches) / sizeof(watches[0]))

static void the_latest(void **unused)
{
	struct state *state = state_of(watches, N_WATCHES);
	struct validation v;

	(void)unused;
	assert_int_equal(validation_cut(state, 0.1, 1, &v), 0);
	assert_string_equal(told(state, &v), "1:13/10 11 12 14");
	validation_free(&v);
	assert_int_equal(validation_cut(state, 0.31, 1, &v), 0); /* rounded up: four */
	assert_string_equal(told(state, &v), "1:12 13/10 11 14|2:21 22/20 23");
	assert_int_equal(v.n_pairs, 4);
	assert_true(has(&v, state, 1, 13) && has(&v, state, 2, 21));
	assert_false(has(&v, state, 1, 14) || has(&v, state, 2, 20) || has(&v, state, 4, 11) || has(&v, state, 3, 30) || has(&v, state, 2, 13));
	assert_false(validation_has(&v, 1000, 0));
	validation_free(&v);
	state_free(state);
}

static void everybody_keeps_one(void **unused)
{
	struct state *state = state_of(watches, N_WATCHES);
	struct validation v;

	(void)unused;
	assert_int_equal(validation_cut(state, 0.9, 1, &v), 0); /* nine are wanted, six can be spared */
	assert_string_equal(told(state, &v), "1:11 12 13/10 14|2:21 22/20 23|4:11/10");
	assert_int_equal(v.n_pairs, 6);
	validation_free(&v);
	state_free(state);
	state = state_of(watches + 10, 2); /* user 3 alone */
	assert_int_equal(validation_cut(state, 0.5, 1, &v), -ENODATA);
	assert_int_equal(v.n_users, 0);
	validation_free(&v);
	state_free(state);
}

/* Among equal times a hash of the ids and the seed decides: not the order of the rows. */
static void equal_times(void **unused)
{
	struct watch same[60], turned[60];
	char first[4096];
	struct validation v;

	(void)unused;
	for (int i = 0; i < 60; i++) {
		same[i] = (struct watch){ 1 + i % 6, 10 + i, 5, 0.9f };
		turned[59 - i] = same[i];
	}
	struct state *state = state_of(same, 60), *other = state_of(turned, 60);
	assert_int_equal(validation_cut(state, 0.2, 1, &v), 0);
	assert_int_equal(v.n_pairs, 12);
	snprintf(first, sizeof(first), "%s", told(state, &v));
	validation_free(&v);
	assert_int_equal(validation_cut(other, 0.2, 1, &v), 0);
	assert_string_equal(told(other, &v), first);
	validation_free(&v);
	assert_int_equal(validation_cut(state, 0.2, 2, &v), 0);
	assert_string_not_equal(told(state, &v), first);
	assert_int_equal(v.n_pairs, 12);
	validation_free(&v);
	state_free(state);
	state_free(other);
}

/* NDCG over what is not masked, by hand: a title of the slice in place 2 of the list. */
static void judged_without_the_masked(void **unused)
{
	struct state *state = state_of(watches, N_WATCHES);
	uint32_t n_items = state_n_items(state);
	struct tables tables = { .dim = 1, .n_users = state_n_users(state), .n_items = n_items };
	float U[8] = { 0 }, V[32] = { 0 }, bi[32] = { 0 }, bu[8] = { 0 };
	struct validation v;
	double ndcg;

	(void)unused;
	tables.U = U, tables.V = V, tables.bi = bi, tables.bu = bu;
	assert_int_equal(validation_cut(state, 0.1, 1, &v), 0); /* 1:13 */
	bi[state_find_item(state, 10)] = 9; /* watched: out of the list */
	bi[state_find_item(state, 14)] = 8;
	bi[state_find_item(state, 30)] = 7;
	bi[state_find_item(state, 13)] = 6;
	assert_int_equal(validation_judge(v.users, v.n_users, &tables, n_items, 5, 1, &ndcg), 0);
	assert_true(fabs(ndcg - 1 / log2(3)) < 1e-6);
	validation_free(&v);
	state_free(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_latest),
		cmocka_unit_test(everybody_keeps_one),
		cmocka_unit_test(equal_times),
		cmocka_unit_test(judged_without_the_masked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
