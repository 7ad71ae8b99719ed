/*
 * top.c: `recctl top`: the best titles for users, from a running recd or from files. Main thread of recctl; answer.c asks, this prints.
 */
#include <errno.h>
#include <inttypes.h>

#include "daemon/recctl/answer_flags.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/table.h"

static const struct flag flags[] = { ANSWER_FLAGS("k", "10") };

static const struct command_spec spec = {
	.name = "top",
	.purpose = "shows the best titles for users",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "Titles a user has watched are left out. What served: personalized (a row of the user's own), global (his row of the global model), or\n"
	         "popularity (a user without a title he watched far enough; conf is then the share of users who did).",
	.examples = "  recctl top --user_id 3\n"
	            "  recctl top --user_id 3 --user_id 7 --k 20 --json\n"
	            "  recctl top --data_dir data --model_path data/model_bpr.pt --user_id 3",
};

static int print_top(const json_t *answer, int first)
{
	static const struct table_column columns[] = { { "rank", 1 }, { "item", 1 }, { "score", 1 }, { "conf", 1 }, { "title", 0 } };
	const json_t *items = json_object_get(answer, "items"), *item;
	struct table table;
	size_t i;

	printf("%s%suser %" JSON_INTEGER_FORMAT "%s  served: %s\n", first ? "" : "\n", table_bold(), json_integer_value(json_object_get(answer, "user_id")),
	       table_reset(), json_string_value(json_object_get(answer, "served")));
	table_begin(&table, columns, sizeof(columns) / sizeof(columns[0]));
	json_array_foreach(items, i, item)
	{
		const char *title = json_string_value(json_object_get(item, "title"));

		table_cell(&table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(item, "rank")));
		table_cell(&table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(item, "item_id")));
		table_cell(&table, "%.3f", json_number_value(json_object_get(item, "score")));
		table_cell(&table, "%.3f", json_number_value(json_object_get(item, "conf")));
		table_cell(&table, "%s", title && title[0] ? title : "-");
	}
	return table_end(&table, 2);
}

int command_top(int argc, char **argv)
{
	struct answer_options options;
	struct flag_words words;
	int rc = flags_main(&spec, argc, argv, &options, &words);

	return rc >= 0 ? rc : answer_run("top", &options, print_top);
}
