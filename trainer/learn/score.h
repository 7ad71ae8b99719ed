/*
 * score.h: scores of one row against all items.
 */
#ifndef TRAINER_LEARN_SCORE_H
#define TRAINER_LEARN_SCORE_H

#include "trainer/learn/tables.h"

/* scores[i] = dot(row, V[i]) + bu + bi[i] for all n_items items of the tables. row: [dim], any alignment. Any thread; reads only. */
void score_row(const struct tables *tables, const float *row, float bu, float *scores);
/* Dot product of two vectors of dim floats, any alignment. */
float score_dot(const float *a, const float *b, uint32_t dim);

#endif
