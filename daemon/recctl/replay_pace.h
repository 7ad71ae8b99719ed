/*
 * replay_pace.h: when a record is due. A pure function of what has been sent and of a clock that the caller reads.
 */
#ifndef DAEMON_RECCTL_REPLAY_PACE_H
#define DAEMON_RECCTL_REPLAY_PACE_H

#include <stdint.h>

/* Both 0: as fast as it goes. The rest is zero at the start. */
struct replay_pace {
	double speed;          /* event-time seconds a second */
	double rate;           /* records a second */
	int begun;             /* with `speed`: a record with a time has been seen */
	int64_t begin_us;      /* clock of the first record */
	int64_t begin_time_us; /* its event time */
	uint64_t taken;        /* records paced so far */
};

/*
 * Microseconds from now_us (a clock that never goes back) until the next record may be sent; 0: at once. time_us: the record's place in event time, never going
 * back from call to call; INT64_MIN: it has none (catalogue, users) and with `speed` goes at once. A late sender catches up: nothing is forgotten. Asking again
 * for the same record is harmless; replay_pace_taken() moves on.
 */
int64_t replay_pace_wait_us(struct replay_pace *pace, int64_t time_us, int64_t now_us);
void replay_pace_taken(struct replay_pace *pace);

/* "1", "60x", "0.5x", "max" (gives 0). 0 or -EINVAL. */
int replay_speed_parse(const char *text, double *ret_speed);

#endif
