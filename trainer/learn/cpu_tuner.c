/*
 * cpu_tuner.c: the trials of cpu_tuner.h.
 *
 * Training goes by stages: long ones with the threads in use, two short ones in a trial, of which the second counts. A stage may be made of many small jobs.
 */
#include "trainer/learn/cpu_tuner.h"

#define STEADY_US 32000
#define WARM_US 3000
#define TRIAL_US 4000
#define WAIT_MIN_US 64000
#define WAIT_MAX_US 4000000
#define WAIT_GROWS 4   /* after a trial that brought nothing */
#define GAIN 1.08      /* what other threads must get done beyond those in use */
#define SLOWER 0.8     /* of what it was: the machine has changed, the next trial comes sooner */
#define DRAWS_MIN 4096u /* a thread's in a part */

void cpu_tuner_init(struct cpu_tuner *tuner, uint32_t threads_max)
{
	*tuner = (struct cpu_tuner){.max = threads_max, .n = threads_max, .wait_us = WAIT_MIN_US};
}

static int64_t stage_length(const struct cpu_tuner *tuner)
{
	return tuner->tried == 0 ? STEADY_US : tuner->warm ? TRIAL_US : WARM_US;
}

struct cpu_part cpu_tuner_next(const struct cpu_tuner *tuner)
{
	struct cpu_part part = {.threads = tuner->tried ? tuner->tried : tuner->n, .draws = UINT64_MAX};

	if (tuner->max > 1) {
		const double guess = part.threads < tuner->n ? tuner->rate * part.threads / tuner->n : tuner->rate;
		const double speed = tuner->stage_us > 0 ? tuner->stage_draws / (double)tuner->stage_us : guess;
		const double want = speed * (double)(stage_length(tuner) - tuner->stage_us);
		const uint64_t least = (uint64_t)DRAWS_MIN * part.threads;

		part.draws = want > (double)least ? (uint64_t)want : least;
	}
	return part;
}

static void begin_trial(struct cpu_tuner *tuner)
{
	const uint32_t twice = tuner->n < tuner->max - tuner->n ? tuner->n * 2 : tuner->max;

	tuner->tried = tuner->n == 1 || (tuner->upwards && tuner->n < tuner->max) ? twice : (tuner->n + 1) / 2;
	tuner->upwards = !tuner->upwards;
	tuner->warm = 0;
}

static void end_trial(struct cpu_tuner *tuner, double rate)
{
	if (rate > tuner->rate * GAIN) {
		tuner->upwards = tuner->tried > tuner->n; /* the same way again */
		tuner->n = tuner->tried;
		tuner->rate = rate;
		tuner->wait_us = WAIT_MIN_US;
	} else {
		tuner->wait_us = tuner->wait_us < WAIT_MAX_US / WAIT_GROWS ? tuner->wait_us * WAIT_GROWS : WAIT_MAX_US;
	}
	tuner->tried = 0;
	tuner->waited_us = 0;
}

static void end_steady(struct cpu_tuner *tuner, double rate)
{
	if (rate < tuner->rate * SLOWER && tuner->wait_us > WAIT_MIN_US)
		tuner->wait_us /= WAIT_GROWS;
	tuner->rate = rate;
	tuner->waited_us += tuner->stage_us;
	if (tuner->waited_us >= tuner->wait_us)
		begin_trial(tuner);
}

void cpu_tuner_note(struct cpu_tuner *tuner, uint64_t draws, int64_t took_us)
{
	if (tuner->max == 1)
		return;
	tuner->stage_draws += (double)draws;
	tuner->stage_us += took_us;
	if (tuner->stage_us < stage_length(tuner))
		return;
	const double rate = tuner->stage_draws / (double)tuner->stage_us;

	if (tuner->tried == 0)
		end_steady(tuner, rate);
	else if (tuner->warm)
		end_trial(tuner, rate);
	else
		tuner->warm = 1;
	tuner->stage_draws = 0;
	tuner->stage_us = 0;
}
