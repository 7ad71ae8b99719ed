/*
 * synth_output.c: formats the lines of synthetic logs and keeps the six files.
 *
 * Used by recctl's main thread. Owns the file descriptors and one buffer a file; a line is written straight into the buffer (no printf), so that
 * formatting costs about as much as copying. Files carry a temporary name until all are complete: a reader never sees half a log, and an
 * interrupted run leaves the old files as they were.
 */
#include "daemon/recctl/synth_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES (1u << 18)
#define LINE_BYTES_MAX 1024u /* more than the longest line: a user with all 18 genres is under 600 */
#define NAME_BYTES 48

enum { STREAM_OF_ITEM_TEXT = 11, STREAM_OF_USER_TEXT = 12 };

static const char *const file_names[SYNTH_FILE_COUNT] = { "items", "users", "impressions", "events", "watch_stats", "train_samples" };
static const char *const surface_names[SYNTH_SURFACES] = { "home", "catalogue", "search", "similar" };
static const char *const device_names[SYNTH_DEVICES] = { "tv", "mobile", "web", "tablet" };
static const char *const event_names[] = { "click", "play_start", "like", "dislike", "rate" };

struct file {
	int fd; /* -1: none */
	char temporary[NAME_BYTES]; /* "": renamed or never made */
	char *buffer;
	size_t used;
};

struct synth_output {
	int dir_fd;
	int error;
	enum synth_file failed;
	int64_t day; /* date[] holds this day */
	char date[11]; /* "2025-12-10T" */
	struct file files[SYNTH_FILE_COUNT];
};

static int make_parents(const char *dir)
{
	char path[4096];
	size_t len = strlen(dir);

	if (len >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, dir, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		path[i] = '\0';
		if (mkdir(path, 0777) && errno != EEXIST)
			return -errno;
		path[i] = dir[i];
	}
	return 0;
}

static int open_temporary(struct synth_output *output, enum synth_file which)
{
	struct file *file = &output->files[which];

	for (int attempt = 0; attempt < 100; attempt++) {
		char name[NAME_BYTES];

		snprintf(name, sizeof(name), ".%s.jsonl.%ld.%d", file_names[which], (long)getpid(), attempt);
		file->fd = openat(output->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (file->fd >= 0) {
			memcpy(file->temporary, name, sizeof(name));
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

int synth_output_open(const char *dir, struct synth_output **ret_output, char *errstr, size_t errstr_size)
{
	struct synth_output *output = calloc(1, sizeof(*output));
	int rc = -ENOMEM;

	if (!output) {
		snprintf(errstr, errstr_size, "out of memory");
		return rc;
	}
	output->dir_fd = -1;
	output->day = INT64_MIN;
	for (int i = 0; i < SYNTH_FILE_COUNT; i++)
		output->files[i].fd = -1;
	rc = make_parents(dir);
	if (!rc && (output->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = -errno;
	if (rc) {
		snprintf(errstr, errstr_size, "%s: cannot use this directory: %s", dir, strerror(-rc));
		goto fail;
	}
	for (int i = 0; i < SYNTH_FILE_COUNT; i++) {
		output->files[i].buffer = malloc(BUFFER_BYTES);
		rc = output->files[i].buffer ? open_temporary(output, (enum synth_file)i) : -ENOMEM;
		if (rc) {
			snprintf(errstr, errstr_size, "%s/%s.jsonl: cannot create: %s", dir, file_names[i], strerror(-rc));
			goto fail;
		}
	}
	*ret_output = output;
	return 0;
fail:
	synth_output_free(output);
	return rc;
}

static void flush(struct synth_output *output, enum synth_file which)
{
	struct file *file = &output->files[which];
	size_t done = 0;

	while (done < file->used && !output->error) {
		ssize_t n = write(file->fd, file->buffer + done, file->used - done);

		if (n >= 0) {
			done += (size_t)n;
		} else if (errno != EINTR) {
			output->error = -errno;
			output->failed = which;
		}
	}
	file->used = 0;
}

/* Where the next line of a file goes: at least LINE_BYTES_MAX bytes. */
static char *begin_line(struct synth_output *output, enum synth_file which)
{
	struct file *file = &output->files[which];

	if (file->used > BUFFER_BYTES - LINE_BYTES_MAX)
		flush(output, which);
	return file->buffer + file->used;
}

static void end_line(struct synth_output *output, enum synth_file which, char *end)
{
	*end++ = '\n';
	output->files[which].used = (size_t)(end - output->files[which].buffer);
}

static inline char *put_bytes(char *p, const char *text, size_t len)
{
	memcpy(p, text, len);
	return p + len;
}

#define PUT(p, literal) put_bytes(p, literal, sizeof(literal) - 1)

static inline char *put_text(char *p, const char *text)
{
	return put_bytes(p, text, strlen(text));
}

/* At least `width` digits, zeros in front. */
static inline char *put_number(char *p, uint64_t value, int width)
{
	char digits[20];
	int n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (width > n) {
		*p++ = '0';
		width--;
	}
	while (n)
		*p++ = digits[--n];
	return p;
}

static inline char *put_2(char *p, unsigned value)
{
	p[0] = (char)('0' + value / 10);
	p[1] = (char)('0' + value % 10);
	return p + 2;
}

/* value / 10,000 with four digits after the point. */
static inline char *put_share(char *p, uint32_t e4)
{
	p = put_number(p, e4 / 10000, 1);
	*p++ = '.';
	return put_number(p, e4 % 10000, 4);
}

/* Days since 1970-01-01 to "YYYY-MM-DDT" (civil_from_days, Howard Hinnant, chrono-compatible low-level date algorithms). */
static void set_date(struct synth_output *output, int64_t day)
{
	int64_t z = day + 719468, era = z / 146097;
	unsigned doe = (unsigned)(z - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153, month = mp < 10 ? mp + 3 : mp - 9;
	uint64_t year = (uint64_t)((int64_t)yoe + era * 400) + (month <= 2);
	char *p = put_number(output->date, year, 4);

	*p++ = '-';
	p = put_2(p, month);
	*p++ = '-';
	p = put_2(p, doy - (153 * mp + 2) / 5 + 1);
	*p = 'T';
	output->day = day;
}

/* A quoted time in whole seconds, "2025-12-10T12:00:01+00:00". Times are from 1970 to 9999. */
static inline char *put_time(struct synth_output *output, char *p, int64_t time_us)
{
	int64_t seconds = time_us / 1000000, day = seconds / 86400;
	unsigned rest = (unsigned)(seconds - day * 86400);

	if (day != output->day)
		set_date(output, day);
	*p++ = '"';
	p = put_bytes(p, output->date, sizeof(output->date));
	p = put_2(p, rest / 3600);
	*p++ = ':';
	p = put_2(p, rest / 60 % 60);
	*p++ = ':';
	p = put_2(p, rest % 60);
	return PUT(p, "+00:00\"");
}

void synth_write_item(struct synth_output *output, const struct synth_model *model, uint32_t item)
{
	const struct synth_item *title = &model->items[item];
	struct synth_rng rng = synth_rng_at(model->seed, STREAM_OF_ITEM_TEXT, item);
	double age = synth_uniform(&rng);
	uint32_t tags = 1 + synth_below(&rng, 3), tag = synth_below(&rng, 100);
	char *p = begin_line(output, SYNTH_ITEMS);

	p = put_number(PUT(p, "{\"item_id\":"), item, 1);
	p = put_number(PUT(p, ",\"title\":\"Movie #"), item, 5);
	p = put_number(PUT(p, "\",\"release_year\":"), 2025u - (uint32_t)(75.0 * age * age), 4);
	p = put_number(PUT(p, ",\"duration_sec\":"), title->duration_sec, 1);
	p = PUT(p, ",\"genres\":[");
	for (uint32_t k = 0; k < title->n_genres; k++) {
		if (k)
			*p++ = ',';
		*p++ = '"';
		p = put_text(p, synth_genre_names[title->genres[k]]);
		*p++ = '"';
	}
	p = PUT(p, "],\"tags\":[");
	for (uint32_t k = 0; k < tags; k++) {
		if (k)
			*p++ = ',';
		p = put_number(PUT(p, "\"tag_"), tag, 2);
		*p++ = '"';
		tag = (tag + 1 + synth_below(&rng, 33)) % 100; /* three steps never come round to an earlier one */
	}
	end_line(output, SYNTH_ITEMS, PUT(p, "]}"));
}

void synth_write_user(struct synth_output *output, const struct synth_model *model, uint32_t user)
{
	static const char *const countries[] = { "NL", "DE", "FR", "GB", "US", "ES", "IT", "PL", "KZ", "RU" };
	static const char *const languages[] = { "nl", "de", "fr", "en", "en", "es", "it", "pl", "ru", "ru" };
	static const char *const guests[] = { "en", "ru", "de", "fr" };
	struct synth_rng rng = synth_rng_at(model->seed, STREAM_OF_USER_TEXT, user);
	const float *pref = model->persons[user].pref;
	uint32_t country = synth_below(&rng, 10), order[SYNTH_GENRES];
	const char *language = synth_uniform(&rng) < 0.8 ? languages[country] : guests[synth_below(&rng, 4)];
	char *p = begin_line(output, SYNTH_USERS);

	for (uint32_t g = 0; g < SYNTH_GENRES; g++) { /* largest first */
		uint32_t j = g;

		for (; j > 0 && pref[order[j - 1]] < pref[g]; j--)
			order[j] = order[j - 1];
		order[j] = g;
	}
	p = put_number(PUT(p, "{\"user_id\":"), user, 1);
	p = put_text(PUT(p, ",\"country\":\""), countries[country]);
	p = put_text(PUT(p, "\",\"ui_language\":\""), language);
	p = PUT(p, "\",\"genre_pref\":{");
	for (uint32_t k = 0; k < SYNTH_GENRES; k++) {
		uint32_t e4 = (uint32_t)((double)pref[order[k]] * 10000.0 + 0.5);

		if (!e4)
			break;
		if (k)
			*p++ = ',';
		*p++ = '"';
		p = put_text(p, synth_genre_names[order[k]]);
		p = put_share(PUT(p, "\":"), e4);
	}
	end_line(output, SYNTH_USERS, PUT(p, "}}"));
}

/* "user_id":U,"item_id":I */
static inline char *put_who(char *p, const struct synth_visit *visit)
{
	p = put_number(PUT(p, "\"user_id\":"), visit->user, 1);
	return put_number(PUT(p, ",\"item_id\":"), visit->item, 1);
}

static inline char *put_request(char *p, const struct synth_visit *visit)
{
	p = put_number(PUT(p, ",\"request_id\":\"req-"), (uint64_t)visit->impression_id, 12);
	return PUT(p, "\"}");
}

void synth_write_impression(struct synth_output *output, const struct synth_visit *visit)
{
	char *p = begin_line(output, SYNTH_IMPRESSIONS);

	p = put_number(PUT(p, "{\"impression_id\":"), (uint64_t)visit->impression_id, 1);
	*p++ = ',';
	p = put_text(PUT(put_who(p, visit), ",\"surface\":\""), surface_names[visit->surface]);
	p = put_number(PUT(p, "\",\"position\":"), visit->position, 1);
	p = put_time(output, PUT(p, ",\"shown_at\":"), visit->shown_us);
	end_line(output, SYNTH_IMPRESSIONS, put_request(p, visit));
}

void synth_write_event(struct synth_output *output, const struct synth_visit *visit, enum synth_event type, int64_t occurred_us)
{
	char *p = begin_line(output, SYNTH_EVENTS);

	p = put_number(PUT(p, "{\"event_id\":\"ev-"), (uint64_t)visit->impression_id, 1);
	*p++ = '-';
	p = put_who(PUT(put_text(p, event_names[type]), "\","), visit);
	p = put_text(PUT(p, ",\"type\":\""), event_names[type]);
	p = PUT(p, "\",\"value\":");
	p = type == SYNTH_RATE ? put_number(p, visit->rating, 1) : PUT(p, "null");
	p = put_time(output, PUT(p, ",\"occurred_at\":"), occurred_us);
	end_line(output, SYNTH_EVENTS, put_request(p, visit));
}

void synth_write_watch(struct synth_output *output, const struct synth_visit *visit)
{
	char *p = begin_line(output, SYNTH_WATCHES);

	p = put_number(PUT(p, "{\"watch_id\":\"w-"), (uint64_t)visit->impression_id, 1);
	p = put_who(PUT(p, "\","), visit);
	p = put_time(output, PUT(p, ",\"started_at\":"), visit->started_us);
	p = put_time(output, PUT(p, ",\"ended_at\":"), visit->ended_us);
	p = put_number(PUT(p, ",\"watch_time_sec\":"), visit->watch_time_sec, 1);
	p = put_share(PUT(p, ",\"completion\":"), visit->completion_e4);
	p = put_text(PUT(p, ",\"device_type\":\""), device_names[visit->device]);
	p = put_number(PUT(p, "\",\"session_id\":\"sess-"), visit->user, 1);
	*p++ = '-';
	end_line(output, SYNTH_WATCHES, PUT(put_number(p, visit->session, 1), "\"}"));
}

void synth_write_sample(struct synth_output *output, const struct synth_visit *visit, int label, int64_t time_us)
{
	char *p = begin_line(output, SYNTH_SAMPLES);

	p = put_who(PUT(p, "{"), visit);
	p = put_number(PUT(p, ",\"label\":"), label ? 1 : 0, 1);
	p = put_time(output, PUT(p, ",\"ts\":"), time_us);
	end_line(output, SYNTH_SAMPLES, PUT(p, "}"));
}

int synth_output_error(const struct synth_output *output)
{
	return output->error;
}

int synth_output_finish(struct synth_output *output, char *errstr, size_t errstr_size)
{
	for (int i = 0; i < SYNTH_FILE_COUNT && !output->error; i++) {
		struct file *file = &output->files[i];

		flush(output, (enum synth_file)i);
		if (close(file->fd) && !output->error) {
			output->error = -errno;
			output->failed = (enum synth_file)i;
		}
		file->fd = -1;
	}
	if (output->error) {
		snprintf(errstr, errstr_size, "%s.jsonl: cannot write: %s", file_names[output->failed], strerror(-output->error));
		return output->error;
	}
	for (int i = 0; i < SYNTH_FILE_COUNT; i++) {
		char name[NAME_BYTES];

		snprintf(name, sizeof(name), "%s.jsonl", file_names[i]);
		if (renameat(output->dir_fd, output->files[i].temporary, output->dir_fd, name)) {
			int rc = -errno;

			snprintf(errstr, errstr_size, "%s: cannot rename to it: %s; %d of the %d files are new, the rest are as they were", name, strerror(-rc), i,
			         SYNTH_FILE_COUNT);
			return rc;
		}
		output->files[i].temporary[0] = '\0';
	}
	return 0;
}

void synth_output_free(struct synth_output *output)
{
	if (!output)
		return;
	for (int i = 0; i < SYNTH_FILE_COUNT; i++) {
		struct file *file = &output->files[i];

		if (file->fd >= 0)
			close(file->fd);
		if (file->temporary[0])
			unlinkat(output->dir_fd, file->temporary, 0);
		free(file->buffer);
	}
	if (output->dir_fd >= 0)
		close(output->dir_fd);
	free(output);
}
