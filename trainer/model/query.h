/*
 * query.h: top-K and explanations from a published generation and the state. Any thread; pure but for the scratch it is given.
 */
#ifndef TRAINER_MODEL_QUERY_H
#define TRAINER_MODEL_QUERY_H

#include "trainer/model/generation.h"

/* Which model an answer came from. Names (served_name): "personalized", "global", "popularity". */
enum served { SERVED_PERSONALIZED, SERVED_GLOBAL, SERVED_POPULARITY };
const char *served_name(enum served served);

struct query_options {
	uint32_t k;                        /* items wanted, 1..1000 */
	uint32_t personalize_min_positives; /* personal row from this many positives on; default 3 */
	int64_t personal_max_age_us;       /* past it the global row serves; 0: no limit */
	int64_t model_clock_us;            /* now, on the clock that personal rows are stamped with */
};

struct ranked_item {
	uint32_t item; /* index */
	float score;
	float conf; /* sigmoid(score); popularity: users with that positive / all users */
};

/* Working memory of one thread; zero before first use. */
struct query_scratch {
	void *buf;
	size_t capacity;
};
void query_scratch_free(struct query_scratch *scratch);

/*
 * The K best items of dot(row, V[i]) + bi[i] + bu, masked ones left out; ties by lower index; descending. `masked`: sorted ascending. Returns how many
 * (fewer than k when few are left). Allocation-free but for growing the scratch; SIZE_MAX when out of memory.
 */
size_t topk_scan(const struct tables *tables, const float *row, float bu, const uint32_t *masked, size_t n_masked, uint32_t k,
                 struct query_scratch *scratch, struct ranked_item *ret_items);

/*
 * The row that serves a user with n_positives positives, by the rule of query_top(). personal: his personal row (row_bytes, any alignment); NULL: none.
 * Writes ret_row [dim] and *ret_bu, but not for popularity.
 */
enum served query_row(const struct generation *generation, uint32_t user, size_t n_positives, const void *personal, const struct query_options *options,
                      float *ret_row, float *ret_bu);

/*
 * Top-K for a user. `facts`: his facts (state_user_copy), NULL for a user nobody has seen. Every watched item is masked. Serves the personal row when
 * there are enough positives and the row is fresh enough, else the global row when he has a positive and the generation has his row, else popularity.
 * ret_items [k]. 0 or -ENOMEM.
 */
int query_top(const struct generation *generation, const struct state *state, const struct user_facts *facts, const struct query_options *options,
              struct query_scratch *scratch, struct ranked_item *ret_items, size_t *ret_n, enum served *ret_served);

/* How many positives the personal row that served was fitted on; 0 when none served. `facts`: NULL for a user nobody has seen. */
uint32_t query_fitted_positives(const struct user_facts *facts, enum served served);

#define EXPLAIN_GENRES 18
#define EXPLAIN_GENRE_MAX 32
#define EXPLAIN_NEAREST 3

struct genre_share {
	char genre[EXPLAIN_GENRE_MAX];
	float watched;     /* share of the user's positive watches, each title's weight split over its genres; sums to 1 over all genres */
	float recommended; /* the same over the recommended titles */
};

struct explained_item {
	struct ranked_item ranked;
	struct {
		uint32_t item;
		float similarity; /* cosine of the V rows */
	} nearest[EXPLAIN_NEAREST]; /* the user's watched titles nearest to it, best first */
	uint32_t n_nearest;
};

struct explanation {
	enum served served;
	uint32_t watched_count;  /* items with any watch */
	uint32_t positive_count;
	size_t n_items;
	struct explained_item *items; /* [n_items]; inside the explanation's own memory */
	size_t n_genres;              /* genres by larger of the two shares, descending; the rest is folded into "other" */
	struct genre_share genres[EXPLAIN_GENRES + 1];
};
int query_explain(const struct generation *generation, const struct state *state, const struct user_facts *facts,
                  const struct query_options *options, struct query_scratch *scratch, struct explanation **ret_explanation);
void explanation_free(struct explanation *explanation);

/* What an item's catalogue line says; parsed with jansson when asked. Unknown fields are empty / 0. */
struct item_title {
	char title[256];
	int release_year;
	uint32_t n_genres;
	char genres[8][EXPLAIN_GENRE_MAX];
};
void item_title_get(const struct state *state, uint32_t item, struct item_title *ret_title);

#endif
