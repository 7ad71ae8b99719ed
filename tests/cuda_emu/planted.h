/*
 * planted.h: runs small CUDA programs, each with a bug planted and without it, each in a process of its own.
 *
 * A program is a function of one number: 1 plants the bug, 0 is the correct twin. It returns 0 when its results are right. With the bug, the process must
 * end badly and say the words that the table names for this build; without it, it must end well and say nothing, under every seed tried.
 */
#ifndef TESTS_CUDA_EMU_PLANTED_H
#define TESTS_CUDA_EMU_PLANTED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#if defined(__SANITIZE_ADDRESS__)
#define PLANTED_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define PLANTED_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLANTED_ASAN 1
#elif __has_feature(thread_sanitizer)
#define PLANTED_TSAN 1
#endif
#endif

#define PLANTED_MAX 64
#define WRONG "wrong result" /* the program saw it itself */
#define RACE "ThreadSanitizer: data race"
#define OVERFLOW_FOUND "AddressSanitizer: heap-buffer-overflow"

struct planted {
	const char *name;
	int (*run)(int planted);
	const char *plain; /* what a build without sanitizers says; NULL: it cannot see this bug */
	const char *asan;  /* with AddressSanitizer and UBSan */
	const char *tsan;  /* with ThreadSanitizer */
	int seeds;         /* schedules to try: seeds 0..seeds - 1 */
};

static inline const char *planted_evidence(const struct planted *p)
{
#if defined(PLANTED_ASAN)
	return p->asan;
#elif defined(PLANTED_TSAN)
	return p->tsan;
#else
	return p->plain;
#endif
}

/* The child: never returns. */
static inline void planted_child(const struct planted *table, size_t n, char **argv)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, argv[1]))
			continue;
		int wrong = table[i].run(atoi(argv[2]));
		if (wrong)
			fprintf(stderr, "%s\n", WRONG);
		exit(wrong ? 3 : 0);
	}
	exit(2);
}

/* Runs one program in a new process; text: what it wrote. Returns 1 when it ended well. */
static inline int planted_process(const struct planted *p, int planted, int seed, char *text, size_t size)
{
	int ends[2];
	char seed_text[16];
	snprintf(seed_text, sizeof seed_text, "%d", seed);
	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		setenv("CUDA_EMU_SEED", seed_text, 1);
		char options[512]; /* TSan sleeps for a second before each end */
		const char *given = getenv("TSAN_OPTIONS");
		snprintf(options, sizeof options, "%s:atexit_sleep_ms=0:history_size=0", given ? given : "");
		setenv("TSAN_OPTIONS", options, 1);
		execl("/proc/self/exe", "planted", p->name, planted ? "1" : "0", static_cast<char *>(nullptr));
		_exit(127);
	}
	close(ends[1]);
	size_t length = 0;
	char rest[4096];
	for (;;) {
		int full = length + 1 >= size;
		ssize_t got = full ? read(ends[0], rest, sizeof rest) : read(ends[0], text + length, size - 1 - length);
		if (got <= 0)
			break;
		length += full ? 0 : static_cast<size_t>(got);
	}
	text[length] = '\0';
	close(ends[0]);
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static inline void planted_test(void **state)
{
	const struct planted *p = static_cast<const struct planted *>(*state);
	static char text[1 << 16];
	for (int seed = 0; seed < p->seeds; seed++) {
		if (!planted_process(p, 0, seed, text, sizeof text) || text[0])
			fail_msg("the correct program is refused with seed %d:\n%s", seed, text);
	}
	const char *evidence = planted_evidence(p);
	if (!evidence) {
		print_message("SKIP %s: this build cannot see the bug; %s does\n", p->name,
		              p->asan ? "AddressSanitizer" : p->tsan ? "ThreadSanitizer" : "UBSan");
		skip();
	}
	for (int seed = 0; seed < p->seeds; seed++) {
		int well = planted_process(p, 1, seed, text, sizeof text);
		if (!well && strstr(text, evidence))
			return;
		if (!well)
			fail_msg("the bug was seen with seed %d, but not as \"%s\":\n%s", seed, evidence, text);
	}
	fail_msg("the bug was not seen in %d schedules", p->seeds);
}

static inline int planted_main(const struct planted *table, size_t n, int argc, char **argv)
{
	static struct CMUnitTest tests[PLANTED_MAX];
	if (argc == 3)
		planted_child(table, n, argv);
	for (size_t i = 0; i < n && i < PLANTED_MAX; i++) {
		tests[i].name = table[i].name;
		tests[i].test_func = planted_test;
		tests[i].initial_state = const_cast<struct planted *>(&table[i]);
	}
	return _cmocka_run_group_tests("planted", tests, n, nullptr, nullptr);
}

#endif
