/*
 * test_tail_torture.c: test E of the failure list. A writer appends numbered lines and rotates its log in every way; a child process tails it and is
 * killed (SIGKILL) again and again, starting from its last cut. In the end each line that was not destroyed on disk has been counted exactly once, no
 * line twice, and if lines were destroyed before they were read, gaps say so.
 *
 * RECD_TEST_SCALE multiplies 50,000 lines, 40 rotations and 40 kills (20: a million lines). RECD_TEST_SEED repeats a run; the seed is printed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

#define WORLD_LINES 1000000
#include "tests/unit/ingest/tail_world.h"

#define LATE_MS_MAX 60 /* a late write that took longer than this may come after the file was given up */
#define FILES_MAX 64
#define RANGES_MAX 512

enum kind { RENAME, LATE, HALF_LINE, COPYTRUNCATE, COPYTRUNCATE_REGROWN, DESTROY_TRUNCATE, DESTROY_ROTATED, DESTROY_LIVE, KINDS };
static const char *const kind_names[KINDS] = {"rename", "late writes", "half line", "copytruncate", "copytruncate, regrown",
                                              "truncated", "rotated file removed", "live file removed"};

struct file_lines {
	char name[64];
	int64_t ranges[RANGES_MAX][2];
	int n;
};

static struct world *w;
static uint64_t random_state;
static int64_t next_line;
static uint8_t *destroyed, *excused; /* per line */
static struct file_lines live;
static struct file_lines rotated[FILES_MAX]; /* oldest first */
static int n_rotated, n_dated, dated; /* dated: this run names rotated files by date, not by number */
static pid_t child;
static int64_t child_started_ms, lifetime_ms; /* of this child: not killed before */
static int kills_done, kills_wanted;
static int64_t lines_wanted;

static uint32_t below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state * 0x2545F4914F6CDD1Du) >> 32) % n;
}

static void nap(unsigned us)
{
	struct timespec t = {0, (long)us * 1000};

	nanosleep(&t, NULL);
}

static int64_t ms_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the child ---- */

static void cut_path(char *out, size_t size, const char *suffix)
{
	snprintf(out, size, "%s.cut%s", w->dir, suffix);
}

static size_t cut_size(void)
{
	return offsetof(struct world_state, seen) + (size_t)lines_wanted;
}

static void load_cut(struct world_state *state)
{
	char path[400];
	FILE *file;

	cut_path(path, sizeof(path), "");
	memset(state, 0, sizeof(*state));
	file = fopen(path, "rbe");
	if (file && fread(state, cut_size(), 1, file) != 1)
		world_die("cut");
	if (file)
		fclose(file);
}

/* Written beside and renamed: the cut is the old one or the new one. A SIGKILL loses nothing that was written, so no fsync. */
static void save_cut(const struct world_state *state)
{
	char path[400], temporary[400];
	FILE *file;

	cut_path(path, sizeof(path), "");
	cut_path(temporary, sizeof(temporary), ".new");
	file = fopen(temporary, "wbe");
	if (!file || fwrite(state, cut_size(), 1, file) != 1 || fclose(file) != 0 || rename(temporary, path) < 0)
		world_die("cut");
}

/* With RECD_TEST_VERBOSE: what each batch brought. */
static void log_batch(void)
{
	const struct source_position *p = &w->batch->position;

	printf("  %d: %s dev:ino %" PRIu64 ":%" PRIu64 " offset %" PRId64 " mtime %" PRId64 "%s gaps %" PRIu64 " resets %" PRIu64 ": %u lines", (int)getpid(),
	       strrchr(p->name, '/') + 1, p->device, p->inode, p->offset, p->mark_time_ns, p->retired ? " retired" : "", p->gaps, p->resets,
	       w->batch->n_events);
	if (w->batch->n_events > 0)
		printf(", from %" PRId64, w->batch->events[0].user_id);
	printf("\n");
	fflush(stdout);
}

static void be_the_child(void)
{
	int verbose = getenv("RECD_TEST_VERBOSE") != NULL, changed = 0;
	int64_t saved_ms = 0;

	load_cut(&w->now);
	world_open(w);
	for (;;) {
		int came = world_poll(w, 5);

		if (came && verbose)
			log_batch();
		changed = changed || came;
		if (changed && (!came || ms_now() - saved_ms > 3)) {
			save_cut(&w->now);
			saved_ms = ms_now();
			changed = 0;
		}
	}
}

static void start_child(void)
{
	child_started_ms = ms_now();
	lifetime_ms = 1 + below(40);
	child = fork();
	if (child < 0)
		world_die("fork");
	if (child == 0) {
		be_the_child();
		_exit(3);
	}
}

static void stop_child(int expected_signal)
{
	int status;

	if (child <= 0)
		return;
	kill(child, expected_signal);
	if (waitpid(child, &status, 0) != child)
		world_die("waitpid");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != expected_signal) {
		fprintf(stderr, "the child ended by itself: status %d\n", status);
		exit(1);
	}
	child = 0;
}

/* Kills as often as wanted, spread over the lines, but not before it lived a little; sometimes the child stays down for a while. */
static void maybe_kill(void)
{
	static int down_for;

	if (child == 0) {
		if (--down_for <= 0)
			start_child();
		return;
	}
	if (ms_now() - child_started_ms < lifetime_ms)
		return;
	if (kills_done < kills_wanted && next_line * kills_wanted > (kills_done + 1) * lines_wanted - (int64_t)below(1000)) {
		stop_child(SIGKILL);
		kills_done++;
		down_for = (int)below(8);
		if (down_for == 0)
			start_child();
	}
}

/* ---- the writer ---- */

static void note_lines(struct file_lines *file, int64_t first, int64_t last)
{
	if (file->n > 0 && file->ranges[file->n - 1][1] == first) {
		file->ranges[file->n - 1][1] = last;
		return;
	}
	if (file->n == RANGES_MAX)
		world_die("too many ranges");
	file->ranges[file->n][0] = first;
	file->ranges[file->n++][1] = last;
}

static int64_t write_lines(struct file_lines *file, const char *name, int64_t count)
{
	int64_t first = next_line;

	if (count > lines_wanted - next_line)
		count = lines_wanted - next_line;
	if (count <= 0)
		return first;
	next_line += count;
	world_lines(w, name, first, next_line);
	note_lines(file, first, next_line);
	return first;
}

static void mark(uint8_t *marks, const struct file_lines *file, int value)
{
	for (int i = 0; i < file->n; i++)
		memset(marks + file->ranges[i][0], value, (size_t)(file->ranges[i][1] - file->ranges[i][0]));
}

/*
 * Its lines are destroyed. If the cut's position is in it, the child must notice (2). If the position is on an older file still, a
 * tail that is down cannot know that there was another one (1).
 */
static void mark_destroyed(const struct file_lines *file, const char *name)
{
	static struct world_state cut;
	struct stat st;
	int known = 0;

	load_cut(&cut);
	if (stat(world_path(w, name), &st) < 0)
		world_die(name);
	for (size_t i = 0; i < cut.n_positions; i++)
		known = known || (!strstr(cut.positions[i].name, "#rotated:") && cut.positions[i].inode == (uint64_t)st.st_ino &&
		                  file->n > 0 && cut.seen[file->ranges[0][0]] != 0);
	mark(destroyed, file, known ? 2 : 1);
}

/* The name for the next rotated file: a date, or 1 after the others were renamed as logrotate does: the oldest first, each to the next number. */
static const char *next_name(void)
{
	static char name[64];

	if (dated) {
		snprintf(name, sizeof(name), "a.jsonl-20251210%06d", n_dated++);
		return name;
	}
	for (int i = 0; i < n_rotated; i++) {
		char to[64];

		snprintf(to, sizeof(to), "a.jsonl.%ld", strtol(rotated[i].name + 8, NULL, 10) + 1);
		if (access(world_path(w, to), F_OK) == 0)
			world_die("a rotated file in the way");
		world_rename(w, rotated[i].name, to);
		snprintf(rotated[i].name, sizeof(rotated[i].name), "%s", to);
	}
	return "a.jsonl.1";
}

/* Old files go, long after they were read: the child has had several seconds, or is given them. */
static void forget_oldest(void)
{
	mark(excused, &rotated[0], 1);
	unlink(world_path(w, rotated[0].name));
	n_rotated--;
	memmove(&rotated[0], &rotated[1], (size_t)n_rotated * sizeof(rotated[0]));
}

static struct file_lines *note_rotated(const char *name)
{
	struct file_lines *file;

	if (n_rotated == FILES_MAX)
		forget_oldest();
	file = &rotated[n_rotated++];
	*file = live;
	snprintf(file->name, sizeof(file->name), "%s", name);
	live.n = 0;
	return file;
}

static void late_writes(struct file_lines *old)
{
	int64_t before_ms = ms_now(), first;

	write_lines(&live, "a.jsonl", 20);
	nap(below(8000));
	first = write_lines(old, old->name, 20);
	if (ms_now() - before_ms > LATE_MS_MAX)
		memset(excused + first, 1, (size_t)(next_line - first));
}

static void half_line(void)
{
	char line[300];
	size_t len = world_line(line, sizeof(line), next_line), half = 1 + below((uint32_t)len - 2);
	int64_t before_ms = ms_now(), number = next_line;
	struct file_lines *old;
	const char *name;

	if (next_line >= lines_wanted)
		return;
	next_line++;
	note_lines(&live, number, number + 1);
	world_write(w, "a.jsonl", line, half);
	nap(below(5000));
	name = next_name();
	world_rename(w, "a.jsonl", name);
	old = note_rotated(name);
	write_lines(&live, "a.jsonl", 10);
	nap(below(3000));
	world_write(w, old->name, line + half, len - half);
	if (ms_now() - before_ms > LATE_MS_MAX / 2)
		excused[number] = 1;
}

static void rotate(enum kind kind)
{
	const char *name;

	nap(6000); /* no two files are written last in the same tick of the clock */
	switch (kind) {
	case HALF_LINE:
		half_line();
		break;
	case COPYTRUNCATE:
	case COPYTRUNCATE_REGROWN: {
		int64_t lines = 0;

		name = next_name();
		world_copy(w, "a.jsonl", name);
		if (below(2))
			nap(below(4000));
		world_truncate(w, "a.jsonl");
		for (int i = 0; i < live.n; i++)
			lines += live.ranges[i][1] - live.ranges[i][0];
		note_rotated(name);
		if (kind == COPYTRUNCATE_REGROWN)
			write_lines(&live, "a.jsonl", lines + 10);
		break;
	}
	case DESTROY_TRUNCATE:
		mark_destroyed(&live, "a.jsonl");
		world_truncate(w, "a.jsonl");
		live.n = 0;
		break;
	case DESTROY_LIVE:
		mark_destroyed(&live, "a.jsonl");
		unlink(world_path(w, "a.jsonl"));
		live.n = 0;
		break;
	case DESTROY_ROTATED:
		if (n_rotated > 0) {
			mark_destroyed(&rotated[n_rotated - 1], rotated[n_rotated - 1].name);
			unlink(world_path(w, rotated[--n_rotated].name));
		}
		break;
	default:
		name = next_name();
		world_rename(w, "a.jsonl", name);
		note_rotated(name);
		if (kind == LATE)
			late_writes(&rotated[n_rotated - 1]);
		break;
	}
	nap(6000);
}

/* Waits until the child's cut stops changing. */
static void settle(void)
{
	uint64_t before = UINT64_MAX;
	int still = 0;

	if (child == 0)
		start_child();
	while (still < 10) {
		nap(40000);
		load_cut(&w->now);
		still = w->now.delivered == before ? still + 1 : 0;
		before = w->now.delivered;
	}
}

static int verify(void)
{
	int64_t twice = 0, missing = 0, lost = 0, lost_knowably = 0, shown = 0, n_destroyed = 0, n_excused = 0;
	uint64_t gaps = 0, gap_bytes = 0, resets = 0, lines = 0;

	for (int64_t i = 0; i < next_line; i++) {
		int seen = w->now.seen[i], bad = seen > 1 || (seen == 0 && !destroyed[i] && !excused[i]);

		n_destroyed += destroyed[i] != 0;
		n_excused += excused[i];
		twice += seen > 1;
		missing += seen == 0 && !destroyed[i] && !excused[i];
		lost += seen == 0 && destroyed[i];
		lost_knowably += seen == 0 && destroyed[i] == 2;
		if (bad && shown++ < 10)
			fprintf(stderr, "line %" PRId64 ": counted %d times\n", i, seen);
	}
	for (size_t i = 0; i < w->now.n_positions; i++) {
		gaps += w->now.positions[i].gaps;
		gap_bytes += w->now.positions[i].gap_bytes;
		resets += w->now.positions[i].resets;
		lines += w->now.positions[i].lines;
	}
	printf("%" PRId64 " lines: %" PRId64 " on files that were destroyed (%" PRId64 " of them unread), %" PRId64 " excused; %" PRIu64 " gaps (%" PRIu64
	       " bytes known), %" PRIu64 " resets, %zu positions\n",
	       next_line, n_destroyed, lost, n_excused, gaps, gap_bytes, resets, w->now.n_positions);
	if (lines != w->now.delivered + w->now.refused)
		fprintf(stderr, "the counters say %" PRIu64 " lines, delivered were %" PRIu64 ", refused %" PRIu64 "\n", lines, w->now.delivered,
		        w->now.refused);
	if (lost_knowably > 0 && gaps == 0)
		fprintf(stderr, "%" PRId64 " lines were lost and no gap says so\n", lost_knowably);
	if (twice || missing)
		fprintf(stderr, "%" PRId64 " lines counted twice, %" PRId64 " missing\n", twice, missing);
	return !twice && !missing && lines == w->now.delivered + w->now.refused && !(lost_knowably > 0 && gaps == 0);
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int main(void)
{
	uint64_t scale = number_of("RECD_TEST_SCALE", 1), seed = number_of("RECD_TEST_SEED", (uint64_t)time(NULL));
	uint64_t only = number_of("RECD_TEST_KIND", KINDS);
	int64_t rotations = (int64_t)scale * 40;
	char path[400];
	int ok;

	if (scale < 1 || scale > 20)
		scale = scale < 1 ? 1 : 20;
	lines_wanted = (int64_t)scale * 50000 < WORLD_LINES ? (int64_t)scale * 50000 : WORLD_LINES;
	kills_wanted = (int)scale * 40;
	random_state = seed * 2654435761u + 88172645463325252u;
	printf("seed %" PRIu64 ", %" PRId64 " lines, %" PRId64 " rotations, %d kills\n", seed, lines_wanted, rotations, kills_wanted);
	fflush(stdout);
	dated = (int)below(2);
	w = world_new(NULL, below(2) ? "a.jsonl*" : "a.jsonl", NULL);
	w->config.stat_interval_ms = 20;
	destroyed = calloc((size_t)lines_wanted + 1, 1);
	excused = calloc((size_t)lines_wanted + 1, 1);
	if (!destroyed || !excused)
		world_die("calloc");
	write_lines(&live, "a.jsonl", 10);
	start_child();
	do { /* from the first cut on it has a place to go back to */
		nap(5000);
		load_cut(&w->now);
	} while (w->now.delivered < 10);
	for (int64_t i = 0; i < rotations; i++) {
		/* one in eight destroys */
		enum kind kind = (enum kind)(only < KINDS ? only : below(8) ? below(DESTROY_TRUNCATE) : DESTROY_TRUNCATE + below(KINDS - DESTROY_TRUNCATE));

		while (next_line * rotations < (i + 1) * lines_wanted && next_line < lines_wanted) {
			write_lines(&live, "a.jsonl", 1 + below(250));
			nap(below(12000));
			maybe_kill();
		}
		if (getenv("RECD_TEST_VERBOSE"))
			printf("line %" PRId64 ": %s%s\n", next_line, kind_names[kind], child ? "" : " (down)"), fflush(stdout);
		if (live.n > 0)
			rotate(kind);
	}
	write_lines(&live, "a.jsonl", lines_wanted);
	settle();
	stop_child(SIGKILL);
	load_cut(&w->now);
	printf("%d kills\n", kills_done);
	ok = verify();
	for (int i = 0; i < 2; i++) {
		cut_path(path, sizeof(path), i ? ".new" : "");
		unlink(path);
	}
	world_free(w);
	free(destroyed);
	free(excused);
	printf("%s\n", ok ? "passed" : "FAILED");
	return ok ? 0 : 1;
}
