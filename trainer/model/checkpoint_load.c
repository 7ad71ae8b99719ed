/*
 * checkpoint_load.c: one generation from disk. Runs on the thread that starts the daemon, before any other exists.
 *
 * A generation is good when all three files are whole (every record's CRC), carry the same cut, and the histories read from them have the digest that
 * was recorded. Every number is held against the file's own size before memory is asked for. Which generation is tried is checkpoint_recover.c's business.
 *
 * Owns the readers and columns while loading; what was loaded belongs to the caller.
 */
#include "trainer/model/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model/checkpoint_columns.h"
#include "trainer/model/checkpoint_schema.h"

#define EMB_DIM_MAX 512     /* training.emb_dim and state.impressions_max go so far */
#define IMPRESSIONS_MAX 1024

enum { C_USER_IDS, C_FORGOTTEN, C_GENERATION, C_FITTED, C_BU, C_POSITIVES, C_ROWS, C_FIXED };

struct loader {
	const struct state_config *wanted; /* NULL: as the checkpoint is */
	const struct state_rules *rules;
	uint32_t dim, impressions_max;
	void (*beat)(void *ctx, const char *what);
	void *ctx;
	struct torch_reader *state, *global, *personal;
	struct column fixed[C_FIXED];
	struct column starts[FACT_KIND_COUNT];
	struct column facts[32];
	char *fact_buf[FACT_KIND_COUNT];
	size_t fact_capacity[FACT_KIND_COUNT];
	struct state_counters counters;
	uint64_t n_users, n_items;
	char *err;
	size_t err_size;
};

static int fail(struct loader *l, int rc, const char *what)
{
	snprintf(l->err, l->err_size, "%s", what);
	return rc;
}

static void beat(const struct loader *l, const char *what)
{
	if (l->beat != NULL)
		l->beat(l->ctx, what);
}

static int get_int(struct loader *l, const char *name, int64_t *ret)
{
	return torch_reader_find_int(l->state, name, ret, l->err, l->err_size) < 0 ? -EBADMSG : 0;
}

static int get_ints(struct loader *l, const struct int_field *fields, size_t n, void *base)
{
	for (size_t i = 0; i < n; i++) {
		int64_t value;
		const int rc = get_int(l, fields[i].name, &value);

		if (rc < 0)
			return rc;
		int_field_set(&fields[i], base, value);
	}
	return 0;
}

/* Nobody asked for a shape: it is the file's, when the rows have it and it is one that recd can have. */
static int take_shape(struct loader *l, int64_t dim, int64_t impressions)
{
	const struct torch_tensor *rows;

	if (torch_reader_find_tensor(l->global, "V", &rows, l->err, l->err_size) < 0)
		return -EBADMSG;
	if (dim < 1 || dim > EMB_DIM_MAX || impressions < 1 || impressions > IMPRESSIONS_MAX || rows->n_dims != 2 || rows->shape[1] != (uint64_t)dim)
		return fail(l, -EBADMSG, "emb_dim or impressions_max is no number that the tables can have");
	l->dim = (uint32_t)dim;
	l->impressions_max = (uint32_t)impressions;
	return 0;
}

/* The three files belong together and fit the configuration. */
static int check_heads(struct loader *l)
{
	const char *cut[3], *format;
	struct torch_reader *const readers[3] = { l->state, l->global, l->personal };
	int64_t version, dim, impressions;

	if (torch_reader_find_string(l->state, "format", &format, l->err, l->err_size) < 0 || strcmp(format, CHECKPOINT_FORMAT) != 0)
		return fail(l, -EBADMSG, FILE_STATE " is not a recd state");
	if (get_int(l, "version", &version) < 0)
		return -EBADMSG;
	if (version != CHECKPOINT_VERSION) {
		snprintf(l->err, l->err_size, FILE_STATE " has format version %" PRId64 ", this recd reads %d: use the recd that wrote it, or move the "
		         "checkpoints away to start from the logs", version, CHECKPOINT_VERSION);
		return -EMEDIUMTYPE;
	}
	for (int i = 0; i < 3; i++)
		if (torch_reader_find_string(readers[i], "cut", &cut[i], l->err, l->err_size) < 0)
			return -EBADMSG;
	if (strcmp(cut[0], cut[1]) != 0 || strcmp(cut[0], cut[2]) != 0)
		return fail(l, -EBADMSG, "the three files are of different cuts");
	if (get_int(l, "emb_dim", &dim) < 0 || get_int(l, "impressions_max", &impressions) < 0)
		return -EBADMSG;
	if (l->wanted == NULL)
		return take_shape(l, dim, impressions);
	l->impressions_max = l->wanted->impressions_max;
	if (dim != l->dim || impressions != l->wanted->impressions_max) {
		snprintf(l->err, l->err_size, "the data directory has training.emb_dim = %" PRId64 " and state.impressions_max = %" PRId64
		         ", the configuration %u and %u: set them back, or use another data_dir", dim, impressions, l->dim, l->wanted->impressions_max);
		return -EMEDIUMTYPE;
	}
	return 0;
}

static int open_readers(struct loader *l, int dir_fd)
{
	static const char *const names[3] = { FILE_STATE, FILE_GLOBAL, FILE_PERSONALIZED };
	struct torch_reader **const readers[3] = { &l->state, &l->global, &l->personal };
	char text[256];

	for (int i = 0; i < 3; i++) {
		const int rc = torch_reader_open(dir_fd, names[i], 0, readers[i], text, sizeof(text));

		if (rc < 0) {
			snprintf(l->err, l->err_size, "%s: %s", names[i], text);
			return rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE || rc == -EACCES ? rc : -EBADMSG;
		}
		beat(l, names[i]);
	}
	return 0;
}

/* Reads a whole float tensor into dst [rows x columns]. */
static int read_floats(struct loader *l, struct torch_reader *reader, const char *name, uint64_t rows, uint64_t columns, float *dst)
{
	struct column column;
	int rc = column_open(&column, reader, name, TORCH_F32, rows, columns, l->err, l->err_size);

	if (rc < 0)
		return rc;
	return torch_reader_read(reader, column.tensor, 0, dst, column.tensor->bytes, l->err, l->err_size);
}

static int read_tables(struct loader *l, struct tables *tables)
{
	int rc = tables_reserve(tables, (uint32_t)l->n_users, (uint32_t)l->n_items, l->dim);

	if (rc < 0)
		return fail(l, rc, "tables: out of memory");
	tables->n_users = (uint32_t)l->n_users;
	tables->n_items = (uint32_t)l->n_items;
	tables->dim = l->dim;
	rc = read_floats(l, l->global, "U", l->n_users, l->dim, tables->U);
	if (rc == 0)
		rc = read_floats(l, l->global, "V", l->n_items, l->dim, tables->V);
	if (rc == 0)
		rc = read_floats(l, l->global, "bu", l->n_users, 0, tables->bu);
	if (rc == 0)
		rc = read_floats(l, l->global, "bi", l->n_items, 0, tables->bi);
	if (rc == 0)
		rc = read_floats(l, l->state, "acc_user", l->n_users, 0, tables->acc_user);
	if (rc == 0)
		rc = read_floats(l, l->state, "acc_item", l->n_items, 0, tables->acc_item);
	return rc;
}

/* Number of elements of a one-dimensional tensor, or -EBADMSG. */
static int tensor_length(struct loader *l, const char *name, enum torch_dtype dtype, uint64_t *ret_n)
{
	const struct torch_tensor *tensor;

	if (torch_reader_find_tensor(l->state, name, &tensor, l->err, l->err_size) < 0)
		return -EBADMSG;
	if (tensor->n_dims != 1 || tensor->dtype != dtype) {
		snprintf(l->err, l->err_size, "tensor '%s' has another shape or type", name);
		return -EBADMSG;
	}
	*ret_n = tensor->n_elements;
	return 0;
}

static int restore_items(struct loader *l, struct state *state)
{
	struct column ids, starts, docs;
	const void *at, *doc;
	uint64_t bytes;
	int rc;

	memset(&starts, 0, sizeof(starts));
	memset(&docs, 0, sizeof(docs));
	rc = column_open(&ids, l->state, "item_ids", TORCH_I64, l->n_items, 0, l->err, l->err_size);
	if (rc == 0)
		rc = column_next(&ids, l->n_items, &at, l->err, l->err_size);
	if (rc == 0 && (rc = state_restore_items(state, at, (uint32_t)l->n_items)) < 0)
		fail(l, rc, "item_ids: an id twice, or above state.items_max");
	if (rc == 0)
		rc = tensor_length(l, "catalogue", TORCH_U8, &bytes);
	if (rc == 0)
		rc = column_open(&starts, l->state, "catalogue_start", TORCH_I64, l->n_items + 1, 0, l->err, l->err_size);
	if (rc == 0)
		rc = column_open(&docs, l->state, "catalogue", TORCH_U8, bytes, 0, l->err, l->err_size);
	if (rc == 0)
		rc = column_next(&starts, 1, &at, l->err, l->err_size);
	int64_t from = 0;

	for (uint32_t i = 0; rc == 0 && i < l->n_items; i++) {
		int64_t to;

		rc = column_next(&starts, 1, &at, l->err, l->err_size);
		if (rc < 0)
			break;
		memcpy(&to, at, sizeof(to));
		if (to < from)
			rc = fail(l, -EBADMSG, "catalogue_start does not ascend");
		else if (to > from && (rc = column_next(&docs, (uint64_t)(to - from), &doc, l->err, l->err_size)) == 0)
			rc = state_restore_catalogue(state, i, doc, (size_t)(to - from));
		from = to;
	}
	column_close(&ids);
	column_close(&starts);
	column_close(&docs);
	return rc;
}

/* Calls take(ctx, name) for each NUL-ended name of a blob tensor. */
static int each_name(struct loader *l, const char *tensor, int (*take)(void *ctx, const char *name), void *ctx)
{
	struct column column;
	uint64_t bytes;
	const void *at;
	int rc = tensor_length(l, tensor, TORCH_U8, &bytes);

	if (rc == 0)
		rc = column_open(&column, l->state, tensor, TORCH_U8, bytes, 0, l->err, l->err_size);
	if (rc < 0)
		return rc;
	rc = column_next(&column, bytes, &at, l->err, l->err_size);
	if (rc == 0 && bytes > 0 && ((const char *)at)[bytes - 1] != '\0')
		rc = fail(l, -EBADMSG, "a list of names has no end");
	for (const char *name = at; rc == 0 && name < (const char *)at + bytes; name += strlen(name) + 1)
		rc = take(ctx, name);
	column_close(&column);
	return rc;
}

static int take_surface(void *ctx, const char *name)
{
	return state_restore_surface(ctx, name);
}

struct position_names {
	struct source_position *positions;
	size_t n, max;
};

static int take_position(void *ctx, const char *name)
{
	struct position_names *p = ctx;

	if (p->n == p->max || strlen(name) >= POSITION_NAME_MAX)
		return -EBADMSG;
	memcpy(p->positions[p->n++].name, name, strlen(name) + 1);
	return 0;
}

static int read_positions(struct loader *l, struct checkpoint_loaded *out)
{
	const struct torch_tensor *tensor;
	const char *columns;
	struct position_names names = { 0 };
	int64_t value;
	int rc;

	if (torch_reader_find_string(l->state, "position_columns", &columns, l->err, l->err_size) < 0 ||
	    torch_reader_find_tensor(l->state, "positions", &tensor, l->err, l->err_size) < 0)
		return -EBADMSG;
	if (tensor->dtype != TORCH_I64 || tensor->n_dims != 2 || tensor->shape[0] > 1000000)
		return fail(l, -EBADMSG, "tensor 'positions' has another shape or type");
	names.max = (size_t)tensor->shape[0];
	names.positions = calloc(names.max + 1, sizeof(*names.positions));
	if (names.positions == NULL)
		return fail(l, -ENOMEM, "positions: out of memory");
	out->positions = names.positions;
	rc = each_name(l, "position_names", take_position, &names);
	if (rc == 0 && names.n != names.max)
		rc = fail(l, -EBADMSG, "positions: names and rows differ in number");
	size_t c = 0;

	for (const char *name = columns; rc == 0 && *name != '\0'; c++) {
		const size_t len = strcspn(name, ",");

		for (size_t f = 0; f < n_position_fields && c < tensor->shape[1]; f++) {
			if (strlen(position_fields[f].name) != len || strncmp(position_fields[f].name, name, len) != 0)
				continue;
			for (size_t p = 0; rc == 0 && p < names.n; p++) {
				rc = torch_reader_read(l->state, tensor, (p * tensor->shape[1] + c) * sizeof(value), &value, sizeof(value), l->err,
				                       l->err_size);
				int_field_set(&position_fields[f], &names.positions[p], value);
			}
		}
		name += len + (name[len] == ',');
	}
	if (rc == 0)
		out->n_positions = names.n;
	return rc;
}

static int open_user_columns(struct loader *l)
{
	static const struct {
		const char *name;
		enum torch_dtype dtype;
	} fixed[C_FIXED] = {
		[C_USER_IDS] = { "user_ids", TORCH_I64 },           [C_FORGOTTEN] = { "forgotten", TORCH_U8 },
		[C_GENERATION] = { "personal_generation", TORCH_I64 }, [C_FITTED] = { "personal_fitted_us", TORCH_I64 },
		[C_BU] = { "personal_bu", TORCH_F32 },              [C_POSITIVES] = { "personal_positives", TORCH_I32 },
		[C_ROWS] = { "U", TORCH_F32 },
	};
	int rc = 0;

	for (int i = 0; rc == 0 && i < C_FIXED; i++)
		rc = column_open(&l->fixed[i], i == C_ROWS ? l->personal : l->state, fixed[i].name, fixed[i].dtype, l->n_users,
		                 i == C_ROWS ? l->dim : 0, l->err, l->err_size);
	for (int kind = 0; rc == 0 && kind < FACT_KIND_COUNT; kind++)
		rc = column_open(&l->starts[kind], l->state, fact_groups[kind].starts, TORCH_I64, l->n_users + 1, 0, l->err, l->err_size);
	for (size_t c = 0; rc == 0 && c < n_fact_columns; c++) {
		uint64_t rows;

		rc = tensor_length(l, fact_columns[c].name, fact_columns[c].dtype, &rows);
		if (rc == 0)
			rc = column_open(&l->facts[c], l->state, fact_columns[c].name, fact_columns[c].dtype, rows, 0, l->err, l->err_size);
	}
	return rc;
}

/* The user's facts of one kind, gathered from the columns into fact_buf. */
static int scatter_facts(struct loader *l, enum fact_kind kind, uint64_t n)
{
	const size_t size = fact_groups[kind].size;

	if (n > UINT32_MAX / size)
		return fail(l, -EBADMSG, "a user with more facts than there can be");
	if (n > l->fact_capacity[kind]) {
		/* bounded by the file: check against the columns before asking for memory */
		for (size_t c = 0; c < n_fact_columns; c++)
			if (fact_columns[c].kind == kind && n > l->facts[c].tensor->n_elements)
				return fail(l, -EBADMSG, "a user with more facts than the file has");
		char *grown = realloc(l->fact_buf[kind], n * size * 2);

		if (grown == NULL)
			return fail(l, -ENOMEM, "facts: out of memory");
		l->fact_buf[kind] = grown;
		l->fact_capacity[kind] = n * 2;
	}
	for (size_t c = 0; c < n_fact_columns; c++) {
		const struct fact_column *column = &fact_columns[c];
		const void *elements;
		const size_t width = l->facts[c].width;

		if (column->kind != kind)
			continue;
		const int rc = column_next(&l->facts[c], n, &elements, l->err, l->err_size);

		if (rc < 0)
			return rc;
		for (uint64_t i = 0; i < n; i++)
			memcpy(l->fact_buf[kind] + i * size + column->offset, (const char *)elements + i * width, column->width);
	}
	return 0;
}

static int next_of(struct loader *l, int column, void *ret, size_t size)
{
	const void *at;
	const int rc = column_next(&l->fixed[column], 1, &at, l->err, l->err_size);

	if (rc == 0)
		memcpy(ret, at, size);
	return rc;
}

/* The personal row as a difference to the global one. */
static int restore_row(struct loader *l, struct state *state, uint32_t user, const struct tables *tables)
{
	const void *at;
	int64_t generation = 0, fitted_us = 0;
	int32_t fitted_on = 0;
	float bu = 0;
	int rc = next_of(l, C_GENERATION, &generation, sizeof(generation));

	if (rc == 0)
		rc = next_of(l, C_FITTED, &fitted_us, sizeof(fitted_us));
	if (rc == 0)
		rc = next_of(l, C_BU, &bu, sizeof(bu));
	if (rc == 0)
		rc = next_of(l, C_POSITIVES, &fitted_on, sizeof(fitted_on));
	if (rc == 0)
		rc = column_next(&l->fixed[C_ROWS], l->dim, &at, l->err, l->err_size);
	if (rc != 0 || generation == 0)
		return rc;
	struct personal_row *row = state_row_begin(state, user);

	row->generation = (uint64_t)generation;
	row->fitted_us = fitted_us;
	row->bu = bu;
	row->n_positives = (uint32_t)fitted_on;
	for (uint32_t d = 0; d < l->dim; d++) {
		float value;

		memcpy(&value, (const char *)at + d * sizeof(float), sizeof(value));
		row->difference[d] = value - tables->U[(size_t)user * l->dim + d];
	}
	state_row_end(state, user);
	return 0;
}

static int restore_users(struct loader *l, struct state *state, const struct tables *tables)
{
	int64_t begin[FACT_KIND_COUNT] = { 0 };
	const void *at;
	int rc = 0;

	for (int kind = 0; rc == 0 && kind < FACT_KIND_COUNT; kind++) {
		rc = column_next(&l->starts[kind], 1, &at, l->err, l->err_size);
		if (rc == 0)
			memcpy(&begin[kind], at, sizeof(int64_t));
		if (rc == 0 && begin[kind] != 0)
			rc = fail(l, -EBADMSG, "facts do not begin at 0");
	}
	for (uint32_t user = 0; rc == 0 && user < l->n_users; user++) {
		struct user_facts facts = { .user = user };
		uint32_t *const counts[FACT_KIND_COUNT] = { &facts.n_watches, &facts.n_touches, &facts.n_impressions };
		int64_t id = 0;
		uint8_t forgotten = 0;

		rc = next_of(l, C_USER_IDS, &id, sizeof(id));
		if (rc == 0)
			rc = next_of(l, C_FORGOTTEN, &forgotten, sizeof(forgotten));
		for (int kind = 0; rc == 0 && kind < FACT_KIND_COUNT; kind++) {
			int64_t end;

			rc = column_next(&l->starts[kind], 1, &at, l->err, l->err_size);
			if (rc < 0)
				break;
			memcpy(&end, at, sizeof(end));
			if (end < begin[kind])
				rc = fail(l, -EBADMSG, "starts of users' facts do not ascend");
			else if ((rc = scatter_facts(l, (enum fact_kind)kind, (uint64_t)(end - begin[kind]))) == 0)
				*counts[kind] = (uint32_t)(end - begin[kind]);
			begin[kind] = end;
		}
		facts.forgotten = forgotten;
		facts.watches = (const struct watch_fact *)(const void *)l->fact_buf[FACT_WATCH];
		facts.touches = (const struct touch_fact *)(const void *)l->fact_buf[FACT_TOUCH];
		facts.impressions = (const struct impression_fact *)(const void *)l->fact_buf[FACT_IMPRESSION];
		if (rc == 0 && (rc = state_restore_user(state, id, &facts)) < 0)
			snprintf(l->err, l->err_size, "user %" PRId64 ": facts that no history can hold (%s)", id, strerror(-rc));
		if (rc == 0)
			rc = restore_row(l, state, user, tables);
		if ((user & 0xffff) == 0xffff)
			beat(l, "histories");
	}
	return rc;
}

static int check_digest(struct loader *l, struct checkpoint_loaded *out)
{
	const struct state_digest digest = state_digest(out->state);
	const char *recorded;
	char text[40];

	if (torch_reader_find_string(l->state, "histories_digest", &recorded, l->err, l->err_size) < 0)
		return -EBADMSG;
	snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, digest.hi, digest.lo);
	if (strcmp(text, recorded) != 0) {
		snprintf(l->err, l->err_size, "the histories have digest %s, recorded was %.40s", text, recorded);
		return -EBADMSG;
	}
	out->digest = digest;
	return 0;
}

static int read_scalars(struct loader *l, struct checkpoint_loaded *out, int64_t *ret_hash_seed, int64_t *ret_time_max_us)
{
	const char *intercept;
	int64_t generation = 0, dropped = 0;
	int rc = get_int(l, "generation", &generation);

	if (rc == 0)
		rc = get_int(l, "hash_seed", ret_hash_seed);
	if (rc == 0)
		rc = get_int(l, "time_max_us", ret_time_max_us);
	if (rc == 0)
		rc = get_int(l, "model_clock_us", &out->model_clock_us);
	if (rc == 0)
		rc = get_int(l, "dead_letter_length", &out->dead_letter_length);
	if (rc == 0)
		rc = get_int(l, "dead_letter_dropped", &dropped);
	if (rc == 0)
		rc = get_ints(l, counter_fields, n_counter_fields, &l->counters);
	if (rc == 0)
		rc = get_ints(l, progress_fields, n_progress_fields, &out->progress);
	if (rc == 0 && torch_reader_find_string(l->state, "intercept", &intercept, l->err, l->err_size) < 0)
		rc = -EBADMSG;
	if (rc != 0)
		return rc;
	out->generation_number = (uint64_t)generation;
	out->dead_letter_dropped = (uint64_t)dropped;
	out->intercept = strtof(intercept, NULL);
	return 0;
}

/* The state that the checkpoint goes into: as wanted, with its size held against the caps, or just large enough. */
static int choose_config(struct loader *l, struct state_config *ret_config)
{
	if (l->wanted == NULL) {
		*ret_config = (struct state_config){ .users_max = (uint32_t)l->n_users + 1, .items_max = (uint32_t)l->n_items + 1,
			                             .impressions_max = l->impressions_max, .row_bytes = personal_row_bytes(l->dim) };
		return l->n_users < UINT32_MAX && l->n_items < UINT32_MAX ? 0 : fail(l, -EBADMSG, "more ids than there can be");
	}
	*ret_config = *l->wanted;
	if (l->n_users <= ret_config->users_max && l->n_items <= ret_config->items_max)
		return 0;
	snprintf(l->err, l->err_size, "the data directory holds %" PRIu64 " users and %" PRIu64 " items, above state.users_max = %u or "
	         "state.items_max = %u: raise them", l->n_users, l->n_items, ret_config->users_max, ret_config->items_max);
	return -EMEDIUMTYPE;
}

static int load_generation(struct loader *l, int dir_fd, struct checkpoint_loaded *out)
{
	struct state_config config;
	int64_t hash_seed = 0, time_max_us = 0;
	int rc = open_readers(l, dir_fd);

	if (rc == 0)
		rc = check_heads(l);
	if (rc == 0)
		rc = tensor_length(l, "user_ids", TORCH_I64, &l->n_users);
	if (rc == 0)
		rc = tensor_length(l, "item_ids", TORCH_I64, &l->n_items);
	if (rc == 0)
		rc = choose_config(l, &config);
	if (rc == 0)
		rc = read_scalars(l, out, &hash_seed, &time_max_us);
	if (rc < 0)
		return rc;
	config.hash_seed = out->hash_seed = (uint64_t)hash_seed;
	rc = state_new(&config, l->rules, &out->state, l->err, l->err_size);
	if (rc == 0)
		rc = read_tables(l, &out->tables);
	if (rc == 0)
		rc = read_positions(l, out);
	if (rc == 0)
		rc = restore_items(l, out->state);
	if (rc == 0)
		rc = each_name(l, "surfaces", take_surface, out->state);
	if (rc == 0)
		rc = open_user_columns(l);
	if (rc == 0)
		rc = restore_users(l, out->state, &out->tables);
	if (rc == 0)
		rc = state_restore_end(out->state, &l->counters, time_max_us);
	if (rc == 0)
		rc = check_digest(l, out);
	return rc;
}

static void loader_close(struct loader *l)
{
	for (int i = 0; i < C_FIXED; i++)
		column_close(&l->fixed[i]);
	for (int kind = 0; kind < FACT_KIND_COUNT; kind++) {
		column_close(&l->starts[kind]);
		free(l->fact_buf[kind]);
	}
	for (size_t c = 0; c < n_fact_columns; c++)
		column_close(&l->facts[c]);
	torch_reader_close(l->state);
	torch_reader_close(l->global);
	torch_reader_close(l->personal);
}

int checkpoint_load_generation(int dir_fd, const struct state_config *wanted, uint32_t emb_dim, const struct state_rules *rules,
                               void (*beat_fn)(void *ctx, const char *what), void *ctx, struct checkpoint_loaded *out, char *errstr,
                               size_t errstr_size)
{
	struct loader l = {
		.wanted = wanted, .rules = rules, .dim = emb_dim, .beat = beat_fn, .ctx = ctx, .err = errstr, .err_size = errstr_size
	};
	const int rc = load_generation(&l, dir_fd, out);

	loader_close(&l);
	return rc;
}
