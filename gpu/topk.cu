/*
 * topk.cu: the K best items of many rows at once (backend.h topk): scores, masks and selection in one pass over the item table.
 *
 * A block takes 64 users and a range of items, 64 items at a time: a product of two 64 x 64 tiles by 256 threads, sixteen scores each, fed by shared memory in
 * slices of 16 coordinates; the next slice is on its way while this one is used. Scores never leave the registers unless they are among the best so far: a
 * user's threshold is the score of the K-th best that the block knows for him; what is above it and not masked goes to his list in global memory. A list has
 * room for several times K, so it is cut back to the best K (sorted in shared memory, in place of the tiles) only a few times in the whole pass: with items in
 * random order about K (1 + ln(items / K)) scores of a user ever pass the threshold. The largest K, 1,024, sorts 2,048 keys, 16 KiB; smaller ones sort several
 * users' lists at once. A second kernel joins the lists of the ranges.
 *
 * A key is the score's bits in an order of unsigned numbers, then the item's complement: 64 bits, no two alike, and larger is better (higher score, then lower
 * item). So the answer does not depend on timing, though places in a list are given out by atomic counters in shared memory. Key 0 is nobody's.
 */
#include <errno.h>
#include <string.h>

#include "gpu/query.cuh"
#include "trainer/learn/bpr_math.h"

#define TILE 64u          /* users of a block; items of a step */
#define SLICE 16u         /* coordinates of both tiles in shared memory at a time; every stride is a multiple */
#define THREADS 256u
#define PITCH (TILE + 4u) /* floats of a line of a tile: four rows side by side are 16-byte aligned */
#define TILE_FLOATS (SLICE * PITCH)
#define SORTED 2048u      /* keys sorted at a time */
#define CAPACITY_MIN 256u
#define KEPT_BYTES_MAX (static_cast<size_t>(256) << 20) /* of all lists; more users go in several passes */
#define BLOCKS_AN_SM 4u

static_assert(4 * TILE_FLOATS * sizeof(float) >= SORTED * sizeof(uint64_t), "keys are sorted in place of the two pairs of tiles");

struct topk_view {
	const float *V, *bias; /* [n_items, stride], [n_items] */
	const float *rows;     /* [n, stride] */
	const uint64_t *offsets;
	const uint32_t *masked;
	uint64_t *kept; /* [n, ranges, capacity] keys */
	uint32_t *best_items;
	float *best_scores;
	uint32_t n, n_items, stride, k;
	uint32_t capacity;    /* of a list: a power of two, at least k + TILE */
	uint32_t ranges;      /* of items, a block each */
	uint32_t range_items; /* a multiple of TILE */
};

/* ---- keys ---- */

GPU_FN uint64_t key_of(float score, uint32_t item)
{
	const uint32_t bits = bpr_bits_of_float(score + 0.0f); /* -0 becomes 0: they are equal */
	const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
	return static_cast<uint64_t>(ordered) << 32 | static_cast<uint32_t>(~item);
}

GPU_FN float score_of_key(uint64_t key)
{
	const uint32_t ordered = static_cast<uint32_t>(key >> 32);
	return bpr_float_of_bits(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

/* Puts the larger one first. */
GPU_FN void order_pair(uint64_t *first, uint64_t *second, int descending)
{
	const uint64_t a = *first, b = *second;
	if ((a < b) == descending) {
		*first = b;
		*second = a;
	}
}

/* Sorts segments of `segment` keys each (a power of two), largest first; all threads of the block, which have met before. Bitonic (Batcher, 1968). */
GPU_FN void sort_segments(uint64_t *keys, uint32_t segment)
{
	for (uint32_t size = 2; size <= segment; size *= 2) {
		for (uint32_t apart = size / 2; apart > 0; apart /= 2) {
			for (uint32_t pair = threadIdx.x; pair < SORTED / 2; pair += THREADS) {
				const uint32_t at = 2 * pair - (pair & (apart - 1));
				order_pair(&keys[at], &keys[at + apart], size == segment || (at & size) == 0);
			}
			__syncthreads();
		}
	}
}

/* ---- scanning ---- */

/* What a block of the scan has in shared memory, after the tiles. */
struct scan_shared {
	uint64_t *keys;       /* [SORTED], in place of the tiles */
	float *tiles;         /* two pairs of [SLICE, PITCH]: users, items */
	uint64_t *thresholds; /* [TILE] the k-th best key of each user; 0 while there are fewer */
	uint64_t *masks;      /* [TILE] of the items of this step, a bit each */
	uint32_t *counts;     /* [TILE] keys in each user's list */
};

#define SCAN_SHARED_BYTES (4 * TILE_FLOATS * sizeof(float) + 2 * TILE * sizeof(uint64_t) + TILE * sizeof(uint32_t))

/* Where this block works. */
struct scan_place {
	uint32_t first_user, n_users; /* n_users: 1..TILE */
	uint32_t begin, end;          /* items */
};

GPU_FN uint64_t *list_of(const struct topk_view &v, const struct scan_place &place, uint32_t slot)
{
	return v.kept + (static_cast<size_t>(place.first_user + slot) * v.ranges + blockIdx.y) * v.capacity;
}

/* Four coordinates of a row and of an item: this thread's part of the next slice. */
struct slice_part {
	float4 user, item;
};

GPU_FN struct slice_part slice_load(const struct topk_view &v, const struct scan_place &place, uint32_t first_item, uint32_t coordinate)
{
	const uint32_t row = threadIdx.x / (SLICE / 4), at = coordinate + threadIdx.x % (SLICE / 4) * 4;
	struct slice_part part = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
	if (row < place.n_users)
		part.user = __ldg(reinterpret_cast<const float4 *>(v.rows + static_cast<size_t>(place.first_user + row) * v.stride + at));
	if (first_item + row < place.end)
		part.item = __ldg(reinterpret_cast<const float4 *>(v.V + static_cast<size_t>(first_item + row) * v.stride + at));
	return part;
}

/* Into a pair of tiles, a line for each coordinate. */
GPU_FN void slice_store(float *tiles, const struct slice_part &part)
{
	float *user = tiles + threadIdx.x % (SLICE / 4) * 4 * PITCH + threadIdx.x / (SLICE / 4), *item = user + TILE_FLOATS;
	user[0] = part.user.x;
	user[PITCH] = part.user.y;
	user[2 * PITCH] = part.user.z;
	user[3 * PITCH] = part.user.w;
	item[0] = part.item.x;
	item[PITCH] = part.item.y;
	item[2 * PITCH] = part.item.z;
	item[3 * PITCH] = part.item.w;
}

/* This thread's scores: users 4 (thread / 16) .. + 3 and items 4 (thread % 16) .. + 3 of the tiles. */
struct scores {
	float4 of[4]; /* by user */
};

GPU_FN void slice_multiply(const float *tiles, struct scores &sums)
{
	const float *users = tiles + threadIdx.x / 16 * 4, *items = tiles + TILE_FLOATS + threadIdx.x % 16 * 4;
#pragma unroll
	for (uint32_t d = 0; d < SLICE; d++) {
		const float4 u = *reinterpret_cast<const float4 *>(users + d * PITCH), i = *reinterpret_cast<const float4 *>(items + d * PITCH);
		const float of[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
		for (int a = 0; a < 4; a++) {
			sums.of[a].x = BPR_FMA(of[a], i.x, sums.of[a].x);
			sums.of[a].y = BPR_FMA(of[a], i.y, sums.of[a].y);
			sums.of[a].z = BPR_FMA(of[a], i.z, sums.of[a].z);
			sums.of[a].w = BPR_FMA(of[a], i.w, sums.of[a].w);
		}
	}
}

GPU_FN void offer(const struct topk_view &v, const struct scan_place &place, const struct scan_shared &s, uint32_t slot, uint32_t column, uint32_t item, float score)
{
	if (!bpr_is_finite(score))
		return;
	const uint64_t key = key_of(score, item);
	if (key > s.thresholds[slot] && !(s.masks[slot] >> column & 1))
		list_of(v, place, slot)[atomicAdd(&s.counts[slot], 1u)] = key;
}

/* Scores above the thresholds go to the lists. */
GPU_FN void offer_all(const struct topk_view &v, const struct scan_place &place, const struct scan_shared &s, uint32_t first_item, const struct scores &sums)
{
	const uint32_t slot = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4, item = first_item + column;
	float bias[4];
#pragma unroll
	for (uint32_t b = 0; b < 4; b++)
		bias[b] = item + b < place.end ? __ldg(v.bias + item + b) : 0.0f;
#pragma unroll
	for (uint32_t a = 0; a < 4; a++) {
		const float of[4] = {sums.of[a].x, sums.of[a].y, sums.of[a].z, sums.of[a].w};
#pragma unroll
		for (uint32_t b = 0; b < 4; b++)
			if (item + b < place.end)
				offer(v, place, s, slot + a, column + b, item + b, of[b] + bias[b]);
	}
}

/* The masked items of a user from `item` on begin here. */
GPU_FN uint64_t masked_from(const struct topk_view &v, uint32_t user, uint32_t item)
{
	uint64_t low = v.offsets[user], high = v.offsets[user + 1];
	while (low < high) {
		const uint64_t middle = low + (high - low) / 2;
		if (v.masked[middle] < item)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Bits of the masked items first..first + TILE - 1 of a user; *at moves past them. */
GPU_FN uint64_t mask_word(const struct topk_view &v, uint32_t user, uint32_t first, uint64_t *at)
{
	uint64_t word = 0;
	for (; *at < v.offsets[user + 1] && v.masked[*at] < first + TILE; ++*at)
		if (v.masked[*at] >= first)
			word |= static_cast<uint64_t>(1) << (v.masked[*at] - first);
	return word;
}

/* All threads: whether a list may have no room for the next step. */
GPU_FN int any_full(const struct topk_view &v, const struct scan_shared &s)
{
	const uint32_t lane = threadIdx.x % GPU_WARP, most = v.capacity - TILE;
	return __any_sync(GPU_ALL_LANES, s.counts[lane] > most || s.counts[lane + GPU_WARP] > most);
}

/*
 * All threads, which have met since the last key was added: cuts lists back to their best k, sorted, and raises the thresholds. all = 0: those that may have no
 * room, and their neighbours in the same sort.
 */
GPU_FN void cut_back(const struct topk_view &v, const struct scan_place &place, const struct scan_shared &s, int all)
{
	const uint32_t together = SORTED / v.capacity;
	for (uint32_t first = 0; first < place.n_users; first += together) {
		int wanted = all;
		for (uint32_t i = 0; i < together; i++)
			wanted |= s.counts[first + i] > v.capacity - TILE;
		if (!wanted)
			continue;
		for (uint32_t e = threadIdx.x; e < SORTED; e += THREADS) { /* redundant: one more key would still lie in the tiles */
			const uint32_t slot = first + e / v.capacity, at = e % v.capacity;
			s.keys[e] = at < s.counts[slot] ? list_of(v, place, slot)[at] : 0; /* who is not there has none */
		}
		__syncthreads();
		sort_segments(s.keys, v.capacity);
		for (uint32_t e = threadIdx.x; e < SORTED; e += THREADS) {
			const uint32_t slot = first + e / v.capacity, at = e % v.capacity;
			if (at >= v.k) /* redundant: what lies behind the k-th is not read, and need not be written */
				continue;
			if (slot < place.n_users)
				list_of(v, place, slot)[at] = s.keys[e];
		}
		if (threadIdx.x < together && first + threadIdx.x < place.n_users) {
			const uint32_t slot = first + threadIdx.x;
			s.thresholds[slot] = s.keys[threadIdx.x * v.capacity + v.k - 1];
			s.counts[slot] = s.counts[slot] < v.k ? s.counts[slot] : v.k;
		}
		__syncthreads();
	}
}

/* grid: (tiles of users, ranges of items); THREADS; SCAN_SHARED_BYTES. Each list ends as the best k of its range, sorted, with zeros after the last. */
__global__ void __launch_bounds__(THREADS, BLOCKS_AN_SM) topk_scan(struct topk_view v)
{
	GPU_SHARED(uint64_t, shared);
	struct scan_shared s;
	s.keys = shared;
	s.tiles = reinterpret_cast<float *>(shared);
	s.thresholds = shared + 4 * TILE_FLOATS * sizeof(float) / sizeof(uint64_t);
	s.masks = s.thresholds + TILE;
	s.counts = reinterpret_cast<uint32_t *>(s.masks + TILE);
	struct scan_place place;
	place.first_user = blockIdx.x * TILE;
	place.n_users = v.n - place.first_user < TILE ? v.n - place.first_user : TILE;
	place.begin = blockIdx.y * v.range_items;
	place.end = place.begin + v.range_items < v.n_items ? place.begin + v.range_items : v.n_items;

	const int has_user = threadIdx.x < place.n_users;
	uint64_t masked_at = has_user ? masked_from(v, place.first_user + threadIdx.x, place.begin) : 0;
	if (threadIdx.x < TILE) {
		s.thresholds[threadIdx.x] = has_user ? 0 : UINT64_MAX; /* nothing is above it */
		s.counts[threadIdx.x] = 0;
	}
	float *tiles = s.tiles;
	struct slice_part part = slice_load(v, place, place.begin, 0);
	for (uint32_t item = place.begin; item < place.end; item += TILE) {
		struct scores sums = {};
		if (threadIdx.x < TILE)
			s.masks[threadIdx.x] = has_user ? mask_word(v, place.first_user + threadIdx.x, item, &masked_at) : 0;
		for (uint32_t coordinate = 0; coordinate < v.stride; coordinate += SLICE) {
			slice_store(tiles, part);
			__syncthreads(); /* one is enough: the other pair of tiles is what was read before it */
			if (coordinate + SLICE < v.stride)
				part = slice_load(v, place, item, coordinate + SLICE);
			else
				part = slice_load(v, place, item + TILE, 0); /* of zeros after the last */
			slice_multiply(tiles, sums);
			tiles = tiles == s.tiles ? s.tiles + 2 * TILE_FLOATS : s.tiles;
		}
		offer_all(v, place, s, item, sums);
		__syncthreads(); /* keys and counts are seen, the tiles are free */
		if (any_full(v, s))
			cut_back(v, place, s, 0);
	}
	__syncthreads(); /* for a range without items */
	cut_back(v, place, s, 1);
}

/* ---- joining ---- */

/* grid: a block a user; THREADS; 2 * width keys shared. width: the power of two at or above k. */
__global__ void __launch_bounds__(THREADS) topk_join(struct topk_view v, uint32_t width)
{
	GPU_SHARED(uint64_t, best);
	uint64_t *other = best + width;
	const uint64_t *lists = v.kept + static_cast<size_t>(blockIdx.x) * v.ranges * v.capacity;
	for (uint32_t at = threadIdx.x; at < width; at += THREADS)
		best[at] = at < v.k ? lists[at] : 0;
	for (uint32_t range = 1; range < v.ranges; range++) {
		for (uint32_t at = threadIdx.x; at < width; at += THREADS)
			other[at] = at < v.k ? lists[static_cast<size_t>(range) * v.capacity + at] : 0;
		__syncthreads();
		/* of two sorted lists, one read backwards, the larger of each pair are the best of both, rising and then falling */
		for (uint32_t at = threadIdx.x; at < width; at += THREADS)
			best[at] = best[at] > other[width - 1 - at] ? best[at] : other[width - 1 - at];
		__syncthreads();
		for (uint32_t apart = width / 2; apart > 0; apart /= 2) {
			for (uint32_t pair = threadIdx.x; pair < width / 2; pair += THREADS) { /* redundant: behind them lies `other`, which is done with */
				const uint32_t at = 2 * pair - (pair & (apart - 1));
				order_pair(&best[at], &best[at + apart], 1);
			}
			__syncthreads();
		}
	}
	for (uint32_t at = threadIdx.x; at < v.k; at += THREADS) { /* its own places only: with one range nobody has met */
		const uint64_t key = best[at];
		v.best_items[static_cast<size_t>(blockIdx.x) * v.k + at] = key ? ~static_cast<uint32_t>(key) : UINT32_MAX;
		v.best_scores[static_cast<size_t>(blockIdx.x) * v.k + at] = key ? score_of_key(key) : 0.0f;
	}
}

/* ---- the host's side ---- */

static uint32_t power_of_two(uint32_t n)
{
	uint32_t power = 1;
	while (power < n)
		power *= 2;
	return power;
}

/* How a batch is cut up: ranges of items; returns the users of a pass. */
static uint32_t plan(const struct backend *backend, uint32_t n, struct topk_view *v)
{
	const size_t bytes_max = backend->query->kept_bytes_max ? backend->query->kept_bytes_max : KEPT_BYTES_MAX;
	const uint32_t width = power_of_two(v->k), wanted = static_cast<uint32_t>(backend->properties.multiProcessorCount) * BLOCKS_AN_SM;
	const uint32_t tiles = (n + TILE - 1) / TILE;
	v->capacity = width * 4 > SORTED ? SORTED : width * 4 < CAPACITY_MIN ? CAPACITY_MIN : width * 4;
	/* a range begins with a threshold of nothing, so it has to be long beside its list */
	const uint32_t ranges_max = v->n_items / (v->capacity * 8) + 1, ranges = tiles < wanted ? (wanted + tiles - 1) / tiles : 1;
	const size_t a_tile = static_cast<size_t>(TILE) * v->capacity * sizeof(uint64_t);
	v->ranges = ranges < ranges_max ? ranges : ranges_max;
	if (v->ranges * a_tile > bytes_max)
		v->ranges = bytes_max / a_tile ? static_cast<uint32_t>(bytes_max / a_tile) : 1;
	v->range_items = ((v->n_items + v->ranges - 1) / v->ranges + TILE - 1) / TILE * TILE;
	const size_t tiles_max = bytes_max / (v->ranges * a_tile);
	return tiles <= tiles_max || tiles == 1 ? n : TILE * (tiles_max ? static_cast<uint32_t>(tiles_max) : 1);
}

static int prepare(struct backend *backend, struct query_work *work, const struct topk_batch *batch, uint32_t pass_users, struct topk_view *v)
{
	const char *what = "a batch of rankings";
	const size_t n = batch->n;
	int rc = query_send_rows(backend, batch->rows, batch->n, what);
	if (rc == 0)
		rc = query_send(backend, &work->offsets, batch->offsets, (n + 1) * sizeof *batch->offsets, what);
	if (rc == 0)
		rc = query_send(backend, &work->items, batch->masked, batch->offsets[n] * sizeof *batch->masked, what);
	if (rc == 0)
		rc = query_room(backend, &work->kept, static_cast<size_t>(pass_users) * v->ranges * v->capacity * sizeof(uint64_t), what);
	if (rc == 0)
		rc = query_room(backend, &work->best_items, n * v->k * sizeof(uint32_t), what);
	if (rc == 0)
		rc = query_room(backend, &work->best_scores, n * v->k * sizeof(float), what);
	if (rc < 0)
		return rc;
	v->V = static_cast<const float *>(backend->pulled_V.data);
	v->bias = static_cast<const float *>(backend->pulled_bias.data);
	v->masked = static_cast<const uint32_t *>(work->items.data);
	v->kept = static_cast<uint64_t *>(work->kept.data);
	return 0;
}

/* Users first..first + n - 1 of the batch. */
static int run_pass(struct backend *backend, const struct query_work *work, struct topk_view v, uint32_t first, uint32_t n)
{
	const uint32_t width = power_of_two(v.k);
	v.n = n;
	v.rows = static_cast<const float *>(work->rows.data) + static_cast<size_t>(first) * v.stride;
	v.offsets = static_cast<const uint64_t *>(work->offsets.data) + first;
	v.best_items = static_cast<uint32_t *>(work->best_items.data) + static_cast<size_t>(first) * v.k;
	v.best_scores = static_cast<float *>(work->best_scores.data) + static_cast<size_t>(first) * v.k;
	GPU_LAUNCH(topk_scan, dim3((n + TILE - 1) / TILE, v.ranges), THREADS, SCAN_SHARED_BYTES, work->stream, v);
	int rc = gpu_launched(&backend->fault, "ranking");
	if (rc < 0)
		return rc;
	GPU_LAUNCH(topk_join, n, THREADS, 2 * width * sizeof(uint64_t), work->stream, v, width);
	return gpu_launched(&backend->fault, "ranking");
}

static int fetch(struct backend *backend, const struct query_work *work, const struct topk_batch *batch)
{
	const size_t n = static_cast<size_t>(batch->n) * batch->k;
	int rc = gpu_check(&backend->fault, cudaMemcpyAsync(batch->ret_items, work->best_items.data, n * sizeof(uint32_t), cudaMemcpyDeviceToHost, work->stream),
	                   "ranking");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaMemcpyAsync(batch->ret_scores, work->best_scores.data, n * sizeof(float), cudaMemcpyDeviceToHost, work->stream),
		               "ranking");
	return rc;
}

int cuda_topk_load(struct backend *backend)
{
	int rc = gpu_load_kernel(&backend->fault, topk_scan);
	return rc < 0 ? rc : gpu_load_kernel(&backend->fault, topk_join);
}

int cuda_topk(struct backend *backend, const struct topk_batch *batch)
{
	struct topk_view v = {};
	struct query_work *work = backend->query;
	int rc = query_begin(backend);
	if (rc < 0)
		return rc;
	if (batch->k == 0 || batch->k > TOPK_BATCH_MAX)
		return -EINVAL;
	if (batch->n == 0)
		return 0;
	rc = query_users_room(backend, batch->n);
	if (rc < 0)
		return rc;
	v.n_items = backend->pulled_items;
	v.stride = backend->stride;
	v.k = batch->k;
	const uint32_t pass_users = plan(backend, batch->n, &v);
	rc = prepare(backend, work, batch, pass_users, &v);
	for (uint32_t first = 0; first < batch->n && rc == 0; first += pass_users)
		rc = run_pass(backend, work, v, first, batch->n - first < pass_users ? batch->n - first : pass_users);
	if (rc == 0)
		rc = fetch(backend, work, batch);
	const int waited = query_wait(backend, 0, "ranking");
	return rc < 0 ? rc : waited;
}
