/*
 * tail.h: what the parts of the file source share. Private to source_files.c and tail_*.c; all of it runs on the source's polling thread.
 *
 * A tail is one position: a path, and the file that is being read for it. Mostly that is the file at the path (TAIL_LIVE). When the path gets
 * another file, or its file was copied away and truncated, the tail first reads the old one (or the copy) to its end (TAIL_ROTATED) while the
 * files that follow wait, opened, in `next`; then it moves on to the first of them, at 0. What it leaves behind is watched a while for
 * late writes by a tail of its own (TAIL_LATE).
 *
 *   tail_identity.c  which file is it: markers, names of rotated files, searching a directory
 *   tail_discover.c  globs to tails; placing a tail at its position after a restart
 *   tail_rotate.c    looking at a tail's file again: rotation, truncation, moving on
 *   tail_read.c      bytes to lines to batch
 *   source_files.c   the source: poll, waiting with inotify, status
 */
#ifndef INGEST_TAIL_H
#define INGEST_TAIL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/decode.h"
#include "ingest/source.h"

#define TAIL_MARKER_MAX 256u   /* bytes of content kept before the position */
#define TAIL_MARKER_TRUSTED 16u /* a file may be recognised by content alone from this many on */
#define TAIL_NEXT_MAX 64u      /* files waiting behind a rotated one; more are found when these are done */
#define TAIL_LISTING_MAX 1024u /* rotated files of one path */
#define TAILS_MAX 8192u        /* files of one source */
#define TAIL_INDEX_SIZE (4 * TAILS_MAX)
#define TAIL_READ_BYTES (1u << 20)
#define TAIL_DELETED_HOLD_US INT64_C(60000000) /* a deleted file is held open until it was silent for so long */
#define TAIL_NOTICE_US INT64_C(60000000)       /* an incident stays in the status for so long */

/* An open regular file and what fstat said of it. */
struct tail_file {
	int fd; /* -1: none */
	uint64_t device;
	uint64_t inode;
	uint64_t links;
	int64_t size;
	int64_t mtime_ns;
};

enum tail_state { TAIL_LIVE, TAIL_ROTATED, TAIL_LATE };

struct tail {
	struct source_position position; /* as it was last delivered, or will be with the next batch */
	char *path;
	size_t dir_len; /* of the directory part of path, its slash included; 0: none */
	enum tail_state state;
	struct tail_file file; /* fd -1: nothing to read (the file is gone, or belongs to a late tail by now) */
	int finished;          /* its file was read to the end and is a late tail's by now; held only so that its inode is not given away */
	int unplaced;          /* the position's file has not been looked for successfully yet: try again */
	char marker[TAIL_MARKER_MAX]; /* the position.marker_len bytes before position.offset */
	int64_t after_ns;      /* without a file: rotated files modified before this were read already; INT64_MAX: take none */
	int64_t checked_size;  /* the file's size when its content was last found to be the one we know */
	int64_t changed_us;    /* when the file was last seen to grow or to be rotated */
	int dirty;             /* there may be something to read */
	int announce;          /* the position changed without a line: deliver an empty batch */
	int64_t skip_at;       /* > 0: inside a line above the limit, read past up to here */
	char *skip_head;       /* its first bytes */
	uint32_t skip_head_len;
	struct tail_file next[TAIL_NEXT_MAX]; /* what comes after `file`, oldest first; the file at the path last */
	uint32_t n_next;
	int64_t next_bytes;    /* their sizes */
	int watch;             /* inotify watch of `file`; -1: none */
	int error;             /* errno of the last failed step, retried at every check; 0: none */
	const char *error_step;
};

/* A rotated file found in a directory. */
struct tail_candidate {
	uint64_t device;
	uint64_t inode;
	int64_t size;
	int64_t mtime_ns;
	int64_t ctime_ns; /* a rotation renames the oldest first */
	char name[256];
};

struct watched_dir {
	char *path;
	int watch;
};

struct source_files {
	struct source source; /* first */
	enum event_stream stream;
	char **globs;
	size_t n_globs;
	int from_end;
	int started; /* the first scan is done: files that appear from now on are new */
	struct decode_limits limits;
	uint32_t marker_bytes;
	int64_t stat_interval_us;
	int64_t rotate_wait_us; /* a rotated file is finished when it was silent for so long */
	int64_t late_wait_us;   /* and is watched for late writes until it was silent for so long */
	struct source_position *positions; /* of the last cut, this stream's */
	size_t n_positions;
	struct decoder *decoder;

	struct tail **tails;
	size_t n_tails;
	struct tail **path_index; /* [TAIL_INDEX_SIZE] open addressing by path; late tails are not in it */
	int announcing; /* some tail has something to announce */
	size_t turn; /* whose turn it is to be read */

	char *buffer; /* [buffer_size + DECODE_PADDING] */
	size_t buffer_size;
	struct tail *buffer_tail; /* whose bytes are in it; NULL: nobody's */
	int64_t buffer_offset;    /* file offset of buffer[0] */
	size_t buffer_len;
	int64_t buffer_read_us;   /* when it was read */
	size_t buffer_used; /* bytes of complete lines already taken */

	struct tail_candidate *listing; /* [TAIL_LISTING_MAX], scratch */

	int inotify_fd; /* -1: not available */
	int wake_fd;
	struct watched_dir *dirs;
	size_t n_dirs;
	int rescan; /* something happened in a watched directory */
	int64_t next_check_us;
	int64_t rescan_at_us; /* not before */

	int glob_error;
	char glob_error_path[200];
	char notice[256];
	int64_t notice_until_us;

	pthread_mutex_t lock; /* guards status */
	struct source_status status;
};

/* ---- tail_identity.c ---- */
uint64_t tail_hash(const char *bytes, size_t len);
/* Opens a regular file for reading. 0, or -errno (-EMEDIUMTYPE: not a regular file). */
int tail_open_at(int dir_fd, const char *path, struct tail_file *ret_file);
/* fstat again. 0 or -errno. */
int tail_refresh(struct tail_file *file);
void tail_close_file(struct tail_file *file);
int tail_same_file(const struct tail_file *file, const struct source_position *position);
/* Does the file hold, before `position.offset`, the content the position remembers? 1 yes (the bytes go to `marker`), 0 no, -errno. */
int tail_marker_matches(const struct tail_file *file, const struct source_position *position, char marker[TAIL_MARKER_MAX]);
/* Is `name` what a log rotation makes of `base`: base.1, base-20251210, stem-20251210.ext, stem.1.ext? Not compressed. */
int tail_is_rotation_name(const char *name, const char *base);
int tail_is_compressed_name(const char *name);
/* The rotated files of `path` in its directory, oldest first, in source->listing. Returns how many, or -errno (the directory cannot be read). */
int tail_list_rotations(struct source_files *source, const struct tail *tail, int *ret_compressed);
/* Any regular file in the directory of tail->path with that inode and the position's content. 0, -ENOENT, or -errno. */
int tail_find_by_inode(const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX]);
/* The same by content alone, among the rotated files of the path. */
int tail_find_by_content(struct source_files *source, const struct tail *tail, struct tail_file *ret_file, char marker[TAIL_MARKER_MAX]);
/* Opens an entry of the listing; checks that it is still the same file. */
int tail_open_candidate(const struct tail *tail, const struct tail_candidate *candidate, struct tail_file *ret_file);
/* The tail, other than `except`, that reads or will read this file. */
struct tail *tail_owner(struct source_files *source, const struct tail_file *file, const struct tail *except);

/* ---- tail_discover.c ---- */
void tail_position_name(char name[POSITION_NAME_MAX], enum event_stream stream, const char *path);
/* A new tail without a file. position_name NULL: the one of the path. NULL: out of memory, or too many. */
struct tail *tail_add(struct source_files *source, const char *path, const char *position_name);
/* A tail for late writes to the file that `tail` is done with; takes the file and its watch over. NULL: no room, nothing taken. */
struct tail *tail_add_late(struct source_files *source, struct tail *tail);
void tail_free(struct tail *tail);
/* Adds the counters of a retired tail to the position of its path, as whoever applies its last batch does. */
void tail_bring_home(struct source_files *source, const struct tail *late);
/* Removes and frees the tail; its buffer and watch too. */
void tail_remove(struct source_files *source, struct tail *tail);
/* Makes tails of the positions of the last cut (once, at open). 0 or -ENOMEM. */
int tail_restore_all(struct source_files *source);
/* Looks for the file the position belongs to; sets `unplaced` when it has to be tried again. */
void tail_place(struct source_files *source, struct tail *tail);
/* Runs the globs and adds tails for new files. */
void tail_scan_globs(struct source_files *source);

/* ---- tail_rotate.c ---- */
/* Makes `file` the one that is read from here on; takes it over. The offset and the marker stay as they are. */
void tail_adopt(struct source_files *source, struct tail *tail, const struct tail_file *file, enum tail_state state);
void tail_announce(struct source_files *source, struct tail *tail);
void tail_set_error(struct tail *tail, const char *step, int error);
/* Opens the files that follow: rotated ones not read yet, then the one at the path. */
void tail_collect_next(struct source_files *source, struct tail *tail);
/* Looks at the file again: grown, truncated, rotated; moves on when it is finished. */
void tail_check(struct source_files *source, struct tail *tail, int64_t now_us);
/* The content before the position is not what it was. */
void tail_truncated(struct source_files *source, struct tail *tail);
/* Cut off behind the position: what was read stands; what was cut off is lost, and counted. */
void tail_shortened(struct source_files *source, struct tail *tail, int64_t bytes);
/*
 * Nothing of the file was read yet, so no content tells whether it was copied and truncated since it was opened: if there is a rotated file newer than
 * that, it is read first. Returns 1 when so: then the tail has no file, and what to read next is in `next`.
 */
int tail_copied_unread(struct source_files *source, struct tail *tail);
/* At the end of the file: moves on, retires, or notes that the last line is final. Returns 1 when the unfinished last line is to be taken as it is. */
int tail_at_end(struct source_files *source, struct tail *tail, int64_t now_us);
/* Forgets what is known of the content before the position and starts at 0 of `tail->file`. */
void tail_start_over(struct source_files *source, struct tail *tail);
void tail_notice(struct source_files *source, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- tail_read.c ---- */
/* Takes lines of the tail into the batch. 1: the batch or the position has something; 0: nothing now; -errno: fatal. */
int tail_read(struct source_files *source, struct tail *tail, struct event_batch *batch, int64_t now_us);
/* Puts the tail's position into the batch. */
void tail_finish_batch(struct source_files *source, struct tail *tail, struct event_batch *batch);
/* Does the buffer hold a whole line of this tail? The tail may be freed already: it is only compared. */
int tail_buffer_has_lines(const struct source_files *source, const struct tail *tail);
void tail_drop_buffer(struct source_files *source, const struct tail *tail);

/* ---- source_files.c ---- */
int64_t tail_now_us(void);
void tail_watch_file(struct source_files *source, struct tail *tail);
void tail_unwatch_file(struct source_files *source, struct tail *tail);
void tail_watch_dir(struct source_files *source, const char *path, size_t len);

#endif
