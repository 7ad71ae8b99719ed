/*
 * answer_files.h: what `recctl top` and `recctl explain` answer from without a running recd, read once: a model file and the logs beside it, or a checkpoint.
 */
#ifndef DAEMON_RECCTL_ANSWER_FILES_H
#define DAEMON_RECCTL_ANSWER_FILES_H

#include "daemon/recctl/answer.h"
#include "trainer/model/checkpoint.h"
#include "trainer/model/query.h"

struct answer_files {
	char *model_path; /* the model file that was read; NULL: a checkpoint */
	struct model_file model;
	struct generation generation; /* borrows the model's tables; numbered as recd published it, 0 for a model file */
	struct state *state;
	struct query_options options;
};

/* Reads what the options name; zero `files` first. `what` is the command's name, for messages. 0 or -errno with text; answer_files_close() in either case. */
int answer_files_open(const char *what, const struct answer_options *options, struct answer_files *files, char *errstr, size_t errstr_size);
void answer_files_close(struct answer_files *files);

/* answer_files_open() for --checkpoint (answer_checkpoint.c). Nothing is written, and a recd may run on the same data directory. */
int answer_checkpoint_open(const char *what, const struct answer_options *options, struct answer_files *files, char *errstr, size_t errstr_size);

/*
 * query_top() for a user, by external id; he need not be known. ret_items [options.k]. `served` is told by the kind of file. Any thread, with a scratch of its
 * own. 0 or -ENOMEM.
 */
int answer_files_top(const struct answer_files *files, int64_t user_id, struct query_scratch *scratch, struct ranked_item *ret_items, size_t *ret_n,
                     enum served *ret_served);

/* What served, by the kind of file. `facts`: NULL for a user nobody has seen. */
enum served answer_files_served(const struct answer_files *files, const struct user_facts *facts, enum served served);

/* All users' ids, ascending; the array [*ret_n] is the caller's. 0 or -ENOMEM. */
int answer_files_users(const struct answer_files *files, int64_t **ret_ids, size_t *ret_n);

#endif
