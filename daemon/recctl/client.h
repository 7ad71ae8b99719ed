/*
 * client.h: one request to a running recd over its unix socket.
 */
#ifndef DAEMON_RECCTL_CLIENT_H
#define DAEMON_RECCTL_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#define CLIENT_SOCKET_DEFAULT "/run/recd/recd.sock"

/*
 * Sends `method` ("GET" or "POST") for `path` ("/v1/status") and waits at most timeout_sec. *ret_answer is the JSON object of a 200 answer, the caller's
 * (json_decref). Errors: -ENOTCONN nothing listens, -EACCES, -ETIMEDOUT, -EREMOTEIO recd answered with an error, -EPROTO the answer makes no
 * sense; errstr says it in words and names the socket.
 */
int client_request(const char *socket, const char *method, const char *path, int timeout_sec, json_t **ret_answer, char *errstr, size_t errstr_size);

/* GET of `path`; the body of a 200 answer as it is (*ret_len may be 0), malloc'd, the caller's, at most 16 MiB. Errors as above. */
int client_text(const char *socket, const char *path, int timeout_sec, char **ret_text, size_t *ret_len, char *errstr, size_t errstr_size);

#endif
