/*
 * emu_warp.cpp: shuffles, votes, reductions and __syncwarp: the lanes that a mask names meet, the last to come works out what each gets.
 *
 * Of these only __syncwarp orders memory, as on the device.
 */
#include "tests/cuda_emu/emu_block.h"

/* Shuffles: the lane that lane `l` reads, by CUDA's rules for segments of `width` lanes. */
static int source_of(const struct emu_lane *lane, int l)
{
	int first = l & ~(lane->width - 1);
	int end = first + lane->width;
	int source = l;
	switch (lane->op) {
	case EMU_SHUFFLE:
		source = first + (lane->arg & (lane->width - 1));
		break;
	case EMU_SHUFFLE_XOR:
		source = l ^ lane->arg;
		break;
	case EMU_SHUFFLE_UP:
		source = l - lane->arg;
		break;
	default:
		source = l + lane->arg;
		break;
	}
	if (lane->op == EMU_SHUFFLE_UP ? source < first : source >= end)
		source = l;
	return source;
}

static uint64_t reduce(enum emu_meet op, uint64_t a, uint64_t b)
{
	uint32_t x = static_cast<uint32_t>(a), y = static_cast<uint32_t>(b);
	int32_t i = static_cast<int32_t>(x), j = static_cast<int32_t>(y);
	switch (op) {
	case EMU_REDUCE_ADD:
		return x + y;
	case EMU_REDUCE_MIN:
		return x < y ? x : y;
	case EMU_REDUCE_MAX:
		return x > y ? x : y;
	case EMU_REDUCE_MIN_SIGNED:
		return i < j ? x : y;
	case EMU_REDUCE_MAX_SIGNED:
		return i > j ? x : y;
	case EMU_REDUCE_AND:
		return x & y;
	case EMU_REDUCE_OR:
		return x | y;
	default:
		return x ^ y;
	}
}

/* All lanes of `mask` have come: do they agree? */
static void check_meeting(const struct emu_lane *warp, const struct emu_lane *me)
{
	for (int l = 0; l < 32; l++) {
		if (!(me->mask >> l & 1))
			continue;
		const struct emu_lane *other = &warp[l];
		if (other->op != me->op || other->mask != me->mask || other->line != me->line)
			emu_die("lanes of one mask do not meet: lane %d is at %s, line %d, mask %08x; lane %d at %s, line %d, mask %08x", me->lane,
			        emu_meet_name(me->op), me->line, me->mask, l, emu_meet_name(other->op), other->line, other->mask);
	}
}

static void work_out_shuffle(struct emu_lane *warp, const struct emu_lane *me)
{
	for (int l = 0; l < 32; l++) {
		if (!(me->mask >> l & 1))
			continue;
		int source = source_of(&warp[l], l);
		if (source < 0 || source > 31 || !(me->mask >> source & 1))
			emu_die("%s of line %d: lane %d reads lane %d, which is not in mask %08x", emu_meet_name(me->op), me->line, l, source, me->mask);
		warp[l].out = warp[source].in;
	}
}

static void work_out(struct emu_lane *warp, const struct emu_lane *me)
{
	if (me->op <= EMU_SHUFFLE_DOWN) {
		work_out_shuffle(warp, me);
		return;
	}
	uint32_t votes = 0;
	uint64_t sum = 0;
	int begun = 0;
	for (int l = 0; l < 32; l++) {
		if (!(me->mask >> l & 1))
			continue;
		votes |= static_cast<uint32_t>(warp[l].in != 0) << l;
		sum = begun ? reduce(me->op, sum, warp[l].in) : warp[l].in;
		begun = 1;
	}
	for (int l = 0; l < 32; l++) {
		if (!(me->mask >> l & 1))
			continue;
		uint64_t *out = &warp[l].out;
		if (me->op == EMU_BALLOT)
			*out = votes;
		else if (me->op == EMU_ANY)
			*out = votes != 0;
		else if (me->op == EMU_ALL)
			*out = votes == me->mask;
		else if (me->op != EMU_MATCH_ANY)
			*out = sum;
		else {
			*out = 0;
			for (int k = 0; k < 32; k++)
				*out |= static_cast<uint64_t>((me->mask >> k & 1) && warp[k].in == warp[l].in) << k;
		}
	}
}

uint64_t emu_warp(enum emu_meet op, uint32_t mask, uint64_t value, int arg, int width, int line)
{
	struct emu_block *b = &emu_block;
	struct emu_lane *me = emu_lane_now;
	if (!me)
		emu_die("%s outside a kernel", emu_meet_name(op));
	struct emu_lane *warp = me - me->lane;
	int w = me->warp;
	me->op = op;
	me->line = line;
	me->mask = mask;
	me->in = value;
	me->arg = arg;
	me->width = width;
	if (!(mask >> me->lane & 1))
		emu_die("the mask %08x does not name the calling lane %d", mask, me->lane);
	if (mask & ~b->warp_live[w])
		emu_die("the mask %08x names lanes that have returned or do not exist (lanes alive: %08x)", mask, b->warp_live[w]);
	if (width < 1 || width > 32 || (width & (width - 1)))
		emu_die("a shuffle's width is a power of two up to 32, not %d", width);
	int first = __builtin_ctz(mask);
	char *object = &b->meetings->warp[w][first][b->warp_turn[w][first] & 1];
	if (op == EMU_SYNCWARP)
		emu_release(object);
	b->warp_waiting[w] |= 1u << me->lane;
	if ((b->warp_waiting[w] & mask) == mask) {
		check_meeting(warp, me);
		work_out(warp, me);
		b->warp_waiting[w] &= ~mask;
		b->warp_turn[w][first] = static_cast<unsigned char>(b->warp_turn[w][first] + (op == EMU_SYNCWARP));
		for (int l = 0; l < 32; l++) {
			if (!(mask >> l & 1))
				continue;
			warp[l].op = EMU_NONE;
			if (&warp[l] != me)
				emu_block_ready(&warp[l]);
		}
	} else
		emu_block_wait(emu_meet_name(op));
	if (op == EMU_SYNCWARP)
		emu_acquire(object);
	return me->out;
}

void emu_warp_leave(struct emu_lane *lane)
{
	struct emu_block *b = &emu_block;
	b->warp_live[lane->warp] &= ~(1u << lane->lane);
	struct emu_lane *warp = lane - lane->lane;
	for (int l = 0; l < 32; l++) {
		if ((b->warp_waiting[lane->warp] >> l & 1) && (warp[l].mask >> lane->lane & 1))
			emu_die("lane %d of warp %d returns while lane %d waits for it in %s, line %d", lane->lane, lane->warp, l, emu_meet_name(warp[l].op),
			        warp[l].line);
	}
}
