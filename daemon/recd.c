/*
 * recd.c: main of the daemon: arguments, configuration, and off. See service.c for what happens then.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/service.h"

/*
 * Settings of jemalloc, where it is linked (see the Makefile); MALLOC_CONF in the environment goes before them. Memory that is no longer used is given back
 * although nobody allocates.
 */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true";

static void print_help(void)
{
	puts("recd - streaming recommender daemon\n"
	     "\n"
	     "  recd [--config FILE]         run in the foreground; logs on stderr\n"
	     "  recd --check-config [...]    read the configuration, say what is wrong, exit\n"
	     "  recd --describe-config       every option with type, range, default and help, as Markdown\n"
	     "  recd --version\n"
	     "\n"
	     "Options\n"
	     "  -c, --config FILE   configuration (default /etc/recd/recd.conf)\n"
	     "\n"
	     "Signals\n"
	     "  SIGHUP    read the configuration again; a bad one is refused and the old one stays\n"
	     "  SIGTERM   stop: last checkpoint, then exit; a second one gives the checkpoint up\n"
	     "\n"
	     "Exit codes\n"
	     "  0  stopped as asked\n"
	     "  1  failed while running; a restart may help\n"
	     "  2  bad arguments or configuration, or backend = \"cuda\" without a usable GPU\n"
	     "  3  data was refused: the data directory is in use by another recd, damaged, or of another shape; or Kafka has lost records that recd had\n"
	     "     not read yet (kafka.on_gap)\n"
	     "\n"
	     "Talk to a running recd with recctl (recctl --help). The manual is recd(8).");
}

int main(int argc, char **argv)
{
	enum { CHECK = 256, DESCRIBE };
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },      { "check-config", no_argument, NULL, CHECK },
		{ "describe-config", no_argument, NULL, DESCRIBE }, { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },           { NULL, 0, NULL, 0 },
	};
	const char *path = "/etc/recd/recd.conf";
	struct config config;
	char errstr[1024];
	int check = 0, c;

	while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case CHECK:
			check = 1;
			break;
		case DESCRIBE:
			config_describe();
			return EXIT_OK;
		case 'h':
			print_help();
			return EXIT_OK;
		case 'V':
			puts("recd " RECD_VERSION);
			return EXIT_OK;
		default:
			fputs("See recd --help.\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "recd: unexpected argument '%s'. See recd --help.\n", argv[optind]);
		return EXIT_USAGE;
	}
	if (config_load(path, &config, errstr, sizeof(errstr)) < 0) {
		fprintf(stderr, "recd: %s\n", errstr);
		config_free(&config);
		return EXIT_USAGE;
	}
	if (check) {
		printf("%s: good\n", path);
		config_free(&config);
		return EXIT_OK;
	}
	return service_run(&config);
}
