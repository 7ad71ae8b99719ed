/*
 * recctl.c: main of recctl. Finds the command in the table of commands.h and hands it the rest of the line.
 *
 * One thread. Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong use. Each command parses
 * its own flags by its own table (flags.h) and prints its own help.
 */
#include "daemon/recctl/commands.h"
#include "daemon/recctl/flags.h"

#include <stdio.h>
#include <string.h>

struct command {
	const char *name;
	const char *purpose;
	int (*run)(int argc, char **argv);
};

#define RECCTL_ROW(name, purpose) { #name, purpose, command_##name },
static const struct command commands[] = { RECCTL_COMMANDS(RECCTL_ROW) };
#undef RECCTL_ROW
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *out)
{
	fprintf(out, "recctl: the command line of recd, a recommender that learns from logs\n\nUsage: recctl COMMAND [flags]\n\nCommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].purpose);
	fprintf(out,
	        "\n  recctl COMMAND --help   the flags of a command, with examples\n  recctl --version        the version\n"
	        "\nExamples:\n  recctl synth --out_dir data --num_users 1000\n  recctl synth --help\n"
	        "\nExit codes:\n  0  done\n  1  failed; standard error says why\n  2  wrong use: unknown command, unknown flag or bad value\n");
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static int unknown_command(const char *name)
{
	const char *names[N_COMMANDS];

	for (size_t i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	const char *nearest = flags_nearest(name, names, N_COMMANDS);
	if (nearest)
		fprintf(stderr, "recctl: unknown command \"%.64s\"; did you mean \"%s\"?\n", name, nearest);
	else
		fprintf(stderr, "recctl: unknown command \"%.64s\"; `recctl --help` lists the commands\n", name);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static char help_flag[] = "--help";

	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	const char *word = argv[1];
	if (!strcmp(word, "--version")) {
		printf("recctl %s\n", RECCTL_VERSION);
		return EXIT_OK;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
		print_help(stdout);
		return EXIT_OK;
	}
	int asked_for_help = !strcmp(word, "help");
	if (asked_for_help)
		word = argv[2];
	const struct command *command = find_command(word);
	if (!command)
		return unknown_command(word);
	if (asked_for_help) {
		char *help_argv[] = { argv[2], help_flag, NULL };

		return command->run(2, help_argv);
	}
	int rc = command->run(argc - 1, argv + 1);
	if (fflush(stdout) && rc == EXIT_OK) {
		fprintf(stderr, "recctl %s: cannot write to standard output\n", word);
		rc = EXIT_FAILED;
	}
	return rc;
}
