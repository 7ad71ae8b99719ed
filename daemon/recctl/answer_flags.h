/*
 * answer_flags.h: the flags that `recctl top` and `recctl explain` have in common, as lines of their tables. K has another name in each.
 */
#ifndef DAEMON_RECCTL_ANSWER_FLAGS_H
#define DAEMON_RECCTL_ANSWER_FLAGS_H

#include "daemon/recctl/answer.h"

#define ANSWER_AT(field) .offset = offsetof(struct answer_options, field)
/* clang-format off */
#define ANSWER_FLAGS(K_NAME, K_DEFAULT) \
	{ .name = "user_id", .type = FLAG_IDS, ANSWER_AT(users), \
	  .help = "A user. More than once for several; none, on files: the users with the lowest ids." }, \
	{ .name = (K_NAME), .type = FLAG_INT, ANSWER_AT(k), .fallback = (K_DEFAULT), .min = 1, .max = 1000, .help = "How many titles." }, \
	{ .name = "data_dir", .type = FLAG_STRING, ANSWER_AT(data_dir), .placeholder = "DIR", \
	  .help = "Answer from files: folder with the logs. When only --model_path is given: data." }, \
	{ .name = "model_path", .type = FLAG_STRING, ANSWER_AT(model_path), .placeholder = "FILE", \
	  .help = "Answer from files: the model, a .pt file. When only --data_dir is given: model_bpr_personalized.pt in it." }, \
	{ .name = "checkpoint", .type = FLAG_STRING, ANSWER_AT(checkpoint), .placeholder = "DIR", \
	  .help = "Answer from a checkpoint: recd's data directory (its newest good one), or one directory below its checkpoints/. It is only read; recd may be running." }, \
	{ .name = "config", .type = FLAG_STRING, ANSWER_AT(config), .placeholder = "FILE", \
	  .help = "With --checkpoint: recd.conf, whose state.min_pos_completion, personalize.min_positives and personalize.max_age_sec count. Default: recd's own." }, \
	{ .name = "min_pos_completion", .type = FLAG_FLOAT, ANSWER_AT(min_pos_completion), .fallback = "0.6", .min = 0, .max = 1, \
	  .help = "On files: a watch at least this complete makes its title a positive." }, \
	{ .name = "users_max", .type = FLAG_INT, ANSWER_AT(users_max), .fallback = "10", .min = 0, .max = 1e9, \
	  .help = "On files, when no user is named: so many users. 0: all." }, \
	{ .name = "socket", .type = FLAG_STRING, ANSWER_AT(socket), .placeholder = "PATH", \
	  .help = "Ask the recd that listens here. Without --checkpoint, --data_dir and --model_path: /run/recd/recd.sock." }, \
	{ .name = "json", .type = FLAG_BOOL, ANSWER_AT(json), .help = "Print one JSON object a user, each on a line." }
/* clang-format on */

#endif
