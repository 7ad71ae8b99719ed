/*
 * emu_math.h: device arithmetic under its CUDA names. Each gives the bits that CUDA gives, except rsqrtf (CUDA: within 2 ulp; here: correctly rounded parts).
 */
#ifndef TESTS_CUDA_EMU_EMU_MATH_H
#define TESTS_CUDA_EMU_EMU_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float __fmaf_rn(float a, float b, float c)
{
	return __builtin_fmaf(a, b, c);
}
static inline float __fadd_rn(float a, float b)
{
	return a + b;
}
static inline float __fsub_rn(float a, float b)
{
	return a - b;
}
static inline float __fmul_rn(float a, float b)
{
	return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
	return a / b;
}
static inline float __fsqrt_rn(float a)
{
	return __builtin_sqrtf(a);
}
static inline float __frcp_rn(float a)
{
	return 1.0f / a;
}
static inline float rsqrtf(float a)
{
	return 1.0f / __builtin_sqrtf(a);
}
static inline unsigned __float_as_uint(float f)
{
	unsigned bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}
static inline int __float_as_int(float f)
{
	int bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}
static inline float __uint_as_float(unsigned bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}
static inline float __int_as_float(int bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}
static inline int __float2int_rn(float f)
{
	return static_cast<int>(lrintf(f));
}
static inline int __float2int_rz(float f)
{
	return static_cast<int>(f);
}
static inline float __ll2float_rn(long long v)
{
	return static_cast<float>(v);
}
static inline int __popc(unsigned v)
{
	return __builtin_popcount(v);
}
static inline int __popcll(unsigned long long v)
{
	return __builtin_popcountll(v);
}
static inline int __ffs(int v)
{
	return __builtin_ffs(v);
}
static inline int __ffsll(long long v)
{
	return __builtin_ffsll(v);
}
static inline int __clz(int v)
{
	return v ? __builtin_clz(static_cast<unsigned>(v)) : 32;
}
static inline int __clzll(long long v)
{
	return v ? __builtin_clzll(static_cast<unsigned long long>(v)) : 64;
}
static inline unsigned __brev(unsigned v)
{
	unsigned out = 0;
	for (int i = 0; i < 32; i++)
		out |= ((v >> i) & 1u) << (31 - i);
	return out;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
	return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
	return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

#endif
