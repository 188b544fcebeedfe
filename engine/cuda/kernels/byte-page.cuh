// Pages of KV memory in 8 bits, int8 (KV_INT8) or E4M3 (KV_FP8): a byte for each channel, and behind them a scale for each
// token. What is read is ELEMENT(byte * scale): every kernel that reads such a page sees the same 16-bit numbers. A token's
// scale is its own, so what is stored of it does not depend on its company. Knows the layout of CONTRACT.md.
#pragma once
#include "fp8.cuh"
#include "page.cuh"

#if defined(KV_INT8) || defined(KV_FP8)
#define KV_BYTES

#define SCALES_AT PAGE_ELEMENTS
#define PAGE_BYTES (SCALES_AT + PAGE_TOKENS * 4)
#ifdef KV_FP8
#define LARGEST_NUMBER FP8_LARGEST
#else
#define LARGEST_NUMBER 127.0f
#endif

__device__ __forceinline__ int64 byteRowOffset(int row) { return (int64)row * PAGE_BYTES; }

// No swizzle: bytes are widened before a matrix instruction reads them.
__device__ __forceinline__ int byteOffset(int token, int channel) { return ((channel / 64) * PAGE_TOKENS + token) * 64 + channel % 64; }

// `most`: the largest size of a number of the token.
__device__ __forceinline__ float scaleOf(float most) { return most == 0 ? 1 : most / LARGEST_NUMBER; }

__device__ __forceinline__ uint32 byteOf(float x) {
  x = fminf(fmaxf(x, -LARGEST_NUMBER), LARGEST_NUMBER);
#ifdef KV_FP8
  return toFp8(x);
#else
  return (uint32)__float2int_rn(x) & 0xff;
#endif
}

// What is read of a byte.
__device__ __forceinline__ element elementOf(uint32 byte, float scale) {
#ifdef KV_FP8
  return toElement(fromFp8(byte) * scale);
#else
  return toElement((float)(signed char)byte * scale);
#endif
}

// The same of four bytes.
__device__ __forceinline__ void widenFour(uint32 bytes, float scale, float* to) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
#ifdef KV_FP8
    // The exponent in float's place is too small by 120: a denormal number becomes what it stands for.
    const uint32 top = __byte_perm(bytes, 0, 0x0444 | i << 12);
    to[i] = __uint_as_float((top & 0x80000000u) | (top & 0x7f000000u) >> 4) * 1.329227995784916e36f * scale;
#else
    // As the last bits of 2^23 + 128 + x.
    to[i] = (__uint_as_float(__byte_perm(bytes ^ 0x80808080u, 0x4b000000u, 0x7540 | i)) - 8388736.0f) * scale;
#endif
  }
}

__device__ __forceinline__ eight widenEight(uint2 bytes, float scale) {
  float numbers[8];
  widenFour(bytes.x, scale, numbers);
  widenFour(bytes.y, scale, numbers + 4);
  return packEight(numbers);
}

// A page of bytes to one of 16-bit numbers, by all threads of the block.
__device__ __forceinline__ void widenPage(const uint8* from, element* to, int thread, int threads) {
  const float* scales = (const float*)(from + SCALES_AT);
#pragma unroll 4
  for (int i = thread; i < PAGE_ELEMENTS / 8; i += threads) {
    const int row = i / ROW_UNITS, token = row % PAGE_TOKENS;
    *(eight*)(to + row * 64 + ((i % ROW_UNITS) ^ (token & 7)) * 8) = widenEight(((const uint2*)from)[i], scales[token]);
  }
}
#endif
