/*
 * tables.h: the model's parameters, as every room and backend sees them. C and C++.
 *
 * score(u, i) = dot(U[u], V[i]) + bu[u] + bi[i]; conf = sigmoid(score). Rows are contiguous, row r of U begins at U + r * dim.
 */
#ifndef TRAINER_LEARN_TABLES_H
#define TRAINER_LEARN_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct tables {
	uint32_t n_users;
	uint32_t n_items;
	uint32_t dim;       /* emb_dim */
	uint32_t cap_users; /* rows allocated */
	uint32_t cap_items;
	float *U;        /* [cap_users, dim] */
	float *V;        /* [cap_items, dim] */
	float *bu;       /* [cap_users] the user's intercept: fitted, not trained by ranking triples */
	float *bi;       /* [cap_items] */
	float *acc_user; /* [cap_users] row-wise Adagrad sums */
	float *acc_item; /* [cap_items] */
	uint64_t epoch;  /* backend's own mark of how fresh this copy is; 0: never filled */
};

#ifdef __cplusplus
extern "C" {
#endif
/* Makes room for at least this many rows (grows by 1.5, keeps the content; new memory is zero). 0, -ENOMEM, or -EINVAL when they
 * hold another dim (content unchanged). */
int tables_reserve(struct tables *tables, uint32_t n_users, uint32_t n_items, uint32_t dim);
void tables_free(struct tables *tables);
#ifdef __cplusplus
}
#endif
#endif
