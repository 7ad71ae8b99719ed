/*
 * user_list.h: an ordered set of users, by index: constant time to add at either end, to move and to take out. Used for users waiting to be folded
 * in (latest first) and for personal rows by age (oldest first). Engine thread only.
 */
#ifndef DAEMON_USER_LIST_H
#define DAEMON_USER_LIST_H

#include <stddef.h>
#include <stdint.h>

struct user_list {
	uint32_t *next, *prev; /* [capacity]; links are user + 1; an unlisted user links to itself */
	uint32_t first, last;  /* user + 1; 0: empty */
	uint32_t capacity;
	size_t n;
};

/* Makes room for users below n_users. 0 or -ENOMEM (list unchanged). */
int user_list_reserve(struct user_list *list, uint32_t n_users);
void user_list_free(struct user_list *list);
int user_list_has(const struct user_list *list, uint32_t user);
/* Puts a user first / last, taking it from where it was. */
void user_list_put_first(struct user_list *list, uint32_t user);
void user_list_put_last(struct user_list *list, uint32_t user);
void user_list_take_out(struct user_list *list, uint32_t user);
/* The first user, UINT32_MAX when the list is empty. */
uint32_t user_list_first(const struct user_list *list);
/* The one after a listed user, UINT32_MAX: he is the last. */
uint32_t user_list_after(const struct user_list *list, uint32_t user);

#endif
