/*
 * import_ids.c: ids from a text file, from a tensor, or from row numbers (import_ids.h). Main thread of recctl.
 */
#include "daemon/recctl/import_ids.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The id of a line without blanks around it, or -1. */
static int64_t parse_id(const char *line)
{
	char *end;

	line += strspn(line, " \t");
	if (*line < '0' || *line > '9')
		return -1;
	errno = 0;
	long long id = strtoll(line, &end, 10);
	return errno || end[strspn(end, " \t\r\n")] ? -1 : id;
}

static int read_lines(FILE *file, const struct import_id_source *source, uint32_t n, int64_t *ids, char *errstr, size_t errstr_size)
{
	char *line = NULL;
	size_t capacity = 0;
	uint64_t number = 0, found = 0;
	int rc = 0;

	while (!rc && getline(&line, &capacity, file) >= 0) {
		number++;
		if (!line[strspn(line, " \t\r\n")])
			continue;
		int64_t id = parse_id(line);
		if (id < 0) {
			snprintf(errstr, errstr_size, "%s: line %" PRIu64 ": no id; wanted one integer from 0 to 9223372036854775807 a line", source->file, number);
			rc = -EINVAL;
		} else if (found++ < n) {
			ids[found - 1] = id;
		}
	}
	free(line);
	if (!rc && ferror(file)) {
		snprintf(errstr, errstr_size, "%s: %s", source->file, strerror(EIO));
		rc = -EIO;
	}
	if (!rc && found != n) {
		snprintf(errstr, errstr_size, "%s holds %" PRIu64 " ids, %s has %" PRIu32 " rows: wanted one id for each row, in the rows' order", source->file,
		         found, source->rows, n);
		rc = -EINVAL;
	}
	return rc;
}

static int from_file(const struct import_id_source *source, uint32_t n, int64_t *ids, char *errstr, size_t errstr_size)
{
	FILE *file = fopen(source->file, "re");

	if (!file) {
		int rc = -errno;

		snprintf(errstr, errstr_size, "%s: %s", source->file, strerror(-rc));
		return rc;
	}
	int rc = read_lines(file, source, n, ids, errstr, errstr_size);
	fclose(file);
	return rc;
}

static int from_tensor(const struct import_id_source *source, const char *path, const struct torch_reader *reader, const struct torch_tensor *tensor,
                       uint32_t n, int64_t *ids, char *errstr, size_t errstr_size)
{
	if (tensor->n_dims != 1 || (tensor->dtype != TORCH_I64 && tensor->dtype != TORCH_I32) || tensor->n_elements != n) {
		snprintf(errstr, errstr_size, "%s: tensor '%s' is not int64 [%" PRIu32 "], one id for each row of %s", path, source->tensor, n, source->rows);
		return -EBADMSG;
	}
	int rc = torch_reader_read(reader, tensor, 0, ids, tensor->bytes, errstr, errstr_size);
	if (!rc && tensor->dtype == TORCH_I32) {
		for (uint32_t i = n; i-- > 0;) { /* widened in place, from the end */
			int32_t narrow;

			memcpy(&narrow, (const char *)ids + (size_t)i * sizeof(narrow), sizeof(narrow));
			ids[i] = narrow;
		}
	}
	return rc;
}

static int compare_ids(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* None negative, none twice. */
static int check_ids(const struct import_id_source *source, const int64_t *ids, uint32_t n, char *errstr, size_t errstr_size)
{
	int64_t *sorted = malloc((n + 1u) * sizeof(*sorted));
	int rc = 0;

	if (!sorted) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	memcpy(sorted, ids, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_ids);
	if (n && sorted[0] < 0) {
		snprintf(errstr, errstr_size, "%s id %" PRId64 " is negative", source->what, sorted[0]);
		rc = -EINVAL;
	}
	for (uint32_t i = 1; !rc && i < n; i++) {
		if (sorted[i] != sorted[i - 1])
			continue;
		snprintf(errstr, errstr_size, "%s id %" PRId64 " stands twice: each row is one %s", source->what, sorted[i], source->what);
		rc = -EINVAL;
	}
	free(sorted);
	return rc;
}

int import_ids(const struct import_id_source *source, const char *path, const struct torch_reader *reader, int row_ids, uint32_t n, int64_t **ret_ids,
               char *errstr, size_t errstr_size)
{
	const struct torch_tensor *tensor = NULL;
	int64_t *ids = malloc((n + 1u) * sizeof(*ids));
	char text[512];
	int rc = 0;

	if (!ids) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	if (source->file) {
		rc = from_file(source, n, ids, errstr, errstr_size);
	} else if (!torch_reader_find_tensor(reader, source->tensor, &tensor, text, sizeof(text))) {
		rc = from_tensor(source, path, reader, tensor, n, ids, errstr, errstr_size);
	} else if (row_ids) {
		for (uint32_t i = 0; i < n; i++)
			ids[i] = i;
	} else {
		snprintf(errstr, errstr_size, "%s holds no tensor '%s': give --%s_ids FILE with %" PRIu32 " lines, one id for each row of %s, or --row_ids if the row "
		         "numbers are the ids", path, source->tensor, source->what, n, source->rows);
		rc = -ENOENT;
	}
	if (!rc)
		rc = check_ids(source, ids, n, errstr, errstr_size);
	if (rc)
		free(ids);
	else
		*ret_ids = ids;
	return rc;
}
