/*
 * explain.c: `recctl explain`: what is recommended to users and why, from a running recd, a checkpoint or files.
 *
 * Main thread of recctl. answer.c asks, this prints: the ranked titles with the watched ones nearest to each, and the user's genres beside the genres of what
 * is recommended.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/recctl/answer_flags.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/table.h"

#define BAR_WIDTH 20
#define NEAR_TEXT 1024

static const struct flag flags[] = { ANSWER_FLAGS("top_k", "5") };

static const struct command_spec spec = {
	.name = "explain",
	.purpose = "shows what is recommended to users and why",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "For each user: the best titles (watched ones are left out) with score and conf = sigmoid(score), a confidence and not a calibrated probability;\n"
	         "how many titles he watched; the watched titles nearest to each recommended one (cosine of their vectors); and his genres\n"
	         "(what he watched far enough, each title split over its genres) beside the genres of what is recommended. Genres explain;\n"
	         "they never enter training.",
	.examples = "  recctl explain --data_dir data --model_path data/model_bpr_personalized.pt --top_k 5\n"
	            "  recctl explain --user_id 3 --user_id 7\n"
	            "  recctl explain --user_id 3 --socket /run/recd/recd.sock --json\n"
	            "  recctl explain --user_id 3 --checkpoint /var/lib/recd",
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static json_int_t int_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static double number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* "drama, crime" */
static void join_genres(const json_t *item, char *out, size_t size)
{
	const json_t *genres = json_object_get(item, "genres"), *genre;
	size_t i, used = 0;

	out[0] = '\0';
	json_array_foreach(genres, i, genre)
	{
		if (used < size)
			used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", json_string_value(genre) ? json_string_value(genre) : "");
	}
}

/* "Movie #00012 0.83, Movie #00400 0.79" */
static void join_nearest(const json_t *item, char *out, size_t size)
{
	const json_t *nearest = json_object_get(item, "nearest"), *near;
	size_t i, used = 0;

	out[0] = '\0';
	json_array_foreach(nearest, i, near)
	{
		const char *title = text_of(near, "title");

		if (used >= size)
			break;
		if (title[0])
			used += (size_t)snprintf(out + used, size - used, "%s%s %.2f", i ? ", " : "", title, number_of(near, "similarity"));
		else
			used += (size_t)snprintf(out + used, size - used, "%s%" JSON_INTEGER_FORMAT " %.2f", i ? ", " : "", int_of(near, "item_id"),
			                         number_of(near, "similarity"));
	}
}

static int print_items(const json_t *answer)
{
	static const struct table_column columns[] = { { "rank", 1 },  { "item", 1 },   { "title", 0 },           { "genres", 0 },
		                                       { "score", 1 }, { "conf", 1 },   { "nearest watched", 0 } };
	const json_t *items = json_object_get(answer, "items"), *item;
	char genres[512], nearest[NEAR_TEXT];
	struct table table;
	size_t i;

	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(items, i, item)
	{
		join_genres(item, genres, sizeof(genres));
		join_nearest(item, nearest, sizeof(nearest));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(item, "rank"));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, int_of(item, "item_id"));
		table_cell(&table, "%s", text_of(item, "title")[0] ? text_of(item, "title") : "-");
		table_cell(&table, "%s", genres[0] ? genres : "-");
		table_cell(&table, "%.3f", number_of(item, "score"));
		table_cell(&table, "%.3f", number_of(item, "conf"));
		table_cell(&table, "%s", nearest[0] ? nearest : "-");
	}
	return table_end(&table, 2);
}

/* A bar of up to BAR_WIDTH characters for a share of `largest`. */
static const char *bar(double share, double largest)
{
	static const char full[] = "####################";
	int n = largest > 0 ? (int)(share / largest * BAR_WIDTH + 0.5) : 0;

	return full + BAR_WIDTH - (n > BAR_WIDTH ? BAR_WIDTH : n < 0 ? 0 : n);
}

static int print_genres(const json_t *answer)
{
	static const struct table_column columns[] = { { "genre", 0 }, { "watched", 1 }, { "", 0 }, { "recommended", 1 }, { "", 0 } };
	const json_t *genres = json_object_get(answer, "genres"), *genre;
	double largest = 0;
	struct table table;
	size_t i;

	json_array_foreach(genres, i, genre)
	{
		double watched = number_of(genre, "watched"), recommended = number_of(genre, "recommended");

		largest = watched > largest ? watched : largest;
		largest = recommended > largest ? recommended : largest;
	}
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(genres, i, genre)
	{
		double watched = number_of(genre, "watched"), recommended = number_of(genre, "recommended");

		table_cell(&table, "%s", text_of(genre, "genre"));
		table_cell(&table, "%.1f %%", 100 * watched);
		table_cell(&table, "%-*s", BAR_WIDTH, bar(watched, largest));
		table_cell(&table, "%.1f %%", 100 * recommended);
		table_cell(&table, "%s", bar(recommended, largest));
	}
	return table_end(&table, 2);
}

static int print_explanation(const json_t *answer, int first)
{
	printf("%s%suser %" JSON_INTEGER_FORMAT "%s  watched_count %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " of them far enough  served: %s\n",
	       first ? "" : "\n", table_bold(), int_of(answer, "user_id"), table_reset(), int_of(answer, "watched_count"), int_of(answer, "positive_count"),
	       text_of(answer, "served"));
	int rc = print_items(answer);
	if (rc)
		return rc;
	putchar('\n');
	return print_genres(answer);
}

int command_explain(int argc, char **argv)
{
	struct answer_options options;
	struct flag_words words;
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc < 0)
		rc = answer_check(&spec, &words, &options);
	else
		return rc;
	return rc ? rc : answer_run("explain", &options, print_explanation);
}
