/*
 * replay_resume.h: before --resume sends anything: whether what the topics hold is the beginning of what the files give now.
 */
#ifndef DAEMON_RECCTL_REPLAY_RESUME_H
#define DAEMON_RECCTL_REPLAY_RESUME_H

#include "daemon/recctl/progress.h"
#include "daemon/recctl/replay_send.h"

struct replay_resume {
	struct replay_merge_config merge;
	const struct replay_sender *sender; /* says where a record goes */
	struct replay_topic *topics;        /* [STREAM_COUNT], with the tails of replay_tails_read() */
	const volatile sig_atomic_t *stop;
	struct progress *progress;          /* begun; gets the bytes read */
};

/*
 * Runs the merge up to the last record that any partition holds, and sets each tail's n_held. 0; -EBADMSG: a partition holds something else than the files give,
 * because a file was changed; -EINTR: *stop; other -errno of the merge. errstr says which and what to do.
 */
int replay_resume_check(const struct replay_resume *resume, char *errstr, size_t errstr_size);

#endif
