/*
 * quality_rank.h: the place of one item in three rankings of all items: what recd would have served, the global model, popularity.
 */
#ifndef DAEMON_QUALITY_RANK_H
#define DAEMON_QUALITY_RANK_H

#include "trainer/model/query.h"

/* QUALITY_SERVED: the personal row, or what stands in for it (query_row()). QUALITY_GLOBAL: the user's global row; the mean row before his first positive,
 * as the saved model has it. QUALITY_POPULARITY: users with the item as a positive. */
enum quality_model { QUALITY_SERVED, QUALITY_GLOBAL, QUALITY_POPULARITY, QUALITY_MODELS };
/* "personalized", "global", "popularity" */
const char *quality_model_name(enum quality_model model);

/* A positive before it is learnt from. Everything is the caller's. */
struct quality_case {
	const struct generation *generation; /* that predates it; its popularity is filled */
	uint32_t user, item;                 /* indexes */
	size_t n_positives;                  /* the user's, this one and those that came with it not counted */
	const uint32_t *masked;              /* [n_masked] items left out of the list, each once, in any order; `item` among them is ranked all the same */
	size_t n_masked;
	const void *personal;                /* the user's personal row; NULL: none */
	struct query_options options;        /* of the moment when it came; k is not read */
};

struct quality_place {
	uint32_t rank; /* from 1; items with the same score are in the order of their index */
	float auc;     /* share of the other items of the list that score lower, equal ones a half; 0.5 when there is no other */
};

/* Memory of one thread; zero before first use. */
struct quality_scratch {
	float *scores, *row;
	uint32_t n_scores, n_row;
};
void quality_scratch_free(struct quality_scratch *scratch);

/*
 * Ranks the item among all items of the generation but the masked ones. 0; -ENOENT: the generation does not know the item; -ENOMEM. *ret_served: who
 * stands behind QUALITY_SERVED. Any thread; pure but for the scratch.
 */
int quality_rank(const struct quality_case *c, struct quality_scratch *scratch, struct quality_place ret_places[QUALITY_MODELS], enum served *ret_served);

#endif
