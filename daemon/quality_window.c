/*
 * quality_window.c: means over the last positives ranked (quality_window.h). Whoever calls holds the lock of live quality.
 *
 * Sums follow what comes and goes, so that reading costs nothing; each time the ring is full circle they are taken anew, so that roundings do not pile up.
 * Ranks are kept, not hits, so that another K can be asked of the past.
 */
#include "daemon/quality_window.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int quality_window_init(struct quality_window *window, uint32_t capacity, uint32_t k)
{
	*window = (struct quality_window){ .capacity = capacity, .k = k };
	window->ring = calloc(capacity, sizeof(*window->ring));
	return window->ring == NULL ? -ENOMEM : 0;
}

void quality_window_free(struct quality_window *window)
{
	free(window->ring);
	*window = (struct quality_window){ 0 };
}

/* Adds (sign 1) a result to the sums or takes it off (-1). */
static void count(struct quality_window *window, const struct quality_result *result, double sign)
{
	for (int m = 0; m < QUALITY_MODELS; m++) {
		struct quality_figures *sum = &window->sums[m];

		sum->auc += sign * (double)result->auc[m];
		if (result->rank[m] > window->k)
			continue;
		sum->hit_rate += sign;
		sum->ndcg += sign / log2((double)result->rank[m] + 1.0);
	}
}

static void count_anew(struct quality_window *window)
{
	memset(window->sums, 0, sizeof(window->sums));
	for (uint32_t i = 0; i < window->n; i++)
		count(window, &window->ring[i], 1.0);
}

void quality_window_add(struct quality_window *window, const struct quality_result *result)
{
	if (window->n == window->capacity)
		count(window, &window->ring[window->next], -1.0);
	else
		window->n++;
	window->ring[window->next] = *result;
	count(window, result, 1.0);
	window->next = (window->next + 1) % window->capacity;
	if (window->next == 0)
		count_anew(window);
}

void quality_window_set_k(struct quality_window *window, uint32_t k)
{
	if (window->k == k)
		return;
	window->k = k;
	count_anew(window);
}

void quality_window_figures(const struct quality_window *window, struct quality_figures ret_figures[QUALITY_MODELS])
{
	const double n = window->n > 0 ? (double)window->n : (double)NAN;

	for (int m = 0; m < QUALITY_MODELS; m++) {
		const struct quality_figures *sum = &window->sums[m];

		ret_figures[m] = (struct quality_figures){ sum->hit_rate / n, sum->ndcg / n, sum->auc / n };
	}
}
