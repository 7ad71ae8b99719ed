/*
 * server_socket.h: the listening unix socket as a file. Only server.c includes it.
 */
#ifndef DAEMON_SERVER_SOCKET_H
#define DAEMON_SERVER_SOCKET_H

#include <stddef.h>
#include <sys/types.h>

struct server_socket {
	int fd;
	char *path;
	dev_t device; /* of the file that was bound: nothing else is ever deleted */
	ino_t inode;
};

/* Binds and listens, mode 0660. See server_start() for what may stand at the path. ret_socket is untouched on failure. 0 or -errno. */
int server_socket_open(const char *path, struct server_socket *ret_socket, char *errstr, size_t errstr_size);
/* Closes, and deletes the file if it is still ours. */
void server_socket_close(struct server_socket *listener);

#endif
