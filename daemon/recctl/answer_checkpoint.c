/*
 * answer_checkpoint.c: reads a checkpoint of recd to answer from: its tables, personal rows, histories and catalogue, by the loader that recd recovers with.
 *
 * Main thread of recctl. Nothing is written and no lock is taken: a generation never changes once it has its number, and one that a running recd prunes meanwhile is
 * looked for again (checkpoint_recover.c). What a setting decides (positives, whether a personal row serves) is not in a checkpoint; it comes from recd.conf,
 * or is recd's default. Ages of personal rows are measured up to the checkpoint's own instant, so that the answers are those of recd at that instant.
 */
#include "daemon/recctl/answer_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"

/* One line on stderr for each generation passed over. */
static void tell_skipped(const char *what, const char *skipped)
{
	while (*skipped) {
		size_t len = strcspn(skipped, "\n");

		fprintf(stderr, "recctl %s: damaged checkpoint passed over: %.*s\n", what, (int)len, skipped);
		skipped += len + (skipped[len] == '\n');
	}
}

/* One generation, or a data directory with some. */
static int load(const char *dir, const struct state_rules *rules, struct checkpoint_loaded *loaded, char *errstr, size_t errstr_size)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[1536] = "";
	struct stat st;
	int rc;

	if (fd < 0) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: %s", dir, strerror(-rc));
		return rc;
	}
	if (!fstatat(fd, "state.pt", &st, 0))
		rc = checkpoint_load_generation(fd, NULL, 0, rules, NULL, NULL, loaded, text, sizeof(text));
	else
		rc = checkpoint_load(fd, NULL, 0, rules, NULL, NULL, loaded, text, sizeof(text));
	close(fd);
	if (rc == -ENOENT)
		snprintf(errstr, errstr_size, "%s: no checkpoint here: neither checkpoints/ of recd's data directory nor the state.pt of one", dir);
	else if (rc)
		snprintf(errstr, errstr_size, "%s: %s", dir, text[0] ? text : strerror(-rc));
	return rc;
}

int answer_checkpoint_open(const char *what, const struct answer_options *options, struct answer_files *files, char *errstr, size_t errstr_size)
{
	struct checkpoint_loaded loaded = { 0 };
	struct config config;
	int rc = 0;

	if (options->config)
		rc = config_load(options->config, &config, errstr, errstr_size);
	else
		config_default(&config);
	if (!options->config)
		config.rules.min_pos_completion = (float)options->min_pos_completion;
	if (!rc)
		rc = load(options->checkpoint, &config.rules, &loaded, errstr, errstr_size);
	if (!rc) {
		tell_skipped(what, loaded.skipped);
		files->state = loaded.state;
		files->model.tables = loaded.tables;
		loaded.state = NULL;
		loaded.tables = (struct tables){ 0 };
		files->generation = (struct generation){ .tables = files->model.tables, .number = loaded.generation_number };
		files->generation.mean_user = calloc(files->model.tables.dim, sizeof(float)); /* not used: a checkpoint has a row for each of its users */
		files->options = (struct query_options){ .k = (uint32_t)options->k, .personalize_min_positives = config.personalize_min_positives,
			                                 .personal_max_age_us = (int64_t)config.personal_max_age_sec * 1000000,
			                                 .model_clock_us = loaded.model_clock_us };
		rc = files->generation.mean_user ? 0 : -ENOMEM;
	}
	checkpoint_loaded_free(&loaded);
	config_free(&config);
	return rc;
}
