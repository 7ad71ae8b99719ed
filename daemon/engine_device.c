/*
 * engine_device.c: the device that trains, its loss, and who takes its place. Engine thread.
 *
 * Host memory is the truth: the published generation holds the parameters, the learner's training set the positives. A device that fails, or whose job does not
 * come back in training.device_timeout_ms, is replaced by the CPU backend in the same turn, from the published generation; so recd applies, folds in, serves,
 * publishes and writes checkpoints as before, and has lost nothing but the training since the last publish. training.on_device_loss says what comes then:
 *   rebuild  the device is opened anew after growing pauses, with all that it had, from a generation published for it; REBUILDS_MAX tries in a row, then the CPU keeps it
 *   cpu      the CPU keeps it
 *   exit     recd stops with a last checkpoint and exit code 1
 * A device that hangs cannot be closed: it stays as it is until its job comes back, and is not opened anew before that.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/backends.h"
#include "daemon/engine_internal.h"
#include "daemon/log.h"

#define REBUILDS_MAX 8u
#define REBUILD_HELD_US (600 * 1000000LL) /* a device that worked for so long is trusted again */
#define FACTS_INTERVAL_US 1000000

int engine_device_open(struct engine *engine, char *errstr, size_t errstr_size)
{
	struct engine_device *d = &engine->device;
	const struct backend_ops *ops = &backend_cpu;
	char setting[64];

	snprintf(setting, sizeof(setting), "training.backend = \"%s\"", engine->config.backend);
	const int rc = backends_open_learner(engine->config.backend, setting, &engine->config.learn, &ops, &engine->learner, d->reason, sizeof(d->reason),
	                                     errstr, errstr_size);

	d->wanted = ops == &backend_cpu ? NULL : ops;
	d->since_us = engine_mono_us();
	return rc;
}

/* The CPU backend takes over with the parameters of `copy`, or of the published generation. */
static int cpu_takes_over(struct engine *engine, const struct tables *copy)
{
	struct generation *g = generation_acquire(engine->publisher);
	char errstr[256] = "";
	const int rc = learner_replace_backend(engine->learner, &backend_cpu, g != NULL ? &g->tables : copy, errstr, sizeof(errstr));

	generation_release(engine->publisher, g);
	engine->training.in_flight = engine->training.draining = 0;
	engine->training.trained_since = 0;
	engine->training.dirty = 1;
	if (rc < 0)
		snprintf(engine->fatal_text, sizeof(engine->fatal_text), "%.200s; the CPU cannot take over: %.200s", engine->device.trouble, errstr);
	return rc;
}

/* The CPU keeps it: no more tries. */
static void keep_cpu(struct engine_device *d, const char *why)
{
	d->wanted = NULL;
	d->retry_us = 0;
	snprintf(d->reason, sizeof(d->reason), "%.150s; %s", d->trouble, why);
}

static void plan_rebuild(struct engine *engine, int64_t now_us)
{
	struct engine_device *d = &engine->device;

	if (d->tries >= REBUILDS_MAX) {
		keep_cpu(d, "the CPU trains until a restart, since the device did not come back");
		log_error("the device did not come back in %u tries; the CPU trains until a restart", d->tries);
		return;
	}
	d->retry_us = now_us + ((int64_t)engine->config.device_pause_ms * 1000 << d->tries);
	snprintf(d->reason, sizeof(d->reason), "%.150s; the CPU trains until the device is opened again (try %u of %u)", d->trouble, d->tries + 1, REBUILDS_MAX);
}

/* `why`: the learner's fault in words. */
static int lose(struct engine *engine, const char *why, const struct tables *copy)
{
	struct engine_device *d = &engine->device;
	const int64_t now_us = engine_mono_us();
	int rc;

	d->losses++;
	d->lost_us = now_us;
	d->lost = 1;
	snprintf(d->trouble, sizeof(d->trouble), "%s", why);
	if (now_us - d->since_us >= REBUILD_HELD_US)
		d->tries = 0;
	rc = cpu_takes_over(engine, copy);
	if (rc < 0)
		return rc;
	log_error("device lost: %s; the CPU has taken over in %lld ms (loss %llu since the start)", why, (long long)((engine_mono_us() - now_us) / 1000),
	          (unsigned long long)d->losses);
	if (engine->config.on_device_loss == ON_DEVICE_LOSS_REBUILD) {
		plan_rebuild(engine, now_us);
	} else if (engine->config.on_device_loss == ON_DEVICE_LOSS_CPU) {
		keep_cpu(d, "the CPU trains until a restart");
	} else {
		keep_cpu(d, "recd stops");
		snprintf(d->leave, sizeof(d->leave), "%.200s (training.on_device_loss = \"exit\")", why);
	}
	return 0;
}

int engine_device_start(struct engine *engine, const struct tables *copy, char *errstr, size_t errstr_size)
{
	char why[256];
	const int rc = learner_fault(engine->learner, why, sizeof(why));

	if (rc == 0)
		return 0;
	if (strcmp(engine->config.backend, "auto") == 0)
		return lose(engine, why, copy);
	snprintf(errstr, errstr_size, "training.backend = \"%s\": %s", engine->config.backend, why);
	return rc;
}

/* One try. */
static void rebuild(struct engine *engine)
{
	struct engine_device *d = &engine->device;
	const int64_t began_us = engine_mono_us();
	struct generation *g;
	char errstr[256] = "its job has not come back yet";
	int rc = -EBUSY;

	if (!learner_hung(engine->learner)) {
		if (engine_publish(engine, 1) != 1)
			return; /* no spare generation at this moment: the next turn */
		g = generation_acquire(engine->publisher);
		rc = learner_replace_backend(engine->learner, d->wanted, &g->tables, errstr, sizeof(errstr));
		generation_release(engine->publisher, g);
	}
	d->tries++;
	if (rc == 0) {
		d->lost = 0;
		d->retry_us = 0;
		d->rebuilds++;
		d->since_us = engine_mono_us();
		d->facts_us = 0;
		d->reason[0] = '\0';
		log_info("the device trains again: opened and filled in %lld ms (try %u)", (long long)((d->since_us - began_us) / 1000), d->tries);
		return;
	}
	log_warn("opening the device again failed (try %u of %u): %s", d->tries, REBUILDS_MAX, errstr);
	plan_rebuild(engine, engine_mono_us());
}

int engine_device_step(struct engine *engine)
{
	struct engine_device *d = &engine->device;
	char why[256];

	if (learner_fault(engine->learner, why, sizeof(why)) < 0)
		return lose(engine, why, NULL);
	if (d->retry_us != 0 && engine_mono_us() >= d->retry_us)
		rebuild(engine);
	return 0;
}

void engine_device_quiesce(struct engine *engine)
{
	const int64_t timeout_us = (int64_t)engine->config.device_timeout_ms * 1000;
	struct train_report report;

	while (learner_running(engine->learner) && learner_poll(engine->learner, &report) == 0) {
		if (learner_part_us(engine->learner) > timeout_us)
			learner_give_up(engine->learner);
		else
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

void engine_device_status(struct engine *engine, struct engine_status *s)
{
	struct engine_device *d = &engine->device;
	const int64_t now_us = engine_mono_us();

	if (d->facts_us == 0 || now_us - d->facts_us >= FACTS_INTERVAL_US) {
		learner_facts(engine->learner, &d->facts);
		d->facts_us = now_us;
	}
	snprintf(s->backend, sizeof(s->backend), "%s", learner_backend_name(engine->learner));
	snprintf(s->backend_reason, sizeof(s->backend_reason), "%s", d->reason);
	snprintf(s->precision, sizeof(s->precision), "%s", learner_on_device(engine->learner) && engine->config.learn.precision == PRECISION_BF16 ? "bf16" : "fp32");
	snprintf(s->device_name, sizeof(s->device_name), "%s", d->facts.name);
	snprintf(s->device_driver, sizeof(s->device_driver), "%s", d->facts.driver);
	snprintf(s->device_cuda, sizeof(s->device_cuda), "%s", d->facts.cuda);
	s->device_memory_bytes = d->facts.memory_bytes;
	s->device_memory_used_bytes = d->facts.memory_used_bytes;
	s->device_lost = d->lost;
	s->device_losses = d->losses;
	s->device_rebuilds = d->rebuilds;
	s->device_lost_age_ms = d->losses == 0 ? -1 : (now_us - d->lost_us) / 1000;
	snprintf(s->device_trouble, sizeof(s->device_trouble), "%s", d->trouble);
	snprintf(s->leave, sizeof(s->leave), "%s", d->leave);
}
