// Weights to fp8 with a scale for each output, once at load; and back to 16 bits for products of many rows. A block for
// each row of W [outputs, inputs]. Contract: CONTRACT.md.
#include "fp8.cuh"

#define THREADS 256

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
  const float scale = most == 0 ? 1 : most / FP8_LARGEST;
  for (int i = threadIdx.x; i < inputs; i += THREADS) out[(int64)blockIdx.x * inputs + i] = (uint8)toFp8(fminf(fmaxf(toFloat(row[i]) / scale, -FP8_LARGEST), FP8_LARGEST));
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
