/*
 * synth_output.h: the six files of a synthetic log: buffered, written under temporary names, renamed together at the end. Lines are formatted by
 * hand, key by key in the documented order; nothing here decides what happens.
 */
#ifndef DAEMON_RECCTL_SYNTH_OUTPUT_H
#define DAEMON_RECCTL_SYNTH_OUTPUT_H

#include "daemon/recctl/synth_model.h"

#include <stddef.h>
#include <stdint.h>

enum synth_file { SYNTH_ITEMS, SYNTH_USERS, SYNTH_IMPRESSIONS, SYNTH_EVENTS, SYNTH_WATCHES, SYNTH_SAMPLES, SYNTH_FILE_COUNT };
enum synth_event { SYNTH_CLICK, SYNTH_PLAY_START, SYNTH_LIKE, SYNTH_DISLIKE, SYNTH_RATE };

#define SYNTH_SURFACES 4
#define SYNTH_DEVICES 4

/* One impression and all that comes of it. Times are UTC microseconds; lines show whole seconds. */
struct synth_visit {
	int64_t impression_id;
	int64_t shown_us, started_us, ended_us;
	uint32_t user, item, session;
	uint16_t completion_e4;  /* completion in 1/10,000, rounded down */
	uint16_t watch_time_sec;
	uint8_t surface, device, position; /* below SYNTH_SURFACES, below SYNTH_DEVICES, 1 to SYNTH_POSITIONS */
	uint8_t rating;                    /* 1 to 10 */
};

struct synth_output;

/* Creates `dir` when absent (its parents too) and six temporary files in it. 0 or -errno. */
int synth_output_open(const char *dir, struct synth_output **ret_output, char *errstr, size_t errstr_size);

/* Each appends one line. A failed write is kept and reported by synth_output_error() and synth_output_finish(). */
void synth_write_item(struct synth_output *output, const struct synth_model *model, uint32_t item);
void synth_write_user(struct synth_output *output, const struct synth_model *model, uint32_t user);
void synth_write_impression(struct synth_output *output, const struct synth_visit *visit);
void synth_write_event(struct synth_output *output, const struct synth_visit *visit, enum synth_event type, int64_t occurred_us);
void synth_write_watch(struct synth_output *output, const struct synth_visit *visit);
void synth_write_sample(struct synth_output *output, const struct synth_visit *visit, int label, int64_t time_us);

/* 0, or -errno of the first failed write. */
int synth_output_error(const struct synth_output *output);

/* Flushes, closes and renames. On failure nothing is renamed unless the rename itself failed half-way, which errstr says. */
int synth_output_finish(struct synth_output *output, char *errstr, size_t errstr_size);

/* Frees; removes the temporary files of an output that was not finished. Accepts NULL. */
void synth_output_free(struct synth_output *output);

#endif
