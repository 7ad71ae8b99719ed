/*
 * top.c: `recctl top`: the best titles for users, from a running recd, a checkpoint or files. Main thread of recctl; answer.c asks, this prints. With --all_users
 * everybody's go to one file: top_all.c.
 */
#include <errno.h>
#include <inttypes.h>

#include "daemon/recctl/answer_flags.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/table.h"
#include "daemon/recctl/top_all.h"

struct options {
	struct answer_options answer; /* the first: ANSWER_FLAGS counts from its begin */
	struct top_all_options all;
	int all_users;
};
_Static_assert(offsetof(struct options, answer) == 0, "ANSWER_FLAGS counts from the begin of answer_options");

#define AT(field) .offset = offsetof(struct options, field)
static const struct flag flags[] = {
	ANSWER_FLAGS("k", "10"),
	{ .name = "all_users", .type = FLAG_BOOL, AT(all_users), .help = "Everybody, into the file of --output: one JSON object a user and line." },
	{ .name = "output", .type = FLAG_STRING, AT(all.output), .placeholder = "FILE",
	  .help = "With --all_users: where to. Written as FILE.tmp and renamed when it is whole; -: standard output." },
	{ .name = "titles", .type = FLAG_BOOL, AT(all.titles), .help = "With --all_users: each item's title too." },
	{ .name = "threads", .type = FLAG_INT, AT(all.threads), .fallback = "0", .min = 0, .max = 1024,
	  .help = "With --all_users, on files: CPU threads. 0: all processors this process may use." },
};

static const struct command_spec spec = {
	.name = "top",
	.purpose = "shows the best titles for users",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "Titles a user has watched are left out. What served: personalized (a row of the user's own), global (his row of the global model), or\n"
	         "popularity (a user without a title he watched far enough; conf is then the share of users who did).\n"
	         "\n"
	         "With --all_users a line is {\"user_id\", \"served\", \"generation\" (from recd or a checkpoint) or \"model\" (from files), \"items\": [{\"item_id\", \"score\", \"conf\"}]},\n"
	         "items best first, users in ascending order, so that two files can be compared line by line. Scores and order are those of a single answer.\n"
	         "From recd it is taken in pages, each from one generation; a user who appears meanwhile may or may not be in the file. From a checkpoint the\n"
	         "lines are those that recd gave at that instant.",
	.examples = "  recctl top --user_id 3\n"
	            "  recctl top --user_id 3 --user_id 7 --k 20 --json\n"
	            "  recctl top --data_dir data --model_path data/model_bpr.pt --user_id 3\n"
	            "  recctl top --all_users --output top.jsonl\n"
	            "  recctl top --all_users --output top.jsonl --checkpoint /var/lib/recd --config /etc/recd/recd.conf\n"
	            "  recctl top --all_users --output - --data_dir data --k 20 --titles",
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

/* --all_users and what goes with it: 0, or EXIT_USAGE after saying what does not fit. */
static int check_all(const struct options *options, const struct flag_words *words)
{
	static const char *const only_all[] = { "output", "titles", "threads" };
	static const char *const never_all[] = { "user_id", "users_max" };

	for (size_t i = 0; !options->all_users && i < sizeof(only_all) / sizeof(only_all[0]); i++) {
		if (flags_given(&spec, words, only_all[i])) {
			fprintf(stderr, "recctl top: --%s goes with --all_users\n", only_all[i]);
			return EXIT_USAGE;
		}
	}
	if (!options->all_users)
		return 0;
	for (size_t i = 0; i < sizeof(never_all) / sizeof(never_all[0]); i++) {
		if (flags_given(&spec, words, never_all[i])) {
			fprintf(stderr, "recctl top: --all_users is everybody; leave --%s out\n", never_all[i]);
			return EXIT_USAGE;
		}
	}
	if (!options->all.output || !options->all.output[0]) {
		fprintf(stderr, "recctl top: --all_users needs --output FILE (-: standard output)\n");
		return EXIT_USAGE;
	}
	return 0;
}

int command_top(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	rc = answer_check(&spec, &words, &options.answer);
	if (!rc)
		rc = check_all(&options, &words);
	if (rc)
		return rc;
	options.all.answer = &options.answer;
	return options.all_users ? top_all_run(&options.all) : answer_run("top", &options.answer, print_top);
}
