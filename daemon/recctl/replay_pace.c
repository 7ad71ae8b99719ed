/*
 * replay_pace.c: speed in event time or rate in records, as due times of a clock that is handed in. No clock is read and nobody sleeps here.
 */
#include "daemon/recctl/replay_pace.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_US_MAX 3.6e9 /* an hour; the caller asks again */

int64_t replay_pace_wait_us(struct replay_pace *pace, int64_t time_us, int64_t now_us)
{
	double due_us; /* after begin_us */

	if (pace->speed > 0) {
		if (time_us == INT64_MIN)
			return 0;
		if (!pace->begun)
			pace->begin_time_us = time_us;
		due_us = (double)(time_us - pace->begin_time_us) / pace->speed;
	} else if (pace->rate > 0) {
		due_us = (double)pace->taken * 1e6 / pace->rate;
	} else {
		return 0;
	}
	if (!pace->begun)
		pace->begin_us = now_us;
	pace->begun = 1;
	double wait_us = due_us - (double)(now_us - pace->begin_us);
	if (wait_us <= 0)
		return 0;
	return wait_us > WAIT_US_MAX ? (int64_t)WAIT_US_MAX : (int64_t)ceil(wait_us);
}

void replay_pace_taken(struct replay_pace *pace)
{
	pace->taken++;
}

int replay_speed_parse(const char *text, double *ret_speed)
{
	char *end;

	if (!strcmp(text, "max")) {
		*ret_speed = 0;
		return 0;
	}
	if (!text[0] || !strchr("0123456789.", text[0]))
		return -EINVAL;
	double speed = strtod(text, &end);
	if (*end == 'x')
		end++;
	if (*end || !isfinite(speed) || speed < 1e-3 || speed > 1e9)
		return -EINVAL;
	*ret_speed = speed;
	return 0;
}
