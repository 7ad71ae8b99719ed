/*
 * flags.h: the flags of one recctl command as one table. Parsing, --help and the messages of mistakes all come from that table, so they cannot
 * disagree. Used by every command; one thread, at start.
 *
 *   struct my_options { int64_t top_k; const char *data_dir; int json; };
 *   static const struct flag my_flags[] = {
 *           { .name = "top_k", .type = FLAG_INT, .offset = offsetof(struct my_options, top_k), .fallback = "5", .min = 1, .max = 1000,
 *             .help = "How many titles to show." },
 *           ...
 *   };
 *   static const struct command_spec my_spec = { .name = "top", .purpose = "...", .flags = my_flags, .n_flags = 3, ... };
 *   int command_top(int argc, char **argv)
 *   {
 *           struct my_options options;
 *           struct flag_words words;
 *           int rc = flags_main(&my_spec, argc, argv, &options, &words);
 *           if (rc >= 0)
 *                   return rc;
 *           ...
 */
#ifndef DAEMON_RECCTL_FLAGS_H
#define DAEMON_RECCTL_FLAGS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes of every recctl command. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum flag_type {
	FLAG_INT,    /* int64_t, in [min, max] */
	FLAG_UINT64, /* uint64_t, all of its range */
	FLAG_FLOAT,  /* double, finite, in [min, max] */
	FLAG_STRING, /* const char *; points into argv or at the default */
	FLAG_BOOL,   /* int, 0 or 1; --name, or --name=yes|no|true|false|1|0 */
	FLAG_CHOICE, /* int, index into choices */
	FLAG_IDS,    /* struct flag_ids: ids, 0 to INT64_MAX; the flag may stand more than once, each adds one */
	FLAG_TEXTS,  /* struct flag_texts: texts that are not empty; the flag may stand more than once, each adds one */
};

#define FLAG_IDS_MAX 64
struct flag_ids {
	int count;
	int64_t ids[FLAG_IDS_MAX];
};

#define FLAG_TEXTS_MAX 64
struct flag_texts {
	int count;
	const char *texts[FLAG_TEXTS_MAX]; /* point into argv */
};

struct flag {
	const char *name; /* with '_'; '-' is accepted for it */
	enum flag_type type;
	size_t offset;               /* of the value in the options struct (offsetof) */
	const char *fallback;        /* default as text; NULL: zero, or NULL for a string (shown as no default) */
	double min, max;             /* FLAG_INT and FLAG_FLOAT: allowed range, both ends included */
	const char *const *choices;  /* FLAG_CHOICE: names, NULL at the end */
	const char *placeholder;     /* shown in the help, e.g. "DIR"; NULL: by type */
	const char *help;            /* one or two sentences */
};

struct command_spec {
	const char *name;
	const char *purpose;       /* one line, no full stop */
	const struct flag *flags;
	size_t n_flags;            /* at most 64 */
	const char *positionals;   /* shown in the usage line, e.g. "USER_ID..."; NULL: the command takes none */
	int positionals_min, positionals_max; /* at most FLAG_WORDS_MAX */
	const char *notes;         /* paragraphs under the flags; NULL: none */
	const char *examples;      /* one or more lines, each beginning with "  recctl" */
	const char *exit_codes;    /* extra lines beside the common ones; NULL: none */
};

#define FLAG_WORDS_MAX 64

/* What stood on the line beside flag values. The words point into argv. */
struct flag_words {
	int count;
	const char *words[FLAG_WORDS_MAX];
	uint64_t given; /* bit i: flag i of the table was on the line */
};

/*
 * Fills `options` with the defaults, then with argv[1..argc-1]. Accepts --name VALUE and --name=VALUE; "--" ends the flags; a flag given twice: the
 * last one counts, but for FLAG_IDS and FLAG_TEXTS. Returns 0; 1 when --help was asked for (nothing else is checked then); -EINVAL: errstr says which flag, which value and what is allowed.
 */
int flags_parse(const struct command_spec *spec, int argc, char **argv, void *options, struct flag_words *ret_words, char *errstr, size_t errstr_size);

/* flags_parse() for a main: prints help to stdout or the mistake to stderr. Returns the exit code to leave with, or -1 to go on. */
int flags_main(const struct command_spec *spec, int argc, char **argv, void *options, struct flag_words *ret_words);

/* Whether flag `name` was on the line; there must be such a flag. */
int flags_given(const struct command_spec *spec, const struct flag_words *words, const char *name);

/* The help page of a command. */
void flags_help(const struct command_spec *spec, FILE *out);

/* The nearest of n names to a mistyped word by edit distance ('-' equals '_'), or NULL when none is near. */
const char *flags_nearest(const char *word, const char *const *names, size_t n_names);

#endif
