/*
 * log.c: log lines on stderr, plain or JSON. Any thread may write; one mutex orders the lines and guards the call sites' counters.
 *
 * Under systemd stderr is the journal (JOURNAL_STREAM names it): plain lines then carry no time of their own, and every line begins with the
 * level as "<3>" (sd-daemon(3)). Nothing here allocates. A line is formatted on the caller's stack and written with one call that cannot block for long: a
 * socket is written without waiting, a pipe or terminal only when poll() says that there is room (a line is shorter than PIPE_BUF).
 */
#include "daemon/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES PIPE_BUF
#define STUCK_WAIT_MS 100

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char level_priority[] = {'3', '4', '6', '7'};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int level_max = LOG_LEVEL_INFO;
static atomic_int json_format;
static atomic_ullong lost;
/* under the mutex */
static int stuck;               /* the last line found no room: do not wait for the next one */
static unsigned long long told; /* of the lost lines */

/* A line under construction; what does not fit is left out. */
struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
};
#define TAIL_BYTES 48 /* kept free for the end of the line */

void log_setup(const char *level, const char *format)
{
	for (int i = 0; level && i <= LOG_LEVEL_DEBUG; i++)
		if (strcmp(level, level_names[i]) == 0)
			atomic_store(&level_max, i);
	if (format && strcmp(format, "plain") == 0)
		atomic_store(&json_format, 0);
	if (format && strcmp(format, "json") == 0)
		atomic_store(&json_format, 1);
}

int log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

uint64_t log_lost(void)
{
	return atomic_load(&lost);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Is stderr the stream that the journal gave us? systemd.exec(5), JOURNAL_STREAM. */
static int stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device;
	unsigned long long inode;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2 || fstat(STDERR_FILENO, &st) != 0) // NOLINT(cert-err34-c)
		return 0;
	return st.st_dev == device && st.st_ino == inode;
}

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line->text + line->len, sizeof(line->text) - line->len, format, args);
	va_end(args);
	if (n > 0)
		line->len += (size_t)n < sizeof(line->text) - line->len ? (size_t)n : sizeof(line->text) - line->len - 1;
}

/* Bytes of the UTF-8 sequence that begins here; 0: not UTF-8 (overlong forms, surrogates and cut sequences included). */
static size_t utf8_len(const unsigned char *at)
{
	size_t len = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : (at[0] & 0xf0) == 0xe0 ? 3 : at[0] >= 0xf0 && at[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < len; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
		return 0;
	return len;
}

/* Text of unknown content: control characters never reach the reader as they are, and a line is always UTF-8. */
static void add_text(struct line *line, const char *text, int json)
{
	size_t n;

	for (; *text && line->len + 6 + TAIL_BYTES < sizeof(line->text); text += n ? n : 1) {
		unsigned char c = (unsigned char)*text;

		n = utf8_len((const unsigned char *)text);
		if (n != 1) { /* several bytes as they are; what is not UTF-8 as a question mark */
			memcpy(line->text + line->len, n ? text : "?", n ? n : 1);
			line->len += n ? n : 1;
		} else if (json && (c == '"' || c == '\\'))
			add(line, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			add(line, json ? "\\u%04x" : "\\x%02x", c);
		else
			line->text[line->len++] = (char)c;
	}
	line->text[line->len] = 0;
}

static void add_time(struct line *line)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	line->len += strftime(line->text + line->len, sizeof(line->text) - line->len, "%Y-%m-%dT%H:%M:%S", &tm);
	add(line, ".%03ldZ", ts.tv_nsec / 1000000);
}

static void compose(struct line *line, enum log_level level, const char *message, uint32_t suppressed)
{
	int journal = stderr_is_journal();

	line->len = 0;
	line->text[0] = 0;
	if (journal)
		add(line, "<%c>", level_priority[level]);
	if (atomic_load(&json_format)) {
		add(line, "{\"time\":\"");
		add_time(line);
		add(line, "\",\"level\":\"%s\",\"message\":\"", level_names[level]);
		add_text(line, message, 1);
		add(line, "\"");
		if (suppressed)
			add(line, ",\"suppressed\":%u", suppressed);
		add(line, "}\n");
		return;
	}
	if (!journal) {
		add_time(line);
		add(line, " %-5s ", level_names[level]);
	}
	add_text(line, message, 0);
	if (suppressed)
		add(line, " (and %u like this)", suppressed);
	add(line, "\n");
}

/* 0 when the whole line went out. Under the mutex. */
static int put(const struct line *line)
{
	struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t n;

	if (poll(&ready, 1, stuck ? 0 : STUCK_WAIT_MS) != 1 || ready.revents != POLLOUT) { /* POLLERR: nobody reads */
		stuck = 1;
		return -EAGAIN;
	}
	stuck = 0;
	n = send(STDERR_FILENO, line->text, line->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write(STDERR_FILENO, line->text, line->len);
	return n == (ssize_t)line->len ? 0 : -EAGAIN;
}

static void put_or_count(const struct line *line)
{
	struct line note;
	char text[64];
	unsigned long long missing = atomic_load(&lost);

	if (missing > told) {
		snprintf(text, sizeof(text), "%llu log lines were lost: stderr was not read", missing - told);
		compose(&note, LOG_LEVEL_WARN, text, 0);
		if (put(&note) == 0)
			told = missing;
	}
	if (put(line) != 0)
		atomic_fetch_add(&lost, 1);
}

/* 1: write it, and *ret_suppressed lines of this site were left out before. Under the mutex. */
static int admit(struct log_site *site, uint32_t *ret_suppressed)
{
	int64_t now = now_ms();

	if (site->written == 0 || now - site->window_start_ms >= LOG_WINDOW_SEC * 1000) {
		site->window_start_ms = now;
		site->written = 0;
	}
	if (site->written >= LOG_BURST) {
		site->suppressed++;
		return 0;
	}
	site->written++;
	*ret_suppressed = site->suppressed;
	site->suppressed = 0;
	return 1;
}

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
{
	char message[LOG_MESSAGE_MAX];
	struct line line;
	uint32_t suppressed = 0;
	int admitted;
	int saved_errno = errno;
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	pthread_mutex_lock(&mutex);
	admitted = admit(site, &suppressed);
	if (admitted) {
		compose(&line, level, message, suppressed);
		put_or_count(&line);
	}
	pthread_mutex_unlock(&mutex);
	errno = saved_errno;
}
