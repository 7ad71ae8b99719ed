/*
 * config_text.c: reads a configuration file into memory and removes what libconfig does not survive or silently gets wrong.
 *
 * libconfig 1.5 (Debian 12) reads `6000000000` as 1705032704 and calls exit() when an @include names a directory. recd reads its file again at every
 * reload, so both would hurt a running daemon. The scan below knows comments and strings, and touches numbers only.
 * Runs in the main thread, at start and at reload. The caller owns the text.
 */
#include "daemon/config_text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scan {
	const char *path;
	const char *at;
	unsigned line;
	char *out; /* next byte to write */
};

__attribute__((format(printf, 5, 6))) static int refuse(const char *path, unsigned line, char *errstr, size_t errstr_size, const char *format, ...)
{
	va_list args;
	int n = line ? snprintf(errstr, errstr_size, "%s:%u: ", path, line) : snprintf(errstr, errstr_size, "%s: ", path);

	va_start(args, format);
	if (n >= 0 && (size_t)n < errstr_size)
		vsnprintf(errstr + n, errstr_size - (size_t)n, format, args);
	va_end(args);
	return -EINVAL;
}

static void copy(struct scan *scan, size_t n)
{
	for (; n && *scan->at; n--) {
		if (*scan->at == '\n')
			scan->line++;
		*scan->out++ = *scan->at++;
	}
}

/* Comments and strings pass through untouched. Returns 1 when one was there. */
static int copy_opaque(struct scan *scan)
{
	const char *at = scan->at;
	const char *end;

	if (at[0] == '#' || (at[0] == '/' && at[1] == '/')) {
		copy(scan, strcspn(at, "\n"));
		return 1;
	}
	if (at[0] == '/' && at[1] == '*') {
		end = strstr(at + 2, "*/");
		copy(scan, end ? (size_t)(end + 2 - at) : strlen(at));
		return 1;
	}
	if (at[0] == '"') {
		for (end = at + 1; *end && *end != '"'; end++)
			if (*end == '\\' && end[1])
				end++;
		copy(scan, (size_t)(end - at) + (*end == '"'));
		return 1;
	}
	return 0;
}

/* A number: copied, and given its L when it is whole and does not fit 32 bits. */
static int copy_number(struct scan *scan, char *errstr, size_t errstr_size)
{
	const char *at = scan->at;
	int hex = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
	size_t len = hex ? 2 + strspn(at + 2, "0123456789abcdefABCDEF") : strspn(at, "0123456789");
	unsigned long long value;

	if (!hex && (at[len] == '.' || at[len] == 'e' || at[len] == 'E')) {
		copy(scan, strspn(at, "0123456789.eE"));
		return 0;
	}
	errno = 0;
	value = strtoull(at, NULL, hex ? 16 : 10);
	if (errno == ERANGE || value > INT64_MAX)
		return refuse(scan->path, scan->line, errstr, errstr_size, "%.*s: number too large (at most %lld)", (int)(len < 64 ? len : 64), at,
		              (long long)INT64_MAX);
	copy(scan, len);
	if (value > INT32_MAX && *scan->at != 'L')
		*scan->out++ = 'L';
	copy(scan, strspn(scan->at, "L"));
	return 0;
}

static int rewrite(const char *path, const char *text, char *out, char *errstr, size_t errstr_size)
{
	struct scan scan = {.path = path, .at = text, .line = 1, .out = out};
	int r;

	while (*scan.at) {
		if (copy_opaque(&scan))
			continue;
		if (*scan.at == '@')
			return refuse(path, scan.line, errstr, errstr_size, "@include is not supported (write all options into this file)");
		if (isdigit((unsigned char)*scan.at)) {
			r = copy_number(&scan, errstr, errstr_size);
			if (r < 0)
				return r;
			continue;
		}
		if (*scan.at == '.') {
			copy(&scan, strspn(scan.at, "0123456789.eE"));
			continue;
		}
		if (isalpha((unsigned char)*scan.at) || *scan.at == '*') { /* a name; its digits are not numbers */
			copy(&scan, strspn(scan.at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-*"));
			continue;
		}
		copy(&scan, 1);
	}
	*scan.out = 0;
	return 0;
}

/* Reads until the end of the file or size bytes. Returns how many, or -errno. */
static ssize_t read_up_to(int fd, char *buf, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)len;
}

/* The whole file. *ret_len is without the closing NUL. */
static int read_all(const char *path, char **ret_text, size_t *ret_len, char *errstr, size_t errstr_size)
{
	struct stat st = {0};
	ssize_t n = -ENOMEM;
	char *text = malloc(CONFIG_FILE_BYTES_MAX + 2);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0)
		n = -errno;
	else if (!S_ISREG(st.st_mode))
		n = refuse(path, 0, errstr, errstr_size, "not a regular file");
	else if (text)
		n = read_up_to(fd, text, CONFIG_FILE_BYTES_MAX + 1);
	if (n > (ssize_t)CONFIG_FILE_BYTES_MAX)
		n = refuse(path, 0, errstr, errstr_size, "larger than %u bytes", CONFIG_FILE_BYTES_MAX);
	else if (n < 0 && n != -EINVAL)
		snprintf(errstr, errstr_size, "%s: %s", path, strerror((int)-n));
	if (fd >= 0)
		close(fd);
	if (n < 0 || !text) {
		free(text);
		return n < 0 ? (int)n : -ENOMEM;
	}
	text[n] = 0;
	*ret_text = text;
	*ret_len = (size_t)n;
	return 0;
}

int config_text_read(const char *path, char **ret_text, char *errstr, size_t errstr_size)
{
	static const char bom[] = "\xef\xbb\xbf";
	char *text = NULL;
	char *out = NULL;
	size_t len = 0;
	int r = read_all(path, &text, &len, errstr, errstr_size);

	if (r < 0)
		return r;
	if (memchr(text, 0, len)) {
		unsigned line = 1;

		for (const char *at = text; *at; at++)
			line += *at == '\n';
		r = refuse(path, line, errstr, errstr_size, "the file holds a NUL byte (recd.conf is plain text)");
		goto out;
	}
	out = malloc(2 * len + 1); /* at most one L for each digit */
	if (!out) {
		snprintf(errstr, errstr_size, "%s: %s", path, strerror(ENOMEM));
		r = -ENOMEM;
		goto out;
	}
	r = rewrite(path, text + (strncmp(text, bom, 3) ? 0 : 3), out, errstr, errstr_size);
out:
	free(text);
	if (r < 0) {
		free(out);
		return r;
	}
	*ret_text = out;
	return 0;
}
