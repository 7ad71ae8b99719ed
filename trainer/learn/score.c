/*
 * score.c: scoring over struct tables with the best row kernels of this machine (score.h). Any thread; owns nothing.
 */
#include "trainer/learn/score.h"

#include "trainer/learn/cpu_kernels.h"

void score_row(const struct tables *tables, const float *row, float bu, float *scores)
{
	row_kernels_best()->score(tables->V, tables->bi, row, bu, tables->dim, tables->n_items, scores);
}

float score_dot(const float *a, const float *b, uint32_t dim)
{
	return row_kernels_best()->dot(a, b, dim);
}
