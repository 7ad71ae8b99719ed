/*
 * save_model.c: write, fsync, rename, fsync the folder. Main thread of recctl; the file itself is made durable by model_file_write().
 */
#include "daemon/recctl/save_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int save_open_dir(const char *dir, char *errstr, size_t errstr_size)
{
	if (mkdir(dir, 0777) && errno != EEXIST) {
		int rc = -errno;

		snprintf(errstr, errstr_size, "%s: cannot make the folder: %s", dir, strerror(-rc));
		return rc;
	}
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, ".", W_OK, AT_EACCESS)) {
		int rc = -errno;

		snprintf(errstr, errstr_size, "%s: %s", dir, strerror(-rc));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	return fd;
}

int save_check(int dir_fd, const char *name, char *errstr, size_t errstr_size)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISLNK(st.st_mode))
		return 0;
	snprintf(errstr, errstr_size, "%s is a link, as recd keeps one to its checkpoint; choose another --out_dir", name);
	return -EEXIST;
}

int save_model(int dir_fd, const char *name, const struct tables *tables, const int64_t *user_ids, const int64_t *item_ids, const char *kind,
               char *errstr, size_t errstr_size)
{
	char temporary[128];
	int rc = save_check(dir_fd, name, errstr, errstr_size);

	if (rc)
		return rc;
	snprintf(temporary, sizeof(temporary), "%s.%ld.tmp", name, (long)getpid());
	(void)unlinkat(dir_fd, temporary, 0); /* of a run that was killed and had the same pid */
	rc = model_file_write(dir_fd, temporary, tables, user_ids, item_ids, kind, errstr, errstr_size);
	if (rc)
		return rc;
	if (renameat(dir_fd, temporary, dir_fd, name)) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: cannot rename: %s", name, strerror(-rc));
		(void)unlinkat(dir_fd, temporary, 0);
		return rc;
	}
	if (fsync(dir_fd)) {
		rc = -errno;
		snprintf(errstr, errstr_size, "%s: the folder cannot be synced: %s", name, strerror(-rc));
	}
	return rc;
}
