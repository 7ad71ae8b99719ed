/*
 * config_table.c: every option of recd.conf, once. A new option is one entry here and one field in struct config.
 *
 * Constant data and the three small functions that know how a value looks in text. The order is the order of docs/CONFIGURATION.md and conf/recd.conf;
 * options of one group stand together. After a change run the unit test with RECD_UPDATE=1: it writes both files anew.
 */
#include "daemon/config_table.h"

#include <inttypes.h>
#include <string.h>

#define FIELD(f) offsetof(struct config, f)
#define RELOAD OPTION_RELOADABLE
#define MIB 1048576.0
#define GIB 1073741824.0

/* What every stream can say. */
#define STREAM(index, name, pattern, text)                                                                                                                   \
	{"sources." name ".files", OPTION_GLOBS, 0, FIELD(streams[index]), 0, 0, NULL, NULL, NULL, "[\"/var/log/cinema/" pattern "\"]",                       \
	 text " Absolute paths or patterns (* ? [a-z]); new files that match are picked up while recd runs."},                                               \
	{"sources." name ".topic", OPTION_TOPIC, 0, FIELD(streams[index].topic), 0, 0, NULL, NULL, NULL, "\"" name "\"",                                     \
	 "Kafka topic of this stream, beside files or instead of them. Needs kafka.brokers; each record's value is one JSON line."},                          \
	{                                                                                                                                                     \
		"sources." name ".from", OPTION_CHOICE_INDEX, 0, FIELD(streams[index].from_end), 0, 0, "start", "start end", NULL, NULL,                      \
			"Where a file or partition that recd has never seen begins at the first start. One that appears later is always read from its start."       \
	}

const struct option_group config_groups[] = {
	{"log", "Log lines go to stderr (the journal, under systemd)."},
	{"sources", "Where the logs come from: JSON Lines files and Kafka topics, a group for each stream. watch_stats is required, the rest is optional."},
	{"sources.watch_stats", "Watches: the positives."},
	{"sources.impressions", "What was shown: honest negatives and the position it was shown at."},
	{"sources.events", "Clicks, plays, likes and dislikes, ratings."},
	{"sources.catalogue", "Titles, genres and durations of the items."},
	{"sources.users", "Synthetic data and debugging only; never trained on."},
	{"kafka", "Kafka, for the streams that have a topic. recd reads each partition from the position in its own checkpoint; it takes no part in group rebalances."},
	{"state", "What is remembered of users and items."},
	{"training", "The global model (BPR). Trained in short slices between the lines that come in."},
	{"personalize", "Personal rows: a user's own vector, fitted on his own history with the item tables frozen."},
	{"quality", "Live quality: a share of new positives is ranked before it is learnt from, and the figures stand in recctl status and /metrics."},
	{"checkpoint", "Snapshots of models, histories and source positions in data_dir/checkpoints."},
	{"server", "HTTP over a unix socket: recctl, curl, Prometheus."},
};
const size_t config_groups_count = sizeof(config_groups) / sizeof(config_groups[0]);

const struct option config_options[] = {
	{"data_dir", OPTION_PATH, 0, FIELD(data_dir), 0, 0, "/var/lib/recd", NULL, NULL, NULL,
	 "Holds the models, the checkpoints and the dead-letter file. One daemon a directory."},

	{"log.level", OPTION_CHOICE, RELOAD, FIELD(log_level), 0, 0, "info", "error warn info debug", NULL, NULL,
	 "Lines of this level and more serious ones are written."},
	{"log.format", OPTION_CHOICE, 0, FIELD(log_format), 0, 0, "plain", "plain json", NULL, NULL, "Plain text, or one JSON object a line."},

	STREAM(STREAM_WATCHES, "watch_stats", "watch_stats*.jsonl", "Files of watches."),
	STREAM(STREAM_IMPRESSIONS, "impressions", "impressions*.jsonl", "Files of impressions."),
	STREAM(STREAM_EVENTS, "events", "events*.jsonl", "Files of events."),
	STREAM(STREAM_CATALOGUE, "catalogue", "items*.jsonl", "Files of catalogue entries."),
	STREAM(STREAM_USERS, "users", "users*.jsonl", "Files of user descriptions."),
	{"sources.line_bytes_max", OPTION_U32, 0, FIELD(limits.line_bytes_max), 1024, MIB, "1048576", NULL, "bytes", NULL,
	 "Longer lines are refused and counted."},
	{"sources.depth_max", OPTION_U32, 0, FIELD(limits.depth_max), 4, 256, "32", NULL, NULL, NULL, "JSON nested deeper is refused and counted."},
	{"sources.stat_interval_ms", OPTION_U32, 0, FIELD(stat_interval_ms), 10, 60000, "1000", NULL, "ms", NULL,
	 "How often files are looked at besides inotify's messages."},
	{"sources.queue_batches", OPTION_U32, 0, FIELD(queue_batches), 2, 1024, "16", NULL, "batches", NULL,
	 "Batches (up to 4096 lines each) that wait for the engine, per stream. A full queue pauses its source."},
	{"sources.dead_letter_bytes_max", OPTION_U64, 0, FIELD(dead_letter_bytes_max), 0, 1024 * GIB, "67108864", NULL, "bytes", NULL,
	 "Size limit of data_dir/dead-letter.jsonl. Refused lines above it are counted, not kept."},

	{"kafka.brokers", OPTION_STRING, 0, FIELD(kafka.brokers), 0, 0, NULL, NULL, NULL, "\"localhost:9092\"",
	 "Brokers to begin with, HOST:PORT,HOST:PORT. They need not be there when recd starts."},
	{"kafka.group", OPTION_STRING, 0, FIELD(kafka.group), 0, 0, "recd", NULL, NULL, NULL,
	 "Group under which recd commits positions after each durable checkpoint, for monitoring. It never reads them back. Two recd that read the same partitions need two names."},
	{"kafka.partitions", OPTION_PARTITIONS, 0, FIELD(kafka.partitions), 0, 0, "all", NULL, NULL, NULL,
	 "Partitions of every topic that this recd reads. all takes in partitions that are added later."},
	{"kafka.on_gap", OPTION_CHOICE_INDEX, 0, FIELD(kafka.accept_gaps), 0, 0, "refuse", "refuse accept", NULL, NULL,
	 "What to do when records were deleted before recd read them, or a topic is not the one it was: refuse stops with a last checkpoint and exit code 3; "
	 "accept counts a gap and goes on with what there is."},
	{"kafka.properties", OPTION_PROPERTIES, OPTION_SECRET, FIELD(kafka.properties), 0, 0, NULL, NULL, NULL,
	 "[\"security.protocol=SASL_SSL\", \"sasl.mechanism=SCRAM-SHA-512\", \"sasl.username=recd\", \"sasl.password=...\"]",
	 "Settings of librdkafka, each a string NAME=VALUE, because their names hold dots, which names in this file cannot. They win over recd's own, but for "
	 "those that its promises stand on. With a password here, let only recd's user read this file."},
	{"kafka.metadata_interval_ms", OPTION_U32, 0, FIELD(kafka.metadata_interval_ms), 100, 3600000, "30000", NULL, "ms", NULL,
	 "How often new partitions are looked for."},

	{"state.users_max", OPTION_U32, 0, FIELD(state.users_max), 1, 200e6, "2000000", NULL, "users", NULL,
	 "Users above this number are dropped and counted. recd's promise that no line is lost ends there."},
	{"state.items_max", OPTION_U32, 0, FIELD(state.items_max), 1, 100e6, "500000", NULL, "items", NULL,
	 "Items above this number are dropped and counted."},
	{"state.impressions_max", OPTION_U32, 0, FIELD(state.impressions_max), 1, 1024, "64", NULL, "impressions", NULL,
	 "Latest impressions kept for each user. Fixed for a data directory once it exists."},
	{"state.min_pos_completion", OPTION_FLOAT, RELOAD, FIELD(rules.min_pos_completion), 0, 1, "0.6", NULL, NULL, NULL,
	 "A watch with at least this completion is a positive."},
	{"state.negative_after_sec", OPTION_SECONDS, RELOAD, FIELD(rules.negative_after_us), 0, 31536000, "1800", NULL, "s", NULL,
	 "An impression without a reaction counts as skipped once it is this old."},

	{"training.enabled", OPTION_BOOL, RELOAD, FIELD(training_enabled), 0, 0, "true", NULL, NULL, NULL,
	 "false: only histories and personal rows are kept up to date."},
	{"training.backend", OPTION_CHOICE, 0, FIELD(backend), 0, 0, "auto", "auto cpu cuda", NULL, NULL,
	 "auto takes the GPU where there is one. cuda makes a missing GPU an error."},
	{"training.on_device_loss", OPTION_CHOICE_INDEX, RELOAD, FIELD(on_device_loss), 0, 0, "rebuild", "rebuild cpu exit", NULL, NULL,
	 "When the GPU fails or runs out of memory, the CPU takes over at once. Then: rebuild opens the GPU again, at most 8 times in a row with growing pauses; cpu "
	 "leaves it at that until a restart; exit stops recd with a last checkpoint and exit code 1."},
	{"training.device_pause_ms", OPTION_U32, RELOAD, FIELD(device_pause_ms), 1, 3600000, "1000", NULL, "ms", NULL,
	 "Before a lost GPU is opened again; twice as long after each try."},
	{"training.device_timeout_ms", OPTION_U32, RELOAD, FIELD(device_timeout_ms), 100, 3600000, "10000", NULL, "ms", NULL,
	 "A training job on the GPU that has not come back after this long counts as a lost GPU. Jobs are about training.slice_ms long."},
	{"training.precision", OPTION_CHOICE_INDEX, 0, FIELD(learn.precision), 0, 0, "fp32", "fp32 bf16", NULL, NULL,
	 "How the GPU stores its working tables. bf16 halves them; arithmetic and checkpoints stay fp32. The CPU always uses fp32."},
	{"training.emb_dim", OPTION_U32, 0, FIELD(learn.emb_dim), 1, 512, "64", NULL, NULL, NULL,
	 "Length of a user's and an item's vector. Fixed for a data directory once it exists."},
	{"training.seed", OPTION_U64, 0, FIELD(learn.seed), 0, 9007199254740991.0, "42", NULL, NULL, NULL, "Seed of everything random."},
	{"training.threads", OPTION_U32, 0, FIELD(learn.threads), 1, 256, "2", NULL, "threads", NULL, "CPU threads that train, at most: fewer do while fewer get more done, as where their processors share no cache."},
	{"training.deterministic", OPTION_BOOL, 0, FIELD(learn.deterministic), 0, 0, "false", NULL, NULL, NULL,
	 "Synchronous batches: slower, bit-identical for the same lines in the same order."},
	{"training.batch_size", OPTION_U32, 0, FIELD(learn.batch_size), 1, 1048576, "2048", NULL, "triples", NULL, "Triples of one step; at most 65536 when deterministic."},
	{"training.optimizer", OPTION_CHOICE_INDEX, 0, FIELD(learn.optimizer), 0, 0, "sgd", "sgd adagrad", NULL, NULL,
	 "sgd: plain gradient steps. adagrad keeps one sum a row; it wants a rate of about 0.02."},
	{"training.loss", OPTION_CHOICE_INDEX, 0, FIELD(learn.loss), 0, 0, "bpr", "bpr bce", NULL, NULL,
	 "bpr: rank each positive above its negative. bce: predict label 1 for the positive and 0 for the negative, each by itself."},
	{"training.weight_completion", OPTION_DOUBLE, 0, FIELD(weights.completion_power), 0, 10, "0", NULL, NULL, NULL,
	 "Positives weigh completion to this power; their mean weight stays 1. 0: all the same."},
	{"training.half_life_days", OPTION_DOUBLE, 0, FIELD(weights.half_life_days), 0, 100000, "0", NULL, "days", NULL,
	 "A positive this much older than another one weighs half. 0: age does not count."},
	{"training.learning_rate", OPTION_FLOAT, RELOAD, FIELD(learn.learning_rate), 1e-6, 10, "0.3", NULL, NULL, NULL,
	 "The rate while much of what is known is new: it follows the news."},
	{"training.rate_floor", OPTION_FLOAT, RELOAD, FIELD(rate_floor), 0, 1, "0.033", NULL, NULL, NULL,
	 "Share of the learning rate while nothing is new."},
	{"training.cool_passes", OPTION_FLOAT, RELOAD, FIELD(cool_passes), 0, 1e6, "15", NULL, "passes", NULL,
	 "Passes over the positives in which what is new cools down by a factor of 2.7; 0: the rate is constant."},
	{"training.reg_user", OPTION_FLOAT, RELOAD, FIELD(learn.reg_user), 0, 10, "0.03", NULL, NULL, NULL, "L2 weight of the user's vector."},
	{"training.reg_pos", OPTION_FLOAT, RELOAD, FIELD(learn.reg_pos), 0, 10, "0.03", NULL, NULL, NULL, "L2 weight of the positive item's vector."},
	{"training.reg_neg", OPTION_FLOAT, RELOAD, FIELD(learn.reg_neg), 0, 10, "0.03", NULL, NULL, NULL, "L2 weight of the negative item's vector."},
	{"training.reg_bias", OPTION_FLOAT, RELOAD, FIELD(learn.reg_bias), 0, 10, "0.03", NULL, NULL, NULL, "L2 weight of the item biases."},
	{"training.adagrad_forget", OPTION_FLOAT, RELOAD, FIELD(learn.adagrad_forget), 0, 1, "0.04", NULL, NULL, NULL,
	 "Share of the Adagrad sums forgotten in each pass over the positives; 0: never."},
	{"training.init_scale", OPTION_FLOAT, 0, FIELD(learn.init_scale), 0, 100, "1", NULL, NULL, NULL,
	 "New rows begin as uniform(-0.5, 0.5) x init_scale / emb_dim."},
	{"training.skip_share", OPTION_FLOAT, RELOAD, FIELD(learn.skip_share), 0, 1, "0", NULL, NULL, NULL,
	 "Share of negatives taken from what was shown to the user and skipped; the rest is uniform."},
	{"training.popular_share", OPTION_FLOAT, RELOAD, FIELD(learn.popular_share), 0, 1, "0", NULL, NULL, NULL,
	 "Share of negatives drawn in proportion to (positives of the item) ^ training.popular_power. All shares together are at most 1; the rest is uniform."},
	{"training.popular_power", OPTION_FLOAT, RELOAD, FIELD(learn.popular_power), 0, 2, "0.5", NULL, NULL, NULL, "See training.popular_share."},
	{"training.hard_share", OPTION_FLOAT, RELOAD, FIELD(learn.hard_share), 0, 1, "1", NULL, NULL, NULL,
	 "Share of negatives that are the highest scored of training.hard_of uniform candidates: better lists for more work a triple. "
	 "When not given, it leaves room for the other two shares."},
	{"training.hard_of", OPTION_U32, RELOAD, FIELD(learn.hard_of), 1, 64, "2", NULL, "candidates", NULL, "See training.hard_share."},
	{"training.recent_passes", OPTION_U32, RELOAD, FIELD(learn.recent_passes), 0, 1000, "10", NULL, "passes", NULL,
	 "Times each new positive is trained on soon after it came; 0: none."},
	{"training.recent_share", OPTION_FLOAT, RELOAD, FIELD(learn.recent_share), 0, 1, "0.25", NULL, NULL, NULL,
	 "Share of the triples given to recent positives while some wait."},
	{"training.step_norm_max", OPTION_FLOAT, RELOAD, FIELD(learn.step_norm_max), 1e-6, 1000, "1", NULL, NULL, NULL,
	 "A row moves at most this far in one step: the guard against divergence."},
	{"training.slice_ms", OPTION_U32, RELOAD, FIELD(slice_ms), 1, 1000, "25", NULL, "ms", NULL,
	 "Longest training slice; lines that come in wait no longer than this for it."},
	{"training.idle_passes", OPTION_U32, RELOAD, FIELD(idle_passes), 1, 1000000, "50", NULL, "passes", NULL,
	 "Training rests after so many passes over the positives without a new one."},
	{"training.publish_interval_ms", OPTION_U32, RELOAD, FIELD(publish_interval_ms), 10, 3600000, "200", NULL, "ms", NULL,
	 "How often a new generation of the model is published."},
	{"training.publish_share_max", OPTION_DOUBLE, RELOAD, FIELD(publish_share_max), 0.001, 1, "0.1", NULL, NULL, NULL,
	 "Publishing takes at most this share of the engine's time; large models are published less often."},

	{"personalize.steps", OPTION_U32, RELOAD, FIELD(personalize.steps), 1, 100000, "300", NULL, "steps", NULL, "Gradient steps of one fit."},
	{"personalize.batch", OPTION_U32, RELOAD, FIELD(personalize.batch), 1, 65536, "32", NULL, "triples", NULL, "Triples of that user in a step."},
	{"personalize.learning_rate", OPTION_FLOAT, RELOAD, FIELD(personalize.learning_rate), 1e-6, 10, "0.05", NULL, NULL, NULL,
	 "Falls linearly to 0 over the steps."},
	{"personalize.reg", OPTION_FLOAT, RELOAD, FIELD(personalize.reg), 0, 10, "0.1", NULL, NULL, NULL,
	 "L2 weight that holds the personal row near the global one."},
	{"personalize.min_positives", OPTION_U32, RELOAD, FIELD(personalize_min_positives), 1, 1000000, "3", NULL, "positives", NULL,
	 "Users with fewer positives are served the global row."},
	{"personalize.max_age_sec", OPTION_U32, RELOAD, FIELD(personal_max_age_sec), 1, 31536000, "3600", NULL, "s", NULL,
	 "A personal row older than this is not served any more (the global row is); rows are fitted again before, oldest first."},
	{"personalize.intercept_prior_weight", OPTION_FLOAT, RELOAD, FIELD(intercept_prior_weight), 0, 1e6, "8", NULL, "impressions", NULL,
	 "How many impressions the prior of a user's intercept weighs. The intercept moves conf, never the order."},

	{"quality.enabled", OPTION_BOOL, RELOAD, FIELD(quality.enabled), 0, 0, "true", NULL, NULL, NULL, "false: nothing is ranked."},
	{"quality.share", OPTION_FLOAT, RELOAD, FIELD(quality.share), 0, 1, "0.1", NULL, NULL, NULL,
	 "Share of the new positives that is ranked, chosen by a hash of user and item (and training.seed): the same ones on every run."},
	{"quality.k", OPTION_U32, RELOAD, FIELD(quality.k), 1, 100000, "50", NULL, "items", NULL, "K of hit rate and NDCG."},
	{"quality.window", OPTION_U32, 0, FIELD(quality.window), 1, 10000000, "2000", NULL, "positives", NULL,
	 "Figures are means over so many positives, the last ones ranked."},
	{"quality.cpu_share_max", OPTION_DOUBLE, RELOAD, FIELD(quality.cpu_share_max), 0.001, 1, "0.05", NULL, NULL, NULL,
	 "Share of one core that ranking may take; what does not fit is left out and counted."},

	{"checkpoint.interval_sec", OPTION_U32, RELOAD, FIELD(checkpoint_interval_sec), 0, 86400, "300", NULL, "s", NULL,
	 "0: only on demand (recctl snapshot) and at stop."},
	{"checkpoint.keep", OPTION_U32, RELOAD, FIELD(checkpoint_keep), 3, 1000, "3", NULL, "checkpoints", NULL, "Older ones are deleted."},
	{"checkpoint.copy_bytes_max", OPTION_U64, RELOAD, FIELD(cut_copy_bytes_max), MIB, 1024 * GIB, "536870912", NULL, "bytes", NULL,
	 "Memory for users that change while a checkpoint is written. Applying waits above it."},

	{"server.socket", OPTION_PATH, 0, FIELD(socket_path), 0, 0, "/run/recd/recd.sock", NULL, NULL, NULL,
	 "The unix socket, mode 0660: who may connect may ask and command."},
	{"server.clients_max", OPTION_U32, 0, FIELD(clients_max), 1, 1024, "64", NULL, "clients", NULL,
	 "Connections at one time. More wait; a client that does not finish its request makes room for them."},
	{"server.request_timeout_sec", OPTION_U32, 0, FIELD(request_timeout_sec), 1, 600, "10", NULL, "s", NULL,
	 "A client must have sent its request, and must have taken its answer, within this time."},
};
const size_t config_options_count = sizeof(config_options) / sizeof(config_options[0]);

static const void *field(const struct option *option, const struct config *config)
{
	return (const char *)config + option->offset;
}

static void globs_text(const struct config_stream *stream, char *ret_text, size_t size)
{
	int n = 0;

	*ret_text = 0;
	for (size_t i = 0; i < stream->n_files && n >= 0 && (size_t)n < size; i++)
		n += snprintf(ret_text + n, size - (size_t)n, "%s\"%s\"%s", i ? ", " : "[", stream->files[i], i + 1 == stream->n_files ? "]" : "");
}

/* Names only: any value may be a secret. */
static void properties_text(const struct config_properties *properties, char *ret_text, size_t size)
{
	int n = 0;

	*ret_text = 0;
	for (size_t i = 0; i < properties->n && n >= 0 && (size_t)n < size; i++)
		n += snprintf(ret_text + n, size - (size_t)n, "%s\"%s=***\"%s", i ? ", " : "[", properties->properties[i].name, i + 1 == properties->n ? "]" : "");
}

/* Word number `index` of the choices. */
static void choice_text(const char *choices, int index, char *ret_text, size_t size)
{
	for (; index > 0 && strchr(choices, ' '); index--)
		choices = strchr(choices, ' ') + 1;
	snprintf(ret_text, size, "\"%.*s\"", (int)strcspn(choices, " "), choices);
}

void config_value_text(const struct option *option, const struct config *config, char *ret_text, size_t size)
{
	const void *at = field(option, config);

	switch (option->type) {
	case OPTION_STRING:
	case OPTION_PATH:
	case OPTION_CHOICE:
	case OPTION_TOPIC:
		if (*(char *const *)at)
			snprintf(ret_text, size, "\"%s\"", *(char *const *)at);
		else
			*ret_text = 0;
		break;
	case OPTION_PARTITIONS:
		snprintf(ret_text, size, "\"%s\"", ((const struct config_partitions *)at)->text);
		break;
	case OPTION_PROPERTIES:
		properties_text(at, ret_text, size);
		break;
	case OPTION_CHOICE_INDEX:
		choice_text(option->choices, *(const int32_t *)at, ret_text, size);
		break;
	case OPTION_BOOL:
		snprintf(ret_text, size, "%s", *(const int *)at ? "true" : "false");
		break;
	case OPTION_U32:
		snprintf(ret_text, size, "%" PRIu32, *(const uint32_t *)at);
		break;
	case OPTION_U64:
		snprintf(ret_text, size, "%" PRIu64, *(const uint64_t *)at);
		break;
	case OPTION_FLOAT:
		snprintf(ret_text, size, "%g", (double)*(const float *)at);
		break;
	case OPTION_DOUBLE:
		snprintf(ret_text, size, "%g", *(const double *)at);
		break;
	case OPTION_SECONDS:
		snprintf(ret_text, size, "%" PRId64, *(const int64_t *)at / 1000000);
		break;
	case OPTION_GLOBS:
		globs_text(at, ret_text, size);
		break;
	}
}

void config_option_expects(const struct option *option, char *ret_text, size_t size)
{
	char choices[128] = "";
	size_t n = 0;

	for (const char *at = option->choices; at && *at && n + 3 < sizeof(choices); at++) {
		if (*at == ' ')
			choices[n++] = ',';
		choices[n++] = *at;
	}
	switch (option->type) {
	case OPTION_STRING:
		snprintf(ret_text, size, "a string");
		break;
	case OPTION_TOPIC:
		snprintf(ret_text, size, "a topic's name, such as %s", option->example);
		break;
	case OPTION_PARTITIONS:
		snprintf(ret_text, size, "\"all\", or partitions and ranges such as \"0-3,8\"");
		break;
	case OPTION_PROPERTIES:
		snprintf(ret_text, size, "a list of strings NAME=VALUE");
		break;
	case OPTION_PATH:
		snprintf(ret_text, size, "a path that begins with /");
		break;
	case OPTION_CHOICE:
	case OPTION_CHOICE_INDEX:
		snprintf(ret_text, size, "one of %s", choices);
		break;
	case OPTION_BOOL:
		snprintf(ret_text, size, "true or false");
		break;
	case OPTION_U32:
	case OPTION_U64:
	case OPTION_SECONDS:
		snprintf(ret_text, size, "a whole number, %.0f to %.0f", option->min, option->max);
		break;
	case OPTION_FLOAT:
	case OPTION_DOUBLE:
		snprintf(ret_text, size, "a number, %.15g to %.15g", option->min, option->max);
		break;
	case OPTION_GLOBS:
		snprintf(ret_text, size, "a list of paths or patterns that begin with /, such as %s", option->example);
		break;
	}
}

static int globs_equal(const struct config_stream *x, const struct config_stream *y)
{
	if (x->n_files != y->n_files)
		return 0;
	for (size_t i = 0; i < x->n_files; i++)
		if (strcmp(x->files[i], y->files[i]) != 0)
			return 0;
	return 1;
}

static int properties_equal(const struct config_properties *x, const struct config_properties *y)
{
	if (x->n != y->n)
		return 0;
	for (size_t i = 0; i < x->n; i++)
		if (strcmp(x->properties[i].name, y->properties[i].name) != 0 || strcmp(x->properties[i].value, y->properties[i].value) != 0)
			return 0;
	return 1;
}

int config_option_equal(const struct option *option, const struct config *a, const struct config *b)
{
	const void *x = field(option, a);
	const void *y = field(option, b);
	char text_a[4200];
	char text_b[4200];

	if (option->type == OPTION_GLOBS)
		return globs_equal(x, y);
	if (option->type == OPTION_PROPERTIES)
		return properties_equal(x, y);
	if (option->type == OPTION_FLOAT)
		return memcmp(x, y, sizeof(float)) == 0;
	if (option->type == OPTION_DOUBLE)
		return memcmp(x, y, sizeof(double)) == 0;
	config_value_text(option, a, text_a, sizeof(text_a));
	config_value_text(option, b, text_b, sizeof(text_b));
	return strcmp(text_a, text_b) == 0;
}
