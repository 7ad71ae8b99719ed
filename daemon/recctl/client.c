/*
 * client.c: HTTP over recd's unix socket with libcurl, one request a call. Main thread of recctl. Nothing is kept between calls.
 *
 * The body is collected up to a bound and parsed whole. recd answers errors as {"error": "..."}: that text is what the user sees.
 */
#include "daemon/recctl/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX (16u << 20)
#define CONNECT_TIMEOUT_SEC 5L

struct body {
	char *bytes;
	size_t len;
};

/* libcurl's: takes size * n bytes, returns how many were taken. */
static size_t take_body(char *bytes, size_t size, size_t n, void *ctx)
{
	struct body *body = ctx;
	size_t len = size * n;

	if (len > BODY_MAX - body->len)
		return 0;
	char *grown = realloc(body->bytes, body->len + len + 1);
	if (!grown)
		return 0;
	memcpy(grown + body->len, bytes, len);
	body->bytes = grown;
	body->len += len;
	return len;
}

/* Why there was no answer. */
static int describe_failure(CURL *curl, CURLcode code, const char *socket, int timeout_sec, char *errstr, size_t errstr_size)
{
	long os_error = 0;

	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
	if (code == CURLE_COULDNT_CONNECT && (os_error == EACCES || os_error == EPERM)) {
		snprintf(errstr, errstr_size, "%s: %s; ask as root or as a member of the socket's group", socket, strerror((int)os_error));
		return -EACCES;
	}
	if (code == CURLE_COULDNT_CONNECT) {
		snprintf(errstr, errstr_size, "nothing listens on %s (%s); is recd running? Another socket: --socket PATH. On files: --data_dir and --model_path",
		         socket, os_error ? strerror((int)os_error) : curl_easy_strerror(code));
		return -ENOTCONN;
	}
	if (code == CURLE_OPERATION_TIMEDOUT) {
		snprintf(errstr, errstr_size, "recd on %s did not answer within %d s", socket, timeout_sec);
		return -ETIMEDOUT;
	}
	snprintf(errstr, errstr_size, "%s: %s", socket, curl_easy_strerror(code));
	return -EPROTO;
}

/* The object of an answer. */
static int read_answer(const struct body *body, long status, const char *socket, json_t **ret_answer, char *errstr, size_t errstr_size)
{
	json_t *answer = json_loadb(body->bytes ? body->bytes : "", body->len, JSON_ALLOW_NUL, NULL);
	const char *error = json_string_value(json_object_get(answer, "error"));
	int rc = 0;

	if (status != 200) {
		if (error)
			snprintf(errstr, errstr_size, "recd: %s", error);
		else
			snprintf(errstr, errstr_size, "recd on %s answered with HTTP status %ld", socket, status);
		rc = -EREMOTEIO;
	} else if (!json_is_object(answer)) {
		snprintf(errstr, errstr_size, "what listens on %s does not answer like recd", socket);
		rc = -EPROTO;
	}
	if (rc)
		json_decref(answer);
	else
		*ret_answer = answer;
	return rc;
}

/* One request: the status of its answer, and the body, which is the caller's to free in any case. */
static int perform(const char *socket, const char *method, const char *path, int timeout_sec, struct body *body, long *ret_status, char *errstr,
                   size_t errstr_size)
{
	CURL *curl = curl_easy_init();
	char url[512];
	int rc = 0;

	if (!curl) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	snprintf(url, sizeof(url), "http://recd%s", path);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_SEC);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)timeout_sec);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	CURLcode code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		rc = describe_failure(curl, code, socket, timeout_sec, errstr, errstr_size);
	else
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_status);
	curl_easy_cleanup(curl);
	return rc;
}

int client_request(const char *socket, const char *method, const char *path, int timeout_sec, json_t **ret_answer, char *errstr, size_t errstr_size)
{
	struct body body = { 0 };
	long status = 0;
	int rc = perform(socket, method, path, timeout_sec, &body, &status, errstr, errstr_size);

	if (!rc)
		rc = read_answer(&body, status, socket, ret_answer, errstr, errstr_size);
	free(body.bytes);
	return rc;
}

int client_text(const char *socket, const char *path, int timeout_sec, char **ret_text, size_t *ret_len, char *errstr, size_t errstr_size)
{
	struct body body = { 0 };
	json_t *no_answer = NULL;
	long status = 0;
	int rc = perform(socket, "GET", path, timeout_sec, &body, &status, errstr, errstr_size);

	if (!rc && status != 200) /* an error in words, as for any request */
		rc = read_answer(&body, status, socket, &no_answer, errstr, errstr_size);
	if (rc) {
		free(body.bytes);
		return rc;
	}
	*ret_text = body.bytes;
	*ret_len = body.len;
	return 0;
}
