// E4M3: 4 bits of exponent, 3 of mantissa, largest 448. In plain arithmetic, so that any card can. Knows no scales.
#pragma once
#include "common.cuh"

#define FP8_LARGEST 448.0f
#define FP8_LEAST_NORMAL 0.015625f
#define FP8_SUBNORMALS 512.0f

// Nearest, of two as near the even; |x| <= 448.
__device__ __forceinline__ uint32 toFp8(float x) {
  const uint32 bits = __float_as_uint(x), sign = bits >> 31 << 7;
  const float magnitude = fabsf(x);
  // Below the least normal number steps are of equal size; 8 of them make the least normal one, as the format has it.
  if (magnitude < FP8_LEAST_NORMAL) return sign | (uint32)rintf(magnitude * FP8_SUBNORMALS);
  const uint32 rounded = (bits & 0x7fffffff) + 0x7ffff + ((bits >> 20) & 1);
  return sign | min((rounded >> 20) - ((127 - 7) << 3), 0x7eu);
}

__device__ __forceinline__ float fromFp8(uint32 x) {
  const uint32 exponent = x >> 3 & 15, mantissa = x & 7;
  const float magnitude = exponent == 0 ? mantissa / FP8_SUBNORMALS : __uint_as_float((exponent + 127 - 7) << 23 | mantissa << 20);
  return x & 0x80 ? -magnitude : magnitude;
}
