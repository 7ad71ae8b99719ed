/*
 * config.h: the configuration as the daemon uses it. config.c fills it from one option table, from which docs/CONFIGURATION.md is generated.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/quality.h"
#include "ingest/source.h"
#include "trainer/learn/learn.h"
#include "trainer/learn/personalize.h"
#include "trainer/state/state.h"

struct config_stream {
	char **files; /* glob patterns; n_files 0: none */
	size_t n_files;
	int from_end;
	char *topic; /* Kafka topic, beside the files or instead of them; NULL: none */
};

struct config_partitions {
	char *text;                     /* "all" or "0-3,8" */
	struct partition_range *ranges; /* [n_ranges]; n_ranges 0: all */
	size_t n_ranges;
};

/* Values may be secrets: never logged, never in an error. */
struct config_properties {
	struct kafka_property *properties; /* [n] */
	size_t n;
};

/* Where Kafka is, for the streams that have a topic. */
struct config_kafka {
	char *brokers;                       /* kafka.brokers; NULL: none */
	char *group;                         /* kafka.group */
	struct config_partitions partitions; /* kafka.partitions, of every topic */
	int accept_gaps;                     /* kafka.on_gap: 0 refuse, 1 accept */
	struct config_properties properties; /* kafka.properties (secret) */
	uint32_t metadata_interval_ms;       /* kafka.metadata_interval_ms */
};

enum on_device_loss { ON_DEVICE_LOSS_REBUILD, ON_DEVICE_LOSS_CPU, ON_DEVICE_LOSS_EXIT };

/* Keys in comments; group.key as in recd.conf. (r): may change at a reload. */
struct config {
	char *path;                            /* where it was read from */
	char *data_dir;                        /* data_dir, default /var/lib/recd */
	char *log_level;                       /* log.level (r): error warn info debug */
	char *log_format;                      /* log.format: plain json */
	struct config_stream streams[STREAM_COUNT]; /* sources.<stream name>.{files, topic, from}; neither files nor topic: not configured */
	struct config_kafka kafka;
	struct decode_limits limits;           /* sources.line_bytes_max, sources.depth_max */
	uint32_t stat_interval_ms;             /* sources.stat_interval_ms */
	uint32_t queue_batches;                /* sources.queue_batches: batches a stream's queue holds; default 16 */
	uint64_t dead_letter_bytes_max;        /* sources.dead_letter_bytes_max; default 64 MiB */
	struct state_config state;             /* state.{users_max, items_max, impressions_max}; row_bytes and hash_seed are set by the engine */
	struct state_rules rules;              /* state.{min_pos_completion, negative_after_sec} (r) */
	char *backend;                         /* training.backend: auto cpu cuda */
	int32_t on_device_loss;                /* training.on_device_loss (r): enum on_device_loss */
	uint32_t device_pause_ms;              /* training.device_pause_ms (r): before a lost device is first opened again; default 1000 */
	uint32_t device_timeout_ms;            /* training.device_timeout_ms (r): a job that takes longer means that the device hangs; default 10000 */
	int training_enabled;                  /* training.enabled (r) */
	struct learn_options learn;            /* training.{emb_dim, seed, threads, deterministic, batch_size, optimizer, learning_rate (r), reg_user (r) ...} */
	struct weight_rule weights;            /* training.{weight_completion, half_life_days}; default 0, 0: all positives weigh the same */
	uint32_t slice_ms;                     /* training.slice_ms (r): longest training slice; default 25 */
	float rate_floor;                      /* training.rate_floor (r): share of the learning rate while nothing is new; default 0.033 */
	float cool_passes;                     /* training.cool_passes (r): passes in which what is new cools by a factor e; 0: the rate is constant; default 15 */
	uint32_t idle_passes;                  /* training.idle_passes (r): passes without a new positive until training rests; default 50 */
	uint32_t publish_interval_ms;          /* training.publish_interval_ms (r): default 200 */
	double publish_share_max;              /* training.publish_share_max (r): publishing takes at most this share of time; default 0.1 */
	struct personalize_options personalize; /* personalize.{steps, batch, learning_rate, reg} (r) */
	uint32_t personalize_min_positives;    /* personalize.min_positives (r); default 3 */
	uint32_t personal_max_age_sec;         /* personalize.max_age_sec (r); default 3600 */
	float intercept_prior_weight;          /* personalize.intercept_prior_weight (r); default 8 */
	struct quality_options quality;        /* quality.{enabled (r), share (r), k (r), window, cpu_share_max (r)} */
	uint32_t checkpoint_interval_sec;      /* checkpoint.interval_sec (r); default 300; 0: only on demand and at stop */
	uint32_t checkpoint_keep;              /* checkpoint.keep (r); 3..1000, default 3 */
	uint64_t cut_copy_bytes_max;           /* checkpoint.copy_bytes_max (r); default 512 MiB: applying waits above it */
	char *socket_path;                     /* server.socket; default /run/recd/recd.sock */
	uint32_t clients_max;                  /* server.clients_max; default 64 */
	uint32_t request_timeout_sec;          /* server.request_timeout_sec; default 10 */
};

/* Defaults, without any file. */
void config_default(struct config *config);
void config_free(struct config *config);
/*
 * Reads a file over the defaults (not named config_read: libconfig has that symbol). 0, or -EINVAL / -errno with "file:line: key: reason" in errstr.
 * ret_config is set up even for a failed read (free it).
 */
int config_load(const char *path, struct config *ret_config, char *errstr, size_t errstr_size);
/* Takes over the reloadable values of `fresh` into `config`. Values that differ and are not reloadable are listed in ret_ignored ("" when none). */
void config_reload(struct config *config, const struct config *fresh, char *ret_ignored, size_t ret_ignored_size);
/* Markdown of the option table (docs/CONFIGURATION.md), to stdout. */
void config_describe(void);

#endif
