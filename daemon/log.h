/*
 * log.h: log lines on stderr. Any thread. Only daemon/ logs; the libraries return errors.
 *
 * A line is one event in plain words, without a newline. Each call site may write LOG_BURST lines in LOG_WINDOW_SEC seconds; what comes above that is
 * counted and told by the next line of that site. A reader of stderr that does not read costs at most one short wait; lines are then lost and counted.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdint.h>

#define LOG_BURST 5
#define LOG_WINDOW_SEC 10
#define LOG_MESSAGE_MAX 1600 /* longer messages are cut */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* One per call site, static; touched under the log's mutex. */
struct log_site {
	int64_t window_start_ms;
	uint32_t written;    /* in this window */
	uint32_t suppressed; /* not told yet */
};

/* Names as in recd.conf ("error warn info debug", "plain json"); unknown names leave things as they are. Before the first call: info, plain. */
void log_setup(const char *level, const char *format);
/* 1 when lines of this level are written. */
int log_wants(enum log_level level);
/* Lines that could not be written since the start. */
uint64_t log_lost(void);

__attribute__((format(printf, 3, 4))) void log_write(struct log_site *site, enum log_level level, const char *format, ...);

#define LOG_AT(level, ...)                                                                                                                                   \
	do {                                                                                                                                                  \
		static struct log_site log_site_here;                                                                                                         \
		if (log_wants(level))                                                                                                                         \
			log_write(&log_site_here, level, __VA_ARGS__);                                                                                        \
	} while (0)
#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
