/*
 * rows.cuh: rows of the tables in the registers of a group of lanes, as fp32 or bf16 in memory and always fp32 in registers.
 *
 * A row of `stride` elements belongs to LANES lanes with QUADS times four elements each: lane `sub` holds elements 4 (q LANES + sub) .. + 3. So a group reads
 * and writes whole sectors. Rows change by adding differences, never by storing, so that of two groups that change one row at the same time neither is lost.
 */
#ifndef GPU_ROWS_CUH
#define GPU_ROWS_CUH

#include "gpu/device.cuh"
#include "trainer/learn/bpr_math.h"

/* How a warp divides into groups for a stride: a row of up to 128 elements takes one load of a lane. */
template <uint32_t STRIDE> struct row_shape {
	static constexpr uint32_t lanes = STRIDE < 128u ? STRIDE / 4u : 32u;
	static constexpr uint32_t quads = STRIDE / (4u * lanes);
	static constexpr uint32_t groups = 32u / lanes;
};

template <uint32_t QUADS> struct row_part {
	float4 q[QUADS];
};

/* Sum over the lanes of a group, the same bits in each of them. */
template <uint32_t LANES> GPU_FN float group_sum(float v)
{
#pragma unroll
	for (uint32_t width = LANES / 2; width > 0; width /= 2)
		v += __shfl_xor_sync(GPU_ALL_LANES, v, (int)width, (int)LANES);
	return v;
}

GPU_FN float quad_dot(float4 a, float4 b, float sum)
{
	return BPR_FMA(a.w, b.w, BPR_FMA(a.z, b.z, BPR_FMA(a.y, b.y, BPR_FMA(a.x, b.x, sum))));
}

GPU_FN float4 quad_minus(float4 a, float4 b)
{
	return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}

/* keep * a + gain * b */
GPU_FN float4 quad_blend(float keep, float4 a, float gain, float4 b)
{
	return make_float4(BPR_FMA(keep, a.x, gain * b.x), BPR_FMA(keep, a.y, gain * b.y), BPR_FMA(keep, a.z, gain * b.z), BPR_FMA(keep, a.w, gain * b.w));
}

template <uint32_t STRIDE, int BF16> GPU_FN row_part<row_shape<STRIDE>::quads> row_load(const void *table, uint32_t row, uint32_t sub)
{
	row_part<row_shape<STRIDE>::quads> part;
#pragma unroll
	for (uint32_t q = 0; q < row_shape<STRIDE>::quads; q++) {
		size_t at = (size_t)row * STRIDE + (q * row_shape<STRIDE>::lanes + sub) * 4u;
		if (BF16) {
			uint2 v = gpu_load_bf16x4(static_cast<const uint16_t *>(table) + at);
			part.q[q] = make_float4(gpu_float_of_bf16(v.x), __uint_as_float(v.x & 0xffff0000u), gpu_float_of_bf16(v.y), __uint_as_float(v.y & 0xffff0000u));
		} else {
			part.q[q] = gpu_load4(static_cast<const float *>(table) + at);
		}
	}
	return part;
}

template <uint32_t QUADS> GPU_FN row_part<QUADS> row_zero(void)
{
	row_part<QUADS> part;
#pragma unroll
	for (uint32_t q = 0; q < QUADS; q++)
		part.q[q] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
	return part;
}

/* Random bits for stochastic rounding, 32 from each number: a mixer of 32 bits (two multiplications), whose output is uniform over consecutive inputs. */
GPU_FN uint32_t round_bits(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352du;
	x ^= x >> 15;
	x *= 0x846ca68bu;
	return x ^ x >> 16;
}

/*
 * The bf16 difference that brings `from`, a bf16 number, to `from + by` rounded to bf16 at random, up or down in proportion to how near each is: the mean is
 * from + by. If the two are within a factor of two of each other, which is the rule, it is exact.
 */
GPU_FN uint32_t bf16_step(float from, float by, uint32_t random16)
{
	float to = __uint_as_float((__float_as_uint(from + by) + random16) & 0xffff0000u);
	return gpu_bf16_of_float(to - from);
}

/*
 * Adds part `by` to a row that held `from` when it was read. number: random numbers are made from it and those that follow, QUADS * 2 per lane; fp32 needs
 * neither.
 */
template <uint32_t STRIDE, int BF16>
GPU_FN void row_add(void *table, uint32_t row, uint32_t sub, const row_part<row_shape<STRIDE>::quads> *from, const row_part<row_shape<STRIDE>::quads> *by,
                    uint32_t number)
{
#pragma unroll
	for (uint32_t q = 0; q < row_shape<STRIDE>::quads; q++) {
		size_t at = (size_t)row * STRIDE + (q * row_shape<STRIDE>::lanes + sub) * 4u;
		float4 d = by->q[q];
		if (BF16) {
			float4 f = from->q[q];
			uint32_t a = round_bits(number + q * 2), b = round_bits(number + q * 2 + 1);
			uint2 v = make_uint2(bf16_step(f.x, d.x, a & 0xffffu) | bf16_step(f.y, d.y, a >> 16) << 16,
			                     bf16_step(f.z, d.z, b & 0xffffu) | bf16_step(f.w, d.w, b >> 16) << 16);
			gpu_add_bf16x4(static_cast<uint16_t *>(table) + at, v);
		} else {
			gpu_add4(static_cast<float *>(table) + at, d);
		}
	}
}

#endif
