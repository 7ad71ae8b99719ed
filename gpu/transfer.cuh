/*
 * transfer.cuh: bytes between the host and the device, in pieces through two pinned buffers and two staging buffers of the device, one pair filled while the
 * other travels.
 *
 * The stream `copies` moves pieces between pinned and staging memory, and touches nothing else of the device. backend->stream moves them between staging
 * memory and their place, or lets a kernel do so; events keep the two in step. Sending returns when the host's bytes are in pinned memory; it waits only for
 * the piece before the last. Fetching waits for the device. So nothing is sent or fetched while a job runs: the third piece would wait for the job's end.
 */
#ifndef GPU_TRANSFER_CUH
#define GPU_TRANSFER_CUH

#include "gpu/device_memory.cuh"

struct transfer;

/* A buffer pair on loan. */
struct piece {
	void *host;   /* pinned */
	void *device; /* staging */
	uint32_t half;
};

int transfer_open(struct backend *backend);
void transfer_close(struct transfer *transfer);
/* Bytes of a piece at most. Tests set it lower (0: back to what it was). */
size_t transfer_piece_bytes(const struct backend *backend);
void transfer_limit_piece(struct backend *backend, size_t bytes);

/* The next pair; its host side may be written at once, its device side by what is enqueued on backend->stream from here on. */
int piece_take(struct backend *backend, struct piece *ret_piece);
/* Host to staging: what is enqueued on backend->stream from here on reads `bytes` bytes at piece->device. */
int piece_send(struct backend *backend, const struct piece *piece, size_t bytes);
/* After the last launch that reads piece->device. */
int piece_used(struct backend *backend, const struct piece *piece);
/* Device to host, after what is enqueued on backend->stream; `from`: piece->device or any other memory of the device. piece_wait() before piece->host is read. */
int piece_fetch(struct backend *backend, const struct piece *piece, const void *from, size_t bytes);
int piece_wait(struct backend *backend, const struct piece *piece);

/* Copies `bytes` from host memory to `to` on the device, in the order of backend->stream. */
int transfer_send(struct backend *backend, void *to, const void *from, size_t bytes);

#endif
