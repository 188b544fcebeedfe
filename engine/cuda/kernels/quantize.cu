// Weights to fp8 (E4M3: 4 bits of exponent, 3 of mantissa, largest 448) with a scale for each output, once at load; and
// back to 16 bits for products of many rows. A block for each row of W [outputs, inputs]. In plain arithmetic, so that
// any card can. Contract: CONTRACT.md.
#include "common.cuh"

#define THREADS 256
#define LARGEST 448.0f
#define LEAST_NORMAL 0.015625f
#define SUBNORMALS 512.0f

// Nearest, of two as near the even; |x| <= 448.
__device__ __forceinline__ uint32 toFp8(float x) {
  const uint32 bits = __float_as_uint(x), sign = bits >> 31 << 7;
  const float magnitude = fabsf(x);
  // Below the least normal number steps are of equal size; 8 of them make the least normal one, as the format has it.
  if (magnitude < LEAST_NORMAL) return sign | (uint32)rintf(magnitude * SUBNORMALS);
  const uint32 rounded = (bits & 0x7fffffff) + 0x7ffff + ((bits >> 20) & 1);
  return sign | min((rounded >> 20) - ((127 - 7) << 3), 0x7eu);
}

__device__ __forceinline__ float fromFp8(uint32 x) {
  const uint32 exponent = x >> 3 & 15, mantissa = x & 7;
  const float magnitude = exponent == 0 ? mantissa / SUBNORMALS : __uint_as_float((exponent + 127 - 7) << 23 | mantissa << 20);
  return x & 0x80 ? -magnitude : magnitude;
}

extern "C" __global__ void __launch_bounds__(THREADS)
quantize_rows(const element* w, uint8* out, float* scales, int inputs, float factor) {
  __shared__ float scratch[THREADS / WARP];
  const element* row = w + (int64)blockIdx.x * inputs;
  float most = 0;
  for (int i = threadIdx.x; i < inputs; i += THREADS) most = fmaxf(most, fabsf(toFloat(row[i])));
  for (int step = WARP / 2; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, step));
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = most;
  __syncthreads();
  for (int warp = 0; warp < THREADS / WARP; warp++) most = fmaxf(most, scratch[warp]);
  const float scale = most == 0 ? 1 : most / LARGEST;
  for (int i = threadIdx.x; i < inputs; i += THREADS) out[(int64)blockIdx.x * inputs + i] = (uint8)toFp8(fminf(fmaxf(toFloat(row[i]) / scale, -LARGEST), LARGEST));
  if (threadIdx.x == 0) scales[blockIdx.x] = scale * factor;
}

extern "C" __global__ void __launch_bounds__(THREADS)
dequantize_rows(const uint8* w, const float* scales, element* out, int inputs) {
  letNextBegin();
  awaitInputs();
  const float scale = scales[blockIdx.x];
  const uint8* row = w + (int64)blockIdx.x * inputs;
  element* to = out + (int64)blockIdx.x * inputs;
  if (inputs % 16 != 0) {
    for (int i = threadIdx.x; i < inputs; i += THREADS) to[i] = toElement(fromFp8(row[i]) * scale);
    return;
  }
  for (int i = threadIdx.x * 16; i < inputs; i += THREADS * 16) {
    const uint4 packed = *(const uint4*)(row + i);
    const uint32 words[4] = {packed.x, packed.y, packed.z, packed.w};
    float values[16];
#pragma unroll
    for (int j = 0; j < 16; j++) values[j] = fromFp8(words[j / 4] >> j % 4 * 8 & 255) * scale;
    *(eight*)(to + i) = packEight(values);
    *(eight*)(to + i + 8) = packEight(values + 8);
  }
}
