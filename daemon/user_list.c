/*
 * user_list.c: a doubly linked list inside two arrays indexed by user; no allocation but for growth. Links are stored as user + 1, so that 0 means
 * "none"; a user that is not listed links to itself. Engine thread only; the list owns the arrays.
 */
#include "daemon/user_list.h"

#include <errno.h>
#include <stdlib.h>

int user_list_reserve(struct user_list *list, uint32_t n_users)
{
	const uint32_t capacity = n_users + n_users / 2 + 1024;
	uint32_t *grown;

	if (n_users <= list->capacity)
		return 0;
	grown = realloc(list->next, capacity * sizeof(*grown));
	if (grown == NULL)
		return -ENOMEM;
	list->next = grown;
	grown = realloc(list->prev, capacity * sizeof(*grown));
	if (grown == NULL)
		return -ENOMEM;
	list->prev = grown;
	for (uint32_t user = list->capacity; user < capacity; user++)
		list->next[user] = list->prev[user] = user + 1;
	list->capacity = capacity;
	return 0;
}

void user_list_free(struct user_list *list)
{
	free(list->next);
	free(list->prev);
	*list = (struct user_list){ 0 };
}

int user_list_has(const struct user_list *list, uint32_t user)
{
	return list->next[user] != user + 1;
}

void user_list_take_out(struct user_list *list, uint32_t user)
{
	const uint32_t next = list->next[user], prev = list->prev[user];

	if (!user_list_has(list, user))
		return;
	if (prev == 0)
		list->first = next;
	else
		list->next[prev - 1] = next;
	if (next == 0)
		list->last = prev;
	else
		list->prev[next - 1] = prev;
	list->next[user] = list->prev[user] = user + 1;
	list->n--;
}

void user_list_put_first(struct user_list *list, uint32_t user)
{
	user_list_take_out(list, user);
	list->prev[user] = 0;
	list->next[user] = list->first;
	if (list->first == 0)
		list->last = user + 1;
	else
		list->prev[list->first - 1] = user + 1;
	list->first = user + 1;
	list->n++;
}

void user_list_put_last(struct user_list *list, uint32_t user)
{
	user_list_take_out(list, user);
	list->next[user] = 0;
	list->prev[user] = list->last;
	if (list->last == 0)
		list->first = user + 1;
	else
		list->next[list->last - 1] = user + 1;
	list->last = user + 1;
	list->n++;
}

uint32_t user_list_first(const struct user_list *list)
{
	return list->first == 0 ? UINT32_MAX : list->first - 1;
}

uint32_t user_list_after(const struct user_list *list, uint32_t user)
{
	return list->next[user] == 0 ? UINT32_MAX : list->next[user] - 1;
}
