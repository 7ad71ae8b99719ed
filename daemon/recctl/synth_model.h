/*
 * synth_model.h: the invented world behind synthetic logs: titles, users, and every chance. Everything that decides a chance stands here, and the
 * oracle reads the same tables as the generator.
 *
 *   genre_pref(u)   ~ Dirichlet(0.3) over 18 genres
 *   genres(i)       1 to 3 different genres, each count equally likely, genres uniform
 *   popularity(i)   1 / rank (Zipf with exponent 1); ranks are a random permutation of the ids
 *   affinity(u,i)   mean of the user's preference over the title's genres; taste = affinity / the user's largest over the catalogue
 *   what is shown   half: in proportion to popularity; half: in proportion to taste^2 * popularity^0.5
 *   position        1 to 20, equally likely; bias = 1 / log2(position + 2)
 *   click           bias * (0.03 + 0.6 taste); play_start after 70 % of clicks; every play_start becomes a watch
 *   completion      Beta with mean 0.15 + 0.75 taste and concentration 4
 *
 * Drawing by taste needs no table of users x items: |genres|^2 affinity^2 is the sum over all ordered pairs (g, h) of the title's genres of
 * pref(g) pref(h). So a pair is drawn first (from the user's 18 preferences and an 18 x 18 table of the catalogue), then a title that has both, from an
 * alias table for the pair. Memory: about 75 bytes a title (105 at most) and 230 bytes a user, timeline included.
 */
#ifndef DAEMON_RECCTL_SYNTH_MODEL_H
#define DAEMON_RECCTL_SYNTH_MODEL_H

#include "daemon/recctl/synth_random.h"

#include <stddef.h>
#include <stdint.h>

#define SYNTH_GENRES 18
#define SYNTH_PAIRS (SYNTH_GENRES * (SYNTH_GENRES + 1) / 2) /* unordered, a genre with itself included */
#define SYNTH_POSITIONS 20
#define SYNTH_PLAY_CHANCE 0.7
#define SYNTH_CONCENTRATION 4.0
#define SYNTH_SIGNATURES_MAX 987 /* sets of 1 to 3 of 18 genres */

extern const char *const synth_genre_names[SYNTH_GENRES];

struct synth_item {
	uint32_t rank;      /* 1: the most popular */
	uint16_t signature; /* index into signatures */
	uint16_t duration_sec;
	uint8_t genres[3];
	uint8_t n_genres;
};

struct synth_signature {
	uint8_t genres[3]; /* ascending */
	uint8_t n_genres;
};

struct synth_person {
	float pref[SYNTH_GENRES];        /* sums to 1 */
	float first_genre[SYNTH_GENRES]; /* running sums: chance of the pair's first genre, not normalised */
	float affinity_max;
};

struct synth_model {
	uint64_t seed;
	uint32_t n_items, n_users;
	uint32_t n_signatures;
	struct synth_item *items;         /* [n_items] */
	struct synth_person *persons;     /* [n_users] */
	struct synth_signature *signatures; /* [n_signatures], those that some title has */
	struct synth_alias *by_popularity; /* [n_items] */
	double popularity_sum;
	double pair_weight[SYNTH_GENRES][SYNTH_GENRES]; /* sum over titles with both genres of popularity^0.5 / |genres|^2; symmetric */
	uint64_t pair_start[SYNTH_PAIRS + 1];           /* of each pair in the two arrays below */
	uint32_t *pair_items;                           /* title ids */
	struct synth_alias *pair_alias;
};

/* Builds catalogue and users. *ret_model is the caller's (synth_model_free). 0 or -ENOMEM. n_items and n_users at least 1. */
int synth_model_new(uint64_t seed, uint32_t n_items, uint32_t n_users, struct synth_model **ret_model);
void synth_model_free(struct synth_model *model);

/* In [0, 1]; 1 for the user's best signature. */
double synth_taste(const struct synth_model *model, uint32_t user, uint32_t signature);

/* Draws what is shown to a user. by_taste: which half it comes from. */
uint32_t synth_draw_item(const struct synth_model *model, uint32_t user, int by_taste, struct synth_rng *rng);

/* position 1 to SYNTH_POSITIONS. */
double synth_position_bias(uint32_t position);
double synth_click_chance(double taste, uint32_t position);
static inline double synth_completion_mean(double taste)
{
	return 0.15 + 0.75 * taste;
}

/* P(Beta(mean, SYNTH_CONCENTRATION) >= threshold): the regularised incomplete beta function. */
double synth_completion_tail(double mean, double threshold);

#endif
