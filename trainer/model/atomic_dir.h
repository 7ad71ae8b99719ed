/*
 * atomic_dir.h: numbered generations of files that appear whole or not at all, in `checkpoints` of a data directory:
 *
 *     checkpoints/.tmp-42             being written
 *     checkpoints/000042/             a generation; renamed into place after its files and itself were synced
 *     checkpoints/latest -> 000042    for people and other tools; swapped last, never trusted by recovery
 *     model_bpr.pt -> checkpoints/latest/model_bpr.pt      stable names, see atomic_dir_link()
 *
 * Every path is one component under a directory descriptor, links are not followed, and the names a caller gives are limited to [A-Za-z0-9_.-] (no leading
 * dot). Numbers are never reused: the next one is above every generation, leftover and link seen. No descriptor is ever synced twice: after a failed
 * fsync nothing that depends on it is reported as saved.
 *
 * Threads: one thread at a time. The caller holds the data directory's lock while it writes. Errors: 0 or -errno, the failing step in errstr.
 */
#ifndef TRAINER_MODEL_ATOMIC_DIR_H
#define TRAINER_MODEL_ATOMIC_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct atomic_dir;

#define ATOMIC_DIR_KEEP_MIN 3u
#define ATOMIC_DIR_GENERATIONS_MAX 100000u /* more directories than this: -E2BIG */
#define ATOMIC_DIR_NUMBER_MAX 999999999999ull

enum { ATOMIC_DIR_WRITE = 1 }; /* flags of atomic_dir_open() */

/*
 * Opens `checkpoints` under data_fd (a directory; duplicated, so the caller may close its own). With ATOMIC_DIR_WRITE it is created when missing
 * (mode 0750, durable), and what an interrupted run left behind (.tmp-*, .del-*, .latest-*) is removed. Without it nothing is changed;
 * -ENOENT when there is none.
 */
int atomic_dir_open(int data_fd, unsigned flags, struct atomic_dir **ret_dir, char *errstr, size_t errstr_size);

/* Aborts what was begun and frees. Accepts NULL. */
void atomic_dir_close(struct atomic_dir *dir);

/* The generations' numbers, newest first, in memory that the caller frees (NULL when there are none). Includes bad ones: nobody has looked inside. */
int atomic_dir_list(struct atomic_dir *dir, uint64_t **ret_numbers, size_t *ret_n, char *errstr, size_t errstr_size);

/* Opens the directory of a generation for torch_reader_open() and the like. The caller closes *ret_fd. -ENOENT when it is missing. */
int atomic_dir_open_generation(struct atomic_dir *dir, uint64_t number, int *ret_fd, char *errstr, size_t errstr_size);

/*
 * Starts a generation: makes an empty .tmp-<number> and returns its descriptor (owned by `dir`, valid until commit or abort) and the number it will get.
 * The caller creates its files inside and makes each durable (torch_writer_finish() does). -EALREADY when one was begun.
 */
int atomic_dir_begin(struct atomic_dir *dir, int *ret_fd, uint64_t *ret_number, char *errstr, size_t errstr_size);

/*
 * Publishes what was begun: fsync of the directory, rename to its number, fsync of `checkpoints`, `latest` swapped, fsync again. On failure the generation is
 * withdrawn and removed, `latest` still names the old one, and errstr names the step. One exception: if only the last fsync fails, the
 * generation was durable and stays; the call still fails, as the link may not be. Either way the number is used up.
 */
int atomic_dir_commit(struct atomic_dir *dir, char *errstr, size_t errstr_size);

/* Removes what was begun, if anything. Accepts NULL. */
void atomic_dir_abort(struct atomic_dir *dir);

/*
 * Removes generations older than the `keep` newest (at least ATOMIC_DIR_KEEP_MIN), and never the one `latest` names. Numbers in `bad` (may be NULL) do not
 * count as kept, so that bad generations cannot push good ones out; they go when enough good ones are above them. Each is renamed to
 * .del-<number> durably first: a half-removed generation is never taken for one. Returns the number removed in *ret_removed (may be NULL).
 */
int atomic_dir_prune(struct atomic_dir *dir, unsigned keep, const uint64_t *bad, size_t n_bad, unsigned *ret_removed, char *errstr, size_t errstr_size);

/*
 * Makes `name` in the data directory a link to checkpoints/latest/`name`, durably. Does nothing when it already is. -EEXIST when something other than a
 * symbolic link has that name: it is left alone.
 */
int atomic_dir_link(struct atomic_dir *dir, const char *name, char *errstr, size_t errstr_size);

/* True when `name` is 1 to 255 of [A-Za-z0-9_.-] and does not begin with a dot. */
bool atomic_dir_name_ok(const char *name);

#endif
