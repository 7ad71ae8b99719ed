/*
 * import.c: `recctl import`: a model that a Python trainer saved becomes one that recctl reads and recd starts from. Main thread of recctl.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/import_checkpoint.h"
#include "daemon/recctl/import_model.h"
#include "daemon/recctl/save_model.h"
#include "daemon/recctl/table.h"
#include "daemon/render.h"

#define FILE_GLOBAL "model_bpr.pt"

struct options {
	const char *out_dir, *into;
	const char *names[IMPORT_PART_COUNT];
	const char *user_ids, *item_ids;
	int64_t impressions_max;
	int row_ids, json;
};

#define AT(field) .offset = offsetof(struct options, field)
#define NAME(part) .offset = offsetof(struct options, names) + (part) * sizeof(const char *)
static const struct flag flags[] = {
	{ .name = "out_dir", .type = FLAG_STRING, AT(out_dir), .placeholder = "DIR",
	  .help = "Write model_bpr.pt here; made when absent. Default: data, unless --into is given." },
	{ .name = "into", .type = FLAG_STRING, AT(into), .placeholder = "DATA_DIR",
	  .help = "Write the first checkpoint of an empty data directory of recd, which starts from it and reads the logs from their beginning." },
	{ .name = "impressions_max", .type = FLAG_INT, AT(impressions_max), .fallback = "64", .min = 1, .max = 1024,
	  .help = "With --into: state.impressions_max of recd.conf." },
	{ .name = "user_ids", .type = FLAG_STRING, AT(user_ids), .placeholder = "FILE",
	  .help = "Ids of the users, one a line, in the order of the rows. Default: the tensor user_ids of the file." },
	{ .name = "item_ids", .type = FLAG_STRING, AT(item_ids), .placeholder = "FILE", .help = "The same for items. Default: the tensor item_ids." },
	{ .name = "row_ids", .type = FLAG_BOOL, AT(row_ids), .help = "Where there is neither: the row numbers 0, 1, 2, ... are the ids." },
	{ .name = "user_weight", .type = FLAG_STRING, NAME(IMPORT_USER), .placeholder = "NAME",
	  .help = "The tensor with the users' vectors. Default: U, user_emb.weight, user_embedding.weight, ..., or the only one that fits." },
	{ .name = "item_weight", .type = FLAG_STRING, NAME(IMPORT_ITEM), .placeholder = "NAME", .help = "The tensor with the items' vectors. Default: V, item_emb.weight, ..." },
	{ .name = "user_bias", .type = FLAG_STRING, NAME(IMPORT_USER_BIAS), .placeholder = "NAME",
	  .help = "The tensor with the users' biases. Default: bu, user_bias.weight, ...; 0 when there is none." },
	{ .name = "item_bias", .type = FLAG_STRING, NAME(IMPORT_ITEM_BIAS), .placeholder = "NAME", .help = "The tensor with the items' biases. Default: bi, item_bias.weight, ..." },
	{ .name = "json", .type = FLAG_BOOL, AT(json), .help = "Print what was done as one JSON object." },
};

static const struct command_spec spec = {
	.name = "import",
	.purpose = "takes over a model that a Python trainer saved",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.positionals = "FILE.pt",
	.positionals_min = 1,
	.positionals_max = 1,
	.notes = "Reads what torch.save() wrote: a dict with U, V, bu and bi, or the state_dict() of a module with two embeddings and, maybe, their biases;\n"
	         "float32. score = dot(U[user], V[item]) + bu[user] + bi[item], so a model that scores otherwise ranks otherwise here.\n"
	         "No code of the file is run. With --into, recd.conf must have training.emb_dim = the model's dim; recd serves a user's row once the logs\n"
	         "have shown it something that the user watched far enough, and the mean row before that.",
	.examples = "  recctl import bpr.pt --user_ids users.txt --item_ids items.txt --out_dir models\n"
	            "  recctl import bpr.pt --user_weight net.users.weight --item_weight net.titles.weight --row_ids\n"
	            "  sudo -u recd recctl import bpr.pt --row_ids --into /var/lib/recd",
};

struct run {
	const struct options *options;
	const char *path, *out_dir;
	struct imported imported;
	struct checkpoint_result checkpoint;
	char errstr[4096];
};

static int save(struct run *run)
{
	const struct model_file *model = &run->imported.model;
	int dir_fd = save_open_dir(run->out_dir, run->errstr, sizeof(run->errstr));

	if (dir_fd < 0)
		return dir_fd;
	int rc = save_model(dir_fd, FILE_GLOBAL, &model->tables, model->user_ids, model->item_ids, "global", run->errstr, sizeof(run->errstr));
	close(dir_fd);
	return rc;
}

static const char *name_or(const struct run *run, enum import_part part, const char *none)
{
	return run->imported.names[part][0] ? run->imported.names[part] : none;
}

static void print_text(const struct run *run)
{
	const struct tables *tables = &run->imported.model.tables;
	char users[32], items[32];

	text_count(tables->n_users, users);
	text_count(tables->n_items, items);
	printf("%s: %s users (%s, bias %s) and %s items (%s, bias %s), %" PRIu32 " numbers each\n", run->path, users, name_or(run, IMPORT_USER, ""),
	       name_or(run, IMPORT_USER_BIAS, "none: 0"), items, name_or(run, IMPORT_ITEM, ""), name_or(run, IMPORT_ITEM_BIAS, "none: 0"), tables->dim);
	if (run->out_dir)
		printf("wrote %s/%s\n", run->out_dir, FILE_GLOBAL);
	if (run->options->into)
		printf("wrote checkpoint %06" PRIu32 " of %s: recd with training.emb_dim = %" PRIu32 " and state.impressions_max = %" PRId64 " starts from it\n",
		       run->checkpoint.number, run->options->into, tables->dim, run->options->impressions_max);
}

static int print_json(const struct run *run)
{
	static const char *const keys[IMPORT_PART_COUNT] = { "U", "V", "bu", "bi" };
	const struct tables *tables = &run->imported.model.tables;
	json_t *answer = json_pack("{s:s, s:I, s:I, s:I}", "path", run->path, "users", (json_int_t)tables->n_users, "items", (json_int_t)tables->n_items,
	                           "emb_dim", (json_int_t)tables->dim);
	json_t *from = json_object();
	int rc = -ENOMEM;

	for (int part = 0; part < IMPORT_PART_COUNT; part++)
		json_object_set_new(from, keys[part], run->imported.names[part][0] ? json_string(run->imported.names[part]) : json_null());
	json_object_set_new(answer, "tensors", from);
	json_object_set_new(answer, "model", run->out_dir ? json_sprintf("%s/%s", run->out_dir, FILE_GLOBAL) : json_null());
	json_object_set_new(answer, "checkpoint", run->options->into ? json_integer(run->checkpoint.number) : json_null());
	if (answer && !json_dumpf(answer, stdout, RENDER_FLAGS)) {
		putchar('\n');
		rc = 0;
	}
	json_decref(answer);
	return rc;
}

int command_import(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	struct run run = { .options = &options };
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	run.path = words.words[0];
	run.out_dir = options.out_dir || options.into ? options.out_dir : "data";
	struct import_options import = { .path = run.path, .user_ids = options.user_ids, .item_ids = options.item_ids, .row_ids = options.row_ids };
	memcpy(import.names, options.names, sizeof(import.names));
	rc = import_read(&import, &run.imported, run.errstr, sizeof(run.errstr));
	if (!rc && run.out_dir)
		rc = save(&run);
	if (!rc && options.into)
		rc = import_checkpoint(options.into, &run.imported.model, (uint32_t)options.impressions_max, &run.checkpoint, run.errstr, sizeof(run.errstr));
	if (!rc && options.json)
		rc = print_json(&run);
	else if (!rc)
		print_text(&run);
	if (rc)
		fprintf(stderr, "recctl import: %s\n", run.errstr[0] ? run.errstr : strerror(-rc));
	model_file_free(&run.imported.model);
	return rc ? EXIT_FAILED : EXIT_OK;
}
