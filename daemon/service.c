/*
 * service.c: brings the daemon up, minds it, takes it down. Main thread.
 *
 * Order up: signals blocked, data directory and its lock, server (answers /healthz and /readyz from here on), recovery, sources, engine, READY. Order down:
 * source threads, engine with its last checkpoint (whose positions the sources still commit to their broker), server, sources. A second SIGTERM gives the last
 * checkpoint up: what was applied since the one before is read again. A source that finds data lost which the operator has not accepted stops recd the same
 * way, with the exit code of refused data. The watchdog is pinged only when the heartbeats of the engine and of every source have moved since the last ping.
 */
#include "daemon/service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/engine.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/server.h"
#include "daemon/sources.h"

#define TICK_MS 1000
#define EXTEND_SEC 60
#define STOP_STILL_SEC 120 /* a last checkpoint that stands still this long (its fsync included) gets no more time */
#define UNSOUND_SEC 60 /* an engine that stands still this long makes /healthz say so */

struct service {
	struct config config;
	pthread_mutex_t reload_mutex;
	int data_dir_fd, lock_fd, signal_fd;
	struct server *server;
	struct queue_set *queues;
	struct engine *engine;
	struct source_set *sources;
	pthread_mutex_t mutex; /* sources: the server's threads ask for them */
	uint64_t beats[SOURCE_SET_MAX + 1]; /* heartbeats at the last ping; engine last */
	int64_t pinged_us;
	uint64_t engine_beat;      /* the engine's heartbeat when it was last seen to move, and when that was */
	atomic_llong engine_moved_us;
	uint64_t stop_users_done;  /* progress of the last checkpoint, and when it last moved */
	int64_t stop_moved_us;
	int64_t checkpoint_errors_logged;
	uint32_t checkpoint_logged;
	char trouble_logged[160];
	int stopping;
	int refused; /* a source found data lost: the exit code says so */
	int leaving; /* the engine asked to stop: the same */
};

static int64_t mono_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void beat(void *ctx, const char *what)
{
	struct service *s = ctx;
	char text[128];

	snprintf(text, sizeof(text), "loading the checkpoint: %s", what);
	server_set_waiting_for(s->server, text);
	notify_extend_timeout(EXTEND_SEC, text);
}

/* -- callbacks of the server's threads -- */

static int reload(void *ctx, char *ret_text, size_t ret_text_size)
{
	struct service *s = ctx;
	struct config fresh;
	char ignored[512];
	int rc;

	pthread_mutex_lock(&s->reload_mutex);
	rc = config_load(s->config.path, &fresh, ret_text, ret_text_size);
	if (rc == 0) {
		config_reload(&s->config, &fresh, ignored, sizeof(ignored));
		log_setup(s->config.log_level, s->config.log_format);
		engine_reconfigure(s->engine, &s->config);
		snprintf(ret_text, ret_text_size, "configuration reloaded%s%s", ignored[0] != '\0' ? "; needs a restart: " : "", ignored);
		log_info("%s", ret_text);
	} else {
		log_error("reload refused, the old configuration stays: %s", ret_text);
	}
	config_free(&fresh);
	pthread_mutex_unlock(&s->reload_mutex);
	return rc;
}

static size_t list_sources(void *ctx, struct source_status *ret_sources, size_t max)
{
	struct service *s = ctx;
	size_t n = 0;

	pthread_mutex_lock(&s->mutex);
	if (s->sources != NULL)
		for (; n < source_set_count(s->sources) && n < max; n++)
			source_set_status(s->sources, n, &ret_sources[n]);
	pthread_mutex_unlock(&s->mutex);
	return n;
}

static size_t list_partitions(void *ctx, struct partition_status *ret_partitions, size_t max)
{
	struct service *s = ctx;
	size_t n = 0;

	pthread_mutex_lock(&s->mutex);
	if (s->sources != NULL)
		n = source_set_partitions(s->sources, ret_partitions, max);
	pthread_mutex_unlock(&s->mutex);
	return n;
}

/* The engine's thread: a checkpoint is durable, so the brokers may be told how far it has come. */
static void commit_durable(void *ctx, const struct source_position *positions, size_t n_positions)
{
	struct service *s = ctx;

	pthread_mutex_lock(&s->mutex);
	if (s->sources != NULL)
		source_set_commit(s->sources, positions, n_positions);
	pthread_mutex_unlock(&s->mutex);
}

static int sound(void *ctx, char *ret_reason, size_t ret_reason_size)
{
	struct service *s = ctx;
	const int64_t moved_us = atomic_load(&s->engine_moved_us);
	const int64_t still_sec = moved_us == 0 ? 0 : (mono_us() - moved_us) / 1000000;

	if (still_sec < UNSOUND_SEC)
		return 1;
	snprintf(ret_reason, ret_reason_size, "the engine has not moved for %lld s", (long long)still_sec);
	return 0;
}

/* Errors may have several lines; each becomes a line of the log. */
static void log_error_lines(const char *prefix, const char *text)
{
	while (*text != '\0') {
		const size_t len = strcspn(text, "\n");

		log_error("%s%.*s", prefix, (int)len, text);
		text += len + (text[len] == '\n');
	}
}

/* -- up -- */

static int open_signals(struct service *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -errno : 0;
}

static int open_data_dir(struct service *s)
{
	char errstr[512];
	int rc = 0;

	if (mkdir(s->config.data_dir, 0750) < 0 && errno != EEXIST)
		rc = -errno;
	if (rc == 0) {
		s->data_dir_fd = open(s->config.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (s->data_dir_fd < 0)
			rc = -errno;
	}
	if (rc < 0) {
		log_error("data_dir %s: %s", s->config.data_dir, strerror(-rc));
		return rc;
	}
	rc = lock_take(s->data_dir_fd, s->config.data_dir, &s->lock_fd, errstr, sizeof(errstr));
	if (rc < 0)
		log_error("%s", errstr);
	return rc;
}

static int open_server(struct service *s)
{
	const struct api_context context = { .ctx = s, .reload = reload, .sources = list_sources, .partitions = list_partitions, .sound = sound, .queues = s->queues };
	char errstr[512];
	const int rc = server_start(&s->config, &context, &s->server, errstr, sizeof(errstr));

	if (rc < 0)
		log_error("%s", errstr);
	return rc;
}

static int open_queues(struct service *s)
{
	int enabled[STREAM_COUNT];
	int rc;

	for (int i = 0; i < STREAM_COUNT; i++)
		enabled[i] = s->config.streams[i].n_files > 0 || s->config.streams[i].topic != NULL;
	rc = queue_set_new(s->config.queue_batches, enabled, &s->queues);
	if (rc < 0)
		log_error("queues: %s", strerror(-rc));
	return rc;
}

static int recover(struct service *s)
{
	char errstr[2048];
	int rc;

	rc = engine_open(&s->config, s->data_dir_fd, s->queues, beat, s, &s->engine, errstr, sizeof(errstr));
	if (rc < 0) {
		log_error_lines("", errstr);
		return rc;
	}
	log_error_lines("damaged checkpoint passed over: ", engine_skipped_checkpoints(s->engine));
	return 0;
}

/* One line: what trains, and why not something better. */
static void log_backend(const struct engine_status *status)
{
	char device[192] = "";

	if (status->device_memory_bytes != 0)
		snprintf(device, sizeof(device), " (%s, driver %s, CUDA %s, %.1f of %.1f GB used, %s)", status->device_name,
		         status->device_driver[0] != '\0' ? status->device_driver : "unknown", status->device_cuda,
		         (double)status->device_memory_used_bytes / 1e9, (double)status->device_memory_bytes / 1e9, status->precision);
	log_info("training on %s%s%s%s", status->backend, device, status->backend_reason[0] != '\0' ? ": " : "", status->backend_reason);
}

static int start_all(struct service *s)
{
	struct engine_status status;
	struct source_set *sources = NULL;
	const struct source_position *positions;
	char errstr[1024];
	size_t n;
	int rc;

	positions = engine_positions(s->engine, &n);
	rc = source_set_open(&s->config, positions, n, s->queues, &sources, errstr, sizeof(errstr));
	pthread_mutex_lock(&s->mutex);
	s->sources = sources; /* before the engine: its first checkpoint is committed too */
	pthread_mutex_unlock(&s->mutex);
	engine_on_durable(s->engine, commit_durable, s);
	if (rc == 0)
		rc = engine_start(s->engine, errstr, sizeof(errstr));
	if (rc == 0)
		rc = source_set_start(sources, errstr, sizeof(errstr));
	if (rc < 0) {
		log_error("%s", errstr);
		return rc;
	}
	engine_get_status(s->engine, &status);
	s->checkpoint_logged = status.checkpoint_number;
	if (status.checkpoint_number != 0)
		log_info("recovered checkpoint %u: %u users, %u items, %llu positives", status.checkpoint_number, status.n_users, status.n_items,
		         (unsigned long long)status.n_positives);
	else
		log_info("first start: no checkpoint in %s", s->config.data_dir);
	log_backend(&status);
	server_set_engine(s->server, s->engine);
	notify_ready("consuming");
	log_info("ready: answering on %s", s->config.socket_path);
	return 0;
}

/* -- running -- */

/* Pings the watchdog when everything that should move has moved. */
static void mind_watchdog(struct service *s, const struct engine_status *status)
{
	const uint64_t interval_us = notify_watchdog_interval_us();
	struct source_status sources[SOURCE_SET_MAX];
	const size_t n = s->stopping ? 0 : list_sources(s, sources, SOURCE_SET_MAX); /* their threads have ended then */

	if (interval_us == 0 || mono_us() - s->pinged_us < (int64_t)interval_us)
		return;
	if (status->heartbeat == s->beats[SOURCE_SET_MAX])
		return;
	for (size_t i = 0; i < n; i++)
		if (sources[i].heartbeat == s->beats[i] && !sources[i].degraded)
			return;
	s->beats[SOURCE_SET_MAX] = status->heartbeat;
	for (size_t i = 0; i < n; i++)
		s->beats[i] = sources[i].heartbeat;
	s->pinged_us = mono_us();
	notify_watchdog();
}

static void log_news(struct service *s, const struct engine_status *status)
{
	if (status->checkpoint_failures > 0 && (int64_t)status->checkpoint_failures != s->checkpoint_errors_logged)
		log_error("checkpoint failed (%llu in a row): %s; the last good one is %u", (unsigned long long)status->checkpoint_failures,
		          status->checkpoint_error, status->checkpoint_number);
	s->checkpoint_errors_logged = (int64_t)status->checkpoint_failures;
	if (status->checkpoint_number != s->checkpoint_logged)
		log_info("checkpoint %u durable: %.1f MB in %lld ms", status->checkpoint_number, (double)status->checkpoint_bytes / 1e6,
		         (long long)status->checkpoint_duration_ms);
	s->checkpoint_logged = status->checkpoint_number;
	if (strcmp(status->training_trouble, s->trouble_logged) != 0)
		log_error("training: %s", status->training_trouble);
	snprintf(s->trouble_logged, sizeof(s->trouble_logged), "%s", status->training_trouble);
}

static void tick(struct service *s)
{
	struct engine_status status;

	engine_get_status(s->engine, &status);
	if (status.heartbeat != s->engine_beat || atomic_load(&s->engine_moved_us) == 0)
		atomic_store(&s->engine_moved_us, mono_us());
	s->engine_beat = status.heartbeat;
	mind_watchdog(s, &status);
	log_news(s, &status);
	if (status.checkpoint_users_done != s->stop_users_done || s->stop_moved_us == 0)
		s->stop_moved_us = mono_us();
	s->stop_users_done = status.checkpoint_users_done;
	if (s->stopping && mono_us() - s->stop_moved_us < STOP_STILL_SEC * 1000000LL)
		notify_extend_timeout(EXTEND_SEC, "writing the last checkpoint");
	else if (!s->stopping)
		notify_status("%u users, %u items, %llu positives; %.0f lines/s, %.2f M triples/s%s; generation %llu, checkpoint %u", status.n_users,
		              status.n_items, (unsigned long long)status.n_positives, status.apply_per_sec, status.triples_per_sec / 1e6,
		              status.training_resting ? " (resting)" : "", (unsigned long long)status.generation, status.checkpoint_number);
}

static void begin_stop(struct service *s)
{
	if (s->stopping++ > 0) {
		log_warn("stopping at once, without a last checkpoint");
		engine_request_stop(s->engine, 1);
		return;
	}
	log_info("stopping: sources first, then a last checkpoint");
	notify_stopping("stopping");
	queue_set_close(s->queues);
	source_set_stop(s->sources);
	engine_request_stop(s->engine, 0);
}

/* Data is lost that the operator has not said may be: nothing past it was taken, so a last checkpoint is safe, and then recd must not go on. */
static void heed_refusal(struct service *s)
{
	char text[2048];

	if (s->refused || s->sources == NULL || !source_set_refused(s->sources, text, sizeof(text)))
		return;
	s->refused = 1;
	log_error_lines("", text);
	if (!s->stopping)
		begin_stop(s);
}

/* The engine asks to stop: as by SIGTERM, with an exit code that says it was not asked to. */
static void heed_leave(struct service *s)
{
	struct engine_status status;

	engine_get_status(s->engine, &status);
	if (s->leaving || status.leave[0] == '\0')
		return;
	s->leaving = 1;
	log_error("recd stops: %s", status.leave);
	if (!s->stopping)
		begin_stop(s);
}

static void take_signals(struct service *s)
{
	struct signalfd_siginfo info;
	char text[1024];

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo != SIGHUP) {
			begin_stop(s);
			continue;
		}
		if (s->stopping)
			continue;
		notify_reloading();
		(void)reload(s, text, sizeof(text)); /* logged there */
		notify_ready("consuming");
	}
}

static int run_until_ended(struct service *s)
{
	const uint64_t interval_us = notify_watchdog_interval_us();
	const int timeout_ms = interval_us != 0 && interval_us / 1000 < TICK_MS ? (int)(interval_us / 1000) : TICK_MS;
	struct pollfd fds[2] = { { .fd = s->signal_fd, .events = POLLIN }, { .fd = engine_end_fd(s->engine), .events = POLLIN } };
	char errstr[512];
	int error = 0;

	while (!engine_ended(s->engine, &error, errstr, sizeof(errstr))) {
		if (poll(fds, 2, timeout_ms) < 0 && errno != EINTR)
			return -errno;
		take_signals(s);
		heed_refusal(s);
		heed_leave(s);
		tick(s);
	}
	tick(s);
	if (error < 0)
		log_error("the engine stopped: %s; the last good checkpoint stays", errstr);
	if (error == 0 && s->leaving)
		return -EIO;
	return error == 0 && s->refused ? -EUCLEAN : error;
}

static void close_all(struct service *s)
{
	if (s->server != NULL)
		server_set_engine(s->server, NULL);
	if (s->sources != NULL) {
		struct source_set *sources = s->sources;

		pthread_mutex_lock(&s->mutex);
		s->sources = NULL;
		pthread_mutex_unlock(&s->mutex);
		queue_set_close(s->queues);
		source_set_close(sources);
	}
	server_stop(s->server);
	if (s->engine != NULL)
		engine_request_stop(s->engine, 1);
	engine_close(s->engine);
	queue_set_free(s->queues);
	lock_release(s->lock_fd);
	if (s->data_dir_fd >= 0)
		close(s->data_dir_fd);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	pthread_mutex_destroy(&s->mutex);
	pthread_mutex_destroy(&s->reload_mutex);
	config_free(&s->config);
}

static int exit_code(int rc)
{
	switch (rc) {
	case 0:
		return EXIT_OK;
	case -EUCLEAN:
	case -EMEDIUMTYPE:
	case -EBUSY:
		return EXIT_DATA_REFUSED;
	case -EINVAL:
	case -ENODEV:
		return EXIT_USAGE;
	default:
		return EXIT_FAILED;
	}
}

int service_run(struct config *config)
{
	struct service s = { .config = *config, .data_dir_fd = -1, .lock_fd = -1, .signal_fd = -1 };
	int rc;

	pthread_mutex_init(&s.mutex, NULL);
	pthread_mutex_init(&s.reload_mutex, NULL);
	log_setup(s.config.log_level, s.config.log_format);
	rc = open_signals(&s);
	if (rc == 0)
		rc = open_data_dir(&s);
	if (rc == 0)
		rc = open_queues(&s);
	if (rc == 0)
		rc = open_server(&s);
	if (rc == 0)
		rc = recover(&s);
	if (rc == 0)
		rc = start_all(&s);
	if (rc == 0)
		rc = run_until_ended(&s);
	close_all(&s);
	return exit_code(rc);
}
