/*
 * commands.h: the commands of recctl, one line each: name and one-line purpose. A command lives in daemon/recctl/<name>.c and defines
 * int command_<name>(int argc, char **argv): argv[0] is the command's name; it returns one of the exit codes of flags.h.
 */
#ifndef DAEMON_RECCTL_COMMANDS_H
#define DAEMON_RECCTL_COMMANDS_H

#define RECCTL_VERSION RECD_VERSION

/* In the order of the help page. */
#define RECCTL_COMMANDS(X) \
	X(synth, "writes synthetic logs: catalogue, users, impressions, events, watches") \
	X(replay, "sends historical logs to Kafka topics in the order in which they happened") \
	X(train, "trains both models on logs and judges them on the last watches") \
	X(evaluate, "judges a saved model on the last watches of the logs") \
	X(import, "takes over a model that a Python trainer saved") \
	X(explain, "shows what is recommended to users and why") \
	X(top, "shows the best titles for users") \
	X(status, "shows what a running recd is doing") \
	X(snapshot, "makes a running recd write a checkpoint now")

#define RECCTL_DECLARE(name, purpose) int command_##name(int argc, char **argv);
RECCTL_COMMANDS(RECCTL_DECLARE)
#undef RECCTL_DECLARE

#endif
