/*
 * top_page.h: the answers for many users as text, one JSON object a user and line, users in ascending order of their ids. GET /v1/top and
 * `recctl top --all_users` on files share it, so that both write the same lines.
 *
 * A line: {"user_id", "served", "generation": N (from recd) or "model": "file name" (from files), "items": [{"item_id", "title" (when asked for),
 * "score", "conf"}]}, keys in this order; items best first; what is no finite number is null. The numbers are those of render_top().
 */
#ifndef DAEMON_TOP_PAGE_H
#define DAEMON_TOP_PAGE_H

#include "trainer/model/query.h"

/* Lines under construction; zero before first use. */
struct top_page {
	char *text; /* [len]; malloc'd; not NUL-terminated */
	size_t len, capacity;
};
void top_page_free(struct top_page *page);

struct top_line {
	int64_t user_id;
	enum served served;
	const char *model;   /* NULL: `generation` is told instead */
	uint64_t generation;
	const struct ranked_item *items; /* [n_items], as query_top() gave them */
	size_t n_items;
	int titles; /* 1: with each item's title */
};

/* Appends a line. 0, or -ENOMEM (the page is unchanged). Any thread, with a page of its own. */
int top_page_add(struct top_page *page, const struct state *state, const struct top_line *line);

/*
 * The lowest user ids above `after` (-1: from the start), ascending: writes at most `max` to ret_ids, returns how many. Any thread; reads all ids once, which
 * takes about a millisecond per million users when they came in no particular order.
 */
size_t top_page_users(const struct state *state, int64_t after, size_t max, int64_t *ret_ids);

#endif
