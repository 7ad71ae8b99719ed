/*
 * cpu_philox.h: body of philox_run(), the random numbers of many triples at once; a part of cpu_level_*.c. The same numbers
 * as philox4x32() of philox.h.
 *
 * A 32-bit word lies in a 64-bit lane. Upper halves hold rubbish between rounds: the multiplication does not read them.
 */
/* no include guard: the body of one file */

typedef uint64_t ROWS(words) __attribute__((vector_size(ROWS_WIDTH * sizeof(float))));
typedef uint32_t ROWS(halves) __attribute__((vector_size(ROWS_WIDTH * sizeof(float) / 2)));
#define PHILOX_LANES (ROWS_WIDTH / 2)

static ROWS_TARGET void ROWS(philox_run)(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, struct philox_many *ret)
{
	const ROWS(words) zero = {0}, m0 = zero + PHILOX_M0, m1 = zero + PHILOX_M1;
	ROWS(words) rising = zero;
	for (uint32_t l = 0; l < PHILOX_LANES; l++)
		rising[l] = l;
	for (uint32_t at = 0; at < PHILOX_RUN; at += 2 * PHILOX_LANES) { /* two vectors at once: a round waits for its multiplications */
		ROWS(words) a0 = rising + (c0 + at), a1 = zero + c1, a2 = zero + c2, a3 = zero + c3;
		ROWS(words) b0 = rising + (c0 + at + PHILOX_LANES), b1 = a1, b2 = a2, b3 = a3;
		uint32_t key0 = k0, key1 = k1;
		for (int round = 0; round < 10; round++) {
			ROWS(words) x0 = zero + key0, x1 = zero + key1;
			ROWS(words) p0 = WORDS_MUL(m0, a0), p1 = WORDS_MUL(m1, a2), q0 = WORDS_MUL(m0, b0), q1 = WORDS_MUL(m1, b2);
			a0 = (p1 >> 32) ^ a1 ^ x0;
			b0 = (q1 >> 32) ^ b1 ^ x0;
			a2 = (p0 >> 32) ^ a3 ^ x1;
			b2 = (q0 >> 32) ^ b3 ^ x1;
			a1 = p1;
			b1 = q1;
			a3 = p0;
			b3 = q0;
			key0 += PHILOX_W0;
			key1 += PHILOX_W1;
		}
		ROWS(halves) v[8] = {__builtin_convertvector(a0, ROWS(halves)), __builtin_convertvector(b0, ROWS(halves)),
		                     __builtin_convertvector(a1, ROWS(halves)), __builtin_convertvector(b1, ROWS(halves)),
		                     __builtin_convertvector(a2, ROWS(halves)), __builtin_convertvector(b2, ROWS(halves)),
		                     __builtin_convertvector(a3, ROWS(halves)), __builtin_convertvector(b3, ROWS(halves))};
		for (int k = 0; k < 4; k++)
			memcpy(&ret->v[k][at], &v[2 * k], 2 * sizeof v[0]);
	}
}

#undef PHILOX_LANES
