/*
 * config_text.h: the text of a configuration file, made safe for libconfig.
 */
#ifndef DAEMON_CONFIG_TEXT_H
#define DAEMON_CONFIG_TEXT_H

#include <stddef.h>

#define CONFIG_FILE_BYTES_MAX (1u << 20)

/*
 * Reads a file of at most 1 MiB. Refuses NUL bytes and @include (libconfig's scanner ends the process when an included file cannot be read), and gives
 * whole numbers above 32 bits the suffix L that libconfig 1.5 needs: without it they are cut short silently. A number above 64 bits is refused.
 * *ret_text is malloc'd and NUL-terminated. 0, or -errno / -EINVAL with "FILE:LINE: reason" in errstr.
 */
int config_text_read(const char *path, char **ret_text, char *errstr, size_t errstr_size);

#endif
