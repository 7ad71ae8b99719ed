/*
 * reserve.h: arrays that grow without moving. Address space is taken once, memory is committed as the array grows, so a pointer handed out stays
 * valid and readers of older entries need no lock. Internal to trainer/state.
 */
#ifndef TRAINER_STATE_RESERVE_H
#define TRAINER_STATE_RESERVE_H

#include <stddef.h>

struct reserve {
	char *base;       /* page aligned; 2 MiB aligned when huge */
	size_t size;      /* bytes of address space */
	size_t step;      /* bytes committed at a time */
	size_t committed; /* bytes that may be touched, from base; zero at first */
	void *mapping;    /* what was mapped, for closing */
	size_t mapped;
	int huge;
};

/* Reserves `bytes` of address space (no memory yet). huge: ask for huge pages. bytes 0 is allowed. 0 or -ENOMEM. */
int reserve_open(struct reserve *reserve, size_t bytes, int huge);
/* Makes at least the first `bytes` usable. 0, or -ENOMEM (also past the reserved size). */
int reserve_commit(struct reserve *reserve, size_t bytes);
/* Accepts a zeroed struct. */
void reserve_close(struct reserve *reserve);

#endif
