/*
 * emu_atomics.h: CUDA's atomics, all of relaxed order as on the device, and loads and stores that bypass the first cache level.
 *
 * The overloads are CUDA's own, no more: what compiles here has a counterpart there. Each may let another lane go on (emu_point()), so that a
 * read, a computation and an atomic write are seen not to be one step.
 */
#ifndef TESTS_CUDA_EMU_EMU_ATOMICS_H
#define TESTS_CUDA_EMU_EMU_ATOMICS_H

#include "tests/cuda_emu/emu_lane.h"

typedef unsigned long long emu_u64;

/* One read-modify-write: `next` makes the new value of the old one and the operand. */
template <class T, class F> static inline T emu_update(T *p, T value, F next)
{
	emu_point();
	T old, changed;
	__atomic_load(p, &old, __ATOMIC_RELAXED);
	do
		changed = next(old, value);
	while (!__atomic_compare_exchange(p, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return old;
}

#define EMU_ATOMIC(name, type, expression) \
	static inline type name(type *p, type value) \
	{ \
		return emu_update(p, value, [](type a, type b) { \
			(void)a; \
			return static_cast<type>(expression); \
		}); \
	}
EMU_ATOMIC(atomicAdd, int, static_cast<unsigned>(a) + static_cast<unsigned>(b))
EMU_ATOMIC(atomicAdd, unsigned, a + b)
EMU_ATOMIC(atomicAdd, emu_u64, a + b)
EMU_ATOMIC(atomicAdd, float, a + b)
EMU_ATOMIC(atomicAdd, double, a + b)
EMU_ATOMIC(atomicSub, int, static_cast<unsigned>(a) - static_cast<unsigned>(b))
EMU_ATOMIC(atomicSub, unsigned, a - b)
EMU_ATOMIC(atomicMax, int, a > b ? a : b)
EMU_ATOMIC(atomicMax, unsigned, a > b ? a : b)
EMU_ATOMIC(atomicMax, long long, a > b ? a : b)
EMU_ATOMIC(atomicMax, emu_u64, a > b ? a : b)
EMU_ATOMIC(atomicMin, int, a < b ? a : b)
EMU_ATOMIC(atomicMin, unsigned, a < b ? a : b)
EMU_ATOMIC(atomicMin, long long, a < b ? a : b)
EMU_ATOMIC(atomicMin, emu_u64, a < b ? a : b)
EMU_ATOMIC(atomicAnd, int, a & b)
EMU_ATOMIC(atomicAnd, unsigned, a & b)
EMU_ATOMIC(atomicAnd, emu_u64, a & b)
EMU_ATOMIC(atomicOr, int, a | b)
EMU_ATOMIC(atomicOr, unsigned, a | b)
EMU_ATOMIC(atomicOr, emu_u64, a | b)
EMU_ATOMIC(atomicXor, int, a ^ b)
EMU_ATOMIC(atomicXor, unsigned, a ^ b)
EMU_ATOMIC(atomicXor, emu_u64, a ^ b)
EMU_ATOMIC(atomicExch, int, b)
EMU_ATOMIC(atomicExch, unsigned, b)
EMU_ATOMIC(atomicExch, emu_u64, b)
EMU_ATOMIC(atomicExch, float, b)
EMU_ATOMIC(atomicInc, unsigned, a >= b ? 0u : a + 1u)

/* From compute capability 9.0 on; four atomics, not one. */
static inline float2 atomicAdd(float2 *p, float2 value)
{
	return {atomicAdd(&p->x, value.x), atomicAdd(&p->y, value.y)};
}
static inline float4 atomicAdd(float4 *p, float4 value)
{
	return {atomicAdd(&p->x, value.x), atomicAdd(&p->y, value.y), atomicAdd(&p->z, value.z), atomicAdd(&p->w, value.w)};
}

#define EMU_ATOMIC_CAS(type) \
	static inline type atomicCAS(type *p, type expected, type value) \
	{ \
		emu_point(); \
		__atomic_compare_exchange(p, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
		return expected; \
	}
EMU_ATOMIC_CAS(unsigned short)
EMU_ATOMIC_CAS(int)
EMU_ATOMIC_CAS(unsigned)
EMU_ATOMIC_CAS(emu_u64)

/* Loads and stores through the second cache level: other lanes may write at the same time, so each member is a relaxed atomic. */
template <class T> static inline T emu_load_relaxed(const T *p)
{
	static_assert(std::is_arithmetic<T>::value, "a vector type needs an overload");
	T value;
	__atomic_load(p, &value, __ATOMIC_RELAXED);
	return value;
}
template <class T> static inline T __ldcg(const T *p)
{
	emu_point();
	return emu_load_relaxed(p);
}
template <class T> static inline void __stcg(T *p, T value)
{
	static_assert(std::is_arithmetic<T>::value, "a vector type needs an overload");
	emu_point();
	__atomic_store(p, &value, __ATOMIC_RELAXED);
}
#define EMU_RELAXED2(type) \
	static inline type __ldcg(const type *p) \
	{ \
		emu_point(); \
		return {emu_load_relaxed(&p->x), emu_load_relaxed(&p->y)}; \
	} \
	static inline void __stcg(type *p, type value) \
	{ \
		__stcg(&p->x, value.x); \
		__stcg(&p->y, value.y); \
	}
#define EMU_RELAXED4(type) \
	static inline type __ldcg(const type *p) \
	{ \
		emu_point(); \
		return {emu_load_relaxed(&p->x), emu_load_relaxed(&p->y), emu_load_relaxed(&p->z), emu_load_relaxed(&p->w)}; \
	} \
	static inline void __stcg(type *p, type value) \
	{ \
		__stcg(&p->x, value.x); \
		__stcg(&p->y, value.y); \
		__stcg(&p->z, value.z); \
		__stcg(&p->w, value.w); \
	}
EMU_RELAXED2(ushort2)
EMU_RELAXED2(int2)
EMU_RELAXED2(uint2)
EMU_RELAXED2(float2)
EMU_RELAXED2(ulonglong2)
EMU_RELAXED4(ushort4)
EMU_RELAXED4(int4)
EMU_RELAXED4(uint4)
EMU_RELAXED4(float4)

/* Through the read-only cache: nobody may write there while the kernel runs, so this is a plain load that TSan checks. */
template <class T> static inline T __ldg(const T *p)
{
	return *p;
}

#endif
