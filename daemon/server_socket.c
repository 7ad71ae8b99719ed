/*
 * server_socket.c: binds the unix socket, replaces a stale one, deletes only what it bound.
 *
 * Main thread. The caller holds the lock on the data directory, so no other recd of this data directory lives; one with another data directory may listen at
 * the same path, which is why the path is tried before anything is deleted: a socket that answers, or that is no socket, stays and the start fails.
 */
#include "daemon/server_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 256

static int address_of(const char *path, struct sockaddr_un *ret_address)
{
	size_t len = strlen(path);

	if (len >= sizeof(ret_address->sun_path))
		return -ENAMETOOLONG;
	memset(ret_address, 0, sizeof(*ret_address));
	ret_address->sun_family = AF_UNIX;
	memcpy(ret_address->sun_path, path, len + 1);
	return 0;
}

/* 0: nobody listens there; -EADDRINUSE: somebody does; else why it cannot be known. */
static int try_connect(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? -EADDRINUSE : -errno;
	close(fd);
	if (r == -EAGAIN) /* its backlog is full */
		return -EADDRINUSE;
	return r == -ECONNREFUSED ? 0 : r;
}

/* Makes way for bind(): deletes a socket that nobody listens on. */
static int clear_path(const char *path, const struct sockaddr_un *address, char *errstr, size_t errstr_size)
{
	struct stat st;
	int r;

	if (lstat(path, &st) != 0) {
		if (errno == ENOENT)
			return 0;
		r = -errno;
		snprintf(errstr, errstr_size, "%s: %s", path, strerror(-r));
		return r;
	}
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(errstr, errstr_size, "%s exists and is not a socket: remove it, or change server.socket", path);
		return -EEXIST;
	}
	r = try_connect(address);
	if (r == 0 && unlink(path) != 0)
		r = -errno;
	if (r == -EADDRINUSE)
		snprintf(errstr, errstr_size, "%s: another program answers there: stop it, or change server.socket", path);
	else if (r < 0)
		snprintf(errstr, errstr_size, "%s: a socket stands there and cannot be replaced: %s", path, strerror(-r));
	return r;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, struct stat *ret_st)
{
	/* The mode must be right from the first moment on: chmod() after bind() would follow whatever stands at the path then. */
	mode_t before = umask(0117);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ? -errno : 0;

	umask(before);
	if (r < 0)
		return r;
	if (lstat(address->sun_path, ret_st) != 0 || listen(fd, BACKLOG) != 0) {
		r = -errno;
		unlink(address->sun_path);
	}
	return r;
}

int server_socket_open(const char *path, struct server_socket *ret_socket, char *errstr, size_t errstr_size)
{
	struct sockaddr_un address;
	struct stat st;
	char *copy = NULL;
	int fd = -1;
	int r = address_of(path, &address);

	if (r == 0) {
		r = clear_path(path, &address, errstr, errstr_size);
		if (r < 0)
			return r;
		copy = strdup(path);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		r = !copy ? -ENOMEM : fd < 0 ? -errno : bind_and_listen(fd, &address, &st);
	}
	if (r < 0) {
		snprintf(errstr, errstr_size, "%s: %s%s", path, strerror(-r), r == -ENOENT ? " (its directory must exist)" : "");
		if (fd >= 0)
			close(fd);
		free(copy);
		return r;
	}
	*ret_socket = (struct server_socket){.fd = fd, .path = copy, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

void server_socket_close(struct server_socket *listener)
{
	struct stat st;

	if (listener->fd >= 0)
		close(listener->fd);
	listener->fd = -1;
	if (listener->path && lstat(listener->path, &st) == 0 && st.st_dev == listener->device && st.st_ino == listener->inode)
		unlink(listener->path);
	free(listener->path);
	listener->path = NULL;
}
