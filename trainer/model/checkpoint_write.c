/*
 * checkpoint_write.c: the cut to disk. Runs on the background writer's thread.
 *
 * The users are walked once. Each user's facts go to the columns of state.pt, his global row to model_bpr.pt and his served row to
 * model_bpr_personalized.pt, all three files open at the same time: every column has its own cursor, so nothing is held but write buffers. The sizes of all
 * columns are known when the cut begins.
 *
 * Owns the three writers and the temporary directory. The generation is pinned and the cut is frozen by the caller.
 */
#include "trainer/model/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/model/atomic_dir.h"
#include "trainer/model/checkpoint_schema.h"

#define GATHER_ELEMENTS 4096u

/* The tensors of a model file. */
struct model_writer {
	struct torch_writer *writer;
	unsigned U, V, bu, bi, user_ids, item_ids;
};

struct state_writer {
	struct torch_writer *writer;
	unsigned starts[FACT_KIND_COUNT];
	unsigned columns[32]; /* by fact_columns */
	unsigned user_ids, item_ids, forgotten, acc_user, acc_item;
	unsigned personal_generation, personal_fitted_us, personal_bu, personal_positives;
	unsigned catalogue_start, catalogue, surfaces, position_names, positions;
	int64_t start[FACT_KIND_COUNT]; /* running */
};

struct checkpoint_writer {
	const struct checkpoint_cut *cut;
	struct checkpoint_progress *progress;
	struct model_writer global, personal;
	struct state_writer state;
	uint32_t n_users, n_items, dim;
	float *row; /* [dim] scratch */
	char cut_name[CHECKPOINT_CUT_MAX];
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static unsigned add_tensor(struct torch_writer *writer, const char *name, enum torch_dtype dtype, uint64_t rows, uint64_t columns)
{
	const uint64_t shape[2] = { rows, columns };
	/* a failed declaration is kept by the writer and returned by torch_writer_begin() */
	const int number = torch_writer_add_tensor(writer, name, dtype, columns == 0 ? 1 : 2, shape);

	return number < 0 ? 0 : (unsigned)number;
}

static int model_writer_begin(struct model_writer *m, int dir_fd, const char *name, const char *kind, const char *cut_name, uint64_t generation,
                              uint32_t n_users, uint32_t n_items, uint32_t dim, char *errstr, size_t errstr_size)
{
	m->writer = torch_writer_new(0);
	if (m->writer == NULL) {
		snprintf(errstr, errstr_size, "%s: out of memory", name);
		return -ENOMEM;
	}
	m->U = add_tensor(m->writer, "U", TORCH_F32, n_users, dim);
	m->V = add_tensor(m->writer, "V", TORCH_F32, n_items, dim);
	m->bu = add_tensor(m->writer, "bu", TORCH_F32, n_users, 0);
	m->bi = add_tensor(m->writer, "bi", TORCH_F32, n_items, 0);
	m->user_ids = add_tensor(m->writer, "user_ids", TORCH_I64, n_users, 0);
	m->item_ids = add_tensor(m->writer, "item_ids", TORCH_I64, n_items, 0);
	torch_writer_add_int(m->writer, "emb_dim", dim);
	torch_writer_add_int(m->writer, "generation", (int64_t)generation);
	torch_writer_add_string(m->writer, "kind", kind);
	torch_writer_add_string(m->writer, "cut", cut_name);
	return torch_writer_begin(m->writer, dir_fd, name, errstr, errstr_size);
}

static void model_writer_items(struct model_writer *m, const struct tables *tables, const int64_t *item_ids, uint32_t n_items)
{
	torch_writer_append(m->writer, m->V, tables->V, (size_t)n_items * tables->dim * sizeof(float));
	torch_writer_append(m->writer, m->bi, tables->bi, n_items * sizeof(float));
	torch_writer_append(m->writer, m->item_ids, item_ids, n_items * sizeof(int64_t));
}

static void add_ints(struct torch_writer *writer, const struct int_field *fields, size_t n, const void *base)
{
	for (size_t i = 0; i < n; i++)
		torch_writer_add_int(writer, fields[i].name, int_field_get(&fields[i], base));
}

static void declare_scalars(const struct checkpoint_writer *w, struct torch_writer *out)
{
	const struct checkpoint_cut *cut = w->cut;
	const struct state_counters counters = state_cut_counters(cut->cut);
	const struct state_digest digest = state_cut_digest(cut->cut);
	char text[64];

	torch_writer_add_string(out, "format", CHECKPOINT_FORMAT);
	torch_writer_add_int(out, "version", CHECKPOINT_VERSION);
	torch_writer_add_string(out, "cut", w->cut_name);
	torch_writer_add_int(out, "generation", (int64_t)cut->generation->number);
	torch_writer_add_int(out, "emb_dim", w->dim);
	torch_writer_add_int(out, "impressions_max", cut->state_config.impressions_max);
	torch_writer_add_int(out, "hash_seed", (int64_t)cut->state_config.hash_seed);
	torch_writer_add_int(out, "model_clock_us", cut->model_clock_us);
	torch_writer_add_int(out, "time_max_us", state_cut_time_max_us(cut->cut));
	torch_writer_add_int(out, "dead_letter_length", cut->dead_letter_length);
	torch_writer_add_int(out, "dead_letter_dropped", (int64_t)cut->dead_letter_dropped);
	snprintf(text, sizeof(text), "%.9g", (double)cut->generation->intercept);
	torch_writer_add_string(out, "intercept", text);
	snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, digest.hi, digest.lo);
	torch_writer_add_string(out, "histories_digest", text);
	add_ints(out, counter_fields, n_counter_fields, &counters);
	add_ints(out, progress_fields, n_progress_fields, &cut->generation->progress);
}

static uint64_t catalogue_bytes(const struct checkpoint_writer *w)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < w->n_items; i++) {
		size_t len = 0;

		if (state_cut_catalogue_doc(w->cut->cut, i, &len) != NULL)
			total += len;
	}
	return total;
}

/* Names as one blob, a NUL after each. */
static uint64_t names_bytes(const struct checkpoint_cut *cut, int surfaces)
{
	uint64_t total = 0;

	if (surfaces)
		for (uint32_t i = 0; i < cut->n_surfaces; i++)
			total += strlen(cut->surfaces[i]) + 1;
	else
		for (size_t i = 0; i < cut->n_positions; i++)
			total += strlen(cut->positions[i].name) + 1;
	return total;
}

static void declare_position_columns(struct torch_writer *out)
{
	char columns[2048];
	size_t used = 0;

	columns[0] = '\0';
	for (size_t i = 0; i < n_position_fields; i++)
		used += (size_t)snprintf(columns + used, sizeof(columns) - used, "%s%s", i == 0 ? "" : ",", position_fields[i].name);
	torch_writer_add_string(out, "position_columns", columns);
}

static int state_writer_begin(struct checkpoint_writer *w, int dir_fd, char *errstr, size_t errstr_size)
{
	struct state_writer *s = &w->state;
	const struct state_totals totals = state_cut_totals(w->cut->cut);
	const uint64_t rows[FACT_KIND_COUNT] = { totals.watches, totals.touches, totals.impressions };

	s->writer = torch_writer_new(0);
	if (s->writer == NULL) {
		snprintf(errstr, errstr_size, "%s: out of memory", FILE_STATE);
		return -ENOMEM;
	}
	declare_scalars(w, s->writer);
	s->user_ids = add_tensor(s->writer, "user_ids", TORCH_I64, w->n_users, 0);
	s->item_ids = add_tensor(s->writer, "item_ids", TORCH_I64, w->n_items, 0);
	s->forgotten = add_tensor(s->writer, "forgotten", TORCH_U8, w->n_users, 0);
	for (int kind = 0; kind < FACT_KIND_COUNT; kind++)
		s->starts[kind] = add_tensor(s->writer, fact_groups[kind].starts, TORCH_I64, (uint64_t)w->n_users + 1, 0);
	for (size_t c = 0; c < n_fact_columns; c++)
		s->columns[c] = add_tensor(s->writer, fact_columns[c].name, fact_columns[c].dtype, rows[fact_columns[c].kind], 0);
	s->personal_generation = add_tensor(s->writer, "personal_generation", TORCH_I64, w->n_users, 0);
	s->personal_fitted_us = add_tensor(s->writer, "personal_fitted_us", TORCH_I64, w->n_users, 0);
	s->personal_bu = add_tensor(s->writer, "personal_bu", TORCH_F32, w->n_users, 0);
	s->personal_positives = add_tensor(s->writer, "personal_positives", TORCH_I32, w->n_users, 0);
	s->acc_user = add_tensor(s->writer, "acc_user", TORCH_F32, w->n_users, 0);
	s->acc_item = add_tensor(s->writer, "acc_item", TORCH_F32, w->n_items, 0);
	s->catalogue_start = add_tensor(s->writer, "catalogue_start", TORCH_I64, (uint64_t)w->n_items + 1, 0);
	s->catalogue = add_tensor(s->writer, "catalogue", TORCH_U8, catalogue_bytes(w), 0);
	s->surfaces = add_tensor(s->writer, "surfaces", TORCH_U8, names_bytes(w->cut, 1), 0);
	s->position_names = add_tensor(s->writer, "position_names", TORCH_U8, names_bytes(w->cut, 0), 0);
	s->positions = add_tensor(s->writer, "positions", TORCH_I64, w->cut->n_positions, n_position_fields);
	declare_position_columns(s->writer);
	return torch_writer_begin(s->writer, dir_fd, FILE_STATE, errstr, errstr_size);
}

static void append_fixed_parts(struct checkpoint_writer *w)
{
	const struct checkpoint_cut *cut = w->cut;
	const struct tables *tables = &cut->generation->tables;
	struct state_writer *s = &w->state;
	int64_t at = 0;

	model_writer_items(&w->global, tables, cut->item_ids, w->n_items);
	model_writer_items(&w->personal, tables, cut->item_ids, w->n_items);
	torch_writer_append(w->global.writer, w->global.user_ids, cut->user_ids, w->n_users * sizeof(int64_t));
	torch_writer_append(w->personal.writer, w->personal.user_ids, cut->user_ids, w->n_users * sizeof(int64_t));
	torch_writer_append(s->writer, s->user_ids, cut->user_ids, w->n_users * sizeof(int64_t));
	torch_writer_append(s->writer, s->item_ids, cut->item_ids, w->n_items * sizeof(int64_t));
	torch_writer_append(s->writer, s->acc_user, tables->acc_user, w->n_users * sizeof(float));
	torch_writer_append(s->writer, s->acc_item, tables->acc_item, w->n_items * sizeof(float));
	for (uint32_t i = 0; i < w->n_items; i++) {
		size_t len = 0;
		const char *doc = state_cut_catalogue_doc(cut->cut, i, &len);

		torch_writer_append(s->writer, s->catalogue_start, &at, sizeof(at));
		if (doc != NULL) {
			torch_writer_append(s->writer, s->catalogue, doc, len);
			at += (int64_t)len;
		}
	}
	torch_writer_append(s->writer, s->catalogue_start, &at, sizeof(at));
	for (uint32_t i = 0; i < cut->n_surfaces; i++)
		torch_writer_append(s->writer, s->surfaces, cut->surfaces[i], strlen(cut->surfaces[i]) + 1);
	for (size_t i = 0; i < cut->n_positions; i++) {
		torch_writer_append(s->writer, s->position_names, cut->positions[i].name, strlen(cut->positions[i].name) + 1);
		for (size_t f = 0; f < n_position_fields; f++) {
			const int64_t value = int_field_get(&position_fields[f], &cut->positions[i]);

			torch_writer_append(s->writer, s->positions, &value, sizeof(value));
		}
	}
}

/* One field of n facts as a column. */
static void append_column(struct torch_writer *writer, unsigned tensor, const struct fact_column *column, const char *facts, size_t fact_size,
                          uint32_t n)
{
	int64_t wide[GATHER_ELEMENTS];
	int32_t narrow[GATHER_ELEMENTS];

	for (uint32_t done = 0; done < n;) {
		const uint32_t m = n - done < GATHER_ELEMENTS ? n - done : GATHER_ELEMENTS;

		for (uint32_t i = 0; i < m; i++) {
			const char *from = facts + (size_t)(done + i) * fact_size + column->offset;

			if (column->width == 8) {
				memcpy(&wide[i], from, 8);
			} else if (column->width == 4) {
				memcpy(&narrow[i], from, 4);
			} else {
				uint16_t half;

				memcpy(&half, from, 2);
				narrow[i] = half;
			}
		}
		if (column->width == 8)
			torch_writer_append(writer, tensor, wide, m * sizeof(wide[0]));
		else
			torch_writer_append(writer, tensor, narrow, m * sizeof(narrow[0]));
		done += m;
	}
}

static void append_facts(struct state_writer *s, const struct user_facts *facts)
{
	const uint8_t forgotten = facts->forgotten != 0;

	torch_writer_append(s->writer, s->forgotten, &forgotten, sizeof(forgotten));
	for (int kind = 0; kind < FACT_KIND_COUNT; kind++) {
		uint32_t n;

		(void)user_facts_of(facts, (enum fact_kind)kind, &n);
		torch_writer_append(s->writer, s->starts[kind], &s->start[kind], sizeof(int64_t));
		s->start[kind] += n;
	}
	for (size_t c = 0; c < n_fact_columns; c++) {
		uint32_t n;
		const void *of = user_facts_of(facts, fact_columns[c].kind, &n);

		if (n > 0)
			append_column(s->writer, s->columns[c], &fact_columns[c], of, fact_groups[fact_columns[c].kind].size, n);
	}
}

/* The user's rows in both models, and what is needed to take the personal one apart again. */
static void append_rows(struct checkpoint_writer *w, const struct user_facts *facts)
{
	const struct generation *g = w->cut->generation;
	const struct personal_row *personal = facts->row;
	struct state_writer *s = &w->state;
	const size_t row_bytes = w->dim * sizeof(float);
	const size_t n_positives = state_positives(w->cut->state, facts, NULL, 0);
	const int known = (n_positives > 0 || w->cut->rows_of_all) && facts->user < g->tables.n_users;
	const float *row = known ? g->tables.U + (size_t)facts->user * w->dim : g->mean_user;
	const float bu = facts->user < g->tables.n_users ? g->tables.bu[facts->user] : g->intercept;
	const int own = known && personal->generation != 0 && personal->n_positives >= w->cut->personalize_min_positives;
	const int64_t generation = own ? (int64_t)personal->generation : 0;
	const int64_t fitted_us = own ? personal->fitted_us : 0;
	const int32_t fitted_on = own ? (int32_t)personal->n_positives : 0;
	const float personal_bu = own ? personal->bu : bu;

	torch_writer_append(w->global.writer, w->global.U, row, row_bytes);
	torch_writer_append(w->global.writer, w->global.bu, &bu, sizeof(bu));
	if (own) {
		for (uint32_t d = 0; d < w->dim; d++)
			w->row[d] = row[d] + personal->difference[d];
		row = w->row;
	}
	torch_writer_append(w->personal.writer, w->personal.U, row, row_bytes);
	torch_writer_append(w->personal.writer, w->personal.bu, &personal_bu, sizeof(personal_bu));
	torch_writer_append(s->writer, s->personal_generation, &generation, sizeof(generation));
	torch_writer_append(s->writer, s->personal_fitted_us, &fitted_us, sizeof(fitted_us));
	torch_writer_append(s->writer, s->personal_bu, &personal_bu, sizeof(personal_bu));
	torch_writer_append(s->writer, s->personal_positives, &fitted_on, sizeof(fitted_on));
}

static int writer_error(const struct checkpoint_writer *w, char *errstr, size_t errstr_size)
{
	struct torch_writer *const writers[] = { w->global.writer, w->personal.writer, w->state.writer };

	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		const int rc = torch_writer_append(writers[i], 0, "", 0);

		if (rc < 0) {
			snprintf(errstr, errstr_size, "%s", torch_writer_error(writers[i]));
			return rc;
		}
	}
	return 0;
}

static int append_users(struct checkpoint_writer *w, char *errstr, size_t errstr_size)
{
	struct user_copy copy = { 0 };
	uint32_t done = 0;
	int rc;

	while ((rc = state_cut_next(w->cut->cut, &copy)) == 1) {
		append_facts(&w->state, &copy.facts);
		append_rows(w, &copy.facts);
		if ((++done & 1023) != 0)
			continue;
		__atomic_store_n(&w->progress->users_done, done, __ATOMIC_RELAXED);
		if (__atomic_load_n(&w->progress->cancel, __ATOMIC_RELAXED)) {
			snprintf(errstr, errstr_size, "given up: the daemon is stopping");
			rc = -ECANCELED;
			break;
		}
		rc = writer_error(w, errstr, errstr_size);
		if (rc < 0)
			break;
	}
	if (rc == -ENOMEM)
		snprintf(errstr, errstr_size, "copying a user: out of memory");
	if (rc == 0)
		for (int kind = 0; kind < FACT_KIND_COUNT; kind++)
			torch_writer_append(w->state.writer, w->state.starts[kind], &w->state.start[kind], sizeof(int64_t));
	user_copy_free(&copy);
	return rc;
}

static int write_files(struct checkpoint_writer *w, int dir_fd, uint64_t *ret_bytes, char *errstr, size_t errstr_size)
{
	const uint64_t generation = w->cut->generation->number;
	int rc;

	rc = state_writer_begin(w, dir_fd, errstr, errstr_size);
	if (rc == 0)
		rc = model_writer_begin(&w->global, dir_fd, FILE_GLOBAL, "global", w->cut_name, generation, w->n_users, w->n_items, w->dim, errstr,
		                        errstr_size);
	if (rc == 0)
		rc = model_writer_begin(&w->personal, dir_fd, FILE_PERSONALIZED, "personalized", w->cut_name, generation, w->n_users, w->n_items,
		                        w->dim, errstr, errstr_size);
	if (rc < 0)
		return rc;
	append_fixed_parts(w);
	rc = append_users(w, errstr, errstr_size);
	if (rc < 0)
		return rc;
	struct torch_writer *const writers[] = { w->state.writer, w->global.writer, w->personal.writer };

	*ret_bytes = 0;
	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		if (__atomic_load_n(&w->progress->cancel, __ATOMIC_RELAXED)) {
			snprintf(errstr, errstr_size, "given up: the daemon is stopping");
			return -ECANCELED;
		}
		*ret_bytes += torch_writer_file_bytes(writers[i]);
		rc = torch_writer_finish(writers[i], errstr, errstr_size);
		if (rc < 0)
			return rc;
	}
	__atomic_store_n(&w->progress->bytes_written, *ret_bytes, __ATOMIC_RELAXED);
	return 0;
}

/* The mark that tells a first start from a loss; made with the first durable generation. */
static int mark_initialised(int data_dir_fd, char *errstr, size_t errstr_size)
{
	int rc = 0;
	const int fd = openat(data_dir_fd, FILE_INITIALISED, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);

	if (fd < 0) {
		if (errno == EEXIST)
			return 0;
		rc = -errno;
	} else {
		if (fsync(fd) < 0)
			rc = -errno;
		close(fd);
		if (rc == 0 && fsync(data_dir_fd) < 0)
			rc = -errno;
	}
	if (rc < 0)
		snprintf(errstr, errstr_size, "%s: %s", FILE_INITIALISED, strerror(-rc));
	return rc;
}

static int publish_directory(struct atomic_dir *dir, int data_dir_fd, const struct checkpoint_cut *cut, uint32_t keep, char *errstr,
                             size_t errstr_size)
{
	char ignored[256];
	int rc = atomic_dir_commit(dir, errstr, errstr_size);

	if (rc < 0)
		return rc;
	rc = mark_initialised(data_dir_fd, errstr, errstr_size);
	if (rc == 0)
		rc = atomic_dir_link(dir, FILE_GLOBAL, errstr, errstr_size);
	if (rc == 0)
		rc = atomic_dir_link(dir, FILE_PERSONALIZED, errstr, errstr_size);
	if (rc == 0)
		rc = atomic_dir_prune(dir, keep, cut->bad, cut->n_bad, NULL, errstr, errstr_size);
	else /* a stable name that something else has must not fill the disk with generations */
		(void)atomic_dir_prune(dir, keep, cut->bad, cut->n_bad, NULL, ignored, sizeof(ignored));
	return rc;
}

int checkpoint_write(int data_dir_fd, const struct checkpoint_cut *cut, uint32_t keep, struct checkpoint_progress *progress,
                     struct checkpoint_result *ret_result, char *errstr, size_t errstr_size)
{
	const int64_t began_us = now_us();
	const struct state_digest digest = state_cut_digest(cut->cut);
	struct checkpoint_writer w = { .cut = cut, .progress = progress };
	struct atomic_dir *dir = NULL;
	uint64_t number = 0, bytes = 0;
	int dir_fd = -1, rc;

	w.dim = cut->generation->tables.dim;
	w.n_users = state_cut_n_users(cut->cut);
	w.n_items = state_cut_n_items(cut->cut);
	if (w.n_items != cut->generation->tables.n_items || w.n_users != cut->generation->tables.n_users) {
		snprintf(errstr, errstr_size, "the published tables (%u x %u) and the cut (%u x %u) are of different instants",
		         cut->generation->tables.n_users, cut->generation->tables.n_items, w.n_users, w.n_items);
		return -EINVAL;
	}
	snprintf(w.cut_name, sizeof(w.cut_name), "generation %" PRIu64 ", step %" PRIu64 ", histories %016" PRIx64 "%016" PRIx64,
	         cut->generation->number, cut->generation->progress.step, digest.hi, digest.lo);
	w.row = malloc(w.dim * sizeof(float));
	if (w.row == NULL) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	rc = atomic_dir_open(data_dir_fd, ATOMIC_DIR_WRITE, &dir, errstr, errstr_size);
	if (rc == 0)
		rc = atomic_dir_begin(dir, &dir_fd, &number, errstr, errstr_size);
	if (rc == 0)
		rc = write_files(&w, dir_fd, &bytes, errstr, errstr_size);
	torch_writer_free(w.state.writer);
	torch_writer_free(w.global.writer);
	torch_writer_free(w.personal.writer);
	if (rc == 0)
		rc = publish_directory(dir, data_dir_fd, cut, keep, errstr, errstr_size);
	atomic_dir_close(dir);
	free(w.row);
	if (rc < 0)
		return rc;
	*ret_result = (struct checkpoint_result){ .number = (uint32_t)number, .bytes = bytes, .duration_us = now_us() - began_us };
	return 0;
}
