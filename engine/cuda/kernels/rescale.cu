// Weights of a checkpoint to the element type, in place, once at load: bf16 numbers times a power of two are fp16 numbers,
// all bits kept (fp16 has more of them, and less range). Knows no layers. Contract: CONTRACT.md.
#include "common.cuh"

#define THREADS 256

__device__ __forceinline__ float fromBf16(uint16 bits) { return __uint_as_float((uint32)bits << 16); }

// The largest magnitude, as the bits of a bf16 number without its sign; `largest` begins at 0.
extern "C" __global__ void __launch_bounds__(THREADS)
largest_bf16(const uint16* w, uint32* largest, int64 count) {
  uint32 most = 0;
  for (int64 i = (int64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64)gridDim.x * THREADS) most = max(most, (uint32)w[i] & 0x7fff);
  for (int step = WARP / 2; step > 0; step /= 2) most = max(most, __shfl_xor_sync(FULL_WARP, most, step));
  if (threadIdx.x % WARP == 0) atomicMax(largest, most);
}

// w: bf16 numbers where isBf16 is 1, else of the element type.
extern "C" __global__ void __launch_bounds__(THREADS)
rescale(uint16* w, int64 count, int isBf16, float factor) {
  for (int64 i = (int64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64)gridDim.x * THREADS) {
    const float value = isBf16 ? fromBf16(w[i]) : toFloat(element{w[i]});
    w[i] = toElement(value * factor).bits;
  }
}
