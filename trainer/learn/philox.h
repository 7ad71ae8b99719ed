/*
 * philox.h: Philox4x32-10, a counter-based random generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
 *
 * A random block is a pure function of a key and a counter, so any thread, on any device, can draw number n without drawing those before it.
 * C, C++ and CUDA read this header. The 4th counter word names the purpose of a draw, so that no two uses share a block.
 */
#ifndef TRAINER_LEARN_PHILOX_H
#define TRAINER_LEARN_PHILOX_H

#include <stdint.h>

#if defined(__CUDACC__)
#define PHILOX_FN static __host__ __device__ __forceinline__
#else
#define PHILOX_FN static inline __attribute__((always_inline, unused))
#endif

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

/* 4th counter word. Negatives use PHILOX_NEGATIVE + attempt. */
#define PHILOX_NEGATIVE 0x00000000u    /* + attempt, counter (index, step low, step high) */
#define PHILOX_SHUFFLE 0x00000100u     /* counter (number of the insert, low and high, 0) */
#define PHILOX_USER_ROW 0x00000200u    /* counter (block of four values, id low, id high) */
#define PHILOX_ITEM_ROW 0x00000201u    /* the same for items */
#define PHILOX_GROUP 0x00000202u       /* counter (number, low and high, order made) */
#define PHILOX_PERSONALIZE 0x00000300u /* counter (index, step, attempt) */
#define PHILOX_HARD 0x00000500u        /* + block of four candidates, counter (index, step low, step high) */

struct philox_block {
	uint32_t v[4];
};

/* Ten rounds over the counter (c0..c3) with the key (k0, k1). */
PHILOX_FN struct philox_block philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1)
{
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)PHILOX_M0 * c0;
		uint64_t p1 = (uint64_t)PHILOX_M1 * c2;
		uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
		uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		c0 = n0;
		c2 = n2;
		k0 += PHILOX_W0;
		k1 += PHILOX_W1;
	}
	struct philox_block block;
	block.v[0] = c0;
	block.v[1] = c1;
	block.v[2] = c2;
	block.v[3] = c3;
	return block;
}

/* A number in 0..n-1 from 32 random bits (multiply and shift; the bias is below n / 2^32). */
PHILOX_FN uint32_t philox_below(uint32_t random, uint32_t n)
{
	return (uint32_t)(((uint64_t)random * n) >> 32);
}

/* Uniform in [-0.5, 0.5), 24 bits, exact in float. */
PHILOX_FN float philox_centred(uint32_t random)
{
	return (float)(int32_t)(random >> 8) * (1.0f / 16777216.0f) - 0.5f;
}

#endif
