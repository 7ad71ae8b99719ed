/*
 * pairs.h: the two small records that histories hand to learning. C and C++ (nvcc) read this header.
 */
#ifndef TRAINER_STATE_PAIRS_H
#define TRAINER_STATE_PAIRS_H

#include <stdint.h>

struct user_item {
	uint32_t user;
	uint32_t item;
};

/* Label 1: positive. 0: a skip: shown, old enough, and no click, play, like or watch at or after. Items in neither state are left out. */
struct decided_impression {
	uint32_t item;
	int32_t label;
};

#endif
