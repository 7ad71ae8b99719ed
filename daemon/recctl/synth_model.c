/*
 * synth_model.c: draws the catalogue and the users of synthetic logs and answers what a user is shown and how likely a click is.
 *
 * Built once by recctl's main thread, read-only afterwards. Owns its tables. Random streams are numbered by purpose and index, so a title or a
 * user does not depend on how many others there are before it. Nothing that is drawn depends on libm: see synth_random.h. Only
 * synth_completion_tail() does, which the oracle uses and no draw.
 */
#include "daemon/recctl/synth_model.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_OF_ITEM = 1, STREAM_OF_RANKS = 2, STREAM_OF_USER = 3 };

const char *const synth_genre_names[SYNTH_GENRES] = { "action", "adventure", "animation", "biography", "comedy", "crime", "documentary", "drama", "family",
	                                              "fantasy", "history", "horror", "music", "mystery", "romance", "sci-fi", "thriller", "war" };

/* 1 / log2(position + 2), position 1 to 20, as constants: a libm may differ in the last bit. */
static const double position_bias[SYNTH_POSITIONS] = {
	0.63092975357145742, 0.5,                 0.43067655807339306, 0.38685280723454157, 0.35620718710802223, 0.33333333333333331, 0.31546487678572871,
	0.30102999566398120, 0.28906482631788782, 0.27894294565112981, 0.27023815442731974, 0.26264953503719357, 0.25595802480981548, 0.25,
	0.24465054211822604, 0.23981246656813143, 0.23540891336663827, 0.23137821315975915, 0.22767024869695302, 0.22424382421757544,
};

double synth_position_bias(uint32_t position)
{
	return position_bias[position - 1];
}

double synth_click_chance(double taste, uint32_t position)
{
	return position_bias[position - 1] * (0.03 + 0.6 * taste);
}

static uint32_t pair_index(uint32_t g, uint32_t h)
{
	uint32_t low = g < h ? g : h, high = g < h ? h : g;

	return high * (high + 1) / 2 + low;
}

static double sqrt_popularity(const struct synth_item *item)
{
	return sqrt(1.0 / (double)item->rank);
}

/* Genres and duration of every title. `signature_of` [18^3] maps a sorted set to its index + 1. */
static void draw_items(struct synth_model *model, uint16_t *signature_of)
{
	for (uint32_t i = 0; i < model->n_items; i++) {
		struct synth_rng rng = synth_rng_at(model->seed, STREAM_OF_ITEM, i);
		struct synth_item *item = &model->items[i];
		uint32_t n = 0, wanted = 1 + synth_below(&rng, 3);

		while (n < wanted) {
			uint8_t genre = (uint8_t)synth_below(&rng, SYNTH_GENRES);
			uint32_t same = 0;

			for (uint32_t k = 0; k < n; k++)
				same |= item->genres[k] == genre;
			if (!same)
				item->genres[n++] = genre;
		}
		item->n_genres = (uint8_t)n;
		item->duration_sec = (uint16_t)(60 * synth_between(&rng, 70, 170));
		struct synth_signature signature = { { item->genres[0], item->genres[1], item->genres[2] }, item->n_genres };
		uint32_t key = 0;
		for (uint32_t k = 1; k < n; k++) {
			for (uint32_t j = k; j > 0 && signature.genres[j - 1] > signature.genres[j]; j--) {
				uint8_t swapped = signature.genres[j];
				signature.genres[j] = signature.genres[j - 1];
				signature.genres[j - 1] = swapped;
			}
		}
		for (uint32_t k = 0; k < n; k++)
			key = key * (SYNTH_GENRES + 1) + signature.genres[k] + 1u;
		if (!signature_of[key]) {
			model->signatures[model->n_signatures++] = signature;
			signature_of[key] = (uint16_t)model->n_signatures;
		}
		item->signature = (uint16_t)(signature_of[key] - 1u);
	}
}

/* A random permutation of 1..n_items as ranks. */
static void draw_ranks(struct synth_model *model)
{
	struct synth_rng rng = synth_rng_at(model->seed, STREAM_OF_RANKS, 0);

	for (uint32_t i = 0; i < model->n_items; i++) {
		uint32_t j = synth_below(&rng, i + 1);

		model->items[i].rank = model->items[j].rank;
		model->items[j].rank = i + 1;
	}
}

/* Groups titles by pair of genres and builds the alias tables. */
static int build_tables(struct synth_model *model)
{
	uint32_t n = model->n_items, *scratch = malloc(n * sizeof(*scratch));
	double *weights = malloc(n * sizeof(*weights));
	uint64_t fill[SYNTH_PAIRS];
	int rc = -ENOMEM;

	model->by_popularity = malloc(n * sizeof(*model->by_popularity));
	if (!scratch || !weights || !model->by_popularity)
		goto out;
	for (uint32_t i = 0; i < n; i++) {
		weights[i] = 1.0 / (double)model->items[i].rank;
		model->popularity_sum += weights[i];
	}
	synth_alias_build(weights, n, model->by_popularity, scratch);
	for (uint32_t i = 0; i < n; i++) {
		const struct synth_item *item = &model->items[i];
		double weight = sqrt_popularity(item) / (double)(item->n_genres * item->n_genres);

		for (uint32_t a = 0; a < item->n_genres; a++) {
			for (uint32_t b = 0; b < item->n_genres; b++)
				model->pair_weight[item->genres[a]][item->genres[b]] += weight;
			for (uint32_t b = 0; b <= a; b++)
				model->pair_start[pair_index(item->genres[a], item->genres[b]) + 1]++;
		}
	}
	for (uint32_t p = 0; p < SYNTH_PAIRS; p++) {
		model->pair_start[p + 1] += model->pair_start[p];
		fill[p] = model->pair_start[p];
	}
	model->pair_items = malloc(model->pair_start[SYNTH_PAIRS] * sizeof(*model->pair_items));
	model->pair_alias = malloc(model->pair_start[SYNTH_PAIRS] * sizeof(*model->pair_alias));
	if (!model->pair_items || !model->pair_alias)
		goto out;
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t a = 0; a < model->items[i].n_genres; a++) {
			for (uint32_t b = 0; b <= a; b++)
				model->pair_items[fill[pair_index(model->items[i].genres[a], model->items[i].genres[b])]++] = i;
		}
	}
	for (uint32_t p = 0; p < SYNTH_PAIRS; p++) {
		uint64_t start = model->pair_start[p];
		uint32_t count = (uint32_t)(model->pair_start[p + 1] - start);

		for (uint32_t k = 0; k < count; k++) {
			const struct synth_item *item = &model->items[model->pair_items[start + k]];
			weights[k] = sqrt_popularity(item) / (double)(item->n_genres * item->n_genres);
		}
		if (count)
			synth_alias_build(weights, count, model->pair_alias + start, scratch);
	}
	rc = 0;
out:
	free(scratch);
	free(weights);
	return rc;
}

static double affinity(const struct synth_person *person, const struct synth_signature *signature)
{
	double sum = 0.0;

	for (uint32_t k = 0; k < signature->n_genres; k++)
		sum += (double)person->pref[signature->genres[k]];
	return sum / (double)signature->n_genres;
}

static void draw_users(struct synth_model *model)
{
	for (uint32_t u = 0; u < model->n_users; u++) {
		struct synth_rng rng = synth_rng_at(model->seed, STREAM_OF_USER, u);
		struct synth_person *person = &model->persons[u];
		double pref[SYNTH_GENRES], largest = 0.0, running = 0.0;

		synth_dirichlet(&rng, 0.3, SYNTH_GENRES, pref);
		for (uint32_t g = 0; g < SYNTH_GENRES; g++)
			person->pref[g] = (float)(pref[g] + 1e-30); /* no pair ever has weight 0 */
		for (uint32_t s = 0; s < model->n_signatures; s++) {
			double value = affinity(person, &model->signatures[s]);
			if (value > largest)
				largest = value;
		}
		person->affinity_max = (float)largest;
		for (uint32_t g = 0; g < SYNTH_GENRES; g++) {
			double sum = 0.0;

			for (uint32_t h = 0; h < SYNTH_GENRES; h++)
				sum += (double)person->pref[h] * model->pair_weight[g][h];
			running += (double)person->pref[g] * sum;
			person->first_genre[g] = (float)running;
		}
	}
}

int synth_model_new(uint64_t seed, uint32_t n_items, uint32_t n_users, struct synth_model **ret_model)
{
	struct synth_model *model = calloc(1, sizeof(*model));
	uint16_t *signature_of = calloc((SYNTH_GENRES + 1) * (SYNTH_GENRES + 1) * (SYNTH_GENRES + 1), sizeof(*signature_of));
	int rc = -ENOMEM;

	if (!model || !signature_of)
		goto fail;
	model->seed = seed;
	model->n_items = n_items;
	model->n_users = n_users;
	model->items = calloc(n_items, sizeof(*model->items));
	model->persons = calloc(n_users, sizeof(*model->persons));
	model->signatures = calloc(SYNTH_SIGNATURES_MAX, sizeof(*model->signatures));
	if (!model->items || !model->persons || !model->signatures)
		goto fail;
	draw_items(model, signature_of);
	draw_ranks(model);
	rc = build_tables(model);
	if (rc)
		goto fail;
	draw_users(model);
	free(signature_of);
	*ret_model = model;
	return 0;
fail:
	free(signature_of);
	synth_model_free(model);
	return rc;
}

void synth_model_free(struct synth_model *model)
{
	if (!model)
		return;
	free(model->items);
	free(model->persons);
	free(model->signatures);
	free(model->by_popularity);
	free(model->pair_items);
	free(model->pair_alias);
	free(model);
}

double synth_taste(const struct synth_model *model, uint32_t user, uint32_t signature)
{
	const struct synth_person *person = &model->persons[user];
	double taste = affinity(person, &model->signatures[signature]) / (double)person->affinity_max;

	return taste < 1.0 ? taste : 1.0;
}

/* The first genre whose running sum passes a share of the last sum; never a genre of weight 0. */
static uint32_t pick_genre(const float running[SYNTH_GENRES], double share)
{
	float wanted = (float)(share * (double)running[SYNTH_GENRES - 1]);
	uint32_t g = 0, last = SYNTH_GENRES - 1;

	while (last > 0 && running[last] <= running[last - 1])
		last--;
	while (g < last && running[g] <= wanted)
		g++;
	return g;
}

uint32_t synth_draw_item(const struct synth_model *model, uint32_t user, int by_taste, struct synth_rng *rng)
{
	const struct synth_person *person = &model->persons[user];
	float second[SYNTH_GENRES];
	double running = 0.0;

	if (!by_taste)
		return synth_alias_draw(model->by_popularity, model->n_items, rng);
	uint32_t g = pick_genre(person->first_genre, synth_uniform(rng));
	for (uint32_t h = 0; h < SYNTH_GENRES; h++) {
		running += (double)person->pref[h] * model->pair_weight[g][h];
		second[h] = (float)running;
	}
	uint32_t pair = pair_index(g, pick_genre(second, synth_uniform(rng)));
	uint64_t start = model->pair_start[pair];
	uint32_t count = (uint32_t)(model->pair_start[pair + 1] - start);
	return model->pair_items[start + synth_alias_draw(model->pair_alias + start, count, rng)];
}

/* Continued fraction of the incomplete beta function by Lentz's method (Numerical Recipes 6.4; DLMF 8.17.22). */
static double beta_fraction(double a, double b, double x)
{
	const double tiny = 1e-300;
	double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);

	d = 1.0 / (fabs(d) < tiny ? tiny : d);
	double h = d;
	for (int m = 1; m <= 200; m++) {
		for (int odd = 0; odd < 2; odd++) {
			double term = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));

			d = 1.0 + term * d;
			c = 1.0 + term / c;
			d = 1.0 / (fabs(d) < tiny ? tiny : d);
			c = fabs(c) < tiny ? tiny : c;
			h *= d * c;
		}
		if (fabs(d * c - 1.0) < 1e-14)
			break;
	}
	return h;
}

double synth_completion_tail(double mean, double threshold)
{
	double a = mean * SYNTH_CONCENTRATION, b = (1.0 - mean) * SYNTH_CONCENTRATION;

	if (threshold <= 0.0)
		return 1.0;
	if (threshold >= 1.0)
		return 0.0;
	double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(threshold) + b * log(1.0 - threshold));
	if (threshold < (a + 1.0) / (a + b + 2.0))
		return 1.0 - front * beta_fraction(a, b, threshold) / a;
	return front * beta_fraction(b, a, 1.0 - threshold) / b;
}
