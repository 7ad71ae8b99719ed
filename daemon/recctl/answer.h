/*
 * answer.h: answers about users, from a running recd, from a checkpoint of one or from files; `recctl top` and `recctl explain` share it. Both give the JSON
 * of render.h.
 */
#ifndef DAEMON_RECCTL_ANSWER_H
#define DAEMON_RECCTL_ANSWER_H

#include <jansson.h>
#include <stdint.h>

#include "daemon/recctl/flags.h"

#define ANSWER_TIMEOUT_SEC 10

/* Flags that both commands have. */
struct answer_options {
	const char *socket;     /* NULL: not given */
	const char *data_dir;   /* NULL: not given */
	const char *model_path; /* NULL: not given */
	const char *checkpoint; /* recd's data directory or one checkpoint; NULL: not given */
	const char *config;     /* recd.conf that goes with it; NULL: not given */
	struct flag_ids users;
	int64_t k;
	int64_t users_max; /* when no user is named: as many of the files' users; 0: all */
	double min_pos_completion;
	int json;
};

/* Whether no running recd is asked. */
static inline int answer_on_files(const struct answer_options *options)
{
	return options->checkpoint || options->data_dir || options->model_path;
}

/* Flags that do not fit together. 0, or EXIT_USAGE after saying which. */
int answer_check(const struct command_spec *spec, const struct flag_words *words, const struct answer_options *options);

/* Prints one user's answer for people. `first` is 1 for the first one. 0 or -ENOMEM. */
typedef int (*answer_print_fn)(const json_t *answer, int first);

/*
 * Asks for every user and prints: as JSON, one object a line, or with `print`. `what` is "top" or "explain". Asks recd unless answer_on_files(). Returns the
 * command's exit code; errors go to standard error.
 */
int answer_run(const char *what, const struct answer_options *options, answer_print_fn print);

#endif
