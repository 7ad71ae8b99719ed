/*
 * top_page.c: lines of answers with jansson, and which users come next. top_page.h has the shape of a line.
 *
 * Any thread; a page belongs to one. Its buffer grows by half and keeps its size, so that a worker that writes one page after the other allocates little.
 * The next users are the `max` lowest ids above a bound: a heap with the largest on top takes each id that is below it.
 */
#include "daemon/top_page.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/render.h"

#define PAGE_ROOM 4096u

void top_page_free(struct top_page *page)
{
	free(page->text);
	*page = (struct top_page){ 0 };
}

static json_t *real_or_null(float value)
{
	return isfinite(value) ? json_real((double)value) : json_null();
}

static json_t *item_object(const struct state *state, const struct ranked_item *item, int titles)
{
	json_int_t id = state_item_ids(state)[item->item];
	struct item_title title;

	if (!titles)
		return json_pack("{s:I,s:o,s:o}", "item_id", id, "score", real_or_null(item->score), "conf", real_or_null(item->conf));
	item_title_get(state, item->item, &title);
	return json_pack("{s:I,s:s,s:o,s:o}", "item_id", id, "title", title.title, "score", real_or_null(item->score), "conf", real_or_null(item->conf));
}

static json_t *line_object(const struct state *state, const struct top_line *line)
{
	json_t *object = json_pack("{s:I,s:s}", "user_id", (json_int_t)line->user_id, "served", served_name(line->served));
	json_t *items = json_array();
	int failed;

	if (line->model)
		failed = json_object_set_new(object, "model", json_string(line->model));
	else
		failed = json_object_set_new(object, "generation", json_integer((json_int_t)line->generation));
	for (size_t i = 0; i < line->n_items && !failed; i++)
		failed = json_array_append_new(items, item_object(state, &line->items[i], line->titles));
	if (json_object_set_new(object, "items", items) || failed) {
		json_decref(object);
		return NULL;
	}
	return object;
}

/* Room for `size` more bytes. */
static int page_reserve(struct top_page *page, size_t size)
{
	size_t capacity = page->capacity + page->capacity / 2;

	if (page->capacity - page->len >= size)
		return 0;
	if (capacity < page->len + size)
		capacity = page->len + size;
	char *text = realloc(page->text, capacity);
	if (!text)
		return -ENOMEM;
	page->text = text;
	page->capacity = capacity;
	return 0;
}

int top_page_add(struct top_page *page, const struct state *state, const struct top_line *line)
{
	json_t *object = line_object(state, line);
	int rc = object ? page_reserve(page, PAGE_ROOM) : -ENOMEM;

	if (!rc) {
		size_t room = page->capacity - page->len, size = json_dumpb(object, page->text + page->len, room, RENDER_FLAGS);

		if (size && size + 1 > room) { /* it did not fit; now its size is known */
			rc = page_reserve(page, size + 1);
			if (!rc)
				size = json_dumpb(object, page->text + page->len, size, RENDER_FLAGS);
		}
		if (!rc && !size)
			rc = -ENOMEM;
		if (!rc) {
			page->len += size;
			page->text[page->len++] = '\n';
		}
	}
	json_decref(object);
	return rc;
}

/* ids[0] is the largest. Moves ids[at] down to its place. */
static void sift_down(int64_t *ids, size_t n, size_t at)
{
	int64_t moving = ids[at];

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= n)
			break;
		if (child + 1 < n && ids[child + 1] > ids[child])
			child++;
		if (ids[child] <= moving)
			break;
		ids[at] = ids[child];
		at = child;
	}
	ids[at] = moving;
}

size_t top_page_users(const struct state *state, int64_t after, size_t max, int64_t *ret_ids)
{
	const int64_t *ids = state_user_ids(state);
	uint32_t n_users = state_n_users(state);
	size_t n = 0;

	if (!max)
		return 0;
	for (uint32_t i = 0; i < n_users; i++) {
		if (ids[i] <= after)
			continue;
		if (n < max) {
			ret_ids[n++] = ids[i];
			for (size_t at = n / 2; n == max && at-- > 0;)
				sift_down(ret_ids, n, at);
		} else if (ids[i] < ret_ids[0]) {
			ret_ids[0] = ids[i];
			sift_down(ret_ids, n, 0);
		}
	}
	for (size_t at = n / 2; n < max && at-- > 0;)
		sift_down(ret_ids, n, at);
	for (size_t left = n; left > 1; left--) { /* the heap becomes ascending order */
		int64_t largest = ret_ids[0];

		ret_ids[0] = ret_ids[left - 1];
		sift_down(ret_ids, left - 1, 0);
		ret_ids[left - 1] = largest;
	}
	return n;
}
