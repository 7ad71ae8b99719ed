/*
 * cpu_tuner.h: how many threads train, found out while they do.
 *
 * Hogwild threads write one another's rows. Where their processors share a cache that costs little; where they do not (several dies, a virtual machine
 * whose processors were moved apart) every row comes from the other side, and two threads can get less done than one. So now and then half
 * as many threads, or twice as many, are tried for some milliseconds, and kept when they get more done. While trials bring nothing they grow rare.
 *
 * Plain state, no clock of its own: the caller says how long what took. One thread.
 */
#ifndef TRAINER_LEARN_CPU_TUNER_H
#define TRAINER_LEARN_CPU_TUNER_H

#include <stdint.h>

struct cpu_tuner {
	uint32_t max, n;     /* threads: at most, and in use */
	uint32_t tried;      /* threads on trial; 0: none */
	int warm;            /* the trial's first stage, in which caches fill, is over */
	int upwards;         /* the next trial is of more threads, where there are more */
	int64_t wait_us;     /* of training between two trials */
	int64_t waited_us;
	double rate;         /* draws a microsecond with n threads; 0: not known yet */
	double stage_draws;  /* of the stage that runs */
	int64_t stage_us;
};

/* What to do next: `draws` draws, or as many as are left, by `threads` threads. */
struct cpu_part {
	uint32_t threads;
	uint64_t draws;
};

/* Begins with all threads, 1 or more. */
void cpu_tuner_init(struct cpu_tuner *tuner, uint32_t threads_max);
struct cpu_part cpu_tuner_next(const struct cpu_tuner *tuner);
/* What became of the last cpu_tuner_next(); of no use for a part too short to occupy all its threads. */
void cpu_tuner_note(struct cpu_tuner *tuner, uint64_t draws, int64_t took_us);

#endif
