/*
 * import_model.c: finds and reads the tensors of a foreign model (import_model.h). Main thread of recctl; owns the reader while it reads.
 *
 * A tensor is taken by the name that was given, else by a usual name (with any module names before it), else by shape when only one fits. Whatever is
 * not clear is an error that lists what the file holds: a model read the wrong way round would rank nonsense and look well.
 */
#include "daemon/recctl/import_model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/recctl/import_ids.h"
#include "trainer/model/torch_file.h"

#define DIM_MAX 512u
#define LIST_MAX 2048

static const struct {
	const char *what, *flag, *word;
	const char *usual[12]; /* without module names before them; NULL at the end */
} parts[IMPORT_PART_COUNT] = {
	[IMPORT_USER] = { "user vectors", "user_weight", "user",
	                  { "U", "user_emb.weight", "user_embedding.weight", "user_embeddings.weight", "user_embed.weight", "embed_user.weight",
	                    "embedding_user.weight", "user_factors.weight", "user_factors", "users.weight", NULL } },
	[IMPORT_ITEM] = { "item vectors", "item_weight", "item",
	                  { "V", "item_emb.weight", "item_embedding.weight", "item_embeddings.weight", "item_embed.weight", "embed_item.weight",
	                    "embedding_item.weight", "item_factors.weight", "item_factors", "items.weight", NULL } },
	[IMPORT_USER_BIAS] = { "user biases", "user_bias", "user",
	                       { "bu", "user_bias.weight", "user_bias", "user_biases.weight", "user_biases", "bias_user.weight", "b_u.weight", "b_u", NULL } },
	[IMPORT_ITEM_BIAS] = { "item biases", "item_bias", "item",
	                       { "bi", "item_bias.weight", "item_bias", "item_biases.weight", "item_biases", "bias_item.weight", "b_i.weight", "b_i", NULL } },
};

struct finding {
	const struct import_options *options;
	struct torch_reader *reader;
	const struct torch_tensor *of[IMPORT_PART_COUNT];
	char *errstr;
	size_t errstr_size;
};

static int is_bias_part(enum import_part part)
{
	return part == IMPORT_USER_BIAS || part == IMPORT_ITEM_BIAS;
}

/* "a float32 [3, 4], b int64 [3]": what the file holds. */
static void list_tensors(const struct torch_reader *reader, char *out, size_t size)
{
	size_t used = 0;

	snprintf(out, size, "no tensor at all");
	for (size_t i = 0; i < torch_reader_n_tensors(reader) && used + 1 < size; i++) {
		const struct torch_tensor *t = torch_reader_tensor(reader, i);
		int n;

		if (t->unsupported)
			n = snprintf(out + used, size - used, "%s%s (%s)", i ? ", " : "", t->name, t->unsupported);
		else if (t->n_dims == 2)
			n = snprintf(out + used, size - used, "%s%s %s [%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", t->name, torch_dtype_name(t->dtype),
			             t->shape[0], t->shape[1]);
		else
			n = snprintf(out + used, size - used, "%s%s %s [%" PRIu64 "]", i ? ", " : "", t->name, torch_dtype_name(t->dtype), t->n_elements);
		used += n > 0 ? (size_t)n : 0;
	}
}

static int fail_part(struct finding *f, enum import_part part, const char *problem)
{
	char list[LIST_MAX];

	list_tensors(f->reader, list, sizeof(list));
	snprintf(f->errstr, f->errstr_size, "%s: %s: %s; name the tensor with --%s (a whole model or a checkpoint with an optimizer? save its state_dict() "
	         "alone). The file holds: %s", f->options->path, parts[part].what, problem, parts[part].flag, list);
	return -EBADMSG;
}

/* Whether a tensor's name is a usual one, alone or behind module names. */
static int is_usual(const char *name, const char *usual)
{
	size_t len = strlen(name), n = strlen(usual);

	return len >= n && !strcmp(name + len - n, usual) && (len == n || name[len - n - 1] == '.');
}

static int may_be_bias(const struct torch_tensor *t)
{
	return t->n_dims == 1 || (t->n_dims == 2 && t->shape[1] == 1);
}

/* Whether the tensor could be the part, by its shape; biases are looked for after the vectors. */
static int shape_fits(const struct finding *f, enum import_part part, const struct torch_tensor *t)
{
	if (t->unsupported || t->dtype != TORCH_F32)
		return 0;
	if (!is_bias_part(part))
		return t->n_dims == 2;
	return may_be_bias(t) && t->shape[0] == f->of[part == IMPORT_USER_BIAS ? IMPORT_USER : IMPORT_ITEM]->shape[0];
}

static int is_taken(const struct finding *f, const struct torch_tensor *t)
{
	for (int part = 0; part < IMPORT_PART_COUNT; part++)
		if (f->of[part] == t)
			return 1;
	return 0;
}

/* The only tensor that fits and has the word (and for a bias "bias") in its name. Returns how many there are. */
static int find_by_shape(const struct finding *f, enum import_part part, const struct torch_tensor **ret_tensor)
{
	int n = 0;

	for (size_t i = 0; i < torch_reader_n_tensors(f->reader); i++) {
		const struct torch_tensor *t = torch_reader_tensor(f->reader, i);

		if (is_taken(f, t) || !shape_fits(f, part, t) || !strcasestr(t->name, parts[part].word))
			continue;
		if (is_bias_part(part) ? !strcasestr(t->name, "bias") : may_be_bias(t) || strcasestr(t->name, "bias") != NULL)
			continue;
		*ret_tensor = t;
		n++;
	}
	return n;
}

static int find_part(struct finding *f, enum import_part part)
{
	const char *given = f->options->names[part];
	char text[512];
	int n = 0;

	if (given) {
		int rc = torch_reader_find_tensor(f->reader, given, &f->of[part], text, sizeof(text));

		return rc ? fail_part(f, part, text) : 0;
	}
	for (const char *const *usual = parts[part].usual; *usual && !f->of[part]; usual++) {
		for (size_t i = 0; i < torch_reader_n_tensors(f->reader); i++) {
			const struct torch_tensor *t = torch_reader_tensor(f->reader, i);

			if (!is_usual(t->name, *usual))
				continue;
			if (n++)
				return fail_part(f, part, "two tensors have a usual name");
			f->of[part] = t;
		}
	}
	if (f->of[part])
		return 0;
	n = find_by_shape(f, part, &f->of[part]);
	if (n > 1 || (!n && !is_bias_part(part)))
		return fail_part(f, part, n ? "several tensors could be it" : "no tensor with a usual name, and none by its shape");
	return 0;
}

static int check_part(struct finding *f, enum import_part part)
{
	const struct torch_tensor *t = f->of[part];
	char problem[512];

	if (!t)
		return 0;
	if (t->unsupported)
		snprintf(problem, sizeof(problem), "%.200s cannot be read (%.200s); save it with .float().contiguous()", t->name, t->unsupported);
	else if (t->dtype != TORCH_F32)
		snprintf(problem, sizeof(problem), "%.200s is %s, wanted float32", t->name, torch_dtype_name(t->dtype));
	else if (!is_bias_part(part) && (t->n_dims != 2 || !t->shape[0] || !t->shape[1] || t->shape[1] > DIM_MAX || t->shape[0] > UINT32_MAX / 2))
		snprintf(problem, sizeof(problem), "%.200s is not [rows, dim] with a dim from 1 to %u", t->name, DIM_MAX);
	else if (is_bias_part(part) && !shape_fits(f, part, t))
		snprintf(problem, sizeof(problem), "%.200s is not [%" PRIu64 "] or [%" PRIu64 ", 1], one for each row of %.200s", t->name,
		         f->of[part - IMPORT_USER_BIAS]->shape[0], f->of[part - IMPORT_USER_BIAS]->shape[0], f->of[part - IMPORT_USER_BIAS]->name);
	else
		return 0;
	return fail_part(f, part, problem);
}

static int find_all(struct finding *f)
{
	for (int part = 0; part < IMPORT_PART_COUNT; part++) {
		int rc = find_part(f, (enum import_part)part);

		if (!rc)
			rc = check_part(f, (enum import_part)part);
		if (rc)
			return rc;
	}
	for (int part = 1; part < IMPORT_PART_COUNT; part++)
		for (int other = 0; other < part; other++)
			if (f->of[part] && f->of[part] == f->of[other])
				return fail_part(f, (enum import_part)part, "the same tensor twice");
	if (f->of[IMPORT_USER]->shape[1] != f->of[IMPORT_ITEM]->shape[1]) {
		snprintf(f->errstr, f->errstr_size, "%s: %s has %" PRIu64 " columns and %s %" PRIu64 ": vectors of users and items must have the same length",
		         f->options->path, f->of[IMPORT_USER]->name, f->of[IMPORT_USER]->shape[1], f->of[IMPORT_ITEM]->name, f->of[IMPORT_ITEM]->shape[1]);
		return -EBADMSG;
	}
	return 0;
}

/* No NaN, no infinity: they would rank nothing, and recd takes none. */
static int check_finite(struct finding *f, enum import_part part, const float *values, uint64_t columns)
{
	const struct torch_tensor *t = f->of[part];

	for (uint64_t i = 0; i < t->n_elements; i++) {
		if (isfinite(values[i]))
			continue;
		snprintf(f->errstr, f->errstr_size, "%s: %s: row %" PRIu64 " holds %s: the model has diverged; train it again with a lower rate",
		         f->options->path, t->name, i / columns, isnan(values[i]) ? "NaN" : "an infinity");
		return -ERANGE;
	}
	return 0;
}

static int read_tensors(struct finding *f, struct tables *tables)
{
	float *const into[IMPORT_PART_COUNT] = { tables->U, tables->V, tables->bu, tables->bi };
	int rc = 0;

	for (int part = 0; !rc && part < IMPORT_PART_COUNT; part++) {
		const struct torch_tensor *t = f->of[part];

		if (!t) /* new memory is zero */
			continue;
		rc = torch_reader_read(f->reader, t, 0, into[part], t->bytes, f->errstr, f->errstr_size);
		if (!rc)
			rc = check_finite(f, (enum import_part)part, into[part], is_bias_part((enum import_part)part) ? 1 : t->shape[1]);
	}
	return rc;
}

static int read_ids(struct finding *f, struct model_file *model)
{
	const struct import_options *o = f->options;
	const struct import_id_source users = { .what = "user", .tensor = "user_ids", .file = o->user_ids, .rows = f->of[IMPORT_USER]->name };
	const struct import_id_source items = { .what = "item", .tensor = "item_ids", .file = o->item_ids, .rows = f->of[IMPORT_ITEM]->name };
	int rc = import_ids(&users, o->path, f->reader, o->row_ids, model->tables.n_users, &model->user_ids, f->errstr, f->errstr_size);

	return rc ? rc : import_ids(&items, o->path, f->reader, o->row_ids, model->tables.n_items, &model->item_ids, f->errstr, f->errstr_size);
}

static int read_all(struct finding *f, struct imported *imported)
{
	struct tables *tables = &imported->model.tables;
	int rc = find_all(f);

	if (rc)
		return rc;
	rc = tables_reserve(tables, (uint32_t)f->of[IMPORT_USER]->shape[0], (uint32_t)f->of[IMPORT_ITEM]->shape[0], (uint32_t)f->of[IMPORT_USER]->shape[1]);
	if (rc) {
		snprintf(f->errstr, f->errstr_size, "out of memory");
		return rc;
	}
	tables->n_users = (uint32_t)f->of[IMPORT_USER]->shape[0];
	tables->n_items = (uint32_t)f->of[IMPORT_ITEM]->shape[0];
	tables->dim = (uint32_t)f->of[IMPORT_USER]->shape[1];
	rc = read_tensors(f, tables);
	if (!rc)
		rc = read_ids(f, &imported->model);
	for (int part = 0; part < IMPORT_PART_COUNT; part++)
		snprintf(imported->names[part], sizeof(imported->names[part]), "%s", f->of[part] ? f->of[part]->name : "");
	return rc;
}

int import_read(const struct import_options *options, struct imported *ret_imported, char *errstr, size_t errstr_size)
{
	struct finding finding = { .options = options, .errstr = errstr, .errstr_size = errstr_size };
	struct imported imported = { 0 };
	char text[512];
	int rc = torch_reader_open(AT_FDCWD, options->path, TORCH_FOLLOW_LINK, &finding.reader, text, sizeof(text));

	if (rc) {
		snprintf(errstr, errstr_size, "%s%s", text, rc == -ENOTSUP ? "; recctl reads tensors alone: save the model's state_dict()" : "");
		return rc;
	}
	rc = read_all(&finding, &imported);
	torch_reader_close(finding.reader);
	if (rc) {
		model_file_free(&imported.model);
		return rc;
	}
	*ret_imported = imported;
	return 0;
}
