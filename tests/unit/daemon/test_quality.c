/*
 * test_quality.c: live quality. Places against a naive ranking that sorts, the window against means taken anew, the sample, and the thread: what it may leave out and must
 * count, what it holds and must let go.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/quality_window.h"

#define DIM 8u
#define USERS 6u
#define ITEMS 90u
#define PATIENCE_MS 20000

static uint64_t random_state = 0x2545F4914F6CDD1Du;

static uint32_t draw(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state >> 33) % n);
}

/* Few different values: many scores are equal. */
static float coarse(void)
{
	return (float)draw(3) - 1.0f;
}

/* Publishes a generation of n_items with coarse rows; items from `copied` on are copies of earlier ones. */
static struct generation *publish(struct publisher *publisher, uint32_t n_items)
{
	struct generation *g;

	assert_int_equal(publisher_begin(publisher, &g), 0);
	assert_int_equal(tables_reserve(&g->tables, USERS, n_items, DIM), 0);
	g->tables.n_users = USERS;
	g->tables.n_items = n_items;
	for (uint32_t i = 0; i < USERS * DIM; i++)
		g->tables.U[i] = coarse();
	for (uint32_t i = 0; i < n_items * DIM; i++)
		g->tables.V[i] = coarse();
	for (uint32_t i = 0; i < n_items; i++)
		g->tables.bi[i] = coarse();
	for (uint32_t d = 0; d < DIM; d++)
		g->mean_user[d] = coarse();
	free(g->popularity);
	g->popularity = calloc(n_items, sizeof(*g->popularity));
	assert_non_null(g->popularity);
	for (uint32_t i = 0; i < n_items; i++)
		g->popularity[i] = draw(5);
	g->n_popularity = g->cap_popularity = n_items;
	publisher_commit(publisher, g, 0);
	return g;
}

/* ---- places ---- */

struct entry {
	double score;
	uint32_t item;
};

static int by_score(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	if (a->score != b->score)
		return a->score > b->score ? -1 : 1;
	return a->item < b->item ? -1 : a->item > b->item;
}

/* Sorts the whole list and looks the item up. Sums of small whole numbers are exact in every order. */
static struct quality_place naive_place(const struct quality_case *c, const float *row)
{
	const struct tables *t = &c->generation->tables;
	struct entry list[ITEMS];
	struct quality_place place = { 0 };
	uint32_t n = 0;
	double pairs = 0;

	for (uint32_t i = 0; i < t->n_items; i++) {
		int left_out = 0;
		double score = row != NULL ? (double)t->bi[i] : (double)c->generation->popularity[i];

		for (size_t j = 0; j < c->n_masked; j++)
			left_out |= c->masked[j] == i && i != c->item;
		for (uint32_t d = 0; d < DIM && row != NULL; d++)
			score += (double)row[d] * (double)t->V[i * DIM + d];
		if (!left_out)
			list[n++] = (struct entry){ score, i };
	}
	qsort(list, n, sizeof(*list), by_score);
	for (uint32_t r = 0; r < n; r++)
		if (list[r].item == c->item)
			place.rank = r + 1;
	for (uint32_t r = 0; r < n; r++)
		if (list[r].item != c->item)
			pairs += list[r].score < list[place.rank - 1].score ? 1.0 : list[r].score == list[place.rank - 1].score ? 0.5 : 0.0;
	place.auc = n > 1 ? (float)(pairs / (double)(n - 1)) : 0.5f;
	return place;
}

static void assert_place(struct quality_place found, struct quality_place expected)
{
	assert_int_equal(found.rank, expected.rank);
	assert_float_equal(found.auc, expected.auc, 1e-6f);
}

static struct personal_row *personal_row_new(uint64_t generation, int64_t fitted_us)
{
	struct personal_row *row = calloc(1, personal_row_bytes(DIM));

	assert_non_null(row);
	row->generation = generation;
	row->fitted_us = fitted_us;
	for (uint32_t d = 0; d < DIM; d++)
		row->difference[d] = coarse();
	return row;
}

static const float *user_row(const struct quality_case *c)
{
	return c->n_positives > 0 && c->user < USERS ? c->generation->tables.U + (size_t)c->user * DIM : c->generation->mean_user;
}

static void test_places_are_those_of_a_sorted_list(void **state)
{
	struct publisher *publisher;
	struct quality_scratch scratch = { 0 };
	int served_seen[3] = { 0 };

	(void)state;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	for (int round = 0; round < 2000; round++) {
		struct generation *g = publish(publisher, 1 + draw(ITEMS));
		struct personal_row *row = personal_row_new(draw(3), (int64_t)draw(200));
		uint32_t masked[ITEMS];
		struct quality_case c = { .generation = g, .user = draw(USERS + 2), .item = draw(g->tables.n_items), .n_positives = draw(5), .masked = masked,
			                  .personal = draw(4) ? row : NULL,
			                  .options = { .personalize_min_positives = 3, .personal_max_age_us = 150, .model_clock_us = 200 } };
		struct quality_place places[QUALITY_MODELS];
		enum served served;
		float mine[DIM];

		for (uint32_t i = 0; i < ITEMS; i++) /* some of them the generation does not know, sometimes the item itself */
			if (draw(3) == 0)
				masked[c.n_masked++] = i;
		assert_int_equal(quality_rank(&c, &scratch, places, &served), 0);
		served_seen[served]++;
		assert_place(places[QUALITY_GLOBAL], naive_place(&c, user_row(&c)));
		assert_place(places[QUALITY_POPULARITY], naive_place(&c, NULL));
		for (uint32_t d = 0; d < DIM; d++)
			mine[d] = user_row(&c)[d] + row->difference[d];
		if (c.personal != NULL && row->generation != 0 && c.n_positives >= 3 && 200 - row->fitted_us <= 150) {
			assert_int_equal(served, SERVED_PERSONALIZED);
			assert_place(places[QUALITY_SERVED], naive_place(&c, mine));
		} else if (c.n_positives > 0 && c.user < USERS) {
			assert_int_equal(served, SERVED_GLOBAL);
			assert_place(places[QUALITY_SERVED], places[QUALITY_GLOBAL]);
		} else {
			assert_int_equal(served, SERVED_POPULARITY);
			assert_place(places[QUALITY_SERVED], places[QUALITY_POPULARITY]);
		}
		free(row);
	}
	assert_true(served_seen[SERVED_PERSONALIZED] > 100 && served_seen[SERVED_GLOBAL] > 100 && served_seen[SERVED_POPULARITY] > 100);
	quality_scratch_free(&scratch);
	publisher_free(publisher);
}

static void test_an_item_that_the_generation_does_not_have(void **state)
{
	struct publisher *publisher;
	struct quality_scratch scratch = { 0 };
	struct quality_place places[QUALITY_MODELS];
	enum served served;

	(void)state;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	struct quality_case c = { .generation = publish(publisher, 10), .item = 10 };

	assert_int_equal(quality_rank(&c, &scratch, places, &served), -ENOENT);
	c.item = 9;
	assert_int_equal(quality_rank(&c, &scratch, places, &served), 0);
	((struct generation *)(uintptr_t)c.generation)->n_popularity = 9; /* popularity was not noted */
	assert_int_equal(quality_rank(&c, &scratch, places, &served), -ENOENT);
	quality_scratch_free(&scratch);
	publisher_free(publisher);
}

/* ---- the window ---- */

static void test_the_window_holds_the_last(void **state)
{
	struct quality_window window;
	struct quality_result all[100];
	struct quality_figures found[QUALITY_MODELS];

	(void)state;
	assert_int_equal(quality_window_init(&window, 7, 20), 0);
	quality_window_figures(&window, found);
	assert_true(isnan(found[0].hit_rate) && isnan(found[0].ndcg) && isnan(found[0].auc));
	for (uint32_t n = 1; n <= 100; n++) {
		for (int m = 0; m < QUALITY_MODELS; m++) {
			all[n - 1].rank[m] = 1 + draw(60);
			all[n - 1].auc[m] = (float)draw(1000) / 1000.0f;
		}
		quality_window_add(&window, &all[n - 1]);
		const uint32_t k = n < 50 ? 20 : 40, first = n > 7 ? n - 7 : 0;

		quality_window_set_k(&window, k);
		quality_window_figures(&window, found);
		for (int m = 0; m < QUALITY_MODELS; m++) {
			double hits = 0, gain = 0, auc = 0;

			for (uint32_t i = first; i < n; i++) {
				hits += all[i].rank[m] <= k;
				gain += all[i].rank[m] <= k ? 1.0 / log2(all[i].rank[m] + 1.0) : 0.0;
				auc += (double)all[i].auc[m];
			}
			assert_float_equal((float)found[m].hit_rate, (float)(hits / (n - first)), 1e-6f);
			assert_float_equal((float)found[m].ndcg, (float)(gain / (n - first)), 1e-6f);
			assert_float_equal((float)found[m].auc, (float)(auc / (n - first)), 1e-6f);
		}
	}
	quality_window_free(&window);
}

/* ---- the sample ---- */

static void test_the_sample_is_the_same_on_every_run(void **state)
{
	uint32_t fifth = 0, half = 0, other_seed = 0;

	(void)state;
	for (int64_t user = 0; user < 200; user++) {
		for (int64_t item = 0; item < 200; item++) {
			const int in = quality_is_sampled(user, item, 42, 0.2f);

			assert_int_equal(in, quality_is_sampled(user, item, 42, 0.2f));
			assert_true(!in || quality_is_sampled(user, item, 42, 0.5f)); /* a larger share has the smaller one in it */
			assert_true(quality_is_sampled(user, item, 42, 1.0f) && !quality_is_sampled(user, item, 42, 0.0f));
			fifth += (uint32_t)in;
			half += (uint32_t)quality_is_sampled(user, item, 42, 0.5f);
			other_seed += (uint32_t)(in && quality_is_sampled(user, item, 43, 0.2f));
		}
	}
	/* five standard deviations of a fair coin */
	assert_true(fifth > 8000 - 400 && fifth < 8000 + 400);
	assert_true(half > 20000 - 500 && half < 20000 + 500);
	assert_true(other_seed > 1600 - 200 && other_seed < 1600 + 200);
}

/* ---- the thread ---- */

static const struct quality_options fair = { .enabled = 1, .share = 1, .k = 20, .window = 1000, .cpu_share_max = 1 };

static void sleep_ms(int ms)
{
	const struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

static uint64_t accounted(const struct quality_status *s)
{
	uint64_t sum = s->ranked;

	for (int why = 0; why < QUALITY_LEFT_OUT; why++)
		sum += s->left_out[why];
	return sum;
}

static struct quality_status wait_for(struct quality *quality, uint64_t offers)
{
	struct quality_status status;

	for (int waited = 0;; waited++) {
		quality_get_status(quality, &status);
		if (accounted(&status) >= offers || waited > PATIENCE_MS)
			break;
		sleep_ms(1);
	}
	assert_int_equal(accounted(&status), offers);
	return status;
}

/* Nobody holds a generation but the publisher: the published one has two references with ours, and while we hold it both others can be filled. */
static void assert_nothing_held(struct publisher *publisher)
{
	struct generation *g = generation_acquire(publisher);

	assert_int_equal(g->refs, 2);
	publish(publisher, 3);
	publish(publisher, 3);
	generation_release(publisher, g);
}

static void test_offers_are_ranked_as_they_were_when_they_came(void **state)
{
	struct publisher *publisher;
	struct quality *quality;
	struct quality_window expected;
	struct quality_figures figures[QUALITY_MODELS];
	struct quality_scratch scratch = { 0 };
	uint64_t new_users = 0, unknown = 0;

	(void)state;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	assert_int_equal(quality_new(&fair, publisher, personal_row_bytes(DIM), &quality), 0);
	assert_int_equal(quality_window_init(&expected, 1000, 20), 0);
	assert_int_equal(quality_start(quality), 0);
	for (uint64_t n = 1; n <= 300; n++) {
		struct generation *g = publish(publisher, ITEMS - 10);
		struct personal_row *row = personal_row_new(1, 0);
		uint32_t masked[3] = { draw(ITEMS), ITEMS, ITEMS + 1 };
		struct quality_case c = { .generation = g, .user = draw(USERS), .item = draw(ITEMS), .n_positives = draw(5), .masked = masked, .n_masked = 3,
			                  .personal = row, .options = { .personalize_min_positives = 3 } };
		struct quality_place places[QUALITY_MODELS];
		struct quality_result result;
		enum served served;

		if (quality_rank(&c, &scratch, places, &served) == 0) {
			for (int m = 0; m < QUALITY_MODELS; m++) {
				result.rank[m] = places[m].rank;
				result.auc[m] = places[m].auc;
			}
			quality_window_add(&expected, &result);
			new_users += c.n_positives == 0;
		} else {
			unknown++;
		}
		quality_offer(quality, &c);
		memset(masked, 0, sizeof(masked)); /* the offer has copies */
		memset(row->difference, 0, DIM * sizeof(float));
		wait_for(quality, n);
		free(row);
	}
	const struct quality_status status = wait_for(quality, 300);

	assert_int_equal(status.left_out[QUALITY_LATE] + status.left_out[QUALITY_BUDGET] + status.left_out[QUALITY_QUEUE_FULL], 300 - status.ranked - unknown);
	if (status.ranked == 300 - unknown) { /* a machine that is very busy may have let some go */
		quality_window_figures(&expected, figures);
		for (int m = 0; m < QUALITY_MODELS; m++) {
			assert_float_equal((float)status.models[m].hit_rate, (float)figures[m].hit_rate, 1e-6f);
			assert_float_equal((float)status.models[m].ndcg, (float)figures[m].ndcg, 1e-6f);
			assert_float_equal((float)status.models[m].auc, (float)figures[m].auc, 1e-6f);
		}
		assert_int_equal(status.new_users, new_users);
	}
	assert_true(unknown > 0 && status.left_out[QUALITY_UNKNOWN_ITEM] == unknown);
	assert_true(status.cpu_us > 0);
	quality_stop(quality);
	assert_nothing_held(publisher);
	quality_free(quality);
	quality_window_free(&expected);
	quality_scratch_free(&scratch);
	publisher_free(publisher);
}

static void test_a_full_queue_drops_and_counts(void **state)
{
	struct publisher *publisher;
	struct quality *quality;
	struct quality_case c = { .item = 1, .options = { .personalize_min_positives = 3 } };
	struct quality_status status;

	(void)state;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	publish(publisher, ITEMS);
	assert_int_equal(quality_new(&fair, publisher, personal_row_bytes(DIM), &quality), 0);
	for (uint32_t n = 0; n < QUALITY_SLOTS + 36; n++) /* no thread takes them */
		quality_offer(quality, &c);
	quality_get_status(quality, &status);
	assert_int_equal(status.left_out[QUALITY_QUEUE_FULL], 36);
	sleep_ms(60); /* longer than a generation is held */
	assert_int_equal(quality_start(quality), 0);
	status = wait_for(quality, QUALITY_SLOTS + 36);
	assert_int_equal(status.left_out[QUALITY_LATE], QUALITY_SLOTS);
	assert_int_equal(status.ranked, 0);
	quality_leave_out(quality, QUALITY_LAG);
	quality_get_status(quality, &status);
	assert_int_equal(status.left_out[QUALITY_LAG], 1);
	quality_stop(quality);
	assert_nothing_held(publisher);
	quality_offer(quality, &c); /* after the end: nothing, and no reference */
	assert_nothing_held(publisher);
	quality_free(quality);
	publisher_free(publisher);
}

static void test_the_core_is_not_taken(void **state)
{
	struct quality_options poor = fair;
	struct publisher *publisher;
	struct quality *quality;
	struct quality_case c = { .item = 1, .n_positives = 1, .options = { .personalize_min_positives = 3 } };
	struct quality_status status;
	struct timespec began, now;
	uint64_t offers = 0;
	double wall_us;

	(void)state;
	poor.cpu_share_max = 0.001;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	publish(publisher, 400000); /* a ranking takes a good part of a millisecond */
	assert_int_equal(quality_new(&poor, publisher, personal_row_bytes(DIM), &quality), 0);
	assert_int_equal(quality_start(quality), 0);
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (; offers < 400; offers++) {
		quality_offer(quality, &c);
		sleep_ms(1);
	}
	status = wait_for(quality, offers);
	clock_gettime(CLOCK_MONOTONIC, &now);
	wall_us = (double)(now.tv_sec - began.tv_sec) * 1e6 + (double)(now.tv_nsec - began.tv_nsec) / 1e3;
	assert_true(status.ranked > 0 && status.left_out[QUALITY_BUDGET] > 0);
	/* its share of the time, and what one ranking took beyond it */
	const double one_us = (double)status.cpu_us / (double)status.ranked;

	assert_true((double)status.cpu_us < wall_us * 0.001 + 20 * one_us);
	quality_free(quality);
	publisher_free(publisher);
}

static void test_settings_change_and_a_stop_lets_go(void **state)
{
	struct quality_options other = fair;
	struct publisher *publisher;
	struct quality *quality;
	struct quality_status status;

	(void)state;
	assert_int_equal(publisher_new(DIM, &publisher), 0);
	assert_int_equal(quality_new(&fair, publisher, personal_row_bytes(DIM), &quality), 0);
	other.k = 7;
	other.enabled = 0;
	other.window = 5;
	quality_set_options(quality, &other);
	quality_get_status(quality, &status);
	assert_int_equal(status.k, 7);
	assert_int_equal(status.enabled, 0);
	assert_int_equal(status.window, 1000); /* stays */
	publish(publisher, ITEMS);
	quality_offer(quality, &(struct quality_case){ .item = 1 });
	quality_stop(quality); /* before anybody took it */
	assert_nothing_held(publisher);
	quality_free(quality);
	quality_free(NULL);
	publisher_free(publisher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places_are_those_of_a_sorted_list),
		cmocka_unit_test(test_an_item_that_the_generation_does_not_have),
		cmocka_unit_test(test_the_window_holds_the_last),
		cmocka_unit_test(test_the_sample_is_the_same_on_every_run),
		cmocka_unit_test(test_offers_are_ranked_as_they_were_when_they_came),
		cmocka_unit_test(test_a_full_queue_drops_and_counts),
		cmocka_unit_test(test_the_core_is_not_taken),
		cmocka_unit_test(test_settings_change_and_a_stop_lets_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
