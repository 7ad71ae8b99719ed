/*
 * api_query.c: answers from the published model: top for one user, top for everybody in pages, explain, similar.
 *
 * Runs in the server's threads. A query takes a reference to the published generation and a copy of the user's facts, computes, and lets go before
 * anything is sent: it never waits for the engine, and the engine never waits for it. A page answers many users from one generation and ends early by
 * time and by size, so that it pins neither a generation nor much memory; its thread stands behind the others from then on.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/api_internal.h"
#include "daemon/render.h"
#include "daemon/top_page.h"
#include "trainer/model/topk.h"

#define TOP_K 10
#define EXPLAIN_K 5
#define SIMILAR_K 10
#define SIMILAR_BLOCK 256
#define PAGE_LIMIT 1000 /* users; the most is API_PAGE_MAX */
#define PAGE_MS_MAX 100
#define PAGE_BYTES_MAX ((size_t)4 << 20)
#define PAGE_NICE 10

/* The published generation; NULL after answering 503. */
static struct generation *generation_get(struct api_call *call)
{
	struct generation *generation = generation_acquire(engine_publisher(call->engine));

	if (!generation)
		api_error(call->response, 503, "no model has been published yet");
	return generation;
}

/* Options of this call, k from its arguments. 0, or -EINVAL after answering. */
static int options_get(struct api_call *call, uint32_t fallback_k, struct query_options *ret_options)
{
	engine_query_options(call->engine, ret_options);
	return api_argument_u32(call, "k", 1, API_K_MAX, fallback_k, &ret_options->k);
}

/* Facts of the user, copied; NULL in *ret_facts for one nobody has seen. 0 or -ENOMEM. */
static int facts_get(const struct api_call *call, const struct user_facts **ret_facts)
{
	const struct state *state = engine_state(call->engine);
	uint32_t user = state_find_user(state, call->id);
	int r = 0;

	*ret_facts = NULL;
	if (user == STATE_NONE)
		return 0;
	r = state_user_copy(state, user, &call->scratch->user);
	if (r == 0)
		*ret_facts = &call->scratch->user.facts;
	return r;
}

static void answer_out_of_memory(struct api_call *call)
{
	api_error(call->response, 503, "out of memory");
}

void api_top(struct api_call *call)
{
	const struct state *state = engine_state(call->engine);
	struct publisher *publisher = engine_publisher(call->engine);
	struct api_scratch *scratch = call->scratch;
	const struct user_facts *facts;
	struct query_options options;
	struct generation *generation;
	enum served served;
	size_t n = 0;
	int r;

	if (options_get(call, TOP_K, &options) < 0)
		return;
	generation = generation_get(call);
	if (!generation)
		return;
	r = facts_get(call, &facts);
	if (r == 0)
		r = query_top(generation, state, facts, &options, &scratch->query, scratch->items, &n, &served);
	if (r == 0)
		api_answer_json(call->response, 200, render_top(state, call->id, generation->number, served,
		                                                query_fitted_positives(facts, served), scratch->items, n));
	else
		answer_out_of_memory(call);
	generation_release(publisher, generation);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Lines for ids [n] until the page is full; at least one. 0 or -ENOMEM. */
static int fill_page(struct api_call *call, const struct generation *generation, const struct query_options *options, int titles, const int64_t *ids,
                     size_t n, struct top_page *page)
{
	const struct state *state = engine_state(call->engine);
	struct api_scratch *scratch = call->scratch;
	int64_t end_ms = now_ms() + PAGE_MS_MAX;
	int r = 0;

	for (size_t i = 0; i < n && r == 0 && (i == 0 || (page->len < PAGE_BYTES_MAX && now_ms() < end_ms)); i++) {
		struct top_line line = {.user_id = ids[i], .generation = generation->number, .items = scratch->items, .titles = titles};
		const struct user_facts *facts;

		call->id = ids[i];
		r = facts_get(call, &facts);
		if (r == 0)
			r = query_top(generation, state, facts, options, &scratch->query, scratch->items, &line.n_items, &line.served);
		if (r == 0)
			r = top_page_add(page, state, &line);
	}
	return r;
}

void api_top_page(struct api_call *call)
{
	struct query_options options;
	struct top_page page = {0};
	struct generation *generation;
	uint32_t limit, titles;
	int64_t after, *ids;
	size_t n;
	int r = -ENOMEM;

	if (options_get(call, TOP_K, &options) < 0 || api_argument_id(call, "after_user", -1, &after) < 0 ||
	    api_argument_u32(call, "limit", 1, API_PAGE_MAX, PAGE_LIMIT, &limit) < 0 || api_argument_u32(call, "titles", 0, 1, 0, &titles) < 0)
		return;
	generation = generation_get(call);
	if (!generation)
		return;
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), PAGE_NICE);
	ids = malloc(limit * sizeof(*ids));
	if (ids) {
		n = top_page_users(engine_state(call->engine), after, limit, ids);
		r = fill_page(call, generation, &options, (int)titles, ids, n, &page);
	}
	generation_release(engine_publisher(call->engine), generation);
	free(ids);
	if (r == 0 && !page.text) /* nobody is left; the body is empty, and not the NULL that means out of memory */
		page.text = malloc(1);
	if (r < 0) {
		top_page_free(&page);
		answer_out_of_memory(call);
		return;
	}
	call->response->code = 200;
	call->response->content_type = "application/x-ndjson";
	call->response->body = page.text;
	call->response->len = page.len;
}

void api_explain(struct api_call *call)
{
	const struct state *state = engine_state(call->engine);
	struct publisher *publisher = engine_publisher(call->engine);
	struct explanation *explanation = NULL;
	const struct user_facts *facts;
	struct query_options options;
	struct generation *generation;
	int r;

	if (options_get(call, EXPLAIN_K, &options) < 0)
		return;
	generation = generation_get(call);
	if (!generation)
		return;
	r = facts_get(call, &facts);
	if (r == 0)
		r = query_explain(generation, state, facts, &options, &call->scratch->query, &explanation);
	if (r == 0)
		api_answer_json(call->response, 200, render_explain(state, call->id, generation->number, explanation));
	else
		answer_out_of_memory(call);
	explanation_free(explanation);
	generation_release(publisher, generation);
}

static float dot(const float *a, const float *b, uint32_t dim)
{
	float sum = 0;

	for (uint32_t d = 0; d < dim; d++)
		sum += a[d] * b[d];
	return sum;
}

/*
 * The k items with the largest cosine to `item`. Left out: the item itself, and items that no user has as a positive (their vectors say nothing yet).
 * A row of zeros has no direction: NaN, which topk_offer() never keeps.
 */
static size_t nearest_items(const struct tables *tables, const struct state *state, uint32_t item, uint32_t k, struct ranked_item *ret_items)
{
	const float *row = tables->V + (size_t)item * tables->dim;
	float norm = sqrtf(dot(row, row, tables->dim));
	float scores[SIMILAR_BLOCK];
	struct topk topk;

	topk_begin(&topk, &item, 1, k, ret_items);
	for (uint32_t first = 0; first < tables->n_items; first += SIMILAR_BLOCK) {
		uint32_t n = tables->n_items - first < SIMILAR_BLOCK ? tables->n_items - first : SIMILAR_BLOCK;

		for (uint32_t j = 0; j < n; j++) {
			const float *other = tables->V + (size_t)(first + j) * tables->dim;

			scores[j] = NAN;
			if (state_item_popularity(state, first + j) > 0)
				scores[j] = dot(row, other, tables->dim) / (norm * sqrtf(dot(other, other, tables->dim)));
		}
		topk_offer(&topk, scores, n, first);
	}
	return topk_end(&topk);
}

void api_similar(struct api_call *call)
{
	const struct state *state = engine_state(call->engine);
	struct publisher *publisher = engine_publisher(call->engine);
	struct ranked_item *items = call->scratch->items;
	uint32_t item = state_find_item(state, call->id);
	struct generation *generation;
	uint32_t k;
	size_t n;

	if (api_argument_u32(call, "k", 1, API_K_MAX, SIMILAR_K, &k) < 0)
		return;
	if (item == STATE_NONE) {
		api_errorf(call->response, 404, "item %" PRId64 " has not been seen", call->id);
		return;
	}
	generation = generation_get(call);
	if (!generation)
		return;
	if (item >= generation->tables.n_items) {
		api_errorf(call->response, 503, "item %" PRId64 " is not in the published model yet", call->id);
		goto out;
	}
	n = nearest_items(&generation->tables, state, item, k, items);
	api_answer_json(call->response, 200, render_similar(state, item, generation->number, items, n));
out:
	generation_release(publisher, generation);
}
