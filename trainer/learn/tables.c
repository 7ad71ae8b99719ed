/*
 * tables.c: memory of a parameter copy (tables.h). Whoever owns the struct calls these, from one thread at a time. Arrays come from array.c, so growth of
 * large tables moves pages and copies nothing.
 */
#include "trainer/learn/tables.h"

#include <errno.h>
#include <string.h>

#include "trainer/learn/array.h"

/* The capacity to take for `need` rows when there are `have`. */
static uint32_t grown(uint32_t have, uint32_t need)
{
	if (need <= have)
		return have;
	uint64_t more = (uint64_t)have + have / 2;
	if (more < need)
		more = need;
	if (more < 16)
		more = 16;
	return more > UINT32_MAX ? UINT32_MAX : (uint32_t)more;
}

static int grow_floats(float **array, uint64_t n)
{
	void *p = *array;
	int rc = array_grow(&p, n * sizeof(float));
	*array = p;
	return rc;
}

int tables_reserve(struct tables *tables, uint32_t n_users, uint32_t n_items, uint32_t dim)
{
	if (dim == 0 || (tables->dim != 0 && tables->dim != dim))
		return -EINVAL;
	uint32_t users = grown(tables->cap_users, n_users);
	uint32_t items = grown(tables->cap_items, n_items);
	if (users > tables->cap_users) {
		if (grow_floats(&tables->U, (uint64_t)users * dim) < 0 || grow_floats(&tables->bu, users) < 0 ||
		    grow_floats(&tables->acc_user, users) < 0)
			return -ENOMEM;
		tables->cap_users = users;
	}
	if (items > tables->cap_items) {
		if (grow_floats(&tables->V, (uint64_t)items * dim) < 0 || grow_floats(&tables->bi, items) < 0 ||
		    grow_floats(&tables->acc_item, items) < 0)
			return -ENOMEM;
		tables->cap_items = items;
	}
	tables->dim = dim;
	return 0;
}

void tables_free(struct tables *tables)
{
	if (!tables)
		return;
	array_free(tables->U);
	array_free(tables->V);
	array_free(tables->bu);
	array_free(tables->bi);
	array_free(tables->acc_user);
	array_free(tables->acc_item);
	memset(tables, 0, sizeof *tables);
}
