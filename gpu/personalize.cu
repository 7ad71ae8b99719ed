/*
 * personalize.cu: rows of many users fitted at once, item tables frozen (backend.h personalize; the algorithm is trainer/learn/personalize.c's, draw by draw).
 *
 * A warp to a user. His row, its start and the gradient lie in the warp's registers for the whole run; a step's triples are spread over groups of lanes, each
 * lane with four coordinates (up to sixteen from stride 256 on), and the groups' gradients are added once a step by shuffles. A block to a user would need a
 * barrier and shared memory for that, each step; the next step waits for it either way, so what fills the device is many users and not many lanes for one: 64
 * registers a thread let 32 warps live on an SM, 4,224 users on 132 of them. Each lane draws one triple of 32; drawing depends on no row, so it costs the 32
 * triples as much as one.
 *
 * Own items are an open-addressing table for each user, in shared memory when its slots fit, else in global memory (one user with ten thousand positives must
 * not take the others' places on the SM). The warp fills it itself: of the lanes that meet at a free slot the lowest writes. So there are no atomics, no result
 * depends on timing, and nothing but ret_rows and ret_rcs is written that anyone reads later.
 *
 * A user whose positives hold all candidates is found by the first draw (a scan by the whole warp) and ends with -EINVAL.
 */
#include <errno.h>
#include <string.h>

#include "gpu/query.cuh"
#include "trainer/learn/bpr_math.h"
#include "gpu/rows.cuh"
#include "trainer/learn/personalize.h"
#include "trainer/learn/philox.h"

#define WARPS 4u              /* of a block; they never meet */
#define OWN_SLOTS_MIN 32u
#define OWN_SLOTS_SHARED 512u /* 2 KiB a warp: up to 256 positives */
#define OWN_SHARED UINT64_MAX /* as a user's place in `own`: his table is in shared memory */
#define NO_ITEM UINT32_MAX
#define POSITIVES_MAX (1u << 30)

struct personalize_view {
	const float *V, *bias;      /* [n_items, stride], [n_items] */
	const float *starts;        /* [n, stride] */
	const uint64_t *offsets;    /* [n + 1] */
	const uint32_t *positives;  /* [offsets[n]] */
	const uint32_t *candidates; /* [n_candidates] */
	const struct personalize_user *users;
	uint32_t *own;
	float *rows; /* [n, stride] */
	int32_t *rcs;
	uint32_t n, n_candidates, stride;
	uint32_t own_shared; /* slots of a warp in shared memory */
	uint32_t steps, batch;
	float rate_a_step, reg, per_batch, per_dim; /* the rate over the steps; 1 / batch, 1 / dim */
};

/* As bpr_sigmoid(), to a unit or two in the last place: a division that is exact would be a call in the middle of the loop. */
GPU_FN float quick_sigmoid(float x)
{
#ifdef GPU_EMULATED
	return bpr_sigmoid(x);
#else
	return __fdividef(1.0f, 1.0f + bpr_exp(-x));
#endif
}

/* A user's own items. */
struct own_view {
	uint32_t *slots; /* [mask + 1]; NO_ITEM: free */
	uint32_t mask;
};

static inline __host__ __device__ uint32_t own_slots(uint64_t n_positives)
{
	uint32_t slots = OWN_SLOTS_MIN;
	while (slots < n_positives * 2)
		slots *= 2;
	return slots;
}

GPU_FN uint32_t own_home(uint32_t item, uint32_t mask)
{
	return ((item * 0x9E3779B1u) >> 7) & mask;
}

GPU_FN int is_own(const struct own_view &own, uint32_t item)
{
	uint32_t at = own_home(item, own.mask);
	while (own.slots[at] != NO_ITEM && own.slots[at] != item)
		at = (at + 1) & own.mask;
	return own.slots[at] == item;
}

/* All lanes. At each turn a lane looks at one slot; of those that would take the same free one, the lowest does, and the others look again. */
GPU_FN void own_fill(const struct own_view &own, const uint32_t *positives, uint32_t n, uint32_t lane)
{
	for (uint32_t at = lane; at <= own.mask; at += GPU_WARP)
		own.slots[at] = NO_ITEM;
	__syncwarp();
	for (uint32_t first = 0; first < n; first += GPU_WARP) {
		int waits = first + lane < n;
		const uint32_t item = waits ? positives[first + lane] : NO_ITEM;
		uint32_t at = own_home(item, own.mask);
		while (__any_sync(GPU_ALL_LANES, waits)) {
			const uint32_t there = waits ? own.slots[at] : item;
			waits = there != item;
			const int takes = waits && there == NO_ITEM;
			const uint32_t rivals = __match_any_sync(GPU_ALL_LANES, takes ? at : UINT32_MAX - lane);
			__syncwarp(); /* all have looked */
			if (takes && (rivals & ((1u << lane) - 1)) == 0)
				own.slots[at] = item;
			if (waits && !takes)
				at = (at + 1) & own.mask;
			__syncwarp(); /* what was taken is seen */
		}
	}
}

/* All lanes: the first candidate at or after place `at`, in a circle, that is not the user's own; NO_ITEM: there is none. */
GPU_FN uint32_t first_valid(const struct personalize_view &v, const struct own_view &own, uint32_t at, uint32_t lane)
{
	for (uint64_t first = 0; first < v.n_candidates; first += GPU_WARP) {
		const uint64_t place = at + first + lane;
		uint32_t item = NO_ITEM;
		if (first + lane < v.n_candidates)
			item = v.candidates[place < v.n_candidates ? place : place - v.n_candidates];
		const uint32_t valid = __ballot_sync(GPU_ALL_LANES, item != NO_ITEM && !is_own(own, item));
		if (valid)
			return __shfl_sync(GPU_ALL_LANES, item, __ffs(static_cast<int>(valid)) - 1);
	}
	return NO_ITEM;
}

struct pair_view {
	uint32_t pos, neg; /* NO_ITEM as neg: no candidate is valid */
	float bias;        /* of pos minus of neg */
};

/* All lanes; those with draws = 1 draw triple `index` of a step, the others get items 0 and 0. */
GPU_FN struct pair_view draw_pair(const struct personalize_view &v, const struct own_view &own, uint32_t user, uint32_t step, uint32_t index, int draws,
                             uint32_t lane)
{
	/* read anew each time: a register a lane is dearer than a load that all lanes share */
	const uint64_t seed = __ldg(&v.users[user].seed), begin = __ldg(&v.offsets[user]);
	const uint32_t n = static_cast<uint32_t>(__ldg(&v.offsets[user + 1]) - begin);
	const uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
	struct philox_block random = philox4x32(index, step, 0, PHILOX_PERSONALIZE, low, high);
	struct pair_view pair = {0, draws ? NO_ITEM : 0, 0.0f};
	if (draws)
		pair.pos = __ldg(&v.positives[begin + philox_below(random.v[0], n)]);
#pragma unroll 1
	for (uint32_t attempt = 1; pair.neg == NO_ITEM && attempt <= PERSONALIZE_REDRAWS; attempt++) {
		for (int i = 1; i < 4 && pair.neg == NO_ITEM; i++) {
			const uint32_t item = v.candidates[philox_below(random.v[i], v.n_candidates)];
			if (!is_own(own, item))
				pair.neg = item;
		}
		if (pair.neg == NO_ITEM)
			random = philox4x32(index, step, attempt, PHILOX_PERSONALIZE, low, high);
	}
	const uint32_t place = philox_below(random.v[0], v.n_candidates);
	for (uint32_t search = __ballot_sync(GPU_ALL_LANES, pair.neg == NO_ITEM); search; search &= search - 1) {
		const int whose = __ffs(static_cast<int>(search)) - 1;
		const uint32_t found = first_valid(v, own, __shfl_sync(GPU_ALL_LANES, place, whose), lane);
		if (static_cast<int>(lane) == whose)
			pair.neg = found;
	}
	if (pair.neg != NO_ITEM)
		pair.bias = v.bias[pair.pos] - v.bias[pair.neg];
	return pair;
}

/* A lane's part of a row that nobody writes; small sets of rows (a user's positives) stay in the first cache level. */
template <uint32_t STRIDE> GPU_FN row_part<row_shape<STRIDE>::quads> row_read(const float *table, uint32_t row, uint32_t sub)
{
	row_part<row_shape<STRIDE>::quads> part;
	const float4 *quads = reinterpret_cast<const float4 *>(table + static_cast<size_t>(row) * STRIDE);
#pragma unroll
	for (uint32_t q = 0; q < row_shape<STRIDE>::quads; q++)
		part.q[q] = __ldg(quads + q * row_shape<STRIDE>::lanes + sub);
	return part;
}

/* Sum of what the groups of a warp have for the same coordinate, the same bits in each of them. */
template <uint32_t LANES> GPU_FN float sum_of_groups(float v)
{
#pragma unroll
	for (uint32_t width = GPU_WARP / 2; width >= LANES; width /= 2)
		v += __shfl_xor_sync(GPU_ALL_LANES, v, static_cast<int>(width));
	return v;
}

/* Adds the gradient of n triples, one drawn by each of the first n lanes. The other lanes' items 0 and 0 are not apart and add nothing. */
template <uint32_t STRIDE>
GPU_FN void add_gradient(const struct personalize_view &v, const struct pair_view &drawn, uint32_t n, const row_part<row_shape<STRIDE>::quads> &row,
                         uint32_t lane, row_part<row_shape<STRIDE>::quads> &gradient)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads, groups = row_shape<STRIDE>::groups;
	const uint32_t sub = lane % lanes, group = lane / lanes;
#pragma unroll(STRIDE <= 128 ? 2 : 1)
	for (uint32_t first = 0; first < n; first += groups) {
		const int whose = static_cast<int>(first + group); /* below 32 */
		const uint32_t pos_item = __shfl_sync(GPU_ALL_LANES, drawn.pos, whose), neg_item = __shfl_sync(GPU_ALL_LANES, drawn.neg, whose);
		const float bias = __shfl_sync(GPU_ALL_LANES, drawn.bias, whose);
		row_part<quads> apart = row_read<STRIDE>(v.V, pos_item, sub);
		const row_part<quads> neg = row_read<STRIDE>(v.V, neg_item, sub);
		float dot = 0.0f;
#pragma unroll
		for (uint32_t q = 0; q < quads; q++) {
			apart.q[q] = quad_minus(apart.q[q], neg.q[q]);
			dot = quad_dot(row.q[q], apart.q[q], dot);
		}
		dot = group_sum<lanes>(dot);
		const float z = quick_sigmoid(-(dot + bias));
#pragma unroll
		for (uint32_t q = 0; q < quads; q++)
			gradient.q[q] = quad_blend(1.0f, gradient.q[q], z, apart.q[q]);
	}
}

/* The mean gradient and the pull towards the start. sum: of this group of lanes. */
template <uint32_t LANES> GPU_FN float4 quad_gradient(float4 sum, float per_batch, float reg, float4 row, float4 start)
{
	sum = make_float4(sum_of_groups<LANES>(sum.x), sum_of_groups<LANES>(sum.y), sum_of_groups<LANES>(sum.z), sum_of_groups<LANES>(sum.w));
	return quad_blend(per_batch, sum, -reg, quad_minus(row, start));
}

/* One step of row-wise Adagrad, as bpr_step_scale() takes it. gradient: a sum of each group of lanes. The start is read anew: it need not live in registers. */
template <uint32_t STRIDE>
GPU_FN void take_step(const struct personalize_view &v, uint32_t user, uint32_t step, uint32_t lane, row_part<row_shape<STRIDE>::quads> &gradient,
                      row_part<row_shape<STRIDE>::quads> &row, float *acc)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads;
	const row_part<quads> start = row_read<STRIDE>(v.starts, user, lane % lanes);
	float norm2 = 0.0f;
#pragma unroll
	for (uint32_t q = 0; q < quads; q++) {
		gradient.q[q] = quad_gradient<lanes>(gradient.q[q], v.per_batch, v.reg, row.q[q], start.q[q]);
		norm2 = quad_dot(gradient.q[q], gradient.q[q], norm2);
	}
	norm2 = group_sum<lanes>(norm2);
	*acc = BPR_FMA(norm2, v.per_dim, *acc);
	float scale = v.rate_a_step * static_cast<float>(v.steps - step) * rsqrtf(*acc + BPR_ADAGRAD_EPS);
	const float step2 = scale * scale * norm2;
	if (step2 > PERSONALIZE_STEP_NORM_MAX * PERSONALIZE_STEP_NORM_MAX)
		scale *= PERSONALIZE_STEP_NORM_MAX * rsqrtf(step2);
#pragma unroll
	for (uint32_t q = 0; q < quads; q++)
		row.q[q] = quad_blend(1.0f, row.q[q], scale, gradient.q[q]);
}

/* The first group writes the row, if all of it is finite. Returns the user's rc. */
template <uint32_t STRIDE>
GPU_FN int32_t store_row(const struct personalize_view &v, uint32_t user, const row_part<row_shape<STRIDE>::quads> &row, uint32_t lane)
{
	constexpr uint32_t lanes = row_shape<STRIDE>::lanes, quads = row_shape<STRIDE>::quads;
	float4 *to = reinterpret_cast<float4 *>(v.rows + static_cast<size_t>(user) * STRIDE);
	int finite = 1;
#pragma unroll
	for (uint32_t q = 0; q < quads; q++) {
		finite &= bpr_is_finite(row.q[q].x) & bpr_is_finite(row.q[q].y) & bpr_is_finite(row.q[q].z) & bpr_is_finite(row.q[q].w);
		if (lane < lanes)
			to[q * lanes + lane] = row.q[q];
	}
	return __all_sync(GPU_ALL_LANES, finite) ? 0 : -ERANGE;
}

/* grid: a warp a user; shared: WARPS * own_shared slots. */
template <uint32_t STRIDE> __global__ void __launch_bounds__(WARPS *GPU_WARP, STRIDE <= 128 ? 8 : 4) personalize_users(struct personalize_view v)
{
	GPU_SHARED(uint32_t, shared);
	const uint32_t lane = threadIdx.x % GPU_WARP, warp = threadIdx.x / GPU_WARP;
	const uint32_t user = blockIdx.x * WARPS + warp;
	if (user >= v.n)
		return;
	const uint32_t *positives = v.positives + v.offsets[user];
	const uint32_t n = static_cast<uint32_t>(v.offsets[user + 1] - v.offsets[user]);
	const struct personalize_user record = v.users[user];
	const struct own_view own = {record.own == OWN_SHARED ? shared + warp * v.own_shared : v.own + record.own, own_slots(n) - 1};
	int32_t rc = n ? 0 : -EINVAL;
	row_part<row_shape<STRIDE>::quads> row = row_read<STRIDE>(v.starts, user, lane % row_shape<STRIDE>::lanes);
	float acc = 0.0f;
	own_fill(own, positives, n, lane);
	/* without steps, one draw still tells whether there is a valid negative */
	for (uint32_t step = 0; rc == 0 && (step == 0 || step < v.steps); step++) {
		row_part<row_shape<STRIDE>::quads> gradient = row_zero<row_shape<STRIDE>::quads>();
		for (uint32_t first = 0; first < v.batch && rc == 0; first += GPU_WARP) {
			const uint32_t drawn = v.batch - first < GPU_WARP ? v.batch - first : GPU_WARP;
			const struct pair_view pair = draw_pair(v, own, user, step, first + lane, lane < drawn, lane);
			if (__any_sync(GPU_ALL_LANES, pair.neg == NO_ITEM))
				rc = -EINVAL;
			else
				add_gradient<STRIDE>(v, pair, drawn, row, lane, gradient);
		}
		if (rc == 0 && v.steps)
			take_step<STRIDE>(v, user, step, lane, gradient, row, &acc);
	}
	if (rc == 0)
		rc = store_row<STRIDE>(v, user, row, lane);
	if (lane == 0)
		v.rcs[user] = rc;
}

typedef void personalize_kernel(struct personalize_view v);

static personalize_kernel *kernel_of(uint32_t stride)
{
	switch (stride) {
	case 16:
		return personalize_users<16>;
	case 32:
		return personalize_users<32>;
	case 64:
		return personalize_users<64>;
	case 128:
		return personalize_users<128>;
	case 256:
		return personalize_users<256>;
	case 384:
		return personalize_users<384>;
	default:
		return personalize_users<512>;
	}
}

int cuda_personalize_load(struct backend *backend)
{
	return gpu_load_kernel(&backend->fault, kernel_of(backend->stride));
}

static void launch(const struct personalize_view *v, cudaStream_t stream)
{
	const uint32_t grid = (v->n + WARPS - 1) / WARPS;
	const size_t shared = static_cast<size_t>(WARPS) * v->own_shared * sizeof(uint32_t);
	personalize_kernel *const personalize_users_of_stride = kernel_of(v->stride);
	GPU_LAUNCH(personalize_users_of_stride, grid, WARPS * GPU_WARP, shared, stream, *v);
}

/* Items that the pulled tables do not have would be read past their end. */
static int items_are_known(const uint32_t *items, uint64_t n, uint32_t n_items)
{
	uint32_t largest = 0;
	for (uint64_t i = 0; i < n; i++)
		largest = items[i] > largest ? items[i] : largest;
	return n == 0 || largest < n_items;
}

/* Seeds and places of the tables of own items. Returns the slots in global memory; *ret_shared: those of a warp in shared memory. */
static uint64_t place_users(const struct personalize_batch *batch, struct personalize_user *users, uint32_t *ret_shared)
{
	uint64_t global = 0;
	uint32_t shared = OWN_SLOTS_MIN;
	for (uint32_t k = 0; k < batch->n; k++) {
		const uint32_t slots = own_slots(batch->offsets[k + 1] - batch->offsets[k]);
		users[k].seed = batch->seeds ? batch->seeds[k] : batch->options->seed;
		users[k].own = slots <= OWN_SLOTS_SHARED ? OWN_SHARED : global;
		if (slots > OWN_SLOTS_SHARED)
			global += slots;
		else if (slots > shared)
			shared = slots;
	}
	*ret_shared = shared;
	return global;
}

/*
 * The training set's candidates stay on the device, and only those that joined are looked at and sent; others are, each time. -EINVAL: one that the pulled
 * tables do not have.
 */
static int send_candidates(struct backend *backend, struct query_work *work, const struct personalize_batch *batch, const char *what)
{
	const struct training_set *set = backend->set;
	const int lasting = batch->candidates == set->candidates && batch->n_candidates <= set->n_candidates;
	const size_t bytes = batch->n_candidates * sizeof *batch->candidates;
	uint32_t there = lasting && bytes <= work->candidates.bytes ? work->n_candidates : 0;
	if (there >= batch->n_candidates)
		return 0;
	if (!items_are_known(batch->candidates + there, batch->n_candidates - there, backend->pulled_items))
		return -EINVAL;
	work->n_candidates = 0;
	int rc = query_room(backend, &work->candidates, bytes, what);
	if (rc == 0)
		rc = gpu_check(&backend->fault,
		               cudaMemcpyAsync(static_cast<uint32_t *>(work->candidates.data) + there, batch->candidates + there,
		                               (batch->n_candidates - there) * sizeof *batch->candidates, cudaMemcpyHostToDevice, work->stream),
		               what);
	if (rc == 0 && lasting)
		work->n_candidates = batch->n_candidates;
	return rc;
}

/* Memory and copies, everything that comes before the launch. */
static int prepare(struct backend *backend, struct query_work *work, const struct personalize_batch *batch, struct personalize_view *v)
{
	const char *what = "a batch of users";
	const size_t n = batch->n, bytes = n * backend->stride * sizeof(float);
	const uint64_t global = place_users(batch, static_cast<struct personalize_user *>(work->host_users.data), &v->own_shared);
	int rc = query_send(backend, &work->users, work->host_users.data, n * sizeof(struct personalize_user), what);
	if (rc == 0)
		rc = query_send_rows(backend, batch->starts, batch->n, what);
	if (rc == 0)
		rc = query_send(backend, &work->offsets, batch->offsets, (n + 1) * sizeof *batch->offsets, what);
	if (rc == 0)
		rc = query_send(backend, &work->items, batch->positives, batch->offsets[n] * sizeof *batch->positives, what);
	if (rc == 0)
		rc = send_candidates(backend, work, batch, what);
	if (rc == 0)
		rc = query_room(backend, &work->own, global * sizeof(uint32_t), what);
	if (rc == 0)
		rc = query_room(backend, &work->fitted, bytes, what);
	if (rc == 0)
		rc = query_room(backend, &work->rcs, n * sizeof(int32_t), what);
	if (rc < 0)
		return rc;
	v->V = static_cast<const float *>(backend->pulled_V.data);
	v->bias = static_cast<const float *>(backend->pulled_bias.data);
	v->starts = static_cast<const float *>(work->rows.data);
	v->offsets = static_cast<const uint64_t *>(work->offsets.data);
	v->positives = static_cast<const uint32_t *>(work->items.data);
	v->candidates = static_cast<const uint32_t *>(work->candidates.data);
	v->users = static_cast<const struct personalize_user *>(work->users.data);
	v->own = static_cast<uint32_t *>(work->own.data);
	v->rows = static_cast<float *>(work->fitted.data);
	v->rcs = static_cast<int32_t *>(work->rcs.data);
	v->n = batch->n;
	v->n_candidates = batch->n_candidates;
	v->stride = backend->stride;
	v->steps = batch->options->steps;
	v->batch = batch->options->batch;
	v->rate_a_step = v->steps ? batch->options->learning_rate / static_cast<float>(v->steps) : 0.0f;
	v->per_batch = 1.0f / static_cast<float>(v->batch);
	v->reg = batch->options->reg;
	v->per_dim = 1.0f / static_cast<float>(backend->dim);
	return 0;
}

static int run(struct backend *backend, struct query_work *work, const struct personalize_view *v, uint32_t wait_us)
{
	const char *what = "personalizing";
	launch(v, work->stream);
	int rc = gpu_launched(&backend->fault, what);
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaMemcpyAsync(work->host_fitted.data, v->rows, static_cast<size_t>(v->n) * v->stride * sizeof(float),
		                                                cudaMemcpyDeviceToHost, work->stream), what);
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaMemcpyAsync(work->host_rcs.data, v->rcs, v->n * sizeof(int32_t), cudaMemcpyDeviceToHost, work->stream), what);
	const int waited = query_wait(backend, wait_us, what);
	return rc < 0 ? rc : waited;
}

int cuda_personalize(struct backend *backend, const struct personalize_batch *batch)
{
	struct personalize_view v = {};
	struct query_work *work = backend->query;
	int rc = query_begin(backend);
	if (rc < 0 || batch->n == 0)
		return rc;
	if (batch->n_candidates == 0 || batch->options->batch == 0) {
		for (uint32_t k = 0; k < batch->n; k++)
			batch->ret_rcs[k] = -EINVAL;
		return 0;
	}
	for (uint32_t k = 0; k < batch->n; k++)
		if (batch->offsets[k + 1] - batch->offsets[k] > POSITIVES_MAX)
			return -EINVAL;
	if (!items_are_known(batch->positives, batch->offsets[batch->n], backend->pulled_items))
		return -EINVAL;
	rc = query_users_room(backend, batch->n);
	if (rc < 0)
		return rc;
	rc = prepare(backend, work, batch, &v);
	if (rc < 0) {
		(void)query_wait(backend, batch->wait_us, "a batch of users"); /* pinned memory is free again */
		return rc;
	}
	rc = run(backend, work, &v, batch->wait_us);
	if (rc < 0)
		return rc;
	const float *fitted = static_cast<const float *>(work->host_fitted.data);
	const int32_t *rcs = static_cast<const int32_t *>(work->host_rcs.data);
	for (uint32_t k = 0; k < batch->n; k++) {
		batch->ret_rcs[k] = rcs[k];
		if (rcs[k] == 0)
			memcpy(batch->ret_rows + static_cast<size_t>(k) * backend->dim, fitted + static_cast<size_t>(k) * v.stride, backend->dim * sizeof(float));
	}
	return 0;
}
