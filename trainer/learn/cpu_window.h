/*
 * cpu_window.h: body of the windows that update() works in; a part of cpu_level_*.c, after cpu_vectors.h and before cpu_update.h.
 *
 * A window is up to ROWS_LANES triples in a row, one a lane, that share no row. It ends before the first triple that shares one with it, so one thread's result is
 * that of one triple after the other. Most windows are draws as they lie; where some have no negative, the others are brought together.
 */
/* no include guard: the body of one file */

struct ROWS(window) {
	const struct draw *draws; /* [ROWS_LANES]; the first n count, the others have rows that there are. Unset when n is 0 */
	struct draw kept[ROWS_LANES];
	uint32_t n;
};

typedef uint32_t ROWS(quad) __attribute__((vector_size(16), aligned(8), may_alias));
typedef uint32_t ROWS(octet) __attribute__((vector_size(32)));
_Static_assert(sizeof(struct draw) == 32 && offsetof(struct draw, user) == 0 && offsetof(struct draw, pos) == 4 && offsetof(struct draw, neg) == 8 &&
                       offsetof(struct draw, weight) == 28,
               "load_ids() and load_weights() read draws as vectors");

/* 16 bytes of draw t and of draw t + 4 in one vector. */
#define DRAWS_HALF(draws, t, half)                                                                                                                   \
	SHUFFLE(((const ROWS(quad) *)(const void *)&(draws)[t])[half], ((const ROWS(quad) *)(const void *)&(draws)[(t) + 4])[half], 0, 1, 2, 3, 4, 5, 6, 7)
#define LOW_WORDS(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH_WORDS(a, b) SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_PAIRS(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)

/* Of draws[ROWS_LANES]; lane l is draw l. */
ROWS_INLINE void ROWS(load_ids)(const struct draw *draws, FLAGS *user, FLAGS *pos, FLAGS *neg)
{
	ROWS(octet) a = DRAWS_HALF(draws, 0, 0), b = DRAWS_HALF(draws, 1, 0), c = DRAWS_HALF(draws, 2, 0), d = DRAWS_HALF(draws, 3, 0);
	ROWS(octet) ab = LOW_WORDS(a, b), cd = LOW_WORDS(c, d);
	*user = (FLAGS)LOW_PAIRS(ab, cd);
	*pos = (FLAGS)HIGH_PAIRS(ab, cd);
	*neg = (FLAGS)LOW_PAIRS(HIGH_WORDS(a, b), HIGH_WORDS(c, d));
}

ROWS_INLINE void ROWS(load_weights)(const struct draw *draws, LANES *weight)
{
	ROWS(octet) a = DRAWS_HALF(draws, 0, 1), b = DRAWS_HALF(draws, 1, 1), c = DRAWS_HALF(draws, 2, 1), d = DRAWS_HALF(draws, 3, 1);
	*weight = (LANES)HIGH_PAIRS(HIGH_WORDS(a, b), HIGH_WORDS(c, d));
}
#undef DRAWS_HALF
#undef LOW_WORDS
#undef HIGH_WORDS
#undef LOW_PAIRS
#undef HIGH_PAIRS

ROWS_INLINE int ROWS(any)(const FLAGS *flags)
{
	uint64_t words[ROWS_LANES / 2];
	memcpy(words, flags, sizeof words);
	return (words[0] | words[1] | words[2] | words[3]) != 0;
}

/* Does a row occur twice? */
#if defined(ROWS_TWICE)
#define MEETS(u, p, n) ROWS_TWICE(u, p, n)
#else
ROWS_INLINE int ROWS(meets)(const FLAGS *user, const FLAGS *pos, const FLAGS *neg)
{
	const FLAGS u = *user, p = *pos, n = *neg;
	FLAGS hit = p == n;
#define TURN(v, k) SHUFFLE(v, v, (k) & 7, (1 + (k)) & 7, (2 + (k)) & 7, (3 + (k)) & 7, (4 + (k)) & 7, (5 + (k)) & 7, (6 + (k)) & 7, (7 + (k)) & 7)
#define MEET(k) (hit |= (u == TURN(u, k)) | (p == TURN(p, k)) | (n == TURN(n, k)) | (p == TURN(n, k)))
	MEET(1);
	MEET(2);
	MEET(3);
	MEET(4);
	hit |= (p == TURN(n, 5)) | (p == TURN(n, 6)) | (p == TURN(n, 7));
#undef MEET
#undef TURN
	return ROWS(any)(&hit);
}
#define MEETS(u, p, n) ROWS(meets)(&(u), &(p), &(n))
#endif

/* How many of draws[n] there are before the first that shares a row with an earlier one. */
ROWS_INLINE uint32_t ROWS(apart)(const struct draw *d, uint32_t n)
{
	for (uint32_t k = 1; k < n; k++)
		for (uint32_t j = 0; j < k; j++)
			if (d[k].user == d[j].user || d[k].pos == d[j].pos || d[k].pos == d[j].neg || d[k].neg == d[j].pos || d[k].neg == d[j].neg)
				return k;
	return n;
}

/* The next window of draws[n] from *at on, leaving out those without a negative; *at moves past what is in it, and past what was left out before that. Empty: all were. */
ROWS_FN __attribute__((noinline)) void ROWS(fill_slowly)(const struct draw *draws, size_t n, size_t *at, struct ROWS(window) *w, struct update_sums *sums)
{
	size_t i = *at, ends[ROWS_LANES];
	uint32_t taken = 0, skipped = 0, skipped_at[ROWS_LANES];
	for (; i < n && taken < ROWS_LANES; i++) {
		if (draws[i].neg == SAMPLE_NONE) {
			skipped++;
			continue;
		}
		w->kept[taken] = draws[i];
		skipped_at[taken] = skipped;
		ends[taken++] = i + 1;
	}
	w->draws = w->kept;
	w->n = ROWS(apart)(w->kept, taken);
	if (w->n < taken) {
		i = ends[w->n - 1];
		skipped = skipped_at[w->n - 1];
	}
	for (uint32_t t = w->n; taken > 0 && t < ROWS_LANES; t++) /* read, and nothing comes of it */
		w->kept[t] = w->kept[0];
	sums->rejected += skipped;
	*at = i;
}

ROWS_INLINE void ROWS(fill_window)(const struct draw *draws, size_t n, size_t *at, struct ROWS(window) *w, struct update_sums *sums)
{
	if (n - *at >= ROWS_LANES) {
		FLAGS user, pos, neg;
		ROWS(load_ids)(draws + *at, &user, &pos, &neg);
		FLAGS none = neg == (FLAGS){0} - 1;
		if (!MEETS(user, pos, neg) && !ROWS(any)(&none)) {
			w->draws = draws + *at;
			w->n = ROWS_LANES;
			*at += ROWS_LANES;
			return;
		}
	}
	ROWS(fill_slowly)(draws, n, at, w, sums);
}
#undef MEETS
