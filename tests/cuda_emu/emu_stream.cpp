/*
 * emu_stream.cpp: streams and events. A stream is a queue of operations that run in order, at the latest when somebody waits for them.
 *
 * Operation number k of a stream has run when stream->done >= k; an event is a stream and such a number. The default stream and those made without
 * cudaStreamNonBlocking wait for each other by operations that wait, as everybody else does.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/cuda_emu/emu_core.h"

struct emu_stream {
	struct emu_stream *next;
	struct emu_op *first, *last;
	uint64_t queued, done;
	int blocking, gone, busy;
	unsigned number;  /* streams made before it */
	void *actor;      /* TSan: who does the work */
	char did;         /* TSan: released after each operation */
};
struct emu_event {
	struct emu_event *next;
	struct emu_stream *stream; /* NULL: never recorded */
	uint64_t seq;
	int timing, gone;
	double recorded_ms;
	char passed; /* TSan: released when it is reached */
};
static struct emu_stream default_stream;
static struct emu_stream *streams = &default_stream; /* never freed: a handle used after its end is to be noticed */
static struct emu_event *events;
static struct emu_op *free_ops;
static int depth;
static unsigned n_streams;

/* ---- operations ---------------------------------------------------------------------------------------------------------------------- */
/* From pages of our own, not from the heap: what lanes read there is no business of a sanitizer. */
struct emu_op *emu_op_new(void (*run)(struct emu_op *op))
{
	if (!free_ops) {
		const size_t n = 64;
		void *memory = mmap(nullptr, n * sizeof(struct emu_op), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			emu_die("no memory for operations");
		for (size_t i = 0; i < n; i++) {
			struct emu_op *op = static_cast<struct emu_op *>(memory) + i;
			op->next = free_ops;
			free_ops = op;
		}
	}
	struct emu_op *op = free_ops;
	free_ops = op->next;
	op->next = nullptr;
	op->run = run;
	op->to = op->owned = nullptr;
	op->from = nullptr;
	op->wait_stream = nullptr;
	op->event = nullptr;
	op->launch = {};
	op->faults = 0;
	return op;
}

static void op_free(struct emu_op *op)
{
	emu_unseen_begin();
	free(op->owned);
	emu_unseen_end();
	op->next = free_ops;
	free_ops = op;
}

static void drain_until(struct emu_stream *s, uint64_t seq);

static void append(struct emu_stream *s, struct emu_op *op)
{
	if (!s->actor) /* now, not when it first runs: an actor knows all that its maker did before */
		s->actor = emu_actor_new();
	op->seq = ++s->queued;
	if (s->last)
		s->last->next = op;
	else
		s->first = op;
	s->last = op;
	emu_release(op);
}

static void run_wait(struct emu_op *op)
{
	(void)op; /* step() has waited */
}

/* The next operation of `s` also waits until operation `seq` of `other` has run. */
static void append_wait(struct emu_stream *s, struct emu_stream *other, uint64_t seq, struct emu_event *event)
{
	if (other == s || (other->done >= seq && !event))
		return;
	struct emu_op *op = emu_op_new(run_wait);
	op->wait_stream = other;
	op->wait_seq = seq;
	op->event = event;
	append(s, op);
}

static struct emu_stream *stream_of(cudaStream_t stream)
{
	return stream ? stream : &default_stream;
}

/* The first operation of a stream. */
static void step(struct emu_stream *s)
{
	struct emu_op *op = s->first;
	if (!op)
		return;
	if (s->busy)
		emu_die("two streams wait for each other");
	s->busy = 1;
	depth++;
	if (op->wait_stream)
		drain_until(op->wait_stream, op->wait_seq);
	emu_memory_open();
	void *caller = emu_actor_now();
	emu_actor_become(s->actor);
	emu_acquire(op);
	if (op->wait_stream)
		emu_acquire(op->event ? &op->event->passed : &op->wait_stream->did);
	op->run(op);
	if (op->event && !op->wait_stream)
		emu_release(&op->event->passed);
	emu_release(&s->did);
	emu_actor_become(caller);
	depth--;
	s->busy = 0;
	if (s->first != op)
		return; /* a fault has dropped everything */
	s->first = op->next;
	s->last = s->first ? s->last : nullptr;
	s->done = op->seq;
	op_free(op);
}

static void drain_until(struct emu_stream *s, uint64_t seq)
{
	while (s->done < seq && s->first)
		step(s);
}

int emu_stream_known(cudaStream_t stream)
{
	return !stream || !stream->gone;
}

unsigned emu_stream_number(cudaStream_t stream)
{
	return stream_of(stream)->number;
}

int emu_enqueue(cudaStream_t stream, struct emu_op *op)
{
	struct emu_stream *s = stream_of(stream);
	if (s == &default_stream) {
		for (struct emu_stream *other = streams; other; other = other->next) {
			if (other->blocking)
				append_wait(s, other, other->queued, nullptr);
		}
	} else if (s->blocking) {
		append_wait(s, &default_stream, default_stream.queued, nullptr);
	}
	append(s, op);
	return 0;
}

void emu_stream_drain(cudaStream_t stream)
{
	struct emu_stream *s = stream_of(stream);
	drain_until(s, s->queued);
	emu_acquire(&s->did);
}

void emu_device_drain(void)
{
	for (int more = 1; more;) {
		more = 0;
		for (struct emu_stream *s = streams; s; s = s->next) {
			drain_until(s, s->queued);
			emu_acquire(&s->did);
		}
		for (struct emu_stream *s = streams; s; s = s->next)
			more |= s->first != nullptr;
	}
}

void emu_streams_progress(void)
{
	if (!emu_settings.seed || depth)
		return;
	for (struct emu_stream *s = streams; s; s = s->next) {
		for (uint32_t n = emu_random_below(4) ? 0 : 1 + emu_random_below(4); n; n--)
			step(s);
	}
}

void emu_streams_drop(void)
{
	for (struct emu_stream *s = streams; s; s = s->next) {
		while (s->first) {
			struct emu_op *op = s->first;
			s->first = op->next;
			op_free(op);
		}
		s->last = nullptr;
		s->done = s->queued;
	}
}

void emu_streams_reset(void)
{
	emu_streams_drop();
	for (struct emu_stream *s = streams; s; s = s->next) {
		emu_acquire(&s->did); /* whose memory goes next */
		s->gone = s != &default_stream;
	}
	for (struct emu_event *e = events; e; e = e->next)
		e->gone = 1;
}

size_t emu_streams_alive(void)
{
	size_t n = 0;
	for (const struct emu_stream *s = streams; s; s = s->next)
		n += s != &default_stream && !s->gone;
	for (const struct emu_event *e = events; e; e = e->next)
		n += !e->gone;
	return n;
}

static int is_inside(const void *p, const void *base, size_t bytes)
{
	const uintptr_t address = reinterpret_cast<uintptr_t>(p), first = reinterpret_cast<uintptr_t>(base);
	return address >= first && address < first + bytes;
}

/* Arguments of kernels are looked through for anything that would be such a pointer. */
int emu_streams_use(const void *base, size_t bytes)
{
	for (const struct emu_stream *s = streams; s; s = s->next) {
		for (const struct emu_op *op = s->first; op; op = op->next) {
			if (is_inside(op->to, base, bytes) || is_inside(op->from, base, bytes))
				return 1;
			for (size_t at = 0; op->launch.args == op->args && at + sizeof(void *) <= op->launch.args_size; at += sizeof(void *)) {
				const void *p;
				memcpy(&p, op->args + at, sizeof p);
				if (is_inside(p, base, bytes))
					return 1;
			}
		}
	}
	return 0;
}

size_t emu_streams_queued(void)
{
	size_t n = 0;
	for (const struct emu_stream *s = streams; s; s = s->next)
		n += s->queued - s->done;
	return n;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------------------- */
/* A TSan actor whose stream has ended, or NULL. */
static void *used_actor(void)
{
	for (struct emu_stream *s = streams; s; s = s->next) {
		void *actor = s->actor;
		if (s->gone && !s->first && actor) {
			s->actor = nullptr;
			return actor;
		}
	}
	return nullptr;
}

static cudaError_t stream_new(cudaStream_t *ret_stream, unsigned flags)
{
	if (!ret_stream || (flags & ~cudaStreamNonBlocking))
		return cudaErrorInvalidValue;
	struct emu_stream *s = static_cast<struct emu_stream *>(calloc(1, sizeof *s));
	if (!s)
		emu_die("no memory for a stream");
	s->number = ++n_streams;
	s->actor = used_actor();
	if (!s->actor)
		s->actor = emu_actor_new();
	s->blocking = !(flags & cudaStreamNonBlocking);
	s->next = streams;
	streams = s;
	*ret_stream = s;
	return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *ret_stream)
{
	EMU_ENTER();
	return call.give(stream_new(ret_stream, cudaStreamDefault));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
	EMU_ENTER();
	return call.give(stream_new(ret_stream, flags));
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret_stream, unsigned flags, int priority)
{
	EMU_ENTER();
	(void)priority;
	return call.give(stream_new(ret_stream, flags));
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *ret_least, int *ret_greatest)
{
	EMU_ENTER();
	*ret_least = 0;
	*ret_greatest = -5;
	return cudaSuccess;
}

/* What is queued still runs, later. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	EMU_ENTER();
	if (!stream || stream->gone)
		return call.give(cudaErrorInvalidResourceHandle);
	stream->gone = 1;
	return cudaSuccess;
}

/* What a call that waits returns: it has waited, even when it was made to fail (CUDA has no failure that leaves work running and lets it be seen later). */
static cudaError_t waited(struct emu_call *call, cudaError_t result)
{
	return call->error != cudaSuccess ? call->error : call->give(result);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	emu_call call(__func__);
	if (!emu_stream_known(stream))
		return waited(&call, cudaErrorInvalidResourceHandle);
	emu_stream_drain(stream);
	return waited(&call, cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
	EMU_ENTER();
	if (!emu_stream_known(stream))
		return call.give(cudaErrorInvalidResourceHandle);
	struct emu_stream *s = stream_of(stream);
	step(s);
	if (s->first)
		return call.give(cudaErrorNotReady);
	emu_acquire(&s->did);
	return call.give(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	EMU_ENTER();
	(void)flags;
	if (!emu_stream_known(stream) || !event || event->gone)
		return call.give(cudaErrorInvalidResourceHandle);
	if (event->stream)
		append_wait(stream_of(stream), event->stream, event->seq, event);
	return cudaSuccess;
}

static void run_host_fn(struct emu_op *op)
{
	emu_in_host_function = 1;
	op->host_fn(op->host_data);
	emu_in_host_function = 0;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *data)
{
	EMU_ENTER();
	if (!emu_stream_known(stream))
		return call.give(cudaErrorInvalidResourceHandle);
	if (!fn)
		return call.give(cudaErrorInvalidValue);
	struct emu_op *op = emu_op_new(run_host_fn);
	op->host_fn = fn;
	op->host_data = data;
	emu_enqueue(stream, op);
	return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
	emu_call call(__func__);
	emu_device_drain();
	return waited(&call, cudaSuccess);
}

/* ---- events -------------------------------------------------------------------------------------------------------------------------- */
static cudaError_t event_new(cudaEvent_t *ret_event, unsigned flags)
{
	if (!ret_event)
		return cudaErrorInvalidValue;
	struct emu_event *e = static_cast<struct emu_event *>(calloc(1, sizeof *e));
	if (!e)
		emu_die("no memory for an event");
	e->timing = !(flags & cudaEventDisableTiming);
	e->next = events;
	events = e;
	*ret_event = e;
	return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *ret_event)
{
	EMU_ENTER();
	return call.give(event_new(ret_event, cudaEventDefault));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
	EMU_ENTER();
	return call.give(event_new(ret_event, flags));
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	EMU_ENTER();
	if (!event || event->gone)
		return call.give(cudaErrorInvalidResourceHandle);
	event->gone = 1;
	return cudaSuccess;
}

static void run_record(struct emu_op *op)
{
	struct timespec now;
	emu_unseen_begin();
	clock_gettime(CLOCK_MONOTONIC, &now);
	emu_unseen_end();
	op->event->recorded_ms = static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	EMU_ENTER();
	if (!emu_stream_known(stream) || !event || event->gone)
		return call.give(cudaErrorInvalidResourceHandle);
	struct emu_op *op = emu_op_new(run_record);
	op->event = event;
	emu_enqueue(stream, op);
	event->stream = stream_of(stream);
	event->seq = op->seq;
	return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	emu_call call(__func__);
	if (!event || event->gone)
		return waited(&call, cudaErrorInvalidResourceHandle);
	if (event->stream) {
		drain_until(event->stream, event->seq);
		emu_acquire(&event->passed);
	}
	return waited(&call, cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
	EMU_ENTER();
	if (!event || event->gone)
		return call.give(cudaErrorInvalidResourceHandle);
	if (!event->stream)
		return cudaSuccess;
	if (event->stream->done < event->seq)
		step(event->stream);
	if (event->stream->done < event->seq)
		return call.give(cudaErrorNotReady);
	emu_acquire(&event->passed);
	return call.give(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end)
{
	EMU_ENTER();
	if (!start || !end || start->gone || end->gone || !start->stream || !end->stream || !start->timing || !end->timing)
		return call.give(cudaErrorInvalidResourceHandle);
	if (start->stream->done < start->seq || end->stream->done < end->seq)
		return call.give(cudaErrorNotReady);
	*ret_ms = static_cast<float>(end->recorded_ms - start->recorded_ms);
	return cudaSuccess;
}
