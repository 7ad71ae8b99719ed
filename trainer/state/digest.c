/*
 * digest.c: a digest of all histories that can be kept up to date: two sums, modulo 2^64, of two independent hashes of every fact. Sums do not depend
 * on the order, and a fact that changes is taken out and put in again. Facts are named by external ids and surfaces by their names, never by indexes,
 * seeds or settings, so any two runs over the same lines agree.
 *
 * A hash absorbs 64-bit words by steps that are one-to-one in the word and in the state (xor, odd multiplier, xorshift), so facts that differ in one
 * word never collide before the end; the end is the finaliser of SplitMix64 (Steele et al., OOPSLA 2014). Engine's thread only.
 */
#include <string.h>

#include "trainer/state/internal.h"

enum digest_kind { DIGEST_WATCH = 1, DIGEST_TOUCH, DIGEST_IMPRESSION, DIGEST_FORGOTTEN };

struct hash128 {
	uint64_t a, b;
};

static struct hash128 absorb(struct hash128 h, uint64_t word)
{
	h.a = (h.a ^ word) * 0x9e3779b97f4a7c15u;
	h.b = (h.b ^ word) * 0xd6e8feb86659fd93u;
	h.a ^= h.a >> 32;
	h.b ^= h.b >> 29;
	return h;
}

static uint64_t finish(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static struct hash128 start(enum digest_kind kind, int64_t user_id)
{
	struct hash128 h = {0x243f6a8885a308d3u + (uint64_t)kind, 0x13198a2e03707344u + (uint64_t)kind}; /* digits of pi */

	return absorb(h, (uint64_t)user_id);
}

static void add(struct state *state, struct hash128 h)
{
	state->digest.lo += finish(h.a);
	state->digest.hi += finish(h.b);
}

static void subtract(struct state *state, struct hash128 h)
{
	state->digest.lo -= finish(h.a);
	state->digest.hi -= finish(h.b);
}

/* Two floats as one word, by their bits. */
static uint64_t float_bits(float x, float y)
{
	uint32_t a, b;

	memcpy(&a, &x, sizeof(a));
	memcpy(&b, &y, sizeof(b));
	return (uint64_t)a << 32 | b;
}

static uint64_t item_id(const struct state *state, uint32_t item)
{
	return (uint64_t)ids_external(state->item_ids)[item];
}

static struct hash128 watch_hash(const struct state *state, struct hash128 h, const struct watch_fact *watch)
{
	h = absorb(h, item_id(state, watch->item));
	h = absorb(h, float_bits(watch->completion, watch->watch_time_sec));
	h = absorb(h, (uint64_t)watch->best_us);
	return absorb(h, (uint64_t)watch->last_us);
}

static struct hash128 touch_hash(const struct state *state, struct hash128 h, const struct touch_fact *touch)
{
	h = absorb(h, item_id(state, touch->item));
	h = absorb(h, (uint64_t)touch->click_us);
	h = absorb(h, (uint64_t)touch->play_us);
	h = absorb(h, (uint64_t)touch->opinion_us);
	h = absorb(h, (uint64_t)touch->rated_us);
	return absorb(h, (float_bits(touch->rating, 0.0f) & ~(uint64_t)UINT32_MAX) | (uint32_t)touch->opinion);
}

static struct hash128 impression_hash(const struct state *state, struct hash128 h, const struct impression_fact *impression)
{
	h = absorb(h, item_id(state, impression->item));
	h = absorb(h, (uint64_t)impression->shown_us);
	return absorb(h, state->surfaces[impression->surface].hash + impression->position * 0xd1342543de82ef95u);
}

void digest_watch(struct state *state, int64_t user_id, const struct watch_fact *old, const struct watch_fact *new)
{
	struct hash128 h = start(DIGEST_WATCH, user_id);

	if (old)
		subtract(state, watch_hash(state, h, old));
	if (new)
		add(state, watch_hash(state, h, new));
}

void digest_touch(struct state *state, int64_t user_id, const struct touch_fact *old, const struct touch_fact *new)
{
	struct hash128 h = start(DIGEST_TOUCH, user_id);

	if (old)
		subtract(state, touch_hash(state, h, old));
	if (new)
		add(state, touch_hash(state, h, new));
}

void digest_impression(struct state *state, int64_t user_id, const struct impression_fact *old, const struct impression_fact *new)
{
	struct hash128 h = start(DIGEST_IMPRESSION, user_id);

	if (old)
		subtract(state, impression_hash(state, h, old));
	if (new)
		add(state, impression_hash(state, h, new));
}

void digest_forgotten(struct state *state, int64_t user_id, int forgotten)
{
	if (forgotten)
		add(state, start(DIGEST_FORGOTTEN, user_id));
	else
		subtract(state, start(DIGEST_FORGOTTEN, user_id));
}

uint64_t digest_name_hash(const char *name, size_t len)
{
	struct hash128 h = {0xa4093822299f31d0u, 0x082efa98ec4e6c89u};

	h = absorb(h, len);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = 0;
		for (size_t k = i; k < len && k < i + 8; k++)
			word |= (uint64_t)(unsigned char)name[k] << (8 * (k - i));
		h = absorb(h, word);
	}
	return finish(h.a ^ finish(h.b));
}
