/*
 * transfer.cu: see transfer.cuh. The thread that calls the backend.
 *
 * The life of a pair: taken (the host waits until its last journey is over), written, sent or filled, used. `travelled` is recorded on copies after a
 * journey, `ready` on stream before one: staging memory may be overwritten, or has been filled.
 */
#include "gpu/transfer.cuh"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.cuh"

#define PIECE_BYTES ((size_t)1 << 20)

struct transfer {
	struct pinned_array host[2];
	struct device_array staging[2];
	cudaEvent_t travelled[2], ready[2];
	size_t piece_bytes;
	uint32_t next;
};

int transfer_open(struct backend *backend)
{
	struct transfer *transfer = static_cast<struct transfer *>(calloc(1, sizeof *transfer));
	if (!transfer)
		return -ENOMEM;
	backend->transfer = transfer;
	transfer->piece_bytes = PIECE_BYTES;
	int rc = 0;
	for (uint32_t half = 0; half < 2 && rc == 0; half++) {
		rc = pinned_array_grow(backend, &transfer->host[half], PIECE_BYTES);
		if (rc == 0)
			rc = device_array_grow(backend, &transfer->staging[half], PIECE_BYTES, 0, "staging memory");
		if (rc == 0)
			rc = gpu_check(&backend->fault, cudaEventCreateWithFlags(&transfer->travelled[half], cudaEventDisableTiming | cudaEventBlockingSync),
			               "an event");
		if (rc == 0)
			rc = gpu_check(&backend->fault, cudaEventCreateWithFlags(&transfer->ready[half], cudaEventDisableTiming), "an event");
		if (rc == 0) /* staging memory exists on copies, too */
			rc = gpu_check(&backend->fault, cudaEventRecord(transfer->ready[half], backend->stream), "an event");
	}
	return rc;
}

void transfer_close(struct transfer *transfer)
{
	if (!transfer)
		return;
	for (uint32_t half = 0; half < 2; half++) {
		pinned_array_free(&transfer->host[half]);
		device_array_free(&transfer->staging[half]);
		if (transfer->travelled[half])
			(void)cudaEventDestroy(transfer->travelled[half]);
		if (transfer->ready[half])
			(void)cudaEventDestroy(transfer->ready[half]);
	}
	free(transfer);
}

size_t transfer_piece_bytes(const struct backend *backend)
{
	return backend->transfer->piece_bytes;
}

void transfer_limit_piece(struct backend *backend, size_t bytes)
{
	backend->transfer->piece_bytes = bytes && bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
}

int piece_take(struct backend *backend, struct piece *ret_piece)
{
	struct transfer *transfer = backend->transfer;
	uint32_t half = transfer->next;
	int rc = gpu_check(&backend->fault, cudaEventSynchronize(transfer->travelled[half]), "a copy");
	if (rc < 0)
		return rc;
	transfer->next = half ^ 1;
	ret_piece->host = transfer->host[half].data;
	ret_piece->device = transfer->staging[half].data;
	ret_piece->half = half;
	return 0;
}

/* copies goes on where stream has got to. */
static int copies_follow(struct backend *backend, cudaEvent_t event, int record)
{
	int rc = record ? gpu_check(&backend->fault, cudaEventRecord(event, backend->stream), "an event") : 0;
	return rc < 0 ? rc : gpu_check(&backend->fault, cudaStreamWaitEvent(backend->copies, event, 0), "an event");
}

static int travel(struct backend *backend, const struct piece *piece, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
	cudaEvent_t travelled = backend->transfer->travelled[piece->half];
	int rc = gpu_check(&backend->fault, cudaMemcpyAsync(to, from, bytes, kind, backend->copies), "a copy");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaEventRecord(travelled, backend->copies), "an event");
	if (rc == 0)
		rc = gpu_check(&backend->fault, cudaStreamWaitEvent(backend->stream, travelled, 0), "an event");
	if (rc < 0) /* no event tells of this journey: whoever takes the pair next must find it ended */
		(void)cudaStreamSynchronize(backend->copies);
	return rc;
}

int piece_send(struct backend *backend, const struct piece *piece, size_t bytes)
{
	int rc = copies_follow(backend, backend->transfer->ready[piece->half], 0);
	return rc < 0 ? rc : travel(backend, piece, piece->device, piece->host, bytes, cudaMemcpyHostToDevice);
}

int piece_used(struct backend *backend, const struct piece *piece)
{
	int rc = gpu_check(&backend->fault, cudaEventRecord(backend->transfer->ready[piece->half], backend->stream), "an event");
	if (rc < 0) /* as in travel() */
		(void)cudaStreamSynchronize(backend->stream);
	return rc;
}

int piece_fetch(struct backend *backend, const struct piece *piece, const void *from, size_t bytes)
{
	int rc = copies_follow(backend, backend->transfer->ready[piece->half], 1);
	return rc < 0 ? rc : travel(backend, piece, piece->host, from, bytes, cudaMemcpyDeviceToHost);
}

int piece_wait(struct backend *backend, const struct piece *piece)
{
	return gpu_check(&backend->fault, cudaEventSynchronize(backend->transfer->travelled[piece->half]), "a copy");
}

int transfer_send(struct backend *backend, void *to, const void *from, size_t bytes)
{
	char *target = static_cast<char *>(to);
	const char *source = static_cast<const char *>(from);
	size_t limit = transfer_piece_bytes(backend);
	int rc = 0;
	for (size_t done = 0; done < bytes && rc == 0;) {
		size_t part = bytes - done < limit ? bytes - done : limit;
		struct piece piece;
		rc = piece_take(backend, &piece);
		if (rc < 0)
			break;
		memcpy(piece.host, source + done, part);
		rc = piece_send(backend, &piece, part);
		if (rc == 0)
			rc = gpu_check(&backend->fault, cudaMemcpyAsync(target + done, piece.device, part, cudaMemcpyDeviceToDevice, backend->stream), "a copy");
		if (rc == 0)
			rc = piece_used(backend, &piece);
		done += part;
	}
	return rc;
}
