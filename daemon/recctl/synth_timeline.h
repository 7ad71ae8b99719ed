/*
 * synth_timeline.h: who sees what when. Merges all users' timelines and what follows from each impression into one stream in time order.
 */
#ifndef DAEMON_RECCTL_SYNTH_TIMELINE_H
#define DAEMON_RECCTL_SYNTH_TIMELINE_H

#include "daemon/recctl/progress.h"
#include "daemon/recctl/synth_output.h"

#include <signal.h>

/* What is pending at once (clicked impressions whose watch, like or rating is still to come) is bounded by this ... */
#define SYNTH_PENDING_MAX (1u << 18)
/* ... which is enough up to this many impressions a day; more is refused. */
#define SYNTH_IMPRESSIONS_PER_DAY_MAX 20000000

struct synth_plan {
	uint64_t n_impressions;
	int64_t start_us;          /* UTC microseconds of the first moment */
	int64_t days;              /* at least 1 */
	double min_pos_completion; /* a watch at least this complete is a positive of train_samples */
};

struct synth_counts {
	uint64_t impressions, clicks, play_starts, likes, dislikes, rates, watches, positives, samples;
	uint32_t pending_max; /* most that was pending at once */
};

/*
 * Writes impressions, events, watches and samples. Every file is in time order. `stop` (may be NULL) is looked at now and then: when set, -EINTR.
 * progress may be NULL. 0 or -errno (of a write: synth_output_finish() then has the text); *ret_counts is set on success.
 */
int synth_timeline_run(const struct synth_model *model, const struct synth_plan *plan, struct synth_output *output, struct progress *progress,
                       const volatile sig_atomic_t *stop, struct synth_counts *ret_counts);

#endif
