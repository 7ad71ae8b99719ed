/*
 * top_all.h: everybody's best titles into one file, one JSON object a user and line (daemon/top_page.h), ascending by user id.
 */
#ifndef DAEMON_RECCTL_TOP_ALL_H
#define DAEMON_RECCTL_TOP_ALL_H

#include "daemon/recctl/answer.h"

struct top_all_options {
	const struct answer_options *answer; /* where from, and k */
	const char *output;                  /* a path, or "-" */
	int titles;
	int64_t threads; /* on files; 0: all processors this process may use */
};

/* Writes the file, or leaves the old one as it was. Returns the command's exit code; errors and the counts go to standard error. */
int top_all_run(const struct top_all_options *options);

#endif
