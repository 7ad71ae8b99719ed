/*
 * baseline_oracle.c: the ranking that nobody can beat: the true chances of synthetic logs, as `recctl synth --oracle` writes them. Main thread of recctl
 * opens; the score function is called from rank_users()'s threads and only reads. Owns the mapped file.
 */
#include "daemon/recctl/baseline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "trainer/model/torch_file.h"

struct oracle_scores {
	struct torch_reader *reader;
	const float *chance; /* [n_users, n_columns], mapped */
	uint32_t n_items, n_columns;
	uint32_t *column_of;   /* [n_items of the state]; STATE_NONE: not in the file */
	uint32_t *row_of;      /* [n_users of the state] */
	uint32_t n_users;
};

/* Row or column numbers of the file by the state's indexes. */
static int map_ids(struct torch_reader *reader, const char *name, uint64_t n, uint32_t (*find)(const struct state *, int64_t), const struct state *state,
                   uint32_t n_wanted, uint32_t **ret_map, char *errstr, size_t errstr_size)
{
	const struct torch_tensor *tensor;
	const void *ids = NULL;
	int rc = torch_reader_find_tensor(reader, name, &tensor, errstr, errstr_size);

	if (!rc && (tensor->dtype != TORCH_I64 || tensor->n_dims != 1 || tensor->shape[0] != n)) {
		snprintf(errstr, errstr_size, "tensor '%s' does not fit 'chance'", name);
		rc = -EBADMSG;
	}
	if (!rc)
		rc = torch_reader_map(reader, tensor, &ids, errstr, errstr_size);
	if (rc)
		return rc;
	uint32_t *map = malloc((n_wanted + 1u) * sizeof(*map));
	if (!map) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_wanted; i++)
		map[i] = STATE_NONE;
	for (uint64_t i = 0; i < n; i++) {
		uint32_t at = find(state, ((const int64_t *)ids)[i]);

		if (at < n_wanted)
			map[at] = (uint32_t)i;
	}
	*ret_map = map;
	return 0;
}

static int open_chance(struct oracle_scores *oracle, const struct state *state, char *errstr, size_t errstr_size)
{
	const struct torch_tensor *chance;
	const void *data = NULL;
	int rc = torch_reader_find_tensor(oracle->reader, "chance", &chance, errstr, errstr_size);

	if (!rc && (chance->dtype != TORCH_F32 || chance->n_dims != 2 || chance->shape[0] >= STATE_NONE || chance->shape[1] >= STATE_NONE)) {
		snprintf(errstr, errstr_size, "tensor 'chance' is not float32 [users, items]");
		rc = -EBADMSG;
	}
	if (!rc)
		rc = torch_reader_map(oracle->reader, chance, &data, errstr, errstr_size);
	if (rc)
		return rc;
	oracle->chance = data;
	oracle->n_columns = (uint32_t)chance->shape[1];
	oracle->n_users = state_n_users(state);
	oracle->n_items = state_n_items(state);
	rc = map_ids(oracle->reader, "user_ids", chance->shape[0], state_find_user, state, oracle->n_users, &oracle->row_of, errstr, errstr_size);
	if (!rc)
		rc = map_ids(oracle->reader, "item_ids", chance->shape[1], state_find_item, state, oracle->n_items, &oracle->column_of, errstr, errstr_size);
	return rc;
}

int oracle_scores_open(const char *path, const struct state *state, struct oracle_scores **ret_oracle, char *errstr, size_t errstr_size)
{
	struct oracle_scores *oracle = calloc(1, sizeof(*oracle));
	char text[512] = "out of memory";
	int rc = oracle ? torch_reader_open(AT_FDCWD, path, TORCH_FOLLOW_LINK, &oracle->reader, text, sizeof(text)) : -ENOMEM;

	if (!rc)
		rc = open_chance(oracle, state, text, sizeof(text));
	if (rc) {
		snprintf(errstr, errstr_size, "%s: %s", path, text);
		oracle_scores_close(oracle);
		return rc;
	}
	*ret_oracle = oracle;
	return 0;
}

void oracle_scores_close(struct oracle_scores *oracle)
{
	if (!oracle)
		return;
	torch_reader_close(oracle->reader);
	free(oracle->column_of);
	free(oracle->row_of);
	free(oracle);
}

void oracle_score(void *ctx, uint32_t user, float *scores)
{
	const struct oracle_scores *oracle = ctx;
	uint32_t row = user < oracle->n_users ? oracle->row_of[user] : STATE_NONE;

	for (uint32_t i = 0; i < oracle->n_items; i++) {
		uint32_t column = oracle->column_of[i];

		scores[i] = row != STATE_NONE && column != STATE_NONE ? oracle->chance[(size_t)row * oracle->n_columns + column] : 0;
	}
}
