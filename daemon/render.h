/*
 * render.h: answers as JSON, the one renderer of the daemon's HTTP API and of recctl on files. Ids in all output are external ids.
 *
 * top      {"user_id", "served": "personalized"|"global"|"popularity", "generation", "fitted_positives": positives that the served personal
 *           row was fitted on (from a daemon, when one is served),
 *           "items": [{"rank", "item_id", "title", "release_year", "genres": [..], "score", "conf"}]}
 * explain  {"user_id", "served", "generation", "watched_count", "positive_count",
 *           "items": [as in top, and "nearest": [{"item_id", "title", "similarity"}]],
 *           "genres": [{"genre", "watched", "recommended"}]}                              shares; each column sums to 1, or to 0 when there is nothing
 * similar  {"item_id", "title", "release_year", "genres", "generation",
 *           "items": [{"rank", "item_id", "title", "release_year", "genres", "similarity"}]}
 * status   every field of struct engine_status under its own name, except: "counters" and "progress" are objects with the fields of their structs;
 *          digests are 32 hex digits; flags (ready, training_resting, checkpoint_running) are true or false; a time that never was is null;
 *          "quality" is {"enabled", "k", "window", "count", "models": {"personalized", "global", "popularity": {"hit_rate", "ndcg", "auc", "count"}},
 *          "ranked", "new_users", "left_out": {reason: count}, "cpu_us"}, figures null while nothing was ranked;
 *          "time_max" is time_max_us as ISO-8601; "positions" is an array of objects {"name", "offset", "device", "inode", "lines",
 *          "empty", "refused": {reason: count, only those not 0}, "unknown_types", "gaps", "gap_bytes", "holes", "duplicates", "resets", "last_time_us"};
 *          "positions_rest" is null, or one such object with the sums of the positions above ENGINE_POSITIONS_SHOWN;
 *          "sources": [{every field of struct source_status, degraded as true or false}];
 *          "partitions": [{every field of struct partition_view; what is not known is null}], Kafka's only.
 * A title that is not known is ""; a year that is not known is null. `title` may hold any characters: a terminal needs them cleaned first.
 *
 * Any thread; nothing is kept. Each function returns a new reference (json_decref), or NULL when out of memory. Dump with RENDER_FLAGS: nine digits bring a
 * float back exactly.
 */
#ifndef DAEMON_RENDER_H
#define DAEMON_RENDER_H

#include <jansson.h>

#include "daemon/engine.h"
#include "daemon/partitions.h"

#define RENDER_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(9))

/* `items` [n] as query_top() gave them; `user_id` need not be known to the state. */
json_t *render_top(const struct state *state, int64_t user_id, uint64_t generation, enum served served, uint32_t fitted_positives,
                   const struct ranked_item *items, size_t n);
json_t *render_explain(const struct state *state, int64_t user_id, uint64_t generation, const struct explanation *explanation);
/* `items` [n]: score holds the similarity. */
json_t *render_similar(const struct state *state, uint32_t item, uint64_t generation, const struct ranked_item *items, size_t n);
json_t *render_status(const struct engine_status *status, const struct source_status *sources, size_t n_sources, const struct partition_view *partitions,
                      size_t n_partitions);

/* 32 hex digits and a NUL: the high half first. */
void render_digest(struct state_digest digest, char out[33]);

#endif
