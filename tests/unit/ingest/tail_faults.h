/* tail_faults.h: what the tests of the file tail's faults share: rotating, and saying that nothing was lost. Include after cmocka.h. */
#ifndef TAIL_FAULTS_H
#define TAIL_FAULTS_H

#include "tests/unit/ingest/tail_world.h"

#define AT(w) world_position(w, "a.jsonl")

static inline void shift_rotated(struct world *w)
{
	char from[32], to[32];

	for (int i = 8; i >= 1; i--) {
		snprintf(from, sizeof(from), "a.jsonl.%d", i);
		snprintf(to, sizeof(to), "a.jsonl.%d", i + 1);
		if (access(world_path(w, from), F_OK) == 0)
			world_rename(w, from, to);
	}
}

static inline void rotate(struct world *w)
{
	shift_rotated(w);
	world_rename(w, "a.jsonl", "a.jsonl.1");
}

static inline void copytruncate(struct world *w)
{
	shift_rotated(w);
	world_copy(w, "a.jsonl", "a.jsonl.1");
	world_truncate(w, "a.jsonl");
}

static inline int is_degraded(struct world *w, const char *words)
{
	struct source_status status;

	source_status(w->source, &status);
	if (words && status.degraded && !strstr(status.reason, words))
		fprintf(stderr, "reason: %s\n", status.reason);
	return status.degraded && (!words || strstr(status.reason, words));
}

static inline void assert_clean(struct world *w, int64_t lines)
{
	if (world_wrong(w, 0, lines) != 0 || w->now.delivered != (uint64_t)lines) {
		for (int64_t i = 0, shown = 0; i < lines && shown < 5; i++)
			if (w->now.seen[i] != 1)
				shown += fprintf(stderr, "line %lld: %d times\n", (long long)i, w->now.seen[i]) > 0;
		fail_msg("%lld lines wrong, %llu delivered of %lld", (long long)world_wrong(w, 0, lines), (unsigned long long)w->now.delivered,
		         (long long)lines);
	}
	assert_int_equal(w->now.refused, 0);
}

static inline void assert_no_loss(struct world *w, int64_t lines)
{
	assert_clean(w, lines);
	assert_int_equal(AT(w)->gaps, 0);
	assert_int_equal(AT(w)->lines, lines);
}

#endif
