/*
 * config_table.h: the one table of options. Reading, defaults, reload, docs/CONFIGURATION.md and conf/recd.conf all come from it; nothing else knows a key.
 */
#ifndef DAEMON_CONFIG_TABLE_H
#define DAEMON_CONFIG_TABLE_H

#include <stddef.h>
#include <stdio.h>

#include "daemon/config.h"

enum option_type {
	OPTION_STRING,       /* char *, not empty */
	OPTION_PATH,         /* char *, absolute */
	OPTION_CHOICE,       /* char *, one of `choices` */
	OPTION_CHOICE_INDEX, /* int32_t: index of the word in `choices` */
	OPTION_BOOL,         /* int */
	OPTION_U32,
	OPTION_U64,
	OPTION_FLOAT,
	OPTION_DOUBLE,
	OPTION_SECONDS, /* int64_t microseconds; written in whole seconds */
	OPTION_GLOBS,   /* struct config_stream: absolute glob patterns, one string or a list of them */
	OPTION_TOPIC,   /* char *, a name that Kafka allows */
	OPTION_PARTITIONS, /* struct config_partitions: "all" or "0-3,8" */
	OPTION_PROPERTIES, /* struct config_properties: a list of strings "NAME=VALUE" */
};

enum {
	OPTION_RELOADABLE = 1 << 0, /* SIGHUP takes a new value over */
	OPTION_SECRET = 1 << 1,     /* the value is never repeated in an error or a log line */
};

struct option {
	const char *key; /* "group.key" or "group.group.key" */
	enum option_type type;
	unsigned flags;
	size_t offset;        /* in struct config */
	double min, max;      /* numbers; both included */
	const char *fallback; /* the default, as text without quotes; NULL: none (the option is then an example in conf/recd.conf) */
	const char *choices;  /* words with one space between */
	const char *unit;     /* "ms", "bytes", ...; NULL: none */
	const char *example;  /* instead of a default */
	const char *help;     /* one or more sentences */
};

struct option_group {
	const char *name; /* "log", "sources", "sources.events", ... */
	const char *help;
};

extern const struct option config_options[];
extern const size_t config_options_count;
extern const struct option_group config_groups[];
extern const size_t config_groups_count;

/* One default, or value of a configuration, as it would stand in recd.conf: `0.6`, `"auto"`, `true`; secret values as ***. "" when there is none. */
void config_value_text(const struct option *option, const struct config *config, char *ret_text, size_t size);
/* What would be right, in words: "whole number, 1 to 512"; for errors and the documentation. */
void config_option_expects(const struct option *option, char *ret_text, size_t size);
/* 1 when both configurations hold the same value. */
int config_option_equal(const struct option *option, const struct config *a, const struct config *b);
/* docs/CONFIGURATION.md and conf/recd.conf. */
void config_write_docs(FILE *out);
void config_write_example(FILE *out);

#endif
