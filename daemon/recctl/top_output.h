/*
 * top_output.h: a file that appears whole or not at all: FILE.tmp, written, made durable and renamed. "-" is standard output.
 */
#ifndef DAEMON_RECCTL_TOP_OUTPUT_H
#define DAEMON_RECCTL_TOP_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

struct top_output {
	const char *path; /* the caller's */
	char *temporary;  /* NULL: standard output */
	int fd;
	uint64_t bytes; /* written so far */
};

/*
 * Begins FILE.tmp anew; what another run left there is overwritten, and one that is still writing is an error, as is a path that is no regular file. All
 * return 0, or -errno with text.
 */
int top_output_open(const char *path, struct top_output *ret_output, char *errstr, size_t errstr_size);
int top_output_write(struct top_output *output, const char *text, size_t len, char *errstr, size_t errstr_size);
/* Durable, then FILE; nothing is left to close. On failure top_output_abandon() is due. */
int top_output_commit(struct top_output *output, char *errstr, size_t errstr_size);
/* Removes FILE.tmp; FILE stays what it was. Does nothing after a commit. */
void top_output_abandon(struct top_output *output);

#endif
