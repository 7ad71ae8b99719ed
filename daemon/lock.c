/*
 * lock.c: the lock on the data directory, taken by the main thread before anything in it is read or the socket is touched.
 *
 * An OFD lock (fcntl(2)): unlike a POSIX lock it does not go when some other descriptor of the file is closed. The pid in the file is for people; the
 * lock decides. The file is never deleted: whoever deletes a lock file lets two daemons hold "the" lock.
 */
#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME "LOCK"

/* The pid that the holder wrote; 0 when there is none to read. */
static long holder_pid(int fd)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? strtol(text, NULL, 10) : 0;
}

static int write_pid(int fd)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return errno == ENOSPC || errno == EDQUOT ? 0 : -errno; /* a full disk must not keep recd from starting: the pid is for people only */
	return 0;
}

int lock_take(int data_dir_fd, const char *data_dir, int *ret_lock_fd, char *errstr, size_t errstr_size)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat st;
	int r = 0;
	int fd = openat(data_dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);

	if (fd < 0 || fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode))
		r = -EINVAL;
	else if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	else
		r = write_pid(fd);
	if (r == -EBUSY) {
		long pid = holder_pid(fd);

		snprintf(errstr, errstr_size, "%s is in use by another recd (pid %ld%s): stop it first, or use another data_dir", data_dir, pid,
		         pid ? "" : ", not written yet");
	} else if (r == -ELOOP || r == -EINVAL) {
		snprintf(errstr, errstr_size, "%s/" LOCK_NAME " is not a regular file: remove it", data_dir);
	} else if (r < 0) {
		snprintf(errstr, errstr_size, "%s/" LOCK_NAME ": %s", data_dir, strerror(-r));
	}
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	*ret_lock_fd = fd;
	return 0;
}

void lock_release(int lock_fd)
{
	if (lock_fd >= 0)
		close(lock_fd);
}
