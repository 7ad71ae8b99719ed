/*
 * checkpoint_schema.h: the columns of state.pt, once, for the writer and the reader. Internal to trainer/model.
 *
 * Facts are stored by column: one tensor per field, users one after the other, and a [n_users + 1] tensor of where each user begins. The tables below say
 * which field of which struct a column holds, so that writing is a gather and reading a scatter over the same rows.
 */
#ifndef TRAINER_MODEL_CHECKPOINT_SCHEMA_H
#define TRAINER_MODEL_CHECKPOINT_SCHEMA_H

#include "trainer/model/checkpoint.h"
#include "trainer/model/torch_file.h"

#define CHECKPOINT_FORMAT "recd-state"
#define CHECKPOINT_VERSION 1
#define CHECKPOINT_CUT_MAX 160

#define FILE_GLOBAL "model_bpr.pt"
#define FILE_PERSONALIZED "model_bpr_personalized.pt"
#define FILE_STATE "state.pt"
#define FILE_INITIALISED "INITIALISED"

enum fact_kind { FACT_WATCH, FACT_TOUCH, FACT_IMPRESSION, FACT_KIND_COUNT };

/* One field of a fact as a column. width: bytes of the field in the struct (2 is widened to int32). */
struct fact_column {
	const char *name;
	enum fact_kind kind;
	enum torch_dtype dtype;
	uint16_t offset;
	uint16_t width;
};
extern const struct fact_column fact_columns[];
extern const size_t n_fact_columns;

struct fact_group {
	const char *starts; /* name of the [n_users + 1] int64 tensor */
	size_t size;        /* bytes of the struct */
};
extern const struct fact_group fact_groups[FACT_KIND_COUNT];

/* A named 64- or 32-bit integer field of a plain struct. */
struct int_field {
	const char *name;
	uint16_t offset;
	uint16_t width;
};
extern const struct int_field position_fields[]; /* of struct source_position, refusals included */
extern const size_t n_position_fields;
extern const struct int_field counter_fields[]; /* of struct state_counters */
extern const size_t n_counter_fields;
extern const struct int_field progress_fields[]; /* of struct learner_progress */
extern const size_t n_progress_fields;

int64_t int_field_get(const struct int_field *field, const void *base);
void int_field_set(const struct int_field *field, void *base, int64_t value);

/* Facts of a kind in a user's facts. */
const void *user_facts_of(const struct user_facts *facts, enum fact_kind kind, uint32_t *ret_n);

#endif
