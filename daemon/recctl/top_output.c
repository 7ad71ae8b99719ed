/*
 * top_output.c: write, fsync, rename, fsync the folder. Main thread of recctl. A lock on FILE.tmp, held as long as it is open, keeps two runs apart;
 * it goes with the process, so that a file left by a killed run is simply taken over.
 */
#include "daemon/recctl/top_output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* -errno, with path and reason as text. */
static int failed(int rc, const char *path, char *errstr, size_t errstr_size)
{
	snprintf(errstr, errstr_size, "%s: %s", path, strerror(-rc));
	return rc;
}

/* FILE must be a regular file or not be there: a rename would replace whatever it is. */
static int check_target(const char *path, char *errstr, size_t errstr_size)
{
	struct stat st;

	if (lstat(path, &st) || S_ISREG(st.st_mode))
		return 0;
	snprintf(errstr, errstr_size, "%s is no regular file and would be replaced; name another, or - for standard output", path);
	return -EINVAL;
}

int top_output_open(const char *path, struct top_output *ret_output, char *errstr, size_t errstr_size)
{
	struct top_output output = { .path = path, .fd = STDOUT_FILENO };
	int rc = 0;

	if (!strcmp(path, "-")) {
		*ret_output = output;
		return 0;
	}
	rc = check_target(path, errstr, errstr_size);
	if (rc)
		return rc;
	if (asprintf(&output.temporary, "%s.tmp", path) < 0)
		return failed(-ENOMEM, path, errstr, errstr_size);
	output.fd = open(output.temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (output.fd < 0 || flock(output.fd, LOCK_EX | LOCK_NB) || ftruncate(output.fd, 0)) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: %s", output.temporary, rc == -EWOULDBLOCK ? "another run is writing it" : strerror(-rc));
	}
	if (rc) {
		if (output.fd >= 0)
			close(output.fd);
		free(output.temporary);
		return rc;
	}
	*ret_output = output;
	return 0;
}

int top_output_write(struct top_output *output, const char *text, size_t len, char *errstr, size_t errstr_size)
{
	output->bytes += len;
	while (len) {
		ssize_t n = write(output->fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(-errno, output->temporary ? output->temporary : "standard output", errstr, errstr_size);
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The entry in the folder is durable too. */
static int sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(copy);
	return rc;
}

int top_output_commit(struct top_output *output, char *errstr, size_t errstr_size)
{
	if (!output->temporary)
		return 0;
	if (fsync(output->fd) || rename(output->temporary, output->path))
		return failed(-errno, output->temporary, errstr, errstr_size);
	close(output->fd);
	free(output->temporary);
	output->temporary = NULL;
	int rc = sync_folder(output->path);
	return rc ? failed(rc, output->path, errstr, errstr_size) : 0;
}

void top_output_abandon(struct top_output *output)
{
	if (!output->temporary)
		return;
	(void)unlink(output->temporary);
	close(output->fd);
	free(output->temporary);
	output->temporary = NULL;
}
