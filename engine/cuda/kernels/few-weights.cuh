// Weights as linear layers of few rows read them: 16-byte pieces of rows of W, in 16 bits or fp8 (E4M3), to fragments of the
// tensor core's product. Knows no blocks and no rows of x. Contract: CONTRACT.md.
#pragma once
#include "mma.cuh"

// Channels of W in one 16-byte access.
#ifdef WEIGHT_FP8
typedef uint8 weight;
#define TAKE 16
#else
typedef element weight;
#define TAKE 8
#endif

// fp8's exponent in the wider format's place is too small by this power of two. What x is multiplied by brings the sums
// back to where fp32 has its full precision; the rest is left for the end. Hopper has an instruction for fp16.
#if defined(WEIGHT_FP8) && !defined(FP8_CONVERT)
#ifdef ELEMENT_FP16
#define INPUT_FACTOR 1.0f
#define OUTPUT_FACTOR 256.0f
#else
#define INPUT_FACTOR 1152921504606846976.0f
#define OUTPUT_FACTOR 1152921504606846976.0f
#endif
#else
#define INPUT_FACTOR 1.0f
#define OUTPUT_FACTOR 1.0f
#endif

__device__ __forceinline__ uint4 loadStreaming(const void* from) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from));
  return x;
}

// Four channels of a row of W as the two registers of a fragment.
__device__ __forceinline__ void unpackWeights(const uint4& from, int step, uint32& low, uint32& high) {
#ifdef WEIGHT_FP8
  const uint32 four = step == 0 ? from.x : step == 1 ? from.y : step == 2 ? from.z : from.w;
#ifdef FP8_CONVERT
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.rn.f16x2.e4m3x2 %0, low; cvt.rn.f16x2.e4m3x2 %1, high;}" : "=r"(low), "=r"(high) : "r"(four));
#else
  const uint32 first = __byte_perm(four, 0, 0x1404), second = __byte_perm(four, 0, 0x3424);
#ifdef ELEMENT_FP16
  low = (first & 0x80008000u) | ((first & 0x7f007f00u) >> 1);
  high = (second & 0x80008000u) | ((second & 0x7f007f00u) >> 1);
#else
  low = (first & 0x80008000u) | ((first & 0x7f007f00u) >> 4);
  high = (second & 0x80008000u) | ((second & 0x7f007f00u) >> 4);
#endif
#endif
#else
  low = step == 0 ? from.x : from.z;
  high = step == 0 ? from.y : from.w;
#endif
}

__device__ __forceinline__ uint32 scaleInput(uint32 pair) {
#if defined(WEIGHT_FP8) && !defined(ELEMENT_FP16)
  return packElements(lowElement(pair) * INPUT_FACTOR, highElement(pair) * INPUT_FACTOR);
#else
  return pair;
#endif
}
