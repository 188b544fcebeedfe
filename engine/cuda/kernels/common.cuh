// What every kernel file needs: fixed-width names, the two 16-bit number formats, warp reductions, 16-byte
// accesses. Includes nothing, so that NVRTC needs no toolkit headers. Knows no page and no model.
#pragma once

typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;
typedef unsigned long long uint64;
typedef long long int64;

#define WARP 32
#define FULL_WARP 0xffffffffu
#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// A 16-bit number as it lies in memory. A struct, so that no arithmetic happens on the bits by accident.
struct alignas(2) element { uint16 bits; };

__device__ __forceinline__ float toFloat(element x) {
#ifdef ELEMENT_FP16
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
#else
  return __uint_as_float((uint32)x.bits << 16);
#endif
}

__device__ __forceinline__ element toElement(float x) {
  element result;
#ifdef ELEMENT_FP16
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#endif
  return result;
}

// Two numbers in one register, `low` in the lower half.
__device__ __forceinline__ uint32 packElements(float low, float high) {
  uint32 result;
#ifdef ELEMENT_FP16
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#endif
  return result;
}

__device__ __forceinline__ float lowElement(uint32 pair) { return toFloat(element{(uint16)(pair & 0xffff)}); }
__device__ __forceinline__ float highElement(uint32 pair) { return toFloat(element{(uint16)(pair >> 16)}); }

// Eight numbers: one 16-byte access.
struct alignas(16) eight { uint32 pair[4]; };

__device__ __forceinline__ void unpackEight(const eight& from, float* to) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    to[2 * i] = lowElement(from.pair[i]);
    to[2 * i + 1] = highElement(from.pair[i]);
  }
}

__device__ __forceinline__ eight packEight(const float* from) {
  eight result;
#pragma unroll
  for (int i = 0; i < 4; i++) result.pair[i] = packElements(from[2 * i], from[2 * i + 1]);
  return result;
}

__device__ __forceinline__ bool isAligned16(const void* pointer) { return ((uint64)pointer & 15) == 0; }

// Sum over the lanes of an aligned group of `lanes` (a power of two), in each of them.
__device__ __forceinline__ float sumOverLanes(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL_WARP, x, step);
  return x;
}

// Sum over the block, in every thread; `scratch` has a float for each warp. All threads must call it.
__device__ __forceinline__ float sumOverBlock(float x, float* scratch) {
  x = sumOverLanes(x, WARP);
  __syncthreads();
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < (int)(blockDim.x / WARP); warp++) total += scratch[warp];
  return total;
}

// Programmatic launch (Hopper): a kernel may begin while the one before it still runs. What an earlier kernel of the
// stream wrote may be read after awaitInputs only; weights and the description of the step may be read before. Every
// block comes to awaitInputs, if only to leave: else a kernel could end before those that it stands between. Launched in
// the ordinary way both do nothing.
__device__ __forceinline__ void awaitInputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void letNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
