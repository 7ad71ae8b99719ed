/*
 * notify.h: what the service manager is told (sd_notify(3)). All calls do nothing when recd was not started by one. Any thread.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

/* Recovery is done. `status` is one line for `systemctl status`. Also ends a reload. */
void notify_ready(const char *status);
__attribute__((format(printf, 1, 2))) void notify_status(const char *format, ...);
/* Still alive; call it only while the heartbeats of engine and sources move. */
void notify_watchdog(void);
/* The current start or stop needs at most this much longer, counted from now. `what` goes to STATUS. */
void notify_extend_timeout(uint32_t seconds, const char *what);
/* A reload begins (with the monotonic time that Type=notify-reload wants); notify_ready() ends it. */
void notify_reloading(void);
void notify_stopping(const char *status);
/* How often notify_watchdog() must be called, in microseconds: a third of WatchdogSec. 0: no watchdog for this process. */
uint64_t notify_watchdog_interval_us(void);

#endif
