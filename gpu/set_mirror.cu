/*
 * set_mirror.cu: see set_mirror.cuh. The engine's thread, when a job starts.
 *
 * A sync first makes all the room it needs, so that refused memory leaves the mirror as it was; then it sends. Insert number k brought a pair to
 * training_set_swapped(k) and moved what was there to k: so the places touched by the inserts since the last sync hold every new pair, and the kernel that
 * puts those pairs into the table passes over the old ones among them.
 */
#include "gpu/set_mirror.cuh"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/set_kernels.cuh"
#include "gpu/transfer.cuh"
#include "trainer/learn/negatives.h"

#define TABLE_MIN 64u
#define SKIPS_FAULT "bringing skips over"
#define PAIRS_FAULT "bringing positives over"

int set_mirror_open(struct backend *backend)
{
	backend->mirror = static_cast<struct set_mirror *>(calloc(1, sizeof *backend->mirror));
	if (!backend->mirror)
		return -ENOMEM;
	backend->mirror->cleared = UINT64_MAX;
	return 0;
}

int set_mirror_load(struct backend *backend)
{
	int rc = gpu_load_kernel(&backend->fault, set_move_kernel);
	return rc < 0 ? rc : gpu_load_kernel(&backend->fault, set_insert_kernel);
}

void set_mirror_close(struct backend *backend)
{
	struct set_mirror *mirror = backend->mirror;
	if (!mirror)
		return;
	struct device_array *const arrays[] = {
		&mirror->positives,   &mirror->weights,     &mirror->slots,  &mirror->filter, &mirror->user_positives, &mirror->candidates,
		&mirror->alias_below, &mirror->alias_other, &mirror->recent, &mirror->skips,  &mirror->n_skips,        &mirror->skip_offsets,
	};
	for (struct device_array *array : arrays)
		device_array_free(array);
	free(mirror);
	backend->mirror = NULL;
}

/* What a sync is to do. */
struct sync_plan {
	const struct training_set *set;
	int fresh;          /* the set was cleared: nothing of the pairs there holds any more */
	int whole;          /* all positives are sent, not the touched ones */
	int skips;          /* skips are kept */
	uint64_t kept;      /* positives that stay where growth moves them */
	uint64_t table_size;
};

static int uses_skips(const struct backend *backend)
{
	return backend->set->skips && backend->options->skip_share > 0.0f;
}

static struct sync_plan make_plan(const struct backend *backend)
{
	const struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = backend->set;
	struct sync_plan plan = {};
	uint64_t added = set->n_positives - mirror->n_positives;
	plan.set = set;
	plan.fresh = mirror->cleared != set->cleared || mirror->n_positives > set->n_positives;
	plan.whole = plan.fresh || mirror->regrouped != set->regrouped || mirror->weighted != (set->weights != NULL);
	if (!plan.whole)
		plan.whole = added * sizeof(struct moved_positive) >= mirror->n_positives * sizeof(struct user_item);
	plan.skips = uses_skips(backend);
	plan.kept = plan.whole ? 0 : mirror->n_positives;
	plan.table_size = TABLE_MIN;
	while (plan.table_size * 3 < (set->n_positives + 1) * 5)
		plan.table_size *= 2;
	return plan;
}

static int make_room_for_pairs(struct backend *backend, const struct sync_plan *plan)
{
	struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = plan->set;
	if (set->n_positives > UINT32_MAX)
		return -ENOMEM;
	int rc = device_array_grow(backend, &mirror->positives, set->n_positives * sizeof *set->positives, plan->kept * sizeof *set->positives,
	                           "room for positives");
	if (rc == 0 && set->weights)
		rc = device_array_grow(backend, &mirror->weights, set->n_positives * sizeof *set->weights, plan->kept * sizeof *set->weights,
		                       "room for weights");
	if (rc == 0)
		rc = device_array_grow(backend, &mirror->user_positives, set->n_users * sizeof *set->user_positives,
		                       mirror->n_users * sizeof *set->user_positives, "room for counts");
	if (rc < 0 || (mirror->mask + 1 >= plan->table_size && mirror->slots.data))
		return rc;
	rc = device_array_grow(backend, &mirror->filter, plan->table_size, 0, "room for pairs");
	if (rc == 0)
		rc = device_array_grow(backend, &mirror->slots, plan->table_size * sizeof(uint64_t), 0, "room for pairs");
	mirror->pairs_stale = 1; /* one of the two may be new, and empty */
	if (rc == 0)
		mirror->mask = plan->table_size - 1;
	return rc;
}

static int make_room_for_skips(struct backend *backend)
{
	struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = backend->set;
	const struct skip_source *source = set->skips;
	size_t row = GPU_SKIPS_MAX * sizeof(uint32_t);
	if (mirror->skip_lists != source->offsets) { /* lists in place of rows, rows in place of lists, or other lists */
		mirror->skip_lists = NULL;
		mirror->skips_users = mirror->skips_turn = 0;
		mirror->skips_all = 0;
	}
	if (source->offsets) {
		int rc = device_array_grow(backend, &mirror->skips, source->offsets[source->n_users] * sizeof *source->items, 0, "room for skips");
		return rc < 0 ? rc : device_array_grow(backend, &mirror->skip_offsets, ((size_t)source->n_users + 1) * sizeof *source->offsets, 0, "room for skips");
	}
	int rc = device_array_grow(backend, &mirror->skips, set->n_users * row, mirror->skips_users * row, "room for skips");
	return rc < 0 ? rc : device_array_grow(backend, &mirror->n_skips, set->n_users * sizeof(uint32_t), mirror->skips_users * sizeof(uint32_t), "room for skips");
}

static int make_room(struct backend *backend, const struct sync_plan *plan)
{
	struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = plan->set;
	int rc = make_room_for_pairs(backend, plan);
	if (rc == 0)
		rc = device_array_grow(backend, &mirror->candidates, set->n_candidates * sizeof *set->candidates,
		                       mirror->n_candidates * sizeof *set->candidates, "room for candidates");
	if (rc == 0)
		rc = device_array_grow(backend, &mirror->recent, set->n_recent * sizeof *set->recent, 0, "room for recent positives");
	if (rc == 0 && set->popular) {
		rc = device_array_grow(backend, &mirror->alias_below, set->popular->n * sizeof(uint32_t), 0, "room for popularity");
		if (rc == 0)
			rc = device_array_grow(backend, &mirror->alias_other, set->popular->n * sizeof(uint32_t), 0, "room for popularity");
		if (rc < 0)
			mirror->alias_version = 0; /* one of the two may be new */
	}
	return rc == 0 && plan->skips ? make_room_for_skips(backend) : rc;
}

static int clear(struct backend *backend, const struct device_array *array, size_t from, int value, size_t bytes)
{
	if (bytes == 0)
		return 0;
	return gpu_check(&backend->fault, cudaMemsetAsync(static_cast<char *>(array->data) + from, value, bytes, backend->stream), "clearing memory");
}

/* Empties the table when it is new or what it holds no longer counts; zeroes the counts of users that joined. */
static int prepare_pairs(struct backend *backend, const struct sync_plan *plan)
{
	struct set_mirror *mirror = backend->mirror;
	size_t count = sizeof *plan->set->user_positives;
	int rc = 0;
	if (plan->fresh)
		mirror->pairs_stale = 1;
	if (mirror->pairs_stale) {
		rc = clear(backend, &mirror->slots, 0, 0xff, (mirror->mask + 1) * sizeof(uint64_t));
		if (rc == 0)
			rc = clear(backend, &mirror->filter, 0, 0, mirror->mask + 1);
		mirror->n_users = 0;
	}
	if (rc == 0)
		rc = clear(backend, &mirror->user_positives, mirror->n_users * count, 0, (plan->set->n_users - mirror->n_users) * count);
	if (rc == 0)
		mirror->n_users = plan->set->n_users;
	return rc;
}

static struct set_target target_of(const struct backend *backend)
{
	const struct set_mirror *mirror = backend->mirror;
	struct set_target target = {};
	target.positives = static_cast<struct user_item *>(mirror->positives.data);
	target.weights = backend->set->weights ? static_cast<float *>(mirror->weights.data) : NULL;
	target.table.slots = static_cast<unsigned long long *>(mirror->slots.data);
	target.table.filter = static_cast<unsigned long long *>(mirror->filter.data);
	target.table.mask = mirror->mask;
	target.user_positives = static_cast<uint32_t *>(mirror->user_positives.data);
	return target;
}

/* Positives [from, end) and their weights, as they stand on the host. */
static int send_range(struct backend *backend, uint64_t from, uint64_t end)
{
	struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = backend->set;
	int rc = transfer_send(backend, static_cast<struct user_item *>(mirror->positives.data) + from, set->positives + from,
	                       (end - from) * sizeof *set->positives);
	if (rc == 0 && set->weights)
		rc = transfer_send(backend, static_cast<float *>(mirror->weights.data) + from, set->weights + from, (end - from) * sizeof *set->weights);
	mirror->sent_pairs += end - from;
	return rc;
}

static int launch_moves(struct backend *backend, const struct piece *piece, uint32_t n)
{
	int rc = piece_send(backend, piece, n * sizeof(struct moved_positive));
	if (rc < 0)
		return rc;
	GPU_LAUNCH(set_move_kernel, gpu_blocks(backend, n), GPU_BLOCK, 0, backend->stream, target_of(backend),
	           static_cast<const struct moved_positive *>(piece->device), n);
	rc = gpu_launched(&backend->fault, PAIRS_FAULT);
	backend->mirror->sent_pairs += n;
	return rc < 0 ? rc : piece_used(backend, piece);
}

/* The places before `old` that inserts [old, n) have touched. */
static int send_moved(struct backend *backend, uint64_t old, uint64_t n)
{
	const struct training_set *set = backend->set;
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / sizeof(struct moved_positive));
	struct piece piece;
	struct moved_positive *moved = NULL;
	uint32_t filled = 0;
	int rc = 0;
	for (uint64_t k = old; k < n && rc == 0; k++) {
		uint64_t place = training_set_swapped(set, k);
		if (place >= old)
			continue;
		if (!moved) {
			rc = piece_take(backend, &piece);
			moved = static_cast<struct moved_positive *>(piece.host);
			if (rc < 0)
				break;
		}
		struct moved_positive *one = &moved[filled++];
		one->place = (uint32_t)place;
		one->user = set->positives[place].user;
		one->item = set->positives[place].item;
		one->weight = set->weights ? set->weights[place] : 0.0f;
		if (filled == limit) {
			rc = launch_moves(backend, &piece, filled);
			moved = NULL;
			filled = 0;
		}
	}
	return rc == 0 && filled ? launch_moves(backend, &piece, filled) : rc;
}

static int insert_range(struct backend *backend, uint64_t from, uint64_t end)
{
	if (from == end)
		return 0;
	GPU_LAUNCH(set_insert_kernel, gpu_blocks(backend, end - from), GPU_BLOCK, 0, backend->stream, target_of(backend), from, end);
	return gpu_launched(&backend->fault, PAIRS_FAULT);
}

static int sync_pairs(struct backend *backend, const struct sync_plan *plan)
{
	struct set_mirror *mirror = backend->mirror;
	uint64_t old = mirror->n_positives, n = plan->set->n_positives;
	int rc = prepare_pairs(backend, plan);
	if (rc == 0 && plan->whole)
		rc = send_range(backend, 0, n);
	else if (rc == 0 && n > old)
		rc = send_range(backend, old, n);
	if (rc == 0 && !plan->whole)
		rc = send_moved(backend, old, n);
	if (rc == 0)
		rc = insert_range(backend, plan->whole || mirror->pairs_stale ? 0 : old, n);
	if (rc < 0)
		return rc;
	mirror->pairs_stale = 0;
	mirror->n_positives = n;
	mirror->cleared = plan->set->cleared;
	mirror->regrouped = plan->set->regrouped;
	mirror->weighted = plan->set->weights != NULL;
	return 0;
}

static int sync_candidates(struct backend *backend)
{
	struct set_mirror *mirror = backend->mirror;
	const struct training_set *set = backend->set;
	uint32_t *to = static_cast<uint32_t *>(mirror->candidates.data);
	int rc = transfer_send(backend, to + mirror->n_candidates, set->candidates + mirror->n_candidates,
	                       (set->n_candidates - mirror->n_candidates) * sizeof *set->candidates);
	if (rc == 0)
		mirror->n_candidates = set->n_candidates;
	if (rc < 0 || !set->popular || set->popular->version == mirror->alias_version)
		return rc;
	rc = transfer_send(backend, mirror->alias_below.data, set->popular->below, set->popular->n * sizeof(uint32_t));
	if (rc == 0)
		rc = transfer_send(backend, mirror->alias_other.data, set->popular->other, set->popular->n * sizeof(uint32_t));
	if (rc == 0)
		mirror->alias_version = set->popular->version;
	return rc;
}

static int sync_recent(struct backend *backend)
{
	const struct training_set *set = backend->set;
	struct recent_positive *to = static_cast<struct recent_positive *>(backend->mirror->recent.data);
	uint32_t first = RECENT_MAX - set->recent_head; /* until the ring's end */
	if (set->n_recent == 0)
		return 0;
	if (first > set->n_recent)
		first = set->n_recent;
	int rc = transfer_send(backend, to, set->recent + set->recent_head, first * sizeof *to);
	return rc < 0 ? rc : transfer_send(backend, to + first, set->recent, (set->n_recent - first) * sizeof *to);
}

/* The skips of users [from, end): rows first in the piece, counts behind them. */
static int send_skips(struct backend *backend, uint32_t from, uint32_t end)
{
	struct set_mirror *mirror = backend->mirror;
	const struct skip_source *source = backend->set->skips;
	uint32_t n = end - from;
	size_t row = GPU_SKIPS_MAX * sizeof(uint32_t);
	struct piece piece;
	int rc = piece_take(backend, &piece);
	if (rc < 0)
		return rc;
	uint32_t *items = static_cast<uint32_t *>(piece.host), *counts = items + (size_t)n * GPU_SKIPS_MAX;
	memset(items, 0, n * row);
	for (uint32_t k = 0; k < n; k++)
		counts[k] = (uint32_t)source->list(source->ctx, from + k, items + (size_t)k * GPU_SKIPS_MAX, GPU_SKIPS_MAX);
	rc = piece_send(backend, &piece, n * (row + sizeof *counts));
	if (rc == 0)
		rc = gpu_check(&backend->fault,
		               cudaMemcpyAsync(static_cast<char *>(mirror->skips.data) + from * row, piece.device, n * row, cudaMemcpyDeviceToDevice, backend->stream),
		               SKIPS_FAULT);
	if (rc == 0)
		rc = gpu_check(&backend->fault,
		               cudaMemcpyAsync(static_cast<uint32_t *>(mirror->n_skips.data) + from, static_cast<char *>(piece.device) + n * row, n * sizeof *counts,
		                               cudaMemcpyDeviceToDevice, backend->stream),
		               SKIPS_FAULT);
	return rc < 0 ? rc : piece_used(backend, &piece);
}

/* Users [from, end), in as many pieces as it takes. */
static int send_skips_range(struct backend *backend, uint32_t from, uint32_t end)
{
	uint32_t limit = (uint32_t)(transfer_piece_bytes(backend) / ((GPU_SKIPS_MAX + 1) * sizeof(uint32_t)));
	int rc = 0;
	while (from < end && rc == 0) {
		uint32_t part = end - from < limit ? end - from : limit;
		rc = send_skips(backend, from, from + part);
		from += part;
	}
	return rc;
}

/* Lists that stay as they are: sent once. */
static int send_skip_lists(struct backend *backend)
{
	struct set_mirror *mirror = backend->mirror;
	const struct skip_source *source = backend->set->skips;
	if (mirror->skip_lists == source->offsets)
		return 0;
	int rc = transfer_send(backend, mirror->skips.data, source->items, source->offsets[source->n_users] * sizeof *source->items);
	if (rc == 0)
		rc = transfer_send(backend, mirror->skip_offsets.data, source->offsets, ((size_t)source->n_users + 1) * sizeof *source->offsets);
	if (rc == 0)
		mirror->skip_lists = source->offsets;
	return rc;
}

static int sync_skips(struct backend *backend, const struct train_job *job)
{
	struct set_mirror *mirror = backend->mirror;
	uint32_t n_users = backend->set->n_users;
	if (backend->set->skips->offsets)
		return send_skip_lists(backend);
	int rc = clear(backend, &mirror->n_skips, mirror->skips_users * sizeof(uint32_t), 0, (n_users - mirror->skips_users) * sizeof(uint32_t));
	if (rc < 0)
		return rc;
	int all = backend->options->deterministic || (job->budget_us <= 0 && (!mirror->skips_all || mirror->skips_users < n_users));
	mirror->skips_users = n_users;
	if (all || n_users <= SKIP_USERS) {
		mirror->skips_all = 1;
		return send_skips_range(backend, 0, n_users);
	}
	uint32_t from = mirror->skips_turn < n_users ? mirror->skips_turn : 0;
	uint32_t end = n_users - from < SKIP_USERS ? n_users : from + SKIP_USERS;
	rc = send_skips_range(backend, from, end);
	mirror->skips_turn = end;
	return rc;
}

static struct set_view view_of(const struct backend *backend, const struct sync_plan *plan)
{
	const struct set_mirror *mirror = backend->mirror;
	const struct set_target target = target_of(backend);
	struct set_view view = {};
	view.positives = target.positives;
	view.weights = target.weights;
	view.n_positives = mirror->n_positives;
	view.slots = static_cast<const uint64_t *>(mirror->slots.data);
	view.filter = static_cast<const uint64_t *>(mirror->filter.data);
	view.mask = mirror->mask;
	view.user_positives = target.user_positives;
	view.candidates = static_cast<const uint32_t *>(mirror->candidates.data);
	view.n_candidates = mirror->n_candidates;
	view.n_users = plan->set->n_users;
	view.n_items = plan->set->n_items;
	if (plan->set->popular) {
		view.alias_below = static_cast<const uint32_t *>(mirror->alias_below.data);
		view.alias_other = static_cast<const uint32_t *>(mirror->alias_other.data);
	}
	view.recent = static_cast<const struct recent_positive *>(mirror->recent.data);
	view.n_recent = plan->set->n_recent;
	if (plan->skips) {
		view.skips = static_cast<const uint32_t *>(mirror->skips.data);
		view.n_skips = static_cast<const uint32_t *>(mirror->n_skips.data);
	}
	if (plan->skips && plan->set->skips->offsets) {
		view.skip_offsets = static_cast<const uint64_t *>(mirror->skip_offsets.data);
		view.skip_users = plan->set->skips->n_users;
	}
	return view;
}

int set_mirror_sync(struct backend *backend, const struct train_job *job, struct set_view *ret_view)
{
	struct sync_plan plan = make_plan(backend);
	int rc = make_room(backend, &plan);
	if (rc == 0)
		rc = sync_pairs(backend, &plan);
	if (rc == 0)
		rc = sync_candidates(backend);
	if (rc == 0)
		rc = sync_recent(backend);
	if (rc == 0 && plan.skips)
		rc = sync_skips(backend, job);
	if (rc == 0)
		*ret_view = view_of(backend, &plan);
	return rc;
}
