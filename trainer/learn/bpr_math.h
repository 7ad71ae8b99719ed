/*
 * bpr_math.h: the arithmetic of BPR, with the same bits on every compiler and device. C, C++ and CUDA.
 *
 * exp, sigmoid and softplus are our own: libm and CUDA differ in the last bits. Every fused multiply-add is written as one (BPR_FMA), so that the
 * compiler has nothing left to contract; build with -ffp-contract=off (nvcc: -fmad=false). Fixed point serves the deterministic mode: sums of int64
 * do not depend on their order.
 */
#ifndef TRAINER_LEARN_BPR_MATH_H
#define TRAINER_LEARN_BPR_MATH_H

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define BPR_FN static __host__ __device__ __forceinline__
#else
#define BPR_FN static inline __attribute__((always_inline, unused))
#endif
#if defined(__CUDA_ARCH__)
#define BPR_FMA(a, b, c) __fmaf_rn((a), (b), (c))
#define BPR_DIV(a, b) __fdiv_rn((a), (b))
#define BPR_SQRT(a) __fsqrt_rn(a)
#else
#define BPR_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#define BPR_DIV(a, b) ((a) / (b))
#define BPR_SQRT(a) __builtin_sqrtf(a)
#endif

/* Added to an Adagrad sum before the square root. */
#define BPR_ADAGRAD_EPS 1e-8f
/* Fixed point of the deterministic mode: steps of 2^-36; values are cut to +-1024, so that 2^16 of them and a sign fit into int64. */
#define BPR_FIXED_ONE 68719476736.0f
#define BPR_FIXED_MAX 1024.0f
/* Partial sums of a dot product in the deterministic mode. */
#define BPR_LANES 16

BPR_FN float bpr_float_of_bits(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

BPR_FN uint32_t bpr_bits_of_float(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

/* 1: neither NaN nor infinite. By bits, so that no compiler flag can take it away. */
BPR_FN int bpr_is_finite(float f)
{
	return (bpr_bits_of_float(f) & 0x7f800000u) != 0x7f800000u;
}

/* exp(x), cut to x in -87..88; relative error below 3e-7. Two-part ln 2 (Cody and Waite), then the Taylor polynomial on +-ln(2)/2. */
BPR_FN float bpr_exp(float x)
{
	const float round_to_int = 12582912.0f; /* 1.5 * 2^23 */
	if (x > 88.0f)
		x = 88.0f;
	if (!(x > -87.0f))
		x = -87.0f;
	float shifted = BPR_FMA(x, 1.44269504f, round_to_int);
	float n = shifted - round_to_int;
	float r = BPR_FMA(n, -0.693359375f, x);
	r = BPR_FMA(n, 2.12194440e-4f, r);
	float p = 1.0f / 720.0f;
	p = BPR_FMA(p, r, 1.0f / 120.0f);
	p = BPR_FMA(p, r, 1.0f / 24.0f);
	p = BPR_FMA(p, r, 1.0f / 6.0f);
	p = BPR_FMA(p, r, 0.5f);
	p = BPR_FMA(p, r, 1.0f);
	p = BPR_FMA(p, r, 1.0f);
	uint32_t exponent = bpr_bits_of_float(shifted) - bpr_bits_of_float(round_to_int) + 127u;
	return p * bpr_float_of_bits(exponent << 23);
}

/* 1 / (1 + exp(-x)). */
BPR_FN float bpr_sigmoid(float x)
{
	return BPR_DIV(1.0f, 1.0f + bpr_exp(-x));
}

/* ln(1 + t) for t in 0..1, by the series of 2 atanh(t / (2 + t)); error below 1e-6 relative. */
BPR_FN float bpr_log1p(float t)
{
	float s = BPR_DIV(t, 2.0f + t);
	float q = s * s;
	float p = 1.0f / 13.0f;
	p = BPR_FMA(p, q, 1.0f / 11.0f);
	p = BPR_FMA(p, q, 1.0f / 9.0f);
	p = BPR_FMA(p, q, 1.0f / 7.0f);
	p = BPR_FMA(p, q, 1.0f / 5.0f);
	p = BPR_FMA(p, q, 1.0f / 3.0f);
	p = BPR_FMA(p, q, 1.0f);
	return 2.0f * s * p;
}

/* ln(1 + exp(x)). -ln sigmoid(x) = softplus(-x). */
BPR_FN float bpr_softplus(float x)
{
	return (x > 0.0f ? x : 0.0f) + bpr_log1p(bpr_exp(x > 0.0f ? -x : x));
}

/* To fixed point, towards zero; cut to +-BPR_FIXED_MAX (NaN to the lower end: the caller has checked its inputs). */
BPR_FN int64_t bpr_to_fixed(float f)
{
	float high = f < BPR_FIXED_MAX ? f : BPR_FIXED_MAX;
	float cut = f > -BPR_FIXED_MAX ? high : -BPR_FIXED_MAX;
	return (int64_t)(cut * BPR_FIXED_ONE);
}

/* Back, rounded to nearest. */
BPR_FN float bpr_from_fixed(int64_t sum)
{
	return (float)sum * (1.0f / BPR_FIXED_ONE);
}

/*
 * The gradients of the log likelihood minus L2, for one coordinate; to be added, times the rate. z_pos and z_neg say how far a triple pulls at its two items:
 * BPR: both weight * sigmoid(-(x_pos - x_neg)) (Rendle et al., UAI 2009, section 4.3.1); BCE: weight * sigmoid(-x_pos) and weight * sigmoid(x_neg).
 */
BPR_FN float bpr_gradient_user(float z, float user, float pos, float neg, float reg)
{
	return BPR_FMA(z, pos - neg, -(reg * user));
}

/* The user's with two factors (BCE). */
BPR_FN float bpr_gradient_user_two(float z_pos, float z_neg, float user, float pos, float neg, float reg)
{
	return BPR_FMA(z_pos, pos, BPR_FMA(-z_neg, neg, -(reg * user)));
}

BPR_FN float bpr_gradient_pos(float z, float user, float pos, float reg)
{
	return BPR_FMA(z, user, -(reg * pos));
}

BPR_FN float bpr_gradient_neg(float z, float user, float neg, float reg)
{
	return BPR_FMA(-z, user, -(reg * neg));
}

/* A positive's weight is at most 2^this, whatever its age and the mean say. */
#define BPR_WEIGHT_LOG2_MAX 3.0f

/* The weight of a draw: 2^(own - mean), both as base-2 logarithms; 1 when they are equal. */
BPR_FN float bpr_weight(float own_log2, float mean_log2)
{
	float d = own_log2 - mean_log2;
	if (!(d < BPR_WEIGHT_LOG2_MAX))
		d = BPR_WEIGHT_LOG2_MAX;
	return bpr_exp(d * 0.693147182f);
}

/*
 * What a row's summed gradient is multiplied with. norm2: squared norm of the gradient; inverse_size: 1 / (number of coordinates).
 * Row-wise Adagrad: the sum takes in the mean square, the step is rate / sqrt(sum). The step's norm is cut to norm_max.
 * ret_acc is the row's Adagrad sum, NULL for plain SGD.
 */
BPR_FN float bpr_step_scale(float rate, float norm2, float inverse_size, float norm_max, float *ret_acc)
{
	float scale = rate;
	if (ret_acc) {
		float acc = BPR_FMA(norm2, inverse_size, *ret_acc);
		*ret_acc = acc;
		scale = BPR_DIV(rate, BPR_SQRT(acc + BPR_ADAGRAD_EPS));
	}
	float step2 = scale * scale * norm2;
	if (step2 > norm_max * norm_max)
		scale = scale * BPR_DIV(norm_max, BPR_SQRT(step2));
	return scale;
}

#endif
