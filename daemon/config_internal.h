/*
 * config_internal.h: what the files of the configuration share; only config*.c include it.
 *
 * config.c        the file's tree, keys, reading, reload
 * config_store.c  one value into its field, defaults, freeing
 * config_check.c  what needs more than one option to be judged
 */
#ifndef DAEMON_CONFIG_INTERNAL_H
#define DAEMON_CONFIG_INTERNAL_H

#include <libconfig.h>

#include "daemon/config.h"
#include "daemon/config_table.h"

#define CONFIG_KEY_MAX 128
#define CONFIG_LIST_MAX 64 /* patterns of one stream, Kafka properties */

/* A value on its way into a field, whether from the file or from the table. */
struct config_value {
	enum { VALUE_WHOLE, VALUE_NUMBER, VALUE_BOOL, VALUE_STRING, VALUE_LIST, VALUE_GROUP } kind;
	int64_t whole;
	double number;
	const char *string;
	const config_setting_t *list;
};

/* A file that is being read. */
struct config_reader {
	struct config *config;
	const char *path;
	config_t *tree;
	char *errstr;
	size_t errstr_size;
};

/* Writes "FILE:LINE: key: reason" and returns -EINVAL. setting NULL: line 1. */
__attribute__((format(printf, 4, 5))) int config_fail(struct config_reader *reader, const config_setting_t *setting, const char *key, const char *format, ...);

/*
 * Puts a value into the option's field, in place of what was there. 0; -EINVAL: the wrong kind of value; -EDOM: the right kind, but not allowed (ret_why
 * says why when the type alone does not, else ""; it holds nothing of a secret); -ENOMEM.
 */
int config_store(const struct option *option, struct config *config, const struct config_value *value, char *ret_why, size_t ret_why_size);
/* Takes the value of a reloadable option over from `fresh`. Out of memory: the old value stays. */
void config_copy(const struct option *option, struct config *config, const struct config *fresh);
/* The checks that need more than one option. 0, -EINVAL after config_fail(), or -ENOMEM. */
int config_check(struct config_reader *reader);

#endif
