/*
 * engine_internal.h: the engine's own structure, shared by the engine_*.c files only.
 *
 * engine.c             life, the loop, requests from other threads
 * engine_apply.c       batches into the state, positions, what changed into the learner
 * engine_fold.c        fold-in of touched users, intercepts
 * engine_refresh.c     old personal rows fitted again: one by one, or many at once on the device
 * engine_train.c       slices, publishing, rolling back
 * engine_device.c      the device that trains: its loss, who takes its place, its facts
 * engine_rate.c        the learning rate, which follows the news
 * engine_quality.c     new positives for live quality, before they are learnt from
 * engine_checkpoint.c  starting, writing (its own thread) and finishing checkpoints; snapshots
 * engine_status.c      the picture for other threads
 */
#ifndef DAEMON_ENGINE_INTERNAL_H
#define DAEMON_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "daemon/engine.h"
#include "daemon/gap_histogram.h"
#include "daemon/user_list.h"

#define ENGINE_LARGE_PUBLISH_US 10000 /* a publish that takes longer than this gets a turn of its own */
#define INTERCEPT_SAMPLE 4096u
#define INTERCEPT_PER_USER 32u
#define FOLD_ITEMS_MAX 4096u

/* Scores and labels of recent fold-ins, for the global intercept. */
struct intercept_sample {
	float scores[INTERCEPT_SAMPLE];
	struct decided_impression decided[INTERCEPT_SAMPLE];
	float zeros[INTERCEPT_SAMPLE];
	uint32_t n, next;
};

struct engine_fold {
	struct user_list waiting; /* users with new positives, latest first */
	struct user_list news;    /* users with other news, which moves only their intercept; the longest waiting first */
	size_t news_round;        /* so many at the front of `news` belong to the round under way */
	int64_t news_round_us;    /* when it began */
	struct user_list late;    /* fitted without something that the generation did not know yet; wait for the next one */
	struct user_list rows;    /* users with a personal row, oldest fit first */
	struct personalize_scratch scratch;
	uint32_t *items;          /* [capacity] positives of one user */
	struct decided_impression *decided;
	size_t capacity;
	struct intercept_sample sample;
	float intercept;          /* the global one */
	float *bu;                /* [bu_capacity] global intercepts of the users */
	uint32_t bu_capacity;
	uint32_t n_bu;            /* users with an entry */
	uint64_t folded_in, refreshed;
};

#define REFRESH_USERS_MAX 1024u

/* Users whose rows are fitted together on a device; allocated when the first batch is made. */
struct engine_refresh {
	uint32_t users[REFRESH_USERS_MAX];
	int all[REFRESH_USERS_MAX], rcs[REFRESH_USERS_MAX];
	uint64_t offsets[REFRESH_USERS_MAX + 1], seeds[REFRESH_USERS_MAX];
	uint32_t *positives;      /* [capacity] */
	size_t capacity;
	float *starts, *rows;     /* [REFRESH_USERS_MAX, dim] */
	uint32_t n_wanted;        /* so many take about the budget, as measured */
	uint32_t slow;            /* smallest batches in a row that took far too long */
	int64_t pause_until_us;   /* after a batch that was refused, or slow ones: one by one until then */
};

struct engine_training {
	uint64_t news_passes;     /* passes when the last new positive came */
	double heat;              /* 0..1: how much of what is known is new (engine_rate.c) */
	uint64_t trained_since;   /* triples since the last publish */
	uint32_t threads;         /* of the CPU that train (train_report) */
	int resting;
	int in_flight;            /* a job runs on the device; its report has not been taken */
	int draining;             /* no further job: a publish waits for the one in flight */
	double loss;
	int64_t published_us;     /* when, and how long the last publish took */
	int64_t publish_cost_us;
	uint64_t next_number;     /* number of the next generation when it is not just the next one (recovery); 0 */
	uint64_t model_generation; /* generation at which V last changed */
	int dirty;                /* something to publish that is not training: new rows, intercepts */
	uint64_t rollbacks;
	char trouble[160];        /* why the last rollback happened */
};

struct engine_device {
	const struct backend_ops *wanted; /* what trains in good times; NULL: the CPU */
	int lost;                 /* the CPU stands in */
	uint32_t tries;           /* to open it again, in a row */
	int64_t retry_us;         /* when the next one is; 0: none is planned */
	int64_t since_us;         /* trains since */
	uint64_t losses, rebuilds;
	int64_t lost_us;
	char trouble[256], reason[256], leave[256];
	struct device_facts facts;
	int64_t facts_us;         /* when they were asked for; 0: ask */
};

struct engine_checkpoint {
	int running;              /* a writer thread exists */
	pthread_t thread;
	atomic_int done;
	struct checkpoint_cut cut;
	struct checkpoint_progress progress;
	uint32_t keep;            /* copied: a reload may change the setting while the writer runs */
	struct checkpoint_result result, last;
	int rc;
	int apart;                /* large tables were published for the cut that the next turn makes */
	int dead_letter_bad;      /* its fsync failed: the file is opened anew before the next one */
	char errstr[256], last_error[256];
	int64_t started_us, durable_us; /* durable_us 0: none yet in this run */
	uint64_t covers;          /* snapshot requests this one answers */
	uint64_t failures;
	struct source_position *positions; /* copy for the cut */
	const char **surfaces;
	uint64_t bad[CHECKPOINT_BAD_MAX];
	size_t n_bad;
	uint32_t number;          /* last durable */
};

struct engine_rates {
	int64_t at_us;
	uint64_t triples, lines;
	double triples_per_sec, lines_per_sec;
};

struct engine {
	struct config config;     /* own copy of the scalar settings; strings stay the caller's */
	int data_dir_fd;
	struct queue_set *queues;
	struct state *state;
	struct learner *learner;
	struct publisher *publisher;
	struct quality *quality;
	struct dead_letter *dead_letter;
	uint64_t dead_letter_base; /* dropped before this run */
	uint64_t dead_letter_failures;
	struct source_position *positions;
	size_t n_positions, positions_capacity;
	int64_t clock_base_us, clock_start_us;
	uint64_t lines;           /* applied since the start */
	int64_t turn_us;          /* when the last turn had applied its lines */
	int64_t bulk_until_us;    /* until then a log is being caught up with */
	uint64_t heartbeat;
	int64_t last_apply_us, gap_window_us;
	struct gap_histogram gaps, gaps_before; /* of this half minute and the one before */
	struct gap_histogram gaps_checkpoint;   /* while a checkpoint was written, since the start */
	struct engine_fold fold;
	struct engine_refresh *refresh; /* NULL: no batch was made yet */
	struct engine_training training;
	struct engine_device device;
	struct engine_checkpoint checkpoint;
	struct engine_rates rates;
	int64_t status_us;
	void (*durable)(void *ctx, const struct source_position *positions, size_t n_positions); /* see engine_on_durable(); NULL: nobody asks */
	void *durable_ctx;
	char skipped[1024];       /* damaged checkpoints that recovery passed over */

	/* from other threads */
	pthread_t thread;
	int started;
	atomic_int stop;           /* 1: stop with a checkpoint, 2: without */
	atomic_int ended;
	int end_fd;
	int fatal;
	char fatal_text[512];
	pthread_mutex_t mutex;     /* everything below */
	pthread_cond_t changed;
	struct engine_status status;
	struct source_position *told; /* [n_told] copy of positions, as old as the status */
	size_t n_told, told_capacity;
	struct query_options query;
	uint64_t snapshot_wanted, snapshot_done;
	int snapshot_rc;
	struct checkpoint_result snapshot_result;
	char snapshot_error[256];
	int has_fresh;
	struct config fresh;
	int forget_wanted, forget_lift, forget_rc;
	uint64_t forget_ticket, forget_done;
	int64_t forget_user;
};

/* Opens the dead-letter file, cut to `length` (-1: as it is). The old one, if any, is closed; on failure it stays. */
int engine_open_dead_letter(struct engine *engine, int64_t length, char *errstr, size_t errstr_size);
int64_t engine_mono_us(void);
/* Now plus timeout_ms, for pthread_cond_timedwait() on the monotonic clock. */
struct timespec engine_deadline(int timeout_ms);
/* How long the model has lived over all runs; microseconds, never steps back; [any]. */
int64_t engine_model_clock_us(const struct engine *engine);

/* Applies what waits, at most `budget_us`; returns batches applied (one more while derived facts wait) or -errno (fatal). */
int engine_apply(struct engine *engine, int64_t budget_us);
/* 1: the users copied ahead of the checkpoint's writer hold all the memory they may. Nothing changes users until it has caught up. */
int engine_cut_is_behind(const struct engine *engine);
/* Hands what changed in the state to the learner and the fold-in list. */
int engine_take_changes(struct engine *engine, int recent);
/* Gives the learner new positives with their weights; all of them anew, when some are positives no more. 0 or -ENOMEM. */
int engine_add_positives(struct engine *engine, const struct user_item *pairs, size_t n, int recent);
int engine_rebuild_positives(struct engine *engine);

int engine_fold_open(struct engine *engine);
void engine_fold_close(struct engine *engine);
int engine_fold_grow(struct engine *engine);
/* News of a user that moves his intercept; a new positive of his, which changes what he is recommended: he goes first. The user has a place (engine_fold_grow). */
void engine_fold_news(struct engine *engine, uint32_t user);
void engine_fold_positive(struct engine *engine, uint32_t user);
/* Folds waiting users in for about `budget_us`, at least one unless it is below 50. Returns users folded in. */
int engine_fold_in(struct engine *engine, int64_t budget_us);
/*
 * The steps of a fit against generation g, whose rows the user is in. begin: the user's facts and the positives that g knows, in fold.items; *ret_all 0: there
 * is more than g knows. end: intercepts, and the row when `fitted` is not NULL (else it is taken away). fit: all of it; again=0: a row that was fitted on these
 * positives keeps its vector.
 */
size_t engine_fold_begin(struct engine *engine, uint32_t user, const struct generation *g, struct user_facts *ret_facts, int *ret_all);
void engine_fold_end(struct engine *engine, const struct user_facts *facts, const struct generation *g, const float *fitted, size_t n_positives, int all);
void engine_fold_fit(struct engine *engine, uint32_t user, const struct generation *g, int again);
uint64_t engine_fold_seed(const struct engine *engine, uint32_t user);
/* The candidates for negatives that g knows; returns how many. */
uint32_t engine_fold_candidates(const struct engine *engine, const struct generation *g, const uint32_t **ret_candidates);
void engine_refresh_close(struct engine *engine);
/* Fits old personal rows again, oldest first, for about `budget_us`. Returns rows that were seen to. */
int engine_refresh(struct engine *engine, int64_t budget_us);
/* After a publish: users whose fit was waiting for it. */
void engine_fold_published(struct engine *engine);
/* Fits the global intercept anew from the sample. */
void engine_fit_intercept(struct engine *engine);
/* Lists the users whose row was not fitted on as many positives as they have: after a change of settings. */
void engine_fold_settings_changed(struct engine *engine);
/* Lists the personal rows of a recovered state by age. */
int engine_fold_recover(struct engine *engine, const struct tables *tables);

/* One training slice; returns triples trained. On a device: takes the report of the job in flight when it has ended and begins the next. */
uint64_t engine_train_slice(struct engine *engine);
/* Between two batches or users, so that a device does not wait for the end of a long turn: the same when a job was in flight, else nothing. */
void engine_train_keep(struct engine *engine);
/* Looks whether the job in flight has ended, and takes its report; triples it trained. Never waits. */
uint64_t engine_train_poll(struct engine *engine);
/* Publishes when due (or when `force`); 1 published, 0 not now. While a job is in flight: 0, and no other is begun, so that the turn after it publishes. */
int engine_publish(struct engine *engine, int force);

/* New positives came in; triples were trained; positives and progress came from a checkpoint; the rate of the next job. */
void engine_rate_news(struct engine *engine, size_t n_positives);
void engine_rate_cool(struct engine *engine, uint64_t triples);
void engine_rate_recover(struct engine *engine);
float engine_rate(const struct engine *engine);

/* Offers the sampled new positives of a batch that was just applied. Before engine_take_changes(): nothing has learnt from them yet. */
void engine_quality_look(struct engine *engine, const struct event_batch *batch);
/* Notes popularity in a generation that is about to be published. */
void engine_quality_publish(struct engine *engine, struct generation *g);

/* Chooses the backend and makes the learner. 0 or -errno with errstr. */
int engine_device_open(struct engine *engine, char *errstr, size_t errstr_size);
/*
 * Before the first generation is published: a device that has failed already is replaced by the CPU, with the parameters of `copy` (NULL: none); with backend =
 * "cuda" that is an error. 0 or -errno with errstr.
 */
int engine_device_start(struct engine *engine, const struct tables *copy, char *errstr, size_t errstr_size);
/* Each turn: a device that has failed is replaced by the CPU; one that is to come back is opened again when it is time. 0, or -errno (fatal): nobody can take over. */
int engine_device_step(struct engine *engine);
/* Waits for the job in flight, at most training.device_timeout_ms; then it is given up. */
void engine_device_quiesce(struct engine *engine);
void engine_device_status(struct engine *engine, struct engine_status *s);

/* Starts a checkpoint when due or asked for, finishes a written one. Returns 1 when it made a cut, which is long enough for one turn. */
int engine_checkpoint_step(struct engine *engine);
void engine_checkpoint_last(struct engine *engine); /* at stop */
void engine_checkpoint_close(struct engine *engine);

void engine_status_refresh(struct engine *engine, const char *phase);
void engine_status_tick(struct engine *engine);

#endif
