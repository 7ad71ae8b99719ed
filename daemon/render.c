/*
 * render.c: answers as JSON with jansson; render.h has the shapes. The daemon's HTTP threads call it, and recctl on files.
 *
 * Any thread; keeps nothing. Every value goes through put(), which remembers a failure in one flag, so that a row of fields needs no check each:
 * the object is thrown away at the end when the flag is set.
 */
#include "daemon/render.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/decode.h"

/* An object or array under construction; `failed` once any step has failed. */
struct draft {
	json_t *json;
	int failed;
};

static struct draft draft_object(void)
{
	json_t *json = json_object();

	return (struct draft){ json, !json };
}

static json_t *draft_end(struct draft *draft)
{
	if (draft->failed) {
		json_decref(draft->json);
		return NULL;
	}
	return draft->json;
}

/* Takes over `value`. */
static void put(struct draft *draft, const char *key, json_t *value)
{
	if (json_object_set_new(draft->json, key, value))
		draft->failed = 1;
}

static void put_int(struct draft *draft, const char *key, int64_t value)
{
	put(draft, key, json_integer(value));
}

/* Counters end far below 2^63. */
static void put_uint(struct draft *draft, const char *key, uint64_t value)
{
	put(draft, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

/* What is no finite number becomes null: JSON has no name for it. */
static void put_real(struct draft *draft, const char *key, double value)
{
	put(draft, key, isfinite(value) ? json_real(value) : json_null());
}

static void put_bool(struct draft *draft, const char *key, int value)
{
	put(draft, key, json_boolean(value));
}

/* Text from a file or the system may hold bytes that are no UTF-8: they are replaced by '?', never dropped silently. */
static void put_text(struct draft *draft, const char *key, const char *text)
{
	json_t *value = json_string(text);

	if (!value) {
		size_t len = strlen(text);
		char *copy = strdup(text);

		for (size_t i = 0; copy && i < len; i++) {
			if ((unsigned char)copy[i] >= 0x80)
				copy[i] = '?';
		}
		value = copy ? json_string(copy) : NULL;
		free(copy);
	}
	put(draft, key, value);
}

static void put_time(struct draft *draft, const char *key, int64_t time_us)
{
	put(draft, key, time_us == STATE_TIME_NONE ? json_null() : json_integer(time_us));
}

/* Appends to the array under `key`, or fails the draft. Takes over `value`. */
static void append(struct draft *draft, json_t *array, json_t *value)
{
	if (json_array_append_new(array, value))
		draft->failed = 1;
}

/* A new empty array under `key`; NULL (and the draft failed) when out of memory. */
static json_t *put_array(struct draft *draft, const char *key)
{
	json_t *array = json_array();

	put(draft, key, array);
	return draft->failed ? NULL : array;
}

void render_digest(struct state_digest digest, char out[33])
{
	snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, digest.hi, digest.lo);
}

/* ---- top and explain ---- */

static json_t *render_genres(const struct item_title *title)
{
	json_t *array = json_array();

	for (uint32_t i = 0; array && i < title->n_genres; i++) {
		if (json_array_append_new(array, json_string(title->genres[i]))) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static void put_title(struct draft *draft, const struct state *state, uint32_t item)
{
	struct item_title title;

	item_title_get(state, item, &title);
	put_int(draft, "item_id", state_item_ids(state)[item]);
	put_text(draft, "title", title.title);
	put(draft, "release_year", title.release_year ? json_integer(title.release_year) : json_null());
	put(draft, "genres", render_genres(&title));
}

static struct draft draft_ranked(const struct state *state, const struct ranked_item *item, size_t rank)
{
	struct draft draft = draft_object();

	put_uint(&draft, "rank", rank);
	put_title(&draft, state, item->item);
	put_real(&draft, "score", (double)item->score);
	put_real(&draft, "conf", (double)item->conf);
	return draft;
}

static struct draft draft_answer(int64_t user_id, uint64_t generation, enum served served)
{
	struct draft draft = draft_object();

	put_int(&draft, "user_id", user_id);
	put_text(&draft, "served", served_name(served));
	put_uint(&draft, "generation", generation);
	return draft;
}

json_t *render_top(const struct state *state, int64_t user_id, uint64_t generation, enum served served, uint32_t fitted_positives,
                   const struct ranked_item *items, size_t n)
{
	struct draft answer = draft_answer(user_id, generation, served);
	json_t *array;

	if (fitted_positives > 0)
		put_uint(&answer, "fitted_positives", fitted_positives);
	array = put_array(&answer, "items");

	for (size_t i = 0; i < n && !answer.failed; i++) {
		struct draft item = draft_ranked(state, &items[i], i + 1);

		append(&answer, array, draft_end(&item));
	}
	return draft_end(&answer);
}

static json_t *render_explained(const struct state *state, const struct explained_item *explained, size_t rank)
{
	struct draft item = draft_ranked(state, &explained->ranked, rank);
	json_t *array = put_array(&item, "nearest");

	for (uint32_t i = 0; i < explained->n_nearest && !item.failed; i++) {
		struct draft near = draft_object();
		struct item_title title;

		item_title_get(state, explained->nearest[i].item, &title);
		put_int(&near, "item_id", state_item_ids(state)[explained->nearest[i].item]);
		put_text(&near, "title", title.title);
		put_real(&near, "similarity", (double)explained->nearest[i].similarity);
		append(&item, array, draft_end(&near));
	}
	return draft_end(&item);
}

json_t *render_explain(const struct state *state, int64_t user_id, uint64_t generation, const struct explanation *explanation)
{
	struct draft answer = draft_answer(user_id, generation, explanation->served);

	put_uint(&answer, "watched_count", explanation->watched_count);
	put_uint(&answer, "positive_count", explanation->positive_count);
	json_t *items = put_array(&answer, "items");
	for (size_t i = 0; i < explanation->n_items && !answer.failed; i++)
		append(&answer, items, render_explained(state, &explanation->items[i], i + 1));
	json_t *genres = put_array(&answer, "genres");
	for (size_t i = 0; i < explanation->n_genres && !answer.failed; i++) {
		struct draft share = draft_object();

		put_text(&share, "genre", explanation->genres[i].genre);
		put_real(&share, "watched", (double)explanation->genres[i].watched);
		put_real(&share, "recommended", (double)explanation->genres[i].recommended);
		append(&answer, genres, draft_end(&share));
	}
	return draft_end(&answer);
}

json_t *render_similar(const struct state *state, uint32_t item, uint64_t generation, const struct ranked_item *items, size_t n)
{
	struct draft answer = draft_object();

	put_title(&answer, state, item);
	put_uint(&answer, "generation", generation);
	json_t *array = put_array(&answer, "items");
	for (size_t i = 0; i < n && !answer.failed; i++) {
		struct draft similar = draft_object();

		put_uint(&similar, "rank", i + 1);
		put_title(&similar, state, items[i].item);
		put_real(&similar, "similarity", (double)items[i].score);
		append(&answer, array, draft_end(&similar));
	}
	return draft_end(&answer);
}

/* ---- status ---- */

static json_t *render_counters(const struct state_counters *counters)
{
	struct draft draft = draft_object(), applied = draft_object();

	for (int stream = 0; stream < STREAM_COUNT; stream++)
		put_uint(&applied, event_stream_name((enum event_stream)stream), counters->events_applied[stream]);
	put(&draft, "events_applied", draft_end(&applied));
	put_uint(&draft, "dropped_user_cap", counters->dropped_user_cap);
	put_uint(&draft, "dropped_item_cap", counters->dropped_item_cap);
	put_uint(&draft, "dropped_forgotten", counters->dropped_forgotten);
	put_uint(&draft, "surfaces_full", counters->surfaces_full);
	put_uint(&draft, "catalogue_entries", counters->catalogue_entries);
	return draft_end(&draft);
}

static json_t *render_progress(const struct learner_progress *progress)
{
	struct draft draft = draft_object();

	/* a seed uses all 64 bits: as text it stays exact for every reader */
	char seed[24];
	snprintf(seed, sizeof(seed), "%" PRIu64, progress->seed);
	put_text(&draft, "seed", seed);
	put_uint(&draft, "step", progress->step);
	put_uint(&draft, "triples", progress->triples);
	put_uint(&draft, "walk", progress->walk);
	put_uint(&draft, "passes", progress->passes);
	put_uint(&draft, "rollbacks", progress->rollbacks);
	return draft_end(&draft);
}

static json_t *render_position(const struct source_position *position)
{
	struct draft draft = draft_object(), refused = draft_object();

	put_text(&draft, "name", position->name);
	put_int(&draft, "offset", position->offset);
	put_uint(&draft, "device", position->device);
	put_uint(&draft, "inode", position->inode);
	put_uint(&draft, "lines", position->lines);
	put_uint(&draft, "empty", position->empty);
	for (int reason = 0; reason < REFUSAL_COUNT; reason++) {
		if (position->refused[reason])
			put_uint(&refused, refusal_name((enum refusal)reason), position->refused[reason]);
	}
	put(&draft, "refused", draft_end(&refused));
	put_uint(&draft, "unknown_types", position->unknown_types);
	put_uint(&draft, "gaps", position->gaps);
	put_uint(&draft, "gap_bytes", position->gap_bytes);
	put_uint(&draft, "holes", position->holes);
	put_uint(&draft, "duplicates", position->duplicates);
	put_uint(&draft, "resets", position->resets);
	put_time(&draft, "last_time_us", position->last_time_us);
	return draft_end(&draft);
}

/* What is not known becomes null. */
static void put_known(struct draft *draft, const char *key, int64_t value)
{
	put(draft, key, value < 0 ? json_null() : json_integer(value));
}

static json_t *render_partition(const struct partition_view *partition)
{
	struct draft draft = draft_object();

	put_text(&draft, "name", partition->name);
	put_int(&draft, "offset", partition->offset);
	put_known(&draft, "end", partition->end);
	put_known(&draft, "lag_records", partition->lag_records);
	put_known(&draft, "lag_time_us", partition->lag_time_us);
	put_known(&draft, "idle_us", partition->idle_us);
	put_known(&draft, "committed", partition->committed);
	put_uint(&draft, "gaps", partition->gaps);
	put_uint(&draft, "gap_records", partition->gap_records);
	put_uint(&draft, "holes", partition->holes);
	put_uint(&draft, "duplicates", partition->duplicates);
	return draft_end(&draft);
}

static json_t *render_source(const struct source_status *source)
{
	struct draft draft = draft_object();

	put_text(&draft, "name", source->name);
	put_uint(&draft, "partitions", source->partitions);
	put_int(&draft, "lag_bytes", source->lag_bytes);
	put_int(&draft, "lag_records", source->lag_records);
	put_time(&draft, "last_time_us", source->last_time_us);
	put_uint(&draft, "heartbeat", source->heartbeat);
	put_bool(&draft, "degraded", source->degraded);
	put_text(&draft, "reason", source->reason);
	return draft_end(&draft);
}

static void put_digest(struct draft *draft, const char *key, struct state_digest digest)
{
	char text[33];

	render_digest(digest, text);
	put_text(draft, key, text);
}

/* What trains, as far as it is a device of its own; what became of it. */
static json_t *render_device(const struct engine_status *status)
{
	struct draft draft = draft_object();

	put_text(&draft, "name", status->device_name);
	put_text(&draft, "driver", status->device_driver);
	put_text(&draft, "cuda", status->device_cuda);
	put_text(&draft, "precision", status->precision);
	put_uint(&draft, "memory_bytes", status->device_memory_bytes);
	put_uint(&draft, "memory_used_bytes", status->device_memory_used_bytes);
	put_bool(&draft, "lost", status->device_lost);
	put_uint(&draft, "losses", status->device_losses);
	put_uint(&draft, "rebuilds", status->device_rebuilds);
	put(&draft, "lost_age_ms", status->device_lost_age_ms < 0 ? json_null() : json_integer(status->device_lost_age_ms));
	put_text(&draft, "trouble", status->device_trouble);
	return draft_end(&draft);
}

static void put_facts(struct draft *draft, const struct engine_status *status)
{
	char text[ISO8601_MAX] = "";

	put_uint(draft, "heartbeat", status->heartbeat);
	put_bool(draft, "ready", status->ready);
	put_text(draft, "phase", status->phase);
	put_text(draft, "backend", status->backend);
	put_text(draft, "backend_reason", status->backend_reason);
	put(draft, "device", render_device(status));
	put_uint(draft, "n_users", status->n_users);
	put_uint(draft, "n_items", status->n_items);
	put_uint(draft, "n_positives", status->n_positives);
	put(draft, "counters", render_counters(&status->counters));
	put_digest(draft, "histories_digest", status->histories_digest);
	put_digest(draft, "positions_digest", status->positions_digest);
	put_time(draft, "time_max_us", status->time_max_us);
	if (status->time_max_us >= 0)
		iso8601_format(status->time_max_us, text);
	put(draft, "time_max", text[0] ? json_string(text) : json_null());
}

static void put_training(struct draft *draft, const struct engine_status *status)
{
	put_uint(draft, "generation", status->generation);
	put_int(draft, "publish_age_ms", status->publish_age_ms);
	put(draft, "progress", render_progress(&status->progress));
	put_real(draft, "loss", status->loss);
	put_real(draft, "learning_rate", status->learning_rate);
	put_real(draft, "triples_per_sec", status->triples_per_sec);
	put_uint(draft, "training_threads", status->training_threads);
	put_real(draft, "apply_per_sec", status->apply_per_sec);
	put_bool(draft, "training_resting", status->training_resting);
	put_text(draft, "training_trouble", status->training_trouble);
	put_uint(draft, "folded_in", status->folded_in);
	put_uint(draft, "fold_in_waiting", status->fold_in_waiting);
	put_uint(draft, "personal_rows", status->personal_rows);
	put_uint(draft, "refreshed", status->refreshed);
}

static void put_keeping(struct draft *draft, const struct engine_status *status)
{
	put_uint(draft, "checkpoint_number", status->checkpoint_number);
	put_int(draft, "checkpoint_age_ms", status->checkpoint_age_ms);
	put_int(draft, "checkpoint_duration_ms", status->checkpoint_duration_ms);
	put_uint(draft, "checkpoint_bytes", status->checkpoint_bytes);
	put_uint(draft, "checkpoint_failures", status->checkpoint_failures);
	put_text(draft, "checkpoint_error", status->checkpoint_error);
	put_bool(draft, "checkpoint_running", status->checkpoint_running);
	put_uint(draft, "checkpoint_users_done", status->checkpoint_users_done);
	put_int(draft, "apply_gap_max_us", status->apply_gap_max_us);
	put_int(draft, "apply_gap_p999_us", status->apply_gap_p999_us);
	put_int(draft, "checkpoint_gap_p999_us", status->checkpoint_gap_p999_us);
	put_int(draft, "dead_letter_length", status->dead_letter_length);
	put_uint(draft, "dead_letter_dropped", status->dead_letter_dropped);
	put_uint(draft, "dead_letter_failures", status->dead_letter_failures);
	put_uint(draft, "memory_bytes", status->memory_bytes);
	put_int(draft, "model_clock_us", status->model_clock_us);
	put_uint(draft, "n_positions", status->n_positions);
}

static json_t *render_figures(const struct quality_figures *figures, uint32_t count)
{
	struct draft draft = draft_object();

	put_real(&draft, "hit_rate", figures->hit_rate);
	put_real(&draft, "ndcg", figures->ndcg);
	put_real(&draft, "auc", figures->auc);
	put_uint(&draft, "count", count);
	return draft_end(&draft);
}

static json_t *render_quality(const struct quality_status *quality)
{
	struct draft draft = draft_object(), models = draft_object(), left_out = draft_object();

	put_bool(&draft, "enabled", quality->enabled);
	put_uint(&draft, "k", quality->k);
	put_uint(&draft, "window", quality->window);
	put_uint(&draft, "count", quality->count);
	for (int m = 0; m < QUALITY_MODELS; m++)
		put(&models, quality_model_name((enum quality_model)m), render_figures(&quality->models[m], quality->count));
	put(&draft, "models", draft_end(&models));
	put_uint(&draft, "ranked", quality->ranked);
	put_uint(&draft, "new_users", quality->new_users);
	for (int why = 0; why < QUALITY_LEFT_OUT; why++)
		put_uint(&left_out, quality_left_out_name((enum quality_left_out)why), quality->left_out[why]);
	put(&draft, "left_out", draft_end(&left_out));
	put_int(&draft, "cpu_us", quality->cpu_us);
	return draft_end(&draft);
}

json_t *render_status(const struct engine_status *status, const struct source_status *sources, size_t n_sources, const struct partition_view *partitions,
                      size_t n_partitions)
{
	struct draft answer = draft_object();
	size_t n = status->n_positions < ENGINE_POSITIONS_SHOWN ? status->n_positions : ENGINE_POSITIONS_SHOWN;

	put_facts(&answer, status);
	put_training(&answer, status);
	put_keeping(&answer, status);
	put(&answer, "quality", render_quality(&status->quality));
	json_t *positions = put_array(&answer, "positions");
	for (size_t i = 0; i < n && !answer.failed; i++)
		append(&answer, positions, render_position(&status->positions[i]));
	put(&answer, "positions_rest", n < status->n_positions ? render_position(&status->positions_rest) : json_null());
	json_t *array = put_array(&answer, "sources");
	for (size_t i = 0; i < n_sources && !answer.failed; i++)
		append(&answer, array, render_source(&sources[i]));
	array = put_array(&answer, "partitions");
	for (size_t i = 0; i < n_partitions && !answer.failed; i++)
		append(&answer, array, render_partition(&partitions[i]));
	return draft_end(&answer);
}
