/*
 * test_import.c: models in PyTorch files as trainers leave them: which tensors are taken, what is refused and in which words, ids from everywhere, and the checkpoint
 * that recd starts from.
 */
#include "daemon/recctl/import_checkpoint.h"
#include "daemon/recctl/import_model.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "trainer/model/torch_file.h"

#define USERS 5u
#define ITEMS 7u
#define DIM 3u

static char folder[64];

/* A tensor to write: its numbers are begin, begin + 1/8, ... */
struct tensor {
	const char *name;
	enum torch_dtype dtype;
	uint64_t shape[2];
	unsigned n_dims;
	float begin;
};

static float value_of(const struct tensor *t, uint64_t i)
{
	return t->begin + (float)i / 8;
}

/* The same pointer for the same name, valid to the end. */
static const char *path_of(const char *name)
{
	static char paths[16][128];
	char path[128];
	size_t i = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	while (i < 15 && paths[i][0] && strcmp(paths[i], path) != 0)
		i++;
	memcpy(paths[i], path, sizeof(path));
	return paths[i];
}

static const char *write_pt(const char *name, const struct tensor *tensors, size_t n)
{
	struct torch_writer *writer = torch_writer_new(0);
	char text[256];
	int dir_fd = open(folder, O_RDONLY | O_DIRECTORY);

	(void)unlink(path_of(name));
	for (size_t i = 0; i < n; i++)
		assert_true(torch_writer_add_tensor(writer, tensors[i].name, tensors[i].dtype, tensors[i].n_dims, tensors[i].shape) >= 0);
	assert_int_equal(torch_writer_begin(writer, dir_fd, name, text, sizeof(text)), 0);
	for (size_t i = 0; i < n; i++) {
		uint64_t count = tensors[i].shape[0] * (tensors[i].n_dims == 2 ? tensors[i].shape[1] : 1);

		for (uint64_t j = 0; j < count; j++) {
			float number = value_of(&tensors[i], j);
			int64_t wide = (int64_t)tensors[i].begin + (int64_t)j;
			int32_t narrow = (int32_t)wide;
			const void *data = tensors[i].dtype == TORCH_F32 ? (const void *)&number : tensors[i].dtype == TORCH_I64 ? (const void *)&wide : &narrow;

			torch_writer_append(writer, (unsigned)i, data, torch_dtype_bytes(tensors[i].dtype));
		}
	}
	assert_int_equal(torch_writer_finish(writer, text, sizeof(text)), 0);
	torch_writer_free(writer);
	close(dir_fd);
	return path_of(name);
}

static const char *write_text(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return path_of(name);
}

#define F2(name, rows, columns, begin) { name, TORCH_F32, { rows, columns }, 2, begin }
#define F1(name, rows, begin) { name, TORCH_F32, { rows, 0 }, 1, begin }
#define I1(name, rows, begin) { name, TORCH_I64, { rows, 0 }, 1, begin }

/* What a good file must give: U from 1, V from 2, bu from 3, bi from 4. */
static void assert_good(const struct imported *imported, float bu, float bi)
{
	const struct tables *t = &imported->model.tables;

	assert_int_equal(t->n_users, USERS);
	assert_int_equal(t->n_items, ITEMS);
	assert_int_equal(t->dim, DIM);
	for (uint32_t i = 0; i < USERS * DIM; i++)
		assert_true(t->U[i] == 1 + (float)i / 8);
	for (uint32_t i = 0; i < ITEMS * DIM; i++)
		assert_true(t->V[i] == 2 + (float)i / 8);
	for (uint32_t i = 0; i < USERS; i++)
		assert_true(t->bu[i] == (bu > 0 ? bu + (float)i / 8 : 0));
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_true(t->bi[i] == (bi > 0 ? bi + (float)i / 8 : 0));
}

static void test_usual_names(void **state)
{
	static const struct tensor recd[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2), F1("bu", USERS, 3), F1("bi", ITEMS, 4), I1("user_ids", USERS, 100),
		                              { "item_ids", TORCH_I32, { ITEMS, 0 }, 1, 200 } };
	static const struct tensor module[] = { F2("net.item_emb.weight", ITEMS, DIM, 2), F2("net.user_emb.weight", USERS, DIM, 1),
		                                F2("net.item_bias.weight", ITEMS, 1, 4), F2("net.user_bias.weight", USERS, 1, 3), F1("net.mu", 1, 9) };
	static const struct tensor odd[] = { F2("the_users", USERS, DIM, 1), F2("tower.Item.table", ITEMS, DIM, 2), F1("item_b", ITEMS, 4) };
	struct import_options options = { .path = write_pt("recd.pt", recd, 6) };
	struct imported imported;
	char text[4096];

	(void)state;
	assert_int_equal(import_read(&options, &imported, text, sizeof(text)), 0);
	assert_good(&imported, 3, 4);
	for (uint32_t i = 0; i < USERS; i++)
		assert_int_equal(imported.model.user_ids[i], 100 + i);
	for (uint32_t i = 0; i < ITEMS; i++)
		assert_int_equal(imported.model.item_ids[i], 200 + i);
	model_file_free(&imported.model);

	options = (struct import_options){ .path = write_pt("module.pt", module, 5), .user_ids = write_text("u", "7\n5\n\n 3 \r\n9223372036854775807\n0"),
		                           .row_ids = 1 };
	assert_int_equal(import_read(&options, &imported, text, sizeof(text)), 0);
	assert_good(&imported, 3, 4);
	assert_string_equal(imported.names[IMPORT_USER_BIAS], "net.user_bias.weight");
	assert_int_equal(imported.model.user_ids[0], 7);
	assert_true(imported.model.user_ids[3] == INT64_MAX);
	assert_int_equal(imported.model.item_ids[6], 6);
	model_file_free(&imported.model);

	/* found by words and shapes; a bias without the word "bias" must be named */
	options = (struct import_options){ .path = write_pt("odd.pt", odd, 3), .row_ids = 1 };
	assert_int_equal(import_read(&options, &imported, text, sizeof(text)), 0);
	assert_good(&imported, 0, 0);
	assert_string_equal(imported.names[IMPORT_ITEM_BIAS], "");
	model_file_free(&imported.model);
	options.names[IMPORT_ITEM_BIAS] = "item_b";
	assert_int_equal(import_read(&options, &imported, text, sizeof(text)), 0);
	assert_good(&imported, 0, 4);
	model_file_free(&imported.model);
}

static void assert_refused(const struct import_options *options, int rc, const char *says)
{
	struct imported imported;
	char text[4096] = "";

	assert_int_equal(import_read(options, &imported, text, sizeof(text)), rc);
	if (!strstr(text, says))
		fail_msg("\"%s\" does not say \"%s\"", text, says);
}

static void test_refused(void **state)
{
	static const struct tensor good[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2) };
	static const struct tensor lengths[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM + 1, 2) };
	static const struct tensor bias[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2), F1("bi", ITEMS - 1, 4) };
	static const struct tensor flat[] = { F1("U", USERS, 1), F2("V", ITEMS, DIM, 2) };
	static const struct tensor whole[] = { { "U", TORCH_I64, { USERS, DIM }, 2, 1 }, F2("V", ITEMS, DIM, 2) };
	static const struct tensor nan[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, NAN) };
	static const struct tensor infinite[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2), F1("bi", ITEMS, INFINITY) };
	static const struct tensor twice[] = { F2("a.user_emb.weight", USERS, DIM, 1), F2("b.user_emb.weight", USERS, DIM, 1), F2("V", ITEMS, DIM, 2) };
	static const struct tensor unclear[] = { F2("user_a", USERS, DIM, 1), F2("user_b", USERS, DIM, 1), F2("V", ITEMS, DIM, 2) };
	static const struct tensor none[] = { F2("layer.0", USERS, DIM, 1), F2("layer.1", ITEMS, DIM, 2) };
	static const struct tensor ids[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2), I1("user_ids", USERS + 1, 0), I1("item_ids", ITEMS, -1) };
	struct import_options options = { .path = write_pt("x.pt", good, 2) };

	(void)state;
	assert_refused(&options, -ENOENT, "no tensor 'user_ids': give --user_ids FILE with 5 lines");
	options.row_ids = 1;
	options.names[IMPORT_USER] = "nobody";
	assert_refused(&options, -EBADMSG, "--user_weight");
	options.names[IMPORT_USER] = "V";
	assert_refused(&options, -EBADMSG, "the same tensor twice");
	options.names[IMPORT_USER] = NULL;
	options.user_ids = write_text("ids", "1\n2\n3\n4\n");
	assert_refused(&options, -EINVAL, "holds 4 ids, U has 5 rows");
	options.user_ids = write_text("ids", "1\n2\n3\n4\nx\n");
	assert_refused(&options, -EINVAL, "ids: line 5: no id");
	options.user_ids = write_text("ids", "1\n2\n3\n4\n9223372036854775808\n");
	assert_refused(&options, -EINVAL, "line 5: no id");
	options.user_ids = write_text("ids", "1\n2\n3\n4\n2\n");
	assert_refused(&options, -EINVAL, "user id 2 stands twice");
	options.user_ids = path_of("absent");
	assert_refused(&options, -ENOENT, "absent: No such file");
	options.user_ids = NULL;

	options.path = write_pt("x.pt", lengths, 2);
	assert_refused(&options, -EBADMSG, "U has 3 columns and V 4");
	options.path = write_pt("x.pt", bias, 3);
	assert_refused(&options, -EBADMSG, "bi is not [7] or [7, 1]");
	options.path = write_pt("x.pt", flat, 2);
	assert_refused(&options, -EBADMSG, "U is not [rows, dim]");
	options.path = write_pt("x.pt", whole, 2);
	assert_refused(&options, -EBADMSG, "U is int64, wanted float32");
	options.path = write_pt("x.pt", nan, 2);
	assert_refused(&options, -ERANGE, "V: row 0 holds NaN");
	options.path = write_pt("x.pt", infinite, 3);
	assert_refused(&options, -ERANGE, "bi: row 0 holds an infinity");
	options.path = write_pt("x.pt", twice, 3);
	assert_refused(&options, -EBADMSG, "two tensors have a usual name");
	options.path = write_pt("x.pt", unclear, 3);
	assert_refused(&options, -EBADMSG, "several tensors could be it");
	options.path = write_pt("x.pt", none, 2);
	assert_refused(&options, -EBADMSG, "layer.0 float32 [5, 3], layer.1 float32 [7, 3]");
	options.row_ids = 0;
	options.path = write_pt("x.pt", ids, 4);
	assert_refused(&options, -EBADMSG, "tensor 'user_ids' is not int64 [5]");
	options.user_ids = write_text("ids", "1\n2\n3\n4\n5\n");
	assert_refused(&options, -EINVAL, "item id -1 is negative");
	options.path = write_text("no.pt", "no zip");
	assert_refused(&options, -EBADMSG, "no.pt");
}

static void test_checkpoint(void **state)
{
	static const struct tensor good[] = { F2("U", USERS, DIM, 1), F2("V", ITEMS, DIM, 2), F1("bu", USERS, 3), F1("bi", ITEMS, 4) };
	const struct import_options options = { .path = write_pt("c.pt", good, 4), .row_ids = 1 };
	const struct state_config wanted = { .users_max = 100, .items_max = 100, .impressions_max = 64, .row_bytes = personal_row_bytes(DIM) };
	const struct state_rules rules = { .min_pos_completion = 0.6f, .negative_after_us = 1800000000 };
	struct checkpoint_loaded loaded = { 0 };
	struct checkpoint_result result;
	struct imported imported;
	char text[4096], data_dir[128];

	(void)state;
	snprintf(data_dir, sizeof(data_dir), "%s/state", folder);
	assert_int_equal(import_read(&options, &imported, text, sizeof(text)), 0);
	imported.model.user_ids[2] = 4711;
	assert_int_equal(import_checkpoint(data_dir, &imported.model, 64, &result, text, sizeof(text)), 0);
	int fd = open(data_dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(checkpoint_load(fd, &wanted, DIM, &rules, NULL, NULL, &loaded, text, sizeof(text)), 0);
	struct imported read_back = { .model.tables = loaded.tables };
	assert_good(&read_back, 3, 4); /* the rows as they were, although nobody has a positive */
	assert_int_equal(loaded.generation_number, 1);
	assert_int_equal(loaded.n_positions, 0);
	assert_int_equal(state_n_users(loaded.state), USERS);
	assert_int_equal(state_find_user(loaded.state, 4711), 2);
	assert_int_equal(state_find_item(loaded.state, 6), 6);
	assert_true(loaded.tables.acc_user[4] > 0 && loaded.tables.acc_item[6] > 0);
	assert_true(fabsf(loaded.intercept - 3.25f) < 1e-6f);
	checkpoint_loaded_free(&loaded);
	close(fd);
	assert_int_equal(import_checkpoint(data_dir, &imported.model, 64, &result, text, sizeof(text)), -EEXIST);
	assert_non_null(strstr(text, "in use already"));
	model_file_free(&imported.model);
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/recd-import.XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usual_names),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_checkpoint),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
