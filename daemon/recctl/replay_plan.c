/*
 * replay_plan.c: finds the input files of a replay and gives each its stream, its topic and its identity.
 *
 * Main thread of recctl, before anything is sent. A file is known by its base name without .gz or .zst and by a hash of the first bytes of its content, so
 * that it may be moved or compressed between an interruption and --resume.
 */
#include "daemon/recctl/replay_plan.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/recctl/load_logs.h"
#include "daemon/recctl/replay_file.h"

static int ends_with(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);

	return len >= n && !memcmp(text + len - n, end, n);
}

/* Length without .gz or .zst. */
static size_t plain_len(const char *name)
{
	size_t len = strlen(name);

	return ends_with(name, len, ".gz") ? len - 3 : ends_with(name, len, ".zst") ? len - 4 : len;
}

int replay_stream_of(const char *name)
{
	size_t len = plain_len(name);

	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const char *log_name = log_file_name((enum event_stream)stream);
		size_t stem = strlen(log_name) - strlen(".jsonl"), end = len;

		if (len < stem + strlen(".jsonl") || memcmp(name, log_name, stem) != 0 || (name[stem] != '.' && name[stem] != '-'))
			continue;
		while (end > stem && name[end - 1] >= '0' && name[end - 1] <= '9')
			end--;
		if (end < len && (name[end - 1] == '.' || name[end - 1] == '-'))
			end--; /* a rotation's number or date behind .jsonl */
		else
			end = len;
		if (end >= stem + strlen(".jsonl") && ends_with(name, end, ".jsonl") && (name[stem] == '-' || end == stem + strlen(".jsonl")))
			return stream;
	}
	return -1;
}

/* "impressions" or "items", n bytes long. -1: no stream of this name. */
static int stream_by_name(const char *name, size_t n)
{
	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const char *known = event_stream_name((enum event_stream)stream);

		if (strlen(known) == n && !memcmp(known, name, n))
			return stream;
	}
	return n == 5 && !memcmp(name, "items", 5) ? STREAM_CATALOGUE : -1;
}

/* Legal topic name: letters, digits, '.', '_', '-'. */
static int set_topic(char *topic, const char *prefix, const char *name, size_t n)
{
	size_t prefix_len = strlen(prefix);

	if (prefix_len + n == 0 || prefix_len + n > REPLAY_TOPIC_MAX)
		return -EINVAL;
	memcpy(topic, prefix, prefix_len);
	memcpy(topic + prefix_len, name, n);
	topic[prefix_len + n] = '\0';
	if (!strcmp(topic, ".") || !strcmp(topic, ".."))
		return -EINVAL;
	return topic[strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] ? -EINVAL : 0;
}

#define STREAM_NAMES "impressions, events, watch_stats, catalogue, users"

static int parse_streams(const char *text, struct replay_plan *plan, char *errstr, size_t errstr_size)
{
	memset(plan->wanted, 0, sizeof(plan->wanted));
	for (const char *at = text;; at++) {
		size_t n = strcspn(at, ",");
		int stream = stream_by_name(at, n);

		if (stream < 0) {
			snprintf(errstr, errstr_size, "--streams: \"%.*s\" is no stream; allowed: " STREAM_NAMES, (int)(n > 64 ? 64 : n), at);
			return -EINVAL;
		}
		plan->wanted[stream] = 1;
		at += n;
		if (!*at)
			return 0;
	}
}

static int parse_topics(const char *text, struct replay_plan *plan, char *errstr, size_t errstr_size)
{
	for (const char *at = text;; at++) {
		size_t n = strcspn(at, ","), name = strcspn(at, "=,");
		int stream = stream_by_name(at, name);

		if (stream < 0 || name == n || set_topic(plan->topics[stream], "", at + name + 1, n - name - 1)) {
			snprintf(errstr, errstr_size, "--topics: \"%.*s\" is not valid; allowed: STREAM=TOPIC, separated by commas, STREAM one of " STREAM_NAMES
			         ", TOPIC of letters, digits, '.', '_' and '-', at most %d long", (int)(n > 64 ? 64 : n), at, REPLAY_TOPIC_MAX);
			return -EINVAL;
		}
		plan->wanted[stream] = 1;
		at += n;
		if (!*at)
			return 0;
	}
}

int replay_plan_begin(const char *streams, const char *topics, const char *prefix, const char *const configured[STREAM_COUNT], struct replay_plan *ret_plan,
                      char *errstr, size_t errstr_size)
{
	struct replay_plan plan = { 0 };

	for (int stream = 0; stream < STREAM_COUNT; stream++) {
		const char *name = event_stream_name((enum event_stream)stream);

		plan.wanted[stream] = !configured || configured[stream];
		if (configured && configured[stream]) {
			if (set_topic(plan.topics[stream], "", configured[stream], strlen(configured[stream]))) {
				snprintf(errstr, errstr_size, "topic \"%.64s\" of %s in the configuration is no name of a topic", configured[stream], name);
				return -EINVAL;
			}
		} else if (set_topic(plan.topics[stream], prefix ? prefix : "", name, strlen(name))) {
			snprintf(errstr, errstr_size, "--topic_prefix: \"%.64s\" is not valid; allowed: letters, digits, '.', '_' and '-', together with the stream's name at "
			         "most %d long", prefix, REPLAY_TOPIC_MAX);
			return -EINVAL;
		}
	}
	if ((topics && parse_topics(topics, &plan, errstr, errstr_size)) || (streams && parse_streams(streams, &plan, errstr, errstr_size)))
		return -EINVAL;
	for (int a = 0; a < STREAM_COUNT; a++) {
		for (int b = 0; b < a; b++) {
			if (plan.wanted[a] && plan.wanted[b] && !strcmp(plan.topics[a], plan.topics[b])) {
				snprintf(errstr, errstr_size, "%s and %s would both go to topic \"%s\"; a topic holds one stream", event_stream_name((enum event_stream)b),
				         event_stream_name((enum event_stream)a), plan.topics[a]);
				return -EINVAL;
			}
		}
	}
	*ret_plan = plan;
	return 0;
}

/* `path` is copied. */
static int add_input(struct replay_plan *plan, int stream, const char *path, char *errstr, size_t errstr_size)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	size_t n = plain_len(base);

	if (!plan->wanted[stream])
		return 0;
	if (plan->n_inputs == REPLAY_INPUTS_MAX || n >= REPLAY_NAME_MAX) {
		snprintf(errstr, errstr_size, n >= REPLAY_NAME_MAX ? "%s: a file name this long cannot be used" : "%s: more than 65536 files; replay them in parts", path);
		return -EINVAL;
	}
	if ((plan->n_inputs & (plan->n_inputs - 1)) == 0) {
		struct replay_input *larger = realloc(plan->inputs, (plan->n_inputs ? 2u * plan->n_inputs : 1u) * sizeof(*larger));

		if (!larger)
			goto no_memory;
		plan->inputs = larger;
	}
	struct replay_input *input = &plan->inputs[plan->n_inputs];
	*input = (struct replay_input){ .stream = (enum event_stream)stream, .path = strdup(path) };
	if (!input->path)
		goto no_memory;
	memcpy(input->name, base, n);
	plan->n_inputs++;
	return 0;
no_memory:
	snprintf(errstr, errstr_size, "out of memory");
	return -ENOMEM;
}

int replay_plan_add_folder(struct replay_plan *plan, const char *folder, char *errstr, size_t errstr_size)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char path[4096];
	int rc = 0;

	if (!dir) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: %s; point --data_dir at a folder with logs", folder, strerror(-rc));
		return rc;
	}
	while (!rc && (entry = readdir(dir))) {
		int stream = replay_stream_of(entry->d_name);

		if (stream < 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path)) {
			snprintf(errstr, errstr_size, "%s: the path is too long", folder);
			rc = -ENAMETOOLONG;
		} else {
			rc = add_input(plan, stream, path, errstr, errstr_size);
		}
	}
	closedir(dir);
	return rc;
}

int replay_plan_add_file(struct replay_plan *plan, const char *word, char *errstr, size_t errstr_size)
{
	const char *equals = strchr(word, '=');
	int stream = equals ? stream_by_name(word, (size_t)(equals - word)) : -1;

	if (stream >= 0)
		return add_input(plan, stream, equals + 1, errstr, errstr_size);
	const char *slash = strrchr(word, '/');
	stream = replay_stream_of(slash ? slash + 1 : word);
	if (stream < 0) {
		snprintf(errstr, errstr_size, "\"%.256s\": its name does not tell its stream; write STREAM=FILE, STREAM one of " STREAM_NAMES, word);
		return -EINVAL;
	}
	return add_input(plan, stream, word, errstr, errstr_size);
}

static int rank_of(enum event_stream stream)
{
	return stream == STREAM_CATALOGUE ? -2 : stream == STREAM_USERS ? -1 : (int)stream;
}

static int compare_inputs(const void *left, const void *right)
{
	const struct replay_input *a = left, *b = right;
	int by_rank = rank_of(a->stream) - rank_of(b->stream), by_name = strcmp(a->name, b->name);

	if (by_rank || by_name)
		return by_rank ? by_rank : by_name;
	return a->content_id < b->content_id ? -1 : a->content_id > b->content_id;
}

int replay_plan_finish(struct replay_plan *plan, char *errstr, size_t errstr_size)
{
	for (uint32_t i = 0; i < plan->n_inputs; i++) {
		struct replay_input *input = &plan->inputs[i];
		struct stat st;

		if (stat(input->path, &st) || !S_ISREG(st.st_mode)) {
			snprintf(errstr, errstr_size, "%s: no such file", input->path);
			return -ENOENT;
		}
		input->bytes = (uint64_t)st.st_size;
		int rc = replay_file_content_id(input->path, &input->content_id, errstr, errstr_size);
		if (rc)
			return rc;
	}
	if (plan->n_inputs)
		qsort(plan->inputs, plan->n_inputs, sizeof(*plan->inputs), compare_inputs);
	for (uint32_t i = 1; i < plan->n_inputs; i++) {
		const struct replay_input *a = &plan->inputs[i - 1], *b = &plan->inputs[i];

		if (!compare_inputs(a, b) && b->bytes) {
			snprintf(errstr, errstr_size, "%s and %s have the same name and begin with the same bytes; keep one, or its lines would be sent twice", a->path,
			         b->path);
			return -EINVAL;
		}
	}
	return 0;
}

void replay_plan_free(struct replay_plan *plan)
{
	for (uint32_t i = 0; i < plan->n_inputs; i++)
		free(plan->inputs[i].path);
	free(plan->inputs);
	*plan = (struct replay_plan){ 0 };
}

uint64_t replay_plan_id(const struct replay_plan *plan, enum event_stream stream, int64_t from_us, int64_t to_us, int32_t n_partitions)
{
	uint64_t hash = replay_hash(REPLAY_HASH_BEGIN, &from_us, sizeof(from_us));

	hash = replay_hash(hash, &to_us, sizeof(to_us));
	hash = replay_hash(hash, &n_partitions, sizeof(n_partitions));
	for (uint32_t i = 0; i < plan->n_inputs; i++) {
		const struct replay_input *input = &plan->inputs[i];

		if (input->stream != stream)
			continue;
		hash = replay_hash(hash, input->name, strlen(input->name) + 1);
		hash = replay_hash(hash, &input->content_id, sizeof(input->content_id));
	}
	return hash;
}
