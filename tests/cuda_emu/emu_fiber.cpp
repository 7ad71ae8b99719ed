/*
 * emu_fiber.cpp: stacks that run in turn on one OS thread.
 *
 * A fiber is made once and lives for ever: when its lane is done it switches away, and is switched to again for the next block. x86-64 has a switch of
 * its own, which saves what a call must preserve; other CPUs (or -DEMU_UCONTEXT) use ucontext, which is slower by a system call.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/cuda_emu/emu_core.h"

#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT
#endif

#define STACK_BYTES ((size_t)128 << 10)
#define GUARD_BYTES ((size_t)4096)

static struct emu_fiber host; /* the OS thread that runs the grid */
static void (*fiber_body)(void);
#ifdef EMU_ASAN
static const void *host_bottom;
static size_t host_bytes;
static int left_host; /* the last switch left the OS thread's own stack */
#endif

#ifndef EMU_UCONTEXT
/* void emu_swap_stacks(void **save, void *to): the six registers that a function must preserve, and the stack pointer. */
extern "C" void emu_swap_stacks(void **save, void *to);
__asm__(".text\n"
        ".p2align 4\n"
        ".globl emu_swap_stacks\n"
        ".hidden emu_swap_stacks\n"
        ".type emu_swap_stacks, @function\n"
        "emu_swap_stacks:\n"
        "	pushq %rbx\n"
        "	pushq %rbp\n"
        "	pushq %r12\n"
        "	pushq %r13\n"
        "	pushq %r14\n"
        "	pushq %r15\n"
        "	movq %rsp, (%rdi)\n"
        "	movq %rsi, %rsp\n"
        "	popq %r15\n"
        "	popq %r14\n"
        "	popq %r13\n"
        "	popq %r12\n"
        "	popq %rbp\n"
        "	popq %rbx\n"
        "	ret\n"
        ".size emu_swap_stacks, .-emu_swap_stacks\n"
        ".section .note.GNU-stack,\"\",@progbits\n"
        ".text\n");
#endif

/* On the new stack, before anything else: ASan is told where we are. */
static void arrived(void *fake_stack)
{
#ifdef EMU_ASAN
	const void *bottom = nullptr;
	size_t bytes = 0;
	__sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
	if (left_host) {
		host_bottom = bottom;
		host_bytes = bytes;
	}
#else
	(void)fake_stack;
#endif
}

static void fiber_begin(void)
{
	arrived(nullptr);
	fiber_body();
	abort();
}

void emu_fiber_create(struct emu_fiber *fiber, void (*body)(void))
{
	void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE))
		emu_die("no memory for a lane's stack");
	fiber_body = body;
	fiber->stack = static_cast<char *>(memory) + GUARD_BYTES;
	fiber->tsan = emu_actor_new();
#ifdef EMU_UCONTEXT
	ucontext_t *context = static_cast<ucontext_t *>(calloc(1, sizeof *context));
	if (!context || getcontext(context))
		emu_die("no memory for a lane");
	context->uc_stack.ss_sp = fiber->stack;
	context->uc_stack.ss_size = STACK_BYTES;
	makecontext(context, fiber_begin, 0);
	fiber->context = context;
#else
	/* As if emu_swap_stacks() had been called by nobody: six registers, the address to return to, and an end that unwinders see. */
	void **top = reinterpret_cast<void **>(static_cast<char *>(fiber->stack) + STACK_BYTES);
	top -= 2;
	*--top = nullptr;
	*--top = reinterpret_cast<void *>(fiber_begin);
	for (int i = 0; i < 6; i++)
		*--top = nullptr;
	fiber->context = top;
#endif
}

void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to)
{
	struct emu_fiber *here = from ? from : &host;
	struct emu_fiber *there = to ? to : &host;
	void *fake_stack = nullptr;
#ifdef EMU_ASAN
	left_host = !from;
	__sanitizer_start_switch_fiber(&fake_stack, to ? to->stack : host_bottom, to ? STACK_BYTES : host_bytes);
#endif
#ifdef EMU_TSAN
	if (!from)
		host.tsan = emu_actor_now();
	emu_actor_become(there->tsan);
#endif
#ifdef EMU_UCONTEXT
	ucontext_t host_context;
	if (!from)
		host.context = &host_context;
	if (swapcontext(static_cast<ucontext_t *>(here->context), static_cast<ucontext_t *>(there->context)))
		emu_die("swapcontext failed");
#else
	emu_swap_stacks(&here->context, there->context);
#endif
	arrived(fake_stack);
}
