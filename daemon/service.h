/*
 * service.h: the daemon put together: lock, server, recovery, sources, engine, signals, service manager.
 */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "daemon/config.h"

/* Exit codes of recd; the unit file's RestartPreventExitStatus knows them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DATA_REFUSED = 3 };

/* Runs until stopped by a signal or a fatal error; logs what went wrong. Takes over `config` (freed at the end). Returns an exit code. */
int service_run(struct config *config);

#endif
