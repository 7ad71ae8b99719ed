/*
 * item_title.c: what a catalogue line says of a title, for people: name, year, genres.
 *
 * Any thread. The line is parsed with jansson when somebody asks, which is rare next to ranking; nothing is kept. A line was accepted by the decoder before
 * it came into the state, but it may hold anything beside its item_id: a value of another type counts as absent, long names are cut at a
 * whole character, genres beyond the room for them are left out.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/query.h"

#define DOC_ON_STACK 4096

/* Copies at most size - 1 bytes and never half a UTF-8 character. */
static void copy_text(char *out, size_t size, const char *text)
{
	size_t len = strlen(text);

	if (len >= size) {
		len = size - 1;
		while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(out, text, len);
	out[len] = '\0';
}

static void read_genres(const json_t *genres, struct item_title *title)
{
	size_t n = json_array_size(genres); /* 0 for what is no array */

	for (size_t i = 0; i < n && title->n_genres < sizeof(title->genres) / sizeof(title->genres[0]); i++) {
		const char *name = json_string_value(json_array_get(genres, i));

		if (name && name[0])
			copy_text(title->genres[title->n_genres++], EXPLAIN_GENRE_MAX, name);
	}
}

static void parse_doc(const char *doc, size_t len, struct item_title *title)
{
	json_t *object = json_loadb(doc, len, JSON_ALLOW_NUL, NULL);
	const char *name = json_string_value(json_object_get(object, "title"));
	const json_t *year = json_object_get(object, "release_year");

	if (name)
		copy_text(title->title, sizeof(title->title), name);
	if (json_is_integer(year) && json_integer_value(year) > 0 && json_integer_value(year) <= 9999)
		title->release_year = (int)json_integer_value(year);
	read_genres(json_object_get(object, "genres"), title);
	json_decref(object);
}

void item_title_get(const struct state *state, uint32_t item, struct item_title *ret_title)
{
	char small[DOC_ON_STACK], *large = NULL, *doc = small;

	*ret_title = (struct item_title){ 0 };
	size_t len = state_catalogue_doc(state, item, small, sizeof(small));
	if (len >= sizeof(small)) { /* cut: once more with room; a line that grew meanwhile is cut again and fails to parse */
		large = malloc(len + 1);
		if (!large)
			return;
		size_t size = len + 1;
		len = state_catalogue_doc(state, item, large, size);
		doc = large;
		if (len >= size)
			len = 0;
	}
	if (len)
		parse_doc(doc, len, ret_title);
	free(large);
}
