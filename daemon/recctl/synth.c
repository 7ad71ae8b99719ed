/*
 * synth.c: `recctl synth`, logs as an online cinema would make them, with known truth behind them.
 *
 * Main thread only. Reads the flags, builds the invented world (synth_model.c), lets its clock run (synth_timeline.c) into six files
 * (synth_output.c), and writes the true chances when asked (synth_oracle.c). Same flags, same bytes, on any machine. SIGINT and SIGTERM set a flag; the
 * temporary files are then removed.
 */
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"
#include "daemon/recctl/progress.h"
#include "daemon/recctl/synth_oracle.h"
#include "daemon/recctl/synth_timeline.h"
#include "ingest/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define LAST_DAY 2932894 /* 9999-12-29, in days since 1970-01-01: events may come two days after the last impression */

struct options {
	const char *out_dir, *oracle, *start;
	int64_t num_items, num_users, num_impressions, days;
	uint64_t seed;
	double min_pos_completion;
	int json;
};

static const struct flag flags[] = {
	{ .name = "out_dir", .type = FLAG_STRING, .offset = offsetof(struct options, out_dir), .fallback = "data", .placeholder = "DIR",
	  .help = "Where items, users, impressions, events, watch_stats and train_samples .jsonl go; made when absent. Files of these names are replaced." },
	{ .name = "num_items", .type = FLAG_INT, .offset = offsetof(struct options, num_items), .fallback = "10000", .min = 1, .max = 10000000,
	  .help = "Titles in the catalogue." },
	{ .name = "num_users", .type = FLAG_INT, .offset = offsetof(struct options, num_users), .fallback = "10", .min = 1, .max = 100000000, .help = "Users." },
	{ .name = "num_impressions", .type = FLAG_INT, .offset = offsetof(struct options, num_impressions), .fallback = "200000", .min = 0, .max = 1e12,
	  .help = "Impressions over all users. How many a user gets is drawn: the same for all on average, half of that up or down as standard deviation." },
	{ .name = "seed", .type = FLAG_UINT64, .offset = offsetof(struct options, seed), .fallback = "42",
	  .help = "The same seed and flags give the same bytes on any machine." },
	{ .name = "days", .type = FLAG_INT, .offset = offsetof(struct options, days), .fallback = "60", .min = 1, .max = 36500,
	  .help = "Days the logs span. At most 20,000,000 impressions a day." },
	{ .name = "start", .type = FLAG_STRING, .offset = offsetof(struct options, start), .fallback = "2025-12-10T12:00:00+00:00", .placeholder = "TIME",
	  .help = "First moment of the logs, ISO-8601 with offset." },
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, .offset = offsetof(struct options, min_pos_completion), .fallback = "0.6", .min = 0, .max = 1,
	  .help = "A watch at least this complete is a positive, in train_samples.jsonl and for the oracle." },
	{ .name = "oracle", .type = FLAG_STRING, .offset = offsetof(struct options, oracle), .placeholder = "FILE",
	  .help = "Also write each user's true chance of a new positive for each title, for judging only (a PyTorch file; 4 bytes a user and title)." },
	{ .name = "json", .type = FLAG_BOOL, .offset = offsetof(struct options, json), .help = "Print the summary as one JSON object." },
};

static const struct command_spec spec = {
	.name = "synth",
	.purpose = "writes synthetic logs of an online cinema, the same for the same seed",
	.flags = flags,
	.n_flags = sizeof(flags) / sizeof(flags[0]),
	.notes = "What is drawn:\n"
	         "  preferences      Dirichlet(0.3) over 18 genres; a title has 1 to 3 genres; its popularity is Zipf(1.0)\n"
	         "  taste            mean preference over the title's genres, divided by the user's largest\n"
	         "  shown            half by popularity, half in proportion to taste^2 * popularity^0.5\n"
	         "  click            chance 1/log2(position + 2) * (0.03 + 0.6 taste), positions 1 to 20 equally likely\n"
	         "  watch            a play_start after 70 % of clicks, then a watch; completion ~ Beta(mean 0.15 + 0.75 taste, concentration 4)\n"
	         "  opinion          a like after some watches with completion >= 0.6, a dislike after some below 0.3, a rating after 8 %\n"
	         "  train_samples    label 1: a watch complete enough; label 0: shown and not clicked\n"
	         "\n"
	         "Memory: about 75 bytes a title, 230 bytes a user and 5 MB; it does not grow with the number of impressions. What is pending (clicked, and\n"
	         "its watch or rating still to come) has a fixed place for 262,144, of which only what is used is touched.\n"
	         "Every file is in time order; a file appears under its name when all are complete.",
	.examples = "  recctl synth\n"
	            "  recctl synth --out_dir data --num_items 10000 --num_users 10 --num_impressions 200000 --seed 42\n"
	            "  recctl synth --num_users 2000 --num_items 5000 --num_impressions 2000000 --oracle oracle.pt",
};

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number)
{
	(void)signal_number;
	stop_asked = 1;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void print_summary(const struct options *options, const struct synth_counts *counts, double seconds)
{
	uint64_t events = counts->clicks + counts->play_starts + counts->likes + counts->dislikes + counts->rates;

	if (options->json) {
		printf("{\"items\":%" PRId64 ",\"users\":%" PRId64 ",\"impressions\":%" PRIu64 ",\"events\":%" PRIu64 ",\"clicks\":%" PRIu64 ",\"play_starts\":%" PRIu64
		       ",\"likes\":%" PRIu64 ",\"dislikes\":%" PRIu64 ",\"rates\":%" PRIu64 ",\"watch_stats\":%" PRIu64 ",\"positives\":%" PRIu64
		       ",\"train_samples\":%" PRIu64 ",\"pending_max\":%u,\"seed\":%" PRIu64 ",\"seconds\":%.3f}\n",
		       options->num_items, options->num_users, counts->impressions, events, counts->clicks, counts->play_starts, counts->likes, counts->dislikes,
		       counts->rates, counts->watches, counts->positives, counts->samples, counts->pending_max, options->seed, seconds);
		return;
	}
	printf("items          %12" PRId64 "\nusers          %12" PRId64 "\nimpressions    %12" PRIu64 "\n", options->num_items, options->num_users,
	       counts->impressions);
	printf("events         %12" PRIu64 "  clicks %" PRIu64 ", play starts %" PRIu64 ", likes %" PRIu64 ", dislikes %" PRIu64 ", ratings %" PRIu64 "\n", events,
	       counts->clicks, counts->play_starts, counts->likes, counts->dislikes, counts->rates);
	printf("watch_stats    %12" PRIu64 "  positives (completion >= %g) %" PRIu64 "\n", counts->watches, options->min_pos_completion, counts->positives);
	printf("train_samples  %12" PRIu64 "\nin %s, %.2f s\n", counts->samples, options->out_dir, seconds);
}

static int write_oracle(const struct options *options, const struct synth_model *model, char *errstr, size_t errstr_size)
{
	struct synth_oracle *oracle = NULL;
	struct progress progress;
	int rc = synth_oracle_new(model, options->min_pos_completion, &oracle);

	if (rc) {
		snprintf(errstr, errstr_size, "out of memory");
		return rc;
	}
	progress_begin(&progress, "oracle rows", (uint64_t)options->num_users);
	rc = synth_oracle_write(oracle, options->oracle, &progress, &stop_asked, errstr, errstr_size);
	progress_end(&progress);
	synth_oracle_free(oracle);
	return rc;
}

/* Fills a built world's logs and writes the oracle; files take their names at the end. */
static int write_logs(const struct options *options, const struct synth_model *model, const struct synth_plan *plan, struct synth_counts *ret_counts,
                      char *errstr, size_t errstr_size)
{
	struct synth_output *output = NULL;
	struct progress progress;
	int rc = synth_output_open(options->out_dir, &output, errstr, errstr_size);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < model->n_items; i++)
		synth_write_item(output, model, i);
	for (uint32_t u = 0; u < model->n_users; u++)
		synth_write_user(output, model, u);
	progress_begin(&progress, "impressions", plan->n_impressions);
	rc = synth_timeline_run(model, plan, output, &progress, &stop_asked, ret_counts);
	progress_end(&progress);
	if (!rc && options->oracle)
		rc = write_oracle(options, model, errstr, errstr_size);
	else if (rc == -ENOMEM)
		snprintf(errstr, errstr_size, "out of memory");
	else if (rc == -ENOBUFS)
		snprintf(errstr, errstr_size, "more than %u clicks are waiting for their watch at once; raise --days", SYNTH_PENDING_MAX);
	if (rc == -EINTR)
		snprintf(errstr, errstr_size, "stopped by a signal; nothing was changed");
	if (!rc || synth_output_error(output)) /* of a failed write finish has the text */
		rc = synth_output_finish(output, errstr, errstr_size);
	synth_output_free(output);
	return rc;
}

int command_synth(int argc, char **argv)
{
	struct options options;
	struct flag_words words;
	struct synth_counts counts;
	struct synth_model *model = NULL;
	char errstr[512] = "out of memory";
	double begin_s = now_s();
	int rc = flags_main(&spec, argc, argv, &options, &words);

	if (rc >= 0)
		return rc;
	struct synth_plan plan = { .n_impressions = (uint64_t)options.num_impressions, .days = options.days, .min_pos_completion = options.min_pos_completion };
	if (iso8601_parse(options.start, strlen(options.start), &plan.start_us) || plan.start_us < 0 ||
	    plan.start_us / 86400000000 + options.days > LAST_DAY) {
		fprintf(stderr, "recctl synth: --start: \"%.64s\" is not valid; allowed: ISO-8601 with offset, as 2025-12-10T12:00:00+00:00, from 1970 on, with all of "
		        "--days before 9999-12-30\n", options.start);
		return EXIT_USAGE;
	}
	if (options.num_impressions / options.days > SYNTH_IMPRESSIONS_PER_DAY_MAX) {
		fprintf(stderr, "recctl synth: --num_impressions: %" PRId64 " in %" PRId64 " days is more than %d a day; raise --days\n", options.num_impressions,
		        options.days, SYNTH_IMPRESSIONS_PER_DAY_MAX);
		return EXIT_USAGE;
	}
	struct sigaction action = { .sa_handler = ask_to_stop };
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	rc = synth_model_new(options.seed, (uint32_t)options.num_items, (uint32_t)options.num_users, &model);
	if (!rc)
		rc = write_logs(&options, model, &plan, &counts, errstr, sizeof(errstr));
	synth_model_free(model);
	if (rc) {
		fprintf(stderr, "recctl synth: %s\n", errstr);
		return EXIT_FAILED;
	}
	print_summary(&options, &counts, now_s() - begin_s);
	return EXIT_OK;
}
