/*
 * answer.h: answers about users, from a running recd or from files; `recctl top` and `recctl explain` share it. Both give the JSON of render.h.
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
	struct flag_ids users;
	int64_t k;
	int64_t users_max; /* when no user is named: as many of the files' users; 0: all */
	double min_pos_completion;
	int json;
};

/* Prints one user's answer for people. `first` is 1 for the first one. 0 or -ENOMEM. */
typedef int (*answer_print_fn)(const json_t *answer, int first);

/*
 * Asks for every user and prints: as JSON, one object a line, or with `print`. `what` is "top" or "explain". Asks recd when a socket is given or neither data
 * folder nor model; files otherwise. Returns the command's exit code; errors go to standard error.
 */
int answer_run(const char *what, const struct answer_options *options, answer_print_fn print);

#endif
