/*
 * replay.c: `recctl replay`, historical JSONL into Kafka topics.
 *
 * Main thread: finds the files (replay_plan.c), merges their lines by event time (replay_merge.c), waits when a speed is asked for (replay_pace.c) and hands
 * them to an idempotent producer (replay_send.c); --resume reads back how far the topics have got (replay_tails.c) and holds that against the files
 * (replay_resume.c). librdkafka's own threads compress and send. SIGINT and SIGTERM set a counter: what is queued is then delivered, a second signal gives it up.
 */
#include "daemon/config.h"
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/replay_pace.h"
#include "daemon/recctl/replay_report.h"
#include "daemon/recctl/replay_resume.h"
#include "ingest/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
	const char *brokers, *config, *data_dir, *streams, *topics, *topic_prefix, *speed, *from, *to;
	double rate;
	struct flag_texts properties;
	int64_t partitions, replication;
	int compression, timestamps, create, resume, dry_run, json;
};

static const char *const compressions[] = { "none", "gzip", "snappy", "lz4", "zstd", NULL };
static const char *const timestamps[] = { "now", "event", NULL };

static const struct flag flags[] = {
	{ .name = "brokers", .type = FLAG_STRING, .offset = offsetof(struct options, brokers), .placeholder = "HOST:PORT,...",
	  .help = "Kafka brokers to begin with. Needed, but for --config or --dry_run." },
	{ .name = "config", .type = FLAG_STRING, .offset = offsetof(struct options, config), .placeholder = "FILE",
	  .help = "recd.conf: takes kafka.brokers, kafka.properties and the streams' topics from it; flags win. Streams without a topic there are not sent." },
	{ .name = "data_dir", .type = FLAG_STRING, .offset = offsetof(struct options, data_dir), .placeholder = "DIR",
	  .help = "A folder with impressions.jsonl, events.jsonl, watch_stats.jsonl, items.jsonl, users.jsonl, each also as NAME-*.jsonl or NAME.jsonl.N, plain, .gz "
	          "or .zst. Default: data, when no FILE is given." },
	{ .name = "streams", .type = FLAG_STRING, .offset = offsetof(struct options, streams), .placeholder = "LIST",
	  .help = "Only these: impressions, events, watch_stats, catalogue, users, separated by commas. Default: all that have files." },
	{ .name = "topics", .type = FLAG_STRING, .offset = offsetof(struct options, topics), .placeholder = "STREAM=TOPIC,...",
	  .help = "Topics that do not have the name of their stream." },
	{ .name = "topic_prefix", .type = FLAG_STRING, .offset = offsetof(struct options, topic_prefix), .placeholder = "TEXT",
	  .help = "What stands before a stream's name in its topic's name." },
	{ .name = "speed", .type = FLAG_STRING, .offset = offsetof(struct options, speed), .fallback = "max", .placeholder = "1x|60x|max",
	  .help = "Seconds of event time a second: 1x as it happened, 60x an hour a minute, max as fast as the brokers take it." },
	{ .name = "rate", .type = FLAG_FLOAT, .offset = offsetof(struct options, rate), .min = 0.001, .max = 1e9, .placeholder = "N",
	  .help = "Records a second, instead of --speed." },
	{ .name = "from", .type = FLAG_STRING, .offset = offsetof(struct options, from), .placeholder = "TIME",
	  .help = "Leave out what happened before this, ISO-8601 with offset. Catalogue and users have no time and are always sent." },
	{ .name = "to", .type = FLAG_STRING, .offset = offsetof(struct options, to), .placeholder = "TIME", .help = "Leave out what happened at this time or later." },
	{ .name = "create", .type = FLAG_BOOL, .offset = offsetof(struct options, create), .help = "Create topics that are missing. Those that exist stay as they are." },
	{ .name = "partitions", .type = FLAG_INT, .offset = offsetof(struct options, partitions), .fallback = "4", .min = 1, .max = 4096,
	  .help = "Partitions of a topic that is created." },
	{ .name = "replication", .type = FLAG_INT, .offset = offsetof(struct options, replication), .fallback = "1", .min = 1, .max = 100,
	  .help = "Replicas of a topic that is created." },
	{ .name = "compression", .type = FLAG_CHOICE, .offset = offsetof(struct options, compression), .fallback = "lz4", .choices = compressions,
	  .help = "Of the batches that are sent." },
	{ .name = "timestamps", .type = FLAG_CHOICE, .offset = offsetof(struct options, timestamps), .fallback = "now", .choices = timestamps,
	  .help = "Kafka's timestamp of a record: the time it is sent, or its event time. Retention by time counts from this timestamp: with event, a topic that "
	          "keeps a week deletes older history at once." },
	{ .name = "property", .type = FLAG_TEXTS, .offset = offsetof(struct options, properties), .placeholder = "NAME=VALUE",
	  .help = "A librdkafka property, e.g. security.protocol=SASL_SSL; may stand more than once. Values are never printed." },
	{ .name = "resume", .type = FLAG_BOOL, .offset = offsetof(struct options, resume),
	  .help = "Go on after an interruption: what the topics hold of this replay is not sent again. Give the same files, --from and --to." },
	{ .name = "dry_run", .type = FLAG_BOOL, .offset = offsetof(struct options, dry_run), .help = "Read everything, send nothing, say what would be sent." },
	{ .name = "json", .type = FLAG_BOOL, .offset = offsetof(struct options, json), .help = "Print the summary as one JSON object." },
};

static const struct command_spec spec = {
	.name = "replay",
	.purpose = "sends historical logs to Kafka topics in the order in which they happened",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.positionals = "[STREAM=]FILE...",
	.positionals_max = FLAG_WORDS_MAX,
	.notes = "Order: catalogue and users first, then all streams merged by event time. A line never overtakes an earlier one of its file.\n"
	         "A record: the line as value; as key user_id in decimal (catalogue: item_id), partitioned by murmur2 as Java clients do; a header recd-origin\n"
	         "with file, byte, length and a hash of the lines before it. The producer is idempotent, so that each line is in its topic once and in order\n"
	         "within a partition.\n"
	         "Bad lines are named (the first 10), counted and skipped. A damaged or cut-off compressed file ends the replay.\n"
	         "The first SIGINT or SIGTERM delivers what is queued; a second one gives that up. Either way, and after a crash, the same command with\n"
	         "--resume goes on exactly where each partition stands.",
	.examples = "  recctl replay --brokers 127.0.0.1:9092 --data_dir data --create --partitions 4\n"
	            "  recctl replay --brokers 127.0.0.1:9092 --data_dir data --resume\n"
	            "  recctl replay --config /etc/recd/recd.conf --data_dir /srv/history --from 2025-12-10T00:00:00Z\n"
	            "  recctl replay --brokers 127.0.0.1:9092 --speed 60x --from 2025-12-10T00:00:00Z --to 2025-12-11T00:00:00Z watch_stats=old/w.jsonl.zst",
	.exit_codes = "  1  also: stopped by a signal, or a record could not be delivered",
};

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number)
{
	(void)signal_number;
	stop_asked = stop_asked + 1;
}

struct replay {
	struct options options;
	struct replay_plan plan;
	struct replay_merge *merge;
	struct replay_sender *sender;
	struct replay_topic topics[STREAM_COUNT];
	struct config config;              /* of --config; empty without it */
	struct kafka_property *properties; /* [cluster.n_properties]: of the configuration (borrowed), then of the flags (owned) */
	struct replay_cluster cluster;
	struct replay_pace pace;
	struct replay_report report;
	struct replay_summary summary;
	int64_t from_us, to_us;
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* A time flag that may be absent. */
static int parse_time(const char *name, const char *text, int64_t *ret_us, char *errstr, size_t errstr_size)
{
	if (text && iso8601_parse(text, strlen(text), ret_us)) {
		snprintf(errstr, errstr_size, "--%s: \"%.64s\" is not valid; allowed: ISO-8601 with offset, as 2025-12-10T12:00:00+00:00", name, text);
		return -EINVAL;
	}
	return 0;
}

/* Those of recd.conf, then those of the flags, which win. */
static int gather_properties(struct replay *replay, char *errstr, size_t errstr_size)
{
	const struct flag_texts *texts = &replay->options.properties;
	size_t n = replay->config.kafka.properties.n;

	replay->properties = calloc(n + (size_t)texts->count + 1, sizeof(*replay->properties));
	if (!replay->properties) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		replay->properties[i] = replay->config.kafka.properties.properties[i];
	replay->cluster.n_properties = n;
	replay->cluster.properties = replay->properties;
	for (int i = 0; i < texts->count; i++) {
		if (kafka_property_parse(texts->texts[i], &replay->properties[replay->cluster.n_properties])) {
			snprintf(errstr, errstr_size, "--property: number %d is not NAME=VALUE", i + 1);
			return -EINVAL;
		}
		replay->cluster.n_properties++;
	}
	return 0;
}

/* recd.conf: brokers and properties. */
static int read_config(struct replay *replay, char *errstr, size_t errstr_size)
{
	int rc = replay->options.config ? config_load(replay->options.config, &replay->config, errstr, errstr_size) : 0;

	if (rc)
		return -EINVAL;
	replay->cluster.brokers = replay->options.brokers ? replay->options.brokers : replay->config.kafka.brokers;
	if (!replay->cluster.brokers && !replay->options.dry_run) {
		snprintf(errstr, errstr_size, "--brokers is missing: HOST:PORT of a Kafka broker, or --dry_run to send nothing%s",
		         replay->options.config ? " (the configuration has no kafka.brokers)" : "");
		return -EINVAL;
	}
	return gather_properties(replay, errstr, errstr_size);
}

/* Mistakes in the flags. 0, -EINVAL or -ENOMEM. */
static int check_options(struct replay *replay, const struct flag_words *words, char *errstr, size_t errstr_size)
{
	struct options *options = &replay->options;

	replay->from_us = INT64_MIN;
	replay->to_us = INT64_MAX;
	replay->pace.rate = options->rate;
	if (parse_time("from", options->from, &replay->from_us, errstr, errstr_size) || parse_time("to", options->to, &replay->to_us, errstr, errstr_size))
		return -EINVAL;
	if (replay->from_us >= replay->to_us)
		snprintf(errstr, errstr_size, "--from is not before --to; nothing lies between them");
	else if (replay_speed_parse(options->speed, &replay->pace.speed))
		snprintf(errstr, errstr_size, "--speed: \"%.64s\" is not valid; allowed: max, or a number from 0.001 to 1000000000 such as 1x or 60x", options->speed);
	else if (flags_given(&spec, words, "speed") && flags_given(&spec, words, "rate"))
		snprintf(errstr, errstr_size, "--speed and --rate exclude each other; give one");
	else if (!options->create && (flags_given(&spec, words, "partitions") || flags_given(&spec, words, "replication")))
		snprintf(errstr, errstr_size, "--partitions and --replication are for topics that are created; add --create");
	else
		return read_config(replay, errstr, errstr_size);
	return -EINVAL;
}

static int make_plan(struct replay *replay, const struct flag_words *words, char *errstr, size_t errstr_size)
{
	const struct options *options = &replay->options;
	const char *folder = options->data_dir ? options->data_dir : words->count ? NULL : "data";
	const char *configured[STREAM_COUNT];

	for (int stream = 0; stream < STREAM_COUNT; stream++)
		configured[stream] = replay->config.streams[stream].topic;
	int rc = replay_plan_begin(options->streams, options->topics, options->topic_prefix, options->config ? configured : NULL, &replay->plan, errstr, errstr_size);

	if (!rc && folder)
		rc = replay_plan_add_folder(&replay->plan, folder, errstr, errstr_size);
	for (int i = 0; !rc && i < words->count; i++)
		rc = replay_plan_add_file(&replay->plan, words->words[i], errstr, errstr_size);
	if (!rc && !replay->plan.n_inputs) {
		snprintf(errstr, errstr_size, "%s: no logs of the wanted streams; point --data_dir at a folder with logs, or make some: recctl synth --out_dir %s",
		         folder ? folder : "the files", folder ? folder : "data");
		rc = -ENOENT;
	}
	return rc ? rc : replay_plan_finish(&replay->plan, errstr, errstr_size);
}

static uint64_t bytes_of(const struct replay_plan *plan)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < plan->n_inputs; i++)
		bytes += plan->inputs[i].bytes;
	return bytes;
}

/* What the topics hold is what the files give. */
static int check_resume(struct replay *replay, char *errstr, size_t errstr_size)
{
	const struct replay_resume resume = { .merge = { .inputs = replay->plan.inputs, .n_inputs = replay->plan.n_inputs, .from_us = replay->from_us,
		                                         .to_us = replay->to_us },
		                              .sender = replay->sender, .topics = replay->topics, .stop = &stop_asked, .progress = &replay->report.progress };

	progress_begin(&replay->report.progress, "comparing, bytes of logs", bytes_of(&replay->plan));
	int rc = replay_resume_check(&resume, errstr, errstr_size);
	progress_end(&replay->report.progress);
	return rc;
}

/* The producer, the topics and, to resume, what they hold. */
static int connect_topics(struct replay *replay, char *errstr, size_t errstr_size)
{
	const struct options *options = &replay->options;
	const struct replay_sender_config config = { .cluster = &replay->cluster,
		                                     .compression = compressions[options->compression],
		                                     .event_timestamps = options->timestamps == 1,
		                                     .inputs = replay->plan.inputs,
		                                     .stop = &stop_asked,
		                                     .note = replay_report_note,
		                                     .ctx = &replay->report };
	const struct replay_create create = { .wanted = options->create, .n_partitions = (int32_t)options->partitions, .replication = (int32_t)options->replication };

	for (uint32_t i = 0; i < replay->plan.n_inputs; i++)
		replay->topics[replay->plan.inputs[i].stream].name = replay->plan.topics[replay->plan.inputs[i].stream];
	int rc = replay_sender_open(&config, &replay->sender, errstr, errstr_size);
	if (!rc)
		rc = replay_sender_connect(replay->sender, errstr, errstr_size);
	if (!rc)
		rc = replay_topics_find(replay_sender_handle(replay->sender), &replay->cluster, &create, replay->topics, errstr, errstr_size);
	if (!rc)
		rc = replay_sender_set_topics(replay->sender, replay->topics, errstr, errstr_size);
	for (int stream = 0; !rc && stream < STREAM_COUNT; stream++)
		replay->topics[stream].replay_id =
		        replay_plan_id(&replay->plan, (enum event_stream)stream, replay->from_us, replay->to_us, replay->topics[stream].n_partitions);
	if (!rc && options->resume)
		rc = replay_tails_read(&replay->cluster, &replay->plan, replay->topics, &stop_asked, errstr, errstr_size);
	if (!rc && options->resume)
		rc = check_resume(replay, errstr, errstr_size);
	return rc;
}

static void note_time(struct replay_summary *summary, const struct replay_record *record)
{
	if (record->time_us == INT64_MIN)
		return;
	if (record->time_us < summary->first_us[record->stream])
		summary->first_us[record->stream] = record->time_us;
	if (record->time_us > summary->last_us[record->stream])
		summary->last_us[record->stream] = record->time_us;
}

/* One record to its topic, when it is due. 0, -EINTR or what the sender says. */
static int send_one(struct replay *replay, const struct replay_record *record, char *errstr, size_t errstr_size)
{
	int paced = replay->pace.speed > 0 || replay->pace.rate > 0;
	int32_t partition;
	int64_t wait_us;

	if (replay_sender_present(replay->sender, record, &partition))
		return 0;
	while (paced && !stop_asked && (wait_us = replay_pace_wait_us(&replay->pace, record->order_us, now_us())) > 0)
		replay_sender_wait(replay->sender, wait_us > 1000000 ? 1000 : (int)((wait_us + 999) / 1000));
	int rc = replay_sender_send(replay->sender, record, partition, errstr, errstr_size);
	replay_pace_taken(&replay->pace);
	return rc;
}

/* All records. 0; -EINTR: stopped by a signal; other errors with errstr. */
static int run(struct replay *replay, char *errstr, size_t errstr_size)
{
	const struct replay_merge_config config = { .inputs = replay->plan.inputs, .n_inputs = replay->plan.n_inputs, .from_us = replay->from_us,
		                                    .to_us = replay->to_us, .refused = replay_report_refused, .ctx = &replay->report };
	struct replay_record record;
	uint64_t n = 0;
	int rc = replay_merge_open(&config, &replay->merge, errstr, errstr_size);

	if (rc)
		return rc;
	progress_begin(&replay->report.progress, "replay, bytes of logs", bytes_of(&replay->plan));
	while (!rc && (rc = replay_merge_next(replay->merge, &record, errstr, errstr_size)) > 0) {
		note_time(&replay->summary, &record);
		rc = replay->options.dry_run ? 0 : send_one(replay, &record, errstr, errstr_size);
		if (!rc && stop_asked)
			rc = -EINTR;
		if ((++n & 255) == 0)
			progress_update(&replay->report.progress, replay_merge_read_bytes(replay->merge));
	}
	progress_end(&replay->report.progress);
	return rc;
}

/* After run(): what is queued is delivered, the counts are exact. Returns the exit code. */
static int finish(struct replay *replay, int rc, char *errstr, size_t errstr_size)
{
	char flush_errstr[512];
	int lost = 0;

	if (replay->sender && replay->merge) {
		int outq = rd_kafka_outq_len(replay_sender_handle(replay->sender));

		if (rc == -EINTR)
			fprintf(stderr, "recctl replay: stopping; delivering %d records that are queued\n", outq);
		int flushed = replay_sender_flush(replay->sender, flush_errstr, sizeof(flush_errstr));
		if (flushed && (!rc || rc == -EINTR || rc == -EIO)) { /* by now the reason is known at its best */
			snprintf(errstr, errstr_size, "%s", flush_errstr);
			rc = flushed;
		}
	}
	for (int stream = 0; replay->sender && stream < STREAM_COUNT; stream++) {
		replay->summary.sent[stream] = *replay_sender_counts(replay->sender, (enum event_stream)stream);
		lost |= replay->summary.sent[stream].failed || replay->summary.sent[stream].too_large;
	}
	if (replay->merge) {
		replay->summary.merge = replay->merge;
		replay->summary.complete = !rc && !lost;
		replay_report_print(&replay->summary, replay->options.json);
	}
	if (replay->report.bad_lines)
		fprintf(stderr, "recctl replay: %" PRIu64 " bad lines skipped\n", replay->report.bad_lines);
	if (rc == -EINTR)
		fprintf(stderr, "recctl replay: stopped by a signal\n");
	else if (rc)
		fprintf(stderr, "recctl replay: %s\n", errstr);
	else if (lost)
		fprintf(stderr, "recctl replay: some records are larger than the brokers or message.max.bytes allow and were not sent\n");
	if (rc && replay->sender && replay->merge)
		fprintf(stderr, "recctl replay: to go on without duplicates, run the same command with --resume\n");
	return rc || lost ? EXIT_FAILED : EXIT_OK;
}

static void release(struct replay *replay)
{
	replay_sender_close(replay->sender);
	replay_topics_free(replay->topics);
	replay_merge_close(replay->merge);
	replay_plan_free(&replay->plan);
	for (size_t i = replay->config.kafka.properties.n; i < replay->cluster.n_properties; i++)
		kafka_property_clear(&replay->properties[i]);
	free(replay->properties);
	if (replay->options.config)
		config_free(&replay->config);
}

int command_replay(int argc, char **argv)
{
	struct replay replay = { 0 };
	struct flag_words words;
	char errstr[1024] = "out of memory";
	int64_t begin_us = now_us();
	int rc = flags_main(&spec, argc, argv, &replay.options, &words);

	if (rc >= 0)
		return rc;
	rc = check_options(&replay, &words, errstr, sizeof(errstr));
	if (rc) {
		fprintf(stderr, "recctl replay: %s\n", errstr);
		release(&replay);
		return EXIT_USAGE;
	}
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		replay.summary.first_us[stream] = INT64_MAX;
		replay.summary.last_us[stream] = INT64_MIN;
	}
	replay.summary.plan = &replay.plan;
	replay.summary.dry_run = replay.options.dry_run;
	struct sigaction action = { .sa_handler = ask_to_stop };
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	rc = make_plan(&replay, &words, errstr, sizeof(errstr));
	if (!rc && !replay.options.dry_run)
		rc = connect_topics(&replay, errstr, sizeof(errstr));
	if (!rc)
		rc = run(&replay, errstr, sizeof(errstr));
	replay.summary.seconds = (double)(now_us() - begin_us) * 1e-6;
	rc = finish(&replay, rc, errstr, sizeof(errstr));
	release(&replay);
	return rc;
}
