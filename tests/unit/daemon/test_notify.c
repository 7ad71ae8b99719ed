/*
 * test_notify.c: a socket of our own in the service manager's place, by path and by abstract name; every message as sd_notify(3) wants it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon/notify.h"

static char dir[] = "/tmp/recd-test-notify-XXXXXX";
static char message[1024];

/* Binds a datagram socket; `name` begins with @ for an abstract one. */
static int manager(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));

	assert_true(fd >= 0);
	strncpy(address.sun_path, name, sizeof(address.sun_path) - 1);
	if (name[0] == '@')
		address.sun_path[0] = 0;
	else
		len++;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

/* What the manager got; "" when nothing came. */
static const char *received(int fd)
{
	ssize_t n = recv(fd, message, sizeof(message) - 1, MSG_DONTWAIT);

	message[n > 0 ? n : 0] = 0;
	return message;
}

static uint64_t monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void check_messages(const char *name)
{
	uint64_t before = monotonic_us();
	unsigned long long when;
	int fd = manager(name);

	notify_ready("serving generation 7");
	assert_string_equal(received(fd), "READY=1\nSTATUS=serving generation 7");
	notify_status("%d users, %s", 5, "resting");
	assert_string_equal(received(fd), "STATUS=5 users, resting");
	notify_watchdog();
	assert_string_equal(received(fd), "WATCHDOG=1");
	notify_extend_timeout(90, "loading checkpoint 42");
	assert_string_equal(received(fd), "EXTEND_TIMEOUT_USEC=90000000\nSTATUS=loading checkpoint 42");
	notify_reloading();
	assert_int_equal(sscanf(received(fd), "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=", &when), 1);
	assert_in_range(when, before, monotonic_us());
	notify_stopping("writing the last checkpoint");
	assert_string_equal(received(fd), "STOPPING=1\nSTATUS=writing the last checkpoint");
	assert_string_equal(received(fd), "");
	close(fd);
}

static void test_path(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/notify", dir);
	check_messages(path);
	unlink(path);
}

static void test_abstract(void **state)
{
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "@recd-test-%ld", (long)getpid());
	check_messages(name);
}

/* Without a manager, or with one that is gone, the calls do nothing. */
static void test_no_manager(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	notify_ready("x");
	setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	notify_status("x");
	notify_watchdog();
	unsetenv("NOTIFY_SOCKET");
}

static void test_watchdog(void **state)
{
	char pid[32];

	(void)state;
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	assert_int_equal(notify_watchdog_interval_us(), 0);
	setenv("WATCHDOG_USEC", "30000000", 1);
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(notify_watchdog_interval_us(), 10000000);
	setenv("WATCHDOG_PID", "1", 1); /* meant for another process */
	assert_int_equal(notify_watchdog_interval_us(), 0);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_abstract),
		cmocka_unit_test(test_no_manager),
		cmocka_unit_test(test_watchdog),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
